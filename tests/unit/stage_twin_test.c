/* Near duplicates: planted ones are found, different pictures are not taken for one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stages/data/phash.h"
#include "tests/check.h"
#include "tests/stage_scene.h"

#define SCENES 400

static const struct twin_rule rule = {10, 10}; /* the defaults of data-profile */

static struct twin twin_of(const struct pic *p)
{
    struct twin t;
    struct err err = ERR_INIT;

    EXPECT_OK(twin_make(p, &t, &err), &err);
    return t;
}

static struct pic resized(const struct pic *p, int width, int height)
{
    struct pic q;
    struct err err = ERR_INIT;

    EXPECT_OK(pic_resize(p, width, height, PIC_BICUBIC, &q, &err), &err);
    return q;
}

static struct pic recompressed(const struct pic *p, int quality)
{
    struct pic q;
    struct pic_info info;
    struct err err = ERR_INIT;
    struct buf b;

    buf_init(&b, 1 << 24);
    EXPECT_OK(pic_encode_jpeg(p, quality, &b, &err), &err);
    EXPECT_OK(pic_decode(b.p, b.n, NULL, &q, &info, &err), &err);
    buf_release(&b);
    return q;
}

static struct pic cropped(const struct pic *p, int percent)
{
    const int dx = p->width * percent / 200, dy = p->height * percent / 200;
    struct pic q;
    struct err err = ERR_INIT;

    EXPECT_OK(pic_crop(p, dx, dy, p->width - 2 * dx, p->height - 2 * dy, &q, &err), &err);
    return q;
}

static struct pic planted(const struct pic *p, int kind)
{
    switch (kind) {
    case 0:
        return resized(p, 48, 48);
    case 1:
        return resized(p, 160, 150);
    case 2:
        return recompressed(p, 40);
    default:
        return cropped(p, 4);
    }
}

TEST(planted_duplicates_are_found_and_others_are_not)
{
    struct twin *list = mem_zero(5 * SCENES, sizeof(*list));
    struct twin_pair *pairs = NULL;
    struct err err = ERR_INIT;
    int64_t n = 0, right[4] = {0}, wrong = 0;

    /* list[i] is scene i, list[SCENES * (k + 1) + i] what became of it by kind k */
    for (int i = 0; i < SCENES; i++) {
        struct pic p = scene_make((uint32_t)i, 96, 96);

        list[i] = twin_of(&p);
        for (int k = 0; k < 4; k++) {
            struct pic q = planted(&p, k);

            list[SCENES * (k + 1) + i] = twin_of(&q);
            pic_release(&q);
        }
        pic_release(&p);
    }
    EXPECT_OK(twin_search(list, 5 * SCENES, &rule, 1 << 24, &pairs, &n, &err), &err);
    for (int64_t i = 0; i < n; i++) {
        if (pairs[i].i % SCENES != pairs[i].j % SCENES)
            wrong++;
        else if (pairs[i].i < SCENES)
            right[pairs[i].j / SCENES - 1]++;
    }
    printf("of %d: resized down %d, up %d, recompressed %d, cropped %d; false pairs %d of %d\n",
           SCENES, (int)right[0], (int)right[1], (int)right[2], (int)right[3], (int)wrong, (int)n);
    for (int k = 0; k < 4; k++)
        EXPECT(right[k] >= SCENES * 95 / 100);
    EXPECT(wrong * 100 < n);
    free(pairs);
    free(list);
}

TEST(colour_variants_are_different_pictures)
{
    struct pic p = scene_make(7, 64, 64), q;
    struct twin a, b;
    struct err err = ERR_INIT;

    EXPECT_OK(pic_copy(&p, &q, &err), &err);
    for (int i = 0; i < 64 * 64; i++) { /* red and blue change places: nearly the same grey */
        const uint8_t red = q.px[3 * i];

        q.px[3 * i] = q.px[3 * i + 2];
        q.px[3 * i + 2] = red;
    }
    a = twin_of(&p);
    b = twin_of(&q);
    EXPECT(twin_same(&a, &a, &rule));
    EXPECT(!twin_same(&a, &b, &rule));
    pic_release(&p);
    pic_release(&q);
}

/* Bands find what comparing all with all finds. */
TEST(search_misses_nothing)
{
    enum { N = 600 };
    struct twin *list = mem_zero(N, sizeof(*list));
    uint32_t s = 1;

    for (int i = 0; i < N; i++) {
        list[i].hash = i % 3 ? list[i - 1].hash
                             : (uint64_t)scene_random(&s) << 40 ^ (uint64_t)scene_random(&s) << 20 ^
                                   scene_random(&s);
        for (int k = 0; i % 3 && k < 1 + i % 11; k++)
            list[i].hash ^= (uint64_t)1 << scene_random(&s) % 64;
    }
    for (int d = 0; d <= 20; d += 5) {
        const struct twin_rule r = {d, 255};
        struct twin_pair *pairs = NULL;
        struct err err = ERR_INIT;
        int64_t n = 0, at = 0;

        EXPECT_OK(twin_search(list, N, &r, 1 << 20, &pairs, &n, &err), &err);
        for (int64_t i = 0; i < N; i++)
            for (int64_t j = i + 1; j < N; j++)
                if (phash_distance(list[i].hash, list[j].hash) <= d) {
                    EXPECT(at < n && pairs[at].i == i && pairs[at].j == j);
                    at++;
                }
        EXPECT_EQ(at, n);
        EXPECT(d == 0 || n > 100);
        free(pairs);
    }
    free(list);
}

TEST(too_many_pairs_are_an_error)
{
    struct twin *list = mem_zero(100, sizeof(*list));
    struct twin_pair *pairs = NULL;
    struct err err = ERR_INIT;
    int64_t n = 0;

    EXPECT_ERR(twin_search(list, 100, &rule, 50, &pairs, &n, &err), ERR_LIMIT, &err);
    EXPECT(pairs == NULL);
    free(list);
}

RUN(planted_duplicates_are_found_and_others_are_not, colour_variants_are_different_pictures,
    search_misses_nothing, too_many_pairs_are_an_error)
