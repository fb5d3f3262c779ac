/* pack_read.c - packs as they are found on disk.
 *
 * Everything goes through pread: a mapped file that is cut short elsewhere would end the process
 * with SIGBUS, a read only comes back short.  No length from the file is believed before it was
 * compared with what the file has.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/os.h"
#include "store/pack_internal.h"

#define SCAN_WINDOW (256 << 10)

struct pack {
    int fd;
    struct digest name;
    char label[DIGEST_HEX + 1]; /* for messages: the file's name */
    int64_t bytes, created_ns;
    int64_t end; /* of the records */
    uint32_t flags;
    bool trusted;         /* trailer checked: end is the toc */
    pthread_mutex_t lock; /* of the toc, which is read when first asked for */
    struct pack_entry *toc;
    size_t count;
};

static enum err_code damaged(const struct pack *p, int64_t off, const char *what, struct err *err)
{
    return err_set(err, ERR_DAMAGED, "pack %s at %lld: %s", p->label, (long long)off, what);
}

static enum err_code check_head(const struct pack *p, struct err *err)
{
    uint8_t head[PACK_HEADER_BYTES], want[PACK_HEADER_BYTES];
    enum err_code rc;

    rc = os_pread_all(p->fd, head, sizeof(head), 0, err);
    if (rc)
        return err_prefix(err, "pack %s", p->label);
    pack_head_encode(want);
    if (memcmp(head, want, 8) != 0)
        return damaged(p, 0, "not a pack", err);
    if (le32_get(head + 8) > PACK_VERSION && le32_get(head + 12) == 0)
        return err_set(err, ERR_VERSION, "pack %s has version %u, this program knows %d", p->label,
                       le32_get(head + 8), PACK_VERSION);
    if (memcmp(head, want, sizeof(head)) != 0)
        return damaged(p, 8, "not a pack", err);
    return OK;
}

static enum err_code check_trailer(struct pack *p, struct err *err)
{
    uint8_t tail[PACK_TRAILER];
    struct pack_trailer t;
    const char *fault;
    enum err_code rc;

    if (p->bytes < PACK_TOC_SMALLEST + PACK_TOC_ENTRY + PACK_TRAILER)
        return damaged(p, p->bytes, "too short for a pack", err);
    rc = os_pread_all(p->fd, tail, sizeof(tail), p->bytes - PACK_TRAILER, err);
    if (rc)
        return err_prefix(err, "pack %s", p->label);
    fault = pack_trailer_decode(tail, p->bytes, &t);
    if (fault)
        return damaged(p, p->bytes - PACK_TRAILER, fault, err);
    p->end = (int64_t)t.toc_off;
    p->count = t.count;
    p->created_ns = t.created_ns;
    p->flags = t.flags;
    p->trusted = true;
    return OK;
}

static enum err_code open_file(int packs_dir, const char *file, struct pack **out, struct err *err)
{
    struct pack *p = mem_zero(1, sizeof(*p));
    struct stat st;
    enum err_code rc;

    p->fd = -1;
    CHECK(pthread_mutex_init(&p->lock, NULL) == 0);
    /* Not blocking: somebody may have put a fifo there. */
    rc = os_open(packs_dir, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, &p->fd, err);
    if (!rc)
        rc = os_stat(p->fd, &st, err);
    if (!rc && !S_ISREG(st.st_mode))
        rc = err_set(err, ERR_DAMAGED, "pack %s: not a regular file", file);
    if (rc) {
        pack_close(p);
        return rc;
    }
    (void)snprintf(p->label, sizeof(p->label), "%s", file);
    p->bytes = st.st_size;
    p->end = st.st_size < PACK_BYTES_MAX ? st.st_size : PACK_BYTES_MAX;
    *out = p;
    return OK;
}

enum err_code pack_open(int packs_dir, const struct digest *name, struct pack **out,
                        struct err *err)
{
    char hex[DIGEST_HEX + 1];
    struct pack *p;
    enum err_code rc;

    CHECK(name);
    CHECK(out);
    *out = NULL;
    digest_hex(name, hex);
    rc = open_file(packs_dir, hex, &p, err);
    if (rc)
        return rc;
    p->name = *name;
    rc = check_head(p, err);
    if (!rc)
        rc = check_trailer(p, err);
    if (rc) {
        pack_close(p);
        return rc;
    }
    *out = p;
    return OK;
}

enum err_code pack_open_damaged(int packs_dir, const char *file, struct pack **out, struct err *err)
{
    struct err ignored = ERR_INIT;
    struct pack *p;
    enum err_code rc;

    CHECK(file);
    CHECK(out);
    *out = NULL;
    rc = open_file(packs_dir, file, &p, err);
    if (rc)
        return rc;
    if (digest_parse(file, strlen(file), &p->name, &ignored) != OK)
        p->name = (struct digest){{0}};
    /* A good trailer still says where the records end; a bad one leaves that to the search. */
    if (check_trailer(p, &ignored) != OK)
        p->trusted = false;
    *out = p;
    return OK;
}

void pack_close(struct pack *p)
{
    if (!p)
        return;
    os_close_quiet(&p->fd);
    CHECK(pthread_mutex_destroy(&p->lock) == 0);
    free(p->toc);
    free(p);
}

const struct digest *pack_name(const struct pack *p)
{
    CHECK(p);
    return &p->name;
}

int64_t pack_bytes(const struct pack *p)
{
    CHECK(p);
    return p->bytes;
}

bool pack_tried(const struct pack *p)
{
    CHECK(p);
    return (p->flags & PACK_TRIED) != 0;
}

int64_t pack_created_ns(const struct pack *p)
{
    CHECK(p);
    return p->created_ns;
}

enum err_code pack_linked(const struct pack *p, bool *linked, struct err *err)
{
    struct stat st = {0};
    enum err_code rc;

    CHECK(p);
    CHECK(linked);
    rc = os_stat(p->fd, &st, err);
    *linked = !rc && st.st_nlink > 0;
    return rc;
}

static enum err_code load_toc(struct pack *p, struct err *err)
{
    const size_t n = (size_t)(p->bytes - p->end);
    size_t count, need;
    enum err_code rc;
    uint8_t *tail;

    if (!p->trusted)
        return damaged(p, p->bytes, "no trailer", err);
    tail = malloc(n);
    if (!tail)
        return err_set(err, ERR_LIMIT, "pack %s: no memory for %zu records", p->label, p->count);
    rc = os_pread_all(p->fd, tail, n, p->end, err);
    if (rc)
        rc = err_prefix(err, "pack %s", p->label);
    else
        rc = pack_toc_parse(tail, n, p->bytes, &p->name, &p->toc, &count, &need, err);
    /* The trailer was read twice: it may not have changed in between. */
    if (!rc && (!p->toc || count != p->count))
        rc = damaged(p, p->end, "changed while it was read", err);
    free(tail);
    return rc;
}

enum err_code pack_toc(struct pack *p, const struct pack_entry **entries, size_t *count,
                       struct err *err)
{
    enum err_code rc = OK;

    CHECK(p);
    CHECK(entries);
    CHECK(count);
    CHECK(pthread_mutex_lock(&p->lock) == 0);
    if (!p->toc)
        rc = load_toc(p, err);
    if (!rc) {
        *entries = p->toc;
        *count = p->count;
    }
    CHECK(pthread_mutex_unlock(&p->lock) == 0);
    return rc;
}

enum err_code pack_read_header(struct pack *p, uint32_t off, struct pack_entry *e, struct err *err)
{
    uint8_t header[PACK_RECORD_HEADER];
    const char *fault;
    enum err_code rc;

    CHECK(p);
    CHECK(e);
    if (off < PACK_HEADER_BYTES || (int64_t)off + PACK_RECORD_HEADER > p->end)
        return damaged(p, off, "no room for a record", err);
    rc = os_pread_all(p->fd, header, sizeof(header), off, err);
    if (rc)
        return err_prefix(err, "pack %s", p->label);
    fault = pack_header_decode(header, e);
    if (fault)
        return damaged(p, off, fault, err);
    if ((int64_t)off + PACK_RECORD_HEADER + e->stored > p->end)
        return damaged(p, off, "record longer than the pack", err);
    e->off = off;
    return OK;
}

enum err_code pack_read(struct pack *p, uint32_t off, struct pack_entry *e, struct buf *out,
                        struct err *err)
{
    enum err_code rc;
    void *room;

    CHECK(out);
    rc = pack_read_header(p, off, e, err);
    if (rc)
        return rc;
    const size_t before = out->n;
    room = buf_room(out, e->stored);
    rc = buf_check(out, "record", err);
    if (rc)
        return err_prefix(err, "pack %s at %u", p->label, off);
    CHECK(room);
    rc = os_pread_all(p->fd, room, e->stored, (int64_t)off + PACK_RECORD_HEADER, err);
    if (rc)
        rc = err_prefix(err, "pack %s", p->label);
    else if (crc32c(0, room, e->stored) != e->crc)
        rc = damaged(p, off, "payload checksum", err);
    if (rc)
        out->n = before;
    return rc;
}

/* ---- walking without a toc ---- */

/* The first record after off by the toc, when there is a good one: a payload may itself be a pack
 * (or a hostile imitation), so what looks like a record in the middle of one is believed only as a
 * last resort. */
static bool next_by_toc(struct pack *p, uint32_t off, uint32_t *next)
{
    struct err ignored = ERR_INIT;
    const struct pack_entry *e;
    size_t count;
    int64_t best = p->end;

    if (pack_toc(p, &e, &count, &ignored) != OK)
        return false;
    for (size_t i = 0; i < count; i++)
        if (e[i].off > off && e[i].off < best)
            best = e[i].off;
    *next = (uint32_t)best;
    return true;
}

/* Is there a good header at this place of the window?  Its record must end within the pack. */
static bool good_header(const struct pack *p, const uint8_t *at, int64_t off)
{
    struct pack_entry e;

    return pack_header_decode(at, &e) == NULL && off + PACK_RECORD_HEADER + e.stored <= p->end;
}

static enum err_code next_by_magic(struct pack *p, uint32_t off, uint32_t *next, struct err *err)
{
    uint8_t *window = mem_alloc(SCAN_WINDOW);
    int64_t at = (int64_t)off + 1;
    enum err_code rc = OK;
    size_t got;

    for (*next = (uint32_t)p->end; at + PACK_RECORD_HEADER <= p->end;) {
        const int64_t left = p->end - at;

        rc =
            os_pread(p->fd, window, left < SCAN_WINDOW ? (size_t)left : SCAN_WINDOW, at, &got, err);
        if (rc || got < PACK_RECORD_HEADER)
            break;
        const size_t last = got - PACK_RECORD_HEADER;
        const uint8_t *hit = window;
        while (hit <= window + last) {
            hit = memmem(hit, (size_t)(window + last - hit) + 4, "WREC", 4);
            if (!hit)
                break;
            if (good_header(p, hit, at + (hit - window))) {
                *next = (uint32_t)(at + (hit - window));
                goto out;
            }
            hit++;
        }
        at += (int64_t)last + 1;
    }
out:
    free(window);
    return rc;
}

/* The record after this one when its own header is good and only its payload is not. */
static bool next_by_length(struct pack *p, uint32_t off, uint32_t *next)
{
    struct err ignored = ERR_INIT;
    struct pack_entry e;

    if (pack_read_header(p, off, &e, &ignored) != OK)
        return false;
    *next = off + PACK_RECORD_HEADER + e.stored;
    return *next == p->end || pack_read_header(p, *next, &e, &ignored) == OK;
}

static enum err_code resync(struct pack *p, uint32_t *off, const struct err *why, struct err *err)
{
    struct err trouble = ERR_INIT;
    uint32_t next;

    if (!next_by_toc(p, *off, &next) && !next_by_length(p, *off, &next) &&
        next_by_magic(p, *off, &next, &trouble) != OK) {
        *err = trouble;
        return err->code;
    }
    *off = next;
    *err = *why;
    return err->code;
}

enum err_code pack_scan(struct pack *p, uint32_t *off, struct pack_entry *e, struct buf *payload,
                        bool *end, struct err *err)
{
    struct err why = ERR_INIT;
    enum err_code rc;

    CHECK(p);
    CHECK(off);
    CHECK(e);
    CHECK(end);
    *end = *off >= p->end;
    if (*end)
        return OK;
    if (payload) {
        buf_clear(payload);
        rc = pack_read(p, *off, e, payload, &why);
    } else {
        rc = pack_read_header(p, *off, e, &why);
    }
    if (rc == ERR_DAMAGED)
        return resync(p, off, &why, err);
    if (rc) {
        *err = why;
        return rc;
    }
    *off += PACK_RECORD_HEADER + e->stored;
    return OK;
}
