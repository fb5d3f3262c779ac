/* yaml_fuzz.c - any bytes as YAML: a tree that holds together, or messages that all have a place. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/yaml.h"
#include "tests/fuzz/fuzz.h"

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "yaml_fuzz: not true: %s\n", what);
    abort();
}

/* Aliases are shared nodes: without the budget a small file would be walked through for ever. */
static void walk(const struct yaml_node *n, int depth, size_t *budget)
{
    must(depth <= YAML_DEPTH_MAX, "depth is bounded");
    must(n->line >= 1 && n->column >= 1, "a node has a place");
    if (*budget == 0)
        return;
    --*budget;
    if (n->type != YAML_LIST && n->type != YAML_MAP) {
        must(n->text.p && n->text.p[n->text.n] == '\0', "text ends with a zero");
        must(strlen(n->text.p) == n->text.n, "there is no zero in text");
        return;
    }
    for (size_t i = 0; i < n->count; i++) {
        if (n->type == YAML_MAP) {
            must(n->keys[i]->type == YAML_STRING, "keys are text");
            for (size_t k = 0; k < i && k < 50; k++)
                must(strcmp(n->keys[k]->text.p, n->keys[i]->text.p) != 0, "keys differ");
            must(yaml_get(n, n->keys[i]->text.p) == n->items[i], "a key finds its value");
        }
        walk(n->items[i], depth + 1, budget);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct yaml_doc *doc = NULL;
    struct buf errors;
    struct err err = ERR_INIT;
    size_t budget = 10000;
    enum err_code rc;

    buf_init(&errors, 1 << 20);
    rc = yaml_parse((const char *)data, size, "f", &doc, &errors, &err);
    must((rc == OK) == (doc != NULL), "a document or an error");
    if (doc) {
        walk(yaml_root(doc), 0, &budget);
    } else {
        must(err.code == rc && err.text[0], "an error has a text");
        must(errors.n > 0 && errors.p[errors.n - 1] == '\n', "errors are lines");
        for (const char *line = errors.p; *line; line = strchr(line, '\n') + 1) {
            int row = 0, column = 0;

            must(sscanf(line, "f:%d:%d: ", &row, &column) == 2, "an error has a place");
            must(row >= 1 && column >= 1, "the place is in the file");
        }
    }
    yaml_free(doc);
    buf_release(&errors);
    return 0;
}
