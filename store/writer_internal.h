/* writer_internal.h - one writer session, as its parts see it.
 *
 *   writer.c         the session, ids, what goes into packs
 *   writer_small.c   objects below LOOSE_MIN_BYTES: frames
 *   writer_large.c   files from LOOSE_MIN_BYTES on: one pass, loose or recipe
 *   writer_adopt.c   files that are moved in instead of copied
 *   writer_seal.c    full packs made durable ahead of the commit
 *   writer_commit.c  making it durable and visible
 *
 * Life:     within writer_open .. writer_release.
 * Owns:     as writer.h.
 * Threads:  lock guards the lists; a struct small and a stream belong to one thread from get to put.
 * Errors:   writer_fail ends the session: the first error is what every later call answers.
 */
/* long: six parts of one session */
#ifndef WEIR_STORE_WRITER_INTERNAL_H
#define WEIR_STORE_WRITER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "store/claims.h"
#include "store/stream.h"
#include "store/writer.h"

#define STREAMS_MAX 3                    /* 48 MiB each */
#define SMALL_READ_BYTES LOOSE_MIN_BYTES /* files read together by one thread */
#define PACKS_PENDING_MAX 64             /* full packs, before a partial commit */
#define PACK_RECORDS_TARGET (1 << 17)
#define LEVEL 1 /* zstd, of what is compressed while it is added */

/* A pack under construction; full ones wait for the commit. */
struct out_pack {
    struct pack_writer *pack;
    int users;              /* threads that are putting a record into it */
    bool sealing, finished; /* by the sealer */
};
/* The thread that makes full packs durable (writer_seal.c); started with the first of them. */
struct sealer {
    pthread_t thread;
    pthread_cond_t work, done;
    bool running, ending;
};
/* A record that may only become visible after everything else: it goes into the last pack. */
struct note {
    struct pack_entry entry;
    struct buf payload;
};
struct ref_note {
    char *name;
    enum obj_kind kind;
    struct digest digest;
};
struct bind_note {
    struct digest key, result;
};
#define TMP_NAME 96
/* A finished file in tmp/ that becomes loose/xx/id at the commit. */
struct loose_note {
    char tmp[TMP_NAME];
    struct digest id;
    int64_t size;
};
/* A source that was moved in: its old name goes after the commit. */
struct adopt_note {
    char *dir; /* path of its folder when it was adopted */
    char *name;
    uint64_t dev, ino; /* of the file: another one under that name stays */
    bool moved;        /* else it was copied and is as it was */
    mode_t mode;       /* before it was made read only */
    int64_t mtime_ns;
};

/* What a thread needs for small objects; kept with its open frame between calls. */
struct small {
    struct small *next; /* in writer.small_free */
    struct small *next_made;
    struct codec *codec;
    struct frame_member *members; /* FRAME_MEMBERS_MAX of them */
    size_t member_count;
    struct buf raw;    /* the open frame */
    struct buf packed; /* scratch: encoded bytes */
    uint8_t *check;    /* scratch: decoded again */
    uint8_t *read;     /* SMALL_READ_BYTES */
};
struct small_item {
    const void *p;
    size_t n;
    enum obj_kind kind;
    struct digest id; /* filled in */
};

struct writer {
    struct store *st;
    struct claims *ids;
    struct progress *progress; /* NULL is fine; of ingest */
    pthread_mutex_t lock;
    pthread_cond_t freed; /* a stream or a pack was given back */

    /* WRITER_IDS_MAX, PACK_TARGET_BYTES, PACKS_PENDING_MAX; tests make them small. */
    int64_t ids_max, pack_bytes_max, packs_pending_max;

    struct out_pack *open;
    struct out_pack **full;
    size_t full_count, full_cap;
    bool committing; /* a partial commit runs */
    struct sealer sealer;

    struct small *small_free, *small_made;
    struct stream *streams_free[STREAMS_MAX];
    int stream_free_count, stream_made, stream_max;

    struct note *notes;
    size_t note_count, note_cap;
    struct ref_note *refs;
    size_t ref_count, ref_cap;
    struct bind_note *binds;
    size_t bind_count, bind_cap;
    struct loose_note *loose;
    size_t loose_count, loose_cap;
    struct adopt_note *adopted;
    size_t adopt_count, adopt_cap;
    struct touch_row *touch;
    size_t touch_count, touch_cap;
    struct memo_row *memo;
    size_t memo_count, memo_cap;

    int64_t epoch;               /* of the index when the session began */
    bool relies;                 /* on its not changing (writer_rely) */
    bool raced;                  /* a commit was refused because a reused object had gone */
    _Atomic int64_t reuse_count; /* ids noted as reused since the last commit */
    atomic_bool failed;          /* failure is set */
    struct err failure;
    _Atomic int64_t files, bytes, new_objects, new_bytes, reused_objects;
};

/* ---- writer.c ---- */
void writer_lock(struct writer *w);
void writer_unlock(struct writer *w);
/* OK, or the error that ended the session. */
MUST_USE enum err_code writer_alive(struct writer *w, struct err *err);
/* err ends the session.  Returns its code. */
enum err_code writer_fail(struct writer *w, const struct err *err);
/* Which of these are in the session or the index already?  known[i] is ID_ABSENT, ID_WRITTEN (session) or ID_REUSED (index, not yet noted
 * in the session).  An index entry whose loose file is gone does not count. */
MUST_USE enum err_code writer_lookup(struct writer *w, const struct digest *ids, size_t n,
                                     uint8_t *known, struct err *err);
/* These are in the index and the session relies on them.  Too many of them: they are committed (touched) and forgotten. */
MUST_USE enum err_code writer_reuse(struct writer *w, const struct digest *ids, size_t n,
                                    struct err *err);
/* An array with room for one more. */
void *writer_roomy(void *array, size_t count, size_t *cap, size_t size);
/* A record into the present pack. */
MUST_USE enum err_code writer_pack(struct writer *w, struct pack_entry *e, const void *p, size_t n,
                                   struct err *err);
/* The same for a chunk of a large file. */
MUST_USE enum err_code writer_pack_chunk(struct writer *w, struct pack_entry *e, const void *p,
                                         size_t n, struct err *err);
MUST_USE enum err_code writer_pack_frame(struct writer *w, const struct frame_member *members,
                                         size_t count, const void *zstd, size_t n, size_t raw_n,
                                         struct err *err);
/* Keeps a copy of the recipe until the commit.  chunks may be none for REC_LOOSE. */
void writer_note(struct writer *w, enum rec_type type, const struct digest *id, uint8_t flags,
                 uint64_t raw, const struct recipe_chunk *chunks, size_t count);
/* "host.pid.random.suffix", for a file in tmp/. */
void writer_tmp_name(const char *suffix, char out[TMP_NAME]);
/* Same file, size and times? */
bool writer_same_file(const struct stat *a, const struct stat *b);
enum err_code writer_changed(const char *path, struct err *err);
void writer_add_progress(struct writer *w, int64_t bytes, int64_t files);
bool writer_raced(const struct writer *w);
/* ERR_CHANGED: a recipe would consist of the very object that it describes, and be believed. */
MUST_USE enum err_code writer_of_itself(struct writer *w, const struct digest *id, struct err *err);

/* ---- writer_small.c ---- */
MUST_USE enum err_code small_get(struct writer *w, struct small **out, struct err *err);
void small_put(struct writer *w, struct small *s);
void small_free_all(struct writer *w);
/* Hashes them, two at a time, and writes those that are new.  Any n; one look-up in the index. */
MUST_USE enum err_code small_items(struct writer *w, struct small *s, struct small_item *items,
                                   size_t n, struct err *err);
/* The whole of a file below LOOSE_MIN_BYTES into p; before is filled in, *size the bytes read.  ERR_LIMIT (and nothing read) past
 * max, so that the caller can treat it as a large one. */
MUST_USE enum err_code small_read(int fd, const char *path, uint8_t *p, size_t max,
                                  struct stat *before, size_t *size, struct err *err);
/* One object of any size up to CODEC_RAW_MAX, hashed already and known to be new. */
MUST_USE enum err_code small_write(struct writer *w, struct small *s, const struct small_item *item,
                                   struct err *err);
MUST_USE enum err_code small_flush_all(struct writer *w, struct err *err);

/* ---- writer_large.c ---- */
struct large_source {
    int fd;
    const char *path;
    const struct stat *before;
    const char *tmp; /* adopted: the file is in tmp/ under this name already; NULL: to be copied */
    bool leased;     /* adopted: the kernel tells when somebody opens it for writing */
    bool *kept;      /* adopted: set when tmp will be published at the commit; may be NULL */
};
MUST_USE enum err_code large_put(struct writer *w, const struct large_source *from,
                                 struct digest *out, struct err *err);
/* A tree past CODEC_RAW_MAX. */
MUST_USE enum err_code large_tree(struct writer *w, const void *p, size_t n,
                                  const struct digest *id, struct err *err);
void large_free_streams(struct writer *w);

/* ---- writer_adopt.c ---- */
/* Did anybody open the leased file for writing? */
bool adopt_disturbed(const struct large_source *from);
void adopt_finish(struct writer *w);  /* after the commit: old names go */
void adopt_give_up(struct writer *w); /* without one: sources get their mode back */

/* ---- writer_seal.c ---- */
/* Fine when it runs already. */
MUST_USE enum err_code sealer_start(struct writer *w, struct err *err);
void sealer_wait(struct writer *w, const struct out_pack *p); /* until it has let go of this one */
void sealer_stop(struct writer *w); /* what it has not begun stays undone */

/* ---- writer_commit.c ---- */
/* Packs that are full become durable and known now: called with nothing held, when too many wait. */
MUST_USE enum err_code commit_part(struct writer *w, struct err *err);

#endif
