#include "store/mark.h"

#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "store/reader.h"
#include "store/tree.h"

#define FRONTIER_MAX 262144 /* trees looked up and put in order at once */
#define TREE_BATCH 4096 /* trees decoded before their entries are marked: about 30 MiB of entries */
#define BLOB_BATCH (1 << 20)
#define BUCKETS 16 /* pending blobs by their first four bits: each is sorted and looked up alone */
#define LOOKUP 4096
#define QUEUE_MAX 64

/* the byte in the set */
#define MARK_WALKED 1u  /* queued as a tree */
#define MARK_MISSING 2u /* is in the list of the missing */

struct place {
    struct digest id;
    struct loc loc;
};

struct places {
    struct place *v;
    size_t n, cap;
};

struct mark {
    struct store *st;
    struct pool *pool;
    struct idset *ids;
    struct idlist trees;          /* to be walked */
    struct idlist blobs[BUCKETS]; /* to be looked up */
    size_t blob_count;
    struct places recipes; /* to be read */
    struct idlist missing;
    struct idlist *log;
    bool lenient;
};

enum err_code mark_new(struct store *st, struct mark **out, struct err *err)
{
    struct mark *m;
    enum err_code rc;

    CHECK(st);
    CHECK(out);
    *out = NULL;
    m = mem_zero(1, sizeof(*m));
    m->st = st;
    m->ids = idset_new();
    rc = pool_new(st->threads, QUEUE_MAX, &m->pool, err);
    if (rc) {
        mark_free(m);
        return rc;
    }
    *out = m;
    return OK;
}

void mark_free(struct mark *m)
{
    if (!m)
        return;
    pool_free(m->pool);
    idset_free(m->ids);
    idlist_release(&m->trees);
    for (int i = 0; i < BUCKETS; i++)
        idlist_release(&m->blobs[i]);
    free(m->recipes.v);
    idlist_release(&m->missing);
    free(m);
}

void mark_lenient(struct mark *m)
{
    m->lenient = true;
}

void mark_log(struct mark *m, struct idlist *log)
{
    m->log = log;
}

const struct idset *mark_ids(const struct mark *m)
{
    return m->ids;
}

bool mark_has(const struct mark *m, const struct digest *id)
{
    return idset_has(m->ids, id);
}

int64_t mark_count(const struct mark *m)
{
    return idset_count(m->ids);
}

const struct digest *mark_missing(const struct mark *m, size_t *count)
{
    *count = m->missing.n;
    return m->missing.v;
}

void mark_add(struct mark *m, enum obj_kind kind, const struct digest *id)
{
    uint8_t *byte;
    bool added;

    CHECK(m);
    CHECK(kind == OBJ_BLOB || kind == OBJ_TREE);
    byte = idset_add(m->ids, id, &added);
    if (added && m->log)
        idlist_add(m->log, id);
    /* The same bytes may be met as a blob first and as a directory later. */
    if (kind == OBJ_TREE && !(*byte & MARK_WALKED)) {
        *byte |= MARK_WALKED;
        idlist_add(&m->trees, id);
    } else if (added) {
        idlist_add(&m->blobs[id->b[0] / (256 / BUCKETS)], id);
        m->blob_count++;
    }
}

static void add_missing(struct mark *m, const struct digest *id)
{
    uint8_t *byte = idset_find(m->ids, id);

    if (*byte & MARK_MISSING)
        return;
    *byte |= MARK_MISSING;
    idlist_add(&m->missing, id);
}

static void place_add(struct places *p, const struct digest *id, const struct loc *loc)
{
    if (p->n == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 64;
        p->v = mem_grow(p->v, p->cap, sizeof(*p->v));
    }
    p->v[p->n++] = (struct place){*id, *loc};
}

static int by_place(const void *a, const void *b)
{
    const struct loc *x = &((const struct place *)a)->loc, *y = &((const struct place *)b)->loc;

    if (x->pack != y->pack)
        return x->pack < y->pack ? -1 : 1;
    if (x->off != y->off)
        return x->off < y->off ? -1 : 1;
    return x->pos < y->pos ? -1 : x->pos > y->pos;
}

/* ---- in the threads: read, and note what was found ---------------------------------------------- */

struct read_job {
    struct store *st;
    const struct place *places;
    size_t n;
    bool lenient;
    struct idlist blobs, trees, missing;
};

/* A copy that moved while we looked (a gc beside a push) is looked for again by object_read. */
static enum err_code read_object(struct store *st, const struct place *p, struct buf *bytes,
                                 struct err *err)
{
    enum err_code rc = ERR_NOT_FOUND;

    if (p->loc.type == LOC_BLOB || p->loc.type == LOC_FRAME)
        rc = object_chunk(st, &p->id, &p->loc, bytes, err);
    if (rc == ERR_NOT_FOUND) {
        *err = (struct err)ERR_INIT;
        buf_clear(bytes);
        rc = object_read(st, &p->id, TREE_BYTES_MAX, bytes, err);
    }
    return rc;
}

static enum err_code read_tree(struct read_job *job, const struct place *p, struct buf *bytes,
                               struct tree *t, struct err *err)
{
    struct err form = ERR_INIT;
    char text[DIGEST_TEXT + 1];
    enum err_code rc;

    buf_clear(bytes);
    rc = read_object(job->st, p, bytes, err);
    if (rc)
        return rc;
    digest_text(&p->id, text);
    tree_release(t);
    tree_init(t);
    /* The bytes are those that were stored.  If they are no manifest, nobody can use them as a directory and they name nothing. */
    if (tree_decode(bytes->p ? bytes->p : "", bytes->n, -1, text, t, &form) != OK)
        return OK;
    for (size_t i = 0; i < t->count; i++)
        if (t->entries[i].mode == TREE_DIR)
            idlist_add(&job->trees, &t->entries[i].digest);
        else if (t->entries[i].mode != TREE_LINK)
            idlist_add(&job->blobs, &t->entries[i].digest);
    return OK;
}

/* What one object lacks is collected; only what keeps us from reading at all stops the walk. */
static enum err_code note_failure(struct read_job *job, const struct place *p, enum err_code rc,
                                  struct err *err)
{
    if (rc != ERR_NOT_FOUND && !(job->lenient && rc == ERR_DAMAGED))
        return rc;
    *err = (struct err)ERR_INIT;
    idlist_add(&job->missing, &p->id);
    return OK;
}

static enum err_code read_trees(void *arg, bool cancelled, struct err *err)
{
    struct read_job *job = arg;
    struct tree t = {0};
    struct buf bytes;
    enum err_code rc = OK;

    buf_init(&bytes, TREE_BYTES_MAX);
    for (size_t i = 0; !cancelled && !rc && i < job->n; i++) {
        rc = read_tree(job, &job->places[i], &bytes, &t, err);
        if (rc)
            rc = note_failure(job, &job->places[i], rc, err);
    }
    tree_release(&t);
    buf_release(&bytes);
    return rc;
}

static enum err_code read_recipes(void *arg, bool cancelled, struct err *err)
{
    struct read_job *job = arg;
    struct recipe_chunk *chunks;
    enum err_code rc = OK;
    size_t count;

    for (size_t i = 0; !cancelled && !rc && i < job->n; i++) {
        chunks = NULL;
        count = 0;
        rc = object_chunks(job->st, &job->places[i].id, &chunks, &count, err);
        for (size_t c = 0; !rc && c < count; c++)
            idlist_add(&job->blobs, &chunks[c].id);
        free(chunks);
        if (rc)
            rc = note_failure(job, &job->places[i], rc, err);
    }
    return rc;
}

/* Places are in the order of the packs; each job gets a run of neighbours. */
static enum err_code read_places(struct mark *m, pool_fn fn, const struct place *places, size_t n,
                                 struct err *err)
{
    const size_t want = (size_t)m->st->threads * 4;
    const size_t count = n < want ? n : want;
    struct read_job *jobs = mem_zero(count, sizeof(*jobs));
    enum err_code rc;

    for (size_t i = 0; i < count; i++) {
        const size_t from = n * i / count, to = n * (i + 1) / count;

        jobs[i].st = m->st;
        jobs[i].places = places + from;
        jobs[i].n = to - from;
        jobs[i].lenient = m->lenient;
        pool_submit(m->pool, fn, &jobs[i]);
    }
    rc = pool_wait(m->pool, err);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; !rc && k < jobs[i].trees.n; k++)
            mark_add(m, OBJ_TREE, &jobs[i].trees.v[k]);
        for (size_t k = 0; !rc && k < jobs[i].blobs.n; k++)
            mark_add(m, OBJ_BLOB, &jobs[i].blobs.v[k]);
        for (size_t k = 0; !rc && k < jobs[i].missing.n; k++)
            add_missing(m, &jobs[i].missing.v[k]);
        idlist_release(&jobs[i].trees);
        idlist_release(&jobs[i].blobs);
        idlist_release(&jobs[i].missing);
    }
    free(jobs);
    return rc;
}

/* ---- trees ------------------------------------------------------------------------------------- */

/* Where they are; what is in no place is missing. */
static enum err_code locate(struct mark *m, const struct idlist *ids, struct places *out,
                            struct err *err)
{
    struct loc *locs = mem_alloc((ids->n + 1) * sizeof(*locs));
    enum err_code rc = index_get(m->st->index, ids->v, ids->n, locs, err);

    for (size_t i = 0; !rc && i < ids->n; i++)
        if (locs[i].type == 0)
            add_missing(m, &ids->v[i]);
        else
            place_add(out, &ids->v[i], &locs[i]);
    free(locs);
    return rc;
}

static enum err_code walk_trees(struct mark *m, struct err *err)
{
    const size_t n = m->trees.n < FRONTIER_MAX ? m->trees.n : FRONTIER_MAX;
    struct places found = {0};
    struct idlist now = {0};
    enum err_code rc;

    for (size_t i = 0; i < n; i++)
        idlist_add(&now, &m->trees.v[m->trees.n - n + i]);
    m->trees.n -= n;
    idlist_sort(&now);
    rc = locate(m, &now, &found, err);
    if (!rc && found.n > 0)
        qsort(found.v, found.n, sizeof(*found.v), by_place);
    for (size_t i = 0; !rc && i < found.n; i++)
        if (found.v[i].loc.type == LOC_RECIPE)
            place_add(&m->recipes, &found.v[i].id, &found.v[i].loc);
    for (size_t at = 0; !rc && at < found.n; at += TREE_BATCH)
        rc = read_places(m, read_trees, found.v + at,
                         found.n - at < TREE_BATCH ? found.n - at : TREE_BATCH, err);
    idlist_release(&now);
    free(found.v);
    return rc;
}

/* ---- blobs ------------------------------------------------------------------------------------- */

struct lookup_job {
    struct store *st;
    struct idlist ids;
    struct places recipes;
    struct idlist missing;
};

static enum err_code look_up(void *arg, bool cancelled, struct err *err)
{
    struct lookup_job *job = arg;
    struct loc *locs;
    enum err_code rc = OK;

    if (cancelled)
        return OK;
    locs = mem_alloc(LOOKUP * sizeof(*locs));
    idlist_sort(&job->ids);
    for (size_t at = 0; !rc && at < job->ids.n; at += LOOKUP) {
        const size_t n = job->ids.n - at < LOOKUP ? job->ids.n - at : LOOKUP;
        const struct digest *ids = job->ids.v + at;

        rc = index_get(job->st->index, ids, n, locs, err);
        for (size_t i = 0; !rc && i < n; i++)
            if (locs[i].type == 0)
                idlist_add(&job->missing, &ids[i]);
            else if (locs[i].type == LOC_RECIPE)
                place_add(&job->recipes, &ids[i], &locs[i]);
    }
    free(locs);
    return rc;
}

static enum err_code look_up_blobs(struct mark *m, struct err *err)
{
    struct lookup_job jobs[BUCKETS] = {0};
    enum err_code rc;

    for (int i = 0; i < BUCKETS; i++) {
        jobs[i].st = m->st;
        jobs[i].ids = m->blobs[i];
        m->blobs[i] = (struct idlist){0};
        if (jobs[i].ids.n > 0)
            pool_submit(m->pool, look_up, &jobs[i]);
    }
    m->blob_count = 0;
    rc = pool_wait(m->pool, err);
    for (int i = 0; i < BUCKETS; i++) {
        for (size_t k = 0; !rc && k < jobs[i].missing.n; k++)
            add_missing(m, &jobs[i].missing.v[k]);
        for (size_t k = 0; !rc && k < jobs[i].recipes.n; k++)
            place_add(&m->recipes, &jobs[i].recipes.v[k].id, &jobs[i].recipes.v[k].loc);
        idlist_release(&jobs[i].ids);
        idlist_release(&jobs[i].missing);
        free(jobs[i].recipes.v);
    }
    return rc;
}

static enum err_code walk_recipes(struct mark *m, struct err *err)
{
    struct places now = m->recipes;
    enum err_code rc;

    m->recipes = (struct places){0};
    qsort(now.v, now.n, sizeof(*now.v), by_place);
    rc = read_places(m, read_recipes, now.v, now.n, err);
    free(now.v);
    return rc;
}

enum err_code mark_run(struct mark *m, struct err *err)
{
    enum err_code rc = OK;

    CHECK(m);
    while (!rc && (m->trees.n > 0 || m->blob_count > 0 || m->recipes.n > 0)) {
        if (m->blob_count >= BLOB_BATCH || (m->trees.n == 0 && m->blob_count > 0))
            rc = look_up_blobs(m, err);
        else if (m->trees.n > 0)
            rc = walk_trees(m, err);
        else
            rc = walk_recipes(m, err);
    }
    return rc;
}

enum err_code mark_root(struct mark *m, enum obj_kind kind, const struct digest *id,
                        struct err *err)
{
    mark_add(m, kind, id);
    return mark_run(m, err);
}
