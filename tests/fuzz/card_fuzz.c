/* Attempt and result cards: whatever is in them, it is read or refused, and a result card that is read comes back the same. */
#include "cluster/card.h"
#include "tests/fuzz/fuzz.h"

static void attempt(json_t *root)
{
    struct attempt_card c;
    struct err err = ERR_INIT;

    if (attempt_card_of(json_incref(root), &c, &err)) {
        CHECK(!c.root);
        return;
    }
    CHECK(!c.argv != !c.shell);
    CHECK(c.outputs[0]);
    CHECK(c.log_max >= 2);
    CHECK(c.resume.kind == OBJ_NONE || c.resume_step >= 0);
    attempt_card_release(&c);
}

static void result(json_t *root)
{
    struct result_card c, again;
    struct err err = ERR_INIT;
    json_t *v, *w;

    if (result_card_of(json_incref(root), &c, &err)) {
        CHECK(!c.root);
        return;
    }
    v = result_card_json(&c);
    CHECK(result_card_of(json_incref(v), &again, &err) == OK);
    w = result_card_json(&again);
    CHECK(json_equal(v, w));
    json_decref(v);
    json_decref(w);
    result_card_release(&again);
    result_card_release(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = ERR_INIT;
    json_t *root = NULL;

    if (json_parse((const char *)data, size, CARD_BYTES_MAX, "card", &root, &err))
        return 0;
    attempt(root);
    result(root);
    json_decref(root);
    return 0;
}
