/* Reading is jansson's, with our bounds in front.  Writing is ours, because a canonical form that
 * a library might change between versions would change names of stored things. */
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ----------------------------------------------------------------------------------- */

struct place {
    int line, column; /* 1-based, counted in bytes */
};

static struct place place_of(const char *p, size_t at)
{
    struct place place = {1, 1};

    for (size_t i = 0; i < at; i++) {
        place.column++;
        if (p[i] == '\n') {
            place.line++;
            place.column = 1;
        }
    }
    return place;
}

/* JSON has no zero byte anywhere, but jansson (2.14) overlooks one behind a number. */
static enum err_code check_zero(const char *p, size_t n, const char *what, struct err *err)
{
    const char *zero = n ? memchr(p, '\0', n) : NULL;

    if (!zero)
        return OK;

    const struct place at = place_of(p, (size_t)(zero - p));

    return err_set(err, ERR_INPUT, "%s: %d:%d: zero byte", what, at.line, at.column);
}

/* Brackets outside strings, counted before the parser recurses.  In text that is not JSON the
 * count may be off, but then the parser refuses it anyway. */
static enum err_code check_depth(const char *p, size_t n, const char *what, struct err *err)
{
    int depth = 0;
    bool in_string = false;

    for (size_t i = 0; i < n; i++) {
        const char c = p[i];

        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > JSON_DEPTH_MAX) {
                const struct place at = place_of(p, i);

                return err_set(err, ERR_LIMIT, "%s: %d:%d: nested deeper than %d", what, at.line,
                               at.column, JSON_DEPTH_MAX);
            }
        } else if (c == ']' || c == '}') {
            depth--;
        }
    }
    return OK;
}

static enum err_code refuse_text(const json_error_t *found, const char *what, struct err *err)
{
    const enum json_error_code code = json_error_code(found);
    const bool zero = code == json_error_null_character || code == json_error_null_byte_in_key;

    /* jansson's column is that of the last byte it read, 0 before the first; its words about
     * zeros speak of its own options. */
    return err_set(err, ERR_INPUT, "%s: %d:%d: %s", what, found->line > 0 ? found->line : 1,
                   found->column > 0 ? found->column : 1,
                   zero ? "\\u0000 in a string" : found->text);
}

enum err_code json_parse(const char *p, size_t n, size_t bytes_max, const char *what, json_t **out,
                         struct err *err)
{
    json_error_t found;
    enum err_code rc;

    CHECK(p || n == 0);
    CHECK(what);
    CHECK(out);
    *out = NULL;
    if (n > bytes_max)
        return err_set(err, ERR_LIMIT, "%s: longer than %zu bytes", what, bytes_max);
    rc = check_zero(p, n, what, err);
    if (!rc)
        rc = check_depth(p, n, what, err);
    if (rc)
        return rc;
    *out = json_loadb(n ? p : "", n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &found);
    return *out ? OK : refuse_text(&found, what, err);
}

/* ---- numbers ----------------------------------------------------------------------------------- */

#define INTEGER_MAX ((int64_t)1 << 53) /* past it doubles, and so other readers, skip integers */

/* ECMA-262 Number::toString, which RFC 8785 section 3.2.2.3 asks for: first the digits and the
 * place of the decimal point, then one of four layouts. */
struct decimal {
    char digits[20];
    int count; /* of digits; ECMA-262 calls it k */
    int point; /* the value is 0.DIGITS * 10^point; ECMA-262 calls it n */
};

static bool reads_back(uint64_t digits, int exponent, double v)
{
    char text[40];

    (void)snprintf(text, sizeof(text), "%llue%d", (unsigned long long)digits, exponent);
    return strtod(text, NULL) == v;
}

/* The fewest digits that read back as v > 0, and among those the nearest to v.  printf gives the
 * nearest for each count of digits.  Only where v is a power of two is that not enough: doubles
 * lie half as far apart below it as above, so the nearest, if below, may read back as another
 * double while the next one up does not (2^-44 is such a case). */
static struct decimal decimal_of(double v)
{
    struct decimal d = {.count = 0};
    int binary;
    const bool power_of_two = frexp(v, &binary) == 0.5;

    for (int count = 1; count <= 17; count++) {
        char text[40], *end;
        uint64_t digits = 0;
        int at = 0;

        (void)snprintf(text, sizeof(text), "%.*e", count - 1, v);
        for (; text[at] != 'e'; at++)
            if (text[at] != '.')
                digits = digits * 10 + (uint64_t)(text[at] - '0');

        const int exponent = (int)strtol(text + at + 1, &end, 10) - (count - 1);
        bool found = reads_back(digits, exponent, v);

        if (!found && power_of_two)
            found = reads_back(++digits, exponent, v);
        if (!found)
            continue;
        d.count = snprintf(d.digits, sizeof(d.digits), "%llu", (unsigned long long)digits);
        d.point = exponent + d.count;
        break;
    }
    CHECK(d.count > 0); /* 17 digits always do */
    return d;
}

void json_canonical_number(double v, char out[32])
{
    CHECK(isfinite(v));
    if (v == 0) { /* and -0 */
        memcpy(out, "0", 2);
        return;
    }
    if (v < 0)
        *out++ = '-';

    const struct decimal d = decimal_of(fabs(v));
    const int k = d.count, n = d.point;
    char text[80];
    int size;

    if (k <= n && n <= 21)
        size = snprintf(text, sizeof(text), "%s%.*s", d.digits, n - k, "00000000000000000000");
    else if (0 < n && n < k)
        size = snprintf(text, sizeof(text), "%.*s.%s", n, d.digits, d.digits + n);
    else if (-6 < n && n <= 0)
        size = snprintf(text, sizeof(text), "0.%.*s%s", -n, "00000", d.digits);
    else
        size = snprintf(text, sizeof(text), "%c%s%se%+d", d.digits[0], k > 1 ? "." : "",
                        d.digits + 1, n - 1);
    CHECK(size > 0);
    CHECK(size <= 30); /* -2.2250738585072014e-308 has 24, with the sign already written */
    memcpy(out, text, (size_t)size + 1);
}

/* ---- strings ----------------------------------------------------------------------------------- */

/* What follows the backslash for bytes that must be escaped; 'u' stands for \u00XX. */
static char escape_of(unsigned char c)
{
    switch (c) {
    case '"':
    case '\\':
        return (char)c;
    case '\b':
        return 'b';
    case '\t':
        return 't';
    case '\n':
        return 'n';
    case '\f':
        return 'f';
    case '\r':
        return 'r';
    default:
        return c < 0x20 ? 'u' : '\0';
    }
}

void json_canonical_string(struct buf *out, const char *utf8, size_t n)
{
    size_t plain = 0; /* where the bytes not yet written start */

    CHECK(utf8 || n == 0);
    if (n == 0)
        utf8 = "";
    buf_char(out, '"');
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)utf8[i];
        const char escape = escape_of(c);

        if (!escape)
            continue;
        buf_add(out, utf8 + plain, i - plain);
        plain = i + 1;
        buf_char(out, '\\');
        buf_char(out, escape);
        if (escape == 'u')
            buf_printf(out, "%04x", c);
    }
    buf_add(out, utf8 + plain, n - plain);
    buf_char(out, '"');
}

/* ---- values ------------------------------------------------------------------------------------ */

struct member {
    const char *key;
    const json_t *value;
};

/* By UTF-16 code units, compared in UTF-8.  The two orders differ in one place only: characters
 * past U+FFFF, which start with F0 and up here, are surrogates D800..DFFF there, and so come
 * before U+E000..U+FFFF, which start with EE and EF here.  Those four are never inner bytes. */
static int by_key(const void *a, const void *b)
{
    const unsigned char *x = (const unsigned char *)((const struct member *)a)->key;
    const unsigned char *y = (const unsigned char *)((const struct member *)b)->key;

    while (*x && *x == *y) {
        x++;
        y++;
    }
    if (*x >= 0xee && *y >= 0xee && (*x >= 0xf0) != (*y >= 0xf0))
        return *x >= 0xf0 ? -1 : 1;
    return *x - *y;
}

/* jansson's iterators take a value that they could change; they do not. */
static json_t *unconst(const json_t *v)
{
    return (json_t *)(uintptr_t)v;
}

static enum err_code write_value(const json_t *v, int depth, struct buf *out, struct err *err);

static enum err_code write_object(const json_t *v, int depth, struct buf *out, struct err *err)
{
    const size_t count = json_object_size(v);
    struct member *members = mem_zero(count, sizeof(*members));
    enum err_code rc = OK;
    size_t n = 0;

    for (void *it = json_object_iter(unconst(v)); it; it = json_object_iter_next(unconst(v), it)) {
        CHECK(n < count);
        members[n].key = json_object_iter_key(it);
        members[n++].value = json_object_iter_value(it);
    }
    CHECK(n == count);
    qsort(members, count, sizeof(*members), by_key);
    buf_char(out, '{');
    for (size_t i = 0; !rc && i < count; i++) {
        if (i > 0)
            buf_char(out, ',');
        json_canonical_string(out, members[i].key, strlen(members[i].key));
        buf_char(out, ':');
        rc = write_value(members[i].value, depth, out, err);
    }
    buf_char(out, '}');
    free(members);
    return rc;
}

static enum err_code write_array(const json_t *v, int depth, struct buf *out, struct err *err)
{
    enum err_code rc = OK;

    buf_char(out, '[');
    for (size_t i = 0; !rc && i < json_array_size(v); i++) {
        if (i > 0)
            buf_char(out, ',');
        rc = write_value(json_array_get(v, i), depth, out, err);
    }
    buf_char(out, ']');
    return rc;
}

static enum err_code refuse_integer(const char *digits, struct err *err)
{
    return err_set(err, ERR_INPUT, "integer %s is beyond 2^53, where JSON numbers are not exact",
                   digits);
}

static enum err_code write_integer(int64_t v, struct buf *out, struct err *err)
{
    char digits[24];

    (void)snprintf(digits, sizeof(digits), "%lld", (long long)v);
    if (v > INTEGER_MAX || v < -INTEGER_MAX)
        return refuse_integer(digits, err);
    buf_str(out, digits);
    return OK;
}

/* Between 2^53 and 1e21 every double is a whole number and is printed without an exponent, so a
 * reader takes it for an integer beyond 2^53.  It is refused here too: then whatever was written
 * reads back, and gives the same bytes again. */
static enum err_code write_real(double v, struct buf *out, struct err *err)
{
    char number[32];

    json_canonical_number(v, number);
    if (fabs(v) > (double)INTEGER_MAX && !strchr(number, 'e'))
        return refuse_integer(number, err);
    buf_str(out, number);
    return OK;
}

static enum err_code write_value(const json_t *v, int depth, struct buf *out, struct err *err)
{
    CHECK(v);
    if ((json_is_object(v) || json_is_array(v)) && depth == JSON_DEPTH_MAX)
        return err_set(err, ERR_LIMIT, "value nested deeper than %d", JSON_DEPTH_MAX);
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return write_object(v, depth + 1, out, err);
    case JSON_ARRAY:
        return write_array(v, depth + 1, out, err);
    case JSON_STRING:
        json_canonical_string(out, json_string_value(v), json_string_length(v));
        return OK;
    case JSON_INTEGER:
        return write_integer(json_integer_value(v), out, err);
    case JSON_REAL:
        return write_real(json_real_value(v), out, err);
    case JSON_TRUE:
        buf_str(out, "true");
        return OK;
    case JSON_FALSE:
        buf_str(out, "false");
        return OK;
    case JSON_NULL:
        buf_str(out, "null");
        return OK;
    }
    return err_set(err, ERR_BUG, "jansson has a new kind of value");
}

/* Take back what was appended since the buffer was n long. */
static void cut_back(struct buf *out, size_t n)
{
    out->n = n;
    if (out->p)
        out->p[n] = '\0';
}

enum err_code json_canonical(const json_t *v, struct buf *out, struct err *err)
{
    const size_t before = out->n;
    enum err_code rc = write_value(v, 0, out, err);

    if (!rc)
        rc = buf_check(out, "canonical JSON", err);
    if (rc)
        cut_back(out, before);
    return rc;
}

/* ---- members ----------------------------------------------------------------------------------- */

static enum err_code member(const json_t *o, const char *key, const char *what, const json_t **out,
                            struct err *err)
{
    if (!json_is_object(o))
        return err_set(err, ERR_INPUT, "%s: not an object", what);
    *out = json_object_get(o, key);
    if (!*out)
        return err_set(err, ERR_INPUT, "%s: \"%s\" is missing", what, key);
    return OK;
}

enum err_code json_get_string(const json_t *o, const char *key, const char *what, const char **out,
                              struct err *err)
{
    const json_t *v = NULL;
    const enum err_code rc = member(o, key, what, &v, err);

    if (rc)
        return rc;
    if (!json_is_string(v))
        return err_set(err, ERR_INPUT, "%s: \"%s\" is not a string", what, key);
    *out = json_string_value(v);
    return OK;
}

enum err_code json_get_i64(const json_t *o, const char *key, int64_t min, int64_t max,
                           const char *what, int64_t *out, struct err *err)
{
    const json_t *v = NULL;
    const enum err_code rc = member(o, key, what, &v, err);
    int64_t i;

    if (rc)
        return rc;
    if (json_is_integer(v)) {
        i = json_integer_value(v);
    } else {
        /* 1.0 and 1 are the same number and have the same canonical form. */
        const double real = json_is_real(v) ? json_real_value(v) : 0.5;

        if (fabs(real) > (double)INTEGER_MAX || real != trunc(real))
            return err_set(err, ERR_INPUT, "%s: \"%s\" is not an integer", what, key);
        i = (int64_t)real;
    }
    if (i < min || i > max)
        return err_set(err, ERR_INPUT, "%s: \"%s\" is %lld, not between %lld and %lld", what, key,
                       (long long)i, (long long)min, (long long)max);
    *out = i;
    return OK;
}

/* ---- file names -------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 character at p, or 0: no overlong forms, surrogates or values past U+10FFFF.
 * The table is The Unicode Standard's 3-7: beyond the lead byte only the second one is special. */
static size_t utf8_size(const unsigned char *p, size_t n)
{
    unsigned char low = 0x80, high = 0xbf;
    size_t size;

    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    size = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (p[0] == 0xe0)
        low = 0xa0;
    if (p[0] == 0xed)
        high = 0x9f;
    if (p[0] == 0xf0)
        low = 0x90;
    if (p[0] == 0xf4)
        high = 0x8f;
    if (n < size || p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < size; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return size;
}

void json_name_escape(struct buf *out, const char *name, size_t n)
{
    const unsigned char *p = (const unsigned char *)name;
    size_t i = 0;

    CHECK(name || n == 0);
    while (i < n) {
        const size_t size = utf8_size(p + i, n - i);

        if (size == 0 || p[i] < 0x20 || p[i] == 0x7f || p[i] == '%') {
            buf_printf(out, "%%%02X", p[i]);
            i++;
        } else {
            buf_add(out, p + i, size);
            i += size;
        }
    }
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Every %XX as its byte, whether it should be there or not.  False where one is broken, or NUL. */
static bool decode_name(struct buf *out, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] != '%') {
            buf_char(out, p[i]);
            continue;
        }
        if (n - i < 3)
            return false;

        const int high = hex_value(p[i + 1]), low = hex_value(p[i + 2]);

        if (high < 0 || low < 0 || (high | low) == 0)
            return false;
        buf_char(out, (char)(high << 4 | low));
        i += 2;
    }
    return true;
}

enum err_code json_name_unescape(struct buf *out, const char *escaped, size_t n, struct err *err)
{
    const size_t before = out->n;
    struct buf again;
    enum err_code rc = OK;

    CHECK(escaped || n == 0);
    buf_init(&again, n);

    /* Written out again it must be the same text: then no name has two forms. */
    bool good = decode_name(out, escaped, n);

    if (good && !out->failed) {
        /* An empty buffer has no bytes to point into. */
        json_name_escape(&again, out->p ? out->p + before : "", out->n - before);
        good = !again.failed && again.n == n && (n == 0 || memcmp(again.p, escaped, n) == 0);
    }
    if (!good)
        rc = err_set(err, ERR_INPUT, "name \"%.*s\": not the escaped form of a file name",
                     (int)(n < 200 ? n : 200), escaped);
    else
        rc = buf_check(out, "file name", err);
    if (rc)
        cut_back(out, before);
    buf_release(&again);
    return rc;
}
