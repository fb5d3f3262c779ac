/* One function per system call, each behind the fault seam.  What is built out of several calls
 * (lists, whole files, trees) is in os_tree.c; clocks and randomness are in os_clock.c. */
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* ---- the seam ---------------------------------------------------------------------------------- */

enum fault_mode { FAULT_BY_CALL, FAULT_EIO, FAULT_ENOSPC, FAULT_KILL };

static atomic_int_fast64_t fault_calls;
static atomic_int_fast64_t fault_nth = -1; /* -1: not armed */
static atomic_bool fault_fired;
static atomic_int fault_mode;

static void fault_start(int64_t nth, enum fault_mode mode)
{
    CHECK(nth >= 0);
    atomic_store(&fault_nth, -1); /* nothing fires while the rest changes */
    atomic_store(&fault_calls, 0);
    atomic_store(&fault_fired, false);
    atomic_store(&fault_mode, mode);
    atomic_store(&fault_nth, nth);
}

void fault_arm(int64_t nth)
{
    fault_start(nth, FAULT_BY_CALL);
}

bool fault_disarm(void)
{
    atomic_store(&fault_nth, -1);
    return atomic_exchange(&fault_fired, false);
}

int64_t fault_count(void)
{
    return atomic_load(&fault_calls);
}

/* A misspelt WEIR_FAULT that is ignored would be a test that tests nothing, hence the CHECK. */
void fault_from_env(void)
{
    static const char *const words[] = {"", ":eio", ":enospc", ":kill"}; /* as the enum */
    const char *spec = getenv("WEIR_FAULT");
    bool understood = false;
    struct err err = ERR_INIT;
    int64_t nth;

    if (!spec)
        return;

    const size_t digits = strspn(spec, "0123456789");

    if (str_to_i64((struct str){spec, digits}, 0, INT64_MAX, &nth, &err) == OK)
        for (enum fault_mode mode = FAULT_BY_CALL; mode <= FAULT_KILL; mode++)
            if (strcmp(spec + digits, words[mode]) == 0) {
                fault_start(nth, mode);
                understood = true;
            }
    CHECK(understood && "WEIR_FAULT is N, N:kill, N:eio or N:enospc");
}

/* O_PATH on a directory: reads and writes get EBADF, as on the closed stream, and it is there even without /dev.  No
 * O_CLOEXEC: the numbers stay taken in programs that we start. */
void os_hold_stdio(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0) {
            const int held = open("/", O_PATH);

            CHECK(held == fd); /* the lowest free number */
        }
}

/* The errno that this call must fail with, or 0.  by_call is what suits the kind of call. */
static int fault_due(int by_call)
{
    const int64_t call = atomic_fetch_add_explicit(&fault_calls, 1, memory_order_relaxed);

    if (call != atomic_load_explicit(&fault_nth, memory_order_relaxed))
        return 0;
    atomic_store(&fault_fired, true);

    const int mode = atomic_load(&fault_mode);

    return mode == FAULT_EIO ? EIO : mode == FAULT_ENOSPC ? ENOSPC : by_call;
}

static void fault_kill(void)
{
    if (atomic_load(&fault_mode) == FAULT_KILL)
        kill(getpid(), SIGKILL);
}

static int fault_take(int by_call)
{
    const int sys = fault_due(by_call);

    if (sys)
        fault_kill();
    return sys;
}

bool fault_hit(int *sys)
{
    const int fault = fault_take(EIO);

    if (fault && sys)
        *sys = fault;
    return fault != 0;
}

/* ---- messages ---------------------------------------------------------------------------------- */

#define NAME_SHOWN 384 /* of ERR_TEXT_MAX; the rest is for the verb and the reason */

static void show_fd(int fd, char out[NAME_SHOWN])
{
    char link[64];

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);

    const ssize_t n = readlink(link, out, NAME_SHOWN - 1);

    if (n >= 0)
        out[n] = '\0';
    else
        (void)snprintf(out, NAME_SHOWN, "descriptor %d", fd);
}

static enum err_code fail_fd(struct err *err, int sys, const char *verb, int fd)
{
    char shown[NAME_SHOWN];

    show_fd(fd, shown);
    return err_sys(err, sys, "%s %s", verb, shown);
}

/* A person cannot look up what directory descriptor 7 was, so the message has the whole path. */
static enum err_code fail_at(struct err *err, int sys, const char *verb, int dir, const char *name)
{
    char shown[NAME_SHOWN];

    if (dir == AT_FDCWD || name[0] == '/')
        return err_sys(err, sys, "%s %s", verb, name);
    show_fd(dir, shown);
    return err_sys(err, sys, "%s %s/%s", verb, shown, name);
}

/* ---- descriptors ------------------------------------------------------------------------------- */

enum err_code os_open(int dir, const char *name, int flags, mode_t mode, int *fd, struct err *err)
{
    int sys = fault_take(flags & O_CREAT ? ENOSPC : EIO);

    CHECK(name);
    CHECK(fd);
    *fd = -1;
    while (!sys && *fd < 0) {
        *fd = openat(dir, name, flags | O_CLOEXEC, mode);
        if (*fd < 0 && errno != EINTR)
            sys = errno;
    }
    if (sys)
        return fail_at(err, sys, flags & O_CREAT ? "create" : "open", dir, name);
    return OK;
}

enum err_code os_open_dir(int dir, const char *name, int *fd, struct err *err)
{
    return os_open(dir, name, O_RDONLY | O_DIRECTORY, 0, fd, err);
}

enum err_code os_close(int *fd, struct err *err)
{
    const int sys = fault_take(EIO);
    char shown[NAME_SHOWN] = "";

    CHECK(fd);

    const int closing = *fd;

    if (closing < 0)
        return OK;
    if (sys)
        show_fd(closing, shown);
    *fd = -1;
    /* Linux lets go of the descriptor whatever close answers; a second close could hit another
     * thread's new file. */
    if (close(closing) != 0)
        return err_sys(err, errno, "close descriptor %d", closing);
    if (sys)
        return err_sys(err, sys, "close %s", shown);
    return OK;
}

void os_close_quiet(int *fd)
{
    const int saved = errno;

    CHECK(fd);
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    errno = saved;
}

/* ---- bytes ------------------------------------------------------------------------------------- */

/* off < 0 means the file's own position.  These two return errno or 0. */
static int read_loop(int fd, void *p, size_t n, int64_t off, size_t *got)
{
    size_t done = 0;

    while (done < n) {
        unsigned char *at = (unsigned char *)p + done;
        const ssize_t r =
            off < 0 ? read(fd, at, n - done) : pread(fd, at, n - done, off + (int64_t)done);

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return errno;
        if (r == 0)
            break;
        done += (size_t)r;
    }
    *got = done;
    return 0;
}

static int write_loop(int fd, const void *p, size_t n, int64_t off)
{
    size_t done = 0;

    while (done < n) {
        const unsigned char *at = (const unsigned char *)p + done;
        const ssize_t w =
            off < 0 ? write(fd, at, n - done) : pwrite(fd, at, n - done, off + (int64_t)done);

        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return errno;
        if (w == 0)
            return EIO; /* POSIX leaves it open for n > 0; better an error than a loop */
        done += (size_t)w;
    }
    return 0;
}

static enum err_code read_at(int fd, void *p, size_t n, int64_t off, size_t *got, struct err *err)
{
    int sys = fault_take(EIO);

    CHECK(got);
    *got = 0;
    if (!sys)
        sys = read_loop(fd, p, n, off, got);
    return sys ? fail_fd(err, sys, "read", fd) : OK;
}

enum err_code os_read(int fd, void *p, size_t n, size_t *got, struct err *err)
{
    return read_at(fd, p, n, -1, got, err);
}

enum err_code os_pread(int fd, void *p, size_t n, int64_t off, size_t *got, struct err *err)
{
    CHECK(off >= 0);
    return read_at(fd, p, n, off, got, err);
}

static enum err_code fail_short(struct err *err, int fd, int64_t off, int64_t wanted, int64_t got)
{
    char shown[NAME_SHOWN];

    show_fd(fd, shown);
    return err_set(err, ERR_DAMAGED, "read %s: short read: %lld of %lld bytes at offset %lld",
                   shown, (long long)got, (long long)wanted, (long long)off);
}

enum err_code os_pread_all(int fd, void *p, size_t n, int64_t off, struct err *err)
{
    size_t got;
    const enum err_code rc = os_pread(fd, p, n, off, &got, err);

    if (rc)
        return rc;
    if (got < n)
        return fail_short(err, fd, off, (int64_t)n, (int64_t)got);
    return OK;
}

/* A write that fails has often written something: a full disk takes what still fits, a killed
 * process was half way.  So an injected failure leaves the first half behind. */
static enum err_code write_at(int fd, const void *p, size_t n, int64_t off, struct err *err)
{
    int sys = fault_due(ENOSPC);

    if (sys) {
        (void)write_loop(fd, p, n / 2, off);
        fault_kill();
    } else {
        sys = write_loop(fd, p, n, off);
    }
    return sys ? fail_fd(err, sys, "write", fd) : OK;
}

enum err_code os_write(int fd, const void *p, size_t n, struct err *err)
{
    return write_at(fd, p, n, -1, err);
}

enum err_code os_pwrite(int fd, const void *p, size_t n, int64_t off, struct err *err)
{
    CHECK(off >= 0);
    return write_at(fd, p, n, off, err);
}

/* fsync and fdatasync are asked once: after a failure the kernel has dropped the dirty pages, and
 * a second call would report success for data that is gone. */
enum err_code os_fsync(int fd, struct err *err)
{
    int sys = fault_take(EIO);

    if (!sys && fsync(fd) != 0)
        sys = errno;
    return sys ? fail_fd(err, sys, "fsync", fd) : OK;
}

enum err_code os_fdatasync(int fd, struct err *err)
{
    int sys = fault_take(EIO);

    if (!sys && fdatasync(fd) != 0)
        sys = errno;
    return sys ? fail_fd(err, sys, "fdatasync", fd) : OK;
}

void os_write_behind(int fd, int64_t off, int64_t n)
{
    const int saved = errno;

    (void)sync_file_range(fd, off, n, SYNC_FILE_RANGE_WRITE);
    errno = saved;
}

enum err_code os_truncate(int fd, int64_t n, struct err *err)
{
    int sys = fault_take(EIO);

    while (!sys && ftruncate(fd, n) != 0)
        if (errno != EINTR)
            sys = errno;
    return sys ? fail_fd(err, sys, "truncate", fd) : OK;
}

enum err_code os_clone(int src, int dst, bool *done, struct err *err)
{
    int sys = fault_take(ENOSPC);

    CHECK(done);
    *done = false;
    if (sys)
        return fail_fd(err, sys, "clone to", dst);
    if (ioctl(dst, FICLONE, src) == 0) {
        *done = true;
        return OK;
    }
    switch (errno) {
    case EOPNOTSUPP: /* the file system has no reflinks */
    case ENOTTY:     /* nor knows the request */
    case EXDEV:      /* two file systems */
    case EINVAL:     /* two features of one that do not mix */
    case EPERM:      /* an immutable file, or a sandbox that forbids the request */
        return OK;
    default:
        return fail_fd(err, errno, "clone to", dst);
    }
}

#define COPY_STEP ((size_t)1 << 18) /* fits a core's second-level cache */

/* From *done on, through user space.  Returns errno or 0; *done < n then means the end of src. */
static int copy_by_hand(int src, int64_t src_off, int dst, int64_t dst_off, int64_t n,
                        int64_t *done)
{
    void *step = mem_alloc(COPY_STEP);
    int sys = 0;

    while (!sys && *done < n) {
        const size_t want = n - *done < (int64_t)COPY_STEP ? (size_t)(n - *done) : COPY_STEP;
        size_t got = 0;

        sys = read_loop(src, step, want, src_off + *done, &got);
        if (!sys)
            sys = write_loop(dst, step, got, dst_off + *done);
        if (!sys)
            *done += (int64_t)got;
        if (got < want)
            break;
    }
    free(step);
    return sys;
}

static int copy_loop(int src, int64_t src_off, int dst, int64_t dst_off, int64_t n, int64_t *done)
{
    while (*done < n) {
        off_t from = src_off + *done, to = dst_off + *done;
        const ssize_t r = copy_file_range(src, &from, dst, &to, (size_t)(n - *done), 0);

        if (r > 0) {
            *done += r;
            continue;
        }
        if (r < 0 && errno == EINTR)
            continue;
        /* 0 is the end of src, or one of the file systems on which some kernels copied nothing
         * and said so: reading by hand tells which. */
        if (r == 0 || errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)
            return copy_by_hand(src, src_off, dst, dst_off, n, done);
        return errno;
    }
    return 0;
}

enum err_code os_copy(int src, int64_t src_off, int dst, int64_t dst_off, int64_t n,
                      struct err *err)
{
    int64_t done = 0;
    int sys = fault_due(ENOSPC);

    CHECK(src_off >= 0);
    CHECK(dst_off >= 0);
    CHECK(n >= 0);
    if (sys) { /* as write_at */
        (void)copy_loop(src, src_off, dst, dst_off, n / 2, &done);
        fault_kill();
    } else {
        sys = copy_loop(src, src_off, dst, dst_off, n, &done);
    }
    if (sys)
        return fail_fd(err, sys, "copy to", dst);
    if (done < n)
        return fail_short(err, src, src_off, n, done);
    return OK;
}

/* ---- names ------------------------------------------------------------------------------------- */

enum err_code os_link(int olddir, const char *old, int newdir, const char *name, struct err *err)
{
    int sys = fault_take(ENOSPC);

    if (!sys && linkat(olddir, old, newdir, name, 0) != 0)
        sys = errno;
    return sys ? fail_at(err, sys, "link to", newdir, name) : OK;
}

enum err_code os_rename(int olddir, const char *old, int newdir, const char *name, struct err *err)
{
    int sys = fault_take(ENOSPC);

    if (!sys && renameat(olddir, old, newdir, name) != 0)
        sys = errno;
    return sys ? fail_at(err, sys, "rename to", newdir, name) : OK;
}

enum err_code os_unlink(int dir, const char *name, struct err *err)
{
    int sys = fault_take(EIO);

    if (!sys && unlinkat(dir, name, 0) != 0)
        sys = errno;
    return sys ? fail_at(err, sys, "remove", dir, name) : OK;
}

enum err_code os_rmdir(int dir, const char *name, struct err *err)
{
    int sys = fault_take(EIO);

    if (!sys && unlinkat(dir, name, AT_REMOVEDIR) != 0)
        sys = errno;
    return sys ? fail_at(err, sys, "remove directory", dir, name) : OK;
}

enum err_code os_mkdir(int dir, const char *name, mode_t mode, struct err *err)
{
    int sys = fault_take(ENOSPC);
    struct stat st;

    if (!sys && mkdirat(dir, name, mode) != 0)
        sys = errno;
    if (sys == EEXIST && fstatat(dir, name, &st, 0) == 0 && S_ISDIR(st.st_mode))
        return OK; /* a link to a directory will do: people move parts of a store that way */
    return sys ? fail_at(err, sys, "make directory", dir, name) : OK;
}

enum err_code os_symlink(const char *target, int dir, const char *name, struct err *err)
{
    int sys = fault_take(ENOSPC);

    if (!sys && symlinkat(target, dir, name) != 0)
        sys = errno;
    return sys ? fail_at(err, sys, "make link", dir, name) : OK;
}

enum err_code os_readlink(int dir, const char *name, struct buf *out, struct err *err)
{
    int sys = fault_take(EIO);

    CHECK(out);
    buf_clear(out);
    /* One byte more than the answer tells that the answer is whole. */
    for (size_t room = 256; !sys; room *= 2) {
        const size_t size = room < out->max ? room : out->max;
        char *p = buf_room(out, size);

        if (!p)
            break;

        const ssize_t n = readlinkat(dir, name, p, size);

        if (n < 0)
            sys = errno;
        out->n = n < 0 ? 0 : (size_t)n;
        p[out->n] = '\0';
        if (!sys && out->n < size)
            return OK;
        out->n = 0;
        if (!sys && size == out->max)
            out->failed = true;
    }
    if (sys)
        return fail_at(err, sys, "read link", dir, name);
    return buf_check(out, name, err);
}

enum err_code os_stat(int fd, struct stat *st, struct err *err)
{
    int sys = fault_take(EIO);

    if (!sys && fstat(fd, st) != 0)
        sys = errno;
    return sys ? fail_fd(err, sys, "stat", fd) : OK;
}

enum err_code os_stat_at(int dir, const char *name, struct stat *st, struct err *err)
{
    int sys = fault_take(EIO);

    if (!sys && fstatat(dir, name, st, AT_SYMLINK_NOFOLLOW) != 0)
        sys = errno;
    return sys ? fail_at(err, sys, "stat", dir, name) : OK;
}

enum err_code os_chmod(int fd, mode_t mode, struct err *err)
{
    int sys = fault_take(EIO);

    if (!sys && fchmod(fd, mode) != 0)
        sys = errno;
    return sys ? fail_fd(err, sys, "chmod", fd) : OK;
}

#define NS_PER_S 1000000000

static struct timespec timespec_of(int64_t ns)
{
    int64_t s = ns / NS_PER_S, rest = ns % NS_PER_S;

    if (rest < 0) { /* before 1970 */
        s--;
        rest += NS_PER_S;
    }
    return (struct timespec){.tv_sec = s, .tv_nsec = rest};
}

enum err_code os_set_mtime(int fd, int64_t mtime_ns, struct err *err)
{
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, timespec_of(mtime_ns)};
    int sys = fault_take(EIO);

    if (!sys && futimens(fd, times) != 0)
        sys = errno;
    return sys ? fail_fd(err, sys, "set time of", fd) : OK;
}

enum err_code os_touch_atime(int dir, const char *name, struct err *err)
{
    static const struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_OMIT}};
    int sys = fault_take(EIO);

    if (!sys && utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) != 0)
        sys = errno;
    return sys ? fail_at(err, sys, "set time of", dir, name) : OK;
}
