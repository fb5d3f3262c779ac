/* ENC_PLANES2 and ENC_PLANES4, byte by byte (version 1):
 *
 *   +---------+---------+---------+-----+------+
 *   | 01      | block   | block   | ... | tail |     all integers little endian
 *   +---------+---------+---------+-----+------+
 *   block  CODEC_BLOCK raw bytes, the last one fewer but whole words.  Per plane, most
 *          significant first: u32, its low 24 bits the length of what follows, the high 8 how
 *          it is stored (0 raw, 1 zstd) | bytes
 *   tail   the raw bytes that fill no word
 *
 * Weights look random to a match finder: on the exponents of N(0, 0.02) bf16 a search at level 1
 * gives 0.359 of the plane at 290 MiB/s, entropy coding alone 0.325 at 900 MiB/s.  So the planes
 * are compressed "literals only": an acceleration so large that almost nothing is searched, and
 * literals that are entropy coded all the same (which levels below 0 omit).  The frame is an
 * ordinary zstd frame.  Mantissa planes are noise; a histogram of a few thousand bytes keeps them
 * from zstd.
 *
 * A compressor has written wrong data before (restic#4523, zstd#3517), so codec_best decodes what
 * it encoded and compares.
 */
#include "store/codec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ZSTD_STATIC_LINKING_ONLY /* ZSTD_c_literalCompressionMode */
#include <zstd.h>

#include "base/os.h"
#include "store/planes.h"

#define PLANES_VERSION 1
#define PLANE_HEAD 4
#define PLANE_LENGTH 0xffffffu
#define LITERALS_ONLY (-1000)
#define SAMPLE_BYTES ((size_t)64 << 10)
#define SAMPLE_PIECES 4 /* evenly spread: a tensor often begins unlike the rest of it */
#define COMPARED_BYTES ((size_t)256 << 10)
#define BEST_MIN 64 /* bytes; a frame's own header is a tenth of that */

_Static_assert(CODEC_BLOCK <= PLANE_LENGTH, "a plane's length has 24 bits");
_Static_assert(CODEC_BLOCK % PLANES_MAX == 0, "a block is whole words");

struct scratch {
    uint8_t *p;
    size_t cap;
};

struct codec {
    ZSTD_CCtx *search;   /* by level */
    ZSTD_CCtx *literals; /* for planes */
    ZSTD_DCtx *decoder;
    struct scratch planes; /* one block taken apart */
    struct scratch packed; /* what zstd wrote */
    struct scratch check;  /* what it decodes to */
    struct buf aside;      /* a sample, then everything, encoded */
};

static enum err_code out_of_memory(const char *what, struct err *err)
{
    return err_sys(err, ENOMEM, "find memory to %s", what);
}

enum err_code codec_new(struct codec **out, struct err *err)
{
    struct codec *c = NULL;
    int sys;

    CHECK(out);
    *out = NULL;
    if (fault_hit(&sys))
        return err_sys(err, sys, "prepare zstd");
    c = mem_zero(1, sizeof(*c));
    buf_init(&c->aside, (size_t)2 * CODEC_RAW_MAX);
    c->search = ZSTD_createCCtx();
    c->literals = ZSTD_createCCtx();
    c->decoder = ZSTD_createDCtx();
    if (!c->search || !c->literals || !c->decoder) {
        codec_free(c);
        return out_of_memory("prepare zstd", err);
    }
    CHECK(
        !ZSTD_isError(ZSTD_CCtx_setParameter(c->literals, ZSTD_c_compressionLevel, LITERALS_ONLY)));
    CHECK(!ZSTD_isError(
        ZSTD_CCtx_setParameter(c->literals, ZSTD_c_literalCompressionMode, ZSTD_ps_enable)));
    *out = c;
    return OK;
}

void codec_free(struct codec *c)
{
    if (!c)
        return;
    ZSTD_freeCCtx(c->search);
    ZSTD_freeCCtx(c->literals);
    ZSTD_freeDCtx(c->decoder);
    free(c->planes.p);
    free(c->packed.p);
    free(c->check.p);
    buf_release(&c->aside);
    free(c);
}

/* At least n bytes; what was in them is lost. */
static enum err_code scratch_room(struct scratch *s, size_t n, struct err *err)
{
    if (n <= s->cap)
        return OK;
    free(s->p);
    s->cap = 0;
    s->p = malloc(n);
    if (!s->p)
        return out_of_memory("encode or decode", err);
    s->cap = n;
    return OK;
}

/* ---- zstd ---- */

/* One frame of p[0..n) into c->packed. */
static enum err_code compress(struct codec *c, ZSTD_CCtx *how, const void *p, size_t n,
                              size_t *packed_n, struct err *err)
{
    enum err_code rc = scratch_room(&c->packed, ZSTD_compressBound(n), err);
    int sys;

    if (rc)
        return rc;
    if (fault_hit(&sys))
        return err_sys(err, sys, "compress %zu bytes", n);

    const size_t got = ZSTD_compress2(how, c->packed.p, c->packed.cap, p, n);

    if (ZSTD_isError(got))
        return err_set(err, ERR_IO, "compress %zu bytes: zstd: %s", n, ZSTD_getErrorName(got));
    *packed_n = got;
    return OK;
}

/* p[0..n) must be one frame, nothing after it, of exactly raw_n bytes. */
static enum err_code decompress(struct codec *c, const void *p, size_t n, void *raw, size_t raw_n,
                                struct err *err)
{
    int sys;

    if (fault_hit(&sys))
        return err_sys(err, sys, "decompress %zu bytes", n);
    /* zstd itself would also take several frames, and skip over frames that are not data. */
    if (n < 4 || memcmp(p, "\x28\xb5\x2f\xfd", 4) != 0 || ZSTD_findFrameCompressedSize(p, n) != n)
        return err_set(err, ERR_DAMAGED, "decompress %zu bytes: not one zstd frame", n);

    const size_t got = ZSTD_decompressDCtx(c->decoder, raw, raw_n, p, n);

    if (ZSTD_isError(got))
        return err_set(err, ERR_DAMAGED, "decompress %zu bytes: zstd: %s", n,
                       ZSTD_getErrorName(got));
    if (got != raw_n)
        return err_set(err, ERR_DAMAGED, "decompress %zu bytes: %zu bytes came out, not %zu", n,
                       got, raw_n);
    return OK;
}

static enum err_code encode_zstd(struct codec *c, int level, const void *p, size_t n,
                                 struct buf *out, struct err *err)
{
    size_t packed_n;
    enum err_code rc;

    /* zstd itself brings a level out of range into it. */
    CHECK(!ZSTD_isError(ZSTD_CCtx_setParameter(c->search, ZSTD_c_compressionLevel, level)));
    rc = compress(c, c->search, p, n, &packed_n, err);
    if (rc)
        return rc;
    buf_add(out, c->packed.p, packed_n);
    return OK;
}

/* ---- planes: encoding ---- */

static size_t word_bytes(enum enc enc)
{
    return enc == ENC_PLANES2 ? 2 : 4;
}

/* Could entropy coding save a twentieth of the plane?  Judged by collisions: the sum of squared
 * frequencies is least, N^2 / 256, for noise, and log2 of its inverse is never above the entropy,
 * so a plane worth compressing always passes. */
static bool worth_compressing(const uint8_t *plane, size_t n)
{
    enum { RUN = 512, RUNS = 16 };
    uint32_t seen[256] = {0};
    const size_t runs = n <= RUN ? 1 : RUNS;
    const size_t run = n <= RUN ? n : RUN;
    const size_t step = runs > 1 ? (n - run) / (runs - 1) : 0;
    uint64_t collisions = 0;

    for (size_t r = 0; r < runs; r++)
        for (size_t i = 0; i < run; i++)
            seen[plane[r * step + i]]++;
    for (int b = 0; b < 256; b++)
        collisions += (uint64_t)seen[b] * seen[b];
    /* A plane of few bytes collides by chance more often than this asks, and is then tried. */
    return collisions * 256 * 10 > (uint64_t)(runs * run) * (runs * run) * 13;
}

static void put_plane(struct buf *out, unsigned how, const void *p, size_t n)
{
    const uint8_t head[PLANE_HEAD] = {(uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16),
                                      (uint8_t)how};

    buf_add(out, head, sizeof(head));
    buf_add(out, p, n);
}

static enum err_code encode_plane(struct codec *c, const uint8_t *plane, size_t n, struct buf *out,
                                  struct err *err)
{
    size_t packed_n = n;

    if (worth_compressing(plane, n)) {
        enum err_code rc = compress(c, c->literals, plane, n, &packed_n, err);

        if (rc)
            return rc;
    }
    if (packed_n < n)
        put_plane(out, 1, c->packed.p, packed_n);
    else
        put_plane(out, 0, plane, n);
    return OK;
}

static enum err_code encode_planes(struct codec *c, enum enc enc, const uint8_t *p, size_t n,
                                   struct buf *out, struct err *err)
{
    const struct planes_ops *ops = planes_best();
    const size_t width = word_bytes(enc), whole = n - n % width;
    enum err_code rc = scratch_room(&c->planes, CODEC_BLOCK, err);

    if (rc)
        return rc;
    buf_char(out, PLANES_VERSION);
    for (size_t at = 0; at < whole; at += CODEC_BLOCK) {
        const size_t words = (whole - at < CODEC_BLOCK ? whole - at : CODEC_BLOCK) / width;
        uint8_t *plane[PLANES_MAX];

        for (size_t k = 0; k < width; k++)
            plane[k] = c->planes.p + k * words;
        (width == 2 ? ops->split2 : ops->split4)(p + at, words, plane);
        for (size_t k = 0; k < width; k++) {
            rc = encode_plane(c, plane[k], words, out, err);
            if (rc)
                return rc;
        }
    }
    buf_add(out, p + whole, n - whole);
    return OK;
}

/* ---- planes: decoding ---- */

struct stored {
    const uint8_t *p;
    size_t n, at;
};

static enum err_code decode_plane(struct codec *c, struct stored *in, size_t words, uint8_t *room,
                                  const uint8_t **plane, struct err *err)
{
    if (in->n - in->at < PLANE_HEAD)
        return err_set(err, ERR_DAMAGED, "planes end at byte %zu", in->n);

    const uint8_t *head = in->p + in->at;
    const size_t length = head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16;
    const unsigned how = head[3];

    if (how > 1 || length > in->n - in->at - PLANE_HEAD || (how == 0 && length != words))
        return err_set(err, ERR_DAMAGED, "planes: bad header at byte %zu", in->at);
    in->at += PLANE_HEAD + length;
    *plane = how ? room : head + PLANE_HEAD;
    return how ? decompress(c, head + PLANE_HEAD, length, room, words, err) : OK;
}

static enum err_code decode_block(struct codec *c, enum enc enc, struct stored *in, size_t words,
                                  uint8_t *raw, struct err *err)
{
    const struct planes_ops *ops = planes_best();
    const size_t width = word_bytes(enc);
    const uint8_t *plane[PLANES_MAX];

    for (size_t k = 0; k < width; k++) {
        enum err_code rc = decode_plane(c, in, words, c->planes.p + k * words, &plane[k], err);

        if (rc)
            return rc;
    }
    (width == 2 ? ops->join2 : ops->join4)(plane, words, raw);
    return OK;
}

static enum err_code differs(const char *what, struct err *err)
{
    return err_set(err, ERR_DAMAGED, "%s: decoding does not give back what was encoded", what);
}

/* Into raw, or, with raw NULL, compared to expected block by block while the block is in the
 * cache. */
static enum err_code decode_planes(struct codec *c, enum enc enc, struct stored in, uint8_t *raw,
                                   const uint8_t *expected, size_t raw_n, struct err *err)
{
    const size_t width = word_bytes(enc), whole = raw_n - raw_n % width;
    enum err_code rc = scratch_room(&c->planes, CODEC_BLOCK, err);

    if (!rc && !raw)
        rc = scratch_room(&c->check, CODEC_BLOCK, err);
    if (rc)
        return rc;
    if (in.n < 1 || in.p[0] != PLANES_VERSION)
        return err_set(err, ERR_DAMAGED, "planes: not version %d", PLANES_VERSION);
    in.at = 1;
    for (size_t at = 0; at < whole; at += CODEC_BLOCK) {
        const size_t n = whole - at < CODEC_BLOCK ? whole - at : CODEC_BLOCK;

        rc = decode_block(c, enc, &in, n / width, raw ? raw + at : c->check.p, err);
        if (rc)
            return rc;
        if (!raw && memcmp(c->check.p, expected + at, n) != 0)
            return differs("planes", err);
    }
    if (in.n - in.at != raw_n - whole)
        return err_set(err, ERR_DAMAGED, "planes: %zu bytes after byte %zu, not %zu", in.n - in.at,
                       in.at, raw_n - whole);
    if (raw_n == whole)
        return OK;
    if (raw)
        memcpy(raw + whole, in.p + in.at, raw_n - whole);
    else if (memcmp(in.p + in.at, expected + whole, raw_n - whole) != 0)
        return differs("planes", err);
    return OK;
}

/* ---- the door ---- */

static enum err_code check_size(size_t n, struct err *err)
{
    if (n > CODEC_RAW_MAX)
        return err_set(err, ERR_LIMIT, "encode or decode %zu bytes: the most is %d", n,
                       CODEC_RAW_MAX);
    return OK;
}

enum err_code codec_encode(struct codec *c, enum enc enc, int level, const void *p, size_t n,
                           struct buf *out, struct err *err)
{
    const size_t start = out->n;
    enum err_code rc = check_size(n, err);

    CHECK(c);
    CHECK(p || n == 0);
    CHECK(enc < ENC_COUNT);
    if (rc)
        return rc;
    if (enc == ENC_RAW)
        buf_add(out, p, n);
    else if (enc == ENC_ZSTD)
        rc = encode_zstd(c, level, p, n, out, err);
    else
        rc = encode_planes(c, enc, p, n, out, err);
    if (!rc)
        rc = buf_check(out, "encoded bytes", err);
    if (rc && out->n > start) { /* a failed call leaves the buffer as it was */
        out->n = start;
        out->p[start] = '\0';
    }
    return rc;
}

enum err_code codec_decode(struct codec *c, enum enc enc, const void *p, size_t n, void *raw,
                           size_t raw_n, struct err *err)
{
    enum err_code rc = check_size(raw_n, err);

    CHECK(c);
    CHECK(p || n == 0);
    CHECK(raw || raw_n == 0);
    CHECK(enc < ENC_COUNT);
    if (rc)
        return rc;
    if (enc == ENC_ZSTD)
        return decompress(c, p, n, raw, raw_n, err);
    if (enc != ENC_RAW) {
        uint8_t none; /* decode_planes takes NULL to mean "compare" */

        return decode_planes(c, enc, (struct stored){p, n, 0}, raw ? raw : &none, NULL, raw_n, err);
    }
    if (n != raw_n)
        return err_set(err, ERR_DAMAGED, "%zu raw bytes, not %zu", n, raw_n);
    if (n)
        memcpy(raw, p, n);
    return OK;
}

/* ---- choosing ---- */

static bool pays(size_t stored, size_t raw)
{
    return stored < raw - raw / 20;
}

static size_t take_sample(const uint8_t *p, size_t n, uint8_t sample[SAMPLE_BYTES])
{
    const size_t piece = SAMPLE_BYTES / SAMPLE_PIECES;

    if (n <= SAMPLE_BYTES) {
        memcpy(sample, p, n);
        return n;
    }
    for (size_t i = 0; i < SAMPLE_PIECES; i++) {
        const size_t at = (n - piece) / (SAMPLE_PIECES - 1) * i;

        memcpy(sample + i * piece, p + at - at % PLANES_MAX, piece);
    }
    return SAMPLE_BYTES;
}

static enum err_code encode_aside(struct codec *c, enum enc enc, int level, const uint8_t *p,
                                  size_t n, struct err *err)
{
    buf_clear(&c->aside);
    return codec_encode(c, enc, level, p, n, &c->aside, err);
}

static enum err_code choose(struct codec *c, enum hint hint, int level, const uint8_t *p, size_t n,
                            enum enc *enc, struct err *err)
{
    const bool words = hint == HINT_WORDS2 || hint == HINT_WORDS4;
    const enum enc planes = hint == HINT_WORDS2 ? ENC_PLANES2 : ENC_PLANES4;
    size_t sample_n;
    enum err_code rc;

    *enc = ENC_RAW;
    if (hint == HINT_PACKED || n < BEST_MIN)
        return OK;
    if (!words &&
        n <= SAMPLE_BYTES) { /* the sample would be everything: no use in doing it twice */
        *enc = ENC_ZSTD;
        return OK;
    }
    rc = scratch_room(&c->check, SAMPLE_BYTES, err);
    if (rc)
        return rc;
    sample_n = take_sample(p, n, c->check.p);

    size_t best = sample_n - sample_n / 20;

    if (words) {
        rc = encode_aside(c, planes, level, c->check.p, sample_n, err);
        if (rc)
            return rc;
        if (c->aside.n < best) {
            *enc = planes;
            best = c->aside.n -
                   c->aside.n / 20; /* planes decode faster: zstd has to be clearly smaller */
        }
    }
    rc = encode_aside(c, ENC_ZSTD, level, c->check.p, sample_n, err);
    if (!rc && c->aside.n < best)
        *enc = ENC_ZSTD;
    return rc;
}

/* Does the frame in c->aside decode to p[0..n)?  In pieces, which takes the frame's window of memory
 * instead of n, and compares while a piece is in the cache. */
static enum err_code compare_zstd(struct codec *c, const uint8_t *p, size_t n, struct err *err)
{
    ZSTD_inBuffer in = {c->aside.p, c->aside.n, 0};
    size_t at = 0, wanted = 1; /* 0 when the frame is complete */
    enum err_code rc = scratch_room(&c->check, COMPARED_BYTES, err);
    int sys;

    if (rc)
        return rc;
    if (fault_hit(&sys))
        return err_sys(err, sys, "decompress %zu bytes", c->aside.n);
    CHECK(!ZSTD_isError(ZSTD_DCtx_reset(c->decoder, ZSTD_reset_session_only)));
    while (wanted > 0) {
        ZSTD_outBuffer out = {c->check.p, COMPARED_BYTES, 0};

        wanted = ZSTD_decompressStream(c->decoder, &out, &in);
        if (ZSTD_isError(wanted) || out.pos > n - at || memcmp(c->check.p, p + at, out.pos) != 0 ||
            (wanted > 0 && out.pos == 0 && in.pos == in.size))
            return differs("zstd", err);
        at += out.pos;
    }
    return at == n && in.pos == in.size ? OK : differs("zstd", err);
}

static enum err_code compare(struct codec *c, enum enc enc, const uint8_t *p, size_t n,
                             struct err *err)
{
    const struct stored stored = {(const uint8_t *)c->aside.p, c->aside.n, 0};

    if (enc == ENC_ZSTD)
        return compare_zstd(c, p, n, err);
    return decode_planes(c, enc, stored, NULL, p, n, err);
}

enum err_code codec_best(struct codec *c, enum hint hint, int level, const void *p, size_t n,
                         enum enc *enc, struct buf *out, struct err *err)
{
    enum enc chosen = ENC_RAW;
    enum err_code rc = check_size(n, err);

    CHECK(c);
    CHECK(p || n == 0);
    CHECK(enc);
    *enc = ENC_RAW;
    if (!rc)
        rc = choose(c, hint, level, p, n, &chosen, err);
    if (rc || chosen == ENC_RAW)
        return rc;
    /* Aside first: what does not pay may be longer than the caller's buffer may grow. */
    rc = encode_aside(c, chosen, level, p, n, err);
    if (rc || !pays(c->aside.n, n))
        return rc;
    rc = compare(c, chosen, p, n, err);
    if (rc)
        return rc;
    buf_add(out, c->aside.p, c->aside.n);
    rc = buf_check(out, "encoded bytes", err);
    if (!rc)
        *enc = chosen;
    return rc;
}
