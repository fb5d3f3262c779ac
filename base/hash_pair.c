/* Two independent chains of the compression function, four rounds of one next to four rounds of the
 * other, so that the out-of-order core always has an instruction that waits for nothing.  Each lane
 * keeps its own partial block, so the two messages need not be aligned to each other: the bytes of
 * a file are hashed as part of the file and of the chunk, whose blocks start elsewhere. */
#include "base/hash_pair.h"

#include <endian.h>
#include <string.h>

#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>
#include <pthread.h>

#define SHA_TARGET __attribute__((target("sha,sse4.1,ssse3")))

static pthread_once_t pair_once = PTHREAD_ONCE_INIT;
static bool pair_fast;

static const uint32_t sha_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* __builtin_cpu_supports does not know the SHA extensions in these compilers. */
static void pair_detect(void)
{
    unsigned a, b, c, d;

    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return;
    pair_fast = (b >> 29 & 1) != 0 && __builtin_cpu_supports("sse4.1");
}

bool hash_pair_is_fast(void)
{
    CHECK(pthread_once(&pair_once, pair_detect) == 0);
    return pair_fast;
}

struct chain {
    __m128i abef, cdgh;
    __m128i w[4]; /* the last sixteen words of the message schedule */
};

SHA_TARGET static inline __attribute__((always_inline)) void chain_load(struct chain *c,
                                                                        const uint32_t h[8])
{
    const __m128i dcba = _mm_loadu_si128((const __m128i *)(const void *)h);
    const __m128i hgfe = _mm_loadu_si128((const __m128i *)(const void *)(h + 4));
    const __m128i cdab = _mm_shuffle_epi32(dcba, 0xB1);
    const __m128i efgh = _mm_shuffle_epi32(hgfe, 0x1B);

    c->abef = _mm_alignr_epi8(cdab, efgh, 8);
    c->cdgh = _mm_blend_epi16(efgh, cdab, 0xF0);
}

SHA_TARGET static inline __attribute__((always_inline)) void chain_store(const struct chain *c,
                                                                         uint32_t h[8])
{
    const __m128i feba = _mm_shuffle_epi32(c->abef, 0x1B);
    const __m128i dchg = _mm_shuffle_epi32(c->cdgh, 0xB1);

    _mm_storeu_si128((__m128i *)(void *)h, _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128((__m128i *)(void *)(h + 4), _mm_alignr_epi8(dchg, feba, 8));
}

/* Rounds 4i .. 4i+3. */
SHA_TARGET static inline __attribute__((always_inline)) void chain_rounds(struct chain *c,
                                                                          const uint8_t *p, int i)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i m;

    if (i < 4) {
        m = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(p + (size_t)16 * i)),
                             swap);
    } else {
        const __m128i w3 = c->w[(i + 3) & 3], w2 = c->w[(i + 2) & 3];

        m = _mm_sha256msg1_epu32(c->w[i & 3], c->w[(i + 1) & 3]);
        m = _mm_add_epi32(m, _mm_alignr_epi8(w3, w2, 4));
        m = _mm_sha256msg2_epu32(m, w3);
    }
    c->w[i & 3] = m;
    m = _mm_add_epi32(m, _mm_loadu_si128((const __m128i *)(const void *)(sha_k + (size_t)4 * i)));
    c->cdgh = _mm_sha256rnds2_epu32(c->cdgh, c->abef, m);
    m = _mm_shuffle_epi32(m, 0x0E);
    c->abef = _mm_sha256rnds2_epu32(c->abef, c->cdgh, m);
}

SHA_TARGET static inline __attribute__((always_inline)) void
chain_rounds_two(struct chain *a, const uint8_t *pa, struct chain *b, const uint8_t *pb, int i)
{
    chain_rounds(a, pa, i);
    chain_rounds(b, pb, i);
}

SHA_TARGET static void blocks_two(uint32_t ha[8], const uint8_t *pa, uint32_t hb[8],
                                  const uint8_t *pb, size_t blocks)
{
    struct chain a, b;

    chain_load(&a, ha);
    chain_load(&b, hb);
    for (; blocks > 0; blocks--, pa += HASH_BLOCK, pb += HASH_BLOCK) {
        const __m128i a0 = a.abef, a1 = a.cdgh, b0 = b.abef, b1 = b.cdgh;

        /* Written out: with constant numbers the schedule stays in registers. */
        chain_rounds_two(&a, pa, &b, pb, 0);
        chain_rounds_two(&a, pa, &b, pb, 1);
        chain_rounds_two(&a, pa, &b, pb, 2);
        chain_rounds_two(&a, pa, &b, pb, 3);
        chain_rounds_two(&a, pa, &b, pb, 4);
        chain_rounds_two(&a, pa, &b, pb, 5);
        chain_rounds_two(&a, pa, &b, pb, 6);
        chain_rounds_two(&a, pa, &b, pb, 7);
        chain_rounds_two(&a, pa, &b, pb, 8);
        chain_rounds_two(&a, pa, &b, pb, 9);
        chain_rounds_two(&a, pa, &b, pb, 10);
        chain_rounds_two(&a, pa, &b, pb, 11);
        chain_rounds_two(&a, pa, &b, pb, 12);
        chain_rounds_two(&a, pa, &b, pb, 13);
        chain_rounds_two(&a, pa, &b, pb, 14);
        chain_rounds_two(&a, pa, &b, pb, 15);
        a.abef = _mm_add_epi32(a.abef, a0);
        a.cdgh = _mm_add_epi32(a.cdgh, a1);
        b.abef = _mm_add_epi32(b.abef, b0);
        b.cdgh = _mm_add_epi32(b.cdgh, b1);
    }
    chain_store(&a, ha);
    chain_store(&b, hb);
}

SHA_TARGET static void blocks_one(uint32_t h[8], const uint8_t *p, size_t blocks)
{
    struct chain c;

    chain_load(&c, h);
    for (; blocks > 0; blocks--, p += HASH_BLOCK) {
        const __m128i c0 = c.abef, c1 = c.cdgh;

        chain_rounds(&c, p, 0);
        chain_rounds(&c, p, 1);
        chain_rounds(&c, p, 2);
        chain_rounds(&c, p, 3);
        chain_rounds(&c, p, 4);
        chain_rounds(&c, p, 5);
        chain_rounds(&c, p, 6);
        chain_rounds(&c, p, 7);
        chain_rounds(&c, p, 8);
        chain_rounds(&c, p, 9);
        chain_rounds(&c, p, 10);
        chain_rounds(&c, p, 11);
        chain_rounds(&c, p, 12);
        chain_rounds(&c, p, 13);
        chain_rounds(&c, p, 14);
        chain_rounds(&c, p, 15);
        c.abef = _mm_add_epi32(c.abef, c0);
        c.cdgh = _mm_add_epi32(c.cdgh, c1);
    }
    chain_store(&c, h);
}
#else
bool hash_pair_is_fast(void)
{
    return false;
}

static void blocks_two(uint32_t ha[8], const uint8_t *pa, uint32_t hb[8], const uint8_t *pb,
                       size_t blocks)
{
    (void)ha, (void)pa, (void)hb, (void)pb, (void)blocks;
    CHECK(false);
}

static void blocks_one(uint32_t h[8], const uint8_t *p, size_t blocks)
{
    (void)h, (void)p, (void)blocks;
    CHECK(false);
}
#endif

void hash_pair_start(struct hash_pair *h, int lane)
{
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

    CHECK(h);
    CHECK(lane == 0 || lane == 1);

    struct hash_lane *l = &h->lane[lane];

    if (!hash_pair_is_fast()) {
        sha256_init(&l->slow);
        return;
    }
    memcpy(l->h, start, sizeof(start));
    l->bytes = 0;
}

/* Complete the lane's partial block.  Afterwards it has none, or the input is used up. */
static void lane_fill(struct hash_lane *l, const uint8_t **p, size_t *n)
{
    const size_t have = (size_t)(l->bytes % HASH_BLOCK);

    if (have == 0 || *n == 0)
        return;

    const size_t take = *n < HASH_BLOCK - have ? *n : HASH_BLOCK - have;

    memcpy(l->tail + have, *p, take);
    l->bytes += take;
    *p += take;
    *n -= take;
    if (have + take == HASH_BLOCK)
        blocks_one(l->h, l->tail, 1);
}

static void lane_rest(struct hash_lane *l, const uint8_t *p, size_t n)
{
    const size_t blocks = n / HASH_BLOCK;

    if (n == 0)
        return;
    if (blocks > 0)
        blocks_one(l->h, p, blocks);
    memcpy(l->tail, p + blocks * HASH_BLOCK, n % HASH_BLOCK);
    l->bytes += n;
}

void hash_pair_update(struct hash_pair *h, const void *p0, size_t n0, const void *p1, size_t n1)
{
    const uint8_t *a = p0, *b = p1;

    CHECK(h);

    struct hash_lane *la = &h->lane[0], *lb = &h->lane[1];

    if (!hash_pair_is_fast()) {
        if (n0 > 0)
            sha256_update(&la->slow, a, n0);
        if (n1 > 0)
            sha256_update(&lb->slow, b, n1);
        return;
    }
    lane_fill(la, &a, &n0);
    lane_fill(lb, &b, &n1);

    const size_t blocks = (n0 < n1 ? n0 : n1) / HASH_BLOCK, together = blocks * HASH_BLOCK;

    if (blocks > 0) {
        blocks_two(la->h, a, lb->h, b, blocks);
        la->bytes += together;
        lb->bytes += together;
        a += together;
        b += together;
    }
    lane_rest(la, a, n0 - together);
    lane_rest(lb, b, n1 - together);
}

void hash_pair_final(struct hash_pair *h, int lane, struct digest *out)
{
    uint8_t end[2 * HASH_BLOCK] = {0};

    CHECK(h);
    CHECK(lane == 0 || lane == 1);
    CHECK(out);

    struct hash_lane *l = &h->lane[lane];

    if (!hash_pair_is_fast()) {
        sha256_final(&l->slow, out);
        return;
    }

    const size_t have = (size_t)(l->bytes % HASH_BLOCK);
    const size_t blocks = have + 9 > HASH_BLOCK ? 2 : 1;
    const uint64_t bits = htobe64(l->bytes * 8);

    memcpy(end, l->tail, have);
    end[have] = 0x80;
    memcpy(end + blocks * HASH_BLOCK - sizeof(bits), &bits, sizeof(bits));
    blocks_one(l->h, end, blocks);
    for (int i = 0; i < 8; i++) {
        const uint32_t word = htobe32(l->h[i]);

        memcpy(out->b + (size_t)4 * i, &word, sizeof(word));
    }
}

void hash_pair_release(struct hash_pair *h)
{
    CHECK(h);
    sha256_release(&h->lane[0].slow);
    sha256_release(&h->lane[1].slow);
}

void hash_pair_of(const void *p0, size_t n0, struct digest *d0, const void *p1, size_t n1,
                  struct digest *d1)
{
    struct hash_pair h = {0};

    hash_pair_start(&h, 0);
    hash_pair_start(&h, 1);
    hash_pair_update(&h, p0, n0, p1, n1);
    hash_pair_final(&h, 0, d0);
    hash_pair_final(&h, 1, d1);
    hash_pair_release(&h);
}
