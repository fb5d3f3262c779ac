/* record.h - how runs and tasks are written down: the fields of events, the record of a task, the tree of a run.
 *
 * Events of a run (ledger.h adds prev, seq, time):
 *   run.begin    {pipeline, file, digest (of the file), sets, profiles, inputs, select, git, weir (version), tasks, pid, boot, start}
 *   run.resume   {pid, boot, start}                           another process goes on with it
 *   run.source   {source, kind, digest, size, entry, license, artifact (of another pipeline: its name)} what entered
 *   run.cached   {count, tree}                                tasks that were known at the start; tree {TASK: result}
 *   task.cached  {task, key, result}                          known later
 *   task.start   {task, attempt, key, action, dir, resume, cpus, gpus, pid}
 *   task.end     {task, attempt, status, exit, signal, reason, key, result, outputs, wall_ms, step, log, events, counts}
 *   task.skip    {task, reason}   task.block {task, by}   task.shared {task, run}   task.refused {task, reason}
 *   run.stop     {reason}   run.cancel {task|null}
 *   run.end      {state, counts, tree}
 * The tree of a run, kept by the ref runs/run-N:
 *   {"events": blob of ledger_export, "pipeline.yaml": blob, "run.json": blob (struct ledger_run, options), "tasks": {TASK: result tree},
 *    "logs": {TASK: {"log": blob, "events": blob}}, "sources": {NAME: entry record}, "records": {NAME: blob}}
 * run.begin has policy {deny, allow_only}, and left_out [TASK] when a selection leaves some out.
 * In names of entries a task's '/' is written %2F and '%' as %25.  run.begin's "tasks" is a number, or the names in declared order.
 *
 * VIEW_TASK, pipeline \0 task -> JSON {"run":41,"attempt":1,"status":"done","key":"..","result":"..","wall_ms":[last, mean],"action":".." when it
 * has no result}: what `why`, estimates and `status` look at first.
 *
 * Life:     values.
 * Owns:     task_record owns its JSON.
 * Threads:  one.
 * Errors:   ERR_NOT_FOUND.
 */
#ifndef WEIR_ORCHESTRATOR_RECORD_H
#define WEIR_ORCHESTRATOR_RECORD_H

#include "orchestrator/ledger.h"
#include "store/store.h"

struct task_record {
    int64_t run, attempt;
    const char *status;        /* enum attempt_status word, or "cached" */
    struct digest key, result; /* zero: none */
    int64_t wall_ms, mean_ms;
    json_t *action; /* of one that has no result; else NULL: the blob `key` is in the store */
    json_t *root;
};
MUST_USE enum err_code task_record_get(struct ledger *l, const char *pipeline, const char *task,
                                       struct task_record *out, struct err *err);
void task_record_set(struct ledger *l, const char *pipeline, const char *task,
                     const struct task_record *r); /* with the next commit */
void task_record_release(struct task_record *r);   /* fine on zeroed storage */

/* The fold of one run's events: what status, show, logs, metrics, diff and lineage look at; works for a run in progress and for one whose
 * events come from its tree (another machine's). */
struct run_task {
    const char *name;
    const char *state; /* sched_state word */
    int attempt;
    struct digest key, result;
    const char *dir;           /* of the attempt that runs */
    struct digest log, events; /* of the last attempt that ended; zero: none */
    int64_t started_ns, ended_ns, wall_ms;
    const char *reason;
    const json_t *outputs;
};
struct run_view {
    struct ledger_run row;
    json_t *begin;          /* run.begin */
    struct run_task *tasks; /* in declared order as far as events tell */
    size_t task_count;
    int64_t known;      /* tasks that had a result when the run began */
    struct digest tree; /* of run.end, or of the ref */
    struct arena *arena;
};
/* what: "run-41", "41", "last", "@tag" (the ref tags/NAME, of the same tree as a run's).  l may be NULL: the refs alone are asked. */
MUST_USE enum err_code run_number(struct store *st, struct ledger *l, const char *what,
                                  int64_t *run, struct err *err);
MUST_USE enum err_code run_view_load(struct store *st, struct ledger *l /* NULL: from the tree */,
                                     int64_t run, struct run_view **out, struct err *err);
/* Key and outputs of a task of the view, of which a run that found it cached tells no more than its result. */
MUST_USE enum err_code run_view_result(struct run_view *v, const struct run_task *of,
                                       struct err *err);
void run_view_free(struct run_view *v);                                           /* NULL is fine */
const struct run_task *run_view_task(const struct run_view *v, const char *name); /* NULL */
MUST_USE enum err_code record_name_escape(const char *task, struct buf *out, struct err *err);
/* run.json of the tree of a run: {"begun":"2026-..","ended":..|null,"counts":{..},"events":17,"last":"sha256:..","options":..,"pipeline":..,
 * "run":41,"state":"succeeded","weir":"run/1"}, and back.  A new reference. */
json_t *run_row_json(const struct ledger_run *row);
MUST_USE enum err_code run_row_parse(const char *text, size_t n, struct ledger_run *out,
                                     struct err *err);
/* What the tree of a run says: its row, and its events as text (out is initialised here; buf_release it, whatever is returned). */
MUST_USE enum err_code run_from_tree(struct store *st, int64_t run, struct ledger_run *row,
                                     struct buf *events, struct err *err);
/* A finished run from its tree into the ledger (rebuild, pull).  ERR_EXISTS as ledger_import. */
MUST_USE enum err_code run_import(struct store *st, struct ledger *l, int64_t run, struct err *err);
/* All runs, the newest first, at most max: those of the ledger (NULL: none) and those kept here that it does not know.  free(*rows). */
MUST_USE enum err_code run_rows(struct store *st, struct ledger *l, size_t max,
                                struct ledger_run **rows, size_t *n, struct err *err);
/* Every kept run that the ledger lacks (after a pull, a rebuild, or when the ledger was lost) into it; makes a ledger where there is none and
 * runs are kept.  notes (may be NULL): a line for each that could not be brought back, and why. */
MUST_USE enum err_code run_import_kept(struct store *st, int64_t *imported, struct buf *notes,
                                       struct err *err);
/* "2026-01-02T03:04:05.678Z", as in events. */
MUST_USE enum err_code record_time_parse(const char *text, int64_t *ns, struct err *err);

#endif
