/* What stays of a run: its events, the record of each task, the tree under runs/run-N, published refs. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "orchestrator/run_internal.h"
#include "store/action.h"
#include "store/reader.h"
#include "store/tree.h"

#define LOG_TAIL_LINES 12
#define HITS_KEEP_S (30 * INT64_C(86400)) /* the longest run; one that is resumed begins anew */

/* ---- events ------------------------------------------------------------------------------------ */

enum err_code run_note(struct run *r, json_t *body, struct err *err)
{
    if (!body)
        return err_set(err, ERR_BUG, "an event of run-%lld has a member that is not UTF-8",
                       (long long)r->number);
    if (!ledger_dirty(r->ledger))
        r->dirty_since_ns = os_monotonic_ns();
    return ledger_append(r->ledger, r->number, body, err);
}

static void count(struct run *r)
{
    struct ledger_run *row = &r->row;

    row->tasks = (int64_t)r->p->task_count;
    row->cached = r->report->counts[SCHED_CACHED];
    row->ran = r->report->counts[SCHED_DONE];
    row->failed = r->report->counts[SCHED_FAILED];
    row->skipped = r->report->counts[SCHED_SKIPPED];
    row->blocked = r->report->counts[SCHED_BLOCKED];
}

static void remove_folder(char *dir)
{
    struct err err = ERR_INIT;

    if (os_remove_tree(AT_FDCWD, dir, &err))
        log_line(LOG_WARN, "%s", err.text); /* the next run sweeps it */
    free(dir);
}

/* Folders go when what came out of them is durable: killed before, somebody finds the result card there.  From a lost attempt nothing came,
 * and its disk may be full. */
void run_throw_away(struct run *r, char *dir, bool now)
{
    if (now) {
        remove_folder(dir);
        return;
    }
    if (r->trash_count == r->trash_room) {
        r->trash_room = r->trash_room ? 2 * r->trash_room : 16;
        r->trash = mem_grow(r->trash, r->trash_room, sizeof(*r->trash));
    }
    r->trash[r->trash_count++] = dir;
}

static void empty_trash(struct run *r)
{
    for (size_t i = 0; i < r->trash_count; i++)
        remove_folder(r->trash[i]);
    r->trash_count = 0;
}

enum err_code run_commit(struct run *r, struct err *err)
{
    enum err_code rc;

    if (!ledger_dirty(r->ledger))
        return OK;
    count(r);
    ledger_set_run(r->ledger, &r->row);
    rc = ledger_commit(r->ledger, err);
    if (!rc)
        empty_trash(r);
    return rc;
}

static enum err_code file_digest(const struct run *r, struct digest *out, struct err *err)
{
    struct buf text = {0};
    enum err_code rc;

    buf_init(&text, PIPELINE_BYTES_MAX);
    rc = os_read_file(AT_FDCWD, r->p->file, PIPELINE_BYTES_MAX, &text, err);
    if (!rc)
        sha256_of(text.p, text.n, out);
    buf_release(&text);
    return rc;
}

/* What makes a later command the same run: the file's place and bytes, and what was said. */
enum err_code run_digest_of_options(struct run *r, struct digest *out, struct err *err)
{
    char *path = realpath(r->p->file, NULL);
    struct digest file;
    struct buf text = {0};
    json_t *v;
    enum err_code rc = file_digest(r, &file, err);

    buf_init(&text, CARD_BYTES_MAX);
    if (!rc) {
        v = json_pack("{s:s*, s:o, s:O*}", "path", path, "digest", run_digest_json(&file), "said",
                      r->o->said);
        rc =
            v ? json_canonical(v, &text, err) : OK; /* a path that is not UTF-8: always a new run */
        json_decref(v);
    }
    if (!rc)
        sha256_of(text.p, text.n, out);
    buf_release(&text);
    free(path);
    return rc;
}

static enum err_code note_sources(struct run *r, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < r->p->source_count; i++) {
        const struct source_object *o = source_get(resolver_sources(r->resolver), (int)i);
        const struct source *s = &r->p->sources[i];

        if (!o || digest_is_zero(&o->digest))
            continue;
        rc = run_note(r,
                      json_pack("{s:s, s:s, s:s, s:o, s:I, s:o, s:s*, s:s*}", "event", "run.source",
                                "source", s->name, "kind", obj_kind_word(o->kind), "digest",
                                run_digest_json(&o->digest), "size", (json_int_t)o->size, "entry",
                                run_digest_json(&o->entry), "license", s->license, "artifact",
                                s->kind == SOURCE_ARTIFACT ? s->location : NULL),
                      err);
    }
    return rc;
}

static json_t *texts_json(const char *const *list)
{
    json_t *out = json_array();

    for (size_t i = 0; list && list[i]; i++)
        json_array_append_new(out, json_string(list[i]));
    return out;
}

/* What leaves later is judged by the policy that stood then; names of tasks that the selection leaves out, so that nobody takes them for
 * cached ones. */
static void add_terms(const struct run *r, json_t *body)
{
    json_t *left_out;

    if (!body)
        return;
    json_object_set_new(body, "policy",
                        json_pack("{s:o, s:o}", "deny", texts_json(r->p->policy.deny), "allow_only",
                                  texts_json(r->p->policy.allow_only)));
    if (!r->o->wanted)
        return;
    left_out = json_array();
    for (size_t i = 0; i < r->p->task_count; i++)
        if (r->sched ? sched_state_of(r->sched, (int)i) == SCHED_UNSELECTED : !r->o->wanted[i])
            json_array_append_new(left_out, json_string(r->p->tasks[i].name));
    if (json_array_size(left_out) > 0)
        json_object_set(body, "left_out", left_out);
    json_decref(left_out);
}

static enum err_code note_first(struct run *r, const struct git_state *git,
                                const struct digest *file, const struct process_id *self,
                                struct err *err)
{
    char *path = realpath(r->p->file, NULL);
    json_t *body =
        json_pack("{s:s, s:s, s:s, s:o, s:O*, s:o, s:s, s:I, s:I, s:s, s:I}", "event", "run.begin",
                  "pipeline", r->p->name, "file", path ? path : r->p->file, "digest",
                  run_digest_json(file), "said", r->o->said, "git", git_json(git), "weir",
                  WEIR_VERSION, "tasks", (json_int_t)r->p->task_count, "pid", (json_int_t)self->pid,
                  "boot", self->boot, "start", (json_int_t)self->start);

    free(path);
    add_terms(r, body);
    return run_note(r, body, err);
}

enum err_code run_note_begin(struct run *r, bool resumed, struct err *err)
{
    struct git_state git = {0};
    struct process_id self;
    struct digest file;
    enum err_code rc;

    process_self(&self);
    if (resumed)
        return run_note(r,
                        json_pack("{s:s, s:I, s:s, s:I}", "event", "run.resume", "pid",
                                  (json_int_t)self.pid, "boot", self.boot, "start",
                                  (json_int_t)self.start),
                        err);
    rc = file_digest(r, &file, err);
    if (!rc)
        rc = git_look(r->p->dir, &git, err);
    if (!rc && r->p->policy.require_clean_git && (!git.known || git.dirty))
        rc = err_set(err, ERR_DENIED,
                     "%s:%d:%d: policy wants a clean git repository, but %s%s; commit, or set "
                     "policy.require_clean_git to false",
                     r->p->policy.pos.file, r->p->policy.pos.line, r->p->policy.pos.column,
                     git.known ? "there are changes: " : "",
                     git.known ? git.dirty_files[0] : git.why);
    if (!rc)
        rc = note_first(r, &git, &file, &self, err);
    if (!rc)
        rc = note_sources(r, err);
    git_release(&git);
    return rc;
}

/* What was found at the start and is built on by what has to run: no gc takes it before the run's own ref leads there, at its end.
 * Where nothing has to run that ref is set at once, and this commit, milliseconds for 10,000 tasks, is left out. */
enum err_code run_keep_hits(struct run *r, struct err *err)
{
    const size_t tasks = r->p->task_count;
    struct digest *results = mem_alloc((tasks + 1) * sizeof(*results));
    enum err_code rc = OK;
    size_t n = 0;

    for (size_t i = 0; i < tasks; i++)
        if (r->keyed[i] && r->known[i].known && !(r->o->forced && r->o->forced[i]))
            results[n++] = r->known[i].result;
    if (n > 0 && n < tasks)
        rc = action_keep(r->st, results, n, HITS_KEEP_S, resolver_epoch(r->resolver), err);
    if (rc == ERR_CHANGED)
        rc = err_set(err, ERR_CHANGED,
                     "a gc removed objects while the run looked for results; run the same command "
                     "again");
    free(results);
    return rc;
}

/* One event for all that was known when the run began, whatever their number: their results are a tree. */
enum err_code run_note_cached(struct run *r, struct err *err)
{
    int64_t count = 0;

    for (size_t i = 0; i < r->p->task_count; i++) {
        const bool forced = r->o->forced && r->o->forced[i];

        r->slots[i].was_cached = r->keyed[i] && r->known[i].known && !forced;
        count += r->slots[i].was_cached;
    }
    if (count == 0)
        return OK;
    return run_note(r, json_pack("{s:s, s:I}", "event", "run.cached", "count", (json_int_t)count),
                    err);
}

/* ---- telling ----------------------------------------------------------------------------------- */

/* The last lines of its log, in r->log_tail; NULL when there is none. */
static const char *log_tail(struct run *r, const struct run_slot *s)
{
    struct err ignored = ERR_INIT;
    struct object *o = NULL;
    int64_t size, from;
    int lines = 0;
    size_t at, n;

    if (!s->files || digest_is_zero(&s->files->log) ||
        object_open(r->st, &s->files->log, &o, &ignored))
        return NULL;
    size = object_bytes(o);
    from = size > RUN_LOG_TAIL_BYTES ? size - RUN_LOG_TAIL_BYTES : 0;
    n = (size_t)(size - from);
    if (n > 0 && object_pread(o, r->log_tail, n, from, &ignored))
        n = 0;
    object_close(o);
    r->log_tail[n] = '\0';
    for (at = n; at > 0; at--)
        if (r->log_tail[at - 1] == '\n' && at < n && ++lines == LOG_TAIL_LINES)
            break;
    return n > 0 ? r->log_tail + at : NULL;
}

enum err_code run_tell(struct run *r, enum run_event_kind kind, int task, struct err *err)
{
    struct run_event e = {.kind = kind, .run = r->number};
    struct run_slot *s = task >= 0 ? &r->slots[task] : NULL;

    if (s) {
        e.task = &r->p->tasks[task];
        e.state = sched_state_of(r->sched, task);
        e.attempt = s->attempt;
        e.reason = s->reason;
        if (kind == RUN_ENDED) {
            s->told = true;
            r->report->counts[e.state]++;
            e.wall_ms = s->live ? s->live->wall_ms : 0;
            e.result = r->known[task].result;
            if (e.state == SCHED_CACHED && s->was_cached && r->o->quiet_cached)
                return OK;
            if (e.state == SCHED_FAILED)
                e.log_tail = log_tail(r, s);
        }
    }
    return r->o->on_event ? r->o->on_event(r->o->arg, &e, err) : OK;
}

/* ---- the tree of a run ------------------------------------------------------------------------- */

static enum err_code put_tree(struct writer *w, struct tree *t, struct digest *id, int64_t *size,
                              struct err *err)
{
    struct buf text = {0};
    enum err_code rc;

    buf_init(&text, TREE_BYTES_MAX);
    rc = tree_encode(t, &text, err);
    if (!rc)
        rc = writer_put(w, OBJ_TREE, text.p, text.n, id, err);
    *size = (int64_t)text.n;
    buf_release(&text);
    return rc;
}

static enum err_code add(struct tree *t, const char *name, enum obj_kind kind,
                         const struct digest *id, int64_t size, struct err *err)
{
    const struct tree_entry e = {.mode = kind == OBJ_TREE ? TREE_DIR : TREE_FILE,
                                 .name = str_of(name),
                                 .digest = *id,
                                 .size = size};

    return tree_add(t, &e, 0, err);
}

/* What is too large for one record goes the way of large files: the events of a hundred thousand tasks. */
static enum err_code put_large(struct run *r, struct writer *w, const struct buf *text,
                               struct digest *id, struct err *err)
{
    int64_t size;
    int dir = -1, fd = -1;
    enum err_code rc = os_open_dir(AT_FDCWD, r->st->root, &dir, err);

    if (!rc)
        rc = os_open(dir, ".", O_TMPFILE | O_RDWR, 0600, &fd, err);
    if (!rc)
        rc = os_write(fd, text->p, text->n, err);
    if (!rc)
        rc = writer_put_file(w, fd, "events of a run", id, &size, err);
    os_close_quiet(&fd);
    os_close_quiet(&dir);
    return rc;
}

static enum err_code add_blob(struct run *r, struct writer *w, struct tree *t, const char *name,
                              const struct buf *text, struct err *err)
{
    struct digest id;
    enum err_code rc = text->n > CODEC_RAW_MAX
                           ? put_large(r, w, text, &id, err)
                           : writer_put(w, OBJ_BLOB, text->p ? text->p : "", text->n, &id, err);

    return rc ? rc : add(t, name, OBJ_BLOB, &id, (int64_t)text->n, err);
}

static enum err_code add_tree(struct writer *w, struct tree *t, const char *name,
                              struct tree *inner, struct err *err)
{
    struct digest id;
    int64_t size;
    enum err_code rc = put_tree(w, inner, &id, &size, err);

    return rc ? rc : add(t, name, OBJ_TREE, &id, size, err);
}

static enum err_code add_kept(struct run *r, struct tree *t, const char *name,
                              const struct digest *id, struct err *err)
{
    int64_t size;
    enum err_code rc;

    if (digest_is_zero(id))
        return OK;
    rc = object_size(r->st, id, &size, err);
    if (rc == ERR_NOT_FOUND) { /* nothing kept it while the run was not over */
        *err = (struct err)ERR_INIT;
        return OK;
    }
    return rc ? rc : add(t, name, OBJ_BLOB, id, size, err);
}

static enum err_code add_logs(struct run *r, struct writer *w, struct tree *top, struct err *err)
{
    struct tree logs = {0};
    struct buf name = {0};
    enum err_code rc = OK;

    tree_init(&logs);
    buf_init(&name, TREE_NAME_MAX * 3 + 1);
    for (size_t i = 0; !rc && i < r->p->task_count; i++) {
        const struct run_files *f = r->slots[i].files;
        struct tree one = {0};

        if (!f)
            continue;
        tree_init(&one);
        buf_clear(&name);
        rc = record_name_escape(r->p->tasks[i].name, &name, err);
        if (!rc)
            rc = add_kept(r, &one, "log", &f->log, err);
        if (!rc)
            rc = add_kept(r, &one, "events", &f->events, err);
        if (!rc && one.count > 0)
            rc = add_tree(w, &logs, name.p, &one, err);
        tree_release(&one);
    }
    if (!rc && logs.count > 0)
        rc = add_tree(w, top, "logs", &logs, err);
    tree_release(&logs);
    buf_release(&name);
    return rc;
}

/* The records file that an entry record names: licences of single files must not be lost before what they are about. */
static enum err_code add_records(struct run *r, struct tree *records, const char *name,
                                 const struct digest *entry, struct err *err)
{
    struct buf text = {0};
    struct digest id;
    const char *hex;
    json_t *v = NULL;
    int64_t size;
    enum err_code rc;

    buf_init(&text, LEDGER_EVENT_MAX);
    rc = object_read(r->st, entry, LEDGER_EVENT_MAX, &text, err);
    if (!rc)
        rc = json_parse(text.p, text.n, LEDGER_EVENT_MAX, "entry record", &v, err);
    hex = json_string_value(json_object_get(v, "records"));
    if (!rc && hex)
        rc = digest_parse(hex, strlen(hex), &id, err);
    if (!rc && hex)
        rc = object_size(r->st, &id, &size, err);
    if (!rc && hex)
        rc = add(records, name, OBJ_BLOB, &id, size, err);
    json_decref(v);
    buf_release(&text);
    return rc;
}

static enum err_code add_sources(struct run *r, struct writer *w, struct tree *top, struct err *err)
{
    struct tree entries = {0}, records = {0};
    enum err_code rc = OK;

    tree_init(&entries);
    tree_init(&records);
    for (size_t i = 0; !rc && i < r->p->source_count; i++) {
        const struct source_object *o = source_get(resolver_sources(r->resolver), (int)i);
        int64_t size;

        if (!o || digest_is_zero(&o->entry))
            continue;
        rc = object_size(r->st, &o->entry, &size, err);
        if (!rc)
            rc = add(&entries, r->p->sources[i].name, OBJ_BLOB, &o->entry, size, err);
        if (!rc && r->p->sources[i].records)
            rc = add_records(r, &records, r->p->sources[i].name, &o->entry, err);
    }
    if (!rc && entries.count > 0)
        rc = add_tree(w, top, "sources", &entries, err);
    if (!rc && records.count > 0)
        rc = add_tree(w, top, "records", &records, err);
    tree_release(&entries);
    tree_release(&records);
    return rc;
}

/* Its row as of what is exported: the tree cannot hold the event that names the tree. */
static enum err_code add_about(struct run *r, struct writer *w, struct tree *top, struct err *err)
{
    struct ledger_run row;
    struct buf text = {0};
    json_t *v;
    enum err_code rc = ledger_get_run(r->ledger, r->number, &row, err);

    if (rc)
        return rc;
    row.state = r->row.state;
    row.ended_ns = r->row.ended_ns;
    row.tasks = r->row.tasks;
    row.cached = r->row.cached;
    row.ran = r->row.ran;
    row.failed = r->row.failed;
    row.skipped = r->row.skipped;
    row.blocked = r->row.blocked;
    v = run_row_json(&row);
    buf_init(&text, LEDGER_EVENT_MAX);
    rc = json_canonical(v, &text, err);
    if (!rc)
        rc = add_blob(r, w, top, "run.json", &text, err);
    json_decref(v);
    buf_release(&text);
    return rc;
}

static enum err_code put_run(struct run *r, struct writer *w, struct digest *id, struct err *err)
{
    struct tree top = {0};
    struct buf text = {0};
    struct digest tasks;
    int64_t size;
    enum err_code rc;

    tree_init(&top);
    buf_init(&text, TREE_BYTES_MAX);
    rc = resolve_results_tree(r->resolver, w, &tasks, &size, err);
    if (!rc)
        rc = add(&top, "tasks", OBJ_TREE, &tasks, size, err);
    if (!rc)
        rc = os_read_file(AT_FDCWD, r->p->file, PIPELINE_BYTES_MAX, &text, err);
    if (!rc)
        rc = add_blob(r, w, &top, "pipeline.yaml", &text, err);
    buf_clear(&text);
    if (!rc)
        rc = ledger_export(r->ledger, r->number, &text, err);
    if (!rc)
        rc = add_blob(r, w, &top, "events", &text, err);
    if (!rc)
        rc = add_about(r, w, &top, err);
    if (!rc)
        rc = add_logs(r, w, &top, err);
    if (!rc)
        rc = add_sources(r, w, &top, err);
    if (!rc)
        rc = put_tree(w, &top, id, &size, err);
    tree_release(&top);
    buf_release(&text);
    return rc;
}

/* ---- refs -------------------------------------------------------------------------------------- */

static enum err_code publish(struct run *r, struct writer *w, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < r->p->publish_count; i++) {
        const struct publish *p = &r->p->publishes[i];
        const struct task_result *t = &r->known[p->task];

        for (size_t k = 0; !rc && t->known && k < t->output_count; k++)
            if (strcmp(t->outputs[k].name, p->output) == 0)
                rc = writer_ref(w,
                                str_of(arena_printf(&r->arena, "%s/%s.%s@%s", r->p->name,
                                                    r->p->tasks[p->task].name, p->output, p->name)),
                                t->outputs[k].kind, &t->outputs[k].digest, err);
    }
    return rc;
}

static enum err_code store_tree(struct run *r, enum run_state state, struct digest *top,
                                struct err *err)
{
    struct writer *w = NULL;
    enum err_code rc = writer_open(r->st, &w, err);

    if (!rc)
        rc = put_run(r, w, top, err);
    if (!rc)
        rc = writer_ref(w, str_of(arena_printf(&r->arena, "runs/run-%lld", (long long)r->number)),
                        OBJ_TREE, top, err);
    if (!rc)
        rc = run_unpin(r, w, err);
    if (!rc && state == RUN_SUCCEEDED && (!r->o->altered || r->o->publish))
        rc = publish(r, w, err);
    if (!rc)
        rc = writer_commit(w, err);
    writer_release(w);
    return rc;
}

/* The tree first, then the event that says so: killed in between, the run goes on, finds everything, and ends again. */
enum err_code run_keep(struct run *r, enum run_state state, struct err *err)
{
    struct digest top;
    json_t *counts = json_object();
    enum err_code rc;

    r->row.state = state;
    r->row.ended_ns = os_now_ns();
    count(r);
    for (int i = 0; i < SCHED_STATE_COUNT; i++)
        if (r->report->counts[i])
            json_object_set_new(counts, sched_state_words[i], json_integer(r->report->counts[i]));
    rc = run_commit(r, err);
    if (!rc)
        rc = store_tree(r, state, &top, err);
    if (!rc)
        rc = run_note(r,
                      json_pack("{s:s, s:s, s:O, s:o}", "event", "run.end", "state",
                                run_state_words[state], "counts", counts, "tree",
                                run_digest_json(&top)),
                      err);
    if (!rc)
        rc = run_commit(r, err);
    json_decref(counts);
    return rc;
}
