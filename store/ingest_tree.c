/* A directory becomes a tree.
 *
 * One thread walks: it lists a directory, stats its entries, asks the memo about all of them at once,
 * hands the files that must be read to the pool in batches, then goes down.  A directory is complete
 * when its last child is; whoever completed that child encodes it and tells its parent, so the tree
 * closes bottom-up while the walk goes on.  In memory are only the directories that are not complete
 * yet, which the pool's bounded queue keeps few.  The order of events differs from run to run, the
 * result does not: every child has its place in its parent's table. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "base/pool.h"
#include "store/ingest_internal.h"
#include "store/tree.h"

#define BATCH_FILES 64
#define BATCH_BYTES (SMALL_READ_BYTES / 2)
#define QUEUE_PER_THREAD 4

struct walk {
    struct ingest *g;
    struct pool *pool;
    struct stat root, objects; /* folders of the store itself */
    struct digest digest;      /* of the top, once it is complete */
    int64_t size;
    bool complete;
    atomic_bool failed; /* somebody met an error: stop walking */
    pthread_mutex_t lock;
    struct folder *folders; /* all that are not complete */
};

struct folder {
    struct walk *walk;
    struct folder *parent;
    struct folder *next, **link; /* in walk.folders */
    size_t place;                /* its entry in the parent's tree */
    int fd;
    int depth;
    char *path;
    struct stat before; /* when it was opened */
    struct tree tree;
    struct stat *stats; /* of the entries, in the tree's order, while the walker is here */
    atomic_size_t open; /* children that are not complete, and the walker */
};

/* ---- folders ----------------------------------------------------------------------------------- */

static struct folder *folder_new(struct walk *walk, struct folder *parent, size_t place, int fd,
                                 char *path)
{
    struct folder *f = mem_zero(1, sizeof(*f));

    f->walk = walk;
    f->parent = parent;
    f->place = place;
    f->fd = fd;
    f->path = path;
    f->depth = parent ? parent->depth + 1 : 0;
    f->open = 1;
    tree_init(&f->tree);
    CHECK(pthread_mutex_lock(&walk->lock) == 0);
    f->next = walk->folders;
    f->link = &walk->folders;
    if (f->next)
        f->next->link = &f->next;
    walk->folders = f;
    CHECK(pthread_mutex_unlock(&walk->lock) == 0);
    return f;
}

static void folder_free(struct folder *f)
{
    struct walk *walk = f->walk;

    CHECK(pthread_mutex_lock(&walk->lock) == 0);
    *f->link = f->next;
    if (f->next)
        f->next->link = f->link;
    CHECK(pthread_mutex_unlock(&walk->lock) == 0);
    tree_release(&f->tree);
    os_close_quiet(&f->fd);
    free(f->stats);
    free(f->path);
    free(f);
}

static char *path_of(const struct folder *f, const char *name)
{
    const size_t a = strlen(f->path), b = strlen(name);
    const bool slash = a > 0 && f->path[a - 1] == '/';
    char *path = mem_alloc(a + b + 2);

    memcpy(path, f->path, a);
    if (!slash)
        path[a] = '/';
    memcpy(path + a + !slash, name, b + 1);
    return path;
}

/* Its entries are what they were when they were listed. */
static enum err_code check_unchanged(const struct folder *f, struct err *err)
{
    struct stat now;
    enum err_code rc = os_stat(f->fd, &now, err);

    if (!rc && !writer_same_file(&f->before, &now))
        rc = err_set(err, ERR_CHANGED,
                     "files were added to or removed from %s while it was being read; add it when "
                     "nobody writes to it",
                     f->path);
    return rc;
}

static enum err_code encode_folder(struct folder *f, struct digest *id, int64_t *size,
                                   struct err *err)
{
    struct buf manifest;
    enum err_code rc;

    *size = 0;
    rc = check_unchanged(f, err);
    if (rc)
        return rc;
    buf_init(&manifest, TREE_BYTES_MAX);
    rc = tree_encode(&f->tree, &manifest, err);
    if (!rc)
        rc = buf_check(&manifest, "directory manifest", err);
    if (rc)
        err_prefix(err, "%s", f->path);
    if (!rc)
        rc = writer_put(f->walk->g->w, OBJ_TREE, manifest.p, manifest.n, id, err);
    *size = (int64_t)manifest.n;
    buf_release(&manifest);
    return rc;
}

/* One child less is open.  Goes up as far as folders become complete by it. */
static enum err_code child_done(struct folder *f, struct err *err)
{
    while (f && atomic_fetch_sub(&f->open, 1) == 1) {
        struct folder *parent = f->parent;
        struct digest id;
        int64_t size;
        enum err_code rc;

        rc = encode_folder(f, &id, &size, err);
        if (rc)
            return rc;
        if (parent) {
            parent->tree.entries[f->place].digest = id;
            parent->tree.entries[f->place].size = size;
        } else {
            f->walk->digest = id;
            f->walk->size = size;
            f->walk->complete = true;
        }
        folder_free(f);
        f = parent;
    }
    return OK;
}

/* ---- files that are read ----------------------------------------------------------------------- */

struct batch {
    struct folder *folder;
    size_t count;
    int64_t bytes;
    size_t places[BATCH_FILES];
};

static enum tree_mode mode_of(const struct stat *st)
{
    return st->st_mode & S_IXUSR ? TREE_EXEC : TREE_FILE;
}

static void file_done(struct folder *f, size_t place, const struct digest *id, int64_t size)
{
    struct tree_entry *e = &f->tree.entries[place];

    e->digest = *id;
    e->size = size;
    f->walk->g->hashed_files++;
}

/* A large file, or one to be moved in: by itself. */
static enum err_code put_alone(struct folder *f, size_t place, struct err *err)
{
    struct ingest *g = f->walk->g;
    const char *name = f->tree.entries[place].name.p;
    char *path = path_of(f, name);
    const int64_t start_ns = os_now_ns();
    struct digest id = {{0}};
    int64_t size = 0;
    struct stat st;
    enum err_code rc;
    int fd = -1;

    if (g->o->how == INGEST_ADOPT) {
        rc = writer_adopt_file(g->w, f->fd, name, path, &id, &size, err);
        goto out;
    }
    rc = os_open(f->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, &fd, err);
    if (!rc)
        rc = os_stat(fd, &st, err);
    if (rc)
        goto out;
    f->tree.entries[place].mode = mode_of(&st);
    rc = writer_put_file(g->w, fd, path, &id, &size, err);
    if (!rc)
        ingest_remember(g, &st, &id, start_ns);
out:
    if (rc == ERR_NOT_FOUND)
        rc = writer_changed(path, err);
    if (!rc)
        file_done(f, place, &id, size);
    os_close_quiet(&fd);
    free(path);
    return rc;
}

struct reading {
    struct small *small;
    int64_t start_ns;
    size_t used; /* of small->read */
    size_t count;
    struct small_item items[BATCH_FILES];
    struct stat stats[BATCH_FILES];
    size_t places[BATCH_FILES];
};

static enum err_code put_read(struct folder *f, struct reading *r, struct err *err)
{
    struct ingest *g = f->walk->g;
    enum err_code rc;

    rc = small_items(g->w, r->small, r->items, r->count, err);
    for (size_t i = 0; !rc && i < r->count; i++) {
        f->tree.entries[r->places[i]].mode = mode_of(&r->stats[i]);
        file_done(f, r->places[i], &r->items[i].id, (int64_t)r->items[i].n);
        ingest_remember(g, &r->stats[i], &r->items[i].id, r->start_ns);
        g->w->files++;
        g->w->bytes += (int64_t)r->items[i].n;
        writer_add_progress(g->w, (int64_t)r->items[i].n, 1);
    }
    r->count = 0;
    r->used = 0;
    return rc;
}

/* Into what is left of the buffer.  *fits = false when it has grown too large for that since it was listed. */
static enum err_code read_one(struct folder *f, size_t place, struct reading *r, bool *fits,
                              struct err *err)
{
    const char *name = f->tree.entries[place].name.p;
    uint8_t *at = r->small->read + r->used;
    enum err_code rc;
    int fd = -1;
    size_t n = 0;

    rc = os_open(f->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, &fd, err);
    if (!rc)
        rc = small_read(fd, name, at, SMALL_READ_BYTES - r->used, &r->stats[r->count], &n, err);
    os_close_quiet(&fd);
    *fits = rc != ERR_LIMIT;
    if (!*fits)
        return OK;
    if (rc == ERR_CHANGED || rc == ERR_NOT_FOUND || rc == ERR_INPUT) {
        /* Messages name the whole path; building it for every file would cost more than its hash. */
        char *path = path_of(f, name);

        rc = rc == ERR_INPUT ? err_set(err, rc, "%s is not a readable regular file", path)
                             : writer_changed(path, err);
        free(path);
    }
    if (rc)
        return rc;
    r->items[r->count] = (struct small_item){.p = at, .n = n, .kind = OBJ_BLOB};
    r->places[r->count++] = place;
    r->used += n;
    return OK;
}

static enum err_code read_batch(const struct batch *b, struct small *s, struct err *err)
{
    struct folder *f = b->folder;
    struct reading *r = mem_zero(1, sizeof(*r));
    enum err_code rc = OK;

    r->small = s;
    r->start_ns = os_now_ns();
    for (size_t i = 0; !rc && i < b->count; i++) {
        bool fits;

        rc = read_one(f, b->places[i], r, &fits, err);
        if (rc || fits)
            continue;
        rc = put_read(f, r, err);
        *err = rc ? *err : (struct err)ERR_INIT;
        if (!rc)
            rc = put_alone(f, b->places[i], err);
    }
    if (!rc)
        rc = put_read(f, r, err);
    free(r);
    return rc;
}

static enum err_code run_batch(void *arg, bool cancelled, struct err *err)
{
    struct batch *b = arg;
    struct walk *walk = b->folder->walk;
    struct writer *w = walk->g->w;
    struct small *s = NULL;
    enum err_code rc = OK;

    if (cancelled || atomic_load(&walk->failed)) {
        free(b);
        return OK;
    }
    if (b->count == 1 && (b->bytes >= LOOSE_MIN_BYTES || walk->g->o->how == INGEST_ADOPT)) {
        rc = put_alone(b->folder, b->places[0], err);
    } else {
        rc = small_get(w, &s, err);
        if (!rc) {
            rc = read_batch(b, s, err);
            small_put(w, s);
        }
    }
    if (!rc)
        rc = child_done(b->folder, err);
    if (rc)
        atomic_store(&walk->failed, true);
    free(b);
    return rc;
}

static void submit(struct walk *walk, struct batch **b)
{
    if (*b)
        pool_submit(walk->pool, run_batch, *b);
    *b = NULL;
}

/* The batch counts as one child of its folder. */
static void add_to_batch(struct folder *f, size_t place, struct batch **b)
{
    const int64_t size = f->stats[place].st_size;
    const bool alone = size >= LOOSE_MIN_BYTES || f->walk->g->o->how == INGEST_ADOPT;

    if (*b && (alone || (*b)->count == BATCH_FILES || (*b)->bytes + size > BATCH_BYTES))
        submit(f->walk, b);
    if (!*b) {
        *b = mem_zero(1, sizeof(**b));
        (*b)->folder = f;
        atomic_fetch_add(&f->open, 1);
    }
    (*b)->places[(*b)->count++] = place;
    (*b)->bytes += size;
    if (alone)
        submit(f->walk, b);
}

/* ---- the walk ---------------------------------------------------------------------------------- */

static bool same_inode(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static enum err_code add_link(struct folder *f, struct tree_entry *e, struct err *err)
{
    struct buf target;
    enum err_code rc;

    buf_init(&target, PATH_MAX);
    rc = os_readlink(f->fd, e->name.p, &target, err);
    if (!rc) {
        e->target = (struct str){target.p, target.n};
        rc = tree_add(&f->tree, e, f->depth, err);
        if (rc)
            err_prefix(err, "%s/%s", f->path, e->name.p);
    }
    buf_release(&target);
    return rc;
}

static enum err_code add_entry(struct folder *f, const char *name, const struct stat *st,
                               struct err *err)
{
    struct tree_entry e = {.name = str_of(name), .size = st->st_size};
    enum err_code rc;

    if (S_ISLNK(st->st_mode)) {
        e.mode = TREE_LINK;
        return add_link(f, &e, err);
    }
    if (S_ISREG(st->st_mode))
        e.mode = mode_of(st);
    else if (S_ISDIR(st->st_mode))
        e.mode = TREE_DIR;
    else
        return err_set(err, ERR_INPUT,
                       "%s/%s is a socket, device or fifo; only files, directories and links can "
                       "be stored",
                       f->path, name);
    rc = tree_add(&f->tree, &e, f->depth, err);
    return rc ? err_prefix(err, "%s", f->path) : OK;
}

/* All entries get their place before any child is at work: the table does not move afterwards. */
static enum err_code list_folder(struct folder *f, struct err *err)
{
    struct os_entry *entries = NULL;
    enum err_code rc;
    size_t count;

    rc = os_stat(f->fd, &f->before, err);
    if (!rc)
        rc = os_list(f->fd, &entries, &count, err);
    if (rc)
        return rc;
    if (count > TREE_ENTRIES_MAX)
        rc = err_set(err, ERR_LIMIT, "%s has %zu entries, at most %d", f->path, count,
                     TREE_ENTRIES_MAX);
    if (!rc)
        f->stats = mem_alloc((count + 1) * sizeof(*f->stats));
    for (size_t i = 0; !rc && i < count; i++) {
        rc = os_stat_at(f->fd, entries[i].name, &f->stats[i], err);
        if (rc == ERR_NOT_FOUND)
            rc = writer_changed(f->path, err); /* the folder lost an entry meanwhile */
        if (!rc)
            rc = add_entry(f, entries[i].name, &f->stats[i], err);
    }
    free(entries);
    return rc;
}

struct asked {
    struct memo_key key;
    size_t place;
};

/* The memo's keys are (device, inode): neighbours there are neighbours on its pages. */
static int by_inode(const void *a, const void *b)
{
    const struct memo_key *x = &((const struct asked *)a)->key;
    const struct memo_key *y = &((const struct asked *)b)->key;

    if (x->dev != y->dev)
        return x->dev < y->dev ? -1 : 1;
    return (x->ino > y->ino) - (x->ino < y->ino);
}

/* done[place] is set for files that need not be read. */
static enum err_code ask_memo(struct folder *f, bool *done, struct err *err)
{
    const size_t n = f->tree.count;
    struct ingest *g = f->walk->g;
    struct asked *asked = mem_alloc((n + 1) * sizeof(*asked));
    struct memo_key *keys = mem_alloc((n + 1) * sizeof(*keys));
    struct digest *ids = mem_alloc((n + 1) * sizeof(*ids));
    bool *found = mem_zero(n + 1, sizeof(*found));
    size_t count = 0;
    enum err_code rc;

    for (size_t i = 0; i < n; i++)
        if (S_ISREG(f->stats[i].st_mode))
            asked[count++] = (struct asked){memo_key_of(&f->stats[i]), i};
    if (count > 0)
        qsort(asked, count, sizeof(*asked), by_inode);
    for (size_t i = 0; i < count; i++)
        keys[i] = asked[i].key;
    rc = ingest_recall(g, keys, count, ids, found, err);
    for (size_t i = 0; !rc && i < count; i++) {
        done[asked[i].place] = found[i];
        if (found[i])
            f->tree.entries[asked[i].place].digest = ids[i];
    }
    free(asked);
    free(keys);
    free(ids);
    free(found);
    return rc;
}

static enum err_code read_files(struct folder *f, struct err *err)
{
    bool *done = mem_zero(f->tree.count + 1, sizeof(*done));
    struct ingest *g = f->walk->g;
    struct batch *batch = NULL;
    enum err_code rc = OK;

    if (g->memo)
        rc = ask_memo(f, done, err);
    for (size_t i = 0; !rc && i < f->tree.count && !atomic_load(&f->walk->failed); i++) {
        if (!S_ISREG(f->stats[i].st_mode))
            continue;
        g->files++;
        g->bytes += f->stats[i].st_size;
        if (!done[i])
            add_to_batch(f, i, &batch);
    }
    submit(f->walk, &batch);
    free(done);
    return rc;
}

static enum err_code walk_folder(struct folder *f, struct err *err);

static enum err_code walk_down(struct folder *f, size_t place, struct err *err)
{
    const char *name = f->tree.entries[place].name.p;
    struct folder *below;
    enum err_code rc;
    int fd = -1;

    if (f->depth + 1 >= TREE_DEPTH_MAX)
        return err_set(err, ERR_LIMIT, "directories more than %d deep: %s/%s", TREE_DEPTH_MAX,
                       f->path, name);
    if (same_inode(&f->stats[place], &f->walk->root) ||
        same_inode(&f->stats[place], &f->walk->objects))
        return err_set(err, ERR_INPUT,
                       "%s/%s is the store itself; add a folder that does not contain it", f->path,
                       name);
    rc = os_open(f->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, &fd, err);
    if (rc == ERR_NOT_FOUND)
        rc = writer_changed(f->path, err);
    if (rc)
        return rc;
    atomic_fetch_add(&f->open, 1);
    below = folder_new(f->walk, f, place, fd, path_of(f, name));
    rc = walk_folder(below, err);
    return rc;
}

/* NOLINTNEXTLINE(misc-no-recursion): bounded by TREE_DEPTH_MAX */
static enum err_code walk_folder(struct folder *f, struct err *err)
{
    const size_t count_max = TREE_ENTRIES_MAX;
    enum err_code rc;

    rc = list_folder(f, err);
    CHECK(rc || f->tree.count <= count_max);
    if (!rc)
        rc = read_files(f, err);
    for (size_t i = 0; !rc && i < f->tree.count && !atomic_load(&f->walk->failed); i++)
        if (S_ISDIR(f->stats[i].st_mode))
            rc = walk_down(f, i, err);
    if (rc || atomic_load(&f->walk->failed))
        return rc;
    free(f->stats);
    f->stats = NULL;
    return child_done(f, err);
}

static enum err_code walk_init(struct walk *walk, struct ingest *g, struct err *err)
{
    const struct store *st = g->w->st;
    enum err_code rc;

    *walk = (struct walk){.g = g};
    CHECK(pthread_mutex_init(&walk->lock, NULL) == 0);
    rc = os_stat_at(AT_FDCWD, st->root, &walk->root, err);
    if (!rc)
        rc = os_stat(st->objects, &walk->objects, err);
    if (!rc)
        rc = pool_new(st->threads, QUEUE_PER_THREAD * st->threads, &walk->pool, err);
    return rc;
}

enum err_code ingest_tree(struct ingest *g, int fd, const char *path, struct digest *out,
                          int64_t *size, struct err *err)
{
    struct err pool_err = ERR_INIT;
    enum err_code rc, pool_rc = OK;
    struct walk walk;
    int own = -1;

    rc = walk_init(&walk, g, err);
    if (!rc)
        rc = os_open_dir(fd, ".", &own, err);
    if (!rc) {
        rc = walk_folder(folder_new(&walk, NULL, 0, own, mem_strdup(path)), err);
        if (rc)
            atomic_store(&walk.failed, true);
    }
    if (walk.pool)
        pool_rc = pool_wait(walk.pool, &pool_err);
    pool_free(walk.pool);
    if (!rc && pool_rc) {
        rc = pool_rc;
        *err = pool_err;
    }
    for (struct folder *f = walk.folders, *next; f; f = next) {
        next = f->next;
        folder_free(f);
    }
    pthread_mutex_destroy(&walk.lock);
    CHECK(rc || walk.complete);
    *out = walk.digest;
    *size = walk.size;
    return rc;
}
