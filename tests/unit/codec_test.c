#include "base/os.h"
#include "store/codec.h"
#include "store/planes.h"
#include "tests/check.h"
#include "tests/store_gen.h"

#define MIB ((size_t)1 << 20)

struct fixture {
    struct codec *c;
    struct buf out;
    struct err err;
};

static struct fixture fixture_new(void)
{
    struct fixture f = {.err = ERR_INIT};

    EXPECT_OK(codec_new(&f.c, &f.err), &f.err);
    buf_init(&f.out, 4 * CODEC_RAW_MAX);
    return f;
}

static void fixture_free(struct fixture *f)
{
    codec_free(f->c);
    buf_release(&f->out);
}

static void expect_decodes(struct fixture *f, enum enc enc, const void *p, size_t n)
{
    uint8_t *raw = mem_alloc(n); /* exactly n, for the sanitizers */

    EXPECT_OK(codec_decode(f->c, enc, f->out.p, f->out.n, raw, n, &f->err), &f->err);
    if (n)
        EXPECT_MEM(raw, p, n);
    free(raw);
}

TEST(every_encoding_gives_back_every_length)
{
    static const size_t lengths[] = {
        0,       1,       2,       3,           4,           5,          7,   8,
        63,      64,      65,      513,         65537,       MIB - 1,    MIB, MIB + 1,
        MIB + 2, MIB + 3, MIB + 4, 2 * MIB - 3, 2 * MIB + 7, 3 * MIB + 2};
    struct fixture f = fixture_new();
    uint8_t *p = mem_alloc(4 * MIB);
    uint64_t seed = 1;

    gen_weights(&seed, p, 4 * MIB, 4);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
        for (int enc = 0; enc < ENC_COUNT; enc++) {
            buf_clear(&f.out);
            EXPECT_OK(codec_encode(f.c, (enum enc)enc, 1, p, lengths[i], &f.out, &f.err), &f.err);
            expect_decodes(&f, (enum enc)enc, p, lengths[i]);
        }
    free(p);
    fixture_free(&f);
}

TEST(appends_and_leaves_the_buffer_alone_on_failure)
{
    struct fixture f = fixture_new();
    struct buf small;
    uint8_t p[1000] = {0};
    uint64_t seed = 1;
    enum enc enc;

    gen_noise(&seed, p, sizeof(p));
    buf_init(&small, 100);
    buf_str(&small, "before");
    for (int e = 0; e < ENC_COUNT; e++) {
        EXPECT_ERR(codec_encode(f.c, (enum enc)e, 1, p, sizeof(p), &small, &f.err), ERR_LIMIT,
                   &f.err);
        EXPECT_STR(small.p, "before");
        small.failed = false;
    }
    EXPECT_OK(codec_best(f.c, HINT_NONE, 1, p, sizeof(p), &enc, &small, &f.err), &f.err);
    EXPECT_EQ(enc, ENC_RAW);
    EXPECT_STR(small.p, "before");
    small.failed = false;
    memset(p, 0, sizeof(p));
    EXPECT_OK(codec_best(f.c, HINT_NONE, 1, p, sizeof(p), &enc, &small, &f.err), &f.err);
    EXPECT_EQ(enc, ENC_ZSTD);
    EXPECT_MEM(small.p, "before\x28\xb5\x2f\xfd", 10);
    buf_release(&small);
    fixture_free(&f);
}

TEST(refuses_more_than_the_limit)
{
    struct fixture f = fixture_new();
    uint8_t *p = mem_zero(1, CODEC_RAW_MAX + 1);
    enum enc enc;

    EXPECT_ERR(codec_encode(f.c, ENC_RAW, 1, p, CODEC_RAW_MAX + 1, &f.out, &f.err), ERR_LIMIT,
               &f.err);
    EXPECT_ERR(codec_best(f.c, HINT_NONE, 1, p, CODEC_RAW_MAX + 1, &enc, &f.out, &f.err), ERR_LIMIT,
               &f.err);
    EXPECT_ERR(codec_decode(f.c, ENC_RAW, p, 1, p, CODEC_RAW_MAX + 1, &f.err), ERR_LIMIT, &f.err);
    EXPECT_OK(codec_best(f.c, HINT_WORDS4, 1, p, CODEC_RAW_MAX, &enc, &f.out, &f.err), &f.err);
    expect_decodes(&f, enc, p, CODEC_RAW_MAX);
    free(p);
    fixture_free(&f);
}

/* The numbers of store.md 2b: 0.6574 of the raw size is the order-0 bound. */
TEST(weights_shrink_to_the_entropy_of_their_exponents)
{
    struct fixture f = fixture_new();
    uint8_t *p = mem_alloc(8 * MIB);
    uint64_t seed = 1;

    gen_weights(&seed, p, 8 * MIB, 2);
    EXPECT_OK(codec_encode(f.c, ENC_PLANES2, 0, p, 8 * MIB, &f.out, &f.err), &f.err);
    EXPECT((double)f.out.n < 0.6640 * 8 * MIB);
    expect_decodes(&f, ENC_PLANES2, p, 8 * MIB);
    gen_weights(&seed, p, 8 * MIB, 4);
    buf_clear(&f.out);
    EXPECT_OK(codec_encode(f.c, ENC_PLANES4, 0, p, 8 * MIB, &f.out, &f.err), &f.err);
    EXPECT((double)f.out.n < 0.8330 * 8 * MIB);
    expect_decodes(&f, ENC_PLANES4, p, 8 * MIB);
    free(p);
    fixture_free(&f);
}

enum kind {
    ZEROS,
    NOISE,
    BF16,
    F32,
    F32_FROM_BF16,
    COUNTER32,
    REPEATS32,
    SPARSE32,
    JSON_TEXT,
    SECOND_HALF
};

static void fill(enum kind kind, uint8_t *p, size_t n)
{
    uint64_t seed = kind;

    memset(p, 0, n);
    switch (kind) {
    case ZEROS:
        break;
    case NOISE:
        gen_noise(&seed, p, n);
        break;
    case BF16:
        gen_weights(&seed, p, n, 2);
        break;
    case F32:
        gen_weights(&seed, p, n, 4);
        break;
    case F32_FROM_BF16: /* as a converter writes it */
        gen_weights(&seed, p, n, 4);
        for (size_t i = 0; i + 4 <= n; i += 4)
            p[i] = p[i + 1] = 0;
        break;
    case COUNTER32:
        for (size_t i = 0; i + 4 <= n; i += 4)
            memcpy(p + i, &(uint32_t){(uint32_t)i / 4 * 3}, 4);
        break;
    case REPEATS32: /* the same few rows again and again */
        gen_noise(&seed, p, 4000);
        for (size_t i = 4000; i < n; i++)
            p[i] = p[i - 4000];
        break;
    case SPARSE32: /* an optimiser's state that was hardly ever touched */
        for (size_t i = 0; i + 4 <= n; i += 4 * (1 + gen_below(&seed, 2000)))
            gen_weights(&seed, p + i, 4, 4);
        break;
    case JSON_TEXT:
        gen_json(&seed, (char *)p, n);
        break;
    case SECOND_HALF: /* judged by its first bytes alone this would look like zeros */
        gen_noise(&seed, p + n / 2, n - n / 2);
        break;
    }
}

TEST(best_picks_what_pays)
{
    static const struct {
        enum kind kind;
        enum hint hint;
        size_t n;
        enum enc enc;
        double ratio; /* at most */
    } cases[] = {
        {ZEROS, HINT_WORDS2, 8 * MIB, ENC_ZSTD, 0.001},
        {ZEROS, HINT_WORDS4, 8 * MIB, ENC_ZSTD, 0.001},
        {ZEROS, HINT_NONE, 8 * MIB, ENC_ZSTD, 0.001},
        {ZEROS, HINT_NONE, 200, ENC_ZSTD, 0.2},
        {ZEROS, HINT_NONE, 10, ENC_RAW, 0},
        {ZEROS, HINT_NONE, 0, ENC_RAW, 0},
        {ZEROS, HINT_PACKED, MIB, ENC_RAW, 0},
        {NOISE, HINT_NONE, 8 * MIB, ENC_RAW, 0},
        {NOISE, HINT_WORDS2, 8 * MIB, ENC_RAW, 0},
        {NOISE, HINT_WORDS4, MIB, ENC_RAW, 0},
        {NOISE, HINT_TEXT, 10000, ENC_RAW, 0},
        {BF16, HINT_WORDS2, 8 * MIB, ENC_PLANES2, 0.664},
        {BF16, HINT_WORDS2, 8 * MIB - 3, ENC_PLANES2, 0.664},
        {BF16, HINT_WORDS2, 4096, ENC_PLANES2, 0.70},
        {F32, HINT_WORDS4, 8 * MIB, ENC_PLANES4, 0.833},
        {F32_FROM_BF16, HINT_WORDS4, 2 * MIB, ENC_PLANES4, 0.34},
        {COUNTER32, HINT_WORDS4, 2 * MIB, ENC_PLANES4, 0.3},
        {REPEATS32, HINT_WORDS4, 2 * MIB, ENC_ZSTD, 0.3},
        {SPARSE32, HINT_WORDS4, 2 * MIB, ENC_ZSTD, 0.02},
        {JSON_TEXT, HINT_TEXT, 2 * MIB, ENC_ZSTD, 0.25},
        {JSON_TEXT, HINT_NONE, 2 * MIB, ENC_ZSTD, 0.25},
        {JSON_TEXT, HINT_TEXT, 1000, ENC_ZSTD, 0.8},
        {SECOND_HALF, HINT_NONE, 2 * MIB, ENC_ZSTD, 0.51},
    };
    struct fixture f = fixture_new();

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const size_t n = cases[i].n;
        uint8_t *p = mem_alloc(n);
        enum enc enc;

        fill(cases[i].kind, p, n);
        buf_clear(&f.out);
        EXPECT_OK(codec_best(f.c, cases[i].hint, 3, p, n, &enc, &f.out, &f.err), &f.err);
        if (enc != cases[i].enc || (double)f.out.n > cases[i].ratio * (double)n)
            print_error("case %zu: encoding %d, %zu of %zu bytes\n", i, (int)enc, f.out.n, n);
        EXPECT_EQ(enc, cases[i].enc);
        EXPECT((double)f.out.n <= cases[i].ratio * (double)n);
        if (enc != ENC_RAW)
            expect_decodes(&f, enc, p, n);
        free(p);
    }
    fixture_free(&f);
}

/* Written by version 1: what has been stored must stay readable, whatever a later encoder writes. */
TEST(old_bytes_stay_readable)
{
    /* A raw plane, a zstd frame of 16 bytes 0x80, and a tail. */
    static const uint8_t stored[] = {1, 16,   0,    0,    0,    1,    2,  3,    4,  5,  6,    7,
                                     8, 9,    10,   11,   12,   13,   14, 15,   16, 10, 0,    0,
                                     1, 0x28, 0xb5, 0x2f, 0xfd, 0x20, 16, 0x83, 0,  0,  0x80, 0xee};
    struct fixture f = fixture_new();
    uint8_t raw[33];

    EXPECT_OK(codec_decode(f.c, ENC_PLANES2, stored, sizeof(stored), raw, sizeof(raw), &f.err),
              &f.err);
    for (int i = 0; i < 16; i++) {
        /* Word i is (i + 1) << 8 | 0x80, rotated right by one. */
        EXPECT_EQ(raw[2 * i] | raw[2 * i + 1] << 8, ((i + 1) << 8 | 0x80) >> 1);
    }
    EXPECT_EQ(raw[32], 0xee);
    fixture_free(&f);
}

TEST(damage_is_an_error)
{
    struct fixture f = fixture_new();
    uint8_t p[5001], raw[5001];
    uint64_t seed = 1;

    gen_weights(&seed, p, sizeof(p), 4);
    p[sizeof(p) - 1] = 7;
    for (int e = 0; e < ENC_COUNT; e++) {
        const enum enc enc = (enum enc)e;

        buf_clear(&f.out);
        EXPECT_OK(codec_encode(f.c, enc, 1, p, sizeof(p), &f.out, &f.err), &f.err);
        for (size_t n = 0; n < f.out.n; n++) {
            uint8_t *cut = mem_alloc(n);

            memcpy(cut, f.out.p, n);
            EXPECT_ERR(codec_decode(f.c, enc, cut, n, raw, sizeof(raw), &f.err), ERR_DAMAGED,
                       &f.err);
            free(cut);
        }
        EXPECT_ERR(codec_decode(f.c, enc, f.out.p, f.out.n, raw, sizeof(raw) - 1, &f.err),
                   ERR_DAMAGED, &f.err);
        buf_char(&f.out, 0);
        EXPECT_ERR(codec_decode(f.c, enc, f.out.p, f.out.n, raw, sizeof(raw), &f.err), ERR_DAMAGED,
                   &f.err);
    }
    fixture_free(&f);
}

TEST(hostile_headers_are_errors)
{
    static const struct {
        const char *bytes;
        size_t n, raw;
        enum enc enc;
    } cases[] = {
        {"", 0, 0, ENC_PLANES2},
        {"\0", 1, 0, ENC_PLANES2},
        {"\2", 1, 0, ENC_PLANES4},
        {"\1x", 2, 0, ENC_PLANES2},
        {"\1\xff\xff\xff\0ab", 7, 2, ENC_PLANES2},
        {"\1\xff\xff\xff\1ab", 7, 2, ENC_PLANES2},
        {"\1\1\0\0\2a\1\0\0\0b", 11, 2, ENC_PLANES2},
        {"\1\1\0\0\xff"
         "a\1\0\0\0b",
         11, 2, ENC_PLANES2},
        {"\1\0\0\0\0\1\0\0\0b", 10, 2, ENC_PLANES2},
        {"\1\0\0\0\1\1\0\0\0b", 10, 2, ENC_PLANES2},
        {"\1\1\0\0\1a\1\0\0\0b", 11, 2, ENC_PLANES2},
        {"\1\1\0\0\0a\1\0\0\0", 10, 2, ENC_PLANES2},
        {"", 0, 0, ENC_ZSTD},
        {"\x28\xb5\x2f\xfd", 4, 0, ENC_ZSTD},
        /* a frame that is skipped, then an empty one; two empty ones */
        {"\x50\x2a\x4d\x18\0\0\0\0\x28\xb5\x2f\xfd\x20\0\1\0\0", 17, 0, ENC_ZSTD},
        {"\x28\xb5\x2f\xfd\x20\0\1\0\0\x28\xb5\x2f\xfd\x20\0\1\0\0", 18, 0, ENC_ZSTD},
        /* says 2^62 bytes */
        {"\x28\xb5\x2f\xfd\xe0\0\0\0\0\0\0\0\x40\1\0\0", 16, 9, ENC_ZSTD},
    };
    struct fixture f = fixture_new();
    uint8_t raw[16];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t *p = mem_alloc(cases[i].n);

        memcpy(p, cases[i].bytes, cases[i].n);
        EXPECT_ERR(codec_decode(f.c, cases[i].enc, p, cases[i].n, raw, cases[i].raw, &f.err),
                   ERR_DAMAGED, &f.err);
        free(p);
    }
    EXPECT_OK(codec_decode(f.c, ENC_ZSTD, "\x28\xb5\x2f\xfd\x20\0\1\0\0", 9, NULL, 0, &f.err),
              &f.err);
    EXPECT_OK(codec_decode(f.c, ENC_PLANES4, "\1abc", 4, raw, 3, &f.err), &f.err);
    EXPECT_MEM(raw, "abc", 3);
    fixture_free(&f);
}

TEST(sniffs_by_first_bytes)
{
#define BYTES(s) (s), sizeof(s) - 1
    static const struct {
        const char *p;
        size_t n;
        enum hint hint;
    } cases[] = {
        {BYTES(""), HINT_NONE},
        {BYTES("{\"a\": 1}\n"), HINT_TEXT},
        {BYTES("name: x\r\n\tb: \xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"), HINT_TEXT},
        {BYTES("cut in a character \xf0\x9f\x98"), HINT_TEXT},
        {BYTES("text with a \0 in it"), HINT_NONE},
        {BYTES("text with a \x7f in it"), HINT_NONE},
        {BYTES("latin-1: \xe4 and more"), HINT_NONE},
        {BYTES("\x80 alone"), HINT_NONE},
        {BYTES("\xff\xd8\xff\xe0"), HINT_PACKED},
        {BYTES("\x89PNG\r\n\x1a\n"), HINT_PACKED},
        {BYTES("\x89PNG\r\n\x1a"), HINT_NONE},
        {BYTES("RIFF\1\2\3\4WEBPVP8 "), HINT_PACKED},
        {BYTES("RIFF\1\2\3\4WAVEfmt "), HINT_NONE},
        {BYTES("\0\0\0\x18"
               "ftypmp42"),
         HINT_PACKED},
        {BYTES("\x28\xb5\x2f\xfd\x24"), HINT_PACKED},
        {BYTES("\x1f\x8b\x08\0"), HINT_PACKED},
        {BYTES("\xfd\x37zXZ\0\0\4"), HINT_PACKED},
        {BYTES("PK\3\4\x14\0\0\0\x08\0\0\0"), HINT_PACKED},
        {BYTES("PK\3\4\x14\0\0\0\0\0\0\0"), HINT_NONE}, /* stored: numpy.savez, torch.save */
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        EXPECT_EQ(codec_sniff(cases[i].p, cases[i].n), cases[i].hint);
}

TEST(planes_are_the_same_on_every_cpu)
{
    const struct planes_ops *slow = planes_ops(PLANES_PORTABLE);
    uint8_t words[4 * 200], planes[2][4 * 200], back[2][4 * 200];
    uint64_t seed = 1;

    gen_noise(&seed, words, sizeof(words));
    EXPECT(planes_best() != NULL);
    for (int set = 0; set < PLANES_SET_COUNT; set++) {
        const struct planes_ops *ops = planes_ops((enum planes_set)set);

        if (!ops)
            print_message("set %d is not on this CPU\n", set);
        for (size_t width = 2; ops && width <= 4; width += 2)
            for (size_t n = 0; n <= 200; n++) {
                uint8_t *p[2][4];
                const uint8_t *q[2][4];

                memset(planes, 0, sizeof(planes));
                memset(back, 0, sizeof(back));
                for (size_t k = 0; k < 8; k++) {
                    p[k / 4][k % 4] = planes[k / 4] + k % 4 * n;
                    q[k / 4][k % 4] = p[k / 4][k % 4];
                }
                (width == 2 ? ops->split2 : ops->split4)(words, n, p[0]);
                (width == 2 ? slow->split2 : slow->split4)(words, n, p[1]);
                EXPECT_MEM(planes[0], planes[1], sizeof(planes[0]));
                (width == 2 ? ops->join2 : ops->join4)(q[0], n, back[0]);
                (width == 2 ? slow->join2 : slow->join4)(q[0], n, back[1]);
                EXPECT_MEM(back[0], back[1], sizeof(back[0]));
                EXPECT_MEM(back[0], words, width * n);
            }
    }
}

TEST(the_exponent_is_plane_0)
{
    const struct planes_ops *ops = planes_best();
    const uint8_t bf16[2] = {0x80, 0xbf}; /* -1.0: sign, exponent 127, no mantissa */
    const uint8_t f32[4] = {1, 0, 0x80, 0xbf};
    uint8_t out[4];
    uint8_t *planes[4] = {out, out + 1, out + 2, out + 3};

    ops->split2(bf16, 1, planes);
    EXPECT_MEM(out, ((uint8_t[]){127, 1}), 2);
    ops->split4(f32, 1, planes);
    EXPECT_MEM(out, ((uint8_t[]){127, 0, 0, 3}), 4);
}

TEST(survives_any_single_fault)
{
    uint8_t *p = mem_alloc(MIB), *raw = mem_alloc(MIB);
    uint64_t seed = 1;
    bool fired = true;

    gen_weights(&seed, p, MIB, 2);
    for (int64_t nth = 0; fired; nth++) {
        struct codec *c;
        struct err err = ERR_INIT;
        struct buf out;
        enum enc enc = ENC_RAW;
        enum err_code rc;

        buf_init(&out, 2 * MIB);
        fault_arm(nth);
        rc = codec_new(&c, &err);
        if (!rc)
            rc = codec_best(c, HINT_WORDS2, 1, p, MIB, &enc, &out, &err);
        if (!rc)
            rc = codec_decode(c, enc, out.p, out.n, raw, MIB, &err);
        fired = fault_disarm();
        EXPECT_EQ(fired, rc != OK);
        if (fired) {
            EXPECT_EQ(rc, ERR_IO);
            EXPECT_EQ(enc, out.n == 0 ? ENC_RAW : ENC_PLANES2);
        } else {
            EXPECT_EQ(enc, ENC_PLANES2);
            EXPECT_MEM(raw, p, MIB);
        }
        codec_free(c);
        buf_release(&out);
        EXPECT(nth < 100);
    }
    free(p);
    free(raw);
}

RUN(every_encoding_gives_back_every_length, appends_and_leaves_the_buffer_alone_on_failure,
    refuses_more_than_the_limit, weights_shrink_to_the_entropy_of_their_exponents,
    best_picks_what_pays, old_bytes_stay_readable, damage_is_an_error, hostile_headers_are_errors,
    sniffs_by_first_bytes, planes_are_the_same_on_every_cpu, the_exponent_is_plane_0,
    survives_any_single_fault)
