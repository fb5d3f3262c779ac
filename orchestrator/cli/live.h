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

#define LIVE_LINES_MAX 14

struct live_progress;
struct live {
    const struct cli *c;
    bool terminal, colour;
    int drawn;                       /* lines below the last one that stays */
    int drawn_width[LIVE_LINES_MAX]; /* columns of each: a terminal made narrower wraps them */
    int width;                       /* of the column of names */
    int64_t tasks;
    struct
        live_seen { /* where an attempt stood when it was first looked at: a resumed one does not begin at 0 */
        const struct task *task;
        int attempt;
        double done;
        int64_t at_ns;
    } seen[LIVE_LINES_MAX];
};
void live_begin(struct live *v, const struct cli *c, const struct pipeline *p);
MUST_USE enum err_code live_event(void *live, const struct run_event *e, struct err *err);
void live_end(struct live *v);
/* The last line, whatever the run ended with; with --json an object of its own. */
MUST_USE enum err_code live_summary(const struct live *v, const struct run_report *r,
                                    struct err *err);

/* What the events of an attempt say so far: shared with `weir status`.  dir is the attempt's folder. */
struct live_progress {
    bool known;
    double done, total;
    char unit[32],
        metrics[160]; /* "loss 0.391  lr 0.0001", the last value of each of the first few */
};
void live_progress_read(const char *dir, struct live_progress *out);
/* "▶ 64%  384/600 steps  2.1/s  loss 0.391  eta 41s": ms since the attempt began, rate in units a second (0: not known yet). */
void live_progress_text(const struct live_progress *p, int64_t ms, double rate, struct buf *out);
/* Cuts text to so many columns of a terminal, whole characters only, and ends it with "…" then; returns the columns it takes. */
int live_cut(struct buf *text, int columns);
/* From the text of an events.jsonl (also one that is an object). */
void live_progress_parse(const char *text, size_t n, struct live_progress *out);
/* The last value of a metric of a task; NaN: it has none (cli/logs.c). */
struct run_task;
struct run_view;
/* OK when the run has a record of the task; else ERR_NOT_FOUND with the nearest name; without sure only where a name is near (runs in
 * progress do not tell all names). */
MUST_USE enum err_code cli_unknown_task(const struct run_view *v, const char *task, bool sure,
                                        struct err *err);
MUST_USE enum err_code metric_last(struct store *st, struct ledger *l, const struct run_task *t,
                                   struct run_view *v, const char *name, double *out,
                                   struct err *err);
/* Text of programs and of errors for a terminal: control bytes and what is not UTF-8 as %XX; unlike in names, % stays %. */
void live_clean(struct buf *out, const char *text, size_t n);
void live_duration(int64_t ms, char out[24]); /* "41s", "3m12s", "2h05m", "0.35s" */

#endif
