/* Planning and running.
 *
 * One pass drops what leads nowhere, one finds first and last use of each piece of memory, one places the pieces: best fit
 * among the holes that are free during the whole life, in order of birth, as ggml's graph allocator does. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "kernels/tape_internal.h"

#define PLACE_ALIGN 64

struct hole {
    int64_t at, size;
};
struct holes {
    struct hole *list;
    int count, room;
    int64_t end; /* of everything ever placed */
};

int tape_base(const struct tape *t, int v)
{
    while (t->value[v].base != v)
        v = t->value[v].base;
    return v;
}

static int64_t exact_bytes(const struct value *v)
{
    return shape_count(v->shape) * (int64_t)dtype_size(v->type);
}

static int64_t value_bytes(const struct value *v)
{
    return ceil_div(exact_bytes(v), PLACE_ALIGN) * PLACE_ALIGN;
}

/* What a value takes in the arena: a guard on both sides where the tape watches its operators. */
static int64_t span_bytes(const struct tape *t, const struct value *v)
{
    return value_bytes(v) + (t->poison ? 2 * PLACE_ALIGN : 0);
}

static void drop_dead(struct tape *t)
{
    bool *used = mem_zero((size_t)t->values, sizeof(*used));

    for (int i = t->nodes - 1; i >= 0; i--) {
        struct node *n = &t->node[i];

        for (int k = 0; k < n->outputs; k++)
            n->live |= t->value[n->out[k]].keep || used[n->out[k]];
        for (int k = 0; n->live && k < n->inputs; k++)
            used[n->in[k]] = true;
    }
    free(used);
}

static void find_lives(struct tape *t)
{
    for (int i = 0; i < t->nodes; i++) {
        const struct node *n = &t->node[i];

        for (int k = 0; n->live && k < n->inputs; k++)
            t->value[tape_base(t, n->in[k])].last = i;
        for (int k = 0; n->live && k < n->outputs; k++) {
            struct value *v = &t->value[tape_base(t, n->out[k])];

            if (v->last < i)
                v->last = i; /* outputs nobody reads live for their node */
        }
    }
    for (int v = 1; v < t->values; v++)
        if (t->value[v].keep)
            t->value[tape_base(t, v)].last = t->nodes;
}

static int64_t take(struct holes *h, int64_t size)
{
    int best = -1;
    int64_t at;

    for (int i = 0; i < h->count; i++)
        if (h->list[i].size >= size && (best < 0 || h->list[i].size < h->list[best].size))
            best = i;
    if (best < 0) { /* grow the end, starting in the last hole if it touches it */
        struct hole *last = h->count ? &h->list[h->count - 1] : NULL;

        at = last && last->at + last->size == h->end ? last->at : h->end;
        h->count -= at != h->end;
        h->end = at + size;
        return at;
    }
    at = h->list[best].at;
    h->list[best].at += size;
    h->list[best].size -= size;
    if (h->list[best].size == 0)
        memmove(&h->list[best], &h->list[best + 1], (size_t)(--h->count - best) * sizeof(*h->list));
    return at;
}

static void give(struct holes *h, int64_t at, int64_t size)
{
    int i = 0;

    if (h->count == h->room) {
        h->room = h->room ? h->room * 2 : 64;
        h->list = mem_grow(h->list, (size_t)h->room, sizeof(*h->list));
    }
    while (i < h->count && h->list[i].at < at)
        i++;
    memmove(&h->list[i + 1], &h->list[i], (size_t)(h->count - i) * sizeof(*h->list));
    h->list[i] = (struct hole){at, size};
    h->count++;
    for (int k = i ? i - 1 : 0; k < h->count - 1 && k <= i;) {
        if (h->list[k].at + h->list[k].size != h->list[k + 1].at) {
            k++;
            continue;
        }
        h->list[k].size += h->list[k + 1].size;
        memmove(&h->list[k + 1], &h->list[k + 2], (size_t)(--h->count - k - 1) * sizeof(*h->list));
        i--;
    }
}

/* The input whose memory output 0 of node i may take, or 0. */
static int in_place(const struct tape *t, int i)
{
    const struct node *n = &t->node[i];
    const struct value *out = &t->value[n->out[0]];

    for (int k = 0; k < n->inputs; k++) {
        int base = tape_base(t, n->in[k]);
        const struct value *v = &t->value[base];
        bool twice = false;

        for (int j = 0; j < n->inputs; j++)
            twice |= j != k && n->in[j] && tape_base(t, n->in[j]) == base;
        if ((n->op->in_place & 1u << k) && n->in[k] && !twice && v->kind == VALUE_ACT &&
            v->last == i && value_bytes(v) == value_bytes(out) && out->kind == VALUE_ACT)
            return base;
    }
    return 0;
}

static void place_node(struct tape *t, int i, struct holes *h)
{
    struct node *n = &t->node[i];

    for (int k = 0; k < n->outputs; k++) {
        int base = tape_base(t, n->out[k]);
        struct value *v = &t->value[base];
        int host;

        if (v->kind != VALUE_ACT || v->placed)
            continue;
        v->placed = true;
        host = k == 0 && base == n->out[0] ? in_place(t, i) : 0;
        if (host) {
            v->base = host;
            t->value[host].last = v->last;
        } else {
            v->at = take(h, span_bytes(t, v)) + (t->poison ? PLACE_ALIGN : 0);
        }
    }
    for (int k = 0; k < n->inputs + n->outputs; k++) {
        int base = tape_base(t, k < n->inputs ? n->in[k] : n->out[k - n->inputs]);
        struct value *v = &t->value[base];

        if (v->kind != VALUE_ACT || !v->placed || v->last != i)
            continue;
        give(h, v->at - (t->poison ? PLACE_ALIGN : 0), span_bytes(t, v));
        v->last = -2; /* given back once */
    }
}

static void place(struct tape *t)
{
    struct holes h = {0};
    int64_t inputs = 0;

    for (int v = 1; v < t->values; v++) {
        struct value *x = &t->value[v];

        if (x->kind == VALUE_INPUT) {
            x->at = inputs;
            x->placed = true;
            inputs += value_bytes(x);
        }
    }
    for (int i = 0; i < t->nodes; i++)
        if (t->node[i].live)
            place_node(t, i, &h);
    for (int v = 1; v < t->values; v++) {
        struct value *x = &t->value[v];

        if (x->kind == VALUE_ACT && x->base == v && x->placed) {
            x->at += inputs;
            t->total_bytes += value_bytes(x);
        }
    }
    t->input_bytes = inputs;
    t->arena_bytes = inputs + h.end;
    free(h.list);
}

static void *aligned(int64_t bytes)
{
    return aligned_alloc(PLACE_ALIGN, (size_t)(ceil_div(bytes + 1, PLACE_ALIGN) * PLACE_ALIGN));
}

static enum err_code get_memory(struct tape *t, int64_t shared, int64_t each, struct err *err)
{
    t->threads = op_thread_count();
    t->scratch_bytes = shared + each * t->threads;
    t->arena = aligned(t->arena_bytes);
    t->scratch = aligned(t->scratch_bytes);
    if (!t->arena || !t->scratch)
        return err_set(err, ERR_FULL,
                       "cannot allocate %" PRId64 " bytes for activations and %" PRId64
                       " for scratch: use smaller batches or recompute segments",
                       t->arena_bytes, t->scratch_bytes);
    memset(t->arena, 0, (size_t)t->arena_bytes);
    memset(t->scratch, 0, (size_t)t->scratch_bytes);
    return OK;
}

static enum err_code make_ready(struct tape *t, struct err *err)
{
    int64_t shared = 0, each = 0;

    for (int v = 1; v < t->values; v++) {
        const struct value *x = &t->value[v];

        if (x->kind == VALUE_PARAM && !x->set->value)
            return err_set(err, ERR_INPUT,
                           "the parameter set is not sealed: call params_seal "
                           "before tape_plan");
        if (x->kind == VALUE_GRAD && params_need_grad(x->set, err) != OK)
            return err->code;
    }
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < t->nodes; i++) {
            struct node *n = &t->node[i];
            struct op_space need = {0};

            if (!n->live)
                continue;
            tape_fill_call(t, n, &n->call);
            if (n->op->space)
                n->op->space(&n->call, &need);
            shared = need.shared > shared ? need.shared : shared;
            each = need.per_thread > each ? need.per_thread : each;
            n->call.shared = t->scratch;
        }
        shared = ceil_div(shared, PLACE_ALIGN) * PLACE_ALIGN;
        each = ceil_div(each, PLACE_ALIGN) * PLACE_ALIGN;
        for (int i = 0; pass && i < t->nodes; i++) {
            t->node[i].call.private_ = t->scratch + shared;
            t->node[i].call.private_bytes = each;
        }
        if (!pass && get_memory(t, shared, each, err) != OK)
            return err->code;
    }
    return OK;
}

enum err_code tape_plan(struct tape *t, struct err *err)
{
    if (!t->planned && !tape_failed(t)) {
        CHECK(t->segment == 0);
        t->planned = true;
        drop_dead(t);
        find_lives(t);
        place(t);
        (void)make_ready(t, &t->err); /* the error is kept */
    }
    t->planned = true;
    *err = t->err;
    return t->err.code;
}

struct tensor tape_tensor(const struct tape *t, struct val v)
{
    const struct value *x = &t->value[v.id], *base = &t->value[tape_base(t, v.id)];
    struct tensor out = {.shape = x->shape, .type = x->type};

    if (base->kind == VALUE_PARAM && base->set->value)
        out.data = params_value(base->set, base->param);
    else if (base->kind == VALUE_GRAD && base->set->grad)
        out.data = params_grad(base->set, base->param);
    else if ((base->kind == VALUE_INPUT || base->kind == VALUE_ACT) && t->arena && base->placed)
        out.data = t->arena + base->at;
    return out;
}

void *tape_data(const struct tape *t, struct val v)
{
    CHECK(v.id > 0 && v.id < t->values && t->planned && t->err.code == OK);
    return tape_tensor(t, v).data;
}

void tape_poison(struct tape *t, bool on)
{
    CHECK(!t->planned);
    t->poison = on;
}

#define GUARD_BYTE 0x5a

/* The bytes around an output: up to the end of its block and the guards on both sides. */
static bool guards_are(const struct tape *t, const struct value *v, bool set)
{
    unsigned char *p = (unsigned char *)t->arena + v->at;
    int64_t n = exact_bytes(v), end = value_bytes(v) + PLACE_ALIGN;

    for (int64_t i = -PLACE_ALIGN; i < end; i = i == -1 ? n : i + 1) {
        if (set)
            p[i] = GUARD_BYTE;
        else if (p[i] != GUARD_BYTE)
            return false;
    }
    return true;
}

/* Outputs and scratch start as NaN, and nothing around outputs may change.  Inputs may not change either, but an operator
 * that writes those writes over a guard or fails its test. */
static void run_watched(const struct tape *t, const struct node *n)
{
    bool shared[OP_OUTPUTS_MAX] = {false};

    memset(t->scratch, 0xff, (size_t)t->scratch_bytes);
    for (int k = 0; k < n->outputs; k++) {
        const struct value *v = &t->value[tape_base(t, n->out[k])];

        for (int i = 0; i < n->inputs; i++)
            shared[k] |= n->in[i] && tape_base(t, n->in[i]) == tape_base(t, n->out[k]);
        if (v->kind != VALUE_ACT || shared[k])
            continue;
        memset(t->arena + v->at, 0xff, (size_t)exact_bytes(v));
        guards_are(t, v, true);
    }
    op_table()->run[n->op->kernel](&n->call);
    for (int k = 0; k < n->outputs; k++) {
        const struct value *v = &t->value[tape_base(t, n->out[k])];

        if (v->kind == VALUE_ACT && !guards_are(t, v, false)) {
            fprintf(stderr, "operator %s wrote outside its output %d\n", n->op->name, k);
            check_failed("guard bytes unchanged", __FILE__, __LINE__);
        }
    }
}

void tape_run(struct tape *t)
{
    const struct kernel_table *table = op_table();

    CHECK(t->planned && t->err.code == OK && table->type == t->type);
    CHECK(op_thread_count() <= t->threads);
    for (int i = 0; i < t->nodes; i++) {
        const struct node *n = &t->node[i];

        if (!n->live || n->op == &op_view)
            continue;
        if (t->poison)
            run_watched(t, n);
        else
            table->run[n->op->kernel](&n->call);
    }
}

int64_t tape_peak_bytes(const struct tape *t)
{
    return t->arena_bytes;
}

int64_t tape_flops(const struct tape *t)
{
    int64_t sum = 0;

    for (int i = 0; i < t->nodes; i++)
        if (t->node[i].live && t->node[i].op->flops)
            sum += t->node[i].op->flops(&t->node[i].call);
    return sum;
}

void tape_plan_text(const struct tape *t, struct buf *out)
{
    char peak[16], sum[16], inputs[16], scratch[16];
    int live = 0;

    for (int i = 0; i < t->nodes; i++)
        live += t->node[i].live;
    str_from_bytes(t->arena_bytes - t->input_bytes, peak);
    str_from_bytes(t->total_bytes, sum);
    str_from_bytes(t->input_bytes, inputs);
    str_from_bytes(t->scratch_bytes, scratch);
    buf_printf(out,
               "%d nodes of %d recorded; activations %s at the peak (%s without sharing), "
               "inputs %s, scratch %s\n",
               live, t->nodes, peak, sum, inputs, scratch);
    for (int i = 0; i < t->nodes; i++) {
        int count = 0, first = 1;

        for (int j = 0; j < t->nodes; j++)
            if (t->node[j].live && t->node[j].op == t->node[i].op) {
                count++;
                first &= j >= i;
            }
        if (t->node[i].live && first && t->node[i].op != &op_view)
            buf_printf(out, "    %5d %s%s\n", count, t->node[i].op->name,
                       t->node[i].op->cuda ? "" : " (no CUDA twin)");
    }
}
