/* Moving a file in.  It gets a second name in tmp/ (a link, so that any failure leaves the first one
 * alone), is made read only, hashed where it lies, and published like a copied one; its old name is
 * removed after the commit.
 *
 * Nobody else may write to it meanwhile or afterwards.  A read lease is the kernel's answer to that:
 * it is refused while anybody has the file open for writing, and broken when somebody tries.  Where
 * leases do not exist (network file systems) the times before and after have to do, and later the
 * changed mtime of the loose file. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/os.h"
#include "store/writer_internal.h"

#define NS_PER_S 1000000000LL

/* ---- leases ------------------------------------------------------------------------------------ */

enum lease { LEASE_NONE, LEASE_HELD, LEASE_BUSY };

static enum lease lease_take(int fd)
{
    struct statfs fs;

    /* A broken lease is told by a signal, SIGIO by default, which ends a process; SIGURG is ignored by default. */
    if (fcntl(fd, F_SETSIG, SIGURG) != 0)
        return LEASE_NONE;
    if (fcntl(fd, F_SETLEASE, F_RDLCK) == 0)
        return LEASE_HELD;
    /* NFS answers EAGAIN as well when the server has not delegated the file. */
    if (errno == EAGAIN && fstatfs(fd, &fs) == 0 && fs.f_type != NFS_SUPER_MAGIC)
        return LEASE_BUSY;
    return LEASE_NONE;
}

static void lease_drop(int fd)
{
    (void)fcntl(fd, F_SETLEASE, F_UNLCK);
}

bool adopt_disturbed(const struct large_source *from)
{
    return from->leased && fcntl(from->fd, F_GETLEASE) != F_RDLCK;
}

static enum err_code busy(const char *path, struct err *err)
{
    return err_set(err, ERR_CHANGED,
                   "%s is open for writing; move it in when its writer has closed it", path);
}

/* ---- notes ------------------------------------------------------------------------------------- */

static enum err_code folder_path(int dir, struct buf *out, struct err *err)
{
    char link[64];

    if (dir == AT_FDCWD)
        return os_readlink(AT_FDCWD, "/proc/self/cwd", out, err);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", dir);
    return os_readlink(AT_FDCWD, link, out, err);
}

/* Everything about it that can fail comes before the file is touched; the note counts once it is kept. */
static enum err_code make_note(int dir, const char *name, const struct stat *info, bool moved,
                               struct adopt_note *out, struct err *err)
{
    enum err_code rc;
    struct buf path;

    *out = (struct adopt_note){
        .dev = info->st_dev,
        .ino = info->st_ino,
        .moved = moved,
        .mode = info->st_mode & 07777,
        .mtime_ns = info->st_mtim.tv_sec * NS_PER_S + info->st_mtim.tv_nsec,
    };
    buf_init(&path, PATH_MAX);
    rc = folder_path(dir, &path, err);
    if (rc) {
        buf_release(&path);
        return rc;
    }
    out->dir = buf_take(&path);
    out->name = mem_strdup(name);
    return OK;
}

static void drop_note(struct adopt_note *n)
{
    free(n->dir);
    free(n->name);
    *n = (struct adopt_note){0};
}

static void keep_note(struct writer *w, const struct adopt_note *n)
{
    writer_lock(w);
    w->adopted = writer_roomy(w->adopted, w->adopt_count, &w->adopt_cap, sizeof(*w->adopted));
    w->adopted[w->adopt_count++] = *n;
    writer_unlock(w);
}

static void free_notes(struct writer *w)
{
    for (size_t i = 0; i < w->adopt_count; i++)
        drop_note(&w->adopted[i]);
    free(w->adopted);
    w->adopted = NULL;
    w->adopt_count = w->adopt_cap = 0;
}

/* The folder of this note in *fd; the last one opened is kept there, neighbours share it. */
static bool open_folder(const struct writer *w, size_t i, int *fd)
{
    struct err ignored = ERR_INIT;

    if (i > 0 && *fd >= 0 && strcmp(w->adopted[i].dir, w->adopted[i - 1].dir) == 0)
        return true;
    os_close_quiet(fd);
    return os_open_dir(AT_FDCWD, w->adopted[i].dir, fd, &ignored) == OK;
}

/* Still the file that was adopted? */
static bool same_source(const struct adopt_note *n, int dir, struct stat *info)
{
    struct err ignored = ERR_INIT;

    return os_stat_at(dir, n->name, info, &ignored) == OK && info->st_dev == n->dev &&
           info->st_ino == n->ino;
}

/* What cannot be removed stays: the object is safe already, and an error here would say that it is not. */
void adopt_finish(struct writer *w)
{
    struct err ignored = ERR_INIT;
    struct stat info;
    int dir = -1;

    for (size_t i = 0; i < w->adopt_count; i++)
        if (open_folder(w, i, &dir) && same_source(&w->adopted[i], dir, &info))
            (void)!os_unlink(dir, w->adopted[i].name, &ignored);
    os_close_quiet(&dir);
    free_notes(w);
}

static void restore(int dir, const struct adopt_note *n)
{
    struct err ignored = ERR_INIT;
    struct stat info;
    int fd = -1;

    /* A second name means that it was published: then it must stay read only. */
    if (!same_source(n, dir, &info) || info.st_nlink != 1)
        return;
    if (os_open(dir, n->name, O_RDONLY | O_NOFOLLOW, 0, &fd, &ignored) == OK) {
        (void)!os_chmod(fd, n->mode, &ignored);
        (void)!os_set_mtime(fd, n->mtime_ns, &ignored);
    }
    os_close_quiet(&fd);
}

void adopt_give_up(struct writer *w)
{
    int dir = -1;

    for (size_t i = 0; i < w->adopt_count; i++)
        if (w->adopted[i].moved && open_folder(w, i, &dir))
            restore(dir, &w->adopted[i]);
    os_close_quiet(&dir);
    free_notes(w);
}

/* ---- adopting ---------------------------------------------------------------------------------- */

/* A link that these refuse is no failure, only a reason to copy. */
static bool link_refused(enum err_code rc, const struct err *err)
{
    return rc && (err->sys == EXDEV || err->sys == EPERM || err->sys == EACCES ||
                  err->sys == EMLINK || err->sys == EOPNOTSUPP);
}

/* Hash the file under its name in tmp/ and keep it there for the commit. */
static enum err_code hash_in_place(struct writer *w, const struct large_source *source,
                                   const struct stat *info, struct digest *out, struct err *err)
{
    struct large_source from = *source;
    struct err ignored = ERR_INIT;
    struct stat linked, before;
    enum err_code rc;

    rc = os_stat_at(w->st->tmp, from.tmp, &linked, err);
    if (!rc && (linked.st_ino != info->st_ino || linked.st_dev != info->st_dev))
        rc = writer_changed(from.path, err); /* another file has that name now */
    if (rc)
        return rc;
    rc = os_chmod(from.fd, 0444, err);
    if (!rc)
        rc = os_stat(from.fd, &before, err);
    if (!rc && (before.st_size != info->st_size || before.st_mtim.tv_sec != info->st_mtim.tv_sec ||
                before.st_mtim.tv_nsec != info->st_mtim.tv_nsec))
        rc = writer_changed(from.path, err);
    from.before = &before; /* link and chmod have moved its ctime */
    if (!rc)
        rc = large_put(w, &from, out, err);
    if (rc)
        (void)!os_chmod(from.fd, info->st_mode & 07777, &ignored);
    return rc;
}

/* tmp: the file's second name, there already. */
static enum err_code take_linked(struct writer *w, int fd, const char *tmp, const char *path,
                                 const struct stat *info, struct digest *out, struct err *err)
{
    bool kept = false;
    struct large_source from = {.fd = fd, .path = path, .tmp = tmp, .kept = &kept};
    struct err ignored = ERR_INIT;
    const enum lease lease = lease_take(fd);
    enum err_code rc;

    from.leased = lease == LEASE_HELD;
    rc = lease == LEASE_BUSY ? busy(path, err) : hash_in_place(w, &from, info, out, err);
    if (from.leased)
        lease_drop(fd);
    if (!kept)
        (void)!os_unlink(w->st->tmp, tmp, &ignored);
    return rc;
}

static enum err_code move_in(struct writer *w, int fd, int dir, const char *name, const char *path,
                             const struct stat *info, struct digest *out, bool *refused,
                             struct err *err)
{
    struct adopt_note note;
    char tmp[TMP_NAME];
    enum err_code rc;

    rc = make_note(dir, name, info, true, &note, err);
    if (rc)
        return rc;
    writer_tmp_name("adopt", tmp);
    rc = os_link(dir, name, w->st->tmp, tmp, err);
    if (link_refused(rc, err)) {
        *refused = true;
        *err = (struct err)ERR_INIT;
        drop_note(&note);
        return OK;
    }
    if (!rc)
        rc = take_linked(w, fd, tmp, path, info, out, err);
    if (rc)
        drop_note(&note);
    else
        keep_note(w, &note);
    return rc;
}

static enum err_code copy_in(struct writer *w, int fd, int dir, const char *name, const char *path,
                             const struct stat *info, struct digest *out, int64_t *size,
                             struct err *err)
{
    const enum lease lease = lease_take(fd);
    struct adopt_note note;
    enum err_code rc;

    if (lease == LEASE_HELD)
        lease_drop(fd); /* whoever writes from now on is seen by the times */
    if (lease == LEASE_BUSY)
        return busy(path, err);
    rc = make_note(dir, name, info, false, &note, err);
    if (rc)
        return rc;
    rc = writer_put_file(w, fd, path, out, size, err);
    if (rc)
        drop_note(&note);
    else
        keep_note(w, &note);
    return rc;
}

enum err_code writer_adopt_file(struct writer *w, int dir, const char *name, const char *path,
                                struct digest *out, int64_t *size, struct err *err)
{
    struct stat info, tmp;
    bool copy = false;
    enum err_code rc;
    int fd = -1;

    CHECK(w);
    CHECK(name);
    CHECK(path);
    CHECK(out);
    CHECK(size);
    rc = writer_alive(w, err);
    if (!rc)
        rc = os_open(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, &fd, err);
    if (!rc)
        rc = os_stat(fd, &info, err);
    if (!rc && !S_ISREG(info.st_mode))
        rc = err_set(err, ERR_INPUT, "%s is no regular file", path);
    if (!rc)
        rc = os_stat(w->st->tmp, &tmp, err);
    if (rc)
        goto out;
    *size = info.st_size;
    copy = info.st_size < LOOSE_MIN_BYTES || info.st_nlink != 1 || info.st_dev != tmp.st_dev;
    if (!copy) {
        rc = move_in(w, fd, dir, name, path, &info, out, &copy, err);
        if (!rc && !copy) {
            w->files++;
            w->bytes += *size;
            writer_add_progress(w, 0, 1);
        }
    }
    if (!rc && copy)
        rc = copy_in(w, fd, dir, name, path, &info, out, size, err);
out:
    os_close_quiet(&fd);
    return rc;
}
