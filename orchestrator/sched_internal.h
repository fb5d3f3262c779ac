/* sched_internal.h - what the files of the scheduler share: its state.
 *
 * Life:     sched_build.c makes and checks it, sched.c changes it.
 * Owns:     struct sched owns its arrays.
 * Threads:  one.
 * Errors:   none.
 */
#ifndef WEIR_ORCHESTRATOR_SCHED_INTERNAL_H
#define WEIR_ORCHESTRATOR_SCHED_INTERNAL_H

#include "orchestrator/sched.h"
#include "orchestrator/sched_queue.h"

struct item { /* a task */
    int64_t attempts_max, backoff_ms, timeout_ms;
    int64_t not_before_ms;        /* of its next start */
    int64_t started_ms, spent_ms; /* of the attempt that runs; by those before */
    int64_t step;                 /* newest checkpoint that an end told of; -1 */
    int attempts;                 /* started so far */
    int tries;                    /* of them, those that count */
    int lost, barren;             /* in a row, without a newer checkpoint: lost; of any kind */
    int overtaken;                /* starts that went before it while it was first */
    int missing;                  /* inputs, counted as often as they are named */
    int blocker;                  /* task, or -1 */
    enum sched_state state;
    bool selected;
    bool parked; /* STOPPED or UNSELECTED, but a resume wants it again */
    bool held;   /* its resources are taken: it runs, or DO_START is out */
    bool
        exited; /* the program of the attempt has ended, its result is not durable yet: it holds nothing */
    bool issued;    /* DO_START is out and not answered */
    bool cancelled; /* to fail when its attempt ends */
    bool timed_out; /* of the attempt that runs */
};
struct sched {
    size_t n;
    struct sched_options o;
    struct item *items;
    struct demand *demand; /* of each task, at most what there is */
    size_t *user_at;       /* the users of task i: users[user_at[i]] .. users[user_at[i + 1] - 1] */
    int *users;
    int *order;   /* all tasks, inputs before users */
    int *rank;    /* task -> place in the order of starts */
    int *scratch; /* n + 1 */
    struct ready_set ready;
    struct task_heap keys, stops; /* by rank: wanted effects */
    struct task_heap timers;      /* by time: backoff, deferred effects, timeouts */
    struct demand used;
    int64_t jobs_used;
    int64_t running, open; /* open: not in a final state */
    int failed;            /* the task whose failure ends the run, or -1 */
    bool stopping, cancelled;
    bool nothing_fits; /* since the last change: do not look again */
    bool told;         /* of starts that it did not ask for: limits may be exceeded by them */
};

bool sched_final(enum sched_state state);
bool sched_satisfies(enum sched_state state); /* as an input */

#endif
