/* Hostile text for the ledger: the first byte chooses what it is taken for: exported events, run.json, a time. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/record.h"
#include "tests/fuzz/fuzz.h"

static enum err_code count(void *arg, int64_t seq, const json_t *body, struct err *err)
{
    int64_t *next = arg;

    (void)err;
    CHECK(seq == (*next)++);
    CHECK(json_is_object(body));
    CHECK(json_is_string(json_object_get(body, "event")));
    return OK;
}

static void events(const char *p, size_t n)
{
    struct err err = ERR_INIT;
    struct digest last;
    int64_t next = 0, total = 0;
    const enum err_code rc = ledger_text(p, n, 7, count, &next, &last, &total, &err);

    if (rc) {
        CHECK(err.code == rc);
        CHECK(rc == ERR_INPUT || rc == ERR_DAMAGED || rc == ERR_LIMIT);
        return;
    }
    CHECK(next == total);
    CHECK((total == 0) == (n == 0));
}

static void run_json(const char *p, size_t n)
{
    struct err err = ERR_INIT;
    struct ledger_run row, again;
    struct buf text;
    json_t *o;

    if (run_row_parse(p, n, &row, &err) != OK) {
        CHECK(err.code == ERR_INPUT || err.code == ERR_LIMIT || err.code == ERR_VERSION);
        return;
    }
    CHECK(row.state < RUN_STATE_COUNT);
    CHECK(memchr(row.pipeline, '\0', sizeof(row.pipeline)));
    buf_init(&text, 1 << 20);
    o = run_row_json(&row);
    if (json_canonical(o, &text, &err) == OK) {
        CHECK(run_row_parse(text.p, text.n, &again, &err) == OK);
        CHECK(memcmp(&row, &again, sizeof(row)) == 0);
    }
    json_decref(o);
    buf_release(&text);
}

static void one_time(const char *p, size_t n)
{
    struct err err = ERR_INIT;
    char *text = mem_strndup(p, n);
    int64_t ns;

    if (record_time_parse(text, &ns, &err) != OK)
        CHECK(err.code == ERR_INPUT);
    else
        CHECK(strlen(text) == 24);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *p = (const char *)data;

    if (size == 0)
        return 0;
    switch (data[0]) {
    case 'r':
        run_json(p + 1, size - 1);
        break;
    case 't':
        one_time(p + 1, size - 1);
        break;
    default:
        events(p + 1, size - 1);
    }
    return 0;
}
