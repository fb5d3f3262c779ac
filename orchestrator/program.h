/* program.h - stage programs: where they are, which bytes they are, what they say about themselves; and what else of the machine belongs to a key.
 *
 * Programs live in ../libexec/weir beside the weir program.  `--describe` (stage-contract.md) is run once per digest and kept as an object under the
 * action table, so that ten thousand tasks ask nobody.  The program itself enters the store: an old run can be repeated after an upgrade.
 *
 * Life:     programs_new -> program_get -> programs_free.
 * Owns:     descriptions; each program is looked at once.
 * Threads:  one.
 * Errors:   ERR_NOT_FOUND with the nearest name; ERR_INPUT when --describe says nonsense (bounded: PROGRAM_DESCRIBE_MAX bytes, 30 s);
 *           program_check: file:line:column of every wrong param, all of them.
 */
#ifndef WEIR_ORCHESTRATOR_PROGRAM_H
#define WEIR_ORCHESTRATOR_PROGRAM_H

#include "orchestrator/pipeline.h"
#include "store/store.h"

#define PROGRAM_DESCRIBE_MAX (1 << 20)

struct program_param {
    const char *name, *type; /* "int", "float", "bool", "string" (see --describe) */
    json_t *standard;        /* default; NULL: must be given */
    json_t *min, *max, *choices;
    const char *help;
    bool extends; /* raising it goes on from old checkpoints */
};
struct program_port { /* input or output */
    const char *name;
    bool optional;
};
struct program {
    const char *name, *path; /* absolute */
    struct digest digest;
    int64_t size, mtime_ns;
    uint64_t ino;
    bool numeric;
    json_t *libraries; /* {name: version} */
    struct program_param *params;
    size_t param_count;
    struct program_port *inputs, *outputs;
    size_t input_count, output_count;
};
struct programs;
MUST_USE enum err_code programs_new(struct store *st, struct programs **out, struct err *err);
void programs_free(struct programs *ps); /* NULL is fine */
const char *programs_dir(const struct programs *ps);
/* uses: "vae", pinned: NULL or "sha256:..": another build here is looked for in the store, else ERR_INPUT. */
MUST_USE enum err_code program_get(struct programs *ps, const char *uses, const char *pinned,
                                   const struct program **out, struct err *err);
/* Params, inputs and outputs of every task of every uses: stage against --describe; problems as pipeline_load gives them. */
MUST_USE enum err_code program_check(struct programs *ps, const struct pipeline *p,
                                     struct buf *errors, struct err *err);
/* The params of a task with the program's defaults filled in: a new object. */
json_t *program_params(const struct program *prog, const struct task *t);
const struct program_param *program_extending(const struct program *prog); /* NULL: none */

/* ---- what else is keyed ---- */
/* The platform class of numeric programs: "x86_64+avx512f+avx512_bf16" (the widest the kernels use) and, for cuda, "sm_90". */
#define PLATFORM_GPUS_MAX 64
int platform_gpus(void); /* that the driver shows, through NVML; 0 without one */
MUST_USE enum err_code platform_class(bool cuda, char out[64], struct err *err);
/* hmac-sha256 of a declared variable's value under the store's key (.weir/secret, made at first use, mode 0600).  Unset: ERR_CONFIG names it. */
MUST_USE enum err_code secret_hmac(struct store *st, const char *name, const char *value,
                                   char out[80], struct err *err);

/* ---- the pipeline's repository ---- */
struct git_state {
    bool known; /* false: no repository, or one that libgit2 refuses; why says so */
    char why[200];
    char commit[72], branch[256];
    bool dirty;
    char **dirty_files; /* relative to the work tree, sorted, at most GIT_DIRTY_MAX */
    size_t dirty_count;
};
#define GIT_DIRTY_MAX 1000
MUST_USE enum err_code git_look(const char *dir, struct git_state *out, struct err *err);
void git_release(struct git_state *g);
json_t *git_json(const struct git_state *g);

#endif
