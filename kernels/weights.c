/* Reading: the header is parsed once into a table sorted by name; data stays in the mapping. */
#include "kernels/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/json.h"
#include "base/os.h"
#include "base/str.h"

struct weights {
    char *path;
    const char *map;
    size_t size;
    json_t *header; /* owns names */
    struct weights_tensor *list;
    int count;
};

struct type_row {
    const char *name;
    int64_t size;
    int type; /* enum dtype, -1 for those that we only step over */
};
static const struct type_row type_rows[] = {
    {"F32", 4, DT_F32}, {"BF16", 2, DT_BF16}, {"F64", 8, DT_F64}, {"I32", 4, DT_I32},
    {"F16", 2, -1},     {"I64", 8, -1},       {"U64", 8, -1},     {"U32", 4, -1},
    {"I16", 2, -1},     {"U16", 2, -1},       {"I8", 1, -1},      {"U8", 1, -1},
    {"BOOL", 1, -1},    {"F8_E4M3", 1, -1},   {"F8_E5M2", 1, -1}};

static enum err_code read_shape(const json_t *list, const char *name, struct shape *s,
                                int64_t *count, struct err *err)
{
    size_t rank = json_array_size(list);

    *s = SHAPE(1);
    *count = 1;
    if (!json_is_array(list) || rank > TENSOR_RANK_MAX)
        return err_set(err, ERR_INPUT, "tensor %s: its shape is not a list of at most %d numbers",
                       name, TENSOR_RANK_MAX);
    for (size_t i = 0; i < rank; i++) {
        const json_t *d = json_array_get(list, i);
        int64_t n = json_is_integer(d) ? json_integer_value(d) : -1;

        if (n < 1 || n > TENSOR_COUNT_MAX / *count)
            return err_set(err, ERR_INPUT,
                           "tensor %s: dimension %zu is not a number from 1 to %lld", name, i,
                           (long long)(TENSOR_COUNT_MAX / *count));
        s->dim[i] = n;
        s->rank = (int)i + 1;
        *count *= n;
    }
    return OK;
}

/* One entry of the header; data_size bounds its offsets. */
static enum err_code read_entry(const char *name, const json_t *entry, const char *data,
                                int64_t data_size, struct weights_tensor *t, struct err *err)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    const struct type_row *row = NULL;
    int64_t count, begin, end;

    for (size_t i = 0; type && i < sizeof(type_rows) / sizeof(type_rows[0]); i++)
        if (strcmp(type, type_rows[i].name) == 0)
            row = &type_rows[i];
    if (!row || json_object_size(entry) != 3)
        return err_set(err, ERR_INPUT,
                       "tensor %s: it must have a known dtype, a shape and "
                       "data_offsets, and nothing else",
                       name);
    if (read_shape(json_object_get(entry, "shape"), name, &t->shape, &count, err) != OK)
        return err->code;
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return err_set(err, ERR_INPUT, "tensor %s: data_offsets are not two numbers", name);
    begin = json_integer_value(first);
    end = json_integer_value(last);
    if (begin < 0 || end < begin || end > data_size || end - begin != count * row->size)
        return err_set(err, ERR_INPUT,
                       "tensor %s: offsets %" PRId64 " to %" PRId64 " do not hold %" PRId64
                       " elements of %s in %" PRId64 " bytes of data",
                       name, begin, end, count, type, data_size);
    t->name = name;
    t->type_name = row->name;
    t->known = row->type >= 0;
    t->type = t->known ? (enum dtype)row->type : DT_F32;
    t->data = data + begin;
    t->bytes = end - begin;
    return OK;
}

static int by_name(const void *a, const void *b)
{
    const struct weights_tensor *x = a, *y = b;

    return strcmp(x->name, y->name);
}

static int by_place(const void *a, const void *b)
{
    const struct weights_tensor *x = a, *y = b;

    return x->data < y->data ? -1 : x->data > y->data;
}

/* Extents must tile the data: sorted by place, each begins where the last ended. */
static enum err_code check_tiling(struct weights *w, const char *data, int64_t size,
                                  struct err *err)
{
    const char *at = data;

    qsort(w->list, (size_t)w->count, sizeof(*w->list), by_place);
    for (int i = 0; i < w->count; i++) {
        if (w->list[i].data != at)
            return err_set(err, ERR_INPUT,
                           "tensor %s: its data leaves a hole or overlaps another's",
                           w->list[i].name);
        at += w->list[i].bytes;
    }
    if (at != data + size)
        return err_set(err, ERR_INPUT, "%lld bytes of data belong to no tensor",
                       (long long)(data + size - at));
    qsort(w->list, (size_t)w->count, sizeof(*w->list), by_name);
    return OK;
}

static enum err_code read_header(struct weights *w, struct err *err)
{
    const char *key, *data;
    json_t *entry;
    uint64_t n = 0;
    int64_t data_size;

    for (int i = 7; i >= 0; i--)
        n = n << 8 | (w->size >= 8 ? (unsigned char)w->map[i] : 0xff);
    if (w->size < 8 || n > w->size - 8)
        return err_set(err, ERR_INPUT,
                       "not a safetensors file: its header would be longer than it");
    if (n > WEIGHTS_HEADER_MAX)
        return err_set(err, ERR_LIMIT, "its header of %" PRIu64 " bytes is over the limit of %d", n,
                       WEIGHTS_HEADER_MAX);
    if (json_parse(w->map + 8, (size_t)n, WEIGHTS_HEADER_MAX, "header", &w->header, err) != OK)
        return err->code;
    if (!json_is_object(w->header) || json_object_size(w->header) > WEIGHTS_COUNT_MAX)
        return err_set(err, ERR_INPUT, "its header is not an object of at most %d tensors",
                       WEIGHTS_COUNT_MAX);
    data = w->map + 8 + n;
    data_size = (int64_t)(w->size - 8 - (size_t)n);
    w->list = mem_zero(json_object_size(w->header) + 1, sizeof(*w->list));
    json_object_foreach(w->header, key, entry)
    {
        if (strcmp(key, "__metadata__") == 0)
            continue;
        if (read_entry(key, entry, data, data_size, &w->list[w->count], err) != OK)
            return err->code;
        w->count++;
    }
    return check_tiling(w, data, data_size, err);
}

static enum err_code map_file(struct weights *w, struct err *err)
{
    enum err_code rc;
    struct stat st;
    int fd = -1, sys = 0;
    void *p = NULL;

    rc = os_open(AT_FDCWD, w->path, O_RDONLY, 0, &fd, err);
    if (rc == OK)
        rc = os_stat(fd, &st, err);
    if (rc == OK && (!S_ISREG(st.st_mode) || st.st_size < 8))
        rc = err_set(err, ERR_INPUT, "%s: not a safetensors file", w->path);
    if (rc == OK) {
        p = fault_hit(&sys) ? MAP_FAILED
                            : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            rc = err_sys(err, sys ? sys : errno, "cannot map %s", w->path);
    }
    os_close_quiet(&fd);
    if (rc != OK)
        return rc;
    w->map = p;
    w->size = (size_t)st.st_size;
    return OK;
}

enum err_code weights_open(const char *path, struct weights **out, struct err *err)
{
    struct weights *w = mem_zero(1, sizeof(*w));

    *out = NULL;
    w->path = mem_strdup(path);
    if (map_file(w, err) != OK) {
        weights_close(w);
        return err->code;
    }
    if (read_header(w, err) != OK) {
        err_prefix(err, "%s", path);
        weights_close(w);
        return err->code;
    }
    *out = w;
    return OK;
}

void weights_close(struct weights *w)
{
    if (!w)
        return;
    if (w->map)
        munmap((void *)(uintptr_t)w->map, w->size);
    json_decref(w->header);
    free(w->list);
    free(w->path);
    free(w);
}

int weights_count(const struct weights *w)
{
    return w->count;
}

const struct weights_tensor *weights_at(const struct weights *w, int index)
{
    CHECK(index >= 0 && index < w->count);
    return &w->list[index];
}

const struct weights_tensor *weights_find(const struct weights *w, const char *name)
{
    const struct weights_tensor key = {.name = name};

    return bsearch(&key, w->list, (size_t)w->count, sizeof(*w->list), by_name);
}

const char *weights_meta(const struct weights *w, const char *key)
{
    return json_string_value(json_object_get(json_object_get(w->header, "__metadata__"), key));
}

/* Data need not be aligned in the file. */
double weights_get(const struct weights_tensor *t, int64_t i)
{
    size_t size = dtype_size(t->type);
    const char *p = (const char *)t->data + (size_t)i * size;
    union {
        float f;
        double d;
        int32_t i;
        uint16_t h;
    } u;

    CHECK(t->known && i >= 0 && i < shape_count(t->shape));
    memcpy(&u, p, size);
    switch (t->type) {
    case DT_F32:
        return (double)u.f;
    case DT_F64:
        return u.d;
    case DT_BF16:
        return (double)bf16_to_f32(u.h);
    case DT_I32:
    default:
        return (double)u.i;
    }
}

static enum err_code load_one(const struct params *ps, int i, const struct weights *w,
                              struct err *err)
{
    const struct param *p = &ps->list[i];
    const struct weights_tensor *t = weights_find(w, p->name);
    char have[SHAPE_TEXT_MAX], want[SHAPE_TEXT_MAX];

    if (!t)
        return err_set(err, ERR_INPUT, "%s: it has no tensor %s, which the model needs", w->path,
                       p->name);
    if (!t->known || !shape_eq(t->shape, p->shape))
        return err_set(err, ERR_INPUT, "%s: tensor %s is %s %s, the model needs %s", w->path,
                       p->name, t->type_name, shape_text(t->shape, have),
                       shape_text(p->shape, want));
    if (t->type == ps->type) {
        memcpy(params_value(ps, i), t->data, (size_t)t->bytes);
        return OK;
    }
    for (int64_t k = 0; k < p->count; k++) {
        if (ps->type == DT_F64)
            ((double *)params_value(ps, i))[k] = weights_get(t, k);
        else
            ((float *)params_value(ps, i))[k] = (float)weights_get(t, k);
    }
    return OK;
}

enum err_code weights_load(struct params *ps, const char *path, struct err *err)
{
    enum err_code rc;
    struct weights *w;

    CHECK(ps->value);
    rc = weights_open(path, &w, err);
    for (int i = 0; rc == OK && i < weights_count(w); i++)
        if (params_find(ps, weights_at(w, i)->name) < 0)
            rc = err_set(err, ERR_INPUT, "%s: the model has no parameter %s", path,
                         weights_at(w, i)->name);
    for (int i = 0; rc == OK && i < ps->count; i++)
        rc = load_one(ps, i, w, err);
    weights_close(w);
    return rc;
}
