/* resolve_internal.h - what the files of the resolver share.
 *
 * Life:     one struct resolver.
 * Owns:     as resolve.h.
 * Threads:  one.
 * Errors:   as resolve.h.
 */
#ifndef WEIR_ORCHESTRATOR_RESOLVE_INTERNAL_H
#define WEIR_ORCHESTRATOR_RESOLVE_INTERNAL_H

#include "orchestrator/resolve.h"
#include "orchestrator/resolve_memo.h"
#include "orchestrator/task_action.h"

struct override { /* --input */
    int task;     /* -1: of a source, whose number is in input */
    int input;
    int entry; /* of a fan-in, or -1: the whole input */
    struct source_object object;
};
struct stage_part {   /* what all tasks of a stage share */
    bool made, same;  /* same: as the memo has it */
    struct digest id; /* of everything here; zero where the pipeline file says it all */
    struct ready_task ready;
};
struct task_state {
    struct task_result result;
    bool keyed;
    bool same;   /* its outputs are those of the memo's row */
    bool looked; /* in this process: hit or miss is decided */
};
struct resolver {
    struct store *st;
    struct ledger *l;
    bool ledger_read;
    const struct pipeline *p;
    struct arena arena, scratch;
    struct sources *sources;
    struct programs *programs;
    struct source_object *source; /* per source, overridden or entered; kind OBJ_NONE: not wanted */
    bool *source_same;
    struct override *overrides;
    size_t override_count;
    bool *overridden; /* per task; NULL: none is */
    bool *need;       /* per task: wanted, or above one that is */
    bool all;         /* every task is needed */
    struct stage_part *stages;
    struct task_state *tasks;
    struct buf text; /* of the action being made */
    uint64_t epoch;
    char platform[2][64];
    /* the memo */
    bool use_memo, rows; /* rows: of this very pipeline, so that numbers fit */
    struct memo memo;
    char memo_name[40];
    const char *memo_dir;
    struct digest origin;
    uint32_t *table; /* keys of known rows: number + 1; made when first asked */
    size_t table_mask;
    struct digest results; /* resolve_results_tree */
    int64_t results_size;
    bool changed; /* differs from the file */
};

/* resolve_input.c */
MUST_USE enum err_code resolve_overrides(struct resolver *r, const char *const *texts,
                                         struct err *err);
const struct override *resolve_override(const struct resolver *r, int task, int input, int entry);
/* Are all inputs of the task known? */
bool resolve_inputs_known(const struct resolver *r, int task);
/* The inputs with their digests, in r->scratch.  w: fan-in trees are put there; NULL: only named. */
MUST_USE enum err_code resolve_inputs(struct resolver *r, int task, struct writer *w,
                                      struct ready_input **out, struct err *err);

/* resolve_stage.c */
MUST_USE enum err_code resolve_stage(struct resolver *r, int stage, struct stage_part **out,
                                     struct err *err);
/* Everything but the inputs of the task. */
MUST_USE enum err_code resolve_ready(struct resolver *r, int task, struct writer *w,
                                     struct ready_task *out, struct err *err);

/* resolve.c: r->text becomes its action */
MUST_USE enum err_code resolve_text(struct resolver *r, int task, const char *without,
                                    struct err *err);

#endif
