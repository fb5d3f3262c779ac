/* transfer_world.h - two stores and a remote folder between them, for the tests of push and pull.
 *
 * Life:     world_new -> use a, b, remote -> world_free.
 * Owns:     a folder with everything in it.
 * Threads:  one.
 * Errors:   every failure ends the test.
 *
 * long: inline, because a test program is one file.
 */
#ifndef WEIR_TESTS_TRANSFER_WORLD_H
#define WEIR_TESTS_TRANSFER_WORLD_H

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"
#include "store/ingest.h"
#include "store/materialise.h"
#include "store/reader.h"
#include "store/transfer.h"
#include "store/tree.h"
#include "tests/check.h"
#include "tests/store_gen.h"

#define WORLD_PATH (TMPDIR_MAX + 256)

struct world {
    char dir[TMPDIR_MAX];
    char a_dir[WORLD_PATH], b_dir[WORLD_PATH], remote[WORLD_PATH], data[WORLD_PATH];
    struct store *a, *b;
    struct transfer_report report; /* of the last transfer */
    struct err err;
};

static inline struct store *world_open(struct world *w, const char *dir)
{
    struct store *st = NULL;

    EXPECT_OK(store_open(dir, STORE_WRITE, &st, &w->err), &w->err);
    return st;
}

static inline void world_new(struct world *w)
{
    *w = (struct world){.err = ERR_INIT};
    tmpdir_new(w->dir);
    snprintf(w->a_dir, WORLD_PATH, "%s/a", w->dir);
    snprintf(w->b_dir, WORLD_PATH, "%s/b", w->dir);
    snprintf(w->remote, WORLD_PATH, "%s/remote", w->dir);
    snprintf(w->data, WORLD_PATH, "%s/data", w->dir);
    EXPECT_OK(store_init(w->a_dir, NULL, &w->err), &w->err);
    EXPECT_OK(store_init(w->b_dir, NULL, &w->err), &w->err);
    w->a = world_open(w, w->a_dir);
    w->b = world_open(w, w->b_dir);
}

static inline void world_free(struct world *w)
{
    store_close(w->a);
    store_close(w->b);
    tmpdir_free(w->dir);
}

/* Another empty store in the place of b. */
static inline void world_fresh_b(struct world *w)
{
    store_close(w->b);
    w->b = NULL;
    EXPECT_OK(os_remove_tree(AT_FDCWD, w->b_dir, &w->err), &w->err);
    EXPECT_OK(store_init(w->b_dir, NULL, &w->err), &w->err);
    w->b = world_open(w, w->b_dir);
}

static inline void world_file(struct world *w, const char *name, const void *p, size_t n)
{
    char path[3 * WORLD_PATH], *slash;

    snprintf(path, sizeof(path), "%s/%s", w->data, name);
    slash = strrchr(path, '/');
    *slash = '\0';
    EXPECT_OK(os_mkdirs(path, 0755, &w->err), &w->err);
    *slash = '/';
    EXPECT_OK(os_write_file(AT_FDCWD, path, p, n, 0644, &w->err), &w->err);
}

static inline void world_noise(struct world *w, const char *name, uint64_t seed, size_t n)
{
    char *p = mem_alloc(n);

    gen_noise(&seed, p, n);
    world_file(w, name, p, n);
    free(p);
}

/* Something of everything: text, noise, a large file, folders, links, an executable, an empty file and an empty folder. */
static inline void world_fill(struct world *w)
{
    char path[WORLD_PATH + 64], text[4096];
    uint64_t seed = 7;

    for (int i = 0; i < 40; i++) {
        snprintf(path, sizeof(path), "captions/%03d.json", i);
        gen_json(&seed, text, sizeof(text));
        world_file(w, path, text, sizeof(text));
    }
    world_noise(w, "noise.bin", 8, 300000);
    world_noise(w, "large.bin", 9, 3 << 20);
    world_file(w, "deep/er/est/run.sh", "#!/bin/sh\n", 10);
    world_file(w, "empty", "", 0);
    snprintf(path, sizeof(path), "%s/deep/er/est/run.sh", w->data);
    EXPECT_EQ(chmod(path, 0755), 0);
    snprintf(path, sizeof(path), "%s/deep/link", w->data);
    EXPECT_EQ(symlink("../empty", path), 0);
    snprintf(path, sizeof(path), "%s/void", w->data);
    EXPECT_EQ(mkdir(path, 0755), 0);
}

static inline struct digest world_add(struct world *w, struct store *st, const char *ref)
{
    const struct ingest_options o = {.ref = ref};
    struct ingest_result r = {0};

    EXPECT_OK(store_add(st, w->data, &o, &r, &w->err), &w->err);
    return r.digest;
}

static inline enum err_code world_push(struct world *w, struct store *st, const char *ref)
{
    const struct transfer_options o = {.refs = &ref, .ref_count = ref != NULL};

    return store_push(st, w->remote, &o, &w->report, &w->err);
}

static inline enum err_code world_pull(struct world *w, struct store *st, const char *ref)
{
    const struct transfer_options o = {.refs = &ref, .ref_count = ref != NULL};

    return store_pull(st, w->remote, &o, &w->report, &w->err);
}

static inline bool world_ref(struct world *w, struct store *st, const char *name,
                             struct digest *out)
{
    struct ref_row row = {0};
    const enum err_code rc = index_ref(st->index, str_of(name), &row, &w->err);

    if (rc != ERR_NOT_FOUND)
        EXPECT_OK(rc, &w->err);
    if (out)
        *out = row.digest;
    return rc == OK && row.kind != OBJ_NONE;
}

/* The ref is there, and what it names is, down to the last byte: written out and added again it has the same digest. */
static inline void world_expect_whole(struct world *w, struct store *st, const char *ref,
                                      const struct digest *want)
{
    const struct ingest_options o = {.no_memo = true};
    const struct mat_options how = {.how = MAT_COPY};
    struct ingest_result again = {0};
    struct mat_result result = {0};
    struct digest is;
    char out[WORLD_PATH];

    EXPECT(world_ref(w, st, ref, &is));
    EXPECT_MEM(&is, want, sizeof(is));
    snprintf(out, sizeof(out), "%s/out", w->dir);
    EXPECT_OK(materialise(st, OBJ_TREE, want, out, &how, &result, &w->err), &w->err);
    EXPECT_OK(store_add(w->a, out, &o, &again, &w->err), &w->err);
    EXPECT_MEM(&again.digest, want, sizeof(*want));
    EXPECT_OK(os_remove_tree(AT_FDCWD, out, &w->err), &w->err);
    EXPECT_OK(store_check(st, &w->err), &w->err);
}

/* Of the remote's packs the n-th by name; false when there are fewer. */
static inline bool world_pack(struct world *w, size_t n, char out[WORLD_PATH + 128])
{
    char path[WORLD_PATH + 16];
    struct os_entry *entries = NULL;
    size_t count = 0;
    int fd = -1;

    snprintf(path, sizeof(path), "%s/packs", w->remote);
    EXPECT_OK(os_open_dir(AT_FDCWD, path, &fd, &w->err), &w->err);
    EXPECT_OK(os_list(fd, &entries, &count, &w->err), &w->err);
    os_close_quiet(&fd);
    if (n < count)
        snprintf(out, WORLD_PATH + 128, "%s/%s", path, entries[n].name);
    free(entries);
    return n < count;
}

static inline int world_fd_count(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    EXPECT(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

#endif
