#include "store/mark.h"
#include "tests/store_life.h"

static void add(struct tree *t, const char *name, enum tree_mode mode, const struct digest *d)
{
    struct tree_entry e = {.mode = mode, .name = str_of(name), .size = 1};
    struct err err = ERR_INIT;

    if (mode == TREE_LINK)
        e.target = str_of("a");
    else
        e.digest = *d;
    EXPECT_OK(tree_add(t, &e, 0, &err), &err);
}

static struct mark *mark_of(struct forge *f)
{
    struct mark *m = NULL;

    EXPECT_OK(mark_new(f->st, &m, &f->err), &f->err);
    return m;
}

TEST(idset_is_a_set_with_bytes)
{
    enum { N = 20000 };
    struct idset *s = idset_new();
    struct idset_pos pos = {0};
    struct digest *ids = mem_alloc(N * sizeof(*ids));
    const struct digest *id;
    uint64_t seed = 7;
    uint8_t *byte;
    int found = 0;
    bool added;

    for (int i = 0; i < N; i++)
        gen_noise(&seed, ids[i].b, DIGEST_BYTES);
    memset(ids[5].b, 0,
           DIGEST_BYTES); /* no hash that anyone knows, but hostile trees may name it */
    for (int i = 0; i < N; i++) {
        EXPECT(!idset_has(s, &ids[i]));
        byte = idset_add(s, &ids[i], &added);
        EXPECT(added);
        EXPECT_EQ(*byte, 0);
        *byte = (uint8_t)(i % 251);
    }
    EXPECT_EQ(idset_count(s), N);
    for (int i = 0; i < N; i++) {
        EXPECT_EQ(*idset_find(s, &ids[i]), i % 251);
        idset_add(s, &ids[i], &added);
        EXPECT(!added);
    }
    while (idset_next(s, &pos, &id, &byte)) {
        EXPECT(idset_find(s, id) == byte);
        found++;
    }
    EXPECT_EQ(found, N);
    free(ids);
    idset_free(s);
}

TEST(idlist_sorts_and_finds)
{
    struct idlist l = {0};
    struct digest d = {{0}};

    for (int i = 0; i < 300; i++) {
        d.b[0] = (uint8_t)(i * 7 % 200);
        idlist_add(&l, &d);
    }
    idlist_sort(&l);
    EXPECT_EQ(l.n, 200);
    d.b[0] = 199;
    EXPECT(idlist_has(&l, &d));
    d.b[0] = 200;
    EXPECT(!idlist_has(&l, &d));
    idlist_release(&l);
    EXPECT(!idlist_has(&l, &d));
}

TEST(walks_trees_and_nothing_else)
{
    struct digest a, b, c, other, sub, top;
    struct tree t;
    struct mark *m;
    struct forge f;
    size_t missing;

    forge_new(&f);
    forge_begin(&f);
    a = forge_blob(&f, ENC_RAW, 0, "a", 1);
    b = forge_blob(&f, ENC_RAW, 0, "b", 1);
    c = forge_blob(&f, ENC_RAW, 0, "c", 1);
    other = forge_blob(&f, ENC_RAW, 0, "other", 5);
    tree_init(&t);
    add(&t, "b", TREE_EXEC, &b);
    sub = forge_tree(&f, &t, NULL);
    tree_init(&t);
    add(&t, "a", TREE_FILE, &a);
    add(&t, "link", TREE_LINK, NULL);
    add(&t, "sub", TREE_DIR, &sub);
    add(&t, "sub2", TREE_DIR, &sub);
    top = forge_tree(&f, &t, NULL);
    forge_commit(&f);

    m = mark_of(&f);
    EXPECT_OK(mark_root(m, OBJ_TREE, &top, &f.err), &f.err);
    EXPECT_EQ(mark_count(m), 4);
    EXPECT(mark_has(m, &top) && mark_has(m, &sub) && mark_has(m, &a) && mark_has(m, &b));
    EXPECT(!mark_has(m, &c) && !mark_has(m, &other));
    mark_missing(m, &missing);
    EXPECT_EQ(missing, 0);
    EXPECT_OK(mark_root(m, OBJ_BLOB, &c, &f.err), &f.err);
    EXPECT_EQ(mark_count(m), 5);
    mark_free(m);
    forge_free(&f);
}

/* The same bytes are a file in one place and a directory in another. */
TEST(a_manifest_that_is_also_a_file_is_walked)
{
    struct digest a, sub, top;
    struct tree t;
    struct mark *m;
    struct forge f;

    forge_new(&f);
    forge_begin(&f);
    a = forge_blob(&f, ENC_RAW, 0, "a", 1);
    tree_init(&t);
    add(&t, "a", TREE_FILE, &a);
    sub = forge_tree(&f, &t, NULL);
    tree_init(&t);
    add(&t, "1-as-file", TREE_FILE, &sub);
    top = forge_tree(&f, &t, NULL);
    forge_commit(&f);
    m = mark_of(&f);
    EXPECT_OK(mark_root(m, OBJ_TREE, &top, &f.err), &f.err);
    EXPECT(!mark_has(m, &a));
    EXPECT_OK(mark_root(m, OBJ_TREE, &sub, &f.err), &f.err);
    EXPECT(mark_has(m, &a));
    mark_free(m);
    forge_free(&f);
}

/* A ref of kind tree to bytes that are no manifest names nothing else. */
TEST(a_tree_that_is_none_is_a_leaf)
{
    struct digest a;
    struct mark *m;
    struct forge f;

    forge_new(&f);
    forge_begin(&f);
    a = forge_blob(&f, ENC_RAW, 0, "no manifest", 11);
    forge_commit(&f);
    m = mark_of(&f);
    EXPECT_OK(mark_root(m, OBJ_TREE, &a, &f.err), &f.err);
    EXPECT_EQ(mark_count(m), 1);
    mark_free(m);
    forge_free(&f);
}

TEST(recipes_keep_their_chunks)
{
    static const size_t sizes[] = {3000, 5000};
    struct recipe_chunk *chunks;
    struct digest whole, loose;
    struct mark *m;
    struct forge f;
    uint64_t seed = 3;
    char data[8000];

    forge_new(&f);
    gen_noise(&seed, data, sizeof(data));
    chunks = forge_chunks(data, sizes, 2);
    forge_begin(&f);
    forge_blob(&f, ENC_RAW, 0, data, 3000);
    forge_blob(&f, ENC_RAW, 0, data + 3000, 5000);
    whole = forge_recipe(&f, data, sizeof(data), chunks, 2);
    data[0] ^= 1;
    loose = forge_loose(&f, data, sizeof(data), sizes, 2);
    forge_commit(&f);

    m = mark_of(&f);
    EXPECT_OK(mark_root(m, OBJ_BLOB, &whole, &f.err), &f.err);
    EXPECT_EQ(mark_count(m), 3);
    EXPECT(mark_has(m, &chunks[0].id) && mark_has(m, &chunks[1].id));
    /* The chunks of a whole file are in that file. */
    EXPECT_OK(mark_root(m, OBJ_BLOB, &loose, &f.err), &f.err);
    EXPECT_EQ(mark_count(m), 4);
    mark_free(m);
    free(chunks);
    forge_free(&f);
}

TEST(a_tree_that_is_a_recipe_keeps_both)
{
    struct recipe_chunk *chunks;
    struct digest a, top;
    struct tree t;
    struct mark *m;
    struct buf text;
    struct forge f;
    size_t sizes[2];

    forge_new(&f);
    forge_begin(&f);
    a = forge_blob(&f, ENC_RAW, 0, "a", 1);
    tree_init(&t);
    add(&t, "a", TREE_FILE, &a);
    buf_init(&text, 1 << 20);
    EXPECT_OK(tree_encode(&t, &text, &f.err), &f.err);
    tree_release(&t);
    sizes[0] = 20;
    sizes[1] = text.n - 20;
    chunks = forge_chunks(text.p, sizes, 2);
    forge_blob(&f, ENC_RAW, 0, text.p, sizes[0]);
    forge_blob(&f, ENC_RAW, 0, text.p + 20, sizes[1]);
    top = forge_recipe(&f, text.p, text.n, chunks, 2);
    forge_commit(&f);
    m = mark_of(&f);
    EXPECT_OK(mark_root(m, OBJ_TREE, &top, &f.err), &f.err);
    EXPECT_EQ(mark_count(m), 4);
    EXPECT(mark_has(m, &a) && mark_has(m, &chunks[1].id));
    mark_free(m);
    free(chunks);
    buf_release(&text);
    forge_free(&f);
}

TEST(missing_objects_are_collected)
{
    struct digest a, gone, gone_tree, top;
    const struct digest *missing;
    struct tree t;
    struct mark *m;
    struct forge f;
    size_t n;

    forge_new(&f);
    sha256_of("gone", 4, &gone);
    sha256_of("gone tree", 9, &gone_tree);
    forge_begin(&f);
    a = forge_blob(&f, ENC_RAW, 0, "a", 1);
    tree_init(&t);
    add(&t, "a", TREE_FILE, &a);
    add(&t, "gone", TREE_FILE, &gone);
    add(&t, "gone-too", TREE_FILE, &gone);
    add(&t, "tree", TREE_DIR, &gone_tree);
    top = forge_tree(&f, &t, NULL);
    forge_commit(&f);
    m = mark_of(&f);
    EXPECT_OK(mark_root(m, OBJ_TREE, &top, &f.err), &f.err);
    missing = mark_missing(m, &n);
    EXPECT_EQ(n, 2);
    EXPECT(digest_eq(&missing[0], &gone) || digest_eq(&missing[1], &gone));
    EXPECT(mark_has(m, &a));
    mark_free(m);
    forge_free(&f);
}

TEST(damage_stops_it_unless_it_is_lenient)
{
    struct digest a, b, sub, top;
    const struct digest *missing;
    struct tree t;
    struct mark *m;
    struct forge f;
    int64_t at;
    size_t n;

    forge_new(&f);
    forge_begin(&f);
    a = forge_blob(&f, ENC_RAW, 0, "a", 1);
    b = forge_blob(&f, ENC_RAW, 0, "b", 1);
    tree_init(&t);
    add(&t, "a", TREE_FILE, &a);
    at = pack_writer_bytes(f.w) + PACK_RECORD_HEADER + 5;
    sub = forge_tree(&f, &t, NULL);
    tree_init(&t);
    add(&t, "b", TREE_FILE, &b);
    add(&t, "sub", TREE_DIR, &sub);
    top = forge_tree(&f, &t, NULL);
    forge_commit(&f);
    forge_damage_pack(&f, &f.pack, at);
    forge_open(&f, STORE_WRITE);

    m = mark_of(&f);
    EXPECT_ERR(mark_root(m, OBJ_TREE, &top, &f.err), ERR_DAMAGED, &f.err);
    mark_free(m);
    f.err = (struct err)ERR_INIT;
    m = mark_of(&f);
    mark_lenient(m);
    EXPECT_OK(mark_root(m, OBJ_TREE, &top, &f.err), &f.err);
    missing = mark_missing(m, &n);
    EXPECT_EQ(n, 1);
    EXPECT(digest_eq(&missing[0], &sub));
    EXPECT(mark_has(m, &b));
    mark_free(m);
    forge_free(&f);
}

/* More trees and blobs than one batch of anything, against a count that is known. */
TEST(many_trees)
{
    enum { TREES = 600, FILES = 40 };
    struct digest blob, sub, top;
    struct tree t, above;
    struct idlist log = {0};
    struct mark *m;
    struct forge f;

    forge_new(&f);
    forge_begin(&f);
    tree_init(&above);
    for (int i = 0; i < TREES; i++) {
        char name[32], text[32];

        tree_init(&t);
        for (int k = 0; k < FILES; k++) {
            /* Half of each directory is shared with the next one. */
            const int n = snprintf(text, sizeof(text), "file %d", i * FILES / 2 + k);

            blob = forge_blob(&f, ENC_RAW, 0, text, (size_t)n);
            snprintf(name, sizeof(name), "%03d", k);
            add(&t, name, TREE_FILE, &blob);
        }
        sub = forge_tree(&f, &t, NULL);
        snprintf(name, sizeof(name), "dir%04d", i);
        add(&above, name, TREE_DIR, &sub);
    }
    top = forge_tree(&f, &above, NULL);
    forge_commit(&f);
    m = mark_of(&f);
    mark_log(m, &log);
    EXPECT_OK(mark_root(m, OBJ_TREE, &top, &f.err), &f.err);
    EXPECT_EQ(mark_count(m), 1 + TREES + (TREES + 1) * FILES / 2);
    EXPECT_EQ(log.n, mark_count(m));
    idlist_release(&log);
    mark_free(m);
    forge_free(&f);
}

RUN(idset_is_a_set_with_bytes, idlist_sorts_and_finds, walks_trees_and_nothing_else,
    a_manifest_that_is_also_a_file_is_walked, a_tree_that_is_none_is_a_leaf,
    recipes_keep_their_chunks, a_tree_that_is_a_recipe_keeps_both, missing_objects_are_collected,
    damage_stops_it_unless_it_is_lenient, many_trees)
