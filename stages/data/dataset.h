/* dataset.h - a dataset on disk: records as JSON lines, pictures named by their bytes, licences summed up.
 *
 *   records.jsonl     one canonical JSON object a line, in ascending order of "id"
 *   images/ab/HEX.png the picture whose file has that SHA-256 (ab is its beginning); equal pictures are one file
 *   licenses.json     {"licenses":[{"expression","source","pictures","share"},..]} over all rows
 *
 * A record has every member of row_fields (null where nothing is known), which are the schema, and whatever else its maker knows:
 * id, original_sha256, image_claims, caption_license, concluded_license, dup_of, truth, concept, attribution, captions with suffix _zh.
 * image_path is relative to the dataset.
 *
 * Life:     dataset_open -> dataset_row, dataset_picture -> dataset_release.   dataset_create -> dataset_picture_put, dataset_add ->
 *           dataset_finish -> dataset_writer_release.
 * Owns:     a reader its text; a writer the rows until finish.
 * Threads:  a reader any number; dataset_picture_put from any thread, the rest of a writer from one.
 * Errors:   ERR_INPUT as "records.jsonl:LINE: ..", ERR_LIMIT past a bound, and what the disk says.
 */
#ifndef WEIR_STAGES_DATA_DATASET_H
#define WEIR_STAGES_DATA_DATASET_H

#include "base/hash.h"
#include "base/json.h"

#define DATASET_RECORDS "records.jsonl"
#define DATASET_LINE_MAX (1 << 20)
#define DATASET_TEXT_MAX ((size_t)8 << 30)
#define DATASET_PICTURE_MAX (256 << 20)

extern const char *const row_fields[]; /* ends with NULL */
json_t *row_new(void);                 /* every field there, null */
/* Text of a member, or standard where it is absent or no text. */
const char *row_text(const json_t *row, const char *key, const char *standard);
void row_set(json_t *row, const char *key, json_t *taken);
/* Scores are kept to six places: nobody needs more, and files stay readable. */
json_t *row_score(double v);

/* Any text of JSON lines. */
struct lines {
    char *text;
    struct str *list; /* without their newline; empty lines are left out */
    int *number;      /* 1-based, for messages */
    int64_t count;
};
MUST_USE enum err_code lines_split(char *taken, size_t n, struct lines *out, struct err *err);
void lines_release(struct lines *l);
MUST_USE enum err_code lines_row(const struct lines *l, int64_t i, const char *file, json_t **out,
                                 struct err *err);

struct dataset {
    char *path;
    struct lines lines;
};
MUST_USE enum err_code dataset_open(const char *path, struct dataset *out, struct err *err);
void dataset_release(struct dataset *d); /* fine on zeroed storage */
MUST_USE enum err_code dataset_row(const struct dataset *d, int64_t i, json_t **out,
                                   struct err *err);
/* The bytes of a row's picture, in place of what out held. */
MUST_USE enum err_code dataset_picture(const struct dataset *d, const json_t *row, struct buf *out,
                                       struct err *err);

struct dataset_item {
    char *id, *line;
    char *license, *source;
};
struct dataset_writer {
    int dir;
    struct dataset_item *items;
    size_t count, cap;
};
MUST_USE enum err_code dataset_create(const char *path, struct dataset_writer *out,
                                      struct err *err);
/* path gets "images/ab/HEX.png"; ext is "png", "jpg". */
#define DATASET_PATH_MAX 96
MUST_USE enum err_code dataset_picture_put(struct dataset_writer *w, const void *p, size_t n,
                                           const char *ext, char path[DATASET_PATH_MAX],
                                           struct err *err);
/* Borrows row; it has an id that no other row has. */
MUST_USE enum err_code dataset_add(struct dataset_writer *w, const json_t *row, struct err *err);
/* Any JSON beside the records, canonical, with a newline. */
MUST_USE enum err_code dataset_file(struct dataset_writer *w, const char *name, const json_t *v,
                                    struct err *err);
MUST_USE enum err_code dataset_finish(struct dataset_writer *w, struct err *err);
void dataset_writer_release(struct dataset_writer *w);

#endif
