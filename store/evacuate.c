#include "store/evacuate.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"

#define FRAME_LEVEL 3

struct evac {
    struct store *st;
    pthread_mutex_t lock; /* of the writer and what goes with it */
    struct pack_writer *w;
    struct idlist packs; /* sealed, in order */
    struct idset *ids;
    int64_t bytes;
    bool tried;   /* whatever is put has been offered to codec_best */
    bool untried; /* something in the present pack has not */

    struct codec *codec;
    struct frame_member *members; /* of the frame being gathered */
    size_t member_count;
    struct buf raw, zstd, payload;
};

enum err_code evac_new(struct store *st, struct evac **out, struct err *err)
{
    struct evac *e;
    enum err_code rc;

    CHECK(st);
    CHECK(out);
    *out = NULL;
    e = mem_zero(1, sizeof(*e));
    e->st = st;
    CHECK(pthread_mutex_init(&e->lock, NULL) == 0);
    e->ids = idset_new();
    e->members = mem_alloc(FRAME_MEMBERS_MAX * sizeof(*e->members));
    buf_init(&e->raw, CODEC_RAW_MAX);
    buf_init(&e->zstd, (size_t)2 * CODEC_RAW_MAX);
    buf_init(&e->payload, PACK_PAYLOAD_MAX);
    rc = codec_new(&e->codec, err);
    if (rc) {
        evac_free(e);
        return rc;
    }
    *out = e;
    return OK;
}

void evac_free(struct evac *e)
{
    if (!e)
        return;
    pack_writer_release(e->w);
    codec_free(e->codec);
    idset_free(e->ids);
    idlist_release(&e->packs);
    free(e->members);
    buf_release(&e->raw);
    buf_release(&e->zstd);
    buf_release(&e->payload);
    CHECK(pthread_mutex_destroy(&e->lock) == 0);
    free(e);
}

void evac_tried(struct evac *e)
{
    e->tried = true;
}

const struct digest *evac_packs(const struct evac *e, size_t *count)
{
    *count = e->packs.n;
    return e->packs.v;
}

const struct idset *evac_ids(const struct evac *e)
{
    return e->ids;
}

bool evac_has(struct evac *e, const struct digest *id)
{
    bool has;

    CHECK(pthread_mutex_lock(&e->lock) == 0);
    has = idset_has(e->ids, id);
    CHECK(pthread_mutex_unlock(&e->lock) == 0);
    return has;
}

int64_t evac_bytes(const struct evac *e)
{
    return e->bytes;
}

/* ---- writing ----------------------------------------------------------------------------------- */

static enum err_code seal(struct evac *e, struct err *err)
{
    struct digest name;
    enum err_code rc = OK;

    if (!e->w)
        return OK;
    e->bytes += pack_writer_bytes(e->w);
    if (!e->untried)
        pack_writer_tried(e->w);
    rc = pack_seal(e->w, PACK_SYNC_DIR_LATER, &name, err);
    if (!rc)
        idlist_add(&e->packs, &name);
    pack_writer_release(e->w);
    e->w = NULL;
    return rc;
}

/* A writer with room for n more bytes, or an empty one.  With the lock held. */
static enum err_code make_room(struct evac *e, size_t n, struct err *err)
{
    enum err_code rc = OK;

    if (e->w && pack_writer_records(e->w) > 0 &&
        pack_writer_bytes(e->w) + (int64_t)n > PACK_TARGET_BYTES)
        rc = seal(e, err);
    if (!rc && !e->w) {
        rc = pack_writer_open(e->st->objects, &e->w, err);
        e->untried = false;
    }
    return rc;
}

/* tried: is it known to become no smaller?  Asked of raw blobs only, nothing else would be compressed. */
static enum err_code put(struct evac *e, const struct pack_entry *record, const void *payload,
                         size_t n, bool tried, struct err *err)
{
    struct pack_entry copy = *record;
    enum err_code rc;

    CHECK(pthread_mutex_lock(&e->lock) == 0);
    rc = make_room(e, n, err);
    if (!rc)
        rc = pack_put(e->w, &copy, payload, n, err);
    e->untried |= !tried && copy.type == REC_BLOB && copy.enc == ENC_RAW;
    if (!rc && copy.type != REC_BIND && copy.type != REC_REF)
        idset_add(e->ids, &copy.id, NULL);
    CHECK(pthread_mutex_unlock(&e->lock) == 0);
    return rc;
}

enum err_code evac_put(struct evac *e, const struct pack_entry *record, const void *payload,
                       size_t n, struct err *err)
{
    return put(e, record, payload, n, e->tried, err);
}

static enum err_code put_frame(struct evac *e, const struct frame_member *members, size_t count,
                               const void *zstd, size_t n, size_t raw_n, struct err *err)
{
    enum err_code rc;

    CHECK(pthread_mutex_lock(&e->lock) == 0);
    rc = make_room(e, n, err);
    if (!rc)
        rc = pack_put_frame(e->w, members, count, zstd, n, raw_n, NULL, err);
    for (size_t i = 0; !rc && i < count; i++)
        idset_add(e->ids, &members[i].id, NULL);
    CHECK(pthread_mutex_unlock(&e->lock) == 0);
    return rc;
}

/* The gathered frame is compressed, and decoded again before anything relies on it. */
static enum err_code flush_frame(struct evac *e, struct err *err)
{
    enum err_code rc;
    void *back;

    if (e->member_count == 0)
        return OK;
    buf_clear(&e->zstd);
    rc = codec_encode(e->codec, ENC_ZSTD, FRAME_LEVEL, e->raw.p ? e->raw.p : "", e->raw.n, &e->zstd,
                      err);
    if (rc)
        return rc;
    back = mem_alloc(e->raw.n + 1);
    rc = codec_decode(e->codec, ENC_ZSTD, e->zstd.p, e->zstd.n, back, e->raw.n, err);
    if (!rc && e->raw.n > 0 && memcmp(back, e->raw.p, e->raw.n) != 0)
        rc = err_set(err, ERR_BUG, "a frame decodes to other bytes than went in");
    free(back);
    if (!rc)
        rc = put_frame(e, e->members, e->member_count, e->zstd.p, e->zstd.n, e->raw.n, err);
    e->member_count = 0;
    buf_clear(&e->raw);
    return rc;
}

enum err_code evac_member(struct evac *e, const struct digest *id, uint8_t flags, const void *p,
                          size_t n, struct err *err)
{
    enum err_code rc = OK;

    if (e->member_count == FRAME_MEMBERS_MAX || e->raw.n + n > FRAME_RAW_TARGET)
        rc = flush_frame(e, err);
    if (rc)
        return rc;
    buf_add(&e->raw, p, n);
    rc = buf_check(&e->raw, "frame", err);
    e->members[e->member_count++] =
        (struct frame_member){.id = *id, .len = (uint32_t)n, .flags = flags};
    return rc;
}

enum err_code evac_finish(struct evac *e, struct err *err)
{
    enum err_code rc;

    rc = flush_frame(e, err);
    if (!rc)
        rc = seal(e, err);
    if (!rc && e->packs.n > 0)
        rc = os_fsync(e->st->packs, err);
    return rc;
}

/* ---- copying ----------------------------------------------------------------------------------- */

static enum err_code damaged(const struct pack *p, uint32_t off, const char *what, struct err *err)
{
    char hex[DIGEST_HEX + 1];

    digest_hex(pack_name(p), hex);
    return err_set(err, ERR_DAMAGED, "pack %s at %u: %s; run weir fsck", hex, off, what);
}

struct frame_copy {
    struct frame_member *members;
    bool *keep;
    size_t count, kept, zstd_off, raw_n;
};

static void choose_members(struct frame_copy *f, const struct pack_entry *frame, evac_keep_fn keep,
                           void *arg)
{
    struct pack_entry m = *frame;

    m.pos = 0;
    f->keep = mem_zero(f->count + 1, sizeof(*f->keep));
    for (size_t i = 0; i < f->count; i++) {
        m.id = f->members[i].id;
        m.flags = f->members[i].flags;
        m.raw = f->members[i].len;
        f->keep[i] = keep(arg, &m);
        f->kept += f->keep[i];
        m.pos += m.raw;
    }
}

static enum err_code regroup(struct evac *e, const struct pack *p, uint32_t off,
                             const struct frame_copy *f, const struct buf *payload, struct err *err)
{
    char *raw = mem_alloc(f->raw_n + 1), *at = raw;
    struct digest is;
    enum err_code rc;

    rc = codec_decode(e->codec, ENC_ZSTD, payload->p + f->zstd_off, payload->n - f->zstd_off, raw,
                      f->raw_n, err);
    if (rc == ERR_DAMAGED)
        rc = damaged(p, off, "the frame does not decode", err);
    for (size_t i = 0; !rc && i < f->count; at += f->members[i++].len) {
        if (!f->keep[i])
            continue;
        sha256_of(at, f->members[i].len, &is);
        rc = digest_eq(&is, &f->members[i].id)
                 ? evac_member(e, &is, f->members[i].flags, at, f->members[i].len, err)
                 : damaged(p, off, "a member of the frame holds other bytes", err);
    }
    free(raw);
    return rc;
}

static enum err_code copy_frame(struct evac *e, const struct pack *p,
                                const struct pack_entry *frame, const struct buf *payload,
                                evac_keep_fn keep, void *arg, struct err *err)
{
    struct frame_copy f = {0};
    enum err_code rc;

    rc = frame_decode(payload->p, payload->n, &f.members, &f.count, &f.zstd_off, &f.raw_n, err);
    if (rc)
        return damaged(p, frame->off, "the frame's table is wrong", err);
    choose_members(&f, frame, keep, arg);
    /* A frame that is wanted whole and not small stays as it is. */
    if (f.kept == f.count && f.raw_n >= FRAME_RAW_TARGET / 2)
        rc = put_frame(e, f.members, f.count, payload->p + f.zstd_off, payload->n - f.zstd_off,
                       f.raw_n, err);
    else if (f.kept > 0)
        rc = regroup(e, p, frame->off, &f, payload, err);
    free(f.members);
    free(f.keep);
    return rc;
}

enum err_code evac_copy_record(struct evac *e, const struct pack *p, const struct pack_entry *entry,
                               const struct buf *payload, evac_keep_fn keep, void *arg,
                               struct err *err)
{
    if (entry->type == REC_FRAME)
        return copy_frame(e, p, entry, payload, keep, arg, err);
    if (!keep(arg, entry))
        return OK;
    return put(e, entry, payload->p, payload->n, e->tried || pack_tried(p), err);
}

static int by_offset(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

enum err_code evac_copy(struct evac *e, struct pack *p, evac_keep_fn keep, void *arg,
                        struct err *err)
{
    const struct pack_entry *toc;
    struct pack_entry entry;
    uint32_t *offs;
    size_t count;
    enum err_code rc;

    rc = pack_toc(p, &toc, &count, err);
    if (rc)
        return rc;
    /* In the order of the file; members of a frame share an offset. */
    offs = mem_alloc((count + 1) * sizeof(*offs));
    for (size_t i = 0; i < count; i++)
        offs[i] = toc[i].off;
    qsort(offs, count, sizeof(*offs), by_offset);
    for (size_t i = 0; !rc && i < count; i++) {
        if (i > 0 && offs[i] == offs[i - 1])
            continue;
        buf_clear(&e->payload);
        rc = pack_read(p, offs[i], &entry, &e->payload, err);
        if (!rc)
            rc = evac_copy_record(e, p, &entry, &e->payload, keep, arg, err);
    }
    free(offs);
    return rc;
}
