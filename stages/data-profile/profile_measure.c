/* Rows in, pictures measured. */
#include <stdlib.h>
#include <string.h>

#include "stages/data-profile/profile.h"

#define ROWS_MAX 100000000
#define CHUNK 1024 /* pictures between two looks at progress and signals */

static int by_id(const void *a, const void *b)
{
    return strcmp(((const struct item *)a)->id, ((const struct item *)b)->id);
}

static double number(const json_t *o, const char *key, double standard)
{
    const json_t *v = json_object_get(o, key);

    return json_is_number(v) ? json_number_value(v) : standard;
}

static void take(struct item *it, const struct dataset *set, json_t *row)
{
    const json_t *original = json_object_get(row, "original");
    const char *format = row_text(original, "format", "");
    const double w = number(original, "width", 0), h = number(original, "height", 0);

    *it = (struct item){.set = set, .row = row};
    it->id = row_text(row, "id", "");
    it->source = row_text(row, "source", "");
    it->side = (int)(w < h ? w : h);
    it->blockiness = number(original, "blockiness", 1);
    it->grid = number(original, "grid", 1);
    it->compression = number(row, "compression_score", 1);
    it->lossy = strcmp(format, "jpeg") == 0 || strcmp(format, "webp") == 0;
}

static enum err_code load_one(struct profile *p, const struct dataset *set, struct err *err)
{
    enum err_code rc = OK;

    if (p->count + set->lines.count > ROWS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d rows", ROWS_MAX);
    p->items = mem_grow(p->items, (size_t)(p->count + set->lines.count) + 1, sizeof(*p->items));
    for (int64_t i = 0; !rc && i < set->lines.count; i++) {
        json_t *row;

        rc = dataset_row(set, i, &row, err);
        if (!rc)
            take(&p->items[p->count++], set, row);
    }
    return rc;
}

enum err_code profile_load(struct profile *p, struct err *err)
{
    const struct stage_input *images = stage_input(p->task, "images");
    const size_t n = images->entry_count ? images->entry_count : 1;
    enum err_code rc = OK;

    p->sets = mem_zero(n, sizeof(*p->sets));
    for (size_t i = 0; !rc && i < n; i++) {
        rc = dataset_open(images->entry_count ? images->entries[i].path : images->path, &p->sets[i],
                          err);
        p->set_count = i + 1;
        if (!rc)
            rc = load_one(p, &p->sets[i], err);
    }
    if (!rc && p->count == 0)
        rc = err_set(err, ERR_INPUT, "the datasets have no rows");
    if (rc)
        return rc;
    qsort(p->items, (size_t)p->count, sizeof(*p->items), by_id);
    for (int64_t i = 1; i < p->count; i++)
        if (by_id(&p->items[i - 1], &p->items[i]) == 0)
            return err_set(err, ERR_INPUT,
                           "two rows have the id %.300s; sources need names of their own",
                           p->items[i].id);
    return OK;
}

static enum err_code measure(void *arg, bool cancelled, struct err *err)
{
    struct item *it = arg;
    struct pic pic = {0};
    struct pic_info info;
    struct digest d;
    struct buf bytes;
    enum err_code rc = OK;

    if (cancelled)
        return OK;
    buf_init(&bytes, DATASET_PICTURE_MAX);
    rc = dataset_picture(it->set, it->row, &bytes, err);
    if (!rc) {
        sha256_of(bytes.p ? bytes.p : "", bytes.n, &d);
        digest_hex(&d, it->sha256);
    }
    if (!rc)
        rc = pic_decode(bytes.p ? bytes.p : "", bytes.n, NULL, &pic, &info, err);
    if (!rc)
        rc = features_measure(&pic, &it->f, err);
    if (!rc)
        rc = twin_make(&pic, &it->twin, err);
    it->width = pic.width;
    it->height = pic.height;
    if (it->side == 0)
        it->side = pic.width < pic.height ? pic.width : pic.height;
    pic_release(&pic);
    buf_release(&bytes);
    return rc ? err_prefix(err, "picture of %.200s", it->id) : OK;
}

enum err_code profile_measure(struct profile *p, struct err *err)
{
    enum err_code rc = OK;

    for (int64_t i = 0; !rc && i < p->count;) {
        for (int64_t k = 0; k < CHUNK && i < p->count; k++)
            pool_submit(p->pool, measure, &p->items[i++]);
        rc = pool_wait(p->pool, err);
        stage_progress(p->task, i, p->count, "pictures", NULL);
        if (!rc && stage_stopping())
            rc = stage_stopped(err);
    }
    return rc;
}
