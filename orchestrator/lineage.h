/* lineage.h - where an artifact of a run came from, and what came from it.
 *
 * A run's tree (record.h) holds all that is needed: each task's result holds its action, the action names its inputs by digest, and a digest
 * that a task of the run put out, or that a source of the run brought in, is an edge.  An input that neither made (--input, an artifact of
 * another pipeline) is a node of its own; where another kept run made it, what it came from there follows, named run-N:TASK.
 *
 * Licences: what entered has an SPDX expression; an output that carries licenses.json ({"licenses":[{"expression":"CC0-1.0","source":"x","pictures":
 * 12,"share":0.5}]}) is under those, every other output under the join (AND) of its inputs'.
 *
 * Life:     lineage_load -> lineage_up | lineage_down -> lineage_text, _json, _dot -> lineage_free.
 * Owns:     its nodes.
 * Threads:  one.
 * Errors:   ERR_NOT_FOUND: no such task or output in the run; ERR_DAMAGED as store/reader.h.
 */
#ifndef WEIR_ORCHESTRATOR_LINEAGE_H
#define WEIR_ORCHESTRATOR_LINEAGE_H

#include "base/arena.h"
#include "base/json.h"
#include "store/store.h"

enum lineage_kind { LINEAGE_TASK, LINEAGE_SOURCE, LINEAGE_FOREIGN };
struct lineage_edge {
    int from;           /* node that made it */
    const char *output; /* of a task */
    const char *input;  /* as the user calls it */
    struct digest digest;
};
struct lineage_node {
    enum lineage_kind kind;
    const char *name;
    struct digest digest; /* source or foreign: the object; task: its result */
    struct digest key;    /* task: the id of its action */
    json_t *action;       /* task */
    struct lineage_output {
        const char *name;
        struct digest digest;
        enum obj_kind object;
        int64_t size;
        const char *license; /* found out when asked for */
    } * outputs;
    size_t output_count;
    struct lineage_edge *inputs;
    size_t input_count;
    const char *license, *attribution, *url; /* source */
    const char *artifact; /* source: what it was called, "PIPELINE/STAGE.OUTPUT@NAME" */
    const json_t *entry;  /* source: its entry record, or NULL */
    const json_t *parts;  /* source with a records file: [{expression, pictures}] of single files */
    bool marked;          /* by lineage_up and lineage_down */
};
struct lineage {
    struct store *st;
    int64_t run;
    json_t *begin;              /* run.begin: pipeline, git, policy */
    struct lineage_node *nodes; /* sources, then tasks by name, then foreign ones */
    size_t count, room;
    struct arena arena;
    json_t *keep;         /* array that owns JSON of the nodes */
    struct lineage *next; /* of other runs, whose nodes are part of this */
};
MUST_USE enum err_code lineage_load(struct store *st, int64_t run, struct lineage **out,
                                    struct err *err);
/* What came from outside of the run, from the kept runs that made it: once, after lineage_load. */
MUST_USE enum err_code lineage_extend(struct lineage *g, struct err *err);
void lineage_free(struct lineage *g); /* NULL is fine */
/* -1: none.  what: a task, a source, or "sources.NAME". */
int lineage_find(const struct lineage *g, const char *what);
/* ERR_NOT_FOUND for what lineage_find did not find, with the nearest name. */
enum err_code lineage_unknown(const struct lineage *g, const char *what, struct err *err);
int lineage_find_digest(const struct lineage *g, const struct digest *d, const char **output);
/* Marks a node and all that it came from, or all that came from it; what was marked before stays. */
void lineage_up(struct lineage *g, int node);
void lineage_down(struct lineage *g, int node);
/* The SPDX expression over an output (output NULL: all of the task's). */
MUST_USE enum err_code lineage_license(struct lineage *g, int node, const char *output,
                                       const char **spdx, struct err *err);

/* A source above node whose own licence the lists refuse, the first one, or NULL: which one is to blame. */
const char *lineage_blame(struct lineage *g, int node, const char *const *deny,
                          const char *const *allow_only);

/* Marked nodes only. */
MUST_USE enum err_code lineage_text(struct lineage *g, int node, bool up, struct buf *out,
                                    struct err *err);
MUST_USE enum err_code lineage_json(struct lineage *g, int node, const char *output, json_t **out,
                                    struct err *err);
void lineage_dot(const struct lineage *g, struct buf *out);

#endif
