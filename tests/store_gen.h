/* store_gen.h - deterministic bytes for the store's tests: noise, weights, tar archives,
 * safetensors files.
 *
 * Life:     plain functions; a generator is one integer, so a case is named by its seed.
 * Owns:     nothing; files are appended to the caller's buffer.
 * Threads:  any, but the first gen_weights.
 * Errors:   none; check buf.failed.
 *
 * long: test programs are one source file each, so what they share is inline here
 */
#ifndef WEIR_TESTS_STORE_GEN_H
#define WEIR_TESTS_STORE_GEN_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "store/cut.h"

/* splitmix64 */
static inline uint64_t gen_u64(uint64_t *seed)
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline size_t gen_below(uint64_t *seed, size_t n)
{
    return (size_t)(gen_u64(seed) % n);
}

static inline void gen_noise(uint64_t *seed, void *out, size_t n)
{
    uint8_t *p = out;

    for (size_t i = 0; i < n; i += 8) {
        const uint64_t v = gen_u64(seed);

        memcpy(p + i, &v, n - i < 8 ? n - i : 8);
    }
}

static inline double gen_unit(uint64_t *seed)
{
    return (double)((gen_u64(seed) >> 11) + 1) * 0x1p-53;
}

/* N(0, 0.02): bf16 rounded to nearest even (width 2) or f32 (width 4), little endian. */
static inline void gen_weights(uint64_t *seed, uint8_t *p, size_t n, size_t width)
{
    enum { TABLE = 1 << 16 };
    static uint32_t table[TABLE];

    if (table[0] ==
        0) { /* logarithm and cosine for each word were most of the time of some tests */
        uint64_t own = 20;

        for (int i = 0; i < TABLE; i++) {
            const double radius = 0.02 * sqrt(-2 * log(gen_unit(&own)));
            const float f = (float)(radius * cos(6.283185307179586 * gen_unit(&own)));

            memcpy(&table[i], &f, sizeof(f));
        }
    }
    for (size_t i = 0; i + width <= n; i += width) {
        const uint64_t draw = gen_u64(seed);
        /* The lower half of the mantissa is noise of its own: no two f32 are alike because they come from one entry. */
        uint32_t bits = (table[draw >> 32 & (TABLE - 1)] & 0xffff0000u) | (draw >> 8 & 0xffff);

        bits += width == 2 ? 0x7fff + (bits >> 16 & 1) : 0;
        for (size_t k = 0; k < width; k++)
            p[i + k] = (uint8_t)(bits >> (8 * (k + 4 - width)));
    }
}

/* Captions, one JSON object a line. */
static inline void gen_json(uint64_t *seed, char *p, size_t n)
{
    static const char *const words[] = {"a",     "photo", "of",    "the",  "red",  "mountain",
                                        "river", "in",    "light", "with", "city", "portrait"};
    size_t at = 0;

    while (at + 400 < n) {
        at += (size_t)snprintf(p + at, n - at, "{\"id\":%llu,\"width\":512,\"caption\":\"",
                               (unsigned long long)(gen_u64(seed) % 1000000000));
        for (int i = 0; i < 20; i++)
            at += (size_t)snprintf(p + at, n - at, "%s ", words[gen_below(seed, 12)]);
        at += (size_t)snprintf(p + at, n - at, "\"}\n");
    }
    memset(p + at, '\n', n - at);
}

/* One ustar header block. */
static inline void gen_tar_header(struct buf *out, const char *name, int64_t size, char type)
{
    char h[512] = {0};
    unsigned sum = 0;

    snprintf(h, 100, "%s", name);
    memcpy(h + 100, "0000644\0000001000\0000001000", 24);
    snprintf(h + 124, 12, "%011llo", (unsigned long long)size);
    memcpy(h + 136, "14000000000", 11);
    memset(h + 148, ' ', 8);
    h[156] = type;
    memcpy(h + 257, "ustar\00000", 8);
    for (size_t i = 0; i < sizeof(h); i++)
        sum += (unsigned char)h[i];
    snprintf(h + 148, 8, "%06o", sum);
    h[155] = ' ';
    buf_add(out, h, sizeof(h));
}

static inline void gen_tar_padding(struct buf *out, size_t size)
{
    static const char zeros[512];

    buf_add(out, zeros, (512 - size % 512) % 512);
}

/* A file of noise. */
static inline void gen_tar_file(struct buf *out, uint64_t *seed, const char *name, size_t size)
{
    void *room;

    gen_tar_header(out, name, (int64_t)size, '0');
    room = buf_room(out, size);
    if (room)
        gen_noise(seed, room, size);
    gen_tar_padding(out, size);
}

/* The two zero blocks, and up to a whole record of 10 KiB. */
static inline void gen_tar_end(struct buf *out)
{
    size_t n = 1024;
    void *room;

    n += (10240 - (out->n + n) % 10240) % 10240;
    room = buf_room(out, n);
    if (room)
        memset(room, 0, n);
}

struct gen_tensor {
    const char *name, *dtype;
    size_t bytes, width;
};

/* A safetensors file; header_pad more spaces make its header longer. */
static inline void gen_safetensors(struct buf *out, uint64_t *seed,
                                   const struct gen_tensor *tensors, size_t count,
                                   size_t header_pad)
{
    const size_t start = out->n;
    size_t at = 0;
    uint64_t length;

    buf_add(out, "\0\0\0\0\0\0\0\0", 8);
    buf_str(out, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < count; i++) {
        buf_printf(out, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%zu],\"data_offsets\":[%zu,%zu]}",
                   tensors[i].name, tensors[i].dtype, tensors[i].bytes / tensors[i].width, at,
                   at + tensors[i].bytes);
        at += tensors[i].bytes;
    }
    buf_char(out, '}');
    for (size_t i = 0; i < header_pad; i++)
        buf_char(out, ' ');
    length = out->n - start - 8;
    for (int i = 0; i < 8; i++)
        out->p[start + (size_t)i] = (char)(length >> (8 * i));
    for (size_t i = 0; i < count; i++) {
        void *room = buf_room(out, tensors[i].bytes);

        if (room)
            gen_noise(seed, room, tensors[i].bytes);
    }
}

/* Cuts p[0..n) as a caller would, with all of it as head.  Returns the chunks' ends (free them),
 * *count of them. */
static inline size_t *gen_cuts(const void *p, size_t n, enum cut_rule *rule, size_t *count)
{
    struct cutter *c = cut_new(p, n, (int64_t)n);
    const char *bytes = p;
    size_t *ends = NULL, at = 0, cap = 0, length;
    enum hint hint;

    *count = 0;
    *rule = cut_rule(c);
    for (;;) {
        const size_t left = n - at;

        length = cut_next(c, bytes + at, left < CUT_CHUNK_MAX ? left : CUT_CHUNK_MAX, &hint);
        if (length == 0)
            break;
        at += length;
        if (*count == cap) {
            cap = cap ? 2 * cap : 64;
            ends = mem_grow(ends, cap, sizeof(*ends));
        }
        ends[(*count)++] = at;
    }
    cut_free(c);
    return ends;
}

#endif
