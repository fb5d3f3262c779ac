/* plan.h - what a run would do: for each task a verdict, what it waits for, and what it should cost by what it cost before.
 *
 *   cached    it has a result, which is whole
 *   run       its key is known and has no result, or --force says so
 *   depends   an input is not known before another task has run; it may turn out cached (early cut-off)
 *   skipped   by its when, or because it needs something skipped
 *   left out  by --only, --from, --until
 *
 * Expected times are means of earlier attempts at this task, else at other instances of its stage, else unknown.
 *
 * Life:     plan_tasks_make -> look -> plan_tasks_release.
 * Owns:     the array.
 * Threads:  one.
 * Errors:   as ledger.h.
 */
#ifndef WEIR_ORCHESTRATOR_PLAN_H
#define WEIR_ORCHESTRATOR_PLAN_H

#include "orchestrator/resolve.h"
#include "orchestrator/select.h"

enum plan_state {
    PLAN_CACHED,
    PLAN_RUN,
    PLAN_DEPENDS,
    PLAN_SKIPPED,
    PLAN_LEFT_OUT,
    PLAN_STATE_COUNT
};
extern const char *const plan_state_words[PLAN_STATE_COUNT];

struct plan_task {
    enum plan_state state;
    int waits_for;       /* depends: the first task whose output is not known; else -1 */
    int64_t expected_ms; /* run and depends; -1: nothing is known */
};
struct plan {
    struct plan_task *tasks;
    size_t counts[PLAN_STATE_COUNT];
    int64_t total_ms, critical_ms; /* of what runs or may have to */
    size_t unknown;                /* how many of these have no history */
};
/* results and keyed as resolve_all gives them; s and l may be NULL. */
MUST_USE enum err_code plan_tasks_make(const struct pipeline *p, const struct selection *s,
                                       const struct task_result *results, const bool *keyed,
                                       struct ledger *l, struct plan *out, struct err *err);
void plan_tasks_release(struct plan *plan); /* fine on zeroed storage */

/* ---- why ---- */
struct explanation {
    bool found;      /* there is an earlier action to compare with */
    bool same;       /* it is this very one */
    int64_t run;     /* where that was; 0: unknown */
    char *against;   /* the task that it was of */
    json_t *diffs;   /* action_diff: that one, this one */
    char status[16]; /* how it ended; "" unknown */
    int64_t wall_ms;
};
/* Compares the task, which is keyed, with the last record of it, else with that instance of its stage that differs least. */
MUST_USE enum err_code plan_explain(struct resolver *r, struct store *st, struct ledger *l,
                                    const struct pipeline *p, int task, struct explanation *out,
                                    struct err *err);
void explanation_release(struct explanation *x); /* fine on zeroed storage */
/* "params.lr 1e-4 -> 2e-4" and so on: at most max of them, joined by "; ". */
void explanation_text(const struct explanation *x, size_t max, struct buf *out);
/* A value of a diff for people: digests and long texts cut. */
void explanation_value(const json_t *v, struct buf *out);

#endif
