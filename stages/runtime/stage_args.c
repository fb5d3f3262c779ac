/* The command line, for a person or a test. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "stages/runtime/stage_internal.h"

#define ENTRIES_MAX 4096

struct args {
    struct stage_task *t;
    int argc, at;
    char **argv;
};

static enum err_code pair(struct args *a, const char *option, const char *text, const char **key,
                          const char **value, struct err *err)
{
    const char *eq = strchr(text, '=');

    if (!eq || eq == text || (!eq[1] && strcmp(option, "--set") != 0))
        return err_set(err, ERR_USAGE, "%s wants NAME=%s, not '%.100s'", option,
                       strcmp(option, "--set") == 0 ? "VALUE" : "PATH", text);
    *key = arena_strndup(&a->t->arena, text, (size_t)(eq - text));
    *value = eq + 1;
    return OK;
}

/* A second --in of one name makes both entries of it, named by the last part of their paths. */
static enum err_code add_input(struct args *a, const char *name, const char *path, struct err *err)
{
    struct stage_task *t = a->t;
    struct stage_input *in = NULL;
    struct stage_entry *list;

    for (size_t i = 0; i < t->input_count; i++)
        if (strcmp(t->inputs[i].name, name) == 0)
            in = &t->inputs[i];
    if (!in) {
        stage_task_input(t, name, path, "", NULL, 0);
        return OK;
    }
    if (in->entry_count >= ENTRIES_MAX)
        return err_set(err, ERR_USAGE, "--in %s: more than %d of them", name, ENTRIES_MAX);
    list = arena_array(&t->arena, in->entry_count + 2, sizeof(*list));
    if (in->entry_count == 0)
        list[in->entry_count++] = (struct stage_entry){NULL, in->path, ""};
    else
        memcpy(list, in->entries, in->entry_count * sizeof(*list));
    list[in->entry_count++] = (struct stage_entry){NULL, arena_strdup(&t->arena, path), ""};
    for (size_t i = 0; i < in->entry_count; i++) {
        const char *slash = strrchr(list[i].path, '/');

        list[i].name = slash && slash[1] ? slash + 1 : list[i].path;
    }
    in->entries = list;
    return OK;
}

static enum err_code set_param(struct args *a, const char *key, const char *text, struct err *err)
{
    const struct stage_param *q = a->t->program->params;
    json_t *v = NULL;
    enum err_code rc;

    while (q && q->name && strcmp(q->name, key) != 0)
        q++;
    /* An unknown name is kept, so that the one check that suggests a better one sees it. */
    rc = stage_value_parse(q && q->name ? q->type : STAGE_STRING, text, &v, err);
    if (rc)
        return err_prefix(err, "parameter %s", key);
    CHECK(json_object_set_new(a->t->params, key, v) == 0);
    return OK;
}

static enum err_code number(const char *option, const char *text, int *out, struct err *err)
{
    int64_t n;

    if (str_to_i64(str_of(text), 1, 4096, &n, err))
        return err_set(err, ERR_USAGE, "%s is 1 to 4096, not '%.100s'", option, text);
    *out = (int)n;
    return OK;
}

static enum err_code one_option(struct args *a, const char *option, const char *value,
                                struct err *err)
{
    struct stage_task *t = a->t;
    const char *key = NULL, *rest = NULL;
    enum err_code rc;

    if (strcmp(option, "--in") == 0 || strcmp(option, "--out") == 0 ||
        strcmp(option, "--set") == 0) {
        rc = pair(a, option, value, &key, &rest, err);
        if (rc)
            return rc;
        if (option[2] == 'i')
            return add_input(a, key, rest, err);
        if (option[2] == 's')
            return set_param(a, key, rest, err);
        if (stage_output(t, key))
            return err_set(err, ERR_USAGE, "--out %s is given twice", key);
        stage_task_output(t, key, rest);
        return OK;
    }
    if (strcmp(option, "--resume") == 0)
        t->resume = value;
    else if (strcmp(option, "--checkpoints") == 0)
        t->checkpoints = value;
    else if (strcmp(option, "--threads") == 0)
        return number(option, value, &t->threads, err);
    else if (strcmp(option, "--device") == 0)
        t->device = value;
    else /* --events */
        return os_open(AT_FDCWD, value, O_WRONLY | O_CREAT | O_APPEND, 0644, &t->event_fd, err);
    if (strcmp(t->device, "cpu") != 0 && strcmp(t->device, "cuda") != 0)
        return err_set(err, ERR_USAGE, "--device is cpu or cuda, not '%.100s'", value);
    return OK;
}

enum err_code stage_args_read(int argc, char **argv, struct stage_task *t, enum stage_wish *wish,
                              struct err *err)
{
    static const char *const options[] = {"--in",          "--out",     "--set",    "--resume",
                                          "--checkpoints", "--threads", "--device", "--events",
                                          "--help",        "--describe"};
    struct args a = {.t = t, .argc = argc, .argv = argv};
    enum err_code rc = OK;

    *wish = STAGE_RUN;
    for (a.at = 1; !rc && a.at < argc; a.at++) {
        const char *word = argv[a.at], *near;
        size_t i = 0;

        while (i < 10 && strcmp(options[i], word) != 0)
            i++;
        if (i >= 8 && i < 10) {
            *wish = i == 8 ? STAGE_HELP : STAGE_DESCRIBE;
            return OK;
        }
        if (i == 10) {
            near = str_nearest(word, options, 10);
            return err_set(err, ERR_USAGE, "unknown argument '%.100s'%s%s%s; try --help", word,
                           near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
        }
        if (a.at + 1 >= argc)
            return err_set(err, ERR_USAGE, "%s wants a value after it", word);
        rc = one_option(&a, word, argv[++a.at], err);
    }
    return rc;
}
