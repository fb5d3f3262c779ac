/* Random bytes of every kind through every encoding, and damaged encodings. */
#include "store/codec.h"
#include "store/planes.h"
#include "tests/check.h"
#include "tests/store_gen.h"

#define CASES 250
#define BYTES_MAX ((size_t)3 << 20)

/* Stretches of different kinds, so that samples and planes mislead. */
static void random_bytes(uint64_t *seed, uint8_t *p, size_t n)
{
    size_t at = 0;

    while (at < n) {
        size_t run = 1 + gen_below(seed, gen_below(seed, 2) ? n : 2000);

        if (run > n - at)
            run = n - at;
        switch (gen_below(seed, 6)) {
        case 0:
            memset(p + at, (int)gen_below(seed, 256), run);
            break;
        case 1:
            gen_noise(seed, p + at, run);
            break;
        case 2:
            memset(p + at, 0, run);
            gen_weights(seed, p + at, run, 2);
            break;
        case 3:
            memset(p + at, 0, run);
            gen_weights(seed, p + at, run, 4);
            break;
        case 4:
            for (size_t i = 0; i < run; i++)
                p[at + i] = i < 100 ? (uint8_t)i : p[at + i - 100];
            break;
        default:
            for (size_t i = 0; i < run; i++)
                p[at + i] = (uint8_t) "abcdefgh ,.\n"[gen_below(seed, 12)];
        }
        at += run;
    }
}

TEST(encodings_are_exact_and_best_is_never_longer)
{
    uint8_t *p = mem_alloc(BYTES_MAX), *raw = mem_alloc(BYTES_MAX);
    struct err err = ERR_INIT;
    struct codec *c;
    struct buf out;

    EXPECT_OK(codec_new(&c, &err), &err);
    buf_init(&out, 2 * BYTES_MAX);
    for (uint64_t i = 0; i < CASES; i++) {
        uint64_t seed = i;
        const size_t n = gen_below(&seed, gen_below(&seed, 8) ? 20000 : BYTES_MAX);
        const enum hint hint = (enum hint)gen_below(&seed, 5);
        const int level = (int)gen_below(&seed, 6) - 2;
        enum enc enc;

        print_message(" %llu", (unsigned long long)i);
        random_bytes(&seed, p, n);
        for (int e = 0; e < ENC_COUNT; e++) {
            buf_clear(&out);
            EXPECT_OK(codec_encode(c, (enum enc)e, level, p, n, &out, &err), &err);
            memset(raw, 0x55, n);
            EXPECT_OK(codec_decode(c, (enum enc)e, out.p, out.n, raw, n, &err), &err);
            EXPECT_EQ(memcmp(raw, p, n), 0);
        }
        buf_clear(&out);
        EXPECT_OK(codec_best(c, hint, level, p, n, &enc, &out, &err), &err);
        if (enc == ENC_RAW) {
            EXPECT_EQ(out.n, 0);
            continue;
        }
        EXPECT(out.n < n - n / 20);
        memset(raw, 0x55, n);
        EXPECT_OK(codec_decode(c, enc, out.p, out.n, raw, n, &err), &err);
        EXPECT_EQ(memcmp(raw, p, n), 0);
    }
    codec_free(c);
    buf_release(&out);
    free(p);
    free(raw);
}

/* Bits do flip unseen in raw planes: ids catch that.  Here, no more than an error or other bytes
 * may come of it. */
TEST(damaged_bytes_do_no_harm)
{
    struct err err = ERR_INIT;
    struct codec *c;
    struct buf out;
    int refused = 0;

    EXPECT_OK(codec_new(&c, &err), &err);
    buf_init(&out, 2 * BYTES_MAX);
    for (uint64_t i = 0; i < CASES; i++) {
        uint64_t seed = 1000000 + i;
        const size_t n = 1 + gen_below(&seed, 20000);
        uint8_t *p = mem_alloc(n), *raw = mem_alloc(n);

        random_bytes(&seed, p, n);
        for (int e = 1; e < ENC_COUNT; e++) {
            buf_clear(&out);
            EXPECT_OK(codec_encode(c, (enum enc)e, 1, p, n, &out, &err), &err);
            for (int flips = 0; flips < 20; flips++) {
                struct err ignored = ERR_INIT;
                const size_t at = gen_below(&seed, gen_below(&seed, 2) ? out.n : 16 % out.n + 1);
                const char was = out.p[at];
                uint8_t *exact = mem_alloc(out.n);

                out.p[at] = (char)gen_u64(&seed);
                memcpy(exact, out.p, out.n);
                const enum err_code rc =
                    codec_decode(c, (enum enc)e, exact, out.n, raw, n, &ignored);

                EXPECT(rc == OK || rc == ERR_DAMAGED);
                refused += rc != OK;
                out.p[at] = was;
                free(exact);
            }
        }
        free(p);
        free(raw);
    }
    EXPECT(refused > CASES);
    codec_free(c);
    buf_release(&out);
}

TEST(planes_join_what_they_split_at_any_length_and_alignment)
{
    uint8_t words[4 * 600 + 16], planes[4 * 616], back[4 * 600 + 16];
    uint64_t seed = 1;

    for (int i = 0; i < 2000; i++) {
        const size_t width = gen_below(&seed, 2) ? 2 : 4, n = gen_below(&seed, 600);
        const size_t shift = gen_below(&seed, 16);
        const struct planes_ops *ops = planes_ops((enum planes_set)gen_below(&seed, 2));
        uint8_t *p[PLANES_MAX];
        const uint8_t *q[PLANES_MAX];

        ops = ops ? ops : planes_best();
        gen_noise(&seed, words, sizeof(words));
        memset(back, 0, sizeof(back));
        for (size_t k = 0; k < PLANES_MAX; k++) {
            p[k] = planes + k * 616 + gen_below(&seed, 16);
            q[k] = p[k];
        }
        (width == 2 ? ops->split2 : ops->split4)(words + shift, n, p);
        (width == 2 ? ops->join2 : ops->join4)(q, n, back + shift);
        EXPECT_MEM(words + shift, back + shift, width * n);
        EXPECT_EQ(back[shift + width * n], 0);
    }
}

RUN(encodings_are_exact_and_best_is_never_longer, damaged_bytes_do_no_harm,
    planes_join_what_they_split_at_any_length_and_alignment)
