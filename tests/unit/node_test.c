#include <string.h>

#include "orchestrator/node.h"
#include "tests/check.h"

struct fixture {
    struct arena arena;
    struct yaml_doc *docs[4];
    size_t count;
};

static const struct node *parse(struct fixture *f, const char *text, const char *file)
{
    struct err err = ERR_INIT;

    EXPECT_OK(yaml_parse(text, strlen(text), file, &f->docs[f->count], NULL, &err), &err);
    return node_from_yaml(&f->arena, yaml_root(f->docs[f->count++]), file);
}

static void release(struct fixture *f)
{
    while (f->count > 0)
        yaml_free(f->docs[--f->count]);
    arena_release(&f->arena);
}

TEST(nodes_know_where_they_are)
{
    struct fixture f = {0};
    const struct node *n = parse(&f, "a: 1\nb:\n  - x\n  - {c: true, d: 0.5}\n", "f.yaml");
    const struct node *b = node_get(n, "b");

    EXPECT_EQ(n->type, YAML_MAP);
    EXPECT_EQ(node_get(n, "a")->integer, 1);
    EXPECT_EQ(b->count, 2);
    EXPECT_STR(b->items[0].text, "x");
    EXPECT_STR(b->items[1].pos.file, "f.yaml");
    EXPECT_EQ(b->items[1].pos.line, 4);
    EXPECT_EQ(b->items[1].pos.column, 5);
    EXPECT(node_get(&b->items[1], "c")->boolean);
    EXPECT(node_get(&b->items[1], "d")->number == 0.5);
    EXPECT(node_get(n, "z") == NULL);
    EXPECT(node_get(b, "z") == NULL);
    EXPECT(node_get(NULL, "z") == NULL);
    EXPECT_STR(node_type_name(b), "a list");
    release(&f);
}

TEST(null_is_as_good_as_absent)
{
    struct fixture f = {0};
    const struct node *n = parse(&f, "a: ~\nb:\n", "f");

    EXPECT(node_get(n, "a") == NULL);
    EXPECT(node_member(n, "a") != NULL);
    EXPECT(node_get(n, "b") == NULL);
    release(&f);
}

TEST(maps_merge_deeply_and_all_else_is_replaced)
{
    struct fixture f = {0};
    const struct node *base =
        parse(&f, "a: {x: 1, y: 2}\nl: [1, 2, 3]\ns: old\nm: {k: v}\n", "base");
    const struct node *over = parse(&f, "n: new\na: {y: 3, z: 4}\nl: [9]\nm: text\n", "over");
    const struct node *n = node_merge(&f.arena, base, over);

    EXPECT_EQ(n->count, 5);
    /* The order of the base, then what is new. */
    EXPECT_STR(n->members[0].key, "a");
    EXPECT_STR(n->members[4].key, "n");
    EXPECT_EQ(node_get(node_get(n, "a"), "x")->integer, 1);
    EXPECT_EQ(node_get(node_get(n, "a"), "y")->integer, 3);
    EXPECT_EQ(node_get(node_get(n, "a"), "z")->integer, 4);
    EXPECT_EQ(node_get(n, "l")->count, 1);
    EXPECT_STR(node_get(n, "m")->text, "text");
    EXPECT_STR(node_get(n, "s")->text, "old");
    /* Whoever spoke last is to blame. */
    EXPECT_STR(node_get(node_get(n, "a"), "y")->pos.file, "over");
    EXPECT_STR(node_get(node_get(n, "a"), "x")->pos.file, "base");
    EXPECT_STR(node_member(n, "a")->pos.file, "over");
    /* Neither is changed. */
    EXPECT_EQ(node_get(node_get(base, "a"), "y")->integer, 2);
    EXPECT(node_merge(&f.arena, base, NULL) == base);
    EXPECT(node_merge(&f.arena, NULL, over) == over);
    release(&f);
}

TEST(a_path_is_a_map_of_maps)
{
    struct fixture f = {0};
    static const char *const keys[] = {"a", "b", "c"};
    const struct node *leaf = node_text(&f.arena, "v", (struct pos){"--set", 0, 0});
    const struct node *n = node_path(&f.arena, keys, 3, leaf);

    EXPECT_STR(node_get(node_get(node_get(n, "a"), "b"), "c")->text, "v");
    EXPECT(node_path(&f.arena, keys, 0, leaf) == leaf);
    release(&f);
}

TEST(misspelt_keys_are_told_and_put_right)
{
    static const char *const keys[] = {"inputs", "outputs", "run", NULL};
    struct fixture f = {0};
    struct problems ps = {.arena = &f.arena};
    const struct node *n = parse(&f, "run: x\noutput: [a]\ncommand: y\nin: z\nzzz: 1\n", "f.yaml");
    const struct node *fixed = node_check_keys(&f.arena, n, keys, &ps, "stage", "s");
    struct buf text;
    struct err err = ERR_INIT;

    EXPECT_STR(node_get(fixed, "outputs")->items[0].text, "a");
    EXPECT_STR(node_get(fixed, "inputs")->text, "z");
    EXPECT_STR(node_get(fixed, "run")->text, "x"); /* not the synonym's */
    EXPECT(node_get(n, "outputs") == NULL);
    buf_init(&text, 10000);
    EXPECT_ERR(problems_report(&ps, &text, &err), ERR_INPUT, &err);
    EXPECT_STR(text.p,
               "f.yaml:2:1: unknown key 'output' in stage s; did you mean 'outputs'?\n"
               "f.yaml:3:1: unknown key 'command' in stage s; did you mean 'run'?\n"
               "f.yaml:4:1: unknown key 'in' in stage s; did you mean 'inputs'?\n"
               "f.yaml:5:1: unknown key 'zzz' in stage s; there are inputs, outputs and run\n");
    EXPECT_STR(err.text, "f.yaml:2:1: unknown key 'output' in stage s; did you mean 'outputs'?");
    buf_release(&text);
    release(&f);
}

TEST(problems_are_sorted_and_told_once)
{
    struct arena a = {0};
    struct problems ps = {.arena = &a};
    struct buf text;
    struct err err = ERR_INIT;

    EXPECT_OK(problems_report(&ps, NULL, &err), &err);
    problem_add(&ps, (struct pos){"b", 1, 1}, "other file");
    problem_add(&ps, (struct pos){"a", 10, 1}, "ten");
    problem_add(&ps, (struct pos){"a", 9, 5}, "nine %d", 5);
    problem_add(&ps, (struct pos){"a", 9, 5}, "nine %d", 5);
    problem_add(&ps, (struct pos){"a", 9, 4}, "line\nbreak \x1b[31m");
    problem_add(&ps, (struct pos){"--set x", 0, 0}, "option");
    buf_init(&text, 10000);
    EXPECT_ERR(problems_report(&ps, &text, &err), ERR_INPUT, &err);
    EXPECT_STR(text.p, "--set x: option\n"
                       "a:9:4: line?break ?[31m\n"
                       "a:9:5: nine 5\n"
                       "a:10:1: ten\n"
                       "b:1:1: other file\n");
    EXPECT_STR(err.text, "--set x: option");
    buf_release(&text);
    arena_release(&a);
}

TEST(problems_are_bounded)
{
    struct arena a = {0};
    struct problems ps = {.arena = &a};
    char longer[2000];
    struct buf text;
    struct err err = ERR_INIT;

    memset(longer, 'x', sizeof(longer));
    longer[sizeof(longer) - 1] = '\0';
    problem_add(&ps, (struct pos){"a", 1, 1}, "%s", longer);
    EXPECT_EQ(strlen(ps.list[0].text), 400);
    EXPECT_STR(ps.list[0].text + 390, "xxxxxxx...");
    /* No half of a character is left over. */
    problem_add(&ps, (struct pos){"a", 1, 2}, "%.396s\u00e9\u00e9\u00e9\u00e9\u00e9", longer);
    EXPECT_STR(ps.list[1].text + 390, "xxxxxx...");
    for (int i = 0; i < 300; i++)
        problem_add(&ps, (struct pos){"a", 2, i + 1}, "problem");
    EXPECT_EQ(ps.count, PIPELINE_ERRORS_MAX);
    buf_init(&text, 100000);
    EXPECT_ERR(problems_report(&ps, &text, &err), ERR_INPUT, &err);
    EXPECT(strstr(text.p, "a: these are the first 100 problems; more may follow\n") != NULL);
    buf_release(&text);
    arena_release(&a);
}

TEST(hints_name_the_nearest_or_all)
{
    static const char *const names[] = {"alpha", "beta", "gamma"};
    struct arena a = {0};
    struct problems ps = {.arena = &a};
    const struct pos pos = {"f", 1, 1};

    problem_add_near(&ps, pos, "alpah", names, 3, "no %s", "alpah");
    problem_add_near(&ps, pos, "delta-x", names, 3, "no delta-x");
    problem_add_near(&ps, pos, "delta-x", names, 1, "nothing");
    problem_add_near(&ps, pos, "delta-x", names, 0, "none");
    problem_add_near(&ps, pos, "b", (const char *const[]){"a"}, 1, "short");
    EXPECT_STR(ps.list[0].text, "no alpah; did you mean 'alpha'?");
    EXPECT_STR(ps.list[1].text, "no delta-x; there are alpha, beta and gamma");
    EXPECT_STR(ps.list[2].text, "nothing; there is only 'alpha'");
    EXPECT_STR(ps.list[3].text, "none");
    EXPECT_STR(ps.list[4].text, "short; there is only 'a'");
    arena_release(&a);
}

RUN(nodes_know_where_they_are, null_is_as_good_as_absent,
    maps_merge_deeply_and_all_else_is_replaced, a_path_is_a_map_of_maps,
    misspelt_keys_are_told_and_put_right, problems_are_sorted_and_told_once, problems_are_bounded,
    hints_name_the_nearest_or_all)
