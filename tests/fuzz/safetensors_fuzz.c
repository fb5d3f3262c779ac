/* A safetensors header: the first 4 bytes say how much data follows it (the top bit: absurdly
 * much), the rest is the JSON. Whatever is accepted tiles the file, and so does the plan of the
 * cuts. */
#include <stdlib.h>
#include <string.h>

#include "store/cut.h"
#include "tests/fuzz/fuzz.h"

static void check_tensors(const uint8_t *head, size_t n, int64_t size)
{
    struct err err = ERR_INIT;
    struct tensor_span *spans, one;
    char **names;
    size_t count;
    int64_t at = 8;

    if (safetensors_list(head, n, size, &names, &spans, &count, &err) != OK) {
        CHECK(err.code == ERR_INPUT && err.text[0] != '\0');
        CHECK(safetensors_find(head, n, size, "a", &one, &err) == ERR_INPUT);
        return;
    }
    for (int i = 0; i < 8; i++)
        at += (int64_t)head[i] << (8 * i);
    for (size_t i = 0; i < count; i++) {
        CHECK(spans[i].off == at && spans[i].len >= 0);
        at += spans[i].len;
        if (i < 4) {
            CHECK(safetensors_find(head, n, size, names[i], &one, &err) == OK);
            CHECK(memcmp(&one, &spans[i], sizeof(one)) == 0);
        }
    }
    CHECK(at == size);
    free(names);
    free(spans);
}

static void check_plan(const uint8_t *head, size_t n, int64_t size)
{
    struct cutter *c = cut_new(head, n, size);
    size_t count;
    const struct cut_piece *plan = cut_plan(c, &count);
    int64_t at = 0;

    CHECK((cut_rule(c) == CUT_TENSORS) == (plan != NULL));
    for (size_t i = 0; i < count; i++) {
        CHECK(plan[i].off == at && plan[i].len > 0 && plan[i].len <= CUT_CHUNK_MAX);
        at += plan[i].len;
    }
    CHECK(!plan || at == size);
    cut_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *head;
    int64_t data_n = 0;
    size_t n;

    if (size < 4)
        return 0;
    for (int i = 0; i < 3; i++)
        data_n |= (int64_t)data[i] << (8 * i);
    if (data[3] & 0x80)
        data_n <<= 38;
    n = size - 4;
    head = malloc(8 + n);
    CHECK(head);
    for (int i = 0; i < 8; i++)
        head[i] = (uint8_t)((uint64_t)n >> (8 * i));
    memcpy(head + 8, data + 4, n);
    check_tensors(head, 8 + n, (int64_t)(8 + n) + data_n);
    check_plan(head, 8 + n, (int64_t)(8 + n) + data_n);
    CHECK(cut_head_wanted(head, 8 + n, (int64_t)(8 + n) + data_n) <= 8 + n + 512);
    free(head);
    /* As it is: lengths of every kind. */
    check_tensors(data, size, (int64_t)size);
    check_plan(data, size, (int64_t)size);
    return 0;
}
