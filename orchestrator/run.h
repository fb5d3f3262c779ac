/* run.h - a pipeline, run here, one task after another.
 *
 * Sources enter the store; each task's action is looked up, and attempted by weir-exec when it has no result; the results of a run are one
 * tree, kept by the ref runs/run-N:
 *   {"pipeline.yaml": the file as it was, "tasks": {TASK: its result (cluster/attempt.h)}}
 * State is what the store knows: killed anywhere, the same command goes on with the first task that has no result.
 *
 * Life:     run_pipeline does all.
 * Owns:     nothing afterwards.
 * Threads:  one.
 * Errors:   ERR_TASK when a task failed (the others that do not need it are run with keep_going); ERR_MISSING for kinds of
 *           sources that cannot be fetched yet.
 */
#ifndef WEIR_ORCHESTRATOR_RUN_H
#define WEIR_ORCHESTRATOR_RUN_H

#include "orchestrator/pipeline.h"
#include "store/store.h"

enum task_end { TASK_CACHED, TASK_RAN, TASK_FAILED, TASK_SKIPPED, TASK_BLOCKED, TASK_END_COUNT };
extern const char *const task_end_words[TASK_END_COUNT];

struct run_event { /* one task came to its end */
    const struct task *task;
    enum task_end end;
    int64_t wall_ms;
    const char *reason;   /* failed, skipped, blocked */
    const char *log_path; /* failed */
    struct digest result; /* cached, ran */
};
typedef enum err_code (*run_event_fn)(void *arg, const struct run_event *e, struct err *err);
struct run_options {
    bool keep_going;
    run_event_fn on_event;
    void *arg;
};
struct run_report {
    int64_t counts[TASK_END_COUNT];
    int64_t number; /* of runs/run-N; 0 when nothing was kept because something failed */
};
MUST_USE enum err_code run_pipeline(struct store *st, const struct pipeline *p,
                                    const struct run_options *o, struct run_report *out,
                                    struct err *err);
/* The output of a task in the newest run that has it, or in run number. */
MUST_USE enum err_code run_output(struct store *st, const char *task, const char *output,
                                  int64_t number, struct digest *out, enum obj_kind *kind,
                                  struct err *err);

#endif
