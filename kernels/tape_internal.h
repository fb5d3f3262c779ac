/* tape_internal.h - the tape's records, shared by tape.c, tape_grad.c and tape_plan.c.
 *
 * Life:     as tape.h.
 * Owns:     as tape.h.
 * Threads:  as tape.h.
 * Errors:   as tape.h.
 */
#ifndef WEIR_KERNELS_TAPE_INTERNAL_H
#define WEIR_KERNELS_TAPE_INTERNAL_H

#include "kernels/tape.h"

enum value_kind {
    VALUE_ACT,   /* written by a node, lives in the arena */
    VALUE_INPUT, /* written by the caller, has its own place in the arena */
    VALUE_PARAM, /* in a parameter set's values */
    VALUE_GRAD,  /* in a parameter set's gradients */
};

struct value {
    struct shape shape;
    enum dtype type;
    enum value_kind kind;
    const char *name;   /* inputs */
    struct params *set; /* parameters and gradients */
    int param;
    int maker; /* node, -1 for others */
    bool keep, detached;
    /* Planning. */
    int base;   /* the value whose memory this one is */
    int last;   /* node that reads it last, of base; -1 never */
    int64_t at; /* bytes into the arena, of base */
    bool placed;
};

struct node {
    const struct op *op;
    struct attr attr;
    int inputs, outputs;
    int in[OP_INPUTS_MAX], out[OP_OUTPUTS_MAX];
    int segment; /* 0: none */
    bool live;
    struct call call; /* ready to run, from tape_plan */
};

struct tape {
    enum dtype type;
    struct value *value; /* value[0] is "none" */
    int values, value_room;
    struct node *node;
    int nodes, node_room;
    int segment, segments;
    struct err err;
    bool planned, poison;
    int threads; /* that scratch was made for */
    char *arena, *scratch;
    int64_t input_bytes, arena_bytes, total_bytes, scratch_bytes, flops;
};

int tape_new_value(struct tape *t, enum value_kind kind, struct shape shape, enum dtype type);
/* The gradient memory of a parameter as a value. */
int tape_grad_slot(struct tape *t, struct params *ps, int param);
/* value -> the value that owns the memory */
int tape_base(const struct tape *t, int v);
void tape_fill_call(const struct tape *t, const struct node *n, struct call *c);

extern const struct op op_view, op_accumulate;

#endif
