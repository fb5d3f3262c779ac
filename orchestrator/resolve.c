/* Keys and hits.  Three ways to know a task, the cheapest first:
 *   clean   the memo's row is of this task, and nothing that it was made of differs: no key is made
 *   keyed   its action is streamed and hashed; the memo knows the result of that key to be whole
 *   asked   the index knows the result of that key, and what lies below it is looked at */
#include "orchestrator/resolve.h"

#include <stdlib.h>
#include <string.h>

#include "cluster/attempt.h"
#include "orchestrator/ledger.h"
#include "orchestrator/resolve_internal.h"
#include "store/action.h"
#include "store/tree.h"

/* ---- making one -------------------------------------------------------------------------------- */

static void hash_part(struct sha256 *h, const void *p, size_t n)
{
    const uint64_t size = n;

    sha256_update(h, &size, sizeof(size));
    sha256_update(h, p, n);
}

/* The memo's name: of the file and the options.  Its origin: of their contents too. */
static void name_memo(struct resolver *r, const struct resolver_options *o)
{
    char *full = realpath(r->p->file, NULL), hex[DIGEST_HEX + 1];
    struct sha256 h = {0};
    struct digest name;

    sha256_init(&h);
    hash_part(&h, full ? full : "", full ? strlen(full) : 0);
    hash_part(&h, &r->p->options, sizeof(r->p->options));
    for (size_t i = 0; o->inputs && o->inputs[i]; i++)
        hash_part(&h, o->inputs[i], strlen(o->inputs[i]));
    sha256_final(&h, &name);
    digest_hex(&name, hex);
    r->memo_dir = arena_printf(&r->arena, "%s/cache", r->st->root);
    memcpy(r->memo_name, "plan-", 5);
    memcpy(r->memo_name + 5, hex, 16);
    sha256_init(&h);
    hash_part(&h, WEIR_VERSION, sizeof(WEIR_VERSION));
    hash_part(&h, &name, sizeof(name));
    hash_part(&h, &r->p->origin, sizeof(r->p->origin));
    for (size_t i = 0; i < r->override_count; i++) {
        const struct override *v = &r->overrides[i];
        const int64_t which[] = {v->task, v->input, v->entry, v->object.kind, v->object.size};

        hash_part(&h, which, sizeof(which));
        hash_part(&h, &v->object.digest, sizeof(v->object.digest));
    }
    sha256_final(&h, &r->origin);
    sha256_release(&h);
    r->use_memo = full && !o->no_memo;
    free(full);
}

static void open_memo(struct resolver *r)
{
    const struct memo_head *h = &r->memo.head;

    if (!r->use_memo)
        return;
    memo_open(r->memo_dir, r->memo_name, &r->memo);
    r->rows = r->memo.map && digest_eq(&h->origin, &r->origin) && h->stages == r->p->stage_count &&
              h->sources == r->p->source_count && h->tasks == r->p->task_count;
    r->changed = !r->rows || h->epoch != r->epoch;
}

/* What is wanted, and all that leads there. */
static void find_needed(struct resolver *r, const bool *wanted)
{
    const struct pipeline *p = r->p;

    r->need = arena_array(&r->arena, p->task_count + 1, sizeof(bool));
    r->all = true;
    for (size_t i = p->task_count; i-- > 0;) {
        const int number = p->order[i];
        const struct task *t = &p->tasks[number];

        r->need[number] = r->need[number] || !wanted || wanted[number];
        if (!r->need[number]) {
            r->all = false;
            continue;
        }
        for (size_t k = 0; k < t->input_count; k++) {
            if (resolve_override(r, number, (int)k, -1))
                continue;
            for (size_t j = 0; j < t->inputs[k].ref_count; j++)
                if (t->inputs[k].refs[j].task >= 0 && !resolve_override(r, number, (int)k, (int)j))
                    r->need[t->inputs[k].refs[j].task] = true;
        }
    }
}

static void want_sources(const struct resolver *r, bool *want)
{
    for (size_t i = 0; i < r->p->task_count; i++) {
        const struct task *t = &r->p->tasks[i];

        if (!r->need[i] || t->skipped)
            continue;
        for (size_t k = 0; k < t->input_count; k++)
            for (size_t j = 0; j < t->inputs[k].ref_count; j++)
                if (t->inputs[k].refs[j].source >= 0 && !resolve_override(r, (int)i, (int)k, -1) &&
                    !resolve_override(r, (int)i, (int)k, (int)j))
                    want[t->inputs[k].refs[j].source] = true;
    }
}

static enum err_code enter_sources(struct resolver *r, struct err *err)
{
    const size_t n = r->p->source_count;
    bool *want = arena_array(&r->arena, n + 1, sizeof(*want));
    enum err_code rc;

    want_sources(r, want);
    for (size_t i = 0; i < n; i++)
        want[i] = want[i] && !resolve_override(r, -1, (int)i, -1);
    rc = sources_enter(r->sources, want, err);
    for (size_t i = 0; !rc && i < n; i++) {
        const struct override *o = resolve_override(r, -1, (int)i, -1);
        const struct memo_source *m = r->rows ? &r->memo.sources[i] : NULL;

        if (o)
            r->source[i] = o->object;
        else if (want[i])
            r->source[i] = *source_get(r->sources, (int)i);
        r->source_same[i] = m && m->kind == (uint64_t)r->source[i].kind && m->kind &&
                            digest_eq(&m->digest, &r->source[i].digest);
        r->changed = r->changed || !m || (r->source[i].kind && !r->source_same[i]);
    }
    return rc;
}

enum err_code resolver_new(struct store *st, struct ledger *l, const struct pipeline *p,
                           const struct resolver_options *o, struct resolver **out, struct err *err)
{
    static const struct resolver_options nothing = {0};
    struct resolver *r = mem_zero(1, sizeof(*r));
    enum err_code rc;

    CHECK(st);
    CHECK(p);
    o = o ? o : &nothing;
    r->st = st;
    r->l = l;
    r->ledger_read = o->ledger_read;
    r->p = p;
    arena_init(&r->arena);
    arena_init(&r->scratch);
    buf_init(&r->text, ACTION_BYTES_MAX);
    r->source = arena_array(&r->arena, p->source_count + 1, sizeof(*r->source));
    r->source_same = arena_array(&r->arena, p->source_count + 1, sizeof(bool));
    r->stages = arena_array(&r->arena, p->stage_count + 1, sizeof(*r->stages));
    r->tasks = arena_array(&r->arena, p->task_count + 1, sizeof(*r->tasks));
    rc = store_removal_epoch(st, &r->epoch, err); /* before anything is looked at */
    if (!rc)
        rc = resolve_overrides(r, o->inputs, err);
    if (!rc) {
        name_memo(r, o);
        open_memo(r);
        find_needed(r, o->wanted);
        rc = sources_new(st, p, &o->source, &r->sources, err);
    }
    if (!rc)
        rc = programs_new(st, &r->programs, err);
    if (!rc)
        rc = enter_sources(r, err);
    if (rc) {
        resolver_free(r);
        r = NULL;
    }
    *out = r;
    return rc;
}

void resolver_free(struct resolver *r)
{
    if (!r)
        return;
    sources_free(r->sources);
    programs_free(r->programs);
    memo_close(&r->memo);
    free(r->overrides);
    free(r->table);
    buf_release(&r->text);
    arena_release(&r->scratch);
    arena_release(&r->arena);
    free(r);
}

const struct task_result *resolve_get(const struct resolver *r, int task)
{
    return &r->tasks[task].result;
}

/* ---- outputs of results ------------------------------------------------------------------------ */

struct view_output { /* VIEW_RESULT: result[32], then these */
    struct digest digest;
    uint8_t size[8], kind;
};
_Static_assert(sizeof(struct view_output) == 41, "ledger format");

static size_t output_count(const struct stage *st)
{
    size_t n = 0;

    while (st->outputs[n])
        n++;
    return n;
}

static struct card_object *new_outputs(struct resolver *r, int task, size_t *count)
{
    const struct stage *st = &r->p->stages[r->p->tasks[task].stage];
    struct card_object *list;

    *count = output_count(st);
    list = arena_array(&r->arena, *count + 1, sizeof(*list));
    for (size_t i = 0; i < *count; i++)
        list[i].name = st->outputs[i];
    return list;
}

static bool outputs_from_view(struct resolver *r, const struct digest *key,
                              const struct digest *result, struct card_object *list, size_t count)
{
    struct err none = ERR_INIT;
    struct buf text = {0};
    bool good;

    if (!r->l)
        return false;
    buf_init(&text, LEDGER_EVENT_MAX);
    good = ledger_view_get(r->l, VIEW_RESULT, key, sizeof(*key), &text, &none) == OK &&
           text.n == sizeof(*result) + count * sizeof(struct view_output) &&
           memcmp(text.p, result, sizeof(*result)) == 0;
    for (size_t i = 0; good && i < count; i++) {
        struct view_output v;

        memcpy(&v, text.p + sizeof(*result) + i * sizeof(v), sizeof(v));
        list[i].digest = v.digest;
        list[i].kind = v.kind == OBJ_TREE ? OBJ_TREE : OBJ_BLOB;
        list[i].size = 0;
        for (int k = 7; k >= 0; k--)
            list[i].size = list[i].size << 8 | v.size[k];
        good = v.kind == OBJ_TREE || v.kind == OBJ_BLOB;
    }
    buf_release(&text);
    return good;
}

static void outputs_to_view(struct resolver *r, const struct digest *key,
                            const struct digest *result, const struct card_object *list,
                            size_t count)
{
    struct buf text = {0};

    if (!r->l || r->ledger_read)
        return;
    buf_init(&text, LEDGER_EVENT_MAX);
    buf_add(&text, result, sizeof(*result));
    for (size_t i = 0; i < count; i++) {
        struct view_output v = {.digest = list[i].digest, .kind = (uint8_t)list[i].kind};

        for (int k = 0; k < 8; k++)
            v.size[k] = (uint8_t)((uint64_t)list[i].size >> (8 * k));
        buf_add(&text, &v, sizeof(v));
    }
    if (!text.failed)
        ledger_view_set(r->l, VIEW_RESULT, key, sizeof(*key), text.p, text.n);
    buf_release(&text);
}

static enum err_code outputs_from_tree(struct resolver *r, int task, const struct digest *result,
                                       struct card_object *list, size_t count, struct err *err)
{
    struct tree outs = {0};
    enum err_code rc = attempt_result_outputs(r->st, result, &outs, err);

    for (size_t i = 0; !rc && i < count; i++) {
        const struct tree_entry *e = tree_find(&outs, str_of(list[i].name));

        if (!e || e->mode == TREE_LINK) {
            rc = err_set(err, ERR_DAMAGED, "the result of %s has no output %s",
                         r->p->tasks[task].name, list[i].name);
            break;
        }
        list[i].kind = e->mode == TREE_DIR ? OBJ_TREE : OBJ_BLOB;
        list[i].digest = e->digest;
        list[i].size = e->size;
    }
    tree_release(&outs);
    return rc;
}

static bool outputs_same(const struct resolver *r, int task)
{
    const struct task_result *t = &r->tasks[task].result;
    const struct memo_task *row = r->rows ? &r->memo.tasks[task] : NULL;

    if (!row || !(row->flags & MEMO_KNOWN) || row->count != t->output_count)
        return false;
    for (size_t i = 0; i < t->output_count; i++) {
        const struct memo_output *o = &r->memo.outputs[row->first + i];

        if (!digest_eq(&o->digest, &t->outputs[i].digest) ||
            o->kind != (uint64_t)t->outputs[i].kind)
            return false;
    }
    return true;
}

/* It has this result, which is whole. */
static enum err_code set_result(struct resolver *r, int task, const struct digest *result,
                                struct err *err)
{
    struct task_state *s = &r->tasks[task];
    size_t count;
    struct card_object *list = new_outputs(r, task, &count);
    enum err_code rc = OK;

    if (!outputs_from_view(r, &s->result.key, result, list, count)) {
        rc = outputs_from_tree(r, task, result, list, count, err);
        if (!rc)
            outputs_to_view(r, &s->result.key, result, list, count);
    }
    if (rc)
        return rc;
    s->result.known = true;
    s->result.result = *result;
    s->result.outputs = list;
    s->result.output_count = count;
    s->looked = true;
    s->same = outputs_same(r, task);
    return OK;
}

static bool set_from_row(struct resolver *r, int task, const struct memo_task *row)
{
    struct task_state *s = &r->tasks[task];
    size_t count;
    struct card_object *list = new_outputs(r, task, &count);

    if (row->count != count)
        return false;
    for (size_t i = 0; i < count; i++) {
        const struct memo_output *o = &r->memo.outputs[row->first + i];

        list[i].digest = o->digest;
        list[i].size = o->size;
        list[i].kind = o->kind == OBJ_TREE ? OBJ_TREE : OBJ_BLOB;
    }
    s->result.known = true;
    s->result.result = row->result;
    s->result.outputs = list;
    s->result.output_count = count;
    s->looked = true;
    return true;
}

/* ---- the memo ---------------------------------------------------------------------------------- */

static bool inputs_same(const struct resolver *r, int task)
{
    const struct task *t = &r->p->tasks[task];

    for (size_t i = 0; i < t->input_count; i++) {
        if (r->overridden && resolve_override(r, task, (int)i, -1))
            continue; /* what --input names is part of the origin */
        for (size_t k = 0; k < t->inputs[i].ref_count; k++) {
            const struct task_input_ref *ref = &t->inputs[i].refs[k];

            if (r->overridden && resolve_override(r, task, (int)i, (int)k))
                continue;
            if (ref->source >= 0 ? !r->source_same[ref->source] : !r->tasks[ref->task].same)
                return false;
        }
    }
    return true;
}

/* The memo's row holds for this task: then it is keyed, and known if the row says so and nothing has left the store. */
static enum err_code try_clean(struct resolver *r, int task, struct err *err)
{
    struct task_state *s = &r->tasks[task];
    const struct memo_task *row = r->rows ? &r->memo.tasks[task] : NULL;
    struct stage_part *part;
    enum err_code rc = resolve_stage(r, r->p->tasks[task].stage, &part, err);

    if (rc || !row || !(row->flags & MEMO_KEYED) || !part->same || !inputs_same(r, task))
        return rc;
    s->result.key = row->key;
    s->keyed = true;
    if ((row->flags & MEMO_KNOWN) && r->memo.head.epoch == r->epoch && set_from_row(r, task, row))
        s->same = true;
    return OK;
}

static size_t slot_of(const struct resolver *r, const struct digest *key)
{
    uint64_t h;

    memcpy(&h, key, sizeof(h));
    return (size_t)h & r->table_mask;
}

/* Of a pipeline that was edited since, the memo still knows which keys have which results. */
static const struct memo_task *row_of_key(struct resolver *r, const struct digest *key)
{
    const struct memo_head *h = &r->memo.head;

    if (!r->memo.map || h->epoch != r->epoch)
        return NULL;
    if (!r->table) {
        size_t slots = 16;

        while (slots < 2 * h->tasks)
            slots *= 2;
        r->table = mem_zero(slots, sizeof(*r->table));
        r->table_mask = slots - 1;
        for (size_t i = 0; i < h->tasks; i++) {
            size_t at = slot_of(r, &r->memo.tasks[i].key);

            if (!(r->memo.tasks[i].flags & MEMO_KNOWN))
                continue;
            while (r->table[at])
                at = (at + 1) & r->table_mask;
            r->table[at] = (uint32_t)i + 1;
        }
    }
    for (size_t at = slot_of(r, key); r->table[at]; at = (at + 1) & r->table_mask)
        if (digest_eq(&r->memo.tasks[r->table[at] - 1].key, key))
            return &r->memo.tasks[r->table[at] - 1];
    return NULL;
}

/* ---- keys -------------------------------------------------------------------------------------- */

enum err_code resolve_text(struct resolver *r, int task, const char *without, struct err *err)
{
    const struct arena_mark mark = arena_mark(&r->scratch);
    struct ready_task ready;
    enum err_code rc = resolve_ready(r, task, NULL, &ready, err);

    buf_clear(&r->text);
    if (!rc) {
        ready.without = without;
        rc = task_action_text(&ready, &r->text, err);
    }
    arena_rewind(&r->scratch, mark);
    return rc;
}

/* Its key; and its result, when the memo knows that.  All inputs are known. */
static enum err_code key_task(struct resolver *r, int task, struct err *err)
{
    struct task_state *s = &r->tasks[task];
    const struct memo_task *row;
    enum err_code rc = try_clean(r, task, err);

    if (rc || s->keyed)
        return rc;
    r->changed = true;
    rc = resolve_text(r, task, NULL, err);
    if (rc)
        return rc;
    sha256_of(r->text.p, r->text.n, &s->result.key);
    s->keyed = true;
    row = row_of_key(r, &s->result.key);
    if (row && set_from_row(r, task, row))
        s->same = outputs_same(r, task);
    return OK;
}

/* The index says that its key has a result: is all of it there? */
static enum err_code confirm(struct resolver *r, int task, struct err *err)
{
    struct task_state *s = &r->tasks[task];
    struct digest result;
    enum err_code rc = action_lookup(r->st, &s->result.key, &result, err);

    r->changed = true;
    if (!rc)
        rc = set_result(r, task, &result, err);
    if (rc != ERR_NOT_FOUND)
        return rc;
    *err = (struct err)ERR_INIT;
    s->looked = true;
    return OK;
}

enum err_code resolve_task(struct resolver *r, int task, struct task_result *t, struct err *err)
{
    struct task_state *s = &r->tasks[task];
    enum err_code rc = OK;

    if (!s->result.known && !resolve_inputs_known(r, task))
        return err_set(err, ERR_AGAIN, "task %s: an input is not known yet",
                       r->p->tasks[task].name);
    if (!s->keyed)
        rc = key_task(r, task, err);
    if (!rc && !s->result.known) /* also when it was asked before: others may have made it since */
        rc = confirm(r, task, err);
    if (t)
        *t = s->result;
    return rc;
}

static bool outputs_equal(const struct task_result *a, const struct task_result *b)
{
    bool equal = a->known && b->known && a->output_count == b->output_count;

    for (size_t i = 0; equal && i < a->output_count; i++)
        equal = digest_eq(&a->outputs[i].digest, &b->outputs[i].digest);
    return equal;
}

/* A task that was known has been made again and came out otherwise: what was keyed with the old outputs is keyed no more. */
static void forget_users(struct resolver *r, int task)
{
    bool *stale = mem_zero(r->p->task_count + 1, sizeof(*stale));

    stale[task] = true;
    for (size_t i = 0; i < r->p->task_count; i++) {
        const int number = r->p->order[i];
        const struct task *t = &r->p->tasks[number];

        for (size_t k = 0; k < t->input_count; k++)
            for (size_t j = 0; j < t->inputs[k].ref_count; j++)
                if (t->inputs[k].refs[j].task >= 0 && stale[t->inputs[k].refs[j].task])
                    stale[number] = true;
        if (stale[number] && number != task)
            r->tasks[number] = (struct task_state){0};
    }
    free(stale);
}

enum err_code resolve_post(struct resolver *r, int task, const struct digest *result,
                           struct err *err)
{
    struct task_state *s = &r->tasks[task];
    const struct task_result before = s->result;
    enum err_code rc;

    CHECK(s->keyed);
    r->changed = true;
    rc = set_result(r, task, result, err);
    if (!rc && before.known && !outputs_equal(&before, &s->result))
        forget_users(r, task);
    return rc;
}

/* ---- all of them ------------------------------------------------------------------------------- */

struct sweep {
    int *level, *list; /* per task; task numbers by level */
    size_t *first;     /* of each level in list */
    size_t levels;
    struct digest *keys, *results;
    bool *hits;
    int *asked;
    size_t asked_count;
};

/* A task comes after those that it needs; what is known already is on no level (-1). */
static void find_levels(struct resolver *r, struct arena *a, struct sweep *s)
{
    const struct pipeline *p = r->p;
    size_t *fill;

    s->level = arena_array(a, p->task_count + 1, sizeof(*s->level));
    for (size_t i = 0; i < p->task_count; i++) {
        const int number = p->order[i];
        const struct task *t = &p->tasks[number];
        int level = 0;

        if (!r->need[number] || t->skipped || r->tasks[number].result.known) {
            s->level[number] = -1;
            continue;
        }
        for (size_t k = 0; k < t->input_count; k++)
            for (size_t j = 0; j < t->inputs[k].ref_count; j++) {
                const int from = t->inputs[k].refs[j].task;

                if (from >= 0 && s->level[from] >= level)
                    level = s->level[from] + 1;
            }
        s->level[number] = level;
        if ((size_t)level >= s->levels)
            s->levels = (size_t)level + 1;
    }
    s->first = arena_array(a, s->levels + 2, sizeof(*s->first));
    fill = arena_array(a, s->levels + 2, sizeof(*fill));
    s->list = arena_array(a, p->task_count + 1, sizeof(*s->list));
    for (size_t i = 0; i < p->task_count; i++)
        if (s->level[i] >= 0)
            s->first[s->level[i] + 1]++;
    for (size_t i = 0; i < s->levels; i++)
        s->first[i + 1] += s->first[i];
    memcpy(fill, s->first, (s->levels + 1) * sizeof(*fill));
    for (size_t i = 0; i < p->task_count; i++)
        if (s->level[i] >= 0)
            s->list[fill[s->level[i]]++] = (int)i;
}

/* One level: keys first, then one question to the index for all that the memo does not know. */
static enum err_code sweep_level(struct resolver *r, struct sweep *s, size_t level, struct err *err)
{
    enum err_code rc = OK;

    s->asked_count = 0;
    for (size_t i = s->first[level]; !rc && i < s->first[level + 1]; i++) {
        const int number = s->list[i];

        if (!r->tasks[number].keyed) {
            if (!resolve_inputs_known(r, number))
                continue;
            rc = key_task(r, number, err);
        }
        if (!rc && !r->tasks[number].result.known) {
            s->keys[s->asked_count] = r->tasks[number].result.key;
            s->asked[s->asked_count++] = number;
        }
    }
    if (!rc && s->asked_count)
        rc = action_lookup_many(r->st, s->keys, s->asked_count, s->results, s->hits, err);
    for (size_t i = 0; !rc && i < s->asked_count; i++) {
        r->tasks[s->asked[i]].looked = true;
        if (s->hits[i])
            rc = confirm(r, s->asked[i], err);
    }
    return rc;
}

static enum err_code sweep_rest(struct resolver *r, struct err *err)
{
    struct arena a;
    struct sweep s = {0};
    size_t widest = 0;
    enum err_code rc = OK;

    arena_init(&a);
    find_levels(r, &a, &s);
    for (size_t i = 0; i < s.levels; i++)
        if (s.first[i + 1] - s.first[i] > widest)
            widest = s.first[i + 1] - s.first[i];
    s.keys = arena_array(&a, widest + 1, sizeof(*s.keys));
    s.results = arena_array(&a, widest + 1, sizeof(*s.results));
    s.hits = arena_array(&a, widest + 1, sizeof(*s.hits));
    s.asked = arena_array(&a, widest + 1, sizeof(*s.asked));
    for (size_t i = 0; !rc && i < s.levels; i++)
        rc = sweep_level(r, &s, i, err);
    arena_release(&a);
    return rc;
}

enum err_code resolve_all(struct resolver *r, struct task_result *results, bool *keyed,
                          struct err *err)
{
    const struct pipeline *p = r->p;
    size_t open = 0;
    enum err_code rc = OK;

    /* When nothing has changed this is all. */
    for (size_t i = 0; !rc && i < p->task_count; i++) {
        const int number = p->order[i];

        if (!r->need[number] || p->tasks[number].skipped || r->tasks[number].result.known)
            continue;
        if (!r->tasks[number].keyed && r->rows)
            rc = try_clean(r, number, err);
        open += !r->tasks[number].result.known;
    }
    if (!rc && open)
        rc = sweep_rest(r, err);
    for (size_t i = 0; !rc && i < p->task_count; i++) {
        if (results)
            results[i] = r->tasks[i].result;
        if (keyed)
            keyed[i] = r->tasks[i].keyed;
    }
    return rc;
}
