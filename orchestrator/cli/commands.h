/* commands.h - the rows of the command table, and the little that commands share.
 *
 * Life:     each row is a constant of the file that implements it; cli_table.c puts them in order.
 * Owns:     nothing.
 * Threads:  one.
 * Errors:   as cli.h.
 */
#ifndef WEIR_ORCHESTRATOR_CLI_COMMANDS_H
#define WEIR_ORCHESTRATOR_CLI_COMMANDS_H

#include "orchestrator/cli.h"

/* How help texts explain an argument called WHAT: store_resolve. */
#define CLI_WHAT                                                                                   \
    "a ref, sha256:<64 hex>, or at least 8 digits of it; then, for something inside a tree, "      \
    ":path/in/tree"

extern const struct cli_command cli_init, cli_help, cli_version;
extern const struct cli_command cli_run, cli_retry, cli_sweep, cli_reproduce, cli_stage;
extern const struct cli_command cli_runs, cli_show, cli_status, cli_tag, cli_rm, cli_cancel;
extern const struct cli_command cli_logs, cli_metrics, cli_lineage, cli_trace, cli_checkout;
extern const struct cli_command cli_doctor;
extern const struct cli_command cli_plan, cli_why, cli_diff;
extern const struct cli_command cli_check, cli_graph, cli_schema, cli_lock;
extern const struct cli_command cli_ref_set, cli_ref_ls, cli_ref_rm;
extern const struct cli_command cli_store_add, cli_store_get, cli_store_cat, cli_store_ls,
    cli_store_stat, cli_store_du;
extern const struct cli_command cli_store_fsck, cli_store_check, cli_store_pack, cli_store_gc,
    cli_store_rebuild;
extern const struct cli_command cli_store_push, cli_store_pull;
extern const struct cli_command cli_store_action_put, cli_store_action_get;

/* check.c: what every command that takes a pipeline has, and how it is read.  file NULL: the only one in this folder.  All
 * problems are told; err says how many. */
#define CLI_PIPELINE_OPTIONS                                                                       \
    {"profile", 0, "NAME...", "lay this profile of the file over it"},                             \
        {"param-file", 0, "FILE...", "take params from a file of NAME: VALUE"},                    \
    {                                                                                              \
        "set", 0, "NAME=VALUE...", "change a param, or stages.STAGE.params.NAME"                   \
    }
struct pipeline;
MUST_USE enum err_code cli_pipeline(const struct cli *c, const char *file, struct pipeline **out,
                                    struct err *err);

/* plan.c: what every command that chooses tasks has: run, plan. */
#define CLI_SELECT_OPTIONS                                                                         \
    {"only", 0, "TASK...", "these tasks and no others: STAGE, STAGE[key=value]"},                  \
        {"from", 0, "TASK...", "these tasks and all that comes of them"},                          \
        {"until", 0, "TASK...", "these tasks and all that leads there"},                           \
        {"force", 0, "TASK...", "run these although they have a result"},                          \
        {"no-cache", 0, NULL, "run everything although it has a result"},                          \
    {                                                                                              \
        "input", 0, "TASK.INPUT=WHAT...",                                                          \
            "another input: a path, a ref, a digest or RUN:STAGE.OUTPUT"                           \
    }
/* Lines of problems to stderr, with --json as JSON to stdout; returns how many. */
size_t cli_tell_problems(const struct cli *c, const struct buf *problems, struct err *err);

struct selection;
struct ledger;
MUST_USE enum err_code cli_selection(const struct cli *c, const struct pipeline *p,
                                     struct selection *out, struct err *err);
/* *out = NULL when nothing has run here yet. */
MUST_USE enum err_code cli_read_ledger(struct store *st, struct ledger **out, struct err *err);
void cli_time_text(int64_t ms, char out[24]); /* "1.2s", "3m12s", "2h05m" */

/* Both, the pipeline from .weir/cache when it is the same as the last time (pipeline_image.h). */
MUST_USE enum err_code cli_pipeline_kept(const struct cli *c, const char *file,
                                         const char *weir_dir, struct pipeline **out,
                                         struct err *err);
MUST_USE enum err_code cli_open_pipeline(const struct cli *c, const char *file,
                                         enum store_mode mode, struct store **st,
                                         struct pipeline **out, struct err *err);

struct object;
/* As many first bytes as the safetensors reader wants (store/cut.h). */
MUST_USE enum err_code cli_read_head(struct object *o, struct buf *head, struct err *err);
/* ERR_NOT_FOUND with the nearest name. */
enum err_code cli_unknown_ref(struct store *st, const char *name, struct err *err);
MUST_USE enum err_code cli_list_refs(struct cli *c, struct store *st, const char *prefix,
                                     struct err *err);

#endif
