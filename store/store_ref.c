/* Names for objects: setting refs, and from what a person types to an object. */
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "store/reader.h"
#include "store/store.h"
#include "store/tree.h"
#include "store/writer.h"

#define REF_NAME_MAX 400
#define PREFIX_HEX_MIN 8
#define RACE_TRIES                                                                                 \
    3 /* against a gc that deletes what we found; each try needs another gc to fail */
#define SHOWN(s) (int)((s).n < 200 ? (s).n : 200), (s).p

enum err_code store_ref_check(struct str name, struct err *err)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                               "._@=,/[]+-";

    if (name.n == 0 || name.n > REF_NAME_MAX)
        return err_set(err, ERR_INPUT, "ref name \"%.*s\": 1 to %d characters are wanted",
                       SHOWN(name), REF_NAME_MAX);
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] == '\0' || !strchr(good, name.p[i]))
            return err_set(err, ERR_INPUT,
                           "ref name \"%.*s\": letters, digits and . _ @ = , / [ ] + - are wanted, "
                           "character %zu is none of them",
                           SHOWN(name), i + 1);
    if (memmem(name.p, name.n, "..", 2))
        return err_set(err, ERR_INPUT, "ref name \"%.*s\": may not have \"..\" in it", SHOWN(name));
    if (name.p[0] == '/' || name.p[name.n - 1] == '/')
        return err_set(err, ERR_INPUT, "ref name \"%.*s\": may not start or end with '/'",
                       SHOWN(name));
    return OK;
}

/* ---- setting ----------------------------------------------------------------------------------- */

/* A dead tree may outlive what it names, when its pack was worth keeping: being there is not enough. */
static enum err_code check_complete(struct store *st, enum obj_kind kind, const struct digest *d,
                                    struct err *err)
{
    char text[DIGEST_TEXT + 1], missing_text[DIGEST_TEXT + 1];
    struct digest missing;
    bool complete = false;
    enum err_code rc;

    rc = store_complete(st, kind, d, &complete, &missing, err);
    if (rc || complete)
        return rc;
    digest_text(d, text);
    digest_text(&missing, missing_text);
    if (digest_eq(d, &missing))
        return err_set(err, ERR_NOT_FOUND, "object %s is not in the store", text);
    return err_set(err, ERR_NOT_FOUND, "object %s is not in the store, and %s needs it",
                   missing_text, text);
}

static enum err_code set_once(struct store *st, struct str name, enum obj_kind kind,
                              const struct digest *d, struct err *err)
{
    struct writer *w = NULL;
    enum err_code rc;
    bool has;

    rc = writer_open(st, &w, err);
    if (!rc && kind != OBJ_NONE) {
        rc = check_complete(st, kind, d, err);
        if (!rc)
            rc = writer_has(w, d, &has, err); /* looked at once more by the commit */
        if (rc)
            err_prefix(err, "set ref %.*s", SHOWN(name));
        else
            writer_rely(w);
    }
    if (!rc)
        rc = writer_ref(w, name, kind, d, err);
    if (!rc)
        rc = writer_commit(w, err);
    writer_release(w);
    return rc;
}

enum err_code store_ref_set(struct store *st, struct str name, enum obj_kind kind,
                            const struct digest *d, struct err *err)
{
    enum err_code rc;

    CHECK(st);
    CHECK(d || kind == OBJ_NONE);
    rc = store_ref_check(name, err);
    if (rc)
        return rc;
    for (int i = 0; i < RACE_TRIES; i++) {
        rc = set_once(st, name, kind, d, err);
        if (rc != ERR_CHANGED)
            break;
    }
    return rc;
}

/* ---- resolving --------------------------------------------------------------------------------- */

/* The nearest existing name, for the message. */
static enum err_code no_such(struct store *st, struct str name, struct err *err)
{
    struct err list_err = ERR_INIT;
    struct ref_row *rows = NULL;
    const char **names = NULL;
    const char *nearest = NULL;
    char *wanted = mem_strndup(name.p, name.n);
    size_t n = 0;

    if (index_refs(st->index, STR(""), REF_LIVE, &rows, &n, &list_err) == OK && n > 0) {
        names = mem_alloc(n * sizeof(*names));
        for (size_t i = 0; i < n; i++)
            names[i] = rows[i].name;
        nearest = str_nearest(wanted, names, n);
    }
    if (nearest)
        err_set(err, ERR_NOT_FOUND, "there is no ref or object \"%.*s\"; did you mean \"%s\"?",
                SHOWN(name), nearest);
    else
        err_set(
            err, ERR_NOT_FOUND,
            "there is no ref or object \"%.*s\"; weir ref ls shows the refs (an object is named "
            "by sha256:... or by at least %d hex digits)",
            SHOWN(name), PREFIX_HEX_MIN);
    free(names);
    free(wanted);
    free(rows);
    return ERR_NOT_FOUND;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The lowest digest with this prefix; false when it is not hex of a suitable length. */
static bool prefix_parse(struct str s, struct digest *low)
{
    *low = (struct digest){0};
    if (s.n < PREFIX_HEX_MIN || s.n > DIGEST_HEX)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        const int v = hex_value(s.p[i]);

        if (v < 0)
            return false;
        low->b[i / 2] = (uint8_t)(low->b[i / 2] | v << (i % 2 ? 0 : 4));
    }
    return true;
}

static bool prefix_fits(const struct digest *d, struct str prefix)
{
    char hex[DIGEST_HEX + 1];

    digest_hex(d, hex);
    return memcmp(hex, prefix.p, prefix.n) == 0;
}

/* index_scan starts after its cursor, hence one below low. */
static void digest_before(struct digest *d)
{
    for (int i = DIGEST_BYTES - 1; i >= 0; i--)
        if (d->b[i]-- != 0)
            return;
}

static enum err_code find_prefix(struct store *st, struct str prefix, const struct digest *low,
                                 struct digest *out, struct err *err)
{
    struct digest cursor = *low, ids[2];
    struct loc locs[2];
    bool started = !digest_is_zero(low);
    size_t n = 0, fits = 0;
    enum err_code rc;

    if (started)
        digest_before(&cursor);
    rc = index_scan(st->index, &cursor, &started, ids, locs, 2, &n, err);
    if (rc)
        return rc;
    while (fits < n && prefix_fits(&ids[fits], prefix))
        fits++;
    if (fits == 0)
        return no_such(st, prefix, err);
    if (fits > 1)
        return err_set(err, ERR_INPUT, "%.*s is the beginning of several objects; give more digits",
                       SHOWN(prefix));
    *out = ids[0];
    return OK;
}

static enum err_code kind_of(struct store *st, const struct digest *d, enum obj_kind *kind,
                             struct err *err)
{
    char text[DIGEST_TEXT + 1];
    struct loc loc;
    const enum err_code rc = object_locate(st, d, 1, &loc, err);

    if (rc)
        return rc;
    if (loc.type == 0) {
        digest_text(d, text);
        return err_set(err, ERR_NOT_FOUND, "object %s is not in the store", text);
    }
    *kind = loc.flags & REC_TREE ? OBJ_TREE : OBJ_BLOB;
    return OK;
}

/* A ref wins over a prefix of a digest that looks like it, a whole digest over a ref. */
static enum err_code resolve_base(struct store *st, struct str base, struct digest *out,
                                  enum obj_kind *kind, struct err *err)
{
    struct err parse_err = ERR_INIT;
    struct digest low;
    struct ref_row row = {0};
    enum err_code rc;

    if (str_starts(base, STR("sha256:")) || base.n == DIGEST_HEX)
        if (digest_parse(base.p, base.n, out, &parse_err) == OK)
            return kind_of(st, out, kind, err);
    if (str_starts(base, STR("sha256:"))) {
        base = (struct str){base.p + 7, base.n - 7};
        rc = ERR_NOT_FOUND;
    } else if (store_ref_check(base, &parse_err)) {
        return err_set(err, ERR_INPUT, "\"%.*s\" is neither an object nor the name of a ref",
                       SHOWN(base));
    } else {
        rc = index_ref(st->index, base, &row, err);
    }
    if (!rc && row.kind != OBJ_NONE) {
        *out = row.digest;
        *kind = row.kind;
        return OK;
    }
    if (rc && rc != ERR_NOT_FOUND)
        return rc;
    if (!prefix_parse(base, &low))
        return no_such(st, base, err);
    rc = find_prefix(st, base, &low, out, err);
    return rc ? rc : kind_of(st, out, kind, err);
}

static enum err_code no_entry(const struct tree *t, struct str name, struct str all,
                              struct err *err)
{
    char *wanted = mem_strndup(name.p, name.n);
    const char **names = mem_alloc((t->count + 1) * sizeof(*names));
    const char *nearest;

    for (size_t i = 0; i < t->count; i++)
        names[i] = t->entries[i].name.p;
    nearest = str_nearest(wanted, names, t->count);
    err_set(err, ERR_NOT_FOUND, "%.*s: there is no \"%.*s\" in that directory%s%s%s", SHOWN(all),
            SHOWN(name), nearest ? "; did you mean \"" : "", nearest ? nearest : "",
            nearest ? "\"?" : "");
    free(names);
    free(wanted);
    return ERR_NOT_FOUND;
}

/* One step down.  all is the whole text, for messages. */
static enum err_code descend(struct store *st, struct str name, struct str all, struct digest *d,
                             enum obj_kind *kind, struct err *err)
{
    char text[DIGEST_TEXT + 1];
    struct tree t = {0};
    struct buf bytes;
    enum err_code rc;

    if (*kind != OBJ_TREE)
        return err_set(err, ERR_INPUT, "%.*s: there is no \"%.*s\" in a file", SHOWN(all),
                       SHOWN(name));
    buf_init(&bytes, TREE_BYTES_MAX);
    tree_init(&t);
    digest_text(d, text);
    rc = object_read(st, d, TREE_BYTES_MAX, &bytes, err);
    if (!rc)
        rc = tree_decode(bytes.p ? bytes.p : "", bytes.n, -1, text, &t, err);
    if (!rc) {
        const struct tree_entry *e = tree_find(&t, name);

        if (!e) {
            rc = no_entry(&t, name, all, err);
        } else if (e->mode == TREE_LINK) {
            rc = err_set(err, ERR_INPUT, "%.*s: \"%.*s\" is a link to \"%s\"; name that instead",
                         SHOWN(all), SHOWN(name), e->target.p);
        } else {
            *d = e->digest;
            *kind = e->mode == TREE_DIR ? OBJ_TREE : OBJ_BLOB;
        }
    }
    tree_release(&t);
    buf_release(&bytes);
    return rc;
}

enum err_code store_resolve(struct store *st, struct str text, struct digest *out,
                            enum obj_kind *kind, struct err *err)
{
    struct str base = text, path = {NULL, 0};
    enum err_code rc;

    CHECK(st);
    CHECK(out);
    CHECK(kind);
    if (!st->index)
        return err_set(err, ERR_CONFIG, "names are known on the index host only");

    const size_t skip = str_starts(text, STR("sha256:")) ? 7 : 0;
    const char *colon = text.n > skip ? memchr(text.p + skip, ':', text.n - skip) : NULL;

    if (colon) {
        base.n = (size_t)(colon - text.p);
        path = (struct str){colon + 1, text.n - base.n - 1};
    }
    rc = resolve_base(st, base, out, kind, err);
    while (!rc && path.n > 0) {
        const char *slash = memchr(path.p, '/', path.n);
        const struct str name = {path.p, slash ? (size_t)(slash - path.p) : path.n};

        path.p += name.n + (slash != NULL);
        path.n -= name.n + (slash != NULL);
        if (name.n > 0) /* "a//b" and "a/" are what people type */
            rc = descend(st, name, text, out, kind, err);
    }
    return rc;
}
