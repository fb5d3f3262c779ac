/* Going on with a run of a process that is gone: what its events say about tries and about attempts that may still be alive.
 *
 * What came out is asked from the store, not from the events: who committed a result and was killed before telling has still made it.  A task
 * that had failed for good is tried anew, since somebody has typed the command again; so is one that is another action by now.  Their
 * old attempts keep their numbers and count for nothing. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/run_internal.h"
#include "orchestrator/sched_replay.h"

struct past_task {
    const char *dir; /* of its last start; borrowed from the arena */
    int64_t started_ms;
    int last; /* the last start's number */
    bool open /* since then no end */, asked /* but a request to stop */;
    bool dropped; /* of another action, or over */
};
struct past { /* what matters of a run's events */
    struct run *r;
    struct sched *scratch; /* all of them, played to a scheduler that never gives up */
    struct sched_event *events;
    size_t count, room;
    struct past_task *tasks;
};

static int find_task(void *arg, const char *name)
{
    return pipeline_find_task(arg, name);
}

static void add(struct past *h, const struct sched_event *e)
{
    if (h->count == h->room) {
        h->room = h->room ? 2 * h->room : 64;
        h->events = mem_grow(h->events, h->room, sizeof(*h->events));
    }
    h->events[h->count++] = *e;
    sched_post(h->scratch, e);
}

static void digest_member(const json_t *body, const char *name, struct digest *out)
{
    struct err ignored = ERR_INIT;
    const char *text = json_string_value(json_object_get(body, name));

    *out = (struct digest){{0}};
    if (text && digest_parse(text, strlen(text), out, &ignored))
        *out = (struct digest){{0}};
}

static void take_start(struct past *h, const struct sched_event *e, const json_t *body)
{
    struct past_task *t = &h->tasks[e->task];
    const char *dir = json_string_value(json_object_get(body, "dir"));

    t->dir = dir ? arena_strdup(&h->r->arena, dir) : NULL;
    t->started_ms = e->now_ms;
    t->last = e->attempt;
    t->open = true;
    t->asked = false;
}

static void take_end(struct past *h, const struct sched_event *e, const json_t *body)
{
    struct run_slot *s = &h->r->slots[e->task];
    struct past_task *t = &h->tasks[e->task];
    struct run_files f;

    t->open = false;
    if (e->attempt > t->last)
        t->last = e->attempt;
    if (e->checkpoint_step > s->step)
        s->step = e->checkpoint_step;
    digest_member(body, "log", &f.log);
    digest_member(body, "events", &f.events);
    if (!s->files)
        s->files = arena_alloc(&h->r->arena, sizeof(*s->files));
    *s->files = f;
    s->done_before = e->end == END_DONE;
}

static enum err_code read_event(void *arg, int64_t seq, const json_t *body, struct err *err)
{
    struct past *h = arg;
    struct sched_event e;

    (void)seq;
    (void)err;
    if (!sched_event_of(body, find_task, (void *)(uintptr_t)h->r->p, &e))
        return OK;
    if (e.kind == EV_STOP || e.kind == EV_RESUME) {
        for (size_t i = 0; e.kind == EV_STOP && i < h->r->p->task_count; i++)
            h->tasks[i].asked = h->tasks[i].open;
        add(h, &e);
    } else if (e.kind == EV_STARTED || e.kind == EV_ENDED) {
        struct past_task *t = &h->tasks[e.task];
        const struct task_result *known = &h->r->known[e.task];
        struct digest key;

        digest_member(body, "key", &key);
        t->dropped = t->dropped || !h->r->keyed[e.task] || !digest_eq(&key, &known->key);
        if (e.kind == EV_STARTED)
            take_start(h, &e, body);
        else
            take_end(h, &e, body);
        add(h, &e);
    } else if (e.kind == EV_CANCEL && e.task >= 0) {
        h->tasks[e.task].asked = h->tasks[e.task].open;
    }
    return OK;
}

/* Which tasks begin anew. */
static void drop(struct past *h, int task)
{
    struct run *r = h->r;
    struct run_slot *s = &r->slots[task];
    struct past_task *t = &h->tasks[task];
    const bool forced = r->o->forced && r->o->forced[task];

    s->done_before = s->done_before && !t->dropped && r->known[task].known;
    t->dropped = t->dropped || sched_state_of(h->scratch, task) == SCHED_FAILED ||
                 sched_state_of(h->scratch, task) == SCHED_DONE ||
                 (r->known[task].known && (!forced || s->done_before));
    if (t->dropped) {
        s->before = s->attempt = t->last;
        s->step = -1;
    }
}

static enum err_code adopt(struct past *h, struct err *err)
{
    struct run *r = h->r;
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < r->p->task_count; i++) {
        const struct past_task *t = &h->tasks[i];

        r->slots[i].attempt = t->last;
        if (!t->dropped && t->open && t->dir && sched_state_of(r->sched, (int)i) == SCHED_RUNNING)
            rc = run_adopt(r, (int)i, t->last, t->dir, t->started_ms * 1000000, t->asked, err);
    }
    return rc;
}

/* What was asked of the dead process was asked of it. */
static enum err_code forget_requests(struct run *r, struct err *err)
{
    struct ledger_request q;
    bool got = true;
    enum err_code rc = OK;

    while (!rc && got)
        rc = ledger_take_request(r->ledger, r->number, &q, &got, err);
    return rc;
}

enum err_code run_resume(struct run *r, struct sched *scratch, struct err *err)
{
    struct past h = {.r = r, .scratch = scratch};
    enum err_code rc;

    h.tasks = mem_zero(r->p->task_count + 1, sizeof(*h.tasks));
    rc = ledger_replay(r->ledger, r->number, 0, read_event, &h, err);
    for (size_t i = 0; !rc && i < r->p->task_count; i++)
        drop(&h, (int)i);
    for (size_t i = 0; !rc && i < h.count; i++)
        if (h.events[i].task < 0 || !h.tasks[h.events[i].task].dropped)
            sched_post(r->sched, &h.events[i]);
    if (!rc) {
        run_post(r, EV_RESUME, -1);
        rc = adopt(&h, err);
    }
    if (!rc)
        rc = forget_requests(r, err);
    free(h.events);
    free(h.tasks);
    sched_free(scratch);
    return rc;
}
