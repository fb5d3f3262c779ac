#include <stdint.h>
#include <string.h>

#include "base/arena.h"
#include "base/err.h"
#include "tests/check.h"

static void expect_zeroed(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        EXPECT_EQ(p[i], 0);
}

/* Every allocation is aligned, zeroed, and keeps its bytes while others come. */
TEST(allocations_do_not_touch_each_other)
{
    struct arena a;
    unsigned char *all[2000];
    size_t total = 0;

    arena_init(&a);
    for (size_t i = 0; i < 2000; i++) {
        const size_t n = i * 37 % 401;

        all[i] = arena_alloc(&a, n);
        EXPECT_EQ((uintptr_t)all[i] % 16, 0);
        expect_zeroed(all[i], n);
        memset(all[i], (int)(i % 255) + 1, n);
        total += n;
    }
    EXPECT_EQ(a.total, total);
    for (size_t i = 0; i < 2000; i++)
        for (size_t j = 0; j < i * 37 % 401; j++)
            EXPECT_EQ(all[i][j], i % 255 + 1);
    arena_release(&a);
    arena_release(&a);
    EXPECT(a.head == NULL);
    EXPECT_EQ(a.total, 0);
}

TEST(large_allocations_fit)
{
    struct arena a = {0};
    unsigned char *large = arena_alloc(&a, 1000000);
    char *small = arena_strdup(&a, "small");

    expect_zeroed(large, 1000000);
    memset(large, 0xff, 1000000);
    EXPECT_STR(small, "small");
    EXPECT(arena_array(&a, 0, 8) != NULL);
    EXPECT(arena_array(&a, 70000, 3) != NULL);
    arena_release(&a);
}

TEST(text)
{
    struct arena a = {0};
    char *longer;

    EXPECT_STR(arena_strndup(&a, "abcdef", 3), "abc");
    EXPECT_STR(arena_strndup(&a, NULL, 0), "");
    EXPECT_STR(arena_printf(&a, "%s-%d", "x", 5), "x-5");
    longer = arena_printf(&a, "%100000d", 7);
    EXPECT_EQ(strlen(longer), 100000);
    EXPECT_EQ(longer[99999], '7');
    arena_release(&a);
}

TEST(a_rewind_gives_back_what_came_after_the_mark)
{
    struct arena a = {0};
    const struct arena_mark empty = arena_mark(&a);
    char *kept = arena_strdup(&a, "kept");
    const struct arena_mark mark = arena_mark(&a);

    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < 500; i++)
            memset(arena_alloc(&a, i * 3), 0xee, i * 3);
        memset(arena_alloc(&a, 200000), 0xee, 200000);
        arena_rewind(&a, mark);
        EXPECT_EQ(a.total, 5);
        EXPECT_STR(kept, "kept");
        expect_zeroed(arena_alloc(&a, 3000), 3000); /* used memory comes out clean again */
        arena_rewind(&a, mark);
    }

    /* Marks nest. */
    arena_strdup(&a, "one");
    const struct arena_mark inner = arena_mark(&a);

    arena_alloc(&a, 100000);
    arena_rewind(&a, inner);
    EXPECT_EQ(a.total, 9);
    arena_rewind(&a, mark);
    EXPECT_EQ(a.total, 5);
    arena_rewind(&a, empty);
    EXPECT(a.head == NULL);
    arena_release(&a);
}

RUN(allocations_do_not_touch_each_other, large_allocations_fit, text,
    a_rewind_gives_back_what_came_after_the_mark)
