/* Reading past the page cache gives the same bytes, whatever the length; on a file system that cannot do it, all the same. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/os.h"
#include "store/fsck_read.h"
#include "tests/check.h"
#include "tests/store_gen.h"

struct file {
    char dir[TMPDIR_MAX];
    int dir_fd, fd;
    char *bytes;
    size_t n;
    struct digest id;
};

static void file_new(struct file *f, size_t n)
{
    struct err err = ERR_INIT;
    uint64_t seed = n + 1;

    *f = (struct file){.n = n, .fd = -1, .bytes = mem_alloc(n + 1)};
    tmpdir_new(f->dir);
    f->dir_fd = open(f->dir, O_RDONLY | O_DIRECTORY);
    EXPECT(f->dir_fd >= 0);
    gen_noise(&seed, f->bytes, n);
    sha256_of(f->bytes, n, &f->id);
    EXPECT_OK(os_write_file(f->dir_fd, "file", f->bytes, n, 0600, &err), &err);
    EXPECT_OK(os_open(f->dir_fd, "file", O_RDONLY, 0, &f->fd, &err), &err);
    EXPECT_EQ(fsync(f->fd), 0);
    EXPECT_EQ(posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED), 0);
}

static void file_free(struct file *f)
{
    free(f->bytes);
    close(f->fd);
    close(f->dir_fd);
    tmpdir_free(f->dir);
}

static void add_up(void *sum, int64_t bytes)
{
    *(int64_t *)sum += bytes;
}

TEST(whole_files_hash_to_their_names)
{
    static const size_t sizes[] = {
        0, 1, 4095, 4096, 1 << 20, 5 << 20, (5 << 20) + 1, (9 << 20) + 4095, 300001};
    int direct = 0;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct err err = ERR_INIT;
        struct digest is;
        struct scan scan;
        struct file f;
        int64_t sum = 0;

        file_new(&f, sizes[i]);
        scan_init(&scan, f.fd, (int64_t)f.n);
        direct += atomic_load(&scan.direct);
        EXPECT_OK(scan_hash(&scan, (int64_t)f.n, &is, add_up, &sum, &err), &err);
        EXPECT(digest_eq(&is, &f.id));
        EXPECT_EQ(sum, f.n);
        file_free(&f);
    }
    print_message("%d files past the page cache\n", direct);
}

TEST(pieces_are_where_they_belong)
{
    static const size_t sizes[] = {700, 300000, (3 << 20) + 777};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct err err = ERR_INIT;
        struct span span = {0};
        struct scan scan;
        struct file f;
        uint64_t seed = 5;
        const uint8_t *p;
        size_t n;

        file_new(&f, sizes[i]);
        scan_init(&scan, f.fd, (int64_t)f.n);
        span_init(&span, &scan);
        for (int k = 0; k < 300; k++) {
            const size_t off = (size_t)gen_below(&seed, f.n);
            const size_t want = 1 + (size_t)gen_below(&seed, f.n - off);

            EXPECT_OK(span_at(&span, (int64_t)off, want, &p, &err), &err);
            EXPECT(memcmp(p, f.bytes + off, want) == 0);
            EXPECT_OK(span_some(&span, (int64_t)off, want, &p, &n, &err), &err);
            EXPECT(n >= 1 && n <= want);
            EXPECT(memcmp(p, f.bytes + off, n) == 0);
        }
        EXPECT_OK(span_some(&span, (int64_t)f.n, 10, &p, &n, &err), &err);
        EXPECT_EQ(n, 0);
        EXPECT_ERR(span_at(&span, (int64_t)f.n - 1, 2, &p, &err), ERR_DAMAGED, &err);
        span_release(&span);
        file_free(&f);
    }
}

TEST(a_read_that_fails_is_an_error)
{
    bool fired = true;

    for (int nth = 0; fired; nth++) {
        struct err err = ERR_INIT;
        struct digest is;
        struct scan scan;
        struct file f;
        enum err_code rc;

        file_new(&f, (5 << 20) + 17);
        scan_init(&scan, f.fd, (int64_t)f.n);
        fault_arm(nth);
        rc = scan_hash(&scan, (int64_t)f.n, &is, NULL, NULL, &err);
        fired = fault_disarm();
        EXPECT_EQ(rc == OK, !fired);
        EXPECT(rc || digest_eq(&is, &f.id));
        file_free(&f);
    }
}

RUN(whole_files_hash_to_their_names, pieces_are_where_they_belong, a_read_that_fails_is_an_error)
