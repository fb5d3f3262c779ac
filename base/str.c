#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct str str_of(const char *cstring)
{
    CHECK(cstring);
    return (struct str){cstring, strlen(cstring)};
}

bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

int str_cmp(struct str a, struct str b)
{
    const size_t n = a.n < b.n ? a.n : b.n;
    const int order = n ? memcmp(a.p, b.p, n) : 0;

    if (order)
        return order;
    return (a.n > b.n) - (a.n < b.n);
}

bool str_starts(struct str s, struct str prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

void buf_init(struct buf *b, size_t max)
{
    CHECK(b);
    CHECK(max < SIZE_MAX / 2); /* room for the NUL, and doubling cannot overflow */
    *b = (struct buf){.max = max};
}

void buf_release(struct buf *b)
{
    CHECK(b);
    free(b->p);
    *b = (struct buf){.max = b->max};
}

void buf_clear(struct buf *b)
{
    CHECK(b);
    b->n = 0;
    b->failed = false;
    if (b->p)
        b->p[0] = '\0';
}

/* Room for n more bytes and the NUL, or false and the buffer remembers. */
static bool reserve(struct buf *b, size_t n)
{
    CHECK(b);
    CHECK(b->n <= b->max);
    if (b->failed || n > b->max - b->n) {
        b->failed = true;
        return false;
    }
    if (b->p && b->n + n < b->cap)
        return true;

    size_t cap = b->cap < 64 ? 64 : b->cap * 2;

    if (cap > b->max + 1)
        cap = b->max + 1;
    if (cap < b->n + n + 1)
        cap = b->n + n + 1;

    char *p = realloc(b->p, cap);

    if (!p) {
        b->failed = true;
        return false;
    }
    b->p = p;
    b->cap = cap;
    return true;
}

void *buf_room(struct buf *b, size_t n)
{
    if (!reserve(b, n))
        return NULL;

    void *room = b->p + b->n;

    b->n += n;
    b->p[b->n] = '\0';
    return room;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
    void *room = buf_room(b, n);

    if (room && n)
        memcpy(room, p, n);
}

void buf_str(struct buf *b, const char *cstring)
{
    CHECK(cstring);
    buf_add(b, cstring, strlen(cstring));
}

void buf_char(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
    va_list again;

    va_copy(again, ap);
    const int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    CHECK(n >= 0);
    if (!reserve(b, (size_t)n))
        return;
    CHECK(vsnprintf(b->p + b->n, (size_t)n + 1, fmt, ap) == n);
    b->n += (size_t)n;
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    buf_vprintf(b, fmt, ap);
    va_end(ap);
}

enum err_code buf_check(const struct buf *b, const char *what, struct err *err)
{
    CHECK(b);
    if (b->failed)
        return err_set(err, ERR_LIMIT, "%s: longer than %zu bytes", what, b->max);
    return OK;
}

char *buf_take(struct buf *b)
{
    CHECK(b);
    char *p = b->p;

    if (!p) {
        p = mem_alloc(1);
        p[0] = '\0';
    }
    *b = (struct buf){.max = b->max};
    return p;
}

#define SHOWN(s) (int)((s).n < 60 ? (s).n : 60), (s).p

/* Digits only, at least one.  False past INT64_MAX as a magnitude of 2^63 - 1 (or 2^63 when
 * negative), which is why it counts downwards: the negative range is the longer one. */
static bool parse_digits(struct str s, bool negative, int64_t *out, bool *overflow)
{
    int64_t v = 0;

    *overflow = false;
    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_sub_overflow(v, s.p[i] - '0', &v))
            *overflow = true;
    }
    if (!negative && __builtin_sub_overflow((int64_t)0, v, &v))
        *overflow = true;
    *out = v;
    return true;
}

enum err_code str_to_i64(struct str s, int64_t min, int64_t max, int64_t *out, struct err *err)
{
    const bool negative = s.n > 0 && s.p[0] == '-';
    const struct str digits = {s.p + negative, s.n - negative};
    bool overflow;
    int64_t v;

    CHECK(out);
    CHECK(min <= max);
    if (!parse_digits(digits, negative, &v, &overflow))
        return err_set(err, ERR_INPUT, "\"%.*s\" is not an integer", SHOWN(s));
    if (overflow || v < min || v > max)
        return err_set(err, ERR_INPUT, "%.*s is not between %lld and %lld", SHOWN(s),
                       (long long)min, (long long)max);
    *out = v;
    return OK;
}

struct unit {
    const char *suffix;
    int64_t factor;
};

/* Digits and exactly one of the units. */
static enum err_code parse_unit(struct str s, const struct unit *units, size_t count,
                                const char *example, int64_t *out, struct err *err)
{
    size_t split = 0;
    bool overflow;
    int64_t v;

    while (split < s.n && s.p[split] >= '0' && s.p[split] <= '9')
        split++;

    const struct str digits = {s.p, split}, suffix = {s.p + split, s.n - split};

    for (size_t i = 0; i < count; i++) {
        if (!str_eq(suffix, str_of(units[i].suffix)))
            continue;
        if (!parse_digits(digits, false, &v, &overflow))
            break;
        if (overflow || __builtin_mul_overflow(v, units[i].factor, &v))
            return err_set(err, ERR_INPUT, "%.*s is too large", SHOWN(s));
        *out = v;
        return OK;
    }
    return err_set(err, ERR_INPUT, "\"%.*s\" is not %s", SHOWN(s), example);
}

enum err_code str_to_bytes(struct str s, int64_t *out, struct err *err)
{
    static const struct unit units[] = {{"", 1},
                                        {"KiB", (int64_t)1 << 10},
                                        {"MiB", (int64_t)1 << 20},
                                        {"GiB", (int64_t)1 << 30},
                                        {"TiB", (int64_t)1 << 40}};

    CHECK(out);
    return parse_unit(s, units, sizeof(units) / sizeof(units[0]),
                      "a size; write a whole number and KiB, MiB, GiB, TiB or nothing", out, err);
}

enum err_code str_to_seconds(struct str s, int64_t *out, struct err *err)
{
    static const struct unit units[] = {{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};

    CHECK(out);
    return parse_unit(s, units, sizeof(units) / sizeof(units[0]),
                      "a duration; write a whole number and s, m, h or d", out, err);
}

void str_from_bytes(int64_t bytes, char out[16])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    const double sign = bytes < 0 ? -1 : 1;
    double v = sign * (double)bytes;
    size_t unit = 0;

    /* 1023.95 would print as 1024.0, which belongs to the next unit. */
    for (; v >= (unit ? 1023.95 : 1024) && unit + 1 < sizeof(units) / sizeof(units[0]); unit++)
        v /= 1024;
    (void)snprintf(out, 16, unit ? "%.1f %s" : "%.0f %s", sign * v, units[unit]);
}

#define NEAREST_MAX 64 /* longer words are no typing mistakes of a name */

/* Edit distance with neighbours swapped counting once (optimal string alignment), because that is
 * how people mistype.  Three rows of the table are enough. */
static size_t distance(const char *a, size_t an, const char *b, size_t bn)
{
    size_t rows[3][NEAREST_MAX + 1];
    size_t *before = rows[0], *above = rows[1], *row = rows[2];

    for (size_t j = 0; j <= bn; j++)
        above[j] = j;
    for (size_t i = 1; i <= an; i++) {
        row[0] = i;
        for (size_t j = 1; j <= bn; j++) {
            size_t best = above[j - 1] + (a[i - 1] != b[j - 1]);

            if (above[j] + 1 < best)
                best = above[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
        }

        size_t *recycled = before;

        before = above;
        above = row;
        row = recycled;
    }
    return above[bn];
}

const char *str_nearest(const char *word, const char *const *candidates, size_t count)
{
    const size_t n = strlen(word);
    const char *nearest = NULL;
    size_t best = n / 3 > 1 ? n / 3 : 1;

    if (n > NEAREST_MAX)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        const size_t m = strlen(candidates[i]);

        if (m > NEAREST_MAX)
            continue;

        const size_t d = distance(word, n, candidates[i], m);

        if (nearest ? d < best : d <= best) {
            nearest = candidates[i];
            best = d;
        }
    }
    return nearest;
}

void *mem_alloc(size_t n)
{
    void *p = malloc(n ? n : 1);

    CHECK(p);
    return p;
}

void *mem_zero(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size ? size : 1);

    CHECK(p);
    return p;
}

void *mem_grow(void *p, size_t count, size_t size)
{
    size_t n;

    CHECK(!__builtin_mul_overflow(count, size, &n));
    p = realloc(p, n ? n : 1);
    CHECK(p);
    return p;
}

char *mem_strdup(const char *s)
{
    CHECK(s);
    return mem_strndup(s, strlen(s));
}

char *mem_strndup(const char *s, size_t n)
{
    char *copy = mem_alloc(n + 1);

    if (n)
        memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}
