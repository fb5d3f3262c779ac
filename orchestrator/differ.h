/* differ.h - where two artifacts first differ: the file, and in safetensors the tensor and by how much.
 *
 * Life:     one call.
 * Owns:     nothing.
 * Threads:  one.
 * Errors:   as store/reader.h.  What cannot be parsed is compared as bytes.
 */
#ifndef WEIR_ORCHESTRATOR_DIFFER_H
#define WEIR_ORCHESTRATOR_DIFFER_H

#include "store/store.h"

struct difference {
    bool equal;
    char path[1024];  /* in the tree, escaped; "" for a blob itself */
    char what[64];    /* "only in the first", "kind", "mode", "bytes", "tensor" */
    int64_t offset;   /* bytes: of the first different byte */
    char tensor[256]; /* tensor: the first one in file order */
    int64_t tensors;  /* that differ */
    /* |a - b| over all elements of the first; NaN against a number counts as infinite; NaN: its type is not understood */
    double largest;
};
MUST_USE enum err_code differ(struct store *st, enum obj_kind kind, const struct digest *a,
                              const struct digest *b, struct difference *out, struct err *err);
/* "model.safetensors: tensor blocks.0.attn.qkv.weight, largest difference 1.2e-07 (3 tensors differ)" */
void differ_say(const struct difference *d, struct buf *out);

#endif
