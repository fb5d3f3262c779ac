/* idx.h - IDX files (MNIST and its kin): a header, then bytes.
 *
 *   00 00 08 NDIM | NDIM sizes, 4 bytes big-endian each | bytes, last dimension fastest
 *
 * Life:     idx_parse points into the caller's bytes.
 * Owns:     nothing.
 * Threads:  any.
 * Errors:   ERR_INPUT: not IDX of bytes, or sizes that do not fit the file.
 */
#ifndef WEIR_STAGES_DATA_IDX_H
#define WEIR_STAGES_DATA_IDX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct idx {
    int64_t count;     /* first dimension */
    int rows, columns; /* 1 x 1 for labels */
    const uint8_t *bytes;
};
bool idx_sniff(const void *p, size_t n);
MUST_USE enum err_code idx_parse(const void *p, size_t n, struct idx *out, struct err *err);

#endif
