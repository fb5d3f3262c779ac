/* lock_fuzz.c - any bytes as a lock file: rows that are written and read again the same, or an error. */
#include <string.h>

#include "orchestrator/source_internal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    struct lock lock, again;
    struct err err = ERR_INIT;
    struct buf text, twice;

    arena_init(&a);
    buf_init(&text, SOURCE_LOCK_BYTES_MAX);
    buf_init(&twice, SOURCE_LOCK_BYTES_MAX);
    if (lock_parse((const char *)data, size, "x.lock", &a, &lock, &err) == OK) {
        for (size_t i = 0; i < lock.count; i++) {
            CHECK(lock_find(&lock, lock.rows[i].name) == &lock.rows[i]);
            CHECK(lock.rows[i].kind != SOURCE_DEB || lock.rows[i].version[0] != '-');
        }
        CHECK(lock_format(&lock, &text, &err) == OK);
        CHECK(lock_parse(text.p, text.n, "x.lock", &a, &again, &err) == OK);
        CHECK(again.count == lock.count);
        CHECK(lock_format(&again, &twice, &err) == OK);
        CHECK(twice.n == text.n && memcmp(twice.p, text.p, text.n) == 0);
    } else {
        CHECK(err.code && *err.text);
    }
    buf_release(&text);
    buf_release(&twice);
    arena_release(&a);
    return 0;
}
