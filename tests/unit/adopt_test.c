#include <pthread.h>
#include <stdatomic.h>

#include "store/writer_internal.h"
#include "tests/writer_rig.h"

#define LARGE ((size_t)3 << 20)

static enum err_code adopt(struct forge *f, struct writer *w, const char *name, struct digest *id)
{
    char path[RIG_PATH];
    enum err_code rc;
    int64_t size;
    int dir = -1;

    rig_path(f, name, path);
    EXPECT_OK(os_open_dir(AT_FDCWD, f->dir, &dir, &f->err), &f->err);
    rc = writer_adopt_file(w, dir, name, path, id, &size, &f->err);
    os_close_quiet(&dir); /* it must not be needed at the commit */
    return rc;
}

static struct stat stat_of(struct forge *f, const char *name)
{
    char path[RIG_PATH];
    struct stat st;

    rig_path(f, name, path);
    EXPECT_EQ(lstat(path, &st), 0);
    return st;
}

static ino_t loose_inode(struct forge *f, const struct digest *id)
{
    char name[LOOSE_NAME];
    struct stat st;

    loose_name(id, name);
    EXPECT_EQ(fstatat(f->st->loose, name, &st, 0), 0);
    EXPECT_EQ(st.st_mode & 07777, 0444);
    EXPECT_EQ(st.st_nlink, 1);
    return st.st_ino;
}

TEST(a_large_file_moves_in_without_a_copy)
{
    uint8_t *p = rig_noise(1, LARGE);
    struct digest id;
    struct forge f;

    forge_new(&f);
    rig_write(&f, "f", p, LARGE);

    const int fds = forge_fd_count();
    const struct stat before = stat_of(&f, "f");
    struct writer *w = rig_writer(&f);

    EXPECT_OK(adopt(&f, w, "f", &id), &f.err);
    EXPECT(rig_there(&f, "f")); /* until the commit */
    EXPECT_OK(writer_commit(w, &f.err), &f.err);
    EXPECT(!rig_there(&f, "f"));
    writer_release(w);
    EXPECT_EQ(forge_fd_count(), fds);
    rig_check(&f);
    EXPECT_EQ(loose_inode(&f, &id), before.st_ino);
    EXPECT_EQ(rig_where(&f, &id), LOC_LOOSE);
    rig_expect_object(&f, &id, p, LARGE);
    EXPECT_EQ(forge_count_names(&f, f.st->tmp), 0);
    free(p);
    forge_free(&f);
}

TEST(a_known_file_only_goes_away)
{
    uint8_t *p = rig_noise(2, LARGE);
    struct digest id;
    struct forge f;
    ino_t first = 0;

    forge_new(&f);
    for (int round = 0; round < 2; round++) {
        struct writer *w = rig_writer(&f);

        rig_write(&f, "f", p, LARGE);
        EXPECT_OK(adopt(&f, w, "f", &id), &f.err);
        rig_commit(&f, w);
        writer_release(w);
        EXPECT(!rig_there(&f, "f"));
        if (round == 0)
            first = loose_inode(&f, &id);
    }
    EXPECT_EQ(loose_inode(&f, &id), first);
    free(p);
    forge_free(&f);
}

/* Small ones, and those with another name elsewhere, are copied; this name of theirs goes all the same. */
TEST(what_cannot_move_is_copied)
{
    uint8_t *p = rig_noise(3, LARGE);
    char a[RIG_PATH], b[RIG_PATH];
    struct digest id, small;
    struct forge f;

    forge_new(&f);
    rig_write(&f, "f", p, LARGE);
    rig_write(&f, "small", p, 700);
    rig_path(&f, "f", a);
    rig_path(&f, "other", b);
    EXPECT_EQ(link(a, b), 0);

    const struct stat before = stat_of(&f, "f");
    struct writer *w = rig_writer(&f);

    EXPECT_OK(adopt(&f, w, "f", &id), &f.err);
    EXPECT_OK(adopt(&f, w, "small", &small), &f.err);
    EXPECT(rig_there(&f, "f"));
    EXPECT(rig_there(&f, "small"));
    rig_commit(&f, w);
    writer_release(w);
    EXPECT(!rig_there(&f, "f"));
    EXPECT(!rig_there(&f, "small"));
    EXPECT(loose_inode(&f, &id) != before.st_ino);
    EXPECT_EQ(stat_of(&f, "other").st_mode, before.st_mode);
    EXPECT_EQ(stat_of(&f, "other").st_mtim.tv_sec, before.st_mtim.tv_sec);
    rig_expect_object(&f, &id, p, LARGE);
    rig_expect_object(&f, &small, p, 700);
    free(p);
    forge_free(&f);
}

TEST(a_file_that_is_open_for_writing_stays)
{
    uint8_t *p = rig_noise(4, LARGE);
    char path[RIG_PATH];
    struct digest id;
    struct forge f;
    int fd = -1;

    forge_new(&f);
    rig_write(&f, "f", p, LARGE);
    rig_write(&f, "small", p, 100);

    const struct stat before = stat_of(&f, "f");

    for (int i = 0; i < 2; i++) {
        const char *name = i ? "small" : "f";
        struct writer *w = rig_writer(&f);

        rig_path(&f, name, path);
        EXPECT_OK(os_open(AT_FDCWD, path, O_WRONLY, 0, &fd, &f.err), &f.err);
        EXPECT_ERR(adopt(&f, w, name, &id), ERR_CHANGED, &f.err);
        EXPECT(strstr(f.err.text, path) != NULL);
        EXPECT_EQ(forge_count_names(&f, f.st->tmp), 0);
        os_close_quiet(&fd);
        f.err = (struct err)ERR_INIT;
        rig_commit(&f, w); /* commits nothing */
        writer_release(w);
        EXPECT(rig_there(&f, name));
    }
    EXPECT_EQ(stat_of(&f, "f").st_mode, before.st_mode);
    free(p);
    forge_free(&f);
}

struct opener {
    char path[RIG_PATH];
    atomic_bool stop;
};

/* Somebody who wants to write, again and again, but does not wait for it. */
static void *open_often(void *arg)
{
    struct opener *o = arg;

    while (!atomic_load(&o->stop)) {
        const int fd = open(o->path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);

        if (fd >= 0)
            close(fd);
    }
    return NULL;
}

/* Whatever the moment in which a writer comes: the file has moved in, or it is where and as it was, also after a commit. */
TEST(a_writer_that_comes_meanwhile_is_noticed)
{
    enum { ROUNDS = 12 };
    const size_t n = (size_t)20 << 20;
    uint8_t *p = rig_noise(7, n);
    static struct opener o;
    int refused = 0;
    struct forge f;

    forge_new(&f);
    rig_path(&f, "f", o.path);
    for (int i = 0; i < ROUNDS; i++) {
        pthread_t thread;
        struct digest id;
        enum err_code rc;

        p[0] = (uint8_t)i;
        rig_write(&f, "f", p, n);
        EXPECT_EQ(chmod(o.path, 0640), 0);

        struct writer *w = rig_writer(&f);

        atomic_store(&o.stop, false);
        EXPECT_EQ(pthread_create(&thread, NULL, open_often, &o), 0);
        rc = adopt(&f, w, "f", &id);
        atomic_store(&o.stop, true);
        EXPECT_EQ(pthread_join(thread, NULL), 0);
        EXPECT(rc == OK || rc == ERR_CHANGED);
        refused += rc == ERR_CHANGED;
        f.err = (struct err)ERR_INIT;
        rig_commit(&f, w);
        writer_release(w);
        EXPECT_EQ(rig_there(&f, "f"), rc != OK);
        if (rc) {
            EXPECT_EQ(stat_of(&f, "f").st_mode & 07777, 0640);
            EXPECT_EQ(stat_of(&f, "f").st_nlink, 1);
            EXPECT_EQ(unlink(o.path), 0);
        } else {
            rig_expect_object(&f, &id, p, n);
        }
    }
    EXPECT(refused > 0);
    free(p);
    forge_free(&f);
}

TEST(giving_up_leaves_the_file_as_it_was)
{
    uint8_t *p = rig_noise(5, LARGE);
    char path[RIG_PATH];
    struct digest id;
    struct forge f;

    forge_new(&f);
    rig_write(&f, "f", p, LARGE);
    rig_path(&f, "f", path);
    EXPECT_EQ(chmod(path, 0751), 0);

    const struct stat before = stat_of(&f, "f");
    struct writer *w = rig_writer(&f);

    EXPECT_OK(adopt(&f, w, "f", &id), &f.err);
    writer_release(w);

    const struct stat after = stat_of(&f, "f");

    EXPECT_EQ(after.st_ino, before.st_ino);
    EXPECT_EQ(after.st_nlink, 1);
    EXPECT_EQ(after.st_mode, before.st_mode);
    EXPECT_EQ(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
    EXPECT_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
    EXPECT_EQ(forge_count_names(&f, f.st->tmp), 0);
    rig_check(&f);
    free(p);
    forge_free(&f);
}

/* Another file was put under the name between adopting and the commit: it is not ours to remove. */
TEST(another_file_under_the_name_stays)
{
    uint8_t *p = rig_noise(6, LARGE);
    char path[RIG_PATH];
    struct digest id;
    struct forge f;

    forge_new(&f);
    rig_write(&f, "f", p, LARGE);
    rig_path(&f, "f", path);

    struct writer *w = rig_writer(&f);

    EXPECT_OK(adopt(&f, w, "f", &id), &f.err);
    EXPECT_EQ(unlink(path), 0);
    rig_write(&f, "f", "new", 3);
    rig_commit(&f, w);
    writer_release(w);
    EXPECT_EQ(stat_of(&f, "f").st_size, 3);
    rig_expect_object(&f, &id, p, LARGE);
    free(p);
    forge_free(&f);
}

TEST(only_regular_files_move_in)
{
    char path[RIG_PATH];
    struct digest id;
    struct forge f;

    forge_new(&f);
    rig_mkdir(&f, "folder");
    rig_path(&f, "fifo", path);
    EXPECT_EQ(mkfifo(path, 0600), 0);
    rig_path(&f, "link", path);
    EXPECT_EQ(symlink("fifo", path), 0);

    struct writer *w = rig_writer(&f);

    EXPECT_ERR(adopt(&f, w, "folder", &id), ERR_INPUT, &f.err);
    EXPECT_ERR(adopt(&f, w, "fifo", &id), ERR_INPUT, &f.err);
    EXPECT(adopt(&f, w, "link", &id) != OK);
    EXPECT_ERR(adopt(&f, w, "absent", &id), ERR_NOT_FOUND, &f.err);
    writer_release(w);
    forge_free(&f);
}

RUN(a_large_file_moves_in_without_a_copy, a_known_file_only_goes_away, what_cannot_move_is_copied,
    a_file_that_is_open_for_writing_stays, a_writer_that_comes_meanwhile_is_noticed,
    giving_up_leaves_the_file_as_it_was, another_file_under_the_name_stays,
    only_regular_files_move_in)
