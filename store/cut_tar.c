#include "store/cut_tar.h"

#include <string.h>

#include "base/err.h"
#include "base/hash.h"

#define TAR_SIZE_AT 124
#define TAR_SIZE_N 12
#define TAR_SUM_AT 148
#define TAR_SUM_N 8
#define TAR_TYPE_AT 156
#define TAR_MAGIC_AT 257
#define TAR_SPARSE_AT 482 /* old GNU sparse: do more maps follow the header? */
#define TAR_SPARSE_MORE 504
/* Names are the longest thing that extension headers carry. */
#define TAR_EXTENSION_MAX ((int64_t)1 << 20)
#define TAR_EXTENSIONS_MAX 8

/* Octal digits after spaces, ended by a space, a NUL or the field. */
static bool read_octal(const uint8_t *p, size_t n, int64_t *out)
{
    int64_t v = 0;
    size_t i = 0, first;

    while (i < n && p[i] == ' ')
        i++;
    for (first = i; i < n && p[i] >= '0' && p[i] <= '7'; i++) {
        if (v > INT64_MAX >> 3)
            return false;
        v = v << 3 | (p[i] - '0');
    }
    *out = v;
    return i > first && (i == n || p[i] == ' ' || p[i] == '\0');
}

/* Sizes past 8 GiB: GNU sets the top bit and writes a binary number, big endian. */
static bool read_size(const uint8_t *p, int64_t *out)
{
    int64_t v = 0;

    if (!(p[0] & 0x80))
        return read_octal(p, TAR_SIZE_N, out);
    if (p[0] != 0x80)
        return false;
    for (size_t i = 1; i < TAR_SIZE_N; i++) {
        if (v > INT64_MAX >> 8)
            return false;
        v = v << 8 | p[i];
    }
    *out = v;
    return true;
}

static bool is_header(const uint8_t *p)
{
    unsigned sum = 0;
    int64_t said;

    if (memcmp(p + TAR_MAGIC_AT, "ustar", 5) != 0 || !read_octal(p + TAR_SUM_AT, TAR_SUM_N, &said))
        return false;
    for (size_t i = 0; i < TAR_BLOCK; i++) /* the sum is over the header with a blank sum */
        sum += i >= TAR_SUM_AT && i < TAR_SUM_AT + TAR_SUM_N ? ' ' : p[i];
    return said == (int64_t)sum;
}

/* Finds "size" among pax records, each "LENGTH key=value\n" with the length of the whole record.
 * The last one counts. */
static bool read_pax_size(const uint8_t *p, size_t n, int64_t *size)
{
    static const char key[] = " size=";

    for (size_t at = 0; at < n;) {
        size_t length = 0, i = at;

        for (; i < n && p[i] >= '0' && p[i] <= '9' && length <= n; i++)
            length = length * 10 + (size_t)(p[i] - '0');
        if (i == at || length > n - at || length < i - at + 2 || p[at + length - 1] != '\n')
            return false;

        const size_t end = at + length - 1;

        if (end - i > sizeof(key) - 1 && memcmp(p + i, key, sizeof(key) - 1) == 0) {
            int64_t v = 0;

            for (i += sizeof(key) - 1; i < end; i++) {
                if (p[i] < '0' || p[i] > '9' || __builtin_mul_overflow(v, 10, &v) ||
                    __builtin_add_overflow(v, p[i] - '0', &v))
                    return false;
            }
            *size = v;
        }
        at = end + 1;
    }
    return true;
}

struct member {
    int64_t length; /* all its headers, its data and the padding */
    uint32_t crc;   /* of the header itself */
};

/* The blocks of the header at p[0..n), old GNU sparse maps included; 0 when they do not fit. */
static size_t header_bytes(const uint8_t *p, size_t n)
{
    size_t at = TAR_BLOCK;
    bool more = p[TAR_TYPE_AT] == 'S' && p[TAR_SPARSE_AT];

    while (more) {
        if (n - at < TAR_BLOCK)
            return 0;
        more = p[at + TAR_SPARSE_MORE];
        at += TAR_BLOCK;
    }
    return at;
}

/* p[0..n) is what can be seen of the archive's last left bytes. */
static bool read_member(const uint8_t *p, size_t n, int64_t left, struct member *m)
{
    int64_t pax_size = -1;
    size_t at = 0;

    for (int i = 0; i < TAR_EXTENSIONS_MAX; i++) {
        const uint8_t *header = p + at;
        int64_t size, padded;

        if (n - at < TAR_BLOCK || !is_header(header) || !read_size(header + TAR_SIZE_AT, &size))
            return false;

        const char type = (char)header[TAR_TYPE_AT];
        const bool extension = strchr("xgXLK", type) && type;

        if (!extension && pax_size >= 0)
            size = pax_size;
        if (!extension && type >= '1' && type <= '6') /* links, devices, folders: no data */
            size = 0;
        if (__builtin_add_overflow(size, TAR_BLOCK - 1, &padded))
            return false;
        padded -= padded % TAR_BLOCK;
        if (extension) {
            if (size > TAR_EXTENSION_MAX || (size_t)padded > n - at - TAR_BLOCK)
                return false;
            if (type == 'x' && !read_pax_size(header + TAR_BLOCK, (size_t)size, &pax_size))
                return false;
            at += TAR_BLOCK + (size_t)padded;
            continue;
        }

        const size_t headers = header_bytes(header, n - at);

        if (!headers || padded > left - (int64_t)(at + headers))
            return false;
        m->length = (int64_t)(at + headers) + padded;
        m->crc = crc32c(0, header, TAR_BLOCK);
        return true;
    }
    return false;
}

bool tar_looks(const void *head, size_t n)
{
    return n >= TAR_BLOCK && is_header(head);
}

void tar_start(struct tar_walk *t, const struct gear *gear)
{
    CHECK(t);
    CHECK(gear);
    *t = (struct tar_walk){.gear = gear};
}

/* Goes on inside a long member that reaches up to t->inside bytes past at.  Returns a boundary, or
 * 0 with *at moved behind it. */
static size_t cut_inside(struct tar_walk *t, const uint8_t *p, size_t n, size_t *at)
{
    const size_t end = t->inside < (int64_t)(n - *at) ? *at + (size_t)t->inside : n;
    const size_t cut = gear_cut(t->gear, p, *at, end);
    const size_t reached = cut ? cut : end;

    if (t->inside != INT64_MAX)
        t->inside -= (int64_t)(reached - *at);
    *at = reached;
    return cut;
}

size_t tar_cut(struct tar_walk *t, const uint8_t *p, size_t n, int64_t left)
{
    size_t at = 0;

    CHECK(n > 0);
    CHECK((int64_t)n <= left);
    for (;;) {
        struct member m;

        if (t->inside > 0) {
            const size_t cut = cut_inside(t, p, n, &at);

            if (cut)
                return cut;
        }
        if (at == n)
            return n;
        if (!read_member(p + at, n - at, left - (int64_t)at, &m)) {
            t->inside = INT64_MAX;
            continue;
        }
        if ((int64_t)at >= TAR_CHUNK_MAX || ((int64_t)at >= TAR_CHUNK_MIN && m.crc % 4 == 0))
            return at;
        if (m.length > TAR_LONG)
            t->inside = m.length;
        else
            at += (size_t)m.length;
    }
}
