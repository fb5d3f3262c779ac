/* What the pipeline's policy says to licences: to those of the sources before anything runs, and, since a task that makes a dataset says in its
 * licenses.json what is in it, to those when they are known. */
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "orchestrator/licence.h"
#include "orchestrator/run_internal.h"
#include "store/reader.h"
#include "store/tree.h"

#define LICENCES_FILE "licenses.json"
#define LICENCES_BYTES_MAX (64 << 20)

static size_t count_lines(const struct buf *lines)
{
    size_t n = 0;

    for (size_t i = 0; i < lines->n; i++)
        n += lines->p[i] == '\n';
    return n;
}

enum err_code run_judge_sources(struct run *r, struct err *err)
{
    /* Which of them are needed is the resolver's to know: those have been entered. */
    struct sources *sources = resolver_sources(r->resolver);
    bool *wanted = mem_zero(r->p->source_count + 1, sizeof(*wanted));
    struct buf lines = {0};
    size_t n;
    enum err_code rc;

    buf_init(&lines, 1 << 20);
    for (size_t i = 0; i < r->p->source_count; i++) {
        const struct source_object *o = source_get(sources, (int)i);

        wanted[i] = o && !digest_is_zero(&o->digest);
    }
    rc = sources_policy(sources, wanted, &lines, err);
    n = count_lines(&lines);
    if (rc == ERR_DENIED && n > 1)
        rc = err_set(err, ERR_DENIED, "%.*s; and %zu more that policy is against",
                     (int)strcspn(lines.p, "\n"), lines.p, n - 1);
    free(wanted);
    buf_release(&lines);
    return rc;
}

static enum err_code judge_file(struct run *r, const struct digest *id, const char *what,
                                struct err *err)
{
    const struct licence_policy p = {r->p->policy.deny, r->p->policy.allow_only};
    struct buf text = {0};
    json_t *parts = NULL;
    enum err_code rc;

    buf_init(&text, LICENCES_BYTES_MAX);
    rc = object_read(r->st, id, LICENCES_BYTES_MAX, &text, err);
    if (!rc)
        rc = json_parse(text.p ? text.p : "", text.n, LICENCES_BYTES_MAX, what, &parts, err);
    if (!rc)
        rc = licence_judge_parts(&p, parts, what, NULL, err);
    json_decref(parts);
    buf_release(&text);
    return rc;
}

static enum err_code judge_output(struct run *r, const struct card_object *o, const char *task,
                                  struct err *err)
{
    const struct tree_entry *e;
    struct tree t = {0};
    struct buf text = {0}, what = {0};
    enum err_code rc;

    if (o->kind != OBJ_TREE)
        return OK;
    buf_init(&text, TREE_BYTES_MAX);
    buf_init(&what, 1024);
    rc = object_read(r->st, &o->digest, TREE_BYTES_MAX, &text, err);
    if (!rc)
        rc = tree_decode(text.p, text.n, 0, task, &t, err);
    e = rc ? NULL : tree_find(&t, STR(LICENCES_FILE));
    if (e && e->mode == TREE_FILE) {
        buf_printf(&what, "%.300s.%.100s/%s", task, o->name, LICENCES_FILE);
        rc = judge_file(r, &e->digest, what.p, err);
    }
    tree_release(&t);
    buf_release(&text);
    buf_release(&what);
    return rc;
}

enum err_code run_judge(struct run *r, int task, struct err *err)
{
    const struct task_result *t = &r->known[task];
    enum err_code rc = OK;

    if (!r->p->policy.deny[0] && !r->p->policy.allow_only[0])
        return OK;
    for (size_t i = 0; !rc && i < t->output_count; i++)
        rc = judge_output(r, &t->outputs[i], r->p->tasks[task].name, err);
    return rc;
}
