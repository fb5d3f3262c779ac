#include <string.h>

#include "base/err.h"
#include "store/codec.h"

struct magic {
    size_t at, n;
    const char *bytes;
};

static bool is_packed(const uint8_t *p, size_t n)
{
    static const struct magic magics[] = {
        {0, 3, "\xff\xd8\xff"},       /* JPEG */
        {0, 8, "\x89PNG\r\n\x1a\n"},  /* PNG */
        {8, 4, "WEBP"},               /* WebP, after RIFF and a length */
        {4, 4, "ftyp"},               /* MP4, MOV, HEIC, AVIF, after a length */
        {0, 4, "\x1a\x45\xdf\xa3"},   /* Matroska, WebM */
        {0, 4, "OggS"},               /* Ogg */
        {0, 4, "fLaC"},               /* FLAC */
        {0, 4, "\x28\xb5\x2f\xfd"},   /* zstd */
        {0, 2, "\x1f\x8b"},           /* gzip */
        {0, 6, "\xfd\x37zXZ\0"},      /* xz */
        {0, 3, "BZh"},                /* bzip2 */
        {0, 4, "\x04\x22\x4d\x18"},   /* LZ4 frame */
        {0, 6, "7z\xbc\xaf\x27\x1c"}, /* 7-Zip */
        {0, 4, "PAR1"},               /* Parquet */
    };

    for (size_t i = 0; i < sizeof(magics) / sizeof(magics[0]); i++) {
        const struct magic *m = &magics[i];

        if (n >= m->at + m->n && memcmp(p + m->at, m->bytes, m->n) == 0)
            return true;
    }
    /* zip, unless its first member is stored as it is: numpy and PyTorch write arrays that way. */
    return n >= 10 && memcmp(p, "PK\3\4", 4) == 0 && (p[8] | p[9]) != 0;
}

/* Printable ASCII, white space, and bytes that stand as UTF-8 would have them; the last character
 * may be cut. */
static bool is_text(const uint8_t *p, size_t n)
{
    size_t follow = 0;

    for (size_t i = 0; i < n; i++) {
        const uint8_t b = p[i];

        if ((b & 0xc0) == 0x80) {
            if (follow-- == 0)
                return false;
            continue;
        }
        if (follow || b >= 0xf8 || b == 0x7f || (b < 0x20 && b != '\t' && b != '\n' && b != '\r'))
            return false;
        follow = b < 0x80 ? 0 : b < 0xe0 ? 1 : b < 0xf0 ? 2 : 3;
    }
    return true;
}

enum hint codec_sniff(const void *p, size_t n)
{
    CHECK(p || n == 0);
    if (n == 0)
        return HINT_NONE;
    if (is_packed(p, n))
        return HINT_PACKED;
    return is_text(p, n < 4096 ? n : 4096) ? HINT_TEXT : HINT_NONE;
}
