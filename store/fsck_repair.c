/* fsck_repair.c - nothing is ever deleted here: what is damaged moves into quarantine/, after what is whole in it was copied.
 *
 * The order makes a kill harmless at any point: new packs are durable before an old one moves; a pack that has moved and is still in
 * the index is found by the next fsck, which goes on.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "store/evacuate.h"
#include "store/fsck_internal.h"
#include "store/gc_internal.h"
#include "store/loose.h"
#include "store/transfer.h"

#define RACES_MAX 50

static void repaired(struct fsck *f, size_t i)
{
    f->report->problems[i].repaired = true;
}

/* ---- files ------------------------------------------------------------------------------------- */

static enum err_code quarantine(struct fsck *f, int dir, const char *name, struct err *err)
{
    const char *last = strrchr(name, '/');
    char aside[256];
    uint64_t random;
    enum err_code rc;

    os_random(&random, sizeof(random));
    snprintf(aside, sizeof(aside), "%.200s.%016" PRIx64, last ? last + 1 : name, random);
    rc = os_rename(dir, name, f->st->quarantine, aside, err);
    if (rc == ERR_NOT_FOUND) { /* it was moved by a run that was killed afterwards */
        *err = (struct err)ERR_INIT;
        return OK;
    }
    if (!rc)
        rc = os_fsync(f->st->quarantine, err);
    return rc ? rc : os_fsync(dir, err);
}

static enum err_code set_time_back(struct fsck *f, const char *name, bool *done, struct err *err)
{
    enum err_code rc;
    int fd = -1;

    rc = os_open(f->st->loose, name, O_RDONLY | O_NOFOLLOW, 0, &fd, err);
    if (!rc)
        rc = os_set_mtime(fd, LOOSE_MTIME_NS, err);
    if (!rc)
        rc = os_chmod(fd, 0444, err);
    os_close_quiet(&fd);
    *done = rc == OK;
    if (rc == ERR_DENIED) { /* another user's: it is hashed at each use, slow but right */
        *err = (struct err)ERR_INIT;
        rc = OK;
    }
    return rc;
}

static enum err_code repair_file(struct fsck *f, size_t i, struct err *err)
{
    const struct finding *found = &f->findings[i];
    const struct digest *id = &f->report->problems[i].id;
    enum err_code rc = OK;
    bool done = false;

    if (found->kind == FOUND_LOOSE) {
        rc = loose_quarantine(f->st, id, err);
        if (rc == ERR_NOT_FOUND) { /* two findings about one file */
            *err = (struct err)ERR_INIT;
            rc = OK;
        }
    } else if (found->kind == FOUND_LOOSE_MISSING) {
        rc = index_drop_objects(f->st->index, id, 1, err);
    } else if (found->kind == FOUND_LOOSE_TOUCHED) {
        rc = set_time_back(f, found->file, &done, err);
    } else if (found->kind == FOUND_STRANGER) {
        rc =
            quarantine(f, strchr(found->file, '/') ? f->st->loose : f->st->packs, found->file, err);
        done = !rc;
    }
    if (done)
        repaired(f, i);
    return rc;
}

/* ---- packs ------------------------------------------------------------------------------------- */

struct salvage {
    struct fsck *f;
    struct evac *evac;
    struct checker *checker;
    struct pack *pack;
    const struct pack_entry *toc; /* NULL when there is none to believe */
    size_t count;
    bool
        lost_way; /* records were skipped, and no toc says what is a record and what only looks like one */
};

/* Contents prove themselves by their hash.  A bind or ref does not: behind a damaged place without a toc it might be part of
 * somebody's file that looks like a record, and is left out. */
static bool is_believed(const struct salvage *s, const struct pack_entry *e)
{
    if (e->type == REC_BLOB || e->type == REC_FRAME || !s->lost_way)
        return true;
    for (size_t i = 0; i < s->count; i++)
        if (s->toc[i].off == e->off)
            return s->toc[i].type == e->type && digest_eq(&s->toc[i].id, &e->id);
    return false;
}

static enum err_code save_members(struct salvage *s, struct err *err)
{
    const char *raw;
    size_t count;
    const struct frame_member *m = checker_members(s->checker, &count, &raw);
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < count; raw += m[i++].len)
        if (checker_member_good(s->checker, i))
            rc = evac_member(s->evac, &m[i].id, m[i].flags, raw, m[i].len, err);
    return rc;
}

/* An announcement says that the file is there: it is only repeated when that is so. */
static enum err_code is_announced(struct salvage *s, const struct pack_entry *e, bool *there,
                                  struct err *err)
{
    char name[LOOSE_NAME];
    struct stat info;
    enum err_code rc;

    loose_name(&e->id, name);
    rc = os_stat_at(s->f->st->loose, name, &info, err);
    *there = !rc && (uint64_t)info.st_size == e->raw;
    if (rc != ERR_NOT_FOUND)
        return rc;
    *err = (struct err)ERR_INIT;
    return OK;
}

static enum err_code save_record(struct salvage *s, const struct pack_entry *e,
                                 const struct buf *payload, struct err *err)
{
    const char *why, *p = payload->p ? payload->p : "";
    bool good;
    enum err_code rc;

    if (!is_believed(s, e))
        return OK;
    rc = checker_record(s->checker, e, p, payload->n, FSCK_FULL, &good, &why, err);
    if (rc)
        return rc;
    if (e->type == REC_FRAME)
        return save_members(s, err);
    if (good && e->type == REC_LOOSE)
        rc = is_announced(s, e, &good, err);
    if (rc || !good)
        return rc;
    rc = evac_put(s->evac, e, p, payload->n, err);
    if (!rc)
        fsck_note_journal(s->f, e);
    return rc;
}

static enum err_code save_records(struct salvage *s, struct err *err)
{
    uint32_t off = PACK_HEADER_BYTES;
    struct pack_entry e;
    struct buf payload;
    bool end = false;
    enum err_code rc = OK;

    buf_init(&payload, PACK_PAYLOAD_MAX);
    while (!rc && !end) {
        rc = pack_scan(s->pack, &off, &e, &payload, &end, err);
        if (rc == ERR_DAMAGED) {
            s->lost_way = true;
            *err = (struct err)ERR_INIT;
            rc = OK;
        } else if (!rc && !end) {
            rc = save_record(s, &e, &payload, err);
        }
    }
    buf_release(&payload);
    return rc;
}

static enum err_code save_pack(struct fsck *f, struct evac *evac, const char *file, struct err *err)
{
    struct salvage s = {.f = f, .evac = evac};
    struct err ignored = ERR_INIT;
    enum err_code rc;

    rc = pack_open_damaged(f->st->packs, file, &s.pack, err);
    if (rc == ERR_DAMAGED || rc == ERR_NOT_FOUND) { /* no regular file: nothing can be saved */
        *err = (struct err)ERR_INIT;
        return OK;
    }
    s.checker = checker_new(f);
    if (!rc && pack_toc(s.pack, &s.toc, &s.count, &ignored) != OK) {
        s.toc = NULL;
        s.count = 0;
    }
    if (!rc)
        rc = save_records(&s, err);
    checker_free(s.checker);
    pack_close(s.pack);
    return rc;
}

/* ---- binds and refs that only the index knows any more -------------------------------------------- */

static int by_journal(const void *a, const void *b)
{
    const struct journal_seen *x = a, *y = b;

    if (x->type != y->type)
        return x->type < y->type ? -1 : 1;
    if (x->stamp != y->stamp)
        return x->stamp < y->stamp ? -1 : 1;
    return digest_cmp(&x->id, &y->id);
}

static bool is_recorded(const struct fsck *f, uint8_t type, const struct digest *id, int64_t stamp)
{
    const struct journal_seen wanted = {.id = *id, .stamp = (uint64_t)stamp, .type = type};

    return f->journal_count > 0 &&
           bsearch(&wanted, f->journal, f->journal_count, sizeof(wanted), by_journal) != NULL;
}

static enum err_code restore_refs(struct fsck *f, struct evac *evac, struct err *err)
{
    struct ref_row *rows = NULL;
    struct buf payload;
    size_t n = 0;
    enum err_code rc = index_refs(f->st->index, STR(""), REF_ALL, &rows, &n, err);

    buf_init(&payload, 4096);
    for (size_t i = 0; !rc && i < n; i++) {
        struct pack_entry e = {.type = REC_REF, .stamp = (uint64_t)rows[i].stamp};

        sha256_of(rows[i].name, strlen(rows[i].name), &e.id);
        if (is_recorded(f, REC_REF, &e.id, rows[i].stamp))
            continue;
        buf_clear(&payload);
        ref_encode(&rows[i].digest, (uint8_t)rows[i].kind, str_of(rows[i].name), &payload);
        rc = evac_put(evac, &e, payload.p, payload.n, err);
    }
    buf_release(&payload);
    free(rows);
    return rc;
}

static enum err_code restore_binds(struct fsck *f, struct evac *evac, struct err *err)
{
    struct action_row *rows = NULL;
    size_t n = 0;
    enum err_code rc = index_actions(f->st->index, &rows, &n, err);

    for (size_t i = 0; !rc && i < n; i++) {
        const struct pack_entry e = {
            .id = rows[i].key, .type = REC_BIND, .stamp = (uint64_t)rows[i].stamp};

        if (!is_recorded(f, REC_BIND, &rows[i].key, rows[i].stamp))
            rc = evac_put(evac, &e, rows[i].result.b, DIGEST_BYTES, err);
    }
    free(rows);
    return rc;
}

/* ---- out with the old, in with the new --------------------------------------------------------- */

/* Nothing that anybody reads goes: the files are out of packs/ already, or never were there. */
static enum err_code drop_packs(struct fsck *f, const struct condemned *going, struct err *err)
{
    struct gc_deleted ignored;
    struct index_stat stat;
    bool raced = true;
    enum err_code rc;

    rc = index_stat(f->st->index, &stat, err);
    for (int i = 0; !rc && raced && i < RACES_MAX; i++)
        rc = index_condemn(f->st->index, going, stat.commits, &raced, &stat.commits, err);
    if (!rc && raced)
        rc = err_set(err, ERR_AGAIN, "the store is written to all the time; run weir fsck again");
    return rc ? rc : gc_delete(f->st, os_now_ns(), &ignored, err);
}

static void list_packs(const struct fsck *f, struct idlist *all, struct idlist *present)
{
    for (size_t i = 0; i < f->report->problem_count; i++) {
        const struct finding *found = &f->findings[i];
        struct err ignored = ERR_INIT;
        struct digest name;

        if ((found->kind != FOUND_PACK && found->kind != FOUND_PACK_MISSING) ||
            digest_parse(found->file, strlen(found->file), &name, &ignored) != OK)
            continue;
        idlist_add(all, &name);
        if (found->kind == FOUND_PACK)
            idlist_add(present, &name);
    }
    idlist_sort(all);
    idlist_sort(present);
}

static enum err_code repair_packs(struct fsck *f, struct err *err)
{
    struct idlist all = {0}, present = {0};
    struct condemned going = {0};
    struct evac *evac = NULL;
    char hex[DIGEST_HEX + 1];
    enum err_code rc;

    list_packs(f, &all, &present);
    going = (struct condemned){.packs = all.v, .pack_count = all.n};
    rc = evac_new(f->st, &evac, err);
    for (size_t i = 0; !rc && i < present.n; i++) {
        digest_hex(&present.v[i], hex);
        rc = save_pack(f, evac, hex, err);
    }
    if (f->journal_count > 0)
        qsort(f->journal, f->journal_count, sizeof(*f->journal), by_journal);
    if (!rc)
        rc = restore_refs(f, evac, err);
    if (!rc)
        rc = restore_binds(f, evac, err);
    if (!rc)
        rc = evac_finish(evac, err);
    if (!rc)
        rc = gc_commit_saved(f->st, evac, &going, err);
    for (size_t i = 0; !rc && i < present.n; i++) {
        digest_hex(&present.v[i], hex);
        rc = quarantine(f, f->st->packs, hex, err);
    }
    if (!rc && all.n > 0)
        rc = drop_packs(f, &going, err);
    evac_free(evac);
    idlist_release(&all);
    idlist_release(&present);
    return rc;
}

enum err_code fsck_rebuild(struct fsck *f, struct err *err)
{
    struct rebuild_report report = {0};
    struct err open_err = ERR_INIT;
    struct store *st = f->st;
    struct buf path;
    enum err_code rc, opened;

    buf_init(&path, 1 << 16);
    buf_printf(&path, "%s/index", st->root);
    rc = buf_check(&path, "path of the index", err);
    if (rc)
        goto out;
    /* Numbers of packs change: nothing that was opened by number may stay. */
    pack_cache_free(st->cache);
    st->cache = NULL;
    index_close(st->index);
    st->index = NULL;
    rc = index_rebuild(path.p, st->packs, st->loose, &report, err);
    /* The old one, when there is no new one. */
    opened = index_open(path.p, INDEX_WRITE, &st->index, &open_err);
    if (!opened)
        opened = pack_cache_new(st, &st->cache, &open_err);
    if (!rc && opened) {
        rc = opened;
        *err = open_err;
    }
out:
    buf_release(&report.problems);
    buf_release(&path);
    if (rc)
        return rc;
    for (size_t i = 0; i < f->report->problem_count; i++)
        if (f->findings[i].kind == FOUND_INDEX)
            repaired(f, i);
    f->rebuilt = true;
    f->index_bad = f->index_unusable = false;
    return OK;
}

/* ---- what is lost ------------------------------------------------------------------------------ */

static enum err_code list_lost(struct fsck *f, struct idlist *lost, struct err *err)
{
    struct loc loc;
    enum err_code rc = OK;

    lost->n = 0;
    for (size_t i = 0; !rc && i < f->report->problem_count; i++) {
        const struct fsck_problem *p = &f->report->problems[i];

        if (digest_is_zero(&p->id) || !p->part_of)
            continue;
        rc = index_get(f->st->index, &p->id, 1, &loc, err);
        if (!rc && loc.type == 0)
            idlist_add(lost, &p->id);
    }
    idlist_sort(lost);
    return rc;
}

enum err_code fsck_fetch(struct fsck *f, struct err *err)
{
    struct idlist lost = {0};
    bool *found;
    enum err_code rc;

    rc = list_lost(f, &lost, err);
    found = mem_zero(lost.n + 1, sizeof(*found));
    /* A remote that cannot be reached keeps nobody from the rest of the repair. */
    if (!rc && lost.n > 0 && f->st->config.remote_count > 0) {
        struct err fetch_err = ERR_INIT;

        if (transfer_fetch(f->st, lost.v, lost.n, found, &fetch_err) != OK)
            fsck_found(f, FOUND_REMOTE, NULL, NULL, "fetching from the remotes: %s",
                       fetch_err.text);
    }
    free(found);
    idlist_release(&lost);
    return rc;
}

enum err_code fsck_repair(struct fsck *f, struct err *err)
{
    enum err_code rc = OK;
    bool packs = false;

    for (size_t i = 0; !rc && i < f->report->problem_count; i++) {
        const enum finding_kind kind = f->findings[i].kind;

        packs = packs || kind == FOUND_PACK || kind == FOUND_PACK_MISSING || kind == FOUND_JOURNAL;
        rc = repair_file(f, i, err);
    }
    if (!rc && packs)
        rc = repair_packs(f, err);
    if (!rc && f->index_bad)
        rc = fsck_rebuild(f, err);
    for (size_t i = 0; !rc && packs && i < f->report->problem_count; i++)
        if (f->findings[i].kind == FOUND_JOURNAL || digest_is_zero(&f->report->problems[i].id))
            if (f->findings[i].kind != FOUND_STRANGER && f->findings[i].kind != FOUND_REMOTE)
                repaired(f, i);
    return rc;
}
