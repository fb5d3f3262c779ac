/* pack_rig.h - an objects folder in a temporary directory and packs to put into it, for the tests
 * of packs and index.
 *
 * Life:     rig_new -> rig_close.
 * Owns:     the directory and its descriptors.
 * Threads:  one.
 * Errors:   a failed step ends the test through EXPECT, except in the functions that return a code.
 */
/* long: the words of five test programs */
#ifndef WEIR_TESTS_PACK_RIG_H
#define WEIR_TESTS_PACK_RIG_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"
#include "store/pack.h"
#include "tests/check.h"
#include "tests/store_gen.h"

struct rig {
    char path[TMPDIR_MAX];
    char index[TMPDIR_MAX + 16];
    int objects, packs, tmp, loose;
    struct err err;
};

static inline void rig_new(struct rig *r)
{
    *r = (struct rig){.objects = -1, .packs = -1, .tmp = -1, .loose = -1};
    tmpdir_new(r->path);
    snprintf(r->index, sizeof(r->index), "%s/index", r->path);
    EXPECT_OK(os_open_dir(AT_FDCWD, r->path, &r->objects, &r->err), &r->err);
    EXPECT_OK(os_mkdir(r->objects, "packs", 0755, &r->err), &r->err);
    EXPECT_OK(os_mkdir(r->objects, "tmp", 0755, &r->err), &r->err);
    EXPECT_OK(os_mkdir(r->objects, "loose", 0755, &r->err), &r->err);
    EXPECT_OK(os_open_dir(r->objects, "packs", &r->packs, &r->err), &r->err);
    EXPECT_OK(os_open_dir(r->objects, "tmp", &r->tmp, &r->err), &r->err);
    EXPECT_OK(os_open_dir(r->objects, "loose", &r->loose, &r->err), &r->err);
}

static inline void rig_close(struct rig *r)
{
    os_close_quiet(&r->loose);
    os_close_quiet(&r->tmp);
    os_close_quiet(&r->packs);
    os_close_quiet(&r->objects);
    tmpdir_free(r->path);
}

static inline size_t rig_files(int dir)
{
    struct os_entry *entries;
    struct err err = ERR_INIT;
    size_t n;

    EXPECT_OK(os_list(dir, &entries, &n, &err), &err);
    free(entries);
    return n;
}

static inline struct digest rig_id(uint64_t n)
{
    struct digest d;

    sha256_of(&n, sizeof(n), &d);
    return d;
}

/* ---- records; each returns what the writer returned ---- */

static inline enum err_code rig_blob(struct pack_writer *w, struct digest id, const void *p,
                                     size_t n, uint8_t flags, struct err *err)
{
    struct pack_entry e = {.type = REC_BLOB, .enc = ENC_RAW, .flags = flags, .raw = n, .id = id};

    return pack_put(w, &e, p, n, err);
}

static inline enum err_code rig_bind(struct pack_writer *w, struct digest key, struct digest result,
                                     uint64_t stamp, struct err *err)
{
    struct pack_entry e = {.type = REC_BIND, .id = key, .stamp = stamp};

    return pack_put(w, &e, result.b, DIGEST_BYTES, err);
}

static inline enum err_code rig_ref(struct pack_writer *w, const char *name, struct digest target,
                                    uint8_t kind, uint64_t stamp, struct err *err)
{
    struct pack_entry e = {.type = REC_REF, .stamp = stamp};
    struct buf b;
    enum err_code rc;

    sha256_of(name, strlen(name), &e.id);
    buf_init(&b, 1024);
    ref_encode(&target, kind, str_of(name), &b);
    rc = pack_put(w, &e, b.p, b.n, err);
    buf_release(&b);
    return rc;
}

/* A recipe or, with REC_LOOSE, an announcement with one. */
static inline enum err_code rig_recipe(struct pack_writer *w, enum rec_type type, struct digest id,
                                       const struct recipe_chunk *chunks, size_t n, struct err *err)
{
    struct pack_entry e = {.type = (uint8_t)type, .id = id};
    struct buf b;
    enum err_code rc;

    buf_init(&b, PACK_PAYLOAD_MAX);
    for (size_t i = 0; i < n; i++)
        e.raw += chunks[i].len;
    recipe_encode(&id, chunks, n, &b);
    rc = pack_put(w, &e, b.p, b.n, err);
    buf_release(&b);
    return rc;
}

static inline enum err_code rig_loose_bare(struct pack_writer *w, struct digest id, uint64_t raw,
                                           struct err *err)
{
    struct pack_entry e = {.type = REC_LOOSE, .id = id, .raw = raw};

    return pack_put(w, &e, NULL, 0, err);
}

/* Members of 10 bytes each; packs do not look inside a zstd frame, so anything will do for one. */
static inline enum err_code rig_frame(struct pack_writer *w, const struct digest *ids, size_t n,
                                      struct err *err)
{
    struct frame_member *m = calloc(n, sizeof(*m));
    enum err_code rc;

    for (size_t i = 0; i < n; i++)
        m[i] = (struct frame_member){.id = ids[i], .len = 10};
    rc = pack_put_frame(w, m, n, "zstd frame", 10, 10 * n, NULL, err);
    free(m);
    return rc;
}

/* The loose file itself, of n zero bytes. */
static inline void rig_loose_file(struct rig *r, struct digest id, size_t n)
{
    char hex[DIGEST_HEX + 1], dir[3], name[DIGEST_HEX + 2];
    int fd = -1;

    digest_hex(&id, hex);
    snprintf(dir, sizeof(dir), "%.2s", hex);
    snprintf(name, sizeof(name), "%.2s/%s", hex, hex + 2);
    EXPECT_OK(os_mkdir(r->loose, dir, 0755, &r->err), &r->err);
    EXPECT_OK(os_open(r->loose, name, O_CREAT | O_WRONLY | O_TRUNC, 0644, &fd, &r->err), &r->err);
    EXPECT_OK(os_truncate(fd, (int64_t)n, &r->err), &r->err);
    EXPECT_OK(os_close(&fd, &r->err), &r->err);
}

static inline void rig_loose_gone(struct rig *r, struct digest id)
{
    char hex[DIGEST_HEX + 1], name[DIGEST_HEX + 2];

    digest_hex(&id, hex);
    snprintf(name, sizeof(name), "%.2s/%s", hex, hex + 2);
    EXPECT_OK(os_unlink(r->loose, name, &r->err), &r->err);
}

/* One pack with a record of each type, numbered from seed on; the loose file is not made. */
static inline enum err_code rig_put_all_types(struct pack_writer *w, uint64_t seed, struct err *err)
{
    const struct recipe_chunk chunks[2] = {{rig_id(seed), 5, HINT_NONE},
                                           {rig_id(seed + 1), 11, HINT_WORDS2}};
    const struct digest members[3] = {rig_id(seed + 2), rig_id(seed + 3), rig_id(seed + 4)};
    char name[32];
    enum err_code rc = rig_blob(w, rig_id(seed), "hello", 5, 0, err);

    snprintf(name, sizeof(name), "ref/%u", (unsigned)(seed % 1000));
    if (!rc)
        rc = rig_blob(w, rig_id(seed + 1), "hello world", 11, REC_TREE, err);
    if (!rc)
        rc = rig_frame(w, members, 3, err);
    if (!rc)
        rc = rig_recipe(w, REC_RECIPE, rig_id(seed + 5), chunks, 2, err);
    if (!rc)
        rc = rig_recipe(w, REC_LOOSE, rig_id(seed + 6), chunks, 2, err);
    if (!rc)
        rc = rig_loose_bare(w, rig_id(seed + 7), 1 << 21, err);
    if (!rc)
        rc = rig_bind(w, rig_id(seed + 8), rig_id(seed), seed, err);
    if (!rc)
        rc = rig_ref(w, name, rig_id(seed + 5), 1, seed, err);
    return rc;
}
#define RIG_ALL_TYPES 10 /* toc entries of it */

#endif
