/* A recipe: 8 bytes of raw length, then the payload.  When the first byte's lowest bit is set the
 * check digest is put right. */
#include <stdlib.h>

#include "store/pack_internal.h"
#include "tests/fuzz/fuzz.h"

static const struct digest id = {{7}};

static void fix_check(uint8_t *p, size_t n)
{
    struct sha256 s = {0};
    struct digest check;

    if (n < RECIPE_HEAD)
        return;
    sha256_init(&s);
    sha256_update(&s, id.b, DIGEST_BYTES);
    sha256_update(&s, p + RECIPE_HEAD, n - RECIPE_HEAD);
    sha256_final(&s, &check);
    sha256_release(&s);
    memcpy(p, check.b, DIGEST_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct recipe_chunk *chunks;
    struct err err = ERR_INIT;
    struct buf again;
    size_t count;

    if (size < 8)
        return 0;
    const uint64_t raw = le64_get(data) >> 1;
    const size_t n = size - 8;
    uint8_t *p = mem_alloc(n ? n : 1);
    memcpy(p, data + 8, n);
    if (data[0] & 1)
        fix_check(p, n);
    if (recipe_decode(&id, raw, p, n, &chunks, &count, &err) == OK) {
        uint64_t sum = 0;

        for (size_t i = 0; i < count; i++)
            sum += chunks[i].len;
        CHECK(sum == raw);
        buf_init(&again, PACK_PAYLOAD_MAX);
        recipe_encode(&id, chunks, count, &again);
        CHECK(again.n == n);
        CHECK(memcmp(again.p, p, n) == 0); /* one content, one form */
        buf_release(&again);
        free(chunks);
    } else {
        CHECK(!chunks);
        CHECK(err.code == ERR_DAMAGED);
    }
    free(p);
    return 0;
}
