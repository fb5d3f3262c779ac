/* ledger_read.c - rows, the chain, and all questions.
 *
 * Walks copy a batch out of a short transaction, end it, and only then call back: a reader never keeps old pages alive, and what it
 * calls may read the ledger itself.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/os.h"
#include "orchestrator/ledger_internal.h"

#define READ_BYTES (256 << 10) /* copied at a time; one longer event goes alone */
#define READ_ROWS 1024

/* ---- rows ---- */

enum err_code no_such_run(struct ledger *l, int64_t run, struct err *err)
{
    return err_set(err, ERR_NOT_FOUND,
                   "there is no run-%lld in %s; weir runs lists those there are", (long long)run,
                   l->path);
}

void event_key(int64_t run, int64_t seq, uint8_t out[EVENT_KEY])
{
    env_key(out, run);
    env_key(out + 8, seq);
}

/* state u8, flags u8, 6 x 0 | 9 numbers | last | options | name */
void run_row_encode(const struct run_row *r, uint8_t out[RUN_ROW_BYTES])
{
    const struct ledger_run *run = &r->run;
    const int64_t numbers[] = {run->begun_ns, run->ended_ns, run->events,  run->tasks,  run->cached,
                               run->ran,      run->failed,   run->skipped, run->blocked};

    memset(out, 0, RUN_ROW_BYTES);
    out[0] = (uint8_t)run->state;
    out[1] = (uint8_t)r->flags;
    for (size_t i = 0; i < 9; i++)
        env_i64(out + 8 + 8 * i, numbers[i]);
    memcpy(out + 80, run->last.b, DIGEST_BYTES);
    memcpy(out + 112, run->options.b, DIGEST_BYTES);
    memcpy(out + 144, run->pipeline, sizeof(run->pipeline));
}

static enum err_code run_row_decode(struct str key, struct str value, struct run_row *r,
                                    struct err *err)
{
    const char *p = value.p;
    struct ledger_run *run = &r->run;
    int64_t *const numbers[] = {&run->begun_ns, &run->ended_ns, &run->events,
                                &run->tasks,    &run->cached,   &run->ran,
                                &run->failed,   &run->skipped,  &run->blocked};

    if (key.n != 8 || value.n != RUN_ROW_BYTES || (uint8_t)p[0] >= RUN_STATE_COUNT ||
        p[RUN_ROW_BYTES - 1] != '\0' || env_i64_of(p + 24) < 0)
        return err_set(err, ERR_DAMAGED, "ledger: a row of \"run\" makes no sense");
    *r = (struct run_row){.flags = (uint8_t)p[1]};
    run->run = env_key_number(key.p);
    run->state = (enum run_state)p[0];
    for (size_t i = 0; i < 9; i++)
        *numbers[i] = env_i64_of(p + 8 + 8 * i);
    memcpy(run->last.b, p + 80, DIGEST_BYTES);
    memcpy(run->options.b, p + 112, DIGEST_BYTES);
    memcpy(run->pipeline, p + 144, sizeof(run->pipeline));
    return OK;
}

enum err_code run_row_get(struct txn *t, int64_t run, struct run_row *out, bool *found,
                          struct err *err)
{
    struct str value;
    uint8_t key[8];
    enum err_code rc;

    env_key(key, run);
    rc = env_get(t, T_RUN, env_bytes(key, 8), &value, found, err);
    return rc || !*found ? rc : run_row_decode(env_bytes(key, 8), value, out, err);
}

enum err_code run_row_put(struct txn *t, const struct run_row *r, struct err *err)
{
    uint8_t key[8], value[RUN_ROW_BYTES];

    env_key(key, r->run.run);
    run_row_encode(r, value);
    return env_put(t, T_RUN, env_bytes(key, 8), env_bytes(value, sizeof(value)), err);
}

enum err_code event_get(struct txn *t, int64_t run, int64_t seq, struct str *text, struct err *err)
{
    uint8_t key[EVENT_KEY];
    bool found = false;
    enum err_code rc;

    event_key(run, seq, key);
    rc = env_get(t, T_EVENT, env_bytes(key, sizeof(key)), text, &found, err);
    if (!rc && !found)
        rc = err_set(err, ERR_DAMAGED, "it is missing");
    return rc ? err_prefix(err, "run-%lld, event %lld", (long long)run, (long long)seq) : OK;
}

enum err_code ledger_get_run(struct ledger *l, int64_t run, struct ledger_run *out, struct err *err)
{
    struct run_row row;
    struct txn t;
    bool found = false;
    enum err_code rc = env_read(l->env, &t, err);

    if (rc)
        return rc;
    rc = run_row_get(&t, run, &row, &found, err);
    env_done(&t);
    if (!rc && !found)
        rc = no_such_run(l, run, err);
    if (!rc)
        *out = row.run;
    return rc;
}

enum err_code ledger_list_runs(struct ledger *l, size_t max, struct ledger_run **rows, size_t *n,
                               struct err *err)
{
    struct run_row row;
    struct str key, value;
    struct txn t;
    uint8_t before[8];
    size_t cap = 0;
    bool found = true;
    enum err_code rc = env_read(l->env, &t, err);

    *rows = NULL;
    *n = 0;
    if (rc)
        return rc;
    memset(before, 0xff, sizeof(before));
    while (!rc && *n < max) {
        rc = env_seek(&t, T_RUN, env_bytes(before, 8), ENV_BEFORE, &key, &value, &found, err);
        if (!rc && found)
            rc = run_row_decode(key, value, &row, err);
        if (rc || !found)
            break;
        if (*n == cap) {
            cap = cap ? 2 * cap : 16;
            *rows = mem_grow(*rows, cap, sizeof(**rows));
        }
        (*rows)[(*n)++] = row.run;
        env_key(before, row.run.run);
    }
    env_done(&t);
    if (rc) {
        free(*rows);
        *rows = NULL;
        *n = 0;
    }
    return rc;
}

/* ---- the chain ---- */

enum err_code chain_step(struct chain *c, struct str text, json_t **body, struct err *err)
{
    struct digest prev;
    const char *word;
    json_t *v = NULL;
    int64_t seq;
    enum err_code rc;

    if (body)
        *body = NULL;
    rc = json_parse(text.p, text.n, LEDGER_EVENT_MAX, "event", &v, err);
    if (!rc)
        rc = json_get_string(v, "event", "event", &word, err);
    if (!rc)
        rc = json_get_i64(v, "seq", 0, INT64_MAX, "event", &seq, err);
    if (!rc)
        rc = json_get_string(v, "prev", "event", &word, err);
    if (!rc)
        rc = digest_parse(word, strlen(word), &prev, err);
    if (!rc && seq != c->seq)
        rc = err_set(err, ERR_DAMAGED, "it says that it is event %lld", (long long)seq);
    if (!rc && seq > 0 && !digest_eq(&prev, &c->last))
        rc = err_set(err, ERR_DAMAGED,
                     "it does not follow the event before it: one of the two was changed");
    if (rc) {
        json_decref(v);
        return err_prefix(err, "run-%lld, event %lld", (long long)c->run, (long long)c->seq);
    }
    if (seq == 0)
        c->first = prev;
    sha256_of(text.p, text.n, &c->last);
    c->seq++;
    if (body)
        *body = v;
    else
        json_decref(v);
    return OK;
}

/* ---- replay ---- */

struct walk { /* of one run */
    struct ledger *l;
    struct chain chain;
    int64_t from, end; /* events that the row counted when the walk began */
    struct digest last;
    bool begun;
    struct buf text;
    size_t ends[READ_ROWS];
    size_t count;
    struct buf *lines; /* where the events are to go as they are; else NULL */
};

static void walk_init(struct walk *w, struct ledger *l, int64_t run, int64_t from)
{
    *w = (struct walk){.l = l, .from = from};
    w->chain.run = run;
    w->chain.seq = from;
    buf_init(&w->text, LEDGER_EVENT_MAX + READ_BYTES + 1);
}

static enum err_code walk_start(struct walk *w, struct txn *t, struct err *err)
{
    struct run_row row;
    struct str text;
    bool found = false;
    enum err_code rc = run_row_get(t, w->chain.run, &row, &found, err);

    if (!rc && !found)
        rc = no_such_run(w->l, w->chain.run, err);
    if (rc || w->begun)
        return rc;
    w->begun = true;
    w->end = row.run.events;
    w->last = row.run.last;
    if (w->from == 0 || w->from >= w->end)
        return OK;
    rc = event_get(t, w->chain.run, w->from - 1, &text, err);
    if (!rc)
        sha256_of(text.p, text.n, &w->chain.last);
    return rc;
}

/* The next events into w->text; a damaged one ends the batch, and is an error when it is the first. */
static enum err_code walk_fill(struct walk *w, struct err *err)
{
    struct txn t;
    struct str text;
    struct err later = ERR_INIT;
    int64_t seq = w->chain.seq;
    enum err_code rc = env_read(w->l->env, &t, err);

    if (rc)
        return rc;
    buf_clear(&w->text);
    w->count = 0;
    rc = walk_start(w, &t, err); /* also: is the run still there? */
    for (; !rc && seq < w->end && w->count < READ_ROWS && w->text.n < READ_BYTES; seq++) {
        const enum err_code bad = event_get(&t, w->chain.run, seq, &text, &later);

        if (bad) {
            if (w->count == 0)
                rc = err_set(err, bad, "%s", later.text);
            break;
        }
        buf_add(&w->text, text.p, text.n);
        w->ends[w->count++] = w->text.n;
        if (text.n > LEDGER_EVENT_MAX)
            rc = err_set(err, ERR_DAMAGED, "run-%lld, event %lld: too long",
                         (long long)w->chain.run, (long long)seq);
    }
    env_done(&t);
    return rc ? rc : buf_check(&w->text, "events", err);
}

static enum err_code walk_run(struct walk *w, ledger_event_fn fn, void *arg, struct err *err)
{
    enum err_code rc = walk_fill(w, err);

    while (!rc && w->count > 0) {
        for (size_t i = 0, at = 0; i < w->count && !rc; at = w->ends[i++]) {
            const struct str text = {w->text.p + at, w->ends[i] - at};
            const int64_t seq = w->chain.seq;
            json_t *body = NULL;

            if (w->lines) {
                rc = chain_text(&w->chain, text, err);
                buf_add(w->lines, text.p, text.n);
                buf_char(w->lines, '\n');
                continue;
            }
            rc = chain_step(&w->chain, text, &body, err);
            if (!rc && fn)
                rc = fn(arg, seq, body, err);
            json_decref(body);
        }
        if (!rc)
            rc = walk_fill(w, err);
    }
    if (!rc && w->end > 0 && w->from < w->end && !digest_eq(&w->chain.last, &w->last))
        rc = err_set(err, ERR_DAMAGED,
                     "run-%lld, event %lld: it is not the event that the run ended with",
                     (long long)w->chain.run, (long long)w->end - 1);
    buf_release(&w->text);
    return rc;
}

enum err_code ledger_replay(struct ledger *l, int64_t run, int64_t seq, ledger_event_fn fn,
                            void *arg, struct err *err)
{
    struct walk *w = mem_alloc(sizeof(*w));
    enum err_code rc;

    CHECK(seq >= 0);
    walk_init(w, l, run, seq);
    rc = walk_run(w, fn, arg, err);
    free(w);
    return rc;
}

enum err_code ledger_lines(struct ledger *l, int64_t run, struct buf *out, struct err *err)
{
    struct walk *w = mem_alloc(sizeof(*w));
    enum err_code rc;

    walk_init(w, l, run, 0);
    w->lines = out;
    rc = walk_run(w, NULL, NULL, err);
    free(w);
    return rc ? rc : buf_check(out, "the events of a run", err);
}

enum err_code ledger_text(const char *text, size_t n, int64_t run, ledger_event_fn fn, void *arg,
                          struct digest *last, int64_t *events, struct err *err)
{
    struct chain c = {.run = run};
    enum err_code rc = OK;

    for (size_t at = 0; at < n && !rc;) {
        const char *end = memchr(text + at, '\n', n - at);
        json_t *body = NULL;

        if (!end)
            return err_set(err, ERR_INPUT, "run-%lld, event %lld: its line has no end",
                           (long long)run, (long long)c.seq);
        const size_t line = (size_t)(end - (text + at));
        rc = chain_step(&c, (struct str){text + at, line}, &body, err);
        if (!rc && fn)
            rc = fn(arg, c.seq - 1, body, err);
        json_decref(body);
        at += line + 1;
    }
    *last = c.last;
    if (events)
        *events = c.seq;
    return rc;
}

/* ---- verify ---- */

struct first { /* what a run's first event follows */
    int64_t run;
    struct digest prev;
    bool found;
};
struct verify {
    struct ledger *l;
    struct first *firsts; /* sorted by prev while runs are walked */
    size_t count;
    struct digest *ids;
    size_t id_count, id_cap;
    int64_t events;
};

static enum err_code count_event(void *arg, int64_t seq, const json_t *body, struct err *err)
{
    struct verify *v = arg;

    (void)seq;
    (void)body;
    (void)err;
    v->events++;
    return OK;
}

/* What did run follow?  A zero prev is that of the very first. */
static enum err_code note_first(struct verify *v, const struct ledger_run *run, int *beginnings,
                                struct err *err)
{
    struct chain c = {.run = run->run};
    struct run_row row;
    struct str text;
    struct txn t;
    bool found = false;
    enum err_code rc = env_read(v->l->env, &t, err);

    if (rc)
        return rc;
    rc = run_row_get(&t, run->run, &row, &found, err);
    if (!rc && found && row.run.events > 0) {
        rc = event_get(&t, run->run, 0, &text, err);
        if (!rc)
            rc = chain_step(&c, text, NULL, err);
        if (!rc && !(row.flags & (ROW_IMPORTED | ROW_ORPHAN))) {
            if (digest_is_zero(&c.first) && ++*beginnings > 1)
                rc = err_set(err, ERR_DAMAGED, "run-%lld, event 0: another run is the first",
                             (long long)run->run);
            if (!digest_is_zero(&c.first))
                v->firsts[v->count++] = (struct first){.run = run->run, .prev = c.first};
        }
    }
    env_done(&t);
    return rc;
}

static int by_prev(const void *a, const void *b)
{
    return digest_cmp(&((const struct first *)a)->prev, &((const struct first *)b)->prev);
}

/* Every event of a run: is it what some other run's first event follows? */
static enum err_code mark_followed(void *arg, int64_t seq, const json_t *body, struct err *err)
{
    struct verify *v = arg;
    struct first *hit, want;
    const char *prev = NULL;
    enum err_code rc;

    v->events++;
    if (seq == 0) /* what event 0 follows is what is asked here */
        return OK;
    /* prev of event n is the id of n - 1 */
    rc = json_get_string(body, "prev", "event", &prev, err);
    if (!rc)
        rc = digest_parse(prev, strlen(prev), &want.prev, err);
    if (rc || v->count == 0)
        return rc;
    hit = bsearch(&want, v->firsts, v->count, sizeof(*v->firsts), by_prev);
    if (hit)
        hit->found = true;
    return OK;
}

static enum err_code check_firsts(struct verify *v, const struct ledger_run *rows, size_t n,
                                  struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        struct first want = {.prev = rows[i].last};
        struct first *hit =
            v->count ? bsearch(&want, v->firsts, v->count, sizeof(*v->firsts), by_prev) : NULL;

        if (hit)
            hit->found = true;
    }
    for (size_t i = 0; i < v->count; i++) {
        /* Several runs may follow the same event; bsearch marked one of them. */
        bool found = v->firsts[i].found;

        for (size_t k = i; k > 0 && !found && by_prev(&v->firsts[k - 1], &v->firsts[i]) == 0; k--)
            found = v->firsts[k - 1].found;
        for (size_t k = i + 1; k < v->count && !found && by_prev(&v->firsts[k], &v->firsts[i]) == 0;
             k++)
            found = v->firsts[k].found;
        if (!found)
            return err_set(err, ERR_DAMAGED,
                           "run-%lld, event 0: what it follows is in no run; an earlier run was "
                           "changed or taken away",
                           (long long)v->firsts[i].run);
    }
    return OK;
}

static enum err_code verify_all(struct verify *v, struct err *err)
{
    struct ledger_run *rows = NULL;
    int beginnings = 0;
    size_t n = 0;
    enum err_code rc = ledger_list_runs(v->l, SIZE_MAX, &rows, &n, err);

    v->firsts = mem_zero(n + 1, sizeof(*v->firsts));
    for (size_t i = 0; i < n && !rc; i++)
        rc = note_first(v, &rows[i], &beginnings, err);
    qsort(v->firsts, v->count, sizeof(*v->firsts), by_prev);
    for (size_t i = 0; i < n && !rc; i++)
        rc = ledger_replay(v->l, rows[i].run, 0, mark_followed, v, err);
    if (!rc)
        rc = check_firsts(v, rows, n, err);
    free(v->firsts);
    free(rows);
    return rc;
}

enum err_code ledger_verify(struct ledger *l, int64_t run, int64_t *events, struct err *err)
{
    struct verify v = {.l = l};
    const enum err_code rc =
        run ? ledger_replay(l, run, 0, count_event, &v, err) : verify_all(&v, err);

    *events = v.events;
    return rc;
}

/* ---- views ---- */

void view_key(uint8_t view, struct str key, uint8_t out[ENV_KEY_MAX], size_t *n)
{
    struct digest d;

    out[0] = view;
    *n = key.n < VIEW_KEY_SHORT ? key.n : VIEW_KEY_SHORT;
    if (key.n)
        memcpy(out + 1, key.p, *n);
    *n += 1;
    if (key.n <= VIEW_KEY_SHORT)
        return;
    sha256_of(key.p, key.n, &d);
    memcpy(out + *n, d.b, DIGEST_BYTES);
    *n += DIGEST_BYTES;
}

/* Splits a row into the caller's key and value. */
static enum err_code view_split(struct str row_key, struct str row, struct str *key,
                                struct str *value, struct err *err)
{
    uint32_t long_n;

    if (row_key.n < 1 || row.n < 4)
        return err_set(err, ERR_DAMAGED, "ledger: a row of \"view\" makes no sense");
    memcpy(&long_n, row.p, 4);
    long_n = le32toh(long_n);
    if (long_n > row.n - 4)
        return err_set(err, ERR_DAMAGED, "ledger: a row of \"view\" makes no sense");
    *key = long_n ? (struct str){row.p + 4, long_n} : (struct str){row_key.p + 1, row_key.n - 1};
    *value = (struct str){row.p + 4 + long_n, row.n - 4 - long_n};
    return OK;
}

enum err_code ledger_view_get(struct ledger *l, enum ledger_view view, const void *key,
                              size_t key_n, struct buf *out, struct err *err)
{
    uint8_t row_key[ENV_KEY_MAX];
    struct str row, value, full;
    struct txn t;
    size_t n;
    bool found = false;
    enum err_code rc = env_read(l->env, &t, err);

    if (rc)
        return rc;
    view_key((uint8_t)view, env_bytes(key, key_n), row_key, &n);
    rc = env_get(&t, T_VIEW, env_bytes(row_key, n), &row, &found, err);
    if (!rc && !found)
        rc = err_set(err, ERR_NOT_FOUND, "the ledger in %s has no such entry", l->path);
    if (!rc)
        rc = view_split(env_bytes(row_key, n), row, &full, &value, err);
    if (!rc) {
        buf_add(out, value.p, value.n);
        rc = buf_check(out, "a view's value", err);
    }
    env_done(&t);
    return rc;
}

struct scan {
    struct ledger *l;
    uint8_t view;
    struct str prefix;
    uint8_t from[ENV_KEY_MAX]; /* where the next batch goes on */
    size_t from_n;
    bool started, end;
    struct buf rows;
    struct {
        size_t key, value, end;
    } at[READ_ROWS];
    size_t count;
};

static enum err_code scan_rows(struct scan *s, struct txn *t, struct env_walk *w, struct err *err)
{
    struct str key, row, full, value, from = env_bytes(s->from, s->from_n);
    bool found = true;
    enum err_code rc = env_walk_next(w, from, &key, &row, &found, err);

    (void)t;
    if (!rc && found && s->started && str_eq(key, from)) /* had it */
        rc = env_walk_next(w, (struct str){NULL, 0}, &key, &row, &found, err);
    while (!rc && found) {
        rc = view_split(key, row, &full, &value, err);
        if (rc)
            return rc;
        /* Of a long prefix the row's key has the beginning only. */
        const size_t part = s->prefix.n < VIEW_KEY_SHORT ? s->prefix.n : VIEW_KEY_SHORT;
        if ((uint8_t)key.p[0] != s->view ||
            !str_starts((struct str){key.p + 1, key.n - 1}, (struct str){s->prefix.p, part}))
            break;
        memcpy(s->from, key.p, key.n);
        s->from_n = key.n;
        s->started = true;
        if (str_starts(full, s->prefix)) {
            s->at[s->count].key = s->rows.n;
            buf_add(&s->rows, full.p, full.n);
            s->at[s->count].value = s->rows.n;
            buf_add(&s->rows, value.p, value.n);
            s->at[s->count++].end = s->rows.n;
            if (s->count == READ_ROWS || s->rows.n >= READ_BYTES)
                return buf_check(&s->rows, "views", err);
        }
        rc = env_walk_next(w, (struct str){NULL, 0}, &key, &row, &found, err);
    }
    s->end = true;
    return rc ? rc : buf_check(&s->rows, "views", err);
}

static enum err_code scan_fill(struct scan *s, struct err *err)
{
    struct env_walk w = {0};
    struct txn t;
    enum err_code rc = env_read(s->l->env, &t, err);

    if (rc)
        return rc;
    s->count = 0;
    buf_clear(&s->rows);
    rc = env_walk_begin(&t, T_VIEW, &w, err);
    if (!rc)
        rc = scan_rows(s, &t, &w, err);
    env_walk_end(&w);
    env_done(&t);
    return rc;
}

enum err_code ledger_view_scan(struct ledger *l, enum ledger_view view, struct str prefix,
                               ledger_view_fn fn, void *arg, struct err *err)
{
    struct scan *s = mem_zero(1, sizeof(*s));
    enum err_code rc = OK;

    s->l = l;
    s->view = (uint8_t)view;
    s->prefix = prefix;
    s->from[0] = (uint8_t)view;
    s->from_n = 1 + (prefix.n < VIEW_KEY_SHORT ? prefix.n : VIEW_KEY_SHORT);
    if (prefix.n)
        memcpy(s->from + 1, prefix.p, s->from_n - 1);
    buf_init(&s->rows, (size_t)1 << 31);
    while (!rc && !s->end) {
        rc = scan_fill(s, err);
        for (size_t i = 0; i < s->count && !rc; i++) {
            const char *p = s->rows.p;

            rc = fn(arg, (struct str){p + s->at[i].key, s->at[i].value - s->at[i].key},
                    (struct str){p + s->at[i].value, s->at[i].end - s->at[i].value}, err);
        }
    }
    buf_release(&s->rows);
    free(s);
    return rc;
}
