/* str.h - borrowed slices, bounded buffers, integers from text.
 *
 * Life:     buf_init(max) -> append freely -> look at buf.failed once -> buf_release (fine on zeroed storage).
 * Owns:     struct buf owns its bytes, always NUL-terminated once non-empty; struct str owns nothing.
 * Threads:  one buffer, one thread.
 * Errors:   a buffer remembers that it went past its maximum or ran out of memory; buf_check turns that into ERR_LIMIT.
 */
#ifndef WEIR_BASE_STR_H
#define WEIR_BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct str {
    const char *p;
    size_t n;
};
#define STR(literal)                                                                               \
    (struct str)                                                                                   \
    {                                                                                              \
        (literal), sizeof(literal) - 1                                                             \
    }
struct str str_of(const char *cstring);
bool str_eq(struct str a, struct str b);
int str_cmp(struct str a, struct str b); /* by bytes, shorter first */
bool str_starts(struct str s, struct str prefix);

struct buf {
    char *p;
    size_t n, cap, max; /* max: contents never grow past it, decided at birth */
    bool failed;
};
void buf_init(struct buf *b, size_t max);
void buf_release(struct buf *b);
void buf_clear(struct buf *b); /* n = 0, failed = false, memory kept */
void buf_add(struct buf *b, const void *p, size_t n);
void buf_str(struct buf *b, const char *cstring);
void buf_char(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_vprintf(struct buf *b, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);
/* n more bytes, counted at once and to be filled by the caller, or NULL when that would pass the maximum. */
void *buf_room(struct buf *b, size_t n);
MUST_USE enum err_code buf_check(const struct buf *b, const char *what, struct err *err);
/* The bytes leave the buffer; free() them. */
char *buf_take(struct buf *b);

/* Decimal integers and sizes with units.  The whole slice must be the number. */
MUST_USE enum err_code str_to_i64(struct str s, int64_t min, int64_t max, int64_t *out,
                                  struct err *err);
/* "12", "4KiB", "1.5GiB" is refused: integers and KiB MiB GiB TiB only. */
MUST_USE enum err_code str_to_bytes(struct str s, int64_t *out, struct err *err);
/* "10s", "5m", "2h", "7d" -> seconds. */
MUST_USE enum err_code str_to_seconds(struct str s, int64_t *out, struct err *err);
/* 1536 -> "1.5 KiB"; out holds 16 bytes. */
void str_from_bytes(int64_t bytes, char out[16]);
/* The candidate nearest to word by edit distance (at most 1/3 of its length away, at least 1), or NULL. */
const char *str_nearest(const char *word, const char *const *candidates, size_t count);

void *mem_alloc(size_t n);                          /* CHECKs: small, bounded sizes only */
void *mem_zero(size_t count, size_t size);          /* CHECKs, overflow included */
void *mem_grow(void *p, size_t count, size_t size); /* realloc that CHECKs */
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t n);

#endif
