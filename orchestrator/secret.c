/* Values of environment variables never leave the machine, and still two tasks with different ones must differ. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "orchestrator/program.h"

#define SECRET_BYTES 32
#define SECRET "secret"

/* Two processes may make it at once: each writes one aside, and the link says whose counts. */
static enum err_code make_secret(int dir, struct err *err)
{
    uint8_t key[SECRET_BYTES];
    char aside[64];
    uint64_t random;
    int fd = -1;
    enum err_code rc;

    os_random(key, sizeof(key));
    os_random(&random, sizeof(random));
    (void)snprintf(aside, sizeof(aside), SECRET ".tmp.%d.%016" PRIx64, (int)getpid(), random);
    rc = os_open(dir, aside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, &fd, err);
    if (!rc)
        rc = os_write(fd, key, sizeof(key), err);
    if (!rc)
        rc = os_fsync(fd, err);
    if (!rc)
        rc = os_close(&fd, err);
    if (!rc) {
        rc = os_link(dir, aside, dir, SECRET, err);
        if (rc == ERR_EXISTS) {
            *err = (struct err)ERR_INIT;
            rc = OK;
        }
        if (!rc)
            rc = os_fsync(dir, err);
    }
    os_close_quiet(&fd);
    (void)unlinkat(dir, aside, 0);
    explicit_bzero(key, sizeof(key));
    return rc;
}

static enum err_code read_secret(int dir, const char *root, uint8_t key[SECRET_BYTES],
                                 struct err *err)
{
    struct stat st;
    int fd = -1;
    enum err_code rc = os_open(dir, SECRET, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, &fd, err);

    if (!rc)
        rc = os_stat(fd, &st, err);
    if (!rc && (!S_ISREG(st.st_mode) || st.st_size != SECRET_BYTES))
        rc = err_set(err, ERR_DAMAGED,
                     "%s/" SECRET " is to be a file of %d bytes; put the right one back, or remove "
                     "it: then tasks with declared env run again",
                     root, SECRET_BYTES);
    if (!rc && (st.st_mode & 077))
        rc = err_set(err, ERR_CONFIG,
                     "%s/" SECRET " can be read by others; say chmod 600 %s/" SECRET, root, root);
    if (!rc)
        rc = os_pread_all(fd, key, SECRET_BYTES, 0, err);
    os_close_quiet(&fd);
    return rc;
}

enum err_code secret_hmac(struct store *st, const char *name, const char *value, char out[80],
                          struct err *err)
{
    uint8_t key[SECRET_BYTES] = {0};
    char hex[DIGEST_HEX + 1];
    struct digest mac;
    struct buf text;
    int dir = -1;
    enum err_code rc;

    CHECK(st);
    CHECK(name);
    if (!value)
        return err_set(err, ERR_CONFIG,
                       "the environment has no %s, which env: of the stage declares; set it, or "
                       "take it off the list",
                       name);
    rc = os_open_dir(AT_FDCWD, st->root, &dir, err);
    if (!rc) {
        rc = read_secret(dir, st->root, key, err);
        if (rc == ERR_NOT_FOUND) {
            *err = (struct err)ERR_INIT;
            rc = make_secret(dir, err);
            if (!rc)
                rc = read_secret(dir, st->root, key, err);
        }
    }
    if (!rc) {
        /* With the name, so that two variables with one value do not show that they have. */
        buf_init(&text, strlen(name) + strlen(value) + 2);
        buf_add(&text, name, strlen(name) + 1);
        buf_str(&text, value);
        hmac_sha256(key, sizeof(key), text.p, text.n, &mac);
        explicit_bzero(text.p, text.n);
        buf_release(&text);
        digest_hex(&mac, hex);
        (void)snprintf(out, 80, "hmac-sha256:%s", hex);
    }
    explicit_bzero(key, sizeof(key));
    os_close_quiet(&dir);
    return rc;
}
