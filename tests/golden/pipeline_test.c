/* pipeline_test.c - pipelines with what weir says to them.
 *
 * tests/golden/pipeline/bad/X.case      YAML, a line ---expected---, then all messages
 * tests/golden/pipeline/good/X.case     YAML, a line ---expected---, then the expanded pipeline, a line of JSON for each part
 *
 * A first line "# options: --profile a --set b=1" gives options, a line "---file NAME---" starts another file.  The
 * pipeline is called pipeline.yaml.  WEIR_BLESS=1 rewrites what is expected; the diff is then for a person to read.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "orchestrator/pipeline.h"
#include "tests/check.h"

#define WORDS_MAX 32
#define TEXT_MAX (1 << 20)

struct options {
    const char *profiles[WORDS_MAX], *param_files[WORDS_MAX], *sets[WORDS_MAX];
    char line[1024];
};

static char *read_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, TEXT_MAX);
    size_t n;

    EXPECT(f != NULL);
    EXPECT(text != NULL);
    n = fread(text, 1, TEXT_MAX - 1, f);
    EXPECT(n < TEXT_MAX - 1);
    (void)fclose(f);
    return text;
}

static void write_text(const char *path, const char *text, size_t n)
{
    FILE *f = fopen(path, "wb");

    EXPECT(f != NULL);
    EXPECT_EQ(fwrite(text, 1, n, f), n);
    EXPECT_EQ(fclose(f), 0);
}

static void put(const char **list, const char *word)
{
    size_t n = 0;

    while (list[n])
        n++;
    EXPECT(n < WORDS_MAX - 1);
    list[n] = word;
}

/* Words are parted by blanks; a value with blanks uses '_' for them. */
static void read_options(const char *text, struct options *o)
{
    static const char head[] = "# options: ";
    char *save = NULL, *word;

    memset(o, 0, sizeof(*o));
    if (strncmp(text, head, strlen(head)) != 0)
        return;
    EXPECT(strcspn(text, "\n") < sizeof(o->line));
    memcpy(o->line, text + strlen(head), strcspn(text, "\n") - strlen(head));
    for (word = strtok_r(o->line, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        char *value = strtok_r(NULL, " ", &save);

        EXPECT(value != NULL);
        for (char *p = value; *p; p++)
            *p = *p == '_' ? ' ' : *p;
        if (strcmp(word, "--profile") == 0)
            put(o->profiles, value);
        else if (strcmp(word, "--param-file") == 0)
            put(o->param_files, value);
        else if (strcmp(word, "--set") == 0)
            put(o->sets, value);
        else
            EXPECT(strcmp(word, "one of the three") == 0);
    }
}

/* The YAML and other files into the working directory; where the expected text starts. */
static size_t unpack(const char *text)
{
    static const char end[] = "---expected---\n", file[] = "---file ";
    const char *stop =
        strncmp(text, end, strlen(end)) == 0 ? text : strstr(text, "\n---expected---\n");
    const char *from = text;
    char name[64] = "pipeline.yaml";

    EXPECT(stop != NULL);
    stop += *stop == '\n';
    while (from) {
        const char *next = strstr(from, "\n---file ");
        const char *to = next && next < stop ? next + 1 : stop;

        write_text(name, from, (size_t)(to - from));
        from = to < stop ? to + strlen(file) : NULL;
        if (!from)
            break;
        EXPECT(strcspn(from, "-") < sizeof(name));
        (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(from, "-"), from);
        from = strchr(from, '\n') + 1;
    }
    return (size_t)(stop - text) + strlen(end);
}

/* ---- listing ----------------------------------------------------------------------------------- */

static void line(struct buf *out, const char *what, const json_t *v)
{
    struct err err = ERR_INIT;

    buf_printf(out, "%s ", what);
    EXPECT_OK(json_canonical(v, out, &err), &err);
    buf_char(out, '\n');
}

static void lines(struct buf *out, const char *what, json_t *all, const char *key)
{
    const json_t *list = json_object_get(all, key);

    for (size_t i = 0; i < json_array_size(list); i++)
        line(out, what, json_array_get(list, i));
    EXPECT_EQ(json_object_del(all, key), 0);
}

static void list(const struct pipeline *p, struct buf *out)
{
    struct err err = ERR_INIT;
    json_t *all;

    EXPECT_OK(pipeline_json(p, &all, &err), &err);
    lines(out, "source", all, "sources");
    lines(out, "stage", all, "stages");
    lines(out, "task", all, "tasks");
    lines(out, "publish", all, "publish");
    lines(out, "schedule", all, "schedule");
    lines(out, "notify", all, "notify");
    line(out, "pipeline", all);
    json_decref(all);
}

/* What must hold for every pipeline that loads. */
static void check_pipeline(const struct pipeline *p)
{
    int *place = calloc(p->task_count + 1, sizeof(int));

    for (size_t i = 0; i < p->task_count; i++) {
        const struct task *t = &p->tasks[i];
        const struct stage *s = &p->stages[t->stage];

        EXPECT_EQ(pipeline_find_task(p, t->name), i);
        EXPECT_EQ(pipeline_find_stage(p, s->name), t->stage);
        EXPECT((int)i >= s->first_task && (int)i < s->first_task + s->task_count);
        EXPECT(!t->run == !s->shell);
        EXPECT((t->run != NULL) + (t->argv != NULL) + (s->uses != NULL) == 1);
        EXPECT(p->order[i] >= 0 && (size_t)p->order[i] < p->task_count);
        EXPECT_EQ(place[p->order[i]], 0);
        place[p->order[i]] = (int)i + 1;
    }
    for (size_t i = 0; i < p->task_count; i++)
        for (size_t k = 0; k < p->tasks[i].input_count; k++)
            for (size_t r = 0; r < p->tasks[i].inputs[k].ref_count; r++) {
                const struct task_input_ref *ref = &p->tasks[i].inputs[k].refs[r];

                EXPECT((ref->source < 0) != (ref->task < 0));
                if (ref->task >= 0)
                    EXPECT(place[ref->task] < place[i]);
                if (ref->task >= 0 && !p->tasks[i].skipped)
                    EXPECT(!p->tasks[ref->task].skipped);
            }
    for (size_t i = 0; i < p->source_count; i++)
        EXPECT_EQ(pipeline_find_source(p, p->sources[i].name), i);
    free(place);
}

/* ---- cases ------------------------------------------------------------------------------------- */

static enum err_code load(const struct options *o, struct buf *out)
{
    const struct pipeline_options po = {o->profiles, o->param_files, o->sets, 0, 0};
    struct pipeline *p = NULL;
    struct err err = ERR_INIT;
    const enum err_code rc = pipeline_load("pipeline.yaml", &po, &p, out, &err);

    if (rc) {
        EXPECT(p == NULL);
        EXPECT_EQ(err.code, rc);
        EXPECT(out->p && strncmp(out->p, err.text, strlen(err.text)) == 0);
        return rc;
    }
    check_pipeline(p);
    list(p, out);
    pipeline_free(p);
    return OK;
}

/* Every line is "file:line:column: text" or "--option: text". */
static void check_messages(const char *text, enum err_code rc)
{
    bool options_only = true;

    for (const char *at = text; *at; at = strchr(at, '\n') + 1) {
        int row = 0, column = 0;

        EXPECT(strchr(at, '\n') != NULL);
        EXPECT(strcspn(at, "\n") <= 700);
        if (strncmp(at, "--", 2) == 0)
            continue;
        options_only = false;
        if (strncmp(strchr(at, ' '), " these are the first 100", 24) == 0)
            continue;
        EXPECT(sscanf(at, "%*[a-z.]:%d:%d: ", &row, &column) == 2);
        EXPECT(row > 0 && column > 0);
    }
    EXPECT_EQ(rc, options_only ? ERR_USAGE : ERR_INPUT);
}

static bool run_case(const char *path, bool good)
{
    char *text = read_text(path);
    struct options o;
    const size_t expected = unpack(text);
    struct buf out;
    enum err_code rc;
    bool same;

    read_options(text, &o);
    buf_init(&out, TEXT_MAX);
    rc = load(&o, &out);
    EXPECT(!out.failed);
    same = strcmp(text + expected, out.p) == 0 && (rc == OK) == good;
    if (rc)
        check_messages(out.p, rc);
    if ((rc == OK) != good) {
        (void)fprintf(stderr, "%s: %s\n%s", path, good ? "does not load" : "loads", out.p);
    } else if (!same && getenv("WEIR_BLESS")) {
        struct buf blessed;

        buf_init(&blessed, 2 * TEXT_MAX);
        buf_add(&blessed, text, expected);
        buf_add(&blessed, out.p, out.n);
        write_text(path, blessed.p, blessed.n);
        buf_release(&blessed);
        same = true;
    } else if (!same) {
        (void)fprintf(stderr, "%s: expected\n%sgot\n%s", path, text + expected, out.p);
    }
    buf_release(&out);
    free(text);
    return same;
}

static int is_case(const struct dirent *d)
{
    const char *dot = strrchr(d->d_name, '.');

    return dot && strcmp(dot, ".case") == 0;
}

static void run_all(const char *folder, bool good, int at_least)
{
    const char *root = getenv("WEIR_SRC");
    char dir[1024], path[2048], here[TMPDIR_MAX], *back = getcwd(NULL, 0);
    struct dirent **names;
    int count, wrong = 0;

    EXPECT(root != NULL);
    (void)snprintf(dir, sizeof(dir), "%s/tests/golden/pipeline/%s", root, folder);
    count = scandir(dir, &names, is_case, alphasort);
    for (int i = 0; i < count; i++) {
        tmpdir_new(here);
        EXPECT_EQ(chdir(here), 0);
        (void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
        wrong += !run_case(path, good);
        tmpdir_free(here);
        free(names[i]);
    }
    free(names);
    EXPECT_EQ(chdir(back), 0);
    free(back);
    EXPECT_EQ(wrong, 0);
    EXPECT(count >= at_least);
}

TEST(bad_pipelines_get_these_messages)
{
    run_all("bad", false, 200);
}

TEST(good_pipelines_expand_to_this)
{
    run_all("good", true, 40);
}

/* The format's own example, and that its profile does what it says. */
TEST(the_example_loads)
{
    const char *const profiles[] = {"h100", NULL};
    const struct pipeline_options o = {.profiles = profiles};
    char path[1024];
    struct pipeline *p;
    struct err err = ERR_INIT;
    int pretrain;

    (void)snprintf(path, sizeof(path), "%s/tests/golden/pipeline/example.yaml", getenv("WEIR_SRC"));
    EXPECT_OK(pipeline_load(path, NULL, &p, NULL, &err), &err);
    check_pipeline(p);
    EXPECT_EQ(p->task_count, 8);
    EXPECT(p->stages[pipeline_find_stage(p, "pretrain")].cuda == false);
    pipeline_free(p);
    EXPECT_OK(pipeline_load(path, &o, &p, NULL, &err), &err);
    pretrain = pipeline_find_stage(p, "pretrain");
    EXPECT(p->stages[pretrain].cuda);
    EXPECT_EQ(p->stages[pretrain].resources.gpus, 1);
    EXPECT_EQ(p->stages[pretrain].resources.cpus, 2);
    EXPECT_STR(p->tasks[p->stages[pretrain].first_task].params[0].name, "steps");
    EXPECT_EQ(json_integer_value(p->tasks[p->stages[pretrain].first_task].params[0].value), 20000);
    pipeline_free(p);
}

RUN(bad_pipelines_get_these_messages, good_pipelines_expand_to_this, the_example_loads)
