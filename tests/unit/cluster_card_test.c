/* The cards: what they must refuse, and that a result card comes back as it was written. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "cluster/card.h"
#include "tests/check.h"

static const char plain[] =
    "{\"weir\":\"attempt/1\",\"store\":\"/s\",\"task\":\"t\",\"key\":\"sha256:"
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\",\"action\":{},"
    "\"argv\":[\"/bin/"
    "true\"],\"code\":[],\"inputs\":[],\"outputs\":[\"o\"],\"params\":{},\"env\":{},"
    "\"device\":\"cpu\",\"cpus\":1,\"gpus\":0,\"ranks\":1,\"memory_bytes\":0,\"time_s\":0,"
    "\"timeout_s\":0,\"grace_s\":1,\"checkpoint_every_s\":1}";
#define HEX "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/* The plain card with one member replaced, added (value) or removed (NULL). */
static enum err_code read_with(const char *key, const char *value, struct attempt_card *out,
                               struct err *err)
{
    json_t *root = json_loads(plain, 0, NULL);

    *err = (struct err)ERR_INIT;
    assert_non_null(root);
    if (value) {
        json_t *v = json_loads(value, JSON_DECODE_ANY, NULL);

        assert_non_null(v);
        json_object_set_new(root, key, v);
    } else if (key) {
        json_object_del(root, key);
    }
    return attempt_card_of(root, out, err);
}

TEST(reads_a_card_without_the_optional_members)
{
    struct attempt_card c;
    struct err err = ERR_INIT;

    EXPECT_OK(read_with(NULL, NULL, &c, &err), &err);
    EXPECT_STR(c.task, "t");
    EXPECT(!c.program.path);
    EXPECT_EQ(c.resume.kind, OBJ_NONE);
    EXPECT_EQ(c.resume_step, -1);
    EXPECT(!c.checkpoint_ref);
    EXPECT_EQ(c.log_max, CARD_LOG_MAX_DEFAULT);
    EXPECT_STR(c.gpu_devices, "");
    attempt_card_release(&c);
}

TEST(reads_the_optional_members)
{
    struct attempt_card c;
    struct err err = ERR_INIT;

    EXPECT_OK(read_with("program",
                        "{\"path\":\"/p\",\"kind\":\"blob\",\"digest\":\"" HEX
                        "\",\"ino\":7,\"size\":8,\"mtime_ns\":\"1763860000000000001\"}",
                        &c, &err),
              &err);
    EXPECT_STR(c.program.path, "/p");
    EXPECT_EQ(c.program.ino, 7);
    EXPECT_EQ(c.program.mtime_ns, 1763860000000000001);
    attempt_card_release(&c);
    EXPECT_OK(
        read_with("resume", "{\"kind\":\"tree\",\"digest\":\"" HEX "\",\"step\":12}", &c, &err),
        &err);
    EXPECT_EQ(c.resume.kind, OBJ_TREE);
    EXPECT_EQ(c.resume_step, 12);
    attempt_card_release(&c);
    EXPECT_OK(read_with("checkpoints", "{\"ref\":\"checkpoints/ab\"}", &c, &err), &err);
    EXPECT_STR(c.checkpoint_ref, "checkpoints/ab");
    EXPECT_EQ(c.checkpoint_keep, CARD_KEEP_DEFAULT);
    attempt_card_release(&c);
    EXPECT_OK(read_with("gpu_mask", "5", &c, &err), &err);
    EXPECT_STR(c.gpu_devices, "0,2");
    attempt_card_release(&c);
    EXPECT_OK(read_with("gpu_devices", "\"3,1\"", &c, &err), &err);
    EXPECT_STR(c.gpu_devices, "3,1");
    attempt_card_release(&c);
}

TEST(refuses_what_is_wrong)
{
    static const struct {
        const char *key, *value;
    } wrong[] = {
        {"store", NULL},
        {"key", "\"sha256:12\""},
        {"argv", "[]"},
        {"argv", "[1]"},
        {"shell", "\"both\""},
        {"argv", NULL},
        {"outputs", "[]"},
        {"outputs", "[\"a/b\"]"},
        {"outputs", "[\"..\"]"},
        {"params", "[]"},
        {"cpus", "0"},
        {"grace_s", "1.5"},
        {"time_s", "-1"},
        {"code", "[{\"path\":\"../x\",\"kind\":\"blob\",\"digest\":\"" HEX "\"}]"},
        {"code", "[{\"path\":\"/x\",\"kind\":\"blob\",\"digest\":\"" HEX "\"}]"},
        {"code", "[{\"path\":\"x\",\"kind\":\"pipe\",\"digest\":\"" HEX "\"}]"},
        {"inputs", "[{\"name\":\"a/b\",\"kind\":\"blob\",\"digest\":\"" HEX "\"}]"},
        {"inputs", "[{\"name\":\"..\",\"kind\":\"blob\",\"digest\":\"" HEX "\"}]"},
        {"inputs", "[{\"name\":\"a\",\"kind\":\"tree\",\"digest\":\"" HEX "\",\"entries\":[{}]}]"},
        {"program", "{\"path\":\"p\",\"kind\":\"blob\",\"digest\":\"" HEX "\",\"ino\":1,\"size\":1,"
                    "\"mtime_ns\":1}"},
        {"program", "{\"path\":\"/p\",\"kind\":\"blob\",\"digest\":\"" HEX "\"}"},
        {"program", "{\"path\":\"/p\",\"kind\":\"blob\",\"digest\":\"" HEX
                    "\",\"ino\":1,\"size\":1,\"mtime_ns\":\"x\"}"},
        {"resume", "{\"kind\":\"tree\",\"digest\":\"" HEX "\"}"},
        {"resume", "{\"kind\":\"tree\",\"digest\":\"" HEX "\",\"step\":-1}"},
        {"checkpoints", "{\"ref\":\"../x\"}"},
        {"checkpoints", "{\"ref\":\"x\",\"keep\":0}"},
        {"gpu_devices", "\"0;rm\""},
        {"gpu_devices", "7"},
        {"log_max", "1"},
    };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct attempt_card c;
        struct err err = ERR_INIT;
        const enum err_code rc = read_with(wrong[i].key, wrong[i].value, &c, &err);

        if (rc == OK)
            print_message("accepted: %s %s\n", wrong[i].key, wrong[i].value);
        EXPECT_ERR(rc, ERR_INPUT, &err);
        EXPECT(!c.root);
    }
}

TEST(result_card_comes_back)
{
    char path[TMPDIR_MAX];
    struct card_object outputs[] = {{.name = "model", .kind = OBJ_TREE, .size = 3}};
    struct card_image images[] = {{.step = 10, .size = 4, .caption = "a \xff b"}};
    const struct result_card c = {.status = ATTEMPT_DONE,
                                  .exit_status = 0,
                                  .strays = 2,
                                  .reason = "said \xfe",
                                  .outputs = outputs,
                                  .output_count = 1,
                                  .images = images,
                                  .image_count = 1,
                                  .log = {.kind = OBJ_BLOB, .size = 9},
                                  .step = 120,
                                  .log_bytes = 9,
                                  .wall_ms = 5};
    struct result_card back;
    struct err err = ERR_INIT;
    int dir = -1;

    tmpdir_new(path);
    EXPECT_OK(os_open_dir(AT_FDCWD, path, &dir, &err), &err);
    EXPECT_ERR(result_card_read(dir, &back, &err), ERR_NOT_FOUND, &err);
    err = (struct err)ERR_INIT;
    EXPECT_OK(result_card_write(dir, &c, &err), &err);
    EXPECT_OK(result_card_read(dir, &back, &err), &err);
    EXPECT_EQ(back.status, ATTEMPT_DONE);
    EXPECT_STR(back.reason, "said ?");
    EXPECT_EQ(back.strays, 2);
    EXPECT_EQ(back.output_count, 1);
    EXPECT_STR(back.outputs[0].name, "model");
    EXPECT_EQ(back.outputs[0].kind, OBJ_TREE);
    EXPECT_EQ(back.image_count, 1);
    EXPECT_STR(back.images[0].caption, "a ? b");
    EXPECT_EQ(back.images[0].step, 10);
    EXPECT_EQ(back.log.kind, OBJ_BLOB);
    EXPECT_EQ(back.events.kind, OBJ_NONE);
    EXPECT_EQ(back.step, 120);
    result_card_release(&back);
    os_close_quiet(&dir);
    tmpdir_free(path);
}

RUN(reads_a_card_without_the_optional_members, reads_the_optional_members, refuses_what_is_wrong,
    result_card_comes_back)
