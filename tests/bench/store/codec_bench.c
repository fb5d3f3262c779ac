/* codec_bench.c - what encoding, cutting and reading trees cost: lines of name, value, unit.
 *
 * Rates are the best of several rounds, of raw bytes, on one thread.  The corpora are made here,
 * from a fixed seed. */
#include <time.h>

#include "store/cut.h"
#include "store/tree.h"
#include "tests/store_gen.h"

#define CHUNK ((size_t)8 << 20)
#define ROUNDS 9
#define MIB 1048576.0

static struct err err = ERR_INIT;

static void must(enum err_code rc)
{
    if (!rc)
        return;
    fprintf(stderr, "codec_bench: %s\n", err.text);
    exit(1);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint64_t seed = 1;

static void line(const char *name, double value, const char *unit)
{
    printf("%s %.4g %s\n", name, value, unit);
    fflush(stdout);
}

static void bench_codec(const char *name, enum enc enc, const uint8_t *p, size_t n)
{
    struct codec *c;
    struct buf out;
    uint8_t *raw = malloc(n);
    double encode = 1e9, decode = 1e9;
    char text[64];

    buf_init(&out, 2 * n);
    must(codec_new(&c, &err));
    for (int i = 0; i < ROUNDS; i++) {
        buf_clear(&out);
        const double start = now();
        must(codec_encode(c, enc, 3, p, n, &out, &err));
        const double middle = now();
        must(codec_decode(c, enc, out.p, out.n, raw, n, &err));
        const double end = now();

        encode = fmin(encode, middle - start);
        decode = fmin(decode, end - middle);
    }
    if (memcmp(raw, p, n) != 0)
        abort();
    snprintf(text, sizeof(text), "%s_ratio", name);
    line(text, (double)out.n / (double)n, "of_raw");
    snprintf(text, sizeof(text), "%s_encode", name);
    line(text, (double)n / MIB / encode, "MiB/s");
    snprintf(text, sizeof(text), "%s_decode", name);
    line(text, (double)n / MIB / decode, "MiB/s");
    codec_free(c);
    buf_release(&out);
    free(raw);
}

static void bench_best(const char *name, enum hint hint, const uint8_t *p, size_t n)
{
    struct codec *c;
    struct buf out;
    double best = 1e9;
    enum enc enc;

    buf_init(&out, 2 * n);
    must(codec_new(&c, &err));
    for (int i = 0; i < ROUNDS; i++) {
        buf_clear(&out);
        const double start = now();
        must(codec_best(c, hint, 3, p, n, &enc, &out, &err));
        best = fmin(best, now() - start);
    }
    line(name, (double)n / MIB / best, "MiB/s");
    codec_free(c);
    buf_release(&out);
}

static void bench_cut(const uint8_t *p, size_t n)
{
    double best = 1e9;
    size_t chunks = 0;

    for (int i = 0; i < ROUNDS; i++) {
        struct cutter *c = cut_new(p, n, (int64_t)n);
        const double start = now();
        enum hint hint;
        size_t at = 0, length;

        for (chunks = 0;; chunks++, at += length) {
            length = cut_next(c, p + at, n - at < CUT_CHUNK_MAX ? n - at : CUT_CHUNK_MAX, &hint);
            if (!length)
                break;
        }
        best = fmin(best, now() - start);
        cut_free(c);
    }
    line("cut_content", (double)n / MIB / best, "MiB/s");
    line("cut_content_average", (double)n / MIB / (double)chunks, "MiB");
}

static void bench_tree(int entries)
{
    struct tree t;
    struct buf out;
    double encode = 1e9, decode = 1e9;
    char name[64];

    buf_init(&out, TREE_BYTES_MAX);
    tree_init(&t);
    for (int i = 0; i < entries; i++) {
        struct tree_entry e = {.mode = TREE_FILE, .size = (int64_t)(gen_u64(&seed) % 1000000)};

        for (size_t k = 0; k < sizeof(e.digest.b); k++)
            e.digest.b[k] = (uint8_t)gen_u64(&seed);
        e.name = (struct str){name, (size_t)snprintf(name, sizeof(name), "sample-%08d.json", i)};
        must(tree_add(&t, &e, 0, &err));
    }
    for (int i = 0; i < ROUNDS; i++) {
        struct tree again;

        buf_clear(&out);
        const double start = now();
        must(tree_encode(&t, &out, &err));
        const double middle = now();
        must(tree_decode(out.p, out.n, 0, "tree", &again, &err));
        const double end = now();

        tree_release(&again);
        encode = fmin(encode, middle - start);
        decode = fmin(decode, end - middle);
    }
    line("tree_encode", (double)out.n / 1e6 / encode, "MB/s");
    line("tree_decode", (double)out.n / 1e6 / decode, "MB/s");
    tree_release(&t);
    buf_release(&out);
}

int main(void)
{
    const size_t n = 8 * CHUNK;
    uint8_t *p = malloc(n);

    if (!p)
        abort();
    gen_weights(&seed, p, CHUNK, 2);
    bench_codec("planes_bf16", ENC_PLANES2, p, CHUNK);
    bench_best("best_bf16", HINT_WORDS2, p, CHUNK);
    bench_codec("zstd3_bf16", ENC_ZSTD, p, CHUNK);
    gen_weights(&seed, p, CHUNK, 4);
    bench_codec("planes_f32", ENC_PLANES4, p, CHUNK);
    bench_best("best_f32", HINT_WORDS4, p, CHUNK);
    gen_json(&seed, (char *)p, CHUNK);
    bench_codec("zstd3_json", ENC_ZSTD, p, CHUNK);
    bench_best("best_json", HINT_TEXT, p, CHUNK);
    gen_noise(&seed, p, n);
    bench_best("best_noise", HINT_NONE, p, CHUNK);
    bench_cut(p, n);
    bench_tree(100000);
    free(p);
    return 0;
}
