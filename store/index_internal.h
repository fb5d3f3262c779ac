/* index_internal.h - transactions, rows and merging, shared by store/index*.c alone: the only files
 * that know LMDB.
 *
 * Life:     view_begin -> row_get, walk_* ... -> view_end for reading; index_write(fn) for writing:
 *           fn may run more than once.
 * Owns:     a view its transaction; what rows say is copied out.
 * Threads:  a view belongs to one thread; any number of views at once.
 * Errors:   a row whose size or checksum is wrong is ERR_DAMAGED and names the database.
 *
 * One lock per index keeps the map in place: every transaction holds it shared, growing the map
 * takes it alone, because LMDB moves the map only when this process has no transaction open.
 */
/* long: one LMDB environment, shared by the files of one module */
#ifndef WEIR_STORE_INDEX_INTERNAL_H
#define WEIR_STORE_INDEX_INTERNAL_H

#include <lmdb.h>
#include <pthread.h>
#include <sys/types.h>

#include "store/index.h"
#include "store/pack_internal.h"

/* X(enum, name, bytes of a value without its crc, 0 when it varies) */
#define INDEX_DATABASES(X)                                                                         \
    X(DB_OBJECT, "object", 32)                                                                     \
    X(DB_ALSO, "also", 32)                                                                         \
    X(DB_LOOSE, "loose", 40)                                                                       \
    X(DB_GONE, "gone", 8)                                                                          \
    X(DB_PACK, "pack", 52)                                                                         \
    X(DB_PACKNAME, "packname", 8)                                                                  \
    X(DB_ACTION, "action", 40)                                                                     \
    X(DB_REF, "ref", 41)                                                                           \
    X(DB_MEMO, "memo", 64)                                                                         \
    X(DB_TOUCH, "touch", 9)                                                                        \
    X(DB_LEASE, "lease", 42)                                                                       \
    X(DB_CONDEMNED, "condemned", 16)                                                               \
    X(DB_META, "meta", 12)
#define X(db, name, bytes) db,
enum index_db { INDEX_DATABASES(X) DB_COUNT };
#undef X
extern const char *const index_table_name[DB_COUNT];

#define ROW_MAX 64  /* the longest value without its crc */
#define KEY_MAX 511 /* LMDB's own bound */
#define LOC_BYTES 32
#define ALSO_KEY 41      /* id | type | pack number | offset */
#define LOOSE_KEY 8      /* pack number | offset */
#define CONDEMNED_KEY 33 /* 'P' or 'L' | digest */
#define READ_POOL_MAX 64

struct index {
    char *path;
    enum index_mode mode;
    MDB_env *env;
    MDB_dbi dbi[DB_COUNT];
    size_t map_max;
    size_t batch; /* rows a transaction; 0: by the pages they may dirty */
    pthread_rwlock_t map_lock;
    pthread_mutex_t pool_lock;
    MDB_txn *pool[READ_POOL_MAX]; /* reset read transactions, to be renewed */
    int pooled;
    dev_t dev; /* of the folder: LMDB must not open it twice */
    ino_t ino;
    pid_t owner; /* the process that opened it */
    bool registered;
    struct index *next;
};

struct view {
    struct index *ix;
    MDB_txn *txn;
    bool map_full; /* a put said so: grow and run again */
    int hiding;    /* -1 not looked at, 0 nothing is condemned or gone, 1 something may be */
};

MUST_USE enum err_code index_fail(struct err *err, int rc, const char *what);
/* LMDB reports a write that came out short as EIO.  That is how a full disk shows first: what fitted was written, the rest not.  It may come
 * before the commit, from any change, since a large transaction writes pages to make room in memory.  Answers mdb, or then ENOSPC. */
int index_wrote(const struct index *ix, int mdb);
/* The fault seam: OK, or an injected error. */
MUST_USE enum err_code index_fault(const char *what, struct err *err);
MUST_USE enum err_code view_begin(struct index *ix, struct view *v, struct err *err);
void view_end(struct view *v);
typedef enum err_code (*index_write_fn)(struct view *v, void *arg, struct err *err);
MUST_USE enum err_code index_write(struct index *ix, index_write_fn fn, void *arg, struct err *err);
/* Is this folder's index open in this process? */
bool index_is_open(dev_t dev, ino_t ino);
/* ---- rows: fixed values, a CRC32C of (database, key, value) behind each ---- */
MUST_USE enum err_code row_get(struct view *v, enum index_db db, const void *key, size_t key_n,
                               uint8_t *value, bool *found, struct err *err);
MUST_USE enum err_code row_put(struct view *v, enum index_db db, const void *key, size_t key_n,
                               const uint8_t *value, struct err *err);
/* At the end of the database: keys must come in order. */
MUST_USE enum err_code row_append(struct view *v, enum index_db db, const void *key, size_t key_n,
                                  const uint8_t *value, struct err *err);
MUST_USE enum err_code row_del(struct view *v, enum index_db db, const void *key, size_t key_n,
                               struct err *err); /* absent is fine */
MUST_USE enum err_code row_count(struct view *v, enum index_db db, int64_t *rows, struct err *err);
/* Checked bytes of a value that LMDB handed out; good until the transaction ends. */
MUST_USE enum err_code row_check(enum index_db db, const MDB_val *key, const MDB_val *value,
                                 const uint8_t **out, struct err *err);

/* Rows in order, from the first key >= from (NULL: all). */
struct walk {
    MDB_cursor *cursor;
    enum index_db db;
    MDB_val key; /* of the present row */
    const uint8_t *value;
    bool started;
    uint8_t from[KEY_MAX];
    size_t from_n;
};
MUST_USE enum err_code walk_begin(struct view *v, enum index_db db, const void *from, size_t from_n,
                                  struct walk *w, struct err *err);
MUST_USE enum err_code walk_next(struct walk *w, bool *end, struct err *err);
void walk_end(struct walk *w);

/* ---- meta numbers ---- */
MUST_USE enum err_code meta_get(struct view *v, const char *name, int64_t *out, struct err *err);
MUST_USE enum err_code meta_put(struct view *v, const char *name, int64_t value, struct err *err);

/* Nobody may take the epoch of one index for that of another, which was made after the first was lost. */
int64_t first_epoch(void);

/* ---- locations ---- */
static inline void be32_put(uint8_t *p, uint32_t v)
{
    v = htobe32(v);
    memcpy(p, &v, sizeof(v));
}

static inline void be64_put(uint8_t *p, uint64_t v)
{
    v = htobe64(v);
    memcpy(p, &v, sizeof(v));
}

static inline uint32_t be32_get(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return be32toh(v);
}

void loc_encode(const struct loc *l, uint8_t out[LOC_BYTES]);
MUST_USE enum err_code loc_decode(const uint8_t p[LOC_BYTES], struct loc *l, struct err *err);
void also_key(const struct digest *id, const struct loc *l, uint8_t out[ALSO_KEY]);
void loose_key(uint32_t pack, uint32_t off, uint8_t out[LOOSE_KEY]);
void condemned_key(char kind, const struct digest *d, uint8_t out[CONDEMNED_KEY]);
/* Does a come before b?  By type, pack name, offset, position (index.h). */
MUST_USE enum err_code loc_before(struct view *v, const struct loc *a, const struct loc *b,
                                  bool *before, struct err *err);
/* May anybody rely on it?  Not when its pack or its loose file is condemned or gone. */
MUST_USE enum err_code loc_visible(struct view *v, const struct digest *id, const struct loc *l,
                                   bool *visible, struct err *err);
/* The best place of id: out->type = 0 when there is none.  loc_best looks at visible ones only. */
MUST_USE enum err_code loc_best(struct view *v, const struct digest *id, struct loc *out,
                                struct err *err);
/* The same, when the row of the object is already at hand. */
MUST_USE enum err_code loc_settle(struct view *v, const struct digest *id, struct loc *l,
                                  struct err *err);
/* All other places of id; calls nobody: fills an array that the caller frees. */
MUST_USE enum err_code loc_others(struct view *v, const struct digest *id, struct loc **out,
                                  size_t *n, struct err *err);
MUST_USE enum err_code pack_row_get(struct view *v, uint32_t number, struct pack_row *out,
                                    bool *found, struct err *err);
MUST_USE enum err_code pack_row_put(struct view *v, const struct pack_row *row, struct err *err);
MUST_USE enum err_code pack_number(struct view *v, const struct digest *name, uint32_t *number,
                                   bool *complete, bool *found, struct err *err);

/* ---- what packs say, to be merged (index_merge.c) ---- */
struct found { /* one object in one place; loc.pack counts the packs of the batch */
    struct digest id;
    struct loc loc;
};
struct announced { /* a loose file with its record */
    struct digest id;
    uint64_t raw;
    uint32_t pack, off;
};
struct journal {
    uint32_t from, to; /* objects whose first 16 bits are in [from, to) only; to = 0: all */
    struct buf
        *problems; /* lines about damaged records, which are passed over; NULL: they are errors */
    struct found *objects;
    struct announced *loose;
    struct action_row *binds;
    struct ref_row *refs; /* names are heap strings of their own here */
    size_t object_count, loose_count, bind_count, ref_count;
    size_t object_cap, loose_cap, bind_cap, ref_cap;
};
void journal_release(struct journal *j);
/* Everything that this pack says; nothing at all on an error. */
MUST_USE enum err_code journal_add(struct journal *j, struct pack *p, uint32_t pack,
                                   struct err *err);
/* Forget what was added since to, a copy of *j of then. */
void journal_rewind(struct journal *j, const struct journal *to);
/* Forget all rows, keep the memory. */
void journal_clear(struct journal *j);
/* Keep only objects below to, which becomes the upper end of the range. */
void journal_narrow(struct journal *j, uint32_t to);
/* Sort objects by (id, precedence); equal places fall together to the first. */
MUST_USE enum err_code journal_sort(struct journal *j, struct err *err);
/* Rows into the tables; loc.pack is a pack number by now. */
MUST_USE enum err_code merge_object(struct view *v, const struct digest *id, const struct loc *l,
                                    struct err *err);
MUST_USE enum err_code merge_bind(struct view *v, const struct action_row *a, struct err *err);
MUST_USE enum err_code merge_ref(struct view *v, const struct ref_row *r, struct err *err);
MUST_USE enum err_code merge_touch(struct view *v, const struct touch_row *t, struct err *err);
/* value formats shared with the rebuild */
void action_encode(const struct action_row *a, uint8_t out[40]);
void ref_row_encode(const struct ref_row *r, uint8_t out[41]);
void pack_row_encode(const struct pack_row *row, uint8_t out[52]);
void packname_encode(uint32_t number, bool complete, uint8_t out[8]);
/* Does the later one of (stamp, digest, kind) win? */
bool action_wins(const struct action_row *a, const struct action_row *over);
bool ref_wins(const struct ref_row *a, const struct ref_row *over);
MUST_USE enum err_code merge_loose(struct view *v, const struct announced *a, struct err *err);
MUST_USE enum err_code gone_put(struct view *v, const struct digest *id, struct err *err);
/* The folder's mtime; settled when a later change is sure to leave another one (index_commit.c says
 * why). */
MUST_USE enum err_code packs_mtime(int packs_dir, int64_t *mtime, struct err *err);
bool packs_mtime_settled(int64_t mtime);
/* How many sorted rows may go into one transaction. */
MUST_USE enum err_code batch_rows(struct view *v, enum index_db db, size_t *rows, struct err *err);

#endif
