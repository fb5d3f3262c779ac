/* pic.h - pictures: bounded decoding, resizing that gives the same bits everywhere, PNG and JPEG out.
 *
 *   px holds height rows of width pixels of channels bytes: 1 grey, 3 R G B, 4 R G B A (not premultiplied).
 *
 * Read are PNG (palette, 16 bit, interlaced; an APNG's first frame), JPEG (grey, YCC, CMYK, YCCK, progressive) and WebP (an animation's
 * first frame); EXIF orientation is applied.  The header is looked at before anything its size is allocated.  A file that ends too early
 * is refused, however much of it could be shown.
 *
 * Resizing is integer arithmetic: rows, then columns, colours weighted by alpha, sums in a fixed order.
 *
 * Life:     pic_decode or pic_new -> pic_release (fine on zeroed storage).
 * Owns:     px.
 * Threads:  one picture, one thread.
 * Errors:   ERR_INPUT: no picture, damaged, truncated; ERR_LIMIT: past a limit, which the text names.
 * Paper:    Keys 1981, Cubic convolution interpolation for digital image processing (bicubic, a = -0.5).
 */
#ifndef WEIR_STAGES_DATA_PIC_H
#define WEIR_STAGES_DATA_PIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#define PIC_SIDE_MAX 32768
#define PIC_PIXELS_MAX 30000000  /* default of pic_limits: four times a 4K screen */
#define PIC_SCANS_MAX 200        /* of a progressive JPEG: each costs a pass over all of it */
#define PIC_FILE_MAX (256 << 20) /* bytes of a file */

struct pic {
    int width, height, channels;
    uint8_t *px;
};
struct pic_limits {
    int64_t pixels_max; /* 0: PIC_PIXELS_MAX */
};
enum pic_format { PIC_PNG, PIC_JPEG, PIC_WEBP, PIC_FORMAT_NONE };
struct pic_info {
    enum pic_format format;
    int width, height; /* as stored, before the rotation */
    int depth;         /* bits of a sample */
    int orientation;   /* of EXIF, 1 to 8; 1 where there is none */
    bool palette, cmyk, animated;
    int warnings; /* of the decoder, about damage that it could pass over */
};

MUST_USE enum err_code pic_new(int width, int height, int channels, struct pic *out,
                               struct err *err);
void pic_release(struct pic *p);
MUST_USE enum err_code pic_copy(const struct pic *p, struct pic *out, struct err *err);

enum pic_format pic_sniff(const void *p,
                          size_t n); /* by the first bytes; PIC_FORMAT_NONE: none of ours */
const char *pic_format_word(enum pic_format f); /* "png", "jpeg", "webp" */
MUST_USE enum err_code pic_decode(const void *p, size_t n, const struct pic_limits *limits,
                                  struct pic *out, struct pic_info *info, struct err *err);
/* Grey pictures stay grey; the same bytes for the same picture and libpng. */
MUST_USE enum err_code pic_encode_png(const struct pic *p, struct buf *out, struct err *err);
/* Alpha is put on white. */
MUST_USE enum err_code pic_encode_jpeg(const struct pic *p, int quality, struct buf *out,
                                       struct err *err);

enum pic_filter { PIC_AREA, PIC_BICUBIC };
MUST_USE enum err_code pic_resize(const struct pic *p, int width, int height,
                                  enum pic_filter filter, struct pic *out, struct err *err);
/* A part of p; must lie inside. */
MUST_USE enum err_code pic_crop(const struct pic *p, int x, int y, int width, int height,
                                struct pic *out, struct err *err);
/* The box of pixels with alpha > 16 that are not near-white (a channel <= 245); false when there are none. */
bool pic_ink_box(const struct pic *p, int *x, int *y, int *width, int *height);
/* In the middle of a new picture; around it transparent when p has alpha, else white. */
MUST_USE enum err_code pic_centre(const struct pic *p, int width, int height, struct pic *out,
                                  struct err *err);
/* Grey of 8 bits by BT.601 (299 587 114), alpha on white.  out: width * height bytes. */
void pic_grey(const struct pic *p, uint8_t *out);
/* R G B, alpha on white. */
void pic_rgb(const struct pic *p, uint8_t *out);
/* EXIF orientation applied in place of p. */
MUST_USE enum err_code pic_orient(struct pic *p, int orientation, struct err *err);

/* Versions of the libraries, for --describe. */
const char *pic_png_version(void);
const char *pic_jpeg_version(void);
const char *pic_webp_version(void);

#endif
