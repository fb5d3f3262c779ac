/* Which licences came in with the sources, and what the pipeline's policy says to them.
 *
 * A records file may have as many lines as there are pictures, and a plan is made again and again: so what licences are in it is counted
 * once and kept as the result of an action. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/licence.h"
#include "orchestrator/source_internal.h"
#include "store/action.h"
#include "store/reader.h"

#define SUM_BYTES_MAX (16 << 20)

/* ---- counting ------------------------------------------------------------------------------------- */

static enum err_code count_row(void *arg, const struct record_row *row, struct err *err)
{
    json_t *counts = arg;
    const json_int_t n = json_integer_value(json_object_get(counts, row->license));

    if (json_object_set_new(counts, row->license, json_integer(n + 1)))
        return err_set(err, ERR_LIMIT, "out of memory for licences");
    return OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

enum err_code records_sum(const char *p, size_t n, const char *file, json_t **out, struct err *err)
{
    json_t *counts = json_object(), *list = json_array(), *v;
    const char **names, *key;
    size_t count = 0;
    enum err_code rc;

    CHECK(counts);
    CHECK(list);
    rc = records_parse(p, n, file, count_row, counts, err);
    names = mem_alloc((json_object_size(counts) + 1) * sizeof(*names));
    json_object_foreach(counts, key, v)
    {
        names[count++] = key;
    }
    if (count > 1)
        qsort((void *)names, count, sizeof(*names), by_text);
    for (size_t i = 0; !rc && i < count; i++)
        if (json_array_append_new(list, json_pack("{s:s,s:O}", "expression", names[i], "pictures",
                                                  json_object_get(counts, names[i]))))
            rc = err_set(err, ERR_LIMIT, "out of memory for licences");
    free((void *)names);
    json_decref(counts);
    if (rc)
        json_decref(list);
    *out = rc ? NULL : list;
    return rc;
}

static enum err_code count_anew(struct store *st, const struct digest *records, const char *path,
                                json_t **out, struct err *err)
{
    struct buf text;
    enum err_code rc;

    buf_init(&text, RECORDS_BYTES_MAX);
    rc = object_read(st, records, RECORDS_BYTES_MAX, &text, err);
    if (!rc)
        rc = records_sum(text.p ? text.p : "", text.n, path, out, err);
    buf_release(&text);
    return rc;
}

static enum err_code keep_sum(struct enter *e, const json_t *action, const json_t *sum,
                              struct err *err)
{
    struct digest key, result;
    struct buf text;
    enum err_code rc;

    buf_init(&text, SUM_BYTES_MAX);
    rc = json_canonical(sum, &text, err);
    if (!rc)
        rc = buf_check(&text, "sum of licences", err);
    if (!rc)
        rc = writer_put(e->w, OBJ_BLOB, text.p, text.n, &result, err);
    if (!rc)
        rc = action_put(e->w, action, &result, &key, err);
    buf_release(&text);
    return rc;
}

enum err_code source_records_sum(struct store *st, struct enter *e, const struct digest *records,
                                 const char *path, json_t **out, struct err *err)
{
    char hex[DIGEST_TEXT + 1];
    struct digest key, result;
    struct buf text;
    json_t *action;
    enum err_code rc;

    *out = NULL;
    digest_text(records, hex);
    action = json_pack("{s:s,s:s}", "weir", "licences/1", "records", hex);
    buf_init(&text, SUM_BYTES_MAX);
    rc = action_key(action, &key, &text, err);
    if (!rc)
        rc = action_lookup(st, &key, &result, err);
    buf_clear(&text);
    if (!rc)
        rc = object_read(st, &result, SUM_BYTES_MAX, &text, err);
    if (!rc) {
        rc = json_parse(text.p, text.n, SUM_BYTES_MAX, "sum of licences", out, err);
    } else if (rc == ERR_NOT_FOUND) {
        *err = (struct err)ERR_INIT;
        rc = count_anew(st, records, path, out, err);
        if (!rc && e)
            rc = keep_sum(e, action, *out, err);
    }
    json_decref(action);
    buf_release(&text);
    return rc;
}

/* ---- the policy ----------------------------------------------------------------------------------- */

static enum err_code judge(struct sources *s, size_t number, const struct licence_policy *p,
                           struct buf *lines, struct err *err)
{
    const struct source *source = &s->p->sources[number];
    const struct entered *e = &s->list[number];
    json_t *sum = NULL;
    char what[600];
    enum err_code rc;

    (void)snprintf(what, sizeof(what), "%.300s:%d:%d: source %.200s",
                   source->license_pos.file ? source->license_pos.file : "-",
                   source->license_pos.line, source->license_pos.column, source->name);
    if (source->license)
        (void)licence_judge(p, what, source->license, lines);
    if (!e->done || digest_is_zero(&e->records))
        return OK;
    rc = source_records_sum(s->st, NULL, &e->records, source->records, &sum, err);
    if (!rc) {
        struct err denied = ERR_INIT; /* it is one of the lines */

        (void)snprintf(what, sizeof(what), "%.300s:%d:%d: source %.100s, records %.100s",
                       source->pos.file ? source->pos.file : "-", source->pos.line,
                       source->pos.column, source->name, source->records);
        rc = licence_judge_parts(p, sum, what, lines, &denied);
        if (rc == ERR_DENIED)
            rc = OK;
        else if (rc)
            *err = denied;
    }
    json_decref(sum);
    return rc;
}

enum err_code sources_policy(struct sources *s, const bool *wanted, struct buf *lines,
                             struct err *err)
{
    const struct licence_policy p = {s->p->policy.deny, s->p->policy.allow_only};
    struct buf all;
    enum err_code rc = OK;

    CHECK(s);
    if (!p.deny[0] && !p.allow_only[0])
        return OK;
    buf_init(&all, 1 << 20);
    for (size_t i = 0; !rc && i < s->p->source_count; i++)
        if (!wanted || wanted[i])
            rc = judge(s, i, &p, &all, err);
    if (!rc && all.n) {
        rc = err_set(err, ERR_DENIED, "%.*s", (int)strcspn(all.p, "\n"), all.p);
        if (lines)
            buf_add(lines, all.p, all.n);
    }
    buf_release(&all);
    return rc;
}
