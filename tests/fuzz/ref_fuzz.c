/* The payload of a ref record; its id is the one that its name asks for, or, when the last byte is
 * odd, another. */
#include "store/pack_internal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct digest id = {{1}}, target;
    struct err err = ERR_INIT;
    struct str name;
    struct buf again;
    uint8_t kind;

    if (size > REF_HEAD && !(data[size - 1] & 1))
        sha256_of(data + REF_HEAD, size - REF_HEAD, &id);
    if (ref_decode(&id, data, size, &target, &kind, &name, &err) != OK) {
        CHECK(err.code == ERR_DAMAGED);
        return 0;
    }
    CHECK(name.n > 0);
    CHECK(name.n <= REF_NAME_MAX);
    CHECK(kind <= 2);
    for (size_t i = 0; i < name.n; i++)
        CHECK(name.p[i] > 0x20 && name.p[i] < 0x7f);
    buf_init(&again, 1024);
    ref_encode(&target, kind, name, &again);
    CHECK(again.n == size);
    CHECK(memcmp(again.p, data, size) == 0);
    buf_release(&again);
    return 0;
}
