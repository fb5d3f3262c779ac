/* graph.h - the stages of a pipeline as a picture.
 *
 * A node is a source or a stage with all its instances; an edge says that an instance of one needs an output of the other.
 * Nodes stand in layers: each below everything that it needs.
 *
 * Life:     graph_new -> graph_dot, graph_text -> graph_free.
 * Owns:     the graph owns its nodes; names are the pipeline's, which must live as long.
 * Threads:  one.
 * Errors:   none; the buffer remembers when it is full.
 */
#ifndef WEIR_ORCHESTRATOR_GRAPH_H
#define WEIR_ORCHESTRATOR_GRAPH_H

#include "orchestrator/pipeline.h"

struct graph_node {
    const char *name, *label;
    bool source, skipped; /* skipped: all of its instances */
    int tasks;
    int layer; /* from 0; sources stand right above their first user */
};
struct graph_edge {
    int from, to; /* nodes */
    const char *output, *input;
};
struct graph {
    struct arena arena;
    const struct pipeline *p;
    struct graph_node *nodes; /* used sources, then stages, both as declared */
    int node_count, layer_count;
    struct graph_edge *edges; /* by from, then to; those of one pair are neighbours */
    int edge_count;
};

void graph_new(struct graph *g, const struct pipeline *p);
void graph_free(struct graph *g); /* fine on zeroed storage */

/* For Graphviz. */
void graph_dot(const struct graph *g, struct buf *out);
/* Boxes and lines where they fit into so many columns, else a list by layers. */
void graph_text(const struct graph *g, int columns, struct buf *out);

/* graph_draw.c; false when it does not fit. */
bool graph_draw(const struct graph *g, int columns, struct buf *out);

#endif
