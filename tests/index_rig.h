/* index_rig.h - an index over a pack_rig.h folder: packs in, text out, rebuilt for comparison.
 *
 * Life:     on a struct rig; dumps are freed by the caller.
 * Owns:     nothing.
 * Threads:  one.
 * Errors:   a failed step ends the test.
 */
/* long: the words of four test programs */
#ifndef WEIR_TESTS_INDEX_RIG_H
#define WEIR_TESTS_INDEX_RIG_H

#include "store/index.h"
#include "tests/pack_rig.h"

static inline char *rig_dump(struct rig *r, struct index *ix)
{
    struct err err = ERR_INIT;
    struct buf text;
    int fd = -1;

    EXPECT_OK(os_open(r->objects, "dump", O_CREAT | O_RDWR | O_TRUNC, 0644, &fd, &err), &err);
    EXPECT_OK(index_dump(ix, fd, &err), &err);
    os_close_quiet(&fd);
    buf_init(&text, (size_t)1 << 30);
    EXPECT_OK(os_read_file(r->objects, "dump", (size_t)1 << 30, &text, &err), &err);
    return buf_take(&text);
}

/* What a fresh rebuild beside it says. */
static inline char *rig_rebuilt(struct rig *r)
{
    char dir[TMPDIR_MAX + 16];
    struct rebuild_report report;
    struct index *ix;
    struct err err = ERR_INIT;
    char *text;

    snprintf(dir, sizeof(dir), "%s/fresh", r->path);
    EXPECT_OK(index_rebuild(dir, r->packs, r->loose, &report, &err), &err);
    EXPECT_STR(report.problems.n ? report.problems.p : "", "");
    buf_release(&report.problems);
    EXPECT_OK(index_open(dir, INDEX_READ, &ix, &err), &err);
    text = rig_dump(r, ix);
    index_close(ix);
    return text;
}

/* EXPECT_STR for long texts: shows the first line that differs. */
static inline void rig_same_lines(const char *a, const char *b)
{
    const char *line_a = a, *line_b = b;

    while (*a && *a == *b) {
        if (*a == '\n') {
            line_a = a + 1;
            line_b = b + 1;
        }
        a++;
        b++;
    }
    if (*a || *b)
        print_error("grown:   %.*s\nrebuilt: %.*s\n", (int)strcspn(line_a, "\n"), line_a,
                    (int)strcspn(line_b, "\n"), line_b);
    EXPECT(!*a && !*b);
}

static inline void rig_same_as_rebuilt(struct rig *r, struct index *ix)
{
    char *grown = rig_dump(r, ix), *rebuilt = rig_rebuilt(r);

    rig_same_lines(grown, rebuilt);
    free(grown);
    free(rebuilt);
}

static inline enum err_code rig_commit(struct rig *r, struct index *ix, const struct digest *names,
                                       size_t n, struct err *err)
{
    struct pack **packs = calloc(n + 1, sizeof(*packs));
    enum err_code rc = OK;

    for (size_t i = 0; i < n && !rc; i++)
        rc = pack_open(r->packs, &names[i], &packs[i], err);
    if (!rc) {
        const struct index_commit c = {.packs = packs, .pack_count = n};

        rc = index_commit(ix, &c, err);
    }
    for (size_t i = 0; i < n; i++)
        pack_close(packs[i]);
    free(packs);
    return rc;
}

static inline struct pack_writer *rig_writer(struct rig *r)
{
    struct pack_writer *w;

    EXPECT_OK(pack_writer_open(r->objects, &w, &r->err), &r->err);
    return w;
}

static inline struct digest rig_seal(struct rig *r, struct pack_writer *w)
{
    struct digest name;

    EXPECT_OK(pack_seal(w, PACK_SYNC_DIR_LATER, &name, &r->err), &r->err);
    pack_writer_release(w);
    return name;
}

static inline struct digest rig_pack_all_types(struct rig *r, uint64_t seed)
{
    struct pack_writer *w = rig_writer(r);

    EXPECT_OK(rig_put_all_types(w, seed, &r->err), &r->err);
    return rig_seal(r, w);
}

/* n blobs of 8 bytes, rig_id(from) onwards. */
static inline struct digest rig_pack_blobs(struct rig *r, uint64_t from, size_t n)
{
    struct pack_writer *w = rig_writer(r);

    for (uint64_t i = from; i < from + n; i++)
        EXPECT_OK(rig_blob(w, rig_id(i), &i, sizeof(i), 0, &r->err), &r->err);
    return rig_seal(r, w);
}

static inline struct loc rig_get(struct index *ix, struct digest id)
{
    struct err err = ERR_INIT;
    struct loc l;

    EXPECT_OK(index_get(ix, &id, 1, &l, &err), &err);
    return l;
}

static inline void rig_unlink_pack(struct rig *r, struct digest name)
{
    char hex[DIGEST_HEX + 1];

    digest_hex(&name, hex);
    EXPECT_OK(os_unlink(r->packs, hex, &r->err), &r->err);
}

/* condemn, purge, files away, absolve: a gc that is sure of itself. */
static inline void rig_collect(struct rig *r, struct index *ix, struct digest *packs, size_t pack_n,
                               struct digest *loose, size_t loose_n)
{
    const struct condemned c = {packs, pack_n, loose, loose_n};
    struct index_stat st;
    int64_t commits;
    bool raced;

    EXPECT_OK(index_stat(ix, &st, &r->err), &r->err);
    EXPECT_OK(index_condemn(ix, &c, st.commits, &raced, &commits, &r->err), &r->err);
    EXPECT(!raced);
    EXPECT_OK(index_purge(ix, &r->err), &r->err);
    for (size_t i = 0; i < pack_n; i++)
        rig_unlink_pack(r, packs[i]);
    for (size_t i = 0; i < loose_n; i++)
        rig_loose_gone(r, loose[i]);
    EXPECT_OK(index_absolve(ix, &c, &r->err), &r->err);
}

#endif
