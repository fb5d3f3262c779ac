/* Policies over many licences. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/licence.h"

#define PARTS_MAX 1000000
#define WHY_MAX (1 << 16)

bool licence_judge(const struct licence_policy *p, const char *what, const char *spdx,
                   struct buf *lines)
{
    struct buf why;
    bool pass;

    CHECK(p);
    CHECK(what);
    CHECK(spdx);
    buf_init(&why, WHY_MAX);
    pass = licence_passes(spdx, p->deny, p->allow_only, &why);
    if (!pass && lines)
        buf_printf(lines, "%s: %s\n", what, why.p ? why.p : spdx);
    buf_release(&why);
    return pass;
}

static int by_expression(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum err_code take_expressions(const json_t *list, const char *what, const char **out,
                                      struct err *err)
{
    struct buf why;
    enum err_code rc = OK;

    buf_init(&why, ERR_TEXT_MAX);
    for (size_t i = 0; !rc && i < json_array_size(list); i++) {
        const json_t *part = json_array_get(list, i);

        out[i] = json_string_value(json_object_get(part, "expression"));
        if (!out[i])
            rc = err_set(err, ERR_INPUT, "%s: entry %zu has no \"expression\"", what, i + 1);
        else if (!licence_expression_ok(out[i], &why))
            rc = err_set(err, ERR_INPUT, "%s: entry %zu: %s", what, i + 1, why.p);
    }
    buf_release(&why);
    return rc;
}

/* Who else has this expression is worth a word: the first source that the list names with it. */
static const char *source_of(const json_t *list, const char *expression)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *part = json_array_get(list, i);
        const char *e = json_string_value(json_object_get(part, "expression"));
        const char *source = json_string_value(json_object_get(part, "source"));

        if (e && source && strcmp(e, expression) == 0)
            return source;
    }
    return NULL;
}

enum err_code licence_judge_parts(const struct licence_policy *p, const json_t *parts,
                                  const char *what, struct buf *lines, struct err *err)
{
    const json_t *list = json_is_object(parts) ? json_object_get(parts, "licenses") : parts;
    const char **expressions;
    struct buf all;
    size_t n;
    enum err_code rc;

    CHECK(p);
    CHECK(what);
    if (!json_is_array(list))
        return err_set(err, ERR_INPUT, "%s is no list of {\"expression\":..}", what);
    n = json_array_size(list);
    if (n > PARTS_MAX)
        return err_set(err, ERR_LIMIT, "%s has more than %d entries", what, PARTS_MAX);
    expressions = mem_alloc((n + 1) * sizeof(*expressions));
    buf_init(&all, 1 << 20);
    rc = take_expressions(list, what, expressions, err);
    if (!rc && n > 1)
        qsort((void *)expressions, n, sizeof(*expressions), by_expression);
    for (size_t i = 0; !rc && i < n; i++) {
        char name[300];
        const char *source;

        if (i && strcmp(expressions[i - 1], expressions[i]) == 0)
            continue;
        source = source_of(list, expressions[i]);
        (void)snprintf(name, sizeof(name), "%.150s%s%.100s", what, source ? ", source " : "",
                       source ? source : "");
        (void)licence_judge(p, name, expressions[i], &all);
    }
    if (!rc && all.n) {
        rc = err_set(err, ERR_DENIED, "%.*s", (int)strcspn(all.p, "\n"), all.p);
        if (lines)
            buf_add(lines, all.p, all.n);
    }
    free((void *)expressions);
    buf_release(&all);
    return rc;
}
