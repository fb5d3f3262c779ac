/* weir reproduce: is it still what it was? */
#include "orchestrator/reproduce.h"

#include <stdio.h>
#include <string.h>

#include "orchestrator/cli/commands.h"
#include "orchestrator/cli/live.h"
#include "orchestrator/program.h"
#include "orchestrator/record.h"

struct tally {
    const struct cli *c;
    int64_t counts[3];
};

static const char *const end_words[] = {"equal", "differs", "failed"};

static enum err_code tell(void *arg, const struct reproduce_report *r, struct err *err)
{
    struct tally *t = arg;
    struct buf text = {0};
    char took[24];
    enum err_code rc = OK;

    t->counts[r->end]++;
    buf_init(&text, 4096);
    if (r->end == REPRODUCE_DIFFERS) {
        buf_printf(&text, "%s: ", r->output);
        differ_say(&r->difference, &text);
    } else {
        buf_str(&text, r->reason);
    }
    live_duration(r->wall_ms, took);
    if (t->c->json)
        rc = cli_json(json_pack("{s:s, s:s, s:I, s:s*, s:s*}", "task", r->task, "end",
                                end_words[r->end], "wall_ms", (json_int_t)r->wall_ms, "output",
                                r->output, "reason", text.n ? text.p : NULL),
                      err);
    else
        printf(" %-32s %-8s %8s  %s\n", r->task, end_words[r->end], took, text.n ? text.p : "");
    (void)fflush(stdout);
    buf_release(&text);
    return rc;
}

static enum err_code reproduce_cli(struct cli *c, struct err *err)
{
    struct tally t = {.c = c};
    struct store *st = NULL;
    struct ledger *l = NULL;
    struct programs *programs = NULL;
    struct buf exec = {0};
    int64_t run;
    enum err_code rc = cli_open(c, STORE_WRITE, &st, err);

    buf_init(&exec, 4096);
    if (!rc)
        rc = ledger_open(st->root, LEDGER_READ, &l, err);
    if (rc == ERR_NOT_FOUND && st) { /* pulled from elsewhere: refs are enough */
        *err = (struct err)ERR_INIT;
        rc = OK;
    }
    if (!rc)
        rc = run_number(st, l, c->args[0], &run, err);
    if (!rc)
        rc = programs_new(st, &programs, err);
    if (!rc) {
        buf_printf(&exec, "%s/weir-exec", programs_dir(programs));
        rc = reproduce_run(st, run, cli_value(c, "stage"), exec.p, tell, &t, err);
    }
    if (!rc && t.counts[REPRODUCE_EQUAL] != t.counts[0] + t.counts[1] + t.counts[2])
        rc = err_set(err, ERR_TASK, "run-%lld: %lld equal, %lld differ, %lld failed",
                     (long long)run, (long long)t.counts[REPRODUCE_EQUAL],
                     (long long)t.counts[REPRODUCE_DIFFERS], (long long)t.counts[REPRODUCE_FAILED]);
    programs_free(programs);
    ledger_close(l);
    store_close(st);
    buf_release(&exec);
    return rc;
}

static const struct cli_option reproduce_options[] = {
    {"stage", 0, "STAGE", "only this stage or task; all of the run otherwise"},
    {0},
};
const struct cli_command cli_reproduce = {
    .name = "reproduce",
    .args = "RUN",
    .args_min = 1,
    .args_max = 1,
    .summary = "run recorded tasks again and compare every byte",
    .text = "Program, code and inputs come from the store as they were, also after an upgrade.  On "
            "a difference: the first file,\n"
            "and in safetensors the first tensor and its largest difference.  Exit status 1 when "
            "anything differs.",
    .example = "weir reproduce run-41 --stage vae",
    .json = "{\"end\":\"equal\"|\"differs\"|\"failed\",\"output\":\"...\",\"reason\":\"...\","
            "\"task\":\"...\","
            "\"wall_ms\":12}",
    .options = reproduce_options,
    .run = reproduce_cli,
};
