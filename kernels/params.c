#include "kernels/params.h"

#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "kernels/rng.h"

#define STREAM_INIT 0x1417u

struct params *params_new(enum dtype type)
{
    struct params *ps = mem_zero(1, sizeof(*ps));

    CHECK(type == DT_F32 || type == DT_F64);
    ps->type = type;
    return ps;
}

void params_free(struct params *ps)
{
    if (!ps)
        return;
    for (int i = 0; i < ps->count; i++)
        free((void *)(uintptr_t)ps->list[i].name);
    free(ps->list);
    free(ps->table);
    free(ps->value);
    free(ps->grad);
    free(ps);
}

static uint64_t name_hash(const char *name)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */

    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    return h;
}

/* Where name is, or the empty place where it would go. */
static int *slot(const struct params *ps, const char *name)
{
    uint64_t i = name_hash(name);

    for (;; i++) {
        int *at = &ps->table[i & (uint64_t)(ps->table_room - 1)];

        if (!*at || strcmp(ps->list[*at - 1].name, name) == 0)
            return at;
    }
}

int params_find(const struct params *ps, const char *name)
{
    return ps->table_room ? *slot(ps, name) - 1 : -1;
}

static void make_room(struct params *ps)
{
    if (ps->count < ps->room)
        return;
    ps->room = ps->room ? ps->room * 2 : 64;
    ps->list = mem_grow(ps->list, (size_t)ps->room, sizeof(*ps->list));
    free(ps->table);
    ps->table_room = ps->room * 2; /* a power of two, at most half full */
    ps->table = mem_zero((size_t)ps->table_room, sizeof(*ps->table));
    for (int i = 0; i < ps->count; i++)
        *slot(ps, ps->list[i].name) = i + 1;
}

enum err_code params_add(struct params *ps, const char *name, struct shape shape,
                         enum param_init init, double scale, int *index, struct err *err)
{
    char have[SHAPE_TEXT_MAX], want[SHAPE_TEXT_MAX];
    int found = params_find(ps, name);
    struct param *p;

    if (found >= 0) {
        *index = found;
        if (shape_eq(ps->list[found].shape, shape))
            return OK;
        return err_set(err, ERR_INPUT, "parameter %s is %s, asked for as %s", name,
                       shape_text(ps->list[found].shape, have), shape_text(shape, want));
    }
    if (ps->value)
        return err_set(err, ERR_INPUT,
                       "parameter %s %s is not in the set, which is sealed: this net has another "
                       "structure than the one that made the set",
                       name, shape_text(shape, want));
    make_room(ps);
    p = &ps->list[ps->count];
    *p = (struct param){.name = mem_strdup(name),
                        .shape = shape,
                        .at = ps->total,
                        .count = shape_count(shape),
                        .init = init,
                        .scale = scale};
    ps->total += ceil_div(p->count, PARAM_ALIGN) * PARAM_ALIGN;
    *slot(ps, name) = ++ps->count;
    *index = ps->count - 1;
    return OK;
}

static enum err_code zeroed(const struct params *ps, void **out, struct err *err)
{
    size_t n = (size_t)(ps->total ? ps->total : 1) * dtype_size(ps->type);

    n = (n + 63) / 64 * 64;
    *out = aligned_alloc(64, n);
    if (!*out)
        return err_set(err, ERR_FULL, "cannot allocate %zu bytes for %d parameters", n, ps->count);
    memset(*out, 0, n);
    return OK;
}

static void put(const struct params *ps, int64_t at, double v)
{
    if (ps->type == DT_F64)
        ((double *)ps->value)[at] = v;
    else
        ((float *)ps->value)[at] = (float)v;
}

static void fill(const struct params *ps, const struct param *p, uint64_t seed)
{
    const struct rng r = rng_at(seed, STREAM_INIT, name_hash(p->name), 0);
    float z[256] = {0};

    if (p->init == PARAM_ZERO)
        return;
    for (int64_t i = 0; i < p->count; i += 256) {
        int64_t n = p->count - i < 256 ? p->count - i : 256;

        if (p->init == PARAM_NORMAL)
            rng_normal(&r, (uint64_t)i, n, z);
        for (int64_t j = 0; j < n; j++)
            put(ps, p->at + i + j, p->init == PARAM_ONE ? 1.0 : p->scale * (double)z[j]);
    }
}

enum err_code params_seal(struct params *ps, uint64_t seed, struct err *err)
{
    if (ps->value)
        return OK;
    if (zeroed(ps, &ps->value, err) != OK)
        return err->code;
    for (int i = 0; i < ps->count; i++)
        fill(ps, &ps->list[i], seed);
    return OK;
}

enum err_code params_need_grad(struct params *ps, struct err *err)
{
    return ps->grad ? OK : zeroed(ps, &ps->grad, err);
}

void params_zero_grad(struct params *ps)
{
    CHECK(ps->grad);
    memset(ps->grad, 0, (size_t)ps->total * dtype_size(ps->type));
}

static void *at(const struct params *ps, void *base, int index)
{
    CHECK(base && index >= 0 && index < ps->count);
    return (char *)base + (size_t)ps->list[index].at * dtype_size(ps->type);
}

void *params_value(const struct params *ps, int index)
{
    return at(ps, ps->value, index);
}

void *params_grad(const struct params *ps, int index)
{
    return at(ps, ps->grad, index);
}

void params_freeze(struct params *ps, const char *prefix, bool frozen)
{
    for (int i = 0; i < ps->count; i++)
        if (strncmp(ps->list[i].name, prefix, strlen(prefix)) == 0)
            ps->list[i].frozen = frozen;
}
