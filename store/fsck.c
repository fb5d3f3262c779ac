#include "store/fsck.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "base/pool.h"
#include "store/fsck_internal.h"
#include "store/gc_internal.h"

#define PROBLEMS_MAX 100000 /* kept; a store that has more is one that was lost */
#define READ_STEP ((size_t)1 << 20)
#define SCAN 4096

/* ---- findings ---------------------------------------------------------------------------------- */

static void add_problem(struct fsck *f, enum finding_kind kind, const char *file,
                        const struct digest *id, const char *text)
{
    struct fsck_report *r = f->report;
    struct finding *found;

    if (r->problem_count == PROBLEMS_MAX)
        return;
    if (r->problem_count == r->problem_cap) {
        r->problem_cap = r->problem_cap ? r->problem_cap * 2 : 16;
        r->problems = mem_grow(r->problems, r->problem_cap, sizeof(*r->problems));
        f->findings = mem_grow(f->findings, r->problem_cap, sizeof(*f->findings));
    }
    found = &f->findings[r->problem_count];
    *found = (struct finding){.kind = kind};
    snprintf(found->file, sizeof(found->file), "%s", file ? file : "");
    r->problems[r->problem_count++] =
        (struct fsck_problem){.what = mem_strdup(text), .id = id ? *id : (struct digest){{0}}};
    if (id)
        idset_add(f->seen, id, NULL);
}

void fsck_found(struct fsck *f, enum finding_kind kind, const char *file, const struct digest *id,
                const char *fmt, ...)
{
    char text[ERR_TEXT_MAX + 128];
    va_list ap;

    va_start(ap, fmt);
    (void)!vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    CHECK(pthread_mutex_lock(&f->lock) == 0);
    add_problem(f, kind, file, id, text);
    CHECK(pthread_mutex_unlock(&f->lock) == 0);
}

void fsck_report_release(struct fsck_report *r)
{
    for (size_t i = 0; i < r->problem_count; i++) {
        free(r->problems[i].what);
        free(r->problems[i].part_of);
    }
    free(r->problems);
    *r = (struct fsck_report){0};
}

/* Ids are spread evenly, so their first bytes cut the store into equal parts. */
bool fsck_in_part(const struct fsck *f, const struct digest *id)
{
    const unsigned first = (unsigned)id->b[0] << 8 | id->b[1];

    return f->o->parts <= 1 || (int)(first * (unsigned)f->o->parts >> 16) == f->o->part;
}

/* ---- is everything there that something refers to? ----------------------------------------------- */

static enum err_code reach_all(struct fsck *f, struct mark *m, struct err *err)
{
    struct ref_row *refs = NULL;
    size_t n = 0;
    enum err_code rc;

    rc = index_refs(f->st->index, STR(""), REF_LIVE, &refs, &n, err);
    for (size_t i = 0; !rc && i < n; i++)
        if (refs[i].kind != OBJ_NONE)
            mark_add(m, refs[i].kind, &refs[i].digest);
    free(refs);
    return rc ? rc : mark_run(m, err);
}

/* What is missing and has no finding yet gets one; what had one and is not missing is repaired. */
static enum err_code check_reachable(struct fsck *f, bool after_repair, struct err *err)
{
    const struct digest *missing;
    struct idlist sorted = {0};
    struct mark *m = NULL;
    size_t n = 0;
    enum err_code rc;

    rc = mark_new(f->st, &m, err);
    if (!rc) {
        mark_lenient(m);
        rc = reach_all(f, m, err);
    }
    if (rc)
        goto out;
    missing = mark_missing(m, &n);
    for (size_t i = 0; i < n; i++) {
        char text[DIGEST_TEXT + 1];

        idlist_add(&sorted, &missing[i]);
        if (idset_has(f->seen, &missing[i]))
            continue;
        digest_text(&missing[i], text);
        fsck_found(f, FOUND_MISSING, NULL, &missing[i], "object %s is missing", text);
    }
    idlist_sort(&sorted);
    for (size_t i = 0; after_repair && i < f->report->problem_count; i++) {
        struct fsck_problem *p = &f->report->problems[i];
        const enum finding_kind kind = f->findings[i].kind;

        if (!digest_is_zero(&p->id) && kind != FOUND_RECIPE && kind != FOUND_LOOSE_TOUCHED)
            p->repaired = !idlist_has(&sorted, &p->id);
    }
out:
    idlist_release(&sorted);
    mark_free(m);
    return rc;
}

/* ---- recipes, end to end ------------------------------------------------------------------------ */

struct logical_job {
    struct fsck *f;
    struct digest id;
};

static enum err_code hash_object(struct fsck *f, const struct digest *id, struct digest *out,
                                 struct err *err)
{
    void *step = mem_alloc(READ_STEP);
    struct sha256 sha = {0};
    struct object *o = NULL;
    int64_t at = 0, n = 0;
    enum err_code rc;

    sha256_init(&sha);
    rc = object_open(f->st, id, &o, err);
    if (!rc)
        n = object_bytes(o);
    for (; !rc && at < n; at += (int64_t)READ_STEP) {
        const size_t part = n - at < (int64_t)READ_STEP ? (size_t)(n - at) : READ_STEP;

        rc = object_pread(o, step, part, at, err);
        if (!rc)
            sha256_update(&sha, step, part);
    }
    sha256_final(&sha, out);
    sha256_release(&sha);
    object_close(o);
    free(step);
    return rc;
}

static enum err_code check_logical(void *arg, bool cancelled, struct err *err)
{
    struct logical_job *job = arg;
    char text[DIGEST_TEXT + 1];
    struct digest is = job->id;
    enum err_code rc = OK;

    if (!cancelled)
        rc = hash_object(job->f, &job->id, &is, err);
    digest_text(&job->id, text);
    if (rc == ERR_DAMAGED || rc == ERR_NOT_FOUND) {
        fsck_found(job->f, FOUND_RECIPE, NULL, &job->id, "object %s cannot be read: %.300s", text,
                   err->text);
        *err = (struct err)ERR_INIT;
        rc = OK;
    } else if (!rc && !digest_eq(&is, &job->id)) {
        fsck_found(job->f, FOUND_RECIPE, NULL, &job->id,
                   "object %s: its chunks are whole, but together they are another object", text);
    }
    free(job);
    return rc;
}

static enum err_code check_all_logical(struct fsck *f, struct err *err)
{
    struct digest *ids = mem_alloc(SCAN * sizeof(*ids)), cursor = {{0}};
    struct loc *locs = mem_alloc(SCAN * sizeof(*locs));
    struct pool *pool = NULL;
    struct err wait_err = ERR_INIT;
    bool started = false;
    size_t n = 1;
    enum err_code rc, waited = OK;

    rc = pool_new(f->st->threads, 2 * f->st->threads, &pool, err);
    while (!rc && n > 0) {
        rc = index_scan(f->st->index, &cursor, &started, ids, locs, SCAN, &n, err);
        for (size_t i = 0; !rc && i < n; i++) {
            struct logical_job *job;

            if (locs[i].type != LOC_RECIPE || !fsck_in_part(f, &ids[i]))
                continue;
            job = mem_zero(1, sizeof(*job));
            *job = (struct logical_job){.f = f, .id = ids[i]};
            pool_submit(pool, check_logical, job);
        }
    }
    if (pool)
        waited = pool_wait(pool, &wait_err);
    pool_free(pool);
    if (!rc && waited) {
        rc = waited;
        *err = wait_err;
    }
    free(ids);
    free(locs);
    return rc;
}

/* ---- the order of things ------------------------------------------------------------------------- */

/* A store that was left by a gc that was killed, or by a node that was not: as store_open does it. */
static enum err_code catch_up(struct fsck *f, struct err *err)
{
    const int64_t grace_ns = f->st->config.grace_s * 1000000000LL;
    int64_t merged;
    enum err_code rc;

    rc = index_sync(f->st->index, f->st->packs, &merged, err);
    if (!rc)
        rc = gc_finish_condemned(f->st, os_now_ns() - grace_ns, err);
    if (rc == ERR_DAMAGED) {
        fsck_found(f, FOUND_INDEX, NULL, NULL, "%s", err->text);
        f->index_bad = f->index_unusable = true;
        *err = (struct err)ERR_INIT;
        rc = OK;
    }
    return rc;
}

/* One read of each table that is used below.  The child opened the environment afresh; ours was open before the
 * damage, and LMDB finds a table whose flags changed meanwhile only in the process that knew the old ones. */
static enum err_code read_tables(struct index *ix, struct err *err)
{
    struct digest cursor = {{0}}, id;
    struct pack_row *packs = NULL;
    struct action_row *actions = NULL;
    struct ref_row *refs = NULL;
    struct touch_row *touches = NULL;
    struct lease_row *leases = NULL;
    struct loc loc;
    bool started = false;
    size_t n;
    enum err_code rc = index_scan(ix, &cursor, &started, &id, &loc, 1, &n, err);

    if (!rc)
        rc = index_packs(ix, &packs, &n, err);
    if (!rc)
        rc = index_actions(ix, &actions, &n, err);
    if (!rc)
        rc = index_refs(ix, STR(""), REF_ALL, &refs, &n, err);
    if (!rc)
        rc = index_touches(ix, &touches, &n, err);
    if (!rc)
        rc = index_leases(ix, &leases, &n, err);
    free(packs);
    free(actions);
    free(refs);
    free(touches);
    free(leases);
    return rc;
}

static enum err_code check_tables(struct fsck *f, struct err *err)
{
    const enum err_code rc = read_tables(f->st->index, err);

    if (rc != ERR_DAMAGED)
        return rc;
    fsck_found(f, FOUND_INDEX, NULL, NULL, "%s", err->text);
    f->index_bad = f->index_unusable = true;
    *err = (struct err)ERR_INIT;
    return OK;
}

static enum err_code look(struct fsck *f, struct err *err)
{
    enum err_code rc = OK;

    if (!f->index_unusable)
        rc = check_tables(f, err);
    if (!rc && f->o->repair && !f->index_unusable)
        rc = catch_up(f, err);
    if (!rc)
        rc = fsck_packs(f, err);
    if (!rc)
        rc = fsck_loose(f, err);
    if (!rc && f->index_unusable && f->o->repair)
        rc = fsck_rebuild(f, err);
    if (rc || f->index_unusable)
        return rc;
    rc = fsck_places(f, err);
    if (!rc)
        rc = check_reachable(f, false, err);
    if (!rc && f->o->level >= FSCK_LOGICAL)
        rc = check_all_logical(f, err);
    return rc ? rc : fsck_paths(f, err);
}

static bool all_repaired(const struct fsck_report *r)
{
    for (size_t i = 0; i < r->problem_count; i++)
        if (!r->problems[i].repaired)
            return false;
    return true;
}

/* Before anything is called lost, the packs themselves are asked: an index may fail to find what is there for reasons that reading it
 * does not show (its list of free pages, say). */
static enum err_code look_into_packs(struct fsck *f, struct err *err)
{
    enum err_code rc = fsck_rebuild(f, err);

    if (rc == ERR_AGAIN && f->st->index) { /* somebody else has it open */
        *err = (struct err)ERR_INIT;
        return OK;
    }
    return rc ? rc : check_reachable(f, true, err);
}

enum err_code fsck_rest(struct fsck *f, struct err *err)
{
    enum err_code rc;

    rc = look(f, err);
    if (rc || !f->o->repair || f->report->problem_count == 0)
        return rc;
    rc = fsck_repair(f, err);
    if (!rc)
        rc = check_reachable(f, true, err);
    if (!rc && !f->rebuilt && !all_repaired(f->report))
        rc = look_into_packs(f, err);
    if (!rc)
        rc = fsck_paths(f, err);
    if (!rc && !all_repaired(f->report)) {
        rc = fsck_fetch(f, err);
        if (!rc)
            rc = check_reachable(f, true, err);
    }
    return rc;
}

static enum err_code verdict(const struct fsck_report *r, struct err *err)
{
    size_t left = 0, first = 0;

    for (size_t i = r->problem_count; i-- > 0;)
        if (!r->problems[i].repaired) {
            left++;
            first = i;
        }
    if (left == 0)
        return OK;
    return err_set(err, ERR_DAMAGED, "%zu problem%s, the first: %s", left, left == 1 ? "" : "s",
                   r->problems[first].what);
}

void fsck_begin(struct fsck *f, struct store *st, const struct fsck_options *o,
                struct fsck_report *report)
{
    static const struct fsck_options defaults = {.level = FSCK_FULL};

    *f = (struct fsck){.st = st, .o = o ? o : &defaults, .report = report};
    CHECK(pthread_mutex_init(&f->lock, NULL) == 0);
    f->seen = idset_new();
    *report = (struct fsck_report){0};
}

void fsck_end(struct fsck *f)
{
    idset_free(f->seen);
    free(f->findings);
    free(f->journal);
    CHECK(pthread_mutex_destroy(&f->lock) == 0);
}

/* Damage that is met outside of packs and loose files is in the index, in a place that reading it all did not show. */
static enum err_code rest_or_rebuild(struct fsck *f, struct err *err)
{
    enum err_code rc = fsck_rest(f, err);

    if (rc != ERR_DAMAGED)
        return rc;
    fsck_found(f, FOUND_INDEX, NULL, NULL, "%s", err->text);
    f->index_bad = f->index_unusable = true;
    *err = (struct err)ERR_INIT;
    if (!f->o->repair)
        return OK;
    rc = fsck_rebuild(f, err);
    return rc ? rc : fsck_rest(f, err);
}

enum err_code store_fsck(struct store *st, const struct fsck_options *o, struct fsck_report *out,
                         struct err *err)
{
    struct fsck f;
    enum err_code rc;
    int lock = -1;

    CHECK(st);
    CHECK(st->index);
    CHECK(out);
    CHECK(!o || !o->repair || st->mode == STORE_WRITE);
    CHECK(!o || o->parts <= 1 || (o->part >= 0 && o->part < o->parts));
    fsck_begin(&f, st, o, out);
    rc = store_lock_gc(st, &lock, err);
    /* First: it forks, and there are no threads yet; and it says whether we may touch the index at all. */
    if (!rc)
        rc = fsck_index(&f, err);
    if (!rc)
        rc = rest_or_rebuild(&f, err);
    if (!rc)
        rc = verdict(out, err);
    os_close_quiet(&lock);
    fsck_end(&f);
    return rc;
}
