/* Members as they come: pictures, what is said about pictures, and the rest, which is counted. */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stages/data/idx.h"
#include "stages/data/unpack.h"
#include "stages/ingest/ingest.h"

#define MEMBERS_MAX 50000000
#define TOTAL_BYTES_MAX ((int64_t)1 << 42)

void ingest_skip(struct origin *o, const char *class, const char *member, const char *why)
{
    struct skip *s = NULL;

    for (size_t i = 0; i < o->skip_count; i++)
        if (strcmp(o->skips[i].class, class) == 0)
            s = &o->skips[i];
    if (!s) {
        CHECK(o->skip_count < sizeof(o->skips) / sizeof(o->skips[0]));
        s = &o->skips[o->skip_count++];
        s->class = class;
    }
    if (s->count < EXAMPLES) {
        struct buf text;

        buf_init(&text, 8192);
        buf_printf(&text, "%.4000s: %.400s", member, why);
        s->examples[s->count] = mem_strdup(text.p ? text.p : "");
        buf_release(&text);
    }
    s->count++;
}

struct walker {
    struct ingest *in;
    struct origin *o;
};

static bool matches(const char *globs, const char *member)
{
    for (const char *p = globs; *p;) {
        char one[512];
        const size_t n = strcspn(p, ",");

        if (n < sizeof(one)) {
            memcpy(one, p, n);
            one[n] = '\0';
            if (n > 0 && fnmatch(one, member, 0) == 0)
                return true;
        }
        p += n + (p[n] == ',');
    }
    return false;
}

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), m = strlen(end);

    return n >= m && strcmp(s + n - m, end) == 0;
}

static bool is_copyright(const char *member)
{
    return strcmp(member, "copyright") == 0 || ends_with(member, "/copyright");
}

static bool is_note(const char *member)
{
    return ends_with(member, ".txt") || ends_with(member, ".json");
}

static bool wanted(void *arg, const char *member)
{
    const struct walker *w = arg;

    if (is_copyright(member) || is_note(member))
        return true;
    return (!*w->in->o.include || matches(w->in->o.include, member)) &&
           !matches(w->in->o.exclude, member);
}

static void take_copyright(struct origin *o, const char *member, const void *p, size_t n)
{
    struct err why = ERR_INIT;
    struct dep5 *d = NULL;

    if (dep5_parse(p, n, &d, &why)) {
        o->free_copyright = true;
        ingest_skip(o, "copyright", member, why.text);
    } else if (o->dep5) {
        dep5_free(d);
        ingest_skip(o, "copyright", member, "a second copyright file; the first one counts");
    } else {
        o->dep5 = d;
    }
}

static enum err_code take_note(struct origin *o, const char *member, const void *p, size_t n,
                               struct err *err)
{
    struct note *note;

    if (n > NOTE_BYTES_MAX) {
        ingest_skip(o, "text", member, "longer than 64 KiB: not the caption of a picture");
        return OK;
    }
    o->note_bytes += (int64_t)n;
    if (o->note_bytes > NOTES_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "%s: texts beside pictures have more than 1 GiB", member);
    if (o->note_count == o->note_cap) {
        o->note_cap = o->note_cap ? 2 * o->note_cap : 256;
        o->notes = mem_grow(o->notes, o->note_cap, sizeof(*o->notes));
    }
    note = &o->notes[o->note_count++];
    note->json = ends_with(member, ".json");
    note->stem = mem_strndup(member, strlen(member) - (note->json ? 5 : 4));
    note->text = mem_strndup(p, n);
    note->n = n;
    return OK;
}

static enum err_code add(struct walker *w, const char *member, const void *p, size_t n, int width,
                         int height, struct err *err)
{
    struct origin *o = w->o;
    struct found *f;

    if (w->in->o.limit && (int64_t)o->count >= w->in->o.limit) {
        ingest_skip(o, "limit", member, "past the parameter limit");
        return OK;
    }
    if (o->count == o->cap) {
        o->cap = o->cap ? 2 * o->cap : 256;
        o->list = mem_grow(o->list, o->cap, sizeof(*o->list));
    }
    f = &o->list[o->count++];
    *f = (struct found){
        .member = mem_strdup(member), .label = -1, .byte_count = n, .grey_side = {width, height}};
    f->bytes = malloc(n + 1);
    if (!f->bytes)
        return err_set(err, ERR_LIMIT, "%s: no memory for its %zu bytes", member, n);
    memcpy(f->bytes, p, n);
    o->batch_bytes += (int64_t)n;
    if (o->count - o->batch_from < BATCH_PICTURES && o->batch_bytes < BATCH_BYTES)
        return OK;
    return ingest_normalise(w->in, o, err);
}

static enum err_code take_idx(struct walker *w, const char *member, const void *p, size_t n,
                              struct err *err)
{
    struct err why = ERR_INIT;
    struct idx idx;
    enum err_code rc = OK;

    if (idx_parse(p, n, &idx, &why)) {
        ingest_skip(w->o, "damaged", member, why.text);
        return OK;
    }
    if (idx.rows == 1 && idx.columns == 1) {
        struct labels *l;

        w->o->labels = mem_grow(w->o->labels, w->o->label_file_count + 1, sizeof(*w->o->labels));
        l = &w->o->labels[w->o->label_file_count++];
        *l = (struct labels){mem_strdup(member), malloc((size_t)idx.count + 1), (size_t)idx.count};
        CHECK(l->bytes); /* no larger than the member, which is in memory */
        memcpy(l->bytes, idx.bytes, l->count);
        return OK;
    }
    for (int64_t i = 0; !rc && i < idx.count; i++) {
        const size_t size = (size_t)idx.rows * (size_t)idx.columns;
        char name[4200];

        (void)snprintf(name, sizeof(name), "%.4000s/%06lld", member, (long long)i);
        rc = add(w, name, idx.bytes + (size_t)i * size, size, idx.columns, idx.rows, err);
        if (!rc)
            w->o->list[w->o->count - 1].index = i;
        if (w->in->o.limit && (int64_t)w->o->count >= w->in->o.limit)
            break;
    }
    return rc;
}

static enum err_code on_file(void *arg, const char *member, const void *p, size_t n,
                             struct err *err)
{
    struct walker *w = arg;

    if (stage_stopping())
        return stage_stopped(err);
    w->o->files++;
    if (is_copyright(member)) {
        take_copyright(w->o, member, p, n);
        return OK;
    }
    if (pic_sniff(p, n) != PIC_FORMAT_NONE)
        return add(w, member, p, n, 0, 0, err);
    if (is_note(member))
        return take_note(w->o, member, p, n, err);
    if (idx_sniff(p, n))
        return take_idx(w, member, p, n, err);
    if (n == 0)
        ingest_skip(w->o, "empty", member, "the file has no bytes");
    else
        ingest_skip(w->o, "no picture", member, "neither PNG, JPEG, WebP nor IDX");
    return OK;
}

static void on_skip(void *arg, const char *member, const char *why)
{
    struct walker *w = arg;

    ingest_skip(w->o, "unread", member, why);
}

static int by_stem(const void *a, const void *b)
{
    const struct note *x = a, *y = b;
    const int c = strcmp(x->stem, y->stem);

    return c ? c : (int)x->json - (int)y->json;
}

/* "train-images-idx3-ubyte/000017" has its label in "train-labels-idx1-ubyte". */
static void find_label(const struct origin *o, struct found *f)
{
    const char *slash = strrchr(f->member, '/'), *p;
    struct buf name;

    if (!f->grey_side[0] || !slash)
        return;
    buf_init(&name, 8192);
    for (p = f->member; p < slash;) {
        if (strncmp(p, "images", 6) == 0) {
            buf_str(&name, "labels");
            p += 6;
        } else if (strncmp(p, "idx3", 4) == 0) {
            buf_str(&name, "idx1");
            p += 4;
        } else {
            buf_char(&name, *p++);
        }
    }
    for (size_t i = 0; i < o->label_file_count; i++)
        if (name.p && strcmp(o->labels[i].name, name.p) == 0 &&
            (size_t)f->index < o->labels[i].count)
            f->label = o->labels[i].bytes[f->index];
    buf_release(&name);
}

enum err_code ingest_walk(struct ingest *in, struct origin *o, const char *path, struct err *err)
{
    struct walker w = {in, o};
    const struct unpack_rules rules = {
        in->o.member_bytes_max, MEMBERS_MAX, TOTAL_BYTES_MAX, on_file, on_skip, wanted, &w};
    enum err_code rc = unpack_walk(path, &rules, err);

    if (!rc)
        rc = ingest_normalise(in, o, err);
    if (!rc && o->note_count > 1)
        qsort(o->notes, o->note_count, sizeof(*o->notes), by_stem);
    for (size_t i = 0; !rc && i < o->count; i++)
        find_label(o, &o->list[i]);
    return rc;
}
