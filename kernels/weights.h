/* weights.h - safetensors files: read by mapping, written in one strict form, and parameter sets to and from them.
 *
 * Life:     weights_open -> weights_find, weights_at -> weights_close.  weights_save and weights_load stand alone.
 * Owns:     an open file owns its mapping; tensors and names point into it and die at weights_close.
 * Threads:  an open file is constant; any number may read it.
 * Errors:   as os.h for the world's answers; ERR_INPUT for what is not a proper file (every message names the path and tensor),
 *           ERR_LIMIT past a bound.  A file that somebody shortens while it is mapped ends the process (SIGBUS): stages read
 *           stored objects, which never change.
 * Format:   8 bytes little-endian header size, JSON header padded with spaces to a multiple of 8, then data.
 *
 * Read: sizes are bounded before use; offsets must tile the data exactly, without holes or overlap; shape x type must equal
 * the extent.  Written: names in byte order, data in the same order, {"format":"pt"} in __metadata__ beside what the caller
 * gives, so equal tensors give equal bytes, whoever writes.
 */
#ifndef WEIR_KERNELS_WEIGHTS_H
#define WEIR_KERNELS_WEIGHTS_H

#include "base/err.h"
#include "kernels/params.h"

#define WEIGHTS_HEADER_MAX (64 << 20)
#define WEIGHTS_COUNT_MAX 65536

struct weights_tensor {
    const char *name;
    const char *type_name; /* as the file says: "F32", "BF16", "I64", ... */
    bool known;            /* type is one of ours */
    enum dtype type;
    struct shape shape; /* a scalar is (1) */
    const void *data;
    int64_t bytes;
};

struct weights;
MUST_USE enum err_code weights_open(const char *path, struct weights **out, struct err *err);
void weights_close(struct weights *w); /* NULL is fine */
int weights_count(const struct weights *w);
const struct weights_tensor *weights_at(const struct weights *w, int index); /* in order of names */
const struct weights_tensor *weights_find(const struct weights *w, const char *name);
/* A value of __metadata__, NULL where there is none. */
const char *weights_meta(const struct weights *w, const char *key);
/* Element i of a tensor of known type, for tests and small things. */
double weights_get(const struct weights_tensor *t, int64_t i);

/* Pairs of strings for __metadata__; key NULL ends the list. */
struct weights_pair {
    const char *key, *value;
};
/* The values of flat (ps->value, or a moving average of the same layout) as type (DT_F32 or DT_BF16).  Written aside, synced,
 * renamed over path. */
MUST_USE enum err_code weights_save(const struct params *ps, const void *flat, enum dtype type,
                                    const struct weights_pair *meta, const char *path,
                                    struct err *err);
/* Every parameter's value from the file: names and shapes must match exactly, in both directions.  The set is sealed. */
MUST_USE enum err_code weights_load(struct params *ps, const char *path, struct err *err);

#endif
