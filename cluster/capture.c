#include "cluster/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "cluster/checkpoint.h"
#include "store/ingest.h"

void capture_init(struct capture *c, struct store *st, const struct attempt_card *card,
                  const char *path, int dir, struct runlog *log)
{
    *c = (struct capture){.store = st,
                          .card = card,
                          .path = path,
                          .dir = dir,
                          .log = log,
                          .events = -1,
                          .step = card->resume_step,
                          .start_ns = os_monotonic_ns()};
}

/* ---- paths ------------------------------------------------------------------------------------- */

/* The real path of what a program named, relative to the task directory.  out: PATH_MAX bytes. */
static bool inside(const struct capture *c, const char *path, char *out, const char **why)
{
    const size_t n = strlen(c->path);
    char full[PATH_MAX];

    for (const char *p = path; *p; p++)
        if (strncmp(p, "..", 2) == 0 && (p == path || p[-1] == '/') &&
            (p[2] == '/' || p[2] == '\0')) {
            *why = "it must not contain '..'";
            return false;
        }
    if (snprintf(full, sizeof(full), "%s%s%s", path[0] == '/' ? "" : c->path,
                 path[0] == '/' ? "" : "/", path) >= (int)sizeof(full) ||
        !realpath(full, out)) {
        *why = "there is no such file or directory in the task directory";
        return false;
    }
    if (strncmp(out, c->path, n) != 0 || out[n] != '/' || out[n + 1] == '\0') {
        *why = "it leads out of the task directory";
        return false;
    }
    memmove(out, out + n + 1, strlen(out + n + 1) + 1);
    return true;
}

/* ---- kinds of events --------------------------------------------------------------------------- */

static enum err_code on_checkpoint(struct capture *c, int64_t step, const char *path,
                                   struct err *err)
{
    struct err failure = ERR_INIT;
    char real[PATH_MAX];
    const char *why = NULL;

    if (!c->card->checkpoint_ref)
        return OK;
    if (!inside(c, path, real, &why))
        return runlog_note(c->log, err, "checkpoint of step %lld at %.300s was not kept: %s",
                           (long long)step, path, why);
    if (checkpoint_take(c->store, c->card->checkpoint_ref, c->card->checkpoint_keep, step, c->dir,
                        real, &failure))
        return runlog_note(c->log, err, "checkpoint of step %lld was not kept: %s", (long long)step,
                           failure.text);
    c->has_taken = true;
    c->step = step > c->step ? step : c->step;
    return OK;
}

static enum err_code copy_image(struct capture *c, const char *from, const char *name,
                                struct err *err)
{
    struct stat st;
    bool cloned = false;
    int in = -1, out = -1;
    enum err_code rc = os_open(c->dir, from, O_RDONLY | O_NONBLOCK, 0, &in, err);

    if (!rc)
        rc = os_stat(in, &st, err);
    if (!rc && !S_ISREG(st.st_mode))
        rc = err_set(err, ERR_INPUT, "it is no regular file");
    if (!rc && st.st_size > CAPTURE_IMAGE_BYTES_MAX)
        rc = err_set(err, ERR_LIMIT, "it has %lld bytes, at most %lld are kept",
                     (long long)st.st_size, (long long)CAPTURE_IMAGE_BYTES_MAX);
    if (!rc)
        rc = os_mkdir(c->dir, "images", 0755, err);
    if (!rc)
        rc = os_open(c->dir, name, O_WRONLY | O_CREAT | O_TRUNC, 0644, &out, err);
    if (!rc)
        rc = os_clone(in, out, &cloned, err);
    if (!rc && !cloned)
        rc = os_copy(in, 0, out, 0, st.st_size, err);
    os_close_quiet(&in);
    os_close_quiet(&out);
    return rc;
}

static enum err_code on_image(struct capture *c, int64_t step, const char *path,
                              const char *caption, struct err *err)
{
    struct err failure = ERR_INIT;
    char real[PATH_MAX], name[64];
    const char *why = NULL;

    if (c->image_count >= CAPTURE_IMAGES_MAX) {
        why = "it is one too many";
    } else if (inside(c, path, real, &why)) {
        (void)snprintf(name, sizeof(name), "images/%06zu", c->image_count);
        if (copy_image(c, real, name, &failure))
            why = failure.text;
    }
    if (why)
        return runlog_note(c->log, err, "image %.300s of step %lld was not kept: %.300s", path,
                           (long long)step, why);
    if ((c->image_count & (c->image_count + 1)) == 0) { /* 0, 1, 3, 7, ..: double */
        const size_t cap = 2 * (c->image_count + 1);

        c->images = mem_grow(c->images, cap, sizeof(*c->images));
        c->image_names = mem_grow(c->image_names, cap, sizeof(*c->image_names));
    }
    c->images[c->image_count] = (struct card_image){.step = step, .caption = mem_strdup(caption)};
    c->image_names[c->image_count++] = mem_strdup(name);
    return OK;
}

/* ---- lines ------------------------------------------------------------------------------------- */

enum event_kind { EVENT_NONE, EVENT_PROGRESS, EVENT_METRIC, EVENT_CHECKPOINT, EVENT_IMAGE };

static bool is_step(const json_t *v)
{
    return json_is_integer(v) && json_integer_value(v) >= 0 &&
           json_integer_value(v) <= CAPTURE_STEP_MAX;
}

static bool is_metric(json_t *values)
{
    const char *name;
    json_t *v;

    if (!json_is_object(values))
        return false;
    json_object_foreach(values, name, v) if (!json_is_number(v) && !json_is_null(v)) return false;
    return true;
}

/* A JSON object with the fields of its kind, and none of the names that we add. */
static enum event_kind kind_of(const json_t *v)
{
    const char *event = json_string_value(json_object_get(v, "event"));
    const json_t *path = json_object_get(v, "path"), *step = json_object_get(v, "step"),
                 *caption = json_object_get(v, "caption");

    if (!event || json_object_get(v, "t_ms") || json_object_get(v, "time_ms"))
        return EVENT_NONE;
    if (strcmp(event, "progress") == 0)
        return json_is_number(json_object_get(v, "done")) ? EVENT_PROGRESS : EVENT_NONE;
    if (strcmp(event, "metric") == 0)
        return is_step(step) && is_metric(json_object_get(v, "values")) ? EVENT_METRIC : EVENT_NONE;
    if (!is_step(step) || !json_is_string(path))
        return EVENT_NONE;
    if (strcmp(event, "checkpoint") == 0)
        return EVENT_CHECKPOINT;
    return strcmp(event, "image") == 0 && (!caption || json_is_string(caption)) ? EVENT_IMAGE
                                                                                : EVENT_NONE;
}

static enum err_code write_event(struct capture *c, const char *line, size_t n, struct err *err)
{
    struct buf text;
    enum err_code rc = OK;

    buf_init(&text, n + 128);
    buf_printf(&text, "{\"t_ms\":%lld,\"time_ms\":%lld,",
               (long long)((os_monotonic_ns() - c->start_ns) / 1000000),
               (long long)(os_now_ns() / 1000000));
    buf_add(&text, line + 1, n - 1);
    buf_char(&text, '\n');
    if (c->events < 0)
        rc = os_open(c->dir, CAPTURE_EVENTS, O_WRONLY | O_CREAT | O_TRUNC, 0644, &c->events, err);
    if (!rc)
        rc = buf_check(&text, CAPTURE_EVENTS, err);
    if (!rc)
        rc = os_write(c->events, text.p, text.n, err);
    c->events_bytes += (int64_t)text.n;
    buf_release(&text);
    return rc;
}

enum err_code capture_event(struct capture *c, const char *line, size_t n, bool *taken,
                            struct err *err)
{
    struct err ignored = ERR_INIT;
    const char *path, *caption;
    json_t *v = NULL;
    enum event_kind kind;
    enum err_code rc;
    int64_t step;

    *taken = false;
    if (n < 2 || line[0] != '{' || json_parse(line, n, n, "event", &v, &ignored))
        return OK;
    kind = kind_of(v);
    *taken = kind != EVENT_NONE && c->events_bytes < CAPTURE_EVENTS_MAX;
    step = json_integer_value(json_object_get(v, "step"));
    path = json_string_value(json_object_get(v, "path"));
    caption = json_string_value(json_object_get(v, "caption"));
    rc = *taken ? write_event(c, line, n, err) : OK;
    if (!rc && kind == EVENT_CHECKPOINT)
        rc = on_checkpoint(c, step, path, err);
    else if (!rc && kind == EVENT_IMAGE)
        rc = on_image(c, step, path, caption ? caption : "", err);
    json_decref(v);
    return rc;
}

/* ---- the end ----------------------------------------------------------------------------------- */

static enum err_code put_blob(struct capture *c, struct writer *w, const char *name,
                              struct card_object *out, struct err *err)
{
    const struct ingest_options copy = {.how = INGEST_COPY, .no_memo = true};
    struct ingest_result got;
    struct stat st;
    enum err_code rc = os_stat_at(c->dir, name, &st, err);

    *out = (struct card_object){0};
    if (rc == ERR_NOT_FOUND || (!rc && st.st_size == 0)) /* the program may have deleted it */
        return OK;
    if (!rc && !S_ISREG(st.st_mode))
        return err_set(err, ERR_INPUT, "%s is no file any more", name);
    if (!rc)
        rc = ingest_path(w, c->dir, name, &copy, &got, err);
    if (rc)
        return rc;
    writer_touch(w, OBJ_BLOB, &got.digest);
    *out = (struct card_object){.kind = OBJ_BLOB, .digest = got.digest, .size = got.size};
    return OK;
}

enum err_code capture_put(struct capture *c, struct writer *w, struct result_card *r,
                          struct err *err)
{
    enum err_code rc = OK;

    r->step = c->step;
    r->log = r->events = (struct card_object){0};
    r->image_count = 0;
    if (c->log->seen > 0)
        rc = put_blob(c, w, RUNLOG, &r->log, err);
    if (!rc && c->events >= 0)
        rc = put_blob(c, w, CAPTURE_EVENTS, &r->events, err);
    for (size_t i = 0; !rc && i < c->image_count; i++) {
        struct card_object o;

        rc = put_blob(c, w, c->image_names[i], &o, err);
        c->images[i].digest = o.digest;
        c->images[i].size = o.size;
    }
    if (rc)
        return rc;
    r->images = c->images;
    r->image_count = c->image_count;
    return OK;
}

void capture_release(struct capture *c)
{
    for (size_t i = 0; i < c->image_count; i++) {
        free((char *)(uintptr_t)c->images[i].caption);
        free(c->image_names[i]);
    }
    free(c->images);
    free(c->image_names);
    os_close_quiet(&c->events);
    *c = (struct capture){.events = -1};
}
