/* weir store stat */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/cli/commands.h"
#include "store/idset.h"
#include "store/reader.h"
#include "store/tree.h"

#define SCAN_STEP 4096
#define SEEN 1u
#define HOLDS 2u

/* ---- the store --------------------------------------------------------------------------------- */

struct totals {
    int64_t loose, loose_bytes, pack_bytes;
};

static enum err_code add_loose(struct store *st, struct totals *t, struct err *err)
{
    struct digest cursor = {{0}}, *ids = mem_alloc(SCAN_STEP * sizeof(*ids));
    struct loc *locs = mem_alloc(SCAN_STEP * sizeof(*locs));
    bool started = false;
    enum err_code rc;
    size_t n;

    do {
        n = 0;
        rc = index_scan(st->index, &cursor, &started, ids, locs, SCAN_STEP, &n, err);
        for (size_t i = 0; i < n && !rc; i++)
            if (locs[i].type == LOC_LOOSE) {
                t->loose++;
                t->loose_bytes += (int64_t)locs[i].raw;
            }
    } while (n > 0 && !rc);
    free(ids);
    free(locs);
    return rc;
}

static enum err_code add_packs(struct store *st, struct totals *t, struct err *err)
{
    struct pack_row *rows = NULL;
    size_t n = 0;
    enum err_code rc = index_packs(st->index, &rows, &n, err);

    for (size_t i = 0; i < n; i++)
        t->pack_bytes += rows[i].bytes;
    free(rows);
    return rc;
}

static enum err_code stat_store(const struct cli *c, struct store *st, struct err *err)
{
    struct totals t = {0};
    struct index_stat s;
    char packs[16], loose[16], index[16];
    enum err_code rc = index_stat(st->index, &s, err);

    if (!rc)
        rc = add_packs(st, &t, err);
    if (!rc)
        rc = add_loose(st, &t, err);
    if (rc)
        return rc;
    if (c->json)
        return cli_json(
            json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "actions", (json_int_t)s.actions,
                      "index_bytes", (json_int_t)s.file_bytes, "loose", (json_int_t)t.loose,
                      "loose_bytes", (json_int_t)t.loose_bytes, "memos", (json_int_t)s.memos,
                      "objects", (json_int_t)s.objects, "pack_bytes", (json_int_t)t.pack_bytes,
                      "packs", (json_int_t)s.packs, "refs", (json_int_t)s.refs, "path",
                      cli_json_name(st->root, strlen(st->root))),
            err);
    str_from_bytes(t.pack_bytes, packs);
    str_from_bytes(t.loose_bytes, loose);
    str_from_bytes(s.file_bytes, index);
    cli_name(st->root, strlen(st->root));
    printf("\n  objects  %lld\n  packs    %lld, %s\n  loose    %lld, %s\n", (long long)s.objects,
           (long long)s.packs, packs, (long long)t.loose, loose);
    printf("  refs     %lld\n  actions  %lld\n  index    %s, %lld files remembered\n",
           (long long)s.refs, (long long)s.actions, index, (long long)s.memos);
    return OK;
}

/* ---- who holds an object ----------------------------------------------------------------------- */

/* One walk for all refs: what was seen is not entered again. */
struct search {
    struct store *st;
    struct digest target;
    struct idset *seen;
};

static enum err_code blob_holds(struct search *s, const struct digest *id, bool *holds,
                                struct err *err)
{
    struct recipe_chunk *chunks = NULL;
    struct loc loc;
    size_t count = 0;
    enum err_code rc = index_get(s->st->index, id, 1, &loc, err);

    if (rc || (loc.type != LOC_RECIPE && loc.type != LOC_LOOSE))
        return rc;
    rc = object_chunks(s->st, id, &chunks, &count, err);
    for (size_t i = 0; i < count && !rc && !*holds; i++)
        *holds = digest_eq(&chunks[i].id, &s->target);
    free(chunks);
    return rc;
}

static enum err_code read_tree(struct store *st, const struct digest *id, struct tree *t,
                               struct err *err)
{
    char what[DIGEST_TEXT + 8] = "tree ";
    struct buf manifest;
    enum err_code rc;

    digest_text(id, what + strlen(what));
    buf_init(&manifest, TREE_BYTES_MAX);
    rc = object_read(st, id, TREE_BYTES_MAX, &manifest, err);
    if (!rc)
        rc = tree_decode(manifest.n ? manifest.p : "", manifest.n, -1, what, t, err);
    buf_release(&manifest);
    return rc;
}

/* Is the target this object, or below it?  A store with damage still answers, for what it can read. */
static enum err_code object_holds(struct search *s, const struct digest *id, bool tree, int depth,
                                  bool *holds, struct err *err)
{
    struct tree t;
    bool added;
    uint8_t *flags = idset_add(s->seen, id, &added);
    enum err_code rc = OK;

    *holds = digest_eq(id, &s->target) || (*flags & HOLDS);
    if (*holds || !added || depth > TREE_DEPTH_MAX)
        return OK;
    *flags = SEEN;
    if (!tree) {
        rc = blob_holds(s, id, holds, err);
    } else {
        tree_init(&t);
        rc = read_tree(s->st, id, &t, err);
        for (size_t i = 0; i < t.count && !rc && !*holds; i++)
            if (t.entries[i].mode != TREE_LINK)
                rc = object_holds(s, &t.entries[i].digest, t.entries[i].mode == TREE_DIR, depth + 1,
                                  holds, err);
        tree_release(&t);
    }
    if (rc == ERR_NOT_FOUND || rc == ERR_DAMAGED)
        rc = OK;
    if (*holds)
        *idset_add(s->seen, id, NULL) = SEEN | HOLDS;
    return rc;
}

static enum err_code find_holders(struct store *st, const struct digest *id, json_t *holders,
                                  struct err *err)
{
    struct search s = {.st = st, .target = *id, .seen = idset_new()};
    struct ref_row *rows = NULL;
    size_t n = 0;
    enum err_code rc = index_refs(st->index, STR(""), REF_LIVE, &rows, &n, err);

    for (size_t i = 0; i < n && !rc; i++) {
        bool holds = false;

        rc = object_holds(&s, &rows[i].digest, rows[i].kind == OBJ_TREE, 0, &holds, err);
        if (!rc && holds)
            CHECK(json_array_append_new(holders,
                                        cli_json_name(rows[i].name, strlen(rows[i].name))) == 0);
    }
    free(rows);
    idset_free(s.seen);
    return rc;
}

/* ---- one object -------------------------------------------------------------------------------- */

static const char *const places[] = {[LOC_BLOB] = "pack",
                                     [LOC_FRAME] = "frame",
                                     [LOC_RECIPE] = "chunks",
                                     [LOC_LOOSE] = "loose",
                                     [LOC_SLICE] = "slice"};
static const char *const encodings[] = {
    [ENC_RAW] = "raw", [ENC_ZSTD] = "zstd", [ENC_PLANES2] = "planes2", [ENC_PLANES4] = "planes4"};

struct details {
    struct loc loc;
    struct pack_row pack;
    size_t chunks;
    int64_t stored;
};

static int64_t stored_bytes(const struct loc *loc)
{
    return loc->type == LOC_BLOB || loc->type == LOC_FRAME ? (int64_t)loc->stored
                                                           : (int64_t)loc->raw;
}

static enum err_code add_chunks(struct store *st, const struct digest *id, struct details *d,
                                struct err *err)
{
    struct recipe_chunk *chunks = NULL;
    enum err_code rc = object_chunks(st, id, &chunks, &d->chunks, err);

    d->stored = 0;
    for (size_t i = 0; i < d->chunks && !rc; i++) {
        struct loc loc;

        rc = index_get(st->index, &chunks[i].id, 1, &loc, err);
        if (!rc)
            d->stored += loc.type == LOC_BLOB ? (int64_t)loc.stored : (int64_t)chunks[i].len;
    }
    free(chunks);
    return rc;
}

static enum err_code find_details(struct store *st, const struct digest *id, struct details *d,
                                  struct err *err)
{
    char text[DIGEST_TEXT + 1];
    enum err_code rc = object_locate(st, id, 1, &d->loc, err);

    if (rc)
        return rc;
    if (d->loc.type == 0) {
        digest_text(id, text);
        return err_set(err, ERR_NOT_FOUND, "object %s is not in the store", text);
    }
    d->chunks = 1;
    d->stored = stored_bytes(&d->loc);
    rc = index_pack(st->index, d->loc.pack, &d->pack, err);
    if (!rc && d->loc.type == LOC_RECIPE)
        rc = add_chunks(st, id, d, err);
    return rc;
}

static void print_details(const struct digest *id, enum obj_kind kind, const struct details *d,
                          const json_t *holders)
{
    char text[DIGEST_TEXT + 1], pack[DIGEST_HEX + 1], size[16], stored[16];

    digest_text(id, text);
    digest_hex(&d->pack.name, pack);
    str_from_bytes((int64_t)d->loc.raw, size);
    str_from_bytes(d->stored, stored);
    printf("%s\n  kind    %s\n  size    %s (%lld bytes)\n", text, cli_kind(kind), size,
           (long long)d->loc.raw);
    printf("  stored  %s, %s, %s\n", places[d->loc.type], encodings[d->loc.enc], stored);
    if (d->loc.type == LOC_RECIPE)
        printf("  chunks  %zu\n", d->chunks);
    printf("  pack    %s at %u\n", pack, d->loc.off);
    for (size_t i = 0; i < json_array_size(holders); i++)
        printf("  %s    %s\n", i ? "    " : "refs", json_string_value(json_array_get(holders, i)));
    if (json_array_size(holders) == 0)
        printf("  refs    none\n");
}

static enum err_code stat_object(const struct cli *c, struct store *st, struct err *err)
{
    struct details d = {0};
    struct digest id;
    enum obj_kind kind;
    json_t *holders = json_array();
    char pack[DIGEST_HEX + 1];
    enum err_code rc = cli_resolve(st, c->args[0], &id, &kind, err);

    if (!rc)
        rc = find_details(st, &id, &d, err);
    if (!rc)
        rc = find_holders(st, &id, holders, err);
    if (rc) {
        json_decref(holders);
        return rc;
    }
    CHECK(d.loc.type < sizeof(places) / sizeof(places[0]));
    CHECK(d.loc.enc < ENC_COUNT);
    if (c->json) {
        digest_hex(&d.pack.name, pack);
        return cli_json(json_pack("{s:I,s:o,s:s,s:s,s:I,s:s,s:o,s:I,s:s,s:I}", "chunks",
                                  (json_int_t)d.chunks, "digest", cli_json_digest(&id), "encoding",
                                  encodings[d.loc.enc], "kind", cli_kind(kind), "offset",
                                  (json_int_t)d.loc.off, "pack", pack, "refs", holders, "size",
                                  (json_int_t)d.loc.raw, "stored", places[d.loc.type],
                                  "stored_bytes", (json_int_t)d.stored),
                        err);
    }
    print_details(&id, kind, &d, holders);
    json_decref(holders);
    return OK;
}

static enum err_code stat_run(struct cli *c, struct err *err)
{
    struct store *st = NULL;
    enum err_code rc = cli_open(c, STORE_READ, &st, err);

    if (!rc)
        rc = c->arg_count ? stat_object(c, st, err) : stat_store(c, st, err);
    store_close(st);
    return rc;
}

const struct cli_command cli_store_stat = {
    .name = "store stat",
    .args = "[WHAT]",
    .args_max = 1,
    .summary = "tell how an object is stored and which refs hold it, or what the store holds",
    .text = "WHAT: " CLI_WHAT ".\n"
            "Stored as: pack (a record of its own), frame (compressed together with others, whose "
            "size is shown),\n"
            "chunks, loose (a whole file), slice (a part of a loose file).",
    .example = "weir store stat\nweir store stat data/captions",
    .json = "{\"actions\":N,\"index_bytes\":N,\"loose\":N,\"loose_bytes\":N,\"memos\":N,"
            "\"objects\":N,\"pack_bytes\":N,\n"
            " \"packs\":N,\"path\":\"...\",\"refs\":N}, or with WHAT\n"
            "{\"chunks\":N,\"digest\":\"sha256:...\",\"encoding\":\"raw\"|\"zstd\"|\"planes2\"|"
            "\"planes4\",\n"
            " \"kind\":\"blob\"|\"tree\",\"offset\":N,\"pack\":\"<64 "
            "hex>\",\"refs\":[\"data/captions\",...],\"size\":N,\n"
            " \"stored\":\"pack\"|\"frame\"|\"chunks\"|\"loose\"|\"slice\",\"stored_bytes\":N}",
    .run = stat_run,
};
