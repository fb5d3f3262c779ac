#include "store/cut.h"
#include "store/cut_tar.h"
#include "tests/check.h"
#include "tests/store_gen.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- rule 1 ---- */

/* A header, and the file's size if data_n bytes follow it. */
static int64_t head_of(struct buf *out, const char *json, size_t data_n)
{
    const size_t n = strlen(json);

    buf_clear(out);
    for (int i = 0; i < 8; i++)
        buf_char(out, (char)(n >> (8 * i)));
    buf_str(out, json);
    return (int64_t)(out->n + data_n);
}

static enum cut_rule rule_of(const struct buf *head, int64_t size)
{
    struct cutter *c = cut_new(head->p, head->n, size);
    const enum cut_rule rule = cut_rule(c);

    cut_free(c);
    return rule;
}

#define T(dtype, shape, offsets)                                                                   \
    "{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" offsets "]}"

TEST(reads_headers_in_any_spelling)
{
    static const char json[] = "{ \"b\\u00e4\\ud83d\\ude00\\n\" :\t{\"shape\":[ 2 , "
                               "3],\n\"data_offsets\":[4,16],\"dtype\":"
                               "\"BF16\"},\"__metadata__\":{\"\\\"k\":\"v\",\"\":\"\"},\"a\":" T(
                                   "F32", "", "0,4") ",\"z\":" T("I64", "0", "4,4") "}  \n ";
    struct err err = ERR_INIT;
    struct tensor_span *spans;
    struct buf head;
    char **names;
    size_t count;

    buf_init(&head, 4096);
    const int64_t size = head_of(&head, json, 16);
    EXPECT_OK(safetensors_list(head.p, head.n, size, &names, &spans, &count, &err), &err);
    EXPECT_EQ(count, 3);
    EXPECT_STR(names[0], "a");
    EXPECT_STR(names[1], "z");
    EXPECT_STR(names[2], "b\xc3\xa4\xf0\x9f\x98\x80\n");
    EXPECT(names[3] == NULL);
    EXPECT_EQ(spans[0].off, head.n);
    EXPECT_EQ(spans[0].len, 4);
    EXPECT_EQ(spans[0].rank, 0);
    EXPECT_STR(spans[0].dtype, "F32");
    EXPECT_EQ(spans[2].off, head.n + 4);
    EXPECT_EQ(spans[2].rank, 2);
    EXPECT_EQ(spans[2].shape[1], 3);
    EXPECT_STR(spans[2].dtype, "BF16");
    free(names);
    free(spans);

    EXPECT_EQ(rule_of(&head, size), CUT_TENSORS);
    EXPECT_EQ(head_of(&head, "{}", 0), 10);
    EXPECT_OK(safetensors_list(head.p, 10, 10, &names, &spans, &count, &err), &err);
    EXPECT_EQ(count, 0);
    free(names);
    free(spans);
    buf_release(&head);
}

/* long: one flat table */
TEST(refuses_bad_headers_and_cuts_by_content)
{
    static const struct {
        const char *json;
        size_t data_n;
        const char *why; /* part of the message */
    } cases[] = {
        {"", 4, "does not start with {"},
        {" {}", 0, "does not start with {"},
        {"[]", 0, "does not start with {"},
        {"{", 0, "byte 9"},
        {"{}{", 0, "something follows"},
        {"{},", 0, "something follows"},
        {"{}", 4, "tensors end at 0 of 4"},
        {"{\"a\"}", 0, "expected ':'"},
        {"{\"a\":1}", 0, "expected '{'"},
        {"{\"a\":null}", 0, "expected '{'"},
        {"{\"a\":{}}", 0, "expected '\"'"},
        {"{a:1}", 0, "expected '\"'"},
        {"{\"a\":" T("F32", "1", "0,4") ",}", 4, "expected '\"'"},
        {"{\"a\":" T("F32", "1", "0,4"), 4, "expected '}'"},
        {"{\"a\":" T("F32", "1", "0,4") "}", 3, "end at 4 of 3"},
        {"{\"a\":" T("F32", "1", "0,4") "}", 5, "end at 4 of 5"},
        {"{\"a\":" T("F32", "1", "1,5") "}", 5, "\"a\": a hole"},
        {"{\"a\":" T("F32", "1", "0,4") ",\"b\":" T("U8", "4", "3,7") "}", 7, "\"b\": overlaps"},
        {"{\"a\":" T("F32", "1", "0,4") ",\"b\":" T("U8", "4", "5,9") "}", 9, "\"b\": a hole"},
        {"{\"a\":" T("F32", "1", "0,4") ",\"b\":" T("F32", "1", "0,4") "}", 4, "overlaps"},
        {"{\"a\":" T("F32", "1", "0,4") ",\"a\":" T("F32", "1", "4,8") "}", 8, "two of that name"},
        {"{\"a\":" T("F32", "1", "0,4") ",\"\\u0061\":" T("F32", "1", "4,8") "}", 8, "two of that"},
        {"{\"a\":" T("F32", "2", "0,4") "}", 4, "do not give"},
        {"{\"a\":" T("F32", "1", "4,0") "}", 4, "not begin and end"},
        {"{\"a\":" T("F32", "1", "0") "}", 4, "not begin and end"},
        {"{\"a\":" T("F32", "1", "0,4,8") "}", 4, "too many"},
        {"{\"a\":" T("F32", "-1", "0,4") "}", 4, "whole number"},
        {"{\"a\":" T("F32", "01", "0,4") "}", 4, "whole number"},
        {"{\"a\":" T("F32", "1.0", "0,4") "}", 4, "expected ']'"},
        {"{\"a\":" T("F32", "1e0", "0,4") "}", 4, "expected ']'"},
        {"{\"a\":" T("F32", "\"1\"", "0,4") "}", 4, "whole number"},
        {"{\"a\":" T("F32", "[1]", "0,4") "}", 4, "whole number"},
        {"{\"a\":" T("F32", "1,", "0,4") "}", 4, "whole number"},
        {"{\"a\":" T("F32", "9223372036854775808", "0,4") "}", 4, "too large"},
        {"{\"a\":" T("F32", "1", "0,18446744073709551616") "}", 4, "too large"},
        {"{\"a\":" T("F32", "4611686018427387904,4", "0,0") "}", 0, "do not give"},
        {"{\"a\":" T("F32", "4611686018427387904,4,0", "0,0") "}", 0, "do not give"},
        {"{\"a\":" T("F64", "2305843009213693952", "0,0") "}", 0, "do not give"},
        {"{\"a\":" T("U8", "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1", "0,1") "}", 1, "too many"},
        {"{\"a\":" T("F4", "2", "0,1") "}", 1, "unknown dtype"},
        {"{\"a\":" T("F6_E2M3", "4", "0,3") "}", 3, "unknown dtype"},
        {"{\"a\":" T("f32", "1", "0,4") "}", 4, "unknown dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[1]}}", 4, "twice"},
        {"{\"a\":{\"dtype\":\"F32\",\"more\":1}}", 4, "unknown member"},
        {"{\"a\":{\"dtype\":7}}", 4, "expected '\"'"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "expected '\"'"},
        {"{\"__metadata__\":null}", 0, "expected '{'"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "two members"},
        {"{\"a\\u0000b\":" T("F32", "1", "0,4") "}", 4, "NUL"},
        {"{\"a\nb\":1}", 4, "control character"},
        {"{\"a\\qb\":1}", 4, "no such escape"},
        {"{\"a\\u12g4\":1}", 4, "hex digits"},
        {"{\"a\\ud800\":1}", 4, "surrogate"},
        {"{\"a\\ud800\\u0041\":1}", 4, "surrogate"},
        {"{\"a\\udc00\":1}", 4, "surrogate"},
        {"{\"a\xff\":1}", 4, "not UTF-8"},
        {"{\"a\xc0\x80\":1}", 4, "not UTF-8"},
        {"{\"a\xed\xa0\x80\":1}", 4, "not UTF-8"},
        {"{\"a", 4, "does not end"},
        {"{\"a\\", 4, "no such escape"},
    };
    struct buf head;

    buf_init(&head, 4096);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct err err = ERR_INIT;
        struct tensor_span *spans, span;
        char **names;
        size_t count;
        const int64_t size = head_of(&head, cases[i].json, cases[i].data_n);
        uint8_t *exact = mem_alloc(head.n);

        memcpy(exact, head.p, head.n);
        EXPECT_ERR(safetensors_list(exact, head.n, size, &names, &spans, &count, &err), ERR_INPUT,
                   &err);
        if (!strstr(err.text, cases[i].why))
            print_error("%s\n  expected \"%s\": %s\n", cases[i].json, cases[i].why, err.text);
        EXPECT(strstr(err.text, cases[i].why) != NULL);
        EXPECT(names == NULL && spans == NULL);
        EXPECT_ERR(safetensors_find(exact, head.n, size, "a", &span, &err), ERR_INPUT, &err);
        EXPECT_EQ(rule_of(&head, size), CUT_CONTENT);
        free(exact);
    }
    buf_release(&head);
}

TEST(refuses_absurd_header_lengths)
{
    static const uint64_t lengths[] = {
        0,          1,          3,         100000001,  100 << 20,
        0x7fffffff, 0xffffffff, INT64_MAX, UINT64_MAX, UINT64_MAX - 7};
    uint8_t head[16] = "........{}";
    struct err err = ERR_INIT;
    struct tensor_span *spans;
    char **names;
    size_t count;

    for (size_t i = 0; i < COUNT(lengths); i++)
        for (size_t n = 0; n <= 10; n++) {
            for (int k = 0; k < 8; k++)
                head[k] = (uint8_t)(lengths[i] >> (8 * k));
            EXPECT_ERR(safetensors_list(head, n, 10, &names, &spans, &count, &err), ERR_INPUT,
                       &err);
            EXPECT_ERR(safetensors_list(head, n, INT64_MAX, &names, &spans, &count, &err),
                       ERR_INPUT, &err);
            EXPECT(cut_head_wanted(head, n, 10) <= 10);
            struct cutter *c = cut_new(head, n, INT64_MAX);
            EXPECT_EQ(cut_rule(c), CUT_CONTENT);
            cut_free(c);
        }
}

TEST(finds_one_tensor_or_the_nearest_name)
{
    static const char json[] =
        "{\"layer.weight\":" T("F32", "1", "0,4") ",\"layer.bias\":" T("F32", "1", "4,8") "}";
    struct tensor_span span;
    struct err err = ERR_INIT;
    struct buf head;

    buf_init(&head, 4096);
    const int64_t size = head_of(&head, json, 8);
    EXPECT_OK(safetensors_find(head.p, head.n, size, "layer.bias", &span, &err), &err);
    EXPECT_EQ(span.off, head.n + 4);
    EXPECT_EQ(span.len, 4);
    EXPECT_ERR(safetensors_find(head.p, head.n, size, "layer.wieght", &span, &err), ERR_NOT_FOUND,
               &err);
    EXPECT(strstr(err.text, "\"layer.weight\"") != NULL);
    EXPECT_ERR(safetensors_find(head.p, head.n, size, "zzz", &span, &err), ERR_NOT_FOUND, &err);
    EXPECT(strstr(err.text, "did you mean") == NULL);
    buf_release(&head);
}

TEST(every_dtype_has_its_size)
{
    static const struct {
        const char *dtype;
        int bytes;
        enum hint hint;
    } cases[] = {
        {"BOOL", 1, HINT_NONE},        {"U8", 1, HINT_NONE},          {"I8", 1, HINT_NONE},
        {"F8_E4M3", 1, HINT_NONE},     {"F8_E5M2", 1, HINT_NONE},     {"F8_E8M0", 1, HINT_NONE},
        {"F8_E4M3FNUZ", 1, HINT_NONE}, {"F8_E5M2FNUZ", 1, HINT_NONE}, {"U16", 2, HINT_NONE},
        {"I16", 2, HINT_NONE},         {"F16", 2, HINT_WORDS2},       {"BF16", 2, HINT_WORDS2},
        {"U32", 4, HINT_NONE},         {"I32", 4, HINT_NONE},         {"F32", 4, HINT_WORDS4},
        {"U64", 8, HINT_NONE},         {"I64", 8, HINT_NONE},         {"F64", 8, HINT_NONE},
        {"C64", 8, HINT_NONE},
    };
    struct buf head;
    char json[200];

    buf_init(&head, 4096);
    for (size_t i = 0; i < COUNT(cases); i++) {
        size_t count;

        snprintf(json, sizeof(json), "{\"a\":" T("%s", "5", "0,%d") "}", cases[i].dtype,
                 5 * cases[i].bytes);
        const int64_t size = head_of(&head, json, 5 * (size_t)cases[i].bytes);
        struct cutter *c = cut_new(head.p, head.n, size);
        EXPECT_EQ(cut_rule(c), CUT_TENSORS);
        const struct cut_piece *plan = cut_plan(c, &count);
        EXPECT_EQ(count, 2);
        EXPECT_EQ(plan[1].hint, cases[i].hint);
        cut_free(c);
    }
    buf_release(&head);
}

TEST(plans_tensors)
{
    static const struct gen_tensor tensors[] = {
        {"a", "BF16", 100, 2},        {"b", "BF16", 60 * KIB, 2}, {"none", "F32", 0, 4},
        {"c", "F32", 64 * KIB, 4},    {"d", "F32", 1000, 4},      {"e", "BF16", 1000, 2},
        {"big", "BF16", 20 * MIB, 2}, {"f", "F32", 8, 4},         {"exact", "F32", 8 * MIB, 4},
        {"g", "U8", 65535, 1},        {"h", "U8", 65535, 1},      {"i", "U8", 65535, 1},
        {"j", "U8", 65535, 1},        {"k", "U8", 65535, 1},      {"l", "U8", 65535, 1},
        {"m", "U8", 65535, 1},        {"n", "U8", 65535, 1},      {"o", "U8", 65535, 1},
        {"p", "U8", 65535, 1},        {"q", "U8", 65535, 1},      {"r", "U8", 65535, 1},
        {"s", "U8", 65535, 1},        {"t", "U8", 65535, 1},      {"u", "U8", 65535, 1},
        {"v", "U8", 65535, 1},        {"w", "U8", 17, 1},
    };
    static const struct {
        size_t len;
        enum hint hint;
    } expected[] = {
        {100 + 60 * KIB, HINT_WORDS2},
        {64 * KIB, HINT_WORDS4},
        {2000, HINT_NONE},
        {8 * MIB, HINT_WORDS2},
        {8 * MIB, HINT_WORDS2},
        {4 * MIB, HINT_WORDS2},
        {8, HINT_WORDS4},
        {8 * MIB, HINT_WORDS4},
        {16 * 65535, HINT_NONE},
        {17, HINT_NONE},
    };
    uint64_t seed = 1;
    struct buf file;
    size_t count, chunks, at = 0;
    enum cut_rule rule;

    buf_init(&file, 64 * MIB);
    gen_safetensors(&file, &seed, tensors, COUNT(tensors), 0);
    struct cutter *c = cut_new(file.p, 8 * KIB, (int64_t)file.n);
    EXPECT_EQ(cut_rule(c), CUT_TENSORS);
    const struct cut_piece *plan = cut_plan(c, &count);
    EXPECT_EQ(count, 1 + COUNT(expected));
    EXPECT_EQ(plan[0].off, 0);
    EXPECT_EQ(plan[0].hint, HINT_TEXT);
    EXPECT_EQ(plan[0].len, cut_head_wanted(file.p, 512, (int64_t)file.n));
    for (size_t i = 0; i < COUNT(expected); i++) {
        EXPECT_EQ(plan[i + 1].off, plan[i].off + plan[i].len);
        EXPECT_EQ(plan[i + 1].len, expected[i].len);
        EXPECT_EQ(plan[i + 1].hint, expected[i].hint);
    }
    size_t *ends = gen_cuts(file.p, file.n, &rule, &chunks);
    EXPECT_EQ(rule, CUT_TENSORS);
    EXPECT_EQ(chunks, count);
    for (size_t i = 0; i < count; i++) {
        EXPECT_EQ(ends[i] - at, plan[i].len);
        at = ends[i];
    }
    EXPECT_EQ(at, file.n);
    free(ends);
    cut_free(c);
    buf_release(&file);
}

TEST(long_headers_are_cut_and_short_heads_fall_back)
{
    static const struct gen_tensor tensors[] = {{"a", "F32", 400, 4}};
    uint64_t seed = 1;
    struct buf file;
    size_t count;

    buf_init(&file, 64 * MIB);
    gen_safetensors(&file, &seed, tensors, 1, 9 * MIB);
    const size_t wanted = cut_head_wanted(file.p, 512, (int64_t)file.n);
    EXPECT_EQ(wanted, file.n - 400);
    struct cutter *c = cut_new(file.p, wanted, (int64_t)file.n);
    const struct cut_piece *plan = cut_plan(c, &count);
    EXPECT_EQ(count, 3);
    EXPECT_EQ(plan[0].len, 8 * MIB);
    EXPECT_EQ(plan[1].hint, HINT_TEXT);
    EXPECT_EQ(plan[2].len, 400);
    cut_free(c);
    c = cut_new(file.p, wanted - 1, (int64_t)file.n);
    EXPECT_EQ(cut_rule(c), CUT_CONTENT);
    EXPECT(cut_plan(c, &count) == NULL);
    EXPECT_EQ(count, 0);
    cut_free(c);
    buf_release(&file);
}

/* 2^62 bytes of one tensor would be a plan of 2^39 pieces. */
TEST(incredible_sizes_are_cut_by_content)
{
    struct buf head;

    buf_init(&head, 4096);
    int64_t size =
        head_of(&head, "{\"a\":" T("U8", "4611686018427387904", "0,4611686018427387904") "}", 0);
    EXPECT_EQ(rule_of(&head, size + ((int64_t)1 << 62)), CUT_CONTENT);
    size = head_of(&head, "{\"a\":" T("U8", "1099511627776", "0,1099511627776") "}", 0);
    EXPECT_EQ(rule_of(&head, size + ((int64_t)1 << 40)), CUT_TENSORS);
    buf_release(&head);
}

/* ---- rule 2 ---- */

/* Every cut is at one of the members' starts (count of them, ascending), or inside of what is
 * longer than TAR_LONG. */
static void expect_at_members(const size_t *ends, size_t n, const size_t *starts, size_t count)
{
    size_t m = 0;

    for (size_t i = 0; i + 1 < n; i++) {
        while (m < count && starts[m] < ends[i])
            m++;
        if (m < count && starts[m] == ends[i])
            continue;
        EXPECT(m > 0 && m < count);
        EXPECT(starts[m] - starts[m - 1] > (size_t)TAR_LONG);
    }
}

#define MEMBERS 300

TEST(tar_is_cut_at_members)
{
    struct buf file;
    uint64_t seed = 1;
    size_t starts[MEMBERS + 1], count;
    enum cut_rule rule;
    size_t at = 0, longest = 0;

    buf_init(&file, 256 * MIB);
    for (int i = 0; i < MEMBERS; i++) {
        char name[32];

        starts[i] = file.n;
        snprintf(name, sizeof(name), "%06d.png", i);
        gen_tar_file(&file, &seed, name, i == 150 ? 9 * MIB : gen_below(&seed, 200000));
    }
    starts[MEMBERS] = file.n;
    gen_tar_end(&file);
    size_t *ends = gen_cuts(file.p, file.n, &rule, &count);
    EXPECT_EQ(rule, CUT_TAR);
    EXPECT_EQ(ends[count - 1], file.n);
    expect_at_members(ends, count, starts, MEMBERS + 1);
    for (size_t i = 0; i < count; at = ends[i++]) {
        EXPECT(i + 1 == count || ends[i] - at >= (size_t)TAR_CHUNK_MIN);
        longest = ends[i] - at > longest ? ends[i] - at : longest;
    }
    EXPECT(longest <= (size_t)(TAR_CHUNK_MAX + TAR_LONG + 512));
    EXPECT(count > file.n / (2 * MIB) && count < file.n / (MIB / 2));
    free(ends);
    buf_release(&file);
}

/* One short file after what is built by start; the header of that file must be found. */
static bool finds_next_member(struct buf *file)
{
    const size_t start = file->n;
    struct gear g;
    struct tar_walk t;
    uint64_t seed = 7;
    size_t cut, at = 0;
    bool found = false;

    gear_init(&g);
    for (int i = 0; i < 40; i++)
        gen_tar_file(file, &seed, "next", 100 * KIB + (size_t)i);
    tar_start(&t, &g);
    while (at < file->n) {
        const size_t left = file->n - at;

        cut = tar_cut(&t, (uint8_t *)file->p + at, left < CUT_CHUNK_MAX ? left : CUT_CHUNK_MAX,
                      (int64_t)left);
        at += cut;
        /* Only headers end a chunk of short members; a lost walk cuts by content, nowhere near. */
        if (at > start && at < file->n)
            found = memcmp(file->p + at, "next", 5) == 0;
        if (at > start && at < file->n && !found)
            break;
    }
    buf_clear(file);
    return found;
}

static void fix_sum(char *h)
{
    unsigned sum = 0;

    memset(h + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += (unsigned char)h[i];
    snprintf(h + 148, 8, "%06o", sum);
    h[155] = ' ';
}

static void put_pax(struct buf *b, const char *records, char type)
{
    gen_tar_header(b, "pax", (int64_t)strlen(records), type);
    buf_str(b, records);
    gen_tar_padding(b, strlen(records));
}

TEST(tar_headers_of_every_kind_are_stepped_over)
{
    struct buf b;
    uint64_t seed = 1;

    buf_init(&b, 64 * MIB);
    EXPECT(finds_next_member(&b));
    for (char type = '1'; type <= '6'; type++) { /* a size without data */
        gen_tar_header(&b, "link", 5000, type);
        EXPECT(finds_next_member(&b));
    }
    gen_tar_header(&b, "binary size", 0, '0');
    memset(b.p + 124, 0, 12);
    b.p[124] = (char)0x80;
    b.p[134] = 0x10; /* 4096 */
    fix_sum(b.p);
    gen_noise(&seed, buf_room(&b, 4096), 4096);
    EXPECT(finds_next_member(&b));
    put_pax(&b, "30 mtime=1577836800.123456789\n13 size=5000\n", 'x');
    gen_tar_header(&b, "pax size", 1, '0');
    gen_noise(&seed, buf_room(&b, 5120), 5120);
    EXPECT(finds_next_member(&b));
    put_pax(&b, "19 comment=a=b\n x=\n", 'g');
    put_pax(&b, "", 'x');
    gen_tar_file(&b, &seed, "long name", 600);
    gen_tar_file(&b, &seed, "plain", 600);
    EXPECT(finds_next_member(&b));
    gen_tar_header(&b, "sparse", 512, 'S'); /* two more blocks of map, then a block of data */
    b.p[482] = 1;
    fix_sum(b.p);
    gen_noise(&seed, buf_room(&b, 3 * 512), 3 * 512);
    b.p[512 + 504] = 1;
    b.p[1024 + 504] = 0;
    EXPECT(finds_next_member(&b));
    gen_tar_header(&b, "gnu", 0, '0');
    memcpy(b.p + 257, "ustar  ", 8);
    fix_sum(b.p);
    EXPECT(finds_next_member(&b));
    buf_release(&b);
}

TEST(bad_tar_headers_end_the_walk)
{
    static const char *const pax[] = {"13 size=50x0\n", "13 size=5000 ",
                                      "0 a=b\n",        "999 size=1\n",
                                      "size=1\n",       "99999999999999999999999 a=b\n",
                                      "12 size=-1\n\n", "30 size=99999999999999999999\n"};
    struct buf b;
    uint64_t seed = 1;

    buf_init(&b, 64 * MIB);
    for (size_t i = 0; i < COUNT(pax); i++) {
        put_pax(&b, pax[i], 'x');
        gen_tar_file(&b, &seed, "file", 600);
        EXPECT(!finds_next_member(&b));
    }
    for (int i = 0; i < 20; i++) /* more extension headers than anybody writes */
        put_pax(&b, "", 'x');
    EXPECT(!finds_next_member(&b));
    gen_tar_file(&b, &seed, "sum", 600);
    b.p[3]++;
    EXPECT(!finds_next_member(&b));
    gen_tar_file(&b, &seed, "magic", 600);
    b.p[257] = 'x';
    fix_sum(b.p);
    EXPECT(!finds_next_member(&b));
    for (int i = 0; i < 4; i++) {
        static const char sizes[4][13] = {"99999999999", "-1         ",
                                          "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                                          "\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"};
        gen_tar_header(&b, "size", 0, '0');
        memcpy(b.p + 124, sizes[i], 12);
        fix_sum(b.p);
        EXPECT(!finds_next_member(&b));
    }
    gen_tar_header(&b, "past the end", (int64_t)1 << 32, '0');
    EXPECT(!finds_next_member(&b));
    gen_tar_header(&b, "long extension", 2 * MIB, 'x');
    gen_noise(&seed, buf_room(&b, 2 * MIB), 2 * MIB);
    gen_tar_file(&b, &seed, "file", 600);
    EXPECT(!finds_next_member(&b));
    buf_release(&b);
}

TEST(only_a_header_with_a_good_sum_looks_like_tar)
{
    struct buf b;
    uint64_t seed = 1;

    buf_init(&b, MIB);
    gen_tar_file(&b, &seed, "a", 10);
    EXPECT(tar_looks(b.p, 512));
    EXPECT(!tar_looks(b.p, 511));
    EXPECT(!tar_looks(b.p, 0));
    for (size_t i = 0; i < 512; i++) {
        b.p[i] ^=
            0x40; /* in the sum's own field as well: it becomes a number no more, or another one */
        EXPECT(!tar_looks(b.p, 512) || i == 154 || i == 155);
        b.p[i] ^= 0x40;
    }
    buf_release(&b);
}

/* ---- rule 3 ---- */

TEST(content_chunks_keep_their_bounds)
{
    const size_t n = 64 * MIB;
    uint8_t *p = mem_alloc(n);
    uint64_t seed = 1;
    enum cut_rule rule;
    size_t count, at = 0;

    gen_noise(&seed, p, n);
    size_t *ends = gen_cuts(p, n, &rule, &count);
    EXPECT_EQ(rule, CUT_CONTENT);
    for (size_t i = 0; i < count; at = ends[i++]) {
        EXPECT(ends[i] - at <= GEAR_MAX);
        EXPECT(ends[i] - at > GEAR_MIN || i + 1 == count);
    }
    EXPECT_EQ(at, n);
    EXPECT(n / count > 7 * MIB / 8 && n / count < 5 * MIB / 4);
    free(ends);
    free(p);
}

TEST(runs_of_one_byte_are_cut_at_the_maximum)
{
    const size_t n = GEAR_MAX + 10;
    uint8_t *p = mem_zero(1, n);
    struct gear g;

    gear_init(&g);
    EXPECT_EQ(gear_cut(&g, p, 0, n), GEAR_MAX);
    EXPECT_EQ(gear_cut(&g, p, 0, GEAR_MAX), GEAR_MAX);
    EXPECT_EQ(gear_cut(&g, p, 0, GEAR_MAX - 1), 0);
    EXPECT_EQ(gear_cut(&g, p, GEAR_MAX - 1, n), GEAR_MAX);
    EXPECT_EQ(gear_cut(&g, p, GEAR_MAX + 1, n), GEAR_MAX + 1);
    /* In a run the hash stands still, so a stretch after the average tells of all the rest. */
    for (int byte = 0; byte < 256; byte++) {
        memset(p, byte, 2 * GEAR_AVERAGE);
        EXPECT_EQ(gear_cut(&g, p, GEAR_AVERAGE, GEAR_AVERAGE + 100), 0);
    }
    free(p);
}

TEST(a_boundary_depends_on_64_bytes)
{
    struct gear g;
    uint8_t *p = mem_alloc(4 * MIB);
    uint64_t seed = 1;

    gear_init(&g);
    gen_noise(&seed, p, 4 * MIB);
    const size_t cut = gear_cut(&g, p, 0, 4 * MIB);
    EXPECT(cut > GEAR_MIN && cut < GEAR_MAX);
    /* All else may change: here to a byte whose runs give no boundary. */
    memset(p, 0, cut - 64);
    memset(p + cut, 0, 4 * MIB - cut);
    EXPECT_EQ(gear_cut(&g, p, 0, 4 * MIB), cut);
    EXPECT_EQ(gear_cut(&g, p, cut - 1, 4 * MIB), cut);
    EXPECT_EQ(gear_cut(&g, p, cut, 4 * MIB), GEAR_MAX);
    EXPECT_EQ(gear_cut(&g, p, 0, cut), cut);
    EXPECT_EQ(gear_cut(&g, p, 0, cut - 1), 0);
    p[cut - 32] ^= 1;
    EXPECT_EQ(gear_cut(&g, p, 0, 4 * MIB), GEAR_MAX);
    free(p);
}

TEST(small_and_empty_objects)
{
    static const char text[] = "some text, which is what the hint says";
    enum hint hint;
    struct cutter *c = cut_new(NULL, 0, 0);

    EXPECT_EQ(cut_rule(c), CUT_CONTENT);
    EXPECT_EQ(cut_next(c, NULL, 0, &hint), 0);
    EXPECT_EQ(cut_next(c, NULL, 0, &hint), 0);
    cut_free(c);
    cut_free(NULL);
    c = cut_new(text, sizeof(text) - 1, sizeof(text) - 1);
    EXPECT_EQ(cut_next(c, text, sizeof(text) - 1, &hint), sizeof(text) - 1);
    EXPECT_EQ(hint, HINT_TEXT);
    EXPECT_EQ(cut_next(c, NULL, 0, &hint), 0);
    cut_free(c);
}

TEST(tells_how_much_head_it_wants)
{
    static const struct {
        const char *first;
        size_t n;
        int64_t size;
        size_t wanted;
    } cases[] = {
        {"", 0, 0, 0},
        {"abc", 3, 3, 3},
        {"abc", 3, 10000, 512},
        {"\x10\x27\0\0\0\0\0\0{", 9, 1 << 20, 10008},
        {"\x10\x27\0\0\0\0\0\0{", 9, 10008, 10008},
        {"\x10\x27\0\0\0\0\0\0{", 9, 10007, 512},
        {"\x10\x27\0\0\0\0\0\0[", 9, 1 << 20, 512},
        {"\x10\x27\0\0\0\0\0\0", 8, 1 << 20, 512},
        {"\0\0\0\7\0\0\0\0{", 9, INT64_MAX, 512}, /* 112 MiB */
    };

    for (size_t i = 0; i < COUNT(cases); i++)
        EXPECT_EQ(cut_head_wanted(cases[i].first, cases[i].n, cases[i].size), cases[i].wanted);
}

RUN(reads_headers_in_any_spelling, refuses_bad_headers_and_cuts_by_content,
    refuses_absurd_header_lengths, finds_one_tensor_or_the_nearest_name, every_dtype_has_its_size,
    plans_tensors, long_headers_are_cut_and_short_heads_fall_back,
    incredible_sizes_are_cut_by_content, tar_is_cut_at_members,
    tar_headers_of_every_kind_are_stepped_over, bad_tar_headers_end_the_walk,
    only_a_header_with_a_good_sum_looks_like_tar, content_chunks_keep_their_bounds,
    runs_of_one_byte_are_cut_at_the_maximum, a_boundary_depends_on_64_bytes,
    small_and_empty_objects, tells_how_much_head_it_wants)
