/* index_rebuild.c - the index anew, from nothing but packs and loose files.
 *
 * Inserting at random costs LMDB a page a row; sorted rows appended (MDB_APPEND) cost a page per
 * fifty and leave pages full, so this is also how an index is compacted (measured with LMDB 0.9.24:
 * 2.2 million rows a second against 130,000, 105 bytes a row against 290).  The rows are gathered
 * in memory, REBUILD_ROWS at a time: when more come, the range of ids of this pass is halved, and
 * further passes over the tables of contents take the rest.
 *
 * The new file is made in a folder beside the index, synced, and renamed over the old one: before
 * the rename a crash leaves the old index, after it the new one.  Meanwhile LMDB's lock file is
 * held exclusively, so nobody else has the index open; at the end it is cut to nothing, because
 * what LMDB notes there belongs to the old file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/os.h"
#include "store/index_internal.h"

#define REBUILD_ROWS (4 << 20)    /* in memory at a time: 96 bytes each while they are sorted */
#define REBUILD_APPEND (1 << 19)  /* rows a transaction: 40 MiB of pages */
#define REBUILD_JOURNAL (1 << 16) /* binds, refs and loose files kept before they are merged */
#define RANGE_ALL 65536
#define PROBLEMS_MAX (4 << 20)

struct rebuild {
    int packs_dir, loose_dir;
    struct rebuild_report *report;
    struct pack_row *packs; /* sorted by name; records = 0: damaged, passed over */
    size_t pack_count;
    struct index *ix; /* the new one */
    struct journal j;
    struct digest *gone;
    size_t gone_count;
    size_t next; /* object to append */
    int64_t mtime;
};

/* ---- packs ---- */

static enum err_code list_packs(struct rebuild *r, struct err *err)
{
    struct err ignored = ERR_INIT;
    struct os_entry *names;
    size_t n;
    enum err_code rc = packs_mtime(r->packs_dir, &r->mtime, err);

    if (rc)
        return rc;
    if (!packs_mtime_settled(r->mtime))
        r->mtime = 0;
    rc = os_list(r->packs_dir, &names, &n, err);
    if (rc)
        return rc;
    r->packs = mem_zero(n + 1, sizeof(*r->packs));
    for (size_t i = 0; i < n; i++) { /* sorted by bytes: hex sorts as digests do */
        struct pack_row *row = &r->packs[r->pack_count];

        if (strlen(names[i].name) != DIGEST_HEX ||
            digest_parse(names[i].name, DIGEST_HEX, &row->name, &ignored) != OK)
            continue;
        row->number = (uint32_t)++r->pack_count;
        row->records = 1; /* until it is found damaged */
    }
    free(names);
    return OK;
}

static void pass_over(struct rebuild *r, struct pack_row *row, const struct err *err)
{
    row->records = 0;
    r->report->damaged_packs++;
    buf_printf(&r->report->problems, "%s\n", err->text);
}

static enum err_code read_pack(struct rebuild *r, struct pack_row *row, struct err *err)
{
    const struct pack_entry *toc;
    struct pack *p = NULL;
    size_t n = 0;
    enum err_code rc = pack_open(r->packs_dir, &row->name, &p, err);

    if (!rc)
        rc = pack_toc(p, &toc, &n, err);
    if (!rc)
        rc = journal_add(&r->j, p, row->number, err);
    if (!rc) {
        row->bytes = pack_bytes(p);
        row->created_ns = pack_created_ns(p);
        row->records = (int64_t)n;
    }
    pack_close(p);
    if (rc == ERR_DAMAGED && r->j.from == 0) { /* later its objects are in the index already */
        pass_over(r, row, err);
        return OK;
    }
    return rc;
}

/* ---- rows that are few: merged as in a commit ---- */

static enum err_code write_journal(struct view *v, void *arg, struct err *err)
{
    struct rebuild *r = arg;
    enum err_code rc = OK;

    for (size_t i = 0; i < r->j.loose_count && !rc; i++)
        rc = merge_loose(v, &r->j.loose[i], err);
    for (size_t i = 0; i < r->gone_count && !rc; i++)
        rc = gone_put(v, &r->gone[i], err);
    for (size_t i = 0; i < r->j.bind_count && !rc; i++)
        rc = merge_bind(v, &r->j.binds[i], err);
    for (size_t i = 0; i < r->j.ref_count && !rc; i++)
        rc = merge_ref(v, &r->j.refs[i], err);
    return rc;
}

/* Is the loose file there, and whole?  A short one counts as absent, so that it is written
 * again. */
static enum err_code loose_there(const struct rebuild *r, const struct announced *a, bool *there,
                                 struct err *err)
{
    char hex[DIGEST_HEX + 1], name[DIGEST_HEX + 2];
    struct stat st;
    enum err_code rc;

    digest_hex(&a->id, hex);
    (void)snprintf(name, sizeof(name), "%.2s/%s", hex, hex + 2);
    rc = os_stat_at(r->loose_dir, name, &st, err);
    *there = !rc && S_ISREG(st.st_mode) && (uint64_t)st.st_size == a->raw;
    return rc == ERR_NOT_FOUND ? OK : rc;
}

static enum err_code flush_journal(struct rebuild *r, struct err *err)
{
    const struct journal objects_only = {.object_count = r->j.object_count};
    enum err_code rc = OK;
    bool there;

    r->gone_count = 0;
    r->gone = mem_grow(r->gone, r->j.loose_count + 1, sizeof(*r->gone));
    for (size_t i = 0; i < r->j.loose_count && !rc; i++) {
        rc = loose_there(r, &r->j.loose[i], &there, err);
        if (!rc && !there)
            r->gone[r->gone_count++] = r->j.loose[i].id;
    }
    if (!rc)
        rc = index_write(r->ix, write_journal, r, err);
    journal_rewind(&r->j, &objects_only);
    return rc;
}

/* ---- objects: sorted and appended ---- */

static enum err_code append_object(struct view *v, const struct found *f, bool first,
                                   struct err *err)
{
    uint8_t key[ALSO_KEY], p[LOC_BYTES];

    loc_encode(&f->loc, p);
    if (first)
        return row_append(v, DB_OBJECT, f->id.b, DIGEST_BYTES, p, err);
    also_key(&f->id, &f->loc, key);
    return row_append(v, DB_ALSO, key, sizeof(key), p, err);
}

static enum err_code write_objects(struct view *v, void *arg, struct err *err)
{
    const struct rebuild *r = arg;
    const struct found *f = r->j.objects;
    size_t to = r->next + REBUILD_APPEND;
    enum err_code rc = OK;

    if (to > r->j.object_count)
        to = r->j.object_count;
    for (size_t i = r->next; i < to && !rc; i++) {
        const bool first = i == 0 || !digest_eq(&f[i].id, &f[i - 1].id);

        rc = append_object(v, &f[i], first, err);
    }
    return rc;
}

static enum err_code flush_objects(struct rebuild *r, struct err *err)
{
    enum err_code rc = journal_sort(&r->j, err);

    for (r->next = 0; !rc && r->next < r->j.object_count; r->next += REBUILD_APPEND)
        rc = index_write(r->ix, write_objects, r, err);
    journal_clear(&r->j);
    return rc;
}

/* One pass over all packs: objects of [from, to), to being lowered as memory fills. */
static enum err_code run_pass(struct rebuild *r, uint32_t from, struct err *err)
{
    const size_t rows_max = r->ix->batch ? r->ix->batch : REBUILD_ROWS;
    struct journal *j = &r->j;
    enum err_code rc = OK;

    j->from = from;
    j->to = RANGE_ALL;
    for (size_t i = 0; i < r->pack_count && !rc; i++) {
        if (r->packs[i].records == 0)
            continue;
        rc = read_pack(r, &r->packs[i], err);
        while (!rc && j->object_count > rows_max && j->to - from > 1)
            journal_narrow(j, from + (j->to - from) / 2);
        if (from > 0) { /* the first pass has merged them */
            const struct journal objects_only = {.object_count = j->object_count};

            journal_rewind(j, &objects_only);
        } else if (!rc && j->bind_count + j->ref_count + j->loose_count > REBUILD_JOURNAL) {
            rc = flush_journal(r, err);
        }
    }
    if (!rc && from == 0)
        rc = flush_journal(r, err);
    return rc ? rc : flush_objects(r, err);
}

static enum err_code write_packs(struct view *v, void *arg, struct err *err)
{
    const struct rebuild *r = arg;
    enum err_code rc = OK;

    for (size_t i = 0; i < r->pack_count && !rc; i++)
        if (r->packs[i].records > 0)
            rc = pack_row_put(v, &r->packs[i], err);
    if (!rc)
        rc = meta_put(v, "next_pack", (int64_t)r->pack_count + 1, err);
    if (!rc)
        rc = meta_put(v, "packs_mtime", r->mtime, err);
    if (!rc)
        rc = meta_put(v, "touch_all", os_now_ns(), err);
    if (!rc)
        rc = meta_put(v, "epoch", first_epoch(), err);
    return rc ? rc : meta_put(v, "commits", 1, err);
}

static enum err_code fill(struct rebuild *r, struct err *err)
{
    struct buf again; /* later passes meet the same problems */
    struct index_stat st;
    uint32_t from = 0;
    enum err_code rc;

    CHECK(mdb_env_set_flags(r->ix->env, MDB_NOSYNC, 1) == 0); /* one sync at the end */
    buf_init(&again, PROBLEMS_MAX);
    rc = list_packs(r, err);
    while (!rc && from < RANGE_ALL) {
        r->j.problems = from ? &again : &r->report->problems;
        rc = run_pass(r, from, err);
        from = r->j.to;
        buf_clear(&again);
    }
    if (!rc)
        rc = index_write(r->ix, write_packs, r, err);
    if (!rc)
        rc = index_fault("sync", err);
    if (!rc) {
        const int mdb = mdb_env_sync(r->ix->env, 1);

        rc = mdb ? index_fail(err, mdb, "sync") : OK;
    }
    if (!rc)
        rc = index_stat(r->ix, &st, err);
    buf_release(&again);
    if (rc)
        return rc;
    r->report->objects = st.objects;
    r->report->packs = st.packs;
    r->report->actions = st.actions;
    r->report->refs = st.refs;
    return OK;
}

/* ---- aside, and over the old one ---- */

/* Exclusive, as LMDB itself takes it when it opens an index that nobody has open. */
static enum err_code lock_index(int dir, int *fd, struct err *err)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    enum err_code rc = os_open(dir, "lock.mdb", O_RDWR | O_CREAT, 0644, fd, err);

    if (!rc)
        rc = index_fault("lock", err);
    if (rc)
        return rc;
    if (fcntl(*fd, F_SETLK, &lock) == 0)
        return OK;
    if (errno == EACCES || errno == EAGAIN)
        return err_set(err, ERR_AGAIN, "index is in use by another process");
    return err_sys(err, errno, "lock the index");
}

static struct str last_part(const char *path)
{
    const char *slash = strrchr(path, '/');

    return str_of(slash ? slash + 1 : path);
}

/* What a crashed rebuild left; we hold the lock, so none is running. */
static enum err_code remove_leavings(int parent, struct str base, struct err *err)
{
    struct os_entry *names;
    size_t n;
    enum err_code rc = os_list(parent, &names, &n, err);

    if (rc)
        return rc;
    for (size_t i = 0; i < n && !rc; i++) {
        const struct str name = str_of(names[i].name);
        const struct str rest = {name.p + base.n, name.n < base.n ? 0 : name.n - base.n};

        if (str_starts(name, base) && str_starts(rest, STR(".rebuild.")))
            rc = os_remove_tree(parent, names[i].name, err);
    }
    free(names);
    return rc;
}

static enum err_code replace(int parent, const char *aside, int dir, int lock, struct err *err)
{
    int from = -1, data = -1;
    enum err_code rc = os_open_dir(parent, aside, &from, err);

    if (!rc)
        rc = os_open(from, "data.mdb", O_RDWR, 0, &data, err);
    if (!rc)
        rc = os_fsync(data, err);
    if (!rc)
        rc = os_close(&data, err);
    if (!rc)
        rc = os_rename(from, "data.mdb", dir, "data.mdb", err);
    if (!rc)
        rc = os_fsync(dir, err);
    if (!rc)
        rc = os_truncate(lock, 0, err);
    os_close_quiet(&data);
    os_close_quiet(&from);
    return rc;
}

static enum err_code rebuild_aside(struct rebuild *r, const char *dir, int parent, int dir_fd,
                                   int lock, struct err *err)
{
    const struct str base = last_part(dir);
    struct err ignored = ERR_INIT;
    struct buf path;
    enum err_code rc;

    buf_init(&path, 1 << 16);
    buf_printf(&path, "%s.rebuild.%ld", dir, (long)getpid());
    rc = buf_check(&path, "path of the index", err);
    if (!rc)
        rc = remove_leavings(parent, base, err);
    if (!rc)
        rc = index_open(path.p, INDEX_WRITE, &r->ix, err);
    if (!rc) {
        rc = fill(r, err);
        index_close(r->ix);
        r->ix = NULL;
        if (!rc)
            rc = replace(parent, last_part(path.p).p, dir_fd, lock, err);
        if (os_remove_tree(parent, last_part(path.p).p, &ignored) != OK)
            buf_printf(&r->report->problems, "%s\n", ignored.text);
    }
    buf_release(&path);
    return rc;
}

static enum err_code open_parent(const char *dir, int *parent, struct err *err)
{
    const size_t n = strlen(dir) - last_part(dir).n;
    char *path = n ? mem_strndup(dir, n) : mem_strdup(".");
    const enum err_code rc = os_open_dir(AT_FDCWD, path, parent, err);

    free(path);
    return rc;
}

/* Without slashes at the end, which would hide the last part. */
static char *plain_path(const char *dir)
{
    size_t n = strlen(dir);

    while (n > 1 && dir[n - 1] == '/')
        n--;
    return mem_strndup(dir, n);
}

enum err_code index_rebuild(const char *dir, int packs_dir, int loose_dir,
                            struct rebuild_report *report, struct err *err)
{
    struct rebuild r = {.packs_dir = packs_dir, .loose_dir = loose_dir, .report = report};
    int parent = -1, dir_fd = -1, lock = -1;
    struct stat st;
    char *path;
    enum err_code rc;

    CHECK(dir);
    CHECK(report);
    *report = (struct rebuild_report){0};
    buf_init(&report->problems, PROBLEMS_MAX);
    path = plain_path(dir);
    rc = os_mkdirs(path, 0755, err);
    if (!rc)
        rc = open_parent(path, &parent, err);
    if (!rc)
        rc = os_open_dir(AT_FDCWD, path, &dir_fd, err);
    if (!rc)
        rc = os_stat(dir_fd, &st, err);
    if (!rc) {
        CHECK(!index_is_open(st.st_dev,
                             st.st_ino)); /* closing lock.mdb would drop that one's locks */
        rc = lock_index(dir_fd, &lock, err);
    }
    if (!rc)
        rc = rebuild_aside(&r, path, parent, dir_fd, lock, err);
    os_close_quiet(&lock);
    os_close_quiet(&dir_fd);
    os_close_quiet(&parent);
    journal_release(&r.j);
    free(r.packs);
    free(r.gone);
    free(path);
    return rc ? err_prefix(err, "rebuild the index") : OK;
}
