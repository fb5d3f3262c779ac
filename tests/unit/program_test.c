#include <sys/wait.h>

#include "orchestrator/program_internal.h"
#include "tests/source_rig.h"

/* ---- programs ----------------------------------------------------------------------------------- */

struct pr {
    struct rig g;
    struct programs *ps;
};

static void pr_new(struct pr *r)
{
    *r = (struct pr){0};
    rig_new(&r->g);
    EXPECT_EQ(setenv("WEIR_LIBEXEC", rig_path(&r->g, "libexec"), 1), 0);
    EXPECT_OK(programs_new(r->g.st, &r->ps, &r->g.err), &r->g.err);
}

static void pr_again(struct pr *r)
{
    programs_free(r->ps);
    EXPECT_OK(programs_new(r->g.st, &r->ps, &r->g.err), &r->g.err);
}

static void pr_free(struct pr *r)
{
    programs_free(r->ps);
    EXPECT_EQ(unsetenv("WEIR_LIBEXEC"), 0);
    rig_free(&r->g);
}

static void script(const struct pr *r, const char *name, const char *body)
{
    char path[100], text[8192];

    (void)snprintf(path, sizeof(path), "libexec/%s", name);
    (void)snprintf(text, sizeof(text), "#!/bin/sh\n%s\n", body);
    rig_file(&r->g, path, text);
    EXPECT_EQ(chmod(rig_path(&r->g, path), 0755), 0);
}

/* Says this description, and counts how often it was asked. */
static void describing(const struct pr *r, const char *name, const char *json)
{
    char body[8000];

    (void)snprintf(body, sizeof(body), "echo asked >>'%s'\ncat <<'END'\n%s\nEND",
                   rig_path(&r->g, "asked"), json);
    script(r, name, body);
}

static int64_t asked(const struct pr *r)
{
    struct stat st;

    return stat(rig_path(&r->g, "asked"), &st) == 0 ? st.st_size / (int64_t)strlen("asked\n") : 0;
}

static enum err_code get(struct pr *r, const char *uses, const char *pinned,
                         const struct program **out)
{
    r->g.err = (struct err)ERR_INIT;
    return program_get(r->ps, uses, pinned, out, &r->g.err);
}

static const char full[] =
    "{\"contract\":1,\"inputs\":{\"data\":{},\"vae\":{\"optional\":true,\"help\":\"h\"}},"
    "\"outputs\":{\"model\":{},\"report\":{\"optional\":true}},"
    "\"params\":{\"steps\":{\"type\":\"int\",\"min\":1,\"extends\":true},"
    "\"lr\":{\"type\":\"float\",\"default\":1e-4,\"min\":0,\"max\":1,\"help\":\"rate\"},"
    "\"kind\":{\"type\":\"string\",\"default\":\"adam\",\"choices\":[\"adam\",\"sgd\"]},"
    "\"ema\":{\"type\":\"bool\",\"default\":false}},"
    "\"numeric\":true,\"libraries\":{\"onednn\":\"2.6.3\"}}";

TEST(a_program_is_described_once_for_each_build)
{
    struct pr r;
    const struct program *prog, *again;
    struct digest first;
    char hex[DIGEST_TEXT + 1];

    pr_new(&r);
    describing(&r, "train", full);
    EXPECT_OK(get(&r, "train", NULL, &prog), &r.g.err);
    EXPECT_STR(prog->name, "train");
    EXPECT_STR(prog->path, rig_path(&r.g, "libexec/train"));
    EXPECT(prog->numeric);
    EXPECT_STR(json_string_value(json_object_get(prog->libraries, "onednn")), "2.6.3");
    EXPECT_EQ(prog->input_count, 2);
    EXPECT_EQ(prog->output_count, 2);
    EXPECT_EQ(prog->param_count, 4);
    EXPECT_STR(program_extending(prog)->name, "steps");
    first = prog->digest;
    free(rig_text(&r.g, &first, "")); /* the program is an object */
    EXPECT_OK(get(&r, "train", NULL, &again), &r.g.err);
    EXPECT(again == prog);
    EXPECT_EQ(asked(&r), 1);
    pr_again(&r);
    EXPECT_OK(get(&r, "train", NULL, &prog), &r.g.err);
    EXPECT_EQ(prog->param_count, 4);
    EXPECT_STR(program_extending(prog)->name, "steps");
    EXPECT_EQ(asked(&r), 1); /* it is known by its key */
    describing(&r, "train", "{\"contract\":1}");
    pr_again(&r);
    EXPECT_OK(get(&r, "train", NULL, &prog), &r.g.err);
    EXPECT_EQ(prog->param_count, 0);
    EXPECT_EQ(asked(&r), 2);
    /* the build that is not there any more comes back out of the store */
    digest_text(&first, hex);
    EXPECT_OK(get(&r, "train", hex, &prog), &r.g.err);
    EXPECT(digest_eq(&prog->digest, &first));
    EXPECT_EQ(prog->param_count, 4);
    EXPECT_EQ(access(prog->path, X_OK), 0);
    EXPECT(strstr(prog->path, "/cache/program/") != NULL);
    EXPECT_EQ(unlink(rig_path(&r.g, "libexec/train")), 0);
    pr_again(&r);
    EXPECT_OK(get(&r, "train", hex, &prog), &r.g.err);
    hex[DIGEST_TEXT - 1] = hex[DIGEST_TEXT - 1] == '0' ? '1' : '0';
    EXPECT_ERR(get(&r, "train", hex, &prog), ERR_INPUT, &r.g.err);
    EXPECT_SAYS(&r.g.err, "the pinned one is not in this store");
    pr_free(&r);
}

TEST(libraries_replaced_beneath_a_program_are_noticed)
{
    struct pr r;
    const struct program *prog;

    pr_new(&r);
    describing(&r, "train", full);
    EXPECT_OK(get(&r, "train", NULL, &prog), &r.g.err);
    EXPECT_EQ(setenv("LD_LIBRARY_PATH", r.g.dir, 1), 0);
    pr_again(&r);
    EXPECT_OK(get(&r, "train", NULL, &prog), &r.g.err);
    EXPECT_EQ(unsetenv("LD_LIBRARY_PATH"), 0);
    EXPECT_EQ(asked(&r), 2);
    pr_free(&r);
}

TEST(programs_that_are_not_there_or_no_programs)
{
    struct pr r;
    const struct program *prog;

    pr_new(&r);
    describing(&r, "pretrain", full);
    script(&r, "weir-exec", "exit 1");
    rig_file(&r.g, "libexec/notes.txt", "no program");
    EXPECT_ERR(get(&r, "pretrian", NULL, &prog), ERR_NOT_FOUND, &r.g.err);
    EXPECT_SAYS(&r.g.err, "did you mean pretrain?");
    EXPECT_ERR(get(&r, "weir-exe", NULL, &prog), ERR_NOT_FOUND, &r.g.err);
    EXPECT(strstr(r.g.err.text, "did you mean") == NULL);
    EXPECT_ERR(get(&r, "../x", NULL, &prog), ERR_INPUT, &r.g.err);
    EXPECT_ERR(get(&r, "notes.txt", NULL, &prog), ERR_INPUT, &r.g.err);
    EXPECT_SAYS(&r.g.err, "not an executable file");
    pr_free(&r);
}

TEST(descriptions_that_say_nonsense)
{
    static const struct {
        const char *json, *says;
    } cases[] = {
        {"", "--describe says"},
        {"[]", "the description is no object"},
        {"{}", "contract"},
        {"{\"contract\":1,\"imputs\":{}}", "did you mean inputs?"},
        {"{\"contract\":1,\"inputs\":[]}", "\"inputs\" is no object"},
        {"{\"contract\":1,\"inputs\":{\"A\":{}}}", "names are [a-z][a-z0-9-]*"},
        {"{\"contract\":1,\"inputs\":{\"a\":1}}", "inputs a is no object"},
        {"{\"contract\":1,\"inputs\":{\"a\":{\"optional\":1}}}", "is true or false"},
        {"{\"contract\":1,\"params\":{\"a\":{}}}", "type"},
        {"{\"contract\":1,\"params\":{\"a\":{\"type\":\"integer\"}}}",
         "none of int, float, bool and string"},
        {"{\"contract\":1,\"params\":{\"a\":{\"type\":\"int\",\"default\":1.5}}}",
         "default: 1.5 is no int"},
        {"{\"contract\":1,\"params\":{\"a\":{\"type\":\"int\",\"default\":0,\"min\":1}}}",
         "default: 0 is too small; it is at least 1"},
        {"{\"contract\":1,\"params\":{\"a\":{\"type\":\"bool\",\"min\":1}}}",
         "min and max go with int and float"},
        {"{\"contract\":1,\"params\":{\"a\":{\"type\":\"int\",\"choices\":[]}}}",
         "a list that is not empty"},
        {"{\"contract\":1,\"params\":{\"a\":{\"type\":\"int\",\"choices\":[\"x\"]}}}",
         "choices are of its type"},
        {"{\"contract\":1,\"params\":{\"a\":{\"type\":\"float\",\"extends\":true}}}",
         "only an int can extend"},
        {"{\"contract\":1,\"params\":{\"a\":{\"type\":\"int\",\"extends\":true},"
         "\"b\":{\"type\":\"int\",\"extends\":true}}}",
         "both extend"},
        {"{\"contract\":1,\"libraries\":{\"x\":1}}", "has no version as text"},
        {"{\"contract\":1} {}", "--describe says"},
    };
    struct pr r;
    const struct program *prog;

    pr_new(&r);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        describing(&r, "train", cases[i].json);
        EXPECT_ERR(get(&r, "train", NULL, &prog), ERR_INPUT, &r.g.err);
        EXPECT_SAYS(&r.g.err, cases[i].says);
    }
    describing(&r, "train", "{\"contract\":2}");
    EXPECT_ERR(get(&r, "train", NULL, &prog), ERR_VERSION, &r.g.err);
    script(&r, "train", "echo broken >&2; exit 3");
    EXPECT_ERR(get(&r, "train", NULL, &prog), ERR_INPUT, &r.g.err);
    EXPECT_SAYS(&r.g.err, "it ends with status 3: broken");
    script(&r, "train", "kill -9 $$");
    EXPECT_ERR(get(&r, "train", NULL, &prog), ERR_INPUT, &r.g.err);
    EXPECT_SAYS(&r.g.err, "signal 9");
    script(&r, "train", "exec yes");
    EXPECT_ERR(get(&r, "train", NULL, &prog), ERR_INPUT, &r.g.err);
    EXPECT_SAYS(&r.g.err, "prints more than 1048576 bytes");
    pr_free(&r);
}

/* ---- pipelines against programs ------------------------------------------------------------------- */

static void stages(struct pr *r, const char *text)
{
    struct buf b;

    pipeline_free(r->g.p);
    r->g.p = NULL;
    buf_init(&b, 1 << 16);
    buf_printf(&b,
               "weir: 1\nname: p\nsources:\n  s: {path: s, license: MIT}\n"
               "stages:\n%s",
               text);
    rig_file(&r->g, "pipe.yaml", b.p);
    EXPECT_OK(pipeline_load(rig_path(&r->g, "pipe.yaml"), NULL, &r->g.p, NULL, &r->g.err),
              &r->g.err);
    buf_release(&b);
}

TEST(a_pipeline_that_fits_its_programs)
{
    struct pr r;
    const struct program *prog;
    json_t *params, *want;

    pr_new(&r);
    describing(&r, "train", full);
    stages(&r, "  t:\n    uses: train\n    inputs: {data: sources.s}\n    outputs: [model]\n"
               "    params: {steps: 10.0, kind: sgd}\n");
    EXPECT_OK(program_check(r.ps, r.g.p, NULL, &r.g.err), &r.g.err);
    EXPECT_OK(get(&r, "train", NULL, &prog), &r.g.err);
    params = program_params(prog, &r.g.p->tasks[0]);
    want = json_pack("{s:f,s:f,s:s,s:b}", "steps", 10.0, "lr", 1e-4, "kind", "sgd", "ema", 0);
    EXPECT(json_equal(params, want));
    json_decref(params);
    json_decref(want);
    pr_free(&r);
}

TEST(all_that_does_not_fit_is_told_with_its_place)
{
    static const char *const lines[] = {
        "pipe.yaml:6:3: stage t: train has no output 'modle'; did you mean 'model'?",
        "pipe.yaml:6:3: stage t: train makes 'model' too; name it in outputs",
        "pipe.yaml:11:18: stage t: train has no param 'ls'; did you mean 'lr'?",
        "pipe.yaml:11:27: stage t: param kind: \"adma\" is no choice; did you mean adam?; it may "
        "be "
        "\"adam\", \"sgd\"",
        "pipe.yaml:11:38: stage t: param ema: \"x\" is no bool",
        "pipe.yaml:6:3: stage t: train needs the param 'steps' (int)",
        "pipe.yaml:8:19: stage t: train has no input 'dta'; did you mean 'data'?",
        "pipe.yaml:6:3: stage t: train needs the input 'data'",
        "pipe.yaml:12:3: stage u: there is no program 'trian'",
        "pipe.yaml:19:21: stage v: param steps: 0 is too small; it is at least 1",
    };
    struct pr r;
    struct buf told;
    size_t count = 0;

    pr_new(&r);
    describing(&r, "train", full);
    buf_init(&told, 1 << 16);
    stages(&r, "  t:\n    uses: train\n    inputs: {dta: sources.s}\n    outputs: [modle]\n"
               "    matrix: {x: [1, 2, 3]}\n"
               "    params: {ls: 1, kind: adma, ema: x}\n"
               "  u:\n    uses: trian\n    outputs: [model]\n"
               "  v:\n    uses: train\n    inputs: {data: sources.s}\n    outputs: [model]\n"
               "    params: {steps: 0, lr: 1.5}\n");
    EXPECT_ERR(program_check(r.ps, r.g.p, &told, &r.g.err), ERR_INPUT, &r.g.err);
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        check_true(strstr(told.p, lines[i]) != NULL, lines[i], __FILE__, __LINE__);
    EXPECT(strstr(told.p, "stage v: param steps: 0 is too small; it is at least 1") != NULL);
    EXPECT(strstr(told.p, "stage v: param lr: 1.5 is too large; it is at most 1") != NULL);
    for (const char *p = told.p; *p; p++)
        count += *p == '\n';
    EXPECT_EQ(count, 11); /* each once, though the stage has three instances */
    EXPECT(strncmp(told.p, r.g.err.text, strlen(r.g.err.text)) == 0); /* the first */
    buf_release(&told);
    pr_free(&r);
}

/* ---- platform and secret ---------------------------------------------------------------------------- */

TEST(the_platform_class_is_the_same_each_time)
{
    struct err err = ERR_INIT;
    char a[64], b[64];

    EXPECT_OK(platform_class(false, a, &err), &err);
    EXPECT_OK(platform_class(false, b, &err), &err);
    EXPECT_STR(a, b);
#if defined(__x86_64__)
    EXPECT(strncmp(a, "x86_64", 6) == 0);
#endif
    EXPECT(a[strspn(a, "abcdefghijklmnopqrstuvwxyz0123456789_+")] == '\0');
}

TEST(a_secret_is_made_once_and_hides_values)
{
    struct rig g;
    char a[80], b[80], c[80];
    struct stat st;

    rig_new(&g);
    EXPECT_OK(secret_hmac(g.st, "ZOO", "/zoo", a, &g.err), &g.err);
    EXPECT_EQ(strncmp(a, "hmac-sha256:", 12), 0);
    EXPECT_EQ(strlen(a), 12 + DIGEST_HEX);
    EXPECT_OK(secret_hmac(g.st, "ZOO", "/zoo", b, &g.err), &g.err);
    EXPECT_STR(a, b);
    EXPECT_OK(secret_hmac(g.st, "ZOO", "/zoo2", b, &g.err), &g.err);
    EXPECT_OK(secret_hmac(g.st, "ZO", "/zoo", c, &g.err), &g.err);
    EXPECT(strcmp(a, b) != 0 && strcmp(a, c) != 0 && strcmp(b, c) != 0);
    EXPECT_EQ(stat(rig_path(&g, ".weir/secret"), &st), 0);
    EXPECT_EQ(st.st_mode & 07777, 0600);
    EXPECT_EQ(st.st_size, 32);
    EXPECT_ERR(secret_hmac(g.st, "ZOO", NULL, a, &g.err), ERR_CONFIG, &g.err);
    EXPECT_SAYS(&g.err, "ZOO");
    EXPECT_EQ(chmod(rig_path(&g, ".weir/secret"), 0644), 0);
    g.err = (struct err)ERR_INIT;
    EXPECT_ERR(secret_hmac(g.st, "ZOO", "/zoo", a, &g.err), ERR_CONFIG, &g.err);
    EXPECT_SAYS(&g.err, "chmod 600");
    EXPECT_EQ(truncate(rig_path(&g, ".weir/secret"), 5), 0);
    g.err = (struct err)ERR_INIT;
    EXPECT_ERR(secret_hmac(g.st, "ZOO", "/zoo", a, &g.err), ERR_DAMAGED, &g.err);
    rig_free(&g);
}

TEST(processes_that_make_the_secret_at_once_have_the_same)
{
    enum { RACERS = 8 };
    struct rig g;
    int pipes[2];
    char first[80] = "";

    rig_new(&g);
    EXPECT_EQ(pipe(pipes), 0);
    for (int i = 0; i < RACERS; i++) {
        const pid_t pid = fork();

        EXPECT(pid >= 0);
        if (pid == 0) {
            const struct store only = {.root = g.st->root};
            struct store copy = only;
            struct err err = ERR_INIT;
            char out[80] = "failed";

            (void)!secret_hmac(&copy, "A", "b", out, &err);
            _exit(write(pipes[1], out, sizeof(out)) == sizeof(out) ? 0 : 1);
        }
    }
    for (int i = 0; i < RACERS; i++) {
        char out[80];
        int status;

        EXPECT_EQ(read(pipes[0], out, sizeof(out)), sizeof(out));
        if (i == 0)
            memcpy(first, out, sizeof(out));
        EXPECT_STR(out, first);
        EXPECT(wait(&status) > 0);
        EXPECT_EQ(status, 0);
    }
    EXPECT_EQ(strncmp(first, "hmac-sha256:", 12), 0);
    close(pipes[0]);
    close(pipes[1]);
    rig_free(&g);
}

RUN(a_program_is_described_once_for_each_build, libraries_replaced_beneath_a_program_are_noticed,
    programs_that_are_not_there_or_no_programs, descriptions_that_say_nonsense,
    a_pipeline_that_fits_its_programs, all_that_does_not_fit_is_told_with_its_place,
    the_platform_class_is_the_same_each_time, a_secret_is_made_once_and_hides_values,
    processes_that_make_the_secret_at_once_have_the_same)
