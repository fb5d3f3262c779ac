/* The table, told to people (--help) and to the planner (--describe). */
#include <stdlib.h>
#include <string.h>

#include "stages/runtime/stage_internal.h"

#define DESCRIBE_MAX (1 << 20) /* weir reads no more */

static const char *const type_words[] = {"int", "float", "bool", "string"};

static void help_ports(struct buf *out, const char *title, const struct stage_port *ports)
{
    if (!ports || !ports->name)
        return;
    buf_printf(out, "\n%s:\n", title);
    for (const struct stage_port *q = ports; q->name; q++)
        buf_printf(out, "  %-18s %s%s\n", q->name, q->help, q->optional ? " (optional)" : "");
}

static void help_params(struct buf *out, const struct stage_param *params)
{
    if (!params || !params->name)
        return;
    buf_str(out, "\nparameters (--set NAME=VALUE):\n");
    for (const struct stage_param *q = params; q->name; q++) {
        buf_printf(out, "  %-18s %s", q->name, type_words[q->type]);
        if (q->choices)
            buf_printf(out, ", one of %s", q->choices);
        if (q->min || q->max)
            buf_printf(out, ", %s to %s", q->min ? q->min : "any", q->max ? q->max : "any");
        if (!q->standard)
            buf_str(out, ", must be given");
        else
            buf_printf(out, ", default %s", *q->standard ? q->standard : "(empty)");
        if (q->extends)
            buf_str(out, ", extends: raising it goes on from old checkpoints");
        buf_printf(out, "\n%21s%s\n", "", q->help);
    }
}

void stage_help_text(const struct stage_program *p, struct buf *out)
{
    buf_printf(out, "%s - %s\n\nusage: %s", p->name, p->help, p->name);
    for (const struct stage_port *q = p->inputs; q && q->name; q++)
        buf_printf(out, q->optional ? " [--in %s=PATH]" : " --in %s=PATH", q->name);
    for (const struct stage_port *q = p->outputs; q && q->name; q++)
        buf_printf(out, q->optional ? " [--out %s=PATH]" : " --out %s=PATH", q->name);
    buf_str(out,
            " [--set NAME=VALUE ..] [--resume DIR]\n       [--checkpoints DIR] [--events FILE] "
            "[--threads N] [--device cpu|cuda]\n       --help | --describe\n");
    help_ports(out, "inputs", p->inputs);
    help_ports(out, "outputs", p->outputs);
    help_params(out, p->params);
    buf_str(out, "\nWith WEIR_TASK set, the task card is read instead of a command line.\n");
}

/* ---- --describe ----------------------------------------------------------------------------------- */

static void put(json_t *o, const char *key, json_t *v)
{
    CHECK(v);
    CHECK(json_object_set_new(o, key, v) == 0);
}

static enum err_code put_value(json_t *o, const char *key, enum stage_type type, const char *text,
                               struct err *err)
{
    json_t *v;
    enum err_code rc;

    if (!text)
        return OK;
    rc = stage_value_parse(type, text, &v, err);
    if (!rc)
        put(o, key, v);
    return rc;
}

static json_t *choice_list(const char *choices)
{
    json_t *list = json_array();

    for (const char *c = choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL)
        CHECK(json_array_append_new(list, json_stringn(c, strcspn(c, "|"))) == 0);
    return list;
}

static enum err_code describe_param(const struct stage_param *q, json_t *params, struct err *err)
{
    json_t *o = json_object();
    enum err_code rc;

    put(params, q->name, o);
    put(o, "type", json_string(type_words[q->type]));
    put(o, "help", json_string(q->help));
    if (q->extends)
        put(o, "extends", json_true());
    if (q->choices)
        put(o, "choices", choice_list(q->choices));
    rc = put_value(o, "default", q->type, q->standard, err);
    if (!rc)
        rc = put_value(o, "min", q->type, q->min, err);
    if (!rc)
        rc = put_value(o, "max", q->type, q->max, err);
    return rc ? err_prefix(err, "table of parameters, %s", q->name) : OK;
}

static json_t *describe_ports(const struct stage_port *ports)
{
    json_t *o = json_object();

    for (const struct stage_port *q = ports; q && q->name; q++)
        put(o, q->name, json_pack("{s:b,s:s}", "optional", q->optional, "help", q->help));
    return o;
}

enum err_code stage_describe_text(const struct stage_program *p, struct buf *out, struct err *err)
{
    json_t *root = json_object(), *params = json_object(), *libraries = json_object();
    enum err_code rc = OK;

    put(root, "contract", json_integer(1));
    put(root, "help", json_string(p->help));
    put(root, "numeric", json_boolean(p->numeric));
    put(root, "inputs", describe_ports(p->inputs));
    put(root, "outputs", describe_ports(p->outputs));
    put(root, "params", params);
    put(root, "libraries", libraries);
    for (const struct stage_library *l = p->libraries; l && l->name; l++)
        put(libraries, l->name, json_string(l->version()));
    for (const struct stage_param *q = p->params; !rc && q && q->name; q++)
        rc = describe_param(q, params, err);
    if (!rc)
        rc = json_canonical(root, out, err);
    buf_char(out, '\n');
    if (!rc && out->n > DESCRIBE_MAX)
        rc = err_set(err, ERR_LIMIT, "the description has %zu bytes, more than %d", out->n,
                     DESCRIBE_MAX);
    json_decref(root);
    return rc ? rc : buf_check(out, "description", err);
}
