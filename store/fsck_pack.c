/* fsck_pack.c - every byte of a pack.
 *
 * Two passes for two questions.  "Is it whole?" is asked of every pack, in long sequential reads, each byte touched once; it stops at
 * the first doubt.  "What is wrong?" is asked of the few that are not, record by record, without believing any length.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "base/pool.h"
#include "store/fsck_internal.h"
#include "store/pack_internal.h"

#define WINDOW ((size_t)512 << 10)
#define HASH_STEP ((size_t)256 << 10) /* hashed while it is still in the processor's cache */

/* ---- one record -------------------------------------------------------------------------------- */

struct checker {
    struct fsck *f;
    struct codec *codec;
    struct buf raw, payload;
    struct frame_member *members;
    size_t member_count;
    bool *member_good;
    uint8_t *window;
};

struct checker *checker_new(struct fsck *f)
{
    struct checker *c = mem_zero(1, sizeof(*c));

    c->f = f;
    buf_init(&c->raw, CODEC_RAW_MAX);
    buf_init(&c->payload, PACK_PAYLOAD_MAX);
    c->member_good = mem_zero(FRAME_MEMBERS_MAX, sizeof(*c->member_good));
    c->window = mem_alloc(WINDOW);
    return c;
}

void checker_free(struct checker *c)
{
    if (!c)
        return;
    codec_free(c->codec);
    buf_release(&c->raw);
    buf_release(&c->payload);
    free(c->members);
    free(c->member_good);
    free(c->window);
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
        rc = codec_new(&c->codec, err);
    if (!rc)
        rc = codec_decode(c->codec, enc, p, n, room, raw_n, err);
    *good = rc == OK;
    if (rc == ERR_DAMAGED) {
        *err = (struct err)ERR_INIT;
        rc = OK;
    }
    return rc;
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

static enum err_code check_frame(struct checker *c, const struct pack_entry *e, const void *payload,
                                 size_t n, bool *good, const char **why, struct err *err)
{
    size_t zstd_off, raw_n, at = 0;
    struct digest is;
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
    for (size_t i = 0; i < c->member_count; at += c->members[i++].len) {
        if (fsck_in_part(c->f, &c->members[i].id)) {
            sha256_of(c->raw.p + at, c->members[i].len, &is);
            c->member_good[i] = digest_eq(&is, &c->members[i].id);
        } else {
            c->member_good[i] = true;
        }
        *good = *good && c->member_good[i];
    }
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

/* ---- is it whole? ------------------------------------------------------------------------------ */

struct pack_walk {
    struct checker *c;
    enum fsck_level level;
    int fd;
    int64_t from; /* the window holds [from, from + n) of the file */
    size_t n;
    const struct pack_entry **toc; /* by offset and position */
    size_t count;
};

static int by_offset(const void *a, const void *b)
{
    const struct pack_entry *x = *(const struct pack_entry *const *)a;
    const struct pack_entry *y = *(const struct pack_entry *const *)b;

    if (x->off != y->off)
        return x->off < y->off ? -1 : 1;
    if (x->pos != y->pos)
        return x->pos < y->pos ? -1 : 1;
    return x->raw < y->raw ? -1 : x->raw > y->raw;
}

/* n <= WINDOW bytes at off. */
static enum err_code window_at(struct pack_walk *w, int64_t off, size_t n, const uint8_t **out,
                               struct err *err)
{
    enum err_code rc = OK;

    if (off < w->from || off + (int64_t)n > w->from + (int64_t)w->n) {
        w->n = 0;
        rc = os_pread(w->fd, w->c->window, WINDOW, off, &w->n, err);
        w->from = off;
        if (!rc && w->n < n)
            rc = err_set(err, ERR_DAMAGED, "the pack is shorter than it was");
    }
    *out = w->c->window + (off - w->from);
    return rc;
}

/* A raw blob longer than the window: hashed as it is read. */
static enum err_code stream_blob(struct pack_walk *w, const struct pack_entry *e, bool *good,
                                 struct err *err)
{
    const bool hash = w->level >= FSCK_FULL && fsck_in_part(w->c->f, &e->id);
    const int64_t start = (int64_t)e->off + PACK_RECORD_HEADER;
    struct sha256 sha = {0};
    struct digest is = e->id;
    uint32_t crc = 0;
    enum err_code rc = OK;

    if (hash)
        sha256_init(&sha);
    for (size_t at = 0; !rc && at < e->stored; at += HASH_STEP) {
        const size_t step = e->stored - at < HASH_STEP ? e->stored - at : HASH_STEP;

        rc = os_pread_all(w->fd, w->c->window, step, start + (int64_t)at, err);
        if (rc)
            break;
        crc = crc32c(crc, w->c->window, step);
        if (hash)
            sha256_update(&sha, w->c->window, step);
    }
    w->n = 0;
    if (hash)
        sha256_final(&sha, &is);
    sha256_release(&sha);
    *good = !rc && crc == e->crc && digest_eq(&is, &e->id);
    return rc;
}

static enum err_code check_payload(struct pack_walk *w, const struct pack_entry *e, bool *good,
                                   struct err *err)
{
    const int64_t start = (int64_t)e->off + PACK_RECORD_HEADER;
    const uint8_t *p;
    const char *why;
    enum err_code rc;

    if (e->stored > WINDOW && e->type == REC_BLOB && e->enc == ENC_RAW)
        return stream_blob(w, e, good, err);
    if (e->stored > WINDOW) {
        buf_clear(&w->c->payload);
        p = buf_room(&w->c->payload, e->stored);
        if (!p)
            return err_set(err, ERR_LIMIT, "no memory for a record of %u bytes", e->stored);
        rc = os_pread_all(w->fd, w->c->payload.p, e->stored, start, err);
    } else {
        rc = window_at(w, start, e->stored, &p, err);
    }
    if (rc)
        return rc;
    *good = crc32c(0, p, e->stored) == e->crc;
    return *good ? checker_record(w->c, e, p, e->stored, w->level, good, &why, err) : OK;
}

/* The toc has one entry per member; i is the first of n at this offset. */
static bool frame_matches(const struct pack_walk *w, size_t i, size_t n)
{
    const struct checker *c = w->c;
    uint64_t pos = 0;

    if (c->member_count != n)
        return false;
    for (size_t m = 0; m < n; pos += c->members[m++].len) {
        bool found = false;

        /* Empty members share their position with the next one: look at all that have it. */
        for (size_t k = i; k < i + n && !found && w->toc[k]->pos <= pos; k++)
            found = w->toc[k]->pos == pos && w->toc[k]->raw == c->members[m].len &&
                    w->toc[k]->flags == c->members[m].flags &&
                    digest_eq(&w->toc[k]->id, &c->members[m].id);
        if (!found)
            return false;
    }
    return true;
}

static bool header_matches(const struct pack_entry *h, const struct pack_entry *t, size_t n)
{
    if (h->type != t->type || h->enc != t->enc || h->stored != t->stored || h->crc != t->crc ||
        h->stamp != t->stamp)
        return false;
    return h->type == REC_FRAME ||
           (n == 1 && h->flags == t->flags && h->raw == t->raw && digest_eq(&h->id, &t->id));
}

static enum err_code walk_records(struct pack_walk *w, int64_t toc_off, bool *clean,
                                  struct err *err)
{
    int64_t at = PACK_HEADER_BYTES;
    enum err_code rc = OK;
    size_t n;

    *clean = true;
    for (size_t i = 0; !rc && *clean && i < w->count; i += n) {
        struct pack_entry h;
        const uint8_t *p;

        for (n = 1; i + n < w->count && w->toc[i + n]->off == w->toc[i]->off;)
            n++;
        *clean = w->toc[i]->off == at;
        if (!*clean)
            break;
        rc = window_at(w, at, PACK_RECORD_HEADER, &p, err);
        *clean = !rc && pack_header_decode(p, &h) == NULL && header_matches(&h, w->toc[i], n) &&
                 at + PACK_RECORD_HEADER + h.stored <= toc_off;
        if (!*clean)
            break;
        h.off = (uint32_t)at;
        rc = check_payload(w, &h, clean, err);
        if (!rc && *clean && h.type == REC_FRAME && w->level >= FSCK_FULL)
            *clean = frame_matches(w, i, n);
        at += PACK_RECORD_HEADER + h.stored;
        progress_add(w->c->f->o->progress, PACK_RECORD_HEADER + h.stored);
    }
    *clean = !rc && *clean && at == toc_off;
    return rc;
}

/* Pointers into the pack's toc, in the order of the file; stays NULL on an error. */
static enum err_code sorted_toc(struct pack *pack, const struct pack_entry ***out, size_t *count,
                                struct err *err)
{
    const struct pack_entry *toc;
    enum err_code rc = pack_toc(pack, &toc, count, err);

    if (rc) {
        *count = 0;
        return rc;
    }
    *out = mem_alloc((*count + 1) * sizeof(**out));
    for (size_t i = 0; i < *count; i++)
        (*out)[i] = &toc[i];
    qsort(*out, *count, sizeof(**out), by_offset);
    return OK;
}

static enum err_code is_whole(struct checker *c, const char *file, const struct digest *name,
                              bool *clean, struct err *err)
{
    struct pack_walk w = {.c = c, .level = c->f->o->level, .fd = -1};
    struct pack *pack = NULL;
    enum err_code rc;

    *clean = false;
    rc = pack_open(c->f->st->packs, name, &pack, err);
    if (!rc)
        rc = sorted_toc(pack, &w.toc, &w.count, err);
    if (!rc && w.level > FSCK_QUICK)
        rc = os_open(c->f->st->packs, file, O_RDONLY | O_NOFOLLOW, 0, &w.fd, err);
    *clean = rc == OK;
    if (!rc && w.level > FSCK_QUICK)
        rc = walk_records(&w, pack_bytes(pack) - PACK_TRAILER - (int64_t)w.count * PACK_TOC_ENTRY,
                          clean, err);
    for (size_t i = 0; !rc && *clean && i < w.count; i++)
        fsck_note_journal(c->f, w.toc[i]);
    if (!rc && *clean) {
        CHECK(pthread_mutex_lock(&c->f->lock) == 0);
        c->f->report->objects += (int64_t)w.count;
        c->f->report->bytes += pack_bytes(pack);
        CHECK(pthread_mutex_unlock(&c->f->lock) == 0);
    }
    free(w.toc);
    os_close_quiet(&w.fd);
    pack_close(pack);
    return rc;
}

/* ---- what is wrong? ---------------------------------------------------------------------------- */

struct diagnosis {
    struct checker *c;
    const char *file;
    const struct pack_entry **toc; /* by offset; NULL when there is none to believe */
    size_t count;
    bool *visited; /* of each entry */
    size_t findings;
};

static void report(struct diagnosis *d, const struct digest *id, uint32_t off, const char *what)
{
    fsck_found(d->c->f, FOUND_PACK, d->file, id, "pack %s, record at %u: %s", d->file, off, what);
    d->findings++;
}

/* The first entry at or after off. */
static size_t entry_at(const struct diagnosis *d, uint32_t off)
{
    size_t low = 0, high = d->count;

    while (low < high) {
        const size_t mid = low + (high - low) / 2;

        if (d->toc[mid]->off < off)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Every object that the toc puts at this offset, or, when there is none, the one that the record itself names. */
static void report_all(struct diagnosis *d, uint32_t off, const struct digest *otherwise,
                       const char *what)
{
    size_t i = entry_at(d, off);

    if (i == d->count || d->toc[i]->off != off)
        report(d, otherwise, off, what);
    for (; i < d->count && d->toc[i]->off == off; i++) {
        report(d, &d->toc[i]->id, off, what);
        d->visited[i] = true;
    }
}

static void compare_with_toc(struct diagnosis *d, const struct pack_entry *e)
{
    size_t i = entry_at(d, e->off);

    if (d->toc && (i == d->count || d->toc[i]->off != e->off))
        report(d, NULL, e->off, "the table of contents does not know it");
    for (; i < d->count && d->toc[i]->off == e->off; i++) {
        d->visited[i] = true;
        if (!header_matches(e, d->toc[i], 1))
            report(d, &d->toc[i]->id, e->off, "the table of contents describes another record");
    }
}

static enum err_code judge_record(struct diagnosis *d, const struct pack_entry *e,
                                  const struct buf *payload, struct err *err)
{
    const struct frame_member *members;
    const char *why, *raw;
    size_t count;
    bool good;
    enum err_code rc;

    rc = checker_record(d->c, e, payload->p ? payload->p : "", payload->n, d->c->f->o->level, &good,
                        &why, err);
    if (rc)
        return rc;
    if (good) {
        compare_with_toc(d, e);
        return OK;
    }
    members = checker_members(d->c, &count, &raw);
    if (e->type != REC_FRAME || !members) {
        report_all(d, e->off, e->type == REC_FRAME ? NULL : &e->id, why);
        return OK;
    }
    compare_with_toc(d, e);
    for (size_t i = 0; i < count; i++)
        if (!checker_member_good(d->c, i))
            report(d, &members[i].id, e->off, why);
    return OK;
}

static enum err_code walk_slowly(struct diagnosis *d, struct pack *pack, struct err *err)
{
    uint32_t off = PACK_HEADER_BYTES;
    struct buf payload;
    enum err_code rc = OK;
    bool end = false;

    buf_init(&payload, PACK_PAYLOAD_MAX);
    while (!rc && !end) {
        const uint32_t at = off;
        struct pack_entry e = {0};

        rc = pack_scan(pack, &off, &e, &payload, &end, err);
        if (rc == ERR_DAMAGED) {
            report_all(d, at, NULL, err->text);
            *err = (struct err)ERR_INIT;
            rc = OK;
        } else if (!rc && !end) {
            rc = judge_record(d, &e, &payload, err);
        }
    }
    for (size_t i = 0; !rc && i < d->count; i++)
        if (!d->visited[i])
            report(d, &d->toc[i]->id, d->toc[i]->off, "no record is there");
    buf_release(&payload);
    return rc;
}

static enum err_code diagnose(struct checker *c, const char *file, const struct digest *name,
                              struct err *err)
{
    struct diagnosis d = {.c = c, .file = file};
    struct pack *pack = NULL, *damaged = NULL;
    enum err_code rc;

    rc = pack_open(c->f->st->packs, name, &pack, err);
    if (!rc)
        rc = sorted_toc(pack, &d.toc, &d.count, err);
    if (rc == ERR_DAMAGED || rc == ERR_VERSION) {
        fsck_found(c->f, FOUND_PACK, file, NULL, "%s", err->text);
        d.findings++;
        *err = (struct err)ERR_INIT;
        rc = OK;
    }
    d.visited = mem_zero(d.count + 1, sizeof(*d.visited));
    if (!rc && (c->f->o->level > FSCK_QUICK || !d.toc)) {
        rc = pack_open_damaged(c->f->st->packs, file, &damaged, err);
        if (rc == ERR_DAMAGED) { /* not even a regular file */
            *err = (struct err)ERR_INIT;
            rc = OK;
        } else if (!rc) {
            rc = walk_slowly(&d, damaged, err);
        }
    }
    /* The first pass had a doubt, and that is enough. */
    if (!rc && d.findings == 0)
        fsck_found(c->f, FOUND_PACK, file, NULL, "pack %s: its parts do not fit together", file);
    free(d.visited);
    free(d.toc);
    pack_close(damaged);
    pack_close(pack);
    return rc;
}

/* ---- all of them ------------------------------------------------------------------------------- */

struct pack_job {
    struct fsck *f;
    char file[DIGEST_HEX + 1];
    struct digest name;
};

static enum err_code check_pack(void *arg, bool cancelled, struct err *err)
{
    struct pack_job *job = arg;
    struct checker *c;
    enum err_code rc;
    bool clean;

    if (cancelled)
        return OK;
    c = checker_new(job->f);
    rc = is_whole(c, job->file, &job->name, &clean, err);
    if (rc == ERR_DAMAGED || rc == ERR_VERSION) {
        *err = (struct err)ERR_INIT;
        rc = OK;
        clean = false;
    }
    if (!rc && !clean)
        rc = diagnose(c, job->file, &job->name, err);
    checker_free(c);
    return rc;
}

enum err_code fsck_packs(struct fsck *f, struct err *err)
{
    struct os_entry *entries = NULL;
    struct pack_job *jobs = NULL;
    struct pool *pool = NULL;
    size_t count = 0, job_count = 0;
    enum err_code rc, waited;

    rc = os_list(f->st->packs, &entries, &count, err);
    if (!rc)
        rc = pool_new(f->st->threads, 2 * f->st->threads, &pool, err);
    if (rc)
        goto out;
    jobs = mem_zero(count + 1, sizeof(*jobs));
    for (size_t i = 0; i < count; i++) {
        struct pack_job *job = &jobs[job_count];
        struct err ignored = ERR_INIT;

        if (strlen(entries[i].name) != DIGEST_HEX ||
            digest_parse(entries[i].name, DIGEST_HEX, &job->name, &ignored) != OK) {
            if (entries[i].name[0] != '.') /* what NFS keeps of open files begins with a dot */
                fsck_found(f, FOUND_STRANGER, entries[i].name, NULL,
                           "packs/%s is no pack of weir's", entries[i].name);
            continue;
        }
        job->f = f;
        memcpy(job->file, entries[i].name, sizeof(job->file));
        job_count++;
        f->report->packs++;
        pool_submit(pool, check_pack, job);
    }
    waited = pool_wait(pool, err);
    rc = rc ? rc : waited;
out:
    pool_free(pool);
    free(jobs);
    free(entries);
    return rc;
}
