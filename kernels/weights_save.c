/* Writing safetensors: header, then data in order of names, aside; synced; renamed over the old file. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/os.h"
#include "base/str.h"
#include "kernels/weights.h"

#define PIECE 16384 /* elements converted at a time */

static int by_name(const void *a, const void *b)
{
    const struct param *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static void put_string(struct buf *out, const char *s)
{
    json_canonical_string(out, s, strlen(s));
}

static int pair_order(const void *a, const void *b)
{
    const struct weights_pair *x = a, *y = b;

    return strcmp(x->key, y->key);
}

static void put_meta(struct buf *out, const struct weights_pair *meta)
{
    size_t n = 0;
    struct weights_pair *list;

    while (meta && meta[n].key)
        n++;
    list = mem_zero(n + 1, sizeof(*list));
    if (n)
        memcpy(list, meta, n * sizeof(*list));
    list[n] = (struct weights_pair){"format", "pt"};
    qsort(list, n + 1, sizeof(*list), pair_order);
    buf_str(out, "{\"__metadata__\":{");
    for (size_t i = 0; i <= n; i++) {
        buf_str(out, i ? "," : "");
        put_string(out, list[i].key);
        buf_str(out, ":");
        put_string(out, list[i].value);
    }
    buf_str(out, "}");
    free(list);
}

static void put_header(struct buf *out, const struct param *const *list, int count, enum dtype type,
                       const struct weights_pair *meta)
{
    int64_t at = 0, size = (int64_t)dtype_size(type);

    put_meta(out, meta);
    for (int i = 0; i < count; i++) {
        buf_str(out, ",");
        put_string(out, list[i]->name);
        buf_printf(out, ":{\"dtype\":\"%s\",\"shape\":[", type == DT_BF16 ? "BF16" : "F32");
        for (int k = 0; k < list[i]->shape.rank; k++)
            buf_printf(out, "%s%" PRId64, k ? "," : "", list[i]->shape.dim[k]);
        buf_printf(out, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", at,
                   at + list[i]->count * size);
        at += list[i]->count * size;
    }
    buf_str(out, "}");
    while (out->n % 8)
        buf_char(out, ' ');
}

static enum err_code write_one(int fd, const struct params *ps, const void *flat,
                               const struct param *p, enum dtype type, struct err *err)
{
    union {
        float f[PIECE];
        uint16_t h[PIECE];
    } *u = mem_alloc(sizeof(*u));
    enum err_code rc = OK;

    for (int64_t i = 0; rc == OK && i < p->count; i += PIECE) {
        int64_t n = p->count - i < PIECE ? p->count - i : PIECE;

        for (int64_t k = 0; k < n; k++) {
            int64_t at = p->at + i + k;
            float x =
                ps->type == DT_F64 ? (float)((const double *)flat)[at] : ((const float *)flat)[at];

            if (type == DT_BF16)
                u->h[k] = bf16_of(x);
            else
                u->f[k] = x;
        }
        rc = os_write(fd, u, (size_t)n * dtype_size(type), err);
    }
    free(u);
    return rc;
}

static enum err_code write_all(int fd, const struct params *ps, const void *flat,
                               const struct param *const *list, enum dtype type,
                               const struct weights_pair *meta, struct err *err)
{
    struct buf header;
    unsigned char size[8];
    enum err_code rc;

    buf_init(&header, WEIGHTS_HEADER_MAX);
    put_header(&header, list, ps->count, type, meta);
    rc = buf_check(&header, "safetensors header", err);
    for (int i = 0; i < 8; i++)
        size[i] = (unsigned char)(header.n >> (8 * i));
    if (rc == OK)
        rc = os_write(fd, size, sizeof(size), err);
    if (rc == OK)
        rc = os_write(fd, header.p, header.n, err);
    for (int i = 0; rc == OK && i < ps->count; i++)
        rc = write_one(fd, ps, flat, list[i], type, err);
    if (rc == OK)
        rc = os_fsync(fd, err);
    buf_release(&header);
    return rc;
}

/* The rename is durable when its directory is. */
static enum err_code sync_parent(const char *path, struct err *err)
{
    char *dir = mem_strdup(path), *slash = strrchr(dir, '/');
    enum err_code rc;
    int fd = -1;

    if (slash)
        slash[slash == dir] = 0;
    rc = os_open_dir(AT_FDCWD, slash ? dir : ".", &fd, err);
    if (rc == OK)
        rc = os_fsync(fd, err);
    os_close_quiet(&fd);
    free(dir);
    return rc;
}

enum err_code weights_save(const struct params *ps, const void *flat, enum dtype type,
                           const struct weights_pair *meta, const char *path, struct err *err)
{
    const struct param **list = mem_zero((size_t)ps->count + 1, sizeof(*list));
    size_t n = strlen(path) + 32;
    char *aside = mem_alloc(n);
    enum err_code rc, closed;
    struct err ignored = ERR_INIT;
    uint64_t random;
    int fd = -1;

    CHECK(type == DT_F32 || type == DT_BF16);
    os_random(&random, sizeof(random));
    snprintf(aside, n, "%s.tmp.%016" PRIx64, path, random);
    for (int i = 0; i < ps->count; i++)
        list[i] = &ps->list[i];
    qsort(list, (size_t)ps->count, sizeof(*list), by_name);
    rc = os_open(AT_FDCWD, aside, O_WRONLY | O_CREAT | O_EXCL, 0666, &fd, err);
    if (rc == OK) {
        rc = write_all(fd, ps, flat, list, type, meta, err);
        closed = os_close(&fd, rc == OK ? err : &ignored);
        rc = rc == OK ? closed : rc;
        if (rc == OK)
            rc = os_rename(AT_FDCWD, aside, AT_FDCWD, path, err);
        if (rc != OK && os_unlink(AT_FDCWD, aside, &ignored) != OK)
            ignored.code = OK; /* the first error is the one to tell */
        if (rc == OK)
            rc = sync_parent(path, err);
    }
    free(list);
    free(aside);
    return rc;
}
