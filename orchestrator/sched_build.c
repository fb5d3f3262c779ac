/* The table of tasks becomes counters, a list of users and the order of starts; and the check that all of it still fits together. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/str.h"
#include "orchestrator/sched_internal.h"

#define PATH_MAX_MS (INT64_MAX / 4) /* sums of expected times stay below, whatever history says */
#define MS_MAX (INT64_MAX / 8)      /* of a timeout or backoff, so that times can be added */

/* ---- the graph --------------------------------------------------------------------------------- */

static void list_users(struct sched *s, const struct sched_task *tasks)
{
    size_t *fill = mem_zero(s->n + 1, sizeof(*fill));

    s->user_at = mem_zero(s->n + 2, sizeof(*s->user_at));
    for (size_t i = 0; i < s->n; i++)
        for (size_t k = 0; k < tasks[i].need_count; k++) {
            CHECK(tasks[i].needs[k] >= 0 && (size_t)tasks[i].needs[k] < s->n);
            s->user_at[tasks[i].needs[k] + 1]++;
        }
    for (size_t i = 0; i < s->n; i++)
        s->user_at[i + 1] += s->user_at[i];
    memcpy(fill, s->user_at, s->n * sizeof(*fill));
    s->users = mem_zero(s->user_at[s->n] + 1, sizeof(*s->users));
    for (size_t i = 0; i < s->n; i++)
        for (size_t k = 0; k < tasks[i].need_count; k++)
            s->users[fill[tasks[i].needs[k]]++] = (int)i;
    free(fill);
}

/* Inputs before users.  A cycle is the caller's mistake: the loader has refused those of a file. */
static void sort_graph(struct sched *s, const struct sched_task *tasks)
{
    size_t *missing = mem_zero(s->n + 1, sizeof(*missing));
    size_t known = 0;

    s->order = mem_zero(s->n + 1, sizeof(*s->order));
    for (size_t i = 0; i < s->n; i++) {
        missing[i] = tasks[i].need_count;
        if (!missing[i])
            s->order[known++] = (int)i;
    }
    for (size_t at = 0; at < known; at++)
        for (size_t e = s->user_at[s->order[at]]; e < s->user_at[s->order[at] + 1]; e++)
            if (--missing[s->users[e]] == 0)
                s->order[known++] = s->users[e];
    CHECK(known == s->n);
    free(missing);
}

static int by_value(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a;
    const int64_t y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

static int64_t median_of_known(const struct sched_task *tasks, size_t n)
{
    int64_t *known = mem_zero(n + 1, sizeof(*known));
    size_t count = 0;
    int64_t median;

    for (size_t i = 0; i < n; i++)
        if (tasks[i].expected_ms > 0)
            known[count++] = tasks[i].expected_ms;
    qsort(known, count, sizeof(*known), by_value);
    median = count ? known[count / 2] : 1;
    free(known);
    return median;
}

struct place {
    int64_t priority, path_ms;
    int task;
};

static int by_order(const void *a, const void *b)
{
    const struct place *x = a;
    const struct place *y = b;

    if (x->priority != y->priority)
        return x->priority > y->priority ? -1 : 1;
    if (x->path_ms != y->path_ms)
        return x->path_ms > y->path_ms ? -1 : 1;
    return x->task < y->task ? -1 : x->task > y->task;
}

/* Longest path to the end, users first; by_rank: all tasks in the order of starts, free() it. */
static int *rank_tasks(struct sched *s, const struct sched_task *tasks)
{
    const int64_t median = median_of_known(tasks, s->n);
    struct place *places = mem_zero(s->n + 1, sizeof(*places));
    int *by_rank = mem_zero(s->n + 1, sizeof(*by_rank));

    for (size_t at = s->n; at-- > 0;) {
        const int i = s->order[at];
        const int64_t own = tasks[i].expected_ms > 0 ? tasks[i].expected_ms : median;
        int64_t rest = 0;

        for (size_t e = s->user_at[i]; e < s->user_at[i + 1]; e++)
            if (places[s->users[e]].path_ms > rest)
                rest = places[s->users[e]].path_ms;
        rest += own < PATH_MAX_MS ? own : PATH_MAX_MS;
        places[i] = (struct place){.priority = tasks[i].priority,
                                   .path_ms = rest < PATH_MAX_MS ? rest : PATH_MAX_MS,
                                   .task = i};
    }
    qsort(places, s->n, sizeof(*places), by_order);
    s->rank = mem_zero(s->n + 1, sizeof(*s->rank));
    for (size_t i = 0; i < s->n; i++) {
        by_rank[i] = places[i].task;
        s->rank[places[i].task] = (int)i;
    }
    free(places);
    return by_rank;
}

/* ---- the tasks --------------------------------------------------------------------------------- */

static int64_t within(int64_t v, int64_t most)
{
    if (v < 0)
        return 0;
    return v < most ? v : (most > 0 ? most : 0);
}

static void fill_items(struct sched *s, const struct sched_task *tasks)
{
    s->items = mem_zero(s->n + 1, sizeof(*s->items));
    s->demand = mem_zero(s->n + 1, sizeof(*s->demand));
    for (size_t i = 0; i < s->n; i++) {
        const struct sched_task *t = &tasks[i];

        s->items[i] = (struct item){.attempts_max = t->attempts > 1 ? t->attempts : 1,
                                    .backoff_ms = within(t->backoff_s, MS_MAX / 1000) * 1000,
                                    .timeout_ms = within(t->timeout_s, MS_MAX / 1000) * 1000,
                                    .step = -1,
                                    .blocker = -1,
                                    .selected = t->selected};
        s->demand[i] = (struct demand){.cpus = within(t->cpus, s->o.cpus),
                                       .memory_bytes = within(t->memory_bytes, s->o.memory_bytes),
                                       .gpus = within(t->gpus, s->o.gpus)};
    }
}

/* What a selected task needs, at any distance, must at least be looked up; the rest is not touched. */
static void first_states(struct sched *s, const struct sched_task *tasks)
{
    bool *wanted = mem_zero(s->n + 1, sizeof(*wanted));

    for (size_t at = s->n; at-- > 0;) {
        const int i = s->order[at];

        wanted[i] = (wanted[i] || tasks[i].selected) && !tasks[i].skipped;
        for (size_t k = 0; wanted[i] && k < tasks[i].need_count; k++)
            wanted[tasks[i].needs[k]] = true;
    }
    for (size_t i = 0; i < s->n; i++) {
        struct item *t = &s->items[i];

        if (!wanted[i]) {
            t->state = tasks[i].skipped ? SCHED_SKIPPED : SCHED_UNSELECTED;
        } else {
            t->state = SCHED_WAITING;
            s->open++;
        }
        for (size_t k = 0; k < tasks[i].need_count; k++)
            t->missing += !tasks[tasks[i].needs[k]].skipped;
        if (wanted[i] && !t->missing) {
            t->state = SCHED_KEYING;
            task_heap_put(&s->keys, (int)i, s->rank[i]);
        }
    }
    free(wanted);
}

struct sched *sched_new(const struct sched_task *tasks, size_t n, const struct sched_options *o)
{
    struct sched *s = mem_zero(1, sizeof(*s));
    int *by_rank;

    CHECK(n < INT32_MAX);
    s->n = n;
    s->o = *o;
    s->failed = -1;
    s->scratch = mem_zero(n + 1, sizeof(*s->scratch));
    list_users(s, tasks);
    sort_graph(s, tasks);
    by_rank = rank_tasks(s, tasks);
    fill_items(s, tasks);
    ready_set_init(&s->ready, s->demand, by_rank, s->rank, n);
    free(by_rank);
    task_heap_init(&s->keys, n);
    task_heap_init(&s->stops, n);
    task_heap_init(&s->timers, n);
    first_states(s, tasks);
    return s;
}

void sched_free(struct sched *s)
{
    if (!s)
        return;
    ready_set_release(&s->ready);
    task_heap_release(&s->keys);
    task_heap_release(&s->stops);
    task_heap_release(&s->timers);
    free(s->items);
    free(s->demand);
    free(s->user_at);
    free(s->users);
    free(s->order);
    free(s->rank);
    free(s->scratch);
    free(s);
}

/* ---- the check --------------------------------------------------------------------------------- */

static const char *check_sums(const struct sched *s)
{
    struct demand used = {0};
    int64_t jobs = 0, running = 0, open = 0;
    size_t ready = 0;

    for (size_t i = 0; i < s->n; i++) {
        const struct item *t = &s->items[i];

        running += t->state == SCHED_RUNNING;
        open += !sched_final(t->state);
        ready += ready_set_has(&s->ready, (int)i);
        if (!t->held)
            continue;
        jobs++;
        used.cpus += s->demand[i].cpus;
        used.memory_bytes += s->demand[i].memory_bytes;
        used.gpus += s->demand[i].gpus;
    }
    if (used.cpus != s->used.cpus || used.memory_bytes != s->used.memory_bytes ||
        used.gpus != s->used.gpus || jobs != s->jobs_used)
        return "resources in use are not those of the tasks that hold them";
    if (running != s->running || open != s->open || ready != s->ready.count)
        return "a count of tasks is wrong";
    if (s->told)
        return NULL;
    if (used.cpus > s->o.cpus && s->o.cpus > 0)
        return "more cpus in use than there are";
    if (used.memory_bytes > s->o.memory_bytes && s->o.memory_bytes > 0)
        return "more memory in use than there is";
    if (used.gpus > s->o.gpus && s->o.gpus > 0)
        return "more gpus in use than there are";
    return s->o.jobs > 0 && jobs > s->o.jobs ? "more attempts at once than jobs allows" : NULL;
}

static const char *check_missing(const struct sched *s)
{
    int *missing = mem_zero(s->n + 1, sizeof(*missing));
    const char *wrong = NULL;

    for (size_t i = 0; i < s->n; i++)
        for (size_t e = s->user_at[i]; e < s->user_at[i + 1]; e++) {
            const struct item *u = &s->items[s->users[e]];
            const enum sched_state state = s->items[i].state;

            missing[s->users[e]] += !sched_satisfies(state);
            if (u->state == SCHED_WAITING && sched_final(state) && !sched_satisfies(state) &&
                !s->items[i].parked)
                wrong = "a task waits for one that will never be done";
        }
    for (size_t i = 0; i < s->n; i++)
        if (missing[i] != s->items[i].missing)
            wrong = "a count of missing inputs is wrong";
    free(missing);
    return wrong;
}

static const char *check_item(const struct sched *s, int i)
{
    const struct item *t = &s->items[i];
    const bool lookable =
        t->state == SCHED_KEYING || t->state == SCHED_READY || t->state == SCHED_SHARED;
    const bool timed = task_heap_has(&s->timers, i);

    if (lookable && t->missing)
        return "a task goes on without its inputs";
    if (t->state == SCHED_WAITING && !t->missing)
        return "a task waits for nothing";
    if (t->held != ((t->state == SCHED_RUNNING && !t->exited) || t->issued))
        return "resources are held by a task that does not run";
    if (t->issued && t->state != SCHED_READY)
        return "a start is out for a task that is not ready";
    if (t->state == SCHED_READY && !t->issued && timed == ready_set_has(&s->ready, i))
        return "a ready task is neither eligible nor waiting for its time, or both";
    if (ready_set_has(&s->ready, i) && (t->state != SCHED_READY || t->issued))
        return "a task may start that is not ready";
    if (task_heap_has(&s->keys, i) && t->state != SCHED_KEYING)
        return "a key is wanted of a task that is not being looked up";
    if (task_heap_has(&s->stops, i) && t->state != SCHED_RUNNING)
        return "a stop is wanted of a task that does not run";
    if (timed && t->state != SCHED_READY && t->state != SCHED_KEYING && t->state != SCHED_RUNNING)
        return "a timer is set for a task that waits for no time";
    if (t->parked && t->state != SCHED_STOPPED && t->state != SCHED_UNSELECTED)
        return "a task is put off and goes on";
    if (t->state == SCHED_BLOCKED &&
        (t->blocker < 0 || (s->items[t->blocker].state != SCHED_FAILED &&
                            s->items[t->blocker].state != SCHED_UNSELECTED)))
        return "a task is blocked by one that has not failed";
    if (!t->selected && (t->held || t->state == SCHED_READY || t->state == SCHED_DONE))
        return "a task that is not selected runs";
    if (t->attempts < t->tries || t->tries > t->attempts_max)
        return "more tries than attempts";
    return NULL;
}

bool sched_check(const struct sched *s, const char **why)
{
    const char *wrong = check_sums(s);

    if (!wrong)
        wrong = check_missing(s);
    if (!wrong && (!task_heap_check(&s->keys, s->n) || !task_heap_check(&s->stops, s->n) ||
                   !task_heap_check(&s->timers, s->n)))
        wrong = "a queue is out of order";
    if (!wrong && (s->stopping || s->failed >= 0) && s->ready.count)
        wrong = "something may start after the end of the run was decided";
    for (size_t i = 0; !wrong && i < s->n; i++)
        wrong = check_item(s, (int)i);
    if (why)
        *why = wrong;
    return wrong == NULL;
}
