/* From an id to verified bytes in memory.  Open objects, copies and tensors are in reader_object.c. */
#include "store/reader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "store/claims.h"
#include "store/loose.h"
#include "store/pack_cache.h"
#include "store/reader_fetch.h"

/* A chunk is normally a blob, but the same bytes may also have been added as a file, which may be a recipe again.  More levels than
 * this need a loop of recipes, which only a forger would write. */
#define RECIPE_DEPTH_MAX 4

/* ---- where ------------------------------------------------------------------------------------- */

/* The same objects for the same seed, in every process: ids are random already, the seed decides which. */
bool object_is_lost(const struct store *st, const struct digest *id)
{
    uint64_t x;

    if (st->lose_percent == 0 || claims_get(st->found_again, id) != ID_ABSENT)
        return false;
    memcpy(&x, id->b, sizeof(x));
    x ^= (uint64_t)st->lose_seed * 0x9E3779B97F4A7C15ULL;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ULL; /* splitmix64 */
    x = (x ^ x >> 27) * 0x94D049BB133111EBULL;
    x ^= x >> 31;
    return x % 100 < (uint64_t)st->lose_percent;
}

static enum err_code locate_loose(struct store *st, const struct digest *id, struct loc *loc,
                                  struct err *err)
{
    char name[LOOSE_NAME];
    struct stat info;
    enum err_code rc;

    *loc = (struct loc){0};
    loose_name(id, name);
    rc = os_stat_at(st->loose, name, &info, err);
    if (!rc && S_ISREG(info.st_mode))
        *loc = (struct loc){.type = LOC_LOOSE, .raw = (uint64_t)info.st_size};
    return rc == ERR_NOT_FOUND ? OK : rc;
}

enum err_code object_locate(struct store *st, const struct digest *ids, size_t n, struct loc *locs,
                            struct err *err)
{
    enum err_code rc = OK;

    CHECK(st);
    if (st->index)
        rc = index_get(st->index, ids, n, locs, err);
    else
        for (size_t i = 0; !rc && i < n; i++)
            rc = locate_loose(st, &ids[i], &locs[i], err);
    for (size_t i = 0; !rc && st->lose_percent && i < n; i++)
        if (object_is_lost(st, &ids[i]))
            locs[i] = (struct loc){0};
    return rc;
}

enum err_code fetch_absent(const struct digest *id, struct err *err)
{
    char text[DIGEST_TEXT + 1];

    digest_text(id, text);
    return err_set(err, ERR_NOT_FOUND, "object %s is not in the store", text);
}

enum err_code object_size(struct store *st, const struct digest *id, int64_t *size, struct err *err)
{
    struct loc loc;
    enum err_code rc;

    CHECK(size);
    rc = object_locate(st, id, 1, &loc, err);
    if (rc)
        return rc;
    if (loc.type == 0)
        return fetch_absent(id, err);
    *size = (int64_t)loc.raw;
    return OK;
}

/* ---- messages ---------------------------------------------------------------------------------- */

#define PLACE_BYTES 160

static void show_place(struct store *st, const struct loc *loc, char out[PLACE_BYTES])
{
    struct err row_err = ERR_INIT;
    char hex[DIGEST_HEX + 1] = "?";
    struct pack_row row;

    if (loc->type == LOC_LOOSE) {
        snprintf(out, PLACE_BYTES, "its loose file");
        return;
    }
    if (st->index && index_pack(st->index, loc->pack, &row, &row_err) == OK)
        digest_hex(&row.name, hex);
    snprintf(out, PLACE_BYTES, "%spack %s, record at %u",
             loc->type == LOC_SLICE ? "the loose file announced by " : "", hex, loc->off);
}

enum err_code fetch_damaged(struct store *st, const struct digest *id, const struct loc *loc,
                            const char *why, struct err *err)
{
    char text[DIGEST_TEXT + 1], place[PLACE_BYTES];

    digest_text(id, text);
    show_place(st, loc, place);
    return err_set(err, ERR_DAMAGED, "object %s: %s %s; run weir fsck", text, place, why);
}

enum err_code fetch_verify_at(struct store *st, const struct digest *whole, const struct digest *id,
                              const struct loc *loc, const void *p, struct err *err)
{
    struct digest is;

    sha256_of(p, loc->raw, &is);
    if (digest_eq(&is, id))
        return OK;
    return fetch_damaged(st, whole, loc, "holds other bytes", err);
}

enum err_code fetch_verify(struct store *st, const struct digest *id, const struct loc *loc,
                           const void *p, struct err *err)
{
    return fetch_verify_at(st, id, id, loc, p, err);
}

/* What pack and codec say is wrong does not tell which object that was. */
static enum err_code blame(struct store *st, const struct digest *id, const struct loc *loc,
                           struct err *err)
{
    char why[ERR_TEXT_MAX];

    if (strstr(err->text, "run weir fsck"))
        return err->code;
    snprintf(why, sizeof(why), "is damaged (%.200s)", err->text);
    return fetch_damaged(st, id, loc, why, err);
}

/* ---- fetching ---------------------------------------------------------------------------------- */

static enum err_code fetch(struct store *st, const struct digest *id, const struct loc *loc,
                           int depth, void *out, struct err *err);

static enum err_code fetch_blob(struct store *st, const struct digest *id, const struct loc *loc,
                                void *out, struct err *err)
{
    struct codec *codec = NULL;
    struct pack *pack = NULL;
    struct pack_entry e;
    struct buf payload;
    enum err_code rc;

    buf_init(&payload, PACK_PAYLOAD_MAX);
    rc = pack_cache_get(st, loc->pack, &pack, err);
    if (!rc)
        rc = pack_read(pack, loc->off, &e, &payload, err);
    if (rc)
        goto out;
    if (e.type != REC_BLOB || !digest_eq(&e.id, id) || e.raw != loc->raw ||
        (e.enc == ENC_RAW && payload.n != e.raw)) {
        rc = fetch_damaged(st, id, loc, "is another record than the index says", err);
    } else if (e.enc == ENC_RAW) {
        if (payload.n > 0)
            memcpy(out, payload.p, payload.n);
    } else {
        rc = codec_get(st, &codec, err);
        if (!rc)
            rc = codec_decode(codec, e.enc, payload.p, payload.n, out, e.raw, err);
        if (rc == ERR_DAMAGED)
            rc = fetch_damaged(st, id, loc, "does not decode", err);
    }
out:
    codec_put(st, codec);
    pack_cache_put(st, pack);
    buf_release(&payload);
    return rc;
}

static enum err_code fetch_member(struct store *st, const struct digest *id, const struct loc *loc,
                                  void *out, struct err *err)
{
    const struct record *frame = NULL;
    enum err_code rc;

    rc = record_get(st, loc->pack, loc->off, &frame, err);
    if (rc)
        return rc;
    if (frame->type != REC_FRAME || loc->pos > frame->raw || loc->raw > frame->raw - loc->pos)
        rc = fetch_damaged(st, id, loc, "is another record than the index says", err);
    else if (loc->raw > 0)
        memcpy(out, frame->data + loc->pos, loc->raw);
    record_put(st, frame);
    return rc;
}

static enum err_code fetch_slice(struct store *st, const struct digest *id, const struct loc *loc,
                                 void *out, struct err *err)
{
    struct pack *pack = NULL;
    struct pack_entry e;
    enum err_code rc;
    int fd = -1;

    rc = pack_cache_get(st, loc->pack, &pack, err);
    if (!rc)
        rc = pack_read_header(pack, loc->off, &e, err);
    if (!rc && (e.type != REC_LOOSE || loc->pos > e.raw || loc->raw > e.raw - loc->pos))
        rc = fetch_damaged(st, id, loc, "is another record than the index says", err);
    if (!rc)
        rc = loose_open(st, &e.id, (int64_t)e.raw, &fd, err);
    if (!rc)
        rc = os_pread_all(fd, out, loc->raw, (int64_t)loc->pos, err);
    os_close_quiet(&fd);
    pack_cache_put(st, pack);
    return rc;
}

static enum err_code fetch_loose(struct store *st, const struct digest *id, const struct loc *loc,
                                 void *out, struct err *err)
{
    enum err_code rc;
    int fd = -1;

    rc = loose_open(st, id, (int64_t)loc->raw, &fd, err);
    if (!rc)
        rc = os_pread_all(fd, out, loc->raw, 0, err);
    os_close_quiet(&fd);
    return rc;
}

static enum err_code fetch_recipe(struct store *st, const struct digest *id, const struct loc *loc,
                                  int depth, void *out, struct err *err)
{
    const struct record *recipe = NULL;
    enum err_code rc;

    if (depth >= RECIPE_DEPTH_MAX)
        return fetch_damaged(st, id, loc, "is a recipe of recipes without end", err);
    rc = record_get(st, loc->pack, loc->off, &recipe, err);
    if (rc)
        return rc;
    if (recipe->type != REC_RECIPE || !digest_eq(&recipe->id, id) || recipe->raw != loc->raw)
        rc = fetch_damaged(st, id, loc, "is another record than the index says", err);
    for (size_t i = 0; !rc && i < recipe->count; i++)
        rc = fetch_object(st, &recipe->chunks[i].id, recipe->chunks[i].len, depth + 1,
                          (char *)out + recipe->offs[i], err);
    record_put(st, recipe);
    if (rc == ERR_NOT_FOUND) {
        char text[DIGEST_TEXT + 1];

        digest_text(id, text);
        err_prefix(err, "part of object %s", text);
    }
    return rc;
}

static enum err_code fetch(struct store *st, const struct digest *id, const struct loc *loc,
                           int depth, void *out, struct err *err)
{
    enum err_code rc;

    switch ((enum loc_type)loc->type) {
    case LOC_BLOB:
        rc = fetch_blob(st, id, loc, out, err);
        break;
    case LOC_FRAME:
        rc = fetch_member(st, id, loc, out, err);
        break;
    case LOC_RECIPE: /* each chunk is verified, and the recipe's check binds them to the id */
        rc = fetch_recipe(st, id, loc, depth, out, err);
        return rc == ERR_DAMAGED ? blame(st, id, loc, err) : rc;
    case LOC_LOOSE:
        rc = fetch_loose(st, id, loc, out, err);
        break;
    case LOC_SLICE:
        rc = fetch_slice(st, id, loc, out, err);
        break;
    default:
        return fetch_damaged(st, id, loc, "has a place of a kind that this weir does not know",
                             err);
    }
    if (rc == ERR_DAMAGED)
        return blame(st, id, loc, err);
    return rc ? rc : fetch_verify(st, id, loc, out, err);
}

bool fetch_stale(enum err_code rc, const struct err *err)
{
    return rc == ERR_NOT_FOUND || (rc == ERR_IO && err->sys == ESTALE);
}

enum err_code fetch_gone(struct store *st, const struct digest *id, const struct loc *loc,
                         struct err *err)
{
    char why[ERR_TEXT_MAX];

    snprintf(why, sizeof(why), "cannot be read (%.200s)", err->text);
    return fetch_damaged(st, id, loc, why, err);
}

enum err_code fetch_object(struct store *st, const struct digest *id, uint64_t size, int depth,
                           void *out, struct err *err)
{
    struct loc loc, before = {0};
    enum err_code rc;

    /* Between the look-up and the reading a gc in another process may have moved the object: what it left behind says so by not
     * being there, and the index knows the new place. */
    for (int i = 0; i < 2; i++) {
        rc = object_locate(st, id, 1, &loc, err);
        if (rc)
            return rc;
        if (loc.type == 0)
            return fetch_absent(id, err);
        if (loc.raw != size)
            return fetch_damaged(st, id, &loc, "has another length than what refers to it says",
                                 err);
        rc = fetch(st, id, &loc, depth, out, err);
        if (!fetch_stale(rc, err))
            return rc;
        if (i > 0 && loc.type == LOC_RECIPE)
            return rc; /* one of its chunks is missing, as err says */
        before = loc;
    }
    return fetch_gone(st, id, &before, err);
}

enum err_code fetch_at(struct store *st, const struct digest *id, const struct loc *loc, void *out,
                       struct err *err)
{
    const enum err_code rc = fetch(st, id, loc, 0, out, err);

    return fetch_stale(rc, err) ? fetch_object(st, id, loc->raw, 0, out, err) : rc;
}

enum err_code object_chunk(struct store *st, const struct digest *id, const struct loc *loc,
                           struct buf *out, struct err *err)
{
    const size_t before = out->n;
    enum err_code rc;
    void *room;

    CHECK(st);
    CHECK(loc->type != 0);
    if (loc->type == LOC_RECIPE)
        return err_set(err, ERR_BUG, "a recipe is no blob");
    room = loc->raw > CODEC_RAW_MAX ? NULL : buf_room(out, loc->raw);
    if (!room)
        return err_set(err, ERR_LIMIT, "a blob of %llu bytes is longer than %d",
                       (unsigned long long)loc->raw, CODEC_RAW_MAX);
    rc = fetch(st, id, loc, 0, room, err);
    if (rc)
        out->n = before;
    return rc;
}

enum err_code object_read(struct store *st, const struct digest *id, int64_t max, struct buf *out,
                          struct err *err)
{
    const size_t before = out->n;
    char text[DIGEST_TEXT + 1];
    int64_t size = 0;
    enum err_code rc;
    void *room;

    CHECK(max >= 0);
    rc = object_size(st, id, &size, err);
    if (rc)
        return rc;
    room = size > max ? NULL : buf_room(out, (size_t)size);
    if (!room) {
        digest_text(id, text);
        out->failed = false; /* nothing was cut off: the caller is told */
        return err_set(err, ERR_LIMIT, "object %s has %lld bytes, at most %lld are allowed here",
                       text, (long long)size, (long long)max);
    }
    rc = fetch_object(st, id, (uint64_t)size, 0, room, err);
    if (rc)
        out->n = before;
    return rc;
}

enum err_code object_chunks(struct store *st, const struct digest *id, struct recipe_chunk **chunks,
                            size_t *count, struct err *err)
{
    const struct record *recipe = NULL;
    struct loc loc;
    enum err_code rc;

    CHECK(chunks);
    CHECK(count);
    *chunks = NULL;
    *count = 0;
    rc = object_locate(st, id, 1, &loc, err);
    if (rc)
        return rc;
    if (loc.type == 0)
        return fetch_absent(id, err);
    rc = fetch_recipe_of(st, id, &loc, &recipe, err);
    if (rc)
        return rc;
    if (!recipe && loc.raw > UINT32_MAX)
        return fetch_damaged(st, id, &loc, "has no recipe, though it is longer than 4 GiB", err);
    *count = recipe ? recipe->count : 1;
    *chunks = mem_alloc(*count * sizeof(**chunks));
    if (recipe)
        memcpy(*chunks, recipe->chunks, *count * sizeof(**chunks));
    else
        **chunks = (struct recipe_chunk){.id = *id, .len = (uint32_t)loc.raw};
    record_put(st, recipe);
    return OK;
}

enum err_code fetch_recipe_of(struct store *st, const struct digest *id, const struct loc *loc,
                              const struct record **out, struct err *err)
{
    enum err_code rc;

    *out = NULL;
    if (loc->type != LOC_RECIPE && (loc->type != LOC_LOOSE || loc->off == 0))
        return OK;
    rc = record_get(st, loc->pack, loc->off, out, err);
    if (rc)
        return rc == ERR_DAMAGED ? blame(st, id, loc, err) : rc;
    if ((*out)->type != (loc->type == LOC_RECIPE ? REC_RECIPE : REC_LOOSE) ||
        !digest_eq(&(*out)->id, id) || (*out)->raw != loc->raw)
        rc = fetch_damaged(st, id, loc, "is another record than the index says", err);
    /* A loose file need not have a recipe, and a recipe without chunks (of an empty object) says nothing. */
    if (rc || (*out)->count == 0) {
        record_put(st, *out);
        *out = NULL;
    }
    return rc;
}
