/* stage.h - how a stage program meets the world: one table in, one function called, the contract kept.
 *
 * A program is a table (struct stage_program) and a function.  stage_main reads the task card named by WEIR_TASK, or a command line typed by
 * hand, into the same struct stage_task; checks it against the table; calls the function; and turns its error into the contract's exit status:
 *
 *   0 done   64 card, parameter or command line wrong   65 input data wrong   75 stopped on request   anything else: failed
 *
 *     static const struct stage_param params[] = {{"side", STAGE_INT, "64", "8", "4096", .help = "pixels of a side"}, {0}};
 *     static const struct stage_port inputs[] = {{"images", .help = "pictures"}, {0}}, outputs[] = {{"dataset", .help = ".."}, {0}};
 *     static enum err_code run(struct stage_task *t, struct err *err) { ... stage_int(t, "side") ... }
 *     static const struct stage_program self = {"shrink", "Make pictures small.", params, inputs, outputs, .run = run};
 *     int main(int argc, char **argv) { return stage_main(&self, argc, argv); }
 *
 * By hand:  PROGRAM --in NAME=PATH --out NAME=PATH --set KEY=VALUE [--resume DIR] [--checkpoints DIR] [--events FILE] [--threads N]
 *           [--device cpu|cuda]; --help and --describe come from the table.  An --in repeated for one name gives entries, as a fan-in does.
 *
 * Life:     stage_main is all of main.
 * Owns:     the task owns everything reached from it, until run returns.
 * Threads:  events from one thread at a time; stage_stopping from any.
 * Errors:   run returns them; ERR_USAGE is 64, ERR_INPUT, ERR_LIMIT and ERR_NOT_FOUND 65, ERR_STOPPED 75, the rest its own status or 70.
 */
#ifndef WEIR_STAGES_RUNTIME_STAGE_H
#define WEIR_STAGES_RUNTIME_STAGE_H

#include "base/arena.h"
#include "base/json.h"

#define STAGE_EVENT_MAX (64 << 10) /* bytes of one event's line, its newline included */
#define STAGE_CARD_MAX (16 << 20)

enum stage_type { STAGE_INT, STAGE_FLOAT, STAGE_BOOL, STAGE_STRING };

/* Values are text, as on the command line; NULL means none.  Every array ends with a row without name. */
struct stage_param {
    const char *name;
    enum stage_type type;
    const char *standard; /* default; NULL: must be given */
    const char *min, *max;
    const char *choices; /* "a|b|c" */
    const char *help;
    bool extends; /* raising it goes on from old checkpoints; at most one, an int */
};
struct stage_port {
    const char *name;
    bool optional;
    const char *help;
};
struct stage_library {
    const char *name;
    const char *(*version)(void);
};

struct stage_entry { /* one part of a fan-in input */
    const char *name, *path, *digest;
};
struct stage_input {
    const char *name, *path;
    const char *digest; /* "sha256:..", or "" when started by hand */
    const struct stage_entry *entries;
    size_t entry_count; /* 0: the input is path */
};
struct stage_output {
    const char *name, *path;
};

struct stage_task;
struct stage_program {
    const char *name, *help;
    const struct stage_param *params;
    const struct stage_port *inputs, *outputs;
    enum err_code (*run)(struct stage_task *t, struct err *err);
    const struct stage_library *libraries; /* NULL: none */
    bool numeric;                          /* results depend on the platform class */
};

struct stage_task {
    const struct stage_program *program;
    const char *name; /* "sft[variant=realism]"; by hand the program's name */
    json_t *params;   /* complete: defaults are filled in */
    struct stage_input *inputs;
    size_t input_count;
    struct stage_output *outputs;
    size_t output_count;
    const char *resume;      /* directory of a checkpoint, NULL: fresh start */
    const char *checkpoints; /* directory for new ones, NULL: none wanted */
    int64_t checkpoint_every_s, grace_s;
    const char *device; /* "cpu" or "cuda" */
    int threads;        /* never changes a byte of the outputs */
    int gpus, ranks;
    struct arena arena; /* for what lives as long as the task */
    int event_fd;       /* -1: nobody listens */
    int64_t told_ns;    /* when progress was last reported */
};

int stage_main(const struct stage_program *p, int argc, char **argv);

/* Parameters of the table; a name that is not in it, or of another type, is our mistake (CHECK). */
int64_t stage_int(const struct stage_task *t, const char *name);
double stage_float(const struct stage_task *t, const char *name); /* int parameters too */
bool stage_bool(const struct stage_task *t, const char *name);
const char *stage_string(const struct stage_task *t, const char *name);

const struct stage_input *stage_input(const struct stage_task *t,
                                      const char *name); /* NULL: not given */
/* Where an output goes, NULL when nobody wants it.  stage_output_dir also makes the directory; one that holds something already is ERR_USAGE. */
const char *stage_output(const struct stage_task *t, const char *name);
MUST_USE enum err_code stage_output_dir(const struct stage_task *t, const char *name,
                                        const char **path, struct err *err);

/* SIGTERM or SIGINT came: save a checkpoint if there is one to save, and return stage_stopped. */
bool stage_stopping(void);
enum err_code stage_stopped(struct err *err); /* ERR_STOPPED */

/* Events.  Progress is thinned to four a second, the last one (done == total) always goes out; an event that cannot be written
 * is dropped with one line on stderr, for nothing of the result depends on it. */
void stage_progress(struct stage_task *t, int64_t done, int64_t total, const char *unit,
                    const char *note /* NULL: none */);
struct stage_value {
    const char *name;
    double value; /* NaN and infinities become null */
};
void stage_metric(struct stage_task *t, int64_t step, const struct stage_value *v, size_t count);
void stage_image(struct stage_task *t, int64_t step, const char *path, const char *caption);

/* A checkpoint is written aside, made durable, renamed into place, then announced.  begin gives the directory to fill (NULL when no
 * checkpoints are wanted); commit makes it CHECKPOINTS/step-N.  Files below it need not be synced by the caller. */
MUST_USE enum err_code stage_checkpoint_begin(struct stage_task *t, int64_t step, const char **dir,
                                              struct err *err);
MUST_USE enum err_code stage_checkpoint_commit(struct stage_task *t, int64_t step, struct err *err);

#endif
