/* Inputs before users; cycles told by name; skips carried along. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/pipeline_internal.h"

/* ---- cycles ------------------------------------------------------------------------------------ */

struct cycles {
    struct loader *l;
    const int *waiting; /* above 0: never became free */
    int *walk;          /* which walk came by first; 0: none */
    bool *told;         /* stages in cycles already reported */
};

/* A task that t waits for, and the input that says so.  There is one, or t would be free. */
static int next_waiting(const struct cycles *c, const struct task *t, const struct task_input **in)
{
    for (size_t k = 0; k < t->input_count; k++)
        for (size_t r = 0; r < t->inputs[k].ref_count; r++)
            if (t->inputs[k].refs[r].task >= 0 && c->waiting[t->inputs[k].refs[r].task] > 0) {
                *in = &t->inputs[k];
                return t->inputs[k].refs[r].task;
            }
    CHECK(c->waiting == NULL); /* a task that waits for nothing is not asked */
    return -1;
}

#define CYCLE_SHOWN 6 /* names in a message */

/* at is in a cycle.  Instances of the same stages go round many times; once is enough. */
static void report_cycle(const struct cycles *c, int at)
{
    const struct pipeline *p = c->l->p;
    const struct task_input *in = NULL;
    int first = at, length = 0;
    struct buf path;

    for (int t = at, turns = 0; turns == 0 || t != at; turns++) {
        if (c->told[p->tasks[t].stage])
            return;
        first = t < first ? t : first; /* the one that is declared first starts the story */
        t = next_waiting(c, &p->tasks[t], &in);
        length++;
    }
    buf_init(&path, ERR_TEXT_MAX);
    for (int t = first, i = 0; i < length; i++) {
        const int next = next_waiting(c, &p->tasks[t], &in);

        c->told[p->tasks[t].stage] = true;
        if (i < CYCLE_SHOWN - 1 || i == length - 1)
            buf_printf(&path, "%s%s needs %s", i ? ", " : "", p->tasks[t].name,
                       p->tasks[next].name);
        else if (i == CYCLE_SHOWN - 1)
            buf_printf(&path, ", and so on");
        t = next;
    }
    (void)next_waiting(c, &p->tasks[first], &in);
    problem_add(&c->l->problems, in->pos, "tasks need each other in a circle: %s",
                path.p ? path.p : "");
    buf_release(&path);
}

/* Walking against the edges from a task that never became free must come round. */
static void report_cycles(struct loader *l, const int *waiting)
{
    struct pipeline *p = l->p;
    struct cycles c = {.l = l,
                       .waiting = waiting,
                       .walk = mem_zero(p->task_count, sizeof(int)),
                       .told = mem_zero(p->stage_count, sizeof(bool))};
    const struct task_input *in;

    for (size_t i = 0; i < p->task_count; i++) {
        int at = (int)i;

        if (waiting[i] <= 0)
            continue;
        while (c.walk[at] == 0) {
            c.walk[at] = (int)i + 1;
            at = next_waiting(&c, &p->tasks[at], &in);
        }
        if (c.walk[at] == (int)i + 1)
            report_cycle(&c, at);
    }
    free(c.walk);
    free(c.told);
}

/* ---- skips ------------------------------------------------------------------------------------- */

/* Refs are shared between instances, so those to skipped tasks are left out of a copy. */
static void leave_out_skipped(struct loader *l, struct task_input *in, size_t kept)
{
    struct task_input_ref *refs = arena_array(l->arena, kept, sizeof(*refs));
    size_t n = 0;

    for (size_t r = 0; r < in->ref_count; r++)
        if (in->refs[r].task < 0 || !l->p->tasks[in->refs[r].task].skipped)
            refs[n++] = in->refs[r];
    CHECK(n == kept);
    in->refs = refs;
    in->ref_count = kept;
}

static void carry_skip(struct loader *l, struct task *t)
{
    const struct task *tasks = l->p->tasks;

    for (size_t k = 0; k < t->input_count && !t->skipped; k++) {
        struct task_input *in = &t->inputs[k];
        size_t kept = 0;
        int gone = -1;

        for (size_t r = 0; r < in->ref_count; r++) {
            if (in->refs[r].task < 0 || !tasks[in->refs[r].task].skipped)
                kept++;
            else
                gone = in->refs[r].task;
        }
        if (kept == 0 || (gone >= 0 && !in->fan_in)) {
            t->skipped = true;
            t->skip_reason =
                in->fan_in ? arena_printf(l->arena, "everything in input %s is skipped", in->name)
                           : arena_printf(l->arena, "needs %s, which is skipped", tasks[gone].name);
        } else if (gone >= 0) {
            leave_out_skipped(l, in, kept);
        }
    }
}

/* ---- order ------------------------------------------------------------------------------------- */

/* Users of each task as one array: users[first[t] .. first[t + 1]). */
static void list_users(const struct pipeline *p, int **first_out, int **users_out, int *waiting)
{
    int *first = mem_zero(p->task_count + 2, sizeof(int)), *users;

    for (size_t i = 0; i < p->task_count; i++)
        for (size_t k = 0; k < p->tasks[i].input_count; k++)
            for (size_t r = 0; r < p->tasks[i].inputs[k].ref_count; r++)
                if (p->tasks[i].inputs[k].refs[r].task >= 0) {
                    first[p->tasks[i].inputs[k].refs[r].task + 2]++;
                    waiting[i]++;
                }
    for (size_t i = 2; i < p->task_count + 2; i++)
        first[i] += first[i - 1];
    users = mem_zero((size_t)first[p->task_count + 1] + 1, sizeof(int));
    for (size_t i = 0; i < p->task_count; i++)
        for (size_t k = 0; k < p->tasks[i].input_count; k++)
            for (size_t r = 0; r < p->tasks[i].inputs[k].ref_count; r++)
                if (p->tasks[i].inputs[k].refs[r].task >= 0)
                    users[first[p->tasks[i].inputs[k].refs[r].task + 1]++] = (int)i;
    *first_out = first;
    *users_out = users;
}

void order_tasks(struct loader *l)
{
    struct pipeline *p = l->p;
    int *waiting, *first, *users;
    size_t done = 0, head = 0;

    if (l->edges > PIPELINE_EDGES_MAX)
        return; /* reported; the rest of the edges is not there */
    waiting = mem_zero(p->task_count + 1, sizeof(int));
    p->order = arena_array(l->arena, p->task_count + 1, sizeof(int));
    list_users(p, &first, &users, waiting);
    for (size_t i = 0; i < p->task_count; i++)
        if (waiting[i] == 0)
            p->order[done++] = (int)i;
    while (head < done) {
        const int t = p->order[head++];

        if (l->problems.count == 0) /* inputs that could not be read are empty */
            carry_skip(l, &p->tasks[t]);
        for (int u = first[t]; u < first[t + 1]; u++)
            if (--waiting[users[u]] == 0)
                p->order[done++] = users[u];
    }
    if (done < p->task_count)
        report_cycles(l, waiting);
    free(waiting);
    free(first);
    free(users);
}
