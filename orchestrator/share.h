/* share.h - what concurrent runs on one machine agree about: who works on which action, and how much of the machine is taken.
 *
 *   .weir/ledger/share-<boot id>/   LMDB, beside the ledger's environment and never synced: after a power cut no process is left that could
 *                                   hold anything, and the next boot has another folder (share_join removes those of earlier ones)
 *     process   id u64 -> pid, start time, run, cpus, memory, gpus, which gpus | crc
 *     claim     action key[32] -> process id, time, task | crc
 *     meta      "format", "next"
 *
 * Each change is a transaction of its own, some ten microseconds; except that what is given back or released is written with the next
 * change or by share_settle, and that who is alone on the machine gives and takes without writing while it was seen to be so less than
 * SHARE_ALONE_NS ago: that a newcomer sees more taken than there is for a moment costs it another look, never a core twice.  A process
 * that is gone (pid and start time do not match) holds nothing: its rows are dropped by whoever meets them.
 *
 * Life:     share_join -> claims -> share_leave (or death).
 * Owns:     rows named by the process id that join gave.
 * Threads:  one.
 * Errors:   as ledger.h.
 */
#ifndef WEIR_ORCHESTRATOR_SHARE_H
#define WEIR_ORCHESTRATOR_SHARE_H

#include "orchestrator/ledger.h"

struct share;
struct share_limits { /* of the whole machine, over all runs */
    int64_t cpus, memory_bytes, gpus;
};
MUST_USE enum err_code share_join(struct ledger *l, int64_t run, const struct share_limits *limits,
                                  struct share **out, struct err *err);
void share_leave(struct share *s); /* NULL is fine */

#define SHARE_ALONE_NS 20000000
/* What was given back and released is on record now: before waiting for something else than one's own attempts' next word. */
MUST_USE enum err_code share_settle(struct share *s, struct err *err);
bool share_unsettled(const struct share *s);

struct share_owner { /* of a claim that somebody else holds */
    int64_t run;
    int64_t pid;
    char task[256];
};
/* *mine = true: this process works on key from now on (also when it held it already).  false: *owner does. */
MUST_USE enum err_code share_claim(struct share *s, const struct digest *key, const char *task,
                                   bool *mine, struct share_owner *owner, struct err *err);
MUST_USE enum err_code share_release(struct share *s, const struct digest *key, struct err *err);

/* Take this much of the machine in addition to what this process has; *got = false when the others' part leaves too little.  A request larger
 * than the whole machine is granted when nobody else has anything. */
struct share_take {
    int64_t cpus, memory_bytes;
    int64_t gpus;
    uint64_t gpu_mask; /* out: which ones were given */
};
MUST_USE enum err_code share_take(struct share *s, struct share_take *t, bool *got,
                                  struct err *err);
MUST_USE enum err_code share_give(struct share *s, const struct share_take *t, struct err *err);

/* Is that process alive?  Start time as in field 22 of /proc/PID/stat; boot id as in /proc/sys/kernel/random/boot_id. */
struct process_id {
    int64_t pid, start;
    char boot[37];
};
void process_self(struct process_id *out);
bool process_alive(const struct process_id *p);
/* The process that runs `run`, or false. */
MUST_USE enum err_code share_runner(struct ledger *l, int64_t run, struct process_id *out,
                                    bool *alive, struct err *err);

#endif
