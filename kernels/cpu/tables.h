/* tables.h - the instruction sets that kernels/cpu is compiled for.
 *
 * Life:     constants.
 * Owns:     nothing.
 * Threads:  constants.
 * Errors:   none.
 *
 * f64_kernels is in a library of its own (weir_kernels_f64), which only tests link.
 */
#ifndef WEIR_KERNELS_CPU_TABLES_H
#define WEIR_KERNELS_CPU_TABLES_H

#include "kernels/op.h"

extern const struct kernel_table base_kernels, avx2_kernels, avx512_kernels, f64_kernels;

#endif
