/* What a program says about itself, checked member by member. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/program_internal.h"

enum param_type { PARAM_INT, PARAM_FLOAT, PARAM_BOOL, PARAM_STRING, PARAM_TYPE_COUNT };
static const char *const type_words[PARAM_TYPE_COUNT] = {"int", "float", "bool", "string"};

/* ---- values --------------------------------------------------------------------------------------- */

static enum param_type type_of(const char *word)
{
    int i = 0;

    while (i < PARAM_TYPE_COUNT && strcmp(word, type_words[i]) != 0)
        i++;
    return (enum param_type)i;
}

/* 1.0 and 1 are one number (RFC 8785). */
static bool has_type(enum param_type t, const json_t *v)
{
    switch (t) {
    case PARAM_INT:
        return json_is_integer(v) ||
               (json_is_real(v) && rint(json_real_value(v)) == json_real_value(v));
    case PARAM_FLOAT:
        return json_is_number(v);
    case PARAM_BOOL:
        return json_is_boolean(v);
    case PARAM_STRING:
        return json_is_string(v);
    case PARAM_TYPE_COUNT:
        break;
    }
    return false;
}

static bool same_value(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    return json_equal(a, b);
}

static void add_value(struct buf *out, const json_t *v)
{
    struct err ignored = ERR_INIT;

    if (json_canonical(v, out, &ignored))
        buf_str(out, "?");
}

static bool chosen(const struct program_param *p, const json_t *v, struct buf *why)
{
    const char *words[64], *near;
    size_t n = 0;

    for (size_t i = 0; i < json_array_size(p->choices); i++) {
        const json_t *c = json_array_get(p->choices, i);

        if (same_value(c, v))
            return true;
        if (json_is_string(c) && n < 64)
            words[n++] = json_string_value(c);
    }
    add_value(why, v);
    near = json_is_string(v) ? str_nearest(json_string_value(v), words, n) : NULL;
    if (near)
        buf_printf(why, " is no choice; did you mean %s?", near);
    else
        buf_str(why, " is no choice");
    buf_str(why, "; it may be ");
    for (size_t i = 0; i < json_array_size(p->choices) && i < 20; i++) {
        buf_str(why, i ? ", " : "");
        add_value(why, json_array_get(p->choices, i));
    }
    if (json_array_size(p->choices) > 20)
        buf_str(why, ", ...");
    return false;
}

bool param_accepts(const struct program_param *p, const json_t *v, struct buf *why)
{
    if (!has_type(type_of(p->type), v)) {
        add_value(why, v);
        buf_printf(why, " is no %s", p->type);
        return false;
    }
    if (p->choices && !chosen(p, v, why))
        return false;
    if (p->min && json_number_value(v) < json_number_value(p->min)) {
        add_value(why, v);
        buf_str(why, " is too small; it is at least ");
        add_value(why, p->min);
        return false;
    }
    if (p->max && json_number_value(v) > json_number_value(p->max)) {
        add_value(why, v);
        buf_str(why, " is too large; it is at most ");
        add_value(why, p->max);
        return false;
    }
    return true;
}

/* ---- members -------------------------------------------------------------------------------------- */

static enum err_code only_keys(const json_t *o, const char *const *keys, size_t n, const char *what,
                               struct err *err)
{
    const char *key, *near;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)o, key, v)
    {
        size_t i = 0;

        while (i < n && strcmp(keys[i], key) != 0)
            i++;
        if (i < n)
            continue;
        near = str_nearest(key, keys, n);
        return err_set(err, ERR_INPUT, "%s: unknown member \"%.60s\"%s%s%s", what, key,
                       near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    }
    return OK;
}

static bool name_ok(const char *s, char between)
{
    if (*s < 'a' || *s > 'z' || strlen(s) > 100)
        return false;
    for (; *s; s++)
        if (!((*s >= 'a' && *s <= 'z') || (*s >= '0' && *s <= '9') || *s == between))
            return false;
    return true;
}

/* The object at key, or NULL when there is none. */
static enum err_code optional_object(const json_t *o, const char *key, size_t max,
                                     const json_t **out, struct err *err)
{
    *out = json_object_get(o, key);
    if (*out && !json_is_object(*out))
        return err_set(err, ERR_INPUT, "\"%s\" is no object", key);
    if (json_object_size(*out) > max)
        return err_set(err, ERR_LIMIT, "\"%s\" has more than %zu members", key, max);
    return OK;
}

static enum err_code optional_bool(const json_t *o, const char *key, const char *what, bool *out,
                                   struct err *err)
{
    const json_t *v = json_object_get(o, key);

    *out = json_is_true(v);
    if (v && !json_is_boolean(v))
        return err_set(err, ERR_INPUT, "%s: \"%s\" is true or false", what, key);
    return OK;
}

static enum err_code optional_text(const json_t *o, const char *key, const char *what,
                                   const char **out, struct err *err)
{
    const json_t *v = json_object_get(o, key);

    *out = json_string_value(v);
    if (v && !*out)
        return err_set(err, ERR_INPUT, "%s: \"%s\" is no text", what, key);
    return OK;
}

static enum err_code take_ports(const json_t *root, const char *key, struct arena *a,
                                struct program_port **out, size_t *count, struct err *err)
{
    static const char *const keys[] = {"optional", "help"};
    const json_t *ports;
    const char *name, *help;
    json_t *v;
    enum err_code rc = optional_object(root, key, PROGRAM_PORTS_MAX, &ports, err);

    *count = 0;
    *out = arena_array(a, json_object_size(ports) + 1, sizeof(**out));
    if (rc || !ports)
        return rc;
    json_object_foreach((json_t *)(uintptr_t)ports, name, v)
    {
        const char *what = arena_printf(a, "%s %.100s", key, name);
        struct program_port *port = &(*out)[*count];

        port->name = name;
        if (!name_ok(name, '-'))
            rc = err_set(err, ERR_INPUT, "%s: names are [a-z][a-z0-9-]*", what);
        else if (!json_is_object(v))
            rc = err_set(err, ERR_INPUT, "%s is no object", what);
        if (!rc)
            rc = only_keys(v, keys, 2, what, err);
        if (!rc)
            rc = optional_bool(v, "optional", what, &port->optional, err);
        if (!rc)
            rc = optional_text(v, "help", what, &help, err);
        if (rc)
            return rc;
        ++*count;
    }
    return OK;
}

static enum err_code check_values(const struct program_param *p, const char *what, struct err *err)
{
    const enum param_type t = type_of(p->type);
    const bool number = t == PARAM_INT || t == PARAM_FLOAT;
    struct buf why;
    enum err_code rc = OK;

    if ((p->min || p->max) && !number)
        return err_set(err, ERR_INPUT, "%s: min and max go with int and float", what);
    if ((p->min && !has_type(t, p->min)) || (p->max && !has_type(t, p->max)))
        return err_set(err, ERR_INPUT, "%s: min and max are of its type, %s", what, p->type);
    if (p->choices && (!json_is_array(p->choices) || json_array_size(p->choices) == 0))
        return err_set(err, ERR_INPUT, "%s: \"choices\" is a list that is not empty", what);
    for (size_t i = 0; i < json_array_size(p->choices); i++)
        if (!has_type(t, json_array_get(p->choices, i)))
            return err_set(err, ERR_INPUT, "%s: choices are of its type, %s", what, p->type);
    buf_init(&why, ERR_TEXT_MAX);
    if (p->standard && !param_accepts(p, p->standard, &why))
        rc = err_set(err, ERR_INPUT, "%s: default: %s", what, why.p ? why.p : "");
    buf_release(&why);
    return rc;
}

static enum err_code take_param(const char *name, const json_t *v, struct arena *a,
                                struct program_param *p, struct err *err)
{
    static const char *const keys[] = {"type",    "default", "min",    "max",
                                       "choices", "help",    "extends"};
    const char *what = arena_printf(a, "param %.100s", name);
    enum err_code rc;

    p->name = name;
    if (!name_ok(name, '_'))
        return err_set(err, ERR_INPUT, "%s: names are [a-z][a-z0-9_]*", what);
    if (!json_is_object(v))
        return err_set(err, ERR_INPUT, "%s is no object", what);
    rc = only_keys(v, keys, sizeof(keys) / sizeof(keys[0]), what, err);
    if (!rc)
        rc = json_get_string(v, "type", what, &p->type, err);
    if (!rc && type_of(p->type) == PARAM_TYPE_COUNT)
        rc = err_set(err, ERR_INPUT, "%s: type '%.60s' is none of int, float, bool and string",
                     what, p->type);
    if (!rc)
        rc = optional_text(v, "help", what, &p->help, err);
    if (!rc)
        rc = optional_bool(v, "extends", what, &p->extends, err);
    if (rc)
        return rc;
    p->standard = json_object_get(v, "default");
    p->min = json_object_get(v, "min");
    p->max = json_object_get(v, "max");
    p->choices = json_object_get(v, "choices");
    if (p->extends && type_of(p->type) != PARAM_INT)
        return err_set(err, ERR_INPUT, "%s: only an int can extend", what);
    return check_values(p, what, err);
}

static enum err_code take_params(const json_t *root, struct arena *a, struct program *prog,
                                 struct err *err)
{
    const json_t *params;
    const char *name, *extends = NULL;
    json_t *v;
    enum err_code rc = optional_object(root, "params", PROGRAM_PARAMS_MAX, &params, err);

    prog->params = arena_array(a, json_object_size(params) + 1, sizeof(*prog->params));
    if (rc || !params)
        return rc;
    json_object_foreach((json_t *)(uintptr_t)params, name, v)
    {
        struct program_param *p = &prog->params[prog->param_count];

        rc = take_param(name, v, a, p, err);
        if (!rc && p->extends && extends)
            rc = err_set(err, ERR_INPUT, "params %s and %s both extend; one may", extends, name);
        if (rc)
            return rc;
        if (p->extends)
            extends = name;
        prog->param_count++;
    }
    return OK;
}

static enum err_code take_libraries(const json_t *root, struct program *prog, struct err *err)
{
    const json_t *libraries;
    const char *name;
    json_t *v;
    enum err_code rc = optional_object(root, "libraries", PROGRAM_PARAMS_MAX, &libraries, err);

    if (rc || !libraries)
        return rc;
    json_object_foreach((json_t *)(uintptr_t)libraries, name, v)
    {
        if (!*name || !json_is_string(v))
            return err_set(err, ERR_INPUT, "libraries: \"%.60s\" has no version as text", name);
    }
    prog->libraries = (json_t *)(uintptr_t)libraries;
    return OK;
}

enum err_code describe_parse(const char *p, size_t n, struct arena *a, struct program *prog,
                             json_t **root, struct err *err)
{
    static const char *const keys[] = {"contract", "inputs",    "outputs", "params",
                                       "numeric",  "libraries", "help"};
    const char *help;
    int64_t contract;
    enum err_code rc;

    *root = NULL;
    rc = json_parse(p ? p : "", n, PROGRAM_DESCRIBE_MAX, "description", root, err);
    if (!rc && !json_is_object(*root))
        rc = err_set(err, ERR_INPUT, "the description is no object");
    if (!rc)
        rc = json_get_i64(*root, "contract", 1, INT32_MAX, "description", &contract, err);
    if (!rc && contract != 1)
        rc = err_set(err, ERR_VERSION, "it keeps to contract %lld, this weir knows 1",
                     (long long)contract);
    if (!rc)
        rc = only_keys(*root, keys, sizeof(keys) / sizeof(keys[0]), "description", err);
    if (!rc)
        rc = take_ports(*root, "inputs", a, &prog->inputs, &prog->input_count, err);
    if (!rc)
        rc = take_ports(*root, "outputs", a, &prog->outputs, &prog->output_count, err);
    if (!rc)
        rc = take_params(*root, a, prog, err);
    if (!rc)
        rc = optional_bool(*root, "numeric", "description", &prog->numeric, err);
    if (!rc)
        rc = take_libraries(*root, prog, err);
    if (!rc)
        rc = optional_text(*root, "help", "description", &help, err);
    return rc;
}
