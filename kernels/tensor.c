#include "kernels/tensor.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/err.h"

size_t dtype_size(enum dtype type)
{
    switch (type) {
    case DT_F32:
    case DT_I32:
        return 4;
    case DT_BF16:
        return 2;
    case DT_F64:
        return 8;
    default:
        check_failed("known type", __FILE__, __LINE__);
    }
}

const char *dtype_name(enum dtype type)
{
    static const char *const names[] = {"f32", "bf16", "i32", "f64"};

    CHECK((size_t)type < sizeof(names) / sizeof(names[0]));
    return names[type];
}

struct shape shape_of(int rank, const int64_t *dim)
{
    struct shape s = {.rank = rank};
    int64_t count = 1;

    CHECK(rank >= 1 && rank <= TENSOR_RANK_MAX);
    for (int i = 0; i < rank; i++) {
        CHECK(dim[i] >= 1 && dim[i] <= TENSOR_COUNT_MAX / count);
        count *= dim[i];
        s.dim[i] = dim[i];
    }
    return s;
}

bool shape_eq(struct shape a, struct shape b)
{
    if (a.rank != b.rank)
        return false;
    for (int i = 0; i < a.rank; i++)
        if (a.dim[i] != b.dim[i])
            return false;
    return true;
}

int64_t shape_count(struct shape s)
{
    int64_t count = 1;

    for (int i = 0; i < s.rank; i++)
        count *= s.dim[i];
    return count;
}

int64_t shape_cols(struct shape s)
{
    return s.dim[s.rank - 1];
}

int64_t shape_rows(struct shape s)
{
    int64_t count = 1;

    for (int i = 0; i + 1 < s.rank; i++)
        count *= s.dim[i];
    return count;
}

const char *shape_text(struct shape s, char out[SHAPE_TEXT_MAX])
{
    size_t n = 0;

    for (int i = 0; i < s.rank; i++)
        n += (size_t)snprintf(out + n, SHAPE_TEXT_MAX - n, "%s%" PRId64, i ? ", " : "(", s.dim[i]);
    snprintf(out + n, SHAPE_TEXT_MAX - n, ")");
    return out;
}
