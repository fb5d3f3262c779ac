/* pipeline.h - a pipeline file, read, overlaid, checked and expanded into tasks.
 *
 *   file.yaml -> nodes with positions -> overlays (profiles, --param-file, --set) -> typed stages -> matrix -> tasks
 *
 * The format is pipeline-format version 1; nothing here knows programs (--describe), the store or the ledger.
 *
 * Life:     pipeline_load -> look -> pipeline_free.
 * Owns:     the pipeline owns every string, array and JSON value; instances of a stage share what does not depend on
 *           their matrix values, so nothing in it may be changed.
 * Threads:  one pipeline, one thread; read-only afterwards.
 * Errors:   ERR_INPUT: all problems of the file in one pass, one line each, "file:line:column: what is wrong; what would be
 *           right"; ERR_USAGE for a --set or --profile that does not fit; as os_read_file when the file cannot be read.
 */
#ifndef WEIR_ORCHESTRATOR_PIPELINE_H
#define WEIR_ORCHESTRATOR_PIPELINE_H
/* long: one struct per block of the format, read side by side with it */

#include "base/arena.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/str.h"

#define PIPELINE_BYTES_MAX (16 << 20)
#define PIPELINE_STAGES_MAX 100000
#define PIPELINE_TASKS_MAX 1000000
#define PIPELINE_EDGES_MAX 10000000 /* references between tasks, fan-ins written out */
#define PIPELINE_ERRORS_MAX 100     /* more than that is one mistake repeated */
#define PIPELINE_KEYS_MAX 16        /* keys of one matrix */
#define PIPELINE_VALUE_BYTES_MAX ((int64_t)512 << 20)

struct names; /* names to numbers, pipeline_internal.h */

struct pos {
    const char *file; /* as the user named it; "--set x=1" for an option */
    int line, column; /* 1-based; 0: not from a file */
};

struct named_value { /* params and matrix values, in declared order */
    const char *name;
    json_t *value;
    struct pos pos;
};

enum source_kind { SOURCE_PATH, SOURCE_DEB, SOURCE_URL, SOURCE_ARTIFACT };
struct source {
    const char *name;
    enum source_kind kind;
    const char *location; /* value of path, deb, url or artifact */
    const char *sha256;   /* url: required, 64 hex digits; else NULL */
    const char *license;  /* SPDX expression; NULL only for artifacts, which bring theirs */
    const char *attribution, *records; /* NULL when absent */
    struct pos pos, license_pos;
};

struct resources {
    int64_t cpus, gpus, nodes, ranks;
    int64_t memory_bytes; /* 0: no limit */
    int64_t time_s;       /* 0: no limit */
};

/* One reference of an input, after expansion. */
struct task_input_ref {
    int source;         /* index into sources, or -1 */
    int task;           /* index into tasks, or -1 */
    const char *output; /* of the task; NULL for a source */
    const char *entry;  /* name in a fan-in directory */
};
struct task_input {
    const char *name;
    bool fan_in;                 /* a directory of entries: declared as a list or with [*] */
    struct task_input_ref *refs; /* without those to skipped tasks, when fan_in */
    size_t ref_count;
    struct pos pos;
};

struct stage {
    const char *name;
    struct pos pos;
    const char *uses, *uses_digest; /* program, pinned "sha256:..", or NULL */
    const char **code, **env;       /* NULL-terminated, maybe empty */
    const char **outputs;           /* NULL-terminated, declared order */
    struct named_value *matrix;     /* values are arrays of scalars */
    size_t matrix_count;
    const struct names
        *matrix_values;         /* of each key: the values as text, numbered as in its array */
    int first_task, task_count; /* its instances are neighbours, the last key turning fastest */
    bool cuda;                  /* device: cuda */
    bool has_device;            /* said at all */
    bool shell;                 /* run is a string: its tasks have run, else argv or uses */
    struct resources resources;
    int64_t attempts, backoff_s;
    int64_t checkpoint_every_s, checkpoint_keep;
    int64_t timeout_s; /* 0: none */
};

struct task {         /* a stage instance */
    const char *name; /* "sft[variant=realism]" or the stage's name */
    const char
        *instance; /* matrix values joined by ',', or the stage's name: its entry in a fan-in */
    int stage;
    struct named_value *params, *matrix;
    size_t param_count, matrix_count;
    /* With ${} replaced and braces in what replaced it doubled; {inputs.x} and {{ }} are still in it. */
    const char *run;   /* for sh -c, or NULL */
    const char **argv; /* or a list, NULL-terminated, or NULL */
    struct task_input *inputs;
    size_t input_count;
    bool skipped; /* by its own when, or because it needs a skipped output */
    const char *skip_reason;
    struct pos when_pos; /* file NULL: no when */
};

struct publish {
    const char *name; /* of the ref that moves */
    int task;
    const char *output;
    struct pos pos;
};
struct schedule {
    const char *cron, *timezone,
        *watch; /* cron or watch; timezone NULL: UTC; watch is a source's name */
    int64_t settle_s;
    struct named_value *params;
    size_t param_count;
    struct pos pos;
};
struct notify {
    const char **events; /* NULL-terminated */
    const char *webhook; /* ${env.X} still in it: never stored resolved */
    struct pos pos;
};
struct policy {
    const char **deny, **allow_only; /* NULL-terminated; licence_policy_check */
    bool require_clean_git;
    struct pos pos;
};

struct pipeline {
    struct arena arena;
    json_t *values;         /* an array that holds every JSON value below */
    const char *file, *dir; /* dir: folder of the file, what paths are relative to */
    const char *name, *description;
    const char **profiles; /* names of all that the file has; NULL-terminated */
    struct named_value *params;
    size_t param_count;
    struct source *sources;
    size_t source_count;
    struct stage *stages;
    size_t stage_count;
    struct task *tasks; /* in declared order: inputs may point forward */
    size_t task_count;
    int *order; /* task_count task numbers, inputs before users */
    struct policy policy;
    struct publish *publishes;
    size_t publish_count;
    struct schedule *schedules;
    size_t schedule_count;
    struct notify *notifies;
    size_t notify_count;
    struct names *stage_names, *source_names;
    /* SHA-256 of what it was read from: the bytes of all its files and the options; and of the names of profiles and
     * param files and the texts of --set alone.  Equal origin: equal in everything, "file" and "dir" apart. */
    struct digest origin, options;
    void *image; /* it was not read but mapped (pipeline_image.h); else NULL */
    size_t image_bytes;
};

struct pipeline_options {
    const char *const *profiles; /* NULL-terminated, left to right; NULL: none */
    const char *const *param_files;
    const char *const *sets; /* "name=value" or "stages.sft.params.lr=1e-4" */
    size_t tasks_max;        /* 0: PIPELINE_TASKS_MAX */
    int64_t value_bytes_max; /* of params, once expanded; 0: PIPELINE_VALUE_BYTES_MAX */
};
/* errors (may be NULL): every problem, one line each (also when it is one); err has the first.  o may be NULL. */
MUST_USE enum err_code pipeline_load(const char *path, const struct pipeline_options *o,
                                     struct pipeline **out, struct buf *errors, struct err *err);
void pipeline_free(struct pipeline *p); /* NULL is fine */
/* The only pipeline in a folder: a *.yaml or *.yml with a line "weir:".  ERR_NOT_FOUND, or ERR_USAGE for several. */
MUST_USE enum err_code pipeline_find_file(const char *dir, struct buf *path, struct err *err);

/* -1 when there is none.  Keys of an instance may come in any order: sft[b=2,a=1]. */
int pipeline_find_task(const struct pipeline *p, const char *name);
int pipeline_find_stage(const struct pipeline *p, const char *name);
int pipeline_find_source(const struct pipeline *p, const char *name);

/* JSON of the whole expanded pipeline, defaults filled in; print it with json_canonical. */
MUST_USE enum err_code pipeline_json(const struct pipeline *p, json_t **out, struct err *err);

#endif
