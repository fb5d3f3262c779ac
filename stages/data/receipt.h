/* receipt.h - usage.json: which rows a training used, so that anybody can redo the calculation.
 *
 *   {"version":1,"uses":[{"dataset":"sha256:..","rows":N,"permutation":"weir-perm-v1","seed":S,"copies":C,"batch":B,"first_step":a,
 *    "last_step":b,"mask":"sha256:..","weights":"sha256:..","per_step_hash":"sha256:.."}]}
 *
 * per_step_hash is a chain, so that a checkpoint can carry it: h = SHA-256(h before, step, rows), numbers 8 bytes little-endian each, 32 zero
 * bytes before the first step.  It says what the program reports, to be compared with what the sampler predicts.
 *
 * Life:     receipt_open -> receipt_step for each step -> receipt_write, as often as wanted.  The struct is plain: copy it, save it.
 * Owns:     nothing.
 * Threads:  one.
 * Errors:   as os_write_file.
 */
#ifndef WEIR_STAGES_DATA_RECEIPT_H
#define WEIR_STAGES_DATA_RECEIPT_H

#include "stages/data/sampler.h"

struct receipt {
    const char *dataset;                        /* "sha256:.."; borrowed */
    uint64_t seed;                              /* below 2^53 */
    int64_t rows, batch, first_step, last_step; /* last_step < first_step: none yet */
    int copies;
    struct digest mask, weights;
    struct digest steps;
};
void receipt_open(struct receipt *r, const char *dataset, uint64_t seed, int64_t rows, int copies,
                  int64_t batch);
/* Steps come in order, without a gap. */
void receipt_step(struct receipt *r, int64_t step, const int64_t *rows);
/* usage.json in dir. */
MUST_USE enum err_code receipt_write(const struct receipt *list, size_t count, const char *dir,
                                     struct err *err);

#endif
