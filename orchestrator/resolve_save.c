/* What a look leaves behind: the memo, and the tree of all results. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/ledger.h"
#include "orchestrator/record.h"
#include "orchestrator/resolve_internal.h"
#include "store/reader.h"
#include "store/tree.h"

/* ---- the memo ---------------------------------------------------------------------------------- */

static size_t count_outputs(const struct resolver *r)
{
    size_t n = 0;

    for (size_t i = 0; i < r->p->task_count; i++)
        n += r->tasks[i].result.known ? r->tasks[i].result.output_count : 0;
    return n;
}

static void fill_tasks(const struct resolver *r, struct memo_task *tasks,
                       struct memo_output *outputs)
{
    uint32_t n = 0;

    for (size_t i = 0; i < r->p->task_count; i++) {
        const struct task_state *s = &r->tasks[i];
        const struct task_result *t = &s->result;

        if (!s->keyed)
            continue;
        tasks[i].key = t->key;
        tasks[i].flags = MEMO_KEYED;
        if (!t->known)
            continue;
        tasks[i].flags |= MEMO_KNOWN;
        tasks[i].result = t->result;
        tasks[i].first = n;
        tasks[i].count = (uint32_t)t->output_count;
        for (size_t k = 0; k < t->output_count; k++)
            outputs[n++] = (struct memo_output){.digest = t->outputs[k].digest,
                                                .size = t->outputs[k].size,
                                                .kind = (uint64_t)t->outputs[k].kind};
    }
}

/* Rows that hold only for tasks that somebody looked at are not worth a file: another look would ask for all. */
enum err_code resolver_save(struct resolver *r, struct err *err)
{
    const struct pipeline *p = r->p;
    const size_t outputs = count_outputs(r);
    struct memo m = {.head = {.origin = r->origin,
                              .epoch = r->epoch,
                              .stages = p->stage_count,
                              .sources = p->source_count,
                              .tasks = p->task_count,
                              .outputs = outputs,
                              .results = r->results,
                              .results_size = r->results_size}};
    struct arena a;
    struct digest *stages;
    struct memo_source *sources;
    struct memo_task *tasks;
    struct memo_output *rows;
    enum err_code rc;

    if (!r->use_memo || !r->all || !r->changed)
        return OK;
    arena_init(&a);
    stages = arena_array(&a, p->stage_count + 1, sizeof(*stages));
    sources = arena_array(&a, p->source_count + 1, sizeof(*sources));
    tasks = arena_array(&a, p->task_count + 1, sizeof(*tasks));
    rows = arena_array(&a, outputs + 1, sizeof(*rows));
    for (size_t i = 0; i < p->stage_count; i++)
        stages[i] = r->stages[i].id;
    for (size_t i = 0; i < p->source_count; i++)
        sources[i] = (struct memo_source){r->source[i].digest, (uint64_t)r->source[i].kind};
    fill_tasks(r, tasks, rows);
    m.stages = stages;
    m.sources = sources;
    m.tasks = tasks;
    m.outputs = rows;
    rc = memo_write(r->memo_dir, r->memo_name, &m, err);
    arena_release(&a);
    r->changed = rc != OK;
    return rc;
}

/* ---- the tree of results ----------------------------------------------------------------------- */

static enum err_code add_result(struct tree *t, const struct task *task,
                                const struct digest *result, const struct loc *at, struct buf *name,
                                struct err *err)
{
    struct tree_entry e = {.mode = TREE_DIR, .digest = *result, .size = (int64_t)at->raw};
    enum err_code rc;

    if (at->type == 0)
        return err_set(err, ERR_CHANGED, "the result of %s left the store meanwhile", task->name);
    e.mode = at->flags & REC_TREE ? TREE_DIR : TREE_FILE;
    buf_clear(name);
    rc = record_name_escape(task->name, name, err);
    if (rc)
        return rc;
    e.name = (struct str){name->p, name->n};
    return tree_add(t, &e, 0, err);
}

static enum err_code build_tree(struct resolver *r, struct writer *w, struct err *err)
{
    const size_t n = r->p->task_count;
    struct digest *ids = mem_zero(n + 1, sizeof(*ids));
    struct loc *locs = mem_zero(n + 1, sizeof(*locs));
    size_t count = 0, next = 0;
    struct tree t = {0};
    struct buf text = {0}, name = {0};
    enum err_code rc;

    for (size_t i = 0; i < n; i++)
        if (r->tasks[i].result.known)
            ids[count++] = r->tasks[i].result.result;
    tree_init(&t);
    buf_init(&text, TREE_BYTES_MAX);
    buf_init(&name, 4096);
    rc = object_locate(r->st, ids, count, locs, err);
    for (size_t i = 0; !rc && i < n; i++)
        if (r->tasks[i].result.known) {
            rc = add_result(&t, &r->p->tasks[i], &ids[next], &locs[next], &name, err);
            next++;
        }
    if (!rc)
        rc = tree_encode(&t, &text, err);
    if (!rc)
        rc = writer_put(w, OBJ_TREE, text.p, text.n, &r->results, err);
    r->results_size = (int64_t)text.n;
    tree_release(&t);
    buf_release(&text);
    buf_release(&name);
    free(ids);
    free(locs);
    return rc;
}

/* The file's tree is of exactly these results, and there. */
static enum err_code tree_from_memo(struct resolver *r, bool *good, struct err *err)
{
    const struct memo_head *h = &r->memo.head;
    struct loc at;
    enum err_code rc;

    *good = false;
    if (!r->rows || r->changed || digest_is_zero(&h->results) || h->epoch != r->epoch)
        return OK;
    rc = object_locate(r->st, &h->results, 1, &at, err);
    if (rc || at.type == 0)
        return rc;
    r->results = h->results;
    r->results_size = h->results_size;
    *good = true;
    return OK;
}

enum err_code resolve_results_tree(struct resolver *r, struct writer *w, struct digest *tree,
                                   int64_t *size, struct err *err)
{
    bool good;
    enum err_code rc = tree_from_memo(r, &good, err);

    if (!rc && !good) {
        rc = build_tree(r, w, err);
        r->changed = true;
    }
    *tree = r->results;
    *size = r->results_size;
    return rc;
}
