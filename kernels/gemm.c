/* How products are cut.  Measured on two cores with AVX-512: tiles of 256 x 256 and more run within 3 % of large ones, below
 * 96 columns the library's packing shows. */
#include "kernels/gemm.h"

#include "kernels/tensor.h"

/* Equal parts of at most most, in multiples of 16. */
static int64_t part(int64_t n, int64_t most)
{
    int64_t parts = ceil_div(n, most);

    return ceil_div(ceil_div(n, parts), 16) * 16;
}

struct gemm_cut gemm_cut_outer(int64_t m, int64_t n)
{
    struct gemm_cut cut = {.chunks = 1};

    cut.tile_m = part(m, 384);
    /* Few rows: cut columns instead, so that there is work for several threads. */
    cut.tile_n = m <= 384 ? part(n, 128) : part(n, 768);
    return cut;
}

struct gemm_cut gemm_cut_inner(int64_t m, int64_t n, int64_t k)
{
    struct gemm_cut cut;

    cut.tile_m = part(m, 384);
    cut.tile_n = part(n, 384);
    /* 8 pieces of work or more where there is enough of it; a chunk has at least 512 terms. */
    cut.chunks = ceil_div(8, ceil_div(m, cut.tile_m) * ceil_div(n, cut.tile_n));
    if (cut.chunks > ceil_div(k, 512))
        cut.chunks = ceil_div(k, 512);
    cut.chunk = part(k, ceil_div(k, cut.chunks));
    cut.chunks = ceil_div(k, cut.chunk);
    return cut;
}

int64_t attention_scratch(int64_t s, int64_t d, size_t size, bool backward)
{
    const int64_t pad = 32, queries = 48; /* MM_COLS and QUERIES of cpu/attention.c */
    int64_t s_pad = ceil_div(s, pad) * pad, d_pad = ceil_div(d, pad) * pad;
    int64_t n = backward ? 2 * d * s_pad + s * d_pad + 2 * queries * (d_pad + s_pad)
                         : d * s_pad + s * d_pad + queries * s_pad;

    return n * (int64_t)size;
}

int64_t conv_tile(int64_t inner)
{
    int64_t rows = 131072 / inner / 16 * 16; /* 512 KiB of columns: half of a usual L2 */

    return rows < 16 ? 16 : rows > 512 ? 512 : rows;
}

int64_t conv_parts(int64_t pixels, int64_t inner)
{
    int64_t tiles = ceil_div(pixels, conv_tile(inner));

    return tiles < 8 ? tiles : 8;
}
