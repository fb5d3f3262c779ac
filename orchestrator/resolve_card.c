/* What an attempt is told: the action, the card, where to go on from. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/resolve_internal.h"
#include "store/action.h"
#include "store/reader.h"
#include "store/tree.h"

enum err_code resolve_action(struct resolver *r, int task, json_t **action, struct err *err)
{
    enum err_code rc = resolve_text(r, task, NULL, err);

    *action = NULL;
    return rc ? rc : json_parse(r->text.p, r->text.n, ACTION_BYTES_MAX, "action", action, err);
}

/* ---- going on ---------------------------------------------------------------------------------- */

static const struct action_param *find_param(const struct ready_task *t, const char *name)
{
    for (size_t i = 0; i < t->param_count; i++)
        if (strcmp(t->params[i].name, name) == 0)
            return &t->params[i];
    return NULL;
}

/* How far the task goes by its extending param; INT64_MAX when it has none. */
static int64_t last_step(const struct resolver *r, int task, const struct program_param *extending,
                         const struct ready_task *t)
{
    const struct action_param *a = extending ? find_param(t, extending->name) : NULL;
    const json_t *v;

    if (!a)
        return INT64_MAX;
    v = a->from >= 0 ? r->p->tasks[task].params[a->from].value : a->standard;
    if (json_is_integer(v))
        return json_integer_value(v);
    return json_is_real(v) && json_real_value(v) < 9e15 ? (int64_t)json_real_value(v) : INT64_MAX;
}

/* "step-120"; -1 for anything else. */
static int64_t step_of(const struct tree_entry *e)
{
    struct err none = ERR_INIT;
    const struct str prefix = STR("step-");
    int64_t n;

    if (!str_starts(e->name, prefix) || e->mode == TREE_LINK)
        return -1;
    if (str_to_i64((struct str){e->name.p + prefix.n, e->name.n - prefix.n}, 0, INT64_MAX - 1, &n,
                   &none))
        return -1;
    return n;
}

/* The newest point that is not past the end and is whole. */
static enum err_code newest_point(struct resolver *r, const struct tree *t, int64_t last,
                                  struct resume_point *out, struct err *err)
{
    for (int64_t below = last;;) {
        const struct tree_entry *best = NULL;
        struct digest missing;
        bool complete;
        enum err_code rc;

        out->step = -1;
        for (size_t i = 0; i < t->count; i++) {
            const int64_t step = step_of(&t->entries[i]);

            if (step > out->step && step <= below) {
                best = &t->entries[i];
                out->step = step;
            }
        }
        if (!best)
            return OK;
        out->digest = best->digest;
        out->kind = best->mode == TREE_DIR ? OBJ_TREE : OBJ_BLOB;
        rc = store_complete(r->st, out->kind, &out->digest, &complete, &missing, err);
        if (rc || complete)
            return rc;
        below = out->step - 1;
    }
}

static enum err_code resume_ref(struct resolver *r, int task, char ref[96], int64_t *last,
                                struct err *err)
{
    struct stage_part *part;
    const struct program_param *extending = NULL;
    struct digest key;
    enum err_code rc = resolve_stage(r, r->p->tasks[task].stage, &part, err);

    if (!rc && part->ready.description)
        extending = program_extending(part->ready.description);
    if (!rc)
        rc = resolve_text(r, task, extending ? extending->name : NULL, err);
    if (rc)
        return rc;
    sha256_of(r->text.p, r->text.n, &key);
    memcpy(ref, "checkpoints/", 13); /* its NUL goes again in the next line */
    digest_hex(&key, ref + 12);
    *last = last_step(r, task, extending, &part->ready);
    return OK;
}

enum err_code resolve_resume(struct resolver *r, int task, char ref[96], struct resume_point *out,
                             struct err *err)
{
    struct digest d;
    enum obj_kind kind;
    struct buf text = {0};
    struct tree points = {0};
    int64_t last;
    enum err_code rc = resume_ref(r, task, ref, &last, err);

    *out = (struct resume_point){.step = -1};
    if (rc)
        return rc;
    buf_init(&text, TREE_BYTES_MAX);
    rc = store_resolve(r->st, str_of(ref), &d, &kind, err);
    if (!rc && kind == OBJ_TREE)
        rc = object_read(r->st, &d, TREE_BYTES_MAX, &text, err);
    if (!rc && kind == OBJ_TREE)
        rc = tree_decode(text.p, text.n, 0, ref, &points, err);
    if (!rc)
        rc = newest_point(r, &points, last, out, err);
    if (rc == ERR_NOT_FOUND) { /* none was kept, or it is gone: start at the beginning */
        *err = (struct err)ERR_INIT;
        out->step = -1;
        rc = OK;
    }
    tree_release(&points);
    buf_release(&text);
    return rc;
}

/* ---- the card ---------------------------------------------------------------------------------- */

static json_t *big_json(int64_t v)
{
    char text[24];

    if (v >= -(INT64_C(1) << 53) && v <= INT64_C(1) << 53)
        return json_integer((json_int_t)v);
    (void)snprintf(text, sizeof(text), "%" PRId64, v);
    return json_string(text);
}

static json_t *program_member(const struct program *prog)
{
    char text[DIGEST_TEXT + 1];

    digest_text(&prog->digest, text);
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o}", "path", prog->path, "kind", "blob", "digest",
                     text, "ino", big_json((int64_t)prog->ino), "size", big_json(prog->size),
                     "mtime_ns", big_json(prog->mtime_ns));
}

static json_t *resume_member(const struct resume_point *p)
{
    char text[DIGEST_TEXT + 1];

    digest_text(&p->digest, text);
    return json_pack("{s:s, s:s, s:o}", "kind", obj_kind_word(p->kind), "digest", text, "step",
                     big_json(p->step));
}

static enum err_code add_members(struct resolver *r, int task, const struct ready_task *t,
                                 const struct resume_point *resume, json_t *card, struct err *err)
{
    const struct stage *st = &r->p->stages[r->p->tasks[task].stage];
    char ref[96];
    int64_t last;
    enum err_code rc = resume_ref(r, task, ref, &last, err);
    json_t *kept = json_pack("{s:s, s:I}", "ref", ref, "keep", (json_int_t)st->checkpoint_keep);
    bool bad = !kept || json_object_set_new(card, "checkpoints", kept) != 0;

    if (t->description)
        bad = json_object_set_new(card, "program", program_member(t->description)) != 0 || bad;
    if (resume && resume->step >= 0)
        bad = json_object_set_new(card, "resume", resume_member(resume)) != 0 || bad;
    if (!rc && bad)
        rc = err_set(err, ERR_INPUT, "task %s: a path is not UTF-8", r->p->tasks[task].name);
    return rc;
}

static bool has_fan_in(const struct task *t)
{
    for (size_t i = 0; i < t->input_count; i++)
        if (t->inputs[i].fan_in)
            return true;
    return false;
}

enum err_code resolve_card(struct resolver *r, int task, const char *task_dir,
                           const struct resume_point *resume, json_t **card, struct err *err)
{
    const struct arena_mark mark = arena_mark(&r->scratch);
    const struct task *t = &r->p->tasks[task];
    struct writer *w = NULL;
    struct ready_task ready;
    json_t *action = NULL;
    enum err_code rc = OK;

    *card = NULL;
    CHECK(r->tasks[task].keyed);
    if (has_fan_in(t))
        rc = writer_open(r->st, &w, err);
    if (!rc)
        rc = resolve_ready(r, task, w, &ready, err);
    if (!rc)
        rc = task_action(&ready, &action, err);
    if (!rc)
        rc = task_card(&ready, action, &r->tasks[task].result.key, r->st->root, task_dir,
                       ready.description ? ready.description->path : NULL, card, err);
    if (!rc)
        rc = add_members(r, task, &ready, resume, *card, err);
    if (!rc && w)
        rc = writer_commit(w, err);
    writer_release(w);
    arena_rewind(&r->scratch, mark);
    json_decref(action);
    if (rc) {
        json_decref(*card);
        *card = NULL;
    }
    return rc;
}
