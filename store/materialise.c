/* First everything is looked up (mat_plan.c), then written below a temporary name: directories, files, links, modes; at last the
 * rename.  Nothing is synced: what was materialised can be materialised again.
 *
 * Files are created below descriptors of directories that this call has made itself, with O_EXCL, and links come after all files, so
 * that there is no link yet which could lead a path elsewhere. */
#include "store/materialise.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "base/pool.h"
#include "store/loose.h"
#include "store/mat_plan.h"
#include "store/reader_fetch.h"

#define JOB_FILES_MAX 256
#define JOB_BYTES_MAX (4 << 20)
#define BIG_BYTES                                                                                  \
    (16 << 20) /* from here on one file is worth several threads; below, threads take files each */
#define PATH_STEP 3000 /* below PATH_MAX: longer paths are walked in several steps */

struct work {
    struct store *st;
    const struct mat_plan *plan;
    const struct mat_options *o;
    int root; /* the directory under construction; for a single file, the parent of the destination */
    atomic_bool no_clone, no_link; /* the file system has said so once */
    atomic_int_fast64_t files, bytes, linked, cloned, copied;
};

/* One directory stays open: files come mostly in the order of their directories. */
struct cursor {
    uint32_t dir;
    int fd;
};

static enum err_code open_long(int root, char *path, int *fd, struct err *err)
{
    enum err_code rc = OK;
    int at = -1;

    while (!rc && strlen(path) > PATH_STEP) {
        char *slash = memrchr(path, '/', PATH_STEP);
        int next = -1;

        CHECK(slash); /* a name is far shorter than a step */
        *slash = '\0';
        rc = os_open(at < 0 ? root : at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, &next, err);
        os_close_quiet(&at);
        at = next;
        path = slash + 1;
    }
    if (!rc)
        rc = os_open(at < 0 ? root : at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, fd, err);
    os_close_quiet(&at);
    return rc;
}

static enum err_code cursor_to(const struct work *w, struct cursor *c, uint32_t dir,
                               struct err *err)
{
    struct buf path;
    enum err_code rc;

    if (c->fd >= 0 && c->dir == dir)
        return OK;
    os_close_quiet(&c->fd);
    buf_init(&path, (size_t)TREE_DEPTH_MAX * (TREE_NAME_MAX + 2));
    mat_plan_path(w->plan, dir, NULL, &path);
    rc = open_long(w->root, path.p, &c->fd, err);
    c->dir = dir;
    buf_release(&path);
    return rc;
}

/* ---- one file ---------------------------------------------------------------------------------- */

static mode_t mode_of(const struct work *w, bool exec)
{
    if (w->o->read_only)
        return exec ? 0555 : 0444;
    return exec ? 0755 : 0644;
}

static enum err_code create(const struct work *w, int dir, const struct mat_plan_file *f, int *fd,
                            struct err *err)
{
    return os_open(dir, f->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode_of(w, f->exec), fd,
                   err);
}

static enum err_code write_small(struct work *w, int dir, const struct mat_plan_file *f,
                                 char *bytes, struct err *err)
{
    enum err_code rc;
    int fd = -1;

    rc = fetch_at(w->st, &f->id, &f->loc, bytes, err);
    if (!rc)
        rc = create(w, dir, f, &fd, err);
    if (!rc)
        rc = os_write(fd, bytes, (size_t)f->size, err);
    if (!rc)
        rc = os_close(&fd, err);
    os_close_quiet(&fd);
    if (rc)
        return rc;
    atomic_fetch_add(&w->copied, 1);
    progress_add(w->o->progress, f->size);
    return OK;
}

static bool may_clone(struct work *w)
{
    return (w->o->how == MAT_AUTO || w->o->how == MAT_REFLINK) && !atomic_load(&w->no_clone);
}

/* A link has the mode of the loose file, which is 0444: good for all but executables. */
static bool may_link(struct work *w, const struct mat_plan_file *f)
{
    if (f->exec || atomic_load(&w->no_link))
        return false;
    return w->o->how == MAT_LINK || (w->o->how == MAT_AUTO && (w->o->shielded || geteuid() != 0));
}

/* *done = false: there is no file of that name yet. */
static enum err_code try_clone(struct work *w, int dir, const struct mat_plan_file *f, int loose,
                               bool *done, struct err *err)
{
    enum err_code rc;
    int fd = -1;

    rc = create(w, dir, f, &fd, err);
    if (!rc)
        rc = os_clone(loose, fd, done, err);
    os_close_quiet(&fd);
    if (rc || *done)
        return rc;
    atomic_store(&w->no_clone, true);
    return os_unlink(dir, f->name, err);
}

static enum err_code try_link(struct work *w, int dir, const struct mat_plan_file *f, bool *done,
                              struct err *err)
{
    char name[LOOSE_NAME];
    enum err_code rc;

    loose_name(&f->id, name);
    rc = os_link(w->st->loose, name, dir, f->name, err);
    if (!rc) {
        *done = true;
        return OK;
    }
    if (err->sys == EXDEV || err->sys == EOPNOTSUPP)
        atomic_store(&w->no_link, true);
    /* Also what has too many links already (EMLINK), is another user's (EPERM) or was just taken by a gc. */
    return err->sys == EXDEV || err->sys == EOPNOTSUPP || err->sys == EMLINK || err->sys == EPERM ||
                   err->sys == ENOENT
               ? OK
               : rc;
}

/* Without reading it, if there is a whole file and a way. */
static enum err_code hand_out(struct work *w, int dir, const struct mat_plan_file *f, bool *done,
                              struct err *err)
{
    char name[LOOSE_NAME];
    enum err_code rc;
    int loose = -1;

    *done = false;
    if (f->size < LOOSE_MIN_BYTES || (!may_clone(w) && !may_link(w, f)))
        return OK;
    rc = loose_open(w->st, &f->id, f->size, &loose, err);
    if (rc == ERR_NOT_FOUND || rc == ERR_DAMAGED)
        return OK; /* there may be a packed copy; if not, the copy says what is wrong */
    if (!rc && may_clone(w)) {
        rc = try_clone(w, dir, f, loose, done, err);
        if (*done)
            atomic_fetch_add(&w->cloned, 1);
    }
    if (!rc && !*done && may_link(w, f)) {
        rc = try_link(w, dir, f, done, err);
        if (*done)
            atomic_fetch_add(&w->linked, 1);
    }
    os_close_quiet(&loose);
    if (rc || !*done)
        return rc;
    /* It was used: neither compaction nor a gc shall think it cold. */
    loose_name(&f->id, name);
    rc = os_touch_atime(w->st->loose, name, err);
    return rc == ERR_DENIED || rc == ERR_NOT_FOUND ? OK : rc;
}

static enum err_code write_large(struct work *w, int dir, const struct mat_plan_file *f,
                                 int threads, struct err *err)
{
    enum err_code rc;
    bool done;
    int fd = -1;

    rc = hand_out(w, dir, f, &done, err);
    if (!rc && done)
        progress_add(w->o->progress, f->size);
    if (rc || done)
        return rc;
    /* Asked for last, since only a whole file can be cloned; what is packed has to be written. */
    if (w->o->how == MAT_REFLINK && f->loc.type == LOC_LOOSE)
        return err_set(err, ERR_MISSING, "the file system cannot reflink from the store to here");
    rc = create(w, dir, f, &fd, err);
    if (!rc)
        rc = fetch_copy(w->st, &f->id, fd, threads, w->o->progress, err);
    if (!rc)
        rc = os_close(&fd, err);
    os_close_quiet(&fd);
    if (!rc)
        atomic_fetch_add(&w->copied, 1);
    return rc;
}

static enum err_code write_file(struct work *w, int dir, const struct mat_plan_file *f, char *room,
                                int threads, struct err *err)
{
    enum err_code rc;

    if (f->size < LOOSE_MIN_BYTES)
        rc = write_small(w, dir, f, room, err);
    else
        rc = write_large(w, dir, f, threads, err);
    if (rc)
        return rc;
    atomic_fetch_add(&w->files, 1);
    atomic_fetch_add(&w->bytes, f->size);
    return OK;
}

/* ---- all files --------------------------------------------------------------------------------- */

struct job {
    struct work *w;
    size_t first, count;
};

static enum err_code file_error(const struct work *w, const struct mat_plan_file *f,
                                struct err *err)
{
    struct buf path;

    buf_init(&path, (size_t)TREE_DEPTH_MAX * (TREE_NAME_MAX + 2));
    mat_plan_path(w->plan, f->dir, f->name, &path);
    err_prefix(err, "%.200s", path.p);
    buf_release(&path);
    return err->code;
}

static enum err_code run_job(void *arg, bool cancelled, struct err *err)
{
    const struct job *j = arg;
    struct cursor c = {.fd = -1};
    char *room = mem_alloc(LOOSE_MIN_BYTES);
    enum err_code rc = OK;

    for (size_t i = 0; !rc && !cancelled && i < j->count; i++) {
        const struct mat_plan_file *f = &j->w->plan->files[j->first + i];

        if (f->size >= BIG_BYTES)
            continue;
        rc = cursor_to(j->w, &c, f->dir, err);
        if (!rc)
            rc = write_file(j->w, c.fd, f, room, 1, err);
        if (rc)
            rc = file_error(j->w, f, err);
    }
    os_close_quiet(&c.fd);
    free(room);
    return rc;
}

/* Jobs end where a record ends, so that no two threads need the same frame. */
static size_t cut_jobs(struct work *w, struct job *jobs)
{
    const struct mat_plan *p = w->plan;
    size_t count = 0, first = 0;
    int64_t bytes = 0;

    for (size_t i = 0; i < p->file_count; i++) {
        const struct mat_plan_file *f = &p->files[i], *next = f + 1;

        bytes += f->size < BIG_BYTES ? f->size : 0;
        if (i + 1 < p->file_count && ((i + 1 - first < JOB_FILES_MAX && bytes < JOB_BYTES_MAX) ||
                                      (f->loc.pack == next->loc.pack &&
                                       f->loc.off == next->loc.off && f->loc.type == LOC_FRAME)))
            continue;
        jobs[count] = (struct job){.w = w, .first = first, .count = i + 1 - first};
        count++;
        first = i + 1;
        bytes = 0;
    }
    return count;
}

static enum err_code write_many(struct work *w, struct err *err)
{
    struct job *jobs = mem_alloc((w->plan->file_count + 1) * sizeof(*jobs));
    const size_t count = cut_jobs(w, jobs);
    struct pool *pool = NULL;
    enum err_code rc = OK;

    if (w->st->threads < 2 || count < 2) {
        for (size_t i = 0; !rc && i < count; i++)
            rc = run_job(&jobs[i], false, err);
    } else {
        rc = pool_new(w->st->threads, 2 * w->st->threads, &pool, err);
        for (size_t i = 0; !rc && i < count; i++)
            pool_submit(pool, run_job, &jobs[i]);
        if (!rc)
            rc = pool_wait(pool, err);
    }
    pool_free(pool);
    free(jobs);
    return rc;
}

static enum err_code write_big(struct work *w, struct err *err)
{
    struct cursor c = {.fd = -1};
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < w->plan->file_count; i++) {
        const struct mat_plan_file *f = &w->plan->files[i];

        if (f->size < BIG_BYTES)
            continue;
        rc = cursor_to(w, &c, f->dir, err);
        if (!rc)
            rc = write_file(w, c.fd, f, NULL, w->st->threads, err);
        if (rc)
            rc = file_error(w, f, err);
    }
    os_close_quiet(&c.fd);
    return rc;
}

/* ---- directories and links --------------------------------------------------------------------- */

static enum err_code make_dirs(const struct work *w, struct err *err)
{
    struct cursor c = {.fd = -1};
    enum err_code rc = OK;

    for (size_t i = 1; !rc && i < w->plan->dir_count; i++) {
        rc = cursor_to(w, &c, w->plan->dirs[i].parent, err);
        if (!rc)
            rc = os_mkdir(c.fd, w->plan->dirs[i].name, 0755, err);
    }
    os_close_quiet(&c.fd);
    return rc;
}

static enum err_code make_links(const struct work *w, struct err *err)
{
    struct cursor c = {.fd = -1};
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < w->plan->link_count; i++) {
        const struct mat_plan_link *l = &w->plan->links[i];

        rc = cursor_to(w, &c, l->dir, err);
        if (!rc)
            rc = os_symlink(l->target, c.fd, l->name, err);
    }
    os_close_quiet(&c.fd);
    return rc;
}

/* Children first: a parent without the right to write can still be passed, but the order costs nothing. */
static enum err_code lock_dirs(const struct work *w, struct err *err)
{
    struct cursor c = {.fd = -1};
    enum err_code rc = OK;

    if (!w->o->read_only)
        return OK;
    for (size_t i = w->plan->dir_count; !rc && i-- > 0;) {
        rc = cursor_to(w, &c, (uint32_t)i, err);
        if (!rc)
            rc = os_chmod(c.fd, 0555, err);
    }
    os_close_quiet(&c.fd);
    return rc;
}

static enum err_code write_tree(struct work *w, struct err *err)
{
    enum err_code rc;

    rc = make_dirs(w, err);
    if (!rc)
        rc = write_many(w, err);
    if (!rc)
        rc = write_big(w, err);
    if (!rc)
        rc = make_links(w, err);
    if (!rc)
        rc = lock_dirs(w, err);
    return rc;
}

/* ---- the destination --------------------------------------------------------------------------- */

struct place {
    int parent;
    char name[NAME_MAX + 1], aside[NAME_MAX + 1];
};

static enum err_code find_place(const char *dest, struct place *at, struct err *err)
{
    size_t n = strlen(dest);
    uint64_t random;
    enum err_code rc;
    char *parent;

    while (n > 1 && dest[n - 1] == '/')
        n--;

    const char *slash = memrchr(dest, '/', n);
    const struct str name =
        slash ? (struct str){slash + 1, n - (size_t)(slash + 1 - dest)} : (struct str){dest, n};

    if (name.n == 0 || name.n > NAME_MAX || str_eq(name, STR(".")) || str_eq(name, STR("..")))
        return err_set(err, ERR_INPUT, "\"%.200s\" does not end in the name of something new",
                       dest);
    memcpy(at->name, name.p, name.n);
    at->name[name.n] = '\0';
    os_random(&random, sizeof(random));

    const int shown = name.n > NAME_MAX - 40 ? NAME_MAX - 40 : (int)name.n;

    snprintf(at->aside, sizeof(at->aside), "%.*s.tmp.%d.%016" PRIx64, shown, at->name,
             (int)getpid(), random);
    parent =
        !slash ? mem_strdup(".") : mem_strndup(dest, slash == dest ? 1 : (size_t)(slash - dest));
    rc = os_open_dir(AT_FDCWD, parent, &at->parent, err);
    free(parent);
    return rc;
}

static enum err_code check_new(const struct place *at, const char *dest, struct err *err)
{
    struct stat info;
    const enum err_code rc = os_stat_at(at->parent, at->name, &info, err);

    if (rc == OK)
        return err_set(err, ERR_EXISTS, "%s is there already; nothing is overwritten", dest);
    return rc == ERR_NOT_FOUND ? OK : rc;
}

/* The name is taken only if it is free, also against others who want it at the same moment. */
static enum err_code rename_new(const struct place *at, const char *dest, struct err *err)
{
    int sys = 0;
    enum err_code rc;

    if (!fault_hit(&sys) &&
        renameat2(at->parent, at->aside, at->parent, at->name, RENAME_NOREPLACE) != 0)
        sys = errno;
    if (sys == 0)
        return OK;
    if (sys == EEXIST)
        return err_set(err, ERR_EXISTS, "%s is there already; nothing is overwritten", dest);
    if (sys != EINVAL && sys != ENOSYS)
        return err_sys(err, sys, "rename to %s", dest);
    rc = check_new(at, dest, err); /* NFS, for one, does not know the flag */
    return rc ? rc : os_rename(at->parent, at->aside, at->parent, at->name, err);
}

/* A single file: a plan of one, whose name is the temporary one. */
static enum err_code build_file(struct work *w, struct mat_plan *plan, const struct digest *id,
                                const struct place *at, struct err *err)
{
    struct mat_plan_file f = {.name = at->aside, .id = *id};
    char *room = mem_alloc(LOOSE_MIN_BYTES);
    enum err_code rc;

    (void)plan;
    rc = object_locate(w->st, id, 1, &f.loc, err);
    if (!rc && f.loc.type == 0)
        rc = fetch_absent(id, err);
    f.size = (int64_t)f.loc.raw;
    if (!rc)
        rc = write_file(w, at->parent, &f, room, w->st->threads, err);
    free(room);
    return rc;
}

static enum err_code build_tree(struct work *w, struct mat_plan *plan, const struct digest *id,
                                const struct place *at, struct err *err)
{
    enum err_code rc;
    int root = -1;

    rc = mat_plan_walk(plan, w->st, id, err);
    if (!rc)
        rc = mat_plan_locate(plan, w->st, err);
    if (!rc)
        rc = os_mkdir(at->parent, at->aside, 0755, err);
    if (!rc)
        rc = os_open(at->parent, at->aside, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, &root, err);
    w->root = root;
    if (!rc)
        rc = write_tree(w, err);
    os_close_quiet(&root);
    return rc;
}

enum err_code materialise(struct store *st, enum obj_kind kind, const struct digest *id,
                          const char *dest, const struct mat_options *o, struct mat_result *out,
                          struct err *err)
{
    struct place at = {.parent = -1};
    struct mat_plan plan = {0};
    struct work w = {.st = st, .plan = &plan, .o = o, .root = -1};
    enum err_code rc;

    CHECK(st);
    CHECK(o);
    CHECK(kind == OBJ_BLOB || kind == OBJ_TREE);
    mat_plan_init(&plan);
    rc = find_place(dest, &at, err);
    if (!rc)
        rc = check_new(&at, dest, err);
    if (!rc)
        rc = (kind == OBJ_TREE ? build_tree : build_file)(&w, &plan, id, &at, err);
    if (!rc)
        rc = rename_new(&at, dest, err);
    if (rc && at.parent >= 0 && at.aside[0]) {
        struct err removal = ERR_INIT; /* the first error is the one to tell */

        if (os_remove_tree(at.parent, at.aside, &removal))
            err_prefix(err, "%s is left over", at.aside);
    }
    os_close_quiet(&at.parent);
    mat_plan_release(&plan);
    if (out)
        *out = (struct mat_result){.files = w.files,
                                   .bytes = w.bytes,
                                   .linked = w.linked,
                                   .cloned = w.cloned,
                                   .copied = w.copied};
    return rc;
}
