/* reproduce.h - a task of a kept run, run again from its recorded action in a fresh directory, and what came out compared.
 *
 * Everything comes from the store: program, code and inputs are objects that the action names.  Values of declared variables come from the
 * environment of today and must have the recorded HMAC.  The result is compared and not bound to the action: a difference is
 * a finding, not a new truth.
 *
 * Life:     reproduce_run does all tasks, one after another, in the order of their inputs' making.
 * Owns:     nothing afterwards.
 * Threads:  one.
 * Errors:   ERR_NOT_FOUND: no such run or task; ERR_CONFIG: a variable has another value; a task that fails or differs is a report.
 */
#ifndef WEIR_ORCHESTRATOR_REPRODUCE_H
#define WEIR_ORCHESTRATOR_REPRODUCE_H

#include "orchestrator/differ.h"
#include "orchestrator/lineage.h"

enum reproduce_end { REPRODUCE_EQUAL, REPRODUCE_DIFFERS, REPRODUCE_FAILED };
struct reproduce_report {
    const char *task;
    enum reproduce_end end;
    int64_t wall_ms;
    const char *output; /* the first that differs */
    struct difference difference;
    char reason[ERR_TEXT_MAX]; /* failed */
};
typedef enum err_code (*reproduce_fn)(void *arg, const struct reproduce_report *r, struct err *err);
/* stage: all its instances; or one task; NULL: all tasks of the run. */
MUST_USE enum err_code reproduce_run(struct store *st, int64_t run, const char *stage,
                                     const char *exec_path, reproduce_fn fn, void *arg,
                                     struct err *err);

#endif
