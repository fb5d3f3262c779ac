/* action.h - the canonical description of a task, its key, and the result it is known to have.
 *
 * An action is canonical JSON (RFC 8785), made by the orchestrator, whose SHA-256 is the action key: it is an ordinary blob, and so is its
 * result, or, when it refers to other objects, a tree.  What binds them is a REC_BIND record (pack.h).
 *
 * A run that builds on results of earlier ones does this, and starts over at 1 on ERR_CHANGED:
 *   1. store_removal_epoch(&epoch), before it looks;
 *   2. action_lookup_many for all keys at once: who has a result?
 *   3. action_lookup for each hit, which walks everything below it; needless for a result that the caller saw complete at this very epoch,
 *      and may remember (result, epoch) of across processes;
 *   4. action_keep(all results, seconds, epoch): from its return on no gc removes them or anything below, whatever its grace period is,
 *      until the seconds have passed (call it again before they have) or, which outlasts them, a ref of the run leads there.
 *
 * Life:     action_key; action_put in a writer's session; lookups.
 * Owns:     nothing.
 * Threads:  any.
 * Errors:   ERR_INPUT when the text is not canonical JSON; ERR_NOT_FOUND when the key has no result, or one of whose objects
 *           something is missing (the task has to run again; a hit checks everything below the result in one call).  ERR_CONFIG on a
 *           node, which has no index.
 */
#ifndef WEIR_STORE_ACTION_H
#define WEIR_STORE_ACTION_H

#include "base/json.h"
#include "store/writer.h"

#define ACTION_BYTES_MAX (16 << 20)
MUST_USE enum err_code action_key(const json_t *action, struct digest *key, struct buf *canonical,
                                  struct err *err);
/* Puts the action blob and binds it to result. */
MUST_USE enum err_code action_put(struct writer *w, const json_t *action,
                                  const struct digest *result, struct digest *key, struct err *err);
MUST_USE enum err_code action_lookup(struct store *st, const struct digest *key,
                                     struct digest *result, struct err *err);
/* hits[i]: keys[i] has a result, results[i]; nothing is said about the objects below it, not even about the result itself.  Any n, one read
 * transaction; about a microsecond each, less when the keys are sorted. */
MUST_USE enum err_code action_lookup_many(struct store *st, const struct digest *keys, size_t n,
                                          struct digest *results, bool *hits, struct err *err);
/* A number that another one follows whenever an object or an action's result may have disappeared: a gc or compaction condemned something,
 * damage was quarantined or dropped, by a node too, fsck repaired, the index was rebuilt or made anew.  While it is equal (it says nothing
 * else), what was complete is complete, except for files that somebody removed or damaged by hand.  Durable: the same in all processes.
 * Waits up to 20 ms when something was quarantined just now. */
MUST_USE enum err_code store_removal_epoch(struct store *st, uint64_t *epoch, struct err *err);
/* Keeps results, and all that they reach, for so many seconds from now (a minute more at most), in one durable commit: 10,000 of them cost
 * a few milliseconds, and next to nothing when they were kept for as long already.  epoch: of before the caller looked.  ERR_CHANGED when
 * it is past, or when one of the results is not there: look again.  STORE_WRITE only. */
#define ACTION_KEEP_MAX_S (400 * INT64_C(86400))
MUST_USE enum err_code action_keep(struct store *st, const struct digest *results, size_t n,
                                   int64_t seconds, uint64_t epoch, struct err *err);

#endif
