/* task_action.h - the canonical description of a task, whose SHA-256 is its key.
 *
 *   {"weir":"action/1",
 *    "program":{"uses":"vae","digest":"sha256:.."} | {"shell":"cmd"} | {"argv":[..]},
 *    "code":[{"path":"score.py","kind":"blob","digest":".."}],             sorted by path
 *    "device":"cpu","params":{..},
 *    "inputs":[{"name":"data","kind":"tree","digest":"..","entries":[{"name":"a","kind":"tree","digest":".."}]}],
 *    "outputs":["model"]}
 * Inputs and outputs in declared order.  Commands keep {inputs.x} as they are, so no path gets in.  Not in it: names of pipeline
 * and stage, resources, retries, times, attempts.
 *
 * Life:     task_action builds a new JSON value.
 * Owns:     the caller owns what comes out.
 * Threads:  any.
 * Errors:   ERR_INPUT with file:line:column of the stage.
 */
#ifndef WEIR_ORCHESTRATOR_TASK_ACTION_H
#define WEIR_ORCHESTRATOR_TASK_ACTION_H

#include "cluster/card.h"
#include "orchestrator/pipeline.h"

struct ready_input { /* an input whose digest is known */
    const char *name;
    enum obj_kind kind; /* of the whole: OBJ_TREE for a fan-in */
    struct digest digest;
    struct card_object *entries; /* fan-in, in declared order */
    size_t entry_count;
    bool fan_in;
};
struct ready_task {
    const struct pipeline *pipeline;
    const struct task *task;
    const struct ready_input *inputs; /* as many as the task has, in its order */
    const struct card_object *code;   /* sorted by path */
    size_t code_count;
    const struct digest *program; /* of uses: */
};
/* New references. */
MUST_USE enum err_code task_action(const struct ready_task *t, json_t **out, struct err *err);
/* The attempt card for that action; task_dir is absolute, program_path that of uses:. */
MUST_USE enum err_code task_card(const struct ready_task *t, json_t *action,
                                 const struct digest *key, const char *store, const char *task_dir,
                                 const char *program_path, json_t **out, struct err *err);

#endif
