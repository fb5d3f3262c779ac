/* The payload of a frame record. */
#include <stdlib.h>

#include "store/pack_internal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct frame_member *members;
    struct err err = ERR_INIT;
    size_t count, off, raw_n, sum = 0;

    if (frame_decode(data, size, &members, &count, &off, &raw_n, &err) != OK) {
        CHECK(!members);
        CHECK(err.code == ERR_DAMAGED);
        return 0;
    }
    CHECK(count > 0);
    CHECK(count <= FRAME_MEMBERS_MAX);
    CHECK(off < size);
    CHECK(off == FRAME_HEAD + count * FRAME_ITEM);
    for (size_t i = 0; i < count; i++)
        sum += members[i].len;
    CHECK(sum == raw_n);
    CHECK(sum <= CODEC_RAW_MAX);
    free(members);
    return 0;
}
