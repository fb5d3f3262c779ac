/* Random sessions against a table of what must be in the store.
 *
 * Each step puts something (blobs, trees, files that are slices, edits and concatenations of earlier ones, so that every way of being
 * known comes up), commits, gives up, or opens the store anew, sometimes as a node.  After every commit the store must be consistent
 * and give back every object that was ever committed. */
#include "store/tree.h"
#include "store/writer_internal.h"
#include "tests/writer_rig.h"

#define CASES 6
#define STEPS 120
#define KNOWN_MAX 400
#define FILE_MAX ((size_t)6 << 20)

struct known {
    struct digest id;
    uint8_t *p;
    size_t n;
    bool committed;
};

struct world {
    struct forge f;
    struct writer *w;
    uint64_t seed;
    struct known known[KNOWN_MAX];
    size_t count;
    bool node;
};

static void remember(struct world *m, const struct digest *id, uint8_t *p, size_t n)
{
    struct digest expected;

    sha256_of(p, n, &expected);
    EXPECT(digest_eq(id, &expected));
    EXPECT(m->count < KNOWN_MAX);
    m->known[m->count++] = (struct known){.id = *id, .p = p, .n = n};
}

/* A new piece of bytes, or something made of earlier ones. */
static uint8_t *make_bytes(struct world *m, size_t max, size_t *n)
{
    const struct known *old = m->count > 0 ? &m->known[gen_below(&m->seed, m->count)] : NULL;
    uint8_t *p;

    switch (old && old->n > 0 ? gen_below(&m->seed, 5) : 4) {
    case 0: /* the same again */
        *n = old->n < max ? old->n : max;
        p = mem_alloc(*n + 1);
        memcpy(p, old->p, *n);
        return p;
    case 1: /* a byte changed */
        *n = old->n < max ? old->n : max;
        p = mem_alloc(*n + 1);
        memcpy(p, old->p, *n);
        p[gen_below(&m->seed, *n)] ^= 1;
        return p;
    case 2: /* some bytes before it */
        *n = old->n + 100 < max ? old->n + 100 : max;
        p = rig_noise(gen_u64(&m->seed), *n);
        memcpy(p + 100, old->p, *n > 100 ? *n - 100 : 0);
        return p;
    case 3: /* text */
        *n = gen_below(&m->seed, max < 300000 ? max : 300000);
        p = mem_zero(1, *n + 1);
        gen_json(&m->seed, (char *)p, *n);
        return p;
    default:
        *n = gen_below(&m->seed, gen_below(&m->seed, 2) ? max : 20000);
        return rig_noise(gen_u64(&m->seed), *n);
    }
}

static void put_blob(struct world *m)
{
    struct digest id;
    size_t n;
    uint8_t *p = make_bytes(m, (size_t)2 << 20, &n);

    EXPECT_OK(writer_put(m->w, OBJ_BLOB, p, n, &id, &m->f.err), &m->f.err);
    remember(m, &id, p, n);
}

static void put_file(struct world *m)
{
    struct digest id;
    size_t n;
    uint8_t *p = make_bytes(m, FILE_MAX, &n);

    rig_write(&m->f, "file", p, n);
    if (gen_below(&m->seed, 4) == 0) {
        char path[RIG_PATH];
        int64_t size;

        rig_path(&m->f, "file", path);
        EXPECT_OK(writer_adopt_file(m->w, AT_FDCWD, path, path, &id, &size, &m->f.err), &m->f.err);
        EXPECT_EQ(size, n);
        EXPECT_EQ(unlink(path), 0); /* the next one must be another file */
    } else {
        EXPECT_OK(rig_put_file(&m->f, m->w, "file", &id, &m->f.err), &m->f.err);
    }
    remember(m, &id, p, n);
}

/* Of objects of this session only: the older ones may be of a session that was given up. */
static void put_tree(struct world *m)
{
    struct digest id;
    struct tree t;
    struct buf b;
    int names = 0;

    tree_init(&t);
    for (size_t i = 0; i < m->count; i++) {
        char name[16];
        const struct tree_entry e = {
            .mode = TREE_FILE,
            .name = {name, (size_t)snprintf(name, sizeof(name), "%d", names)},
            .digest = m->known[i].id,
            .size = (int64_t)m->known[i].n,
        };

        if (!m->known[i].committed && names++ < 50)
            EXPECT_OK(tree_add(&t, &e, 0, &m->f.err), &m->f.err);
    }
    buf_init(&b, 1 << 20);
    EXPECT_OK(tree_encode(&t, &b, &m->f.err), &m->f.err);
    EXPECT_OK(writer_put(m->w, OBJ_TREE, b.p, b.n, &id, &m->f.err), &m->f.err);
    tree_release(&t);

    const size_t n = b.n;

    remember(m, &id, (uint8_t *)buf_take(&b), n);
}

static void open_session(struct world *m)
{
    EXPECT_OK(writer_open(m->f.st, &m->w, &m->f.err), &m->f.err);
    m->w->pack_bytes_max = 3 << 20; /* parts, too */
    m->w->packs_pending_max = 2;
}

static void reopen(struct world *m, bool node)
{
    writer_release(m->w);
    m->w = NULL;
    m->node = node;
    forge_open(&m->f, node ? STORE_NODE : STORE_WRITE);
    open_session(m);
}

static void check_all(struct world *m)
{
    rig_check(&m->f);
    for (size_t i = 0; i < m->count; i++)
        if (m->known[i].committed)
            rig_expect_object(&m->f, &m->known[i].id, m->known[i].p, m->known[i].n);
}

static void commit(struct world *m)
{
    EXPECT_OK(writer_commit(m->w, &m->f.err), &m->f.err);
    claims_check(m->w->ids);
    for (size_t i = 0; i < m->count; i++)
        m->known[i].committed = true;
    if (m->node)
        reopen(m, false);
    EXPECT_EQ(forge_count_names(&m->f, m->f.st->tmp), 0);
    check_all(m);
}

static void give_up(struct world *m)
{
    size_t kept = 0;

    writer_release(m->w);
    m->w = NULL;
    for (size_t i = 0; i < m->count; i++) {
        if (m->known[i].committed)
            m->known[kept++] = m->known[i];
        else
            free(m->known[i].p);
    }
    m->count = kept;
    EXPECT_EQ(forge_count_names(&m->f, m->f.st->tmp), 0);
    open_session(m);
}

static void run_case(uint64_t seed)
{
    struct world *m = mem_zero(1, sizeof(*m));

    print_message("seed %llu\n", (unsigned long long)seed);
    m->seed = seed;
    forge_new(&m->f);
    open_session(m);
    for (int step = 0; step < STEPS && m->count + 2 < KNOWN_MAX; step++) {
        const size_t what = gen_below(&m->seed, 20);

        if (what < 9)
            put_blob(m);
        else if (what < 14)
            put_file(m);
        else if (what < 16)
            put_tree(m);
        else if (what < 17)
            give_up(m);
        else if (what < 18 && m->count > 0)
            commit(m);
        else if (what < 19)
            claims_check(m->w->ids);
        else {
            give_up(m);
            reopen(m, gen_below(&m->seed, 2) == 0);
        }
    }
    commit(m);
    writer_release(m->w);
    for (size_t i = 0; i < m->count; i++)
        free(m->known[i].p);
    forge_free(&m->f);
    free(m);
}

TEST(any_session_stores_what_was_put)
{
    for (uint64_t seed = 1; seed <= CASES; seed++)
        run_case(seed);
}

RUN(any_session_stores_what_was_put)
