/* tape.h - record a computation once, derive its gradients, plan its memory, run it many times.
 *
 * Life:     tape_new -> inputs, parameters, operators, tape_grad -> tape_plan -> (fill inputs, tape_run, read) ... -> tape_free
 * Owns:     its nodes, and from tape_plan one arena for activations and one for scratch.  Parameter sets are borrowed and
 *           outlive the tape.  tape_data pointers last until tape_free; their contents until the next tape_run.
 * Threads:  one tape, one thread; operators use OpenMP below.  Two tapes over one parameter set must not run at once.
 * Errors:   recording never fails at once: the first error is kept and comes out of tape_plan, so nets are written without
 *           a check per line.  ERR_INPUT for shapes that do not fit, ERR_FULL for memory.  Running cannot fail.
 *
 * A tape has one set of shapes; a second bucket is a second tape over the same parameters.  A value is written by one node.
 * Backward is recorded like anything else, so several losses over one list are several tape_grad calls, and a gradient may
 * itself be used in a loss's weight (after tape_detach).  Nodes that lead to nothing kept or accumulated are dropped.
 *
 * Memory: parameters and gradients are flat in struct params; activations live from first to last use, placed best fit; an
 * operator that can work in place does.  tape_plan_text tells the peak before the first step.
 */
#ifndef WEIR_KERNELS_TAPE_H
#define WEIR_KERNELS_TAPE_H

#include "kernels/op.h"
#include "kernels/params.h"

struct buf;
struct tape;
/* A value on the tape.  {0} is "none", for optional inputs. */
struct val {
    int id;
};
#define NONE ((struct val){0})

struct tape *tape_new(enum dtype type); /* DT_F32; DT_F64 with a table of that type */
void tape_free(struct tape *t);         /* NULL is fine */
enum dtype tape_type(const struct tape *t);

/* The caller fills tape_data before each run; the memory is the tape's and nothing else uses it. */
struct val tape_input(struct tape *t, const char *name, enum dtype type, struct shape shape);
/* The parameter called prefix + name, added to the set when that is not sealed. */
struct val tape_param(struct tape *t, struct params *ps, struct shape shape, enum param_init init,
                      double scale, const char *fmt, ...) PRINTF_LIKE(6, 7);
/* Record op.  Outputs have consecutive ids: the first is returned, tape_next gives the following. */
struct val tape_op(struct tape *t, const struct op *op, const struct attr *attr,
                   const struct val *in, int inputs);
struct val tape_next(struct val v, int k);
struct shape tape_shape(const struct tape *t, struct val v);
bool tape_failed(const struct tape *t);
/* For builders: keep this as the tape's error, if it is the first. */
void tape_fail(struct tape *t, const char *fmt, ...) PRINTF_LIKE(2, 3);

struct val tape_reshape(struct tape *t, struct val v, struct shape shape);
/* The same value, through which no gradient passes. */
struct val tape_detach(struct tape *t, struct val v);
/* v is readable through tape_data after a run. */
void tape_keep(struct tape *t, struct val v);

/* Between these, intermediate values are not kept for the backward pass but computed again; segments do not nest. */
void tape_segment_begin(struct tape *t);
void tape_segment_end(struct tape *t);

/* Record d(root)/d(wrt[i]) into grads[i]; NONE where root does not depend on it.  seed is the gradient of root, or NONE for
 * ones: then root must have one element.  Gradients that meet are added in the order of the backward walk. */
void tape_grad(struct tape *t, struct val root, struct val seed, const struct val *wrt, int count,
               struct val *grads);
/* The same for every parameter of the set that is not frozen, ADDED to its gradient memory when run: the caller zeroes
 * that (params_zero_grad) once per optimiser step and may run several micro-batches in between. */
void tape_grad_params(struct tape *t, struct val root, struct val seed, struct params *ps);

/* Sets used by the tape must be sealed.  A second call returns what the first did. */
MUST_USE enum err_code tape_plan(struct tape *t, struct err *err);
/* Lines for people: peak and sum of activations, inputs, scratch, nodes per operator, and operators without a CUDA twin. */
void tape_plan_text(const struct tape *t, struct buf *out);
int64_t tape_peak_bytes(const struct tape *t);
int64_t
tape_flops(const struct tape *t); /* of matrix products, convolutions, attention in one run */
void tape_run(struct tape *t);
/* Before tape_plan: watch operators.  Outputs and scratch are NaN before each is run, so that a read of something unwritten
 * shows, and a write outside an output ends the process with the operator's name.  On in debug builds. */
void tape_poison(struct tape *t, bool on);
void *tape_data(const struct tape *t, struct val v);
struct tensor tape_tensor(const struct tape *t, struct val v);

/* What an operator's vjp function sees.  It sets in_grad[i] where need[i]; in_grad may stay NONE for "zero". */
struct vjp {
    struct tape *t;
    const struct attr *attr;
    int inputs;
    struct val in[OP_INPUTS_MAX], out[OP_OUTPUTS_MAX];
    struct val out_grad
        [OP_OUTPUTS_MAX]; /* NONE where nothing depends on that output; at least one is given */
    bool need[OP_INPUTS_MAX];
    struct val in_grad[OP_INPUTS_MAX];
    /* The gradient that in[i] got so far, or NONE.  An operator that can add to it sets summed[i] and returns the sum. */
    struct val so_far[OP_INPUTS_MAX];
    bool summed[OP_INPUTS_MAX];
};

#endif
