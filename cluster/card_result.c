/* The result card. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "cluster/card.h"

const char *const attempt_status_words[ATTEMPT_STATUS_COUNT] = {"done", "failed", "stopped",
                                                                "lost"};

/* A program's words may be anything. */
static json_t *plain_text(const char *text)
{
    json_t *v = json_string(text);
    char *copy;

    if (v)
        return v;
    copy = mem_strdup(text);
    for (char *p = copy; *p; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    v = json_string(copy);
    free(copy);
    CHECK(v);
    return v;
}

static json_t *images_json(const struct result_card *c)
{
    json_t *list = json_array();

    for (size_t i = 0; i < c->image_count; i++) {
        const struct card_image *m = &c->images[i];
        const struct card_object o = {.kind = OBJ_BLOB, .digest = m->digest, .size = m->size};
        json_t *v = card_object_json(&o);

        json_object_set_new(v, "step", json_integer(m->step));
        json_object_set_new(v, "caption", plain_text(m->caption));
        json_array_append_new(list, v);
    }
    return list;
}

json_t *result_card_json(const struct result_card *c)
{
    char text[DIGEST_TEXT + 1];
    json_t *outputs = json_object(), *root;

    for (size_t i = 0; i < c->output_count; i++)
        json_object_set_new(outputs, c->outputs[i].name, card_object_json(&c->outputs[i]));
    root = json_pack("{s:s, s:s, s:i, s:i, s:i, s:o, s:s, s:o, s:I, s:I, s:I}", "weir", "result/1",
                     "status", attempt_status_words[c->status], "exit", c->exit_status, "signal",
                     c->signal, "strays", c->strays, "reason", plain_text(c->reason), "error",
                     c->error ? c->error : "", "outputs", outputs, "log_bytes",
                     (json_int_t)c->log_bytes, "wall_ms", (json_int_t)c->wall_ms, "step",
                     (json_int_t)c->step);
    CHECK(root);
    digest_text(&c->result, text);
    if (c->status == ATTEMPT_DONE)
        json_object_set_new(root, "result", json_string(text));
    if (c->log.kind)
        json_object_set_new(root, "log", card_object_json(&c->log));
    if (c->events.kind)
        json_object_set_new(root, "events", card_object_json(&c->events));
    if (c->image_count)
        json_object_set_new(root, "images", images_json(c));
    return root;
}

enum err_code card_put_file(int dir, const char *name, const void *p, size_t n, mode_t mode,
                            struct err *err)
{
    struct err ignored = ERR_INIT;
    char aside[64];
    enum err_code rc;
    int fd = -1;

    CHECK(strlen(name) < 32);
    (void)snprintf(aside, sizeof(aside), "%s.tmp.%ld", name, (long)getpid());
    rc = os_open(dir, aside, O_WRONLY | O_CREAT | O_TRUNC, mode, &fd, err);
    if (rc)
        return rc;
    rc = os_write(fd, p, n, err);
    if (rc)
        os_close_quiet(&fd);
    else
        rc = os_close(&fd, err);
    if (!rc)
        rc = os_rename(dir, aside, dir, name, err);
    if (rc)
        (void)!os_unlink(dir, aside, &ignored);
    return rc;
}

/* Not by O_TRUNC: a file that was emptied is written out when it is closed, on some file systems, and its inode is what is worth keeping. */
enum err_code card_overwrite(int dir, const char *name, const void *p, size_t n, mode_t mode,
                             struct err *err)
{
    struct stat st;
    int fd = -1;
    enum err_code rc =
        os_open(dir, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK, mode, &fd, err);

    if (rc)
        return rc;
    rc = os_write(fd, p, n, err);
    if (!rc)
        rc = os_stat(fd, &st, err);
    if (!rc && st.st_size > (off_t)n)
        rc = os_truncate(fd, (int64_t)n, err);
    if (rc)
        os_close_quiet(&fd);
    else
        rc = os_close(&fd, err);
    return rc;
}

enum err_code result_card_write(int dir, const struct result_card *c, struct err *err)
{
    json_t *root = result_card_json(c);
    struct buf out = {0};
    enum err_code rc;

    buf_init(&out, CARD_BYTES_MAX);
    rc = json_canonical(root, &out, err);
    buf_char(&out, '\n');
    if (!rc)
        rc = buf_check(&out, CARD_RESULT, err);
    if (!rc)
        rc = card_put_file(dir, CARD_RESULT, out.p, out.n, 0644, err);
    buf_release(&out);
    json_decref(root);
    return rc;
}

static enum err_code read_outputs(struct result_card *c, struct err *err)
{
    json_t *outputs = json_object_get(c->root, "outputs"), *value;
    const char *name;
    enum err_code rc = OK;

    if (!json_is_object(outputs))
        return err_set(err, ERR_INPUT, "result.json: 'outputs' must be an object");
    c->outputs = mem_zero(json_object_size(outputs) + 1, sizeof(*c->outputs));
    json_object_foreach(outputs, name, value)
    {
        if (!rc)
            rc = card_object_of(value, NULL, CARD_RESULT, &c->outputs[c->output_count], err);
        c->outputs[c->output_count++].name = name;
    }
    return rc;
}

static enum err_code read_images(struct result_card *c, struct err *err)
{
    const json_t *list = json_object_get(c->root, "images");
    const size_t n = json_array_size(list);
    enum err_code rc = OK;

    c->images = mem_zero(n + 1, sizeof(*c->images));
    for (size_t i = 0; !rc && i < n; i++) {
        const json_t *v = json_array_get(list, i);
        struct card_image *m = &c->images[c->image_count++];
        struct card_object o;

        rc = card_object_of(v, "caption", CARD_RESULT, &o, err);
        if (!rc)
            rc = json_get_i64(v, "step", INT64_MIN, INT64_MAX, CARD_RESULT, &m->step, err);
        if (rc)
            break;
        m->caption = o.name;
        m->digest = o.digest;
        m->size = o.size;
    }
    return rc;
}

static enum err_code read_parts(struct result_card *c, struct err *err)
{
    const json_t *log = json_object_get(c->root, "log"),
                 *events = json_object_get(c->root, "events");
    enum err_code rc = read_outputs(c, err);

    if (!rc)
        rc = read_images(c, err);
    if (!rc && log)
        rc = card_object_of(log, NULL, CARD_RESULT, &c->log, err);
    if (!rc && events)
        rc = card_object_of(events, NULL, CARD_RESULT, &c->events, err);
    return rc;
}

static enum err_code read_status(struct result_card *c, struct err *err)
{
    const char *status, *reason, *result;
    enum err_code rc = json_get_string(c->root, "status", CARD_RESULT, &status, err);

    if (!rc)
        rc = json_get_string(c->root, "reason", CARD_RESULT, &reason, err);
    if (rc)
        return rc;
    (void)snprintf(c->reason, sizeof(c->reason), "%s", reason);
    for (int i = 0; i < ATTEMPT_STATUS_COUNT; i++)
        if (strcmp(status, attempt_status_words[i]) == 0)
            c->status = (enum attempt_status)i;
    if (c->status == ATTEMPT_STATUS_COUNT)
        return err_set(err, ERR_INPUT, "result.json: unknown status '%.100s'", status);
    if (c->status != ATTEMPT_DONE)
        return OK;
    rc = json_get_string(c->root, "result", CARD_RESULT, &result, err);
    return rc ? rc : digest_parse(result, strlen(result), &c->result, err);
}

enum err_code result_card_of(json_t *root, struct result_card *out, struct err *err)
{
    struct result_card c = {.status = ATTEMPT_STATUS_COUNT, .root = root, .step = -1, .error = ""};
    const json_t *step = json_object_get(root, "step");
    enum err_code rc = read_status(&c, err);

    if (!rc)
        rc = read_parts(&c, err);
    if (!rc && step)
        rc = json_get_i64(root, "step", -1, INT64_MAX, CARD_RESULT, &c.step, err);
    if (rc) {
        result_card_release(&c);
        *out = c;
        return rc;
    }
    if (json_is_string(json_object_get(root, "error")))
        c.error = json_string_value(json_object_get(root, "error"));
    c.exit_status = (int)json_integer_value(json_object_get(root, "exit"));
    c.signal = (int)json_integer_value(json_object_get(root, "signal"));
    c.strays = (int)json_integer_value(json_object_get(root, "strays"));
    c.log_bytes = json_integer_value(json_object_get(root, "log_bytes"));
    c.wall_ms = json_integer_value(json_object_get(root, "wall_ms"));
    *out = c;
    return OK;
}

enum err_code result_card_read(int dir, struct result_card *out, struct err *err)
{
    json_t *root = NULL;
    enum err_code rc = card_load(dir, CARD_RESULT, "result/1", &root, err);

    *out = (struct result_card){0};
    if (!rc)
        return result_card_of(root, out, err);
    json_decref(root);
    return rc;
}

void result_card_release(struct result_card *c)
{
    free(c->outputs);
    free(c->images);
    json_decref(c->root);
    *c = (struct result_card){0};
}
