#include "cluster/card.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"

const char *const attempt_status_words[ATTEMPT_STATUS_COUNT] = {"done", "failed", "stopped",
                                                                "lost"};

const char *obj_kind_word(enum obj_kind k)
{
    return k == OBJ_TREE ? "tree" : "blob";
}

json_t *card_object_json(const struct card_object *o)
{
    char text[DIGEST_TEXT + 1];
    json_t *v;

    digest_text(&o->digest, text);
    v = json_pack("{s:s, s:s, s:I}", "kind", obj_kind_word(o->kind), "digest", text, "size",
                  (json_int_t)o->size);
    CHECK(v);
    return v;
}

static enum err_code read_object(const json_t *v, const char *name_key, const char *what,
                                 struct card_object *out, struct err *err)
{
    const char *kind, *digest;
    enum err_code rc = json_get_string(v, "kind", what, &kind, err);

    *out = (struct card_object){0};
    if (!rc)
        rc = json_get_string(v, "digest", what, &digest, err);
    if (!rc && name_key)
        rc = json_get_string(v, name_key, what, &out->name, err);
    if (!rc)
        rc = digest_parse(digest, strlen(digest), &out->digest, err);
    if (rc)
        return rc;
    if (strcmp(kind, "blob") != 0 && strcmp(kind, "tree") != 0)
        return err_set(err, ERR_INPUT, "%s: kind is '%s'; it must be blob or tree", what, kind);
    out->kind = strcmp(kind, "tree") == 0 ? OBJ_TREE : OBJ_BLOB;
    out->size = json_integer_value(json_object_get(v, "size"));
    out->entries = json_object_get(v, "entries");
    return OK;
}

static enum err_code read_objects(const json_t *card, const char *key, const char *name_key,
                                  struct card_object **out, size_t *count, struct err *err)
{
    const json_t *list = json_object_get(card, key);
    enum err_code rc = OK;

    if (!json_is_array(list))
        return err_set(err, ERR_INPUT, "attempt.json: '%s' must be a list", key);
    *out = mem_zero(json_array_size(list) + 1, sizeof(**out));
    for (size_t i = 0; !rc && i < json_array_size(list); i++)
        rc = read_object(json_array_get(list, i), name_key, "attempt.json", &(*out)[(*count)++],
                         err);
    return rc;
}

static enum err_code read_limits(struct attempt_card *c, struct err *err)
{
    static const char what[] = "attempt.json";
    const struct {
        const char *key;
        int64_t min, *to;
    } numbers[] = {{"cpus", 1, &c->cpus},       {"gpus", 0, &c->gpus},
                   {"ranks", 1, &c->ranks},     {"memory_bytes", 0, &c->memory_bytes},
                   {"time_s", 0, &c->time_s},   {"timeout_s", 0, &c->timeout_s},
                   {"grace_s", 1, &c->grace_s}, {"checkpoint_every_s", 1, &c->checkpoint_every_s}};
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < sizeof(numbers) / sizeof(numbers[0]); i++)
        rc = json_get_i64(c->root, numbers[i].key, numbers[i].min, INT64_MAX / 1000000000, what,
                          numbers[i].to, err);
    return rc;
}

static enum err_code read_command(struct attempt_card *c, struct err *err)
{
    c->argv = json_object_get(c->root, "argv");
    c->shell = json_string_value(json_object_get(c->root, "shell"));
    c->action = json_object_get(c->root, "action");
    c->params = json_object_get(c->root, "params");
    c->env = json_object_get(c->root, "env");
    if (!c->argv == !c->shell ||
        (c->argv && (!json_is_array(c->argv) || json_array_size(c->argv) == 0)))
        return err_set(err, ERR_INPUT, "attempt.json: needs argv (a list) or shell (a string)");
    for (size_t i = 0; c->argv && i < json_array_size(c->argv); i++)
        if (!json_is_string(json_array_get(c->argv, i)))
            return err_set(err, ERR_INPUT, "attempt.json: argv holds something that is no string");
    if (!json_is_object(c->action) || !json_is_object(c->params) || !json_is_object(c->env))
        return err_set(err, ERR_INPUT, "attempt.json: action, params and env must be objects");
    return OK;
}

static enum err_code read_outputs(struct attempt_card *c, struct err *err)
{
    const json_t *list = json_object_get(c->root, "outputs");

    if (!json_is_array(list) || json_array_size(list) == 0)
        return err_set(err, ERR_INPUT, "attempt.json: 'outputs' must be a list of names");
    c->outputs = mem_zero(json_array_size(list) + 1, sizeof(*c->outputs));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));

        if (!name || !*name || strchr(name, '/') || name[0] == '.')
            return err_set(err, ERR_INPUT, "attempt.json: '%s' is no output name",
                           name ? name : "");
        c->outputs[i] = name;
    }
    return OK;
}

static enum err_code read_card(int dir, const char *name, const char *version, json_t **out,
                               struct err *err)
{
    struct buf text = {0};
    const char *weir;
    enum err_code rc;

    buf_init(&text, CARD_BYTES_MAX);
    rc = os_read_file(dir, name, CARD_BYTES_MAX, &text, err);
    if (!rc)
        rc = json_parse(text.p ? text.p : "", text.n, CARD_BYTES_MAX, name, out, err);
    buf_release(&text);
    if (!rc)
        rc = json_get_string(*out, "weir", name, &weir, err);
    if (!rc && strcmp(weir, version) != 0)
        rc = err_set(err, ERR_VERSION, "%s: this weir reads '%s', not '%s'", name, version, weir);
    return rc;
}

enum err_code attempt_card_read(int dir, struct attempt_card *out, struct err *err)
{
    static const char what[] = CARD_ATTEMPT;
    struct attempt_card c = {0};
    const char *key;
    enum err_code rc = read_card(dir, what, "attempt/1", &c.root, err);

    if (!rc)
        rc = json_get_string(c.root, "store", what, &c.store, err);
    if (!rc)
        rc = json_get_string(c.root, "task", what, &c.task, err);
    if (!rc)
        rc = json_get_string(c.root, "device", what, &c.device, err);
    if (!rc)
        rc = json_get_string(c.root, "key", what, &key, err);
    if (!rc)
        rc = digest_parse(key, strlen(key), &c.key, err);
    if (!rc)
        rc = read_command(&c, err);
    if (!rc)
        rc = read_objects(c.root, "inputs", "name", &c.inputs, &c.input_count, err);
    if (!rc)
        rc = read_objects(c.root, "code", "path", &c.code, &c.code_count, err);
    if (!rc)
        rc = read_outputs(&c, err);
    if (!rc)
        rc = read_limits(&c, err);
    if (rc)
        attempt_card_release(&c);
    *out = c;
    return rc;
}

void attempt_card_release(struct attempt_card *c)
{
    free(c->inputs);
    free(c->code);
    free(c->outputs);
    json_decref(c->root);
    *c = (struct attempt_card){0};
}

enum err_code result_card_write(int dir, const struct result_card *c, struct err *err)
{
    char text[DIGEST_TEXT + 1];
    json_t *outputs = json_object(), *root;
    struct buf out = {0};
    enum err_code rc;

    for (size_t i = 0; i < c->output_count; i++)
        json_object_set_new(outputs, c->outputs[i].name, card_object_json(&c->outputs[i]));
    digest_text(&c->result, text);
    root = json_pack("{s:s, s:s, s:i, s:i, s:s, s:o, s:I, s:I}", "weir", "result/1", "status",
                     attempt_status_words[c->status], "exit", c->exit_status, "signal", c->signal,
                     "reason", c->reason, "outputs", outputs, "log_bytes", (json_int_t)c->log_bytes,
                     "wall_ms", (json_int_t)c->wall_ms);
    if (!root) /* the reason may quote bytes of a user's program that are no UTF-8 */
        return err_set(err, ERR_BUG, "result.json: the reason is not UTF-8");
    if (c->status == ATTEMPT_DONE)
        json_object_set_new(root, "result", json_string(text));
    buf_init(&out, CARD_BYTES_MAX);
    rc = json_canonical(root, &out, err);
    buf_char(&out, '\n');
    if (!rc)
        rc = buf_check(&out, CARD_RESULT, err);
    if (!rc)
        rc = os_write_file(dir, CARD_RESULT, out.p, out.n, 0644, err);
    buf_release(&out);
    json_decref(root);
    return rc;
}

static enum err_code read_result_outputs(struct result_card *c, struct err *err)
{
    json_t *outputs = json_object_get(c->root, "outputs"), *value;
    const char *name;
    enum err_code rc = OK;

    if (!json_is_object(outputs))
        return err_set(err, ERR_INPUT, "result.json: 'outputs' must be an object");
    c->outputs = mem_zero(json_object_size(outputs) + 1, sizeof(*c->outputs));
    json_object_foreach(outputs, name, value)
    {
        if (!rc)
            rc = read_object(value, NULL, CARD_RESULT, &c->outputs[c->output_count], err);
        c->outputs[c->output_count++].name = name;
    }
    return rc;
}

enum err_code result_card_read(int dir, struct result_card *out, struct err *err)
{
    struct result_card c = {.status = ATTEMPT_STATUS_COUNT};
    const char *status, *reason, *result;
    enum err_code rc = read_card(dir, CARD_RESULT, "result/1", &c.root, err);

    if (!rc)
        rc = json_get_string(c.root, "status", CARD_RESULT, &status, err);
    if (!rc)
        rc = json_get_string(c.root, "reason", CARD_RESULT, &reason, err);
    for (int i = 0; !rc && i < ATTEMPT_STATUS_COUNT; i++)
        if (strcmp(status, attempt_status_words[i]) == 0)
            c.status = (enum attempt_status)i;
    if (!rc && c.status == ATTEMPT_STATUS_COUNT)
        rc = err_set(err, ERR_INPUT, "result.json: unknown status '%s'", status);
    if (!rc && c.status == ATTEMPT_DONE) {
        rc = json_get_string(c.root, "result", CARD_RESULT, &result, err);
        if (!rc)
            rc = digest_parse(result, strlen(result), &c.result, err);
    }
    if (!rc)
        rc = read_result_outputs(&c, err);
    if (!rc) {
        (void)snprintf(c.reason, sizeof(c.reason), "%s", reason);
        c.exit_status = (int)json_integer_value(json_object_get(c.root, "exit"));
        c.signal = (int)json_integer_value(json_object_get(c.root, "signal"));
        c.log_bytes = json_integer_value(json_object_get(c.root, "log_bytes"));
        c.wall_ms = json_integer_value(json_object_get(c.root, "wall_ms"));
    } else {
        result_card_release(&c);
    }
    *out = c;
    return rc;
}

void result_card_release(struct result_card *c)
{
    free(c->outputs);
    json_decref(c->root);
    *c = (struct result_card){0};
}
