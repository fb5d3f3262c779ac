/* node.h - YAML nodes that remember their file, can be laid over each other, and the problems found in them.
 *
 * Life:     made in an arena, never changed afterwards; a merge makes new maps and shares the leaves.
 * Owns:     the arena owns nodes; texts and keys are the YAML document's, which must live as long.
 * Threads:  read-only once made.
 * Errors:   problems are collected (struct problems), so that one pass over a file shows all of them.
 */
#ifndef WEIR_ORCHESTRATOR_NODE_H
#define WEIR_ORCHESTRATOR_NODE_H

#include "base/yaml.h"
#include "orchestrator/pipeline.h"

struct node;
struct node_member {
    const char *key;
    struct pos pos; /* of the key */
    const struct node *value;
};
struct node { /* 40 bytes: a pipeline written out as 10,000 stages has 110,000 */
    enum yaml_type type;
    uint32_t count; /* of items or members */
    struct pos pos;
    const char *text; /* scalars as written */
    union {
        bool boolean;
        int64_t integer;
        double number;
        const struct node *items;          /* YAML_LIST */
        const struct node_member *members; /* YAML_MAP, in declared order */
    };
};

struct problem {
    struct pos pos;
    const char *text;
};
struct problems {
    struct arena *arena;
    size_t count;
    struct problem list[PIPELINE_ERRORS_MAX];
};
void problem_add(struct problems *ps, struct pos pos, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* "expected X; did you mean 'near'?": the second half from the nearest of names, or else from the names themselves. */
void problem_add_near(struct problems *ps, struct pos pos, const char *word,
                      const char *const *names, size_t count, const char *fmt, ...)
    PRINTF_LIKE(6, 7);
/* Sorted by file, line, column; the first also into err as ERR_INPUT; OK when there are none.  out may be NULL. */
MUST_USE enum err_code problems_report(struct problems *ps, struct buf *out, struct err *err);

const struct node *node_from_yaml(struct arena *a, const struct yaml_node *y, const char *file);
/* A string that stands for what an option says; text must live as long as the node. */
const struct node *node_text(struct arena *a, const char *text, struct pos pos);
/* NULL when absent, when its value is null (which is how an overlay takes something away), or when map is no map. */
const struct node *node_get(const struct node *map, const char *key);
const struct node_member *node_member(const struct node *map, const char *key);
/* over wins: maps merge deeply (members of base first, in its order), everything else is replaced.  Either may be NULL. */
const struct node *node_merge(struct arena *a, const struct node *base, const struct node *over);
/* A map of one path: {"a", "b", "c"}, leaf -> {a: {b: {c: leaf}}}. */
const struct node *node_path(struct arena *a, const char *const *keys, size_t count,
                             const struct node *leaf);
/* "a list", as messages call it. */
const char *node_type_name(const struct node *n);

/* Unknown members get a problem with the nearest of the allowed (NULL-terminated) names: "unknown key 'x' in WHAT NAME".
 * The map that comes back has misspelt keys put right, so that one mistake does not lead to a second message. */
const struct node *node_check_keys(struct arena *a, const struct node *map,
                                   const char *const *allowed, struct problems *ps,
                                   const char *what, const char *name);

#endif
