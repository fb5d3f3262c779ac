/* supervise.h - one child process, watched from its first instruction to the last of its descendants.
 *
 * The child gets a process group of its own, stdin from /dev/null, stdout and stderr into one log (runlog.h), descriptor 3 for
 * events, whose lines go to a hook, and nothing else open.  What it leaves running, daemons included, is found (we are their
 * subreaper) and killed.  A child that closes its descriptors is waited for all the same.
 *
 * Ending: a request (SIGTERM or SIGINT to us, or one from the hooks), or time_s or timeout_s passed, sends SIGTERM to the group;
 * grace_s later SIGKILL.  SIGQUIT to us kills at once.
 *
 * Life:     one call per attempt.
 * Owns:     nothing afterwards.
 * Threads:  one per process: it waits for any child.
 * Errors:   ERR_IO when the child cannot be started; what the log or a hook says (the child is killed then); everything that the
 *           child does is a result, not an error.
 */
#ifndef WEIR_CLUSTER_SUPERVISE_H
#define WEIR_CLUSTER_SUPERVISE_H

#include <sys/types.h>

#include "cluster/runlog.h"

#define EVENT_LINE_MAX (64 << 10)

enum supervise_ask { ASK_NOTHING, ASK_STOP, ASK_KILL, ASK_NEVER /* control has ended */ };
struct supervise_hooks {
    void *ctx;
    void (*started)(void *ctx, pid_t pid);
    /* A whole line from descriptor 3, without its newline, at most EVENT_LINE_MAX long; NUL-terminated.  *taken = false: it is no event,
     * and goes to the log. */
    MUST_USE enum err_code (*event)(void *ctx, const char *line, size_t n, bool *taken,
                                    struct err *err);
    int control; /* watched for reading; -1: none */
    MUST_USE enum supervise_ask (*on_control)(void *ctx);
    /* Does what is due; gives the nanoseconds until the next time, -1: nothing is planned. */
    MUST_USE int64_t (*tick)(void *ctx);
};
struct supervise_options {
    const char *const *argv; /* NULL-terminated; argv[0] is a path, or looked up in PATH */
    const char *const *envp; /* NULL-terminated: the whole environment */
    const char *work_dir;    /* absolute: where the child starts */
    const char *read_only;   /* absolute: shielded by a read-only bind mount; NULL: none */
    struct runlog *log;
    int64_t memory_bytes; /* 0: no limit; RLIMIT_DATA per process */
    int64_t time_s;       /* 0: no limit */
    int64_t timeout_s;    /* 0: no limit */
    int64_t grace_s;
    int signals;                         /* from supervise_signals; -1: made for this call */
    const struct supervise_hooks *hooks; /* any of them may be NULL, and so may this */
};
struct supervise_result {
    int exit_status; /* when signal == 0 */
    int signal;
    bool asked_to_stop;      /* by anybody, or time_s or timeout_s has passed */
    bool asked_from_outside; /* by a signal to us: the whole process is to end */
    bool time_up;            /* time_s */
    bool timed_out;          /* timeout_s */
    bool killed_on_request;
    bool killed_after_grace;
    bool not_started; /* exec failed: start_errno */
    int start_errno;
    int strays; /* processes that it left behind and we killed */
    int64_t wall_ms;
    int64_t memory_peak; /* bytes resident at most, of the largest process */
};
MUST_USE enum err_code supervise(const struct supervise_options *o, struct supervise_result *out,
                                 struct err *err);
/* SIGTERM, SIGINT, SIGQUIT and SIGCHLD as a descriptor, blocked from now on; and we become a subreaper. */
MUST_USE enum err_code supervise_signals(int *fd, struct err *err);

#endif
