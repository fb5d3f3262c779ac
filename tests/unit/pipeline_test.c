#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"
#include "orchestrator/graph.h"
#include "orchestrator/pipeline.h"
#include "orchestrator/schema.h"
#include "tests/check.h"

struct fixture {
    char dir[TMPDIR_MAX], path[TMPDIR_MAX + 64];
    struct pipeline *p;
    struct buf problems;
    struct err err;
};

static void begin(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    tmpdir_new(f->dir);
    (void)snprintf(f->path, sizeof(f->path), "%s/p.yaml", f->dir);
    buf_init(&f->problems, 1 << 20);
}

static void end(struct fixture *f)
{
    pipeline_free(f->p);
    buf_release(&f->problems);
    tmpdir_free(f->dir);
}

static void put(const struct fixture *f, const char *name, const char *text)
{
    struct err err = ERR_INIT;
    char path[TMPDIR_MAX + 64];

    (void)snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    EXPECT_OK(os_write_file(AT_FDCWD, path, text, strlen(text), 0644, &err), &err);
}

static enum err_code load(struct fixture *f, const char *text, const struct pipeline_options *o)
{
    put(f, "p.yaml", text);
    pipeline_free(f->p);
    buf_clear(&f->problems);
    return pipeline_load(f->path, o, &f->p, &f->problems, &f->err);
}

/* stages of instances each; stage s, instance k needs stage s - 1, instance k. */
static void make_chain(struct buf *out, int stages, int instances)
{
    buf_str(out, "weir: 1\nname: chain\nsources: {s: {path: s, license: MIT}}\nstages:\n");
    for (int s = 0; s < stages; s++) {
        buf_printf(out,
                   "  s%d:\n    uses: vae\n    outputs: [out]\n    params: {id: \"${matrix.k}\", "
                   "same: %d}\n",
                   s, s);
        buf_str(out, "    matrix: {k: [");
        for (int k = 0; k < instances; k++)
            buf_printf(out, "%s%d", k ? ", " : "", k);
        if (s == 0)
            buf_str(out, "]}\n    inputs: {x: sources.s}\n");
        else
            buf_printf(out, "]}\n    inputs: {x: \"s%d[k=${matrix.k}].out\"}\n", s - 1);
    }
}

TEST(tasks_are_found_by_name)
{
    static const char text[] =
        "weir: 1\nname: x\nsources: {src: {path: s, license: MIT}}\nstages:\n"
        "  one: {uses: vae, outputs: [out]}\n"
        "  two: {uses: vae, outputs: [out], matrix: {a: [1, 2, 3], b: [x, y]}}\n"
        "  lr: {uses: vae, outputs: [out], matrix: {lr: [1e-4, 0.5]}}\n";
    struct fixture f;

    begin(&f);
    EXPECT_OK(load(&f, text, NULL), &f.err);
    EXPECT_EQ(pipeline_find_task(f.p, "one"), 0);
    EXPECT_EQ(pipeline_find_task(f.p, "two[a=1,b=x]"), 1);
    EXPECT_EQ(pipeline_find_task(f.p, "two[a=2,b=y]"), 4);
    EXPECT_EQ(pipeline_find_task(f.p, "two[b=y,a=2]"), 4);
    EXPECT_EQ(pipeline_find_task(f.p, "two[a=2, b=y]"), 4);
    EXPECT_EQ(pipeline_find_task(f.p, "lr[lr=0.0001]"), 7);
    EXPECT_EQ(pipeline_find_task(f.p, "lr[lr=1e-4]"), 7);
    EXPECT_EQ(pipeline_find_stage(f.p, "lr"), 2);
    EXPECT_EQ(pipeline_find_source(f.p, "src"), 0);

    static const char *const absent[] = {"",
                                         "on",
                                         "one[]",
                                         "one[a=1]",
                                         "two",
                                         "two[]",
                                         "two[",
                                         "two]",
                                         "two[a=1]",
                                         "two[a=1,b=z]",
                                         "two[a=1,a=1]",
                                         "two[a=1,b=x",
                                         "two[a=1,b=x]x",
                                         "two[a,b]",
                                         "two[=1,=x]",
                                         "two[a=,b=x]",
                                         "two[a=1,b=x,]",
                                         "lr[lr=nan]",
                                         "lr[lr=1e]",
                                         "src",
                                         "[a=1]"};

    for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++)
        EXPECT_EQ(pipeline_find_task(f.p, absent[i]), -1);
    EXPECT_EQ(pipeline_find_stage(f.p, "l"), -1);
    EXPECT_EQ(pipeline_find_stage(f.p, ""), -1);
    EXPECT_EQ(pipeline_find_source(f.p, "one"), -1);
    end(&f);
}

TEST(ten_thousand_tasks_meet_their_own_kind)
{
    struct fixture f;
    struct buf text;

    begin(&f);
    buf_init(&text, 1 << 20);
    make_chain(&text, 100, 100);
    EXPECT_OK(load(&f, text.p, NULL), &f.err);
    EXPECT_EQ(f.p->task_count, 10000);
    for (int s = 0; s < 100; s++)
        for (int k = 0; k < 100; k++) {
            const struct task *t = &f.p->tasks[100 * s + k];

            EXPECT_EQ(t->stage, s);
            EXPECT_EQ(json_integer_value(t->matrix[0].value), k);
            EXPECT_EQ(json_integer_value(t->params[0].value), k);
            EXPECT_EQ(json_integer_value(t->params[1].value), s);
            EXPECT_EQ(t->inputs[0].ref_count, 1);
            EXPECT_EQ(t->inputs[0].refs[0].task, s ? 100 * (s - 1) + k : -1);
            EXPECT_EQ(f.p->order[100 * s + k], 100 * s + k);
        }
    /* What does not depend on the instance is there once. */
    EXPECT(f.p->tasks[0].inputs == f.p->tasks[99].inputs);
    EXPECT(f.p->tasks[0].params[1].value == f.p->tasks[99].params[1].value);
    EXPECT(f.p->arena.total < (size_t)6 << 20);
    buf_release(&text);
    end(&f);
}

TEST(the_same_file_gives_the_same_json)
{
    static const char text[] =
        "weir: 1\nname: x\nparams: {b: 1, a: [2, {z: 1, y: 2}]}\nstages:\n"
        "  a: {run: \"tool {params.p}\", outputs: [out], params: {p: \"${params.b}\"}}\n";
    struct fixture f;
    struct buf one, two;
    json_t *v;

    begin(&f);
    buf_init(&one, 1 << 20);
    buf_init(&two, 1 << 20);
    EXPECT_OK(load(&f, text, NULL), &f.err);
    EXPECT_OK(pipeline_json(f.p, &v, &f.err), &f.err);
    EXPECT_OK(json_canonical(v, &one, &f.err), &f.err);
    json_decref(v);
    EXPECT_OK(load(&f, text, NULL), &f.err);
    EXPECT_OK(pipeline_json(f.p, &v, &f.err), &f.err);
    EXPECT_OK(json_canonical(v, &two, &f.err), &f.err);
    json_decref(v);
    EXPECT_STR(one.p, two.p);
    buf_release(&one);
    buf_release(&two);
    end(&f);
}

TEST(what_a_file_can_ask_for_is_bounded)
{
    static const char text[] = "weir: 1\nname: x\nstages:\n"
                               "  a: {uses: vae, outputs: [out], matrix: {k: [1, 2, 3, 4]}, "
                               "params: {p: \"${matrix.k} long enough to count\"}}\n"
                               "  b: {uses: vae, outputs: [out], inputs: {x: \"a[*].out\"}}\n";
    struct pipeline_options o = {.tasks_max = 5};
    struct fixture f;

    begin(&f);
    EXPECT_OK(load(&f, text, &o), &f.err);
    o.tasks_max = 4;
    EXPECT_ERR(load(&f, text, &o), ERR_INPUT, &f.err);
    EXPECT(strstr(f.err.text, "p.yaml:5:3: more than 4 tasks, counted up to stage b") != NULL);
    EXPECT(strchr(f.problems.p, '\n')[1] == '\0');
    o = (struct pipeline_options){.value_bytes_max = 300};
    EXPECT_ERR(load(&f, text, &o), ERR_INPUT, &f.err);
    EXPECT(strstr(f.err.text, "too much memory") != NULL);
    EXPECT(strchr(f.problems.p, '\n')[1] == '\0');
    end(&f);
}

/* 4,000 instances that each take all of 4,000 others would be 16 million references. */
TEST(fan_ins_of_fan_ins_are_bounded)
{
    struct fixture f;
    struct buf text;

    begin(&f);
    buf_init(&text, 1 << 20);
    buf_str(&text, "weir: 1\nname: x\nparams: {all: [0");
    for (int k = 1; k < 4000; k++)
        buf_printf(&text, ", %d", k);
    buf_str(&text, "]}\nstages:\n"
                   "  a: {uses: vae, outputs: [out], matrix: {k: \"${params.all}\"}}\n"
                   "  b: {uses: vae, outputs: [out], matrix: {k: \"${params.all}\"}, inputs: {x: "
                   "\"a[*].out\"}}\n");
    EXPECT_ERR(load(&f, text.p, NULL), ERR_INPUT, &f.err);
    EXPECT(strstr(f.err.text, "more than 10000000 references between tasks") != NULL);
    EXPECT(strchr(f.problems.p, '\n')[1] == '\0');
    buf_release(&text);
    end(&f);
}

TEST(files_that_cannot_be_read)
{
    struct fixture f;
    char *large = malloc(PIPELINE_BYTES_MAX + 1);

    begin(&f);
    EXPECT_ERR(pipeline_load(f.path, NULL, &f.p, &f.problems, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT(f.p == NULL);
    EXPECT(strstr(f.problems.p, "p.yaml") != NULL);
    EXPECT(pipeline_load(f.dir, NULL, &f.p, NULL, &f.err) != OK);
    EXPECT_ERR(load(&f, "a: [", NULL), ERR_INPUT, &f.err);
    memset(large, '#', PIPELINE_BYTES_MAX);
    large[PIPELINE_BYTES_MAX] = '\0';
    EXPECT_ERR(load(&f, large, NULL), ERR_INPUT, &f.err); /* one long comment */
    free(large);
    end(&f);
}

TEST(too_large_a_file_is_refused)
{
    struct fixture f;

    begin(&f);
    put(&f, "p.yaml", "weir: 1\n");
    EXPECT_EQ(truncate(f.path, PIPELINE_BYTES_MAX + 1), 0);
    EXPECT_ERR(pipeline_load(f.path, NULL, &f.p, NULL, &f.err), ERR_LIMIT, &f.err);
    end(&f);
}

TEST(the_only_pipeline_of_a_folder)
{
    struct fixture f;
    struct buf path;
    char expected[TMPDIR_MAX + 64];

    begin(&f);
    buf_init(&path, 4096);
    EXPECT_ERR(pipeline_find_file(f.dir, &path, &f.err), ERR_NOT_FOUND, &f.err);
    put(&f, "compose.yaml", "services: {}\n");
    put(&f, "notes.txt", "weir: 1\n");
    put(&f, ".hidden.yaml", "weir: 1\n");
    EXPECT_ERR(pipeline_find_file(f.dir, &path, &f.err), ERR_NOT_FOUND, &f.err);
    put(&f, "train.yml", "# mine\n\"weir\": 1\n");
    EXPECT_OK(pipeline_find_file(f.dir, &path, &f.err), &f.err);
    (void)snprintf(expected, sizeof(expected), "%s/train.yml", f.dir);
    EXPECT_STR(path.p, expected);
    put(&f, "other.yaml", "name: x\nweir: 1");
    EXPECT_ERR(pipeline_find_file(f.dir, &path, &f.err), ERR_USAGE, &f.err);
    EXPECT(strstr(f.err.text, "other.yaml") && strstr(f.err.text, "train.yml"));
    EXPECT_ERR(pipeline_find_file("/nowhere", &path, &f.err), ERR_NOT_FOUND, &f.err);
    buf_release(&path);
    end(&f);
}

TEST(a_file_knows_its_folder)
{
    static const char text[] = "weir: 1\nname: x\nstages: {a: {uses: vae, outputs: [o]}}\n";
    struct fixture f;
    char *here = getcwd(NULL, 0);

    begin(&f);
    EXPECT_OK(load(&f, text, NULL), &f.err);
    EXPECT_STR(f.p->dir, f.dir);
    EXPECT_EQ(chdir(f.dir), 0);
    pipeline_free(f.p);
    EXPECT_OK(pipeline_load("p.yaml", NULL, &f.p, NULL, &f.err), &f.err);
    EXPECT_STR(f.p->dir, ".");
    EXPECT_EQ(chdir(here), 0);
    free(here);
    end(&f);
}

/* ---- the picture ------------------------------------------------------------------------------- */

static const char diamond[] =
    "weir: 1\nname: x\nsources: {s: {path: s, license: MIT}, idle: {path: t, license: MIT}}\n"
    "stages:\n"
    "  top: {uses: vae, outputs: [out], inputs: {x: sources.s}}\n"
    "  left: {uses: vae, outputs: [out], inputs: {x: top.out}}\n"
    "  right: {uses: vae, outputs: [out], matrix: {k: [1, 2]}, inputs: {x: top.out}}\n"
    "  join: {uses: vae, outputs: [out], inputs: {a: left.out, b: \"right[*].out\", c: top.out}}\n";

TEST(a_graph_in_boxes)
{
    struct fixture f;
    struct graph g;
    struct buf out;

    begin(&f);
    buf_init(&out, 1 << 20);
    EXPECT_OK(load(&f, diamond, NULL), &f.err);
    graph_new(&g, f.p);
    EXPECT_EQ(g.node_count, 5);
    EXPECT_EQ(g.edge_count, 6);
    EXPECT_EQ(g.layer_count, 4);
    graph_text(&g, 80, &out);
    EXPECT_STR(out.p, "             ┌───┐\n"
                      "             ( s )\n"
                      "             └─┬─┘\n"
                      "            ┌──┴──┐\n"
                      "            │ top │\n"
                      "            └──┬──┘\n"
                      "    ┌──────────┴┬────────┐\n"
                      "┌───┴──┐  ┌─────┴────┐   │\n"
                      "│ left │  │ right ×2 │   │\n"
                      "└───┬──┘  └─────┬────┘   │\n"
                      "    └──────────┐│        │\n"
                      "               ├┘        │\n"
                      "               ├─────────┘\n"
                      "           ┌───┴──┐\n"
                      "           │ join │\n"
                      "           └──────┘\n");
    graph_free(&g);
    buf_release(&out);
    end(&f);
}

TEST(a_graph_too_wide_is_a_list)
{
    struct fixture f;
    struct graph g;
    struct buf out;

    begin(&f);
    buf_init(&out, 1 << 20);
    EXPECT_OK(load(&f, diamond, NULL), &f.err);
    graph_new(&g, f.p);
    graph_text(&g, 10, &out);
    EXPECT_STR(out.p, "   0  sources.s\n"
                      "   1  top \u2190 sources.s\n"
                      "   2  left \u2190 top\n"
                      "   2  right \u00d72 \u2190 top\n"
                      "   3  join \u2190 top, left, right\n");
    graph_free(&g);
    graph_free(&g); /* fine on an empty one */
    buf_release(&out);
    end(&f);
}

TEST(a_graph_for_graphviz)
{
    struct fixture f;
    struct graph g;
    struct buf out;

    begin(&f);
    buf_init(&out, 1 << 20);
    EXPECT_OK(load(&f, diamond, NULL), &f.err);
    graph_new(&g, f.p);
    graph_dot(&g, &out);
    EXPECT(strstr(out.p, "digraph \"x\" {\n") == out.p);
    EXPECT(strstr(out.p, "\"sources.s\" [label=\"s\\nMIT\", shape=folder") != NULL);
    EXPECT(strstr(out.p, "\"right\" [label=\"right \u00d72\", peripheries=2];\n") != NULL);
    EXPECT(strstr(out.p, "  \"left\" -> \"join\" [label=\"out \u2192 a\"];\n") != NULL);
    EXPECT(strstr(out.p, "idle") == NULL);
    graph_free(&g);
    buf_release(&out);
    end(&f);
}

/* Instances may need each other across stages without any task needing itself. */
TEST(a_graph_of_stages_that_go_back_and_forth)
{
    static const char text[] =
        "weir: 1\nname: x\nstages:\n"
        "  a: {uses: vae, outputs: [o], matrix: {k: [1, 2], from: [start, b]}, inputs: {x: "
        "\"${matrix.from}.o\"}}\n"
        "  b: {uses: vae, outputs: [o], inputs: {x: \"a[k=1,from=start].o\"}}\n"
        "  start: {uses: vae, outputs: [o]}\n";
    struct fixture f;
    struct graph g;
    struct buf out;

    begin(&f);
    buf_init(&out, 1 << 20);
    EXPECT_OK(load(&f, text, NULL), &f.err);
    graph_new(&g, f.p);
    graph_text(&g, 80, &out);
    EXPECT(strstr(out.p, "and instances of b need a\n") != NULL);
    graph_free(&g);
    buf_release(&out);
    end(&f);
}

TEST(the_schema_is_json)
{
    struct err err = ERR_INIT;
    json_t *v;

    EXPECT_OK(schema_json(&v, &err), &err);
    EXPECT(json_is_object(json_object_get(v, "$defs")));
    json_decref(v);
}

RUN(tasks_are_found_by_name, ten_thousand_tasks_meet_their_own_kind,
    the_same_file_gives_the_same_json, what_a_file_can_ask_for_is_bounded,
    fan_ins_of_fan_ins_are_bounded, files_that_cannot_be_read, too_large_a_file_is_refused,
    the_only_pipeline_of_a_folder, a_file_knows_its_folder, a_graph_in_boxes,
    a_graph_too_wide_is_a_list, a_graph_for_graphviz, a_graph_of_stages_that_go_back_and_forth,
    the_schema_is_json)
