#include "store/compact_loose.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "base/pool.h"
#include "store/cut.h"
#include "store/gc_internal.h"
#include "store/loose.h"
#include "store/pack_cache.h"

#define PENDING_BYTES (256 << 20) /* contents of objects whose recipes wait for their chunks */
#define FIRST_BYTES 512           /* what cut_head_wanted looks at */
#define READ_STEP (256 << 10)     /* hashed while it is still in the processor's cache */

struct object_packed {
    struct digest id;
    uint8_t flags;
    uint64_t raw;
    struct recipe_chunk **chunks; /* each filled in by the job that has it */
    size_t count, cap;
};

struct packer {
    struct store *st;
    struct evac *evac;
    struct pool *pool;
    struct object_packed **pending;
    size_t pending_count, pending_cap;
    int64_t pending_bytes;
};

enum err_code packer_new(struct store *st, struct evac *evac, struct packer **out, struct err *err)
{
    struct packer *p = mem_zero(1, sizeof(*p));
    enum err_code rc;

    CHECK(out);
    *out = NULL;
    p->st = st;
    p->evac = evac;
    rc = pool_new(st->threads, st->threads, &p->pool, err);
    if (rc) {
        packer_free(p);
        return rc;
    }
    *out = p;
    return OK;
}

static void object_free(struct object_packed *o)
{
    for (size_t i = 0; i < o->count; i++)
        free(o->chunks[i]);
    free(o->chunks);
    free(o);
}

void packer_free(struct packer *p)
{
    if (!p)
        return;
    pool_free(p->pool);
    for (size_t i = 0; i < p->pending_count; i++)
        object_free(p->pending[i]);
    free(p->pending);
    free(p);
}

/* ---- one chunk, in a thread -------------------------------------------------------------------- */

struct chunk_job {
    struct packer *p;
    struct digest object;
    uint8_t flags; /* of the object */
    struct recipe_chunk *chunk;
    bool known; /* the chunk's id comes from a recipe */
    char *bytes;
};

static enum err_code damaged(const struct digest *id, const char *what, struct err *err)
{
    char text[DIGEST_TEXT + 1];

    digest_text(id, text);
    return err_set(err, ERR_DAMAGED, "loose object %s %s; nothing was replaced, run weir fsck",
                   text, what);
}

/* Is it a record of its own already?  A slice of a loose file does not count: that file may be the next to be packed. */
static enum err_code is_stored(struct packer *p, const struct digest *id, bool *stored,
                               struct err *err)
{
    struct loc loc;
    enum err_code rc;

    *stored = evac_has(p->evac, id);
    if (*stored)
        return OK;
    rc = index_get(p->st->index, id, 1, &loc, err);
    *stored = !rc && (loc.type == LOC_BLOB || loc.type == LOC_FRAME);
    return rc;
}

static enum err_code encode_chunk(struct chunk_job *job, struct err *err)
{
    const size_t n = job->chunk->len;
    struct pack_entry e = {.id = job->chunk->id, .type = REC_BLOB, .raw = n};
    struct codec *codec = NULL;
    struct buf packed;
    enum enc enc = ENC_RAW;
    enum err_code rc;

    buf_init(&packed, (size_t)2 * CODEC_RAW_MAX);
    rc = codec_get(job->p->st, &codec, err);
    if (!rc)
        rc = codec_best(codec, (enum hint)job->chunk->hint, GC_LEVEL, job->bytes, n, &enc, &packed,
                        err);
    codec_put(job->p->st, codec);
    e.enc = (uint8_t)enc;
    if (digest_eq(&e.id, &job->object)) /* a file of one chunk is a blob, and needs no recipe */
        e.flags = job->flags;
    if (!rc)
        rc = enc == ENC_RAW ? evac_put(job->p->evac, &e, job->bytes, n, err)
                            : evac_put(job->p->evac, &e, packed.p, packed.n, err);
    buf_release(&packed);
    return rc;
}

static enum err_code store_chunk(void *arg, bool cancelled, struct err *err)
{
    struct chunk_job *job = arg;
    bool stored = false;
    enum err_code rc = OK;
    struct digest is;

    if (!cancelled) {
        sha256_of(job->bytes, job->chunk->len, &is);
        if (job->known && !digest_eq(&is, &job->chunk->id))
            rc = damaged(&job->object, "holds other bytes than its recipe says", err);
        job->chunk->id = is;
    }
    if (!cancelled && !rc)
        rc = is_stored(job->p, &is, &stored, err);
    if (!cancelled && !rc && !stored)
        rc = encode_chunk(job, err);
    free(job->bytes);
    free(job);
    return rc;
}

/* ---- one file ---------------------------------------------------------------------------------- */

struct source {
    struct packer *p;
    struct object_packed *o;
    struct progress *progress;
    int fd;
    int64_t at; /* read and hashed so far */
    struct sha256 hash;
};

/* Whoever reads through us does not use the object: its atime, by which cold ones are told, stays.  Only the owner of a file may
 * ask for that. */
static enum err_code open_cold(struct store *st, const struct digest *id, int *fd, struct err *err)
{
    char name[LOOSE_NAME];
    enum err_code rc;

    loose_name(id, name);
    rc = os_open(st->loose, name, O_RDONLY | O_NOFOLLOW | O_NOATIME, 0, fd, err);
    if (rc == ERR_DENIED) {
        *err = (struct err)ERR_INIT;
        rc = os_open(st->loose, name, O_RDONLY | O_NOFOLLOW, 0, fd, err);
    }
    return rc == ERR_NOT_FOUND ? damaged(id, "is gone", err) : rc;
}

/* The next n bytes of the file, in order. */
static enum err_code read_next(struct source *s, char *out, size_t n, struct err *err)
{
    enum err_code rc = OK;

    for (size_t done = 0; !rc && done < n;) {
        const size_t step = n - done < READ_STEP ? n - done : READ_STEP;

        rc = os_pread_all(s->fd, out + done, step, s->at, err);
        if (!rc)
            sha256_update(&s->hash, out + done, step);
        s->at += (int64_t)step;
        done += step;
    }
    progress_add(s->progress, rc ? 0 : (int64_t)n);
    return rc;
}

static struct recipe_chunk *add_chunk(struct object_packed *o, size_t n, enum hint hint)
{
    struct recipe_chunk *c = mem_zero(1, sizeof(*c));

    if (o->count == o->cap) {
        o->cap = o->cap ? o->cap * 2 : 64;
        o->chunks = mem_grow(o->chunks, o->cap, sizeof(struct recipe_chunk *));
    }
    c->len = (uint32_t)n;
    c->hint = (uint8_t)hint;
    o->chunks[o->count++] = c;
    return c;
}

/* bytes belongs to the job from here on.  id: NULL, or what a recipe says. */
static void submit(struct source *s, char *bytes, size_t n, enum hint hint, const struct digest *id)
{
    struct chunk_job *job = mem_zero(1, sizeof(*job));

    *job = (struct chunk_job){.p = s->p,
                              .object = s->o->id,
                              .flags = s->o->flags,
                              .chunk = add_chunk(s->o, n, hint),
                              .known = id != NULL,
                              .bytes = bytes};
    if (id)
        job->chunk->id = *id;
    pool_submit(s->p->pool, store_chunk, job);
}

static enum err_code read_by_recipe(struct source *s, const struct record *r, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < r->count; i++) {
        const struct recipe_chunk *c = &r->chunks[i];
        char *bytes;

        if (c->len > CODEC_RAW_MAX)
            return damaged(&s->o->id, "has a recipe with a chunk that is too long", err);
        bytes = mem_alloc(c->len + 1);
        rc = read_next(s, bytes, c->len, err);
        if (rc)
            free(bytes);
        else
            submit(s, bytes, c->len, (enum hint)c->hint, &c->id);
    }
    return rc;
}

/* A window over the file: the cutter wants to see CUT_CHUNK_MAX bytes ahead. */
static enum err_code read_by_cutter(struct source *s, struct cutter *cutter, struct err *err)
{
    const size_t room = (size_t)2 * CUT_CHUNK_MAX;
    char *window = mem_alloc(room);
    size_t from = 0, to = 0;
    enum err_code rc = OK;

    while (!rc) {
        int64_t more = (int64_t)s->o->raw - s->at;
        enum hint hint = HINT_NONE;
        size_t n;

        if (to - from < CUT_CHUNK_MAX && more > 0) {
            memmove(window, window + from, to - from);
            to -= from;
            from = 0;
            more = more < (int64_t)(room - to) ? more : (int64_t)(room - to);
            rc = read_next(s, window + to, (size_t)more, err);
            to += rc ? 0 : (size_t)more;
        }
        if (rc || from == to)
            break;
        n = cut_next(cutter, window + from, to - from < CUT_CHUNK_MAX ? to - from : CUT_CHUNK_MAX,
                     &hint);
        CHECK(n > 0 && n <= to - from);

        char *bytes = mem_alloc(n);

        memcpy(bytes, window + from, n);
        from += n;
        submit(s, bytes, n, hint, NULL);
    }
    free(window);
    return rc;
}

static enum err_code make_cutter(struct source *s, struct cutter **out, struct err *err)
{
    char first[FIRST_BYTES];
    size_t n = s->o->raw < FIRST_BYTES ? (size_t)s->o->raw : FIRST_BYTES, wanted;
    char *head;
    enum err_code rc;

    *out = NULL;
    rc = os_pread_all(s->fd, first, n, 0, err);
    if (rc)
        return rc;
    wanted = cut_head_wanted(first, n, (int64_t)s->o->raw);
    if (wanted > s->o->raw)
        wanted = (size_t)s->o->raw;
    head = mem_alloc(wanted + 1);
    rc = os_pread_all(s->fd, head, wanted, 0, err);
    if (!rc)
        *out = cut_new(head, wanted, (int64_t)s->o->raw);
    free(head);
    return rc;
}

static enum err_code read_all(struct source *s, const struct loc *loc, struct err *err)
{
    const struct record *r = NULL;
    struct cutter *cutter = NULL;
    struct digest is;
    struct stat info;
    enum err_code rc;

    rc = os_stat(s->fd, &info, err);
    if (!rc && (!S_ISREG(info.st_mode) || (uint64_t)info.st_size != s->o->raw))
        rc = damaged(&s->o->id, "has the wrong size", err);
    if (!rc)
        rc = record_get(s->p->st, loc->pack, loc->off, &r, err);
    if (!rc && r->count > 0) {
        rc = read_by_recipe(s, r, err);
    } else if (!rc) {
        rc = make_cutter(s, &cutter, err);
        if (!rc)
            rc = read_by_cutter(s, cutter, err);
    }
    cut_free(cutter);
    record_put(s->p->st, r);
    sha256_final(&s->hash, &is);
    if (!rc && !digest_eq(&is, &s->o->id))
        rc = damaged(&s->o->id, "holds other bytes than its name says", err);
    return rc;
}

static enum err_code put_recipe(struct packer *p, const struct object_packed *o, struct err *err)
{
    struct pack_entry e = {.id = o->id, .type = REC_RECIPE, .flags = o->flags, .raw = o->raw};
    struct recipe_chunk *chunks;
    struct buf payload;
    enum err_code rc;

    if (o->count == 1)
        return OK;
    buf_init(&payload, PACK_PAYLOAD_MAX);
    if (o->count == 0) {
        e.type = REC_BLOB;
    } else {
        chunks = mem_alloc(o->count * sizeof(*chunks));
        for (size_t i = 0; i < o->count; i++)
            chunks[i] = *o->chunks[i];
        recipe_encode(&o->id, chunks, o->count, &payload);
        free(chunks);
    }
    rc = buf_check(&payload, "recipe", err);
    if (!rc)
        rc = evac_put(p->evac, &e, payload.p, payload.n, err);
    buf_release(&payload);
    return rc;
}

/* All chunks are in the packs: now what refers to them. */
static enum err_code put_recipes(struct packer *p, struct err *err)
{
    enum err_code rc = pool_wait(p->pool, err);

    for (size_t i = 0; i < p->pending_count; i++) {
        if (!rc)
            rc = put_recipe(p, p->pending[i], err);
        object_free(p->pending[i]);
    }
    p->pending_count = 0;
    p->pending_bytes = 0;
    return rc;
}

enum err_code packer_add(struct packer *p, const struct digest *id, const struct loc *loc,
                         struct progress *pr, struct err *err)
{
    struct source s = {.p = p, .progress = pr, .fd = -1};
    enum err_code rc;

    CHECK(loc->type == LOC_LOOSE);
    s.o = mem_zero(1, sizeof(*s.o));
    s.o->id = *id;
    s.o->flags = loc->flags;
    s.o->raw = loc->raw;
    sha256_init(&s.hash);
    rc = open_cold(p->st, id, &s.fd, err);
    if (!rc)
        rc = read_all(&s, loc, err);
    os_close_quiet(&s.fd);
    sha256_release(&s.hash);
    /* Also after an error: jobs still write into it. */
    if (p->pending_count == p->pending_cap) {
        p->pending_cap = p->pending_cap ? p->pending_cap * 2 : 64;
        p->pending = mem_grow(p->pending, p->pending_cap, sizeof(struct object_packed *));
    }
    p->pending[p->pending_count++] = s.o;
    p->pending_bytes += (int64_t)s.o->raw;
    return rc || p->pending_bytes < PENDING_BYTES ? rc : put_recipes(p, err);
}

enum err_code packer_finish(struct packer *p, struct err *err)
{
    return put_recipes(p, err);
}
