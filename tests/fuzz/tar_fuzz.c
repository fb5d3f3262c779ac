/* An archive in shorthand, since boundaries are 256 KiB apart.  A byte that limits its length (large
 * ones are slow), then ops: a byte and
 *
 *   0  a raw block: the next 512 bytes (or fewer, then zeros)
 *   1  a good header: type, 12 bytes of size field; the sum is right
 *   2  data: 2 bytes, times 32, of noise     3  the same of zeros
 *   4  text: a length byte and as many bytes, padded to a block
 *
 * The chunks tile the archive and keep their bounds. */
#include <stdlib.h>
#include <string.h>

#include "store/cut.h"
#include "tests/fuzz/fuzz.h"
#include "tests/store_gen.h"

#define ARCHIVE_MAX ((size_t)5 << 20)
#define MIDDLE_MAX ((size_t)600 << 10)
#define SMALL_MAX ((size_t)64 << 10)

struct input {
    const uint8_t *p;
    size_t n;
};

static size_t take(struct input *in, void *out, size_t n)
{
    const size_t got = n < in->n ? n : in->n;

    memset(out, 0, n);
    if (got)
        memcpy(out, in->p, got);
    in->p += got;
    in->n -= got;
    return got;
}

static void add_header(struct buf *out, struct input *in)
{
    uint8_t fields[14];
    unsigned sum = 0;
    char *h;

    take(in, fields, sizeof(fields));
    gen_tar_header(out, "name", 0, (char)fields[0]);
    if (out->failed)
        return;
    h = out->p + out->n - 512;
    memcpy(h + 124, fields + 1, 12);
    h[482] = (char)(fields[13] & 1);
    memset(h + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += (unsigned char)h[i];
    snprintf(h + 148, 8, "%06o", sum);
    h[155] = ' ';
}

static void add_op(struct buf *out, struct input *in)
{
    uint8_t op, arg[512];
    uint64_t seed = in->n;
    size_t n;
    void *room;

    take(in, &op, 1);
    switch (op % 5) {
    case 0:
        take(in, arg, 512);
        buf_add(out, arg, 512);
        break;
    case 1:
        add_header(out, in);
        break;
    case 2:
    case 3:
        take(in, arg, 2);
        n = (size_t)(arg[0] | arg[1] << 8) * 32;
        room = buf_room(out, n);
        if (room)
            memset(room, 0, n);
        if (room && op % 5 == 2)
            gen_noise(&seed, room, n);
        break;
    default:
        take(in, arg, 1);
        n = arg[0];
        n = take(in, arg, n);
        buf_add(out, arg, n);
        gen_tar_padding(out, n);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct buf b;
    enum cut_rule rule;
    size_t count, at = 0;
    uint8_t limit;

    take(&in, &limit, 1);
    buf_init(&b, limit == 0xff ? ARCHIVE_MAX : limit > 0xf0 ? MIDDLE_MAX : SMALL_MAX);
    while (in.n > 0 && !b.failed)
        add_op(&b, &in);
    uint8_t *exact = malloc(b.n ? b.n : 1);
    CHECK(exact);
    if (b.n)
        memcpy(exact, b.p, b.n);
    size_t *ends = gen_cuts(exact, b.n, &rule, &count);
    for (size_t i = 0; i < count; at = ends[i++]) {
        CHECK(ends[i] > at && ends[i] - at <= CUT_CHUNK_MAX);
        CHECK(i + 1 == count || ends[i] - at >= (size_t)256 << 10 || rule == CUT_TENSORS);
    }
    CHECK(at == b.n);
    free(ends);
    free(exact);
    buf_release(&b);
    return 0;
}
