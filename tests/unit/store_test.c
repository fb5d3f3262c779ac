#include <errno.h>
#include <sys/wait.h>

#include "store/store.h"
#include "store/store_migrate.h"
#include "tests/store_forge.h"

static void path_in(const char *dir, const char *name, char out[TMPDIR_MAX + 128])
{
    const int n = snprintf(out, TMPDIR_MAX + 128, "%s/%s", dir, name);

    EXPECT(n > 0 && n < TMPDIR_MAX + 128);
}

static void write_text(const char *dir, const char *name, const char *text)
{
    char path[TMPDIR_MAX + 128];
    struct err err = ERR_INIT;

    path_in(dir, name, path);
    EXPECT_OK(os_write_file(AT_FDCWD, path, text, strlen(text), 0644, &err), &err);
}

static bool there(const char *dir, const char *name)
{
    char path[TMPDIR_MAX + 128];

    path_in(dir, name, path);
    return access(path, F_OK) == 0;
}

static void remove_path(const char *dir, const char *name)
{
    char path[TMPDIR_MAX + 128];
    struct err err = ERR_INIT;

    path_in(dir, name, path);
    EXPECT_OK(os_remove_tree(AT_FDCWD, path, &err), &err);
}

/* ---- init -------------------------------------------------------------------------------------- */

TEST(init_makes_a_store_that_opens)
{
    struct err err = ERR_INIT;
    char dir[TMPDIR_MAX], text[64];
    struct store *st = NULL;
    struct buf format;

    tmpdir_new(dir);
    EXPECT_OK(store_init(dir, NULL, &err), &err);
    EXPECT(there(dir, ".weir/config.yaml"));
    EXPECT(there(dir, ".weir/objects/loose/00"));
    EXPECT(there(dir, ".weir/objects/loose/ff"));
    EXPECT(!there(dir, ".weir/objects/loose/100"));
    EXPECT(there(dir, ".weir/objects/quarantine"));
    buf_init(&format, 4096);

    char path[TMPDIR_MAX + 128];

    path_in(dir, ".weir/format", path);
    EXPECT_OK(os_read_file(AT_FDCWD, path, 4096, &format, &err), &err);
    snprintf(text, sizeof(text), "weir store %d\n", STORE_FORMAT);
    EXPECT_STR(format.p, text);
    buf_release(&format);
    EXPECT_OK(store_open(dir, STORE_READ, &st, &err), &err);
    EXPECT_OK(store_check(st, &err), &err);
    store_close(st);
    EXPECT_OK(store_open(dir, STORE_WRITE, &st, &err), &err);
    EXPECT(st->threads >= 1);
    EXPECT(st->threads <= 16);
    EXPECT_OK(store_check(st, &err), &err);
    store_close(st);
    EXPECT_ERR(store_init(dir, NULL, &err), ERR_EXISTS, &err);
    tmpdir_free(dir);
}

TEST(init_makes_the_folder_and_takes_an_objects_path)
{
    struct err err = ERR_INIT;
    char dir[TMPDIR_MAX], project[TMPDIR_MAX + 128], objects[TMPDIR_MAX + 128];
    struct store *st = NULL;

    tmpdir_new(dir);
    path_in(dir, "new/project", project);
    path_in(dir, "shared \"and\" odd\\ name/objects", objects);
    EXPECT_OK(store_init(project, objects, &err), &err);
    EXPECT(!there(project, ".weir/objects"));
    EXPECT(there(objects, "loose/a7"));
    EXPECT_OK(store_open(project, STORE_WRITE, &st, &err), &err);
    EXPECT_STR(st->config.objects, objects);
    store_close(st);
    tmpdir_free(dir);
}

/* A second project on the same objects, or the same one on a new head node: what is there is known at once. */
TEST(init_on_existing_objects_knows_them)
{
    char objects[TMPDIR_MAX + 128], project[TMPDIR_MAX + 128];
    struct store *st = NULL;
    struct digest id, found;
    enum obj_kind kind;
    struct forge f;

    forge_new(&f);
    forge_begin(&f);
    id = forge_blob(&f, ENC_RAW, 0, "hello", 5);
    forge_ref(&f, "greeting", OBJ_BLOB, &id);
    forge_commit(&f);
    path_in(f.dir, ".weir/objects", objects);
    path_in(f.dir, "other", project);
    EXPECT_OK(store_init(project, objects, &f.err), &f.err);
    EXPECT_OK(store_open(project, STORE_READ, &st, &f.err), &f.err);
    EXPECT_OK(store_resolve(st, STR("greeting"), &found, &kind, &f.err), &f.err);
    EXPECT(digest_eq(&found, &id));
    EXPECT_OK(store_check(st, &f.err), &f.err);
    store_close(st);
    forge_free(&f);
}

/* Killed after any step, init is simply called again; as long as it has not finished there is no store. */
TEST(init_survives_any_single_fault)
{
    bool fired = true;

    for (int nth = 0; fired; nth++) {
        struct err err = ERR_INIT;
        const int fds = forge_fd_count();
        char dir[TMPDIR_MAX];
        struct store *st = NULL;
        enum err_code rc;

        tmpdir_new(dir);
        fault_arm(nth);
        rc = store_init(dir, NULL, &err);
        fired = fault_disarm();
        EXPECT_EQ(fired, rc != OK);
        EXPECT_EQ(forge_fd_count(), fds);
        /* The last step may have been done and only its fsync have failed. */
        rc = store_init(dir, NULL, &err);
        EXPECT(rc == OK || rc == ERR_EXISTS);
        EXPECT_OK(store_open(dir, STORE_WRITE, &st, &err), &err);
        EXPECT_OK(store_check(st, &err), &err);
        store_close(st);
        tmpdir_free(dir);
    }
}

/* ---- open -------------------------------------------------------------------------------------- */

TEST(open_looks_upwards_and_obeys_weir_dir)
{
    struct err err = ERR_INIT;
    char dir[TMPDIR_MAX], deep[TMPDIR_MAX + 128], weir[TMPDIR_MAX + 128];
    struct store *st = NULL;

    tmpdir_new(dir);
    EXPECT_OK(store_init(dir, NULL, &err), &err);
    path_in(dir, "a/b/c", deep);
    EXPECT_OK(os_mkdirs(deep, 0755, &err), &err);
    EXPECT_OK(store_open(deep, STORE_READ, &st, &err), &err);
    path_in(dir, ".weir", weir);

    char *real = realpath(weir, NULL);

    EXPECT_STR(st->root, real);
    free(real);
    store_close(st);
    setenv("WEIR_DIR", dir, 1);
    EXPECT_OK(store_open(NULL, STORE_READ, &st, &err), &err);
    store_close(st);
    setenv("WEIR_DIR", weir, 1);
    EXPECT_OK(store_open(NULL, STORE_READ, &st, &err), &err);
    store_close(st);
    setenv("WEIR_DIR", deep, 1); /* no looking upwards for what was named */
    EXPECT_ERR(store_open(NULL, STORE_READ, &st, &err), ERR_NOT_FOUND, &err);
    unsetenv("WEIR_DIR");
    tmpdir_free(dir);
}

TEST(open_says_when_there_is_no_store)
{
    struct err err = ERR_INIT;
    char dir[TMPDIR_MAX];
    struct store *st = NULL;

    tmpdir_new(dir);
    EXPECT_ERR(store_open(dir, STORE_WRITE, &st, &err), ERR_NOT_FOUND, &err);
    EXPECT(strstr(err.text, "run weir init"));
    EXPECT(st == NULL);
    EXPECT_OK(os_mkdirs(dir, 0755, &err), &err);
    tmpdir_free(dir);
    EXPECT_ERR(store_open(dir, STORE_WRITE, &st, &err), ERR_NOT_FOUND, &err);
}

static void expect_format(const char *format, enum err_code wanted, const char *says)
{
    struct err err = ERR_INIT;
    char dir[TMPDIR_MAX];
    struct store *st = NULL;

    tmpdir_new(dir);
    EXPECT_OK(store_init(dir, NULL, &err), &err);
    remove_path(dir, ".weir/index");
    remove_path(dir, ".weir/format");
    if (format)
        write_text(dir, ".weir/format", format);
    EXPECT_ERR(store_open(dir, STORE_WRITE, &st, &err), wanted, &err);
    EXPECT(strstr(err.text, says));
    EXPECT(!there(dir, ".weir/index")); /* nothing was touched */
    tmpdir_free(dir);
}

TEST(other_formats_are_refused_untouched)
{
    expect_format("weir store 2\n", ERR_VERSION, "use a newer weir");
    expect_format("weir store 2000000000\n", ERR_VERSION, "use a newer weir");
    expect_format("weir store 99999999999999999999\n", ERR_DAMAGED, "does not say");
    expect_format("weir store 0\n", ERR_VERSION, "use the weir that wrote it");
    expect_format("weir store\n", ERR_DAMAGED, "does not say");
    expect_format("weir store 1", ERR_DAMAGED, "does not say");
    expect_format("weir store 1\n\n", ERR_DAMAGED, "does not say");
    expect_format("", ERR_DAMAGED, "does not say");
    expect_format("garbage", ERR_DAMAGED, "does not say");
    expect_format(NULL, ERR_CONFIG, "run it again");
}

TEST(a_missing_index_is_made_again)
{
    struct forge f;
    struct digest id;
    struct buf out;

    forge_new(&f);
    forge_begin(&f);
    id = forge_blob(&f, ENC_RAW, 0, "hello", 5);
    forge_ref(&f, "greeting", OBJ_BLOB, &id);
    forge_commit(&f);
    store_close(f.st);
    f.st = NULL;
    remove_path(f.dir, ".weir/index");
    EXPECT_ERR(store_open(f.dir, STORE_READ, &f.st, &f.err), ERR_CONFIG, &f.err);
    EXPECT(strstr(f.err.text, "run weir store rebuild"));
    forge_open(&f, STORE_WRITE);
    EXPECT_OK(store_check(f.st, &f.err), &f.err);
    buf_init(&out, 100);
    EXPECT_OK(object_read(f.st, &id, 100, &out, &f.err), &f.err);
    EXPECT_STR(out.p, "hello");
    buf_release(&out);
    forge_free(&f);
}

/* A pack that a node left, or that was sealed right before a crash. */
TEST(open_for_writing_finds_new_packs)
{
    struct forge f;
    struct digest id, name;
    struct loc loc;

    forge_new(&f);
    forge_begin(&f);
    id = forge_blob(&f, ENC_RAW, 0, "late", 4);
    EXPECT_OK(pack_seal(f.w, PACK_SYNC_DIR, &name, &f.err), &f.err);
    EXPECT_OK(object_locate(f.st, &id, 1, &loc, &f.err), &f.err);
    EXPECT_EQ(loc.type, 0);
    forge_open(&f, STORE_READ);
    EXPECT_OK(object_locate(f.st, &id, 1, &loc, &f.err), &f.err);
    EXPECT_EQ(loc.type, 0);
    forge_open(&f, STORE_WRITE);
    EXPECT_OK(object_locate(f.st, &id, 1, &loc, &f.err), &f.err);
    EXPECT_EQ(loc.type, LOC_BLOB);
    forge_free(&f);
}

TEST(missing_objects_folder_is_a_configuration_matter)
{
    struct err err = ERR_INIT;
    char dir[TMPDIR_MAX];
    struct store *st = NULL;

    tmpdir_new(dir);
    EXPECT_OK(store_init(dir, NULL, &err), &err);
    write_text(dir, ".weir/config.yaml", "objects: /nowhere/at/all\n");
    EXPECT_ERR(store_open(dir, STORE_READ, &st, &err), ERR_CONFIG, &err);
    EXPECT(strstr(err.text, "/nowhere/at/all"));
    EXPECT(strstr(err.text, "config.yaml"));
    tmpdir_free(dir);
}

TEST(open_survives_any_single_fault)
{
    struct forge f;
    struct digest id;
    bool fired = true;

    forge_new(&f);
    forge_begin(&f);
    id = forge_blob(&f, ENC_RAW, 0, "hello", 5);
    forge_ref(&f, "greeting", OBJ_BLOB, &id);
    forge_commit(&f);
    store_close(f.st);
    f.st = NULL;
    for (int without_index = 0; without_index < 2; without_index++, fired = true)
        for (int nth = 0; fired; nth++) {
            const int fds = forge_fd_count();
            enum err_code rc;

            if (without_index)
                remove_path(f.dir, ".weir/index");
            fault_arm(nth);
            rc = store_open(f.dir, STORE_WRITE, &f.st, &f.err);
            fired = fault_disarm();
            /* A rebuild may fail to remove its temporary folder without failing itself. */
            EXPECT(fired || rc == OK);
            EXPECT(without_index || fired == (rc != OK));
            EXPECT_EQ(rc == OK, f.st != NULL);
            store_close(f.st);
            f.st = NULL;
            EXPECT_EQ(forge_fd_count(), fds);
            forge_open(&f, STORE_WRITE);
            EXPECT_OK(store_check(f.st, &f.err), &f.err);
            store_close(f.st);
            f.st = NULL;
        }
    forge_free(&f);
}

TEST(a_node_opens_without_index)
{
    struct forge f;
    const struct digest absent = {.b = {1}};
    struct digest id, found;
    enum obj_kind kind;
    struct buf out;

    forge_new(&f);
    id = forge_loose_file(&f, "loose and small", 15);
    forge_open(&f, STORE_NODE);
    EXPECT(f.st->index == NULL);
    buf_init(&out, 100);
    EXPECT_OK(object_read(f.st, &id, 100, &out, &f.err), &f.err);
    EXPECT_STR(out.p, "loose and small");
    buf_release(&out);
    EXPECT_ERR(object_read(f.st, &absent, 100, &out, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_ERR(store_resolve(f.st, STR("x"), &found, &kind, &f.err), ERR_CONFIG, &f.err);
    forge_free(&f);
}

TEST(weir_lose_is_checked)
{
    static const char *const wrong[] = {"7", "x,3", "7,101", "7,-1", ",", "7,3x"};
    struct err err = ERR_INIT;
    char dir[TMPDIR_MAX];
    struct store *st = NULL;

    tmpdir_new(dir);
    EXPECT_OK(store_init(dir, NULL, &err), &err);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        setenv("WEIR_LOSE", wrong[i], 1);
        EXPECT_ERR(store_open(dir, STORE_READ, &st, &err), ERR_CONFIG, &err);
        EXPECT(strstr(err.text, "WEIR_LOSE"));
    }
    setenv("WEIR_LOSE", "-5,30", 1);
    EXPECT_OK(store_open(dir, STORE_READ, &st, &err), &err);
    EXPECT_EQ(st->lose_seed, -5);
    EXPECT_EQ(st->lose_percent, 30);
    unsetenv("WEIR_LOSE");
    store_close(st);
    tmpdir_free(dir);
}

/* ---- migration --------------------------------------------------------------------------------- */

static int step_calls;

static enum err_code step_good(struct store *st, struct err *err)
{
    (void)err;
    step_calls++;
    EXPECT(st->packs >= 0);
    return OK;
}

static enum err_code step_bad(struct store *st, struct err *err)
{
    step_calls++;
    return err_set(err, ERR_IO, "cannot convert %s", st->root);
}

static void expect_text(const char *dir, const char *name, const char *text)
{
    char path[TMPDIR_MAX + 128];
    struct err err = ERR_INIT;
    struct buf got;

    path_in(dir, name, path);
    buf_init(&got, 1000);
    EXPECT_OK(os_read_file(AT_FDCWD, path, 1000, &got, &err), &err);
    EXPECT_STR(got.p, text);
    buf_release(&got);
}

TEST(migration_backs_up_and_goes_on_after_a_failure)
{
    struct migration steps[] = {{3, step_good}, {2, step_bad}};
    struct forge f;

    forge_new(&f);
    write_text(f.dir, ".weir/format", "weir store 2\n");
    step_calls = 0;
    EXPECT_ERR(store_migrate(f.st, 1, 4, steps, 2, &f.err), ERR_VERSION, &f.err);
    EXPECT_EQ(step_calls, 0);
    EXPECT(!there(f.dir, ".weir/backup-format-1"));
    EXPECT_ERR(store_migrate(f.st, 2, 4, steps, 2, &f.err), ERR_IO, &f.err);
    EXPECT_EQ(step_calls, 1);
    EXPECT(strstr(f.err.text, "from format 2 to 4"));
    expect_text(f.dir, ".weir/format", "weir store 2\n");
    expect_text(f.dir, ".weir/backup-format-2/format", "weir store 2\n");
    EXPECT(there(f.dir, ".weir/backup-format-2/data.mdb"));
    steps[1].run = step_good;
    EXPECT_OK(store_migrate(f.st, 2, 4, steps, 2, &f.err), &f.err);
    EXPECT_EQ(step_calls, 3);
    expect_text(f.dir, ".weir/format", "weir store 4\n");
    expect_text(f.dir, ".weir/backup-format-2/format", "weir store 2\n");
    forge_free(&f);
}

TEST(migration_survives_any_single_fault)
{
    const struct migration steps[] = {{1, step_good}, {2, step_good}};
    bool fired = true;

    for (int nth = 0; fired; nth++) {
        struct forge f;
        enum err_code rc;
        int from = 1;

        forge_new(&f);
        const int fds = forge_fd_count();

        fault_arm(nth);
        rc = store_migrate(f.st, 1, 3, steps, 2, &f.err);
        fired = fault_disarm();
        EXPECT_EQ(fired, rc != OK);
        EXPECT_EQ(forge_fd_count(), fds);
        if (rc) {
            char path[TMPDIR_MAX + 128];
            struct buf got;

            path_in(f.dir, ".weir/format", path);
            buf_init(&got, 1000);
            EXPECT_OK(os_read_file(AT_FDCWD, path, 1000, &got, &f.err), &f.err);
            from = got.p[11] - '0';
            buf_release(&got);
            if (from < 3)
                EXPECT_OK(store_migrate(f.st, from, 3, steps, 2, &f.err), &f.err);
        }
        expect_text(f.dir, ".weir/format", "weir store 3\n");
        expect_text(f.dir, ".weir/backup-format-1/format", "weir store 1\n");
        forge_free(&f);
    }
}

/* ---- the lock ---------------------------------------------------------------------------------- */

TEST(one_gc_at_a_time)
{
    struct forge f;
    int first = -1, second = -1;

    forge_new(&f);
    EXPECT_OK(store_lock_gc(f.st, &first, &f.err), &f.err);
    EXPECT_ERR(store_lock_gc(f.st, &second, &f.err), ERR_AGAIN, &f.err);
    EXPECT_EQ(second, -1);
    os_close_quiet(&first);
    EXPECT_OK(store_lock_gc(f.st, &second, &f.err), &f.err);
    os_close_quiet(&second);
    forge_free(&f);
}

/* ---- refs -------------------------------------------------------------------------------------- */

TEST(ref_names)
{
    static const char *const good[] = {"a", "runs/41", "x@v1.2=3,4[5]+-_", "model/x.safetensors"};
    static const char *const bad[] = {"",    "/a",   "a/",       "a..b", "a b",
                                      "a:b", "a\nb", "\xc3\xa9", "*"};
    char name[402];
    struct err err = ERR_INIT;

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        EXPECT_OK(store_ref_check(str_of(good[i]), &err), &err);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        EXPECT_ERR(store_ref_check(str_of(bad[i]), &err), ERR_INPUT, &err);
    EXPECT_ERR(store_ref_check((struct str){"a\0b", 3}, &err), ERR_INPUT, &err);
    memset(name, 'n', sizeof(name));
    EXPECT_OK(store_ref_check((struct str){name, 400}, &err), &err);
    EXPECT_ERR(store_ref_check((struct str){name, 401}, &err), ERR_INPUT, &err);
}

TEST(refs_are_set_moved_and_removed)
{
    struct forge f;
    struct digest first, second, found;
    const struct digest absent = {.b = {9}};
    enum obj_kind kind;

    forge_new(&f);
    forge_begin(&f);
    first = forge_blob(&f, ENC_RAW, 0, "first", 5);
    second = forge_blob(&f, ENC_RAW, 0, "second", 6);
    forge_commit(&f);
    EXPECT_OK(store_ref_set(f.st, STR("runs/1"), OBJ_BLOB, &first, &f.err), &f.err);
    EXPECT_OK(store_resolve(f.st, STR("runs/1"), &found, &kind, &f.err), &f.err);
    EXPECT(digest_eq(&found, &first));
    EXPECT_EQ(kind, OBJ_BLOB);
    EXPECT_OK(store_ref_set(f.st, STR("runs/1"), OBJ_BLOB, &second, &f.err), &f.err);
    EXPECT_OK(store_resolve(f.st, STR("runs/1"), &found, &kind, &f.err), &f.err);
    EXPECT(digest_eq(&found, &second));
    EXPECT_ERR(store_ref_set(f.st, STR("runs/2"), OBJ_BLOB, &absent, &f.err), ERR_NOT_FOUND,
               &f.err);
    EXPECT_ERR(store_ref_set(f.st, STR("runs/2"), OBJ_TREE, &first, &f.err), ERR_INPUT, &f.err);
    EXPECT_ERR(store_ref_set(f.st, STR("runs 2"), OBJ_BLOB, &first, &f.err), ERR_INPUT, &f.err);
    EXPECT_ERR(store_resolve(f.st, STR("runs/2"), &found, &kind, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT(strstr(f.err.text, "did you mean \"runs/1\"?"));
    forge_open(&f, STORE_WRITE); /* durable */
    EXPECT_OK(store_resolve(f.st, STR("runs/1"), &found, &kind, &f.err), &f.err);
    EXPECT(digest_eq(&found, &second));
    EXPECT_OK(store_ref_set(f.st, STR("runs/1"), OBJ_NONE, NULL, &f.err), &f.err);
    EXPECT_ERR(store_resolve(f.st, STR("runs/1"), &found, &kind, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_OK(store_check(f.st, &f.err), &f.err);
    forge_free(&f);
}

/* After any failure the ref is the old one or the new one, and setting it again helps. */
TEST(setting_a_ref_survives_any_single_fault)
{
    bool fired = true;

    for (int nth = 0; fired; nth++) {
        struct forge f;
        struct digest first, second, found;
        enum obj_kind kind;
        enum err_code rc;
        int fds;

        forge_new(&f);
        forge_begin(&f);
        first = forge_blob(&f, ENC_RAW, 0, "first", 5);
        second = forge_blob(&f, ENC_RAW, 0, "second", 6);
        forge_ref(&f, "name", OBJ_BLOB, &first);
        forge_commit(&f);
        fds = forge_fd_count();
        fault_arm(nth);
        rc = store_ref_set(f.st, STR("name"), OBJ_BLOB, &second, &f.err);
        fired = fault_disarm();
        EXPECT(fired || rc == OK);
        EXPECT(forge_fd_count() <= fds + 1);
        EXPECT_OK(store_check(f.st, &f.err), &f.err);
        EXPECT_OK(store_resolve(f.st, STR("name"), &found, &kind, &f.err), &f.err);
        EXPECT(digest_eq(&found, &second) || (rc && digest_eq(&found, &first)));
        EXPECT_OK(store_ref_set(f.st, STR("name"), OBJ_BLOB, &second, &f.err), &f.err);
        EXPECT_OK(store_resolve(f.st, STR("name"), &found, &kind, &f.err), &f.err);
        EXPECT(digest_eq(&found, &second));
        forge_free(&f);
    }
}

static struct digest two_levels(struct forge *f, struct digest *sub, struct digest *leaf)
{
    struct tree t;
    int64_t sub_size;

    forge_begin(f);
    *leaf = forge_blob(f, ENC_RAW, 0, "leaf", 4);
    tree_init(&t);
    EXPECT_OK(tree_add(&t,
                       &(struct tree_entry){
                           .mode = TREE_FILE, .name = STR("x"), .digest = *leaf, .size = 4},
                       1, &f->err),
              &f->err);
    *sub = forge_tree(f, &t, &sub_size);
    tree_init(&t);
    EXPECT_OK(tree_add(&t,
                       &(struct tree_entry){
                           .mode = TREE_DIR, .name = STR("sub"), .digest = *sub, .size = sub_size},
                       0, &f->err),
              &f->err);
    EXPECT_OK(tree_add(&t,
                       &(struct tree_entry){
                           .mode = TREE_LINK, .name = STR("link"), .target = STR("sub/x")},
                       0, &f->err),
              &f->err);

    const struct digest root = forge_tree(f, &t, NULL);

    forge_ref(f, "tree", OBJ_TREE, &root);
    forge_commit(f);
    return root;
}

TEST(resolve_follows_paths)
{
    char text[DIGEST_TEXT + 16];
    struct forge f;
    struct digest root, sub, leaf, found;
    enum obj_kind kind;

    forge_new(&f);
    root = two_levels(&f, &sub, &leaf);
    EXPECT_OK(store_resolve(f.st, STR("tree"), &found, &kind, &f.err), &f.err);
    EXPECT(digest_eq(&found, &root));
    EXPECT_EQ(kind, OBJ_TREE);
    EXPECT_OK(store_resolve(f.st, STR("tree:sub"), &found, &kind, &f.err), &f.err);
    EXPECT(digest_eq(&found, &sub));
    EXPECT_EQ(kind, OBJ_TREE);
    EXPECT_OK(store_resolve(f.st, STR("tree:/sub//x"), &found, &kind, &f.err), &f.err);
    EXPECT(digest_eq(&found, &leaf));
    EXPECT_EQ(kind, OBJ_BLOB);
    digest_text(&root, text);
    snprintf(text + DIGEST_TEXT, sizeof(text) - DIGEST_TEXT, ":sub/x");
    EXPECT_OK(store_resolve(f.st, str_of(text), &found, &kind, &f.err), &f.err);
    EXPECT(digest_eq(&found, &leaf));
    EXPECT_OK(store_resolve(f.st, str_of(text + 7), &found, &kind, &f.err), &f.err);
    EXPECT(digest_eq(&found, &leaf));
    EXPECT_ERR(store_resolve(f.st, STR("tree:sub/y"), &found, &kind, &f.err), ERR_NOT_FOUND,
               &f.err);
    EXPECT(strstr(f.err.text, "did you mean \"x\"?"));
    EXPECT_ERR(store_resolve(f.st, STR("tree:sub/x/z"), &found, &kind, &f.err), ERR_INPUT, &f.err);
    EXPECT_ERR(store_resolve(f.st, STR("tree:link"), &found, &kind, &f.err), ERR_INPUT, &f.err);
    EXPECT(strstr(f.err.text, "is a link to \"sub/x\""));
    forge_free(&f);
}

TEST(resolve_takes_unique_prefixes)
{
    char hex[DIGEST_HEX + 1], text[DIGEST_TEXT + 1];
    struct forge f;
    struct digest ids[200], found;
    enum obj_kind kind;

    forge_new(&f);
    forge_begin(&f);
    for (int i = 0; i < 200; i++)
        ids[i] = forge_blob(&f, ENC_RAW, 0, &i, sizeof(i));
    digest_hex(&ids[3], hex);
    hex[9] = '\0'; /* a ref that looks like the digits of another object */
    forge_ref(&f, hex, OBJ_BLOB, &ids[4]);
    forge_commit(&f);
    EXPECT_OK(store_resolve(f.st, str_of(hex), &found, &kind, &f.err), &f.err);
    EXPECT(digest_eq(&found, &ids[4]));
    hex[8] = '\0';
    EXPECT_OK(store_resolve(f.st, str_of(hex), &found, &kind, &f.err), &f.err);
    EXPECT(digest_eq(&found, &ids[3]));
    for (int i = 0; i < 200; i++) {
        digest_text(&ids[i], text);
        EXPECT_OK(
            store_resolve(f.st, (struct str){text, 7 + 8 + (size_t)i % 57}, &found, &kind, &f.err),
            &f.err);
        EXPECT(digest_eq(&found, &ids[i]));
    }
    hex[7] = '\0';
    EXPECT_ERR(store_resolve(f.st, str_of(hex), &found, &kind, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_ERR(store_resolve(f.st, STR("0000000000"), &found, &kind, &f.err), ERR_NOT_FOUND,
               &f.err);
    EXPECT_ERR(store_resolve(f.st, STR("sha256:xyz"), &found, &kind, &f.err), ERR_NOT_FOUND,
               &f.err);
    EXPECT_ERR(store_resolve(f.st, STR("not a name"), &found, &kind, &f.err), ERR_INPUT, &f.err);
    EXPECT_ERR(store_resolve(f.st, STR(""), &found, &kind, &f.err), ERR_INPUT, &f.err);
    forge_free(&f);
}

/* ---- complete and check ------------------------------------------------------------------------ */

TEST(complete_names_what_is_missing)
{
    struct forge f;
    struct digest root, sub, leaf, missing;
    const struct digest absent = {.b = {0xab}};
    struct tree t;
    bool complete;

    forge_new(&f);
    root = two_levels(&f, &sub, &leaf);
    EXPECT_OK(store_complete(f.st, OBJ_TREE, &root, &complete, &missing, &f.err), &f.err);
    EXPECT(complete);
    EXPECT(digest_is_zero(&missing));
    EXPECT_OK(store_complete(f.st, OBJ_BLOB, &absent, &complete, &missing, &f.err), &f.err);
    EXPECT(!complete);
    EXPECT(digest_eq(&missing, &absent));
    forge_begin(&f);
    tree_init(&t);
    EXPECT_OK(tree_add(&t,
                       &(struct tree_entry){
                           .mode = TREE_FILE, .name = STR("gone"), .digest = absent, .size = 1},
                       0, &f.err),
              &f.err);
    root = forge_tree(&f, &t, NULL);
    forge_commit(&f);
    EXPECT_OK(store_complete(f.st, OBJ_TREE, &root, &complete, &missing, &f.err), &f.err);
    EXPECT(!complete);
    EXPECT(digest_eq(&missing, &absent));
    EXPECT_OK(store_complete(f.st, OBJ_BLOB, &root, &complete, &missing, &f.err), &f.err);
    EXPECT(complete); /* as a file the manifest is only bytes */
    forge_free(&f);
}

TEST(complete_looks_at_chunks_and_loose_files)
{
    const size_t sizes[] = {3, 4};
    struct recipe_chunk *chunks = forge_chunks("abcdefg", sizes, 2);
    struct forge f;
    struct digest recipe, loose, missing;
    char name[LOOSE_NAME];
    bool complete;

    forge_new(&f);
    forge_begin(&f);
    forge_blob(&f, ENC_RAW, 0, "abc", 3);
    recipe = forge_recipe(&f, "abcdefg", 7, chunks, 2);
    loose = forge_loose(&f, "hijklmn", 7, sizes, 2);
    forge_commit(&f);
    EXPECT_OK(store_complete(f.st, OBJ_BLOB, &recipe, &complete, &missing, &f.err), &f.err);
    EXPECT(!complete);
    EXPECT(digest_eq(&missing, &chunks[1].id));
    EXPECT_OK(store_complete(f.st, OBJ_BLOB, &loose, &complete, &missing, &f.err), &f.err);
    EXPECT(complete);
    EXPECT_OK(store_check(f.st, &f.err), &f.err);
    free(chunks);
    chunks = forge_chunks("hijklmn", sizes, 2);
    EXPECT_OK(store_complete(f.st, OBJ_BLOB, &chunks[1].id, &complete, &missing, &f.err), &f.err);
    EXPECT(complete);
    loose_name(&loose, name);
    EXPECT_OK(os_unlink(f.st->loose, name, &f.err), &f.err);
    EXPECT_OK(store_complete(f.st, OBJ_BLOB, &loose, &complete, &missing, &f.err), &f.err);
    EXPECT(!complete);
    EXPECT_OK(store_complete(f.st, OBJ_BLOB, &chunks[1].id, &complete, &missing, &f.err), &f.err);
    EXPECT(!complete);
    EXPECT_ERR(store_check(f.st, &f.err), ERR_DAMAGED, &f.err);
    free(chunks);
    forge_free(&f);
}

/* A directory that is in itself twice per level names 2^40 paths; each object is looked at once. */
TEST(complete_does_not_walk_every_path)
{
    struct forge f;
    struct digest id, missing;
    int64_t size = 4;
    bool complete;

    forge_new(&f);
    forge_begin(&f);
    id = forge_blob(&f, ENC_RAW, 0, "leaf", 4);
    for (int i = 0; i < 40; i++) {
        struct tree t;

        tree_init(&t);
        for (int twice = 0; twice < 2; twice++)
            EXPECT_OK(tree_add(&t,
                               &(struct tree_entry){.mode = i ? TREE_DIR : TREE_FILE,
                                                    .name = twice ? STR("a") : STR("b"),
                                                    .digest = id,
                                                    .size = size},
                               0, &f.err),
                      &f.err);
        id = forge_tree(&f, &t, &size);
    }
    forge_commit(&f);
    EXPECT_OK(store_complete(f.st, OBJ_TREE, &id, &complete, &missing, &f.err), &f.err);
    EXPECT(complete);
    forge_free(&f);
}

TEST(check_finds_a_missing_or_cut_pack)
{
    char hex[DIGEST_HEX + 1];
    struct forge f;
    int fd = -1;

    forge_new(&f);
    forge_begin(&f);
    forge_blob(&f, ENC_RAW, 0, "hello", 5);
    forge_commit(&f);
    EXPECT_OK(store_check(f.st, &f.err), &f.err);
    digest_hex(&f.pack, hex);
    EXPECT_EQ(fchmodat(f.st->packs, hex, 0644, 0), 0);
    EXPECT_OK(os_open(f.st->packs, hex, O_RDWR, 0, &fd, &f.err), &f.err);
    EXPECT_OK(os_truncate(fd, 100, &f.err), &f.err);
    os_close_quiet(&fd);
    EXPECT_ERR(store_check(f.st, &f.err), ERR_DAMAGED, &f.err);
    EXPECT_OK(os_unlink(f.st->packs, hex, &f.err), &f.err);
    EXPECT_ERR(store_check(f.st, &f.err), ERR_DAMAGED, &f.err);
    EXPECT(strstr(f.err.text, hex));
    forge_free(&f);
}

RUN(init_makes_a_store_that_opens, init_makes_the_folder_and_takes_an_objects_path,
    init_on_existing_objects_knows_them, init_survives_any_single_fault,
    open_looks_upwards_and_obeys_weir_dir, open_says_when_there_is_no_store,
    other_formats_are_refused_untouched, a_missing_index_is_made_again,
    open_for_writing_finds_new_packs, missing_objects_folder_is_a_configuration_matter,
    open_survives_any_single_fault, a_node_opens_without_index, weir_lose_is_checked,
    migration_backs_up_and_goes_on_after_a_failure, migration_survives_any_single_fault,
    one_gc_at_a_time, ref_names, refs_are_set_moved_and_removed,
    setting_a_ref_survives_any_single_fault, resolve_follows_paths, resolve_takes_unique_prefixes,
    complete_names_what_is_missing, complete_looks_at_chunks_and_loose_files,
    complete_does_not_walk_every_path, check_finds_a_missing_or_cut_pack)
