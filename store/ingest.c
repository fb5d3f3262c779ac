/* The memo's racy rule.  A row (inode, size, mtime, ctime) -> digest is believed as long as the four
 * are unchanged.  File times are taken from a clock that moves in ticks of 1 to 10 ms (whole seconds
 * on a few file systems), so a write in the same tick as an earlier one leaves no trace in them.  A
 * row is therefore kept only if both times are older than the start of hashing by more than a tick:
 * then any later write gets a later time.  Two ticks of 10 ms are allowed for; two seconds where
 * the times have no fraction; ten where they come from a file server's clock. */
#include "store/ingest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>

#include "base/os.h"
#include "store/ingest_internal.h"

#define NS_PER_S 1000000000LL
#define RACY_TICK_NS 20000000LL
#define RACY_COARSE_NS (2 * NS_PER_S)
#define RACY_REMOTE_NS (10 * NS_PER_S)
#define TRIES_MAX 3

#ifndef LUSTRE_SUPER_MAGIC
#define LUSTRE_SUPER_MAGIC 0x0BD00BD0
#endif

/* ---- memo -------------------------------------------------------------------------------------- */

struct memo_key memo_key_of(const struct stat *st)
{
    return (struct memo_key){
        .dev = st->st_dev,
        .ino = st->st_ino,
        .size = st->st_size,
        .mtime_ns = st->st_mtim.tv_sec * NS_PER_S + st->st_mtim.tv_nsec,
        .ctime_ns = st->st_ctim.tv_sec * NS_PER_S + st->st_ctim.tv_nsec,
    };
}

bool memo_is_safe(const struct memo_key *key, int64_t start_ns, bool remote)
{
    const int64_t last = key->mtime_ns > key->ctime_ns ? key->mtime_ns : key->ctime_ns;
    const bool coarse = key->mtime_ns % NS_PER_S == 0 && key->ctime_ns % NS_PER_S == 0;
    int64_t margin = RACY_TICK_NS;

    if (coarse)
        margin = RACY_COARSE_NS;
    if (remote)
        margin = RACY_REMOTE_NS;
    return last < start_ns - margin;
}

/* Another machine's clock stamps the files there. */
static bool is_remote(int fd)
{
    struct statfs fs;

    if (fstatfs(fd, &fs) != 0)
        return true;
    switch ((unsigned long)fs.f_type) {
    case NFS_SUPER_MAGIC:
    case SMB_SUPER_MAGIC:
    case CIFS_SUPER_MAGIC:
    case SMB2_SUPER_MAGIC:
    case FUSE_SUPER_MAGIC:
    case CEPH_SUPER_MAGIC:
    case AFS_SUPER_MAGIC:
    case V9FS_MAGIC:
    case LUSTRE_SUPER_MAGIC:
        return true;
    default:
        return false;
    }
}

void ingest_remember(struct ingest *g, const struct stat *st, const struct digest *id,
                     int64_t start_ns)
{
    const struct memo_row row = {.key = memo_key_of(st), .id = *id};

    if (g->w->st->index && g->o->how == INGEST_COPY && memo_is_safe(&row.key, start_ns, g->remote))
        writer_memo(g->w, &row);
}

enum err_code ingest_recall(struct ingest *g, const struct memo_key *keys, size_t n,
                            struct digest *ids, bool *found, struct err *err)
{
    enum err_code rc;

    memset(found, 0, n * sizeof(*found));
    if (!g->memo || n == 0)
        return OK;
    rc = index_memo_get(g->w->st->index, keys, n, ids, found, err);
    for (size_t i = 0; !rc && i < n; i++) {
        uint8_t known = ID_REUSED;

        if (!found[i])
            continue;
        /* Large files are few, and lie as files of their own that somebody may have removed. */
        if (keys[i].size >= LOOSE_MIN_BYTES || g->w->st->lose_percent)
            rc = writer_lookup(g->w, &ids[i], 1, &known, err);
        if (!rc && known == ID_REUSED)
            rc = writer_reuse(g->w, &ids[i], 1, err);
        found[i] = known != ID_ABSENT;
        if (rc || !found[i])
            continue;
        g->w->files++;
        g->w->bytes += keys[i].size;
        g->w->reused_objects++;
        writer_add_progress(g->w, keys[i].size, 1);
    }
    return rc;
}

/* ---- one file ---------------------------------------------------------------------------------- */

static enum err_code read_file(struct ingest *g, int dir, const char *path, const struct stat *st,
                               struct ingest_result *out, struct err *err)
{
    const int64_t start_ns = os_now_ns();
    enum err_code rc;
    int fd = -1;

    rc = os_open(dir, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, &fd, err);
    if (!rc)
        rc = writer_put_file(g->w, fd, path, &out->digest, &out->size, err);
    if (!rc) {
        struct stat now;

        /* The row is about the file that was read, not the one that had the name before. */
        rc = os_stat(fd, &now, err);
        g->remote = is_remote(fd);
        if (!rc && writer_same_file(st, &now))
            ingest_remember(g, &now, &out->digest, start_ns);
    }
    os_close_quiet(&fd);
    return rc;
}

static enum err_code ingest_file(struct ingest *g, int dir, const char *path, const struct stat *st,
                                 struct ingest_result *out, struct err *err)
{
    const struct memo_key key = memo_key_of(st);
    bool found = false;
    enum err_code rc;

    out->kind = OBJ_BLOB;
    out->size = st->st_size;
    rc = ingest_recall(g, &key, 1, &out->digest, &found, err);
    if (rc)
        return rc;
    if (!found) {
        g->hashed_files++;
        if (g->o->how == INGEST_ADOPT)
            rc = writer_adopt_file(g->w, dir, path, path, &out->digest, &out->size, err);
        else
            rc = read_file(g, dir, path, st, out, err);
    }
    g->files = 1;
    g->bytes = out->size;
    return rc;
}

static enum err_code ingest_dir(struct ingest *g, int dir, const char *path,
                                struct ingest_result *out, struct err *err)
{
    enum err_code rc;
    int fd = -1;

    out->kind = OBJ_TREE;
    rc = os_open(dir, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, &fd, err);
    if (!rc) {
        g->remote = is_remote(fd);
        rc = ingest_tree(g, fd, path, &out->digest, &out->size, err);
    }
    os_close_quiet(&fd);
    return rc;
}

/* ---- the door ---------------------------------------------------------------------------------- */

static enum err_code ingest_one(struct ingest *g, int dir, const char *path, const struct stat *st,
                                struct ingest_result *out, struct err *err)
{
    if (S_ISREG(st->st_mode))
        return ingest_file(g, dir, path, st, out, err);
    if (S_ISDIR(st->st_mode))
        return ingest_dir(g, dir, path, out, err);
    if (S_ISLNK(st->st_mode))
        return err_set(err, ERR_INPUT,
                       "%s is a symbolic link; name what it points to instead (realpath says what "
                       "that is)",
                       path);
    return err_set(err, ERR_INPUT, "%s is neither a file nor a directory", path);
}

enum err_code ingest_path(struct writer *w, int dir, const char *path,
                          const struct ingest_options *o, struct ingest_result *out,
                          struct err *err)
{
    struct ingest g = {.w = w, .o = o};
    struct stat st;
    enum err_code rc;

    CHECK(w);
    CHECK(path);
    CHECK(o);
    CHECK(out);
    *out = (struct ingest_result){0};
    rc = os_stat_at(dir, path, &st, err);
    if (rc)
        return rc;
    g.memo = w->st->index && !o->no_memo && o->how == INGEST_COPY;
    if (o->progress)
        w->progress = o->progress;
    rc = ingest_one(&g, dir, path, &st, out, err);
    w->progress = NULL;
    if (rc)
        return rc;
    writer_touch(w, out->kind, &out->digest);
    if (o->ref)
        rc = writer_ref(w, str_of(o->ref), out->kind, &out->digest, err);
    out->files = g.files;
    out->bytes = g.bytes;
    out->hashed_files = g.hashed_files;
    writer_get_stats(w, &out->stats);
    return rc;
}

struct many {
    struct ingest g;
    int dir;
    struct ingest_item *items;
    struct stat *stats;
    struct memo_key *keys; /* of the files, in the order of places */
    size_t *places;
    struct digest *ids;
    bool *found;
    size_t files;
};

static enum err_code stat_many(struct many *m, size_t n, size_t *at, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < n; i++) {
        *at = i;
        m->items[i].result = (struct ingest_result){0};
        rc = os_stat_at(m->dir, m->items[i].path, &m->stats[i], err);
        if (rc || !S_ISREG(m->stats[i].st_mode))
            continue;
        m->items[i].executable = m->stats[i].st_mode & S_IXUSR;
        m->keys[m->files] = memo_key_of(&m->stats[i]);
        m->places[m->files++] = i;
    }
    return rc;
}

static enum err_code put_many(struct many *m, size_t n, size_t *at, struct err *err)
{
    size_t file = 0;
    enum err_code rc = ingest_recall(&m->g, m->keys, m->files, m->ids, m->found, err);

    for (size_t i = 0; !rc && i < n; i++) {
        struct ingest_result *r = &m->items[i].result;

        *at = i;
        m->g.files = m->g.bytes = m->g.hashed_files = 0;
        if (file < m->files && m->places[file] == i && m->found[file++]) {
            *r = (struct ingest_result){.digest = m->ids[file - 1],
                                        .kind = OBJ_BLOB,
                                        .size = m->stats[i].st_size,
                                        .files = 1,
                                        .bytes = m->stats[i].st_size};
            continue;
        }
        rc = ingest_one(&m->g, m->dir, m->items[i].path, &m->stats[i], r, err);
        r->files = m->g.files;
        r->bytes = m->g.bytes;
        r->hashed_files = m->g.hashed_files;
    }
    return rc;
}

enum err_code ingest_many(struct writer *w, int dir, struct ingest_item *items, size_t n,
                          const struct ingest_options *o, size_t *at, struct err *err)
{
    struct many m = {.g = {.w = w, .o = o}, .dir = dir, .items = items};
    size_t ignored;
    enum err_code rc;

    CHECK(w);
    CHECK(items || n == 0);
    CHECK(o);
    m.g.memo = w->st->index && !o->no_memo && o->how == INGEST_COPY;
    m.stats = mem_alloc((n + 1) * sizeof(*m.stats));
    m.keys = mem_alloc((n + 1) * sizeof(*m.keys));
    m.places = mem_alloc((n + 1) * sizeof(*m.places));
    m.ids = mem_alloc((n + 1) * sizeof(*m.ids));
    m.found = mem_zero(n + 1, sizeof(*m.found));
    w->progress = o->progress;
    rc = stat_many(&m, n, at ? at : &ignored, err);
    if (!rc)
        rc = put_many(&m, n, at ? at : &ignored, err);
    w->progress = NULL;
    free(m.stats);
    free(m.keys);
    free(m.places);
    free(m.ids);
    free(m.found);
    return rc;
}

static enum err_code add_once(struct store *st, const char *path, const struct ingest_options *o,
                              struct ingest_result *out, bool *raced, struct err *err)
{
    struct writer *w = NULL;
    enum err_code rc;

    rc = writer_open(st, &w, err);
    if (!rc)
        rc = ingest_path(w, AT_FDCWD, path, o, out, err);
    if (!rc)
        rc = writer_commit(w, err);
    if (!rc)
        writer_get_stats(w, &out->stats);
    *raced = w && writer_raced(w);
    writer_release(w);
    return rc;
}

enum err_code store_add(struct store *st, const char *path, const struct ingest_options *o,
                        struct ingest_result *out, struct err *err)
{
    struct ingest_options again = *o;
    bool raced = false;
    enum err_code rc;

    CHECK(st);
    CHECK(path);
    CHECK(out);
    if (o->ref) {
        rc = store_ref_check(str_of(o->ref), err); /* before hours of reading */
        if (rc)
            return rc;
    }
    for (int i = 1;; i++) {
        rc = add_once(st, path, &again, out, &raced, err);
        if (rc != ERR_CHANGED || !raced || i == TRIES_MAX)
            break;
        again.no_memo = true; /* the memo may know objects that a gc has taken away */
        *err = (struct err)ERR_INIT;
    }
    return rc;
}
