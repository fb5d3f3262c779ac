/* hash.h - SHA-256 names, CRC32C for quick scans.
 *
 * Life:     sha256_init -> update ... -> final (may be started again) -> release; release is fine on zeroed storage.
 * Owns:     struct sha256 owns one EVP context; struct digest is a plain value.
 * Threads:  one context, one thread.
 * Errors:   none: OpenSSL's SHA-256 cannot fail once its context exists, and that is a CHECK.
 * Paper:    FIPS 180-4 (SHA-256); RFC 3720 appendix B.4 (CRC32C, Castagnoli polynomial 0x1EDC6F41).
 */
#ifndef WEIR_BASE_HASH_H
#define WEIR_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define DIGEST_BYTES 32
#define DIGEST_HEX 64                /* characters, without the NUL */
#define DIGEST_TEXT (7 + DIGEST_HEX) /* "sha256:" and the hex, without the NUL */

struct digest {
    uint8_t b[DIGEST_BYTES];
};

struct sha256 {
    void *ctx; /* EVP_MD_CTX */
};

/* On zeroed storage; also starts it again on storage that was already initialised. */
void sha256_init(struct sha256 *s);
void sha256_update(struct sha256 *s, const void *p, size_t n);
void sha256_final(struct sha256 *s, struct digest *out);
void sha256_release(struct sha256 *s);
void sha256_of(const void *p, size_t n, struct digest *out);
/* RFC 2104 over SHA-256. */
void hmac_sha256(const void *key, size_t key_n, const void *p, size_t n, struct digest *out);

int digest_cmp(const struct digest *a, const struct digest *b); /* as memcmp */
bool digest_eq(const struct digest *a, const struct digest *b);
bool digest_is_zero(const struct digest *d);
void digest_hex(const struct digest *d, char out[DIGEST_HEX + 1]);
void digest_text(const struct digest *d, char out[DIGEST_TEXT + 1]); /* "sha256:<hex>" */
/* Exactly 64 lower-case hex digits, with or without "sha256:" in front; anything else is ERR_INPUT. */
MUST_USE enum err_code digest_parse(const char *p, size_t n, struct digest *out, struct err *err);

/* CRC32C of p[0..n) continued from crc (0 to start).  Uses SSE4.2 when the CPU has it; same value everywhere. */
uint32_t crc32c(uint32_t crc, const void *p, size_t n);
/* The table version, for the test to compare with. */
uint32_t crc32c_portable(uint32_t crc, const void *p, size_t n);

#endif
