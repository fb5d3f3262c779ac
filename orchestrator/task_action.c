#include "orchestrator/task_action.h"

#include <string.h>

static json_t *params_json(const struct task *t)
{
    json_t *params = json_object();

    for (size_t i = 0; i < t->param_count; i++)
        json_object_set(params, t->params[i].name, t->params[i].value);
    return params;
}

static json_t *object_json(const char *name_key, const struct card_object *o)
{
    char text[DIGEST_TEXT + 1];
    json_t *v;

    digest_text(&o->digest, text);
    v = json_pack("{s:s, s:s, s:s}", name_key, o->name, "kind", obj_kind_word(o->kind), "digest",
                  text);
    CHECK(v);
    return v;
}

static json_t *inputs_json(const struct ready_task *t)
{
    json_t *inputs = json_array();

    for (size_t i = 0; i < t->task->input_count; i++) {
        const struct ready_input *in = &t->inputs[i];
        const struct card_object whole = {.name = in->name, .kind = in->kind, .digest = in->digest};
        json_t *v = object_json("name", &whole);

        if (in->fan_in) {
            json_t *entries = json_array();

            for (size_t k = 0; k < in->entry_count; k++)
                json_array_append_new(entries, object_json("name", &in->entries[k]));
            json_object_set_new(v, "entries", entries);
        }
        json_array_append_new(inputs, v);
    }
    return inputs;
}

static json_t *strings_json(const char **list)
{
    json_t *v = json_array();

    for (size_t i = 0; list[i]; i++)
        json_array_append_new(v, json_string(list[i]));
    return v;
}

static json_t *program_json(const struct ready_task *t, const struct stage *st)
{
    char text[DIGEST_TEXT + 1];

    if (t->task->run)
        return json_pack("{s:s}", "shell", t->task->run);
    if (t->task->argv)
        return json_pack("{s:o}", "argv", strings_json(t->task->argv));
    digest_text(t->program, text);
    return json_pack("{s:s, s:s}", "uses", st->uses, "digest", text);
}

static json_t *code_json(const struct ready_task *t)
{
    json_t *code = json_array();

    for (size_t i = 0; i < t->code_count; i++)
        json_array_append_new(code, object_json("path", &t->code[i]));
    return code;
}

enum err_code task_action(const struct ready_task *t, json_t **out, struct err *err)
{
    const struct stage *st = &t->pipeline->stages[t->task->stage];

    if (st->env[0])
        return err_set(err, ERR_MISSING,
                       "%s:%d:%d: stage %s: env is checked but cannot be passed on yet",
                       st->pos.file, st->pos.line, st->pos.column, st->name);
    *out = json_pack("{s:s, s:o, s:o, s:s, s:o, s:o, s:o}", "weir", "action/1", "program",
                     program_json(t, st), "code", code_json(t), "device", st->cuda ? "cuda" : "cpu",
                     "params", params_json(t->task), "inputs", inputs_json(t), "outputs",
                     strings_json(st->outputs));
    if (!*out)
        return err_set(err, ERR_INPUT, "%s:%d:%d: stage %s holds text that is not UTF-8",
                       st->pos.file, st->pos.line, st->pos.column, st->name);
    return OK;
}

/* ---- commands ---------------------------------------------------------------------------------- */

/* 'it'\''s': one word for sh, whatever is in it. */
static void shell_quote(struct buf *out, const char *s)
{
    buf_char(out, '\'');
    for (; *s; s++)
        if (*s == '\'')
            buf_str(out, "'\\''");
        else
            buf_char(out, *s);
    buf_char(out, '\'');
}

static enum err_code placeholder(const struct ready_task *t, const char *task_dir,
                                 const char *inner, size_t n, struct buf *out, struct err *err)
{
    if (n > 7 && strncmp(inner, "inputs.", 7) == 0) {
        buf_printf(out, "%s/in/%.*s", task_dir, (int)(n - 7), inner + 7);
        return OK;
    }
    if (n > 8 && strncmp(inner, "outputs.", 8) == 0) {
        buf_printf(out, "%s/out/%.*s", task_dir, (int)(n - 8), inner + 8);
        return OK;
    }
    for (size_t i = 0; i < t->task->param_count; i++) {
        const struct named_value *p = &t->task->params[i];

        if (n == strlen(p->name) + 7 && strncmp(inner, "params.", 7) == 0 &&
            strncmp(inner + 7, p->name, n - 7) == 0) {
            if (!json_is_string(p->value))
                return json_canonical(p->value, out, err);
            buf_str(out, json_string_value(p->value));
            return OK;
        }
    }
    return err_set(err, ERR_BUG, "command of %s: {%.*s} passed the check and is unknown",
                   t->task->name, (int)n, inner);
}

/* {inputs.x} and friends become absolute paths and values; doubled braces single ones. */
static enum err_code fill_command(const struct ready_task *t, const char *task_dir,
                                  const char *text, bool shell, struct buf *out, struct err *err)
{
    struct buf value = {0};
    enum err_code rc = OK;

    buf_init(&value, CARD_BYTES_MAX);
    for (const char *p = text; !rc && *p; p++) {
        if ((*p == '{' || *p == '}') && p[1] == *p) {
            buf_char(out, *p++);
        } else if (*p == '{') {
            const size_t n = strcspn(p, "}");

            buf_clear(&value);
            rc = placeholder(t, task_dir, p + 1, n - 1, &value, err);
            if (shell)
                shell_quote(out, value.p ? value.p : "");
            else
                buf_add(out, value.p ? value.p : "", value.n);
            p += n;
        } else {
            buf_char(out, *p);
        }
    }
    buf_release(&value);
    return rc ? rc : buf_check(out, "command", err);
}

static enum err_code command_json(const struct ready_task *t, const char *task_dir,
                                  const char *program_path, json_t *card, struct err *err)
{
    json_t *argv = json_array();
    struct buf text = {0};
    enum err_code rc = OK;

    buf_init(&text, CARD_BYTES_MAX);
    if (t->task->run) {
        rc = fill_command(t, task_dir, t->task->run, true, &text, err);
        json_object_set_new(card, "shell", json_stringn(text.p ? text.p : "", text.n));
    } else if (t->task->argv) {
        for (size_t i = 0; !rc && t->task->argv[i]; i++) {
            buf_clear(&text);
            rc = fill_command(t, task_dir, t->task->argv[i], false, &text, err);
            json_array_append_new(argv, json_stringn(text.p ? text.p : "", text.n));
        }
    } else {
        json_array_append_new(argv, json_string(program_path));
    }
    if (!t->task->run)
        json_object_set(card, "argv", argv);
    json_decref(argv);
    buf_release(&text);
    return rc;
}

/* Inputs as the attempt card wants them: entries with digests, so that task.json can tell them to the program. */
enum err_code task_card(const struct ready_task *t, json_t *action, const struct digest *key,
                        const char *store, const char *task_dir, const char *program_path,
                        json_t **out, struct err *err)
{
    const struct stage *st = &t->pipeline->stages[t->task->stage];
    const struct resources *r = &st->resources;
    char text[DIGEST_TEXT + 1];
    json_t *card;
    enum err_code rc;

    digest_text(key, text);
    card = json_pack("{s:s, s:s, s:s, s:s, s:O, s:O, s:O, s:O, s:O, s:{}, s:s, s:I, s:I, s:I, s:I, "
                     "s:I, s:I, s:i, s:I}",
                     "weir", "attempt/1", "store", store, "task", t->task->name, "key", text,
                     "action", action, "code", json_object_get(action, "code"), "inputs",
                     json_object_get(action, "inputs"), "outputs",
                     json_object_get(action, "outputs"), "params",
                     json_object_get(action, "params"), "env", "device", st->cuda ? "cuda" : "cpu",
                     "cpus", (json_int_t)r->cpus, "gpus", (json_int_t)r->gpus, "ranks",
                     (json_int_t)r->ranks, "memory_bytes", (json_int_t)r->memory_bytes, "time_s",
                     (json_int_t)r->time_s, "timeout_s", (json_int_t)st->timeout_s, "grace_s", 30,
                     "checkpoint_every_s", (json_int_t)st->checkpoint_every_s);
    if (!card)
        return err_set(err, ERR_INPUT, "task %s: a path is not UTF-8", t->task->name);
    rc = command_json(t, task_dir, program_path, card, err);
    if (rc) {
        json_decref(card);
        card = NULL;
    }
    *out = card;
    return rc;
}
