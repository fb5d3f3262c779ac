/* Writers, a gc, a compaction, a push and readers at work on one store at the same time, each killed again and again at any moment: what
 * was committed is there, whole, nobody has to repair anything, and the remote has no name that points at nothing.
 *
 * Each writer owns some ref names.  Before it sets one it says so through a pipe, and again when the commit has returned; so after a
 * kill the name must be as it was last confirmed, or as was intended since.  Who reads or pushes may find something gone only when its
 * name was changed meanwhile.  The seed is printed; WEIR_KILLS and WEIR_SEED change the run, WEIR_LONG asks for 1000 kills. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "store/idset.h"
#include "store/transfer.h"
#include "tests/store_life.h"

#define WRITERS 3
#define CHILDREN (WRITERS + 4) /* a gc, a compaction, a push, a reader */
#define NAMES 8
#define KILLS_DEFAULT 150
#define KILLS_LONG 1000
#define ROUND 25 /* kills between two verifications */
#define RETRIES 200
#define BIG_BYTES 1150000
#define REMOTE "far" /* below the store's folder */

enum note_kind { NOTE_INTENDED, NOTE_DONE, NOTE_WORKED };
struct note {
    enum note_kind kind;
    int writer, name;     /* writer: for NOTE_WORKED, which child */
    struct digest digest; /* zero: removed */
};

static int64_t setting(const char *name, int64_t otherwise)
{
    const char *text = getenv(name);
    struct err err = ERR_INIT;
    int64_t v;

    return text && str_to_i64(str_of(text), 0, INT64_MAX, &v, &err) == OK ? v : otherwise;
}

/* ---- children ------------------------------------------------------------------------------------ */

static void ref_name(int writer, int name, char out[32])
{
    snprintf(out, 32, "w%d/%d", writer, name);
}

static void tell(int pipe_fd, const struct note *n)
{
    if (write(pipe_fd, n, sizeof(*n)) != sizeof(*n))
        _exit(3);
}

static void give_up(const char *what, const struct err *err)
{
    fprintf(stderr, "%s: %s\n", what, err->text);
    _exit(2);
}

/* One file of more than LOOSE_MIN_BYTES, or a directory of small ones. */
static enum err_code put_something(struct writer *w, uint64_t *seed, enum obj_kind *kind,
                                   struct digest *out, struct err *err)
{
    const uint64_t which =
        gen_below(seed, 40); /* so that the same objects come back from the dead */
    const int count = 1 + (int)gen_below(seed, 12);
    const size_t size = 50 + gen_below(seed, 3000);
    struct tree t;
    struct buf text;
    char *bytes = mem_alloc(BIG_BYTES + 4096);
    enum err_code rc = OK;

    if (gen_below(seed, 8) == 0) {
        uint64_t s = 900 + which % 5;
        int fd = memfd_create("big", MFD_CLOEXEC);
        int64_t n;

        gen_noise(&s, bytes, BIG_BYTES);
        rc = fd < 0 ? err_sys(err, errno, "make a file in memory") : OK;
        if (!rc)
            rc = os_write(fd, bytes, BIG_BYTES, err);
        if (!rc)
            rc = writer_put_file(w, fd, "big", out, &n, err);
        os_close_quiet(&fd);
        free(bytes);
        *kind = OBJ_BLOB;
        return rc;
    }
    tree_init(&t);
    buf_init(&text, 1 << 20);
    for (int i = 0; !rc && i < count; i++) {
        struct tree_entry e = {.mode = TREE_FILE, .size = (int64_t)size};
        char name[16];

        life_text(which * 3 + (uint64_t)i, bytes, size);
        rc = writer_put(w, OBJ_BLOB, bytes, size, &e.digest, err);
        snprintf(name, sizeof(name), "f%d", i);
        e.name = str_of(name);
        if (!rc)
            rc = tree_add(&t, &e, 0, err);
    }
    if (!rc)
        rc = tree_encode(&t, &text, err);
    if (!rc)
        rc = writer_put(w, OBJ_TREE, text.p, text.n, out, err);
    *kind = OBJ_TREE;
    tree_release(&t);
    buf_release(&text);
    free(bytes);
    return rc;
}

static enum err_code change(struct store *st, int writer, int name, uint64_t seed, int out,
                            struct err *err)
{
    struct note n = {.writer = writer, .name = name};
    struct writer *w = NULL;
    enum obj_kind kind = OBJ_NONE;
    char ref[32];
    enum err_code rc;

    ref_name(writer, name, ref);
    rc = writer_open(st, &w, err);
    if (!rc && gen_below(&seed, 4) > 0)
        rc = put_something(w, &seed, &kind, &n.digest, err);
    if (!rc)
        rc = writer_ref(w, str_of(ref), kind, &n.digest, err);
    if (!rc) {
        tell(out, &n);
        rc = writer_commit(w, err);
    }
    writer_release(w);
    if (!rc) {
        n.kind = NOTE_DONE;
        tell(out, &n);
    }
    return rc;
}

__attribute__((noreturn)) static void run_writer(const char *dir, int writer, uint64_t seed,
                                                 int out)
{
    for (;;) {
        struct err err = ERR_INIT;
        struct store *st = NULL;
        enum err_code rc = store_open(dir, STORE_WRITE, &st, &err);

        for (int i = 0; !rc && i < 10; i++) {
            const int name = (int)gen_below(&seed, NAMES);
            const uint64_t s = gen_u64(&seed);
            int tries = 0;

            do {
                err = (struct err)ERR_INIT;
                rc = change(st, writer, name, s, out, &err);
            } while (rc == ERR_CHANGED && ++tries < RETRIES);
        }
        if (rc && rc != ERR_AGAIN)
            give_up("writer", &err);
        store_close(st);
    }
}

static enum err_code collect(struct store *st, struct err *err)
{
    const struct gc_options o = {.grace_s = 0};
    struct gc_report r;

    return store_gc(st, &o, &r, err);
}

static enum err_code pack(struct store *st, struct err *err)
{
    struct compact_report r;

    return store_compact(st, NULL, &r, err);
}

/* A push keeps nothing alive: with no grace, what a name led to when it began may be gone before its end. */
static enum err_code push(struct store *st, struct err *err)
{
    const struct transfer_options o = {0};
    struct transfer_report r;
    char remote[4096];
    enum err_code rc;

    snprintf(remote, sizeof(remote), "%s/" REMOTE, st->root);
    rc = store_push(st, remote, &o, &r, err);
    return rc == ERR_NOT_FOUND || rc == ERR_CHANGED ? ERR_AGAIN : rc;
}

static enum err_code read_all(struct store *st, enum obj_kind kind, const struct digest *id,
                              struct err *err)
{
    struct buf bytes;
    struct tree t;
    enum err_code rc;

    tree_init(&t);
    buf_init(&bytes, TREE_BYTES_MAX);
    rc = object_read(st, id, TREE_BYTES_MAX, &bytes, err);
    if (!rc && kind == OBJ_TREE)
        rc = tree_decode(bytes.p ? bytes.p : "", bytes.n, -1, "tree", &t, err);
    for (size_t i = 0; !rc && i < t.count; i++)
        rc = read_all(st, t.entries[i].mode == TREE_DIR ? OBJ_TREE : OBJ_BLOB, &t.entries[i].digest,
                      err);
    tree_release(&t);
    buf_release(&bytes);
    return rc;
}

/* What every name leads to; gone is right only where the name has changed. */
static enum err_code read_refs(struct store *st, struct err *err)
{
    struct ref_row *rows = NULL, now = {0};
    size_t n = 0;
    enum err_code rc = index_refs(st->index, STR(""), REF_LIVE, &rows, &n, err);

    for (size_t i = 0; !rc && i < n; i++) {
        struct err ignored = ERR_INIT;

        rc = read_all(st, rows[i].kind, &rows[i].digest, err);
        if (rc == ERR_NOT_FOUND && (index_ref(st->index, str_of(rows[i].name), &now, &ignored) ||
                                    now.stamp != rows[i].stamp))
            rc = OK;
    }
    free(rows);
    return rc;
}

struct role {
    const char *name;
    enum store_mode mode;
    enum err_code (*work)(struct store *st, struct err *err);
};
static const struct role roles[CHILDREN - WRITERS] = {
    {"collector", STORE_WRITE, collect},
    {"packer", STORE_WRITE, pack},
    {"pusher", STORE_WRITE, push},
    {"reader", STORE_READ, read_refs},
};

__attribute__((noreturn)) static void run_role(const char *dir, int child, int out)
{
    const struct role *role = &roles[child - WRITERS];

    for (;;) {
        const struct note n = {.kind = NOTE_WORKED, .writer = child};
        struct err err = ERR_INIT;
        struct store *st = NULL;
        enum err_code rc = store_open(dir, role->mode, &st, &err);

        if (!rc)
            rc = role->work(st, &err);
        if (rc && rc != ERR_AGAIN)
            give_up(role->name, &err);
        store_close(st);
        if (!rc)
            tell(out, &n);
    }
}

/* ---- the parent ---------------------------------------------------------------------------------- */

struct name_state {
    struct digest confirmed;
    struct idlist
        intended; /* since then: each may have happened, its writer being killed before it could say so */
};
struct scene {
    struct forge f; /* closed while children run: LMDB forbids a fork with an open index */
    pid_t children[CHILDREN];
    int pipes[2];
    uint64_t seed;
    int64_t commits, worked[CHILDREN];
    struct name_state names[WRITERS][NAMES];
};

static void start(struct scene *s, int i)
{
    const uint64_t seed = gen_u64(&s->seed);

    s->children[i] = fork();
    EXPECT(s->children[i] >= 0);
    if (s->children[i] > 0)
        return;
    if (i < WRITERS)
        run_writer(s->f.dir, i, seed, s->pipes[1]);
    run_role(s->f.dir, i, s->pipes[1]);
}

static void stop(struct scene *s, int i)
{
    int status;

    EXPECT_EQ(kill(s->children[i], SIGKILL), 0);
    EXPECT_EQ(waitpid(s->children[i], &status, 0), s->children[i]);
    EXPECT(WIFSIGNALED(status)); /* else it gave up, and has said why */
}

static void listen(struct scene *s)
{
    struct pollfd p = {.fd = s->pipes[0], .events = POLLIN};
    struct note n;

    while (poll(&p, 1, 0) > 0) {
        struct name_state *name;

        EXPECT_EQ(read(s->pipes[0], &n, sizeof(n)), sizeof(n));
        s->worked[n.writer]++;
        if (n.kind == NOTE_WORKED)
            continue;
        name = &s->names[n.writer][n.name];
        if (n.kind == NOTE_DONE) {
            name->confirmed = n.digest;
            name->intended.n = 0;
            s->commits++;
        } else {
            idlist_add(&name->intended, &n.digest);
        }
    }
}

static void verify_names(struct scene *s)
{
    for (int w = 0; w < WRITERS; w++)
        for (int i = 0; i < NAMES; i++) {
            struct name_state *name = &s->names[w][i];
            struct err err = ERR_INIT;
            struct ref_row row = {0};
            char ref[32];

            ref_name(w, i, ref);
            if (index_ref(s->f.st->index, str_of(ref), &row, &err) != OK || row.kind == OBJ_NONE)
                row.digest = (struct digest){{0}};
            idlist_sort(&name->intended);
            if (!digest_eq(&row.digest, &name->confirmed) &&
                !idlist_has(&name->intended, &row.digest))
                fail_msg("ref %s is not what was committed", ref);
            name->confirmed = row.digest;
            name->intended.n = 0;
        }
}

/* Whatever names the remote has: all of them arrive in an empty store, whole. */
static void verify_remote(struct scene *s)
{
    const struct transfer_options o = {0};
    struct transfer_report r;
    char remote[4096];
    struct forge f;

    snprintf(remote, sizeof(remote), "%s/" REMOTE, s->f.st->root);
    if (access(remote, F_OK) != 0)
        return;
    forge_new(&f);
    EXPECT_OK(store_pull(f.st, remote, &o, &r, &f.err), &f.err);
    life_check(&f);
    forge_free(&f);
    /* What was pushed stays there: a fresh one each time keeps the time of a round from growing. */
    EXPECT_OK(os_remove_tree(AT_FDCWD, remote, &s->f.err), &s->f.err);
}

static void verify(struct scene *s)
{
    listen(s);
    forge_open(&s->f, STORE_WRITE);
    verify_names(s);
    life_check(&s->f);
    life_fsck_clean(&s->f);
    verify_remote(s);
    store_close(s->f.st);
    s->f.st = NULL;
}

static void pause_ms(int64_t ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

TEST(nothing_committed_is_lost)
{
    const int kills = (int)setting("WEIR_KILLS", getenv("WEIR_LONG") ? KILLS_LONG : KILLS_DEFAULT);
    struct scene s = {.seed = (uint64_t)setting("WEIR_SEED", (int64_t)time(NULL))};

    print_message("seed %llu, %d kills\n", (unsigned long long)s.seed, kills);
    forge_new(&s.f);
    store_close(s.f.st);
    s.f.st = NULL;
    EXPECT_EQ(pipe2(s.pipes, O_CLOEXEC), 0);
    for (int done = 0; done < kills;) {
        for (int i = 0; i < CHILDREN; i++)
            start(&s, i);
        for (int i = 0; i < ROUND && done < kills; i++, done++) {
            const int victim = (int)gen_below(&s.seed, CHILDREN);

            pause_ms((int64_t)gen_below(&s.seed, 60));
            listen(&s);
            stop(&s, victim);
            listen(&s);
            start(&s, victim);
        }
        for (int i = 0; i < CHILDREN; i++)
            stop(&s, i);
        verify(&s);
    }
    print_message("%lld commits were confirmed\n", (long long)s.commits);
    EXPECT(s.commits > kills / 2); /* else it has shown little */
    for (int i = 0; i < CHILDREN - WRITERS; i++) {
        print_message("%s: %lld\n", roles[i].name, (long long)s.worked[WRITERS + i]);
        EXPECT(kills < KILLS_DEFAULT || s.worked[WRITERS + i] > 0);
    }
    for (int i = 0; i < WRITERS * NAMES; i++)
        idlist_release(&s.names[i / NAMES][i % NAMES].intended);
    close(s.pipes[0]);
    close(s.pipes[1]);
    forge_free(&s.f);
}

RUN(nothing_committed_is_lost)
