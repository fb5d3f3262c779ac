/* tensor.h - what an array of numbers is: element type, shape, memory.
 *
 * Life:     plain values; a tensor borrows its memory from an arena, a parameter set or the caller.
 * Owns:     nothing.
 * Threads:  values; whoever owns the memory says who may write it.
 * Errors:   shape_of CHECKs its bounds: shapes are our own, files are checked where they are read.
 *
 * Contiguous, last dimension fastest, no strides.  Images are (batch, height, width, channel), token rows (batch, row,
 * column), linear weights (out, in), convolution weights as diffusers names and stores them: (out, in, high, wide).
 */
#ifndef WEIR_KERNELS_TENSOR_H
#define WEIR_KERNELS_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TENSOR_RANK_MAX 5
/* No dimension and no product of dimensions passes this: sizes in bytes fit int64 whatever the type. */
#define TENSOR_COUNT_MAX ((int64_t)1 << 40)
#define SHAPE_TEXT_MAX 96

enum dtype {
    DT_F32,  /* the working type */
    DT_BF16, /* storage and multiplication where the processor has it; sums are f32 */
    DT_I32,  /* ids, lengths, positions */
    DT_F64,  /* the reference that tests hold the others against */
};

struct shape {
    int rank; /* 1 .. TENSOR_RANK_MAX */
    int64_t dim[TENSOR_RANK_MAX];
};

struct tensor {
    void *data;
    struct shape shape;
    enum dtype type;
};

size_t dtype_size(enum dtype type);
const char *dtype_name(enum dtype type);

/* SHAPE(2, 3) is a (2, 3) shape. */
#define SHAPE(...)                                                                                 \
    shape_of((int)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                      \
             (const int64_t[]){__VA_ARGS__})
struct shape shape_of(int rank, const int64_t *dim);
bool shape_eq(struct shape a, struct shape b);
int64_t shape_count(struct shape s); /* elements */
int64_t shape_cols(struct shape s);  /* the last dimension */
int64_t shape_rows(struct shape s);  /* everything before it */
/* "(2, 3)"; out holds SHAPE_TEXT_MAX bytes. */
const char *shape_text(struct shape s, char out[SHAPE_TEXT_MAX]);

/* bf16 is the upper half of an f32, rounded to nearest, ties to even; NaN stays NaN. */
static inline uint16_t bf16_of(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof(u));
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

static inline float bf16_to_f32(uint16_t b)
{
    uint32_t u = (uint32_t)b << 16;
    float x;

    memcpy(&x, &u, sizeof(x));
    return x;
}

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

#endif
