/* executor.h - where attempts run: started somewhere, asked after, ended.  One table of functions for local, Slurm and fake.
 *
 * An attempt is a task directory with attempt.json in it (card.h).  The executor gets weir-exec to run it; what comes back is result.json
 * there, whatever happened to the orchestrator meanwhile.  A task directory that is flock'ed itself (by weir-exec) is alive; without
 * a holder and without result.json it is lost.  (Or it has ended well, an orchestrator was told and died at that moment: what is lost has to
 * be looked up again, and found.)
 *
 * local:  resident weir-exec processes, one per slot, each in a session of its own, fed with task directories over a pipe; results come back over
 *         a pipe.  When the orchestrator dies they see the end of the pipe, finish what they have begun, write result.json and go.
 * fake:   virtual time (fake.h), for tests.
 *
 * Life:     executor_local -> start, stop, poll -> executor_close, which leaves running attempts alone (detach).
 * Owns:     its processes and descriptors.
 * Threads:  one.
 * Errors:   start: ERR_IO, ERR_FULL, ERR_MISSING.  What happens to an attempt later is an executor_event.
 */
#ifndef WEIR_CLUSTER_EXECUTOR_H
#define WEIR_CLUSTER_EXECUTOR_H

#include "cluster/card.h"

enum executor_event_kind {
    EXEC_STARTED, /* the program runs (pid); of one that ends at once only the end may be told */
    EXEC_ENDED,   /* with a result: card */
    EXEC_LOST,    /* its supervisor is gone without a result: reason */
    EXEC_EXITED /* only with tell_exits: the program has ended, EXEC_ENDED or EXEC_LOST follows when the result is durable; what it
                   * occupied is free, and another attempt that is started now shares the commit */
};
struct executor_event {
    enum executor_event_kind kind;
    uint64_t id; /* as given to start or adopt */
    int64_t pid;
    struct result_card card; /* EXEC_ENDED: the caller's, result_card_release */
    char reason[ERR_TEXT_MAX];
    bool spare; /* EXEC_ENDED: its folder is empty and may be given to start_again */
};
struct executor;
struct executor_ops {
    const char *name;
    MUST_USE enum err_code (*start)(struct executor *e, uint64_t id, const char *task_dir,
                                    struct err *err);
    /* The same in a folder that was spare: with its new card in it, and under its new name.  NULL where none ever is. */
    MUST_USE enum err_code (*start_again)(struct executor *e, uint64_t id, const char *task_dir,
                                          struct err *err);
    /* An attempt of an earlier orchestrator: watch it.  Gives EXEC_ENDED or EXEC_LOST, at once when it is over already. */
    MUST_USE enum err_code (*adopt)(struct executor *e, uint64_t id, const char *task_dir,
                                    struct err *err);
    /* SIGTERM, and SIGKILL after the card's grace time; kill: at once.  An attempt that is over is fine. */
    void (*stop)(struct executor *e, uint64_t id, bool kill);
    /* The next event; waits at most timeout_ms (-1: for ever) for one, also ends when `wake` (a descriptor, -1: none) is readable.
     * *got = false: none. */
    MUST_USE enum err_code (*poll)(struct executor *e, int64_t timeout_ms, int wake,
                                   struct executor_event *out, bool *got, struct err *err);
    void (*close)(struct executor *e);
};
struct executor { /* first member of every implementation */
    const struct executor_ops *ops;
};
struct executor_local_options {
    const char *exec_path; /* absolute path of weir-exec */
    const char *store;     /* path of .weir */
    int slots;             /* attempts at once; more wait their turn */
    bool tell_exits;       /* give EXEC_EXITED, too */
};
MUST_USE enum err_code executor_local(const struct executor_local_options *o, struct executor **out,
                                      struct err *err);

/* The state of a task directory, whoever looks. */
enum attempt_life { ATTEMPT_ALIVE, ATTEMPT_OVER /* result.json */, ATTEMPT_GONE };
MUST_USE enum err_code attempt_life(const char *task_dir, enum attempt_life *out, struct err *err);

#endif
