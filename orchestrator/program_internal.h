/* program_internal.h - a description, from the bytes that --describe printed to struct program.
 *
 *   {"contract":1,
 *    "inputs":{"data":{"optional":false,"help":".."}},   "outputs":{"model":{"optional":false,"help":".."}},
 *    "params":{"lr":{"type":"float","default":1e-4,"min":0,"max":1,"choices":[..],"help":"..","extends":false}},
 *    "numeric":true,"libraries":{"onednn":"2.6.3"},"help":".."}
 * All but contract may be left out.  type is int, float, bool or string; min and max go with int and float; a param without default must
 * be given; extends goes with one int param.
 *
 * Life:     describe_parse -> fields.
 * Owns:     root keeps all strings and values; arrays live in the arena.
 * Threads:  one.
 * Errors:   ERR_INPUT names the member.
 */
#ifndef WEIR_ORCHESTRATOR_PROGRAM_INTERNAL_H
#define WEIR_ORCHESTRATOR_PROGRAM_INTERNAL_H

#include "base/arena.h"
#include "orchestrator/program.h"

#define PROGRAM_PARAMS_MAX 1000
#define PROGRAM_PORTS_MAX 1000

/* *root: json_decref it when prog is not needed any more, whatever is returned (may be NULL). */
MUST_USE enum err_code describe_parse(const char *p, size_t n, struct arena *a,
                                      struct program *prog, json_t **root, struct err *err);
/* Is v a value for this param?  When not, why says what would be. */
bool param_accepts(const struct program_param *p, const json_t *v, struct buf *why);

#endif
