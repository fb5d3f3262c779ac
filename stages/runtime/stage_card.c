/* The task card: what weir-exec left for the program. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "stages/runtime/stage_internal.h"

#define EVENT_FD 3

/* Paths of the card stay below the task directory, whoever wrote the card. */
static enum err_code join(struct stage_task *t, const char *dir, const json_t *v, const char *what,
                          const char **out, struct err *err)
{
    const char *p = json_string_value(v);

    if (!p || !*p || *p == '/' || strcmp(p, "..") == 0 || strncmp(p, "../", 3) == 0 ||
        strstr(p, "/../") || (strlen(p) > 3 && strcmp(p + strlen(p) - 3, "/..") == 0))
        return err_set(err, ERR_USAGE,
                       "task card: %s: path is to be relative to the task directory", what);
    *out = arena_printf(&t->arena, "%s/%s", dir, p);
    return OK;
}

static enum err_code take_entries(struct stage_task *t, const char *dir, const json_t *list,
                                  const char *what, struct stage_entry **out, struct err *err)
{
    enum err_code rc = OK;

    *out = arena_array(&t->arena, json_array_size(list) + 1, sizeof(**out));
    for (size_t i = 0; !rc && i < json_array_size(list); i++) {
        const json_t *e = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(e, "name"));
        const char *digest = json_string_value(json_object_get(e, "digest"));

        if (!name)
            return err_set(err, ERR_USAGE, "task card: %s: an entry has no name", what);
        (*out)[i].name = arena_strdup(&t->arena, name);
        (*out)[i].digest = arena_strdup(&t->arena, digest ? digest : "");
        rc = join(t, dir, json_object_get(e, "path"), what, &(*out)[i].path, err);
    }
    return rc;
}

static enum err_code take_inputs(struct stage_task *t, const char *dir, const json_t *inputs,
                                 struct err *err)
{
    const char *name;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)inputs, name, v)
    {
        const char *what = arena_printf(&t->arena, "input %.100s", name), *path = NULL;
        const char *digest = json_string_value(json_object_get(v, "digest"));
        const json_t *list = json_object_get(v, "entries");
        struct stage_entry *entries = NULL;
        enum err_code rc = join(t, dir, json_object_get(v, "path"), what, &path, err);

        if (!rc && list)
            rc = take_entries(t, dir, list, what, &entries, err);
        if (rc)
            return rc;
        stage_task_input(t, name, path, digest ? digest : "", entries, json_array_size(list));
    }
    return OK;
}

static enum err_code take_outputs(struct stage_task *t, const char *dir, const json_t *outputs,
                                  struct err *err)
{
    const char *name, *path;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)outputs, name, v)
    {
        enum err_code rc = join(t, dir, v, name, &path, err);

        if (rc)
            return rc;
        stage_task_output(t, name, path);
    }
    return OK;
}

static enum err_code take_int(const json_t *root, const char *key, int64_t min, int64_t max,
                              int64_t *out, struct err *err)
{
    if (!json_object_get(root, key))
        return OK;
    return json_get_i64(root, key, min, max, "task card", out, err);
}

static enum err_code take_rest(struct stage_task *t, const char *dir, const json_t *root,
                               struct err *err)
{
    const json_t *resume = json_object_get(root, "resume"), *kept;
    const char *device = json_string_value(json_object_get(root, "device"));
    const char *name = json_string_value(json_object_get(root, "task"));
    int64_t cpus = 1, gpus = 0, ranks = 1;
    enum err_code rc = OK;

    t->name = arena_strdup(&t->arena, name ? name : t->program->name);
    t->device = arena_strdup(&t->arena, device ? device : "cpu");
    if (json_is_string(resume))
        rc = join(t, dir, resume, "resume", &t->resume, err);
    kept = json_object_get(root, "checkpoints");
    if (!rc && json_is_string(kept))
        rc = join(t, dir, kept, "checkpoints", &t->checkpoints, err);
    if (!rc)
        rc = take_int(root, "checkpoint_every_s", 0, INT32_MAX, &t->checkpoint_every_s, err);
    if (!rc)
        rc = take_int(root, "grace_s", 0, INT32_MAX, &t->grace_s, err);
    if (!rc)
        rc = take_int(root, "cpus", 1, 4096, &cpus, err);
    if (!rc)
        rc = take_int(root, "gpus", 0, 4096, &gpus, err);
    if (!rc)
        rc = take_int(root, "ranks", 1, 1 << 20, &ranks, err);
    t->threads = (int)cpus;
    t->gpus = (int)gpus;
    t->ranks = (int)ranks;
    return rc;
}

enum err_code stage_card_parse(const char *text, size_t n, const char *dir, struct stage_task *t,
                               struct err *err)
{
    json_t *root = NULL, *params;
    int64_t contract;
    enum err_code rc = json_parse(text, n, STAGE_CARD_MAX, "task card", &root, err);

    if (!rc && !json_is_object(root))
        rc = err_set(err, ERR_USAGE, "task card: it is no object");
    if (!rc)
        rc = json_get_i64(root, "contract", 1, INT32_MAX, "task card", &contract, err);
    if (!rc && contract != 1)
        rc = err_set(err, ERR_USAGE, "task card: contract %lld; this program keeps to 1",
                     (long long)contract);
    params = json_object_get(root, "params");
    if (!rc && params && !json_is_object(params))
        rc = err_set(err, ERR_USAGE, "task card: \"params\" is no object");
    if (!rc && params)
        CHECK(json_object_update(t->params, params) == 0);
    if (!rc)
        rc = take_inputs(t, dir, json_object_get(root, "inputs"), err);
    if (!rc)
        rc = take_outputs(t, dir, json_object_get(root, "outputs"), err);
    if (!rc)
        rc = take_rest(t, dir, root, err);
    json_decref(root);
    if (rc) /* whatever is wrong with a card is not the data's fault */
        err->code = ERR_USAGE;
    return rc ? ERR_USAGE : OK;
}

enum err_code stage_card_read(struct stage_task *t, struct err *err)
{
    const char *card = getenv("WEIR_TASK"), *dir = getenv("WEIR_TASK_DIR");
    struct buf text;
    enum err_code rc;

    if (!dir || *dir != '/')
        return err_set(
            err, ERR_USAGE,
            "WEIR_TASK is set, so WEIR_TASK_DIR is to name the task directory, absolute");
    buf_init(&text, STAGE_CARD_MAX);
    rc = os_read_file(AT_FDCWD, card, STAGE_CARD_MAX, &text, err);
    if (!rc)
        rc = stage_card_parse(text.p ? text.p : "", text.n, dir, t, err);
    buf_release(&text);
    t->event_fd = fcntl(EVENT_FD, F_GETFD) >= 0 ? EVENT_FD : -1;
    return rc;
}
