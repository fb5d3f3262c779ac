/* json.h - JSON through jansson, and its one canonical form.
 *
 * Life:     json_parse gives a new reference (json_decref it); json_canonical appends to a caller's buffer.
 * Owns:     as jansson; nothing of our own.
 * Threads:  as jansson: values are not shared between threads while they change.
 * Errors:   ERR_INPUT with line:column for text that is not JSON (duplicate keys, NUL in strings, invalid UTF-8, lone
 *           surrogates and trailing bytes included); ERR_LIMIT past a bound; ERR_INPUT for integers beyond 2^53.
 *
 * Canonical means RFC 8785: no white space, members sorted by UTF-16 code units of their names, numbers as ECMAScript
 * prints doubles (1 and 1.0 are both 1, -0 is 0, 1e21 is 1e+21), strings with the shortest escapes.
 * json_canonical refuses what would print as an integer beyond 2^53, doubles from there to 1e21 included, so its output
 * always parses and gives the same bytes again.
 */
#ifndef WEIR_BASE_JSON_H
#define WEIR_BASE_JSON_H

#include <jansson.h>

#include "base/err.h"
#include "base/str.h"

#define JSON_DEPTH_MAX 64

/* Parse exactly one value.  what names the thing in messages ("action", "task.json").  bytes_max bounds n. */
MUST_USE enum err_code json_parse(const char *p, size_t n, size_t bytes_max, const char *what,
                                  json_t **out, struct err *err);
MUST_USE enum err_code json_canonical(const json_t *v, struct buf *out, struct err *err);
/* The pieces, for writers that stream canonical JSON themselves. */
void json_canonical_string(struct buf *out, const char *utf8, size_t n);
/* A finite double as RFC 8785 prints it; out holds 32 bytes. */
void json_canonical_number(double v, char out[32]);

/* Members with a type check; missing is ERR_INPUT naming the member and what. */
MUST_USE enum err_code json_get_string(const json_t *o, const char *key, const char *what,
                                       const char **out, struct err *err);
MUST_USE enum err_code json_get_i64(const json_t *o, const char *key, int64_t min, int64_t max,
                                    const char *what, int64_t *out, struct err *err);

/* File names in JSON: bytes that are not part of valid UTF-8, control bytes and '%' itself are written %XX (upper case
 * hex), all else stays.  Decoding refuses any escape that encoding would not have produced, so the form is unique. */
void json_name_escape(struct buf *out, const char *name, size_t n);
MUST_USE enum err_code json_name_unescape(struct buf *out, const char *escaped, size_t n,
                                          struct err *err);

#endif
