/* op.h - an operator as data: what it infers, what it needs, how it runs, how its derivative is recorded.
 *
 * Life:     operators are constants of the program; the list is ops.def.
 * Owns:     nothing.
 * Threads:  constants; op_select once, before anything runs.
 * Errors:   infer says ERR_INPUT for shapes or types that do not fit; running cannot fail.
 *
 * An operator is coarse: a layer's worth of work on whole tensors.  Its CPU function is compiled several times from one source
 * (kernels/cpu): for plain x86-64 (or any other processor), for AVX2, for AVX-512, and in double precision for tests.  The
 * first three give the same bits except where cpu/cpu.h says otherwise.
 *
 * The rules of a CPU function: it writes each output fully, each input is left alone unless the operator says `in place`,
 * work is cut into pieces by shape and never by the number of threads, sums have a fixed order, no allocation.
 */
#ifndef WEIR_KERNELS_OP_H
#define WEIR_KERNELS_OP_H

#include "base/err.h"
#include "kernels/tensor.h"

#define OP_INPUTS_MAX 6
#define OP_OUTPUTS_MAX 4

/* Which operators take which is on their builders' cards; unused ones are 0. */
struct attr {
    int32_t kind;                 /* one of an operator's own enum */
    int32_t heads, groups;        /* attention heads; channel groups of group norm */
    int32_t kernel, stride;       /* convolution: square kernels */
    int32_t pad[4];               /* top, left, bottom, right */
    int32_t axes[3];              /* rotary widths */
    int32_t which, from, to;      /* a position, a range of columns */
    float eps, alpha, beta;       /* numbers; beta e.g. a second bound */
    double theta;                 /* rotary base */
    bool flag;                    /* a yes-or-no of the operator */
    int64_t dim[TENSOR_RANK_MAX]; /* an output shape that inputs do not determine */
    int32_t rank;
};

/* What an operator's functions see of a node. */
struct call {
    const struct attr *attr;
    int inputs;
    struct tensor in[OP_INPUTS_MAX]; /* data NULL where an optional input is absent */
    struct tensor out[OP_OUTPUTS_MAX];
    char *shared;   /* scratch for the whole call */
    char *private_; /* scratch per thread, private_bytes apart */
    int64_t private_bytes;
};
typedef void (*kernel_fn)(const struct call *c);

struct op_space {
    int64_t shared, per_thread; /* bytes */
};

enum kernel {
#define X(name) KERNEL_##name,
#include "kernels/ops.def"
#undef X
    KERNEL_COUNT
};

struct vjp;
struct adam_span;
struct op {
    const char *name;
    enum kernel kernel;
    int inputs_min, inputs_max, outputs;
    /* Bit i: output 0 may take the memory of input i, when that is not needed later. */
    unsigned in_place;
    /* Fill out[].shape and .type from in[] and attr.  May give fewer outputs than .outputs by leaving rank 0. */
    enum err_code (*infer)(struct call *c, struct err *err);
    void (*space)(const struct call *c, struct op_space *need); /* NULL: none */
    int64_t (*flops)(const struct call *c);                     /* NULL: counts as none */
    void (*cuda)(const struct call *c, void *stream);           /* NULL: no twin yet */
    void (*vjp)(struct vjp *v); /* NULL: has no derivative (see tape.h) */
};

/* The CPU functions of one instruction set. */
struct kernel_table {
    const char *name; /* "x86-64", "avx2", "avx512", "f64" */
    enum dtype type;  /* of its real numbers */
    kernel_fn run[KERNEL_COUNT];
    /* The optimiser's step over elements [first, first + n) of flat memory; see optim.h. */
    void (*adam)(const struct adam_span *span);
    double (*square_sum)(const void *x, int64_t n);
};

/* The best table for this processor, or the one chosen by op_select.  Forcing is for tests. */
const struct kernel_table *op_table(void);
void op_select(const struct kernel_table *table); /* NULL: choose again by processor */
/* All that this processor can run, best first; returns how many. */
int op_tables(const struct kernel_table *out[4]);
/* First thing in main of a program that computes.  Idle OpenMP threads must sleep, not spin: the library reads that from the
 * environment when it is loaded, so where OMP_WAIT_POLICY is unset this sets it and starts the program again.  Freed memory
 * stays with the process, because oneDNN takes and gives back its packing buffers at every call. */
void op_start(char **argv);
/* n threads from now on; 0 for as many as the program began with (OMP_NUM_THREADS, else processors).  A tape planned for
 * some number runs with that many or fewer. */
void op_threads(int n);
int op_thread_count(void);

#endif
