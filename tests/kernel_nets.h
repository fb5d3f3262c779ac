/* kernel_nets.h - the two networks whose numbers are known: S3-DiT (ZImageTransformer2DModel) and AutoencoderKL, as graphs.
 *
 * Life:     dit_record / vae_encode / vae_decode record on a tape; nets_fill gives parameters the golden test's values.
 * Owns:     nothing; the tape and the parameter set are the caller's.
 * Threads:  as the tape.
 * Errors:   through the tape.
 *
 * long: two networks, each of which would be a .c file under stages/model.
 */
#ifndef WEIR_TESTS_KERNEL_NETS_H
#define WEIR_TESTS_KERNEL_NETS_H

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernels/elem.h"
#include "kernels/linear.h"
#include "kernels/norm.h"
#include "kernels/optim.h"
#include "kernels/rows.h"

/* ---- parameters ---- */

struct net {
    struct tape *t;
    struct params *ps;
};

__attribute__((format(printf, 3, 4))) static inline struct val weight2(struct net n, struct shape s,
                                                                       const char *fmt, ...)
{
    char name[PARAM_NAME_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(name, sizeof(name), fmt, ap);
    va_end(ap);
    return tape_param(n.t, n.ps, s, s.rank == 1 ? PARAM_ZERO : PARAM_NORMAL, 0.02, "%s", name);
}

static inline struct val dense(struct net n, struct val x, int64_t out, bool bias, const char *name)
{
    int64_t in = shape_cols(tape_shape(n.t, x));
    struct val w = weight2(n, SHAPE(out, in), "%s.weight", name);

    return linear(n.t, x, w, bias ? weight2(n, SHAPE(out), "%s.bias", name) : NONE);
}

static inline struct val gain(struct net n, int64_t width, const char *name)
{
    return tape_param(n.t, n.ps, SHAPE(width), PARAM_ONE, 0, "%s.weight", name);
}

/* The golden rule: sines of name and index. */
static inline void nets_fill(struct params *ps)
{
    for (int i = 0; i < ps->count; i++) {
        const struct param *p = &ps->list[i];
        const char *name = p->name;
        size_t n = strlen(name);
        int64_t h = 0;
        bool token = strstr(name, "pad_token") != NULL;
        bool norm = (strstr(name, "norm") && n > 7 && strcmp(name + n - 7, ".weight") == 0) ||
                    strcmp(name, "cap_embedder.0.weight") == 0;

        for (size_t k = 0; k < n; k++)
            h = (h + (int64_t)(k + 1) * (unsigned char)name[k]) % 9973;
        for (int64_t j = 0; j < p->count; j++) {
            double v = sin(0.1 * (double)h + 0.7 * (double)j);

            if (p->shape.rank >= 2 && !token)
                v /= sqrt((double)p->count / (double)p->shape.dim[0]);
            else
                v = norm ? 1 + 0.1 * v : 0.1 * v;
            if (ps->type == DT_F64)
                ((double *)ps->value)[p->at + j] = (double)(float)v;
            else
                ((float *)ps->value)[p->at + j] = (float)v;
        }
    }
}

/* ---- S3-DiT ---- */

struct dit_config {
    int64_t dim, layers, refiners, heads, cap, channels;
    int32_t axes[3];
};

/* All as one batch of padded sequences; index arrays say which rows are what. */
struct dit_inputs {
    struct val tokens, caption;     /* (B, Sx, 4C), (B, Sc, cap) */
    struct val time;                /* (G): one per sample, or two in omni mode */
    struct val x_pick, c_pick;      /* (B, S): own row, or the padding token's */
    struct val x_pos, c_pos, u_pos; /* (B, S, 3) */
    struct val x_len, c_len, u_len; /* (B) */
    struct val u_pick;              /* (B, Su): rows of [x rows, caption rows] */
    struct val x_group, u_group;    /* (B, S) rows of time, or NONE */
    struct val out_pick;            /* which unified rows are the answer */
};

struct dit_context {
    struct net n;
    const struct dit_config *c;
    struct val adaln; /* (G, A), NONE in the context refiner */
    struct val group, table, length;
};

static inline struct val dit_attention(const struct dit_context *x, struct val h, const char *at)
{
    struct net n = x->n;
    int64_t d = x->c->dim, head = d / x->c->heads;
    char name[128];
    struct val qkv[3], gains[2], o;
    static const char *const part[] = {"q", "k", "v"};

    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof(name), "%s.attention.to_%s", at, part[i]);
        qkv[i] = dense(n, h, d, false, name);
    }
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof(name), "%s.attention.norm_%s", at, part[i]);
        gains[i] = gain(n, head, name);
        qkv[i] = rope(n.t, qkv[i], gains[i], x->table, ROPE_ADJACENT, 1e-5);
    }
    o = attention(n.t, qkv[0], qkv[1], qkv[2], x->length, (int)x->c->heads, false);
    snprintf(name, sizeof(name), "%s.attention.to_out.0", at);
    return dense(n, o, d, false, name);
}

static inline struct val dit_ffn(const struct dit_context *x, struct val h, const char *at)
{
    struct net n = x->n;
    int64_t f = x->c->dim * 8 / 3;
    char name[128];
    struct val a, b;

    snprintf(name, sizeof(name), "%s.feed_forward.w1", at);
    a = dense(n, h, f, false, name);
    snprintf(name, sizeof(name), "%s.feed_forward.w3", at);
    b = dense(n, h, f, false, name);
    snprintf(name, sizeof(name), "%s.feed_forward.w2", at);
    return dense(n, swiglu(n.t, a, b), x->c->dim, false, name);
}

static inline struct val dit_block(const struct dit_context *x, struct val h, const char *at)
{
    struct net n = x->n;
    struct val mod[4] = {NONE, NONE, NONE, NONE}, g[4], y;
    static const char *const norms[] = {"attention_norm1", "attention_norm2", "ffn_norm1",
                                        "ffn_norm2"};
    char name[128];

    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof(name), "%s.%s", at, norms[i]);
        g[i] = gain(n, x->c->dim, name);
    }
    if (x->adaln.id) {
        snprintf(name, sizeof(name), "%s.adaLN_modulation.0", at);
        split(n.t, dense(n, x->adaln, 4 * x->c->dim, true, name), 4, mod);
    }
    for (int half = 0; half < 2; half++) {
        y = rms_norm(n.t, h, g[2 * half], mod[2 * half], x->group, 1e-5);
        y = half ? dit_ffn(x, y, at) : dit_attention(x, y, at);
        y = rms_norm(n.t, y, g[2 * half + 1], NONE, NONE, 1e-5);
        h = x->adaln.id ? gate_add(n.t, h, y, mod[2 * half + 1], x->group) : add(n.t, h, y);
    }
    return h;
}

static inline struct val dit_blocks(struct dit_context x, struct val h, const char *name,
                                    int64_t count, bool recompute)
{
    char at[64];

    for (int64_t i = 0; i < count; i++) {
        snprintf(at, sizeof(at), "%s.%d", name, (int)i);
        if (recompute)
            tape_segment_begin(x.n.t);
        h = dit_block(&x, h, at);
        if (recompute)
            tape_segment_end(x.n.t);
    }
    return h;
}

static inline struct val dit_time(struct net n, const struct dit_config *c, struct val time)
{
    struct val e = time_table(n.t, time, 256, 1000, 10000);

    e = silu(n.t, dense(n, e, 1024, true, "t_embedder.mlp.0"));
    return dense(n, e, c->dim < 256 ? c->dim : 256, true, "t_embedder.mlp.2");
}

/* The predicted velocity as rows of 4 * channels, shaped like out_pick. */
static inline struct val dit_record(struct net n, const struct dit_config *c,
                                    const struct dit_inputs *in, bool recompute)
{
    struct tape *t = n.t;
    struct val e = dit_time(n, c, in->time), x, y, u, scale;
    struct dit_context ctx = {.n = n, .c = c};

    x = dense(n, in->tokens, c->dim, true, "all_x_embedder.2-1");
    x = pick(t, x, tape_param(t, n.ps, SHAPE(1, c->dim), PARAM_ZERO, 0, "x_pad_token"), in->x_pick);
    y = rms_norm(t, in->caption, gain(n, c->cap, "cap_embedder.0"), NONE, NONE, 1e-5);
    y = dense(n, y, c->dim, true, "cap_embedder.1");
    y = pick(t, y, tape_param(t, n.ps, SHAPE(1, c->dim), PARAM_ZERO, 0, "cap_pad_token"),
             in->c_pick);
    ctx.table = rope_table(t, in->c_pos, c->axes, 256);
    ctx.length = in->c_len;
    y = dit_blocks(ctx, y, "context_refiner", c->refiners, recompute);
    ctx.adaln = e;
    ctx.group = in->x_group;
    ctx.table = rope_table(t, in->x_pos, c->axes, 256);
    ctx.length = in->x_len;
    x = dit_blocks(ctx, x, "noise_refiner", c->refiners, recompute);
    u = pick(t, x, y, in->u_pick);
    ctx.group = in->u_group;
    ctx.table = rope_table(t, in->u_pos, c->axes, 256);
    ctx.length = in->u_len;
    u = dit_blocks(ctx, u, "layers", c->layers, recompute);
    scale = dense(n, silu(t, e), c->dim, true, "all_final_layer.2-1.adaLN_modulation.1");
    u = layer_norm(t, u, NONE, NONE, scale, in->u_group, 1e-6);
    u = dense(n, u, 4 * c->channels, true, "all_final_layer.2-1.linear");
    return pick(t, u, NONE, in->out_pick);
}

/* ---- AutoencoderKL ---- */

struct vae_config {
    int64_t width[4]; /* block_out_channels */
    int blocks, layers, latent, groups;
};

static inline struct val vae_conv(struct net n, struct val x, int64_t out, int k,
                                  struct conv_shape s, const char *name)
{
    struct val w = weight2(n, SHAPE(out, shape_cols(tape_shape(n.t, x)), k, k), "%s.weight", name);

    return conv(n.t, x, w, weight2(n, SHAPE(out), "%s.bias", name), s);
}

static inline struct val vae_norm(struct net n, const struct vae_config *c, struct val x, bool act,
                                  const char *name)
{
    int64_t width = shape_cols(tape_shape(n.t, x));

    return group_norm(n.t, x, gain(n, width, name), weight2(n, SHAPE(width), "%s.bias", name),
                      c->groups, 1e-6, act);
}

static const struct conv_shape same3 = {1, 1, 1, 1, 1}, point = {1, 0, 0, 0, 0},
                               halve = {2, 0, 0, 1, 1};

static inline struct val vae_resnet(struct net n, const struct vae_config *c, struct val x,
                                    int64_t out, const char *at)
{
    char name[128];
    struct val y = x;

    for (int i = 1; i <= 2; i++) {
        snprintf(name, sizeof(name), "%s.norm%d", at, i);
        y = vae_norm(n, c, y, true, name);
        snprintf(name, sizeof(name), "%s.conv%d", at, i);
        y = vae_conv(n, y, out, 3, same3, name);
    }
    snprintf(name, sizeof(name), "%s.conv_shortcut", at);
    if (shape_cols(tape_shape(n.t, x)) != out)
        x = vae_conv(n, x, out, 1, point, name);
    return add(n.t, x, y);
}

static inline struct val vae_mid(struct net n, const struct vae_config *c, struct val x,
                                 const char *side)
{
    struct shape s = tape_shape(n.t, x);
    char at[64], name[128];
    struct val h, qkv[3];
    static const char *const part[] = {"q", "k", "v"};

    snprintf(at, sizeof(at), "%s.mid_block.resnets.0", side);
    x = vae_resnet(n, c, x, s.dim[3], at);
    snprintf(name, sizeof(name), "%s.mid_block.attentions.0.group_norm", side);
    h = tape_reshape(n.t, vae_norm(n, c, x, false, name),
                     SHAPE(s.dim[0], s.dim[1] * s.dim[2], s.dim[3]));
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof(name), "%s.mid_block.attentions.0.to_%s", side, part[i]);
        qkv[i] = dense(n, h, s.dim[3], true, name);
    }
    h = attention(n.t, qkv[0], qkv[1], qkv[2], NONE, 1, false);
    snprintf(name, sizeof(name), "%s.mid_block.attentions.0.to_out.0", side);
    x = add(n.t, x, tape_reshape(n.t, dense(n, h, s.dim[3], true, name), s));
    snprintf(at, sizeof(at), "%s.mid_block.resnets.1", side);
    return vae_resnet(n, c, x, s.dim[3], at);
}

/* (B, H, W, 3) -> (B, h, w, 2 latent): means, then log variances. */
static inline struct val vae_encode(struct net n, const struct vae_config *c, struct val x)
{
    char at[64];

    x = vae_conv(n, x, c->width[0], 3, same3, "encoder.conv_in");
    for (int i = 0; i < c->blocks; i++) {
        for (int j = 0; j < c->layers; j++) {
            snprintf(at, sizeof(at), "encoder.down_blocks.%d.resnets.%d", i, j);
            x = vae_resnet(n, c, x, c->width[i], at);
        }
        snprintf(at, sizeof(at), "encoder.down_blocks.%d.downsamplers.0.conv", i);
        if (i + 1 < c->blocks)
            x = vae_conv(n, x, c->width[i], 3, halve, at);
    }
    x = vae_mid(n, c, x, "encoder");
    x = vae_norm(n, c, x, true, "encoder.conv_norm_out");
    return vae_conv(n, x, 2 * c->latent, 3, same3, "encoder.conv_out");
}

static inline struct val vae_decode(struct net n, const struct vae_config *c, struct val z)
{
    char at[64];

    z = vae_conv(n, z, c->width[c->blocks - 1], 3, same3, "decoder.conv_in");
    z = vae_mid(n, c, z, "decoder");
    for (int i = 0; i < c->blocks; i++) {
        int64_t width = c->width[c->blocks - 1 - i];

        for (int j = 0; j <= c->layers; j++) {
            snprintf(at, sizeof(at), "decoder.up_blocks.%d.resnets.%d", i, j);
            z = vae_resnet(n, c, z, width, at);
        }
        snprintf(at, sizeof(at), "decoder.up_blocks.%d.upsamplers.0.conv", i);
        if (i + 1 < c->blocks)
            z = vae_conv(n, upsample(n.t, z), width, 3, same3, at);
    }
    z = vae_norm(n, c, z, true, "decoder.conv_norm_out");
    return vae_conv(n, z, 3, 3, same3, "decoder.conv_out");
}

#endif
