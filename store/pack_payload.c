/* pack_payload.c - what records say: layouts of headers, toc entries, trailers, recipes, frames and
 * refs.
 *
 * Bytes from a file are hostile until checked: each decoder bounds every length by what is there
 * before using it, and refuses anything that its encoder would not have written, so that equal
 * content has one form only.
 */
#include <stdlib.h>

#include "store/pack_internal.h"

static const uint8_t record_magic[4] = {'W', 'R', 'E', 'C'};
static const uint8_t trailer_magic[8] = {'W', 'E', 'I', 'R', 'T', 'O', 'C', '1'};
static const uint8_t head_magic[8] = {'W', 'E', 'I', 'R', 'P', 'A', 'C', 'K'};

static bool all_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

/* ---- entries ---- */

static bool recipe_sized(uint32_t stored)
{
    return stored >= RECIPE_HEAD + RECIPE_ITEM && stored <= PACK_PAYLOAD_MAX &&
           (stored - RECIPE_HEAD) % RECIPE_ITEM == 0;
}

static const char *frame_fault(const struct pack_entry *e, enum pack_place place)
{
    if (e->enc != ENC_ZSTD)
        return "a frame must be zstd";
    if (e->stored < FRAME_HEAD + FRAME_ITEM + 1 || e->stored > PACK_STORED_MAX)
        return "frame of an impossible length";
    if (e->raw > CODEC_RAW_MAX || e->pos > CODEC_RAW_MAX - e->raw)
        return "frame member past the end of its frame";
    if (place == PACK_IN_HEADER && (e->flags || !digest_is_zero(&e->id)))
        return "frame with an id of its own";
    return NULL;
}

const char *pack_fault(const struct pack_entry *e, enum pack_place place)
{
    if (e->type == 0 || e->type >= REC_TYPE_COUNT)
        return "unknown record type";
    if (e->enc >= ENC_COUNT)
        return "unknown encoding";
    if (e->flags & ~REC_TREE)
        return "unknown flags";
    if (e->type == REC_FRAME)
        return frame_fault(e, place);
    if (e->pos)
        return "position outside of a frame";
    if (e->type == REC_BLOB) {
        if (e->raw > CODEC_RAW_MAX || e->stored > PACK_STORED_MAX)
            return "blob too large";
        return e->enc == ENC_RAW && e->stored != e->raw ? "raw blob of another length" : NULL;
    }
    if (e->enc != ENC_RAW)
        return "encoded where only plain bytes may be";
    if (e->type == REC_RECIPE)
        return recipe_sized(e->stored) ? NULL : "recipe of an impossible length";
    if (e->type == REC_LOOSE)
        return e->stored == 0 || recipe_sized(e->stored) ? NULL : "recipe of an impossible length";
    if (e->flags || e->raw != e->stored)
        return "journal record of another length";
    if (e->type == REC_BIND)
        return e->stored == DIGEST_BYTES ? NULL : "bind of an impossible length";
    return e->stored > REF_HEAD && e->stored <= REF_HEAD + REF_NAME_MAX
               ? NULL
               : "ref of an impossible length";
}

static int cmp64(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

int pack_entry_cmp(const void *a, const void *b)
{
    const struct pack_entry *x = a, *y = b;
    int order = digest_cmp(&x->id, &y->id);

    if (!order)
        order = cmp64(x->type, y->type);
    if (!order)
        order = cmp64(x->off, y->off);
    return order ? order : cmp64(x->pos, y->pos);
}

void pack_header_encode(const struct pack_entry *e, uint8_t out[PACK_RECORD_HEADER])
{
    memset(out, 0, PACK_RECORD_HEADER);
    memcpy(out, record_magic, 4);
    out[4] = e->type;
    out[5] = e->enc;
    out[6] = e->flags;
    le32_put(out + 8, e->stored);
    le32_put(out + 12, e->crc);
    le64_put(out + 16, e->raw);
    le64_put(out + 24, e->stamp);
    memcpy(out + 32, e->id.b, DIGEST_BYTES);
    le32_put(out + 76, crc32c(0, out, 76));
}

const char *pack_header_decode(const uint8_t p[PACK_RECORD_HEADER], struct pack_entry *e)
{
    *e = (struct pack_entry){.type = p[4], .enc = p[5], .flags = p[6]};
    if (memcmp(p, record_magic, 4) != 0)
        return "no record magic";
    if (le32_get(p + 76) != crc32c(0, p, 76))
        return "record header checksum";
    if (p[7] || !all_zero(p + 64, 12))
        return "reserved bytes of a record header are not zero";
    e->stored = le32_get(p + 8);
    e->crc = le32_get(p + 12);
    e->raw = le64_get(p + 16);
    e->stamp = le64_get(p + 24);
    memcpy(e->id.b, p + 32, DIGEST_BYTES);
    return pack_fault(e, PACK_IN_HEADER);
}

void pack_toc_entry_encode(const struct pack_entry *e, uint8_t out[PACK_TOC_ENTRY])
{
    memcpy(out, e->id.b, DIGEST_BYTES);
    out[32] = e->type;
    out[33] = e->enc;
    out[34] = e->flags;
    out[35] = 0;
    le32_put(out + 36, e->off);
    le32_put(out + 40, e->stored);
    le32_put(out + 44, e->crc);
    le64_put(out + 48, e->raw);
    le64_put(out + 56, e->pos);
    le64_put(out + 64, e->stamp);
}

void pack_head_encode(uint8_t out[PACK_HEADER_BYTES])
{
    memcpy(out, head_magic, 8);
    le32_put(out + 8, PACK_VERSION);
    le32_put(out + 12, 0);
}

void pack_trailer_encode(const struct pack_trailer *t, uint8_t out[PACK_TRAILER])
{
    memset(out, 0, PACK_TRAILER);
    memcpy(out, trailer_magic, 8);
    le64_put(out + 8, t->toc_off);
    le32_put(out + 16, t->count);
    le32_put(out + 20, t->toc_crc);
    memcpy(out + 24, t->nonce, 16);
    le64_put(out + 40, (uint64_t)t->created_ns);
    le32_put(out + 56, t->flags);
    le32_put(out + 60, crc32c(0, out, 60));
}

const char *pack_trailer_decode(const uint8_t p[PACK_TRAILER], int64_t pack_bytes,
                                struct pack_trailer *t)
{
    if (memcmp(p, trailer_magic, 8) != 0)
        return "no trailer magic (cut short?)";
    if (le32_get(p + 60) != crc32c(0, p, 60))
        return "trailer checksum";
    if (!all_zero(p + 48, 8))
        return "reserved bytes of the trailer are not zero";
    t->flags = le32_get(p + 56);
    if (t->flags & ~PACK_TRIED)
        return "unknown flags of the trailer";
    t->toc_off = le64_get(p + 8);
    t->count = le32_get(p + 16);
    t->toc_crc = le32_get(p + 20);
    memcpy(t->nonce, p + 24, 16);
    t->created_ns = (int64_t)le64_get(p + 40);
    if (t->count == 0 || t->count > PACK_RECORDS_MAX)
        return "impossible number of records";
    if (pack_bytes > PACK_BYTES_MAX || t->toc_off < PACK_TOC_SMALLEST ||
        t->toc_off > PACK_BYTES_MAX ||
        (int64_t)t->toc_off + (int64_t)t->count * PACK_TOC_ENTRY + PACK_TRAILER != pack_bytes)
        return "table of contents does not fit the file's length";
    return NULL;
}

static const char *toc_entry_decode(const uint8_t *p, uint64_t toc_off, struct pack_entry *e)
{
    const char *fault;

    memcpy(e->id.b, p, DIGEST_BYTES);
    e->type = p[32];
    e->enc = p[33];
    e->flags = p[34];
    e->off = le32_get(p + 36);
    e->stored = le32_get(p + 40);
    e->crc = le32_get(p + 44);
    e->raw = le64_get(p + 48);
    e->pos = le64_get(p + 56);
    e->stamp = le64_get(p + 64);
    if (p[35])
        return "reserved byte is not zero";
    fault = pack_fault(e, PACK_IN_TOC);
    if (fault)
        return fault;
    if (e->off < PACK_HEADER_BYTES || (uint64_t)e->off + PACK_RECORD_HEADER + e->stored > toc_off)
        return "record outside of the pack";
    return NULL;
}

static enum err_code toc_decode(const uint8_t *p, const struct pack_trailer *t, const char *name,
                                struct pack_entry *entries, struct err *err)
{
    for (uint32_t i = 0; i < t->count; i++) {
        const char *fault =
            toc_entry_decode(p + (size_t)i * PACK_TOC_ENTRY, t->toc_off, &entries[i]);

        if (!fault && i > 0 && pack_entry_cmp(&entries[i - 1], &entries[i]) > 0)
            fault = "not sorted";
        if (fault)
            return err_set(err, ERR_DAMAGED, "pack %s at %llu: table of contents entry %u: %s",
                           name, (unsigned long long)(t->toc_off + (uint64_t)i * PACK_TOC_ENTRY), i,
                           fault);
    }
    return OK;
}

enum err_code pack_toc_parse(const void *tail, size_t tail_n, int64_t pack_bytes,
                             const struct digest *name, struct pack_entry **entries, size_t *count,
                             size_t *need, struct err *err)
{
    const uint8_t *p = tail;
    struct pack_trailer t;
    struct digest sum;
    char hex[DIGEST_HEX + 1];
    const char *fault;

    CHECK(tail || tail_n == 0);
    CHECK(name);
    CHECK(entries);
    CHECK(count);
    CHECK(need);
    digest_hex(name, hex);
    *entries = NULL;
    *count = 0;
    *need = PACK_TRAILER;
    if (pack_bytes < PACK_TOC_SMALLEST + PACK_TOC_ENTRY + PACK_TRAILER ||
        tail_n > (uint64_t)pack_bytes)
        return err_set(err, ERR_DAMAGED, "pack %s: %lld bytes cannot be a pack", hex,
                       (long long)pack_bytes);
    if (tail_n < PACK_TRAILER)
        return OK;
    fault = pack_trailer_decode(p + tail_n - PACK_TRAILER, pack_bytes, &t);
    if (fault)
        return err_set(err, ERR_DAMAGED, "pack %s at %lld: %s", hex,
                       (long long)(pack_bytes - PACK_TRAILER), fault);
    *need = (size_t)t.count * PACK_TOC_ENTRY + PACK_TRAILER;
    if (tail_n < *need)
        return OK;
    p += tail_n - *need;
    sha256_of(p, *need, &sum);
    if (!digest_eq(&sum, name))
        return err_set(err, ERR_DAMAGED,
                       "pack %s at %llu: table of contents does not match the name", hex,
                       (unsigned long long)t.toc_off);
    if (crc32c(0, p, *need - PACK_TRAILER) != t.toc_crc)
        return err_set(err, ERR_DAMAGED, "pack %s at %llu: table of contents checksum", hex,
                       (unsigned long long)t.toc_off);
    struct pack_entry *list = malloc(t.count * sizeof(*list));
    if (!list)
        return err_set(err, ERR_LIMIT, "pack %s: no memory for %u records", hex, t.count);
    const enum err_code rc = toc_decode(p, &t, hex, list, err);
    if (rc) {
        free(list);
        return rc;
    }
    *entries = list;
    *count = t.count;
    return OK;
}

/* ---- recipes ---- */

static void recipe_check(const struct digest *id, const void *list, size_t n, struct digest *out)
{
    struct sha256 s = {0};

    sha256_init(&s);
    sha256_update(&s, id->b, DIGEST_BYTES);
    sha256_update(&s, list, n);
    sha256_final(&s, out);
    sha256_release(&s);
}

void recipe_encode(const struct digest *id, const struct recipe_chunk *chunks, size_t count,
                   struct buf *out)
{
    struct digest check;
    uint8_t *p;

    CHECK(id);
    CHECK(chunks);
    CHECK(count > 0);
    if (count > (PACK_PAYLOAD_MAX - RECIPE_HEAD) / RECIPE_ITEM) {
        out->failed = true; /* the caller's buf_check says ERR_LIMIT */
        return;
    }
    p = buf_room(out, RECIPE_HEAD + count * RECIPE_ITEM);
    if (!p)
        return;
    uint8_t *item = p + RECIPE_HEAD;
    for (size_t i = 0; i < count; i++, item += RECIPE_ITEM) {
        CHECK(chunks[i].len > 0);
        CHECK(chunks[i].len <= CODEC_RAW_MAX);
        CHECK(chunks[i].hint <= HINT_PACKED);
        memcpy(item, chunks[i].id.b, DIGEST_BYTES);
        le32_put(item + 32, chunks[i].len);
        le32_put(item + 36, chunks[i].hint); /* one byte and three zeros */
    }
    recipe_check(id, p + RECIPE_HEAD, count * RECIPE_ITEM, &check);
    memcpy(p, check.b, DIGEST_BYTES);
}

static const char *recipe_items(const uint8_t *p, size_t count, uint64_t raw,
                                struct recipe_chunk *out)
{
    uint64_t sum = 0; /* count is below 2^23 and a length below 2^25: no overflow */

    for (size_t i = 0; i < count; i++, p += RECIPE_ITEM) {
        const uint32_t len = le32_get(p + 32);

        if (len == 0 || len > CODEC_RAW_MAX)
            return "chunk of an impossible length";
        if (p[36] > HINT_PACKED || !all_zero(p + 37, 3))
            return "unknown hint";
        memcpy(out[i].id.b, p, DIGEST_BYTES);
        out[i].len = len;
        out[i].hint = p[36];
        sum += len;
    }
    return sum == raw ? NULL : "chunks do not add up to the object's length";
}

enum err_code recipe_decode(const struct digest *id, uint64_t raw, const void *p, size_t n,
                            struct recipe_chunk **chunks, size_t *count, struct err *err)
{
    char hex[DIGEST_HEX + 1];
    struct digest check;
    const char *fault;

    CHECK(id);
    CHECK(p || n == 0);
    CHECK(chunks);
    CHECK(count);
    *chunks = NULL;
    *count = 0;
    digest_hex(id, hex);
    if (n > PACK_PAYLOAD_MAX || !recipe_sized((uint32_t)n))
        return err_set(err, ERR_DAMAGED, "recipe of %s: %zu bytes cannot be a recipe", hex, n);
    const uint8_t *list = (const uint8_t *)p + RECIPE_HEAD;
    const size_t items = (n - RECIPE_HEAD) / RECIPE_ITEM;
    recipe_check(id, list, n - RECIPE_HEAD, &check);
    if (memcmp(check.b, p, DIGEST_BYTES) != 0)
        return err_set(err, ERR_DAMAGED, "recipe of %s: check digest does not match", hex);
    struct recipe_chunk *out = malloc(items * sizeof(*out));
    if (!out)
        return err_set(err, ERR_LIMIT, "recipe of %s: no memory for %zu chunks", hex, items);
    fault = recipe_items(list, items, raw, out);
    if (fault) {
        free(out);
        return err_set(err, ERR_DAMAGED, "recipe of %s: %s", hex, fault);
    }
    *chunks = out;
    *count = items;
    return OK;
}

/* ---- frames ---- */

static const char *frame_items(const uint8_t *p, size_t count, struct frame_member *out,
                               size_t *raw_n)
{
    size_t sum = 0;

    for (size_t i = 0; i < count; i++, p += FRAME_ITEM) {
        const uint32_t len = le32_get(p + 32);

        if (len > CODEC_RAW_MAX - sum)
            return "members longer than a frame may be";
        if ((p[36] & ~REC_TREE) || !all_zero(p + 37, 3))
            return "unknown flags";
        memcpy(out[i].id.b, p, DIGEST_BYTES);
        out[i].len = len;
        out[i].flags = p[36];
        sum += len;
    }
    *raw_n = sum;
    return NULL;
}

enum err_code frame_decode(const void *p, size_t n, struct frame_member **members, size_t *count,
                           size_t *zstd_off, size_t *raw_n, struct err *err)
{
    CHECK(p || n == 0);
    CHECK(members);
    CHECK(count);
    CHECK(zstd_off);
    CHECK(raw_n);
    *members = NULL;
    *count = 0;
    if (n < FRAME_HEAD + FRAME_ITEM + 1)
        return err_set(err, ERR_DAMAGED, "frame: %zu bytes cannot be a frame", n);
    const uint32_t items = le32_get(p);
    if (items == 0 || items > FRAME_MEMBERS_MAX || items > (n - FRAME_HEAD - 1) / FRAME_ITEM)
        return err_set(err, ERR_DAMAGED, "frame: impossible number of members %u", items);
    struct frame_member *out = malloc(items * sizeof(*out));
    if (!out)
        return err_set(err, ERR_LIMIT, "frame: no memory for %u members", items);
    const char *fault = frame_items((const uint8_t *)p + FRAME_HEAD, items, out, raw_n);
    if (fault) {
        free(out);
        return err_set(err, ERR_DAMAGED, "frame: %s", fault);
    }
    *members = out;
    *count = items;
    *zstd_off = FRAME_HEAD + (size_t)items * FRAME_ITEM;
    return OK;
}

/* ---- refs ---- */

/* store_ref_check has the full rule for names that people set; this one keeps control bytes of a
 * foreign pack away from listings and terminals. */
static bool ref_name_plain(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] < 0x21 || p[i] > 0x7e)
            return false;
    return n > 0 && n <= REF_NAME_MAX;
}

void ref_encode(const struct digest *target, uint8_t kind, struct str name, struct buf *out)
{
    uint8_t head[REF_HEAD] = {0};

    CHECK(target);
    CHECK(kind <= 2);
    CHECK(ref_name_plain(name.p, name.n));
    memcpy(head, target->b, DIGEST_BYTES);
    head[DIGEST_BYTES] = kind;
    buf_add(out, head, sizeof(head));
    buf_add(out, name.p, name.n);
}

enum err_code ref_decode(const struct digest *id, const void *p, size_t n, struct digest *target,
                         uint8_t *kind, struct str *name, struct err *err)
{
    const uint8_t *b = p;
    struct digest sum;

    CHECK(id);
    CHECK(p || n == 0);
    CHECK(target);
    CHECK(kind);
    CHECK(name);
    if (n <= REF_HEAD || !ref_name_plain((const char *)b + REF_HEAD, n - REF_HEAD))
        return err_set(err, ERR_DAMAGED, "ref: no name, or one with strange bytes");
    if (b[32] > 2 || !all_zero(b + 33, 7))
        return err_set(err, ERR_DAMAGED, "ref: unknown kind");
    sha256_of(b + REF_HEAD, n - REF_HEAD, &sum);
    if (!digest_eq(&sum, id))
        return err_set(err, ERR_DAMAGED, "ref: name does not match its id");
    memcpy(target->b, b, DIGEST_BYTES);
    *kind = b[32];
    *name = (struct str){(const char *)b + REF_HEAD, n - REF_HEAD};
    return OK;
}
