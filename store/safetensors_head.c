/* The header of a safetensors file:
 *
 *   +-----------------+--------------------------------+----------------------------+
 *   | u64 N, little   | N bytes of JSON, first is '{', | tensors, one after another |
 *   | endian          | spaces at the end are fine     | without holes              |
 *   +-----------------+--------------------------------+----------------------------+
 *   {"__metadata__": {"key": "value", ...},
 *    "name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, ...}
 *   Offsets count from the end of the JSON.
 *
 * The header is a stranger's, so it is walked by hand instead of being made into a tree of values
 * first: what is kept is one row per tensor, and there is nothing to recurse into.  Stricter than
 * the format's own library, which takes unknown members and lets the last of two tensors of one
 * name win: whoever accepts such a file does not know what is in it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "store/cut.h"

#define HEAD_LENGTH 8
#define HEAD_MAX 100000000    /* the library's own limit */
#define TENSORS_MAX (1 << 20) /* 160 bytes each; the largest models have some 100,000 */
#define METADATA "__metadata__"

_Static_assert(HEAD_MAX <= CUT_HEADER_MAX, "a header must fit into the head that a caller keeps");

/* Types below one byte (F4, F6_*) are left out: where such a tensor's rows begin is not a matter
 * of bytes. */
static const struct dtype {
    const char *name;
    int bytes;
} dtypes[] = {
    {"BOOL", 1},    {"U8", 1},          {"I8", 1},          {"F8_E4M3", 1}, {"F8_E5M2", 1},
    {"F8_E8M0", 1}, {"F8_E4M3FNUZ", 1}, {"F8_E5M2FNUZ", 1}, {"U16", 2},     {"I16", 2},
    {"F16", 2},     {"BF16", 2},        {"U32", 4},         {"I32", 4},     {"F32", 4},
    {"U64", 8},     {"I64", 8},         {"F64", 8},         {"C64", 8},
};

struct tensor {
    struct tensor_span span; /* off counts from the end of the JSON until the end */
    size_t name;             /* where it starts in walk.names */
    const char *text;        /* the same as a pointer, once names no longer grow */
};

struct walk {
    const uint8_t *p;
    size_t n, at;     /* in the JSON */
    struct buf names; /* each ends in a NUL */
    struct buf word;  /* keys and values that are looked at once */
    struct tensor *tensors;
    size_t count, cap;
    bool metadata_seen;
    struct err *err;
};

static enum err_code bad(struct walk *w, const char *why)
{
    return err_set(w->err, ERR_INPUT, "safetensors header, byte %zu: %s", w->at + HEAD_LENGTH, why);
}

#define SHOWN_MAX 100
static enum err_code bad_tensor(struct walk *w, const char *name, const char *why)
{
    return err_set(w->err, ERR_INPUT, "safetensors header, tensor \"%.*s\": %s", SHOWN_MAX, name,
                   why);
}

/* ---- JSON, as much as the format has ---- */

static bool is_space(uint8_t b)
{
    return b == ' ' || b == '\t' || b == '\n' || b == '\r';
}

static void skip_space(struct walk *w)
{
    while (w->at < w->n && is_space(w->p[w->at]))
        w->at++;
}

static bool at_char(struct walk *w, char c)
{
    skip_space(w);
    return w->at < w->n && w->p[w->at] == (uint8_t)c;
}

static enum err_code expect(struct walk *w, char c)
{
    char why[] = "expected ' '";

    if (at_char(w, c)) {
        w->at++;
        return OK;
    }
    why[sizeof(why) - 3] = c;
    return bad(w, why);
}

/* After an item: a comma (*more), or what closes the list. */
static enum err_code next_item(struct walk *w, char close, bool *more)
{
    *more = at_char(w, ',');
    if (!*more)
        return expect(w, close);
    w->at++;
    return OK;
}

/* Four hex digits after \u. */
static enum err_code read_unit(struct walk *w, uint32_t *out)
{
    uint32_t v = 0;

    for (int i = 0; i < 4; i++, w->at++) {
        const int c = w->at < w->n ? w->p[w->at] : 0;

        if (c >= '0' && c <= '9')
            v = v << 4 | (uint32_t)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            v = v << 4 | (uint32_t)((c | 0x20) - 'a' + 10);
        else
            return bad(w, "expected four hex digits");
    }
    *out = v;
    return OK;
}

static void put_utf8(struct buf *out, uint32_t c)
{
    const char b[4] = {(char)(c >> 18), (char)(c >> 12 & 0x3f), (char)(c >> 6 & 0x3f),
                       (char)(c & 0x3f)};
    const int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};

    if (n == 1) {
        buf_char(out, (char)c);
        return;
    }
    buf_char(out, (char)(lead[n] | (unsigned char)b[4 - n]));
    for (int i = 5 - n; i < 4; i++)
        buf_char(out, (char)(0x80 | (unsigned char)b[i]));
}

static enum err_code read_escape(struct walk *w, struct buf *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *which = NULL;
    uint32_t high, low;

    if (w->at < w->n && w->p[w->at])
        which = strchr(from, w->p[w->at]);
    if (which) {
        buf_char(out, to[which - from]);
        w->at++;
        return OK;
    }
    if (w->at >= w->n || w->p[w->at] != 'u')
        return bad(w, "no such escape");
    w->at++;

    enum err_code rc = read_unit(w, &high);

    if (rc)
        return rc;
    if (high == 0)
        return bad(w, "NUL in a string");
    if (high < 0xd800 || high > 0xdfff) {
        put_utf8(out, high);
        return OK;
    }
    if (high > 0xdbff || w->n - w->at < 2 || memcmp(w->p + w->at, "\\u", 2) != 0)
        return bad(w, "half a surrogate pair");
    w->at += 2;
    rc = read_unit(w, &low);
    if (rc)
        return rc;
    if (low < 0xdc00 || low > 0xdfff)
        return bad(w, "half a surrogate pair");
    put_utf8(out, 0x10000 + ((high - 0xd800) << 10 | (low - 0xdc00)));
    return OK;
}

/* The length of the UTF-8 character at p[0..n), 0 when it is none (overlong forms and surrogates
 * included). */
static size_t utf8_length(const uint8_t *p, size_t n)
{
    const uint8_t b = p[0];
    const size_t length = b < 0x80   ? 1
                          : b < 0xc2 ? 0
                          : b < 0xe0 ? 2
                          : b < 0xf0 ? 3
                          : b < 0xf5 ? 4
                                     : 0;

    if (length > n)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((b == 0xe0 && p[1] < 0xa0) || (b == 0xed && p[1] > 0x9f) || (b == 0xf0 && p[1] < 0x90) ||
        (b == 0xf4 && p[1] > 0x8f))
        return 0;
    return length;
}

/* Appends the string and a NUL. */
static enum err_code read_string(struct walk *w, struct buf *out)
{
    enum err_code rc = expect(w, '"');

    while (!rc) {
        if (w->at >= w->n)
            return bad(w, "the string does not end");

        const uint8_t b = w->p[w->at];

        if (b == '"')
            break;
        if (b == '\\') {
            w->at++;
            rc = read_escape(w, out);
            continue;
        }

        const size_t length = utf8_length(w->p + w->at, w->n - w->at);

        if (b < 0x20 || length == 0)
            return bad(w, b < 0x20 ? "control character in a string" : "not UTF-8");
        buf_add(out, w->p + w->at, length);
        w->at += length;
    }
    if (rc)
        return rc;
    w->at++;
    buf_char(out, '\0');
    return buf_check(out, "safetensors header", w->err);
}

/* A key and its colon, or any string without one, into w->word. */
static enum err_code read_word(struct walk *w)
{
    buf_clear(&w->word);
    return read_string(w, &w->word);
}

/* A whole number from 0 on, without sign, fraction, exponent or leading zeros. */
static enum err_code read_integer(struct walk *w, int64_t *out)
{
    int64_t v = 0;
    size_t first;

    skip_space(w);
    for (first = w->at; w->at < w->n && w->p[w->at] >= '0' && w->p[w->at] <= '9'; w->at++) {
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, w->p[w->at] - '0', &v))
            return bad(w, "number too large");
    }
    if (w->at == first || (w->p[first] == '0' && w->at > first + 1))
        return bad(w, "expected a whole number");
    *out = v;
    return OK;
}

/* Up to max numbers between brackets. */
static enum err_code read_integers(struct walk *w, int64_t *out, int max, int *count)
{
    enum err_code rc = expect(w, '[');
    bool more = true;

    *count = 0;
    if (!rc && at_char(w, ']')) {
        w->at++;
        return OK;
    }
    while (!rc && more) {
        if (*count == max)
            return bad(w, "too many numbers");
        rc = read_integer(w, &out[*count]);
        if (!rc) {
            ++*count;
            rc = next_item(w, ']', &more);
        }
    }
    return rc;
}

/* ---- the header ---- */

static enum err_code read_metadata(struct walk *w)
{
    enum err_code rc = expect(w, '{');
    bool more = true;

    if (w->metadata_seen)
        return bad(w, "two members " METADATA);
    w->metadata_seen = true;
    if (!rc && at_char(w, '}')) {
        w->at++;
        return OK;
    }
    while (!rc && more) {
        rc = read_word(w);
        if (!rc)
            rc = expect(w, ':');
        if (!rc)
            rc = read_word(w);
        if (!rc)
            rc = next_item(w, '}', &more);
    }
    return rc;
}

static enum err_code read_dtype(struct walk *w, struct tensor_span *span)
{
    enum err_code rc = read_word(w);

    if (rc)
        return rc;
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
        if (strcmp(dtypes[i].name, w->word.p) == 0) {
            memcpy(span->dtype, dtypes[i].name, strlen(dtypes[i].name) + 1);
            return OK;
        }
    return bad(w, "unknown dtype");
}

static enum err_code read_offsets(struct walk *w, struct tensor_span *span)
{
    int64_t offsets[2];
    int count;
    enum err_code rc = read_integers(w, offsets, 2, &count);

    if (rc)
        return rc;
    if (count != 2 || offsets[0] > offsets[1])
        return bad(w, "data_offsets are not begin and end");
    span->off = offsets[0];
    span->len = offsets[1] - offsets[0];
    return OK;
}

enum { MEMBER_DTYPE = 1, MEMBER_SHAPE = 2, MEMBER_OFFSETS = 4, MEMBER_ALL = 7 };

static enum err_code read_member(struct walk *w, struct tensor_span *span, int *seen)
{
    enum err_code rc = read_word(w);
    int member = 0;

    if (rc)
        return rc;
    if (strcmp(w->word.p, "dtype") == 0)
        member = MEMBER_DTYPE;
    else if (strcmp(w->word.p, "shape") == 0)
        member = MEMBER_SHAPE;
    else if (strcmp(w->word.p, "data_offsets") == 0)
        member = MEMBER_OFFSETS;
    if (!member || *seen & member)
        return bad(w, member ? "member given twice" : "unknown member of a tensor");
    *seen |= member;
    rc = expect(w, ':');
    if (rc)
        return rc;
    if (member == MEMBER_DTYPE)
        return read_dtype(w, span);
    if (member == MEMBER_OFFSETS)
        return read_offsets(w, span);
    return read_integers(w, span->shape, sizeof(span->shape) / sizeof(span->shape[0]), &span->rank);
}

/* Do shape and dtype give exactly the span's bytes? */
static bool fits(const struct tensor_span *span)
{
    int64_t bytes = 1;

    for (int i = 0; i < span->rank; i++)
        if (__builtin_mul_overflow(bytes, span->shape[i], &bytes))
            return false;
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
        if (strcmp(dtypes[i].name, span->dtype) == 0)
            return !__builtin_mul_overflow(bytes, dtypes[i].bytes, &bytes) && bytes == span->len;
    return false;
}

static enum err_code read_tensor(struct walk *w, size_t name)
{
    struct tensor_span span = {0};
    enum err_code rc = expect(w, '{');
    bool more = true;
    int seen = 0;

    while (!rc && more) {
        rc = read_member(w, &span, &seen);
        if (!rc)
            rc = next_item(w, '}', &more);
    }
    if (rc)
        return rc;
    if (seen != MEMBER_ALL)
        return bad_tensor(w, w->names.p + name, "dtype, shape or data_offsets is missing");
    if (!fits(&span))
        return bad_tensor(w, w->names.p + name, "shape and dtype do not give its data_offsets");
    if (w->count == TENSORS_MAX)
        return err_set(w->err, ERR_LIMIT, "safetensors header: more than %d tensors", TENSORS_MAX);
    if (w->count == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 64;
        w->tensors = mem_grow(w->tensors, w->cap, sizeof(*w->tensors));
    }
    w->tensors[w->count++] = (struct tensor){.span = span, .name = name};
    return OK;
}

static enum err_code read_header(struct walk *w)
{
    enum err_code rc =
        w->n > 0 && w->p[0] == '{' ? expect(w, '{') : bad(w, "does not start with {");
    bool more = true;

    if (!rc && at_char(w, '}')) {
        w->at++;
        more = false;
    }
    while (!rc && more) {
        const size_t name = w->names.n;

        rc = read_string(w, &w->names);
        if (!rc)
            rc = expect(w, ':');
        if (rc)
            break;
        if (strcmp(w->names.p + name, METADATA) == 0) {
            w->names.n = name;
            rc = read_metadata(w);
        } else {
            rc = read_tensor(w, name);
        }
        if (!rc)
            rc = next_item(w, '}', &more);
    }
    skip_space(w);
    if (!rc && w->at < w->n)
        rc = bad(w, "something follows the header");
    return rc;
}

/* ---- the table ---- */

static int by_name(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;

    return strcmp(x->text, y->text);
}

/* Empty tensors share their offset with the next one: they come first, by name, so that the order
 * is one. */
static int by_offset(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;

    if (x->span.off != y->span.off)
        return x->span.off < y->span.off ? -1 : 1;
    if (x->span.len != y->span.len)
        return x->span.len < y->span.len ? -1 : 1;
    return by_name(a, b);
}

static enum err_code check_table(struct walk *w, int64_t data_bytes)
{
    int64_t end = 0;

    for (size_t i = 0; i < w->count; i++)
        w->tensors[i].text = w->names.p + w->tensors[i].name;
    if (w->count > 0)
        qsort(w->tensors, w->count, sizeof(*w->tensors), by_name);
    for (size_t i = 1; i < w->count; i++)
        if (by_name(&w->tensors[i - 1], &w->tensors[i]) == 0)
            return bad_tensor(w, w->tensors[i].text, "there are two of that name");
    if (w->count > 0)
        qsort(w->tensors, w->count, sizeof(*w->tensors), by_offset);
    for (size_t i = 0; i < w->count; i++) {
        const struct tensor_span *span = &w->tensors[i].span;

        if (span->off != end)
            return bad_tensor(w, w->tensors[i].text,
                              span->off > end ? "a hole before it" : "overlaps another");
        end += span->len; /* no overflow: read_offsets has seen this sum as a number */
    }
    if (end != data_bytes)
        return err_set(w->err, ERR_INPUT, "safetensors: tensors end at %lld of %lld data bytes",
                       (long long)end, (long long)data_bytes);
    return OK;
}

static void give(const struct walk *w, int64_t data_at, char ***names, struct tensor_span **spans)
{
    const size_t pointers = (w->count + 1) * sizeof(char *);
    char **list = mem_alloc(pointers + w->names.n);
    char *text = (char *)list + pointers;

    if (w->names.n)
        memcpy(text, w->names.p, w->names.n);
    *spans = mem_zero(w->count, sizeof(**spans));
    for (size_t i = 0; i < w->count; i++) {
        list[i] = text + w->tensors[i].name;
        (*spans)[i] = w->tensors[i].span;
        (*spans)[i].off += data_at;
    }
    list[w->count] = NULL;
    *names = list;
}

enum err_code safetensors_list(const void *head, size_t head_n, int64_t file_size, char ***names,
                               struct tensor_span **spans, size_t *count, struct err *err)
{
    const uint8_t *p = head;
    struct walk w = {.err = err};
    uint64_t n = 0;
    enum err_code rc;

    CHECK(head || head_n == 0);
    CHECK(names && spans && count);
    *names = NULL;
    *spans = NULL;
    *count = 0;
    for (size_t i = 0; i < HEAD_LENGTH && i < head_n; i++)
        n |= (uint64_t)p[i] << (8 * i);
    if (head_n < HEAD_LENGTH || n > HEAD_MAX || (int64_t)n > file_size - HEAD_LENGTH)
        return err_set(err, ERR_INPUT, "not a safetensors file: bad header length");
    if (n > head_n - HEAD_LENGTH)
        return err_set(err, ERR_INPUT, "safetensors header: %zu of %llu bytes are there",
                       head_n - HEAD_LENGTH, (unsigned long long)n);
    w.p = p + HEAD_LENGTH;
    w.n = (size_t)n;
    buf_init(&w.names, w.n);
    buf_init(&w.word, w.n);
    rc = read_header(&w);
    if (!rc)
        rc = check_table(&w, file_size - HEAD_LENGTH - (int64_t)n);
    if (!rc) {
        give(&w, HEAD_LENGTH + (int64_t)n, names, spans);
        *count = w.count;
    }
    buf_release(&w.names);
    buf_release(&w.word);
    free(w.tensors);
    return rc;
}

enum err_code safetensors_find(const void *head, size_t head_n, int64_t file_size, const char *name,
                               struct tensor_span *out, struct err *err)
{
    char **names;
    struct tensor_span *spans;
    size_t count, i;
    enum err_code rc;

    CHECK(name);
    CHECK(out);
    rc = safetensors_list(head, head_n, file_size, &names, &spans, &count, err);
    if (rc)
        return rc;
    for (i = 0; i < count && strcmp(names[i], name) != 0; i++)
        ;
    if (i < count) {
        *out = spans[i];
    } else {
        const char *near = str_nearest(name, (const char *const *)names, count);

        rc = err_set(err, ERR_NOT_FOUND, "no tensor \"%.*s\"%s%s%s", SHOWN_MAX, name,
                     near ? ": did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    }
    free(names);
    free(spans);
    return rc;
}
