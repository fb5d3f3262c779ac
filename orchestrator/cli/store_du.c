/* weir store du: which ref takes how much room, and how much of it nobody else needs.
 *
 * Bytes belong to objects: a frame's are shared out among its members by their length, a loose file's among its chunks.  Each ref
 * is walked once; of each object it is remembered whether one ref reached it so far, or several.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/cli/commands.h"
#include "store/reader.h"
#include "store/tree.h"

#define SEVERAL UINT32_MAX

struct object_row {
    struct digest id;
    int64_t stored;         /* bytes on disk */
    int64_t logical, files; /* of everything below, by path */
    uint32_t owner, last;   /* ref + 1; 0: free row */
};
struct ref_total {
    int64_t logical, files, stored, unique;
};
struct usage {
    struct store *st;
    struct object_row *rows; /* open addressing */
    size_t room, used;
    struct ref_total *totals;
    uint32_t ref; /* the present one, + 1 */
    struct progress *progress;
    uint32_t frame_pack, frame_off; /* the last frame looked at */
    uint64_t frame_raw;
};

/* ---- the table --------------------------------------------------------------------------------- */

static size_t place_of(const struct usage *u, const struct digest *id)
{
    uint64_t bits;

    memcpy(&bits, id->b, sizeof(bits));
    for (size_t i = (size_t)bits & (u->room - 1);; i = (i + 1) & (u->room - 1))
        if (u->rows[i].owner == 0 || digest_eq(&u->rows[i].id, id))
            return i;
}

static void grow(struct usage *u)
{
    struct object_row *old = u->rows;
    const size_t room = u->room;

    u->room = room ? room * 2 : 1024;
    u->rows = mem_zero(u->room, sizeof(*u->rows));
    for (size_t i = 0; i < room; i++)
        if (old[i].owner)
            u->rows[place_of(u, &old[i].id)] = old[i];
    free(old);
}

/* The row's place, valid until the next call.  *first: this ref meets it for the first time; *fresh: any ref does. */
static size_t meet(struct usage *u, const struct digest *id, bool *first, bool *fresh)
{
    if (u->used * 4 >= u->room * 3)
        grow(u);

    const size_t at = place_of(u, id);
    struct object_row *row = &u->rows[at];

    *fresh = row->owner == 0;
    *first = row->last != u->ref;
    if (*fresh) {
        row->id = *id;
        row->owner = u->ref;
        u->used++;
    } else if (row->owner != u->ref) {
        row->owner = SEVERAL;
    }
    row->last = u->ref;
    return at;
}

/* ---- bytes on disk ----------------------------------------------------------------------------- */

static enum err_code frame_share(struct usage *u, const struct loc *loc, int64_t *bytes,
                                 struct err *err)
{
    struct pack *pack = NULL;
    struct pack_entry e;
    enum err_code rc = OK;

    if (u->frame_raw == 0 || u->frame_pack != loc->pack || u->frame_off != loc->off) {
        rc = pack_cache_get(u->st, loc->pack, &pack, err);
        if (!rc)
            rc = pack_read_header(pack, loc->off, &e, err);
        pack_cache_put(u->st, pack);
        if (rc)
            return rc;
        u->frame_pack = loc->pack;
        u->frame_off = loc->off;
        u->frame_raw = e.raw ? e.raw : 1;
    }
    *bytes = (int64_t)((double)loc->stored * (double)loc->raw / (double)u->frame_raw);
    return OK;
}

static enum err_code stored_of(struct usage *u, const struct loc *loc, int64_t *bytes,
                               struct err *err)
{
    switch (loc->type) {
    case LOC_FRAME:
        return frame_share(u, loc, bytes, err);
    case LOC_BLOB:
        *bytes = (int64_t)loc->stored + PACK_RECORD_HEADER;
        return OK;
    case LOC_SLICE:
        *bytes = (int64_t)loc->raw;
        return OK;
    default: /* recipes and loose files: their chunks have the bytes */
        *bytes = PACK_RECORD_HEADER;
        return OK;
    }
}

static enum err_code visit(struct usage *u, const struct digest *id, bool *first, struct err *err);

/* A chunk of a loose file that is in a pack as well takes room twice; *extra is that of the loose file. */
static enum err_code visit_chunks(struct usage *u, const struct digest *id, const struct loc *loc,
                                  int64_t *extra, struct err *err)
{
    struct recipe_chunk *chunks = NULL;
    size_t count = 0;
    enum err_code rc = object_chunks(u->st, id, &chunks, &count, err);

    if (!rc && count == 1 && digest_eq(&chunks[0].id, id)) {
        *extra = (int64_t)loc->raw;
        count = 0;
    }
    for (size_t i = 0; i < count && !rc; i++) {
        struct loc chunk = {0};
        bool first;

        rc = visit(u, &chunks[i].id, &first, err);
        if (!rc && loc->type == LOC_LOOSE)
            rc = object_locate(u->st, &chunks[i].id, 1, &chunk, err);
        if (!rc && loc->type == LOC_LOOSE && chunk.type != LOC_SLICE)
            *extra += chunks[i].len;
    }
    free(chunks);
    return rc;
}

/* An object and its chunks, but nothing below a tree.  *first: this ref had not met it before. */
static enum err_code visit(struct usage *u, const struct digest *id, bool *first, struct err *err)
{
    struct loc loc = {0};
    int64_t extra = 0, stored = 0;
    bool fresh;
    enum err_code rc = OK;

    meet(u, id, first, &fresh);
    if (!*first)
        return OK;
    rc = object_locate(u->st, id, 1, &loc, err);
    if (!rc && (loc.type == LOC_RECIPE || loc.type == LOC_LOOSE))
        rc = visit_chunks(u, id, &loc, &extra, err);
    if (!rc && fresh && loc.type)
        rc = stored_of(u, &loc, &stored, err);
    if (rc)
        return rc;

    struct object_row *row = &u->rows[place_of(u, id)]; /* the table may have grown since */

    if (fresh)
        row->stored = stored + extra;
    u->totals[u->ref - 1].stored += row->stored;
    return OK;
}

/* ---- trees ------------------------------------------------------------------------------------- */

static enum err_code visit_tree(struct usage *u, const struct digest *id, int depth,
                                int64_t *logical, int64_t *files, struct err *err);

static enum err_code visit_entries(struct usage *u, const struct tree *t, int depth,
                                   int64_t *logical, int64_t *files, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; i < t->count && !rc; i++) {
        const struct tree_entry *e = &t->entries[i];
        int64_t below = 0, count = 0;
        bool first;

        if (e->mode == TREE_LINK)
            continue;
        if (e->mode == TREE_DIR) {
            rc = visit_tree(u, &e->digest, depth + 1, &below, &count, err);
        } else {
            rc = visit(u, &e->digest, &first, err);
            below = e->size;
            count = 1;
            progress_add(u->progress, 1);
        }
        if (!rc && (__builtin_add_overflow(*logical, below, logical) ||
                    __builtin_add_overflow(*files, count, files)))
            rc = err_set(err, ERR_LIMIT, "a tree holds more than 2^63 bytes, by path");
    }
    return rc;
}

static enum err_code visit_tree(struct usage *u, const struct digest *id, int depth,
                                int64_t *logical, int64_t *files, struct err *err)
{
    char what[DIGEST_TEXT + 8] = "tree ";
    struct buf manifest;
    struct tree t;
    bool first;
    enum err_code rc;

    digest_text(id, what + strlen(what));
    if (depth > TREE_DEPTH_MAX)
        return err_set(err, ERR_LIMIT, "%s: nested deeper than %d", what, TREE_DEPTH_MAX);
    rc = visit(u, id, &first, err);
    if (rc)
        return rc;
    if (!first) {
        *logical = u->rows[place_of(u, id)].logical;
        *files = u->rows[place_of(u, id)].files;
        return OK;
    }
    tree_init(&t);
    buf_init(&manifest, TREE_BYTES_MAX);
    rc = object_read(u->st, id, TREE_BYTES_MAX, &manifest, err);
    if (!rc)
        rc = tree_decode(manifest.n ? manifest.p : "", manifest.n, -1, what, &t, err);
    buf_release(&manifest);
    if (!rc)
        rc = visit_entries(u, &t, depth, logical, files, err);
    tree_release(&t);
    u->rows[place_of(u, id)].logical = *logical;
    u->rows[place_of(u, id)].files = *files;
    return rc;
}

static enum err_code visit_ref(struct usage *u, const struct ref_row *ref, struct err *err)
{
    struct ref_total *total = &u->totals[u->ref - 1];
    bool first;
    enum err_code rc;

    if (ref->kind == OBJ_TREE) {
        rc = visit_tree(u, &ref->digest, 0, &total->logical, &total->files, err);
    } else {
        total->files = 1;
        rc = object_size(u->st, &ref->digest, &total->logical, err);
        if (!rc)
            rc = visit(u, &ref->digest, &first, err);
    }
    return rc ? err_prefix(err, "ref %s", ref->name) : OK;
}

/* ---- the command ------------------------------------------------------------------------------- */

static bool is_asked(const struct cli *c, const char *ref)
{
    for (size_t i = 0; i < c->arg_count; i++)
        if (strcmp(c->args[i], ref) == 0)
            return true;
    return c->arg_count == 0;
}

static enum err_code show(const struct cli *c, const struct ref_row *ref, const struct ref_total *t,
                          struct err *err)
{
    char logical[16], stored[16], unique[16];

    if (c->json)
        return cli_json(json_pack("{s:I,s:I,s:o,s:I,s:I,s:I}", "files", (json_int_t)t->files,
                                  "logical", (json_int_t)t->logical, "ref",
                                  cli_json_name(ref->name, strlen(ref->name)), "shared",
                                  (json_int_t)(t->stored - t->unique), "stored",
                                  (json_int_t)t->stored, "unique", (json_int_t)t->unique),
                        err);
    str_from_bytes(t->logical, logical);
    str_from_bytes(t->stored, stored);
    str_from_bytes(t->unique, unique);
    printf("%11s %11s %11s  ", logical, stored, unique);
    cli_name(ref->name, strlen(ref->name));
    printf("\n");
    return OK;
}

/* All refs are walked even when a few were asked for: what is unique depends on the others. */
static enum err_code measure(struct usage *u, const struct ref_row *rows, size_t n, struct err *err)
{
    enum err_code rc = OK;

    u->totals = mem_zero(n + 1, sizeof(*u->totals));
    grow(u);
    for (size_t i = 0; i < n && !rc; i++) {
        u->ref = (uint32_t)i + 1;
        rc = visit_ref(u, &rows[i], err);
    }
    for (size_t i = 0; i < u->room; i++)
        if (u->rows[i].owner && u->rows[i].owner != SEVERAL)
            u->totals[u->rows[i].owner - 1].unique += u->rows[i].stored;
    return rc;
}

static enum err_code check_names(struct cli *c, struct store *st, struct err *err)
{
    struct ref_row row;
    enum err_code rc = OK;

    for (size_t i = 0; i < c->arg_count && !rc; i++) {
        rc = store_ref_check(str_of(c->args[i]), err);
        if (!rc)
            rc = index_ref(st->index, str_of(c->args[i]), &row, err);
        if (rc == ERR_NOT_FOUND || (!rc && row.kind == OBJ_NONE))
            rc = cli_unknown_ref(st, c->args[i], err);
    }
    return rc;
}

static enum err_code du_run(struct cli *c, struct err *err)
{
    struct usage u = {0};
    struct progress line;
    struct ref_row *rows = NULL;
    size_t n = 0;
    enum err_code rc = cli_open(c, STORE_READ, &u.st, err);

    if (!rc)
        rc = check_names(c, u.st, err);
    if (!rc)
        rc = index_refs(u.st->index, STR(""), REF_LIVE, &rows, &n, err);
    if (!rc) {
        u.progress = cli_progress(c, &line, "measuring", "files");
        rc = measure(&u, rows, n, err);
        progress_end(u.progress);
    }
    if (!rc && !c->json && !c->quiet)
        printf("%11s %11s %11s  ref\n", "logical", "stored", "unique");
    for (size_t i = 0; i < n && !rc; i++)
        if (is_asked(c, rows[i].name))
            rc = show(c, &rows[i], &u.totals[i], err);
    free(u.rows);
    free(u.totals);
    free(rows);
    store_close(u.st);
    return rc;
}

const struct cli_command cli_store_du = {
    .name = "store du",
    .args = "[REF...]",
    .args_max = -1,
    .summary = "tell how much room each ref takes, and how much of it no other ref needs",
    .text = "logical: the files as they would be written out.  stored: what is on disk for them, "
            "each object once.\n"
            "unique: what a gc could free if this ref alone were removed; the rest of stored is "
            "shared.",
    .example = "weir store du\nweir store du data/captions exp-12",
    .json = "{\"files\":N,\"logical\":N,\"ref\":\"data/"
            "captions\",\"shared\":N,\"stored\":N,\"unique\":N}, a line per ref",
    .run = du_run,
};
