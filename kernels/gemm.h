/* gemm.h - matrix products in fixed tiles, and the one door to the library that computes a tile.
 *
 * Life:     plain calls; tiles and chunks are functions of the shape alone.
 * Owns:     nothing.
 * Threads:  gemm_tile may be called by many threads at once; each call runs on its own thread only.
 * Errors:   none: sizes are CHECKed.
 *
 * Why tiles: the library's own split of one product among threads depends on their number, and with it the order of sums.
 * Here a product (M, N, K) is cut by shape into tiles of C, and for tall inner dimensions (weight gradients) into chunks of K
 * whose partial results are added in order; each piece is one single-threaded call.
 */
#ifndef WEIR_KERNELS_GEMM_H
#define WEIR_KERNELS_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* C (m, n) = beta * C + op(A) (m, k) * op(B) (k, n), row major, op = transpose where said. */
struct gemm {
    bool a_t, b_t;
    int64_t m, n, k;
    const void *a, *b;
    int64_t lda, ldb, ldc;
    void *c;
    bool add; /* beta 1, else 0 */
};
void gemm_tile(const struct gemm *g); /* f32, through oneDNN */

struct gemm_cut {
    int64_t tile_m, tile_n; /* of C */
    int64_t chunk, chunks;  /* of the inner dimension */
};
struct gemm_cut gemm_cut_outer(int64_t m, int64_t n); /* whole inner dimension */
struct gemm_cut gemm_cut_inner(int64_t m, int64_t n, int64_t k);

/* Convolution unfolds conv_tile(inner) pixels at a time, inner = k * k * channels; weight gradients are summed in conv_parts
 * pieces. */
int64_t conv_tile(int64_t inner);
int64_t conv_parts(int64_t pixels, int64_t inner);

#define BLUR_MAX 33

/* Scratch bytes per thread of attention over s rows of d columns. */
int64_t attention_scratch(int64_t s, int64_t d, size_t size, bool backward);

#endif
