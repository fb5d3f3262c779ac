/* Downloads.  The digest is in the pipeline, so what the store has is never fetched, and what arrives is what was meant or nothing. */
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "orchestrator/fetch.h"
#include "orchestrator/source_internal.h"
#include "store/reader.h"

#define DOWNLOAD_BYTES_MAX ((int64_t)1 << 42)

struct download {
    struct sources *s;
    int number;
    struct digest want;
    int dir;
    const char *part; /* NULL: the store has it */
    bool wrong;       /* it arrived, and is something else */
};

/* Moved in and hashed on the way; the commit, which makes it visible, comes only when it is what was wanted. */
static enum err_code enter(struct enter *e, void *arg, struct err *err)
{
    struct download *d = arg;
    const struct source *source = &d->s->p->sources[d->number];
    struct source_object *o = &d->s->list[d->number].object;
    char want[DIGEST_TEXT + 1], got[DIGEST_TEXT + 1];
    struct entry_wanted entry = {.source = source, .object = o, .url = source->location};
    enum err_code rc;

    *o = (struct source_object){.kind = OBJ_BLOB, .digest = d->want};
    d->wrong = false;
    if (!d->part) {
        rc = object_size(e->st, &d->want, &o->size, err);
    } else {
        rc = writer_adopt_file(e->w, d->dir, d->part, d->part, &o->digest, &o->size, err);
        if (!rc && !digest_eq(&o->digest, &d->want)) {
            d->wrong = true;
            digest_text(&d->want, want);
            digest_text(&o->digest, got);
            rc = err_set(err, ERR_CHANGED,
                         "%s is %s now, not %s; when the new one is meant, write its sha256 into "
                         "the pipeline",
                         source->location, got, want);
        }
    }
    if (!rc)
        enter_keep(e, &o->digest);
    return rc ? rc : source_entries(d->s, e, &entry, 1, err);
}

static enum err_code fetch_and_enter(struct download *d, struct err *err)
{
    const struct fetch f = {.url = d->s->p->sources[d->number].location,
                            .want = d->want,
                            .bytes_max = DOWNLOAD_BYTES_MAX,
                            .progress = d->s->o.progress};
    struct fetched got;
    enum err_code rc;

    for (int i = 0;; i++) {
        rc = fetch_file(d->dir, &f, &got, err);
        if (rc)
            return rc;
        d->part = got.name;
        rc = enter_run(d->s->st, enter, d, err);
        fetch_done(d->dir, &got, rc == OK || d->wrong ? FETCH_REMOVE : FETCH_KEEP);
        /* Half of the old file and half of a new one: all of it once more. */
        if (!d->wrong || !got.resumed || i > 0)
            return rc;
        *err = (struct err)ERR_INIT;
    }
}

enum err_code source_enter_url(struct sources *s, int number, struct err *err)
{
    const struct source *source = &s->p->sources[number];
    struct entered *e = &s->list[number];
    struct download d = {.s = s, .number = number, .dir = -1};
    enum obj_kind kind;
    bool there;
    enum err_code rc;

    CHECK(source->sha256);
    rc = digest_parse(source->sha256, strlen(source->sha256), &d.want, err);
    if (!rc)
        rc = source_there(s->st, &d.want, &there, &kind, err);
    if (rc)
        return rc;
    if (there) {
        rc = enter_run(s->st, enter, &d, err);
    } else if (s->o.offline) {
        rc = err_set(err, ERR_MISSING, "%s is not in the store, and nothing is to be fetched now",
                     source->location);
    } else {
        rc = source_cache_dir(s->st, "download", &d.dir, err);
        if (!rc)
            rc = fetch_and_enter(&d, err);
    }
    os_close_quiet(&d.dir);
    e->locked = rc == OK;
    e->row = (struct lock_row){.name = source->name,
                               .kind = SOURCE_URL,
                               .location = source->location,
                               .sha256 = d.want,
                               .digest = e->object.digest,
                               .size = e->object.size};
    return rc;
}
