/* Figures of the index: index_bench DIR [OBJECTS]
 *
 * Packs of small blobs with random ids are written below DIR (about 160 bytes an object), then:
 * rebuild, look-ups, scan, and commits of 50,000 objects into an empty and into the large index.
 * One line each: name, value, unit.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/os.h"
#include "store/index.h"
#include "tests/store_gen.h"

#define PACK_OBJECTS 20000
#define COMMIT_OBJECTS 50000
#define LOOKUPS 1000000
#define SCAN_ROWS 4096

struct bench {
    int objects, packs, loose;
    char index[4096], empty[4096];
    uint64_t count;
    struct err err;
};

#define MUST(call)                                                                                 \
    do {                                                                                           \
        if ((call) != OK)                                                                          \
            die(&b->err);                                                                          \
    } while (0)

static void die(const struct err *err)
{
    fprintf(stderr, "index_bench: %s\n", err->text);
    exit(1);
}

static void line(const char *name, double value, const char *unit)
{
    printf("%s %.6g %s\n", name, value, unit);
    fflush(stdout);
}

static double seconds_since(int64_t start)
{
    return (double)(os_monotonic_ns() - start) / 1e9;
}

/* Ids are the numbers' hashes as far as anybody can tell; a real SHA-256 would be most of the
 * time. */
static struct digest id_of(uint64_t n)
{
    struct digest d;
    uint64_t seed = n * 0x2545f4914f6cdd1du + 1;

    gen_noise(&seed, d.b, sizeof(d.b));
    return d;
}

static struct digest make_pack(struct bench *b, uint64_t from, uint64_t n)
{
    struct pack_writer *w;
    struct digest name;

    MUST(pack_writer_open(b->objects, &w, &b->err));
    for (uint64_t i = from; i < from + n; i++) {
        struct pack_entry e = {.type = REC_BLOB, .raw = 4, .id = id_of(i)};

        MUST(pack_put(w, &e, "four", 4, &b->err));
    }
    MUST(pack_seal(w, PACK_SYNC_DIR_LATER, &name, &b->err));
    pack_writer_release(w);
    return name;
}

static void make_folders(struct bench *b, const char *dir)
{
    MUST(os_mkdirs(dir, 0755, &b->err));
    MUST(os_open_dir(AT_FDCWD, dir, &b->objects, &b->err));
    MUST(os_remove_tree(b->objects, "packs", &b->err));
    MUST(os_remove_tree(b->objects, "index", &b->err));
    MUST(os_remove_tree(b->objects, "empty", &b->err));
    MUST(os_mkdir(b->objects, "packs", 0755, &b->err));
    MUST(os_mkdir(b->objects, "tmp", 0755, &b->err));
    MUST(os_mkdir(b->objects, "loose", 0755, &b->err));
    MUST(os_open_dir(b->objects, "packs", &b->packs, &b->err));
    MUST(os_open_dir(b->objects, "loose", &b->loose, &b->err));
    snprintf(b->index, sizeof(b->index), "%s/index", dir);
    snprintf(b->empty, sizeof(b->empty), "%s/empty", dir);
}

static void bench_rebuild(struct bench *b)
{
    struct rebuild_report report;
    struct rusage used;
    struct index_stat st;
    struct index *ix;
    const int64_t start = os_monotonic_ns();

    MUST(index_rebuild(b->index, b->packs, b->loose, &report, &b->err));
    line("rebuild", seconds_since(start), "s");
    buf_release(&report.problems);
    getrusage(RUSAGE_SELF, &used);
    line("rebuild_peak", (double)used.ru_maxrss / 1024, "MiB");
    MUST(index_open(b->index, INDEX_READ, &ix, &b->err));
    MUST(index_stat(ix, &st, &b->err));
    line("objects", (double)st.objects, "objects");
    line("index_bytes", (double)st.file_bytes / (double)st.objects, "bytes/object");
    index_close(ix);
}

static void look_up(struct bench *b, struct index *ix, size_t batch, bool sorted, const char *name)
{
    struct digest *ids = calloc(batch, sizeof(*ids));
    struct loc *locs = calloc(batch, sizeof(*locs));
    uint64_t seed = 99;
    int64_t spent = 0;
    size_t missing = 0;

    for (size_t done = 0; done < LOOKUPS; done += batch) {
        for (size_t i = 0; i < batch; i++)
            ids[i] = id_of(gen_below(&seed, b->count));
        if (sorted)
            qsort(ids, batch, sizeof(*ids), (int (*)(const void *, const void *))digest_cmp);
        const int64_t start = os_monotonic_ns();
        MUST(index_get(ix, ids, batch, locs, &b->err));
        spent += os_monotonic_ns() - start;
        for (size_t i = 0; i < batch; i++)
            missing += locs[i].type == 0;
    }
    line(name, LOOKUPS / ((double)spent / 1e9), "lookups/s");
    if (missing)
        line("missing", (double)missing, "objects");
    free(ids);
    free(locs);
}

static void bench_scan(struct bench *b, struct index *ix)
{
    struct digest *ids = calloc(SCAN_ROWS, sizeof(*ids)), cursor = {{0}};
    struct loc *locs = calloc(SCAN_ROWS, sizeof(*locs));
    const int64_t start = os_monotonic_ns();
    bool started = false;
    size_t n = 1, total = 0;

    while (n > 0) {
        MUST(index_scan(ix, &cursor, &started, ids, locs, SCAN_ROWS, &n, &b->err));
        total += n;
    }
    line("scan", (double)total / seconds_since(start), "objects/s");
    free(ids);
    free(locs);
}

static void bench_commit(struct bench *b, const char *dir, uint64_t from, const char *name)
{
    struct digest packs[3];
    struct pack *open[3];
    struct index *ix;
    int64_t start;

    for (uint64_t i = 0; i < 3; i++)
        packs[i] = make_pack(b, from + i * COMMIT_OBJECTS / 3, COMMIT_OBJECTS / 3);
    for (int i = 0; i < 3; i++)
        MUST(pack_open(b->packs, &packs[i], &open[i], &b->err));
    MUST(index_open(dir, INDEX_WRITE, &ix, &b->err));
    const struct index_commit c = {.packs = open, .pack_count = 3};
    start = os_monotonic_ns();
    MUST(index_commit(ix, &c, &b->err));
    line(name, seconds_since(start), "s");
    index_close(ix);
    for (int i = 0; i < 3; i++)
        pack_close(open[i]);
}

int main(int argc, char **argv)
{
    static struct bench bench = {.objects = -1, .packs = -1, .loose = -1};
    struct bench *b = &bench;
    struct index *ix;
    int64_t n = 5000000, merged;

    if (argc < 2 || argc > 3 ||
        (argc == 3 && str_to_i64(str_of(argv[2]), 1, 1 << 30, &n, &b->err) != OK)) {
        fprintf(stderr, "usage: index_bench DIR [OBJECTS]\n");
        return 64;
    }
    b->count = (uint64_t)n;
    make_folders(b, argv[1]);
    const int64_t start = os_monotonic_ns();
    for (uint64_t i = 0; i < b->count; i += PACK_OBJECTS)
        make_pack(b, i, b->count - i < PACK_OBJECTS ? b->count - i : PACK_OBJECTS);
    line("make_packs", seconds_since(start), "s");
    bench_rebuild(b);
    MUST(index_open(b->index, INDEX_READ, &ix, &b->err));
    bench_scan(b, ix); /* warms the cache too */
    look_up(b, ix, 1, false, "lookup_single");
    look_up(b, ix, 1000, false, "lookup_batch");
    look_up(b, ix, 1000, true, "lookup_sorted_batch");
    index_close(ix);
    bench_commit(b, b->empty, b->count, "commit_50000_into_empty");
    bench_commit(b, b->index, b->count + COMMIT_OBJECTS, "commit_50000_into_large");
    MUST(index_open(b->index, INDEX_WRITE, &ix, &b->err));
    const int64_t sync_start = os_monotonic_ns();
    MUST(index_sync(ix, b->packs, &merged, &b->err));
    line("sync", seconds_since(sync_start), "s");
    line("sync_merged", (double)merged, "packs");
    index_close(ix);
    return 0;
}
