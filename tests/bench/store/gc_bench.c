/* Figures of marking and collecting: gc_bench DIR [OBJECTS]
 *
 * A store with that many tiny objects (default 5,000,000) in trees of 200 is written below DIR, about 170 bytes an object, by pack writers
 * and a rebuild of the index; then everything is marked from one ref, and a gc decides what may go.  One line each: name, value, unit.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/os.h"
#include "store/gc_internal.h"
#include "store/tree.h"
#include "tests/store_gen.h"

#define PER_TREE 200
#define PER_PACK 200000
#define FRAME_TREES 9 /* about 256 KiB */

static struct err err = ERR_INIT;

static void must(enum err_code rc)
{
    if (rc) {
        fprintf(stderr, "gc_bench: %s\n", err.text);
        exit(1);
    }
}

static void line(const char *name, double value, const char *unit)
{
    printf("%s %.4g %s\n", name, value, unit);
    fflush(stdout);
}

static double wall(void)
{
    return (double)os_monotonic_ns() * 1e-9;
}

static double cpu(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static double rss_mib(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_maxrss / 1024;
}

struct maker {
    struct store *st;
    struct pack_writer *w;
    size_t records;
    struct codec *codec;
    struct frame_member members[FRAME_TREES];
    size_t count;
    struct buf raw, zstd;
    uint64_t seed;
};

static void seal(struct maker *m)
{
    struct digest name;

    if (!m->w)
        return;
    must(pack_seal(m->w, PACK_SYNC_DIR_LATER, &name, &err));
    pack_writer_release(m->w);
    m->w = NULL;
    m->records = 0;
}

static struct pack_writer *writer(struct maker *m)
{
    if (m->w && m->records >= PER_PACK)
        seal(m);
    if (!m->w)
        must(pack_writer_open(m->st->objects, &m->w, &err));
    m->records++;
    return m->w;
}

/* Its id is not its hash: nothing here reads it. */
static void put_blob(struct maker *m, struct digest *id)
{
    struct pack_entry e = {.type = REC_BLOB, .raw = 8};

    gen_noise(&m->seed, id->b, DIGEST_BYTES);
    e.id = *id;
    must(pack_put(writer(m), &e, id->b, 8, &err));
}

static void flush_frame(struct maker *m)
{
    if (m->count == 0)
        return;
    buf_clear(&m->zstd);
    must(codec_encode(m->codec, ENC_ZSTD, 1, m->raw.p, m->raw.n, &m->zstd, &err));
    must(pack_put_frame(writer(m), m->members, m->count, m->zstd.p, m->zstd.n, m->raw.n, NULL,
                        &err));
    m->count = 0;
    buf_clear(&m->raw);
}

static void put_tree(struct maker *m, struct tree *t, struct digest *id)
{
    const size_t before = m->raw.n;

    must(tree_encode(t, &m->raw, &err));
    tree_release(t);
    sha256_of(m->raw.p + before, m->raw.n - before, id);
    m->members[m->count++] =
        (struct frame_member){.id = *id, .len = (uint32_t)(m->raw.n - before), .flags = REC_TREE};
    if (m->count == FRAME_TREES)
        flush_frame(m);
}

static void add_entry(struct tree *t, int i, enum tree_mode mode, const struct digest *id)
{
    char name[32];
    struct tree_entry e = {.mode = mode, .digest = *id, .size = 8};

    snprintf(name, sizeof(name), "sample-%08d.json", i);
    e.name = str_of(name);
    must(tree_add(t, &e, 0, &err));
}

static void fill(struct store *st, int objects)
{
    struct maker m = {.st = st, .seed = 1};
    struct digest id, top;
    struct tree above, t;
    struct pack_entry ref = {.type = REC_REF, .stamp = 1};
    struct buf payload;

    buf_init(&m.raw, CODEC_RAW_MAX);
    buf_init(&m.zstd, CODEC_RAW_MAX);
    buf_init(&payload, 4096);
    must(codec_new(&m.codec, &err));
    tree_init(&above);
    for (int i = 0; i < objects / PER_TREE; i++) {
        tree_init(&t);
        for (int k = 0; k < PER_TREE; k++) {
            put_blob(&m, &id);
            add_entry(&t, k, TREE_FILE, &id);
        }
        put_tree(&m, &t, &id);
        add_entry(&above, i, TREE_DIR, &id);
    }
    flush_frame(&m);
    put_tree(&m, &above, &top);
    flush_frame(&m);
    sha256_of("all", 3, &ref.id);
    ref_encode(&top, OBJ_TREE, STR("all"), &payload);
    must(pack_put(writer(&m), &ref, payload.p, payload.n, &err));
    seal(&m);
    must(os_fsync(st->packs, &err));
    codec_free(m.codec);
    buf_release(&m.raw);
    buf_release(&m.zstd);
    buf_release(&payload);
}

static struct store *rebuild(struct store *st, const char *dir)
{
    struct rebuild_report report;
    struct buf path;

    buf_init(&path, 4096);
    buf_printf(&path, "%s/index", st->root);
    index_close(st->index);
    st->index = NULL;
    must(index_rebuild(path.p, st->packs, st->loose, &report, &err));
    buf_release(&report.problems);
    buf_release(&path);
    store_close(st);
    st = NULL;
    must(store_open(dir, STORE_WRITE, &st, &err));
    return st;
}

int main(int argc, char **argv)
{
    const int objects = argc > 2 ? atoi(argv[2]) : 5000000;
    struct store *st = NULL;
    double w, c;
    struct gc g;

    if (argc < 2) {
        fprintf(stderr, "usage: gc_bench DIR [OBJECTS]\n");
        return 64;
    }
    if (store_open(argv[1], STORE_WRITE, &st, &err) == ERR_NOT_FOUND) {
        err = (struct err)ERR_INIT;
        must(store_init(argv[1], NULL, &err));
        must(store_open(argv[1], STORE_WRITE, &st, &err));
        w = wall();
        fill(st, objects);
        line("fill", wall() - w, "s");
        w = wall();
        st = rebuild(st, argv[1]);
        line("rebuild", wall() - w, "s");
    }
    for (int round = 0; round < 3; round++) {
        const double before = rss_mib();

        must(gc_begin(&g, st, 0, true, &err));
        w = wall();
        c = cpu();
        must(gc_mark_roots(&g, &err));
        line("gc_mark", wall() - w, "s");
        line("gc_mark_cpu", cpu() - c, "s");
        if (round == 0) {
            line("gc_mark_memory", rss_mib() - before, "MiB"); /* pages of the index included */
            line("gc_mark_objects", (double)mark_count(g.mark), "objects");
        }
        w = wall();
        c = cpu();
        must(gc_plan_make(&g.plan, &err));
        line("gc_plan", wall() - w, "s");
        line("gc_plan_cpu", cpu() - c, "s");
        gc_end(&g);
    }
    line("peak", rss_mib(), "MiB");
    store_close(st);
    return 0;
}
