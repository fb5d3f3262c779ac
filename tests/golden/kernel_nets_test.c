/* The networks against numbers taken from diffusers: sums, absolute sums and first values. */
#include <stdlib.h>

#include "tests/check.h"
#include "tests/kernel_nets.h"

#define TOLERANCE                                                                                  \
    1e-4 /* absolute, for values and sums; a tenth of it relative for absolute sums, printed to 7 digits */

static void near(const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        printf("%s: got %.7f, want %.7f, tolerance %g\n", what, got, want, tolerance);
    EXPECT(fabs(got - want) <= tolerance);
}

struct want {
    const char *name;
    double sum, abs_sum, first[6];
    int firsts;
};

static void compare(const float *v, int64_t n, const struct want *w)
{
    double sum = 0, abs_sum = 0, off = 0;

    for (int64_t i = 0; i < n; i++) {
        sum += (double)v[i];
        abs_sum += fabs((double)v[i]);
    }
    for (int i = 0; i < w->firsts; i++)
        off = fmax(off, fabs((double)v[i] - w->first[i]));
    printf("%s: sum off by %.1e, absolute sum by %.1e, values by %.1e\n", w->name,
           fabs(sum - w->sum), w->abs_sum > 0 ? fabs(abs_sum - w->abs_sum) : 0.0, off);
    for (int i = 0; i < w->firsts; i++)
        near(w->name, (double)v[i], w->first[i], TOLERANCE);
    near(w->name, sum, w->sum, TOLERANCE);
    if (w->abs_sum > 0)
        near(w->name, abs_sum, w->abs_sum, TOLERANCE / 10 * w->abs_sum);
}

static const struct dit_config tiny = {.dim = 96,
                                       .layers = 2,
                                       .refiners = 1,
                                       .heads = 3,
                                       .cap = 64,
                                       .channels = 16,
                                       .axes = {8, 12, 12}};

static struct val i32(struct tape *t, const char *name, struct shape s)
{
    return tape_input(t, name, DT_I32, s);
}

static struct dit_inputs inputs(struct tape *t, int64_t b, int64_t sx, int64_t sc, bool omni,
                                int64_t answers)
{
    int64_t su = sx + sc;

    return (struct dit_inputs){
        .tokens = tape_input(t, "tokens", DT_F32, SHAPE(b, sx, 4 * tiny.channels)),
        .caption = tape_input(t, "caption", DT_F32, SHAPE(b, sc, tiny.cap)),
        .time = tape_input(t, "time", DT_F32, SHAPE(omni ? 2 * b : b)),
        .x_pick = i32(t, "x rows", SHAPE(b, sx)),
        .c_pick = i32(t, "caption rows", SHAPE(b, sc)),
        .u_pick = i32(t, "joined rows", SHAPE(b, su)),
        .x_pos = i32(t, "x positions", SHAPE(b, sx, 3)),
        .c_pos = i32(t, "caption positions", SHAPE(b, sc, 3)),
        .u_pos = i32(t, "joined positions", SHAPE(b, su, 3)),
        .x_len = i32(t, "x lengths", SHAPE(b)),
        .c_len = i32(t, "caption lengths", SHAPE(b)),
        .u_len = i32(t, "joined lengths", SHAPE(b)),
        .x_group = omni ? i32(t, "x times", SHAPE(b, sx)) : NONE,
        .u_group = omni ? i32(t, "joined times", SHAPE(b, su)) : NONE,
        .out_pick = i32(t, "answer rows", SHAPE(answers)),
    };
}

/* Latent (C, h, w) with values scale * sin(0.3 n + 0.5) as 2 x 2 patches: (row, column, channel), channel fastest. */
static void put_latent(float *tokens, int64_t h, int64_t w, double scale)
{
    for (int64_t ch = 0; ch < tiny.channels; ch++)
        for (int64_t y = 0; y < h; y++)
            for (int64_t x = 0; x < w; x++) {
                int64_t token = y / 2 * (w / 2) + x / 2, place = y % 2 * 2 + x % 2;
                double n = (double)((ch * h + y) * w + x);

                tokens[(token * 4 + place) * tiny.channels + ch] =
                    (float)scale * (float)sin(0.3 * n + 0.5);
            }
}

static void put_caption(float *rows, int64_t length, double scale)
{
    for (int64_t n = 0; n < length * tiny.cap; n++)
        rows[n] = (float)scale * (float)cos(0.2 * (double)n + 0.1);
}

static void set3(int32_t *pos, int64_t row, int64_t a, int64_t b, int64_t c)
{
    pos[row * 3] = (int32_t)a;
    pos[row * 3 + 1] = (int32_t)b;
    pos[row * 3 + 2] = (int32_t)c;
}

/* Rows as an image (C, h, w), flat. */
static void unpatch(const float *rows, int64_t h, int64_t w, float *out)
{
    for (int64_t ch = 0; ch < tiny.channels; ch++)
        for (int64_t y = 0; y < h; y++)
            for (int64_t x = 0; x < w; x++)
                out[(ch * h + y) * w + x] =
                    rows[((y / 2 * (w / 2) + x / 2) * 4 + y % 2 * 2 + x % 2) * tiny.channels + ch];
}

static const struct want want_a = {
    "case A", -5.27366, 481.7568, {0.239601, 0.719343, 0.020685, 0.631788, -0.227269, 0.379092}, 6};
static const struct want want_b = {"case B",
                                   -10.78894,
                                   924.1595,
                                   {-0.000092, 0.544019, 0.224692, 0.720576, 0.438969, 0.767065},
                                   6};
static const struct want want_t = {"t_embedder",
                                   0.479627,
                                   49.38250,
                                   {-0.158785, 0.199980, 0.525936, 0.734306, 0.761716, 0.586946},
                                   6};
static const struct want want_d = {"case D",
                                   -9.44492,
                                   567.5442,
                                   {0.036969, 0.673248, -0.056422, 0.663410, -0.145516, 0.620036},
                                   6};

struct sample {
    int64_t h, w, caption;
    float tau;
};

/* One row of the batch in basic mode: image then caption, each padded to 32 rows with its token. */
static void put_sample(const struct tape *t, const struct dit_inputs *in, const struct sample *s,
                       int64_t b, int64_t batch, int64_t sx, int64_t sc)
{
    int64_t n = s->h * s->w / 4, lx = ceil_div(n, 32) * 32, lc = ceil_div(s->caption, 32) * 32;
    int64_t su = sx + sc;
    int32_t *xp = tape_data(t, in->x_pos), *cp = tape_data(t, in->c_pos);
    int32_t *up = tape_data(t, in->u_pos), *u = tape_data(t, in->u_pick);

    put_latent((float *)tape_data(t, in->tokens) + b * sx * 4 * tiny.channels, s->h, s->w, 1);
    put_caption((float *)tape_data(t, in->caption) + b * sc * tiny.cap, s->caption, 1);
    ((float *)tape_data(t, in->time))[b] = s->tau;
    ((int32_t *)tape_data(t, in->x_len))[b] = (int32_t)lx;
    ((int32_t *)tape_data(t, in->c_len))[b] = (int32_t)lc;
    ((int32_t *)tape_data(t, in->u_len))[b] = (int32_t)(lx + lc);
    for (int64_t i = 0; i < sx; i++) {
        ((int32_t *)tape_data(t, in->x_pick))[b * sx + i] = (int32_t)(i < n    ? b * sx + i
                                                                      : i < lx ? batch * sx
                                                                               : -1);
        if (i < n)
            set3(xp, b * sx + i, lc + 1, i / (s->w / 2), i % (s->w / 2));
    }
    for (int64_t i = 0; i < sc; i++) {
        ((int32_t *)tape_data(t, in->c_pick))[b * sc + i] = (int32_t)(i < s->caption ? b * sc + i
                                                                      : i < lc       ? batch * sc
                                                                                     : -1);
        set3(cp, b * sc + i, 1 + i, 0, 0);
    }
    for (int64_t i = 0; i < su; i++) {
        bool image = i < lx, words = !image && i < lx + lc;

        u[b * su + i] = (int32_t)(image ? b * sx + i : words ? batch * sx + b * sc + i - lx : -1);
        if (image)
            memcpy(up + (b * su + i) * 3, xp + (b * sx + i) * 3, 12);
        else
            set3(up, b * su + i, words ? 1 + i - lx : 0, 0, 0);
    }
}

TEST(basic_mode_and_time)
{
    const struct sample samples[] = {{8, 8, 5, 0.3f}, {8, 16, 40, 0.9f}};
    const int64_t sx = 32, sc = 64, su = sx + sc;
    struct tape *t = tape_new(DT_F32);
    struct params *ps = params_new(DT_F32);
    struct dit_inputs in = inputs(t, 2, sx, sc, false, 16 + 32);
    struct net n = {t, ps};
    struct val time = dit_time(n, &tiny, in.time), out = dit_record(n, &tiny, &in, false);
    struct err err = ERR_INIT;
    float image[16 * 8 * 16], first[48 * 64];
    const float *rows;

    tape_keep(t, out);
    tape_keep(t, time);
    EXPECT_OK(params_seal(ps, 1, &err), &err);
    nets_fill(ps);
    EXPECT_OK(tape_plan(t, &err), &err);
    for (int b = 0; b < 2; b++)
        put_sample(t, &in, &samples[b], b, 2, sx, sc);
    for (int32_t i = 0; i < 48; i++)
        ((int32_t *)tape_data(t, in.out_pick))[i] = (int32_t)(i < 16 ? i : su + i - 16);
    tape_run(t);
    rows = tape_data(t, out);
    memcpy(first, rows, sizeof(first));
    op_threads(1);
    tape_run(t);
    op_threads(0);
    EXPECT_MEM(first, rows, sizeof(first)); /* for one thread and for all */
    unpatch(rows, 8, 8, image);
    compare(image, 16 * 64, &want_a);
    unpatch(rows + 16 * 64, 8, 16, image);
    compare(image, 16 * 128, &want_b);
    compare(tape_data(t, time), 96, &want_t);
    tape_free(t);
    params_free(ps);
}

/* Two images of 16 tokens (padded to 32 each) and two caption segments of 32, captions first. */
static void put_omni(const struct tape *t, const struct dit_inputs *in)
{
    int32_t *xp = tape_data(t, in->x_pos), *cp = tape_data(t, in->c_pos);
    int32_t *up = tape_data(t, in->u_pos), *u = tape_data(t, in->u_pick);
    int32_t *xg = tape_data(t, in->x_group), *ug = tape_data(t, in->u_group);
    float *time = tape_data(t, in->time);
    int64_t p = 1;

    time[0] = 1.0f; /* clean */
    time[1] = 0.3f;
    for (int64_t j = 0; j < 2; j++) {
        put_latent((float *)tape_data(t, in->tokens) + j * 32 * 64, 8, 8, j ? 0.5 : 1);
        put_caption((float *)tape_data(t, in->caption) + j * 32 * 64, 32, j ? 0.5 : 1);
        for (int64_t i = 0; i < 32; i++) {
            int64_t r = j * 32 + i;

            ((int32_t *)tape_data(t, in->c_pick))[r] = (int32_t)r;
            ((int32_t *)tape_data(t, in->x_pick))[r] = (int32_t)(i < 16 ? r : 64);
            set3(cp, r, p++, 0, 0);
            xg[r] = ug[r] = ug[64 + r] = (int32_t)j;
        }
        for (int64_t i = 0; i < 16; i++)
            set3(xp, j * 32 + i, p, i / 4, i % 4);
        p += 2;
    }
    for (int64_t i = 0; i < 128; i++) {
        u[i] = (int32_t)(i < 64 ? 64 + i : i - 64);
        memcpy(up + i * 3, i < 64 ? cp + i * 3 : xp + (i - 64) * 3, 12);
    }
    *(int32_t *)tape_data(t, in->x_len) = *(int32_t *)tape_data(t, in->c_len) = 64;
    *(int32_t *)tape_data(t, in->u_len) = 128;
    for (int32_t i = 0; i < 16; i++)
        ((int32_t *)tape_data(t, in->out_pick))[i] = 64 + 32 + i;
}

TEST(omni_mode)
{
    struct tape *t = tape_new(DT_F32);
    struct params *ps = params_new(DT_F32);
    struct dit_inputs in = inputs(t, 1, 64, 64, true, 16);
    struct val out = dit_record((struct net){t, ps}, &tiny, &in, false);
    struct err err = ERR_INIT;
    float image[16 * 64];

    tape_keep(t, out);
    EXPECT_OK(params_seal(ps, 1, &err), &err);
    nets_fill(ps);
    EXPECT_OK(tape_plan(t, &err), &err);
    put_omni(t, &in);
    tape_run(t);
    unpatch(tape_data(t, out), 8, 8, image);
    compare(image, 16 * 64, &want_d);
    tape_free(t);
    params_free(ps);
}

static void to_planes(const float *x, int64_t pixels, int64_t channels, int64_t from, int64_t count,
                      float *out)
{
    for (int64_t c = 0; c < count; c++)
        for (int64_t p = 0; p < pixels; p++)
            out[c * pixels + p] = x[p * channels + from + c];
}

TEST(autoencoder)
{
    const struct vae_config c = {
        .width = {32, 64, 64}, .blocks = 3, .layers = 1, .latent = 8, .groups = 16};
    const struct want mean = {"mean", -8.310654, 462.0045, {-0.189158, -0.247784, -0.364566}, 3};
    const struct want logvar = {"logvar", -0.913960, 0, {0}, 0};
    const struct want image = {"decoded", -21.901512, 1170.6356, {0.060061, 0.057802, 0.058051}, 3};
    struct tape *t = tape_new(DT_F32);
    struct params *ps = params_new(DT_F32);
    struct net n = {t, ps};
    struct val x = tape_input(t, "image", DT_F32, SHAPE(1, 32, 32, 3)), code, part[2], y;
    struct err err = ERR_INIT;
    float planes[3 * 1024], *pixels;

    code = vae_encode(n, &c, x);
    split(t, code, 2, part);
    y = vae_decode(n, &c, part[0]);
    tape_keep(t, code);
    tape_keep(t, y);
    EXPECT_OK(params_seal(ps, 1, &err), &err);
    nets_fill(ps);
    EXPECT_OK(tape_plan(t, &err), &err);
    pixels = tape_data(t, x);
    for (int k = 0; k < 3072; k++)
        pixels[k % 1024 * 3 + k / 1024] = (float)sin(0.05 * k);
    tape_run(t);
    to_planes(tape_data(t, code), 64, 16, 0, 8, planes);
    compare(planes, 512, &mean);
    to_planes(tape_data(t, code), 64, 16, 8, 8, planes);
    compare(planes, 512, &logvar);
    to_planes(tape_data(t, y), 1024, 3, 0, 3, planes);
    compare(planes, 3072, &image);
    tape_free(t);
    params_free(ps);
}

RUN(basic_mode_and_time, omni_mode, autoencoder)
