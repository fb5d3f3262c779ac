#include "store/mat_plan.h"

#include <stdlib.h>
#include <string.h>

#include "store/reader.h"

#define BATCH 8192
#define PATH_BYTES_MAX ((size_t)TREE_DEPTH_MAX * (TREE_NAME_MAX + 2))

void mat_plan_init(struct mat_plan *p)
{
    *p = (struct mat_plan){0};
    arena_init(&p->arena);
}

void mat_plan_release(struct mat_plan *p)
{
    free(p->dirs);
    free(p->files);
    free(p->links);
    arena_release(&p->arena);
    *p = (struct mat_plan){0};
}

void mat_plan_path(const struct mat_plan *p, uint32_t dir, const char *name, struct buf *out)
{
    uint32_t chain[TREE_DEPTH_MAX + 1];
    size_t n = 0;

    for (uint32_t at = dir; at != 0; at = p->dirs[at].parent) {
        CHECK(n < sizeof(chain) / sizeof(chain[0]));
        chain[n++] = at;
    }
    if (n == 0 && !name)
        buf_char(out, '.');
    while (n > 0) {
        buf_str(out, p->dirs[chain[--n]].name);
        if (n > 0 || name)
            buf_char(out, '/');
    }
    if (name)
        buf_str(out, name);
}

/* ---- walking ----------------------------------------------------------------------------------- */

static void *grow(void *list, size_t count, size_t *room, size_t size)
{
    if (count < *room)
        return list;
    *room = *room ? *room * 2 : 64;
    return mem_grow(list, *room, size);
}

static void add_dir(struct mat_plan *p, uint32_t parent, int depth, const struct tree_entry *e)
{
    p->dirs = grow(p->dirs, p->dir_count, &p->dir_room, sizeof(*p->dirs));
    p->dirs[p->dir_count++] = (struct mat_plan_dir){.parent = parent,
                                                    .depth = depth,
                                                    .name = arena_strdup(&p->arena, e->name.p),
                                                    .id = e->digest,
                                                    .size = e->size};
}

static void add_entry(struct mat_plan *p, uint32_t dir, const struct tree_entry *e)
{
    if (e->mode == TREE_DIR) {
        add_dir(p, dir, p->dirs[dir].depth + 1, e);
    } else if (e->mode == TREE_LINK) {
        p->links = grow(p->links, p->link_count, &p->link_room, sizeof(*p->links));
        p->links[p->link_count++] = (struct mat_plan_link){
            .name = arena_strdup(&p->arena, e->name.p),
            .target = arena_strdup(&p->arena, e->target.p),
            .dir = dir,
        };
    } else {
        p->files = grow(p->files, p->file_count, &p->file_room, sizeof(*p->files));
        p->files[p->file_count] = (struct mat_plan_file){.name = arena_strdup(&p->arena, e->name.p),
                                                         .dir = dir,
                                                         .order = (uint32_t)p->file_count,
                                                         .exec = e->mode == TREE_EXEC,
                                                         .id = e->digest,
                                                         .size = e->size};
        p->file_count++;
    }
}

static enum err_code with_path(const struct mat_plan *p, uint32_t dir, const char *name,
                               struct err *err)
{
    struct buf path;

    buf_init(&path, PATH_BYTES_MAX);
    mat_plan_path(p, dir, name, &path);
    err_prefix(err, "%.200s", path.p);
    buf_release(&path);
    return err->code;
}

static enum err_code walk_dir(struct mat_plan *p, struct store *st, uint32_t dir, struct err *err)
{
    const struct mat_plan_dir at = p->dirs[dir]; /* a copy: the list may move */
    char text[DIGEST_TEXT + 1];
    struct tree t = {0};
    struct buf bytes;
    enum err_code rc = OK;

    buf_init(&bytes, TREE_BYTES_MAX);
    tree_init(&t);
    digest_text(&at.id, text);
    if (at.depth >= TREE_DEPTH_MAX)
        rc = err_set(err, ERR_LIMIT, "directories are nested deeper than %d", TREE_DEPTH_MAX);
    if (!rc)
        rc = object_read(st, &at.id, TREE_BYTES_MAX, &bytes, err);
    if (!rc && at.size >= 0 && (int64_t)bytes.n != at.size)
        rc = err_set(err, ERR_DAMAGED, "tree %s has %zu bytes, the directory above says %lld", text,
                     bytes.n, (long long)at.size);
    if (!rc)
        rc = tree_decode(bytes.p ? bytes.p : "", bytes.n, at.depth, text, &t, err);
    if (!rc && p->dir_count + p->file_count + p->link_count + t.count > MAT_ENTRIES_MAX)
        rc = err_set(err, ERR_LIMIT, "more than %d files and directories in one tree",
                     MAT_ENTRIES_MAX);
    for (size_t i = 0; !rc && i < t.count; i++)
        add_entry(p, dir, &t.entries[i]);
    tree_release(&t);
    buf_release(&bytes);
    return rc ? with_path(p, dir, NULL, err) : OK;
}

enum err_code mat_plan_walk(struct mat_plan *p, struct store *st, const struct digest *root,
                            struct err *err)
{
    const struct tree_entry top = {.name = STR("."), .digest = *root, .size = -1};
    enum err_code rc = OK;

    CHECK(p->dir_count == 0);
    add_dir(p, 0, 0, &top);
    for (size_t i = 0; !rc && i < p->dir_count; i++)
        rc = walk_dir(p, st, (uint32_t)i, err);
    return rc;
}

/* ---- places ------------------------------------------------------------------------------------ */

static int by_id(const void *a, const void *b)
{
    return digest_cmp(&((const struct mat_plan_file *)a)->id,
                      &((const struct mat_plan_file *)b)->id);
}

static int by_place(const void *a, const void *b)
{
    const struct mat_plan_file *x = a, *y = b;

    if (x->loc.pack != y->loc.pack)
        return x->loc.pack < y->loc.pack ? -1 : 1;
    if (x->loc.off != y->loc.off)
        return x->loc.off < y->loc.off ? -1 : 1;
    if (x->loc.pos != y->loc.pos)
        return x->loc.pos < y->loc.pos ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

static enum err_code locate_batch(struct store *st, struct mat_plan_file *files, size_t n,
                                  struct err *err)
{
    struct digest *ids = mem_alloc(n * sizeof(*ids));
    struct loc *locs = mem_alloc(n * sizeof(*locs));
    enum err_code rc;

    for (size_t i = 0; i < n; i++)
        ids[i] = files[i].id;
    rc = object_locate(st, ids, n, locs, err);
    for (size_t i = 0; !rc && i < n; i++)
        files[i].loc = locs[i];
    free(locs);
    free(ids);
    return rc;
}

/* The first in the order of the tree, so that the same loss is always reported alike. */
static enum err_code check_files(const struct mat_plan *p, struct err *err)
{
    const struct mat_plan_file *first = NULL;
    char text[DIGEST_TEXT + 1];

    for (size_t i = 0; i < p->file_count; i++) {
        const struct mat_plan_file *f = &p->files[i];
        const bool bad = f->loc.type == 0 || (int64_t)f->loc.raw != f->size;

        if (bad && (!first || f->order < first->order))
            first = f;
    }
    if (!first)
        return OK;
    digest_text(&first->id, text);
    if (first->loc.type == 0)
        err_set(err, ERR_NOT_FOUND, "object %s is not in the store", text);
    else
        err_set(err, ERR_DAMAGED, "object %s has %lld bytes, its directory says %lld", text,
                (long long)first->loc.raw, (long long)first->size);
    return with_path(p, first->dir, first->name, err);
}

enum err_code mat_plan_locate(struct mat_plan *p, struct store *st, struct err *err)
{
    enum err_code rc = OK;

    if (p->file_count == 0)
        return OK;
    qsort(p->files, p->file_count, sizeof(*p->files), by_id);
    for (size_t i = 0; !rc && i < p->file_count; i += BATCH) {
        const size_t left = p->file_count - i;

        rc = locate_batch(st, p->files + i, left < BATCH ? left : BATCH, err);
    }
    if (!rc)
        rc = check_files(p, err);
    if (!rc)
        qsort(p->files, p->file_count, sizeof(*p->files), by_place);
    return rc;
}
