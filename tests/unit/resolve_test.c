#include <unistd.h>

#include "orchestrator/ledger.h"
#include "orchestrator/resolve_internal.h"
#include "store/index.h"
#include "tests/resolve_rig.h"

static const char two[] = "weir: 1\n"
                          "name: two\n"
                          "params: {scale: 2}\n"
                          "sources:\n"
                          "  a: {path: a.txt, license: MIT}\n"
                          "  b: {path: b.txt, license: MIT}\n"
                          "stages:\n"
                          "  first:\n"
                          "    run: [sh, code.sh, \"{params.x}\"]\n"
                          "    code: [code.sh]\n"
                          "    matrix: {k: [p, q]}\n"
                          "    inputs: {in: sources.a}\n"
                          "    outputs: [o]\n"
                          "    params: {x: \"${params.scale}\", k: \"${matrix.k}\"}\n"
                          "  join:\n"
                          "    run: \"cat {inputs.all}/* {inputs.b} > {outputs.o}\"\n"
                          "    inputs: {all: \"first[*].o\", b: sources.b}\n"
                          "    outputs: [o, extra]\n"
                          "  last:\n"
                          "    run: \"cp {inputs.i} {outputs.o}\"\n"
                          "    inputs: {i: join.o}\n"
                          "    outputs: [o]\n";

static void two_files(struct rig *g)
{
    rig_write(g, "pipe.yaml", two);
    rig_write(g, "a.txt", "a\n");
    rig_write(g, "b.txt", "b\n");
    rig_write(g, "code.sh", "true\n");
}

static size_t known(const struct rig *g)
{
    size_t n = 0;

    for (size_t i = 0; i < g->p->task_count; i++)
        n += g->results[i].known;
    return n;
}

static void replace(struct rig *g, const char *file, const char *text, const char *old,
                    const char *now)
{
    const char *at = strstr(text, old);
    struct buf all;

    EXPECT(at != NULL);
    buf_init(&all, 1 << 20);
    buf_add(&all, text, (size_t)(at - text));
    buf_str(&all, now);
    buf_str(&all, at + strlen(old));
    rig_write(g, file, all.p);
    buf_release(&all);
}

TEST(what_has_run_is_known_with_and_without_memo)
{
    static const struct resolver_options no_memo = {.no_memo = true};
    struct rig g;
    struct task_result t;

    rig_new(&g);
    two_files(&g);
    rig_open(&g, NULL, NULL);
    rig_all(&g);
    EXPECT_EQ(known(&g), 0);
    EXPECT(g.keyed[rig_task(&g, "first[k=p]")]);
    EXPECT(!g.keyed[rig_task(&g, "last")]);
    EXPECT_ERR(resolve_task(g.r, rig_task(&g, "last"), &t, &g.err), ERR_AGAIN, &g.err);
    g.err = (struct err)ERR_INIT;
    EXPECT_EQ(rig_run(&g), 4);
    EXPECT_OK(resolver_save(g.r, &g.err), &g.err);
    rig_open(&g, NULL, NULL);
    rig_all(&g);
    EXPECT_EQ(known(&g), 4);
    EXPECT_EQ(g.results[rig_task(&g, "join")].output_count, 2);
    EXPECT_STR(g.results[rig_task(&g, "join")].outputs[1].name, "extra");
    rig_open(&g, NULL, &no_memo);
    rig_all(&g);
    EXPECT_EQ(known(&g), 4);
    rig_free(&g);
}

/* The stages below the change run, until an output comes out as before. */
TEST(a_change_stops_where_outputs_are_equal)
{
    struct rig g;
    char text[sizeof(two) + 64];

    rig_new(&g);
    two_files(&g);
    replace(&g, "pipe.yaml", two, "x: \"${params.scale}\"", "x: \"${params.scale}\", out: same");
    rig_open(&g, NULL, NULL);
    EXPECT_EQ(rig_run(&g), 4);
    EXPECT_OK(resolver_save(g.r, &g.err), &g.err);
    (void)snprintf(text, sizeof(text), "more\n");
    rig_write(&g, "a.txt", text);
    rig_open(&g, NULL, NULL);
    rig_all(&g);
    EXPECT_EQ(known(&g), 0);
    EXPECT_EQ(rig_run(&g), 2); /* both of first; what they make is the same */
    EXPECT(resolve_get(g.r, rig_task(&g, "last"))->known);
    EXPECT_OK(resolver_save(g.r, &g.err), &g.err);
    rig_write(&g, "b.txt", "other\n");
    rig_open(&g, NULL, NULL);
    rig_all(&g);
    EXPECT_EQ(known(&g), 2);
    EXPECT_EQ(rig_run(&g), 2);
    rig_free(&g);
}

/* Made again with another outcome, a task takes along what was keyed with the old one. */
TEST(posting_another_result_unkeys_the_users)
{
    struct rig g;
    struct digest made;
    struct writer *w = NULL;
    struct tree outs, top;
    struct tree_entry o = {.mode = TREE_FILE, .name = STR("o"), .size = 5},
                      e = {.mode = TREE_DIR, .name = STR("out")};
    int task;

    rig_new(&g);
    two_files(&g);
    rig_open(&g, NULL, NULL);
    EXPECT_EQ(rig_run(&g), 4);
    task = rig_task(&g, "first[k=q]");
    tree_init(&outs);
    tree_init(&top);
    EXPECT_OK(writer_open(g.st, &w, &g.err), &g.err);
    EXPECT_OK(writer_put(w, OBJ_BLOB, "other", 5, &o.digest, &g.err), &g.err);
    EXPECT_OK(tree_add(&outs, &o, 0, &g.err), &g.err);
    rig_tree(w, &outs, &e.digest, &e.size, &g.err);
    EXPECT_OK(tree_add(&top, &e, 0, &g.err), &g.err);
    rig_tree(w, &top, &made, &e.size, &g.err);
    EXPECT_OK(writer_commit(w, &g.err), &g.err);
    writer_release(w);
    EXPECT_OK(resolve_post(g.r, task, &made, &g.err), &g.err);
    EXPECT(!resolve_get(g.r, rig_task(&g, "last"))->known);
    EXPECT(resolve_get(g.r, rig_task(&g, "first[k=p]"))->known);
    EXPECT_EQ(rig_run(&g), 2);
    rig_free(&g);
}

/* What has left the store is not known, though the memo says so. */
TEST(a_lost_object_is_noticed_through_the_epoch)
{
    struct rig g;
    struct digest lost;

    rig_new(&g);
    two_files(&g);
    rig_open(&g, NULL, NULL);
    EXPECT_EQ(rig_run(&g), 4);
    EXPECT_OK(resolver_save(g.r, &g.err), &g.err);
    lost = resolve_get(g.r, rig_task(&g, "join"))->outputs[0].digest;
    EXPECT_OK(index_drop_objects(g.st->index, &lost, 1, &g.err), &g.err);
    rig_open(&g, NULL, NULL);
    rig_all(&g);
    EXPECT(!g.results[rig_task(&g, "join")].known);
    EXPECT(g.keyed[rig_task(&g, "join")]);
    EXPECT(g.results[rig_task(&g, "first[k=p]")].known);
    EXPECT(!g.keyed[rig_task(&g, "last")]);
    rig_free(&g);
}

static void memo_path(const struct rig *g, char out[512])
{
    char dir[TMPDIR_MAX + 32];
    struct os_entry *entries = NULL;
    struct err err = ERR_INIT;
    size_t n = 0;
    int fd = -1;

    (void)snprintf(dir, sizeof(dir), "%s/.weir/cache", g->dir);
    EXPECT_OK(os_open_dir(AT_FDCWD, dir, &fd, &err), &err);
    EXPECT_OK(os_list(fd, &entries, &n, &err), &err);
    out[0] = '\0';
    for (size_t i = 0; i < n; i++)
        if (strncmp(entries[i].name, "plan-", 5) == 0)
            (void)snprintf(out, 512, "%s/%s", dir, entries[i].name);
    EXPECT(out[0] != '\0');
    free(entries);
    os_close_quiet(&fd);
}

/* It is written when something changed, read back whole, and taken: no test above would notice if it never were. */
TEST(the_memo_is_taken)
{
    struct rig g;
    struct memo m;
    char path[512], *name;

    rig_new(&g);
    two_files(&g);
    rig_open(&g, NULL, NULL);
    EXPECT_EQ(rig_run(&g), 4);
    EXPECT_OK(resolver_save(g.r, &g.err), &g.err);
    memo_path(&g, path);
    name = strrchr(path, '/');
    *name++ = '\0';
    memo_open(path, name, &m);
    EXPECT(m.map != NULL);
    EXPECT_EQ(m.head.tasks, 4);
    EXPECT_EQ(m.head.outputs, 5);
    EXPECT_EQ(m.tasks[3].flags, MEMO_KEYED | MEMO_KNOWN);
    memo_close(&m);
    rig_open(&g, NULL, NULL);
    EXPECT(g.r->rows);
    rig_all(&g);
    EXPECT(!g.r->changed); /* every task by its row */
    replace(&g, "pipe.yaml", two, "name: two", "name: three");
    rig_open(&g, NULL, NULL);
    EXPECT(!g.r->rows);
    EXPECT(g.r->memo.map != NULL); /* of another file, but its keys are of use */
    rig_all(&g);
    EXPECT_EQ(known(&g), 4);
    EXPECT(g.r->table != NULL);
    rig_free(&g);
}

TEST(a_damaged_memo_costs_time_only)
{
    struct rig g;
    char path[512];
    struct buf text;

    rig_new(&g);
    two_files(&g);
    rig_open(&g, NULL, NULL);
    EXPECT_EQ(rig_run(&g), 4);
    EXPECT_OK(resolver_save(g.r, &g.err), &g.err);
    memo_path(&g, path);
    buf_init(&text, 1 << 20);
    EXPECT_OK(os_read_file(AT_FDCWD, path, 1 << 20, &text, &g.err), &g.err);
    for (size_t i = 0; i < text.n; i += 13) {
        text.p[i] = (char)(text.p[i] ^ 0x11);
        EXPECT_OK(os_write_file(AT_FDCWD, path, text.p, i % 5 ? text.n : text.n - i, 0644, &g.err),
                  &g.err);
        text.p[i] = (char)(text.p[i] ^ 0x11);
        rig_open(&g, NULL, NULL);
        rig_all(&g);
        EXPECT_EQ(known(&g), 4);
    }
    buf_release(&text);
    rig_free(&g);
}

/* ---- what is in the key, and what is not ----------------------------------------------------------- */

static const char base_yaml[] = "weir: 1\n"
                                "name: parts\n"
                                "sources:\n"
                                "  a: {path: a.txt, license: MIT}\n"
                                "  b: {path: b.txt, license: MIT}\n"
                                "stages:\n"
                                "  one:\n"
                                "    run: [tool, word]\n"
                                "    code: [code.sh]\n"
                                "    env: [PART]\n"
                                "    inputs: {x: sources.a, many: [sources.a, sources.b]}\n"
                                "    outputs: [o, p]\n"
                                "    params: {n: 1, s: text}\n"
                                "    device: cpu\n"
                                "    resources: {cpus: 2, memory: 1GiB}\n"
                                "    retries: {attempts: 2, backoff: 5s}\n"
                                "    timeout: 1h\n";

struct part {
    const char *what, *file, *old, *now; /* file NULL: the variable PART becomes now */
    bool keyed;
};
static const struct part parts[] = {
    {"a word of the command", "pipe.yaml", "tool, word", "tool, other", true},
    {"the command as text", "pipe.yaml", "[tool, word]", "tool word", true},
    {"a code file's bytes", "code.sh", NULL, "false\n", true},
    {"a code file's name", "pipe.yaml", "[code.sh]", "[code2.sh]", true},
    {"a variable's value", NULL, NULL, "other", true},
    {"an input's bytes", "a.txt", NULL, "changed\n", true},
    {"an input's name", "pipe.yaml", "{x: sources.a", "{y: sources.a", true},
    {"the order of a fan-in", "pipe.yaml", "[sources.a, sources.b]", "[sources.b, sources.a]",
     true},
    {"a fan-in with less", "pipe.yaml", "[sources.a, sources.b]", "[sources.a]", true},
    {"an output's name", "pipe.yaml", "outputs: [o, p]", "outputs: [o, q]", true},
    {"a number", "pipe.yaml", "n: 1,", "n: 2,", true},
    {"a number as text", "pipe.yaml", "n: 1,", "n: \"1\",", true},
    {"a param's name", "pipe.yaml", "s: text", "t: text", true},
    {"another param", "pipe.yaml", "s: text", "s: text, u: null", true},
    {"the device", "pipe.yaml", "device: cpu", "device: cuda", true},
    {"1.0 for 1", "pipe.yaml", "n: 1,", "n: 1.0,", false},
    {"the order of params", "pipe.yaml", "{n: 1, s: text}", "{s: text, n: 1}", false},
    {"the stage's name", "pipe.yaml", "  one:", "  renamed:", false},
    {"the pipeline's name", "pipe.yaml", "name: parts", "name: another", false},
    {"cpus", "pipe.yaml", "cpus: 2", "cpus: 1", false},
    {"memory", "pipe.yaml", "1GiB", "2GiB", false},
    {"ranks", "pipe.yaml", "cpus: 2", "cpus: 2, ranks: 2", false},
    {"attempts", "pipe.yaml", "attempts: 2", "attempts: 5", false},
    {"backoff", "pipe.yaml", "5s", "6s", false},
    {"the timeout", "pipe.yaml", "1h", "2h", false},
    {"checkpoints", "pipe.yaml", "    timeout", "    checkpoint: {every: 1m, keep: 3}\n    timeout",
     false},
    {"a licence", "pipe.yaml", "b.txt, license: MIT", "b.txt, license: CC0-1.0", false},
    {"a comment", "pipe.yaml", "    timeout", "    # more\n    timeout", false},
    {"a file that nobody names", "c.txt", NULL, "c\n", false},
};

static void base_files(struct rig *g)
{
    rig_write(g, "pipe.yaml", base_yaml);
    rig_write(g, "a.txt", "a\n");
    rig_write(g, "b.txt", "b\n");
    rig_write(g, "c.txt", "-\n");
    rig_write(g, "code.sh", "true\n");
    rig_write(g, "code2.sh", "true\n");
    EXPECT_EQ(setenv("PART", "value", 1), 0);
}

TEST(keys_hold_what_matters_and_nothing_else)
{
    struct rig g;
    struct digest before;
    bool good = true;

    rig_new(&g);
    base_files(&g);
    rig_open(&g, NULL, NULL);
    rig_all(&g);
    before = g.results[0].key;
    EXPECT_OK(resolver_save(g.r, &g.err), &g.err);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        const struct part *c = &parts[i];

        base_files(&g);
        if (!c->file)
            EXPECT_EQ(setenv("PART", c->now, 1), 0);
        else if (c->old)
            replace(&g, c->file, base_yaml, c->old, c->now);
        else
            rig_write(&g, c->file, c->now);
        rig_open(&g, NULL, NULL);
        rig_all(&g);
        EXPECT(g.keyed[0]);
        if (digest_eq(&before, &g.results[0].key) != !c->keyed) {
            good = false;
            (void)fprintf(stderr, "%s: the key %s\n", c->what,
                          c->keyed ? "stayed" : "should have stayed");
        }
    }
    EXPECT(good);
    EXPECT_EQ(unsetenv("PART"), 0);
    rig_free(&g);
}

/* No value of a variable, only its HMAC, and that is the store's own. */
TEST(values_of_variables_stay_out_of_actions)
{
    struct rig g;
    json_t *action, *card;
    char *text;

    rig_new(&g);
    base_files(&g);
    EXPECT_EQ(setenv("PART", "very-secret", 1), 0);
    rig_open(&g, NULL, NULL);
    rig_all(&g);
    EXPECT_OK(resolve_action(g.r, 0, &action, &g.err), &g.err);
    text = json_dumps(action, 0);
    EXPECT(strstr(text, "hmac-sha256:") != NULL);
    EXPECT(strstr(text, "very-secret") == NULL);
    free(text);
    json_decref(action);
    EXPECT_OK(resolve_card(g.r, 0, "/tmp/task", NULL, &card, &g.err), &g.err);
    EXPECT_STR(json_string_value(json_object_get(json_object_get(card, "env"), "PART")),
               "very-secret");
    json_decref(card);
    EXPECT_EQ(unsetenv("PART"), 0);
    EXPECT_ERR(rig_try(&g, NULL, NULL) ? g.err.code : resolve_all(g.r, NULL, NULL, &g.err),
               ERR_CONFIG, &g.err);
    rig_free(&g);
}

/* ---- inputs from the command line, wanted tasks, going on ------------------------------------------ */

TEST(an_input_can_be_replaced)
{
    static const char *const none[] = {NULL};
    struct rig g;
    struct digest plain;
    char one[TMPDIR_MAX + 64], whole[TMPDIR_MAX + 64];
    const char *inputs[] = {one, NULL};
    const struct resolver_options with = {.inputs = inputs}, without = {.inputs = none};

    rig_new(&g);
    two_files(&g);
    rig_write(&g, "other.txt", "other\n");
    (void)snprintf(one, sizeof(one), "join.all[k=q]=%s/other.txt", g.dir);
    (void)snprintf(whole, sizeof(whole), "join.all=%s/other.txt", g.dir);
    rig_open(&g, NULL, &without);
    EXPECT_EQ(rig_run(&g), 4);
    plain = resolve_get(g.r, rig_task(&g, "join"))->key;
    EXPECT_OK(resolver_save(g.r, &g.err), &g.err);
    rig_open(&g, NULL, &with);
    rig_all(&g);
    EXPECT(g.keyed[rig_task(&g, "join")]);
    EXPECT(!g.results[rig_task(&g, "join")].known);
    EXPECT(!digest_eq(&plain, &g.results[rig_task(&g, "join")].key));
    EXPECT_EQ(rig_run(&g), 2);
    inputs[0] = whole;
    rig_write(&g, "a.txt", "never run\n"); /* nobody needs first any more */
    rig_open(&g, NULL, &with);
    rig_all(&g);
    EXPECT(g.keyed[rig_task(&g, "join")]);
    (void)snprintf(one, sizeof(one), "join.al=%s/other.txt", g.dir);
    inputs[0] = one;
    EXPECT_ERR(rig_try(&g, NULL, &with), ERR_USAGE, &g.err);
    EXPECT(strstr(g.err.text, "did you mean 'all'") != NULL);
    g.err = (struct err)ERR_INIT;
    inputs[0] = "nothing";
    EXPECT_ERR(rig_try(&g, NULL, &with), ERR_USAGE, &g.err);
    rig_free(&g);
}

TEST(what_nobody_wants_is_not_read)
{
    const bool wanted[] = {true, false, false, false};
    const struct resolver_options o = {.wanted = wanted};
    struct rig g;

    rig_new(&g);
    two_files(&g);
    rig_open(&g, NULL, NULL);
    EXPECT_EQ(rig_run(&g), 4);
    EXPECT_OK(resolver_save(g.r, &g.err), &g.err);
    rig_write(&g, "b.txt", "changed\n"); /* only join needs it */
    rig_open(&g, NULL, &o);
    rig_all(&g);
    EXPECT_EQ(known(&g), 1);
    EXPECT(!g.keyed[rig_task(&g, "join")]);
    EXPECT_OK(resolver_save(g.r, &g.err), &g.err); /* which must not spoil the memo for others */
    rig_open(&g, NULL, NULL);
    rig_all(&g);
    EXPECT_EQ(known(&g), 2);
    rig_free(&g);
}

static void keep_points(struct rig *g, const char *ref, const char *const *names)
{
    struct writer *w = NULL;
    struct tree points;
    struct digest d;
    int64_t size;

    tree_init(&points);
    EXPECT_OK(writer_open(g->st, &w, &g->err), &g->err);
    for (size_t i = 0; names[i]; i++) {
        struct tree_entry e = {.mode = TREE_FILE, .name = str_of(names[i])};

        e.size = (int64_t)e.name.n;
        EXPECT_OK(writer_put(w, OBJ_BLOB, names[i], e.name.n, &e.digest, &g->err), &g->err);
        EXPECT_OK(tree_add(&points, &e, 0, &g->err), &g->err);
    }
    rig_tree(w, &points, &d, &size, &g->err);
    EXPECT_OK(writer_ref(w, str_of(ref), OBJ_TREE, &d, &g->err), &g->err);
    EXPECT_OK(writer_commit(w, &g->err), &g->err);
    writer_release(w);
}

TEST(the_newest_whole_checkpoint_is_found)
{
    static const char *const names[] = {"step-9",    "step-120", "step-30",
                                        "steps-999", "step-x",   NULL};
    struct rig g;
    struct resume_point point;
    json_t *card;
    char ref[96], want[96], hex[DIGEST_HEX + 1];

    rig_new(&g);
    two_files(&g);
    rig_open(&g, NULL, NULL);
    rig_all(&g);
    EXPECT_OK(resolve_resume(g.r, 0, ref, &point, &g.err), &g.err);
    EXPECT_EQ(point.step, -1);
    digest_hex(&g.results[0].key, hex); /* no param extends: the key itself */
    (void)snprintf(want, sizeof(want), "checkpoints/%s", hex);
    EXPECT_STR(ref, want);
    keep_points(&g, ref, names);
    EXPECT_OK(resolve_resume(g.r, 0, ref, &point, &g.err), &g.err);
    EXPECT_EQ(point.step, 120);
    EXPECT_OK(resolve_card(g.r, 0, "/tmp/task", &point, &card, &g.err), &g.err);
    EXPECT_EQ(json_integer_value(json_object_get(json_object_get(card, "resume"), "step")), 120);
    EXPECT_STR(json_string_value(json_object_get(json_object_get(card, "checkpoints"), "ref")),
               ref);
    json_decref(card);
    EXPECT_OK(index_drop_objects(g.st->index, &point.digest, 1, &g.err), &g.err);
    EXPECT_OK(resolve_resume(g.r, 0, ref, &point, &g.err), &g.err);
    EXPECT_EQ(point.step, 30);
    rig_free(&g);
}

static void program(struct rig *g, const char *version)
{
    char path[TMPDIR_MAX + 32], text[1024];

    (void)snprintf(path, sizeof(path), "%s/libexec", g->dir);
    EXPECT_OK(os_mkdirs(path, 0755, &g->err), &g->err);
    EXPECT_EQ(setenv("WEIR_LIBEXEC", path, 1), 0);
    (void)snprintf(text, sizeof(text),
                   "#!/bin/sh\n# %s\ncat <<'END'\n"
                   "{\"contract\":1,\"inputs\":{},\"outputs\":{\"model\":{}},\"params\":{"
                   "\"steps\":{\"type\":\"int\",\"default\":100,\"extends\":true},"
                   "\"lr\":{\"type\":\"float\",\"default\":0.5}},"
                   "\"numeric\":true,\"libraries\":{\"onednn\":\"2.6.3\"}}\nEND\n",
                   version);
    rig_write(g, "libexec/prog", text);
    (void)snprintf(path, sizeof(path), "%s/libexec/prog", g->dir);
    EXPECT_EQ(chmod(path, 0755), 0);
}

static void use_program(struct rig *g, const char *params)
{
    char text[512];

    (void)snprintf(
        text, sizeof(text),
        "weir: 1\nname: uses\nstages:\n  s: {uses: prog, outputs: [model], params: {%s}}\n",
        params);
    rig_write(g, "pipe.yaml", text);
    rig_open(g, NULL, NULL);
    rig_all(g);
}

/* Defaults are filled in before keying; raising the extending param goes on from points that are not past its value, and changing another
 * one never does. */
TEST(an_extending_param_goes_on_from_old_checkpoints)
{
    static const char *const names[] = {"step-50", "step-100", NULL};
    struct rig g;
    struct resume_point point;
    struct digest key, other;
    char ref[96], longer[96];

    rig_new(&g);
    program(&g, "one");
    use_program(&g, "");
    key = g.results[0].key;
    EXPECT_OK(resolve_resume(g.r, 0, ref, &point, &g.err), &g.err);
    EXPECT_EQ(point.step, -1);
    keep_points(&g, ref, names);
    use_program(&g, "lr: 0.5, steps: 100");
    EXPECT(digest_eq(&key, &g.results[0].key));
    use_program(&g, "steps: 200");
    EXPECT(!digest_eq(&key, &g.results[0].key));
    EXPECT_OK(resolve_resume(g.r, 0, longer, &point, &g.err), &g.err);
    EXPECT_STR(longer, ref);
    EXPECT_EQ(point.step, 100);
    use_program(&g, "steps: 99");
    EXPECT_OK(resolve_resume(g.r, 0, longer, &point, &g.err), &g.err);
    EXPECT_EQ(point.step, 50);
    use_program(&g, "lr: 0.25");
    EXPECT_OK(resolve_resume(g.r, 0, longer, &point, &g.err), &g.err);
    EXPECT(strcmp(longer, ref) != 0);
    EXPECT_EQ(point.step, -1);
    /* Another build of the program is another action, whatever the memo says. */
    use_program(&g, "");
    EXPECT_EQ(rig_run(&g), 1);
    EXPECT_OK(resolver_save(g.r, &g.err), &g.err);
    use_program(&g, "");
    EXPECT(g.results[0].known);
    program(&g, "two");
    use_program(&g, "");
    other = g.results[0].key;
    EXPECT(!g.results[0].known);
    EXPECT(!digest_eq(&key, &other));
    EXPECT_EQ(unsetenv("WEIR_LIBEXEC"), 0);
    rig_free(&g);
}

/* A fan-in is stored when its task is about to run, and is what its key says. */
TEST(a_fan_in_is_there_when_its_task_runs)
{
    struct rig g;
    struct digest d;
    struct loc at;
    json_t *card;
    const char *text;
    int task;

    rig_new(&g);
    two_files(&g);
    rig_open(&g, NULL, NULL);
    EXPECT_EQ(rig_run(&g), 4);
    task = rig_task(&g, "join");
    EXPECT_OK(resolve_card(g.r, task, "/tmp/task", NULL, &card, &g.err), &g.err);
    text = json_string_value(
        json_object_get(json_array_get(json_object_get(card, "inputs"), 0), "digest"));
    EXPECT_OK(digest_parse(text, strlen(text), &d, &g.err), &g.err);
    EXPECT_OK(index_get(g.st->index, &d, 1, &at, &g.err), &g.err);
    EXPECT(at.type != 0);
    json_decref(card);
    rig_free(&g);
}

TEST(the_tree_of_results_is_made_once)
{
    struct rig g;
    struct writer *w = NULL;
    struct writer_stats stats;
    struct digest a, b;
    int64_t size;

    rig_new(&g);
    two_files(&g);
    rig_open(&g, NULL, NULL);
    EXPECT_EQ(rig_run(&g), 4);
    EXPECT_OK(writer_open(g.st, &w, &g.err), &g.err);
    EXPECT_OK(resolve_results_tree(g.r, w, &a, &size, &g.err), &g.err);
    EXPECT_OK(writer_ref(w, STR("runs/run-1"), OBJ_TREE, &a, &g.err), &g.err);
    EXPECT_OK(writer_commit(w, &g.err), &g.err);
    writer_release(w);
    EXPECT_OK(resolver_save(g.r, &g.err), &g.err);
    rig_open(&g, NULL, NULL);
    rig_all(&g);
    EXPECT_OK(writer_open(g.st, &w, &g.err), &g.err);
    EXPECT_OK(resolve_results_tree(g.r, w, &b, &size, &g.err), &g.err);
    writer_get_stats(w, &stats);
    EXPECT_EQ(stats.files, 0);
    EXPECT(digest_eq(&a, &b));
    writer_release(w);
    rig_free(&g);
}

RUN(what_has_run_is_known_with_and_without_memo, a_change_stops_where_outputs_are_equal,
    posting_another_result_unkeys_the_users, a_lost_object_is_noticed_through_the_epoch,
    the_memo_is_taken, a_damaged_memo_costs_time_only, keys_hold_what_matters_and_nothing_else,
    values_of_variables_stay_out_of_actions, an_input_can_be_replaced,
    what_nobody_wants_is_not_read, the_newest_whole_checkpoint_is_found,
    an_extending_param_goes_on_from_old_checkpoints, a_fan_in_is_there_when_its_task_runs,
    the_tree_of_results_is_made_once)
