/* params.h - a set of named parameters in one flat piece of memory, and their gradients in another of the same layout.
 *
 * Life:     params_new -> nets are recorded, which adds parameters (params_add) -> params_seal -> use -> params_free.
 * Owns:     names, values, gradients.  Pointers to values stay where they are from params_seal to params_free.
 * Threads:  one thread changes the set; after params_seal any number may read.
 * Errors:   ERR_INPUT where a name comes back with another shape, or is new after params_seal; ERR_FULL without memory.
 *
 * The order is the order of adding, so it is fixed by the code of the net: what optimiser, checkpoint, hashing and sharding
 * need.  Each parameter starts at a multiple of PARAM_ALIGN elements; the gap is zero and stays zero.  Names are those of
 * the exported safetensors file, because there is one name per thing.
 */
#ifndef WEIR_KERNELS_PARAMS_H
#define WEIR_KERNELS_PARAMS_H

#include "base/err.h"
#include "kernels/tensor.h"

#define PARAM_ALIGN 16
#define PARAM_NAME_MAX 192

enum param_init {
    PARAM_ZERO,
    PARAM_ONE,
    PARAM_NORMAL, /* mean 0, standard deviation scale */
};

struct param {
    const char *name;
    struct shape shape;
    int64_t at, count; /* elements in the flat memory */
    enum param_init init;
    double scale;
    bool frozen; /* gets no gradient, whatever the loss; the optimiser leaves it alone */
};

struct params {
    enum dtype type; /* DT_F32; DT_F64 in tests */
    struct param *list;
    int count, room;
    int64_t total; /* elements of the flat memory, gaps included */
    void *value;   /* from params_seal */
    void *grad;    /* from params_need_grad, zero at first */
    int *table;    /* names, hashed */
    int table_room;
};

struct params *params_new(enum dtype type);
void params_free(struct params *ps); /* NULL is fine */
/* The index of name, added when it is new and the set not sealed. */
MUST_USE enum err_code params_add(struct params *ps, const char *name, struct shape shape,
                                  enum param_init init, double scale, int *index, struct err *err);
/* Memory, filled by init from (seed, the name's hash): independent of order and of what else is in the set.  Again: fine. */
MUST_USE enum err_code params_seal(struct params *ps, uint64_t seed, struct err *err);
MUST_USE enum err_code params_need_grad(struct params *ps, struct err *err);
void params_zero_grad(struct params *ps);
/* -1 where there is none. */
int params_find(const struct params *ps, const char *name);
void *params_value(const struct params *ps, int index);
void *params_grad(const struct params *ps, int index);
/* All whose name starts with prefix. */
void params_freeze(struct params *ps, const char *prefix, bool frozen);

#endif
