/* One batch through the pool: decode, crop, resize, write.  A picture that cannot be read is marked, not an error. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stages/data/feature.h"
#include "stages/ingest/ingest.h"

struct job {
    struct ingest *in;
    struct found *f;
};

static void skip(struct found *f, const char *class, const char *why)
{
    f->skip = class;
    (void)snprintf(f->why, sizeof(f->why), "%.199s", why);
}

static enum err_code read_picture(const struct job *j, struct pic *p, struct err *err)
{
    const struct pic_limits limits = {j->in->o.pixels_max};
    struct found *f = j->f;
    enum err_code rc;

    if (!f->grey_side[0])
        return pic_decode(f->bytes, f->byte_count, &limits, p, &f->info, err);
    f->info = (struct pic_info){.format = PIC_FORMAT_NONE,
                                .width = f->grey_side[0],
                                .height = f->grey_side[1],
                                .depth = 8,
                                .orientation = 1};
    rc = pic_new(f->grey_side[0], f->grey_side[1], 1, p, err);
    if (!rc)
        memcpy(p->px, f->bytes, f->byte_count);
    return rc;
}

/* The largest width and height inside side x side, each at least 1. */
static void shrink(int width, int height, int64_t side, int *w, int *h)
{
    const int64_t longest = width > height ? width : height;

    *w = (int)((width * side + longest / 2) / longest);
    *h = (int)((height * side + longest / 2) / longest);
    *w = *w < 1 ? 1 : *w;
    *h = *h < 1 ? 1 : *h;
}

static enum err_code replace(struct pic *p, struct pic *with)
{
    pic_release(p);
    *p = *with;
    *with = (struct pic){0};
    return OK;
}

static enum err_code square(const struct job *j, struct pic *p, struct err *err)
{
    const struct options *o = &j->in->o;
    struct pic q = {0};
    int x, y, w, h;
    enum err_code rc;

    if (!pic_ink_box(p, &x, &y, &w, &h)) {
        skip(j->f, "blank", "nothing but white or transparent pixels");
        return OK;
    }
    rc = pic_crop(p, x, y, w, h, &q, err);
    if (!rc)
        rc = replace(p, &q);
    shrink(w, h, o->side - 2 * o->margin, &w, &h);
    if (!rc)
        rc = pic_resize(p, w, h, PIC_AREA, &q, err);
    if (!rc)
        rc = replace(p, &q);
    if (!rc)
        rc = pic_centre(p, (int)o->side, (int)o->side, &q, err);
    return rc ? rc : replace(p, &q);
}

static enum err_code inside(const struct job *j, struct pic *p, struct err *err)
{
    struct pic q = {0};
    int w, h;
    enum err_code rc;

    if (p->width <= j->in->o.side && p->height <= j->in->o.side)
        return OK;
    shrink(p->width, p->height, j->in->o.side, &w, &h);
    rc = pic_resize(p, w, h, PIC_AREA, &q, err);
    return rc ? rc : replace(p, &q);
}

/* Share of pixels that are ink. */
static double ink_share(const struct pic *p)
{
    const size_t n = (size_t)p->width * (size_t)p->height;
    size_t ink = 0;

    for (size_t i = 0; i < n; i++) {
        const struct pic one = {1, 1, p->channels, p->px + i * (size_t)p->channels};
        int x, y, w, h;

        ink += pic_ink_box(&one, &x, &y, &w, &h);
    }
    return (double)ink / (double)n;
}

static enum err_code measure(const struct job *j, const struct pic *p, struct err *err)
{
    const struct options *o = &j->in->o;
    const int longest = p->width > p->height ? p->width : p->height;
    const int shortest = p->width > p->height ? p->height : p->width;
    uint8_t *grey;

    if (o->aspect_max > 0 && longest > o->aspect_max * shortest)
        skip(j->f, "aspect", "longer than aspect_max allows");
    else if (o->ink_min > 0 && ink_share(p) < o->ink_min)
        skip(j->f, "blank", "less ink than ink_min");
    /* The grid of a JPEG is gone after resizing, so blocks are looked for now. */
    grey = malloc((size_t)p->width * (size_t)p->height);
    if (!grey)
        return err_set(err, ERR_LIMIT, "no memory to measure %d x %d pixels", p->width, p->height);
    pic_grey(p, grey);
    j->f->blockiness = feature_blockiness(grey, p->width, p->height);
    j->f->grid = feature_grid(grey, p->width, p->height);
    free(grey);
    return OK;
}

static enum err_code write_picture(const struct job *j, const struct pic *p, struct err *err)
{
    struct buf png;
    enum err_code rc;

    buf_init(&png, DATASET_PICTURE_MAX);
    rc = pic_encode_png(p, &png, err);
    if (!rc)
        rc = dataset_picture_put(&j->in->out, png.p, png.n, "png", j->f->path, err);
    buf_release(&png);
    j->f->width = p->width;
    j->f->height = p->height;
    return rc;
}

static enum err_code one(void *arg, bool cancelled, struct err *err)
{
    struct job *j = arg;
    struct found *f = j->f;
    struct pic p = {0};
    struct digest d;
    enum err_code rc = OK;

    if (cancelled)
        goto out;
    sha256_of(f->bytes, f->byte_count, &d);
    digest_hex(&d, f->sha256);
    f->file_bytes = (int64_t)f->byte_count;
    rc = read_picture(j, &p, err);
    if (rc == ERR_INPUT || rc == ERR_LIMIT) {
        skip(f, rc == ERR_INPUT ? "damaged" : "too large", err->text);
        *err = (struct err)ERR_INIT;
        rc = OK;
        goto out;
    }
    if (!rc)
        rc = measure(j, &p, err);
    if (!rc && !f->skip && strcmp(j->in->o.fit, "square") == 0)
        rc = square(j, &p, err);
    else if (!rc && !f->skip && strcmp(j->in->o.fit, "inside") == 0)
        rc = inside(j, &p, err);
    if (!rc && !f->skip)
        rc = write_picture(j, &p, err);
    if (rc)
        rc = err_prefix(err, "%s", f->member);
out:
    pic_release(&p);
    free(f->bytes);
    f->bytes = NULL;
    free(j);
    return rc;
}

enum err_code ingest_normalise(struct ingest *in, struct origin *o, struct err *err)
{
    enum err_code rc;

    for (size_t i = o->batch_from; i < o->count; i++) {
        struct job *j = mem_zero(1, sizeof(*j));

        *j = (struct job){in, &o->list[i]};
        pool_submit(in->pool, one, j);
    }
    rc = pool_wait(in->pool, err);
    for (size_t i = o->batch_from; !rc && i < o->count; i++) {
        if (o->list[i].skip)
            ingest_skip(o, o->list[i].skip, o->list[i].member, o->list[i].why);
        else
            in->kept++;
    }
    o->batch_from = o->count;
    o->batch_bytes = 0;
    if (!rc)
        stage_progress(in->task, in->kept, 0, "pictures", o->name);
    return rc;
}
