/* attempt_internal.h - one attempt, as its parts see it.
 *
 *   attempt.c          life, and what an end means
 *   attempt_prepare.c  folders, inputs, code, task.json, environment
 *   attempt_collect.c  outputs into the store
 *   attempt_life.c     the lock
 *   attempt_spare.c    emptying the folder for the next one
 *
 * Life:     within attempt_begin .. attempt_end.
 * Owns:     as attempt.h.
 * Threads:  one.
 * Errors:   as attempt.h.
 */
#ifndef WEIR_CLUSTER_ATTEMPT_INTERNAL_H
#define WEIR_CLUSTER_ATTEMPT_INTERNAL_H

#include "base/arena.h"
#include "cluster/attempt.h"
#include "cluster/capture.h"
#include "store/writer.h"

struct attempt {
    const char *path; /* absolute task folder, without links */
    int dir;          /* holds the lock */
    struct attempt_card card;
    struct store *store;
    bool own_store;
    struct arena arena;
    const char **envp;
    const char *program; /* argv[0] */
    const char *resume;  /* "resume/step-N" or NULL */
    bool ready;          /* capture and log are set up */
    bool fresh;          /* the folder has never been tried in */
    bool again;          /* it has, and is empty: all folders and task.json are there */
    gid_t group;         /* of the folder, when the attempt began */
    bool linked;         /* some inputs are hard links into the store */
    struct runlog log;
    struct capture capture;
    struct supervise_result ended;
    struct result_card result;
    const struct attempt_control *control;
    pid_t pid;        /* of the program */
    int64_t begun_ns; /* when it was started; 0: the note of its pid is made */
};
void attempt_say(struct attempt *a, enum attempt_status status, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
void attempt_lost(struct attempt *a, const struct err *err);

MUST_USE enum err_code attempt_prepare(struct attempt *a, struct err *err);
/* Leaves the folder as attempt_prepare found it, with task.json and the folders inside; false: it cannot be used again. */
bool attempt_clear(struct attempt *a);
/* Its part of a commit.  On failure nothing of it is bound. */
MUST_USE enum err_code attempt_put(struct attempt *a, struct writer *w, struct err *err);

#endif
