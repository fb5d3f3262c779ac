/* source_internal.h - what the kinds of sources have in common.
 *
 *   source.c           the door, artifacts, texts of --input
 *   source_path.c      files, folders and globs, all of them in one session
 *   source_deb.c       Debian packages
 *   source_url.c       downloads
 *   source_entry.c     entry records: under which licence something came in, and when
 *   source_records.c   licences of single files
 *   source_policy.c    whether the pipeline's policy lets them pass
 *   source_lock.c      the lock file
 *
 * Life:     within sources_new .. sources_free.
 * Owns:     strings live in the arena of the sources.
 * Threads:  one.
 * Errors:   as source.h; source_wrong puts the position in front.
 */
#ifndef WEIR_ORCHESTRATOR_SOURCE_INTERNAL_H
#define WEIR_ORCHESTRATOR_SOURCE_INTERNAL_H

#include "base/arena.h"
#include "orchestrator/enter.h"
#include "orchestrator/source.h"

/* ---- the lock file (source_lock.c) ---- */
struct lock_row {
    const char *name;
    enum source_kind kind;      /* SOURCE_DEB or SOURCE_URL */
    const char *location;       /* package or URL */
    const char *version, *arch; /* deb */
    struct digest sha256;       /* of the .deb, or of the file */
    struct digest digest;       /* of the artifact */
    int64_t size;               /* of the object that digest names */
};
struct lock {
    struct lock_row *rows; /* sorted by name */
    size_t count;
};
/* file names the text in messages; strings go to the arena. */
MUST_USE enum err_code lock_parse(const char *p, size_t n, const char *file, struct arena *a,
                                  struct lock *out, struct err *err);
MUST_USE enum err_code lock_format(const struct lock *l, struct buf *out, struct err *err);
const struct lock_row *lock_find(const struct lock *l, const char *name); /* NULL */

struct entered {
    bool done;
    struct source_object object;
    struct digest records; /* the records file; zero: none */
    bool locked;           /* row is what the lock file is to say */
    struct lock_row row;   /* deb and url */
};
struct code_path {
    const char *path;
    struct source_object object;
};
struct sources {
    struct store *st;
    const struct pipeline *p;
    struct source_options o;
    struct arena arena;
    struct entered *list; /* one per source */
    struct code_path *code;
    size_t code_count, code_cap;
    bool code_tried; /* all of them together */
    const char *lock_path;
    struct lock lock; /* as the file was */
};

/* "file:line:column: source NAME: " in front of what err says. */
enum err_code source_wrong(const struct source *s, struct err *err);
/* path as it is when absolute, else below dir.  In the arena. */
const char *source_path_below(struct arena *a, const char *dir, const char *path);
/* Is the object there, with all that it reaches? */
MUST_USE enum err_code source_there(struct store *st, const struct digest *d, bool *there,
                                    enum obj_kind *kind, struct err *err);
/* A folder below .weir/cache, made when it is not there. */
MUST_USE enum err_code source_cache_dir(struct store *st, const char *name, int *fd,
                                        struct err *err);

/* ---- kinds ---- */
MUST_USE enum err_code source_enter_paths(struct sources *s, const int *numbers, size_t n,
                                          struct err *err);
MUST_USE enum err_code source_enter_deb(struct sources *s, int number, struct err *err);
MUST_USE enum err_code source_enter_url(struct sources *s, int number, struct err *err);
MUST_USE enum err_code source_artifact(struct store *st, const char *pipeline /* NULL: unknown */,
                                       const char *text, struct source_object *out,
                                       struct err *err);

/* ---- entry records ---- */
struct entry_wanted {
    const struct source *source;
    struct source_object *object; /* entry is filled in */
    const char *url;              /* where it came from; NULL for paths */
    const struct lock_row *row;   /* deb; NULL else */
    const struct digest *records; /* NULL: none */
    const char *records_path;     /* for messages */
};
/* For many at once, within a session: those that are not there yet are made.  Records files are read and checked only then. */
MUST_USE enum err_code source_entries(struct sources *s, struct enter *e, struct entry_wanted *list,
                                      size_t n, struct err *err);

/* ---- records ---- */
#define RECORDS_BYTES_MAX (256 << 20)
struct record_row {
    const char *path, *license, *attribution, *url; /* the last two may be NULL */
    int line;
};
typedef enum err_code (*record_fn)(void *arg, const struct record_row *row, struct err *err);
/* Every line is {"path":..,"license":..,"attribution":..,"url":..}, the last two optional; fn (may be NULL) sees each in turn.  ERR_INPUT with
 * file:line for what is no such line, no SPDX expression, no relative path, or a path for the second time. */
MUST_USE enum err_code records_parse(const char *p, size_t n, const char *file, record_fn fn,
                                     void *arg, struct err *err);
/* The different licences of a records file and how many files have each, [{"expression":..,"pictures":N}], sorted.  json_decref(*out). */
MUST_USE enum err_code records_sum(const char *p, size_t n, const char *file, json_t **out,
                                   struct err *err);
/* Known after the first time by the digest of the file; e is NULL outside of a session, and nothing is kept. */
MUST_USE enum err_code source_records_sum(struct store *st, struct enter *e,
                                          const struct digest *records, const char *path,
                                          json_t **out, struct err *err);

#endif
