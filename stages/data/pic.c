/* Pictures in memory: allocation, formats told apart, what needs no library. */
#include <stdlib.h>
#include <string.h>

#include "stages/data/pic_internal.h"

#define INK_ALPHA 16
#define INK_WHITE 245

enum err_code pic_new(int width, int height, int channels, struct pic *out, struct err *err)
{
    CHECK(width > 0 && width <= PIC_SIDE_MAX);
    CHECK(height > 0 && height <= PIC_SIDE_MAX);
    CHECK(channels == 1 || channels == 3 || channels == 4);
    *out = (struct pic){width, height, channels, NULL};
    out->px = calloc((size_t)width * (size_t)height, (size_t)channels);
    if (!out->px)
        return err_set(err, ERR_LIMIT, "a picture of %d x %d does not fit into memory", width,
                       height);
    return OK;
}

void pic_release(struct pic *p)
{
    free(p->px);
    *p = (struct pic){0};
}

static size_t bytes_of(const struct pic *p)
{
    return (size_t)p->width * (size_t)p->height * (size_t)p->channels;
}

enum err_code pic_copy(const struct pic *p, struct pic *out, struct err *err)
{
    enum err_code rc = pic_new(p->width, p->height, p->channels, out, err);

    if (!rc)
        memcpy(out->px, p->px, bytes_of(p));
    return rc;
}

enum err_code pic_size_check(int64_t width, int64_t height, int64_t pixels_max, struct err *err)
{
    if (width <= 0 || height <= 0)
        return err_set(err, ERR_INPUT, "a picture of %lld x %lld has no pixels", (long long)width,
                       (long long)height);
    if (width > PIC_SIDE_MAX || height > PIC_SIDE_MAX)
        return err_set(err, ERR_LIMIT, "a picture of %lld x %lld: a side has more than %d pixels",
                       (long long)width, (long long)height, PIC_SIDE_MAX);
    if (width * height > pixels_max)
        return err_set(err, ERR_LIMIT, "a picture of %lld x %lld has more than %lld pixels",
                       (long long)width, (long long)height, (long long)pixels_max);
    return OK;
}

/* ---- formats -------------------------------------------------------------------------------------- */

enum pic_format pic_sniff(const void *p, size_t n)
{
    const uint8_t *b = p;

    if (n >= 8 && memcmp(b, "\x89PNG\r\n\x1a\n", 8) == 0)
        return PIC_PNG;
    if (n >= 3 && memcmp(b, "\xff\xd8\xff", 3) == 0)
        return PIC_JPEG;
    if (n >= 12 && memcmp(b, "RIFF", 4) == 0 && memcmp(b + 8, "WEBP", 4) == 0)
        return PIC_WEBP;
    return PIC_FORMAT_NONE;
}

const char *pic_format_word(enum pic_format f)
{
    static const char *const words[] = {"png", "jpeg", "webp", "none"};

    CHECK(f <= PIC_FORMAT_NONE);
    return words[f];
}

enum err_code pic_decode(const void *p, size_t n, const struct pic_limits *limits, struct pic *out,
                         struct pic_info *info, struct err *err)
{
    const int64_t pixels_max = limits && limits->pixels_max ? limits->pixels_max : PIC_PIXELS_MAX;
    enum err_code rc = OK;

    *out = (struct pic){0};
    *info = (struct pic_info){.format = pic_sniff(p, n), .orientation = 1, .depth = 8};
    if (n == 0)
        return err_set(err, ERR_INPUT, "the file is empty");
    if (n > PIC_FILE_MAX)
        return err_set(err, ERR_LIMIT, "a file of %zu bytes; at most %d are read", n, PIC_FILE_MAX);
    switch (info->format) {
    case PIC_PNG:
        rc = pic_png_decode(p, n, pixels_max, out, info, err);
        break;
    case PIC_JPEG:
        rc = pic_jpeg_decode(p, n, pixels_max, out, info, err);
        break;
    case PIC_WEBP:
        rc = pic_webp_decode(p, n, pixels_max, out, info, err);
        break;
    case PIC_FORMAT_NONE:
        return err_set(err, ERR_INPUT, "not a picture that is read here (PNG, JPEG, WebP)");
    }
    if (!rc)
        rc = pic_orient(out, info->orientation, err);
    if (rc)
        pic_release(out);
    return rc;
}

/* ---- EXIF ----------------------------------------------------------------------------------------- */

static uint32_t number(const uint8_t *p, int bytes, bool big)
{
    uint32_t v = 0;

    for (int i = 0; i < bytes; i++)
        v |= (uint32_t)p[i] << (8 * (big ? bytes - 1 - i : i));
    return v;
}

int pic_exif_orientation(const uint8_t *p, size_t n)
{
    uint32_t at, count;
    bool big;

    if (n >= 6 && memcmp(p, "Exif\0\0", 6) == 0) {
        p += 6;
        n -= 6;
    }
    if (n < 8 || (memcmp(p, "MM\0*", 4) != 0 && memcmp(p, "II*\0", 4) != 0))
        return 1;
    big = p[0] == 'M';
    at = number(p + 4, 4, big);
    if (at > n || n - at < 2)
        return 1;
    count = number(p + at, 2, big);
    for (uint32_t i = 0; i < count && n - at - 2 >= 12 * ((size_t)i + 1); i++) {
        const uint8_t *e = p + at + 2 + 12 * (size_t)i;

        if (number(e, 2, big) == 0x0112 && number(e + 2, 2, big) == 3) {
            const uint32_t v = number(e + 8, 2, big);

            return v >= 1 && v <= 8 ? (int)v : 1;
        }
    }
    return 1;
}

enum err_code pic_orient(struct pic *p, int orientation, struct err *err)
{
    const bool swap = orientation >= 5;
    const int w = p->width, h = p->height;
    struct pic q;
    enum err_code rc;

    if (orientation <= 1 || orientation > 8)
        return OK;
    rc = pic_new(swap ? h : w, swap ? w : h, p->channels, &q, err);
    if (rc)
        return rc;
    for (int y = 0; y < q.height; y++) {
        for (int x = 0; x < q.width; x++) {
            int sx = swap ? y : x, sy = swap ? x : y;

            if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8)
                sx = w - 1 - sx;
            if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7)
                sy = h - 1 - sy;
            memcpy(q.px + ((size_t)y * (size_t)q.width + (size_t)x) * (size_t)q.channels,
                   p->px + ((size_t)sy * (size_t)w + (size_t)sx) * (size_t)p->channels,
                   (size_t)p->channels);
        }
    }
    pic_release(p);
    *p = q;
    return OK;
}

/* ---- parts ---------------------------------------------------------------------------------------- */

enum err_code pic_crop(const struct pic *p, int x, int y, int width, int height, struct pic *out,
                       struct err *err)
{
    enum err_code rc;

    CHECK(x >= 0 && y >= 0 && width > 0 && height > 0);
    CHECK(x <= p->width - width && y <= p->height - height);
    rc = pic_new(width, height, p->channels, out, err);
    for (int row = 0; !rc && row < height; row++)
        memcpy(out->px + (size_t)row * (size_t)width * (size_t)p->channels,
               p->px + ((size_t)(y + row) * (size_t)p->width + (size_t)x) * (size_t)p->channels,
               (size_t)width * (size_t)p->channels);
    return rc;
}

static bool is_ink(const uint8_t *px, int channels)
{
    if (channels == 1)
        return px[0] <= INK_WHITE;
    if (channels == 4 && px[3] <= INK_ALPHA)
        return false;
    return px[0] <= INK_WHITE || px[1] <= INK_WHITE || px[2] <= INK_WHITE;
}

bool pic_ink_box(const struct pic *p, int *x, int *y, int *width, int *height)
{
    int left = p->width, right = -1, top = p->height, bottom = -1;

    for (int j = 0; j < p->height; j++) {
        const uint8_t *row = p->px + (size_t)j * (size_t)p->width * (size_t)p->channels;

        for (int i = 0; i < p->width; i++) {
            if (!is_ink(row + (size_t)i * (size_t)p->channels, p->channels))
                continue;
            left = i < left ? i : left;
            right = i > right ? i : right;
            top = j < top ? j : top;
            bottom = j;
        }
    }
    *x = left;
    *y = top;
    *width = right - left + 1;
    *height = bottom - top + 1;
    return right >= 0;
}

enum err_code pic_centre(const struct pic *p, int width, int height, struct pic *out,
                         struct err *err)
{
    const int x = (width - p->width) / 2, y = (height - p->height) / 2;
    enum err_code rc;

    CHECK(x >= 0 && y >= 0);
    rc = pic_new(width, height, p->channels, out, err);
    if (rc)
        return rc;
    if (p->channels != 4)
        memset(out->px, 255, bytes_of(out));
    for (int row = 0; row < p->height; row++)
        memcpy(out->px + ((size_t)(y + row) * (size_t)width + (size_t)x) * (size_t)p->channels,
               p->px + (size_t)row * (size_t)p->width * (size_t)p->channels,
               (size_t)p->width * (size_t)p->channels);
    return OK;
}

/* ---- colours -------------------------------------------------------------------------------------- */

static int on_white(int c, int a)
{
    return (c * a + 255 * (255 - a) + 127) / 255;
}

void pic_rgb(const struct pic *p, uint8_t *out)
{
    const size_t n = (size_t)p->width * (size_t)p->height;

    for (size_t i = 0; i < n; i++) {
        const uint8_t *px = p->px + i * (size_t)p->channels;

        for (int c = 0; c < 3; c++) {
            const int v = px[p->channels == 1 ? 0 : c];

            out[3 * i + (size_t)c] = (uint8_t)(p->channels == 4 ? on_white(v, px[3]) : v);
        }
    }
}

void pic_grey(const struct pic *p, uint8_t *out)
{
    const size_t n = (size_t)p->width * (size_t)p->height;

    if (p->channels == 1) {
        memcpy(out, p->px, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const uint8_t *px = p->px + i * (size_t)p->channels;
        int v = (299 * px[0] + 587 * px[1] + 114 * px[2] + 500) / 1000;

        out[i] = (uint8_t)(p->channels == 4 ? on_white(v, px[3]) : v);
    }
}
