/* pack_write.c - a pack being made: a private temporary until it is sealed.
 *
 * Bytes gather in a buffer of PACK_BUFFER under the lock, so a record costs no system call of its
 * own, and the kernel is asked to start writing every PACK_HINT bytes, which leaves little for the
 * fdatasync at the end (measured: 1281 -> 2119 MiB/s). The order in pack_seal is the commit:
 * contents durable, then the name, then the directory that holds the name.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/os.h"
#include "store/pack_internal.h"

#define PACK_BUFFER (1 << 20)
#define PACK_BYPASS_BUFFER (4 << 20) /* each write waits for the disk: fewer and larger ones */
#define PACK_PAGE 4096
#define PACK_HINT (8 << 20)
#define HOST_MAX 64

struct pack_writer {
    pthread_mutex_t lock;
    int tmp, packs, fd;
    char name[HOST_MAX + 64]; /* of the temporary */
    bool made;                /* the temporary has its name */
    bool finished, sealed;
    struct digest digest; /* its name, once it is finished */
    struct err failed;    /* the first error; the pack is given up */
    uint8_t nonce[16];
    uint8_t *buffer; /* NULL while resting; aligned for writes past the page cache */
    size_t buffer_size, buffered;
    bool bypass, tried;
    int64_t flushed, hinted;
    struct pack_entry *toc;
    size_t toc_cap;
    _Atomic int64_t bytes;
    atomic_size_t records;
};

static void name_temporary(struct pack_writer *w)
{
    char host[HOST_MAX + 1] = {0};
    uint64_t random;

    if (gethostname(host, HOST_MAX) != 0 || host[0] == '\0')
        host[0] = 'h';
    for (char *c = host; *c; c++)
        if (*c == '/' || *c == '.' || *c < 0x21 || *c > 0x7e)
            *c = '-';
    os_random(&random, sizeof(random));
    (void)snprintf(w->name, sizeof(w->name), "%s.%ld.%016llx.pack", host, (long)getpid(),
                   (unsigned long long)random);
}

static enum err_code give_up(struct pack_writer *w, const struct err *err)
{
    if (w->failed.code == OK)
        w->failed = *err;
    return err->code;
}

/* Memory the kernel has not given before costs a page fault for each 4 KiB, half of what it costs to fill the pack; so the last large
 * buffer waits here for the next pack. */
static _Atomic(uint8_t *) spare;

static void make_buffer(struct pack_writer *w, size_t size)
{
    w->buffer = size == PACK_BYPASS_BUFFER ? atomic_exchange(&spare, NULL) : NULL;
    if (!w->buffer)
        w->buffer = aligned_alloc(PACK_PAGE, size);
    CHECK(w->buffer);
    w->buffer_size = size;
}

static void drop_buffer(struct pack_writer *w)
{
    if (w->buffer_size == PACK_BYPASS_BUFFER)
        w->buffer = atomic_exchange(&spare, w->buffer);
    free(w->buffer);
    w->buffer = NULL;
    w->buffer_size = 0;
}

enum err_code pack_writer_open(int objects, struct pack_writer **out, struct err *err)
{
    struct pack_writer *w;
    enum err_code rc;

    CHECK(out);
    *out = NULL;
    w = mem_zero(1, sizeof(*w));
    w->tmp = w->packs = w->fd = -1;
    CHECK(pthread_mutex_init(&w->lock, NULL) == 0);
    make_buffer(w, PACK_BUFFER);
    os_random(w->nonce, sizeof(w->nonce));
    name_temporary(w);
    rc = os_open_dir(objects, "packs", &w->packs, err);
    if (rc)
        goto out;
    rc = os_open_dir(objects, "tmp", &w->tmp, err);
    if (rc)
        goto out;
    rc = os_open(w->tmp, w->name, O_CREAT | O_EXCL | O_WRONLY, 0644, &w->fd, err);
    if (rc)
        goto out;
    w->made = true;
    pack_head_encode(w->buffer);
    w->buffered = PACK_HEADER_BYTES;
    w->bytes = PACK_HEADER_BYTES;
    *out = w;
    return OK;
out:
    pack_writer_release(w);
    return err_prefix(err, "start a pack");
}

void pack_writer_release(struct pack_writer *w)
{
    struct err ignored = ERR_INIT;

    if (!w)
        return;
    os_close_quiet(&w->fd);
    if (w->made) {
        const enum err_code rc = os_unlink(w->tmp, w->name, &ignored);

        (void)rc; /* left behind when this fails: garbage that gc removes */
    }
    os_close_quiet(&w->tmp);
    os_close_quiet(&w->packs);
    CHECK(pthread_mutex_destroy(&w->lock) == 0);
    drop_buffer(w);
    free(w->toc);
    free(w);
}

static void stop_bypass(struct pack_writer *w)
{
    const int flags = fcntl(w->fd, F_GETFL);

    CHECK(flags >= 0);
    CHECK(fcntl(w->fd, F_SETFL, flags & ~O_DIRECT) == 0);
    w->bypass = false;
}

/* Whole pages only; what is left moves to the front.  Writes name their place in the file, so one
 * that got half way before EINVAL can be done again. */
static enum err_code flush_pages(struct pack_writer *w, struct err *err)
{
    const size_t n = w->buffered / PACK_PAGE * PACK_PAGE;
    enum err_code rc;

    if (n == 0)
        return OK;
    rc = os_pwrite(w->fd, w->buffer, n, w->flushed, err);
    if (rc && err->sys == EINVAL) { /* a file system that takes the flag and not the write */
        stop_bypass(w);
        *err = (struct err)ERR_INIT;
        rc = os_pwrite(w->fd, w->buffer, n, w->flushed, err);
    }
    if (rc)
        return rc;
    w->flushed += (int64_t)n;
    w->hinted = w->flushed;
    w->buffered -= n;
    memmove(w->buffer, w->buffer + n, w->buffered);
    return OK;
}

static enum err_code flush(struct pack_writer *w, struct err *err)
{
    enum err_code rc;

    if (w->buffered == 0)
        return OK;
    if (w->bypass)
        return flush_pages(w, err);
    rc = os_pwrite(w->fd, w->buffer, w->buffered, w->flushed, err);
    if (rc)
        return rc;
    w->flushed += (int64_t)w->buffered;
    w->buffered = 0;
    if (w->flushed - w->hinted >= PACK_HINT) {
        os_write_behind(w->fd, w->hinted, w->flushed - w->hinted);
        w->hinted = w->flushed;
    }
    return OK;
}

static enum err_code append_bypass(struct pack_writer *w, const void *p, size_t n, struct err *err)
{
    size_t done = 0;
    enum err_code rc;

    while (done < n) {
        const size_t room = w->buffer_size - w->buffered, left = n - done;
        const size_t take = left < room ? left : room;

        memcpy(w->buffer + w->buffered, (const uint8_t *)p + done, take);
        w->buffered += take;
        done += take;
        if (w->buffered < w->buffer_size)
            continue;
        rc = flush(w, err);
        if (rc)
            return rc;
    }
    w->bytes += (int64_t)n;
    return OK;
}

static enum err_code append(struct pack_writer *w, const void *p, size_t n, struct err *err)
{
    enum err_code rc;

    if (!w->buffer)
        make_buffer(w, PACK_BUFFER);
    if (w->bypass)
        return append_bypass(w, p, n, err);
    if (n > w->buffer_size - w->buffered) {
        rc = flush(w, err);
        if (rc)
            return rc;
    }
    if (n > w->buffer_size) {
        rc = os_pwrite(w->fd, p, n, w->flushed, err);
        if (rc)
            return rc;
        w->flushed += (int64_t)n;
    } else if (n > 0) {
        memcpy(w->buffer + w->buffered, p, n);
        w->buffered += n;
    }
    w->bytes += (int64_t)n;
    return OK;
}

/* Everything into the file, and the buffer's memory back. */
static enum err_code rest(struct pack_writer *w, struct err *err)
{
    enum err_code rc = flush(w, err);

    if (!rc && w->bypass) {
        stop_bypass(w);
        rc = flush(w, err);
    }
    if (rc)
        return rc;
    drop_buffer(w);
    return OK;
}

void pack_writer_tried(struct pack_writer *w)
{
    CHECK(w);
    CHECK(pthread_mutex_lock(&w->lock) == 0);
    w->tried = true;
    CHECK(pthread_mutex_unlock(&w->lock) == 0);
}

void pack_writer_bypass(struct pack_writer *w)
{
    CHECK(w);
    CHECK(pthread_mutex_lock(&w->lock) == 0);
    if (w->flushed == 0 && !w->sealed && !w->bypass) {
        const int flags = fcntl(w->fd, F_GETFL);

        CHECK(flags >= 0);
        /* Refused by some file systems: then it is an ordinary pack. */
        if (fcntl(w->fd, F_SETFL, flags | O_DIRECT) == 0) {
            uint8_t *old = w->buffer;

            make_buffer(w, PACK_BYPASS_BUFFER);
            memcpy(w->buffer, old, w->buffered);
            free(old);
            w->bypass = true;
        }
    }
    CHECK(pthread_mutex_unlock(&w->lock) == 0);
}

/* A sealed writer is of no more use, a failed one repeats its first error. */
static enum err_code alive(const struct pack_writer *w, struct err *err)
{
    if (w->failed.code != OK) {
        *err = w->failed;
        return err->code;
    }
    if (w->sealed)
        return err_set(err, ERR_BUG, "pack %s: used after it was sealed", w->name);
    return OK;
}

/* May it take more? */
static enum err_code writable(const struct pack_writer *w, struct err *err)
{
    const enum err_code rc = alive(w, err);

    if (!rc && w->finished)
        return err_set(err, ERR_BUG, "pack %s: written to after it was finished", w->name);
    return rc;
}

static void toc_reserve(struct pack_writer *w, size_t more)
{
    const size_t want = w->records + more;

    if (want <= w->toc_cap)
        return;
    w->toc_cap = want < 2 * w->toc_cap ? 2 * w->toc_cap : want + 64;
    w->toc = mem_grow(w->toc, w->toc_cap, sizeof(*w->toc));
}

/* Header and payload parts at the present end; e->off is filled in. */
static enum err_code put_record(struct pack_writer *w, struct pack_entry *e, const void *head,
                                size_t head_n, const void *body, size_t body_n, size_t entries,
                                struct err *err)
{
    uint8_t header[PACK_RECORD_HEADER];
    const int64_t at = w->bytes;
    const int64_t total = at + PACK_RECORD_HEADER + (int64_t)head_n + (int64_t)body_n +
                          (int64_t)(w->records + entries) * PACK_TOC_ENTRY + PACK_TRAILER;
    enum err_code rc;

    if (total > PACK_BYTES_MAX || w->records + entries > PACK_RECORDS_MAX)
        return err_set(err, ERR_LIMIT, "pack %s is full: %lld bytes, %zu records", w->name,
                       (long long)at, (size_t)w->records);
    toc_reserve(w, entries);
    e->off = (uint32_t)at;
    pack_header_encode(e, header);
    rc = append(w, header, sizeof(header), err);
    if (!rc)
        rc = append(w, head, head_n, err);
    if (!rc)
        rc = append(w, body, body_n, err);
    return rc;
}

enum err_code pack_writer_rest(struct pack_writer *w, struct err *err)
{
    enum err_code rc;

    CHECK(w);
    CHECK(pthread_mutex_lock(&w->lock) == 0);
    rc = writable(w, err);
    if (!rc) {
        rc = rest(w, err);
        if (rc)
            rc = give_up(w, err);
    }
    CHECK(pthread_mutex_unlock(&w->lock) == 0);
    return rc;
}

enum err_code pack_put(struct pack_writer *w, struct pack_entry *e, const void *payload, size_t n,
                       struct err *err)
{
    enum err_code rc;
    const char *fault;

    CHECK(w);
    CHECK(e);
    CHECK(payload || n == 0);
    CHECK(e->type != REC_FRAME);
    if (n > PACK_PAYLOAD_MAX)
        return err_set(err, ERR_LIMIT, "record of %zu bytes", n);
    e->stored = (uint32_t)n;
    e->crc = crc32c(0, payload, n);
    e->pos = 0;
    if (e->type == REC_BIND || e->type == REC_REF)
        e->raw = n;
    fault = pack_fault(e, PACK_IN_HEADER);

    CHECK(pthread_mutex_lock(&w->lock) == 0);
    rc = writable(w, err);
    if (!rc && fault)
        rc = err_set(err, ERR_BUG, "pack %s: record refused: %s", w->name, fault);
    if (!rc)
        rc = put_record(w, e, payload, n, NULL, 0, 1, err);
    if (!rc)
        w->toc[w->records++] = *e;
    else
        rc = give_up(w, err);
    CHECK(pthread_mutex_unlock(&w->lock) == 0);
    return rc;
}

static void frame_table(const struct frame_member *members, size_t count, uint8_t *out)
{
    le32_put(out, (uint32_t)count);
    out += FRAME_HEAD;
    for (size_t i = 0; i < count; i++, out += FRAME_ITEM) {
        memcpy(out, members[i].id.b, DIGEST_BYTES);
        le32_put(out + 32, members[i].len);
        le32_put(out + 36, members[i].flags); /* one byte and three zeros */
    }
}

static void frame_entries(struct pack_writer *w, const struct pack_entry *frame,
                          const struct frame_member *members, size_t count,
                          struct pack_entry *entries)
{
    uint64_t pos = 0;

    for (size_t i = 0; i < count; i++) {
        struct pack_entry *e = &w->toc[w->records++];

        *e = *frame;
        e->id = members[i].id;
        e->flags = members[i].flags;
        e->raw = members[i].len;
        e->pos = pos;
        pos += members[i].len;
        if (entries)
            entries[i] = *e;
    }
}

enum err_code pack_put_frame(struct pack_writer *w, const struct frame_member *members,
                             size_t count, const void *zstd, size_t n, size_t raw_n,
                             struct pack_entry *entries, struct err *err)
{
    const size_t table_n = FRAME_HEAD + count * FRAME_ITEM;
    struct pack_entry e = {.type = REC_FRAME, .enc = ENC_ZSTD, .raw = raw_n};
    const char *fault;
    size_t sum = 0;
    enum err_code rc;

    CHECK(w);
    CHECK(members);
    CHECK(count > 0);
    CHECK(count <= FRAME_MEMBERS_MAX);
    CHECK(zstd);
    for (size_t i = 0; i < count; i++) {
        CHECK((members[i].flags & ~REC_TREE) == 0);
        sum += members[i].len;
    }
    CHECK(sum == raw_n);
    if (n > PACK_STORED_MAX)
        return err_set(err, ERR_LIMIT, "frame of %zu bytes", n);
    uint8_t *table = mem_alloc(table_n);
    frame_table(members, count, table);
    e.stored = (uint32_t)(table_n + n);
    e.crc = crc32c(crc32c(0, table, table_n), zstd, n);
    fault = pack_fault(&e, PACK_IN_HEADER);

    CHECK(pthread_mutex_lock(&w->lock) == 0);
    rc = writable(w, err);
    if (!rc && fault)
        rc = err_set(err, ERR_BUG, "pack %s: frame refused: %s", w->name, fault);
    if (!rc)
        rc = put_record(w, &e, table, table_n, zstd, n, count, err);
    if (!rc)
        frame_entries(w, &e, members, count, entries);
    else
        rc = give_up(w, err);
    CHECK(pthread_mutex_unlock(&w->lock) == 0);
    free(table);
    return rc;
}

int64_t pack_writer_bytes(const struct pack_writer *w)
{
    CHECK(w);
    return w->bytes;
}

size_t pack_writer_records(const struct pack_writer *w)
{
    CHECK(w);
    return w->records;
}

/* Sorted toc and trailer at the end of the file; the pack's name is their digest. */
static enum err_code write_toc(struct pack_writer *w, struct digest *name, struct err *err)
{
    const size_t count = w->records, n = count * PACK_TOC_ENTRY;
    struct pack_trailer t = {.toc_off = (uint64_t)w->bytes,
                             .count = (uint32_t)count,
                             .created_ns = os_now_ns(),
                             .flags = w->tried ? PACK_TRIED : 0};
    uint8_t *p = malloc(n + PACK_TRAILER);
    enum err_code rc;

    if (!p)
        return err_set(err, ERR_LIMIT, "pack %s: no memory for %zu records", w->name, count);
    qsort(w->toc, count, sizeof(*w->toc), pack_entry_cmp);
    for (size_t i = 0; i < count; i++)
        pack_toc_entry_encode(&w->toc[i], p + i * PACK_TOC_ENTRY);
    t.toc_crc = crc32c(0, p, n);
    memcpy(t.nonce, w->nonce, sizeof(t.nonce));
    pack_trailer_encode(&t, p + n);
    sha256_of(p, n + PACK_TRAILER, name);
    rc = append(w, p, n + PACK_TRAILER, err);
    if (!rc)
        rc = rest(w, err);
    free(p);
    return rc;
}

/* Contents, toc and mode are durable; only the name is missing. */
static enum err_code finish(struct pack_writer *w, struct err *err)
{
    enum err_code rc;

    if (w->finished)
        return OK;
    if (w->records == 0)
        return err_set(err, ERR_BUG, "pack %s: sealed without a record", w->name);
    rc = write_toc(w, &w->digest, err);
    if (!rc)
        rc = os_fdatasync(w->fd, err);
    if (!rc)
        rc = os_chmod(w->fd, 0444, err);
    if (!rc)
        rc = os_close(&w->fd, err);
    w->finished = rc == OK;
    return rc;
}

static enum err_code publish(struct pack_writer *w, const struct digest *name, struct err *err)
{
    char hex[DIGEST_HEX + 1];
    struct err ignored = ERR_INIT;
    enum err_code rc;

    digest_hex(name, hex);
    rc = os_link(w->tmp, w->name, w->packs, hex, err);
    if (rc == ERR_EXISTS) /* the nonce makes names unique */
        return err_set(err, ERR_BUG, "pack %s is there already", hex);
    if (rc)
        return rc;
    w->sealed = true;
    /* From here on the pack is visible; a temporary that stays is garbage for gc, no reason to
     * fail. */
    if (os_unlink(w->tmp, w->name, &ignored) == OK)
        w->made = false;
    return OK;
}

enum err_code pack_finish(struct pack_writer *w, struct err *err)
{
    enum err_code rc;

    CHECK(w);
    CHECK(pthread_mutex_lock(&w->lock) == 0);
    rc = alive(w, err);
    if (!rc) {
        rc = finish(w, err);
        if (rc)
            rc = give_up(w, err);
    }
    CHECK(pthread_mutex_unlock(&w->lock) == 0);
    return rc;
}

enum err_code pack_seal(struct pack_writer *w, enum pack_sync sync, struct digest *name,
                        struct err *err)
{
    enum err_code rc;

    CHECK(w);
    CHECK(name);
    CHECK(pthread_mutex_lock(&w->lock) == 0);
    rc = alive(w, err);
    if (!rc)
        rc = finish(w, err);
    if (!rc) {
        *name = w->digest;
        rc = publish(w, name, err);
    }
    if (!rc && sync == PACK_SYNC_DIR)
        rc = os_fsync(w->packs, err);
    if (rc)
        rc = give_up(w, err);
    CHECK(pthread_mutex_unlock(&w->lock) == 0);
    return rc;
}

const struct pack_entry *pack_writer_toc(const struct pack_writer *w, size_t *count)
{
    CHECK(w);
    CHECK(count);
    CHECK(w->sealed);
    *count = w->records;
    return w->toc;
}
