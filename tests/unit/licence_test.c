#include <string.h>

#include "orchestrator/licence.h"
#include "tests/check.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

TEST(expressions_parse_or_say_why)
{
    static const struct {
        const char *text, *why; /* NULL: fine */
    } cases[] = {
        {"MIT", NULL},
        {"mit", NULL},
        {" MIT ", NULL},
        {"CC-BY-4.0", NULL},
        {"GPL-2.0+", NULL},
        {"MIT OR Apache-2.0", NULL},
        {"MIT AND(ISC OR Zlib)", NULL},
        {"((((MIT))))", NULL},
        {"GPL-2.0-only WITH Classpath-exception-2.0 OR MIT", NULL},
        {"LicenseRef-a.b-c", NULL},
        {"DocumentRef-x:LicenseRef-y", NULL},
        {"NOASSERTION", NULL},
        {"NONE", NULL},
        {"", "an SPDX expression is empty"},
        {"  ", "a licence is missing at the end in '  '"},
        {"MIT OR", "a licence is missing at the end in 'MIT OR'"},
        {"OR MIT", "a licence is missing next to AND, OR or WITH in 'OR MIT'"},
        {"MIT Apache-2.0", "AND, OR or WITH is missing between two licences in 'MIT Apache-2.0'"},
        {"(MIT Apache-2.0)", "AND or OR is missing between two licences in '(MIT Apache-2.0)'"},
        {"(MIT", "a ')' is missing in '(MIT'"},
        {"MIT)", "a ')' has no '(' in 'MIT)'"},
        {"()", "a licence is missing before a parenthesis in '()'"},
        {"MIT and ISC", "AND, OR and WITH must be capitals in 'MIT and ISC'"},
        {"MIT WITH", "an exception is missing after WITH in 'MIT WITH'"},
        {"MIT WITH MIT",
         "MIT is no SPDX exception; what is not on the SPDX list is written LicenseRef-MIT"},
        {"M/T", "licence ids consist of letters, digits, '-' and '.' in 'M/T'"},
        {"+", "licence ids consist of letters, digits, '-' and '.' in '+'"},
        {"x:y", "':' stands only in DocumentRef-X:LicenseRef-Y in 'x:y'"},
        {"DocumentRef-x:y", "':' stands only in DocumentRef-X:LicenseRef-Y in 'DocumentRef-x:y'"},
        {"CC-BY-4", "CC-BY-4 is no SPDX licence; did you mean CC-BY-4.0?"},
        {"Proprietary", "Proprietary is no SPDX licence; what is not on the SPDX list is written "
                        "LicenseRef-Proprietary"},
        {"LicenseRef-", "LicenseRef- is no SPDX licence; what is not on the SPDX list is written "
                        "LicenseRef-LicenseRef-"},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        struct buf why;

        buf_init(&why, 1000);
        EXPECT_EQ(licence_expression_ok(cases[i].text, NULL), cases[i].why == NULL);
        EXPECT_EQ(licence_expression_ok(cases[i].text, &why), cases[i].why == NULL);
        if (cases[i].why)
            EXPECT_STR(why.p, cases[i].why);
        else
            EXPECT_EQ(why.n, 0);
        buf_release(&why);
    }
}

TEST(nesting_and_length_are_bounded)
{
    char text[2 * LICENCE_BYTES_MAX];

    for (int depth = 30; depth < 40; depth++) {
        memset(text, '(', (size_t)depth);
        memcpy(text + depth, "MIT", 3);
        memset(text + depth + 3, ')', (size_t)depth);
        text[2 * depth + 3] = '\0';
        EXPECT_EQ(licence_expression_ok(text, NULL), depth <= 32);
    }
    text[0] = '\0';
    for (size_t n = 0; n < 1000; n += 10)
        memcpy(text + n, "MIT OR MIT", 11);
    EXPECT(!licence_expression_ok(text, NULL)); /* MITMIT */
    for (size_t n = 0; n + 8 < sizeof(text); n += 7)
        memcpy(text + n, "MIT OR MIT", 11 < sizeof(text) - n ? 11 : sizeof(text) - n);
    text[sizeof(text) - 1] = '\0';
    EXPECT(!licence_expression_ok(text, NULL));
    memset(text, 'a', 200);
    text[200] = '\0';
    EXPECT(!licence_expression_ok(text, NULL));
}

TEST(policies_list_single_licences)
{
    EXPECT(licence_is_single("MIT", NULL));
    EXPECT(licence_is_single("GPL-2.0-only WITH Classpath-exception-2.0", NULL));
    EXPECT(licence_is_single("LicenseRef-x ", NULL));
    EXPECT(!licence_is_single("MIT OR ISC", NULL));
    EXPECT(!licence_is_single("(MIT)", NULL));
    EXPECT(!licence_is_single("", NULL));
}

TEST(a_policy_lets_pass_what_it_should)
{
    static const struct {
        const char *text, *deny[4], *allow[4], *why; /* NULL: passes */
    } cases[] = {
        {"MIT", {NULL}, {NULL}, NULL},
        {"MIT", {"MIT", NULL}, {NULL}, "MIT is denied"},
        {"mit", {"MIT", NULL}, {NULL}, "mit is denied"},
        {"MIT", {"ISC", NULL}, {NULL}, NULL},
        /* OR passes if one branch passes, AND needs all */
        {"MIT OR ISC", {"MIT", NULL}, {NULL}, NULL},
        {"MIT OR ISC", {"MIT", "ISC", NULL}, {NULL}, "MIT is denied, ISC is denied"},
        {"MIT AND ISC", {"ISC", NULL}, {NULL}, "ISC is denied"},
        {"MIT AND (ISC OR Zlib)", {"ISC", NULL}, {NULL}, NULL},
        {"(MIT AND ISC) OR Zlib", {"Zlib", NULL}, {NULL}, NULL},
        {"MIT OR ISC AND Zlib", {"MIT", "Zlib", NULL}, {NULL}, "MIT is denied, Zlib is denied"},
        /* allow_only: when not empty, all else is denied; a LicenseRef must be listed */
        {"MIT", {NULL}, {"MIT", NULL}, NULL},
        {"ISC", {NULL}, {"MIT", NULL}, "ISC is not in allow_only"},
        {"LicenseRef-a", {NULL}, {"MIT", NULL}, "LicenseRef-a is not in allow_only"},
        {"LicenseRef-a", {NULL}, {"LicenseRef-a", NULL}, NULL},
        {"LicenseRef-a", {NULL}, {NULL}, NULL},
        {"MIT", {"MIT", NULL}, {"MIT", NULL}, "MIT is denied"},
        {"NOASSERTION", {"NOASSERTION", NULL}, {NULL}, "NOASSERTION is denied"},
        {"NOASSERTION", {NULL}, {"MIT", NULL}, "NOASSERTION is not in allow_only"},
        /* or later, and exceptions */
        {"GPL-2.0+", {"GPL-2.0", NULL}, {NULL}, "GPL-2.0+ is denied"},
        {"GPL-2.0+", {NULL}, {"GPL-2.0", NULL}, NULL},
        {"GPL-2.0-only WITH Classpath-exception-2.0",
         {"GPL-2.0-only", NULL},
         {NULL},
         "GPL-2.0-only WITH Classpath-exception-2.0 is denied"},
        {"GPL-2.0-only",
         {NULL},
         {"GPL-2.0-only WITH Classpath-exception-2.0", NULL},
         "GPL-2.0-only is not in allow_only"},
        {"GPL-2.0-only WITH Classpath-exception-2.0",
         {NULL},
         {"GPL-2.0-only WITH Classpath-exception-2.0", NULL},
         NULL},
        {"MIT AND", {NULL}, {NULL}, "a licence is missing at the end in 'MIT AND'"},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        struct buf why;

        buf_init(&why, 1000);
        EXPECT_EQ(licence_passes(cases[i].text, cases[i].deny, cases[i].allow, NULL),
                  cases[i].why == NULL);
        EXPECT_EQ(licence_passes(cases[i].text, cases[i].deny, cases[i].allow, &why),
                  cases[i].why == NULL);
        EXPECT_STR(why.p ? why.p : "", cases[i].why ? cases[i].why : "");
        buf_release(&why);
    }
}

TEST(the_parts_of_a_dataset_are_judged)
{
    static const char *const deny[] = {"CC-BY-NC-4.0", "NOASSERTION", NULL}, *const none[] = {NULL};
    const struct licence_policy p = {deny, none}, open = {none, none};
    static const struct {
        const char *json, *says; /* NULL: passes */
        enum err_code code;
    } cases[] = {
        {"[]", NULL, OK},
        {"{\"licenses\":[{\"expression\":\"MIT\",\"source\":\"a\",\"pictures\":1,\"share\":1}]}",
         NULL, OK},
        {"[{\"expression\":\"CC-BY-NC-4.0 OR MIT\"}]", NULL, OK},
        {"[{\"expression\":\"MIT\"},{\"expression\":\"CC-BY-NC-4.0\",\"source\":\"web\"},"
         "{\"expression\":\"CC-BY-NC-4.0\",\"source\":\"web\"},{\"expression\":\"NOASSERTION\"}]",
         "", ERR_DENIED},
        {"[{\"expression\":\"MTI\"}]", "set: entry 1: MTI is no SPDX licence", ERR_INPUT},
        {"[{\"licence\":\"MIT\"}]", "set: entry 1 has no \"expression\"", ERR_INPUT},
        {"{\"licences\":[]}", "set is no list", ERR_INPUT},
        {"3", "set is no list", ERR_INPUT},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        struct err err = ERR_INIT;
        struct buf lines;
        json_t *v = NULL;

        buf_init(&lines, 1 << 16);
        EXPECT_OK(json_parse(cases[i].json, strlen(cases[i].json), 1 << 16, "parts", &v, &err),
                  &err);
        EXPECT_EQ(licence_judge_parts(&p, v, "set", &lines, &err), cases[i].code);
        if (cases[i].code == ERR_DENIED) {
            EXPECT_STR(lines.p,
                       "set, source web: CC-BY-NC-4.0 is denied\nset: NOASSERTION is denied\n");
            EXPECT_STR(err.text, "set, source web: CC-BY-NC-4.0 is denied");
            err = (struct err)ERR_INIT;
            EXPECT_OK(licence_judge_parts(&open, v, "set", NULL, &err), &err);
        } else {
            EXPECT_EQ(lines.n, 0);
            EXPECT(strstr(err.text, cases[i].says ? cases[i].says : "") == err.text);
        }
        json_decref(v);
        buf_release(&lines);
    }
}

RUN(the_parts_of_a_dataset_are_judged, expressions_parse_or_say_why, nesting_and_length_are_bounded,
    policies_list_single_licences, a_policy_lets_pass_what_it_should)
