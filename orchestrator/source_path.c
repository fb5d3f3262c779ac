/* Files, folders and globs.  All path sources of a pipeline are read in one session: one look at the memo for all files,
 * and nothing written when all are as they were.
 *
 * A glob is a folder that holds what matches, at the place where it matches: pictures of "raw/2?/" + "*.png" are 21/a.png, 22/a.png,
 * below the last folder that the pattern spells out. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "orchestrator/source_internal.h"
#include "store/ingest.h"
#include "store/tree.h"

#define MATCHES_MAX 1000000

struct place { /* where a source's things are among the items */
    int number;
    bool globbed;
    size_t first, count;
    size_t prefix;  /* glob: bytes of the folder that is the same for all */
    size_t records; /* item of the records file; SIZE_MAX: none */
};
struct gathering {
    struct sources *s;
    const int *numbers;
    size_t n;
    struct place *places;
    struct ingest_item *items;
    size_t count, cap;
    struct arena paths;
};

static size_t add_item(struct gathering *g, const char *path)
{
    if (g->count == g->cap) {
        g->cap = g->cap ? g->cap * 2 : 64;
        g->items = mem_grow(g->items, g->cap, sizeof(*g->items));
    }
    g->items[g->count] = (struct ingest_item){.path = path};
    return g->count++;
}

/* ---- globs ---------------------------------------------------------------------------------------- */

static bool is_glob(const char *path)
{
    struct err ignored = ERR_INIT;
    struct stat st;

    return strpbrk(path, "*?[") && os_stat_at(AT_FDCWD, path, &st, &ignored) != OK;
}

/* What stands before the pattern is a name, whatever it looks like. */
static const char *escaped(struct arena *a, const char *path, size_t plain)
{
    char *out = arena_alloc(a, 2 * strlen(path) + 1), *at = out;

    for (size_t i = 0; path[i]; i++) {
        if (i < plain && strchr("*?[\\", path[i]))
            *at++ = '\\';
        *at++ = path[i];
    }
    return out;
}

/* Both paths have as many parts.  A part that begins another comes first, so that what is below one folder is together. */
static int by_parts(const void *a, const void *b)
{
    const char *x = ((const struct ingest_item *)a)->path;
    const char *y = ((const struct ingest_item *)b)->path;

    for (; *x && *x == *y; x++)
        y++;
    if (*x == *y)
        return 0;
    if (!*x || *x == '/')
        return -1;
    if (!*y || *y == '/')
        return 1;
    return (unsigned char)*x < (unsigned char)*y ? -1 : 1;
}

static enum err_code add_glob(struct gathering *g, struct place *at, const char *path, size_t dir_n,
                              struct err *err)
{
    const char *wild = path + dir_n + strcspn(path + dir_n, "*?[");
    const char *slash = memrchr(path, '/', (size_t)(wild - path));
    glob_t found = {0};
    enum err_code rc = OK;
    int failed, sys;

    if (fault_hit(&sys))
        return err_sys(err, sys, "read the folders of %s", path);
    if (strstr(wild, "**") || strstr(wild, "/../"))
        return err_set(err, ERR_INPUT,
                       "%s: neither ** nor .. may stand in a pattern; name the folder to have all "
                       "that is below it",
                       path);
    at->globbed = true;
    at->prefix = slash ? (size_t)(slash + 1 - path) : 0;
    failed = glob(escaped(&g->paths, path, dir_n), GLOB_ERR | GLOB_NOSORT, NULL, &found);
    if (failed == GLOB_NOMATCH)
        rc = err_set(err, ERR_NOT_FOUND, "nothing matches %s", path);
    else if (failed == GLOB_NOSPACE)
        rc = err_set(err, ERR_LIMIT, "%s matches more than memory holds", path);
    else if (failed)
        rc = err_sys(err, errno ? errno : EIO, "read the folders of %s", path);
    else if (found.gl_pathc > MATCHES_MAX)
        rc = err_set(err, ERR_LIMIT, "%s matches %zu files, at most %d may; name the folder", path,
                     (size_t)found.gl_pathc, MATCHES_MAX);
    for (size_t i = 0; !rc && i < found.gl_pathc; i++)
        (void)add_item(g, arena_strdup(&g->paths, found.gl_pathv[i]));
    at->count = g->count - at->first;
    if (!rc)
        qsort(g->items + at->first, at->count, sizeof(*g->items), by_parts);
    globfree(&found);
    return rc;
}

static enum err_code put_tree(struct enter *e, struct tree *t, struct digest *d, int64_t *size,
                              struct err *err)
{
    struct buf text;
    enum err_code rc;

    buf_init(&text, TREE_BYTES_MAX);
    rc = tree_encode(t, &text, err);
    if (!rc)
        rc = writer_put(e->w, OBJ_TREE, text.p, text.n, d, err);
    *size = (int64_t)text.n;
    buf_release(&text);
    return rc;
}

/* items[0..n): all below one folder, whose path has skip bytes. */
/* NOLINTNEXTLINE(misc-no-recursion): bounded by the parts of a pattern */
static enum err_code glob_tree(struct enter *e, const struct ingest_item *items, size_t n,
                               size_t skip, struct digest *d, int64_t *size, struct err *err)
{
    struct tree t;
    enum err_code rc = OK;

    tree_init(&t);
    for (size_t i = 0, next; !rc && i < n; i = next) {
        const char *name = items[i].path + skip;
        const size_t len = strcspn(name, "/");
        char *copy = arena_strndup(&t.arena, name, len);
        struct tree_entry entry = {.name = {copy, len}};

        for (next = i + 1; next < n && strncmp(items[next].path + skip, name, len) == 0 &&
                           (name[len] == '/' ? items[next].path[skip + len] == '/' : false);)
            next++;
        if (name[len] == '/' && name[len + 1]) {
            entry.mode = TREE_DIR;
            rc = glob_tree(e, items + i, next - i, skip + len + 1, &entry.digest, &entry.size, err);
        } else {
            entry.mode = items[i].result.kind == OBJ_TREE ? TREE_DIR
                         : items[i].executable            ? TREE_EXEC
                                                          : TREE_FILE;
            entry.digest = items[i].result.digest;
            entry.size = items[i].result.size;
        }
        if (!rc)
            rc = tree_add(&t, &entry, 0, err);
    }
    if (!rc)
        rc = put_tree(e, &t, d, size, err);
    tree_release(&t);
    return rc;
}

/* ---- all of them ---------------------------------------------------------------------------------- */

static enum err_code gather(struct gathering *g, struct err *err)
{
    const char *dir = g->s->p->dir;
    enum err_code rc = OK;

    g->count = 0;
    for (size_t i = 0; !rc && i < g->n; i++) {
        struct place *at = &g->places[i];
        const struct source *source = &g->s->p->sources[g->numbers[i]];
        const char *path = source_path_below(&g->paths, dir, source->location);

        *at = (struct place){.number = g->numbers[i], .first = g->count, .records = SIZE_MAX};
        if (is_glob(path)) {
            rc = add_glob(g, at, path, strlen(path) - strlen(source->location), err);
        } else {
            (void)add_item(g, path);
            at->count = 1;
        }
        if (!rc && source->records)
            at->records = add_item(g, source_path_below(&g->paths, dir, source->records));
        if (rc)
            (void)source_wrong(source, err);
    }
    return rc;
}

/* Which source was that item of? */
static const struct source *source_of(const struct gathering *g, size_t item)
{
    size_t i = g->n - 1;

    while (i > 0 && g->places[i].first > item)
        i--;
    return &g->s->p->sources[g->places[i].number];
}

static enum err_code take(struct gathering *g, struct enter *e, struct place *at,
                          struct entry_wanted *want, struct err *err)
{
    const struct ingest_item *items = g->items + at->first;
    struct source_object *o = &g->s->list[at->number].object;
    enum err_code rc = OK;

    *o = (struct source_object){.kind = OBJ_TREE};
    if (at->globbed) {
        rc = glob_tree(e, items, at->count, at->prefix, &o->digest, &o->size, err);
    } else {
        o->kind = items[0].result.kind;
        o->digest = items[0].result.digest;
        o->size = items[0].result.size;
    }
    if (rc)
        return rc;
    enter_keep(e, &o->digest);
    *want = (struct entry_wanted){.source = &g->s->p->sources[at->number], .object = o};
    if (at->records == SIZE_MAX)
        return OK;
    if (g->items[at->records].result.kind != OBJ_BLOB)
        return err_set(err, ERR_INPUT, "records: %s is no file", g->items[at->records].path);
    want->records = &g->items[at->records].result.digest;
    g->s->list[at->number].records = *want->records;
    want->records_path = g->items[at->records].path;
    return OK;
}

static enum err_code enter_paths(struct enter *e, void *arg, struct err *err)
{
    struct gathering *g = arg;
    const struct ingest_options o = {
        .how = INGEST_COPY, .no_memo = e->no_memo, .progress = g->s->o.progress};
    struct entry_wanted *wants = mem_zero(g->n + 1, sizeof(*wants));
    size_t at = 0;
    enum err_code rc = gather(g, err);

    if (!rc) {
        rc = ingest_many(e->w, AT_FDCWD, g->items, g->count, &o, &at, err);
        if (rc)
            (void)source_wrong(source_of(g, at), err);
    }
    for (size_t i = 0; !rc && i < g->n; i++) {
        rc = take(g, e, &g->places[i], &wants[i], err);
        if (rc)
            (void)source_wrong(&g->s->p->sources[g->numbers[i]], err);
    }
    if (!rc)
        rc = source_entries(g->s, e, wants, g->n, err);
    free(wants);
    return rc;
}

enum err_code source_enter_paths(struct sources *s, const int *numbers, size_t n, struct err *err)
{
    struct gathering g = {.s = s, .numbers = numbers, .n = n};
    enum err_code rc;

    arena_init(&g.paths);
    g.places = mem_zero(n + 1, sizeof(*g.places));
    rc = enter_run(s->st, enter_paths, &g, err);
    for (size_t i = 0; !rc && i < n; i++)
        s->list[numbers[i]].done = true;
    free(g.places);
    free(g.items);
    arena_release(&g.paths);
    return rc;
}
