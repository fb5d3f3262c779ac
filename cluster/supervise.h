/* supervise.h - one child process, watched from its first instruction to the last of its descendants.
 *
 * The child gets a process group of its own, stdin from /dev/null, stdout and stderr into one log (LOG_HEAD_MAX bytes kept from
 * the start and LOG_TAIL_MAX from the end), events on descriptor 3 into events.jsonl, and nothing else open.  What it leaves
 * running, daemons included, is found (weir-exec is their subreaper) and killed.
 *
 * Ending: a SIGTERM to us, or time_s passed, sends SIGTERM to the group; grace_s later SIGKILL.
 *
 * Life:     one call per attempt.
 * Owns:     nothing afterwards.
 * Threads:  one per process: it uses signalfd and waits for any child.
 * Errors:   ERR_IO when the child cannot be started; everything that the child does is a result, not an error.
 */
#ifndef WEIR_CLUSTER_SUPERVISE_H
#define WEIR_CLUSTER_SUPERVISE_H

#include "base/err.h"

#define LOG_HEAD_MAX (4 << 20)
#define LOG_TAIL_MAX (4 << 20)
#define EVENT_LINE_MAX (64 << 10)

struct supervise_options {
    const char *const *argv; /* NULL-terminated; argv[0] is a path, or looked up in envp's PATH */
    const char *const *envp; /* NULL-terminated: the whole environment */
    int task_dir;            /* log and events.jsonl are made here */
    const char *work_dir;    /* absolute: where the child starts */
    const char
        *read_only_dir; /* absolute: shielded by a read-only bind mount when shield is true */
    bool shield;
    int64_t memory_bytes; /* 0: no limit; RLIMIT_DATA per process */
    int64_t time_s;       /* 0: no limit */
    int64_t grace_s;
};
struct supervise_result {
    int exit_status; /* when signal == 0 */
    int signal;
    bool asked_to_stop; /* SIGTERM came from outside, or time_s passed */
    bool timed_out;
    bool killed_after_grace;
    bool not_started; /* exec failed: start_errno */
    int start_errno;
    int strays;        /* processes that it left behind and we killed */
    int64_t log_bytes; /* written by the child, kept or not */
    int64_t wall_ms;
};
MUST_USE enum err_code supervise(const struct supervise_options *o, struct supervise_result *out,
                                 struct err *err);

#endif
