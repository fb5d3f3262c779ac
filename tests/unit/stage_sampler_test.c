/* The sampler: rows of a step and steps of a row are inverse; removing rows leaves the order of the others alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/os.h"
#include "base/str.h"
#include "stages/data/receipt.h"
#include "tests/check.h"

TEST(permutation_is_one_and_inverts)
{
    static const int64_t sizes[] = {1, 2, 3, 4, 5, 16, 17, 64, 65, 255, 1000, 4097, 65536};

    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        bool *seen = mem_zero((size_t)sizes[s], sizeof(*seen));
        struct perm p;

        perm_init(&p, 7, 0, 3, sizes[s]);
        for (int64_t i = 0; i < sizes[s]; i++) {
            const int64_t slot = perm_forward(&p, i);

            EXPECT(slot >= 0 && slot < sizes[s] && !seen[slot]);
            seen[slot] = true;
            EXPECT_EQ(perm_inverse(&p, slot), i);
        }
        free(seen);
    }
}

TEST(permutation_is_pinned)
{
    /* A receipt of an old version must mean the same rows for ever: weir-perm-v1. */
    static const int64_t expected[] = {8, 5, 9, 6, 1, 2, 3, 4, 7, 0};
    struct perm p;

    perm_init(&p, 42, 0, 0, 10);
    for (int64_t i = 0; i < 10; i++)
        EXPECT_EQ(perm_forward(&p, i), expected[i]);
}

TEST(permutation_looks_random)
{
    /* Neighbours land apart: the mean distance of images of i and i + 1 is a third of the size. */
    const int64_t n = 100000;
    double sum = 0;
    struct perm p;

    perm_init(&p, 1, 0, 0, n);
    for (int64_t i = 0; i + 1 < n; i++)
        sum += (double)llabs(perm_forward(&p, i) - perm_forward(&p, i + 1));
    EXPECT(sum / (double)n > 0.32 * (double)n && sum / (double)n < 0.347 * (double)n);
}

static struct sampler *make(uint64_t seed, int64_t rows, int copies, int64_t batch,
                            const struct sampler_phase *phases, size_t n)
{
    struct sampler *s = NULL;
    struct err err = ERR_INIT;

    EXPECT_OK(sampler_new(seed, rows, copies, batch, phases, n, &s, &err), &err);
    return s;
}

/* Every use that steps report is found from the row, and no other. */
static void round_trip(struct sampler *s, int64_t rows, int64_t batch, int64_t last)
{
    int64_t *list = mem_zero((size_t)batch, sizeof(*list)),
            *uses = mem_zero((size_t)rows, sizeof(*uses));

    for (int64_t step = 0; step <= last; step++) {
        sampler_rows(s, step, list);
        for (int64_t k = 0; k < batch; k++) {
            EXPECT(list[k] >= 0 && list[k] < rows);
            uses[list[k]]++;
        }
    }
    for (int64_t row = 0; row < rows; row++) {
        int64_t *steps = NULL;
        size_t n = 0;

        sampler_steps(s, row, 0, last, &steps, &n);
        EXPECT_EQ(n, uses[row]);
        for (size_t i = 0; i < n; i++) {
            bool found = false;

            EXPECT(i == 0 || steps[i] >= steps[i - 1]);
            sampler_rows(s, steps[i], list);
            for (int64_t k = 0; k < batch; k++)
                found = found || list[k] == row;
            EXPECT(found);
        }
        free(steps);
    }
    free(list);
    free(uses);
}

TEST(steps_and_rows_are_inverse)
{
    const struct sampler_phase all = {0, NULL};
    struct sampler *s = make(3, 37, 1, 8, &all, 1);

    round_trip(s, 37, 8, 30);
    sampler_free(s);
}

TEST(an_epoch_has_every_row_once)
{
    const struct sampler_phase all = {0, NULL};
    struct sampler *s = make(9, 100, 1, 10, &all, 1);
    int64_t rows[10], seen[100] = {0};

    for (int64_t step = 20; step < 30; step++) { /* the third epoch */
        sampler_rows(s, step, rows);
        for (int k = 0; k < 10; k++)
            seen[rows[k]]++;
    }
    for (int i = 0; i < 100; i++)
        EXPECT_EQ(seen[i], 1);
    sampler_free(s);
}

TEST(removing_rows_reshuffles_nothing)
{
    enum { ROWS = 1000 };
    uint16_t weights[ROWS];
    struct sampler_phase all = {0, NULL}, some = {0, weights};
    struct sampler *s, *t;
    int64_t a[ROWS], b[ROWS], at = 0, left = 0;

    for (int i = 0; i < ROWS; i++) {
        weights[i] = i % 7 == 3 ? 0 : SAMPLER_WEIGHT_ONE;
        left += weights[i] != 0;
    }
    s = make(5, ROWS, 1, ROWS, &all, 1);
    t = make(5, ROWS, 1, left, &some, 1);
    for (int64_t epoch = 0; epoch < 3; epoch++) {
        at = 0;
        sampler_rows(s, epoch, a);
        sampler_rows(t, epoch, b);
        for (int i = 0; i < ROWS; i++)
            if (weights[a[i]])
                EXPECT_EQ(a[i], b[at++]);
        EXPECT_EQ(at, left);
    }
    sampler_free(s);
    sampler_free(t);
}

TEST(weights_are_means_and_phases_follow_the_step)
{
    enum { ROWS = 50 };
    uint16_t weights[ROWS], easy[ROWS];
    const struct sampler_phase phases[] = {{0, easy}, {20, weights}};
    struct sampler *s;
    int64_t rows[8], draws = 0;

    for (int i = 0; i < ROWS; i++) {
        easy[i] = i < 25 ? SAMPLER_WEIGHT_ONE : 0;
        weights[i] = (uint16_t)(i * 16); /* 0 .. 3.06 */
    }
    s = make(11, ROWS, 4, 8, phases, 2);
    round_trip(s, ROWS, 8, 100);
    for (int64_t step = 0; step < 20; step++) {
        sampler_rows(s, step, rows);
        for (int k = 0; k < 8; k++)
            EXPECT(rows[k] < 25);
    }
    for (int64_t e = 0; e < 400; e++)
        draws += sampler_epoch_draws(s, 1, e);
    /* mean of sum i/16 for i < 50 is 76.56; the coin's deviation over 400 epochs is 0.16 */
    EXPECT(draws > 400 * 76 - 40 && draws < 400 * 77 + 80);
    sampler_free(s);
}

TEST(nothing_left_is_an_error)
{
    const uint16_t none[3] = {0, 0, 0}, heavy[3] = {256, 512, 256};
    const struct sampler_phase p = {0, none}, q = {0, heavy};
    struct sampler *s = NULL;
    struct err err = ERR_INIT;

    EXPECT_ERR(sampler_new(1, 0, 1, 1, &p, 1, &s, &err), ERR_INPUT, &err);
    EXPECT_ERR(sampler_new(1, 3, 1, 1, &p, 1, &s, &err), ERR_INPUT, &err);
    EXPECT_ERR(sampler_new(1, 3, 1, 1, &q, 1, &s, &err), ERR_INPUT, &err);
    EXPECT_ERR(sampler_new(1, SAMPLER_SLOTS_MAX, 2, 1, &q, 1, &s, &err), ERR_LIMIT, &err);
    EXPECT(s == NULL);
}

TEST(a_receipt_can_be_checked)
{
    const struct sampler_phase all = {0, NULL};
    char dir[TMPDIR_MAX], hex[DIGEST_TEXT + 1];
    struct receipt r, half;
    struct sampler *s = make(3, 37, 1, 4, &all, 1);
    struct err err = ERR_INIT;
    struct buf text;
    json_t *root = NULL, *v;
    int64_t rows[4];
    int fd = -1;

    tmpdir_new(dir);
    receipt_open(&r, "sha256:aa", 3, 37, 1, 4);
    sampler_mask_digest(s, 0, &r.mask);
    sampler_weights_digest(s, 0, &r.weights);
    for (int64_t step = 10; step < 20; step++) {
        sampler_rows(s, step, rows);
        receipt_step(&r, step, rows);
        if (step == 14)
            half = r; /* what a checkpoint carries */
    }
    for (int64_t step = 15; step < 20; step++) {
        sampler_rows(s, step, rows);
        receipt_step(&half, step, rows);
    }
    EXPECT(digest_eq(&r.steps, &half.steps));
    EXPECT_OK(receipt_write(&r, 1, dir, &err), &err);
    EXPECT_OK(os_open_dir(-100, dir, &fd, &err), &err);
    buf_init(&text, 1 << 16);
    EXPECT_OK(os_read_file(fd, "usage.json", 1 << 16, &text, &err), &err);
    EXPECT_OK(json_parse(text.p, text.n, 1 << 16, "usage", &root, &err), &err);
    v = json_array_get(json_object_get(root, "uses"), 0);
    digest_text(&r.steps, hex);
    EXPECT_STR(json_string_value(json_object_get(v, "per_step_hash")), hex);
    EXPECT_STR(json_string_value(json_object_get(v, "permutation")), "weir-perm-v1");
    EXPECT_EQ(json_integer_value(json_object_get(v, "first_step")), 10);
    EXPECT_EQ(json_integer_value(json_object_get(v, "last_step")), 19);
    json_decref(root);
    os_close_quiet(&fd);
    buf_release(&text);
    sampler_free(s);
    tmpdir_free(dir);
}

RUN(permutation_is_one_and_inverts, permutation_is_pinned, permutation_looks_random,
    steps_and_rows_are_inverse, an_epoch_has_every_row_once, removing_rows_reshuffles_nothing,
    weights_are_means_and_phases_follow_the_step, nothing_left_is_an_error,
    a_receipt_can_be_checked)
