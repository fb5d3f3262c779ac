/* Recording.  A failed tape goes on accepting calls and gives a value of shape (1), so that builders need no checks. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "kernels/tape_internal.h"

#define NODES_MAX (1 << 20)

struct tape *tape_new(enum dtype type)
{
    struct tape *t = mem_zero(1, sizeof(*t));

    CHECK(type == DT_F32 || type == DT_F64);
    t->type = type;
    tape_new_value(t, VALUE_INPUT, SHAPE(1), type); /* id 0 is "none" */
#ifdef WEIR_DEBUG
    t->poison = true;
#endif
    return t;
}

void tape_free(struct tape *t)
{
    if (!t)
        return;
    for (int i = 0; i < t->values; i++)
        free((void *)(uintptr_t)t->value[i].name);
    free(t->value);
    free(t->node);
    free(t->arena);
    free(t->scratch);
    free(t);
}

enum dtype tape_type(const struct tape *t)
{
    return t->type;
}

bool tape_failed(const struct tape *t)
{
    return t->err.code != OK;
}

void tape_fail(struct tape *t, const char *fmt, ...)
{
    char text[ERR_TEXT_MAX];
    va_list ap;

    if (tape_failed(t))
        return;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    err_set(&t->err, ERR_INPUT, "%s", text);
}

int tape_new_value(struct tape *t, enum value_kind kind, struct shape shape, enum dtype type)
{
    CHECK(!t->planned);
    if (t->values == t->value_room) {
        t->value_room = t->value_room ? t->value_room * 2 : 256;
        t->value = mem_grow(t->value, (size_t)t->value_room, sizeof(*t->value));
    }
    t->value[t->values] = (struct value){
        .shape = shape, .type = type, .kind = kind, .maker = -1, .base = t->values, .last = -1};
    return t->values++;
}

struct val tape_input(struct tape *t, const char *name, enum dtype type, struct shape shape)
{
    struct val v = {tape_new_value(t, VALUE_INPUT, shape, type)};

    t->value[v.id].name = mem_strdup(name);
    return v;
}

/* One value per parameter, so that gradients from all uses meet. */
static int param_value(struct tape *t, enum value_kind kind, struct params *ps, int param)
{
    int v;

    for (v = 1; v < t->values; v++)
        if (t->value[v].kind == kind && t->value[v].set == ps && t->value[v].param == param)
            return v;
    v = tape_new_value(t, kind, ps->list[param].shape, ps->type);
    t->value[v].set = ps;
    t->value[v].param = param;
    return v;
}

int tape_grad_slot(struct tape *t, struct params *ps, int param)
{
    return param_value(t, VALUE_GRAD, ps, param);
}

struct val tape_param(struct tape *t, struct params *ps, struct shape shape, enum param_init init,
                      double scale, const char *fmt, ...)
{
    char name[PARAM_NAME_MAX];
    struct err err = ERR_INIT;
    va_list ap;
    int index, n;

    va_start(ap, fmt);
    n = vsnprintf(name, sizeof(name), fmt, ap);
    va_end(ap);
    CHECK(n > 0 && (size_t)n < sizeof(name));
    if (ps->type != t->type)
        tape_fail(t, "parameter %s is %s on a tape of %s", name, dtype_name(ps->type),
                  dtype_name(t->type));
    else if (params_add(ps, name, shape, init, scale, &index, &err) != OK)
        tape_fail(t, "%s", err.text);
    else
        return (struct val){param_value(t, VALUE_PARAM, ps, index)};
    return (struct val){tape_new_value(t, VALUE_INPUT, shape, t->type)};
}

static int new_node(struct tape *t, const struct op *op, const struct attr *attr)
{
    struct node *n;

    CHECK(t->nodes < NODES_MAX);
    if (t->nodes == t->node_room) {
        t->node_room = t->node_room ? t->node_room * 2 : 256;
        t->node = mem_grow(t->node, (size_t)t->node_room, sizeof(*t->node));
    }
    n = &t->node[t->nodes];
    *n = (struct node){.op = op, .segment = t->segment};
    if (attr)
        n->attr = *attr;
    return t->nodes++;
}

/* Shapes and types of a node's values; data where it is known. */
void tape_fill_call(const struct tape *t, const struct node *n, struct call *c)
{
    *c = (struct call){.attr = &n->attr, .inputs = n->inputs};
    for (int i = 0; i < n->inputs; i++)
        if (n->in[i])
            c->in[i] = tape_tensor(t, (struct val){n->in[i]});
    for (int i = 0; i < n->outputs; i++)
        c->out[i] = tape_tensor(t, (struct val){n->out[i]});
}

static void say_mismatch(struct tape *t, const struct op *op, const struct call *c,
                         const struct err *err)
{
    char line[400], one[SHAPE_TEXT_MAX];
    size_t n = 0;

    for (int i = 0; i < c->inputs && n < sizeof(line); i++)
        n += (size_t)snprintf(line + n, sizeof(line) - n, "%s%s%s", i ? ", " : "",
                              c->in[i].shape.rank ? dtype_name(c->in[i].type) : "none",
                              c->in[i].shape.rank ? shape_text(c->in[i].shape, one) : "");
    tape_fail(t, "operator %s: %s; it was given %s", op->name, err->text, line);
}

struct val tape_op(struct tape *t, const struct op *op, const struct attr *attr,
                   const struct val *in, int inputs)
{
    int at = new_node(t, op, attr), first = t->values;
    struct err err = ERR_INIT;
    struct call c;

    CHECK(inputs >= op->inputs_min && inputs <= op->inputs_max);
    t->node[at].inputs = inputs;
    for (int i = 0; i < inputs; i++) {
        CHECK(in[i].id >= 0 && in[i].id < t->values && (in[i].id || i >= op->inputs_min));
        t->node[at].in[i] = in[i].id;
    }
    tape_fill_call(t, &t->node[at], &c);
    c.attr = &t->node[at].attr;
    if (!tape_failed(t) && op->infer(&c, &err) != OK)
        say_mismatch(t, op, &c, &err);
    for (int k = 0; k < op->outputs; k++) {
        bool given = !tape_failed(t) && c.out[k].shape.rank;
        int v;

        if (k && !given && !tape_failed(t))
            break;
        v = tape_new_value(t, VALUE_ACT, given ? c.out[k].shape : SHAPE(1),
                           given ? c.out[k].type : t->type);
        t->value[v].maker = at;
        t->node[at].out[k] = v;
        t->node[at].outputs = k + 1;
    }
    return (struct val){first};
}

struct val tape_next(struct val v, int k)
{
    return (struct val){v.id + k};
}

struct shape tape_shape(const struct tape *t, struct val v)
{
    CHECK(v.id > 0 && v.id < t->values);
    return t->value[v.id].shape;
}

static enum err_code view_infer(struct call *c, struct err *err)
{
    struct shape s = {.rank = c->attr->rank};

    memcpy(s.dim, c->attr->dim, sizeof(s.dim));
    if (shape_count(s) != shape_count(c->in[0].shape))
        return err_set(err, ERR_INPUT, "a reshape keeps the number of elements");
    c->out[0] = (struct tensor){.shape = s, .type = c->in[0].type};
    return OK;
}

static void view_vjp(struct vjp *v)
{
    v->in_grad[0] = tape_reshape(v->t, v->out_grad[0], tape_shape(v->t, v->in[0]));
}

const struct op op_view = {.name = "reshape",
                           .kernel = KERNEL_fill, /* never run */
                           .inputs_min = 1,
                           .inputs_max = 1,
                           .outputs = 1,
                           .infer = view_infer,
                           .vjp = view_vjp};

struct val tape_reshape(struct tape *t, struct val v, struct shape shape)
{
    struct attr a = {.rank = shape.rank};
    struct val out;

    memcpy(a.dim, shape.dim, sizeof(a.dim));
    out = tape_op(t, &op_view, &a, &v, 1);
    if (!tape_failed(t))
        t->value[out.id].base = t->value[v.id].base;
    return out;
}

struct val tape_detach(struct tape *t, struct val v)
{
    struct val out = tape_reshape(t, v, tape_shape(t, v));

    t->value[out.id].detached = true;
    return out;
}

void tape_keep(struct tape *t, struct val v)
{
    CHECK(v.id > 0 && v.id < t->values && !t->planned);
    t->value[v.id].keep = true;
}

void tape_segment_begin(struct tape *t)
{
    CHECK(t->segment == 0);
    t->segment = ++t->segments;
}

void tape_segment_end(struct tape *t)
{
    CHECK(t->segment != 0);
    t->segment = 0;
}
