/* Merging is commutative, deletion undoes it, and a rebuild agrees: random packs over few ids
 * against a slow model.
 *
 * Cases grow with their number, so the first one that fails is about the smallest; its seed is
 * printed.
 */
#include "tests/index_rig.h"

#define CASES 40
#define PACKS_MAX 14
#define IDS 40
#define INDEXES 3

struct made { /* one pack and what it says, for the model */
    struct digest name;
    bool deleted;
    bool journal; /* has binds or refs: a gc copies those before it deletes a pack, these stay */
    struct place {
        struct digest id;
        struct loc loc;      /* pack: the number of the pack here */
        struct digest loose; /* LOOSE and SLICE: the file */
    } places[400];
    size_t count;
};

struct test_case {
    struct rig r;
    uint64_t seed;
    size_t pack_count;
    struct made packs[PACKS_MAX];
    bool loose_there[IDS];
    struct index *ix;
};

static struct digest small_id(struct test_case *c)
{
    return rig_id(gen_below(&c->seed, IDS));
}

static void note(struct made *m, const struct place *p)
{
    EXPECT(m->count < sizeof(m->places) / sizeof(m->places[0]));
    m->places[m->count++] = *p;
}

static void add_recipe(struct test_case *c, struct pack_writer *w, struct made *m, size_t pack)
{
    const bool loose = gen_below(&c->seed, 2);
    const size_t file = gen_below(&c->seed, IDS);
    struct recipe_chunk chunks[6];
    const size_t n = 2 + file % 5; /* one file, one length */
    struct place p = {.id = rig_id(file),
                      .loose = rig_id(file),
                      .loc = {.type = loose ? LOC_LOOSE : LOC_RECIPE, .pack = (uint32_t)pack}};

    p.loc.off = (uint32_t)pack_writer_bytes(w);
    for (size_t i = 0; i < n; i++)
        chunks[i] = (struct recipe_chunk){small_id(c), 7, HINT_NONE};
    EXPECT_OK(rig_recipe(w, loose ? REC_LOOSE : REC_RECIPE, p.id, chunks, n, &c->r.err), &c->r.err);
    note(m, &p);
    if (!loose)
        return;
    rig_loose_file(&c->r, p.id, 7 * n);
    c->loose_there[file] = true;
    p.loc.type = LOC_SLICE;
    for (size_t i = 0; i < n; i++) {
        p.id = chunks[i].id;
        p.loc.pos = 7 * i;
        note(m, &p);
    }
}

static void add_record(struct test_case *c, struct pack_writer *w, struct made *m, size_t pack)
{
    struct place p = {.id = small_id(c), .loc = {.type = LOC_BLOB, .pack = (uint32_t)pack}};
    char ref[16];
    struct digest ids[5];
    size_t n;

    p.loc.off = (uint32_t)pack_writer_bytes(w);
    switch (gen_below(&c->seed, pack % 3 ? 4 : 6)) {
    case 0:
        EXPECT_OK(rig_blob(w, p.id, "blob", 4, 0, &c->r.err), &c->r.err);
        note(m, &p);
        break;
    case 1:
        n = 1 + gen_below(&c->seed, 5);
        p.loc.type = LOC_FRAME;
        for (size_t i = 0; i < n; i++) {
            ids[i] = p.id = small_id(c);
            p.loc.pos = 10 * i;
            note(m, &p);
        }
        EXPECT_OK(rig_frame(w, ids, n, &c->r.err), &c->r.err);
        break;
    case 4:
        m->journal = true;
        /* The result comes along: an action whose result once was missing at a purge is forgotten,
         * which a rebuild cannot know. */
        ids[0] = rig_id(IDS + gen_below(&c->seed, 3));
        EXPECT_OK(rig_blob(w, ids[0], "result", 6, 0, &c->r.err), &c->r.err);
        EXPECT_OK(rig_bind(w, small_id(c), ids[0], gen_below(&c->seed, 3), &c->r.err), &c->r.err);
        break;
    case 5:
        m->journal = true;
        snprintf(ref, sizeof(ref), "r%u", (unsigned)gen_below(&c->seed, 4));
        EXPECT_OK(rig_ref(w, ref, small_id(c), (uint8_t)gen_below(&c->seed, 3),
                          gen_below(&c->seed, 3), &c->r.err),
                  &c->r.err);
        break;
    default:
        add_recipe(c, w, m, pack);
    }
}

static void make_pack(struct test_case *c, size_t records)
{
    struct pack_writer *w = rig_writer(&c->r);
    struct made *m = &c->packs[c->pack_count];

    *m = (struct made){0};
    for (size_t i = 0; i < records; i++)
        add_record(c, w, m, c->pack_count);
    m->name = rig_seal(&c->r, w);
    c->pack_count++;
}

/* ---- the model ---- */

static bool place_before(const struct test_case *c, const struct place *a, const struct place *b)
{
    const int names = digest_cmp(&c->packs[a->loc.pack].name, &c->packs[b->loc.pack].name);

    if (a->loc.type != b->loc.type)
        return a->loc.type < b->loc.type;
    if (names)
        return names < 0;
    return a->loc.off != b->loc.off ? a->loc.off < b->loc.off : a->loc.pos < b->loc.pos;
}

static const struct place *best_place(const struct test_case *c, struct digest id)
{
    const struct place *best = NULL;

    for (size_t k = 0; k < c->pack_count; k++)
        for (size_t i = 0; i < c->packs[k].count; i++) {
            const struct place *p = &c->packs[k].places[i];
            bool there = true;

            if (c->packs[k].deleted || !digest_eq(&p->id, &id))
                continue;
            if (p->loc.type == LOC_LOOSE || p->loc.type == LOC_SLICE)
                for (uint64_t f = 0; f < IDS; f++) {
                    const struct digest file = rig_id(f);

                    there = there && (!digest_eq(&file, &p->loose) || c->loose_there[f]);
                }
            if (there && (!best || place_before(c, p, best)))
                best = p;
        }
    return best;
}

static void check_model(struct test_case *c, struct index *ix)
{
    for (uint64_t i = 0; i < IDS; i++) {
        const struct place *want = best_place(c, rig_id(i));
        const struct loc got = rig_get(ix, rig_id(i));
        struct pack_row row;

        EXPECT_EQ(got.type, want ? want->loc.type : 0);
        if (!want)
            continue;
        EXPECT_EQ(got.off, want->loc.off);
        EXPECT_EQ(got.pos, want->loc.pos);
        EXPECT_OK(index_pack(ix, got.pack, &row, &c->r.err), &c->r.err);
        EXPECT(digest_eq(&row.name, &c->packs[want->loc.pack].name));
    }
}

/* ---- merging ---- */

static void shuffle(struct test_case *c, struct digest *names, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        const size_t k = gen_below(&c->seed, i);
        const struct digest swap = names[k];

        names[k] = names[i - 1];
        names[i - 1] = swap;
    }
}

/* In any order, in batches of any size, some twice, the rest by sync. */
static void merge_somehow(struct test_case *c, struct index *ix)
{
    struct digest names[PACKS_MAX];
    int64_t merged;

    for (size_t i = 0; i < c->pack_count; i++)
        names[i] = c->packs[i].name;
    shuffle(c, names, c->pack_count);
    for (size_t i = 0; i < c->pack_count;) {
        const size_t left = c->pack_count - i, n = 1 + gen_below(&c->seed, left);

        if (gen_below(&c->seed, 4) == 0) {
            EXPECT_OK(index_sync(ix, c->r.packs, &merged, &c->r.err), &c->r.err);
            return;
        }
        EXPECT_OK(rig_commit(&c->r, ix, names + i, n, &c->r.err), &c->r.err);
        i += gen_below(&c->seed, 3) ? n : 1;
    }
}

static void check_orders(struct test_case *c)
{
    char *first = NULL, *text, dir[TMPDIR_MAX + 16];
    struct index *ix;

    for (int i = 0; i < INDEXES; i++) {
        snprintf(dir, sizeof(dir), "%s/i%d", c->r.path, i);
        EXPECT_EQ(setenv("WEIR_INDEX_BATCH", i == 1 ? "7" : "100000", 1), 0);
        EXPECT_OK(index_open(dir, INDEX_WRITE, &ix, &c->r.err), &c->r.err);
        merge_somehow(c, ix);
        check_model(c, ix);
        text = rig_dump(&c->r, ix);
        if (i == 0) {
            first = text;
            rig_same_as_rebuilt(&c->r, ix);
        } else {
            EXPECT_STR(text, first);
            free(text);
        }
        index_close(ix);
    }
    free(first);
    EXPECT_EQ(unsetenv("WEIR_INDEX_BATCH"), 0);
}

/* ---- deletion and growth ---- */

static size_t pick_packs(struct test_case *c, struct digest *out)
{
    size_t n = 0;

    for (size_t i = 0; i < c->pack_count; i++)
        if (!c->packs[i].deleted && !c->packs[i].journal && gen_below(&c->seed, 2) == 0) {
            c->packs[i].deleted = true;
            out[n++] = c->packs[i].name;
        }
    return n;
}

static size_t pick_loose(struct test_case *c, struct digest *out)
{
    size_t n = 0;

    for (size_t i = 0; i < IDS; i++)
        if (c->loose_there[i] && gen_below(&c->seed, 4) == 0) {
            c->loose_there[i] = false;
            out[n++] = rig_id(i);
        }
    return n;
}

static void check_history(struct test_case *c)
{
    struct digest packs[PACKS_MAX], loose[IDS];
    struct index *ix;

    EXPECT_OK(index_open(c->r.index, INDEX_WRITE, &ix, &c->r.err), &c->r.err);
    merge_somehow(c, ix);
    for (int round = 0; round < 4; round++) {
        const size_t p = pick_packs(c, packs), l = pick_loose(c, loose);

        rig_collect(&c->r, ix, packs, p, loose, l);
        check_model(c, ix);
        rig_same_as_rebuilt(&c->r, ix);
        if (c->pack_count < PACKS_MAX) {
            make_pack(c, 1 + gen_below(&c->seed, 8));
            EXPECT_OK(rig_commit(&c->r, ix, &c->packs[c->pack_count - 1].name, 1, &c->r.err),
                      &c->r.err);
            check_model(c, ix);
            rig_same_as_rebuilt(&c->r, ix);
        }
    }
    index_close(ix);
}

TEST(any_order_gives_the_same_index)
{
    struct test_case *c = calloc(1, sizeof(*c));

    for (uint64_t n = 0; n < CASES; n++) {
        *c = (struct test_case){.seed = 1000 + n};
        print_message("seed %d\n", (int)c->seed);
        rig_new(&c->r);
        for (size_t i = 0; i < 1 + n / 4; i++)
            make_pack(c, 1 + gen_below(&c->seed, 1 + n));
        check_orders(c);
        check_history(c);
        rig_close(&c->r);
    }
    free(c);
}

RUN(any_order_gives_the_same_index)
