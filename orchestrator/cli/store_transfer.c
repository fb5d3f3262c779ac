/* weir store push, weir store pull */
#include <stdio.h>
#include <string.h>

#include "orchestrator/cli/commands.h"
#include "orchestrator/record.h"
#include "store/transfer.h"

#define NOTES_MAX_BYTES (16 << 20)

static enum err_code show(const struct cli *c, bool push, bool dry_run,
                          const struct transfer_report *r, struct err *err)
{
    char size[16];

    if (c->json)
        return cli_json(
            json_pack("{s:I,s:b,s:I,s:I,s:I,s:I,s:I}", "bytes_moved", (json_int_t)r->bytes_moved,
                      "dry_run", dry_run, "objects", (json_int_t)r->objects, "objects_moved",
                      (json_int_t)r->objects_moved, "packs", (json_int_t)r->packs, "refs",
                      (json_int_t)r->refs, "refs_kept", (json_int_t)r->refs_kept),
            err);
    if (c->quiet)
        return OK;
    str_from_bytes(r->bytes_moved, size);
    printf("%s%s %lld of %lld objects, %s, and %s%lld %s\n", dry_run ? "would have " : "",
           push ? "pushed" : "pulled", (long long)r->objects_moved, (long long)r->objects, size,
           dry_run ? "" : "set ", (long long)r->refs, r->refs == 1 ? "ref" : "refs");
    return OK;
}

/* Refs that were left alone: worth a look, no reason to fail. */
static void warn(const struct buf *notes)
{
    struct str line;
    size_t at = 0;

    while (cli_next_line(notes, &at, &line))
        log_line(LOG_WARN, "%.*s", (int)line.n, line.p);
}

static enum err_code transfer(struct cli *c, bool push, struct err *err)
{
    struct buf notes;
    struct transfer_options o = {
        .refs = c->args + 1,
        .ref_count = c->arg_count - 1,
        .dry_run = cli_flag(c, "dry-run"),
        .notes = &notes,
        .once = "runs/run-", /* numbers of runs are given here and there independently */
    };
    int64_t imported = 0;
    struct transfer_report report = {0};
    struct progress line;
    struct store *st = NULL;
    enum err_code rc = cli_open(c, STORE_WRITE, &st, err);

    buf_init(&notes, NOTES_MAX_BYTES);
    if (rc)
        goto out;
    o.progress = cli_progress(c, &line, push ? "pushing" : "pulling", "bytes");
    rc = (push ? store_push : store_pull)(st, c->args[0], &o, &report, err);
    progress_end(o.progress);
    if (rc == OK && !push && !o.dry_run)
        rc = run_import_kept(st, &imported, &notes, err);
    warn(&notes);
    if (rc == OK)
        rc = show(c, push, o.dry_run, &report, err);
out:
    buf_release(&notes);
    store_close(st);
    return rc;
}

static enum err_code push_run(struct cli *c, struct err *err)
{
    return transfer(c, true, err);
}

static enum err_code pull_run(struct cli *c, struct err *err)
{
    return transfer(c, false, err);
}

static const struct cli_option transfer_options[] = {
    {"dry-run", 'n', NULL, "move and change nothing; say what is missing"},
    {0},
};

#define TRANSFER_JSON                                                                              \
    "{\"bytes_moved\":N,\"dry_run\":B,\"objects\":N,\"objects_moved\":N,\"packs\":N,\"refs\":N,"   \
    "\"refs_kept\":N}\n"                                                                           \
    "objects were looked at, objects_moved were missing; refs were set, refs_kept were left "      \
    "alone because\n"                                                                              \
    "the other side's is newer (a warning on stderr names each)"

const struct cli_command cli_store_push = {
    .name = "store push",
    .alias = "push",
    .args = "REMOTE [REF...]",
    .args_min = 1,
    .args_max = -1,
    .summary = "copy what a remote lacks of these refs, or of all",
    .text = "REMOTE: a name from remotes: in .weir/config.yaml, or the path of a folder.  REF may "
            "be a digest, too.\n"
            "A push that was cut goes on where it was.  A removed ref stays on the remote.",
    .example = "weir push backup\nweir push /mnt/disk/weir data/captions exp-12",
    .json = TRANSFER_JSON,
    .options = transfer_options,
    .run = push_run,
};

const struct cli_command cli_store_pull = {
    .name = "store pull",
    .alias = "pull",
    .args = "REMOTE [REF...]",
    .args_min = 1,
    .args_max = -1,
    .summary = "copy what is missing here of a remote's refs, or of all",
    .text = "REMOTE: a name from remotes: in .weir/config.yaml, or the path of a folder.  REF may "
            "be a digest, too.\n"
            "Everything is verified before it is kept.  A pull that was cut goes on where it was.  "
            "Runs that come along (runs/run-N)\n"
            "are listed by weir runs afterwards; of two runs with one number each side keeps its "
            "own.",
    .example = "weir pull backup\nweir pull backup data/captions",
    .json = TRANSFER_JSON,
    .options = transfer_options,
    .run = pull_run,
};
