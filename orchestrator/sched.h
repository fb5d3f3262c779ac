/* sched.h - when to do what: state x event -> state, wanted effects.  Pure: no clock, no files, no processes, no random numbers.
 *
 *                  inputs done            miss                started              ended
 *   WAITING ────────────► KEYING ───────────► READY ─────────────► RUNNING ─────────────► DONE | FAILED | READY (retry, backoff)
 *      │                    │ hit → DONE (cached)     another run has it → SHARED → KEYING again when it is through
 *      └─ skipped, blocked by a failure, not selected
 *
 * The caller performs effects and posts what happened; an effect may be performed twice without harm (a crash in between), so every event is
 * accepted in every state and changes nothing when it is stale (attempt numbers tell).  Replaying a run's ledger through sched_post gives
 * the state again; sched_next then names the effects that are still wanted.
 *
 * Order: among what is ready, higher priority first, then the longest path to the end by expected times, then declared order.  Start what
 * fits into what is free; a large task that waits at the head of the order is not overtaken for ever: after SCHED_OVERTAKE smaller ones
 * what it needs of each resource is kept free for it, so that no other start can make it wait longer.  A task that wants more than the
 * machine has gets all of it, alone; a resource of which options say 0 is not counted.
 *
 * Retries: attempts counts tries.  An end by the infrastructure (END_LOST: supervisor or node gone, preempted, full scratch disk)
 * uses none, but SCHED_LOST_MAX of them without a newer checkpoint end the task, and it is looked up again first, because the attempt may
 * have done its work before it was lost.  Stopped with a newer checkpoint than the last time uses none either.  Backoff doubles with each
 * end without progress, capped at an hour.  Exit 64 and 65 are never retried.  A task whose attempts together ran for timeout_s is asked to
 * stop; unless it ends well it has failed.  What was lost does not count as time.
 *
 * Not selected: a task that --only and friends leave out is looked up when a selected one needs it; without a result it is UNSELECTED, and
 * those that need it are BLOCKED by it.  Skipped needs count as there: whoever cannot do without one is skipped itself.
 *
 * Without keep_going the first failure ends the run: what runs may finish, the rest is STOPPED with the failed task as blocker.
 * A stop leaves everything STOPPED; EV_RESUME wants it again (not what was cancelled, and not after such a failure).
 *
 * Life:     sched_new -> post, next -> sched_free.
 * Owns:     its copy of the task table.
 * Threads:  one.
 * Errors:   none; impossible events are CHECKed in tests by sched_check.
 */
#ifndef WEIR_ORCHESTRATOR_SCHED_H
#define WEIR_ORCHESTRATOR_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCHED_OVERTAKE 64
#define SCHED_LOST_MAX 5

struct sched_task {   /* what it needs to know of a task */
    const int *needs; /* tasks whose outputs are its inputs */
    size_t need_count;
    int64_t cpus, memory_bytes, gpus;
    int64_t attempts, backoff_s;
    int64_t timeout_s;   /* of the task over all attempts; 0: none */
    int64_t expected_ms; /* from history; 0: unknown */
    int64_t priority;
    bool
        selected; /* false: --only and friends leave it out; it must have a result already when somebody needs it */
    bool skipped;
};
struct sched_options {
    int64_t cpus, memory_bytes, gpus; /* of the machine, or what --jobs left */
    int64_t jobs;                     /* attempts at once; 0: no limit */
    bool keep_going;
};

enum sched_state {
    SCHED_WAITING,
    SCHED_KEYING,
    SCHED_READY,
    SCHED_SHARED,
    SCHED_RUNNING,
    SCHED_CACHED,
    SCHED_DONE,
    SCHED_FAILED,
    SCHED_SKIPPED,
    SCHED_BLOCKED,
    SCHED_STOPPED,
    SCHED_UNSELECTED,
    SCHED_STATE_COUNT
};
extern const char *const sched_state_words[SCHED_STATE_COUNT];

enum sched_event_kind {
    EV_HIT,        /* its key has a result */
    EV_MISS,       /* it has none */
    EV_SHARED,     /* another run is at it */
    EV_KEY_FAILED, /* an input cannot be had, policy refuses it */
    EV_RECHECK,    /* a shared one: look again */
    EV_STARTED,    /* attempt */
    EV_EXITED,     /* attempt: its program has ended, so what it needed is free; EV_ENDED follows */
    EV_ENDED,      /* attempt, end, checkpoint_step */
    EV_STOP,       /* of the whole run: ask everything that runs to checkpoint, start nothing */
    EV_CANCEL, /* of one task (the others go on), or with task -1 of all: as EV_STOP, and what is left counts as failed */
    EV_TIME,   /* nothing but now_ms */
    EV_RESUME, /* another process goes on with the run: what was stopped is wanted again, what runs is left running */
};
enum sched_end {
    END_DONE,
    END_FAILED,
    END_FATAL /* 64, 65, timeout: no retry */,
    END_STOPPED,
    END_LOST
};
struct sched_event {
    enum sched_event_kind kind;
    int task;
    int attempt; /* 1.. */
    enum sched_end end;
    int64_t checkpoint_step; /* newest known to the store; -1: none */
    int64_t wall_ms;         /* EV_ENDED: how long it ran; 0: from its start until now_ms */
    int64_t
        now_ms; /* one clock for all events, also those of earlier processes: not the monotonic one */
};
enum sched_effect_kind {
    DO_KEY, /* all inputs are known: compute the key, look it up, post HIT, MISS, SHARED or KEY_FAILED */
    DO_START, /* start attempt `attempt` */
    DO_STOP,  /* SIGTERM: checkpoint and end */
    DO_WAIT,  /* nothing to do before now_ms = until_ms or another event; -1: no time limit */
    DO_FINISH /* all tasks are in a final state and nothing runs */
};
struct sched_effect {
    enum sched_effect_kind kind;
    int task, attempt;
    int64_t until_ms;
};

struct sched;
struct sched *sched_new(const struct sched_task *tasks, size_t n, const struct sched_options *o);
void sched_free(struct sched *s); /* NULL is fine */
void sched_post(struct sched *s, const struct sched_event *e);
/* The next wanted effect, each one once (until an event asks for it anew); DO_WAIT or DO_FINISH when there is no other.  What DO_START
 * needs is taken from now on: answer it with EV_STARTED, EV_ENDED or sched_defer. */
struct sched_effect sched_next(struct sched *s, int64_t now_ms);
/* An effect that could not be performed right now (no slot left by other runs): wanted again after until_ms. */
void sched_defer(struct sched *s, const struct sched_effect *e, int64_t until_ms);
enum sched_state sched_state_of(const struct sched *s, int task);
int sched_attempts_of(const struct sched *s, int task); /* started so far */
/* The task whose failure, or lack of a result, is why this one is BLOCKED, STOPPED or UNSELECTED; or -1. */
int sched_blocker_of(const struct sched *s, int task);
/* Its time is up and DO_STOP was asked for that: unless it ends well, its end is END_FATAL, and the record should say so. */
bool sched_timed_out(const struct sched *s, int task);
int64_t sched_running(const struct sched *s);
/* Invariants, for tests: resources never exceeded, states fit together. */
bool sched_check(const struct sched *s, const char **why);

#endif
