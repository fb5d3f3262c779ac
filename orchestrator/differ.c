#include "orchestrator/differ.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "store/cut.h"
#include "store/reader.h"
#include "store/tree.h"

#define STEP ((size_t)1 << 20)

/* ---- numbers ----------------------------------------------------------------------------------- */

static double from_half(uint16_t h)
{
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    const double sign = h >> 15 ? -1 : 1;

    if (exponent == 31)
        return fraction ? NAN : sign * INFINITY;
    if (exponent == 0)
        return sign * ldexp(fraction, -24);
    return sign * ldexp(1024 + fraction, exponent - 25);
}

/* I8 I16 I32 I64, U8 .. U64, BOOL, little endian; exact up to 2^53, near enough beyond for a difference that is shown with three digits. */
static double whole_number(const char *dtype, const unsigned char *p, size_t n)
{
    uint64_t v = 0;

    for (size_t i = n; i-- > 0;)
        v = v << 8 | p[i];
    if (dtype[0] == 'I' && p[n - 1] & 0x80)
        return -(double)(~(v | (n < 8 ? UINT64_MAX << (8 * n % 64) : 0)) + 1);
    return (double)v;
}

static double element(const char *dtype, const unsigned char *p, size_t n)
{
    uint32_t w;
    uint16_t h;
    float f;
    double d;

    if (strcmp(dtype, "F32") == 0) {
        memcpy(&f, p, sizeof(f));
        return (double)f;
    }
    if (strcmp(dtype, "F64") == 0) {
        memcpy(&d, p, sizeof(d));
        return d;
    }
    if (dtype[0] == 'I' || dtype[0] == 'U' || strcmp(dtype, "BOOL") == 0)
        return whole_number(dtype, p, n);
    memcpy(&h, p, sizeof(h));
    if (strcmp(dtype, "F16") == 0)
        return from_half(h);
    w = (uint32_t)h << 16; /* BF16 */
    memcpy(&f, &w, sizeof(f));
    return (double)f;
}

/* Bytes of an element; 0: of a type whose values are not understood (8-bit floats). */
static size_t width(const char *dtype)
{
    static const struct {
        const char *name;
        size_t bytes;
    } list[] = {{"F64", 8}, {"I64", 8}, {"U64", 8},  {"F32", 4}, {"I32", 4}, {"U32", 4}, {"F16", 2},
                {"I16", 2}, {"U16", 2}, {"BF16", 2}, {"I8", 1},  {"U8", 1},  {"BOOL", 1}};

    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
        if (strcmp(dtype, list[i].name) == 0)
            return list[i].bytes;
    return 0;
}

static double distance(double a, double b)
{
    if (isnan(a) || isnan(b))
        return isnan(a) && isnan(b) ? 0 : INFINITY;
    return a == b ? 0 : fabs(a - b);
}

/* ---- one file ---------------------------------------------------------------------------------- */

struct file {
    struct object *o;
    char *part;
};

static enum err_code open_file(struct store *st, const struct digest *id, struct file *f,
                               struct err *err)
{
    f->part = mem_alloc(STEP);
    return object_open(st, id, &f->o, err);
}

static void close_file(struct file *f)
{
    object_close(f->o);
    free(f->part);
}

static enum err_code first_byte(struct file *a, struct file *b, struct difference *out,
                                struct err *err)
{
    const int64_t n =
        object_bytes(a->o) < object_bytes(b->o) ? object_bytes(a->o) : object_bytes(b->o);
    enum err_code rc = OK;

    (void)snprintf(out->what, sizeof(out->what), "bytes");
    out->offset = n;
    for (int64_t at = 0; !rc && at < n; at += (int64_t)STEP) {
        const size_t part = n - at < (int64_t)STEP ? (size_t)(n - at) : STEP;

        rc = object_pread(a->o, a->part, part, at, err);
        if (!rc)
            rc = object_pread(b->o, b->part, part, at, err);
        for (size_t i = 0; !rc && i < part; i++)
            if (a->part[i] != b->part[i]) {
                out->offset = at + (int64_t)i;
                return OK;
            }
    }
    return rc;
}

/* The largest difference of a tensor that both have with this type and size; *equal when there is none. */
static enum err_code compare_tensor(struct file *a, struct file *b, const struct tensor_span *x,
                                    const struct tensor_span *y, bool *equal, double *largest,
                                    struct err *err)
{
    const size_t w = width(x->dtype);
    enum err_code rc = OK;

    *equal = true;
    *largest = w > 0 ? 0 : NAN;
    for (int64_t at = 0; !rc && at < x->len; at += (int64_t)STEP) {
        const size_t n = x->len - at < (int64_t)STEP ? (size_t)(x->len - at) : STEP;

        rc = object_pread(a->o, a->part, n, x->off + at, err);
        if (!rc)
            rc = object_pread(b->o, b->part, n, y->off + at, err);
        if (rc || memcmp(a->part, b->part, n) == 0)
            continue;
        *equal = false;
        for (size_t i = 0; w > 0 && i + w <= n; i += w)
            *largest = fmax(*largest, distance(element(x->dtype, (unsigned char *)a->part + i, w),
                                               element(x->dtype, (unsigned char *)b->part + i, w)));
    }
    return rc;
}

struct header {
    char **names;
    struct tensor_span *spans;
    size_t count;
    struct buf head;
};

static bool read_header(struct file *f, struct header *h)
{
    struct err ignored = ERR_INIT;
    uint8_t size[8];
    uint64_t n = 0;
    char *p;

    buf_init(&h->head, CUT_HEADER_MAX + 8);
    if (object_bytes(f->o) < 8 || object_pread(f->o, size, 8, 0, &ignored))
        return false;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | size[i];
    if (n > CUT_HEADER_MAX || (int64_t)n > object_bytes(f->o) - 8)
        return false;
    p = buf_room(&h->head, (size_t)n + 8);
    return p && object_pread(f->o, p, (size_t)n + 8, 0, &ignored) == OK &&
           safetensors_list(p, (size_t)n + 8, object_bytes(f->o), &h->names, &h->spans, &h->count,
                            &ignored) == OK;
}

static void release_header(struct header *h)
{
    free(h->names);
    free(h->spans);
    buf_release(&h->head);
}

static bool same_form(const struct header *x, const struct header *y)
{
    if (x->count != y->count)
        return false;
    for (size_t i = 0; i < x->count; i++)
        if (strcmp(x->names[i], y->names[i]) != 0 || x->spans[i].len != y->spans[i].len ||
            strcmp(x->spans[i].dtype, y->spans[i].dtype) != 0)
            return false;
    return true;
}

static enum err_code compare_tensors(struct file *a, struct file *b, const struct header *x,
                                     const struct header *y, struct difference *out,
                                     struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < x->count; i++) {
        bool equal;
        double largest;

        rc = compare_tensor(a, b, &x->spans[i], &y->spans[i], &equal, &largest, err);
        if (rc || equal)
            continue;
        if (out->tensors++ == 0) {
            (void)snprintf(out->what, sizeof(out->what), "tensor");
            (void)snprintf(out->tensor, sizeof(out->tensor), "%s", x->names[i]);
            out->largest = largest;
        }
    }
    return rc;
}

static enum err_code compare_files(struct store *st, const struct digest *x, const struct digest *y,
                                   struct difference *out, struct err *err)
{
    struct file a = {0}, b = {0};
    struct header hx = {0}, hy = {0};
    enum err_code rc = open_file(st, x, &a, err);

    out->equal = false;
    if (!rc)
        rc = open_file(st, y, &b, err);
    if (!rc && read_header(&a, &hx) && read_header(&b, &hy) && same_form(&hx, &hy))
        rc = compare_tensors(&a, &b, &hx, &hy, out, err);
    if (!rc && out->tensors == 0)
        rc = first_byte(&a, &b, out, err);
    release_header(&hx);
    release_header(&hy);
    close_file(&a);
    close_file(&b);
    return rc;
}

/* ---- trees ------------------------------------------------------------------------------------- */

static enum err_code read_tree(struct store *st, const struct digest *id, struct tree *t,
                               struct err *err)
{
    struct buf text = {0};
    enum err_code rc;

    buf_init(&text, TREE_BYTES_MAX);
    rc = object_read(st, id, TREE_BYTES_MAX, &text, err);
    if (!rc)
        rc = tree_decode(text.p, text.n, -1, "tree", t, err);
    buf_release(&text);
    return rc;
}

static void found(struct difference *out, const char *what)
{
    out->equal = false;
    (void)snprintf(out->what, sizeof(out->what), "%s", what);
}

static void push(struct difference *out, struct str name)
{
    struct buf text = {0};
    const size_t n = strlen(out->path);

    buf_init(&text, sizeof(out->path) * 4);
    json_name_escape(&text, name.p, name.n);
    (void)snprintf(out->path + n, sizeof(out->path) - n, "%s%s", n ? "/" : "",
                   text.p ? text.p : "");
    buf_release(&text);
}

static enum err_code compare_trees(struct store *st, const struct digest *x, const struct digest *y,
                                   int depth, struct difference *out, struct err *err);

static enum err_code compare_entries(struct store *st, const struct tree_entry *a,
                                     const struct tree_entry *b, int depth, struct difference *out,
                                     struct err *err)
{
    if (a->mode != b->mode) {
        found(out, "mode");
        return OK;
    }
    if (a->mode == TREE_LINK) {
        if (!str_eq(a->target, b->target))
            found(out, "target of the link");
        return OK;
    }
    if (digest_eq(&a->digest, &b->digest))
        return OK;
    if (a->mode == TREE_DIR)
        return compare_trees(st, &a->digest, &b->digest, depth + 1, out, err);
    return compare_files(st, &a->digest, &b->digest, out, err);
}

/* Both are sorted by name: one walk along both, to the first difference. */
static enum err_code compare_trees(struct store *st, const struct digest *x, const struct digest *y,
                                   int depth, struct difference *out, struct err *err)
{
    struct tree a = {0}, b = {0};
    const size_t path = strlen(out->path);
    size_t i = 0, k = 0;
    enum err_code rc = depth > TREE_DEPTH_MAX ? err_set(err, ERR_LIMIT, "a tree is too deep")
                                              : read_tree(st, x, &a, err);

    if (!rc)
        rc = read_tree(st, y, &b, err);
    while (!rc && out->equal && (i < a.count || k < b.count)) {
        const int order = i == a.count   ? 1
                          : k == b.count ? -1
                                         : str_cmp(a.entries[i].name, b.entries[k].name);

        push(out, order <= 0 ? a.entries[i].name : b.entries[k].name);
        if (order == 0)
            rc = compare_entries(st, &a.entries[i], &b.entries[k], depth, out, err);
        else
            found(out, order < 0 ? "only in the first" : "only in the second");
        if (out->equal)
            out->path[path] = '\0';
        i += order <= 0;
        k += order >= 0;
    }
    tree_release(&a);
    tree_release(&b);
    return rc;
}

enum err_code differ(struct store *st, enum obj_kind kind, const struct digest *a,
                     const struct digest *b, struct difference *out, struct err *err)
{
    *out = (struct difference){.equal = true};
    if (digest_eq(a, b))
        return OK;
    return kind == OBJ_TREE ? compare_trees(st, a, b, 0, out, err)
                            : compare_files(st, a, b, out, err);
}

void differ_say(const struct difference *d, struct buf *out)
{
    if (d->equal) {
        buf_str(out, "equal");
        return;
    }
    if (d->path[0])
        buf_printf(out, "%s: ", d->path);
    if (strcmp(d->what, "tensor") == 0) {
        buf_str(out, "tensor ");
        json_name_escape(out, d->tensor, strlen(d->tensor));
        if (isnan(d->largest))
            buf_str(out, " differs");
        else
            buf_printf(out, ", largest difference %.3g", d->largest);
        if (d->tensors > 1)
            buf_printf(out, " (%lld tensors differ)", (long long)d->tensors);
    } else if (strcmp(d->what, "bytes") == 0) {
        buf_printf(out, "first different byte at %lld", (long long)d->offset);
    } else {
        buf_str(out, d->what);
    }
}
