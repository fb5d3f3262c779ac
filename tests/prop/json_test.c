/* Random numbers, values and names against slow models.  WEIR_SEED=N repeats a run; a failure
 * prints the seed. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/os.h"
#include "tests/check.h"

static uint64_t random_state;

static void seed(const char *what)
{
    const char *given = getenv("WEIR_SEED");

    random_state = given ? strtoull(given, NULL, 10) : 20260101;
    printf("%s: WEIR_SEED=%" PRIu64 "\n", what, random_state);
}

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t next(void)
{
    uint64_t z = (random_state += 0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static uint64_t below(uint64_t n)
{
    return next() % n;
}

/* Whole numbers that canonical JSON refuses. */
static bool refused(double v)
{
    return fabs(v) > 9007199254740992.0 && fabs(v) < 1e21;
}

/* Bits at random give mostly extreme exponents, so half come from a decimal range people use. */
static double random_double(void)
{
    for (;;) {
        const uint64_t bits = next();
        double v;

        if (bits & 1)
            return (double)(int64_t)next() / pow(10, (double)below(25));
        memcpy(&v, &bits, sizeof(v));
        if (isfinite(v))
            return v;
    }
}

static int digits_of(const char *text)
{
    int n = 0, trailing = 0;

    for (; *text && *text != 'e'; text++) {
        if (*text < '0' || *text > '9' || (n == 0 && *text == '0'))
            continue;
        n++;
        trailing = *text == '0' ? trailing + 1 : 0;
    }
    return n - trailing;
}

/* Is there a decimal of count digits that reads back as v?  Of all of them only the two around v
 * can, so those next to the rounded one are tried. */
static bool fits(double v, int count)
{
    char text[64], digits[32];

    snprintf(text, sizeof(text), "%.*e", count - 1, fabs(v));

    const int exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10) - (count - 1);
    int64_t rounded = 0;

    for (const char *c = text; *c != 'e'; c++)
        if (*c != '.')
            rounded = rounded * 10 + (*c - '0');
    for (int64_t d = rounded - 1; d <= rounded + 1; d++) {
        snprintf(digits, sizeof(digits), "%" PRId64 "e%d", d, exponent);
        if (strtod(digits, NULL) == fabs(v))
            return true;
    }
    return false;
}

static void expect_shortest(double v)
{
    char text[32];

    json_canonical_number(v, text);
    EXPECT(strtod(text, NULL) == v);
    EXPECT(strlen(text) < sizeof(text));

    const int count = digits_of(text);

    EXPECT(count <= 17);
    if (count > 1)
        EXPECT(!fits(v, count - 1));
}

TEST(numbers_read_back_and_are_shortest)
{
    seed("numbers");
    for (int i = 0; i < 20000; i++)
        expect_shortest(random_double());
    for (int exponent = -1074; exponent <= 1023; exponent++) {
        const double v = ldexp(1, exponent);

        expect_shortest(v);
        expect_shortest(-v);
        expect_shortest(nextafter(v, 0) == 0 ? v : nextafter(v, 0));
        expect_shortest(nextafter(v, 1e308));
    }
}

/* ---- values ------------------------------------------------------------------------------------ */

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* Few different characters, on both sides of every border that the order of keys has. */
static uint32_t random_character(void)
{
    static const uint32_t characters[] = {1,      ' ',     '"',     'a',     'b',    0x7f,
                                          0x80,   0x7ff,   0x800,   0xd7ff,  0xe000, 0xfffd,
                                          0xffff, 0x10000, 0x1f600, 0x10ffff};

    return characters[below(sizeof(characters) / sizeof(characters[0]))];
}

#define KEY_CHARACTERS 4

static void random_text(char out[4 * KEY_CHARACTERS + 1])
{
    size_t n = 0;

    for (uint64_t i = below(KEY_CHARACTERS + 1); i > 0; i--)
        n += put_utf8(out + n, random_character());
    out[n] = '\0';
}

static json_t *random_value(int depth)
{
    char text[4 * KEY_CHARACTERS + 1];
    double real = random_double();
    json_t *v;

    switch (below(depth > 0 ? 8 : 6)) {
    case 0:
        return json_null();
    case 1:
        return json_boolean(below(2));
    case 2:
        return json_integer((json_int_t)(next() >> 11) * (below(2) ? 1 : -1));
    case 3:
        while (refused(real))
            real = random_double();
        return json_real(real);
    case 4:
    case 5:
        random_text(text);
        return json_string(text);
    case 6:
        v = json_array();
        for (uint64_t i = below(5); i > 0; i--)
            json_array_append_new(v, random_value(depth - 1));
        return v;
    default:
        v = json_object();
        for (uint64_t i = below(8); i > 0; i--) {
            random_text(text);
            json_object_set_new(v, text, random_value(depth - 1));
        }
        return v;
    }
}

static json_t *shuffled(json_t *v)
{
    const char *keys[8];
    const char *key;
    json_t *member, *out = json_object();
    size_t n = 0;

    json_object_foreach(v, key, member) keys[n++] = key;
    while (n > 0) {
        const size_t i = below(n);

        json_object_set(out, keys[i], json_object_get(v, keys[i]));
        keys[i] = keys[--n];
    }
    return out;
}

TEST(canonical_form_does_not_depend_on_how_the_value_came)
{
    struct err err = ERR_INIT;
    struct buf a, b;

    seed("values");
    buf_init(&a, 1 << 20);
    buf_init(&b, 1 << 20);
    for (int i = 0; i < 3000; i++) {
        json_t *v = random_value(4), *again;

        buf_clear(&a);
        buf_clear(&b);
        EXPECT_OK(json_canonical(v, &a, &err), &err);
        EXPECT_OK(json_parse(a.p, a.n, 1 << 20, "again", &again, &err), &err);
        EXPECT_OK(json_canonical(again, &b, &err), &err);
        EXPECT_STR(a.p, b.p);
        json_decref(again);
        if (json_is_object(v)) {
            again = shuffled(v);
            buf_clear(&b);
            EXPECT_OK(json_canonical(again, &b, &err), &err);
            EXPECT_STR(a.p, b.p);
            json_decref(again);
        }
        json_decref(v);
    }
    buf_release(&a);
    buf_release(&b);
}

TEST(a_number_is_refused_or_reads_back_to_the_same_text)
{
    struct err err = ERR_INIT;
    struct buf a, b;

    seed("numbers as values");
    buf_init(&a, 100);
    buf_init(&b, 100);
    for (int i = 0; i < 20000; i++) {
        json_t *v = json_real(random_double()), *again;

        buf_clear(&a);
        buf_clear(&b);
        EXPECT_EQ(json_canonical(v, &a, &err), refused(json_real_value(v)) ? ERR_INPUT : OK);
        if (a.n > 0) {
            EXPECT_OK(json_parse(a.p, a.n, 100, "number", &again, &err), &err);
            EXPECT_OK(json_canonical(again, &b, &err), &err);
            EXPECT_STR(a.p, b.p);
            EXPECT(json_number_value(again) == json_real_value(v));
            json_decref(again);
        }
        json_decref(v);
    }
    buf_release(&a);
    buf_release(&b);
}

/* The model: as UTF-16, compared unit by unit. */
static size_t utf16_of(const char *s, uint16_t *out)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t n = 0;

    while (*p) {
        const int size = *p < 0x80 ? 1 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4;
        uint32_t c = size == 1 ? *p : *p & (0x7f >> size);

        for (int i = 1; i < size; i++)
            c = c << 6 | (p[i] & 0x3f);
        p += size;
        if (c >= 0x10000) {
            out[n++] = (uint16_t)(0xd800 + ((c - 0x10000) >> 10));
            out[n++] = (uint16_t)(0xdc00 + ((c - 0x10000) & 0x3ff));
        } else {
            out[n++] = (uint16_t)c;
        }
    }
    return n;
}

static bool utf16_less(const char *a, const char *b)
{
    uint16_t x[2 * KEY_CHARACTERS], y[2 * KEY_CHARACTERS];
    const size_t n = utf16_of(a, x), m = utf16_of(b, y);

    for (size_t i = 0; i < n && i < m; i++)
        if (x[i] != y[i])
            return x[i] < y[i];
    return n < m;
}

TEST(members_are_in_the_order_of_utf16)
{
    struct err err = ERR_INIT;
    struct buf expected, got;

    seed("keys");
    buf_init(&expected, 1000);
    buf_init(&got, 1000);
    for (int i = 0; i < 20000; i++) {
        char a[4 * KEY_CHARACTERS + 1], b[4 * KEY_CHARACTERS + 1];

        random_text(a);
        random_text(b);
        if (strcmp(a, b) == 0)
            continue;

        json_t *o = json_pack("{s:i, s:i}", a, 0, b, 0);
        const char *first = utf16_less(a, b) ? a : b, *second = first == a ? b : a;

        buf_clear(&expected);
        buf_clear(&got);
        buf_char(&expected, '{');
        json_canonical_string(&expected, first, strlen(first));
        buf_str(&expected, ":0,");
        json_canonical_string(&expected, second, strlen(second));
        buf_str(&expected, ":0}");
        EXPECT_OK(json_canonical(o, &got, &err), &err);
        EXPECT_STR(got.p, expected.p);
        json_decref(o);
    }
    buf_release(&expected);
    buf_release(&got);
}

/* ---- names ------------------------------------------------------------------------------------- */

/* Bytes that matter to UTF-8 and to the escapes, in any order. */
static size_t random_name(char *out, size_t max)
{
    static const unsigned char bytes[] = {'a',  '%',  '2',  '5',  'F',  0x0a, 0x7f, 0x80,
                                          0x9f, 0xa0, 0xbf, 0xc0, 0xc2, 0xe0, 0xed, 0xef,
                                          0xf0, 0xf4, 0xf5, 0xff, 'C',  '3'};
    const size_t n = below(max + 1);

    for (size_t i = 0; i < n; i++)
        out[i] = (char)bytes[below(sizeof(bytes))];
    return n;
}

TEST(names_and_their_escaped_forms_are_one_to_one)
{
    struct err err = ERR_INIT;
    struct buf a, b;
    int accepted = 0;

    seed("names");
    buf_init(&a, 1000);
    buf_init(&b, 1000);
    for (int i = 0; i < 50000; i++) {
        char name[8];
        const size_t n = random_name(name, sizeof(name));

        buf_clear(&a);
        buf_clear(&b);
        json_name_escape(&a, name, n);
        EXPECT_OK(json_name_unescape(&b, a.p, a.n, &err), &err);
        EXPECT_EQ(b.n, n);
        EXPECT_MEM(b.p, name, n);

        /* What comes out is text that JSON can hold. */
        json_t *text = json_stringn(a.p ? a.p : "", a.n);

        EXPECT(text);
        json_decref(text);

        /* The same bytes as an escaped form: refused, or exactly what escaping gives. */
        buf_clear(&a);
        buf_clear(&b);
        if (json_name_unescape(&a, name, n, &err) != OK)
            continue;
        accepted++;
        json_name_escape(&b, a.p, a.n);
        EXPECT_EQ(b.n, n);
        EXPECT_MEM(b.p, name, n);
    }
    EXPECT(accepted > 1000);
    buf_release(&a);
    buf_release(&b);
}

RUN(numbers_read_back_and_are_shortest, a_number_is_refused_or_reads_back_to_the_same_text,
    canonical_form_does_not_depend_on_how_the_value_came, members_are_in_the_order_of_utf16,
    names_and_their_escaped_forms_are_one_to_one)
