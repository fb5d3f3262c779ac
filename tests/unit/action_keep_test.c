/* Looking up many results at once, knowing that nothing has gone since, and keeping them. */
#include "store/action.h"
#include "store/gc.h"
#include "tests/store_life.h"

#define MINUTE_NS INT64_C(60000000000)

static uint64_t epoch_of(struct forge *f)
{
    uint64_t epoch = 0;

    EXPECT_OK(store_removal_epoch(f->st, &epoch, &f->err), &f->err);
    return epoch;
}

/* A tree over one blob, bound to keys[i], in one pack of their own. */
static void make_results(struct forge *f, int first, int n, struct digest *keys,
                         struct digest *results, struct digest *parts)
{
    forge_begin(f);
    for (int i = 0; i < n; i++) {
        const int number = first + i;
        struct tree t;

        keys[i] = (struct digest){.b = {7, (uint8_t)(number >> 8), (uint8_t)number}};
        parts[i] = forge_blob(f, ENC_RAW, 0, &number, sizeof(number));
        tree_init(&t);
        EXPECT_OK(tree_add(&t,
                           &(struct tree_entry){.mode = TREE_FILE,
                                                .name = STR("x"),
                                                .digest = parts[i],
                                                .size = sizeof(number)},
                           0, &f->err),
                  &f->err);
        results[i] = forge_tree(f, &t, NULL);
        forge_bind(f, &keys[i], &results[i]);
    }
    forge_commit(f);
}

TEST(many_at_once)
{
    enum { N = 300 };
    struct digest keys[2 * N], results[N], parts[N], found[2 * N];
    bool hits[2 * N];
    struct forge f;

    forge_new(&f);
    EXPECT_OK(action_lookup_many(f.st, keys, 0, found, hits, &f.err), &f.err);
    make_results(&f, 0, N, keys, results, parts);
    for (int i = 0; i < N; i++)
        keys[N + i] = (struct digest){.b = {8, (uint8_t)i}};
    for (int i = 0; i < N; i += 2) { /* not in order */
        const struct digest swap = keys[i];

        keys[i] = keys[2 * N - 1 - i];
        keys[2 * N - 1 - i] = swap;
    }
    EXPECT_OK(action_lookup_many(f.st, keys, (size_t)2 * N, found, hits, &f.err), &f.err);
    for (int i = 0; i < 2 * N; i++) {
        const int number = keys[i].b[1] << 8 | keys[i].b[2];

        EXPECT_EQ(hits[i], keys[i].b[0] == 7);
        EXPECT(!hits[i] || digest_eq(&found[i], &results[number]));
    }
    forge_open(&f, STORE_NODE);
    EXPECT_ERR(action_lookup_many(f.st, keys, 1, found, hits, &f.err), ERR_CONFIG, &f.err);
    forge_free(&f);
}

TEST(what_only_adds_does_not_count_as_a_removal)
{
    struct digest key, result, part, more;
    struct forge f;
    uint64_t first;

    forge_new(&f);
    first = epoch_of(&f);
    make_results(&f, 0, 1, &key, &result, &part);
    EXPECT_OK(store_ref_set(f.st, STR("r"), OBJ_TREE, &result, &f.err), &f.err);
    EXPECT_OK(action_keep(f.st, &result, 1, 60, first, &f.err), &f.err);
    life_gc(&f, 0); /* which finds nothing */
    EXPECT_EQ(epoch_of(&f), first);
    forge_open(&f, STORE_READ);
    EXPECT_EQ(epoch_of(&f), first);
    forge_open(&f, STORE_WRITE);
    EXPECT_EQ(epoch_of(&f), first);
    make_results(&f, 1, 1, &key, &more, &part);
    EXPECT_EQ(epoch_of(&f), first);
    life_gc(&f, 0); /* more has no root */
    EXPECT(!life_has(&f, &more) && life_has(&f, &result));
    EXPECT(epoch_of(&f) != first);
    forge_open(&f, STORE_NODE);
    EXPECT_ERR(store_removal_epoch(f.st, &first, &f.err), ERR_CONFIG, &f.err);
    forge_free(&f);
}

TEST(every_way_of_losing_something_counts)
{
    struct digest key, result, part;
    char big[LOOSE_MIN_BYTES];
    uint64_t seed = 3, before;
    struct forge f;

    forge_new(&f);
    make_results(&f, 0, 1, &key, &result, &part);
    gen_noise(&seed, big, sizeof(big));
    forge_begin(&f);

    const struct digest loose = forge_loose(&f, big, sizeof(big), NULL, 0);

    forge_commit(&f);
    before = epoch_of(&f);
    EXPECT_OK(loose_quarantine(f.st, &loose, &f.err), &f.err);
    EXPECT(epoch_of(&f) != before);

    before = epoch_of(&f);
    life_rebuild_is_equal(&f);
    EXPECT(epoch_of(&f) != before);

    before = epoch_of(&f);
    EXPECT_OK(index_drop_objects(f.st->index, &part, 1, &f.err), &f.err);
    EXPECT(epoch_of(&f) != before);

    before = epoch_of(&f);
    setenv("WEIR_LOSE", "3,50", 1);
    forge_open(&f, STORE_WRITE);
    unsetenv("WEIR_LOSE");
    EXPECT(epoch_of(&f) != before);
    forge_open(&f, STORE_WRITE);
    EXPECT_EQ(epoch_of(&f), before);
    forge_free(&f);
}

/* A node has no index to note it in. */
TEST(what_a_node_quarantines_counts)
{
    char big[LOOSE_MIN_BYTES];
    uint64_t seed = 4, before;
    struct forge f;

    forge_new(&f);
    gen_noise(&seed, big, sizeof(big));
    forge_begin(&f);

    const struct digest loose = forge_loose(&f, big, sizeof(big), NULL, 0);

    forge_commit(&f);
    before = epoch_of(&f);
    forge_open(&f, STORE_NODE);
    EXPECT_OK(loose_quarantine(f.st, &loose, &f.err), &f.err);
    forge_open(&f, STORE_WRITE);
    EXPECT(epoch_of(&f) != before);
    forge_free(&f);
}

TEST(kept_results_outlive_a_gc_without_grace)
{
    enum { N = 20 };
    struct digest keys[N], results[N], parts[N], found;
    struct forge f;

    forge_new(&f);
    for (int i = 0; i < N; i++) /* each in a pack of its own */
        make_results(&f, i, 1, &keys[i], &results[i], &parts[i]);
    os_set_now(os_now_ns() + 10 * MINUTE_NS); /* the results are old */
    EXPECT_OK(action_keep(f.st, results, N / 2, 600, epoch_of(&f), &f.err), &f.err);
    os_set_now(os_now_ns() + 9 * MINUTE_NS);
    life_gc(&f, 0);
    for (int i = 0; i < N; i++) {
        const enum err_code rc = action_lookup(f.st, &keys[i], &found, &f.err);

        EXPECT_EQ(rc, i < N / 2 ? OK : ERR_NOT_FOUND);
        EXPECT_EQ(life_has(&f, &parts[i]), i < N / 2);
    }
    /* Kept again, by the next attempt of the run, before the time is over; a shorter time takes nothing back. */
    EXPECT_OK(action_keep(f.st, results, N / 4, 600, epoch_of(&f), &f.err), &f.err);
    EXPECT_OK(action_keep(f.st, results, N / 4, 0, epoch_of(&f), &f.err), &f.err);
    os_set_now(os_now_ns() + 5 * MINUTE_NS);
    life_gc(&f, 0);
    for (int i = 0; i < N / 2; i++)
        EXPECT_EQ(life_has(&f, &parts[i]), i < N / 4);
    os_set_now(os_now_ns() + 7 * MINUTE_NS);
    life_gc(&f, 0);
    EXPECT(!life_has(&f, &parts[0]));
    os_set_now(0);
    forge_free(&f);
}

/* Between the look and the keeping a gc took them. */
TEST(nothing_is_kept_that_may_have_gone)
{
    struct digest keys[2], results[2], parts[2];
    struct forge f;
    uint64_t epoch;

    forge_new(&f);
    make_results(&f, 0, 1, keys, results, parts);
    make_results(&f, 1, 1, keys + 1, results + 1, parts + 1);
    EXPECT_OK(store_ref_set(f.st, STR("r"), OBJ_TREE, &results[0], &f.err), &f.err);
    epoch = epoch_of(&f);
    life_gc(&f, 0);
    EXPECT(!life_has(&f, &results[1]));
    EXPECT_ERR(action_keep(f.st, results, 2, 60, epoch, &f.err), ERR_CHANGED, &f.err);
    f.err = (struct err)ERR_INIT;
    EXPECT_ERR(action_keep(f.st, results, 1, 60, epoch, &f.err), ERR_CHANGED, &f.err);
    f.err = (struct err)ERR_INIT;
    EXPECT_ERR(action_keep(f.st, results, 2, 60, epoch_of(&f), &f.err), ERR_CHANGED, &f.err);
    EXPECT(strstr(f.err.text, "is not in the store"));
    f.err = (struct err)ERR_INIT;
    EXPECT_OK(action_keep(f.st, results, 1, 60, epoch_of(&f), &f.err), &f.err);
    EXPECT_OK(action_keep(f.st, results, 0, 60, epoch_of(&f), &f.err), &f.err);
    EXPECT_ERR(action_keep(f.st, results, 1, INT64_MAX, epoch_of(&f), &f.err), ERR_LIMIT, &f.err);
    f.err = (struct err)ERR_INIT;
    EXPECT_ERR(action_keep(f.st, results, 1, -1, epoch_of(&f), &f.err), ERR_LIMIT, &f.err);
    forge_free(&f);
}

/* After any failure it may be tried again, and nobody holds a lock. */
TEST(keeping_survives_any_single_fault)
{
    bool fired = true;

    for (int nth = 0; fired; nth++) {
        struct digest key, result, part;
        struct forge f;
        uint64_t epoch = 0;
        enum err_code rc;
        int fds;

        forge_new(&f);
        make_results(&f, 0, 1, &key, &result, &part);
        epoch = epoch_of(&f);
        fds = forge_fd_count();
        fault_arm(nth);
        rc = action_keep(f.st, &result, 1, 60, epoch, &f.err);
        fired = fault_disarm();
        EXPECT(fired || rc == OK);
        EXPECT_EQ(forge_fd_count(), fds);
        f.err = (struct err)ERR_INIT;
        if (rc)
            EXPECT_OK(action_keep(f.st, &result, 1, 60, epoch, &f.err), &f.err);
        life_gc(&f, 0);
        EXPECT(life_has(&f, &part));
        forge_free(&f);
    }
}

RUN(many_at_once, what_only_adds_does_not_count_as_a_removal, every_way_of_losing_something_counts,
    what_a_node_quarantines_counts, kept_results_outlive_a_gc_without_grace,
    nothing_is_kept_that_may_have_gone, keeping_survives_any_single_fault)
