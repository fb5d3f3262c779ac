/* Which commit a pipeline's repository is at, and what differs from it.  Never a reason to fail: a folder may be in no repository, or in one
 * that libgit2 does not read (SHA-256), or belong to somebody else; then that is what is written down. */
#include <git2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "orchestrator/program.h"

/* A look at a work tree of a million files would cost more than the run; what is not seen by then is not seen. */
#define LOOK_NS (5 * INT64_C(1000000000))

struct look {
    struct git_state *state;
    int64_t end_ns;
    size_t cap;
    bool late, full;
};

static void why_not(struct git_state *g, const char *what)
{
    const git_error *e = git_error_last();

    (void)snprintf(g->why, sizeof(g->why), "%s%s%s", what, e && e->message ? ": " : "",
                   e && e->message ? e->message : "");
}

static void unknown(struct git_state *g, const char *what)
{
    g->known = false;
    why_not(g, what);
}

/* ---- where HEAD is -------------------------------------------------------------------------------- */

/* A branch without a commit is a state like others. */
static bool head_of(git_repository *repo, struct git_state *g)
{
    git_reference *ref = NULL, *target = NULL;
    git_oid oid;
    bool ok = true;

    if (git_reference_lookup(&ref, repo, "HEAD") != 0) {
        unknown(g, "HEAD cannot be read");
        return false;
    }
    if (git_reference_type(ref) == GIT_REFERENCE_SYMBOLIC) {
        const char *name = git_reference_symbolic_target(ref);
        const char *prefix = "refs/heads/";

        if (strncmp(name, prefix, strlen(prefix)) == 0)
            name += strlen(prefix);
        (void)snprintf(g->branch, sizeof(g->branch), "%s", name);
    }
    if (git_reference_resolve(&target, ref) == 0) {
        git_oid_cpy(&oid, git_reference_target(target));
        git_oid_tostr(g->commit, sizeof(g->commit), &oid);
    } else if (git_repository_head_unborn(repo) != 1) {
        unknown(g, "HEAD leads nowhere");
        ok = false;
    }
    git_reference_free(target);
    git_reference_free(ref);
    return ok;
}

/* ---- what is dirty -------------------------------------------------------------------------------- */

static int dirty_file(const char *path, unsigned flags, void *arg)
{
    struct look *l = arg;
    struct git_state *g = l->state;

    if (flags == GIT_STATUS_CURRENT || flags & GIT_STATUS_IGNORED)
        return 0;
    g->dirty = true;
    if (g->dirty_count == GIT_DIRTY_MAX) {
        l->full = true;
        return GIT_EUSER;
    }
    if (g->dirty_count == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 16;
        g->dirty_files = mem_grow(g->dirty_files, l->cap, sizeof(*g->dirty_files));
    }
    g->dirty_files[g->dirty_count++] = mem_strdup(path);
    return 0;
}

/* Called for each file that is compared: the way out of a slow look. */
static int still_time(const git_diff *diff, const char *old_path, const char *new_path, void *arg)
{
    struct look *l = arg;

    (void)diff;
    (void)old_path;
    (void)new_path;
    l->late = l->late || os_monotonic_ns() > l->end_ns;
    return l->late ? GIT_EUSER : 0;
}

static int add_delta(const git_diff *diff, const git_diff_delta *delta, const char *pathspec,
                     void *arg)
{
    const char *path = delta->new_file.path ? delta->new_file.path : delta->old_file.path;

    (void)diff;
    (void)pathspec;
    return dirty_file(path, (unsigned)GIT_STATUS_WT_MODIFIED, arg) ? GIT_EUSER
                                                                   : 1; /* 1: not kept */
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void sort_once(struct git_state *g)
{
    size_t n = 0;

    if (g->dirty_count > 1)
        qsort(g->dirty_files, g->dirty_count, sizeof(char *), by_text);
    for (size_t i = 0; i < g->dirty_count; i++)
        if (n && strcmp(g->dirty_files[n - 1], g->dirty_files[i]) == 0)
            free(g->dirty_files[i]);
        else
            g->dirty_files[n++] = g->dirty_files[i];
    g->dirty_count = n;
}

static git_tree *head_tree(git_repository *repo, const struct git_state *g)
{
    git_commit *commit = NULL;
    git_tree *tree = NULL;
    git_oid oid;

    if (*g->commit && git_oid_fromstr(&oid, g->commit) == 0 &&
        git_commit_lookup(&commit, repo, &oid) == 0)
        (void)git_commit_tree(&tree, commit);
    git_commit_free(commit);
    return tree;
}

/* Staged and not staged, new files too; ignored ones are nobody's. */
static void dirt_of(git_repository *repo, struct git_state *g)
{
    struct look l = {.state = g, .end_ns = os_monotonic_ns() + LOOK_NS};
    git_diff_options o;
    git_tree *tree = head_tree(repo, g);
    git_diff *diff = NULL;
    int failed = git_diff_options_init(&o, GIT_DIFF_OPTIONS_VERSION);

    CHECK(!failed);
    o.flags = GIT_DIFF_INCLUDE_UNTRACKED | GIT_DIFF_INCLUDE_TYPECHANGE |
              GIT_DIFF_SKIP_BINARY_CHECK | GIT_DIFF_DISABLE_PATHSPEC_MATCH;
    o.progress_cb = still_time;
    o.notify_cb = add_delta;
    o.payload = &l;
    failed = git_diff_tree_to_workdir_with_index(&diff, repo, tree, &o);
    git_diff_free(diff);
    git_tree_free(tree);
    if (failed && l.late)
        (void)snprintf(g->why, sizeof(g->why),
                       "the work tree is large: looked at for %d seconds, not to the end",
                       (int)(LOOK_NS / 1000000000));
    else if (failed && !l.full)
        why_not(g, "the work tree cannot be compared");
    /* Not known to be clean is not clean: require_clean_git must not pass by being slow. */
    if (failed)
        g->dirty = true;
    sort_once(g);
}

/* Where no safe.directory is configured at all, libgit2 1.5 answers with that, as if there were no repository. */
static bool is_foreign(int failed)
{
    const git_error *e = git_error_last();

    return failed == GIT_EOWNER ||
           (failed == GIT_ENOTFOUND && e && e->message && strstr(e->message, "safe.directory"));
}

/* ---- the door ------------------------------------------------------------------------------------- */

enum err_code git_look(const char *dir, struct git_state *out, struct err *err)
{
    git_repository *repo = NULL;
    int failed, sys;

    CHECK(dir);
    CHECK(out);
    *out = (struct git_state){0};
    if (fault_hit(&sys))
        return err_sys(err, sys, "look at the repository of %s", dir);
    if (git_libgit2_init() < 0) {
        unknown(out, "libgit2 cannot be started");
        return OK;
    }
    failed = git_repository_open_ext(&repo, dir, 0, NULL);
    if (failed && is_foreign(failed)) {
        (void)snprintf(out->why, sizeof(out->why),
                       "the repository is owned by somebody else; git config --global --add "
                       "safe.directory FOLDER says that it may be read");
    } else if (failed == GIT_ENOTFOUND) {
        (void)snprintf(out->why, sizeof(out->why), "in no repository");
    } else if (failed) {
        unknown(out, "the repository cannot be opened");
    } else {
        out->known = true;
        if (head_of(repo, out) && !git_repository_is_bare(repo))
            dirt_of(repo, out);
    }
    git_repository_free(repo);
    (void)git_libgit2_shutdown();
    return OK;
}

void git_release(struct git_state *g)
{
    for (size_t i = 0; i < g->dirty_count; i++)
        free(g->dirty_files[i]);
    free(g->dirty_files);
    *g = (struct git_state){0};
}

/* Text of the world outside may be any bytes; JSON's may not. */
static json_t *text_json(const char *s)
{
    json_t *v = json_string(s);
    struct buf b;

    if (v)
        return v;
    buf_init(&b, 3 * strlen(s) + 1);
    json_name_escape(&b, s, strlen(s));
    v = json_string(b.p ? b.p : "");
    buf_release(&b);
    return v;
}

json_t *git_json(const struct git_state *g)
{
    json_t *o = json_object(), *files = json_array();

    CHECK(o);
    CHECK(files);
    CHECK(json_object_set_new(o, "known", json_boolean(g->known)) == 0);
    if (*g->why)
        CHECK(json_object_set_new(o, "why", text_json(g->why)) == 0);
    if (g->known) {
        if (*g->commit)
            CHECK(json_object_set_new(o, "commit", json_string(g->commit)) == 0);
        if (*g->branch)
            CHECK(json_object_set_new(o, "branch", text_json(g->branch)) == 0);
        CHECK(json_object_set_new(o, "dirty", json_boolean(g->dirty)) == 0);
        for (size_t i = 0; i < g->dirty_count; i++)
            CHECK(json_array_append_new(files, text_json(g->dirty_files[i])) == 0);
        CHECK(json_object_set(o, "dirty_files", files) == 0);
    }
    json_decref(files);
    return o;
}
