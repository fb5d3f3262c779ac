/* Trees have one spelling, so the decoder is no JSON parser: it expects the encoder's bytes one
 * after another, and whatever differs is an error at that byte.  Names are nearly always plain
 * ASCII that needs no escape; one pass over a table finds that out, finds the closing quote, and
 * leaves the rest to the slow, general way. */
#include "store/tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#define ESCAPED_MAX ((size_t)3 * TREE_TARGET_MAX) /* every byte as %XX */
#define SIZE_MAX_EXACT ((int64_t)1 << 53)         /* beyond it JSON numbers are not exact */

static const char tree_start[] = "{\"entries\":[";
static const char tree_end[] = "],\"weir\":\"tree/1\"}";
static const char *const mode_words[] = {"file", "exec", "dir", "link"};

void tree_init(struct tree *t)
{
    CHECK(t);
    *t = (struct tree){0};
    arena_init(&t->arena);
}

void tree_release(struct tree *t)
{
    CHECK(t);
    arena_release(&t->arena);
    free(t->entries);
    *t = (struct tree){0};
}

/* ---- what may stand in an entry ---- */

static bool is_dots(struct str name)
{
    return str_eq(name, STR(".")) || str_eq(name, STR(".."));
}

static enum err_code check_name(struct str name, struct err *err)
{
    if (name.n == 0)
        return err_set(err, ERR_INPUT, "a name is empty");
    if (name.n > TREE_NAME_MAX)
        return err_set(err, ERR_INPUT, "name \"%.*s...\" is longer than %d bytes", 60, name.p,
                       TREE_NAME_MAX);
    if (is_dots(name) || memchr(name.p, '/', name.n) || memchr(name.p, '\0', name.n))
        return err_set(err, ERR_INPUT, "\"%.*s\" is not the name of a file", (int)name.n, name.p);
    return OK;
}

static enum err_code bad_target(struct str target, const char *why, struct err *err)
{
    return err_set(err, ERR_INPUT, "link target \"%.*s\" %s",
                   (int)(target.n < 200 ? target.n : 200), target.p, why);
}

enum err_code tree_check_target(struct str target, int depth, struct err *err)
{
    int up = 0;
    bool named = false;

    CHECK(target.p || target.n == 0);
    if (target.n == 0 || target.n > TREE_TARGET_MAX)
        return bad_target(target, target.n ? "is too long" : "is empty", err);
    if (memchr(target.p, '\0', target.n))
        return bad_target(target, "has a NUL in it", err);
    if (target.p[0] == '/')
        return bad_target(target, "is absolute", err);
    for (size_t at = 0; at <= target.n;) {
        const char *slash = at < target.n ? memchr(target.p + at, '/', target.n - at) : NULL;
        const size_t end = slash ? (size_t)(slash - target.p) : target.n;
        const struct str part = {target.p + at, end - at};

        if (part.n == 0 || str_eq(part, STR(".")))
            return bad_target(target, "is not normal: an empty part or a \".\"", err);
        if (part.n > TREE_NAME_MAX)
            return bad_target(target, "has a part that is too long for a name", err);
        if (!is_dots(part))
            named = true;
        else if (named)
            return bad_target(target, "is not normal: \"..\" after a name", err);
        else
            up++;
        at = end + 1;
    }
    if (depth >= 0 && up > depth)
        return bad_target(target, "leaves the tree", err);
    return OK;
}

static enum err_code check_entry(const struct tree_entry *e, int depth, struct err *err)
{
    enum err_code rc = check_name(e->name, err);

    if (rc)
        return rc;
    if (e->mode == TREE_LINK)
        return tree_check_target(e->target, depth, err);
    if (e->size < 0 || e->size > SIZE_MAX_EXACT)
        return err_set(err, ERR_INPUT, "size %lld is not between 0 and 2^53", (long long)e->size);
    return OK;
}

static enum err_code check_depth(int depth, struct err *err)
{
    CHECK(depth >= -1);
    if (depth > TREE_DEPTH_MAX)
        return err_set(err, ERR_LIMIT, "folders are more than %d deep", TREE_DEPTH_MAX);
    return OK;
}

static struct str copy_str(struct tree *t, struct str s)
{
    return (struct str){arena_strndup(&t->arena, s.p, s.n), s.n};
}

/* One more entry, all zero. */
static enum err_code add_entry(struct tree *t, struct tree_entry **e, struct err *err)
{
    if (t->count == TREE_ENTRIES_MAX)
        return err_set(err, ERR_LIMIT, "a folder of more than %d entries", TREE_ENTRIES_MAX);
    if (t->count == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 16;
        t->entries = mem_grow(t->entries, t->cap, sizeof(*t->entries));
    }
    *e = &t->entries[t->count++];
    **e = (struct tree_entry){0};
    return OK;
}

enum err_code tree_add(struct tree *t, const struct tree_entry *e, int depth, struct err *err)
{
    struct tree_entry *own;
    enum err_code rc;

    CHECK(t);
    CHECK(e);
    CHECK(e->mode <= TREE_LINK);
    rc = check_depth(depth, err);
    if (!rc)
        rc = check_entry(e, depth, err);
    if (!rc)
        rc = add_entry(t, &own, err);
    if (rc)
        return rc;
    own->mode = e->mode;
    own->name = copy_str(t, e->name);
    if (e->mode == TREE_LINK) {
        own->target = copy_str(t, e->target);
    } else {
        own->digest = e->digest;
        own->size = e->size;
    }
    return OK;
}

/* ---- encoding ---- */

/* Does the byte stand for itself, both as a name and as JSON? */
static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\' && c != '%';
}

static void put_string(struct buf *out, struct str s, struct buf *escaped)
{
    size_t i = 0;

    while (i < s.n && is_plain((unsigned char)s.p[i]))
        i++;
    if (i == s.n) {
        buf_char(out, '"');
        buf_add(out, s.p, s.n);
        buf_char(out, '"');
        return;
    }
    buf_clear(escaped);
    json_name_escape(escaped, s.p, s.n);
    CHECK(!escaped->failed);
    json_canonical_string(out, escaped->p, escaped->n);
}

static void put_entry(struct buf *out, const struct tree_entry *e, struct buf *escaped)
{
    char digest[DIGEST_TEXT + 1];

    buf_char(out, '{');
    if (e->mode != TREE_LINK) {
        digest_text(&e->digest, digest);
        buf_str(out, "\"digest\":\"");
        buf_add(out, digest, DIGEST_TEXT);
        buf_str(out, "\",");
    }
    buf_str(out, "\"mode\":\"");
    buf_str(out, mode_words[e->mode]);
    buf_str(out, "\",\"name\":");
    put_string(out, e->name, escaped);
    if (e->mode == TREE_LINK) {
        buf_str(out, ",\"target\":");
        put_string(out, e->target, escaped);
        buf_char(out, '}');
    } else {
        buf_printf(out, ",\"size\":%lld}", (long long)e->size);
    }
}

static int by_name(const void *a, const void *b)
{
    const struct tree_entry *x = a, *y = b;

    return str_cmp(x->name, y->name);
}

static enum err_code sort_entries(struct tree *t, struct err *err)
{
    size_t i = 1;

    while (i < t->count && by_name(&t->entries[i - 1], &t->entries[i]) < 0)
        i++;
    if (i >= t->count)
        return OK;
    qsort(t->entries, t->count, sizeof(*t->entries), by_name);
    for (i = 1; i < t->count; i++)
        if (str_eq(t->entries[i - 1].name, t->entries[i].name))
            return err_set(err, ERR_INPUT, "two entries named \"%s\"", t->entries[i].name.p);
    return OK;
}

enum err_code tree_encode(struct tree *t, struct buf *out, struct err *err)
{
    const size_t start = out->n;
    struct buf escaped;
    enum err_code rc;

    CHECK(t);
    rc = sort_entries(t, err);
    if (rc)
        return rc;
    buf_init(&escaped, ESCAPED_MAX);
    buf_str(out, tree_start);
    for (size_t i = 0; i < t->count && out->n - start <= TREE_BYTES_MAX; i++) {
        if (i > 0)
            buf_char(out, ',');
        put_entry(out, &t->entries[i], &escaped);
    }
    buf_str(out, tree_end);
    buf_release(&escaped);
    rc = buf_check(out, "tree", err);
    if (!rc && out->n - start > TREE_BYTES_MAX)
        rc = err_set(err, ERR_LIMIT, "tree: longer than %d bytes", TREE_BYTES_MAX);
    if (rc && out->n > start) {
        out->n = start;
        out->p[start] = '\0';
    }
    return rc;
}

/* ---- decoding ---- */

struct scan {
    const char *start, *p, *end;
    const char *what;
    struct tree *tree;
    struct buf json, raw; /* a string without its JSON escapes, then without those of names */
    int depth;
    struct err *err;
};

static enum err_code bad(struct scan *s, const char *at, const char *why)
{
    return err_set(s->err, ERR_INPUT, "%s: byte %zu: %s", s->what, (size_t)(at - s->start), why);
}

static bool skip(struct scan *s, const char *text, size_t n)
{
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, text, n) != 0)
        return false;
    s->p += n;
    return true;
}
#define SKIP(s, literal) skip((s), (literal), sizeof(literal) - 1)

/* The same, and an error at the first byte that differs. */
static enum err_code expect(struct scan *s, const char *text)
{
    char why[64];

    if (skip(s, text, strlen(text)))
        return OK;

    const char *at = s->p;

    for (size_t i = 0; at < s->end && *at == text[i]; i++)
        at++;
    snprintf(why, sizeof(why), "expected %s", text);
    return bad(s, at, why);
}

/* The digit's value and HEX_GOOD; 0 for all that is no lower-case hex digit.  Half of the time
 * would go into digests if their digits, which nobody can predict, were told apart by branches. */
#define HEX_GOOD 0x10u
static const uint8_t hex_digit[256] = {
    ['0'] = 0x10, ['1'] = 0x11, ['2'] = 0x12, ['3'] = 0x13, ['4'] = 0x14, ['5'] = 0x15,
    ['6'] = 0x16, ['7'] = 0x17, ['8'] = 0x18, ['9'] = 0x19, ['a'] = 0x1a, ['b'] = 0x1b,
    ['c'] = 0x1c, ['d'] = 0x1d, ['e'] = 0x1e, ['f'] = 0x1f};

static enum err_code read_digest(struct scan *s, struct digest *out)
{
    const uint8_t *p = (const uint8_t *)s->p;
    unsigned good = HEX_GOOD;

    if (s->end - s->p < DIGEST_HEX)
        return bad(s, s->p, "expected 64 lower-case hex digits");
    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        const unsigned high = hex_digit[p[2 * i]], low = hex_digit[p[2 * i + 1]];

        good &= high & low;
        out->b[i] = (uint8_t)(high << 4 | (low & 15));
    }
    if (!good)
        return bad(s, s->p, "expected 64 lower-case hex digits");
    s->p += DIGEST_HEX;
    return OK;
}

/* The general case of read_string: from at, its first byte, to the closing quote. */
static enum err_code read_escaped(struct scan *s, const char *at, struct str *out)
{
    struct err why = ERR_INIT;

    buf_clear(&s->json);
    buf_clear(&s->raw);
    for (; s->p < s->end && *s->p != '"'; s->p++) {
        /* Control bytes are never left after json_name_escape, so these two are all that canonical
         * JSON escapes. */
        if (*s->p == '\\' && (++s->p == s->end || (*s->p != '"' && *s->p != '\\')))
            return bad(s, s->p - 1, "an escape that has no use here");
        buf_char(&s->json, *s->p);
    }
    if (s->p == s->end)
        return bad(s, s->p, "a string does not end");
    if (s->json.failed)
        return bad(s, at, "the string is too long");
    if (json_name_unescape(&s->raw, s->json.p, s->json.n, &why) != OK)
        return bad(s, at, why.text);
    s->p++;
    *out = copy_str(s->tree, (struct str){s->raw.p, s->raw.n});
    return OK;
}

/* What follows an opening quote, and the closing one. */
static enum err_code read_string(struct scan *s, struct str *out)
{
    const char *at = s->p;

    while (s->p < s->end && is_plain((unsigned char)*s->p))
        s->p++;
    if (s->p < s->end && *s->p == '"') {
        *out = copy_str(s->tree, (struct str){at, (size_t)(s->p - at)});
        s->p++;
        return OK;
    }
    s->p = at;
    return read_escaped(s, at, out);
}

static enum err_code read_size(struct scan *s, int64_t *out)
{
    const char *at = s->p;
    int64_t v = 0;

    /* 16 digits are enough for 2^53, and cannot overflow. */
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9' && s->p - at < 16; s->p++)
        v = v * 10 + (*s->p - '0');
    if (s->p == at || (*at == '0' && s->p - at > 1) || v > SIZE_MAX_EXACT)
        return bad(s, at, "expected a whole number from 0 to 2^53");
    *out = v;
    return OK;
}

static enum err_code read_link(struct scan *s, struct tree_entry *e)
{
    enum err_code rc = expect(s, "\"mode\":\"link\",\"name\":\"");

    e->mode = TREE_LINK;
    if (!rc)
        rc = read_string(s, &e->name);
    if (!rc)
        rc = expect(s, ",\"target\":\"");
    if (!rc)
        rc = read_string(s, &e->target);
    return rc;
}

static enum err_code read_object(struct scan *s, struct tree_entry *e)
{
    enum err_code rc = read_digest(s, &e->digest);

    if (!rc)
        rc = expect(s, "\",\"mode\":\"");
    if (rc)
        return rc;
    if (SKIP(s, "file\""))
        e->mode = TREE_FILE;
    else if (SKIP(s, "exec\""))
        e->mode = TREE_EXEC;
    else if (SKIP(s, "dir\""))
        e->mode = TREE_DIR;
    else
        return bad(s, s->p, "expected file, exec or dir");
    rc = expect(s, ",\"name\":\"");
    if (!rc)
        rc = read_string(s, &e->name);
    if (!rc)
        rc = expect(s, ",\"size\":");
    if (!rc)
        rc = read_size(s, &e->size);
    return rc;
}

static enum err_code read_entry(struct scan *s)
{
    const char *at = s->p;
    struct tree_entry *e;
    struct err why = ERR_INIT;
    enum err_code rc = add_entry(s->tree, &e, s->err);

    if (!rc && SKIP(s, "{\"digest\":\"sha256:")) {
        rc = read_object(s, e);
    } else if (!rc) {
        rc = expect(s, "{");
        if (!rc)
            rc = read_link(s, e);
    }
    if (!rc)
        rc = expect(s, "}");
    if (rc)
        return rc;
    if (check_entry(e, s->depth, &why) != OK)
        return bad(s, at, why.text);
    if (s->tree->count > 1 && str_cmp(e[-1].name, e->name) >= 0)
        return bad(s, at, "names are not sorted, or one stands twice");
    return OK;
}

static enum err_code read_entries(struct scan *s)
{
    enum err_code rc = expect(s, tree_start);
    bool more = s->p < s->end && *s->p != ']';

    while (!rc && more) {
        rc = read_entry(s);
        more = !rc && SKIP(s, ",");
    }
    if (!rc)
        rc = expect(s, tree_end);
    if (!rc && s->p != s->end)
        rc = bad(s, s->p, "something follows the tree");
    return rc;
}

enum err_code tree_decode(const char *p, size_t n, int depth, const char *what, struct tree *out,
                          struct err *err)
{
    struct scan s = {
        .start = p, .p = p, .end = p + n, .what = what, .tree = out, .depth = depth, .err = err};
    enum err_code rc;

    CHECK(p || n == 0);
    CHECK(what);
    tree_init(out);
    rc = check_depth(depth, err);
    if (rc)
        return rc;
    if (n > TREE_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "%s: longer than %d bytes", what, TREE_BYTES_MAX);
    buf_init(&s.json, ESCAPED_MAX);
    buf_init(&s.raw, ESCAPED_MAX);
    rc = read_entries(&s);
    buf_release(&s.json);
    buf_release(&s.raw);
    if (rc)
        tree_release(out);
    return rc;
}

const struct tree_entry *tree_find(const struct tree *t, struct str name)
{
    size_t low = 0, high = t->count;

    CHECK(t);
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = str_cmp(name, t->entries[middle].name);

        if (order == 0)
            return &t->entries[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}
