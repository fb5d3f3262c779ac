/* The report: one JSON value, and the same told in HTML with pictures inside the file, so that it can be sent around alone. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "stages/data-profile/profile.h"

#define REPORT_MAX (64 << 20)
#define THUMB 96
#define TOP_TAGS 40

static void bump(json_t *counts, const char *key)
{
    const json_t *v = json_object_get(counts, key);

    CHECK(json_object_set_new(counts, key, json_integer(json_integer_value(v) + 1)) == 0);
}

static int by_rank(const void *a, const void *b)
{
    const struct tag *x = *(struct tag *const *)a, *y = *(struct tag *const *)b;

    if (x->rank < y->rank || x->rank > y->rank)
        return x->rank < y->rank ? 1 : -1;
    return strcmp(x->word, y->word);
}

static json_t *top_tags(const struct profile *p)
{
    struct tag **order = mem_zero((size_t)p->tag_count + 1, sizeof(*order));
    json_t *list = json_array();

    for (int32_t i = 0; i < p->tag_count; i++)
        order[i] = &p->tags[i];
    qsort(order, (size_t)p->tag_count, sizeof(*order), by_rank);
    for (int32_t i = 0; i < p->tag_count && i < TOP_TAGS; i++)
        CHECK(json_array_append_new(list, json_pack("{s:s,s:I,s:o}", "tag", order[i]->word, "rows",
                                                    (json_int_t)order[i]->rows, "pagerank",
                                                    row_score(order[i]->rank))) == 0);
    free(order);
    return list;
}

static json_t *numbers(const struct profile *p)
{
    json_t *sources = json_object(), *licences = json_object(), *languages = json_object(),
           *removed = json_object();
    int64_t kept = 0, quarantine = 0;

    for (int64_t i = 0; i < p->count; i++) {
        const struct item *it = &p->items[i];

        if (it->removed) {
            bump(removed, it->removed);
            continue;
        }
        kept++;
        quarantine += json_is_true(json_object_get(it->row, "quarantine"));
        bump(sources, it->source);
        bump(licences, row_text(it->row, "license_type", "NOASSERTION"));
        bump(languages, row_text(it->row, "language", "none"));
    }
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:o,s:o,s:o,s:o}", "rows", (json_int_t)p->count,
                     "kept", (json_int_t)kept, "quarantine", (json_int_t)quarantine, "tags",
                     (json_int_t)p->tag_count, "exact_duplicates", (json_int_t)p->exact,
                     "near_duplicates", (json_int_t)p->near, "sources", sources, "licenses",
                     licences, "languages", languages, "removed", removed, "top_tags", top_tags(p));
}

/* ---- HTML ----------------------------------------------------------------------------------------- */

static void add_text(struct buf *out, const char *s)
{
    for (; *s; s++) {
        if (*s == '<')
            buf_str(out, "&lt;");
        else if (*s == '&')
            buf_str(out, "&amp;");
        else if (*s == '"')
            buf_str(out, "&quot;");
        else
            buf_char(out, *s);
    }
}

static void add_base64(struct buf *out, const char *text, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = (const unsigned char *)text;

    for (size_t i = 0; i < n; i += 3) {
        const unsigned v = (unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) |
                           (i + 2 < n ? p[i + 2] : 0);

        buf_char(out, digits[v >> 18]);
        buf_char(out, digits[v >> 12 & 63]);
        buf_char(out, i + 1 < n ? digits[v >> 6 & 63] : '=');
        buf_char(out, i + 2 < n ? digits[v & 63] : '=');
    }
}

static enum err_code add_picture(const struct item *it, const char *note, struct buf *out,
                                 struct err *err)
{
    struct pic pic = {0}, small = {0};
    struct pic_info info;
    struct buf bytes, png;
    enum err_code rc;

    buf_init(&bytes, DATASET_PICTURE_MAX);
    buf_init(&png, REPORT_MAX);
    rc = dataset_picture(it->set, it->row, &bytes, err);
    if (!rc)
        rc = pic_decode(bytes.p ? bytes.p : "", bytes.n, NULL, &pic, &info, err);
    if (!rc && (pic.width > THUMB || pic.height > THUMB)) {
        const int longest = pic.width > pic.height ? pic.width : pic.height;
        const int w = pic.width * THUMB / longest, h = pic.height * THUMB / longest;

        rc = pic_resize(&pic, w > 0 ? w : 1, h > 0 ? h : 1, PIC_AREA, &small, err);
    }
    if (!rc)
        rc = pic_encode_png(small.px ? &small : &pic, &png, err);
    if (!rc) {
        buf_str(out, "<figure><img src=\"data:image/png;base64,");
        add_base64(out, png.p, png.n);
        buf_str(out, "\" alt=\"\"><figcaption>");
        add_text(out, row_text(it->row, "short_caption", it->id));
        buf_str(out, "<br><small>");
        add_text(out, note);
        buf_str(out, "</small></figcaption></figure>\n");
    }
    pic_release(&pic);
    pic_release(&small);
    buf_release(&bytes);
    buf_release(&png);
    return rc;
}

static void add_table(struct buf *out, const char *title, json_t *counts)
{
    const char *key;
    json_t *v;

    buf_printf(out, "<h2>%s</h2><table>\n", title);
    json_object_foreach(counts, key, v)
    {
        buf_str(out, "<tr><td>");
        add_text(out, key);
        buf_printf(out, "<td>%lld</tr>\n", (long long)json_integer_value(v));
    }
    buf_str(out, "</table>\n");
}

static enum err_code add_removed(const struct profile *p, json_t *removed, struct buf *out,
                                 struct err *err)
{
    const char *why;
    json_t *v;
    enum err_code rc = OK;

    json_object_foreach(removed, why, v)
    {
        int64_t left = stage_int(p->task, "examples");

        buf_printf(out, "<h3>left out by %s: %lld</h3>\n", why, (long long)json_integer_value(v));
        for (int64_t i = 0; !rc && i < p->count && left > 0; i++)
            if (p->items[i].removed && strcmp(p->items[i].removed, why) == 0) {
                rc = add_picture(&p->items[i], p->items[i].source, out, err);
                left--;
            }
    }
    return rc;
}

static enum err_code add_duplicates(const struct profile *p, struct buf *out, struct err *err)
{
    int64_t left = stage_int(p->task, "examples");
    enum err_code rc = OK;

    buf_str(out, "<h2>duplicates</h2>\n");
    for (int64_t i = 0; !rc && i < p->count && left > 0; i++) {
        if (p->items[i].group == i)
            continue;
        buf_str(out, "<div>");
        rc = add_picture(&p->items[p->items[i].group], "the one that stays", out, err);
        if (!rc)
            rc = add_picture(&p->items[i], p->items[i].id, out, err);
        buf_str(out, "</div>\n");
        left--;
    }
    return rc;
}

struct order {
    double quality;
    int64_t i;
};

static int by_quality(const void *a, const void *b)
{
    const struct order *x = a, *y = b;

    if (x->quality < y->quality || x->quality > y->quality)
        return x->quality < y->quality ? -1 : 1;
    return (x->i > y->i) - (x->i < y->i);
}

static enum err_code add_extremes(const struct profile *p, struct buf *out, struct err *err)
{
    struct order *order = mem_zero((size_t)p->count + 1, sizeof(*order));
    const int64_t n =
        stage_int(p->task, "examples") < p->count ? stage_int(p->task, "examples") : p->count;
    enum err_code rc = OK;

    for (int64_t i = 0; i < p->count; i++)
        order[i] = (struct order){p->items[i].quality, i};
    qsort(order, (size_t)p->count, sizeof(*order), by_quality);
    buf_str(out, "<h2>lowest quality</h2>\n");
    for (int64_t i = 0; !rc && i < n; i++)
        rc = add_picture(&p->items[order[i].i], p->items[order[i].i].id, out, err);
    buf_str(out, "<h2>highest quality</h2>\n");
    for (int64_t i = 0; !rc && i < n; i++)
        rc = add_picture(&p->items[order[p->count - 1 - i].i],
                         p->items[order[p->count - 1 - i].i].id, out, err);
    free(order);
    return rc;
}

static enum err_code html(const struct profile *p, json_t *all, struct buf *out, struct err *err)
{
    enum err_code rc;

    buf_str(out,
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>data profile</title>\n"
            "<style>body{font:15px/1.4 sans-serif;margin:2em;max-width:70em}td{padding:0 1em 0 0}"
            "figure{display:inline-block;margin:.4em;vertical-align:top;max-width:110px}"
            "figcaption{font-size:12px;overflow-wrap:anywhere}img{background:#eee;max-width:100%}</"
            "style>\n");
    buf_printf(out,
               "<h1>Data profile</h1><p>%lld rows, %lld kept; %lld exact and %lld near duplicates; "
               "%lld in quarantine.</p>\n",
               (long long)p->count, (long long)json_integer_value(json_object_get(all, "kept")),
               (long long)p->exact, (long long)p->near,
               (long long)json_integer_value(json_object_get(all, "quarantine")));
    add_table(out, "sources", json_object_get(all, "sources"));
    add_table(out, "licences", json_object_get(all, "licenses"));
    add_table(out, "languages of captions", json_object_get(all, "languages"));
    add_table(out, "left out", json_object_get(all, "removed"));
    rc = add_removed(p, json_object_get(all, "removed"), out, err);
    if (!rc)
        rc = add_duplicates(p, out, err);
    if (!rc)
        rc = add_extremes(p, out, err);
    buf_str(out, "</html>\n");
    return rc ? rc : buf_check(out, "report.html", err);
}

/* Pictures are read from the input again: some of them are not in the output. */
enum err_code profile_report(struct profile *p, struct err *err)
{
    json_t *all = numbers(p);
    struct buf text, page;
    const char *path;
    int dir = -1;
    enum err_code rc = stage_output_dir(p->task, "report", &path, err);

    buf_init(&text, REPORT_MAX);
    buf_init(&page, REPORT_MAX);
    if (rc || !path)
        goto out;
    rc = json_canonical(all, &text, err);
    buf_char(&text, '\n');
    if (!rc)
        rc = html(p, all, &page, err);
    if (!rc)
        rc = os_open_dir(AT_FDCWD, path, &dir, err);
    if (!rc)
        rc = os_write_file(dir, "report.json", text.p, text.n, 0644, err);
    if (!rc)
        rc = os_write_file(dir, "report.html", page.p, page.n, 0644, err);
out:
    os_close_quiet(&dir);
    buf_release(&text);
    buf_release(&page);
    json_decref(all);
    return rc;
}
