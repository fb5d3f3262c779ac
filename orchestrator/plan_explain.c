/* The nearest earlier action of a task, and what differs from it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/plan.h"
#include "orchestrator/record.h"
#include "store/action.h"
#include "store/reader.h"

#define INSTANCES_MAX 64 /* of a stage that are compared when the task has no record itself */
#define VALUE_WIDTH 40   /* of a value for people, in bytes */
#define DIGEST_WIDTH 15  /* "sha256:" and eight digits */

static enum err_code stored_action(struct store *st, const struct digest *key, json_t **out,
                                   struct err *err)
{
    struct buf text = {0};
    enum err_code rc;

    *out = NULL;
    buf_init(&text, ACTION_BYTES_MAX);
    rc = object_read(st, key, ACTION_BYTES_MAX, &text, err);
    if (!rc)
        rc = json_parse(text.p, text.n, ACTION_BYTES_MAX, "action", out, err);
    buf_release(&text);
    return rc;
}

/* Compares with the record of another task, or of this one; keeps the result when it is nearer than what there is. */
static enum err_code compare(struct store *st, struct ledger *l, const struct pipeline *p,
                             const char *name, const struct digest *key, const json_t *action,
                             struct explanation *x, struct err *err)
{
    struct task_record rec = {0};
    json_t *old = NULL, *diffs = NULL;
    enum err_code rc = task_record_get(l, p->name, name, &rec, err);

    if (!rc && !rec.action)
        rc = stored_action(st, &rec.key, &old, err);
    else if (!rc)
        old = json_incref(rec.action);
    if (!rc)
        rc = action_diff(old, action, &diffs, err);
    if (!rc && (!x->found || json_array_size(diffs) < json_array_size(x->diffs))) {
        explanation_release(x);
        *x = (struct explanation){.found = true,
                                  .same = digest_eq(&rec.key, key),
                                  .run = rec.run,
                                  .against = mem_strdup(name),
                                  .diffs = json_incref(diffs),
                                  .wall_ms = rec.wall_ms};
        (void)snprintf(x->status, sizeof(x->status), "%s", rec.status ? rec.status : "");
    }
    if (rc == ERR_NOT_FOUND) { /* never seen, or its action has been collected */
        *err = (struct err)ERR_INIT;
        rc = OK;
    }
    json_decref(old);
    json_decref(diffs);
    task_record_release(&rec);
    return rc;
}

enum err_code plan_explain(struct resolver *r, struct store *st, struct ledger *l,
                           const struct pipeline *p, int task, struct explanation *out,
                           struct err *err)
{
    const struct task *t = &p->tasks[task];
    const struct stage *stage = &p->stages[t->stage];
    const struct digest *key = &resolve_get(r, task)->key;
    json_t *action = NULL;
    enum err_code rc;

    *out = (struct explanation){0};
    if (!l)
        return OK;
    rc = resolve_action(r, task, &action, err);
    if (!rc)
        rc = compare(st, l, p, t->name, key, action, out, err);
    for (int i = 0; !rc && (!out->found || strcmp(out->against, t->name) != 0) &&
                    i < stage->task_count && i < INSTANCES_MAX;
         i++)
        rc = compare(st, l, p, p->tasks[stage->first_task + i].name, key, action, out, err);
    json_decref(action);
    if (rc)
        explanation_release(out);
    return rc;
}

void explanation_release(struct explanation *x)
{
    free(x->against);
    json_decref(x->diffs);
    *x = (struct explanation){0};
}

/* ---- for people -------------------------------------------------------------------------------- */

void explanation_value(const json_t *v, struct buf *out)
{
    struct buf text = {0};
    struct err ignored = ERR_INIT;
    const char *s = json_string_value(v);
    size_t n;

    buf_init(&text, ACTION_BYTES_MAX);
    if (!v || json_is_null(v))
        buf_str(&text, "(none)");
    else if (s)
        buf_str(&text, s);
    else if (json_canonical(v, &text, &ignored))
        buf_str(&text, "?");
    n = text.n;
    if (s && n == DIGEST_TEXT && strncmp(s, "sha256:", 7) == 0)
        n = DIGEST_WIDTH;
    else if (n > VALUE_WIDTH)
        n = VALUE_WIDTH;
    while (n < text.n && n > 0 && (text.p[n] & 0xc0) == 0x80)
        n--;                       /* not in the middle of a character */
    for (size_t i = 0; i < n; i++) /* a value may drive the terminal */
        buf_char(out,
                 (char)((unsigned char)text.p[i] < 0x20 || text.p[i] == 0x7f ? '?' : text.p[i]));
    if (n < text.n)
        buf_str(out, "…");
    buf_release(&text);
}

void explanation_text(const struct explanation *x, size_t max, struct buf *out)
{
    const size_t count = json_array_size(x->diffs);

    for (size_t i = 0; i < count && i < max; i++) {
        const json_t *d = json_array_get(x->diffs, i);

        buf_printf(out, "%s%s ", i ? "; " : "", json_string_value(json_object_get(d, "path")));
        explanation_value(json_object_get(d, "old"), out);
        buf_str(out, " → ");
        explanation_value(json_object_get(d, "new"), out);
    }
    if (count > max)
        buf_printf(out, "; %zu more", count - max);
}
