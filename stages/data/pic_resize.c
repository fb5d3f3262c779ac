/* Resizing in integers: the same picture for every compiler, machine and number of threads.
 *
 * A pass computes out[i] = sum_k w[i][k] * in[first[i] + k] with weights of 14 bits that sum to exactly 1.  Samples between the passes
 * are 16 bits: colour * alpha (0 .. 65025), so that transparent pixels have no say in colours; opaque pictures count as alpha 255. */
#include <stdlib.h>
#include <string.h>

#include "stages/data/pic.h"

#define BITS 14
#define ONE (1 << BITS)
#define SAMPLE_MAX (255 * 255)

struct taps {
    int *first; /* of the input, per output sample */
    int *used;  /* weights from there on that are not all zero */
    int32_t *w; /* count per output sample */
    int count;
};

static void release(struct taps *t)
{
    free(t->first);
    free(t->used);
    free(t->w);
    *t = (struct taps){0};
}

/* Keys' cubic, a = -0.5. */
static double cubic(double x)
{
    x = x < 0 ? -x : x;
    if (x < 1)
        return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

/* How much of input sample k belongs to output sample i: an overlap of intervals, in units of 1 / out_n. */
static double overlap(int i, int k, int in_n, int out_n)
{
    const int64_t a = (int64_t)i * in_n, b = a + in_n, c = (int64_t)k * out_n, d = c + out_n;
    const int64_t from = a > c ? a : c, to = b < d ? b : d;

    return to > from ? (double)(to - from) : 0;
}

static double weight(enum pic_filter filter, int i, int k, int in_n, int out_n)
{
    const double scale = in_n > out_n ? (double)in_n / out_n : 1;
    const double centre = ((double)i + 0.5) * (double)in_n / (double)out_n;

    if (filter == PIC_AREA)
        return overlap(i, k, in_n, out_n);
    return cubic(((double)k + 0.5 - centre) / scale);
}

/* Weights of zero at both ends cost time and say nothing. */
static void trim(struct taps *t, int i)
{
    int32_t *w = t->w + (size_t)i * (size_t)t->count;
    int from = 0, to = t->count;

    while (to > 1 && w[to - 1] == 0)
        to--;
    while (from + 1 < to && w[from] == 0)
        from++;
    memmove(w, w + from, (size_t)(to - from) * sizeof(*w));
    t->first[i] += from;
    t->used[i] = to - from;
}

/* Rounded weights, the largest corrected so that they sum to ONE: a white picture stays white. */
static void fill(struct taps *t, enum pic_filter filter, int i, int in_n, int out_n, double *real)
{
    double sum = 0;
    int32_t total = 0;
    int best = 0;

    for (int k = 0; k < t->count; k++) {
        real[k] = t->first[i] + k < in_n ? weight(filter, i, t->first[i] + k, in_n, out_n) : 0;
        sum += real[k];
    }
    for (int k = 0; k < t->count; k++) {
        const double v = real[k] / sum * ONE;

        t->w[(size_t)i * (size_t)t->count + (size_t)k] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
        total += t->w[(size_t)i * (size_t)t->count + (size_t)k];
        if (real[k] > real[best])
            best = k;
    }
    t->w[(size_t)i * (size_t)t->count + (size_t)best] += ONE - total;
    trim(t, i);
}

static enum err_code plan(enum pic_filter filter, int in_n, int out_n, struct taps *t,
                          struct err *err)
{
    const double scale = in_n > out_n ? (double)in_n / out_n : 1;
    const double radius = filter == PIC_AREA ? 0.5 * (double)in_n / out_n : 2 * scale;
    double *real;

    t->count = (int)(2 * radius) + 3;
    if (t->count > in_n)
        t->count = in_n;
    t->first = calloc((size_t)out_n, sizeof(*t->first));
    t->used = calloc((size_t)out_n, sizeof(*t->used));
    t->w = calloc((size_t)out_n * (size_t)t->count, sizeof(*t->w));
    real = calloc((size_t)t->count, sizeof(*real));
    if (!t->first || !t->used || !t->w || !real) {
        free(real);
        return err_set(err, ERR_LIMIT, "resizing %d to %d: out of memory", in_n, out_n);
    }
    for (int i = 0; i < out_n; i++) {
        const double centre = ((double)i + 0.5) * (double)in_n / (double)out_n;
        int first = (int)(centre - radius) - 1;

        first = first > in_n - t->count ? in_n - t->count : first;
        t->first[i] = first < 0 ? 0 : first;
        fill(t, filter, i, in_n, out_n, real);
    }
    free(real);
    return OK;
}

/* |w| sums to less than 1.4 * 2^14 (the cubic's lobes), samples are below 2^16: 31 bits hold every sum. */
static uint16_t settle(int32_t sum)
{
    const int32_t v = (sum + ONE / 2) >> BITS;

    return (uint16_t)(v < 0 ? 0 : v > SAMPLE_MAX ? SAMPLE_MAX : v);
}

static void widen(const uint8_t *row, int width, int channels, uint16_t *out)
{
    for (int x = 0; x < width; x++) {
        const uint8_t *px = row + (size_t)x * (size_t)channels;
        const int a = channels == 4 ? px[3] : 255;

        for (int c = 0; c < channels; c++)
            out[x * channels + c] = (uint16_t)(c == 3 ? a * 255 : px[c] * a);
    }
}

static void across(const uint16_t *in, const struct taps *t, int out_n, int channels, uint16_t *out)
{
    for (int x = 0; x < out_n; x++) {
        const int32_t *w = t->w + (size_t)x * (size_t)t->count;
        const uint16_t *p = in + (size_t)t->first[x] * (size_t)channels;

        for (int c = 0; c < channels; c++) {
            int32_t sum = 0;

            for (int k = 0; k < t->used[x]; k++)
                sum += w[k] * p[k * channels + c];
            out[x * channels + c] = settle(sum);
        }
    }
}

static void narrow(const uint16_t *in, int width, int channels, uint8_t *out)
{
    for (int x = 0; x < width; x++) {
        const uint16_t *p = in + (size_t)x * (size_t)channels;
        const uint32_t a = channels == 4 ? p[3] : SAMPLE_MAX;

        for (int c = 0; c < channels; c++) {
            uint32_t v = a ? ((uint32_t)p[c] * 255 + a / 2) / a : 0;

            if (c == 3)
                v = (a + 127) / 255;
            out[(size_t)x * (size_t)channels + (size_t)c] = (uint8_t)(v > 255 ? 255 : v);
        }
    }
}

static void down(const uint16_t *in, size_t stride, const int32_t *w, int count, int32_t *sums,
                 uint16_t *out)
{
    memset(sums, 0, stride * sizeof(*sums));
    for (int k = 0; k < count; k++) {
        const uint16_t *p = in + (size_t)k * stride;
        const int32_t v = w[k];

        for (size_t i = 0; i < stride; i++)
            sums[i] += v * p[i];
    }
    for (size_t i = 0; i < stride; i++)
        out[i] = settle(sums[i]);
}

enum err_code pic_resize(const struct pic *p, int width, int height, enum pic_filter filter,
                         struct pic *out, struct err *err)
{
    const size_t stride = (size_t)width * (size_t)p->channels;
    const size_t wide = (size_t)p->width * (size_t)p->channels;
    struct taps h = {0}, v = {0};
    uint16_t *between = NULL, *line = NULL;
    int32_t *sums = NULL;
    enum err_code rc;

    *out = (struct pic){0};
    rc = plan(filter, p->width, width, &h, err);
    if (!rc)
        rc = plan(filter, p->height, height, &v, err);
    if (!rc)
        rc = pic_new(width, height, p->channels, out, err);
    if (rc)
        goto out;
    between = malloc(stride * (size_t)p->height * sizeof(*between));
    line = malloc((wide > stride ? wide : stride) * sizeof(*line));
    sums = malloc(stride * sizeof(*sums));
    if (!between || !line || !sums) {
        rc = err_set(err, ERR_LIMIT, "resizing to %d x %d: out of memory", width, height);
        goto out;
    }
    for (int y = 0; y < p->height; y++) {
        widen(p->px + (size_t)y * wide, p->width, p->channels, line);
        across(line, &h, width, p->channels, between + (size_t)y * stride);
    }
    for (int y = 0; y < height; y++) {
        down(between + (size_t)v.first[y] * stride, stride, v.w + (size_t)y * (size_t)v.count,
             v.used[y], sums, line);
        narrow(line, width, p->channels, out->px + (size_t)y * stride);
    }
out:
    if (rc)
        pic_release(out);
    free(between);
    free(line);
    free(sums);
    release(&h);
    release(&v);
    return rc;
}
