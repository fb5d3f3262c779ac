/* config_fuzz.c - any bytes as .weir/config.yaml: values in their bounds, or an error. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/config.h"
#include "tests/fuzz/fuzz.h"

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "config_fuzz: not true: %s\n", what);
    abort();
}

static char dir[64];

static void remove_dir(void)
{
    char path[96];

    (void)snprintf(path, sizeof(path), "%s/config.yaml", dir);
    (void)unlink(path);
    (void)rmdir(dir);
}

/* In memory where there is such a place. */
static void write_config(const uint8_t *data, size_t size)
{
    char path[96];
    int fd;

    if (!dir[0]) {
        (void)snprintf(dir, sizeof(dir), "%s/config_fuzz.XXXXXX",
                       access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        must(mkdtemp(dir) != NULL, "there is a folder to work in");
        must(atexit(remove_dir) == 0, "it is removed at the end");
    }
    (void)snprintf(path, sizeof(path), "%s/config.yaml", dir);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    must(fd >= 0, "the file can be written");
    must(write(fd, data, size) == (ssize_t)size, "all of it");
    must(close(fd) == 0, "and closed");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config c = {0};
    struct err err = ERR_INIT;
    enum err_code rc;

    write_config(data, size);
    rc = config_load(dir, &c, &err);
    if (rc == OK) {
        must(c.objects && c.objects[0], "objects are somewhere");
        must(c.cpus >= 0 && c.gpus >= 0 && c.threads >= 0 && c.memory_bytes >= 0,
             "counts are no debts");
        must(c.grace_s >= 0 && c.keep_runs >= 0, "retention is not negative");
        for (size_t i = 0; i < c.remote_count; i++) {
            must(c.remotes[i].name && c.remotes[i].type && c.remotes[i].url, "a remote is whole");
            must(config_remote(&c, c.remotes[i].name) == &c.remotes[i], "and found by its name");
        }
    } else {
        must(err.code == rc && err.text[0], "an error has a text");
    }
    config_release(&c);
    config_release(&c); /* fine on an empty one */
    return 0;
}
