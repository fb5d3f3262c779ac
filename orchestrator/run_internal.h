/* run_internal.h - what the files of the run loop share.
 *
 *   run.c        begin or go on, the loop, the end
 *   run_task.c   keys, attempts: from an effect of the scheduler to what happened
 *   run_keep.c   what stays: events, records, the tree of the run, refs
 *
 * Life:     one struct run per run_pipeline.
 * Owns:     everything in it.
 * Threads:  one.
 * Errors:   as run.h.
 */
#ifndef WEIR_ORCHESTRATOR_RUN_INTERNAL_H
#define WEIR_ORCHESTRATOR_RUN_INTERNAL_H

#include "base/arena.h"
#include "cluster/executor.h"
#include "orchestrator/record.h"
#include "orchestrator/resolve.h"
#include "orchestrator/run.h"
#include "orchestrator/share.h"

struct run_slot {    /* a task and its attempt in progress */
    const char *dir; /* absolute; NULL: no attempt */
    int attempt;
    int64_t started_ns;
    struct share_take take;
    bool taken, claimed, was_cached /* known at the start */;
    struct digest key;              /* once resolved */
    int64_t step;                   /* newest checkpoint in the store; -1 */
    const char *reason;             /* of the last end that was none of success */
    struct card_object log, events; /* of the last attempt; zero digest: none */
};
struct run {
    struct store *st;
    const struct pipeline *p;
    const struct run_options *o;
    struct run_report *report;
    struct ledger *ledger;
    struct share *share;
    struct resolver *resolver;
    struct sched *sched;
    struct executor *executor;
    struct arena arena;
    struct run_slot *slots; /* per task */
    struct task_result *known;
    bool *keyed;
    struct ledger_run row;
    int64_t number, begun_ns, dirty_since_ns, recheck_ms, shared_ms;
    int shared_count; /* tasks that another run works on */
    int running;
    int signals; /* signalfd */
    int stops;   /* asked how often */
    bool cancelled, damaged_memo;
    const char *exec_path;
};

/* run_task.c */
MUST_USE enum err_code run_key(struct run *r, int task, struct err *err);
MUST_USE enum err_code run_start(struct run *r, const struct sched_effect *e, struct err *err);
MUST_USE enum err_code run_executor_event(struct run *r, struct executor_event *e, struct err *err);
/* An attempt that an earlier process began: its slot, and the executor watching it. */
MUST_USE enum err_code run_adopt(struct run *r, int task, int attempt, const char *dir,
                                 struct err *err);
void run_post(struct run *r, enum sched_event_kind kind, int task);
int64_t run_now_ms(void);

/* run_keep.c */
MUST_USE enum err_code run_note(struct run *r, json_t *body /* taken */, struct err *err);
MUST_USE enum err_code run_note_begin(struct run *r, bool resumed, struct err *err);
MUST_USE enum err_code run_note_cached(struct run *r, struct err *err); /* known at the start */
MUST_USE enum err_code run_commit(struct run *r, struct err *err);
/* The end: tree, refs, run.end. */
MUST_USE enum err_code run_keep(struct run *r, enum run_state state, struct err *err);
MUST_USE enum err_code run_digest_of_options(struct run *r, struct digest *out, struct err *err);
/* Folders of attempts that nobody will come back to. */
void run_sweep(struct run *r);
/* Tells the caller of run_pipeline. */
MUST_USE enum err_code run_tell(struct run *r, enum run_event_kind kind, int task, struct err *err);
const char *run_log_tail(struct run *r, const struct run_slot *s); /* NULL when there is none */

#endif
