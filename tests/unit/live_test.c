/* Lines of a run in progress: durations, what programs say of themselves, and widths. */
#include <stdio.h>
#include <string.h>

#include "orchestrator/cli/live.h"
#include "tests/check.h"

TEST(durations)
{
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {{0, "0.00s"},       {5, "0.00s"},       {350, "0.35s"},
                 {9999, "9.99s"},    {10000, "10s"},     {59999, "59s"},
                 {60000, "1m00s"},   {192000, "3m12s"},  {3599999, "59m59s"},
                 {3600000, "1h00m"}, {7500000, "2h05m"}, {360000000, "100h00m"}};
    char text[24];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        live_duration(cases[i].ms, text);
        EXPECT_STR(text, cases[i].text);
    }
}

static struct live_progress parse(const char *text)
{
    struct live_progress p;

    live_progress_parse(text, strlen(text), &p);
    return p;
}

static const char *line(const struct live_progress *p, int64_t ms, double rate)
{
    static char text[512];
    struct buf b;

    buf_init(&b, 4096);
    live_progress_text(p, ms, rate, &b);
    snprintf(text, sizeof(text), "%s", b.p);
    buf_release(&b);
    return text;
}

TEST(the_last_event_of_a_kind_counts)
{
    struct live_progress p =
        parse("{\"event\":\"progress\",\"done\":1,\"total\":600,\"unit\":\"steps\"}\n"
              "{\"event\":\"metric\",\"step\":1,\"values\":{\"loss\":0.5}}\n"
              "{\"event\":\"progress\",\"done\":384,\"total\":600,\"unit\":\"steps\"}\n"
              "{\"event\":\"metric\",\"step\":384,\"values\":{\"loss\":0.391}}\n"
              "{\"event\":\"progress\",\"done\":385,\"total\":600"); /* being written */

    EXPECT(p.known);
    EXPECT(p.done == 384);
    EXPECT(p.total == 600);
    EXPECT_STR(p.unit, "steps");
    EXPECT_STR(p.metrics, "loss 0.391");
    EXPECT_STR(line(&p, 60000, 5.4), "\u25b6  64%  384/600 steps  5.4/s  loss 0.391  eta 40s");
    EXPECT_STR(line(&p, 60000, 0), "\u25b6  64%  384/600 steps  loss 0.391");
}

TEST(nothing_said_is_a_clock)
{
    struct live_progress p = parse("");

    EXPECT(!p.known);
    EXPECT_STR(line(&p, 41000, 0), "\u25b6 41s");
    p = parse(
        "{\"event\":\"metric\",\"step\":1,\"values\":{\"loss\":null,\"a\":1,\"b\":2,\"c\":3}}\n");
    EXPECT(strstr(p.metrics, "loss nan"));
    EXPECT_EQ(strstr(p.metrics, "c 3") != NULL, 0); /* three of them fit */
}

/* Numbers that no honest program says must not end up as a percentage of 4000 or an estimate of a century. */
TEST(foolish_numbers)
{
    struct live_progress p =
        parse("{\"event\":\"progress\",\"done\":900,\"total\":600,\"unit\":\"\"}\n");

    EXPECT_STR(line(&p, 0, 1), "\u25b6 100%  900/600  1/s");
    p = parse("{\"event\":\"progress\",\"done\":-5,\"total\":600,\"unit\":\"steps\"}\n");
    EXPECT_STR(line(&p, 1000, 0), "\u25b6 1.00s");
    p = parse("{\"event\":\"progress\",\"done\":1,\"total\":0,\"unit\":\"steps\"}\n");
    EXPECT_STR(line(&p, 1000, 0), "\u25b6 1.00s");
    p = parse("{\"event\":\"progress\",\"done\":1,\"total\":1e300,\"unit\":\"steps\"}\n");
    EXPECT(!strstr(line(&p, 1000, 1), "eta"));
    p = parse("{\"event\":\"progress\",\"done\":599.9,\"total\":600,\"unit\":\"steps\"}\n");
    EXPECT(strstr(line(&p, 1000, 0), " 99%")); /* 100 is for what is done */
}

TEST(hostile_text)
{
    struct live_progress p = parse(
        "no json\n[]\n{}\n\n{\"event\":7}\n{\"event\":\"progress\",\"done\":\"x\",\"total\":[]}\n"
        "{\"event\":\"metric\",\"values\":{\"evil\\u001b[31m\":1,\"\\u009b2J\":2}}\n"
        "{\"event\":\"progress\",\"done\":1,\"total\":2,\"unit\":\"a\\u001b]0;title\\u0007\"}\n");
    const char *text = line(&p, 0, 0);
    char long_unit[400];

    EXPECT(!strchr(text, '\x1b'));
    EXPECT(!strstr(text, "\xc2\x9b"));
    EXPECT(strstr(text, "evil%1B[31m"));
    /* Cut at a whole character: 31 bytes would split an é. */
    snprintf(long_unit, sizeof(long_unit),
             "{\"event\":\"progress\",\"done\":1,\"total\":2,\"unit\":\"x%s\"}\n",
             "éééééééééééééééééééé");
    p = parse(long_unit);
    EXPECT_EQ(strlen(p.unit) % 2, 1);
    EXPECT(strlen(p.unit) >= 29);
}

static void expect_cut(const char *text, int columns, const char *cut, int taken)
{
    struct buf b;

    buf_init(&b, 4096);
    buf_str(&b, text);
    EXPECT_EQ(live_cut(&b, columns), taken);
    EXPECT_STR(b.p, cut);
    buf_release(&b);
}

TEST(cut_to_columns)
{
    expect_cut("", 5, "", 0);
    expect_cut("abcde", 5, "abcde", 5);
    expect_cut("abcdef", 5, "abcd…", 5);
    expect_cut("äöüßé", 5, "äöüßé", 5);
    expect_cut("äöüßéx", 5, "äöüß…", 5);
    expect_cut("絵絵絵", 6, "絵絵絵", 6); /* two columns each */
    expect_cut("絵絵絵", 5, "絵絵…", 5);
    expect_cut("絵絵絵", 4, "絵…", 3);
    expect_cut("e\xcc\x81x", 2, "e\xcc\x81x", 2); /* a combining accent takes none */
    expect_cut("ab", 1, "…", 1);
}

TEST(text_for_terminals)
{
    struct buf b;

    buf_init(&b, 4096);
    live_clean(&b, "100% \x1b[2J\xff é\n", 14);
    EXPECT_STR(b.p, "100% %1B[2J%FF é%0A");
    buf_release(&b);
}

RUN(durations, the_last_event_of_a_kind_counts, nothing_said_is_a_clock, foolish_numbers,
    hostile_text, cut_to_columns, text_for_terminals)
