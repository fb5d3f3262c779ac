/* The index: every question, every table, and what happens when the map is full or bits flip. */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "store/index_internal.h"
#include "tests/index_rig.h"

struct fixture {
    struct rig r;
    struct index *ix;
    struct err err;
};

static void reopen(struct fixture *f)
{
    index_close(f->ix);
    f->ix = NULL;
    EXPECT_OK(index_open(f->r.index, INDEX_WRITE, &f->ix, &f->err), &f->err);
}

static void fixture_new(struct fixture *f)
{
    *f = (struct fixture){0};
    rig_new(&f->r);
    reopen(f);
}

static void fixture_free(struct fixture *f)
{
    index_close(f->ix);
    rig_close(&f->r);
}

static struct index_stat stat_of(struct fixture *f)
{
    struct index_stat st;

    EXPECT_OK(index_stat(f->ix, &st, &f->err), &f->err);
    return st;
}

TEST(an_empty_index)
{
    struct fixture f;
    struct digest id, cursor = {{0}};
    struct pack_row row, *rows;
    struct ref_row ref;
    struct loc l;
    bool started = false;
    int64_t stamp;
    size_t n;

    fixture_new(&f);
    EXPECT_EQ(rig_get(f.ix, rig_id(1)).type, 0);
    EXPECT_OK(index_scan(f.ix, &cursor, &started, &id, &l, 1, &n, &f.err), &f.err);
    EXPECT_EQ(n, 0);
    EXPECT_ERR(index_pack(f.ix, 1, &row, &f.err), ERR_NOT_FOUND, &f.err);
    id = rig_id(1);
    EXPECT_ERR(index_pack_by_name(f.ix, &id, &row, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_ERR(index_action(f.ix, &id, &cursor, &stamp, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_ERR(index_ref(f.ix, STR("none"), &ref, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_ERR(index_ref(f.ix, STR(""), &ref, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_OK(index_packs(f.ix, &rows, &n, &f.err), &f.err);
    EXPECT_EQ(n, 0);
    free(rows);
    EXPECT_OK(index_touch_all(f.ix, &stamp, &f.err), &f.err);
    EXPECT_EQ(stamp, 0);
    EXPECT_OK(index_purge(f.ix, &f.err), &f.err);
    rig_same_as_rebuilt(&f.r, f.ix);
    fixture_free(&f);
}

TEST(reading_needs_an_index)
{
    struct fixture f;
    struct index *ix;
    char path[TMPDIR_MAX + 32];

    fixture_new(&f);
    index_close(f.ix);
    f.ix = NULL;
    EXPECT_OK(index_open(f.r.index, INDEX_READ, &ix, &f.err), &f.err);
    EXPECT_EQ(rig_get(ix, rig_id(1)).type, 0);
    index_close(ix);
    snprintf(path, sizeof(path), "%s/nowhere", f.r.path);
    EXPECT_ERR(index_open(path, INDEX_READ, &ix, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT(!ix);
    EXPECT_OK(os_mkdirs(path, 0755, &f.err), &f.err);
    EXPECT_ERR(index_open(path, INDEX_READ, &ix, &f.err), ERR_NOT_FOUND, &f.err);
    fixture_free(&f);
}

static enum err_code write_format(struct view *v, void *arg, struct err *err)
{
    return meta_put(v, "format", *(int64_t *)arg, err);
}

TEST(a_newer_format_is_refused)
{
    struct fixture f;
    int64_t format = INDEX_FORMAT + 1;

    fixture_new(&f);
    EXPECT_OK(index_write(f.ix, write_format, &format, &f.err), &f.err);
    index_close(f.ix);
    EXPECT_ERR(index_open(f.r.index, INDEX_WRITE, &f.ix, &f.err), ERR_VERSION, &f.err);
    fixture_free(&f);
}

/* ---- what a pack says ---- */

TEST(every_record_type_has_its_place)
{
    struct fixture f;
    struct digest name, result;
    struct pack_row row;
    struct ref_row ref;
    int64_t stamp;

    fixture_new(&f);
    name = rig_pack_all_types(&f.r, 100);
    rig_loose_file(&f.r, rig_id(106), 16);
    rig_loose_file(&f.r, rig_id(107), 1 << 21);
    EXPECT_OK(rig_commit(&f.r, f.ix, &name, 1, &f.err), &f.err);

    struct loc l = rig_get(f.ix, rig_id(100));
    EXPECT_EQ(l.type, LOC_BLOB);
    EXPECT_EQ(l.raw, 5);
    EXPECT_EQ(l.off, PACK_HEADER_BYTES);
    EXPECT_OK(index_pack(f.ix, l.pack, &row, &f.err), &f.err);
    EXPECT(digest_eq(&row.name, &name));
    EXPECT_EQ(row.records, RIG_ALL_TYPES);
    EXPECT_OK(index_pack_by_name(f.ix, &name, &row, &f.err), &f.err);
    EXPECT_EQ(row.number, l.pack);

    EXPECT_EQ(rig_get(f.ix, rig_id(101)).flags, REC_TREE);
    l = rig_get(f.ix, rig_id(103));
    EXPECT_EQ(l.type, LOC_FRAME);
    EXPECT_EQ(l.pos, 10);
    EXPECT_EQ(l.raw, 10);
    EXPECT_EQ(rig_get(f.ix, rig_id(105)).type, LOC_RECIPE);
    EXPECT_EQ(rig_get(f.ix, rig_id(105)).raw, 16);
    EXPECT_EQ(rig_get(f.ix, rig_id(106)).type, LOC_LOOSE);
    EXPECT_EQ(rig_get(f.ix, rig_id(107)).type, LOC_LOOSE);
    EXPECT_EQ(rig_get(f.ix, rig_id(107)).raw, 1 << 21);

    struct digest key = rig_id(108), want = rig_id(100);
    EXPECT_OK(index_action(f.ix, &key, &result, &stamp, &f.err), &f.err);
    EXPECT(digest_eq(&result, &want));
    EXPECT_EQ(stamp, 100);
    EXPECT_OK(index_ref(f.ix, STR("ref/100"), &ref, &f.err), &f.err);
    EXPECT_EQ(ref.kind, OBJ_BLOB);
    EXPECT_EQ(ref.stamp, 100);
    EXPECT(!ref.name);
    const struct index_stat st = stat_of(&f);
    EXPECT_EQ(st.objects, 8);
    EXPECT_EQ(st.packs, 1);
    EXPECT_EQ(st.actions, 1);
    EXPECT_EQ(st.refs, 1);
    EXPECT_EQ(st.commits, 1);
    EXPECT(st.file_bytes > 0);
    rig_same_as_rebuilt(&f.r, f.ix);

    /* Once more changes nothing but the count of commits. */
    EXPECT_OK(rig_commit(&f.r, f.ix, &name, 1, &f.err), &f.err);
    rig_same_as_rebuilt(&f.r, f.ix);
    fixture_free(&f);
}

TEST(slices_are_found_where_nothing_better_is)
{
    struct fixture f;
    struct pack_writer *w;
    struct digest names[2];
    const struct recipe_chunk chunks[3] = {{rig_id(1), 5, 0}, {rig_id(2), 6, 0}, {rig_id(2), 6, 0}};

    fixture_new(&f);
    rig_loose_file(&f.r, rig_id(9), 17);
    w = rig_writer(&f.r);
    EXPECT_OK(rig_recipe(w, REC_LOOSE, rig_id(9), chunks, 3, &f.err), &f.err);
    names[0] = rig_seal(&f.r, w);
    EXPECT_OK(rig_commit(&f.r, f.ix, names, 1, &f.err), &f.err);
    struct loc l = rig_get(f.ix, rig_id(2));
    EXPECT_EQ(l.type, LOC_SLICE);
    EXPECT_EQ(l.pos, 5); /* the first of two */
    EXPECT_EQ(l.raw, 6);
    EXPECT_EQ(l.off, rig_get(f.ix, rig_id(9)).off);
    EXPECT_EQ(stat_of(&f).objects, 3);

    w = rig_writer(&f.r);
    EXPECT_OK(rig_blob(w, rig_id(2), "sixsix", 6, 0, &f.err), &f.err);
    names[1] = rig_seal(&f.r, w);
    EXPECT_OK(rig_commit(&f.r, f.ix, &names[1], 1, &f.err), &f.err);
    EXPECT_EQ(rig_get(f.ix, rig_id(2)).type, LOC_BLOB);
    rig_same_as_rebuilt(&f.r, f.ix);

    /* The pack with the blob goes: the slice answers again. */
    rig_collect(&f.r, f.ix, &names[1], 1, NULL, 0);
    EXPECT_EQ(rig_get(f.ix, rig_id(2)).type, LOC_SLICE);
    rig_same_as_rebuilt(&f.r, f.ix);
    fixture_free(&f);
}

TEST(latest_bind_and_ref_count)
{
    struct fixture f;
    struct digest names[4], result;
    struct ref_row ref, *refs;
    int64_t stamp;
    size_t n;

    fixture_new(&f);
    for (uint64_t i = 0; i < 4; i++) {
        struct pack_writer *w = rig_writer(&f.r);
        static const uint64_t stamps[] = {5, 9, 9, 7};

        EXPECT_OK(rig_blob(w, rig_id(i), &i, 8, 0, &f.err), &f.err);
        EXPECT_OK(rig_bind(w, rig_id(77), rig_id(i), stamps[i], &f.err), &f.err);
        EXPECT_OK(rig_ref(w, "a/ref", rig_id(i), i == 0 ? 0 : 2, stamps[i], &f.err), &f.err);
        EXPECT_OK(rig_ref(w, "a/gone", rig_id(i), 0, stamps[i], &f.err), &f.err);
        EXPECT_OK(rig_ref(w, "b", rig_id(i), 1, stamps[i], &f.err), &f.err);
        names[i] = rig_seal(&f.r, w);
    }
    for (int i = 3; i >= 0; i--)
        EXPECT_OK(rig_commit(&f.r, f.ix, &names[i], 1, &f.err), &f.err);
    const struct digest a = rig_id(1), b = rig_id(2), key = rig_id(77);
    const struct digest *want = digest_cmp(&a, &b) > 0 ? &a : &b;
    EXPECT_OK(index_action(f.ix, &key, &result, &stamp, &f.err), &f.err);
    EXPECT_EQ(stamp, 9);
    EXPECT(digest_eq(&result, want));
    EXPECT_OK(index_ref(f.ix, STR("a/ref"), &ref, &f.err), &f.err);
    EXPECT(digest_eq(&ref.digest, want));
    EXPECT_ERR(index_ref(f.ix, STR("a/gone"), &ref, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_EQ(ref.stamp, 9);
    EXPECT_OK(index_refs(f.ix, STR("a/"), REF_LIVE, &refs, &n, &f.err), &f.err);
    EXPECT_EQ(n, 1);
    EXPECT_STR(refs[0].name, "a/ref");
    free(refs);
    EXPECT_OK(index_refs(f.ix, STR(""), REF_ALL, &refs, &n, &f.err), &f.err);
    EXPECT_EQ(n, 3);
    EXPECT_STR(refs[0].name, "a/gone");
    EXPECT_STR(refs[1].name, "a/ref");
    EXPECT_STR(refs[2].name, "b");
    EXPECT_EQ(refs[0].kind, OBJ_NONE);
    free(refs);
    EXPECT_OK(index_refs(f.ix, STR("c"), REF_ALL, &refs, &n, &f.err), &f.err);
    EXPECT_EQ(n, 0);
    free(refs);
    rig_same_as_rebuilt(&f.r, f.ix);
    fixture_free(&f);
}

TEST(scan_gives_every_object_once_and_sorted)
{
    struct fixture f;
    struct digest name, cursor = {{0}}, ids[7], last = {{0}};
    struct loc locs[7];
    bool started = false;
    size_t n = 1, total = 0;

    fixture_new(&f);
    name = rig_pack_blobs(&f.r, 0, 100);
    EXPECT_OK(rig_commit(&f.r, f.ix, &name, 1, &f.err), &f.err);
    while (n > 0) {
        EXPECT_OK(index_scan(f.ix, &cursor, &started, ids, locs, 7, &n, &f.err), &f.err);
        for (size_t i = 0; i < n; i++, total++) {
            EXPECT(total == 0 || digest_cmp(&last, &ids[i]) < 0);
            last = ids[i];
            EXPECT_EQ(locs[i].type, LOC_BLOB);
        }
    }
    EXPECT_EQ(total, 100);
    fixture_free(&f);
}

/* ---- commits ---- */

TEST(a_large_commit_is_several_transactions)
{
    struct fixture f;
    struct digest names[3];

    EXPECT_EQ(setenv("WEIR_INDEX_BATCH", "1000", 1), 0);
    fixture_new(&f);
    names[0] = rig_pack_blobs(&f.r, 0, 20000);
    names[1] = rig_pack_blobs(&f.r, 15000, 10000);
    names[2] = rig_pack_blobs(&f.r, 20000, 10);
    EXPECT_OK(rig_commit(&f.r, f.ix, &names[0], 1, &f.err), &f.err);
    EXPECT_OK(rig_commit(&f.r, f.ix, &names[1], 2, &f.err), &f.err);
    EXPECT_EQ(stat_of(&f).objects, 25000);
    EXPECT_EQ(stat_of(&f).packs, 3);
    EXPECT_EQ(stat_of(&f).commits, 2);
    for (uint64_t i = 0; i < 25000; i += 97)
        EXPECT_EQ(rig_get(f.ix, rig_id(i)).type, LOC_BLOB);
    rig_same_as_rebuilt(&f.r, f.ix);
    EXPECT_EQ(unsetenv("WEIR_INDEX_BATCH"), 0);
    fixture_free(&f);
}

static enum err_code commit_reusing(struct fixture *f, const struct digest *reused, size_t n)
{
    const struct index_commit c = {.reused = reused, .reused_count = n};

    return index_commit(f->ix, &c, &f->err);
}

TEST(reused_objects_must_still_be_there)
{
    struct fixture f;
    struct digest name, ids[2] = {rig_id(1), rig_id(1000)};

    fixture_new(&f);
    name = rig_pack_blobs(&f.r, 0, 10);
    EXPECT_ERR(commit_reusing(&f, ids, 1), ERR_CHANGED, &f.err);
    EXPECT_OK(rig_commit(&f.r, f.ix, &name, 1, &f.err), &f.err);
    EXPECT_OK(commit_reusing(&f, ids, 1), &f.err);
    EXPECT_ERR(commit_reusing(&f, ids, 2), ERR_CHANGED, &f.err);

    /* Refused with all that came with it. */
    struct pack *p;
    struct digest second = rig_pack_all_types(&f.r, 2000);
    const struct touch_row touch = {rig_id(2000), OBJ_BLOB, 5};
    const struct memo_row memo = {{1, 2, 3, 4, 5}, rig_id(2000)};
    char *before = rig_dump(&f.r, f.ix), *after;
    EXPECT_OK(pack_open(f.r.packs, &second, &p, &f.err), &f.err);
    const struct index_commit c = {.packs = &p,
                                   .pack_count = 1,
                                   .reused = ids,
                                   .reused_count = 2,
                                   .touch = &touch,
                                   .touch_count = 1,
                                   .memo = &memo,
                                   .memo_count = 1};
    EXPECT_ERR(index_commit(f.ix, &c, &f.err), ERR_CHANGED, &f.err);
    after = rig_dump(&f.r, f.ix);
    EXPECT_STR(before, after);
    EXPECT_EQ(stat_of(&f).memos, 0);
    /* What came with the same commit does not count: the writer said that it relied on something
     * else. */
    const struct digest own = rig_id(2000), other = rig_id(3);
    struct index_commit again = c;
    again.reused = &own;
    again.reused_count = 1;
    EXPECT_ERR(index_commit(f.ix, &again, &f.err), ERR_CHANGED, &f.err);
    again.reused = &other;
    EXPECT_OK(index_commit(f.ix, &again, &f.err), &f.err);
    EXPECT_EQ(stat_of(&f).memos, 1);
    /* Nor when somebody's sync was faster. */
    again.reused = &own;
    EXPECT_ERR(index_commit(f.ix, &again, &f.err), ERR_CHANGED, &f.err);
    pack_close(p);
    free(before);
    free(after);
    fixture_free(&f);
}

TEST(touches_keep_the_latest_time)
{
    struct fixture f;
    struct touch_row in[3] = {{rig_id(1), OBJ_TREE, 50},
                              {rig_id(1), OBJ_BLOB, 70},
                              {rig_id(1), OBJ_BLOB, 60}},
                     *rows;
    struct index_commit c = {.touch = in, .touch_count = 3};
    size_t n;

    fixture_new(&f);
    EXPECT_OK(index_commit(f.ix, &c, &f.err), &f.err);
    EXPECT_OK(index_touches(f.ix, &rows, &n, &f.err), &f.err);
    EXPECT_EQ(n, 1);
    EXPECT_EQ(rows[0].time_ns, 70);
    EXPECT_EQ(rows[0].kind, OBJ_TREE);
    free(rows);
    EXPECT_OK(index_forget_touch(f.ix, 70, &f.err), &f.err);
    EXPECT_OK(index_touches(f.ix, &rows, &n, &f.err), &f.err);
    EXPECT_EQ(n, 1);
    free(rows);
    EXPECT_OK(index_forget_touch(f.ix, 71, &f.err), &f.err);
    EXPECT_OK(index_touches(f.ix, &rows, &n, &f.err), &f.err);
    EXPECT_EQ(n, 0);
    free(rows);
    fixture_free(&f);
}

TEST(leases)
{
    struct fixture f;
    char a[] = "run/1", b[] = "run/2";
    struct digest name, d = rig_id(1);
    struct lease_row row = {.name = a, .expiry_ns = 99, .kind = OBJ_TREE, .digest = d}, *rows;
    size_t n;

    fixture_new(&f);
    EXPECT_ERR(index_lease(f.ix, &row, &f.err), ERR_NOT_FOUND, &f.err);
    name = rig_pack_blobs(&f.r, 0, 10);
    EXPECT_OK(rig_commit(&f.r, f.ix, &name, 1, &f.err), &f.err);
    EXPECT_OK(index_lease(f.ix, &row, &f.err), &f.err);
    EXPECT_EQ(stat_of(&f).commits, 2); /* a new root: a marking gc must notice */
    row.name = b;
    row.kind = OBJ_NONE;
    row.digest = rig_id(4711); /* nothing is promised about it */
    EXPECT_OK(index_lease(f.ix, &row, &f.err), &f.err);
    EXPECT_OK(index_leases(f.ix, &rows, &n, &f.err), &f.err);
    EXPECT_EQ(n, 2);
    EXPECT_STR(rows[0].name, "run/1");
    EXPECT_STR(rows[1].name, "run/2");
    EXPECT_EQ(rows[0].expiry_ns, 99);
    EXPECT_EQ(rows[0].kind, OBJ_TREE);
    EXPECT(digest_eq(&rows[0].digest, &d));
    free(rows);
    row.expiry_ns = 0;
    EXPECT_OK(index_lease(f.ix, &row, &f.err), &f.err);
    EXPECT_OK(index_lease(f.ix, &row, &f.err), &f.err); /* twice is fine */
    EXPECT_OK(index_leases(f.ix, &rows, &n, &f.err), &f.err);
    EXPECT_EQ(n, 1);
    free(rows);
    fixture_free(&f);
}

TEST(memo)
{
    struct fixture f;
    struct digest packs[2], ids[2];
    struct memo_row rows[2] = {{{1, 7, 100, 5, 6}, rig_id(1)}, {{1, 3, 100, 5, 6}, rig_id(11)}};
    const struct memo_key keys[2] = {rows[0].key, rows[1].key};
    struct index_commit c = {.memo = rows, .memo_count = 2};
    bool found[2];

    fixture_new(&f);
    packs[0] = rig_pack_blobs(&f.r, 0, 10);
    packs[1] = rig_pack_blobs(&f.r, 10, 10);
    EXPECT_OK(rig_commit(&f.r, f.ix, packs, 2, &f.err), &f.err);
    EXPECT_OK(index_commit(f.ix, &c, &f.err), &f.err);
    EXPECT_OK(index_memo_get(f.ix, keys, 2, ids, found, &f.err), &f.err);
    EXPECT(found[0] && found[1]);
    EXPECT(digest_eq(&ids[0], &rows[0].id) && digest_eq(&ids[1], &rows[1].id));

    /* Any difference counts. */
    for (int i = 0; i < 5; i++) {
        struct memo_key k = keys[0];

        k.dev += i == 0;
        k.ino += i == 1;
        k.size += i == 2;
        k.mtime_ns += i == 3;
        k.ctime_ns += i == 4;
        EXPECT_OK(index_memo_get(f.ix, &k, 1, ids, found, &f.err), &f.err);
        EXPECT(!found[0]);
    }
    /* After a gc only what is still there. */
    rig_collect(&f.r, f.ix, &packs[1], 1, NULL, 0);
    EXPECT_OK(index_memo_get(f.ix, keys, 2, ids, found, &f.err), &f.err);
    EXPECT(found[0] && !found[1]);
    EXPECT_OK(index_drop_memo(f.ix, &f.err), &f.err);
    EXPECT_EQ(stat_of(&f).memos, 0);

    struct memo_row *many = calloc(50000, sizeof(*many));
    for (size_t i = 0; i < 50000; i++)
        many[i] = (struct memo_row){{2, 50000 - i, 1, 1, 1}, rig_id(1)};
    c.memo = many;
    c.memo_count = 50000;
    EXPECT_OK(index_commit(f.ix, &c, &f.err), &f.err);
    EXPECT_EQ(stat_of(&f).memos, 50000);
    free(many);
    fixture_free(&f);
}

/* ---- sync ---- */

static void age_packs(struct fixture *f)
{
    const struct timespec then[2] = {{1000000000, 0}, {1000000000, 0}};

    EXPECT_EQ(futimens(f->r.packs, then), 0);
}

TEST(sync_finds_what_others_left)
{
    struct fixture f;
    struct touch_row *touched;
    struct digest bad;
    char hex[DIGEST_HEX + 1];
    int64_t merged;
    size_t n;
    int fd = -1;

    fixture_new(&f);
    for (uint64_t i = 0; i < 5; i++) {
        rig_pack_all_types(&f.r, 100 * i);
        rig_loose_file(&f.r, rig_id(100 * i + 6), 16);
        rig_loose_file(&f.r, rig_id(100 * i + 7), 1 << 21);
    }
    EXPECT_OK(index_sync(f.ix, f.r.packs, &merged, &f.err), &f.err);
    EXPECT_EQ(merged, 5);
    rig_same_as_rebuilt(&f.r, f.ix);
    EXPECT_EQ(stat_of(&f).packs_mtime, 0); /* too young to be relied on */
    EXPECT_OK(index_touches(f.ix, &touched, &n, &f.err), &f.err);
    EXPECT_EQ(n, 5); /* results of the binds */
    free(touched);

    age_packs(&f);
    EXPECT_OK(index_sync(f.ix, f.r.packs, &merged, &f.err), &f.err);
    EXPECT_EQ(merged, 0);
    EXPECT_EQ(stat_of(&f).packs_mtime, 1000000000000000000);

    /* Foreign names, and a pack that is none, stop nothing; but the mtime is not noted, so that it
     * is looked at again. */
    EXPECT_OK(os_write_file(f.r.packs, "README", "x", 1, 0644, &f.err), &f.err);
    bad = rig_id(1);
    digest_hex(&bad, hex);
    EXPECT_OK(os_open(f.r.packs, hex, O_CREAT | O_WRONLY, 0644, &fd, &f.err), &f.err);
    os_close_quiet(&fd);
    rig_pack_blobs(&f.r, 5000, 3);
    EXPECT_OK(index_sync(f.ix, f.r.packs, &merged, &f.err), &f.err);
    EXPECT_EQ(merged, 1);
    EXPECT_EQ(stat_of(&f).packs_mtime, 1000000000000000000);
    age_packs(&f);
    EXPECT_OK(index_sync(f.ix, f.r.packs, &merged, &f.err), &f.err);
    EXPECT_EQ(merged, 0);
    fixture_free(&f);
}

TEST(sync_merges_what_a_crash_left_incomplete)
{
    struct fixture f;
    struct digest names[2], reused = rig_id(99999999);
    struct pack *p[2];
    int64_t merged;
    struct pack_row row;

    EXPECT_EQ(setenv("WEIR_INDEX_BATCH", "1000", 1), 0);
    fixture_new(&f);
    names[0] = rig_pack_blobs(&f.r, 0, 3000);
    EXPECT_OK(rig_commit(&f.r, f.ix, names, 1, &f.err), &f.err);
    /* Refused in its last transaction, after its objects went in. */
    names[1] = rig_pack_blobs(&f.r, 2000, 2000);
    EXPECT_OK(pack_open(f.r.packs, &names[1], &p[0], &f.err), &f.err);
    const struct index_commit c = {
        .packs = p, .pack_count = 1, .reused = &reused, .reused_count = 1};
    EXPECT_ERR(index_commit(f.ix, &c, &f.err), ERR_CHANGED, &f.err);
    EXPECT_ERR(index_pack_by_name(f.ix, &names[1], &row, &f.err), ERR_NOT_FOUND, &f.err);
    const struct loc l = rig_get(f.ix, rig_id(3999));
    EXPECT_EQ(l.type, LOC_BLOB);
    EXPECT_OK(index_pack(f.ix, l.pack, &row, &f.err), &f.err); /* its place can be resolved */
    EXPECT_OK(index_sync(f.ix, f.r.packs, &merged, &f.err), &f.err);
    EXPECT_EQ(merged, 1);
    EXPECT_OK(index_pack_by_name(f.ix, &names[1], &row, &f.err), &f.err);
    EXPECT_EQ(row.number, l.pack);
    rig_same_as_rebuilt(&f.r, f.ix);
    pack_close(p[0]);
    EXPECT_EQ(unsetenv("WEIR_INDEX_BATCH"), 0);
    fixture_free(&f);
}

/* ---- deletion ---- */

TEST(condemned_things_may_not_be_relied_on)
{
    struct fixture f;
    struct digest packs[3], loose = rig_id(206), reused[2] = {rig_id(1), rig_id(202)};
    const struct condemned c = {packs, 1, &loose, 1};
    struct condemned listed;
    struct index_stat st;
    int64_t commits, merged;
    bool raced;

    fixture_new(&f);
    packs[0] = rig_pack_blobs(&f.r, 0, 10);
    packs[1] = rig_pack_all_types(&f.r, 200);
    rig_loose_file(&f.r, rig_id(206), 16);
    rig_loose_file(&f.r, rig_id(207), 1 << 21);
    EXPECT_OK(rig_commit(&f.r, f.ix, packs, 2, &f.err), &f.err);
    st = stat_of(&f);
    EXPECT_OK(index_condemn(f.ix, &c, st.commits - 1, &raced, &commits, &f.err), &f.err);
    EXPECT(raced);
    EXPECT_EQ(commits, st.commits);
    EXPECT_EQ(stat_of(&f).condemned, 0);
    EXPECT_OK(index_condemn(f.ix, &c, commits, &raced, &commits, &f.err), &f.err);
    EXPECT(!raced);
    EXPECT_EQ(stat_of(&f).condemned, 2);
    EXPECT_EQ(stat_of(&f).epoch, st.epoch + 1);
    EXPECT_OK(index_condemned(f.ix, &listed, &f.err), &f.err);
    EXPECT_EQ(listed.pack_count, 1);
    EXPECT_EQ(listed.loose_count, 1);
    EXPECT(digest_eq(&listed.packs[0], &packs[0]));
    EXPECT(digest_eq(&listed.loose[0], &loose));
    free(listed.packs);
    free(listed.loose);

    EXPECT_EQ(rig_get(f.ix, rig_id(1)).type, 0);
    EXPECT_EQ(rig_get(f.ix, loose).type, 0);
    EXPECT_EQ(rig_get(f.ix, rig_id(202)).type, LOC_FRAME);
    EXPECT_ERR(commit_reusing(&f, reused, 1), ERR_CHANGED, &f.err);
    EXPECT_OK(commit_reusing(&f, reused + 1, 1), &f.err);

    /* Written anew it is there, though the old place comes first by the rule or not. */
    packs[2] = rig_pack_blobs(&f.r, 1, 1);
    EXPECT_OK(rig_commit(&f.r, f.ix, &packs[2], 1, &f.err), &f.err);
    EXPECT_OK(commit_reusing(&f, reused, 2), &f.err);
    EXPECT_EQ(rig_get(f.ix, rig_id(1)).type, LOC_BLOB);

    /* A pack that announces the condemned file anew is refused, and waits in sync. */
    struct pack_writer *w = rig_writer(&f.r);
    EXPECT_OK(rig_loose_bare(w, loose, 16, &f.err), &f.err);
    struct digest late = rig_seal(&f.r, w);
    EXPECT_ERR(rig_commit(&f.r, f.ix, &late, 1, &f.err), ERR_CHANGED, &f.err);
    EXPECT_OK(index_sync(f.ix, f.r.packs, &merged, &f.err), &f.err);
    EXPECT_EQ(merged, 0);

    EXPECT_OK(index_purge(f.ix, &f.err), &f.err);
    EXPECT_OK(index_purge(f.ix, &f.err), &f.err); /* as after a crash */
    rig_unlink_pack(&f.r, packs[0]);
    EXPECT_EQ(rig_get(f.ix, rig_id(0)).type, 0);
    EXPECT_EQ(rig_get(f.ix, rig_id(1)).type, LOC_BLOB);
    EXPECT_OK(index_absolve(f.ix, &c, &f.err), &f.err);
    EXPECT_OK(index_absolve(f.ix, &c, &f.err), &f.err);
    EXPECT_EQ(stat_of(&f).condemned, 0);
    EXPECT_EQ(rig_get(f.ix, loose).type, 0); /* gone until it is announced again */
    /* The writer linked it again. */
    EXPECT_OK(index_sync(f.ix, f.r.packs, &merged, &f.err), &f.err);
    EXPECT_EQ(merged, 1);
    EXPECT_EQ(rig_get(f.ix, loose).type, LOC_LOOSE);
    rig_same_as_rebuilt(&f.r, f.ix);
    fixture_free(&f);
}

TEST(a_deleted_loose_file_takes_its_slices_along)
{
    struct fixture f;
    const struct recipe_chunk chunks[2] = {{rig_id(1), 5, 0}, {rig_id(2), 6, 0}};
    struct digest name, loose = rig_id(9);
    struct pack_writer *w;

    fixture_new(&f);
    rig_loose_file(&f.r, loose, 11);
    w = rig_writer(&f.r);
    EXPECT_OK(rig_recipe(w, REC_LOOSE, loose, chunks, 2, &f.err), &f.err);
    EXPECT_OK(rig_blob(w, rig_id(2), "sixsix", 6, 0, &f.err), &f.err);
    name = rig_seal(&f.r, w);
    EXPECT_OK(rig_commit(&f.r, f.ix, &name, 1, &f.err), &f.err);
    EXPECT_EQ(rig_get(f.ix, rig_id(1)).type, LOC_SLICE);
    rig_collect(&f.r, f.ix, NULL, 0, &loose, 1);
    EXPECT_EQ(rig_get(f.ix, loose).type, 0);
    EXPECT_EQ(rig_get(f.ix, rig_id(1)).type, 0);
    EXPECT_EQ(rig_get(f.ix, rig_id(2)).type, LOC_BLOB);
    rig_same_as_rebuilt(&f.r, f.ix);

    /* Added again by another pack: both announcements count, as a rebuild finds. */
    rig_loose_file(&f.r, loose, 11);
    w = rig_writer(&f.r);
    EXPECT_OK(rig_loose_bare(w, loose, 11, &f.err), &f.err);
    struct digest second = rig_seal(&f.r, w);
    EXPECT_OK(rig_commit(&f.r, f.ix, &second, 1, &f.err), &f.err);
    EXPECT_EQ(rig_get(f.ix, loose).type, LOC_LOOSE);
    EXPECT_EQ(rig_get(f.ix, rig_id(1)).type, LOC_SLICE);
    rig_same_as_rebuilt(&f.r, f.ix);

    /* Condemned, but somebody used it meanwhile, so the file stayed. */
    const struct condemned c = {.loose = &loose, .loose_count = 1};
    int64_t commits;
    bool raced;
    EXPECT_OK(index_condemn(f.ix, &c, stat_of(&f).commits, &raced, &commits, &f.err), &f.err);
    EXPECT_OK(index_purge(f.ix, &f.err), &f.err);
    EXPECT_EQ(rig_get(f.ix, loose).type, 0);
    EXPECT_OK(index_reprieve(f.ix, &loose, 1, &f.err), &f.err);
    EXPECT_OK(index_absolve(f.ix, &c, &f.err), &f.err);
    EXPECT_EQ(rig_get(f.ix, loose).type, LOC_LOOSE);
    rig_same_as_rebuilt(&f.r, f.ix);

    /* The packs go, the file with them: no note of it is left. */
    struct digest both[2] = {name, second};
    rig_collect(&f.r, f.ix, both, 2, &loose, 1);
    EXPECT_EQ(stat_of(&f).objects, 0);
    rig_same_as_rebuilt(&f.r, f.ix);
    fixture_free(&f);
}

TEST(purge_forgets_actions_without_a_result)
{
    struct fixture f;
    struct digest blobs, w_name, key = rig_id(500), kept = rig_id(501), result;
    struct pack_writer *w;
    int64_t stamp;

    fixture_new(&f);
    blobs = rig_pack_blobs(&f.r, 0, 10);
    w = rig_writer(&f.r);
    EXPECT_OK(rig_bind(w, key, rig_id(3), 1, &f.err), &f.err);
    EXPECT_OK(rig_bind(w, kept, rig_id(20), 1, &f.err), &f.err);
    EXPECT_OK(rig_blob(w, rig_id(20), "x", 1, 0, &f.err), &f.err);
    w_name = rig_seal(&f.r, w);
    EXPECT_OK(rig_commit(&f.r, f.ix, &blobs, 1, &f.err), &f.err);
    EXPECT_OK(rig_commit(&f.r, f.ix, &w_name, 1, &f.err), &f.err);
    rig_collect(&f.r, f.ix, &blobs, 1, NULL, 0);
    EXPECT_ERR(index_action(f.ix, &key, &result, &stamp, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_OK(index_action(f.ix, &kept, &result, &stamp, &f.err), &f.err);
    rig_same_as_rebuilt(&f.r, f.ix);
    fixture_free(&f);
}

TEST(dropped_objects_fall_to_their_next_place)
{
    struct fixture f;
    struct digest names[2], ids[2] = {rig_id(1), rig_id(2)};
    struct index_stat before;

    fixture_new(&f);
    names[0] = rig_pack_blobs(&f.r, 0, 10);
    names[1] = rig_pack_blobs(&f.r, 1, 1);
    EXPECT_OK(rig_commit(&f.r, f.ix, names, 2, &f.err), &f.err);
    const struct loc first = rig_get(f.ix, ids[0]);
    before = stat_of(&f);
    EXPECT_OK(index_drop_objects(f.ix, ids, 2, &f.err), &f.err);
    const struct loc next = rig_get(f.ix, ids[0]);
    EXPECT_EQ(next.type, LOC_BLOB);
    EXPECT(next.pack != first.pack);
    EXPECT_EQ(rig_get(f.ix, ids[1]).type, 0);
    EXPECT_EQ(stat_of(&f).epoch, before.epoch + 1);
    EXPECT_OK(index_drop_objects(f.ix, ids, 2, &f.err), &f.err);
    EXPECT_EQ(rig_get(f.ix, ids[0]).type, 0);
    fixture_free(&f);
}

/* ---- the map ---- */

TEST(the_map_grows)
{
    struct fixture f;
    struct digest name;
    struct index *other;

    EXPECT_EQ(setenv("WEIR_INDEX_MAP", "1048576", 1), 0);
    fixture_new(&f);
    name = rig_pack_blobs(&f.r, 0, 100000);
    EXPECT_OK(rig_commit(&f.r, f.ix, &name, 1, &f.err), &f.err);
    EXPECT_EQ(stat_of(&f).objects, 100000);
    EXPECT(stat_of(&f).file_bytes > 4 << 20);
    index_close(f.ix);
    f.ix = NULL;
    EXPECT_OK(index_open(f.r.index, INDEX_READ, &other, &f.err), &f.err);
    EXPECT_EQ(rig_get(other, rig_id(99999)).type, LOC_BLOB);
    index_close(other);
    EXPECT_EQ(unsetenv("WEIR_INDEX_MAP"), 0);
    fixture_free(&f);
}

TEST(a_full_map_loses_nothing)
{
    struct fixture f;
    struct digest names[2];
    char *before, *after;

    EXPECT_EQ(setenv("WEIR_INDEX_MAP", "1048576", 1), 0);
    EXPECT_EQ(setenv("WEIR_INDEX_MAP_MAX", "4194304", 1), 0);
    fixture_new(&f);
    names[0] = rig_pack_blobs(&f.r, 0, 10000);
    names[1] = rig_pack_blobs(&f.r, 10000, 100000);
    EXPECT_OK(rig_commit(&f.r, f.ix, names, 1, &f.err), &f.err);
    before = rig_dump(&f.r, f.ix);
    EXPECT_ERR(rig_commit(&f.r, f.ix, &names[1], 1, &f.err), ERR_FULL, &f.err);
    after = rig_dump(&f.r, f.ix);
    EXPECT_STR(before, after);
    EXPECT_EQ(unsetenv("WEIR_INDEX_MAP_MAX"), 0);
    reopen(&f);
    EXPECT_OK(rig_commit(&f.r, f.ix, &names[1], 1, &f.err), &f.err);
    EXPECT_EQ(unsetenv("WEIR_INDEX_MAP"), 0);
    rig_same_as_rebuilt(&f.r, f.ix);
    free(before);
    free(after);
    fixture_free(&f);
}

/* Another process makes the map larger while we have it open. */
TEST(readers_follow_a_larger_map)
{
    struct fixture f;
    struct digest names[2];
    int status;

    EXPECT_EQ(setenv("WEIR_INDEX_MAP", "1048576", 1), 0);
    fixture_new(&f);
    names[0] = rig_pack_blobs(&f.r, 0, 10);
    names[1] = rig_pack_blobs(&f.r, 10, 100000);
    const pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        struct index *ix;
        struct err err = ERR_INIT;

        _exit(index_open(f.r.index, INDEX_WRITE, &ix, &err) != OK ||
              rig_commit(&f.r, ix, &names[1], 1, &err) != OK);
    }
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(rig_get(f.ix, rig_id(100009)).type, LOC_BLOB);
    EXPECT_OK(rig_commit(&f.r, f.ix, names, 1, &f.err), &f.err);
    rig_same_as_rebuilt(&f.r, f.ix);
    EXPECT_EQ(unsetenv("WEIR_INDEX_MAP"), 0);
    fixture_free(&f);
}

struct reader {
    struct index *ix;
    _Atomic bool *stop;
    enum err_code rc;
    int64_t wrong;
};

static void *read_on(void *arg)
{
    struct reader *r = arg;
    struct err err = ERR_INIT;
    uint64_t seed = (uintptr_t)r;

    while (!*r->stop && !r->rc) {
        struct digest id = rig_id(gen_below(&seed, 1000));
        struct loc l;

        r->rc = index_get(r->ix, &id, 1, &l, &err);
        r->wrong += !r->rc && l.type != LOC_BLOB;
    }
    return NULL;
}

TEST(threads_read_while_the_map_grows)
{
    struct fixture f;
    struct digest name;
    struct reader r[4];
    pthread_t t[4];
    _Atomic bool stop = false;

    EXPECT_EQ(setenv("WEIR_INDEX_MAP", "262144", 1), 0);
    fixture_new(&f);
    name = rig_pack_blobs(&f.r, 0, 1000);
    EXPECT_OK(rig_commit(&f.r, f.ix, &name, 1, &f.err), &f.err);
    for (int i = 0; i < 4; i++) {
        r[i] = (struct reader){.ix = f.ix, .stop = &stop};
        EXPECT_EQ(pthread_create(&t[i], NULL, read_on, &r[i]), 0);
    }
    for (uint64_t i = 1; i <= 20; i++) {
        name = rig_pack_blobs(&f.r, 10000 * i, 5000);
        EXPECT_OK(rig_commit(&f.r, f.ix, &name, 1, &f.err), &f.err);
    }
    stop = true;
    for (int i = 0; i < 4; i++) {
        EXPECT_EQ(pthread_join(t[i], NULL), 0);
        EXPECT_EQ(r[i].rc, OK);
        EXPECT_EQ(r[i].wrong, 0);
    }
    EXPECT_EQ(unsetenv("WEIR_INDEX_MAP"), 0);
    rig_same_as_rebuilt(&f.r, f.ix);
    fixture_free(&f);
}

RUN(an_empty_index, reading_needs_an_index, a_newer_format_is_refused,
    every_record_type_has_its_place, slices_are_found_where_nothing_better_is,
    latest_bind_and_ref_count, scan_gives_every_object_once_and_sorted,
    a_large_commit_is_several_transactions, reused_objects_must_still_be_there,
    touches_keep_the_latest_time, leases, memo, sync_finds_what_others_left,
    sync_merges_what_a_crash_left_incomplete, condemned_things_may_not_be_relied_on,
    a_deleted_loose_file_takes_its_slices_along, purge_forgets_actions_without_a_result,
    dropped_objects_fall_to_their_next_place, the_map_grows, a_full_map_loses_nothing,
    readers_follow_a_larger_map, threads_read_while_the_map_grows)
