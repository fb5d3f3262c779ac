/* resolve_rig.h - a store, a pipeline file, a resolver, and tasks that are "run" by writing down what they would have made.
 *
 * An output's text is a function of the action key, of the params named "out" alone, or of nothing: so that early cut-off can be had.
 *
 * Life:     rig_new -> rig_write, rig_open ... rig_close -> rig_free.
 * Owns:     a folder with .weir and pipe.yaml.
 * Threads:  one.
 * Errors:   every failure ends the test.
 */
/* long: test programs are one source file each, so what they share is inline here */
#ifndef WEIR_TESTS_RESOLVE_RIG_H
#define WEIR_TESTS_RESOLVE_RIG_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "orchestrator/pipeline.h"
#include "orchestrator/resolve.h"
#include "store/action.h"
#include "store/tree.h"
#include "store/writer.h"
#include "tests/check.h"

struct rig {
    char dir[TMPDIR_MAX];
    struct store *st;
    struct pipeline *p;
    struct resolver *r;
    struct task_result *results;
    bool *keyed;
    struct err err;
};

static inline void rig_write(const struct rig *g, const char *name, const char *text)
{
    char path[TMPDIR_MAX + 128];
    FILE *f;

    (void)snprintf(path, sizeof(path), "%s/%s", g->dir, name);
    f = fopen(path, "w");
    EXPECT(f != NULL);
    EXPECT(fputs(text, f) >= 0);
    EXPECT_EQ(fclose(f), 0);
}

static inline void rig_new(struct rig *g)
{
    *g = (struct rig){0};
    tmpdir_new(g->dir);
    EXPECT_OK(store_init(g->dir, NULL, &g->err), &g->err);
    EXPECT_OK(store_open(g->dir, STORE_WRITE, &g->st, &g->err), &g->err);
}

static inline void rig_close(struct rig *g)
{
    resolver_free(g->r);
    pipeline_free(g->p);
    free(g->results);
    free(g->keyed);
    g->r = NULL;
    g->p = NULL;
    g->results = NULL;
    g->keyed = NULL;
}

static inline void rig_free(struct rig *g)
{
    rig_close(g);
    store_close(g->st);
    tmpdir_free(g->dir);
}

/* Reads pipe.yaml and makes a resolver. */
static inline enum err_code rig_try(struct rig *g, const struct pipeline_options *po,
                                    const struct resolver_options *ro)
{
    char path[TMPDIR_MAX + 16];

    rig_close(g);
    (void)snprintf(path, sizeof(path), "%s/pipe.yaml", g->dir);
    EXPECT_OK(pipeline_load(path, po, &g->p, NULL, &g->err), &g->err);
    g->results = mem_zero(g->p->task_count + 1, sizeof(*g->results));
    g->keyed = mem_zero(g->p->task_count + 1, sizeof(*g->keyed));
    return resolver_new(g->st, NULL, g->p, ro, &g->r, &g->err);
}

static inline void rig_open(struct rig *g, const struct pipeline_options *po,
                            const struct resolver_options *ro)
{
    EXPECT_OK(rig_try(g, po, ro), &g->err);
}

static inline void rig_all(struct rig *g)
{
    EXPECT_OK(resolve_all(g->r, g->results, g->keyed, &g->err), &g->err);
}

static inline int rig_task(const struct rig *g, const char *name)
{
    const int task = pipeline_find_task(g->p, name);

    EXPECT(task >= 0);
    return task;
}

/* The text that the task's outputs consist of: the value of its param "out", else its key. */
static inline void rig_output_text(const struct rig *g, int task, char text[128])
{
    const struct task *t = &g->p->tasks[task];

    digest_hex(&resolve_get(g->r, task)->key, text);
    for (size_t i = 0; i < t->param_count; i++)
        if (strcmp(t->params[i].name, "out") == 0)
            (void)snprintf(text, 128, "%s", json_string_value(t->params[i].value));
}

static inline void rig_tree(struct writer *w, struct tree *t, struct digest *out, int64_t *size,
                            struct err *err)
{
    struct buf text;

    buf_init(&text, TREE_BYTES_MAX);
    EXPECT_OK(tree_encode(t, &text, err), err);
    EXPECT_OK(writer_put(w, OBJ_TREE, text.p, text.n, out, err), err);
    *size = (int64_t)text.n;
    buf_release(&text);
    tree_release(t);
}

/* What an attempt leaves: {"action.json", "out": {NAME: blob}}, bound to the key. */
static inline void rig_make(struct rig *g, struct writer *w, int task, struct digest *result)
{
    const struct stage *st = &g->p->stages[g->p->tasks[task].stage];
    struct tree outs, top;
    struct tree_entry e = {.mode = TREE_DIR, .name = STR("out")},
                      a = {.mode = TREE_FILE, .name = STR("action.json")};
    struct buf canonical;
    struct digest key;
    json_t *action;
    char text[128];

    tree_init(&outs);
    tree_init(&top);
    buf_init(&canonical, ACTION_BYTES_MAX);
    rig_output_text(g, task, text);
    for (size_t i = 0; st->outputs[i]; i++) {
        struct tree_entry o = {.mode = TREE_FILE, .name = str_of(st->outputs[i])};

        o.size = (int64_t)strlen(text);
        EXPECT_OK(writer_put(w, OBJ_BLOB, text, strlen(text), &o.digest, &g->err), &g->err);
        EXPECT_OK(tree_add(&outs, &o, 0, &g->err), &g->err);
    }
    rig_tree(w, &outs, &e.digest, &e.size, &g->err);
    EXPECT_OK(resolve_action(g->r, task, &action, &g->err), &g->err);
    EXPECT_OK(action_key(action, &key, &canonical, &g->err), &g->err);
    EXPECT(digest_eq(&key, &resolve_get(g->r, task)->key));
    EXPECT_OK(writer_put(w, OBJ_BLOB, canonical.p, canonical.n, &a.digest, &g->err), &g->err);
    a.size = (int64_t)canonical.n;
    EXPECT_OK(tree_add(&top, &e, 0, &g->err), &g->err);
    EXPECT_OK(tree_add(&top, &a, 0, &g->err), &g->err);
    rig_tree(w, &top, result, &e.size, &g->err);
    EXPECT_OK(writer_bind(w, &key, result, &g->err), &g->err);
    writer_touch(w, OBJ_TREE, result);
    buf_release(&canonical);
    json_decref(action);
}

/* Runs what has no result, in order; how many that were.  Commits after each stage's worth, because posting reads the tree. */
static inline int rig_run(struct rig *g)
{
    const size_t n = g->p->task_count;
    struct digest *made = mem_zero(n + 1, sizeof(*made));
    struct writer *w = NULL;
    int count = 0;

    EXPECT_OK(writer_open(g->st, &w, &g->err), &g->err);
    for (size_t from = 0; from < n;) {
        const size_t begin = from;
        int waiting = 0;

        for (; from < n; from++) {
            const int task = g->p->order[from];
            struct task_result t;
            enum err_code rc;

            if (g->p->tasks[task].skipped)
                continue;
            rc = resolve_task(g->r, task, &t, &g->err);
            if (rc == ERR_AGAIN && waiting) {
                g->err = (struct err)ERR_INIT;
                break;
            }
            EXPECT_OK(rc, &g->err);
            if (t.known)
                continue;
            rig_make(g, w, task, &made[task]);
            waiting++;
        }
        EXPECT_OK(writer_commit(w, &g->err), &g->err);
        for (size_t i = begin; i < from; i++) {
            const int task = g->p->order[i];

            if (!digest_is_zero(&made[task]))
                EXPECT_OK(resolve_post(g->r, task, &made[task], &g->err), &g->err);
        }
        count += waiting;
    }
    writer_release(w);
    free(made);
    return count;
}

#endif
