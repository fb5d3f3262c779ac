/* action.h - the canonical description of a task, its key, and the result it is known to have.
 *
 * An action is canonical JSON (RFC 8785), made by the orchestrator, whose SHA-256 is the action key: it is an ordinary blob, and so is its
 * result, or, when it refers to other objects, a tree.  What binds them is a REC_BIND record (pack.h).
 *
 * Life:     action_key; action_put in a writer's session, or action_record on its own; action_lookup.
 * Owns:     nothing.
 * Threads:  any.
 * Errors:   ERR_INPUT when the text is not canonical JSON; ERR_NOT_FOUND when the key has no result, or one of whose objects
 *           something is missing (the task has to run again; a hit checks everything below the result in one call).
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

#endif
