/* claim.h - what different witnesses say about a picture's licence, and what follows.
 *
 *   {"lic":"GPL-2.0-only","level":"package","by":"dep5:*"}
 *
 * Levels, strongest first: record (a person listed this file), file (inside the picture), path (a DEP-5 stanza that names it), package
 * (DEP-5's "*", or what the pipeline declared for the source), text (a free-form copyright file), credits.  Nothing is ever thrown away; one
 * value is concluded:
 *
 *   1. a record settles it
 *   2. any claim NOASSERTION, or none at all: NOASSERTION, quarantine
 *   3. all claims agree: that
 *   4. public domain, CC0 or permissive against one stricter licence: the stricter, until a person decides; the same for two readings
 *      of one licence, X-only and X-or-later: X-only
 *   5. two different strict ones: NOASSERTION, quarantine
 *
 * Life:     plain JSON values.
 * Owns:     as jansson.
 * Threads:  one value, one thread.
 * Errors:   ERR_INPUT: not an SPDX expression by its form.  Whether ids exist is for the pipeline's policy to say.
 * Paper:    SPDX specification 2.3, annex D; Debian policy, copyright-format 1.0.
 */
#ifndef WEIR_STAGES_DATA_CLAIM_H
#define WEIR_STAGES_DATA_CLAIM_H

#include "base/json.h"

enum claim_level { CLAIM_RECORD, CLAIM_FILE, CLAIM_PATH, CLAIM_PACKAGE, CLAIM_TEXT, CLAIM_CREDITS };
const char *claim_level_word(enum claim_level level);

/* A claim that is there already (same licence, level and witness) is not added again. */
void claim_add(json_t *claims, const char *lic, enum claim_level level, const char *by);
/* All of from's, with ", via ID" at the witness. */
void claim_merge(json_t *claims, const json_t *from, const char *via);
struct claim_verdict {
    char lic[256];
    const char *rule; /* "record", "agreed", "stricter", "conflict", "undecided", "none" */
    bool quarantine;
};
struct claim_verdict claim_conclude(const json_t *claims);
MUST_USE enum err_code claim_expression_check(const char *spdx, struct err *err);

#endif
