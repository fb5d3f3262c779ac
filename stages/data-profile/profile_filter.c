/* What goes, and why; then the rows that stay. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "stages/data-profile/profile.h"

static bool denied(const char *list, const char *lic)
{
    const size_t n = strlen(lic);

    for (const char *p = list; *p;) {
        const size_t len = strcspn(p, ",");

        if (len == n && strncmp(p, lic, n) == 0)
            return true;
        p += len + (p[len] == ',');
    }
    return false;
}

static const char *reason(const struct profile *p, const struct item *it, int64_t index)
{
    const struct stage_task *t = p->task;
    const double longest = it->width > it->height ? it->width : it->height;
    const double shortest = it->width > it->height ? it->height : it->width;
    const double aspect = stage_float(t, "aspect_max"), blocks = stage_float(t, "blockiness_max");

    if (denied(stage_string(t, "deny_licenses"), row_text(it->row, "license_type", "")))
        return "licence";
    if (strcmp(stage_string(t, "quarantine"), "drop") == 0 &&
        json_is_true(json_object_get(it->row, "quarantine")))
        return "quarantine";
    if (it->side < stage_int(t, "min_side"))
        return "resolution";
    if (aspect > 0 && longest > aspect * shortest)
        return "aspect";
    if (blocks > 0 && it->blockiness > blocks)
        return "blocks";
    if (it->lossy && it->compression < stage_float(t, "compression_min"))
        return "compression";
    if (it->f.sharpness < stage_float(t, "sharpness_min"))
        return "blur";
    if (it->f.entropy < stage_float(t, "entropy_min"))
        return "entropy";
    if (it->quality < stage_float(t, "quality_min"))
        return "quality";
    if (strcmp(stage_string(t, "duplicates"), "drop") == 0 && it->group != index)
        return "duplicate";
    return NULL;
}

void profile_filter(struct profile *p)
{
    for (int64_t i = 0; i < p->count; i++)
        p->items[i].removed = reason(p, &p->items[i], i);
}

/* ---- rows ----------------------------------------------------------------------------------------- */

static void fill(const struct profile *p, const struct item *it)
{
    json_t *tags = json_array(), *row = it->row;
    char hash[17];

    for (int k = 0; k < it->tag_count; k++)
        CHECK(json_array_append_new(tags, json_string(p->tags[it->tags[k]].word)) == 0);
    (void)snprintf(hash, sizeof(hash), "%016llx", (unsigned long long)it->twin.hash);
    row_set(row, "tags", tags);
    row_set(row, "pHash", json_string(hash));
    row_set(row, "width", json_integer(it->width));
    row_set(row, "height", json_integer(it->height));
    row_set(row, "aspect_ratio", row_score((double)it->width / it->height));
    row_set(row, "quality_score", row_score(it->quality));
    row_set(row, "aesthetic_score", row_score(it->aesthetic));
    row_set(row, "rarity_score", row_score(it->rarity));
    row_set(row, "curriculum_complexity_score", row_score(it->complexity));
    row_set(row, "community_id", json_string(p->items[it->group].id));
    row_set(row, "features",
            json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "sharpness",
                      row_score(it->f.sharpness), "tenengrad", row_score(it->f.tenengrad),
                      "blockiness", row_score(it->blockiness), "jpeg_bpp",
                      row_score(it->f.jpeg_bpp), "border_variance", row_score(it->f.border),
                      "entropy", row_score(it->f.entropy), "luma", row_score(it->f.luma),
                      "contrast", row_score(it->f.contrast), "saturation",
                      row_score(it->f.saturation), "colourfulness", row_score(it->f.colourfulness),
                      "texture", row_score(it->f.texture), "noise", row_score(it->f.noise)));
}

struct copy {
    struct profile *p;
    const struct item *it;
};

static enum err_code copy_picture(void *arg, bool cancelled, struct err *err)
{
    struct copy *c = arg;
    const char *dot;
    char path[DATASET_PATH_MAX];
    struct buf bytes;
    enum err_code rc = OK;

    buf_init(&bytes, DATASET_PICTURE_MAX);
    if (!cancelled) {
        dot = strrchr(row_text(c->it->row, "image_path", ""), '.');
        rc = dataset_picture(c->it->set, c->it->row, &bytes, err);
        if (!rc)
            rc = dataset_picture_put(&c->p->out, bytes.p ? bytes.p : "", bytes.n,
                                     dot && strlen(dot) < 6 ? dot + 1 : "png", path, err);
        if (!rc)
            row_set(c->it->row, "image_path", json_string(path));
    }
    buf_release(&bytes);
    free(c);
    return rc;
}

static enum err_code write_removed(struct profile *p, struct err *err)
{
    struct buf text;
    enum err_code rc = OK;

    buf_init(&text, DATASET_TEXT_MAX);
    for (int64_t i = 0; !rc && i < p->count; i++) {
        if (!p->items[i].removed)
            continue;
        row_set(p->items[i].row, "removed_by", json_string(p->items[i].removed));
        rc = json_canonical(p->items[i].row, &text, err);
        buf_char(&text, '\n');
    }
    if (!rc)
        rc = buf_check(&text, "removed.jsonl", err);
    if (!rc)
        rc = os_write_file(p->out.dir, "removed.jsonl", text.p ? text.p : "", text.n, 0644, err);
    buf_release(&text);
    return rc;
}

enum err_code profile_write(struct profile *p, struct err *err)
{
    const char *path;
    enum err_code rc = stage_output_dir(p->task, "dataset", &path, err);

    if (!rc)
        rc = dataset_create(path, &p->out, err);
    if (rc)
        return rc;
    for (int64_t i = 0; i < p->count; i++) {
        struct copy *c;

        fill(p, &p->items[i]);
        if (p->items[i].removed)
            continue;
        c = mem_zero(1, sizeof(*c));
        *c = (struct copy){p, &p->items[i]};
        pool_submit(p->pool, copy_picture, c);
    }
    rc = pool_wait(p->pool, err);
    for (int64_t i = 0; !rc && i < p->count; i++)
        if (!p->items[i].removed)
            rc = dataset_add(&p->out, p->items[i].row, err);
    if (!rc)
        rc = write_removed(p, err);
    return rc ? rc : dataset_finish(&p->out, err);
}
