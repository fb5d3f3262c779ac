/* Figures of the ledger: ledger_bench DIR [EVENTS]
 *
 * Appends events of about 200 bytes (350 with prev, seq and time), commits them in batches and one by one, replays and polls.  One line
 * each: name, value, unit.  DIR is on the file system to be measured; commits wait for its fsync.
 *
 *   gcc -O2 -D_GNU_SOURCE -I. tests/bench/orchestrator/ledger_bench.c build/libweir_orchestrator.a build/libweir_store.a
 *       build/libweir_base.a -ljansson -llmdb -lzstd -lyaml -lcrypto -lm -lpthread
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/os.h"
#include "orchestrator/record.h"
#include "orchestrator/share.h"

#define BATCH 1000
#define LONELY 200

struct bench {
    struct ledger *l;
    int64_t run, count;
    struct err err;
};

#define MUST(call)                                                                                 \
    do {                                                                                           \
        if ((call) != OK) {                                                                        \
            fprintf(stderr, "ledger_bench: %s\n", b->err.text);                                    \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static void line(const char *name, double value, const char *unit)
{
    printf("%s %.4g %s\n", name, value, unit);
    fflush(stdout);
}

static double cpu(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double wall(void)
{
    return (double)os_monotonic_ns() / 1e9;
}

static json_t *body(int64_t i)
{
    char task[64];

    snprintf(task, sizeof(task), "stage%lld[variant=v%lld]", (long long)i % 100, (long long)i);
    return json_pack("{s:s, s:s, s:I, s:s, s:i, s:s}", "event", "task.end", "task", task, "attempt",
                     (json_int_t)1, "status", "done", "wall_ms", 1234, "result",
                     "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
}

static void batched(struct bench *b)
{
    double append = 0, commit = 0, worst = 0;

    for (int64_t i = 0; i < b->count; i += BATCH) {
        json_t *bodies[BATCH];

        for (int k = 0; k < BATCH; k++)
            bodies[k] = body(i + k);
        const double t0 = cpu();
        for (int k = 0; k < BATCH; k++)
            MUST(ledger_append(b->l, b->run, bodies[k], &b->err));
        const double t1 = wall();
        append += cpu() - t0;
        MUST(ledger_commit(b->l, &b->err));
        commit += wall() - t1;
        worst = wall() - t1 > worst ? wall() - t1 : worst;
    }
    line("append", append / (double)b->count * 1e6, "us");
    line("commit_of_1000", commit / ((double)b->count / BATCH) * 1e3, "ms");
    line("commit_of_1000_worst", worst * 1e3, "ms");
    line("append_and_commit", (double)b->count / (append + commit), "events/s");
}

static enum err_code count(void *arg, int64_t seq, const json_t *event, struct err *err)
{
    (void)seq;
    (void)event;
    (void)err;
    ++*(int64_t *)arg;
    return OK;
}

static void others(struct bench *b)
{
    const struct share_limits limits = {64, INT64_C(1) << 40, 0};
    struct ledger_request q;
    struct share_owner owner;
    struct share *s = NULL;
    struct run_view *v = NULL;
    int64_t n = 0;
    bool got;
    double t = wall();

    for (int i = 0; i < LONELY; i++) {
        MUST(ledger_append(b->l, b->run, body(i), &b->err));
        MUST(ledger_commit(b->l, &b->err));
    }
    line("commit_of_1", (wall() - t) / LONELY * 1e3, "ms");
    t = wall();
    MUST(ledger_replay(b->l, b->run, 0, count, &n, &b->err));
    line("replay", (double)n / (wall() - t), "events/s");
    t = wall();
    MUST(run_view_load(NULL, b->l, b->run, &v, &b->err));
    line("run_view_load", (wall() - t) * 1e3, "ms");
    run_view_free(v);
    t = wall();
    for (int i = 0; i < 100000; i++)
        MUST(ledger_take_request(b->l, b->run, &q, &got, &b->err));
    line("poll_requests", (wall() - t) * 10, "us");
    MUST(share_join(b->l, b->run, &limits, &s, &b->err));
    t = wall();
    for (int i = 0; i < 10000; i++) {
        const struct digest key = {{(uint8_t)i, (uint8_t)(i >> 8)}};

        MUST(share_claim(s, &key, "task", &got, &owner, &b->err));
    }
    line("claim", (wall() - t) * 100, "us");
    share_leave(s);
}

int main(int argc, char **argv)
{
    const struct digest zero = {{0}};
    struct bench bench = {.err = ERR_INIT}, *b = &bench;
    char *end;

    if (argc < 2) {
        fprintf(stderr, "usage: ledger_bench DIR [EVENTS]\n");
        return 64;
    }
    b->count = argc > 2 ? strtoll(argv[2], &end, 10) : 50000;
    b->count -= b->count % BATCH;
    MUST(ledger_open(argv[1], LEDGER_WRITE, &b->l, &b->err));
    MUST(ledger_begin(b->l, "bench", &zero, 0, &b->run, &b->err));
    batched(b);
    others(b);
    ledger_close(b->l);
    return 0;
}
