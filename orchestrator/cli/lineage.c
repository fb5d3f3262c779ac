/* weir lineage, trace, checkout: where an artifact came from, what came from an input, and an artifact that leaves with its papers. */
#include "orchestrator/lineage.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "base/os.h"
#include "orchestrator/cli/commands.h"
#include "orchestrator/licence.h"
#include "orchestrator/record.h"
#include "orchestrator/run.h"
#include "store/materialise.h"
#include "store/reader.h"
#include "store/tree.h"

#define TEXT_MAX (256 << 20)
#define RUNS_LOOKED_AT 20 /* for a name that is nearly right */

struct at {
    struct store *st;
    struct ledger *l;
    struct lineage *g;
    int64_t run;
    int node;
    char *task;         /* of TASK.OUTPUT */
    const char *output; /* NULL: all of the task's */
    struct digest digest;
    enum obj_kind kind;
};

static void release(struct at *at)
{
    lineage_free(at->g);
    ledger_close(at->l);
    store_close(at->st);
    free(at->task);
}

/* No kept run has it: the newest one says what there is. */
static enum err_code not_in_any(struct at *at, struct err *err)
{
    struct err ignored = ERR_INIT;
    struct lineage *g = NULL;
    int64_t *runs = NULL;
    size_t n = 0;
    enum err_code rc = ERR_NOT_FOUND;

    if (run_kept(at->st, &runs, &n, &ignored) == OK && n > 0 &&
        lineage_load(at->st, runs[0], &g, &ignored) == OK) {
        *err = (struct err)ERR_INIT;
        rc = lineage_unknown(g, at->task, err);
    }
    lineage_free(g);
    free(runs);
    return rc;
}

/* The run that --run names, or the newest kept one in which the task has a result. */
static enum err_code which_run(const struct cli *c, struct at *at, struct err *err)
{
    const char *run = cli_value(c, "run");
    enum err_code rc;

    if (!run) {
        rc = run_output_run(at->st, at->task, &at->run, err);
        return rc == ERR_NOT_FOUND ? not_in_any(at, err) : rc;
    }
    rc = cli_read_ledger(at->st, &at->l, err);
    return rc ? rc : run_number(at->st, at->l, run, &at->run, err);
}

/* TASK.OUTPUT, TASK or sources.NAME; matrix values may hold dots, so the last one after ']' counts. */
static void split(const char *what, struct at *at)
{
    const char *bracket = strrchr(what, ']'), *dot = strrchr(bracket ? bracket : what, '.');

    if (strncmp(what, "sources.", 8) == 0)
        dot = NULL;
    at->task = dot ? mem_strndup(what, (size_t)(dot - what)) : mem_strdup(what);
    at->output = dot ? dot + 1 : NULL;
}

static enum err_code find_output(struct at *at, struct err *err)
{
    const struct lineage_node *n = &at->g->nodes[at->node];
    const char **names, *near;

    at->digest = n->digest;
    at->kind = n->kind == LINEAGE_TASK ? OBJ_TREE : OBJ_NONE;
    if (!at->output)
        return OK;
    for (size_t i = 0; i < n->output_count; i++)
        if (strcmp(n->outputs[i].name, at->output) == 0) {
            at->digest = n->outputs[i].digest;
            at->kind = n->outputs[i].object;
            return OK;
        }
    names = mem_zero(n->output_count + 1, sizeof(*names));
    for (size_t i = 0; i < n->output_count; i++)
        names[i] = n->outputs[i].name;
    near = str_nearest(at->output, names, n->output_count);
    (void)err_set(err, ERR_NOT_FOUND, "%s has no output '%s' in run-%lld; %s%s%s", at->task,
                  at->output, (long long)at->run, near ? "did you mean '" : "it has '",
                  near              ? near
                  : n->output_count ? names[0]
                                    : "",
                  near ? "'?" : "'");
    free(names);
    return ERR_NOT_FOUND;
}

static enum err_code find(const struct cli *c, const char *what, struct at *at, struct err *err)
{
    enum err_code rc = cli_open(c, STORE_READ, &at->st, err);

    split(what, at);
    if (!rc)
        rc = which_run(c, at, err);
    if (!rc)
        rc = lineage_load(at->st, at->run, &at->g, err);
    if (rc)
        return rc;
    at->node = lineage_find(at->g, at->task);
    if (at->node < 0)
        return lineage_unknown(at->g, at->task, err);
    rc = find_output(at, err);
    return rc ? rc : lineage_extend(at->g, err);
}

static enum err_code print_graph(const struct cli *c, struct at *at, bool up, struct err *err)
{
    struct buf text = {0};
    json_t *v = NULL;
    enum err_code rc = OK;

    buf_init(&text, TEXT_MAX);
    if (c->json) {
        rc = lineage_json(at->g, at->node, at->output, &v, err);
        if (!rc)
            rc = cli_json(v, err);
    } else if (cli_flag(c, "dot")) {
        lineage_dot(at->g, &text);
        rc = buf_check(&text, "lineage", err);
    } else {
        rc = lineage_text(at->g, at->node, up, &text, err);
    }
    if (!rc)
        rc = cli_write(text.p ? text.p : "", text.n, err);
    buf_release(&text);
    return rc;
}

/* ---- lineage ----------------------------------------------------------------------------------- */

static enum err_code lineage_run(struct cli *c, struct err *err)
{
    struct at at = {0};
    const char *spdx;
    enum err_code rc = find(c, c->args[0], &at, err);

    if (!rc) {
        lineage_up(at.g, at.node);
        rc = print_graph(c, &at, true, err);
    }
    if (!rc && !c->json && !cli_flag(c, "dot")) {
        rc = lineage_license(at.g, at.node, at.output, &spdx, err);
        if (!rc)
            printf("license: %s  (run-%lld)\n", spdx, (long long)at.run);
    }
    release(&at);
    return rc;
}

static const struct cli_option lineage_options[] = {
    {"run", 0, "RUN", "as that run has it, instead of the newest"},
    {"dot", 0, NULL, "a drawing for Graphviz"},
    {0},
};
const struct cli_command cli_lineage = {
    .name = "lineage",
    .args = "TASK[.OUTPUT]",
    .args_min = 1,
    .args_max = 1,
    .summary = "what an artifact was made of: tasks, programs, params, sources, licences",
    .example = "weir lineage export.turbo\nweir lineage merge.model --dot | dot -Tsvg > merge.svg",
    .json =
        "{\"begin\":{...},\"digest\":\"sha256:...\",\"edges\":[{\"digest\",\"from\",\"input\","
        "\"output\",\"to\"}],\n\"kind\":\"blob\"|\"tree\"|\"result\",\"license\":\"...\",\"nodes\":"
        "[{\"action\",\"digest\",\"key\",\"kind\",\"name\",\"outputs\"}],\n\"of\":\"...\","
        "\"run\":41,\"weir\":\"lineage/1\"}",
    .options = lineage_options,
    .run = lineage_run,
};

/* ---- trace ------------------------------------------------------------------------------------- */

static enum err_code holds(struct store *st, enum obj_kind kind, const struct digest *in,
                           const struct digest *d, int depth, bool *found, struct err *err)
{
    struct tree t = {0};
    struct buf text = {0};
    enum err_code rc = OK;

    if (digest_eq(in, d)) {
        *found = true;
        return OK;
    }
    if (kind != OBJ_TREE || depth > TREE_DEPTH_MAX)
        return OK;
    buf_init(&text, TREE_BYTES_MAX);
    rc = object_read(st, in, TREE_BYTES_MAX, &text, err);
    if (!rc)
        rc = tree_decode(text.p, text.n, -1, "source", &t, err);
    buf_release(&text);
    for (size_t i = 0; !rc && !*found && i < t.count; i++)
        if (t.entries[i].mode != TREE_LINK)
            rc = holds(st, t.entries[i].mode == TREE_DIR ? OBJ_TREE : OBJ_BLOB,
                       &t.entries[i].digest, d, depth + 1, found, err);
    tree_release(&t);
    return rc;
}

/* A file here, a ref or a digest: as bytes.  Hashed, not added: asking leaves no trace in the store. */
static enum err_code hash_file(const char *path, struct digest *out, struct err *err)
{
    struct sha256 h = {0};
    char part[1 << 16];
    size_t got = 1;
    int fd = -1;
    enum err_code rc = os_open(AT_FDCWD, path, O_RDONLY, 0, &fd, err);

    sha256_init(&h);
    while (!rc && got > 0) {
        rc = os_read(fd, part, sizeof(part), &got, err);
        if (!rc)
            sha256_update(&h, part, got);
    }
    if (!rc)
        sha256_final(&h, out);
    sha256_release(&h);
    os_close_quiet(&fd);
    return rc;
}

static enum err_code bytes_of(struct store *st, const char *what, struct digest *out,
                              struct err *err)
{
    struct stat s;
    enum obj_kind kind;

    if (stat(what, &s) == 0 && S_ISREG(s.st_mode))
        return hash_file(what, out, err);
    return store_resolve(st, str_of(what), out, &kind, err);
}

static enum err_code object_kind(struct store *st, const struct digest *d, enum obj_kind *kind,
                                 struct err *err)
{
    struct loc loc;
    enum err_code rc = object_locate(st, d, 1, &loc, err);

    *kind = !rc && (loc.flags & REC_TREE) ? OBJ_TREE : OBJ_BLOB;
    return rc;
}

static enum err_code mark_sources(struct at *at, const char *source, const struct digest *d,
                                  bool *any, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < at->g->count; i++) {
        const struct lineage_node *n = &at->g->nodes[i];
        bool found = false;
        enum obj_kind kind;

        if (n->kind == LINEAGE_TASK)
            continue;
        if (source) {
            found = n->kind == LINEAGE_SOURCE && strcmp(n->name, source) == 0;
        } else {
            rc = object_kind(at->st, &n->digest, &kind, err);
            if (!rc)
                rc = holds(at->st, kind, &n->digest, d, 0, &found, err);
        }
        if (!rc && found) {
            lineage_down(at->g, (int)i);
            at->node = (int)i;
            *any = true;
            if (at->output) /* more than one: text prints each */
                break;
        }
    }
    return rc;
}

static enum err_code trace_in(const struct cli *c, struct at *at, const char *source,
                              const struct digest *d, bool *any, struct err *err)
{
    const char *output;
    bool found = false;
    enum err_code rc = lineage_load(at->st, at->run, &at->g, err);

    if (!rc)
        rc = mark_sources(at, source, d, &found, err);
    if (!rc && !found && !source) {
        at->node = lineage_find_digest(at->g, d, &output);
        found = at->node >= 0;
        if (found)
            lineage_down(at->g, at->node);
    }
    if (!rc && found) {
        if (!c->json && !cli_flag(c, "dot"))
            printf("run-%lld\n", (long long)at->run);
        rc = print_graph(c, at, false, err);
        *any = true;
    }
    lineage_free(at->g);
    at->g = NULL;
    return rc;
}

/* Some recent run may have a source of nearly that name. */
static enum err_code no_trace(struct at *at, const char *source, const char *what,
                              const int64_t *runs, size_t n, struct err *err)
{
    struct buf name = {0};
    bool near = false;

    buf_init(&name, 4096);
    buf_printf(&name, "sources.%s", source ? source : "");
    for (size_t i = 0; source && name.p && !near && i < n && i < RUNS_LOOKED_AT; i++) {
        struct err why = ERR_INIT;
        struct lineage *g = NULL;

        if (lineage_load(at->st, runs[i], &g, &why) == OK) {
            (void)lineage_unknown(g, name.p, &why);
            near = strstr(why.text, "did you mean") != NULL;
            if (near)
                *err = why;
        }
        lineage_free(g);
    }
    if (!near)
        (void)err_set(err, ERR_NOT_FOUND, "no kept run has used %s", source ? source : what);
    buf_release(&name);
    return ERR_NOT_FOUND;
}

static enum err_code trace_run(struct cli *c, struct err *err)
{
    const char *source = cli_value(c, "source");
    struct at at = {0};
    struct digest d = {{0}};
    int64_t *runs = NULL;
    size_t n = 0;
    bool any = false;
    enum err_code rc = OK;

    if ((c->arg_count == 0) == (source == NULL))
        return err_set(err, ERR_USAGE, "say what to trace: WHAT, or --source NAME");
    rc = cli_open(c, STORE_READ, &at.st, err);
    if (!rc && !source)
        rc = bytes_of(at.st, c->args[0], &d, err);
    if (!rc)
        rc = run_kept(at.st, &runs, &n, err);
    for (size_t i = 0; !rc && i < n; i++) {
        at.run = runs[i];
        rc = trace_in(c, &at, source, &d, &any, err);
    }
    if (!rc && !any)
        rc = no_trace(&at, source, c->arg_count ? c->args[0] : "", runs, n, err);
    free(runs);
    release(&at);
    return rc;
}

static const struct cli_option trace_options[] = {
    {"source", 0, "NAME", "a source of a pipeline instead of WHAT"},
    {"dot", 0, NULL, "a drawing for Graphviz"},
    {0},
};
const struct cli_command cli_trace = {
    .name = "trace",
    .args = "[WHAT]",
    .args_max = 1,
    .summary = "what an input reached: every task and artifact of every kept run",
    .text = "WHAT is a file here, " CLI_WHAT ".  A file is found inside the folders that entered.",
    .example = "weir trace img/heart.png\nweir trace --source openclipart",
    .json = "per run as weir lineage",
    .options = trace_options,
    .run = trace_run,
};

/* ---- checkout ---------------------------------------------------------------------------------- */

static enum err_code policy_lets_out(struct at *at, const char *spdx, struct err *err)
{
    const json_t *policy = json_object_get(at->g->begin, "policy");
    const char *lists[2][256] = {{0}};
    static const char *const keys[2] = {"deny", "allow_only"};
    struct buf why = {0};
    enum err_code rc = OK;

    for (int k = 0; k < 2; k++) {
        const json_t *list = json_object_get(policy, keys[k]);

        if (json_array_size(list) >= 256)
            return err_set(err, ERR_LIMIT, "a policy of more than 255 licences");
        for (size_t i = 0; i < json_array_size(list); i++)
            lists[k][i] = json_string_value(json_array_get(list, i));
    }
    buf_init(&why, ERR_TEXT_MAX);
    if (!licence_passes(spdx, lists[0], lists[1], &why)) {
        const char *source = lineage_blame(at->g, at->node, lists[0], lists[1]);

        rc = err_set(err, ERR_DENIED,
                     "policy does not let %s%s%s leave: %.300s%s%s; weir lineage shows where it "
                     "comes from",
                     at->task, at->output ? "." : "", at->output ? at->output : "",
                     why.p ? why.p : spdx, source ? ", from source " : "", source ? source : "");
    }
    buf_release(&why);
    return rc;
}

/* DEST/ or an existing folder takes the artifact under its name; else DEST is what becomes of it. */
static enum err_code place(struct at *at, const char *dest, struct buf *path, struct buf *papers,
                           struct err *err)
{
    const size_t n = strlen(dest);
    const bool slash = n > 0 && dest[n - 1] == '/';
    struct stat s;
    const bool folder = stat(dest, &s) == 0 && S_ISDIR(s.st_mode);
    enum err_code rc = OK;

    if (at->kind == OBJ_TREE) {
        buf_printf(path, "%.*s", (int)(slash && n > 1 ? n - 1 : n), dest);
        buf_printf(papers, "%s%sweir-lineage.json", dest, slash ? "" : "/");
    } else if (slash || folder) {
        if (!folder)
            rc = os_mkdirs(dest, 0755, err);
        buf_printf(path, "%s%s%s", dest, slash ? "" : "/", at->output);
        buf_printf(papers, "%s%sweir-lineage.json", dest, slash ? "" : "/");
    } else {
        buf_str(path, dest);
        buf_printf(papers, "%s.weir-lineage.json", dest);
    }
    if (!rc)
        rc = buf_check(path, "path", err);
    return rc ? rc : buf_check(papers, "path", err);
}

static enum err_code write_papers(struct at *at, const char *path, struct err *err)
{
    struct buf text = {0};
    json_t *v = NULL;
    enum err_code rc;

    lineage_up(at->g, at->node);
    buf_init(&text, TEXT_MAX);
    rc = lineage_json(at->g, at->node, at->output, &v, err);
    if (!rc)
        rc = json_canonical(v, &text, err);
    buf_char(&text, '\n');
    if (!rc)
        rc = buf_check(&text, "lineage", err);
    if (!rc)
        rc = os_write_file(AT_FDCWD, path, text.p, text.n, 0644, err);
    json_decref(v);
    buf_release(&text);
    return rc;
}

static enum err_code checkout_run(struct cli *c, struct err *err)
{
    const struct mat_options how = {.how = MAT_COPY};
    struct mat_result done = {0};
    struct at at = {0};
    struct buf path = {0}, papers = {0};
    const char *spdx = NULL;
    enum err_code rc = find(c, c->args[0], &at, err);

    buf_init(&path, 4096);
    buf_init(&papers, 4096);
    if (!rc && !at.output)
        rc = err_set(err, ERR_USAGE, "'%s' is no output; write TASK.OUTPUT", c->args[0]);
    if (!rc)
        rc = lineage_license(at.g, at.node, at.output, &spdx, err);
    if (!rc)
        rc = policy_lets_out(&at, spdx, err);
    if (!rc)
        rc = place(&at, c->args[1], &path, &papers, err);
    if (!rc)
        rc = materialise(at.st, at.kind, &at.digest, path.p, &how, &done, err);
    if (!rc)
        rc = write_papers(&at, papers.p, err);
    if (!rc && c->json)
        rc = cli_json(json_pack("{s:o, s:s, s:I, s:I, s:s, s:o}", "digest",
                                cli_json_digest(&at.digest), "kind", cli_kind(at.kind), "files",
                                (json_int_t)done.files, "bytes", (json_int_t)done.bytes, "license",
                                spdx, "lineage", cli_json_name(papers.p, papers.n)),
                      err);
    buf_release(&path);
    buf_release(&papers);
    release(&at);
    return rc;
}

static const struct cli_option checkout_options[] = {
    {"run", 0, "RUN", "from that run instead of the newest that has it"},
    {0},
};
const struct cli_command cli_checkout = {
    .name = "checkout",
    .args = "TASK.OUTPUT DEST",
    .args_min = 2,
    .args_max = 2,
    .summary = "copy an output of a run to a file or folder, with its lineage",
    .text = "Policy is asked once more before anything leaves.  weir-lineage.json lies in the "
            "folder, or beside a single file as\n"
            "FILE.weir-lineage.json.",
    .example = "weir checkout merge.model out/\nweir checkout 'sft[variant=realism].model' "
               "realism/ --run 41",
    .json = "{\"bytes\":123,\"digest\":\"sha256:...\",\"files\":2,\"kind\":\"blob\"|\"tree\","
            "\"license\":\"...\","
            "\"lineage\":\"out/weir-lineage.json\"}",
    .options = checkout_options,
    .run = checkout_run,
};
