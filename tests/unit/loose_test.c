#include "store/loose.h"
#include "tests/store_forge.h"

static const char text[] = "what a loose file may hold";
#define TEXT_N ((int64_t)sizeof(text) - 1)

static int64_t mtime_of(struct forge *f, const struct digest *id)
{
    char name[LOOSE_NAME];
    struct stat info;

    loose_name(id, name);
    EXPECT_OK(os_stat_at(f->st->loose, name, &info, &f->err), &f->err);
    return (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
}

static void set_atime(struct forge *f, const struct digest *id, int64_t ns)
{
    const struct timespec times[2] = {{.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000},
                                      {.tv_nsec = UTIME_OMIT}};
    char name[LOOSE_NAME];

    loose_name(id, name);
    EXPECT_EQ(utimensat(f->st->loose, name, times, 0), 0);
}

static int64_t atime_of(struct forge *f, const struct digest *id)
{
    char name[LOOSE_NAME];
    struct stat info;

    loose_name(id, name);
    EXPECT_OK(os_stat_at(f->st->loose, name, &info, &f->err), &f->err);
    return (int64_t)info.st_atim.tv_sec * 1000000000 + info.st_atim.tv_nsec;
}

TEST(names)
{
    struct digest id;
    char name[LOOSE_NAME];

    sha256_of("", 0, &id);
    loose_name(&id, name);
    EXPECT_STR(name, "e3/b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(publish_sets_mode_and_time)
{
    struct forge f;
    struct digest id;
    struct stat info;
    char name[LOOSE_NAME];
    uint8_t dirs[32] = {0};
    int fd = -1;

    forge_new(&f);
    id = forge_loose_file(&f, text, (size_t)TEXT_N);
    loose_name(&id, name);
    EXPECT_OK(os_stat_at(f.st->loose, name, &info, &f.err), &f.err);
    EXPECT_EQ(info.st_mode & 07777, 0444);
    EXPECT_EQ(mtime_of(&f, &id), LOOSE_MTIME_NS);
    EXPECT_EQ(info.st_nlink, 1);
    EXPECT_EQ(forge_count_names(&f, f.st->tmp), 0);
    EXPECT_OK(loose_open(f.st, &id, TEXT_N, &fd, &f.err), &f.err);
    os_close_quiet(&fd);
    EXPECT_OK(loose_open(f.st, &id, -1, &fd, &f.err), &f.err);
    os_close_quiet(&fd);
    dirs[id.b[0] / 8] = (uint8_t)(1 << id.b[0] % 8);
    EXPECT_OK(loose_sync(f.st, dirs, &f.err), &f.err);
    forge_free(&f);
}

TEST(a_second_publish_keeps_the_first_and_touches_it)
{
    struct forge f;
    struct digest id;
    bool existed = false;
    const int64_t before = os_now_ns() - 2000000000;

    forge_new(&f);
    id = forge_loose_file(&f, text, (size_t)TEXT_N);
    set_atime(&f, &id, 5000000000);
    EXPECT_OK(os_write_file(f.st->tmp, "again", text, (size_t)TEXT_N, 0600, &f.err), &f.err);
    EXPECT_OK(loose_publish(f.st, "again", &id, TEXT_N, &existed, &f.err), &f.err);
    EXPECT(existed);
    EXPECT(atime_of(&f, &id) > before);
    EXPECT_EQ(mtime_of(&f, &id), LOOSE_MTIME_NS);
    EXPECT_EQ(forge_count_names(&f, f.st->tmp), 0);
    forge_free(&f);
}

/* What a power cut left under the name: empty or short files, or other bytes with a time of their own. */
TEST(publish_replaces_what_is_not_the_object)
{
    static const char *const wrong[] = {"", "short", "what a loose file may hole"};

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char name[LOOSE_NAME];
        struct forge f;
        struct digest id;
        bool existed = true;
        int fd = -1;

        forge_new(&f);
        sha256_of(text, (size_t)TEXT_N, &id);
        loose_name(&id, name);
        EXPECT_OK(os_write_file(f.st->loose, name, wrong[i], strlen(wrong[i]), 0444, &f.err),
                  &f.err);
        EXPECT_OK(os_write_file(f.st->tmp, "good", text, (size_t)TEXT_N, 0600, &f.err), &f.err);
        EXPECT_OK(loose_publish(f.st, "good", &id, TEXT_N, &existed, &f.err), &f.err);
        EXPECT(!existed);
        EXPECT_OK(loose_open(f.st, &id, TEXT_N, &fd, &f.err), &f.err);
        os_close_quiet(&fd);
        EXPECT_EQ(forge_count_names(&f, f.st->quarantine), 1);
        forge_free(&f);
    }
}

TEST(publish_refuses_a_temporary_of_another_size)
{
    struct forge f;
    struct digest id;
    bool existed;

    forge_new(&f);
    sha256_of(text, (size_t)TEXT_N, &id);
    EXPECT_OK(os_write_file(f.st->tmp, "t", text, 3, 0600, &f.err), &f.err);
    EXPECT_ERR(loose_publish(f.st, "t", &id, TEXT_N, &existed, &f.err), ERR_CHANGED, &f.err);
    EXPECT(!forge_loose_there(&f, &id));
    EXPECT_ERR(loose_publish(f.st, "absent", &id, TEXT_N, &existed, &f.err), ERR_NOT_FOUND, &f.err);
    forge_free(&f);
}

TEST(open_notices_what_happened_to_the_file)
{
    struct forge f;
    struct digest id;
    int fd = -1;

    forge_new(&f);
    id = forge_loose_file(&f, text, (size_t)TEXT_N);
    EXPECT_ERR(loose_open(f.st, &(struct digest){.b = {1}}, 1, &fd, &f.err), ERR_NOT_FOUND, &f.err);
    /* Touched but unchanged: the time is put back. */
    forge_damage_loose(&f, &id, 3, false);
    forge_damage_loose(&f, &id, 3, false);
    EXPECT(mtime_of(&f, &id) != LOOSE_MTIME_NS);
    EXPECT_OK(loose_open(f.st, &id, TEXT_N, &fd, &f.err), &f.err);
    os_close_quiet(&fd);
    EXPECT_EQ(mtime_of(&f, &id), LOOSE_MTIME_NS);
    /* Changed: gone from loose/, kept in quarantine/. */
    forge_damage_loose(&f, &id, 3, false);
    EXPECT_ERR(loose_open(f.st, &id, TEXT_N, &fd, &f.err), ERR_DAMAGED, &f.err);
    EXPECT(strstr(f.err.text, "was changed"));
    EXPECT_EQ(fd, -1);
    EXPECT(!forge_loose_there(&f, &id));
    EXPECT_EQ(forge_count_names(&f, f.st->quarantine), 1);
    /* Twice the same id. */
    id = forge_loose_file(&f, text, (size_t)TEXT_N);
    EXPECT_ERR(loose_open(f.st, &id, TEXT_N + 1, &fd, &f.err), ERR_DAMAGED, &f.err);
    EXPECT(strstr(f.err.text, "wrong size"));
    EXPECT_EQ(forge_count_names(&f, f.st->quarantine), 2);
    EXPECT_ERR(loose_quarantine(f.st, &id, &f.err), ERR_NOT_FOUND, &f.err);
    forge_free(&f);
}

TEST(a_link_or_directory_under_the_name_is_no_object)
{
    struct forge f;
    const struct digest id = {.b = {7}};
    char name[LOOSE_NAME];
    int fd = -1;

    forge_new(&f);
    loose_name(&id, name);
    EXPECT_OK(os_symlink("/etc/passwd", f.st->loose, name, &f.err), &f.err);
    EXPECT(loose_open(f.st, &id, -1, &fd, &f.err) != OK);
    EXPECT_OK(os_unlink(f.st->loose, name, &f.err), &f.err);
    EXPECT_OK(os_mkdir(f.st->loose, name, 0755, &f.err), &f.err);
    EXPECT(loose_open(f.st, &id, -1, &fd, &f.err) != OK);
    EXPECT_EQ(fd, -1);
    forge_free(&f);
}

/* The object and the chunks that were read from it leave the index; chunks that are elsewhere as well stay. */
TEST(quarantine_makes_the_index_forget)
{
    const size_t sizes[] = {10, 10, 6};
    struct recipe_chunk *chunks = forge_chunks(text, sizes, 3);
    struct digest ids[4];
    struct forge f;
    struct loc locs[4];

    forge_new(&f);
    forge_begin(&f);
    ids[0] = forge_loose(&f, text, (size_t)TEXT_N, sizes, 3);
    forge_blob(&f, ENC_RAW, 0, text + 10, 10);
    forge_commit(&f);
    for (int i = 0; i < 3; i++)
        ids[i + 1] = chunks[i].id;
    EXPECT_OK(index_get(f.st->index, ids, 4, locs, &f.err), &f.err);
    EXPECT_EQ(locs[0].type, LOC_LOOSE);
    EXPECT_EQ(locs[1].type, LOC_SLICE);
    EXPECT_EQ(locs[2].type, LOC_BLOB);
    EXPECT_EQ(locs[3].type, LOC_SLICE);
    EXPECT_OK(loose_quarantine(f.st, &ids[0], &f.err), &f.err);
    EXPECT_OK(index_get(f.st->index, ids, 4, locs, &f.err), &f.err);
    EXPECT_EQ(locs[0].type, 0);
    EXPECT_EQ(locs[1].type, 0);
    EXPECT_EQ(locs[2].type, LOC_BLOB);
    EXPECT_EQ(locs[3].type, 0);
    EXPECT_OK(store_check(f.st, &f.err), &f.err);
    free(chunks);
    forge_free(&f);
}

TEST(delete_keeps_what_was_used)
{
    struct forge f;
    struct digest id;
    bool kept;

    forge_new(&f);
    id = forge_loose_file(&f, text, (size_t)TEXT_N);
    set_atime(&f, &id, 7000000000);
    EXPECT_OK(loose_delete(f.st, &id, 7000000000, &kept, &f.err), &f.err);
    EXPECT(kept);
    EXPECT(forge_loose_there(&f, &id));
    EXPECT_EQ(forge_count_names(&f, f.st->condemned), 0);
    EXPECT_OK(loose_delete(f.st, &id, 7000000001, &kept, &f.err), &f.err);
    EXPECT(!kept);
    EXPECT(!forge_loose_there(&f, &id));
    EXPECT_EQ(forge_count_names(&f, f.st->condemned), 0);
    EXPECT_ERR(loose_delete(f.st, &id, 0, &kept, &f.err), ERR_NOT_FOUND, &f.err);
    forge_free(&f);
}

TEST(delete_goes_on_where_a_killed_one_stopped)
{
    char name[LOOSE_NAME], hex[DIGEST_HEX + 1];
    struct forge f;
    struct digest id;
    bool kept;

    forge_new(&f);
    id = forge_loose_file(&f, text, (size_t)TEXT_N);
    loose_name(&id, name);
    digest_hex(&id, hex);
    set_atime(&f, &id, 7000000000);
    EXPECT_OK(os_rename(f.st->loose, name, f.st->condemned, hex, &f.err), &f.err);
    /* Meanwhile somebody has published the same bytes again. */
    forge_loose_file(&f, text, (size_t)TEXT_N);
    set_atime(&f, &id, 9000000000);
    EXPECT_OK(loose_delete(f.st, &id, 8000000000, &kept, &f.err), &f.err);
    EXPECT(kept);
    EXPECT(forge_loose_there(&f, &id));
    EXPECT_OK(os_rename(f.st->loose, name, f.st->condemned, hex, &f.err), &f.err);
    EXPECT_OK(loose_delete(f.st, &id, INT64_MAX, &kept, &f.err), &f.err);
    EXPECT(!kept);
    EXPECT_EQ(forge_count_names(&f, f.st->condemned), 0);
    forge_free(&f);
}

/* Killed between putting the file back and removing its second name. */
TEST(delete_is_not_fooled_by_a_second_name)
{
    char name[LOOSE_NAME], hex[DIGEST_HEX + 1];
    struct forge f;
    struct digest id;
    bool kept;

    forge_new(&f);
    id = forge_loose_file(&f, text, (size_t)TEXT_N);
    loose_name(&id, name);
    digest_hex(&id, hex);
    EXPECT_OK(os_link(f.st->loose, name, f.st->condemned, hex, &f.err), &f.err);
    EXPECT_OK(loose_delete(f.st, &id, INT64_MAX, &kept, &f.err), &f.err);
    EXPECT(!kept);
    EXPECT(!forge_loose_there(&f, &id));
    EXPECT_EQ(forge_count_names(&f, f.st->condemned), 0);
    forge_free(&f);
}

/* After any failure the object is there whole or not at all, and doing it again helps. */
TEST(publish_survives_any_single_fault)
{
    for (int exists = 0; exists < 2; exists++) {
        bool fired = true;

        for (int nth = 0; fired; nth++) {
            struct forge f;
            struct digest id;
            enum err_code rc;
            bool existed;
            int fd = -1;

            forge_new(&f);
            sha256_of(text, (size_t)TEXT_N, &id);
            if (exists)
                forge_loose_file(&f, text, (size_t)TEXT_N);
            EXPECT_OK(os_write_file(f.st->tmp, "t", text, (size_t)TEXT_N, 0600, &f.err), &f.err);

            const int fds = forge_fd_count();

            fault_arm(nth);
            rc = loose_publish(f.st, "t", &id, TEXT_N, &existed, &f.err);
            fired = fault_disarm();
            EXPECT_EQ(fired, rc != OK);
            EXPECT_EQ(forge_fd_count(), fds);
            if (forge_loose_there(&f, &id)) {
                EXPECT_OK(loose_open(f.st, &id, TEXT_N, &fd, &f.err), &f.err);
                os_close_quiet(&fd);
            }
            EXPECT(rc || forge_loose_there(&f, &id));
            forge_free(&f);
        }
    }
}

TEST(delete_survives_any_single_fault)
{
    for (int64_t since = 6; since < 9; since += 2) {
        bool fired = true;

        for (int nth = 0; fired; nth++) {
            struct forge f;
            struct digest id;
            enum err_code rc;
            bool kept;

            forge_new(&f);
            id = forge_loose_file(&f, text, (size_t)TEXT_N);
            set_atime(&f, &id, 7);
            fault_arm(nth);
            rc = loose_delete(f.st, &id, since, &kept, &f.err);
            fired = fault_disarm();
            EXPECT_EQ(fired, rc != OK);
            if (rc) {
                rc = loose_delete(f.st, &id, since, &kept, &f.err);
                /* The first may have done all but report it. */
                EXPECT(rc == OK || (rc == ERR_NOT_FOUND && since > 7));
            }
            EXPECT_EQ(forge_loose_there(&f, &id), since <= 7);
            EXPECT_EQ(forge_count_names(&f, f.st->condemned), 0);
            forge_free(&f);
        }
    }
}

RUN(names, publish_sets_mode_and_time, a_second_publish_keeps_the_first_and_touches_it,
    publish_replaces_what_is_not_the_object, publish_refuses_a_temporary_of_another_size,
    open_notices_what_happened_to_the_file, a_link_or_directory_under_the_name_is_no_object,
    quarantine_makes_the_index_forget, delete_keeps_what_was_used,
    delete_goes_on_where_a_killed_one_stopped, delete_is_not_fooled_by_a_second_name,
    publish_survives_any_single_fault, delete_survives_any_single_fault)
