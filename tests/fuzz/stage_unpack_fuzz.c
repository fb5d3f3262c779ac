/* stage_unpack_fuzz.c - archives: members come with clean names and within limits, or the walk ends with a text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stages/data/unpack.h"
#include "tests/fuzz/fuzz.h"

#define MEMBER_MAX (64 << 10)
#define TOTAL_MAX (1 << 20)

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "stage_unpack_fuzz: not true: %s\n", what);
    abort();
}

static enum err_code on_file(void *arg, const char *member, const void *p, size_t n,
                             struct err *err)
{
    size_t *total = arg;

    (void)p;
    (void)err;
    must(n <= MEMBER_MAX, "a member within its limit");
    must(member[0] != '/' && strstr(member, "/../") == NULL && strncmp(member, "../", 3) != 0,
         "a clean name");
    *total += n;
    must(*total <= 2 * TOTAL_MAX,
         "all within the limit"); /* the last member is counted before it is refused */
    return OK;
}

static void on_skip(void *arg, const char *member, const char *why)
{
    (void)arg;
    must(member != NULL && why[0], "a skipped member has a reason");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t total = 0;
    const struct unpack_rules rules = {MEMBER_MAX, 1000, TOTAL_MAX, on_file, on_skip, NULL, &total};
    struct err err = ERR_INIT;

    if (unpack_memory("fuzz", data, size, &rules, &err))
        must(err.text[0] && (err.code == ERR_INPUT || err.code == ERR_LIMIT),
             "an error has a text");
    return 0;
}
