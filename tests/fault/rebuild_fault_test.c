/* A rebuild of the index, with each of its fallible calls failing once: the old index is still there, or the new one is, and nothing
 * else is left behind. */
#include "tests/store_life.h"

static void lay_out(struct forge *f)
{
    static const size_t cut[] = {3000, 5000};
    struct digest a;
    char noise[8000];
    uint64_t seed = 4;

    forge_new(f);
    gen_noise(&seed, noise, sizeof(noise));
    forge_begin(f);
    a = forge_loose(f, noise, 8000, cut, 2);
    forge_ref(f, "a", OBJ_BLOB, &a);
    forge_bind(f, &(struct digest){{1}}, &a);
    forge_commit(f);
    life_tree(f, "tree", 200, 5, 100);
    life_tree(f, NULL, 300, 5, 100);
}

static enum err_code rebuild(struct forge *f)
{
    struct rebuild_report report;
    struct buf path;
    enum err_code rc;

    buf_init(&path, 4096);
    buf_printf(&path, "%s/index", f->st->root);
    rc = index_rebuild(path.p, f->st->packs, f->st->loose, &report, &f->err);
    buf_release(&report.problems);
    buf_release(&path);
    return rc;
}

/* old: may the index be missing? */
static void sweep(bool old)
{
    struct buf before, after;
    bool fired = true;
    struct forge f;
    int n = 0, names;

    lay_out(&f);
    life_dump(&f, &before);
    index_close(f.st->index);
    f.st->index = NULL;
    names = 0;
    for (; fired; n++) {
        struct buf path;
        enum err_code rc;
        int root = -1;

        buf_init(&path, 4096);
        buf_printf(&path, "%s/index", f.st->root);
        if (!old)
            EXPECT_OK(os_remove_tree(AT_FDCWD, path.p, &f.err), &f.err);
        fault_arm(n);
        rc = rebuild(&f);
        fired = fault_disarm();
        if (!fired)
            EXPECT_OK(rc, &f.err);
        f.err = (struct err)ERR_INIT;
        EXPECT_OK(os_open_dir(AT_FDCWD, f.st->root, &root, &f.err), &f.err);
        forge_open(&f, STORE_WRITE);
        life_check(&f);
        life_dump(&f, &after);
        EXPECT_STR(before.p, after.p);
        buf_release(&after);
        index_close(f.st->index);
        f.st->index = NULL;
        if (!fired)
            names = forge_count_names(&f, root);
        os_close_quiet(&root);
        buf_release(&path);
    }
    EXPECT(names <= 7); /* config.yaml format index locks objects */
    print_message("%d calls\n", n - 1);
    EXPECT(n > 20);
    buf_release(&before);
    forge_free(&f);
}

TEST(any_single_fault_over_an_old_index)
{
    sweep(true);
}

TEST(any_single_fault_without_an_index)
{
    sweep(false);
}

RUN(any_single_fault_over_an_old_index, any_single_fault_without_an_index)
