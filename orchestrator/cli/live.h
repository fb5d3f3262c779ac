/* live.h - a run as it goes: a line for each task that ends, and on a terminal the ones in progress below, redrawn in place.
 *
 *    profile            ✓ cached
 *    pretrain           ✓ 3m12s   loss 0.412
 *    sft[variant=a]     ▶ 64%  384/600 steps  loss 0.391  eta 41s
 *
 * Not on a terminal: plain lines, nothing is redrawn, no colour; words instead of signs ("cached", "done", "FAILED").  NO_COLOR is obeyed.
 *
 * Life:     live_begin -> live_event as run_event_fn -> live_end.
 * Owns:     nothing but counters.
 * Threads:  one.
 * Errors:   as cli_write.
 */
#ifndef WEIR_ORCHESTRATOR_CLI_LIVE_H
#define WEIR_ORCHESTRATOR_CLI_LIVE_H

#include "orchestrator/cli.h"
#include "orchestrator/run.h"

struct live {
    const struct cli *c;
    bool terminal, colour;
    int drawn; /* lines below the last one that stays */
    int width; /* of the column of names */
    int64_t tasks;
};
void live_begin(struct live *v, const struct cli *c, const struct pipeline *p);
MUST_USE enum err_code live_event(void *live, const struct run_event *e, struct err *err);
void live_end(struct live *v);
void live_summary(const struct live *v, const struct run_report *r);

/* What the events of an attempt say so far: shared with `weir status`.  dir is the attempt's folder. */
struct live_progress {
    bool known;
    double done, total;
    char unit[32],
        metrics[160]; /* "loss 0.391  lr 0.0001", the last value of each of the first few */
};
void live_progress_read(const char *dir, struct live_progress *out);
/* From the text of an events.jsonl (also one that is an object). */
void live_progress_parse(const char *text, size_t n, struct live_progress *out);
/* The last value of a metric of a task; NaN: it has none (cli/logs.c). */
struct run_task;
struct run_view;
MUST_USE enum err_code metric_last(struct store *st, struct ledger *l, const struct run_task *t,
                                   struct run_view *v, const char *name, double *out,
                                   struct err *err);
void live_duration(int64_t ms, char out[24]); /* "41s", "3m12s", "2h05m", "0.35s" */

#endif
