#include "store/cut.h"

#include <stdlib.h>
#include <string.h>

#include "store/cut_tar.h"

#define HEAD_LENGTH 8   /* of safetensors: u64 */
#define FIRST_BYTES 512 /* enough for a tar header, and to sniff at */
#define SMALL_BYTES ((int64_t)64 << 10)
#define JOINED_MAX ((int64_t)1 << 20)
#define PIECES_MAX                                                                                 \
    ((int64_t)4 << 20) /* 32 TiB of tensors; a header that claims more is not believed */

struct cutter {
    enum cut_rule rule;
    int64_t at, size;
    enum hint hint; /* of every chunk, by content */
    struct gear gear;
    struct tar_walk tar;
    struct cut_piece *pieces; /* by tensors */
    size_t count, next;
};

/* The bytes of a safetensors header with its length, if this looks like one; else 0. */
static int64_t header_bytes(const uint8_t *p, size_t n, int64_t size)
{
    uint64_t length = 0;

    if (n <= HEAD_LENGTH || p[HEAD_LENGTH] != '{')
        return 0;
    for (size_t i = 0; i < HEAD_LENGTH; i++)
        length |= (uint64_t)p[i] << (8 * i);
    if (length > CUT_HEADER_MAX || (int64_t)length > size - HEAD_LENGTH)
        return 0;
    return HEAD_LENGTH + (int64_t)length;
}

size_t cut_head_wanted(const void *first, size_t n, int64_t size)
{
    const int64_t header = header_bytes(first, n, size);

    CHECK(first || n == 0);
    CHECK(size >= 0);
    if (header)
        return (size_t)header;
    return size < FIRST_BYTES ? (size_t)size : FIRST_BYTES;
}

/* ---- rule 1 ---- */

static enum hint hint_of(const struct tensor_span *span)
{
    if (strcmp(span->dtype, "BF16") == 0 || strcmp(span->dtype, "F16") == 0)
        return HINT_WORDS2;
    return strcmp(span->dtype, "F32") == 0 ? HINT_WORDS4 : HINT_NONE;
}

static void add_pieces(struct cutter *c, int64_t off, int64_t len, enum hint hint)
{
    for (int64_t done = 0; done < len; done += CUT_CHUNK_MAX) {
        const int64_t left = len - done;

        c->pieces[c->count++] = (struct cut_piece){
            .off = off + done, .len = left < CUT_CHUNK_MAX ? left : CUT_CHUNK_MAX, .hint = hint};
    }
}

static int64_t pieces_needed(const struct tensor_span *spans, size_t count, int64_t header)
{
    int64_t pieces = header / CUT_CHUNK_MAX + 1;

    for (size_t i = 0; i < count; i++)
        pieces += spans[i].len / CUT_CHUNK_MAX + 1;
    return pieces;
}

static void plan(struct cutter *c, const struct tensor_span *spans, size_t count, int64_t header)
{
    bool joining = false; /* does the last piece hold small tensors only? */

    add_pieces(c, 0, header, HINT_TEXT);
    for (size_t i = 0; i < count; i++) {
        const int64_t len = spans[i].len;
        const bool small = len < SMALL_BYTES;
        const enum hint hint = hint_of(&spans[i]);
        struct cut_piece *last = &c->pieces[c->count - 1];

        if (len == 0)
            continue;
        if (small && joining && last->len + len <= JOINED_MAX) {
            last->len += len;
            if (last->hint != hint)
                last->hint = HINT_NONE;
        } else {
            add_pieces(c, spans[i].off, len, hint);
            joining = small;
        }
    }
}

static bool start_tensors(struct cutter *c, const uint8_t *head, size_t head_n)
{
    const int64_t header = header_bytes(head, head_n, c->size);
    struct err err = ERR_INIT; /* not a matter for the caller: another rule is used */
    struct tensor_span *spans;
    int64_t needed;
    char **names;
    size_t count;

    if (header == 0 || safetensors_list(head, head_n, c->size, &names, &spans, &count, &err) != OK)
        return false;
    needed = pieces_needed(spans, count, header);
    if (needed <= PIECES_MAX) {
        c->pieces = mem_zero((size_t)needed, sizeof(*c->pieces));
        plan(c, spans, count, header);
        CHECK((int64_t)c->count <= needed);
    }
    free(names);
    free(spans);
    return needed <= PIECES_MAX;
}

/* ---- the door ---- */

struct cutter *cut_new(const void *head, size_t head_n, int64_t size)
{
    struct cutter *c = mem_zero(1, sizeof(*c));

    CHECK(head || head_n == 0);
    CHECK(size >= 0);
    CHECK((int64_t)head_n <= size);
    c->size = size;
    gear_init(&c->gear);
    tar_start(&c->tar, &c->gear);
    if (start_tensors(c, head, head_n)) {
        c->rule = CUT_TENSORS;
    } else if (tar_looks(head, head_n)) {
        c->rule = CUT_TAR;
    } else {
        c->rule = CUT_CONTENT;
        c->hint = codec_sniff(head, head_n < FIRST_BYTES ? head_n : FIRST_BYTES);
    }
    return c;
}

void cut_free(struct cutter *c)
{
    if (!c)
        return;
    free(c->pieces);
    free(c);
}

enum cut_rule cut_rule(const struct cutter *c)
{
    CHECK(c);
    return c->rule;
}

const struct cut_piece *cut_plan(const struct cutter *c, size_t *count)
{
    CHECK(c);
    CHECK(count);
    *count = c->count;
    return c->pieces;
}

size_t cut_next(struct cutter *c, const void *p, size_t n, enum hint *hint)
{
    const int64_t left = c->size - c->at;
    size_t length;

    CHECK(hint);
    CHECK((int64_t)n == (left < CUT_CHUNK_MAX ? left : CUT_CHUNK_MAX));
    *hint = c->hint;
    if (n == 0)
        return 0;
    CHECK(p);
    if (c->rule == CUT_TENSORS) {
        CHECK(c->next < c->count && c->pieces[c->next].off == c->at);
        *hint = c->pieces[c->next].hint;
        length = (size_t)c->pieces[c->next++].len;
    } else if (c->rule == CUT_TAR) {
        length = tar_cut(&c->tar, p, n, left);
    } else {
        length = gear_cut(&c->gear, p, 0, n);
        if (length == 0)
            length = n;
    }
    CHECK(length > 0 && length <= n);
    c->at += (int64_t)length;
    return length;
}
