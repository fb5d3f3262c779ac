/* attempt_rig.h - tests of attempts: a store, task directories with a shell command in them, and weir-exec to run them.
 *
 * Life:     rig_new -> rig_task -> rig_run or an executor of one's own -> rig_free.
 * Owns:     a temporary folder with store and task directories.
 * Threads:  one.
 * Errors:   through EXPECT.
 */
#ifndef WEIR_TESTS_ATTEMPT_RIG_H
#define WEIR_TESTS_ATTEMPT_RIG_H

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "cluster/attempt.h"
#include "cluster/executor.h"
#include "store/action.h"
#include "store/store.h"
#include "tests/check.h"

struct rig {
    char dir[TMPDIR_MAX], store[TMPDIR_MAX + 16], exec[PATH_MAX];
    int tasks;
};
#define RIG_PATH (TMPDIR_MAX + 64)

static inline void rig_new(struct rig *r)
{
    const char *build = getenv("WEIR_BUILD");
    struct err err = ERR_INIT;
    char *real;

    *r = (struct rig){0};
    assert_non_null(build);
    tmpdir_new(r->dir);
    real = realpath(r->dir, NULL);
    assert_non_null(real);
    (void)snprintf(r->dir, sizeof(r->dir), "%s", real);
    free(real);
    (void)snprintf(r->exec, sizeof(r->exec), "%s/libexec/weir/weir-exec", build);
    (void)snprintf(r->store, sizeof(r->store), "%s/.weir", r->dir);
    EXPECT_OK(store_init(r->dir, NULL, &err), &err);
}

static inline void rig_free(struct rig *r)
{
    tmpdir_free(r->dir);
}

/* A task directory whose only output is o.  extra: more members of the card, borrowed; NULL: none. */
static inline void rig_task_at(struct rig *r, const char *shell, json_t *extra, const char *path)
{
    struct digest key;
    char text[DIGEST_TEXT + 1];
    struct err err = ERR_INIT;
    struct buf out;
    json_t *action, *card;
    int dir = -1;

    action = json_pack("{s:s, s:{s:s}, s:i}", "weir", "action/1", "program", "shell", shell, "n",
                       ++r->tasks);
    buf_init(&out, CARD_BYTES_MAX);
    EXPECT_OK(action_key(action, &key, &out, &err), &err);
    digest_text(&key, text);
    card = json_pack("{s:s, s:s, s:s, s:s, s:o, s:s, s:[], s:[], s:[s], s:{}, s:{}, s:s, s:i, s:i, "
                     "s:i, s:i, s:i, s:i, s:i, s:i}",
                     "weir", "attempt/1", "store", r->store, "task", "t", "key", text, "action",
                     action, "shell", shell, "code", "inputs", "outputs", "o", "params", "env",
                     "device", "cpu", "cpus", 1, "gpus", 0, "ranks", 1, "memory_bytes", 0, "time_s",
                     0, "timeout_s", 0, "grace_s", 1, "checkpoint_every_s", 60);
    assert_non_null(card);
    if (extra)
        json_object_update(card, extra);
    buf_clear(&out);
    EXPECT_OK(json_canonical(card, &out, &err), &err);
    EXPECT_OK(os_mkdirs(path, 0755, &err), &err);
    EXPECT_OK(os_open_dir(AT_FDCWD, path, &dir, &err), &err);
    EXPECT_OK(os_write_file(dir, CARD_ATTEMPT, out.p, out.n, 0600, &err), &err);
    os_close_quiet(&dir);
    buf_release(&out);
    json_decref(card);
}

static inline void rig_task(struct rig *r, const char *shell, json_t *extra, char path[RIG_PATH])
{
    (void)snprintf(path, RIG_PATH, "%s/task-%d", r->dir, r->tasks + 1);
    rig_task_at(r, shell, extra, path);
}

static inline struct executor *rig_executor(struct rig *r, int slots)
{
    const struct executor_local_options o = {
        .exec_path = r->exec, .store = r->store, .slots = slots};
    struct executor *e = NULL;
    struct err err = ERR_INIT;

    EXPECT_OK(executor_local(&o, &e, &err), &err);
    return e;
}

/* The next event, whatever it is; there must be one. */
static inline void rig_next(struct executor *e, struct executor_event *out)
{
    struct err err = ERR_INIT;
    bool got = false;

    EXPECT_OK(e->ops->poll(e, 60000, -1, out, &got, &err), &err);
    EXPECT(got);
}

/* The end of the only attempt there is: EXEC_ENDED or EXEC_LOST. */
static inline void rig_end(struct executor *e, struct executor_event *out)
{
    do
        rig_next(e, out);
    while (out->kind == EXEC_STARTED);
}

/* Runs one; the card is the caller's. */
static inline void rig_run(struct rig *r, const char *shell, json_t *extra,
                           struct executor_event *out, char path[RIG_PATH])
{
    struct executor *e = rig_executor(r, 1);
    struct err err = ERR_INIT;

    rig_task(r, shell, extra, path);
    json_decref(extra);
    EXPECT_OK(e->ops->start(e, 7, path, &err), &err);
    rig_end(e, out);
    EXPECT_EQ(out->id, 7);
    e->ops->close(e);
}

/* Waits for a file: a step of a program that is under way. */
static inline void rig_wait_file(const char *dir, const char *name)
{
    char path[RIG_PATH + 64];

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    for (int i = 0; access(path, F_OK) != 0; i++) {
        EXPECT(i < 60000);
        (void)usleep(1000);
    }
}

#endif
