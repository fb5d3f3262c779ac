/* resolve.h - which action a task is, and whether its result is known: the one place where keys are made.
 *
 *   {"weir":"action/1","program":{"uses":"vae","digest":"sha256:..","libraries":{..}} | {"shell":"cmd"} | {"argv":[..]},
 *    "code":[{"path","kind","digest"}],"device":"cpu","platform":"x86_64+avx512f" (numeric programs),"params":{..},
 *    "env":{"MODEL_ZOO":"hmac-sha256:.."} (when declared),"inputs":[..],"outputs":["model"]}
 *
 * The memo: a file .weir/cache/plan-<16 hex> per pipeline file and options, replaced by rename after each look.  It remembers what every task was
 * made of and what came out.  A task whose program, code, params, env and inputs are what the memo says has the key and the result that it
 * says, as long as nothing has left the store (store_removal_epoch) since; so when nothing has changed no key is computed.  A memo that is
 * damaged, of another version or of other options is ignored.
 *
 * Life:     resolver_new (reads sources, code, programs, env) -> resolve in the order of the tasks, as their inputs become known -> resolver_free.
 * Owns:     everything about the tasks; needs store and pipeline as long.
 * Threads:  one.
 * Errors:   as source.h and program.h.
 */
#ifndef WEIR_ORCHESTRATOR_RESOLVE_H
#define WEIR_ORCHESTRATOR_RESOLVE_H

#include "cluster/card.h"
#include "orchestrator/program.h"
#include "orchestrator/source.h"
#include "store/writer.h"

struct ledger;
struct
    resolver_input { /* --input TASK.INPUT=WHAT; selector "merge.models", "merge.models[variant=realism]", "sources.x" */
    const char *text;
};
struct resolver_options {
    const char *const *inputs; /* NULL-terminated "TASK.INPUT=WHAT" */
    bool no_memo;
    bool ledger_read;   /* the ledger was opened with LEDGER_READ: nothing is remembered there */
    const bool *wanted; /* per task; NULL: all.  Sources that no wanted task needs are not read */
    struct source_options source;
};
struct task_result {
    bool known;
    struct digest key, result;
    struct card_object *outputs; /* in the order of the stage's outputs */
    size_t output_count;
};
struct resolver;
MUST_USE enum err_code resolver_new(struct store *st, struct ledger *l, const struct pipeline *p,
                                    const struct resolver_options *o, struct resolver **out,
                                    struct err *err);
void resolver_free(struct resolver *r); /* NULL is fine */

/* The key of a task all of whose inputs are known; t->known = true when it has a result that is whole.  ERR_AGAIN when an input is not known. */
MUST_USE enum err_code resolve_task(struct resolver *r, int task, struct task_result *t,
                                    struct err *err);
/* All tasks whose inputs are (or become, by hits) known, in one sweep; results[task].known says which are cached.  keyed[task]: the key is known. */
MUST_USE enum err_code resolve_all(struct resolver *r, struct task_result *results, bool *keyed,
                                   struct err *err);
/* Post what an attempt made (also in another run), so that its users can be resolved. */
MUST_USE enum err_code resolve_post(struct resolver *r, int task, const struct digest *result,
                                    struct err *err);
/* store_removal_epoch of before the first look: what is known was whole then (action_keep wants it). */
uint64_t resolver_epoch(const struct resolver *r);
const struct task_result *resolve_get(const struct resolver *r, int task);
/* New references.  After resolve_task. */
MUST_USE enum err_code resolve_action(struct resolver *r, int task, json_t **action,
                                      struct err *err);
/* The attempt card for it (cluster/card.h): task_dir absolute; resume may be NULL. */
struct resume_point {
    struct digest digest;
    enum obj_kind kind;
    int64_t step;
};
MUST_USE enum err_code resolve_card(struct resolver *r, int task, const char *task_dir,
                                    const struct resume_point *resume, json_t **card,
                                    struct err *err);
/* Under which ref its checkpoints are kept: "checkpoints/<64 hex>", the digest of the action without the extending param; and the newest
 * point there that this task may go on from (step <= the extending param), or step -1. */
MUST_USE enum err_code resolve_resume(struct resolver *r, int task, char ref[96],
                                      struct resume_point *out, struct err *err);
/* Everything was known and is what the memo says: the tree {TASK: result} that goes into the run's tree, made once. */
MUST_USE enum err_code resolve_results_tree(struct resolver *r, struct writer *w,
                                            struct digest *tree, int64_t *size, struct err *err);
MUST_USE enum err_code resolver_save(struct resolver *r, struct err *err); /* writes the memo */
/* --input has put something else in the place of what this input of the task (its entry k) refers to. */
bool resolver_overridden(const struct resolver *r, int task, int input, int entry);
struct sources *resolver_sources(const struct resolver *r);
struct programs *resolver_programs(struct resolver *r);

/* ---- reasons ---- */
/* The first components in which two actions differ, as lines for people and as JSON [{"path":"params.lr","old":..,"new":..}]: program, code
 * files, device, platform, params, env, inputs (named, with the task or source they came from). */
MUST_USE enum err_code action_diff(const json_t *old, const json_t *new_, json_t **out,
                                   struct err *err);

#endif
