/* fsck_internal.h - one check of a store, as its parts see it.
 *
 *   fsck.c         the order of things, the report
 *   fsck_pack.c    is every pack whole?
 *   fsck_doubt.c   what is wrong with one that is not?
 *   fsck_record.c  is one record what it says?
 *   fsck_loose.c   is every loose file what its name says?
 *   fsck_index.c   does the index say what the packs say?
 *   fsck_paths.c   what was a damaged object part of?
 *   fsck_repair.c  moving what is damaged aside, saving what is not
 *
 * Life:     within store_fsck.
 * Owns:     the findings.
 * Threads:  the findings are locked; everything else belongs to the calling thread.
 * Errors:   damage is a finding; an error is what keeps us from looking.
 */
#ifndef WEIR_STORE_FSCK_INTERNAL_H
#define WEIR_STORE_FSCK_INTERNAL_H

#include <pthread.h>

#include "store/fsck.h"
#include "store/idset.h"
#include "store/reader.h"

enum finding_kind {
    FOUND_PACK,          /* a record, the toc, the whole file: the pack has to be salvaged */
    FOUND_PACK_MISSING,  /* the index knows it, packs/ does not have it */
    FOUND_LOOSE,         /* the file's bytes are not those of its name */
    FOUND_LOOSE_TOUCHED, /* right bytes, wrong time: somebody wrote to it, and nothing changed */
    FOUND_LOOSE_MISSING,
    FOUND_STRANGER, /* a name that has no business there */
    FOUND_INDEX,
    FOUND_JOURNAL, /* the index knows a ref or bind that no pack records */
    FOUND_MISSING, /* something refers to it */
    FOUND_RECIPE,  /* does not add up to its object */
    FOUND_REMOTE,  /* a remote could not help */
};
struct finding { /* what repair needs to know; problem i of the report is finding i */
    enum finding_kind kind;
    char file[264]; /* FOUND_PACK*, FOUND_STRANGER, FOUND_LOOSE_TOUCHED: name in its folder */
};
struct journal_seen { /* a bind or ref record that is on disk and whole */
    struct digest id;
    uint64_t stamp;
    uint8_t type;
};

struct fsck {
    struct store *st;
    const struct fsck_options *o;
    struct fsck_report *report;
    pthread_mutex_t lock; /* of the report and the two lists */
    struct finding *findings;
    size_t finding_cap;
    struct journal_seen *journal;
    size_t journal_count, journal_cap;
    struct idset *seen; /* ids that have a finding */
    bool index_bad;     /* cannot be used, or differs */
    bool index_unusable;
    bool rebuilt; /* in this run */
};

/* Report and options are the caller's; release the report after fsck_end. */
void fsck_begin(struct fsck *f, struct store *st, const struct fsck_options *o,
                struct fsck_report *report);
void fsck_end(struct fsck *f);
/* id: NULL when it is not about one object.  The text is formatted. */
void fsck_found(struct fsck *f, enum finding_kind kind, const char *file, const struct digest *id,
                const char *fmt, ...) PRINTF_LIKE(5, 6);
bool fsck_in_part(const struct fsck *f, const struct digest *id);

MUST_USE enum err_code fsck_packs(struct fsck *f, struct err *err);
MUST_USE enum err_code fsck_loose(struct fsck *f, struct err *err);
/* Compares the index with a fresh one; sets index_bad. */
MUST_USE enum err_code fsck_index(struct fsck *f, struct err *err);
/* All the rest, in its order, repair included. */
MUST_USE enum err_code fsck_rest(struct fsck *f, struct err *err);
/* Rows of the index against what is there: packs, loose files. */
MUST_USE enum err_code fsck_places(struct fsck *f, struct err *err);
/* Fills in part_of of every problem that is about an object. */
MUST_USE enum err_code fsck_paths(struct fsck *f, struct err *err);
MUST_USE enum err_code fsck_repair(struct fsck *f, struct err *err);
/* What refs lead to and the store has lost, from the remotes. */
MUST_USE enum err_code fsck_fetch(struct fsck *f, struct err *err);
/* The index anew; the store uses the new one afterwards. */
MUST_USE enum err_code fsck_rebuild(struct fsck *f, struct err *err);
void fsck_note_journal(struct fsck *f,
                       const struct pack_entry *e); /* anything but binds and refs is passed over */

/* fsck_record.c, also for the salvage: is this record whole?  What is wrong goes to why.  members: one bit per member of a frame, cleared
 * when its bytes are wrong; NULL when nobody asks. */
struct checker;
struct checker *checker_new(struct fsck *f);
void checker_free(struct checker *c);
struct fsck *checker_fsck(const struct checker *c);
/* The bytes of a blob, into checker_raw, which the caller may exchange for a buffer of its own. */
MUST_USE enum err_code checker_decode(struct checker *c, const struct pack_entry *e,
                                      const void *payload, size_t n, bool *good, struct err *err);
struct buf *checker_raw(struct checker *c);
/* OK with *good = false: not what it says.  raw: the decoded frame, for FRAMES; valid until the next call. */
MUST_USE enum err_code checker_record(struct checker *c, const struct pack_entry *e,
                                      const void *payload, size_t n, enum fsck_level level,
                                      bool *good, const char **why, struct err *err);
/* Of the frame that was checked last. */
const struct frame_member *checker_members(const struct checker *c, size_t *count,
                                           const char **raw);
bool checker_member_good(const struct checker *c, size_t i);

/* fsck_doubt.c: reports everything that is wrong with a pack that is not whole. */
MUST_USE enum err_code fsck_doubt(struct checker *c, const char *file, const struct digest *name,
                                  struct err *err);
/* Pointers into the pack's toc, in the order of the file; stays NULL on an error. */
MUST_USE enum err_code toc_by_offset(struct pack *pack, const struct pack_entry ***out,
                                     size_t *count, struct err *err);
/* Does the record header h say what the first of n entries of its offset says? */
bool toc_matches(const struct pack_entry *h, const struct pack_entry *t, size_t n);

#endif
