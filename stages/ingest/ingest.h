/* ingest.h - the parts of the program ingest: find files, make pictures of them, write records.
 *
 *   walk       members come in order; pictures wait in a batch, everything that says something about them is kept aside
 *   normalise  a batch is decoded, cropped, resized and written by the pool; results go back into the order of the walk
 *   records    at the end: captions, claims, one record for each picture
 *
 * Life:     ingest_walk for each source, then ingest_records.
 * Owns:     struct ingest everything it found.
 * Threads:  the pool's threads touch one struct found each.
 * Errors:   ERR_INPUT for records and options; a bad picture is counted, never an error.
 */
#ifndef WEIR_STAGES_INGEST_INGEST_H
#define WEIR_STAGES_INGEST_INGEST_H

#include "base/pool.h"
#include "stages/data/dataset.h"
#include "stages/data/dep5.h"
#include "stages/data/pic.h"
#include "stages/runtime/stage.h"

#define BATCH_PICTURES 256
#define BATCH_BYTES (64 << 20)
#define NOTE_BYTES_MAX (64 << 10) /* of a text beside a picture */
#define NOTES_BYTES_MAX ((int64_t)1 << 30)
#define EXAMPLES 5

struct found { /* one picture */
    char *member;
    int label;     /* of an IDX file, -1: none */
    int64_t index; /* in its IDX file */
    uint8_t *bytes;
    size_t byte_count;
    int grey_side[2]; /* bytes are grey pixels of that width and height (IDX); 0: a file */
    /* filled in by normalise */
    char path[DATASET_PATH_MAX], sha256[DIGEST_HEX + 1];
    int width, height;
    struct pic_info info;
    int64_t file_bytes;
    double blockiness, grid;
    const char *skip; /* a class, NULL: kept */
    char why[200];
};
struct note { /* STEM.txt or STEM.json */
    char *stem, *text;
    size_t n;
    bool json;
};
struct labels {
    char *name;
    uint8_t *bytes; /* one a picture */
    size_t count;
};
struct skip {
    const char *class;
    int64_t count;
    char *examples[EXAMPLES];
};
struct origin { /* one source */
    const char *name;
    struct found *list;
    size_t count, cap, batch_from;
    int64_t batch_bytes, note_bytes, files;
    struct note *notes;
    size_t note_count, note_cap;
    struct skip skips[16];
    size_t skip_count;
    struct dep5 *dep5;
    struct labels *labels; /* IDX files of labels */
    size_t label_file_count;
    bool free_copyright; /* a copyright file that is not machine-readable */
};
struct options {
    const char *license, *attribution, *caption_license, *include, *exclude, *fit, *caption,
        *labels, *fields;
    int64_t side, margin, pixels_max, member_bytes_max, limit;
    double ink_min, aspect_max;
};
struct ingest {
    struct stage_task *task;
    struct options o;
    struct pool *pool;
    struct dataset_writer out;
    struct origin *origins;
    size_t origin_count;
    struct lines records; /* the sidecar */
    json_t **record_rows; /* sorted by path */
    size_t record_count;
    int64_t kept;
};

MUST_USE enum err_code ingest_walk(struct ingest *in, struct origin *o, const char *path,
                                   struct err *err);
/* Pictures from batch_from on. */
MUST_USE enum err_code ingest_normalise(struct ingest *in, struct origin *o, struct err *err);
MUST_USE enum err_code ingest_sidecar(struct ingest *in, const char *path, struct err *err);
MUST_USE enum err_code ingest_records(struct ingest *in, struct err *err);
void ingest_skip(struct origin *o, const char *class, const char *member, const char *why);

#endif
