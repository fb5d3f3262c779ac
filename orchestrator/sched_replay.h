/* sched_replay.h - a record of the ledger as an event of the scheduler: the one place where a run's past becomes its state.
 *
 *   task.cached  -> EV_HIT           task.start -> EV_STARTED        run.stop   -> EV_STOP
 *   task.refused -> EV_KEY_FAILED    task.end   -> EV_ENDED          run.cancel -> EV_CANCEL        run.resume -> EV_RESUME
 *
 * All else is no event: what follows from others (task.skip, task.block, run.end), what has to be looked at anew (task.shared), and
 * run.cached, whose tasks the resolver finds again.  task.end: status, and "final": true when no retry can follow (exit 64, 65, timeout);
 * step and wall_ms when they are known.
 *
 * Life:     values.
 * Owns:     nothing; body is borrowed.
 * Threads:  any.
 * Errors:   none: a record that lacks what it must have is no event (the ledger's chain has been checked before).
 */
#ifndef WEIR_ORCHESTRATOR_SCHED_REPLAY_H
#define WEIR_ORCHESTRATOR_SCHED_REPLAY_H

#include "base/json.h"
#include "cluster/card.h"
#include "orchestrator/sched.h"

/* find_task: the number of a task of this pipeline, or -1. */
bool sched_event_of(const json_t *body, int (*find_task)(void *, const char *), void *arg,
                    struct sched_event *out);
/* How an attempt ended, for the scheduler; timed_out: sched_timed_out, or the card says so. */
enum sched_end sched_end_of(enum attempt_status status, int exit_status, bool timed_out);

#endif
