/* Every fallible call of writing and reading a pack, failed once: an error, nothing visible,
 * nothing leaked. */
#include "tests/pack_rig.h"

#define BIG (3 << 20) /* past the writer's buffer */

static size_t open_files(void)
{
    struct err err = ERR_INIT;
    size_t n;
    int fd = -1;

    EXPECT_OK(os_open_dir(AT_FDCWD, "/proc/self/fd", &fd, &err), &err);
    n = rig_files(fd);
    os_close_quiet(&fd);
    return n;
}

static enum err_code write_pack(struct rig *r, const void *big, struct digest *name,
                                struct err *err)
{
    struct pack_writer *w;
    enum err_code rc = pack_writer_open(r->objects, &w, err);

    if (!rc)
        rc = rig_put_all_types(w, 100, err);
    if (!rc)
        rc = rig_blob(w, rig_id(1), big, BIG, 0, err);
    if (!rc)
        rc = rig_put_all_types(w, 200, err);
    if (!rc)
        rc = pack_finish(w, err);
    if (!rc)
        rc = pack_seal(w, PACK_SYNC_DIR, name, err);
    pack_writer_release(w);
    return rc;
}

static enum err_code read_pack(struct rig *r, const struct digest *name, struct err *err)
{
    const struct pack_entry *toc;
    struct pack_entry e;
    struct pack *p = NULL;
    struct buf payload;
    uint32_t off = PACK_HEADER_BYTES;
    bool end = false;
    size_t n;
    enum err_code rc = pack_open(r->packs, name, &p, err);

    buf_init(&payload, PACK_PAYLOAD_MAX);
    if (!rc)
        rc = pack_toc(p, &toc, &n, err);
    while (!rc && !end)
        rc = pack_scan(p, &off, &e, &payload, &end, err);
    buf_release(&payload);
    pack_close(p);
    return rc;
}

TEST(writing_a_pack_survives_any_single_fault)
{
    uint8_t *big = calloc(1, BIG);
    bool fired = true;

    for (int nth = 0; fired; nth++) {
        struct err err = ERR_INIT;
        struct digest name;
        struct rig r;

        rig_new(&r);
        const size_t before = open_files();
        fault_arm(nth);
        const enum err_code rc = write_pack(&r, big, &name, &err);
        fired = fault_disarm();
        EXPECT_EQ(open_files(), before);
        if (rc != OK) {
            EXPECT(fired);
            EXPECT_EQ(rc, err.code);
            EXPECT(rc == ERR_IO || rc == ERR_FULL);
            EXPECT(err.text[0]);
        } else {
            EXPECT_EQ(rig_files(r.packs), 1);
        }
        /* Removing the temporary is tried again by the release when it failed after the link. */
        EXPECT_EQ(rig_files(r.tmp), 0);
        /* A name in packs/ is a whole pack, whatever was answered. */
        struct os_entry *entries;
        size_t n;
        EXPECT_OK(os_list(r.packs, &entries, &n, &err), &err);
        for (size_t i = 0; i < n; i++) {
            EXPECT_OK(digest_parse(entries[i].name, strlen(entries[i].name), &name, &err), &err);
            EXPECT_OK(read_pack(&r, &name, &err), &err);
        }
        free(entries);
        rig_close(&r);
    }
    free(big);
}

TEST(reading_a_pack_survives_any_single_fault)
{
    uint8_t *big = calloc(1, BIG);
    struct err err = ERR_INIT;
    struct digest name;
    bool fired = true;
    struct rig r;

    rig_new(&r);
    EXPECT_OK(write_pack(&r, big, &name, &err), &err);
    const size_t before = open_files();
    for (int nth = 0; fired; nth++) {
        fault_arm(nth);
        const enum err_code rc = read_pack(&r, &name, &err);
        fired = fault_disarm();
        EXPECT_EQ(fired, rc != OK);
        EXPECT_EQ(open_files(), before);
    }
    EXPECT_OK(read_pack(&r, &name, &err), &err);
    rig_close(&r);
    free(big);
}

RUN(writing_a_pack_survives_any_single_fault, reading_a_pack_survives_any_single_fault)
