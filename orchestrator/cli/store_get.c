/* weir store get */
#include <stdio.h>
#include <string.h>

#include "orchestrator/cli/commands.h"
#include "store/materialise.h"

static enum err_code show(const struct cli *c, const char *dest, const struct mat_result *r,
                          struct err *err)
{
    char size[16];

    if (c->json)
        return cli_json(json_pack("{s:I,s:I,s:I,s:I,s:I,s:o}", "bytes", (json_int_t)r->bytes,
                                  "cloned", (json_int_t)r->cloned, "copied", (json_int_t)r->copied,
                                  "files", (json_int_t)r->files, "linked", (json_int_t)r->linked,
                                  "path", cli_json_name(dest, strlen(dest))),
                        err);
    if (c->quiet)
        return OK;
    str_from_bytes(r->bytes, size);
    cli_name(dest, strlen(dest));
    printf("  %s in %lld %s (%lld linked, %lld cloned, %lld copied)\n", size, (long long)r->files,
           r->files == 1 ? "file" : "files", (long long)r->linked, (long long)r->cloned,
           (long long)r->copied);
    return OK;
}

static enum err_code get_run(struct cli *c, struct err *err)
{
    static const char *const ways[] = {"link", "copy", "reflink"};
    struct mat_options o = {.how = MAT_AUTO, .read_only = cli_flag(c, "read-only")};
    struct mat_result result = {0};
    struct progress line;
    struct store *st = NULL;
    struct digest d;
    enum obj_kind kind;
    enum err_code rc = cli_one_of(c, ways, 3, err);

    if (rc == OK)
        rc = cli_open(c, STORE_READ, &st, err);
    if (rc == OK)
        rc = cli_resolve(st, c->args[0], &d, &kind, err);
    if (rc)
        goto out;
    if (cli_flag(c, "link"))
        o.how = MAT_LINK;
    else if (cli_flag(c, "copy"))
        o.how = MAT_COPY;
    else if (cli_flag(c, "reflink"))
        o.how = MAT_REFLINK;
    o.progress = cli_progress(c, &line, "getting", "bytes");
    rc = materialise(st, kind, &d, c->args[1], &o, &result, err);
    progress_end(o.progress);
    if (rc == OK)
        rc = show(c, c->args[1], &result, err);
out:
    store_close(st);
    return rc;
}

static const struct cli_option get_options[] = {
    {"link", 0, NULL, "large files as hard links to the store's own, read-only file"},
    {"copy", 0, NULL, "large files as copies"},
    {"reflink", 0, NULL, "large files as clones; fail where the file system cannot"},
    {"read-only", 0, NULL, "files 0444 or 0555, folders 0555"},
    {0},
};

const struct cli_command cli_store_get = {
    .name = "store get",
    .args = "WHAT DEST",
    .args_min = 2,
    .args_max = 2,
    .summary = "write an object to DEST, which must not exist yet",
    .text =
        "WHAT: " CLI_WHAT ".\n"
        "Every byte is verified on the way.  DEST appears whole or not at all.  Without an option, "
        "clones are\n"
        "tried first, then hard links (not as root, who could write through them), then copies.",
    .example =
        "weir store get data/captions out/\nweir store get exp-12:checkpoints/600 ckpt --read-only",
    .json = "{\"bytes\":N,\"cloned\":N,\"copied\":N,\"files\":N,\"linked\":N,\"path\":\"out/\"}",
    .options = get_options,
    .run = get_run,
};
