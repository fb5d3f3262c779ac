/* codec.h - how stored bytes are encoded.  Ids never depend on it.
 *
 *   ENC_RAW     as they are
 *   ENC_ZSTD    one standard zstd frame
 *   ENC_PLANES2 16-bit words (bf16, f16), ENC_PLANES4 32-bit words (f32), little endian: each block of CODEC_BLOCK raw bytes
 *               is rotated left by one bit per word (the sign joins the mantissa, the exponent becomes a whole byte), split into
 *               byte planes, most significant first, and each plane stored raw or as a "literals only" zstd frame (no match search:
 *               level -1000, ZSTD_ps_enable), whichever is smaller.  The last bytes that fill no word are stored raw at the end.
 *               Byte layout: drawn at the top of codec.c, versioned by its first byte.
 *               Measured on N(0, 0.02) bf16: 0.6625 of the raw size, order-0 bound 0.6574 (store.md 2b; ZipNN reaches 0.663).
 *
 * Life:     codec_new per thread (owns zstd contexts and scratch) -> calls -> codec_free (NULL is fine).
 * Owns:     outputs are appended to the caller's buffer, or written to the caller's memory of exactly raw bytes.
 * Threads:  one codec, one thread.
 * Errors:   ERR_DAMAGED when bytes do not decode to exactly raw bytes; ERR_LIMIT past CODEC_RAW_MAX; ERR_IO (seam).
 * Paper:    Hershcovitch et al. 2024, ZipNN: Lossless Compression for AI Models, arXiv:2411.05239; RFC 8878 (zstd).
 */
#ifndef WEIR_STORE_CODEC_H
#define WEIR_STORE_CODEC_H

#include "base/str.h"

#define CODEC_RAW_MAX (16 << 20)
#define CODEC_BLOCK (1 << 20)

enum enc { ENC_RAW = 0, ENC_ZSTD = 1, ENC_PLANES2 = 2, ENC_PLANES4 = 3, ENC_COUNT };
/* What the bytes are thought to be; a hint, never a correctness matter. */
enum hint {
    HINT_NONE,
    HINT_WORDS2,
    HINT_WORDS4,
    HINT_TEXT,
    HINT_PACKED /* known to be compressed already */
};

struct codec;
MUST_USE enum err_code codec_new(struct codec **out, struct err *err);
void codec_free(struct codec *c);
/* Encode with exactly enc (level only for ENC_ZSTD). */
MUST_USE enum err_code codec_encode(struct codec *c, enum enc enc, int level, const void *p,
                                    size_t n, struct buf *out, struct err *err);
/* Pick the encoding that pays (at least 5 % smaller, judged on a 64 KiB sample first), encode, decode and compare.
 * *enc = ENC_RAW and nothing appended when none pays. */
MUST_USE enum err_code codec_best(struct codec *c, enum hint hint, int level, const void *p,
                                  size_t n, enum enc *enc, struct buf *out, struct err *err);
MUST_USE enum err_code codec_decode(struct codec *c, enum enc enc, const void *p, size_t n,
                                    void *raw, size_t raw_n, struct err *err);
/* From the first bytes: JSON/YAML/text-like, or an already compressed magic (JPEG PNG WebP MP4 zstd gzip zip xz), or none. */
enum hint codec_sniff(const void *p, size_t n);

#endif
