/* schema.h - the pipeline format as a JSON Schema, for editors and for checking without weir.
 *
 * Draft 2020-12.  It knows keys, types, names and units; what needs more than one place (references, cycles, licences on the
 * SPDX list) only `weir check` knows.  Everything that loads is valid by it; a test keeps both in step.
 *
 * Life:     one call.
 * Owns:     the caller owns what comes back.
 * Threads:  any.
 * Errors:   ERR_BUG when the text in schema.c is no JSON.
 */
#ifndef WEIR_ORCHESTRATOR_SCHEMA_H
#define WEIR_ORCHESTRATOR_SCHEMA_H

#include "base/json.h"

/* A new reference; members in the order of the format. */
MUST_USE enum err_code schema_json(json_t **out, struct err *err);

#endif
