/* From what the scheduler wants to what happened: keys, attempts and their ends. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/os.h"
#include "orchestrator/run_internal.h"
#include "orchestrator/sched_replay.h"

#define SHARED_RECHECK_MS 100
#define SLOT_RECHECK_MS 50

int64_t run_now_ms(void)
{
    return os_now_ns() / 1000000; /* also comparable with events of earlier processes */
}

void run_post(struct run *r, enum sched_event_kind kind, int task)
{
    const struct sched_event e = {.kind = kind,
                                  .task = task,
                                  .attempt = task >= 0 ? r->slots[task].attempt : 0,
                                  .checkpoint_step = task >= 0 ? r->slots[task].step : -1,
                                  .now_ms = run_now_ms()};

    sched_post(r->sched, &e);
}

static json_t *digest_json(const struct digest *d)
{
    char text[DIGEST_TEXT + 1];

    if (digest_is_zero(d))
        return json_null();
    digest_text(d, text);
    return json_string(text);
}

/* ---- keys -------------------------------------------------------------------------------------- */

static enum err_code is_hit(struct run *r, int task, const struct task_result *t, struct err *err)
{
    struct run_slot *s = &r->slots[task];
    enum err_code rc = OK;

    if (!s->was_cached) {
        const struct task_record record = {
            .run = r->number, .status = "cached", .key = t->key, .result = t->result};

        rc = run_note(r,
                      json_pack("{s:s, s:s, s:o, s:o}", "event", "task.cached", "task",
                                r->p->tasks[task].name, "key", digest_json(&t->key), "result",
                                digest_json(&t->result)),
                      err);
        if (!rc)
            task_record_set(r->ledger, r->p->name, r->p->tasks[task].name, &record);
    }
    run_post(r, EV_HIT, task);
    return rc ? rc : run_tell(r, RUN_ENDED, task, err);
}

/* An input that cannot be had is the task's failure; a broken disk is everybody's. */
static bool is_task_failure(enum err_code rc)
{
    return rc == ERR_INPUT || rc == ERR_NOT_FOUND || rc == ERR_CHANGED || rc == ERR_DENIED ||
           rc == ERR_MISSING || rc == ERR_LIMIT || rc == ERR_CONFIG;
}

static enum err_code refused(struct run *r, int task, struct err *err)
{
    struct run_slot *s = &r->slots[task];
    enum err_code rc;

    s->reason = arena_strdup(&r->arena, err->text);
    *err = (struct err)ERR_INIT;
    rc = run_note(r,
                  json_pack("{s:s, s:s, s:s}", "event", "task.refused", "task",
                            r->p->tasks[task].name, "reason", s->reason),
                  err);
    run_post(r, EV_KEY_FAILED, task);
    return rc ? rc : run_tell(r, RUN_ENDED, task, err);
}

static enum err_code is_shared(struct run *r, int task, const struct share_owner *owner,
                               struct err *err)
{
    struct run_slot *s = &r->slots[task];
    enum err_code rc = OK;

    if (!s->reason) {
        s->reason = arena_printf(&r->arena, "run-%lld works on it (%s)", (long long)owner->run,
                                 owner->task);
        rc = run_note(r,
                      json_pack("{s:s, s:s, s:I}", "event", "task.shared", "task",
                                r->p->tasks[task].name, "run", (json_int_t)owner->run),
                      err);
        if (!rc)
            rc = run_tell(r, RUN_WAITS, task, err);
    }
    r->shared_count++;
    run_post(r, EV_SHARED, task);
    return rc;
}

enum err_code run_key(struct run *r, int task, struct err *err)
{
    struct run_slot *s = &r->slots[task];
    struct task_result *t = &r->known[task];
    const bool forced = r->o->forced && r->o->forced[task];
    struct share_owner owner;
    bool mine = false;
    enum err_code rc = OK;

    if (!r->keyed[task] || !t->known) {
        rc = resolve_task(r->resolver, task, t, err);
        if (rc && is_task_failure(rc))
            return refused(r, task, err);
        if (rc)
            return rc;
        r->keyed[task] = true;
    }
    s->key = t->key;
    if (t->known && !forced)
        return is_hit(r, task, t, err);
    rc = share_claim(r->share, &s->key, r->p->tasks[task].name, &mine, &owner, err);
    if (rc)
        return rc;
    if (!mine)
        return is_shared(r, task, &owner, err);
    /* It may have been finished between the look and the claim. */
    if (!forced)
        rc = resolve_task(r->resolver, task, t, err);
    if (!rc && t->known && !forced) {
        rc = share_release(r->share, &s->key, err);
        return rc ? rc : is_hit(r, task, t, err);
    }
    s->claimed = true;
    if (!rc)
        run_post(r, EV_MISS, task);
    return rc;
}

/* ---- start ------------------------------------------------------------------------------------- */

static enum err_code write_card(const char *dir, const json_t *card, struct err *err)
{
    struct buf text = {0};
    int fd = -1, out = -1;
    enum err_code rc;

    buf_init(&text, CARD_BYTES_MAX);
    rc = json_canonical(card, &text, err);
    if (!rc)
        rc = buf_check(&text, CARD_ATTEMPT, err);
    if (!rc)
        rc = os_open_dir(AT_FDCWD, dir, &fd, err);
    /* Not synced: after a power cut there is no attempt to go on with.  0600: it may hold values of declared variables. */
    if (!rc)
        rc = os_open(fd, CARD_ATTEMPT, O_WRONLY | O_CREAT | O_EXCL, 0600, &out, err);
    if (!rc)
        rc = os_write(out, text.p, text.n, err);
    if (!rc)
        rc = os_close(&out, err);
    os_close_quiet(&out);
    os_close_quiet(&fd);
    buf_release(&text);
    return rc;
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
                              "key", digest_json(&s->key), "action", action, "dir",
                              strrchr(s->dir, '/') + 1, "resume", (json_int_t)resume_step, "cpus",
                              (json_int_t)st->resources.cpus, "gpus",
                              (json_int_t)st->resources.gpus),
                    err);
}

static enum err_code give_back(struct run *r, struct run_slot *s, struct err *err)
{
    enum err_code rc = OK;

    if (s->taken)
        rc = share_give(r->share, &s->take, err);
    s->taken = false;
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
    struct run_slot *s = &r->slots[task];
    struct resume_point point = {.step = -1};
    char ref[96];
    json_t *card = NULL;
    enum err_code rc = os_mkdirs(s->dir, 0755, err);

    if (!rc)
        rc = resolve_resume(r->resolver, task, ref, &point, err);
    if (!rc)
        rc = resolve_card(r->resolver, task, s->dir, point.step >= 0 ? &point : NULL, &card, err);
    if (!rc)
        set_devices(card, s->take.gpu_mask);
    if (!rc)
        rc = write_card(s->dir, card, err);
    if (!rc)
        rc = note_start(r, task, point.step, err);
    if (!rc)
        rc = r->executor->ops->start(r->executor, (uint64_t)task, s->dir, err);
    if (!rc)
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

/* The folder of the attempt.  *life says what is in it already: an attempt to adopt, or ATTEMPT_GONE for a fresh one. */
static enum err_code choose_dir(struct run *r, int task, enum attempt_life *life, struct err *err)
{
    struct run_slot *s = &r->slots[task];
    struct stat st;
    enum err_code rc = OK;

    *life = ATTEMPT_GONE;
    s->dir = arena_printf(&r->arena, "%s/tasks/run-%lld.%d.%d", r->st->root, (long long)r->number,
                          task, s->attempt);
    while (!rc && lstat(s->dir, &st) == 0) {
        rc = attempt_life(s->dir, life, err);
        if (rc || (*life != ATTEMPT_GONE && is_ours(s->dir, &s->key)))
            return rc;
        if (*life != ATTEMPT_ALIVE)
            rc = os_remove_tree(AT_FDCWD, s->dir, err);
        else /* of another action: it goes its way */
            s->dir = arena_printf(&r->arena, "%s+", s->dir);
        *life = ATTEMPT_GONE;
    }
    return rc;
}

enum err_code run_start(struct run *r, const struct sched_effect *e, struct err *err)
{
    struct run_slot *s = &r->slots[e->task];
    const struct resources *want = &r->p->stages[r->p->tasks[e->task].stage].resources;
    enum attempt_life life;
    bool got = false;
    enum err_code rc;

    s->take = (struct share_take){
        .cpus = want->cpus, .memory_bytes = want->memory_bytes, .gpus = want->gpus};
    rc = share_take(r->share, &s->take, &got, err);
    if (rc)
        return rc;
    if (!got) {
        sched_defer(r->sched, e, run_now_ms() + SLOT_RECHECK_MS);
        return OK;
    }
    s->taken = true;
    s->attempt = e->attempt;
    s->started_ns = os_now_ns();
    s->reason = NULL;
    rc = choose_dir(r, e->task, &life, err);
    if (!rc && life == ATTEMPT_GONE)
        rc = launch(r, e->task, err);
    else if (!rc)
        rc = note_start(r, e->task, -1, err);
    if (!rc && life != ATTEMPT_GONE)
        rc = r->executor->ops->adopt(r->executor, (uint64_t)e->task, s->dir, err);
    if (rc)
        return rc;
    r->running++;
    run_post(r, EV_STARTED, e->task);
    return run_tell(r, life == ATTEMPT_GONE ? RUN_STARTED : RUN_ADOPTED, e->task, err);
}

enum err_code run_adopt(struct run *r, int task, int attempt, const char *dir, struct err *err)
{
    struct run_slot *s = &r->slots[task];
    const struct resources *want = &r->p->stages[r->p->tasks[task].stage].resources;
    enum attempt_life life;
    bool got, mine;
    struct share_owner owner;
    enum err_code rc;

    s->dir = arena_printf(&r->arena, "%s/tasks/%s", r->st->root, dir);
    s->attempt = attempt;
    s->started_ns = os_now_ns();
    rc = attempt_life(s->dir, &life, err);
    s->take = (struct share_take){
        .cpus = want->cpus, .memory_bytes = want->memory_bytes, .gpus = want->gpus};
    if (!rc && life == ATTEMPT_ALIVE) {
        rc = share_take(r->share, &s->take, &got, err);
        s->taken = !rc && got;
        if (!rc)
            rc = share_claim(r->share, &s->key, r->p->tasks[task].name, &mine, &owner, err);
        s->claimed = !rc && mine;
    }
    if (!rc)
        rc = r->executor->ops->adopt(r->executor, (uint64_t)task, s->dir, err);
    if (!rc)
        r->running++;
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
                  c->signal, "reason", c->reason, "key", digest_json(&s->key), "result",
                  c->status == ATTEMPT_DONE ? digest_json(&c->result) : json_null(), "outputs",
                  outputs_json(c), "wall_ms", (json_int_t)c->wall_ms, "step", (json_int_t)c->step,
                  "log", digest_json(&c->log.digest), "events", digest_json(&c->events.digest),
                  "final", final),
        err);
}

static enum err_code record_task(struct run *r, int task, const struct result_card *c,
                                 struct err *err)
{
    const struct run_slot *s = &r->slots[task];
    struct task_record record = {.run = r->number,
                                 .attempt = s->attempt,
                                 .status = attempt_status_words[c->status],
                                 .key = s->key,
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

/* Everything about an attempt's end: told, counted, its resources given back, its folder gone. */
static enum err_code ended(struct run *r, int task, const struct result_card *c, struct err *err)
{
    struct run_slot *s = &r->slots[task];
    const struct sched_event e = {
        .kind = EV_ENDED,
        .task = task,
        .attempt = s->attempt,
        .end = sched_end_of(c->status, c->exit_status, sched_timed_out(r->sched, task)),
        .wall_ms = c->wall_ms,
        .checkpoint_step = c->step,
        .now_ms = run_now_ms()};
    enum err_code rc = OK;

    s->reason = c->status == ATTEMPT_DONE ? NULL : arena_strdup(&r->arena, c->reason);
    s->step = c->step;
    s->log = c->log;
    s->events = c->events;
    if (c->status == ATTEMPT_DONE) {
        rc = resolve_post(r->resolver, task, &c->result, err);
        r->known[task] = *resolve_get(r->resolver, task);
    }
    if (!rc)
        rc = note_end(r, task, c, e.end == END_FATAL, err);
    if (!rc)
        rc = record_task(r, task, c, err);
    if (!rc)
        rc = give_back(r, s, err);
    sched_post(r->sched, &e);
    if (!rc && s->claimed && sched_state_of(r->sched, task) != SCHED_READY) {
        rc = share_release(r->share, &s->key, err);
        s->claimed = false;
    }
    r->running--;
    if (!rc && sched_state_of(r->sched, task) == SCHED_READY) {
        r->report->retries++;
        rc = run_tell(r, RUN_RETRY, task, err);
    } else if (!rc) {
        rc = run_tell(r, RUN_ENDED, task, err);
    }
    if (!rc)
        rc = os_remove_tree(AT_FDCWD, s->dir, err);
    s->dir = NULL;
    return rc;
}

enum err_code run_executor_event(struct run *r, struct executor_event *e, struct err *err)
{
    const int task = (int)e->id;
    enum err_code rc = OK;

    if (e->kind == EXEC_STARTED)
        return OK;
    if (e->kind == EXEC_LOST) {
        struct result_card lost = {.status = ATTEMPT_LOST, .step = r->slots[task].step};

        memcpy(lost.reason, e->reason, sizeof(lost.reason));
        return ended(r, task, &lost, err);
    }
    if (r->slots[task].dir) /* told twice: the first time counts */
        rc = ended(r, task, &e->card, err);
    result_card_release(&e->card);
    return rc;
}
