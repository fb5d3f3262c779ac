/* compact.c - cold loose files into compressed packs, small packs into full ones, raw chunks in packs into compressed ones.
 *
 * Nothing dies here, things move: the new packs are durable and known to the index before the old places are condemned, and the index
 * prefers records in packs to loose files.  So there is no mark, and a commit by somebody else between our transactions changes one
 * thing only: it may have announced a slice of a file that is about to go (find_sliced).
 */
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "store/compact_loose.h"
#include "store/compact_raw.h"
#include "store/gc_internal.h"
#include "store/journal_view.h"
#include "store/loose.h"
#include "store/pack_cache.h"

#define NS 1000000000LL
#define SCAN 8192
#define SMALL_PACK_BYTES (PACK_TARGET_BYTES / 4)
#define RAW_SHARE_MIN 16 /* a pack with less than a 16th of raw chunks is not written anew */
#define RACES_MAX 50

struct cold {
    struct digest id;
    struct loc loc;
};

struct compaction {
    struct store *st;
    int lock;
    int64_t start_ns, cold_ns; /* what was used at or after cold_ns stays */
    struct cold *cold;         /* sorted by id */
    size_t cold_count, cold_cap;
    struct raw_chunks *raw;
    struct pack_row *old; /* packs to be written anew, because they are small or hold raw chunks */
    size_t old_count;
    struct evac *evac;
    struct compact_report *report;
    struct progress *progress;
};

/* ---- what is to be done ------------------------------------------------------------------------ */

static enum err_code add_if_cold(struct compaction *c, const struct digest *id,
                                 const struct loc *loc, struct err *err)
{
    char name[LOOSE_NAME], text[DIGEST_TEXT + 1];
    struct stat info;
    enum err_code rc;

    loose_name(id, name);
    rc = os_stat_at(c->st->loose, name, &info, err);
    if (rc == ERR_NOT_FOUND) {
        digest_text(id, text);
        return err_set(err, ERR_DAMAGED,
                       "loose object %s is gone; nothing was replaced, run weir fsck", text);
    }
    if (rc || (int64_t)info.st_atim.tv_sec * NS + info.st_atim.tv_nsec >= c->cold_ns)
        return rc;
    if (c->cold_count == c->cold_cap) {
        c->cold_cap = c->cold_cap ? c->cold_cap * 2 : 64;
        c->cold = mem_grow(c->cold, c->cold_cap, sizeof(*c->cold));
    }
    c->cold[c->cold_count++] = (struct cold){.id = *id, .loc = *loc};
    c->report->bytes_before += info.st_size;
    return OK;
}

typedef enum err_code (*object_fn)(struct compaction *c, const struct digest *id,
                                   const struct loc *loc, struct err *err);

/* fn for every object in a place of that type. */
static enum err_code each_object(struct compaction *c, enum loc_type type, object_fn fn,
                                 struct err *err)
{
    struct digest *ids = mem_alloc(SCAN * sizeof(*ids)), cursor = {{0}};
    struct loc *locs = mem_alloc(SCAN * sizeof(*locs));
    bool started = false;
    size_t n = 1;
    enum err_code rc = OK;

    while (!rc && n > 0) {
        rc = index_scan(c->st->index, &cursor, &started, ids, locs, SCAN, &n, err);
        for (size_t i = 0; !rc && i < n; i++)
            if (locs[i].type == type)
                rc = fn(c, &ids[i], &locs[i], err);
    }
    free(ids);
    free(locs);
    return rc;
}

static bool is_small(const struct compaction *c, const struct pack_row *row)
{
    return row->bytes < SMALL_PACK_BYTES && row->records > 0 && row->created_ns < c->cold_ns;
}

static bool is_raw(const struct compaction *c, const struct pack_row *row)
{
    return raw_in_pack(c->raw, row->number) * RAW_SHARE_MIN > row->bytes;
}

/* One small pack alone would only be copied.  When others are written anyhow it joins them: else the last of the new ones and it would be
 * two small packs, and the next compaction not be done before it began. */
static enum err_code find_old_packs(struct compaction *c, struct err *err)
{
    size_t n = 0, kept = 0, raw = 0, small = 0;
    enum err_code rc = raw_find(c->st, c->cold_ns, &c->raw, err);

    if (!rc)
        rc = index_packs(c->st->index, &c->old, &n, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++) {
        const bool has_raw = is_raw(c, &c->old[i]), alone_small = is_small(c, &c->old[i]);

        raw += has_raw;
        small += alone_small;
        if (has_raw || alone_small)
            c->old[kept++] = c->old[i];
    }
    if (kept == 1 && raw == 0 && c->cold_count == 0)
        kept = small = 0;
    c->old_count = kept;
    c->report->packs_merged = (int64_t)small;
    c->report->packs_compressed = (int64_t)raw;
    for (size_t i = 0; i < kept; i++)
        c->report->bytes_before += c->old[i].bytes;
    return OK;
}

static struct cold *find_cold(const struct compaction *c, const struct digest *id)
{
    size_t low = 0, high = c->cold_count;

    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        const int order = digest_cmp(&c->cold[mid].id, id);

        if (order == 0)
            return &c->cold[mid];
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

/* ---- packing ----------------------------------------------------------------------------------- */

static enum err_code pack_cold(struct compaction *c, struct err *err)
{
    struct packer *p = NULL;
    enum err_code rc;

    rc = packer_new(c->st, c->evac, &p, err);
    for (size_t i = 0; !rc && i < c->cold_count; i++)
        rc = packer_add(p, &c->cold[i].id, &c->cold[i].loc, c->progress, err);
    if (!rc)
        rc = packer_finish(p, err);
    packer_free(p);
    return rc;
}

/* ---- merging ----------------------------------------------------------------------------------- */

struct merge {
    const struct compaction *c;
    const struct journal_view *journal;
    uint32_t number;
    struct digest *ids; /* of the pack's toc, with their places */
    struct loc *locs;
    size_t count;
    struct err err; /* of is_wanted */
};

/* Repeating an announcement says that the file is there. */
static bool file_stays(struct merge *m, const struct pack_entry *e)
{
    struct err err = ERR_INIT;
    char name[LOOSE_NAME];
    struct stat info;
    enum err_code rc;

    loose_name(&e->id, name);
    rc = os_stat_at(m->c->st->loose, name, &info, &err);
    if (rc && rc != ERR_NOT_FOUND && m->err.code == OK)
        m->err = err;
    return !rc && (uint64_t)info.st_size == e->raw;
}

/* An object counts here when the index reads it from here; copies of it elsewhere are left behind.  An announcement counts as long as
 * its file is there, since other objects' chunks may be slices of it; also when the file is being packed in this very run, because only
 * keep_if_sliced, later, knows whether it goes. */
static bool is_wanted(void *arg, const struct pack_entry *e)
{
    struct merge *m = arg;
    size_t low = 0, high = m->count;

    if (e->type == REC_BIND || e->type == REC_REF)
        return journal_counts(m->journal, e);
    if (e->type == REC_LOOSE)
        return file_stays(m, e);
    if (e->type == REC_BLOB && raw_has(m->c->raw, m->number, e->off))
        return false; /* it was copied by raw_encode */
    while (low < high) {
        const size_t mid = low + (high - low) / 2;

        if (digest_cmp(&m->ids[mid], &e->id) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low < m->count && digest_eq(&m->ids[low], &e->id) && m->locs[low].pack == m->number &&
           m->locs[low].off == e->off;
}

static enum err_code merge_pack(struct compaction *c, struct merge *m, const struct pack_row *row,
                                struct err *err)
{
    const struct pack_entry *toc;
    struct pack *pack = NULL;
    enum err_code rc;

    rc = pack_open(c->st->packs, &row->name, &pack, err);
    if (!rc)
        rc = pack_toc(pack, &toc, &m->count, err);
    if (rc) {
        pack_close(pack);
        return rc == ERR_NOT_FOUND
                   ? err_set(err, ERR_DAMAGED, "a pack of the index is gone; run weir fsck")
                   : rc;
    }
    m->number = row->number;
    m->ids = mem_alloc((m->count + 1) * sizeof(*m->ids));
    m->locs = mem_alloc((m->count + 1) * sizeof(*m->locs));
    for (size_t i = 0; i < m->count; i++)
        m->ids[i] = toc[i].id;
    rc = index_get(c->st->index, m->ids, m->count, m->locs, err);
    if (!rc)
        rc = raw_encode(c->st, c->raw, row->number, pack, c->evac, c->progress, err);
    if (!rc)
        rc = evac_copy(c->evac, pack, is_wanted, m, err);
    if (!rc && m->err.code != OK) {
        *err = m->err;
        rc = err->code;
    }
    free(m->ids);
    free(m->locs);
    pack_close(pack);
    return rc;
}

static enum err_code merge_old(struct compaction *c, struct err *err)
{
    struct journal_view *journal = NULL;
    struct merge m = {.c = c, .err = ERR_INIT};
    enum err_code rc = OK;

    if (c->old_count > 0)
        rc = journal_view_new(c->st, &journal, err);
    m.journal = journal;
    for (size_t i = 0; !rc && i < c->old_count; i++)
        rc = merge_pack(c, &m, &c->old[i], err);
    journal_view_free(journal);
    return rc;
}

/* ---- letting the old places go ------------------------------------------------------------------- */

static void list_going(const struct compaction *c, struct condemned *out)
{
    struct idlist packs = {0}, loose = {0};

    for (size_t i = 0; i < c->old_count; i++)
        idlist_add(&packs, &c->old[i].name);
    for (size_t i = 0; i < c->cold_count; i++)
        idlist_add(&loose, &c->cold[i].id);
    *out = (struct condemned){
        .packs = packs.v, .pack_count = packs.n, .loose = loose.v, .loose_count = loose.n};
}

/* A chunk is still read out of a file that was packed: another record announces the file with another list of chunks, and
 * somebody's recipe may use those.  The file stays; gc will save the chunk or find it unused. */
static enum err_code keep_if_sliced(struct compaction *c, const struct digest *id,
                                    const struct loc *loc, struct err *err)
{
    struct pack *pack = NULL;
    struct pack_entry e;
    struct cold *cold;
    enum err_code rc;

    (void)id;
    rc = pack_cache_get(c->st, loc->pack, &pack, err);
    if (rc)
        return rc;
    rc = pack_read_header(pack, loc->off, &e, err);
    pack_cache_put(c->st, pack);
    cold = rc ? NULL : find_cold(c, &e.id);
    if (cold) {
        c->report->loose_packed--;
        memmove(cold, cold + 1, (size_t)(c->cold + c->cold_count - (cold + 1)) * sizeof(*cold));
        c->cold_count--;
    }
    return rc;
}

static enum err_code condemn(struct compaction *c, struct err *err)
{
    struct index_stat stat;
    bool raced = true;
    enum err_code rc;

    rc = index_stat(c->st->index, &stat, err);
    for (int i = 0; !rc && raced && i < RACES_MAX; i++) {
        struct condemned going = {0};

        if (c->cold_count > 0)
            rc = each_object(c, LOC_SLICE, keep_if_sliced, err);
        list_going(c, &going);
        if (!rc)
            rc = index_condemn(c->st->index, &going, stat.commits, &raced, &stat.commits, err);
        condemned_release(&going);
    }
    if (!rc && raced)
        rc = err_set(err, ERR_AGAIN,
                     "somebody committed to the store each of %d times that old files were about "
                     "to go; they stay, try again when less is written",
                     RACES_MAX);
    return rc;
}

static enum err_code replace(struct compaction *c, struct err *err)
{
    struct gc_deleted deleted;
    struct condemned going;
    enum err_code rc;

    list_going(c, &going);
    rc = gc_commit_saved(c->st, c->evac, &going, err);
    condemned_release(&going);
    if (!rc)
        rc = condemn(c, err);
    if (!rc)
        rc = gc_delete(c->st, c->start_ns, &deleted, err);
    return rc;
}

/* ---- the whole --------------------------------------------------------------------------------- */

static enum err_code begin(struct compaction *c, int64_t cold_s, bool dry_run, struct err *err)
{
    int64_t merged;
    enum err_code rc;

    rc = store_lock_gc(c->st, &c->lock, err);
    if (rc)
        return rc;
    c->start_ns = os_now_ns();
    c->cold_ns = cold_s <= 0                 ? INT64_MAX
                 : cold_s > c->start_ns / NS ? 0
                                             : c->start_ns - cold_s * NS;
    if (!dry_run) {
        rc = index_sync(c->st->index, c->st->packs, &merged, err);
        if (!rc)
            rc = gc_finish_condemned(c->st, c->start_ns - c->st->config.grace_s * NS, err);
    }
    if (!rc)
        rc = each_object(c, LOC_LOOSE, add_if_cold, err);
    if (!rc)
        rc = find_old_packs(c, err);
    c->report->loose_packed = (int64_t)c->cold_count;
    return rc;
}

enum err_code store_compact(struct store *st, const struct compact_options *o,
                            struct compact_report *out, struct err *err)
{
    static const struct compact_options defaults;
    struct compaction c = {.st = st, .lock = -1, .report = out};
    enum err_code rc;

    CHECK(st);
    CHECK(st->index);
    CHECK(out);
    if (!o)
        o = &defaults;
    c.progress = o->progress;
    *out = (struct compact_report){0};
    rc = begin(&c, o->cold_s, o->dry_run, err);
    if (rc)
        goto out;
    if (o->dry_run || c.cold_count + c.old_count == 0) {
        out->bytes_after = out->bytes_before;
        goto out;
    }
    rc = evac_new(st, &c.evac, err);
    if (!rc)
        evac_tried(c.evac);
    if (!rc)
        rc = pack_cold(&c, err);
    if (!rc)
        rc = merge_old(&c, err);
    if (!rc)
        rc = evac_finish(c.evac, err);
    if (!rc)
        rc = replace(&c, err);
    if (c.evac)
        out->bytes_after = evac_bytes(c.evac);
out:
    evac_free(c.evac);
    free(c.cold);
    free(c.old);
    raw_free(c.raw);
    os_close_quiet(&c.lock);
    return rc;
}
