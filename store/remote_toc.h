/* remote_toc.h - what a remote has: its packs, their tables of contents, the records in them.
 *
 * A table is read once, from the end of its pack, and then kept in .weir/remotes/NAME/<pack>.toc (table and trailer as they are in the
 * pack, so that the pack's name proves them each time they are used).  Up to TOC_KEPT_BYTES of decoded tables stay in memory, the
 * others are read again for each pass: a pull makes one pass per level of the trees.
 *
 * Life:     tocs_open -> toc_get, tocs_find, tocs_read, notes_read in any order -> tocs_close.
 * Owns:     the tables in memory and the open remote.
 * Threads:  one.
 * Errors:   ERR_DAMAGED names remote and pack (and offset); ERR_VERSION for a newer pack; what the remote says.
 */
#ifndef WEIR_STORE_REMOTE_TOC_H
#define WEIR_STORE_REMOTE_TOC_H

#include "store/remote.h"

#define TOC_KEPT_BYTES (64 << 20)
#define TOC_JOIN_GAP (128 << 10) /* bytes read for nothing rather than asking twice */
#define TOC_JOIN_MAX (16 << 20)  /* of one read; a longer record is read alone */
#define TOC_BAD_MAX 4096 /* damaged records that are passed over; a remote with more is given up */

struct remote_pack {
    struct digest name;
    int64_t bytes;
    struct pack_entry *entries; /* NULL: not in memory */
    size_t count;
};
struct toc_place {
    uint32_t pack, off;
};
struct tocs {
    struct store *st;
    struct remote *remote;
    int cache; /* .weir/remotes/NAME */
    struct remote_pack *packs;
    size_t count, cap;
    struct pack_entry *loose; /* the table that is in memory though there is no room to keep it */
    struct toc_place *bad;    /* records that were found damaged: tocs_find passes them over */
    size_t bad_count;
    int64_t kept_bytes, moved_bytes;
    struct progress *progress; /* bytes moved are added; NULL is fine */
};
MUST_USE enum err_code tocs_open(struct store *st, const char *remote, bool create, struct tocs *t,
                                 struct err *err);
void tocs_close(struct tocs *t); /* fine on zeroed storage */
/* Valid until the next toc_get, or longer when it is kept. */
MUST_USE enum err_code toc_get(struct tocs *t, size_t pack, const struct pack_entry **entries,
                               size_t *count, struct err *err);
/* A pack that was just put there: no need to ask for its table.  file: the pack, open. */
MUST_USE enum err_code tocs_add(struct tocs *t, const struct digest *name, int64_t bytes, int file,
                                struct err *err);

/* A record wanted: where it is, and the caller's number for it. */
struct toc_want {
    struct pack_entry entry; /* type 0: nowhere */
    uint32_t pack;
    size_t tag;
};
/* Fills in pack and entry of each want from its entry.id: the smallest type of REC_BLOB, REC_FRAME, REC_RECIPE, REC_LOOSE wins.
 * Sorts wants by id. */
MUST_USE enum err_code tocs_find(struct tocs *t, struct toc_want *wants, size_t n, struct err *err);
/* Reads the records of wants, whose type is not 0, neighbours joined; sorts them by place.  fn gets each record once, with its
 * checksum verified, and all wants that are in it (several members of a frame).  Where a record is damaged, or fn says so, another
 * copy of its objects is looked for when all else is read, and fn may get some of its wants again; the first damage is the error when
 * there is none. */
typedef enum err_code (*toc_record_fn)(void *arg, const struct toc_want *wants, size_t n,
                                       const void *payload, struct err *err);
MUST_USE enum err_code tocs_read(struct tocs *t, struct toc_want *wants, size_t n, toc_record_fn fn,
                                 void *arg, struct err *err);
/* "remote backup, pack 5b1f..: " in front. */
enum err_code toc_blame(const struct tocs *t, uint32_t pack, struct err *err);

/* What the journal records (REC_REF, REC_BIND) of all packs say: for each id the one with the greatest (stamp, digest). */
struct remote_note {
    struct digest id;     /* of the ref's name; the action key */
    struct digest target; /* of the ref; the result */
    enum obj_kind kind;   /* refs */
    char *name;           /* refs; owned */
    int64_t stamp;
};
/* wanted decides by id and stamp what is read at all; NULL: everything.  Sorted by id.  notes_free(*notes, *n). */
typedef bool (*note_wanted_fn)(void *arg, const struct digest *id, int64_t stamp);
MUST_USE enum err_code notes_read(struct tocs *t, enum rec_type type, note_wanted_fn wanted,
                                  void *arg, struct remote_note **notes, size_t *n,
                                  struct err *err);
void notes_free(struct remote_note *notes, size_t n);
const struct remote_note *note_find(const struct remote_note *notes, size_t n,
                                    const struct digest *id); /* NULL when absent */

#endif
