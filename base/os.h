/* os.h - files, time and randomness, with a fault seam under every fallible call.
 *
 * Life:     descriptors are closed by os_close, which takes the address, sets -1 and is fine on -1.
 * Owns:     nothing.
 * Threads:  everything here may be called from any thread.
 * Errors:   as err_sys: ERR_IO, ERR_FULL, ERR_NOT_FOUND, ERR_DENIED, ERR_EXISTS.  Text names verb and path.
 *
 * Paths are (directory descriptor, name), as openat(2); AT_FDCWD is fine.  Every descriptor is close-on-exec at birth.
 * Never retry an fsync or close that failed: the kernel has dropped the dirty pages (fsyncgate).
 *
 * The seam: every seam call (see below) first asks fault_hit().  fault_arm(n) makes the n-th such call from now (0 = the
 * next one) fail with EIO, or with ENOSPC for calls that allocate space; counting is process wide and atomic.  A write
 * or copy that fails this way leaves its first half behind, as real ones do; a close that fails still closes.
 * WEIR_FAULT=N[:kill|:eio|:enospc] in the environment arms it at start (fault_from_env), :kill ends the process by SIGKILL.
 */
#ifndef WEIR_BASE_OS_H
#define WEIR_BASE_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"

void fault_arm(int64_t nth);
bool fault_disarm(void);   /* did it fire? */
int64_t fault_count(void); /* seam calls since the last arm (or start) */
void fault_from_env(void);
/* For callers with fallible calls of their own (LMDB, zstd, threads): true when this call must fail. */
bool fault_hit(int *sys);

/* First thing in main.  A standard stream that the caller closed (prog >&-) becomes one that fails: else the next file
 * we open gets its number, and what is meant for a terminal is written into that file. */
void os_hold_stdio(void);

/* From here to os_list each call that can fail passes the seam once ("seam call"). */

MUST_USE enum err_code os_open(int dir, const char *name, int flags, mode_t mode, int *fd,
                               struct err *err);
MUST_USE enum err_code os_open_dir(int dir, const char *name, int *fd, struct err *err);
/* For files that were written. */
MUST_USE enum err_code os_close(int *fd, struct err *err);
/* For files that were only read, and in clean-up; not a seam call. */
void os_close_quiet(int *fd);

/* Short reads and EINTR are handled.  *got < n only at the end of the file. */
MUST_USE enum err_code os_read(int fd, void *p, size_t n, size_t *got, struct err *err);
MUST_USE enum err_code os_pread(int fd, void *p, size_t n, int64_t off, size_t *got,
                                struct err *err);
/* All n bytes or ERR_DAMAGED "short read". */
MUST_USE enum err_code os_pread_all(int fd, void *p, size_t n, int64_t off, struct err *err);
MUST_USE enum err_code os_write(int fd, const void *p, size_t n, struct err *err);
MUST_USE enum err_code os_pwrite(int fd, const void *p, size_t n, int64_t off, struct err *err);
MUST_USE enum err_code os_fsync(int fd, struct err *err);
MUST_USE enum err_code os_fdatasync(int fd, struct err *err);
/* sync_file_range hint; cannot fail in a way that matters, so not a seam call. */
void os_write_behind(int fd, int64_t off, int64_t n);

MUST_USE enum err_code os_link(int olddir, const char *old, int newdir, const char *name,
                               struct err *err);
MUST_USE enum err_code os_rename(int olddir, const char *old, int newdir, const char *name,
                                 struct err *err);
MUST_USE enum err_code os_unlink(int dir, const char *name, struct err *err);
MUST_USE enum err_code os_rmdir(int dir, const char *name, struct err *err);
/* An existing directory is fine. */
MUST_USE enum err_code os_mkdir(int dir, const char *name, mode_t mode, struct err *err);
MUST_USE enum err_code os_symlink(const char *target, int dir, const char *name, struct err *err);
/* The target in place of what out held. */
MUST_USE enum err_code os_readlink(int dir, const char *name, struct buf *out, struct err *err);
MUST_USE enum err_code os_stat(int fd, struct stat *st, struct err *err);
/* Never follows a link. */
MUST_USE enum err_code os_stat_at(int dir, const char *name, struct stat *st, struct err *err);
MUST_USE enum err_code os_chmod(int fd, mode_t mode, struct err *err);
/* atime is left alone. */
MUST_USE enum err_code os_set_mtime(int fd, int64_t mtime_ns, struct err *err);
/* atime = now, mtime kept. */
MUST_USE enum err_code os_touch_atime(int dir, const char *name, struct err *err);
MUST_USE enum err_code os_truncate(int fd, int64_t n, struct err *err);
/* Reflink all of src into the empty file dst.  *done = false (and OK) where the file system cannot. */
MUST_USE enum err_code os_clone(int src, int dst, bool *done, struct err *err);
/* Copy n bytes between two files at given offsets, in the kernel where possible.  ERR_DAMAGED "short read" where src
 * ends before. */
MUST_USE enum err_code os_copy(int src, int64_t src_off, int dst, int64_t dst_off, int64_t n,
                               struct err *err);

/* Names in a directory (without . and ..), sorted by bytes.  names[i] and the array are one allocation: free(*entries). */
struct os_entry {
    const char *name;
    unsigned char type; /* DT_* of dirent; DT_UNKNOWN is resolved by fstatat */
    uint64_t ino;
};
MUST_USE enum err_code os_list(int dir, struct os_entry **entries, size_t *count, struct err *err);

/* The rest is made of the calls above. */

/* A whole small file, in place of what out held.  Past max (or out's own maximum) is ERR_LIMIT. */
MUST_USE enum err_code os_read_file(int dir, const char *name, size_t max, struct buf *out,
                                    struct err *err);
/* Write aside (name.tmp.PID.RANDOM), fsync, rename over name, fsync the directory.  mode as open. */
MUST_USE enum err_code os_write_file(int dir, const char *name, const void *p, size_t n,
                                     mode_t mode, struct err *err);
/* A directory tree, gone.  Missing is OK.  Makes read-only directories writable on the way. */
MUST_USE enum err_code os_remove_tree(int dir, const char *name, struct err *err);
/* An absolute or relative path, all missing parents made. */
MUST_USE enum err_code os_mkdirs(const char *path, mode_t mode, struct err *err);

int64_t os_now_ns(void); /* CLOCK_REALTIME; WEIR_NOW_NS or os_set_now freeze it for tests */
int64_t os_monotonic_ns(void);
void os_set_now(int64_t ns);       /* tests; 0 gives the real clock back */
void os_random(void *p, size_t n); /* getrandom; CHECKs */
int os_cpu_count(void);            /* processors this process may use, at least 1 */

#endif
