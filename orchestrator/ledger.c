/* ledger.c - opening, new runs, appending, group commit, requests.
 *
 * An event's text is written when it is appended, with a hole for prev: only the commit, alone with the tables, knows what a new run's first
 * event follows, and all later ones hang on that.  So ids are computed in the commit, in order, at one hash of some hundred bytes each.
 */
#include "orchestrator/ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/os.h"
#include "orchestrator/ledger_internal.h"

#define PENDING_MAX ((size_t)1 << 31)
#define INTEGER_MAX ((int64_t)1 << 53) /* past it JSON numbers are not exact */

const char *const run_state_words[RUN_STATE_COUNT] = {"running", "succeeded", "failed", "stopped",
                                                      "cancelled"};

static const char *const tables[] = {"event", "run", "view", "request", "meta", NULL};

/* ---- open and close ---- */

static size_t batch_setting(void)
{
    const char *text = getenv("WEIR_LEDGER_BATCH"); /* tests make transactions small */
    struct err ignored = ERR_INIT;
    int64_t n;

    if (!text || str_to_i64(str_of(text), 1, LEDGER_BATCH_BYTES, &n, &ignored) != OK)
        n = LEDGER_BATCH_BYTES;
    return (size_t)n;
}

enum err_code ledger_open(const char *weir_dir, enum ledger_mode mode, struct ledger **out,
                          struct err *err)
{
    struct ledger *l = mem_zero(1, sizeof(*l));
    const struct env_options o = {.what = "ledger",
                                  .tables = tables,
                                  .write = mode == LEDGER_WRITE,
                                  .sync = true,
                                  .format = LEDGER_FORMAT};
    struct buf path;
    enum err_code rc;

    CHECK(weir_dir);
    CHECK(out);
    *out = NULL;
    l->mode = mode;
    l->batch = batch_setting();
    l->second = INT64_MIN;
    buf_init(&l->text, PENDING_MAX);
    sha256_init(&l->sha);
    buf_init(&path, 65536);
    buf_printf(&path, "%s/ledger", weir_dir);
    rc = buf_check(&path, "path of the ledger", err);
    l->path = buf_take(&path);
    buf_release(&path);
    if (!rc)
        rc = env_open(l->path, &o, &l->env, err);
    if (rc) {
        ledger_close(l);
        return err_prefix(err, "open the ledger");
    }
    *out = l;
    return OK;
}

void ledger_close(struct ledger *l)
{
    if (!l)
        return;
    env_close(l->share);
    env_close(l->env);
    buf_release(&l->text);
    sha256_release(&l->sha);
    free(l->ops);
    free(l->runs);
    free(l->members);
    free(l->path);
    free(l);
}

/* ---- a new run ---- */

struct beginning {
    int64_t at_least;
    struct run_row row;
};

static enum err_code begin_in(struct txn *t, void *arg, struct err *err)
{
    struct beginning *b = arg;
    struct str key, value;
    uint8_t number[8];
    bool found;
    enum err_code rc = env_get(t, T_META, STR("next_run"), &value, &found, err);

    if (rc)
        return rc;
    b->row.run.run = b->at_least > 1 ? b->at_least : 1;
    if (found && value.n == 8 && env_i64_of(value.p) > b->row.run.run)
        b->row.run.run = env_i64_of(value.p);
    memset(number, 0xff, sizeof(number));
    rc = env_seek(t, T_RUN, env_bytes(number, sizeof(number)), ENV_BEFORE, &key, &value, &found,
                  err);
    if (rc)
        return rc;
    if (found && key.n == 8 && env_key_number(key.p) >= b->row.run.run)
        b->row.run.run = env_key_number(key.p) + 1;
    env_i64(number, b->row.run.run + 1);
    rc = env_put(t, T_META, STR("next_run"), env_bytes(number, sizeof(number)), err);
    return rc ? rc : run_row_put(t, &b->row, err);
}

static struct open_run *find_run(struct ledger *l, int64_t run)
{
    for (size_t i = l->run_count; i-- > 0;)
        if (l->runs[i].run == run)
            return &l->runs[i];
    return NULL;
}

static struct open_run *add_run(struct ledger *l, int64_t run)
{
    if (l->run_count == l->run_cap) {
        l->run_cap = l->run_cap ? 2 * l->run_cap : 4;
        l->runs = mem_grow(l->runs, l->run_cap, sizeof(*l->runs));
    }
    l->runs[l->run_count] = (struct open_run){.run = run};
    return &l->runs[l->run_count++];
}

void ledger_name_cut(const char *name, char out[64])
{
    size_t n = strnlen(name, 64);

    if (n == 64)
        for (n = 63; n > 0 && ((unsigned char)name[n] & 0xc0) == 0x80;)
            n--;
    memset(out, 0, 64);
    memcpy(out, name, n);
}

enum err_code ledger_begin(struct ledger *l, const char *pipeline, const struct digest *options,
                           int64_t at_least, int64_t *run, struct err *err)
{
    struct beginning b = {.at_least = at_least};
    struct ledger_run *row = &b.row.run;

    CHECK(l->mode == LEDGER_WRITE);
    CHECK(at_least < INTEGER_MAX);
    row->state = RUN_RUNNING;
    row->begun_ns = os_now_ns();
    row->options = *options;
    ledger_name_cut(pipeline, row->pipeline);
    if (env_write(l->env, begin_in, &b, err) != OK)
        return err_prefix(err, "begin a run of %s", pipeline);
    *run = row->run;
    add_run(l, *run)->loaded = true;
    return OK;
}

/* ---- append ---- */

struct member {
    const char *key;
    const json_t *value; /* NULL: one of ours */
};

static enum err_code load_run(struct ledger *l, int64_t run, struct open_run **out, struct err *err)
{
    struct open_run *o = find_run(l, run);
    struct run_row row;
    struct txn t;
    bool found = false;
    enum err_code rc;

    *out = o;
    if (o && o->loaded)
        return OK;
    rc = env_read(l->env, &t, err);
    if (rc)
        return rc;
    rc = run_row_get(&t, run, &row, &found, err);
    env_done(&t);
    if (!rc && !found)
        rc = no_such_run(l, run, err);
    if (rc)
        return rc;
    if (!o)
        o = add_run(l, run);
    o->loaded = true;
    o->committed = o->next = row.run.events;
    o->last = row.run.last;
    *out = o;
    return OK;
}

/* By bytes: that is RFC 8785's order as long as names are ASCII. */
static void insert_member(struct member *members, size_t n, const char *key, const json_t *value)
{
    size_t at = n;

    for (; at > 0 && strcmp(members[at - 1].key, key) > 0; at--)
        members[at] = members[at - 1];
    members[at] = (struct member){key, value};
}

static size_t sort_members(struct ledger *l, json_t *body)
{
    const size_t count = json_object_size(body) + 3;
    size_t n = 0;

    if (count > l->member_cap) {
        l->member_cap = 2 * count;
        l->members = mem_grow(l->members, l->member_cap, sizeof(*l->members));
    }
    for (void *it = json_object_iter(body); it; it = json_object_iter_next(body, it))
        insert_member(l->members, n++, json_object_iter_key(it), json_object_iter_value(it));
    insert_member(l->members, n++, "prev", NULL);
    insert_member(l->members, n++, "seq", NULL);
    insert_member(l->members, n++, "time", NULL);
    return n;
}

static void add_number(struct buf *out, int64_t v)
{
    char digits[24];
    size_t at = sizeof(digits);
    uint64_t rest = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;

    do {
        digits[--at] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (v < 0)
        digits[--at] = '-';
    buf_add(out, digits + at, sizeof(digits) - at);
}

static void add_time(struct ledger *l)
{
    const int64_t now = os_now_ns(), ms = now / 1000000;
    const int64_t second = ms / 1000;
    char tail[5] = {'0', '0', '0', 'Z', '"'};

    if (second != l->second) {
        const time_t when = (time_t)second;
        struct tm tm;

        CHECK(gmtime_r(&when, &tm));
        CHECK(strftime(l->time_text, sizeof(l->time_text), "\"%Y-%m-%dT%H:%M:%S.", &tm) == 21);
        l->second = second;
    }
    for (int64_t i = 2, left = ms % 1000; i >= 0; i--, left /= 10)
        tail[i] = (char)('0' + left % 10);
    buf_add(&l->text, l->time_text, 21);
    buf_add(&l->text, tail, sizeof(tail));
}

static enum err_code add_value(struct ledger *l, const json_t *v, struct err *err)
{
    if (json_is_string(v)) {
        json_canonical_string(&l->text, json_string_value(v), json_string_length(v));
        return OK;
    }
    if (json_is_integer(v) && json_integer_value(v) <= INTEGER_MAX &&
        json_integer_value(v) >= -INTEGER_MAX) {
        add_number(&l->text, json_integer_value(v));
        return OK;
    }
    return json_canonical(v, &l->text, err);
}

static enum err_code add_own(struct ledger *l, const char *key, struct op *op)
{
    static const char hole[] = "\"sha256:"
                               "0000000000000000000000000000000000000000000000000000000000000000\"";

    if (key[0] == 's') {
        add_number(&l->text, op->seq);
    } else if (key[0] == 't') {
        add_time(l);
    } else {
        op->prev = l->text.n + 8;
        buf_add(&l->text, hole, sizeof(hole) - 1);
    }
    return OK;
}

static enum err_code add_event(struct ledger *l, json_t *body, struct op *op, struct err *err)
{
    const size_t count = sort_members(l, body);
    enum err_code rc = OK;

    op->off = l->text.n;
    for (size_t i = 0; i < count && !rc; i++) {
        const struct member *m = &l->members[i];

        if (i > 0 && strcmp(m->key, m[-1].key) == 0)
            return err_set(err, ERR_BUG, "an event has a field \"%s\" of its own", m->key);
        buf_char(&l->text, i ? ',' : '{');
        json_canonical_string(&l->text, m->key, strlen(m->key));
        buf_char(&l->text, ':');
        rc = m->value ? add_value(l, m->value, err) : add_own(l, m->key, op);
    }
    buf_char(&l->text, '}');
    op->n = l->text.n - op->off;
    if (!rc)
        rc = buf_check(&l->text, "events that wait for a commit", err);
    if (!rc && op->n > LEDGER_EVENT_MAX)
        rc = err_set(err, ERR_LIMIT, "an event of %zu bytes, at most %d", op->n, LEDGER_EVENT_MAX);
    return rc;
}

static void add_op(struct ledger *l, const struct op *op)
{
    if (l->op_count == l->op_cap) {
        l->op_cap = l->op_cap ? 2 * l->op_cap : 64;
        l->ops = mem_grow(l->ops, l->op_cap, sizeof(*l->ops));
    }
    l->ops[l->op_count++] = *op;
}

/* Take back what was added since the pending text was n long. */
static void cut_text(struct ledger *l, size_t n)
{
    l->text.n = n;
    l->text.failed = false;
    if (l->text.p)
        l->text.p[n] = '\0';
}

enum err_code ledger_append(struct ledger *l, int64_t run, json_t *body, struct err *err)
{
    const size_t before = l->text.n;
    struct op op = {.event = true};
    struct open_run *o;
    enum err_code rc;

    CHECK(l->mode == LEDGER_WRITE);
    CHECK(json_is_string(json_object_get(body, "event")));
    rc = load_run(l, run, &o, err);
    if (!rc) {
        op.seq = o->next;
        op.run = (size_t)(o - l->runs);
        rc = add_event(l, body, &op, err);
    }
    if (!rc) {
        o->next++;
        add_op(l, &op);
    } else {
        cut_text(l, before);
        rc = err_prefix(err, "run-%lld: append %s", (long long)run,
                        json_string_value(json_object_get(body, "event")));
    }
    json_decref(body);
    return rc;
}

void ledger_set_run(struct ledger *l, const struct ledger_run *row)
{
    struct open_run *o = find_run(l, row->run);

    CHECK(l->mode == LEDGER_WRITE);
    CHECK(row->state < RUN_STATE_COUNT);
    if (!o)
        o = add_run(l, row->run);
    o->row = *row;
    o->set = true;
}

void ledger_view_set(struct ledger *l, enum ledger_view view, const void *key, size_t key_n,
                     const void *p, size_t n)
{
    struct op op = {.view = (uint8_t)view, .key_n = key_n, .off = l->text.n, .n = key_n + n};

    CHECK(l->mode == LEDGER_WRITE);
    CHECK(key_n <= UINT32_MAX);
    buf_add(&l->text, key, key_n);
    buf_add(&l->text, p, n);
    if (l->text.failed) /* a view is a fold: without this value it is as old as the one before */
        cut_text(l, op.off);
    else
        add_op(l, &op);
}

bool ledger_dirty(const struct ledger *l)
{
    for (size_t i = 0; i < l->run_count; i++)
        if (l->runs[i].set)
            return true;
    return l->op_first < l->op_count;
}

/* ---- commit ---- */

struct batch {
    struct ledger *l;
    size_t to;
    bool last;
    struct digest head;
    bool head_moved;
};

static enum err_code head_get(struct txn *t, struct digest *out, struct err *err)
{
    struct str value;
    bool found;
    const enum err_code rc = env_get(t, T_META, STR("head"), &value, &found, err);

    *out = (struct digest){{0}};
    if (!rc && found && value.n == DIGEST_BYTES)
        memcpy(out->b, value.p, DIGEST_BYTES);
    return rc;
}

enum err_code head_put(struct txn *t, const struct digest *head, struct err *err)
{
    return env_put(t, T_META, STR("head"), env_bytes(head->b, DIGEST_BYTES), err);
}

/* The run as the table has it, which must be as this process left it. */
static enum err_code touch_run(struct txn *t, struct ledger *l, struct open_run *o, struct err *err)
{
    struct run_row row;
    bool found = false;
    const enum err_code rc = run_row_get(t, o->run, &row, &found, err);

    if (rc || o->touched)
        return rc;
    if (!found)
        return no_such_run(l, o->run, err);
    if (o->loaded && (row.run.events != o->committed || !digest_eq(&row.run.last, &o->last)))
        return err_set(err, ERR_CHANGED,
                       "run-%lld: another process has appended to it (%lld events, not %lld); only "
                       "one may go on with a run",
                       (long long)o->run, (long long)row.run.events, (long long)o->committed);
    o->touched = true;
    o->now = row.run;
    o->flags = row.flags;
    o->seq = row.run.events;
    o->chain = row.run.last;
    return OK;
}

static enum err_code put_event(struct txn *t, struct batch *b, const struct op *op, struct err *err)
{
    struct ledger *l = b->l;
    struct open_run *o = &l->runs[op->run];
    char *text = l->text.p + op->off;
    char hex[DIGEST_HEX + 1];
    uint8_t key[EVENT_KEY];
    enum err_code rc = o->touched ? OK : touch_run(t, l, o, err);

    if (rc)
        return rc;
    CHECK(op->seq == o->seq);
    digest_hex(op->seq == 0 ? &b->head : &o->chain, hex);
    memcpy(l->text.p + op->prev, hex, DIGEST_HEX);
    sha256_init(&l->sha);
    sha256_update(&l->sha, text, op->n);
    sha256_final(&l->sha, &o->chain);
    o->seq++;
    b->head = o->chain;
    b->head_moved = true;
    event_key(o->run, op->seq, key);
    return env_put(t, T_EVENT, env_bytes(key, sizeof(key)), env_bytes(text, op->n), err);
}

/* long key's bytes u32 | long key | value */
static enum err_code put_view(struct txn *t, const struct ledger *l, const struct op *op,
                              struct err *err)
{
    const char *p = l->text.p + op->off;
    const bool is_long = op->key_n > VIEW_KEY_SHORT;
    const uint32_t long_n = htole32(is_long ? (uint32_t)op->key_n : 0);
    const size_t from = is_long ? 0 : op->key_n;
    uint8_t key[ENV_KEY_MAX];
    struct buf value;
    size_t key_n;

    view_key(op->view, env_bytes(p, op->key_n), key, &key_n);
    buf_init(&value, op->n + 4);
    buf_add(&value, &long_n, 4);
    buf_add(&value, p + from, op->n - from);
    enum err_code rc = buf_check(&value, "a view's value", err);
    if (!rc)
        rc = env_put(t, T_VIEW, env_bytes(key, key_n), env_bytes(value.p, value.n), err);
    buf_release(&value);
    return rc;
}

static enum err_code put_run(struct txn *t, struct batch *b, struct open_run *o, struct err *err)
{
    struct run_row row;
    enum err_code rc = OK;

    if (!o->touched && !(b->last && o->set))
        return OK;
    if (!o->touched)
        rc = touch_run(t, b->l, o, err);
    if (rc)
        return rc;
    row = (struct run_row){.run = o->now, .flags = o->flags};
    if (b->last && o->set) {
        row.run = o->row;
        row.run.begun_ns = o->now.begun_ns;
        row.run.options = o->now.options;
        memcpy(row.run.pipeline, o->now.pipeline, sizeof(row.run.pipeline));
    }
    row.run.events = o->seq;
    row.run.last = o->chain;
    return run_row_put(t, &row, err);
}

static enum err_code commit_in(struct txn *t, void *arg, struct err *err)
{
    struct batch *b = arg;
    struct ledger *l = b->l;
    enum err_code rc = head_get(t, &b->head, err);

    b->head_moved = false;
    for (size_t i = 0; i < l->run_count; i++)
        l->runs[i].touched = false;
    for (size_t i = l->op_first; i < b->to && !rc; i++)
        rc = l->ops[i].event ? put_event(t, b, &l->ops[i], err) : put_view(t, l, &l->ops[i], err);
    for (size_t i = 0; i < l->run_count && !rc; i++)
        rc = put_run(t, b, &l->runs[i], err);
    if (!rc && b->head_moved)
        rc = head_put(t, &b->head, err);
    return rc;
}

/* About as many bytes of pages as it dirties: events go side by side, a view to a page of its own. */
static size_t op_cost(const struct op *op)
{
    return op->event ? op->n + 64 + (op->n > 2000 ? 4096 : 0) : op->n + 4096;
}

/* What fits into the next transaction; at least one event with its views.  Views before any event
 * belong to none. */
static size_t batch_end(const struct ledger *l)
{
    size_t bytes = 0, cut = l->op_first;
    bool any = false;

    for (size_t i = l->op_first; i < l->op_count; i++) {
        if ((l->ops[i].event || !any) && i > l->op_first)
            cut = i;
        any = any || l->ops[i].event;
        bytes += op_cost(&l->ops[i]);
        if (bytes > l->batch && cut > l->op_first)
            return cut;
    }
    return l->op_count;
}

static void batch_done(struct ledger *l, const struct batch *b)
{
    for (size_t i = 0; i < l->run_count; i++) {
        struct open_run *o = &l->runs[i];

        if (o->touched && o->loaded) {
            o->committed = o->seq;
            o->last = o->chain;
        }
        if (b->last)
            o->set = false;
    }
    l->op_first = b->to;
    if (l->op_first < l->op_count)
        return;
    l->op_first = l->op_count = 0;
    if (l->text.cap > LEDGER_BATCH_BYTES) /* one huge batch must not stay in memory */
        buf_release(&l->text);
    else
        buf_clear(&l->text);
}

enum err_code ledger_commit(struct ledger *l, struct err *err)
{
    while (ledger_dirty(l)) {
        struct batch b = {.l = l, .to = batch_end(l)};

        b.last = b.to == l->op_count;
        if (env_write(l->env, commit_in, &b, err) != OK)
            return err_prefix(err, "write %zu events", l->op_count - l->op_first);
        batch_done(l, &b);
    }
    return OK;
}
