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
extern const struct cli_command cli_run, cli_checkout;
extern const struct cli_command cli_check, cli_graph, cli_schema;
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

struct object;
/* As many first bytes as the safetensors reader wants (store/cut.h). */
MUST_USE enum err_code cli_read_head(struct object *o, struct buf *head, struct err *err);
/* ERR_NOT_FOUND with the nearest name. */
enum err_code cli_unknown_ref(struct store *st, const char *name, struct err *err);
MUST_USE enum err_code cli_list_refs(struct cli *c, struct store *st, const char *prefix,
                                     struct err *err);

#endif
