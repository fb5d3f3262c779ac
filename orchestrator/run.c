/* One task after another, through weir-exec.  What a task needs is known when its turn comes, because the order puts inputs
 * first; so keys are computed on the way, and an output that came out the same as before stops the rerun there. */
#include "orchestrator/run.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "cluster/attempt.h"
#include "orchestrator/task_action.h"
#include "store/action.h"
#include "store/ingest.h"
#include "store/reader.h"
#include "store/tree.h"

extern char **environ;

const char *const task_end_words[TASK_END_COUNT] = {"cached", "ran", "failed", "skipped",
                                                    "blocked"};

struct task_state {
    enum task_end end;
    struct digest result;
    struct card_object *outputs; /* in the run's arena, once it has a result */
    size_t output_count;
};
struct run {
    struct store *st;
    const struct pipeline *p;
    const struct run_options *o;
    struct run_report *report;
    struct arena arena;
    struct task_state *tasks;
    struct card_object *sources; /* zero digest: not read yet */
    const char *exec_path, *libexec;
    int64_t attempts;
};

/* ---- what goes in ------------------------------------------------------------------------------ */

static enum err_code enter_path(struct run *r, const char *path, enum obj_kind *kind,
                                struct digest *d, int64_t *size, struct err *err)
{
    const struct ingest_options o = {.how = INGEST_COPY};
    const char *full = path[0] == '/' ? path : arena_printf(&r->arena, "%s/%s", r->p->dir, path);
    struct ingest_result got;
    const enum err_code rc = store_add(r->st, full, &o, &got, err);

    if (rc)
        return rc;
    *kind = got.kind;
    *d = got.digest;
    *size = got.size;
    return OK;
}

static enum err_code source_object(struct run *r, int number, struct card_object *out,
                                   struct err *err)
{
    const struct source *s = &r->p->sources[number];
    struct card_object *known = &r->sources[number];
    enum err_code rc = OK;

    if (!digest_is_zero(&known->digest)) {
        *out = *known;
        return OK;
    }
    known->name = s->name;
    if (s->kind == SOURCE_PATH)
        rc = enter_path(r, s->location, &known->kind, &known->digest, &known->size, err);
    else if (s->kind == SOURCE_ARTIFACT)
        rc = store_resolve(r->st, str_of(s->location), &known->digest, &known->kind, err);
    else
        rc = err_set(err, ERR_MISSING, "only path and artifact sources can be fetched yet");
    if (rc)
        return err_prefix(err, "%s:%d:%d: source %s", s->pos.file, s->pos.line, s->pos.column,
                          s->name);
    *out = *known;
    return OK;
}

static const struct card_object *task_output(const struct run *r, const struct task_input_ref *ref)
{
    const struct task_state *t = &r->tasks[ref->task];

    for (size_t i = 0; i < t->output_count; i++)
        if (strcmp(t->outputs[i].name, ref->output) == 0)
            return &t->outputs[i];
    return NULL;
}

static enum err_code ref_object(struct run *r, const struct task_input_ref *ref,
                                struct card_object *out, struct err *err)
{
    const struct card_object *o;

    if (ref->source >= 0)
        return source_object(r, ref->source, out, err);
    o = task_output(r, ref);
    if (!o)
        return err_set(err, ERR_DAMAGED, "the result of %s has no output %s",
                       r->p->tasks[ref->task].name, ref->output);
    *out = *o;
    return OK;
}

/* A fan-in is a folder with one entry per reference: a tree object of its own. */
static enum err_code fan_in(struct run *r, struct writer *w, struct ready_input *in,
                            struct err *err)
{
    struct tree t = {0};
    struct buf text = {0};
    enum err_code rc = OK;

    tree_init(&t);
    buf_init(&text, TREE_BYTES_MAX);
    for (size_t i = 0; !rc && i < in->entry_count; i++) {
        const struct card_object *o = &in->entries[i];
        struct tree_entry e = {.mode = o->kind == OBJ_TREE ? TREE_DIR : TREE_FILE,
                               .name = str_of(o->name),
                               .digest = o->digest};

        rc = object_size(r->st, &o->digest, &e.size, err);
        if (!rc)
            rc = tree_add(&t, &e, 0, err);
    }
    if (!rc)
        rc = tree_encode(&t, &text, err);
    if (!rc)
        rc = writer_put(w, OBJ_TREE, text.p, text.n, &in->digest, err);
    if (!rc)
        writer_touch(w, OBJ_TREE, &in->digest);
    tree_release(&t);
    buf_release(&text);
    in->kind = OBJ_TREE;
    return rc;
}

static enum err_code ready_inputs(struct run *r, const struct task *t, struct ready_input **out,
                                  struct err *err)
{
    struct ready_input *list = arena_array(&r->arena, t->input_count + 1, sizeof(*list));
    struct writer *w = NULL;
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < t->input_count; i++) {
        const struct task_input *in = &t->inputs[i];

        list[i] = (struct ready_input){.name = in->name, .fan_in = in->fan_in};
        list[i].entries = arena_array(&r->arena, in->ref_count + 1, sizeof(*list[i].entries));
        for (size_t k = 0; !rc && k < in->ref_count; k++) {
            rc = ref_object(r, &in->refs[k], &list[i].entries[k], err);
            list[i].entries[k].name = in->refs[k].entry;
            list[i].entry_count++;
        }
        if (!rc && !in->fan_in) {
            list[i].kind = list[i].entries[0].kind;
            list[i].digest = list[i].entries[0].digest;
        } else if (!rc) {
            if (!w)
                rc = writer_open(r->st, &w, err);
            if (!rc)
                rc = fan_in(r, w, &list[i], err);
        }
    }
    if (!rc && w)
        rc = writer_commit(w, err);
    writer_release(w);
    *out = list;
    return rc;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct card_object *)a)->name, ((const struct card_object *)b)->name);
}

static enum err_code ready_code(struct run *r, const struct stage *s, struct ready_task *t,
                                struct err *err)
{
    struct card_object *code;
    size_t count = 0;
    enum err_code rc = OK;

    while (s->code[count])
        count++;
    code = arena_array(&r->arena, count + 1, sizeof(*code));
    for (size_t i = 0; !rc && i < count; i++) {
        code[i].name = s->code[i];
        rc = enter_path(r, s->code[i], &code[i].kind, &code[i].digest, &code[i].size, err);
        if (rc)
            (void)err_prefix(err, "%s:%d:%d: stage %s: code", s->pos.file, s->pos.line,
                             s->pos.column, s->name);
    }
    qsort(code, count, sizeof(*code), by_path);
    t->code = code;
    t->code_count = count;
    return rc;
}

/* The program's bytes are part of the key, and an object, so that an old run can be repeated after an upgrade. */
static enum err_code ready_program(struct run *r, const struct stage *s, struct ready_task *t,
                                   const char **path, struct err *err)
{
    struct digest *d = arena_alloc(&r->arena, sizeof(*d));
    char text[DIGEST_TEXT + 1];
    enum obj_kind kind;
    int64_t size;
    enum err_code rc;

    t->program = d;
    *path = NULL;
    if (!s->uses)
        return OK;
    *path = arena_printf(&r->arena, "%s/%s", r->libexec, s->uses);
    rc = enter_path(r, *path, &kind, d, &size, err);
    if (rc == ERR_NOT_FOUND)
        return err_set(err, ERR_NOT_FOUND, "%s:%d:%d: stage %s: there is no program '%s' in %s",
                       s->pos.file, s->pos.line, s->pos.column, s->name, s->uses, r->libexec);
    if (rc)
        return rc;
    digest_text(d, text);
    if (s->uses_digest && strcmp(s->uses_digest, text) != 0)
        return err_set(err, ERR_INPUT, "%s:%d:%d: stage %s pins %s@%s, but the program here is %s",
                       s->pos.file, s->pos.line, s->pos.column, s->name, s->uses, s->uses_digest,
                       text);
    return OK;
}

/* ---- attempts ---------------------------------------------------------------------------------- */

static enum err_code spawn_exec(struct run *r, const char *task_dir, struct err *err)
{
    char *const argv[] = {mem_strdup("weir-exec"), mem_strdup(task_dir), NULL};
    pid_t pid;
    int status = 0;
    const int sys = posix_spawn(&pid, r->exec_path, NULL, NULL, argv, environ);

    free(argv[0]);
    free(argv[1]);
    if (sys)
        return err_sys(err, sys, "start %s", r->exec_path);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return err_sys(err, errno, "wait for %s", r->exec_path);
    if (WIFSIGNALED(status))
        return err_set(err, ERR_TASK, "weir-exec was killed by signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status))
        return err_set(err, ERR_TASK, "weir-exec ended with status %d; what it said is above",
                       WEXITSTATUS(status));
    return OK;
}

static enum err_code write_card(const char *dir, const json_t *card, struct err *err)
{
    struct buf text = {0};
    int fd = -1;
    enum err_code rc;

    buf_init(&text, CARD_BYTES_MAX);
    rc = json_canonical(card, &text, err);
    if (!rc)
        rc = buf_check(&text, CARD_ATTEMPT, err);
    if (!rc)
        rc = os_open_dir(AT_FDCWD, dir, &fd, err);
    if (!rc)
        rc = os_write_file(fd, CARD_ATTEMPT, text.p, text.n, 0644, err);
    os_close_quiet(&fd);
    buf_release(&text);
    return rc;
}

static enum err_code attempt(struct run *r, const struct ready_task *t, json_t *action,
                             const struct digest *key, const char *program, struct run_event *e,
                             struct err *err)
{
    char hex[DIGEST_HEX + 1];
    const char *dir;
    json_t *card = NULL;
    struct result_card result = {0};
    int fd = -1;
    enum err_code rc;

    digest_hex(key, hex);
    dir = arena_printf(&r->arena, "%s/tasks/%.16s.%d.%lld", r->st->root, hex, (int)getpid(),
                       (long long)++r->attempts);
    rc = os_mkdirs(dir, 0755, err);
    if (!rc)
        rc = task_card(t, action, key, r->st->root, dir, program, &card, err);
    if (!rc)
        rc = write_card(dir, card, err);
    if (!rc)
        rc = spawn_exec(r, dir, err);
    if (!rc)
        rc = os_open_dir(AT_FDCWD, dir, &fd, err);
    if (!rc)
        rc = result_card_read(fd, &result, err);
    if (!rc && result.status == ATTEMPT_DONE) {
        e->end = TASK_RAN;
        e->result = result.result;
        e->wall_ms = result.wall_ms;
        rc = os_remove_tree(AT_FDCWD, dir, err);
    } else if (!rc || rc == ERR_TASK) {
        e->end = TASK_FAILED;
        e->reason = arena_strdup(&r->arena, rc ? err->text : result.reason);
        e->log_path = arena_printf(&r->arena, "%s/log", dir);
        if (!rc && result.status == ATTEMPT_STOPPED)
            rc = err_set(err, ERR_STOPPED, "stopped; the same command goes on from here");
        else
            rc = OK;
    }
    os_close_quiet(&fd);
    result_card_release(&result);
    json_decref(card);
    return rc;
}

static enum err_code take_outputs(struct run *r, struct task_state *s, struct err *err)
{
    struct tree outs = {0};
    enum err_code rc = attempt_result_outputs(r->st, &s->result, &outs, err);

    if (!rc) {
        s->outputs = arena_array(&r->arena, outs.count + 1, sizeof(*s->outputs));
        for (size_t i = 0; i < outs.count; i++)
            s->outputs[s->output_count++] = (struct card_object){
                .name = arena_strndup(&r->arena, outs.entries[i].name.p, outs.entries[i].name.n),
                .kind = outs.entries[i].mode == TREE_DIR ? OBJ_TREE : OBJ_BLOB,
                .digest = outs.entries[i].digest,
                .size = outs.entries[i].size};
    }
    tree_release(&outs);
    return rc;
}

/* ---- one task ---------------------------------------------------------------------------------- */

static bool blocked(const struct run *r, const struct task *t, struct run_event *e)
{
    if (t->skipped) {
        e->end = TASK_SKIPPED;
        e->reason = t->skip_reason;
        return true;
    }
    for (size_t i = 0; i < t->input_count; i++)
        for (size_t k = 0; k < t->inputs[i].ref_count; k++) {
            const int from = t->inputs[i].refs[k].task;

            if (from >= 0 &&
                (r->tasks[from].end == TASK_FAILED || r->tasks[from].end == TASK_BLOCKED)) {
                e->end = TASK_BLOCKED;
                e->reason = r->p->tasks[from].name;
                return true;
            }
        }
    return false;
}

static enum err_code one_task(struct run *r, int number, struct run_event *e, struct err *err)
{
    const struct task *t = &r->p->tasks[number];
    struct ready_task ready = {.pipeline = r->p, .task = t};
    struct ready_input *inputs;
    const char *program;
    json_t *action = NULL;
    struct buf canonical = {0};
    struct digest key;
    enum err_code rc = ready_inputs(r, t, &inputs, err);

    buf_init(&canonical, ACTION_BYTES_MAX);
    ready.inputs = inputs;
    if (!rc)
        rc = ready_code(r, &r->p->stages[t->stage], &ready, err);
    if (!rc)
        rc = ready_program(r, &r->p->stages[t->stage], &ready, &program, err);
    if (!rc)
        rc = task_action(&ready, &action, err);
    if (!rc)
        rc = action_key(action, &key, &canonical, err);
    if (!rc) {
        rc = action_lookup(r->st, &key, &e->result, err);
        e->end = TASK_CACHED;
        if (rc == ERR_NOT_FOUND) {
            *err = (struct err)ERR_INIT;
            rc = attempt(r, &ready, action, &key, program, e, err);
        }
    }
    if (!rc && e->end != TASK_FAILED) {
        r->tasks[number].result = e->result;
        rc = take_outputs(r, &r->tasks[number], err);
    }
    buf_release(&canonical);
    json_decref(action);
    return rc;
}

/* ---- the whole run ----------------------------------------------------------------------------- */

static enum err_code find_programs(struct run *r, struct err *err)
{
    char self[4096];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    if (n < 0)
        return err_sys(err, errno, "read /proc/self/exe");
    self[n] = '\0';
    slash = strrchr(self, '/');
    *slash = '\0';
    r->libexec = arena_printf(&r->arena, "%s/../libexec/weir", self);
    r->exec_path = arena_printf(&r->arena, "%s/weir-exec", r->libexec);
    if (access(r->exec_path, X_OK) != 0)
        return err_sys(err, errno, "%s", r->exec_path);
    return OK;
}

static enum err_code next_number(struct store *st, int64_t *out, struct err *err)
{
    struct ref_row *rows = NULL;
    size_t n = 0;
    enum err_code rc = index_refs(st->index, STR("runs/run-"), REF_ALL, &rows, &n, err);

    *out = 1;
    for (size_t i = 0; !rc && i < n; i++) {
        struct err ignore = ERR_INIT;
        int64_t number;

        if (str_to_i64(str_of(rows[i].name + strlen("runs/run-")), 1, INT64_MAX - 1, &number,
                       &ignore) == OK &&
            number >= *out)
            *out = number + 1;
    }
    free(rows);
    return rc;
}

static enum err_code put_tree(struct writer *w, struct tree *t, struct tree_entry *as,
                              struct err *err)
{
    struct buf text = {0};
    enum err_code rc;

    buf_init(&text, TREE_BYTES_MAX);
    rc = tree_encode(t, &text, err);
    if (!rc)
        rc = writer_put(w, OBJ_TREE, text.p, text.n, &as->digest, err);
    as->mode = TREE_DIR;
    as->size = (int64_t)text.n;
    buf_release(&text);
    return rc;
}

static enum err_code put_run(struct run *r, struct writer *w, struct digest *out, struct err *err)
{
    struct tree tasks = {0}, top = {0};
    struct tree_entry e = {.name = STR("tasks")},
                      file = {.mode = TREE_FILE, .name = STR("pipeline.yaml")};
    struct buf text = {0};
    enum err_code rc = OK;

    tree_init(&tasks);
    tree_init(&top);
    buf_init(&text, PIPELINE_BYTES_MAX);
    for (size_t i = 0; !rc && i < r->p->task_count; i++) {
        struct tree_entry t = {
            .mode = TREE_DIR, .name = str_of(r->p->tasks[i].name), .digest = r->tasks[i].result};

        if (r->tasks[i].end != TASK_CACHED && r->tasks[i].end != TASK_RAN)
            continue;
        rc = object_size(r->st, &t.digest, &t.size, err);
        if (!rc)
            rc = tree_add(&tasks, &t, 0, err);
    }
    if (!rc)
        rc = put_tree(w, &tasks, &e, err);
    if (!rc)
        rc = tree_add(&top, &e, 0, err);
    if (!rc)
        rc = os_read_file(AT_FDCWD, r->p->file, PIPELINE_BYTES_MAX, &text, err);
    if (!rc)
        rc = writer_put(w, OBJ_BLOB, text.p, text.n, &file.digest, err);
    file.size = (int64_t)text.n;
    if (!rc)
        rc = tree_add(&top, &file, 0, err);
    if (!rc)
        rc = put_tree(w, &top, &e, err);
    *out = e.digest;
    buf_release(&text);
    tree_release(&tasks);
    tree_release(&top);
    return rc;
}

static enum err_code keep_run(struct run *r, struct err *err)
{
    struct writer *w = NULL;
    struct digest top;
    int64_t number;
    enum err_code rc = next_number(r->st, &number, err);

    if (!rc)
        rc = writer_open(r->st, &w, err);
    if (!rc)
        rc = put_run(r, w, &top, err);
    if (!rc)
        rc = writer_ref(w, str_of(arena_printf(&r->arena, "runs/run-%lld", (long long)number)),
                        OBJ_TREE, &top, err);
    if (!rc)
        rc = writer_commit(w, err);
    writer_release(w);
    if (!rc)
        r->report->number = number;
    return rc;
}

static enum err_code all_tasks(struct run *r, struct err *err)
{
    bool failed = false;
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < r->p->task_count; i++) {
        const int number = r->p->order[i];
        struct run_event e = {.task = &r->p->tasks[number]};

        if (failed && !r->o->keep_going) {
            e.end = TASK_BLOCKED;
            e.reason = "an earlier failure";
        } else if (!blocked(r, e.task, &e)) {
            rc = one_task(r, number, &e, err);
            if (rc)
                (void)err_prefix(err, "task %s", e.task->name);
        }
        r->tasks[number].end = e.end;
        r->report->counts[e.end]++;
        failed = failed || e.end == TASK_FAILED;
        if (!rc && r->o->on_event)
            rc = r->o->on_event(r->o->arg, &e, err);
    }
    return rc;
}

enum err_code run_pipeline(struct store *st, const struct pipeline *p, const struct run_options *o,
                           struct run_report *out, struct err *err)
{
    struct run r = {.st = st, .p = p, .o = o, .report = out};
    enum err_code rc;

    *out = (struct run_report){0};
    arena_init(&r.arena);
    r.tasks = arena_array(&r.arena, p->task_count + 1, sizeof(*r.tasks));
    r.sources = arena_array(&r.arena, p->source_count + 1, sizeof(*r.sources));
    rc = find_programs(&r, err);
    if (!rc)
        rc = all_tasks(&r, err);
    if (!rc && out->counts[TASK_FAILED])
        rc = err_set(err, ERR_TASK, "%lld of %zu tasks failed", (long long)out->counts[TASK_FAILED],
                     p->task_count);
    if (!rc)
        rc = keep_run(&r, err);
    arena_release(&r.arena);
    return rc;
}

enum err_code run_output(struct store *st, const char *task, const char *output, int64_t number,
                         struct digest *out, enum obj_kind *kind, struct err *err)
{
    struct buf what = {0};
    int64_t newest;
    enum err_code rc = next_number(st, &newest, err);

    buf_init(&what, ERR_TEXT_MAX * 4);
    for (int64_t n = number ? number : newest - 1; !rc && n >= 1; n--) {
        buf_clear(&what);
        buf_printf(&what, "runs/run-%lld:tasks/%s/out/%s", (long long)n, task, output);
        rc = store_resolve(st, (struct str){what.p, what.n}, out, kind, err);
        if (rc != ERR_NOT_FOUND || number)
            break;
        rc = OK;
        if (n == 1)
            rc = err_set(err, ERR_NOT_FOUND,
                         "no kept run has an output %s.%s; weir store ls shows the runs", task,
                         output);
    }
    if (!rc && newest == 1)
        rc = err_set(err, ERR_NOT_FOUND, "no run is kept here yet; weir run makes one");
    buf_release(&what);
    return rc;
}
