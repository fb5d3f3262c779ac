/* pipeline_fuzz.c - any bytes as a pipeline: tasks that hold together, or messages.
 *
 * Lines "#set X" and "#profile X" of the input, comments to YAML, give options too. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "orchestrator/graph.h"
#include "tests/fuzz/fuzz.h"

#define WORDS_MAX 4

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "pipeline_fuzz: not true: %s\n", what);
    abort();
}

static void take_options(char *text, const char **sets, const char **profiles)
{
    size_t set_count = 0, profile_count = 0;

    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        if (strncmp(line, "#set ", 5) == 0 && set_count < WORDS_MAX)
            sets[set_count++] = line + 5;
        if (strncmp(line, "#profile ", 9) == 0 && profile_count < WORDS_MAX)
            profiles[profile_count++] = line + 9;
    }
}

static void check_tasks(const struct pipeline *p)
{
    int *place = calloc(p->task_count + 1, sizeof(int));

    must(place != NULL, "there is memory");
    for (size_t i = 0; i < p->task_count; i++) {
        must(p->order[i] >= 0 && (size_t)p->order[i] < p->task_count, "the order names tasks");
        must(place[p->order[i]] == 0, "each once");
        place[p->order[i]] = (int)i + 1;
        must(pipeline_find_task(p, p->tasks[i].name) == (int)i, "a task is found by its name");
    }
    for (size_t i = 0; i < p->task_count; i++)
        for (size_t k = 0; k < p->tasks[i].input_count; k++) {
            const struct task_input *in = &p->tasks[i].inputs[k];

            must(in->ref_count > 0, "an input has a reference");
            must(in->fan_in || in->ref_count == 1, "several are a fan-in");
            for (size_t r = 0; r < in->ref_count; r++) {
                const int from = in->refs[r].task;

                must((from < 0) != (in->refs[r].source < 0), "it is of one kind");
                must(from < 0 || place[from] < place[i], "inputs come before users");
                must(from < 0 || p->tasks[i].skipped || !p->tasks[from].skipped,
                     "nothing runs on what is skipped");
            }
        }
    free(place);
}

static void check_views(const struct pipeline *p)
{
    struct graph g;
    struct buf out;
    struct err err = ERR_INIT;
    json_t *v = NULL, *again = NULL;

    buf_init(&out, 64 << 20);
    must(pipeline_json(p, &v, &err) == OK, "it is JSON");
    must(json_canonical(v, &out, &err) == OK, "with a canonical form");
    must(json_parse(out.p, out.n, 64 << 20, "pipeline", &again, &err) == OK, "that parses");
    json_decref(v);
    json_decref(again);
    buf_clear(&out);
    graph_new(&g, p);
    graph_text(&g, 200, &out);
    graph_dot(&g, &out);
    must(!out.failed, "a picture has an end");
    graph_free(&g);
    buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *sets[WORDS_MAX + 1] = {0}, *profiles[WORDS_MAX + 1] = {0};
    const struct pipeline_options o = {
        .sets = sets, .profiles = profiles, .tasks_max = 500, .value_bytes_max = 1 << 20};
    struct pipeline *p = NULL;
    struct buf problems;
    struct err err = ERR_INIT;
    char path[64], *text = calloc(1, size + 1);
    const int fd = memfd_create("pipeline", MFD_CLOEXEC);
    enum err_code rc;

    must(text != NULL && fd >= 0 && write(fd, data, size) == (ssize_t)size,
         "the input can be written");
    memcpy(text, data, size);
    take_options(text, sets, profiles);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    buf_init(&problems, 1 << 20);
    rc = pipeline_load(path, &o, &p, &problems, &err);
    must((rc == OK) == (p != NULL), "a pipeline or problems");
    if (p) {
        check_tasks(p);
        check_views(p);
    } else {
        must(err.code == rc && err.text[0], "an error has a text");
        must(problems.n > 0 && problems.p[problems.n - 1] == '\n', "problems are lines");
    }
    pipeline_free(p);
    buf_release(&problems);
    free(text);
    (void)close(fd);
    return 0;
}
