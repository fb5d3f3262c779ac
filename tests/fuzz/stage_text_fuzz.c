/* stage_text_fuzz.c - copyright files, IDX headers, record lines, licence expressions, task cards: any bytes are read or refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stages/data/claim.h"
#include "stages/data/dataset.h"
#include "stages/data/dep5.h"
#include "stages/data/idx.h"
#include "stages/runtime/stage_internal.h"
#include "tests/fuzz/fuzz.h"

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "stage_text_fuzz: not true: %s\n", what);
    abort();
}

static void copyright(const char *text, size_t n)
{
    struct err err = ERR_INIT;
    struct dep5 *d = NULL;
    struct dep5_answer a;

    if (dep5_parse(text, n, &d, &err) == OK) {
        if (dep5_find(d, "usr/share/x/pics/a.png", &a)) {
            must(claim_expression_check(a.lic, &err) == OK, "what is found is an expression");
            must(a.pattern[0] != '\0', "by a pattern");
        }
    } else {
        must(d == NULL && err.text[0], "an error has a text");
    }
    dep5_free(d);
}

static void idx(const uint8_t *p, size_t n)
{
    struct err err = ERR_INIT;
    struct idx i;
    static volatile uint8_t sink;

    if (idx_parse(p, n, &i, &err) == OK && i.count > 0) {
        const size_t bytes = (size_t)i.count * (size_t)i.rows * (size_t)i.columns;

        sink = (uint8_t)(i.bytes[0] + i.bytes[bytes - 1]); /* a sanitizer sees a byte too far */
    }
    (void)sink;
}

static void records(const char *text, size_t n)
{
    struct err err = ERR_INIT;
    struct lines l;
    char *copy = mem_strndup(n ? text : "", n);

    if (lines_split(copy, n, &l, &err))
        return;
    for (int64_t i = 0; i < l.count; i++) {
        json_t *row = NULL;
        struct err e = ERR_INIT;

        must(i == 0 || l.number[i] > l.number[i - 1], "numbers ascend");
        if (lines_row(&l, i, "f", &row, &e) == OK)
            must(json_is_object(row), "a row is an object");
        else
            must(row == NULL && strncmp(e.text, "f:", 2) == 0, "an error has a place");
        json_decref(row);
    }
    lines_release(&l);
}

static void card(const char *text, size_t n)
{
    static const struct stage_param params[] = {{"steps", STAGE_INT, "1", "1", "9", .help = "x"},
                                                {0}};
    static const struct stage_port ports[] = {{"data", true, "x"}, {0}};
    static const struct stage_program self = {"p", "x", params, ports, ports, NULL, NULL, false};
    struct err err = ERR_INIT;
    struct stage_task t;
    enum err_code rc;

    stage_task_init(&t, &self);
    rc = stage_card_parse(text, n, "/t", &t, &err);
    if (!rc)
        rc = stage_params_complete(&self, t.params, &err);
    if (!rc)
        rc = stage_ports_check(&t, &err);
    must(rc == OK || rc == ERR_USAGE, "a wrong card is nobody else's fault");
    if (!rc && stage_input(&t, "data"))
        must(strncmp(stage_input(&t, "data")->path, "/t/", 3) == 0, "paths stay inside");
    stage_task_release(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    char *whole;
    struct err err = ERR_INIT;
    char out[128];

    if (size == 0 || size > 1 << 20)
        return 0;
    copyright(text, size);
    idx(data, size);
    records(text, size);
    card(text, size);
    whole = mem_strndup(text, size < 4096 ? size : 4096);
    dep5_spdx(whole, out);
    must(claim_expression_check(out, &err) == OK, "a short name becomes an expression");
    free(whole);
    return 0;
}
