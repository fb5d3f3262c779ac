/* pic_internal.h - one decoder a file, behind pic_decode.
 *
 * Life:     one call; out is released by the caller when it fails.
 * Owns:     nothing.
 * Threads:  any.
 * Errors:   as pic.h.
 */
#ifndef WEIR_STAGES_DATA_PIC_INTERNAL_H
#define WEIR_STAGES_DATA_PIC_INTERNAL_H

#include "stages/data/pic.h"

/* Sizes from a header, before anything is allocated. */
MUST_USE enum err_code pic_size_check(int64_t width, int64_t height, int64_t pixels_max,
                                      struct err *err);
MUST_USE enum err_code pic_png_decode(const uint8_t *p, size_t n, int64_t pixels_max,
                                      struct pic *out, struct pic_info *info, struct err *err);
MUST_USE enum err_code pic_jpeg_decode(const uint8_t *p, size_t n, int64_t pixels_max,
                                       struct pic *out, struct pic_info *info, struct err *err);
MUST_USE enum err_code pic_webp_decode(const uint8_t *p, size_t n, int64_t pixels_max,
                                       struct pic *out, struct pic_info *info, struct err *err);
/* The orientation in an EXIF block (a TIFF, with or without "Exif\0\0" in front); 1 when there is none or it makes no sense. */
int pic_exif_orientation(const uint8_t *p, size_t n);

#endif
