/* index.h - where everything is: the only user of LMDB in the store.
 *
 * The index is a cache of what the packs say (pack.h) plus three things of its own (memo, touch, lease) that may be lost.  It lives on
 * a local disk of the index host in .weir/index/; nodes never open it.  Every record ends in a CRC32C over key and value, so
 * a flipped bit is ERR_DAMAGED ("run weir store rebuild"), never a wrong answer.
 *
 * Databases (all integers little endian in values, big endian in keys that must sort):
 *   object    id[32] -> struct loc, 32 bytes + crc u32: the first place by the rule at struct loc
 *   also      id[32] | type u8 | pack number u32 | offset u32 -> struct loc: every other place, so that a purge needs no file read
 *   loose     pack number u32 | offset u32 -> id[32] | u64 0: which loose file a REC_LOOSE record announces (a slice names the record)
 *   gone      id[32] -> time u64: announced loose files that are not there (deleted or quarantined); their LOOSE and SLICE entries stay,
 *             hidden, until the pack goes, and count again when a later pack announces the file anew
 *   pack      number u32 -> name[32] | bytes u64 | records u32 | created u64 | crc;     packname  name[32] -> number u32 | complete u32 | crc
 *             records = 0, complete = 0: merging it has begun; its locations are good, the pack counts as unknown
 *   action    key[32] -> result[32] | stamp u64 | crc
 *   ref       name -> digest[32] | kind u8 | stamp u64 | crc   (removed refs stay as kind 0: their tombstone must win over older packs)
 *   memo      dev u64 | ino u64 -> size | mtime_ns | ctime_ns | digest[32] | epoch u64 | crc
 *   touch     id[32] -> time u64 | kind u8 | crc               roots for the grace period: what was added or hit lately
 *   lease     name -> expiry u64 | kind u8 | digest[32] | crc  roots until a time, renewed by their owner
 *   condemned 'P' pack name[32] or 'L' object id[32] -> time u64 | crc     being deleted by a gc; nobody may rely on them
 *   meta      "format", "epoch" (begins at random, so that no two indexes share one; raised by all that
 *             hides or drops a place), "commits" (raised by each commit and lease), "packs_mtime",
 *             "next_pack" (numbers are never used twice), "touch_all"
 *
 * Transactions: only this file holds one, never across a callback or a wait; values are copied out.  A write transaction stays below
 * 64 MiB of dirty pages (INDEX_BATCH random keys); larger merges are several, the pack row being completed in the last one, so
 * a crash in between is repeated harmlessly.  The map grows by itself (doubles; other processes follow on MDB_MAP_RESIZED).
 *
 * Life:     index_open -> calls -> index_close.  One open per process and path (LMDB's rule; CHECKed).  Not across fork.
 * Owns:     the environment.
 * Threads:  reads from any thread at once; writes are serialised by LMDB across threads and processes.
 * Errors:   ERR_FULL (disk or map; nothing lost), ERR_DAMAGED, ERR_NOT_FOUND where said, ERR_VERSION for a newer format.
 *           Seam: before each begin, put, delete and commit of LMDB.
 * Environment (tests): WEIR_INDEX_MAP, WEIR_INDEX_MAP_MAX: first and largest size of the map in bytes, otherwise 256 MiB and 1 TiB;
 *           WEIR_INDEX_BATCH: rows a transaction.
 */
/* long: one table per concept would scatter one LMDB environment over many files */
#ifndef WEIR_STORE_INDEX_H
#define WEIR_STORE_INDEX_H

#include "store/pack.h"

#define INDEX_FORMAT 1
#define INDEX_BATCH 8192

enum loc_type {
    LOC_BLOB = 1,   /* a record of its own */
    LOC_FRAME = 2,  /* member of a frame; pos = offset in the decoded frame */
    LOC_RECIPE = 3, /* off = the recipe record */
    LOC_LOOSE = 4,  /* loose/xx/id; off = the record that announces it (with or without a recipe) */
    LOC_SLICE = 5,  /* pos = offset in the loose file whose REC_LOOSE record is at off */
};
/* When an object is in several places the smallest type wins, then the smaller pack name, then the smaller offset, so that the order in
 * which packs are merged does not matter.  Places in a condemned pack, and in a loose file that is condemned or gone, are passed over by
 * every question (the next place answers, or none). */
struct loc {
    uint8_t type, enc, flags; /* enum loc_type, enum enc, REC_TREE */
    uint32_t pack, off, stored;
    uint64_t raw, pos;
};

enum obj_kind { OBJ_NONE = 0, OBJ_BLOB = 1, OBJ_TREE = 2 };

struct index;
enum index_mode {
    INDEX_READ,
    INDEX_WRITE
}; /* READ never writes, not even on a damaged or old index; the environment must exist */
/* dir: path of the folder; created in INDEX_WRITE. */
MUST_USE enum err_code index_open(const char *dir, enum index_mode mode, struct index **out,
                                  struct err *err);
void index_close(struct index *ix); /* NULL is fine */

/* ---- reading ---- */
/* locs[i].type = 0 when ids[i] is absent.  Sorted input is faster.  Any n; one read transaction. */
MUST_USE enum err_code index_get(struct index *ix, const struct digest *ids, size_t n,
                                 struct loc *locs, struct err *err);
/* The next up to max objects after *cursor (zero digest to start; updated).  *n = 0 at the end. */
MUST_USE enum err_code index_scan(struct index *ix, struct digest *cursor, bool *started,
                                  struct digest *ids, struct loc *locs, size_t max, size_t *n,
                                  struct err *err);
struct pack_row {
    uint32_t number;
    struct digest name;
    int64_t bytes, records, created_ns;
};
MUST_USE enum err_code index_pack(struct index *ix, uint32_t number, struct pack_row *out,
                                  struct err *err); /* ERR_NOT_FOUND */
MUST_USE enum err_code index_pack_by_name(struct index *ix, const struct digest *name,
                                          struct pack_row *out,
                                          struct err *err); /* ERR_NOT_FOUND */
MUST_USE enum err_code index_packs(struct index *ix, struct pack_row **rows, size_t *n,
                                   struct err *err); /* free(*rows) */
MUST_USE enum err_code index_action(struct index *ix, const struct digest *key,
                                    struct digest *result, int64_t *stamp,
                                    struct err *err); /* ERR_NOT_FOUND */
/* The same for any n keys in one read transaction; sorted ones are faster.  results[i] is set where found[i]. */
MUST_USE enum err_code index_action_many(struct index *ix, const struct digest *keys, size_t n,
                                         struct digest *results, bool *found, struct err *err);
struct action_row {
    struct digest key, result;
    int64_t stamp;
};
MUST_USE enum err_code index_actions(struct index *ix, struct action_row **rows, size_t *n,
                                     struct err *err);
struct ref_row {
    char *name; /* in the same allocation as the rows */
    struct digest digest;
    enum obj_kind kind; /* OBJ_NONE: removed */
    int64_t stamp;
};
MUST_USE enum err_code index_ref(struct index *ix, struct str name, struct ref_row *out,
                                 struct err *err); /* name = NULL; ERR_NOT_FOUND also for
                                                                                         a removed one, whose stamp is in *out */
/* All refs with that prefix, sorted by name; removed ones only when asked for. */
enum ref_want { REF_LIVE, REF_ALL };
MUST_USE enum err_code index_refs(struct index *ix, struct str prefix, enum ref_want want,
                                  struct ref_row **rows, size_t *n,
                                  struct err *err); /* free(*rows) */
struct touch_row {
    struct digest id;
    enum obj_kind kind;
    int64_t time_ns;
};
MUST_USE enum err_code index_touches(struct index *ix, struct touch_row **rows, size_t *n,
                                     struct err *err);
struct lease_row {
    char *name;
    int64_t expiry_ns;
    enum obj_kind kind;
    struct digest digest;
};
MUST_USE enum err_code index_leases(struct index *ix, struct lease_row **rows, size_t *n,
                                    struct err *err);
struct index_stat {
    int64_t objects, packs, actions, refs, memos, epoch, commits, packs_mtime, file_bytes,
        condemned;
};
MUST_USE enum err_code index_stat(struct index *ix, struct index_stat *out, struct err *err);

/* ---- memo ---- */
struct memo_key {
    uint64_t dev, ino;
    int64_t size, mtime_ns, ctime_ns;
};
/* found[i] says whether keys[i] is known with exactly these times and size, and was stored in the present epoch or its object still
 * exists. */
MUST_USE enum err_code index_memo_get(struct index *ix, const struct memo_key *keys, size_t n,
                                      struct digest *ids, bool *found, struct err *err);
struct memo_row {
    struct memo_key key;
    struct digest id;
};

/* ---- writing ---- */
struct index_commit {
    struct pack *const *packs; /* durable packs to merge, in any order */
    size_t pack_count;
    const struct digest *
        reused; /* ids that the writer found present and did not write: each must still be there and */
    size_t reused_count;           /*   not condemned, else ERR_CHANGED and nothing is committed */
    const struct touch_row *touch; /* roots for the grace period */
    size_t touch_count;
    const struct memo_row *memo;
    size_t memo_count;
    /* Packs about to be condemned (gc, compaction).  A hint that this index does not need: it remembers every place of an object, so
     * what packs[] say answers as soon as the superseded packs are condemned, and moves up when they are purged. */
    const struct digest *superseded;
    size_t superseded_count;
};
/* ERR_CHANGED also for a pack that is condemned or announces a condemned loose file.  A commit too large for one transaction that is
 * refused leaves its packs unknown (their locations are in, which is harmless): write anew and commit all of them again. */
MUST_USE enum err_code index_commit(struct index *ix, const struct index_commit *c,
                                    struct err *err);
/* Merge packs found in the packs folder that the index does not know (left by nodes or by a crash), except condemned ones, when the
 * folder's mtime differs from the one noted; BIND results found are touched.  Opens packs from packs_dir.  Damaged packs and records
 * are passed over (fsck names them), and so is, until the gc has ended, a pack that announces a loose file that is being deleted. */
MUST_USE enum err_code index_sync(struct index *ix, int packs_dir, int64_t *merged,
                                  struct err *err);
MUST_USE enum err_code index_lease(struct index *ix, const struct lease_row *row,
                                   struct err *err); /* expiry 0 drops it; ERR_NOT_FOUND
                                          when kind is not OBJ_NONE and the object is not there or condemned */
MUST_USE enum err_code index_drop_memo(struct index *ix, struct err *err);

/* ---- deletion (gc and compaction; store/gc.c tells the protocol) ---- */
struct condemned {
    struct digest *packs;
    size_t pack_count;
    struct digest *loose;
    size_t loose_count;
};
/* In one transaction: if "commits" differs from seen, *commits = the present value, nothing is done and *raced = true.  Else the names
 * are written to condemned and "epoch" is raised. */
MUST_USE enum err_code index_condemn(struct index *ix, const struct condemned *c, int64_t seen,
                                     bool *raced, int64_t *commits, struct err *err);
MUST_USE enum err_code index_condemned(struct index *ix, struct condemned *out,
                                       struct err *err); /* free both arrays */
/* Remove places in condemned packs (an object's next place moves up), their pack rows, and actions whose result is no longer there; in
 * batches. */
MUST_USE enum err_code index_purge(struct index *ix, struct err *err);
/* These condemned loose files were not deleted after all (loose_delete's atime rule): they count again.  Before index_absolve. */
MUST_USE enum err_code index_reprieve(struct index *ix, const struct digest *loose, size_t n,
                                      struct err *err);
/* The files are gone: forget that they were condemned; loose ones become "gone". */
MUST_USE enum err_code index_absolve(struct index *ix, const struct condemned *c, struct err *err);
/* Touch rows older than before_ns go. */
MUST_USE enum err_code index_forget_touch(struct index *ix, int64_t before_ns, struct err *err);
/* Drop the place that index_get answers with (damaged and quarantined), so that the next one answers.  A loose file takes its slices along.
 * The epoch is raised: the memo must not vouch for what is not there. */
MUST_USE enum err_code index_drop_objects(struct index *ix, const struct digest *ids, size_t n,
                                          struct err *err);

/* ---- rebuilding ---- */
/* A fresh index in dir (made aside, renamed over the old index file when complete) from all packs of packs_dir and the loose files that are
 * there (loose_dir).  Sorted once and appended: 5 million objects in under 10 s.  Leases and memo are lost; every tree, ref target and
 * action result is given a fresh grace period by noting "touch_all" in meta.  The index must not be open in this process (CHECKed); open in
 * another one it is ERR_AGAIN, and who opens it meanwhile waits.  Loose files that are absent or short count as gone.  Damaged packs
 * and records are passed over and reported.  Memory: about 100 bytes for each of at most 4 million objects at a time. */
struct rebuild_report {
    int64_t packs, damaged_packs, objects, actions, refs;
    struct buf problems; /* one line each; buf_release it, whatever is returned */
};
MUST_USE enum err_code index_rebuild(const char *dir, int packs_dir, int loose_dir,
                                     struct rebuild_report *report, struct err *err);
/* "touch_all" of meta, 0 when none: gc treats every object as touched then. */
MUST_USE enum err_code index_touch_all(struct index *ix, int64_t *time_ns, struct err *err);
/* One line per object, pack, action and ref, sorted by kind and key, pack numbers replaced by names: equal text means equal content.  Hidden
 * places and actions without a result are left out, so a grown index and a rebuilt one give the same text. */
MUST_USE enum err_code index_dump(struct index *ix, int fd, struct err *err);

#endif
