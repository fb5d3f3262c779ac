/* fsck_pack.c - every byte of a pack.
 *
 * Two passes for two questions.  "Is it whole?" is asked of every pack, in long sequential reads, each byte touched once; it stops at
 * the first doubt.  "What is wrong?" (fsck_doubt.c) is asked of the few that are not.
 *
 * Hashing is most of the work, and a processor hashes two messages in little more than the time of one (hash_pair.h).  So blobs wait
 * for a second one: long raw ones are read in two lanes at once, decoded ones are held until the next is there.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash_pair.h"
#include "base/os.h"
#include "base/pool.h"
#include "store/fsck_internal.h"
#include "store/fsck_read.h"
#include "store/pack_internal.h"

#define JOBS_PER_CORE ((size_t)6)
#define PART_MIN                                                                                   \
    (4 << 20) /* bytes of a pack; a smaller part is not worth another look at the toc */
#define THREADS_PER_CORE 2            /* one computes while the other one waits for the disk */
#define LANE_MIN ((size_t)128 << 10)  /* bytes of a raw blob that is read in a lane of its own */
#define HOLD_MIN ((size_t)16 << 10)   /* bytes of a decoded blob that waits for another */
#define HASH_STEP ((size_t)256 << 10) /* hashed while it is still in the processor's cache */

/* ---- is it whole? ------------------------------------------------------------------------------ */

struct lane { /* a raw blob that is being read */
    struct span span;
    struct pack_entry e;
    size_t done;
    uint32_t crc;
    bool busy;
};
struct pack_walk {
    struct checker *c;
    enum fsck_level level;
    struct scan scan;
    struct span span; /* of everything that is no lane's */
    int64_t toc_off;
    const struct pack_entry **toc; /* by offset and position */
    size_t count;
    struct lane lanes[2];
    struct hash_pair hashes;
    struct buf held; /* a decoded blob whose hash is still to be taken */
    struct digest held_id;
    bool holding;
    bool wrong; /* a blob, found when its turn came */
};

static bool is_hashed(const struct pack_walk *w, const struct digest *id)
{
    return w->level >= FSCK_FULL && fsck_in_part(checker_fsck(w->c), id);
}

/* ---- long raw blobs: two at once, as they are read ---- */

static enum err_code lane_read(struct pack_walk *w, int i, const uint8_t **p, size_t *n,
                               struct err *err)
{
    struct lane *l = &w->lanes[i];
    const size_t left = l->e.stored - l->done;
    enum err_code rc;

    rc = span_some(&l->span, (int64_t)l->e.off + PACK_RECORD_HEADER + (int64_t)l->done,
                   left < HASH_STEP ? left : HASH_STEP, p, n, err);
    return rc || *n ? rc : err_set(err, ERR_DAMAGED, "the pack is shorter than it was");
}

static void lane_took(struct pack_walk *w, int i, const uint8_t *p, size_t n)
{
    struct lane *l = &w->lanes[i];
    struct digest is;

    l->crc = crc32c(l->crc, p, n);
    l->done += n;
    if (l->done < l->e.stored)
        return;
    hash_pair_final(&w->hashes, i, &is);
    w->wrong |= l->crc != l->e.crc || (is_hashed(w, &l->e.id) && !digest_eq(&is, &l->e.id));
    l->busy = false;
}

/* Until one of two lanes is free, or, with all, both are. */
static enum err_code run_lanes(struct pack_walk *w, bool all, struct err *err)
{
    enum err_code rc = OK;

    while (!rc && w->lanes[0].busy && w->lanes[1].busy) {
        const uint8_t *p0, *p1;
        size_t n0, n1;

        rc = lane_read(w, 0, &p0, &n0, err);
        if (!rc)
            rc = lane_read(w, 1, &p1, &n1, err);
        if (rc)
            break;
        n0 = n0 < n1 ? n0 : n1;
        hash_pair_update(&w->hashes, p0, n0, p1, n0);
        lane_took(w, 0, p0, n0);
        lane_took(w, 1, p1, n0);
    }
    for (int i = 0; i < 2 && all; i++)
        while (!rc && w->lanes[i].busy) {
            const uint8_t *p;
            size_t n;

            rc = lane_read(w, i, &p, &n, err);
            if (rc)
                break;
            hash_pair_update(&w->hashes, i == 0 ? p : NULL, i == 0 ? n : 0, i == 1 ? p : NULL,
                             i == 1 ? n : 0);
            lane_took(w, i, p, n);
        }
    return rc;
}

static enum err_code start_lane(struct pack_walk *w, const struct pack_entry *e, struct err *err)
{
    const int i = w->lanes[0].busy;

    CHECK(!w->lanes[i].busy);
    w->lanes[i].e = *e;
    w->lanes[i].done = 0;
    w->lanes[i].crc = 0;
    w->lanes[i].busy = true;
    hash_pair_start(&w->hashes, i);
    return run_lanes(w, false, err);
}

/* Only its checksum: it is not hashed at this level, or not in this part. */
static enum err_code scan_blob(struct pack_walk *w, const struct pack_entry *e, bool *good,
                               struct err *err)
{
    uint32_t crc = 0;
    enum err_code rc = OK;
    size_t n = 0;

    for (size_t at = 0; !rc && at < e->stored; at += n) {
        const uint8_t *p;

        rc = span_some(&w->span, (int64_t)e->off + PACK_RECORD_HEADER + (int64_t)at, e->stored - at,
                       &p, &n, err);
        if (!rc && n == 0)
            rc = err_set(err, ERR_DAMAGED, "the pack is shorter than it was");
        if (!rc)
            crc = crc32c(crc, p, n);
    }
    *good = !rc && crc == e->crc;
    return rc;
}

/* ---- compressed blobs: two at once, decoded ---- */

static void hash_held(struct pack_walk *w, const struct buf *raw, const struct digest *id)
{
    struct digest a, b;

    hash_pair_of(w->held.p, w->held.n, &a, raw->p, raw->n, &b);
    w->wrong |= !digest_eq(&a, &w->held_id) || !digest_eq(&b, id);
    w->holding = false;
}

static enum err_code hold_blob(struct pack_walk *w, const struct pack_entry *e, const uint8_t *p,
                               bool *good, struct err *err)
{
    struct buf *raw = checker_raw(w->c), swap;
    enum err_code rc = checker_decode(w->c, e, p, e->stored, good, err);

    if (rc || !*good)
        return rc;
    if (w->holding) {
        hash_held(w, raw, &e->id);
        return OK;
    }
    swap = w->held;
    w->held = *raw;
    *raw = swap;
    w->held_id = e->id;
    w->holding = true;
    return OK;
}

static enum err_code finish_pairs(struct pack_walk *w, struct err *err)
{
    struct digest is;
    enum err_code rc = run_lanes(w, true, err);

    if (!rc && w->holding) {
        sha256_of(w->held.p, w->held.n, &is);
        w->wrong |= !digest_eq(&is, &w->held_id);
        w->holding = false;
    }
    return rc;
}

/* ---- records ---- */

static enum err_code check_payload(struct pack_walk *w, const struct pack_entry *e, bool *good,
                                   struct err *err)
{
    const bool blob = e->type == REC_BLOB, hashed = is_hashed(w, &e->id);
    const uint8_t *p;
    const char *why;
    enum err_code rc;

    *good = true;
    if (blob && e->enc == ENC_RAW && e->stored >= LANE_MIN) {
        *good = e->stored == e->raw;
        if (!*good)
            return OK;
        return hashed ? start_lane(w, e, err) : scan_blob(w, e, good, err);
    }
    rc = span_at(&w->span, (int64_t)e->off + PACK_RECORD_HEADER, e->stored, &p, err);
    if (rc)
        return rc;
    *good = crc32c(0, p, e->stored) == e->crc;
    if (*good && blob && hashed && e->enc != ENC_RAW && e->raw >= HOLD_MIN)
        return hold_blob(w, e, p, good, err);
    return *good ? checker_record(w->c, e, p, e->stored, w->level, good, &why, err) : OK;
}

/* The toc has one entry per member; i is the first of n at this offset. */
static bool frame_matches(const struct pack_walk *w, size_t i, size_t n)
{
    const char *raw;
    size_t count;
    const struct frame_member *members = checker_members(w->c, &count, &raw);
    uint64_t pos = 0;

    if (count != n)
        return false;
    for (size_t m = 0; m < n; pos += members[m++].len) {
        bool found = false;

        /* Empty members share their position with the next one: look at all that have it. */
        for (size_t k = i; k < i + n && !found && w->toc[k]->pos <= pos; k++)
            found = w->toc[k]->pos == pos && w->toc[k]->raw == members[m].len &&
                    w->toc[k]->flags == members[m].flags &&
                    digest_eq(&w->toc[k]->id, &members[m].id);
        if (!found)
            return false;
    }
    return true;
}

/* The n entries from i on describe the record at *at, which moves on. */
static enum err_code walk_record(struct pack_walk *w, size_t i, size_t n, int64_t *at, bool *clean,
                                 struct err *err)
{
    struct pack_entry h;
    const uint8_t *p;
    enum err_code rc;

    *clean = w->toc[i]->off == *at;
    if (!*clean)
        return OK;
    rc = span_at(&w->span, *at, PACK_RECORD_HEADER, &p, err);
    *clean = !rc && pack_header_decode(p, &h) == NULL && toc_matches(&h, w->toc[i], n) &&
             *at + PACK_RECORD_HEADER + h.stored <= w->toc_off;
    if (!*clean)
        return rc;
    h.off = (uint32_t)*at;
    rc = check_payload(w, &h, clean, err);
    if (!rc && *clean && h.type == REC_FRAME && w->level >= FSCK_FULL)
        *clean = frame_matches(w, i, n);
    *at += PACK_RECORD_HEADER + h.stored;
    progress_add(checker_fsck(w->c)->o->progress, PACK_RECORD_HEADER + h.stored);
    return rc;
}

/* The records from entry i on that start before end. */
static enum err_code walk_records(struct pack_walk *w, size_t i, int64_t end, bool *clean,
                                  struct err *err)
{
    int64_t at = i == 0 ? PACK_HEADER_BYTES : i < w->count ? w->toc[i]->off : w->toc_off;
    enum err_code rc = OK;
    size_t n;

    *clean = true;
    for (; !rc && *clean && !w->wrong && i < w->count && w->toc[i]->off < end; i += n) {
        for (n = 1; i + n < w->count && w->toc[i + n]->off == w->toc[i]->off;)
            n++;
        rc = walk_record(w, i, n, &at, clean, err);
    }
    /* Where the next range begins. */
    *clean =
        !rc && *clean && !w->wrong && at == (i < w->count ? (int64_t)w->toc[i]->off : w->toc_off);
    if (*clean)
        rc = finish_pairs(w, err);
    *clean = *clean && !rc && !w->wrong;
    return rc;
}

/* ---- a range of a pack --------------------------------------------------------------------------- */

struct pack_state {
    struct fsck *f;
    char file[DIGEST_HEX + 1];
    struct digest name;
    int parts;
    atomic_int parts_left;
    atomic_bool doubted; /* by the walk of a part */
};
struct pack_job { /* one of parts of equal length */
    struct pack_state *pack;
    int part, parts;
};

/* Of a pack that is whole, all of it: from any other the salvage takes what is good, and notes that. */
static void count_pack(struct fsck *f, const struct pack_walk *w, int64_t bytes)
{
    for (size_t i = 0; i < w->count; i++)
        fsck_note_journal(f, w->toc[i]);
    CHECK(pthread_mutex_lock(&f->lock) == 0);
    f->report->objects += (int64_t)w->count;
    f->report->bytes += bytes;
    CHECK(pthread_mutex_unlock(&f->lock) == 0);
}

static enum err_code walk_part(struct pack_walk *w, const struct pack_job *job, int fd,
                               int64_t bytes, bool *clean, struct err *err)
{
    const int64_t from = w->toc_off * job->part / job->parts;
    const int64_t to =
        job->part + 1 == job->parts ? w->toc_off : w->toc_off * (job->part + 1) / job->parts;
    enum err_code rc;
    size_t i = 0;

    scan_init(&w->scan, fd, bytes);
    span_init(&w->span, &w->scan);
    for (int k = 0; k < 2; k++)
        span_init(&w->lanes[k].span, &w->scan);
    buf_init(&w->held, CODEC_RAW_MAX);
    while (i < w->count && w->toc[i]->off < from)
        i++;
    rc = walk_records(w, i, to, clean, err);
    span_release(&w->span);
    for (int k = 0; k < 2; k++)
        span_release(&w->lanes[k].span);
    hash_pair_release(&w->hashes);
    buf_release(&w->held);
    return rc;
}

static enum err_code is_whole(struct checker *c, const struct pack_job *job, bool *clean,
                              struct err *err)
{
    struct fsck *f = job->pack->f;
    struct pack_walk w = {.c = c, .level = f->o->level};
    struct pack *pack = NULL;
    enum err_code rc;
    int fd = -1;

    *clean = false;
    rc = pack_open(f->st->packs, &job->pack->name, &pack, err);
    if (!rc)
        rc = toc_by_offset(pack, &w.toc, &w.count, err);
    if (!rc && w.level > FSCK_QUICK)
        rc = os_open(f->st->packs, job->pack->file, O_RDONLY | O_NOFOLLOW, 0, &fd, err);
    *clean = rc == OK;
    if (!rc)
        w.toc_off = pack_bytes(pack) - PACK_TRAILER - (int64_t)w.count * PACK_TOC_ENTRY;
    if (!rc && w.level > FSCK_QUICK)
        rc = walk_part(&w, job, fd, pack_bytes(pack), clean, err);
    if (rc == ERR_DAMAGED || rc == ERR_VERSION) {
        *err = (struct err)ERR_INIT;
        rc = OK;
        *clean = false;
    }
    if (rc || !*clean)
        atomic_store(&job->pack->doubted, true);
    if (atomic_fetch_sub(&job->pack->parts_left, 1) == 1 && !atomic_load(&job->pack->doubted))
        count_pack(f, &w, pack_bytes(pack));
    free(w.toc);
    os_close_quiet(&fd);
    pack_close(pack);
    return rc;
}

/* ---- all of them ------------------------------------------------------------------------------- */

static enum err_code check_part(void *arg, bool cancelled, struct err *err)
{
    const struct pack_job *job = arg;
    struct checker *c;
    enum err_code rc;
    bool clean;

    if (cancelled || atomic_load(&job->pack->doubted))
        return OK;
    c = checker_new(job->pack->f);
    rc = is_whole(c, job, &clean, err);
    checker_free(c);
    return rc;
}

static enum err_code doubt_pack(void *arg, bool cancelled, struct err *err)
{
    const struct pack_state *pack = arg;
    struct checker *c;
    enum err_code rc;

    if (cancelled)
        return OK;
    c = checker_new(pack->f);
    rc = fsck_doubt(c, pack->file, &pack->name, err);
    checker_free(c);
    return rc;
}

static struct pack_state *list_packs(struct fsck *f, const struct os_entry *entries, size_t n,
                                     size_t *count)
{
    struct pack_state *packs = mem_zero(n + 1, sizeof(*packs));

    *count = 0;
    for (size_t i = 0; i < n; i++) {
        struct pack_state *pack = &packs[*count];
        struct err ignored = ERR_INIT;

        if (strlen(entries[i].name) == DIGEST_HEX &&
            digest_parse(entries[i].name, DIGEST_HEX, &pack->name, &ignored) == OK) {
            pack->f = f;
            memcpy(pack->file, entries[i].name, sizeof(pack->file));
            ++*count;
        } else if (entries[i].name[0] != '.') { /* what NFS keeps of open files begins with a dot */
            fsck_found(f, FOUND_STRANGER, entries[i].name, NULL, "packs/%s is no pack of weir's",
                       entries[i].name);
        }
    }
    return packs;
}

/* A few packs are cut, so that no thread waits for the last one long. */
static int cut_pack(const struct fsck *f, const struct pack_state *pack, size_t count)
{
    const size_t wanted = JOBS_PER_CORE * (size_t)f->st->threads / count;
    struct err ignored = ERR_INIT;
    struct stat info;
    int64_t parts;

    if (f->o->level < FSCK_FULL || wanted < 2 ||
        os_stat_at(f->st->packs, pack->file, &info, &ignored) != OK)
        return 1;
    parts = info.st_size / PART_MIN;
    return parts < 1 ? 1 : parts > (int64_t)wanted ? (int)wanted : (int)parts;
}

static size_t cut_packs(const struct fsck *f, struct pack_state *packs, size_t count)
{
    size_t total = 0;

    for (size_t i = 0; i < count; i++) {
        packs[i].parts = cut_pack(f, &packs[i], count);
        atomic_store(&packs[i].parts_left, packs[i].parts);
        total += (size_t)packs[i].parts;
    }
    return total;
}

/* On a thread of the pool; here and now where one job does not need one. */
static enum err_code start(struct pool *pool, pool_fn fn, void *arg, struct err *err)
{
    if (!pool)
        return fn(arg, false, err);
    pool_submit(pool, fn, arg);
    return OK;
}

static enum err_code finish(struct pool *pool, enum err_code rc, struct err *err)
{
    struct err later = ERR_INIT;
    const enum err_code pool_rc = pool ? pool_wait(pool, &later) : OK;

    if (rc || !pool_rc)
        return rc;
    *err = later;
    return pool_rc;
}

static enum err_code check_all(struct pool *pool, struct pack_state *packs, size_t count,
                               size_t total, struct err *err)
{
    struct pack_job *jobs = mem_zero(total + 1, sizeof(*jobs));
    enum err_code rc = OK;
    size_t n = 0;

    for (size_t i = 0; i < count; i++)
        for (int part = 0; !rc && part < packs[i].parts; part++) {
            jobs[n] = (struct pack_job){.pack = &packs[i], .part = part, .parts = packs[i].parts};
            rc = start(pool, check_part, &jobs[n++], err);
        }
    rc = finish(pool, rc, err);
    free(jobs);
    return rc;
}

enum err_code fsck_packs(struct fsck *f, struct err *err)
{
    const int threads = THREADS_PER_CORE * f->st->threads;
    struct os_entry *entries = NULL;
    struct pack_state *packs = NULL;
    struct pool *pool = NULL;
    size_t n = 0, count = 0, total;
    enum err_code rc;

    rc = os_list(f->st->packs, &entries, &n, err);
    if (rc)
        return rc;
    packs = list_packs(f, entries, n, &count);
    f->report->packs += (int64_t)count;
    total = cut_packs(f, packs, count);
    if (total > 1)
        rc = pool_new(total < (size_t)threads ? (int)total : threads, 2 * threads, &pool, err);
    if (rc)
        goto out;
    rc = check_all(pool, packs, count, total, err);
    for (size_t i = 0; !rc && i < count; i++)
        if (atomic_load(&packs[i].doubted))
            rc = start(pool, doubt_pack, &packs[i], err);
    rc = finish(pool, rc, err);
out:
    pool_free(pool);
    free(packs);
    free(entries);
    return rc;
}
