/* Every seam call of an operation fails once, in turn, until none is left to fail. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "tests/check.h"

struct fixture {
    char path[TMPDIR_MAX];
    int dir, fds;
    struct err err;
};

static int fd_count(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    EXPECT(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static struct fixture fixture_new(void)
{
    struct fixture f = {.err = ERR_INIT};

    tmpdir_new(f.path);
    EXPECT_OK(os_open_dir(AT_FDCWD, f.path, &f.dir, &f.err), &f.err);
    f.fds = fd_count();
    return f;
}

static void fixture_free(struct fixture *f)
{
    EXPECT_EQ(fd_count(), f->fds);
    os_close_quiet(&f->dir);
    tmpdir_free(f->path);
}

static size_t name_count(struct fixture *f)
{
    struct os_entry *entries;
    size_t count;

    EXPECT_OK(os_list(f->dir, &entries, &count, &f->err), &f->err);
    free(entries);
    return count;
}

/* The error must be the injected one, not a consequence of it. */
static void expect_injected(bool fired, enum err_code rc, const struct err *err)
{
    EXPECT_EQ(fired, rc != OK);
    if (!fired)
        return;
    EXPECT_ERR(rc, err->code, err);
    EXPECT(err->sys == EIO || err->sys == ENOSPC);
}

TEST(write_file_is_all_or_nothing)
{
    static const char old[] = "the old text", new[] = "a new one";
    bool fired = true, replaced = false;
    int64_t calls = 0;

    for (int64_t nth = 0; fired; nth++) {
        struct fixture f = fixture_new();
        struct buf b;

        EXPECT_OK(os_write_file(f.dir, "a", old, strlen(old), 0600, &f.err), &f.err);
        fault_arm(nth);
        const enum err_code rc = os_write_file(f.dir, "a", new, strlen(new), 0600, &f.err);

        calls = fault_count();
        fired = fault_disarm();
        expect_injected(fired, rc, &f.err);
        EXPECT_EQ(name_count(&f), 1); /* nothing is left beside it */

        /* Old or new, never a mixture; and once new, later failures do not take it back. */
        buf_init(&b, 100);
        EXPECT_OK(os_read_file(f.dir, "a", 100, &b, &f.err), &f.err);
        if (strcmp(b.p, new) == 0)
            replaced = true;
        EXPECT_STR(b.p, replaced ? new : old);
        EXPECT(fired || replaced);
        buf_release(&b);
        fixture_free(&f);
    }
    EXPECT_EQ(calls, 7); /* open directory, create, write, fsync, close, rename, fsync directory */
}

TEST(read_file_gives_all_or_nothing)
{
    bool fired = true;

    for (int64_t nth = 0; fired; nth++) {
        struct fixture f = fixture_new();
        struct buf b;

        buf_init(&b, 100);
        EXPECT_OK(os_write_file(f.dir, "a", "text", 4, 0600, &f.err), &f.err);
        fault_arm(nth);
        const enum err_code rc = os_read_file(f.dir, "a", 100, &b, &f.err);

        fired = fault_disarm();
        expect_injected(fired, rc, &f.err);
        EXPECT_EQ(b.n, fired ? 0 : 4);
        buf_release(&b);
        fixture_free(&f);
    }
}

static void plant_tree(struct fixture *f)
{
    static const char *const dirs[] = {"t", "t/a", "t/a/b", "t/a/b/c", "t/d", "t/e"};
    char name[64];

    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        EXPECT_OK(os_mkdir(f->dir, dirs[i], 0700, &f->err), &f->err);
        snprintf(name, sizeof(name), "%s/file", dirs[i]);
        EXPECT_OK(os_write_file(f->dir, name, "x", 1, 0400, &f->err), &f->err);
    }
    EXPECT_OK(os_symlink("../kept", f->dir, "t/a/link", &f->err), &f->err);
    EXPECT_EQ(fchmodat(f->dir, "t/a", 0500, 0), 0);
    EXPECT_OK(os_mkdir(f->dir, "kept", 0700, &f->err), &f->err);
}

TEST(remove_tree_can_be_tried_again)
{
    bool fired = true;
    int64_t nth = 0;

    for (; fired; nth++) {
        struct fixture f = fixture_new();

        plant_tree(&f);
        fault_arm(nth);
        const enum err_code rc = os_remove_tree(f.dir, "t", &f.err);

        fired = fault_disarm();
        expect_injected(fired, rc, &f.err);
        EXPECT_EQ(fd_count(), f.fds);
        EXPECT_OK(os_remove_tree(f.dir, "t", &f.err), &f.err);
        EXPECT_EQ(name_count(&f), 1); /* "kept" */
        fixture_free(&f);
    }
    EXPECT(nth > 30);
}

TEST(mkdirs_and_list_leave_nothing_open)
{
    bool fired = true;

    for (int64_t nth = 0; fired; nth++) {
        struct fixture f = fixture_new();
        struct os_entry *entries = NULL;
        char path[TMPDIR_MAX + 16];
        size_t count = 0;
        enum err_code rc;

        snprintf(path, sizeof(path), "%s/a/b/c", f.path);
        fault_arm(nth);
        rc = os_mkdirs(path, 0700, &f.err);
        if (!rc)
            rc = os_list(f.dir, &entries, &count, &f.err);
        fired = fault_disarm();
        expect_injected(fired, rc, &f.err);
        EXPECT_EQ(count, rc ? 0 : 1);
        free(entries);
        fixture_free(&f);
    }
}

/* Each call that is documented to pass the seam does so exactly once. */
TEST(every_call_passes_the_seam_once)
{
    struct fixture f = fixture_new();
    struct err *err = &f.err;
    struct stat st;
    struct buf b;
    bool done;
    size_t got;
    char c = 'c';
    int fd = -1, other = -1;

    buf_init(&b, 100);
    fault_arm(INT64_MAX);
#define ONCE(call)                                                                                 \
    do {                                                                                           \
        const int64_t before = fault_count();                                                      \
        EXPECT_OK(call, err);                                                                      \
        EXPECT_EQ(fault_count() - before, 1);                                                      \
    } while (0)
    ONCE(os_open(f.dir, "a", O_RDWR | O_CREAT, 0600, &fd, err));
    ONCE(os_write(fd, "ab", 2, err));
    ONCE(os_pwrite(fd, "ab", 2, 0, err));
    ONCE(os_read(fd, &c, 1, &got, err));
    ONCE(os_pread(fd, &c, 1, 0, &got, err));
    ONCE(os_pread_all(fd, &c, 1, 0, err));
    ONCE(os_fsync(fd, err));
    ONCE(os_fdatasync(fd, err));
    ONCE(os_truncate(fd, 1, err));
    ONCE(os_stat(fd, &st, err));
    ONCE(os_stat_at(f.dir, "a", &st, err));
    ONCE(os_chmod(fd, 0600, err));
    ONCE(os_set_mtime(fd, 5, err));
    ONCE(os_touch_atime(f.dir, "a", err));
    ONCE(os_open(f.dir, "b", O_RDWR | O_CREAT, 0600, &other, err));
    ONCE(os_clone(fd, other, &done, err));
    ONCE(os_copy(fd, 0, other, 0, 1, err));
    ONCE(os_close(&fd, err));
    ONCE(os_close(&other, err));
    ONCE(os_link(f.dir, "a", f.dir, "c", err));
    ONCE(os_rename(f.dir, "c", f.dir, "d", err));
    ONCE(os_unlink(f.dir, "d", err));
    ONCE(os_symlink("x", f.dir, "l", err));
    ONCE(os_readlink(f.dir, "l", &b, err));
    ONCE(os_mkdir(f.dir, "dir", 0700, err));
    ONCE(os_open_dir(f.dir, "dir", &fd, err));
    ONCE(os_rmdir(f.dir, "dir", err));
#undef ONCE
    EXPECT(!fault_disarm());
    os_close_quiet(&fd);
    buf_release(&b);
    fixture_free(&f);
}

TEST(callers_of_their_own_use_the_seam)
{
    int sys = 0;

    fault_arm(2);
    EXPECT(!fault_hit(&sys));
    EXPECT(!fault_hit(&sys));
    EXPECT_EQ(sys, 0);
    EXPECT(fault_hit(&sys));
    EXPECT_EQ(sys, EIO);
    EXPECT(!fault_hit(&sys)); /* once */
    EXPECT_EQ(fault_count(), 4);
    EXPECT(fault_disarm());
    EXPECT(!fault_disarm());
    fault_arm(0);
    EXPECT(fault_hit(NULL));
    fault_disarm();
    EXPECT(!fault_hit(&sys));
}

/* Runs os_write_file in a child that has WEIR_FAULT in its environment. */
static int child_with_fault(struct fixture *f, const char *spec)
{
    int status;
    const pid_t child = fork();

    if (child == 0) {
        struct err err = ERR_INIT;

        setenv("WEIR_FAULT", spec, 1);
        if (!freopen("/dev/null", "w", stderr))
            _exit(99);
        fault_from_env();
        _exit(os_write_file(f->dir, "a", "new text", 8, 0600, &err) == OK ? 0 : err.sys);
    }
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return status;
}

TEST(the_environment_arms_the_seam)
{
    static const struct {
        const char *spec;
        int exit_status;
    } cases[] = {
        {"3", EIO},           {"2", ENOSPC},        {"2:eio", EIO},
        {"3:enospc", ENOSPC}, {"0:enospc", ENOSPC}, {"1000", 0},
    };
    static const char *const misspelt[] = {"", "x", "1:", "1:ki11", "-1", "1 ", ":kill"};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture f = fixture_new();
        const int status = child_with_fault(&f, cases[i].spec);

        EXPECT(WIFEXITED(status));
        EXPECT_EQ(WEXITSTATUS(status), cases[i].exit_status);
        fixture_free(&f);
    }
    for (size_t i = 0; i < sizeof(misspelt) / sizeof(misspelt[0]); i++) {
        struct fixture f = fixture_new();
        const int status = child_with_fault(&f, misspelt[i]);

        EXPECT(WIFSIGNALED(status));
        EXPECT_EQ(WTERMSIG(status), SIGABRT);
        fixture_free(&f);
    }
}

/* Killed at each call in turn: the file is the old or the new one, whatever lies beside it. */
TEST(write_file_survives_being_killed)
{
    bool replaced = false;

    for (int64_t nth = 0;; nth++) {
        struct fixture f = fixture_new();
        char spec[32];
        struct buf b;

        EXPECT_OK(os_write_file(f.dir, "a", "old", 3, 0600, &f.err), &f.err);
        snprintf(spec, sizeof(spec), "%" PRId64 ":kill", nth);

        const int status = child_with_fault(&f, spec);

        buf_init(&b, 100);
        EXPECT_OK(os_read_file(f.dir, "a", 100, &b, &f.err), &f.err);
        if (strcmp(b.p, "new text") == 0)
            replaced = true;
        EXPECT_STR(b.p, replaced ? "new text" : "old");
        buf_release(&b);
        fixture_free(&f);
        if (!WIFSIGNALED(status)) {
            EXPECT_EQ(status, 0);
            EXPECT_EQ(nth, 7);
            break;
        }
        EXPECT_EQ(WTERMSIG(status), SIGKILL);
    }
    EXPECT(replaced);
}

RUN(write_file_is_all_or_nothing, read_file_gives_all_or_nothing, remove_tree_can_be_tried_again,
    mkdirs_and_list_leave_nothing_open, every_call_passes_the_seam_once,
    callers_of_their_own_use_the_seam, the_environment_arms_the_seam,
    write_file_survives_being_killed)
