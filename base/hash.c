/* SHA-256 comes from OpenSSL, which uses the CPU's SHA instructions; looking the algorithm up
 * costs more than hashing a small message, so it is fetched once.  CRC32C is ours: a function of
 * the CPU's crc32 instruction, and a table version for CPUs without it. */
#include "base/hash.h"

#include <endian.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <string.h>

#include "base/str.h"

static pthread_once_t hash_once = PTHREAD_ONCE_INIT;
static EVP_MD *hash_md;            /* for the life of the process */
static uint32_t crc_table[8][256]; /* crc_table[k][b]: byte b followed by k zero bytes */
/* crc_far[k][b]: what byte k of the register, when it is b, becomes after CRC_STRIDE zero bytes. */
static uint32_t crc_far[4][256];

/* 0x1EDC6F41 with its bits mirrored, as the reflected form of the checksum needs it. */
#define CRC32C_POLY 0x82F63B78u
#define CRC_STRIDE ((size_t)4096)

/* Zero bytes act on the register linearly: column i is what becomes of bit i.  Twice as many bytes are the square. */
static uint32_t crc_apply(const uint32_t columns[32], uint32_t v)
{
    uint32_t sum = 0;

    for (int i = 0; i < 32; i++)
        if (v >> i & 1)
            sum ^= columns[i];
    return sum;
}

static void crc_far_start(void)
{
    uint32_t zeros[32], twice[32];

    for (int i = 0; i < 32; i++) /* one zero byte */
        zeros[i] = (1u << i >> 8) ^ crc_table[0][1u << i & 0xff];
    for (size_t n = 1; n < CRC_STRIDE; n *= 2) {
        for (int i = 0; i < 32; i++)
            twice[i] = crc_apply(zeros, zeros[i]);
        memcpy(zeros, twice, sizeof(zeros));
    }
    for (int k = 0; k < 4; k++)
        for (uint32_t b = 0; b < 256; b++)
            crc_far[k][b] = crc_apply(zeros, b << (8 * k));
}

static void hash_start(void)
{
    hash_md = EVP_MD_fetch(NULL, "SHA256", NULL);
    CHECK(hash_md);

    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;

        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1) ? CRC32C_POLY : 0);
        crc_table[0][b] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (uint32_t b = 0; b < 256; b++) {
            const uint32_t prev = crc_table[k - 1][b];

            crc_table[k][b] = (prev >> 8) ^ crc_table[0][prev & 0xff];
        }
    crc_far_start();
}

static void hash_ready(void)
{
    CHECK(pthread_once(&hash_once, hash_start) == 0);
}

void sha256_init(struct sha256 *s)
{
    CHECK(s);
    hash_ready();
    if (!s->ctx)
        s->ctx = EVP_MD_CTX_new();
    CHECK(s->ctx);
    CHECK(EVP_DigestInit_ex2(s->ctx, hash_md, NULL) == 1);
}

void sha256_update(struct sha256 *s, const void *p, size_t n)
{
    CHECK(s);
    CHECK(s->ctx);
    CHECK(EVP_DigestUpdate(s->ctx, p, n) == 1);
}

void sha256_final(struct sha256 *s, struct digest *out)
{
    unsigned n = 0;

    CHECK(s);
    CHECK(s->ctx);
    CHECK(out);
    CHECK(EVP_DigestFinal_ex(s->ctx, out->b, &n) == 1);
    CHECK(n == DIGEST_BYTES);
}

void sha256_release(struct sha256 *s)
{
    CHECK(s);
    EVP_MD_CTX_free(s->ctx); /* NULL is fine */
    s->ctx = NULL;
}

void sha256_of(const void *p, size_t n, struct digest *out)
{
    struct sha256 s = {0};

    sha256_init(&s);
    sha256_update(&s, p, n);
    sha256_final(&s, out);
    sha256_release(&s);
}

void hmac_sha256(const void *key, size_t key_n, const void *p, size_t n, struct digest *out)
{
    unsigned size = sizeof(out->b);

    CHECK(key_n <= INT32_MAX);
    hash_ready();
    CHECK(HMAC(hash_md, key, (int)key_n, p, n, out->b, &size) != NULL);
    CHECK(size == sizeof(out->b));
}

int digest_cmp(const struct digest *a, const struct digest *b)
{
    return memcmp(a->b, b->b, DIGEST_BYTES);
}

bool digest_eq(const struct digest *a, const struct digest *b)
{
    return digest_cmp(a, b) == 0;
}

bool digest_is_zero(const struct digest *d)
{
    static const struct digest zero;

    return digest_eq(d, &zero);
}

void digest_hex(const struct digest *d, char out[DIGEST_HEX + 1])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        out[2 * i] = digits[d->b[i] >> 4];
        out[2 * i + 1] = digits[d->b[i] & 15];
    }
    out[DIGEST_HEX] = '\0';
}

static const struct str digest_scheme = {"sha256:", DIGEST_TEXT - DIGEST_HEX};

void digest_text(const struct digest *d, char out[DIGEST_TEXT + 1])
{
    memcpy(out, digest_scheme.p, digest_scheme.n);
    digest_hex(d, out + digest_scheme.n);
}

/* Lower case only: one digest has one spelling, so spellings can be compared. */
static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

enum err_code digest_parse(const char *p, size_t n, struct digest *out, struct err *err)
{
    struct str hex = {p, n};
    struct digest d;

    CHECK(p || n == 0);
    CHECK(out);
    if (str_starts(hex, digest_scheme)) {
        hex.p += digest_scheme.n;
        hex.n -= digest_scheme.n;
    }
    if (hex.n != DIGEST_HEX)
        return err_set(err, ERR_INPUT, "digest \"%.*s\": not %d hex digits",
                       (int)(n < 100 ? n : 100), p, DIGEST_HEX);
    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        const int high = hex_value(hex.p[2 * i]), low = hex_value(hex.p[2 * i + 1]);

        if (high < 0 || low < 0)
            return err_set(err, ERR_INPUT, "digest \"%.*s\": not lower-case hex", (int)n, p);
        d.b[i] = (uint8_t)(high << 4 | low);
    }
    *out = d;
    return OK;
}

static uint64_t load_le64(const unsigned char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

/* "Slicing by 8" (Kounavis and Berry, 2005): the eight bytes of a step do not depend on each
 * other, so their table look-ups overlap. */
uint32_t crc32c_portable(uint32_t crc, const void *p, size_t n)
{
    const unsigned char *at = p;

    hash_ready();
    crc = ~crc;
    for (; n >= 8; at += 8, n -= 8) {
        const uint64_t v = load_le64(at) ^ crc;

        crc = 0;
        for (int k = 0; k < 8; k++)
            crc ^= crc_table[7 - k][(v >> (8 * k)) & 0xff];
    }
    for (; n > 0; at++, n--)
        crc = (crc >> 8) ^ crc_table[0][(crc ^ *at) & 0xff];
    return ~crc;
}

#ifdef __x86_64__
static uint32_t crc_skip(uint32_t crc)
{
    return crc_far[0][crc & 0xff] ^ crc_far[1][crc >> 8 & 0xff] ^ crc_far[2][crc >> 16 & 0xff] ^
           crc_far[3][crc >> 24];
}

/* The instruction takes three cycles and a new one can start in each: three stretches side by side. */
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const void *data,
                                                               size_t n)
{
    const unsigned char *p = data;
    uint64_t wide = (uint32_t)~crc;

    for (; n >= 3 * CRC_STRIDE; p += 3 * CRC_STRIDE, n -= 3 * CRC_STRIDE) {
        uint64_t second = 0, third = 0;

        for (size_t i = 0; i < CRC_STRIDE; i += 8) {
            wide = __builtin_ia32_crc32di(wide, load_le64(p + i));
            second = __builtin_ia32_crc32di(second, load_le64(p + CRC_STRIDE + i));
            third = __builtin_ia32_crc32di(third, load_le64(p + 2 * CRC_STRIDE + i));
        }
        wide = crc_skip(crc_skip((uint32_t)wide) ^ (uint32_t)second) ^ third;
    }
    for (; n >= 8; p += 8, n -= 8)
        wide = __builtin_ia32_crc32di(wide, load_le64(p));
    crc = (uint32_t)wide;
    for (; n > 0; p++, n--)
        crc = __builtin_ia32_crc32qi(crc, *p);
    return ~crc;
}

uint32_t crc32c(uint32_t crc, const void *p, size_t n)
{
    if (__builtin_cpu_supports("sse4.2")) {
        if (n >= 3 * CRC_STRIDE)
            hash_ready();
        return crc32c_sse42(crc, p, n);
    }
    return crc32c_portable(crc, p, n);
}
#else
uint32_t crc32c(uint32_t crc, const void *p, size_t n)
{
    return crc32c_portable(crc, p, n);
}
#endif
