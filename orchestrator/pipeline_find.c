/* Which file is meant when none is named. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "orchestrator/pipeline.h"

static bool has_suffix(const char *name, const char *suffix)
{
    const size_t n = strlen(name), m = strlen(suffix);

    return n > m && strcmp(name + n - m, suffix) == 0;
}

/* Other YAML files lie around, so a pipeline is one that says so: a line "weir:".  Its key may be quoted. */
static bool is_pipeline(int dir, const char *name)
{
    struct buf text;
    struct err err = ERR_INIT;
    bool found = false;

    buf_init(&text, PIPELINE_BYTES_MAX);
    if (os_read_file(dir, name, PIPELINE_BYTES_MAX, &text, &err) == OK)
        for (const char *line = text.p; line && *line && !found; line = strchr(line, '\n')) {
            line += *line == '\n';
            found = strncmp(line, "weir:", 5) == 0 || strncmp(line, "\"weir\":", 7) == 0 ||
                    strncmp(line, "'weir':", 7) == 0;
        }
    buf_release(&text);
    return found;
}

enum err_code pipeline_find_file(const char *dir, struct buf *path, struct err *err)
{
    struct os_entry *entries = NULL;
    size_t count = 0, found = 0;
    int fd = -1;
    enum err_code rc = os_open_dir(AT_FDCWD, dir, &fd, err);

    if (rc == OK)
        rc = os_list(fd, &entries, &count, err);
    buf_clear(path);
    for (size_t i = 0; i < count && rc == OK; i++) {
        const char *name = entries[i].name;

        if (name[0] == '.' || !(has_suffix(name, ".yaml") || has_suffix(name, ".yml")) ||
            !is_pipeline(fd, name))
            continue;
        if (found++ > 0) {
            rc = err_set(err, ERR_USAGE,
                         "several pipelines are here, %s and %s among them; name one", path->p,
                         name);
            break;
        }
        if (strcmp(dir, ".") != 0)
            buf_printf(path, "%s/", dir);
        buf_str(path, name);
    }
    if (rc == OK && found == 0)
        rc = err_set(err, ERR_NOT_FOUND,
                     "no pipeline in %s: no *.yaml there has a line 'weir: 1'; name one",
                     strcmp(dir, ".") == 0 ? "this folder" : dir);
    if (rc == OK)
        rc = buf_check(path, "path", err);
    free(entries);
    os_close_quiet(&fd);
    return rc;
}
