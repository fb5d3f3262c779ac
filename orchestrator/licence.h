/* licence.h - SPDX licence expressions, and policies over them.
 *
 *   expression = and {"OR" and}    and = unit {"AND" unit}    unit = "(" expression ")" | id ["WITH" exception]
 *   id = SPDX id ["+"] | "LicenseRef-" idstring | "DocumentRef-" idstring ":LicenseRef-" idstring | NOASSERTION | NONE
 *
 * Ids are those of the SPDX License List, upper and lower case alike, so that a misspelt one is noticed; whatever is not
 * on the list is called LicenseRef-something.
 *
 * Life:     one call.
 * Owns:     nothing.
 * Threads:  any.
 * Errors:   a text says why an expression does not parse, or does not pass.
 * Paper:    SPDX specification 2.3, annex D.
 */
#ifndef WEIR_ORCHESTRATOR_LICENCE_H
#define WEIR_ORCHESTRATOR_LICENCE_H

#include "base/str.h"

#define LICENCE_BYTES_MAX 4096 /* of one expression; joins of many sources may be long */

/* why (may be NULL) gets what is wrong and what would be right. */
bool licence_expression_ok(const char *spdx, struct buf *why);
/* One id, maybe WITH an exception: what policies list. */
bool licence_is_single(const char *spdx, struct buf *why);

/* OR passes if one branch does, AND needs all.  A licence passes when deny does not list it and allow_only is empty or
 * lists it; "X" in a list means X+ and X WITH anything too, "X WITH E" only itself.  Lists end with NULL.
 * why gets each licence that stood in the way: "CC-BY-NC-4.0 is denied". */
bool licence_passes(const char *spdx, const char *const *deny, const char *const *allow_only,
                    struct buf *why);

#endif
