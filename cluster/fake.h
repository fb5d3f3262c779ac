/* fake.h - an executor in virtual time: nothing runs, everything happens as a script says.
 *
 * The world is what outlives an orchestrator: attempts that run, results that wait to be read, and the clock.  An executor is one
 * orchestrator's view of it; closing it (or forgetting it, as a killed process does) leaves the world alone, and the next one adopts.
 *
 * An attempt: start is called, after start_ms its program runs (EXEC_STARTED), after run_ms more it ends as `end` says; result.json is there
 * then, and late_ms after that the executor hears of it.  end ATTEMPT_LOST with no_card: the supervisor is gone and EXEC_LOST is what
 * is heard.  Asked to stop it ends as stopped after stop_ms (-1: it ignores the request), with stop_step as its newest checkpoint, unless
 * it would have ended before.  kill: at once, as stopped, with the step that it had.
 *
 * Poll moves the clock to the next thing that can be heard, at most by timeout_ms; with -1 and nothing to come it says that there is
 * nothing, instead of waiting for ever.
 *
 * Life:     fake_world_new -> fake_executor -> ops -> close, as often as wanted -> fake_world_free.
 * Owns:     the world owns its attempts; an executor is gone after close.
 * Threads:  one.
 * Errors:   start: ERR_FULL where the script says so, ERR_EXISTS for a directory that was started before.  Adopting one that never was gives
 *           EXEC_LOST.
 */
#ifndef WEIR_CLUSTER_FAKE_H
#define WEIR_CLUSTER_FAKE_H

#include "cluster/executor.h"

struct fake_script { /* of one attempt */
    int64_t start_ms, run_ms, late_ms;
    enum attempt_status end;
    int exit_status;
    int64_t step; /* newest checkpoint when it ends by itself or is killed; -1: none */
    int64_t stop_ms, stop_step;
    bool no_card, twice /* its end is heard twice */, refused /* start fails */;
    struct digest result;
};
/* What will become of the attempt in task_dir; must say the same whenever it is asked. */
typedef void (*fake_script_fn)(void *arg, const char *task_dir, struct fake_script *out);

struct fake_world;
struct fake_world *fake_world_new(fake_script_fn script, void *arg);
void fake_world_free(struct fake_world *w); /* NULL is fine; executors first */
struct executor *fake_executor(struct fake_world *w);
int64_t fake_now_ms(const struct fake_world *w);
void fake_pass(struct fake_world *w, int64_t ms); /* time in which nobody listens */
struct fake_look {                                /* what has become of an attempt so far */
    bool begun, over;
    bool asked; /* it ended because it was asked to */
    enum attempt_status end;
};
bool fake_look(const struct fake_world *w, const char *task_dir,
               struct fake_look *out);      /* false: never started */
int fake_alive(const struct fake_world *w); /* attempts that run now */

#endif
