/* The orchestrator, killed after every record of a run of 50 tasks with failures, retries, losses, matrix and fan-in, in virtual time.
 *
 * Whoever goes on has the records and nothing else.  The run must come to the same end for every task as without the kill, and no task may
 * be begun again once its result was there.  The same with records in a list, with kill upon kill, after a stop, and with the real ledger. */
#include "base/os.h"
#include "orchestrator/ledger.h"
#include "tests/sched_life.h"

#define SEEDS 6
#define LIVES_MAX 400
#define EPOCH_MS INT64_C(1700000000000) /* the ledger's clock cannot be set to 0 */

struct records { /* in memory: what is in the list is durable */
    json_t *list;
    size_t kill_after; /* that many more, then the process is dead; 0: never */
};

static bool keep(void *arg, const json_t *body)
{
    struct records *k = arg;

    EXPECT_EQ(json_array_append_new(k->list, json_deep_copy(body)), 0);
    return k->kill_after == 0 || --k->kill_after > 0;
}

static void replay(void *arg, struct life *l)
{
    const struct records *k = arg;

    for (size_t i = 0; i < json_array_size(k->list); i++)
        life_fold(l, json_array_get(k->list, i));
}

/* One life of the orchestrator; did it come to the end of the run? */
static bool live(struct rig *r, const struct life_hooks *hooks, int64_t stop_at_ms,
                 enum sched_state *ends)
{
    struct life l;
    bool finished;

    life_begin(&l, r, hooks);
    l.stop_at_ms = stop_at_ms;
    life_run(&l);
    finished = l.finished;
    for (size_t i = 0; finished && i < r->n; i++)
        ends[i] = sched_state_of(l.s, (int)i);
    if (finished)
        EXPECT_EQ(fake_alive(r->world), 0);
    life_end(&l);
    return finished;
}

static void expect_ends(const struct rig *r, const enum sched_state *ends,
                        const enum sched_state *model, const char *what, size_t at)
{
    EXPECT(!r->done_twice);
    for (size_t i = 0; i < r->n; i++)
        if (ends[i] != model[i])
            fail_msg("%s %zu: task %zu is %s instead of %s", what, at, i,
                     sched_state_words[ends[i]], sched_state_words[model[i]]);
}

struct tally {
    size_t done, failed, blocked, cached, retries, records;
};

/* Without any kill: as many records as there are instants to die at. */
static size_t undisturbed(uint64_t seed, struct tally *t)
{
    struct records k = {.list = json_array()};
    const struct life_hooks hooks = {.keep = keep, .replay = replay, .arg = &k};
    enum sched_state ends[64] = {0};
    enum sched_state *model;
    size_t count;
    struct rig r;

    rig_fixed(&r, seed, 30);
    model = rig_model(&r);
    EXPECT(live(&r, &hooks, -1, ends));
    expect_ends(&r, ends, model, "undisturbed, seed", (size_t)seed);
    count = json_array_size(k.list);
    t->records += count;
    for (size_t i = 0; i < r.n; i++) {
        t->done += ends[i] == SCHED_DONE;
        t->failed += ends[i] == SCHED_FAILED;
        t->blocked += ends[i] == SCHED_BLOCKED;
        t->cached += ends[i] == SCHED_CACHED;
        t->retries += r.about[i].used[2] != 0;
    }
    free(model);
    rig_free(&r);
    json_decref(k.list);
    return count;
}

TEST(killed_after_every_record_it_comes_to_the_same_end)
{
    struct tally t = {0};

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        const size_t count = undisturbed(seed, &t);

        for (size_t at = 1; at < count; at++) {
            struct records k = {.list = json_array(), .kill_after = at};
            const struct life_hooks hooks = {.keep = keep, .replay = replay, .arg = &k};
            enum sched_state ends[64] = {0};
            enum sched_state *model;
            struct rig r;

            rig_fixed(&r, seed, 30);
            model = rig_model(&r);
            EXPECT(!live(&r, &hooks, -1, ends));
            fake_pass(r.world, (int64_t)(at * 37 % 700));
            EXPECT(live(&r, &hooks, -1, ends));
            expect_ends(&r, ends, model, "killed after record", at);
            free(model);
            rig_free(&r);
            json_decref(k.list);
        }
    }
    print_message("%zu records in %d runs: %zu done, %zu failed, %zu blocked, %zu cached, %zu "
                  "tried again\n",
                  t.records, SEEDS, t.done, t.failed, t.blocked, t.cached, t.retries);
    /* The pipeline had something of everything. */
    EXPECT(t.done > 60 && t.failed > 3 && t.blocked > 3 && t.cached > 6 && t.retries > 30);
}

TEST(killed_again_and_again_at_any_record)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct records k = {.list = json_array()};
        const struct life_hooks hooks = {.keep = keep, .replay = replay, .arg = &k};
        enum sched_state ends[64] = {0};
        enum sched_state *model;
        struct rig r;
        int lives = 0;

        rig_fixed(&r, seed, 15);
        model = rig_model(&r);
        do {
            EXPECT(lives++ < LIVES_MAX);
            k.kill_after = 2 + (size_t)rig_below(&r, 60);
            fake_pass(r.world, rig_below(&r, 300));
        } while (!live(&r, &hooks, -1, ends));
        EXPECT(lives > 1);
        expect_ends(&r, ends, model, "killed again and again, seed", (size_t)seed);
        free(model);
        rig_free(&r);
        json_decref(k.list);
    }
}

/* One that stops by itself while everything is asked to stop has not used a try, so the model would not know. */
static void no_stops_of_their_own(struct rig *r)
{
    for (size_t i = 0; i < r->n; i++)
        for (size_t k = 0; k < r->about[i].outcome_count; k++)
            if (r->about[i].outcomes[k].end == ATTEMPT_STOPPED) {
                r->about[i].outcomes[k].end = ATTEMPT_FAILED;
                r->about[i].outcomes[k].exit_status = 1;
            }
}

static int count_of(const struct rig *r, const enum sched_state *ends, enum sched_state state)
{
    int count = 0;

    for (size_t i = 0; i < r->n; i++)
        count += ends[i] == state;
    return count;
}

TEST(stopped_killed_and_gone_on_with_it_comes_to_the_same_end)
{
    int stopped = 0;

    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct records k = {.list = json_array()};
        const struct life_hooks hooks = {.keep = keep, .replay = replay, .arg = &k};
        enum sched_state ends[64] = {0};
        enum sched_state *model;
        struct rig r;

        rig_fixed(&r, seed, 20);
        no_stops_of_their_own(&r);
        model = rig_model(&r);
        for (int life = 0; life < 4; life++) {
            const int64_t soon = fake_now_ms(r.world) + rig_below(&r, 2500);

            k.kill_after = life == 2 ? 1 + (size_t)rig_below(&r, 50) : 0;
            (void)live(&r, &hooks, life < 3 ? soon : -1, ends);
            stopped += count_of(&r, ends, SCHED_STOPPED);
            fake_pass(r.world, rig_below(&r, 300));
        }
        expect_ends(&r, ends, model, "stopped, seed", (size_t)seed);
        free(model);
        rig_free(&r);
        json_decref(k.list);
    }
    EXPECT(stopped > 1000);
}

/* ---- with the ledger --------------------------------------------------------------------------- */

struct real {
    struct ledger *ledger;
    struct rig *rig;
    int64_t run;
    size_t kill_after;
    bool torn; /* the last record was appended and not committed */
};

static bool keep_real(void *arg, const json_t *body)
{
    struct real *k = arg;
    struct err err = ERR_INIT;
    json_t *own = json_deep_copy(body);
    const bool last = k->kill_after == 1;

    k->kill_after -= k->kill_after > 0;
    EXPECT_EQ(json_object_del(own, "time"), 0); /* the ledger's */
    os_set_now(fake_now_ms(k->rig->world) * 1000000);
    EXPECT_OK(ledger_append(k->ledger, k->run, own, &err), &err);
    if (!last || !k->torn)
        EXPECT_OK(ledger_commit(k->ledger, &err), &err);
    return !last;
}

static enum err_code fold(void *arg, int64_t seq, const json_t *body, struct err *err)
{
    (void)seq;
    (void)err;
    life_fold(arg, body);
    return OK;
}

static void replay_real(void *arg, struct life *l)
{
    struct real *k = arg;
    struct err err = ERR_INIT;

    EXPECT_OK(ledger_replay(k->ledger, k->run, 0, fold, l, &err), &err);
}

static void kill_real(const char *dir, size_t at, bool torn)
{
    struct rig r;
    struct real k = {.kill_after = at, .torn = torn, .rig = &r};
    const struct life_hooks hooks = {.keep = keep_real, .replay = replay_real, .arg = &k};
    const struct digest options = {{1}};
    struct err err = ERR_INIT;
    enum sched_state ends[64] = {0};
    enum sched_state *model;
    int64_t events = 0;

    rig_fixed(&r, 3, 30);
    fake_pass(r.world, EPOCH_MS);
    model = rig_model(&r);
    EXPECT_OK(ledger_open(dir, LEDGER_WRITE, &k.ledger, &err), &err);
    EXPECT_OK(ledger_begin(k.ledger, "sim", &options, 0, &k.run, &err), &err);
    EXPECT(!live(&r, &hooks, -1, ends));
    ledger_close(k.ledger); /* what was not committed did not happen */
    EXPECT_OK(ledger_open(dir, LEDGER_WRITE, &k.ledger, &err), &err);
    EXPECT(live(&r, &hooks, -1, ends));
    EXPECT_OK(ledger_verify(k.ledger, k.run, &events, &err), &err);
    EXPECT(events > 50);
    ledger_close(k.ledger);
    os_set_now(0);
    expect_ends(&r, ends, model, torn ? "torn at record" : "with the ledger, killed after record",
                at);
    free(model);
    rig_free(&r);
}

TEST(with_the_ledger_too)
{
    struct tally t = {0};
    const size_t count = undisturbed(3, &t);
    char dir[TMPDIR_MAX];

    tmpdir_new(dir);
    for (size_t at = 1; at < count - 5; at += 1 + at % 4) {
        kill_real(dir, at, false);
        kill_real(dir, at, true);
    }
    tmpdir_free(dir);
}

RUN(killed_after_every_record_it_comes_to_the_same_end, killed_again_and_again_at_any_record,
    stopped_killed_and_gone_on_with_it_comes_to_the_same_end, with_the_ledger_too)
