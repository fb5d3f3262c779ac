#include "cluster/runlog.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"

void runlog_init(struct runlog *l, int task_dir, int64_t max)
{
    CHECK(max >= 2);
    *l = (struct runlog){.dir = task_dir, .fd = -1, .head_max = max / 2, .tail_max = max - max / 2};
}

enum err_code runlog_make(struct runlog *l, struct err *err)
{
    return l->fd >= 0 ? OK
                      : os_open(l->dir, RUNLOG, O_WRONLY | O_CREAT | O_TRUNC, 0644, &l->fd, err);
}

static void to_tail(struct runlog *l, const char *p, size_t n)
{
    const size_t size = (size_t)l->tail_max;

    if (!l->tail)
        l->tail = mem_alloc(size);
    while (n > 0) {
        const size_t at = (size_t)(l->in_tail % l->tail_max);
        const size_t part = n < size - at ? n : size - at;

        memcpy(l->tail + at, p, part);
        l->in_tail += (int64_t)part;
        p += part;
        n -= part;
    }
}

enum err_code runlog_add(struct runlog *l, const char *p, size_t n, struct err *err)
{
    const int64_t room = l->head_max - l->seen;
    const size_t head = room <= 0 ? 0 : room < (int64_t)n ? (size_t)room : n;

    l->seen += (int64_t)n;
    if (head < n)
        to_tail(l, p + head, n - head);
    if (head) {
        const enum err_code rc = runlog_make(l, err);

        return rc ? rc : os_write(l->fd, p, head, err);
    }
    return OK;
}

enum err_code runlog_note(struct runlog *l, struct err *err, const char *fmt, ...)
{
    char text[ERR_TEXT_MAX + 128];
    size_t n = (size_t)snprintf(text, sizeof(text), "[weir: ");
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text + n, sizeof(text) - n - 2, fmt, ap);
    va_end(ap);
    n = strlen(text);
    memcpy(text + n, "]\n", 3); /* with its NUL, for which there is room */
    return runlog_add(l, text, n + 2, err);
}

enum err_code runlog_finish(struct runlog *l, struct err *err)
{
    const int64_t lost = l->in_tail - l->tail_max;
    const int64_t at = l->in_tail % (l->tail_max ? l->tail_max : 1);
    char note[128];
    enum err_code rc;

    if (!l->tail)
        return OK;
    if (lost <= 0)
        return os_write(l->fd, l->tail, (size_t)l->in_tail, err);
    (void)snprintf(note, sizeof(note), "\n[weir: %lld bytes of log left out here]\n",
                   (long long)lost);
    rc = os_write(l->fd, note, strlen(note), err);
    if (!rc)
        rc = os_write(l->fd, l->tail + at, (size_t)(l->tail_max - at), err);
    if (!rc)
        rc = os_write(l->fd, l->tail, (size_t)at, err);
    return rc;
}

void runlog_release(struct runlog *l)
{
    free(l->tail);
    l->tail = NULL;
    os_close_quiet(&l->fd);
}
