/* main of every stage program. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "stages/runtime/stage_internal.h"

static volatile sig_atomic_t stopping;

static void on_signal(int sig)
{
    (void)sig;
    stopping = 1;
}

bool stage_stopping(void)
{
    return stopping != 0;
}

enum err_code stage_stopped(struct err *err)
{
    return err_set(err, ERR_STOPPED, "stopped on request");
}

/* ---- the task ------------------------------------------------------------------------------------- */

void stage_task_init(struct stage_task *t, const struct stage_program *p)
{
    *t = (struct stage_task){.program = p,
                             .name = p->name,
                             .device = "cpu",
                             .threads = os_cpu_count(),
                             .ranks = 1,
                             .grace_s = 30,
                             .checkpoint_every_s = 300,
                             .event_fd = -1};
    arena_init(&t->arena);
    t->params = json_object();
    CHECK(t->params);
}

void stage_task_release(struct stage_task *t)
{
    json_decref(t->params);
    free(t->inputs);
    free(t->outputs);
    os_close_quiet(&t->event_fd);
    arena_release(&t->arena);
}

void stage_task_input(struct stage_task *t, const char *name, const char *path, const char *digest,
                      const struct stage_entry *entries, size_t entry_count)
{
    t->inputs = mem_grow(t->inputs, t->input_count + 1, sizeof(*t->inputs));
    t->inputs[t->input_count++] =
        (struct stage_input){arena_strdup(&t->arena, name), arena_strdup(&t->arena, path),
                             arena_strdup(&t->arena, digest), entries, entries ? entry_count : 0};
}

void stage_task_output(struct stage_task *t, const char *name, const char *path)
{
    t->outputs = mem_grow(t->outputs, t->output_count + 1, sizeof(*t->outputs));
    t->outputs[t->output_count++] =
        (struct stage_output){arena_strdup(&t->arena, name), arena_strdup(&t->arena, path)};
}

const struct stage_input *stage_input(const struct stage_task *t, const char *name)
{
    for (size_t i = 0; i < t->input_count; i++)
        if (strcmp(t->inputs[i].name, name) == 0)
            return &t->inputs[i];
    return NULL;
}

const char *stage_output(const struct stage_task *t, const char *name)
{
    for (size_t i = 0; i < t->output_count; i++)
        if (strcmp(t->outputs[i].name, name) == 0)
            return t->outputs[i].path;
    return NULL;
}

enum err_code stage_output_dir(const struct stage_task *t, const char *name, const char **path,
                               struct err *err)
{
    struct os_entry *list = NULL;
    size_t count = 0;
    int fd = -1;
    enum err_code rc;

    *path = stage_output(t, name);
    if (!*path)
        return OK;
    rc = os_mkdirs(*path, 0755, err);
    if (!rc)
        rc = os_open_dir(AT_FDCWD, *path, &fd, err);
    if (!rc)
        rc = os_list(fd, &list, &count, err);
    if (!rc && count > 0)
        rc = err_set(err, ERR_USAGE,
                     "output %s: %s holds '%s' already; remove it or choose another place", name,
                     *path, list[0].name);
    os_close_quiet(&fd);
    free(list);
    return rc;
}

static const json_t *value(const struct stage_task *t, const char *name)
{
    const json_t *v = json_object_get(t->params, name);

    CHECK(v);
    return v;
}

int64_t stage_int(const struct stage_task *t, const char *name)
{
    CHECK(json_is_integer(value(t, name)));
    return json_integer_value(value(t, name));
}

double stage_float(const struct stage_task *t, const char *name)
{
    CHECK(json_is_number(value(t, name)));
    return json_number_value(value(t, name));
}

bool stage_bool(const struct stage_task *t, const char *name)
{
    CHECK(json_is_boolean(value(t, name)));
    return json_is_true(value(t, name));
}

const char *stage_string(const struct stage_task *t, const char *name)
{
    CHECK(json_is_string(value(t, name)));
    return json_string_value(value(t, name));
}

/* ---- main ----------------------------------------------------------------------------------------- */

int stage_exit_status(enum err_code code)
{
    const int status = err_exit_status(code);

    if (code == OK)
        return 0;
    if (code == ERR_USAGE)
        return 64;
    if (code == ERR_INPUT || code == ERR_LIMIT || code == ERR_NOT_FOUND)
        return 65;
    if (code == ERR_STOPPED)
        return 75;
    /* what the contract gives a meaning must mean it */
    return status == 64 || status == 65 || status == 75 || status == 0 ? 70 : status;
}

static enum err_code print(enum stage_wish wish, const struct stage_program *p, struct err *err)
{
    struct buf text;
    enum err_code rc = OK;

    buf_init(&text, 2 << 20);
    if (wish == STAGE_HELP)
        stage_help_text(p, &text);
    else
        rc = stage_describe_text(p, &text, err);
    if (!rc)
        rc = buf_check(&text, "answer", err);
    if (!rc)
        rc = os_write(STDOUT_FILENO, text.p, text.n, err);
    buf_release(&text);
    return rc;
}

static void catch_signals(void)
{
    struct sigaction on = {.sa_handler = on_signal}, off = {.sa_handler = SIG_IGN};

    CHECK(sigaction(SIGTERM, &on, NULL) == 0);
    CHECK(sigaction(SIGINT, &on, NULL) == 0);
    CHECK(sigaction(SIGPIPE, &off, NULL) ==
          0); /* a reader of events that left is an error, not an end */
}

static enum err_code prepare(const struct stage_program *p, int argc, char **argv,
                             struct stage_task *t, enum stage_wish *wish, struct err *err)
{
    enum err_code rc = stage_args_read(argc, argv, t, wish, err);

    if (rc || *wish != STAGE_RUN)
        return rc;
    if (getenv("WEIR_TASK")) {
        if (argc > 1)
            return err_set(
                err, ERR_USAGE,
                "WEIR_TASK is set, so the card says everything; unset it to use options");
        rc = stage_card_read(t, err);
    }
    if (!rc)
        rc = stage_params_complete(p, t->params, err);
    return rc ? rc : stage_ports_check(t, err);
}

int stage_main(const struct stage_program *p, int argc, char **argv)
{
    enum stage_wish wish = STAGE_RUN;
    struct err err = ERR_INIT;
    struct stage_task t;
    enum err_code rc;

    os_hold_stdio();
    fault_from_env();
    log_setup(LOG_INFO);
    catch_signals();
    stage_task_init(&t, p);
    rc = prepare(p, argc, argv, &t, &wish, &err);
    if (!rc)
        rc = wish == STAGE_RUN ? p->run(&t, &err) : print(wish, p, &err);
    if (rc)
        log_line(LOG_ERROR, "%s: %s", p->name, err.text);
    stage_task_release(&t);
    return stage_exit_status(rc);
}
