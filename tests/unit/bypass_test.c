/* Packs written past the page cache are like all others. */
#include "tests/pack_rig.h"

enum way { WAY_PLAIN, WAY_BYPASS, WAY_BYPASS_LATE, WAY_REST, WAY_BYPASS_REST, WAY_COUNT };

/* Around pages, around both buffers. */
static const size_t sizes[] = {
    0,       1,        4095,    4096, 4097,  16,   100000,   1 << 20,           4 << 20,
    3000001, 12345678, 8 << 20, 77,   65536, 4016, 16777216, (4 << 20) - 80 * 3};
#define RECORDS (sizeof(sizes) / sizeof(sizes[0]))

static uint8_t *bytes_of(size_t i)
{
    uint64_t seed = 50 + i;
    uint8_t *p = mem_alloc(sizes[i] + 1);

    gen_noise(&seed, p, sizes[i]);
    return p;
}

static void write_pack(struct rig *r, enum way way, struct digest *name)
{
    struct pack_writer *w;

    EXPECT_OK(pack_writer_open(r->objects, &w, &r->err), &r->err);
    if (way == WAY_BYPASS || way == WAY_BYPASS_REST)
        pack_writer_bypass(w);
    for (size_t i = 0; i < RECORDS; i++) {
        uint8_t *p = bytes_of(i);

        if (way == WAY_BYPASS_LATE && i == 3)
            pack_writer_bypass(w); /* only some bytes in the buffer yet */
        if (way == WAY_BYPASS_LATE && i == 12)
            pack_writer_bypass(w); /* too late for anything: no effect */
        if ((way == WAY_REST || way == WAY_BYPASS_REST) && (i == 6 || i == 11))
            EXPECT_OK(pack_writer_rest(w, &r->err), &r->err);
        EXPECT_OK(rig_blob(w, rig_id(i), p, sizes[i], 0, &r->err), &r->err);
        free(p);
    }
    EXPECT_OK(pack_seal(w, PACK_SYNC_DIR, name, &r->err), &r->err);
    pack_writer_release(w);
    EXPECT_EQ(rig_files(r->tmp), 0);
}

static void expect_pack(struct rig *r, const struct digest *name)
{
    const struct pack_entry *toc;
    struct pack *pack = NULL;
    struct buf payload;
    size_t count;

    buf_init(&payload, PACK_PAYLOAD_MAX);
    EXPECT_OK(pack_open(r->packs, name, &pack, &r->err), &r->err);
    EXPECT_OK(pack_toc(pack, &toc, &count, &r->err), &r->err);
    EXPECT_EQ(count, RECORDS);
    for (size_t i = 0; i < RECORDS; i++) {
        const struct digest id = rig_id(i);
        uint8_t *p = bytes_of(i);

        for (size_t k = 0; k < count; k++) {
            struct pack_entry e;

            if (!digest_eq(&toc[k].id, &id))
                continue;
            buf_clear(&payload);
            EXPECT_OK(pack_read(pack, toc[k].off, &e, &payload, &r->err), &r->err);
            EXPECT_EQ(payload.n, sizes[i]);
            if (sizes[i] > 0)
                EXPECT_MEM(payload.p, p, sizes[i]);
        }
        free(p);
    }
    pack_close(pack);
    buf_release(&payload);
}

TEST(every_way_of_writing_gives_the_same_records)
{
    int64_t first = 0;

    for (int way = 0; way < WAY_COUNT; way++) {
        char hex[DIGEST_HEX + 1];
        struct digest name;
        struct stat st;
        struct rig r;

        rig_new(&r);
        write_pack(&r, (enum way)way, &name);
        expect_pack(&r, &name);
        digest_hex(&name, hex);
        EXPECT_OK(os_stat_at(r.packs, hex, &st, &r.err), &r.err);
        if (way == 0)
            first = st.st_size;
        EXPECT_EQ(st.st_size, first);
        rig_close(&r);
    }
}

TEST(giving_up_leaves_nothing)
{
    struct pack_writer *w;
    struct rig r;

    rig_new(&r);
    EXPECT_OK(pack_writer_open(r.objects, &w, &r.err), &r.err);
    pack_writer_bypass(w);
    EXPECT_OK(rig_blob(w, rig_id(1), "abc", 3, 0, &r.err), &r.err);
    pack_writer_release(w);
    EXPECT_EQ(rig_files(r.tmp), 0);
    /* A sealed pack neither rests nor changes its way. */
    EXPECT_OK(pack_writer_open(r.objects, &w, &r.err), &r.err);
    EXPECT_OK(rig_blob(w, rig_id(1), "abc", 3, 0, &r.err), &r.err);

    struct digest name;

    EXPECT_OK(pack_seal(w, PACK_SYNC_DIR, &name, &r.err), &r.err);
    pack_writer_bypass(w);
    EXPECT_ERR(pack_writer_rest(w, &r.err), ERR_BUG, &r.err);
    pack_writer_release(w);
    rig_close(&r);
}

TEST(any_failed_call_gives_the_pack_up)
{
    bool fired = true;

    for (int nth = 0; fired; nth++) {
        struct err err = ERR_INIT;
        struct pack_writer *w = NULL;
        struct digest name;
        enum err_code rc;
        struct rig r;

        rig_new(&r);
        fault_arm(nth);
        rc = pack_writer_open(r.objects, &w, &err);
        if (!rc)
            pack_writer_bypass(w);
        for (size_t i = 6; !rc && i < 10; i++) {
            uint8_t *p = bytes_of(i);

            rc = rig_blob(w, rig_id(i), p, sizes[i], 0, &err);
            free(p);
        }
        if (!rc)
            rc = pack_writer_rest(w, &err);
        if (!rc)
            rc = rig_blob(w, rig_id(1), "x", 1, 0, &err);
        if (!rc)
            rc = pack_seal(w, PACK_SYNC_DIR, &name, &err);
        fired = fault_disarm();
        EXPECT(fired || !rc);
        pack_writer_release(w);
        EXPECT_EQ(rc, err.code);
        if (rc == ERR_FULL)
            EXPECT_EQ(rig_files(r.packs), 0);
        rig_close(&r);
    }
}

RUN(every_way_of_writing_gives_the_same_records, giving_up_leaves_nothing,
    any_failed_call_gives_the_pack_up)
