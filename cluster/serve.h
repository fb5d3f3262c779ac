/* serve.h - a resident weir-exec: many attempts, one after the other, by one process that keeps the store open.
 *
 *   in    one line each:   /abs/task/dir        attempt it, after those that came before
 *                          again /abs/task/dir  the same in a folder that was "spare" (below): without links in its path, renamed since, with
 *                                               another card
 *                          stop /abs/task/dir   SIGTERM to its program, SIGKILL after the card's grace time
 *                          kill /abs/task/dir   SIGKILL at once
 *                          exits                from now on tell when a program has ended, and wait SERVE_NEXT_NS for the next request
 *                                               before committing: results of many short attempts share a commit
 *                          commit               nothing else is to come soon: do not wait for it
 *   out   one line of JSON each:
 *         {"event":"started","dir":"..","pid":1}        not of a short attempt that has ended before it was told
 *         {"event":"exited","dir":".."}                 the program has ended; its result is not durable yet
 *         {"event":"ended","dir":"..","result":{..}}    the result card; result.json is there, unless the program removed its folder or all
 *                                                       of it is in the store (attempt_hand_over); "spare":true, too, when the folder
 *                                                       can be used again
 *         {"event":"lost","dir":"..","reason":".."}     there is no result card, and there will be none
 *
 * The end of `in`: what has begun is finished, results are committed and result.json is written; folders that wait are left alone.
 * SIGTERM or SIGINT: the running program is asked to stop, then the same.  SIGQUIT: it is killed, then the same.
 * Nobody at the other end of `out` changes nothing: result.json says it all, or the store does.
 *
 * Group commit: results of attempts that ended share one commit, at the latest SERVE_COMMIT_NS after the first of them ended, or
 * SERVE_COMMIT_SHARE times as long as the last commit took, on slow disks (SERVE_COMMIT_MAX_NS at most), or at once when nothing waits.
 *
 * Life:     serve is the life of the process.
 * Owns:     signal handling and children of the process.
 * Threads:  one.
 * Errors:   the store cannot be opened; ERR_IO.
 */
#ifndef WEIR_CLUSTER_SERVE_H
#define WEIR_CLUSTER_SERVE_H

#include "base/err.h"

#define SERVE_COMMIT_NS 40000000
#define SERVE_NEXT_NS 10000000
#define SERVE_COMMIT_SHARE 10
#define SERVE_COMMIT_MAX_NS 400000000
#define SERVE_GROUP_MAX 128
#define SERVE_QUEUE_MAX 100000
#define SERVE_LINE_MAX 8192

MUST_USE enum err_code serve(const char *store, int in, int out, struct err *err);

#endif
