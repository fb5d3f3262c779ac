/* stage_internal.h - the parts of stage_main: table, card, command line.
 *
 * Life:     stage_args_read or stage_card_read -> stage_params_complete -> stage_ports_check -> run -> stage_task_release.
 * Owns:     as stage.h.
 * Threads:  one.
 * Errors:   ERR_USAGE for whatever does not fit the table.
 */
#ifndef WEIR_STAGES_RUNTIME_STAGE_INTERNAL_H
#define WEIR_STAGES_RUNTIME_STAGE_INTERNAL_H

#include "stages/runtime/stage.h"

enum stage_wish { STAGE_RUN, STAGE_HELP, STAGE_DESCRIBE };

/* Text to a value of that type: a new reference. */
MUST_USE enum err_code stage_value_parse(enum stage_type type, const char *text, json_t **out,
                                         struct err *err);
/* Given params against the table, defaults filled in: each wrong one is named, with what it may be. */
MUST_USE enum err_code stage_params_complete(const struct stage_program *p, json_t *params,
                                             struct err *err);
/* Inputs and outputs against the table. */
MUST_USE enum err_code stage_ports_check(const struct stage_task *t, struct err *err);

/* The card's bytes; dir is the task directory, which its paths are relative to. */
MUST_USE enum err_code stage_card_parse(const char *text, size_t n, const char *dir,
                                        struct stage_task *t, struct err *err);
MUST_USE enum err_code stage_card_read(struct stage_task *t, struct err *err); /* WEIR_TASK */
MUST_USE enum err_code stage_args_read(int argc, char **argv, struct stage_task *t,
                                       enum stage_wish *wish, struct err *err);

void stage_task_init(struct stage_task *t, const struct stage_program *p);
void stage_task_release(struct stage_task *t);
/* One more input, output, or part of an input. */
void stage_task_input(struct stage_task *t, const char *name, const char *path, const char *digest,
                      const struct stage_entry *entries, size_t entry_count);
void stage_task_output(struct stage_task *t, const char *name, const char *path);

/* What --help and --describe print. */
void stage_help_text(const struct stage_program *p, struct buf *out);
MUST_USE enum err_code stage_describe_text(const struct stage_program *p, struct buf *out,
                                           struct err *err);
/* Only stage_checkpoint_commit announces one. */
void stage_event_checkpoint(struct stage_task *t, int64_t step, const char *path);
int stage_exit_status(enum err_code code);

#endif
