#include "orchestrator/node.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- problems ---------------------------------------------------------------------------------- */

#define PROBLEM_TEXT_MAX 400 /* with the position in front it still fits into a struct err */

/* One line each, and no commands to the terminal: texts of the file are quoted in messages.  Where it was cut, the last
 * character may be half of one. */
static void tidy(struct buf *text)
{
    for (size_t i = 0; i < text->n; i++)
        if ((unsigned char)text->p[i] < 0x20 || text->p[i] == 0x7f)
            text->p[i] = '?';
    if (text->n <= PROBLEM_TEXT_MAX)
        return;
    text->n = PROBLEM_TEXT_MAX - 3;
    while (text->n > 0 && ((unsigned char)text->p[text->n] & 0xc0) == 0x80)
        text->n--;
    buf_str(text, "...");
}

static void add(struct problems *ps, struct pos pos, struct buf *text)
{
    if (ps->count >= PIPELINE_ERRORS_MAX)
        return;
    tidy(text);
    /* Overlays and instances look at the same node several times; a person wants to read it once. */
    for (size_t i = 0; i < ps->count; i++)
        if (ps->list[i].pos.line == pos.line && ps->list[i].pos.column == pos.column &&
            strcmp(ps->list[i].pos.file, pos.file) == 0 && strcmp(ps->list[i].text, text->p) == 0)
            return;
    ps->list[ps->count++] = (struct problem){pos, arena_strndup(ps->arena, text->p, text->n)};
}

void problem_add(struct problems *ps, struct pos pos, const char *fmt, ...)
{
    struct buf text;
    va_list ap;

    buf_init(&text, PIPELINE_BYTES_MAX);
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    add(ps, pos, &text);
    buf_release(&text);
}

#define LISTED_MAX 14 /* more names than that do not help in a message */
#define NEAREST_MAX                                                                                \
    10000 /* names to compare with, at a microsecond each, for up to a hundred messages */

void problem_add_near(struct problems *ps, struct pos pos, const char *word,
                      const char *const *names, size_t count, const char *fmt, ...)
{
    /* Any two names of a letter or two are near to each other. */
    const char *near = NULL;
    struct buf text;
    va_list ap;

    if (ps->count >= PIPELINE_ERRORS_MAX)
        return;
    if (strlen(word) > 2 && count <= NEAREST_MAX)
        near = str_nearest(word, names, count);
    buf_init(&text, PIPELINE_BYTES_MAX);
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    if (near) {
        buf_printf(&text, "; did you mean '%s'?", near);
    } else if (count > 0 && count <= LISTED_MAX) {
        buf_printf(&text, count == 1 ? "; there is only '%s'" : "; there are %s", names[0]);
        for (size_t i = 1; i < count; i++)
            buf_printf(&text, "%s%s", i + 1 == count ? " and " : ", ", names[i]);
    }
    add(ps, pos, &text);
    buf_release(&text);
}

static int problem_cmp(const void *x, const void *y)
{
    const struct problem *a = x, *b = y;
    int c = strcmp(a->pos.file, b->pos.file);

    if (!c)
        c = (a->pos.line > b->pos.line) - (a->pos.line < b->pos.line);
    if (!c)
        c = (a->pos.column > b->pos.column) - (a->pos.column < b->pos.column);
    return c ? c : strcmp(a->text, b->text);
}

enum err_code problems_report(struct problems *ps, struct buf *out, struct err *err)
{
    const struct problem *first = ps->list;

    if (ps->count == 0)
        return OK;
    qsort(ps->list, ps->count, sizeof(*ps->list), problem_cmp);
    for (size_t i = 0; out && i < ps->count; i++) {
        const struct problem *p = &ps->list[i];

        if (p->pos.line)
            buf_printf(out, "%s:%d:%d: %s\n", p->pos.file, p->pos.line, p->pos.column, p->text);
        else
            buf_printf(out, "%s: %s\n", p->pos.file, p->text);
    }
    if (out && ps->count >= PIPELINE_ERRORS_MAX)
        buf_printf(out, "%s: these are the first %d problems; more may follow\n", first->pos.file,
                   PIPELINE_ERRORS_MAX);
    if (first->pos.line)
        return err_set(err, ERR_INPUT, "%s:%d:%d: %s", first->pos.file, first->pos.line,
                       first->pos.column, first->text);
    return err_set(err, ERR_INPUT, "%s: %s", first->pos.file, first->text);
}

/* ---- nodes ------------------------------------------------------------------------------------- */

/* Children of a node lie next to each other, because a pipeline of 10,000 stages has 130,000 nodes. */
static void fill(struct arena *a, struct node *n, const struct yaml_node *y, const char *file)
{
    struct node *children;

    n->type = y->type;
    n->pos = (struct pos){file, y->line, y->column};
    n->text = y->text.p ? y->text.p : "";
    if (y->type == YAML_BOOL)
        n->boolean = y->boolean;
    if (y->type == YAML_INT)
        n->integer = y->integer;
    if (y->type == YAML_FLOAT)
        n->number = y->number;
    if (y->type != YAML_LIST && y->type != YAML_MAP)
        return;
    n->count = (uint32_t)y->count; /* at most YAML_NODES_MAX */
    children = arena_array(a, y->count, sizeof(*children));
    for (size_t i = 0; i < y->count; i++)
        fill(a, &children[i], y->items[i], file);
    if (y->type == YAML_LIST) {
        n->items = children;
        return;
    }

    struct node_member *members = arena_array(a, y->count, sizeof(*members));

    for (size_t i = 0; i < y->count; i++)
        members[i] = (struct node_member){
            .key = y->keys[i]->text.p,
            .pos = {file, y->keys[i]->line, y->keys[i]->column},
            .value = &children[i],
        };
    n->members = members;
}

const struct node *node_from_yaml(struct arena *a, const struct yaml_node *y, const char *file)
{
    struct node *n = arena_alloc(a, sizeof(*n));

    fill(a, n, y, file);
    return n;
}

const struct node *node_text(struct arena *a, const char *text, struct pos pos)
{
    struct node *n = arena_alloc(a, sizeof(*n));

    n->type = YAML_STRING;
    n->pos = pos;
    n->text = text;
    return n;
}

const struct node_member *node_member(const struct node *map, const char *key)
{
    if (!map || map->type != YAML_MAP)
        return NULL;
    for (size_t i = 0; i < map->count; i++)
        if (strcmp(map->members[i].key, key) == 0)
            return &map->members[i];
    return NULL;
}

const struct node *node_get(const struct node *map, const char *key)
{
    const struct node_member *m = node_member(map, key);

    return m && m->value->type != YAML_NULL ? m->value : NULL;
}

const struct node *node_merge(struct arena *a, const struct node *base, const struct node *over)
{
    struct node *n;
    struct node_member *members;
    bool *used;
    size_t next = 0;

    if (!over)
        return base;
    if (!base || base->type != YAML_MAP || over->type != YAML_MAP)
        return over;
    n = arena_alloc(a, sizeof(*n));
    *n = *base;
    members = arena_array(a, base->count + over->count, sizeof(*members));
    used = mem_zero(over->count, sizeof(*used));
    n->count = 0;
    for (size_t i = 0; i < base->count; i++) {
        struct node_member m = base->members[i];
        /* Layers tend to keep the order, so the one after the last is likely to be it. */
        const struct node_member *o =
            next < over->count && strcmp(over->members[next].key, m.key) == 0
                ? &over->members[next]
                : node_member(over, m.key);

        if (o) {
            next = (size_t)(o - over->members) + 1;
            used[o - over->members] = true;
            m.value = node_merge(a, m.value, o->value);
            m.pos = o->pos; /* a problem is the fault of the layer that spoke last */
        }
        members[n->count++] = m;
    }
    for (size_t i = 0; i < over->count; i++)
        if (!used[i])
            members[n->count++] = over->members[i];
    n->members = members;
    free(used);
    return n;
}

const struct node *node_path(struct arena *a, const char *const *keys, size_t count,
                             const struct node *leaf)
{
    while (count-- > 0) {
        struct node *n = arena_alloc(a, sizeof(*n));
        struct node_member *m = arena_alloc(a, sizeof(*m));

        *m = (struct node_member){.key = keys[count], .pos = leaf->pos, .value = leaf};
        n->type = YAML_MAP;
        n->pos = leaf->pos;
        n->text = "";
        n->count = 1;
        n->members = m;
        leaf = n;
    }
    return leaf;
}

const char *node_type_name(const struct node *n)
{
    switch (n->type) {
    case YAML_NULL:
        return "nothing";
    case YAML_BOOL:
        return "a boolean";
    case YAML_INT:
        return "an integer";
    case YAML_FLOAT:
        return "a number";
    case YAML_STRING:
        return "a string";
    case YAML_LIST:
        return "a list";
    case YAML_MAP:
        return "a map";
    }
    return "?";
}

/* ---- keys -------------------------------------------------------------------------------------- */

/* What other tools call it; too far away for the edit distance. */
static const char *const synonyms[][2] = {
    {"command", "run"},        {"cmd", "run"},           {"script", "run"},
    {"shell", "run"},          {"program", "uses"},      {"needs", "inputs"},
    {"deps", "inputs"},        {"depends_on", "inputs"}, {"in", "inputs"},
    {"out", "outputs"},        {"outs", "outputs"},      {"if", "when"},
    {"parameters", "params"},  {"vars", "params"},       {"mem", "memory"},
    {"cores", "cpus"},         {"threads", "cpus"},      {"walltime", "time"},
    {"file", "path"},          {"digest", "sha256"},     {"copyright", "attribution"},
    {"author", "attribution"}, {"version", "weir"},      {"jobs", "stages"},
    {"steps", "stages"},       {"tasks", "stages"},      {"environment", "env"},
    {"retry", "retries"},      {"count", "attempts"},    {"times", "attempts"},
    {"delay", "backoff"},      {"interval", "every"},
};

static const char *synonym(const char *key, const char *const *allowed, size_t count)
{
    for (size_t i = 0; i < sizeof(synonyms) / sizeof(synonyms[0]); i++)
        for (size_t k = 0; k < count && strcmp(synonyms[i][0], key) == 0; k++)
            if (strcmp(synonyms[i][1], allowed[k]) == 0)
                return allowed[k];
    return NULL;
}

static bool is_allowed(const char *key, const char *const *allowed, size_t count)
{
    for (size_t k = 0; k < count; k++)
        if (strcmp(allowed[k], key) == 0)
            return true;
    return false;
}

const struct node *node_check_keys(struct arena *a, const struct node *map,
                                   const char *const *allowed, struct problems *ps,
                                   const char *what, const char *name)
{
    struct node *fixed = NULL;
    struct node_member *members = NULL;
    size_t count = 0;

    while (allowed[count])
        count++;
    for (size_t i = 0; i < map->count && ps->count < PIPELINE_ERRORS_MAX; i++) {
        const struct node_member *m = &map->members[i];
        const char *meant;

        if (is_allowed(m->key, allowed, count))
            continue;
        meant = synonym(m->key, allowed, count);
        if (meant) {
            problem_add(ps, m->pos, "unknown key '%s' in %s%s%s; did you mean '%s'?", m->key, what,
                        *name ? " " : "", name, meant);
        } else {
            meant = str_nearest(m->key, allowed, count);
            problem_add_near(ps, m->pos, m->key, allowed, count, "unknown key '%s' in %s%s%s",
                             m->key, what, *name ? " " : "", name);
        }
        if (!meant || node_member(map, meant))
            continue;
        if (!fixed) {
            fixed = arena_alloc(a, sizeof(*fixed));
            members = arena_array(a, map->count, sizeof(*members));
            *fixed = *map;
            memcpy(members, map->members, map->count * sizeof(*members));
            fixed->members = members;
        }
        members[i].key = meant;
    }
    return fixed ? fixed : map;
}
