/* weir store rebuild: the index again, from the objects alone. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "orchestrator/cli/commands.h"
#include "orchestrator/record.h"

#define PROBLEMS_MAX_BYTES (16 << 20)

static enum err_code show_problems(const struct cli *c, const struct buf *problems, struct err *err)
{
    enum err_code rc = OK;
    struct str line;
    size_t at = 0;

    while (rc == OK && cli_next_line(problems, &at, &line)) {
        if (c->json) {
            rc = cli_json(json_pack("{s:o}", "problem", cli_json_name(line.p, line.n)), err);
        } else {
            printf("problem  ");
            cli_name(line.p, line.n);
            printf("\n");
        }
    }
    return rc;
}

static enum err_code show(const struct cli *c, const struct rebuild_report *r, int64_t runs,
                          struct err *err)
{
    enum err_code rc = show_problems(c, &r->problems, err);

    if (rc == OK && c->json)
        return cli_json(json_pack("{s:I,s:I,s:I,s:I,s:I,s:I}", "actions", (json_int_t)r->actions,
                                  "damaged_packs", (json_int_t)r->damaged_packs, "objects",
                                  (json_int_t)r->objects, "packs", (json_int_t)r->packs, "refs",
                                  (json_int_t)r->refs, "runs", (json_int_t)runs),
                        err);
    if (rc == OK && !c->quiet)
        printf("index rebuilt: %lld objects, %lld actions and %lld refs from %lld packs, %lld of "
               "them damaged\n",
               (long long)r->objects, (long long)r->actions, (long long)r->refs,
               (long long)r->packs, (long long)r->damaged_packs);
    if (rc == OK && !c->quiet && runs > 0)
        printf("ledger: %lld runs brought back\n", (long long)runs);
    return rc;
}

static enum err_code rebuild(struct store *st, struct rebuild_report *report, struct err *err)
{
    struct buf dir;
    int lock = -1;
    enum err_code rc;

    buf_init(&dir, 1 << 16);
    buf_printf(&dir, "%s/index", st->root);
    rc = buf_check(&dir, "path of the index", err);
    if (rc == OK)
        rc = store_lock_gc(st, &lock, err);
    if (rc == OK)
        rc = index_rebuild(dir.p, st->packs, st->loose, report, err);
    os_close_quiet(&lock);
    buf_release(&dir);
    return rc;
}

/* The index is new, so it can be opened now: kept runs go back into the ledger where it lacks them. */
static enum err_code bring_runs(const struct cli *c, struct rebuild_report *r, int64_t *runs,
                                struct err *err)
{
    struct store *st = NULL;
    enum err_code rc = cli_open(c, STORE_WRITE, &st, err);

    if (rc == OK)
        rc = run_import_kept(st, runs, &r->problems, err);
    store_close(st);
    return rc;
}

static enum err_code rebuild_run(struct cli *c, struct err *err)
{
    int64_t runs = 0;
    struct rebuild_report report = {0};
    struct store *st = NULL;
    enum err_code rc;

    buf_init(&report.problems, PROBLEMS_MAX_BYTES);
    /* Without the index, which may be what is broken, and which may not be open here meanwhile. */
    rc = cli_open(c, STORE_NODE, &st, err);
    if (rc == OK)
        rc = rebuild(st, &report, err);
    store_close(st);
    st = NULL;
    if (rc == OK)
        rc = bring_runs(c, &report, &runs, err);
    if (rc == OK)
        rc = show(c, &report, runs, err);
    if (rc == OK && report.damaged_packs > 0)
        rc = err_set(err, ERR_DAMAGED,
                     "%lld of %lld packs are damaged and were left out; run: weir fsck --repair",
                     (long long)report.damaged_packs,
                     (long long)(report.packs + report.damaged_packs));
    buf_release(&report.problems);
    store_close(st);
    return rc;
}

const struct cli_command cli_store_rebuild = {
    .name = "store rebuild",
    .args = "",
    .summary = "make the index again, from the objects alone",
    .text = "For an index that is lost or damaged, or an objects folder that came from elsewhere.  "
            "Afterwards\n"
            "everything counts as just used, so the next gc waits for the grace period.  Runs that "
            "are kept (runs/run-N)\n"
            "come back into the ledger when it has lost them.",
    .example = "weir store rebuild",
    .json = "{\"problem\":\"...\"}, a line per problem, then\n"
            "{\"actions\":N,\"damaged_packs\":N,\"objects\":N,\"packs\":N,\"refs\":N,\"runs\":N}",
    .run = rebuild_run,
};
