/* task_action.h - the canonical description of a task, whose SHA-256 is its key.
 *
 *   {"weir":"action/1",
 *    "program":{"uses":"vae","digest":"sha256:..","libraries":{..}} | {"shell":"cmd"} | {"argv":[..]},
 *    "code":[{"path":"score.py","kind":"blob","digest":".."}],             sorted by path
 *    "device":"cpu","platform":"x86_64+avx512f",                           numeric programs only
 *    "params":{..},                                                        with the program's defaults
 *    "env":{"MODEL_ZOO":"hmac-sha256:.."},                                 only when the stage declares some
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
struct ready_env { /* a declared variable: its value goes to the program, its HMAC into the key */
    const char *name, *value, *hmac;
};
struct action_param { /* of a stage, sorted by name: from the task, or the program's default */
    const char *name;
    int from; /* number in task.params, or -1 */
    const json_t *standard;
};
struct program;
struct ready_task {
    const struct pipeline *pipeline;
    const struct task *task;
    const struct ready_input *inputs; /* as many as the task has, in its order */
    const struct card_object *code;   /* sorted by path */
    size_t code_count;
    const struct digest *program;      /* of uses: */
    const struct program *description; /* of uses:, when it was asked */
    const char *platform;              /* of numeric programs, else NULL */
    const struct ready_env *env;       /* sorted by name */
    size_t env_count;
    /* What is equal for all tasks of a stage, made once by action_stage; head NULL: made anew by each call. */
    const char *head, *tail;
    const struct action_param *params;
    size_t param_count;
    const char *without; /* leave this param out; NULL: none */
};
/* Fills head, tail and params of one task, in the arena, for all tasks of its stage. */
void action_stage(struct ready_task *t, struct arena *a);
/* The canonical text itself, streamed: ten thousand of them must cost nothing. */
MUST_USE enum err_code task_action_text(const struct ready_task *t, struct buf *out,
                                        struct err *err);
/* New references. */
MUST_USE enum err_code task_action(const struct ready_task *t, json_t **out, struct err *err);
/* The attempt card for that action; task_dir is absolute, program_path that of uses:. */
MUST_USE enum err_code task_card(const struct ready_task *t, json_t *action,
                                 const struct digest *key, const char *store, const char *task_dir,
                                 const char *program_path, json_t **out, struct err *err);

#endif
