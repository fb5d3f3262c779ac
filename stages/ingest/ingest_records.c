/* Records: what is known of each picture, from all witnesses. */
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "stages/data/claim.h"
#include "stages/ingest/ingest.h"

#define CAPTION_MAX 2000

/* ---- the sidecar ---------------------------------------------------------------------------------- */

/* The member of a row that means key: the one named in fields, else the one of that name. */
static const char *field(const struct ingest *in, const json_t *row, const char *key)
{
    const size_t n = strlen(key);

    for (const char *p = in->o.fields; *p;) {
        const size_t len = strcspn(p, ",");

        if (len > n + 1 && strncmp(p, key, n) == 0 && p[n] == '=') {
            char name[128];

            (void)snprintf(name, sizeof(name), "%.*s", (int)(len - n - 1 < 127 ? len - n - 1 : 127),
                           p + n + 1);
            return row_text(row, name, NULL);
        }
        p += len + (p[len] == ',');
    }
    return row_text(row, key, NULL);
}

static const struct ingest *sorting; /* qsort has no argument; one thread sorts once */

static int by_path(const void *a, const void *b)
{
    return strcmp(field(sorting, *(json_t *const *)a, "path"),
                  field(sorting, *(json_t *const *)b, "path"));
}

enum err_code ingest_sidecar(struct ingest *in, const char *path, struct err *err)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    struct buf text;
    size_t n;
    enum err_code rc;

    buf_init(&text, DATASET_TEXT_MAX);
    rc = os_read_file(AT_FDCWD, path, DATASET_TEXT_MAX, &text, err);
    n = text.n;
    if (!rc)
        rc = lines_split(buf_take(&text), n, &in->records, err);
    buf_release(&text);
    if (rc)
        return err_prefix(err, "%s", name);
    in->record_rows = mem_zero((size_t)in->records.count + 1, sizeof(*in->record_rows));
    for (int64_t i = 0; !rc && i < in->records.count; i++) {
        json_t *row;
        const char *lic;

        rc = lines_row(&in->records, i, name, &row, err);
        if (rc)
            break;
        in->record_rows[in->record_count++] = row;
        lic = field(in, row, "license");
        if (!field(in, row, "path"))
            rc = err_set(err, ERR_INPUT,
                         "%s:%d: no \"path\"; the parameter fields can name another member", name,
                         in->records.number[i]);
        else if (lic && claim_expression_check(lic, err))
            rc = err_prefix(err, "%s:%d", name, in->records.number[i]);
    }
    if (rc)
        return rc;
    sorting = in;
    qsort(in->record_rows, in->record_count, sizeof(*in->record_rows), by_path);
    for (size_t i = 1; i < in->record_count; i++)
        if (by_path(&in->record_rows[i - 1], &in->record_rows[i]) == 0)
            return err_set(err, ERR_INPUT, "%s: two lines for '%.300s'", name,
                           field(in, in->record_rows[i], "path"));
    return OK;
}

static const json_t *find_row(const struct ingest *in, const char *member)
{
    size_t low = 0, high = in->record_count;

    while (low < high) {
        const size_t middle = (low + high) / 2;
        const int c = strcmp(field(in, in->record_rows[middle], "path"), member);

        if (c == 0)
            return in->record_rows[middle];
        if (c < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* ---- captions ------------------------------------------------------------------------------------- */

static size_t stem_length(const char *member)
{
    const char *slash = strrchr(member, '/'), *dot = strrchr(member, '.');

    return dot && (!slash || dot > slash + 1) ? (size_t)(dot - member) : strlen(member);
}

static const struct note *find_note(const struct origin *o, const char *member, bool json)
{
    const size_t n = stem_length(member);
    size_t low = 0, high = o->note_count;

    while (low < high) {
        const size_t middle = (low + high) / 2;
        const struct note *note = &o->notes[middle];
        int c = strncmp(note->stem, member, n);

        if (c == 0 && note->stem[n])
            c = 1;
        if (c == 0 && note->json != json)
            c = note->json ? 1 : -1;
        if (c == 0)
            return note;
        if (c < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static bool is_utf8(const char *s)
{
    json_t *v = json_string(s);
    const bool ok = v != NULL;

    json_decref(v);
    return ok;
}

static void set_caption(json_t *row, const char *key, const char *p, size_t n)
{
    char *s;

    while (n > 0 && isspace((unsigned char)p[n - 1]))
        n--;
    while (n > 0 && isspace((unsigned char)*p)) {
        p++;
        n--;
    }
    if (n == 0 || n > CAPTION_MAX)
        return;
    s = mem_strndup(p, n);
    if (is_utf8(s))
        row_set(row, key, json_string(s));
    free(s);
}

/* First line English; further ones may be LANGUAGE=TEXT, as in tuxpaint's stamps. */
static void caption_from_text(json_t *row, const struct note *note)
{
    const char *p = note->text;

    set_caption(row, "short_caption", p, strcspn(p, "\n"));
    for (p += strcspn(p, "\n"); *p; p += strcspn(p, "\n")) {
        p++;
        if (strncmp(p, "zh_CN", 5) == 0 && strchr(p, '=') &&
            strchr(p, '=') < p + strcspn(p, "\n")) {
            const char *eq = strchr(p, '=') + 1;

            set_caption(row, "short_caption_zh", eq, strcspn(eq, "\n"));
        }
    }
}

/* "food/Red_apple-2.png" -> "red apple" */
static void caption_from_stem(json_t *row, const char *member)
{
    const char *slash = strrchr(member, '/'), *from = slash ? slash + 1 : member;
    const size_t n = stem_length(member) - (size_t)(from - member);
    struct buf words;

    buf_init(&words, CAPTION_MAX);
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)from[i];

        if (isalpha(c) || c >= 0x80)
            buf_char(&words, (char)tolower(c));
        else if (words.n > 0 && words.p[words.n - 1] != ' ')
            buf_char(&words, ' ');
    }
    if (words.p)
        set_caption(row, "short_caption", words.p, words.n);
    buf_release(&words);
}

static void take_fields(const struct ingest *in, const json_t *from, json_t *row)
{
    static const char *const pairs[][2] = {
        {"caption", "short_caption"},   {"caption_zh", "short_caption_zh"},
        {"attribution", "attribution"}, {"url", "url"},
        {"concept", "concept"},         {"caption_license", "caption_license"}};

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        const char *v = field(in, from, pairs[i][0]);

        if (v)
            set_caption(row, pairs[i][1], v, strlen(v));
    }
}

static void label_caption(const struct ingest *in, const struct found *f, json_t *row)
{
    const char *p = in->o.labels;

    for (int i = 0; *p && i < f->label; i++)
        p += strcspn(p, ",") + (p[strcspn(p, ",")] == ',');
    if (f->label >= 0 && *p)
        set_caption(row, "short_caption", p, strcspn(p, ","));
}

static void captions(const struct ingest *in, const struct origin *o, const struct found *f,
                     const json_t *sidecar, json_t *row)
{
    const struct note *text = find_note(o, f->member, false), *json = find_note(o, f->member, true);
    const bool wanted = strcmp(in->o.caption, "none") != 0;

    if (wanted && f->label >= 0)
        label_caption(in, f, row);
    else if (wanted && !f->grey_side[0])
        caption_from_stem(row, f->member);
    if (strcmp(in->o.caption, "auto") == 0 && text)
        caption_from_text(row, text);
    if (strcmp(in->o.caption, "auto") == 0 && json) {
        struct err ignored = ERR_INIT;
        json_t *v = NULL;

        if (json_parse(json->text, json->n, NOTE_BYTES_MAX, "sidecar", &v, &ignored) == OK &&
            json_is_object(v)) {
            take_fields(in, v, row);
            if (!json_is_string(json_object_get(row, "short_caption")) ||
                row_text(v, "short_caption", NULL))
                set_caption(row, "short_caption", row_text(v, "short_caption", ""),
                            strlen(row_text(v, "short_caption", "")));
        }
        json_decref(v);
    }
    if (sidecar)
        take_fields(in, sidecar, row);
}

/* ---- claims --------------------------------------------------------------------------------------- */

static json_t *claims_of(const struct ingest *in, const struct origin *o, const struct found *f,
                         const json_t *sidecar, json_t *row)
{
    const char *lic = sidecar ? field(in, sidecar, "license") : NULL;
    json_t *claims = json_array();
    struct dep5_answer a;

    if (lic)
        claim_add(claims, lic, CLAIM_RECORD, "records");
    if (*in->o.license)
        claim_add(claims, in->o.license, CLAIM_PACKAGE, "declared");
    if (o->dep5 && dep5_find(o->dep5, f->member, &a)) {
        char by[600];

        (void)snprintf(by, sizeof(by), "dep5:%.500s%s", a.pattern, a.stale ? " (stale glob)" : "");
        claim_add(claims, a.lic, a.everything ? CLAIM_PACKAGE : CLAIM_PATH, by);
        if (a.later)
            claim_add(claims, a.later, a.everything ? CLAIM_PACKAGE : CLAIM_PATH,
                      "dep5: licence text says \"or any later version\"");
        if (*a.holder && is_utf8(a.holder) && !row_text(row, "attribution", NULL))
            row_set(row, "attribution", json_string(a.holder));
    }
    return claims;
}

static void licences(const struct ingest *in, const struct origin *o, const struct found *f,
                     const json_t *sidecar, json_t *row)
{
    json_t *claims = claims_of(in, o, f, sidecar, row);
    const struct claim_verdict v = claim_conclude(claims);

    row_set(row, "image_claims", claims);
    row_set(row, "license_type", json_string(v.lic));
    row_set(row, "concluded_license", json_string(v.lic));
    row_set(row, "license_rule", json_string(v.rule));
    row_set(row, "quarantine", json_boolean(v.quarantine));
    if (!row_text(row, "caption_license", NULL))
        row_set(row, "caption_license", json_string(in->o.caption_license));
    if (!row_text(row, "attribution", NULL))
        row_set(row, "attribution",
                *in->o.attribution ? json_string(in->o.attribution) : json_null());
}

/* ---- rows ----------------------------------------------------------------------------------------- */

static void categories(const char *member, json_t *row)
{
    const char *slash = strrchr(member, '/');
    json_t *list = json_array();

    if (slash) {
        const char *from = slash;
        char *folder;

        while (from > member && from[-1] != '/')
            from--;
        folder = mem_strndup(from, (size_t)(slash - from));
        if (*folder && is_utf8(folder))
            CHECK(json_array_append_new(list, json_string(folder)) == 0);
        free(folder);
    }
    row_set(row, "semantic_categories", list);
}

/* Names in JSON: bytes that are no UTF-8 are written %XX, as everywhere in weir. */
static char *escaped(const char *name)
{
    struct buf out;
    char *s;

    buf_init(&out, 3 * strlen(name) + 16);
    json_name_escape(&out, name, strlen(name));
    s = buf_take(&out);
    buf_release(&out);
    return s ? s : mem_strdup("");
}

static void measured(const struct found *f, json_t *row)
{
    const double pixels = (double)f->info.width * f->info.height;

    row_set(row, "width", json_integer(f->width));
    row_set(row, "height", json_integer(f->height));
    row_set(row, "aspect_ratio", row_score((double)f->width / f->height));
    row_set(row, "compression_score", row_score((double)f->file_bytes / (3 * pixels)));
    row_set(row, "original",
            json_pack("{s:s,s:i,s:i,s:I,s:i,s:o,s:o}", "format",
                      f->grey_side[0] ? "idx" : pic_format_word(f->info.format), "width",
                      f->info.width, "height", f->info.height, "bytes", (json_int_t)f->file_bytes,
                      "depth", f->info.depth, "blockiness", row_score(f->blockiness), "grid",
                      row_score(f->grid)));
}

static enum err_code write_row(struct ingest *in, const struct origin *o, const struct found *f,
                               const json_t *sidecar, int again, struct err *err)
{
    json_t *row = row_new();
    char *member = escaped(f->member), *source = escaped(o->name);
    enum err_code rc;

    row_set(row, "id",
            again ? json_sprintf("%s/%s#%d", source, member, again + 1)
                  : json_sprintf("%s/%s", source, member));
    row_set(row, "source", json_string(source));
    row_set(row, "member", json_string(member));
    row_set(row, "image_path", json_string(f->path));
    row_set(row, "original_sha256", json_string(f->sha256));
    row_set(row, "dup_of", json_null());
    row_set(row, "truth", json_null());
    measured(f, row);
    categories(member, row);
    captions(in, o, f, sidecar, row);
    licences(in, o, f, sidecar, row);
    if (!row_text(row, "concept", NULL))
        row_set(row, "concept",
                row_text(row, "short_caption", NULL)
                    ? json_string(row_text(row, "short_caption", ""))
                    : json_null());
    row_set(row, "language",
            row_text(row, "short_caption", NULL)      ? json_string("en")
            : row_text(row, "short_caption_zh", NULL) ? json_string("zh")
                                                      : json_null());
    rc = dataset_add(&in->out, row, err);
    json_decref(row);
    free(member);
    free(source);
    return rc;
}

static json_t *report(const struct ingest *in)
{
    json_t *sources = json_array();

    for (size_t i = 0; i < in->origin_count; i++) {
        const struct origin *o = &in->origins[i];
        json_t *skips = json_array();
        char *name = escaped(o->name);
        int64_t kept = 0;

        for (size_t k = 0; k < o->count; k++)
            kept += !o->list[k].skip;
        for (size_t k = 0; k < o->skip_count; k++) {
            json_t *examples = json_array();

            for (int j = 0; j < EXAMPLES && o->skips[k].examples[j]; j++) {
                char *text = escaped(o->skips[k].examples[j]);

                CHECK(json_array_append_new(examples, json_string(text)) == 0);
                free(text);
            }
            CHECK(json_array_append_new(
                      skips, json_pack("{s:s,s:I,s:o}", "reason", o->skips[k].class, "count",
                                       (json_int_t)o->skips[k].count, "examples", examples)) == 0);
        }
        CHECK(json_array_append_new(sources, json_pack("{s:s,s:I,s:I,s:I,s:o}", "source", name,
                                                       "files", (json_int_t)o->files, "pictures",
                                                       (json_int_t)o->count, "kept",
                                                       (json_int_t)kept, "skipped", skips)) == 0);
        free(name);
    }
    return json_pack("{s:o}", "sources", sources);
}

static int by_member(const void *a, const void *b)
{
    return strcmp(((const struct found *)a)->member, ((const struct found *)b)->member);
}

/* A tar may hold one name twice: then the contents decide which comes first. */
static int by_member_and_bytes(const void *a, const void *b)
{
    const int c = by_member(a, b);

    return c ? c : strcmp(((const struct found *)a)->sha256, ((const struct found *)b)->sha256);
}

enum err_code ingest_records(struct ingest *in, struct err *err)
{
    size_t used = 0;
    json_t *text;
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < in->origin_count; i++) {
        struct origin *o = &in->origins[i];
        int again = 0;

        if (o->count > 1)
            qsort(o->list, o->count, sizeof(*o->list), by_member_and_bytes);
        for (size_t k = 0; !rc && k < o->count; k++) {
            const json_t *sidecar = find_row(in, o->list[k].member);

            again = k > 0 && by_member(&o->list[k - 1], &o->list[k]) == 0 ? again + 1 : 0;
            used += sidecar != NULL && !again;
            if (!o->list[k].skip)
                rc = write_row(in, o, &o->list[k], sidecar, again, err);
        }
    }
    if (!rc && in->out.count == 0)
        rc = err_set(err, ERR_INPUT, "no picture was found; see --help for what is read");
    text = report(in);
    row_set(text, "records_without_picture", json_integer((json_int_t)(in->record_count - used)));
    if (!rc)
        rc = dataset_file(&in->out, "ingest.json", text, err);
    json_decref(text);
    if (!rc)
        rc = dataset_finish(&in->out, err);
    if (!rc)
        stage_progress(in->task, (int64_t)in->out.count, (int64_t)in->out.count, "pictures", NULL);
    return rc;
}
