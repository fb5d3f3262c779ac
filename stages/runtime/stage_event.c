/* Events: one JSON object a line, each with one write, so that lines of a program that dies are whole or absent. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/os.h"
#include "stages/runtime/stage_internal.h"

#define PROGRESS_EVERY_NS 250000000

static void emit(struct stage_task *t, json_t *event)
{
    struct buf line;
    struct err err = ERR_INIT;

    CHECK(event);
    buf_init(&line, STAGE_EVENT_MAX);
    if (json_canonical(event, &line, &err) == OK) {
        buf_char(&line, '\n');
        if (buf_check(&line, "event", &err) == OK && os_write(t->event_fd, line.p, line.n, &err)) {
            log_line(LOG_WARN, "events: %s; no more are written", err.text);
            t->event_fd = -1;
        }
    }
    if (err.code && t->event_fd >= 0)
        log_line(LOG_WARN, "event dropped: %s", err.text);
    buf_release(&line);
    json_decref(event);
}

void stage_progress(struct stage_task *t, int64_t done, int64_t total, const char *unit,
                    const char *note)
{
    const int64_t now = os_monotonic_ns();

    if (t->event_fd < 0 || (done != total && t->told_ns && now - t->told_ns < PROGRESS_EVERY_NS))
        return;
    t->told_ns = now;
    emit(t, json_pack("{s:s,s:I,s:I,s:s,s:s*}", "event", "progress", "done", (json_int_t)done,
                      "total", (json_int_t)total, "unit", unit, "note", note));
}

void stage_metric(struct stage_task *t, int64_t step, const struct stage_value *v, size_t count)
{
    json_t *values;

    if (t->event_fd < 0)
        return;
    values = json_object();
    for (size_t i = 0; i < count; i++)
        CHECK(json_object_set_new(values, v[i].name,
                                  isfinite(v[i].value) ? json_real(v[i].value) : json_null()) == 0);
    emit(t,
         json_pack("{s:s,s:I,s:o}", "event", "metric", "step", (json_int_t)step, "values", values));
}

void stage_image(struct stage_task *t, int64_t step, const char *path, const char *caption)
{
    if (t->event_fd < 0)
        return;
    emit(t, json_pack("{s:s,s:I,s:s,s:s*}", "event", "image", "step", (json_int_t)step, "path",
                      path, "caption", caption));
}

void stage_event_checkpoint(struct stage_task *t, int64_t step, const char *path)
{
    if (t->event_fd < 0)
        return;
    emit(t,
         json_pack("{s:s,s:I,s:s}", "event", "checkpoint", "step", (json_int_t)step, "path", path));
}
