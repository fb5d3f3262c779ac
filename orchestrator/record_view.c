/* record_view.c - the fold of one run's events. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "orchestrator/record.h"
#include "store/reader.h"
#include "store/tree.h"

/* The words of sched_state_words. */
#define WAITING "waiting"
#define CACHED "cached"
#define RUNNING "running"
#define SHARED "shared"
#define DONE "done"
#define FAILED "failed"
#define STOPPED "stopped"
#define SKIPPED "skipped"
#define BLOCKED "blocked"
#define LEFT_OUT "unselected"

struct fold {
    struct run_view v; /* first: what callers hold */
    struct arena arena;
    size_t cap;
    uint32_t *slots; /* open addressing by name: index of the task + 1 */
    size_t slot_count;
    json_t **held;
    size_t held_count, held_cap;
    struct store *st;
    const json_t *body; /* the event at hand */
    int64_t now_ns;
};

/* ---- tasks by name ---- */

static size_t slot_of(const struct fold *f, const char *name)
{
    size_t at = crc32c(0, name, strlen(name)) & (f->slot_count - 1);

    while (f->slots[at] && strcmp(f->v.tasks[f->slots[at] - 1].name, name) != 0)
        at = (at + 1) & (f->slot_count - 1);
    return at;
}

static void grow_slots(struct fold *f)
{
    free(f->slots);
    f->slot_count = f->slot_count ? 4 * f->slot_count : 64;
    f->slots = mem_zero(f->slot_count, sizeof(*f->slots));
    for (size_t i = 0; i < f->v.task_count; i++)
        f->slots[slot_of(f, f->v.tasks[i].name)] = (uint32_t)i + 1;
}

/* The task of that name, made when it was not known. */
static struct run_task *task_of(struct fold *f, const char *name)
{
    size_t at;

    if (2 * (f->v.task_count + 1) > f->slot_count)
        grow_slots(f);
    at = slot_of(f, name);
    if (f->slots[at])
        return &f->v.tasks[f->slots[at] - 1];
    if (f->v.task_count == f->cap) {
        f->cap = f->cap ? 2 * f->cap : 64;
        f->v.tasks = mem_grow(f->v.tasks, f->cap, sizeof(*f->v.tasks));
    }
    f->v.tasks[f->v.task_count] =
        (struct run_task){.name = arena_strdup(&f->arena, name), .state = WAITING};
    f->slots[at] = (uint32_t)++f->v.task_count;
    return &f->v.tasks[f->v.task_count - 1];
}

const struct run_task *run_view_task(const struct run_view *v, const char *name)
{
    const struct fold *f = (const struct fold *)v;

    if (f->slot_count == 0)
        return NULL;
    const size_t at = slot_of(f, name);
    return f->slots[at] ? &v->tasks[f->slots[at] - 1] : NULL;
}

/* ---- fields: an event without one is as good as it can be ---- */

static const char *text_of(const struct fold *f, const char *key)
{
    return json_string_value(json_object_get(f->body, key));
}

static int64_t number_of(const struct fold *f, const char *key)
{
    return json_integer_value(json_object_get(f->body, key));
}

static void digest_field(const struct fold *f, const char *key, struct digest *out)
{
    struct err ignored = ERR_INIT;
    const char *text = text_of(f, key);
    struct digest d;

    if (text && digest_parse(text, strlen(text), &d, &ignored) == OK)
        *out = d;
}

static const char *reason_of(struct fold *f)
{
    const char *text = text_of(f, "reason");

    return text && *text ? arena_strdup(&f->arena, text) : NULL;
}

static json_t *hold(struct fold *f, json_t *v)
{
    if (!v)
        return NULL;
    if (f->held_count == f->held_cap) {
        f->held_cap = f->held_cap ? 2 * f->held_cap : 16;
        f->held = mem_grow(f->held, f->held_cap, sizeof(json_t *));
    }
    return f->held[f->held_count++] = json_incref(v);
}

/* ---- events ---- */

static void unescape(const struct tree_entry *e, char *out)
{
    size_t n = 0;

    for (size_t i = 0; i < e->name.n; i++, n++) {
        const char *p = e->name.p + i;
        const bool slash = e->name.n - i >= 3 && memcmp(p, "%2F", 3) == 0;

        out[n] = (char)(slash ? '/' : *p); /* %25 is %: its own first byte */
        if (slash || (e->name.n - i >= 3 && memcmp(p, "%25", 3) == 0))
            i += 2;
    }
    out[n] = '\0';
}

/* Tasks of a tree {TASK: result} of which no event has told: they had a result when the run began.  The tree may have left the store: then
 * they stay unknown. */
static enum err_code fold_results(struct fold *f, const struct digest *id, struct err *err)
{
    struct tree tree = {0};
    struct err missing = ERR_INIT;
    struct buf text;
    enum err_code rc;

    if (digest_is_zero(id) || !f->st)
        return OK;
    tree_init(&tree);
    buf_init(&text, TREE_BYTES_MAX);
    rc = object_read(f->st, id, TREE_BYTES_MAX, &text, &missing);
    if (rc == ERR_NOT_FOUND)
        rc = OK;
    else if (rc)
        rc = err_set(err, rc, "%s", missing.text);
    else
        rc = tree_decode(text.p, text.n, -1, "results of a run", &tree, err);
    for (size_t i = 0; i < tree.count && !rc; i++) {
        char name[TREE_NAME_MAX + 1];
        struct run_task *t;

        unescape(&tree.entries[i], name);
        t = task_of(f, name);
        if (strcmp(t->state, WAITING) == 0)
            t->state = CACHED;
        if (digest_is_zero(&t->result))
            t->result = tree.entries[i].digest;
    }
    tree_release(&tree);
    buf_release(&text);
    return rc;
}

static enum err_code fold_cached(struct fold *f, struct err *err)
{
    struct digest id = {{0}};

    f->v.known = number_of(f, "count");
    digest_field(f, "tree", &id);
    return fold_results(f, &id, err);
}

/* A run from elsewhere has no event that names its tree, since the event that does is not in it; its ref does. */
static enum err_code find_tree(struct fold *f, struct err *err)
{
    struct err missing = ERR_INIT;
    struct ref_row ref;
    char name[64];
    enum err_code rc;

    if (!f->st || !digest_is_zero(&f->v.tree))
        return OK;
    (void)snprintf(name, sizeof(name), "runs/run-%lld", (long long)f->v.row.run);
    rc = index_ref(f->st->index, str_of(name), &ref, &missing);
    if (!rc && ref.kind == OBJ_TREE)
        f->v.tree = ref.digest;
    return rc && rc != ERR_NOT_FOUND ? err_set(err, rc, "%s", missing.text) : OK;
}

/* A run that is over: what its tree holds and no event has told of, was cached. */
static enum err_code fold_rest(struct fold *f, struct err *err)
{
    struct tree top = {0};
    struct err missing = ERR_INIT;
    const struct tree_entry *tasks = NULL;
    struct buf text;
    enum err_code rc;

    if (digest_is_zero(&f->v.tree) || !f->st)
        return OK;
    buf_init(&text, TREE_BYTES_MAX);
    rc = object_read(f->st, &f->v.tree, TREE_BYTES_MAX, &text, &missing);
    if (rc == ERR_NOT_FOUND)
        rc = OK; /* removed, but its events are still here */
    else if (rc)
        rc = err_set(err, rc, "%s", missing.text);
    else
        rc = tree_decode(text.p, text.n, 0, "tree of a run", &top, err);
    if (!rc)
        tasks = tree_find(&top, STR("tasks"));
    if (!rc && tasks && tasks->mode == TREE_DIR)
        rc = fold_results(f, &tasks->digest, err);
    tree_release(&top);
    buf_release(&text);
    return rc;
}

static void fold_begin(struct fold *f)
{
    const json_t *names = json_object_get(f->body, "tasks");

    if (f->v.begin)
        return;
    f->v.begin = json_incref((json_t *)(uintptr_t)f->body);
    for (size_t i = 0; i < json_array_size(names); i++)
        if (json_is_string(json_array_get(names, i)))
            (void)task_of(f, json_string_value(json_array_get(names, i)));
    names = json_object_get(f->body, "left_out");
    for (size_t i = 0; i < json_array_size(names); i++)
        if (json_is_string(json_array_get(names, i)))
            task_of(f, json_string_value(json_array_get(names, i)))->state = LEFT_OUT;
}

static void fold_start(struct fold *f, struct run_task *t)
{
    const char *dir = text_of(f, "dir");

    t->state = RUNNING;
    t->attempt = (int)number_of(f, "attempt");
    t->started_ns = f->now_ns;
    t->ended_ns = 0;
    t->dir = dir ? arena_strdup(&f->arena, dir) : NULL;
    t->reason = NULL;
    digest_field(f, "key", &t->key);
}

static void fold_end(struct fold *f, struct run_task *t)
{
    const char *status = text_of(f, "status");
    const int attempt = (int)number_of(f, "attempt");

    if (attempt < t->attempt) /* of an attempt that was given up before */
        return;
    t->attempt = attempt;
    t->state = FAILED;
    if (status && strcmp(status, "done") == 0)
        t->state = DONE;
    else if (status && strcmp(status, "stopped") == 0)
        t->state = STOPPED;
    t->ended_ns = f->now_ns;
    t->wall_ms = number_of(f, "wall_ms");
    t->dir = NULL;
    t->reason = reason_of(f);
    t->log = t->events = (struct digest){{0}};
    digest_field(f, "key", &t->key);
    digest_field(f, "result", &t->result);
    digest_field(f, "log", &t->log);
    digest_field(f, "events", &t->events);
    t->outputs = hold(f, json_object_get(f->body, "outputs"));
}

static void fold_task(struct fold *f, const char *what, const char *name)
{
    struct run_task *t = task_of(f, name);

    if (strcmp(what, "start") == 0) {
        fold_start(f, t);
        return;
    }
    if (strcmp(what, "end") == 0) {
        fold_end(f, t);
        return;
    }
    if (strcmp(what, "cached") == 0)
        t->state = CACHED;
    else if (strcmp(what, "skip") == 0)
        t->state = SKIPPED;
    else if (strcmp(what, "block") == 0)
        t->state = BLOCKED;
    else if (strcmp(what, "shared") == 0)
        t->state = SHARED;
    else if (strcmp(what, "refused") == 0)
        t->state = FAILED;
    t->reason = reason_of(f);
    if (!t->reason && text_of(f, "by"))
        t->reason = arena_strdup(&f->arena, text_of(f, "by"));
    digest_field(f, "key", &t->key);
    digest_field(f, "result", &t->result);
}

static enum err_code fold_event(void *arg, int64_t seq, const json_t *body, struct err *err)
{
    struct fold *f = arg;
    struct err ignored = ERR_INIT;
    const char *event, *task, *time;

    (void)seq;
    f->body = body;
    event = text_of(f, "event");
    task = text_of(f, "task");
    time = text_of(f, "time");
    if (!time || record_time_parse(time, &f->now_ns, &ignored) != OK)
        f->now_ns = 0;
    if (strcmp(event, "run.begin") == 0)
        fold_begin(f);
    else if (strcmp(event, "run.cached") == 0)
        return fold_cached(f, err);
    else if (strcmp(event, "run.end") == 0)
        digest_field(f, "tree", &f->v.tree);
    else if (strncmp(event, "task.", 5) == 0 && task)
        fold_task(f, event + 5, task);
    return OK;
}

/* ---- load ---- */

static enum err_code fold_tree(struct fold *f, int64_t run, struct err *err)
{
    struct buf events;
    struct digest last;
    char name[64];
    struct ref_row ref;
    enum err_code rc = run_from_tree(f->st, run, &f->v.row, &events, err);

    if (!rc)
        rc = ledger_text(events.p ? events.p : "", events.n, run, fold_event, f, &last, NULL, err);
    if (!rc && !digest_eq(&last, &f->v.row.last))
        rc = err_set(err, ERR_DAMAGED, "run-%lld: its events end otherwise than run.json says",
                     (long long)run);
    buf_release(&events);
    if (rc)
        return rc;
    (void)snprintf(name, sizeof(name), "runs/run-%lld", (long long)run);
    rc = index_ref(f->st->index, str_of(name), &ref, err);
    if (!rc)
        f->v.tree = ref.digest;
    return rc;
}

enum err_code run_view_load(struct store *st, struct ledger *l, int64_t run, struct run_view **out,
                            struct err *err)
{
    struct fold *f = mem_zero(1, sizeof(*f));
    enum err_code rc = ERR_NOT_FOUND;

    *out = NULL;
    arena_init(&f->arena);
    f->v.arena = &f->arena;
    f->st = st;
    if (l)
        rc = ledger_get_run(l, run, &f->v.row, err);
    if (!rc) {
        rc = ledger_replay(l, run, 0, fold_event, f, err);
    } else if (rc == ERR_NOT_FOUND && st) {
        *err = (struct err)ERR_INIT;
        rc = fold_tree(f, run, err);
    } else if (!err->code) {
        rc = err_set(err, rc, "run-%lld: neither a ledger nor a store to look in", (long long)run);
    }
    if (rc) {
        run_view_free(&f->v);
        return rc;
    }
    if (f->v.row.state != RUN_RUNNING)
        rc = find_tree(f, err);
    if (!rc && f->v.row.state != RUN_RUNNING)
        rc = fold_rest(f, err);
    if (rc) {
        run_view_free(&f->v);
        return rc;
    }
    /* What ran when the run was over, runs no more. */
    for (size_t i = 0; i < f->v.task_count && f->v.row.state != RUN_RUNNING; i++)
        if (strcmp(f->v.tasks[i].state, RUNNING) == 0)
            f->v.tasks[i].state = STOPPED;
    *out = &f->v;
    return OK;
}

/* ---- what a result says ---- */

/* {"NAME":{"digest","kind","size"}}, as task.end tells outputs. */
static enum err_code outputs_of(struct fold *f, const struct digest *id, struct run_task *t,
                                struct err *err)
{
    struct tree out = {0};
    struct buf text;
    json_t *list = json_object();
    enum err_code rc;

    buf_init(&text, TREE_BYTES_MAX);
    rc = object_read(f->st, id, TREE_BYTES_MAX, &text, err);
    if (!rc)
        rc = tree_decode(text.p, text.n, -1, "outputs of a result", &out, err);
    for (size_t i = 0; !rc && i < out.count; i++) {
        const struct tree_entry *e = &out.entries[i];
        char hex[DIGEST_TEXT + 1];

        digest_text(&e->digest, hex);
        json_object_setn_new(list, e->name.p, e->name.n,
                             json_pack("{s:s, s:s, s:I}", "digest", hex, "kind",
                                       e->mode == TREE_DIR ? "tree" : "blob", "size",
                                       (json_int_t)e->size));
    }
    if (!rc)
        t->outputs = hold(f, list);
    json_decref(list);
    tree_release(&out);
    buf_release(&text);
    return rc;
}

enum err_code run_view_result(struct run_view *v, const struct run_task *of, struct err *err)
{
    struct fold *f = (struct fold *)v;
    struct run_task *t = &v->tasks[of - v->tasks];
    const struct tree_entry *action, *out;
    struct err missing = ERR_INIT;
    struct tree result = {0};
    struct buf text;
    enum err_code rc;

    if (digest_is_zero(&t->result) || (t->outputs && !digest_is_zero(&t->key)) || !f->st)
        return OK;
    buf_init(&text, TREE_BYTES_MAX);
    rc = object_read(f->st, &t->result, TREE_BYTES_MAX, &text, &missing);
    if (!rc)
        rc = tree_decode(text.p, text.n, 0, "result of a task", &result, &missing);
    action = rc ? NULL : tree_find(&result, STR("action.json"));
    out = rc ? NULL : tree_find(&result, STR("out"));
    if (action)
        t->key = action->digest; /* an action's key is the id of its text */
    if (out && out->mode == TREE_DIR && !t->outputs)
        rc = outputs_of(f, &out->digest, t, &missing);
    tree_release(&result);
    buf_release(&text);
    return rc && rc != ERR_NOT_FOUND ? err_set(err, rc, "%s", missing.text) : OK;
}

void run_view_free(struct run_view *v)
{
    struct fold *f = (struct fold *)v;

    if (!v)
        return;
    for (size_t i = 0; i < f->held_count; i++)
        json_decref(f->held[i]);
    json_decref(v->begin);
    arena_release(&f->arena);
    free(f->held);
    free(f->slots);
    free(v->tasks);
    free(f);
}
