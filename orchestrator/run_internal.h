/* run_internal.h - what the files of the run loop share.
 *
 *   run.c          begin or go on, the loop, the end
 *   run_resume.c   what an earlier process of this run left: its tries, its attempts
 *   run_key.c      is there a result already, is somebody else making it, or is it for us to make
 *   run_task.c     attempts: from an effect of the scheduler to what happened
 *   run_spare.c    their folders
 *   run_orphan.c   attempts that nobody listens to any more, of whatever run
 *   run_policy.c   licences that came in with results
 *   run_pin.c      what gc must leave alone until the run is over
 *   run_keep.c     what stays: events, records, the tree of the run, refs
 *
 * Life:     one struct run per run_pipeline.
 * Owns:     everything in it.
 * Threads:  one.
 * Errors:   as run.h.
 */
/* long: one struct that eight files share, and what each of them does with it */
#ifndef WEIR_ORCHESTRATOR_RUN_INTERNAL_H
#define WEIR_ORCHESTRATOR_RUN_INTERNAL_H

#include "base/arena.h"
#include "cluster/executor.h"
#include "orchestrator/record.h"
#include "orchestrator/resolve.h"
#include "orchestrator/run.h"
#include "orchestrator/share.h"

#define RUN_LOG_TAIL_BYTES 2048

struct run_attempt { /* in progress */
    int task;
    size_t place; /* in the list of all that are */
    char *dir;    /* absolute */
    int64_t started_ns, wall_ms /* once it has ended */;
    struct share_take take;
    bool taken;
    bool asked;   /* to stop, by an earlier process */
    bool doubted; /* it was said to be lost, and was not */
    bool spare;   /* it left its folder empty */
};
struct run_files { /* that the last attempt left; zero digest: none */
    struct digest log, events;
};
struct run_slot {             /* a task; small, for there may be a million, and most are cached */
    struct run_attempt *live; /* NULL: no attempt */
    struct run_files *files;
    const char *reason; /* of the last end that was none of success; of waiting */
    int64_t step;       /* newest checkpoint in the store; -1 */
    int attempt;        /* the last one's number */
    int before;         /* attempts that do not count: the scheduler's first one is before + 1 */
    bool claimed, was_cached /* known at the start */, told /* its end */;
    bool done_before; /* in this run, by an earlier process: --force is satisfied */
    bool waits;       /* for another run, or for an orphan */
    bool cancelled;
};
struct idset;
struct run_orphan;
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
    struct run_attempt **live; /* the attempts in progress */
    size_t live_count, live_room;
    struct sched_effect *pending; /* starts for which other runs leave no room */
    size_t pending_count, pending_room;
    char **trash; /* folders of attempts whose end is not durable yet */
    size_t trash_count, trash_room;
    char **spares; /* folders that attempts have left empty */
    size_t spare_count;
    struct idset *at_work; /* keys of actions that this run has claimed: 1 */
    struct run_orphan *orphans;
    size_t orphan_count;
    struct share_limits limits; /* of the machine */
    struct ledger_run row;
    int64_t number, begun_ns, dirty_since_ns, recheck_ms, shared_ms, pending_ms;
    int64_t pinned_ms;
    int64_t lag_ms;   /* how long events may wait for a commit, by the last one's cost */
    int64_t full_ms;  /* since when the ledger's disk has been full; 0: it is not */
    int shared_count; /* tasks that another run works on */
    int signals;      /* signalfd */
    bool stopping, cancelled;
    bool denied; /* policy or rights refused a task */
    char log_tail[RUN_LOG_TAIL_BYTES + 1];
};

/* run_key.c */
MUST_USE enum err_code run_key(struct run *r, int task, struct err *err);
/* An input that cannot be had is the task's failure; a broken disk is everybody's. */
bool run_is_task_failure(enum err_code rc);
/* The task has failed for the reason that err says, which is cleared. */
MUST_USE enum err_code run_refused(struct run *r, int task, struct err *err);
MUST_USE enum err_code run_note_refused(struct run *r, int task, struct err *err);
/* Its failure is told; and if that ends the run, what will not be started now is free for others. */
MUST_USE enum err_code run_failed(struct run *r, int task, struct err *err);
/* The claim on its action, given up. */
MUST_USE enum err_code run_let_others(struct run *r, int task, struct err *err);
/* After a stop, a cancel or the failure that ends the run: what nobody will work on here is free for other runs. */
MUST_USE enum err_code run_release_claims(struct run *r, struct err *err);
void run_post(struct run *r, enum sched_event_kind kind, int task);
int64_t run_now_ms(void);
json_t *run_digest_json(const struct digest *d); /* null for zero */

/* run_task.c */
MUST_USE enum err_code run_start(struct run *r, const struct sched_effect *e, struct err *err);
/* Starts that waited for other runs: tried again, or given up since the run is stopping. */
MUST_USE enum err_code run_start_pending(struct run *r, struct err *err);
void run_drop_pending(struct run *r);
MUST_USE enum err_code run_executor_event(struct run *r, struct executor_event *e, struct err *err);
/* An attempt that an earlier process began: its slot, and the executor watching it. */
MUST_USE enum err_code run_adopt(struct run *r, int task, int attempt, const char *dir,
                                 int64_t started_ns, bool asked, struct err *err);

/* run_spare.c: the folder of an attempt, with its card: a spare one by its new name (*again), or a new one */
MUST_USE enum err_code run_make_folder(struct run *r, const char *dir, const json_t *card,
                                       bool *again, struct err *err);
void run_spare_folder(struct run *r, char *dir); /* dir is taken */
void run_free_spares(struct run *r);

/* run_resume.c: tries and attempts in progress; after the resolver has looked at everything */
MUST_USE enum err_code run_resume(struct run *r, struct sched *scratch /* taken: keeps going */,
                                  struct err *err);

/* run_orphan.c */
/* Looks for attempts that are alive though no process runs their run. */
void run_find_orphans(struct run *r);
bool run_orphan_alive(struct run *r, const struct digest *key);
/* Is there room beside them?  Other runs see what they use, the scheduler of this one does not. */
bool run_orphans_leave(struct run *r, const struct share_take *want);
void run_free_orphans(struct run *r);
/* Folders of attempts that nobody will come back to. */
void run_sweep(struct run *r);

/* run_policy.c: ERR_DENIED when policy is against a source that is needed; or against an output's licenses.json */
MUST_USE enum err_code run_judge_sources(struct run *r, struct err *err);
MUST_USE enum err_code run_judge(struct run *r, int task, struct err *err);

/* run_pin.c: what a run that is not over needs stays, whatever gc does */
MUST_USE enum err_code run_pin(struct run *r, struct err *err);
MUST_USE enum err_code run_pin_now_and_then(struct run *r, struct err *err);
MUST_USE enum err_code run_unpin(struct run *r, struct writer *w, struct err *err);

/* run_keep.c */
MUST_USE enum err_code run_note(struct run *r, json_t *body /* taken */, struct err *err);
MUST_USE enum err_code run_note_begin(struct run *r, bool resumed, struct err *err);
MUST_USE enum err_code run_keep_hits(struct run *r, struct err *err);
MUST_USE enum err_code run_note_cached(struct run *r, struct err *err); /* known at the start */
MUST_USE enum err_code run_commit(struct run *r, struct err *err);
/* Removes the folder with the next commit, when what came out of it is durable, or now; dir is taken. */
void run_throw_away(struct run *r, char *dir, bool now);
/* The end: tree, refs, run.end. */
MUST_USE enum err_code run_keep(struct run *r, enum run_state state, struct err *err);
MUST_USE enum err_code run_digest_of_options(struct run *r, struct digest *out, struct err *err);
/* Tells the caller of run_pipeline. */
MUST_USE enum err_code run_tell(struct run *r, enum run_event_kind kind, int task, struct err *err);

#endif
