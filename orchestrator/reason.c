/* What differs between two actions, component by component, in the order in which people ask. */
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "orchestrator/resolve.h"

struct diff {
    json_t *list;
    struct arena arena;
};

static void add(struct diff *d, const char *path, const json_t *old, const json_t *now)
{
    json_t *a = old ? json_deep_copy(old) : json_null(),
           *b = now ? json_deep_copy(now) : json_null();

    (void)json_array_append_new(d->list,
                                json_pack("{s:s, s:o, s:o}", "path", path, "old", a, "new", b));
}

static bool same_scalar(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    return json_equal(a, b) != 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The names in either, sorted; NULL at the end. */
static const char **names_of(struct diff *d, json_t *a, json_t *b)
{
    const char **list = arena_array(&d->arena, json_object_size(a) + json_object_size(b) + 1,
                                    sizeof(*list)),
               *key;
    json_t *value;
    size_t n = 0;

    json_object_foreach(a, key, value) list[n++] = key;
    json_object_foreach(b, key, value) if (!json_object_get(a, key)) list[n++] = key;
    if (n > 1)
        qsort(list, n, sizeof(*list), by_text);
    return list;
}

/* Actions are canonical JSON, at most JSON_DEPTH_MAX deep. */
static void values(struct diff *d, const char *path, json_t *a, json_t *b)
{
    if (json_is_object(a) && json_is_object(b)) {
        const char **names = names_of(d, a, b);

        for (size_t i = 0; names[i]; i++)
            values(d, arena_printf(&d->arena, "%s.%s", path, names[i]),
                   json_object_get(a, names[i]), json_object_get(b, names[i]));
    } else if (json_is_array(a) && json_is_array(b) && json_array_size(a) == json_array_size(b)) {
        for (size_t i = 0; i < json_array_size(a); i++)
            values(d, arena_printf(&d->arena, "%s[%zu]", path, i), json_array_get(a, i),
                   json_array_get(b, i));
    } else if (!a || !b || !same_scalar(a, b)) {
        if (a || b)
            add(d, path, a, b);
    }
}

/* The element of a list whose member has that text. */
static json_t *element(json_t *list, const char *member, const char *text)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *e = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(e, member));

        if (name && strcmp(name, text) == 0)
            return e;
    }
    return NULL;
}

static bool same_order(json_t *a, json_t *b, const char *member)
{
    for (size_t i = 0; i < json_array_size(a); i++)
        if (!json_equal(json_object_get(json_array_get(a, i), member),
                        json_object_get(json_array_get(b, i), member)))
            return false;
    return true;
}

static json_t *order_of(json_t *list, const char *member)
{
    json_t *names = json_array();

    for (size_t i = 0; i < json_array_size(list); i++)
        (void)json_array_append(names, json_object_get(json_array_get(list, i), member));
    return names;
}

static void objects(struct diff *d, const char *path, json_t *a, json_t *b, const char *member,
                    bool entry);

static void object(struct diff *d, const char *path, json_t *a, json_t *b)
{
    json_t *ea = json_object_get(a, "entries"), *eb = json_object_get(b, "entries"),
           *da = json_object_get(a, "digest"), *db = json_object_get(b, "digest");

    if (ea && eb)
        objects(d, path, ea, eb, "name", true);
    else if (!a || !b || !json_equal(da, db))
        add(d, path, da, db);
    else if (!json_equal(json_object_get(a, "kind"), json_object_get(b, "kind")))
        add(d, path, json_object_get(a, "kind"), json_object_get(b, "kind"));
    else if (ea || eb) /* the same folder, once as a fan-in and once as one artifact */
        add(d, arena_printf(&d->arena, "%s.entries", path), ea, eb);
}

static const char *path_of(struct diff *d, const char *path, const char *name, bool entry)
{
    return entry ? arena_printf(&d->arena, "%s[%s]", path, name)
                 : arena_printf(&d->arena, "%s.%s", path, name);
}

/* Lists of named objects: code files, inputs, entries of a fan-in. */
static void objects(struct diff *d, const char *path, json_t *a, json_t *b, const char *member,
                    bool entry)
{
    bool same_names = json_array_size(a) == json_array_size(b);

    for (size_t i = 0; i < json_array_size(a); i++) {
        json_t *e = json_array_get(a, i);
        const char *name = json_string_value(json_object_get(e, member));

        if (name)
            object(d, path_of(d, path, name, entry), e, element(b, member, name));
        same_names = same_names && name && element(b, member, name);
    }
    for (size_t i = 0; i < json_array_size(b); i++) {
        json_t *e = json_array_get(b, i);
        const char *name = json_string_value(json_object_get(e, member));

        if (name && !element(a, member, name))
            object(d, path_of(d, path, name, entry), NULL, e);
    }
    if (same_names && !same_order(a, b, member)) {
        json_t *x = order_of(a, member), *y = order_of(b, member);

        add(d, arena_printf(&d->arena, "%s.order", path), x, y);
        json_decref(x);
        json_decref(y);
    }
}

enum err_code action_diff(const json_t *old, const json_t *new_, json_t **out, struct err *err)
{
    static const struct {
        const char *name, *member; /* member: a list of objects by that name */
    } parts[] = {{"program", NULL}, {"code", "path"}, {"device", NULL},   {"platform", NULL},
                 {"params", NULL},  {"env", NULL},    {"inputs", "name"}, {"outputs", NULL}};
    struct diff d = {.list = json_array()};

    CHECK(out);
    if (!json_is_object(old) || !json_is_object(new_) || !d.list) {
        json_decref(d.list);
        return err_set(err, ERR_INPUT, "an action is not a JSON object");
    }
    arena_init(&d.arena);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        json_t *a = json_object_get(old, parts[i].name), *b = json_object_get(new_, parts[i].name),
               *empty = json_object();

        if (parts[i].member)
            objects(&d, parts[i].name, a, b, parts[i].member, false);
        else if (strcmp(parts[i].name, "env") == 0 || strcmp(parts[i].name, "params") == 0)
            values(&d, parts[i].name, a ? a : empty, b ? b : empty);
        else
            values(&d, parts[i].name, a, b);
        json_decref(empty);
    }
    arena_release(&d.arena);
    *out = d.list;
    return OK;
}
