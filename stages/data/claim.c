/* Claims about licences. */
#include "stages/data/claim.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define NESTING_MAX 32

static const char *const levels[] = {"record", "file", "path", "package", "text", "credits"};

const char *claim_level_word(enum claim_level level)
{
    return levels[level];
}

void claim_add(json_t *claims, const char *lic, enum claim_level level, const char *by)
{
    json_t *c = json_pack("{s:s,s:s,s:s}", "lic", lic, "level", levels[level], "by", by);

    CHECK(c);
    for (size_t i = 0; i < json_array_size(claims); i++)
        if (json_equal(json_array_get(claims, i), c)) {
            json_decref(c);
            return;
        }
    CHECK(json_array_append_new(claims, c) == 0);
}

void claim_merge(json_t *claims, const json_t *from, const char *via)
{
    for (size_t i = 0; i < json_array_size(from); i++) {
        const json_t *c = json_array_get(from, i);
        const char *lic = json_string_value(json_object_get(c, "lic"));
        const char *word = json_string_value(json_object_get(c, "level"));
        const char *by = json_string_value(json_object_get(c, "by"));
        enum claim_level level = CLAIM_RECORD;
        struct buf text;

        while (level < CLAIM_CREDITS && (!word || strcmp(levels[level], word) != 0))
            level++;
        buf_init(&text, 4096);
        buf_printf(&text, "%.1500s, via %.1500s", by ? by : "?", via);
        claim_add(claims, lic ? lic : "NOASSERTION", level, text.p ? text.p : via);
        buf_release(&text);
    }
}

/* Asks nothing, or no more than to be named: yields to whatever is stricter. */
static bool is_permissive(const char *lic)
{
    static const char *const list[] = {"CC0-1.0",      "LicenseRef-public-domain",
                                       "MIT",          "ISC",
                                       "Zlib",         "BSD-2-Clause",
                                       "BSD-3-Clause", "Apache-2.0",
                                       "0BSD",         "Unlicense"};

    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
        if (strcmp(list[i], lic) == 0)
            return true;
    return false;
}

static struct claim_verdict verdict(const char *lic, const char *rule, bool quarantine)
{
    struct claim_verdict v = {.rule = rule, .quarantine = quarantine};

    (void)snprintf(v.lic, sizeof(v.lic), "%s", strlen(lic) < sizeof(v.lic) ? lic : "NOASSERTION");
    return v;
}

static const char *text_or_none(const json_t *v)
{
    const char *s = json_string_value(v);

    return s ? s : "NOASSERTION";
}

/* GPL-2.0-only and GPL-2.0-or-later: two readings of one licence, and what both allow is the first. */
static bool is_narrower(const char *only, const char *later)
{
    const size_t n = strlen(only);

    return n > 5 && strcmp(only + n - 5, "-only") == 0 && strncmp(only, later, n - 5) == 0 &&
           strcmp(later + n - 5, "-or-later") == 0;
}

struct claim_verdict claim_conclude(const json_t *claims)
{
    const char *first = NULL, *record = NULL, *strict = NULL;
    bool differ = false, unknown = false, strict_differ = false;

    for (size_t i = 0; i < json_array_size(claims); i++) {
        const json_t *c = json_array_get(claims, i);
        const char *lic = text_or_none(json_object_get(c, "lic"));
        const char *level = text_or_none(json_object_get(c, "level"));

        if (strcmp(level, levels[CLAIM_RECORD]) == 0 && !record)
            record = lic;
        unknown = unknown || strcmp(lic, "NOASSERTION") == 0;
        differ = differ || (first && strcmp(first, lic) != 0);
        first = first ? first : lic;
        if (is_permissive(lic))
            continue;
        if (!strict || is_narrower(lic, strict))
            strict = lic;
        else if (strcmp(strict, lic) != 0 && !is_narrower(strict, lic))
            strict_differ = true;
    }
    if (record)
        return verdict(record, "record", strcmp(record, "NOASSERTION") == 0);
    if (!first)
        return verdict("NOASSERTION", "none", true);
    if (unknown)
        return verdict("NOASSERTION", "undecided", true);
    if (!differ)
        return verdict(first, "agreed", false);
    if (strict && !strict_differ)
        return verdict(strict, "stricter", false);
    return verdict("NOASSERTION", "conflict", true);
}

/* ---- form of an expression ------------------------------------------------------------------------ */

static bool is_id_char(char c)
{
    return isalnum((unsigned char)c) || c == '.' || c == '-' || c == '+' || c == ':';
}

enum err_code claim_expression_check(const char *spdx, struct err *err)
{
    bool want_id = true;
    int depth = 0;

    for (const char *p = spdx; *p;) {
        size_t n = 0;

        if (*p == ' ') {
            p++;
            continue;
        }
        if (*p == '(' && want_id && depth < NESTING_MAX) {
            depth++;
            p++;
            continue;
        }
        if (*p == ')' && !want_id && depth > 0) {
            depth--;
            p++;
            continue;
        }
        while (is_id_char(p[n]))
            n++;
        if (n == 0)
            return err_set(err, ERR_INPUT,
                           "licence '%.100s': '%.20s' does not belong in an SPDX expression", spdx,
                           p);
        if (want_id)
            want_id = false;
        else if ((n == 3 && strncmp(p, "AND", 3) == 0) || (n == 2 && strncmp(p, "OR", 2) == 0) ||
                 (n == 4 && strncmp(p, "WITH", 4) == 0))
            want_id = true;
        else
            return err_set(err, ERR_INPUT,
                           "licence '%.100s': AND, OR or WITH is missing before '%.20s'; other "
                           "names are written LicenseRef-..",
                           spdx, p);
        p += n;
    }
    if (want_id || depth > 0)
        return err_set(err, ERR_INPUT, "licence '%.100s' is no SPDX expression: it ends too early",
                       spdx);
    return OK;
}
