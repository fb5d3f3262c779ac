/* Small objects.  Text-like ones gather in a frame and are compressed together: at 10 KiB a file,
 * 256 KiB of neighbours stand in for a dictionary (0.28 of the size instead of 0.40).  Each thread
 * takes a frame of its own from a stack, so that the last one used, which is warm, comes back first,
 * and no more frames stay open than threads put at the same time. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash_pair.h"
#include "base/os.h"
#include "store/writer_internal.h"

#define PACKED_MAX (CODEC_RAW_MAX + (64 << 10))

/* ---- life -------------------------------------------------------------------------------------- */

static void small_free(struct small *s)
{
    if (!s)
        return;
    codec_free(s->codec);
    buf_release(&s->raw);
    buf_release(&s->packed);
    free(s->members);
    free(s->check);
    free(s->read);
    free(s);
}

static enum err_code small_new(struct small **out, struct err *err)
{
    struct small *s = mem_zero(1, sizeof(*s));
    enum err_code rc;

    buf_init(&s->raw, FRAME_RAW_TARGET);
    buf_init(&s->packed, PACKED_MAX);
    s->members = mem_zero(FRAME_MEMBERS_MAX, sizeof(*s->members));
    s->check = mem_alloc(FRAME_RAW_TARGET);
    s->read = mem_alloc(SMALL_READ_BYTES);
    rc = codec_new(&s->codec, err);
    if (rc) {
        small_free(s);
        s = NULL;
    }
    *out = s;
    return rc;
}

enum err_code small_get(struct writer *w, struct small **out, struct err *err)
{
    enum err_code rc;

    writer_lock(w);
    *out = w->small_free;
    if (*out)
        w->small_free = (*out)->next;
    writer_unlock(w);
    if (*out)
        return OK;
    rc = small_new(out, err);
    if (rc)
        return rc;
    writer_lock(w);
    (*out)->next_made = w->small_made;
    w->small_made = *out;
    writer_unlock(w);
    return OK;
}

void small_put(struct writer *w, struct small *s)
{
    writer_lock(w);
    s->next = w->small_free;
    w->small_free = s;
    writer_unlock(w);
}

void small_free_all(struct writer *w)
{
    while (w->small_made) {
        struct small *s = w->small_made;

        w->small_made = s->next_made;
        small_free(s);
    }
    w->small_free = NULL;
}

/* ---- frames ------------------------------------------------------------------------------------ */

static enum err_code flush(struct writer *w, struct small *s, struct err *err)
{
    enum err_code rc;

    if (s->member_count == 0)
        return OK;
    buf_clear(&s->packed);
    rc = codec_encode(s->codec, ENC_ZSTD, LEVEL, s->raw.p, s->raw.n, &s->packed, err);
    if (!rc)
        rc = buf_check(&s->packed, "compressed frame", err);
    /* A compressor that errs must not be found out years later. */
    if (!rc)
        rc = codec_decode(s->codec, ENC_ZSTD, s->packed.p, s->packed.n, s->check, s->raw.n, err);
    if (!rc && memcmp(s->check, s->raw.p, s->raw.n) != 0)
        rc = err_set(err, ERR_BUG, "a frame of %zu bytes does not decode to what it was", s->raw.n);
    if (rc)
        return writer_fail(w, err);
    rc = writer_pack_frame(w, s->members, s->member_count, s->packed.p, s->packed.n, s->raw.n, err);
    s->member_count = 0;
    buf_clear(&s->raw);
    return rc;
}

enum err_code small_flush_all(struct writer *w, struct err *err)
{
    enum err_code rc = OK;

    for (struct small *s = w->small_made; !rc && s; s = s->next_made)
        rc = flush(w, s, err);
    return rc;
}

static enum err_code add_to_frame(struct writer *w, struct small *s, const struct small_item *item,
                                  struct err *err)
{
    enum err_code rc;

    if (s->raw.n + item->n > FRAME_RAW_TARGET || s->member_count == FRAME_MEMBERS_MAX) {
        rc = flush(w, s, err);
        if (rc)
            return rc;
    }
    buf_add(&s->raw, item->p, item->n);
    CHECK(!s->raw.failed);
    s->members[s->member_count++] = (struct frame_member){
        .id = item->id,
        .len = (uint32_t)item->n,
        .flags = item->kind == OBJ_TREE ? REC_TREE : 0,
    };
    return OK;
}

/* ---- objects ----------------------------------------------------------------------------------- */

enum err_code small_write(struct writer *w, struct small *s, const struct small_item *item,
                          struct err *err)
{
    const enum hint hint = item->kind == OBJ_TREE ? HINT_TEXT : codec_sniff(item->p, item->n);
    struct pack_entry e = {.id = item->id,
                           .type = REC_BLOB,
                           .enc = ENC_RAW,
                           .flags = item->kind == OBJ_TREE ? REC_TREE : 0,
                           .raw = item->n};
    enum enc enc = ENC_RAW;
    enum err_code rc;

    if (hint == HINT_TEXT && item->n > 0 && item->n <= FRAME_RAW_TARGET)
        return add_to_frame(w, s, item, err);
    buf_clear(&s->packed);
    if (hint != HINT_PACKED && item->n > 0) {
        rc = codec_best(s->codec, hint, LEVEL, item->p, item->n, &enc, &s->packed, err);
        if (rc)
            return writer_fail(w, err);
    }
    e.enc = (uint8_t)enc;
    if (enc == ENC_RAW)
        return writer_pack(w, &e, item->p, item->n, err);
    return writer_pack(w, &e, s->packed.p, s->packed.n, err);
}

static void hash_items(struct small_item *items, size_t n)
{
    size_t i = 0;

    for (; i + 1 < n; i += 2)
        hash_pair_of(items[i].p, items[i].n, &items[i].id, items[i + 1].p, items[i + 1].n,
                     &items[i + 1].id);
    if (i < n)
        sha256_of(items[i].p, items[i].n, &items[i].id);
}

#define ITEMS_STEP 64

static enum err_code items_step(struct writer *w, struct small *s, const struct small_item *items,
                                size_t n, struct err *err)
{
    struct digest ids[ITEMS_STEP] = {0};
    uint8_t known[ITEMS_STEP];
    enum err_code rc;

    for (size_t i = 0; i < n; i++)
        ids[i] = items[i].id;
    rc = writer_lookup(w, ids, n, known, err);
    if (rc)
        return writer_fail(w, err);
    for (size_t i = 0; !rc && i < n; i++) {
        if (known[i] == ID_ABSENT && claims_add(w->ids, &ids[i], ID_WRITTEN)) {
            rc = small_write(w, s, &items[i], err);
            continue;
        }
        w->reused_objects++;
        if (known[i] == ID_REUSED)
            rc = writer_reuse(w, &ids[i], 1, err);
    }
    return rc;
}

enum err_code small_items(struct writer *w, struct small *s, struct small_item *items, size_t n,
                          struct err *err)
{
    enum err_code rc;

    hash_items(items, n);
    rc = writer_alive(w, err);
    for (size_t i = 0; !rc && i < n; i += ITEMS_STEP)
        rc = items_step(w, s, items + i, n - i < ITEMS_STEP ? n - i : ITEMS_STEP, err);
    return rc;
}

/* ---- reading ----------------------------------------------------------------------------------- */

enum err_code small_read(int fd, const char *path, uint8_t *p, size_t max, struct stat *before,
                         size_t *size, struct err *err)
{
    struct stat after;
    enum err_code rc;
    uint8_t more;
    size_t got;

    *size = 0;
    rc = os_stat(fd, before, err);
    if (rc)
        return rc;
    if (!S_ISREG(before->st_mode))
        return err_set(err, ERR_INPUT, "%s is no regular file", path);
    if (before->st_size > (int64_t)max)
        return err_set(err, ERR_LIMIT, "%s is larger than %zu bytes", path, max);
    rc = os_pread(fd, before->st_size > 0 ? p : &more, before->st_size > 0 ? before->st_size : 1, 0,
                  &got, err);
    if (!rc && before->st_size == 0 && got > 0)
        return err_set(err, ERR_INPUT, "%s has contents but says that it is empty", path);
    if (!rc)
        rc = os_stat(fd, &after, err);
    if (!rc && (!writer_same_file(before, &after) || (int64_t)got != before->st_size))
        rc = writer_changed(path, err);
    if (!rc)
        *size = got;
    return rc;
}
