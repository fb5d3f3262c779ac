#include "stages/data/idx.h"

#define SIDE_MAX 32768

static uint32_t big(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

bool idx_sniff(const void *p, size_t n)
{
    const uint8_t *b = p;

    return n >= 8 && b[0] == 0 && b[1] == 0 && b[2] == 8 && (b[3] == 1 || b[3] == 3);
}

enum err_code idx_parse(const void *p, size_t n, struct idx *out, struct err *err)
{
    const uint8_t *b = p;
    size_t head, need;

    *out = (struct idx){0};
    if (!idx_sniff(p, n))
        return err_set(err, ERR_INPUT, "not an IDX file of bytes with one or three dimensions");
    head = 4 + 4 * (size_t)b[3];
    if (n < head)
        return err_set(err, ERR_INPUT, "IDX file ends inside its header");
    *out = (struct idx){big(b + 4), 1, 1, b + head};
    if (b[3] == 3) {
        const uint32_t rows = big(b + 8), columns = big(b + 12);

        if (rows == 0 || columns == 0 || rows > SIDE_MAX || columns > SIDE_MAX)
            return err_set(err, ERR_INPUT, "IDX pictures of %u x %u", columns, rows);
        out->rows = (int)rows;
        out->columns = (int)columns;
    }
    if (__builtin_mul_overflow((size_t)out->count, (size_t)out->rows * (size_t)out->columns,
                               &need) ||
        n - head != need)
        return err_set(err, ERR_INPUT, "IDX file says %lld items of %d x %d but holds %zu bytes",
                       (long long)out->count, out->columns, out->rows, n - head);
    return OK;
}
