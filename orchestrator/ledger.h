/* ledger.h - what happened, in order, durable and tamper-evident; and the little tables that are folds of it.
 *
 *   .weir/ledger/   LMDB, an environment of its own on the index host's local disk (all integers big endian in keys, little endian in values)
 *     event     run u64 | seq u64 -> canonical JSON of the event
 *     run       run u64 -> struct ledger_run, as a record with crc
 *     view      table u8 | key bytes -> value bytes | crc            folds, kept in the transaction of the event that changes them
 *     request   run u64 | kind u8 | task -> time | crc               what other processes ask of the one that runs the run
 *     meta      "format", "head" (id of the last event of all runs), "next_run"
 *   .weir/ledger/share-<boot id>/   who runs what right now (share.h): an environment of its own, never synced and so never read after a
 *                                   reboot; unsynced commits in the ledger's own file could leave it broken by a power cut
 *
 * An event is canonical JSON: {"event":"task.end","prev":"sha256:..","seq":17,"time":"2026-01-02T03:04:05.678Z", ...fields}.  prev is the id
 * (SHA-256 of the text) of the event before it in the same run; the first one has prev = the ledger's head at that moment, so that runs hang
 * together too.  Whoever changes an event has to change all that follow, and the objects under runs/ID that hold them.
 *
 * Group commit: append collects in memory; commit makes all of it durable in one transaction (one fsync).  What is not committed did not
 * happen.  Readers, this process's too, see committed events, rows and views only and never wait for a writer.  More than fits into one
 * transaction (LEDGER_BATCH_BYTES) takes several, each of whole events with the views that were set after them: set a view after the event
 * that changes it.  Sequence numbers are per run and only one process at a time appends to a run (share_runner); when two do, the second
 * one's commit is ERR_CHANGED.
 *
 * Life:     ledger_open -> calls -> ledger_close.  One open per process and folder.  Not across fork.
 * Owns:     the environment and the events not yet committed.
 * Threads:  reads from any; append and commit from one thread.
 * Errors:   ERR_FULL (nothing lost), ERR_DAMAGED (checksum, broken chain: names run and seq; events before it are still readable),
 *           ERR_VERSION.  Seam: before each open, begin, put, delete and commit.
 */
/* long: the ledger and its tables share one environment and its transactions */
#ifndef WEIR_ORCHESTRATOR_LEDGER_H
#define WEIR_ORCHESTRATOR_LEDGER_H

#include "base/hash.h"
#include "base/json.h"

#define LEDGER_FORMAT 1
#define LEDGER_EVENT_MAX (16 << 20)   /* bytes of one event */
#define LEDGER_BATCH_BYTES (32 << 20) /* of one transaction; below LMDB's 64 MiB of dirty pages */

enum ledger_mode { LEDGER_READ /* ERR_NOT_FOUND when there is none yet */, LEDGER_WRITE };
struct ledger;
MUST_USE enum err_code ledger_open(const char *weir_dir /* path of .weir */, enum ledger_mode mode,
                                   struct ledger **out, struct err *err);
void ledger_close(struct ledger *l); /* NULL is fine; what was not committed is dropped */

/* ---- runs and events ---- */
enum run_state {
    RUN_RUNNING,
    RUN_SUCCEEDED,
    RUN_FAILED,
    RUN_STOPPED,
    RUN_CANCELLED,
    RUN_STATE_COUNT
};
extern const char *const run_state_words[RUN_STATE_COUNT];
struct ledger_run {
    int64_t run; /* the N of run-N */
    enum run_state state;
    int64_t begun_ns, ended_ns; /* 0: not yet */
    int64_t events;             /* committed so far */
    int64_t tasks, cached, ran, failed, skipped, blocked;
    struct digest last;    /* id of its last event */
    struct digest options; /* what must be equal for a later command to go on with this run */
    char pipeline[64];     /* its name, cut */
};
/* A pipeline's name as struct ledger_run holds it: valid UTF-8 stays valid. */
void ledger_name_cut(const char *name, char out[64]);
/* A new run, its number taken at once and durably (also above every runs/run-N that a rebuild has brought back: at_least). */
MUST_USE enum err_code ledger_begin(struct ledger *l, const char *pipeline,
                                    const struct digest *options, int64_t at_least, int64_t *run,
                                    struct err *err);
/* Takes body (also when it fails), an object with "event" and the event's own fields, their names ASCII; prev, seq and time are added here.
 * Not durable before ledger_commit.  ERR_LIMIT past LEDGER_EVENT_MAX, ERR_NOT_FOUND when there is no such run. */
MUST_USE enum err_code ledger_append(struct ledger *l, int64_t run, json_t *body, struct err *err);
/* Numbers and state of the run as they are after the events appended so far; written by the next commit (the last of its transactions).
 * state, ended_ns and the counts are taken from row; what ledger_begin was given, events and last stay the ledger's. */
void ledger_set_run(struct ledger *l, const struct ledger_run *row);
MUST_USE enum err_code ledger_commit(struct ledger *l, struct err *err);
bool ledger_dirty(const struct ledger *l); /* anything to commit? */

MUST_USE enum err_code ledger_get_run(struct ledger *l, int64_t run, struct ledger_run *out,
                                      struct err *err); /* ERR_NOT_FOUND */
/* The newest first; free(*rows). */
MUST_USE enum err_code ledger_list_runs(struct ledger *l, size_t max, struct ledger_run **rows,
                                        size_t *n, struct err *err);
/* Events from seq on (0: all), in order, each checked against the chain.  body is borrowed during the call; a return other than OK ends the walk. */
typedef enum err_code (*ledger_event_fn)(void *arg, int64_t seq, const json_t *body,
                                         struct err *err);
MUST_USE enum err_code ledger_replay(struct ledger *l, int64_t run, int64_t seq, ledger_event_fn fn,
                                     void *arg, struct err *err);
/* All events of a run as text, one line each: what becomes the object under runs/ID; and the way back, chain checked first (a run that is
 * there already with the same last id is fine, with another one ERR_EXISTS).  row->last and row->events say what must come out; a zero last
 * says nothing.  ERR_INPUT for text that ledger_export never wrote. */
MUST_USE enum err_code ledger_export(struct ledger *l, int64_t run, struct buf *out,
                                     struct err *err);
MUST_USE enum err_code ledger_import(struct ledger *l, const struct ledger_run *row,
                                     const char *text, size_t n, struct err *err);
/* The walk of ledger_replay over exported text.  last, events (may be NULL): what the chain came to. */
MUST_USE enum err_code ledger_text(const char *text, size_t n, int64_t run, ledger_event_fn fn,
                                   void *arg, struct digest *last, int64_t *events,
                                   struct err *err);
MUST_USE enum err_code ledger_remove_run(struct ledger *l, int64_t run,
                                         struct err *err); /* ended runs only, else ERR_AGAIN */
/* The whole chain of every run, or of one; for all of them also what the first events name: each must follow some event that is there,
 * except the very first, imported runs, and those that followed a run removed since. */
MUST_USE enum err_code ledger_verify(struct ledger *l, int64_t run /* 0: all */, int64_t *events,
                                     struct err *err);

/* ---- requests: `weir cancel` to the process that runs the run ---- */
#define LEDGER_TASK_MAX 440 /* bytes of a task's name in a request */
enum ledger_ask { LEDGER_ASK_STOP, LEDGER_ASK_CANCEL, LEDGER_ASK_COUNT };
struct ledger_request {
    enum ledger_ask ask;
    int64_t time_ns;
    char task[LEDGER_TASK_MAX + 1]; /* "": the whole run */
};
/* Durable; asking twice is asking once.  ERR_NOT_FOUND when there is no such run or it has ended. */
MUST_USE enum err_code ledger_request(struct ledger *l, int64_t run, enum ledger_ask ask,
                                      const char *task /* NULL: all */, struct err *err);
/* The next request, removed; *got = false (one look-up, no write) when there is none.  Who goes on with a run of a dead process takes, and
 * forgets, what was asked of that one. */
MUST_USE enum err_code ledger_take_request(struct ledger *l, int64_t run,
                                           struct ledger_request *out, bool *got, struct err *err);

/* ---- views: small folds, written by the next commit ---- */
enum ledger_view {
    VIEW_TASK =
        1, /* pipeline \0 task -> record of its last end or decision (orchestrator/record.h) */
    VIEW_RESULT = 2, /* action key[32] -> outputs of its result, so that a hit needs no object */
};
void ledger_view_set(struct ledger *l, enum ledger_view view, const void *key, size_t key_n,
                     const void *p, size_t n);
MUST_USE enum err_code ledger_view_get(struct ledger *l, enum ledger_view view, const void *key,
                                       size_t key_n, struct buf *out,
                                       struct err *err); /* ERR_NOT_FOUND */
typedef enum err_code (*ledger_view_fn)(void *arg, struct str key, struct str value,
                                        struct err *err);
/* In the order of keys (of their first 470 bytes); fn is called outside of any transaction. */
MUST_USE enum err_code ledger_view_scan(struct ledger *l, enum ledger_view view, struct str prefix,
                                        ledger_view_fn fn, void *arg, struct err *err);

#endif
