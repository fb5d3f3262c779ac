/* hash_pair.h - two SHA-256 at once on one core.
 *
 * The rounds of one message wait for each other; the CPU's SHA unit could start another instruction meanwhile, and with a second
 * message side by side it does.  Measured on an Intel Xeon with AVX-512: one lane 1.6 GiB/s, two lanes 2 x 0.96 GiB/s.  Used
 * wherever there are always two messages: chunks of large files, and small files.
 *
 * Life:     hash_pair_start on zeroed storage, per lane and message -> hash_pair_update -> hash_pair_final -> hash_pair_release.
 * Owns:     OpenSSL contexts where the CPU lacks the instructions (then the lanes simply run one after the other).
 * Threads:  one pair, one thread.
 * Errors:   none.
 * Paper:    FIPS 180-4; Gopal et al. 2010, Processing Multiple Buffers in Parallel to Increase Performance (Intel).
 */
#ifndef WEIR_BASE_HASH_PAIR_H
#define WEIR_BASE_HASH_PAIR_H

#include "base/hash.h"

#define HASH_BLOCK 64
struct hash_lane {
    uint32_t h[8];
    uint64_t bytes;
    uint8_t tail[HASH_BLOCK]; /* the bytes that fill no block yet: bytes % HASH_BLOCK of them */
    struct sha256 slow;
};
struct hash_pair {
    struct hash_lane lane[2];
};

bool hash_pair_is_fast(void); /* are two lanes cheaper than two calls of OpenSSL? */
void hash_pair_start(struct hash_pair *h, int lane);
/* n0 bytes to lane 0 and n1 bytes to lane 1; fast as long as both have some. */
void hash_pair_update(struct hash_pair *h, const void *p0, size_t n0, const void *p1, size_t n1);
void hash_pair_final(struct hash_pair *h, int lane, struct digest *out);
void hash_pair_release(struct hash_pair *h); /* fine on zeroed storage */
/* Two messages, start to end. */
void hash_pair_of(const void *p0, size_t n0, struct digest *d0, const void *p1, size_t n1,
                  struct digest *d1);

#endif
