/* pipeline_internal.h - what the files of the pipeline loader share.
 *
 * Life:     one struct loader per pipeline_load.
 * Owns:     arena and values are the pipeline's and outlive the load; scratch holds nodes, problems and what is needed
 *           on the way.  Texts of nodes die with the load: what stays is copied.
 * Threads:  one.
 * Errors:   collected in loader.problems.
 */
#ifndef WEIR_ORCHESTRATOR_PIPELINE_INTERNAL_H
#define WEIR_ORCHESTRATOR_PIPELINE_INTERNAL_H

#include "orchestrator/node.h"

/* load_names.c: names numbered from 0 in the order in which they were added, found again in constant time. */
struct names {
    const char **list;
    size_t count, room;
    uint32_t *slots; /* number + 1, or 0 */
    size_t mask;
};
void names_init(struct names *t, struct arena *a, size_t room);
bool names_add(struct names *t, const char *name); /* false: already there, not added again */
int names_find(const struct names *t, const char *name, size_t n); /* -1 */

struct stage_draft { /* what a stage says before its matrix is expanded */
    const struct node *inputs, *params, *when, *run;
    /* A problem has been reported, so that what others say about it cannot be checked. */
    bool outputs_bad, matrix_bad;
};

struct loader {
    struct arena *arena, scratch;
    struct problems problems;
    struct pipeline *p;
    const struct pipeline_options *o;
    struct yaml_doc **docs; /* freed at the end: nodes borrow their texts */
    size_t doc_count;
    const struct node *root;        /* after overlays */
    const struct node *file_params; /* before them */
    struct stage_draft *drafts;     /* one per stage */
    struct names param_names;       /* of the pipeline, numbered as in p->params */
    const struct node **param_nodes;
    char *param_state;           /* PARAM_*, one per param */
    struct buf text;             /* of the template or reference being worked on */
    struct task_input_ref *refs; /* of the input being worked on */
    size_t ref_count, ref_room;
    int64_t budget; /* bytes that params of all tasks may still take */
    size_t edges;
    struct sha256 origin; /* of all texts so far */
    bool stages_bad;      /* no list of stages to look references up in */
    bool sources_told;    /* that the pipeline has none */
};

/* Has there been a problem since then?  Also when no more are taken. */
static inline bool is_spoilt(const struct loader *l, size_t problems_before)
{
    return l->problems.count > problems_before || problems_before == PIPELINE_ERRORS_MAX;
}

/* pipeline.c */
/* YAML text as nodes, or NULL after problems.  A file that is named like an option has no lines. */
const struct node *load_nodes(struct loader *l, const char *text, size_t n, const char *file);

/* What goes into pipeline.origin: the texts of the file and of the param files, in order; then the options. */
void origin_text(struct sha256 *h, const char *text, size_t n);
void origin_end(struct sha256 *h, const struct digest *options, struct digest *out);
void options_digest(const struct pipeline_options *o, struct digest *out);

/* load_syntax.c: what the YAML reader says about text (n bytes), in words that help */
void take_syntax_errors(struct loader *l, char *lines, const char *text, size_t n,
                        const char *file);

/* load_overlay.c: profiles, --param-file, --set: l->root before and after */
void overlay_all(struct loader *l);

/* load_template.c: ${...} */
struct scope {               /* what ${...} may name at a place */
    const struct task *task; /* ${matrix.k}; NULL: there is no matrix here */
    bool sources;            /* ${sources.X.license} */
    bool command;            /* in run, where {} is special too */
};
/* A node with every ${} replaced, as JSON that p->values holds; NULL after a problem. */
json_t *template_json(struct loader *l, const struct scope *s, const struct node *n);
/* A string with every ${} replaced, to l->text; false after a problem. */
bool template_text(struct loader *l, const struct scope *s, const char *text, struct pos pos);
bool template_varies(const struct node *n); /* is there a ${matrix.k} in it? */
/* {inputs.x} {outputs.x} {params.x} and doubled braces in a command; run is the node that it came from. */
void template_check_command(struct loader *l, const char *text, struct pos pos,
                            const struct task *t, const struct stage *st);
/* A scalar as it stands in names and texts: true, 7, 0.5, word.  False for null, lists and maps. */
bool scalar_text(struct buf *out, const json_t *v);
void resolve_params(struct loader *l);           /* p->params from param_nodes */
json_t *keep_value(struct loader *l, json_t *v); /* takes v, which the pipeline then owns */

/* load_decode.c: small readers.  Each adds a problem for a wrong type, and gives the default then and when n is NULL. */
const char *want_string(struct loader *l, const struct node *n, const char *what);
/* The same, and ${} may stand in it. */
const char *want_text(struct loader *l, const struct node *n, const char *what);
int64_t want_int(struct loader *l, const struct node *n, int64_t min, int64_t max,
                 int64_t otherwise, const char *what);
int64_t want_seconds(struct loader *l, const struct node *n, int64_t min, int64_t otherwise,
                     const char *what);
int64_t want_bytes(struct loader *l, const struct node *n, int64_t otherwise, const char *what);
bool want_bool(struct loader *l, const struct node *n, bool otherwise, const char *what);
/* NULL-terminated; empty when absent.  One that is wrong is left out, and *items (may be NULL) tells which node each is. */
const char **want_strings(struct loader *l, const struct node *n, const char *what,
                          const struct node ***items);
bool want_map(struct loader *l, const struct node *n, const char *what, const char *name);
bool want_list(struct loader *l, const struct node *n, const char *what);
enum name_kind { NAME_THING /* [a-z][a-z0-9-]* */, NAME_PARAM /* [a-z][a-z0-9_]* */ };
bool check_name(struct loader *l, const char *name, enum name_kind kind, struct pos pos,
                const char *what);
const struct node *check_keys(struct loader *l, const struct node *map, const char *const *allowed,
                              const char *what, const char *name);
void decode_params(struct loader *l);
/* Does a value of another layer fit a param as the file declares it? */
void check_param_type(struct loader *l, const struct named_value *v);

/* load_source.c, load_schedule.c, load_stage.c, load_matrix.c */
void decode_sources(struct loader *l);
void decode_policy(struct loader *l);
void decode_schedules(struct loader *l);
void decode_notifies(struct loader *l);
extern const char *const stage_keys[];
void decode_stages(struct loader *l);
void decode_matrix(struct loader *l, struct stage *st, struct stage_draft *d, const struct node *n);

/* load_expand.c, load_ref.c, load_order.c */
void expand_tasks(struct loader *l);
void expand_inputs(struct loader *l);
void decode_publishes(struct loader *l); /* needs tasks */
void order_tasks(struct loader *l);      /* cycles, skips */

/* The instance that "k=v,k=v" (n bytes) chooses, as a task number; else -1 and what is wrong with it. */
struct selector_problem {
    enum { SELECTOR_SYNTAX, SELECTOR_KEY, SELECTOR_VALUE, SELECTOR_TWICE, SELECTOR_MISSING } what;
    const char *at; /* the key=value in question */
    size_t n;
    size_t key; /* number of the matrix key */
};
int select_instance(const struct stage *st, const char *selector, size_t n,
                    struct selector_problem *why);

#endif
