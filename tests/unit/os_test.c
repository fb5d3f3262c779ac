#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "tests/check.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

struct fixture {
    char path[TMPDIR_MAX];
    int dir;
    struct err err;
};

static struct fixture fixture_new(void)
{
    struct fixture f = {.err = ERR_INIT};

    tmpdir_new(f.path);
    EXPECT_OK(os_open_dir(AT_FDCWD, f.path, &f.dir, &f.err), &f.err);
    return f;
}

static void fixture_free(struct fixture *f)
{
    os_close_quiet(&f->dir);
    tmpdir_free(f->path);
}

static int fd_count(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    EXPECT(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 3; /* ., .. and the directory itself */
}

static void put_file(struct fixture *f, const char *name, const char *text)
{
    EXPECT_OK(os_write_file(f->dir, name, text, strlen(text), 0644, &f->err), &f->err);
}

static void expect_file(struct fixture *f, const char *name, const char *text)
{
    struct buf b;

    buf_init(&b, 1 << 20);
    EXPECT_OK(os_read_file(f->dir, name, 1 << 20, &b, &f->err), &f->err);
    EXPECT_EQ(b.n, strlen(text));
    EXPECT_MEM(b.p, text, b.n);
    buf_release(&b);
}

static bool there(struct fixture *f, const char *name)
{
    struct stat st;

    return fstatat(f->dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* ---- descriptors ------------------------------------------------------------------------------- */

TEST(descriptors_close_once_and_on_exec)
{
    struct fixture f = fixture_new();
    int fd = 99;

    EXPECT_ERR(os_open(f.dir, "no", O_RDONLY, 0, &fd, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_EQ(fd, -1);
    EXPECT_OK(os_open(f.dir, "a", O_RDWR | O_CREAT, 0600, &fd, &f.err), &f.err);
    EXPECT(fcntl(fd, F_GETFD) & FD_CLOEXEC);

    const int number = fd;

    EXPECT_OK(os_close(&fd, &f.err), &f.err);
    EXPECT_EQ(fd, -1);
    EXPECT_EQ(fcntl(number, F_GETFD), -1);
    EXPECT_OK(os_close(&fd, &f.err), &f.err);
    os_close_quiet(&fd);

    /* A failed close is reported once, and has still let go. */
    EXPECT_OK(os_open(f.dir, "a", O_RDONLY, 0, &fd, &f.err), &f.err);
    fault_arm(0);
    EXPECT_ERR(os_close(&fd, &f.err), ERR_IO, &f.err);
    EXPECT(fault_disarm());
    EXPECT_EQ(fd, -1);
    EXPECT_EQ(fcntl(number, F_GETFD), -1);

    EXPECT_ERR(os_open_dir(f.dir, "a", &fd, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_EQ(f.err.sys, ENOTDIR);
    fixture_free(&f);
}

TEST(messages_name_the_whole_path)
{
    struct fixture f = fixture_new();
    char expected[ERR_TEXT_MAX];
    int fd = -1;
    size_t got;
    char c;

    EXPECT_ERR(os_open(f.dir, "no/file", O_RDONLY, 0, &fd, &f.err), ERR_NOT_FOUND, &f.err);
    snprintf(expected, sizeof(expected), "open %s/no/file: No such file or directory", f.path);
    EXPECT_STR(f.err.text, expected);
    EXPECT_OK(os_open(f.dir, "a", O_WRONLY | O_CREAT, 0600, &fd, &f.err), &f.err);
    EXPECT_ERR(os_pread(fd, &c, 1, 0, &got, &f.err), ERR_IO, &f.err);
    snprintf(expected, sizeof(expected), "read %s/a: Bad file descriptor", f.path);
    EXPECT_STR(f.err.text, expected);
    os_close_quiet(&fd);
    EXPECT_ERR(os_fsync(9999, &f.err), ERR_IO, &f.err);
    EXPECT_STR(f.err.text, "fsync descriptor 9999: Bad file descriptor");
    EXPECT_ERR(os_unlink(AT_FDCWD, "no such", &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_STR(f.err.text, "remove no such: No such file or directory");
    fixture_free(&f);
}

/* What the seam injects elsewhere comes from the world here. */
TEST(real_failures_are_told_as_they_are)
{
    struct fixture f = fixture_new();
    char name[300], text[4096] = "";
    struct err *err = &f.err;
    struct stat st;
    size_t got;
    int fd;

    EXPECT_OK(os_open(AT_FDCWD, "/dev/full", O_WRONLY, 0, &fd, err), err);
    EXPECT_ERR(os_write(fd, text, sizeof(text), err), ERR_FULL, err);
    EXPECT_STR(err->text, "write /dev/full: No space left on device");
    EXPECT_EQ(err->sys, ENOSPC);
    EXPECT_ERR(os_fdatasync(fd, err), ERR_IO, err); /* EINVAL: nothing to write back to */
    os_close_quiet(&fd);

    EXPECT_ERR(os_read(-1, text, 1, &got, err), ERR_IO, err);
    EXPECT_ERR(os_pread(-1, text, 1, 0, &got, err), ERR_IO, err);
    EXPECT_ERR(os_pread_all(-1, text, 1, 0, err), ERR_IO, err);
    EXPECT_ERR(os_pwrite(-1, text, 1, 0, err), ERR_IO, err);
    EXPECT_ERR(os_truncate(-1, 0, err), ERR_IO, err);
    EXPECT_ERR(os_stat(-1, &st, err), ERR_IO, err);
    EXPECT_ERR(os_chmod(-1, 0600, err), ERR_IO, err);
    EXPECT_ERR(os_set_mtime(-1, 0, err), ERR_IO, err);
    fd = 1000000;
    EXPECT_ERR(os_close(&fd, err), ERR_IO, err);
    EXPECT_EQ(fd, -1);

    EXPECT_ERR(os_rename(f.dir, "no", f.dir, "x", err), ERR_NOT_FOUND, err);
    EXPECT_ERR(os_link(f.dir, "no", f.dir, "x", err), ERR_NOT_FOUND, err);
    EXPECT_ERR(os_stat_at(f.dir, "no", &st, err), ERR_NOT_FOUND, err);
    EXPECT_ERR(os_touch_atime(f.dir, "no", err), ERR_NOT_FOUND, err);
    EXPECT_OK(os_symlink("x", f.dir, "l", err), err);
    EXPECT_ERR(os_symlink("x", f.dir, "l", err), ERR_EXISTS, err);

    /* With its suffix the name beside would be too long, however long that is. */
    memset(name, 'n', sizeof(name));
    for (size_t n = 200; n < sizeof(name); n += 20) {
        name[n] = '\0';
        if (os_write_file(f.dir, name, "x", 1, 0600, err) != OK)
            EXPECT_EQ(err->sys, ENAMETOOLONG);
        name[n] = 'n';
    }
    EXPECT_EQ(err->sys, ENAMETOOLONG);
    fixture_free(&f);
}

/* ---- bytes ------------------------------------------------------------------------------------- */

TEST(bytes_go_out_and_come_back)
{
    struct fixture f = fixture_new();
    char text[16] = "";
    size_t got;
    int fd;

    EXPECT_OK(os_open(f.dir, "a", O_RDWR | O_CREAT, 0600, &fd, &f.err), &f.err);
    EXPECT_OK(os_write(fd, "hello ", 6, &f.err), &f.err);
    EXPECT_OK(os_write(fd, "", 0, &f.err), &f.err);
    EXPECT_OK(os_write(fd, "world", 5, &f.err), &f.err);
    EXPECT_OK(os_pwrite(fd, "W", 1, 6, &f.err), &f.err);
    os_write_behind(fd, 0, 11);
    EXPECT_OK(os_fdatasync(fd, &f.err), &f.err);
    EXPECT_OK(os_fsync(fd, &f.err), &f.err);
    EXPECT_OK(os_pread(fd, text, 5, 6, &got, &f.err), &f.err);
    EXPECT_EQ(got, 5);
    EXPECT_STR(text, "World");
    EXPECT_OK(os_pread(fd, text, 16, 9, &got, &f.err), &f.err);
    EXPECT_EQ(got, 2);
    EXPECT_OK(os_pread_all(fd, text, 5, 0, &f.err), &f.err);
    EXPECT_STR(text, "hello");
    EXPECT_ERR(os_pread_all(fd, text, 5, 7, &f.err), ERR_DAMAGED, &f.err);
    EXPECT(strstr(f.err.text, "short read: 4 of 5 bytes at offset 7"));
    EXPECT_OK(os_truncate(fd, 5, &f.err), &f.err);
    os_close_quiet(&fd);
    expect_file(&f, "a", "hello");
    fixture_free(&f);
}

static void ignore(int signal)
{
    (void)signal;
}

/* A pipe gives what it has, and signals interrupt: the reader must get everything all the same. */
TEST(short_reads_and_signals_are_handled)
{
    const struct sigaction action = {.sa_handler = ignore}; /* no SA_RESTART */
    struct sigaction before;
    char text[101] = "";
    struct err err = ERR_INIT;
    size_t got;
    int pipes[2], status;

    sigaction(SIGUSR1, &action, &before);
    EXPECT_EQ(pipe(pipes), 0);

    const pid_t child = fork();

    if (child == 0) {
        for (int i = 0; i < 100; i++) {
            kill(getppid(), SIGUSR1);
            sched_yield();
            if (write(pipes[1], "x", 1) != 1)
                _exit(1);
        }
        _exit(0);
    }
    close(pipes[1]);
    EXPECT_OK(os_read(pipes[0], text, 100, &got, &err), &err);
    EXPECT_EQ(got, 100);
    EXPECT_EQ(strspn(text, "x"), 100);
    while (waitpid(child, &status, 0) < 0)
        EXPECT_EQ(errno, EINTR);
    EXPECT_EQ(status, 0);
    EXPECT_OK(os_read(pipes[0], text, 100, &got, &err), &err);
    EXPECT_EQ(got, 0);
    close(pipes[0]);
    sigaction(SIGUSR1, &before, NULL);
}

TEST(an_injected_write_failure_leaves_half)
{
    struct fixture f = fixture_new();
    int fd, src;

    EXPECT_OK(os_open(f.dir, "a", O_RDWR | O_CREAT, 0600, &fd, &f.err), &f.err);
    fault_arm(0);
    EXPECT_ERR(os_write(fd, "0123456789", 10, &f.err), ERR_FULL, &f.err);
    EXPECT(fault_disarm());
    expect_file(&f, "a", "01234");
    fault_arm(0);
    EXPECT_ERR(os_pwrite(fd, "abcd", 4, 3, &f.err), ERR_FULL, &f.err);
    EXPECT(fault_disarm());
    expect_file(&f, "a", "012ab");
    EXPECT_OK(os_open(f.dir, "a", O_RDONLY, 0, &src, &f.err), &f.err);
    fault_arm(0);
    EXPECT_ERR(os_copy(src, 0, fd, 5, 4, &f.err), ERR_FULL, &f.err);
    EXPECT(fault_disarm());
    os_close_quiet(&fd);
    os_close_quiet(&src);
    expect_file(&f, "a", "012ab01");
    fixture_free(&f);
}

/* ---- copies ------------------------------------------------------------------------------------ */

#define COPY_BYTES 700001 /* some steps and a bit */

static void fill(int fd, size_t n)
{
    struct err err = ERR_INIT;
    unsigned char *bytes = mem_alloc(n);

    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)(i * 7 >> 3);
    EXPECT_OK(os_write(fd, bytes, n, &err), &err);
    free(bytes);
}

static void expect_copied(int src, int64_t src_off, int dst, int64_t dst_off, size_t n)
{
    unsigned char *a = mem_alloc(n), *b = mem_alloc(n);
    struct err err = ERR_INIT;

    EXPECT_OK(os_pread_all(src, a, n, src_off, &err), &err);
    EXPECT_OK(os_pread_all(dst, b, n, dst_off, &err), &err);
    EXPECT_MEM(a, b, n);
    free(a);
    free(b);
}

/* Within one file system the kernel copies; from memory to disk it refuses and we do. */
TEST(copies_within_and_across_file_systems)
{
    struct fixture f = fixture_new();

    for (int across = 0; across < 2; across++) {
        struct stat st;
        int src = across ? memfd_create("src", MFD_CLOEXEC) : -1, dst;

        if (!across)
            EXPECT_OK(os_open(f.dir, "src", O_RDWR | O_CREAT, 0600, &src, &f.err), &f.err);
        EXPECT_OK(os_open(f.dir, "dst", O_RDWR | O_CREAT | O_TRUNC, 0600, &dst, &f.err), &f.err);
        fill(src, COPY_BYTES);
        EXPECT_OK(os_copy(src, 0, dst, 0, COPY_BYTES, &f.err), &f.err);
        expect_copied(src, 0, dst, 0, COPY_BYTES);
        EXPECT_OK(os_copy(src, 1000, dst, 300, 5000, &f.err), &f.err);
        expect_copied(src, 1000, dst, 300, 5000);
        expect_copied(src, 5300, dst, 5300, 100); /* not past the end */
        EXPECT_OK(os_copy(src, 0, dst, 0, 0, &f.err), &f.err);
        EXPECT_OK(os_stat(dst, &st, &f.err), &f.err);
        EXPECT_EQ(st.st_size, COPY_BYTES);

        /* The source is shorter than it was said to be. */
        EXPECT_ERR(os_copy(src, COPY_BYTES - 10, dst, 0, 11, &f.err), ERR_DAMAGED, &f.err);
        EXPECT(strstr(f.err.text, "short read: 10 of 11"));
        EXPECT_ERR(os_copy(src, 0, -1, 0, 1, &f.err), ERR_IO, &f.err);
        os_close_quiet(&src);
        os_close_quiet(&dst);
    }
    fixture_free(&f);
}

TEST(a_clone_is_whole_or_not_done)
{
    struct fixture f = fixture_new();
    bool done = true;
    int src, dst, memory = memfd_create("src", MFD_CLOEXEC);

    EXPECT_OK(os_open(f.dir, "src", O_RDWR | O_CREAT, 0600, &src, &f.err), &f.err);
    EXPECT_OK(os_open(f.dir, "dst", O_RDWR | O_CREAT, 0600, &dst, &f.err), &f.err);
    fill(src, 10000);
    EXPECT_OK(os_clone(src, dst, &done, &f.err), &f.err);
    if (done)
        expect_copied(src, 0, dst, 0, 10000);
    EXPECT_OK(os_clone(memory, dst, &done, &f.err), &f.err); /* across file systems never */
    EXPECT(!done);
    fault_arm(0);
    EXPECT_ERR(os_clone(src, dst, &done, &f.err), ERR_FULL, &f.err);
    EXPECT(fault_disarm());
    EXPECT(!done);
    EXPECT_ERR(os_clone(-1, dst, &done, &f.err), ERR_IO, &f.err);
    os_close_quiet(&src);
    os_close_quiet(&dst);
    os_close_quiet(&memory);
    fixture_free(&f);
}

/* ---- names ------------------------------------------------------------------------------------- */

TEST(names_are_made_moved_and_removed)
{
    struct fixture f = fixture_new();
    struct buf target;
    struct stat st;

    put_file(&f, "a", "text");
    EXPECT_OK(os_link(f.dir, "a", f.dir, "b", &f.err), &f.err);
    EXPECT_ERR(os_link(f.dir, "a", f.dir, "b", &f.err), ERR_EXISTS, &f.err);
    EXPECT_OK(os_stat_at(f.dir, "b", &st, &f.err), &f.err);
    EXPECT_EQ(st.st_nlink, 2);
    EXPECT_OK(os_rename(f.dir, "b", f.dir, "c", &f.err), &f.err);
    EXPECT(!there(&f, "b"));
    expect_file(&f, "c", "text");
    EXPECT_OK(os_mkdir(f.dir, "d", 0755, &f.err), &f.err);
    EXPECT_OK(os_mkdir(f.dir, "d", 0755, &f.err), &f.err);
    EXPECT_ERR(os_mkdir(f.dir, "a", 0755, &f.err), ERR_EXISTS, &f.err);
    EXPECT_OK(os_symlink("d", f.dir, "to-d", &f.err), &f.err);
    EXPECT_OK(os_mkdir(f.dir, "to-d", 0755, &f.err), &f.err); /* leads to a directory */
    EXPECT_OK(os_symlink("nowhere", f.dir, "to-nothing", &f.err), &f.err);
    EXPECT_ERR(os_mkdir(f.dir, "to-nothing", 0755, &f.err), ERR_EXISTS, &f.err);
    EXPECT_OK(os_stat_at(f.dir, "to-d", &st, &f.err), &f.err);
    EXPECT(S_ISLNK(st.st_mode));

    buf_init(&target, 300);
    buf_str(&target, "left over");
    EXPECT_OK(os_readlink(f.dir, "to-nothing", &target, &f.err), &f.err);
    EXPECT_STR(target.p, "nowhere");
    EXPECT_ERR(os_readlink(f.dir, "a", &target, &f.err), ERR_IO, &f.err);
    buf_release(&target);

    EXPECT_ERR(os_rmdir(f.dir, "a", &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_OK(os_rmdir(f.dir, "d", &f.err), &f.err);
    EXPECT_OK(os_unlink(f.dir, "c", &f.err), &f.err);
    EXPECT_ERR(os_unlink(f.dir, "c", &f.err), ERR_NOT_FOUND, &f.err);
    fixture_free(&f);
}

TEST(long_link_targets_are_read_whole)
{
    struct fixture f = fixture_new();
    char target[1001];
    struct buf b;

    memset(target, 't', 1000);
    target[1000] = '\0';
    EXPECT_OK(os_symlink(target, f.dir, "l", &f.err), &f.err);
    buf_init(&b, 2000);
    EXPECT_OK(os_readlink(f.dir, "l", &b, &f.err), &f.err);
    EXPECT_STR(b.p, target);
    buf_release(&b);
    buf_init(&b, 1000);
    EXPECT_ERR(os_readlink(f.dir, "l", &b, &f.err), ERR_LIMIT, &f.err);
    buf_release(&b);
    buf_init(&b, 1001);
    EXPECT_OK(os_readlink(f.dir, "l", &b, &f.err), &f.err);
    EXPECT_EQ(b.n, 1000);
    buf_release(&b);
    fixture_free(&f);
}

TEST(times_and_modes)
{
    static const int64_t times[] = {0, 1, 1700000000123456789, -1, -1500000000};
    struct fixture f = fixture_new();
    struct stat before, after;
    int fd;

    EXPECT_OK(os_open(f.dir, "a", O_RDWR | O_CREAT, 0600, &fd, &f.err), &f.err);
    for (size_t i = 0; i < COUNT(times); i++) {
        EXPECT_OK(os_stat(fd, &before, &f.err), &f.err);
        EXPECT_OK(os_set_mtime(fd, times[i], &f.err), &f.err);
        EXPECT_OK(os_stat(fd, &after, &f.err), &f.err);
        EXPECT_EQ(after.st_mtim.tv_sec * 1000000000 + after.st_mtim.tv_nsec, times[i]);
        EXPECT_MEM(&after.st_atim, &before.st_atim, sizeof(after.st_atim));
    }
    EXPECT_EQ(utimensat(f.dir, "a", (struct timespec[2]){{.tv_sec = 1}, {.tv_sec = 2}}, 0), 0);
    EXPECT_OK(os_touch_atime(f.dir, "a", &f.err), &f.err);
    EXPECT_OK(os_stat(fd, &after, &f.err), &f.err);
    EXPECT(after.st_atim.tv_sec > 1000000000);
    EXPECT_EQ(after.st_mtim.tv_sec, 2);
    EXPECT_OK(os_chmod(fd, 0444, &f.err), &f.err);
    EXPECT_OK(os_stat(fd, &after, &f.err), &f.err);
    EXPECT_EQ(after.st_mode & 07777, 0444);
    os_close_quiet(&fd);
    fixture_free(&f);
}

TEST(a_list_is_sorted_by_bytes_and_knows_types)
{
    static const struct {
        const char *name;
        unsigned char type;
    } expected[] = {
        {"A", DT_DIR},    {"Z", DT_REG},  {"a", DT_REG},        {"a-b", DT_LNK},
        {"a.b", DT_FIFO}, {"ab", DT_REG}, {"\xc3\xa9", DT_REG}, {"\xff", DT_REG},
    };
    struct fixture f = fixture_new();
    struct os_entry *entries;
    struct stat st;
    size_t count;

    EXPECT_OK(os_list(f.dir, &entries, &count, &f.err), &f.err);
    EXPECT_EQ(count, 0);
    free(entries);
    for (size_t i = COUNT(expected); i-- > 0;) {
        const char *name = expected[i].name;

        if (expected[i].type == DT_DIR)
            EXPECT_OK(os_mkdir(f.dir, name, 0755, &f.err), &f.err);
        else if (expected[i].type == DT_LNK)
            EXPECT_OK(os_symlink("x", f.dir, name, &f.err), &f.err);
        else if (expected[i].type == DT_FIFO)
            EXPECT_EQ(mkfifoat(f.dir, name, 0600), 0);
        else
            put_file(&f, name, "");
    }
    for (int round = 0; round < 2; round++) { /* twice: no position is kept in the descriptor */
        EXPECT_OK(os_list(f.dir, &entries, &count, &f.err), &f.err);
        EXPECT_EQ(count, COUNT(expected));
        for (size_t i = 0; i < count; i++) {
            EXPECT_STR(entries[i].name, expected[i].name);
            EXPECT_EQ(entries[i].type, expected[i].type);
            EXPECT_OK(os_stat_at(f.dir, entries[i].name, &st, &f.err), &f.err);
            EXPECT_EQ(entries[i].ino, st.st_ino);
        }
        free(entries);
    }
    EXPECT_ERR(os_list(-1, &entries, &count, &f.err), ERR_IO, &f.err);
    fixture_free(&f);
}

/* ---- whole files ------------------------------------------------------------------------------- */

TEST(whole_files_are_replaced_and_bounded)
{
    struct fixture f = fixture_new();
    struct buf b;
    struct stat st;

    buf_init(&b, 1000);
    put_file(&f, "a", "first");
    put_file(&f, "a", "second text");
    expect_file(&f, "a", "second text");
    EXPECT_OK(os_mkdir(f.dir, "d", 0755, &f.err), &f.err);
    EXPECT_OK(os_write_file(f.dir, "d/x", "x", 1, 0400, &f.err), &f.err);
    EXPECT_OK(os_stat_at(f.dir, "d/x", &st, &f.err), &f.err);
    EXPECT_EQ(st.st_mode & 07777, 0400);
    EXPECT_ERR(os_write_file(f.dir, "no/x", "x", 1, 0600, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_OK(os_write_file(f.dir, "empty", NULL, 0, 0600, &f.err), &f.err);

    EXPECT_OK(os_read_file(f.dir, "a", 11, &b, &f.err), &f.err);
    EXPECT_STR(b.p, "second text");
    EXPECT_OK(os_read_file(f.dir, "empty", 11, &b, &f.err), &f.err);
    EXPECT_EQ(b.n, 0);
    EXPECT_STR(b.p, "");
    EXPECT_OK(os_read_file(f.dir, "empty", 0, &b, &f.err), &f.err);
    EXPECT_ERR(os_read_file(f.dir, "a", 10, &b, &f.err), ERR_LIMIT, &f.err);
    EXPECT_STR(f.err.text, "read a: file longer than 10 bytes");
    EXPECT_EQ(b.n, 0);
    EXPECT_ERR(os_read_file(f.dir, "none", 10, &b, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_ERR(os_read_file(f.dir, "d", 100000, &b, &f.err), ERR_IO, &f.err);
    buf_release(&b);

    /* The buffer's own bound counts too. */
    buf_init(&b, 10);
    EXPECT_ERR(os_read_file(f.dir, "a", 1000, &b, &f.err), ERR_LIMIT, &f.err);
    buf_release(&b);

    /* Files of /proc say that they are empty. */
    buf_init(&b, 1 << 20);
    EXPECT_OK(os_read_file(AT_FDCWD, "/proc/self/status", 1 << 20, &b, &f.err), &f.err);
    EXPECT_EQ(strncmp(b.p, "Name:", 5), 0);
    EXPECT_ERR(os_read_file(AT_FDCWD, "/proc/self/status", 20, &b, &f.err), ERR_LIMIT, &f.err);
    buf_release(&b);
    fixture_free(&f);
}

TEST(parents_are_made)
{
    struct fixture f = fixture_new();
    char path[2 * TMPDIR_MAX];
    struct stat st;

    snprintf(path, sizeof(path), "%s//a/b/../c//d/", f.path);
    for (int round = 0; round < 2; round++)
        EXPECT_OK(os_mkdirs(path, 0755, &f.err), &f.err);
    EXPECT(there(&f, "a/c/d"));
    snprintf(path, sizeof(path), "%s/p/q", f.path);
    EXPECT_OK(os_mkdirs(path, 0400, &f.err), &f.err);
    EXPECT_OK(os_stat_at(f.dir, "p", &st, &f.err), &f.err);
    EXPECT_EQ(st.st_mode & 0700, 0700);
    EXPECT_OK(os_stat_at(f.dir, "p/q", &st, &f.err), &f.err);
    EXPECT_EQ(st.st_mode & 0700, 0400);
    put_file(&f, "file", "");
    snprintf(path, sizeof(path), "%s/file/x", f.path);
    EXPECT_ERR(os_mkdirs(path, 0755, &f.err), ERR_EXISTS, &f.err);
    EXPECT_OK(os_mkdirs("/", 0755, &f.err), &f.err);
    EXPECT_OK(os_mkdirs(".", 0755, &f.err), &f.err);
    EXPECT_ERR(os_mkdirs("", 0755, &f.err), ERR_NOT_FOUND, &f.err);
    fixture_free(&f);
}

/* ---- trees ------------------------------------------------------------------------------------- */

TEST(a_tree_goes_and_nothing_else_does)
{
    struct fixture f = fixture_new();
    const int fds = fd_count();

    EXPECT_OK(os_mkdir(f.dir, "kept", 0755, &f.err), &f.err);
    put_file(&f, "kept/file", "precious");
    EXPECT_OK(os_mkdir(f.dir, "t", 0755, &f.err), &f.err);
    EXPECT_OK(os_symlink("../kept", f.dir, "t/link-to-dir", &f.err), &f.err);
    EXPECT_OK(os_symlink("../kept/file", f.dir, "t/link-to-file", &f.err), &f.err);
    EXPECT_OK(os_symlink(".", f.dir, "t/link-to-self", &f.err), &f.err);
    EXPECT_EQ(mkfifoat(f.dir, "t/fifo", 0600), 0); /* opening one would wait for ever */
    EXPECT_OK(os_link(f.dir, "kept/file", f.dir, "t/hard", &f.err), &f.err);
    EXPECT_OK(os_mkdir(f.dir, "t/locked", 0755, &f.err), &f.err);
    EXPECT_OK(os_mkdir(f.dir, "t/locked/inner", 0755, &f.err), &f.err);
    put_file(&f, "t/locked/inner/x", "x");
    EXPECT_EQ(fchmodat(f.dir, "t/locked/inner", 0, 0), 0);
    EXPECT_EQ(fchmodat(f.dir, "t/locked", 0500, 0), 0);

    EXPECT_OK(os_remove_tree(f.dir, "t", &f.err), &f.err);
    EXPECT(!there(&f, "t"));
    expect_file(&f, "kept/file", "precious");
    EXPECT_OK(os_remove_tree(f.dir, "t", &f.err), &f.err); /* missing is fine */

    /* A link or a file in place of a tree. */
    EXPECT_OK(os_symlink("kept", f.dir, "l", &f.err), &f.err);
    EXPECT_OK(os_remove_tree(f.dir, "l", &f.err), &f.err);
    EXPECT(!there(&f, "l"));
    expect_file(&f, "kept/file", "precious");
    EXPECT_OK(os_remove_tree(f.dir, "kept/file", &f.err), &f.err);
    EXPECT(there(&f, "kept"));
    EXPECT_EQ(f.err.code, OK);
    EXPECT_EQ(fd_count(), fds);
    fixture_free(&f);
}

/* Deeper than descriptors, and than PATH_MAX. */
TEST(a_deep_tree_goes_with_few_descriptors)
{
    struct fixture f = fixture_new();
    struct rlimit before, few;
    int at = dup(f.dir), next;

    for (int depth = 0; depth < 3000; depth++) {
        EXPECT_OK(os_mkdir(at, "d", 0700, &f.err), &f.err);
        EXPECT_OK(os_open_dir(at, "d", &next, &f.err), &f.err);
        os_close_quiet(&at);
        at = next;
    }
    os_close_quiet(&at);
    EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = (rlim_t)fd_count() + 16;
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    EXPECT_OK(os_remove_tree(f.dir, "d", &f.err), &f.err);
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    EXPECT(!there(&f, "d"));
    fixture_free(&f);
}

static int remove_as_nobody(struct fixture *f)
{
    struct err err = ERR_INIT;

    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
        return 1;
    if (os_remove_tree(f->dir, "t", &err) != OK) {
        fprintf(stderr, "%s\n", err.text);
        return 2;
    }
    return there(f, "t") ? 3 : 0;
}

/* Root may do everything, so the rights of a tree show only to somebody else. */
TEST(locked_directories_are_unlocked_by_their_owner)
{
    static const struct {
        const char *name;
        mode_t mode;
    } dirs[] = {{"t", 0}, {"t/r", 0400}, {"t/w", 0200}, {"t/x", 0100}, {"t/none", 0}};
    struct fixture f = fixture_new();
    char name[64];
    int status;

    for (size_t i = 0; i < COUNT(dirs); i++) {
        EXPECT_OK(os_mkdir(f.dir, dirs[i].name, 0700, &f.err), &f.err);
        snprintf(name, sizeof(name), "%s/file", dirs[i].name);
        put_file(&f, name, "");
    }
    for (size_t i = COUNT(dirs); i-- > 0;) {
        if (geteuid() == 0)
            EXPECT_EQ(fchownat(f.dir, dirs[i].name, 65534, 65534, 0), 0);
        EXPECT_EQ(fchmodat(f.dir, dirs[i].name, dirs[i].mode, 0), 0);
    }
    if (geteuid() == 0)
        EXPECT_EQ(fchown(f.dir, 65534, 65534), 0);

    const pid_t child = fork();

    if (child == 0)
        _exit(remove_as_nobody(&f));
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
    fixture_free(&f);
}

/* ---- the rest ---------------------------------------------------------------------------------- */

TEST(clocks)
{
    const int64_t real = os_now_ns(), monotonic = os_monotonic_ns();

    EXPECT(real > INT64_C(1600000000) * 1000000000);
    EXPECT(os_monotonic_ns() >= monotonic);
    os_set_now(12345);
    EXPECT_EQ(os_now_ns(), 12345);
    EXPECT(os_monotonic_ns() >= monotonic);
    os_set_now(0);
    EXPECT(os_now_ns() >= real);
}

/* The environment is read once, so a fresh process is needed: this program, with a pattern that
 * selects the test below. */
TEST(the_clock_of_the_environment)
{
    char path[4096];
    int status;
    const ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

    EXPECT(n > 0);
    path[n] = '\0';

    const pid_t child = fork();

    if (child == 0) {
        setenv("WEIR_NOW_NS", "1234567890123456789", 1);
        execl(path, path, "frozen_clock", (char *)NULL);
        _exit(99);
    }
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
}

TEST(frozen_clock)
{
    if (!getenv("WEIR_NOW_NS"))
        return;
    EXPECT_EQ(os_now_ns(), 1234567890123456789);
    os_set_now(5);
    EXPECT_EQ(os_now_ns(), 5);
    os_set_now(0);
    EXPECT(os_now_ns() != 1234567890123456789);
}

TEST(random_bytes_differ)
{
    unsigned char a[300] = {0}, b[300] = {0};

    os_random(a, sizeof(a));
    os_random(b, sizeof(b));
    os_random(NULL, 0);
    EXPECT(memcmp(a, b, sizeof(a)) != 0);
    EXPECT(memcmp(a + 256, (unsigned char[44]){0}, 44) != 0); /* to the last byte */
}

TEST(processors_are_those_that_we_may_use)
{
    cpu_set_t before, one;
    int cpu = 0;

    EXPECT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
    EXPECT_EQ(os_cpu_count(), CPU_COUNT(&before));
    while (!CPU_ISSET(cpu, &before))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    EXPECT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    EXPECT_EQ(os_cpu_count(), 1);
    EXPECT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
}

TEST(closed_standard_streams_are_nobodys_files)
{
    struct fixture f = fixture_new();
    int status;
    const pid_t child = fork();

    EXPECT(child >= 0);
    if (child == 0) { /* no EXPECT here: nobody would see it */
        struct err err = ERR_INIT;
        int fd = -1;
        bool good;

        close(STDIN_FILENO);
        close(STDERR_FILENO);
        os_hold_stdio();
        good = os_open(f.dir, "file", O_RDWR | O_CREAT, 0644, &fd, &err) == OK;
        good = good && fd > STDERR_FILENO && fcntl(STDOUT_FILENO, F_GETFL) >= 0;
        good = good && write(STDERR_FILENO, "x", 1) == -1 && errno == EBADF;
        good = good && read(STDIN_FILENO, &status, 1) == -1 && errno == EBADF;
        _exit(good ? 0 : 1);
    }
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    fixture_free(&f);
}

RUN(closed_standard_streams_are_nobodys_files, descriptors_close_once_and_on_exec,
    messages_name_the_whole_path, real_failures_are_told_as_they_are, bytes_go_out_and_come_back,
    short_reads_and_signals_are_handled, an_injected_write_failure_leaves_half,
    copies_within_and_across_file_systems, a_clone_is_whole_or_not_done,
    names_are_made_moved_and_removed, long_link_targets_are_read_whole, times_and_modes,
    a_list_is_sorted_by_bytes_and_knows_types, whole_files_are_replaced_and_bounded,
    parents_are_made, a_tree_goes_and_nothing_else_does, a_deep_tree_goes_with_few_descriptors,
    locked_directories_are_unlocked_by_their_owner, clocks, the_clock_of_the_environment,
    frozen_clock, random_bytes_differ, processors_are_those_that_we_may_use)
