/* The graph of a run, made by hand in a small store: who made what, in both directions, under which licences. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/lineage.h"
#include "store/tree.h"
#include "store/writer.h"
#include "tests/check.h"

struct world {
    char dir[TMPDIR_MAX];
    struct store *st;
    struct writer *w;
    struct tree tasks; /* of the run that is being made */
    struct buf events;
    struct lineage *g;
    struct err err;
};

static void world_new(struct world *w)
{
    *w = (struct world){.err = ERR_INIT};
    tmpdir_new(w->dir);
    EXPECT_OK(store_init(w->dir, NULL, &w->err), &w->err);
    EXPECT_OK(store_open(w->dir, STORE_WRITE, &w->st, &w->err), &w->err);
    EXPECT_OK(writer_open(w->st, &w->w, &w->err), &w->err);
    tree_init(&w->tasks);
    buf_init(&w->events, 1 << 20);
}

static void world_free(struct world *w)
{
    lineage_free(w->g);
    writer_release(w->w);
    store_close(w->st);
    tree_release(&w->tasks);
    buf_release(&w->events);
    tmpdir_free(w->dir);
}

static struct digest put(struct world *w, enum obj_kind kind, const char *p, size_t n)
{
    struct digest d;

    EXPECT_OK(writer_put(w->w, kind, p, n, &d, &w->err), &w->err);
    return d;
}

static struct digest put_text(struct world *w, const char *s)
{
    return put(w, OBJ_BLOB, s, strlen(s));
}

static struct digest put_tree(struct world *w, struct tree *t)
{
    struct buf text;
    struct digest d;

    buf_init(&text, 1 << 20);
    EXPECT_OK(tree_encode(t, &text, &w->err), &w->err);
    d = put(w, OBJ_TREE, text.p, text.n);
    buf_release(&text);
    tree_release(t);
    tree_init(t);
    return d;
}

static void add(struct world *w, struct tree *t, bool dir, const char *name, struct digest d)
{
    const struct tree_entry e = {
        .mode = dir ? TREE_DIR : TREE_FILE, .name = str_of(name), .digest = d};

    EXPECT_OK(tree_add(t, &e, 0, &w->err), &w->err);
}

/* A folder with licenses.json in it. */
static struct digest put_dataset(struct world *w, const char *licenses)
{
    struct tree t;

    tree_init(&t);
    add(w, &t, false, "licenses.json", put_text(w, licenses));
    return put_tree(w, &t);
}

static void source(struct world *w, const char *name, struct digest d, const char *license,
                   const char *entry)
{
    char hex[DIGEST_TEXT + 1], of_entry[DIGEST_TEXT + 3] = "null";

    digest_text(&d, hex);
    if (entry) {
        const struct digest e = put_text(w, entry);

        of_entry[0] = '"';
        digest_text(&e, of_entry + 1);
        (void)snprintf(of_entry + 1 + DIGEST_TEXT, 2, "\"");
    }
    buf_printf(
        &w->events,
        "{\"entry\":%s,\"event\":\"run.source\",\"digest\":\"%s\",\"source\":\"%s\"%s%s%s}\n",
        of_entry, hex, name, license ? ",\"license\":\"" : "", license ? license : "",
        license ? "\"" : "");
}

/* A task with one output and up to two inputs. */
static void task_of(struct world *w, const char *name, struct digest out, bool out_is_dir,
                    const struct digest *in1, const struct digest *in2)
{
    char hex[2][DIGEST_TEXT + 1] = {"", ""}, action[1024];
    struct tree outs, result;

    if (in1)
        digest_text(in1, hex[0]);
    if (in2)
        digest_text(in2, hex[1]);
    snprintf(action, sizeof(action),
             "{\"device\":\"cpu\",\"inputs\":[%s%s%s%s%s%s],\"name\":\"%s\",\"params\":{\"lr\":1}}",
             in1 ? "{\"digest\":\"" : "", hex[0], in1 ? "\",\"name\":\"one\"}" : "",
             in2 ? ",{\"entries\":[{\"digest\":\"" : "", hex[1],
             in2 ? "\"}],\"name\":\"two\"}" : "", name);
    tree_init(&outs);
    tree_init(&result);
    add(w, &outs, out_is_dir, "o", out);
    add(w, &result, false, "action.json", put_text(w, action));
    add(w, &result, true, "out", put_tree(w, &outs));
    add(w, &w->tasks, true, name, put_tree(w, &result));
    tree_release(&outs);
    tree_release(&result);
}

static void keep_run(struct world *w, int run)
{
    struct tree top;
    char ref[32];
    struct buf all;
    struct digest d;

    buf_init(&all, 1 << 20);
    buf_str(&all, "{\"event\":\"run.begin\",\"pipeline\":\"p\"}\n");
    buf_add(&all, w->events.p ? w->events.p : "", w->events.n);
    tree_init(&top);
    add(w, &top, false, "events", put(w, OBJ_BLOB, all.p, all.n));
    add(w, &top, true, "tasks", put_tree(w, &w->tasks));
    d = put_tree(w, &top);
    snprintf(ref, sizeof(ref), "runs/run-%d", run);
    EXPECT_OK(writer_ref(w->w, str_of(ref), OBJ_TREE, &d, &w->err), &w->err);
    EXPECT_OK(writer_commit(w->w, &w->err), &w->err);
    tree_release(&top);
    buf_release(&all);
    buf_clear(&w->events);
}

static void load(struct world *w, int run)
{
    lineage_free(w->g);
    w->g = NULL;
    EXPECT_OK(lineage_load(w->st, run, &w->g, &w->err), &w->err);
}

static int node(const struct world *w, const char *name)
{
    const int n = lineage_find(w->g, name);

    EXPECT(n >= 0);
    return n;
}

static const char *license_of(struct world *w, const char *task)
{
    const char *spdx = NULL;

    EXPECT_OK(lineage_license(w->g, node(w, task), "o", &spdx, &w->err), &w->err);
    return spdx;
}

/* "a b c": names of the marked nodes in their order. */
static void expect_marked(const struct world *w, const char *names)
{
    struct buf b;

    buf_init(&b, 4096);
    for (size_t i = 0; i < w->g->count; i++)
        if (w->g->nodes[i].marked)
            buf_printf(&b, "%s%s", b.n ? " " : "", w->g->nodes[i].name);
    EXPECT_STR(b.p ? b.p : "", names);
    buf_release(&b);
}

/*  pics -> data -> train -> merge      text -> train (fan-in)     alone */
static void diamond(struct world *w)
{
    const struct digest pics = put_text(w, "pics"), words = put_text(w, "words"),
                        data = put_text(w, "data"), model = put_text(w, "model"),
                        merged = put_text(w, "merged"), alone = put_text(w, "alone");

    source(w, "pics", pics, "CC-BY-4.0",
           "{\"attribution\":\"us\",\"time\":\"2026-01-02T03:04:05Z\",\"url\":\"https://e.org\"}");
    source(w, "words", words, "MIT OR Apache-2.0", NULL);
    task_of(w, "data", data, false, &pics, NULL);
    task_of(w, "train[k=a%2Fb]", model, false, &data, &words);
    task_of(w, "merge", merged, false, &model, NULL);
    task_of(w, "alone", alone, false, NULL, NULL);
    keep_run(w, 1);
}

TEST(both_directions)
{
    struct world w;

    world_new(&w);
    diamond(&w);
    load(&w, 1);
    lineage_up(w.g, node(&w, "train[k=a/b]"));
    expect_marked(&w, "pics words data train[k=a/b]");
    load(&w, 1);
    lineage_down(w.g, node(&w, "sources.pics"));
    expect_marked(&w, "pics data merge train[k=a/b]");
    load(&w, 1);
    lineage_up(w.g, node(&w, "alone"));
    expect_marked(&w, "alone");
    EXPECT_EQ(lineage_find(w.g, "nobody"), -1);
    EXPECT_ERR(lineage_unknown(w.g, "mrege", &w.err), ERR_NOT_FOUND, &w.err);
    EXPECT(strstr(w.err.text, "did you mean 'merge'"));
    w.err = (struct err)ERR_INIT;
    EXPECT_ERR(lineage_unknown(w.g, "train", &w.err), ERR_NOT_FOUND, &w.err);
    EXPECT(strstr(w.err.text, "did you mean 'train[k=a/b]'"));
    w.err = (struct err)ERR_INIT;
    EXPECT_ERR(lineage_load(w.st, 7, &(struct lineage *){NULL}, &w.err), ERR_NOT_FOUND, &w.err);
    world_free(&w);
}

TEST(licences_are_joined)
{
    struct world w;

    world_new(&w);
    diamond(&w);
    load(&w, 1);
    EXPECT_STR(license_of(&w, "data"), "CC-BY-4.0");
    EXPECT_STR(license_of(&w, "merge"), "CC-BY-4.0 AND (MIT OR Apache-2.0)");
    EXPECT_STR(license_of(&w, "alone"), "NOASSERTION");
    world_free(&w);
}

/* Sources may be under a join themselves: each part is there once, and brackets stay where OR needs them. */
TEST(joins_of_joins)
{
    struct world w;

    world_new(&w);
    const struct digest a = put_text(&w, "a"), b = put_text(&w, "b"), o = put_text(&w, "o");

    source(&w, "a", a, "MIT AND (CC0-1.0 OR CC-BY-4.0)", NULL);
    source(&w, "b", b, "Apache-2.0 AND MIT OR CC-BY-4.0", NULL);
    task_of(&w, "t", o, false, &a, &b);
    task_of(&w, "u", put_text(&w, "p"), false, &o, &a);
    keep_run(&w, 1);
    load(&w, 1);
    EXPECT_STR(license_of(&w, "u"),
               "(Apache-2.0 AND MIT OR CC-BY-4.0) AND (CC0-1.0 OR CC-BY-4.0) AND MIT");
    world_free(&w);
}

TEST(licenses_json_counts_where_it_is)
{
    static const char parts[] =
        "{\"licenses\":[{\"expression\":\"MIT\",\"pictures\":2},"
        "{\"expression\":\"CC0-1.0\"},{\"expression\":\"no such thing!\"}]}";
    struct world w;

    world_new(&w);
    const struct digest pics = put_text(&w, "pics"), data = put_dataset(&w, parts),
                        model = put_text(&w, "model");

    source(&w, "pics", pics, "CC-BY-NC-4.0", NULL);
    task_of(&w, "data", data, true, &pics, NULL);
    task_of(&w, "train", model, false, &data, NULL);
    keep_run(&w, 1);
    load(&w, 1);
    EXPECT_STR(license_of(&w, "train"), "CC0-1.0 AND MIT AND NOASSERTION");
    world_free(&w);
}

/* A task that puts out what it took in did not make it, whatever it is called. */
TEST(a_copy_is_not_the_maker)
{
    struct world w;

    world_new(&w);
    const struct digest pics = put_text(&w, "pics"), data = put_text(&w, "data"),
                        model = put_text(&w, "model");

    source(&w, "pics", pics, "MIT", NULL);
    task_of(&w, "b-make", data, false, &pics, NULL);
    task_of(&w, "a-copy", data, false, &data, NULL);
    task_of(&w, "a-copy-again", data, false, &data, NULL);
    task_of(&w, "train", model, false, &data, NULL);
    keep_run(&w, 1);
    load(&w, 1);
    lineage_up(w.g, node(&w, "train"));
    expect_marked(&w, "pics b-make train");
    EXPECT_STR(license_of(&w, "train"), "MIT");
    EXPECT_STR(license_of(&w, "a-copy"), "MIT");
    world_free(&w);
}

TEST(only_copies_of_something_from_outside)
{
    struct world w;

    world_new(&w);
    const struct digest data = put_text(&w, "data");

    task_of(&w, "a", data, false, &data, NULL);
    task_of(&w, "b", data, false, &data, NULL);
    keep_run(&w, 1);
    load(&w, 1);
    for (size_t i = 0; i < w.g->count; i++)
        for (size_t k = 0; k < w.g->nodes[i].input_count; k++)
            EXPECT(w.g->nodes[i].inputs[k].from != (int)i);
    EXPECT_STR(license_of(&w, "a"), "NOASSERTION");
    EXPECT_STR(license_of(&w, "b"), "NOASSERTION");
    world_free(&w);
}

TEST(what_another_run_made)
{
    static const char *const none[] = {NULL}, *const deny[] = {"CC-BY-NC-4.0", NULL};
    struct world w;
    const char *blamed;

    world_new(&w);
    const struct digest pics = put_text(&w, "pics"), model = put_text(&w, "model"),
                        vae = put_text(&w, "vae"), end = put_text(&w, "end");

    source(&w, "pics", pics, "CC-BY-NC-4.0", "{\"time\":\"2026-01-02T03:04:05Z\"}");
    task_of(&w, "vae", vae, false, &pics, NULL);
    keep_run(&w, 1);
    source(&w, "upstream", vae, "MIT", NULL); /* whatever it is said to be under */
    task_of(&w, "train", model, false, &vae, NULL);
    keep_run(&w, 2);
    task_of(&w, "end", end, false, &model, NULL); /* by --input */
    keep_run(&w, 3);
    load(&w, 3);
    EXPECT_STR(license_of(&w, "end"), "NOASSERTION");
    load(&w, 3);
    EXPECT_OK(lineage_extend(w.g, &w.err), &w.err);
    EXPECT_STR(license_of(&w, "end"), "CC-BY-NC-4.0 AND MIT");
    blamed = lineage_blame(w.g, node(&w, "end"), deny, none);
    EXPECT(blamed && strstr(blamed, "run-1:pics"));
    EXPECT(!lineage_blame(w.g, node(&w, "end"), none, none));
    world_free(&w);
}

TEST(a_chain_of_thousands)
{
    enum { LINKS = 3000 };
    struct world w;
    struct digest last;

    world_new(&w);
    last = put_text(&w, "first");
    source(&w, "s", last, "MIT", NULL);
    for (int i = 0; i < LINKS; i++) { /* names against the order in which they ran */
        char name[32];
        const struct digest before = last;

        snprintf(name, sizeof(name), "t%d", LINKS - i);
        last = put_text(&w, name);
        task_of(&w, name, last, false, &before, NULL);
    }
    keep_run(&w, 1);
    load(&w, 1);
    EXPECT_STR(license_of(&w, "t1"), "MIT");
    lineage_up(w.g, node(&w, "t1"));
    for (size_t i = 0; i < w.g->count; i++)
        EXPECT(w.g->nodes[i].marked);
    world_free(&w);
}

TEST(renderings)
{
    struct world w;
    struct buf text;
    json_t *v = NULL;

    world_new(&w);
    diamond(&w);
    load(&w, 1);
    buf_init(&text, 1 << 20);
    lineage_up(w.g, node(&w, "merge"));
    EXPECT_OK(lineage_text(w.g, node(&w, "merge"), true, &text, &w.err), &w.err);
    EXPECT(strncmp(text.p, "merge  ", 7) == 0);
    EXPECT(strstr(text.p, "\n  one: train[k=a/b]  "));
    EXPECT(strstr(text.p, "\n    two: sources.words  sha256:"));
    EXPECT(strstr(text.p, "CC-BY-4.0  by us  <https://e.org>"));
    EXPECT_OK(lineage_json(w.g, node(&w, "merge"), "o", &v, &w.err), &w.err);
    EXPECT_EQ(json_array_size(json_object_get(v, "nodes")), 5);
    EXPECT_EQ(json_array_size(json_object_get(v, "edges")), 4);
    EXPECT_STR(json_string_value(json_object_get(v, "kind")), "blob");
    EXPECT_STR(json_string_value(json_object_get(v, "of")), "merge");
    json_decref(v);
    buf_clear(&text);
    lineage_dot(w.g, &text);
    EXPECT(strstr(text.p, "[label=\"sources.pics\", shape=folder];"));
    buf_release(&text);
    world_free(&w);
}

RUN(both_directions, licences_are_joined, joins_of_joins, licenses_json_counts_where_it_is,
    a_copy_is_not_the_maker, only_copies_of_something_from_outside, what_another_run_made,
    a_chain_of_thousands, renderings)
