/* The dir remote and what a config or a path leads to. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"
#include "store/remote.h"
#include "tests/check.h"

#define KEY "packs/00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

struct fixture {
    char dir[TMPDIR_MAX], path[TMPDIR_MAX + 64], source[TMPDIR_MAX + 64];
    char name[8], type[8];
    struct remote_config config;
    struct remote *remote;
    struct err err;
};

static void setup(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    tmpdir_new(f->dir);
    snprintf(f->path, sizeof(f->path), "%s/remote", f->dir);
    snprintf(f->source, sizeof(f->source), "%s/source", f->dir);
    strcpy(f->name, "backup");
    strcpy(f->type, "dir");
    f->config = (struct remote_config){.name = f->name, .type = f->type, .url = f->path};
}

static void teardown(struct fixture *f)
{
    remote_close(f->remote);
    tmpdir_free(f->dir);
}

static int source(struct fixture *f, const char *text)
{
    int fd = open(f->source, O_RDWR | O_CREAT | O_TRUNC, 0644);

    EXPECT(fd >= 0);
    EXPECT_EQ(write(fd, text, strlen(text)), strlen(text));
    return fd;
}

static enum err_code put(struct fixture *f, const char *text)
{
    int fd = source(f, text);
    const enum err_code rc =
        f->remote->ops->put(f->remote, KEY, fd, (int64_t)strlen(text), &f->err);

    close(fd);
    return rc;
}

static size_t files_in(const struct fixture *f, const char *folder)
{
    char path[TMPDIR_MAX + 128];
    struct os_entry *entries = NULL;
    struct err err = ERR_INIT;
    size_t n = 0;
    int fd = -1;

    snprintf(path, sizeof(path), "%s/%s", f->path, folder);
    EXPECT_OK(os_open_dir(AT_FDCWD, path, &fd, &err), &err);
    EXPECT_OK(os_list(fd, &entries, &n, &err), &err);
    os_close_quiet(&fd);
    free(entries);
    return n;
}

TEST(puts_and_gets)
{
    struct fixture f;
    bool has = true;
    int64_t size = -1;
    char part[8] = {0};

    setup(&f);
    EXPECT_OK(remote_dir_ops.open(&f.config, true, &f.remote, &f.err), &f.err);
    EXPECT_OK(f.remote->ops->has(f.remote, KEY, &has, &size, &f.err), &f.err);
    EXPECT(!has);
    EXPECT_ERR(f.remote->ops->range(f.remote, KEY, part, 1, 0, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_OK(put(&f, "0123456789"), &f.err);
    EXPECT_OK(f.remote->ops->has(f.remote, KEY, &has, &size, &f.err), &f.err);
    EXPECT(has);
    EXPECT_EQ(size, 10);
    EXPECT_OK(f.remote->ops->range(f.remote, KEY, part, 4, 3, &f.err), &f.err);
    EXPECT_STR(part, "3456");
    EXPECT_ERR(f.remote->ops->range(f.remote, KEY, part, 4, 8, &f.err), ERR_DAMAGED, &f.err);

    int fd = source(&f, "");

    EXPECT_OK(f.remote->ops->get(f.remote, KEY, fd, &f.err), &f.err);
    EXPECT_EQ(lseek(fd, 0, SEEK_END), 10);
    close(fd);
    EXPECT_EQ(files_in(&f, "tmp"), 0);
    teardown(&f);
}

TEST(never_replaces)
{
    struct fixture f;
    char part[8] = {0};

    setup(&f);
    EXPECT_OK(remote_dir_ops.open(&f.config, true, &f.remote, &f.err), &f.err);
    EXPECT_OK(put(&f, "first"), &f.err);
    EXPECT_ERR(put(&f, "other"), ERR_EXISTS, &f.err);
    EXPECT_OK(f.remote->ops->range(f.remote, KEY, part, 5, 0, &f.err), &f.err);
    EXPECT_STR(part, "first");
    /* A file that was cut short by something else is neither accepted nor overwritten. */
    EXPECT_ERR(put(&f, "longer one"), ERR_DAMAGED, &f.err);
    EXPECT(strstr(f.err.text, KEY));
    EXPECT(strstr(f.err.text, f.path));
    EXPECT_EQ(files_in(&f, "tmp"), 0);
    teardown(&f);
}

static enum err_code count_key(void *arg, const char *key, int64_t size, struct err *err)
{
    (void)err;
    EXPECT_STR(key, KEY);
    EXPECT_EQ(size, 5);
    ++*(int *)arg;
    return OK;
}

TEST(lists_files_only)
{
    struct fixture f;
    char path[TMPDIR_MAX + 128];
    int seen = 0;

    setup(&f);
    EXPECT_OK(remote_dir_ops.open(&f.config, true, &f.remote, &f.err), &f.err);
    EXPECT_OK(put(&f, "first"), &f.err);
    snprintf(path, sizeof(path), "%s/packs/folder", f.path);
    EXPECT_EQ(mkdir(path, 0755), 0);
    snprintf(path, sizeof(path), "%s/packs/pipe", f.path);
    EXPECT_EQ(mkfifo(path, 0644), 0);
    snprintf(path, sizeof(path), "%s/packs/link", f.path);
    EXPECT_EQ(symlink("/etc/passwd", path), 0);
    EXPECT_OK(f.remote->ops->list(f.remote, "packs/", count_key, &seen, &f.err), &f.err);
    EXPECT_EQ(seen, 1);
    EXPECT_OK(f.remote->ops->list(f.remote, "packs/f", count_key, &seen, &f.err), &f.err);
    EXPECT_EQ(seen, 1);
    /* Nor does reading follow a link or wait for a pipe. */
    EXPECT(f.remote->ops->range(f.remote, "packs/link", path, 1, 0, &f.err) != OK);
    EXPECT_ERR(f.remote->ops->range(f.remote, "packs/pipe", path, 1, 0, &f.err), ERR_DAMAGED,
               &f.err);
    teardown(&f);
}

TEST(old_temporaries_go)
{
    struct fixture f;
    char old[TMPDIR_MAX + 128], young[TMPDIR_MAX + 128], foreign[TMPDIR_MAX + 128];
    const struct timespec long_ago[2] = {{.tv_sec = 1}, {.tv_sec = 1}};

    setup(&f);
    EXPECT_OK(remote_dir_ops.open(&f.config, true, &f.remote, &f.err), &f.err);
    remote_close(f.remote);
    f.remote = NULL;
    snprintf(old, sizeof(old), "%s/tmp/push-old", f.path);
    snprintf(young, sizeof(young), "%s/tmp/push-young", f.path);
    snprintf(foreign, sizeof(foreign), "%s/tmp/foreign", f.path);
    close(open(old, O_CREAT | O_WRONLY, 0644));
    close(open(young, O_CREAT | O_WRONLY, 0644));
    close(open(foreign, O_CREAT | O_WRONLY, 0644));
    EXPECT_EQ(utimensat(AT_FDCWD, old, long_ago, 0), 0);
    EXPECT_EQ(utimensat(AT_FDCWD, foreign, long_ago, 0), 0);
    EXPECT_OK(remote_dir_ops.open(&f.config, true, &f.remote, &f.err), &f.err);
    EXPECT(access(old, F_OK) != 0);
    EXPECT_EQ(access(young, F_OK), 0);
    EXPECT_EQ(access(foreign, F_OK), 0);
    teardown(&f);
}

TEST(an_absent_folder_is_not_made_by_readers)
{
    struct fixture f;
    char deep[TMPDIR_MAX + 64];

    setup(&f);
    EXPECT_ERR(remote_dir_ops.open(&f.config, false, &f.remote, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT(strstr(f.err.text, "backup"));
    EXPECT(access(f.path, F_OK) != 0);
    /* A missing parent is a disk that is not mounted. */
    snprintf(deep, sizeof(deep), "%s/missing/remote", f.dir);
    f.config.url = deep;
    EXPECT_ERR(remote_dir_ops.open(&f.config, true, &f.remote, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT(strstr(f.err.text, "mounted"));
    teardown(&f);
}

TEST(names_lead_to_remotes)
{
    struct fixture f;
    char s3_name[] = "lab", s3_type[] = "s3", s3_url[] = "https://example.org";
    struct remote_config rows[2];
    char root[] = "/nowhere/.weir";
    struct store st = {.root = root};

    setup(&f);
    rows[0] = f.config;
    rows[1] = (struct remote_config){.name = s3_name, .type = s3_type, .url = s3_url};
    st.config.remotes = rows;
    st.config.remote_count = 2;
    EXPECT_OK(remote_open(&st, "backup", true, &f.remote, &f.err), &f.err);
    EXPECT_STR(f.remote->name, "backup");
    remote_close(f.remote);
    f.remote = NULL;
    EXPECT_OK(remote_open(&st, f.path, false, &f.remote, &f.err), &f.err);
    EXPECT_STR(f.remote->name, f.path);
    remote_close(f.remote);
    f.remote = NULL;
    EXPECT_ERR(remote_open(&st, "backpu", false, &f.remote, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT(strstr(f.err.text, "did you mean backup?"));
    EXPECT_ERR(remote_open(&st, "lab", false, &f.remote, &f.err), ERR_MISSING, &f.err);
    EXPECT(strstr(f.err.text, "dir"));
    st.config.remote_count = 0;
    EXPECT_ERR(remote_open(&st, "x", false, &f.remote, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT(strstr(f.err.text, "/nowhere/.weir/config.yaml"));
    remote_close(NULL);
    teardown(&f);
}

RUN(puts_and_gets, never_replaces, lists_files_only, old_temporaries_go,
    an_absent_folder_is_not_made_by_readers, names_lead_to_remotes)
