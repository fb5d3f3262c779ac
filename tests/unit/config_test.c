#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/os.h"
#include "store/config.h"
#include "store/store.h"
#include "tests/check.h"

/* Loads text as DIR/config.yaml; NULL: there is no such file. */
static enum err_code load(const char *text, struct config *c, struct err *err, char dir[TMPDIR_MAX])
{
    char path[TMPDIR_MAX + 16];
    struct err write_err = ERR_INIT;

    tmpdir_new(dir);
    snprintf(path, sizeof(path), "%s/config.yaml", dir);
    if (text)
        EXPECT_OK(os_write_file(AT_FDCWD, path, text, strlen(text), 0644, &write_err), &write_err);
    return config_load(dir, c, err);
}

static void expect_refused(const char *text, const char *where_and_why)
{
    char dir[TMPDIR_MAX], wanted[TMPDIR_MAX + 512];
    struct err err = ERR_INIT;
    struct config c;

    EXPECT_ERR(load(text, &c, &err, dir), ERR_CONFIG, &err);
    snprintf(wanted, sizeof(wanted), "%s/config.yaml:%s", dir, where_and_why);
    EXPECT_STR(err.text, wanted);
    EXPECT(c.objects == NULL);
    config_release(&c);
    tmpdir_free(dir);
}

TEST(missing_file_gives_defaults)
{
    char dir[TMPDIR_MAX];
    struct err err = ERR_INIT;
    struct config c;

    EXPECT_OK(load(NULL, &c, &err, dir), &err);
    EXPECT_STR(c.objects, "objects");
    EXPECT_EQ(c.cpus, 0);
    EXPECT_EQ(c.gpus, 0);
    EXPECT_EQ(c.threads, 0);
    EXPECT_EQ(c.memory_bytes, 0);
    EXPECT_EQ(c.remote_count, 0);
    EXPECT_EQ(c.grace_s, STORE_GRACE_DEFAULT_S);
    EXPECT_EQ(c.keep_runs, 100);
    EXPECT(config_remote(&c, "backup") == NULL);
    config_release(&c);
    config_release(&c);
    tmpdir_free(dir);
}

TEST(the_template_gives_defaults)
{
    char dir[TMPDIR_MAX];
    struct err err = ERR_INIT;
    struct config c;

    EXPECT_OK(load(config_template, &c, &err, dir), &err);
    EXPECT_STR(c.objects, "objects");
    EXPECT_EQ(c.grace_s, STORE_GRACE_DEFAULT_S);
    EXPECT_EQ(c.remote_count, 0);
    config_release(&c);
    tmpdir_free(dir);
}

/* What the template shows as examples must be understood once somebody takes the '#' away. */
TEST(the_template_uncommented_is_good)
{
    char text[4096], *out = text, dir[TMPDIR_MAX];
    struct err err = ERR_INIT;
    struct config c;

    for (const char *line = config_template; *line;) {
        const char *end = strchr(line, '\n') + 1;
        const bool example = line[0] == '#' && line[1] == ' ' &&
                             memchr(line, ':', (size_t)(end - line)) && line[2] != ' ' &&
                             (line[2] >= 'a' && line[2] <= 'z') && strncmp(line, "# weir", 6) != 0;
        const bool nested = strncmp(line, "#   ", 4) == 0;
        const char *from = example || nested ? line + 2 : line;

        memcpy(out, from, (size_t)(end - from));
        out += end - from;
        line = end;
    }
    *out = '\0';
    EXPECT_OK(load(text, &c, &err, dir), &err);
    EXPECT_STR(c.objects, "objects");
    EXPECT_EQ(c.cpus, 8);
    EXPECT_EQ(c.memory_bytes, (int64_t)32 << 30);
    EXPECT_EQ(c.gpus, 1);
    EXPECT_EQ(c.threads, 8);
    EXPECT_EQ(c.remote_count, 2);
    EXPECT_EQ(c.keep_runs, 100);
    config_release(&c);
    tmpdir_free(dir);
}

TEST(all_keys_are_read)
{
    char dir[TMPDIR_MAX], relative[TMPDIR_MAX + 32];
    struct err err = ERR_INIT;
    struct config c;

    EXPECT_OK(load("objects: /shared/weir\n"
                   "slots: {cpus: 2, memory: 8GiB, gpus: 0}\n"
                   "threads: 3\n"
                   "remotes:\n"
                   "  backup: {dir: /mnt/backup}\n"
                   "  near: {dir: ../near}\n"
                   "  lab: {s3: 'https://s3', bucket: b, region: r, prefix: p/q}\n"
                   "  hub: {oci: registry.example/x}\n"
                   "retention: {grace: 2h, runs: 7}\n",
                   &c, &err, dir),
              &err);
    EXPECT_STR(c.objects, "/shared/weir");
    EXPECT_EQ(c.cpus, 2);
    EXPECT_EQ(c.memory_bytes, (int64_t)8 << 30);
    EXPECT_EQ(c.threads, 3);
    EXPECT_EQ(c.remote_count, 4);
    EXPECT_EQ(c.grace_s, 7200);
    EXPECT_EQ(c.keep_runs, 7);

    const struct remote_config *r = config_remote(&c, "lab");

    EXPECT(r != NULL);
    EXPECT_STR(r->type, "s3");
    EXPECT_STR(r->url, "https://s3");
    EXPECT_STR(r->bucket, "b");
    EXPECT_STR(r->region, "r");
    EXPECT_STR(r->prefix, "p/q");
    r = config_remote(&c, "backup");
    EXPECT_STR(r->type, "dir");
    EXPECT_STR(r->url, "/mnt/backup");
    EXPECT(r->bucket == NULL);
    EXPECT_STR(config_remote(&c, "hub")->type, "oci");
    snprintf(relative, sizeof(relative), "%s/../near", dir);
    EXPECT_STR(config_remote(&c, "near")->url, relative);
    EXPECT(config_remote(&c, "la") == NULL);
    config_release(&c);
    tmpdir_free(dir);
}

TEST(empty_parts_are_like_absent_ones)
{
    char dir[TMPDIR_MAX];
    struct err err = ERR_INIT;
    struct config c;

    EXPECT_OK(load("slots:\nremotes:\nretention: {}\n", &c, &err, dir), &err);
    EXPECT_EQ(c.remote_count, 0);
    EXPECT_EQ(c.grace_s, STORE_GRACE_DEFAULT_S);
    config_release(&c);
    tmpdir_free(dir);
}

TEST(problems_have_their_place_and_a_hint)
{
    static const struct {
        const char *text, *problem;
    } cases[] = {
        {"objcts: x\n", "1:1: unknown key \"objcts\"; did you mean \"objects\"?"},
        {"\nslots: {cpu: 2}\n", "2:9: unknown key \"cpu\" in slots; did you mean \"cpus\"?"},
        {"zzz: 1\n",
         "1:1: unknown key \"zzz\"; known are objects, slots, threads, remotes, retention"},
        {"objects: [a]\n", "1:10: objects: a text is wanted"},
        {"objects: ''\n", "1:10: objects: a text is wanted"},
        {"threads: 0\n", "1:10: threads: a whole number from 1 to 256 is wanted"},
        {"threads: 2.5\n", "1:10: threads: a whole number from 1 to 256 is wanted"},
        {"slots: 4\n", "1:8: a map of keys and values is wanted in slots"},
        {"slots: {memory: [1]}\n", "1:17: memory: a text like 8GiB or 24h is wanted"},
        {"[1]\n", "1:1: a map of keys and values is wanted"},
        {"remotes: 3\n",
         "1:10: remotes: a map of names is wanted, such as {backup: {dir: /mnt/backup}}"},
        {"remotes: {a: {}}\n", "1:14: remote a: has no place; one of dir, s3 and oci is wanted"},
        {"remotes: {a: {dir: /x, s3: y}}\n",
         "1:28: remote a: is dir already; one of dir, s3 and oci is wanted"},
        {"remotes: {a: {s3: y}}\n", "1:14: remote a: s3 needs a bucket"},
        {"remotes: {a: {dir: /y, bucket: b}}\n",
         "1:14: remote a: bucket and region are for s3, this is dir"},
        {"remotes: {a: {drr: /y}}\n",
         "1:15: unknown key \"drr\" in remote a; did you mean \"dir\"?; %s1:14: remote a: has no "
         "place; one of dir, s3 and oci is wanted"},
        {"remotes: {../x: {dir: y}}\n",
         "1:11: remote name \"../x\": 1 to 64 letters, digits, '.', '_' and '-' are wanted, not "
         "starting with '.' or '-'"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char dir[TMPDIR_MAX], wanted[1024];
        struct err err = ERR_INIT;
        struct config c;

        EXPECT_ERR(load(cases[i].text, &c, &err, dir), ERR_CONFIG, &err);

        const char *second = strstr(cases[i].problem, "%s");
        const int head = second ? (int)(second - cases[i].problem) : (int)strlen(cases[i].problem);

        snprintf(wanted, sizeof(wanted), "%s/config.yaml:%.*s%s%s%s", dir, head, cases[i].problem,
                 second ? dir : "", second ? "/config.yaml:" : "", second ? second + 2 : "");
        EXPECT_STR(err.text, wanted);
        config_release(&c);
        tmpdir_free(dir);
    }
}

TEST(units_are_explained)
{
    expect_refused("slots: {memory: 8GB}\n",
                   "1:17: memory: \"8GB\" is not a size; write a whole number and KiB, MiB, GiB, "
                   "TiB or nothing");
    expect_refused("retention: {grace: 24}\n",
                   "1:20: grace: \"24\" is not a duration; write a whole number and s, m, h or d");
}

TEST(all_problems_come_at_once)
{
    char dir[TMPDIR_MAX];
    struct err err = ERR_INIT;
    struct config c;

    EXPECT_ERR(load("threads: x\nretention: {runs: -1}\nslots: {gpus: a}\n", &c, &err, dir),
               ERR_CONFIG, &err);
    EXPECT(strstr(err.text, "config.yaml:1:10: threads"));
    EXPECT(strstr(err.text, "; "));
    EXPECT(strstr(err.text, "config.yaml:2:19: runs"));
    EXPECT(strstr(err.text, "config.yaml:3:15: gpus"));
    tmpdir_free(dir);
}

TEST(many_problems_are_counted)
{
    char text[8192] = "", dir[TMPDIR_MAX];
    struct err err = ERR_INIT;
    struct config c;
    size_t n = 0;

    for (int i = 0; i < 50; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "unknown-key-number-%d: 1\n", i);
    EXPECT_ERR(load(text, &c, &err, dir), ERR_CONFIG, &err);
    EXPECT(strstr(err.text, "(50 problems in all)"));
    tmpdir_free(dir);
}

TEST(text_that_is_no_yaml_says_where)
{
    char dir[TMPDIR_MAX];
    struct err err = ERR_INIT;
    struct config c;

    EXPECT_ERR(load("objects: x\nobjects: y\n", &c, &err, dir), ERR_CONFIG, &err);
    EXPECT(strstr(err.text, "config.yaml:2:1: "));
    tmpdir_free(dir);
    EXPECT_ERR(load("slots: {cpus: 1\n", &c, &err, dir), ERR_CONFIG, &err);
    EXPECT(strstr(err.text, "config.yaml:"));
    tmpdir_free(dir);
}

TEST(no_fault_leaks)
{
    bool fired = true;

    for (int nth = 0; fired; nth++) {
        char dir[TMPDIR_MAX], path[TMPDIR_MAX + 16];
        struct err err = ERR_INIT;
        struct config c;

        tmpdir_new(dir);
        snprintf(path, sizeof(path), "%s/config.yaml", dir);
        EXPECT_OK(os_write_file(AT_FDCWD, path, "threads: 4\n", 11, 0644, &err), &err);
        fault_arm(nth);

        const enum err_code rc = config_load(dir, &c, &err);

        fired = fault_disarm();
        EXPECT_EQ(fired, rc != OK);
        if (!rc)
            EXPECT_EQ(c.threads, 4);
        config_release(&c);
        tmpdir_free(dir);
    }
}

RUN(missing_file_gives_defaults, the_template_gives_defaults, the_template_uncommented_is_good,
    all_keys_are_read, empty_parts_are_like_absent_ones, problems_have_their_place_and_a_hint,
    units_are_explained, all_problems_come_at_once, many_problems_are_counted,
    text_that_is_no_yaml_says_where, no_fault_leaks)
