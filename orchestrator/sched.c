/* Every task has a counter of inputs that are missing, and a place (rank) in an order that never changes: priority, longest path to the
 * end, declared order.  An event touches its task, and the users of a task that came to its end, each edge once in a run; queues are heaps.
 * Only stop, cancel of all, resume and the failure that ends a run look at every task.
 *
 * Whatever decides about a task is a fold of events alone.  Timers and queues only say which effects are wanted, so a replay that never
 * asked for an effect has the same states. */
#include "orchestrator/sched.h"

#include "orchestrator/sched_internal.h"

#define BACKOFF_MAX_MS 3600000

const char *const sched_state_words[SCHED_STATE_COUNT] = {
    "waiting", "keying", "ready",   "shared",  "running", "cached",
    "done",    "failed", "skipped", "blocked", "stopped", "unselected"};

bool sched_final(enum sched_state state)
{
    return state >= SCHED_CACHED;
}

bool sched_satisfies(enum sched_state state)
{
    return state == SCHED_CACHED || state == SCHED_DONE || state == SCHED_SKIPPED;
}

/* ---- changes of one task ----------------------------------------------------------------------- */

static void set_state(struct sched *s, int i, enum sched_state state)
{
    struct item *t = &s->items[i];

    s->open += sched_final(t->state) - sched_final(state);
    s->running += (state == SCHED_RUNNING) - (t->state == SCHED_RUNNING);
    t->state = state;
}

/* Nothing is wanted for it any more. */
static void unqueue(struct sched *s, int i)
{
    ready_set_remove(&s->ready, i);
    task_heap_remove(&s->keys, i);
    task_heap_remove(&s->stops, i);
    task_heap_remove(&s->timers, i);
}

static void hold(struct sched *s, int i)
{
    struct item *t = &s->items[i];

    if (t->held)
        return;
    t->held = true;
    s->used.cpus += s->demand[i].cpus;
    s->used.memory_bytes += s->demand[i].memory_bytes;
    s->used.gpus += s->demand[i].gpus;
    s->jobs_used++;
}

static void let_go(struct sched *s, int i)
{
    struct item *t = &s->items[i];

    if (!t->held)
        return;
    t->held = t->issued = false;
    s->used.cpus -= s->demand[i].cpus;
    s->used.memory_bytes -= s->demand[i].memory_bytes;
    s->used.gpus -= s->demand[i].gpus;
    s->jobs_used--;
    s->nothing_fits = false;
}

static void want_key(struct sched *s, int i)
{
    set_state(s, i, SCHED_KEYING);
    task_heap_put(&s->keys, i, s->rank[i]);
}

static void want_start(struct sched *s, int i, int64_t now_ms)
{
    set_state(s, i, SCHED_READY);
    if (s->items[i].not_before_ms > now_ms) {
        task_heap_put(&s->timers, i, s->items[i].not_before_ms);
        return;
    }
    ready_set_put(&s->ready, i);
    s->nothing_fits = false;
}

static void want_stop(struct sched *s, int i)
{
    task_heap_put(&s->stops, i, s->rank[i]);
}

static void watch_time(struct sched *s, int i)
{
    const struct item *t = &s->items[i];

    if (t->timeout_ms && !t->timed_out)
        task_heap_put(&s->timers, i, t->started_ms + (t->timeout_ms - t->spent_ms));
}

/* It will not be done in this run, though nothing is wrong with it. */
static void park(struct sched *s, int i)
{
    struct item *t = &s->items[i];

    unqueue(s, i);
    let_go(s, i);
    t->parked = true;
    set_state(s, i, t->selected ? SCHED_STOPPED : SCHED_UNSELECTED);
    t->blocker = s->failed;
}

/* ---- the ends of tasks ------------------------------------------------------------------------- */

static void complete(struct sched *s, int i, enum sched_state state)
{
    unqueue(s, i);
    let_go(s, i);
    s->items[i].parked = false;
    s->items[i].blocker = -1;
    set_state(s, i, state);
    for (size_t e = s->user_at[i]; e < s->user_at[i + 1]; e++) {
        const int user = s->users[e];

        if (--s->items[user].missing == 0 && s->items[user].state == SCHED_WAITING)
            want_key(s, user);
    }
}

/* Everything that waits for task i, directly or not, will not be.  What was parked must not come back to wait for ever. */
static void block_users(struct sched *s, int i)
{
    int *stack = s->scratch;
    size_t depth = 0;

    stack[depth++] = i;
    while (depth) {
        const int at = stack[--depth];

        for (size_t e = s->user_at[at]; e < s->user_at[at + 1]; e++) {
            const int user = s->users[e];
            struct item *u = &s->items[user];

            if (u->state != SCHED_WAITING && !(u->parked && u->missing))
                continue;
            u->parked = false;
            u->blocker = i;
            set_state(s, user, u->selected ? SCHED_BLOCKED : SCHED_UNSELECTED);
            stack[depth++] = user; /* each task is blocked once, so scratch is large enough */
        }
    }
}

static void park_rest(struct sched *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (!sched_final(s->items[i].state) && !s->items[i].held &&
            s->items[i].state != SCHED_RUNNING)
            park(s, (int)i);
}

static void fail(struct sched *s, int i, bool ends_run)
{
    unqueue(s, i);
    let_go(s, i);
    s->items[i].parked = false;
    set_state(s, i, SCHED_FAILED);
    block_users(s, i);
    if (!ends_run || s->o.keep_going || s->failed >= 0)
        return;
    s->failed = i;
    park_rest(s);
}

static int64_t backoff(const struct item *t)
{
    int64_t ms = t->backoff_ms;

    for (int n = 1; n < t->barren && ms < BACKOFF_MAX_MS; n++)
        ms *= 2;
    return ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
}

static void again(struct sched *s, int i, const struct sched_event *e, bool progress)
{
    struct item *t = &s->items[i];

    let_go(s, i);
    t->not_before_ms = 0;
    if (progress && e->end != END_FAILED) {
        t->barren = 0;
    } else if (e->end != END_STOPPED || !s->stopping) { /* we did not ask for it */
        t->barren++;
        t->not_before_ms = e->now_ms + backoff(t);
    }
    if (s->stopping || s->failed >= 0)
        park(s, i);
    else if (e->end == END_LOST)
        want_key(s, i);
    else
        want_start(s, i, e->now_ms);
}

static void ended(struct sched *s, int i, const struct sched_event *e)
{
    struct item *t = &s->items[i];
    const bool progress = e->checkpoint_step > t->step;
    const int64_t ran = e->wall_ms > 0 ? e->wall_ms : e->now_ms - t->started_ms;
    bool over = false;

    unqueue(s, i);
    if (e->end == END_DONE) {
        complete(s, i, SCHED_DONE);
        return;
    }
    if (progress) {
        t->step = e->checkpoint_step;
        t->lost = 0;
    }
    if (e->end == END_LOST) {
        t->lost += !progress;
        over = t->lost >= SCHED_LOST_MAX;
    } else {
        t->spent_ms += ran > 0 ? ran : 0;
        if (e->end == END_FAILED || (e->end == END_STOPPED && !progress && !s->stopping))
            t->tries++;
        over = e->end == END_FATAL || t->tries >= t->attempts_max || t->timed_out ||
               (t->timeout_ms && t->spent_ms >= t->timeout_ms);
    }
    if (t->cancelled || s->cancelled)
        fail(s, i, false);
    else if (over || (s->failed >= 0 && e->end == END_FAILED))
        fail(s, i, true);
    else
        again(s, i, e, progress);
}

/* ---- events ------------------------------------------------------------------------------------ */

static void started(struct sched *s, int i, int attempt, int64_t now_ms)
{
    struct item *t = &s->items[i];

    unqueue(s, i);
    if (!t->issued)
        s->told = true;
    hold(s, i);
    t->issued = false;
    t->parked = t->timed_out = t->exited = false;
    t->attempts = attempt;
    t->started_ms = now_ms;
    t->blocker = -1;
    t->overtaken = 0;
    set_state(s, i, SCHED_RUNNING);
    watch_time(s, i);
    if (s->stopping || t->cancelled)
        want_stop(s, i);
}

static void stop_all(struct sched *s)
{
    s->stopping = true;
    for (size_t i = 0; i < s->n; i++)
        if (s->items[i].state == SCHED_RUNNING)
            want_stop(s, (int)i);
    park_rest(s);
}

static void cancel_one(struct sched *s, int i)
{
    struct item *t = &s->items[i];

    if (sched_final(t->state) && !t->parked)
        return;
    t->cancelled = true;
    if (t->state == SCHED_RUNNING)
        want_stop(s, i);
    else if (!t->held)
        fail(s, i, false);
}

static void cancel(struct sched *s, int task)
{
    if (task >= 0) {
        cancel_one(s, task);
        return;
    }
    s->cancelled = true;
    s->stopping = true;
    /* Users first: what a cancelled task blocks would not count as failed. */
    for (size_t i = s->n; i-- > 0;)
        if (s->items[s->order[i]].selected)
            cancel_one(s, s->order[i]);
    park_rest(s);
}

static void resume(struct sched *s)
{
    if (s->cancelled)
        return;
    s->stopping = false;
    for (size_t i = 0; i < s->n; i++) {
        struct item *t = &s->items[i];

        if (t->state == SCHED_RUNNING)
            task_heap_remove(&s->stops, (int)i);
        if (!t->parked || s->failed >= 0)
            continue;
        t->parked = false;
        t->blocker = -1;
        if (t->missing)
            set_state(s, (int)i, SCHED_WAITING);
        else
            want_key(s, (int)i);
    }
}

static void fire(struct sched *s, int64_t now_ms)
{
    for (int i = task_heap_first(&s->timers); i >= 0 && s->timers.key[i] <= now_ms;
         i = task_heap_first(&s->timers)) {
        struct item *t = &s->items[i];

        task_heap_remove(&s->timers, i);
        if (t->state == SCHED_KEYING) {
            task_heap_put(&s->keys, i, s->rank[i]);
        } else if (t->state == SCHED_READY) {
            ready_set_put(&s->ready, i);
            s->nothing_fits = false;
        } else {
            t->timed_out |= t->timeout_ms && now_ms - t->started_ms >= t->timeout_ms - t->spent_ms;
            want_stop(s, i);
            watch_time(s, i);
        }
    }
}

/* What lookup said about it.  A hit counts whenever it comes, the rest only as an answer. */
static void looked_up(struct sched *s, int i, const struct sched_event *e)
{
    struct item *t = &s->items[i];

    if (e->kind == EV_HIT) {
        if (t->parked || (!sched_final(t->state) && t->state != SCHED_RUNNING && !t->held))
            complete(s, i, SCHED_CACHED);
    } else if (e->kind == EV_RECHECK) {
        if (t->state == SCHED_SHARED)
            want_key(s, i);
    } else if (e->kind == EV_KEY_FAILED) {
        if (t->state == SCHED_WAITING || t->state == SCHED_KEYING || t->state == SCHED_SHARED ||
            (t->state == SCHED_READY && !t->held))
            fail(s, i, true);
    } else if (t->state == SCHED_KEYING) {
        unqueue(s, i);
        if (e->kind == EV_SHARED) {
            set_state(s, i, SCHED_SHARED);
        } else if (t->selected) {
            want_start(s, i, e->now_ms);
        } else {
            set_state(s, i, SCHED_UNSELECTED);
            block_users(s, i);
        }
    }
}

/* Attempts are numbered, so what is reported twice, late or by a replay is told from news. */
static void attempted(struct sched *s, int i, const struct sched_event *e)
{
    struct item *t = &s->items[i];
    const bool open = t->parked || !sched_final(t->state);

    if (!open || e->attempt < 1)
        return;
    if (e->attempt > t->attempts)
        started(s, i, e->attempt, e->now_ms); /* an end whose start was never told is both */
    if (e->kind == EV_ENDED && e->attempt == t->attempts && t->state == SCHED_RUNNING)
        ended(s, i, e);
}

void sched_post(struct sched *s, const struct sched_event *e)
{
    const bool named = e->task >= 0 && (size_t)e->task < s->n;

    switch (e->kind) {
    case EV_HIT:
    case EV_MISS:
    case EV_SHARED:
    case EV_KEY_FAILED:
    case EV_RECHECK:
        if (named)
            looked_up(s, e->task, e);
        break;
    case EV_STARTED:
    case EV_ENDED:
        if (named)
            attempted(s, e->task, e);
        break;
    case EV_EXITED:
        if (named && s->items[e->task].state == SCHED_RUNNING &&
            s->items[e->task].attempts == e->attempt) {
            let_go(s, e->task);
            s->items[e->task].exited = true;
        }
        break;
    case EV_STOP:
        stop_all(s);
        break;
    case EV_CANCEL:
        if (named || e->task == -1)
            cancel(s, e->task);
        break;
    case EV_TIME:
        fire(s, e->now_ms);
        break;
    case EV_RESUME:
        resume(s);
        break;
    }
}

/* ---- effects ----------------------------------------------------------------------------------- */

static int64_t left(int64_t total, int64_t used)
{
    return total > used ? total - used : 0; /* an earlier process may have had more */
}

static bool fits(const struct demand *d, const struct demand *free_now)
{
    return d->cpus <= free_now->cpus && d->memory_bytes <= free_now->memory_bytes &&
           d->gpus <= free_now->gpus;
}

/* What others may take without making the head wait longer: of what it needs nothing, of the rest all. */
static void keep_free(struct demand *free_now, const struct demand *head)
{
    if (head->cpus)
        free_now->cpus = left(free_now->cpus, head->cpus);
    if (head->memory_bytes)
        free_now->memory_bytes = left(free_now->memory_bytes, head->memory_bytes);
    if (head->gpus)
        free_now->gpus = left(free_now->gpus, head->gpus);
}

static int pick(struct sched *s)
{
    const int head = ready_set_first(&s->ready);
    struct demand free_now = {.cpus = left(s->o.cpus, s->used.cpus),
                              .memory_bytes = left(s->o.memory_bytes, s->used.memory_bytes),
                              .gpus = left(s->o.gpus, s->used.gpus)};
    int64_t jobs = s->o.jobs > 0 ? left(s->o.jobs, s->jobs_used) : INT64_MAX;
    int found = head;

    if (head < 0 || jobs == 0)
        return -1;
    if (!fits(&s->demand[head], &free_now)) {
        if (s->items[head].overtaken >= SCHED_OVERTAKE) {
            keep_free(&free_now, &s->demand[head]);
            jobs--;
        }
        found = jobs > 0 ? ready_set_first_fit(&s->ready, &free_now) : -1;
        if (found >= 0 && s->items[head].overtaken < SCHED_OVERTAKE)
            s->items[head].overtaken++;
    }
    return found;
}

struct sched_effect sched_next(struct sched *s, int64_t now_ms)
{
    int i;

    fire(s, now_ms);
    i = task_heap_first(&s->stops);
    if (i >= 0) {
        task_heap_remove(&s->stops, i);
        return (struct sched_effect){.kind = DO_STOP, .task = i, .attempt = s->items[i].attempts};
    }
    i = task_heap_first(&s->keys);
    if (i >= 0) {
        task_heap_remove(&s->keys, i);
        return (struct sched_effect){.kind = DO_KEY, .task = i};
    }
    i = s->nothing_fits ? -1 : pick(s);
    if (i >= 0) {
        ready_set_remove(&s->ready, i);
        hold(s, i);
        s->items[i].issued = true;
        return (struct sched_effect){
            .kind = DO_START, .task = i, .attempt = s->items[i].attempts + 1};
    }
    s->nothing_fits = true;
    if (s->open == 0)
        return (struct sched_effect){.kind = DO_FINISH, .task = -1};
    i = task_heap_first(&s->timers);
    return (struct sched_effect){
        .kind = DO_WAIT, .task = -1, .until_ms = i >= 0 ? s->timers.key[i] : -1};
}

static void defer_start(struct sched *s, int i, int64_t until_ms)
{
    struct item *t = &s->items[i];

    let_go(s, i);
    if (t->cancelled || s->cancelled) {
        fail(s, i, false);
    } else if (s->stopping || s->failed >= 0) {
        park(s, i);
    } else {
        if (until_ms > t->not_before_ms)
            t->not_before_ms = until_ms;
        task_heap_put(&s->timers, i, t->not_before_ms);
    }
}

void sched_defer(struct sched *s, const struct sched_effect *e, int64_t until_ms)
{
    struct item *t;

    if (e->task < 0 || (size_t)e->task >= s->n)
        return;
    t = &s->items[e->task];
    if (e->kind == DO_START && t->issued && e->attempt == t->attempts + 1)
        defer_start(s, e->task, until_ms);
    else if (e->kind == DO_KEY && t->state == SCHED_KEYING)
        /* NOLINTNEXTLINE(bugprone-branch-clone): one timer, two reasons */
        task_heap_put(&s->timers, e->task, until_ms);
    else if (e->kind == DO_STOP && t->state == SCHED_RUNNING && e->attempt == t->attempts &&
             (!task_heap_has(&s->timers, e->task) || s->timers.key[e->task] > until_ms))
        task_heap_put(&s->timers, e->task, until_ms);
}

enum sched_state sched_state_of(const struct sched *s, int task)
{
    return s->items[task].state;
}

int sched_attempts_of(const struct sched *s, int task)
{
    return s->items[task].attempts;
}

int sched_blocker_of(const struct sched *s, int task)
{
    return s->items[task].blocker;
}

bool sched_timed_out(const struct sched *s, int task)
{
    return s->items[task].timed_out;
}

int64_t sched_running(const struct sched *s)
{
    return s->running;
}
