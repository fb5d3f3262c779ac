/* The formulas of feature.h, one function each. */
#include "stages/data/feature.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double feature_log2(double x)
{
    const double two_over_ln2 = 2.8853900817779268147;
    double m, t, t2, sum = 0;
    int e;

    CHECK(x > 0);
    m = frexp(x, &e); /* exact */
    if (m < 0.70710678118654752) {
        m *= 2;
        e--;
    }
    /* ln m = 2 atanh((m-1)/(m+1)), |t| < 0.172: the 17th term is below 1e-26 */
    t = (m - 1) / (m + 1);
    t2 = t * t;
    for (int k = 33; k >= 1; k -= 2)
        sum = sum * t2 + 1.0 / k;
    return e + two_over_ln2 * t * sum;
}

struct grey {
    const uint8_t *g;
    int w, h;
};

static int at(const struct grey *p, int x, int y)
{
    return p->g[(size_t)y * (size_t)p->w + (size_t)x];
}

/* Pictures without an inside have no edges. */
static void edges(const struct grey *p, struct features *out)
{
    int64_t sum = 0, squares = 0, sobel = 0;
    const double n = (double)(p->w - 2) * (double)(p->h - 2);

    out->sharpness = out->tenengrad = 0;
    if (p->w < 3 || p->h < 3)
        return;
    for (int y = 1; y + 1 < p->h; y++) {
        const uint8_t *a = p->g + (size_t)(y - 1) * (size_t)p->w, *b = a + p->w, *c = b + p->w;

        for (int x = 1; x + 1 < p->w; x++) {
            const int lap = a[x] + c[x] + b[x - 1] + b[x + 1] - 4 * b[x];
            const int gx = a[x + 1] + 2 * b[x + 1] + c[x + 1] - a[x - 1] - 2 * b[x - 1] - c[x - 1];
            const int gy = c[x - 1] + 2 * c[x] + c[x + 1] - a[x - 1] - 2 * a[x] - a[x + 1];

            sum += lap;
            squares += lap * lap;
            sobel += gx * gx + gy * gy;
        }
    }
    out->sharpness = (double)squares / n - ((double)sum / n) * ((double)sum / n);
    out->tenengrad = (double)sobel / n;
}

static double block_ratio(const struct grey *p, bool columns)
{
    const int n = columns ? p->w : p->h, m = columns ? p->h : p->w;
    int64_t on = 0, off = 0, on_n = 0, off_n = 0;

    for (int i = 1; i < n; i++) {
        int64_t sum = 0;

        for (int k = 0; k < m; k++)
            sum +=
                columns ? abs(at(p, i, k) - at(p, i - 1, k)) : abs(at(p, k, i) - at(p, k, i - 1));
        if (i % 8 == 0) {
            on += sum;
            on_n += m;
        } else {
            off += sum;
            off_n += m;
        }
    }
    if (on_n == 0 || off_n == 0 || off == 0)
        return on > 0 ? 8 : 1; /* flat but for the grid: as blocky as can be told */
    return ((double)on / (double)on_n) / ((double)off / (double)off_n);
}

double feature_blockiness(const uint8_t *grey, int width, int height)
{
    const struct grey p = {grey, width, height};

    return 0.5 * (block_ratio(&p, true) + block_ratio(&p, false));
}

static int by_sum(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* Sums of differences per column (or row), first those on the grid, then the others; the ratio of their medians. */
static double grid_ratio(const struct grey *p, bool columns)
{
    const int n = columns ? p->w : p->h, m = columns ? p->h : p->w;
    int64_t *on = mem_zero((size_t)n + 1, sizeof(*on)),
            *off = mem_zero((size_t)n + 1, sizeof(*off));
    int on_n = 0, off_n = 0;
    double ratio = 1;

    for (int i = 1; i < n; i++) {
        int64_t sum = 0;

        for (int k = 0; k < m; k++)
            sum +=
                columns ? abs(at(p, i, k) - at(p, i - 1, k)) : abs(at(p, k, i) - at(p, k, i - 1));
        if (i % 8 == 0)
            on[on_n++] = sum;
        else
            off[off_n++] = sum;
    }
    qsort(on, (size_t)on_n, sizeof(*on), by_sum);
    qsort(off, (size_t)off_n, sizeof(*off), by_sum);
    if (on_n >= 2 && on[on_n / 2] > 0) /* + m / 8: steps too small to see say nothing */
        ratio = ((double)on[on_n / 2] + m / 8.0) / ((double)off[off_n / 2] + m / 8.0);
    free(on);
    free(off);
    return ratio;
}

double feature_grid(const uint8_t *grey, int width, int height)
{
    const struct grey p = {grey, width, height};

    return 0.5 * (grid_ratio(&p, true) + grid_ratio(&p, false));
}

static void histogram(const struct grey *p, struct features *out)
{
    int64_t count[256] = {0}, sum = 0, squares = 0;
    const int64_t n = (int64_t)p->w * p->h;

    for (int64_t i = 0; i < n; i++)
        count[p->g[i]]++;
    out->entropy = 0;
    for (int v = 0; v < 256; v++) {
        sum += v * count[v];
        squares += (int64_t)v * v * count[v];
        if (count[v] > 0) {
            const double q = (double)count[v] / (double)n;

            out->entropy -= q * feature_log2(q);
        }
    }
    out->luma = (double)sum / (double)n;
    out->contrast = sqrt(fmax(0, (double)squares / (double)n - out->luma * out->luma));
}

static double border_variance(const struct grey *p)
{
    const int side = p->w < p->h ? p->w : p->h, ring = side / 20 > 0 ? side / 20 : 1;
    int64_t sum = 0, squares = 0, n = 0;
    double mean;

    for (int y = 0; y < p->h; y++)
        for (int x = 0; x < p->w; x++) {
            const int v = at(p, x, y);

            if (x >= ring && x < p->w - ring && y >= ring && y < p->h - ring)
                continue;
            sum += v;
            squares += (int64_t)v * v;
            n++;
        }
    mean = (double)sum / (double)n;
    return (double)squares / (double)n - mean * mean;
}

static void colours(const uint8_t *rgb, int64_t n, struct features *out)
{
    int64_t rg = 0, rg2 = 0, yb = 0, yb2 = 0; /* yb doubled, so that it is whole */
    double saturation = 0, m_rg, m_yb, v_rg, v_yb;

    for (int64_t i = 0; i < n; i++) {
        const int r = rgb[3 * i], g = rgb[3 * i + 1], b = rgb[3 * i + 2];
        const int most = r > g ? (r > b ? r : b) : g > b ? g : b;
        const int least = r < g ? (r < b ? r : b) : g < b ? g : b;

        rg += r - g;
        rg2 += (r - g) * (r - g);
        yb += r + g - 2 * b;
        yb2 += (int64_t)(r + g - 2 * b) * (r + g - 2 * b);
        if (most > 0)
            saturation += (double)(most - least) / most;
    }
    m_rg = (double)rg / (double)n;
    m_yb = 0.5 * (double)yb / (double)n;
    v_rg = (double)rg2 / (double)n - m_rg * m_rg;
    v_yb = 0.25 * (double)yb2 / (double)n - m_yb * m_yb;
    out->saturation = saturation / (double)n;
    out->colourfulness = sqrt(fmax(0, v_rg + v_yb)) + 0.3 * sqrt(m_rg * m_rg + m_yb * m_yb);
}

/* Mean standard deviation of 7 x 7 neighbourhoods, one every three pixels: neighbours say nearly the same. */
static double texture(const struct grey *p)
{
    double sum = 0;
    int64_t n = 0;

    for (int y = 3; y + 3 < p->h; y += 3)
        for (int x = 3; x + 3 < p->w; x += 3) {
            int s = 0, q = 0;

            for (int j = -3; j <= 3; j++)
                for (int i = -3; i <= 3; i++) {
                    const int v = at(p, x + i, y + j);

                    s += v;
                    q += v * v;
                }
            sum += sqrt(fmax(0, (double)q / 49 - ((double)s / 49) * ((double)s / 49)));
            n++;
        }
    return n ? sum / (double)n : 0;
}

static double noise(const struct grey *p)
{
    int64_t count[1024] = {0}, n = 0, below = 0;
    int v = 0;

    for (int y = 0; y + 1 < p->h; y++)
        for (int x = 0; x + 1 < p->w; x++) {
            count[abs(at(p, x, y) + at(p, x + 1, y + 1) - at(p, x + 1, y) - at(p, x, y + 1))]++;
            n++;
        }
    while (n > 0 && v < 1023 && below + count[v] <= n / 2)
        below += count[v++];
    return 1.4826 * v / 2; /* the sum of four independent samples has twice the deviation of one */
}

/* ---- bytes of a JPEG ------------------------------------------------------------------------------ */

static const uint8_t luminance[64] = {16,  11,  10,  16,  24, 40, 51,  61,  12,  12,  14,  19,  26,
                                      58,  60,  55,  14,  13, 16, 24,  40,  57,  69,  56,  14,  17,
                                      22,  29,  51,  87,  80, 62, 18,  22,  37,  56,  68,  109, 103,
                                      77,  24,  35,  55,  64, 81, 104, 113, 92,  49,  64,  78,  87,
                                      103, 121, 120, 101, 72, 92, 95,  98,  112, 100, 103, 99};

/* Rows of the orthonormal DCT-II of 8 samples, in 2^-13. */
static const int32_t dct8[8][8] = {{2896, 2896, 2896, 2896, 2896, 2896, 2896, 2896},
                                   {4017, 3406, 2276, 799, -799, -2276, -3406, -4017},
                                   {3784, 1567, -1567, -3784, -3784, -1567, 1567, 3784},
                                   {3406, -799, -4017, -2276, 2276, 4017, 799, -3406},
                                   {2896, -2896, -2896, 2896, 2896, -2896, -2896, 2896},
                                   {2276, -4017, 799, 3406, -3406, -799, 4017, -2276},
                                   {1567, -3784, 3784, -1567, -1567, 3784, -3784, 1567},
                                   {799, -2276, 3406, -4017, 4017, -3406, 2276, -799}};

static int64_t block_bits(const struct grey *p, int bx, int by)
{
    int32_t rows[8][8];
    int64_t bits = 0;

    for (int y = 0; y < 8; y++)
        for (int u = 0; u < 8; u++) {
            rows[y][u] = 0;
            for (int x = 0; x < 8; x++)
                rows[y][u] += dct8[u][x] * (at(p, bx + x, by + y) - 128);
        }
    for (int v = 0; v < 8; v++)
        for (int u = 0; u < 8; u++) {
            const int64_t q = (luminance[8 * v + u] * 50 + 50) / 100;
            int64_t c = 0, level;

            for (int y = 0; y < 8; y++)
                c += (int64_t)dct8[v][y] * rows[y][u];
            c = c < 0 ? -c : c;
            level = ((c >> 13) + (q << 12)) / (q << 13); /* rounded */
            if (level > 0)
                bits += 2 * (63 - __builtin_clzll((uint64_t)level)) + 3;
        }
    return bits;
}

static double jpeg_bpp(const struct grey *p)
{
    int64_t bits = 0, blocks = 0;

    for (int y = 0; y + 8 <= p->h; y += 8)
        for (int x = 0; x + 8 <= p->w; x += 8) {
            bits += block_bits(p, x, y);
            blocks++;
        }
    return blocks ? (double)bits / 8 / 64 / (double)blocks : 0;
}

enum err_code features_measure(const struct pic *p, struct features *out, struct err *err)
{
    const size_t n = (size_t)p->width * (size_t)p->height;
    uint8_t *all = malloc(4 * n);
    struct grey g = {all, p->width, p->height};

    *out = (struct features){0};
    if (!all)
        return err_set(err, ERR_LIMIT, "measuring %d x %d pixels: out of memory", p->width,
                       p->height);
    pic_grey(p, all);
    pic_rgb(p, all + n);
    edges(&g, out);
    out->blockiness = feature_blockiness(all, p->width, p->height);
    histogram(&g, out);
    out->border = border_variance(&g);
    colours(all + n, (int64_t)n, out);
    out->texture = texture(&g);
    out->noise = noise(&g);
    out->jpeg_bpp = jpeg_bpp(&g);
    free(all);
    return OK;
}
