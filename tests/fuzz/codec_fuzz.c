/* Byte 0: what to do and the encoding; bytes 1 and 2: the raw length; then the bytes.  Decoding
 * what a stranger encoded must be an error or fill exactly raw bytes; what is encoded here must
 * come back. */
#include <stdlib.h>
#include <string.h>

#include "store/codec.h"
#include "tests/fuzz/fuzz.h"

static struct codec *codec; /* one for all runs: what a failed call leaves in it must do no harm */

static void round_trip(enum hint hint, const uint8_t *p, size_t n)
{
    struct err err = ERR_INIT;
    uint8_t *raw = malloc(n ? n : 1);
    struct buf out;
    enum enc enc;

    CHECK(raw);
    buf_init(&out, 2 * n + 1024);
    CHECK(codec_best(codec, hint, 1, p, n, &enc, &out, &err) == OK);
    if (enc != ENC_RAW) {
        CHECK(codec_decode(codec, enc, out.p, out.n, raw, n, &err) == OK);
        CHECK(memcmp(raw, p, n) == 0);
    }
    for (int e = 0; e < ENC_COUNT; e++) {
        buf_clear(&out);
        CHECK(codec_encode(codec, (enum enc)e, 1, p, n, &out, &err) == OK);
        CHECK(codec_decode(codec, (enum enc)e, out.p, out.n, raw, n, &err) == OK);
        CHECK(n == 0 || memcmp(raw, p, n) == 0);
    }
    buf_release(&out);
    free(raw);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = ERR_INIT;

    if (size < 3)
        return 0;
    if (!codec)
        CHECK(codec_new(&codec, &err) == OK);
    if (data[0] & 0x80) {
        (void)codec_sniff(data + 3, size - 3);
        round_trip((enum hint)(data[0] % 5), data + 3, size - 3);
        return 0;
    }
    const size_t raw_n = data[1] | (size_t)data[2] << 8;
    uint8_t *raw = malloc(raw_n ? raw_n : 1);
    CHECK(raw);
    const enum err_code rc =
        codec_decode(codec, (enum enc)(data[0] % ENC_COUNT), data + 3, size - 3, raw, raw_n, &err);
    CHECK(rc == OK || (rc == ERR_DAMAGED && err.text[0] != '\0'));
    free(raw);
    return 0;
}
