/* A folder as a remote, laid out like an objects folder: packs/ and tmp/.
 *
 * It may sit on NFS or a disk that is pulled out, so nothing is ever replaced or appended to: a file is written aside, fsynced, and
 * linked into place.  Temporaries that a killed push left are removed by a later push, a day after.
 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "store/remote.h"

#define TMP_PREFIX "push-"
#define TMP_STALE_S (24LL * 3600)
#define KEY_MAX 128

struct remote_dir {
    struct remote base; /* first: a remote's address is its */
    char *path;
    int dir, packs, tmp;
    int fd; /* of the key read last, -1: none */
    char key[KEY_MAX];
};

static struct remote_dir *dir_of(struct remote *r)
{
    return (struct remote_dir *)r;
}

static void dir_close(struct remote *r)
{
    struct remote_dir *d = dir_of(r);

    os_close_quiet(&d->fd);
    os_close_quiet(&d->tmp);
    os_close_quiet(&d->packs);
    os_close_quiet(&d->dir);
    free(d->path);
    free(d->base.name);
    free(d);
}

/* Best effort: what cannot be removed only takes space. */
static void remove_stale(struct remote_dir *d)
{
    const int64_t before_s = os_now_ns() / 1000000000 - TMP_STALE_S;
    struct os_entry *entries = NULL;
    struct err ignored = ERR_INIT;
    struct stat info;
    size_t count = 0;

    if (os_list(d->tmp, &entries, &count, &ignored))
        return;
    for (size_t i = 0; i < count; i++)
        if (strncmp(entries[i].name, TMP_PREFIX, strlen(TMP_PREFIX)) == 0 &&
            os_stat_at(d->tmp, entries[i].name, &info, &ignored) == OK &&
            info.st_mtim.tv_sec < before_s)
            (void)!os_unlink(d->tmp, entries[i].name, &ignored);
    free(entries);
}

/* Only the last folder is made: a missing parent is more likely a disk that is not mounted. */
static enum err_code make_folders(struct remote_dir *d, struct err *err)
{
    enum err_code rc = os_mkdir(AT_FDCWD, d->path, 0777, err);

    if (rc)
        return rc;
    rc = os_open_dir(AT_FDCWD, d->path, &d->dir, err);
    if (!rc)
        rc = os_mkdir(d->dir, "packs", 0777, err);
    if (!rc)
        rc = os_mkdir(d->dir, "tmp", 0777, err);
    if (!rc)
        rc = os_fsync(d->dir, err);
    return rc;
}

static enum err_code dir_open(const struct remote_config *c, bool create, struct remote **out,
                              struct err *err)
{
    struct remote_dir *d = mem_zero(1, sizeof(*d));
    enum err_code rc;

    d->base.ops = &remote_dir_ops;
    d->base.name = mem_strdup(c->name);
    d->path = mem_strdup(c->url);
    d->dir = d->packs = d->tmp = d->fd = -1;
    rc = create ? make_folders(d, err) : os_open_dir(AT_FDCWD, d->path, &d->dir, err);
    if (!rc)
        rc = os_open_dir(d->dir, "packs", &d->packs, err);
    if (!rc && create)
        rc = os_open_dir(d->dir, "tmp", &d->tmp, err);
    if (!rc && create)
        remove_stale(d);
    if (!rc) {
        *out = &d->base;
        return OK;
    }
    if (rc == ERR_NOT_FOUND)
        err_prefix(err, "remote %s is not at %s (not mounted, or nothing pushed yet?)", c->name,
                   d->path);
    else
        err_prefix(err, "remote %s", c->name);
    dir_close(&d->base);
    return rc;
}

static enum err_code dir_list(struct remote *r, const char *prefix, remote_key_fn fn, void *arg,
                              struct err *err)
{
    struct remote_dir *d = dir_of(r);
    struct os_entry *entries = NULL;
    size_t count = 0;
    enum err_code rc = os_list(d->packs, &entries, &count, err);

    for (size_t i = 0; i < count && !rc; i++) {
        char key[KEY_MAX];
        struct stat info;

        if (entries[i].type != DT_REG || strlen(entries[i].name) > KEY_MAX - 8)
            continue;
        (void)snprintf(key, sizeof(key), "packs/%s", entries[i].name);
        if (strncmp(key, prefix, strlen(prefix)) != 0)
            continue;
        rc = os_stat_at(d->packs, entries[i].name, &info, err);
        if (!rc)
            rc = fn(arg, key, info.st_size, err);
        else if (rc == ERR_NOT_FOUND) /* gone since it was listed */
            rc = OK;
    }
    free(entries);
    return rc;
}

static enum err_code dir_has(struct remote *r, const char *key, bool *has, int64_t *size,
                             struct err *err)
{
    struct stat info;
    enum err_code rc = os_stat_at(dir_of(r)->dir, key, &info, err);

    *has = !rc && S_ISREG(info.st_mode);
    *size = *has ? info.st_size : 0;
    return rc == ERR_NOT_FOUND ? OK : rc;
}

/* The name is taken: by the same bytes, since keys are digests, or by a file that was cut short. */
static enum err_code taken(struct remote_dir *d, const char *key, int64_t size, struct err *err)
{
    struct stat info;
    enum err_code rc = os_stat_at(d->dir, key, &info, err);

    if (rc)
        return rc;
    if (info.st_size != size)
        return err_set(err, ERR_DAMAGED,
                       "remote %s: %s/%s has %lld bytes where %lld belong; move it away and push "
                       "again",
                       d->base.name, d->path, key, (long long)info.st_size, (long long)size);
    /* Whoever linked it may not have come to sync the folder. */
    rc = os_fsync(d->packs, err);
    return rc ? rc : err_set(err, ERR_EXISTS, "remote %s has %s", d->base.name, key);
}

static enum err_code write_aside(struct remote_dir *d, const char *name, int fd, int64_t size,
                                 struct err *err)
{
    int to = -1;
    enum err_code rc = os_open(d->tmp, name, O_WRONLY | O_CREAT | O_EXCL, 0444, &to, err);

    if (rc)
        return rc;
    rc = os_copy(fd, 0, to, 0, size, err);
    if (!rc)
        rc = os_fsync(to, err);
    if (!rc)
        return os_close(&to, err);
    os_close_quiet(&to);
    return rc;
}

static enum err_code dir_put(struct remote *r, const char *key, int fd, int64_t size,
                             struct err *err)
{
    struct remote_dir *d = dir_of(r);
    struct err ignored = ERR_INIT;
    uint64_t random;
    char name[32];
    enum err_code rc;

    CHECK(d->tmp >= 0); /* opened for pushing */
    CHECK(strncmp(key, "packs/", 6) == 0);
    os_random(&random, sizeof(random));
    (void)snprintf(name, sizeof(name), TMP_PREFIX "%016" PRIx64, random);
    rc = write_aside(d, name, fd, size, err);
    if (!rc)
        rc = os_link(d->tmp, name, d->dir, key, err);
    if (rc == ERR_EXISTS)
        rc = taken(d, key, size, err);
    else if (!rc)
        rc = os_fsync(d->packs, err);
    (void)!os_unlink(d->tmp, name, &ignored);
    return rc;
}

static enum err_code open_key(struct remote_dir *d, const char *key, struct err *err)
{
    struct stat info;
    enum err_code rc;

    if (d->fd >= 0 && strcmp(d->key, key) == 0)
        return OK;
    os_close_quiet(&d->fd);
    CHECK(strlen(key) < KEY_MAX);
    memcpy(d->key, key, strlen(key) + 1);
    /* Not blocking: somebody may have put a fifo there. */
    rc = os_open(d->dir, key, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, &d->fd, err);
    if (!rc)
        rc = os_stat(d->fd, &info, err);
    if (!rc && !S_ISREG(info.st_mode))
        rc = err_set(err, ERR_DAMAGED, "remote %s: %s is no regular file", d->base.name, key);
    if (rc)
        os_close_quiet(&d->fd);
    return rc;
}

static enum err_code dir_range(struct remote *r, const char *key, void *p, size_t n, int64_t off,
                               struct err *err)
{
    enum err_code rc = open_key(dir_of(r), key, err);

    return rc ? rc : os_pread_all(dir_of(r)->fd, p, n, off, err);
}

static enum err_code dir_get(struct remote *r, const char *key, int fd, struct err *err)
{
    struct remote_dir *d = dir_of(r);
    struct stat info;
    enum err_code rc = open_key(d, key, err);

    if (!rc)
        rc = os_stat(d->fd, &info, err);
    return rc ? rc : os_copy(d->fd, 0, fd, 0, info.st_size, err);
}

const struct remote_ops remote_dir_ops = {
    .type = "dir",
    .open = dir_open,
    .close = dir_close,
    .list = dir_list,
    .has = dir_has,
    .put = dir_put,
    .range = dir_range,
    .get = dir_get,
};
