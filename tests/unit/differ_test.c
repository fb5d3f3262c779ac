/* Where two artifacts first differ, with differences computed by hand. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "orchestrator/differ.h"
#include "store/tree.h"
#include "store/writer.h"
#include "tests/check.h"

struct world {
    char dir[TMPDIR_MAX];
    struct store *st;
    struct writer *w;
    struct err err;
};

static void world_new(struct world *w)
{
    *w = (struct world){.err = ERR_INIT};
    tmpdir_new(w->dir);
    EXPECT_OK(store_init(w->dir, NULL, &w->err), &w->err);
    EXPECT_OK(store_open(w->dir, STORE_WRITE, &w->st, &w->err), &w->err);
    EXPECT_OK(writer_open(w->st, &w->w, &w->err), &w->err);
}

static void world_free(struct world *w)
{
    writer_release(w->w);
    store_close(w->st);
    tmpdir_free(w->dir);
}

static struct digest put(struct world *w, const void *p, size_t n)
{
    struct digest d;

    EXPECT_OK(writer_put(w->w, OBJ_BLOB, p, n, &d, &w->err), &w->err);
    return d;
}

static struct digest put_text(struct world *w, const char *s)
{
    return put(w, s, strlen(s));
}

/* A safetensors file of one header and its payload. */
static struct digest put_tensors(struct world *w, const char *header, const void *data, size_t n)
{
    unsigned char file[1024] = {0};
    const size_t h = strlen(header);

    EXPECT(8 + h + n <= sizeof(file));
    file[0] = (unsigned char)(h & 255);
    file[1] = (unsigned char)(h >> 8);
    memcpy(file + 8, header, h);
    memcpy(file + 8 + h, data, n);
    return put(w, file, 8 + h + n);
}

static void add(struct world *w, struct tree *t, enum tree_mode mode, const char *name,
                const struct digest *d, const char *target)
{
    const struct tree_entry e = {.mode = mode,
                                 .name = str_of(name),
                                 .digest = d ? *d : (struct digest){{0}},
                                 .target = str_of(target)};

    EXPECT_OK(tree_add(t, &e, 0, &w->err), &w->err);
}

static struct digest put_tree(struct world *w, struct tree *t)
{
    struct buf text;
    struct digest d;

    buf_init(&text, 1 << 20);
    EXPECT_OK(tree_encode(t, &text, &w->err), &w->err);
    EXPECT_OK(writer_put(w->w, OBJ_TREE, text.p, text.n, &d, &w->err), &w->err);
    buf_release(&text);
    tree_release(t);
    return d;
}

static struct difference look(struct world *w, enum obj_kind kind, struct digest a, struct digest b)
{
    struct difference d;

    EXPECT_OK(writer_commit(w->w, &w->err), &w->err);
    EXPECT_OK(differ(w->st, kind, &a, &b, &d, &w->err), &w->err);
    return d;
}

static void expect_said(const struct difference *d, const char *text)
{
    struct buf b;

    buf_init(&b, 4096);
    differ_say(d, &b);
    EXPECT_STR(b.p, text);
    buf_release(&b);
}

TEST(bytes)
{
    struct world w;
    struct difference d;

    world_new(&w);
    const struct digest a = put_text(&w, "hello world"), b = put_text(&w, "hello World"),
                        c = put_text(&w, "hello"), e = put_text(&w, "");

    d = look(&w, OBJ_BLOB, a, a);
    EXPECT(d.equal);
    expect_said(&d, "equal");
    d = look(&w, OBJ_BLOB, a, b);
    EXPECT(!d.equal);
    expect_said(&d, "first different byte at 6");
    d = look(&w, OBJ_BLOB, a, c); /* one is the start of the other: they differ where it ends */
    expect_said(&d, "first different byte at 5");
    d = look(&w, OBJ_BLOB, e, c);
    expect_said(&d, "first different byte at 0");
    world_free(&w);
}

#define ONE(dtype, n, bytes)                                                                       \
    "{\"w\":{\"dtype\":\"" dtype "\",\"shape\":[" #n "],\"data_offsets\":[0," #bytes "]}}"

/* The same header twice: what the values differ by is known. */
static double largest(const char *header, const void *a, const void *b, size_t n)
{
    struct world w;
    struct difference d;

    world_new(&w);
    const struct digest x = put_tensors(&w, header, a, n), y = put_tensors(&w, header, b, n);

    d = look(&w, OBJ_BLOB, x, y);
    EXPECT(!d.equal);
    EXPECT_STR(d.what, "tensor");
    EXPECT_STR(d.tensor, "w");
    EXPECT_EQ(d.tensors, 1);
    world_free(&w);
    return d.largest;
}

TEST(tensors_by_type)
{
    /* 1, 2, -3 against 1.5, 2, -3.25: 0.5 */
    const float f32a[] = {1, 2, -3}, f32b[] = {1.5F, 2, -3.25F};
    const double f64a[] = {1e-9, 1}, f64b[] = {3e-9, 1};
    /* bf16: 1.0 = 3F80, 1.5 = 3FC0; -2 = C000, 2 = 4000 */
    const unsigned char bf16a[] = {0x80, 0x3F, 0x00, 0xC0}, bf16b[] = {0xC0, 0x3F, 0x00, 0x40};
    /* f16: 1.0 = 3C00, 1.5 = 3E00; the smallest subnormal 0001 = 2^-24, zero 0000 */
    const unsigned char f16a[] = {0x00, 0x3C}, f16b[] = {0x00, 0x3E};
    const unsigned char tiny[] = {0x01, 0x00}, zero[] = {0x00, 0x00};
    const unsigned char i8a[] = {0xFF, 0x01}, i8b[] = {0x7F, 0x01}; /* -1, 127 */
    const int64_t i64a[] = {-5}, i64b[] = {INT64_C(1) << 40};
    const unsigned char u16a[] = {0xFF, 0xFF}, u16b[] = {0x00, 0x00};

    EXPECT(largest(ONE("F32", 3, 12), f32a, f32b, 12) == 0.5);
    EXPECT(largest(ONE("F64", 2, 16), f64a, f64b, 16) == 3e-9 - 1e-9);
    EXPECT(largest(ONE("BF16", 2, 4), bf16a, bf16b, 4) == 4);
    EXPECT(largest(ONE("F16", 1, 2), f16a, f16b, 2) == 0.5);
    EXPECT(largest(ONE("F16", 1, 2), tiny, zero, 2) == ldexp(1, -24));
    EXPECT(largest(ONE("I8", 2, 2), i8a, i8b, 2) == 128);
    EXPECT(largest(ONE("I64", 1, 8), i64a, i64b, 8) == (double)((INT64_C(1) << 40) + 5));
    EXPECT(largest(ONE("U16", 1, 2), u16a, u16b, 2) == 65535);
}

TEST(tensors_that_are_no_numbers)
{
    const float nan_a[] = {NAN, 1}, nan_b[] = {NAN, 3}, one[] = {1, 1}, inf[] = {INFINITY, 1};
    const unsigned char minus_zero[] = {0, 0, 0, 0x80}, plus_zero[] = {0, 0, 0, 0};

    EXPECT(largest(ONE("F32", 2, 8), nan_a, nan_b, 8) == 2); /* NaN against NaN is no difference */
    EXPECT(isinf(largest(ONE("F32", 2, 8), nan_a, one, 8)));
    EXPECT(isinf(largest(ONE("F32", 2, 8), inf, one, 8)));
    EXPECT(largest(ONE("F32", 1, 4), minus_zero, plus_zero, 4) ==
           0); /* other bytes, equal values */
}

TEST(the_first_tensor_in_file_order_and_how_many)
{
    static const char header[] = "{\"z\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                                 "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]},"
                                 "\"m\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}";
    const float x[] = {1, 2, 3}, y[] = {1, 2.25F, 9};
    struct world w;
    struct difference d;

    world_new(&w);
    const struct digest a = put_tensors(&w, header, x, 12), b = put_tensors(&w, header, y, 12);

    d = look(&w, OBJ_BLOB, a, b);
    EXPECT_STR(d.tensor, "a");
    expect_said(&d, "tensor a, largest difference 0.25 (2 tensors differ)");
    world_free(&w);
}

TEST(tensors_of_another_form_are_bytes)
{
    const float x[] = {1, 2};
    struct world w;
    struct difference d;

    world_new(&w);
    const struct digest a = put_tensors(&w, ONE("F32", 2, 8), x, 8),
                        b = put_tensors(&w, ONE("I32", 2, 8), x, 8),
                        broken = put_tensors(&w, "{\"w\":{}}", x, 8);

    d = look(&w, OBJ_BLOB, a, b);
    EXPECT_STR(d.what, "bytes");
    EXPECT_EQ(d.offset, 8 + (int64_t)strlen("{\"w\":{\"dtype\":\""));
    d = look(&w, OBJ_BLOB, a, broken);
    EXPECT_STR(d.what, "bytes");
    EXPECT_EQ(d.offset, 0);
    world_free(&w);
}

TEST(trees)
{
    struct world w;
    struct tree t = {0};
    struct difference d;

    world_new(&w);
    const struct digest same = put_text(&w, "same"), x = put_text(&w, "x"), y = put_text(&w, "y");

    tree_init(&t);
    add(&w, &t, TREE_FILE, "b", &x, "");
    const struct digest sub_x = put_tree(&w, &t);
    tree_init(&t);
    add(&w, &t, TREE_FILE, "b", &y, "");
    const struct digest sub_y = put_tree(&w, &t);
    struct digest tops[5];

    for (int i = 0; i < 5; i++) {
        tree_init(&t);
        add(&w, &t, i == 3 ? TREE_EXEC : TREE_FILE, "a", &same, "");
        add(&w, &t, TREE_LINK, "l", NULL, i == 4 ? "z" : "a");
        add(&w, &t, TREE_DIR, "sub", i == 1 ? &sub_y : &sub_x, "");
        if (i != 2)
            add(&w, &t, TREE_FILE, "z\x01", &same, "");
        tops[i] = put_tree(&w, &t);
    }
    d = look(&w, OBJ_TREE, tops[0], tops[0]);
    EXPECT(d.equal);
    d = look(&w, OBJ_TREE, tops[0], tops[1]);
    expect_said(&d, "sub/b: first different byte at 0");
    d = look(&w, OBJ_TREE, tops[0], tops[2]);
    expect_said(&d, "z%01: only in the first");
    d = look(&w, OBJ_TREE, tops[2], tops[0]);
    expect_said(&d, "z%01: only in the second");
    d = look(&w, OBJ_TREE, tops[0], tops[3]);
    expect_said(&d, "a: mode");
    d = look(&w, OBJ_TREE, tops[0], tops[4]);
    expect_said(&d, "l: target of the link");
    world_free(&w);
}

RUN(bytes, tensors_by_type, tensors_that_are_no_numbers,
    the_first_tensor_in_file_order_and_how_many, tensors_of_another_form_are_bytes, trees)
