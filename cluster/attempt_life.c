#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "base/os.h"
#include "cluster/attempt.h"
#include "cluster/executor.h"

#define LOCK_TRIES_MAX 100 /* 10 ms apart: who only looks holds it for microseconds */

enum err_code attempt_lock(int dir, struct err *err)
{
    const struct timespec pause = {.tv_nsec = 10000000};
    int sys = 0;

    for (int i = 0; i < LOCK_TRIES_MAX; i++) {
        if (fault_hit(&sys))
            return err_sys(err, sys, "lock the task directory");
        if (flock(dir, LOCK_EX | LOCK_NB) == 0)
            return OK;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return err_sys(err, errno, "lock the task directory");
        (void)nanosleep(&pause, NULL);
    }
    return err_set(err, ERR_AGAIN, "another weir-exec is at work in this task directory");
}

enum err_code attempt_note_pid(int dir, pid_t program, struct err *err)
{
    char text[96];

    (void)snprintf(text, sizeof(text), "{\"supervisor\":%ld,\"program\":%ld}\n", (long)getpid(),
                   (long)program);
    return card_put_file(dir, ATTEMPT_PID, text, strlen(text), 0644, err);
}

static enum err_code has_result(int dir, bool *has, struct err *err)
{
    struct stat st;
    enum err_code rc = os_stat_at(dir, CARD_RESULT, &st, err);

    *has = rc == OK;
    if (rc != ERR_NOT_FOUND)
        return rc;
    *err = (struct err)ERR_INIT;
    return OK;
}

/* Is the lock held?  Looked at before result.json: who writes that holds the lock until it is there. */
static enum err_code is_held(int dir, bool *held, struct err *err)
{
    *held = false;
    if (flock(dir, LOCK_SH | LOCK_NB) == 0)
        return OK; /* given back when dir is closed */
    *held = errno == EWOULDBLOCK;
    return *held ? OK : err_sys(err, errno, "look at the lock of the task directory");
}

enum err_code attempt_life(const char *task_dir, enum attempt_life *out, struct err *err)
{
    bool held = false, has = false;
    int dir = -1;
    enum err_code rc = os_open_dir(AT_FDCWD, task_dir, &dir, err);

    *out = ATTEMPT_GONE;
    if (rc == ERR_NOT_FOUND) {
        *err = (struct err)ERR_INIT;
        return OK;
    }
    if (!rc)
        rc = is_held(dir, &held, err);
    if (!rc)
        rc = has_result(dir, &has, err);
    os_close_quiet(&dir);
    if (!rc && has)
        *out = ATTEMPT_OVER;
    else if (!rc && held)
        *out = ATTEMPT_ALIVE;
    return rc;
}

pid_t attempt_supervisor(const char *task_dir)
{
    struct err err = ERR_INIT;
    int64_t pid = 0;
    bool held = false;
    struct buf text;
    json_t *v = NULL;
    int dir = -1;

    buf_init(&text, 1024);
    if (!os_open_dir(AT_FDCWD, task_dir, &dir, &err) && !is_held(dir, &held, &err) && held &&
        !os_read_file(dir, ATTEMPT_PID, 1000, &text, &err) &&
        !json_parse(text.p ? text.p : "", text.n, 1000, ATTEMPT_PID, &v, &err) &&
        json_get_i64(v, "supervisor", 2, INT32_MAX, ATTEMPT_PID, &pid, &err))
        pid = 0;
    json_decref(v);
    buf_release(&text);
    os_close_quiet(&dir);
    return (pid_t)pid;
}
