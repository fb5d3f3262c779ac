/* Moving rows and columns: copies, and sums in the order of the users. */
#include <string.h>

#include "kernels/cpu/cpu.h"

#define COLUMN_TILE 64

void KERNEL(pick)(const struct call *c)
{
    const real *a = c->in[0].data, *b = c->in[1].data;
    const int32_t *index = c->in[2].data;
    real *y = c->out[0].data;
    int64_t cols = shape_cols(c->in[0].shape), n = shape_count(c->in[2].shape);
    int64_t a_rows = shape_rows(c->in[0].shape), b_rows = b ? shape_rows(c->in[1].shape) : 0;
    size_t bytes = (size_t)cols * sizeof(real);

#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        int64_t r = index[i];

        CHECK(r < a_rows + b_rows);
        if (r < 0)
            memset(y + i * cols, 0, bytes);
        else
            memcpy(y + i * cols, r < a_rows ? a + r * cols : b + (r - a_rows) * cols, bytes);
    }
}

/* users[start[r]] .. users[start[r + 1] - 1]: the positions that picked row r, ascending. */
static void count_users(const int32_t *index, int64_t n, int64_t from, int64_t rows, int64_t *start,
                        int64_t *users)
{
    memset(start, 0, (size_t)(rows + 2) * sizeof(*start));
    for (int64_t i = 0; i < n; i++)
        if (index[i] >= from && index[i] < from + rows)
            start[index[i] - from + 2]++;
    for (int64_t r = 2; r <= rows + 1; r++)
        start[r] += start[r - 1];
    for (int64_t i = 0; i < n; i++)
        if (index[i] >= from && index[i] < from + rows)
            users[start[index[i] - from + 1]++] = i;
}

void KERNEL(pick_bwd)(const struct call *c)
{
    const real *dy = c->in[0].data;
    const int32_t *index = c->in[1].data;
    real *da = c->out[0].data;
    int64_t cols = shape_cols(c->in[0].shape), n = shape_count(c->in[1].shape);
    int64_t rows = shape_rows(c->out[0].shape), tiles = ceil_div(cols, COLUMN_TILE);
    int64_t *start = (int64_t *)(void *)c->shared, *users = start + rows + 2;

    count_users(index, n, c->attr->from, rows, start, users);
    /* Tiles of columns too, because a padding token is one row with very many users. */
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t k = 0; k < tiles; k++)
        for (int64_t r = 0; r < rows; r++) {
            int64_t from = k * COLUMN_TILE, to = min64(cols, from + COLUMN_TILE);

            memset(da + r * cols + from, 0, (size_t)(to - from) * sizeof(real));
            for (int64_t u = start[r]; u < start[r + 1]; u++)
                for (int64_t j = from; j < to; j++)
                    da[r * cols + j] += dy[users[u] * cols + j];
        }
}

void KERNEL(patch)(const struct call *c)
{
    const real *x = c->in[0].data;
    real *y = c->out[0].data;
    bool back = c->attr->flag;
    struct shape image = back ? c->out[0].shape : c->in[0].shape;
    int64_t p = c->attr->kernel, h = image.dim[1], w = image.dim[2], ch = image.dim[3];

#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < image.dim[0] * h; row++) /* a row of pixels */
        for (int64_t col = 0; col < w; col++) {
            int64_t b = row / h, i = row % h;
            int64_t token = (b * (h / p) + i / p) * (w / p) + col / p;
            int64_t in_tokens = ((token * p + i % p) * p + col % p) * ch;
            int64_t in_image = (row * w + col) * ch;

            memcpy(y + (back ? in_image : in_tokens), x + (back ? in_tokens : in_image),
                   (size_t)ch * sizeof(real));
        }
}

void KERNEL(split)(const struct call *c)
{
    const real *x = c->in[0].data;
    int64_t rows = shape_rows(c->in[0].shape), cols = shape_cols(c->out[0].shape);
    int n = c->attr->which;

#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int k = 0; k < n; k++)
            memcpy((real *)c->out[k].data + r * cols, x + (r * n + k) * cols,
                   (size_t)cols * sizeof(real));
}

void KERNEL(concat)(const struct call *c)
{
    real *y = c->out[0].data;
    int64_t rows = shape_rows(c->in[0].shape), cols = shape_cols(c->in[0].shape);
    int n = c->inputs;

#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int k = 0; k < n; k++)
            memcpy(y + (r * n + k) * cols, (const real *)c->in[k].data + r * cols,
                   (size_t)cols * sizeof(real));
}

void KERNEL(upsample)(const struct call *c)
{
    const real *x = c->in[0].data;
    real *y = c->out[0].data;
    struct shape s = c->out[0].shape;
    int64_t w = s.dim[2], ch = s.dim[3];

#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < s.dim[0] * s.dim[1]; row++)
        for (int64_t col = 0; col < w; col++)
            memcpy(y + (row * w + col) * ch, x + (row / 2 * (w / 2) + col / 2) * ch,
                   (size_t)ch * sizeof(real));
}

void KERNEL(upsample_bwd)(const struct call *c)
{
    const real *dy = c->in[0].data;
    real *dx = c->out[0].data;
    struct shape s = c->out[0].shape;
    int64_t w = s.dim[2], ch = s.dim[3];

#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < s.dim[0] * s.dim[1]; row++)
        for (int64_t col = 0; col < w; col++) {
            const real *a = dy + ((2 * row) * 2 * w + 2 * col) * ch, *b = a + 2 * w * ch;
            real *d = dx + (row * w + col) * ch;

            for (int64_t k = 0; k < ch; k++)
                d[k] = (a[k] + a[k + ch]) + (b[k] + b[k + ch]);
        }
}
