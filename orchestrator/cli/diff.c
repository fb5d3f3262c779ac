/* weir diff: two runs side by side. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/cli/commands.h"
#include "orchestrator/ledger.h"
#include "orchestrator/plan.h"
#include "orchestrator/record.h"
#include "store/action.h"
#include "store/reader.h"
#include "store/tree.h"

#define EVENTS_MAX (64 << 20)

struct sides {
    struct cli *c;
    struct store *st;
    struct ledger *l;
    struct run_view *v[2];
    struct tree
        kept[2]; /* {TASK: result} of the run's tree: also what was cached before it began */
    struct buf out;
    size_t equal, differ;
};

/* ---- one task ----------------------------------------------------------------------------------- */

static enum err_code read_action(struct store *st, const struct run_task *t, json_t **out,
                                 struct err *err)
{
    struct buf text = {0};
    enum err_code rc;

    *out = NULL;
    if (!t || digest_is_zero(&t->key))
        return OK;
    buf_init(&text, ACTION_BYTES_MAX);
    rc = object_read(st, &t->key, ACTION_BYTES_MAX, &text, err);
    if (!rc)
        rc = json_parse(text.p, text.n, ACTION_BYTES_MAX, "action", out, err);
    buf_release(&text);
    if (rc != ERR_NOT_FOUND)
        return rc;
    *err = (struct err)ERR_INIT; /* it never got a result, or has been collected */
    return OK;
}

/* The last value of each metric. */
static enum err_code read_metrics(struct store *st, const struct run_task *t, json_t **out,
                                  struct err *err)
{
    struct buf text = {0};
    enum err_code rc;

    *out = json_object();
    if (!t || digest_is_zero(&t->events))
        return OK;
    buf_init(&text, EVENTS_MAX);
    rc = object_read(st, &t->events, EVENTS_MAX, &text, err);
    for (const char *line = text.p, *end; !rc && line && *line; line = *end ? end + 1 : end) {
        struct err bad = ERR_INIT;
        json_t *e = NULL;

        end = strchrnul(line, '\n');
        if (memmem(line, (size_t)(end - line), "\"metric\"", 8) &&
            json_parse(line, (size_t)(end - line), 1 << 20, "event", &e, &bad) == OK)
            (void)json_object_update(*out, json_object_get(e, "values"));
        json_decref(e);
    }
    buf_release(&text);
    if (rc == ERR_NOT_FOUND || rc == ERR_LIMIT) {
        *err = (struct err)ERR_INIT;
        rc = OK;
    }
    return rc;
}

static void add_pair(json_t *list, const char *path, json_t *a, json_t *b)
{
    (void)json_array_append_new(list, json_pack("{s:s, s:o, s:o}", "path", path, "old",
                                                a ? json_incref(a) : json_null(), "new",
                                                b ? json_incref(b) : json_null()));
}

static void diff_maps(json_t *list, const char *prefix, json_t *a, json_t *b, const char *member)
{
    const char *key;
    json_t *value;
    char path[256];

    json_object_foreach(a, key, value)
    {
        json_t *x = member ? json_object_get(value, member) : value,
               *other = json_object_get(b, key),
               *y = member ? json_object_get(other, member) : other;

        (void)snprintf(path, sizeof(path), "%s.%s", prefix, key);
        if (!y || !json_equal(x, y))
            add_pair(list, path, x, y);
    }
    json_object_foreach(b, key, value) if (!json_object_get(a, key))
    {
        (void)snprintf(path, sizeof(path), "%s.%s", prefix, key);
        add_pair(list, path, NULL, member ? json_object_get(value, member) : value);
    }
}

static json_t *borrow(const json_t *v) /* jansson's readers take no const */
{
    json_t *plain;

    memcpy(&plain, &v, sizeof(plain));
    return plain;
}

/* Everything that differs in a task, as action_diff's list with outputs and metrics added. */
static enum err_code diff_task(struct sides *s, const struct run_task *a, const struct run_task *b,
                               json_t **out, struct err *err)
{
    const bool keys_differ = a && b && !digest_eq(&a->key, &b->key) &&
                             (digest_is_zero(&a->result) || !digest_eq(&a->result, &b->result));
    json_t *actions[2] = {0}, *metrics[2] = {0};
    enum err_code rc = OK;

    *out = json_array();
    if (keys_differ) {
        rc = read_action(s->st, a, &actions[0], err);
        if (!rc)
            rc = read_action(s->st, b, &actions[1], err);
        if (!rc && actions[0] && actions[1]) {
            json_decref(*out);
            rc = action_diff(actions[0], actions[1], out, err);
        }
    }
    if (!rc)
        rc = read_metrics(s->st, a, &metrics[0], err);
    if (!rc)
        rc = read_metrics(s->st, b, &metrics[1], err);
    if (!rc && a && b && a->outputs && b->outputs) { /* of equal actions nothing else is known */
        diff_maps(*out, "outputs", borrow(a->outputs), borrow(b->outputs), "digest");
        diff_maps(*out, "metrics", metrics[0], metrics[1], NULL);
    }
    for (int i = 0; i < 2; i++) {
        json_decref(actions[i]);
        json_decref(metrics[i]);
    }
    return rc;
}

/* ---- lines -------------------------------------------------------------------------------------- */

static void put_end(struct buf *out, const struct run_task *t)
{
    char time[24] = "";

    if (!t) {
        buf_str(out, "(not in it)");
        return;
    }
    buf_str(out, t->state ? t->state : "?");
    if (t->wall_ms > 0) {
        cli_time_text(t->wall_ms, time);
        buf_printf(out, " %s", time);
    }
}

static void put_task(struct sides *s, const char *name, const struct run_task *a,
                     const struct run_task *b, const json_t *diffs)
{
    cli_escape(&s->out, name, strlen(name));
    buf_str(&s->out, "   ");
    put_end(&s->out, a);
    buf_str(&s->out, " | ");
    put_end(&s->out, b);
    buf_char(&s->out, '\n');
    for (size_t i = 0; i < json_array_size(diffs); i++) {
        const json_t *d = json_array_get(diffs, i);
        const char *path = json_string_value(json_object_get(d, "path"));

        buf_str(&s->out, "   ");
        cli_escape(&s->out, path, strlen(path));
        buf_str(&s->out, "   ");
        explanation_value(json_object_get(d, "old"), &s->out);
        buf_str(&s->out, " | ");
        explanation_value(json_object_get(d, "new"), &s->out);
        buf_char(&s->out, '\n');
    }
}

static json_t *end_json(const struct run_task *t)
{
    return t ? json_pack("{s:s, s:I}", "state", t->state ? t->state : "?", "wall_ms",
                         (json_int_t)t->wall_ms)
             : json_null();
}

/* A result holds its action: equal results are of equal tasks. */
static bool same_task(const struct run_task *a, const struct run_task *b)
{
    if (!a || !b)
        return false;
    if (!digest_is_zero(&a->result) && digest_eq(&a->result, &b->result))
        return true;
    return !digest_is_zero(&a->key) && digest_eq(&a->key, &b->key);
}

static enum err_code one(struct sides *s, const char *name, const struct run_task *a,
                         const struct run_task *b, struct err *err)
{
    json_t *diffs = NULL;
    enum err_code rc = diff_task(s, a, b, &diffs, err);
    const bool same = !rc && same_task(a, b) && json_array_size(diffs) == 0;

    s->equal += same;
    s->differ += !same;
    if (!rc && s->c->json)
        rc = cli_json(json_pack("{s:s, s:o, s:o, s:b, s:O}", "task", name, "old", end_json(a),
                                "new", end_json(b), "equal", same, "differs", diffs),
                      err);
    else if (!rc && !same)
        put_task(s, name, a, b, diffs);
    json_decref(diffs);
    return rc;
}

static void put_run(struct buf *out, const struct run_view *v)
{
    const json_t *git = json_object_get(v->begin, "git");
    const char *commit = json_string_value(json_object_get(git, "commit"));

    buf_printf(out, "run-%lld %s", (long long)v->row.run,
               v->row.state < RUN_STATE_COUNT ? run_state_words[v->row.state] : "?");
    if (commit)
        buf_printf(out, ", commit %.12s%s", commit,
                   json_is_true(json_object_get(git, "dirty")) ? " with changes" : "");
}

/* ---- tasks that were known at the start have no events: the run's tree tells their results ----------- */

static enum err_code read_tree(struct store *st, const struct digest *id, struct tree *out,
                               struct err *err)
{
    struct buf text = {0};
    enum err_code rc;

    buf_init(&text, TREE_BYTES_MAX);
    rc = object_read(st, id, TREE_BYTES_MAX, &text, err);
    if (!rc)
        rc = tree_decode(text.p, text.n, -1, "tasks of a run", out, err);
    buf_release(&text);
    return rc;
}

static enum err_code read_kept(struct sides *s, int side, struct err *err)
{
    char name[64];
    struct digest d;
    enum obj_kind kind;
    enum err_code rc;

    (void)snprintf(name, sizeof(name), "runs/run-%lld:tasks", (long long)s->v[side]->row.run);
    rc = store_resolve(s->st, str_of(name), &d, &kind, err);
    if (!rc && kind == OBJ_TREE)
        rc = read_tree(s->st, &d, &s->kept[side], err);
    if (rc != ERR_NOT_FOUND)
        return rc;
    *err = (struct err)ERR_INIT; /* a run that did not end well has none */
    return OK;
}

/* From events, else from the tree: its key is the digest of the action in its result. */
static bool same_result(const struct sides *s, const char *name)
{
    const struct run_task *a = run_view_task(s->v[0], name), *b = run_view_task(s->v[1], name);

    return a && b && !digest_is_zero(&a->result) && digest_eq(&a->result, &b->result) &&
           digest_is_zero(&a->key) && digest_is_zero(&b->key);
}

static enum err_code find_task(struct sides *s, int side, const char *name, struct run_task *own,
                               const struct run_task **out, struct err *err)
{
    const struct tree_entry *e;
    struct tree result = {0};
    struct buf escaped;
    enum err_code rc = OK;

    *out = run_view_task(s->v[side], name);
    if (*out && (!digest_is_zero(&(*out)->key) || digest_is_zero(&(*out)->result)))
        return OK;
    if (*out) {
        *own = **out;
    } else {
        buf_init(&escaped, 1 << 16);
        rc = record_name_escape(name, &escaped, err);
        e = rc ? NULL : tree_find(&s->kept[side], (struct str){escaped.p, escaped.n});
        buf_release(&escaped);
        if (!e)
            return rc;
        *own = (struct run_task){.name = name, .state = "cached", .result = e->digest};
    }
    rc = read_tree(s->st, &own->result, &result, err);
    e = rc ? NULL : tree_find(&result, STR("action.json"));
    if (e)
        own->key = e->digest;
    tree_release(&result);
    *out = own;
    return rc;
}

static enum err_code pair(struct sides *s, const char *name, struct err *err)
{
    struct run_task own[2];
    const struct run_task *t[2] = {NULL, NULL};
    enum err_code rc;

    if (!s->c->json && same_result(s, name)) { /* both cached: nothing to read */
        s->equal++;
        return OK;
    }
    rc = find_task(s, 0, name, &own[0], &t[0], err);

    if (!rc)
        rc = find_task(s, 1, name, &own[1], &t[1], err);
    return rc ? rc : one(s, name, t[0], t[1], err);
}

/* What only trees know, and both alike, is only counted. */
static enum err_code kept_pairs(struct sides *s, int side, struct err *err)
{
    const struct tree *mine = &s->kept[side], *other = &s->kept[!side];
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < mine->count; i++) {
        const struct tree_entry *e = &mine->entries[i], *o = tree_find(other, e->name);
        char *name = mem_strndup(e->name.p, e->name.n), *to = name;

        for (const char *from = name; *from; from++) /* %2F and %25 */
            if (strncmp(from, "%2F", 3) == 0 || strncmp(from, "%25", 3) == 0) {
                *to++ = from[2] == 'F' ? '/' : '%';
                from += 2;
            } else {
                *to++ = *from;
            }
        *to = '\0';
        if (!run_view_task(s->v[0], name) && !run_view_task(s->v[1], name) && !(side && o)) {
            if (o && digest_eq(&o->digest, &e->digest))
                s->equal++;
            else
                rc = pair(s, name, err);
        }
        free(name);
    }
    return rc;
}

static enum err_code all_tasks(struct sides *s, struct err *err)
{
    const struct run_view *a = s->v[0], *b = s->v[1];
    enum err_code rc = OK;

    for (int side = 0; !rc && side < 2; side++)
        rc = read_kept(s, side, err);
    for (size_t i = 0; !rc && i < a->task_count; i++)
        rc = pair(s, a->tasks[i].name, err);
    for (size_t i = 0; !rc && i < b->task_count; i++)
        if (!run_view_task(a, b->tasks[i].name))
            rc = pair(s, b->tasks[i].name, err);
    for (int side = 0; !rc && side < 2; side++)
        rc = kept_pairs(s, side, err);
    return rc;
}

static enum err_code diff_run(struct cli *c, struct err *err)
{
    struct sides s = {.c = c};
    enum err_code rc = cli_open(c, STORE_READ, &s.st, err);

    buf_init(&s.out, (size_t)1 << 30);
    if (!rc)
        rc = cli_read_ledger(s.st, &s.l, err);
    for (int i = 0; !rc && i < 2; i++) {
        int64_t run;

        rc = run_number(s.st, s.l, c->args[i], &run, err);
        if (!rc)
            rc = run_view_load(s.st, s.l, run, &s.v[i], err);
    }
    if (!rc) {
        put_run(&s.out, s.v[0]);
        buf_str(&s.out, " | ");
        put_run(&s.out, s.v[1]);
        buf_char(&s.out, '\n');
        rc = all_tasks(&s, err);
    }
    if (!rc && !c->json) {
        buf_printf(&s.out, "%zu task%s differ%s, %zu equal\n", s.differ, s.differ == 1 ? "" : "s",
                   s.differ == 1 ? "s" : "", s.equal);
        rc = cli_write(s.out.p, s.out.n, err);
    }
    tree_release(&s.kept[0]);
    tree_release(&s.kept[1]);
    run_view_free(s.v[0]);
    run_view_free(s.v[1]);
    buf_release(&s.out);
    ledger_close(s.l);
    store_close(s.st);
    return rc;
}

const struct cli_command cli_diff = {
    .name = "diff",
    .args = "RUN RUN",
    .args_min = 2,
    .args_max = 2,
    .summary = "two runs side by side: params, code, inputs, outputs, metrics, durations",
    .text =
        "RUN is run-41, 41, last or @tag.  Tasks that are equal in everything are only counted.",
    .example = "weir diff run-41 run-42\nweir diff @exp-12 last --json",
    .json =
        "a line for each task: {\"differs\":[{\"new\":2e-4,\"old\":1e-4,\"path\":\"params.lr\"}],"
        "\"equal\":false,\n"
        "\"new\":{\"state\":\"done\",\"wall_ms\":12}|null,\"old\":{...}|null,\"task\":\"sft["
        "variant="
        "realism]\"}",
    .run = diff_run,
};
