#include "orchestrator/reproduce.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "cluster/attempt.h"
#include "orchestrator/program.h"
#include "orchestrator/task_action.h"
#include "store/action.h"
#include "store/tree.h"

#define GRACE_S 30

extern char **environ;

struct again { /* one task, made again out of its action */
    struct store *st;
    const struct lineage_node *node;
    struct arena arena;
    struct pipeline p;
    struct stage stage;
    struct task task;
    struct ready_task ready;
    const char *dir, *exec_path;
};

/* ---- out of the action ------------------------------------------------------------------------- */

static enum err_code object_of(struct again *a, const json_t *v, const char *key,
                               struct card_object *out, struct err *err)
{
    (void)a;
    return card_object_of(v, key, "recorded action", out, err);
}

static void take_params(struct again *a)
{
    const json_t *params = json_object_get(a->node->action, "params");
    const char *name;
    json_t *value;

    a->task.params = arena_array(&a->arena, json_object_size(params) + 1, sizeof(*a->task.params));
    json_object_foreach((json_t *)(uintptr_t)params, name, value)
        a->task.params[a->task.param_count++] = (struct named_value){.name = name, .value = value};
}

static const char **texts(struct again *a, const json_t *list)
{
    const char **out = arena_array(&a->arena, json_array_size(list) + 1, sizeof(*out));

    for (size_t i = 0; i < json_array_size(list); i++)
        out[i] = json_string_value(json_array_get(list, i));
    return out;
}

static enum err_code take_program(struct again *a, struct err *err)
{
    const json_t *program = json_object_get(a->node->action, "program");
    const char *digest = json_string_value(json_object_get(program, "digest"));
    struct digest *d = arena_alloc(&a->arena, sizeof(*d));

    a->task.run = json_string_value(json_object_get(program, "shell"));
    a->stage.shell = a->task.run != NULL;
    if (json_is_array(json_object_get(program, "argv")))
        a->task.argv = texts(a, json_object_get(program, "argv"));
    a->stage.uses = json_string_value(json_object_get(program, "uses"));
    if (!a->stage.uses)
        return OK;
    a->ready.program = d;
    return digest_parse(digest ? digest : "", digest ? strlen(digest) : 0, d, err);
}

static enum err_code take_objects(struct again *a, struct err *err)
{
    const json_t *inputs = json_object_get(a->node->action, "inputs"),
                 *code = json_object_get(a->node->action, "code");
    struct card_object *files;
    enum err_code rc = OK;

    a->task.input_count = json_array_size(inputs);
    a->task.inputs = arena_array(&a->arena, a->task.input_count + 1, sizeof(*a->task.inputs));
    for (size_t i = 0; i < a->task.input_count; i++) {
        const json_t *v = json_array_get(inputs, i);

        a->task.inputs[i].name = json_string_value(json_object_get(v, "name"));
        a->task.inputs[i].fan_in = json_is_array(json_object_get(v, "entries"));
    }
    a->ready.code_count = json_array_size(code);
    files = arena_array(&a->arena, a->ready.code_count + 1, sizeof(*files));
    for (size_t i = 0; !rc && i < a->ready.code_count; i++)
        rc = object_of(a, json_array_get(code, i), "path", &files[i], err);
    a->ready.code = files;
    return rc;
}

/* The variable's value of today, if it is what it was. */
static enum err_code take_env(struct again *a, json_t *card, struct err *err)
{
    const json_t *env = json_object_get(a->node->action, "env");
    json_t *values = json_object(), *was;
    const char *name;
    enum err_code rc = OK;

    json_object_foreach((json_t *)(uintptr_t)env, name, was)
    {
        const char *value = getenv(name), *text = json_string_value(was);
        char now[80] = "";

        if (!rc && value)
            rc = secret_hmac(a->st, name, value, now, err);
        if (!rc && (!value || !text || strcmp(now, text) != 0))
            rc = err_set(err, ERR_CONFIG, "%s: the variable %s %s; set it as it was and try again",
                         a->node->name, name,
                         value ? "has another value than in that run" : "is not set");
        if (!rc)
            json_object_set_new(values, name, json_string(value));
    }
    json_object_set_new(card, "env", values);
    return rc;
}

static enum err_code make_card(struct again *a, json_t **card, struct err *err)
{
    const json_t *action = a->node->action;
    struct digest key;
    struct buf text = {0};
    char hex[DIGEST_TEXT + 1];
    enum err_code rc;

    buf_init(&text, ACTION_BYTES_MAX);
    rc = action_key(action, &key, &text, err);
    buf_release(&text);
    if (!rc)
        rc = task_card(&a->ready, (json_t *)(uintptr_t)action, &key, a->st->root, a->dir,
                       a->stage.uses ? a->stage.uses : NULL, card, err);
    if (!rc)
        rc = take_env(a, *card, err);
    if (rc)
        return rc;
    json_object_set_new(*card, "bind", json_false());
    json_object_set_new(*card, "grace_s", json_integer(GRACE_S));
    if (a->stage.uses) { /* no file here is this one for certain: out of the store */
        digest_text(a->ready.program, hex);
        json_object_set_new(*card, "program",
                            json_pack("{s:s, s:s, s:s, s:i, s:i, s:i}", "path", "", "kind", "blob",
                                      "digest", hex, "ino", 0, "size", 0, "mtime_ns", 0));
    }
    return OK;
}

/* ---- one attempt ------------------------------------------------------------------------------- */

static enum err_code spawn_exec(const struct again *a, struct err *err)
{
    char *const argv[] = {mem_strdup("weir-exec"), mem_strdup(a->dir), NULL};
    pid_t pid;
    int status = 0;
    const int sys = posix_spawn(&pid, a->exec_path, NULL, NULL, argv, environ);

    free(argv[0]);
    free(argv[1]);
    if (sys)
        return err_sys(err, sys, "start %s", a->exec_path);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return err_sys(err, errno, "wait for %s", a->exec_path);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return err_set(err, ERR_TASK, "weir-exec ended with wait status %d; what it said is above",
                       status);
    return OK;
}

static enum err_code attempt(struct again *a, struct result_card *result, struct err *err)
{
    json_t *card = NULL;
    struct buf text = {0};
    int fd = -1;
    enum err_code rc = os_mkdirs(a->dir, 0700, err);

    buf_init(&text, CARD_BYTES_MAX);
    if (!rc)
        rc = make_card(a, &card, err);
    if (!rc)
        rc = json_canonical(card, &text, err);
    if (!rc)
        rc = os_open_dir(AT_FDCWD, a->dir, &fd, err);
    if (!rc)
        rc = os_write_file(fd, CARD_ATTEMPT, text.p, text.n, 0600, err);
    if (!rc)
        rc = spawn_exec(a, err);
    if (!rc)
        rc = result_card_read(fd, result, err);
    os_close_quiet(&fd);
    buf_release(&text);
    json_decref(card);
    return rc;
}

static enum err_code compare(struct again *a, const struct result_card *result,
                             struct reproduce_report *r, struct err *err)
{
    enum err_code rc = OK;

    r->end = REPRODUCE_EQUAL;
    for (size_t i = 0; !rc && r->end == REPRODUCE_EQUAL && i < a->node->output_count; i++) {
        const struct lineage_output *was = &a->node->outputs[i];
        const struct card_object *now = NULL;

        for (size_t k = 0; k < result->output_count; k++)
            if (strcmp(result->outputs[k].name, was->name) == 0)
                now = &result->outputs[k];
        if (!now || now->kind != was->object) {
            r->end = REPRODUCE_DIFFERS;
            (void)snprintf(r->difference.what, sizeof(r->difference.what), "%s",
                           now ? "kind" : "not there");
        } else {
            rc = differ(a->st, was->object, &was->digest, &now->digest, &r->difference, err);
            r->end = r->difference.equal ? REPRODUCE_EQUAL : REPRODUCE_DIFFERS;
        }
        if (r->end == REPRODUCE_DIFFERS)
            r->output = was->name;
    }
    return rc;
}

static enum err_code again(struct store *st, const struct lineage_node *node, const char *exec_path,
                           struct reproduce_report *r, struct err *err)
{
    struct again a = {.st = st, .node = node, .exec_path = exec_path};
    struct result_card result = {0};
    enum err_code rc;

    *r = (struct reproduce_report){.task = node->name};
    arena_init(&a.arena);
    a.dir = arena_printf(&a.arena, "%s/tasks/again.%d.%lld", st->root, (int)getpid(),
                         (long long)os_monotonic_ns());
    a.p.stages = &a.stage;
    a.task.name = node->name;
    a.stage.name = node->name;
    a.stage.attempts = 1;
    a.stage.resources.cpus = os_cpu_count();
    a.stage.resources.ranks = 1;
    a.stage.checkpoint_every_s = 300;
    a.stage.cuda = strcmp(json_string_value(json_object_get(node->action, "device"))
                              ? json_string_value(json_object_get(node->action, "device"))
                              : "",
                          "cuda") == 0;
    a.stage.outputs = texts(&a, json_object_get(node->action, "outputs"));
    a.stage.env = arena_array(&a.arena, 1, sizeof(*a.stage.env));
    a.ready.pipeline = &a.p;
    a.ready.task = &a.task;
    take_params(&a);
    rc = take_program(&a, err);
    if (!rc)
        rc = take_objects(&a, err);
    if (!rc)
        rc = attempt(&a, &result, err);
    r->wall_ms = result.wall_ms;
    if (!rc && result.status == ATTEMPT_DONE) {
        rc = compare(&a, &result, r, err);
    } else if (!rc || rc == ERR_TASK) {
        r->end = REPRODUCE_FAILED;
        (void)snprintf(r->reason, sizeof(r->reason), "%s", rc ? err->text : result.reason);
        *err = (struct err)ERR_INIT;
        rc = OK;
    }
    result_card_release(&result);
    if (!rc)
        rc = os_remove_tree(AT_FDCWD, a.dir, err);
    arena_release(&a.arena);
    return rc;
}

/* ---- all --------------------------------------------------------------------------------------- */

static bool is_meant(const char *task, const char *stage)
{
    const size_t n = stage ? strlen(stage) : 0;

    return !stage || strcmp(task, stage) == 0 || (strncmp(task, stage, n) == 0 && task[n] == '[');
}

enum err_code reproduce_run(struct store *st, int64_t run, const char *stage, const char *exec_path,
                            reproduce_fn fn, void *arg, struct err *err)
{
    struct lineage *g = NULL;
    bool any = false;
    enum err_code rc = lineage_load(st, run, &g, err);

    for (size_t i = 0; !rc && i < g->count; i++) {
        struct reproduce_report r;

        if (g->nodes[i].kind != LINEAGE_TASK || !is_meant(g->nodes[i].name, stage))
            continue;
        any = true;
        rc = again(st, &g->nodes[i], exec_path, &r, err);
        if (!rc)
            rc = fn(arg, &r, err);
    }
    if (!rc && !any)
        rc = err_set(err, ERR_NOT_FOUND, "run-%lld has no result of %s", (long long)run,
                     stage ? stage : "any task");
    lineage_free(g);
    return rc;
}
