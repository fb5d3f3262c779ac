/* phash.h - is this nearly the same picture?  A 64-bit perceptual hash, and a small thumbnail that confirms.
 *
 *   hash: grey, area-resized to 32 x 32, DCT-II in integers, the 8 x 8 lowest frequencies, bit = coefficient > median (without DC)
 *
 * Hamming distance finds candidates; a hash forgets colour, so twin_look compares thumbnails of 16 x 16 pixels as well.
 *
 * Life:     plain values.
 * Owns:     nothing.
 * Threads:  any.
 * Errors:   as pic_resize.
 * Paper:    Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions; Norouzi et al. 2012, Fast Search in Hamming Space
 *           with Multi-Index Hashing.
 */
#ifndef WEIR_STAGES_DATA_PHASH_H
#define WEIR_STAGES_DATA_PHASH_H

#include "stages/data/pic.h"

#define TWIN_SIDE 16
struct twin { /* what duplicates are found by */
    uint64_t hash;
    uint8_t rgb[TWIN_SIDE * TWIN_SIDE * 3];
};
struct twin_rule {
    int distance_max; /* of the hashes, of 64 bits */
    int centre_max; /* a slight crop moves things: thumbnails may differ by this much (mean of |difference|, 0 to 255) ... */
};

MUST_USE enum err_code twin_make(const struct pic *p, struct twin *out, struct err *err);
int phash_distance(uint64_t a, uint64_t b);
bool twin_same(const struct twin *a, const struct twin *b, const struct twin_rule *rule);

/* All pairs i < j that are the same, in ascending order of (i, j).  Found through equal bands of bits: of distance_max + 1 bands at least one is
 * equal, so none is missed.  pairs_max bounds what is kept: ERR_LIMIT. */
struct twin_pair {
    int64_t i, j;
};
MUST_USE enum err_code twin_search(const struct twin *list, int64_t count,
                                   const struct twin_rule *rule, int64_t pairs_max,
                                   struct twin_pair **pairs, int64_t *pair_count, struct err *err);

#endif
