/* card.h - the card that tells weir-exec what to attempt, and the one that it leaves behind.
 *
 * TASKDIR/attempt.json (written by an executor, read by weir-exec on whatever node it lands on):
 *   {"weir":"attempt/1","store":"/path/of/.weir","task":"sft[variant=realism]","key":"sha256:..",
 *    "action":{..},                               the canonical action, stored and bound to the result
 *    "argv":["/abs/program"] | "shell":"cmd",     {inputs.x} and friends already replaced
 *    "code":[{"path":"score.py","kind":"blob","digest":".."}],
 *    "inputs":[{"name":"data","kind":"tree","digest":"..","entries":["a","b"]}],   entries: fan-in, in declared order
 *    "outputs":["model"],"params":{..},"env":{"MODEL_ZOO":"/zoo"},
 *    "device":"cpu","cpus":2,"gpus":0,"ranks":1,
 *    "memory_bytes":0,"time_s":0,"timeout_s":0,"grace_s":30,"checkpoint_every_s":300}
 * TASKDIR/result.json (written by weir-exec, by rename, when all is durable):
 *   {"weir":"result/1","status":"done"|"failed"|"stopped"|"lost","exit":0,"signal":0,"reason":"..",
 *    "result":"sha256:..","outputs":{"model":{"kind":"tree","digest":"..","size":1}},"log_bytes":1,"wall_ms":1}
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

struct card_object {
    const char *name; /* of the input, output, or path of the code file */
    enum obj_kind kind;
    struct digest digest;
    int64_t size;
    const json_t *entries; /* inputs: array of names for a fan-in, else NULL */
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
};
MUST_USE enum err_code attempt_card_read(int dir, struct attempt_card *out, struct err *err);
void attempt_card_release(struct attempt_card *c); /* fine on zeroed storage */

enum attempt_status {
    ATTEMPT_DONE,
    ATTEMPT_FAILED,
    ATTEMPT_STOPPED,
    ATTEMPT_LOST,
    ATTEMPT_STATUS_COUNT
};
extern const char *const attempt_status_words[ATTEMPT_STATUS_COUNT];
struct result_card {
    enum attempt_status status;
    int exit_status, signal;
    char reason[ERR_TEXT_MAX];
    struct digest result; /* the result tree, when done */
    struct card_object *outputs;
    size_t output_count;
    int64_t log_bytes, wall_ms;
    json_t *root; /* of a card that was read */
};
MUST_USE enum err_code result_card_write(int dir, const struct result_card *c, struct err *err);
MUST_USE enum err_code result_card_read(int dir, struct result_card *out,
                                        struct err *err); /* ERR_NOT_FOUND */
void result_card_release(struct result_card *c);

/* The members of an object in a card: {"kind":..,"digest":..,"size":..}. */
json_t *card_object_json(const struct card_object *o);
const char *obj_kind_word(enum obj_kind k); /* "blob", "tree" */

#endif
