#include <pwd.h>
#include <sys/wait.h>

#include "orchestrator/program.h"
#include "orchestrator/tool.h"
#include "tests/source_rig.h"

/* libgit2 1.5 does not free what PCRE2 gave it when it looks for submodules; nothing of ours is in such a stack. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libpcre2\n";
}

/* git in the folder, as nobody in particular; its stdout. */
static const char *git(const struct rig *g, const char *folder, const char *command)
{
    static char out[4096];
    char script[4096];
    const char *const argv[] = {"sh", "-c", script, NULL};
    struct buf said;
    struct tool t = {.argv = argv, .dir = rig_path(g, folder), .timeout_ms = 60000, .out = &said};
    struct tool_end end;
    struct err err = ERR_INIT;

    (void)snprintf(script, sizeof(script),
                   "export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null HOME=/nonexistent; "
                   "git() { command git -c user.name=n -c user.email=e@x -c "
                   "init.defaultBranch=main -c protocol.file.allow=always \"$@\"; }; %s",
                   command);
    buf_init(&said, sizeof(out));
    EXPECT_OK(tool_run(&t, &end, &err), &err);
    if (end.status)
        print_error("%s\n", end.said);
    EXPECT_EQ(end.status, 0);
    while (said.n && said.p[said.n - 1] == '\n')
        said.n--;
    (void)snprintf(out, sizeof(out), "%.*s", (int)said.n, said.p ? said.p : "");
    buf_release(&said);
    return out;
}

static void start(struct rig *g)
{
    rig_new(g);
    rig_file(g, "r/a.txt", "a");
    rig_file(g, "r/sub/b.txt", "b");
    (void)git(g, "r", "git init -q && git add . && git commit -qm one");
}

static void look(struct rig *g, const char *folder, struct git_state *s)
{
    EXPECT_OK(git_look(rig_path(g, folder), s, &g->err), &g->err);
}

TEST(a_clean_repository)
{
    struct rig g;
    struct git_state s;
    char commit[100];
    json_t *j;

    start(&g);
    (void)snprintf(commit, sizeof(commit), "%s", git(&g, "r", "git rev-parse HEAD"));
    for (int i = 0; i < 2; i++) {
        look(&g, i ? "r/sub" : "r", &s); /* from below as well */
        EXPECT(s.known);
        EXPECT_STR(s.commit, commit);
        EXPECT_STR(s.branch, "main");
        EXPECT(!s.dirty);
        EXPECT_EQ(s.dirty_count, 0);
        EXPECT_STR(s.why, "");
        j = git_json(&s);
        EXPECT_STR(json_string_value(json_object_get(j, "commit")), commit);
        EXPECT(json_is_false(json_object_get(j, "dirty")));
        json_decref(j);
        git_release(&s);
    }
    (void)git(&g, "r", "git checkout -q --detach");
    look(&g, "r", &s);
    EXPECT(s.known);
    EXPECT_STR(s.commit, commit);
    EXPECT_STR(s.branch, "");
    git_release(&s);
    rig_free(&g);
}

TEST(what_is_dirty_is_listed)
{
    struct rig g;
    struct git_state s;

    start(&g);
    rig_file(&g, "r/.gitignore", "*.tmp\n");
    (void)git(&g, "r", "git add .gitignore && git commit -qm two");
    rig_file(&g, "r/junk.tmp", "ignored");
    rig_file(&g, "r/a.txt", "changed");
    rig_file(&g, "r/staged.txt", "staged");
    (void)git(&g, "r", "git add staged.txt && rm sub/b.txt");
    rig_file(&g, "r/new.txt", "new");
    look(&g, "r", &s);
    EXPECT(s.known);
    EXPECT(s.dirty);
    EXPECT_EQ(s.dirty_count, 4);
    EXPECT_STR(s.dirty_files[0], "a.txt");
    EXPECT_STR(s.dirty_files[1], "new.txt");
    EXPECT_STR(s.dirty_files[2], "staged.txt");
    EXPECT_STR(s.dirty_files[3], "sub/b.txt");
    git_release(&s);
    git_release(&s); /* fine on a released one */
    rig_free(&g);
}

TEST(the_list_of_dirty_files_ends)
{
    struct rig g;
    struct git_state s;

    start(&g);
    (void)git(&g, "r",
              "mkdir m && cd m && i=0; while [ $i -lt 1500 ]; do echo $i >$i; i=$((i+1)); done; "
              "git add . && git commit -qm many && for f in *; do echo x >>$f; done");
    look(&g, "r", &s);
    EXPECT(s.known);
    EXPECT(s.dirty);
    EXPECT_EQ(s.dirty_count, GIT_DIRTY_MAX);
    git_release(&s);
    rig_free(&g);
}

TEST(a_branch_without_a_commit)
{
    struct rig g;
    struct git_state s;

    rig_new(&g);
    rig_file(&g, "r/a.txt", "a");
    (void)git(&g, "r", "git init -q");
    look(&g, "r", &s);
    EXPECT(s.known);
    EXPECT_STR(s.commit, "");
    EXPECT_STR(s.branch, "main");
    EXPECT(s.dirty);
    EXPECT_STR(s.dirty_files[0], "a.txt");
    git_release(&s);
    rig_free(&g);
}

TEST(work_trees_submodules_and_bare_repositories)
{
    struct rig g;
    struct git_state s;

    start(&g);
    (void)git(&g, "r", "git branch side && git worktree add -q ../w side");
    look(&g, "w", &s);
    EXPECT(s.known);
    EXPECT_STR(s.branch, "side");
    EXPECT(!s.dirty);
    git_release(&s);
    (void)git(&g, ".", "git clone -q --bare r bare");
    look(&g, "bare", &s);
    EXPECT(s.known);
    EXPECT_EQ(strlen(s.commit), 40);
    EXPECT(!s.dirty);
    git_release(&s);
    rig_file(&g, "outer/x", "x");
    (void)git(
        &g, "outer",
        "git init -q && git submodule --quiet add ../r inner && git add . && git commit -qm o");
    look(&g, "outer", &s);
    EXPECT(s.known);
    EXPECT(!s.dirty);
    git_release(&s);
    rig_file(&g, "outer/inner/a.txt", "changed in the submodule");
    look(&g, "outer", &s);
    EXPECT(s.known);
    EXPECT(s.dirty);
    EXPECT_EQ(s.dirty_count, 1);
    EXPECT_STR(s.dirty_files[0], "inner");
    git_release(&s);
    look(&g, "outer/inner", &s);
    EXPECT(s.known);
    EXPECT_STR(s.dirty_files[0], "a.txt");
    git_release(&s);
    rig_free(&g);
}

TEST(what_cannot_be_known_says_why)
{
    struct rig g;
    struct git_state s;
    json_t *j;

    start(&g);
    rig_file(&g, "s/a", "a");
    (void)git(&g, "s", "git init -q --object-format=sha256 && git add . && git commit -qm one");
    look(&g, "s", &s);
    EXPECT(!s.known);
    EXPECT(*s.why);
    j = git_json(&s);
    EXPECT(json_is_false(json_object_get(j, "known")));
    EXPECT_STR(json_string_value(json_object_get(j, "why")), s.why);
    json_decref(j);
    git_release(&s);
    rig_file(&g, "d/.git/HEAD", "nonsense");
    look(&g, "d", &s);
    EXPECT(!s.known);
    EXPECT(*s.why);
    git_release(&s);
    if (geteuid() == 0) { /* only root can give files away */
        (void)git(&g, "r", "chown -R 65534 .");
        look(&g, "r", &s);
        EXPECT(!s.known);
        check_true(strstr(s.why, "owned") != NULL, s.why, __FILE__, __LINE__);
        git_release(&s);
    }
    look(&g, "not-there", &s);
    EXPECT(!s.known);
    git_release(&s);
    rig_free(&g);
}

RUN(a_clean_repository, what_is_dirty_is_listed, the_list_of_dirty_files_ends,
    a_branch_without_a_commit, work_trees_submodules_and_bare_repositories,
    what_cannot_be_known_says_why)
