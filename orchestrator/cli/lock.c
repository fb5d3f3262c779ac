/* weir lock: pins what deb and url sources are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/cli/commands.h"
#include "orchestrator/source_internal.h"

static enum err_code row_line(struct cli *c, const struct lock_row *r, struct err *err)
{
    json_t *v = json_pack("{s:o,s:s,s:o,s:I}", "source", cli_json_name(r->name, strlen(r->name)),
                          "kind", r->kind == SOURCE_DEB ? "deb" : "url", "digest",
                          cli_json_digest(&r->digest), "size", (json_int_t)r->size);

    if (v && r->kind == SOURCE_DEB && json_object_set_new(v, "version", json_string(r->version))) {
        json_decref(v);
        v = NULL;
    }
    if (c->json)
        return cli_json(v, err);
    json_decref(v);
    if (!c->quiet) {
        char text[DIGEST_TEXT + 1];

        digest_text(&r->digest, text);
        cli_name(r->name, strlen(r->name));
        printf("  %s ", r->kind == SOURCE_DEB ? "deb" : "url");
        cli_name(r->location, strlen(r->location));
        if (r->kind == SOURCE_DEB)
            printf(" %s", r->version);
        printf("  %s\n", text);
    }
    return OK;
}

static enum err_code lock_all(struct cli *c, struct store *st, const struct pipeline *p,
                              struct err *err)
{
    struct progress progress;
    const struct source_options o = {.update = cli_flag(c, "update"),
                                     .progress = cli_progress(c, &progress, "fetching", "bytes")};
    bool *wanted = mem_zero(p->source_count + 1, sizeof(*wanted)), changed = false;
    struct sources *s = NULL;
    size_t count = 0;
    enum err_code rc;

    for (size_t i = 0; i < p->source_count; i++) {
        wanted[i] = p->sources[i].kind == SOURCE_DEB || p->sources[i].kind == SOURCE_URL;
        count += wanted[i];
    }
    rc = sources_new(st, p, &o, &s, err);
    if (!rc)
        rc = sources_enter(s, wanted, err);
    progress_end(o.progress);
    if (!rc)
        rc = sources_lock(s, &changed, err);
    for (size_t i = 0; !rc && i < p->source_count; i++)
        if (wanted[i])
            rc = row_line(c, &s->list[i].row, err);
    if (!rc && !c->json && !c->quiet) {
        if (count == 0)
            printf("%s has no deb or url sources: nothing to lock\n", p->name);
        else
            printf("%s: %s\n", s->lock_path, changed ? "written" : "is as it was");
    }
    sources_free(s);
    free(wanted);
    return rc;
}

static enum err_code lock_run(struct cli *c, struct err *err)
{
    struct pipeline *p = NULL;
    struct store *st = NULL;
    enum err_code rc = cli_pipeline(c, c->arg_count ? c->args[0] : NULL, &p, err);

    if (!rc)
        rc = cli_open(c, STORE_WRITE, &st, err);
    if (!rc)
        rc = lock_all(c, st, p, err);
    store_close(st);
    pipeline_free(p);
    return rc;
}

static const struct cli_option lock_options[] = {
    {"update", 0, NULL, "take what is offered now instead of what is locked"},
    CLI_PIPELINE_OPTIONS,
    {0}};

const struct cli_command cli_lock = {
    .name = "lock",
    .args = "[FILE]",
    .args_max = 1,
    .summary = "pin what the deb: and url: sources of a pipeline are, in NAME.lock beside it",
    .text = "What is not in the store is fetched.  A run does the same for sources that are not "
            "locked yet; commit\n"
            "the file, and everybody gets the same bytes until somebody says --update.",
    .example = "weir lock\nweir lock pipelines/quickstart.yaml --update",
    .json = "a line for each source: {\"digest\":\"sha256:..\",\"kind\":\"deb\",\"size\":1,"
            "\"source\":\"noto\",\"version\":\"2.042-0\"}",
    .options = lock_options,
    .run = lock_run,
};
