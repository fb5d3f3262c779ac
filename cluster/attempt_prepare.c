/* From a card to a folder in which the program can start. */
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "cluster/attempt_internal.h"
#include "store/materialise.h"

/* ---- folders and files ------------------------------------------------------------------------- */

static enum err_code make_folders(struct attempt *a, struct err *err)
{
    static const char *const names[] = {"out", "work", "ckpt", "tmp"};
    static const char *const old[] = {"in",   "resume",       "images", "program",
                                      RUNLOG, CAPTURE_EVENTS, TASK_CARD};
    enum err_code rc = OK;

    if (a->again)
        return a->card.input_count ? os_mkdir(a->dir, "in", 0755, err) : OK;

    /* left by an attempt in this folder that was killed */
    for (size_t i = 0; !rc && !a->fresh && i < sizeof(old) / sizeof(old[0]); i++)
        rc = os_remove_tree(a->dir, old[i], err);
    for (size_t i = 0; !rc && i < sizeof(names) / sizeof(names[0]); i++) {
        if (!a->fresh)
            rc = os_remove_tree(a->dir, names[i], err);
        if (!rc)
            rc = os_mkdir(a->dir, names[i], 0755, err);
    }
    if (!rc && a->card.input_count)
        rc = os_mkdir(a->dir, "in", 0755, err);
    return rc;
}

static enum err_code fetch_inputs(struct attempt *a, struct err *err)
{
    struct mat_options how = {.how = MAT_AUTO, .read_only = true};
    enum err_code rc = OK;

    if (a->card.input_count)
        how.shielded = materialise_shield_works();
    for (size_t i = 0; !rc && i < a->card.input_count; i++) {
        const struct card_object *in = &a->card.inputs[i];
        struct mat_result done = {0};

        rc = materialise(a->store, in->kind, &in->digest,
                         arena_printf(&a->arena, "%s/in/%s", a->path, in->name), &how, &done, err);
        a->linked |= done.linked > 0;
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
        char *dest = arena_printf(&a->arena, "%s/work/%s", a->path, code->name), *slash;
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

/* A checkpoint that is not there any more costs time, not the result. */
static enum err_code fetch_resume(struct attempt *a, struct err *err)
{
    const struct mat_options how = {.how = MAT_COPY};
    const struct card_object *from = &a->card.resume;
    struct mat_result done;
    const char *name;
    enum err_code rc;

    if (from->kind == OBJ_NONE)
        return OK;
    name = arena_printf(&a->arena, "resume/step-%lld", (long long)a->card.resume_step);
    rc = os_mkdir(a->dir, "resume", 0755, err);
    if (!rc)
        rc = materialise(a->store, from->kind, &from->digest,
                         arena_printf(&a->arena, "%s/%s", a->path, name), &how, &done, err);
    if (!rc) {
        a->resume = name;
    } else if (rc == ERR_NOT_FOUND || rc == ERR_DAMAGED) {
        struct err note = ERR_INIT;

        rc = runlog_note(&a->log, &note, "starting from the beginning, not from step %lld: %s",
                         (long long)a->card.resume_step, err->text);
        *err = note;
        a->capture.step = -1;
    }
    return rc;
}

static bool is_this_file(const struct card_program *p)
{
    struct err ignored = ERR_INIT;
    struct stat st;

    return os_stat_at(AT_FDCWD, p->path, &st, &ignored) == OK && S_ISREG(st.st_mode) &&
           (int64_t)st.st_ino == p->ino && st.st_size == p->size &&
           st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec == p->mtime_ns;
}

/* The program that was keyed is the one that runs, also when another one has been installed meanwhile. */
static enum err_code fetch_program(struct attempt *a, struct err *err)
{
    const struct mat_options how = {.how = MAT_COPY};
    const struct card_program *p = &a->card.program;
    struct mat_result done;
    enum err_code rc;
    int fd = -1;

    if (a->card.shell) {
        a->program = "/bin/sh";
        return OK;
    }
    a->program = json_string_value(json_array_get(a->card.argv, 0));
    if (!p->path)
        return OK;
    a->program = p->path;
    if (is_this_file(p))
        return OK;
    a->program = arena_printf(&a->arena, "%s/program", a->path);
    rc = materialise(a->store, p->kind, &p->digest, a->program, &how, &done, err);
    if (!rc)
        rc = os_open(a->dir, "program", O_RDONLY, 0, &fd, err);
    if (!rc)
        rc = os_chmod(fd, 0555, err);
    os_close_quiet(&fd);
    if (rc)
        (void)err_prefix(err, "program %s", p->path);
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
    root = json_pack("{s:i, s:s, s:O, s:o, s:o, s:s?, s:s, s:I, s:I, s:s, s:I, s:I, s:I}",
                     "contract", 1, "task", c->task, "params", c->params, "inputs", inputs,
                     "outputs", outputs, "resume", a->resume, "checkpoints", "ckpt",
                     "checkpoint_every_s", (json_int_t)c->checkpoint_every_s, "grace_s",
                     (json_int_t)c->grace_s, "device", c->device, "cpus", (json_int_t)c->cpus,
                     "gpus", (json_int_t)c->gpus, "ranks", (json_int_t)c->ranks);
    CHECK(root);
    buf_init(&text, CARD_BYTES_MAX);
    rc = json_canonical(root, &text, err);
    buf_char(&text, '\n');
    if (!rc)
        rc = buf_check(&text, "task.json", err);
    if (!rc)
        rc = card_overwrite(a->dir, TASK_CARD, text.p, text.n, 0644, err);
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
        *p = (char)(*p == '-' ? '_' : toupper((unsigned char)*p));
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
    static const char *const passed[] = {"PATH", "LD_LIBRARY_PATH"};
    const struct attempt_card *c = &a->card;
    struct env_list e = {.arena = &a->arena};
    const char *name;
    json_t *value;

    for (size_t i = 0; i < sizeof(passed) / sizeof(passed[0]); i++)
        if (getenv(passed[i]))
            env_add(&e, passed[i], getenv(passed[i]));
    env_add(&e, "HOME", arena_printf(&a->arena, "%s/tmp", a->path));
    env_add(&e, "TMPDIR", arena_printf(&a->arena, "%s/tmp", a->path));
    env_add(&e, "LC_ALL", "C.UTF-8");
    env_add(&e, "TZ", "UTC");
    env_add(&e, "OMP_NUM_THREADS", arena_printf(&a->arena, "%lld", (long long)c->cpus));
    env_add(&e, "WEIR_TASK", arena_printf(&a->arena, "%s/task.json", a->path));
    env_add(&e, "WEIR_TASK_DIR", a->path);
    if (c->gpus == 0)
        env_add(&e, "CUDA_VISIBLE_DEVICES", "");
    else if (c->gpu_devices[0] || getenv("CUDA_VISIBLE_DEVICES"))
        env_add(&e, "CUDA_VISIBLE_DEVICES",
                c->gpu_devices[0] ? c->gpu_devices : getenv("CUDA_VISIBLE_DEVICES"));
    if (a->resume)
        env_add(&e, "WEIR_RESUME", arena_printf(&a->arena, "%s/%s", a->path, a->resume));
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

enum err_code attempt_prepare(struct attempt *a, struct err *err)
{
    enum err_code rc = make_folders(a, err);

    if (!rc)
        rc = fetch_inputs(a, err);
    if (!rc)
        rc = fetch_code(a, err);
    if (!rc)
        rc = fetch_resume(a, err);
    if (!rc)
        rc = fetch_program(a, err);
    if (!rc)
        rc = write_task_card(a, err);
    if (!rc)
        make_env(a);
    return rc;
}
