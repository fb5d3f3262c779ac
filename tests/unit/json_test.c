#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tests/check.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* RFC 8785 appendix B, but for the two rows that JSON cannot have (NaN, Infinity); then values on
 * the borders of the four layouts, and powers of two, whose shortest form printf does not give. */
TEST(numbers_are_printed_as_ecmascript_does)
{
    static const struct {
        uint64_t bits;
        const char *text;
    } rfc[] = {
        {0x0000000000000000, "0"},
        {0x8000000000000000, "0"},
        {0x0000000000000001, "5e-324"},
        {0x8000000000000001, "-5e-324"},
        {0x7fefffffffffffff, "1.7976931348623157e+308"},
        {0xffefffffffffffff, "-1.7976931348623157e+308"},
        {0x4340000000000000, "9007199254740992"},
        {0xc340000000000000, "-9007199254740992"},
        {0x4430000000000000, "295147905179352830000"},
        {0x44b52d02c7e14af5, "9.999999999999997e+22"},
        {0x44b52d02c7e14af6, "1e+23"},
        {0x44b52d02c7e14af7, "1.0000000000000001e+23"},
        {0x444b1ae4d6e2ef4e, "999999999999999700000"},
        {0x444b1ae4d6e2ef4f, "999999999999999900000"},
        {0x444b1ae4d6e2ef50, "1e+21"},
        {0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"},
        {0x3eb0c6f7a0b5ed8d, "0.000001"},
        {0x41b3de4355555553, "333333333.3333332"},
        {0x41b3de4355555554, "333333333.33333325"},
        {0x41b3de4355555555, "333333333.3333333"},
        {0x41b3de4355555556, "333333333.3333334"},
        {0x41b3de4355555557, "333333333.33333343"},
        {0xbecbf647612f3696, "-0.0000033333333333333333"},
        {0x43143ff3c1cb0959, "1424953923781206.2"},
    };
    static const struct {
        double value;
        const char *text;
    } more[] = {
        {1, "1"},
        {-1.5, "-1.5"},
        {10, "10"},
        {0.1, "0.1"},
        {123.456, "123.456"},
        {1e20, "100000000000000000000"},
        {1.5e20, "150000000000000000000"},
        {1e22, "1e+22"},
        {-1.5e300, "-1.5e+300"},
        {0.00001, "0.00001"},
        {1e-7, "1e-7"},
        {1.5e-7, "1.5e-7"},
        {2251799813685249.5, "2251799813685249.5"},
        {0x1p-44, "5.684341886080802e-14"},
        {-0x1p-44, "-5.684341886080802e-14"},
        {0x1p-1074, "5e-324"},
        {0x1p-1022, "2.2250738585072014e-308"},
        {0x1p-24, "5.960464477539063e-8"},
        {0x1p89, "6.189700196426902e+26"},
        {0x1p1023, "8.98846567431158e+307"},
    };
    char text[32];
    double v;

    for (size_t i = 0; i < COUNT(rfc); i++) {
        memcpy(&v, &rfc[i].bits, sizeof(v));
        json_canonical_number(v, text);
        EXPECT_STR(text, rfc[i].text);
    }
    for (size_t i = 0; i < COUNT(more); i++) {
        json_canonical_number(more[i].value, text);
        EXPECT_STR(text, more[i].text);
    }
}

TEST(strings_have_the_shortest_escapes)
{
    static const char text[] = "\0\x01\b\t\n\v\f\r\x1f \"\\/\x7f\xc3\xa9\xf0\x9f\x98\x80'<";
    struct buf b;

    buf_init(&b, 1000);
    json_canonical_string(&b, text, sizeof(text) - 1);
    EXPECT_STR(
        b.p,
        "\"\\u0000\\u0001\\b\\t\\n\\u000b\\f\\r\\u001f \\\"\\\\/\x7f\xc3\xa9\xf0\x9f\x98\x80'<\"");
    buf_clear(&b);
    json_canonical_string(&b, NULL, 0);
    EXPECT_STR(b.p, "\"\"");
    buf_release(&b);
}

TEST(parsing_is_bounded)
{
    json_t *v = NULL;
    struct err err = ERR_INIT;
    char deep[2 * JSON_DEPTH_MAX + 3];

    EXPECT_OK(json_parse("[1]", 3, 3, "it", &v, &err), &err);
    json_decref(v);
    EXPECT_ERR(json_parse("[1]", 3, 2, "it", &v, &err), ERR_LIMIT, &err);
    EXPECT_STR(err.text, "it: longer than 2 bytes");
    EXPECT(v == NULL);
    EXPECT_ERR(json_parse(NULL, 0, 10, "it", &v, &err), ERR_INPUT, &err);

    memset(deep, '[', JSON_DEPTH_MAX);
    memset(deep + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    EXPECT_OK(json_parse(deep, 2 * JSON_DEPTH_MAX, 1000, "it", &v, &err), &err);
    json_decref(v);
    memset(deep, '[', JSON_DEPTH_MAX + 1);
    memset(deep + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    EXPECT_ERR(json_parse(deep, 2 * JSON_DEPTH_MAX + 2, 1000, "it", &v, &err), ERR_LIMIT, &err);
    EXPECT_STR(err.text, "it: 1:65: nested deeper than 64");

    /* Millions of brackets must not reach a recursive parser. */
    char *many = mem_alloc(5000000);

    memset(many, '{', 5000000);
    EXPECT_ERR(json_parse(many, 5000000, 5000000, "it", &v, &err), ERR_LIMIT, &err);
    free(many);
    /* In a string they are text. */
    char text[203];

    memset(text, '[', sizeof(text));
    memcpy(text, "\"\\\"", 3);
    text[sizeof(text) - 1] = '"';
    EXPECT_OK(json_parse(text, sizeof(text), 1000, "it", &v, &err), &err);
    EXPECT_EQ(json_string_length(v), 200);
    json_decref(v);
}

TEST(bytes_that_are_no_text_are_refused)
{
    static const struct {
        const char *bytes;
        size_t n;
    } cases[] = {
        {"\"a\0b\"", 5},         {"1\0", 2},      {"[1\0]", 4},    {"\0", 1},
        {"[1]\0\0", 5},          {"\"\xff\"", 3}, {"\"\xc3\"", 3}, {"\"\xc0\x80\"", 4},
        {"\"\xed\xa0\x80\"", 5}, {"\"\\", 2},     {"[\"\\", 3},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        struct err err = ERR_INIT;
        json_t *v;

        EXPECT_ERR(json_parse(cases[i].bytes, cases[i].n, 100, "it", &v, &err), ERR_INPUT, &err);
        EXPECT_EQ(strncmp(err.text, "it: 1:", 6), 0);
        EXPECT(v == NULL);
    }
}

static json_t *nested(int depth)
{
    json_t *v = json_array();

    for (int i = 1; i < depth; i++) {
        json_t *around = i % 2 ? json_object() : json_array();

        if (i % 2)
            json_object_set_new(around, "k", v);
        else
            json_array_append_new(around, v);
        v = around;
    }
    return v;
}

TEST(canonical_form_is_bounded_and_all_or_nothing)
{
    struct err err = ERR_INIT;
    struct buf b;
    json_t *v = nested(JSON_DEPTH_MAX);

    buf_init(&b, 400);
    buf_str(&b, "before");
    EXPECT_OK(json_canonical(v, &b, &err), &err);
    json_decref(v);

    buf_clear(&b);
    buf_str(&b, "before");
    v = nested(JSON_DEPTH_MAX + 1);
    EXPECT_ERR(json_canonical(v, &b, &err), ERR_LIMIT, &err);
    EXPECT_STR(b.p, "before");
    json_decref(v);

    v = json_pack("[I, I]", (json_int_t)9007199254740992, (json_int_t)-9007199254740992);
    EXPECT_OK(json_canonical(v, &b, &err), &err);
    EXPECT_STR(b.p, "before[9007199254740992,-9007199254740992]");
    json_decref(v);
    v = json_pack("[i, I]", 1, (json_int_t)9007199254740993);
    EXPECT_ERR(json_canonical(v, &b, &err), ERR_INPUT, &err);
    EXPECT(strstr(err.text, "9007199254740993"));
    EXPECT_STR(b.p, "before[9007199254740992,-9007199254740992]");
    json_decref(v);
    v = json_integer(INT64_MIN);
    EXPECT_ERR(json_canonical(v, &b, &err), ERR_INPUT, &err);
    json_decref(v);

    v = json_string("twenty bytes of text");
    buf_release(&b);
    buf_init(&b, 21);
    EXPECT_ERR(json_canonical(v, &b, &err), ERR_LIMIT, &err);
    EXPECT_EQ(b.n, 0);
    buf_release(&b);
    buf_init(&b, 22);
    EXPECT_OK(json_canonical(v, &b, &err), &err);
    buf_release(&b);
    json_decref(v);
}

TEST(members_are_checked)
{
    json_t *o = json_pack("{s:s, s:i, s:f, s:f, s:f, s:b}", "s", "text", "i", 7, "whole", 3.0,
                          "part", 3.5, "huge", 1e300, "b", 1);
    struct err err = ERR_INIT;
    const char *text = NULL;
    int64_t i = 42;

    EXPECT_OK(json_get_string(o, "s", "card", &text, &err), &err);
    EXPECT_STR(text, "text");
    EXPECT_ERR(json_get_string(o, "x", "card", &text, &err), ERR_INPUT, &err);
    EXPECT_STR(err.text, "card: \"x\" is missing");
    EXPECT_ERR(json_get_string(o, "i", "card", &text, &err), ERR_INPUT, &err);
    EXPECT_STR(err.text, "card: \"i\" is not a string");
    EXPECT_ERR(json_get_string(json_object_get(o, "i"), "i", "card", &text, &err), ERR_INPUT, &err);
    EXPECT_STR(err.text, "card: not an object");
    EXPECT_ERR(json_get_string(NULL, "i", "card", &text, &err), ERR_INPUT, &err);

    static const struct {
        const char *key;
        int64_t min, max, value;
        const char *error;
    } cases[] = {
        {"i", 0, 7, 7, NULL},
        {"i", 7, 7, 7, NULL},
        {"i", 0, 6, 0, "card: \"i\" is 7, not between 0 and 6"},
        {"i", 8, 9, 0, "card: \"i\" is 7, not between 8 and 9"},
        {"whole", 0, 9, 3, NULL},
        {"part", 0, 9, 0, "card: \"part\" is not an integer"},
        {"huge", INT64_MIN, INT64_MAX, 0, "card: \"huge\" is not an integer"},
        {"s", 0, 9, 0, "card: \"s\" is not an integer"},
        {"b", 0, 9, 0, "card: \"b\" is not an integer"},
        {"none", 0, 9, 0, "card: \"none\" is missing"},
    };

    for (size_t n = 0; n < COUNT(cases); n++) {
        i = 42;
        const enum err_code rc =
            json_get_i64(o, cases[n].key, cases[n].min, cases[n].max, "card", &i, &err);

        EXPECT_EQ(rc, cases[n].error ? ERR_INPUT : OK);
        EXPECT_EQ(i, cases[n].error ? 42 : cases[n].value);
        if (cases[n].error)
            EXPECT_STR(err.text, cases[n].error);
    }
    json_decref(o);
}

TEST(file_names_have_one_escaped_form)
{
    static const struct {
        const char *name, *escaped;
    } pairs[] = {
        {"", ""},
        {"plain name.txt", "plain name.txt"},
        {"a/b", "a/b"},
        {"100%", "100%25"},
        {"%41", "%2541"},
        {"a\nb\t\x7f", "a%0Ab%09%7F"},
        {"\xc3\xa9", "\xc3\xa9"},
        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
        {"\xff", "%FF"},
        {"\xc3", "%C3"},
        {"\xc3x", "%C3x"},
        {"\xc0\xaf", "%C0%AF"},                   /* overlong */
        {"\xe0\x9f\xbf", "%E0%9F%BF"},            /* overlong */
        {"\xf0\x8f\xbf\xbf", "%F0%8F%BF%BF"},     /* overlong */
        {"\xed\x9f\xbf", "\xed\x9f\xbf"},         /* the last before the surrogates */
        {"\xed\xa0\x80", "%ED%A0%80"},            /* a surrogate */
        {"\xee\x80\x80", "\xee\x80\x80"},         /* the first after them */
        {"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"}, /* U+10FFFF */
        {"\xf4\x90\x80\x80", "%F4%90%80%80"},     /* past it */
        {"\xf5\x80\x80\x80", "%F5%80%80%80"},
        {"\xe2\x82", "%E2%82"}, /* cut short */
        {"\xe2\x82\xac\xe2", "\xe2\x82\xac%E2"},
    };
    static const char *const refused[] = {
        "%",    "%4",  "%zz", "%41", "%0a",     "%ff",       "100%", "%C3%A9", "\xff",
        "a\nb", "%00", "%20", "%2F", "\xc3%A9", "%E2%82%AC", "%%25", "%2",     "a%FFb%",
    };
    struct err err = ERR_INIT;
    struct buf b;

    buf_init(&b, 100);
    for (size_t i = 0; i < COUNT(pairs); i++) {
        buf_clear(&b);
        buf_str(&b, "<");
        json_name_escape(&b, pairs[i].name, strlen(pairs[i].name));
        EXPECT_STR(b.p + 1, pairs[i].escaped);
        buf_clear(&b);
        buf_str(&b, "<");
        EXPECT_OK(json_name_unescape(&b, pairs[i].escaped, strlen(pairs[i].escaped), &err), &err);
        EXPECT_STR(b.p + 1, pairs[i].name);
    }
    for (size_t i = 0; i < COUNT(refused); i++) {
        buf_clear(&b);
        buf_str(&b, "<");
        EXPECT_ERR(json_name_unescape(&b, refused[i], strlen(refused[i]), &err), ERR_INPUT, &err);
        EXPECT_STR(b.p, "<");
    }
    buf_release(&b);
    buf_init(&b, 3);
    EXPECT_ERR(json_name_unescape(&b, "long", 4, &err), ERR_LIMIT, &err);
    EXPECT_EQ(b.n, 0);
    buf_release(&b);
}

RUN(numbers_are_printed_as_ecmascript_does, strings_have_the_shortest_escapes, parsing_is_bounded,
    bytes_that_are_no_text_are_refused, canonical_form_is_bounded_and_all_or_nothing,
    members_are_checked, file_names_have_one_escaped_form)
