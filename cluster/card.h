/* card.h - the card that tells weir-exec what to attempt, and the one that it leaves behind.
 *
 * TASKDIR/attempt.json (written by an orchestrator, mode 0600 because env is in it in clear; read by weir-exec wherever it lands):
 *   {"weir":"attempt/1","store":"/path/of/.weir","task":"sft[variant=realism]","key":"sha256:..",
 *    "action":{..},                               the canonical action, stored and bound to the result
 *    "argv":["/abs/program"] | "shell":"cmd",     {inputs.x} and friends already replaced
 *    "code":[{"path":"score.py","kind":"blob","digest":".."}],
 *    "inputs":[{"name":"data","kind":"tree","digest":"..","entries":["a","b"]}],   entries: fan-in, in declared order
 *    "outputs":["model"],"params":{..},"env":{"MODEL_ZOO":"/zoo"},
 *    "device":"cpu","cpus":2,"gpus":0,"ranks":1,
 *    "memory_bytes":0,"time_s":0,"timeout_s":0,"grace_s":30,"checkpoint_every_s":300,
 *  and, each of them optional:
 *    "program":{"path":"/abs/program","kind":"blob","digest":"..","ino":1,"size":1,"mtime_ns":"1763860000000000000"},
 *                                                 argv[0]: the file at path while it is still this one, else that blob out of the
 *                                                 store, as TASKDIR/program; these three as numbers or, beyond 2^53, as text
 *    "resume":{"kind":"tree","digest":"..","step":120},      becomes resume/step-120
 *    "checkpoints":{"ref":"checkpoints/<64 hex>","keep":2},  where they are kept; without it they are not
 *    "gpu_devices":"0,1" | "gpu_mask":3,          CUDA_VISIBLE_DEVICES
 *    "log_max":8388608,                           bytes of log kept, half of them from the start
 *    "bind":false}                                the result is not bound to the action: somebody wants to compare it
 * TASKDIR/result.json (written by weir-exec, by rename, when all that it names is durable in the store):
 *   {"weir":"result/1","status":"done"|"failed"|"stopped"|"lost","exit":0,"signal":0,"reason":"..","error":"no space",
 *    "result":"sha256:..","outputs":{"model":{"kind":"tree","digest":"..","size":1}},"log_bytes":1,"wall_ms":1,"strays":0,
 *    "step":120,                                  newest checkpoint of this task in the store, -1: none
 *    "log":{"kind":"blob","digest":"..","size":1},"events":{..},   blobs; absent when empty
 *    "images":[{"step":10,"caption":"..","kind":"blob","digest":"..","size":1}]}
 *   lost: nobody's fault but the machine's (error is a word of err.def); it does not use up a try.
 *
 * Life:     card_read -> fields -> card_release; both cards are small JSON files.
 * Owns:     the card holds one jansson value; strings point into it.
 * Threads:  a value.
 * Errors:   ERR_INPUT names the member; sizes are bounded by CARD_BYTES_MAX.
 */
#ifndef WEIR_CLUSTER_CARD_H
#define WEIR_CLUSTER_CARD_H

#include "base/json.h"
#include "store/index.h"

#define CARD_BYTES_MAX (16 << 20)
#define CARD_ATTEMPT "attempt.json"
#define CARD_RESULT "result.json"
#define TASK_CARD "task.json" /* of the stage contract */
#define CARD_KEEP_DEFAULT 2
#define CARD_KEEP_MAX 100
#define CARD_LOG_MAX_DEFAULT (8 << 20)

struct card_object {
    const char *name; /* of the input, output, or path of the code file */
    enum obj_kind kind;
    struct digest digest;
    int64_t size;
    const json_t *entries; /* inputs: array of names for a fan-in, else NULL */
};
struct card_program {
    const char *path; /* NULL: none, argv[0] is what it is */
    enum obj_kind kind;
    struct digest digest;
    int64_t ino, size, mtime_ns;
};
struct attempt_card {
    json_t *root;
    const char *store, *task, *shell; /* shell or argv */
    const json_t *action, *argv, *params, *env;
    struct digest key;
    struct card_object *inputs, *code;
    size_t input_count, code_count;
    const char **outputs; /* NULL-terminated */
    const char *device;
    int64_t cpus, gpus, ranks, memory_bytes, time_s, timeout_s, grace_s, checkpoint_every_s;
    struct card_program program;
    struct card_object resume; /* kind OBJ_NONE: a fresh start */
    int64_t resume_step;
    const char *checkpoint_ref; /* NULL: checkpoints are not kept */
    int64_t checkpoint_keep, log_max;
    char gpu_devices[256]; /* "": none given */
    bool bind;
};
MUST_USE enum err_code attempt_card_read(int dir, struct attempt_card *out, struct err *err);
/* The same from a value, whose reference is taken in any case. */
MUST_USE enum err_code attempt_card_of(json_t *root, struct attempt_card *out, struct err *err);
void attempt_card_release(struct attempt_card *c); /* fine on zeroed storage */

enum attempt_status {
    ATTEMPT_DONE,
    ATTEMPT_FAILED,
    ATTEMPT_STOPPED,
    ATTEMPT_LOST,
    ATTEMPT_STATUS_COUNT
};
extern const char *const attempt_status_words[ATTEMPT_STATUS_COUNT];
struct card_image {
    int64_t step, size;
    const char *caption;
    struct digest digest;
};
struct result_card {
    enum attempt_status status;
    int exit_status, signal, strays;
    char reason[ERR_TEXT_MAX];
    const char *error;    /* ATTEMPT_LOST: err_word of why; "" else */
    struct digest result; /* the result tree, when done */
    struct card_object *outputs;
    size_t output_count;
    int64_t log_bytes, wall_ms, step;
    struct card_object log, events; /* kind OBJ_NONE: empty or not kept */
    struct card_image *images;
    size_t image_count;
    json_t *root; /* of a card that was read */
};
/* Not fsynced: the store's commit is what is durable, and an attempt without a card has not happened. */
MUST_USE enum err_code result_card_write(int dir, const struct result_card *c, struct err *err);
MUST_USE enum err_code result_card_read(int dir, struct result_card *out,
                                        struct err *err); /* ERR_NOT_FOUND */
/* The card as a new reference; never fails: a reason or caption that is not UTF-8 loses its strange bytes. */
json_t *result_card_json(const struct result_card *c);
/* The reference is taken in any case. */
MUST_USE enum err_code result_card_of(json_t *root, struct result_card *out, struct err *err);
void result_card_release(struct result_card *c); /* of a card that was read */

/* The members of an object in a card: {"kind":..,"digest":..,"size":..}. */
json_t *card_object_json(const struct card_object *o);
MUST_USE enum err_code card_object_of(const json_t *v, const char *name_key, const char *what,
                                      struct card_object *out, struct err *err);
const char *obj_kind_word(enum obj_kind k); /* "blob", "tree" */
/* A card file, parsed, its "weir" member being version. */
MUST_USE enum err_code card_load(int dir, const char *name, const char *version, json_t **out,
                                 struct err *err);
/* The same in place, for a file that nobody reads meanwhile and that is nobody else's: made, or as it was made. */
MUST_USE enum err_code card_overwrite(int dir, const char *name, const void *p, size_t n,
                                      mode_t mode, struct err *err);
/* Any small file by rename, without fsync. */
MUST_USE enum err_code card_put_file(int dir, const char *name, const void *p, size_t n,
                                     mode_t mode, struct err *err);

#endif
