/* fsck_record.c - is one record of a pack what it says? */
#include <stdlib.h>
#include <string.h>

#include "base/hash_pair.h"
#include "store/fsck_internal.h"
#include "store/pack_cache.h"
#include "store/pack_internal.h"

struct checker {
    struct fsck *f;
    struct codec *codec;
    struct buf raw, payload;
    struct frame_member *members;
    size_t member_count;
    bool *member_good;
};

struct checker *checker_new(struct fsck *f)
{
    struct checker *c = mem_zero(1, sizeof(*c));

    c->f = f;
    buf_init(&c->raw, CODEC_RAW_MAX);
    buf_init(&c->payload, PACK_PAYLOAD_MAX);
    c->member_good = mem_zero(FRAME_MEMBERS_MAX, sizeof(*c->member_good));
    return c;
}

void checker_free(struct checker *c)
{
    if (!c)
        return;
    codec_put(c->f->st, c->codec);
    buf_release(&c->raw);
    buf_release(&c->payload);
    free(c->members);
    free(c->member_good);
    free(c);
}

const struct frame_member *checker_members(const struct checker *c, size_t *count, const char **raw)
{
    *count = c->member_count;
    *raw = c->raw.p ? c->raw.p : "";
    return c->members;
}

bool checker_member_good(const struct checker *c, size_t i)
{
    return c->member_good[i];
}

struct fsck *checker_fsck(const struct checker *c)
{
    return c->f;
}

struct buf *checker_raw(struct checker *c)
{
    return &c->raw;
}

/* Into c->raw. */
static enum err_code decode(struct checker *c, enum enc enc, const void *p, size_t n, size_t raw_n,
                            bool *good, struct err *err)
{
    enum err_code rc = OK;
    void *room;

    buf_clear(&c->raw);
    *good = false;
    room = raw_n <= CODEC_RAW_MAX ? buf_room(&c->raw, raw_n ? raw_n : 1) : NULL;
    if (!room)
        return OK;
    c->raw.n = raw_n;
    if (!c->codec)
        rc =
            codec_get(c->f->st, &c->codec, err); /* kept: making one costs more than most records */
    if (!rc)
        rc = codec_decode(c->codec, enc, p, n, room, raw_n, err);
    *good = rc == OK;
    if (rc == ERR_DAMAGED) {
        *err = (struct err)ERR_INIT;
        rc = OK;
    }
    return rc;
}

enum err_code checker_decode(struct checker *c, const struct pack_entry *e, const void *payload,
                             size_t n, bool *good, struct err *err)
{
    return decode(c, (enum enc)e->enc, payload, n, (size_t)e->raw, good, err);
}

static enum err_code check_blob(struct checker *c, const struct pack_entry *e, const void *payload,
                                size_t n, bool *good, const char **why, struct err *err)
{
    const void *raw = payload;
    struct digest is;
    enum err_code rc = OK;

    *good = e->enc != ENC_RAW || n == e->raw;
    if (*good && e->enc != ENC_RAW) {
        rc = decode(c, (enum enc)e->enc, payload, n, (size_t)e->raw, good, err);
        raw = c->raw.p;
    }
    *why = "does not decode";
    if (rc || !*good)
        return rc;
    sha256_of(raw, (size_t)e->raw, &is);
    *good = digest_eq(&is, &e->id);
    *why = "holds other bytes than its name says";
    return OK;
}

/* Two at a time, which is what the processor is fast at. */
static void check_members(struct checker *c)
{
    const char *at = c->raw.p, *waiting_at = NULL;
    size_t waiting = 0;
    struct digest a, b;

    for (size_t i = 0; i < c->member_count; at += c->members[i++].len) {
        c->member_good[i] = !fsck_in_part(c->f, &c->members[i].id);
        if (c->member_good[i])
            continue;
        if (!waiting_at) {
            waiting = i;
            waiting_at = at;
            continue;
        }
        hash_pair_of(waiting_at, c->members[waiting].len, &a, at, c->members[i].len, &b);
        c->member_good[waiting] = digest_eq(&a, &c->members[waiting].id);
        c->member_good[i] = digest_eq(&b, &c->members[i].id);
        waiting_at = NULL;
    }
    if (waiting_at) {
        sha256_of(waiting_at, c->members[waiting].len, &a);
        c->member_good[waiting] = digest_eq(&a, &c->members[waiting].id);
    }
}

static enum err_code check_frame(struct checker *c, const struct pack_entry *e, const void *payload,
                                 size_t n, bool *good, const char **why, struct err *err)
{
    size_t zstd_off, raw_n;
    enum err_code rc;

    free(c->members);
    c->members = NULL;
    c->member_count = 0;
    rc = frame_decode(payload, n, &c->members, &c->member_count, &zstd_off, &raw_n, err);
    *why = "has a wrong table of members";
    *good = rc == OK && e->raw == raw_n;
    if (rc == ERR_DAMAGED) {
        *err = (struct err)ERR_INIT;
        return OK;
    }
    if (rc || !*good)
        return rc;
    rc = decode(c, ENC_ZSTD, (const char *)payload + zstd_off, n - zstd_off, raw_n, good, err);
    *why = "does not decode";
    memset(c->member_good, 0, FRAME_MEMBERS_MAX * sizeof(*c->member_good));
    if (rc || !*good)
        return rc;
    *why = "has a member that holds other bytes than its name says";
    check_members(c);
    for (size_t i = 0; i < c->member_count; i++)
        *good = *good && c->member_good[i];
    return OK;
}

static enum err_code check_recipe(const struct pack_entry *e, const void *payload, size_t n,
                                  bool *good, const char **why, struct err *err)
{
    struct recipe_chunk *chunks = NULL;
    size_t count;
    enum err_code rc;

    if (e->type == REC_LOOSE && n == 0)
        return OK;
    rc = recipe_decode(&e->id, e->raw, payload, n, &chunks, &count, err);
    free(chunks);
    if (rc != ERR_DAMAGED)
        return rc;
    *err = (struct err)ERR_INIT;
    *good = false;
    *why = "is a recipe that does not match its check digest";
    return OK;
}

static enum err_code check_ref(const struct pack_entry *e, const void *payload, size_t n,
                               bool *good, const char **why, struct err *err)
{
    struct digest target;
    struct str name;
    uint8_t kind;
    const enum err_code rc = ref_decode(&e->id, payload, n, &target, &kind, &name, err);

    if (rc != ERR_DAMAGED)
        return rc;
    *err = (struct err)ERR_INIT;
    *good = false;
    *why = "is a ref that does not read as one";
    return OK;
}

enum err_code checker_record(struct checker *c, const struct pack_entry *e, const void *payload,
                             size_t n, enum fsck_level level, bool *good, const char **why,
                             struct err *err)
{
    *good = true;
    *why = "";
    switch ((enum rec_type)e->type) {
    case REC_BLOB:
        return level < FSCK_FULL || !fsck_in_part(c->f, &e->id)
                   ? OK
                   : check_blob(c, e, payload, n, good, why, err);
    case REC_FRAME:
        return level < FSCK_FULL ? OK : check_frame(c, e, payload, n, good, why, err);
    case REC_RECIPE:
    case REC_LOOSE:
        return check_recipe(e, payload, n, good, why, err);
    case REC_REF:
        return check_ref(e, payload, n, good, why, err);
    case REC_BIND:
        *good = n == DIGEST_BYTES;
        *why = "is a bind of an impossible length";
        return OK;
    case REC_TYPE_COUNT:
        break;
    }
    *good = false;
    *why = "is of an unknown type";
    return OK;
}

void fsck_note_journal(struct fsck *f, const struct pack_entry *e)
{
    if (e->type != REC_BIND && e->type != REC_REF)
        return;
    CHECK(pthread_mutex_lock(&f->lock) == 0);
    if (f->journal_count == f->journal_cap) {
        f->journal_cap = f->journal_cap ? f->journal_cap * 2 : 64;
        f->journal = mem_grow(f->journal, f->journal_cap, sizeof(*f->journal));
    }
    f->journal[f->journal_count++] =
        (struct journal_seen){.id = e->id, .stamp = e->stamp, .type = e->type};
    CHECK(pthread_mutex_unlock(&f->lock) == 0);
}
