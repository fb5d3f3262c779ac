/* lineage_internal.h - what the files of lineage share.
 *
 *   lineage.c          a run's tree: sources, tasks, what is asked about them
 *   lineage_connect.c  which node made what which other took in
 *   lineage_graft.c    inputs that no node of the run made, from the runs that made them
 *   lineage_print.c    licences; text, JSON, DOT
 *
 * Life:     as lineage.h.
 * Owns:     nothing.
 * Threads:  one.
 * Errors:   as lineage.h.
 */
#ifndef WEIR_ORCHESTRATOR_LINEAGE_INTERNAL_H
#define WEIR_ORCHESTRATOR_LINEAGE_INTERNAL_H

#include "orchestrator/lineage.h"

/* Pointers to nodes do not outlive the next one. */
struct lineage_node *lineage_add_node(struct lineage *g, enum lineage_kind kind, const char *name);
/* Edges of all tasks, without cycles, whatever their digests are: a task that puts out what it took in did not make it.  Inputs that
 * nobody made get nodes of their own. */
MUST_USE enum err_code lineage_connect(struct lineage *g, struct err *err);
/* lineage_extend, as called for a run that is itself looked at for another one's sake (depth > 0). */
MUST_USE enum err_code lineage_graft(struct lineage *g, int depth, struct err *err);

#endif
