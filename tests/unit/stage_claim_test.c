/* Licences: who says what, what is concluded; DEP-5 files; and the small formats beside them (IDX, tar, BPE). */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "stages/data/bpe.h"
#include "stages/data/claim.h"
#include "stages/data/dataset.h"
#include "stages/data/dep5.h"
#include "stages/data/idx.h"
#include "stages/data/tarball.h"
#include "tests/check.h"

TEST(one_licence_is_concluded_or_none)
{
    static const struct {
        const char *claims[3]; /* "level licence" */
        const char *lic, *rule;
    } cases[] = {
        {{NULL}, "NOASSERTION", "none"},
        {{"4 MIT"}, "MIT", "agreed"},
        {{"4 MIT", "2 MIT"}, "MIT", "agreed"},
        {{"2 NOASSERTION", "3 MIT"}, "NOASSERTION", "undecided"},
        {{"1 LicenseRef-public-domain", "3 GPL-2.0-only"}, "GPL-2.0-only", "stricter"},
        {{"1 GPL-2.0-only", "3 LicenseRef-public-domain"}, "GPL-2.0-only", "stricter"},
        {{"3 GPL-2.0-only", "3 GPL-2.0-or-later"}, "GPL-2.0-only", "stricter"},
        {{"3 GPL-2.0-or-later", "3 GPL-2.0-only"}, "GPL-2.0-only", "stricter"},
        {{"3 GPL-3.0-or-later", "5 CC-BY-SA-3.0"}, "NOASSERTION", "conflict"},
        {{"3 CC-BY-SA-4.0", "3 CC-BY-4.0"}, "NOASSERTION", "conflict"},
        {{"3 CC0-1.0", "3 MIT"}, "NOASSERTION", "conflict"},
        {{"0 CC-BY-4.0", "3 GPL-2.0-only", "1 NOASSERTION"}, "CC-BY-4.0", "record"},
        {{"0 NOASSERTION", "3 MIT"}, "NOASSERTION", "record"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t *claims = json_array();
        struct claim_verdict v;

        for (int k = 0; k < 3 && cases[i].claims[k]; k++)
            claim_add(claims, cases[i].claims[k] + 2,
                      (enum claim_level)(cases[i].claims[k][0] - '0'), "test");
        v = claim_conclude(claims);
        EXPECT_STR(v.lic, cases[i].lic);
        EXPECT_STR(v.rule, cases[i].rule);
        EXPECT_EQ(v.quarantine, strcmp(v.lic, "NOASSERTION") == 0);
        json_decref(claims);
    }
}

TEST(merging_drops_no_claim)
{
    json_t *a = json_array(), *b = json_array();

    claim_add(a, "GPL-2.0-only", CLAIM_PACKAGE, "dep5:*");
    claim_add(a, "GPL-2.0-only", CLAIM_PACKAGE, "dep5:*"); /* once is enough */
    claim_add(b, "LicenseRef-public-domain", CLAIM_FILE, "rdf");
    claim_merge(a, b, "other/1");
    EXPECT_EQ(json_array_size(a), 2);
    EXPECT_STR(row_text(json_array_get(a, 1), "by", ""), "rdf, via other/1");
    EXPECT_STR(row_text(json_array_get(a, 1), "level", ""), "file");
    EXPECT_STR(claim_conclude(a).lic, "GPL-2.0-only");
    json_decref(a);
    json_decref(b);
}

TEST(expressions_have_a_form)
{
    static const char *const good[] = {"MIT", "GPL-2.0-only OR (MIT AND CC-BY-4.0)",
                                       "GPL-2.0+ WITH Font-exception-2.0", "LicenseRef-my.own"};
    static const char *const bad[] = {
        "", "MIT OR", "MIT Apache-2.0", "(MIT", "MIT)", "GPL 2", "a/b", "OR", "MIT;"};
    struct err err = ERR_INIT;

    for (size_t i = 0; i < 4; i++)
        EXPECT_OK(claim_expression_check(good[i], &err), &err);
    for (size_t i = 0; i < 9; i++) {
        struct err e = ERR_INIT;

        if (strcmp(bad[i], "OR") != 0) /* an id by its form; the pipeline's list refuses it */
            EXPECT_ERR(claim_expression_check(bad[i], &e), ERR_INPUT, &e);
    }
}

static const char copyright[] =
    "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
    "Upstream-Name: demo\n"
    "\n"
    "Files: *\n"
    "Copyright: 2001 A\n"
    "License: GPL-2\n"
    "\n"
    "Files: pics/*.png\n"
    " art/cat.jpg\n"
    "Copyright: 2002 B\n"
    "License: CC-BY-SA-3.0\n"
    "\n"
    "Files: pics/special.png\n"
    "Copyright: C\n"
    "License: public-domain\n"
    "\n"
    "License: GPL-2\n"
    " This may be used under version 2 or (at your option) any later version.\n";

TEST(dep5_finds_the_last_stanza_that_fits)
{
    static const struct {
        const char *path, *lic, *later, *pattern;
        bool all, stale;
    } cases[] = {
        {"usr/share/demo/x.png", "GPL-2.0-only", "GPL-2.0-or-later", "*", true, false},
        {"usr/share/demo/pics/a.png", "CC-BY-SA-3.0", NULL, "pics/*.png", false, false},
        {"pics/special.png", "LicenseRef-public-domain", NULL, "pics/special.png", false, false},
        {"usr/share/art/cat.webp", "CC-BY-SA-3.0", NULL, "art/cat.jpg", false,
         true}, /* a rotten glob */
        {"usr/share/art/dog.webp", "GPL-2.0-only", "GPL-2.0-or-later", "*", true, false},
    };
    struct dep5 *d = NULL;
    struct err err = ERR_INIT;

    EXPECT_OK(dep5_parse(copyright, sizeof(copyright) - 1, &d, &err), &err);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct dep5_answer a;

        EXPECT(dep5_find(d, cases[i].path, &a));
        EXPECT_STR(a.lic, cases[i].lic);
        EXPECT_STR(a.pattern, cases[i].pattern);
        EXPECT_EQ(a.everything, cases[i].all);
        EXPECT_EQ(a.stale, cases[i].stale);
        EXPECT((a.later == NULL) == (cases[i].later == NULL));
        if (a.later)
            EXPECT_STR(a.later, cases[i].later);
    }
    dep5_free(d);
}

TEST(free_text_is_not_guessed_at)
{
    struct dep5 *d = NULL;
    struct err err = ERR_INIT;

    EXPECT_ERR(dep5_parse("This is GPL-2.\n", 15, &d, &err), ERR_INPUT, &err);
    EXPECT_ERR(dep5_parse("Format: x\n\nLicense: MIT\n", 24, &d, &err), ERR_INPUT, &err);
    EXPECT_ERR(dep5_parse("Format: x\0\n", 11, &d, &err), ERR_INPUT, &err);
}

TEST(short_names_become_spdx)
{
    static const char *const pairs[][2] = {
        {"GPL-2+", "GPL-2.0-or-later"},
        {"GPL-3", "GPL-3.0-only"},
        {"LGPL-2.1+", "LGPL-2.1-or-later"},
        {"Expat", "MIT"},
        {"CC-BY-SA-4", "CC-BY-SA-4.0"},
        {"CC-BY-2.5", "CC-BY-2.5"},
        {"public-domain", "LicenseRef-public-domain"},
        {"GPL-2+ or Artistic-2.0", "GPL-2.0-or-later OR Artistic-2.0"},
        {"my own", "NOASSERTION"},
        {"Our-Terms_2", "LicenseRef-Our-Terms-2"},
        {"GPL-2 with exception", "NOASSERTION"},
        {"", "NOASSERTION"}};

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        char out[128];

        dep5_spdx(pairs[i][0], out);
        EXPECT_STR(out, pairs[i][1]);
    }
}

TEST(idx_sizes_are_checked)
{
    uint8_t good[] = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2,  0,  0,
                      0, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    struct idx idx;
    struct err err = ERR_INIT;

    EXPECT_OK(idx_parse(good, sizeof(good), &idx, &err), &err);
    EXPECT_EQ(idx.count, 2);
    EXPECT_EQ(idx.rows, 2);
    EXPECT_EQ(idx.columns, 3);
    EXPECT_EQ(idx.bytes[11], 12);
    for (size_t n = 0; n < sizeof(good); n++) {
        struct err e = ERR_INIT;

        EXPECT_ERR(idx_parse(good, n, &idx, &e), ERR_INPUT, &e);
    }
    good[4] = 0xff; /* four billion pictures */
    EXPECT_ERR(idx_parse(good, sizeof(good), &idx, &err), ERR_INPUT, &err);
}

TEST(tar_survives_any_single_fault_without_lying)
{
    for (int nth = 0, fired = 1; fired; nth++) {
        char dir[TMPDIR_MAX];
        struct tarball t = {.fd = -1};
        struct digest d, again;
        struct err err = ERR_INIT;
        struct buf bytes;
        int fd = -1;
        enum err_code rc;

        tmpdir_new(dir);
        EXPECT_OK(os_open_dir(AT_FDCWD, dir, &fd, &err), &err);
        fault_arm(nth);
        rc = tarball_create(fd, "a.tar", &t, &err);
        if (!rc)
            rc = tarball_add(&t, "k.txt", "hello", 5, &err);
        if (!rc)
            rc = tarball_finish(&t, &d, &err);
        fired = fault_disarm();
        EXPECT_EQ(fired, rc != OK);
        tarball_release(&t);
        if (!rc) {
            buf_init(&bytes, 1 << 16);
            EXPECT_OK(os_read_file(fd, "a.tar", 1 << 16, &bytes, &err), &err);
            EXPECT_EQ(bytes.n, 512 + 512 + 1024);
            sha256_of(bytes.p, bytes.n, &again);
            EXPECT(digest_eq(&d, &again));
            buf_release(&bytes);
        }
        os_close_quiet(&fd);
        tmpdir_free(dir);
    }
}

TEST(bpe_learns_the_most_frequent_pairs)
{
    static const char text[] = "low low low lower newest newest newest newest "
                               "\xe8\x8b\xb9\xe6\x9e\x9c \xe8\x8b\xb9\xe6\x9e\x9c";
    struct bpe *b = bpe_new(3);
    int32_t ids[128];
    size_t n;
    struct buf back;

    bpe_feed(b, text, strlen(text));
    n = bpe_encode(b, "newest", 6, ids);
    EXPECT_EQ(n, 6);
    bpe_train(b, 3 + 256 + 20, 2);
    EXPECT(bpe_size(b) > 3 + 256 + 10);
    n = bpe_encode(b, text, strlen(text), ids);
    EXPECT(n < 15);
    buf_init(&back, 1 << 16);
    for (size_t i = 0; i < n; i++)
        bpe_token(b, ids[i], &back);
    /* the blank is written as U+0120 */
    EXPECT(strncmp(back.p, "low\xc4\xa0low\xc4\xa0low\xc4\xa0lower\xc4\xa0newest", 28) == 0);
    buf_release(&back);
    bpe_free(b);
}

TEST(record_lines_are_named_when_wrong)
{
    char *text = mem_strdup("{\"id\":\"a\"}\n\n{\"id\":}\n[1]\n");
    struct lines l;
    struct err err = ERR_INIT;
    json_t *v = NULL;

    EXPECT_OK(lines_split(text, strlen(text), &l, &err), &err);
    EXPECT_EQ(l.count, 3);
    EXPECT_OK(lines_row(&l, 0, "x.jsonl", &v, &err), &err);
    json_decref(v);
    EXPECT_ERR(lines_row(&l, 1, "x.jsonl", &v, &err), ERR_INPUT, &err);
    EXPECT(strncmp(err.text, "x.jsonl:3: ", 11) == 0);
    err = (struct err)ERR_INIT;
    EXPECT_ERR(lines_row(&l, 2, "x.jsonl", &v, &err), ERR_INPUT, &err);
    EXPECT(strncmp(err.text, "x.jsonl:4: ", 11) == 0);
    lines_release(&l);
}

RUN(one_licence_is_concluded_or_none, merging_drops_no_claim, expressions_have_a_form,
    dep5_finds_the_last_stanza_that_fits, free_text_is_not_guessed_at, short_names_become_spdx,
    idx_sizes_are_checked, tar_survives_any_single_fault_without_lying,
    bpe_learns_the_most_frequent_pairs, record_lines_are_named_when_wrong)
