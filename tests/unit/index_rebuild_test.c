/* Rebuilding the index, and what it answers when bits flip. */
#include <signal.h>
#include <sys/wait.h>

#include "store/index_internal.h"
#include "tests/index_rig.h"

struct fixture {
    struct rig r;
    struct index *ix;
    struct err err;
};

static void reopen(struct fixture *f)
{
    index_close(f->ix);
    f->ix = NULL;
    EXPECT_OK(index_open(f->r.index, INDEX_WRITE, &f->ix, &f->err), &f->err);
}

static void fixture_new(struct fixture *f)
{
    *f = (struct fixture){0};
    rig_new(&f->r);
    reopen(f);
}

static void fixture_free(struct fixture *f)
{
    index_close(f->ix);
    rig_close(&f->r);
}

/* ---- rebuild ---- */

TEST(rebuild_replaces_the_index)
{
    struct fixture f;
    struct rebuild_report report;
    struct digest name;
    struct err err = ERR_INIT;
    char *before, *after;
    int64_t touched;

    fixture_new(&f);
    name = rig_pack_all_types(&f.r, 100);
    rig_loose_file(&f.r, rig_id(106), 16);
    EXPECT_OK(rig_commit(&f.r, f.ix, &name, 1, &f.err), &f.err);
    rig_loose_file(&f.r, rig_id(107), 1 << 21);
    before = rig_dump(&f.r, f.ix);
    index_close(f.ix);
    f.ix = NULL;
    EXPECT_OK(index_rebuild(f.r.index, f.r.packs, f.r.loose, &report, &err), &err);
    EXPECT_EQ(report.packs, 1);
    EXPECT_EQ(report.damaged_packs, 0);
    EXPECT_EQ(report.objects, 8);
    EXPECT_EQ(report.actions, 1);
    EXPECT_EQ(report.refs, 1);
    buf_release(&report.problems);
    reopen(&f);
    after = rig_dump(&f.r, f.ix);
    EXPECT_STR(before, after);
    EXPECT_OK(index_touch_all(f.ix, &touched, &err), &err);
    EXPECT(touched > 0);
    EXPECT_EQ(rig_files(f.r.objects), 5); /* dump index loose packs tmp: nothing is left aside */
    /* It is an index like any other. */
    name = rig_pack_blobs(&f.r, 300, 10);
    EXPECT_OK(rig_commit(&f.r, f.ix, &name, 1, &f.err), &f.err);
    rig_same_as_rebuilt(&f.r, f.ix);
    free(before);
    free(after);
    fixture_free(&f);
}

/* With little memory the packs are read in several passes, each over a part of the ids. */
TEST(rebuild_in_many_passes)
{
    struct fixture f;
    char *one, *many;

    fixture_new(&f);
    for (uint64_t i = 0; i < 4; i++) {
        rig_pack_blobs(&f.r, 30 * i, 50);
        rig_pack_all_types(&f.r, 1000 + 100 * i);
        rig_loose_file(&f.r, rig_id(1006 + 100 * i), 16);
    }
    one = rig_rebuilt(&f.r);
    EXPECT_EQ(setenv("WEIR_INDEX_BATCH", "7", 1), 0);
    many = rig_rebuilt(&f.r);
    EXPECT_EQ(unsetenv("WEIR_INDEX_BATCH"), 0);
    rig_same_lines(many, one);
    free(one);
    free(many);
    fixture_free(&f);
}

TEST(rebuild_passes_over_what_is_damaged)
{
    struct fixture f;
    struct rebuild_report report;
    struct digest bad, ok;
    char hex[DIGEST_HEX + 1];
    struct err err = ERR_INIT;
    int fd = -1;

    fixture_new(&f);
    index_close(f.ix);
    f.ix = NULL;
    bad = rig_pack_all_types(&f.r, 100);
    ok = rig_pack_all_types(&f.r, 200);
    rig_loose_file(&f.r, rig_id(206), 16);
    rig_loose_file(&f.r, rig_id(207), 1 << 20); /* short: as good as absent */
    digest_hex(&bad, hex);
    EXPECT_EQ(fchmodat(f.r.packs, hex, 0644, 0), 0);
    EXPECT_OK(os_open(f.r.packs, hex, O_RDWR, 0, &fd, &err), &err);
    EXPECT_OK(os_pwrite(fd, "x", 1, 1500, &err), &err); /* somewhere in the toc */
    os_close_quiet(&fd);
    /* And in the other pack the payload of the bind. */
    struct pack *p;
    const struct pack_entry *toc;
    size_t n;
    EXPECT_OK(pack_open(f.r.packs, &ok, &p, &err), &err);
    EXPECT_OK(pack_toc(p, &toc, &n, &err), &err);
    digest_hex(&ok, hex);
    EXPECT_EQ(fchmodat(f.r.packs, hex, 0644, 0), 0);
    EXPECT_OK(os_open(f.r.packs, hex, O_RDWR, 0, &fd, &err), &err);
    for (size_t i = 0; i < n; i++)
        if (toc[i].type == REC_BIND)
            EXPECT_OK(os_pwrite(fd, "x", 1, toc[i].off + PACK_RECORD_HEADER, &err), &err);
    os_close_quiet(&fd);
    pack_close(p);

    EXPECT_OK(index_rebuild(f.r.index, f.r.packs, f.r.loose, &report, &err), &err);
    EXPECT_EQ(report.packs, 1);
    EXPECT_EQ(report.damaged_packs, 1);
    EXPECT_EQ(report.actions, 0);
    EXPECT_EQ(report.refs, 1);
    size_t lines = 0;
    for (size_t i = 0; i < report.problems.n; i++)
        lines += report.problems.p[i] == '\n';
    EXPECT_EQ(lines, 2);
    buf_release(&report.problems);
    reopen(&f);
    EXPECT_EQ(rig_get(f.ix, rig_id(200)).type, LOC_BLOB);
    EXPECT_EQ(rig_get(f.ix, rig_id(206)).type, LOC_LOOSE);
    EXPECT_EQ(rig_get(f.ix, rig_id(207)).type, 0);
    EXPECT_EQ(rig_get(f.ix, rig_id(100)).type, 0);
    /* sync agrees with rebuild about what counts. */
    fixture_free(&f);
}

TEST(rebuild_waits_for_nobody)
{
    struct fixture f;
    struct rebuild_report report;
    struct err err = ERR_INIT;
    int to[2], from[2], status;
    char c = 0;

    fixture_new(&f);
    index_close(f.ix);
    f.ix = NULL;
    EXPECT_EQ(pipe(to), 0);
    EXPECT_EQ(pipe(from), 0);
    const pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        struct index *ix;

        if (index_open(f.r.index, INDEX_READ, &ix, &err) != OK || write(from[1], "o", 1) != 1 ||
            read(to[0], &c, 1) != 1)
            _exit(1);
        index_close(ix);
        _exit(0);
    }
    EXPECT_EQ(read(from[0], &c, 1), 1);
    EXPECT_ERR(index_rebuild(f.r.index, f.r.packs, f.r.loose, &report, &err), ERR_AGAIN, &err);
    buf_release(&report.problems);
    EXPECT_EQ(write(to[1], "c", 1), 1);
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_OK(index_rebuild(f.r.index, f.r.packs, f.r.loose, &report, &err), &err);
    buf_release(&report.problems);
    close(to[0]);
    close(to[1]);
    close(from[0]);
    close(from[1]);
    fixture_free(&f);
}

/* ---- damage ---- */

#define FLIP_OBJECTS 200
#define FLIPS 1500

/* What a question may answer on a damaged index: the truth, absence or an error, never something
 * else. */
static int ask_everything(const char *dir, const struct loc *truth, const struct digest *result)
{
    struct digest ids[FLIP_OBJECTS], key = rig_id(9000), got;
    struct loc locs[FLIP_OBJECTS];
    struct err err = ERR_INIT;
    struct index *ix;
    struct ref_row ref;
    int64_t stamp;

    alarm(10);
    if (index_open(dir, INDEX_READ, &ix, &err) != OK)
        return 0;
    for (uint64_t i = 0; i < FLIP_OBJECTS; i++) {
        ids[i] = rig_id(i);
        const enum err_code rc = index_get(ix, &ids[i], 1, &locs[i], &err);

        if (rc != OK)
            continue;
        if (locs[i].type != 0 && memcmp(&locs[i], &truth[i], sizeof(locs[i])) != 0)
            return 1;
    }
    if (index_action(ix, &key, &got, &stamp, &err) == OK && !digest_eq(&got, result))
        return 2;
    if (index_ref(ix, STR("ref"), &ref, &err) == OK && !digest_eq(&ref.digest, result))
        return 3;
    index_close(ix);
    return 0;
}

TEST(a_flipped_bit_never_gives_a_wrong_answer)
{
    struct fixture f;
    struct loc truth[FLIP_OBJECTS];
    const struct digest result = rig_id(3);
    struct pack_writer *w;
    struct digest name;
    char data[TMPDIR_MAX + 64];
    struct stat st;
    uint64_t seed = 20240607;
    int fd = -1, errors[4] = {0};

    fixture_new(&f);
    w = rig_writer(&f.r);
    for (uint64_t i = 0; i < FLIP_OBJECTS; i++)
        EXPECT_OK(rig_blob(w, rig_id(i), &i, 8, 0, &f.err), &f.err);
    EXPECT_OK(rig_bind(w, rig_id(9000), result, 5, &f.err), &f.err);
    EXPECT_OK(rig_ref(w, "ref", result, 1, 5, &f.err), &f.err);
    name = rig_seal(&f.r, w);
    EXPECT_OK(rig_commit(&f.r, f.ix, &name, 1, &f.err), &f.err);
    memset(truth, 0, sizeof(truth));
    for (uint64_t i = 0; i < FLIP_OBJECTS; i++)
        truth[i] = rig_get(f.ix, rig_id(i));
    index_close(f.ix);
    f.ix = NULL;
    snprintf(data, sizeof(data), "%s/data.mdb", f.r.index);
    EXPECT_OK(os_open(AT_FDCWD, data, O_RDWR, 0, &fd, &f.err), &f.err);
    EXPECT_OK(os_stat(fd, &st, &f.err), &f.err);
    for (int i = 0; i < FLIPS; i++) {
        const int64_t at = (int64_t)gen_below(&seed, (size_t)st.st_size);
        uint8_t byte, flipped;
        int status;

        EXPECT_OK(os_pread_all(fd, &byte, 1, at, &f.err), &f.err);
        flipped = (uint8_t)(byte ^ 1 << gen_below(&seed, 8));
        EXPECT_OK(os_pwrite(fd, &flipped, 1, at, &f.err), &f.err);
        const pid_t child = fork();
        EXPECT(child >= 0);
        if (child == 0) {
            const struct {
                int number;
            } fatal[] = {{SIGSEGV}, {SIGBUS}, {SIGABRT}, {SIGFPE}};

            /* LMDB may crash on such pages, which is an answer; a sanitizer's report about it is
             * noise. */
            for (size_t s = 0; s < 4; s++)
                signal(fatal[s].number, SIG_DFL);
            if (!freopen("/dev/null", "w", stderr))
                _exit(9);
            _exit(ask_everything(f.r.index, truth, &result));
        }
        EXPECT_EQ(waitpid(child, &status, 0), child);
        if (WIFEXITED(status) && WEXITSTATUS(status) < 4)
            errors[WEXITSTATUS(status)]++;
        if (WIFEXITED(status) &&
            (WEXITSTATUS(status) == 1 || WEXITSTATUS(status) == 2 || WEXITSTATUS(status) == 3))
            print_error("flip at %lld: %d\n", (long long)at, WEXITSTATUS(status));
        EXPECT_OK(os_pwrite(fd, &byte, 1, at, &f.err), &f.err);
    }
    EXPECT_EQ(errors[1] + errors[2] + errors[3], 0);
    os_close_quiet(&fd);
    reopen(&f);
    EXPECT_EQ(rig_get(f.ix, rig_id(1)).type, LOC_BLOB);
    fixture_free(&f);
}

/* Rows themselves, without LMDB's pages in between. */
TEST(rows_check_themselves)
{
    uint8_t key[4] = "key", full[16] = {0};
    MDB_val k = {4, key}, v = {12, full};
    const uint8_t *out;
    struct err err = ERR_INIT;

    /* packname rows are 8 bytes; a checksum of another table does not do. */
    const uint8_t seed = DB_PACKNAME;
    le32_put(full + 8, crc32c(crc32c(crc32c(0, &seed, 1), key, 4), full, 8));
    EXPECT_OK(row_check(DB_PACKNAME, &k, &v, &out, &err), &err);
    EXPECT_ERR(row_check(DB_GONE, &k, &v, &out, &err), ERR_DAMAGED, &err);
    for (size_t i = 0; i < 12 * 8; i++) {
        full[i / 8] = (uint8_t)(full[i / 8] ^ 1 << i % 8);
        EXPECT_ERR(row_check(DB_PACKNAME, &k, &v, &out, &err), ERR_DAMAGED, &err);
        full[i / 8] = (uint8_t)(full[i / 8] ^ 1 << i % 8);
    }
    for (size_t i = 0; i < 4 * 8; i++) {
        key[i / 8] = (uint8_t)(key[i / 8] ^ 1 << i % 8);
        EXPECT_ERR(row_check(DB_PACKNAME, &k, &v, &out, &err), ERR_DAMAGED, &err);
        key[i / 8] = (uint8_t)(key[i / 8] ^ 1 << i % 8);
    }
    v.mv_size = 11;
    EXPECT_ERR(row_check(DB_PACKNAME, &k, &v, &out, &err), ERR_DAMAGED, &err);
}

RUN(rebuild_replaces_the_index, rebuild_in_many_passes, rebuild_passes_over_what_is_damaged,
    rebuild_waits_for_nobody, a_flipped_bit_never_gives_a_wrong_answer, rows_check_themselves)
