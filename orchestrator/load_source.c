/* Where things come from, and which licences may. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/licence.h"
#include "orchestrator/pipeline_internal.h"

/* ---- sources ----------------------------------------------------------------------------------- */

static bool hex64(const char *s)
{
    return strlen(s) == 64 && s[strspn(s, "0123456789abcdef")] == '\0';
}

/* Debian policy 5.6.1; it also keeps what apt-get would take for an option out. */
static bool deb_ok(const char *s)
{
    return strlen(s) >= 2 && s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789+-.")] == '\0' &&
           strchr("+-.", s[0]) == NULL;
}

static bool url_ok(const char *s)
{
    static const char *const schemes[] = {"https://", "http://", "file://"};

    for (size_t i = 0; i < 3; i++)
        if (strncmp(s, schemes[i], strlen(schemes[i])) == 0 && s[strlen(schemes[i])])
            return s[strcspn(s, " \t\n\"<>\\^`{|}")] == '\0';
    return false;
}

static bool in_class(char c, const char *more)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (*more && c && strchr(more, c));
}

/* [a-z][a-z0-9-]* from *p on; *p moves behind it. */
static bool take_name(const char **p)
{
    if (**p < 'a' || **p > 'z')
        return false;
    while (in_class(**p, "-"))
        ++*p;
    return true;
}

/* [PIPELINE/]STAGE.OUTPUT@NAME, STAGE maybe with [k=v,...]; NAME may be run-N. */
static bool artifact_ok(const char *s)
{
    if (!take_name(&s))
        return false;
    if (*s == '/') {
        s++;
        if (!take_name(&s))
            return false;
    }
    if (*s == '[') {
        s += strcspn(s, "]");
        if (*s++ != ']')
            return false;
    }
    if (*s++ != '.' || !take_name(&s) || *s++ != '@' || !*s)
        return false;
    for (; *s; s++)
        if (!in_class(*s, "._-") && !(*s >= 'A' && *s <= 'Z'))
            return false;
    return true;
}

static void check_location(struct loader *l, const struct source *s, struct pos pos)
{
    switch (s->kind) {
    case SOURCE_PATH:
        if (!*s->location)
            problem_add(&l->problems, pos,
                        "path of source %s is empty; name a file, a folder or a glob", s->name);
        break;
    case SOURCE_DEB:
        if (!deb_ok(s->location))
            problem_add(&l->problems, pos,
                        "'%.100s' is no Debian package; write its name alone, the lock file pins "
                        "the version",
                        s->location);
        break;
    case SOURCE_URL:
        if (!url_ok(s->location))
            problem_add(&l->problems, pos,
                        "'%.100s' is no URL; write https://..., http://... or file:///...",
                        s->location);
        break;
    case SOURCE_ARTIFACT:
        if (!artifact_ok(s->location))
            problem_add(&l->problems, pos,
                        "'%.100s' is no artifact; write [PIPELINE/]STAGE.OUTPUT@NAME or ...@run-N",
                        s->location);
        break;
    }
}

static void decode_location(struct loader *l, struct source *s, const struct node *n)
{
    static const char *const kinds[] = {"path", "deb", "url", "artifact"};
    const struct node *first = NULL;

    for (int k = 0; k < 4; k++) {
        const struct node *v = node_get(n, kinds[k]);
        const char *location;

        if (!v)
            continue;
        if (first) {
            problem_add(&l->problems, v->pos,
                        "source %s comes from %s already; give one of path, deb, url and artifact",
                        s->name, kinds[s->kind]);
            continue;
        }
        first = v;
        s->kind = (enum source_kind)k;
        location = want_string(l, v, kinds[k]);
        if (location) {
            s->location = location;
            check_location(l, s, v->pos);
        }
    }
    if (!first)
        problem_add(&l->problems, s->pos,
                    "where does source %s come from? Give one of path, deb, url and artifact",
                    s->name);
}

static void decode_sha256(struct loader *l, struct source *s, const struct node *n)
{
    const struct node *sha = node_get(n, "sha256");
    const char *text;

    if (!sha) {
        if (s->kind == SOURCE_URL && node_get(n, "url"))
            problem_add(&l->problems, s->pos,
                        "source %s comes from a url and needs sha256, as sha256sum prints it",
                        s->name);
        return;
    }
    if (s->kind != SOURCE_URL) {
        problem_add(&l->problems, sha->pos, "sha256 goes with url only%s",
                    s->kind == SOURCE_DEB ? "; the lock file pins packages" : "");
        return;
    }
    text = want_string(l, sha, "sha256");
    if (text && !hex64(text))
        problem_add(&l->problems, sha->pos,
                    "sha256 is 64 lower-case hex digits, as sha256sum prints it");
    s->sha256 = text;
}

static void decode_license(struct loader *l, struct source *s, const struct node *n)
{
    const struct node *license = node_get(n, "license");
    struct buf why;

    if (!license) {
        if (s->kind != SOURCE_ARTIFACT)
            problem_add(&l->problems, s->pos,
                        "source %s has no license; give an SPDX expression such as CC-BY-4.0, or "
                        "NOASSERTION when it is not known",
                        s->name);
        return;
    }
    s->license_pos = license->pos;
    s->license = want_string(l, license, "license");
    buf_init(&why, ERR_TEXT_MAX);
    if (s->license && !licence_expression_ok(s->license, &why))
        problem_add(&l->problems, license->pos, "license: %s", why.p);
    buf_release(&why);
}

static void decode_source(struct loader *l, const struct node_member *m, struct source *s)
{
    static const char *const keys[] = {"path",    "deb",         "url",     "artifact", "sha256",
                                       "license", "attribution", "records", NULL};
    const struct node *n = m->value, *records;

    *s = (struct source){.name = arena_strdup(l->arena, m->key),
                         .location = "",
                         .pos = m->pos,
                         .license_pos = m->pos};
    check_name(l, s->name, NAME_THING, m->pos, "a source");
    if (!want_map(l, n, "source", s->name))
        return;
    n = check_keys(l, n, keys, "source", s->name);
    decode_location(l, s, n);
    decode_sha256(l, s, n);
    decode_license(l, s, n);
    s->attribution = want_string(l, node_get(n, "attribution"), "attribution");
    records = node_get(n, "records");
    s->records = want_string(l, records, "records");
    if (records && s->kind != SOURCE_PATH)
        problem_add(&l->problems, records->pos, "records goes with path only");
}

void decode_sources(struct loader *l)
{
    const struct node *n = node_get(l->root, "sources");
    const size_t count = want_map(l, n, "sources", "") ? n->count : 0;
    struct pipeline *p = l->p;

    p->sources = arena_array(l->arena, count + 1, sizeof(*p->sources));
    p->source_names = arena_alloc(l->arena, sizeof(*p->source_names));
    names_init(p->source_names, l->arena, count);
    for (size_t i = 0; i < count; i++) {
        decode_source(l, &n->members[i], &p->sources[i]);
        CHECK(names_add(p->source_names, p->sources[i].name)); /* keys of a map differ */
    }
    p->source_count = count;
}

/* ---- policy ------------------------------------------------------------------------------------ */

static const char **decode_licences(struct loader *l, const struct node *n, const char *what)
{
    const struct node **items;
    const char **list = want_strings(l, n, what, &items);
    struct buf why;

    buf_init(&why, ERR_TEXT_MAX);
    for (size_t i = 0; list[i]; i++) {
        buf_clear(&why);
        if (!licence_is_single(list[i], &why))
            problem_add(&l->problems, items[i]->pos, "%s: %s", what, why.p);
    }
    buf_release(&why);
    return list;
}

void decode_policy(struct loader *l)
{
    static const char *const keys[] = {"licenses", "require_clean_git", NULL};
    static const char *const licence_keys[] = {"deny", "allow_only", NULL};
    const struct node *n = node_get(l->root, "policy"), *licenses;
    struct policy *p = &l->p->policy;

    p->deny = p->allow_only = arena_array(l->arena, 1, sizeof(char *));
    if (!want_map(l, n, "policy", ""))
        return;
    n = check_keys(l, n, keys, "policy", "");
    p->pos = n->pos;
    p->require_clean_git =
        want_bool(l, node_get(n, "require_clean_git"), false, "require_clean_git");
    licenses = node_get(n, "licenses");
    if (!want_map(l, licenses, "licenses", ""))
        return;
    licenses = check_keys(l, licenses, licence_keys, "licenses", "of policy");
    p->deny = decode_licences(l, node_get(licenses, "deny"), "deny");
    p->allow_only = decode_licences(l, node_get(licenses, "allow_only"), "allow_only");
}
