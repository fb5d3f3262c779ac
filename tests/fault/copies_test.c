/* A remote that has everything twice: whatever is damaged of one copy, a pull takes the other and says nothing; what is damaged in both
 * is refused, and nothing of it is kept. */
#include "store/pack_internal.h"
#include "tests/transfer_world.h"

#define PACKS_MAX 16
#define RECORDS_MAX 4096

struct scene {
    struct world w;
    struct digest root;
    char packs[PACKS_MAX][WORLD_PATH + 128];
    size_t pack_count, own; /* the first own are of the one push, the others of the other */
};

/* The packs of remote dir from, moved to the remote of the scene. */
static void move_packs(struct scene *s, const char *from)
{
    struct world other = {.err = ERR_INIT};

    snprintf(other.remote, WORLD_PATH, "%s", from);
    for (;;) {
        char path[WORLD_PATH + 128], *to = s->packs[s->pack_count];

        if (!world_pack(&other, 0, path))
            break;
        EXPECT(s->pack_count < PACKS_MAX);
        snprintf(to, WORLD_PATH + 128, "%s/packs%s", s->w.remote, strrchr(path, '/'));
        EXPECT_EQ(rename(path, to), 0);
        s->pack_count++;
    }
}

/* A store that never knew of the first push pushes the same. */
static void scene_new(struct scene *s)
{
    char far[WORLD_PATH + 16];
    const char *ref = "data";
    const struct transfer_options o = {.refs = &ref, .ref_count = 1};
    struct world *w = &s->w;

    *s = (struct scene){0};
    world_new(w);
    world_fill(w);
    s->root = world_add(w, w->a, "data");
    snprintf(far, sizeof(far), "%s/far", w->dir);
    EXPECT_OK(store_push(w->a, far, &o, &w->report, &w->err), &w->err);
    snprintf(far, sizeof(far), "%s/packs", w->remote);
    EXPECT_OK(os_mkdirs(far, 0755, &w->err), &w->err);
    snprintf(far, sizeof(far), "%s/far", w->dir);
    move_packs(s, far);
    s->own = s->pack_count;
    (void)world_add(w, w->b, "data");
    snprintf(far, sizeof(far), "%s/further", w->dir);
    EXPECT_OK(store_push(w->b, far, &o, &w->report, &w->err), &w->err);
    move_packs(s, far);
    EXPECT(s->own > 0 && s->pack_count > s->own);
}

/* Flips a bit in the payload of each object that path holds; doing it twice heals it.  Returns how many. */
static size_t damage(struct scene *s, const char *path)
{
    struct pack_entry *toc = mem_alloc(RECORDS_MAX * sizeof(*toc));
    const struct pack_entry *entries;
    struct pack *pack = NULL;
    struct digest name;
    char dir_path[WORLD_PATH + 16];
    size_t count, n = 0;
    int dir = -1, fd = -1;

    snprintf(dir_path, sizeof(dir_path), "%s/packs", s->w.remote);
    EXPECT_OK(os_open_dir(AT_FDCWD, dir_path, &dir, &s->w.err), &s->w.err);
    EXPECT_OK(digest_parse(strrchr(path, '/') + 1, DIGEST_HEX, &name, &s->w.err), &s->w.err);
    EXPECT_OK(pack_open(dir, &name, &pack, &s->w.err), &s->w.err);
    EXPECT_OK(pack_toc(pack, &entries, &count, &s->w.err), &s->w.err);
    EXPECT(count <= RECORDS_MAX);
    memcpy(toc, entries, count * sizeof(*toc));
    pack_close(pack);
    os_close_quiet(&dir);
    EXPECT_EQ(chmod(path, 0644), 0);
    EXPECT_OK(os_open(AT_FDCWD, path, O_RDWR, 0, &fd, &s->w.err), &s->w.err);
    for (size_t i = 0; i < count; i++) {
        const int64_t at = (int64_t)toc[i].off + PACK_RECORD_HEADER + toc[i].stored / 2;
        bool seen = false;
        uint8_t byte;

        for (size_t k = 0; k < i; k++)
            seen |= toc[k].off == toc[i].off; /* a frame has an entry for each member */
        if (seen || toc[i].stored == 0 || toc[i].type == REC_REF || toc[i].type == REC_BIND)
            continue;
        EXPECT_OK(os_pread_all(fd, &byte, 1, at, &s->w.err), &s->w.err);
        byte ^= 4;
        EXPECT_OK(os_pwrite(fd, &byte, 1, at, &s->w.err), &s->w.err);
        n++;
    }
    os_close_quiet(&fd);
    free(toc);
    return n;
}

static void damage_all_of(struct scene *s, size_t from, size_t to)
{
    size_t n = 0;

    for (size_t i = from; i < to; i++)
        n += damage(s, s->packs[i]);
    EXPECT(n > 3);
}

static void expect_pull(struct scene *s)
{
    world_fresh_b(&s->w);
    EXPECT_OK(world_pull(&s->w, s->w.b, NULL), &s->w.err);
    world_expect_whole(&s->w, s->w.b, "data", &s->root);
}

TEST(one_good_copy_is_enough)
{
    struct scene s;

    scene_new(&s);
    expect_pull(&s);
    damage_all_of(&s, 0, s.own);
    expect_pull(&s);
    damage_all_of(&s, 0, s.own);
    damage_all_of(&s, s.own, s.pack_count);
    expect_pull(&s);
    world_free(&s.w);
}

TEST(no_good_copy_is_refused)
{
    struct scene s;

    scene_new(&s);
    damage_all_of(&s, 0, s.pack_count);
    world_fresh_b(&s.w);
    EXPECT_ERR(world_pull(&s.w, s.w.b, NULL), ERR_DAMAGED, &s.w.err);
    EXPECT(strstr(s.w.err.text, "remote"));
    s.w.err = (struct err)ERR_INIT;
    EXPECT(!world_ref(&s.w, s.w.b, "data", NULL));
    s.w.err = (struct err)ERR_INIT;
    EXPECT_OK(store_check(s.w.b, &s.w.err), &s.w.err);
    world_free(&s.w);
}

RUN(one_good_copy_is_enough, no_good_copy_is_refused)
