/* records_fuzz.c - any bytes as a file of licences: rows with relative paths and licences, the sum of them, or an error with its line. */
#include <string.h>

#include "orchestrator/licence.h"
#include "orchestrator/source_internal.h"
#include "tests/fuzz/fuzz.h"

static enum err_code see(void *arg, const struct record_row *row, struct err *err)
{
    int *rows = arg;

    (void)err;
    CHECK(row->path[0] && row->path[0] != '/');
    CHECK(!strstr(row->path, "//"));
    CHECK(licence_expression_ok(row->license, NULL));
    ++*rows;
    return OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = ERR_INIT;
    json_t *sum = NULL;
    json_int_t pictures = 0;
    int rows = 0;

    if (records_parse((const char *)data, size, "r.jsonl", see, &rows, &err) == OK) {
        CHECK(records_sum((const char *)data, size, "r.jsonl", &sum, &err) == OK);
        for (size_t i = 0; i < json_array_size(sum); i++)
            pictures += json_integer_value(json_object_get(json_array_get(sum, i), "pictures"));
        CHECK(pictures == rows);
    } else {
        CHECK(strncmp(err.text, "r.jsonl:", 8) == 0);
    }
    json_decref(sum);
    return 0;
}
