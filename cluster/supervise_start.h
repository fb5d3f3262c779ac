/* supervise_start.h - from a command line to a running child.
 *
 * Life:     one call.
 * Owns:     out and events are the caller's: what the child writes, non-blocking.
 * Threads:  one.
 * Errors:   ERR_IO, when there is no child.  An exec that failed is *start_errno.
 */
#ifndef WEIR_CLUSTER_SUPERVISE_START_H
#define WEIR_CLUSTER_SUPERVISE_START_H

#include "cluster/supervise.h"

struct child {
    pid_t pid;
    int out, events;
    int start_errno;
};
MUST_USE enum err_code supervise_start(const struct supervise_options *o, struct child *out,
                                       struct err *err);

#endif
