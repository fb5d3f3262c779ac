/* What decodes encodes to the same bytes; nothing else decodes.  The first byte is the folder's
 * depth. */
#include <string.h>

#include "store/tree.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const int depth = size ? data[0] % 4 - 1 : 0;
    const char *text = size ? (const char *)data + 1 : "";
    const size_t n = size ? size - 1 : 0;
    struct err err = ERR_INIT;
    struct tree t;
    struct buf out;

    if (tree_decode(text, n, depth, "fuzz", &t, &err) == OK) {
        buf_init(&out, n);
        CHECK(tree_encode(&t, &out, &err) == OK);
        CHECK(out.n == n && memcmp(out.p, text, n) == 0);
        for (size_t i = 0; i < t.count; i++)
            CHECK(tree_find(&t, t.entries[i].name) == &t.entries[i]);
        buf_release(&out);
    } else {
        CHECK(err.code == ERR_INPUT && err.text[0] != '\0');
    }
    tree_release(&t);
    return 0;
}
