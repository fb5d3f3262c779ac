/* Random trees, against jansson and against their own bytes. */
#include "base/json.h"
#include "store/tree.h"
#include "tests/check.h"
#include "tests/store_gen.h"

#define CASES 300

/* Any bytes but NUL and '/', with the awkward ones more often. */
static size_t random_name(uint64_t *seed, char *out, size_t max)
{
    static const char awkward[] = "\"\\%\x01\x1f\x7f\x80\xc3\xa4\xed\xa0\xe2\x82\xac\xff\xf0\x9f";
    const size_t n = 1 + gen_below(seed, max);

    for (size_t i = 0; i < n; i++) {
        const uint64_t r = gen_u64(seed);

        if (r % 4 == 0)
            out[i] = awkward[(r >> 8) % (sizeof(awkward) - 1)];
        else if (r % 4 == 1)
            out[i] = (char)(1 + (r >> 8) % 255);
        else
            out[i] = (char)('a' + (r >> 8) % 26);
        if (out[i] == '/')
            out[i] = '_';
    }
    if (out[0] == '.')
        out[0] = '_';
    return n;
}

/* "../" up to depth times, then one to three names. */
static size_t random_target(uint64_t *seed, char *out, int depth)
{
    size_t n = 0;

    for (size_t up = gen_below(seed, (size_t)depth + 1); up > 0; up--, n += 3)
        memcpy(out + n, "../", 3);
    for (size_t names = 1 + gen_below(seed, 3); names > 0; names--) {
        n += random_name(seed, out + n, 20);
        if (names > 1)
            out[n++] = '/';
    }
    return n;
}

static void random_tree(uint64_t *seed, struct tree *t, int depth)
{
    char name[64], target[256];
    struct err err = ERR_INIT;

    tree_init(t);
    for (size_t count = gen_below(seed, 40); count > 0; count--) {
        struct tree_entry e = {.mode = (enum tree_mode)gen_below(seed, 4)};
        bool taken = false;

        e.name = (struct str){name, random_name(seed, name, gen_below(seed, 2) ? 3 : 40)};
        for (size_t i = 0; i < t->count; i++)
            taken |= str_eq(t->entries[i].name, e.name);
        if (taken)
            continue;
        e.target = (struct str){target, random_target(seed, target, depth)};
        e.size = (int64_t)(gen_u64(seed) >> (11 + gen_below(seed, 53)));
        gen_noise(seed, e.digest.b, DIGEST_BYTES);
        EXPECT_OK(tree_add(t, &e, depth, &err), &err);
    }
}

static void expect_same(const struct tree *a, const struct tree *b)
{
    EXPECT_EQ(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        const struct tree_entry *x = &a->entries[i], *y = &b->entries[i];

        EXPECT_EQ(x->mode, y->mode);
        EXPECT(str_eq(x->name, y->name));
        EXPECT_EQ(y->name.p[y->name.n], 0);
        EXPECT(tree_find(b, x->name) == y);
        if (x->mode == TREE_LINK) {
            EXPECT(str_eq(x->target, y->target));
        } else {
            EXPECT(digest_eq(&x->digest, &y->digest));
            EXPECT_EQ(x->size, y->size);
        }
    }
}

TEST(decoding_undoes_encoding_and_is_canonical)
{
    struct buf out, again, canonical;

    buf_init(&out, 1 << 20);
    buf_init(&again, 1 << 20);
    buf_init(&canonical, 1 << 20);
    for (uint64_t c = 0; c < CASES; c++) {
        uint64_t seed = c;
        const int depth = (int)gen_below(&seed, 4);
        struct err err = ERR_INIT;
        struct tree t, u;
        json_t *json;

        print_message(" %llu", (unsigned long long)c);
        buf_clear(&out);
        buf_clear(&again);
        buf_clear(&canonical);
        random_tree(&seed, &t, depth);
        EXPECT_OK(tree_encode(&t, &out, &err), &err);
        EXPECT_OK(tree_decode(out.p, out.n, depth, "tree", &u, &err), &err);
        expect_same(&t, &u);
        EXPECT_OK(tree_encode(&u, &again, &err), &err);
        EXPECT_EQ(out.n, again.n);
        EXPECT_MEM(out.p, again.p, out.n);

        EXPECT_OK(json_parse(out.p, out.n, out.n, "tree", &json, &err), &err);
        EXPECT_OK(json_canonical(json, &canonical, &err), &err);
        EXPECT_EQ(out.n, canonical.n);
        EXPECT_MEM(out.p, canonical.p, out.n);
        EXPECT_EQ(json_array_size(json_object_get(json, "entries")), t.count);
        json_decref(json);
        tree_release(&t);
        tree_release(&u);
    }
    buf_release(&out);
    buf_release(&again);
    buf_release(&canonical);
}

/* Replace, insert or remove a byte; sometimes take it from elsewhere in the text. */
static void damage(uint64_t *seed, struct buf *b)
{
    const size_t at = gen_below(seed, b->n);
    const char byte = gen_below(seed, 2) ? b->p[gen_below(seed, b->n)] : (char)gen_u64(seed);

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

TEST(what_decodes_is_what_would_be_encoded)
{
    struct buf out, again;
    int good = 0;

    buf_init(&out, 1 << 20);
    buf_init(&again, 1 << 20);
    for (uint64_t c = 0; c < CASES; c++) {
        uint64_t seed = 1000000 + c;
        struct err err = ERR_INIT;
        struct tree t;
        size_t n;

        random_tree(&seed, &t, 1);
        buf_clear(&again);
        EXPECT_OK(tree_encode(&t, &again, &err), &err);
        tree_release(&t);
        n = again.n;
        for (int i = 0; i < 100; i++) {
            struct err ignored = ERR_INIT;

            buf_clear(&out);
            buf_add(&out, again.p, n);
            damage(&seed, &out);
            const enum err_code rc = tree_decode(out.p, out.n, 1, "tree", &t, &ignored);

            EXPECT(rc == OK || rc == ERR_INPUT);
            if (rc == OK) {
                struct buf third;

                good++;
                buf_init(&third, 1 << 20);
                EXPECT_OK(tree_encode(&t, &third, &err), &err);
                EXPECT_EQ(third.n, out.n);
                EXPECT_MEM(third.p, out.p, out.n);
                buf_release(&third);
            }
            tree_release(&t);
        }
    }
    EXPECT(good > CASES); /* else the damage is too coarse to prove anything */
    buf_release(&out);
    buf_release(&again);
}

RUN(decoding_undoes_encoding_and_is_canonical, what_decodes_is_what_would_be_encoded)
