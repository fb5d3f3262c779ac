/* writer_rig.h - files to add, and what a store must answer about them afterwards.
 *
 * Life:     forge_new (store_forge.h) -> rig_* -> forge_free.
 * Owns:     nothing; source files lie in the forge's folder.
 * Threads:  one.
 * Errors:   every failure ends the test.
 */
/* long: the words of five test programs */
#ifndef WEIR_TESTS_WRITER_RIG_H
#define WEIR_TESTS_WRITER_RIG_H

#include <dirent.h>

#include "store/ingest.h"
#include "tests/store_forge.h"
#include "tests/store_gen.h"

#define RIG_PATH (TMPDIR_MAX + 512)

static inline void rig_path(const struct forge *f, const char *name, char out[RIG_PATH])
{
    snprintf(out, RIG_PATH, "%s/%s", f->dir, name);
}

static inline void rig_write(struct forge *f, const char *name, const void *p, size_t n)
{
    char path[RIG_PATH];
    int fd = -1;

    rig_path(f, name, path);
    EXPECT_OK(os_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0644, &fd, &f->err), &f->err);
    EXPECT_OK(os_write(fd, p, n, &f->err), &f->err);
    os_close_quiet(&fd);
}

static inline void rig_mkdir(struct forge *f, const char *name)
{
    char path[RIG_PATH];

    rig_path(f, name, path);
    EXPECT_EQ(mkdir(path, 0755), 0);
}

static inline bool rig_there(struct forge *f, const char *name)
{
    char path[RIG_PATH];
    struct stat st;

    rig_path(f, name, path);
    return lstat(path, &st) == 0;
}

/* n bytes of noise named by a seed; free them. */
static inline uint8_t *rig_noise(uint64_t seed, size_t n)
{
    uint8_t *p = mem_alloc(n + 1);

    gen_noise(&seed, p, n);
    return p;
}

static inline enum err_code rig_put_file(struct forge *f, struct writer *w, const char *name,
                                         struct digest *id, struct err *err)
{
    char path[RIG_PATH];
    int64_t size;
    enum err_code rc;
    int fd = -1;

    rig_path(f, name, path);
    rc = os_open(AT_FDCWD, path, O_RDONLY, 0, &fd, err);
    if (!rc)
        rc = writer_put_file(w, fd, path, id, &size, err);
    os_close_quiet(&fd);
    return rc;
}

/* The store gives back exactly these bytes, under their own hash. */
static inline void rig_expect_object(struct forge *f, const struct digest *id, const void *p,
                                     size_t n)
{
    struct digest expected;
    struct buf b;

    sha256_of(p, n, &expected);
    EXPECT(digest_eq(id, &expected));
    buf_init(&b, n + 1);
    EXPECT_OK(object_read(f->st, id, (int64_t)n, &b, &f->err), &f->err);
    EXPECT_EQ(b.n, n);
    if (n > 0)
        EXPECT_MEM(b.p, p, n);
    buf_release(&b);
}

static inline uint8_t rig_where(struct forge *f, const struct digest *id)
{
    struct loc loc;

    EXPECT_OK(index_get(f->st->index, id, 1, &loc, &f->err), &f->err);
    return loc.type;
}

static inline void rig_check(struct forge *f)
{
    EXPECT_OK(store_check(f->st, &f->err), &f->err);
}

static inline struct writer *rig_writer(struct forge *f)
{
    struct writer *w = NULL;

    EXPECT_OK(writer_open(f->st, &w, &f->err), &f->err);
    return w;
}

static inline void rig_commit(struct forge *f, struct writer *w)
{
    EXPECT_OK(writer_commit(w, &f->err), &f->err);
    rig_check(f);
}

/* Bytes of all files under packs/ and loose/. */
static inline int64_t rig_stored(const struct forge *f)
{
    const int dirs[2] = {f->st->packs, f->st->loose};
    int64_t sum = 0;

    for (int i = 0; i < 2; i++) {
        struct err err = ERR_INIT;
        struct os_entry *e, *below;
        struct stat st;
        size_t n, m;

        EXPECT_OK(os_list(dirs[i], &e, &n, &err), &err);
        for (size_t k = 0; k < n; k++) {
            int fd = -1;

            if (e[k].type != DT_DIR) {
                EXPECT_OK(os_stat_at(dirs[i], e[k].name, &st, &err), &err);
                sum += st.st_size;
                continue;
            }
            EXPECT_OK(os_open_dir(dirs[i], e[k].name, &fd, &err), &err);
            EXPECT_OK(os_list(fd, &below, &m, &err), &err);
            for (size_t l = 0; l < m; l++) {
                EXPECT_OK(os_stat_at(fd, below[l].name, &st, &err), &err);
                sum += st.st_size;
            }
            free(below);
            os_close_quiet(&fd);
        }
        free(e);
    }
    return sum;
}

#endif
