#include "store/remote_toc.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"

#define TAIL_FIRST ((size_t)64 << 10) /* read at once: the whole table of a pack of chunks */
#define CACHE_NAME (DIGEST_HEX + 4 + 1)

enum err_code toc_blame(const struct tocs *t, uint32_t pack, struct err *err)
{
    char hex[DIGEST_HEX + 1];

    CHECK(pack < t->count);
    digest_hex(&t->packs[pack].name, hex);
    return err_prefix(err, "remote %s, pack %s", t->remote->name, hex);
}

static void key_of(const struct digest *name, char out[6 + DIGEST_HEX + 1])
{
    char hex[DIGEST_HEX + 1];

    digest_hex(name, hex);
    (void)snprintf(out, 6 + DIGEST_HEX + 1, "packs/%s", hex);
}

static enum err_code read_range(struct tocs *t, uint32_t pack, void *p, size_t n, int64_t off,
                                struct err *err)
{
    char key[6 + DIGEST_HEX + 1];
    enum err_code rc;

    key_of(&t->packs[pack].name, key);
    rc = t->remote->ops->range(t->remote, key, p, n, off, err);
    if (rc)
        return toc_blame(t, pack, err);
    t->moved_bytes += (int64_t)n;
    progress_add(t->progress, (int64_t)n);
    return OK;
}

/* ---- opening ----------------------------------------------------------------------------------- */

static struct remote_pack *add_pack(struct tocs *t, const struct digest *name, int64_t bytes)
{
    if (t->count == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 64;
        t->packs = mem_grow(t->packs, t->cap, sizeof(*t->packs));
    }
    t->packs[t->count] = (struct remote_pack){.name = *name, .bytes = bytes};
    return &t->packs[t->count++];
}

/* Other names are not ours: temporaries of a copying tool, notes of a person. */
static enum err_code on_key(void *arg, const char *key, int64_t size, struct err *err)
{
    struct err ignored = ERR_INIT;
    struct tocs *t = arg;
    struct digest name;

    if (strlen(key) != 6 + DIGEST_HEX || digest_parse(key + 6, DIGEST_HEX, &name, &ignored))
        return OK;
    if (t->count >= UINT32_MAX)
        return err_set(err, ERR_LIMIT, "remote %s has too many packs", t->remote->name);
    add_pack(t, &name, size);
    return OK;
}

static int by_name(const void *a, const void *b)
{
    return digest_cmp(&((const struct remote_pack *)a)->name,
                      &((const struct remote_pack *)b)->name);
}

/* What a config calls a remote can name a folder; a path cannot, so its digest does. */
static void cache_folder(const char *remote, char out[64 + 1])
{
    char hex[DIGEST_HEX + 1], *real;
    struct digest d;

    if (!strchr(remote, '/')) {
        CHECK(strlen(remote) <= 64); /* config.c refuses longer ones */
        memcpy(out, remote, strlen(remote) + 1);
        return;
    }
    real = realpath(remote, NULL);
    sha256_of(real ? real : remote, strlen(real ? real : remote), &d);
    free(real);
    digest_hex(&d, hex);
    (void)snprintf(out, 64 + 1, "path-%.16s", hex);
}

static enum err_code open_cache(struct tocs *t, struct err *err)
{
    char folder[64 + 1];
    int root = -1, remotes = -1;
    enum err_code rc = os_open_dir(AT_FDCWD, t->st->root, &root, err);

    cache_folder(t->remote->name, folder);

    if (!rc)
        rc = os_mkdir(root, "remotes", 0777, err);
    if (!rc)
        rc = os_open_dir(root, "remotes", &remotes, err);
    if (!rc)
        rc = os_mkdir(remotes, folder, 0777, err);
    if (!rc)
        rc = os_open_dir(remotes, folder, &t->cache, err);
    os_close_quiet(&remotes);
    os_close_quiet(&root);
    return rc;
}

enum err_code tocs_open(struct store *st, const char *remote, bool create, struct tocs *t,
                        struct err *err)
{
    enum err_code rc;

    *t = (struct tocs){.st = st, .cache = -1};
    rc = remote_open(st, remote, create, &t->remote, err);
    if (!rc)
        rc = open_cache(t, err);
    if (!rc)
        rc = t->remote->ops->list(t->remote, "packs/", on_key, t, err);
    if (rc) {
        tocs_close(t);
        return rc;
    }
    if (t->count > 0)
        qsort(t->packs, t->count, sizeof(*t->packs), by_name);
    return OK;
}

void tocs_close(struct tocs *t)
{
    if (!t->st)
        return;
    for (size_t i = 0; i < t->count; i++)
        free(t->packs[i].entries);
    free(t->packs);
    free(t->loose);
    free(t->bad);
    os_close_quiet(&t->cache);
    remote_close(t->remote);
    *t = (struct tocs){0};
}

/* ---- tables ------------------------------------------------------------------------------------ */

static void cache_name(const struct digest *pack, char out[CACHE_NAME])
{
    digest_hex(pack, out);
    memcpy(out + DIGEST_HEX, ".toc", 5);
}

/* A cached table that does not prove itself is as good as none. */
static bool from_cache(struct tocs *t, const struct remote_pack *p, struct pack_entry **entries,
                       size_t *count)
{
    struct err ignored = ERR_INIT;
    char name[CACHE_NAME];
    struct buf tail;
    size_t need;

    buf_init(&tail, (size_t)(p->bytes > 0 ? p->bytes : 0));
    cache_name(&p->name, name);
    if (os_read_file(t->cache, name, tail.max, &tail, &ignored) ||
        pack_toc_parse(tail.n ? tail.p : "", tail.n, p->bytes, &p->name, entries, count, &need,
                       &ignored))
        *entries = NULL;
    buf_release(&tail);
    return *entries != NULL;
}

/* Not being able to remember only costs another read. */
static void to_cache(struct tocs *t, const struct digest *pack, const void *tail, size_t n)
{
    struct err ignored = ERR_INIT;
    char name[CACHE_NAME];

    cache_name(pack, name);
    (void)!os_write_file(t->cache, name, tail, n, 0644, &ignored);
}

/* The head is looked at too: a newer format is not damage. */
static enum err_code check_version(struct tocs *t, uint32_t pack, struct err *err)
{
    uint8_t head[PACK_HEADER_BYTES];
    enum err_code rc;

    rc = read_range(t, pack, head, sizeof(head), 0, err);
    if (rc)
        return rc;
    if (memcmp(head, "WEIRPACK", 8) == 0 && head[8] > 1 && (head[9] | head[10] | head[11]) == 0) {
        err_set(err, ERR_VERSION, "a newer weir (pack version %u) wrote it", head[8]);
        return toc_blame(t, pack, err);
    }
    return OK;
}

static enum err_code from_remote(struct tocs *t, uint32_t pack, struct pack_entry **entries,
                                 size_t *count, struct err *err)
{
    const struct remote_pack *p = &t->packs[pack];
    size_t need = (size_t)p->bytes < TAIL_FIRST ? (size_t)p->bytes : TAIL_FIRST, n = 0;
    char *tail = NULL;
    enum err_code rc;

    if (p->bytes < PACK_TRAILER) {
        err_set(err, ERR_DAMAGED, "%lld bytes cannot be a pack", (long long)p->bytes);
        return toc_blame(t, pack, err);
    }
    rc = check_version(t, pack, err);
    while (!rc && !*entries) {
        CHECK(need > n); /* a table is asked for at most twice */
        n = need;
        free(tail);
        tail = malloc(n);
        if (!tail)
            rc = err_set(err, ERR_LIMIT, "no memory for a table of %zu bytes", n);
        else
            rc = read_range(t, pack, tail, n, p->bytes - (int64_t)n, err);
        if (rc)
            break;
        rc = pack_toc_parse(tail, n, p->bytes, &p->name, entries, count, &need, err);
        if (rc)
            rc = err_prefix(err, "remote %s", t->remote->name);
        else if (!*entries && (need <= n || (int64_t)need > p->bytes)) {
            err_set(err, ERR_DAMAGED, "its table has no sensible length");
            rc = toc_blame(t, pack, err);
        }
    }
    if (!rc)
        to_cache(t, &p->name, tail + (n - need), need);
    free(tail);
    return rc;
}

enum err_code toc_get(struct tocs *t, size_t pack, const struct pack_entry **entries, size_t *count,
                      struct err *err)
{
    struct remote_pack *p = &t->packs[pack];
    struct pack_entry *fresh = NULL;
    enum err_code rc = OK;

    CHECK(pack < t->count);
    if (!p->entries) {
        if (!from_cache(t, p, &fresh, &p->count))
            rc = from_remote(t, (uint32_t)pack, &fresh, &p->count, err);
        if (rc)
            return rc;

        const int64_t bytes = (int64_t)(p->count * sizeof(*fresh));

        if (t->kept_bytes + bytes <= TOC_KEPT_BYTES) {
            t->kept_bytes += bytes;
            p->entries = fresh;
        } else {
            free(t->loose);
            t->loose = fresh;
        }
    }
    *entries = p->entries ? p->entries : t->loose;
    *count = p->count;
    CHECK(*entries);
    return OK;
}

enum err_code tocs_add(struct tocs *t, const struct digest *name, int64_t bytes, int file,
                       struct err *err)
{
    struct pack_entry *entries = NULL;
    uint8_t last[PACK_TRAILER];
    size_t count, need = 0;
    char *tail;
    enum err_code rc = os_pread_all(file, last, sizeof(last), bytes - PACK_TRAILER, err);

    if (!rc)
        rc = pack_toc_parse(last, sizeof(last), bytes, name, &entries, &count, &need, err);
    if (rc)
        return rc;
    CHECK(!entries); /* the trailer alone is no table */
    tail = malloc(need);
    if (!tail)
        return err_set(err, ERR_LIMIT, "no memory for a table of %zu bytes", need);
    rc = os_pread_all(file, tail, need, bytes - (int64_t)need, err);
    if (!rc) {
        to_cache(t, name, tail, need);
        add_pack(t, name, bytes);
    }
    free(tail);
    return rc;
}

/* ---- finding ----------------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
    const struct toc_want *x = a, *y = b;
    const int order = digest_cmp(&x->entry.id, &y->entry.id);

    return order ? order : (x->tag > y->tag) - (x->tag < y->tag);
}

static bool holds_object(const struct pack_entry *e)
{
    return e->type == REC_BLOB || e->type == REC_FRAME || e->type == REC_RECIPE ||
           e->type == REC_LOOSE;
}

static bool is_bad(const struct tocs *t, uint32_t pack, uint32_t off)
{
    for (size_t i = 0; i < t->bad_count; i++)
        if (t->bad[i].pack == pack && t->bad[i].off == off)
            return true;
    return false;
}

/* Both are sorted by id; several wants and several entries may share one. */
static void find_in(const struct tocs *t, struct toc_want *wants, size_t n, uint32_t pack,
                    const struct pack_entry *entries, size_t count)
{
    size_t w = 0;

    for (size_t e = 0; e < count && w < n; e++) {
        if (!holds_object(&entries[e]))
            continue;
        while (w < n && digest_cmp(&wants[w].entry.id, &entries[e].id) < 0)
            w++;
        for (size_t i = w; i < n && digest_eq(&wants[i].entry.id, &entries[e].id); i++)
            if ((wants[i].entry.type == 0 || entries[e].type < wants[i].entry.type) &&
                !is_bad(t, pack, entries[e].off)) {
                wants[i].entry = entries[e];
                wants[i].pack = pack;
            }
    }
}

enum err_code tocs_find(struct tocs *t, struct toc_want *wants, size_t n, struct err *err)
{
    const struct pack_entry *entries;
    enum err_code rc = OK;
    size_t count;

    if (n == 0)
        return OK;
    for (size_t i = 0; i < n; i++)
        wants[i].entry.type = 0;
    qsort(wants, n, sizeof(*wants), by_id);
    for (size_t i = 0; i < t->count && !rc; i++) {
        rc = toc_get(t, i, &entries, &count, err);
        if (!rc)
            find_in(t, wants, n, (uint32_t)i, entries, count);
    }
    return rc;
}

/* ---- reading ----------------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b)
{
    const struct toc_want *x = a, *y = b;

    if (x->pack != y->pack)
        return x->pack < y->pack ? -1 : 1;
    if (x->entry.off != y->entry.off)
        return x->entry.off < y->entry.off ? -1 : 1;
    return (x->entry.pos > y->entry.pos) - (x->entry.pos < y->entry.pos);
}

static int64_t end_of(const struct toc_want *w)
{
    return (int64_t)w->entry.off + PACK_RECORD_HEADER + w->entry.stored;
}

/* How many wants from the first on are read in one go, up to *end. */
static size_t join(const struct toc_want *wants, size_t n, int64_t *end)
{
    const int64_t start = wants[0].entry.off;
    size_t i = 1;

    *end = end_of(&wants[0]);
    for (; i < n && wants[i].pack == wants[0].pack; i++) {
        const int64_t next = end_of(&wants[i]) > *end ? end_of(&wants[i]) : *end;

        if (wants[i].entry.off > *end + TOC_JOIN_GAP ||
            (next > *end && next - start > TOC_JOIN_MAX))
            break;
        *end = next;
    }
    return i;
}

struct again { /* wants whose record is damaged */
    struct toc_want *wants;
    size_t n, cap;
    struct err first; /* what was said about the first of them */
};

/* OK: these n wants are read again from somewhere else. */
static enum err_code set_aside(struct tocs *t, struct again *a, const struct toc_want *wants,
                               size_t n, struct err *err)
{
    if (err->code != ERR_DAMAGED)
        return err->code;
    if (!t->bad)
        t->bad = mem_alloc(TOC_BAD_MAX * sizeof(*t->bad));
    for (size_t i = 0; i < n; i++) {
        const struct toc_place at = {wants[i].pack, wants[i].entry.off};

        if (!is_bad(t, at.pack, at.off) && t->bad_count == TOC_BAD_MAX)
            return err->code;
        if (!is_bad(t, at.pack, at.off))
            t->bad[t->bad_count++] = at;
        if (a->n == a->cap) {
            a->cap = a->cap ? a->cap * 2 : 16;
            a->wants = mem_grow(a->wants, a->cap, sizeof(*a->wants));
        }
        a->wants[a->n++] = wants[i];
    }
    if (!a->first.code)
        a->first = *err;
    *err = (struct err)ERR_INIT;
    return OK;
}

static enum err_code each_record(struct tocs *t, const struct toc_want *wants, size_t n,
                                 const char *bytes, toc_record_fn fn, void *arg, struct again *a,
                                 struct err *err)
{
    const int64_t start = wants[0].entry.off;
    enum err_code rc = OK;

    for (size_t i = 0, j; i < n && !rc; i = j) {
        const struct pack_entry *e = &wants[i].entry;
        const char *payload = bytes + (e->off - start) + PACK_RECORD_HEADER;

        for (j = i + 1; j < n && wants[j].entry.off == e->off; j++)
            ;
        if (crc32c(0, payload, e->stored) != e->crc) {
            err_set(err, ERR_DAMAGED, "record at %u: wrong checksum", e->off);
            rc = toc_blame(t, wants[i].pack, err);
        } else {
            rc = fn(arg, wants + i, j - i, payload, err);
        }
        if (rc)
            rc = set_aside(t, a, wants + i, j - i, err);
    }
    return rc;
}

/* How much is still to come is known one wave of the walk at a time. */
static void announce(struct tocs *t, const struct toc_want *wants, size_t n)
{
    int64_t sum = 0;

    if (!t->progress)
        return;
    for (size_t i = 0, took; i < n; i += took) {
        int64_t end;

        took = join(wants + i, n - i, &end);
        sum += end - wants[i].entry.off;
    }
    atomic_store(&t->progress->total, atomic_load(&t->progress->done) + sum);
}

static enum err_code read_places(struct tocs *t, struct toc_want *wants, size_t n, toc_record_fn fn,
                                 void *arg, struct again *a, struct err *err)
{
    enum err_code rc = OK;
    char *bytes = NULL;
    size_t room = 0;

    if (n > 0)
        qsort(wants, n, sizeof(*wants), by_place);
    announce(t, wants, n);
    for (size_t i = 0, took; i < n && !rc; i += took) {
        int64_t end;

        took = join(wants + i, n - i, &end);

        const size_t length = (size_t)(end - wants[i].entry.off);

        if (length > room) {
            free(bytes);
            room = length;
            bytes = malloc(room);
        }
        if (!bytes)
            rc = err_set(err, ERR_LIMIT, "no memory for a record of %zu bytes", length);
        else
            rc = read_range(t, wants[i].pack, bytes, length, wants[i].entry.off, err);
        if (!rc)
            rc = each_record(t, wants + i, took, bytes, fn, arg, a, err);
        else
            rc = set_aside(t, a, wants + i, took, err); /* a pack that was cut short */
    }
    free(bytes);
    return rc;
}

enum err_code tocs_read(struct tocs *t, struct toc_want *wants, size_t n, toc_record_fn fn,
                        void *arg, struct err *err)
{
    struct again a = {0};
    enum err_code rc = read_places(t, wants, n, fn, arg, &a, err);

    while (!rc && a.n > 0) {
        struct again before = a;

        a = (struct again){.first = before.first};
        rc = tocs_find(t, before.wants, before.n, err);
        for (size_t i = 0; i < before.n && !rc; i++)
            if (before.wants[i].entry.type == 0 || before.wants[i].entry.type == REC_LOOSE) {
                *err = before.first;
                rc = err->code;
            }
        if (!rc)
            rc = read_places(t, before.wants, before.n, fn, arg, &a, err);
        free(before.wants);
    }
    free(a.wants);
    return rc;
}

/* ---- refs and binds ---------------------------------------------------------------------------- */

struct noting {
    struct tocs *t;
    struct remote_note *notes;
    size_t n, cap;
    struct toc_want *wants;
    size_t want_n, want_cap;
};

static enum err_code gather(struct noting *g, enum rec_type type, note_wanted_fn wanted, void *arg,
                            struct err *err)
{
    const struct pack_entry *entries;
    enum err_code rc = OK;
    size_t count;

    for (size_t i = 0; i < g->t->count && !rc; i++) {
        rc = toc_get(g->t, i, &entries, &count, err);
        for (size_t e = 0; !rc && e < count; e++) {
            if (entries[e].type != type ||
                (wanted && !wanted(arg, &entries[e].id, (int64_t)entries[e].stamp)))
                continue;
            if (g->want_n == g->want_cap) {
                g->want_cap = g->want_cap ? g->want_cap * 2 : 64;
                g->wants = mem_grow(g->wants, g->want_cap, sizeof(*g->wants));
            }
            g->wants[g->want_n++] = (struct toc_want){.entry = entries[e], .pack = (uint32_t)i};
        }
    }
    return rc;
}

static int by_stamp(const void *a, const void *b)
{
    const struct toc_want *x = a, *y = b;
    const int order = digest_cmp(&x->entry.id, &y->entry.id);

    return order ? order : (x->entry.stamp < y->entry.stamp) - (x->entry.stamp > y->entry.stamp);
}

/* Of each id only those with its greatest stamp are worth reading. */
static void keep_newest(struct noting *g)
{
    struct digest id = {{0}};
    uint64_t stamp = 0;
    size_t kept = 0;

    if (g->want_n > 0)
        qsort(g->wants, g->want_n, sizeof(*g->wants), by_stamp);
    for (size_t i = 0; i < g->want_n; i++) {
        if (i == 0 || !digest_eq(&g->wants[i].entry.id, &id)) {
            id = g->wants[i].entry.id;
            stamp = g->wants[i].entry.stamp;
        }
        if (g->wants[i].entry.stamp == stamp)
            g->wants[kept++] = g->wants[i];
    }
    g->want_n = kept;
}

static enum err_code on_note(void *arg, const struct toc_want *wants, size_t n, const void *payload,
                             struct err *err)
{
    const struct pack_entry *e = &wants[0].entry;
    struct noting *g = arg;
    struct remote_note note = {.id = e->id, .stamp = (int64_t)e->stamp};
    struct str name = {NULL, 0};
    uint8_t kind = 0;
    enum err_code rc = OK;

    (void)n;
    CHECK(payload);
    if (e->type == REC_REF)
        rc = ref_decode(&e->id, payload, e->stored, &note.target, &kind, &name, err);
    else if (e->stored == DIGEST_BYTES)
        memcpy(note.target.b, payload, DIGEST_BYTES);
    else
        rc = err_set(err, ERR_DAMAGED, "record at %u: a result of %u bytes", e->off, e->stored);
    if (!rc && e->type == REC_REF) {
        /* A name that we would never write could be meant to confuse whoever reads it. */
        rc = store_ref_check(name, err);
        if (rc)
            rc = err_set(err, ERR_DAMAGED, "record at %u: \"%.*s\" is no name for a ref", e->off,
                         (int)(name.n < 100 ? name.n : 100), name.p);
    }
    if (rc)
        return toc_blame(g->t, wants[0].pack, err);
    note.kind = (enum obj_kind)kind;
    if (e->type == REC_REF)
        note.name = mem_strndup(name.p, name.n);
    if (g->n == g->cap) {
        g->cap = g->cap ? g->cap * 2 : 64;
        g->notes = mem_grow(g->notes, g->cap, sizeof(*g->notes));
    }
    g->notes[g->n++] = note;
    return OK;
}

static int by_note(const void *a, const void *b)
{
    const struct remote_note *x = a, *y = b;
    const int order = digest_cmp(&x->id, &y->id);

    return order ? order : digest_cmp(&y->target, &x->target); /* greatest digest first */
}

enum err_code notes_read(struct tocs *t, enum rec_type type, note_wanted_fn wanted, void *arg,
                         struct remote_note **notes, size_t *n, struct err *err)
{
    struct noting g = {.t = t};
    size_t kept = 0;
    enum err_code rc = gather(&g, type, wanted, arg, err);

    *notes = NULL;
    *n = 0;
    if (!rc) {
        keep_newest(&g);
        rc = tocs_read(t, g.wants, g.want_n, on_note, &g, err);
    }
    free(g.wants);
    if (rc) {
        notes_free(g.notes, g.n);
        return rc;
    }
    if (g.n > 0)
        qsort(g.notes, g.n, sizeof(*g.notes), by_note);
    for (size_t i = 0; i < g.n; i++) {
        if (kept > 0 && digest_eq(&g.notes[kept - 1].id, &g.notes[i].id))
            free(g.notes[i].name);
        else
            g.notes[kept++] = g.notes[i];
    }
    *notes = g.notes;
    *n = kept;
    return OK;
}

void notes_free(struct remote_note *notes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(notes[i].name);
    free(notes);
}

const struct remote_note *note_find(const struct remote_note *notes, size_t n,
                                    const struct digest *id)
{
    size_t low = 0, high = n;

    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        const int order = digest_cmp(&notes[mid].id, id);

        if (order == 0)
            return &notes[mid];
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}
