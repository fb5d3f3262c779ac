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

#include "base/json.h"
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

/* Many licences: of sources, of single files, of what a dataset holds.  Each different expression is judged once. */
struct licence_policy {
    const char *const *deny, *const *allow_only; /* end with NULL */
};
/* A part called what ("source mine").  When it does not pass, a line "what: CC-BY-NC-4.0 is denied" is added to lines (may be NULL). */
bool licence_judge(const struct licence_policy *p, const char *what, const char *spdx,
                   struct buf *lines);
/* licenses.json of a dataset: [{"expression":"MIT","source":"noto","pictures":12,"share":0.25}, ...], or an object with that list as its
 * member "licenses"; all but expression may be absent.  ERR_DENIED, with the first line as its text, when a part does not pass; ERR_INPUT
 * when it is no such list, or an expression does not parse. */
MUST_USE enum err_code licence_judge_parts(const struct licence_policy *p, const json_t *parts,
                                           const char *what, struct buf *lines, struct err *err);

#endif
