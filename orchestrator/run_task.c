/* Attempts: from an effect of the scheduler to what happened. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/os.h"
#include "orchestrator/run_internal.h"
#include "orchestrator/sched_replay.h"
#include "store/idset.h"

#define PENDING_RECHECK_MS 50

/* ---- start ------------------------------------------------------------------------------------- */

static const char *name_of(const struct run_attempt *a)
{
    return strrchr(a->dir, '/') + 1;
}

static enum err_code note_start(struct run *r, int task, int64_t resume_step, struct err *err)
{
    const struct run_slot *s = &r->slots[task];
    const struct stage *st = &r->p->stages[r->p->tasks[task].stage];
    json_t *action = NULL;
    enum err_code rc = resolve_action(r->resolver, task, &action, err);

    if (rc)
        return rc;
    return run_note(r,
                    json_pack("{s:s, s:s, s:i, s:o, s:o, s:s, s:I, s:I, s:I}", "event",
                              "task.start", "task", r->p->tasks[task].name, "attempt", s->attempt,
                              "key", run_digest_json(&r->known[task].key), "action", action, "dir",
                              name_of(s->live), "resume", (json_int_t)resume_step, "cpus",
                              (json_int_t)st->resources.cpus, "gpus",
                              (json_int_t)st->resources.gpus),
                    err);
}

static enum err_code give_back(struct run *r, struct run_attempt *a, struct err *err)
{
    if (!a->taken)
        return OK;
    a->taken = false;
    return share_give(r->share, &a->take, err);
}

static struct run_attempt *add_attempt(struct run *r, int task)
{
    const struct resources *want = &r->p->stages[r->p->tasks[task].stage].resources;
    struct run_attempt *a = mem_zero(1, sizeof(*a));

    if (r->live_count == r->live_room) {
        r->live_room = r->live_room ? 2 * r->live_room : 16;
        r->live = mem_grow(r->live, r->live_room, sizeof(struct run_attempt *));
    }
    a->task = task;
    a->place = r->live_count;
    a->started_ns = os_now_ns();
    a->take = (struct share_take){
        .cpus = want->cpus, .memory_bytes = want->memory_bytes, .gpus = want->gpus};
    r->live[r->live_count++] = a;
    r->slots[task].live = a;
    return a;
}

/* What it had is given back; its folder is the caller's from now on. */
static enum err_code drop_attempt(struct run *r, int task, char **dir, struct err *err)
{
    struct run_attempt *a = r->slots[task].live;
    enum err_code rc = give_back(r, a, err);

    r->live[a->place] = r->live[--r->live_count];
    r->live[a->place]->place = a->place;
    r->slots[task].live = NULL;
    *dir = a->dir;
    free(a);
    return rc;
}

/* The devices that this attempt was given, as CUDA_VISIBLE_DEVICES wants them. */
static void set_devices(json_t *card, uint64_t mask)
{
    char text[64 * 3 + 1] = "";
    size_t n = 0;

    for (int i = 0; i < 64; i++)
        if (mask >> i & 1)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%d", n ? "," : "", i);
    json_object_set_new(card, "gpu_devices", json_string(text));
}

static enum err_code launch(struct run *r, int task, struct err *err)
{
    const struct executor_ops *ops = r->executor->ops;
    struct run_slot *s = &r->slots[task];
    struct resume_point point = {.step = -1};
    char ref[96];
    json_t *card = NULL;
    bool again = false;
    enum err_code rc = resolve_resume(r->resolver, task, ref, &point, err);

    if (!rc)
        rc = resolve_card(r->resolver, task, s->live->dir, point.step >= 0 ? &point : NULL, &card,
                          err);
    if (!rc)
        set_devices(card, s->live->take.gpu_mask);
    if (!rc)
        rc = run_make_folder(r, s->live->dir, card, &again, err);
    if (!rc)
        rc = note_start(r, task, point.step, err);
    if (!rc)
        rc =
            (again ? ops->start_again : ops->start)(r->executor, (uint64_t)task, s->live->dir, err);
    if (!rc && point.step > s->step)
        s->step = point.step;
    json_decref(card);
    return rc;
}

/* Was this folder made for the very action that we want?  Its start may not have become durable before a crash. */
static bool is_ours(const char *dir, const struct digest *key)
{
    struct attempt_card card = {0};
    struct err ignored = ERR_INIT;
    int fd = -1;
    bool ours = false;

    if (os_open_dir(AT_FDCWD, dir, &fd, &ignored) == OK &&
        attempt_card_read(fd, &card, &ignored) == OK)
        ours = digest_eq(&card.key, key);
    attempt_card_release(&card);
    os_close_quiet(&fd);
    return ours;
}

static char *new_path(const struct run *r, const char *name)
{
    char *path = mem_alloc(strlen(r->st->root) + strlen(name) + 8);

    (void)snprintf(path, strlen(r->st->root) + strlen(name) + 8, "%s/tasks/%s", r->st->root, name);
    return path;
}

/* The folder of the attempt.  *life says what is in it already: an attempt to adopt, or ATTEMPT_GONE for a fresh one. */
static enum err_code choose_dir(struct run *r, int task, enum attempt_life *life, struct err *err)
{
    struct run_slot *s = &r->slots[task];
    char name[80];
    int extra = 0;
    struct stat st;
    enum err_code rc = OK;

    *life = ATTEMPT_GONE;
    (void)snprintf(name, sizeof(name), "run-%lld.%d.%d", (long long)r->number, task, s->attempt);
    s->live->dir = new_path(r, name);
    while (!rc && lstat(s->live->dir, &st) == 0) {
        rc = attempt_life(s->live->dir, life, err);
        if (rc || (*life != ATTEMPT_GONE && is_ours(s->live->dir, &r->known[task].key)))
            return rc;
        if (*life != ATTEMPT_ALIVE) {
            rc = os_remove_tree(AT_FDCWD, s->live->dir, err);
        } else { /* of another action: it goes its way */
            (void)snprintf(name, sizeof(name), "run-%lld.%d.%d+%d", (long long)r->number, task,
                           s->attempt, ++extra);
            free(s->live->dir);
            s->live->dir = new_path(r, name);
        }
        *life = ATTEMPT_GONE;
    }
    return rc;
}

/* It could not even be begun, and that is its own affair. */
static enum err_code not_begun(struct run *r, const struct sched_effect *e, struct err *err)
{
    struct err why = *err;
    char *dir = NULL;
    enum err_code rc;

    *err = (struct err)ERR_INIT;
    rc = drop_attempt(r, e->task, &dir, err);
    run_throw_away(r, dir, true);
    sched_defer(r->sched, e, run_now_ms());
    if (rc)
        return rc;
    *err = why;
    return run_refused(r, e->task, err);
}

static enum err_code start_now(struct run *r, const struct sched_effect *e, bool *got,
                               struct err *err)
{
    struct run_slot *s = &r->slots[e->task];
    struct run_attempt *a;
    enum attempt_life life;
    char *dir;
    enum err_code rc;

    a = add_attempt(r, e->task);
    *got = run_orphans_leave(r, &a->take);
    rc = *got ? share_take(r->share, &a->take, got, err) : OK;
    if (rc || !*got) {
        const enum err_code dropped = drop_attempt(r, e->task, &dir, err);

        return rc ? rc : dropped;
    }
    a->taken = true;
    s->attempt = e->attempt + s->before;
    s->reason = NULL;
    rc = choose_dir(r, e->task, &life, err);
    if (!rc && life == ATTEMPT_GONE)
        rc = launch(r, e->task, err);
    else if (!rc)
        rc = note_start(r, e->task, -1, err);
    if (!rc && life != ATTEMPT_GONE)
        rc = r->executor->ops->adopt(r->executor, (uint64_t)e->task, a->dir, err);
    if (rc && run_is_task_failure(rc))
        return not_begun(r, e, err);
    if (rc)
        return rc;
    run_post(r, EV_STARTED, e->task);
    return run_tell(r, life == ATTEMPT_GONE ? RUN_STARTED : RUN_ADOPTED, e->task, err);
}

enum err_code run_start(struct run *r, const struct sched_effect *e, struct err *err)
{
    bool got = false;
    enum err_code rc;

    if (r->pending_count == 0) { /* else it is not its turn */
        rc = start_now(r, e, &got, err);
        if (rc || got)
            return rc;
        r->pending_ms = run_now_ms() + PENDING_RECHECK_MS;
    }
    if (r->pending_count == r->pending_room) {
        r->pending_room = r->pending_room ? 2 * r->pending_room : 16;
        r->pending = mem_grow(r->pending, r->pending_room, sizeof(*r->pending));
    }
    r->pending[r->pending_count++] = *e; /* the scheduler holds room for it meanwhile */
    return OK;
}

enum err_code run_start_pending(struct run *r, struct err *err)
{
    enum err_code rc = OK;
    bool got = true;

    if (r->pending_count == 0 || run_now_ms() < r->pending_ms)
        return OK;
    r->pending_ms = run_now_ms() + PENDING_RECHECK_MS;
    while (!rc && got && r->pending_count > 0) {
        const struct sched_effect e = r->pending[0];

        rc = start_now(r, &e, &got, err);
        if (got && r->pending_count > 0) /* a failure may have dropped them all */
            memmove(r->pending, r->pending + 1, --r->pending_count * sizeof(*r->pending));
    }
    return rc;
}

void run_drop_pending(struct run *r)
{
    for (size_t i = 0; i < r->pending_count; i++)
        sched_defer(r->sched, &r->pending[i], run_now_ms());
    r->pending_count = 0;
}

enum err_code run_adopt(struct run *r, int task, int attempt, const char *dir, int64_t started_ns,
                        bool asked, struct err *err)
{
    struct run_slot *s = &r->slots[task];
    struct run_attempt *a = add_attempt(r, task);
    enum attempt_life life;
    bool got = false;
    struct share_owner owner;
    enum err_code rc;

    a->dir = new_path(r, dir);
    if (started_ns > 0)
        a->started_ns = started_ns;
    a->asked = asked;
    s->attempt = attempt;
    rc = attempt_life(a->dir, &life, err);
    if (!rc && life == ATTEMPT_ALIVE) {
        rc = share_take(r->share, &a->take, &got, err);
        a->taken = !rc && got; /* should others have taken it meanwhile, it runs all the same */
        if (!rc)
            rc = share_claim(r->share, &r->known[task].key, r->p->tasks[task].name, &s->claimed,
                             &owner, err);
        if (!rc && s->claimed)
            *idset_add(r->at_work, &r->known[task].key, NULL) = 1;
    }
    if (!rc)
        rc = r->executor->ops->adopt(r->executor, (uint64_t)task, a->dir, err);
    return rc ? rc : run_tell(r, RUN_ADOPTED, task, err);
}

/* ---- end --------------------------------------------------------------------------------------- */

static json_t *outputs_json(const struct result_card *c)
{
    json_t *out = json_object();

    for (size_t i = 0; i < c->output_count; i++)
        json_object_set_new(out, c->outputs[i].name, card_object_json(&c->outputs[i]));
    return out;
}

static enum err_code note_end(struct run *r, int task, const struct result_card *c, bool final,
                              struct err *err)
{
    const struct run_slot *s = &r->slots[task];

    return run_note(
        r,
        json_pack("{s:s, s:s, s:i, s:s, s:i, s:i, s:s, s:o, s:o, s:o, s:I, s:I, s:o, s:o, s:b}",
                  "event", "task.end", "task", r->p->tasks[task].name, "attempt", s->attempt,
                  "status", attempt_status_words[c->status], "exit", c->exit_status, "signal",
                  c->signal, "reason", c->reason, "key", run_digest_json(&r->known[task].key),
                  "result", c->status == ATTEMPT_DONE ? run_digest_json(&c->result) : json_null(),
                  "outputs", outputs_json(c), "wall_ms", (json_int_t)c->wall_ms, "step",
                  (json_int_t)c->step, "log", run_digest_json(&c->log.digest), "events",
                  run_digest_json(&c->events.digest), "final", final),
        err);
}

static enum err_code record_task(struct run *r, int task, const struct result_card *c,
                                 struct err *err)
{
    const struct run_slot *s = &r->slots[task];
    struct task_record record = {.run = r->number,
                                 .attempt = s->attempt,
                                 .status = attempt_status_words[c->status],
                                 .key = r->known[task].key,
                                 .wall_ms = c->wall_ms};
    enum err_code rc = OK;

    if (c->status == ATTEMPT_DONE)
        record.result = c->result;
    else
        rc = resolve_action(r->resolver, task, &record.action, err);
    if (!rc)
        task_record_set(r->ledger, r->p->name, r->p->tasks[task].name, &record);
    json_decref(record.action);
    return rc;
}

/* Its result becomes an input of others, unless policy has something against it: then the attempt was in vain. */
static enum err_code take_result(struct run *r, int task, const struct result_card *c,
                                 struct sched_event *e, struct err *err)
{
    struct run_slot *s = &r->slots[task];
    enum err_code rc = resolve_post(r->resolver, task, &c->result, err);

    s->reason = NULL;
    if (!rc) {
        r->known[task] = *resolve_get(r->resolver, task);
        rc = run_judge(r, task, err);
    }
    if (!rc || !run_is_task_failure(rc))
        return rc;
    r->denied = r->denied || rc == ERR_DENIED;
    s->reason = arena_strdup(&r->arena, err->text);
    *err = (struct err)ERR_INIT;
    e->end = END_FATAL;
    return OK;
}

static void keep_files(struct run *r, struct run_slot *s, const struct result_card *c)
{
    if (!s->files)
        s->files = arena_alloc(&r->arena, sizeof(*s->files));
    *s->files = (struct run_files){c->log.digest, c->events.digest};
}

/* What people read about an attempt that came to nothing. */
static const char *why(struct run *r, int task, const struct result_card *c, bool progress)
{
    const struct stage *st = &r->p->stages[r->p->tasks[task].stage];

    if (r->slots[task].cancelled || r->cancelled)
        return "cancelled";
    if (c->status == ATTEMPT_STOPPED && sched_timed_out(r->sched, task))
        return arena_printf(&r->arena, "its timeout of %lld s was up (%s)",
                            (long long)st->timeout_s, c->reason);
    if (c->status == ATTEMPT_STOPPED && !r->stopping && !progress)
        return arena_printf(&r->arena, "%s, and it left no newer checkpoint than it had",
                            c->reason);
    return arena_strdup(&r->arena, c->reason);
}

/* The scheduler knows now: retry or end. */
static enum err_code after_end(struct run *r, int task, struct err *err)
{
    const enum sched_state state = sched_state_of(r->sched, task);
    enum err_code rc = OK;

    if (state != SCHED_READY)
        rc = run_let_others(r, task, err);
    r->shared_ms = 0; /* others may have waited for this */
    if (rc)
        return rc;
    if (state == SCHED_FAILED)
        return run_failed(r, task, err);
    if (state >= SCHED_CACHED)
        return run_tell(r, RUN_ENDED, task, err);
    r->report->retries++;
    return run_tell(r, RUN_RETRY, task, err);
}

/* Everything about an attempt's end: told, counted, its resources given back, its folder gone once that is durable. */
static enum err_code ended(struct run *r, int task, const struct result_card *c, struct err *err)
{
    struct run_slot *s = &r->slots[task];
    struct sched_event e = {
        .kind = EV_ENDED,
        .task = task,
        .attempt = s->attempt - s->before,
        .end = sched_end_of(c->status, c->exit_status, sched_timed_out(r->sched, task)),
        .wall_ms = c->wall_ms,
        .checkpoint_step = c->step,
        .now_ms = run_now_ms()};
    const bool progress = c->step > s->step, spare = s->live->spare;
    char *dir = NULL;
    enum err_code rc = OK;

    if (progress)
        s->step = c->step;
    keep_files(r, s, c);
    s->live->wall_ms = c->wall_ms;
    if (c->status == ATTEMPT_DONE)
        rc = take_result(r, task, c, &e, err);
    else
        s->reason = why(r, task, c, progress);
    if (!rc)
        rc = note_end(r, task, c, e.end == END_FATAL && c->status != ATTEMPT_DONE, err);
    if (!rc && c->status == ATTEMPT_DONE && s->reason)
        rc = run_note_refused(r, task, err);
    if (!rc)
        rc = record_task(r, task, c, err);
    if (!rc)
        rc = give_back(r, s->live, err);
    sched_post(r->sched, &e);
    if (!rc)
        rc = after_end(r, task, err);
    if (!rc)
        rc = drop_attempt(r, task, &dir, err);
    if (!rc && spare)
        run_spare_folder(r, dir);
    else if (!rc)
        run_throw_away(r, dir, c->status == ATTEMPT_LOST);
    return rc;
}

/* No result is to come, says the executor: unless somebody else is at it, as after a kill at a bad moment. */
static enum err_code lost(struct run *r, int task, const char *reason, struct err *err)
{
    struct run_attempt *a = r->slots[task].live;
    struct result_card card = {.status = ATTEMPT_LOST, .step = r->slots[task].step};
    struct resume_point point = {.step = -1};
    struct err ignored = ERR_INIT;
    enum attempt_life life;
    char ref[96];
    enum err_code rc;

    if (!a->doubted && attempt_life(a->dir, &life, &ignored) == OK && life != ATTEMPT_GONE) {
        a->doubted = true;
        return r->executor->ops->adopt(r->executor, (uint64_t)task, a->dir, err);
    }
    /* Nobody tells how far it came, but its checkpoints are in the store. */
    rc = resolve_resume(r->resolver, task, ref, &point, err);
    if (rc)
        return rc;
    if (point.step > card.step)
        card.step = point.step;
    (void)snprintf(card.reason, sizeof(card.reason), "%s", reason);
    return ended(r, task, &card, err);
}

/* Its program has ended; its result comes when it is durable, together with others'. */
static enum err_code exited(struct run *r, int task, struct err *err)
{
    const struct sched_event e = {.kind = EV_EXITED,
                                  .task = task,
                                  .attempt = r->slots[task].attempt - r->slots[task].before,
                                  .now_ms = run_now_ms()};

    sched_post(r->sched, &e);
    return give_back(r, r->slots[task].live, err);
}

enum err_code run_executor_event(struct run *r, struct executor_event *e, struct err *err)
{
    const int task = (int)e->id;
    struct run_attempt *a = r->slots[task].live;
    enum err_code rc = OK;

    if (e->kind == EXEC_LOST && a)
        return lost(r, task, e->reason, err);
    if (e->kind == EXEC_EXITED && a)
        return exited(r, task, err);
    if (e->kind != EXEC_ENDED)
        return OK;
    if (a) { /* told twice: the first time counts */
        a->spare = e->spare;
        if (a->asked && e->card.status == ATTEMPT_STOPPED) {
            /* It stopped since an earlier process asked it to: none of its tries. */
            e->card.status = ATTEMPT_LOST;
            (void)snprintf(e->card.reason, sizeof(e->card.reason), "stopped with an earlier run");
        }
        rc = ended(r, task, &e->card, err);
    }
    result_card_release(&e->card);
    return rc;
}
