#include <pthread.h>

#include "store/claims.h"
#include "tests/check.h"
#include "tests/store_gen.h"

#define IDS 3000

static void make_ids(struct digest *ids, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        gen_noise(&seed, ids[i].b, DIGEST_BYTES);
}

TEST(an_id_is_claimed_once)
{
    struct claims *c = claims_new();
    struct digest id = {{7}};

    EXPECT_EQ(claims_get(c, &id), ID_ABSENT);
    EXPECT(claims_add(c, &id, ID_WRITTEN));
    EXPECT(!claims_add(c, &id, ID_WRITTEN));
    EXPECT(!claims_add(c, &id, ID_REUSED));
    EXPECT_EQ(claims_get(c, &id), ID_WRITTEN);
    EXPECT_EQ(claims_count(c, ID_WRITTEN), 1);
    EXPECT_EQ(claims_count(c, ID_REUSED), 0);
    claims_remove(c, &id);
    EXPECT_EQ(claims_get(c, &id), ID_ABSENT);
    EXPECT(claims_add(c, &id, ID_REUSED));
    claims_clear(c);
    EXPECT_EQ(claims_get(c, &id), ID_ABSENT);
    claims_check(c);
    claims_free(c);
    claims_free(NULL);
}

/* Against a plain table of states.  Few different homes, so that runs of neighbours are long. */
TEST(any_sequence_equals_a_table)
{
    static struct digest ids[IDS];
    static enum id_state model[IDS];
    struct claims *c = claims_new();
    uint64_t seed = 20;

    make_ids(ids, IDS, 19);
    for (size_t i = 0; i < IDS; i++) {
        ids[i].b[DIGEST_BYTES - 1] = 3; /* one shard */
        if (i % 2)
            memset(ids[i].b + 9, 0, 7); /* one of 256 homes */
    }
    for (int step = 0; step < 60000; step++) {
        const size_t i = gen_below(&seed, IDS);
        const uint64_t what = gen_below(&seed, step / 20000 == 1 ? 5 : 3);

        if (what == 0) {
            const enum id_state as = gen_below(&seed, 2) ? ID_WRITTEN : ID_REUSED;
            const bool added = claims_add(c, &ids[i], as);

            EXPECT_EQ(added, model[i] == ID_ABSENT);
            if (added)
                model[i] = as;
        } else if (what == 1) {
            EXPECT_EQ(claims_get(c, &ids[i]), model[i]);
        } else {
            claims_remove(c, &ids[i]);
            model[i] = ID_ABSENT;
        }
        if (step % 1000 == 0)
            claims_check(c);
    }
    for (size_t i = 0; i < IDS; i++)
        EXPECT_EQ(claims_get(c, &ids[i]), model[i]);
    claims_check(c);
    claims_free(c);
}

TEST(lists_are_sorted_and_complete)
{
    static struct digest ids[IDS];
    struct claims *c = claims_new();
    struct digest *list = NULL;
    size_t n;

    claims_list(c, ID_REUSED, &list, &n);
    EXPECT_EQ(n, 0);
    free(list);
    make_ids(ids, IDS, 23);
    for (size_t i = 0; i < IDS; i++)
        EXPECT(claims_add(c, &ids[i], i % 3 ? ID_REUSED : ID_WRITTEN));
    claims_list(c, ID_REUSED, &list, &n);
    EXPECT_EQ(n, IDS - IDS / 3);
    for (size_t i = 0; i < n; i++) {
        EXPECT_EQ(claims_get(c, &list[i]), ID_REUSED);
        if (i > 0)
            EXPECT(digest_cmp(&list[i - 1], &list[i]) < 0);
    }
    free(list);
    claims_free(c);
}

struct racer {
    struct claims *claims;
    const struct digest *ids;
    int64_t won;
};

static void *race(void *arg)
{
    struct racer *r = arg;

    for (size_t i = 0; i < IDS; i++)
        r->won += claims_add(r->claims, &r->ids[i], ID_WRITTEN);
    return NULL;
}

TEST(of_many_threads_one_wins_each_id)
{
    static struct digest ids[IDS];
    struct claims *c = claims_new();
    struct racer racers[4];
    pthread_t threads[4];
    int64_t won = 0;

    make_ids(ids, IDS, 29);
    for (int i = 0; i < 4; i++) {
        racers[i] = (struct racer){.claims = c, .ids = ids};
        EXPECT_EQ(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        EXPECT_EQ(pthread_join(threads[i], NULL), 0);
        won += racers[i].won;
    }
    EXPECT_EQ(won, IDS);
    EXPECT_EQ(claims_count(c, ID_WRITTEN), IDS);
    claims_check(c);
    claims_free(c);
}

RUN(an_id_is_claimed_once, any_sequence_equals_a_table, lists_are_sorted_and_complete,
    of_many_threads_one_wins_each_id)
