/* split - train, validation and held-out, so that neither a concept nor a near duplicate is on two sides.
 *
 * Rows that share a concept, or a duplicate community, are one family.  A family's side follows from a hash of the seed and its smallest
 * concept (without concepts: its smallest community), so a picture that comes or goes moves no other family. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stages/data/dataset.h"
#include "stages/runtime/stage.h"

static const struct stage_param params[] = {
    {"validation", STAGE_FLOAT, "0.05", "0", "0.9", .help = "share of families for validation"},
    {"heldout", STAGE_FLOAT, "0.05", "0", "0.9", .help = "share of families held out"},
    {"seed", STAGE_INT, "0", "0", "9007199254740992", .help = "another seed, another split"},
    {0}};
static const struct stage_port inputs[] = {{"dataset", .help = "a dataset"}, {0}};
static const struct stage_port outputs[] = {{"train", .help = "a dataset"},
                                            {"validation", true, "a dataset"},
                                            {"heldout", true, "a dataset"},
                                            {0}};
static const char *const sides[] = {"train", "validation", "heldout"};

struct entry {
    json_t *row;
    char *concept;         /* lower case; "" when there is none */
    const char *community; /* dup_of, community_id, or its own id */
    int64_t parent;
    int side;
};
struct split {
    struct dataset in;
    struct entry *list;
    int64_t count;
    struct dataset_writer out[3];
};

static int64_t root_of(struct entry *list, int64_t i)
{
    while (list[i].parent != i) {
        list[i].parent = list[list[i].parent].parent;
        i = list[i].parent;
    }
    return i;
}

static void join(struct entry *list, int64_t a, int64_t b)
{
    a = root_of(list, a);
    b = root_of(list, b);
    list[a > b ? a : b].parent = a > b ? b : a;
}

struct named {
    const char *name;
    int64_t i;
};

static int by_name(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    const int c = strcmp(x->name, y->name);

    return c ? c : (x->i > y->i) - (x->i < y->i);
}

static void join_named(struct split *s, bool concept)
{
    struct named *order = mem_zero((size_t)s->count + 1, sizeof(*order));

    for (int64_t i = 0; i < s->count; i++)
        order[i] = (struct named){concept ? s->list[i].concept : s->list[i].community, i};
    qsort(order, (size_t)s->count, sizeof(*order), by_name);
    for (int64_t i = 1; i < s->count; i++)
        if (*order[i].name && strcmp(order[i].name, order[i - 1].name) == 0)
            join(s->list, order[i].i, order[i - 1].i);
    free(order);
}

static enum err_code load(struct split *s, const char *path, struct err *err)
{
    enum err_code rc = dataset_open(path, &s->in, err);

    s->list = mem_zero((size_t)s->in.lines.count + 1, sizeof(*s->list));
    for (int64_t i = 0; !rc && i < s->in.lines.count; i++) {
        struct entry *e = &s->list[i];

        rc = dataset_row(&s->in, i, &e->row, err);
        if (rc)
            break;
        s->count++;
        e->parent = i;
        e->concept = mem_strdup(row_text(e->row, "concept", ""));
        for (char *p = e->concept; *p; p++)
            *p = (char)tolower((unsigned char)*p);
        e->community = row_text(e->row, "dup_of",
                                row_text(e->row, "community_id", row_text(e->row, "id", "")));
    }
    return rc;
}

/* In [0, 1), from 53 bits of the hash. */
static double place(int64_t seed, const char *name)
{
    char text[64];
    struct sha256 h = {0};
    struct digest d;
    uint64_t v = 0;

    (void)snprintf(text, sizeof(text), "weir-split-v1 %lld ", (long long)seed);
    sha256_init(&h);
    sha256_update(&h, text, strlen(text));
    sha256_update(&h, name, strlen(name));
    sha256_final(&h, &d);
    sha256_release(&h);
    for (int k = 0; k < 8; k++)
        v = v << 8 | d.b[k];
    return (double)(v >> 11) / 9007199254740992.0;
}

static void choose(struct split *s, const struct stage_task *t)
{
    const double v = stage_float(t, "validation"), h = stage_float(t, "heldout");
    const char **concept = mem_zero((size_t)s->count + 1, sizeof(char *));
    const char **community = mem_zero((size_t)s->count + 1, sizeof(char *));

    for (int64_t i = 0; i < s->count; i++) {
        const int64_t r = root_of(s->list, i);
        const struct entry *e = &s->list[i];

        if (*e->concept && (!concept[r] || strcmp(e->concept, concept[r]) < 0))
        concept[r] = e->concept;
        if (!community[r] || strcmp(e->community, community[r]) < 0)
            community[r] = e->community;
    }
    for (int64_t i = 0; i < s->count; i++) {
        const int64_t r = root_of(s->list, i);
        const double at = place(stage_int(t, "seed"), concept[r] ? concept[r] : community[r]);

        s->list[i].side = at < h ? 2 : at < h + v ? 1 : 0;
    }
    free(concept);
    free(community);
}

static enum err_code write_row(struct split *s, const struct entry *e, struct err *err)
{
    const char *dot = strrchr(row_text(e->row, "image_path", ""), '.');
    struct dataset_writer *w = &s->out[e->side];
    char path[DATASET_PATH_MAX];
    struct buf bytes;
    enum err_code rc;

    if (w->dir < 0)
        return OK; /* nobody wants this side */
    buf_init(&bytes, DATASET_PICTURE_MAX);
    rc = dataset_picture(&s->in, e->row, &bytes, err);
    if (!rc)
        rc = dataset_picture_put(w, bytes.p ? bytes.p : "", bytes.n,
                                 dot && strlen(dot) < 6 ? dot + 1 : "png", path, err);
    buf_release(&bytes);
    row_set(e->row, "image_path", json_string(path));
    row_set(e->row, "split", json_string(sides[e->side]));
    return rc ? rc : dataset_add(w, e->row, err);
}

static enum err_code run(struct stage_task *t, struct err *err)
{
    struct split s = {.out = {{.dir = -1}, {.dir = -1}, {.dir = -1}}};
    const char *path;
    enum err_code rc = OK;

    if (stage_float(t, "validation") + stage_float(t, "heldout") >= 1)
        return err_set(err, ERR_USAGE,
                       "parameters validation and heldout leave nothing to train on");
    rc = load(&s, stage_input(t, "dataset")->path, err);
    for (int i = 0; !rc && i < 3; i++) {
        rc = stage_output_dir(t, sides[i], &path, err);
        if (!rc && path)
            rc = dataset_create(path, &s.out[i], err);
    }
    if (!rc) {
        join_named(&s, true);
        join_named(&s, false);
        choose(&s, t);
    }
    for (int64_t i = 0; !rc && i < s.count; i++) {
        rc = stage_stopping() ? stage_stopped(err) : write_row(&s, &s.list[i], err);
        stage_progress(t, i + 1, s.count, "rows", NULL);
    }
    for (int i = 0; i < 3; i++) {
        if (!rc && s.out[i].dir >= 0)
            rc = dataset_finish(&s.out[i], err);
        dataset_writer_release(&s.out[i]);
    }
    for (int64_t i = 0; i < s.count; i++) {
        json_decref(s.list[i].row);
        free(s.list[i].concept);
    }
    free(s.list);
    dataset_release(&s.in);
    return rc;
}

static const struct stage_program self = {
    "split", "Train, validation and held-out: no concept and no duplicate on two sides.",
    params,  inputs,
    outputs, run,
    NULL,    false};

int main(int argc, char **argv)
{
    return stage_main(&self, argc, argv);
}
