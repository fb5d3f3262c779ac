/* Random lives of a store against a model in memory: objects come (also while a gc runs), get names, leases and action results, lose
 * them again, and gc, compaction, rebuild and reopening happen in between.
 *
 * After every step: what the model says is kept reads byte for byte, names and leases are as set, an action answers with its last
 * result or, when that is gone, with one that is whole.  Whatever else the index still knows reads byte for byte as well.  Each gc is
 * asked first what it would do, changes nothing by that, and then does exactly this.
 * A case is named by its seed; WEIR_SEED runs one seed alone, WEIR_CASES that many from the first. */
#include "store/action.h"
#include "tests/store_life.h"
#include "tests/writer_rig.h"

#define CASES 12
#define STEPS 60
#define OBJECTS_MAX 1200
#define KIDS_MAX 8
#define NAMES 10
#define LEASES 5
#define KEYS 6
#define BINDS_MAX 400
#define LARGE ((size_t)1100000)
#define HOUR_NS (3600 * INT64_C(1000000000))
#define LIST_MAX ((size_t)4 << 20)

struct object {
    struct digest id;
    enum obj_kind kind;
    uint8_t *p;
    size_t n;
    size_t kids[KIDS_MAX], kid_count; /* of a tree */
    bool must;                        /* be there; otherwise it may */
    bool reached;
};
struct bind {
    int key;
    size_t result;
    /* Its result was not kept once: it may be forgotten, or count again when that comes back. */
    bool lapsed;
};
struct name {
    bool set;
    size_t object;
};
struct model {
    struct forge f;
    uint64_t seed;
    struct object v[OBJECTS_MAX];
    size_t n;
    struct name refs[NAMES], leases[LEASES];
    struct bind binds[BINDS_MAX]; /* in the order in which they were committed */
    size_t bind_count;
    int gcs, deleting_gcs, refused;
};
/* One session: what it puts, and what it does when it commits. */
struct session {
    struct writer *w;
    size_t put[64], count;
    struct name ref;
    int ref_name;
    struct bind bind;
    bool binds;
};

static int64_t setting(const char *name, int64_t otherwise)
{
    const char *text = getenv(name);
    struct err err = ERR_INIT;
    int64_t v;

    return text && str_to_i64(str_of(text), 0, INT64_MAX, &v, &err) == OK ? v : otherwise;
}

static void name_of(const char *what, int i, char out[16])
{
    snprintf(out, 16, "%s%d", what, i);
}

static struct digest key_of(int key)
{
    return (struct digest){{0xac, (uint8_t)key}};
}

/* ---- objects ------------------------------------------------------------------------------------- */

static size_t know(struct model *m, enum obj_kind kind, uint8_t *p, size_t n)
{
    struct object o = {.kind = kind, .p = p, .n = n};

    sha256_of(p, n, &o.id);
    for (size_t i = 0; i < m->n; i++)
        if (digest_eq(&m->v[i].id, &o.id) && m->v[i].kind == kind) {
            free(p);
            return i;
        }
    EXPECT(m->n < OBJECTS_MAX);
    m->v[m->n] = o;
    return m->n++;
}

static size_t new_blob(struct model *m)
{
    size_t n = 1 + gen_below(&m->seed, 6000);
    uint8_t *p;

    switch (gen_below(&m->seed, 10)) {
    case 0: { /* few large ones, of which versions share most chunks */
        uint64_t same = 70 + gen_below(&m->seed, 3);

        n = LARGE + gen_below(&m->seed, 3) * 1000;
        p = rig_noise(same, n);
        if (gen_below(&m->seed, 2))
            p[gen_below(&m->seed, n)] ^= 1;
        return know(m, OBJ_BLOB, p, n);
    }
    case 1: /* more than a frame takes */
        n += 300000;
        return know(m, OBJ_BLOB, rig_noise(gen_u64(&m->seed), n), n);
    case 2:
    case 3:
        return know(m, OBJ_BLOB, rig_noise(gen_u64(&m->seed), n), n);
    default:
        p = mem_alloc(n + 1);
        life_text(gen_u64(&m->seed), (char *)p, n);
        return know(m, OBJ_BLOB, p, n);
    }
}

static size_t new_tree(struct model *m, const size_t *from, size_t count)
{
    size_t kids[KIDS_MAX], kid_count = 0, at;
    struct tree t;
    struct buf b;

    tree_init(&t);
    while (kid_count < KIDS_MAX && kid_count < count) {
        const size_t k = from[gen_below(&m->seed, count)];
        char name[16];
        struct tree_entry e = {.mode = m->v[k].kind == OBJ_TREE ? TREE_DIR : TREE_FILE,
                               .digest = m->v[k].id,
                               .size = (int64_t)m->v[k].n};

        name_of("e", (int)kid_count, name);
        e.name = str_of(name);
        EXPECT_OK(tree_add(&t, &e, 0, &m->f.err), &m->f.err);
        kids[kid_count++] = k;
    }
    buf_init(&b, 1 << 20);
    EXPECT_OK(tree_encode(&t, &b, &m->f.err), &m->f.err);
    tree_release(&t);

    const size_t n = b.n;

    at = know(m, OBJ_TREE, (uint8_t *)buf_take(&b), n);
    memcpy(m->v[at].kids, kids, sizeof(kids));
    m->v[at].kid_count = kid_count;
    return at;
}

/* ---- sessions ------------------------------------------------------------------------------------ */

static void put_bytes(struct model *m, struct session *s, size_t i)
{
    const struct object *o = &m->v[i];
    struct digest id;

    for (size_t k = 0; k < o->kid_count; k++)
        put_bytes(m, s, o->kids[k]);
    if (o->kind == OBJ_BLOB && o->n >= LARGE) {
        rig_write(&m->f, "large", o->p, o->n);
        EXPECT_OK(rig_put_file(&m->f, s->w, "large", &id, &m->f.err), &m->f.err);
    } else {
        EXPECT_OK(writer_put(s->w, o->kind, o->p, o->n, &id, &m->f.err), &m->f.err);
    }
    EXPECT(digest_eq(&id, &o->id));
}

static void put(struct model *m, struct session *s, size_t i)
{
    put_bytes(m, s, i);
    s->put[s->count++] = i;
}

/* Names and results, told to the writer just before it commits. */
static void decide(struct model *m, struct session *s)
{
    s->ref_name = gen_below(&m->seed, 4) ? (int)gen_below(&m->seed, NAMES) : -1;
    s->ref = (struct name){gen_below(&m->seed, 5) > 0, s->put[s->count - 1]};
    s->binds = gen_below(&m->seed, 3) == 0;
    s->bind = (struct bind){.key = (int)gen_below(&m->seed, KEYS),
                            .result = s->put[gen_below(&m->seed, s->count)]};
}

static void begin(struct model *m, struct session *s)
{
    const size_t puts = 1 + gen_below(&m->seed, 6);

    *s = (struct session){0};
    EXPECT_OK(writer_open(m->f.st, &s->w, &m->f.err), &m->f.err);
    for (size_t i = 0; i < puts; i++) {
        if (m->n > 0 && gen_below(&m->seed, 4) == 0)
            put(m, s, gen_below(&m->seed, m->n)); /* the same again, alive or dead */
        else if (s->count > 0 && gen_below(&m->seed, 3) == 0)
            put(m, s, new_tree(m, s->put, s->count));
        else
            put(m, s, new_blob(m));
    }
    decide(m, s);
}

static void must_be_there(struct model *m, size_t i)
{
    m->v[i].must = true;
    for (size_t k = 0; k < m->v[i].kid_count; k++)
        must_be_there(m, m->v[i].kids[k]);
}

static enum err_code commit(struct model *m, struct session *s)
{
    const struct object *o = &m->v[s->ref.object];
    char name[16];
    enum err_code rc = OK;

    name_of("r", s->ref_name, name);
    if (s->ref_name >= 0)
        rc = writer_ref(s->w, str_of(name), s->ref.set ? o->kind : OBJ_NONE, &o->id, &m->f.err);
    if (!rc && s->binds) {
        const struct digest key = key_of(s->bind.key);

        rc = writer_bind(s->w, &key, &m->v[s->bind.result].id, &m->f.err);
    }
    if (!rc)
        rc = writer_commit(s->w, &m->f.err);
    writer_release(s->w);
    s->w = NULL;
    if (rc)
        return rc;
    for (size_t i = 0; i < s->count; i++)
        must_be_there(m, s->put[i]);
    if (s->ref_name >= 0)
        m->refs[s->ref_name] = s->ref;
    if (s->binds) {
        EXPECT(m->bind_count < BINDS_MAX);
        m->binds[m->bind_count++] = s->bind;
    }
    return OK;
}

/* A gc may have taken what the session found: then, and only then, it is refused, and the same puts succeed. */
static void finish(struct model *m, struct session *s, bool raced)
{
    enum err_code rc = commit(m, s);

    if (rc) {
        EXPECT(raced);
        EXPECT_ERR(rc, ERR_CHANGED, &m->f.err);
        m->f.err = (struct err)ERR_INIT;
        m->refused++;
        EXPECT_OK(writer_open(m->f.st, &s->w, &m->f.err), &m->f.err);
        for (size_t i = 0; i < s->count; i++)
            put_bytes(m, s, s->put[i]);
        EXPECT_OK(commit(m, s), &m->f.err);
    }
}

/* ---- names and leases ---------------------------------------------------------------------------- */

/* Something that must be there, or none: m->n. */
static size_t any_present(struct model *m)
{
    const size_t from = m->n ? gen_below(&m->seed, m->n) : 0;

    for (size_t i = 0; i < m->n; i++)
        if (m->v[(from + i) % m->n].must)
            return (from + i) % m->n;
    return m->n;
}

static void change_ref(struct model *m)
{
    const int i = (int)gen_below(&m->seed, NAMES);
    const size_t at = any_present(m);
    char name[16];

    name_of("r", i, name);
    if (at == m->n || gen_below(&m->seed, 2)) {
        life_unref(&m->f, name);
        m->refs[i].set = false;
        return;
    }
    life_ref(&m->f, name, m->v[at].kind, &m->v[at].id);
    m->refs[i] = (struct name){true, at};
}

static void change_lease(struct model *m)
{
    const int i = (int)gen_below(&m->seed, LEASES);
    const size_t at = any_present(m);
    const bool past = gen_below(&m->seed, 4) == 0, drop = gen_below(&m->seed, 3) == 0;
    char name[16];
    struct lease_row row = {.name = name};

    if (at == m->n)
        return;
    name_of("l", i, name);
    row.kind = m->v[at].kind;
    row.digest = m->v[at].id;
    row.expiry_ns = drop ? 0 : os_now_ns() + (past ? -1 : 1) * HOUR_NS;
    EXPECT_OK(index_lease(m->f.st->index, &row, &m->f.err), &m->f.err);
    m->leases[i] = (struct name){!drop && !past, at};
}

/* ---- what must hold ------------------------------------------------------------------------------ */

static void reach(struct model *m, size_t i)
{
    if (m->v[i].reached)
        return;
    m->v[i].reached = true;
    for (size_t k = 0; k < m->v[i].kid_count; k++)
        reach(m, m->v[i].kids[k]);
}

/* A gc without grace has passed: what no name and no lease leads to may be gone. */
static void forget_unreached(struct model *m)
{
    for (size_t i = 0; i < m->n; i++)
        m->v[i].reached = false;
    for (int i = 0; i < NAMES; i++)
        if (m->refs[i].set)
            reach(m, m->refs[i].object);
    for (int i = 0; i < LEASES; i++)
        if (m->leases[i].set)
            reach(m, m->leases[i].object);
    for (size_t i = 0; i < m->n; i++)
        m->v[i].must = m->v[i].reached;
    for (size_t i = 0; i < m->bind_count; i++)
        m->binds[i].lapsed |= !m->v[m->binds[i].result].must;
}

static void check_objects(struct model *m)
{
    for (size_t i = 0; i < m->n; i++) {
        struct object *o = &m->v[i];

        if (life_has(&m->f, &o->id))
            rig_expect_object(&m->f, &o->id, o->p, o->n);
        else if (o->must)
            fail_msg("object %zu of the model is lost", i);
    }
}

static void check_names(struct model *m)
{
    struct ref_row *rows = NULL;
    size_t n, at = 0;

    EXPECT_OK(index_refs(m->f.st->index, STR(""), REF_LIVE, &rows, &n, &m->f.err), &m->f.err);
    for (int i = 0; i < NAMES; i++) { /* fewer than eleven, so they sort as they count */
        char name[16];

        if (!m->refs[i].set)
            continue;
        name_of("r", i, name);
        EXPECT(at < n);
        EXPECT_STR(rows[at].name, name);
        EXPECT_EQ(rows[at].kind, m->v[m->refs[i].object].kind);
        EXPECT(digest_eq(&rows[at].digest, &m->v[m->refs[i].object].id));
        at++;
    }
    EXPECT_EQ(at, n);
    free(rows);
}

/* The last result, when it was kept ever since; otherwise whatever is answered was a result once, and is there. */
static void check_actions(struct model *m)
{
    for (int key = 0; key < KEYS; key++) {
        const struct digest id = key_of(key);
        const struct bind *last = NULL;
        struct digest result;
        bool known = false;
        const enum err_code rc = action_lookup(m->f.st, &id, &result, &m->f.err);

        for (size_t i = 0; i < m->bind_count; i++) {
            if (m->binds[i].key != key)
                continue;
            last = &m->binds[i];
            known |= rc == OK && digest_eq(&m->v[last->result].id, &result);
        }
        if (last && !last->lapsed) {
            EXPECT_OK(rc, &m->f.err);
            EXPECT(digest_eq(&result, &m->v[last->result].id));
        } else if (rc == OK) {
            EXPECT(known);
            EXPECT(life_has(&m->f, &result));
        } else {
            EXPECT_ERR(rc, ERR_NOT_FOUND, &m->f.err);
            m->f.err = (struct err)ERR_INIT;
        }
    }
}

static void check_all(struct model *m)
{
    EXPECT_OK(store_check(m->f.st, &m->f.err), &m->f.err);
    check_objects(m);
    check_names(m);
    check_actions(m);
}

/* ---- gc ------------------------------------------------------------------------------------------ */

/* Every pack and loose file, one a line: what the list of a gc calls them, and the bytes. */
static void list_files(struct model *m, struct buf *out)
{
    struct os_entry *e, *below;
    struct stat info;
    size_t n, k;

    buf_init(out, LIST_MAX);
    EXPECT_OK(os_list(m->f.st->packs, &e, &n, &m->f.err), &m->f.err);
    for (size_t i = 0; i < n; i++) {
        EXPECT_OK(os_stat_at(m->f.st->packs, e[i].name, &info, &m->f.err), &m->f.err);
        buf_printf(out, "pack %s %lld\n", e[i].name, (long long)info.st_size);
    }
    free(e);
    EXPECT_OK(os_list(m->f.st->loose, &e, &n, &m->f.err), &m->f.err);
    for (size_t i = 0; i < n; i++) {
        int dir = -1;

        EXPECT_OK(os_open_dir(m->f.st->loose, e[i].name, &dir, &m->f.err), &m->f.err);
        EXPECT_OK(os_list(dir, &below, &k, &m->f.err), &m->f.err);
        for (size_t j = 0; j < k; j++) {
            EXPECT_OK(os_stat_at(dir, below[j].name, &info, &m->f.err), &m->f.err);
            buf_printf(out, "loose sha256:%s%s %lld\n", e[i].name, below[j].name,
                       (long long)info.st_size);
        }
        free(below);
        os_close_quiet(&dir);
    }
    free(e);
    buf_str(out, ""); /* empty, but a text */
}

/* Is there a line in text that begins with the first two words of this one? */
static bool has_line(const struct buf *text, const char *line)
{
    const char *space = strchr(strchr(line, ' ') + 1, ' ');
    const size_t n = (size_t)(space - line) + 1;

    for (const char *at = text->p; at && *at; at = strchr(at, '\n') + 1)
        if (strncmp(at, line, n) == 0)
            return true;
    return false;
}

static const char *next_line(const char *line)
{
    return strchr(line, '\n') + 1;
}

/* Exactly the packs and loose files of the list are gone. */
static void expect_done(const struct buf *said, const struct buf *before, const struct buf *after)
{
    for (const char *line = before->p; *line; line = next_line(line))
        if (has_line(after, line) == has_line(said, line))
            fail_msg("%s: %.100s", has_line(after, line) ? "is still there" : "is gone", line);
    for (const char *line = said->p; line && *line; line = next_line(line))
        if (strncmp(line, "nothing goes: ", 14) != 0 && !has_line(before, line))
            fail_msg("there was nothing to delete: %.100s", line);
}

/* What a dry run says in addition. */
static void cut_keep_lines(struct buf *said)
{
    struct buf cut;

    buf_init(&cut, LIST_MAX);
    for (const char *line = said->p; line && *line; line = next_line(line))
        if (strncmp(line, "keep ", 5) != 0)
            buf_add(&cut, line, (size_t)(next_line(line) - line));
    buf_str(&cut, "");
    buf_release(said);
    *said = cut;
}

static void dry_run(struct model *m, int64_t grace_s, struct gc_report *r, struct buf *said)
{
    const struct gc_options o = {.dry_run = true, .grace_s = grace_s, .list = said};
    struct buf files, files_after, index, index_after;

    list_files(m, &files);
    life_dump(&m->f, &index);
    EXPECT_OK(store_gc(m->f.st, &o, r, &m->f.err), &m->f.err);
    list_files(m, &files_after);
    life_dump(&m->f, &index_after);
    EXPECT_STR(files_after.p, files.p);
    EXPECT_STR(index_after.p, index.p);
    buf_release(&files);
    buf_release(&files_after);
    buf_release(&index);
    buf_release(&index_after);
    cut_keep_lines(said);
}

static void collect(struct model *m)
{
    const int64_t grace_s = gen_below(&m->seed, 4) ? 0 : 3600;
    struct buf said, says, before, after;
    const struct gc_options o = {.grace_s = grace_s, .list = &says};
    struct gc_report would, did;

    buf_init(&said, LIST_MAX);
    buf_init(&says, LIST_MAX);
    dry_run(m, grace_s, &would, &said);
    list_files(m, &before);
    EXPECT_OK(store_gc(m->f.st, &o, &did, &m->f.err), &m->f.err);
    list_files(m, &after);
    buf_str(&says, "");
    EXPECT_STR(says.p, said.p);
    EXPECT_MEM(&did, &would, sizeof(did));
    expect_done(&said, &before, &after);
    if (grace_s == 0)
        forget_unreached(m);
    m->gcs++;
    m->deleting_gcs += did.packs_deleted + did.packs_rewritten + did.loose_deleted > 0;
    buf_release(&said);
    buf_release(&says);
    buf_release(&before);
    buf_release(&after);
}

/* A session is open all the while. */
static void collect_under_a_writer(struct model *m)
{
    struct session s;

    begin(m, &s);
    collect(m);
    finish(m, &s, true);
}

/* ---- lives --------------------------------------------------------------------------------------- */

static void rebuild(struct model *m)
{
    life_rebuild_is_equal(&m->f);
    for (int i = 0; i < LEASES; i++)
        m->leases[i].set = false; /* the index alone knew them */
}

static void step(struct model *m)
{
    struct compact_report packed;
    const size_t what = gen_below(&m->seed, 24);
    struct session s;

    if (what < 9) {
        begin(m, &s);
        finish(m, &s, false);
    } else if (what < 13) {
        change_ref(m);
    } else if (what < 15) {
        change_lease(m);
    } else if (what < 19) {
        collect(m);
    } else if (what < 21) {
        collect_under_a_writer(m);
    } else if (what < 22) {
        EXPECT_OK(store_compact(m->f.st, NULL, &packed, &m->f.err), &m->f.err);
    } else if (what < 23) {
        forge_open(&m->f, STORE_WRITE);
    } else {
        rebuild(m);
    }
    check_all(m);
}

static void live(uint64_t seed, int sums[3])
{
    struct model *m = mem_zero(1, sizeof(*m));

    print_message("seed %llu\n", (unsigned long long)seed);
    m->seed = seed;
    forge_new(&m->f);
    for (int i = 0; i < STEPS; i++)
        step(m);
    life_fsck_clean(&m->f);
    sums[0] += m->gcs;
    sums[1] += m->deleting_gcs;
    sums[2] += m->refused;
    for (size_t i = 0; i < m->n; i++)
        free(m->v[i].p);
    forge_free(&m->f);
    free(m);
}

TEST(gc_keeps_what_is_reached_and_does_what_it_said)
{
    const int64_t one = setting("WEIR_SEED", 0), cases = setting("WEIR_CASES", CASES);
    int sums[3] = {0};

    if (one) {
        live((uint64_t)one, sums);
        return;
    }
    for (int64_t seed = 1; seed <= cases; seed++)
        live((uint64_t)seed, sums);
    print_message("%d gcs, %d of them deleted, %d sessions had to start over\n", sums[0], sums[1],
                  sums[2]);
    EXPECT(cases < CASES || (sums[1] > 20 && sums[2] > 3)); /* else it has shown little */
}

RUN(gc_keeps_what_is_reached_and_does_what_it_said)
