#include "store/action.h"

#include <string.h>

#include "store/reader.h"

enum err_code action_key(const json_t *action, struct digest *key, struct buf *canonical,
                         struct err *err)
{
    const size_t before = canonical->n;
    enum err_code rc;

    CHECK(action);
    CHECK(key);
    rc = json_canonical(action, canonical, err);
    if (!rc)
        rc = buf_check(canonical, "action", err);
    if (!rc && canonical->n - before > ACTION_BYTES_MAX)
        rc = err_set(err, ERR_LIMIT, "the action has %zu bytes, at most %d are allowed",
                     canonical->n - before, ACTION_BYTES_MAX);
    if (!rc)
        sha256_of(canonical->p + before, canonical->n - before, key);
    return rc;
}

enum err_code action_put(struct writer *w, const json_t *action, const struct digest *result,
                         struct digest *key, struct err *err)
{
    struct digest stored;
    struct buf text;
    enum err_code rc;

    CHECK(w);
    CHECK(result);
    buf_init(&text, ACTION_BYTES_MAX);
    rc = action_key(action, key, &text, err);
    if (!rc)
        rc = writer_put(w, OBJ_BLOB, text.p, text.n, &stored, err);
    if (!rc) {
        CHECK(digest_eq(&stored, key));
        rc = writer_bind(w, key, result, err);
    }
    buf_release(&text);
    return rc;
}

static enum err_code no_result(const struct digest *key, const struct digest *missing,
                               struct err *err)
{
    char key_text[DIGEST_TEXT + 1], text[DIGEST_TEXT + 1];

    digest_text(key, key_text);
    digest_text(missing, text);
    return err_set(err, ERR_NOT_FOUND,
                   "action %s has a result, but object %s of it is not in the store any more",
                   key_text, text);
}

enum err_code action_lookup(struct store *st, const struct digest *key, struct digest *result,
                            struct err *err)
{
    struct digest found, missing;
    struct loc loc;
    bool complete;
    int64_t stamp;
    enum err_code rc;

    CHECK(st);
    CHECK(key);
    CHECK(result);
    if (!st->index)
        return err_set(err, ERR_CONFIG, "results of actions are known on the index host only");
    rc = index_action(st->index, key, &found, &stamp, err);
    if (!rc)
        rc = object_locate(st, &found, 1, &loc, err);
    if (rc)
        return rc;
    if (loc.type == 0)
        return no_result(key, &found, err);
    rc = store_complete(st, loc.flags & REC_TREE ? OBJ_TREE : OBJ_BLOB, &found, &complete, &missing,
                        err);
    if (!rc && !complete)
        rc = no_result(key, &missing, err);
    if (!rc)
        *result = found;
    return rc;
}
