/* The door: which sources are wanted, artifacts by name, what --input may say. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "orchestrator/source_internal.h"
#include "store/ingest.h"
#include "store/reader.h"

#define CODE_TOGETHER_MAX 2000 /* found by a walk through the list; more are entered one by one */

/* ---- small things --------------------------------------------------------------------------------- */

enum err_code source_wrong(const struct source *s, struct err *err)
{
    return err_prefix(err, "%s:%d:%d: source %s", s->pos.file ? s->pos.file : "-", s->pos.line,
                      s->pos.column, s->name);
}

const char *source_path_below(struct arena *a, const char *dir, const char *path)
{
    if (path[0] == '/' || strcmp(dir, ".") == 0)
        return arena_strdup(a, path);
    return arena_printf(a, "%s/%s", dir, path);
}

enum err_code source_there(struct store *st, const struct digest *d, bool *there,
                           enum obj_kind *kind, struct err *err)
{
    struct digest missing;
    struct loc loc;
    enum err_code rc = object_locate(st, d, 1, &loc, err);

    *there = !rc && loc.type != 0;
    *kind = OBJ_NONE;
    if (rc || !*there)
        return rc;
    *kind = loc.flags & REC_TREE ? OBJ_TREE : OBJ_BLOB;
    return store_complete(st, *kind, d, there, &missing, err);
}

enum err_code source_cache_dir(struct store *st, const char *name, int *fd, struct err *err)
{
    struct buf path;
    enum err_code rc;

    buf_init(&path, 1 << 16);
    buf_printf(&path, "%s/cache%s%s", st->root, *name ? "/" : "", name);
    rc = buf_check(&path, "path of the cache", err);
    if (!rc)
        rc = os_mkdirs(path.p, 0755, err);
    if (!rc)
        rc = os_open_dir(AT_FDCWD, path.p, fd, err);
    buf_release(&path);
    return rc;
}

static enum err_code complete_object(struct store *st, struct source_object *o, const char *what,
                                     struct err *err)
{
    bool there;
    enum err_code rc = source_there(st, &o->digest, &there, &o->kind, err);

    if (!rc && !there)
        rc = err_set(err, ERR_NOT_FOUND,
                     "%s is named here, but not all of it is in this store; weir store pull "
                     "brings it from a remote",
                     what);
    if (!rc)
        rc = object_size(st, &o->digest, &o->size, err);
    return rc;
}

static enum err_code from_store(struct store *st, const char *text, struct source_object *out,
                                struct err *err)
{
    enum err_code rc;

    *out = (struct source_object){0};
    rc = store_resolve(st, str_of(text), &out->digest, &out->kind, err);
    return rc ? rc : complete_object(st, out, text, err);
}

/* ---- artifacts ------------------------------------------------------------------------------------ */

static bool run_number(struct str s, int64_t *out)
{
    struct err ignored = ERR_INIT;

    return str_starts(s, STR("run-")) &&
           str_to_i64((struct str){s.p + 4, s.n - 4}, 1, INT64_MAX, out, &ignored) == OK;
}

/* In names of a tree's entries a task's '/' and '%' are escaped (record.h). */
static void add_task(struct buf *b, struct str task)
{
    for (size_t i = 0; i < task.n; i++)
        if (task.p[i] == '/')
            buf_str(b, "%2F");
        else if (task.p[i] == '%')
            buf_str(b, "%25");
        else
            buf_char(b, task.p[i]);
}

/* what: TASK.OUTPUT.  The output's name holds no dot, values of a matrix may. */
static enum err_code run_output_object(struct store *st, int64_t run, struct str what,
                                       struct source_object *out, struct err *err)
{
    const char *dot = memrchr(what.p, '.', what.n);
    struct buf path;
    enum err_code rc;

    if (!dot || dot == what.p || dot + 1 == what.p + what.n)
        return err_set(err, ERR_INPUT, "'%.*s' is no output; write STAGE.OUTPUT", (int)what.n,
                       what.p);
    buf_init(&path, 1 << 16);
    buf_printf(&path, "runs/run-%lld:tasks/", (long long)run);
    add_task(&path, (struct str){what.p, (size_t)(dot - what.p)});
    buf_str(&path, "/out/");
    buf_add(&path, dot + 1, (size_t)(what.p + what.n - dot - 1));
    rc = buf_check(&path, "name of an output", err);
    if (!rc)
        rc = from_store(st, path.p, out, err);
    if (rc == ERR_NOT_FOUND)
        (void)err_prefix(err, "run-%lld has no output %.*s here", (long long)run, (int)what.n,
                         what.p);
    buf_release(&path);
    return rc;
}

static enum err_code published(struct store *st, const char *pipeline, const char *text,
                               struct source_object *out, struct err *err)
{
    struct buf name;
    enum err_code rc;

    buf_init(&name, 1 << 16);
    /* [k=a/b] may hold a slash: only one before it separates the pipeline's name. */
    if (pipeline && !memchr(text, '/', strcspn(text, "[@")))
        buf_printf(&name, "%s/", pipeline);
    buf_str(&name, text);
    rc = buf_check(&name, "name of an artifact", err);
    if (!rc)
        rc = from_store(st, name.p, out, err);
    if (rc == ERR_NOT_FOUND)
        (void)err_prefix(err, "nothing is published as %s (weir ref ls shows what is)", name.p);
    buf_release(&name);
    return rc;
}

enum err_code source_artifact(struct store *st, const char *pipeline, const char *text,
                              struct source_object *out, struct err *err)
{
    const char *at = strrchr(text, '@');
    struct str what = {text, at ? (size_t)(at - text) : 0};
    const char *slash;
    int64_t run;

    if (!at || strncmp(text, "sha256:", 7) == 0)
        return from_store(st, text, out, err);
    if (!run_number(str_of(at + 1), &run))
        return published(st, pipeline, text, out, err);
    slash = memchr(text, '/', strcspn(text, "[@"));
    if (slash) /* run numbers are one sequence, so the pipeline's name says nothing new */
        what = (struct str){slash + 1, (size_t)(at - slash - 1)};
    return run_output_object(st, run, what, out, err);
}

/* ---- texts ---------------------------------------------------------------------------------------- */

struct one_path {
    const char *path;
    struct source_object *out;
    struct progress *progress;
};

static enum err_code enter_one(struct enter *e, void *arg, struct err *err)
{
    struct one_path *one = arg;
    struct ingest_item item = {.path = one->path};
    const struct ingest_options o = {
        .how = INGEST_COPY, .no_memo = e->no_memo, .progress = one->progress};
    enum err_code rc = ingest_many(e->w, AT_FDCWD, &item, 1, &o, NULL, err);

    if (rc)
        return rc;
    *one->out = (struct source_object){
        .kind = item.result.kind, .digest = item.result.digest, .size = item.result.size};
    enter_keep(e, &item.result.digest);
    return OK;
}

static bool exists(const char *path)
{
    struct err ignored = ERR_INIT;
    struct stat st;

    return os_stat_at(AT_FDCWD, path, &st, &ignored) == OK;
}

enum err_code source_resolve_text(struct store *st, const char *dir, const char *text,
                                  struct source_object *out, struct err *err)
{
    const char *colon = strchr(text, ':');
    struct arena a;
    struct one_path one = {.out = out};
    bool plain, is_path;
    int64_t run;
    enum err_code rc;

    CHECK(st);
    CHECK(dir);
    CHECK(out);
    *out = (struct source_object){0};
    if (!*text)
        return err_set(err, ERR_INPUT,
                       "an empty input; name a path, a ref, a digest or run-N:STAGE.OUTPUT");
    if (strncmp(text, "sha256:", 7) == 0)
        return from_store(st, text, out, err);
    if (colon && run_number((struct str){text, (size_t)(colon - text)}, &run))
        return run_output_object(st, run, str_of(colon + 1), out, err);
    arena_init(&a);
    one.path = source_path_below(&a, dir, text);
    plain = text[0] == '/' || strncmp(text, "./", 2) == 0 || strncmp(text, "../", 3) == 0;
    is_path = plain || exists(one.path);
    rc = plain ? ERR_NOT_FOUND : source_artifact(st, NULL, text, out, err);
    if (!rc && is_path)
        rc = err_set(err, ERR_USAGE,
                     "'%s' is a path and also the name of an object; write ./%s for the path, or "
                     "the object's digest",
                     text, text);
    else if (rc && is_path) {
        *err = (struct err)ERR_INIT;
        rc = enter_run(st, enter_one, &one, err);
    } else if (rc == ERR_NOT_FOUND || rc == ERR_INPUT) {
        rc = err_set(err, ERR_NOT_FOUND,
                     "'%s' is neither a path, nor a ref, a digest or run-N:STAGE.OUTPUT that is "
                     "known here",
                     text);
    }
    arena_release(&a);
    return rc;
}

/* ---- life ----------------------------------------------------------------------------------------- */

static enum err_code read_lock(struct sources *s, struct err *err)
{
    struct buf text;
    enum err_code rc;

    buf_init(&text, SOURCE_LOCK_BYTES_MAX);
    rc = os_read_file(AT_FDCWD, s->lock_path, SOURCE_LOCK_BYTES_MAX, &text, err);
    if (rc == ERR_NOT_FOUND) {
        rc = OK;
        *err = (struct err)ERR_INIT;
    } else if (!rc) {
        rc = lock_parse(text.p, text.n, s->lock_path, &s->arena, &s->lock, err);
        if (rc == ERR_INPUT && s->o.update) { /* that is what writes it anew */
            *err = (struct err)ERR_INIT;
            s->lock = (struct lock){0};
            rc = OK;
        }
    }
    buf_release(&text);
    return rc;
}

/* NAME.lock beside NAME.yaml */
static const char *lock_path_of(struct sources *s)
{
    const char *file = s->p->file, *slash = strrchr(file, '/');
    const char *base = slash ? slash + 1 : file, *dot = strrchr(base, '.');
    const size_t n = dot && dot > base ? (size_t)(dot - file) : strlen(file);

    return arena_printf(&s->arena, "%.*s.lock", (int)n, file);
}

static bool pinned(const struct source *s)
{
    return s->kind == SOURCE_DEB || s->kind == SOURCE_URL;
}

enum err_code sources_new(struct store *st, const struct pipeline *p,
                          const struct source_options *o, struct sources **out, struct err *err)
{
    struct sources *s;
    bool lock = false;
    enum err_code rc = OK;

    CHECK(st);
    CHECK(p);
    CHECK(out);
    *out = NULL;
    s = mem_zero(1, sizeof(*s));
    arena_init(&s->arena);
    s->st = st;
    s->p = p;
    if (o)
        s->o = *o;
    s->list = arena_array(&s->arena, p->source_count + 1, sizeof(*s->list));
    s->lock_path = lock_path_of(s);
    for (size_t i = 0; i < p->source_count; i++)
        lock = lock || pinned(&p->sources[i]);
    if (lock)
        rc = read_lock(s, err);
    if (rc)
        sources_free(s);
    else
        *out = s;
    return rc;
}

void sources_free(struct sources *s)
{
    if (!s)
        return;
    free(s->code);
    arena_release(&s->arena);
    free(s);
}

static enum err_code enter_other(struct sources *s, int number, struct err *err)
{
    const struct source *source = &s->p->sources[number];
    struct entered *e = &s->list[number];
    enum err_code rc = OK;

    switch (source->kind) {
    case SOURCE_ARTIFACT:
        rc = source_artifact(s->st, s->p->name, source->location, &e->object, err);
        break;
    case SOURCE_DEB:
        rc = source_enter_deb(s, number, err);
        break;
    case SOURCE_URL:
        rc = source_enter_url(s, number, err);
        break;
    case SOURCE_PATH:
        CHECK(false); /* they are entered together */
    }
    if (rc)
        return source_wrong(source, err);
    e->done = true;
    return OK;
}

enum err_code sources_enter(struct sources *s, const bool *wanted, struct err *err)
{
    const struct pipeline *p;
    int *paths;
    size_t n = 0;
    enum err_code rc = OK;

    CHECK(s);
    p = s->p;
    paths = mem_alloc((p->source_count + 1) * sizeof(*paths));
    for (size_t i = 0; !rc && i < p->source_count; i++)
        if ((!wanted || wanted[i]) && !s->list[i].done) {
            if (p->sources[i].kind != SOURCE_ARTIFACT && !p->sources[i].license)
                rc = err_set(err, ERR_DENIED,
                             "%s:%d:%d: source %s has no license; give an SPDX expression",
                             p->sources[i].pos.file, p->sources[i].pos.line,
                             p->sources[i].pos.column, p->sources[i].name);
            if (p->sources[i].kind == SOURCE_PATH)
                paths[n++] = (int)i;
        }
    if (!rc && n)
        rc = source_enter_paths(s, paths, n, err);
    for (size_t i = 0; !rc && i < p->source_count; i++)
        if ((!wanted || wanted[i]) && !s->list[i].done)
            rc = enter_other(s, (int)i, err);
    free(paths);
    return rc;
}

const struct source_object *source_get(const struct sources *s, int source)
{
    CHECK(s);
    CHECK(source >= 0 && (size_t)source < s->p->source_count);
    return s->list[source].done ? &s->list[source].object : NULL;
}

static struct code_path *find_code(struct sources *s, const char *path)
{
    for (size_t i = 0; i < s->code_count; i++)
        if (strcmp(s->code[i].path, path) == 0)
            return &s->code[i];
    return NULL;
}

static void add_code(struct sources *s, const char *path)
{
    if (find_code(s, path))
        return;
    if (s->code_count == s->code_cap) {
        s->code_cap = s->code_cap ? s->code_cap * 2 : 16;
        s->code = mem_grow(s->code, s->code_cap, sizeof(*s->code));
    }
    s->code[s->code_count++] = (struct code_path){.path = arena_strdup(&s->arena, path)};
}

static enum err_code enter_code(struct enter *e, void *arg, struct err *err)
{
    struct sources *s = arg;
    const struct ingest_options o = {
        .how = INGEST_COPY, .no_memo = e->no_memo, .progress = s->o.progress};
    struct ingest_item *items = mem_zero(s->code_count + 1, sizeof(*items));
    enum err_code rc;

    for (size_t i = 0; i < s->code_count; i++)
        items[i].path = source_path_below(&s->arena, s->p->dir, s->code[i].path);
    rc = ingest_many(e->w, AT_FDCWD, items, s->code_count, &o, NULL, err);
    for (size_t i = 0; !rc && i < s->code_count; i++) {
        s->code[i].object = (struct source_object){.kind = items[i].result.kind,
                                                   .digest = items[i].result.digest,
                                                   .size = items[i].result.size};
        enter_keep(e, &items[i].result.digest);
    }
    free(items);
    return rc;
}

/* Those of all stages in one session, when all are there; else each by itself, as it is asked for, so that a file that only a stage without
 * work names may be missing. */
static void enter_all_code(struct sources *s)
{
    struct err ignored = ERR_INIT;

    s->code_tried = true;
    for (size_t i = 0; i < s->p->stage_count; i++)
        for (size_t k = 0; s->p->stages[i].code[k] && s->code_count < CODE_TOGETHER_MAX; k++)
            add_code(s, s->p->stages[i].code[k]);
    if (s->code_count && enter_run(s->st, enter_code, s, &ignored) != OK)
        s->code_count = 0;
}

enum err_code source_code(struct sources *s, const char *path, struct source_object *out,
                          struct err *err)
{
    struct one_path one = {.out = out, .progress = NULL};
    const struct code_path *known;
    enum err_code rc;

    CHECK(s);
    CHECK(path);
    CHECK(out);
    if (!s->code_tried)
        enter_all_code(s);
    known = find_code(s, path);
    if (known) {
        *out = known->object;
        return OK;
    }
    one.path = source_path_below(&s->arena, s->p->dir, path);
    one.progress = s->o.progress;
    *out = (struct source_object){0};
    rc = enter_run(s->st, enter_one, &one, err);
    if (rc)
        return rc;
    add_code(s, path);
    s->code[s->code_count - 1].object = *out;
    return OK;
}
