/* weir check; and how every command that takes a pipeline reads it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/cli/commands.h"
#include "orchestrator/pipeline_image.h"
#include "orchestrator/program.h"

/* ---- problems ---------------------------------------------------------------------------------- */

/* "file:line:column: text" as JSON; from an option there is no line. */
static json_t *problem_json(const char *line, size_t n)
{
    const char *at = memmem(line, n, ": ", 2);
    const char *text = at ? at + 2 : line;
    char *head = mem_strndup(line, at ? (size_t)(at - line) : 0), *colon;
    long row = 0, column = 0;
    json_t *v;

    /* The last two numbers of the head: a file's name may hold a colon itself. */
    colon = strrchr(head, ':');
    if (colon && colon[1 + strspn(colon + 1, "0123456789")] == '\0') {
        column = strtol(colon + 1, NULL, 10);
        *colon = '\0';
        colon = strrchr(head, ':');
        if (colon) {
            row = strtol(colon + 1, NULL, 10);
            *colon = '\0';
        }
    }
    v = json_pack("{s:o,s:I,s:I,s:o}", "file", cli_json_name(head, strlen(head)), "line",
                  (json_int_t)row, "column", (json_int_t)column, "text",
                  cli_json_name(text, n - (size_t)(text - line)));
    free(head);
    return v;
}

/* To stderr as they are; with --json a line each to stdout.  Returns how many. */
size_t cli_tell_problems(const struct cli *c, const struct buf *problems, struct err *err)
{
    size_t count = 0;

    for (const char *line = problems->p, *end; line && *line; line = end + 1, count++) {
        end = strchrnul(line, '\n');
        if (c->json) {
            if (cli_json(json_pack("{s:o}", "problem", problem_json(line, (size_t)(end - line))),
                         err))
                return count;
        } else {
            struct buf plain;

            buf_init(&plain, 1 << 16);
            for (const char *p = line; p < end; p++) /* a file's name may drive the terminal */
                buf_add(&plain, (unsigned char)*p < 0x20 || *p == 0x7f ? "?" : p, 1);
            (void)fprintf(stderr, "%s\n", plain.p ? plain.p : "");
            buf_release(&plain);
        }
        if (!*end)
            break;
    }
    return count;
}

static enum err_code load(const struct cli *c, const char *file, const struct pipeline_options *o,
                          const char *weir_dir, struct pipeline **out, struct err *err)
{
    struct buf problems;
    enum err_code rc;
    size_t count;

    buf_init(&problems, 1 << 20);
    rc = pipeline_load_kept(file, o, weir_dir, out, &problems, err);
    if (rc == ERR_INPUT || rc == ERR_USAGE) {
        struct err ignored = ERR_INIT; /* the problems matter more than a broken stdout */

        count = cli_tell_problems(c, &problems, &ignored);
        if (count > PIPELINE_ERRORS_MAX) /* the last line says so */
            err_set(err, rc, "%s: %d problems, and maybe more", file, PIPELINE_ERRORS_MAX);
        else
            err_set(err, rc, "%s: %zu problem%s", file, count, count == 1 ? "" : "s");
    }
    buf_release(&problems);
    return rc;
}

/* ---- what commands share ------------------------------------------------------------------------ */

enum err_code cli_pipeline_kept(const struct cli *c, const char *file, const char *weir_dir,
                                struct pipeline **out, struct err *err)
{
    const char **profiles = cli_values(c, "profile"), **files = cli_values(c, "param-file"),
               **sets = cli_values(c, "set");
    const struct pipeline_options o = {profiles, files, sets, 0, 0};
    struct buf found;
    enum err_code rc = OK;

    *out = NULL;
    buf_init(&found, 4096);
    if (!file)
        rc = pipeline_find_file(".", &found, err);
    if (rc == OK)
        rc = load(c, file ? file : found.p, &o, weir_dir, out, err);
    buf_release(&found);
    free(profiles);
    free(files);
    free(sets);
    return rc;
}

enum err_code cli_pipeline(const struct cli *c, const char *file, struct pipeline **out,
                           struct err *err)
{
    return cli_pipeline_kept(c, file, NULL, out, err);
}

enum err_code cli_open_pipeline(const struct cli *c, const char *file, enum store_mode mode,
                                struct store **st, struct pipeline **out, struct err *err)
{
    struct err closed = ERR_INIT;
    const enum err_code no_store = cli_open(c, mode, st, &closed),
                        rc = cli_pipeline_kept(c, file, no_store ? NULL : (*st)->root, out, err);

    if (rc || !no_store)
        return rc;
    *err = closed; /* a wrong file is told even where there is no store */
    return no_store;
}

/* ---- check ------------------------------------------------------------------------------------- */

/* What stands in a profile counts only when it is chosen, so each is tried alone. */
static enum err_code check_profiles(const struct cli *c, const struct pipeline *p, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; p->profiles[i]; i++) {
        const char *const one[] = {p->profiles[i], NULL};
        const struct pipeline_options o = {.profiles = one};
        struct pipeline *with = NULL;
        struct err each = ERR_INIT;

        if (load(c, p->file, &o, NULL, &with, &each))
            rc = err_set(err, each.code, "%s, with --profile %s", each.text, p->profiles[i]);
        pipeline_free(with);
    }
    return rc;
}

/* What programs say about their params can be asked where there is a store that keeps their answers. */
static enum err_code check_programs(const struct cli *c, const struct pipeline *p, struct err *err)
{
    struct err none = ERR_INIT, ignored = ERR_INIT;
    struct programs *programs = NULL;
    struct store *st = NULL;
    struct buf lines;
    bool uses = false;
    enum err_code rc = OK;

    for (size_t i = 0; i < p->stage_count; i++)
        uses = uses || p->stages[i].uses;
    if (!uses || cli_open(c, STORE_WRITE, &st, &none))
        return OK;
    buf_init(&lines, 1 << 20);
    rc = programs_new(st, &programs, err);
    if (!rc)
        rc = program_check(programs, p, &lines, err);
    if (rc == ERR_INPUT && lines.n) {
        const size_t n = cli_tell_problems(c, &lines, &ignored);

        (void)err_set(err, rc, "%s: %zu problem%s", p->file, n, n == 1 ? "" : "s");
    }
    programs_free(programs);
    store_close(st);
    buf_release(&lines);
    return rc;
}

static void summary(const struct pipeline *p)
{
    size_t skipped = 0, profiles = 0;

    for (size_t i = 0; i < p->task_count; i++)
        skipped += p->tasks[i].skipped;
    while (p->profiles[profiles])
        profiles++;
    printf("%s: %zu stage%s, %zu task%s", p->name, p->stage_count, p->stage_count == 1 ? "" : "s",
           p->task_count, p->task_count == 1 ? "" : "s");
    if (skipped)
        printf(" (%zu skipped)", skipped);
    if (p->source_count)
        printf(", %zu source%s", p->source_count, p->source_count == 1 ? "" : "s");
    if (profiles)
        printf(", %zu profile%s", profiles, profiles == 1 ? "" : "s");
    printf(": no problems\n");
}

static enum err_code check_run(struct cli *c, struct err *err)
{
    struct pipeline *p = NULL;
    json_t *json = NULL;
    enum err_code rc = cli_pipeline(c, c->arg_count ? c->args[0] : NULL, &p, err);

    if (rc == OK && !cli_flag(c, "profile"))
        rc = check_profiles(c, p, err);
    if (rc == OK)
        rc = check_programs(c, p, err);
    if (rc == OK && c->json) {
        rc = pipeline_json(p, &json, err);
        if (rc == OK)
            rc = cli_json(json, err);
    } else if (rc == OK && !c->quiet) {
        summary(p);
    }
    pipeline_free(p);
    return rc;
}

static const struct cli_option check_options[] = {CLI_PIPELINE_OPTIONS, {0}};

const struct cli_command cli_check = {
    .name = "check",
    .args = "[FILE]",
    .args_max = 1,
    .summary = "read a pipeline and tell everything that is wrong with it, running nothing",
    .text = "Without FILE the only pipeline in this folder is read.  Without --profile each "
            "profile of the file\n"
            "is tried as well.  Problems are lines of file:line:column: text, which editors "
            "understand.",
    .example = "weir check\nweir check pipelines/quickstart.yaml --set steps=10",
    .json = "the expanded pipeline, all defaults filled in; or a line for each problem:\n"
            "{\"problem\":{\"column\":7,\"file\":\"x.yaml\",\"line\":3,\"text\":\"...\"}}",
    .options = check_options,
    .run = check_run,
};
