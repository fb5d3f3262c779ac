/* Values against the table.  One rule for the card, the command line and the table's own defaults. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "stages/runtime/stage_internal.h"

#define INT_MAX_EXACT ((int64_t)1 << 53) /* canonical JSON has no integers beyond */

static const char *const type_words[] = {"int", "float", "bool", "string"};

static const char *article(enum stage_type type)
{
    return type == STAGE_INT ? "an" : "a";
}

static enum err_code parse_float(const char *text, json_t **out, struct err *err)
{
    char *end = NULL;
    double v;

    errno = 0;
    v = strtod(text, &end);
    if (!*text || *end || !isfinite(v) || strpbrk(text, "xX \t\n"))
        return err_set(err, ERR_USAGE, "'%.100s' is not a finite number", text);
    *out = json_real(v);
    return OK;
}

enum err_code stage_value_parse(enum stage_type type, const char *text, json_t **out,
                                struct err *err)
{
    int64_t i;

    *out = NULL;
    switch (type) {
    case STAGE_INT:
        if (str_to_i64(str_of(text), -INT_MAX_EXACT, INT_MAX_EXACT, &i, err))
            return err_set(err, ERR_USAGE, "'%.100s' is not a whole number within 2^53", text);
        *out = json_integer(i);
        break;
    case STAGE_FLOAT:
        return parse_float(text, out, err);
    case STAGE_BOOL:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
            return err_set(err, ERR_USAGE, "'%.100s' is neither true nor false", text);
        *out = json_boolean(text[0] == 't');
        break;
    case STAGE_STRING:
        *out = json_string(text);
        if (!*out)
            return err_set(err, ERR_USAGE, "the text is not valid UTF-8");
        break;
    }
    CHECK(*out);
    return OK;
}

static bool has_type(enum stage_type t, const json_t *v)
{
    switch (t) {
    case STAGE_INT: /* 1.0 and 1 are one number (RFC 8785) */
        return json_is_number(v) && rint(json_number_value(v)) == json_number_value(v) &&
               fabs(json_number_value(v)) <= (double)INT_MAX_EXACT;
    case STAGE_FLOAT:
        return json_is_number(v);
    case STAGE_BOOL:
        return json_is_boolean(v);
    case STAGE_STRING:
        return json_is_string(v);
    }
    return false;
}

/* Is word one of "a|b|c"? */
static bool among(const char *choices, const char *word)
{
    const size_t n = strlen(word);

    for (const char *c = choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL)
        if (strcspn(c, "|") == n && strncmp(c, word, n) == 0)
            return true;
    return false;
}

static enum err_code check_range(const struct stage_param *p, double v, struct err *err)
{
    /* The table's own bounds are numbers: stage_describe_text checks them, and a test runs it for every program. */
    if (p->min && v < strtod(p->min, NULL))
        return err_set(err, ERR_USAGE, "parameter %s: %.17g is too small; it is at least %s",
                       p->name, v, p->min);
    if (p->max && v > strtod(p->max, NULL))
        return err_set(err, ERR_USAGE, "parameter %s: %.17g is too large; it is at most %s",
                       p->name, v, p->max);
    return OK;
}

static enum err_code check_value(const struct stage_param *p, json_t *params, struct err *err)
{
    json_t *v = json_object_get(params, p->name);
    enum err_code rc;

    if (!v) {
        if (!p->standard)
            return err_set(err, ERR_USAGE, "parameter %s must be given: %s", p->name, p->help);
        rc = stage_value_parse(p->type, p->standard, &v, err);
        if (!rc)
            CHECK(json_object_set_new(params, p->name, v) == 0);
        return rc;
    }
    if (!has_type(p->type, v))
        return err_set(err, ERR_USAGE, "parameter %s is to be %s %s: %s", p->name, article(p->type),
                       type_words[p->type], p->help);
    if (p->type == STAGE_INT && json_is_real(v)) {
        v = json_integer((int64_t)json_real_value(v));
        CHECK(json_object_set_new(params, p->name, v) == 0); /* the old value is gone */
    }
    if (p->choices && !among(p->choices, json_string_value(v)))
        return err_set(err, ERR_USAGE, "parameter %s: '%.100s' is no choice; it may be %s", p->name,
                       json_string_value(v), p->choices);
    return json_is_number(v) ? check_range(p, json_number_value(v), err) : OK;
}

static enum err_code check_known(const struct stage_program *p, const char *name, struct err *err)
{
    const char *names[256], *near;
    size_t n = 0;

    for (const struct stage_param *q = p->params; q && q->name && n < 256; q++) {
        if (strcmp(q->name, name) == 0)
            return OK;
        names[n++] = q->name;
    }
    near = str_nearest(name, names, n);
    return err_set(err, ERR_USAGE, "%s has no parameter '%.100s'%s%s%s; --help lists them", p->name,
                   name, near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

enum err_code stage_params_complete(const struct stage_program *p, json_t *params, struct err *err)
{
    const char *name;
    json_t *v;
    enum err_code rc = OK;

    json_object_foreach(params, name, v)
    {
        rc = check_known(p, name, err);
        if (rc)
            return rc;
    }
    for (const struct stage_param *q = p->params; !rc && q && q->name; q++)
        rc = check_value(q, params, err);
    return rc;
}

/* ---- inputs and outputs --------------------------------------------------------------------------- */

static const struct stage_port *find_port(const struct stage_port *ports, const char *name)
{
    for (const struct stage_port *q = ports; q && q->name; q++)
        if (strcmp(q->name, name) == 0)
            return q;
    return NULL;
}

static enum err_code unknown_port(const struct stage_program *p, const char *kind,
                                  const struct stage_port *ports, const char *name, struct err *err)
{
    const char *names[64], *near;
    size_t n = 0;

    for (const struct stage_port *q = ports; q && q->name && n < 64; q++)
        names[n++] = q->name;
    near = str_nearest(name, names, n);
    return err_set(err, ERR_USAGE, "%s has no %s '%.100s'%s%s%s; --help lists them", p->name, kind,
                   name, near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

enum err_code stage_ports_check(const struct stage_task *t, struct err *err)
{
    const struct stage_program *p = t->program;

    for (size_t i = 0; i < t->input_count; i++)
        if (!find_port(p->inputs, t->inputs[i].name))
            return unknown_port(p, "input", p->inputs, t->inputs[i].name, err);
    for (size_t i = 0; i < t->output_count; i++)
        if (!find_port(p->outputs, t->outputs[i].name))
            return unknown_port(p, "output", p->outputs, t->outputs[i].name, err);
    for (const struct stage_port *q = p->inputs; q && q->name; q++)
        if (!q->optional && !stage_input(t, q->name))
            return err_set(err, ERR_USAGE, "input %s is missing (--in %s=PATH): %s", q->name,
                           q->name, q->help);
    for (const struct stage_port *q = p->outputs; q && q->name; q++)
        if (!q->optional && !stage_output(t, q->name))
            return err_set(err, ERR_USAGE, "output %s is missing (--out %s=PATH): %s", q->name,
                           q->name, q->help);
    return OK;
}
