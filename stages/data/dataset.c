/* Datasets on disk. */
#include "stages/data/dataset.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"

const char *const row_fields[] = {"image_path",
                                  "source",
                                  "license_type",
                                  "width",
                                  "height",
                                  "aspect_ratio",
                                  "pHash",
                                  "quality_score",
                                  "aesthetic_score",
                                  "compression_score",
                                  "safety_labels",
                                  "language",
                                  "has_text",
                                  "ocr_text",
                                  "text_density",
                                  "semantic_categories",
                                  "style_tags",
                                  "long_caption",
                                  "medium_caption",
                                  "short_caption",
                                  "simulated_user_prompt",
                                  "rarity_score",
                                  "curriculum_complexity_score",
                                  NULL};

json_t *row_new(void)
{
    json_t *row = json_object();

    for (const char *const *f = row_fields; *f; f++)
        row_set(row, *f, json_null());
    return row;
}

void row_set(json_t *row, const char *key, json_t *taken)
{
    CHECK(taken);
    CHECK(json_object_set_new(row, key, taken) == 0);
}

const char *row_text(const json_t *row, const char *key, const char *standard)
{
    const char *s = json_string_value(json_object_get(row, key));

    return s ? s : standard;
}

json_t *row_score(double v)
{
    return isfinite(v) ? json_real(floor(v * 1e6 + 0.5) / 1e6) : json_null();
}

/* ---- lines ---------------------------------------------------------------------------------------- */

enum err_code lines_split(char *taken, size_t n, struct lines *out, struct err *err)
{
    size_t cap = 0, from = 0;
    int number = 1;

    *out = (struct lines){.text = taken};
    while (from < n) {
        const char *end = memchr(taken + from, '\n', n - from);
        const size_t to = end ? (size_t)(end - taken) : n;

        if (to - from > DATASET_LINE_MAX) {
            lines_release(out);
            return err_set(err, ERR_LIMIT, "line %d has %zu bytes, at most %d", number, to - from,
                           DATASET_LINE_MAX);
        }
        if (to > from && !(to == from + 1 && taken[from] == '\r')) {
            if ((size_t)out->count == cap) {
                cap = cap ? 2 * cap : 1024;
                out->list = mem_grow(out->list, cap, sizeof(*out->list));
                out->number = mem_grow(out->number, cap, sizeof(*out->number));
            }
            out->list[out->count] = (struct str){taken + from, to - from};
            out->number[out->count++] = number;
        }
        from = to + 1;
        number++;
    }
    return OK;
}

void lines_release(struct lines *l)
{
    free(l->text);
    free(l->list);
    free(l->number);
    *l = (struct lines){0};
}

enum err_code lines_row(const struct lines *l, int64_t i, const char *file, json_t **out,
                        struct err *err)
{
    enum err_code rc;

    CHECK(i >= 0 && i < l->count);
    rc = json_parse(l->list[i].p, l->list[i].n, DATASET_LINE_MAX, "record", out, err);
    if (!rc && !json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        rc = err_set(err, ERR_INPUT, "it is no object");
    }
    return rc ? err_prefix(err, "%s:%d", file, l->number[i]) : OK;
}

/* ---- reading -------------------------------------------------------------------------------------- */

enum err_code dataset_open(const char *path, struct dataset *out, struct err *err)
{
    struct buf text;
    size_t n;
    int fd = -1;
    enum err_code rc;

    *out = (struct dataset){0};
    buf_init(&text, DATASET_TEXT_MAX);
    rc = os_open_dir(AT_FDCWD, path, &fd, err);
    if (!rc)
        rc = os_read_file(fd, DATASET_RECORDS, DATASET_TEXT_MAX, &text, err);
    os_close_quiet(&fd);
    n = text.n;
    if (!rc)
        rc = lines_split(buf_take(&text), n, &out->lines, err);
    buf_release(&text);
    if (rc)
        return err_prefix(err, "dataset %s", path);
    out->path = mem_strdup(path);
    return OK;
}

void dataset_release(struct dataset *d)
{
    lines_release(&d->lines);
    free(d->path);
    *d = (struct dataset){0};
}

enum err_code dataset_row(const struct dataset *d, int64_t i, json_t **out, struct err *err)
{
    enum err_code rc = lines_row(&d->lines, i, DATASET_RECORDS, out, err);

    if (!rc && !row_text(*out, "id", NULL)) {
        rc = err_set(err, ERR_INPUT, "%s:%d: the record has no \"id\"", DATASET_RECORDS,
                     d->lines.number[i]);
        json_decref(*out);
        *out = NULL;
    }
    return rc;
}

/* A dataset may come from anywhere: what it names stays inside of it. */
static bool inside(const char *path)
{
    if (!*path || *path == '/')
        return false;
    for (const char *p = path; *p;) {
        const size_t n = strcspn(p, "/");

        if (n == 0 || (n == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        p += n + (p[n] == '/');
    }
    return true;
}

enum err_code dataset_picture(const struct dataset *d, const json_t *row, struct buf *out,
                              struct err *err)
{
    const char *path = row_text(row, "image_path", "");
    int fd = -1;
    enum err_code rc;

    if (!inside(path))
        return err_set(err, ERR_INPUT, "record %s: image_path '%.200s' leads out of the dataset",
                       row_text(row, "id", "?"), path);
    rc = os_open_dir(AT_FDCWD, d->path, &fd, err);
    if (!rc)
        rc = os_read_file(fd, path, DATASET_PICTURE_MAX, out, err);
    os_close_quiet(&fd);
    return rc ? err_prefix(err, "record %s", row_text(row, "id", "?")) : OK;
}

/* ---- writing -------------------------------------------------------------------------------------- */

enum err_code dataset_create(const char *path, struct dataset_writer *out, struct err *err)
{
    enum err_code rc;

    *out = (struct dataset_writer){.dir = -1};
    rc = os_open_dir(AT_FDCWD, path, &out->dir, err);
    if (!rc)
        rc = os_mkdir(out->dir, "images", 0755, err);
    return rc;
}

enum err_code dataset_picture_put(struct dataset_writer *w, const void *p, size_t n,
                                  const char *ext, char path[DATASET_PATH_MAX], struct err *err)
{
    char hex[DIGEST_HEX + 1], aside[DATASET_PATH_MAX + 32], folder[16];
    struct digest d;
    uint64_t tag;
    int fd = -1;
    struct stat st;
    struct err absent = ERR_INIT;
    enum err_code rc;

    sha256_of(p, n, &d);
    digest_hex(&d, hex);
    (void)snprintf(folder, sizeof(folder), "images/%.2s", hex);
    (void)snprintf(path, DATASET_PATH_MAX, "%s/%s.%s", folder, hex, ext);
    if (os_stat_at(w->dir, path, &st, &absent) == OK)
        return OK;
    rc = os_mkdir(w->dir, folder, 0755, err);
    /* Two threads may bring the same picture: each writes aside, and the second rename changes nothing. */
    os_random(&tag, sizeof(tag));
    (void)snprintf(aside, sizeof(aside), "%s.%016llx", path, (unsigned long long)tag);
    if (!rc)
        rc = os_open(w->dir, aside, O_WRONLY | O_CREAT | O_EXCL, 0644, &fd, err);
    if (!rc)
        rc = os_write(fd, p, n, err);
    if (fd >= 0 && !rc)
        rc = os_close(&fd, err);
    os_close_quiet(&fd);
    return rc ? rc : os_rename(w->dir, aside, w->dir, path, err);
}

enum err_code dataset_add(struct dataset_writer *w, const json_t *row, struct err *err)
{
    struct buf line;
    struct dataset_item *item;
    enum err_code rc;

    CHECK(row_text(row, "id", NULL));
    buf_init(&line, DATASET_LINE_MAX);
    rc = json_canonical(row, &line, err);
    buf_char(&line, '\n');
    if (!rc)
        rc = buf_check(&line, "record", err);
    if (rc) {
        buf_release(&line);
        return err_prefix(err, "record %s", row_text(row, "id", "?"));
    }
    if (w->count == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 1024;
        w->items = mem_grow(w->items, w->cap, sizeof(*w->items));
    }
    item = &w->items[w->count++];
    item->id = mem_strdup(row_text(row, "id", ""));
    item->license = mem_strdup(row_text(row, "license_type", "NOASSERTION"));
    item->source = mem_strdup(row_text(row, "source", ""));
    item->line = buf_take(&line);
    return OK;
}

static int by_id(const void *a, const void *b)
{
    return strcmp(((const struct dataset_item *)a)->id, ((const struct dataset_item *)b)->id);
}

static int by_licence(const void *a, const void *b)
{
    const struct dataset_item *x = *(struct dataset_item *const *)a,
                              *y = *(struct dataset_item *const *)b;
    const int c = strcmp(x->license, y->license);

    return c ? c : strcmp(x->source, y->source);
}

static json_t *licence_list(const struct dataset_writer *w)
{
    struct dataset_item **order = mem_zero(w->count + 1, sizeof(struct dataset_item *));
    json_t *list = json_array();

    for (size_t i = 0; i < w->count; i++)
        order[i] = &w->items[i];
    qsort(order, w->count, sizeof(struct dataset_item *), by_licence);
    for (size_t i = 0, j; i < w->count; i = j) {
        for (j = i + 1; j < w->count && by_licence(&order[i], &order[j]) == 0;)
            j++;
        CHECK(json_array_append_new(
                  list, json_pack("{s:s,s:s,s:I,s:o}", "expression", order[i]->license, "source",
                                  order[i]->source, "pictures", (json_int_t)(j - i), "share",
                                  row_score((double)(j - i) / (double)w->count))) == 0);
    }
    free(order);
    return json_pack("{s:o}", "licenses", list);
}

enum err_code dataset_file(struct dataset_writer *w, const char *name, const json_t *v,
                           struct err *err)
{
    struct buf text;
    enum err_code rc;

    buf_init(&text, (size_t)256 << 20);
    rc = json_canonical(v, &text, err);
    buf_char(&text, '\n');
    if (!rc)
        rc = buf_check(&text, name, err);
    if (!rc)
        rc = os_write_file(w->dir, name, text.p, text.n, 0644, err);
    buf_release(&text);
    return rc;
}

enum err_code dataset_finish(struct dataset_writer *w, struct err *err)
{
    json_t *licences;
    struct buf text;
    enum err_code rc = OK;

    qsort(w->items, w->count, sizeof(*w->items), by_id);
    buf_init(&text, DATASET_TEXT_MAX);
    for (size_t i = 0; !rc && i < w->count; i++) {
        if (i > 0 && strcmp(w->items[i].id, w->items[i - 1].id) == 0)
            rc = err_set(err, ERR_INPUT, "two records have the id %.200s", w->items[i].id);
        buf_str(&text, w->items[i].line);
    }
    if (!rc)
        rc = buf_check(&text, DATASET_RECORDS, err);
    if (!rc)
        rc = os_write_file(w->dir, DATASET_RECORDS, text.p ? text.p : "", text.n, 0644, err);
    buf_release(&text);
    licences = licence_list(w);
    if (!rc)
        rc = dataset_file(w, "licenses.json", licences, err);
    json_decref(licences);
    return rc;
}

void dataset_writer_release(struct dataset_writer *w)
{
    for (size_t i = 0; i < w->count; i++) {
        free(w->items[i].id);
        free(w->items[i].line);
        free(w->items[i].license);
        free(w->items[i].source);
    }
    free(w->items);
    os_close_quiet(&w->dir);
    *w = (struct dataset_writer){.dir = -1};
}
