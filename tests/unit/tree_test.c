#include <string.h>

#include "base/json.h"
#include "store/tree.h"
#include "tests/check.h"

#define HEX "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define OBJECT "\"digest\":\"sha256:" HEX "\","
#define FILE_A "{" OBJECT "\"mode\":\"file\",\"name\":\"a\",\"size\":12}"
#define LINK_B "{\"mode\":\"link\",\"name\":\"b\",\"target\":\"a\"}"
#define TREE(entries) "{\"entries\":[" entries "],\"weir\":\"tree/1\"}"
/* The byte where the first entry starts. */
#define FIRST 12

static struct tree_entry entry_of(enum tree_mode mode, const char *name)
{
    struct tree_entry e = {.mode = mode, .name = str_of(name)};

    for (int i = 0; i < DIGEST_BYTES; i++)
        e.digest.b[i] = (uint8_t)(0x11 * (i % 16));
    return e;
}

TEST(writes_the_canonical_form)
{
    struct tree t;
    struct buf out;
    struct err err = ERR_INIT;
    struct tree_entry e;

    tree_init(&t);
    buf_init(&out, 4096);
    e = entry_of(TREE_LINK, "l\"%");
    e.target = STR("../sub/\xff");
    EXPECT_OK(tree_add(&t, &e, 1, &err), &err);
    e = entry_of(TREE_EXEC, "run\\\n\xc3\xa4");
    e.size = 0;
    EXPECT_OK(tree_add(&t, &e, 1, &err), &err);
    e = entry_of(TREE_DIR, "\xff");
    e.size = (int64_t)1 << 53;
    EXPECT_OK(tree_add(&t, &e, 1, &err), &err);
    e = entry_of(TREE_FILE, "a");
    e.size = 12;
    EXPECT_OK(tree_add(&t, &e, 1, &err), &err);
    EXPECT_OK(tree_encode(&t, &out, &err), &err);
    EXPECT_STR(out.p,
               TREE(FILE_A
                    ",{\"mode\":\"link\",\"name\":\"l\\\"%25\",\"target\":\"../sub/%FF\"}"
                    ",{" OBJECT "\"mode\":\"exec\",\"name\":\"run\\\\%0A\xc3\xa4\",\"size\":0}"
                    ",{" OBJECT "\"mode\":\"dir\",\"name\":\"%FF\",\"size\":9007199254740992}"));
    /* Encoding again gives the same, appended. */
    const size_t n = out.n;
    EXPECT_OK(tree_encode(&t, &out, &err), &err);
    EXPECT_EQ(out.n, 2 * n);
    EXPECT_MEM(out.p, out.p + n, n);
    buf_release(&out);
    tree_release(&t);
    tree_release(&t);
}

TEST(reads_what_it_wrote)
{
    static const char good[] =
        TREE(FILE_A "," LINK_B ",{" OBJECT
                    "\"mode\":\"exec\",\"name\":\"c\\\"\\\\%25\xc3\xa4%FF\",\"size\":0}");
    struct err err = ERR_INIT;
    struct tree t;

    EXPECT_OK(tree_decode(good, sizeof(good) - 1, 0, "t", &t, &err), &err);
    EXPECT_EQ(t.count, 3);
    EXPECT_EQ(t.entries[0].mode, TREE_FILE);
    EXPECT_STR(t.entries[0].name.p, "a");
    EXPECT_EQ(t.entries[0].size, 12);
    EXPECT_EQ(t.entries[0].digest.b[1], 0x11);
    EXPECT_EQ(t.entries[1].mode, TREE_LINK);
    EXPECT_STR(t.entries[1].target.p, "a");
    EXPECT_EQ(t.entries[2].mode, TREE_EXEC);
    EXPECT_STR(t.entries[2].name.p, "c\"\\%\xc3\xa4\xff");
    EXPECT_EQ(t.entries[2].name.n, 7);
    EXPECT(tree_find(&t, STR("a")) == &t.entries[0]);
    EXPECT(tree_find(&t, STR("b")) == &t.entries[1]);
    EXPECT(tree_find(&t, STR("aa")) == NULL);
    EXPECT(tree_find(&t, STR("")) == NULL);
    EXPECT(tree_find(&t, STR("z")) == NULL);
    tree_release(&t);

    EXPECT_OK(tree_decode(TREE(""), sizeof(TREE("")) - 1, 0, "t", &t, &err), &err);
    EXPECT_EQ(t.count, 0);
    EXPECT(tree_find(&t, STR("a")) == NULL);
    tree_release(&t);
}

/* long: one flat table */
TEST(refuses_every_other_spelling)
{
#define FILE_NAMED(name, size)                                                                     \
    "{" OBJECT "\"mode\":\"file\",\"name\":\"" name "\",\"size\":" size "}"
#define LINK_TO(target) "{\"mode\":\"link\",\"name\":\"l\",\"target\":\"" target "\"}"
    /* at: the byte that the message names */
    static const struct {
        const char *text;
        int at;
    } cases[] = {
        {"", 0},
        {"{", 1},
        {"[]", 0},
        {"{\"entries\":[]}", 13},
        {"{\"entries\":[],\"weir\":\"tree/2\"}", 27},
        {TREE("") " ", 30},
        {TREE("") "\n", 30},
        {" " TREE(""), 0},
        {"{\"weir\":\"tree/1\",\"entries\":[]}", 2},
        {TREE(" " FILE_A), FIRST},
        {TREE(FILE_A ","), FIRST + 120},
        {TREE(FILE_A " ," LINK_B), FIRST + 119},
        {TREE(FILE_A FILE_A), FIRST + 119},
        {TREE(FILE_A "," FILE_A), FIRST + 120},
        {TREE(LINK_B "," FILE_A), FIRST + 40},
        {TREE("{}"), FIRST + 1},
        {TREE("{\"mode\":\"file\",\"name\":\"a\",\"size\":12}"), FIRST + 9},
        {TREE("{\"digest\":\"sha512:" HEX "\"}"), FIRST + 2},
        {TREE("{\"digest\":\"sha256:0011\"}"), FIRST + 18},
        {TREE("{\"digest\":\"sha256:A" HEX "\"}"), FIRST + 18},
        {TREE("{" OBJECT "\"mode\":\"link\",\"name\":\"a\",\"size\":12}"), FIRST + 92},
        {TREE("{" OBJECT "\"mode\":\"blob\",\"name\":\"a\",\"size\":12}"), FIRST + 92},
        {TREE("{" OBJECT "\"name\":\"a\",\"mode\":\"file\",\"size\":12}"), FIRST + 85},
        {TREE(FILE_NAMED("a", "012")), FIRST + 116},
        {TREE(FILE_NAMED("a", "-1")), FIRST + 116},
        {TREE(FILE_NAMED("a", "")), FIRST + 116},
        {TREE(FILE_NAMED("a", "1.0")), FIRST + 117},
        {TREE(FILE_NAMED("a", "1e3")), FIRST + 117},
        {TREE(FILE_NAMED("a", "9007199254740993")), FIRST + 116},
        {TREE(FILE_NAMED("a", "90071992547409920")), FIRST + 132},
        {TREE(FILE_NAMED("a", "\"1\"")), FIRST + 116},
        {TREE(FILE_NAMED("", "1")), FIRST},
        {TREE(FILE_NAMED(".", "1")), FIRST},
        {TREE(FILE_NAMED("..", "1")), FIRST},
        {TREE(FILE_NAMED("a/b", "1")), FIRST},
        {TREE(FILE_NAMED("\\/", "1")), FIRST + 106},
        {TREE(FILE_NAMED("\\u0061", "1")), FIRST + 106},
        {TREE(FILE_NAMED("\\n", "1")), FIRST + 106},
        {TREE(FILE_NAMED("\x01", "1")), FIRST + 106},
        {TREE(FILE_NAMED("\x7f", "1")), FIRST + 106},
        {TREE(FILE_NAMED("\xff", "1")), FIRST + 106},
        {TREE(FILE_NAMED("\xc3", "1")), FIRST + 106},
        {TREE(FILE_NAMED("%", "1")), FIRST + 106},
        {TREE(FILE_NAMED("%41", "1")), FIRST + 106},
        {TREE(FILE_NAMED("%0a", "1")), FIRST + 106},
        {TREE(FILE_NAMED("%00", "1")), FIRST + 106},
        {TREE(FILE_NAMED("%C3%A4", "1")), FIRST + 106},
        {TREE(LINK_TO("")), FIRST},
        {TREE(LINK_TO("/a")), FIRST},
        {TREE(LINK_TO("a/../b")), FIRST},
        {TREE(LINK_TO("../../a")), FIRST},
        {TREE("{\"mode\":\"link\",\"name\":\"l\",\"target\":\"a\",\"size\":1}"), FIRST + 38},
        {TREE("{\"mode\":\"link\",\"name\":\"l\",\"target\":\"a"), FIRST + 40},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *text = cases[i].text;
        struct err err = ERR_INIT;
        struct tree t;
        char at[32];

        snprintf(at, sizeof(at), "t: byte %d: ", cases[i].at);
        EXPECT_ERR(tree_decode(text, strlen(text), 1, "t", &t, &err), ERR_INPUT, &err);
        if (strncmp(err.text, at, strlen(at)) != 0)
            print_error("%s\nexpected byte %d: %s\n", text, cases[i].at, err.text);
        EXPECT(strncmp(err.text, at, strlen(at)) == 0);
        tree_release(&t);
    }
}

TEST(refuses_every_cut)
{
    static const char text[] = TREE(FILE_A "," LINK_B);
    struct tree t;

    for (size_t n = 0; n < sizeof(text) - 1; n++) {
        struct err err = ERR_INIT;
        /* A copy without a NUL behind it, so that a sanitizer sees a byte too far. */
        char *copy = mem_alloc(n);

        memcpy(copy, text, n);
        EXPECT_ERR(tree_decode(copy, n, 0, "t", &t, &err), ERR_INPUT, &err);
        tree_release(&t);
        free(copy);
    }
}

TEST(adds_only_what_can_be_decoded)
{
    struct err err = ERR_INIT;
    struct tree_entry e;
    struct tree t;
    struct buf out;
    char name[TREE_NAME_MAX + 2];

    tree_init(&t);
    memset(name, 'x', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    e = entry_of(TREE_FILE, name);
    EXPECT_ERR(tree_add(&t, &e, 0, &err), ERR_INPUT, &err);
    name[TREE_NAME_MAX] = '\0';
    e = entry_of(TREE_FILE, name);
    EXPECT_OK(tree_add(&t, &e, 0, &err), &err);
    e.name = (struct str){"a\0b", 3};
    EXPECT_ERR(tree_add(&t, &e, 0, &err), ERR_INPUT, &err);
    e = entry_of(TREE_FILE, "a");
    e.size = -1;
    EXPECT_ERR(tree_add(&t, &e, 0, &err), ERR_INPUT, &err);
    e.size = ((int64_t)1 << 53) + 1;
    EXPECT_ERR(tree_add(&t, &e, 0, &err), ERR_INPUT, &err);
    e.size = 0;
    EXPECT_ERR(tree_add(&t, &e, TREE_DEPTH_MAX + 1, &err), ERR_LIMIT, &err);
    EXPECT_EQ(t.count, 1);
    EXPECT_OK(tree_add(&t, &e, TREE_DEPTH_MAX, &err), &err);
    EXPECT_OK(tree_add(&t, &e, 0, &err), &err);

    buf_init(&out, 1000);
    buf_str(&out, "before");
    EXPECT_ERR(tree_encode(&t, &out, &err), ERR_INPUT, &err); /* "a" twice */
    EXPECT(strstr(err.text, "\"a\"") != NULL);
    EXPECT_STR(out.p, "before");
    t.entries[1] = t.entries[2];
    t.count = 2;
    buf_release(&out);
    buf_init(&out, 200);
    buf_str(&out, "before");
    EXPECT_ERR(tree_encode(&t, &out, &err), ERR_LIMIT, &err);
    EXPECT_STR(out.p, "before");
    buf_release(&out);
    tree_release(&t);
}

TEST(links_stay_inside)
{
    static const struct {
        const char *target;
        int depth; /* the least at which it is fine; -1: never */
    } cases[] = {
        {"a", 0},          {"a/b/c", 0}, {"...", 0},       {"..a", 0},  {"a/..b", 0}, {"../a", 1},
        {"..", 1},         {"../..", 2}, {"../../a/b", 2}, {"", -1},    {"/", -1},    {"/a", -1},
        {"a/", -1},        {"a//b", -1}, {".", -1},        {"./a", -1}, {"a/.", -1},  {"a/..", -1},
        {"../a/../b", -1}, {"../", -1},  {"..//a", -1},
    };
    struct err err = ERR_INIT;
    char part[TREE_TARGET_MAX + 2];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct str target = str_of(cases[i].target);

        for (int depth = -1; depth < 4; depth++) {
            const bool good = cases[i].depth >= 0 && (depth < 0 || depth >= cases[i].depth);

            if (good != (tree_check_target(target, depth, &err) == OK))
                print_error("\"%s\" at depth %d\n", cases[i].target, depth);
            EXPECT_EQ(tree_check_target(target, depth, &err), good ? OK : ERR_INPUT);
        }
    }
    EXPECT_ERR(tree_check_target((struct str){"a\0b", 3}, 0, &err), ERR_INPUT, &err);
    for (size_t i = 0; i < sizeof(part); i++)
        part[i] = i % 2 ? '/' : 'x';
    EXPECT_OK(tree_check_target((struct str){part, TREE_TARGET_MAX}, 0, &err), &err);
    EXPECT_ERR(tree_check_target((struct str){part, sizeof(part) - 1}, 0, &err), ERR_INPUT, &err);
    memset(part, 'x', sizeof(part));
    EXPECT_OK(tree_check_target((struct str){part, TREE_NAME_MAX}, 0, &err), &err);
    EXPECT_ERR(tree_check_target((struct str){part, TREE_NAME_MAX + 1}, 0, &err), ERR_INPUT, &err);
}

TEST(long_names_survive_their_escapes)
{
    struct tree t, again;
    struct err err = ERR_INIT;
    struct tree_entry e = entry_of(TREE_LINK, "l");
    struct buf out;
    char name[TREE_NAME_MAX], target[TREE_TARGET_MAX];

    for (size_t i = 0; i < sizeof(target); i++)
        target[i] = i % 2 ? '/' : '\x01';
    memset(name, '\xff', sizeof(name));
    e.name = (struct str){name, sizeof(name)};
    e.target = (struct str){target, sizeof(target)};
    tree_init(&t);
    buf_init(&out, 1 << 20);
    EXPECT_OK(tree_add(&t, &e, 0, &err), &err);
    EXPECT_OK(tree_encode(&t, &out, &err), &err);
    EXPECT_OK(tree_decode(out.p, out.n, 0, "t", &again, &err), &err);
    EXPECT(str_eq(again.entries[0].name, e.name));
    EXPECT(str_eq(again.entries[0].target, e.target));
    tree_release(&again);
    tree_release(&t);
    buf_release(&out);
}

RUN(writes_the_canonical_form, reads_what_it_wrote, refuses_every_other_spelling, refuses_every_cut,
    adds_only_what_can_be_decoded, links_stay_inside, long_names_survive_their_escapes)
