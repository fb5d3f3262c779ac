/* select.h - which tasks a command is about: --only, --from, --until, --force, --no-cache.
 *
 *   TASK             sft[variant=realism]          also with its keys in another order
 *   STAGE            sft                           all its instances
 *   STAGE[k=v]       sft[variant=realism]          all instances with these values, when the matrix has more keys
 *
 * --only takes what is named and nothing else; --from what is named and all that comes of it; --until what is named and all that leads
 * there.  Several options: what all of them allow.  --force names tasks that run though they have a result; no_cache: all do.
 *
 * Life:     select_tasks -> arrays -> select_release.
 * Owns:     the arrays.
 * Threads:  one.
 * Errors:   ERR_USAGE with the nearest name; also when nothing is left.
 */
#ifndef WEIR_ORCHESTRATOR_SELECT_H
#define WEIR_ORCHESTRATOR_SELECT_H

#include "orchestrator/pipeline.h"

struct select_options { /* NULL-terminated lists; NULL: not given */
    const char *const *only, *const *from, *const *until, *const *force;
    bool no_cache;
};
struct selection {
    bool *wanted, *forced; /* per task */
    size_t count;          /* of the wanted ones */
    bool partial;          /* not all: publish does not move */
};
MUST_USE enum err_code select_tasks(const struct pipeline *p, const struct select_options *o,
                                    struct selection *out, struct err *err);
void select_release(struct selection *s); /* fine on zeroed storage */
/* Marks the tasks that a name means; option: for messages, "--only". */
MUST_USE enum err_code select_name(const struct pipeline *p, const char *option, const char *name,
                                   bool *marks, struct err *err);

#endif
