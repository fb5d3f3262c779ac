/* weir store gc */
#include <stdio.h>
#include <string.h>

#include "orchestrator/cli/commands.h"
#include "store/gc.h"

#define LIST_MAX_BYTES (1 << 30)

static enum err_code show(const struct cli *c, bool dry_run, const struct gc_report *r,
                          struct err *err)
{
    char live[16], freed[16];

    if (c->json)
        return cli_json(
            json_pack("{s:I,s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "dead_objects",
                      (json_int_t)r->dead_objects, "dry_run", dry_run, "freed_bytes",
                      (json_int_t)r->freed_bytes, "live_bytes", (json_int_t)r->live_bytes,
                      "live_objects", (json_int_t)r->live_objects, "loose_deleted",
                      (json_int_t)r->loose_deleted, "packs_deleted", (json_int_t)r->packs_deleted,
                      "packs_rewritten", (json_int_t)r->packs_rewritten, "roots",
                      (json_int_t)r->roots, "tmp_deleted", (json_int_t)r->tmp_deleted),
            err);
    if (c->quiet)
        return OK;
    if (r->all_young) {
        if (!dry_run) /* a dry run has listed it */
            printf("nothing goes: the index was rebuilt within the grace period\n");
        return OK;
    }
    str_from_bytes(r->live_bytes, live);
    str_from_bytes(r->freed_bytes, freed);
    printf("kept      %lld objects, %s, reached from %lld roots\n", (long long)r->live_objects,
           live, (long long)r->roots);
    printf("%s %lld objects, %s: %lld packs and %lld loose files deleted, %lld packs rewritten, "
           "%lld temporary\n",
           dry_run ? "would free" : "freed    ", (long long)r->dead_objects, freed,
           (long long)r->packs_deleted, (long long)r->loose_deleted, (long long)r->packs_rewritten,
           (long long)r->tmp_deleted);
    return OK;
}

/* The list goes to stdout as it is; with --json each line becomes a value. */
static enum err_code show_list(const struct cli *c, const struct buf *list, struct err *err)
{
    enum err_code rc = OK;
    struct str line;
    size_t at = 0;

    if (!c->json)
        return c->quiet ? OK : cli_write(list->p, list->n, err);
    while (rc == OK && cli_next_line(list, &at, &line))
        rc = cli_json(json_pack("{s:o}", "note", cli_json_name(line.p, line.n)), err);
    return rc;
}

static enum err_code gc_run(struct cli *c, struct err *err)
{
    struct gc_options o = {.dry_run = cli_flag(c, "dry-run"), .grace_s = -1};
    struct gc_report report = {0};
    struct progress line;
    struct store *st = NULL;
    struct buf list;
    enum err_code rc = cli_seconds(c, "grace", -1, &o.grace_s, err);

    buf_init(&list, LIST_MAX_BYTES);
    if (o.dry_run)
        o.list = &list;
    if (rc == OK)
        rc = cli_open(c, STORE_WRITE, &st, err);
    if (rc)
        goto out;
    o.progress = cli_progress(c, &line, "marking", "objects");
    rc = store_gc(st, &o, &report, err);
    progress_end(o.progress);
    if (rc == OK)
        rc = show_list(c, &list, err);
    if (rc == OK)
        rc = show(c, o.dry_run, &report, err);
out:
    buf_release(&list);
    store_close(st);
    return rc;
}

static const struct cli_option gc_options[] = {
    {"dry-run", 'n', NULL, "delete nothing; say what would go and why"},
    {"grace", 0, "DURATION", "spare what is younger, as in 24h (retention.grace of the config)"},
    {0},
};

const struct cli_command cli_store_gc = {
    .name = "store gc",
    .alias = "gc",
    .args = "",
    .summary = "delete what no ref, lease or recent use keeps",
    .text = "Safe beside running writers, and after being killed.  Stops before deleting anything "
            "when it meets\n"
            "damage; run 'weir fsck' then.",
    .example = "weir gc --dry-run\nweir gc --grace 1h",
    .json = "{\"dead_objects\":N,\"dry_run\":B,\"freed_bytes\":N,\"live_bytes\":N,\"live_objects\":"
            "N,\"loose_deleted\":N,\n"
            " \"packs_deleted\":N,\"packs_rewritten\":N,\"roots\":N,\"tmp_deleted\":N}; with "
            "--dry-run before it\n"
            "{\"note\":\"...\"}, a line per pack or file that would go and per root",
    .options = gc_options,
    .run = gc_run,
};
