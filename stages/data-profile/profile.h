/* profile.h - the parts of the program data-profile: measure, score, find duplicates, weigh words, filter, report.
 *
 * Everything is computed for all rows first and filtered last, so that a filter never changes the scores of what it leaves.
 *
 *   measure   features and hashes of each picture, by the pool
 *   score     quality, aesthetic: within a source, for sources differ by nature
 *   group     exact and near duplicates; the best of a group keeps the claims of all
 *   tags      words of captions: rarity (BM25's idf), importance (PageRank), complexity
 *   filter    reasons to leave a row out, in a fixed order; what goes is written down
 *   report    numbers as JSON, the same with pictures as HTML
 *
 * Life:     profile_measure -> profile_score -> profile_group -> profile_tags -> profile_filter -> profile_report.
 * Owns:     struct profile all of it.
 * Threads:  the pool's threads touch one item each.
 * Errors:   ERR_INPUT: a dataset that is none, a picture that cannot be read.
 */
#ifndef WEIR_STAGES_DATA_PROFILE_PROFILE_H
#define WEIR_STAGES_DATA_PROFILE_PROFILE_H

#include "base/pool.h"
#include "stages/data/dataset.h"
#include "stages/data/feature.h"
#include "stages/data/phash.h"
#include "stages/runtime/stage.h"

#define TAGS_MAX 32 /* words of one caption that count */

struct item {
    const struct dataset *set;
    json_t *row;
    const char *id, *source;     /* in row */
    char sha256[DIGEST_HEX + 1]; /* of the picture's file here */
    struct features f;
    struct twin twin;
    int width, height;       /* of the picture here */
    int side;                /* the original's shorter one */
    double blockiness, grid; /* of the pixels of the original */
    double compression;      /* bytes / (3 W H) of the original */
    bool lossy;
    double quality, aesthetic, rarity, complexity;
    int64_t group; /* index of its group's best item; itself when alone */
    int tag_count;
    int32_t tags[TAGS_MAX];
    const char *removed; /* a reason, NULL: kept */
};
struct tag {
    char *word;
    int64_t rows;
    double idf, rank;
};
struct profile {
    struct stage_task *task;
    struct dataset *sets;
    size_t set_count;
    struct item *items; /* by id */
    int64_t count;
    struct pool *pool;
    struct tag *tags;
    int32_t tag_count;
    int64_t exact, near; /* rows that are duplicates of another */
    struct dataset_writer out;
};

MUST_USE enum err_code profile_load(struct profile *p, struct err *err);
MUST_USE enum err_code profile_measure(struct profile *p, struct err *err);
void profile_score(struct profile *p);
MUST_USE enum err_code profile_group(struct profile *p, struct err *err);
void profile_tags(struct profile *p);
void profile_filter(struct profile *p);
MUST_USE enum err_code profile_write(struct profile *p, struct err *err);
MUST_USE enum err_code profile_report(struct profile *p, struct err *err);

/* Share of values below v, equal ones half: in (0, 1), the same whatever the order.  out may be values. */
void profile_ranks(const double *values, int64_t count, double *out);

#endif
