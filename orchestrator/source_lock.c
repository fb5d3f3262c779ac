/* The lock file: what deb and url sources were, so that they stay what they were until somebody says --update.  Canonical JSON, but for a
 * line break around each source, so that a commit shows which one changed. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/os.h"
#include "orchestrator/source_internal.h"

#define ROWS_MAX 100000

/* ---- reading -------------------------------------------------------------------------------------- */

static enum err_code take_digest(const json_t *o, const char *key, bool prefixed, const char *what,
                                 struct digest *out, struct err *err)
{
    const char *text;
    enum err_code rc = json_get_string(o, key, what, &text, err);

    if (rc)
        return rc;
    if ((strncmp(text, "sha256:", 7) == 0) != prefixed)
        return err_set(err, ERR_INPUT, "%s: \"%s\" is %s64 hex digits", what, key,
                       prefixed ? "sha256: and " : "");
    rc = digest_parse(text, strlen(text), out, err);
    return rc ? err_prefix(err, "%s: \"%s\"", what, key) : OK;
}

/* What becomes an argument of apt-get must look like what it is. */
static bool only(const char *s, const char *allowed)
{
    return *s && s[strspn(s, allowed)] == '\0' && *s != '-';
}
#define SMALL "abcdefghijklmnopqrstuvwxyz0123456789"

static enum err_code take_deb(const json_t *o, const char *what, struct arena *a,
                              struct lock_row *row, struct err *err)
{
    const char *package, *version, *arch;
    enum err_code rc = json_get_string(o, "deb", what, &package, err);

    if (!rc)
        rc = json_get_string(o, "version", what, &version, err);
    if (!rc)
        rc = json_get_string(o, "architecture", what, &arch, err);
    if (rc)
        return rc;
    if (!only(package, SMALL "+-.") || !only(version, SMALL "ABCDEFGHIJKLMNOPQRSTUVWXYZ+-.:~") ||
        !only(arch, SMALL "-"))
        return err_set(err, ERR_INPUT,
                       "%s: no Debian package has such a name, version or architecture", what);
    row->location = arena_strdup(a, package);
    row->version = arena_strdup(a, version);
    row->arch = arena_strdup(a, arch);
    return OK;
}

static enum err_code take_row(const char *name, const json_t *o, struct arena *a,
                              struct lock_row *row, struct err *err)
{
    const char *what = arena_printf(a, "source %.100s", name), *kind, *url;
    size_t members = 5;
    enum err_code rc;

    *row = (struct lock_row){.name = arena_strdup(a, name)};
    if (!json_is_object(o))
        return err_set(err, ERR_INPUT, "%s is no object", what);
    rc = json_get_string(o, "kind", what, &kind, err);
    if (rc)
        return rc;
    if (strcmp(kind, "deb") == 0) {
        row->kind = SOURCE_DEB;
        members = 7;
        rc = take_deb(o, what, a, row, err);
    } else if (strcmp(kind, "url") == 0) {
        row->kind = SOURCE_URL;
        rc = json_get_string(o, "url", what, &url, err);
        if (!rc)
            row->location = arena_strdup(a, url);
    } else {
        rc = err_set(err, ERR_INPUT, "%s: \"kind\" is deb or url", what);
    }
    if (!rc)
        rc = take_digest(o, "sha256", false, what, &row->sha256, err);
    if (!rc)
        rc = take_digest(o, "digest", true, what, &row->digest, err);
    if (!rc)
        rc = json_get_i64(o, "size", 0, (int64_t)1 << 53, what, &row->size, err);
    if (!rc && json_object_size(o) != members)
        rc = err_set(err, ERR_INPUT, "%s has members that a lock of kind %s does not have", what,
                     kind);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct lock_row *)a)->name, ((const struct lock_row *)b)->name);
}

static enum err_code take_rows(const json_t *sources, struct arena *a, struct lock *out,
                               struct err *err)
{
    const size_t n = json_object_size(sources);
    const char *name;
    json_t *v;
    enum err_code rc = OK;

    if (n > ROWS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d sources", ROWS_MAX);
    out->rows = arena_array(a, n + 1, sizeof(*out->rows));
    json_object_foreach((json_t *)(uintptr_t)sources, name, v)
    {
        rc = take_row(name, v, a, &out->rows[out->count], err);
        if (rc)
            break;
        out->count++;
    }
    qsort(out->rows, out->count, sizeof(*out->rows), by_name);
    return rc;
}

enum err_code lock_parse(const char *p, size_t n, const char *file, struct arena *a,
                         struct lock *out, struct err *err)
{
    json_t *root = NULL;
    const json_t *sources;
    const char *version;
    enum err_code rc;

    *out = (struct lock){0};
    rc = json_parse(p ? p : "", n, SOURCE_LOCK_BYTES_MAX, "lock file", &root, err);
    if (!rc && !json_is_object(root))
        rc = err_set(err, ERR_INPUT, "it is no object");
    if (!rc)
        rc = json_get_string(root, "weir", "lock file", &version, err);
    if (!rc && strcmp(version, "lock/1") != 0)
        rc = err_set(err, ERR_VERSION, "it is of version '%.60s', this weir knows lock/1", version);
    if (!rc) {
        sources = json_object_get(root, "sources");
        if (!json_is_object(sources) || json_object_size(root) != 2)
            rc = err_set(err, ERR_INPUT, "it is to hold \"sources\" and \"weir\", nothing else");
        else
            rc = take_rows(sources, a, out, err);
    }
    json_decref(root);
    if (rc)
        (void)err_prefix(err, "%s (weir lock --update writes it anew)", file);
    return rc;
}

const struct lock_row *lock_find(const struct lock *l, const char *name)
{
    const struct lock_row key = {.name = name};

    return l->count ? bsearch(&key, l->rows, l->count, sizeof(*l->rows), by_name) : NULL;
}

/* ---- writing -------------------------------------------------------------------------------------- */

static json_t *row_json(const struct lock_row *r)
{
    char sha[DIGEST_HEX + 1], digest[DIGEST_TEXT + 1];

    digest_hex(&r->sha256, sha);
    digest_text(&r->digest, digest);
    if (r->kind == SOURCE_DEB)
        return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:I}", "kind", "deb", "deb", r->location,
                         "version", r->version, "architecture", r->arch, "sha256", sha, "digest",
                         digest, "size", (json_int_t)r->size);
    return json_pack("{s:s,s:s,s:s,s:s,s:I}", "kind", "url", "url", r->location, "sha256", sha,
                     "digest", digest, "size", (json_int_t)r->size);
}

enum err_code lock_format(const struct lock *l, struct buf *out, struct err *err)
{
    enum err_code rc = OK;

    buf_str(out, "{\"sources\":{");
    for (size_t i = 0; !rc && i < l->count; i++) {
        json_t *row = row_json(&l->rows[i]);

        buf_str(out, i ? ",\n" : "\n");
        json_canonical_string(out, l->rows[i].name, strlen(l->rows[i].name));
        buf_char(out, ':');
        rc = row ? json_canonical(row, out, err)
                 : err_set(err, ERR_INPUT, "source %s cannot be written as JSON", l->rows[i].name);
        json_decref(row);
    }
    buf_str(out, l->count ? "\n},\"weir\":\"lock/1\"}\n" : "},\"weir\":\"lock/1\"}\n");
    return rc ? rc : buf_check(out, "lock file", err);
}

/* What was entered now, and of the rest what is still meant by the pipeline. */
static void rows_now(struct sources *s, struct lock *out)
{
    out->rows = arena_array(&s->arena, s->p->source_count + 1, sizeof(*out->rows));
    for (size_t i = 0; i < s->p->source_count; i++) {
        const struct source *source = &s->p->sources[i];
        const struct lock_row *old = lock_find(&s->lock, source->name);

        if (s->list[i].locked)
            out->rows[out->count] = s->list[i].row;
        else if (old && old->kind == source->kind && strcmp(old->location, source->location) == 0)
            out->rows[out->count] = *old;
        else
            continue;
        out->rows[out->count++].name = source->name;
    }
    qsort(out->rows, out->count, sizeof(*out->rows), by_name);
}

enum err_code sources_lock(struct sources *s, bool *changed, struct err *err)
{
    const char *slash;
    struct lock now = {0};
    struct buf text, old;
    int dir = -1;
    enum err_code rc;

    CHECK(s);
    CHECK(changed);
    *changed = false;
    buf_init(&text, SOURCE_LOCK_BYTES_MAX);
    buf_init(&old, SOURCE_LOCK_BYTES_MAX);
    rows_now(s, &now);
    rc = lock_format(&now, &text, err);
    if (!rc)
        rc = os_read_file(AT_FDCWD, s->lock_path, SOURCE_LOCK_BYTES_MAX, &old, err);
    if (rc == ERR_NOT_FOUND) {
        *err = (struct err)ERR_INIT;
        rc = OK;
        *changed = now.count > 0;
    } else if (!rc) {
        *changed = old.n != text.n || memcmp(old.p, text.p, text.n) != 0;
    }
    if (!rc && *changed) {
        slash = strrchr(s->lock_path, '/');
        rc = os_open_dir(
            AT_FDCWD,
            slash ? arena_strndup(&s->arena, s->lock_path, (size_t)(slash - s->lock_path) + 1)
                  : ".",
            &dir, err);
        if (!rc)
            rc = os_write_file(dir, slash ? slash + 1 : s->lock_path, text.p, text.n, 0644, err);
        if (rc)
            (void)err_prefix(err, "write %s", s->lock_path);
    }
    os_close_quiet(&dir);
    buf_release(&text);
    buf_release(&old);
    return rc;
}
