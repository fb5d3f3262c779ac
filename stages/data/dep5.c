/* DEP-5: paragraphs of "Name: value" lines, continued by lines that begin with a blank. */
#include "stages/data/dep5.h"

#include <ctype.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/arena.h"
#include "stages/data/claim.h"

struct stanza {
    char **patterns;
    size_t pattern_count;
    const char *name; /* short name as written */
    char lic[128], later[128];
    const char *holder;
};
struct dep5 {
    struct arena arena;
    struct stanza *list;
    size_t count, cap;
};

/* ---- short names ---------------------------------------------------------------------------------- */

static const struct {
    const char *deb, *spdx;
} known[] = {{"Expat", "MIT"},
             {"MIT", "MIT"},
             {"X11", "X11"},
             {"ISC", "ISC"},
             {"CC0", "CC0-1.0"},
             {"CC0-1.0", "CC0-1.0"},
             {"public-domain", "LicenseRef-public-domain"},
             {"PD", "LicenseRef-public-domain"},
             {"Apache-2.0", "Apache-2.0"},
             {"Apache-2", "Apache-2.0"},
             {"OFL-1.1", "OFL-1.1"},
             {"SIL-1.1", "OFL-1.1"},
             {"OFL", "OFL-1.1"},
             {"BSD-2-clause", "BSD-2-Clause"},
             {"BSD-3-clause", "BSD-3-Clause"},
             {"Zlib", "Zlib"},
             {"Artistic-2.0", "Artistic-2.0"},
             {"MPL-1.1", "MPL-1.1"},
             {"MPL-2.0", "MPL-2.0"},
             {"GFDL-1.3", "GFDL-1.3-only"},
             {"GFDL-1.3+", "GFDL-1.3-or-later"},
             {"GFDL-1.2", "GFDL-1.2-only"},
             {"GFDL-1.2+", "GFDL-1.2-or-later"},
             {"Unicode", "Unicode-DFS-2016"},
             {"Unicode-DFS-2016", "Unicode-DFS-2016"}};

/* GPL-2, LGPL-2.1+, AGPL-3.0, GPL-3.0+ */
static bool gnu_name(const char *s, char out[128])
{
    const char *families[] = {"AGPL-", "LGPL-", "GPL-"};

    for (size_t i = 0; i < 3; i++) {
        const size_t n = strlen(families[i]);
        char major, minor = '0';
        const char *p;

        if (strncasecmp(s, families[i], n) != 0 || !isdigit((unsigned char)s[n]))
            continue;
        major = s[n];
        p = s + n + 1;
        if (p[0] == '.' && isdigit((unsigned char)p[1])) {
            minor = p[1];
            p += 2;
        }
        if (*p && strcmp(p, "+") != 0)
            return false;
        (void)snprintf(out, 128, "%s%c.%c-%s", families[i], major, minor, *p ? "or-later" : "only");
        return true;
    }
    return false;
}

/* CC-BY-SA-4, CC-BY-3.0 */
static bool cc_name(const char *s, char out[128])
{
    static const char *const families[] = {"CC-BY-NC-SA-", "CC-BY-NC-ND-", "CC-BY-NC-",
                                           "CC-BY-SA-",    "CC-BY-ND-",    "CC-BY-"};

    for (size_t i = 0; i < 6; i++) {
        const size_t n = strlen(families[i]);

        if (strncasecmp(s, families[i], n) != 0 || s[n] < '1' || s[n] > '4')
            continue;
        if (!s[n + 1] || (s[n + 1] == '.' && isdigit((unsigned char)s[n + 2]) && !s[n + 3])) {
            (void)snprintf(out, 128, "%s%c.%c", families[i], s[n], s[n + 1] ? s[n + 2] : '0');
            return true;
        }
    }
    return false;
}

static void one_name(const char *s, char out[128])
{
    size_t n = 0;

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcasecmp(known[i].deb, s) == 0) {
            (void)snprintf(out, 128, "%s", known[i].spdx);
            return;
        }
    if (gnu_name(s, out) || cc_name(s, out))
        return;
    n = (size_t)snprintf(out, 128, "LicenseRef-");
    for (const char *p = s; *p && n < 120; p++)
        out[n++] = isalnum((unsigned char)*p) || *p == '.' || *p == '-' ? *p : '-';
    out[n] = '\0';
}

/* "GPL-2 or Artistic-2.0", "GPL-2+ and Expat" */
void dep5_spdx(const char *short_name, char out[128])
{
    struct buf text;
    const char *p = short_name;
    bool failed;

    buf_init(&text, 127);
    while (*p) {
        char word[96], spdx[128];
        size_t n;

        while (*p == ' ' || *p == ',')
            p++;
        n = strcspn(p, " ,");
        if (n == 0)
            break;
        (void)snprintf(word, sizeof(word), "%.*s", (int)(n < 95 ? n : 95), p);
        p += n;
        one_name(word, spdx);
        if (strcasecmp(word, "or") == 0 || strcasecmp(word, "and") == 0)
            (void)snprintf(spdx, sizeof(spdx), "%s",
                           word[0] == 'o' || word[0] == 'O' ? "OR" : "AND");
        buf_printf(&text, "%s%s", text.n ? " " : "", spdx);
    }
    failed = text.failed || text.n == 0;
    (void)snprintf(out, 128, "%s", failed ? "NOASSERTION" : text.p);
    /* Words that make no expression ("GPL-2 with exception", "my own"): nothing can be concluded. */
    if (claim_expression_check(out, &(struct err)ERR_INIT))
        (void)snprintf(out, 128, "NOASSERTION");
    buf_release(&text);
}

/* ---- paragraphs ----------------------------------------------------------------------------------- */

struct field {
    const char *name, *value; /* value: first line, then the continued ones, joined by newlines */
};

static void add_patterns(struct dep5 *d, struct stanza *s, const char *value)
{
    for (const char *p = value; *p;) {
        size_t n;

        p += strspn(p, " \t\n");
        n = strcspn(p, " \t\n");
        if (n == 0)
            break;
        s->patterns = mem_grow(s->patterns, s->pattern_count + 1, sizeof(*s->patterns));
        s->patterns[s->pattern_count++] = arena_strndup(&d->arena, p, n);
        p += n;
    }
}

static const char *first_line(struct arena *a, const char *value)
{
    return arena_strndup(a, value, strcspn(value, "\n"));
}

/* License names are filled in where they are found; texts of stand-alone License paragraphs are only asked for "later version". */
static void take_paragraph(struct dep5 *d, const struct field *f, size_t n)
{
    const char *files = NULL, *license = NULL, *holder = "";
    struct stanza *s;

    for (size_t i = 0; i < n; i++) {
        if (strcasecmp(f[i].name, "Files") == 0)
            files = f[i].value;
        else if (strcasecmp(f[i].name, "License") == 0)
            license = f[i].value;
        else if (strcasecmp(f[i].name, "Copyright") == 0)
            holder = f[i].value;
    }
    if (files && license) {
        if (d->count == d->cap) {
            d->cap = d->cap ? 2 * d->cap : 16;
            d->list = mem_grow(d->list, d->cap, sizeof(*d->list));
        }
        s = &d->list[d->count++];
        *s = (struct stanza){.name = first_line(&d->arena, license),
                             .holder = first_line(&d->arena, holder)};
        add_patterns(d, s, files);
        dep5_spdx(s->name, s->lic);
    }
    if (!license || !strstr(license, "later version"))
        return;
    for (size_t i = 0; i < d->count; i++) {
        const size_t len = strlen(d->list[i].lic);
        const char *name = d->list[i].name;

        if (strncmp(name, license, strlen(name)) != 0 ||
            (license[strlen(name)] && license[strlen(name)] != '\n'))
            continue;
        if (len > 5 && strcmp(d->list[i].lic + len - 5, "-only") == 0)
            (void)snprintf(d->list[i].later, sizeof(d->list[i].later), "%.*s-or-later",
                           (int)(len - 5), d->list[i].lic);
    }
}

#define FIELDS_MAX 64

static enum err_code paragraphs(struct dep5 *d, const char *text, size_t n, struct err *err)
{
    struct field f[FIELDS_MAX];
    size_t count = 0, at = 0;

    while (at <= n) {
        const char *line = text + at, *end = at < n ? memchr(line, '\n', n - at) : NULL;
        const size_t len = at >= n ? 0 : end ? (size_t)(end - line) : n - at;
        const char *colon = len ? memchr(line, ':', len) : NULL;

        at += len + 1;
        if (len == 0 || (len == 1 && *line == '\r')) {
            take_paragraph(d, f, count);
            count = 0;
            if (d->count > DEP5_STANZAS_MAX) {
                return err_set(err, ERR_LIMIT, "copyright file with more than %d stanzas",
                               DEP5_STANZAS_MAX);
            }
        } else if ((*line == ' ' || *line == '\t') && count > 0) {
            f[count - 1].value =
                arena_printf(&d->arena, "%s\n%.*s", f[count - 1].value, (int)(len - 1), line + 1);
        } else if (colon && colon > line && *line != '#' && count < FIELDS_MAX) {
            const char *from = colon + 1;

            while (from < line + len && (*from == ' ' || *from == '\t'))
                from++;
            f[count].name = arena_strndup(&d->arena, line, (size_t)(colon - line));
            f[count++].value = arena_strndup(&d->arena, from, (size_t)(line + len - from));
        }
    }
    take_paragraph(d, f, count);
    return OK;
}

enum err_code dep5_parse(const char *text, size_t n, struct dep5 **out, struct err *err)
{
    struct dep5 *d;
    enum err_code rc;

    *out = NULL;
    if (n > DEP5_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "copyright file of %zu bytes, at most %d", n,
                       DEP5_BYTES_MAX);
    if (n < 7 || strncasecmp(text, "Format:", 7) != 0)
        return err_set(err, ERR_INPUT,
                       "copyright file without \"Format:\" in front: free text is not read");
    if (memchr(text, '\0', n))
        return err_set(err, ERR_INPUT, "copyright file with a zero byte");
    d = mem_zero(1, sizeof(*d));
    arena_init(&d->arena);
    rc = paragraphs(d, text, n, err);
    if (!rc && d->count == 0)
        rc = err_set(err, ERR_INPUT, "copyright file without a Files stanza");
    if (rc)
        dep5_free(d);
    else
        *out = d;
    return rc;
}

void dep5_free(struct dep5 *d)
{
    if (!d)
        return;
    for (size_t i = 0; i < d->count; i++)
        free(d->list[i].patterns);
    free(d->list);
    arena_release(&d->arena);
    free(d);
}

/* ---- looking up ----------------------------------------------------------------------------------- */

static bool fits(const char *pattern, const char *path)
{
    for (const char *p = path; p; p = strchr(p, '/') ? strchr(p, '/') + 1 : NULL)
        if (fnmatch(pattern, p, 0) == 0) /* in DEP-5 a star also stands for slashes */
            return true;
    return false;
}

/* Without the suffix, on both sides. */
static bool fits_stem(const char *pattern, const char *path)
{
    char a[512], b[512];
    char *dot;

    if (snprintf(a, sizeof(a), "%s", pattern) >= (int)sizeof(a) ||
        snprintf(b, sizeof(b), "%s", path) >= (int)sizeof(b))
        return false;
    dot = strrchr(a, '.');
    if (!dot || strchr(dot, '/') || strpbrk(dot, "*?[") || dot == a)
        return false;
    *dot = '\0';
    dot = strrchr(b, '.');
    if (!dot || strchr(dot, '/'))
        return false;
    *dot = '\0';
    return fits(a, b);
}

static bool find(const struct dep5 *d, const char *path, bool stem, struct dep5_answer *out)
{
    for (size_t i = d->count; i-- > 0;) {
        const struct stanza *s = &d->list[i];

        for (size_t k = 0; k < s->pattern_count; k++) {
            const char *pattern = s->patterns[k];
            const bool all = strcmp(pattern, "*") == 0;

            if (stem ? all || !fits_stem(pattern, path) : !fits(pattern, path))
                continue;
            *out = (struct dep5_answer){
                s->lic, s->later[0] ? s->later : NULL, pattern, s->holder, all, stem};
            return true;
        }
    }
    return false;
}

bool dep5_find(const struct dep5 *d, const char *path, struct dep5_answer *out)
{
    struct dep5_answer close;
    const bool found = find(d, path, false, out);

    if ((!found || out->everything) && find(d, path, true, &close)) {
        *out = close;
        return true;
    }
    return found;
}
