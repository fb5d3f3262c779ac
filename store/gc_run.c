/* The whole of a gc: the steps of gc.c in their order, temporary files, the report. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/os.h"
#include "store/gc_internal.h"

#define NS 1000000000LL

/* A grace of centuries must not overflow. */
static int64_t seconds_before(int64_t ns, int64_t s)
{
    return s > ns / NS ? 0 : ns - s * NS;
}

enum err_code gc_begin(struct gc *g, struct store *st, int64_t grace_s, bool dry_run,
                       struct err *err)
{
    struct index_stat stat;
    int64_t merged;
    enum err_code rc;

    *g = (struct gc){.st = st, .lock = -1};
    CHECK(st->index);
    rc = store_lock_gc(st, &g->lock, err);
    if (rc)
        return rc;
    g->start_ns = os_now_ns();
    g->young_ns = seconds_before(g->start_ns, grace_s);
    if (!dry_run) {
        rc = index_sync(st->index, st->packs, &merged, err);
        if (!rc)
            rc = gc_finish_condemned(st, g->young_ns, err);
    }
    if (!rc)
        rc = index_stat(st->index, &stat, err);
    if (!rc)
        rc = mark_new(st, &g->mark, err);
    if (rc)
        return rc;
    g->commits = stat.commits;
    plan_init(&g->plan, st, g->mark);
    g->plan.young_ns = g->young_ns;
    g->plan.orphan_ns = seconds_before(g->start_ns, GC_STALE_MIN_S);
    return OK;
}

void gc_end(struct gc *g)
{
    gc_plan_release(&g->plan);
    evac_free(g->evac);
    mark_free(g->mark);
    os_close_quiet(&g->lock);
    *g = (struct gc){.lock = -1};
}

/* ---- tmp/ -------------------------------------------------------------------------------------- */

/* How far os_now_ns was moved by a test. */
static int64_t time_travel(void)
{
    struct timespec ts;

    CHECK(clock_gettime(CLOCK_REALTIME, &ts) == 0);

    const int64_t ahead = os_now_ns() - ((int64_t)ts.tv_sec * NS + ts.tv_nsec);

    return ahead > -NS && ahead < NS ? 0 : ahead;
}

/* Now, by the clock of the file system that tmp/ is on: a file server's may differ from ours. */
static enum err_code folder_now(struct store *st, int64_t *out, struct err *err)
{
    char name[64];
    uint64_t random;
    struct stat info;
    enum err_code rc;
    int fd = -1;

    os_random(&random, sizeof(random));
    snprintf(name, sizeof(name), "clock.%016llx", (unsigned long long)random);
    rc = os_open(st->tmp, name, O_CREAT | O_EXCL | O_WRONLY, 0600, &fd, err);
    if (rc)
        return rc;
    rc = os_stat(fd, &info, err);
    os_close_quiet(&fd);
    if (!rc)
        *out = (int64_t)info.st_mtim.tv_sec * NS + info.st_mtim.tv_nsec + time_travel();

    struct err gone = ERR_INIT;
    const enum err_code unlinked = os_unlink(st->tmp, name, &gone);

    if (!rc && unlinked) {
        rc = unlinked;
        *err = gone;
    }
    return rc;
}

static enum err_code clean_one(struct store *st, const char *name, int64_t before_ns, bool dry_run,
                               struct buf *list, int64_t *deleted, struct err *err)
{
    struct stat info;
    enum err_code rc;

    rc = os_stat_at(st->tmp, name, &info, err);
    if (rc == ERR_NOT_FOUND)
        return OK;
    if (rc)
        return rc;
    /* Not the mtime: it is set to that of a loose file just before the link.  Writing moves the ctime as well. */
    if ((int64_t)info.st_ctim.tv_sec * NS + info.st_ctim.tv_nsec >= before_ns)
        return OK;
    if (!dry_run)
        rc = os_unlink(st->tmp, name, err);
    if (rc == ERR_NOT_FOUND)
        return OK;
    if (!rc && list)
        buf_printf(list, "tmp %s: left behind by a writer that was killed\n", name);
    *deleted += rc == OK;
    return rc;
}

enum err_code gc_clean_tmp(struct store *st, int64_t grace_s, bool dry_run, struct buf *list,
                           int64_t *deleted, struct err *err)
{
    struct os_entry *entries = NULL;
    int64_t now = 0, before;
    size_t count = 0;
    enum err_code rc;

    rc = os_list(st->tmp, &entries, &count, err);
    if (!rc && count > 0)
        rc = folder_now(st, &now, err);
    before = seconds_before(now, grace_s > GC_STALE_MIN_S ? grace_s : GC_STALE_MIN_S);
    for (size_t i = 0; !rc && i < count; i++)
        rc = clean_one(st, entries[i].name, before, dry_run, list, deleted, err);
    free(entries);
    return rc;
}

/* ---- housekeeping ------------------------------------------------------------------------------- */

static enum err_code drop_old_leases(struct gc *g, struct err *err)
{
    struct lease_row *rows = NULL;
    size_t n = 0;
    enum err_code rc = index_leases(g->st->index, &rows, &n, err);

    for (size_t i = 0; !rc && i < n; i++)
        if (rows[i].expiry_ns <= g->start_ns) {
            rows[i].expiry_ns = 0;
            rc = index_lease(g->st->index, &rows[i], err);
        }
    free(rows);
    return rc;
}

/* ---- the whole --------------------------------------------------------------------------------- */

static void report_plan(const struct gc *g, struct gc_report *out)
{
    out->roots = g->roots;
    out->live_objects = g->plan.live_objects;
    out->live_bytes = g->plan.live_bytes;
    out->dead_objects = out->freed_bytes = out->packs_deleted = out->packs_rewritten =
        out->loose_deleted = 0;
    for (size_t i = 0; i < g->plan.pack_count; i++) {
        const struct plan_pack *p = &g->plan.packs[i];

        if (p->verdict == PLAN_KEEP)
            continue;
        out->packs_deleted += p->verdict == PLAN_DELETE;
        out->packs_rewritten += p->verdict == PLAN_REWRITE;
        out->dead_objects += p->dead_objects;
        out->freed_bytes += p->row.bytes - p->live_bytes;
    }
    for (size_t i = 0; i < g->plan.loose_count; i++) {
        const struct plan_loose *l = &g->plan.loose[i];

        if (l->verdict == PLAN_KEEP)
            continue;
        out->loose_deleted += l->state != LOOSE_GONE;
        out->dead_objects += l->state == LOOSE_DEAD;
        out->freed_bytes += l->state != LOOSE_GONE ? l->size : 0;
    }
}

/* After a rebuild nobody knows what was used lately, so everything was. */
static enum err_code all_touched(struct gc *g, bool *all, struct err *err)
{
    int64_t touched = 0;
    enum err_code rc = index_touch_all(g->st->index, &touched, err);

    *all = !rc && touched > 0 && touched >= g->young_ns;
    return rc;
}

static enum err_code collect(struct gc *g, const struct gc_options *o, struct gc_report *out,
                             struct err *err)
{
    struct gc_deleted deleted = {0};
    enum err_code rc;

    rc = gc_mark_roots(g, err);
    if (!rc)
        rc = gc_plan_make(&g->plan, err);
    if (rc)
        return rc;
    report_plan(g, out);
    if (o->list)
        gc_list_plan(g, o->list);
    if (o->dry_run)
        return o->list ? gc_list_roots(g, o->list, err) : OK;
    rc = gc_save(g, err);
    if (!rc)
        rc = gc_condemn(g, err);
    if (rc)
        return rc;
    report_plan(g, out);
    rc = gc_delete(g->st, g->young_ns, &deleted, err);
    out->loose_deleted -= deleted.loose_kept;
    return rc;
}

enum err_code store_gc(struct store *st, const struct gc_options *o, struct gc_report *out,
                       struct err *err)
{
    static const struct gc_options defaults = {.grace_s = -1};
    struct gc g;
    bool all = false;
    enum err_code rc;

    CHECK(st);
    CHECK(out);
    if (!o)
        o = &defaults;

    const int64_t grace_s = o->grace_s < 0 ? st->config.grace_s : o->grace_s;

    *out = (struct gc_report){0};
    rc = gc_begin(&g, st, grace_s, o->dry_run, err);
    if (!rc)
        rc = all_touched(&g, &all, err);
    if (!rc && !all)
        rc = collect(&g, o, out, err);
    out->all_young = all;
    if (!rc && all && o->list)
        buf_str(o->list,
                "nothing goes: the index was rebuilt within the grace period, and what was "
                "used before that is not known\n");
    if (!rc)
        rc = gc_clean_tmp(st, grace_s, o->dry_run, o->list, &out->tmp_deleted, err);
    if (!rc && !o->dry_run)
        rc = index_forget_touch(st->index, g.young_ns, err);
    if (!rc && !o->dry_run)
        rc = drop_old_leases(&g, err);
    gc_end(&g);
    return rc;
}
