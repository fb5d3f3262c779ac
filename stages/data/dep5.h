/* dep5.h - Debian's machine-readable copyright files: which licence has this path.
 *
 * The last stanza with a matching pattern counts.  Installed paths differ from those of the source package, so a pattern is tried on the whole
 * path and on each of its tails after a slash; when none but "*" fits, patterns are tried once more without suffixes (".jpg" that became
 * ".webp"), which is reported as stale.
 *
 * Life:     dep5_parse -> dep5_find -> dep5_free.
 * Owns:     copies of all text.
 * Threads:  any number may look.
 * Errors:   ERR_INPUT: no "Format:" in front (a free-form file), no Files stanza; ERR_LIMIT past DEP5_STANZAS_MAX.
 * Paper:    Debian policy, copyright-format 1.0.
 */
#ifndef WEIR_STAGES_DATA_DEP5_H
#define WEIR_STAGES_DATA_DEP5_H

#include "base/str.h"

#define DEP5_BYTES_MAX (4 << 20)
#define DEP5_STANZAS_MAX 10000

struct dep5;
struct dep5_answer {
    const char *lic; /* SPDX or LicenseRef-.. */
    const char
        *later; /* a second reading: short name GPL-2, text "or any later version"; NULL: none */
    const char *pattern; /* what matched */
    const char *holder;  /* first line of Copyright, "" when there is none */
    bool everything;     /* the pattern is "*": a claim about the package */
    bool stale;          /* matched without its suffix only */
};
MUST_USE enum err_code dep5_parse(const char *text, size_t n, struct dep5 **out, struct err *err);
void dep5_free(struct dep5 *d); /* NULL is fine */
bool dep5_find(const struct dep5 *d, const char *path, struct dep5_answer *out);
/* "GPL-2+" -> "GPL-2.0-or-later", "Expat" -> "MIT"; what is unknown becomes LicenseRef-.. .  out: 128 bytes. */
void dep5_spdx(const char *short_name, char out[128]);

#endif
