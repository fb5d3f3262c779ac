/* Reading a pipeline file: overlays first, then one pass per kind of thing, each collecting problems. */
#include "orchestrator/pipeline.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/os.h"
#include "orchestrator/pipeline_internal.h"

/* ---- finding things ---------------------------------------------------------------------------- */

int pipeline_find_stage(const struct pipeline *p, const char *name)
{
    return names_find(p->stage_names, name, strlen(name));
}

int pipeline_find_source(const struct pipeline *p, const char *name)
{
    return names_find(p->source_names, name, strlen(name));
}

int pipeline_find_task(const struct pipeline *p, const char *name)
{
    const size_t n = strlen(name), head = strcspn(name, "[");
    const int s = names_find(p->stage_names, name, head);
    struct selector_problem why;

    if (s < 0)
        return -1;
    if (head == n)
        return p->stages[s].matrix_count == 0 ? p->stages[s].first_task : -1;
    if (p->stages[s].matrix_count == 0 || name[n - 1] != ']')
        return -1;
    return select_instance(&p->stages[s], name + head + 1, n - head - 2, &why);
}

/* ---- reading ----------------------------------------------------------------------------------- */

/* Length first: no two lists of texts give the same bytes. */
void origin_text(struct sha256 *h, const char *text, size_t n)
{
    const uint64_t size = n;

    sha256_update(h, &size, sizeof(size));
    sha256_update(h, text, n);
}

void origin_end(struct sha256 *h, const struct digest *options, struct digest *out)
{
    sha256_update(h, options, sizeof(*options));
    sha256_final(h, out);
}

static void origin_texts(struct sha256 *h, const char *const *list)
{
    size_t n = 0;

    while (list && list[n])
        n++;
    origin_text(h, (const char *)&n, sizeof(n));
    for (size_t i = 0; i < n; i++)
        origin_text(h, list[i], strlen(list[i]));
}

void options_digest(const struct pipeline_options *o, struct digest *out)
{
    struct sha256 h = {0};

    sha256_init(&h);
    origin_texts(&h, o->profiles);
    origin_texts(&h, o->param_files);
    origin_texts(&h, o->sets);
    sha256_final(&h, out);
    sha256_release(&h);
}

const struct node *load_nodes(struct loader *l, const char *text, size_t n, const char *file)
{
    struct yaml_doc *doc = NULL;
    struct buf errors;
    struct err err = ERR_INIT;
    const size_t before = l->problems.count;

    buf_init(&errors, 1 << 20);
    if (yaml_parse(text, n, file, &doc, &errors, &err) != OK) {
        take_syntax_errors(l, errors.p, text, n, file);
        if (l->problems.count == before)
            problem_add(&l->problems, (struct pos){file, 0, 0}, "%s", err.text);
    }
    buf_release(&errors);
    if (!doc)
        return NULL;
    l->docs = mem_grow(l->docs, l->doc_count + 1, sizeof(*l->docs));
    l->docs[l->doc_count++] = doc;
    return node_from_yaml(&l->scratch, yaml_root(doc), file);
}

static enum err_code read_pipeline(struct loader *l, const char *path, struct buf *errors,
                                   struct err *err)
{
    struct buf text;
    enum err_code rc;

    buf_init(&text, PIPELINE_BYTES_MAX);
    rc = os_read_file(AT_FDCWD, path, PIPELINE_BYTES_MAX, &text, err);
    if (rc == ERR_IO && err->sys == EISDIR)
        rc = err_set(err, ERR_INPUT, "%s is a directory; name a pipeline file in it", path);
    if (rc == OK)
        origin_text(&l->origin, text.p ? text.p : "", text.n);
    if (rc == OK)
        l->root = load_nodes(l, text.p ? text.p : "", text.n, l->p->file);
    else if (errors)
        buf_printf(errors, "%s\n", err->text);
    buf_release(&text);
    return rc;
}

/* ---- the whole --------------------------------------------------------------------------------- */

static void decode_top(struct loader *l)
{
    static const char *const keys[] = {"weir",     "name",   "description", "params", "profiles",
                                       "sources",  "policy", "defaults",    "stages", "publish",
                                       "schedule", "notify", NULL};
    const struct node *version, *name, *description;

    l->root = check_keys(l, l->root, keys, "the pipeline", "");
    version = node_get(l->root, "weir");
    name = node_get(l->root, "name");
    description = node_get(l->root, "description");
    if (!version)
        problem_add(&l->problems, l->root->pos,
                    "the format's version is missing; a pipeline starts with 'weir: 1'");
    else if (version->type == YAML_INT && version->integer > 1)
        problem_add(&l->problems, version->pos,
                    "pipeline format %.20s needs a newer weir; this one reads format 1",
                    version->text);
    else if (version->type != YAML_INT || version->integer != 1)
        problem_add(&l->problems, version->pos,
                    "this weir reads pipeline format 1; write 'weir: 1'");
    l->p->name = want_string(l, name, "name");
    if (l->p->name)
        check_name(l, l->p->name, NAME_THING, name->pos, "a pipeline");
    else if (!name)
        problem_add(&l->problems, l->root->pos,
                    "the pipeline has no name; write one as in 'name: my-model'");
    if (!l->p->name)
        l->p->name = "";
    l->p->description = want_text(l, description, "description");
}

static void decode_all(struct loader *l)
{
    if (l->root->type != YAML_MAP) {
        problem_add(&l->problems, l->root->pos,
                    "a pipeline is a map that starts with 'weir: 1', found %s",
                    node_type_name(l->root));
        return;
    }
    decode_top(l);
    l->file_params = node_get(l->root, "params");
    overlay_all(l);
    decode_sources(l); /* before params, which may speak of them */
    decode_params(l);
    decode_policy(l);
    decode_schedules(l);
    decode_notifies(l);
    decode_stages(l);
    expand_tasks(l);
    expand_inputs(l);
    decode_publishes(l);
    order_tasks(l);
}

static const char *folder_of(struct arena *a, const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? arena_strndup(a, path, slash == path ? 1 : (size_t)(slash - path)) : ".";
}

/* Positions of options have no line. */
static bool only_options(const struct problems *ps)
{
    for (size_t i = 0; i < ps->count; i++)
        if (ps->list[i].pos.line > 0 || strncmp(ps->list[i].pos.file, "--", 2) != 0)
            return false;
    return ps->count > 0;
}

static void release_loader(struct loader *l)
{
    for (size_t i = 0; i < l->doc_count; i++)
        yaml_free(l->docs[i]);
    free(l->docs);
    free(l->refs);
    buf_release(&l->text);
    arena_release(&l->scratch);
    sha256_release(&l->origin);
    free(l);
}

enum err_code pipeline_load(const char *path, const struct pipeline_options *o,
                            struct pipeline **out, struct buf *errors, struct err *err)
{
    static const struct pipeline_options nothing = {0};
    struct pipeline *p = mem_zero(1, sizeof(*p));
    struct loader *l = mem_zero(1, sizeof(*l));
    enum err_code rc;

    CHECK(path);
    CHECK(out);
    arena_init(&p->arena);
    arena_init(&l->scratch);
    buf_init(&l->text, PIPELINE_BYTES_MAX);
    l->arena = &p->arena;
    l->problems.arena = &l->scratch;
    l->p = p;
    l->o = o ? o : &nothing;
    l->budget = l->o->value_bytes_max ? l->o->value_bytes_max : PIPELINE_VALUE_BYTES_MAX;
    sha256_init(&l->origin);
    p->values = json_array();
    CHECK(p->values);
    p->file = arena_strdup(&p->arena, path);
    p->dir = folder_of(&p->arena, path);
    rc = read_pipeline(l, path, errors, err);
    if (rc == OK) {
        if (l->root)
            decode_all(l);
        options_digest(l->o, &p->options);
        origin_end(&l->origin, &p->options, &p->origin);
        rc = problems_report(&l->problems, errors, err);
        if (rc == ERR_INPUT && only_options(&l->problems))
            rc = err->code = ERR_USAGE;
    }
    release_loader(l);
    if (rc) {
        pipeline_free(p);
        p = NULL;
    }
    *out = p;
    return rc;
}

void pipeline_free(struct pipeline *p)
{
    if (!p)
        return;
    json_decref(p->values);
    arena_release(&p->arena);
    if (p->image)
        (void)munmap(p->image, p->image_bytes);
    free(p);
}
