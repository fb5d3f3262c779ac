#include "orchestrator/enter.h"

#include <stdlib.h>

#include "base/os.h"
#include "store/action.h"

#define TRIES_MAX 3
#define NS_PER_S INT64_C(1000000000)
#define HOUR_S INT64_C(3600)

void enter_keep(struct enter *e, const struct digest *d)
{
    CHECK(e);
    CHECK(!digest_is_zero(d));
    if (e->count == e->cap) {
        e->cap = e->cap ? e->cap * 2 : 16;
        e->ids = mem_grow(e->ids, e->cap, sizeof(*e->ids));
    }
    e->ids[e->count++] = *d;
}

/* Until a full hour, so that who looks again and again changes the store once an hour. */
static enum err_code keep(struct enter *e, uint64_t epoch, struct err *err)
{
    const int64_t now_s = os_now_ns() / NS_PER_S;
    const int64_t until_s = (now_s / HOUR_S + 1) * HOUR_S + ENTER_KEEP_S;

    return e->count ? action_keep(e->st, e->ids, e->count, until_s - now_s, epoch, err) : OK;
}

static enum err_code once(struct enter *e, enter_fn fn, void *arg, bool *raced, struct err *err)
{
    uint64_t epoch;
    enum err_code rc;

    *raced = false;
    e->count = 0;
    rc = store_removal_epoch(e->st, &epoch, err);
    if (!rc)
        rc = writer_open(e->st, &e->w, err);
    if (!rc)
        rc = fn(e, arg, err);
    if (!rc) {
        if (writer_has_news(e->w))
            rc = writer_commit(e->w, err);
        if (!rc)
            rc = keep(e, epoch, err);
        *raced = rc == ERR_CHANGED;
    }
    writer_release(e->w);
    e->w = NULL;
    return rc;
}

enum err_code enter_run(struct store *st, enter_fn fn, void *arg, struct err *err)
{
    struct enter e = {.st = st};
    bool raced;
    enum err_code rc;

    CHECK(st);
    CHECK(fn);
    for (int i = 1;; i++) {
        rc = once(&e, fn, arg, &raced, err);
        if (!raced || i == TRIES_MAX)
            break;
        e.no_memo = true; /* the memo may know objects that a gc has taken away */
        *err = (struct err)ERR_INIT;
    }
    free(e.ids);
    return rc;
}
