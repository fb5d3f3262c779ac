/* What a program left becomes a result in the store. */
#include <fcntl.h>
#include <stdlib.h>

#include "base/os.h"
#include "cluster/attempt_internal.h"
#include "store/action.h"
#include "store/ingest.h"
#include "store/materialise.h"
#include "store/reader.h"
#include "store/tree.h"

#define RACES_MAX 3 /* with a gc, as store_add */

static enum err_code put_tree(struct writer *w, struct tree *t, struct digest *out, int64_t *size,
                              struct err *err)
{
    struct buf text = {0};
    enum err_code rc;

    buf_init(&text, TREE_BYTES_MAX);
    rc = tree_encode(t, &text, err);
    if (!rc)
        rc = writer_put(w, OBJ_TREE, text.p, text.n, out, err);
    *size = (int64_t)text.n;
    buf_release(&text);
    return rc;
}

static enum err_code add_entry(struct tree *t, const char *name, enum obj_kind kind,
                               const struct digest *d, int64_t size, struct err *err)
{
    const struct tree_entry e = {.mode = kind == OBJ_TREE ? TREE_DIR : TREE_FILE,
                                 .name = str_of(name),
                                 .digest = *d,
                                 .size = size};

    return tree_add(t, &e, 0, err);
}

/* Below that size adopting is copying, and removing the file on top of it: it goes with its folder. */
static bool is_small(struct attempt *a, size_t i)
{
    struct err ignored = ERR_INIT;
    struct stat st;

    return !os_stat_at(a->dir, arena_printf(&a->arena, "out/%s", a->card.outputs[i]), &st,
                       &ignored) &&
           S_ISREG(st.st_mode) && st.st_size < LOOSE_MIN_BYTES;
}

/* Output trees, then the tree of outputs, then the result tree that also holds the action. */
static enum err_code put_result(struct attempt *a, struct writer *w, struct err *err)
{
    struct result_card *r = &a->result;
    const struct ingest_options adopt = {.how = INGEST_ADOPT, .no_memo = true},
                                copy = {.how = INGEST_COPY, .no_memo = true};
    struct tree outs = {0}, result = {0};
    struct digest outs_id, key;
    struct buf canonical = {0};
    int64_t outs_size = 0, result_size = 0;
    enum err_code rc = OK;

    r->output_count = 0;
    tree_init(&outs);
    tree_init(&result);
    buf_init(&canonical, ACTION_BYTES_MAX);
    for (size_t i = 0; !rc && a->card.outputs[i]; i++) {
        struct ingest_result got;

        rc = ingest_path(w, a->dir, arena_printf(&a->arena, "out/%s", a->card.outputs[i]),
                         is_small(a, i) ? &copy : &adopt, &got, err);
        if (rc)
            break;
        r->outputs[r->output_count++] = (struct card_object){
            .name = a->card.outputs[i], .kind = got.kind, .digest = got.digest, .size = got.size};
        rc = add_entry(&outs, a->card.outputs[i], got.kind, &got.digest, got.size, err);
    }
    if (!rc)
        rc = put_tree(w, &outs, &outs_id, &outs_size, err);
    if (!rc)
        rc = action_key(a->card.action, &key, &canonical, err);
    if (!rc && !digest_eq(&key, &a->card.key))
        rc = err_set(err, ERR_INPUT, "attempt.json: the key is not that of the action");
    if (!rc)
        rc = add_entry(&result, "action.json", OBJ_BLOB, &key, (int64_t)canonical.n, err);
    if (!rc)
        rc = add_entry(&result, "out", OBJ_TREE, &outs_id, outs_size, err);
    if (!rc)
        rc = put_tree(w, &result, &r->result, &result_size, err);
    if (!rc)
        rc = writer_put(w, OBJ_BLOB, canonical.p, canonical.n, &key, err);
    if (!rc && a->card.bind)
        rc = writer_bind(w, &key, &r->result, err);
    if (!rc)
        writer_touch(w, OBJ_TREE, &r->result);
    buf_release(&canonical);
    tree_release(&outs);
    tree_release(&result);
    return rc;
}

/* ---- judging ----------------------------------------------------------------------------------- */

static bool outputs_exist(struct attempt *a)
{
    for (size_t i = 0; a->card.outputs[i]; i++) {
        struct stat st;
        struct err err = ERR_INIT;
        const enum err_code rc =
            os_stat_at(a->dir, arena_printf(&a->arena, "out/%s", a->card.outputs[i]), &st, &err);

        if (rc == ERR_NOT_FOUND)
            attempt_say(
                a, ATTEMPT_FAILED,
                "exit status 0, but output '%s' is not there; the program has to create out/%s",
                a->card.outputs[i], a->card.outputs[i]);
        else if (rc)
            attempt_lost(a, &err);
        if (rc)
            return false;
    }
    return true;
}

/* Whatever the program's end was: what it did to a hard link, it did to the store. */
static bool inputs_unchanged(struct attempt *a)
{
    for (size_t i = 0; a->linked && i < a->card.input_count; i++) {
        struct err err = ERR_INIT;
        const enum err_code rc =
            materialise_audit(a->store, a->card.inputs[i].kind, &a->card.inputs[i].digest, &err);

        if (rc == ERR_DAMAGED)
            attempt_say(a, ATTEMPT_FAILED, "it changed its input '%s': %.300s",
                        a->card.inputs[i].name, err.text);
        else if (rc)
            attempt_lost(a, &err);
        if (rc)
            return false;
    }
    return true;
}

/* Is that the program's fault: a socket in its output, a file that is still being written or that nobody may read? */
static bool is_programs_fault(enum err_code rc)
{
    return rc == ERR_INPUT || rc == ERR_CHANGED || rc == ERR_DENIED || rc == ERR_LIMIT ||
           rc == ERR_NOT_FOUND;
}

/* ---- commits ----------------------------------------------------------------------------------- */

enum err_code attempt_put(struct attempt *a, struct writer *w, struct err *err)
{
    enum err_code rc = OK;

    if (a->ready)
        rc = capture_put(&a->capture, w, &a->result, err);
    if (!rc && a->result.status == ATTEMPT_DONE)
        rc = put_result(a, w, err);
    if (rc)
        a->result.output_count = a->result.image_count = 0;
    return rc;
}

static enum err_code commit_one(struct store *st, struct attempt *a, struct err *err)
{
    struct writer *w = NULL;
    enum err_code rc = writer_open(st, &w, err);

    if (!rc)
        rc = attempt_put(a, w, err);
    if (!rc)
        rc = writer_commit(w, err);
    writer_release(w);
    return rc;
}

static void commit_alone(struct store *st, struct attempt *a)
{
    struct err err = ERR_INIT;
    enum err_code rc = OK;

    for (int i = 0; i < RACES_MAX; i++) {
        err = (struct err)ERR_INIT;
        rc = commit_one(st, a, &err);
        if (rc != ERR_CHANGED)
            break;
    }
    if (!rc)
        return;
    a->result.log = a->result.events = (struct card_object){0};
    a->result.output_count = a->result.image_count = 0;
    if (a->result.status != ATTEMPT_DONE)
        return; /* it is in its folder still */
    if (is_programs_fault(rc))
        attempt_say(a, ATTEMPT_FAILED, "its output cannot be kept: %.400s", err.text);
    else
        attempt_lost(a, &err);
}

void attempts_commit(struct store *st, struct attempt *const *list, size_t n)
{
    struct writer *w = NULL;
    struct err err = ERR_INIT;
    enum err_code rc = OK;

    for (size_t i = 0; i < n; i++)
        if (inputs_unchanged(list[i]) && list[i]->result.status == ATTEMPT_DONE)
            (void)outputs_exist(list[i]);
    if (n > 1) {
        rc = writer_open(st, &w, &err);
        for (size_t i = 0; !rc && i < n; i++)
            rc = attempt_put(list[i], w, &err);
        if (!rc)
            rc = writer_commit(w, &err);
        writer_release(w);
        if (!rc)
            return;
    }
    for (size_t i = 0; i < n; i++)
        commit_alone(st, list[i]);
}

enum err_code attempt_result_outputs(struct store *st, const struct digest *result,
                                     struct tree *out_dir, struct err *err)
{
    struct tree top = {0};
    struct buf text = {0};
    const struct tree_entry *out;
    struct digest id;
    enum err_code rc;

    buf_init(&text, TREE_BYTES_MAX);
    rc = object_read(st, result, TREE_BYTES_MAX, &text, err);
    if (!rc)
        rc = tree_decode(text.p, text.n, 0, "result", &top, err);
    out = rc ? NULL : tree_find(&top, STR("out"));
    if (!rc && (!out || out->mode != TREE_DIR))
        rc = err_set(err, ERR_DAMAGED, "a task's result has no folder 'out'");
    if (!rc) {
        id = out->digest;
        buf_clear(&text);
        rc = object_read(st, &id, TREE_BYTES_MAX, &text, err);
    }
    if (!rc)
        rc = tree_decode(text.p, text.n, 0, "outputs of a result", out_dir, err);
    tree_release(&top);
    buf_release(&text);
    return rc;
}
