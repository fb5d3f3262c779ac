/* This instruction set's functions as one table. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/tables.h"

#define TEXT2(x) #x
#define TEXT(x) TEXT2(x)

const struct kernel_table KERNEL(kernels) = {
    .name = TEXT(WEIR_VARIANT),
    .type = REAL_DTYPE,
    .run =
        {
#define X(name) [KERNEL_##name] = KERNEL(name),
#include "kernels/ops.def"
#undef X
        },
    .adam = KERNEL(adam),
    .square_sum = KERNEL(square_sum),
};
