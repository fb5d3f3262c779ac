/* Open objects: ranges, copies, tensors.  An object is read from its whole loose file when there is one, chunk by chunk along its
 * recipe, or, when it has neither, from memory: then it is at most CODEC_RAW_MAX long. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "base/pool.h"
#include "store/cut.h"
#include "store/loose.h"
#include "store/reader.h"
#include "store/reader_fetch.h"

#define STEP ((size_t)1 << 20)
#define HEAD_BYTES 9 /* the length of a header and its brace: no byte of the first tensor's chunk */
#define PARALLEL_MIN (8 << 20) /* below, starting threads costs more than it brings */

struct object {
    struct store *st;
    struct digest id;
    struct loc loc;
    int64_t size;
    int fd;                      /* of the loose file, or -1 */
    const struct record *recipe; /* NULL: in one piece */
    char *whole;                 /* no recipe, no loose file */
    char *chunk;                 /* the last chunk that was read in part */
    size_t chunk_room, chunk_index;
    bool chunk_valid;
};

void object_close(struct object *o)
{
    if (!o)
        return;
    record_put(o->st, o->recipe);
    os_close_quiet(&o->fd);
    free(o->whole);
    free(o->chunk);
    free(o);
}

int64_t object_bytes(const struct object *o)
{
    return o->size;
}

/* ---- opening ----------------------------------------------------------------------------------- */

/* Without a recipe nothing less than the whole file can be compared with anything. */
static enum err_code hash_whole(struct object *o, struct err *err)
{
    void *step = mem_alloc(STEP);
    struct sha256 hash = {0};
    struct digest is;
    enum err_code rc = OK;

    sha256_init(&hash);
    for (int64_t off = 0; !rc && off < o->size;) {
        const size_t n = o->size - off < (int64_t)STEP ? (size_t)(o->size - off) : STEP;

        rc = os_pread_all(o->fd, step, n, off, err);
        if (!rc)
            sha256_update(&hash, step, n);
        off += (int64_t)n;
    }
    sha256_final(&hash, &is);
    sha256_release(&hash);
    free(step);
    if (!rc && !digest_eq(&is, &o->id))
        rc = fetch_damaged(o->st, &o->id, &o->loc, "holds other bytes", err);
    return rc;
}

/* A packed object may still have its loose file: reading that needs no decoding.  When it has none, or a bad one, the packs have the
 * bytes. */
static enum err_code open_hot(struct object *o, struct err *err)
{
    enum err_code rc;

    if (o->loc.type != LOC_LOOSE && (o->loc.type != LOC_RECIPE || !o->recipe))
        return OK;
    rc = loose_open(o->st, &o->id, o->size, &o->fd, err);
    if (o->loc.type == LOC_RECIPE && (rc == ERR_NOT_FOUND || rc == ERR_DAMAGED))
        rc = OK;
    return rc;
}

static enum err_code open_once(struct object *o, struct err *err)
{
    enum err_code rc;

    rc = object_locate(o->st, &o->id, 1, &o->loc, err);
    if (rc)
        return rc;
    if (o->loc.type == 0)
        return fetch_absent(&o->id, err);
    o->size = (int64_t)o->loc.raw;
    rc = fetch_recipe_of(o->st, &o->id, &o->loc, &o->recipe, err);
    if (!rc)
        rc = open_hot(o, err);
    if (rc || o->recipe)
        return rc;
    if (o->fd >= 0)
        return hash_whole(o, err);
    if (o->size > CODEC_RAW_MAX)
        return fetch_damaged(o->st, &o->id, &o->loc, "is longer than a blob may be", err);
    o->whole = mem_alloc((size_t)o->size);
    return fetch_object(o->st, &o->id, o->loc.raw, 0, o->whole, err);
}

static struct object *object_new(struct store *st, const struct digest *id)
{
    struct object *o = mem_zero(1, sizeof(*o));

    o->st = st;
    o->id = *id;
    o->fd = -1;
    return o;
}

enum err_code object_open(struct store *st, const struct digest *id, struct object **out,
                          struct err *err)
{
    enum err_code rc = OK;

    CHECK(st);
    CHECK(out);
    *out = NULL;
    for (int i = 0; i < 2; i++) {
        struct object *o = object_new(st, id);
        const struct loc absent = {0};

        rc = open_once(o, err);
        if (!rc) {
            *out = o;
            return OK;
        }

        const struct loc loc = o->loc;

        object_close(o);
        if (!fetch_stale(rc, err) || loc.type == absent.type)
            return rc;
        if (i > 0)
            rc = fetch_gone(st, id, &loc, err);
    }
    return rc;
}

/* ---- reading ----------------------------------------------------------------------------------- */

/* Chunk i, whole, verified.  Only reads o: safe from several threads. */
static enum err_code read_chunk(const struct object *o, size_t i, void *p, struct err *err)
{
    const struct recipe_chunk *chunk = &o->recipe->chunks[i];
    struct loc loc = o->loc;
    enum err_code rc;

    if (o->fd < 0)
        return fetch_object(o->st, &chunk->id, chunk->len, 1, p, err);
    loc.raw = chunk->len;
    rc = os_pread_all(o->fd, p, chunk->len, o->recipe->offs[i], err);
    if (!rc)
        rc = fetch_verify_at(o->st, &o->id, &chunk->id, &loc, p, err);
    if (rc == ERR_DAMAGED && o->loc.type == LOC_RECIPE)
        rc = fetch_object(o->st, &chunk->id, chunk->len, 1, p, err);
    return rc;
}

/* The chunk that holds off. */
static size_t chunk_at(const struct record *r, int64_t off)
{
    size_t low = 0, high = r->count;

    while (high - low > 1) {
        const size_t mid = low + (high - low) / 2;

        if (r->offs[mid] <= off)
            low = mid;
        else
            high = mid;
    }
    return low;
}

static enum err_code keep_chunk(struct object *o, size_t i, struct err *err)
{
    const size_t len = o->recipe->chunks[i].len;
    enum err_code rc;

    if (o->chunk_valid && o->chunk_index == i)
        return OK;
    if (len > o->chunk_room) {
        o->chunk = mem_grow(o->chunk, len, 1);
        o->chunk_room = len;
    }
    o->chunk_valid = false;
    rc = read_chunk(o, i, o->chunk, err);
    o->chunk_valid = rc == OK;
    o->chunk_index = i;
    return rc;
}

static enum err_code pread_chunks(struct object *o, char *p, size_t n, int64_t off, struct err *err)
{
    const struct record *r = o->recipe;
    enum err_code rc = OK;

    for (size_t i = chunk_at(r, off); !rc && n > 0; i++) {
        const size_t skip = (size_t)(off - r->offs[i]), left = r->chunks[i].len - skip;
        const size_t take = left < n ? left : n;

        if (take == r->chunks[i].len) {
            rc = read_chunk(o, i, p, err);
        } else if (take > 0) {
            rc = keep_chunk(o, i, err);
            if (!rc)
                memcpy(p, o->chunk + skip, take);
        }
        p += take;
        off += (int64_t)take;
        n -= take;
    }
    return rc;
}

enum err_code object_pread(struct object *o, void *p, size_t n, int64_t off, struct err *err)
{
    char text[DIGEST_TEXT + 1];

    CHECK(o);
    CHECK(p || n == 0);
    if (off < 0 || off > o->size || (uint64_t)n > (uint64_t)(o->size - off)) {
        digest_text(&o->id, text);
        return err_set(err, ERR_INPUT, "object %s has %lld bytes; %zu at offset %lld are not in it",
                       text, (long long)o->size, n, (long long)off);
    }
    if (n == 0)
        return OK;
    if (o->recipe)
        return pread_chunks(o, p, n, off, err);
    if (o->fd >= 0)
        return os_pread_all(o->fd, p, n, off, err);
    memcpy(p, o->whole + off, n);
    return OK;
}

/* ---- copying ----------------------------------------------------------------------------------- */

struct copy {
    struct object *o;
    int fd;
    struct progress *progress;
    atomic_size_t next; /* the chunk that nobody has taken yet */
    atomic_bool stop;
    size_t room; /* of the longest chunk */
};

/* Threads take chunks as they become free: chunks differ in size, and so do the costs of decoding them. */
static enum err_code copy_chunks(void *arg, bool cancelled, struct err *err)
{
    struct copy *c = arg;
    const struct record *r = c->o->recipe;
    char *chunk = mem_alloc(c->room);
    enum err_code rc = OK;

    while (!cancelled && !rc && !atomic_load(&c->stop)) {
        const size_t i = atomic_fetch_add(&c->next, 1);

        if (i >= r->count)
            break;
        rc = read_chunk(c->o, i, chunk, err);
        if (!rc)
            rc = os_pwrite(c->fd, chunk, r->chunks[i].len, r->offs[i], err);
        if (!rc)
            progress_add(c->progress, r->chunks[i].len);
    }
    if (rc)
        atomic_store(&c->stop, true);
    free(chunk);
    return rc;
}

static enum err_code copy_recipe(struct object *o, int fd, int threads, struct progress *pr,
                                 struct err *err)
{
    struct copy c = {.o = o, .fd = fd, .progress = pr};
    struct pool *pool = NULL;
    enum err_code rc;

    for (size_t i = 0; i < o->recipe->count; i++)
        if (o->recipe->chunks[i].len > c.room)
            c.room = o->recipe->chunks[i].len;
    if (threads < 2 || o->recipe->count < 2 || o->size < PARALLEL_MIN)
        return copy_chunks(&c, false, err);
    rc = pool_new(threads, threads, &pool, err);
    if (rc)
        return rc;
    for (int i = 0; i < threads; i++)
        pool_submit(pool, copy_chunks, &c);
    rc = pool_wait(pool, err);
    pool_free(pool);
    return rc;
}

static enum err_code copy_plain(struct object *o, int fd, struct progress *pr, struct err *err)
{
    const int64_t step_max = o->whole ? o->size : (int64_t)STEP;
    char *step = o->whole ? NULL : mem_alloc(STEP);
    struct sha256 hash = {0};
    struct digest is;
    enum err_code rc = OK;

    /* A loose file was hashed when it was opened, but what is copied is what counts. */
    sha256_init(&hash);
    for (int64_t off = 0; !rc && off < o->size;) {
        const size_t n = (size_t)(o->size - off < step_max ? o->size - off : step_max);
        const char *from = o->whole ? o->whole : step;

        if (step)
            rc = os_pread_all(o->fd, step, n, off, err);
        if (!rc && step)
            sha256_update(&hash, from, n);
        if (!rc)
            rc = os_pwrite(fd, from, n, off, err);
        if (!rc)
            progress_add(pr, (int64_t)n);
        off += (int64_t)n;
    }
    sha256_final(&hash, &is);
    sha256_release(&hash);
    if (!rc && step && !digest_eq(&is, &o->id))
        rc = fetch_damaged(o->st, &o->id, &o->loc, "holds other bytes", err);
    free(step);
    return rc;
}

enum err_code fetch_copy(struct store *st, const struct digest *id, int fd, int threads,
                         struct progress *pr, struct err *err)
{
    struct object *o = NULL;
    enum err_code rc;

    rc = object_open(st, id, &o, err);
    if (rc)
        return rc;
    CHECK(o);
    if (o->recipe)
        rc = copy_recipe(o, fd, threads, pr, err);
    else
        rc = copy_plain(o, fd, pr, err);
    object_close(o);
    return rc;
}

enum err_code object_copy(struct store *st, const struct digest *id, int fd, struct progress *pr,
                          struct err *err)
{
    CHECK(st);
    CHECK(fd >= 0);
    return fetch_copy(st, id, fd, st->threads, pr, err);
}

/* ---- tensors ----------------------------------------------------------------------------------- */

static enum err_code read_head(struct object *o, struct buf *head, struct err *err)
{
    const size_t first = o->size < HEAD_BYTES ? (size_t)o->size : HEAD_BYTES;
    size_t wanted;
    enum err_code rc;
    char *p;

    p = buf_room(head, first);
    CHECK(p);
    rc = object_pread(o, p, first, 0, err);
    if (rc)
        return rc;
    wanted = cut_head_wanted(head->p, first, o->size);
    if ((int64_t)wanted > o->size)
        wanted = (size_t)o->size;
    if (wanted <= first)
        return OK;
    p = buf_room(head, wanted - first);
    if (!p)
        return buf_check(head, "the header of a safetensors file", err);
    return object_pread(o, p, wanted - first, (int64_t)first, err);
}

enum err_code object_tensor(struct store *st, const struct digest *id, const char *name,
                            struct tensor_span *span, struct buf *out, int64_t max, struct err *err)
{
    struct object *o = NULL;
    struct tensor_span at;
    struct buf head;
    enum err_code rc;
    void *room;

    CHECK(name);
    rc = object_open(st, id, &o, err);
    if (rc)
        return rc;
    CHECK(o);
    buf_init(&head, CUT_HEADER_MAX + HEAD_BYTES);
    rc = read_head(o, &head, err);
    if (!rc)
        rc = safetensors_find(head.p, head.n, o->size, name, &at, err);
    if (rc)
        goto out;
    room = at.len > max ? NULL : buf_room(out, (size_t)at.len);
    if (!room) {
        rc = err_set(err, ERR_LIMIT, "tensor %s has %lld bytes, at most %lld are allowed here",
                     name, (long long)at.len, (long long)max);
        goto out;
    }
    rc = object_pread(o, room, (size_t)at.len, at.off, err);
    if (rc)
        out->n -= (size_t)at.len;
    else if (span)
        *span = at;
out:
    object_close(o);
    buf_release(&head);
    return rc;
}
