/* weir store pack */
#include <stdio.h>

#include "orchestrator/cli/commands.h"
#include "store/gc.h"

#define COLD_DEFAULT_S (7LL * 24 * 3600)

static enum err_code show(const struct cli *c, bool dry_run, const struct compact_report *r,
                          struct err *err)
{
    char before[16], after[16];

    if (c->json)
        return cli_json(
            json_pack("{s:I,s:I,s:b,s:I,s:I,s:I}", "bytes_after", (json_int_t)r->bytes_after,
                      "bytes_before", (json_int_t)r->bytes_before, "dry_run", dry_run,
                      "loose_packed", (json_int_t)r->loose_packed, "packs_compressed",
                      (json_int_t)r->packs_compressed, "packs_merged", (json_int_t)r->packs_merged),
            err);
    if (c->quiet)
        return OK;
    if (r->loose_packed + r->packs_merged + r->packs_compressed == 0) {
        printf("nothing to pack\n");
        return OK;
    }
    str_from_bytes(r->bytes_before, before);
    str_from_bytes(r->bytes_after, after);
    printf("%s %lld loose files, compressed %lld packs and merged %lld packs: %s -> %s\n",
           dry_run ? "would have packed" : "packed", (long long)r->loose_packed,
           (long long)r->packs_compressed, (long long)r->packs_merged, before, after);
    return OK;
}

static enum err_code pack_run(struct cli *c, struct err *err)
{
    struct compact_options o = {.dry_run = cli_flag(c, "dry-run")};
    struct compact_report report = {0};
    struct progress line;
    struct store *st = NULL;
    enum err_code rc = cli_seconds(c, "cold", COLD_DEFAULT_S, &o.cold_s, err);

    if (rc == OK)
        rc = cli_open(c, STORE_WRITE, &st, err);
    if (rc)
        goto out;
    o.progress = cli_progress(c, &line, "packing", "bytes");
    rc = store_compact(st, &o, &report, err);
    progress_end(o.progress);
    if (rc == OK)
        rc = show(c, o.dry_run, &report, err);
out:
    store_close(st);
    return rc;
}

static const struct cli_option pack_options[] = {
    {"cold", 0, "DURATION", "pack files that nobody used for so long (7d); 0s packs all"},
    {"dry-run", 'n', NULL, "change nothing; say what would be packed"},
    {0},
};

const struct cli_command cli_store_pack = {
    .name = "store pack",
    .args = "",
    .summary =
        "move cold files into compressed packs, compress what lies raw in packs, merge small packs",
    .text =
        "Everything is decoded and compared before the old form goes.  Objects keep their names.",
    .example = "weir store pack\nweir store pack --cold 1h --dry-run",
    .json = "{\"bytes_after\":N,\"bytes_before\":N,\"dry_run\":B,\"loose_packed\":N,\"packs_"
            "compressed\":N,\"packs_merged\":N}",
    .options = pack_options,
    .run = pack_run,
};
