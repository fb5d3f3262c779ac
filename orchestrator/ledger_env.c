/* ledger_env.c - opening, transactions, growing the map, rows with a checksum. */
#include "orchestrator/ledger_env.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/os.h"

#define MAP_START ((int64_t)64 << 20)
#define MAP_CAP ((int64_t)1 << 40)
#define READERS_MAX 512
#define OPEN_TRIES 3
#define CHECK_READERS_NS (5 * INT64_C(1000000000))
#define CRC_BYTES 4
#define FULL_BYTES (1 << 20) /* a disk with less than this is full */

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static struct env *open_list;

/* ---- errors ---- */

enum err_code env_fail(const struct env *e, int mdb, const char *what, struct err *err)
{
    CHECK(mdb != 0);
    if (mdb > 0)
        return err_sys(err, mdb, "%s: %s in %s", e->o.what, what, e->path);
    switch (mdb) {
    case MDB_MAP_FULL:
        return err_set(err, ERR_FULL, "%s: %s in %s: it may not grow beyond %zu bytes", e->o.what,
                       what, e->path, e->map_max);
    case MDB_READERS_FULL:
        return err_set(err, ERR_AGAIN, "%s: %s in %s: more than %d readers at once", e->o.what,
                       what, e->path, READERS_MAX);
    case MDB_PANIC: /* a commit failed half way; the file is as before it, this process is not */
        return err_set(err, ERR_IO, "%s: %s in %s: an earlier write failed; start weir again",
                       e->o.what, what, e->path);
    case MDB_NOTFOUND:
        return err_set(err, ERR_DAMAGED,
                       "%s: %s in %s: tables are missing; move the folder away, weir store rebuild "
                       "imports the finished runs again",
                       e->o.what, what, e->path);
    case MDB_VERSION_MISMATCH:
    case MDB_INVALID:
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INCOMPATIBLE:
    case MDB_BAD_DBI:
    case MDB_BAD_VALSIZE:
    case MDB_BAD_TXN: /* an earlier call met a page that is none */
        return err_set(err, ERR_DAMAGED,
                       "%s: %s in %s: %s; move the folder away, weir store rebuild imports the "
                       "finished runs again",
                       e->o.what, what, e->path, mdb_strerror(mdb));
    default:
        return err_set(err, ERR_IO, "%s: %s in %s: %s", e->o.what, what, e->path,
                       mdb_strerror(mdb));
    }
}

static enum err_code fault(const struct env *e, const char *what, struct err *err)
{
    int sys = 0;

    if (!fault_hit(&sys))
        return OK;
    return err_sys(err, sys ? sys : EIO, "%s: %s in %s", e->o.what, what, e->path);
}

/* ---- the map ---- */

static size_t map_size(struct env *e)
{
    MDB_envinfo info;

    CHECK(mdb_env_info(e->mdb, &info) == 0);
    return info.me_mapsize;
}

/* Another process made the map larger; take over its size. */
static enum err_code follow_map(struct env *e, struct err *err)
{
    CHECK(pthread_rwlock_wrlock(&e->map_lock) == 0);
    const int mdb = mdb_env_set_mapsize(e->mdb, 0);
    CHECK(pthread_rwlock_unlock(&e->map_lock) == 0);
    return mdb ? env_fail(e, mdb, "map more", err) : OK;
}

/* seen: the size that was too small; another thread may have grown it since. */
static enum err_code grow_map(struct env *e, size_t seen, struct err *err)
{
    int mdb = 0;

    CHECK(pthread_rwlock_wrlock(&e->map_lock) == 0);
    if (map_size(e) <= seen) {
        const size_t want = seen > e->map_max / 2 ? e->map_max : seen * 2;

        mdb = want > seen ? mdb_env_set_mapsize(e->mdb, want) : MDB_MAP_FULL;
    }
    CHECK(pthread_rwlock_unlock(&e->map_lock) == 0);
    return mdb ? env_fail(e, mdb, "grow the map", err) : OK;
}

/* ---- reading ---- */

static MDB_txn *pool_take(struct env *e)
{
    MDB_txn *txn = NULL;

    CHECK(pthread_mutex_lock(&e->pool_lock) == 0);
    if (e->pooled > 0)
        txn = e->pool[--e->pooled];
    CHECK(pthread_mutex_unlock(&e->pool_lock) == 0);
    return txn;
}

static void pool_give(struct env *e, MDB_txn *txn)
{
    mdb_txn_reset(txn);
    CHECK(pthread_mutex_lock(&e->pool_lock) == 0);
    if (e->pooled < ENV_POOL_MAX) {
        e->pool[e->pooled++] = txn;
        txn = NULL;
    }
    CHECK(pthread_mutex_unlock(&e->pool_lock) == 0);
    if (txn)
        mdb_txn_abort(txn);
}

static int start_reading(struct env *e, MDB_txn **out)
{
    MDB_txn *txn = pool_take(e);

    *out = NULL;
    if (!txn)
        return mdb_txn_begin(e->mdb, NULL, MDB_RDONLY, out);
    const int mdb = mdb_txn_renew(txn);
    if (mdb)
        mdb_txn_abort(txn);
    else
        *out = txn;
    return mdb;
}

enum err_code env_read(struct env *e, struct txn *t, struct err *err)
{
    enum err_code rc = fault(e, "begin to read", err);

    CHECK(e->owner == getpid()); /* LMDB's locks do not cross fork */
    *t = (struct txn){.env = e};
    while (!rc) {
        CHECK(pthread_rwlock_rdlock(&e->map_lock) == 0);
        const int mdb = start_reading(e, &t->mdb);
        if (mdb == 0)
            return OK;
        CHECK(pthread_rwlock_unlock(&e->map_lock) == 0);
        rc = mdb == MDB_MAP_RESIZED ? follow_map(e, err) : env_fail(e, mdb, "begin to read", err);
    }
    return rc;
}

void env_done(struct txn *t)
{
    if (!t->mdb)
        return;
    pool_give(t->env, t->mdb);
    t->mdb = NULL;
    CHECK(pthread_rwlock_unlock(&t->env->map_lock) == 0);
}

/* ---- writing ---- */

/* LMDB reports a write that came out short as EIO.  That is how a full disk shows first: what fitted was written, the rest not. */
static enum err_code commit_failed(const struct env *e, int mdb, struct err *err)
{
    struct statvfs fs;

    if (mdb == EIO && statvfs(e->path, &fs) == 0 &&
        (uint64_t)fs.f_bavail * fs.f_frsize < FULL_BYTES)
        mdb = ENOSPC;
    return env_fail(e, mdb, "commit", err);
}

/* One try.  *again: the map was too small for it and nothing happened. */
static enum err_code write_once(struct env *e, env_write_fn fn, void *arg, bool *again,
                                size_t *seen, struct err *err)
{
    struct txn t = {.env = e};
    int mdb = mdb_txn_begin(e->mdb, NULL, 0, &t.mdb);

    *seen = map_size(e);
    *again = mdb == MDB_MAP_RESIZED;
    if (*again) {
        *seen = 0;
        return OK;
    }
    if (mdb)
        return env_fail(e, mdb, "begin to write", err);
    enum err_code rc = fn(&t, arg, err);
    if (!rc)
        rc = fault(e, "commit", err);
    if (rc) {
        mdb_txn_abort(t.mdb);
        *again = t.map_full;
        return rc;
    }
    mdb = mdb_txn_commit(t.mdb); /* frees the transaction, also when it fails; never tried again */
    *again = mdb == MDB_MAP_FULL;
    return mdb ? commit_failed(e, mdb, err) : OK;
}

/* A reader that was killed keeps its slot, and with it old pages, until somebody looks. */
static enum err_code check_readers(struct env *e, struct err *err)
{
    int dead;

    e->checked_ns = os_monotonic_ns();
    const int mdb = mdb_reader_check(e->mdb, &dead);
    return mdb ? env_fail(e, mdb, "look for dead readers", err) : OK;
}

enum err_code env_write(struct env *e, env_write_fn fn, void *arg, struct err *err)
{
    enum err_code rc = fault(e, "begin to write", err);
    size_t seen = 0;
    bool again = true;

    CHECK(e->o.write);
    CHECK(e->owner == getpid());
    if (!rc && os_monotonic_ns() - e->checked_ns > CHECK_READERS_NS)
        rc = check_readers(e, err);
    while (!rc && again) {
        CHECK(pthread_rwlock_rdlock(&e->map_lock) == 0);
        rc = write_once(e, fn, arg, &again, &seen, err);
        CHECK(pthread_rwlock_unlock(&e->map_lock) == 0);
        if (again)
            rc = seen ? grow_map(e, seen, err) : follow_map(e, err);
    }
    return rc;
}

/* ---- rows ---- */

/* LMDB takes keys and values as void *, but writes to neither. */
static MDB_val borrow(struct str s)
{
    return (MDB_val){.mv_size = s.n, .mv_data = (void *)(uintptr_t)s.p};
}

static uint32_t row_crc(int table, struct str key, const void *value, size_t n)
{
    const uint8_t seed = (uint8_t)table; /* a row of one table must not pass for one of another */

    return crc32c(crc32c(crc32c(0, &seed, 1), key.p, key.n), value, n);
}

static enum err_code check_row(const struct env *e, int table, struct str key, const MDB_val *d,
                               struct str *value, struct err *err)
{
    const char *p = d->mv_data;
    uint32_t crc = 0;

    if (d->mv_size >= CRC_BYTES) {
        *value = (struct str){p, d->mv_size - CRC_BYTES};
        memcpy(&crc, p + value->n, CRC_BYTES);
        if (le32toh(crc) == row_crc(table, key, p, value->n))
            return OK;
    }
    return err_set(err, ERR_DAMAGED, "%s: a row of \"%s\" in %s does not match its checksum",
                   e->o.what, e->o.tables[table], e->path);
}

enum err_code env_get(struct txn *t, int table, struct str key, struct str *value, bool *found,
                      struct err *err)
{
    MDB_val k = borrow(key), d;
    const int mdb = mdb_get(t->mdb, t->env->dbi[table], &k, &d);

    *found = mdb == 0;
    if (mdb == MDB_NOTFOUND)
        return OK;
    if (mdb)
        return env_fail(t->env, mdb, t->env->o.tables[table], err);
    return check_row(t->env, table, key, &d, value, err);
}

enum err_code env_put(struct txn *t, int table, struct str key, struct str value, struct err *err)
{
    MDB_val k = borrow(key), d = {.mv_size = value.n + CRC_BYTES};
    const uint32_t crc = htole32(row_crc(table, key, value.p, value.n));
    const enum err_code rc = fault(t->env, "put", err);

    if (rc)
        return rc;
    const int mdb = mdb_put(t->mdb, t->env->dbi[table], &k, &d, MDB_RESERVE);
    if (mdb == MDB_MAP_FULL)
        t->map_full = true;
    if (mdb)
        return env_fail(t->env, mdb, t->env->o.tables[table], err);
    memcpy(d.mv_data, value.p, value.n);
    memcpy((char *)d.mv_data + value.n, &crc, CRC_BYTES);
    return OK;
}

enum err_code env_del(struct txn *t, int table, struct str key, struct err *err)
{
    MDB_val k = borrow(key);
    const enum err_code rc = fault(t->env, "delete", err);

    if (rc)
        return rc;
    const int mdb = mdb_del(t->mdb, t->env->dbi[table], &k, NULL);
    if (mdb == MDB_MAP_FULL)
        t->map_full = true;
    return mdb && mdb != MDB_NOTFOUND ? env_fail(t->env, mdb, t->env->o.tables[table], err) : OK;
}

enum err_code env_walk_begin(struct txn *t, int table, struct env_walk *w, struct err *err)
{
    *w = (struct env_walk){.t = t, .table = table};
    const int mdb = mdb_cursor_open(t->mdb, t->env->dbi[table], &w->cursor);
    return mdb ? env_fail(t->env, mdb, t->env->o.tables[table], err) : OK;
}

/* One step of a cursor; no row there is *found = false. */
static enum err_code cursor_row(struct env_walk *w, MDB_val *k, MDB_cursor_op op, struct str *key,
                                struct str *value, bool *found, struct err *err)
{
    struct env *e = w->t->env;
    MDB_val d;
    const int mdb = mdb_cursor_get(w->cursor, k, &d, op);

    *found = mdb == 0;
    if (mdb == MDB_NOTFOUND)
        return OK;
    if (mdb)
        return env_fail(e, mdb, e->o.tables[w->table], err);
    *key = (struct str){k->mv_data, k->mv_size};
    return check_row(e, w->table, *key, &d, value, err);
}

enum err_code env_walk_next(struct env_walk *w, struct str from, struct str *key, struct str *value,
                            bool *found, struct err *err)
{
    MDB_val k = borrow(from);

    return cursor_row(w, &k, from.p ? MDB_SET_RANGE : MDB_NEXT, key, value, found, err);
}

void env_walk_end(struct env_walk *w)
{
    if (w->cursor)
        mdb_cursor_close(w->cursor);
    w->cursor = NULL;
}

enum err_code env_seek(struct txn *t, int table, struct str from, enum env_seek how,
                       struct str *key, struct str *value, bool *found, struct err *err)
{
    struct env_walk w;
    MDB_val k = borrow(from), before;
    enum err_code rc = env_walk_begin(t, table, &w, err);

    if (rc)
        return rc;
    if (how != ENV_BEFORE) {
        rc = cursor_row(&w, &k, MDB_SET_RANGE, key, value, found, err);
        if (!rc && *found && how == ENV_AFTER && str_eq(*key, from))
            rc = cursor_row(&w, &k, MDB_NEXT, key, value, found, err);
    } else {
        MDB_val ignored;
        const int mdb = mdb_cursor_get(w.cursor, &k, &ignored, MDB_SET_RANGE);

        if (mdb && mdb != MDB_NOTFOUND)
            rc = env_fail(t->env, mdb, t->env->o.tables[table], err);
        else
            rc = cursor_row(&w, &before, mdb ? MDB_LAST : MDB_PREV, key, value, found, err);
    }
    env_walk_end(&w);
    return rc;
}

/* ---- open and close ---- */

/* A number from the environment (tests make things small), else the default. */
static size_t map_setting(const char *name, int64_t otherwise)
{
    const char *text = getenv(name);
    struct err ignored = ERR_INIT;
    int64_t n;

    if (!text || str_to_i64(str_of(text), 65536, MAP_CAP, &n, &ignored) != OK)
        n = otherwise;
    return (size_t)n & ~(size_t)4095;
}

static enum err_code open_tables(struct env *e, bool *missing, struct err *err)
{
    MDB_txn *txn = NULL;
    int mdb = mdb_txn_begin(e->mdb, NULL, MDB_RDONLY, &txn);

    *missing = false;
    if (mdb == MDB_MAP_RESIZED) {
        const enum err_code rc = follow_map(e, err);

        if (rc)
            return rc;
        mdb = mdb_txn_begin(e->mdb, NULL, MDB_RDONLY, &txn);
    }
    if (mdb)
        return env_fail(e, mdb, "begin to read", err);
    for (int i = 0; i < e->tables && !mdb; i++)
        mdb = mdb_dbi_open(txn, e->o.tables[i], 0, &e->dbi[i]);
    if (mdb) {
        mdb_txn_abort(txn);
        *missing = mdb == MDB_NOTFOUND;
        if (!*missing)
            return env_fail(e, mdb, "open its tables", err);
        return e->o.write ? OK : err_set(err, ERR_NOT_FOUND, "%s is empty", e->path);
    }
    mdb = mdb_txn_commit(txn); /* keeps the handles */
    return mdb ? env_fail(e, mdb, "open its tables", err) : OK;
}

static enum err_code create_tables(struct txn *t, void *arg, struct err *err)
{
    struct env *e = t->env;
    uint8_t format[8];
    struct str old;
    bool found;

    (void)arg;
    for (int i = 0; i < e->tables; i++) {
        const int mdb = mdb_dbi_open(t->mdb, e->o.tables[i], MDB_CREATE, &e->dbi[i]);

        if (mdb == MDB_MAP_FULL)
            t->map_full = true;
        if (mdb)
            return env_fail(e, mdb, "make its tables", err);
    }
    const enum err_code rc = env_get(t, e->tables - 1, STR("format"), &old, &found, err);
    if (rc || found) /* another process was faster */
        return rc;
    env_i64(format, e->o.format);
    return env_put(t, e->tables - 1, STR("format"), env_bytes(format, sizeof(format)), err);
}

static enum err_code check_format(struct env *e, struct err *err)
{
    struct txn t;
    struct str value;
    bool found = false;
    enum err_code rc = env_read(e, &t, err);

    if (rc)
        return rc;
    rc = env_get(&t, e->tables - 1, STR("format"), &value, &found, err);
    if (!rc && (!found || value.n != 8 || env_i64_of(value.p) < 1))
        rc = err_set(err, ERR_DAMAGED, "%s %s has no known format", e->o.what, e->path);
    if (!rc && env_i64_of(value.p) > e->o.format)
        rc = err_set(err, ERR_VERSION,
                     "%s %s has format %lld, this program knows %lld; use a newer weir", e->o.what,
                     e->path, (long long)env_i64_of(value.p), (long long)e->o.format);
    env_done(&t);
    return rc;
}

static enum err_code open_mdb(struct env *e, struct err *err)
{
    const unsigned flags =
        MDB_NOTLS | (e->o.sync ? 0U : (unsigned)MDB_NOSYNC) | (e->o.write ? 0U : MDB_RDONLY);
    const size_t start = map_setting("WEIR_LEDGER_MAP", MAP_START);
    int mdb = 0;

    for (int i = 0; i < OPEN_TRIES; i++) {
        const enum err_code rc = fault(e, "open", err);

        if (rc)
            return rc;
        CHECK(mdb_env_create(&e->mdb) == 0);
        CHECK(mdb_env_set_maxdbs(e->mdb, ENV_TABLES_MAX) == 0);
        CHECK(mdb_env_set_maxreaders(e->mdb, READERS_MAX) == 0);
        mdb = mdb_env_open(e->mdb, e->path, flags, 0644);
        if (!mdb)
            break;
        mdb_env_close(e->mdb);
        e->mdb = NULL;
        if (mdb != EINVAL) /* a lock file that its maker has not sized yet */
            break;
    }
    if (mdb == ENOENT && !e->o.write)
        return err_set(err, ERR_NOT_FOUND, "%s: nothing has run here yet", e->path);
    if (mdb)
        return env_fail(e, mdb, "open", err);
    if (e->o.write && map_size(e) < start) {
        mdb = mdb_env_set_mapsize(e->mdb, start < e->map_max ? start : e->map_max);
        if (mdb)
            return env_fail(e, mdb, "map it", err);
    }
    return check_readers(e, err);
}

/* LMDB's locks belong to the process: a second environment on the same file would drop them when it
 * closes.  What a parent has open does not count for its child, which may not use it. */
static enum err_code register_open(struct env *e, struct err *err)
{
    struct stat st;
    const enum err_code rc = os_stat_at(AT_FDCWD, e->path, &st, err);

    if (rc)
        return rc;
    e->dev = st.st_dev;
    e->ino = st.st_ino;
    CHECK(pthread_mutex_lock(&open_lock) == 0);
    for (const struct env *other = open_list; other; other = other->next)
        CHECK(other->owner != e->owner || other->dev != e->dev || other->ino != e->ino);
    e->next = open_list;
    open_list = e;
    e->registered = true;
    CHECK(pthread_mutex_unlock(&open_lock) == 0);
    return OK;
}

static void unregister(struct env *e)
{
    struct env **at;

    CHECK(pthread_mutex_lock(&open_lock) == 0);
    for (at = &open_list; *at && *at != e;)
        at = &(*at)->next;
    if (*at)
        *at = e->next;
    CHECK(pthread_mutex_unlock(&open_lock) == 0);
}

static struct env *env_new(const char *path, const struct env_options *o)
{
    struct env *e = mem_zero(1, sizeof(*e));
    pthread_rwlockattr_t attr;

    e->o = *o;
    e->path = mem_strdup(path);
    e->owner = getpid();
    e->map_max = map_setting("WEIR_LEDGER_MAP_MAX", MAP_CAP);
    while (o->tables[e->tables])
        e->tables++;
    CHECK(e->tables <= ENV_TABLES_MAX);
    CHECK(pthread_rwlockattr_init(&attr) == 0);
    /* Growing the map must not starve behind a stream of readers. */
    CHECK(pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP) == 0);
    CHECK(pthread_rwlock_init(&e->map_lock, &attr) == 0);
    CHECK(pthread_rwlockattr_destroy(&attr) == 0);
    CHECK(pthread_mutex_init(&e->pool_lock, NULL) == 0);
    return e;
}

/* The folder's own entry and those in it, before there are tables: without them a first commit
 * would not outlive a power cut. */
static enum err_code sync_folder(const char *path, struct err *err)
{
    struct buf parent;
    int fd = -1;
    enum err_code rc = os_open_dir(AT_FDCWD, path, &fd, err);

    if (!rc)
        rc = os_fsync(fd, err);
    os_close_quiet(&fd);
    if (rc)
        return rc;
    buf_init(&parent, 4096);
    buf_printf(&parent, "%s/..", path);
    rc = buf_check(&parent, "path", err);
    if (!rc)
        rc = os_open_dir(AT_FDCWD, parent.p, &fd, err);
    if (!rc)
        rc = os_fsync(fd, err);
    os_close_quiet(&fd);
    buf_release(&parent);
    return rc;
}

enum err_code env_open(const char *path, const struct env_options *o, struct env **out,
                       struct err *err)
{
    struct env *e = env_new(path, o);
    bool missing = false;
    enum err_code rc = OK;

    *out = NULL;
    if (o->write)
        rc = os_mkdirs(path, 0755, err);
    if (!rc)
        rc = register_open(e, err);
    if (!rc)
        rc = open_mdb(e, err);
    if (!rc)
        rc = open_tables(e, &missing, err);
    if (!rc && missing && o->sync)
        rc = sync_folder(path, err);
    if (!rc && missing)
        rc = env_write(e, create_tables, NULL, err);
    if (!rc)
        rc = check_format(e, err);
    if (rc) {
        env_close(e);
        return rc;
    }
    *out = e;
    return OK;
}

void env_close(struct env *e)
{
    if (!e)
        return;
    for (int i = 0; i < e->pooled; i++)
        mdb_txn_abort(e->pool[i]);
    if (e->mdb)
        mdb_env_close(e->mdb);
    if (e->registered)
        unregister(e);
    CHECK(pthread_rwlock_destroy(&e->map_lock) == 0);
    CHECK(pthread_mutex_destroy(&e->pool_lock) == 0);
    free(e->path);
    free(e);
}
