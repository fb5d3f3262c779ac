/* Files from LOOSE_MIN_BYTES on, in one pass.
 *
 *   loose    nothing of it is known: the bytes go to a file in tmp/, the recipe to the record that
 *            announces it, so that its chunks are known next time
 *   recipe   some of it is known: the chunks that are not go to packs, the recipe ties all together
 *
 * A few chunks decide: for safetensors one from each eighth of the file, for other files the first
 * ones and a few from its middle.  Only its whole digest tells whether the file itself is known; what was written by then is
 * dropped (loose) or garbage (chunks). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "store/writer_internal.h"

#define PROBES 8
#define MIDDLE_MIN_BYTES ((int64_t)64 << 20) /* shorter files: the first chunks have to do */
#define MIDDLE_WINDOW ((size_t)16 << 20)
#define MIDDLE_THREE ((int64_t)256 << 20) /* from here on three windows, else one */
#define WINDOW_PROBES 4
#define PROBE_MIN_BYTES                                                                            \
    ((int64_t)64 << 10) /* smaller tensors are alike in unrelated models: zeros, ones */
#define TAKE_TENSORS 2  /* chunks of 8 MiB */
#define TAKE_OTHERS 8   /* chunks of 1 MiB */

enum mode { MODE_UNDECIDED, MODE_LOOSE, MODE_RECIPE };

struct large {
    struct writer *w;
    const struct large_source *from;
    int64_t size;
    struct cutter *cutter;
    struct stream *stream;
    enum mode mode;

    struct recipe_chunk *chunks;
    uint8_t *known; /* enum id_state of each, recipe mode */
    size_t count, cap;

    int fd; /* loose mode, unless adopted: the file in tmp/ */
    char tmp[TMP_NAME];
    bool made;   /* tmp exists and is ours to remove */
    bool direct; /* past the page cache */
    int64_t written;
};

/* ---- streams ----------------------------------------------------------------------------------- */

static enum err_code stream_get(struct writer *w, struct stream **out, struct err *err)
{
    enum err_code rc;

    writer_lock(w);
    while (w->stream_free_count == 0 && w->stream_made == w->stream_max)
        pthread_cond_wait(&w->freed, &w->lock);
    *out = w->stream_free_count > 0 ? w->streams_free[--w->stream_free_count] : NULL;
    if (!*out)
        w->stream_made++;
    writer_unlock(w);
    if (*out)
        return OK;
    rc = stream_new(out, err);
    if (rc) {
        writer_lock(w);
        w->stream_made--;
        pthread_cond_signal(&w->freed);
        writer_unlock(w);
    }
    return rc;
}

static void stream_put(struct writer *w, struct stream *s)
{
    if (!s)
        return;
    stream_stop(s);
    writer_lock(w);
    w->streams_free[w->stream_free_count++] = s;
    pthread_cond_signal(&w->freed);
    writer_unlock(w);
}

void large_free_streams(struct writer *w)
{
    CHECK(w->stream_free_count == w->stream_made);
    while (w->stream_free_count > 0)
        stream_free(w->streams_free[--w->stream_free_count]);
    w->stream_made = 0;
}

/* ---- where to cut ------------------------------------------------------------------------------ */

static enum err_code make_cutter(struct large *l, struct err *err)
{
    uint8_t first[512];
    uint8_t *head = first;
    size_t n = 0, wanted;
    enum err_code rc;

    rc = os_pread(l->from->fd, first, sizeof(first), 0, &n, err);
    if (rc)
        return rc;
    wanted = cut_head_wanted(first, n, l->size);
    if (wanted > n) {
        head = malloc(wanted);
        if (!head)
            return err_set(err, ERR_LIMIT, "%s: no memory for a header of %zu bytes", l->from->path,
                           wanted);
        rc = os_pread(l->from->fd, head, wanted, 0, &n, err);
    }
    if (!rc)
        l->cutter = cut_new(head, n, l->size);
    if (head != first)
        free(head);
    return rc;
}

/* From each eighth of the file the smallest piece that still says something. */
static size_t choose_probes(const struct cut_piece *plan, size_t count, int64_t size,
                            const struct cut_piece *probes[PROBES])
{
    const struct cut_piece *best[PROBES] = {NULL};
    size_t n = 0;

    for (size_t i = 0; i < count; i++) {
        const int64_t eighth = size / PROBES + 1;
        const struct cut_piece **b = &best[plan[i].off / eighth];

        if (plan[i].len < PROBE_MIN_BYTES)
            continue;
        if (!*b || plan[i].len < (*b)->len)
            *b = &plan[i];
    }
    for (int i = 0; i < PROBES; i++)
        if (best[i])
            probes[n++] = best[i];
    return n;
}

static enum err_code read_probe(struct large *l, const struct cut_piece *piece, struct digest *id,
                                uint8_t *scratch, struct err *err)
{
    size_t got;
    enum err_code rc;

    rc = os_pread(l->from->fd, scratch, (size_t)piece->len, piece->off, &got, err);
    if (!rc && (int64_t)got != piece->len)
        rc = writer_changed(l->from->path, err);
    if (!rc)
        sha256_of(scratch, got, id);
    return rc;
}

static bool any_known(const uint8_t *known, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (known[i] != ID_ABSENT)
            return true;
    return false;
}

/* The chunks are known beforehand: ask for a few while the other threads start on the file. */
static enum err_code probe_plan(struct large *l, struct err *err)
{
    const struct cut_piece *probes[PROBES];
    struct digest ids[PROBES];
    uint8_t known[PROBES];
    uint8_t *scratch = NULL;
    enum err_code rc = OK;
    size_t count, n;

    const struct cut_piece *plan = cut_plan(l->cutter, &count);

    if (!plan)
        return OK;
    n = choose_probes(plan, count, l->size, probes);
    if (n == 0)
        return OK;
    scratch = malloc(CUT_CHUNK_MAX);
    if (!scratch)
        return err_set(err, ERR_LIMIT, "no memory for a chunk");
    for (size_t i = 0; !rc && i < n; i++)
        rc = read_probe(l, probes[i], &ids[i], scratch, err);
    free(scratch);
    if (!rc)
        rc = writer_lookup(l->w, ids, n, known, err);
    if (!rc)
        l->mode = any_known(known, n) ? MODE_RECIPE : MODE_LOOSE;
    return rc;
}

/* Where, in the window at off, can a cutter be set down?  A tar archive is cut at its headers only. */
static size_t window_start(const struct large *l, const uint8_t *p, size_t n)
{
    size_t at = 0;

    if (cut_rule(l->cutter) != CUT_TAR)
        return 0;
    while (at + 512 <= n && memcmp(p + at + 257, "ustar", 5) != 0)
        at += 512;
    return at;
}

/* Content decides where chunks end, so a cutter that starts anywhere comes to cut where the others do, after a few MiB.  The last
 * whole chunks of the window are the ones to ask about. */
static size_t window_chunks(const struct large *l, const uint8_t *p, size_t n,
                            struct digest ids[WINDOW_PROBES])
{
    struct span {
        size_t off, len;
    } last[WINDOW_PROBES] = {{0}};
    size_t at = window_start(l, p, n), count = 0;
    struct cutter *cutter;

    if (at >= n)
        return 0;
    cutter = cut_new(p + at, n - at, (int64_t)(n - at));
    while (cut_rule(cutter) == cut_rule(l->cutter)) {
        const size_t left = n - at;
        enum hint hint;
        const size_t len =
            cut_next(cutter, p + at, left < CUT_CHUNK_MAX ? left : CUT_CHUNK_MAX, &hint);

        if (len == 0 || len == left)
            break; /* the window's end is no cut */
        last[count++ % WINDOW_PROBES] = (struct span){at, len};
        at += len;
    }
    cut_free(cutter);
    if (count > WINDOW_PROBES)
        count = WINDOW_PROBES;
    for (size_t i = 0; i < count; i++)
        sha256_of(p + last[i].off, last[i].len, &ids[i]);
    return count;
}

/* The start of the file is new; is its middle? */
static enum err_code probe_middle(struct large *l, struct err *err)
{
    const int windows = l->size < MIDDLE_THREE ? 1 : 3;
    uint8_t *window = malloc(MIDDLE_WINDOW);
    enum err_code rc = OK;

    if (!window)
        return err_set(err, ERR_LIMIT, "no memory to look into %s", l->from->path);
    for (int i = 1; !rc && i <= windows && l->mode != MODE_RECIPE; i++) {
        const int64_t off = l->size / (windows + 1) * i / 512 * 512;
        struct digest ids[WINDOW_PROBES];
        uint8_t known[WINDOW_PROBES];
        size_t n, got;

        rc = os_pread(l->from->fd, window, MIDDLE_WINDOW, off, &got, err);
        if (rc)
            break;
        n = window_chunks(l, window, got, ids);
        rc = writer_lookup(l->w, ids, n, known, err);
        if (!rc && any_known(known, n))
            l->mode = MODE_RECIPE;
    }
    free(window);
    return rc;
}

static enum err_code decide(struct large *l, const struct stream_chunk *chunks, size_t n,
                            struct err *err)
{
    struct digest ids[PROBES];
    uint8_t known[PROBES];
    enum err_code rc;

    if (n > PROBES)
        n = PROBES;
    for (size_t i = 0; i < n; i++)
        ids[i] = chunks[i].id;
    rc = writer_lookup(l->w, ids, n, known, err);
    if (rc)
        return rc;
    l->mode = any_known(known, n) ? MODE_RECIPE : MODE_LOOSE;
    if (l->mode == MODE_RECIPE || l->size < MIDDLE_MIN_BYTES || cut_rule(l->cutter) == CUT_TENSORS)
        return OK;
    return probe_middle(l, err);
}

/* ---- writing ----------------------------------------------------------------------------------- */

static enum err_code open_loose(struct large *l, struct err *err)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL;
    enum err_code rc;

    writer_tmp_name("loose", l->tmp);
    rc = os_open(l->w->st->tmp, l->tmp, flags | O_DIRECT, 0644, &l->fd, err);
    l->direct = !rc;
    if (rc && err->sys == EINVAL) {
        struct err ignored = ERR_INIT;

        /* Not every file system can; some leave an empty file behind. */
        (void)!os_unlink(l->w->st->tmp, l->tmp, &ignored);
        *err = (struct err)ERR_INIT;
        rc = os_open(l->w->st->tmp, l->tmp, flags, 0644, &l->fd, err);
    }
    l->made = !rc;
    return rc;
}

static void use_cache(struct large *l)
{
    const int flags = fcntl(l->fd, F_GETFL);

    CHECK(flags >= 0);
    CHECK(fcntl(l->fd, F_SETFL, flags & ~O_DIRECT) == 0);
    l->direct = false;
}

/* n bytes at the end of the file. */
static enum err_code append_loose(struct large *l, const uint8_t *p, int64_t n, struct err *err)
{
    enum err_code rc;

    rc = os_pwrite(l->fd, p, (size_t)n, l->written, err);
    if (rc && l->direct && err->sys == EINVAL) {
        use_cache(l);
        *err = (struct err)ERR_INIT;
        rc = os_pwrite(l->fd, p, (size_t)n, l->written, err);
    }
    if (rc)
        return rc;
    l->written += n;
    if (!l->direct)
        os_write_behind(l->fd, l->written - n, n);
    return OK;
}

/* Past the page cache: what goes through it costs a copy and new pages (0.3 to 2.7 CPU seconds a GiB were measured, against
 * 0.04), and nobody is going to read the file soon.  Such writes are whole pages, so the end of a chunk
 * is written with the next one. */
static enum err_code write_loose(struct large *l, const struct stream_chunk *chunks, size_t n,
                                 struct err *err)
{
    const int64_t end = chunks[n - 1].off + chunks[n - 1].len;
    const int64_t pages_end = end / STREAM_PAGE * STREAM_PAGE;
    const uint8_t *p = chunks[0].p - (chunks[0].off - l->written);
    enum err_code rc = OK;

    if (l->from->tmp)
        return OK; /* it is there already */
    if (!l->made)
        rc = open_loose(l, err);
    if (!rc && pages_end > l->written)
        rc = append_loose(l, p, pages_end - l->written, err);
    if (rc || end < l->size || end == pages_end)
        return rc;
    if (l->direct)
        use_cache(l);
    p = chunks[n - 1].p + (pages_end - chunks[n - 1].off);
    return append_loose(l, p, end - pages_end, err);
}

static enum err_code write_chunk(struct large *l, const struct stream_chunk *c, uint8_t known,
                                 struct err *err)
{
    struct pack_entry e = {.id = c->id, .type = REC_BLOB, .enc = ENC_RAW, .raw = c->len};

    if (known != ID_ABSENT || !claims_add(l->w->ids, &c->id, ID_WRITTEN))
        return OK;
    return writer_pack_chunk(l->w, &e, c->p, c->len, err);
}

static void remember_chunks(struct large *l, const struct stream_chunk *chunks, size_t n)
{
    if (l->count + n > l->cap) {
        l->cap = 2 * (l->count + n);
        l->chunks = mem_grow(l->chunks, l->cap, sizeof(*l->chunks));
        l->known = mem_grow(l->known, l->cap, 1);
    }
    for (size_t i = 0; i < n; i++) {
        l->chunks[l->count + i] = (struct recipe_chunk){
            .id = chunks[i].id, .len = chunks[i].len, .hint = (uint8_t)chunks[i].hint};
        l->known[l->count + i] = ID_ABSENT;
    }
    l->count += n;
}

static enum err_code write_chunks(struct large *l, const struct stream_chunk *chunks, size_t n,
                                  struct err *err)
{
    struct digest *ids = NULL;
    enum err_code rc = OK;

    if (l->mode == MODE_RECIPE) {
        ids = mem_alloc(n * sizeof(*ids));
        for (size_t i = 0; i < n; i++)
            ids[i] = chunks[i].id;
        rc = writer_lookup(l->w, ids, n, l->known + l->count - n, err);
        free(ids);
    }
    for (size_t i = 0; !rc && l->mode == MODE_RECIPE && i < n; i++)
        rc = write_chunk(l, &chunks[i], l->known[l->count - n + i], err);
    if (!rc && l->mode == MODE_LOOSE)
        rc = write_loose(l, chunks, n, err);
    writer_add_progress(l->w, chunks[n - 1].off + chunks[n - 1].len - chunks[0].off, 0);
    return rc;
}

/* ---- the pass ---------------------------------------------------------------------------------- */

static enum err_code run(struct large *l, struct digest *id, struct err *err)
{
    const size_t want = cut_rule(l->cutter) == CUT_TENSORS ? TAKE_TENSORS : TAKE_OTHERS;
    const struct stream_chunk *chunks;
    struct stat after;
    enum err_code rc;
    size_t n;

    rc = stream_start(l->stream, l->from->fd, l->size, l->cutter, err);
    if (!rc && l->mode == MODE_UNDECIDED)
        rc = probe_plan(l, err);
    while (!rc) {
        rc = stream_take(l->stream, l->mode == MODE_UNDECIDED ? PROBES : want, &chunks, &n, err);
        if (rc == ERR_CHANGED)
            err_prefix(err, "%s", l->from->path);
        if (rc || n == 0)
            break;
        if (l->mode == MODE_UNDECIDED)
            rc = decide(l, chunks, n, err);
        remember_chunks(l, chunks, n);
        if (!rc)
            rc = write_chunks(l, chunks, n, err);
        if (!rc)
            rc = writer_alive(l->w, err); /* another thread's trouble is ours */
    }
    if (rc)
        return rc;
    stream_finish(l->stream, id);
    rc = os_stat(l->from->fd, &after, err);
    if (!rc && (!writer_same_file(l->from->before, &after) || adopt_disturbed(l->from)))
        rc = writer_changed(l->from->path, err);
    return rc;
}

static void keep_tmp(struct large *l, const struct digest *id)
{
    struct writer *w = l->w;
    struct loose_note note = {.id = *id, .size = l->size};

    snprintf(note.tmp, sizeof(note.tmp), "%s", l->from->tmp ? l->from->tmp : l->tmp);
    writer_lock(w);
    w->loose = writer_roomy(w->loose, w->loose_count, &w->loose_cap, sizeof(*w->loose));
    w->loose[w->loose_count++] = note;
    writer_unlock(w);
    l->made = false;
    if (l->from->kept)
        *l->from->kept = true;
}

/* New, and nothing of it was known: the file, its announcement, and its chunks for the files to come. */
static enum err_code keep_loose(struct large *l, const struct digest *id, struct err *err)
{
    const int fd = l->from->tmp ? l->from->fd : l->fd;
    enum err_code rc;

    rc = os_fdatasync(fd, err);
    if (!rc && !l->from->tmp)
        rc = os_close(&l->fd, err);
    if (rc)
        return writer_fail(l->w, err);
    keep_tmp(l, id);
    /* One chunk would be a recipe that consists of itself. */
    writer_note(l->w, REC_LOOSE, id, 0, (uint64_t)l->size, l->chunks, l->count > 1 ? l->count : 0);
    for (size_t i = 0; i < l->count; i++)
        claims_add(l->w->ids, &l->chunks[i].id, ID_WRITTEN);
    l->w->new_bytes += l->size;
    return OK;
}

static enum err_code keep_recipe(struct large *l, const struct digest *id, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < l->count; i++)
        if (l->known[i] == ID_REUSED)
            rc = writer_reuse(l->w, &l->chunks[i].id, 1, err);
    writer_note(l->w, REC_RECIPE, id, 0, (uint64_t)l->size, l->chunks, l->count);
    return rc;
}

static enum err_code keep(struct large *l, const struct digest *id, struct err *err)
{
    uint8_t known;
    enum err_code rc;

    rc = writer_lookup(l->w, id, 1, &known, err);
    if (rc)
        return writer_fail(l->w, err);
    /* Its one chunk, which is itself, was there a moment ago: a gc is at work. */
    if (known == ID_ABSENT && l->mode == MODE_RECIPE && l->count == 1)
        return writer_of_itself(l->w, id, err);
    if (known != ID_ABSENT || !claims_add(l->w->ids, id, ID_WRITTEN)) {
        l->w->reused_objects++;
        return known == ID_REUSED ? writer_reuse(l->w, id, 1, err) : OK;
    }
    if (l->mode == MODE_LOOSE)
        return keep_loose(l, id, err);
    return keep_recipe(l, id, err);
}

enum err_code large_put(struct writer *w, const struct large_source *from, struct digest *out,
                        struct err *err)
{
    struct large l = {.w = w, .from = from, .size = from->before->st_size, .fd = -1};
    struct err ignored = ERR_INIT;
    enum err_code rc;

    CHECK(l.size > 0);
    if (from->tmp)
        l.mode = MODE_LOOSE;
    rc = make_cutter(&l, err);
    if (!rc)
        rc = stream_get(w, &l.stream, err);
    if (!rc)
        rc = run(&l, out, err);
    if (!rc)
        rc = keep(&l, out, err);
    else if (rc != ERR_CHANGED && rc != ERR_LIMIT)
        rc = writer_fail(w, err);
    stream_put(w, l.stream);
    cut_free(l.cutter);
    os_close_quiet(&l.fd);
    if (l.made)
        (void)!os_unlink(w->st->tmp, l.tmp, &ignored);
    free(l.chunks);
    free(l.known);
    return rc;
}

/* ---- large trees ------------------------------------------------------------------------------- */

static enum err_code put_tree_chunk(struct writer *w, struct small *s, const uint8_t *p, size_t n,
                                    struct recipe_chunk *out, struct err *err)
{
    struct small_item item = {.p = p, .n = n, .kind = OBJ_BLOB};
    enum err_code rc = OK;
    uint8_t known;

    sha256_of(p, n, &item.id);
    *out = (struct recipe_chunk){.id = item.id, .len = (uint32_t)n, .hint = HINT_TEXT};
    rc = writer_lookup(w, &item.id, 1, &known, err);
    if (rc)
        return writer_fail(w, err);
    if (known == ID_REUSED)
        return writer_reuse(w, &item.id, 1, err);
    return known == ID_ABSENT && claims_add(w->ids, &item.id, ID_WRITTEN)
               ? small_write(w, s, &item, err)
               : OK;
}

enum err_code large_tree(struct writer *w, const void *p, size_t n, const struct digest *id,
                         struct err *err)
{
    struct cutter *cutter = cut_new(p, n, (int64_t)n);
    struct recipe_chunk *chunks = NULL;
    size_t count = 0, cap = 0, off = 0;
    struct small *s = NULL;
    enum err_code rc;

    rc = small_get(w, &s, err);
    while (!rc && off < n) {
        const size_t left = n - off;
        enum hint hint;
        const size_t len = cut_next(cutter, (const uint8_t *)p + off,
                                    left < CUT_CHUNK_MAX ? left : CUT_CHUNK_MAX, &hint);

        if (count == cap) {
            cap = cap ? 2 * cap : 64;
            chunks = mem_grow(chunks, cap, sizeof(*chunks));
        }
        rc = put_tree_chunk(w, s, (const uint8_t *)p + off, len, &chunks[count++], err);
        off += len;
    }
    if (!rc)
        writer_note(w, REC_RECIPE, id, REC_TREE, n, chunks, count);
    if (s)
        small_put(w, s);
    cut_free(cutter);
    free(chunks);
    return rc;
}
