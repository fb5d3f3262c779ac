/* Byte-pair encoding. */
#include "stages/data/bpe.h"

#include <stdlib.h>
#include <string.h>

struct word {
    uint8_t *bytes; /* key */
    int32_t *ids;   /* as merged so far */
    int32_t byte_count, count;
    int64_t times;
};
struct pair {
    int32_t left, right;
};
struct bpe {
    int32_t specials;
    struct word *words;
    size_t word_count, word_cap;
    int64_t *slots; /* open addressing: index + 1 */
    size_t slot_cap;
    struct pair *merges;
    int32_t merge_count;
};

/* GPT-2's order of bytes: the visible ones first, the others as characters from U+0100 on. */
static int byte_rank(int byte)
{
    int rank = 0;

    for (int b = 0; b < 256; b++) {
        const bool visible = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        const bool mine =
            (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;

        if (visible == mine ? b < byte : visible)
            rank++;
    }
    return rank;
}

static int byte_of_rank[256], rank_of_byte[256];

static void make_ranks(void)
{
    for (int b = 0; b < 256; b++) {
        rank_of_byte[b] = byte_rank(b);
        byte_of_rank[rank_of_byte[b]] = b;
    }
}

struct bpe *bpe_new(int32_t specials)
{
    struct bpe *b = mem_zero(1, sizeof(*b));

    CHECK(specials >= 0);
    if (byte_of_rank[0] == 0)
        make_ranks();
    b->specials = specials;
    b->slot_cap = 1 << 12;
    b->slots = mem_zero(b->slot_cap, sizeof(*b->slots));
    return b;
}

void bpe_free(struct bpe *b)
{
    if (!b)
        return;
    for (size_t i = 0; i < b->word_count; i++) {
        free(b->words[i].bytes);
        free(b->words[i].ids);
    }
    free(b->words);
    free(b->slots);
    free(b->merges);
    free(b);
}

/* ---- words ---------------------------------------------------------------------------------------- */

static uint64_t hash_of(const uint8_t *p, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */

    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h ^ h >> 32;
}

static size_t slot_of(const struct bpe *b, const uint8_t *p, size_t n)
{
    size_t at = hash_of(p, n) & (b->slot_cap - 1);

    while (b->slots[at]) {
        const struct word *w = &b->words[b->slots[at] - 1];

        if ((size_t)w->byte_count == n && memcmp(w->bytes, p, n) == 0)
            break;
        at = (at + 1) & (b->slot_cap - 1);
    }
    return at;
}

static void grow(struct bpe *b)
{
    free(b->slots);
    b->slot_cap *= 2;
    b->slots = mem_zero(b->slot_cap, sizeof(*b->slots));
    for (size_t i = 0; i < b->word_count; i++)
        b->slots[slot_of(b, b->words[i].bytes, (size_t)b->words[i].byte_count)] = (int64_t)i + 1;
}

static void count(struct bpe *b, const uint8_t *p, size_t n)
{
    size_t at;
    struct word *w;

    if (n == 0 || n > BPE_WORD_BYTES_MAX)
        return;
    at = slot_of(b, p, n);
    if (b->slots[at]) {
        b->words[b->slots[at] - 1].times++;
        return;
    }
    if (b->word_count >= BPE_WORDS_MAX)
        return;
    if (b->word_count == b->word_cap) {
        b->word_cap = b->word_cap ? 2 * b->word_cap : 1024;
        b->words = mem_grow(b->words, b->word_cap, sizeof(*b->words));
    }
    w = &b->words[b->word_count++];
    *w = (struct word){(uint8_t *)mem_strndup((const char *)p, n), mem_zero(n, sizeof(int32_t)),
                       (int32_t)n, (int32_t)n, 1};
    for (size_t i = 0; i < n; i++)
        w->ids[i] = b->specials + rank_of_byte[p[i]];
    b->slots[at] = (int64_t)b->word_count;
    if (b->word_count * 2 > b->slot_cap)
        grow(b);
}

enum kind { LETTER, DIGIT, SPACE, OTHER };

static enum kind kind_of(uint8_t c)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80)
        return LETTER;
    if (c >= '0' && c <= '9')
        return DIGIT;
    return c == ' ' || (c >= '\t' && c <= '\r') ? SPACE : OTHER;
}

/* The length of the next word: one blank may stand in front of a run of one class; more blanks are a word without their last one. */
static size_t next_word(const uint8_t *p, size_t n)
{
    size_t i = p[0] == ' ' && n > 1 && kind_of(p[1]) != SPACE ? 1 : 0, from = i;
    const enum kind c = kind_of(p[i]);

    while (i < n && kind_of(p[i]) == c)
        i++;
    if (c == SPACE && i < n && i - from > 1)
        i--;
    return i;
}

void bpe_feed(struct bpe *b, const char *text, size_t n)
{
    const uint8_t *p = (const uint8_t *)text;

    while (n > 0) {
        const size_t len = next_word(p, n);

        count(b, p, len);
        p += len;
        n -= len;
    }
}

/* ---- training ------------------------------------------------------------------------------------- */

struct tally {
    uint64_t key; /* left << 32 | right */
    int64_t times;
};

static int by_key(const void *a, const void *b)
{
    const struct tally *x = a, *y = b;

    return (x->key > y->key) - (x->key < y->key);
}

/* Every pair of neighbours with its frequency: gathered, sorted, summed.  Slower than keeping a queue up to date, and hard to get wrong. */
static bool best_pair(const struct bpe *b, struct tally **list, size_t *cap, int64_t count_min,
                      struct pair *out)
{
    size_t n = 0;
    int64_t most = count_min - 1;

    for (size_t i = 0; i < b->word_count; i++)
        for (int32_t k = 0; k + 1 < b->words[i].count; k++) {
            if (n == *cap) {
                *cap = *cap ? 2 * *cap : 1 << 16;
                *list = mem_grow(*list, *cap, sizeof(**list));
            }
            (*list)[n++] = (struct tally){(uint64_t)b->words[i].ids[k] << 32 |
                                              (uint32_t)b->words[i].ids[k + 1],
                                          b->words[i].times};
        }
    if (n > 0)
        qsort(*list, n, sizeof(**list), by_key);
    for (size_t i = 0, j; i < n; i = j) {
        int64_t sum = 0;

        for (j = i; j < n && (*list)[j].key == (*list)[i].key; j++)
            sum += (*list)[j].times;
        if (sum > most) {
            most = sum;
            *out =
                (struct pair){(int32_t)((*list)[i].key >> 32), (int32_t)(uint32_t)(*list)[i].key};
        }
    }
    return most >= count_min;
}

static int32_t apply(int32_t *ids, int32_t n, struct pair pair, int32_t id)
{
    int32_t to = 0;

    for (int32_t i = 0; i < n; i++) {
        if (i + 1 < n && ids[i] == pair.left && ids[i + 1] == pair.right) {
            ids[to++] = id;
            i++;
        } else {
            ids[to++] = ids[i];
        }
    }
    return to;
}

void bpe_train(struct bpe *b, int32_t size, int64_t count_min)
{
    struct tally *list = NULL;
    size_t cap = 0;
    struct pair pair = {0, 0};

    while (bpe_size(b) < size && best_pair(b, &list, &cap, count_min, &pair)) {
        const int32_t id = bpe_size(b);

        b->merges = mem_grow(b->merges, (size_t)b->merge_count + 1, sizeof(*b->merges));
        b->merges[b->merge_count++] = pair;
        for (size_t i = 0; i < b->word_count; i++)
            b->words[i].count = apply(b->words[i].ids, b->words[i].count, pair, id);
    }
    free(list);
}

int32_t bpe_size(const struct bpe *b)
{
    return b->specials + 256 + b->merge_count;
}

int32_t bpe_merge_count(const struct bpe *b)
{
    return b->merge_count;
}

void bpe_merge(const struct bpe *b, int32_t i, int32_t *left, int32_t *right)
{
    CHECK(i >= 0 && i < b->merge_count);
    *left = b->merges[i].left;
    *right = b->merges[i].right;
}

void bpe_token(const struct bpe *b, int32_t id, struct buf *out)
{
    const int32_t first = b->specials + 256;
    int character;

    CHECK(id >= b->specials && id < bpe_size(b));
    if (id >= first) {
        bpe_token(b, b->merges[id - first].left, out);
        bpe_token(b, b->merges[id - first].right, out);
        return;
    }
    /* 188 visible bytes are themselves; the k-th of the others is U+0100 + k. */
    character =
        id - b->specials < 188 ? byte_of_rank[id - b->specials] : 0x100 + (id - b->specials - 188);
    if (character < 0x80) {
        buf_char(out, (char)character);
        return;
    }
    buf_char(out, (char)(0xc0 | character >> 6));
    buf_char(out, (char)(0x80 | (character & 0x3f)));
}

/* In the order of the merges, as every reader of these files does it. */
size_t bpe_encode(const struct bpe *b, const char *text, size_t n, int32_t *ids)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t total = 0;

    while (n > 0) {
        const size_t len = next_word(p, n);
        int32_t count = 0;

        for (size_t i = 0; i < len; i++)
            ids[total + (size_t)count++] = b->specials + rank_of_byte[p[i]];
        for (int32_t m = 0; m < b->merge_count && count > 1; m++)
            count = apply(ids + total, count, b->merges[m], b->specials + 256 + m);
        total += (size_t)count;
        p += len;
        n -= len;
    }
    return total;
}
