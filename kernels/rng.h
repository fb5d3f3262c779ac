/* rng.h - random numbers by address: Philox4x32-10.
 *
 * Life:     pure functions; there is no state to save, seed or lose.
 * Owns:     nothing.
 * Threads:  any.
 * Errors:   none.
 * Paper:    Salmon, Moraes, Dror, Shaw 2011, Parallel Random Numbers: As Easy as 1, 2, 3 (SC'11).
 *
 * A number is named by (seed, stream, sample, step, element): key = (seed, stream), counter = (sample low, sample high, step,
 * element / 4), word = element % 4.  So it depends on neither rank, batch position, thread nor device, and any of them can
 * make it again.  Streams keep purposes apart (data order, noise, time, dropout of captions): never share one.
 * seed folds to 32 bits as low ^ high * 0x9E3779B9.  Elements go up to 2^34.
 */
#ifndef WEIR_KERNELS_RNG_H
#define WEIR_KERNELS_RNG_H

#include <stdint.h>

#ifdef __CUDACC__
#define RNG_FN static __host__ __device__ __forceinline__
#else
#define RNG_FN static inline __attribute__((unused))
#endif

struct rng {
    uint32_t key[2]; /* seed, stream */
    uint64_t sample; /* global id of the sample */
    uint32_t step;
};

RNG_FN void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];

    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;

        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

struct rng rng_at(uint64_t seed, uint32_t stream, uint64_t sample, uint32_t step);
/* The four words that hold elements 4 * block .. 4 * block + 3. */
void rng_block(const struct rng *r, uint32_t block, uint32_t out[4]);
uint32_t rng_u32(const struct rng *r, uint64_t element);
/* (2k + 1) / 2^24 with k the upper 23 bits: never 0, never 1, exact in f32. */
float rng_uniform(const struct rng *r, uint64_t element);
/* Below n without bias worth a name: the upper half of word * n (error < n / 2^32). */
uint32_t rng_below(const struct rng *r, uint64_t element, uint32_t n);
/* n standard normal numbers (elements first .. first + n - 1) by Box and Muller; elements 2i and 2i + 1 share a pair. */
void rng_normal(const struct rng *r, uint64_t first, int64_t n, float *out);
void rng_uniforms(const struct rng *r, uint64_t first, int64_t n, float *out);

#endif
