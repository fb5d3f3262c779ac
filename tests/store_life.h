/* store_life.h - a store in use: objects added through the writer, refs, and the question whether everything is still there.
 *
 * Life:     on top of store_forge.h.
 * Owns:     nothing of its own.
 * Threads:  one.
 * Errors:   every failure ends the test.
 */
/* long: one rig for gc, compaction, fsck and their fault tests; split, each would need most of it */
#ifndef WEIR_TESTS_STORE_LIFE_H
#define WEIR_TESTS_STORE_LIFE_H

#include "store/fsck.h"
#include "store/gc.h"
#include "store/writer.h"
#include "tests/store_forge.h"
#include "tests/store_gen.h"

/* Text that compresses, different for each seed. */
static inline void life_text(uint64_t seed, char *p, size_t n)
{
    size_t at = 0;

    while (at < n) {
        char line[96];
        const int len = snprintf(line, sizeof(line), "{\"seed\":%llu,\"at\":%zu,\"r\":%llu}\n",
                                 (unsigned long long)seed, at, (unsigned long long)gen_u64(&seed));
        const size_t part = n - at < (size_t)len ? n - at : (size_t)len;

        memcpy(p + at, line, part);
        at += part;
    }
}

/* A directory of count files of about n bytes each, under a ref (NULL: none). */
static inline enum err_code life_try_tree(struct forge *f, const char *ref, uint64_t seed,
                                          int count, size_t n, struct digest *out)
{
    struct writer *w = NULL;
    struct tree t;
    struct buf text;
    char *bytes = mem_alloc(n + 64);
    enum err_code rc;

    tree_init(&t);
    buf_init(&text, TREE_BYTES_MAX);
    rc = writer_open(f->st, &w, &f->err);
    for (int i = 0; !rc && i < count; i++) {
        char name[32];
        struct tree_entry e = {.mode = TREE_FILE, .size = (int64_t)(n + (size_t)(i % 50))};

        snprintf(name, sizeof(name), "f%05d", i);
        life_text(seed + (uint64_t)i, bytes, (size_t)e.size);
        rc = writer_put(w, OBJ_BLOB, bytes, (size_t)e.size, &e.digest, &f->err);
        e.name = str_of(name);
        if (!rc)
            rc = tree_add(&t, &e, 0, &f->err);
    }
    if (!rc)
        rc = tree_encode(&t, &text, &f->err);
    if (!rc)
        rc = writer_put(w, OBJ_TREE, text.p, text.n, out, &f->err);
    if (!rc && ref)
        rc = writer_ref(w, str_of(ref), OBJ_TREE, out, &f->err);
    if (!rc)
        rc = writer_commit(w, &f->err);
    writer_release(w);
    tree_release(&t);
    buf_release(&text);
    free(bytes);
    return rc;
}

static inline struct digest life_tree(struct forge *f, const char *ref, uint64_t seed, int count,
                                      size_t n)
{
    struct digest d;

    EXPECT_OK(life_try_tree(f, ref, seed, count, n, &d), &f->err);
    return d;
}

static inline void life_ref(struct forge *f, const char *name, enum obj_kind kind,
                            const struct digest *d)
{
    EXPECT_OK(store_ref_set(f->st, str_of(name), kind, d, &f->err), &f->err);
}

static inline void life_unref(struct forge *f, const char *name)
{
    EXPECT_OK(store_ref_set(f->st, str_of(name), OBJ_NONE, NULL, &f->err), &f->err);
}

static inline bool life_has(struct forge *f, const struct digest *id)
{
    struct loc loc;

    EXPECT_OK(index_get(f->st->index, id, 1, &loc, &f->err), &f->err);
    return loc.type != 0;
}

/* Every byte of an object and of all below it, read and verified. */
static inline void life_read(struct forge *f, enum obj_kind kind, const struct digest *id)
{
    struct tree t = {0};
    struct buf bytes;

    buf_init(&bytes, TREE_BYTES_MAX);
    EXPECT_OK(object_read(f->st, id, TREE_BYTES_MAX, &bytes, &f->err), &f->err);
    if (kind == OBJ_TREE) {
        tree_init(&t);
        EXPECT_OK(tree_decode(bytes.p ? bytes.p : "", bytes.n, -1, "tree", &t, &f->err), &f->err);
        for (size_t i = 0; i < t.count; i++)
            if (t.entries[i].mode != TREE_LINK)
                life_read(f, t.entries[i].mode == TREE_DIR ? OBJ_TREE : OBJ_BLOB,
                          &t.entries[i].digest);
        tree_release(&t);
    }
    buf_release(&bytes);
}

/* The invariants, and every ref complete and readable. */
static inline void life_check(struct forge *f)
{
    struct ref_row *rows = NULL;
    size_t n = 0;

    EXPECT_OK(store_check(f->st, &f->err), &f->err);
    EXPECT_OK(index_refs(f->st->index, STR(""), REF_LIVE, &rows, &n, &f->err), &f->err);
    for (size_t i = 0; i < n; i++) {
        bool complete = false;

        EXPECT_OK(store_complete(f->st, rows[i].kind, &rows[i].digest, &complete, NULL, &f->err),
                  &f->err);
        EXPECT(complete);
        life_read(f, rows[i].kind, &rows[i].digest);
    }
    free(rows);
}

static inline struct gc_report life_gc(struct forge *f, int64_t grace_s)
{
    const struct gc_options o = {.grace_s = grace_s};
    struct gc_report r;

    EXPECT_OK(store_gc(f->st, &o, &r, &f->err), &f->err);
    return r;
}

/* What fsck says, printed when it was not expected. */
static inline enum err_code life_fsck(struct forge *f, enum fsck_level level, bool repair,
                                      struct fsck_report *r)
{
    const struct fsck_options o = {.level = level, .repair = repair};
    struct err err = ERR_INIT;
    const enum err_code rc = store_fsck(f->st, &o, r, &err);

    f->err = err;
    return rc;
}

static inline void life_fsck_clean(struct forge *f)
{
    struct fsck_report r;
    const enum err_code rc = life_fsck(f, FSCK_LOGICAL, false, &r);

    for (size_t i = 0; i < r.problem_count; i++)
        fprintf(stderr, "fsck: %s (part of %s)\n", r.problems[i].what,
                r.problems[i].part_of ? r.problems[i].part_of : "nothing");
    EXPECT_OK(rc, &f->err);
    EXPECT_EQ(r.problem_count, 0);
    fsck_report_release(&r);
}

/* The index as text; release it. */
static inline void life_dump(struct forge *f, struct buf *out)
{
    struct stat info;
    char *room;
    int fd = -1;

    EXPECT_OK(os_open(f->st->tmp, "dump", O_RDWR | O_CREAT | O_TRUNC, 0600, &fd, &f->err), &f->err);
    EXPECT_OK(index_dump(f->st->index, fd, &f->err), &f->err);
    EXPECT_OK(os_stat(fd, &info, &f->err), &f->err);
    buf_init(out, 1 << 30);
    room = buf_room(out, (size_t)info.st_size + 1);
    EXPECT_OK(os_pread_all(fd, room, (size_t)info.st_size, 0, &f->err), &f->err);
    room[info.st_size] = '\0';
    os_close_quiet(&fd);
    EXPECT_OK(os_unlink(f->st->tmp, "dump", &f->err), &f->err);
}

/* Lines of after that before has not: allowed are actions, whose bind may outlive its result in a pack that is worth keeping, and
 * counts again when the result comes back. */
static inline void life_same_dump(char *before, char *after)
{
    while (*after) {
        char *end = strchr(after, '\n') + 1;
        const size_t n = (size_t)(end - after);

        if (strncmp(before, after, n) == 0)
            before += n;
        else if (strncmp(after, "action ", 7) != 0)
            break;
        after = end;
    }
    EXPECT_STR(before, after);
}

/* The index is what a fresh one would be. */
static inline void life_rebuild_is_equal(struct forge *f)
{
    struct rebuild_report report;
    struct buf before, after, path;

    life_dump(f, &before);
    store_close(f->st);
    f->st = NULL;
    forge_open(f, STORE_WRITE);
    buf_init(&path, 4096);
    buf_printf(&path, "%s/index", f->st->root);
    index_close(f->st->index);
    f->st->index = NULL;
    EXPECT_OK(index_rebuild(path.p, f->st->packs, f->st->loose, &report, &f->err), &f->err);
    EXPECT_EQ(report.damaged_packs, 0);
    buf_release(&report.problems);
    buf_release(&path);
    forge_open(f, STORE_WRITE);
    life_dump(f, &after);
    life_same_dump(before.p, after.p);
    buf_release(&before);
    buf_release(&after);
}

#endif
