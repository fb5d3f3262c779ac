/* record.c - the record of a task, what runs are called, run.json. */
#include "orchestrator/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/reader.h"
#include "store/tree.h"

#define RECORD_BYTES_MAX (32 << 20)
#define EVENTS_BYTES_MAX ((int64_t)1 << 31)
#define INTEGER_MAX ((int64_t)1 << 53)

/* ---- names, times ---- */

enum err_code record_name_escape(const char *task, struct buf *out, struct err *err)
{
    for (const char *p = task; *p; p++) {
        if (*p == '/')
            buf_add(out, "%2F", 3);
        else if (*p == '%')
            buf_add(out, "%25", 3);
        else
            buf_char(out, *p);
    }
    return buf_check(out, "a task's name", err);
}

static bool digits(const char *p, size_t n, int *out)
{
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        *out = 10 * *out + (p[i] - '0');
    }
    return true;
}

enum err_code record_time_parse(const char *text, int64_t *ns, struct err *err)
{
    static const char form[] = "0000-00-00T00:00:00.000Z";
    struct tm tm = {0};
    int year, month, ms;
    bool good = strlen(text) == sizeof(form) - 1;

    *ns = 0;
    for (size_t i = 0; good && i < sizeof(form) - 1; i++)
        good = form[i] == '0' ? text[i] >= '0' && text[i] <= '9' : text[i] == form[i];
    good = good && digits(text, 4, &year) && digits(text + 5, 2, &month) &&
           digits(text + 8, 2, &tm.tm_mday) && digits(text + 11, 2, &tm.tm_hour) &&
           digits(text + 14, 2, &tm.tm_min) && digits(text + 17, 2, &tm.tm_sec) &&
           digits(text + 20, 3, &ms);
    if (!good || year < 1970 || year > 2200 || month < 1 || month > 12 || tm.tm_mday < 1 ||
        tm.tm_mday > 31 || tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
        return err_set(err, ERR_INPUT, "\"%.40s\" is no time like 2026-01-02T03:04:05.678Z", text);
    tm.tm_year = year - 1900;
    tm.tm_mon = month - 1;
    *ns = ((int64_t)timegm(&tm) * 1000 + ms) * 1000000;
    return OK;
}

static json_t *time_json(int64_t ns)
{
    const time_t second = (time_t)(ns / 1000000000);
    char text[40];
    struct tm tm;
    size_t n;

    if (ns <= 0)
        return json_null();
    CHECK(gmtime_r(&second, &tm));
    n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(text + n, sizeof(text) - n, ".%03dZ", (int)(ns / 1000000 % 1000));
    return json_string(text);
}

static json_t *digest_json(const struct digest *d)
{
    char text[DIGEST_TEXT + 1];

    digest_text(d, text);
    return json_string(text);
}

/* A member that is a digest, or missing: zero. */
static enum err_code get_digest(const json_t *o, const char *key, struct digest *out,
                                struct err *err)
{
    const char *text = json_string_value(json_object_get(o, key));

    *out = (struct digest){{0}};
    if (!text)
        return OK;
    return digest_parse(text, strlen(text), out, err) ? err_prefix(err, "\"%s\"", key) : OK;
}

/* ---- the record of a task ---- */

static void record_key(const char *pipeline, const char *task, struct buf *key)
{
    buf_init(key, 1 << 20);
    buf_str(key, pipeline);
    buf_char(key, '\0');
    buf_str(key, task);
}

static enum err_code record_parse(const struct buf *text, struct task_record *out, struct err *err)
{
    json_t *wall;
    enum err_code rc =
        json_parse(text->p, text->n, RECORD_BYTES_MAX, "task record", &out->root, err);

    if (!rc)
        rc = json_get_i64(out->root, "run", 0, INTEGER_MAX, "task record", &out->run, err);
    if (!rc)
        rc = json_get_i64(out->root, "attempt", 0, INTEGER_MAX, "task record", &out->attempt, err);
    if (!rc)
        rc = json_get_string(out->root, "status", "task record", &out->status, err);
    if (!rc)
        rc = get_digest(out->root, "key", &out->key, err);
    if (!rc)
        rc = get_digest(out->root, "result", &out->result, err);
    if (rc)
        return rc;
    wall = json_object_get(out->root, "wall_ms");
    out->wall_ms = json_integer_value(json_array_get(wall, 0));
    out->mean_ms = json_integer_value(json_array_get(wall, 1));
    out->action = json_object_get(out->root, "action");
    return OK;
}

enum err_code task_record_get(struct ledger *l, const char *pipeline, const char *task,
                              struct task_record *out, struct err *err)
{
    struct buf key, text;
    enum err_code rc;

    *out = (struct task_record){0};
    buf_init(&text, RECORD_BYTES_MAX);
    record_key(pipeline, task, &key);
    rc = buf_check(&key, "a task's name", err);
    if (!rc)
        rc = ledger_view_get(l, VIEW_TASK, key.p, key.n, &text, err);
    if (!rc)
        rc = record_parse(&text, out, err);
    buf_release(&key);
    buf_release(&text);
    if (!rc)
        return OK;
    task_record_release(out);
    return err_prefix(err, "record of %s in %s", task, pipeline);
}

static void member_digest(struct buf *out, const char *name, const struct digest *d)
{
    char text[DIGEST_TEXT + 1];

    if (digest_is_zero(d))
        return;
    digest_text(d, text);
    buf_printf(out, "\"%s\":\"%s\",", name, text);
}

/* Members sorted by name, so that it is canonical. */
void task_record_set(struct ledger *l, const char *pipeline, const char *task,
                     const struct task_record *r)
{
    struct err ignored = ERR_INIT;
    struct buf key, text;
    size_t before;

    buf_init(&text, RECORD_BYTES_MAX);
    record_key(pipeline, task, &key);
    buf_str(&text, "{\"action\":");
    before = text.n;
    /* An action that could not be written was never an action; the record is as good without. */
    if (!r->action || json_canonical(r->action, &text, &ignored) != OK) {
        buf_clear(&text);
        buf_str(&text, "{");
    } else {
        CHECK(text.n > before);
        buf_char(&text, ',');
    }
    buf_printf(&text, "\"attempt\":%lld,", (long long)r->attempt);
    member_digest(&text, "key", &r->key);
    member_digest(&text, "result", &r->result);
    buf_printf(&text, "\"run\":%lld,\"status\":", (long long)r->run);
    json_canonical_string(&text, r->status, strlen(r->status));
    buf_printf(&text, ",\"wall_ms\":[%lld,%lld]}", (long long)r->wall_ms, (long long)r->mean_ms);
    if (!key.failed && !text.failed)
        ledger_view_set(l, VIEW_TASK, key.p, key.n, text.p, text.n);
    buf_release(&key);
    buf_release(&text);
}

void task_record_release(struct task_record *r)
{
    json_decref(r->root);
    *r = (struct task_record){0};
}

/* ---- run.json ---- */

/* A name that is not UTF-8 is written as names of files are. */
static json_t *name_json(const char *name)
{
    json_t *v = json_string(name);
    struct buf text;

    if (v)
        return v;
    buf_init(&text, 4096);
    json_name_escape(&text, name, strlen(name));
    v = json_string(text.p);
    buf_release(&text);
    return v;
}

json_t *run_row_json(const struct ledger_run *row)
{
    json_t *o = json_object(), *counts = json_object();
    int bad = 0;

    CHECK(o);
    CHECK(counts);
    bad |= json_object_set_new(counts, "tasks", json_integer(row->tasks));
    bad |= json_object_set_new(counts, "cached", json_integer(row->cached));
    bad |= json_object_set_new(counts, "ran", json_integer(row->ran));
    bad |= json_object_set_new(counts, "failed", json_integer(row->failed));
    bad |= json_object_set_new(counts, "skipped", json_integer(row->skipped));
    bad |= json_object_set_new(counts, "blocked", json_integer(row->blocked));
    bad |= json_object_set_new(o, "counts", counts);
    bad |= json_object_set_new(o, "weir", json_string("run/1"));
    bad |= json_object_set_new(o, "run", json_integer(row->run));
    bad |= json_object_set_new(o, "state", json_string(run_state_words[row->state]));
    bad |= json_object_set_new(o, "begun", time_json(row->begun_ns));
    bad |= json_object_set_new(o, "ended", time_json(row->ended_ns));
    bad |= json_object_set_new(o, "events", json_integer(row->events));
    bad |= json_object_set_new(o, "last", digest_json(&row->last));
    bad |= json_object_set_new(o, "options", digest_json(&row->options));
    bad |= json_object_set_new(o, "pipeline", name_json(row->pipeline));
    CHECK(bad == 0);
    return o;
}

static enum err_code get_time(const json_t *o, const char *key, int64_t *out, struct err *err)
{
    const json_t *v = json_object_get(o, key);

    *out = 0;
    return json_is_string(v) ? record_time_parse(json_string_value(v), out, err) : OK;
}

static enum err_code get_counts(const json_t *o, struct ledger_run *out, struct err *err)
{
    static const char *const names[] = {"tasks", "cached", "ran", "failed", "skipped", "blocked"};
    int64_t *const into[] = {&out->tasks,  &out->cached,  &out->ran,
                             &out->failed, &out->skipped, &out->blocked};
    const json_t *counts = json_object_get(o, "counts");
    enum err_code rc = OK;

    for (size_t i = 0; i < 6 && !rc; i++)
        rc = json_get_i64(counts, names[i], 0, INTEGER_MAX, "run.json: counts", into[i], err);
    return rc;
}

static enum err_code get_row(const json_t *o, struct ledger_run *out, struct err *err)
{
    const char *state, *pipeline, *weir;
    enum err_code rc = json_get_string(o, "weir", "run.json", &weir, err);

    if (!rc && strcmp(weir, "run/1") != 0)
        rc = err_set(err, ERR_VERSION, "run.json: \"%.40s\" is not run/1", weir);
    if (!rc)
        rc = json_get_i64(o, "run", 1, INTEGER_MAX - 1, "run.json", &out->run, err);
    if (!rc)
        rc = json_get_i64(o, "events", 0, INTEGER_MAX, "run.json", &out->events, err);
    if (!rc)
        rc = json_get_string(o, "state", "run.json", &state, err);
    if (!rc)
        rc = json_get_string(o, "pipeline", "run.json", &pipeline, err);
    if (!rc)
        rc = get_counts(o, out, err);
    if (!rc)
        rc = get_time(o, "begun", &out->begun_ns, err);
    if (!rc)
        rc = get_time(o, "ended", &out->ended_ns, err);
    if (!rc)
        rc = get_digest(o, "last", &out->last, err);
    if (!rc)
        rc = get_digest(o, "options", &out->options, err);
    if (rc)
        return rc;
    while (out->state < RUN_STATE_COUNT && strcmp(run_state_words[out->state], state) != 0)
        out->state++;
    if (out->state == RUN_STATE_COUNT)
        return err_set(err, ERR_INPUT, "run.json: unknown state \"%.40s\"", state);
    ledger_name_cut(pipeline, out->pipeline);
    return OK;
}

enum err_code run_row_parse(const char *text, size_t n, struct ledger_run *out, struct err *err)
{
    json_t *o = NULL;
    enum err_code rc = json_parse(text, n, 1 << 20, "run.json", &o, err);

    *out = (struct ledger_run){0};
    if (!rc)
        rc = get_row(o, out, err);
    json_decref(o);
    return rc;
}

/* ---- the tree of a run ---- */

static enum err_code run_ref(struct store *st, int64_t run, struct ref_row *out, struct err *err)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "runs/run-%lld", (long long)run);
    const enum err_code rc = index_ref(st->index, str_of(name), out, err);
    if (rc == ERR_NOT_FOUND || (!rc && out->kind != OBJ_TREE))
        return err_set(err, ERR_NOT_FOUND,
                       "there is no run-%lld here; weir runs lists those there are, weir pull "
                       "brings others",
                       (long long)run);
    return rc;
}

/* A blob of the tree of a run. */
static enum err_code run_blob(struct store *st, int64_t run, const char *name, struct buf *out,
                              struct err *err)
{
    const struct tree_entry *e = NULL;
    struct buf manifest;
    struct ref_row ref;
    struct tree tree = {0};
    enum err_code rc = run_ref(st, run, &ref, err);

    tree_init(&tree);
    buf_init(&manifest, TREE_BYTES_MAX);
    if (!rc)
        rc = object_read(st, &ref.digest, TREE_BYTES_MAX, &manifest, err);
    if (!rc)
        rc = tree_decode(manifest.p, manifest.n, 0, "tree of a run", &tree, err);
    if (!rc)
        e = tree_find(&tree, str_of(name));
    if (!rc && (!e || e->mode == TREE_DIR || e->mode == TREE_LINK))
        rc = err_set(err, ERR_NOT_FOUND, "run-%lld has no file %s", (long long)run, name);
    if (!rc)
        rc = object_read(st, &e->digest, (int64_t)out->max, out, err);
    tree_release(&tree);
    buf_release(&manifest);
    return rc;
}

enum err_code run_from_tree(struct store *st, int64_t run, struct ledger_run *row,
                            struct buf *events, struct err *err)
{
    struct buf text;
    enum err_code rc;

    buf_init(&text, 1 << 20);
    buf_init(events, (size_t)EVENTS_BYTES_MAX);
    rc = run_blob(st, run, "run.json", &text, err);
    if (!rc)
        rc = run_row_parse(text.p ? text.p : "", text.n, row, err);
    if (!rc && row->run != run)
        rc = err_set(err, ERR_DAMAGED, "its run.json speaks of run-%lld", (long long)row->run);
    if (!rc)
        rc = run_blob(st, run, "events", events, err);
    buf_release(&text);
    return rc ? err_prefix(err, "run-%lld", (long long)run) : OK;
}

enum err_code run_import(struct store *st, struct ledger *l, int64_t run, struct err *err)
{
    struct ledger_run row;
    struct buf events;
    enum err_code rc = run_from_tree(st, run, &row, &events, err);

    if (!rc)
        rc = ledger_import(l, &row, events.p ? events.p : "", events.n, err);
    buf_release(&events);
    return rc;
}

/* ---- what runs are called ---- */

/* The newest ref runs/run-N, of any tree or of this one. */
static enum err_code newest_ref(struct store *st, const struct digest *tree, int64_t *run,
                                struct err *err)
{
    const size_t prefix = sizeof("runs/run-") - 1;
    struct ref_row *rows = NULL;
    size_t n = 0;
    enum err_code rc = index_refs(st->index, STR("runs/run-"), REF_LIVE, &rows, &n, err);

    *run = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        struct err ignored = ERR_INIT;
        int64_t number;

        if (tree && !digest_eq(tree, &rows[i].digest))
            continue;
        if (str_to_i64(str_of(rows[i].name + prefix), 1, INTEGER_MAX, &number, &ignored) == OK &&
            number > *run)
            *run = number;
    }
    free(rows);
    return rc;
}

static enum err_code last_run(struct store *st, struct ledger *l, int64_t *run, struct err *err)
{
    struct ledger_run *rows = NULL;
    int64_t of_refs = 0;
    size_t n = 0;
    enum err_code rc = OK;

    *run = 0;
    if (l)
        rc = ledger_list_runs(l, 1, &rows, &n, err);
    if (!rc && n == 1)
        *run = rows[0].run;
    free(rows);
    if (!rc && st)
        rc = newest_ref(st, NULL, &of_refs, err);
    if (of_refs > *run)
        *run = of_refs;
    if (!rc && *run == 0)
        rc = err_set(err, ERR_NOT_FOUND, "nothing has run here yet; weir run does");
    return rc;
}

static enum err_code tagged_run(struct store *st, const char *tag, int64_t *run, struct err *err)
{
    struct ref_row ref;
    struct buf name;
    enum err_code rc;

    if (!st)
        return err_set(err, ERR_NOT_FOUND, "@%s: tags need a store", tag);
    buf_init(&name, 512);
    buf_printf(&name, "tags/%s", tag);
    rc = buf_check(&name, "a tag", err);
    if (!rc)
        rc = index_ref(st->index, (struct str){name.p, name.n}, &ref, err);
    if (rc == ERR_NOT_FOUND)
        rc = err_set(err, rc, "there is no tag %s; weir tag RUN %s makes one", tag, tag);
    if (!rc)
        rc = newest_ref(st, &ref.digest, run, err);
    if (!rc && *run == 0)
        rc = err_set(err, ERR_NOT_FOUND, "@%s is the tag of something that is no run", tag);
    buf_release(&name);
    return rc;
}

enum err_code run_number(struct store *st, struct ledger *l, const char *what, int64_t *run,
                         struct err *err)
{
    struct err ignored = ERR_INIT;
    struct ledger_run row;
    struct ref_row ref;
    enum err_code rc = ERR_NOT_FOUND;

    if (strcmp(what, "last") == 0)
        return last_run(st, l, run, err);
    if (what[0] == '@')
        return tagged_run(st, what + 1, run, err);
    const char *number = strncmp(what, "run-", 4) == 0 ? what + 4 : what;
    if (str_to_i64(str_of(number), 1, INTEGER_MAX, run, &ignored) != OK)
        return err_set(err, ERR_INPUT,
                       "\"%.100s\" is no run; runs are called run-41, 41, last or @tag", what);
    if (l)
        rc = ledger_get_run(l, *run, &row, err);
    if (rc == ERR_NOT_FOUND && st) {
        *err = (struct err)ERR_INIT;
        rc = run_ref(st, *run, &ref, err);
    }
    if (rc == ERR_NOT_FOUND && !err->code)
        rc = err_set(err, rc, "there is no run-%lld", (long long)*run);
    return rc;
}
