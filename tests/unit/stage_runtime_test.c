/* The contract as a program meets it: card, command line, table, description, exit statuses, checkpoints, events. */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "orchestrator/program_internal.h"
#include "stages/runtime/stage_internal.h"
#include "tests/check.h"

static const struct stage_param params[] = {
    {"steps", STAGE_INT, "100", "1", "1000", .help = "how many", .extends = true},
    {"rate", STAGE_FLOAT, "1e-4", "0", "1", .help = "how fast"},
    {"mode", STAGE_STRING, "plain", .choices = "plain|fancy", .help = "how"},
    {"loud", STAGE_BOOL, "false", .help = "tell"},
    {"name", STAGE_STRING, NULL, .help = "must be given"},
    {0}};
static const struct stage_port inputs[] = {{"data", .help = "rows"}, {"model", true, "start"}, {0}};
static const struct stage_port outputs[] = {{"result", .help = "it"}, {0}};
static const char *version(void)
{
    return "1.2";
}
static const struct stage_library libraries[] = {{"libx", version}, {0}};
static const struct stage_program self = {"demo", "A demonstration.", params, inputs, outputs,
                                          NULL,   libraries,          true};

static enum err_code args(struct stage_task *t, int argc, const char *const *argv, struct err *err)
{
    enum stage_wish wish;
    enum err_code rc;

    stage_task_init(t, &self);
    rc = stage_args_read(argc, (char **)(uintptr_t)argv, t, &wish, err);
    if (!rc)
        rc = stage_params_complete(&self, t->params, err);
    return rc ? rc : stage_ports_check(t, err);
}

/* Words after the program's name, split at blanks. */
static enum err_code line(struct stage_task *t, const char *text, struct err *err)
{
    static char copy[512];
    const char *argv[32] = {"demo"};
    int n = 1;

    (void)snprintf(copy, sizeof(copy), "%s", text);
    for (char *p = copy; *p && n < 32;) {
        argv[n++] = p;
        p += strcspn(p, " ");
        if (*p)
            *p++ = '\0';
    }
    return args(t, n, argv, err);
}

#define GOOD "--in data=d --out result=r --set name=x"

TEST(command_line_fills_the_task)
{
    struct stage_task t;
    struct err err = ERR_INIT;

    EXPECT_OK(
        line(&t, GOOD " --set steps=7 --set rate=0.5 --set loud=true --threads 3 --resume c", &err),
        &err);
    EXPECT_EQ(stage_int(&t, "steps"), 7);
    EXPECT(stage_float(&t, "rate") == 0.5);
    EXPECT(stage_bool(&t, "loud"));
    EXPECT_STR(stage_string(&t, "mode"), "plain"); /* its default */
    EXPECT_STR(stage_input(&t, "data")->path, "d");
    EXPECT(stage_input(&t, "model") == NULL);
    EXPECT_STR(stage_output(&t, "result"), "r");
    EXPECT_EQ(t.threads, 3);
    EXPECT_STR(t.resume, "c");
    stage_task_release(&t);
}

TEST(an_input_given_twice_has_entries)
{
    struct stage_task t;
    struct err err = ERR_INIT;

    EXPECT_OK(line(&t, GOOD " --in data=some/b --in data=c", &err), &err);
    EXPECT_EQ(stage_input(&t, "data")->entry_count, 3);
    EXPECT_STR(stage_input(&t, "data")->entries[0].name, "d");
    EXPECT_STR(stage_input(&t, "data")->entries[1].name, "b");
    EXPECT_STR(stage_input(&t, "data")->entries[2].path, "c");
    stage_task_release(&t);
}

TEST(what_is_wrong_is_named)
{
    static const struct {
        const char *line, *text;
    } cases[] = {
        {"--in data=d --out result=r", "parameter name must be given"},
        {GOOD " --set stepz=1", "has no parameter 'stepz'; did you mean steps?"},
        {GOOD " --set steps=0", "steps: 0 is too small; it is at least 1"},
        {GOOD " --set steps=1001", "steps: 1001 is too large; it is at most 1000"},
        {GOOD " --set steps=1.5", "steps: '1.5' is not a whole number"},
        {GOOD " --set steps=", "is not a whole number"},
        {GOOD " --set rate=nan", "'nan' is not a finite number"},
        {GOOD " --set rate=0x1p-1", "is not a finite number"},
        {GOOD " --set loud=yes", "'yes' is neither true nor false"},
        {GOOD " --set mode=plai", "'plai' is no choice; it may be plain|fancy"},
        {GOOD " --in dat=x", "has no input 'dat'; did you mean data?"},
        {GOOD " --out results=x", "has no output 'results'; did you mean result?"},
        {GOOD " --out result=x", "--out result is given twice"},
        {"--set name=x --out result=r", "input data is missing"},
        {"--set name=x --in data=d", "output result is missing"},
        {GOOD " --threads 0", "--threads is 1 to 4096"},
        {GOOD " --device gpu", "--device is cpu or cuda"},
        {GOOD " --resum x", "did you mean --resume?"},
        {GOOD " --set", "--set wants a value"},
        {GOOD " --set name", "--set wants NAME=VALUE"},
        {GOOD " --in data=", "--in wants NAME=PATH"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct stage_task t;
        struct err err = ERR_INIT;

        EXPECT_ERR(line(&t, cases[i].line, &err), ERR_USAGE, &err);
        if (!strstr(err.text, cases[i].text))
            EXPECT_STR(err.text, cases[i].text);
        stage_task_release(&t);
    }
}

#define CARD                                                                                       \
    "{\"contract\":1,\"task\":\"demo[k=1]\",\"params\":{\"name\":\"x\",\"steps\":5.0},"            \
    "\"inputs\":{\"data\":{\"path\":\"in/data\",\"digest\":\"sha256:00\",\"entries\":["            \
    "{\"name\":\"a\",\"path\":\"in/data/a\",\"digest\":\"sha256:01\"}]}},"                         \
    "\"outputs\":{\"result\":\"out/result\"},\"resume\":\"resume/"                                 \
    "step-1\",\"checkpoints\":\"ckpt\","                                                           \
    "\"checkpoint_every_s\":9,\"grace_s\":8,\"device\":\"cuda\",\"cpus\":2,\"gpus\":1,\"ranks\":"  \
    "1}"

TEST(card_fills_the_task)
{
    struct stage_task t;
    struct err err = ERR_INIT;

    stage_task_init(&t, &self);
    EXPECT_OK(stage_card_parse(CARD, strlen(CARD), "/task", &t, &err), &err);
    EXPECT_OK(stage_params_complete(&self, t.params, &err), &err);
    EXPECT_OK(stage_ports_check(&t, &err), &err);
    EXPECT_STR(t.name, "demo[k=1]");
    EXPECT_EQ(stage_int(&t, "steps"), 5);
    EXPECT_STR(stage_input(&t, "data")->path, "/task/in/data");
    EXPECT_STR(stage_input(&t, "data")->digest, "sha256:00");
    EXPECT_STR(stage_input(&t, "data")->entries[0].path, "/task/in/data/a");
    EXPECT_STR(stage_output(&t, "result"), "/task/out/result");
    EXPECT_STR(t.resume, "/task/resume/step-1");
    EXPECT_STR(t.checkpoints, "/task/ckpt");
    EXPECT_EQ(t.checkpoint_every_s, 9);
    EXPECT_EQ(t.threads, 2);
    EXPECT_STR(t.device, "cuda");
    stage_task_release(&t);
}

TEST(a_wrong_card_is_status_64)
{
    static const char *const cards[] = {
        "",
        "[]",
        "{}",
        "{\"contract\":2}",
        "{\"contract\":1,\"params\":[]}",
        "{\"contract\":1,\"inputs\":{\"data\":{\"path\":\"/etc\"}}}",
        "{\"contract\":1,\"inputs\":{\"data\":{\"path\":\"in/../../x\"}}}",
        "{\"contract\":1,\"outputs\":{\"result\":\"..\"}}",
        "{\"contract\":1,\"outputs\":{\"result\":3}}",
        "{\"contract\":1,\"cpus\":0}",
    };

    for (size_t i = 0; i < sizeof(cards) / sizeof(cards[0]); i++) {
        struct stage_task t;
        struct err err = ERR_INIT;

        stage_task_init(&t, &self);
        EXPECT_ERR(stage_card_parse(cards[i], strlen(cards[i]), "/task", &t, &err), ERR_USAGE,
                   &err);
        stage_task_release(&t);
    }
}

TEST(statuses_are_those_of_the_contract)
{
    EXPECT_EQ(stage_exit_status(OK), 0);
    EXPECT_EQ(stage_exit_status(ERR_USAGE), 64);
    EXPECT_EQ(stage_exit_status(ERR_INPUT), 65);
    EXPECT_EQ(stage_exit_status(ERR_LIMIT), 65);
    EXPECT_EQ(stage_exit_status(ERR_STOPPED), 75);
    for (int c = 1; c < ERR_CODE_COUNT; c++) {
        const int s = stage_exit_status((enum err_code)c);

        EXPECT(s != 0);
        if (c != ERR_STOPPED) /* else the task would be requeued for ever */
            EXPECT(s != 75);
    }
}

TEST(weir_reads_the_description)
{
    struct program prog = {0};
    struct arena a;
    struct buf text;
    struct err err = ERR_INIT;
    json_t *root = NULL;

    arena_init(&a);
    buf_init(&text, 1 << 20);
    EXPECT_OK(stage_describe_text(&self, &text, &err), &err);
    EXPECT_OK(describe_parse(text.p, text.n, &a, &prog, &root, &err), &err);
    EXPECT_EQ(prog.param_count, 5);
    EXPECT_EQ(prog.input_count, 2);
    EXPECT_EQ(prog.output_count, 1);
    EXPECT(prog.numeric);
    EXPECT_STR(json_string_value(json_object_get(prog.libraries, "libx")), "1.2");
    for (size_t i = 0; i < prog.param_count; i++) {
        const struct program_param *p = &prog.params[i];

        EXPECT_EQ(p->extends, strcmp(p->name, "steps") == 0);
        EXPECT_EQ(p->standard == NULL, strcmp(p->name, "name") == 0);
        if (strcmp(p->name, "mode") == 0)
            EXPECT_EQ(json_array_size(p->choices), 2);
    }
    json_decref(root);
    buf_release(&text);
    arena_release(&a);
}

TEST(help_says_everything)
{
    struct buf text;

    buf_init(&text, 1 << 20);
    stage_help_text(&self, &text);
    EXPECT(strstr(text.p, "int, 1 to 1000, default 100, extends"));
    EXPECT(strstr(text.p, "string, one of plain|fancy, default plain"));
    EXPECT(strstr(text.p, "string, must be given"));
    EXPECT(strstr(text.p, "--in data=PATH [--in model=PATH] --out result=PATH"));
    buf_release(&text);
}

static void read_whole(const char *path, struct buf *out)
{
    struct err err = ERR_INIT;

    buf_init(out, 1 << 22);
    EXPECT_OK(os_read_file(AT_FDCWD, path, 1 << 22, out, &err), &err);
}

TEST(events_are_lines_and_bounded)
{
    char dir[TMPDIR_MAX], path[TMPDIR_MAX + 16], *big = mem_zero(1, STAGE_EVENT_MAX + 1);
    const struct stage_value v[] = {{"loss", 0.5}, {"bad", NAN}};
    struct stage_task t;
    struct err err = ERR_INIT;
    struct buf text;

    tmpdir_new(dir);
    (void)snprintf(path, sizeof(path), "%s/events", dir);
    stage_task_init(&t, &self);
    EXPECT_OK(os_open(AT_FDCWD, path, O_WRONLY | O_CREAT, 0644, &t.event_fd, &err), &err);
    stage_metric(&t, 3, v, 2);
    stage_progress(&t, 1, 1, "rows", NULL);
    stage_image(&t, 3, "out/x.png", "a cat");
    memset(big, 'x', STAGE_EVENT_MAX);
    stage_image(&t, 4, "out/x.png", big); /* too long: left out whole */
    stage_task_release(&t);
    read_whole(path, &text);
    EXPECT_STR(text.p,
               "{\"event\":\"metric\",\"step\":3,\"values\":{\"bad\":null,\"loss\":0.5}}\n"
               "{\"done\":1,\"event\":\"progress\",\"total\":1,\"unit\":\"rows\"}\n"
               "{\"caption\":\"a cat\",\"event\":\"image\",\"path\":\"out/x.png\",\"step\":3}\n");
    buf_release(&text);
    free(big);
    tmpdir_free(dir);
}

/* Whatever call fails, step-7 is whole or absent, and never announced when absent. */
TEST(a_checkpoint_is_whole_or_absent)
{
    for (int nth = 0, fired = 1; fired; nth++) {
        char dir[TMPDIR_MAX], ckpt[TMPDIR_MAX + 16], file[TMPDIR_MAX + 64], events[TMPDIR_MAX + 16];
        struct stage_task t;
        struct err err = ERR_INIT;
        struct stat st;
        const char *aside = NULL;
        bool there;
        int fd = -1;
        enum err_code rc;

        tmpdir_new(dir);
        (void)snprintf(ckpt, sizeof(ckpt), "%s/ckpt", dir);
        (void)snprintf(events, sizeof(events), "%s/events", dir);
        stage_task_init(&t, &self);
        t.checkpoints = ckpt;
        EXPECT_OK(os_open(AT_FDCWD, events, O_WRONLY | O_CREAT, 0644, &t.event_fd, &err), &err);
        fault_arm(nth);
        rc = stage_checkpoint_begin(&t, 7, &aside, &err);
        if (!rc) {
            (void)snprintf(file, sizeof(file), "%s/state", aside);
            rc = os_open(AT_FDCWD, file, O_WRONLY | O_CREAT, 0644, &fd, &err);
        }
        if (!rc)
            rc = os_write(fd, "state", 5, &err);
        os_close_quiet(&fd);
        if (!rc)
            rc = stage_checkpoint_commit(&t, 7, &err);
        fired = fault_disarm();
        (void)snprintf(file, sizeof(file), "%s/step-7/state", ckpt);
        there = stat(file, &st) == 0;
        EXPECT(rc || there);
        if (there)
            EXPECT_EQ(st.st_size, 5);
        stage_task_release(&t);
        EXPECT_EQ(stat(events, &st), 0);
        EXPECT(st.st_size == 0 || there);
        if (!fired)
            EXPECT(st.st_size > 0);
        tmpdir_free(dir);
    }
}

RUN(command_line_fills_the_task, an_input_given_twice_has_entries, what_is_wrong_is_named,
    card_fills_the_task, a_wrong_card_is_status_64, statuses_are_those_of_the_contract,
    weir_reads_the_description, help_says_everything, events_are_lines_and_bounded,
    a_checkpoint_is_whole_or_absent)
