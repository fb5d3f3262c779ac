/* Remotes that lie, are cut short, or were written by something else: refused with the pack and the object named, nothing kept. */
#include "tests/transfer_world.h"

/* A remote whose packs the test lays out itself. */
struct liar {
    struct world w;
    struct pack_writer *pack;
    int dir;
    struct digest name; /* of the last pack */
};

static void liar_new(struct liar *l)
{
    char path[WORLD_PATH + 16];

    world_new(&l->w);
    l->pack = NULL;
    snprintf(path, sizeof(path), "%s/packs", l->w.remote);
    EXPECT_OK(os_mkdirs(path, 0755, &l->w.err), &l->w.err);
    snprintf(path, sizeof(path), "%s/tmp", l->w.remote);
    EXPECT_OK(os_mkdirs(path, 0755, &l->w.err), &l->w.err);
    EXPECT_OK(os_open_dir(AT_FDCWD, l->w.remote, &l->dir, &l->w.err), &l->w.err);
    EXPECT_OK(pack_writer_open(l->dir, &l->pack, &l->w.err), &l->w.err);
}

static void liar_free(struct liar *l)
{
    pack_writer_release(l->pack);
    os_close_quiet(&l->dir);
    world_free(&l->w);
}

static struct digest id_of(const void *p, size_t n)
{
    struct digest d;

    sha256_of(p, n, &d);
    return d;
}

static void put(struct liar *l, enum rec_type type, const struct digest *id, uint64_t raw,
                const void *p, size_t n)
{
    struct pack_entry e = {.type = (uint8_t)type, .id = *id, .raw = raw, .stamp = 5};

    EXPECT_OK(pack_put(l->pack, &e, p, n, &l->w.err), &l->w.err);
}

static struct digest put_blob(struct liar *l, const char *text)
{
    const struct digest id = id_of(text, strlen(text));

    put(l, REC_BLOB, &id, strlen(text), text, strlen(text));
    return id;
}

static void put_ref(struct liar *l, const char *name, const struct digest *target,
                    enum obj_kind kind)
{
    const struct digest id = id_of(name, strlen(name));
    const char head[8] = {(char)kind};
    struct buf payload;

    buf_init(&payload, 4096); /* not by ref_encode, which refuses what no ref may be called */
    buf_add(&payload, target->b, DIGEST_BYTES);
    buf_add(&payload, head, sizeof(head));
    buf_str(&payload, name);
    put(l, REC_REF, &id, payload.n, payload.p, payload.n);
    buf_release(&payload);
}

static void seal(struct liar *l)
{
    EXPECT_OK(pack_seal(l->pack, PACK_SYNC_DIR, &l->name, &l->w.err), &l->w.err);
    pack_writer_release(l->pack);
    l->pack = NULL;
}

/* The pull fails with code, says why, names what; and b is as if nothing had been tried. */
static void expect_refused(struct world *w, enum err_code code, const char *why, const char *what)
{
    struct index_stat before, after;
    char tmp[WORLD_PATH + 64];
    struct os_entry *entries = NULL;
    size_t n = 0;
    int fd = -1;

    EXPECT_OK(index_stat(w->b->index, &before, &w->err), &w->err);
    EXPECT_ERR(world_pull(w, w->b, NULL), code, &w->err);
    if (!strstr(w->err.text, why) || !strstr(w->err.text, what))
        print_message("%s\n", w->err.text);
    EXPECT(strstr(w->err.text, why));
    EXPECT(strstr(w->err.text, what));
    EXPECT_OK(index_stat(w->b->index, &after, &w->err), &w->err);
    EXPECT_EQ(before.objects, after.objects);
    EXPECT_EQ(before.refs, after.refs);
    EXPECT_EQ(before.packs, after.packs);
    snprintf(tmp, sizeof(tmp), "%s/objects/tmp", w->b->root);
    EXPECT_OK(os_open_dir(AT_FDCWD, tmp, &fd, &w->err), &w->err);
    EXPECT_OK(os_list(fd, &entries, &n, &w->err), &w->err);
    EXPECT_EQ(n, 0);
    free(entries);
    os_close_quiet(&fd);
    EXPECT_OK(store_check(w->b, &w->err), &w->err);
}

static void expect_refused_here(struct liar *l, enum err_code code, const char *why,
                                const struct digest *object)
{
    char hex[DIGEST_HEX + 1];

    seal(l);
    digest_hex(object ? object : &l->name, hex);
    expect_refused(&l->w, code, why, hex);
}

/* ---- objects that are not what they say -------------------------------------------------------- */

TEST(other_bytes_under_a_name)
{
    struct liar l;
    const struct digest id = id_of("promised", 8);

    liar_new(&l);
    (void)put_blob(&l, "an honest one");
    put(&l, REC_BLOB, &id, 9, "delivered", 9);
    put_ref(&l, "x", &id, OBJ_BLOB);
    expect_refused_here(&l, ERR_DAMAGED, "other bytes", &id);
    liar_free(&l);
}

TEST(other_bytes_in_a_frame)
{
    struct liar l;
    struct codec *codec = NULL;
    struct buf packed;
    const struct digest id = id_of("promised", 8);
    const struct frame_member members[2] = {{.id = id_of("good", 4), .len = 4},
                                            {.id = id, .len = 8}};

    liar_new(&l);
    buf_init(&packed, 4096);
    EXPECT_OK(codec_new(&codec, &l.w.err), &l.w.err);
    EXPECT_OK(codec_encode(codec, ENC_ZSTD, 1, "goodbadbytes", 12, &packed, &l.w.err), &l.w.err);
    EXPECT_OK(pack_put_frame(l.pack, members, 2, packed.p, packed.n, 12, NULL, &l.w.err), &l.w.err);
    put_ref(&l, "a", &members[0].id, OBJ_BLOB);
    put_ref(&l, "b", &id, OBJ_BLOB);
    expect_refused_here(&l, ERR_DAMAGED, "other bytes", &id);
    codec_free(codec);
    buf_release(&packed);
    liar_free(&l);
}

TEST(a_frame_that_does_not_decode)
{
    struct liar l;
    const struct digest id = id_of("promised", 8);
    const struct frame_member member = {.id = id, .len = 8};

    liar_new(&l);
    EXPECT_OK(pack_put_frame(l.pack, &member, 1, "no zstd at all", 14, 8, NULL, &l.w.err),
              &l.w.err);
    put_ref(&l, "a", &id, OBJ_BLOB);
    expect_refused_here(&l, ERR_DAMAGED, "frame", NULL);
    liar_free(&l);
}

static void put_recipe(struct liar *l, const struct digest *id, const struct recipe_chunk *chunks,
                       size_t count)
{
    uint64_t raw = 0;
    struct buf payload;

    buf_init(&payload, 4096);
    for (size_t i = 0; i < count; i++)
        raw += chunks[i].len;
    recipe_encode(id, chunks, count, &payload);
    put(l, REC_RECIPE, id, raw, payload.p, payload.n);
    buf_release(&payload);
}

/* The chunks are honest, so they may stay; but no name may lead to them. */
TEST(chunks_that_make_up_something_else)
{
    struct liar l;
    const struct digest id = id_of("one and two", 11);
    struct recipe_chunk chunks[2] = {{.len = 4}, {.len = 4}};
    struct loc loc;
    char hex[DIGEST_HEX + 1];

    liar_new(&l);
    chunks[0].id = put_blob(&l, "one ");
    chunks[1].id = put_blob(&l, "two.");
    put_recipe(&l, &id, chunks, 2);
    put_ref(&l, "x", &id, OBJ_BLOB);
    seal(&l);
    EXPECT_ERR(world_pull(&l.w, l.w.b, NULL), ERR_DAMAGED, &l.w.err);
    digest_hex(&id, hex);
    EXPECT(strstr(l.w.err.text, hex));
    EXPECT(!world_ref(&l.w, l.w.b, "x", NULL));
    EXPECT_OK(index_get(l.w.b->index, &id, 1, &loc, &l.w.err), &l.w.err);
    EXPECT_EQ(loc.type, 0);
    EXPECT_OK(store_check(l.w.b, &l.w.err), &l.w.err);
    liar_free(&l);
}

TEST(a_chunk_of_another_length)
{
    struct liar l;
    const struct digest id = id_of("one two!", 8);
    struct recipe_chunk chunks[2] = {{.len = 5}, {.len = 4}};

    liar_new(&l);
    chunks[0].id = put_blob(&l, "one ");
    chunks[1].id = put_blob(&l, "two!");
    put_recipe(&l, &id, chunks, 2);
    put_ref(&l, "x", &id, OBJ_BLOB);
    seal(&l);
    EXPECT_ERR(world_pull(&l.w, l.w.b, NULL), ERR_DAMAGED, &l.w.err);
    EXPECT(!world_ref(&l.w, l.w.b, "x", NULL));
    liar_free(&l);
}

/* A recipe inside a recipe is odd, but honest. */
TEST(a_recipe_of_recipes_is_followed)
{
    struct liar l;
    const struct digest inner = id_of("one two", 7), outer = id_of("one two three", 13);
    struct recipe_chunk one_two[2] = {{.len = 4}, {.len = 3}}, three[2] = {{.len = 7}, {.len = 6}};
    struct buf text;

    liar_new(&l);
    one_two[0].id = put_blob(&l, "one ");
    one_two[1].id = put_blob(&l, "two");
    three[0].id = inner;
    three[1].id = put_blob(&l, " three");
    put_recipe(&l, &inner, one_two, 2);
    put_recipe(&l, &outer, three, 2);
    put_ref(&l, "x", &outer, OBJ_BLOB);
    seal(&l);
    EXPECT_OK(world_pull(&l.w, l.w.b, NULL), &l.w.err);
    buf_init(&text, 64);
    EXPECT_OK(object_read(l.w.b, &outer, 64, &text, &l.w.err), &l.w.err);
    EXPECT_STR(text.p, "one two three");
    buf_release(&text);
    liar_free(&l);
}

TEST(a_recipe_of_itself)
{
    struct liar l;
    const struct digest id = id_of("loop", 4);
    const struct recipe_chunk chunk = {.id = id, .len = 4};

    liar_new(&l);
    put_recipe(&l, &id, &chunk, 1);
    put_ref(&l, "x", &id, OBJ_BLOB);
    seal(&l);
    EXPECT(world_pull(&l.w, l.w.b, NULL) != OK);
    EXPECT(!world_ref(&l.w, l.w.b, "x", NULL));
    EXPECT_OK(store_check(l.w.b, &l.w.err), &l.w.err);
    liar_free(&l);
}

/* ---- trees ------------------------------------------------------------------------------------- */

TEST(trees_that_reach_out)
{
    static const char digest[] =
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    static const char *const entries[] = {
        "{\"digest\":\"%s\",\"mode\":\"file\",\"name\":\"../evil\",\"size\":0}",
        "{\"digest\":\"%s\",\"mode\":\"file\",\"name\":\"..\",\"size\":0}",
        "{\"digest\":\"%s\",\"mode\":\"file\",\"name\":\"\",\"size\":0}",
        "{\"digest\":\"%s\",\"mode\":\"device\",\"name\":\"a\",\"size\":0}",
        "{\"mode\":\"link\",\"name\":\"l\",\"target\":\"../../etc/passwd\"}",
        "{\"mode\":\"link\",\"name\":\"l\",\"target\":\"/etc/passwd\"}",
        "nonsense",
    };

    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        struct liar l;
        struct buf text;
        struct digest id;
        const char *percent = strstr(entries[i], "%s");

        liar_new(&l);
        (void)put_blob(&l, "");
        buf_init(&text, 4096);
        buf_str(&text, "{\"entries\":[");
        buf_add(&text, entries[i], percent ? (size_t)(percent - entries[i]) : strlen(entries[i]));
        if (percent) {
            buf_str(&text, digest);
            buf_str(&text, percent + 2);
        }
        buf_str(&text, "],\"weir\":\"tree/1\"}");
        id = id_of(text.p, text.n);
        put(&l, REC_BLOB, &id, text.n, text.p, text.n);
        put_ref(&l, "x", &id, OBJ_TREE);
        expect_refused_here(&l, ERR_DAMAGED, "tree", &id);
        buf_release(&text);
        liar_free(&l);
    }
}

TEST(a_tree_without_end)
{
    struct liar l;
    struct digest id;
    struct buf text;

    liar_new(&l);
    buf_init(&text, 4096);
    buf_str(&text, "{\"entries\":[],\"weir\":\"tree/1\"}");
    for (int depth = 0; depth < TREE_DEPTH_MAX + 2; depth++) {
        char child[DIGEST_TEXT + 1];
        const size_t n = text.n;

        id = id_of(text.p, text.n);
        put(&l, REC_BLOB, &id, text.n, text.p, text.n);
        digest_text(&id, child);
        buf_clear(&text);
        buf_printf(
            &text,
            "{\"entries\":[{\"digest\":\"%s\",\"mode\":\"dir\",\"name\":\"d\",\"size\":%zu}],"
            "\"weir\":\"tree/1\"}",
            child, n);
    }
    put_ref(&l, "x", &id, OBJ_TREE);
    seal(&l);
    expect_refused(&l.w, ERR_LIMIT, "nested", "256");
    buf_release(&text);
    liar_free(&l);
}

TEST(what_is_not_there_is_named)
{
    struct liar l;
    const struct digest id = id_of("nowhere", 7);
    char hex[DIGEST_HEX + 1];

    liar_new(&l);
    put_ref(&l, "runs/7", &id, OBJ_BLOB);
    seal(&l);
    digest_hex(&id, hex);
    expect_refused(&l.w, ERR_NOT_FOUND, hex, "runs/7");
    liar_free(&l);
}

/* The folder of a live store: its loose files are not in packs. */
TEST(a_loose_file_is_not_in_a_pack)
{
    struct liar l;
    const struct digest id = id_of("elsewhere", 9);

    liar_new(&l);
    put(&l, REC_LOOSE, &id, 2 << 20, "", 0);
    put_ref(&l, "x", &id, OBJ_BLOB);
    expect_refused_here(&l, ERR_NOT_FOUND, "a store's own", &id);
    liar_free(&l);
}

/* ---- refs -------------------------------------------------------------------------------------- */

TEST(names_that_no_ref_has)
{
    static const char *const names[] = {"../../etc/passwd", "/abs", "a b", "tab\there", "end/"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct liar l;
        const struct digest blob = id_of("x", 1);

        liar_new(&l);
        (void)put_blob(&l, "x");
        put_ref(&l, names[i], &blob, OBJ_BLOB);
        expect_refused_here(&l, ERR_DAMAGED, "name", NULL);
        liar_free(&l);
    }
}

/* ---- packs ------------------------------------------------------------------------------------- */

static void honest(struct liar *l, char path[WORLD_PATH + 128])
{
    struct digest id;

    liar_new(l);
    id = put_blob(l, "some text that is long enough to be hit");
    put_ref(l, "x", &id, OBJ_BLOB);
    seal(l);
    EXPECT(world_pack(&l->w, 0, path));
    EXPECT_EQ(chmod(path, 0644), 0);
}

TEST(packs_that_were_cut_short)
{
    struct liar l;
    char path[WORLD_PATH + 128], hex[DIGEST_HEX + 1];
    struct stat info;

    honest(&l, path);
    digest_hex(&l.name, hex);
    EXPECT_EQ(stat(path, &info), 0);
    for (off_t n = info.st_size - 1; n >= 0; n -= n > 8 ? 7 : 1) {
        EXPECT_EQ(truncate(path, n), 0);
        expect_refused(&l.w, ERR_DAMAGED, hex, "remote");
    }
    liar_free(&l);
}

/* Any flipped bit is found: by the name, which covers the table, or by the checksum in the table; one in a record's header does not
 * matter, since everything in it stands in the table too, and the head says only which format it is. */
TEST(packs_with_a_flipped_bit)
{
    struct liar l;
    char path[WORLD_PATH + 128];
    uint8_t bytes[4096];
    ssize_t n;
    int fd, refused = 0;

    honest(&l, path);
    fd = open(path, O_RDWR);
    n = read(fd, bytes, sizeof(bytes));
    EXPECT(n > 0);
    EXPECT(n < (ssize_t)sizeof(bytes));
    for (ssize_t i = 0; i < n; i++) {
        const uint8_t flipped = bytes[i] ^ (uint8_t)(1u << (i % 8));

        EXPECT_EQ(pwrite(fd, &flipped, 1, i), 1);
        if (world_pull(&l.w, l.w.b, NULL) == OK) {
            EXPECT(i < PACK_HEADER_BYTES + 2 * PACK_RECORD_HEADER + 128);
            world_fresh_b(&l.w);
        } else {
            refused++;
            EXPECT(l.w.err.code == ERR_DAMAGED || l.w.err.code == ERR_VERSION);
            EXPECT(!world_ref(&l.w, l.w.b, "x", NULL));
        }
        EXPECT_EQ(pwrite(fd, &bytes[i], 1, i), 1);
    }
    EXPECT(refused > n - PACK_HEADER_BYTES - 2 * PACK_RECORD_HEADER - 2);
    EXPECT_OK(world_pull(&l.w, l.w.b, NULL), &l.w.err);
    close(fd);
    liar_free(&l);
}

TEST(a_pack_under_another_name)
{
    struct liar l;
    char path[WORLD_PATH + 128], other[WORLD_PATH + 128];

    honest(&l, path);
    memcpy(other, path, sizeof(other));
    memset(other + strlen(other) - 8, 'a', 8);
    EXPECT_EQ(rename(path, other), 0);
    expect_refused(&l.w, ERR_DAMAGED, "does not match", strrchr(other, '/') + 1);
    liar_free(&l);
}

TEST(a_pack_of_a_newer_weir)
{
    struct liar l;
    char path[WORLD_PATH + 128], hex[DIGEST_HEX + 1];
    int fd;

    honest(&l, path);
    fd = open(path, O_RDWR);
    EXPECT_EQ(pwrite(fd, "\2", 1, 8), 1);
    close(fd);
    digest_hex(&l.name, hex);
    expect_refused(&l.w, ERR_VERSION, "newer weir", hex);
    liar_free(&l);
}

TEST(other_files_are_let_be)
{
    struct liar l;
    char path[WORLD_PATH + 128], other[WORLD_PATH + 160];

    honest(&l, path);
    snprintf(other, sizeof(other), "%s.partial", path);
    close(open(other, O_CREAT | O_WRONLY, 0644));
    EXPECT_OK(world_pull(&l.w, l.w.b, NULL), &l.w.err);
    EXPECT(world_ref(&l.w, l.w.b, "x", NULL));
    liar_free(&l);
}

/* ---- tables that are remembered ---------------------------------------------------------------- */

TEST(a_damaged_memory_is_no_memory)
{
    struct liar l;
    char pack[WORLD_PATH + 128], path[WORLD_PATH + 256], hex[DIGEST_HEX + 1];
    struct os_entry *entries = NULL;
    size_t n = 0;
    int fd = -1;

    honest(&l, pack);
    EXPECT_OK(world_pull(&l.w, l.w.b, NULL), &l.w.err);
    const int64_t first = l.w.report.bytes_moved;

    EXPECT_OK(world_pull(&l.w, l.w.b, NULL), &l.w.err);
    const int64_t second = l.w.report.bytes_moved;

    EXPECT(second < first);
    snprintf(path, sizeof(path), "%s/remotes", l.w.b->root);
    EXPECT_OK(os_open_dir(AT_FDCWD, path, &fd, &l.w.err), &l.w.err);
    EXPECT_OK(os_list(fd, &entries, &n, &l.w.err), &l.w.err);
    EXPECT_EQ(n, 1);
    digest_hex(&l.name, hex);
    snprintf(path, sizeof(path), "%s/remotes/%s/%s.toc", l.w.b->root, entries[0].name, hex);
    free(entries);
    os_close_quiet(&fd);
    fd = open(path, O_RDWR);
    EXPECT(fd >= 0);
    EXPECT_EQ(pwrite(fd, "XXXX", 4, 20), 4);
    close(fd);
    EXPECT_OK(world_pull(&l.w, l.w.b, NULL), &l.w.err);
    EXPECT(l.w.report.bytes_moved > second);
    EXPECT_OK(world_pull(&l.w, l.w.b, NULL), &l.w.err);
    EXPECT_EQ(l.w.report.bytes_moved, second);
    /* What is remembered does not hide that the pack was cut since. */
    EXPECT_EQ(truncate(pack, 200), 0);
    EXPECT_ERR(world_pull(&l.w, l.w.b, NULL), ERR_DAMAGED, &l.w.err);
    liar_free(&l);
}

RUN(other_bytes_under_a_name, other_bytes_in_a_frame, a_frame_that_does_not_decode,
    chunks_that_make_up_something_else, a_chunk_of_another_length, a_recipe_of_recipes_is_followed,
    a_recipe_of_itself, trees_that_reach_out, a_tree_without_end, what_is_not_there_is_named,
    a_loose_file_is_not_in_a_pack, names_that_no_ref_has, packs_that_were_cut_short,
    packs_with_a_flipped_bit, a_pack_under_another_name, a_pack_of_a_newer_weir,
    other_files_are_let_be, a_damaged_memory_is_no_memory)
