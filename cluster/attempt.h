/* attempt.h - one attempt at one task, from its card to its result.
 *
 *   TASKDIR/attempt.json                       the card
 *          /attempt.pid                        {"supervisor":PID,"program":PID}, once it has run for ATTEMPT_NOTE_NS
 *          /task.json                          the stage contract's card
 *          /in/NAME[/ENTRY] /out/NAME /work /ckpt /resume /tmp /images /program
 *          /log /events.jsonl                  when there is anything in them
 *          /result.json                        unless somebody is told who needs none: attempt_hand_over
 * TASKDIR itself is flock'ed while the attempt is alive: who is killed gives the lock back.
 *
 * New files and folders are what a short task costs most (a tenth of a millisecond each, and more where inodes are made and removed all
 * the time), so there is none that is not needed, and a folder is used again: when an attempt has ended well and the folder is as it was
 * made, it is emptied and given to the next attempt under that one's name.  A folder that the program has done anything to except filling
 * it (modes, owners, extended attributes, links where a card was) is not used again.
 *
 * begin:    take the lock, read the card.
 * execute:  materialise inputs (read only) and code, make the folders, write task.json, supervise the program (supervise.h), judge its
 *           end.  What goes wrong before the program's end is an attempt that is lost, with the reason in its card.
 * put:      every output there?  inputs unchanged?  adopt the outputs by rename, put action and result, bind them, in a session
 *           that several attempts may share.
 * commit:   and only then result.json.  Killed anywhere before, the attempt never happened; the store holds at most garbage.  A
 *           commit that fails is tried again for each attempt alone, so that nobody pays for another one's outputs.
 *
 * The result of a task is a tree {"action.json", "out": {NAME: ..}}: whoever keeps the result keeps all of it.
 *
 * Life:     attempt_begin -> attempt_execute -> attempts_commit -> attempt_end or _hand_over; attempt_run does all for one.
 * Owns:     an attempt owns its card, descriptors and the lock.
 * Threads:  one per process.
 * Errors:   attempt_begin: there is nothing that could become a result card (no folder, somebody else is at it).  attempt_end: the card
 *           cannot be written.  All else is a status in the card.
 */
#ifndef WEIR_CLUSTER_ATTEMPT_H
#define WEIR_CLUSTER_ATTEMPT_H

#include <sys/types.h>

#include "cluster/card.h"
#include "cluster/supervise.h"

#define ATTEMPT_PID "attempt.pid"
#define ATTEMPT_NOTE_NS 50000000

struct store;
struct tree;
struct attempt;
struct attempt_control {
    int signals;                         /* as supervise_options.signals */
    const struct supervise_hooks *hooks; /* event is not asked; may be NULL */
};
/* st: open for writing or as a node; NULL: the card's store is opened. */
MUST_USE enum err_code attempt_begin(const char *task_dir, struct store *st, struct attempt **out,
                                     struct err *err);
/* The same in a folder that attempt_hand_over has called spare and that nobody has touched but to write its card. */
MUST_USE enum err_code attempt_begin_again(const char *task_dir, struct store *st,
                                           struct attempt **out, struct err *err);
/* *asked: somebody wants the whole process to end (SIGTERM to us). */
void attempt_execute(struct attempt *a, const struct attempt_control *control, bool *asked);
/* Puts the results of all of them into one commit, or, should that fail, each into its own. */
void attempts_commit(struct store *st, struct attempt *const *list, size_t n);
/* Before its end; borrowed. */
const struct result_card *attempt_result(const struct attempt *a);
const char *attempt_dir(const struct attempt *a);
struct store *attempt_store(struct attempt *a);
/* Writes result.json, gives the lock back.  a is gone afterwards, whatever is returned. */
MUST_USE enum err_code attempt_end(struct attempt *a, struct err *err);
/* The same for somebody who is told of the result at once: where the store says it all (done and bound; no log, events, images, checkpoint)
 * there is no result.json.  *spare: the folder is empty and can be used again. */
MUST_USE enum err_code attempt_hand_over(struct attempt *a, bool *spare, struct err *err);

/* All of it.  *out tells status and numbers only: what it pointed into is gone (result_card_read gives it back). */
MUST_USE enum err_code attempt_run(const char *task_dir, struct result_card *out, struct err *err);
/* The outputs of a result tree: entries of its "out" folder.  out_dir is released by the caller. */
MUST_USE enum err_code attempt_result_outputs(struct store *st, const struct digest *result,
                                              struct tree *out_dir, struct err *err);

/* Locks an open folder, until it is closed; ERR_AGAIN when somebody else holds it. */
MUST_USE enum err_code attempt_lock(int dir, struct err *err);
MUST_USE enum err_code attempt_note_pid(int dir, pid_t program, struct err *err);
/* The process that holds the lock, as it says; 0 when nobody does, or it has not said so yet. */
pid_t attempt_supervisor(const char *task_dir);

#endif
