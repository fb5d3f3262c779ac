/* optim.h - one optimiser step over a parameter set's flat memory: clip, AdamW, moving average.
 *
 * Life:     adam_new -> (gradients are in params->grad) adam_step ... -> adam_free
 * Owns:     m, v and the moving average, flat, of the parameters' layout; they are what a checkpoint stores beside values.
 * Threads:  one thread calls; the work uses OpenMP.
 * Errors:   ERR_FULL without memory; ERR_INPUT for a rule that matches nothing.
 * Paper:    Kingma, Ba 2014 (Adam, arXiv:1412.6980); Loshchilov, Hutter 2017 (decoupled weight decay, arXiv:1711.05101).
 *
 *   norm = sqrt(sum of all gradients^2): 4096-element chunks by lanes, chunk sums by a fixed binary tree, in double
 *   g = gradient * grad_scale * min(1, clip / (norm * grad_scale))
 *   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
 *   p = p - lr * lr_factor * (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + decay * p)
 *   ema = ema + (1 - ema_rate) * (p - ema)
 *
 * A step whose norm is not finite changes nothing and says so: better one lost batch than a lost run.  Gaps between
 * parameters stay zero.  Frozen parameters do not move and their gradients do not count.
 */
#ifndef WEIR_KERNELS_OPTIM_H
#define WEIR_KERNELS_OPTIM_H

#include "kernels/params.h"

struct adam_config {
    double lr, beta1, beta2, eps, decay;
    double clip;       /* largest global norm; 0: none */
    double grad_scale; /* e.g. 1 / micro-batches; 0 counts as 1 */
    double ema_rate;   /* 0: no moving average */
};

struct adam {
    struct params *params; /* borrowed */
    void *m, *v,
        *ema;     /* ema NULL when its rate is 0 at birth: then it starts as a copy of the values */
    int64_t step; /* steps taken */
    float *decay, *factor; /* per parameter: multiples of config's decay and lr */
    double *partial;       /* chunk sums */
    double norm;           /* of the last step, after grad_scale, before clipping */
    bool skipped;          /* the last step: its norm was not finite */
};

MUST_USE enum err_code adam_new(struct params *ps, bool ema, struct adam **out, struct err *err);
void adam_free(struct adam *a); /* NULL is fine */
/* For every parameter whose name ends with suffix ("" is all).  adam_new starts with decay 1 for rank >= 2, 0 below. */
MUST_USE enum err_code adam_rule(struct adam *a, const char *suffix, double decay, double factor,
                                 struct err *err);
void adam_step(struct adam *a, const struct adam_config *config);
/* The norm that adam_step computes, alone: for adaptive weights and logs. */
double flat_norm(const struct params *ps, double *partial, const void *flat);

/* For kernels/cpu: one parameter's elements. */
struct adam_span {
    void *p, *m, *v, *ema; /* ema may be NULL */
    const void *g;
    int64_t n;
    /* Numbers of this step, as the working type will use them. */
    double g_scale, beta1, beta2, lr, over_bias1, over_bias2, eps, decay, ema_step;
};

#endif
