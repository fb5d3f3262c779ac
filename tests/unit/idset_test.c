/* Against a plain sorted list, and against ids that somebody chose to be slow. */
#include <stdlib.h>
#include <string.h>

#include "store/idset.h"
#include "tests/check.h"
#include "tests/store_gen.h"

TEST(a_set_is_what_was_added)
{
    struct idset *s = idset_new();
    struct idlist all = {0};
    struct idset_pos pos = {0};
    const struct digest *id;
    uint64_t seed = 1;
    uint8_t *byte;
    size_t seen = 0;
    bool added;

    for (int i = 0; i < 20000; i++) {
        struct digest d;

        gen_noise(&seed, d.b, sizeof(d.b));
        if (i % 7 == 0 && all.n > 0)
            d = all.v[gen_below(&seed, all.n)];
        if (i == 5000)
            memset(&d, 0, sizeof(d));
        byte = idset_add(s, &d, &added);
        if (added) {
            EXPECT_EQ(*byte, 0);
            *byte = d.b[31];
            idlist_add(&all, &d);
        }
        EXPECT_EQ(*byte, d.b[31]);
        EXPECT_EQ(idset_count(s), all.n);
    }
    for (size_t i = 0; i < all.n; i++) {
        struct digest other = all.v[i];

        byte = idset_find(s, &all.v[i]);
        EXPECT(byte);
        EXPECT_EQ(*byte, all.v[i].b[31]);
        other.b[9] ^= 1;
        EXPECT(!idset_has(s, &other));
    }
    idlist_sort(&all);
    while (idset_next(s, &pos, &id, &byte)) {
        EXPECT(idlist_has(&all, id));
        seen++;
    }
    EXPECT_EQ(seen, all.n);
    idlist_release(&all);
    idset_free(s);
    idset_free(NULL);
}

/* Ids that differ in a few bits only, wherever these are: taken as hashes, most of them would start at one slot, and this test would
 * take days. */
TEST(chosen_ids_are_not_slow)
{
    for (size_t at = 0; at < DIGEST_BYTES; at += 4) {
        struct idset *s = idset_new();
        struct digest d;

        memset(&d, 0x5a, sizeof(d));
        for (uint32_t i = 0; i < 200000; i++) {
            memcpy(d.b + at, &i, sizeof(i));
            idset_add(s, &d, NULL);
        }
        EXPECT_EQ(idset_count(s), 200000);
        idset_free(s);
    }
}

RUN(a_set_is_what_was_added, chosen_ids_are_not_slow)
