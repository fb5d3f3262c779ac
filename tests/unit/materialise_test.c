#include <errno.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "store/mat_plan.h"
#include "store/materialise.h"
#include "tests/store_forge.h"
#include "tests/store_gen.h"

#define MIB ((size_t)1 << 20)

static const struct mat_options copy_options = {.how = MAT_COPY};

/* ---- trees, on disk and in the store at once --------------------------------------------------- */

/* A directory under construction: what goes into the tree goes into a real folder as well. */
struct both {
    struct forge *f;
    struct tree tree;
    int dir, depth;
};

static void both_begin(struct both *b, struct forge *f, int parent, const char *name, int depth)
{
    *b = (struct both){.f = f, .dir = -1, .depth = depth};
    tree_init(&b->tree);
    EXPECT_EQ(mkdirat(parent, name, 0755), 0);
    EXPECT_OK(os_open_dir(parent, name, &b->dir, &f->err), &f->err);
}

static void add(struct both *b, const struct tree_entry *e)
{
    EXPECT_OK(tree_add(&b->tree, e, b->depth, &b->f->err), &b->f->err);
}

static void both_file(struct both *b, const char *name, const struct digest *id, const char *p,
                      size_t n, bool exec)
{
    int fd = -1;

    add(b, &(struct tree_entry){.mode = exec ? TREE_EXEC : TREE_FILE,
                                .name = str_of(name),
                                .digest = *id,
                                .size = (int64_t)n});
    EXPECT_OK(
        os_open(b->dir, name, O_WRONLY | O_CREAT | O_EXCL, exec ? 0755 : 0644, &fd, &b->f->err),
        &b->f->err);
    EXPECT_OK(os_write(fd, p, n, &b->f->err), &b->f->err);
    os_close_quiet(&fd);
}

static void both_blob(struct both *b, const char *name, const char *p, size_t n, bool exec)
{
    const struct digest id = forge_blob(b->f, ENC_RAW, 0, p, n);

    both_file(b, name, &id, p, n, exec);
}

static void both_link(struct both *b, const char *name, const char *target)
{
    add(b, &(struct tree_entry){.mode = TREE_LINK, .name = str_of(name), .target = str_of(target)});
    EXPECT_OK(os_symlink(target, b->dir, name, &b->f->err), &b->f->err);
}

static struct digest both_end(struct both *b, int64_t *size)
{
    os_close_quiet(&b->dir);
    return forge_tree(b->f, &b->tree, size);
}

static void both_dir(struct both *b, const char *name, const struct digest *id, int64_t size)
{
    add(b,
        &(struct tree_entry){.mode = TREE_DIR, .name = str_of(name), .digest = *id, .size = size});
}

/* ---- comparing --------------------------------------------------------------------------------- */

/* One line per entry: path, type and rights, and what is in it. */
static void list_folder(struct forge *f, int parent, const char *name, const char *path,
                        struct buf *out)
{
    struct os_entry *entries = NULL;
    size_t count = 0;
    int dir = -1;

    EXPECT_OK(os_open_dir(parent, name, &dir, &f->err), &f->err);
    EXPECT_OK(os_list(dir, &entries, &count, &f->err), &f->err);
    for (size_t i = 0; i < count; i++) {
        struct stat info;
        struct buf content;
        char *below = mem_alloc(strlen(path) + strlen(entries[i].name) + 2);

        snprintf(below, strlen(path) + strlen(entries[i].name) + 2, "%s/%s", path, entries[i].name);
        EXPECT_OK(os_stat_at(dir, entries[i].name, &info, &f->err), &f->err);
        buf_printf(out, "%s %o ", below, info.st_mode);
        buf_init(&content, 64 * MIB);
        if (S_ISDIR(info.st_mode)) {
            buf_str(out, "\n");
            list_folder(f, dir, entries[i].name, below, out);
        } else if (S_ISLNK(info.st_mode)) {
            EXPECT_OK(os_readlink(dir, entries[i].name, &content, &f->err), &f->err);
            buf_printf(out, "%s\n", content.p);
        } else {
            char hex[DIGEST_HEX + 1];
            struct digest id;

            EXPECT_OK(os_read_file(dir, entries[i].name, 64 * MIB, &content, &f->err), &f->err);
            sha256_of(content.p ? content.p : "", content.n, &id);
            digest_hex(&id, hex);
            buf_printf(out, "%zu %s\n", content.n, hex);
        }
        buf_release(&content);
        free(below);
    }
    free(entries);
    os_close_quiet(&dir);
}

static void path_in(const struct forge *f, const char *name, char out[TMPDIR_MAX + 64])
{
    snprintf(out, TMPDIR_MAX + 64, "%s/%s", f->dir, name);
}

static void expect_same(struct forge *f, const char *expected, const char *got)
{
    char path[TMPDIR_MAX + 64];
    struct buf a, b;

    buf_init(&a, 16 * MIB);
    buf_init(&b, 16 * MIB);
    path_in(f, expected, path);
    list_folder(f, AT_FDCWD, path, "", &a);
    path_in(f, got, path);
    list_folder(f, AT_FDCWD, path, "", &b);
    EXPECT_STR(b.p ? b.p : "", a.p ? a.p : "");
    buf_release(&a);
    buf_release(&b);
}

static bool present(const struct forge *f, const char *name)
{
    char path[TMPDIR_MAX + 64];
    struct stat info;

    path_in(f, name, path);
    return lstat(path, &info) == 0;
}

static void drop(struct forge *f, const char *name)
{
    char path[TMPDIR_MAX + 64];

    path_in(f, name, path);
    EXPECT_OK(os_remove_tree(AT_FDCWD, path, &f->err), &f->err);
}

/* What lies beside the destination: .weir, what the test has put there, and nothing else. */
static int beside(struct forge *f)
{
    int dir = -1, n;

    EXPECT_OK(os_open_dir(AT_FDCWD, f->dir, &dir, &f->err), &f->err);
    n = forge_count_names(f, dir);
    os_close_quiet(&dir);
    return n;
}

static enum err_code get(struct forge *f, enum obj_kind kind, const struct digest *id,
                         const char *name, const struct mat_options *o, struct mat_result *r)
{
    char path[TMPDIR_MAX + 64];

    path_in(f, name, path);
    return materialise(f->st, kind, id, path, o, r, &f->err);
}

static int open_top(struct forge *f)
{
    int top = -1;

    EXPECT_OK(os_open_dir(AT_FDCWD, f->dir, &top, &f->err), &f->err);
    return top;
}

/* ---- round trips ------------------------------------------------------------------------------- */

TEST(an_odd_tree_comes_back)
{
    struct mat_result r;
    struct forge f;
    struct both root, sub, empty;
    struct digest id, root_id;
    int64_t size;
    int top;

    forge_new(&f);
    top = open_top(&f);
    forge_begin(&f);
    both_begin(&root, &f, top, "expected", 0);
    both_begin(&empty, &f, root.dir, "empty", 1);
    id = both_end(&empty, &size);
    both_dir(&root, "empty", &id, size);
    both_begin(&sub, &f, root.dir, "sub", 1);
    both_blob(&sub, "run.sh", "#!/bin/sh\n", 10, true);
    both_blob(&sub, "nothing", "", 0, false);
    both_link(&sub, "up", "../a b\n\x01\xff%41");
    both_link(&sub, "dangling", "not/there");
    both_link(&sub, "to-root", "..");
    id = both_end(&sub, &size);
    both_dir(&root, "sub", &id, size);
    both_blob(&root, "a b\n\x01\xff%41", "odd name", 8, false);
    both_blob(&root, "\xc3\xa4\xe2\x82\xac", "utf-8", 5, false);
    both_blob(&root, "-rf", "dash", 4, false);
    both_blob(&root, "...", "dots", 4, false);
    both_link(&root, "self", "sub/run.sh");
    root_id = both_end(&root, NULL);
    forge_commit(&f);
    EXPECT_OK(get(&f, OBJ_TREE, &root_id, "got", &copy_options, &r), &f.err);
    expect_same(&f, "expected", "got");
    EXPECT_EQ(r.files, 6);
    EXPECT_EQ(r.bytes, 10 + 0 + 8 + 5 + 4 + 4);
    EXPECT_EQ(r.copied, 6);
    EXPECT_EQ(r.linked + r.cloned, 0);
    EXPECT_EQ(beside(&f), 3);
    os_close_quiet(&top);
    forge_free(&f);
}

static struct digest random_tree(struct forge *f, uint64_t *seed, int parent, const char *name,
                                 int depth, int64_t *size)
{
    const size_t files = gen_below(seed, 12), dirs = depth < 5 ? gen_below(seed, 4) : 0;
    struct both b;

    both_begin(&b, f, parent, name, depth);
    for (size_t i = 0; i < files; i++) {
        char label[32], *p;
        const size_t n = gen_below(seed, gen_below(seed, 8) ? 3000 : 300000);

        p = mem_alloc(n + 8);
        gen_noise(seed, p, n);
        snprintf(label, sizeof(label), "f%zu", i);
        both_blob(&b, label, p, n, gen_below(seed, 4) == 0);
        free(p);
    }
    for (size_t i = 0; i < dirs; i++) {
        char label[32];
        struct digest id;
        int64_t below;

        snprintf(label, sizeof(label), "d%zu", i);
        id = random_tree(f, seed, b.dir, label, depth + 1, &below);
        both_dir(&b, label, &id, below);
    }
    return both_end(&b, size);
}

TEST(random_trees_come_back)
{
    for (uint64_t seed = 1; seed <= 12; seed++) {
        uint64_t next = seed;
        struct forge f;
        struct digest id;
        int top;

        forge_new(&f);
        f.st->threads = 1 + (int)(seed % 3);
        top = open_top(&f);
        forge_begin(&f);
        id = random_tree(&f, &next, top, "expected", 0, NULL);
        forge_commit(&f);
        EXPECT_OK(get(&f, OBJ_TREE, &id, "got", &copy_options, NULL), &f.err);
        expect_same(&f, "expected", "got");
        os_close_quiet(&top);
        forge_free(&f);
    }
}

/* 4,000 files in frames, and each file once more under another name. */
TEST(many_small_files_and_duplicates)
{
    enum { N = 4000, FRAME = 25 };
    struct digest ids[FRAME];
    size_t sizes[FRAME];
    struct mat_result r;
    struct forge f;
    struct both root;
    struct digest id;
    uint64_t seed = 5;
    int top;

    forge_new(&f);
    f.st->threads = 4;
    top = open_top(&f);
    forge_begin(&f);
    both_begin(&root, &f, top, "expected", 0);
    for (int i = 0; i < N; i += FRAME) {
        char *p = mem_alloc(FRAME * 2000), name[32];
        size_t n = 0;

        for (int k = 0; k < FRAME; k++)
            n += sizes[k] = gen_below(&seed, 2000);
        gen_noise(&seed, p, n);
        forge_frame(&f, p, sizes, FRAME, ids);
        n = 0;
        for (int k = 0; k < FRAME; n += sizes[k++]) {
            snprintf(name, sizeof(name), "%d", i + k);
            both_file(&root, name, &ids[k], p + n, sizes[k], false);
            snprintf(name, sizeof(name), "again-%d", i + k);
            both_file(&root, name, &ids[k], p + n, sizes[k], true);
        }
        free(p);
    }
    id = both_end(&root, NULL);
    forge_commit(&f);
    EXPECT_OK(get(&f, OBJ_TREE, &id, "got", &copy_options, &r), &f.err);
    EXPECT_EQ(r.files, 2 * N);
    expect_same(&f, "expected", "got");
    os_close_quiet(&top);
    forge_free(&f);
}

/* Longer than PATH_MAX: such a tree can be made with openat, so it has to come back that way. */
TEST(paths_longer_than_the_system_allows)
{
    enum { DEPTH = 60 };
    struct both levels[DEPTH];
    char name[200];
    struct forge f;
    struct digest id;
    int64_t size;
    int top;

    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    forge_new(&f);
    top = open_top(&f);
    forge_begin(&f);
    both_begin(&levels[0], &f, top, "expected", 0);
    for (int i = 1; i < DEPTH; i++)
        both_begin(&levels[i], &f, levels[i - 1].dir, name, i);
    both_blob(&levels[DEPTH - 1], "deep", "down here", 9, false);
    both_link(&levels[DEPTH - 1], "link", "deep");
    for (int i = DEPTH - 1; i > 0; i--) {
        id = both_end(&levels[i], &size);
        both_dir(&levels[i - 1], name, &id, size);
    }
    id = both_end(&levels[0], NULL);
    forge_commit(&f);
    EXPECT_OK(get(&f, OBJ_TREE, &id, "got", &(struct mat_options){.how = MAT_COPY}, NULL), &f.err);
    expect_same(&f, "expected", "got");
    EXPECT_OK(get(&f, OBJ_TREE, &id, "locked",
                  &(struct mat_options){.how = MAT_COPY, .read_only = true}, NULL),
              &f.err);
    os_close_quiet(&top);
    forge_free(&f);
}

TEST(a_single_file)
{
    char path[TMPDIR_MAX + 64];
    struct mat_result r;
    struct forge f;
    struct digest id;
    struct stat info;
    struct buf text;

    forge_new(&f);
    forge_begin(&f);
    id = forge_blob(&f, ENC_RAW, 0, "alone", 5);
    forge_commit(&f);
    EXPECT_OK(get(&f, OBJ_BLOB, &id, "got", &copy_options, &r), &f.err);
    path_in(&f, "got", path);
    buf_init(&text, 100);
    EXPECT_OK(os_read_file(AT_FDCWD, path, 100, &text, &f.err), &f.err);
    EXPECT_STR(text.p, "alone");
    buf_release(&text);
    EXPECT_EQ(stat(path, &info), 0);
    EXPECT_EQ(info.st_mode & 07777, 0644);
    EXPECT_EQ(r.files, 1);
    EXPECT_EQ(r.bytes, 5);
    EXPECT_OK(get(&f, OBJ_BLOB, &id, "slashes///", &copy_options, NULL), &f.err);
    EXPECT(present(&f, "slashes"));
    EXPECT_EQ(beside(&f), 3);
    forge_free(&f);
}

TEST(read_only_inputs)
{
    char path[TMPDIR_MAX + 64];
    struct forge f;
    struct both root, sub;
    struct digest id;
    struct stat info;
    int64_t size;
    int top;

    forge_new(&f);
    top = open_top(&f);
    forge_begin(&f);
    both_begin(&root, &f, top, "expected", 0);
    both_begin(&sub, &f, root.dir, "sub", 1);
    both_blob(&sub, "x", "x", 1, true);
    id = both_end(&sub, &size);
    both_dir(&root, "sub", &id, size);
    both_blob(&root, "y", "y", 1, false);
    both_link(&root, "z", "y");
    id = both_end(&root, NULL);
    forge_commit(&f);
    EXPECT_OK(get(&f, OBJ_TREE, &id, "got",
                  &(struct mat_options){.how = MAT_AUTO, .read_only = true}, NULL),
              &f.err);
    static const struct {
        const char *name;
        mode_t mode;
    } wanted[] = {{"got", 0555}, {"got/sub", 0555}, {"got/sub/x", 0555}, {"got/y", 0444}};

    for (size_t i = 0; i < 4; i++) {
        path_in(&f, wanted[i].name, path);
        EXPECT_EQ(stat(path, &info), 0);
        EXPECT_EQ(info.st_mode & 07777, wanted[i].mode);
    }
    os_close_quiet(&top);
    forge_free(&f);
}

/* ---- refusals ---------------------------------------------------------------------------------- */

TEST(destinations_that_are_refused)
{
    static const char *const wrong[] = {"", ".", "..", "x/..", "/"};
    char path[TMPDIR_MAX + 64];
    struct forge f;
    struct digest id;

    forge_new(&f);
    forge_begin(&f);
    id = forge_blob(&f, ENC_RAW, 0, "alone", 5);
    forge_commit(&f);
    path_in(&f, "file", path);
    EXPECT_OK(os_write_file(AT_FDCWD, path, "kept", 4, 0644, &f.err), &f.err);
    EXPECT_ERR(get(&f, OBJ_BLOB, &id, "file", &copy_options, NULL), ERR_EXISTS, &f.err);
    path_in(&f, "dangling", path);
    EXPECT_EQ(symlink("/nowhere", path), 0);
    EXPECT_ERR(get(&f, OBJ_BLOB, &id, "dangling", &copy_options, NULL), ERR_EXISTS, &f.err);
    EXPECT_ERR(get(&f, OBJ_BLOB, &id, ".weir", &copy_options, NULL), ERR_EXISTS, &f.err);
    EXPECT_ERR(get(&f, OBJ_BLOB, &id, "no/parent", &copy_options, NULL), ERR_NOT_FOUND, &f.err);
    EXPECT_ERR(get(&f, OBJ_BLOB, &id, "file/x", &copy_options, NULL), ERR_NOT_FOUND, &f.err);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        EXPECT_ERR(materialise(f.st, OBJ_BLOB, &id, wrong[i], &copy_options, NULL, &f.err),
                   ERR_INPUT, &f.err);
    EXPECT_EQ(beside(&f), 3);
    forge_free(&f);
}

/* Manifests that no weir writes, as they could come from a forged remote. */
TEST(hostile_trees_write_nothing)
{
    static const char *const manifests[] = {
        "{\"entries\":[{\"mode\":\"link\",\"name\":\"l\",\"target\":\"../x\"}],\"weir\":\"tree/"
        "1\"}",
        "{\"entries\":[{\"mode\":\"link\",\"name\":\"l\",\"target\":\"/etc\"}],\"weir\":\"tree/"
        "1\"}",
        "{\"entries\":[{\"mode\":\"link\",\"name\":\"l\",\"target\":\"a/../../"
        "x\"}],\"weir\":\"tree/"
        "1\"}",
        "{\"entries\":[{\"mode\":\"link\",\"name\":\"..\",\"target\":\"a\"}],\"weir\":\"tree/1\"}",
        "{\"entries\":[{\"mode\":\"link\",\"name\":\"a/b\",\"target\":\"a\"}],\"weir\":\"tree/1\"}",
        "{\"entries\":[{\"mode\":\"link\",\"name\":\"\",\"target\":\"a\"}],\"weir\":\"tree/1\"}",
        "{\"entries\":[{\"mode\":\"link\",\"name\":\"%00\",\"target\":\"a\"}],\"weir\":\"tree/1\"}",
        "{\"entries\":[{\"mode\":\"link\",\"name\":\"a\",\"target\":\"b\"},"
        "{\"mode\":\"link\",\"name\":\"a\",\"target\":\"c\"}],\"weir\":\"tree/1\"}",
        "not even json",
        "",
    };

    for (size_t i = 0; i < sizeof(manifests) / sizeof(manifests[0]); i++) {
        struct forge f;
        struct digest id;

        forge_new(&f);
        forge_begin(&f);
        id = forge_blob(&f, ENC_RAW, REC_TREE, manifests[i], strlen(manifests[i]));
        forge_commit(&f);
        EXPECT_ERR(get(&f, OBJ_TREE, &id, "got", &copy_options, NULL), ERR_INPUT, &f.err);
        EXPECT_EQ(beside(&f), 1);
        forge_free(&f);
    }
}

/* "../x" is inside the tree when its directory is one below the root, and outside when the same directory is the root. */
TEST(links_are_judged_by_their_true_depth)
{
    struct forge f;
    struct tree t;
    struct digest sub, root;
    int64_t size;

    forge_new(&f);
    forge_begin(&f);
    tree_init(&t);
    EXPECT_OK(
        tree_add(&t,
                 &(struct tree_entry){.mode = TREE_LINK, .name = STR("l"), .target = STR("../x")},
                 1, &f.err),
        &f.err);
    sub = forge_tree(&f, &t, &size);
    tree_init(&t);
    EXPECT_OK(tree_add(&t,
                       &(struct tree_entry){
                           .mode = TREE_DIR, .name = STR("sub"), .digest = sub, .size = size},
                       0, &f.err),
              &f.err);
    root = forge_tree(&f, &t, NULL);
    forge_commit(&f);
    EXPECT_OK(get(&f, OBJ_TREE, &root, "got", &copy_options, NULL), &f.err);
    EXPECT_ERR(get(&f, OBJ_TREE, &sub, "sub", &copy_options, NULL), ERR_INPUT, &f.err);
    EXPECT(!present(&f, "sub"));
    forge_free(&f);
}

static struct digest tree_of_one(struct forge *f, const char *name, const struct digest *id,
                                 int64_t size, bool exec)
{
    struct tree t;

    tree_init(&t);
    EXPECT_OK(tree_add(&t,
                       &(struct tree_entry){.mode = exec ? TREE_EXEC : TREE_FILE,
                                            .name = str_of(name),
                                            .digest = *id,
                                            .size = size},
                       0, &f->err),
              &f->err);
    return forge_tree(f, &t, NULL);
}

TEST(missing_and_wrong_objects_are_named_with_their_path)
{
    const struct digest absent = {.b = {0xaa, 0xbb}};
    struct forge f;
    struct digest root, blob;

    forge_new(&f);
    forge_begin(&f);
    root = tree_of_one(&f, "lost.bin", &absent, 10, false);
    forge_commit(&f);
    EXPECT_ERR(get(&f, OBJ_TREE, &root, "got", &copy_options, NULL), ERR_NOT_FOUND, &f.err);
    EXPECT(strstr(f.err.text, "lost.bin: object sha256:aabb"));
    forge_begin(&f);
    blob = forge_blob(&f, ENC_RAW, 0, "hello", 5);
    root = tree_of_one(&f, "long.bin", &blob, 6, false);
    forge_commit(&f);
    EXPECT_ERR(get(&f, OBJ_TREE, &root, "got", &copy_options, NULL), ERR_DAMAGED, &f.err);
    EXPECT(strstr(f.err.text, "long.bin"));
    EXPECT_ERR(get(&f, OBJ_TREE, &absent, "got", &copy_options, NULL), ERR_NOT_FOUND, &f.err);
    EXPECT_ERR(get(&f, OBJ_BLOB, &absent, "got", &copy_options, NULL), ERR_NOT_FOUND, &f.err);
    EXPECT_EQ(beside(&f), 1);
    forge_free(&f);
}

/* ---- whole files ------------------------------------------------------------------------------- */

/* Two loose files, one of them executable, and a tree of both. */
struct hot {
    struct forge f;
    char *p;
    size_t n;
    struct digest plain, exec, tree;
};

static void hot_new(struct hot *h)
{
    const size_t sizes[] = {MIB, MIB, 100};
    uint64_t seed = 9;
    struct tree t;

    forge_new(&h->f);
    h->n = 2 * MIB + 100;
    h->p = mem_alloc(h->n + 8);
    gen_noise(&seed, h->p, h->n);
    forge_begin(&h->f);
    h->plain = forge_loose(&h->f, h->p, h->n, sizes, 3);
    h->exec = forge_loose(&h->f, h->p + 1, h->n - 1, NULL, 0);
    tree_init(&t);
    EXPECT_OK(tree_add(&t,
                       &(struct tree_entry){.mode = TREE_FILE,
                                            .name = STR("plain"),
                                            .digest = h->plain,
                                            .size = (int64_t)h->n},
                       0, &h->f.err),
              &h->f.err);
    EXPECT_OK(tree_add(&t,
                       &(struct tree_entry){.mode = TREE_EXEC,
                                            .name = STR("exec"),
                                            .digest = h->exec,
                                            .size = (int64_t)h->n - 1},
                       0, &h->f.err),
              &h->f.err);
    h->tree = forge_tree(&h->f, &t, NULL);
    forge_commit(&h->f);
}

static void hot_free(struct hot *h)
{
    free(h->p);
    forge_free(&h->f);
}

static void expect_hot(struct hot *h, const char *name, nlink_t links, mode_t plain_mode)
{
    char path[TMPDIR_MAX + 64], below[64];
    struct stat info;
    struct buf text;

    buf_init(&text, 4 * MIB);
    snprintf(below, sizeof(below), "%s/plain", name);
    path_in(&h->f, below, path);
    EXPECT_EQ(stat(path, &info), 0);
    EXPECT_EQ(info.st_mode & 07777, plain_mode);
    EXPECT_EQ(info.st_nlink, links);
    EXPECT_OK(os_read_file(AT_FDCWD, path, 4 * MIB, &text, &h->f.err), &h->f.err);
    EXPECT_EQ(text.n, h->n);
    EXPECT_MEM(text.p, h->p, h->n);
    snprintf(below, sizeof(below), "%s/exec", name);
    path_in(&h->f, below, path);
    EXPECT_EQ(stat(path, &info), 0);
    EXPECT_EQ(info.st_mode & 07777, 0755);
    EXPECT_EQ(info.st_nlink, 1);
    EXPECT_OK(os_read_file(AT_FDCWD, path, 4 * MIB, &text, &h->f.err), &h->f.err);
    EXPECT_EQ(text.n, h->n - 1);
    EXPECT_MEM(text.p, h->p + 1, h->n - 1);
    buf_release(&text);
}

TEST(whole_files_are_linked_or_copied)
{
    struct mat_result r;
    struct hot h;

    hot_new(&h);
    EXPECT_OK(get(&h.f, OBJ_TREE, &h.tree, "linked", &(struct mat_options){.how = MAT_LINK}, &r),
              &h.f.err);
    EXPECT_EQ(r.linked, 1); /* the executable needs a mode of its own */
    EXPECT_EQ(r.copied, 1);
    expect_hot(&h, "linked", 2, 0444);
    EXPECT_OK(get(&h.f, OBJ_TREE, &h.tree, "copied", &copy_options, &r), &h.f.err);
    EXPECT_EQ(r.copied, 2);
    expect_hot(&h, "copied", 1, 0644);
    EXPECT_OK(get(&h.f, OBJ_TREE, &h.tree, "auto", &(struct mat_options){.how = MAT_AUTO}, &r),
              &h.f.err);
    EXPECT_EQ(r.files, 2);
    if (r.cloned == 0) {
        const bool root = geteuid() == 0;

        EXPECT_EQ(r.linked, root ? 0 : 1);
        expect_hot(&h, "auto", root ? 1 : 3, root ? 0644 : 0444);
        EXPECT_OK(get(&h.f, OBJ_TREE, &h.tree, "shielded",
                      &(struct mat_options){.how = MAT_AUTO, .shielded = true}, &r),
                  &h.f.err);
        EXPECT_EQ(r.linked, 1);
        EXPECT_EQ(r.copied, 1);
        EXPECT_ERR(
            get(&h.f, OBJ_TREE, &h.tree, "cloned", &(struct mat_options){.how = MAT_REFLINK}, &r),
            ERR_MISSING, &h.f.err);
        EXPECT(!present(&h.f, "cloned"));
    } else {
        EXPECT_EQ(r.cloned, 2);
        expect_hot(&h, "auto", 1, 0644);
    }
    EXPECT_OK(store_check(h.f.st, &h.f.err), &h.f.err);
    hot_free(&h);
}

/* Using a file keeps it from being thought cold. */
TEST(handing_out_moves_the_atime)
{
    const struct timespec old[2] = {{.tv_sec = 1000}, {.tv_nsec = UTIME_OMIT}};
    char name[LOOSE_NAME];
    struct stat info;
    struct hot h;

    hot_new(&h);
    loose_name(&h.plain, name);
    EXPECT_EQ(utimensat(h.f.st->loose, name, old, 0), 0);
    EXPECT_OK(get(&h.f, OBJ_TREE, &h.tree, "linked", &(struct mat_options){.how = MAT_LINK}, NULL),
              &h.f.err);
    EXPECT_EQ(fstatat(h.f.st->loose, name, &info, 0), 0);
    EXPECT(info.st_atim.tv_sec > 1000);
    EXPECT_EQ(info.st_mtim.tv_sec, 1);
    hot_free(&h);
}

TEST(a_changed_whole_file_is_never_served)
{
    struct hot h;

    hot_new(&h);
    forge_damage_loose(&h.f, &h.plain, 77, false);
    EXPECT_ERR(get(&h.f, OBJ_TREE, &h.tree, "got", &(struct mat_options){.how = MAT_LINK}, NULL),
               ERR_NOT_FOUND, &h.f.err);
    EXPECT(strstr(h.f.err.text, "plain"));
    EXPECT(!present(&h.f, "got"));
    EXPECT_EQ(forge_count_names(&h.f, h.f.st->quarantine), 1);
    hot_free(&h);
    /* A copy reads every byte, so it sees what the time does not tell. */
    hot_new(&h);
    forge_damage_loose(&h.f, &h.plain, 77, true);
    EXPECT_ERR(get(&h.f, OBJ_TREE, &h.tree, "got", &copy_options, NULL), ERR_DAMAGED, &h.f.err);
    EXPECT(!present(&h.f, "got"));
    EXPECT_EQ(beside(&h.f), 1);
    hot_free(&h);
}

/* A task gets a hard link, makes it writable and writes. */
TEST(a_write_through_a_hard_link_is_found_by_the_audit)
{
    char path[TMPDIR_MAX + 64], text[DIGEST_TEXT + 1];
    struct digest missing;
    struct hot h;
    bool complete;
    int fd;

    hot_new(&h);
    EXPECT_OK(get(&h.f, OBJ_TREE, &h.tree, "got", &(struct mat_options){.how = MAT_LINK}, NULL),
              &h.f.err);
    EXPECT_OK(materialise_audit(h.f.st, OBJ_TREE, &h.tree, &h.f.err), &h.f.err);
    EXPECT_OK(materialise_audit(h.f.st, OBJ_BLOB, &h.plain, &h.f.err), &h.f.err);
    path_in(&h.f, "got/plain", path);
    EXPECT_EQ(chmod(path, 0644), 0);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    EXPECT(fd >= 0);
    EXPECT_EQ(pwrite(fd, "!", 1, 500), 1);
    EXPECT_EQ(close(fd), 0);
    EXPECT_ERR(materialise_audit(h.f.st, OBJ_TREE, &h.tree, &h.f.err), ERR_DAMAGED, &h.f.err);
    digest_text(&h.plain, text);
    EXPECT(strstr(h.f.err.text, text));
    EXPECT(strstr(h.f.err.text, "1 hard-linked object was changed"));
    EXPECT(!forge_loose_there(&h.f, &h.plain));
    EXPECT(forge_loose_there(&h.f, &h.exec));
    EXPECT_EQ(forge_count_names(&h.f, h.f.st->quarantine), 1);
    EXPECT_OK(store_complete(h.f.st, OBJ_TREE, &h.tree, &complete, &missing, &h.f.err), &h.f.err);
    EXPECT(!complete);
    EXPECT(digest_eq(&missing, &h.plain));
    EXPECT_OK(materialise_audit(h.f.st, OBJ_TREE, &h.tree, &h.f.err), &h.f.err);
    EXPECT_OK(materialise_audit(h.f.st, OBJ_BLOB, &h.plain, &h.f.err), &h.f.err);
    EXPECT_OK(store_check(h.f.st, &h.f.err), &h.f.err);
    /* Written again, it is whole again. */
    forge_begin(&h.f);
    forge_loose(&h.f, h.p, h.n, NULL, 0);
    forge_commit(&h.f);
    EXPECT_OK(store_complete(h.f.st, OBJ_TREE, &h.tree, &complete, &missing, &h.f.err), &h.f.err);
    EXPECT(complete);
    hot_free(&h);
}

/* ---- the shield -------------------------------------------------------------------------------- */

/* May we have a mount namespace at all?  Asked without the code under test: a shield that never works must not pass as skipped. */
static bool namespaces_allowed(void)
{
    const int flags = CLONE_NEWNS | (geteuid() == 0 ? 0 : CLONE_NEWUSER);
    const pid_t child = fork();
    int status = -1;

    if (child == 0)
        _exit(unshare(flags) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 ? 0
                                                                                            : 1);
    EXPECT(child > 0);
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool shield_skipped(void)
{
    if (materialise_shield_works())
        return false;
    EXPECT(!namespaces_allowed());
    fprintf(stderr, "skipped: this kernel or container allows no mount namespaces\n");
    return true;
}

TEST(behind_the_shield_nothing_can_be_written)
{
    char path[TMPDIR_MAX + 64], file[TMPDIR_MAX + 64];
    struct hot h;
    pid_t child;
    int status;

    if (shield_skipped())
        return;
    hot_new(&h);
    EXPECT_OK(get(&h.f, OBJ_TREE, &h.tree, "got",
                  &(struct mat_options){.how = MAT_LINK, .shielded = true}, NULL),
              &h.f.err);
    path_in(&h.f, "got", path);
    path_in(&h.f, "got/plain", file);
    child = fork();
    if (child == 0) {
        struct err err = ERR_INIT;
        int bad = 0, fd;

        if (materialise_shield(path, &err) != OK)
            _exit(100);
        bad |= chmod(file, 0644) == 0 || errno != EROFS ? 1 : 0;
        fd = open(file, O_WRONLY | O_CLOEXEC);
        bad |= fd >= 0 || errno != EROFS ? 2 : 0;
        bad |= unlink(file) == 0 || errno != EROFS ? 4 : 0;
        fd = open(file, O_RDONLY | O_CLOEXEC);
        bad |= fd < 0 ? 8 : 0;
        os_close_quiet(&fd);
        _exit(bad);
    }
    EXPECT(child > 0);
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
    EXPECT_EQ(chmod(file, 0444), 0); /* outside it is not shielded */
    EXPECT_OK(materialise_audit(h.f.st, OBJ_TREE, &h.tree, &h.f.err), &h.f.err);
    hot_free(&h);
}

TEST(a_shield_needs_a_folder)
{
    char path[TMPDIR_MAX + 64];
    struct forge f;
    pid_t child;
    int status;

    if (shield_skipped())
        return;
    forge_new(&f);
    path_in(&f, "absent", path);
    child = fork();
    if (child == 0) {
        struct err err = ERR_INIT;

        _exit(materialise_shield(path, &err) == ERR_NOT_FOUND ? 0 : 1);
    }
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    forge_free(&f);
}

/* ---- faults ------------------------------------------------------------------------------------ */

/* The destination is complete or not there; nothing is left beside it. */
TEST(any_single_fault_leaves_no_half_tree)
{
    static const enum mat_how hows[] = {MAT_AUTO, MAT_LINK, MAT_COPY};
    struct forge f;
    struct both root, sub;
    struct digest id, big;
    uint64_t seed = 3;
    int64_t size;
    char *p = mem_alloc(3 * MIB);
    int top;

    gen_noise(&seed, p, 3 * MIB);
    forge_new(&f);
    top = open_top(&f);
    forge_begin(&f);
    both_begin(&root, &f, top, "expected", 0);
    both_begin(&sub, &f, root.dir, "sub", 1);
    both_blob(&sub, "x", "xyz", 3, true);
    both_link(&sub, "l", "../y");
    id = both_end(&sub, &size);
    both_dir(&root, "sub", &id, size);
    both_blob(&root, "y", p, 5000, false);
    big = forge_loose(&f, p, 3 * MIB, (const size_t[]){2 * MIB, MIB}, 2);
    both_file(&root, "big", &big, p, 3 * MIB, true);
    id = both_end(&root, NULL);
    forge_commit(&f);
    for (size_t i = 0; i < sizeof(hows) / sizeof(hows[0]); i++) {
        bool fired = true;

        for (int nth = 0; fired; nth++) {
            const struct mat_options o = {.how = hows[i]};
            enum err_code rc;
            int fds;

            forge_open(&f, STORE_WRITE);
            f.st->threads = 2;
            fds = forge_fd_count();
            fault_arm(nth);
            rc = get(&f, OBJ_TREE, &id, "got", &o, NULL);
            fired = fault_disarm();
            EXPECT_EQ(fired, rc != OK);
            EXPECT(forge_fd_count() <= fds + 1); /* the pack in the cache */
            EXPECT_EQ(present(&f, "got"), rc == OK);
            EXPECT_EQ(beside(&f), rc ? 2 : 3);
            if (!rc) {
                expect_same(&f, "expected", "got");
                drop(&f, "got");
            }
            EXPECT_OK(store_check(f.st, &f.err), &f.err);
        }
    }
    free(p);
    os_close_quiet(&top);
    forge_free(&f);
}

RUN(an_odd_tree_comes_back, random_trees_come_back, many_small_files_and_duplicates,
    paths_longer_than_the_system_allows, a_single_file, read_only_inputs,
    destinations_that_are_refused, hostile_trees_write_nothing,
    links_are_judged_by_their_true_depth, missing_and_wrong_objects_are_named_with_their_path,
    whole_files_are_linked_or_copied, handing_out_moves_the_atime,
    a_changed_whole_file_is_never_served, a_write_through_a_hard_link_is_found_by_the_audit,
    behind_the_shield_nothing_can_be_written, a_shield_needs_a_folder,
    any_single_fault_leaves_no_half_tree)
