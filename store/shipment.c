#include "store/shipment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "base/os.h"

#define FRAME_MEMBER_MAX ((size_t)64 << 10) /* what is larger is compressed alone */
#define LEVEL 3                             /* zstd */
#define PACKED_MAX ((size_t)CODEC_RAW_MAX + (1 << 20))
#define RECORDS_MAX (1 << 20) /* of a pack that is not full by its bytes */

static enum err_code take_lock(struct shipment *s, struct err *err)
{
    const char *name = s->tocs->remote->name;
    enum err_code rc = os_open(s->tocs->cache, "lock", O_RDWR | O_CREAT, 0666, &s->lock, err);

    if (rc)
        return rc;
    if (flock(s->lock, LOCK_EX | LOCK_NB) == 0)
        return OK;
    if (errno == EWOULDBLOCK)
        return err_set(err, ERR_AGAIN, "another push to %s runs; try again when it is done", name);
    return err_sys(err, errno, "lock remotes/%s/lock", name);
}

/* What a killed push left there was uploaded, or will be written again. */
static enum err_code make_stage(struct shipment *s, struct err *err)
{
    enum err_code rc = os_remove_tree(s->tocs->cache, "stage", err);

    if (!rc)
        rc = os_mkdir(s->tocs->cache, "stage", 0777, err);
    if (!rc)
        rc = os_open_dir(s->tocs->cache, "stage", &s->stage, err);
    if (!rc)
        rc = os_mkdir(s->stage, "tmp", 0777, err);
    if (!rc)
        rc = os_mkdir(s->stage, "packs", 0777, err);
    return rc;
}

enum err_code shipment_open(struct tocs *tocs, struct shipment *s, struct err *err)
{
    enum err_code rc;

    *s = (struct shipment){.tocs = tocs, .lock = -1, .stage = -1};
    buf_init(&s->packed, PACKED_MAX);
    buf_init(&s->frame, FRAME_RAW_TARGET + FRAME_MEMBER_MAX);
    s->members = mem_zero(FRAME_MEMBERS_MAX, sizeof(*s->members));
    rc = take_lock(s, err);
    if (!rc)
        rc = make_stage(s, err);
    if (!rc)
        rc = codec_new(&s->codec, err);
    if (rc)
        shipment_release(s);
    return rc;
}

void shipment_release(struct shipment *s)
{
    struct err ignored = ERR_INIT;

    if (!s->tocs)
        return;
    pack_writer_release(s->pack);
    codec_free(s->codec);
    buf_release(&s->packed);
    buf_release(&s->frame);
    free(s->members);
    if (s->stage >= 0)
        (void)!os_remove_tree(s->tocs->cache, "stage", &ignored);
    os_close_quiet(&s->stage);
    os_close_quiet(&s->lock);
    *s = (struct shipment){0};
}

/* ---- sending ----------------------------------------------------------------------------------- */

static enum err_code upload(struct shipment *s, const struct digest *name, struct err *err)
{
    const struct remote *r = s->tocs->remote;
    char key[6 + DIGEST_HEX + 1] = "packs/";
    struct stat info;
    int fd = -1;
    enum err_code rc;

    digest_hex(name, key + 6);
    rc = os_open(s->stage, key, O_RDONLY, 0, &fd, err);
    if (!rc)
        rc = os_stat(fd, &info, err);
    if (!rc) {
        rc = r->ops->put(s->tocs->remote, key, fd, info.st_size, err);
        if (rc == ERR_EXISTS)
            rc = OK;
        if (rc)
            err_prefix(err, "push to %s", r->name);
    }
    if (!rc) {
        s->tocs->moved_bytes += info.st_size;
        s->packs++;
        rc = tocs_add(s->tocs, name, info.st_size, fd, err);
    }
    if (!rc)
        rc = os_unlink(s->stage, key, err);
    os_close_quiet(&fd);
    return rc;
}

static enum err_code need_pack(struct shipment *s, struct err *err)
{
    return s->pack ? OK : pack_writer_open(s->stage, &s->pack, err);
}

static enum err_code flush_frame(struct shipment *s, struct err *err)
{
    const size_t count = s->member_count;
    enum err_code rc;

    if (count == 0)
        return OK;
    rc = need_pack(s, err);
    buf_clear(&s->packed);
    if (!rc)
        rc = codec_encode(s->codec, ENC_ZSTD, LEVEL, s->frame.p, s->frame.n, &s->packed, err);
    if (!rc)
        rc = buf_check(&s->packed, "frame", err);
    if (!rc)
        rc = pack_put_frame(s->pack, s->members, count, s->packed.p, s->packed.n, s->frame.n, NULL,
                            err);
    s->member_count = 0;
    buf_clear(&s->frame);
    return rc;
}

enum err_code shipment_send(struct shipment *s, struct err *err)
{
    struct digest name;
    enum err_code rc = flush_frame(s, err);

    if (rc || !s->pack)
        return rc;
    rc = pack_seal(s->pack, PACK_SYNC_DIR_LATER, &name, err);
    pack_writer_release(s->pack);
    s->pack = NULL;
    return rc ? rc : upload(s, &name, err);
}

static enum err_code send_full(struct shipment *s, struct err *err)
{
    if (!s->pack || (pack_writer_bytes(s->pack) < PACK_TARGET_BYTES &&
                     pack_writer_records(s->pack) < RECORDS_MAX))
        return OK;
    return shipment_send(s, err);
}

/* ---- putting ----------------------------------------------------------------------------------- */

enum err_code shipment_put_record(struct shipment *s, struct pack_entry *e, const void *payload,
                                  size_t n, struct err *err)
{
    enum err_code rc = need_pack(s, err);

    if (!rc)
        rc = pack_put(s->pack, e, payload, n, err);
    return rc ? rc : send_full(s, err);
}

static enum err_code put_alone(struct shipment *s, const struct digest *id, uint8_t flags,
                               enum hint hint, const char *raw, size_t n, struct err *err)
{
    struct pack_entry e = {.id = *id, .type = REC_BLOB, .flags = flags, .raw = n};
    enum enc enc = ENC_RAW;
    enum err_code rc;

    buf_clear(&s->packed);
    if (hint == HINT_NONE)
        hint = codec_sniff(raw, n);
    rc = codec_best(s->codec, hint, LEVEL, raw, n, &enc, &s->packed, err);
    if (!rc)
        rc = buf_check(&s->packed, "encoded object", err);
    if (rc)
        return rc;
    e.enc = (uint8_t)enc;
    if (enc == ENC_RAW)
        return shipment_put_record(s, &e, raw, n, err);
    return shipment_put_record(s, &e, s->packed.p, s->packed.n, err);
}

static enum err_code put_member(struct shipment *s, const struct digest *id, uint8_t flags,
                                const char *raw, size_t n, struct err *err)
{
    enum err_code rc = OK;

    buf_add(&s->frame, raw, n);
    s->members[s->member_count++] =
        (struct frame_member){.id = *id, .len = (uint32_t)n, .flags = flags};
    if (s->frame.n >= FRAME_RAW_TARGET || s->member_count == FRAME_MEMBERS_MAX)
        rc = flush_frame(s, err);
    return rc ? rc : send_full(s, err);
}

enum err_code shipment_put(struct shipment *s, const struct digest *id, uint8_t flags,
                           enum hint hint, const char *raw, size_t n, struct err *err)
{
    const bool text = (flags & REC_TREE) || codec_sniff(raw, n) == HINT_TEXT;

    CHECK(raw);
    CHECK(n <= CODEC_RAW_MAX);
    if (n > 0 && n <= FRAME_MEMBER_MAX && text)
        return put_member(s, id, flags, raw, n, err);
    return put_alone(s, id, flags, hint, raw, n, err);
}
