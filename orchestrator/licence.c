#include "orchestrator/licence.h"

#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 32
#define ID_MAX 128

static const char *const ids[] = {
#define LICENCE_IDS
#include "orchestrator/licence_ids.def"
#undef LICENCE_IDS
};
static const char *const exceptions[] = {
#define LICENCE_EXCEPTIONS
#include "orchestrator/licence_ids.def"
#undef LICENCE_EXCEPTIONS
};
#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

struct scan {
    const char *p;
    struct buf *why;
    int depth;
    const char *const *deny, *const *allow_only; /* NULL: only parse */
    const char *all;                             /* for messages */
};

struct licence {              /* slices of the expression */
    struct str id, exception; /* id without '+'; exception empty when there is none */
};

static bool wrong(struct scan *s, const char *why)
{
    if (s->why && s->why->n == 0 && !*s->all)
        buf_str(s->why, "an SPDX expression is empty");
    else if (s->why && s->why->n == 0)
        buf_printf(s->why, "%s in '%.100s'", why, s->all);
    return false;
}

/* ---- words ------------------------------------------------------------------------------------- */

/* The next word without moving; empty at the end or at a parenthesis. */
static struct str peek(struct scan *s)
{
    s->p += strspn(s->p, " ");
    return (struct str){s->p, strcspn(s->p, " ()")};
}

static bool next_is(struct scan *s, const char *word)
{
    return str_eq(peek(s), str_of(word));
}

static bool idstring(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!((p[i] >= 'a' && p[i] <= 'z') || (p[i] >= 'A' && p[i] <= 'Z') ||
              (p[i] >= '0' && p[i] <= '9') || p[i] == '-' || p[i] == '.'))
            return false;
    return n > 0;
}

static bool same(struct str a, const char *b)
{
    return strlen(b) == a.n && strncasecmp(a.p, b, a.n) == 0;
}

static bool begins(struct str s, const char *prefix)
{
    return s.n > strlen(prefix) && strncmp(s.p, prefix, strlen(prefix)) == 0;
}

static int by_name(const void *key, const void *item)
{
    return strcasecmp(key, *(const char *const *)item);
}

/* Is it on the list?  If not, why says so, with the nearest that is. */
static bool on_list(struct scan *s, struct str id, const char *const *list, size_t count,
                    const char *what)
{
    char text[ID_MAX + 1];
    const char *near;

    memcpy(text, id.p, id.n);
    text[id.n] = '\0';
    if (bsearch(text, list, count, sizeof(*list), by_name))
        return true;
    if (!s->why || s->why->n > 0)
        return false;
    near = str_nearest(text, list, count);
    buf_printf(s->why, "%s is no SPDX %s; ", text, what);
    if (near)
        buf_printf(s->why, "did you mean %s?", near);
    else
        buf_printf(s->why, "what is not on the SPDX list is written LicenseRef-%s", text);
    return false;
}

static bool take_id(struct scan *s, struct str *out)
{
    struct str w = peek(s);
    const char *colon = memchr(w.p, ':', w.n);

    if (w.n == 0)
        return wrong(s, *s->p ? "a licence is missing before a parenthesis"
                              : "a licence is missing at the end");
    if (w.n > ID_MAX)
        return wrong(s, "a licence id is longer than 128 characters");
    if (next_is(s, "AND") || next_is(s, "OR") || next_is(s, "WITH"))
        return wrong(s, "a licence is missing next to AND, OR or WITH");
    s->p += w.n;
    *out = w;
    if (colon) {
        const struct str ref = {colon + 1, (size_t)(w.p + w.n - colon - 1)};

        if (begins((struct str){w.p, (size_t)(colon - w.p)}, "DocumentRef-") &&
            idstring(w.p, (size_t)(colon - w.p)) && begins(ref, "LicenseRef-") &&
            idstring(ref.p, ref.n))
            return true;
        return wrong(s, "':' stands only in DocumentRef-X:LicenseRef-Y");
    }
    if (begins(w, "LicenseRef-") && idstring(w.p, w.n))
        return true;
    if (w.p[w.n - 1] == '+')
        out->n = --w.n;
    if (!idstring(w.p, w.n))
        return wrong(s, "licence ids consist of letters, digits, '-' and '.'");
    return same(w, "NOASSERTION") || same(w, "NONE") || on_list(s, w, ids, COUNT(ids), "licence");
}

static bool take_licence(struct scan *s, struct licence *out)
{
    *out = (struct licence){0};
    if (!take_id(s, &out->id))
        return false;
    if (!next_is(s, "WITH"))
        return true;
    s->p += 4;
    out->exception = peek(s);
    if (out->exception.n == 0 || out->exception.n > ID_MAX ||
        !idstring(out->exception.p, out->exception.n))
        return wrong(s, "an exception is missing after WITH");
    s->p += out->exception.n;
    return begins(out->exception, "LicenseRef-") || begins(out->exception, "AdditionRef-") ||
           on_list(s, out->exception, exceptions, COUNT(exceptions), "exception");
}

/* ---- policies ---------------------------------------------------------------------------------- */

static bool listed(const struct licence *x, const char *const *list)
{
    for (size_t i = 0; list[i]; i++) {
        struct scan s = {.p = list[i], .all = list[i]};
        struct licence entry;

        if (take_licence(&s, &entry) && entry.id.n == x->id.n &&
            strncasecmp(entry.id.p, x->id.p, x->id.n) == 0 &&
            (entry.exception.n == 0 ||
             (entry.exception.n == x->exception.n &&
              strncasecmp(entry.exception.p, x->exception.p, x->exception.n) == 0)))
            return true;
    }
    return false;
}

static void stood_in_the_way(struct scan *s, const char *from, const char *how)
{
    size_t n = (size_t)(s->p - from);

    while (n > 0 && from[n - 1] == ' ')
        n--;
    if (s->why)
        buf_printf(s->why, "%s%.*s %s", s->why->n ? ", " : "", (int)n, from, how);
}

static bool passes(struct scan *s, const struct licence *x, const char *from)
{
    if (!s->deny)
        return true;
    if (listed(x, s->deny)) {
        stood_in_the_way(s, from, "is denied");
        return false;
    }
    if (s->allow_only[0] && !listed(x, s->allow_only)) {
        stood_in_the_way(s, from, "is not in allow_only");
        return false;
    }
    return true;
}

/* ---- the grammar: each returns whether it parses, and *pass what the policy says ------------------ */

static bool expression(struct scan *s, bool *pass);

static bool unit(struct scan *s, bool *pass)
{
    struct licence x;
    const char *from;

    *pass = false;
    (void)peek(s);
    from = s->p;
    if (*s->p != '(') {
        if (!take_licence(s, &x))
            return false;
        *pass = passes(s, &x, from);
        return true;
    }
    if (++s->depth > DEPTH_MAX)
        return wrong(s, "parentheses are nested too deep");
    s->p++;
    if (!expression(s, pass))
        return false;
    (void)peek(s);
    if (*s->p != ')')
        return wrong(s, *s->p ? "AND or OR is missing between two licences" : "a ')' is missing");
    s->p++;
    s->depth--;
    return true;
}

static bool conjunction(struct scan *s, bool *pass)
{
    bool more = false;

    if (!unit(s, pass))
        return false;
    while (next_is(s, "AND")) {
        s->p += 3;
        if (!unit(s, &more))
            return false;
        *pass = *pass && more;
    }
    return true;
}

static bool expression(struct scan *s, bool *pass)
{
    bool more = false;

    if (!conjunction(s, pass))
        return false;
    while (next_is(s, "OR")) {
        s->p += 2;
        if (!conjunction(s, &more))
            return false;
        *pass = *pass || more;
    }
    return true;
}

/* and, or and with are operators in capitals only. */
static bool is_small_operator(struct str w)
{
    return same(w, "and") || same(w, "or") || same(w, "with");
}

static bool whole(struct scan *s, bool *pass)
{
    struct str w;

    if (strlen(s->p) > LICENCE_BYTES_MAX)
        return wrong(s, "longer than 4096 characters");
    if (!expression(s, pass))
        return false;
    w = peek(s);
    if (*s->p == '\0')
        return true;
    if (is_small_operator(w))
        return wrong(s, "AND, OR and WITH must be capitals");
    return wrong(s, *s->p == ')' ? "a ')' has no '('"
                                 : "AND, OR or WITH is missing between two licences");
}

bool licence_expression_ok(const char *spdx, struct buf *why)
{
    struct scan s = {.p = spdx, .all = spdx, .why = why};
    bool pass;

    CHECK(spdx);
    return whole(&s, &pass);
}

bool licence_is_single(const char *spdx, struct buf *why)
{
    struct scan s = {.p = spdx, .all = spdx, .why = why};
    struct licence x;

    CHECK(spdx);
    if (!take_licence(&s, &x))
        return false;
    (void)peek(&s);
    return *s.p == '\0' || wrong(&s, "one licence an entry, no AND, OR and parentheses as");
}

bool licence_passes(const char *spdx, const char *const *deny, const char *const *allow_only,
                    struct buf *why)
{
    struct scan s = {.p = spdx, .all = spdx, .deny = deny, .allow_only = allow_only};
    struct buf reasons;
    bool pass = false;

    CHECK(deny);
    CHECK(allow_only);
    if (!licence_expression_ok(spdx, why))
        return false;
    buf_init(&reasons, 1 << 16);
    s.why = &reasons;
    CHECK(whole(&s, &pass)); /* it has just parsed */
    if (why && !pass)
        buf_str(why, reasons.p ? reasons.p : "");
    buf_release(&reasons);
    return pass;
}
