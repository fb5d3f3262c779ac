/* json_fuzz.c - whatever parses has one canonical form, which parses again to the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tests/fuzz/fuzz.h"

#define BYTES_MAX (1 << 20)

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "json_fuzz: not true: %s\n", what);
    abort();
}

static void check_canonical(const json_t *v)
{
    struct buf once, twice;
    struct err err = ERR_INIT;
    json_t *again = NULL, *third = NULL;

    buf_init(&once, 8 * BYTES_MAX);
    buf_init(&twice, 8 * BYTES_MAX);
    if (json_canonical(v, &once, &err) == OK) { /* integers beyond 2^53 have none */
        must(json_parse(once.p, once.n, 8 * BYTES_MAX, "canonical", &again, &err) == OK,
             "the canonical form parses");
        must(json_canonical(again, &twice, &err) == OK, "it has a canonical form itself");
        must(once.n == twice.n && memcmp(once.p, twice.p, once.n) == 0, "which is the same");
        must(json_parse(twice.p, twice.n, 8 * BYTES_MAX, "canonical", &third, &err) == OK,
             "and parses");
        must(json_equal(again, third), "to an equal value");
    }
    json_decref(again);
    json_decref(third);
    buf_release(&once);
    buf_release(&twice);
}

/* Names of files: any bytes but zero, there and back. */
static void check_name(const char *p, size_t n)
{
    struct buf escaped, plain;
    struct err err = ERR_INIT;

    buf_init(&escaped, 8 * BYTES_MAX);
    buf_init(&plain, 8 * BYTES_MAX);
    json_name_escape(&escaped, p, n);
    must(json_name_unescape(&plain, escaped.p ? escaped.p : "", escaped.n, &err) == OK,
         "what was escaped can be read");
    must(plain.n == n && (n == 0 || memcmp(plain.p, p, n) == 0), "and is what it was");
    buf_release(&escaped);
    buf_release(&plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = ERR_INIT;
    json_t *v = NULL;
    enum err_code rc;

    if (size > BYTES_MAX)
        return 0;
    rc = json_parse((const char *)data, size, BYTES_MAX, "input", &v, &err);
    must((rc == OK) == (v != NULL), "a value or an error");
    if (v)
        check_canonical(v);
    else
        must(err.code == rc && err.text[0], "an error has a text");
    json_decref(v);
    check_name((const char *)data, strnlen((const char *)data, size));
    return 0;
}
