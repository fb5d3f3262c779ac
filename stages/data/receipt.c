/* Receipts: a chain of hashes, and one small JSON file. */
#include "stages/data/receipt.h"

#include <fcntl.h>
#include <string.h>

#include "base/json.h"
#include "base/os.h"

#define USAGE_MAX (1 << 20)
#define SEED_MAX ((uint64_t)1 << 53) /* canonical JSON has no integers beyond */

void receipt_open(struct receipt *r, const char *dataset, uint64_t seed, int64_t rows, int copies,
                  int64_t batch)
{
    CHECK(seed <= SEED_MAX);
    CHECK(batch > 0);
    *r = (struct receipt){.dataset = dataset,
                          .seed = seed,
                          .rows = rows,
                          .batch = batch,
                          .last_step = -1,
                          .copies = copies};
}

static void add_number(struct sha256 *h, int64_t v)
{
    uint8_t b[8];

    for (int k = 0; k < 8; k++)
        b[k] = (uint8_t)((uint64_t)v >> (8 * k));
    sha256_update(h, b, sizeof(b));
}

void receipt_step(struct receipt *r, int64_t step, const int64_t *rows)
{
    struct sha256 h = {0};

    if (r->last_step < r->first_step)
        r->first_step = step;
    else
        CHECK(step == r->last_step + 1);
    sha256_init(&h);
    sha256_update(&h, r->steps.b, sizeof(r->steps.b));
    add_number(&h, step);
    for (int64_t i = 0; i < r->batch; i++)
        add_number(&h, rows[i]);
    sha256_final(&h, &r->steps);
    sha256_release(&h);
    r->last_step = step;
}

static json_t *one_use(const struct receipt *r)
{
    char mask[DIGEST_TEXT + 1], weights[DIGEST_TEXT + 1], steps[DIGEST_TEXT + 1];

    digest_text(&r->mask, mask);
    digest_text(&r->weights, weights);
    digest_text(&r->steps, steps);
    return json_pack("{s:s,s:I,s:s,s:I,s:i,s:I,s:I,s:I,s:s,s:s,s:s}", "dataset", r->dataset, "rows",
                     (json_int_t)r->rows, "permutation", SAMPLER_VERSION, "seed",
                     (json_int_t)r->seed, "copies", r->copies, "batch", (json_int_t)r->batch,
                     "first_step", (json_int_t)r->first_step, "last_step", (json_int_t)r->last_step,
                     "mask", mask, "weights", weights, "per_step_hash", steps);
}

enum err_code receipt_write(const struct receipt *list, size_t count, const char *dir,
                            struct err *err)
{
    json_t *uses = json_array(), *root;
    struct buf text;
    int fd = -1;
    enum err_code rc;

    for (size_t i = 0; i < count; i++)
        CHECK(json_array_append_new(uses, one_use(&list[i])) == 0);
    root = json_pack("{s:i,s:o}", "version", 1, "uses", uses);
    CHECK(root);
    buf_init(&text, USAGE_MAX);
    rc = json_canonical(root, &text, err);
    buf_char(&text, '\n');
    if (!rc)
        rc = buf_check(&text, "usage.json", err);
    if (!rc)
        rc = os_open_dir(AT_FDCWD, dir, &fd, err);
    if (!rc)
        rc = os_write_file(fd, "usage.json", text.p, text.n, 0644, err);
    os_close_quiet(&fd);
    buf_release(&text);
    json_decref(root);
    return rc;
}
