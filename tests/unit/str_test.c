#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "tests/check.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

TEST(slices_compare_by_bytes)
{
    static const struct {
        const char *a, *b;
        int order;
    } cases[] = {
        {"", "", 0},     {"", "a", -1},  {"a", "a", 0},      {"a", "b", -1},
        {"a", "aa", -1}, {"b", "aa", 1}, {"a\xff", "ab", 1}, {"a.b", "a/b", -1},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct str a = str_of(cases[i].a), b = str_of(cases[i].b);
        const int order = str_cmp(a, b), back = str_cmp(b, a);

        EXPECT_EQ((order > 0) - (order < 0), cases[i].order);
        EXPECT_EQ((back > 0) - (back < 0), -cases[i].order);
        EXPECT_EQ(str_eq(a, b), cases[i].order == 0);
    }
    EXPECT(str_eq((struct str){NULL, 0}, STR("")));
    EXPECT(str_starts(STR("sha256:0"), STR("sha256:")));
    EXPECT(str_starts(STR("a"), STR("")));
    EXPECT(!str_starts(STR("sha"), STR("sha256:")));
    EXPECT(!str_starts(STR("SHA256:0"), STR("sha256:")));
}

TEST(a_buffer_grows_up_to_its_maximum)
{
    struct err err = ERR_INIT;
    struct buf b;

    buf_init(&b, 1000);
    for (int i = 0; i < 1000; i++) {
        buf_char(&b, (char)('a' + i % 26));
        EXPECT_EQ(b.n, i + 1);
        EXPECT_EQ(b.p[b.n], '\0');
    }
    EXPECT_OK(buf_check(&b, "it", &err), &err);
    buf_char(&b, 'x');
    EXPECT(b.failed);
    EXPECT_EQ(b.n, 1000);
    EXPECT_ERR(buf_check(&b, "the list", &err), ERR_LIMIT, &err);
    EXPECT_STR(err.text, "the list: longer than 1000 bytes");

    /* It remembers: what fits later would leave a hole. */
    buf_clear(&b);
    buf_add(&b, "12345", 5);
    EXPECT(buf_room(&b, 996) == NULL);
    buf_char(&b, '6');
    EXPECT_STR(b.p, "12345");
    EXPECT(b.failed);
    buf_clear(&b);
    EXPECT_STR(b.p, "");
    EXPECT(!b.failed);
    buf_release(&b);
    buf_release(&b);
}

TEST(a_buffer_takes_what_it_is_given)
{
    struct buf b;
    char *room, *taken;

    buf_init(&b, 100);
    buf_add(&b, NULL, 0);
    EXPECT_EQ(b.n, 0);
    buf_str(&b, "ab");
    buf_printf(&b, "%d-%s", 7, "c");
    buf_add(&b, "\0d", 2);
    room = buf_room(&b, 3);
    EXPECT(room);
    memcpy(room, "efg", 3);
    EXPECT_EQ(b.n, 10);
    EXPECT_MEM(b.p, "ab7-c\0defg", 11);
    EXPECT(buf_room(&b, 0) == b.p + b.n);

    taken = buf_take(&b);
    EXPECT_MEM(taken, "ab7-c\0defg", 11);
    free(taken);
    EXPECT_EQ(b.n, 0);
    taken = buf_take(&b); /* of an empty one */
    EXPECT_STR(taken, "");
    free(taken);
    buf_str(&b, "again");
    EXPECT_STR(b.p, "again");

    buf_clear(&b);
    buf_printf(&b, "%100s", "");
    EXPECT(!b.failed);
    buf_printf(&b, "%s", "x");
    EXPECT(b.failed);
    EXPECT_EQ(b.n, 100);
    buf_release(&b);

    struct buf zeroed = {0};

    buf_str(&zeroed, "");
    EXPECT(!zeroed.failed);
    buf_str(&zeroed, "x");
    EXPECT(zeroed.failed);
    buf_release(&zeroed);
}

TEST(integers)
{
    static const struct {
        const char *text;
        int64_t min, max, value;
        bool ok;
    } cases[] = {
        {"0", 0, 9, 0, true},
        {"-0", 0, 9, 0, true},
        {"007", 0, 9, 7, true},
        {"9", 0, 9, 9, true},
        {"10", 0, 9, 0, false},
        {"-1", 0, 9, 0, false},
        {"-5", -5, -5, -5, true},
        {"9223372036854775807", INT64_MIN, INT64_MAX, INT64_MAX, true},
        {"9223372036854775808", INT64_MIN, INT64_MAX, 0, false},
        {"-9223372036854775808", INT64_MIN, INT64_MAX, INT64_MIN, true},
        {"-9223372036854775809", INT64_MIN, INT64_MAX, 0, false},
        {"99999999999999999999999999", INT64_MIN, INT64_MAX, 0, false},
        {"", 0, 9, 0, false},
        {"-", -9, 9, 0, false},
        {"--1", -9, 9, 0, false},
        {"+1", 0, 9, 0, false},
        {" 1", 0, 9, 0, false},
        {"1 ", 0, 9, 0, false},
        {"1x", 0, 9, 0, false},
        {"0x1", 0, 9, 0, false},
        {"1.0", 0, 9, 0, false},
        {"1e3", 0, 9999, 0, false},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t value = 42;
        struct err err = ERR_INIT;
        const enum err_code rc =
            str_to_i64(str_of(cases[i].text), cases[i].min, cases[i].max, &value, &err);

        if (cases[i].ok) {
            EXPECT_OK(rc, &err);
            EXPECT_EQ(value, cases[i].value);
        } else {
            EXPECT_ERR(rc, ERR_INPUT, &err);
            EXPECT_EQ(value, 42);
        }
    }
    int64_t value;
    struct err err = ERR_INIT;

    /* The slice ends where it ends. */
    EXPECT_OK(str_to_i64((struct str){"123456", 3}, 0, 999, &value, &err), &err);
    EXPECT_EQ(value, 123);
}

typedef enum err_code (*parse_fn)(struct str s, int64_t *out, struct err *err);
struct parse_case {
    const char *text;
    int64_t value; /* -1: refused */
};

static void expect_parsed(parse_fn parse, const struct parse_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int64_t value = 42;
        struct err err = ERR_INIT;
        const enum err_code rc = parse(str_of(cases[i].text), &value, &err);

        EXPECT_EQ(rc, cases[i].value < 0 ? ERR_INPUT : OK);
        EXPECT_EQ(value, cases[i].value < 0 ? 42 : cases[i].value);
        EXPECT(rc == OK || strstr(err.text, cases[i].text));
    }
}

TEST(sizes)
{
    static const struct parse_case cases[] = {
        {"0", 0},
        {"12", 12},
        {"4KiB", 4096},
        {"3MiB", 3 << 20},
        {"8GiB", (int64_t)8 << 30},
        {"2TiB", (int64_t)2 << 40},
        {"8388607TiB", (int64_t)8388607 << 40},
        {"8388608TiB", -1},
        {"9223372036854775808", -1},
        {"1.5GiB", -1},
        {"-1", -1},
        {"4 KiB", -1},
        {"4kiB", -1},
        {"4KB", -1},
        {"4K", -1},
        {"KiB", -1},
        {"", -1},
        {"4KiBx", -1},
    };

    expect_parsed(str_to_bytes, cases, COUNT(cases));
}

TEST(durations)
{
    static const struct parse_case cases[] = {
        {"10s", 10},  {"5m", 300},
        {"2h", 7200}, {"7d", 604800},
        {"0s", 0},    {"10", -1},
        {"", -1},     {"s", -1},
        {"-1s", -1},  {"1w", -1},
        {"1ms", -1},  {"1h30m", -1},
        {"1 s", -1},  {"99999999999999999d", -1},
    };

    expect_parsed(str_to_seconds, cases, COUNT(cases));
}

TEST(sizes_for_people)
{
    static const struct {
        int64_t bytes;
        const char *text;
    } cases[] = {
        {0, "0 B"},
        {1, "1 B"},
        {1023, "1023 B"},
        {1024, "1.0 KiB"},
        {1536, "1.5 KiB"},
        {-1536, "-1.5 KiB"},
        {1048575, "1.0 MiB"},
        {1048576, "1.0 MiB"},
        {1023 * 1024, "1023.0 KiB"},
        {(int64_t)5 << 30, "5.0 GiB"},
        {(int64_t)7 << 40, "7.0 TiB"},
        {(int64_t)7 << 50, "7.0 PiB"},
        {INT64_MAX, "8.0 EiB"},
        {INT64_MIN, "-8.0 EiB"},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[16];

        str_from_bytes(cases[i].bytes, text);
        EXPECT_STR(text, cases[i].text);
    }
}

TEST(the_nearest_name)
{
    static const char *const names[] = {"inputs",    "outputs", "params",
                                        "resources", "retries", "run"};
    static const struct {
        const char *word, *nearest;
    } cases[] = {
        {"input", "inputs"},
        {"inputs", "inputs"},
        {"ouptuts", "outputs"}, /* two neighbours swapped */
        {"parms", "params"},
        {"resource", "resources"},
        {"resuorces", "resources"},
        {"retires", "retries"},
        {"rnu", "run"},
        {"rum", "run"},
        {"r", NULL},
        {"device", NULL},
        {"", NULL},
        {"anything longer than the sixty-four bytes that a name may at most have, and then some",
         NULL},
    };

    for (size_t i = 0; i < COUNT(cases); i++)
        EXPECT_STR(str_nearest(cases[i].word, names, COUNT(names)), cases[i].nearest);
    EXPECT_STR(str_nearest("run", NULL, 0), NULL);

    static const char *const longer[] = {
        "a candidate longer than sixty-four bytes, which no misspelt name can be meant to be",
        "ran"};

    EXPECT_STR(str_nearest("run", longer, COUNT(longer)), "ran");
}

TEST(memory)
{
    char *copy = mem_strndup("abcdef", 3), *none = mem_alloc(0);
    int *zeros = mem_zero(10, sizeof(int));

    EXPECT_STR(copy, "abc");
    EXPECT(none);
    for (int i = 0; i < 10; i++)
        EXPECT_EQ(zeros[i], 0);
    zeros[9] = 7;
    zeros = mem_grow(zeros, 1000, sizeof(int));
    EXPECT_EQ(zeros[9], 7);
    free(copy);
    free(none);
    free(zeros);
    copy = mem_strdup("");
    EXPECT_STR(copy, "");
    free(copy);
}

RUN(slices_compare_by_bytes, a_buffer_grows_up_to_its_maximum, a_buffer_takes_what_it_is_given,
    integers, sizes, durations, sizes_for_people, the_nearest_name, memory)
