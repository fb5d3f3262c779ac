#include "cluster/fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

#define NOBODY SIZE_MAX

struct fake_attempt { /* in the world */
    char *dir;
    struct fake_script script;
    int64_t begins_ms, ends_ms; /* of its program */
    enum attempt_status end;
    int64_t step;
    bool asked;
};
struct watch { /* one attempt, as an executor sees it */
    uint64_t id;
    size_t attempt; /* NOBODY: it was never started */
    bool started;   /* heard of its start */
    int to_hear;    /* how often its end is still to be told */
};
struct fake_world {
    fake_script_fn script;
    void *arg;
    struct fake_attempt *attempts;
    size_t count;
    int64_t now_ms;
};
struct fake {
    struct executor base;
    struct fake_world *world;
    struct watch *watches;
    size_t count;
};

/* ---- the world --------------------------------------------------------------------------------- */

struct fake_world *fake_world_new(fake_script_fn script, void *arg)
{
    struct fake_world *w = mem_zero(1, sizeof(*w));

    w->script = script;
    w->arg = arg;
    return w;
}

void fake_world_free(struct fake_world *w)
{
    if (!w)
        return;
    for (size_t i = 0; i < w->count; i++)
        free(w->attempts[i].dir);
    free(w->attempts);
    free(w);
}

int64_t fake_now_ms(const struct fake_world *w)
{
    return w->now_ms;
}

void fake_pass(struct fake_world *w, int64_t ms)
{
    CHECK(ms >= 0);
    w->now_ms += ms;
}

static struct fake_attempt *find(const struct fake_world *w, const char *dir)
{
    for (size_t i = w->count; i-- > 0;) /* the newest are asked for most */
        if (strcmp(w->attempts[i].dir, dir) == 0)
            return &w->attempts[i];
    return NULL;
}

bool fake_look(const struct fake_world *w, const char *task_dir, struct fake_look *out)
{
    const struct fake_attempt *a = find(w, task_dir);

    *out = (struct fake_look){.begun = false};
    if (!a)
        return false;
    out->begun = a->begins_ms <= w->now_ms;
    out->over = a->ends_ms <= w->now_ms;
    out->asked = a->asked;
    out->end = a->end;
    return true;
}

int fake_alive(const struct fake_world *w)
{
    int alive = 0;

    for (size_t i = 0; i < w->count; i++)
        alive += w->attempts[i].ends_ms > w->now_ms;
    return alive;
}

/* ---- an executor in it ------------------------------------------------------------------------- */

static struct fake *fake_of(struct executor *e)
{
    return (struct fake *)e;
}

static void watch(struct fake *f, uint64_t id, const struct fake_attempt *a)
{
    f->watches = mem_grow(f->watches, f->count + 1, sizeof(*f->watches));
    f->watches[f->count++] =
        (struct watch){.id = id,
                       .attempt = a ? (size_t)(a - f->world->attempts) : NOBODY,
                       .to_hear = a && a->script.twice ? 2 : 1};
}

static enum err_code start(struct executor *e, uint64_t id, const char *task_dir, struct err *err)
{
    struct fake_world *w = fake_of(e)->world;
    struct fake_attempt *a = find(w, task_dir);
    struct fake_script script = {.step = -1, .stop_step = -1};

    if (a)
        return err_set(err, ERR_EXISTS, "start %s: it was started before", task_dir);
    w->script(w->arg, task_dir, &script);
    if (script.refused)
        return err_set(err, ERR_FULL, "start %s: the script says that there is no room", task_dir);
    w->attempts = mem_grow(w->attempts, w->count + 1, sizeof(*w->attempts));
    a = &w->attempts[w->count++];
    *a = (struct fake_attempt){.dir = mem_strdup(task_dir),
                               .script = script,
                               .begins_ms = w->now_ms + script.start_ms,
                               .ends_ms = w->now_ms + script.start_ms + script.run_ms,
                               .end = script.end,
                               .step = script.step};
    watch(fake_of(e), id, a);
    return OK;
}

static enum err_code adopt(struct executor *e, uint64_t id, const char *task_dir, struct err *err)
{
    (void)err;
    watch(fake_of(e), id, find(fake_of(e)->world, task_dir));
    return OK;
}

static void stop(struct executor *e, uint64_t id, bool kill)
{
    struct fake *f = fake_of(e);
    const int64_t now = f->world->now_ms;

    for (size_t i = 0; i < f->count; i++) {
        struct fake_attempt *a;
        int64_t takes;

        if (f->watches[i].id != id || f->watches[i].attempt == NOBODY)
            continue;
        a = &f->world->attempts[f->watches[i].attempt];
        takes = kill ? 0 : a->script.stop_ms;
        if (takes < 0 || a->ends_ms <= now + takes)
            continue;
        a->ends_ms = now + takes;
        a->end = ATTEMPT_STOPPED;
        a->asked = true;
        a->step = kill ? a->script.step : a->script.stop_step;
        a->script.no_card = false;
    }
}

static int64_t heard_at(const struct fake *f, const struct watch *w)
{
    const struct fake_attempt *a;

    if (w->attempt == NOBODY)
        return f->world->now_ms;
    a = &f->world->attempts[w->attempt];
    return w->started ? a->ends_ms + a->script.late_ms : a->begins_ms;
}

static void tell(struct fake *f, struct watch *w, struct executor_event *out)
{
    const struct fake_attempt *a = w->attempt == NOBODY ? NULL : &f->world->attempts[w->attempt];

    *out = (struct executor_event){.id = w->id, .pid = 1 + (int64_t)w->attempt};
    if (a && !w->started && a->ends_ms > f->world->now_ms) {
        w->started = true;
        out->kind = EXEC_STARTED;
        return;
    }
    w->started = true; /* over before anybody heard that it had begun */
    w->to_hear--;
    if (!a || a->script.no_card) {
        out->kind = EXEC_LOST;
        snprintf(out->reason, sizeof(out->reason), "its supervisor is gone");
        return;
    }
    out->kind = EXEC_ENDED;
    out->card =
        (struct result_card){.status = a->end,
                             .exit_status = a->end == ATTEMPT_FAILED ? a->script.exit_status : 0,
                             .error = a->end == ATTEMPT_LOST ? err_word(ERR_FULL) : "",
                             .wall_ms = a->ends_ms - a->begins_ms,
                             .step = a->step};
    if (a->end == ATTEMPT_DONE)
        out->card.result = a->script.result;
}

static enum err_code poll(struct executor *e, int64_t timeout_ms, int wake,
                          struct executor_event *out, bool *got, struct err *err)
{
    struct fake *f = fake_of(e);
    struct fake_world *w = f->world;
    struct watch *next = NULL;

    (void)wake; /* virtual time waits for nobody */
    (void)err;
    *got = false;
    for (size_t i = 0; i < f->count; i++)
        if (f->watches[i].to_hear && (!next || heard_at(f, &f->watches[i]) < heard_at(f, next)))
            next = &f->watches[i];
    if (!next || (timeout_ms >= 0 && heard_at(f, next) > w->now_ms + timeout_ms)) {
        w->now_ms += timeout_ms > 0 ? timeout_ms : 0;
        return OK;
    }
    if (heard_at(f, next) > w->now_ms)
        w->now_ms = heard_at(f, next);
    tell(f, next, out);
    *got = true;
    if (!next->to_hear)
        *next = f->watches[--f->count];
    return OK;
}

static void close_fake(struct executor *e)
{
    free(fake_of(e)->watches);
    free(fake_of(e));
}

struct executor *fake_executor(struct fake_world *w)
{
    static const struct executor_ops ops = {.name = "fake",
                                            .start = start,
                                            .adopt = adopt,
                                            .stop = stop,
                                            .poll = poll,
                                            .close = close_fake};
    struct fake *f = mem_zero(1, sizeof(*f));

    f->base.ops = &ops;
    f->world = w;
    return &f->base;
}
