/* ledger_internal.h - what ledger*.c and share.c share: the environment, pending events, rows, the chain.
 *
 * Life:     as ledger.h.
 * Owns:     as ledger.h.
 * Threads:  as ledger.h.
 * Errors:   as ledger.h.
 */
#ifndef WEIR_ORCHESTRATOR_LEDGER_INTERNAL_H
#define WEIR_ORCHESTRATOR_LEDGER_INTERNAL_H

#include "orchestrator/ledger.h"
#include "orchestrator/ledger_env.h"

enum ledger_table { T_EVENT, T_RUN, T_VIEW, T_REQUEST, T_META };
#define EVENT_KEY 16
#define RUN_ROW_BYTES 208
#define VIEW_KEY_SHORT                                                                             \
    470 /* longer keys: so many bytes, SHA-256 of all; the whole key is in the value */

#define ROW_IMPORTED 1u /* its first event follows one that this ledger never had */
#define ROW_ORPHAN 2u   /* its first event follows one of a run that was removed */

struct op { /* what the next commit writes: text[off..off+n) */
    bool event;
    uint8_t view;
    size_t key_n; /* views: the key lies before the value, both in n */
    size_t off, n;
    size_t prev; /* events: where the 64 digits of prev are to be written */
    int64_t seq;
    size_t run; /* index into runs */
};
struct open_run {
    int64_t run;
    bool loaded, set;
    int64_t committed, next; /* events in the table; with those pending */
    struct digest last;      /* of the committed ones */
    struct ledger_run row;   /* from ledger_set_run */
    /* within one transaction: */
    bool touched;
    int64_t seq;
    struct digest chain;
    struct ledger_run now;
    unsigned flags;
};
struct member;
struct ledger {
    char *path;
    enum ledger_mode mode;
    struct env *env;
    struct env *share; /* opened by share.c, closed here */
    struct buf text;
    struct op *ops;
    size_t op_count, op_cap, op_first; /* those before op_first are committed */
    struct open_run *runs;
    size_t run_count, run_cap;
    struct member *members; /* scratch of append */
    size_t member_cap;
    int64_t second; /* whose text is in time_text */
    char time_text[32];
    struct sha256 sha;
    size_t batch;
};

/* ---- rows (ledger_read.c) ---- */
struct run_row {
    struct ledger_run run;
    unsigned flags;
};
void run_row_encode(const struct run_row *r, uint8_t out[RUN_ROW_BYTES]);
MUST_USE enum err_code run_row_get(struct txn *t, int64_t run, struct run_row *out, bool *found,
                                   struct err *err);
MUST_USE enum err_code run_row_put(struct txn *t, const struct run_row *r, struct err *err);
void event_key(int64_t run, int64_t seq, uint8_t out[EVENT_KEY]);
MUST_USE enum err_code event_get(struct txn *t, int64_t run, int64_t seq, struct str *text,
                                 struct err *err); /* absent is ERR_DAMAGED */
MUST_USE enum err_code no_such_run(struct ledger *l, int64_t run, struct err *err);
MUST_USE enum err_code head_put(struct txn *t, const struct digest *head, struct err *err);
/* A key of the table "view"; *n bytes of out. */
void view_key(uint8_t view, struct str key, uint8_t out[ENV_KEY_MAX], size_t *n);

/* ---- the chain ---- */
struct chain {
    int64_t run, seq;          /* the next event's */
    struct digest last, first; /* id of the one before; prev of event 0 */
};
/* Does this event come next?  *body (may be NULL): a new reference. */
MUST_USE enum err_code chain_step(struct chain *c, struct str text, json_t **body, struct err *err);
/* The same without parsing all of it (ledger_move.c). */
MUST_USE enum err_code chain_text(struct chain *c, struct str text, struct err *err);
/* All events of a run as they are, each one checked against the chain, one line each (ledger_read.c). */
MUST_USE enum err_code ledger_lines(struct ledger *l, int64_t run, struct buf *out,
                                    struct err *err);

#endif
