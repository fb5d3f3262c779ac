/* feature.h - what can be measured on a picture: blur, blocks, noise, colour, detail.
 *
 * g is the grey picture, 0 to 255; alpha lies on white.
 *   sharpness     variance of the Laplacian [0 1 0; 1 -4 1; 0 1 0]
 *   tenengrad     mean of Sobel_x^2 + Sobel_y^2
 *   blockiness    mean |g(x) - g(x-1)| where x % 8 == 0, over that of the other columns; averaged with rows; 1 where all is flat
 *   jpeg_bpp      bytes a pixel of a JPEG of quality 75, estimated from its quantised 8 x 8 transform without an encoder
 *   border        variance of the outer 5 % ring
 *   entropy       -sum p log2 p of the histogram
 *   luma, contrast          mean and standard deviation of g
 *   saturation    mean of HSV's S
 *   colourfulness sqrt(s_rg^2 + s_yb^2) + 0.3 sqrt(m_rg^2 + m_yb^2), rg = R - G, yb = (R + G) / 2 - B
 *   texture       mean standard deviation of 7 x 7 neighbourhoods
 *   noise         1.4826 * median absolute value of the diagonal high-pass, / 2
 *
 * Only + - * / sqrt in double, in a fixed order: the same bits on every machine with IEEE arithmetic, whatever its mathematical library.
 *
 * Life:     one call a picture.
 * Owns:     nothing.
 * Threads:  any.
 * Errors:   ERR_LIMIT where there is no memory.
 * Paper:    Pertuz et al. 2013, Analysis of focus measure operators; Wang et al. 2000, Blind measurement of blocking artifacts; Hasler and
 *           Suesstrunk 2003, Measuring colourfulness in natural images; Wallace 1991, The JPEG still picture compression standard.
 */
#ifndef WEIR_STAGES_DATA_FEATURE_H
#define WEIR_STAGES_DATA_FEATURE_H

#include "stages/data/pic.h"

struct features {
    double sharpness, tenengrad, blockiness, jpeg_bpp, border, entropy, luma, contrast, saturation,
        colourfulness, texture, noise;
};
MUST_USE enum err_code features_measure(const struct pic *p, struct features *out, struct err *err);
/* Blockiness alone, of a grey picture on its own pixel grid. */
double feature_blockiness(const uint8_t *grey, int width, int height);
/* The same with medians of columns and rows for means: an edge of the picture that happens to lie on the grid does not count. */
double feature_grid(const uint8_t *grey, int width, int height);
double feature_log2(double x); /* x > 0; by series, within 1e-12 */

#endif
