/* What was not changed keeps its chunks; what the header parser accepts, a slow model accepts too,
 * and reads the same. */
#include "base/hash.h"
#include "base/json.h"
#include "store/cut.h"
#include "tests/check.h"
#include "tests/store_gen.h"

#define MIB ((size_t)1 << 20)

/* ---- changed objects ---- */

static int by_digest(const void *a, const void *b)
{
    return digest_cmp(a, b);
}

/* The ids of the chunks, sorted. */
static struct digest *chunk_ids(const struct buf *b, enum cut_rule rule, size_t *count)
{
    enum cut_rule is;
    size_t *ends = gen_cuts(b->p, b->n, &is, count), at = 0;
    struct digest *ids = mem_zero(*count, sizeof(*ids));

    EXPECT_EQ(is, rule);
    for (size_t i = 0; i < *count; at = ends[i++])
        sha256_of(b->p + at, ends[i] - at, &ids[i]);
    qsort(ids, *count, sizeof(*ids), by_digest);
    free(ends);
    return ids;
}

/* Chunks of b that a has not. */
static size_t fresh_chunks(const struct buf *a, const struct buf *b, enum cut_rule rule)
{
    size_t a_count, b_count, fresh = 0;
    struct digest *old = chunk_ids(a, rule, &a_count), *new = chunk_ids(b, rule, &b_count);

    for (size_t i = 0; i < b_count; i++)
        fresh += !bsearch(&new[i], old, a_count, sizeof(*old), by_digest);
    free(old);
    free(new);
    return fresh;
}

/* b = a with n bytes of noise put in at a place, and cut bytes taken away there. */
static void splice(struct buf *b, const struct buf *a, uint64_t *seed, size_t at, size_t n,
                   size_t cut)
{
    void *room;

    buf_clear(b);
    buf_add(b, a->p, at);
    room = buf_room(b, n);
    EXPECT(room != NULL);
    gen_noise(seed, room, n);
    buf_add(b, a->p + at + cut, a->n - at - cut);
}

TEST(an_edit_changes_few_chunks)
{
    struct buf a, b;
    size_t fresh = 0, worst = 0;

    buf_init(&a, 64 * MIB);
    buf_init(&b, 64 * MIB);
    for (uint64_t i = 0; i < 24; i++) {
        uint64_t seed = i;
        const size_t n = 24 * MIB;

        buf_clear(&a);
        gen_noise(&seed, buf_room(&a, n), n);
        splice(&b, &a, &seed, gen_below(&seed, n - 1000), gen_below(&seed, 1000),
               gen_below(&seed, 1000));
        const size_t f = fresh_chunks(&a, &b, CUT_CONTENT);
        fresh += f;
        worst = f > worst ? f : worst;
    }
    /* One chunk holds the edit; a few more differ until both sides cut at the same place again. */
    print_message("fresh chunks: %zu of 24 edits, at most %zu\n", fresh, worst);
    EXPECT(fresh <= 24 * 3);
    EXPECT(worst <= 8);
    buf_release(&a);
    buf_release(&b);
}

/* Files of a seed each, so that an archive can be made again without some of them. */
static void make_tar(struct buf *out, uint64_t first, uint64_t last, uint64_t without)
{
    buf_clear(out);
    for (uint64_t i = first; i < last; i++) {
        uint64_t seed = i;
        char name[32];

        if (i == without)
            continue;
        snprintf(name, sizeof(name), "%06llu.jpg", (unsigned long long)i);
        gen_tar_file(out, &seed, name, i % 40 == 17 ? 5 * MIB : gen_below(&seed, 300000));
    }
    gen_tar_end(out);
}

TEST(a_tar_member_more_changes_few_chunks)
{
    struct buf a, b;
    size_t fresh = 0, worst = 0;

    buf_init(&a, 64 * MIB);
    buf_init(&b, 64 * MIB);
    for (uint64_t i = 0; i < 16; i++) {
        make_tar(&a, i * 1000, i * 1000 + 100, 0);
        make_tar(&b, i * 1000, i * 1000 + 100, i * 1000 + 10 + 4 * i);
        const size_t f = fresh_chunks(&b, &a, CUT_TAR);
        fresh += f;
        worst = f > worst ? f : worst;
    }
    print_message("fresh chunks: %zu of 16 members, at most %zu\n", fresh, worst);
    EXPECT(fresh <= 16 * 4);
    EXPECT(worst <= 10);
    buf_release(&a);
    buf_release(&b);
}

TEST(a_longer_header_changes_one_chunk)
{
    static const struct gen_tensor tensors[] = {{"a", "BF16", 9 * MIB + 2, 2},
                                                {"b", "F32", 400, 4},
                                                {"c", "F32", 800, 4},
                                                {"d", "BF16", MIB, 2}};
    struct buf a, b;
    uint64_t seed = 1;

    buf_init(&a, 64 * MIB);
    buf_init(&b, 64 * MIB);
    gen_safetensors(&a, &seed, tensors, 4, 0);
    seed = 1;
    gen_safetensors(&b, &seed, tensors, 4, 77);
    EXPECT_EQ(fresh_chunks(&a, &b, CUT_TENSORS), 1);
    b.p[b.n - 1] ^= 1;
    EXPECT_EQ(fresh_chunks(&a, &b, CUT_TENSORS), 2);
    buf_release(&a);
    buf_release(&b);
}

/* ---- headers ---- */

static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {{"BOOL", 1},    {"U8", 1},  {"I8", 1},          {"F8_E8M0", 1},    {"F8_E4M3", 1},
              {"F8_E5M2", 1}, {"I16", 2}, {"U16", 2},         {"F16", 2},        {"BF16", 2},
              {"I32", 4},     {"U32", 4}, {"F32", 4},         {"C64", 8},        {"I64", 8},
              {"U64", 8},     {"F64", 8}, {"F8_E4M3FNUZ", 1}, {"F8_E5M2FNUZ", 1}};

static void put_spaces(struct buf *out, uint64_t *seed)
{
    while (gen_below(seed, 6) == 0)
        buf_char(out, " \t\n\r"[gen_below(seed, 4)]);
}

static void put_token(struct buf *out, uint64_t *seed, const char *token)
{
    put_spaces(out, seed);
    buf_str(out, token);
    put_spaces(out, seed);
}

/* The three members of a tensor in any order; rank and shape such that the bytes are len. */
static size_t put_tensor(struct buf *out, uint64_t *seed, size_t begin)
{
    const size_t d = gen_below(seed, sizeof(dtypes) / sizeof(dtypes[0])),
                 first = gen_below(seed, 3);
    size_t shape[4], len = dtypes[d].bytes;
    const size_t rank = gen_below(seed, 5);

    for (size_t k = 0; k < rank; k++) {
        shape[k] = gen_below(seed, 4);
        len *= shape[k];
    }
    put_token(out, seed, "{");
    for (size_t m = 0; m < 3; m++) {
        if (m > 0)
            put_token(out, seed, ",");
        if ((first + m) % 3 == 0) {
            buf_printf(out, "\"dtype\":\"%s\"", dtypes[d].name);
        } else if ((first + m) % 3 == 1) {
            buf_printf(out, "\"data_offsets\" : [ %zu ,%zu]", begin, begin + len);
        } else {
            put_token(out, seed, "\"shape\":[");
            for (size_t k = 0; k < rank; k++)
                buf_printf(out, "%s%zu", k ? "," : "", shape[k]);
            put_token(out, seed, "]");
        }
    }
    put_token(out, seed, "}");
    return begin + len;
}

/* A header that is fine; tensors in the file's order or not, it does not matter which. */
static size_t random_header(uint64_t *seed, struct buf *out)
{
    static const char *const names[] = {"w", "\\u0062", "\xc3\xa4.", "q\\\"\\\\", "\\ud83d\\ude00"};
    const size_t count = gen_below(seed, 8);
    size_t end = 0;

    buf_clear(out);
    buf_str(out, "........{");
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            put_token(out, seed, ",");
        put_spaces(out, seed);
        buf_printf(out, "\"%s%zu\":", names[gen_below(seed, 5)], i);
        end = put_tensor(out, seed, end);
    }
    if (gen_below(seed, 2))
        buf_printf(out, "%s\"__metadata__\":{\"a\":\"b\",\"\\n\":\"%%\"}", count ? "," : "");
    put_token(out, seed, "}");
    return end;
}

static void fix_length(struct buf *b)
{
    for (int i = 0; i < 8; i++)
        b->p[i] = (char)((b->n - 8) >> (8 * i));
}

static size_t model_dtype_bytes(const char *name)
{
    for (size_t i = 0; name && i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return dtypes[i].bytes;
    return 0;
}

/* Jansson's view of the tensor: the same as ours? */
static bool model_agrees(const json_t *header, const char *name, const struct tensor_span *span,
                         size_t data_at)
{
    const json_t *t = json_object_get(header, name), *shape = json_object_get(t, "shape");
    const json_t *offsets = json_object_get(t, "data_offsets");
    const int64_t begin = json_integer_value(json_array_get(offsets, 0));
    const int64_t end = json_integer_value(json_array_get(offsets, 1));
    const char *dtype = json_string_value(json_object_get(t, "dtype"));
    int64_t bytes = (int64_t)model_dtype_bytes(dtype);

    if (json_object_size(t) != 3 || json_array_size(offsets) != 2 || bytes == 0 ||
        json_array_size(shape) != (size_t)span->rank || strcmp(dtype, span->dtype) != 0)
        return false;
    for (int k = 0; k < span->rank; k++) {
        const json_t *dimension = json_array_get(shape, (size_t)k);

        if (!json_is_integer(dimension) || json_integer_value(dimension) != span->shape[k])
            return false;
        bytes *= span->shape[k];
    }
    return span->off == (int64_t)data_at + begin && span->len == end - begin && span->len == bytes;
}

/* Accepted: then JSON, every member a tensor or the metadata, and the tensors tile the data. */
static void expect_model_agrees(const struct buf *b, size_t data_n, char *const *names,
                                const struct tensor_span *spans, size_t count)
{
    struct err err = ERR_INIT;
    int64_t end = (int64_t)b->n;
    json_t *header;

    EXPECT_OK(json_parse(b->p + 8, b->n - 8, b->n, "header", &header, &err), &err);
    EXPECT_EQ(json_object_size(header) - (json_object_get(header, "__metadata__") != NULL), count);
    for (size_t i = 0; i < count; i++) {
        EXPECT(model_agrees(header, names[i], &spans[i], b->n));
        EXPECT_EQ(spans[i].off, end);
        end += spans[i].len;
    }
    EXPECT_EQ(end, b->n + data_n);
    json_decref(header);
}

static void damage(uint64_t *seed, struct buf *b)
{
    static const char likely[] = "0123456789\"\\{}[]:, aFBIU8_dnu";
    const size_t at = 8 + gen_below(seed, b->n - 8);
    const char byte =
        gen_below(seed, 8) ? likely[gen_below(seed, sizeof(likely) - 1)] : (char)gen_u64(seed);

    switch (gen_below(seed, 3)) {
    case 0:
        b->p[at] = byte;
        break;
    case 1:
        buf_char(b, 0);
        memmove(b->p + at + 1, b->p + at, b->n - 1 - at);
        b->p[at] = byte;
        break;
    default:
        memmove(b->p + at, b->p + at + 1, b->n - 1 - at);
        b->n--;
    }
}

TEST(accepted_headers_are_as_the_model_reads_them)
{
    struct buf good, b;
    int accepted = 0, refused = 0;

    buf_init(&good, 1 << 16);
    buf_init(&b, 1 << 16);
    for (uint64_t i = 0; i < 1500; i++) {
        uint64_t seed = i;
        const size_t data_n = random_header(&seed, &good);

        for (int round = 0; round < 30; round++) {
            struct err err = ERR_INIT;
            struct tensor_span *spans;
            char **names;
            size_t count;

            buf_clear(&b);
            buf_add(&b, good.p, good.n);
            if (round > 0)
                damage(&seed, &b);
            fix_length(&b);
            const enum err_code rc =
                safetensors_list(b.p, b.n, (int64_t)(b.n + data_n), &names, &spans, &count, &err);

            if (round == 0)
                EXPECT_OK(rc, &err);
            EXPECT(rc == OK || rc == ERR_INPUT);
            accepted += !rc;
            refused += rc != OK;
            if (rc)
                continue;
            expect_model_agrees(&b, data_n, names, spans, count);
            free(names);
            free(spans);
        }
    }
    print_message("accepted %d, refused %d\n", accepted, refused);
    EXPECT(accepted > 2500 && refused > 10000);
    buf_release(&good);
    buf_release(&b);
}

RUN(an_edit_changes_few_chunks, a_tar_member_more_changes_few_chunks,
    a_longer_header_changes_one_chunk, accepted_headers_are_as_the_model_reads_them)
