#include "kernels/optim.h"

#include "kernels/cpu/cpu.h"

void KERNEL(adam)(const struct adam_span *s)
{
    real *restrict p = s->p, *restrict m = s->m, *restrict v = s->v, *restrict ema = s->ema;
    const real *restrict grad = s->g;
    const real b1 = R(s->beta1), b2 = R(s->beta2), c1 = R(1 - s->beta1), c2 = R(1 - s->beta2);
    const real scale = R(s->g_scale), lr = R(s->lr), o1 = R(s->over_bias1), o2 = R(s->over_bias2);
    const real eps = R(s->eps), decay = R(s->decay), ema_step = R(s->ema_step);

    for (int64_t i = 0; i < s->n; i++) {
        real g = grad[i] * scale;
        real mi = r_fma(b1, m[i], c1 * g);
        real vi = r_fma(b2, v[i], c2 * (g * g));
        real d = (mi * o1) / (r_sqrt(vi * o2) + eps);

        m[i] = mi;
        v[i] = vi;
        p[i] = r_fma(-lr, r_fma(decay, p[i], d), p[i]);
    }
    for (int64_t i = 0; ema && i < s->n; i++)
        ema[i] = r_fma(ema_step, p[i] - ema[i], ema[i]);
}

double KERNEL(square_sum)(const void *x, int64_t n)
{
    return (double)row_dot(x, x, n);
}
