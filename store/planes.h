/* planes.h - words taken apart into byte planes, and put together again.
 *
 * A little-endian word of 2 or 4 bytes is rotated left by one bit and its bytes go to as many
 * planes, most significant first: plane 0 of bf16 and f32 is then the whole exponent, and the sign
 * stands beside the lowest mantissa bits.
 *
 * Life:     plain functions.
 * Owns:     nothing.
 * Threads:  any.
 * Errors:   none.  Input and output must not overlap.
 */
#ifndef WEIR_STORE_PLANES_H
#define WEIR_STORE_PLANES_H

#include <stddef.h>
#include <stdint.h>

#define PLANES_MAX 4

/* The same four functions per instruction set; every set gives the same bytes. */
enum planes_set { PLANES_PORTABLE, PLANES_AVX2, PLANES_SET_COUNT };
typedef void (*planes_split_fn)(const uint8_t *words, size_t count, uint8_t *const plane[]);
typedef void (*planes_join_fn)(const uint8_t *const plane[], size_t count, uint8_t *words);
struct planes_ops {
    planes_split_fn split2, split4;
    planes_join_fn join2, join4;
};
const struct planes_ops *planes_ops(enum planes_set set); /* NULL when this CPU lacks it */
const struct planes_ops *planes_best(void);

#endif
