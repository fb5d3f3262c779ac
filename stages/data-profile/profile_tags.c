/* Words of captions.  idf is BM25's; importance is PageRank over words that occur together. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "stages/data-profile/profile.h"

#define WORD_MAX 48
#define DAMPING 0.85
#define ROUNDS 50

static bool is_stop_word(const char *w)
{
    static const char *const list[] = {"a",    "an",  "the",  "of", "on",  "in",
                                       "with", "and", "or",   "to", "for", "at",
                                       "from", "its", "this", "is", "by"};

    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
        if (strcmp(list[i], w) == 0)
            return true;
    return false;
}

struct words {
    char (*list)[WORD_MAX];
    int64_t *item;
    int64_t count, cap;
};

static void keep(struct words *w, const char *word, int64_t item)
{
    if (is_stop_word(word))
        return;
    for (int64_t i = w->count - 1; i >= 0 && w->item[i] == item; i--)
        if (strcmp(w->list[i], word) == 0)
            return; /* once a caption */
    if (w->count == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 4096;
        w->list = mem_grow(w->list, (size_t)w->cap, sizeof(*w->list));
        w->item = mem_grow(w->item, (size_t)w->cap, sizeof(*w->item));
    }
    memset(w->list[w->count], 0, WORD_MAX);
    memcpy(w->list[w->count], word, strlen(word));
    w->item[w->count++] = item;
}

/* Runs of letters and digits; anything beyond ASCII belongs to a word. */
static void split(struct words *w, const char *text, int64_t item)
{
    const int64_t from = w->count;

    while (*text && w->count - from < TAGS_MAX) {
        char word[WORD_MAX];
        size_t n = 0;

        while (*text && !isalnum((unsigned char)*text) && !((unsigned char)*text & 0x80))
            text++;
        while (isalnum((unsigned char)*text) || ((unsigned char)*text & 0x80)) {
            if (n + 1 < sizeof(word))
                word[n++] = (char)tolower((unsigned char)*text);
            text++;
        }
        word[n] = '\0';
        /* A cut inside a character would not be UTF-8. */
        if (n > 0 && n + 1 < sizeof(word))
            keep(w, word, item);
    }
}

static int by_word(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int find_word(const void *key, const void *tag)
{
    return strcmp(key, ((const struct tag *)tag)->word);
}

static void number_words(struct profile *p, const struct words *w)
{
    char **order = mem_zero((size_t)w->count + 1, sizeof(*order));

    for (int64_t i = 0; i < w->count; i++)
        order[i] = w->list[i];
    qsort(order, (size_t)w->count, sizeof(*order), by_word);
    p->tags = mem_zero((size_t)w->count + 1, sizeof(*p->tags));
    for (int64_t i = 0; i < w->count; i++) {
        if (i == 0 || strcmp(order[i], order[i - 1]) != 0)
            p->tags[p->tag_count++].word = mem_strdup(order[i]);
        p->tags[p->tag_count - 1].rows++;
    }
    free(order);
    for (int64_t i = 0; i < w->count; i++) {
        struct item *it = &p->items[w->item[i]];
        const struct tag *t =
            bsearch(w->list[i], p->tags, (size_t)p->tag_count, sizeof(*t), find_word);

        it->tags[it->tag_count++] = (int32_t)(t - p->tags);
    }
}

/* r = (1-d)/n + d A' r; each caption is a clique, so a word passes its rank to its neighbours in proportion. */
static void page_rank(struct profile *p)
{
    const int32_t n = p->tag_count;
    double *next = mem_zero((size_t)n + 1, sizeof(*next)),
           *links = mem_zero((size_t)n + 1, sizeof(*links));

    for (int64_t i = 0; i < p->count; i++)
        for (int k = 0; k < p->items[i].tag_count; k++)
            links[p->items[i].tags[k]] += p->items[i].tag_count - 1;
    for (int32_t i = 0; i < n; i++)
        p->tags[i].rank = 1.0 / n;
    for (int round = 0; round < ROUNDS; round++) {
        double loose = 0; /* words that are always alone give to all */

        for (int32_t i = 0; i < n; i++) {
            next[i] = 0;
            loose += links[i] > 0 ? 0 : p->tags[i].rank;
        }
        for (int64_t i = 0; i < p->count; i++) {
            const struct item *it = &p->items[i];
            double sum = 0;

            for (int k = 0; k < it->tag_count; k++)
                if (links[it->tags[k]] > 0)
                    sum += p->tags[it->tags[k]].rank / links[it->tags[k]];
            for (int k = 0; k < it->tag_count; k++)
                if (links[it->tags[k]] > 0)
                    next[it->tags[k]] += sum - p->tags[it->tags[k]].rank / links[it->tags[k]];
        }
        for (int32_t i = 0; i < n; i++)
            p->tags[i].rank = (1 - DAMPING) / n + DAMPING * (next[i] + loose / n);
    }
    free(next);
    free(links);
}

static double caption_length(const json_t *row)
{
    return (double)strlen(row_text(row, "long_caption", row_text(row, "short_caption", "")));
}

static void complexity(struct profile *p)
{
    double *v = mem_zero((size_t)p->count + 1, sizeof(*v)),
           *r = mem_zero((size_t)p->count + 1, sizeof(*r));

    for (int64_t i = 0; i < p->count; i++)
        v[i] = caption_length(p->items[i].row);
    profile_ranks(v, p->count, r);
    for (int64_t i = 0; i < p->count; i++) {
        p->items[i].complexity = 0.3 * r[i];
        v[i] = p->items[i].tag_count;
    }
    profile_ranks(v, p->count, r);
    for (int64_t i = 0; i < p->count; i++) {
        p->items[i].complexity += 0.3 * r[i];
        v[i] = p->items[i].f.jpeg_bpp;
    }
    profile_ranks(v, p->count, r);
    for (int64_t i = 0; i < p->count; i++) {
        p->items[i].complexity += 0.2 * r[i];
        v[i] = (double)strlen(row_text(p->items[i].row, "ocr_text", ""));
    }
    profile_ranks(v, p->count, r);
    for (int64_t i = 0; i < p->count; i++)
        if (json_is_true(json_object_get(p->items[i].row, "has_text")))
            p->items[i].complexity += 0.2 * r[i];
    free(v);
    free(r);
}

static void rarity(struct profile *p)
{
    double *v = mem_zero((size_t)p->count + 1, sizeof(*v)),
           *r = mem_zero((size_t)p->count + 1, sizeof(*r));
    const double ln2 = 0.69314718055994530942;

    for (int32_t i = 0; i < p->tag_count; i++)
        p->tags[i].idf = ln2 * feature_log2(1 + ((double)(p->count - p->tags[i].rows) + 0.5) /
                                                    ((double)p->tags[i].rows + 0.5));
    for (int64_t i = 0; i < p->count; i++) {
        const struct item *it = &p->items[i];

        for (int k = 0; k < it->tag_count; k++)
            v[i] += p->tags[it->tags[k]].idf / it->tag_count;
    }
    profile_ranks(v, p->count, r);
    for (int64_t i = 0; i < p->count; i++)
        p->items[i].rarity = r[i];
    free(v);
    free(r);
}

void profile_tags(struct profile *p)
{
    struct words w = {0};

    for (int64_t i = 0; i < p->count; i++)
        split(&w, row_text(p->items[i].row, "short_caption", ""), i);
    number_words(p, &w);
    free(w.list);
    free(w.item);
    if (p->tag_count > 0)
        page_rank(p);
    rarity(p);
    complexity(p);
}
