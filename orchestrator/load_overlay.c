/* Layers over the file: profiles left to right, then --param-file, then --set.
 *
 * A layer changes what the file has.  It cannot add params or stages: that would be a typing error which silently does
 * nothing.  A value of null takes something away, as in {timeout: null}. */
#include <fcntl.h>
#include <string.h>

#include "base/os.h"
#include "orchestrator/pipeline_internal.h"

static const char *const profile_keys[] = {"params",  "sources",  "policy", "defaults", "stages",
                                           "publish", "schedule", "notify", NULL};

/* The keys of a map, for hints. */
static const char **keys_of(struct loader *l, const struct node *map, size_t *count)
{
    const char **names;

    *count = map && map->type == YAML_MAP ? map->count : 0;
    names = arena_array(&l->scratch, *count + 1, sizeof(*names));
    for (size_t i = 0; i < *count; i++)
        names[i] = map->members[i].key;
    return names;
}

/* Everything in a layer's section must be in the file's. */
static void check_known(struct loader *l, const struct node *over, const char *section,
                        const char *what)
{
    const struct node *base = node_get(l->root, section), *n = node_get(over, section);
    const size_t count = base && base->type == YAML_MAP ? base->count : 0;
    struct names names;

    if (!n || n->type != YAML_MAP)
        return;
    names_init(&names, &l->scratch, count);
    for (size_t i = 0; i < count; i++)
        (void)names_add(&names, base->members[i].key);
    for (size_t i = 0; i < n->count; i++) {
        const struct node_member *m = &n->members[i];

        if (names_find(&names, m->key, strlen(m->key)) < 0)
            problem_add_near(&l->problems, m->pos, m->key, names.list, names.count,
                             "the pipeline has no %s '%s'", what, m->key);
    }
}

/* ---- profiles ---------------------------------------------------------------------------------- */

/* All profiles are looked at, chosen or not, as far as they can be without what lies under them. */
static const struct node *check_profile(struct loader *l, const struct node_member *m)
{
    const struct node *n = m->value, *stages;

    check_name(l, m->key, NAME_THING, m->pos, "a profile");
    if (n->type == YAML_NULL)
        return NULL;
    if (!want_map(l, n, "profile", m->key))
        return NULL;
    n = check_keys(l, n, profile_keys, "profile", m->key);
    check_known(l, n, "params", "param");
    check_known(l, n, "stages", "stage");
    stages = node_get(n, "stages");
    for (size_t i = 0; stages && stages->type == YAML_MAP && i < stages->count; i++)
        if (stages->members[i].value->type == YAML_MAP)
            (void)check_keys(l, stages->members[i].value, stage_keys, "stage",
                             stages->members[i].key);
    return n;
}

static const struct node *overlay_profiles(struct loader *l, const struct node *root)
{
    const struct node *profiles = node_get(l->root, "profiles"), **checked;
    const char *const *chosen = l->o->profiles;
    size_t count;
    const char **names;

    if (!want_map(l, profiles, "profiles", ""))
        profiles = NULL;
    names = keys_of(l, profiles, &count);
    checked = arena_array(&l->scratch, count + 1, sizeof(*checked));
    l->p->profiles = arena_array(l->arena, count + 1, sizeof(*l->p->profiles));
    for (size_t i = 0; i < count; i++) {
        checked[i] = check_profile(l, &profiles->members[i]);
        l->p->profiles[i] = arena_strdup(l->arena, names[i]);
    }
    for (size_t i = 0; chosen && chosen[i]; i++) {
        size_t k = 0;

        while (k < count && strcmp(names[k], chosen[i]) != 0)
            k++;
        if (k < count)
            root = node_merge(&l->scratch, root, checked[k]);
        else if (count == 0)
            problem_add(&l->problems, (struct pos){"--profile", 0, 0},
                        "there is no profile '%s'; the pipeline has none", chosen[i]);
        else
            problem_add_near(&l->problems, (struct pos){"--profile", 0, 0}, chosen[i], names, count,
                             "there is no profile '%s'", chosen[i]);
    }
    return root;
}

/* ---- --param-file ------------------------------------------------------------------------------ */

static const struct node *overlay_param_file(struct loader *l, const struct node *root,
                                             const char *path)
{
    static const char *const params[] = {"params"};
    struct buf text;
    struct err err = ERR_INIT;
    const struct node *n = NULL, *over;

    buf_init(&text, PIPELINE_BYTES_MAX);
    if (os_read_file(AT_FDCWD, path, PIPELINE_BYTES_MAX, &text, &err))
        problem_add(&l->problems, (struct pos){"--param-file", 0, 0}, "%s", err.text);
    else
        origin_text(&l->origin, text.p ? text.p : "", text.n);
    if (!err.code)
        n = load_nodes(l, text.p ? text.p : "", text.n, arena_strdup(l->arena, path));
    buf_release(&text);
    if (!n || n->type == YAML_NULL || !want_map(l, n, "a param file", ""))
        return root;
    over = node_path(&l->scratch, params, 1, n);
    check_known(l, over, "params", "param");
    return node_merge(&l->scratch, root, over);
}

/* ---- --set ------------------------------------------------------------------------------------- */

#define SET_KEYS_MAX 32

/* "a.b.c" (n bytes) into its parts; false when one is empty or there are too many. */
static bool split(struct loader *l, const char *path, size_t n, const char **keys, size_t *count)
{
    for (size_t at = 0, next; at <= n; at = next + 1) {
        next = at;
        while (next < n && path[next] != '.')
            next++;
        if (next == at || *count == SET_KEYS_MAX)
            return false;
        keys[(*count)++] = arena_strndup(&l->scratch, path + at, next - at);
    }
    return true;
}

/* Positions within the text of an option help nobody. */
static const struct node *without_lines(struct arena *a, const struct node *n)
{
    struct node *copy = arena_alloc(a, sizeof(*copy));

    *copy = *n;
    copy->pos.line = copy->pos.column = 0;
    if (n->type == YAML_LIST) {
        struct node *items = arena_array(a, n->count, sizeof(*items));

        for (size_t i = 0; i < n->count; i++)
            items[i] = *without_lines(a, &n->items[i]);
        copy->items = items;
    } else if (n->type == YAML_MAP) {
        struct node_member *members = arena_array(a, n->count, sizeof(*members));

        for (size_t i = 0; i < n->count; i++) {
            members[i] = n->members[i];
            members[i].pos = copy->pos;
            members[i].value = without_lines(a, n->members[i].value);
        }
        copy->members = members;
    }
    return copy;
}

/* What a person types after '=' is YAML.  But where the file has text, it is text as typed, so that --set title="a: b" and
 * --set title=8 need no second pair of quotes; nothing at all is the empty text, and ~ still takes something away. */
static const struct node *set_value(struct loader *l, const struct node *root,
                                    const char *const *keys, size_t count, const char *text,
                                    const struct pos pos)
{
    const struct node *n = root;

    for (size_t i = 0; i < count; i++)
        n = node_get(n, keys[i]);
    if (!*text || (n && n->type == YAML_STRING && strncmp(n->text, "${", 2) != 0 && *text != '"' &&
                   *text != '\'' && strcmp(text, "~") != 0))
        return node_text(&l->scratch, text, pos);
    n = load_nodes(l, text, strlen(text), pos.file);
    return n ? without_lines(&l->scratch, n) : NULL;
}

/* A command knows no params but those in the file; a shipped program has others, with defaults. */
static bool known_stage_param(struct loader *l, const struct node *root, const char *const *keys,
                              size_t count, struct pos pos)
{
    const struct node *stage = node_get(node_get(root, "stages"), keys[1]);
    const struct node *params = node_get(stage, "params");
    const char **names;
    size_t names_count;

    if (count < 4 || strcmp(keys[2], "params") != 0 || !node_get(stage, "run") ||
        node_member(params, keys[3]))
        return true;
    names = keys_of(l, params, &names_count);
    problem_add_near(&l->problems, pos, keys[3], names, names_count, "stage %s has no param '%s'",
                     keys[1], keys[3]);
    return false;
}

static const struct node *overlay_set(struct loader *l, const struct node *root, const char *set)
{
    const struct pos pos = {arena_printf(l->arena, "--set %s", set), 0, 0};
    const char *eq = strchr(set, '='), *keys[SET_KEYS_MAX + 1];
    const struct node *value, *over;
    size_t count = 0, before = l->problems.count;

    if (!eq || !split(l, set, (size_t)(eq - set), keys, &count)) {
        problem_add(&l->problems, pos,
                    "write --set NAME=VALUE or --set stages.STAGE.params.NAME=VALUE");
        return root;
    }
    if (count > 1 && !node_member(node_get(root, "params"), keys[0])) {
        static const char *const heads[] = {"params", "stages"};
        const char *near = str_nearest(keys[0], heads, 2);

        if (near && strcmp(near, keys[0]) != 0) {
            problem_add(&l->problems, pos, "did you mean --set %s%s?", near, set + strlen(keys[0]));
            return root;
        }
    }
    if (count == 1 || (strcmp(keys[0], "params") != 0 && strcmp(keys[0], "stages") != 0)) {
        memmove(keys + 1, keys, count++ * sizeof(*keys));
        keys[0] = "params";
    }
    if (strcmp(keys[0], "stages") == 0 && count < 3) {
        problem_add(
            &l->problems, pos,
            "a stage cannot be replaced; set a part of it, as in stages.%s.params.NAME=VALUE",
            keys[1]);
        return root;
    }
    value = set_value(l, root, keys, count, eq + 1, pos);
    if (!value)
        return root;
    over = node_path(&l->scratch, keys, count, value);
    check_known(l, over, "params", "param");
    check_known(l, over, "stages", "stage");
    if (l->problems.count > before ||
        (strcmp(keys[0], "stages") == 0 && !known_stage_param(l, root, keys, count, pos)))
        return root;
    return node_merge(&l->scratch, root, over);
}

void overlay_all(struct loader *l)
{
    const struct pipeline_options *o = l->o;
    const struct node *root = overlay_profiles(l, l->root);

    for (size_t i = 0; o->param_files && o->param_files[i]; i++)
        root = overlay_param_file(l, root, o->param_files[i]);
    for (size_t i = 0; o->sets && o->sets[i]; i++)
        root = overlay_set(l, root, o->sets[i]);
    l->root = root;
}
