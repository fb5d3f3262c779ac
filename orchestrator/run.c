/* The run loop: begin or go on, perform what the scheduler wants, post what happened, end. */
#include "orchestrator/run.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/os.h"
#include "orchestrator/run_internal.h"
#include "orchestrator/sched_replay.h"

#define POLL_MAX_MS 500 /* requests of other processes are looked for this often */
#define COMMIT_LAG_MS 20
#define RUNS_LOOKED_AT 200

/* ---- which run --------------------------------------------------------------------------------- */

/* The newest run with these options that has not ended and that no process runs. */
static enum err_code find_unfinished(struct run *r, const struct digest *options, bool *found,
                                     struct err *err)
{
    struct ledger_run *rows = NULL;
    struct process_id runner;
    size_t n = 0;
    bool alive;
    enum err_code rc = ledger_list_runs(r->ledger, RUNS_LOOKED_AT, &rows, &n, err);

    *found = false;
    for (size_t i = 0; !rc && !*found && i < n; i++) {
        if ((rows[i].state != RUN_RUNNING && rows[i].state != RUN_STOPPED) ||
            !digest_eq(&rows[i].options, options))
            continue;
        rc = share_runner(r->ledger, rows[i].run, &runner, &alive, err);
        if (!rc && !alive) {
            r->row = rows[i];
            *found = true;
        }
    }
    free(rows);
    return rc;
}

static enum err_code newest_kept(struct store *st, int64_t *out, struct err *err)
{
    struct ref_row *rows = NULL;
    size_t n = 0;
    enum err_code rc = index_refs(st->index, STR("runs/run-"), REF_ALL, &rows, &n, err);

    *out = 0;
    for (size_t i = 0; !rc && i < n; i++) {
        struct err ignored = ERR_INIT;
        int64_t number;

        if (str_to_i64(str_of(rows[i].name + strlen("runs/run-")), 1, INT64_MAX - 1, &number,
                       &ignored) == OK &&
            number > *out)
            *out = number;
    }
    free(rows);
    return rc;
}

static enum err_code begin(struct run *r, struct err *err)
{
    struct digest options;
    int64_t kept = 0;
    bool found = false;
    enum err_code rc = run_digest_of_options(r, &options, err);

    if (!rc)
        rc = find_unfinished(r, &options, &found, err);
    if (!rc && found) {
        r->number = r->row.run;
        r->row.state = RUN_RUNNING;
        r->report->resumed = true;
    } else if (!rc) {
        rc = newest_kept(r->st, &kept, err);
        if (!rc)
            rc = ledger_begin(r->ledger, r->p->name, &options, kept + 1, &r->number, err);
        if (!rc)
            rc = ledger_get_run(r->ledger, r->number, &r->row, err);
    }
    r->report->run = r->number;
    return rc;
}

/* ---- what the scheduler knows ------------------------------------------------------------------ */

static int collect_needs(const struct task *t, int *needs)
{
    int n = 0;

    for (size_t i = 0; i < t->input_count; i++)
        for (size_t k = 0; k < t->inputs[i].ref_count; k++)
            if (t->inputs[i].refs[k].task >= 0)
                needs[n++] = t->inputs[i].refs[k].task;
    return n;
}

static void describe_task(struct run *r, int number, struct sched_task *out)
{
    const struct task *t = &r->p->tasks[number];
    const struct stage *st = &r->p->stages[t->stage];
    struct task_record record = {0};
    struct err ignored = ERR_INIT;
    size_t refs = 0;
    int *needs;

    for (size_t i = 0; i < t->input_count; i++)
        refs += t->inputs[i].ref_count;
    needs = arena_array(&r->arena, refs + 1, sizeof(*needs));
    *out = (struct sched_task){.needs = needs,
                               .need_count = (size_t)collect_needs(t, needs),
                               .cpus = st->resources.cpus,
                               .memory_bytes = st->resources.memory_bytes,
                               .gpus = st->resources.gpus,
                               .attempts = st->attempts,
                               .backoff_s = st->backoff_s,
                               .timeout_s = st->timeout_s,
                               .selected = !r->o->wanted || r->o->wanted[number],
                               .skipped = t->skipped};
    /* History matters for what will run; what is cached has no need of an estimate. */
    if (!r->known[number].known &&
        task_record_get(r->ledger, r->p->name, t->name, &record, &ignored) == OK)
        out->expected_ms = record.mean_ms;
    task_record_release(&record);
}

static void machine(const struct run *r, struct share_limits *out)
{
    const struct config *c = &r->st->config;

    out->cpus = c->cpus > 0 ? c->cpus : os_cpu_count();
    out->memory_bytes = c->memory_bytes > 0
                            ? c->memory_bytes
                            : (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    out->gpus = c->gpus;
}

static void make_sched(struct run *r)
{
    struct sched_task *tasks = mem_zero(r->p->task_count + 1, sizeof(*tasks));
    struct share_limits m;
    struct sched_options o = {.jobs = r->o->jobs, .keep_going = r->o->keep_going};

    machine(r, &m);
    o.cpus = m.cpus;
    o.memory_bytes = m.memory_bytes;
    o.gpus = m.gpus;
    for (size_t i = 0; i < r->p->task_count; i++)
        describe_task(r, (int)i, &tasks[i]);
    r->sched = sched_new(tasks, r->p->task_count, &o);
    free(tasks);
}

/* ---- going on ---------------------------------------------------------------------------------- */

/* Of the events of an earlier process only tries count, and attempts that may still be alive: what came out is asked from the store, and a task
 * that had failed for good is tried anew, since somebody has typed the command again. */
struct history {
    struct run *r;
    struct sched_event *events; /* in order */
    const char **dirs;          /* of starts */
    size_t count, room;
    bool *over; /* per task: its last end was final */
};

static int find_task(void *arg, const char *name)
{
    return pipeline_find_task(arg, name);
}

static enum err_code read_event(void *arg, int64_t seq, const json_t *body, struct err *err)
{
    struct history *h = arg;
    const char *dir = json_string_value(json_object_get(body, "dir"));
    struct sched_event e;

    (void)seq;
    (void)err;
    if (!sched_event_of(body, find_task, (void *)(uintptr_t)h->r->p, &e) || e.task < 0)
        return OK;
    if (e.kind != EV_STARTED && e.kind != EV_ENDED)
        return OK;
    if (h->count == h->room) {
        h->room = h->room ? 2 * h->room : 64;
        h->events = mem_grow(h->events, h->room, sizeof(*h->events));
        h->dirs = mem_grow(h->dirs, h->room, sizeof(*h->dirs));
    }
    h->dirs[h->count] = dir ? arena_strdup(&h->r->arena, dir) : NULL;
    h->events[h->count++] = e;
    if (e.kind == EV_STARTED)
        h->r->slots[e.task].attempt = e.attempt;
    h->over[e.task] = e.kind == EV_ENDED && (e.end == END_DONE || e.end == END_FATAL);
    return OK;
}

static enum err_code go_on(struct run *r, struct err *err)
{
    struct history h = {.r = r};
    enum err_code rc;

    h.over = mem_zero(r->p->task_count + 1, sizeof(*h.over));
    rc = ledger_replay(r->ledger, r->number, 0, read_event, &h, err);
    for (size_t i = 0; !rc && i < h.count; i++) {
        struct sched_event *e = &h.events[i];
        const bool last = e->kind == EV_STARTED && e->attempt == r->slots[e->task].attempt;

        if (h.over[e->task] || r->known[e->task].known)
            continue;
        sched_post(r->sched, e);
        if (last && sched_state_of(r->sched, e->task) == SCHED_RUNNING) {
            bool ended = false;

            for (size_t k = i + 1; k < h.count; k++)
                ended = ended || (h.events[k].task == e->task && h.events[k].kind == EV_ENDED);
            if (!ended && h.dirs[i]) {
                r->slots[e->task].key = r->known[e->task].key;
                rc = run_adopt(r, e->task, e->attempt, h.dirs[i], err);
            }
        }
    }
    free(h.events);
    free(h.dirs);
    free(h.over);
    return rc;
}

/* ---- the loop ---------------------------------------------------------------------------------- */

static enum err_code stop_all(struct run *r, const char *reason, struct err *err)
{
    if (++r->stops > 1) {
        r->report->detached = true;
        return OK;
    }
    run_post(r, EV_STOP, -1);
    return run_note(r, json_pack("{s:s, s:s}", "event", "run.stop", "reason", reason), err);
}

static enum err_code take_signals(struct run *r, struct err *err)
{
    struct signalfd_siginfo info;
    enum err_code rc = OK;

    while (!rc && read(r->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
        rc = stop_all(r, info.ssi_signo == SIGINT ? "Ctrl-C" : "SIGTERM", err);
    return rc;
}

static enum err_code take_requests(struct run *r, struct err *err)
{
    struct ledger_request q;
    bool got = true;
    enum err_code rc = OK;

    while (!rc && got) {
        rc = ledger_take_request(r->ledger, r->number, &q, &got, err);
        if (rc || !got)
            break;
        if (q.ask == LEDGER_ASK_STOP) {
            rc = stop_all(r, "weir cancel --stop", err);
            continue;
        }
        r->cancelled = r->cancelled || !q.task[0];
        rc = run_note(
            r, json_pack("{s:s, s:s*}", "event", "run.cancel", "task", q.task[0] ? q.task : NULL),
            err);
        if (!q.task[0] || pipeline_find_task(r->p, q.task) >= 0)
            run_post(r, EV_CANCEL, q.task[0] ? pipeline_find_task(r->p, q.task) : -1);
    }
    return rc;
}

static enum err_code tick(struct run *r, struct err *err)
{
    struct run_event e = {.kind = RUN_TICK, .run = r->number, .counts = r->report->counts};
    struct run_running *list;
    size_t n = 0;
    enum err_code rc;

    if (!r->o->tick_ms || !r->o->on_event)
        return OK;
    list = mem_zero((size_t)r->running + 1, sizeof(*list));
    for (size_t i = 0; i < r->p->task_count && n < (size_t)r->running; i++)
        if (r->slots[i].dir)
            list[n++] = (struct run_running){&r->p->tasks[i], r->slots[i].attempt, r->slots[i].dir,
                                             r->slots[i].started_ns};
    e.running = list;
    e.running_count = n;
    rc = r->o->on_event(r->o->arg, &e, err);
    free(list);
    return rc;
}

/* Sleeps until something happens; before that, what was noted becomes durable. */
static enum err_code wait_for(struct run *r, int64_t until_ms, struct err *err)
{
    const int64_t longest =
        r->o->tick_ms > 0 && r->o->tick_ms < POLL_MAX_MS ? r->o->tick_ms : POLL_MAX_MS;
    int64_t ms = until_ms < 0 ? longest : until_ms - run_now_ms();
    struct executor_event e = {0};
    bool got = false;
    enum err_code rc = OK;

    if (ms < 0)
        ms = 0;
    if (ms > longest)
        ms = longest;
    if (ledger_dirty(r->ledger) && ms > COMMIT_LAG_MS)
        ms = COMMIT_LAG_MS;
    rc = r->executor->ops->poll(r->executor, ms, r->signals, &e, &got, err);
    if (!rc && got)
        rc = run_executor_event(r, &e, err);
    if (!rc)
        rc = take_signals(r, err);
    if (!rc && ledger_dirty(r->ledger) &&
        (!got || os_monotonic_ns() - r->dirty_since_ns > INT64_C(1000000) * COMMIT_LAG_MS))
        rc = run_commit(r, err);
    if (!rc && !got && run_now_ms() - r->recheck_ms >= longest) {
        r->recheck_ms = run_now_ms();
        rc = take_requests(r, err);
        if (!rc)
            rc = tick(r, err);
    }
    return rc;
}

/* Shared tasks are looked at again whenever the loop comes round, at most ten times a second. */
static void recheck_shared(struct run *r)
{
    if (run_now_ms() - r->shared_ms < 100)
        return;
    r->shared_ms = run_now_ms();
    if (r->shared_count == 0)
        return;
    r->shared_count = 0; /* counted again as they are found to be still so */
    for (size_t i = 0; i < r->p->task_count; i++)
        if (sched_state_of(r->sched, (int)i) == SCHED_SHARED) {
            r->keyed[i] = false;
            run_post(r, EV_RECHECK, (int)i);
        }
}

static enum err_code loop(struct run *r, struct err *err)
{
    enum err_code rc = OK;

    while (!rc && !r->report->detached) {
        struct sched_effect e;

        recheck_shared(r);
        e = sched_next(r->sched, run_now_ms());
        switch (e.kind) {
        case DO_KEY:
            rc = run_key(r, e.task, err);
            break;
        case DO_START:
            rc = run_start(r, &e, err);
            break;
        case DO_STOP:
            r->executor->ops->stop(r->executor, (uint64_t)e.task, false);
            break;
        case DO_WAIT:
            rc = wait_for(
                r, r->shared_count > 0 && e.until_ms < 0 ? run_now_ms() + 100 : e.until_ms, err);
            break;
        case DO_FINISH:
            return OK;
        }
    }
    return rc;
}

/* ---- begin and end ----------------------------------------------------------------------------- */

static enum err_code tell_rest(struct run *r, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < r->p->task_count; i++) {
        const enum sched_state s = sched_state_of(r->sched, (int)i);

        if (s != SCHED_SKIPPED && s != SCHED_BLOCKED && s != SCHED_UNSELECTED && s != SCHED_STOPPED)
            continue;
        if (s == SCHED_SKIPPED) {
            r->slots[i].reason = r->p->tasks[i].skip_reason;
            rc = run_note(r,
                          json_pack("{s:s, s:s, s:s*}", "event", "task.skip", "task",
                                    r->p->tasks[i].name, "reason", r->slots[i].reason),
                          err);
        } else if (s == SCHED_BLOCKED) {
            const int by = sched_blocker_of(r->sched, (int)i);

            r->slots[i].reason = by >= 0 ? r->p->tasks[by].name : "an earlier failure";
            rc = run_note(r,
                          json_pack("{s:s, s:s, s:s}", "event", "task.block", "task",
                                    r->p->tasks[i].name, "by", r->slots[i].reason),
                          err);
        }
        if (!rc)
            rc = run_tell(r, RUN_ENDED, (int)i, err);
    }
    return rc;
}

static enum err_code finish(struct run *r, struct err *err)
{
    const int64_t *n = r->report->counts;
    enum err_code rc = tell_rest(r, err);
    enum run_state state;

    if (rc)
        return rc;
    if (r->stops && n[SCHED_FAILED] == 0) {
        r->row.state = RUN_STOPPED;
        rc = run_commit(r, err);
        return rc ? rc
                  : err_set(err, ERR_STOPPED, "run-%lld stopped; the same command goes on with it",
                            (long long)r->number);
    }
    state = r->cancelled                             ? RUN_CANCELLED
            : n[SCHED_FAILED] + n[SCHED_BLOCKED] > 0 ? RUN_FAILED
                                                     : RUN_SUCCEEDED;
    rc = run_keep(r, state, err);
    if (!rc)
        rc = resolver_save(r->resolver, err);
    if (!rc && state != RUN_SUCCEEDED)
        rc = err_set(err, ERR_TASK, "run-%lld: %lld of %zu tasks failed", (long long)r->number,
                     (long long)n[SCHED_FAILED], r->p->task_count);
    return rc;
}

static enum err_code open_all(struct run *r, struct err *err)
{
    const struct resolver_options o = {
        .inputs = r->o->inputs, .wanted = NULL, .source = {.offline = r->o->offline}};
    struct share_limits limits;
    struct executor_local_options local = {.store = r->st->root};
    enum err_code rc = ledger_open(r->st->root, LEDGER_WRITE, &r->ledger, err);

    if (!rc)
        rc = resolver_new(r->st, r->ledger, r->p, &o, &r->resolver, err);
    if (!rc)
        rc = resolve_all(r->resolver, r->known, r->keyed, err);
    if (!rc)
        rc = begin(r, err);
    machine(r, &limits);
    if (!rc)
        rc = share_join(r->ledger, r->number, &limits, &r->share, err);
    local.slots = (int)(r->o->jobs > 0 ? r->o->jobs : limits.cpus);
    if (!rc) {
        local.exec_path =
            arena_printf(&r->arena, "%s/weir-exec", programs_dir(resolver_programs(r->resolver)));
        rc = executor_local(&local, &r->executor, err);
    }
    return rc;
}

static enum err_code all(struct run *r, struct err *err)
{
    enum err_code rc = open_all(r, err);

    if (rc)
        return rc;
    make_sched(r);
    rc = run_note_begin(r, r->report->resumed, err);
    if (!rc)
        rc = run_note_cached(r, err);
    if (!rc)
        rc = run_tell(r, RUN_BEGUN, -1, err);
    if (!rc && r->report->resumed)
        rc = go_on(r, err);
    if (!rc)
        rc = loop(r, err);
    if (!rc && r->report->detached) {
        rc = run_commit(r, err);
        return rc ? rc
                  : err_set(
                        err, ERR_STOPPED,
                        "left run-%lld with its tasks running; the same command watches it again",
                        (long long)r->number);
    }
    if (!rc)
        rc = finish(r, err);
    if (!rc || rc == ERR_TASK)
        run_sweep(r);
    return rc;
}

static void close_all(struct run *r)
{
    if (r->executor)
        r->executor->ops->close(r->executor);
    sched_free(r->sched);
    share_leave(r->share);
    resolver_free(r->resolver);
    ledger_close(r->ledger);
    os_close_quiet(&r->signals);
    arena_release(&r->arena);
    free(r->slots);
    free(r->known);
    free(r->keyed);
}

enum err_code run_pipeline(struct store *st, const struct pipeline *p, const struct run_options *o,
                           struct run_report *out, struct err *err)
{
    struct run r = {.st = st, .p = p, .o = o, .report = out, .signals = -1};
    sigset_t mask, before;
    enum err_code rc = OK;

    *out = (struct run_report){0};
    arena_init(&r.arena);
    r.begun_ns = os_monotonic_ns();
    r.slots = mem_zero(p->task_count + 1, sizeof(*r.slots));
    r.known = mem_zero(p->task_count + 1, sizeof(*r.known));
    r.keyed = mem_zero(p->task_count + 1, sizeof(*r.keyed));
    for (size_t i = 0; i < p->task_count; i++)
        r.slots[i].step = -1;
    (void)sigemptyset(&mask);
    (void)sigaddset(&mask, SIGINT);
    (void)sigaddset(&mask, SIGTERM);
    CHECK(pthread_sigmask(SIG_BLOCK, &mask, &before) == 0);
    r.signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (r.signals < 0)
        rc = err_sys(err, errno, "make a descriptor for signals");
    if (!rc)
        rc = all(&r, err);
    out->wall_ms = (os_monotonic_ns() - r.begun_ns) / 1000000;
    close_all(&r);
    CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    return rc;
}
