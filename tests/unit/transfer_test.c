/* Push and pull between stores that mean well; tests/unit/hostile_remote_test.c has the others. */
#include <sys/file.h>

#include "store/action.h"
#include "tests/transfer_world.h"

TEST(everything_arrives)
{
    struct world w;
    struct digest root;

    world_new(&w);
    world_fill(&w);
    root = world_add(&w, w.a, "data/all");
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    EXPECT_EQ(w.report.refs, 1);
    EXPECT_EQ(w.report.refs_kept, 0);
    EXPECT_EQ(w.report.objects, w.report.objects_moved);
    EXPECT_EQ(w.report.packs, 2); /* objects; refs */
    EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
    EXPECT_EQ(w.report.refs, 1);
    EXPECT_EQ(w.report.objects, w.report.objects_moved);
    world_expect_whole(&w, w.b, "data/all", &root);
    EXPECT_OK(store_check(w.a, &w.err), &w.err);
    world_free(&w);
}

TEST(a_second_time_nothing_moves)
{
    struct world w;

    world_new(&w);
    world_fill(&w);
    (void)world_add(&w, w.a, "data/all");
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    EXPECT_EQ(w.report.objects_moved, 0);
    EXPECT_EQ(w.report.packs, 0);
    EXPECT_EQ(w.report.refs, 0);
    EXPECT(w.report.bytes_moved < 200); /* the record of the ref is read */
    EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
    EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
    EXPECT_EQ(w.report.objects_moved, 0);
    EXPECT_EQ(w.report.refs, 0);
    EXPECT(w.report.bytes_moved < 200);
    /* And b has nothing that the remote lacks, though it keeps things in its own way. */
    EXPECT_OK(world_push(&w, w.b, NULL), &w.err);
    EXPECT_EQ(w.report.objects_moved, 0);
    EXPECT_EQ(w.report.packs, 0);
    world_free(&w);
}

TEST(only_what_is_new_moves)
{
    struct world w;
    struct digest root;

    world_new(&w);
    world_fill(&w);
    (void)world_add(&w, w.a, "data/all");
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
    world_file(&w, "captions/new.json", "{\"caption\":\"a new one\"}", 23);
    root = world_add(&w, w.a, "data/all");
    EXPECT_OK(world_push(&w, w.a, "data/all"), &w.err);
    EXPECT_EQ(w.report.objects_moved, 3); /* the file, its folder, the root */
    EXPECT_EQ(w.report.refs, 1);
    EXPECT(w.report.bytes_moved < 20000);
    EXPECT_OK(world_pull(&w, w.b, "data/all"), &w.err);
    EXPECT_EQ(w.report.objects_moved, 3);
    EXPECT(w.report.bytes_moved < 20000);
    world_expect_whole(&w, w.b, "data/all", &root);
    world_free(&w);
}

/* A large file with a new part: its other chunks stay where they are. */
TEST(equal_chunks_do_not_move)
{
    const size_t size = 20 << 20;
    struct world w;
    struct digest root;
    uint64_t seed = 3;
    char *p = mem_alloc(size);

    world_new(&w);
    gen_noise(&seed, p, size);
    world_file(&w, "model.bin", p, size);
    (void)world_add(&w, w.a, "model");
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    EXPECT(w.report.bytes_moved > (int64_t)size);
    EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
    gen_noise(&seed, p + (9 << 20), 100000);
    world_file(&w, "model.bin", p, size);
    root = world_add(&w, w.a, "model");
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    EXPECT(w.report.bytes_moved < 9 << 20);
    EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
    EXPECT(w.report.bytes_moved < 9 << 20);
    world_expect_whole(&w, w.b, "model", &root);
    free(p);
    world_free(&w);
}

TEST(weights_travel_compressed)
{
    const size_t size = 8 << 20;
    const struct gen_tensor tensor = {"w", "BF16", size, 2};
    struct world w;
    struct digest root;
    struct buf file;
    uint64_t seed = 5;

    world_new(&w);
    buf_init(&file, size + 4096);
    gen_safetensors(&file, &seed, &tensor, 1, 0);
    gen_weights(&seed, (uint8_t *)file.p + file.n - size, size, 2);
    world_file(&w, "model.safetensors", file.p, file.n);
    root = world_add(&w, w.a, "model");
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    EXPECT(w.report.bytes_moved < (int64_t)size * 70 / 100);
    EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
    EXPECT(w.report.bytes_moved < (int64_t)size * 70 / 100);
    world_expect_whole(&w, w.b, "model", &root);
    /* From b they go on as they are. */
    EXPECT_OK(os_remove_tree(AT_FDCWD, w.remote, &w.err), &w.err);
    EXPECT_OK(world_push(&w, w.b, NULL), &w.err);
    EXPECT(w.report.bytes_moved < (int64_t)size * 70 / 100);
    buf_release(&file);
    world_free(&w);
}

/* ---- which refs -------------------------------------------------------------------------------- */

static void set_ref(struct world *w, struct store *st, const char *name, const char *text)
{
    struct writer *wr = NULL;
    struct digest d;

    EXPECT_OK(writer_open(st, &wr, &w->err), &w->err);
    EXPECT_OK(writer_put(wr, OBJ_BLOB, text, strlen(text), &d, &w->err), &w->err);
    EXPECT_OK(writer_commit(wr, &w->err), &w->err);
    writer_release(wr);
    EXPECT_OK(store_ref_set(st, str_of(name), OBJ_BLOB, &d, &w->err), &w->err);
}

static void expect_ref(struct world *w, struct store *st, const char *name, const char *text)
{
    struct digest want, is;

    sha256_of(text, strlen(text), &want);
    EXPECT(world_ref(w, st, name, &is));
    EXPECT_MEM(&is, &want, sizeof(is));
}

TEST(only_the_refs_that_are_named)
{
    struct world w;

    world_new(&w);
    set_ref(&w, w.a, "one", "1");
    set_ref(&w, w.a, "two", "2");
    EXPECT_OK(world_push(&w, w.a, "one"), &w.err);
    EXPECT_EQ(w.report.objects, 1);
    EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
    expect_ref(&w, w.b, "one", "1");
    EXPECT(!world_ref(&w, w.b, "two", NULL));
    EXPECT_ERR(world_pull(&w, w.b, "tow"), ERR_NOT_FOUND, &w.err);
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    EXPECT_EQ(w.report.refs, 1);
    EXPECT_ERR(world_pull(&w, w.b, "tow"), ERR_NOT_FOUND, &w.err);
    EXPECT(strstr(w.err.text, "did you mean two?"));
    EXPECT_OK(world_pull(&w, w.b, "two"), &w.err);
    expect_ref(&w, w.b, "two", "2");
    EXPECT_ERR(world_push(&w, w.a, "thre"), ERR_NOT_FOUND, &w.err);
    world_free(&w);
}

TEST(the_newer_ref_wins_on_both_sides)
{
    struct world w;
    struct buf notes;
    const struct transfer_options all = {.notes = &notes};

    world_new(&w);
    buf_init(&notes, 1 << 16);
    os_set_now(1000 * 1000000000LL);
    set_ref(&w, w.a, "x", "old");
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    os_set_now(2000 * 1000000000LL);
    set_ref(&w, w.b, "x", "new");

    /* b keeps its own; named, it is an error that says what to do. */
    EXPECT_OK(store_pull(w.b, w.remote, &all, &w.report, &w.err), &w.err);
    EXPECT_EQ(w.report.refs, 0);
    EXPECT_EQ(w.report.refs_kept, 1);
    EXPECT(strstr(notes.p, "ref x is newer here"));
    expect_ref(&w, w.b, "x", "new");
    EXPECT_ERR(world_pull(&w, w.b, "x"), ERR_CHANGED, &w.err);
    EXPECT(strstr(w.err.text, "weir ref rm x"));
    expect_ref(&w, w.b, "x", "new");

    /* b's goes to the remote; then a's is the old one. */
    EXPECT_OK(world_push(&w, w.b, NULL), &w.err);
    EXPECT_EQ(w.report.refs, 1);
    buf_clear(&notes);
    EXPECT_OK(store_push(w.a, w.remote, &all, &w.report, &w.err), &w.err);
    EXPECT_EQ(w.report.refs, 0);
    EXPECT_EQ(w.report.refs_kept, 1);
    EXPECT(strstr(notes.p, "newer"));
    EXPECT_ERR(world_push(&w, w.a, "x"), ERR_CHANGED, &w.err);
    EXPECT_OK(world_pull(&w, w.a, NULL), &w.err);
    expect_ref(&w, w.a, "x", "new");
    os_set_now(0);
    buf_release(&notes);
    world_free(&w);
}

TEST(a_removed_ref_comes_back_only_when_asked_for)
{
    struct world w;

    world_new(&w);
    set_ref(&w, w.a, "x", "text");
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    EXPECT_OK(store_ref_set(w.a, STR("x"), OBJ_NONE, NULL, &w.err), &w.err);
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err); /* a removal does not travel */
    EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
    expect_ref(&w, w.b, "x", "text");
    EXPECT_OK(world_pull(&w, w.a, NULL), &w.err);
    EXPECT_EQ(w.report.refs_kept, 1);
    EXPECT(!world_ref(&w, w.a, "x", NULL));
    EXPECT_OK(world_pull(&w, w.a, "x"), &w.err);
    expect_ref(&w, w.a, "x", "text");
    world_free(&w);
}

TEST(a_digest_can_be_named)
{
    struct world w;
    struct digest root;
    struct loc loc;
    char text[DIGEST_TEXT + 1];

    world_new(&w);
    world_fill(&w);
    root = world_add(&w, w.a, "data/all");
    digest_text(&root, text);
    EXPECT_OK(world_push(&w, w.a, text), &w.err);
    EXPECT_EQ(w.report.refs, 0);
    EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
    EXPECT_EQ(w.report.objects, 0);
    EXPECT_OK(world_pull(&w, w.b, text), &w.err);
    EXPECT_EQ(w.report.objects, w.report.objects_moved);
    EXPECT_OK(index_get(w.b->index, &root, 1, &loc, &w.err), &w.err);
    EXPECT(loc.flags & REC_TREE);
    EXPECT_OK(store_ref_set(w.b, STR("mine"), OBJ_TREE, &root, &w.err), &w.err);
    world_expect_whole(&w, w.b, "mine", &root);
    memset(text + 20, '0', 20);
    EXPECT_ERR(world_pull(&w, w.b, text), ERR_NOT_FOUND, &w.err);
    world_free(&w);
}

/* ---- dry runs ---------------------------------------------------------------------------------- */

TEST(a_dry_run_moves_nothing_and_counts_right)
{
    struct world w;
    const struct transfer_options dry = {.dry_run = true};
    struct transfer_report would;
    struct index_stat before, after;
    char pack[WORLD_PATH + 128];

    world_new(&w);
    world_fill(&w);
    (void)world_add(&w, w.a, "data/all");
    EXPECT_ERR(store_push(w.a, w.remote, &dry, &would, &w.err), ERR_NOT_FOUND, &w.err);
    EXPECT_EQ(mkdir(w.remote, 0755), 0);
    snprintf(pack, sizeof(pack), "%s/packs", w.remote);
    EXPECT_EQ(mkdir(pack, 0755), 0);
    EXPECT_OK(store_push(w.a, w.remote, &dry, &would, &w.err), &w.err);
    EXPECT(!world_pack(&w, 0, pack));
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    EXPECT_EQ(would.objects_moved, w.report.objects_moved);
    EXPECT_EQ(would.refs, 1);

    EXPECT_OK(index_stat(w.b->index, &before, &w.err), &w.err);
    EXPECT_OK(store_pull(w.b, w.remote, &dry, &would, &w.err), &w.err);
    EXPECT_OK(index_stat(w.b->index, &after, &w.err), &w.err);
    EXPECT_EQ(before.objects, after.objects);
    EXPECT_EQ(before.commits, after.commits);
    EXPECT(!world_ref(&w, w.b, "data/all", NULL));
    EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
    EXPECT_EQ(would.objects_moved, w.report.objects_moved);
    EXPECT_EQ(would.objects, w.report.objects);
    EXPECT_EQ(would.refs, w.report.refs);
    world_free(&w);
}

/* ---- actions ----------------------------------------------------------------------------------- */

TEST(results_of_actions_come_along)
{
    struct world w;
    struct digest root, key, other_key, other, result;
    struct writer *wr = NULL;
    json_t *action = json_pack("{s:s}", "cmd", "train"), *lone = json_pack("{s:s}", "cmd", "eval");

    world_new(&w);
    world_fill(&w);
    root = world_add(&w, w.a, "data/all");
    EXPECT_OK(writer_open(w.a, &wr, &w.err), &w.err);
    EXPECT_OK(writer_put(wr, OBJ_BLOB, "0.5", 3, &other, &w.err), &w.err);
    EXPECT_OK(action_put(wr, action, &root, &key, &w.err), &w.err);
    EXPECT_OK(action_put(wr, lone, &other, &other_key, &w.err), &w.err);
    EXPECT_OK(writer_commit(wr, &w.err), &w.err);
    writer_release(wr);
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
    EXPECT_OK(action_lookup(w.b, &key, &result, &w.err), &w.err);
    EXPECT_MEM(&result, &root, sizeof(root));
    EXPECT_ERR(action_lookup(w.b, &other_key, &result, &w.err), ERR_NOT_FOUND, &w.err);

    /* Its text came too, and it is not sent over and over. */
    struct buf text;

    buf_init(&text, 4096);
    EXPECT_OK(object_read(w.b, &key, 4096, &text, &w.err), &w.err);
    EXPECT_STR(text.p, "{\"cmd\":\"train\"}");
    buf_release(&text);
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    EXPECT_EQ(w.report.packs, 0);
    EXPECT_OK(world_push(&w, w.b, NULL), &w.err);
    EXPECT_EQ(w.report.packs, 0);
    json_decref(action);
    json_decref(lone);
    world_free(&w);
}

/* ---- odd sizes --------------------------------------------------------------------------------- */

/* A directory of so many names that its manifest is kept in chunks. */
TEST(a_tall_tree_arrives)
{
    struct world w;
    struct tree t;
    struct buf manifest;
    struct digest blob, root, sub, is;
    struct writer *wr = NULL;
    struct tree_entry e = {.mode = TREE_FILE, .size = 1};
    bool complete = false;
    char name[32];

    world_new(&w);
    tree_init(&t);
    buf_init(&manifest, TREE_BYTES_MAX);
    EXPECT_OK(writer_open(w.a, &wr, &w.err), &w.err);
    EXPECT_OK(writer_put(wr, OBJ_BLOB, "x", 1, &blob, &w.err), &w.err);
    e.digest = blob;
    for (int i = 0; i < 140000; i++) {
        e.name = (struct str){name, (size_t)snprintf(name, sizeof(name), "file-%08d", i)};
        EXPECT_OK(tree_add(&t, &e, 1, &w.err), &w.err);
    }
    EXPECT_OK(tree_encode(&t, &manifest, &w.err), &w.err);
    EXPECT(manifest.n > CODEC_RAW_MAX);
    EXPECT_OK(writer_put(wr, OBJ_TREE, manifest.p, manifest.n, &sub, &w.err), &w.err);
    tree_release(&t);

    tree_init(&t);
    e = (struct tree_entry){
        .mode = TREE_DIR, .name = STR("sub"), .digest = sub, .size = (int64_t)manifest.n};
    EXPECT_OK(tree_add(&t, &e, 0, &w.err), &w.err);
    buf_clear(&manifest);
    EXPECT_OK(tree_encode(&t, &manifest, &w.err), &w.err);
    EXPECT_OK(writer_put(wr, OBJ_TREE, manifest.p, manifest.n, &root, &w.err), &w.err);
    EXPECT_OK(writer_commit(wr, &w.err), &w.err);
    writer_release(wr);
    EXPECT_OK(store_ref_set(w.a, STR("tall"), OBJ_TREE, &root, &w.err), &w.err);

    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    const struct transfer_options dry = {.dry_run = true};
    struct transfer_report would;

    EXPECT_OK(store_pull(w.b, w.remote, &dry, &would, &w.err), &w.err);
    EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
    EXPECT_EQ(would.objects, w.report.objects);
    EXPECT_EQ(w.report.objects, 3);
    EXPECT_OK(store_complete(w.b, OBJ_TREE, &root, &complete, &is, &w.err), &w.err);
    EXPECT(complete);
    buf_clear(&manifest);
    EXPECT_OK(object_read(w.b, &sub, TREE_BYTES_MAX, &manifest, &w.err), &w.err);
    sha256_of(manifest.p, manifest.n, &is);
    EXPECT_MEM(&is, &sub, sizeof(is));
    EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
    EXPECT_EQ(w.report.objects_moved, 0);
    tree_release(&t);
    buf_release(&manifest);
    world_free(&w);
}

/* The manifest of a tree, added as a file beside the folder that it describes. */
TEST(the_same_bytes_as_blob_and_as_tree)
{
    struct world w;
    struct digest root, sub;
    struct buf manifest;

    world_new(&w);
    world_file(&w, "z/a.txt", "hello", 5);
    memcpy(w.data + strlen(w.data), "/z", 3);
    sub = world_add(&w, w.a, NULL);
    w.data[strlen(w.data) - 2] = '\0';
    buf_init(&manifest, 1 << 16);
    EXPECT_OK(object_read(w.a, &sub, 1 << 16, &manifest, &w.err), &w.err);
    world_file(&w, "a-manifest", manifest.p, manifest.n);
    buf_release(&manifest);
    root = world_add(&w, w.a, "both");
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
    world_expect_whole(&w, w.b, "both", &root);
    world_free(&w);
}

/* ---- beside others ----------------------------------------------------------------------------- */

TEST(a_dir_remote_is_an_objects_folder)
{
    struct world w;
    struct digest root;
    struct rebuild_report report = {0};
    char dir[WORLD_PATH], index[WORLD_PATH + 16];
    struct store *st = NULL;

    world_new(&w);
    world_fill(&w);
    root = world_add(&w, w.a, "data/all");
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    snprintf(dir, sizeof(dir), "%s/c", w.dir);
    EXPECT_OK(store_init(dir, w.remote, &w.err), &w.err);
    EXPECT_OK(store_open(dir, STORE_NODE, &st, &w.err), &w.err);
    snprintf(index, sizeof(index), "%s/index", st->root);
    buf_init(&report.problems, 1 << 16);
    EXPECT_OK(index_rebuild(index, st->packs, st->loose, &report, &w.err), &w.err);
    EXPECT_EQ(report.damaged_packs, 0);
    EXPECT_EQ(report.refs, 1);
    buf_release(&report.problems);
    store_close(st);
    st = world_open(&w, dir);
    world_expect_whole(&w, st, "data/all", &root);
    store_close(st);
    world_free(&w);
}

TEST(one_push_at_a_time)
{
    struct world w;
    char path[WORLD_PATH + 64];
    struct os_entry *entries = NULL;
    size_t n = 0;
    int fd = -1, lock;

    world_new(&w);
    set_ref(&w, w.a, "x", "text");
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    set_ref(&w, w.a, "x", "other");
    snprintf(path, sizeof(path), "%s/remotes", w.a->root);
    EXPECT_OK(os_open_dir(AT_FDCWD, path, &fd, &w.err), &w.err);
    EXPECT_OK(os_list(fd, &entries, &n, &w.err), &w.err);
    EXPECT_EQ(n, 1);
    snprintf(path, sizeof(path), "%s/remotes/%s/lock", w.a->root, entries[0].name);
    free(entries);
    os_close_quiet(&fd);
    lock = open(path, O_RDWR);
    EXPECT_EQ(flock(lock, LOCK_EX), 0);
    EXPECT_ERR(world_push(&w, w.a, NULL), ERR_AGAIN, &w.err);
    close(lock);
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    world_free(&w);
}

TEST(fsck_can_fetch_what_was_lost)
{
    struct world w;
    struct digest root, lost[3];
    struct buf config;
    bool found[3] = {false};
    uint64_t seed = 9;
    char *large = mem_alloc(3 << 20), path[WORLD_PATH + 64], text[4096];

    world_new(&w);
    world_fill(&w);
    root = world_add(&w, w.a, "data/all");
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
    gen_noise(&seed, large, 3 << 20);
    sha256_of(large, 3 << 20, &lost[0]); /* kept in chunks */
    seed = 7;
    gen_json(&seed, text, sizeof(text));
    sha256_of(text, sizeof(text), &lost[1]); /* in a frame */
    memset(&lost[2], 0xab, sizeof(lost[2])); /* nobody has it */
    EXPECT_OK(index_drop_objects(w.b->index, lost, 3, &w.err), &w.err);

    EXPECT_OK(transfer_fetch(w.b, lost, 3, found, &w.err), &w.err);
    EXPECT(!found[0] && !found[1] && !found[2]); /* no remote is configured */
    store_close(w.b);
    w.b = NULL;
    buf_init(&config, 1 << 16);
    buf_printf(&config, "remotes: {gone: {dir: /nonexistent/weir}, near: {dir: %s}}\n", w.remote);
    snprintf(path, sizeof(path), "%s/.weir/config.yaml", w.b_dir);
    EXPECT_OK(os_write_file(AT_FDCWD, path, config.p, config.n, 0644, &w.err), &w.err);
    w.b = world_open(&w, w.b_dir);
    EXPECT_OK(transfer_fetch(w.b, lost, 3, found, &w.err), &w.err);
    EXPECT(found[0]);
    EXPECT(found[1]);
    EXPECT(!found[2]);
    world_expect_whole(&w, w.b, "data/all", &root);
    buf_release(&config);
    free(large);
    world_free(&w);
}

RUN(everything_arrives, a_second_time_nothing_moves, only_what_is_new_moves,
    equal_chunks_do_not_move, weights_travel_compressed, only_the_refs_that_are_named,
    the_newer_ref_wins_on_both_sides, a_removed_ref_comes_back_only_when_asked_for,
    a_digest_can_be_named, a_dry_run_moves_nothing_and_counts_right, results_of_actions_come_along,
    a_tall_tree_arrives, the_same_bytes_as_blob_and_as_tree, a_dir_remote_is_an_objects_folder,
    one_push_at_a_time, fsck_can_fetch_what_was_lost)
