#include <sys/file.h>

#include "store/action.h"
#include "store/gc_internal.h"
#include "tests/store_life.h"

#define HOUR 3600LL
#define NS 1000000000LL

static void blob_text(struct forge *f, struct digest *out, const char *text)
{
    *out = forge_blob(f, ENC_RAW, 0, text, strlen(text));
}

static int packs(struct forge *f)
{
    return forge_count_names(f, f->st->packs);
}

/* ---- what goes and what stays ------------------------------------------------------------------- */

TEST(what_nothing_reaches_goes)
{
    struct digest kept, dead;
    struct gc_report r;
    struct forge f;

    forge_new(&f);
    kept = life_tree(&f, "kept", 1, 20, 500);
    dead = life_tree(&f, NULL, 1000, 30, 500);
    EXPECT(life_has(&f, &dead));
    r = life_gc(&f, 0);
    EXPECT_EQ(r.roots, 1);
    EXPECT_EQ(r.live_objects, 21);
    EXPECT_EQ(r.dead_objects, 31);
    EXPECT_EQ(r.packs_deleted, 1);
    EXPECT(r.freed_bytes > 0);
    EXPECT(!life_has(&f, &dead));
    EXPECT(life_has(&f, &kept));
    EXPECT_EQ(packs(&f), 1);
    life_check(&f);
    life_fsck_clean(&f);
    life_rebuild_is_equal(&f);
    forge_free(&f);
}

TEST(an_empty_store_has_nothing_to_collect)
{
    struct gc_report r;
    struct forge f;

    forge_new(&f);
    r = life_gc(&f, 0);
    EXPECT_EQ(r.roots + r.live_objects + r.dead_objects + r.freed_bytes, 0);
    life_check(&f);
    forge_free(&f);
}

static bool has_tombstone(struct forge *f, const char *name)
{
    struct ref_row *rows = NULL;
    bool found = false;
    size_t n = 0;

    EXPECT_OK(index_refs(f->st->index, str_of(name), REF_ALL, &rows, &n, &f->err), &f->err);
    for (size_t i = 0; i < n; i++)
        found = found || (strcmp(rows[i].name, name) == 0 && rows[i].kind == OBJ_NONE);
    free(rows);
    return found;
}

/* Frames lose members, blobs are copied as they are, binds and refs come along, tombstones too. */
TEST(a_pack_that_is_mostly_dead_is_rewritten)
{
    struct digest one, ids[20], big, dead, key, key_dead, result;
    char text[40000], noise[60000];
    size_t sizes[20];
    struct gc_report r;
    struct forge f;
    uint64_t seed = 5;
    int64_t stamp;

    forge_new(&f);
    life_text(9, text, sizeof(text));
    gen_noise(&seed, noise, sizeof(noise));
    for (int i = 0; i < 20; i++)
        sizes[i] = 2000;
    forge_begin(&f);
    forge_frame(&f, text, sizes, 20, ids);
    big = forge_blob(&f, ENC_RAW, 0, noise, 10000);
    dead = forge_blob(&f, ENC_RAW, 0, noise + 10000, 50000);
    sha256_of("key", 3, &key);
    sha256_of("key2", 4, &key_dead);
    forge_bind(&f, &key, &big);
    forge_bind(&f, &key_dead, &dead);
    forge_ref(&f, "a/big", OBJ_BLOB, &big);
    forge_ref(&f, "a/one", OBJ_BLOB, &ids[7]);
    forge_ref(&f, "removed", OBJ_NONE, &big);
    forge_commit(&f);
    one = f.pack;

    r = life_gc(&f, 0);
    EXPECT_EQ(r.packs_rewritten, 1);
    EXPECT_EQ(r.live_objects, 2);
    EXPECT_EQ(packs(&f), 1);
    EXPECT_ERR(index_pack_by_name(f.st->index, &one, &(struct pack_row){0}, &f.err), ERR_NOT_FOUND,
               &f.err);
    EXPECT(life_has(&f, &big) && life_has(&f, &ids[7]));
    EXPECT(!life_has(&f, &dead) && !life_has(&f, &ids[6]));
    EXPECT_OK(index_action(f.st->index, &key, &result, &stamp, &f.err), &f.err);
    EXPECT(digest_eq(&result, &big));
    EXPECT_ERR(index_action(f.st->index, &key_dead, &result, &stamp, &f.err), ERR_NOT_FOUND,
               &f.err);
    EXPECT(has_tombstone(&f, "removed"));
    life_check(&f);
    life_rebuild_is_equal(&f);
    EXPECT(has_tombstone(&f, "removed"));
    life_check(&f);
    /* A second gc finds nothing more to do, but the bind to the result that has gone. */
    life_gc(&f, 0);
    r = life_gc(&f, 0);
    EXPECT_EQ(r.packs_deleted + r.packs_rewritten + r.dead_objects, 0);
    forge_free(&f);
}

TEST(a_pack_that_is_mostly_alive_stays)
{
    char noise[60000];
    struct digest a, b;
    struct gc_report r;
    struct forge f;
    uint64_t seed = 6;

    forge_new(&f);
    gen_noise(&seed, noise, sizeof(noise));
    forge_begin(&f);
    a = forge_blob(&f, ENC_RAW, 0, noise, 50000);
    b = forge_blob(&f, ENC_RAW, 0, noise + 50000, 10000);
    forge_ref(&f, "a", OBJ_BLOB, &a);
    forge_commit(&f);
    r = life_gc(&f, 0);
    EXPECT_EQ(r.packs_deleted + r.packs_rewritten, 0);
    EXPECT(life_has(&f, &b)); /* dead, and not worth a copy of the rest */
    life_check(&f);
    forge_free(&f);
}

/* A writer that meets the object of a recipe in the index does not look at its chunks: the recipe may not outlive them. */
TEST(a_dead_recipe_does_not_outlive_its_chunks)
{
    static const size_t sizes[] = {4000, 4000};
    char noise[100000];
    struct recipe_chunk *chunks;
    struct digest whole, big;
    struct gc_report r;
    struct forge f;
    uint64_t seed = 8;

    forge_new(&f);
    gen_noise(&seed, noise, sizeof(noise));
    chunks = forge_chunks(noise, sizes, 2);
    forge_begin(&f);
    forge_blob(&f, ENC_RAW, 0, noise, 4000);
    forge_blob(&f, ENC_RAW, 0, noise + 4000, 4000);
    forge_commit(&f);
    forge_begin(&f);
    whole = forge_recipe(&f, noise, 8000, chunks, 2);
    big = forge_blob(&f, ENC_RAW, 0, noise + 8000, 92000);
    forge_ref(&f, "big", OBJ_BLOB, &big);
    forge_commit(&f);
    r = life_gc(&f, 0);
    EXPECT_EQ(r.packs_deleted, 1);
    EXPECT_EQ(r.packs_rewritten, 1);
    EXPECT(!life_has(&f, &whole));
    EXPECT(!life_has(&f, &chunks[0].id));
    life_check(&f);
    free(chunks);
    forge_free(&f);
}

TEST(copies_elsewhere_do_not_matter)
{
    struct digest a, b;
    struct forge f;

    forge_new(&f);
    for (int i = 0; i < 3; i++) {
        forge_begin(&f);
        blob_text(&f, &a, "the same in each pack");
        blob_text(&f, &b, i == 1 ? "one that lives" : "one that does not");
        forge_commit(&f);
        if (i == 1)
            life_ref(&f, "b", OBJ_BLOB, &b);
    }
    life_ref(&f, "a", OBJ_BLOB, &a);
    life_gc(&f, 0);
    life_check(&f);
    life_rebuild_is_equal(&f);
    life_unref(&f, "a");
    life_gc(&f, 0);
    life_check(&f);
    life_rebuild_is_equal(&f);
    forge_free(&f);
}

/* ---- loose files --------------------------------------------------------------------------------- */

static struct digest loose_of(struct forge *f, uint64_t seed, size_t n, const char *ref)
{
    const size_t sizes[] = {n / 4, n - n / 4};
    char *noise = mem_alloc(n);
    struct digest d;

    gen_noise(&seed, noise, n);
    forge_begin(f);
    d = forge_loose(f, noise, n, sizes, 2);
    if (ref)
        forge_ref(f, ref, OBJ_BLOB, &d);
    forge_commit(f);
    free(noise);
    return d;
}

TEST(dead_loose_files_go)
{
    struct digest live, dead;
    struct gc_report r;
    struct forge f;

    forge_new(&f);
    live = loose_of(&f, 1, 8000, "live");
    dead = loose_of(&f, 2, 9000, NULL);
    r = life_gc(&f, 0);
    EXPECT_EQ(r.loose_deleted, 1);
    EXPECT(forge_loose_there(&f, &live));
    EXPECT(!forge_loose_there(&f, &dead));
    EXPECT(!life_has(&f, &dead));
    EXPECT_EQ(forge_count_names(&f, f.st->condemned), 0);
    life_check(&f);
    life_fsck_clean(&f);
    life_rebuild_is_equal(&f);
    /* The same bytes may come back. */
    EXPECT(digest_eq(&dead, (struct digest[]){loose_of(&f, 2, 9000, "back")}));
    life_check(&f);
    forge_free(&f);
}

/* A chunk of the dead file is part of a live recipe: it is saved as a record. */
TEST(slices_of_a_dead_file_are_saved)
{
    static const size_t sizes[] = {2000, 6000, 3000};
    struct recipe_chunk *chunks;
    struct digest dead, other;
    struct gc_report r;
    struct forge f;
    uint64_t seed = 4;
    char noise[11000];
    struct loc loc;

    forge_new(&f);
    gen_noise(&seed, noise, sizeof(noise));
    dead = loose_of(&f, 4, 8000, NULL); /* the first 8000 of the same noise, cut at 2000 */
    chunks = forge_chunks(noise, sizes, 3);
    forge_begin(&f);
    forge_blob(&f, ENC_RAW, 0, noise + 8000, 3000);
    other = forge_recipe(&f, noise, 11000, chunks, 3);
    forge_ref(&f, "other", OBJ_BLOB, &other);
    forge_commit(&f);
    EXPECT_OK(index_get(f.st->index, &chunks[1].id, 1, &loc, &f.err), &f.err);
    EXPECT_EQ(loc.type, LOC_SLICE);
    life_check(&f);

    r = life_gc(&f, 0);
    EXPECT_EQ(r.loose_deleted, 1);
    EXPECT(!forge_loose_there(&f, &dead));
    EXPECT_OK(index_get(f.st->index, &chunks[1].id, 1, &loc, &f.err), &f.err);
    EXPECT_EQ(loc.type, LOC_BLOB);
    life_check(&f);
    life_fsck_clean(&f);
    life_rebuild_is_equal(&f);
    free(chunks);
    forge_free(&f);
}

/* The record that announces a live file stays as long as somebody's chunk is found through it. */
TEST(a_file_in_use_keeps_its_announcement)
{
    static const size_t sizes[] = {2000, 6000, 3000};
    struct recipe_chunk *chunks;
    struct digest loose, other;
    struct forge f;
    uint64_t seed = 4;
    char noise[11000], junk[50000];

    forge_new(&f);
    gen_noise(&seed, noise, sizeof(noise));
    gen_noise(&seed, junk, sizeof(junk));
    forge_begin(&f);
    loose = forge_loose(&f, noise, 8000, sizes, 2);
    forge_blob(&f, ENC_RAW, 0, junk, sizeof(junk)); /* so that its pack is rewritten */
    forge_commit(&f);
    chunks = forge_chunks(noise, sizes, 3);
    forge_begin(&f);
    forge_blob(&f, ENC_RAW, 0, noise + 8000, 3000);
    other = forge_recipe(&f, noise, 11000, chunks, 3);
    forge_ref(&f, "other", OBJ_BLOB, &other);
    forge_ref(&f, "loose", OBJ_BLOB, &loose);
    forge_commit(&f);
    EXPECT_EQ(life_gc(&f, 0).packs_rewritten, 1);
    EXPECT(forge_loose_there(&f, &loose));
    life_check(&f);
    life_rebuild_is_equal(&f);
    free(chunks);
    forge_free(&f);
}

TEST(a_file_whose_contents_are_in_packs_goes)
{
    char noise[8000];
    struct digest d;
    struct forge f;
    uint64_t seed = 1;

    forge_new(&f);
    d = loose_of(&f, 1, sizeof(noise), "d");
    gen_noise(&seed, noise, sizeof(noise));
    forge_begin(&f);
    forge_blob(&f, ENC_RAW, 0, noise, sizeof(noise));
    forge_commit(&f);
    EXPECT_EQ(life_gc(&f, 0).loose_deleted, 1);
    EXPECT(!forge_loose_there(&f, &d));
    life_check(&f);
    life_rebuild_is_equal(&f);
    forge_free(&f);
}

/* A node links or uses a file that a gc is about to delete: its time of use saves it. */
TEST(a_file_used_since_stays)
{
    struct gc_deleted deleted;
    char name[LOOSE_NAME];
    struct digest d;
    struct forge f;
    struct gc g;

    forge_new(&f);
    d = loose_of(&f, 1, 8000, NULL);
    EXPECT_OK(gc_begin(&g, f.st, 0, false, &f.err), &f.err);
    EXPECT_OK(gc_mark_roots(&g, &f.err), &f.err);
    EXPECT_OK(gc_plan_make(&g.plan, &f.err), &f.err);
    EXPECT_OK(gc_save(&g, &f.err), &f.err);
    EXPECT_OK(gc_condemn(&g, &f.err), &f.err);
    EXPECT(!life_has(&f, &d)); /* nobody may rely on it */
    loose_name(&d, name);
    EXPECT_OK(os_touch_atime(f.st->loose, name, &f.err), &f.err);
    EXPECT_OK(gc_delete(f.st, g.young_ns, &deleted, &f.err), &f.err);
    EXPECT_EQ(deleted.loose_kept, 1);
    gc_end(&g);
    EXPECT(forge_loose_there(&f, &d));
    EXPECT(!life_has(
        &f, &d)); /* the pack that announced it has gone; the node is about to write another */
    loose_of(&f, 1, 8000, "d");
    EXPECT(life_has(&f, &d));
    life_check(&f);
    life_rebuild_is_equal(&f);
    forge_free(&f);
}

/* The node's announcement may come at any moment in between. */
TEST(a_file_announced_meanwhile_stays)
{
    struct gc_deleted deleted;
    char noise[8000];
    struct digest d;
    struct forge f;
    struct gc g;
    uint64_t seed = 1;
    int64_t merged;

    for (int step = 0; step < 3; step++) {
        seed = 1;
        gen_noise(&seed, noise, sizeof(noise));
        forge_new(&f);
        d = loose_of(&f, 1, 8000, NULL);
        EXPECT_OK(gc_begin(&g, f.st, 0, false, &f.err), &f.err);
        EXPECT_OK(gc_mark_roots(&g, &f.err), &f.err);
        EXPECT_OK(gc_plan_make(&g.plan, &f.err), &f.err);
        if (step == 0)
            loose_of(&f, 1, 8000, "d"); /* a commit: seen before anything is condemned */
        EXPECT_OK(gc_save(&g, &f.err), &f.err);
        EXPECT_OK(gc_condemn(&g, &f.err), &f.err);
        if (step == 1) { /* a node's pack, which nobody has merged yet */
            struct digest name;

            forge_begin(&f);
            EXPECT(digest_eq(&d, (struct digest[]){forge_loose(&f, noise, 8000, NULL, 0)}));
            forge_ref(&f, "d", OBJ_BLOB, &d);
            EXPECT_OK(pack_seal(f.w, PACK_SYNC_DIR, &name, &f.err), &f.err);
            pack_writer_release(f.w);
            f.w = NULL;
            EXPECT_OK(index_sync(f.st->index, f.st->packs, &merged, &f.err), &f.err);
            EXPECT_EQ(merged, 0); /* it relies on what is condemned */
        }
        EXPECT_OK(gc_delete(f.st, g.young_ns, &deleted, &f.err), &f.err);
        gc_end(&g);
        if (step == 2)
            loose_of(&f, 1, 8000, "d");
        forge_open(&f, STORE_WRITE);
        EXPECT(forge_loose_there(&f, &d));
        EXPECT(life_has(&f, &d));
        life_check(&f);
        life_rebuild_is_equal(&f);
        forge_free(&f);
    }
}

TEST(a_file_that_no_pack_announces_waits)
{
    static const char text[] = "a writer that has not committed yet";
    struct digest d;
    struct forge f;

    forge_new(&f);
    d = forge_loose_file(&f, text, sizeof(text));
    EXPECT_EQ(life_gc(&f, 0).loose_deleted, 0);
    EXPECT(forge_loose_there(&f, &d));
    os_set_now(os_now_ns() + 2 * HOUR * NS);
    EXPECT_EQ(life_gc(&f, 0).loose_deleted, 1);
    os_set_now(0);
    EXPECT(!forge_loose_there(&f, &d));
    life_check(&f);
    forge_free(&f);
}

/* ---- roots --------------------------------------------------------------------------------------- */

TEST(what_was_added_lately_stays)
{
    struct digest d;
    struct forge f;

    forge_new(&f);
    d = life_tree(&f, NULL, 3, 10, 100);
    life_gc(&f, HOUR);
    EXPECT(life_has(&f, &d));
    os_set_now(os_now_ns() + 2 * HOUR * NS);
    life_gc(&f, HOUR);
    os_set_now(0);
    EXPECT(!life_has(&f, &d));
    life_check(&f);
    forge_free(&f);
}

/* An old object is added again: that is a use. */
TEST(what_was_touched_lately_stays)
{
    struct index_commit c = {0};
    struct touch_row touch;
    struct digest d, dead;
    struct forge f;
    int64_t later;

    forge_new(&f);
    d = life_tree(&f, NULL, 3, 10, 100);
    dead = life_tree(&f, NULL, 300, 10, 100);
    later = os_now_ns() + 5 * HOUR * NS;
    os_set_now(later);
    touch = (struct touch_row){.id = d, .kind = OBJ_TREE, .time_ns = later};
    c.touch = &touch;
    c.touch_count = 1;
    c.reused = &d;
    c.reused_count = 1;
    EXPECT_OK(index_commit(f.st->index, &c, &f.err), &f.err);
    life_gc(&f, HOUR);
    EXPECT(life_has(&f, &d));
    EXPECT(!life_has(&f, &dead));
    life_read(&f, OBJ_TREE, &d);
    os_set_now(later + 2 * HOUR * NS);
    life_gc(&f, HOUR);
    EXPECT(!life_has(&f, &d));
    os_set_now(0);
    life_check(&f);
    forge_free(&f);
}

TEST(leases_are_roots_until_they_run_out)
{
    struct lease_row lease = {.name = mem_strdup("worker/1"), .kind = OBJ_TREE};
    struct lease_row *rows;
    struct forge f;
    size_t n;

    forge_new(&f);
    lease.digest = life_tree(&f, NULL, 3, 10, 100);
    lease.expiry_ns = os_now_ns() + HOUR * NS;
    EXPECT_OK(index_lease(f.st->index, &lease, &f.err), &f.err);
    life_gc(&f, 0);
    life_read(&f, OBJ_TREE, &lease.digest);
    os_set_now(os_now_ns() + 2 * HOUR * NS);
    life_gc(&f, 0);
    os_set_now(0);
    EXPECT(!life_has(&f, &lease.digest));
    EXPECT_OK(index_leases(f.st->index, &rows, &n, &f.err), &f.err);
    EXPECT_EQ(n, 0);
    free(rows);
    free(lease.name);
    life_check(&f);
    forge_free(&f);
}

TEST(after_a_rebuild_everything_counts_as_used)
{
    struct digest d;
    struct forge f;

    forge_new(&f);
    d = life_tree(&f, NULL, 3, 10, 100);
    life_rebuild_is_equal(&f);
    os_set_now(os_now_ns() + HOUR * NS / 2);
    life_gc(&f, HOUR);
    EXPECT(life_has(&f, &d));
    os_set_now(os_now_ns() + 2 * HOUR * NS);
    life_gc(&f, HOUR);
    os_set_now(0);
    EXPECT(!life_has(&f, &d));
    forge_free(&f);
}

TEST(a_missing_object_stops_it)
{
    struct digest missing, dead;
    struct gc_report r;
    struct tree t;
    struct tree_entry e = {.mode = TREE_FILE, .name = STR("x"), .size = 1};
    struct digest top;
    struct forge f;

    forge_new(&f);
    dead = life_tree(&f, NULL, 3, 10, 100);
    sha256_of("missing", 7, &missing);
    e.digest = missing;
    tree_init(&t);
    EXPECT_OK(tree_add(&t, &e, 0, &f.err), &f.err);
    forge_begin(&f);
    top = forge_tree(&f, &t, NULL);
    forge_ref(&f, "broken", OBJ_TREE, &top);
    forge_commit(&f);
    EXPECT_ERR(store_gc(f.st, &(struct gc_options){.grace_s = 0}, &r, &f.err), ERR_DAMAGED, &f.err);
    EXPECT(strstr(f.err.text, "weir fsck") != NULL);
    EXPECT(life_has(&f, &dead));
    f.err = (struct err)ERR_INIT;
    life_unref(&f, "broken");
    life_gc(&f, 0);
    EXPECT(!life_has(&f, &dead));
    forge_free(&f);
}

/* ---- tmp/, dry run, lock ------------------------------------------------------------------------- */

TEST(temporary_files_of_the_dead_go)
{
    struct forge f;
    int64_t now;

    forge_new(&f);
    EXPECT_OK(os_write_file(f.st->tmp, "host.1.2.pack", "x", 1, 0600, &f.err), &f.err);
    EXPECT_EQ(life_gc(&f, 0).tmp_deleted, 0); /* somebody may be writing to it */
    now = os_now_ns();
    os_set_now(now + 2 * HOUR * NS);
    EXPECT_EQ(life_gc(&f, 24 * HOUR).tmp_deleted, 0);
    EXPECT_EQ(life_gc(&f, 0).tmp_deleted, 1);
    EXPECT_EQ(forge_count_names(&f, f.st->tmp), 0);
    os_set_now(0);
    forge_free(&f);
}

TEST(a_dry_run_tells_and_does_nothing)
{
    struct gc_options o = {.dry_run = true, .grace_s = 0};
    struct digest a, b, dead;
    struct gc_report r;
    struct buf before, after, list;
    struct forge f;

    forge_new(&f);
    a = life_tree(&f, "run/a", 1, 20, 500);
    b = life_tree(&f, "run/b", 11, 20, 500); /* half of the files are the same */
    dead = life_tree(&f, NULL, 1000, 30, 500);
    loose_of(&f, 5, 9000, NULL);
    life_dump(&f, &before);
    buf_init(&list, 1 << 20);
    o.list = &list;
    EXPECT_OK(store_gc(f.st, &o, &r, &f.err), &f.err);
    EXPECT_EQ(r.packs_deleted, 2); /* the one that announces the loose file as well */
    EXPECT_EQ(r.loose_deleted, 1);
    life_dump(&f, &after);
    EXPECT_STR(before.p, after.p);
    EXPECT(strstr(list.p, "nothing in it is reachable") != NULL);
    EXPECT(strstr(list.p, "loose sha256:") != NULL);
    EXPECT(strstr(list.p, "keep ref run/a: 21 objects") != NULL);
    EXPECT(strstr(list.p, "keep ref run/b: 21 objects") != NULL);
    EXPECT(life_has(&f, &dead) && life_has(&f, &a) && life_has(&f, &b));
    buf_release(&before);
    buf_release(&after);
    buf_release(&list);
    forge_free(&f);
}

TEST(one_at_a_time)
{
    struct gc_report r;
    struct forge f;
    int lock = -1;

    forge_new(&f);
    EXPECT_OK(store_lock_gc(f.st, &lock, &f.err), &f.err);
    EXPECT_ERR(store_gc(f.st, NULL, &r, &f.err), ERR_AGAIN, &f.err);
    os_close_quiet(&lock);
    f.err = (struct err)ERR_INIT;
    EXPECT_OK(store_gc(f.st, NULL, &r, &f.err), &f.err);
    forge_free(&f);
}

/* ---- races: a commit by somebody else between two steps ------------------------------------------ */

/* Up to and including the plan. */
static void begin(struct forge *f, struct gc *g)
{
    EXPECT_OK(gc_begin(g, f->st, 0, false, &f->err), &f->err);
    EXPECT_OK(gc_mark_roots(g, &f->err), &f->err);
    EXPECT_OK(gc_plan_make(&g->plan, &f->err), &f->err);
}

static void finish(struct forge *f, struct gc *g)
{
    struct gc_deleted deleted;

    EXPECT_OK(gc_condemn(g, &f->err), &f->err);
    EXPECT_OK(gc_delete(f->st, g->young_ns, &deleted, &f->err), &f->err);
    gc_end(g);
    life_check(f);
    life_rebuild_is_equal(f);
}

TEST(a_ref_set_after_the_mark_saves_its_object)
{
    struct digest d, dead;
    struct forge f;
    struct gc g;

    forge_new(&f);
    life_tree(&f, "other", 1, 10, 100);
    d = life_tree(&f, NULL, 100, 10, 100);
    dead = life_tree(&f, NULL, 200, 10, 100);
    begin(&f, &g);
    life_ref(&f, "d", OBJ_TREE, &d);
    EXPECT_OK(gc_save(&g, &f.err), &f.err);
    finish(&f, &g);
    EXPECT(life_has(&f, &d));
    EXPECT(!life_has(&f, &dead));
    forge_free(&f);
}

TEST(a_ref_set_after_the_saving_saves_its_object)
{
    char noise[60000];
    struct digest a, b, c, d;
    struct forge f;
    struct gc g;
    uint64_t seed = 6;

    /* Of one pack a is alive, b becomes so after the pack was copied, c never. */
    forge_new(&f);
    gen_noise(&seed, noise, sizeof(noise));
    forge_begin(&f);
    a = forge_blob(&f, ENC_RAW, 0, noise, 1000);
    b = forge_blob(&f, ENC_RAW, 0, noise + 1000, 2000);
    c = forge_blob(&f, ENC_RAW, 0, noise + 3000, 50000);
    forge_ref(&f, "a", OBJ_BLOB, &a);
    forge_commit(&f);
    forge_begin(&f);
    d = forge_blob(&f, ENC_RAW, 0, noise + 1, 5000);
    forge_commit(&f);
    begin(&f, &g);
    EXPECT_OK(gc_save(&g, &f.err), &f.err);
    life_ref(&f, "b", OBJ_BLOB, &b);
    finish(&f, &g);
    EXPECT(life_has(&f, &a) && life_has(&f, &b));
    EXPECT(life_has(&f, &c)); /* its pack was spared for b */
    EXPECT(!life_has(&f, &d));
    life_gc(&f, 0);
    EXPECT(!life_has(&f, &c));
    life_check(&f);
    forge_free(&f);
}

TEST(a_slice_needed_after_the_mark_saves_its_file)
{
    static const size_t sizes[] = {2000, 6000, 3000};
    struct recipe_chunk *chunks;
    struct digest dead, other;
    struct forge f;
    struct gc g;
    uint64_t seed = 4;
    char noise[11000];

    for (int after_saving = 0; after_saving < 2; after_saving++) {
        forge_new(&f);
        seed = 4;
        gen_noise(&seed, noise, sizeof(noise));
        dead = loose_of(&f, 4, 8000, NULL);
        chunks = forge_chunks(noise, sizes, 3);
        begin(&f, &g);
        if (after_saving)
            EXPECT_OK(gc_save(&g, &f.err), &f.err);
        forge_begin(&f);
        forge_blob(&f, ENC_RAW, 0, noise + 8000, 3000);
        other = forge_recipe(&f, noise, 11000, chunks, 3);
        forge_ref(&f, "other", OBJ_BLOB, &other);
        forge_commit(&f);
        if (!after_saving)
            EXPECT_OK(gc_save(&g, &f.err), &f.err);
        finish(&f, &g);
        EXPECT(forge_loose_there(&f, &dead));
        life_gc(&f, 0);
        EXPECT(!forge_loose_there(&f, &dead));
        life_check(&f);
        free(chunks);
        forge_free(&f);
    }
}

TEST(a_dead_recipe_in_a_spared_pack_keeps_its_chunks)
{
    static const size_t sizes[] = {4000, 4000};
    char noise[20000];
    struct recipe_chunk *chunks;
    struct digest whole, spared;
    struct forge f;
    struct gc g;
    uint64_t seed = 8;

    forge_new(&f);
    gen_noise(&seed, noise, sizeof(noise));
    chunks = forge_chunks(noise, sizes, 2);
    forge_begin(&f);
    forge_blob(&f, ENC_RAW, 0, noise, 4000);
    forge_blob(&f, ENC_RAW, 0, noise + 4000, 4000);
    forge_commit(&f);
    forge_begin(&f);
    whole = forge_recipe(&f, noise, 8000, chunks, 2);
    spared = forge_blob(&f, ENC_RAW, 0, noise + 8000, 100);
    forge_commit(&f);
    begin(&f, &g);
    life_ref(&f, "spared", OBJ_BLOB, &spared);
    EXPECT_OK(gc_save(&g, &f.err), &f.err);
    finish(&f, &g);
    EXPECT(life_has(&f, &whole));
    life_read(&f, OBJ_BLOB, &whole);
    life_gc(&f, 0);
    EXPECT(!life_has(&f, &whole));
    EXPECT(!life_has(&f, &chunks[0].id));
    life_check(&f);
    free(chunks);
    forge_free(&f);
}

/* Who relied on what is condemned is refused, and who writes it anew is not. */
TEST(condemned_objects_are_refused_to_writers)
{
    struct index_commit c = {0};
    struct gc_deleted deleted;
    struct digest d;
    struct forge f;
    struct gc g;

    forge_new(&f);
    d = life_tree(&f, NULL, 100, 10, 100);
    begin(&f, &g);
    EXPECT_OK(gc_save(&g, &f.err), &f.err);
    EXPECT_OK(gc_condemn(&g, &f.err), &f.err);
    EXPECT(!life_has(&f, &d));
    c.reused = &d;
    c.reused_count = 1;
    EXPECT_ERR(index_commit(f.st->index, &c, &f.err), ERR_CHANGED, &f.err);
    f.err = (struct err)ERR_INIT;
    EXPECT(digest_eq(&d, (struct digest[]){life_tree(&f, "again", 100, 10, 100)}));
    EXPECT_OK(gc_delete(f.st, g.young_ns, &deleted, &f.err), &f.err);
    gc_end(&g);
    EXPECT(life_has(&f, &d));
    life_check(&f);
    life_rebuild_is_equal(&f);
    forge_free(&f);
}

/* A pack that a writer has sealed and not announced: somebody's index_sync makes it known, a gc without grace deletes it, the writer
 * commits. */
TEST(a_pack_deleted_under_its_writer_is_refused)
{
    struct index_commit c = {0};
    struct pack *pack = NULL;
    struct digest d, name;
    struct forge f;
    int64_t merged;

    for (int purged = 0; purged < 2; purged++) {
        struct gc g;

        forge_new(&f);
        forge_begin(&f);
        d = forge_blob(&f, ENC_RAW, 0, "in flight", 9);
        EXPECT_OK(pack_seal(f.w, PACK_SYNC_DIR, &name, &f.err), &f.err);
        pack_writer_release(f.w);
        f.w = NULL;
        EXPECT_OK(pack_open(f.st->packs, &name, &pack, &f.err), &f.err);
        EXPECT_OK(index_sync(f.st->index, f.st->packs, &merged, &f.err), &f.err);
        EXPECT_EQ(merged, 1);
        if (purged) {
            life_gc(&f, 0);
        } else {
            begin(&f, &g);
            EXPECT_OK(gc_save(&g, &f.err), &f.err);
            EXPECT_OK(gc_condemn(&g, &f.err), &f.err);
        }
        c.packs = &pack;
        c.pack_count = 1;
        EXPECT_ERR(index_commit(f.st->index, &c, &f.err), ERR_CHANGED, &f.err);
        pack_close(pack);
        f.err = (struct err)ERR_INIT;
        if (!purged) {
            EXPECT_OK(gc_finish_condemned(f.st, 0, &f.err), &f.err);
            gc_end(&g);
        }
        EXPECT(!life_has(&f, &d));
        life_check(&f);
        forge_free(&f);
    }
}

/* ---- killed between two steps -------------------------------------------------------------------- */

static struct digest lay_out(struct forge *f, struct digest *dead)
{
    char noise[60000];
    struct digest a;
    uint64_t seed = 6;

    forge_new(f);
    gen_noise(&seed, noise, sizeof(noise));
    forge_begin(f);
    a = forge_blob(f, ENC_RAW, 0, noise, 1000);
    *dead = forge_blob(f, ENC_RAW, 0, noise + 3000, 50000);
    forge_ref(f, "a", OBJ_BLOB, &a);
    forge_commit(f);
    loose_of(f, 4, 8000, NULL);
    life_tree(f, NULL, 50, 10, 100);
    return a;
}

TEST(the_next_one_goes_on)
{
    for (int step = 0; step < 5; step++) {
        struct digest a, dead;
        struct condemned c;
        struct forge f;
        struct gc g;

        a = lay_out(&f, &dead);
        begin(&f, &g);
        if (step > 0)
            EXPECT_OK(gc_save(&g, &f.err), &f.err);
        if (step > 1)
            EXPECT_OK(gc_condemn(&g, &f.err), &f.err);
        if (step == 3) /* killed in the middle of purge and delete */
            EXPECT_OK(index_purge(f.st->index, &f.err), &f.err);
        if (step == 4) {
            bool kept;

            EXPECT_OK(index_condemned(f.st->index, &c, &f.err), &f.err);
            EXPECT_EQ(c.loose_count, 1);
            EXPECT_OK(loose_delete(f.st, &c.loose[0], os_now_ns() + NS, &kept, &f.err), &f.err);
            free(c.packs);
            free(c.loose);
        }
        gc_end(&g);
        forge_open(&f, STORE_WRITE); /* finishes what was condemned */
        life_check(&f);
        life_fsck_clean(&f);
        EXPECT(life_has(&f, &a));
        EXPECT_EQ(life_has(&f, &dead), step < 2);
        life_rebuild_is_equal(&f);
        life_gc(&f, 0);
        EXPECT(!life_has(&f, &dead));
        EXPECT(life_has(&f, &a));
        life_check(&f);
        forge_free(&f);
    }
}

/* Packs of another process that become known while a gc runs. */
TEST(a_saved_pack_may_be_known_before_the_condemning)
{
    struct digest a, dead;
    struct forge f;
    struct gc g;
    int64_t merged;

    a = lay_out(&f, &dead);
    begin(&f, &g);
    EXPECT_OK(gc_save(&g, &f.err), &f.err);
    EXPECT_OK(index_sync(f.st->index, f.st->packs, &merged, &f.err), &f.err);
    EXPECT_OK(gc_condemn(&g, &f.err), &f.err);
    gc_end(&g);
    forge_open(&f, STORE_WRITE);
    EXPECT(life_has(&f, &a));
    life_check(&f);
    life_rebuild_is_equal(&f);
    forge_free(&f);
}

RUN(what_nothing_reaches_goes, an_empty_store_has_nothing_to_collect,
    a_pack_that_is_mostly_dead_is_rewritten, a_pack_that_is_mostly_alive_stays,
    a_dead_recipe_does_not_outlive_its_chunks, copies_elsewhere_do_not_matter, dead_loose_files_go,
    slices_of_a_dead_file_are_saved, a_file_in_use_keeps_its_announcement,
    a_file_whose_contents_are_in_packs_goes, a_file_used_since_stays,
    a_file_announced_meanwhile_stays, a_file_that_no_pack_announces_waits,
    what_was_added_lately_stays, what_was_touched_lately_stays, leases_are_roots_until_they_run_out,
    after_a_rebuild_everything_counts_as_used, a_missing_object_stops_it,
    temporary_files_of_the_dead_go, a_dry_run_tells_and_does_nothing, one_at_a_time,
    a_ref_set_after_the_mark_saves_its_object, a_ref_set_after_the_saving_saves_its_object,
    a_slice_needed_after_the_mark_saves_its_file, a_dead_recipe_in_a_spared_pack_keeps_its_chunks,
    condemned_objects_are_refused_to_writers, a_pack_deleted_under_its_writer_is_refused,
    the_next_one_goes_on, a_saved_pack_may_be_known_before_the_condemning)
