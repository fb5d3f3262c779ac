/* The parts of os.h that take several calls: lists, whole files, trees. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"

/* ---- lists ------------------------------------------------------------------------------------- */

#define LIST_BYTES_MAX ((size_t)4 << 30) /* names of one directory: tens of millions of files */

struct listing {
    struct buf entries; /* of struct os_entry, name not yet set */
    struct buf names;   /* NUL-terminated, in the same order */
};

static unsigned char type_of_mode(mode_t mode)
{
    return (unsigned char)IFTODT(mode);
}

/* One directory entry into the listing.  Gone meanwhile counts as never seen. */
static void list_add(struct listing *l, int dir, const struct dirent *d)
{
    struct os_entry e = {.type = d->d_type, .ino = d->d_ino};
    struct stat st;

    if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
        return;
    if (e.type == DT_UNKNOWN) {
        if (fstatat(dir, d->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            return;
        e.type = type_of_mode(st.st_mode);
    }
    buf_add(&l->entries, &e, sizeof(e));
    buf_add(&l->names, d->d_name, strlen(d->d_name) + 1);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct os_entry *)a)->name, ((const struct os_entry *)b)->name);
}

/* Both buffers into one allocation: the array, then the names. */
static void list_join(const struct listing *l, struct os_entry **entries, size_t *count)
{
    const size_t n = l->entries.n / sizeof(struct os_entry);
    char *block = mem_alloc(l->entries.n + l->names.n);
    struct os_entry *out = (struct os_entry *)(void *)block;
    char *name = block + l->entries.n;

    if (n > 0) {
        memcpy(block, l->entries.p, l->entries.n);
        memcpy(name, l->names.p, l->names.n);
    }
    for (size_t i = 0; i < n; i++) {
        out[i].name = name;
        name += strlen(name) + 1;
    }
    if (n > 0)
        qsort(out, n, sizeof(*out), by_name);
    *entries = out;
    *count = n;
}

enum err_code os_list(int dir, struct os_entry **entries, size_t *count, struct err *err)
{
    struct listing l;
    enum err_code rc;
    DIR *stream = NULL;
    int fd = -1;

    CHECK(entries);
    CHECK(count);
    *entries = NULL;
    *count = 0;
    buf_init(&l.entries, LIST_BYTES_MAX);
    buf_init(&l.names, LIST_BYTES_MAX);

    /* A descriptor of its own, because a duplicate would share the caller's position. */
    rc = os_open_dir(dir, ".", &fd, err);
    if (rc)
        goto out;
    stream = fdopendir(fd);
    if (!stream) {
        rc = err_sys(err, errno, "list directory");
        goto out;
    }
    for (;;) {
        errno = 0;
        const struct dirent *d = readdir(stream);

        if (!d)
            break;
        list_add(&l, fd, d);
    }
    if (errno) {
        rc = err_sys(err, errno, "list directory");
        goto out;
    }
    rc = buf_check(&l.entries, "list of a directory", err);
    if (!rc)
        rc = buf_check(&l.names, "names in a directory", err);
    if (!rc)
        list_join(&l, entries, count);
out:
    if (stream)
        closedir(stream);
    else
        os_close_quiet(&fd);
    buf_release(&l.entries);
    buf_release(&l.names);
    return rc;
}

/* ---- whole files ------------------------------------------------------------------------------- */

#define READ_STEP ((size_t)64 << 10) /* where the size is not known, as in /proc */

/* To the end of fd; hint is what the file's size should be. */
static enum err_code read_rest(int fd, size_t hint, size_t max, struct buf *out, struct err *err)
{
    if (max > out->max)
        max = out->max;
    for (;;) {
        /* One byte more than there should be: then a single read also finds the end. */
        size_t want = out->n <= hint ? hint - out->n + 1 : READ_STEP, got;
        char last;

        if (want > max - out->n)
            want = max - out->n;

        /* At the limit one byte more must be looked for, but has no room in out. */
        char *room = want ? buf_room(out, want) : &last;

        if (!room)
            return buf_check(out, "file", err);

        const size_t asked = want ? want : 1;
        const enum err_code rc = os_read(fd, room, asked, &got, err);

        if (rc)
            return rc;
        if (!want && got > 0)
            return err_set(err, ERR_LIMIT, "file longer than %zu bytes", max);
        if (want) {
            out->n -= want - got;
            out->p[out->n] = '\0';
        }
        if (got < asked)
            return OK;
    }
}

enum err_code os_read_file(int dir, const char *name, size_t max, struct buf *out, struct err *err)
{
    struct stat st;
    enum err_code rc;
    int fd = -1;

    CHECK(out);
    buf_clear(out);
    rc = os_open(dir, name, O_RDONLY, 0, &fd, err);
    if (rc)
        goto out;
    rc = os_stat(fd, &st, err);
    if (rc)
        goto out;

    const size_t hint = st.st_size > 0 ? (size_t)st.st_size : 0;

    rc = hint > max ? err_set(err, ERR_LIMIT, "file longer than %zu bytes", max)
                    : read_rest(fd, hint, max, out, err);
    if (rc == ERR_LIMIT)
        err_prefix(err, "read %s", name);
out:
    if (rc) {
        out->n = 0;
        if (out->p)
            out->p[0] = '\0';
    }
    os_close_quiet(&fd);
    return rc;
}

/* The directory part of name as a descriptor: the rename below must reach the disk, and that is
 * an fsync of the directory that holds the name. */
static enum err_code open_parent(int dir, const char *name, int *fd, struct err *err)
{
    const char *slash = strrchr(name, '/');

    if (!slash)
        return os_open_dir(dir, ".", fd, err);

    char *parent = mem_strndup(name, slash == name ? 1 : (size_t)(slash - name));
    const enum err_code rc = os_open_dir(dir, parent, fd, err);

    free(parent);
    return rc;
}

static enum err_code write_aside(int parent, const char *aside, const void *p, size_t n,
                                 mode_t mode, struct err *err)
{
    enum err_code rc;
    int fd = -1;

    rc = os_open(parent, aside, O_WRONLY | O_CREAT | O_EXCL, mode, &fd, err);
    if (rc)
        return rc;
    rc = os_write(fd, p, n, err);
    if (!rc)
        rc = os_fsync(fd, err);
    if (!rc)
        rc = os_close(&fd, err);
    os_close_quiet(&fd);
    return rc;
}

enum err_code os_write_file(int dir, const char *name, const void *p, size_t n, mode_t mode,
                            struct err *err)
{
    const char *slash = strrchr(name, '/');
    const char *base = slash ? slash + 1 : name;
    char aside[NAME_MAX + 1];
    uint64_t random;
    enum err_code rc;
    int parent = -1;

    CHECK(p || n == 0);
    os_random(&random, sizeof(random));
    if (snprintf(aside, sizeof(aside), "%s.tmp.%d.%016" PRIx64, base, (int)getpid(), random) >=
        (int)sizeof(aside))
        return err_sys(err, ENAMETOOLONG, "create %s", name);
    rc = open_parent(dir, name, &parent, err);
    if (rc)
        return rc;

    /* The bytes are on disk before they get the name, and the name before we say so. */
    rc = write_aside(parent, aside, p, n, mode, err);
    if (!rc)
        rc = os_rename(parent, aside, parent, base, err);
    if (rc)
        (void)unlinkat(parent, aside, 0); /* not there if it was never made, which is fine */
    else
        rc = os_fsync(parent, err);
    os_close_quiet(&parent);
    return rc;
}

/* ---- trees ------------------------------------------------------------------------------------- */

/* Trees made by users' programs can be deeper than a thread's stack or the table of descriptors,
 * so the walk keeps its own stack and one open directory.  It goes up by "..", and compares what
 * it finds there with what it came from: a tree that is moved while it is removed must not lead
 * the walk somewhere else. */
struct remove_level {
    struct os_entry *entries;
    size_t count, next;
    char *name; /* of this directory in the one above */
    dev_t dev;
    ino_t ino;
};

struct remove_walk {
    struct remove_level *levels;
    size_t depth, room;
    int fd; /* the directory of the top level */
};

/* Nothing can be removed from a directory that we may not write, nor seen in one we may not read.
 * The descriptor is of the kind that needs no rights; /proc gives the way to change its mode. */
static enum err_code open_locked(int dir, const char *name, int *fd, struct err *err)
{
    char link[64];
    enum err_code rc;
    int path = -1;

    rc = os_open(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0, &path, err);
    if (rc)
        return rc;
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", path);
    if (chmod(link, S_IRWXU) != 0)
        rc = err_sys(err, errno, "make %s writable", name);
    else
        rc = os_open_dir(path, ".", fd, err);
    os_close_quiet(&path);
    return rc;
}

static enum err_code open_to_remove(int dir, const char *name, int *fd, struct stat *st,
                                    struct err *err)
{
    enum err_code rc = os_open(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, fd, err);

    if (rc == ERR_DENIED && err->sys == EACCES)
        rc = open_locked(dir, name, fd, err);
    if (!rc)
        rc = os_stat(*fd, st, err);
    if (!rc && (st->st_mode & S_IRWXU) != S_IRWXU)
        rc = os_chmod(*fd, (st->st_mode & 07777) | S_IRWXU, err);
    if (rc)
        os_close_quiet(fd);
    return rc;
}

/* Gone already is as good as removed: somebody else may be removing here too. */
static enum err_code forgive_missing(enum err_code rc, struct err *err)
{
    if (rc != ERR_NOT_FOUND || err->sys != ENOENT)
        return rc;
    *err = (struct err)ERR_INIT;
    return OK;
}

/* Go down into the directory name, or remove name if it is no directory. */
static enum err_code remove_enter(struct remove_walk *w, int dir, const char *name, struct err *err)
{
    struct remove_level level = {0};
    struct stat st = {0};
    enum err_code rc;
    int fd = -1;

    rc = open_to_remove(dir, name, &fd, &st, err);
    if (rc && (err->sys == ENOTDIR || err->sys == ELOOP)) {
        *err = (struct err)ERR_INIT;
        rc = os_unlink(dir, name, err);
    } else if (!rc) {
        rc = os_list(fd, &level.entries, &level.count, err);
    }
    if (rc || fd < 0) {
        os_close_quiet(&fd);
        return rc;
    }
    level.name = mem_strdup(name);
    level.dev = st.st_dev;
    level.ino = st.st_ino;
    if (w->depth == w->room) {
        w->room = w->room ? w->room * 2 : 16;
        w->levels = mem_grow(w->levels, w->room, sizeof(*w->levels));
    }
    w->levels[w->depth++] = level;
    os_close_quiet(&w->fd);
    w->fd = fd;
    return OK;
}

static void level_release(struct remove_level *l)
{
    free(l->entries);
    free(l->name);
    *l = (struct remove_level){0};
}

/* The top level is empty: go up and remove it.  top is where the tree's own name is. */
static enum err_code remove_leave(struct remove_walk *w, int top, struct err *err)
{
    struct remove_level *gone = &w->levels[--w->depth];
    const struct remove_level *above = w->depth ? gone - 1 : NULL;
    struct stat st;
    enum err_code rc = OK;
    int up = -1;

    if (above) {
        rc = os_open_dir(w->fd, "..", &up, err);
        if (!rc)
            rc = os_stat(up, &st, err);
        if (!rc && (st.st_dev != above->dev || st.st_ino != above->ino))
            rc = err_set(err, ERR_CHANGED, "remove directory %s: it was moved meanwhile",
                         gone->name);
    }
    os_close_quiet(&w->fd);
    w->fd = up;
    if (!rc)
        rc = forgive_missing(os_rmdir(above ? up : top, gone->name, err), err);
    level_release(gone);
    return rc;
}

enum err_code os_remove_tree(int dir, const char *name, struct err *err)
{
    struct remove_walk w = {.fd = -1};
    enum err_code rc;

    CHECK(name);
    rc = forgive_missing(remove_enter(&w, dir, name, err), err);
    while (!rc && w.depth > 0) {
        struct remove_level *l = &w.levels[w.depth - 1];

        if (l->next == l->count) {
            rc = remove_leave(&w, dir, err);
            continue;
        }

        const struct os_entry *e = &l->entries[l->next++];

        if (e->type == DT_DIR)
            rc = remove_enter(&w, w.fd, e->name, err);
        else
            rc = os_unlink(w.fd, e->name, err);
        rc = forgive_missing(rc, err);
    }
    os_close_quiet(&w.fd);
    while (w.depth > 0)
        level_release(&w.levels[--w.depth]);
    free(w.levels);
    return rc;
}

enum err_code os_mkdirs(const char *path, mode_t mode, struct err *err)
{
    char *part = mem_strdup(path);
    enum err_code rc = OK;

    /* Cut the path at each slash in turn; a run of slashes, or one at either end, is one. */
    for (char *end = part; !rc && *end;) {
        end += strspn(end, "/");
        end += strcspn(end, "/");

        const char cut = *end;

        *end = '\0';
        /* A parent without these rights could not take the next directory. */
        rc = os_mkdir(AT_FDCWD, part, cut ? mode | S_IWUSR | S_IXUSR : mode, err);
        *end = cut;
    }
    if (!rc && part[0] == '\0')
        rc = err_sys(err, ENOENT, "make directory \"\"");
    free(part);
    return rc;
}
