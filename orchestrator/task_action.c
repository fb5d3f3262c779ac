#include "orchestrator/task_action.h"

#include <stdlib.h>
#include <string.h>

#include "orchestrator/program.h"
#include "store/action.h"

/* Members in canonical order (RFC 8785): code, device, env, inputs, outputs, params, platform, program, weir.  Names of inputs, outputs
 * and params are ASCII, so the order of their bytes is the order of UTF-16. */

static void put_text(struct buf *out, const char *s)
{
    json_canonical_string(out, s, strlen(s));
}

static void put_texts(struct buf *out, const char **list)
{
    buf_char(out, '[');
    for (size_t i = 0; list[i]; i++) {
        buf_str(out, i ? "," : "");
        put_text(out, list[i]);
    }
    buf_char(out, ']');
}

static void member_digest(struct buf *out, const struct digest *d)
{
    char hex[DIGEST_TEXT + 1];

    digest_text(d, hex);
    buf_str(out, "\"digest\":\"");
    buf_add(out, hex, DIGEST_TEXT);
    buf_char(out, '"');
}

static void kind_and_name(struct buf *out, enum obj_kind kind, const char *name)
{
    buf_str(out,
            kind == OBJ_TREE ? ",\"kind\":\"tree\",\"name\":" : ",\"kind\":\"blob\",\"name\":");
    put_text(out, name);
    buf_char(out, '}');
}

/* From the start to the value of "inputs". */
static void write_head(const struct ready_task *t, struct buf *out)
{
    const struct stage *st = &t->pipeline->stages[t->task->stage];

    buf_str(out, "{\"code\":[");
    for (size_t i = 0; i < t->code_count; i++) {
        buf_str(out, i ? ",{" : "{");
        member_digest(out, &t->code[i].digest);
        buf_printf(out, ",\"kind\":\"%s\",\"path\":", obj_kind_word(t->code[i].kind));
        put_text(out, t->code[i].name);
        buf_char(out, '}');
    }
    buf_printf(out, "],\"device\":\"%s\"", st->cuda ? "cuda" : "cpu");
    for (size_t i = 0; i < t->env_count; i++) {
        buf_str(out, i ? "," : ",\"env\":{");
        put_text(out, t->env[i].name);
        buf_char(out, ':');
        put_text(out, t->env[i].hmac);
    }
    buf_str(out, t->env_count ? "},\"inputs\":[" : ",\"inputs\":[");
}

static void write_inputs(const struct ready_task *t, struct buf *out)
{
    for (size_t i = 0; i < t->task->input_count; i++) {
        const struct ready_input *in = &t->inputs[i];

        buf_str(out, i ? ",{" : "{");
        member_digest(out, &in->digest);
        if (in->fan_in)
            buf_str(out, ",\"entries\":[");
        for (size_t k = 0; in->fan_in && k < in->entry_count; k++) {
            buf_str(out, k ? ",{" : "{");
            member_digest(out, &in->entries[k].digest);
            kind_and_name(out, in->entries[k].kind, in->entries[k].name);
        }
        if (in->fan_in)
            buf_char(out, ']');
        kind_and_name(out, in->kind, in->name);
    }
}

/* After "program":, when it is the same for all tasks of the stage. */
static enum err_code write_program(const struct ready_task *t, struct buf *out, struct err *err)
{
    const struct stage *st = &t->pipeline->stages[t->task->stage];
    enum err_code rc = OK;

    if (t->task->run) {
        buf_str(out, "{\"shell\":");
        put_text(out, t->task->run);
    } else if (t->task->argv) {
        buf_str(out, "{\"argv\":");
        put_texts(out, t->task->argv);
    } else {
        buf_char(out, '{');
        member_digest(out, t->program);
        if (t->description) {
            buf_str(out, ",\"libraries\":");
            if (t->description->libraries)
                rc = json_canonical(t->description->libraries, out, err);
            else
                buf_str(out, "{}");
        }
        buf_str(out, ",\"uses\":");
        put_text(out, st->uses);
    }
    buf_char(out, '}');
    return rc;
}

/* After the params, to "program":. */
static void write_tail(const struct ready_task *t, struct buf *out)
{
    buf_char(out, '}');
    if (t->platform) {
        buf_str(out, ",\"platform\":");
        put_text(out, t->platform);
    }
    buf_str(out, ",\"program\":");
}

static enum err_code write_params(const struct ready_task *t, struct buf *out, struct err *err)
{
    bool first = true;
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < t->param_count; i++) {
        const struct action_param *a = &t->params[i];
        const json_t *v = a->from >= 0 ? t->task->params[a->from].value : a->standard;

        if (t->without && strcmp(t->without, a->name) == 0)
            continue;
        buf_str(out, first ? "" : ",");
        first = false;
        put_text(out, a->name);
        buf_char(out, ':');
        rc = json_canonical(v, out, err);
        if (rc)
            (void)err_prefix(err, "task %s: param %s", t->task->name, a->name);
    }
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct action_param *)a)->name, ((const struct action_param *)b)->name);
}

static bool task_gives(const struct task *t, const char *name)
{
    for (size_t i = 0; i < t->param_count; i++)
        if (strcmp(t->params[i].name, name) == 0)
            return true;
    return false;
}

/* Instances of a stage have the same params in the same order, with other values. */
static void sort_params(struct ready_task *t, struct arena *a)
{
    const struct program *prog = t->description;
    const size_t more = prog ? prog->param_count : 0;
    struct action_param *list = arena_array(a, t->task->param_count + more + 1, sizeof(*list));
    size_t n = 0;

    for (size_t i = 0; i < t->task->param_count; i++)
        list[n++] = (struct action_param){t->task->params[i].name, (int)i, NULL};
    for (size_t i = 0; i < more; i++)
        if (prog->params[i].standard && !task_gives(t->task, prog->params[i].name))
            list[n++] = (struct action_param){prog->params[i].name, -1, prog->params[i].standard};
    if (n > 1)
        qsort(list, n, sizeof(*list), by_name);
    t->params = list;
    t->param_count = n;
}

void action_stage(struct ready_task *t, struct arena *a)
{
    struct buf out = {0};

    buf_init(&out, ACTION_BYTES_MAX);
    write_head(t, &out);
    t->head = arena_strndup(a, out.p, out.n);
    buf_clear(&out);
    buf_str(&out, "],\"outputs\":");
    put_texts(&out, t->pipeline->stages[t->task->stage].outputs);
    buf_str(&out, ",\"params\":{");
    t->tail = arena_strndup(a, out.p, out.n);
    CHECK(!out.failed);
    buf_release(&out);
    sort_params(t, a);
}

enum err_code task_action_text(const struct ready_task *t, struct buf *out, struct err *err)
{
    struct ready_task with = *t;
    struct arena a = {0};
    enum err_code rc;

    if (!t->head)
        action_stage(&with, &a);
    buf_str(out, with.head);
    write_inputs(&with, out);
    buf_str(out, with.tail);
    rc = write_params(&with, out, err);
    if (!rc) {
        write_tail(&with, out);
        rc = write_program(&with, out, err);
    }
    buf_str(out, ",\"weir\":\"action/1\"}");
    arena_release(&a);
    return rc ? rc : buf_check(out, "action", err);
}

/* Through the text, so that there is one place that says what an action is. */
enum err_code task_action(const struct ready_task *t, json_t **out, struct err *err)
{
    const struct stage *st = &t->pipeline->stages[t->task->stage];
    struct buf out_text = {0};
    enum err_code rc;

    buf_init(&out_text, ACTION_BYTES_MAX);
    rc = task_action_text(t, &out_text, err);
    if (!rc)
        rc = json_parse(out_text.p, out_text.n, ACTION_BYTES_MAX, "action", out, err);
    if (rc)
        (void)err_prefix(err, "%s:%d:%d: stage %s", st->pos.file, st->pos.line, st->pos.column,
                         st->name);
    buf_release(&out_text);
    return rc;
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
    json_t *card, *env = json_object();
    enum err_code rc;

    digest_text(key, text);
    for (size_t i = 0; i < t->env_count; i++)
        json_object_set_new(env, t->env[i].name, json_string(t->env[i].value));
    if (json_object_size(env) < t->env_count) {
        json_decref(env);
        return err_set(err, ERR_INPUT, "task %s: a value of its env is not UTF-8", t->task->name);
    }
    card = json_pack(
        "{s:s, s:s, s:s, s:s, s:O, s:O, s:O, s:O, s:O, s:o, s:s, s:I, s:I, s:I, s:I, "
        "s:I, s:I, s:i, s:I}",
        "weir", "attempt/1", "store", store, "task", t->task->name, "key", text, "action", action,
        "code", json_object_get(action, "code"), "inputs", json_object_get(action, "inputs"),
        "outputs", json_object_get(action, "outputs"), "params", json_object_get(action, "params"),
        "env", env, "device", st->cuda ? "cuda" : "cpu", "cpus", (json_int_t)r->cpus, "gpus",
        (json_int_t)r->gpus, "ranks", (json_int_t)r->ranks, "memory_bytes",
        (json_int_t)r->memory_bytes, "time_s", (json_int_t)r->time_s, "timeout_s",
        (json_int_t)st->timeout_s, "grace_s", 30, "checkpoint_every_s",
        (json_int_t)st->checkpoint_every_s);
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
