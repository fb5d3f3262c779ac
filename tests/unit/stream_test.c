#include <fcntl.h>
#include <unistd.h>

#include "base/os.h"
#include "store/stream.h"
#include "tests/check.h"
#include "tests/store_gen.h"

/* A file without a name, holding n bytes. */
static int file_with(const void *p, size_t n)
{
    char path[TMPDIR_MAX + 8], dir[TMPDIR_MAX];
    struct err err = ERR_INIT;
    int fd = -1;

    tmpdir_new(dir);
    snprintf(path, sizeof(path), "%s/f", dir);
    EXPECT_OK(os_open(AT_FDCWD, path, O_RDWR | O_CREAT, 0600, &fd, &err), &err);
    EXPECT_OK(os_write(fd, p, n, &err), &err);
    tmpdir_free(dir);
    return fd;
}

/* All chunks in order, none missing, each with the digest of its bytes; the whole with its own. */
static size_t expect_pass(struct stream *s, int fd, const uint8_t *bytes, size_t n, size_t want)
{
    struct cutter *cutter = cut_new(bytes, n, (int64_t)n);
    const struct stream_chunk *chunks;
    struct err err = ERR_INIT;
    struct digest expected, whole;
    size_t count, total = 0;
    int64_t at = 0;

    EXPECT_OK(stream_start(s, fd, (int64_t)n, cutter, &err), &err);
    for (;;) {
        EXPECT_OK(stream_take(s, want, &chunks, &count, &err), &err);
        if (count == 0)
            break;
        for (size_t i = 0; i < count; i++) {
            EXPECT_EQ(chunks[i].off, at);
            EXPECT_MEM(chunks[i].p, bytes + at, chunks[i].len);
            EXPECT_EQ((uintptr_t)chunks[i].p % STREAM_PAGE, (size_t)at % STREAM_PAGE);
            sha256_of(bytes + at, chunks[i].len, &expected);
            EXPECT(digest_eq(&expected, &chunks[i].id));
            at += chunks[i].len;
        }
        /* What was handed out before, back to the page boundary, has not been overwritten. */
        const size_t back = (size_t)chunks[0].off % STREAM_PAGE;

        EXPECT_MEM(chunks[0].p - back, bytes + chunks[0].off - back, back);
        total += count;
    }
    EXPECT_EQ(at, n);
    stream_finish(s, &whole);
    sha256_of(bytes, n, &expected);
    EXPECT(digest_eq(&expected, &whole));
    cut_free(cutter);
    return total;
}

static void pass_over(struct stream *s, const struct buf *b, size_t want)
{
    int fd = file_with(b->p, b->n);
    enum cut_rule rule;
    size_t count;
    size_t *ends = gen_cuts(b->p, b->n, &rule, &count);

    EXPECT_EQ(expect_pass(s, fd, (const uint8_t *)b->p, b->n, want), count);
    free(ends);
    os_close_quiet(&fd);
}

TEST(every_rule_and_size_comes_out_whole)
{
    static const struct gen_tensor tensors[] = {
        {"a", "BF16", 9 << 20, 2},  {"b", "BF16", 12346, 2}, {"c", "F32", 3 << 20, 4},
        {"d", "F32", 17 << 20, 4},  {"e", "U8", 1, 1},       {"f", "BF16", (8 << 20) + 2, 2},
        {"g", "BF16", 30000000, 2},
    };
    struct err err = ERR_INIT;
    struct stream *s = NULL;
    uint64_t seed = 8;
    struct buf b;

    EXPECT_OK(stream_new(&s, &err), &err);
    buf_init(&b, 128 << 20);
    gen_safetensors(&b, &seed, tensors, 7, 5);
    pass_over(s, &b, 2);
    buf_clear(&b);
    for (int i = 0; i < 40; i++) {
        char name[16];

        snprintf(name, sizeof(name), "m%d", i);
        gen_tar_file(&b, &seed, name, gen_below(&seed, 900000));
    }
    gen_tar_end(&b);
    pass_over(s, &b, 8);
    /* Sizes around the steps; the last is more than twice the ring. */
    static const size_t sizes[] = {1, 4095, 4097, 1 << 20, (1 << 20) + 1, 8 << 20, 110000001};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        void *room;

        buf_clear(&b);
        room = buf_room(&b, sizes[i]);
        EXPECT(room != NULL);
        gen_noise(&seed, room, sizes[i]);
        pass_over(s, &b, 1 + i % 3);
    }
    stream_free(s);
    buf_release(&b);
}

/* More chunks than the table holds: small tensors between large ones are chunks of their own. */
TEST(many_small_chunks_pass)
{
    enum { PAIRS = 600 };
    static struct gen_tensor tensors[2 * PAIRS];
    static char names[2 * PAIRS][8];
    struct err err = ERR_INIT;
    struct stream *s = NULL;
    uint64_t seed = 9;
    struct buf b;

    for (int i = 0; i < 2 * PAIRS; i++) {
        snprintf(names[i], sizeof(names[i]), "t%d", i);
        tensors[i] = (struct gen_tensor){names[i], "U8", i % 2 ? 100 : 66000, 1};
    }
    buf_init(&b, 64 << 20);
    gen_safetensors(&b, &seed, tensors, 2 * PAIRS, 0);
    EXPECT_OK(stream_new(&s, &err), &err);
    pass_over(s, &b, 1);
    stream_free(s);
    buf_release(&b);
}

/* The file is shorter than it was when it was opened; afterwards the stream works as before. */
TEST(a_file_that_ends_early_has_changed)
{
    const struct stream_chunk *chunks;
    struct err err = ERR_INIT;
    struct stream *s = NULL;
    enum err_code rc = OK;
    uint64_t seed = 10;
    size_t count = 1;
    struct buf b;
    void *room;

    buf_init(&b, 32 << 20);
    room = buf_room(&b, 20 << 20);
    EXPECT(room != NULL);
    gen_noise(&seed, room, 20 << 20);
    EXPECT_OK(stream_new(&s, &err), &err);

    int fd = file_with(b.p, (size_t)(15 << 20));
    struct cutter *cutter = cut_new(b.p, b.n, (int64_t)b.n);

    EXPECT_OK(stream_start(s, fd, (int64_t)b.n, cutter, &err), &err);
    while (!rc && count > 0)
        rc = stream_take(s, 1, &chunks, &count, &err);
    EXPECT_ERR(rc, ERR_CHANGED, &err);
    stream_stop(s);
    stream_stop(s);
    cut_free(cutter);
    os_close_quiet(&fd);
    err = (struct err)ERR_INIT;
    pass_over(s, &b, 3);
    stream_free(s);
    stream_free(NULL);
    buf_release(&b);
}

RUN(every_rule_and_size_comes_out_whole, many_small_chunks_pass, a_file_that_ends_early_has_changed)
