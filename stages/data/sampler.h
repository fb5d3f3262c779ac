/* sampler.h - which rows a training step uses, and at which steps a row was used: both are calculations.
 *
 *   space     rows * copies slots; slot s is copy s % copies of row s / copies
 *   epoch     a permutation of all slots, keyed by (seed, phase, epoch, size of the space): a Feistel network over the next even power of
 *             two, walked in cycles until it falls inside.  weir-perm-v1
 *   mask      a slot takes part when its copy is below the row's count in this epoch; a slot that does not is skipped
 *   count     weight in 1/256 steps: weight / 256 rounded down or up, by a coin of (seed, phase, epoch, row) with the right mean; 0: removed
 *   draws     epoch after epoch without a gap; step k of a phase takes draws [k * batch, (k + 1) * batch)
 *   phase     from its first step on, its weights hold; a curriculum is a list of phases, so weights are a pure function of the step
 *
 * The permutation never sees the mask: removing rows leaves the order of all others as it was.
 *
 * Life:     sampler_new -> sampler_rows, sampler_steps in any order -> sampler_free.
 * Owns:     copies of the weights; a bitmap of one epoch (rows * copies bits), rebuilt when another epoch is asked for.
 * Threads:  one sampler, one thread.
 * Errors:   ERR_INPUT where no row is left, ERR_LIMIT past SAMPLER_SLOTS_MAX.
 * Paper:    Black and Rogaway 2002, Ciphers with arbitrary finite domains (cycle walking); Luby and Rackoff 1988.
 */
#ifndef WEIR_STAGES_DATA_SAMPLER_H
#define WEIR_STAGES_DATA_SAMPLER_H

#include "base/hash.h"

#define SAMPLER_VERSION "weir-perm-v1"
#define SAMPLER_SLOTS_MAX ((int64_t)1 << 36)
#define SAMPLER_WEIGHT_ONE 256

struct perm {
    uint64_t key;
    int64_t size;
    int half_bits;
};
void perm_init(struct perm *p, uint64_t seed, int64_t phase, int64_t epoch, int64_t size);
int64_t perm_forward(const struct perm *p, int64_t position); /* -> slot */
int64_t perm_inverse(const struct perm *p, int64_t slot);     /* -> position */

struct sampler_phase {
    int64_t first_step; /* 0 for the first phase, then ascending */
    const uint16_t
        *weights; /* one a row, SAMPLER_WEIGHT_ONE is once an epoch, 0 never; NULL: all once */
};
struct sampler;
/* copies: the largest weight, rounded up to whole numbers; part of the key, so fix it in the recipe (1 when nothing is weighted). */
MUST_USE enum err_code sampler_new(uint64_t seed, int64_t rows, int copies, int64_t batch,
                                   const struct sampler_phase *phases, size_t phase_count,
                                   struct sampler **out, struct err *err);
void sampler_free(struct sampler *s); /* NULL is fine */
/* The batch rows of a step. */
void sampler_rows(struct sampler *s, int64_t step, int64_t *rows);
/* Every step in [first, last] that used row, ascending, one entry for each use; *count of them.  free(*steps). */
void sampler_steps(struct sampler *s, int64_t row, int64_t first, int64_t last, int64_t **steps,
                   size_t *count);
/* Draws in an epoch of a phase. */
int64_t sampler_epoch_draws(struct sampler *s, size_t phase, int64_t epoch);
/* SHA-256 over the removed rows of a phase (weight 0), ascending, 8 bytes little-endian each. */
void sampler_mask_digest(const struct sampler *s, size_t phase, struct digest *out);
/* SHA-256 over all weights of a phase, 2 bytes little-endian each. */
void sampler_weights_digest(const struct sampler *s, size_t phase, struct digest *out);

#endif
