#include "store/store_migrate.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/os.h"

#define PATH_BYTES_MAX ((size_t)1 << 16)

enum err_code store_write_format(const struct store *st, int format, struct err *err)
{
    struct buf path;
    char line[64];
    enum err_code rc;

    buf_init(&path, PATH_BYTES_MAX);
    buf_printf(&path, "%s/format", st->root);
    const int n = snprintf(line, sizeof(line), "weir store %d\n", format);

    rc = os_write_file(AT_FDCWD, path.p, line, (size_t)n, 0666, err);
    buf_release(&path);
    return rc;
}

/* Missing is fine: a store need not have an index. */
static enum err_code copy_file(const struct store *st, const char *name, int to_dir, const char *to,
                               struct err *err)
{
    struct buf path;
    struct stat info;
    enum err_code rc;
    int from = -1, fd = -1;

    buf_init(&path, PATH_BYTES_MAX);
    buf_printf(&path, "%s/%s", st->root, name);
    rc = os_open(AT_FDCWD, path.p, O_RDONLY, 0, &from, err);
    buf_release(&path);
    if (rc)
        return rc == ERR_NOT_FOUND ? OK : rc;
    rc = os_stat(from, &info, err);
    if (!rc)
        rc = os_open(to_dir, to, O_WRONLY | O_CREAT | O_TRUNC, 0666, &fd, err);
    if (!rc)
        rc = os_copy(from, 0, fd, 0, info.st_size, err);
    if (!rc)
        rc = os_fsync(fd, err);
    if (!rc)
        rc = os_close(&fd, err);
    os_close_quiet(&fd);
    os_close_quiet(&from);
    return rc;
}

/* Made aside and renamed, so that a backup is whole or not there.  One that is there was made before a migration
 * that was interrupted: it shows the older state and stays. */
static enum err_code back_up(const struct store *st, int from, struct err *err)
{
    char name[64], aside[72];
    struct stat info;
    enum err_code rc;
    int root = -1, dir = -1;

    snprintf(name, sizeof(name), "backup-format-%d", from);
    snprintf(aside, sizeof(aside), "%s.tmp", name);
    rc = os_open_dir(AT_FDCWD, st->root, &root, err);
    if (rc)
        return rc;
    rc = os_stat_at(root, name, &info, err);
    if (rc != ERR_NOT_FOUND)
        goto out;
    rc = os_mkdir(root, aside, 0777, err);
    if (!rc)
        rc = os_open_dir(root, aside, &dir, err);
    if (!rc)
        rc = copy_file(st, "format", dir, "format", err);
    if (!rc)
        rc = copy_file(st, "index/data.mdb", dir, "data.mdb", err);
    if (!rc)
        rc = os_fsync(dir, err);
    if (!rc)
        rc = os_rename(root, aside, root, name, err);
    if (!rc)
        rc = os_fsync(root, err);
out:
    os_close_quiet(&dir);
    os_close_quiet(&root);
    return rc;
}

static const struct migration *step_from(const struct migration *steps, size_t count, int from)
{
    for (size_t i = 0; i < count; i++)
        if (steps[i].from == from)
            return &steps[i];
    return NULL;
}

enum err_code store_migrate(struct store *st, int from, int to, const struct migration *steps,
                            size_t count, struct err *err)
{
    enum err_code rc;

    CHECK(st);
    CHECK(from < to);
    for (int at = from; at < to; at++)
        if (!step_from(steps, count, at))
            return err_set(err, ERR_VERSION,
                           "%s has format %d, and this weir knows no way from there to format %d; "
                           "use the weir that wrote it",
                           st->root, from, to);
    rc = back_up(st, from, err);
    for (int at = from; !rc && at < to; at++) {
        rc = step_from(steps, count, at)->run(st, err);
        if (!rc)
            rc = store_write_format(st, at + 1, err);
    }
    if (rc)
        err_prefix(err, "migrate %s from format %d to %d", st->root, from, to);
    return rc;
}
