/* Packs: what is put comes back; nothing damaged, short or hostile passes. */
#include <pthread.h>

#include "store/pack_internal.h"
#include "tests/pack_rig.h"

struct fixture {
    struct rig r;
    struct pack_writer *w;
    struct digest name;
    struct pack *p;
};

static void fixture_new(struct fixture *f)
{
    *f = (struct fixture){0};
    rig_new(&f->r);
    EXPECT_OK(pack_writer_open(f->r.objects, &f->w, &f->r.err), &f->r.err);
}

static void fixture_free(struct fixture *f)
{
    pack_close(f->p);
    pack_writer_release(f->w);
    rig_close(&f->r);
}

static void seal_and_open(struct fixture *f)
{
    EXPECT_OK(pack_seal(f->w, PACK_SYNC_DIR, &f->name, &f->r.err), &f->r.err);
    EXPECT_OK(pack_open(f->r.packs, &f->name, &f->p, &f->r.err), &f->r.err);
}

/* Everything there is to read; the first error. */
static enum err_code read_all(int packs, const struct digest *name, struct err *err)
{
    const struct pack_entry *toc;
    struct pack_entry e;
    struct pack *p = NULL;
    struct buf payload;
    uint32_t off = PACK_HEADER_BYTES;
    bool end = false;
    size_t n;
    enum err_code rc = pack_open(packs, name, &p, err);

    buf_init(&payload, PACK_PAYLOAD_MAX);
    if (!rc)
        rc = pack_toc(p, &toc, &n, err);
    for (size_t i = 0; !rc && i < n; i++) {
        buf_clear(&payload);
        rc = pack_read(p, toc[i].off, &e, &payload, err);
    }
    while (!rc && !end)
        rc = pack_scan(p, &off, &e, &payload, &end, err);
    buf_release(&payload);
    pack_close(p);
    return rc;
}

TEST(what_is_put_comes_back)
{
    struct fixture f;
    const struct pack_entry *toc, *own;
    struct pack_entry e;
    struct buf payload;
    size_t n, own_n;

    fixture_new(&f);
    EXPECT_OK(rig_put_all_types(f.w, 100, &f.r.err), &f.r.err);
    EXPECT_EQ(pack_writer_records(f.w), RIG_ALL_TYPES);
    EXPECT_EQ(rig_files(f.r.tmp), 1);
    EXPECT_EQ(rig_files(f.r.packs), 0);
    seal_and_open(&f);
    EXPECT_EQ(rig_files(f.r.tmp), 0);
    EXPECT_EQ(rig_files(f.r.packs), 1);
    EXPECT(digest_eq(pack_name(f.p), &f.name));
    EXPECT_EQ(pack_bytes(f.p), pack_writer_bytes(f.w));
    EXPECT(pack_created_ns(f.p) > 0);

    EXPECT_OK(pack_toc(f.p, &toc, &n, &f.r.err), &f.r.err);
    own = pack_writer_toc(f.w, &own_n);
    EXPECT_EQ(n, RIG_ALL_TYPES);
    EXPECT_EQ(own_n, n);
    buf_init(&payload, PACK_PAYLOAD_MAX);
    for (size_t i = 0; i < n; i++) {
        EXPECT_EQ(pack_entry_cmp(&toc[i], &own[i]), 0);
        buf_clear(&payload);
        EXPECT_OK(pack_read(f.p, toc[i].off, &e, &payload, &f.r.err), &f.r.err);
        EXPECT_EQ(e.type, toc[i].type);
        EXPECT_EQ(e.off, toc[i].off);
        EXPECT_EQ(payload.n, toc[i].stored);
        if (e.type != REC_FRAME)
            EXPECT(digest_eq(&e.id, &toc[i].id));
        if (digest_eq(&toc[i].id, &(struct digest){{0}}))
            EXPECT(false); /* a frame has no entry of its own */
    }
    buf_clear(&payload);
    buf_str(&payload, "before ");
    EXPECT_OK(pack_read(f.p, PACK_HEADER_BYTES, &e, &payload, &f.r.err), &f.r.err);
    EXPECT_STR(payload.p, "before hello"); /* appended */
    buf_release(&payload);
    fixture_free(&f);
}

TEST(a_sealed_pack_is_read_only_and_checked_by_name)
{
    struct fixture f;
    char hex[DIGEST_HEX + 1];
    struct digest other;
    struct pack *p;
    struct stat st;

    fixture_new(&f);
    EXPECT_OK(rig_blob(f.w, rig_id(1), "x", 1, 0, &f.r.err), &f.r.err);
    seal_and_open(&f);
    digest_hex(&f.name, hex);
    EXPECT_OK(os_stat_at(f.r.packs, hex, &st, &f.r.err), &f.r.err);
    EXPECT_EQ(st.st_mode & 07777, 0444);
    EXPECT_EQ(st.st_nlink, 1);

    /* Under another name it is not that pack. */
    const struct pack_entry *toc;
    size_t n;
    other = rig_id(2);
    digest_hex(&other, hex);
    char real[DIGEST_HEX + 1];
    digest_hex(&f.name, real);
    EXPECT_OK(os_link(f.r.packs, real, f.r.packs, hex, &f.r.err), &f.r.err);
    EXPECT_OK(pack_open(f.r.packs, &other, &p, &f.r.err), &f.r.err);
    EXPECT_ERR(pack_toc(p, &toc, &n, &f.r.err), ERR_DAMAGED, &f.r.err);
    pack_close(p);

    other = rig_id(3);
    EXPECT_ERR(pack_open(f.r.packs, &other, &p, &f.r.err), ERR_NOT_FOUND, &f.r.err);
    EXPECT(!p);
    fixture_free(&f);
}

TEST(a_writer_given_up_leaves_nothing)
{
    struct fixture f;
    struct digest name;

    fixture_new(&f);
    EXPECT_OK(rig_blob(f.w, rig_id(1), "x", 1, 0, &f.r.err), &f.r.err);
    pack_writer_release(f.w);
    EXPECT_EQ(rig_files(f.r.tmp), 0);
    EXPECT_EQ(rig_files(f.r.packs), 0);
    EXPECT_OK(pack_writer_open(f.r.objects, &f.w, &f.r.err), &f.r.err);
    EXPECT_ERR(pack_seal(f.w, PACK_SYNC_DIR, &name, &f.r.err), ERR_BUG, &f.r.err);
    /* The first error is repeated. */
    EXPECT_ERR(rig_blob(f.w, rig_id(1), "x", 1, 0, &f.r.err), ERR_BUG, &f.r.err);
    fixture_free(&f);
}

/* The commit is the link alone: what was finished is whole, takes no more, and cannot be seen. */
TEST(a_finished_pack_is_not_visible_yet)
{
    struct digest name;
    struct fixture f;

    fixture_new(&f);
    EXPECT_OK(rig_blob(f.w, rig_id(1), "x", 1, 0, &f.r.err), &f.r.err);
    EXPECT_OK(pack_finish(f.w, &f.r.err), &f.r.err);
    EXPECT_OK(pack_finish(f.w, &f.r.err), &f.r.err); /* harmless */
    EXPECT_EQ(rig_files(f.r.packs), 0);
    EXPECT_EQ(rig_files(f.r.tmp), 1);
    EXPECT_OK(pack_seal(f.w, PACK_SYNC_DIR, &name, &f.r.err), &f.r.err);
    EXPECT_EQ(rig_files(f.r.packs), 1);
    EXPECT_EQ(rig_files(f.r.tmp), 0);
    pack_writer_release(f.w);
    EXPECT_OK(pack_writer_open(f.r.objects, &f.w, &f.r.err), &f.r.err);
    EXPECT_OK(rig_blob(f.w, rig_id(1), "x", 1, 0, &f.r.err), &f.r.err);
    EXPECT_OK(pack_finish(f.w, &f.r.err), &f.r.err);
    EXPECT_ERR(rig_blob(f.w, rig_id(2), "y", 1, 0, &f.r.err), ERR_BUG, &f.r.err);
    pack_writer_release(f.w);
    EXPECT_EQ(rig_files(f.r.packs), 1);
    EXPECT_EQ(rig_files(f.r.tmp), 0);
    f.w = NULL;
    fixture_free(&f);
}

TEST(wrong_records_are_refused)
{
    static const struct pack_entry wrong[] = {
        {.type = REC_BLOB, .raw = 4},                           /* raw, but another length */
        {.type = REC_BLOB, .raw = 3, .enc = ENC_COUNT},         /* no such encoding */
        {.type = REC_BLOB, .raw = 3, .flags = 2},               /* no such flag */
        {.type = REC_BLOB, .raw = CODEC_RAW_MAX + 1, .enc = 1}, /* too large when decoded */
        {.type = REC_RECIPE, .raw = 3},                         /* no room for a chunk */
        {.type = REC_LOOSE, .raw = 3},                          /* neither empty nor a recipe */
        {.type = REC_BIND},                                     /* not a digest */
        {.type = REC_REF},                                      /* no name */
        {.type = REC_TYPE_COUNT},
        {.type = 0},
    };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct pack_entry e = wrong[i];
        struct fixture f;

        fixture_new(&f);
        EXPECT_ERR(pack_put(f.w, &e, "abc", 3, &f.r.err), ERR_BUG, &f.r.err);
        EXPECT_ERR(pack_seal(f.w, PACK_SYNC_DIR, &f.name, &f.r.err), ERR_BUG, &f.r.err);
        fixture_free(&f);
    }
}

TEST(payloads_larger_than_the_buffer)
{
    struct fixture f;
    const size_t n = 3 << 20;
    uint8_t *big = malloc(n);
    struct pack_entry e;
    struct buf payload;
    uint64_t seed = 7;
    uint32_t off = PACK_HEADER_BYTES;
    bool end;

    gen_noise(&seed, big, n);
    fixture_new(&f);
    for (uint64_t i = 0; i < 6; i++)
        EXPECT_OK(rig_blob(f.w, rig_id(i), big, i % 2 ? n : 100 * i, 0, &f.r.err), &f.r.err);
    seal_and_open(&f);
    buf_init(&payload, n);
    for (uint64_t i = 0; i < 6; i++) {
        EXPECT_OK(pack_scan(f.p, &off, &e, &payload, &end, &f.r.err), &f.r.err);
        EXPECT(!end);
        EXPECT_EQ(payload.n, i % 2 ? n : 100 * i);
        EXPECT_MEM(payload.p ? payload.p : "", big, payload.n);
    }
    EXPECT_OK(pack_scan(f.p, &off, &e, &payload, &end, &f.r.err), &f.r.err);
    EXPECT(end);
    buf_release(&payload);

    /* A record longer than the caller's buffer may be. */
    buf_init(&payload, 1000);
    EXPECT_ERR(pack_read(f.p, PACK_HEADER_BYTES + PACK_RECORD_HEADER, &e, &payload, &f.r.err),
               ERR_LIMIT, &f.r.err);
    EXPECT_EQ(payload.n, 0);
    buf_release(&payload);
    free(big);
    fixture_free(&f);
}

/* Past the page cache or not, with rests or without: the same bytes come back. */
TEST(bypass_and_rest_change_nothing)
{
    const size_t n = 5 << 20;
    uint8_t *big = malloc(n);
    uint64_t seed = 11;

    gen_noise(&seed, big, n);
    for (int how = 0; how < 4; how++) {
        struct fixture f;
        struct pack_entry e;
        struct buf payload;
        uint32_t off = PACK_HEADER_BYTES;
        bool end;

        fixture_new(&f);
        if (how & 1)
            pack_writer_bypass(f.w);
        for (uint64_t i = 0; i < 9; i++) {
            EXPECT_OK(rig_blob(f.w, rig_id(i), big, i % 3 ? 4099 * i : n, 0, &f.r.err), &f.r.err);
            if (how & 2)
                EXPECT_OK(pack_writer_rest(f.w, &f.r.err), &f.r.err);
        }
        seal_and_open(&f);
        EXPECT_OK(read_all(f.r.packs, &f.name, &f.r.err), &f.r.err);
        buf_init(&payload, n);
        for (uint64_t i = 0; i < 9; i++) {
            EXPECT_OK(pack_scan(f.p, &off, &e, &payload, &end, &f.r.err), &f.r.err);
            EXPECT_EQ(payload.n, i % 3 ? 4099 * i : n);
            EXPECT_MEM(payload.p ? payload.p : "", big, payload.n);
        }
        buf_release(&payload);
        fixture_free(&f);
    }
    free(big);
}

struct putter {
    struct pack_writer *w;
    uint64_t from;
    enum err_code rc;
};
#define PUTS 300

static void *put_many(void *arg)
{
    struct putter *p = arg;
    struct err err = ERR_INIT;

    for (uint64_t i = p->from; i < p->from + PUTS && !p->rc; i++)
        p->rc = rig_blob(p->w, rig_id(i), &i, sizeof(i), 0, &err);
    return NULL;
}

TEST(threads_share_a_writer)
{
    struct fixture f;
    struct putter p[4];
    pthread_t t[4];
    const struct pack_entry *toc;
    struct pack_entry e;
    struct buf b;
    size_t n;

    fixture_new(&f);
    for (int i = 0; i < 4; i++) {
        p[i] = (struct putter){.w = f.w, .from = (uint64_t)i * PUTS};
        EXPECT_EQ(pthread_create(&t[i], NULL, put_many, &p[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        EXPECT_EQ(pthread_join(t[i], NULL), 0);
        EXPECT_EQ(p[i].rc, OK);
    }
    seal_and_open(&f);
    EXPECT_OK(pack_toc(f.p, &toc, &n, &f.r.err), &f.r.err);
    EXPECT_EQ(n, 4 * PUTS);
    buf_init(&b, 100);
    for (size_t i = 0; i < n; i++) {
        uint64_t value;

        buf_clear(&b);
        EXPECT_OK(pack_read(f.p, toc[i].off, &e, &b, &f.r.err), &f.r.err);
        memcpy(&value, b.p, sizeof(value));
        const struct digest id = rig_id(value);
        EXPECT(digest_eq(&id, &toc[i].id));
    }
    buf_release(&b);
    fixture_free(&f);
}

/* ---- damage ---- */

/* The pack's bytes in memory, and a writable copy of the file under its own name in another
 * folder. */
struct copy {
    struct buf bytes;
    char dir[TMPDIR_MAX];
    int packs, fd;
};

static void copy_new(struct copy *c, struct fixture *f)
{
    char hex[DIGEST_HEX + 1];
    struct err err = ERR_INIT;

    digest_hex(&f->name, hex);
    buf_init(&c->bytes, 1 << 24);
    EXPECT_OK(os_read_file(f->r.packs, hex, 1 << 24, &c->bytes, &err), &err);
    tmpdir_new(c->dir);
    c->packs = c->fd = -1;
    EXPECT_OK(os_open_dir(AT_FDCWD, c->dir, &c->packs, &err), &err);
    EXPECT_OK(os_open(c->packs, hex, O_CREAT | O_RDWR, 0644, &c->fd, &err), &err);
    EXPECT_OK(os_pwrite(c->fd, c->bytes.p, c->bytes.n, 0, &err), &err);
}

static void copy_free(struct copy *c)
{
    os_close_quiet(&c->fd);
    os_close_quiet(&c->packs);
    tmpdir_free(c->dir);
    buf_release(&c->bytes);
}

static void put_byte(struct copy *c, size_t at, int value)
{
    const uint8_t b = (uint8_t)value;
    struct err err = ERR_INIT;

    EXPECT_OK(os_pwrite(c->fd, &b, 1, (int64_t)at, &err), &err);
}

TEST(every_bit_flip_is_found)
{
    struct fixture f;
    struct copy c;

    fixture_new(&f);
    EXPECT_OK(rig_put_all_types(f.w, 100, &f.r.err), &f.r.err);
    seal_and_open(&f);
    copy_new(&c, &f);
    EXPECT_OK(read_all(c.packs, &f.name, &f.r.err), &f.r.err);
    for (size_t i = 0; i < c.bytes.n; i++)
        for (int bit = 0; bit < 8; bit++) {
            struct err err = ERR_INIT;

            put_byte(&c, i, (uint8_t)c.bytes.p[i] ^ 1 << bit);
            const enum err_code rc = read_all(c.packs, &f.name, &err);
            if (rc != ERR_DAMAGED && !(i >= 8 && i < 12 && rc == ERR_VERSION))
                print_error("byte %zu bit %d: %d %s\n", i, bit, (int)rc, err.text);
            EXPECT(rc == ERR_DAMAGED || (i >= 8 && i < 12 && rc == ERR_VERSION));
            EXPECT(strstr(err.text, "pack "));
            put_byte(&c, i, c.bytes.p[i]);
        }
    EXPECT_OK(read_all(c.packs, &f.name, &f.r.err), &f.r.err);
    copy_free(&c);
    fixture_free(&f);
}

TEST(every_cut_is_found)
{
    struct fixture f;
    struct copy c;

    fixture_new(&f);
    EXPECT_OK(rig_put_all_types(f.w, 100, &f.r.err), &f.r.err);
    seal_and_open(&f);
    copy_new(&c, &f);
    for (size_t n = c.bytes.n; n-- > 0;) {
        EXPECT_OK(os_truncate(c.fd, (int64_t)n, &f.r.err), &f.r.err);
        EXPECT_ERR(read_all(c.packs, &f.name, &f.r.err), ERR_DAMAGED, &f.r.err);
    }
    /* Longer is wrong as well. */
    EXPECT_OK(os_pwrite(c.fd, c.bytes.p, c.bytes.n, 0, &f.r.err), &f.r.err);
    put_byte(&c, c.bytes.n, 0);
    EXPECT_ERR(read_all(c.packs, &f.name, &f.r.err), ERR_DAMAGED, &f.r.err);
    copy_free(&c);
    fixture_free(&f);
}

/* Cut short while it is open: an error, not a signal. */
TEST(a_pack_that_shrinks_under_the_reader)
{
    struct fixture f;
    const struct pack_entry *toc;
    struct pack_entry e;
    struct pack *p;
    struct copy c;
    struct buf b;
    size_t n;

    fixture_new(&f);
    EXPECT_OK(rig_put_all_types(f.w, 100, &f.r.err), &f.r.err);
    seal_and_open(&f);
    copy_new(&c, &f);
    EXPECT_OK(pack_open(c.packs, &f.name, &p, &f.r.err), &f.r.err);
    EXPECT_OK(os_truncate(c.fd, 100, &f.r.err), &f.r.err);
    EXPECT_ERR(pack_toc(p, &toc, &n, &f.r.err), ERR_DAMAGED, &f.r.err);
    buf_init(&b, 1000);
    EXPECT_ERR(pack_read(p, PACK_HEADER_BYTES, &e, &b, &f.r.err), ERR_DAMAGED, &f.r.err);
    EXPECT_EQ(b.n, 0);
    buf_release(&b);
    pack_close(p);
    copy_free(&c);
    fixture_free(&f);
}

/* ---- salvage ---- */

/* How many good records and how many errors does a walk give? */
static void walk(struct pack *p, int *good, int *bad)
{
    struct pack_entry e;
    struct err err = ERR_INIT;
    struct buf payload;
    uint32_t off = PACK_HEADER_BYTES;
    bool end = false;

    *good = *bad = 0;
    buf_init(&payload, PACK_PAYLOAD_MAX);
    for (int guard = 0; !end; guard++) {
        const uint32_t before = off;
        const enum err_code rc = pack_scan(p, &off, &e, &payload, &end, &err);

        EXPECT(guard < 1000);
        EXPECT(rc == OK || rc == ERR_DAMAGED);
        EXPECT(end || off > before);
        *good += rc == OK && !end;
        *bad += rc == ERR_DAMAGED;
    }
    buf_release(&payload);
}

TEST(a_walk_goes_on_after_damage)
{
    struct fixture f;
    struct pack *p;
    struct copy c;
    int good, bad;

    fixture_new(&f);
    EXPECT_OK(rig_put_all_types(f.w, 100, &f.r.err), &f.r.err); /* 8 records */
    seal_and_open(&f);
    char hex[DIGEST_HEX + 1];
    digest_hex(&f.name, hex);
    copy_new(&c, &f);

    /* A header of the second record; found again by the toc. */
    put_byte(&c, PACK_HEADER_BYTES + PACK_RECORD_HEADER + 5 + 10, 0x55);
    EXPECT_OK(pack_open(c.packs, &f.name, &p, &f.r.err), &f.r.err);
    walk(p, &good, &bad);
    EXPECT_EQ(good, 7);
    EXPECT_EQ(bad, 1);
    pack_close(p);

    /* Without toc: the payload of the first is damaged too, and what follows it has no good header:
     * the search finds the third. */
    EXPECT_OK(os_truncate(c.fd, (int64_t)c.bytes.n - 100, &f.r.err), &f.r.err);
    put_byte(&c, PACK_HEADER_BYTES + PACK_RECORD_HEADER, 'J');
    EXPECT_OK(pack_open_damaged(c.packs, hex, &p, &f.r.err), &f.r.err);
    EXPECT(digest_eq(pack_name(p), &f.name));
    walk(p, &good, &bad);
    EXPECT_EQ(good, 6);
    EXPECT_EQ(bad, 2); /* the second is the rest of the toc */
    pack_close(p);

    /* Nothing but the start. */
    EXPECT_OK(os_truncate(c.fd, 40, &f.r.err), &f.r.err);
    EXPECT_OK(pack_open_damaged(c.packs, hex, &p, &f.r.err), &f.r.err);
    walk(p, &good, &bad);
    EXPECT_EQ(good, 0);
    EXPECT_EQ(bad, 1);
    pack_close(p);
    EXPECT_OK(os_truncate(c.fd, 0, &f.r.err), &f.r.err);
    EXPECT_OK(pack_open_damaged(c.packs, hex, &p, &f.r.err), &f.r.err);
    walk(p, &good, &bad);
    EXPECT_EQ(good + bad, 0);
    pack_close(p);
    copy_free(&c);
    fixture_free(&f);
}

/* A pack stored as an object holds records that are none of ours. */
TEST(records_inside_a_payload_are_not_believed)
{
    struct fixture f, outer;
    struct pack *p;
    struct copy inner, c;
    int good, bad;

    fixture_new(&f);
    EXPECT_OK(rig_put_all_types(f.w, 100, &f.r.err), &f.r.err);
    seal_and_open(&f);
    copy_new(&inner, &f);
    fixture_new(&outer);
    EXPECT_OK(rig_blob(outer.w, rig_id(1), inner.bytes.p, inner.bytes.n, 0, &f.r.err), &f.r.err);
    EXPECT_OK(rig_blob(outer.w, rig_id(2), "last", 4, 0, &f.r.err), &f.r.err);
    seal_and_open(&outer);
    copy_new(&c, &outer);
    put_byte(&c, PACK_HEADER_BYTES + 20, 0xee); /* the outer header */
    EXPECT_OK(pack_open(c.packs, &outer.name, &p, &f.r.err), &f.r.err);
    walk(p, &good, &bad);
    EXPECT_EQ(good, 1);
    EXPECT_EQ(bad, 1);
    pack_close(p);
    copy_free(&c);
    copy_free(&inner);
    fixture_free(&outer);
    fixture_free(&f);
}

/* ---- hostile bytes with every checksum right ---- */

static enum err_code forge(const struct pack_entry *e, size_t n, uint64_t toc_off, int64_t bytes,
                           struct err *err)
{
    const size_t tail_n = n * PACK_TOC_ENTRY + PACK_TRAILER;
    uint8_t *tail = calloc(1, tail_n);
    struct pack_trailer t = {.toc_off = toc_off, .count = (uint32_t)n};
    struct pack_entry *out;
    struct digest name;
    size_t count, need;

    for (size_t i = 0; i < n; i++)
        pack_toc_entry_encode(&e[i], tail + i * PACK_TOC_ENTRY);
    t.toc_crc = crc32c(0, tail, n * PACK_TOC_ENTRY);
    pack_trailer_encode(&t, tail + n * PACK_TOC_ENTRY);
    sha256_of(tail, tail_n, &name);
    const enum err_code rc = pack_toc_parse(tail, tail_n, bytes, &name, &out, &count, &need, err);
    if (!rc)
        EXPECT(out);
    free(out);
    free(tail);
    return rc;
}

TEST(hostile_tables_are_refused)
{
    struct pack_entry e[2] = {{.type = REC_BLOB, .raw = 4, .stored = 4, .off = 16},
                              {.type = REC_BLOB, .raw = 4, .stored = 4, .off = 100}};
    const uint64_t toc_off = 16 + 2 * (80 + 4);
    const int64_t bytes = (int64_t)toc_off + 2 * 72 + 64;
    struct err err = ERR_INIT;

    e[0].id = rig_id(0);
    e[1].id = rig_id(0);
    EXPECT_OK(forge(e, 2, toc_off, bytes, &err), &err);
    EXPECT_ERR(forge(e, 2, toc_off, bytes + 1, &err), ERR_DAMAGED, &err);
    EXPECT_ERR(forge(e, 2, toc_off + 1, bytes, &err), ERR_DAMAGED, &err);
    EXPECT_ERR(forge(e, 2, UINT64_MAX - 200, bytes, &err), ERR_DAMAGED, &err);
    EXPECT_ERR(forge(e, 1, toc_off, bytes, &err), ERR_DAMAGED, &err);
    EXPECT_ERR(forge(e, 0, toc_off, bytes, &err), ERR_DAMAGED, &err);

    struct pack_entry swapped[2] = {e[1], e[0]};
    EXPECT_ERR(forge(swapped, 2, toc_off, bytes, &err), ERR_DAMAGED, &err);

    static const struct {
        uint32_t off, stored;
        uint64_t raw, pos;
        uint8_t type, enc, flags;
    } wrong[] = {
        {.off = 0, .stored = 4, .raw = 4, .type = REC_BLOB},
        {.off = 101, .stored = 4, .raw = 4, .type = REC_BLOB}, /* runs into the toc */
        {.off = UINT32_MAX, .stored = 4, .raw = 4, .type = REC_BLOB},
        {.off = 16, .stored = UINT32_MAX, .raw = UINT32_MAX, .type = REC_BLOB},
        {.off = 16, .stored = 4, .raw = 4, .type = REC_BLOB, .pos = 1},
        {.off = 16, .stored = 4, .raw = UINT64_MAX, .type = REC_BLOB, .enc = ENC_ZSTD},
        {.off = 16, .stored = 4, .raw = 4, .type = REC_BLOB, .enc = 9},
        {.off = 16, .stored = 4, .raw = 4, .type = REC_BLOB, .flags = 0x80},
        {.off = 16, .stored = 4, .raw = 4, .type = 0},
        {.off = 16, .stored = 4, .raw = 4, .type = 77},
        {.off = 16, .stored = 80, .raw = UINT64_MAX, .pos = 2, .type = REC_FRAME, .enc = ENC_ZSTD},
        {.off = 16, .stored = 80, .raw = 2, .pos = CODEC_RAW_MAX, .type = REC_FRAME, .enc = 1},
        {.off = 16, .stored = 4, .raw = 4, .type = REC_BIND},
        {.off = 16, .stored = 4, .raw = 4, .type = REC_REF},
        {.off = 16, .stored = 4, .raw = 4, .type = REC_RECIPE},
        {.off = 16, .stored = 71, .raw = 4, .type = REC_LOOSE},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct pack_entry x[2] = {e[0], e[1]};

        x[0] = (struct pack_entry){.type = wrong[i].type,
                                   .enc = wrong[i].enc,
                                   .flags = wrong[i].flags,
                                   .off = wrong[i].off,
                                   .stored = wrong[i].stored,
                                   .raw = wrong[i].raw,
                                   .pos = wrong[i].pos};
        x[1].id = rig_id(1);
        EXPECT_ERR(forge(x, 2, toc_off, bytes, &err), ERR_DAMAGED, &err);
    }
}

TEST(toc_from_the_end_of_a_pack)
{
    struct fixture f;
    struct pack_entry *list;
    struct err err = ERR_INIT;
    struct copy c;
    size_t n, need;

    fixture_new(&f);
    EXPECT_OK(rig_put_all_types(f.w, 100, &f.r.err), &f.r.err);
    seal_and_open(&f);
    copy_new(&c, &f);
    const char *end = c.bytes.p + c.bytes.n;
    const int64_t bytes = (int64_t)c.bytes.n;
    EXPECT_OK(pack_toc_parse(end, 0, bytes, &f.name, &list, &n, &need, &err), &err);
    EXPECT(!list);
    EXPECT_EQ(need, PACK_TRAILER);
    EXPECT_OK(pack_toc_parse(end - 64, 64, bytes, &f.name, &list, &n, &need, &err), &err);
    EXPECT(!list);
    EXPECT_EQ(need, PACK_TRAILER + RIG_ALL_TYPES * PACK_TOC_ENTRY);
    EXPECT_OK(pack_toc_parse(end - need, need, bytes, &f.name, &list, &n, &need, &err), &err);
    EXPECT_EQ(n, RIG_ALL_TYPES);
    free(list);
    /* More than needed is fine, more than the pack is not. */
    EXPECT_OK(pack_toc_parse(c.bytes.p, c.bytes.n, bytes, &f.name, &list, &n, &need, &err), &err);
    EXPECT_EQ(n, RIG_ALL_TYPES);
    free(list);
    EXPECT_ERR(pack_toc_parse(c.bytes.p, c.bytes.n, 300, &f.name, &list, &n, &need, &err),
               ERR_DAMAGED, &err);
    copy_free(&c);
    fixture_free(&f);
}

/* ---- payloads ---- */

TEST(recipes)
{
    const struct digest id = rig_id(9);
    const struct recipe_chunk in[3] = {{rig_id(1), 1, HINT_TEXT},
                                       {rig_id(2), CODEC_RAW_MAX, HINT_WORDS4},
                                       {rig_id(1), 77, HINT_NONE}};
    const uint64_t raw = 1 + CODEC_RAW_MAX + 77;
    struct recipe_chunk *out;
    struct err err = ERR_INIT;
    struct digest other = rig_id(10);
    struct buf b;
    size_t n;

    buf_init(&b, 1000);
    recipe_encode(&id, in, 3, &b);
    EXPECT_OK(buf_check(&b, "recipe", &err), &err);
    EXPECT_OK(recipe_decode(&id, raw, b.p, b.n, &out, &n, &err), &err);
    EXPECT_EQ(n, 3);
    for (int i = 0; i < 3; i++) {
        EXPECT(digest_eq(&in[i].id, &out[i].id));
        EXPECT_EQ(in[i].len, out[i].len);
        EXPECT_EQ(in[i].hint, out[i].hint);
    }
    free(out);
    EXPECT_ERR(recipe_decode(&id, raw + 1, b.p, b.n, &out, &n, &err), ERR_DAMAGED, &err);
    EXPECT_ERR(recipe_decode(&other, raw, b.p, b.n, &out, &n, &err), ERR_DAMAGED, &err);
    for (size_t cut = 0; cut < b.n; cut++)
        EXPECT_ERR(recipe_decode(&id, raw, b.p, cut, &out, &n, &err), ERR_DAMAGED, &err);
    for (size_t i = 0; i < b.n; i++) {
        b.p[i] ^= 1;
        EXPECT_ERR(recipe_decode(&id, raw, b.p, b.n, &out, &n, &err), ERR_DAMAGED, &err);
        b.p[i] ^= 1;
    }
    buf_release(&b);

    /* The check is no secret: lengths must be looked at all the same. */
    static const uint32_t lengths[] = {0, CODEC_RAW_MAX + 1, UINT32_MAX};
    for (size_t i = 0; i < 3; i++) {
        uint8_t p[RECIPE_HEAD + 2 * RECIPE_ITEM] = {0}, all[DIGEST_BYTES + 2 * RECIPE_ITEM];
        struct digest check;

        le32_put(p + RECIPE_HEAD + 32, lengths[i]);
        le32_put(p + RECIPE_HEAD + RECIPE_ITEM + 32, 1);
        memcpy(all, id.b, DIGEST_BYTES);
        memcpy(all + DIGEST_BYTES, p + RECIPE_HEAD, 2 * RECIPE_ITEM);
        sha256_of(all, sizeof(all), &check);
        memcpy(p, check.b, DIGEST_BYTES);
        EXPECT_ERR(recipe_decode(&id, (uint64_t)lengths[i] + 1, p, sizeof(p), &out, &n, &err),
                   ERR_DAMAGED, &err);
    }
}

TEST(frames)
{
    struct fixture f;
    const struct digest ids[3] = {rig_id(1), rig_id(2), rig_id(2)};
    const struct pack_entry *toc;
    struct frame_member *m;
    struct pack_entry e, entries[3];
    struct frame_member in[3] = {{ids[0], 0, 0}, {ids[1], 7, REC_TREE}, {ids[2], 0, 0}};
    struct err err = ERR_INIT;
    struct buf b;
    size_t n, off, raw_n, toc_n;

    fixture_new(&f);
    EXPECT_OK(pack_put_frame(f.w, in, 3, "zstd", 4, 7, entries, &err), &err);
    EXPECT_EQ(entries[2].pos, 7);
    EXPECT_EQ(entries[1].raw, 7);
    EXPECT_EQ(entries[1].flags, REC_TREE);
    seal_and_open(&f);
    EXPECT_OK(pack_toc(f.p, &toc, &toc_n, &err), &err);
    EXPECT_EQ(toc_n, 3);
    buf_init(&b, 1000);
    EXPECT_OK(pack_read(f.p, entries[0].off, &e, &b, &err), &err);
    EXPECT_EQ(e.raw, 7);
    EXPECT_OK(frame_decode(b.p, b.n, &m, &n, &off, &raw_n, &err), &err);
    EXPECT_EQ(n, 3);
    EXPECT_EQ(raw_n, 7);
    EXPECT_EQ(off, FRAME_HEAD + 3 * FRAME_ITEM);
    EXPECT_MEM(b.p + off, "zstd", 4);
    EXPECT_EQ(m[1].flags, REC_TREE);
    free(m);
    for (size_t cut = 0; cut <= off; cut++)
        EXPECT_ERR(frame_decode(b.p, cut, &m, &n, &off, &raw_n, &err), ERR_DAMAGED, &err);
    static const uint32_t counts[] = {0, 4, FRAME_MEMBERS_MAX + 1, UINT32_MAX};
    for (size_t i = 0; i < 4; i++) {
        le32_put((uint8_t *)b.p, counts[i]);
        EXPECT_ERR(frame_decode(b.p, b.n, &m, &n, &off, &raw_n, &err), ERR_DAMAGED, &err);
    }
    le32_put((uint8_t *)b.p, 3);
    le32_put((uint8_t *)b.p + FRAME_HEAD + 32, CODEC_RAW_MAX);
    EXPECT_ERR(frame_decode(b.p, b.n, &m, &n, &off, &raw_n, &err), ERR_DAMAGED, &err);
    buf_release(&b);
    fixture_free(&f);
}

TEST(refs)
{
    static const char *const bad[] = {"", "a b", "a\nb", "\x7f", "\xc3\xa9"};
    const struct digest target = rig_id(3);
    struct digest id, got;
    struct err err = ERR_INIT;
    struct str name;
    struct buf b;
    uint8_t kind;

    buf_init(&b, 1000);
    ref_encode(&target, 2, STR("runs/41"), &b);
    sha256_of("runs/41", 7, &id);
    EXPECT_OK(ref_decode(&id, b.p, b.n, &got, &kind, &name, &err), &err);
    EXPECT(digest_eq(&got, &target));
    EXPECT_EQ(kind, 2);
    EXPECT(str_eq(name, STR("runs/41")));
    EXPECT_ERR(ref_decode(&target, b.p, b.n, &got, &kind, &name, &err), ERR_DAMAGED, &err);
    b.p[33] = 1;
    EXPECT_ERR(ref_decode(&id, b.p, b.n, &got, &kind, &name, &err), ERR_DAMAGED, &err);
    b.p[33] = 0;
    b.p[32] = 3;
    EXPECT_ERR(ref_decode(&id, b.p, b.n, &got, &kind, &name, &err), ERR_DAMAGED, &err);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint8_t p[REF_HEAD + 8] = {0};
        const size_t n = strlen(bad[i]);

        memcpy(p + REF_HEAD, bad[i], n);
        sha256_of(bad[i], n, &id);
        EXPECT_ERR(ref_decode(&id, p, REF_HEAD + n, &got, &kind, &name, &err), ERR_DAMAGED, &err);
    }
    buf_release(&b);
}

RUN(what_is_put_comes_back, a_sealed_pack_is_read_only_and_checked_by_name,
    a_writer_given_up_leaves_nothing, a_finished_pack_is_not_visible_yet, wrong_records_are_refused,
    payloads_larger_than_the_buffer, bypass_and_rest_change_nothing, threads_share_a_writer,
    every_bit_flip_is_found, every_cut_is_found, a_pack_that_shrinks_under_the_reader,
    a_walk_goes_on_after_damage, records_inside_a_payload_are_not_believed,
    hostile_tables_are_refused, toc_from_the_end_of_a_pack, recipes, frames, refs)
