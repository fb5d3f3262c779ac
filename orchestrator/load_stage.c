/* Typed reading of stages: defaults laid under each, then key by key.  What depends on a matrix waits for load_expand.c.
 *
 * What the format leaves open:
 * - defaults may hold what makes sense for every stage: resources, retries, checkpoint, timeout, device, env, params.
 * - Without a word about it a stage has 1 cpu, 1 try, and checkpoints every 5 minutes, the last 2 kept; device cuda has
 *   1 gpu, and there are as many ranks as nodes. */
#include <string.h>

#include "base/hash.h"
#include "orchestrator/pipeline_internal.h"

const char *const stage_keys[] = {"uses",      "run",        "code",    "env",     "inputs",
                                  "outputs",   "params",     "matrix",  "when",    "device",
                                  "resources", "checkpoint", "retries", "timeout", NULL};
static const char *const default_keys[] = {"resources", "retries", "checkpoint", "timeout",
                                           "device",    "env",     "params",     NULL};

/* ---- what runs --------------------------------------------------------------------------------- */

static void decode_uses(struct loader *l, struct stage *st, const struct node *n)
{
    const char *text = want_string(l, n, "uses"), *at = text ? strchr(text, '@') : NULL;
    struct digest d;
    struct err err = ERR_INIT;

    if (!text)
        return;
    st->uses = at ? arena_strndup(l->arena, text, (size_t)(at - text)) : text;
    if (strpbrk(st->uses, "/. "))
        problem_add(&l->problems, n->pos,
                    "uses names a shipped program such as pretrain; for '%s' write run and code",
                    text);
    else
        check_name(l, st->uses, NAME_THING, n->pos, "a program");
    if (!at)
        return;
    st->uses_digest = at + 1;
    if (strncmp(at + 1, "sha256:", 7) != 0 || digest_parse(at + 1, strlen(at + 1), &d, &err))
        problem_add(&l->problems, n->pos,
                    "a program is pinned by its digest: %s@sha256:<64 hex digits>", st->uses);
}

/* Below the pipeline's folder, whatever links there are: without "..", "." and empty parts. */
static bool code_path_ok(const char *path)
{
    if (!*path)
        return false;
    for (const char *p = path; *p; p += strcspn(p, "/"), p += *p == '/') {
        const size_t n = strcspn(p, "/");

        if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return false;
    }
    return true;
}

static void decode_code(struct loader *l, struct stage *st, const struct node *n)
{
    const struct node **items;

    st->code = want_strings(l, n, "code", &items);
    for (size_t i = 0; st->code[i]; i++) {
        if (!code_path_ok(st->code[i]))
            problem_add(
                &l->problems, items[i]->pos,
                "code '%s' must be a relative path below the pipeline's folder, without . and ..",
                st->code[i]);
        for (size_t k = 0; k < i; k++)
            if (strcmp(st->code[k], st->code[i]) == 0)
                problem_add(&l->problems, items[i]->pos, "code '%s' is listed twice", st->code[i]);
    }
    if (n && st->uses)
        problem_add(&l->problems, n->pos, "code goes with run; %s is a shipped program", st->uses);
}

static bool variable_ok(const char *s)
{
    for (const char *p = s; *p; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || *p == '_' ||
              (p > s && *p >= '0' && *p <= '9')))
            return false;
    return *s;
}

/* Variables that tell a stage about its task (stage-contract).  Names of inputs, outputs and params cannot collide among
 * themselves once in capitals, because '-' and '_' never meet in one; a declared variable could collide with any. */
static const char *taken_variable(const char *name)
{
    static const char *const own[] = {"HOME", "TMPDIR",          "LC_ALL",
                                      "TZ",   "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"};

    if (strncmp(name, "WEIR_", 5) == 0)
        return "variables that start with WEIR_ belong to weir";
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        if (strcmp(own[i], name) == 0)
            return "weir sets it for every task";
    return NULL;
}

static void decode_env(struct loader *l, struct stage *st, const struct node *n)
{
    const struct node **items;

    st->env = want_strings(l, n, "env", &items);
    for (size_t i = 0; st->env[i]; i++) {
        const char *taken = taken_variable(st->env[i]);

        if (!variable_ok(st->env[i]))
            problem_add(
                &l->problems, items[i]->pos,
                "'%s' is no variable's name; env lists names whose values are passed through",
                st->env[i]);
        else if (taken)
            problem_add(&l->problems, items[i]->pos, "%s cannot be passed through: %s", st->env[i],
                        taken);
        for (size_t k = 0; k < i; k++)
            if (strcmp(st->env[k], st->env[i]) == 0)
                problem_add(&l->problems, items[i]->pos, "%s is listed twice", st->env[i]);
    }
}

static bool is_empty(const struct node *run)
{
    return (run->type == YAML_STRING && !run->text[strspn(run->text, " \t\n")]) ||
           (run->type == YAML_LIST && run->count == 0);
}

static void decode_program(struct loader *l, struct stage *st, struct stage_draft *d,
                           const struct node *n)
{
    const struct node *uses = node_get(n, "uses"), *run = node_get(n, "run");

    if (!uses && !run)
        problem_add(&l->problems, st->pos,
                    "what does stage %s run? Give uses (a shipped program) or run (a command)",
                    st->name);
    if (uses && run)
        problem_add(&l->problems, run->pos, "stage %s has uses already; give one of uses and run",
                    st->name);
    if (uses)
        decode_uses(l, st, uses);
    else if (run && is_empty(run))
        problem_add(&l->problems, run->pos, "run is empty; give a command");
    else if (run && run->type != YAML_STRING && run->type != YAML_LIST)
        problem_add(&l->problems, run->pos,
                    "run must be a string (for sh -c) or a list (no shell), found %s",
                    node_type_name(run));
    else
        d->run = run;
    st->shell = d->run && d->run->type == YAML_STRING;
    decode_code(l, st, node_get(n, "code"));
    decode_env(l, st, node_get(n, "env"));
}

static void decode_outputs(struct loader *l, struct stage *st, struct stage_draft *d,
                           const struct node *n)
{
    const size_t before = l->problems.count;
    const struct node **items;

    if (!n || (n->type == YAML_LIST && n->count == 0))
        problem_add(&l->problems, n ? n->pos : st->pos,
                    "stage %s has no outputs; name at least one, as in outputs: [model]", st->name);
    st->outputs = want_strings(l, n, "outputs", &items);
    for (size_t i = 0; st->outputs[i]; i++) {
        check_name(l, st->outputs[i], NAME_THING, items[i]->pos, "an output");
        for (size_t k = 0; k < i; k++)
            if (strcmp(st->outputs[k], st->outputs[i]) == 0)
                problem_add(&l->problems, items[i]->pos, "output '%s' is named twice",
                            st->outputs[i]);
    }
    d->outputs_bad = l->problems.count > before;
}

/* ---- where and how often ------------------------------------------------------------------------ */

static void decode_resources(struct loader *l, struct stage *st, const struct node *n)
{
    static const char *const keys[] = {"cpus", "memory", "gpus", "nodes", "ranks", "time", NULL};
    struct resources *r = &st->resources;
    const struct node *gpus, *ranks;

    *r = (struct resources){.cpus = 1, .gpus = st->cuda, .nodes = 1, .ranks = 1};
    if (!want_map(l, n, "resources", ""))
        return;
    n = check_keys(l, n, keys, "resources", "");
    gpus = node_get(n, "gpus");
    ranks = node_get(n, "ranks");
    r->cpus = want_int(l, node_get(n, "cpus"), 1, 65536, 1, "cpus");
    r->gpus = want_int(l, gpus, 0, 65536, r->gpus, "gpus");
    r->nodes = want_int(l, node_get(n, "nodes"), 1, 65536, 1, "nodes");
    r->ranks = want_int(l, ranks, 1, 1 << 20, r->nodes, "ranks");
    r->memory_bytes = want_bytes(l, node_get(n, "memory"), 0, "memory");
    r->time_s = want_seconds(l, node_get(n, "time"), 1, 0, "time");
    if (ranks && r->ranks < r->nodes)
        problem_add(&l->problems, ranks->pos, "ranks is %lld, fewer than the %lld nodes",
                    (long long)r->ranks, (long long)r->nodes);
    if (st->cuda && gpus && gpus->type == YAML_INT && gpus->integer == 0)
        problem_add(&l->problems, gpus->pos,
                    "stage %s runs on cuda and needs gpus: 1 or more, or device: cpu", st->name);
}

static void decode_limits(struct loader *l, struct stage *st, const struct node *n)
{
    static const char *const retry_keys[] = {"attempts", "backoff", NULL};
    static const char *const checkpoint_keys[] = {"every", "keep", NULL};
    const struct node *retries = node_get(n, "retries"), *ckpt = node_get(n, "checkpoint"),
                      *device = node_get(n, "device");
    const char *d = want_string(l, device, "device");

    if (d && strcmp(d, "cpu") != 0 && strcmp(d, "cuda") != 0)
        problem_add(&l->problems, device->pos, "device is cpu or cuda, not '%s'", d);
    st->has_device = d != NULL;
    st->cuda = d && strcmp(d, "cuda") == 0;
    decode_resources(l, st, node_get(n, "resources"));
    st->attempts = 1;
    st->backoff_s = 0;
    if (want_map(l, retries, "retries", "")) {
        retries = check_keys(l, retries, retry_keys, "retries", "");
        st->attempts = want_int(l, node_get(retries, "attempts"), 1, 1000, 1, "retries.attempts");
        st->backoff_s = want_seconds(l, node_get(retries, "backoff"), 0, 0, "retries.backoff");
    }
    st->checkpoint_every_s = 300;
    st->checkpoint_keep = 2;
    if (want_map(l, ckpt, "checkpoint", "")) {
        ckpt = check_keys(l, ckpt, checkpoint_keys, "checkpoint", "");
        st->checkpoint_every_s =
            want_seconds(l, node_get(ckpt, "every"), 1, 300, "checkpoint.every");
        st->checkpoint_keep = want_int(l, node_get(ckpt, "keep"), 1, 1000, 2, "checkpoint.keep");
    }
    st->timeout_s = want_seconds(l, node_get(n, "timeout"), 1, 0, "timeout");
}

/* ---- all of it --------------------------------------------------------------------------------- */

static void decode_stage(struct loader *l, const struct node_member *m, struct stage *st,
                         struct stage_draft *d, const struct node *defaults)
{
    const struct node *n = m->value;

    *st = (struct stage){.name = arena_strdup(l->arena, m->key), .pos = m->pos};
    st->code = st->env = st->outputs = arena_array(l->arena, 1, sizeof(char *));
    if (strcmp(st->name, "sources") == 0)
        problem_add(&l->problems, m->pos,
                    "no stage can be called 'sources'; references to sources start with it");
    else
        check_name(l, st->name, NAME_THING, m->pos, "a stage");
    if (!want_map(l, n, "stage", st->name)) {
        d->outputs_bad = d->matrix_bad = true;
        return;
    }
    n = node_merge(&l->scratch, defaults, check_keys(l, n, stage_keys, "stage", st->name));
    d->inputs = node_get(n, "inputs");
    d->params = node_get(n, "params");
    d->when = node_get(n, "when");
    if (!want_map(l, d->inputs, "inputs", ""))
        d->inputs = NULL;
    if (!want_map(l, d->params, "params", ""))
        d->params = NULL;
    decode_program(l, st, d, n);
    decode_outputs(l, st, d, node_get(n, "outputs"));
    decode_limits(l, st, n);
    decode_matrix(l, st, d, node_get(n, "matrix"));
}

void decode_stages(struct loader *l)
{
    const struct node *n = node_get(l->root, "stages"), *defaults = node_get(l->root, "defaults");
    const struct node_member *m = node_member(l->root, "stages");
    struct pipeline *p = l->p;
    size_t count;

    if (!want_map(l, defaults, "defaults", ""))
        defaults = NULL;
    else
        defaults = check_keys(l, defaults, default_keys, "defaults", "");
    if (!n || (n->type == YAML_MAP && n->count == 0))
        problem_add(&l->problems, m ? m->value->pos : l->root->pos,
                    "the pipeline has no stages; give at least one below 'stages:'");
    else if (n->type == YAML_MAP && n->count > PIPELINE_STAGES_MAX)
        problem_add(&l->problems, n->pos, "%u stages; at most %d are possible", n->count,
                    PIPELINE_STAGES_MAX);
    else
        l->stages_bad = !want_map(l, n, "stages", "");
    count = n && n->type == YAML_MAP && n->count <= PIPELINE_STAGES_MAX ? n->count : 0;
    l->stages_bad = count == 0;
    p->stages = arena_array(l->arena, count + 1, sizeof(*p->stages));
    p->stage_names = arena_alloc(l->arena, sizeof(*p->stage_names));
    names_init(p->stage_names, l->arena, count);
    l->drafts = arena_array(&l->scratch, count + 1, sizeof(*l->drafts));
    for (size_t i = 0; i < count; i++) {
        decode_stage(l, &n->members[i], &p->stages[i], &l->drafts[i], defaults);
        CHECK(names_add(p->stage_names, p->stages[i].name)); /* keys of a map differ */
    }
    p->stage_count = count;
}
