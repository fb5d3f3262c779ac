/* cut.h - where a large object is cut into chunks, so that equal parts of different objects are stored once.
 *
 * Rules, tried in this order; a parser that does not like what it sees falls to the last one, so the format is a hint and
 * never a correctness matter:
 *   1. safetensors: the header (8 + N bytes) alone, then each tensor in file order; tensors past 8 MiB are cut every 8 MiB from
 *      their own start; neighbours below 64 KiB are joined up to 1 MiB.
 *   2. tar (ustar, pax, GNU): at member headers, grouped to about 1 MiB: a boundary is taken when at least 256 KiB are gathered and
 *      the CRC32C of the 512 header bytes says so (1 in 4), or 4 MiB are passed; long members are cut inside by rule 3.
 *   3. content-defined: gear hash, 256 KiB / 1 MiB / 4 MiB (min / average / max), normalised chunking.
 * The same bytes always give the same chunks: the rules are part of the format, pinned by golden tests.  CUT_VERSION
 * names them.
 *
 * Life:     cut_new(first bytes, size) -> cut_next until 0 is returned -> cut_free.
 * Owns:     a table of the safetensors header, bounded by CUT_HEADER_MAX.
 * Threads:  one cutter, one thread.
 * Errors:   ERR_LIMIT, ERR_IO never; a hostile header only changes the rule.
 * Paper:    Xia et al. 2016, FastCDC, USENIX ATC; Lippmann et al. 2023, safetensors format.
 */
#ifndef WEIR_STORE_CUT_H
#define WEIR_STORE_CUT_H

#include <stdbool.h>

#include "base/str.h"
#include "store/codec.h"

#define CUT_VERSION 1
#define CUT_CHUNK_MAX (8 << 20)
#define CUT_HEADER_MAX (100 << 20) /* safetensors itself allows 100 MB of header */

enum cut_rule { CUT_TENSORS, CUT_TAR, CUT_CONTENT };
struct cutter;

/* head: the first head_n bytes of the object (>= min(size, 8 + header)), or fewer: then rule 3 if it turns out too short.
 * cut_head_wanted says how many bytes of head are wanted, from the first 512. */
size_t cut_head_wanted(const void *first, size_t n, int64_t size);
struct cutter *cut_new(const void *head, size_t head_n, int64_t size);
void cut_free(struct cutter *c); /* NULL is fine */
enum cut_rule cut_rule(const struct cutter *c);
/* For CUT_TENSORS: chunk lengths are known up front; NULL otherwise. */
struct cut_piece {
    int64_t off;
    int64_t len;
    enum hint hint; /* HINT_WORDS2 / HINT_WORDS4 for float tensors, HINT_TEXT for the header */
};
const struct cut_piece *cut_plan(const struct cutter *c, size_t *count);
/* p[0..n): the bytes from the current position on, n = min(CUT_CHUNK_MAX, bytes left).  Returns the length of the next chunk
 * (1..n), advances by it, and tells its hint.  0 at the end. */
size_t cut_next(struct cutter *c, const void *p, size_t n, enum hint *hint);

/* One tensor of a safetensors header.  head as above.  Strict: names, dtypes, offsets in order without holes or
 * overlaps, size equals the file's; ERR_INPUT says which tensor and why.  ERR_NOT_FOUND names the nearest tensor. */
struct tensor_span {
    int64_t off, len; /* bytes in the file */
    char dtype[12];
    int rank;
    int64_t shape[16];
};
MUST_USE enum err_code safetensors_find(const void *head, size_t head_n, int64_t file_size,
                                        const char *name, struct tensor_span *out, struct err *err);
/* All tensors, in file order.  names and spans are freed by free(*spans) and free(*names) (one block each). */
MUST_USE enum err_code safetensors_list(const void *head, size_t head_n, int64_t file_size,
                                        char ***names, struct tensor_span **spans, size_t *count,
                                        struct err *err);

#endif
