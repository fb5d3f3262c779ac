/* Which instruction set runs, and how many threads. */
#include "kernels/op.h"

#include <malloc.h>
#include <omp.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernels/cpu/tables.h"

static const struct kernel_table *chosen;

int op_tables(const struct kernel_table *out[4])
{
    int n = 0;

#ifdef WEIR_KERNELS_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("fma"))
        out[n++] = &avx512_kernels;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        out[n++] = &avx2_kernels;
#endif
    out[n++] = &base_kernels;
    return n;
}

const struct kernel_table *op_table(void)
{
    const struct kernel_table *have[4];

    if (!chosen) {
        op_tables(have);
        chosen = have[0];
    }
    return chosen;
}

void op_select(const struct kernel_table *table)
{
    chosen = table;
}

void op_threads(int n)
{
    static int at_start; /* what OMP_NUM_THREADS or the number of processors gave */

    if (!at_start)
        at_start = omp_get_max_threads();
    omp_set_num_threads(n > 0 ? n : at_start);
}

int op_thread_count(void)
{
    return omp_get_max_threads();
}

void op_start(char **argv)
{
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
    if (getenv("OMP_WAIT_POLICY") || setenv("OMP_WAIT_POLICY", "passive", 1) != 0)
        return;
    execv("/proc/self/exe", argv);
    /* Where that cannot be, spinning only costs time. */
}
