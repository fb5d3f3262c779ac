/* sched_bench.c - what the scheduler costs.  One line each: name, value, unit.
 *
 *   tasks_10k    100 stages x a matrix of 100, each task after one of the stage before, 64 at once
 *   tasks_100k   the same with 1,000 stages
 *   fan_10m      100,000 tasks with 100 inputs each: ten million edges
 *   crowd_100k   100,000 ready tasks of many sizes on a machine where few fit
 *
 * Built by hand, from the root:  cc -std=c17 -O2 -D_GNU_SOURCE -I. tests/bench/orchestrator/sched_bench.c \
 *     BUILD/libweir_{orchestrator,store,base}.a -ljansson -lcrypto -lm -pthread
 *
 * cpu is user time of this process, the best of several rounds.  A task makes five calls and five answers: key, miss, start, started, ended.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/str.h"
#include "orchestrator/sched.h"

#define ROUNDS 5

struct load {
    struct sched_task *tasks;
    int *needs;
    size_t n, per_task;
};

static double now_us(void)
{
    struct timespec t;

    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) != 0)
        exit(1);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static void make(struct load *l, size_t stages, size_t width, size_t per_task)
{
    l->n = stages * width;
    l->per_task = per_task;
    l->tasks = mem_zero(l->n, sizeof(*l->tasks));
    l->needs = mem_zero(l->n * per_task + 1, sizeof(*l->needs));
    for (size_t i = 0; i < l->n; i++) {
        l->tasks[i] = (struct sched_task){.needs = l->needs + i * per_task,
                                          .need_count = i < width ? 0 : per_task,
                                          .cpus = 1,
                                          .attempts = 2,
                                          .expected_ms = (int64_t)(i * 7919 % 1000),
                                          .selected = true};
        for (size_t k = 0; i >= width && k < per_task; k++)
            l->needs[i * per_task + k] =
                (int)((i / width - 1) * width + (i % width + k * 37) % width);
    }
}

/* First in, first out: which attempt ends next. */
static size_t run(const struct load *l, struct sched *s)
{
    int *running = mem_zero(l->n + 1, sizeof(*running));
    size_t first = 0, last = 0, events = 0;
    bool finished = false;

    while (!finished) {
        const struct sched_effect e = sched_next(s, 0);
        struct sched_event ev = {.task = e.task, .attempt = e.attempt, .checkpoint_step = -1};

        if (e.kind == DO_KEY) {
            ev.kind = EV_MISS;
        } else if (e.kind == DO_START) {
            ev.kind = EV_STARTED;
            running[last++] = e.task;
        } else if (e.kind == DO_WAIT) {
            if (first == last)
                exit(1); /* nothing runs and nothing starts */
            ev.kind = EV_ENDED;
            ev.task = running[first++];
            ev.attempt = 1;
            ev.end = END_DONE;
        } else {
            finished = true;
        }
        if (!finished)
            sched_post(s, &ev);
        events++;
    }
    free(running);
    return last == l->n ? events : 0;
}

static void report(const char *name, struct load *l, const struct sched_options *o)
{
    double best_new = 1e18, best_run = 1e18;
    size_t events = 0;

    for (int round = 0; round < ROUNDS; round++) {
        const double begun = now_us();
        struct sched *s = sched_new(l->tasks, l->n, o);
        const double built = now_us();
        double ended;

        events = run(l, s);
        ended = now_us();
        if (!events)
            exit(1); /* not all tasks ran */
        best_new = built - begun < best_new ? built - begun : best_new;
        best_run = ended - built < best_run ? ended - built : best_run;
        sched_free(s);
    }
    printf("%s.new %.1f ms\n", name, best_new * 1e-3);
    printf("%s.run %.1f ms\n", name, best_run * 1e-3);
    printf("%s.event %.3f us\n", name, best_run / (double)events);
    printf("%s.task %.3f us\n", name, (best_new + best_run) / (double)l->n);
    free(l->tasks);
    free(l->needs);
}

int main(void)
{
    const struct sched_options many = {.cpus = 64, .memory_bytes = 1 << 20, .gpus = 8};
    struct load l;

    make(&l, 100, 100, 1);
    report("tasks_10k", &l, &many);
    make(&l, 1000, 100, 1);
    report("tasks_100k", &l, &many);
    make(&l, 1000, 100, 100);
    report("fan_10m", &l, &many);
    make(&l, 1, 100000, 0);
    for (size_t i = 0; i < l.n; i++) {
        l.tasks[i].cpus = 1 + (int64_t)(i % 64);
        l.tasks[i].memory_bytes = (int64_t)(i * 104729 % (1 << 20));
        l.tasks[i].gpus = i % 5 == 0 ? (int64_t)(1 + i / 5 % 8) : 0;
    }
    report("crowd_100k", &l, &many);
    return 0;
}
