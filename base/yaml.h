/* yaml.h - YAML files as a tree of nodes that know their line and column.
 *
 * Life:     yaml_parse -> look around -> yaml_free.  Nodes live as long as the document.
 * Owns:     the document owns all nodes and strings.
 * Threads:  one document, one thread.
 * Errors:   all in one pass, appended to a list as "file:line:column: text" (ERR_INPUT); tags, merge keys, duplicate keys, several
 *           documents, more than YAML_NODES_MAX nodes after alias expansion, depth past YAML_DEPTH_MAX are refused.
 *
 * Plain scalars are typed by the YAML 1.2 core schema: null ~ (empty), true/false (three spellings each), decimal, 0o and 0x
 * integers, floats with . or exponent, .inf .nan; everything else, and every quoted scalar, is a string.
 */
#ifndef WEIR_BASE_YAML_H
#define WEIR_BASE_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

#define YAML_NODES_MAX 2000000
#define YAML_DEPTH_MAX 64
#define YAML_BYTES_MAX (64 << 20)

enum yaml_type { YAML_NULL, YAML_BOOL, YAML_INT, YAML_FLOAT, YAML_STRING, YAML_LIST, YAML_MAP };
struct yaml_node {
    enum yaml_type type;
    int line, column;         /* 1-based, of the value */
    struct str text;          /* scalars: as written (after unescaping); NUL-terminated */
    bool boolean;             /* YAML_BOOL */
    int64_t integer;          /* YAML_INT; out of int64 range becomes YAML_FLOAT */
    double number;            /* YAML_FLOAT, and YAML_INT as a double */
    size_t count;             /* items or members */
    struct yaml_node **items; /* LIST: values; MAP: values */
    struct yaml_node **keys;  /* MAP: scalar string keys, in file order */
};
struct yaml_doc;

/* file names the text in messages.  On errors: err has the first, *errors (may be NULL) all, one per line. */
MUST_USE enum err_code yaml_parse(const char *p, size_t n, const char *file, struct yaml_doc **out,
                                  struct buf *errors, struct err *err);
/* NULL is fine.  The linker sees another name: libyaml exports a yaml_free of its own, which it calls itself. */
void yaml_free(struct yaml_doc *d) __asm__("weir_yaml_free");
const struct yaml_node *yaml_root(const struct yaml_doc *d); /* YAML_NULL node for an empty file */
/* NULL when absent or not a map; map may be NULL. */
const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key);

#endif
