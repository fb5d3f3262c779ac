/* A pipeline against what its programs say about themselves; and params with the programs' defaults. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/program_internal.h"

struct problems {
    struct buf *lines; /* of the caller; may be NULL */
    struct buf all; /* instances of a stage tell the same line again and again: each is told once */
    size_t count;
    struct err *err; /* gets the first */
};

static void problem(struct problems *ps, const struct pos *pos, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

static void problem(struct problems *ps, const struct pos *pos, const char *fmt, ...)
{
    struct buf line;
    va_list ap;

    if (ps->count > PIPELINE_ERRORS_MAX)
        return;
    buf_init(&line, 1 << 16);
    if (pos->line)
        buf_printf(&line, "%s:%d:%d: ", pos->file ? pos->file : "-", pos->line, pos->column);
    else
        buf_printf(&line, "%s: ", pos->file ? pos->file : "-");
    va_start(ap, fmt);
    buf_vprintf(&line, fmt, ap);
    va_end(ap);
    if (!memmem(ps->all.p ? ps->all.p : "", ps->all.n, line.p, line.n + 1)) {
        buf_add(&ps->all, line.p, line.n + 1);
        if (ps->count++ == 0)
            err_set(ps->err, ERR_INPUT, "%s", line.p);
        if (ps->lines && ps->count <= PIPELINE_ERRORS_MAX) {
            buf_add(ps->lines, line.p, line.n);
            buf_char(ps->lines, '\n');
        } else if (ps->lines) {
            buf_str(ps->lines, "there are more problems; these come first\n");
        }
    }
    buf_release(&line);
}

/* ---- params --------------------------------------------------------------------------------------- */

static const struct program_param *find_param(const struct program *prog, const char *name)
{
    for (size_t i = 0; i < prog->param_count; i++)
        if (strcmp(prog->params[i].name, name) == 0)
            return &prog->params[i];
    return NULL;
}

static const char *nearest(const char *name, const void *first, size_t count, size_t size)
{
    const char **names = mem_alloc((count + 1) * sizeof(*names)), *near;

    for (size_t i = 0; i < count; i++) /* name is the first member of params and ports */
        memcpy(&names[i], (const char *)first + i * size, sizeof(*names));
    near = str_nearest(name, names, count);
    free((void *)names);
    return near;
}

static void check_params(struct problems *ps, const struct program *prog, const struct stage *s,
                         const struct task *t)
{
    struct buf why;

    buf_init(&why, (size_t)4 * ERR_TEXT_MAX);
    for (size_t i = 0; i < t->param_count; i++) {
        const struct named_value *v = &t->params[i];
        const struct program_param *p = find_param(prog, v->name);
        const char *near;

        buf_clear(&why);
        if (!p) {
            near = nearest(v->name, prog->params, prog->param_count, sizeof(*prog->params));
            problem(ps, &v->pos, "stage %s: %s has no param '%s'%s%s%s", s->name, prog->name,
                    v->name, near ? "; did you mean '" : "; weir stage NAME --help lists them",
                    near ? near : "", near ? "'?" : "");
        } else if (!param_accepts(p, v->value, &why)) {
            problem(ps, &v->pos, "stage %s: param %s: %s", s->name, v->name, why.p ? why.p : "");
        }
    }
    buf_release(&why);
    for (size_t i = 0; i < prog->param_count; i++) {
        bool given = prog->params[i].standard != NULL;

        for (size_t k = 0; !given && k < t->param_count; k++)
            given = strcmp(t->params[k].name, prog->params[i].name) == 0;
        if (!given)
            problem(ps, &s->pos, "stage %s: %s needs the param '%s' (%s)%s%s", s->name, prog->name,
                    prog->params[i].name, prog->params[i].type, prog->params[i].help ? ": " : "",
                    prog->params[i].help ? prog->params[i].help : "");
    }
}

/* ---- ports ---------------------------------------------------------------------------------------- */

static bool has_port(const struct program_port *ports, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(ports[i].name, name) == 0)
            return true;
    return false;
}

static void no_port(struct problems *ps, const struct pos *pos, const struct stage *s,
                    const struct program *prog, const struct program_port *ports, size_t n,
                    const char *name, const char *what)
{
    const char *near = nearest(name, ports, n, sizeof(*ports));

    problem(ps, pos, "stage %s: %s has no %s '%s'%s%s%s", s->name, prog->name, what, name,
            near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static void check_inputs(struct problems *ps, const struct program *prog, const struct stage *s,
                         const struct task *t)
{
    for (size_t i = 0; i < t->input_count; i++)
        if (!has_port(prog->inputs, prog->input_count, t->inputs[i].name))
            no_port(ps, &t->inputs[i].pos, s, prog, prog->inputs, prog->input_count,
                    t->inputs[i].name, "input");
    for (size_t k = 0; k < prog->input_count; k++) {
        bool given = prog->inputs[k].optional;

        for (size_t i = 0; !given && i < t->input_count; i++)
            given = strcmp(t->inputs[i].name, prog->inputs[k].name) == 0;
        if (!given)
            problem(ps, &s->pos, "stage %s: %s needs the input '%s'", s->name, prog->name,
                    prog->inputs[k].name);
    }
}

static void check_outputs(struct problems *ps, const struct program *prog, const struct stage *s)
{
    for (size_t i = 0; s->outputs[i]; i++)
        if (!has_port(prog->outputs, prog->output_count, s->outputs[i]))
            no_port(ps, &s->pos, s, prog, prog->outputs, prog->output_count, s->outputs[i],
                    "output");
    for (size_t k = 0; k < prog->output_count; k++) {
        bool named = prog->outputs[k].optional;

        for (size_t i = 0; !named && s->outputs[i]; i++)
            named = strcmp(s->outputs[i], prog->outputs[k].name) == 0;
        if (!named)
            problem(ps, &s->pos, "stage %s: %s makes '%s' too; name it in outputs", s->name,
                    prog->name, prog->outputs[k].name);
    }
}

/* ---- the check ------------------------------------------------------------------------------------ */

enum err_code program_check(struct programs *ps, const struct pipeline *p, struct buf *errors,
                            struct err *err)
{
    struct problems found = {.lines = errors, .err = err};
    enum err_code rc = OK;

    CHECK(ps);
    CHECK(p);
    buf_init(&found.all, 1 << 24);
    for (size_t i = 0; !rc && i < p->stage_count; i++) {
        const struct stage *s = &p->stages[i];
        const struct program *prog;
        struct err each = ERR_INIT;

        if (!s->uses)
            continue;
        rc = program_get(ps, s->uses, s->uses_digest, &prog, &each);
        if (rc == ERR_NOT_FOUND || rc == ERR_INPUT || rc == ERR_MISSING || rc == ERR_VERSION) {
            problem(&found, &s->pos, "stage %s: %s", s->name, each.text);
            rc = OK;
            continue;
        }
        if (rc) {
            *err = each;
            break;
        }
        check_outputs(&found, prog, s);
        for (int k = 0; k < s->task_count; k++) {
            check_params(&found, prog, s, &p->tasks[s->first_task + k]);
            check_inputs(&found, prog, s, &p->tasks[s->first_task + k]);
        }
    }
    buf_release(&found.all);
    return rc ? rc : found.count ? ERR_INPUT : OK;
}

json_t *program_params(const struct program *prog, const struct task *t)
{
    json_t *o = json_object();

    CHECK(o);
    for (size_t i = 0; prog && i < prog->param_count; i++)
        if (prog->params[i].standard)
            CHECK(json_object_set(o, prog->params[i].name, prog->params[i].standard) == 0);
    for (size_t i = 0; i < t->param_count; i++)
        CHECK(json_object_set(o, t->params[i].name, t->params[i].value) == 0);
    return o;
}

const struct program_param *program_extending(const struct program *prog)
{
    for (size_t i = 0; i < prog->param_count; i++)
        if (prog->params[i].extends)
            return &prog->params[i];
    return NULL;
}
