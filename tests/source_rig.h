/* source_rig.h - a store, a folder of files, and pipelines that name them as sources.
 *
 * Life:     rig_new -> rig_file, rig_sources ... -> rig_free.
 * Owns:     a folder with .weir and pipe.yaml, the pipeline and its sources.
 * Threads:  one.
 * Errors:   every failure ends the test.
 */
/* long: the whole of what tests of sources, programs and downloads share */
#ifndef WEIR_TESTS_SOURCE_RIG_H
#define WEIR_TESTS_SOURCE_RIG_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"
#include "orchestrator/source_internal.h"
#include "store/reader.h"
#include "tests/check.h"

struct rig {
    char dir[TMPDIR_MAX];
    struct store *st;
    struct pipeline *p;
    struct sources *s;
    struct err err;
};

static inline void rig_new(struct rig *g)
{
    *g = (struct rig){.err = ERR_INIT};
    umask(022);
    tmpdir_new(g->dir);
    EXPECT_OK(store_init(g->dir, NULL, &g->err), &g->err);
    EXPECT_OK(store_open(g->dir, STORE_WRITE, &g->st, &g->err), &g->err);
}

static inline void rig_free(struct rig *g)
{
    sources_free(g->s);
    pipeline_free(g->p);
    store_close(g->st);
    os_set_now(0);
    tmpdir_free(g->dir);
}

static inline const char *rig_path(const struct rig *g, const char *name)
{
    static char paths[4][TMPDIR_MAX + 256];
    static int next;
    char *path = paths[next++ % 4];

    (void)snprintf(path, sizeof(paths[0]), "%s/%s", g->dir, name);
    return path;
}

static inline void rig_bytes(const struct rig *g, const char *name, const void *p, size_t n)
{
    const char *path = rig_path(g, name);
    char folder[TMPDIR_MAX + 256];
    struct err err = ERR_INIT;
    FILE *f;

    (void)snprintf(folder, sizeof(folder), "%s", path);
    *strrchr(folder, '/') = '\0';
    EXPECT_OK(os_mkdirs(folder, 0755, &err), &err);
    f = fopen(path, "w");
    EXPECT(f != NULL);
    EXPECT_EQ(fwrite(p, 1, n, f), n);
    EXPECT_EQ(fclose(f), 0);
}

static inline void rig_file(const struct rig *g, const char *name, const char *text)
{
    rig_bytes(g, name, text, strlen(text));
}

/* File times must be in the past for the memo to believe them. */
static inline void rig_later(void)
{
    struct timespec now;

    EXPECT_EQ(clock_gettime(CLOCK_REALTIME, &now), 0);
    os_set_now((now.tv_sec + 3600) * INT64_C(1000000000));
}

/* A pipeline with these lines under sources:, and one stage that does nothing. */
static inline void rig_pipeline(struct rig *g, const char *sources)
{
    struct buf text;

    sources_free(g->s);
    pipeline_free(g->p);
    g->s = NULL;
    g->p = NULL;
    buf_init(&text, 1 << 24);
    buf_printf(&text,
               "weir: 1\nname: pipe\nsources:\n%sstages:\n  one:\n    run: [\"true\"]\n"
               "    outputs: [x]\n",
               sources);
    rig_file(g, "pipe.yaml", text.p);
    buf_clear(&text);
    if (pipeline_load(rig_path(g, "pipe.yaml"), NULL, &g->p, &text, &g->err))
        print_error("%s\n", text.p ? text.p : "");
    EXPECT(g->p != NULL);
    buf_release(&text);
}

static inline enum err_code rig_enter(struct rig *g, const struct source_options *o)
{
    enum err_code rc;

    g->err = (struct err)ERR_INIT;
    sources_free(g->s);
    g->s = NULL;
    rc = sources_new(g->st, g->p, o, &g->s, &g->err);
    return rc ? rc : sources_enter(g->s, NULL, &g->err);
}

static inline const struct source_object *rig_sources(struct rig *g, const char *sources)
{
    rig_pipeline(g, sources);
    EXPECT_OK(rig_enter(g, NULL), &g->err);
    return source_get(g->s, 0);
}

/* The store's text at "DIGEST:path". */
static inline char *rig_text(struct rig *g, const struct digest *d, const char *path)
{
    char what[DIGEST_TEXT + 300];
    struct digest found;
    enum obj_kind kind;
    struct buf text;

    digest_text(d, what);
    if (*path)
        (void)snprintf(what + DIGEST_TEXT, sizeof(what) - DIGEST_TEXT, ":%s", path);
    EXPECT_OK(store_resolve(g->st, str_of(what), &found, &kind, &g->err), &g->err);
    buf_init(&text, 1 << 26);
    EXPECT_OK(object_read(g->st, &found, 1 << 26, &text, &g->err), &g->err);
    return text.p ? buf_take(&text) : mem_strdup("");
}

static inline void rig_expect_text(struct rig *g, const struct digest *d, const char *path,
                                   const char *wanted)
{
    char *text = rig_text(g, d, path);

    EXPECT_STR(text, wanted);
    free(text);
}

#define EXPECT_SAYS(e, words)                                                                      \
    check_true(strstr((e)->text, (words)) != NULL, (e)->text, __FILE__, __LINE__)

#endif
