/* corpus.c - the data that the store is measured with; the same bytes on every machine.
 *
 *   corpus checkpoint OUT VARIANT [MIB]   a bf16 safetensors file of a diffusion transformer, weights N(0, 0.02)
 *       base    the first version
 *       half    every other tensor drawn anew
 *       shift   the same as half, and the header is 64 bytes longer
 *     prints the share of bytes that differ from base: what a second version has to cost
 *   corpus files DIR VARIANT [COUNT]      files of 1 to 20 KiB, 200 a folder, half JSON with captions, half noise
 *       base      the first version, made anew
 *       rewrite   one file in a hundred is written over in place, as long as it was
 *       restore   and those get their first contents back
 *
 * cc -O2 corpus.c -lm -o corpus
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void die(const char *what)
{
    fprintf(stderr, "corpus: %s: %s\n", what, strerror(errno));
    exit(74);
}

/* xorshift64* (Marsaglia 2003, Vigna 2016) */
static uint64_t next(uint64_t *s)
{
    *s ^= *s >> 12;
    *s ^= *s << 25;
    *s ^= *s >> 27;
    return *s * 2685821657736338717u;
}

static uint64_t seed_of(uint64_t a, uint64_t b)
{
    uint64_t s = (a + 1) * 0x9e3779b97f4a7c15u ^ (b + 1) * 0xd1b54a32d192ed03u;

    for (int i = 0; i < 4; i++)
        next(&s);
    return s;
}

/* ---- checkpoint -------------------------------------------------------------------------------- */

#define WIDTH 1536
#define TENSORS_MAX 8192

struct tensor {
    char name[64];
    long rows, columns; /* columns 0: one dimension */
};

static struct tensor tensors[TENSORS_MAX];
static int tensor_count;

static int64_t weights_of(const struct tensor *t)
{
    return (int64_t)t->rows * (t->columns ? t->columns : 1);
}

static void add_tensor(int block, const char *name, long rows, long columns)
{
    struct tensor *t = &tensors[tensor_count++];

    snprintf(t->name, sizeof(t->name), "transformer_blocks.%d.%s", block, name);
    t->rows = rows;
    t->columns = columns;
}

static void make_model(int64_t bytes)
{
    static const struct {
        const char *name;
        long rows, columns;
    } layers[] = {
        {"attn.to_q.weight", WIDTH, WIDTH},         {"attn.to_q.bias", WIDTH, 0},
        {"attn.to_k.weight", WIDTH, WIDTH},         {"attn.to_k.bias", WIDTH, 0},
        {"attn.to_v.weight", WIDTH, WIDTH},         {"attn.to_v.bias", WIDTH, 0},
        {"attn.to_out.0.weight", WIDTH, WIDTH},     {"attn.to_out.0.bias", WIDTH, 0},
        {"ff.net.0.proj.weight", 4 * WIDTH, WIDTH}, {"ff.net.0.proj.bias", 4 * WIDTH, 0},
        {"ff.net.2.weight", WIDTH, 4 * WIDTH},      {"ff.net.2.bias", WIDTH, 0},
        {"norm1.linear.weight", 6 * WIDTH, WIDTH},  {"norm1.linear.bias", 6 * WIDTH, 0},
    };
    int64_t have = 0;

    for (int block = 0; have < bytes; block++)
        for (size_t i = 0; i < sizeof(layers) / sizeof(layers[0]) && have < bytes; i++) {
            if (tensor_count == TENSORS_MAX)
                return;
            add_tensor(block, layers[i].name, layers[i].rows, layers[i].columns);
            have += 2 * weights_of(&tensors[tensor_count - 1]);
        }
}

/* Weights and biases change together, so that what changes is not only the large or only the small ones. */
static int changes(int tensor)
{
    return tensor / 2 % 2;
}

static uint16_t bf16(double v)
{
    const float f = (float)v;
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* The 65536 quantiles of N(0, 0.02) in bf16: drawing is then a look-up.  Each is found by halving an interval of the
 * distribution function. */
static const uint16_t *quantiles(void)
{
    static uint16_t table[65536];

    for (int i = 0; i < 65536; i++) {
        const double p = (i + 0.5) / 65536;
        double low = -8, high = 8;

        for (int step = 0; step < 50; step++) {
            const double mid = (low + high) / 2;

            if (0.5 * erfc(-mid / sqrt(2)) < p)
                low = mid;
            else
                high = mid;
        }
        table[i] = bf16(0.02 * low);
    }
    return table;
}

static char *make_header(const char *variant, size_t *n)
{
    char *h = malloc((size_t)tensor_count * 200 + 4096);
    size_t at = 0;
    int64_t off = 0;

    if (!h)
        die("header");
    at += (size_t)sprintf(h, "{\"__metadata__\":{\"format\":\"pt\",\"step\":\"%s\"}",
                          strcmp(variant, "base") == 0 ? "1000" : "2000");
    for (int i = 0; i < tensor_count; i++) {
        const struct tensor *t = &tensors[i];
        const int64_t end = off + 2 * weights_of(t);

        at +=
            (size_t)sprintf(h + at, ",\"%s\":{\"dtype\":\"BF16\",\"shape\":[%ld", t->name, t->rows);
        if (t->columns)
            at += (size_t)sprintf(h + at, ",%ld", t->columns);
        at += (size_t)sprintf(h + at, "],\"data_offsets\":[%lld,%lld]}", (long long)off,
                              (long long)end);
        off = end;
    }
    h[at++] = '}';
    while (at % 8)
        h[at++] = ' ';
    if (strcmp(variant, "shift") == 0) {
        memset(h + at, ' ', 64);
        at += 64;
    }
    *n = at;
    return h;
}

static int checkpoint(const char *out, const char *variant, int64_t mib)
{
    enum { BATCH = 1 << 16 };
    static uint16_t weights[BATCH];
    const uint16_t *table = quantiles();
    const int changed = strcmp(variant, "base") != 0;
    int64_t total = 0, differ = 0;
    size_t header_n;

    make_model(mib << 20);

    char *header = make_header(variant, &header_n);
    const uint64_t length = header_n; /* little endian, as everything here */
    FILE *f = fopen(out, "wb");

    if (!f)
        die(out);
    fwrite(&length, sizeof(length), 1, f);
    fwrite(header, 1, header_n, f);
    for (int i = 0; i < tensor_count; i++) {
        const int anew = changed && changes(i);
        uint64_t s = seed_of((uint64_t)i, (uint64_t)anew);

        for (int64_t left = weights_of(&tensors[i]); left > 0; left -= BATCH) {
            const size_t n = left < BATCH ? (size_t)left : BATCH;

            for (size_t k = 0; k < BATCH; k += 4) {
                const uint64_t r = next(&s);

                for (int j = 0; j < 4; j++)
                    weights[k + (size_t)j] = table[r >> 16 * j & 0xffff];
            }
            if (fwrite(weights, 2, n, f) != n)
                die(out);
        }
        total += 2 * weights_of(&tensors[i]);
        differ += anew ? 2 * weights_of(&tensors[i]) : 0;
    }
    if (fclose(f) != 0)
        die(out);
    free(header);
    printf("%.6f\n", (double)(differ + (changed ? (int64_t)header_n + 8 : 0)) /
                         (double)(total + (int64_t)header_n + 8));
    return 0;
}

/* ---- files ------------------------------------------------------------------------------------- */

#define WORDS 2048
#define FILE_MIN 1024
#define FILE_MAX 20480

static char words[WORDS][12];

static void make_words(void)
{
    uint64_t s = seed_of(77, 0);

    for (int i = 0; i < WORDS; i++) {
        const int n = 3 + (int)(next(&s) % 8);

        for (int k = 0; k < n; k++)
            words[i][k] = (char)('a' + next(&s) % 26);
    }
}

/* Captions: frequent words are much more frequent than rare ones. */
static void fill_json(uint64_t *s, char *p, size_t n)
{
    size_t at = (size_t)sprintf(
        p, "{\"id\":\"%016llx\",\"width\":%d,\"height\":%d,\"aesthetic\":%.4f,\"captions\":[",
        (unsigned long long)next(s), 256 + (int)(next(s) % 1792), 256 + (int)(next(s) % 1792),
        (double)(next(s) % 10000) / 1e4);

    while (at + 240 < n) {
        at += (size_t)sprintf(p + at, "{\"lang\":\"en\",\"text\":\"");
        for (int i = 0; i < 12; i++) {
            const double u = (double)(next(s) >> 11) * 0x1p-53;

            at += (size_t)sprintf(p + at, "%s ", words[(int)(WORDS * pow(u, 2.5))]);
        }
        at += (size_t)sprintf(p + at, "\",\"tokens\":%d},\n", (int)(next(s) % 77));
    }
    memset(p + at, ' ', n - at);
    p[n - 1] = '\n';
}

static void write_file(const char *dir, int i, int version)
{
    static char bytes[FILE_MAX + 4096];
    uint64_t s = seed_of((uint64_t)i, 1000), size_seed = seed_of((uint64_t)i, 2000);
    const size_t n = FILE_MIN + next(&size_seed) % (FILE_MAX - FILE_MIN + 1);
    const int json = i % 2;
    char path[4096];
    int fd;

    if (version)
        s = seed_of((uint64_t)i, 3000);
    if (json) {
        fill_json(&s, bytes, n);
    } else {
        for (size_t k = 0; k < n; k += 8) {
            const uint64_t r = next(&s);

            memcpy(bytes + k, &r, 8);
        }
    }
    snprintf(path, sizeof(path), "%s/%04d/%06d.%s", dir, i / 200, i, json ? "json" : "bin");
    fd = open(path, O_WRONLY | O_CREAT, 0644);
    if (fd < 0 || write(fd, bytes, n) != (ssize_t)n || close(fd) != 0)
        die(path);
}

static int files(const char *dir, const char *variant, int count)
{
    const int base = strcmp(variant, "base") == 0, rewrite = strcmp(variant, "rewrite") == 0;
    char path[4096];

    make_words();
    if (base && mkdir(dir, 0755) != 0 && errno != EEXIST)
        die(dir);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof(path), "%s/%04d", dir, i / 200);
        if (base && i % 200 == 0 && mkdir(path, 0755) != 0 && errno != EEXIST)
            die(path);
        if (base || i % 100 == 7)
            write_file(dir, i, rewrite);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc >= 4 && strcmp(argv[1], "checkpoint") == 0)
        return checkpoint(argv[2], argv[3], argc > 4 ? atol(argv[4]) : 1024);
    if (argc >= 4 && strcmp(argv[1], "files") == 0)
        return files(argv[2], argv[3], argc > 4 ? atoi(argv[4]) : 50000);
    fprintf(stderr, "usage: corpus checkpoint OUT base|half|shift [MIB] | files DIR "
                    "base|rewrite|restore [COUNT]\n");
    return 64;
}
