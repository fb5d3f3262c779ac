/* index.c - the environment: opening, transactions, growing the map, checked rows.
 *
 * Flags: MDB_NOTLS (read transactions belong to views, so threads may come and go), MDB_NORDAHEAD
 * (random reads), and every commit synced: without that LMDB keeps its integrity only on file
 * systems that write in order, and WRITEMAP would let a stray pointer into the file.  A crashed
 * reader's slot is freed at the next open.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/os.h"
#include "store/index_internal.h"

#define MAP_START ((int64_t)256 << 20)
#define MAP_CAP ((int64_t)1 << 40)
#define READERS_MAX 512
#define OPEN_TRIES 3
#define FULL_BYTES (1 << 20) /* a disk with less than this is full */

#define X(db, name, bytes) name,
const char *const index_table_name[DB_COUNT] = {INDEX_DATABASES(X)};
#undef X

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static struct index *open_list;

/* ---- errors ---- */

enum err_code index_fail(struct err *err, int rc, const char *what)
{
    static const char advice[] = "run weir store rebuild";

    CHECK(rc != 0);
    if (rc > 0)
        return err_sys(err, rc, "index: %s", what);
    switch (rc) {
    case MDB_MAP_FULL:
        return err_set(err, ERR_FULL, "index: %s: the map may not grow further", what);
    case MDB_READERS_FULL:
        return err_set(err, ERR_AGAIN, "index: %s: more than %d readers", what, READERS_MAX);
    case MDB_NOTFOUND:
        return err_set(err, ERR_DAMAGED, "index: %s: tables are missing; %s", what, advice);
    case MDB_VERSION_MISMATCH:
    case MDB_INVALID:
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_PANIC:
    case MDB_INCOMPATIBLE:
    case MDB_BAD_DBI:
    case MDB_BAD_VALSIZE:
    case MDB_BAD_TXN: /* an earlier call met a page that is none */
        return err_set(err, ERR_DAMAGED, "index: %s: %s; %s", what, mdb_strerror(rc), advice);
    default:
        return err_set(err, ERR_IO, "index: %s: %s", what, mdb_strerror(rc));
    }
}

enum err_code index_fault(const char *what, struct err *err)
{
    int sys = 0;

    if (fault_hit(&sys))
        return err_sys(err, sys ? sys : EIO, "index: %s", what);
    return OK;
}

/* ---- transactions ---- */

/* Another process made the map larger; take over its size. */
static enum err_code follow_map(struct index *ix, struct err *err)
{
    CHECK(pthread_rwlock_wrlock(&ix->map_lock) == 0);
    const int rc = mdb_env_set_mapsize(ix->env, 0);
    CHECK(pthread_rwlock_unlock(&ix->map_lock) == 0);
    return rc ? index_fail(err, rc, "map more of it") : OK;
}

/* seen: the size that was too small; another thread may have grown it since. */
static enum err_code grow_map(struct index *ix, size_t seen, struct err *err)
{
    MDB_envinfo info;
    int rc = 0;

    CHECK(pthread_rwlock_wrlock(&ix->map_lock) == 0);
    CHECK(mdb_env_info(ix->env, &info) == 0);
    if (info.me_mapsize <= seen) {
        const size_t want = seen > ix->map_max / 2 ? ix->map_max : seen * 2;

        rc = want > seen ? mdb_env_set_mapsize(ix->env, want) : MDB_MAP_FULL;
    }
    CHECK(pthread_rwlock_unlock(&ix->map_lock) == 0);
    return rc ? index_fail(err, rc, "grow the map") : OK;
}

static size_t map_size(struct index *ix)
{
    MDB_envinfo info;

    CHECK(mdb_env_info(ix->env, &info) == 0);
    return info.me_mapsize;
}

static MDB_txn *pool_take(struct index *ix)
{
    MDB_txn *txn = NULL;

    CHECK(pthread_mutex_lock(&ix->pool_lock) == 0);
    if (ix->pooled > 0)
        txn = ix->pool[--ix->pooled];
    CHECK(pthread_mutex_unlock(&ix->pool_lock) == 0);
    return txn;
}

static void pool_give(struct index *ix, MDB_txn *txn)
{
    mdb_txn_reset(txn);
    CHECK(pthread_mutex_lock(&ix->pool_lock) == 0);
    if (ix->pooled < READ_POOL_MAX) {
        ix->pool[ix->pooled++] = txn;
        txn = NULL;
    }
    CHECK(pthread_mutex_unlock(&ix->pool_lock) == 0);
    if (txn)
        mdb_txn_abort(txn);
}

static int start_reading(struct index *ix, MDB_txn **out)
{
    MDB_txn *txn = pool_take(ix);
    int rc;

    *out = NULL;
    if (!txn)
        return mdb_txn_begin(ix->env, NULL, MDB_RDONLY, out);
    rc = mdb_txn_renew(txn);
    if (rc)
        mdb_txn_abort(txn);
    else
        *out = txn;
    return rc;
}

enum err_code view_begin(struct index *ix, struct view *v, struct err *err)
{
    enum err_code rc = index_fault("begin to read", err);

    *v = (struct view){.ix = ix, .hiding = -1};
    if (rc)
        return rc;
    for (;;) {
        CHECK(pthread_rwlock_rdlock(&ix->map_lock) == 0);
        const int mdb = start_reading(ix, &v->txn);
        if (mdb == 0)
            return OK;
        CHECK(pthread_rwlock_unlock(&ix->map_lock) == 0);
        if (mdb != MDB_MAP_RESIZED)
            return index_fail(err, mdb, "begin to read");
        rc = follow_map(ix, err);
        if (rc)
            return rc;
    }
}

void view_end(struct view *v)
{
    if (!v->txn)
        return;
    pool_give(v->ix, v->txn);
    v->txn = NULL;
    CHECK(pthread_rwlock_unlock(&v->ix->map_lock) == 0);
}

int index_wrote(const struct index *ix, int mdb)
{
    struct statvfs fs;

    if (mdb == EIO && statvfs(ix->path, &fs) == 0 &&
        (uint64_t)fs.f_bavail * fs.f_frsize < FULL_BYTES)
        return ENOSPC;
    return mdb;
}

/* One try.  *again: the map was too small for it and nothing happened. */
static enum err_code write_once(struct index *ix, index_write_fn fn, void *arg, bool *again,
                                size_t *seen, struct err *err)
{
    struct view v = {.ix = ix, .hiding = -1};
    enum err_code rc;
    int mdb;

    *again = false;
    mdb = mdb_txn_begin(ix->env, NULL, 0, &v.txn);
    *seen = map_size(ix);
    if (mdb == MDB_MAP_RESIZED) {
        *again = true;
        *seen = 0;
        return OK;
    }
    if (mdb)
        return index_fail(err, mdb, "begin to write");
    rc = fn(&v, arg, err);
    if (!rc)
        rc = index_fault("commit", err);
    if (rc) {
        mdb_txn_abort(v.txn);
        *again = v.map_full;
        return rc;
    }
    /* Frees the transaction, also when it fails; never tried again. */
    mdb = index_wrote(ix, mdb_txn_commit(v.txn));
    if (mdb == MDB_MAP_FULL)
        *again = true;
    return mdb ? index_fail(err, mdb, "commit") : OK;
}

enum err_code index_write(struct index *ix, index_write_fn fn, void *arg, struct err *err)
{
    enum err_code rc = index_fault("begin to write", err);
    size_t seen = 0;
    bool again = true;

    CHECK(ix->mode == INDEX_WRITE);
    CHECK(ix->owner == getpid()); /* LMDB's locks do not cross fork */
    if (rc)
        return rc;
    for (;;) {
        CHECK(pthread_rwlock_rdlock(&ix->map_lock) == 0);
        rc = write_once(ix, fn, arg, &again, &seen, err);
        CHECK(pthread_rwlock_unlock(&ix->map_lock) == 0);
        if (!again)
            return rc;
        rc = seen ? grow_map(ix, seen, err) : follow_map(ix, err);
        if (rc)
            return rc;
    }
}

/* ---- open and close ---- */

/* A number from the environment (tests make things small), else the default. */
static size_t setting(const char *name, int64_t min, int64_t otherwise)
{
    const char *text = getenv(name);
    struct err ignored = ERR_INIT;
    int64_t n;

    if (!text || str_to_i64(str_of(text), min, MAP_CAP, &n, &ignored) != OK)
        n = otherwise;
    return (size_t)n;
}

static size_t map_setting(const char *name, int64_t otherwise)
{
    return setting(name, 65536, otherwise) & ~(size_t)4095;
}

static enum err_code open_tables(struct index *ix, bool *missing, struct err *err)
{
    MDB_txn *txn = NULL;
    int mdb = mdb_txn_begin(ix->env, NULL, MDB_RDONLY, &txn);

    *missing = false;
    if (mdb == MDB_MAP_RESIZED) {
        const enum err_code rc = follow_map(ix, err);

        if (rc)
            return rc;
        mdb = mdb_txn_begin(ix->env, NULL, MDB_RDONLY, &txn);
    }
    if (mdb)
        return index_fail(err, mdb, "begin to read");
    for (int db = 0; db < DB_COUNT && !mdb; db++)
        mdb = mdb_dbi_open(txn, index_table_name[db], 0, &ix->dbi[db]);
    if (mdb) {
        mdb_txn_abort(txn);
        *missing = mdb == MDB_NOTFOUND;
        return *missing && ix->mode == INDEX_WRITE ? OK : index_fail(err, mdb, "open its tables");
    }
    mdb = mdb_txn_commit(txn); /* keeps the handles */
    return mdb ? index_fail(err, mdb, "open its tables") : OK;
}

int64_t first_epoch(void)
{
    uint64_t random;

    os_random(&random, sizeof(random));
    return (int64_t)(random >> 3) + 1; /* room to count up */
}

static enum err_code create_tables(struct view *v, void *arg, struct err *err)
{
    int64_t format;
    enum err_code rc;

    (void)arg;
    for (int db = 0; db < DB_COUNT; db++) {
        const int mdb = mdb_dbi_open(v->txn, index_table_name[db], MDB_CREATE, &v->ix->dbi[db]);

        if (mdb == MDB_MAP_FULL)
            v->map_full = true;
        if (mdb)
            return index_fail(err, mdb, "make its tables");
    }
    rc = meta_get(v, "format", &format, err);
    if (rc || format != 0)
        return rc;
    rc = meta_put(v, "epoch", first_epoch(), err);
    return rc ? rc : meta_put(v, "format", INDEX_FORMAT, err);
}

static enum err_code check_format(struct index *ix, struct err *err)
{
    struct view v;
    int64_t format;
    enum err_code rc = view_begin(ix, &v, err);

    if (rc)
        return rc;
    rc = meta_get(&v, "format", &format, err);
    view_end(&v);
    if (!rc && format > INDEX_FORMAT)
        rc = err_set(err, ERR_VERSION, "index has format %lld, this program knows %d",
                     (long long)format, INDEX_FORMAT);
    if (!rc && format != INDEX_FORMAT)
        rc = err_set(err, ERR_DAMAGED, "index has no known format; run weir store rebuild");
    return rc;
}

static enum err_code open_env(struct index *ix, struct err *err)
{
    const unsigned flags =
        MDB_NOTLS | MDB_NORDAHEAD | (ix->mode == INDEX_READ ? (unsigned)MDB_RDONLY : 0);
    const size_t start = map_setting("WEIR_INDEX_MAP", MAP_START);
    int dead, mdb = 0;

    for (int i = 0; i < OPEN_TRIES; i++) {
        const enum err_code rc = index_fault("open", err);

        if (rc)
            return rc;
        CHECK(mdb_env_create(&ix->env) == 0);
        CHECK(mdb_env_set_maxdbs(ix->env, DB_COUNT) == 0);
        CHECK(mdb_env_set_maxreaders(ix->env, READERS_MAX) == 0);
        mdb = mdb_env_open(ix->env, ix->path, flags, 0644);
        if (!mdb)
            break;
        mdb_env_close(ix->env);
        ix->env = NULL;
        /* A rebuild that ends at this moment leaves an empty lock file, which LMDB cannot map; the
         * next try starts it anew. */
        if (mdb != EINVAL)
            break;
    }
    if (mdb ==
        EACCES) /* its readers announce themselves in a file, so reading alone is not enough */
        return index_fail(err, mdb, "open (every user of a store must be able to write lock.mdb)");
    if (mdb)
        return index_fail(err, mdb, "open");
    if (ix->mode == INDEX_WRITE && map_size(ix) < start) {
        mdb = mdb_env_set_mapsize(ix->env, start < ix->map_max ? start : ix->map_max);
        if (mdb)
            return index_fail(err, mdb, "map it");
    }
    mdb = mdb_reader_check(ix->env, &dead);
    return mdb ? index_fail(err, mdb, "look for dead readers") : OK;
}

bool index_is_open(dev_t dev, ino_t ino)
{
    bool open = false;

    CHECK(pthread_mutex_lock(&open_lock) == 0);
    for (const struct index *ix = open_list; ix; ix = ix->next)
        open = open || (ix->owner == getpid() && ix->dev == dev && ix->ino == ino);
    CHECK(pthread_mutex_unlock(&open_lock) == 0);
    return open;
}

/* LMDB's locks belong to the process: a second environment on the same file would drop them when it
 * closes.  What a parent has open does not count for its child, which may not use it. */
static enum err_code register_open(struct index *ix, struct err *err)
{
    struct stat st;
    const enum err_code rc = os_stat_at(AT_FDCWD, ix->path, &st, err);

    if (rc)
        return rc;
    ix->dev = st.st_dev;
    ix->ino = st.st_ino;
    ix->owner = getpid();
    CHECK(pthread_mutex_lock(&open_lock) == 0);
    for (const struct index *other = open_list; other; other = other->next)
        CHECK(other->owner != ix->owner || other->dev != ix->dev || other->ino != ix->ino);
    ix->next = open_list;
    open_list = ix;
    ix->registered = true;
    CHECK(pthread_mutex_unlock(&open_lock) == 0);
    return OK;
}

static void unregister(struct index *ix)
{
    struct index **at;

    CHECK(pthread_mutex_lock(&open_lock) == 0);
    for (at = &open_list; *at && *at != ix;)
        at = &(*at)->next;
    if (*at)
        *at = ix->next;
    CHECK(pthread_mutex_unlock(&open_lock) == 0);
}

static struct index *index_new(const char *dir, enum index_mode mode)
{
    struct index *ix = mem_zero(1, sizeof(*ix));
    pthread_rwlockattr_t attr;

    ix->path = mem_strdup(dir);
    ix->mode = mode;
    ix->map_max = map_setting("WEIR_INDEX_MAP_MAX", MAP_CAP);
    ix->batch = setting("WEIR_INDEX_BATCH", 1, 0);
    CHECK(pthread_rwlockattr_init(&attr) == 0);
    /* Growing the map must not starve behind a stream of readers. */
    CHECK(pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP) == 0);
    CHECK(pthread_rwlock_init(&ix->map_lock, &attr) == 0);
    CHECK(pthread_rwlockattr_destroy(&attr) == 0);
    CHECK(pthread_mutex_init(&ix->pool_lock, NULL) == 0);
    return ix;
}

enum err_code index_open(const char *dir, enum index_mode mode, struct index **out, struct err *err)
{
    struct index *ix;
    struct stat st;
    bool missing;
    enum err_code rc;

    CHECK(dir);
    CHECK(out);
    *out = NULL;
    ix = index_new(dir, mode);
    if (mode == INDEX_WRITE)
        rc = os_mkdirs(dir, 0755, err);
    else
        rc = os_stat_at(AT_FDCWD, dir, &st, err);
    if (!rc)
        rc = register_open(ix, err);
    if (!rc)
        rc = open_env(ix, err);
    if (!rc)
        rc = open_tables(ix, &missing, err);
    if (!rc && missing)
        rc = index_write(ix, create_tables, NULL, err);
    if (!rc)
        rc = check_format(ix, err);
    if (rc) {
        index_close(ix);
        return err_prefix(err, "open index %s", dir);
    }
    *out = ix;
    return OK;
}

void index_close(struct index *ix)
{
    if (!ix)
        return;
    for (int i = 0; i < ix->pooled; i++)
        mdb_txn_abort(ix->pool[i]);
    if (ix->env)
        mdb_env_close(ix->env);
    if (ix->registered)
        unregister(ix);
    CHECK(pthread_rwlock_destroy(&ix->map_lock) == 0);
    CHECK(pthread_mutex_destroy(&ix->pool_lock) == 0);
    free(ix->path);
    free(ix);
}
