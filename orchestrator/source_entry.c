/* Entry records: {"weir":"entry/1","kind","digest","license","attribution","url","package","records","time"}, absent members left out.
 *
 * One is made when these bytes come in under this licence for the first time in this store; the same things coming in again find it,
 * through an action whose description is all but the time.  Its records file was checked against the artifact then, so it is not read
 * again either. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/os.h"
#include "orchestrator/licence.h"
#include "orchestrator/source_internal.h"
#include "store/action.h"
#include "store/reader.h"
#include "store/tree.h"

#define ENTRY_BYTES_MAX (64 << 10)

static const char *kind_word(enum obj_kind k)
{
    return k == OBJ_TREE ? "tree" : "blob";
}

static enum err_code no_memory(struct err *err)
{
    return err_set(err, ERR_LIMIT, "out of memory for an entry record");
}

/* A name and password in a URL are nobody's business. */
static json_t *url_json(const char *url)
{
    const char *rest = strstr(url, "://");
    const size_t host = rest ? strcspn(rest + 3, "/?#") : 0;
    const char *at = rest ? memrchr(rest + 3, '@', host) : NULL;
    struct buf b;
    json_t *v;

    if (!at)
        return json_string(url);
    buf_init(&b, strlen(url) + 1);
    buf_add(&b, url, (size_t)(rest + 3 - url));
    buf_str(&b, at + 1);
    v = json_string(b.p);
    buf_release(&b);
    return v;
}

static enum err_code describe(const struct entry_wanted *w, json_t **out, struct err *err)
{
    const struct source *s = w->source;
    char digest[DIGEST_TEXT + 1], records[DIGEST_TEXT + 1], deb[DIGEST_TEXT + 1];
    json_t *o;
    int bad = 0;

    digest_text(&w->object->digest, digest);
    o = json_pack("{s:s,s:s,s:s,s:s}", "weir", "entry/1", "kind", kind_word(w->object->kind),
                  "digest", digest, "license", s->license);
    if (s->attribution)
        bad |= json_object_set_new(o, "attribution", json_string(s->attribution));
    if (w->url)
        bad |= json_object_set_new(o, "url", url_json(w->url));
    if (w->row) {
        digest_text(&w->row->sha256, deb);
        bad |= json_object_set_new(o, "package",
                                   json_pack("{s:s,s:s,s:s,s:s}", "name", w->row->location,
                                             "version", w->row->version, "architecture",
                                             w->row->arch, "sha256", deb + strlen("sha256:")));
    }
    if (w->records) {
        digest_text(w->records, records);
        bad |= json_object_set_new(o, "records", json_string(records));
    }
    *out = o;
    if (o && !bad)
        return OK;
    json_decref(o);
    return no_memory(err);
}

/* ---- records files -------------------------------------------------------------------------------- */

struct listing { /* the paths of all files of a tree, sorted */
    struct arena arena;
    const char **paths;
    size_t count, cap;
};

/* NOLINTNEXTLINE(misc-no-recursion): bounded by TREE_DEPTH_MAX */
static enum err_code list_tree(struct store *st, const struct digest *id, const char *prefix,
                               int depth, struct listing *l, struct err *err)
{
    struct tree t = {0};
    struct buf text;
    enum err_code rc;

    if (depth > TREE_DEPTH_MAX)
        return err_set(err, ERR_LIMIT, "folders more than %d deep", TREE_DEPTH_MAX);
    buf_init(&text, TREE_BYTES_MAX);
    rc = object_read(st, id, TREE_BYTES_MAX, &text, err);
    if (!rc)
        rc = tree_decode(text.p, text.n, -1, "a folder", &t, err);
    buf_release(&text);
    for (size_t i = 0; !rc && i < t.count; i++) {
        const struct tree_entry *e = &t.entries[i];
        const char *path = arena_printf(&l->arena, "%s%s", prefix, e->name.p);

        if (e->mode == TREE_DIR) {
            rc = list_tree(st, &e->digest, arena_printf(&l->arena, "%s/", path), depth + 1, l, err);
            continue;
        }
        if (l->count == l->cap) {
            l->cap = l->cap ? l->cap * 2 : 256;
            l->paths = mem_grow(l->paths, l->cap, sizeof(*l->paths));
        }
        l->paths[l->count++] = path;
    }
    tree_release(&t);
    return rc;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

struct judging {
    const struct entry_wanted *want;
    const struct listing *files;
};

static enum err_code judge_row(void *arg, const struct record_row *row, struct err *err)
{
    const struct judging *j = arg;
    const char *near;

    if (bsearch(&row->path, j->files->paths, j->files->count, sizeof(char *), by_text))
        return OK;
    near = str_nearest(row->path, j->files->paths, j->files->count);
    return err_set(err, ERR_INPUT, "%s:%d: no file of the source is called %.200s%s%.200s%s",
                   j->want->records_path, row->line, row->path, near ? "; did you mean " : "",
                   near ? near : "", near ? "?" : "; paths are relative to the source's folder");
}

/* The session's objects can be read only after its commit; so a source that is new is committed before its records are judged. */
static enum err_code check_records(struct sources *s, struct enter *e,
                                   const struct entry_wanted *want, struct err *err)
{
    const char *slash = strrchr(want->source->location, '/');
    struct listing files = {0};
    struct judging j = {.want = want, .files = &files};
    struct buf text;
    enum err_code rc = OK;

    buf_init(&text, RECORDS_BYTES_MAX);
    arena_init(&files.arena);
    if (writer_has_news(e->w))
        rc = writer_commit(e->w, err);
    if (!rc && want->object->kind == OBJ_TREE) {
        rc = list_tree(s->st, &want->object->digest, "", 0, &files, err);
    } else if (!rc) {
        files.paths = mem_grow(NULL, 1, sizeof(*files.paths));
        files.paths[files.count++] = slash ? slash + 1 : want->source->location;
    }
    if (!rc && files.count > 1)
        qsort(files.paths, files.count, sizeof(*files.paths), by_text);
    if (!rc)
        rc = object_read(s->st, want->records, RECORDS_BYTES_MAX, &text, err);
    if (!rc)
        rc = records_parse(text.p ? text.p : "", text.n, want->records_path, judge_row, &j, err);
    if (!rc) {
        json_t *sum = NULL;

        rc = source_records_sum(s->st, e, want->records, want->records_path, &sum, err);
        json_decref(sum);
    }
    buf_release(&text);
    arena_release(&files.arena);
    free(files.paths);
    return rc;
}

/* ---- making them ---------------------------------------------------------------------------------- */

static void time_text(char out[32])
{
    const int64_t now = os_now_ns();
    const time_t s = (time_t)(now / 1000000000);
    struct tm tm;

    CHECK(gmtime_r(&s, &tm) != NULL);
    CHECK(strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) > 0);
}

static enum err_code make(struct sources *s, struct enter *e, const struct entry_wanted *want,
                          const json_t *description, struct err *err)
{
    struct digest key, *record = &want->object->entry;
    char now[32];
    json_t *full = NULL;
    struct buf text;
    enum err_code rc = OK;

    buf_init(&text, ENTRY_BYTES_MAX);
    if (want->records)
        rc = check_records(s, e, want, err);
    if (!rc) {
        time_text(now);
        full = json_copy((json_t *)(uintptr_t)description);
        if (!full || json_object_set_new(full, "time", json_string(now)))
            rc = no_memory(err);
    }
    if (!rc)
        rc = json_canonical(full, &text, err);
    if (!rc)
        rc = buf_check(&text, "entry record", err);
    if (!rc)
        rc = writer_put(e->w, OBJ_BLOB, text.p, text.n, record, err);
    if (!rc)
        rc = action_put(e->w, description, record, &key, err);
    json_decref(full);
    buf_release(&text);
    return rc;
}

enum err_code source_entries(struct sources *s, struct enter *e, struct entry_wanted *list,
                             size_t n, struct err *err)
{
    struct digest *keys = mem_zero(n + 1, sizeof(*keys));
    struct digest *results = mem_zero(n + 1, sizeof(*results));
    json_t **descriptions = mem_zero(n + 1, sizeof(json_t *));
    struct loc *locs = mem_zero(n + 1, sizeof(*locs));
    bool *hits = mem_zero(n + 1, sizeof(*hits));
    struct buf text;
    enum err_code rc = OK;

    buf_init(&text, ENTRY_BYTES_MAX);
    for (size_t i = 0; !rc && i < n; i++) {
        buf_clear(&text);
        rc = describe(&list[i], &descriptions[i], err);
        if (!rc)
            rc = action_key(descriptions[i], &keys[i], &text, err);
        if (rc)
            (void)source_wrong(list[i].source, err);
    }
    if (!rc)
        rc = action_lookup_many(s->st, keys, n, results, hits, err);
    if (!rc)
        rc = object_locate(s->st, results, n, locs, err);
    for (size_t i = 0; !rc && i < n; i++) {
        list[i].object->entry = results[i];
        if (!hits[i] || locs[i].type == 0)
            rc = make(s, e, &list[i], descriptions[i], err);
        if (rc)
            (void)source_wrong(list[i].source, err);
        else
            enter_keep(e, &list[i].object->entry);
    }
    for (size_t i = 0; i < n; i++)
        json_decref(descriptions[i]);
    buf_release(&text);
    free(keys);
    free(results);
    free((void *)descriptions);
    free(locs);
    free(hits);
    return rc;
}
