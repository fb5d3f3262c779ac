/* shard - WebDataset tar files: KEY.png, KEY.json, KEY.txt for each row.
 *
 * A row's shard follows from a hash of its id and from its aspect bucket alone, so a row that comes or goes changes one shard.  How many
 * shards a bucket has is a power of two: the smallest with which a shard holds at most the wanted number of rows on average; crossing a power
 * splits each shard in two, and never mixes them anew. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "stages/data/dataset.h"
#include "stages/data/tarball.h"
#include "stages/runtime/stage.h"

#define BUCKETS_MAX 32
#define BITS_MAX 20

static const struct stage_param params[] = {
    {"rows", STAGE_INT, "1000", "1", "10000000", .help = "rows of a shard, at most on average"},
    {"buckets", STAGE_STRING, "1:1,4:3,3:4,3:2,2:3,16:9,9:16",
     .help = "aspect ratios; a row goes to the nearest"},
    {"caption", STAGE_STRING, "short_caption",
     .help = "the member of the record that KEY.txt holds"},
    {0}};
static const struct stage_port inputs[] = {{"dataset", .help = "a dataset"}, {0}};
static const struct stage_port outputs[] = {{"shards", .help = "BUCKET-NNNN.tar and index.json"},
                                            {0}};

struct bucket {
    int w, h;
    int64_t rows;
    int bits;
};
struct entry {
    json_t *row;
    char key[33]; /* of the id: WebDataset's keys have neither dots nor slashes */
    int bucket;
    uint32_t shard;
};
struct shard {
    struct dataset in;
    struct entry *list;
    int64_t count;
    struct bucket buckets[BUCKETS_MAX];
    int bucket_count;
    int dir;
    json_t *index;
};

static enum err_code parse_buckets(struct shard *s, const char *text, struct err *err)
{
    for (const char *p = text; *p;) {
        const size_t n = strcspn(p, ",");
        const char *colon = memchr(p, ':', n);
        int64_t w, h;
        struct err ignored = ERR_INIT;

        if (!colon || s->bucket_count == BUCKETS_MAX ||
            str_to_i64((struct str){p, (size_t)(colon - p)}, 1, 1000, &w, &ignored) ||
            str_to_i64((struct str){colon + 1, (size_t)(p + n - colon - 1)}, 1, 1000, &h, &ignored))
            return err_set(
                err, ERR_USAGE,
                "parameter buckets: '%.60s' is to be a list of at most %d ratios such as 1:1,4:3",
                p, BUCKETS_MAX);
        s->buckets[s->bucket_count++] = (struct bucket){(int)w, (int)h, 0, 0};
        p += n + (p[n] == ',');
    }
    return s->bucket_count ? OK : err_set(err, ERR_USAGE, "parameter buckets: no ratio is given");
}

/* The bucket whose ratio is off by the smallest factor; the first of equals. */
static int nearest(const struct shard *s, const json_t *row)
{
    const json_t *v = json_object_get(row, "aspect_ratio");
    const double ratio = json_is_number(v) && json_number_value(v) > 0 ? json_number_value(v) : 1;
    double least = 0;
    int best = -1;

    for (int i = 0; i < s->bucket_count; i++) {
        const double r = ratio * s->buckets[i].h / s->buckets[i].w, off = r < 1 ? 1 / r : r;

        if (best < 0 || off < least) {
            best = i;
            least = off;
        }
    }
    return best;
}

static int by_place(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    if (x->bucket != y->bucket)
        return x->bucket < y->bucket ? -1 : 1;
    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    return strcmp(x->key, y->key);
}

static enum err_code load(struct shard *s, const struct stage_task *t, struct err *err)
{
    const int64_t rows = stage_int(t, "rows");
    enum err_code rc = dataset_open(stage_input(t, "dataset")->path, &s->in, err);

    s->list = mem_zero((size_t)s->in.lines.count + 1, sizeof(*s->list));
    for (int64_t i = 0; !rc && i < s->in.lines.count; i++) {
        struct entry *e = &s->list[i];
        char hex[DIGEST_HEX + 1];
        struct digest d;

        rc = dataset_row(&s->in, i, &e->row, err);
        if (rc)
            break;
        s->count++;
        sha256_of(row_text(e->row, "id", ""), strlen(row_text(e->row, "id", "")), &d);
        digest_hex(&d, hex);
        memcpy(e->key, hex, 32);
        e->bucket = nearest(s, e->row);
        e->shard =
            (uint32_t)d.b[0] << 12 | (uint32_t)d.b[1] << 4 | d.b[2] >> 4; /* BITS_MAX of them */
        s->buckets[e->bucket].rows++;
    }
    for (int i = 0; i < s->bucket_count; i++)
        while (s->buckets[i].bits < BITS_MAX && s->buckets[i].rows > rows << s->buckets[i].bits)
            s->buckets[i].bits++;
    for (int64_t i = 0; i < s->count; i++)
        s->list[i].shard >>= BITS_MAX - s->buckets[s->list[i].bucket].bits;
    if (!rc && s->count > 0)
        qsort(s->list, (size_t)s->count, sizeof(*s->list), by_place);
    for (int64_t i = 1; !rc && i < s->count; i++)
        if (by_place(&s->list[i - 1], &s->list[i]) == 0)
            rc = err_set(err, ERR_INPUT, "two rows have the id %.300s",
                         row_text(s->list[i].row, "id", ""));
    return rc;
}

static enum err_code add_row(struct shard *s, struct tarball *tar, const struct entry *e,
                             const char *caption, struct err *err)
{
    const char *dot = strrchr(row_text(e->row, "image_path", ""), '.'),
               *text = row_text(e->row, caption, "");
    char name[64];
    struct buf bytes;
    enum err_code rc;

    /* WebDataset groups by the name up to the first dot; members of one key follow each other. */
    buf_init(&bytes, DATASET_PICTURE_MAX);
    rc = json_canonical(e->row, &bytes, err);
    (void)snprintf(name, sizeof(name), "%s.json", e->key);
    if (!rc)
        rc = tarball_add(tar, name, bytes.p, bytes.n, err);
    if (!rc)
        rc = dataset_picture(&s->in, e->row, &bytes, err);
    (void)snprintf(name, sizeof(name), "%s.%s", e->key, dot && strlen(dot) < 6 ? dot + 1 : "png");
    if (!rc)
        rc = tarball_add(tar, name, bytes.p ? bytes.p : "", bytes.n, err);
    (void)snprintf(name, sizeof(name), "%s.txt", e->key);
    if (!rc)
        rc = tarball_add(tar, name, text, strlen(text), err);
    buf_release(&bytes);
    return rc;
}

/* Rows [from, to) are one shard. */
static enum err_code write_shard(struct shard *s, int64_t from, int64_t to, const char *caption,
                                 struct err *err)
{
    const struct bucket *b = &s->buckets[s->list[from].bucket];
    char name[64], ratio[32], text[DIGEST_TEXT + 1];
    struct tarball tar = {.fd = -1};
    struct digest d;
    enum err_code rc;

    (void)snprintf(name, sizeof(name), "%dx%d-%0*x.tar", b->w, b->h, (BITS_MAX + 3) / 4,
                   s->list[from].shard);
    (void)snprintf(ratio, sizeof(ratio), "%d:%d", b->w, b->h);
    rc = tarball_create(s->dir, name, &tar, err);
    for (int64_t i = from; !rc && i < to; i++)
        rc = add_row(s, &tar, &s->list[i], caption, err);
    if (!rc)
        rc = tarball_finish(&tar, &d, err);
    if (!rc) {
        digest_text(&d, text);
        CHECK(json_array_append_new(s->index,
                                    json_pack("{s:s,s:s,s:I,s:I,s:s}", "name", name, "bucket",
                                              ratio, "rows", (json_int_t)(to - from), "bytes",
                                              (json_int_t)tar.bytes, "digest", text)) == 0);
    }
    tarball_release(&tar);
    return rc;
}

static enum err_code write_all(struct shard *s, struct stage_task *t, struct err *err)
{
    const char *caption = stage_string(t, "caption");
    struct buf text;
    json_t *root;
    enum err_code rc = OK;

    for (int64_t from = 0, to; !rc && from < s->count; from = to) {
        for (to = from + 1; to < s->count && s->list[to].bucket == s->list[from].bucket &&
                            s->list[to].shard == s->list[from].shard;)
            to++;
        rc = stage_stopping() ? stage_stopped(err) : write_shard(s, from, to, caption, err);
        stage_progress(t, to, s->count, "rows", NULL);
    }
    root =
        json_pack("{s:i,s:I,s:O}", "version", 1, "rows", (json_int_t)s->count, "shards", s->index);
    buf_init(&text, DATASET_TEXT_MAX);
    if (!rc)
        rc = json_canonical(root, &text, err);
    buf_char(&text, '\n');
    if (!rc)
        rc = os_write_file(s->dir, "index.json", text.p, text.n, 0644, err);
    buf_release(&text);
    json_decref(root);
    return rc;
}

static enum err_code run(struct stage_task *t, struct err *err)
{
    struct shard s = {.dir = -1, .index = json_array()};
    const char *path;
    enum err_code rc = parse_buckets(&s, stage_string(t, "buckets"), err);

    if (!rc)
        rc = load(&s, t, err);
    if (!rc)
        rc = stage_output_dir(t, "shards", &path, err);
    if (!rc)
        rc = os_open_dir(AT_FDCWD, path, &s.dir, err);
    if (!rc)
        rc = write_all(&s, t, err);
    for (int64_t i = 0; i < s.count; i++)
        json_decref(s.list[i].row);
    free(s.list);
    json_decref(s.index);
    os_close_quiet(&s.dir);
    dataset_release(&s.in);
    return rc;
}

static const struct stage_program self = {
    "shard", "WebDataset tar files of a dataset, stable under small changes.",
    params,  inputs,
    outputs, run,
    NULL,    false};

int main(int argc, char **argv)
{
    return stage_main(&self, argc, argv);
}
