/* safetensors: round trips to the byte, strictness in both directions, hostile headers, every failing call. */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "base/str.h"
#include "kernels/weights.h"
#include "tests/check.h"

static struct err err = ERR_INIT;

static struct params *make(void)
{
    struct params *ps = params_new(DT_F32);
    int i;

    EXPECT_OK(params_add(ps, "zeta.weight", SHAPE(3, 5), PARAM_NORMAL, 1, &i, &err), &err);
    EXPECT_OK(params_add(ps, "alpha.bias", SHAPE(17), PARAM_NORMAL, 1, &i, &err), &err);
    EXPECT_OK(params_add(ps, "conv", SHAPE(2, 3, 1, 1), PARAM_NORMAL, 1, &i, &err), &err);
    EXPECT_OK(params_seal(ps, 4, &err), &err);
    return ps;
}

static void read_all(const char *path, struct buf *out)
{
    buf_init(out, 1 << 20);
    EXPECT_OK(os_read_file(AT_FDCWD, path, 1 << 20, out, &err), &err);
}

TEST(round_trip)
{
    static const struct weights_pair meta[] = {{"step", "12"}, {"a\"b", "c"}, {NULL, NULL}};
    struct params *ps = make(), *back = make();
    char dir[TMPDIR_MAX], one[300], two[300];
    struct buf x, y;
    struct weights *w;

    tmpdir_new(dir);
    snprintf(one, sizeof(one), "%s/one.safetensors", dir);
    snprintf(two, sizeof(two), "%s/two.safetensors", dir);
    EXPECT_OK(weights_save(ps, ps->value, DT_F32, meta, one, &err), &err);
    memset(back->value, 0, (size_t)back->total * 4);
    EXPECT_OK(weights_load(back, one, &err), &err);
    EXPECT_MEM(back->value, ps->value, (size_t)ps->total * 4);
    EXPECT_OK(weights_save(back, back->value, DT_F32, meta, two, &err), &err);
    read_all(one, &x);
    read_all(two, &y);
    EXPECT_EQ(x.n, y.n);
    EXPECT_MEM(x.p, y.p, x.n);
    EXPECT_EQ((unsigned char)x.p[0] % 8, 0);
    EXPECT(memcmp(x.p + 8,
                  "{\"__metadata__\":{\"a\\\"b\":\"c\",\"format\":\"pt\",\"step\":\"12\"},"
                  "\"alpha.bias\":{\"dtype\":\"F32\",\"shape\":[17],\"data_offsets\":[0,68]}",
                  60) == 0);
    EXPECT_OK(weights_open(one, &w, &err), &err);
    EXPECT_EQ(weights_count(w), 3);
    EXPECT_STR(weights_at(w, 0)->name, "alpha.bias");
    EXPECT_STR(weights_meta(w, "step"), "12");
    EXPECT(weights_find(w, "nobody") == NULL && weights_meta(w, "nobody") == NULL);
    EXPECT(weights_get(weights_find(w, "conv"), 5) == (double)((float *)params_value(ps, 2))[5]);
    weights_close(w);
    buf_release(&x);
    buf_release(&y);
    tmpdir_free(dir);
    params_free(ps);
    params_free(back);
}

TEST(bf16_rounds_to_nearest_even)
{
    struct params *ps = make(), *back = make();
    char dir[TMPDIR_MAX], path[300];

    EXPECT_EQ(bf16_of(1.0f), 0x3f80);
    EXPECT_EQ(bf16_of(1.00390625f), 0x3f80); /* a tie, down to even */
    EXPECT_EQ(bf16_of(1.01171875f), 0x3f82); /* a tie, up to even */
    EXPECT_EQ(bf16_of(1.005f), 0x3f81);
    EXPECT(isnan(bf16_to_f32(bf16_of(NAN))) && isinf(bf16_to_f32(bf16_of(3.4e38f))));
    tmpdir_new(dir);
    snprintf(path, sizeof(path), "%s/x", dir);
    EXPECT_OK(weights_save(ps, ps->value, DT_BF16, NULL, path, &err), &err);
    EXPECT_OK(weights_load(back, path, &err), &err);
    for (int64_t i = 0; i < ps->total; i++)
        EXPECT(((float *)back->value)[i] == bf16_to_f32(bf16_of(((float *)ps->value)[i])));
    tmpdir_free(dir);
    params_free(ps);
    params_free(back);
}

/* A file of this header (padded) and n bytes of zeros. */
static void forge(const char *path, const char *header, size_t n, uint64_t claimed)
{
    struct buf b;
    size_t size = (strlen(header) + 7) / 8 * 8;

    buf_init(&b, 1 << 16);
    for (int i = 0; i < 8; i++)
        buf_char(&b, (char)((claimed ? claimed : size) >> (8 * i)));
    buf_str(&b, header);
    while (b.n < 8 + size)
        buf_char(&b, ' ');
    for (size_t i = 0; i < n; i++)
        buf_char(&b, 0);
    EXPECT_OK(os_write_file(AT_FDCWD, path, b.p, b.n, 0600, &err), &err);
    buf_release(&b);
}

struct hostile {
    const char *header;
    size_t data;
    uint64_t claimed;
    const char *says;
};

TEST(hostile_files_are_refused)
{
    static const struct hostile cases[] = {
        {"{}", 0, 1u << 20, "longer than it"},
        {"{}", 0, UINT64_MAX, "longer than it"},
        {"{}", 4, 0, "belong to no tensor"},
        {"[1]", 0, 0, "not an object"},
        {"{\"a\":", 0, 0, "header"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, 0, "a"},
        {"{\"a\":{\"dtype\":\"F99\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, 0, "known dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4, 0,
         "nothing else"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, 0, "do not hold"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, 0, "dimension 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4, 0, "dimension 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1099511627776,1099511627776],\"data_offsets\":[0,4]}"
         "}",
         4, 0, "dimension 1"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, 0,
         "at most 5"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, 0, "do not hold"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 4, 0, "do not hold"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, 0, "hole"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         4, 0, "overlaps"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, 0, "two numbers"},
        {"{\"a\":7}", 4, 0, "known dtype"},
    };
    char dir[TMPDIR_MAX], path[300];

    tmpdir_new(dir);
    snprintf(path, sizeof(path), "%s/x", dir);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct weights *w;

        err = (struct err)ERR_INIT;
        forge(path, cases[i].header, cases[i].data, cases[i].claimed);
        EXPECT_ERR(weights_open(path, &w, &err), ERR_INPUT, &err);
        if (!strstr(err.text, cases[i].says))
            printf("case %zu said: %s\n", i, err.text);
        EXPECT(w == NULL && strstr(err.text, cases[i].says) && strstr(err.text, path));
    }
    tmpdir_free(dir);
}

TEST(names_and_shapes_are_strict)
{
    struct params *ps = make(), *more = make(), *other = params_new(DT_F32);
    char dir[TMPDIR_MAX], path[300];
    int i;

    tmpdir_new(dir);
    snprintf(path, sizeof(path), "%s/x", dir);
    EXPECT_OK(weights_save(ps, ps->value, DT_F32, NULL, path, &err), &err);
    EXPECT_OK(params_add(other, "alpha.bias", SHAPE(16), PARAM_ZERO, 0, &i, &err), &err);
    EXPECT_OK(params_seal(other, 1, &err), &err);
    EXPECT_ERR(weights_load(other, path, &err), ERR_INPUT, &err);
    EXPECT(strstr(err.text, "the model has no parameter conv"));
    params_free(other);
    other = params_new(DT_F32);
    for (int k = 0; k < ps->count; k++)
        EXPECT_OK(params_add(other, ps->list[k].name, k ? ps->list[k].shape : SHAPE(5, 3),
                             PARAM_ZERO, 0, &i, &err),
                  &err);
    EXPECT_OK(params_add(other, "new", SHAPE(1), PARAM_ZERO, 0, &i, &err), &err);
    EXPECT_OK(params_seal(other, 1, &err), &err);
    err = (struct err)ERR_INIT;
    EXPECT_ERR(weights_load(other, path, &err), ERR_INPUT, &err);
    EXPECT(strstr(err.text, "zeta.weight is F32 (3, 5), the model needs (5, 3)"));
    tmpdir_free(dir);
    params_free(ps);
    params_free(more);
    params_free(other);
}

/* Whatever call fails, the file is the old one or the new one, and nothing else is left. */
TEST(any_failure_leaves_a_whole_file)
{
    struct params *ps = make(), *back = make();
    char dir[TMPDIR_MAX], path[300];
    bool fired = true;

    tmpdir_new(dir);
    snprintf(path, sizeof(path), "%s/x", dir);
    EXPECT_OK(weights_save(ps, ps->value, DT_F32, NULL, path, &err), &err);
    for (int64_t nth = 0; fired; nth++) {
        struct err e = ERR_INIT;
        enum err_code rc;
        struct os_entry *entries;
        size_t count;
        int fd;

        fault_arm(nth);
        rc = weights_save(ps, ps->value, DT_BF16, NULL, path, &e);
        if (rc == OK)
            rc = weights_load(back, path, &e);
        fired = fault_disarm();
        EXPECT_EQ(fired, rc != OK);
        EXPECT_OK(weights_load(back, path, &err), &err);
        EXPECT_OK(os_open_dir(AT_FDCWD, dir, &fd, &err), &err);
        EXPECT_OK(os_list(fd, &entries, &count, &err), &err);
        EXPECT_EQ(count, 1);
        free(entries);
        os_close_quiet(&fd);
        EXPECT(nth < 100);
    }
    tmpdir_free(dir);
    params_free(ps);
    params_free(back);
}

RUN(round_trip, bf16_rounds_to_nearest_even, hostile_files_are_refused, names_and_shapes_are_strict,
    any_failure_leaves_a_whole_file)
