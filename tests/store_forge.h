/* store_forge.h - stores whose every record is laid out by the test itself, below the writer.
 *
 * long: one small function per form that an object can have.
 *
 * A test of reading must decide which form an object is stored in, and must be able to make forms that the writer never would.
 *
 * Life:     forge_new -> forge_begin -> forge_blob, ... -> forge_commit -> more of them -> forge_free.
 * Owns:     a folder, the store in it, and the pack under construction.
 * Threads:  one.
 * Errors:   every failure ends the test.
 */
#ifndef WEIR_TESTS_STORE_FORGE_H
#define WEIR_TESTS_STORE_FORGE_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"
#include "store/loose.h"
#include "store/reader.h"
#include "store/tree.h"
#include "tests/check.h"

struct forge {
    char dir[TMPDIR_MAX];
    struct store *st;
    struct pack_writer *w;
    struct digest pack; /* the last one committed */
    struct err err;
};

static inline void forge_open(struct forge *f, enum store_mode mode)
{
    store_close(f->st);
    f->st = NULL;
    EXPECT_OK(store_open(f->dir, mode, &f->st, &f->err), &f->err);
}

static inline void forge_new(struct forge *f)
{
    *f = (struct forge){.err = ERR_INIT};
    umask(022); /* tests compare modes */
    tmpdir_new(f->dir);
    EXPECT_OK(store_init(f->dir, NULL, &f->err), &f->err);
    forge_open(f, STORE_WRITE);
}

static inline void forge_free(struct forge *f)
{
    pack_writer_release(f->w);
    store_close(f->st);
    tmpdir_free(f->dir);
}

static inline void forge_begin(struct forge *f)
{
    EXPECT_OK(pack_writer_open(f->st->objects, &f->w, &f->err), &f->err);
}

/* One record with that payload. */
static inline struct pack_entry forge_record(struct forge *f, enum rec_type type, enum enc enc,
                                             unsigned flags, const struct digest *id, uint64_t raw,
                                             const void *payload, size_t n)
{
    struct pack_entry e = {.id = *id,
                           .type = (uint8_t)type,
                           .enc = (uint8_t)enc,
                           .flags = (uint8_t)flags,
                           .raw = raw,
                           .stamp = (uint64_t)os_now_ns()};

    EXPECT_OK(pack_put(f->w, &e, payload, n, &f->err), &f->err);
    return e;
}

static inline struct digest forge_blob(struct forge *f, enum enc enc, unsigned flags, const void *p,
                                       size_t n)
{
    struct codec *codec = NULL;
    struct buf payload;
    struct digest id;

    sha256_of(p, n, &id);
    buf_init(&payload, CODEC_RAW_MAX * 2);
    if (enc == ENC_RAW) {
        buf_add(&payload, p, n);
    } else {
        EXPECT_OK(codec_new(&codec, &f->err), &f->err);
        EXPECT_OK(codec_encode(codec, enc, 3, p, n, &payload, &f->err), &f->err);
        codec_free(codec);
    }
    forge_record(f, REC_BLOB, enc, flags, &id, n, payload.p ? payload.p : "", payload.n);
    buf_release(&payload);
    return id;
}

/* count pieces that follow each other at p. */
static inline void forge_frame(struct forge *f, const char *p, const size_t *sizes, size_t count,
                               struct digest *ids)
{
    struct frame_member *members = mem_zero(count, sizeof(*members));
    struct codec *codec = NULL;
    struct buf zstd;
    size_t n = 0;

    for (size_t i = 0; i < count; n += sizes[i++]) {
        sha256_of(p + n, sizes[i], &members[i].id);
        members[i].len = (uint32_t)sizes[i];
        if (ids)
            ids[i] = members[i].id;
    }
    buf_init(&zstd, CODEC_RAW_MAX * 2);
    EXPECT_OK(codec_new(&codec, &f->err), &f->err);
    EXPECT_OK(codec_encode(codec, ENC_ZSTD, 3, p, n, &zstd, &f->err), &f->err);
    codec_free(codec);
    EXPECT_OK(pack_put_frame(f->w, members, count, zstd.p, zstd.n, n, NULL, &f->err), &f->err);
    buf_release(&zstd);
    free(members);
}

/* Chunks of the given sizes. */
static inline struct recipe_chunk *forge_chunks(const char *p, const size_t *sizes, size_t count)
{
    struct recipe_chunk *chunks = mem_zero(count, sizeof(*chunks));

    CHECK(sizes || count == 0);
    for (size_t i = 0; i < count; p += sizes[i++]) {
        sha256_of(p, sizes[i], &chunks[i].id);
        chunks[i].len = (uint32_t)sizes[i];
    }
    return chunks;
}

/* Only the recipe: its chunks are the caller's. */
static inline struct digest forge_recipe(struct forge *f, const char *p, size_t n,
                                         const struct recipe_chunk *chunks, size_t count)
{
    struct buf payload;
    struct digest id;

    sha256_of(p, n, &id);
    buf_init(&payload, PACK_PAYLOAD_MAX);
    recipe_encode(&id, chunks, count, &payload);
    forge_record(f, REC_RECIPE, ENC_RAW, 0, &id, n, payload.p, payload.n);
    buf_release(&payload);
    return id;
}

static inline struct digest forge_loose_file(struct forge *f, const char *p, size_t n)
{
    struct digest id;
    bool existed;

    sha256_of(p, n, &id);
    EXPECT_OK(os_write_file(f->st->tmp, "forged", p, n, 0600, &f->err), &f->err);
    EXPECT_OK(loose_publish(f->st, "forged", &id, (int64_t)n, &existed, &f->err), &f->err);
    return id;
}

/* A loose file and the record that announces it; count 0: without a recipe. */
static inline struct digest forge_loose(struct forge *f, const char *p, size_t n,
                                        const size_t *sizes, size_t count)
{
    const struct digest id = forge_loose_file(f, p, n);
    struct recipe_chunk *chunks = forge_chunks(p, sizes, count);
    struct buf payload;

    buf_init(&payload, PACK_PAYLOAD_MAX);
    if (count > 0)
        recipe_encode(&id, chunks, count, &payload);
    forge_record(f, REC_LOOSE, ENC_RAW, 0, &id, n, payload.p ? payload.p : "", payload.n);
    buf_release(&payload);
    free(chunks);
    return id;
}

static inline void forge_bind(struct forge *f, const struct digest *key,
                              const struct digest *result)
{
    forge_record(f, REC_BIND, ENC_RAW, 0, key, DIGEST_BYTES, result->b, DIGEST_BYTES);
}

static inline void forge_ref(struct forge *f, const char *name, enum obj_kind kind,
                             const struct digest *target)
{
    struct buf payload;
    struct digest id;

    sha256_of(name, strlen(name), &id);
    buf_init(&payload, 4096);
    ref_encode(target, (uint8_t)kind, str_of(name), &payload);
    forge_record(f, REC_REF, ENC_RAW, 0, &id, payload.n, payload.p, payload.n);
    buf_release(&payload);
}

/* Sorts and encodes the tree; releases it. */
static inline struct digest forge_tree(struct forge *f, struct tree *t, int64_t *size)
{
    struct digest id;
    struct buf text;

    buf_init(&text, TREE_BYTES_MAX);
    EXPECT_OK(tree_encode(t, &text, &f->err), &f->err);
    id = forge_blob(f, ENC_RAW, REC_TREE, text.p, text.n);
    if (size)
        *size = (int64_t)text.n;
    buf_release(&text);
    tree_release(t);
    return id;
}

static inline void forge_commit(struct forge *f)
{
    struct index_commit commit = {0};
    struct pack *pack = NULL;

    EXPECT_OK(pack_seal(f->w, PACK_SYNC_DIR, &f->pack, &f->err), &f->err);
    pack_writer_release(f->w);
    f->w = NULL;
    EXPECT_OK(pack_open(f->st->packs, &f->pack, &pack, &f->err), &f->err);
    commit.packs = &pack;
    commit.pack_count = 1;
    EXPECT_OK(index_commit(f->st->index, &commit, &f->err), &f->err);
    pack_close(pack);
}

/* ---- damage ------------------------------------------------------------------------------------ */

/* Flips a bit of the loose file; its mtime moves, as when a task has written through a hard link. */
static inline void forge_damage_loose(struct forge *f, const struct digest *id, int64_t at,
                                      bool keep_mtime)
{
    char name[LOOSE_NAME];
    uint8_t byte;
    size_t got;
    int fd = -1;

    loose_name(id, name);
    EXPECT_EQ(fchmodat(f->st->loose, name, 0644, 0), 0);
    EXPECT_OK(os_open(f->st->loose, name, O_RDWR, 0, &fd, &f->err), &f->err);
    EXPECT_OK(os_pread(fd, &byte, 1, at, &got, &f->err), &f->err);
    EXPECT_EQ(got, 1);
    byte ^= 0x10;
    EXPECT_OK(os_pwrite(fd, &byte, 1, at, &f->err), &f->err);
    if (keep_mtime)
        EXPECT_OK(os_set_mtime(fd, LOOSE_MTIME_NS, &f->err), &f->err);
    EXPECT_OK(os_chmod(fd, 0444, &f->err), &f->err);
    os_close_quiet(&fd);
}

static inline void forge_damage_pack(struct forge *f, const struct digest *name, int64_t at)
{
    char hex[DIGEST_HEX + 1];
    uint8_t byte;
    size_t got;
    int fd = -1;

    digest_hex(name, hex);
    EXPECT_EQ(fchmodat(f->st->packs, hex, 0644, 0), 0);
    EXPECT_OK(os_open(f->st->packs, hex, O_RDWR, 0, &fd, &f->err), &f->err);
    EXPECT_OK(os_pread(fd, &byte, 1, at, &got, &f->err), &f->err);
    EXPECT_EQ(got, 1);
    byte ^= 0x10;
    EXPECT_OK(os_pwrite(fd, &byte, 1, at, &f->err), &f->err);
    os_close_quiet(&fd);
}

static inline bool forge_loose_there(struct forge *f, const struct digest *id)
{
    char name[LOOSE_NAME];

    loose_name(id, name);
    return faccessat(f->st->loose, name, F_OK, 0) == 0;
}

/* Names in a folder of the store, without . and .. */
static inline int forge_count_names(struct forge *f, int dir)
{
    struct os_entry *entries = NULL;
    size_t count = 0;

    EXPECT_OK(os_list(dir, &entries, &count, &f->err), &f->err);
    free(entries);
    return (int)count;
}

static inline int forge_fd_count(void)
{
    struct err err = ERR_INIT;
    struct os_entry *entries = NULL;
    size_t count = 0;
    int dir = -1;

    EXPECT_OK(os_open_dir(AT_FDCWD, "/proc/self/fd", &dir, &err), &err);
    EXPECT_OK(os_list(dir, &entries, &count, &err), &err);
    os_close_quiet(&dir);
    free(entries);
    return (int)count;
}

#endif
