/* The compiler may not assume more than the oldest x86-64, and a program built for the machine it
 * stands on would be a different program on each, so the wide version is chosen at run time. */
#include "store/planes.h"

#include "base/err.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

/* The pointers are copied first: a byte stored through one might change an array of pointers, and
 * a loop that must expect that is not vectorised. */
static void split2_from(const uint8_t *restrict words, size_t i, size_t count,
                        uint8_t *const plane[])
{
    uint8_t *restrict const p0 = plane[0], *restrict const p1 = plane[1];

    for (; i < count; i++) {
        const unsigned w = words[2 * i] | (unsigned)words[2 * i + 1] << 8;
        const unsigned r = w << 1 | w >> 15;

        p0[i] = (uint8_t)(r >> 8);
        p1[i] = (uint8_t)r;
    }
}

static void split4_from(const uint8_t *restrict words, size_t i, size_t count,
                        uint8_t *const plane[])
{
    uint8_t *restrict const p0 = plane[0], *restrict const p1 = plane[1];
    uint8_t *restrict const p2 = plane[2], *restrict const p3 = plane[3];

    for (; i < count; i++) {
        const uint8_t *p = words + 4 * i;
        const uint32_t w = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        const uint32_t r = w << 1 | w >> 31;

        p0[i] = (uint8_t)(r >> 24);
        p1[i] = (uint8_t)(r >> 16);
        p2[i] = (uint8_t)(r >> 8);
        p3[i] = (uint8_t)r;
    }
}

static void join2_from(const uint8_t *const plane[], size_t i, size_t count,
                       uint8_t *restrict words)
{
    const uint8_t *restrict const p0 = plane[0], *restrict const p1 = plane[1];

    for (; i < count; i++) {
        const unsigned r = (unsigned)p0[i] << 8 | p1[i];
        const unsigned w = r >> 1 | r << 15;

        words[2 * i] = (uint8_t)w;
        words[2 * i + 1] = (uint8_t)(w >> 8);
    }
}

static void join4_from(const uint8_t *const plane[], size_t i, size_t count,
                       uint8_t *restrict words)
{
    const uint8_t *restrict const p0 = plane[0], *restrict const p1 = plane[1];
    const uint8_t *restrict const p2 = plane[2], *restrict const p3 = plane[3];

    for (; i < count; i++) {
        const uint32_t r =
            (uint32_t)p0[i] << 24 | (uint32_t)p1[i] << 16 | (uint32_t)p2[i] << 8 | p3[i];
        const uint32_t w = r >> 1 | r << 31;

        words[4 * i] = (uint8_t)w;
        words[4 * i + 1] = (uint8_t)(w >> 8);
        words[4 * i + 2] = (uint8_t)(w >> 16);
        words[4 * i + 3] = (uint8_t)(w >> 24);
    }
}

static void split2_portable(const uint8_t *words, size_t count, uint8_t *const plane[])
{
    split2_from(words, 0, count, plane);
}

static void split4_portable(const uint8_t *words, size_t count, uint8_t *const plane[])
{
    split4_from(words, 0, count, plane);
}

static void join2_portable(const uint8_t *const plane[], size_t count, uint8_t *words)
{
    join2_from(plane, 0, count, words);
}

static void join4_portable(const uint8_t *const plane[], size_t count, uint8_t *words)
{
    join4_from(plane, 0, count, words);
}

static const struct planes_ops portable = {split2_portable, split4_portable, join2_portable,
                                           join4_portable};

#ifdef __x86_64__
#define AVX2 __attribute__((target("avx2")))

AVX2 static __m256i load256(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i_u *)p);
}

AVX2 static void store256(uint8_t *p, __m256i v)
{
    _mm256_storeu_si256((__m256i_u *)p, v);
}

AVX2 static __m256i rotate16(__m256i x)
{
    return _mm256_or_si256(_mm256_slli_epi16(x, 1), _mm256_srli_epi16(x, 15));
}

AVX2 static void split2_avx2(const uint8_t *words, size_t count, uint8_t *const plane[])
{
    const __m256i low = _mm256_set1_epi16(0xff);
    size_t i = 0;

    for (; i + 32 <= count; i += 32) {
        const __m256i a = rotate16(load256(words + 2 * i));
        const __m256i b = rotate16(load256(words + 2 * i + 32));
        const __m256i high = _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8));
        const __m256i rest =
            _mm256_packus_epi16(_mm256_and_si256(a, low), _mm256_and_si256(b, low));

        /* packus works in each half alone: quarters come out as a0 b0 a1 b1. */
        store256(plane[0] + i, _mm256_permute4x64_epi64(high, 0xd8));
        store256(plane[1] + i, _mm256_permute4x64_epi64(rest, 0xd8));
    }
    split2_from(words, i, count, plane);
}

/* Eight words, rotated, their bytes gathered by plane within each half: 0000 1111 2222 3333. */
AVX2 static __m256i gather4(const uint8_t *words)
{
    const __m256i by_plane = _mm256_setr_epi8(3, 7, 11, 15, 2, 6, 10, 14, 1, 5, 9, 13, 0, 4, 8, 12,
                                              3, 7, 11, 15, 2, 6, 10, 14, 1, 5, 9, 13, 0, 4, 8, 12);
    const __m256i x = load256(words);
    const __m256i r = _mm256_or_si256(_mm256_slli_epi32(x, 1), _mm256_srli_epi32(x, 31));

    return _mm256_shuffle_epi8(r, by_plane);
}

AVX2 static void split4_avx2(const uint8_t *words, size_t count, uint8_t *const plane[])
{
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    size_t i = 0;

    for (; i + 32 <= count; i += 32) {
        const uint8_t *p = words + 4 * i;
        const __m256i a = gather4(p), b = gather4(p + 32), c = gather4(p + 64), d = gather4(p + 96);
        /* A 4 x 4 transpose of 32-bit units in each half. */
        const __m256i ab01 = _mm256_unpacklo_epi32(a, b), ab23 = _mm256_unpackhi_epi32(a, b);
        const __m256i cd01 = _mm256_unpacklo_epi32(c, d), cd23 = _mm256_unpackhi_epi32(c, d);
        const __m256i out[4] = {
            _mm256_unpacklo_epi64(ab01, cd01), _mm256_unpackhi_epi64(ab01, cd01),
            _mm256_unpacklo_epi64(ab23, cd23), _mm256_unpackhi_epi64(ab23, cd23)};

        for (int k = 0; k < 4; k++)
            store256(plane[k] + i, _mm256_permutevar8x32_epi32(out[k], in_order));
    }
    split4_from(words, i, count, plane);
}

AVX2 static void join2_avx2(const uint8_t *const plane[], size_t count, uint8_t *words)
{
    size_t i = 0;

    for (; i + 32 <= count; i += 32) {
        const __m256i high = load256(plane[0] + i), rest = load256(plane[1] + i);
        const __m256i a = _mm256_unpacklo_epi8(rest, high), b = _mm256_unpackhi_epi8(rest, high);
        const __m256i first = _mm256_permute2x128_si256(a, b, 0x20);
        const __m256i second = _mm256_permute2x128_si256(a, b, 0x31);

        store256(words + 2 * i,
                 _mm256_or_si256(_mm256_srli_epi16(first, 1), _mm256_slli_epi16(first, 15)));
        store256(words + 2 * i + 32,
                 _mm256_or_si256(_mm256_srli_epi16(second, 1), _mm256_slli_epi16(second, 15)));
    }
    join2_from(plane, i, count, words);
}

AVX2 static void put4(uint8_t *words, __m256i r)
{
    store256(words, _mm256_or_si256(_mm256_srli_epi32(r, 1), _mm256_slli_epi32(r, 31)));
}

AVX2 static void join4_avx2(const uint8_t *const plane[], size_t count, uint8_t *words)
{
    size_t i = 0;

    for (; i + 32 <= count; i += 32) {
        const __m256i p0 = load256(plane[0] + i), p1 = load256(plane[1] + i);
        const __m256i p2 = load256(plane[2] + i), p3 = load256(plane[3] + i);
        const __m256i high_lo = _mm256_unpacklo_epi8(p1, p0),
                      high_hi = _mm256_unpackhi_epi8(p1, p0);
        const __m256i rest_lo = _mm256_unpacklo_epi8(p3, p2),
                      rest_hi = _mm256_unpackhi_epi8(p3, p2);
        /* Words 0-3 | 16-19, 4-7 | 20-23, 8-11 | 24-27, 12-15 | 28-31 */
        const __m256i a = _mm256_unpacklo_epi16(rest_lo, high_lo);
        const __m256i b = _mm256_unpackhi_epi16(rest_lo, high_lo);
        const __m256i c = _mm256_unpacklo_epi16(rest_hi, high_hi);
        const __m256i d = _mm256_unpackhi_epi16(rest_hi, high_hi);
        uint8_t *p = words + 4 * i;

        put4(p, _mm256_permute2x128_si256(a, b, 0x20));
        put4(p + 32, _mm256_permute2x128_si256(c, d, 0x20));
        put4(p + 64, _mm256_permute2x128_si256(a, b, 0x31));
        put4(p + 96, _mm256_permute2x128_si256(c, d, 0x31));
    }
    join4_from(plane, i, count, words);
}

static const struct planes_ops avx2 = {split2_avx2, split4_avx2, join2_avx2, join4_avx2};
#endif

const struct planes_ops *planes_ops(enum planes_set set)
{
    CHECK(set < PLANES_SET_COUNT);
#ifdef __x86_64__
    if (set == PLANES_AVX2)
        return __builtin_cpu_supports("avx2") ? &avx2 : NULL;
#endif
    return set == PLANES_PORTABLE ? &portable : NULL;
}

const struct planes_ops *planes_best(void)
{
    const struct planes_ops *wide = planes_ops(PLANES_AVX2);

    return wide ? wide : &portable;
}
