/* attempt.h - one attempt at one task, from its card to its result.
 *
 *   TASKDIR/attempt.json                       the card
 *          /task.json                          the stage contract's card
 *          /in/NAME[/ENTRY] /out/NAME /work /ckpt /tmp /home
 *          /log /events.jsonl /result.json
 *
 * prepare:   open the store, materialise inputs (read only) and code, make the folders, write task.json.
 * run:       supervise the program (supervise.h).
 * collect:   every output there?  inputs unchanged?  adopt the outputs by rename, put action and result, bind them, commit, and only
 *            then write result.json.  Killed anywhere before, the attempt never happened; the store holds at most garbage.
 *
 * The result of a task is a tree {"action.json", "out": {NAME: ..}}: whoever keeps the result keeps all of it.
 *
 * Life:     attempt_run does all.  Owns: nothing afterwards.  Threads: one per process.
 * Errors:   only what keeps the result card from being written; the rest is a status in the card.  *out tells status and numbers
 *           only: names in it pointed into the card, which is gone (result_card_read gives them back).
 */
#ifndef WEIR_CLUSTER_ATTEMPT_H
#define WEIR_CLUSTER_ATTEMPT_H

#include "cluster/card.h"

MUST_USE enum err_code attempt_run(const char *task_dir, struct result_card *out, struct err *err);
/* The outputs of a result tree: entries of its "out" folder.  out_dir is released by the caller. */
struct store;
struct tree;
MUST_USE enum err_code attempt_result_outputs(struct store *st, const struct digest *result,
                                              struct tree *out_dir, struct err *err);

#endif
