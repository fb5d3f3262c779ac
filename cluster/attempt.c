#include "cluster/attempt.h"

#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/os.h"
#include "cluster/supervise.h"
#include "store/action.h"
#include "store/ingest.h"
#include "store/materialise.h"
#include "store/reader.h"
#include "store/tree.h"

#define EXIT_BAD_CARD 64
#define EXIT_BAD_DATA 65
#define EXIT_STOPPED 75

struct attempt {
    const char *path; /* absolute task folder */
    int dir;
    struct attempt_card card;
    struct store *store;
    struct arena arena;
    const char **envp;
    bool shield;
};

/* ---- prepare ----------------------------------------------------------------------------------- */

static enum err_code make_folders(struct attempt *a, struct err *err)
{
    static const char *const names[] = {"in", "out", "work", "ckpt", "tmp", "home"};
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < sizeof(names) / sizeof(names[0]); i++) {
        rc = os_remove_tree(a->dir, names[i], err); /* of an earlier attempt that was killed */
        if (!rc)
            rc = os_mkdir(a->dir, names[i], 0755, err);
    }
    return rc;
}

static enum err_code fetch_inputs(struct attempt *a, struct err *err)
{
    const struct mat_options how = {.how = MAT_AUTO, .read_only = true, .shielded = a->shield};
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < a->card.input_count; i++) {
        const struct card_object *in = &a->card.inputs[i];
        struct mat_result done;

        rc = materialise(a->store, in->kind, &in->digest,
                         arena_printf(&a->arena, "%s/in/%s", a->path, in->name), &how, &done, err);
        if (rc)
            (void)err_prefix(err, "input %s", in->name);
    }
    return rc;
}

static enum err_code fetch_code(struct attempt *a, struct err *err)
{
    const struct mat_options how = {.how = MAT_COPY};
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < a->card.code_count; i++) {
        const struct card_object *code = &a->card.code[i];
        char *dest = arena_printf(&a->arena, "%s/work/%s", a->path, code->name),
             *slash = strrchr(dest, '/');
        struct mat_result done;
        size_t n = strlen(dest);

        while (n > 0 && dest[n - 1] == '/')
            dest[--n] = '\0';
        slash = strrchr(dest, '/');
        *slash = '\0';
        rc = os_mkdirs(dest, 0755, err);
        *slash = '/';
        if (!rc)
            rc = materialise(a->store, code->kind, &code->digest, dest, &how, &done, err);
        if (rc)
            (void)err_prefix(err, "code %s", code->name);
    }
    return rc;
}

static json_t *contract_input(const struct card_object *in)
{
    char text[DIGEST_TEXT + 1];
    json_t *v, *entries;

    digest_text(&in->digest, text);
    if (!in->entries)
        return json_pack("{s:s+, s:s}", "path", "in/", in->name, "digest", text);
    entries = json_array();
    for (size_t k = 0; k < json_array_size(in->entries); k++) {
        const json_t *e = json_array_get(in->entries, k);
        const char *name = json_string_value(json_object_get(e, "name"));

        CHECK(name);
        json_array_append_new(entries,
                              json_pack("{s:s, s:s+++, s:O}", "name", name, "path", "in/", in->name,
                                        "/", name, "digest", json_object_get(e, "digest")));
    }
    v = json_pack("{s:s+, s:o}", "path", "in/", in->name, "entries", entries);
    return v;
}

/* The card of the stage contract: what the program itself reads. */
static enum err_code write_task_card(struct attempt *a, struct err *err)
{
    const struct attempt_card *c = &a->card;
    json_t *inputs = json_object(), *outputs = json_object(), *root;
    struct buf text = {0};
    enum err_code rc;

    for (size_t i = 0; i < c->input_count; i++)
        json_object_set_new(inputs, c->inputs[i].name, contract_input(&c->inputs[i]));
    for (size_t i = 0; c->outputs[i]; i++)
        json_object_set_new(outputs, c->outputs[i], json_sprintf("out/%s", c->outputs[i]));
    root = json_pack("{s:i, s:s, s:O, s:o, s:o, s:n, s:s, s:I, s:I, s:s, s:I, s:I, s:I}",
                     "contract", 1, "task", c->task, "params", c->params, "inputs", inputs,
                     "outputs", outputs, "resume", "checkpoints", "ckpt", "checkpoint_every_s",
                     (json_int_t)c->checkpoint_every_s, "grace_s", (json_int_t)c->grace_s, "device",
                     c->device, "cpus", (json_int_t)c->cpus, "gpus", (json_int_t)c->gpus, "ranks",
                     (json_int_t)c->ranks);
    CHECK(root);
    buf_init(&text, CARD_BYTES_MAX);
    rc = json_canonical(root, &text, err);
    buf_char(&text, '\n');
    if (!rc)
        rc = buf_check(&text, "task.json", err);
    if (!rc)
        rc = os_write_file(a->dir, "task.json", text.p, text.n, 0644, err);
    buf_release(&text);
    json_decref(root);
    return rc;
}

/* ---- environment ------------------------------------------------------------------------------- */

struct env_list {
    struct arena *arena;
    const char **list;
    size_t count, cap;
};

static void env_add(struct env_list *e, const char *name, const char *value)
{
    if (e->count + 1 >= e->cap) {
        e->cap = e->cap ? 2 * e->cap : 64;
        e->list = mem_grow(e->list, e->cap, sizeof(*e->list));
    }
    e->list[e->count++] = arena_printf(e->arena, "%s=%s", name, value);
    e->list[e->count] = NULL;
}

/* WEIR_INPUT_, name -> WEIR_INPUT_MY_NAME */
static const char *env_name(struct arena *a, const char *prefix, const char *name)
{
    char *s = arena_printf(a, "%s%s", prefix, name);

    for (char *p = s + strlen(prefix); *p; p++)
        *p = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
    return s;
}

static void env_param(struct attempt *a, struct env_list *e, const char *name, const json_t *v)
{
    struct buf text = {0};
    struct err err = ERR_INIT;

    buf_init(&text, CARD_BYTES_MAX);
    if (json_is_string(v))
        buf_str(&text, json_string_value(v));
    else if (json_canonical(v, &text, &err))
        buf_clear(&text);
    env_add(e, env_name(&a->arena, "WEIR_PARAM_", name), text.p ? text.p : "");
    buf_release(&text);
}

static void make_env(struct attempt *a)
{
    static const char *const passed[] = {"PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"};
    const struct attempt_card *c = &a->card;
    struct env_list e = {.arena = &a->arena};
    const char *name;
    json_t *value;

    for (size_t i = 0; i < sizeof(passed) / sizeof(passed[0]); i++)
        if (getenv(passed[i]))
            env_add(&e, passed[i], getenv(passed[i]));
    env_add(&e, "HOME", arena_printf(&a->arena, "%s/home", a->path));
    env_add(&e, "TMPDIR", arena_printf(&a->arena, "%s/tmp", a->path));
    env_add(&e, "LC_ALL", "C.UTF-8");
    env_add(&e, "TZ", "UTC");
    env_add(&e, "OMP_NUM_THREADS", arena_printf(&a->arena, "%lld", (long long)c->cpus));
    env_add(&e, "WEIR_TASK", arena_printf(&a->arena, "%s/task.json", a->path));
    env_add(&e, "WEIR_TASK_DIR", a->path);
    env_add(&e, "WEIR_CHECKPOINTS", arena_printf(&a->arena, "%s/ckpt", a->path));
    for (size_t i = 0; i < c->input_count; i++)
        env_add(&e, env_name(&a->arena, "WEIR_INPUT_", c->inputs[i].name),
                arena_printf(&a->arena, "%s/in/%s", a->path, c->inputs[i].name));
    for (size_t i = 0; c->outputs[i]; i++)
        env_add(&e, env_name(&a->arena, "WEIR_OUTPUT_", c->outputs[i]),
                arena_printf(&a->arena, "%s/out/%s", a->path, c->outputs[i]));
    json_object_foreach((json_t *)(uintptr_t)c->params, name, value) env_param(a, &e, name, value);
    json_object_foreach((json_t *)(uintptr_t)c->env, name, value)
        env_add(&e, name, json_string_value(value) ? json_string_value(value) : "");
    a->envp = e.list;
}

static enum err_code prepare(struct attempt *a, struct err *err)
{
    enum err_code rc = store_open(a->card.store, STORE_WRITE, &a->store, err);

    a->shield = materialise_shield_works();
    if (!rc)
        rc = make_folders(a, err);
    if (!rc)
        rc = fetch_inputs(a, err);
    if (!rc)
        rc = fetch_code(a, err);
    if (!rc)
        rc = write_task_card(a, err);
    if (!rc)
        make_env(a);
    return rc;
}

/* ---- run --------------------------------------------------------------------------------------- */

static enum err_code run(struct attempt *a, struct supervise_result *out, struct err *err)
{
    const struct attempt_card *c = &a->card;
    const size_t count = c->argv ? json_array_size(c->argv) : 3;
    const char **argv = arena_array(&a->arena, count + 1, sizeof(*argv));
    struct supervise_options o = {.argv = argv,
                                  .envp = a->envp,
                                  .task_dir = a->dir,
                                  .work_dir = arena_printf(&a->arena, "%s/work", a->path),
                                  .read_only_dir = arena_printf(&a->arena, "%s/in", a->path),
                                  .shield = a->shield && c->input_count > 0,
                                  .memory_bytes = c->memory_bytes,
                                  .time_s = c->time_s,
                                  .grace_s = c->grace_s};

    if (c->timeout_s > 0 && (o.time_s == 0 || c->timeout_s < o.time_s))
        o.time_s = c->timeout_s;
    if (c->shell) {
        argv[0] = "/bin/sh";
        argv[1] = "-c";
        argv[2] = c->shell;
    }
    for (size_t i = 0; c->argv && i < count; i++)
        argv[i] = json_string_value(json_array_get(c->argv, i));
    return supervise(&o, out, err);
}

/* ---- judge ------------------------------------------------------------------------------------- */

static void say(struct result_card *r, enum attempt_status status, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
static void say(struct result_card *r, enum attempt_status status, const char *fmt, ...)
{
    va_list ap;

    r->status = status;
    va_start(ap, fmt);
    (void)vsnprintf(r->reason, sizeof(r->reason), fmt, ap);
    va_end(ap);
}

/* What the program's end means, before its outputs are looked at. */
static void judge(const struct attempt *a, const struct supervise_result *s, struct result_card *r)
{
    r->exit_status = s->exit_status;
    r->signal = s->signal;
    r->log_bytes = s->log_bytes;
    r->wall_ms = s->wall_ms;
    if (s->not_started)
        say(r, ATTEMPT_FAILED, "could not start %s: %s",
            a->card.shell ? "/bin/sh" : json_string_value(json_array_get(a->card.argv, 0)),
            strerror(s->start_errno));
    else if (s->asked_to_stop && (s->exit_status == EXIT_STOPPED || s->signal))
        say(r, s->timed_out && a->card.timeout_s ? ATTEMPT_FAILED : ATTEMPT_STOPPED, "%s%s",
            s->timed_out ? "its time was up" : "asked to stop",
            s->killed_after_grace ? "; it ignored SIGTERM and was killed" : "");
    else if (s->signal)
        say(r, ATTEMPT_FAILED, "killed by signal %d (%s)", s->signal, strsignal(s->signal));
    else if (s->exit_status == EXIT_BAD_CARD)
        say(r, ATTEMPT_FAILED, "exit status 64: its card or a parameter is wrong; see the log");
    else if (s->exit_status == EXIT_BAD_DATA)
        say(r, ATTEMPT_FAILED, "exit status 65: its input data is wrong; see the log");
    else if (s->exit_status == EXIT_STOPPED)
        say(r, ATTEMPT_STOPPED, "stopped by itself with status 75");
    else if (s->exit_status)
        say(r, ATTEMPT_FAILED, "exit status %d; see the log", s->exit_status);
    else
        say(r, ATTEMPT_DONE, "%s", "");
}

/* ---- collect ----------------------------------------------------------------------------------- */

static bool outputs_exist(struct attempt *a, struct result_card *r)
{
    for (size_t i = 0; a->card.outputs[i]; i++) {
        struct stat st;
        struct err err = ERR_INIT;

        if (os_stat_at(a->dir, arena_printf(&a->arena, "out/%s", a->card.outputs[i]), &st, &err)) {
            say(r, ATTEMPT_FAILED,
                "exit status 0, but output '%s' is not there; the program has to create out/%s",
                a->card.outputs[i], a->card.outputs[i]);
            return false;
        }
    }
    return true;
}

static bool inputs_unchanged(struct attempt *a, struct result_card *r)
{
    for (size_t i = 0; i < a->card.input_count; i++) {
        struct err err = ERR_INIT;

        if (materialise_audit(a->store, a->card.inputs[i].kind, &a->card.inputs[i].digest, &err)) {
            say(r, ATTEMPT_FAILED, "it changed its input '%s': %.300s", a->card.inputs[i].name,
                err.text);
            return false;
        }
    }
    return true;
}

static enum err_code put_tree(struct writer *w, struct tree *t, struct digest *out, int64_t *size,
                              struct err *err)
{
    struct buf text = {0};
    enum err_code rc;

    buf_init(&text, TREE_BYTES_MAX);
    rc = tree_encode(t, &text, err);
    if (!rc)
        rc = writer_put(w, OBJ_TREE, text.p, text.n, out, err);
    *size = (int64_t)text.n;
    buf_release(&text);
    return rc;
}

static enum err_code add_entry(struct tree *t, const char *name, enum obj_kind kind,
                               const struct digest *d, int64_t size, struct err *err)
{
    const struct tree_entry e = {.mode = kind == OBJ_TREE ? TREE_DIR : TREE_FILE,
                                 .name = str_of(name),
                                 .digest = *d,
                                 .size = size};

    return tree_add(t, &e, 0, err);
}

/* Output trees, then the tree of outputs, then the result tree that also holds the action. */
static enum err_code put_result(struct attempt *a, struct writer *w, struct result_card *r,
                                struct err *err)
{
    const struct ingest_options adopt = {.how = INGEST_ADOPT, .no_memo = true};
    struct tree outs = {0}, result = {0};
    struct digest outs_id, key;
    struct buf canonical = {0};
    int64_t outs_size = 0, result_size = 0;
    enum err_code rc = OK;

    tree_init(&outs);
    tree_init(&result);
    buf_init(&canonical, ACTION_BYTES_MAX);
    for (size_t i = 0; !rc && a->card.outputs[i]; i++) {
        struct ingest_result got;

        rc = ingest_path(w, a->dir, arena_printf(&a->arena, "out/%s", a->card.outputs[i]), &adopt,
                         &got, err);
        if (rc)
            break;
        r->outputs[r->output_count++] = (struct card_object){
            .name = a->card.outputs[i], .kind = got.kind, .digest = got.digest, .size = got.size};
        rc = add_entry(&outs, a->card.outputs[i], got.kind, &got.digest, got.size, err);
    }
    if (!rc)
        rc = put_tree(w, &outs, &outs_id, &outs_size, err);
    if (!rc)
        rc = action_key(a->card.action, &key, &canonical, err);
    if (!rc && !digest_eq(&key, &a->card.key))
        rc = err_set(err, ERR_INPUT, "attempt.json: the key is not that of the action");
    if (!rc)
        rc = add_entry(&result, "action.json", OBJ_BLOB, &key, (int64_t)canonical.n, err);
    if (!rc)
        rc = add_entry(&result, "out", OBJ_TREE, &outs_id, outs_size, err);
    if (!rc)
        rc = put_tree(w, &result, &r->result, &result_size, err);
    if (!rc)
        rc = action_put(w, a->card.action, &r->result, &key, err);
    if (!rc)
        writer_touch(w, OBJ_TREE, &r->result);
    buf_release(&canonical);
    tree_release(&outs);
    tree_release(&result);
    return rc;
}

static enum err_code collect(struct attempt *a, struct result_card *r, struct err *err)
{
    struct writer *w = NULL;
    size_t count = 0;
    enum err_code rc;

    while (a->card.outputs[count])
        count++;
    r->outputs = mem_zero(count + 1, sizeof(*r->outputs));
    rc = writer_open(a->store, &w, err);
    if (!rc)
        rc = put_result(a, w, r, err);
    if (!rc)
        rc = writer_commit(w, err);
    writer_release(w);
    if (rc == ERR_INPUT ||
        rc ==
            ERR_CHANGED) { /* the program's fault: a socket in its output, a file still being written */
        say(r, ATTEMPT_FAILED, "its output cannot be kept: %.400s", err->text);
        r->output_count = 0;
        rc = OK;
    }
    return rc;
}

enum err_code attempt_run(const char *task_dir, struct result_card *out, struct err *err)
{
    struct attempt a = {.dir = -1};
    struct supervise_result s = {0};
    enum err_code rc = os_open_dir(AT_FDCWD, task_dir, &a.dir, err);
    char *path = realpath(task_dir, NULL);

    *out = (struct result_card){0};
    arena_init(&a.arena);
    a.path = path ? path : task_dir;
    if (!rc)
        rc = attempt_card_read(a.dir, &a.card, err);
    if (!rc)
        rc = prepare(&a, err);
    if (!rc)
        rc = run(&a, &s, err);
    if (!rc) {
        judge(&a, &s, out);
        if (out->status == ATTEMPT_DONE && inputs_unchanged(&a, out) && outputs_exist(&a, out))
            rc = collect(&a, out, err);
    }
    if (!rc)
        rc = result_card_write(a.dir, out, err);
    free(out->outputs);
    out->outputs = NULL;
    out->output_count = 0;
    store_close(a.store);
    attempt_card_release(&a.card);
    arena_release(&a.arena);
    free(a.envp);
    free(path);
    os_close_quiet(&a.dir);
    return rc;
}

enum err_code attempt_result_outputs(struct store *st, const struct digest *result,
                                     struct tree *out_dir, struct err *err)
{
    struct tree top = {0};
    struct buf text = {0};
    const struct tree_entry *out;
    struct digest id;
    enum err_code rc;

    buf_init(&text, TREE_BYTES_MAX);
    rc = object_read(st, result, TREE_BYTES_MAX, &text, err);
    if (!rc)
        rc = tree_decode(text.p, text.n, 0, "result", &top, err);
    out = rc ? NULL : tree_find(&top, STR("out"));
    if (!rc && (!out || out->mode != TREE_DIR))
        rc = err_set(err, ERR_DAMAGED, "a task's result has no folder 'out'");
    if (!rc) {
        id = out->digest;
        buf_clear(&text);
        rc = object_read(st, &id, TREE_BYTES_MAX, &text, err);
    }
    if (!rc)
        rc = tree_decode(text.p, text.n, 0, "outputs of a result", out_dir, err);
    tree_release(&top);
    buf_release(&text);
    return rc;
}
