/* Checkpoints: a reader sees a whole one or none, whenever the program is killed. */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "stages/runtime/stage_internal.h"

#define DEPTH_MAX 32

static const char *aside(struct stage_task *t, int64_t step)
{
    return arena_printf(&t->arena, "%s/.step-%lld.part", t->checkpoints, (long long)step);
}

enum err_code stage_checkpoint_begin(struct stage_task *t, int64_t step, const char **dir,
                                     struct err *err)
{
    enum err_code rc;

    *dir = NULL;
    if (!t->checkpoints)
        return OK;
    rc = os_mkdirs(t->checkpoints, 0755, err);
    if (!rc)
        rc = os_remove_tree(AT_FDCWD, aside(t, step), err); /* of an attempt that died writing it */
    if (!rc)
        rc = os_mkdir(AT_FDCWD, aside(t, step), 0755, err);
    if (!rc)
        *dir = aside(t, step);
    return rc;
}

/* Every file, then every directory above it. */
static enum err_code sync_tree(int parent, const char *name, int depth, struct err *err)
{
    struct os_entry *list = NULL;
    size_t count = 0;
    int fd = -1;
    enum err_code rc;

    if (depth > DEPTH_MAX)
        return err_set(err, ERR_LIMIT, "%s: checkpoint deeper than %d directories", name,
                       DEPTH_MAX);
    rc = os_open_dir(parent, name, &fd, err);
    if (!rc)
        rc = os_list(fd, &list, &count, err);
    for (size_t i = 0; !rc && i < count; i++) {
        int file = -1;

        if (list[i].type == DT_DIR) {
            rc = sync_tree(fd, list[i].name, depth + 1, err);
            continue;
        }
        rc = os_open(fd, list[i].name, O_RDONLY | O_NOFOLLOW, 0, &file, err);
        if (!rc)
            rc = os_fsync(file, err);
        os_close_quiet(&file);
    }
    if (!rc)
        rc = os_fsync(fd, err);
    os_close_quiet(&fd);
    free(list);
    return rc;
}

enum err_code stage_checkpoint_commit(struct stage_task *t, int64_t step, struct err *err)
{
    const char *last;
    int fd = -1;
    enum err_code rc;

    CHECK(t->checkpoints);
    last = arena_printf(&t->arena, "%s/step-%lld", t->checkpoints, (long long)step);
    rc = sync_tree(AT_FDCWD, aside(t, step), 0, err);
    /* The same step again (resumed, then written once more) replaces the old one; its bytes are equal by contract. */
    if (!rc)
        rc = os_remove_tree(AT_FDCWD, last, err);
    if (!rc)
        rc = os_rename(AT_FDCWD, aside(t, step), AT_FDCWD, last, err);
    if (!rc)
        rc = os_open_dir(AT_FDCWD, t->checkpoints, &fd, err);
    if (!rc)
        rc = os_fsync(fd, err);
    os_close_quiet(&fd);
    if (!rc)
        stage_event_checkpoint(t, step, last);
    return rc;
}
