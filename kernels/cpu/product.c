#include "kernels/cpu/product.h"

void KERNEL(sum_parts)(const real *part, int64_t parts, int64_t n, real *out)
{
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < ceil_div(n, ELEM_BLOCK); b++) {
        int64_t from = b * ELEM_BLOCK, to = min64(n, from + ELEM_BLOCK);

        memcpy(out + from, part + from, (size_t)(to - from) * sizeof(real));
        for (int64_t p = 1; p < parts; p++)
            for (int64_t i = from; i < to; i++)
                out[i] += part[p * n + i];
    }
}
