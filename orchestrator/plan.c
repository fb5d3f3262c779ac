#include "orchestrator/plan.h"

#include <stdlib.h>
#include <string.h>

#include "orchestrator/record.h"

const char *const plan_state_words[PLAN_STATE_COUNT] = {"cached", "run", "depends", "skipped",
                                                        "left out"};

/* ---- verdicts ---------------------------------------------------------------------------------- */

/* A task is open when its outputs are not known before something has run. */
static bool is_open(const struct plan_task *t)
{
    return t->state == PLAN_RUN || t->state == PLAN_DEPENDS;
}

static int first_open(const struct pipeline *p, const struct plan *plan, int number,
                      const struct task_result *results)
{
    const struct task *t = &p->tasks[number];

    for (size_t i = 0; i < t->input_count; i++)
        for (size_t k = 0; k < t->inputs[i].ref_count; k++) {
            const int from = t->inputs[i].refs[k].task;

            if (from >= 0 && (is_open(&plan->tasks[from]) || !results[from].known))
                return from;
        }
    return -1;
}

static void judge(const struct pipeline *p, const struct selection *s,
                  const struct task_result *results, const bool *keyed, struct plan *plan)
{
    for (size_t i = 0; i < p->task_count; i++) {
        const int number = p->order[i];
        struct plan_task *t = &plan->tasks[number];

        t->waits_for = -1;
        t->expected_ms = -1;
        if (p->tasks[number].skipped) {
            t->state = PLAN_SKIPPED;
        } else if (s && !s->wanted[number]) {
            t->state = PLAN_LEFT_OUT;
        } else if (s && s->forced[number]) { /* NOLINT(bugprone-branch-clone): the order decides */
            t->state = PLAN_RUN;
        } else if (results[number].known) {
            t->state =
                PLAN_CACHED; /* above it something may be forced; it is looked at again then */
        } else if (keyed[number]) {
            t->state = PLAN_RUN;
        } else {
            t->state = PLAN_DEPENDS;
            t->waits_for = first_open(p, plan, number, results);
        }
        plan->counts[t->state]++;
    }
}

/* ---- times ------------------------------------------------------------------------------------- */

static enum err_code mean_of(struct ledger *l, const struct pipeline *p, int task, int64_t *ms,
                             struct err *err)
{
    struct task_record rec = {0};
    enum err_code rc = task_record_get(l, p->name, p->tasks[task].name, &rec, err);

    *ms = -1;
    if (rc == ERR_NOT_FOUND) {
        *err = (struct err)ERR_INIT;
        return OK;
    }
    if (!rc && (rec.mean_ms > 0 || rec.wall_ms > 0 ||
                (rec.status && strcmp(rec.status, "done") == 0))) /* faster than a millisecond */
        *ms = rec.mean_ms > 0 ? rec.mean_ms : rec.wall_ms;
    task_record_release(&rec);
    return rc;
}

/* Other instances of the stage, each asked once. */
struct stage_mean {
    bool asked;
    int64_t ms;
};

#define INSTANCES_ASKED_MAX 64

static enum err_code ask_stage(struct ledger *l, const struct pipeline *p, int number,
                               struct stage_mean *m, struct err *err)
{
    const struct stage *st = &p->stages[number];
    int64_t sum = 0, n = 0;
    enum err_code rc = OK;

    m->asked = true;
    for (int i = 0; !rc && i < st->task_count && i < INSTANCES_ASKED_MAX; i++) {
        int64_t ms;

        rc = mean_of(l, p, st->first_task + i, &ms, err);
        if (!rc && ms >= 0) {
            sum += ms;
            n++;
        }
    }
    m->ms = n ? sum / n : -1;
    return rc;
}

static enum err_code expect(struct ledger *l, const struct pipeline *p, struct plan *plan,
                            struct err *err)
{
    struct stage_mean *means = mem_zero(p->stage_count + 1, sizeof(*means));
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < p->task_count; i++) {
        struct plan_task *t = &plan->tasks[i];
        struct stage_mean *m = &means[p->tasks[i].stage];

        if (!is_open(t))
            continue;
        rc = l ? mean_of(l, p, (int)i, &t->expected_ms, err) : OK;
        if (!rc && l && t->expected_ms < 0) {
            if (!m->asked)
                rc = ask_stage(l, p, p->tasks[i].stage, m, err);
            t->expected_ms = m->ms;
        }
        plan->unknown += t->expected_ms < 0;
        plan->total_ms += t->expected_ms > 0 ? t->expected_ms : 0;
    }
    free(means);
    return rc;
}

/* The longest path through what is open. */
static void find_critical(const struct pipeline *p, struct plan *plan)
{
    int64_t *end = mem_zero(p->task_count + 1, sizeof(*end));

    for (size_t i = 0; i < p->task_count; i++) {
        const int number = p->order[i];
        const struct task *t = &p->tasks[number];
        int64_t begin = 0;

        if (!is_open(&plan->tasks[number]))
            continue;
        for (size_t k = 0; k < t->input_count; k++)
            for (size_t j = 0; j < t->inputs[k].ref_count; j++) {
                const int from = t->inputs[k].refs[j].task;

                if (from >= 0 && end[from] > begin)
                    begin = end[from];
            }
        end[number] = begin;
        if (plan->tasks[number].expected_ms > 0)
            end[number] += plan->tasks[number].expected_ms;
        if (end[number] > plan->critical_ms)
            plan->critical_ms = end[number];
    }
    free(end);
}

enum err_code plan_tasks_make(const struct pipeline *p, const struct selection *s,
                              const struct task_result *results, const bool *keyed,
                              struct ledger *l, struct plan *out, struct err *err)
{
    enum err_code rc;

    *out = (struct plan){.tasks = mem_zero(p->task_count + 1, sizeof(*out->tasks))};
    judge(p, s, results, keyed, out);
    rc = expect(l, p, out, err);
    if (!rc)
        find_critical(p, out);
    else
        plan_tasks_release(out);
    return rc;
}

void plan_tasks_release(struct plan *plan)
{
    free(plan->tasks);
    *plan = (struct plan){0};
}
