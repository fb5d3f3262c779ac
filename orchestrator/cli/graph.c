/* weir graph */
#include "orchestrator/graph.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "orchestrator/cli/commands.h"

#define TEXT_MAX (256 << 20)
#define COLUMNS_ELSEWHERE 160 /* in a file or a pipe */

static int columns(void)
{
    const char *set = getenv("COLUMNS");
    struct winsize size;
    struct err ignored = ERR_INIT;
    int64_t n;

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    if (set && str_to_i64(str_of(set), 20, 100000, &n, &ignored) == OK)
        return (int)n;
    return COLUMNS_ELSEWHERE;
}

/* dot reads from memory, not from a pipe: if it ends early, nobody is left writing. */
static enum err_code run_dot(int input, struct err *err)
{
    char *argv[] = {(char[]){"dot"}, (char[]){"-Tsvg"}, NULL};
    posix_spawn_file_actions_t actions;
    pid_t child;
    int status, failed;

    CHECK(posix_spawn_file_actions_init(&actions) == 0);
    CHECK(posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO) == 0);
    failed = posix_spawnp(&child, argv[0], &actions, NULL, argv, environ);
    CHECK(posix_spawn_file_actions_destroy(&actions) == 0);
    if (failed == ENOENT)
        return err_set(
            err, ERR_MISSING,
            "SVG is drawn by Graphviz, which is not installed: apt-get install graphviz, or use "
            "--format dot or text");
    if (failed)
        return err_sys(err, failed, "start dot");
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return err_sys(err, errno, "wait for dot");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return err_set(err, ERR_TASK,
                       "dot (Graphviz) could not draw the graph: it ended with %s %d",
                       WIFEXITED(status) ? "status" : "signal",
                       WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    return OK;
}

static enum err_code print_svg(const struct graph *g, struct err *err)
{
    struct buf text;
    enum err_code rc;
    int fd = memfd_create("graph.dot", MFD_CLOEXEC);

    if (fd < 0)
        return err_sys(err, errno, "make a file in memory");
    buf_init(&text, TEXT_MAX);
    graph_dot(g, &text);
    rc = buf_check(&text, "graph", err);
    if (rc == OK)
        rc = os_pwrite(fd, text.p, text.n, 0, err); /* leaves the place at the start */
    if (rc == OK && fflush(stdout) != 0)
        rc = err_sys(err, errno, "write to standard output");
    if (rc == OK)
        rc = run_dot(fd, err);
    buf_release(&text);
    os_close_quiet(&fd);
    return rc;
}

static enum err_code print_json(const struct graph *g, struct err *err)
{
    json_t *nodes = json_array(), *edges = json_array();

    for (int i = 0; i < g->node_count; i++) {
        const struct graph_node *n = &g->nodes[i];

        CHECK(json_array_append_new(nodes,
                                    json_pack("{s:s,s:s,s:i,s:i,s:b}", "name", n->name, "kind",
                                              n->source ? "source" : "stage", "tasks", n->tasks,
                                              "layer", n->layer, "skipped", n->skipped)) == 0);
    }
    for (int i = 0; i < g->edge_count; i++) {
        const struct graph_edge *e = &g->edges[i];

        CHECK(json_array_append_new(edges,
                                    json_pack("{s:i,s:i,s:s,s:s}", "from", e->from, "to", e->to,
                                              "output", e->output, "input", e->input)) == 0);
    }
    return cli_json(json_pack("{s:o,s:o}", "nodes", nodes, "edges", edges), err);
}

static enum err_code print_text(const struct graph *g, bool dot, struct err *err)
{
    struct buf text;
    enum err_code rc;

    buf_init(&text, TEXT_MAX);
    if (dot)
        graph_dot(g, &text);
    else
        graph_text(g, columns(), &text);
    rc = buf_check(&text, "graph", err);
    if (rc == OK)
        rc = cli_write(text.p, text.n, err);
    buf_release(&text);
    return rc;
}

static enum err_code graph_run(struct cli *c, struct err *err)
{
    static const char *const formats[] = {"text", "dot", "svg"};
    const char *format = cli_value(c, "format") ? cli_value(c, "format") : "text";
    struct pipeline *p = NULL;
    struct graph g = {0};
    enum err_code rc = OK;
    size_t f = 0;

    while (f < 3 && strcmp(formats[f], format) != 0)
        f++;
    if (f == 3)
        return err_set(err, ERR_USAGE, "--format is text, dot or svg, not '%s'", format);
    rc = cli_pipeline(c, c->arg_count ? c->args[0] : NULL, &p, err);
    if (rc == OK) {
        graph_new(&g, p);
        rc = c->json  ? print_json(&g, err)
             : f == 2 ? print_svg(&g, err)
                      : print_text(&g, f == 1, err);
    }
    graph_free(&g);
    pipeline_free(p);
    return rc;
}

static const struct cli_option graph_options[] = {
    {"format", 0, "FORMAT", "text (default), dot, or svg by way of Graphviz"},
    CLI_PIPELINE_OPTIONS,
    {0},
};

const struct cli_command cli_graph = {
    .name = "graph",
    .args = "[FILE]",
    .args_max = 1,
    .summary = "draw the stages of a pipeline and what they need from each other",
    .text = "Without FILE the only pipeline in this folder is drawn.  Sources have round brackets; "
            "\"sft \u00d74\" is a\n"
            "stage of four instances.  A graph too wide for the terminal becomes a list by layers.",
    .example = "weir graph\nweir graph pipelines/quickstart.yaml --format svg > quickstart.svg",
    .json = "{\"edges\":[{\"from\":0,\"input\":\"data\",\"output\":\"dataset\",\"to\":1}],\n"
            "\"nodes\":[{\"kind\":\"stage\",\"layer\":0,\"name\":\"profile\",\"skipped\":false,"
            "\"tasks\":1}]}",
    .options = graph_options,
    .run = graph_run,
};
