/* A memo of any bytes is refused or has all its rows inside.  Its crc is cache_file.c's. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/resolve_memo.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size + 1); /* aligned as a mapping is */
    struct memo m;
    uint64_t sum = 0;

    CHECK(copy);
    if (size)
        memcpy(copy, data, size);
    if (memo_view(copy, size, &m)) {
        for (uint64_t i = 0; i < m.head.stages; i++)
            sum += m.stages[i].b[31];
        for (uint64_t i = 0; i < m.head.sources; i++)
            sum += m.sources[i].kind;
        for (uint64_t i = 0; i < m.head.tasks; i++)
            for (uint32_t k = 0; k < m.tasks[i].count; k++)
                sum += m.outputs[m.tasks[i].first + k].kind;
        CHECK(sum < UINT64_MAX);
    } else {
        CHECK(!m.map && !m.tasks);
    }
    free(copy);
    return 0;
}
