/* run.h - a pipeline, run: the loop between what the scheduler wants (sched.h) and what happens.
 *
 *   resolver   which action a task is, and whether it has a result        ledger     what happened, durable before anybody relies on it
 *   sched      what to do next                                           executor   does it
 *   share      what other runs on this machine work on and take          store      what comes out
 *
 * Killed at any instant, the same command goes on with the same run: attempts that are still alive are adopted, results are found by their keys,
 * tries are counted on, checkpoints are picked up.  A run that has ended is kept by the ref runs/run-N (record.h tells what is in it).
 *
 * Life:     run_pipeline does all.  SIGINT and SIGTERM: the first asks all tasks to checkpoint and stop, the second leaves them running and
 *           goes; both end with ERR_STOPPED.  They are blocked in the calling thread only while it runs.
 * Owns:     nothing afterwards, but attempts that were left running.
 * Threads:  one.
 * Errors:   ERR_TASK when a task failed; ERR_STOPPED; ERR_DENIED when policy refuses a source; ERR_AGAIN when another process runs this very
 *           run already; what the parts say.
 */
#ifndef WEIR_ORCHESTRATOR_RUN_H
#define WEIR_ORCHESTRATOR_RUN_H

#include "orchestrator/ledger.h"
#include "orchestrator/pipeline.h"
#include "orchestrator/sched.h"
#include "store/store.h"

struct executor;
struct run_running { /* an attempt in progress, for views */
    const struct task *task;
    int attempt;
    const char *dir;
    int64_t started_ns;
};
enum run_event_kind {
    RUN_BEGUN,
    RUN_ADOPTED,
    RUN_STARTED,
    RUN_ENDED,
    RUN_RETRY,
    RUN_WAITS,
    RUN_TICK
};
struct run_event {
    enum run_event_kind kind;
    int64_t run;
    const struct task *task; /* not for BEGUN and TICK */
    enum sched_state state; /* ENDED: CACHED, DONE, FAILED, SKIPPED, BLOCKED, STOPPED, UNSELECTED */
    int attempt;
    int64_t wall_ms;
    const char *reason;                /* failed, skipped, blocked, retry, waits; or NULL */
    const char *log_tail;              /* failed: the last lines of its log, or NULL */
    struct digest result;              /* cached, done */
    const struct run_running *running; /* TICK */
    size_t running_count;
    const int64_t *counts; /* TICK: by sched_state */
};
typedef enum err_code (*run_event_fn)(void *arg, const struct run_event *e, struct err *err);
struct run_options {
    const bool *wanted, *forced; /* per task (select.h); NULL: all, none */
    const char *const *inputs;   /* --input, NULL-terminated; NULL: none */
    const json_t *
        said; /* what the user said (sets, profiles, selection ..): goes into run.begin and decides what is the same run */
    bool keep_going, altered /* publish does not move */, publish /* it does though */, offline;
    struct buf *
        problems; /* gets every line of what programs say is wrong with params, as pipeline_load; NULL */
    int64_t jobs;      /* 0: as many as fit */
    int64_t tick_ms;   /* 0: no RUN_TICK */
    bool quiet_cached; /* no RUN_ENDED for what was known at the start */
    run_event_fn on_event;
    void *arg;
    struct executor *executor; /* where to run, closed at the end; NULL: on this machine */
};
struct run_report {
    int64_t run;
    int64_t counts[SCHED_STATE_COUNT];
    int64_t retries, wall_ms;
    bool resumed, detached;
};
MUST_USE enum err_code run_pipeline(struct store *st, const struct pipeline *p,
                                    const struct run_options *o, struct run_report *out,
                                    struct err *err);
/* Numbers of the runs whose results are kept, the newest first; free(*numbers). */
MUST_USE enum err_code run_kept(struct store *st, int64_t **numbers, size_t *count,
                                struct err *err);
/* The newest kept run that has a result of this task. */
MUST_USE enum err_code run_output_run(struct store *st, const char *task, int64_t *run,
                                      struct err *err);
/* The output of a task in the newest run that has it, or in run number. */
MUST_USE enum err_code run_output(struct store *st, const char *task, const char *output,
                                  int64_t number, struct digest *out, enum obj_kind *kind,
                                  struct err *err);

#endif
