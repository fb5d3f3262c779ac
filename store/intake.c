#include "store/intake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/reader.h"

#define WANTS_MAX ((size_t)1 << 18) /* looked for in one pass over the tables: 24 MiB */

enum err_code intake_init(struct store *st, struct tocs *tocs, bool dry_run, struct intake *in,
                          struct err *err)
{
    enum err_code rc;

    *in = (struct intake){.st = st, .tocs = tocs};
    reach_init(&in->reach);
    buf_init(&in->raw, TREE_BYTES_MAX);
    in->packs_read = mem_zero(tocs->count + 1, sizeof(*in->packs_read));
    rc = codec_new(&in->codec, err);
    if (!rc && !dry_run)
        rc = writer_open(st, &in->writer, err);
    if (rc)
        intake_release(in);
    return rc;
}

static void free_recipes(struct intake_recipe *recipes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(recipes[i].chunks);
    free(recipes);
}

void intake_release(struct intake *in)
{
    if (!in->st)
        return;
    writer_release(in->writer);
    codec_free(in->codec);
    free_recipes(in->recipes, in->recipe_count);
    free_recipes(in->tall_recipes, in->tall_count);
    free(in->tall);
    free(in->packs_read);
    buf_release(&in->raw);
    reach_release(&in->reach);
    *in = (struct intake){0};
}

static enum err_code commit(struct intake *in, struct err *err)
{
    in->pending_bytes = 0;
    return in->writer ? writer_commit(in->writer, err) : OK;
}

static enum err_code damaged(const struct intake *in, uint32_t pack, const struct digest *id,
                             const char *why, struct err *err)
{
    char text[DIGEST_TEXT + 1];

    digest_text(id, text);
    err_set(err, ERR_DAMAGED, "object %s: %s", text, why);
    return toc_blame(in->tocs, pack, err);
}

/* ---- what is here already ---------------------------------------------------------------------- */

static enum err_code is_here(struct intake *in, const struct digest *id, bool *here,
                             struct err *err)
{
    struct loc loc;
    enum err_code rc;

    if (in->writer)
        return writer_has(in->writer, id, here, err);
    rc = index_get(in->st->index, id, 1, &loc, err);
    *here = !rc && loc.type != 0 && !object_is_lost(in->st, id);
    return rc;
}

static enum err_code open_tree(struct intake *in, const struct reach_item *item, struct err *err)
{
    enum err_code rc;

    buf_clear(&in->raw);
    rc = object_read(in->st, &item->id, TREE_BYTES_MAX, &in->raw, err);
    return rc ? rc : reach_tree(&in->reach, item, in->raw.n ? in->raw.p : "", in->raw.n, err);
}

/* *want: it has to come from the remote.  What came in this run but is not committed yet cannot be read here: a tree among that,
 * seen as a blob first, comes twice. */
static enum err_code look(struct intake *in, const struct reach_item *item, bool *want,
                          struct err *err)
{
    bool here;
    enum err_code rc = is_here(in, &item->id, &here, err);

    if (rc)
        return rc;
    *want = !here || (item->kind == REACH_TREE && reach_is(&in->reach, &item->id, REACH_DONE));
    if (*want || item->kind != REACH_TREE)
        return OK;
    return open_tree(in, item, err);
}

/* ---- what comes -------------------------------------------------------------------------------- */

static void came(struct intake *in, const struct digest *id, uint32_t pack, size_t bytes)
{
    reach_set(&in->reach, id, REACH_DONE);
    in->objects_moved++;
    in->packs_read[pack] = true;
    in->pending_bytes += (int64_t)bytes;
}

/* Verified bytes of an object of the list. */
static enum err_code lead_on(struct intake *in, const struct reach_item *item, const char *raw,
                             size_t n, uint32_t pack, struct err *err)
{
    enum err_code rc;

    if (item->kind != REACH_TREE)
        return OK;
    rc = reach_tree(&in->reach, item, raw, n, err);
    /* It has its name, but is no tree that weir would have written. */
    if (rc == ERR_INPUT) {
        err->code = ERR_DAMAGED;
        return toc_blame(in->tocs, pack, err);
    }
    return rc;
}

static enum err_code decode(struct intake *in, const struct toc_want *want, const void *payload,
                            struct err *err)
{
    const struct pack_entry *e = &want->entry;
    struct digest is;
    void *room;
    enum err_code rc;

    buf_clear(&in->raw);
    if (e->raw > CODEC_RAW_MAX)
        return damaged(in, want->pack, &e->id, "too long for a record", err);
    room = buf_room(&in->raw, (size_t)e->raw);
    rc = buf_check(&in->raw, "object", err);
    if (rc)
        return rc;
    rc = codec_decode(in->codec, (enum enc)e->enc, payload, e->stored, room, (size_t)e->raw, err);
    if (rc == ERR_DAMAGED)
        return damaged(in, want->pack, &e->id, "does not decode", err);
    if (rc)
        return rc;
    sha256_of(in->raw.n ? in->raw.p : "", in->raw.n, &is);
    if (!digest_eq(&is, &e->id))
        return damaged(in, want->pack, &e->id, "the remote has other bytes under that name", err);
    return OK;
}

static enum err_code on_blob(struct intake *in, const struct toc_want *wants, size_t n,
                             const void *payload, struct err *err)
{
    const struct pack_entry *e = &wants[0].entry;
    uint8_t flags = e->flags & REC_TREE;
    enum err_code rc = decode(in, &wants[0], payload, err);

    for (size_t i = 0; i < n && !rc; i++) {
        const struct reach_item item = in->reach.items[wants[i].tag];

        flags |= item.kind == REACH_TREE ? REC_TREE : 0;
        rc = lead_on(in, &item, in->raw.n ? in->raw.p : "", in->raw.n, wants[i].pack, err);
    }
    if (rc)
        return rc;
    came(in, &e->id, wants[0].pack, e->stored);
    if (!in->writer)
        return OK;
    writer_touch(in->writer, OBJ_BLOB, &e->id);
    return writer_put_encoded(in->writer, &e->id, flags, (enum enc)e->enc, e->raw, payload,
                              e->stored, err);
}

/* One member of a decoded frame. */
static enum err_code on_member(struct intake *in, const struct toc_want *want, const char *raw,
                               size_t raw_n, struct err *err)
{
    const struct reach_item item = in->reach.items[want->tag];
    const struct pack_entry *e = &want->entry;
    const bool tree = item.kind == REACH_TREE || (e->flags & REC_TREE);
    struct digest is;
    enum err_code rc;

    if (e->pos > raw_n || e->raw > raw_n - e->pos)
        return damaged(in, want->pack, &e->id, "lies outside of its frame", err);
    sha256_of(raw + e->pos, (size_t)e->raw, &is);
    if (!digest_eq(&is, &e->id))
        return damaged(in, want->pack, &e->id, "the remote has other bytes under that name", err);
    rc = lead_on(in, &item, raw + e->pos, (size_t)e->raw, want->pack, err);
    if (rc)
        return rc;
    came(in, &e->id, want->pack, (size_t)e->raw);
    if (!in->writer)
        return OK;
    writer_touch(in->writer, OBJ_BLOB, &e->id);
    rc = writer_put(in->writer, tree ? OBJ_TREE : OBJ_BLOB, raw + e->pos, (size_t)e->raw, &is, err);
    return rc;
}

static enum err_code on_frame(struct intake *in, const struct toc_want *wants, size_t n,
                              const char *payload, struct err *err)
{
    const struct pack_entry *e = &wants[0].entry;
    struct frame_member *members = NULL;
    size_t count, off, raw_n = 0;
    char *raw = NULL;
    enum err_code rc = frame_decode(payload, e->stored, &members, &count, &off, &raw_n, err);

    free(members); /* the table, which the pack's name covers, says the same */
    if (!rc && raw_n > CODEC_RAW_MAX)
        rc = err_set(err, ERR_DAMAGED, "a frame of %zu bytes is more than weir writes", raw_n);
    if (!rc) {
        raw = mem_alloc(raw_n + 1);
        rc = codec_decode(in->codec, ENC_ZSTD, payload + off, e->stored - off, raw, raw_n, err);
    }
    if (rc == ERR_DAMAGED)
        err_prefix(err, "frame at %u", e->off);
    if (rc)
        rc = toc_blame(in->tocs, wants[0].pack, err);
    for (size_t i = 0; i < n && !rc; i++)
        rc = on_member(in, &wants[i], raw, raw_n, err);
    free(raw);
    return rc;
}

static struct intake_recipe *add_recipe(struct intake *in, bool tall)
{
    struct intake_recipe **list = tall ? &in->tall_recipes : &in->recipes;
    size_t *count = tall ? &in->tall_count : &in->recipe_count;
    size_t *cap = tall ? &in->tall_cap : &in->recipe_cap;

    if (*count == *cap) {
        *cap = *cap ? *cap * 2 : 16;
        *list = mem_grow(*list, *cap, sizeof(**list));
        if (tall)
            in->tall = mem_grow(in->tall, *cap, sizeof(*in->tall));
    }
    return &(*list)[(*count)++];
}

static enum err_code on_recipe(struct intake *in, const struct toc_want *want, const void *payload,
                               struct err *err)
{
    const struct reach_item item = in->reach.items[want->tag];
    const struct pack_entry *e = &want->entry;
    struct recipe_chunk *chunks = NULL;
    struct intake_recipe *r;
    size_t count = 0;
    enum err_code rc = recipe_decode(&e->id, e->raw, payload, e->stored, &chunks, &count, err);

    if (rc)
        return toc_blame(in->tocs, want->pack, err);
    in->packs_read[want->pack] = true;
    if (item.kind != REACH_TREE) {
        rc = reach_chunks(&in->reach, &item, chunks, count, err);
        reach_set(&in->reach, &e->id, REACH_DONE);
        in->objects_moved++;
    }
    r = add_recipe(in, item.kind == REACH_TREE);
    *r = (struct intake_recipe){.id = e->id,
                                .flags = e->flags & REC_TREE,
                                .optional = item.root == INTAKE_OPTIONAL,
                                .raw = e->raw,
                                .pack = want->pack,
                                .chunks = chunks,
                                .count = count};
    if (item.kind == REACH_TREE) {
        r->flags = REC_TREE;
        in->tall[in->tall_count - 1] = item;
    }
    return rc;
}

static enum err_code on_record(void *arg, const struct toc_want *wants, size_t n,
                               const void *payload, struct err *err)
{
    struct intake *in = arg;
    enum err_code rc = OK;

    switch (wants[0].entry.type) {
    case REC_BLOB:
        rc = on_blob(in, wants, n, payload, err);
        break;
    case REC_FRAME:
        rc = on_frame(in, wants, n, payload, err);
        break;
    default:
        for (size_t i = 0; i < n && !rc; i++)
            rc = on_recipe(in, &wants[i], payload, err);
    }
    if (!rc && in->commit_bytes && in->pending_bytes >= in->commit_bytes)
        rc = commit(in, err);
    return rc;
}

/* ---- trees in chunks --------------------------------------------------------------------------- */

/* A directory of a hundred thousand names: its manifest has to be put together before the walk can go on. */
struct tall_tree {
    struct intake *in;
    const struct intake_recipe *recipe;
    char *whole;
    int64_t *offs;
};

static enum err_code on_piece(void *arg, const struct toc_want *wants, size_t n,
                              const void *payload, struct err *err)
{
    const struct tall_tree *t = arg;
    const struct pack_entry *e = &wants[0].entry;
    enum err_code rc;

    if (e->type != REC_BLOB)
        return damaged(t->in, wants[0].pack, &e->id, "is no plain chunk", err);
    rc = decode(t->in, &wants[0], payload, err);
    for (size_t i = 0; i < n && !rc; i++) {
        const struct recipe_chunk *c = &t->recipe->chunks[wants[i].tag];

        if (c->len != t->in->raw.n)
            return damaged(t->in, wants[i].pack, &e->id, "has another length in a recipe", err);
        memcpy(t->whole + t->offs[wants[i].tag], t->in->raw.p, c->len);
    }
    if (rc || !t->in->writer)
        return rc;
    t->in->pending_bytes += e->stored;
    writer_touch(t->in->writer, OBJ_BLOB, &e->id);
    return writer_put_encoded(t->in->writer, &e->id, e->flags, (enum enc)e->enc, e->raw, payload,
                              e->stored, err);
}

static enum err_code missing(const struct intake *in, const struct digest *id, uint32_t root,
                             bool loose, struct err *err)
{
    char text[DIGEST_TEXT + 1], part[512] = "";

    digest_text(id, text);
    if (in->describe && root != INTAKE_OPTIONAL)
        in->describe(in->describe_arg, root, part);
    if (loose)
        return err_set(err, ERR_NOT_FOUND,
                       "remote %s: object %s%s%s is not in a pack: that folder is a store's own; "
                       "push from there instead",
                       in->tocs->remote->name, text, *part ? " of " : "", part);
    return err_set(err, ERR_NOT_FOUND,
                   "remote %s lacks object %s%s%s; push again from where it came",
                   in->tocs->remote->name, text, *part ? " of " : "", part);
}

static enum err_code gather_pieces(struct tall_tree *t, const struct reach_item *item,
                                   struct err *err)
{
    const struct intake_recipe *r = t->recipe;
    struct toc_want *wants = mem_zero(r->count, sizeof(*wants));
    enum err_code rc = OK;
    size_t n = 0;
    int64_t off = 0;

    for (size_t i = 0; i < r->count && !rc; off += r->chunks[i++].len) {
        bool here;

        t->offs[i] = off;
        rc = is_here(t->in, &r->chunks[i].id, &here, err);
        if (rc || !here || reach_is(&t->in->reach, &r->chunks[i].id, REACH_DONE)) {
            wants[n++] = (struct toc_want){.entry = {.id = r->chunks[i].id}, .tag = i};
            continue;
        }
        buf_clear(&t->in->raw);
        rc = object_read(t->in->st, &r->chunks[i].id, r->chunks[i].len, &t->in->raw, err);
        if (!rc && t->in->raw.n == r->chunks[i].len)
            memcpy(t->whole + off, t->in->raw.p, t->in->raw.n);
    }
    if (!rc)
        rc = tocs_find(t->in->tocs, wants, n, err);
    for (size_t i = 0; i < n && !rc; i++)
        if (wants[i].entry.type == 0 || wants[i].entry.type == REC_LOOSE)
            rc = missing(t->in, &wants[i].entry.id, item->root, wants[i].entry.type == REC_LOOSE,
                         err);
    if (!rc)
        rc = tocs_read(t->in->tocs, wants, n, on_piece, t, err);
    free(wants);
    return rc;
}

static enum err_code take_tall(struct intake *in, const struct reach_item *item,
                               const struct intake_recipe *r, struct err *err)
{
    struct tall_tree t = {.in = in, .recipe = r};
    struct digest is;
    enum err_code rc;

    if (r->raw > TREE_BYTES_MAX)
        return damaged(in, r->pack, &r->id, "too long for a tree", err);
    t.whole = malloc((size_t)r->raw + 1);
    t.offs = mem_zero(r->count + 1, sizeof(*t.offs));
    rc = t.whole ? gather_pieces(&t, item, err)
                 : err_set(err, ERR_LIMIT, "no memory for a tree of %llu bytes",
                           (unsigned long long)r->raw);
    if (!rc) {
        sha256_of(t.whole, (size_t)r->raw, &is);
        if (!digest_eq(&is, &r->id))
            rc = damaged(in, r->pack, &r->id, "its chunks make up something else", err);
    }
    if (!rc)
        rc = lead_on(in, item, t.whole, (size_t)r->raw, r->pack, err);
    if (!rc) {
        came(in, &r->id, r->pack, 0);
        if (in->writer) {
            writer_touch(in->writer, OBJ_BLOB, &r->id);
            rc = writer_put_recipe(in->writer, &r->id, r->flags, r->raw, r->chunks, r->count, err);
        }
    }
    free(t.offs);
    free(t.whole);
    return rc;
}

static enum err_code take_all_tall(struct intake *in, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; i < in->tall_count; i++) {
        if (!rc)
            rc = take_tall(in, &in->tall[i], &in->tall_recipes[i], err);
        free(in->tall_recipes[i].chunks);
    }
    in->tall_count = 0;
    return rc;
}

/* ---- the walk ---------------------------------------------------------------------------------- */

/* What a dry run need not read; and what is nowhere.  Keeps the others. */
static enum err_code sift(struct intake *in, struct toc_want *wants, size_t *n, struct err *err)
{
    size_t kept = 0;

    for (size_t i = 0; i < *n; i++) {
        const struct reach_item *item = &in->reach.items[wants[i].tag];
        const struct pack_entry *e = &wants[i].entry;

        if (e->type == 0 || e->type == REC_LOOSE) {
            if (item->root != INTAKE_OPTIONAL)
                return missing(in, &e->id, item->root, e->type == REC_LOOSE, err);
            continue;
        }
        if (!in->writer && item->kind != REACH_TREE && e->type != REC_RECIPE) {
            in->objects_moved++;
            in->dry_bytes += e->type == REC_BLOB ? e->stored : (int64_t)e->raw;
            continue;
        }
        wants[kept++] = wants[i];
    }
    *n = kept;
    return OK;
}

static enum err_code wave(struct intake *in, size_t from, size_t to, struct toc_want *wants,
                          struct err *err)
{
    enum err_code rc = OK;
    size_t n = 0;

    for (size_t i = from; i < to && !rc; i++) {
        const struct reach_item item = in->reach.items[i];
        bool want = false;

        rc = look(in, &item, &want, err);
        if (!rc && want)
            wants[n++] = (struct toc_want){.entry = {.id = item.id}, .tag = i};
    }
    if (!rc)
        rc = tocs_find(in->tocs, wants, n, err);
    if (!rc)
        rc = sift(in, wants, &n, err);
    if (!rc)
        rc = tocs_read(in->tocs, wants, n, on_record, in, err);
    if (!rc)
        rc = take_all_tall(in, err);
    return rc;
}

enum err_code intake_run(struct intake *in, struct err *err)
{
    struct toc_want *wants = NULL;
    size_t room = 0;
    enum err_code rc = OK;

    while (in->walked < in->reach.n && !rc) {
        const size_t left = in->reach.n - in->walked;
        const size_t n = left < WANTS_MAX ? left : WANTS_MAX;

        if (n > room) {
            room = n;
            wants = mem_grow(wants, room, sizeof(*wants));
        }
        rc = wave(in, in->walked, in->walked + n, wants, err);
        in->walked += n;
    }
    free(wants);
    return rc;
}

/* ---- recipes ----------------------------------------------------------------------------------- */

/* A chunk may be kept as a recipe itself, written in this session: then it has to be committed first. */
static enum err_code read_chunk(struct intake *in, const struct recipe_chunk *c, struct err *err)
{
    enum err_code rc;

    buf_clear(&in->raw);
    rc = object_read(in->st, &c->id, c->len, &in->raw, err);
    if (rc != ERR_NOT_FOUND)
        return rc;
    rc = commit(in, err);
    buf_clear(&in->raw);
    return rc ? rc : object_read(in->st, &c->id, c->len, &in->raw, err);
}

static enum err_code check_recipe(struct intake *in, const struct intake_recipe *r, struct err *err)
{
    struct sha256 hash = {0};
    struct digest is;
    enum err_code rc = OK;

    sha256_init(&hash);
    for (size_t i = 0; i < r->count && !rc; i++) {
        rc = read_chunk(in, &r->chunks[i], err);
        if (rc == ERR_NOT_FOUND) /* all others have come: it is made of itself */
            rc = damaged(in, r->pack, &r->id, "a chunk of it is nowhere", err);
        if (rc == ERR_LIMIT || (!rc && in->raw.n != r->chunks[i].len))
            rc = damaged(in, r->pack, &r->id, "a chunk has another length", err);
        if (!rc)
            sha256_update(&hash, in->raw.n ? in->raw.p : "", in->raw.n);
    }
    sha256_final(&hash, &is);
    sha256_release(&hash);
    if (!rc && !digest_eq(&is, &r->id))
        rc = damaged(in, r->pack, &r->id, "its chunks make up something else", err);
    return rc;
}

/* Some chunk of an optional object may not have come. */
static enum err_code all_chunks_here(struct intake *in, const struct intake_recipe *r, bool *all,
                                     struct err *err)
{
    enum err_code rc = OK;

    *all = true;
    for (size_t i = 0; i < r->count && !rc && *all; i++)
        rc = is_here(in, &r->chunks[i].id, all, err);
    return rc;
}

static int by_raw(const void *a, const void *b)
{
    const struct intake_recipe *x = a, *y = b;

    return (x->raw > y->raw) - (x->raw < y->raw);
}

enum err_code intake_finish(struct intake *in, struct err *err)
{
    enum err_code rc = commit(in, err);

    if (!in->writer)
        return rc;
    if (in->recipe_count > 0)
        qsort(in->recipes, in->recipe_count, sizeof(*in->recipes), by_raw);
    for (size_t i = 0; i < in->recipe_count && !rc; i++) {
        const struct intake_recipe *r = &in->recipes[i];
        bool all;

        rc = all_chunks_here(in, r, &all, err);
        if (rc || (!all && r->optional))
            continue;
        rc = check_recipe(in, r, err);
        if (rc)
            break;
        writer_touch(in->writer, OBJ_BLOB, &r->id);
        rc = writer_put_recipe(in->writer, &r->id, r->flags, r->raw, r->chunks, r->count, err);
    }
    return rc ? rc : commit(in, err);
}
