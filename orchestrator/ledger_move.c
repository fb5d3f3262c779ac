/* ledger_move.c - runs as text and back, runs taken away, and requests.
 *
 * Large runs come and go in several transactions.  At each moment in between the run's row tells of a shorter run whose chain is whole: an
 * import that was cut off goes on where it stopped, a removal that was cut off is asked for again.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/os.h"
#include "orchestrator/ledger_internal.h"

#define REMOVE_ROWS 50000 /* events of one transaction */

/* ---- export ---- */

/* Past the string, number, object or list at p; NULL where the text ends first. */
static const char *past_value(const char *p, const char *end)
{
    int depth = 0;

    for (bool quoted = false; p < end; p++) {
        if (quoted && *p == '\\')
            p++;
        else if (*p == '"')
            quoted = !quoted;
        else if (quoted)
            continue;
        else if (*p == '{' || *p == '[')
            depth++;
        else if (depth == 0 && (*p == ',' || *p == '}'))
            return p;
        else if (*p == '}' || *p == ']')
            depth--;
    }
    return NULL;
}

/* Does the outermost object of this canonical text say so?  false: not in these very bytes. */
static bool says(struct str text, const char *name, const char *value)
{
    const char *p = text.p, *end = text.p + text.n;
    const size_t name_n = strlen(name), value_n = strlen(value);

    while (p && end - p > 2 && p[1] == '"') { /* after '{' or ',' */
        const char *key = p + 2, *quote = memchr(key, '"', (size_t)(end - key));
        const char *from = quote ? quote + 2 : end;
        const char *to = from < end ? past_value(from, end) : NULL;

        if (to && (size_t)(quote - key) == name_n && memcmp(key, name, name_n) == 0)
            return (size_t)(to - from) == value_n && memcmp(from, value, value_n) == 0;
        p = to;
    }
    return false;
}

/* Only what is as it should be is told without parsing; everything else is parsed, to be told why. */
enum err_code chain_text(struct chain *c, struct str text, struct err *err)
{
    char prev[DIGEST_TEXT + 3] = "\"", seq[24];

    digest_text(&c->last, prev + 1);
    memcpy(prev + 1 + DIGEST_TEXT, "\"", 2);
    (void)snprintf(seq, sizeof(seq), "%lld", (long long)c->seq);
    if (c->seq == 0 || !says(text, "prev", prev) || !says(text, "seq", seq))
        return chain_step(c, text, NULL, err);
    sha256_of(text.p, text.n, &c->last);
    c->seq++;
    return OK;
}

enum err_code ledger_export(struct ledger *l, int64_t run, struct buf *out, struct err *err)
{
    const size_t before = out->n;
    const enum err_code rc = ledger_lines(l, run, out, err);

    if (rc && out->p) {
        out->n = before;
        out->p[before] = '\0';
    }
    return rc;
}

/* ---- import ---- */

struct import {
    struct ledger *l;
    const char *text;
    size_t n;
    struct run_row row;
    size_t *ends; /* of each event's line, without the newline */
    struct digest *ids;
    size_t count, cap;
    size_t from, to; /* events of this transaction */
};

static enum err_code check_line(void *arg, int64_t seq, const json_t *body, struct err *err)
{
    struct import *in = arg;
    const size_t at = in->count ? in->ends[in->count - 1] + 1 : 0;
    const char *end = memchr(in->text + at, '\n', in->n - at);
    struct buf again;
    enum err_code rc;

    CHECK(end);
    const size_t line = (size_t)(end - (in->text + at));
    buf_init(&again, 2 * (size_t)LEDGER_EVENT_MAX);
    rc = json_canonical(body, &again, err);
    if (!rc && (again.n != line || memcmp(again.p, in->text + at, line) != 0))
        rc = err_set(err, ERR_INPUT, "it is not written canonically");
    buf_release(&again);
    if (rc)
        return err_prefix(err, "run-%lld, event %lld", (long long)in->row.run.run, (long long)seq);
    if (in->count == in->cap) {
        in->cap = in->cap ? 2 * in->cap : 64;
        in->ends = mem_grow(in->ends, in->cap, sizeof(*in->ends));
        in->ids = mem_grow(in->ids, in->cap, sizeof(*in->ids));
    }
    in->ends[in->count] = at + line;
    sha256_of(in->text + at, line, &in->ids[in->count++]);
    return OK;
}

static enum err_code check_text(struct import *in, struct err *err)
{
    const struct ledger_run *want = &in->row.run;
    struct digest last;
    int64_t events;
    enum err_code rc = ledger_text(in->text, in->n, want->run, check_line, in, &last, &events, err);

    if (!rc && events == 0)
        rc = err_set(err, ERR_INPUT, "run-%lld: no events", (long long)want->run);
    if (!rc && !digest_is_zero(&want->last) &&
        (want->events != events || !digest_eq(&want->last, &last)))
        rc = err_set(err, ERR_DAMAGED,
                     "run-%lld, event %lld: the run ends with another event than it should",
                     (long long)want->run, (long long)events - 1);
    return rc;
}

static enum err_code raise_next_run(struct txn *t, int64_t above, struct err *err)
{
    struct str value;
    uint8_t number[8];
    bool found = false;
    const enum err_code rc = env_get(t, T_META, STR("next_run"), &value, &found, err);

    if (rc || (found && value.n == 8 && env_i64_of(value.p) > above))
        return rc;
    env_i64(number, above + 1);
    return env_put(t, T_META, STR("next_run"), env_bytes(number, sizeof(number)), err);
}

static struct str line_of(const struct import *in, size_t i)
{
    const size_t at = i ? in->ends[i - 1] + 1 : 0;

    return (struct str){in->text + at, in->ends[i] - at};
}

/* How much of the run is there already? */
static enum err_code find_start(struct txn *t, struct import *in, struct err *err)
{
    struct run_row old;
    bool found = false;
    const enum err_code rc = run_row_get(t, in->row.run.run, &old, &found, err);

    in->from = 0;
    if (rc || !found || old.run.events == 0)
        return rc;
    in->from = (size_t)old.run.events;
    if (in->from > in->count || !digest_eq(&in->ids[in->from - 1], &old.run.last))
        return err_set(err, ERR_EXISTS,
                       "run-%lld is there already and is another one (%lld events); nothing was "
                       "changed",
                       (long long)in->row.run.run, (long long)old.run.events);
    in->row.flags = old.flags;
    return OK;
}

static enum err_code import_in(struct txn *t, void *arg, struct err *err)
{
    struct import *in = arg;
    uint8_t key[EVENT_KEY];
    size_t bytes = 0;
    struct run_row row;
    enum err_code rc;

    in->row.flags = ROW_IMPORTED;
    rc = find_start(t, in, err);
    in->to = in->from;
    if (rc || in->from == in->count)
        return rc;
    for (; in->to < in->count && !rc && (bytes == 0 || bytes < in->l->batch); in->to++) {
        const struct str line = line_of(in, in->to);

        event_key(in->row.run.run, (int64_t)in->to, key);
        rc = env_put(t, T_EVENT, env_bytes(key, sizeof(key)), line, err);
        bytes += line.n + 64;
    }
    row = in->row;
    row.run.events = (int64_t)in->to;
    row.run.last = in->ids[in->to - 1];
    if (!rc)
        rc = run_row_put(t, &row, err);
    if (!rc)
        rc = raise_next_run(t, row.run.run, err);
    if (!rc)
        rc = head_put(t, &row.run.last, err);
    return rc;
}

enum err_code ledger_import(struct ledger *l, const struct ledger_run *row, const char *text,
                            size_t n, struct err *err)
{
    struct import in = {.l = l, .text = text, .n = n, .row.run = *row};
    enum err_code rc;

    CHECK(l->mode == LEDGER_WRITE);
    CHECK(row->state < RUN_STATE_COUNT);
    if (row->run < 1 || row->run >= (int64_t)1 << 53 ||
        !memchr(row->pipeline, '\0', sizeof(row->pipeline)))
        return err_set(err, ERR_INPUT, "import of run-%lld: no such number or name",
                       (long long)row->run);
    rc = check_text(&in, err);
    while (!rc) {
        rc = env_write(l->env, import_in, &in, err);
        if (rc || in.to == in.count)
            break;
    }
    free(in.ends);
    free(in.ids);
    return rc ? err_prefix(err, "import") : OK;
}

/* ---- remove ---- */

struct removal {
    struct ledger *l;
    int64_t run;
    bool gone;
};

static enum err_code drop_requests(struct txn *t, int64_t run, struct err *err)
{
    struct str key, value;
    uint8_t from[8], copy[ENV_KEY_MAX];
    bool found = true;
    enum err_code rc = OK;

    env_key(from, run);
    while (!rc) {
        rc = env_seek(t, T_REQUEST, env_bytes(from, 8), ENV_FROM, &key, &value, &found, err);
        if (rc || !found || key.n < 8 || memcmp(key.p, from, 8) != 0)
            break;
        memcpy(copy, key.p, key.n);
        rc = env_del(t, T_REQUEST, env_bytes(copy, key.n), err);
    }
    return rc;
}

/* The run whose first event follows one of this batch of ids loses what it hangs on, rightly. */
struct orphans {
    struct digest *ids;
    size_t count;
};

static int by_digest(const void *a, const void *b)
{
    return digest_cmp(a, b);
}

static enum err_code orphan(struct txn *t, const struct orphans *o, int64_t removed,
                            struct err *err)
{
    struct str key, value, text;
    struct run_row row;
    uint8_t before[8];
    bool found = true;
    enum err_code rc = OK;

    memset(before, 0xff, sizeof(before));
    while (!rc) {
        struct chain c = {0};

        rc = env_seek(t, T_RUN, env_bytes(before, 8), ENV_BEFORE, &key, &value, &found, err);
        if (rc || !found || key.n != 8)
            break;
        memcpy(before, key.p, 8);
        rc = run_row_get(t, env_key_number(before), &row, &found, err);
        if (rc || row.run.run == removed || row.run.events == 0 || row.flags)
            continue;
        c.run = row.run.run;
        rc = event_get(t, row.run.run, 0, &text, err);
        if (!rc)
            rc = chain_step(&c, text, NULL, err);
        if (rc || !bsearch(&c.first, o->ids, o->count, sizeof(*o->ids), by_digest))
            continue;
        row.flags |= ROW_ORPHAN;
        rc = run_row_put(t, &row, err);
    }
    return rc;
}

/* What begins next must follow an event that is there: the end of what is left of this run, else that of the newest other one. */
static enum err_code move_head(struct txn *t, const struct orphans *o, const struct run_row *left,
                               struct err *err)
{
    struct digest head = {{0}}, to = {{0}};
    struct str key, value;
    uint8_t before[8];
    bool found = false;
    enum err_code rc = env_get(t, T_META, STR("head"), &value, &found, err);

    if (rc || !found || value.n != DIGEST_BYTES)
        return rc;
    memcpy(head.b, value.p, DIGEST_BYTES);
    if (!bsearch(&head, o->ids, o->count, sizeof(*o->ids), by_digest))
        return OK;
    to = left->run.last;
    memset(before, 0xff, sizeof(before));
    while (!rc && left->run.events == 0) {
        struct run_row row;

        rc = env_seek(t, T_RUN, env_bytes(before, 8), ENV_BEFORE, &key, &value, &found, err);
        if (rc || !found || key.n != 8)
            break;
        memcpy(before, key.p, 8);
        rc = run_row_get(t, env_key_number(before), &row, &found, err);
        if (rc || row.run.run == left->run.run || row.run.events == 0)
            continue;
        to = row.run.last;
        break;
    }
    return rc ? rc : head_put(t, &to, err);
}

/* Deletes events [from, row.events), says who hung on them, and leaves in row what is left. */
static enum err_code cut_run(struct txn *t, struct run_row *row, int64_t from, struct err *err)
{
    struct orphans o = {.ids = mem_zero((size_t)(row->run.events - from) + 1, sizeof(*o.ids))};
    uint8_t key[EVENT_KEY];
    struct str text;
    enum err_code rc = OK;

    for (int64_t seq = from; seq < row->run.events && !rc; seq++) {
        struct err ignored = ERR_INIT;

        /* A damaged run may be removed too. */
        if (event_get(t, row->run.run, seq, &text, &ignored) == OK)
            sha256_of(text.p, text.n, &o.ids[o.count++]);
        event_key(row->run.run, seq, key);
        rc = env_del(t, T_EVENT, env_bytes(key, sizeof(key)), err);
    }
    qsort(o.ids, o.count, sizeof(*o.ids), by_digest);
    row->run.events = from;
    row->run.last = (struct digest){{0}};
    if (!rc && from > 0)
        rc = event_get(t, row->run.run, from - 1, &text, err);
    if (!rc && from > 0)
        sha256_of(text.p, text.n, &row->run.last);
    if (!rc)
        rc = orphan(t, &o, row->run.run, err);
    if (!rc)
        rc = move_head(t, &o, row, err);
    free(o.ids);
    return rc;
}

static enum err_code remove_in(struct txn *t, void *arg, struct err *err)
{
    struct removal *r = arg;
    struct run_row row;
    uint8_t key[8];
    bool found = false;
    enum err_code rc = run_row_get(t, r->run, &row, &found, err);

    if (!rc && !found)
        rc = no_such_run(r->l, r->run, err);
    if (!rc && row.run.state == RUN_RUNNING)
        rc = err_set(err, ERR_AGAIN, "run-%lld has not ended; weir cancel run-%lld ends it",
                     (long long)r->run, (long long)r->run);
    if (rc)
        return rc;
    const int64_t from = row.run.events > REMOVE_ROWS ? row.run.events - REMOVE_ROWS : 0;
    r->gone = from == 0;
    rc = cut_run(t, &row, from, err);
    if (rc)
        return rc;
    if (r->gone) {
        env_key(key, r->run);
        rc = env_del(t, T_RUN, env_bytes(key, sizeof(key)), err);
        return rc ? rc : drop_requests(t, r->run, err);
    }
    return run_row_put(t, &row, err);
}

enum err_code ledger_remove_run(struct ledger *l, int64_t run, struct err *err)
{
    struct removal r = {.l = l, .run = run};
    enum err_code rc = OK;

    CHECK(l->mode == LEDGER_WRITE);
    for (size_t i = 0; i < l->run_count; i++) /* this process may have had it open */
        if (l->runs[i].run == run)
            l->runs[i].loaded = false;
    while (!rc && !r.gone)
        rc = env_write(l->env, remove_in, &r, err);
    return rc ? err_prefix(err, "remove run-%lld", (long long)run) : OK;
}

/* ---- requests ---- */

struct asking {
    struct ledger *l;
    int64_t run;
    uint8_t key[ENV_KEY_MAX];
    size_t key_n;
    struct ledger_request *out;
    bool got;
};

static enum err_code request_in(struct txn *t, void *arg, struct err *err)
{
    struct asking *a = arg;
    struct run_row row;
    uint8_t time[8];
    bool found = false;
    enum err_code rc = run_row_get(t, a->run, &row, &found, err);

    if (!rc && !found)
        rc = no_such_run(a->l, a->run, err);
    if (!rc && row.run.state != RUN_RUNNING)
        rc = err_set(err, ERR_NOT_FOUND, "run-%lld is over (%s)", (long long)a->run,
                     run_state_words[row.run.state]);
    if (rc)
        return rc;
    env_i64(time, os_now_ns());
    return env_put(t, T_REQUEST, env_bytes(a->key, a->key_n), env_bytes(time, sizeof(time)), err);
}

enum err_code ledger_request(struct ledger *l, int64_t run, enum ledger_ask ask, const char *task,
                             struct err *err)
{
    struct asking a = {.l = l, .run = run, .key_n = 9};
    const size_t n = task ? strlen(task) : 0;

    CHECK(l->mode == LEDGER_WRITE);
    CHECK(ask < LEDGER_ASK_COUNT);
    if (n > LEDGER_TASK_MAX)
        return err_set(err, ERR_LIMIT, "a task's name of %zu bytes, at most %d", n,
                       LEDGER_TASK_MAX);
    env_key(a.key, run);
    a.key[8] = (uint8_t)ask;
    if (n)
        memcpy(a.key + 9, task, n);
    a.key_n += n;
    return env_write(l->env, request_in, &a, err);
}

static enum err_code next_request(struct txn *t, struct asking *a, struct err *err)
{
    struct str key, value;
    uint8_t from[8];
    bool found = false;
    enum err_code rc;

    env_key(from, a->run);
    a->got = false;
    rc = env_seek(t, T_REQUEST, env_bytes(from, 8), ENV_FROM, &key, &value, &found, err);
    if (rc || !found || key.n < 9 || memcmp(key.p, from, 8) != 0)
        return rc;
    if ((uint8_t)key.p[8] >= LEDGER_ASK_COUNT || key.n > 9 + LEDGER_TASK_MAX || value.n != 8)
        return err_set(err, ERR_DAMAGED, "ledger: a row of \"request\" makes no sense");
    a->got = true;
    memcpy(a->key, key.p, key.n);
    a->key_n = key.n;
    *a->out =
        (struct ledger_request){.ask = (enum ledger_ask)key.p[8], .time_ns = env_i64_of(value.p)};
    memcpy(a->out->task, key.p + 9, key.n - 9);
    return OK;
}

static enum err_code take_in(struct txn *t, void *arg, struct err *err)
{
    struct asking *a = arg;
    const enum err_code rc = next_request(t, a, err);

    return rc || !a->got ? rc : env_del(t, T_REQUEST, env_bytes(a->key, a->key_n), err);
}

enum err_code ledger_take_request(struct ledger *l, int64_t run, struct ledger_request *out,
                                  bool *got, struct err *err)
{
    struct asking a = {.l = l, .run = run, .out = out};
    struct txn t;
    enum err_code rc = env_read(l->env, &t, err);

    *got = false;
    if (rc)
        return rc;
    rc = next_request(&t, &a, err);
    env_done(&t);
    if (!rc && a.got)
        rc = env_write(l->env, take_in, &a, err);
    *got = !rc && a.got;
    return rc;
}
