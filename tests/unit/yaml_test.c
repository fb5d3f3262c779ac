#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/yaml.h"
#include "tests/check.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static struct yaml_doc *parse(const char *text)
{
    struct yaml_doc *doc = NULL;
    struct err err = ERR_INIT;

    EXPECT_OK(yaml_parse(text, strlen(text), "f.yaml", &doc, NULL, &err), &err);
    EXPECT(doc);
    return doc;
}

/* All errors of the text; and that err holds the first of them. */
static void expect_errors(const char *text, size_t n, const char *expected)
{
    struct yaml_doc *doc = NULL;
    struct err err = ERR_INIT;
    struct buf errors;

    buf_init(&errors, 1 << 20);
    buf_str(&errors, "before\n"); /* appended to */
    EXPECT_ERR(yaml_parse(text, n, "f.yaml", &doc, &errors, &err), ERR_INPUT, &err);
    EXPECT(doc == NULL);
    EXPECT_STR(errors.p, expected);

    char *first = errors.p + strlen("before\n"), *end = strchr(first, '\n');

    EXPECT(end);
    *end = '\0';
    EXPECT_STR(err.text, first);
    buf_release(&errors);
    EXPECT_ERR(yaml_parse(text, n, "f.yaml", &doc, NULL, &err), ERR_INPUT, &err);
}

static const struct {
    const char *text;
    enum yaml_type type;
    double number; /* or truth */
} scalars[] = {
    {"~", YAML_NULL, 0},
    {"null", YAML_NULL, 0},
    {"Null", YAML_NULL, 0},
    {"NULL", YAML_NULL, 0},
    {"nULL", YAML_STRING, 0},
    {"true", YAML_BOOL, 1},
    {"True", YAML_BOOL, 1},
    {"TRUE", YAML_BOOL, 1},
    {"false", YAML_BOOL, 0},
    {"False", YAML_BOOL, 0},
    {"FALSE", YAML_BOOL, 0},
    {"tRUE", YAML_STRING, 0},
    {"yes", YAML_STRING, 0},
    {"no", YAML_STRING, 0},
    {"on", YAML_STRING, 0},
    {"off", YAML_STRING, 0},
    {"y", YAML_STRING, 0},
    {"0", YAML_INT, 0},
    {"-0", YAML_INT, 0},
    {"+12", YAML_INT, 12},
    {"-7", YAML_INT, -7},
    {"010", YAML_INT, 10},
    {"0o17", YAML_INT, 15},
    {"0o18", YAML_STRING, 0},
    {"0o", YAML_STRING, 0},
    {"-0o7", YAML_STRING, 0},
    {"0x1F", YAML_INT, 31},
    {"0xfe", YAML_INT, 254},
    {"0xg", YAML_STRING, 0},
    {"0x", YAML_STRING, 0},
    {"0b1", YAML_STRING, 0},
    {"10:30", YAML_STRING, 0},
    {"1_000", YAML_STRING, 0},
    {"2001-12-14", YAML_STRING, 0},
    {"9223372036854775807", YAML_INT, 9223372036854775807.0},
    {"-9223372036854775808", YAML_INT, -9223372036854775808.0},
    {"9223372036854775808", YAML_FLOAT, 9223372036854775808.0},
    {"0x10000000000000000", YAML_FLOAT, 18446744073709551616.0},
    {"0o2000000000000000000000", YAML_FLOAT, 18446744073709551616.0},
    {"1.5", YAML_FLOAT, 1.5},
    {"-1.5", YAML_FLOAT, -1.5},
    {"+.5", YAML_FLOAT, 0.5},
    {"1.", YAML_FLOAT, 1},
    {"1e-4", YAML_FLOAT, 1e-4},
    {"1E+4", YAML_FLOAT, 1e4},
    {".5e1", YAML_FLOAT, 5},
    {"1e", YAML_STRING, 0},
    {"1e+", YAML_STRING, 0},
    {"e1", YAML_STRING, 0},
    {".", YAML_STRING, 0},
    {"+", YAML_STRING, 0},
    {".e1", YAML_STRING, 0},
    {"1.5.2", YAML_STRING, 0},
    {"1e400x", YAML_STRING, 0},
    {".inf", YAML_FLOAT, INFINITY},
    {"-.Inf", YAML_FLOAT, -INFINITY},
    {"+.INF", YAML_FLOAT, INFINITY},
    {"inf", YAML_STRING, 0},
    {".nan", YAML_FLOAT, NAN},
    {".NaN", YAML_FLOAT, NAN},
    {"-.nan", YAML_STRING, 0},
    {"'1'", YAML_STRING, 0},
    {"\"true\"", YAML_STRING, 0},
    {"''", YAML_STRING, 0},
    {"a b", YAML_STRING, 0},
};

TEST(plain_scalars_have_core_types)
{
    for (size_t i = 0; i < COUNT(scalars); i++) {
        struct yaml_doc *doc = parse(scalars[i].text);
        const struct yaml_node *n = yaml_root(doc);

        if (n->type != scalars[i].type)
            print_error("%s\n", scalars[i].text);
        EXPECT_EQ(n->type, scalars[i].type);
        if (n->type == YAML_BOOL)
            EXPECT_EQ(n->boolean, scalars[i].number);
        else if (isnan(scalars[i].number))
            EXPECT(isnan(n->number));
        else
            EXPECT(n->number == scalars[i].number);
        if (n->type == YAML_INT && fabs(n->number) < 1e15)
            EXPECT_EQ(n->integer, (int64_t)scalars[i].number);
        if (scalars[i].text[0] != '\'' && scalars[i].text[0] != '"')
            EXPECT_STR(n->text.p, scalars[i].text);
        EXPECT_EQ(n->text.n, strlen(n->text.p));
        yaml_free(doc);
    }
    struct yaml_doc *doc = parse("[9223372036854775807, -9223372036854775808]");

    EXPECT_EQ(yaml_root(doc)->items[0]->integer, INT64_MAX);
    EXPECT_EQ(yaml_root(doc)->items[1]->integer, INT64_MIN);
    yaml_free(doc);
}

TEST(nodes_know_where_they_are)
{
    struct yaml_doc *doc = parse("# comment\n"
                                 "name: weir\n"
                                 "list:\n"
                                 "  - 1\n"
                                 "  - {a: b, \"on\": 'x'}\n"
                                 "none:\n"
                                 "8: eight\n"
                                 "text: |\n"
                                 "  two\n"
                                 "  lines\n");
    const struct yaml_node *root = yaml_root(doc), *list = yaml_get(root, "list");

    EXPECT_EQ(root->type, YAML_MAP);
    EXPECT_EQ(root->count, 5);
    EXPECT_EQ(root->line, 2);
    EXPECT_EQ(root->column, 1);
    EXPECT_STR(root->keys[1]->text.p, "list");
    EXPECT_EQ(root->keys[1]->line, 3);
    EXPECT_STR(yaml_get(root, "name")->text.p, "weir");
    EXPECT_EQ(yaml_get(root, "name")->column, 7);
    EXPECT_EQ(list->type, YAML_LIST);
    EXPECT_EQ(list->count, 2);
    EXPECT_EQ(list->items[0]->line, 4);
    EXPECT_EQ(list->items[0]->column, 5);
    EXPECT_STR(yaml_get(list->items[1], "on")->text.p, "x");
    EXPECT_EQ(yaml_get(list->items[1], "on")->column, 18);
    EXPECT_EQ(yaml_get(root, "none")->type, YAML_NULL);
    EXPECT_STR(yaml_get(root, "none")->text.p, "");
    EXPECT_EQ(root->keys[3]->type, YAML_STRING);
    EXPECT_STR(yaml_get(root, "8")->text.p, "eight");
    EXPECT_STR(yaml_get(root, "text")->text.p, "two\nlines\n");
    EXPECT(yaml_get(root, "Name") == NULL);
    EXPECT(yaml_get(list, "name") == NULL);
    EXPECT(yaml_get(NULL, "name") == NULL);
    yaml_free(doc);
    yaml_free(NULL);
}

TEST(an_empty_file_is_null)
{
    static const char *const cases[] = {"", "\n", "# only a comment\n", "---\n", "\xef\xbb\xbf"};

    for (size_t i = 0; i < COUNT(cases); i++) {
        struct yaml_doc *doc = parse(cases[i]);

        EXPECT_EQ(yaml_root(doc)->type, YAML_NULL);
        EXPECT_EQ(yaml_root(doc)->text.n, 0);
        yaml_free(doc);
    }
    struct yaml_doc *doc = NULL;
    struct err err = ERR_INIT;

    EXPECT_OK(yaml_parse(NULL, 0, "f", &doc, NULL, &err), &err);
    yaml_free(doc);
}

TEST(aliases_are_the_same_node)
{
    struct yaml_doc *doc = parse("a: &x {k: 1}\n"
                                 "b: *x\n"
                                 "c: &y 8\n"
                                 "d: [*y, *x]\n"
                                 "e: &x other\n" /* the name again: from here on */
                                 "f: *x\n"
                                 "&z g: *y\n"
                                 "*x : 1\n"
                                 "h: *z\n");
    const struct yaml_node *root = yaml_root(doc);

    EXPECT(yaml_get(root, "a") == yaml_get(root, "b"));
    EXPECT_EQ(yaml_get(yaml_get(root, "b"), "k")->integer, 1);
    EXPECT_EQ(yaml_get(root, "d")->items[0]->integer, 8);
    EXPECT(yaml_get(root, "d")->items[1] == yaml_get(root, "a"));
    EXPECT_STR(yaml_get(root, "f")->text.p, "other");
    EXPECT_EQ(yaml_get(root, "g")->integer, 8);
    EXPECT_EQ(yaml_get(root, "other")->integer, 1);
    EXPECT_STR(yaml_get(root, "h")->text.p, "g");
    yaml_free(doc);
}

TEST(mistakes_are_told_with_their_place)
{
    static const struct {
        const char *text, *errors;
    } cases[] = {
        {"a: 1\nb: 2\na: 3\n", "f.yaml:3:1: \"a\" is already given on line 1\n"},
        {"{a: 1, 'a': 2, a: 3}", "f.yaml:1:8: \"a\" is already given on line 1\n"
                                 "f.yaml:1:16: \"a\" is already given on line 1\n"},
        {"8: 1\n'8': 2", "f.yaml:2:1: \"8\" is already given on line 1\n"},
        {"a: !!int 1\nb: !x [1]\nc: !!map {d: 1, d: 2}\n",
         "f.yaml:1:4: tags such as tag:yaml.org,2002:int are not supported\n"
         "f.yaml:2:4: tags such as !x are not supported\n"
         "f.yaml:3:4: tags such as tag:yaml.org,2002:map are not supported\n"
         "f.yaml:3:17: \"d\" is already given on line 3\n"},
        {"a: &x {b: 1}\nc:\n  <<: *x\n  d: 1\n",
         "f.yaml:3:3: merge keys (<<) are not supported; write the members out\n"},
        {"a: 1\n---\nb: 2\n---\nc: 3", "f.yaml:2:1: a second document; one file holds one\n"},
        {"---\n---\n", "f.yaml:2:1: a second document; one file holds one\n"},
        {"a: *x\nb: *y\n", "f.yaml:1:4: no anchor &x before this alias\n"
                           "f.yaml:2:4: no anchor &y before this alias\n"},
        {"a: *x\nb: &x 1\n", "f.yaml:1:4: no anchor &x before this alias\n"},
        {"&x [*x]", "f.yaml:1:5: alias *x inside the value that it names\n"},
        {"a: &x {b: {c: *x}}", "f.yaml:1:15: alias *x inside the value that it names\n"},
        {"? [a, b]\n: 1\n? {c: d}\n: 2\n", "f.yaml:1:3: a list or map cannot be a key\n"
                                           "f.yaml:3:3: a list or map cannot be a key\n"},
        {"a: 1\n? \n: 2\n", "f.yaml:2:2: the key is missing before ':'\n"},
        {"a: 1e999\nb: -1e999\nc: '1e999'\n",
         "f.yaml:1:4: 1e999 is too large for a number; quote it if it is text\n"
         "f.yaml:2:4: -1e999 is too large for a number; quote it if it is text\n"},
        {"a: \"x\\0y\"", "f.yaml:1:4: text with a zero byte (\\0) in it\n"},
        {"\"a\\eb\": 1\n\"a\\eb\": 2\n", "f.yaml:2:1: \"a?b\" is already given on line 1\n"},
        {"a: 1\n  b: 2\n", "f.yaml:2:4: mapping values are not allowed in this context\n"},
        {"a: [1, 2\nb: 3", "f.yaml:2:2: did not find expected ',' or ']' (while parsing a flow "
                           "sequence that starts on line 1)\n"},
        {"a: 1\na: 2\nb: \"x", "f.yaml:3:6: found unexpected end of stream (while scanning a "
                               "quoted scalar that starts on line 3)\n"},
        {"a:\n\tb: 1\n", "f.yaml:2:1: found character that cannot start any token (while scanning "
                         "for the next token that starts on line 2)\n"},
        {"a: b\nc: \xff\n", "f.yaml:2:4: invalid leading UTF-8 octet\n"},
        {"a: b\nc: d\x01", "f.yaml:2:5: control characters are not allowed\n"},
        {"\xff\xfe"
         "a",
         "f.yaml:1:1: invalid leading UTF-8 octet\n"}, /* UTF-16 */
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        char expected[1024];

        snprintf(expected, sizeof(expected), "before\n%s", cases[i].errors);
        expect_errors(cases[i].text, strlen(cases[i].text), expected);
    }
}

/* Ten levels of ten aliases: a kilobyte that stands for ten thousand million nodes. */
TEST(a_billion_laughs_are_refused)
{
    struct buf text;

    buf_init(&text, 10000);
    buf_str(&text, "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for (int i = 1; i < 10; i++) {
        buf_printf(&text, "a%d: &a%d [", i, i);
        for (int j = 0; j < 10; j++)
            buf_printf(&text, "%s*a%d", j ? ", " : "", i - 1);
        buf_str(&text, "]\n");
    }
    expect_errors(text.p, text.n,
                  "before\nf.yaml:7:10: more than 2000000 values, with aliases written out\n");
    buf_release(&text);
}

TEST(real_nodes_are_bounded_too)
{
    struct yaml_doc *doc;
    struct buf text, errors;
    struct err err = ERR_INIT;

    buf_init(&text, YAML_BYTES_MAX + 10);
    buf_char(&text, '[');
    for (int i = 0; i < YAML_NODES_MAX - 1; i++)
        buf_str(&text, "x,");
    buf_char(&text, ']');
    doc = parse(text.p);
    EXPECT_EQ(yaml_root(doc)->count, YAML_NODES_MAX - 1);
    yaml_free(doc);
    text.n--;
    buf_str(&text, "x]");
    expect_errors(text.p, text.n,
                  "before\nf.yaml:1:4000000: more than 2000000 values, with aliases written out\n");

    buf_clear(&text);
    memset(buf_room(&text, YAML_BYTES_MAX + 1), '#', YAML_BYTES_MAX + 1);
    buf_init(&errors, 100);
    EXPECT_ERR(yaml_parse(text.p, text.n, "f.yaml", &doc, &errors, &err), ERR_LIMIT, &err);
    EXPECT_STR(errors.p, "f.yaml:1:1: longer than 67108864 bytes\n");
    buf_release(&errors);
    buf_release(&text);
}

static void nest(struct buf *b, int depth)
{
    for (int i = 0; i < depth; i++)
        buf_char(b, '[');
    for (int i = 0; i < depth; i++)
        buf_char(b, ']');
}

TEST(depth_is_bounded_through_aliases)
{
    struct buf text;

    buf_init(&text, 1000000);
    nest(&text, YAML_DEPTH_MAX);
    yaml_free(parse(text.p));
    buf_clear(&text);
    nest(&text, YAML_DEPTH_MAX + 1);
    expect_errors(text.p, text.n, "before\nf.yaml:1:65: nested deeper than 64\n");
    buf_clear(&text);
    nest(&text, 300000);
    expect_errors(text.p, text.n, "before\nf.yaml:1:65: nested deeper than 64\n");

    buf_clear(&text);
    buf_str(&text, "a: &a ");
    nest(&text, 40);
    buf_str(&text, "\nb: [[[[[[[[[[[[[[[[[[[[[[[*a]]]]]]]]]]]]]]]]]]]]]]]\n"); /* 1 + 23 + 40 */
    yaml_free(parse(text.p));
    buf_str(&text, "c: [[[[[[[[[[[[[[[[[[[[[[[[*a]]]]]]]]]]]]]]]]]]]]]]]]\n");
    expect_errors(text.p, text.n,
                  "before\nf.yaml:3:28: nested deeper than 64, with aliases written out\n");
    buf_release(&text);
}

TEST(anchors_and_complaints_are_bounded)
{
    struct buf text, errors;
    struct yaml_doc *doc;
    struct err err = ERR_INIT;
    size_t lines = 0;

    buf_init(&text, 1000000);
    for (int i = 0; i < 257; i++)
        buf_printf(&text, "- &a%d x\n", i);
    expect_errors(text.p, text.n, "before\nf.yaml:257:3: more than 256 anchors\n");
    buf_clear(&text);
    for (int i = 0; i < 257; i++)
        buf_printf(&text, "- &a%d x\n", i % 256); /* a name again takes no room */
    yaml_free(parse(text.p));

    /* Two complaints a line; the bound falls between them. */
    buf_clear(&text);
    buf_str(&text, "- x\n- !t x\n");
    for (int i = 0; i < 1000; i++)
        buf_str(&text, "- !t \"\\0\"\n- &x !t [1]\n");
    buf_init(&errors, 1 << 20);
    EXPECT_ERR(yaml_parse(text.p, text.n, "f", &doc, &errors, &err), ERR_INPUT, &err);
    for (size_t i = 0; i < errors.n; i++)
        lines += errors.p[i] == '\n';
    EXPECT_EQ(lines, 100);
    EXPECT_EQ(strncmp(errors.p, "f:2:3: tags", 11), 0);
    buf_release(&errors);
    buf_release(&text);
}

RUN(plain_scalars_have_core_types, nodes_know_where_they_are, an_empty_file_is_null,
    aliases_are_the_same_node, mistakes_are_told_with_their_place, a_billion_laughs_are_refused,
    real_nodes_are_bounded_too, depth_is_bounded_through_aliases,
    anchors_and_complaints_are_bounded)
