/* Keys: is there a result already, is somebody else making it, or is it for us to make? */
#include "base/os.h"
#include "orchestrator/run_internal.h"
#include "store/idset.h"

int64_t run_now_ms(void)
{
    return os_now_ns() / 1000000; /* also comparable with events of earlier processes */
}

void run_post(struct run *r, enum sched_event_kind kind, int task)
{
    const struct sched_event e = {
        .kind = kind,
        .task = task,
        .attempt = task >= 0 ? r->slots[task].attempt - r->slots[task].before : 0,
        .checkpoint_step = task >= 0 ? r->slots[task].step : -1,
        .now_ms = run_now_ms()};

    sched_post(r->sched, &e);
}

json_t *run_digest_json(const struct digest *d)
{
    char text[DIGEST_TEXT + 1];

    if (digest_is_zero(d))
        return json_null();
    digest_text(d, text);
    return json_string(text);
}

/* ---- keys -------------------------------------------------------------------------------------- */

/* An input that cannot be had is the task's failure; a broken disk is everybody's. */
bool run_is_task_failure(enum err_code rc)
{
    return rc == ERR_INPUT || rc == ERR_NOT_FOUND || rc == ERR_CHANGED || rc == ERR_DENIED ||
           rc == ERR_MISSING || rc == ERR_LIMIT || rc == ERR_CONFIG;
}

/* The claim on its action, given up. */
enum err_code run_let_others(struct run *r, int task, struct err *err)
{
    struct run_slot *s = &r->slots[task];

    if (!s->claimed)
        return OK;
    s->claimed = false;
    *idset_add(r->at_work, &r->known[task].key, NULL) = 0;
    return share_release(r->share, &r->known[task].key, err);
}

enum err_code run_release_claims(struct run *r, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < r->p->task_count; i++)
        if (r->slots[i].claimed && sched_state_of(r->sched, (int)i) >= SCHED_CACHED)
            rc = run_let_others(r, (int)i, err);
    return rc;
}

/* Told; and if it ends the run, what will not be started now is free for others. */
enum err_code run_failed(struct run *r, int task, struct err *err)
{
    enum err_code rc = run_tell(r, RUN_ENDED, task, err);

    if (!r->o->keep_going && !rc) {
        run_drop_pending(r);
        rc = run_release_claims(r, err);
    }
    return rc;
}

enum err_code run_note_refused(struct run *r, int task, struct err *err)
{
    return run_note(r,
                    json_pack("{s:s, s:s, s:s}", "event", "task.refused", "task",
                              r->p->tasks[task].name, "reason", r->slots[task].reason),
                    err);
}

enum err_code run_refused(struct run *r, int task, struct err *err)
{
    struct run_slot *s = &r->slots[task];
    enum err_code rc;

    r->denied = r->denied || err->code == ERR_DENIED;
    s->reason = arena_strdup(&r->arena, err->text);
    *err = (struct err)ERR_INIT;
    rc = run_note_refused(r, task, err);
    run_post(r, EV_KEY_FAILED, task);
    if (!rc)
        rc = run_let_others(r, task, err);
    return rc ? rc : run_failed(r, task, err);
}

static enum err_code is_hit(struct run *r, int task, struct err *err)
{
    struct run_slot *s = &r->slots[task];
    const struct task_result *t = &r->known[task];
    enum err_code rc = run_judge(r, task, err);

    if (rc && run_is_task_failure(rc))
        return run_refused(r, task, err);
    if (!rc && !s->was_cached) {
        const struct task_record record = {
            .run = r->number, .status = "cached", .key = t->key, .result = t->result};

        rc = run_note(r,
                      json_pack("{s:s, s:s, s:o, s:o}", "event", "task.cached", "task",
                                r->p->tasks[task].name, "key", run_digest_json(&t->key), "result",
                                run_digest_json(&t->result)),
                      err);
        if (!rc)
            task_record_set(r->ledger, r->p->name, r->p->tasks[task].name, &record);
    }
    s->reason = NULL;
    run_post(r, EV_HIT, task);
    if (!rc)
        rc = run_let_others(r, task, err);
    return rc ? rc : run_tell(r, RUN_ENDED, task, err);
}

/* Others are at it: looked at again soon. */
static enum err_code wait_for(struct run *r, int task, int64_t run, struct err *err)
{
    struct run_slot *s = &r->slots[task];
    enum err_code rc = OK;

    r->shared_count++;
    run_post(r, EV_SHARED, task);
    if (s->waits)
        return OK;
    s->waits = true;
    if (run)
        rc = run_note(r,
                      json_pack("{s:s, s:s, s:I}", "event", "task.shared", "task",
                                r->p->tasks[task].name, "run", (json_int_t)run),
                      err);
    return rc ? rc : run_tell(r, RUN_WAITS, task, err);
}

/* Nobody else works on it, as far as runs that live go; what a dead one left may. */
static enum err_code is_mine(struct run *r, int task, bool forced, struct err *err)
{
    struct run_slot *s = &r->slots[task];
    enum err_code rc;

    s->claimed = true;
    *idset_add(r->at_work, &r->known[task].key, NULL) = 1;
    if (s->waits && !run_orphan_alive(r, &r->known[task].key))
        run_find_orphans(r); /* the run that we waited for may have died */
    if (run_orphan_alive(r, &r->known[task].key)) {
        s->reason = "an attempt that an earlier run left behind works on it";
        return wait_for(r, task, 0, err);
    }
    if (!forced) { /* it may have been finished between the look and the claim */
        rc = resolve_task(r->resolver, task, &r->known[task], err);
        if (rc || r->known[task].known)
            return rc ? rc : is_hit(r, task, err);
    }
    s->reason = NULL;
    s->waits = false;
    run_post(r, EV_MISS, task);
    return OK;
}

/* By another task of this run. */
static bool is_at_work(const struct run *r, const struct digest *key)
{
    const uint8_t *byte = idset_find(r->at_work, key);

    return byte && *byte;
}

enum err_code run_key(struct run *r, int task, struct err *err)
{
    struct run_slot *s = &r->slots[task];
    const struct stage *st = &r->p->stages[r->p->tasks[task].stage];
    struct task_result *t = &r->known[task];
    const struct digest before = t->result;
    const bool forced = r->o->forced && r->o->forced[task] && !s->done_before;
    struct share_owner owner;
    bool mine = false;
    enum err_code rc = resolve_task(r->resolver, task, t, err);

    if (rc && run_is_task_failure(rc))
        return run_refused(r, task, err);
    if (rc)
        return rc;
    r->keyed[task] = true;
    s->was_cached = s->was_cached && t->known && digest_eq(&before, &t->result);
    if (t->known && !forced)
        return is_hit(r, task, err);
    if (r->o->wanted && !r->o->wanted[task]) { /* it will not be run here */
        run_post(r, EV_MISS, task);
        return OK;
    }
    if (st->resources.gpus > r->limits.gpus) {
        (void)err_set(err, ERR_MISSING,
                      "it wants %lld GPUs and this machine has %lld; change resources.gpus, or say "
                      "slots.gpus in .weir/config.yaml (weir doctor tells what the driver shows)",
                      (long long)st->resources.gpus, (long long)r->limits.gpus);
        return run_refused(r, task, err);
    }
    if (!s->claimed && is_at_work(r, &t->key)) {
        s->reason = "another task of this run is the same action";
        return wait_for(r, task, 0, err);
    }
    rc = share_claim(r->share, &t->key, r->p->tasks[task].name, &mine, &owner, err);
    if (rc)
        return rc;
    if (mine)
        return is_mine(r, task, forced, err);
    if (!s->waits)
        s->reason =
            arena_printf(&r->arena, "run-%lld works on it (%s)", (long long)owner.run, owner.task);
    return wait_for(r, task, owner.run, err);
}
