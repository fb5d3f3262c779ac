/* Licences of single files, a line each. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "orchestrator/licence.h"
#include "orchestrator/source_internal.h"

#define LINE_BYTES_MAX (64 << 10)
#define LINES_MAX 4000000

/* Relative and normal, so that one file has one name. */
static bool path_ok(const char *p)
{
    if (!*p || *p == '/')
        return false;
    for (;;) {
        const size_t n = strcspn(p, "/");

        if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        if (!p[n])
            return true;
        p += n + 1;
    }
}

static enum err_code member(const json_t *o, const char *key, bool wanted, const char **out,
                            struct err *err)
{
    const json_t *v = json_object_get(o, key);

    *out = json_string_value(v);
    if (*out && **out)
        return OK;
    if (!v && !wanted)
        return OK;
    return err_set(err, ERR_INPUT, v ? "\"%s\" is to be a text that is not empty" : "no \"%s\"",
                   key);
}

static enum err_code take_row(const json_t *o, struct record_row *row, struct err *err)
{
    static const char *const keys[] = {"path", "license", "attribution", "url"};
    struct buf why;
    const char *key;
    json_t *v;
    enum err_code rc;

    if (!json_is_object(o))
        return err_set(err, ERR_INPUT, "a line is an object: {\"path\":..,\"license\":..}");
    json_object_foreach((json_t *)(uintptr_t)o, key, v)
    {
        const char *near;
        bool known = false;

        for (size_t i = 0; i < 4; i++)
            known = known || strcmp(key, keys[i]) == 0;
        if (known)
            continue;
        near = str_nearest(key, keys, 4);
        return err_set(err, ERR_INPUT, "unknown member \"%.60s\"%s%s%s", key,
                       near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    }
    rc = member(o, "path", true, &row->path, err);
    if (!rc)
        rc = member(o, "license", true, &row->license, err);
    if (!rc)
        rc = member(o, "attribution", false, &row->attribution, err);
    if (!rc)
        rc = member(o, "url", false, &row->url, err);
    if (!rc && !path_ok(row->path))
        rc = err_set(err, ERR_INPUT,
                     "'%.200s' is no path below the source: no / in front, no . and no ..",
                     row->path);
    buf_init(&why, ERR_TEXT_MAX);
    if (!rc && !licence_expression_ok(row->license, &why))
        rc = err_set(err, ERR_INPUT, "license: %s", why.p);
    buf_release(&why);
    return rc;
}

struct seen { /* paths so far: open addressing over their digests' first bytes */
    struct slot {
        uint64_t tag;
        int line;
    } * slots;
    size_t cap, count;
};

static uint64_t tag_of(const char *path)
{
    struct digest d;
    uint64_t tag;

    sha256_of(path, strlen(path), &d);
    memcpy(&tag, d.b, sizeof(tag));
    return tag;
}

static void seen_grow(struct seen *s)
{
    struct seen next = {.cap = s->cap ? s->cap * 2 : 1024};

    next.slots = mem_zero(next.cap, sizeof(*next.slots));
    for (size_t i = 0; i < s->cap; i++) {
        size_t at = s->slots[i].tag & (next.cap - 1);

        if (!s->slots[i].line)
            continue;
        while (next.slots[at].line)
            at = (at + 1) & (next.cap - 1);
        next.slots[at] = s->slots[i];
        next.count++;
    }
    free(s->slots);
    *s = next;
}

/* 64 bits of SHA-256: two different paths of one file meet by accident less than once in a million files of millions of lines. */
static int seen_before(struct seen *s, const char *path, int line)
{
    const uint64_t tag = tag_of(path);
    size_t at;

    if (s->count * 2 >= s->cap)
        seen_grow(s);
    at = tag & (s->cap - 1);
    for (; s->slots[at].line; at = (at + 1) & (s->cap - 1))
        if (s->slots[at].tag == tag)
            return s->slots[at].line;
    s->slots[at] = (struct slot){tag, line};
    s->count++;
    return 0;
}

static enum err_code one_line(const char *p, size_t n, struct record_row *row, struct seen *seen,
                              record_fn fn, void *arg, const char *file, struct err *err)
{
    json_t *v = NULL;
    int before;
    enum err_code rc = json_parse(p, n, LINE_BYTES_MAX, "record", &v, err);

    if (!rc)
        rc = take_row(v, row, err);
    if (!rc) {
        before = seen_before(seen, row->path, row->line);
        if (before)
            rc = err_set(err, ERR_INPUT, "'%.200s' has a licence already, in line %d", row->path,
                         before);
    }
    if (rc)
        (void)err_prefix(err, "%s:%d", file, row->line);
    else if (fn)
        rc = fn(arg, row, err);
    json_decref(v);
    return rc;
}

enum err_code records_parse(const char *p, size_t n, const char *file, record_fn fn, void *arg,
                            struct err *err)
{
    struct record_row row = {0};
    struct seen seen = {0};
    const char *end = p + n;
    enum err_code rc = OK;

    while (!rc && p < end) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        const size_t line = (size_t)((newline ? newline : end) - p);

        row = (struct record_row){.line = row.line + 1};
        if (row.line > LINES_MAX)
            rc = err_set(err, ERR_LIMIT, "%s: more than %d lines", file, LINES_MAX);
        else if (strspn(p, " \t\r") < line) /* empty lines are fine */
            rc = one_line(p, line, &row, &seen, fn, arg, file, err);
        p += line + (newline != NULL);
    }
    free(seen.slots);
    return rc;
}
