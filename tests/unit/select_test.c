#include "orchestrator/select.h"
#include "tests/resolve_rig.h"

static const char yaml[] = "weir: 1\n"
                           "name: select\n"
                           "stages:\n"
                           "  a: {run: \"true\", outputs: [o]}\n"
                           "  b:\n"
                           "    run: \"true\"\n"
                           "    matrix: {size: [small, large], seed: [1, 2]}\n"
                           "    inputs: {x: a.o}\n"
                           "    outputs: [o]\n"
                           "  c: {run: \"true\", inputs: {x: \"b[*].o\"}, outputs: [o]}\n"
                           "  d: {run: \"true\", outputs: [o]}\n";

/* Tasks as letters, in declared order: a, 4 of b, c, d; "x" wanted, "f" forced. */
static void marks(const struct pipeline *p, const struct selection *s, char out[16])
{
    for (size_t i = 0; i < p->task_count; i++)
        out[i] = s->forced[i] ? 'f' : s->wanted[i] ? 'x' : '-';
    out[p->task_count] = '\0';
}

static const char *const *list(const char *text, char *copy, const char *items[8])
{
    size_t n = 0;
    char *word;

    (void)snprintf(copy, 64, "%s", text);
    while ((word = strsep(&copy, ";")) != NULL)
        if (*word)
            items[n++] = word;
    items[n] = NULL;
    return n ? items : NULL;
}

TEST(names_mean_tasks)
{
    static const struct {
        const char *only, *from, *until, *force;
        bool no_cache;
        const char *want;
    } cases[] = {
        {"", "", "", "", false, "xxxxxxx"},
        {"a", "", "", "", false, "x------"},
        {"b", "", "", "", false, "-xxxx--"},
        {"b[*]", "", "", "", false, "-xxxx--"},
        {"b[size=large,seed=1]", "", "", "", false, "---x---"},
        {"b[seed=1,size=large]", "", "", "", false, "---x---"},
        {"b[seed=2]", "", "", "", false, "--x-x--"},
        {"a;d", "", "", "", false, "x-----x"},
        {"", "b[seed=1]", "", "", false, "-x-x-x-"},
        {"", "", "b[size=small]", "", false, "xxx----"},
        {"", "b[seed=1]", "b", "", false, "-x-x---"},
        {"", "", "", "b", false, "xffffxx"},
        {"a", "", "", "b", false, "x------"},
        {"", "", "", "", true, "fffffff"},
        {"d", "", "", "", true, "------f"},
    };
    struct rig g;

    rig_new(&g);
    rig_write(&g, "pipe.yaml", yaml);
    rig_open(&g, NULL, NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char copies[4][64], got[16];
        const char *items[4][8];
        const struct select_options o = {.only = list(cases[i].only, copies[0], items[0]),
                                         .from = list(cases[i].from, copies[1], items[1]),
                                         .until = list(cases[i].until, copies[2], items[2]),
                                         .force = list(cases[i].force, copies[3], items[3]),
                                         .no_cache = cases[i].no_cache};
        struct selection s;

        EXPECT_OK(select_tasks(g.p, &o, &s, &g.err), &g.err);
        marks(g.p, &s, got);
        EXPECT_STR(got, cases[i].want);
        EXPECT_EQ(s.partial, strchr(got, '-') != NULL);
        select_release(&s);
    }
    rig_free(&g);
}

TEST(wrong_names_are_told)
{
    static const struct {
        const char *only, *until, *text;
    } cases[] = {
        {"bb", "", "there is no stage 'bb'"},
        {"b[sise=large]", "", "has no key 'sise'; did you mean 'size'?"},
        {"b[size=lrge]", "", "no instance with size=lrge; did you mean 'large'?"},
        {"b[size]", "", "is not key=value"},
        {"b[size=large", "", "does not end with ]"},
        {"a[size=large]", "", "has no matrix"},
        {"b[seed=1,seed=2]", "", "no instance of b"},
        {"d", "a", "leave no task"},
    };
    struct rig g;

    rig_new(&g);
    rig_write(&g, "pipe.yaml", yaml);
    rig_open(&g, NULL, NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *only[] = {cases[i].only, NULL}, *until[] = {cases[i].until, NULL};
        const struct select_options o = {.only = only, .until = *cases[i].until ? until : NULL};
        struct selection s;
        struct err err = ERR_INIT;

        EXPECT_ERR(select_tasks(g.p, &o, &s, &err), ERR_USAGE, &err);
        if (!strstr(err.text, cases[i].text))
            EXPECT_STR(err.text, cases[i].text);
    }
    rig_free(&g);
}

RUN(names_mean_tasks, wrong_names_are_told)
