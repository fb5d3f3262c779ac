/* A whole pack file.  The first byte says which checksums are put right first, so that the checks
 * behind them are reached: 1 record headers and payloads, 2 toc and trailer, with the name that
 * they ask for. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/os.h"
#include "store/pack_internal.h"
#include "tests/fuzz/fuzz.h"

#define SIZE_MAX_TRIED (1 << 16)

static void fix_records(uint8_t *p, size_t n)
{
    size_t at = PACK_HEADER_BYTES;

    while (at + PACK_RECORD_HEADER <= n && memcmp(p + at, "WREC", 4) == 0) {
        const uint32_t stored = le32_get(p + at + 8);
        const size_t body = at + PACK_RECORD_HEADER;

        if (stored <= n - body)
            le32_put(p + at + 12, crc32c(0, p + body, stored));
        le32_put(p + at + 76, crc32c(0, p + at, 76));
        if (stored > n - body)
            return;
        at = body + stored;
    }
}

static void fix_tail(uint8_t *p, size_t n, struct digest *name)
{
    if (n < PACK_TRAILER)
        return;
    uint8_t *t = p + n - PACK_TRAILER;
    const uint64_t off = le64_get(t + 8);

    if (off <= n - PACK_TRAILER)
        le32_put(t + 20, crc32c(0, p + off, n - PACK_TRAILER - off));
    le32_put(t + 60, crc32c(0, t, 60));
    if (off <= n - PACK_TRAILER)
        sha256_of(p + off, n - off, name);
}

static void look_at_payload(const struct pack_entry *e, const struct buf *b)
{
    struct recipe_chunk *chunks = NULL;
    struct frame_member *members = NULL;
    struct err err = ERR_INIT;
    struct digest target;
    struct str name;
    uint8_t kind;
    size_t n, off, raw;

    if (e->type == REC_RECIPE || (e->type == REC_LOOSE && e->stored))
        (void)!recipe_decode(&e->id, e->raw, b->p, b->n, &chunks, &n, &err);
    else if (e->type == REC_FRAME)
        (void)!frame_decode(b->p, b->n, &members, &n, &off, &raw, &err);
    else if (e->type == REC_REF)
        (void)!ref_decode(&e->id, b->p, b->n, &target, &kind, &name, &err);
    free(chunks);
    free(members);
}

static void walk(struct pack *p)
{
    struct pack_entry e;
    struct err err = ERR_INIT;
    struct buf payload;
    uint32_t off = PACK_HEADER_BYTES, before;
    bool end = false;

    buf_init(&payload, PACK_PAYLOAD_MAX);
    while (!end) {
        before = off;
        if (pack_scan(p, &off, &e, &payload, &end, &err) == OK && !end)
            look_at_payload(&e, &payload);
        CHECK(end || off > before);
    }
    buf_release(&payload);
}

static void read_by_toc(struct pack *p)
{
    const struct pack_entry *toc;
    struct pack_entry e;
    struct err err = ERR_INIT;
    struct buf payload;
    size_t n;

    if (pack_toc(p, &toc, &n, &err) != OK)
        return;
    buf_init(&payload, PACK_PAYLOAD_MAX);
    for (size_t i = 0; i < n; i++) {
        CHECK((int64_t)toc[i].off + PACK_RECORD_HEADER + toc[i].stored <= pack_bytes(p));
        buf_clear(&payload);
        if (pack_read(p, toc[i].off, &e, &payload, &err) == OK)
            CHECK(payload.n == e.stored);
    }
    buf_release(&payload);
}

/* A folder of this process, removed at its end. */
static char folder[64];

static void remove_folder(void)
{
    struct err err = ERR_INIT;

    (void)!os_remove_tree(AT_FDCWD, folder, &err);
}

static int open_folder(void)
{
    struct err err = ERR_INIT;
    int dir = -1;

    if (!folder[0]) {
        snprintf(folder, sizeof(folder), "/tmp/pack_fuzz.%ld", (long)getpid());
        CHECK(os_mkdirs(folder, 0700, &err) == OK);
        CHECK(atexit(remove_folder) == 0);
    }
    CHECK(os_open_dir(AT_FDCWD, folder, &dir, &err) == OK);
    return dir;
}

static void try_file(int dir, const struct digest *name)
{
    char hex[DIGEST_HEX + 1];
    struct err err = ERR_INIT;
    struct pack *p;

    digest_hex(name, hex);
    if (pack_open(dir, name, &p, &err) == OK) {
        read_by_toc(p);
        walk(p);
        pack_close(p);
    }
    if (pack_open_damaged(dir, hex, &p, &err) == OK) {
        walk(p);
        pack_close(p);
    }
    CHECK(os_unlink(dir, hex, &err) == OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char hex[DIGEST_HEX + 1];
    struct err err = ERR_INIT;
    struct digest name = {{1}};
    int dir, fd = -1;

    if (size < 1 || size > SIZE_MAX_TRIED)
        return 0;
    const size_t n = size - 1;
    uint8_t *bytes = mem_alloc(n + 1);
    memcpy(bytes, data + 1, n);
    if (data[0] & 1)
        fix_records(bytes, n);
    if (data[0] & 2)
        fix_tail(bytes, n, &name);
    dir = open_folder();
    digest_hex(&name, hex);
    CHECK(os_open(dir, hex, O_CREAT | O_TRUNC | O_WRONLY, 0600, &fd, &err) == OK);
    CHECK(os_write(fd, bytes, n, &err) == OK);
    os_close_quiet(&fd);
    try_file(dir, &name);
    os_close_quiet(&dir);
    free(bytes);
    return 0;
}
