/* ledger_env.h - an LMDB environment with checked rows, for ledger*.c and share.c alone: the only files here that know LMDB.
 *
 * A value has four bytes more than it is given: CRC32C of (table, key, value), little endian, because LMDB checks no pages.
 *
 * Life:     env_open -> env_read .. env_done for reading; env_write(fn) for writing: fn may run more than once -> env_close.
 * Owns:     the environment; read transactions that are reset and renewed, so that none keeps old pages alive.
 * Threads:  reads from any; one write at a time (LMDB waits for the other processes' writers).
 * Errors:   ERR_FULL, ERR_DAMAGED, ERR_IO.  Seam: before open, each begin, put, delete and commit.
 *
 * One lock keeps the map in place: every transaction holds it shared, growing the map takes it alone, because LMDB moves the map only
 * when this process has no transaction open.  No transaction is held while a caller's function runs (except env_write's own fn).
 */
#ifndef WEIR_ORCHESTRATOR_LEDGER_ENV_H
#define WEIR_ORCHESTRATOR_LEDGER_ENV_H

#include <endian.h>
#include <lmdb.h>
#include <pthread.h>
#include <string.h>
#include <sys/types.h>

#include "base/hash.h"
#include "base/str.h"

#define ENV_TABLES_MAX 8
#define ENV_POOL_MAX 16
#define ENV_KEY_MAX 511

struct env_options {
    const char *what;          /* "ledger", in messages */
    const char *const *tables; /* NULL-terminated */
    bool write;                /* false: the tables must be there (ERR_NOT_FOUND) */
    bool sync;                 /* false: what a power cut leaves of it is worthless */
    int64_t format;            /* noted in the last table under "format" */
};
struct env {
    struct env_options o;
    char *path;
    MDB_env *mdb;
    MDB_dbi dbi[ENV_TABLES_MAX];
    size_t map_max;
    int tables;
    pthread_rwlock_t map_lock;
    pthread_mutex_t pool_lock;
    MDB_txn *pool[ENV_POOL_MAX];
    int pooled;
    dev_t dev; /* of the folder: LMDB must not open it twice in a process */
    ino_t ino;
    pid_t owner;
    bool registered;
    struct env *next;
    int64_t checked_ns; /* when slots of dead readers were last looked for */
};
struct txn {
    struct env *env;
    MDB_txn *mdb;
    bool map_full; /* a put said so: grow and run again */
};

MUST_USE enum err_code env_open(const char *path, const struct env_options *o, struct env **out,
                                struct err *err);
void env_close(struct env *e); /* NULL is fine */
MUST_USE enum err_code env_fail(const struct env *e, int mdb, const char *what, struct err *err);

MUST_USE enum err_code env_read(struct env *e, struct txn *t, struct err *err);
void env_done(struct txn *t); /* of env_read; fine after a failed one */
typedef enum err_code (*env_write_fn)(struct txn *t, void *arg, struct err *err);
MUST_USE enum err_code env_write(struct env *e, env_write_fn fn, void *arg, struct err *err);

/* value: without its checksum; good until the transaction ends or writes. */
MUST_USE enum err_code env_get(struct txn *t, int table, struct str key, struct str *value,
                               bool *found, struct err *err);
MUST_USE enum err_code env_put(struct txn *t, int table, struct str key, struct str value,
                               struct err *err);
MUST_USE enum err_code env_del(struct txn *t, int table, struct str key,
                               struct err *err); /* absent is fine */
/* The first row whose key is >= from, or, after it, > from. */
enum env_seek { ENV_FROM, ENV_AFTER, ENV_BEFORE /* the last one with key < from */ };
MUST_USE enum err_code env_seek(struct txn *t, int table, struct str from, enum env_seek how,
                                struct str *key, struct str *value, bool *found, struct err *err);
/* Many rows in order: with a cursor, closed before the transaction ends. */
struct env_walk {
    struct txn *t;
    MDB_cursor *cursor;
    int table;
};
MUST_USE enum err_code env_walk_begin(struct txn *t, int table, struct env_walk *w,
                                      struct err *err);
/* From key `from` (or, where from.p is NULL, the next one). */
MUST_USE enum err_code env_walk_next(struct env_walk *w, struct str from, struct str *key,
                                     struct str *value, bool *found, struct err *err);
void env_walk_end(struct env_walk *w);

/* ---- integers of keys (big endian) and values (little endian) ---- */
static inline void env_key(uint8_t *p, int64_t v)
{
    const uint64_t be = htobe64((uint64_t)v);

    memcpy(p, &be, sizeof(be));
}

static inline int64_t env_key_number(const void *p)
{
    uint64_t be;

    memcpy(&be, p, sizeof(be));
    return (int64_t)be64toh(be);
}

static inline void env_i64(uint8_t *p, int64_t v)
{
    const uint64_t le = htole64((uint64_t)v);

    memcpy(p, &le, sizeof(le));
}

static inline int64_t env_i64_of(const void *p)
{
    uint64_t le;

    memcpy(&le, p, sizeof(le));
    return (int64_t)le64toh(le);
}

static inline struct str env_bytes(const void *p, size_t n)
{
    return (struct str){p, n};
}

#endif
