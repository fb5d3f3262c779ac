#include "cluster/card.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "store/store.h"

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

enum err_code card_object_of(const json_t *v, const char *name_key, const char *what,
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
        rc = card_object_of(json_array_get(list, i), name_key, "attempt.json", &(*out)[(*count)++],
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

/* A relative path without empty, "." or ".." parts: names from a card become paths below the task directory. */
static bool stays_below(const char *path)
{
    for (const char *p = path; *p;) {
        const size_t n = strcspn(p, "/");

        if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        p += n + (p[n] == '/');
    }
    return *path != '\0';
}

/* What contract_input and friends rely on. */
static enum err_code check_names(const struct attempt_card *c, struct err *err)
{
    const json_t *value;
    const char *name;
    size_t at;

    for (size_t i = 0; i < c->input_count; i++) {
        if (!stays_below(c->inputs[i].name) || strchr(c->inputs[i].name, '/'))
            return err_set(err, ERR_INPUT, "attempt.json: '%.100s' is no input name",
                           c->inputs[i].name);
        json_array_foreach((json_t *)(uintptr_t)c->inputs[i].entries, at, value)
        {
            const json_t *digest = json_object_get(value, "digest");

            name = json_string_value(json_object_get(value, "name"));
            if (!name || !json_is_string(digest))
                return err_set(err, ERR_INPUT,
                               "attempt.json: an entry of input %.100s has no name or digest",
                               c->inputs[i].name);
        }
    }
    for (size_t i = 0; i < c->code_count; i++)
        if (!stays_below(c->code[i].name))
            return err_set(err, ERR_INPUT, "attempt.json: '%.100s' is no path for code",
                           c->code[i].name);
    return OK;
}

enum err_code card_load(int dir, const char *name, const char *version, json_t **out,
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

/* A member that may be left out. */
static enum err_code optional_i64(const json_t *o, const char *key, int64_t min, int64_t max,
                                  int64_t standard, int64_t *out, struct err *err)
{
    *out = standard;
    return json_object_get(o, key) ? json_get_i64(o, key, min, max, CARD_ATTEMPT, out, err) : OK;
}

/* Nanoseconds since 1970 are beyond 2^53, so they come as text. */
static enum err_code any_i64(const json_t *o, const char *key, int64_t min, int64_t *out,
                             struct err *err)
{
    const char *text = json_string_value(json_object_get(o, key));
    enum err_code rc;

    if (!text)
        return json_get_i64(o, key, min, INT64_MAX, "attempt.json: program", out, err);
    rc = str_to_i64(str_of(text), min, INT64_MAX, out, err);
    if (rc)
        (void)err_prefix(err, "attempt.json: program: %s", key);
    return rc;
}

static enum err_code read_program(struct attempt_card *c, struct err *err)
{
    static const char what[] = "attempt.json: program";
    const json_t *v = json_object_get(c->root, "program");
    struct card_object o;
    enum err_code rc;

    if (!v)
        return OK;
    rc = card_object_of(v, "path", what, &o, err);
    if (!rc && (o.kind != OBJ_BLOB || o.name[0] != '/' || !c->argv))
        rc = err_set(err, ERR_INPUT, "%s: must be a blob with an absolute path, and go with argv",
                     what);
    if (!rc)
        rc = any_i64(v, "ino", 0, &c->program.ino, err);
    if (!rc)
        rc = any_i64(v, "size", 0, &c->program.size, err);
    if (!rc)
        rc = any_i64(v, "mtime_ns", INT64_MIN, &c->program.mtime_ns, err);
    if (rc)
        return rc;
    c->program.path = o.name;
    c->program.kind = o.kind;
    c->program.digest = o.digest;
    return OK;
}

static enum err_code read_checkpoints(struct attempt_card *c, struct err *err)
{
    const json_t *resume = json_object_get(c->root, "resume"),
                 *kept = json_object_get(c->root, "checkpoints");
    enum err_code rc = OK;

    c->resume_step = -1;
    if (resume && !json_is_null(resume)) {
        rc = card_object_of(resume, NULL, "attempt.json: resume", &c->resume, err);
        if (!rc)
            rc = json_get_i64(resume, "step", 0, INT64_MAX, "attempt.json: resume", &c->resume_step,
                              err);
    }
    if (rc || !kept || json_is_null(kept))
        return rc;
    rc = json_get_string(kept, "ref", "attempt.json: checkpoints", &c->checkpoint_ref, err);
    if (!rc)
        rc = store_ref_check(str_of(c->checkpoint_ref), err);
    if (!rc)
        rc = optional_i64(kept, "keep", 1, CARD_KEEP_MAX, CARD_KEEP_DEFAULT, &c->checkpoint_keep,
                          err);
    return rc;
}

static enum err_code read_devices(struct attempt_card *c, struct err *err)
{
    const json_t *list = json_object_get(c->root, "gpu_devices");
    const char *text = json_string_value(list);
    struct buf b;
    int64_t mask = 0;
    enum err_code rc = optional_i64(c->root, "gpu_mask", 0, INT64_MAX, 0, &mask, err);

    if (!rc && list &&
        (!text || strlen(text) >= sizeof(c->gpu_devices) || text[strspn(text, "0123456789,")]))
        rc = err_set(err, ERR_INPUT, "attempt.json: gpu_devices must be like \"0,1\"");
    if (rc)
        return rc;
    if (text) {
        (void)snprintf(c->gpu_devices, sizeof(c->gpu_devices), "%s", text);
        return OK;
    }
    buf_init(&b, sizeof(c->gpu_devices));
    for (int i = 0; i < 63; i++)
        if (mask >> i & 1)
            buf_printf(&b, "%s%d", b.n ? "," : "", i);
    (void)snprintf(c->gpu_devices, sizeof(c->gpu_devices), "%s", b.n ? b.p : "");
    buf_release(&b);
    return OK;
}

static enum err_code read_optional(struct attempt_card *c, struct err *err)
{
    enum err_code rc = read_program(c, err);

    if (!rc)
        rc = read_checkpoints(c, err);
    if (!rc)
        rc = read_devices(c, err);
    if (!rc)
        rc = optional_i64(c->root, "log_max", 1024, INT64_C(1) << 40, CARD_LOG_MAX_DEFAULT,
                          &c->log_max, err);
    c->bind = !json_is_false(json_object_get(c->root, "bind"));
    return rc;
}

enum err_code attempt_card_of(json_t *root, struct attempt_card *out, struct err *err)
{
    static const char what[] = CARD_ATTEMPT;
    struct attempt_card c = {.root = root};
    const char *key;
    enum err_code rc = json_get_string(c.root, "store", what, &c.store, err);

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
        rc = check_names(&c, err);
    if (!rc)
        rc = read_outputs(&c, err);
    if (!rc)
        rc = read_limits(&c, err);
    if (!rc)
        rc = read_optional(&c, err);
    if (rc)
        attempt_card_release(&c);
    *out = c;
    return rc;
}

enum err_code attempt_card_read(int dir, struct attempt_card *out, struct err *err)
{
    json_t *root = NULL;
    enum err_code rc = card_load(dir, CARD_ATTEMPT, "attempt/1", &root, err);

    *out = (struct attempt_card){0};
    if (!rc)
        return attempt_card_of(root, out, err);
    json_decref(root);
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
