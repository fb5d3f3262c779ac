/* Push, in four steps: walk what the roots reach here; strike what the remote's tables have; ship the rest; then a pack with refs and
 * action results.
 *
 * Recipes follow all chunks, and refs follow everything, so a cut leaves no name and no recipe on the remote that points at nothing.
 * The next push strikes what has arrived.  What a tree over there leads to is not assumed to be there: each object is looked for.
 */
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "store/pack_cache.h"
#include "store/reach.h"
#include "store/reader.h"
#include "store/shipment.h"
#include "store/transfer.h"

#define LOCATE_STEP 4096
#define IS_RECIPE 16u /* of reach's bytes: has chunks of its own */
#define IS_CHUNK 32u  /* is a chunk of something, and so not split further */

struct push_root {
    struct digest id;
    enum obj_kind kind;
    char *ref; /* NULL: a digest was given */
    int64_t stamp;
};
struct push {
    struct store *st;
    const struct transfer_options *o;
    struct transfer_report *report;
    struct tocs tocs;
    struct reach reach;
    struct shipment ship;
    struct push_root *roots;
    size_t root_count, root_cap;
    struct buf raw;
    int64_t to_send;    /* bytes that the remote lacks, for the progress line */
    struct err refused; /* a ref that was asked for by name is newer over there */
};

/* ---- roots ------------------------------------------------------------------------------------- */

static void add_root(struct push *p, const struct digest *id, enum obj_kind kind, const char *ref,
                     int64_t stamp)
{
    if (p->root_count == p->root_cap) {
        p->root_cap = p->root_cap ? p->root_cap * 2 : 16;
        p->roots = mem_grow(p->roots, p->root_cap, sizeof(*p->roots));
    }
    p->roots[p->root_count++] = (struct push_root){
        .id = *id, .kind = kind, .ref = ref ? mem_strdup(ref) : NULL, .stamp = stamp};
}

static enum err_code add_named_root(struct push *p, const char *what, struct err *err)
{
    struct err ignored = ERR_INIT;
    struct ref_row row = {0};
    struct digest id;
    enum obj_kind kind;
    enum err_code rc = ERR_NOT_FOUND;

    if (store_ref_check(str_of(what), &ignored) == OK)
        rc = index_ref(p->st->index, str_of(what), &row, err);
    if (rc && rc != ERR_NOT_FOUND)
        return rc;
    if (!rc && row.kind != OBJ_NONE) {
        add_root(p, &row.digest, row.kind, what, row.stamp);
        return OK;
    }
    rc = store_resolve(p->st, str_of(what), &id, &kind, err);
    if (!rc)
        add_root(p, &id, kind, NULL, 0);
    return rc;
}

static enum err_code find_roots(struct push *p, struct err *err)
{
    struct ref_row *rows = NULL;
    size_t n = 0;
    enum err_code rc = OK;

    for (size_t i = 0; i < p->o->ref_count && !rc; i++)
        rc = add_named_root(p, p->o->refs[i], err);
    if (rc || p->o->ref_count > 0)
        return rc;
    rc = index_refs(p->st->index, STR(""), REF_LIVE, &rows, &n, err);
    for (size_t i = 0; i < n && !rc; i++)
        add_root(p, &rows[i].digest, rows[i].kind, rows[i].name, rows[i].stamp);
    free(rows);
    return rc;
}

static enum err_code blame_root(const struct push *p, const struct reach_item *item,
                                struct err *err)
{
    char text[DIGEST_TEXT + 1];

    if (item->root >= p->root_count) /* an action */
        return err_prefix(err, "push actions");
    if (p->roots[item->root].ref)
        return err_prefix(err, "push ref %s", p->roots[item->root].ref);
    digest_text(&p->roots[item->root].id, text);
    return err_prefix(err, "push %s", text);
}

/* ---- the walk ---------------------------------------------------------------------------------- */

/* One look-up for many: fn for each item in [from, to). */
typedef enum err_code (*each_fn)(struct push *p, size_t at, const struct loc *loc, struct err *err);

static enum err_code each_located(struct push *p, size_t from, size_t to, each_fn fn,
                                  struct err *err)
{
    struct digest *ids = mem_alloc(LOCATE_STEP * sizeof(*ids));
    struct loc *locs = mem_alloc(LOCATE_STEP * sizeof(*locs));
    enum err_code rc = OK;

    for (size_t i = from, n; i < to && !rc; i += n) {
        n = to - i < LOCATE_STEP ? to - i : LOCATE_STEP;
        for (size_t j = 0; j < n; j++)
            ids[j] = p->reach.items[i + j].id;
        rc = object_locate(p->st, ids, n, locs, err);
        for (size_t j = 0; j < n && !rc; j++) {
            const struct reach_item item = p->reach.items[i + j]; /* the list may move */

            rc = fn(p, i + j, &locs[j], err);
            if (rc)
                blame_root(p, &item, err);
        }
    }
    free(locs);
    free(ids);
    return rc;
}

static enum err_code expand_chunks(struct push *p, size_t at, struct err *err)
{
    const struct reach_item item = p->reach.items[at];
    struct recipe_chunk *chunks = NULL;
    size_t count = 0;
    enum err_code rc = object_chunks(p->st, &item.id, &chunks, &count, err);

    /* A whole object is its only chunk. */
    if (!rc && !(count == 1 && digest_eq(&chunks[0].id, &item.id))) {
        reach_set(&p->reach, &item.id, IS_RECIPE);
        rc = reach_chunks(&p->reach, &item, chunks, count, err);
        for (size_t i = 0; i < count && !rc; i++)
            reach_set(&p->reach, &chunks[i].id, IS_CHUNK);
    }
    free(chunks);
    return rc;
}

static enum err_code expand(struct push *p, size_t at, const struct loc *loc, struct err *err)
{
    const struct reach_item item = p->reach.items[at];
    enum err_code rc = OK;

    if (loc->type == 0) {
        char text[DIGEST_TEXT + 1];

        digest_text(&item.id, text);
        return err_set(err, ERR_NOT_FOUND, "object %s is missing here; run weir fsck --repair",
                       text);
    }
    if (item.kind != REACH_CHUNK && (loc->type == LOC_RECIPE || loc->type == LOC_LOOSE))
        rc = expand_chunks(p, at, err);
    if (!rc && !reach_is(&p->reach, &item.id, IS_RECIPE))
        p->to_send += (int64_t)loc->raw;
    if (!rc && item.kind == REACH_TREE) {
        buf_clear(&p->raw);
        rc = object_read(p->st, &item.id, TREE_BYTES_MAX, &p->raw, err);
        if (!rc)
            rc = reach_tree(&p->reach, &item, p->raw.n ? p->raw.p : "", p->raw.n, err);
    }
    return rc;
}

static enum err_code walk(struct push *p, size_t from, struct err *err)
{
    enum err_code rc = OK;

    while (from < p->reach.n && !rc) {
        const size_t to = p->reach.n;

        rc = each_located(p, from, to, expand, err);
        from = to;
    }
    return rc;
}

static enum err_code walk_roots(struct push *p, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; i < p->root_count && !rc; i++) {
        const bool tree = p->roots[i].kind == OBJ_TREE;
        const struct reach_item item = {
            .id = p->roots[i].id,
            .root = (uint32_t)i,
            /* Without a ref it may be part of a larger tree, into which its links reach. */
            .depth = p->roots[i].ref ? 0 : -1,
            .kind = tree ? REACH_TREE : REACH_BLOB};

        rc = reach_add(&p->reach, &item, err);
    }
    return rc ? rc : walk(p, 0, err);
}

/* ---- actions ----------------------------------------------------------------------------------- */

struct bind_filter {
    const struct action_row *rows; /* sorted by key */
    size_t n;
};

static int by_key(const void *a, const void *b)
{
    return digest_cmp(&((const struct action_row *)a)->key, &((const struct action_row *)b)->key);
}

static bool is_ours(void *arg, const struct digest *id, int64_t stamp)
{
    const struct bind_filter *f = arg;
    const struct action_row key = {.key = *id};

    (void)stamp;
    return f->n > 0 && bsearch(&key, f->rows, f->n, sizeof(*f->rows), by_key) != NULL;
}

/* Actions whose result goes along, and that the remote does not know with this result already. */
static enum err_code find_actions(struct push *p, struct action_row **rows, size_t *n,
                                  struct err *err)
{
    struct remote_note *notes = NULL;
    size_t note_count = 0, kept = 0;
    enum err_code rc = index_actions(p->st->index, rows, n, err);

    for (size_t i = 0; i < *n && !rc; i++)
        if (reach_is(&p->reach, &(*rows)[i].result, REACH_PLAIN | REACH_AS_TREE))
            (*rows)[kept++] = (*rows)[i];
    *n = kept;
    if (rc || kept == 0)
        return rc;
    qsort(*rows, kept, sizeof(**rows), by_key);

    struct bind_filter filter = {*rows, kept};

    rc = notes_read(&p->tocs, REC_BIND, is_ours, &filter, &notes, &note_count, err);
    kept = 0;
    for (size_t i = 0; i < *n && !rc; i++) {
        const struct action_row row = (*rows)[i];
        const struct remote_note *note = note_find(notes, note_count, &row.key);

        if (!note || (!digest_eq(&note->target, &row.result) && note->stamp < row.stamp))
            (*rows)[kept++] = row;
    }
    *n = kept;
    notes_free(notes, note_count);
    return rc;
}

/* The text of an action is an object too, but a result without it is still worth something. */
static enum err_code walk_actions(struct push *p, const struct action_row *rows, size_t n,
                                  struct err *err)
{
    const size_t from = p->reach.n;
    enum err_code rc = OK;

    for (size_t i = 0; i < n && !rc; i++) {
        const struct reach_item item = {.id = rows[i].key, .root = UINT32_MAX, .kind = REACH_BLOB};
        struct loc loc;

        rc = object_locate(p->st, &rows[i].key, 1, &loc, err);
        if (!rc && loc.type)
            rc = reach_add(&p->reach, &item, err);
    }
    return rc ? rc : walk(p, from, err);
}

/* ---- what is missing there --------------------------------------------------------------------- */

/* Only what stands in the pack itself counts: a loose file that a table announces lies outside. */
static enum err_code strike(struct push *p, struct err *err)
{
    const struct pack_entry *entries;
    enum err_code rc = OK;
    size_t count;

    for (size_t i = 0; i < p->tocs.count && !rc; i++) {
        rc = toc_get(&p->tocs, i, &entries, &count, err);
        for (size_t e = 0; !rc && e < count; e++) {
            const bool object = entries[e].type == REC_BLOB || entries[e].type == REC_FRAME ||
                                entries[e].type == REC_RECIPE;
            uint8_t *flags = object ? idset_find(p->reach.seen, &entries[e].id) : NULL;

            if (!flags || (*flags & REACH_THERE))
                continue;
            *flags = (uint8_t)(*flags | REACH_THERE);
            if (!(*flags & IS_RECIPE))
                p->to_send -= (int64_t)entries[e].raw;
        }
    }
    if (!rc && p->o->progress && p->to_send > 0)
        atomic_store(&p->o->progress->total, p->to_send);
    return rc;
}

static bool as_recipe(const struct push *p, const struct digest *id)
{
    return reach_is(&p->reach, id, IS_RECIPE) && !reach_is(&p->reach, id, IS_CHUNK);
}

static void count_moved(struct push *p, int64_t bytes)
{
    p->report->objects_moved++;
    progress_add(p->o->progress, bytes);
}

/* The stored bytes can travel as they are when they were worth encoding; but never unverified. */
static enum err_code send_encoded(struct push *p, const struct digest *id, const struct loc *loc,
                                  struct err *err)
{
    struct pack *pack = NULL;
    struct pack_entry e;
    struct buf payload;
    enum err_code rc;

    buf_init(&payload, CODEC_RAW_MAX + (1 << 20));
    buf_clear(&p->raw);
    rc = object_chunk(p->st, id, loc, &p->raw, err);
    if (!rc)
        rc = pack_cache_get(p->st, loc->pack, &pack, err);
    if (!rc)
        rc = pack_read(pack, loc->off, &e, &payload, err);
    if (!rc && !digest_eq(&e.id, id))
        rc = err_set(err, ERR_CHANGED, "packs were rewritten meanwhile; push again");
    e.stamp = 0;
    if (!rc)
        rc = shipment_put_record(&p->ship, &e, payload.p, payload.n, err);
    pack_cache_put(p->st, pack);
    buf_release(&payload);
    return rc;
}

static enum err_code send_plain(struct push *p, size_t at, const struct loc *loc, struct err *err)
{
    const struct reach_item item = p->reach.items[at];
    enum err_code rc;

    if (reach_is(&p->reach, &item.id, REACH_THERE | REACH_DONE) || as_recipe(p, &item.id))
        return OK;
    reach_set(&p->reach, &item.id, REACH_DONE);
    count_moved(p, p->o->dry_run ? 0 : (int64_t)loc->raw);
    if (p->o->dry_run) {
        p->report->bytes_moved += loc->type == LOC_BLOB ? loc->stored : (int64_t)loc->raw;
        return OK;
    }
    if (loc->type == LOC_BLOB && loc->enc != ENC_RAW)
        return send_encoded(p, &item.id, loc, err);
    if (loc->raw > CODEC_RAW_MAX) {
        char text[DIGEST_TEXT + 1];

        digest_text(&item.id, text);
        return err_set(err, ERR_LIMIT,
                       "object %s is kept whole, without chunks, and too long for a record; run "
                       "weir store pack --cold 0s, then push again",
                       text);
    }
    buf_clear(&p->raw);
    rc = object_read(p->st, &item.id, CODEC_RAW_MAX, &p->raw, err);
    if (rc)
        return rc;
    return shipment_put(&p->ship, &item.id, loc->flags & REC_TREE, (enum hint)item.hint,
                        p->raw.n ? p->raw.p : "", p->raw.n, err);
}

static enum err_code send_recipe(struct push *p, size_t at, const struct loc *loc, struct err *err)
{
    const struct digest id = p->reach.items[at].id;
    struct pack_entry e = {
        .id = id, .type = REC_RECIPE, .flags = loc->flags & REC_TREE, .raw = loc->raw};
    struct recipe_chunk *chunks = NULL;
    struct buf payload;
    size_t count = 0;
    enum err_code rc;

    if (reach_is(&p->reach, &id, REACH_THERE | REACH_DONE) || !as_recipe(p, &id))
        return OK;
    reach_set(&p->reach, &id, REACH_DONE);
    count_moved(p, 0);
    if (p->o->dry_run)
        return OK;
    buf_init(&payload, PACK_PAYLOAD_MAX);
    rc = object_chunks(p->st, &id, &chunks, &count, err);
    /* A compaction may have cut it anew since the walk. */
    for (size_t i = 0; i < count && !rc; i++)
        if (!reach_is(&p->reach, &chunks[i].id, IS_CHUNK))
            rc = err_set(err, ERR_CHANGED, "packs were rewritten meanwhile; push again");
    if (!rc)
        recipe_encode(&id, chunks, count, &payload);
    if (!rc)
        rc = buf_check(&payload, "recipe", err);
    if (!rc)
        rc = shipment_put_record(&p->ship, &e, payload.p, payload.n, err);
    buf_release(&payload);
    free(chunks);
    return rc;
}

static enum err_code send_objects(struct push *p, struct err *err)
{
    enum err_code rc = each_located(p, 0, p->reach.n, send_plain, err);

    if (!rc)
        rc = each_located(p, 0, p->reach.n, send_recipe, err);
    /* What follows may refer to everything so far: it has to be on the remote first. */
    if (!rc && !p->o->dry_run)
        rc = shipment_send(&p->ship, err);
    return rc;
}

/* ---- refs and results -------------------------------------------------------------------------- */

static void keep(struct push *p, const struct push_root *r, const struct remote_note *there)
{
    char text[DIGEST_TEXT + 1];

    digest_text(&there->target, text);
    p->report->refs_kept++;
    if (p->o->notes)
        buf_printf(p->o->notes, "ref %s on %s is newer (%s%s) and was left alone\n", r->ref,
                   p->tocs.remote->name, there->kind == OBJ_NONE ? "removed, was " : "", text);
    /* Among all refs it is only worth a note; who named it wants to know. */
    if (p->o->ref_count > 0 && !p->refused.code)
        (void)!err_set(&p->refused, ERR_CHANGED,
                       "ref %s on %s is newer and was left alone; weir pull it, or set it here "
                       "again, then push",
                       r->ref, p->tocs.remote->name);
}

/* Two that were made independently under one name: neither gives way, whichever is newer. */
static void keep_both(struct push *p, const struct push_root *r, const struct remote_note *there)
{
    char text[DIGEST_TEXT + 1];

    digest_text(&there->target, text);
    p->report->refs_kept++;
    if (p->o->notes)
        buf_printf(p->o->notes,
                   "%s on %s is another one (%s) and was left alone; weir ref set NAME %s gives "
                   "this one a name of its own to push\n",
                   r->ref, p->tocs.remote->name, text, r->ref);
    if (p->o->ref_count > 0 && !p->refused.code)
        (void)!err_set(&p->refused, ERR_CHANGED,
                       "%s on %s is another one and was left alone; weir ref set NAME %s gives "
                       "this one a name of its own to push",
                       r->ref, p->tocs.remote->name, r->ref);
}

static enum err_code send_ref(struct push *p, const struct push_root *r,
                              const struct remote_note *there, struct err *err)
{
    struct pack_entry e = {.type = REC_REF, .stamp = (uint64_t)r->stamp};
    const struct str name = str_of(r->ref);
    struct buf payload;
    enum err_code rc;

    if (there && there->kind == r->kind && digest_eq(&there->target, &r->id))
        return OK;
    if (there && there->kind != OBJ_NONE && p->o->once &&
        strncmp(r->ref, p->o->once, strlen(p->o->once)) == 0) {
        keep_both(p, r, there);
        return OK;
    }
    if (there && there->stamp >= r->stamp) {
        keep(p, r, there);
        return OK;
    }
    p->report->refs++;
    if (p->o->dry_run)
        return OK;
    sha256_of(name.p, name.n, &e.id);
    buf_init(&payload, 1 << 16);
    ref_encode(&r->id, (uint8_t)r->kind, name, &payload);
    rc = buf_check(&payload, "ref", err);
    if (!rc)
        rc = shipment_put_record(&p->ship, &e, payload.p, payload.n, err);
    buf_release(&payload);
    return rc;
}

static enum err_code send_refs(struct push *p, struct err *err)
{
    struct remote_note *notes = NULL;
    size_t n = 0;
    enum err_code rc = notes_read(&p->tocs, REC_REF, NULL, NULL, &notes, &n, err);

    for (size_t i = 0; i < p->root_count && !rc; i++) {
        struct digest id;

        if (!p->roots[i].ref)
            continue;
        sha256_of(p->roots[i].ref, strlen(p->roots[i].ref), &id);
        rc = send_ref(p, &p->roots[i], note_find(notes, n, &id), err);
    }
    notes_free(notes, n);
    return rc;
}

static enum err_code send_results(struct push *p, const struct action_row *rows, size_t n,
                                  struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; i < n && !rc && !p->o->dry_run; i++) {
        struct pack_entry e = {
            .id = rows[i].key, .type = REC_BIND, .stamp = (uint64_t)rows[i].stamp};

        rc = shipment_put_record(&p->ship, &e, rows[i].result.b, DIGEST_BYTES, err);
    }
    return rc;
}

/* ---- all of it --------------------------------------------------------------------------------- */

static enum err_code push(struct push *p, struct err *err)
{
    struct action_row *actions = NULL;
    size_t action_count = 0;
    enum err_code rc = find_roots(p, err);

    if (!rc)
        rc = walk_roots(p, err);
    if (!rc)
        rc = find_actions(p, &actions, &action_count, err);
    if (!rc)
        rc = walk_actions(p, actions, action_count, err);
    if (!rc)
        rc = strike(p, err);
    if (!rc && !p->o->dry_run)
        rc = shipment_open(&p->tocs, &p->ship, err);
    if (!rc)
        rc = send_objects(p, err);
    if (!rc)
        rc = send_results(p, actions, action_count, err);
    if (!rc)
        rc = send_refs(p, err);
    if (!rc && !p->o->dry_run)
        rc = shipment_send(&p->ship, err);
    free(actions);
    return rc;
}

enum err_code store_push(struct store *st, const char *remote, const struct transfer_options *o,
                         struct transfer_report *out, struct err *err)
{
    struct push p = {.st = st, .o = o, .report = out};
    enum err_code rc;

    CHECK(st->index);
    *out = (struct transfer_report){0};
    reach_init(&p.reach);
    buf_init(&p.raw, TREE_BYTES_MAX);
    rc = tocs_open(st, remote, !o->dry_run, &p.tocs, err);
    if (!rc)
        rc = push(&p, err);
    out->objects = (int64_t)p.reach.n;
    out->packs = p.ship.packs;
    out->bytes_moved += p.tocs.moved_bytes;
    if (!rc && p.refused.code) {
        *err = p.refused;
        rc = err->code;
    }
    shipment_release(&p.ship);
    tocs_close(&p.tocs);
    reach_release(&p.reach);
    buf_release(&p.raw);
    for (size_t i = 0; i < p.root_count; i++)
        free(p.roots[i].ref);
    free(p.roots);
    return rc;
}
