/* The run loop: begin or go on, perform what the scheduler wants, post what happened, end. */
#include "orchestrator/run.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "orchestrator/run_internal.h"
#include "store/idset.h"

#define POLL_MAX_MS 500       /* requests of other processes are looked for this often */
#define COMMIT_LAG_MS 50      /* events wait so long to become durable together, */
#define COMMIT_SHARE 10       /* or so many times as long as that took last, */
#define COMMIT_LAG_MAX_MS 400 /* at most so long */
#define SETTLE_LAG_MS 5       /* then others see what this run has given back */
#define RUNS_LOOKED_AT 200
#define SHARED_RECHECK_MS 100
#define FULL_WAIT_MS 10000
#define ENTER_TRIES 10
#define SLOTS_MAX 1024 /* residents */

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
        r->report->resumed = true;
    } else if (!rc) {
        rc = newest_kept(r->st, &kept, err);
        if (!rc)
            rc = ledger_begin(r->ledger, r->p->name, &options, kept + 1, &r->number, err);
    }
    r->report->run = r->number;
    return rc;
}

/* ---- what the scheduler knows ------------------------------------------------------------------ */

/* What --input has put in the place of another task's output needs that task no more. */
static int collect_needs(const struct run *r, int number, int *needs)
{
    const struct task *t = &r->p->tasks[number];
    int n = 0;

    for (size_t i = 0; i < t->input_count; i++)
        for (size_t k = 0; k < t->inputs[i].ref_count; k++)
            if (t->inputs[i].refs[k].task >= 0 &&
                !resolver_overridden(r->resolver, number, (int)i, (int)k))
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
                               .need_count = (size_t)collect_needs(r, number, needs),
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

/* The driver is only asked when somebody wants a GPU: its library is large. */
static bool wants_gpus(const struct pipeline *p)
{
    for (size_t i = 0; i < p->stage_count; i++)
        if (p->stages[i].resources.gpus > 0)
            return true;
    return false;
}

static void machine(const struct run *r, struct share_limits *out)
{
    const struct config *c = &r->st->config;

    out->cpus = c->cpus > 0 ? c->cpus : os_cpu_count();
    out->memory_bytes = c->memory_bytes > 0
                            ? c->memory_bytes
                            : (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    out->gpus = c->gpus > 0 ? c->gpus : wants_gpus(r->p) ? platform_gpus() : 0;
}

static struct sched *make_sched(struct run *r, bool keep_going)
{
    struct sched_task *tasks = mem_zero(r->p->task_count + 1, sizeof(*tasks));
    const struct sched_options o = {.cpus = r->limits.cpus,
                                    .memory_bytes = r->limits.memory_bytes,
                                    .gpus = r->limits.gpus,
                                    .jobs = r->o->jobs,
                                    .keep_going = keep_going};
    struct sched *out;

    for (size_t i = 0; i < r->p->task_count; i++)
        describe_task(r, (int)i, &tasks[i]);
    out = sched_new(tasks, r->p->task_count, &o);
    free(tasks);
    return out;
}

/* ---- the loop ---------------------------------------------------------------------------------- */

static enum err_code stop_all(struct run *r, const char *reason, struct err *err)
{
    enum err_code rc;

    if (r->stopping)
        return OK;
    r->stopping = true;
    run_post(r, EV_STOP, -1);
    run_drop_pending(r);
    rc = run_note(r, json_pack("{s:s, s:s}", "event", "run.stop", "reason", reason), err);
    return rc ? rc : run_release_claims(r, err);
}

static enum err_code take_signals(struct run *r, struct err *err)
{
    struct signalfd_siginfo info;
    enum err_code rc = OK;

    while (!rc && read(r->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        r->report->detached = r->report->detached || r->stopping;
        rc = stop_all(r, info.ssi_signo == SIGINT ? "Ctrl-C" : "SIGTERM", err);
    }
    return rc;
}

static enum err_code cancel(struct run *r, const char *name, struct err *err)
{
    const int task = *name ? pipeline_find_task(r->p, name) : -1;
    enum err_code rc;

    r->cancelled = r->cancelled || !*name;
    rc = run_note(r, json_pack("{s:s, s:s*}", "event", "run.cancel", "task", *name ? name : NULL),
                  err);
    if (rc || (*name && task < 0))
        return rc;
    if (task >= 0)
        r->slots[task].cancelled = true;
    run_post(r, EV_CANCEL, task);
    run_drop_pending(r);
    return run_release_claims(r, err);
}

static enum err_code take_requests(struct run *r, struct err *err)
{
    struct ledger_request q;
    bool got = true;
    enum err_code rc = OK;

    while (!rc && got) {
        rc = ledger_take_request(r->ledger, r->number, &q, &got, err);
        if (!rc && got)
            rc = q.ask == LEDGER_ASK_STOP ? stop_all(r, "weir cancel --stop", err)
                                          : cancel(r, q.task, err);
    }
    return rc;
}

static enum err_code tick(struct run *r, struct err *err)
{
    struct run_event e = {.kind = RUN_TICK, .run = r->number, .counts = r->report->counts};
    struct run_running *list;
    enum err_code rc;

    if (!r->o->tick_ms || !r->o->on_event)
        return OK;
    list = mem_zero(r->live_count + 1, sizeof(*list));
    for (size_t i = 0; i < r->live_count; i++) {
        const struct run_attempt *a = r->live[i];

        list[i] = (struct run_running){&r->p->tasks[a->task], r->slots[a->task].attempt, a->dir,
                                       a->started_ns};
    }
    e.running = list;
    e.running_count = r->live_count;
    rc = r->o->on_event(r->o->arg, &e, err);
    free(list);
    return rc;
}

/* What other processes ask, and the view, also while something happens all the time. */
static enum err_code look_around(struct run *r, int64_t every_ms, struct err *err)
{
    enum err_code rc;

    if (run_now_ms() - r->recheck_ms < every_ms)
        return OK;
    r->recheck_ms = run_now_ms();
    rc = take_requests(r, err);
    if (!rc)
        rc = run_pin_now_and_then(r, err);
    return rc ? rc : tick(r, err);
}

/* On a full disk an attempt that runs may be what fills it, and what it leaves goes when it ends: nothing is lost by waiting for that. */
static enum err_code commit(struct run *r, struct err *err)
{
    const int64_t begun = os_monotonic_ns();
    enum err_code rc = run_commit(r, err);

    r->lag_ms = COMMIT_SHARE * (os_monotonic_ns() - begun) / 1000000;
    if (r->lag_ms > COMMIT_LAG_MAX_MS)
        r->lag_ms = COMMIT_LAG_MAX_MS;
    if (rc != ERR_FULL) {
        r->full_ms = 0;
        return rc;
    }
    if (r->full_ms == 0)
        r->full_ms = run_now_ms();
    if (r->live_count == 0 || run_now_ms() - r->full_ms > FULL_WAIT_MS)
        return rc;
    r->dirty_since_ns = os_monotonic_ns();
    *err = (struct err)ERR_INIT;
    return OK;
}

/* How long the oldest of what was noted may still wait to become durable. */
static int64_t lag_left_ms(const struct run *r)
{
    const int64_t lag = r->lag_ms > COMMIT_LAG_MS ? r->lag_ms : COMMIT_LAG_MS,
                  since = (os_monotonic_ns() - r->dirty_since_ns) / 1000000;

    return since < lag ? lag - since : 0;
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
    if (ledger_dirty(r->ledger) && ms > lag_left_ms(r))
        ms = lag_left_ms(r);
    if (share_unsettled(r->share) && ms > SETTLE_LAG_MS)
        ms = SETTLE_LAG_MS;
    rc = r->executor->ops->poll(r->executor, ms, r->signals, &e, &got, err);
    if (!rc && got)
        rc = run_executor_event(r, &e, err);
    else if (!rc)
        rc = share_settle(r->share, err);
    if (!rc)
        rc = take_signals(r, err);
    if (!rc && ledger_dirty(r->ledger) && lag_left_ms(r) == 0)
        rc = commit(r, err);
    return rc ? rc : look_around(r, longest, err);
}

/* Shared tasks are looked at again whenever the loop comes round, at most ten times a second. */
static void recheck_shared(struct run *r)
{
    if (r->shared_count == 0 || run_now_ms() - r->shared_ms < SHARED_RECHECK_MS)
        return;
    r->shared_ms = run_now_ms();
    r->shared_count = 0; /* counted again as they are found to be still so */
    for (size_t i = 0; i < r->p->task_count; i++)
        if (sched_state_of(r->sched, (int)i) == SCHED_SHARED)
            run_post(r, EV_RECHECK, (int)i);
}

/* When to look again though nothing happens; -1: never. */
static int64_t next_ms(const struct run *r, int64_t sched_ms)
{
    int64_t until = sched_ms;

    if (r->shared_count > 0 && (until < 0 || r->shared_ms + SHARED_RECHECK_MS < until))
        until = r->shared_ms + SHARED_RECHECK_MS;
    if (r->pending_count > 0 && (until < 0 || r->pending_ms < until))
        until = r->pending_ms;
    return until;
}

static enum err_code loop(struct run *r, struct err *err)
{
    enum err_code rc = OK;

    while (!rc && !r->report->detached) {
        struct sched_effect e;

        recheck_shared(r);
        rc = run_start_pending(r, err);
        if (rc)
            return rc;
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
            rc = wait_for(r, next_ms(r, e.until_ms), err);
            break;
        case DO_FINISH:
            return OK;
        }
    }
    return rc;
}

/* ---- begin and end ----------------------------------------------------------------------------- */

static enum err_code note_skip(struct run *r, int task, struct err *err)
{
    struct run_slot *s = &r->slots[task];

    s->reason = r->p->tasks[task].skip_reason;
    return run_note(r,
                    json_pack("{s:s, s:s, s:s*}", "event", "task.skip", "task",
                              r->p->tasks[task].name, "reason", s->reason),
                    err);
}

static enum err_code note_block(struct run *r, int task, struct err *err)
{
    struct run_slot *s = &r->slots[task];
    const int by = sched_blocker_of(r->sched, task);
    const char *name = by >= 0 ? r->p->tasks[by].name : "an earlier failure";

    s->reason = by >= 0 && sched_state_of(r->sched, by) == SCHED_UNSELECTED
                    ? arena_printf(&r->arena, "%s is left out and has no result yet", name)
                    : name;
    return run_note(r,
                    json_pack("{s:s, s:s, s:s}", "event", "task.block", "task",
                              r->p->tasks[task].name, "by", name),
                    err);
}

/* The ends that come from other things than the task itself. */
static enum err_code tell_rest(struct run *r, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < r->p->task_count; i++) {
        const enum sched_state s = sched_state_of(r->sched, (int)i);

        if (r->slots[i].told)
            continue;
        if (s == SCHED_SKIPPED)
            rc = note_skip(r, (int)i, err);
        else if (s == SCHED_BLOCKED)
            rc = note_block(r, (int)i, err);
        else if (s == SCHED_FAILED)
            r->slots[i].reason = "cancelled";
        if (!rc)
            rc = run_tell(r, RUN_ENDED, (int)i, err);
    }
    return rc;
}

static enum err_code say_end(struct run *r, enum run_state state, struct err *err)
{
    const int64_t *n = r->report->counts;

    if (state == RUN_CANCELLED)
        return err_set(err, ERR_TASK, "run-%lld was cancelled; %lld of its %zu tasks have a result",
                       (long long)r->number, (long long)(n[SCHED_DONE] + n[SCHED_CACHED]),
                       r->p->task_count);
    if (r->denied)
        return err_set(err, ERR_DENIED,
                       "run-%lld: %lld of %zu tasks failed, policy or rights are "
                       "against it: see above",
                       (long long)r->number, (long long)n[SCHED_FAILED], r->p->task_count);
    if (state == RUN_FAILED && n[SCHED_FAILED] == 0)
        return err_set(err, ERR_TASK,
                       "run-%lld: %lld of %zu tasks need one that is left out and "
                       "has no result; select that one too",
                       (long long)r->number, (long long)n[SCHED_BLOCKED], r->p->task_count);
    return state == RUN_FAILED
               ? err_set(err, ERR_TASK, "run-%lld: %lld of %zu tasks failed", (long long)r->number,
                         (long long)n[SCHED_FAILED], r->p->task_count)
               : OK;
}

static enum err_code finish(struct run *r, struct err *err)
{
    const int64_t *n = r->report->counts;
    enum err_code rc = tell_rest(r, err);
    enum run_state state;

    if (rc)
        return rc;
    /* What is STOPPED by a failure does not go on, what is by a request does. */
    if (r->stopping && !r->cancelled && n[SCHED_STOPPED] > 0 &&
        (r->o->keep_going || n[SCHED_FAILED] == 0)) {
        r->row.state = RUN_STOPPED;
        rc = run_commit(r, err);
        if (!rc)
            rc = run_pin(r, err);
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
    return rc ? rc : say_end(r, state, err);
}

/* Its number; and this process as the one that runs it.  Another one may be quicker to go on with it: then there is a new one. */
static enum err_code enter_run(struct run *r, struct err *err)
{
    enum err_code rc = ERR_AGAIN;

    for (int i = 0; rc == ERR_AGAIN && i < ENTER_TRIES; i++) {
        *err = (struct err)ERR_INIT;
        r->report->resumed = false;
        rc = begin(r, err);
        if (!rc)
            rc = share_join(r->ledger, r->number, &r->limits, &r->share, err);
        if (!rc)
            rc = ledger_get_run(r->ledger, r->number, &r->row, err);
        if (!rc && r->row.state != RUN_RUNNING && r->row.state != RUN_STOPPED) {
            share_leave(r->share); /* it was brought to its end meanwhile */
            r->share = NULL;
            rc = err_set(err, ERR_AGAIN, "run-%lld ends again and again", (long long)r->number);
        }
    }
    r->row.state = RUN_RUNNING;
    return rc;
}

static enum err_code open_executor(struct run *r, struct err *err)
{
    struct executor_local_options local = {.store = r->st->root, .tell_exits = true};
    const int64_t slots = r->o->jobs > 0 ? r->o->jobs : r->limits.cpus;

    if (r->o->executor)
        return OK;
    local.slots = (int)(slots < SLOTS_MAX ? slots : SLOTS_MAX);
    local.exec_path =
        arena_printf(&r->arena, "%s/weir-exec", programs_dir(resolver_programs(r->resolver)));
    return executor_local(&local, &r->executor, err);
}

/* What deb: and url: sources have resolved to stays so from now on.  A folder that cannot be written is no reason not to run. */
static void pin_sources(struct run *r)
{
    struct err err = ERR_INIT;
    bool changed, fetched = false;

    for (size_t i = 0; i < r->p->source_count; i++)
        fetched =
            fetched || r->p->sources[i].kind == SOURCE_DEB || r->p->sources[i].kind == SOURCE_URL;
    if (fetched && sources_lock(resolver_sources(r->resolver), &changed, &err))
        log_line(LOG_WARN, "the lock file is not written, so sources are not pinned: %s", err.text);
}

static enum err_code open_all(struct run *r, struct err *err)
{
    const struct resolver_options o = {
        .inputs = r->o->inputs, .wanted = r->o->wanted, .source = {.offline = r->o->offline}};
    enum err_code rc = ledger_open(r->st->root, LEDGER_WRITE, &r->ledger, err);

    machine(r, &r->limits);
    if (!rc)
        rc = resolver_new(r->st, r->ledger, r->p, &o, &r->resolver, err);
    if (!rc) /* a wrong param of the last stage is told before the first one runs */
        rc = program_check(resolver_programs(r->resolver), r->p, r->o->problems, err);
    if (!rc)
        pin_sources(r);
    if (!rc)
        rc = resolve_all(r->resolver, r->known, r->keyed, err);
    if (!rc)
        rc = run_judge_sources(r, err);
    if (!rc)
        rc = open_executor(r, err);
    if (!rc)
        rc = enter_run(r, err);
    return rc;
}

/* From here on Ctrl-C is a request; before, nothing had begun and it just ends the process. */
static enum err_code block_signals(struct run *r, sigset_t *mask, sigset_t *before, struct err *err)
{
    (void)sigemptyset(mask);
    (void)sigaddset(mask, SIGINT);
    (void)sigaddset(mask, SIGTERM);
    CHECK(pthread_sigmask(SIG_BLOCK, mask, before) == 0);
    r->signals = signalfd(-1, mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (r->signals >= 0)
        return OK;
    (void)err_sys(err, errno, "make a descriptor for signals");
    CHECK(pthread_sigmask(SIG_SETMASK, before, NULL) == 0);
    return err->code;
}

/* What came too late to be a request must not kill whoever called. */
static void unblock_signals(const sigset_t *mask, const sigset_t *before)
{
    const struct timespec now = {0};

    while (sigtimedwait(mask, NULL, &now) > 0)
        continue;
    CHECK(pthread_sigmask(SIG_SETMASK, before, NULL) == 0);
}

static enum err_code begin_or_resume(struct run *r, struct err *err)
{
    enum err_code rc;

    r->sched = make_sched(r, r->o->keep_going);
    rc = run_keep_hits(r, err); /* before anything is on record */
    if (!rc)
        rc = run_note_begin(r, r->report->resumed, err);
    if (!rc)
        rc = run_note_cached(r, err);
    if (!rc)
        rc = run_tell(r, RUN_BEGUN, -1, err);
    if (!rc && r->report->resumed)
        rc = run_resume(r, make_sched(r, true), err);
    if (!rc)
        run_find_orphans(r);
    return rc;
}

static enum err_code work(struct run *r, struct err *err)
{
    enum err_code rc = begin_or_resume(r, err);

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
    if (!rc || rc == ERR_TASK || rc == ERR_DENIED)
        run_sweep(r);
    return rc;
}

static void close_all(struct run *r)
{
    if (r->executor)
        r->executor->ops->close(r->executor);
    sched_free(r->sched);
    run_free_orphans(r);
    share_leave(r->share);
    resolver_free(r->resolver);
    ledger_close(r->ledger);
    os_close_quiet(&r->signals);
    for (size_t i = 0; i < r->live_count; i++) {
        free(r->live[i]->dir);
        free(r->live[i]);
    }
    for (size_t i = 0; i < r->trash_count; i++)
        free(r->trash[i]);
    run_free_spares(r);
    idset_free(r->at_work);
    arena_release(&r->arena);
    free(r->live);
    free(r->pending);
    free(r->trash);
    free(r->slots);
    free(r->known);
    free(r->keyed);
}

static void add_advice(const struct run *r, struct err *err)
{
    const size_t n = strlen(err->text);

    (void)snprintf(err->text + n, sizeof(err->text) - n,
                   "; make room (weir gc --dry-run shows what could go): the same command goes on "
                   "with run-%lld",
                   (long long)r->number);
}

enum err_code run_pipeline(struct store *st, const struct pipeline *p, const struct run_options *o,
                           struct run_report *out, struct err *err)
{
    struct run r = {
        .st = st, .p = p, .o = o, .report = out, .executor = o->executor, .signals = -1};
    sigset_t mask, before;
    enum err_code rc;

    *out = (struct run_report){0};
    arena_init(&r.arena);
    r.begun_ns = os_monotonic_ns();
    r.slots = mem_zero(p->task_count + 1, sizeof(*r.slots));
    r.known = mem_zero(p->task_count + 1, sizeof(*r.known));
    r.keyed = mem_zero(p->task_count + 1, sizeof(*r.keyed));
    r.at_work = idset_new();
    for (size_t i = 0; i < p->task_count; i++)
        r.slots[i].step = -1;
    rc = open_all(&r, err);
    if (!rc) {
        rc = block_signals(&r, &mask, &before, err);
        if (!rc)
            rc = work(&r, err);
    }
    if (rc == ERR_FULL && r.number > 0)
        add_advice(&r, err);
    out->wall_ms = (os_monotonic_ns() - r.begun_ns) / 1000000;
    if (r.signals >= 0)
        unblock_signals(&mask, &before);
    close_all(&r);
    return rc;
}
