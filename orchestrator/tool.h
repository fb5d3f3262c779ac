/* tool.h - another program, run to its end: bounded output, bounded time, nothing of ours inherited.
 *
 * For programs that answer soon (--describe, apt-get, dpkg-deb); tasks run under weir-exec.  The program gets a process group of its own,
 * /dev/null as stdin, default signals, and no descriptor but the three standard ones.
 *
 * Life:     tool_run does all.
 * Owns:     nothing afterwards; past its time the whole group is killed.
 * Threads:  any.
 * Errors:   ERR_MISSING when there is no such program; ERR_LIMIT for more output than fits into out; ERR_TASK when it does not end in
 *           time, or ends by a signal.  How it exits is for the caller to judge.
 */
#ifndef WEIR_ORCHESTRATOR_TOOL_H
#define WEIR_ORCHESTRATOR_TOOL_H

#include "base/str.h"

struct tool {
    const char *const *argv; /* argv[0] is looked for in PATH unless it holds a slash */
    const char *dir;         /* working directory; NULL: ours */
    int64_t timeout_ms;
    struct buf *out; /* its stdout; NULL: goes where stderr goes */
};
struct tool_end {
    int status;     /* exit status */
    char said[400]; /* the last lines of stderr, without control characters */
};
MUST_USE enum err_code tool_run(const struct tool *t, struct tool_end *end, struct err *err);

#endif
