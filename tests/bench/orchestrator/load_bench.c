/* load_bench.c - what reading and expanding a pipeline costs.  One line each: name, value, unit.
 *
 *   matrix_10k     100 stages x a matrix of 100, each task after one of the stage before
 *   matrix_100k    1,000 stages x 100
 *   stages_10k     the first, written out as 10,000 stages (1.3 MB of YAML)
 *   stages_50k     five times that; files end at 2,000,000 values
 *
 * Built by hand, from the root:  cc -std=c17 -O2 -D_GNU_SOURCE -I. tests/bench/orchestrator/load_bench.c \
 *     BUILD/libweir_{orchestrator,store,base}.a -lyaml -ljansson -lcrypto -lm -pthread
 *
 * Time is the best of several rounds, each in a process of its own, so that the peak of memory is its own too; cpu is user and
 * system.  "wall" is what a person waits for, cold caches of the process included.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "orchestrator/pipeline.h"

#define ROUNDS 9

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "load_bench: cannot %s\n", what);
    exit(1);
}

static double now(clockid_t clock)
{
    struct timespec t;

    must(clock_gettime(clock, &t) == 0, "read a clock");
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void head(struct buf *b)
{
    buf_str(b, "weir: 1\nname: bench\nsources: {s: {path: s, license: MIT}}\nstages:\n");
}

static void make_matrix(struct buf *b, int stages, int instances)
{
    head(b);
    for (int s = 0; s < stages; s++) {
        buf_printf(
            b,
            "  s%d:\n    run: [tool, --id, \"{params.id}\", \"{inputs.x}\", \"{outputs.out}\"]\n",
            s);
        buf_printf(
            b, "    outputs: [out]\n    params: {id: \"%d-${matrix.k}\"}\n    matrix: {k: [0", s);
        for (int k = 1; k < instances; k++)
            buf_printf(b, ", %d", k);
        if (s == 0)
            buf_str(b, "]}\n    inputs: {x: sources.s}\n");
        else
            buf_printf(b, "]}\n    inputs: {x: \"s%d[k=${matrix.k}].out\"}\n", s - 1);
    }
}

static void make_stages(struct buf *b, int stages, int instances)
{
    head(b);
    for (int s = 0; s < stages; s++)
        for (int k = 0; k < instances; k++) {
            buf_printf(b,
                       "  s%d-%d:\n    run: [tool, --id, \"{params.id}\", \"{inputs.x}\", "
                       "\"{outputs.out}\"]\n",
                       s, k);
            buf_printf(b, "    outputs: [out]\n    params: {id: %d-%d}\n", s, k);
            if (s == 0)
                buf_str(b, "    inputs: {x: sources.s}\n");
            else
                buf_printf(b, "    inputs: {x: s%d-%d.out}\n", s - 1, k);
        }
}

struct figures {
    double wall_ms, cpu_ms, peak_mib, kept_mib;
};

/* In a child, so that each round starts with nothing. */
static struct figures round_of(const char *path, size_t tasks)
{
    struct figures *f = mmap(NULL, sizeof(*f), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                             -1, 0),
                   copy;
    pid_t child;
    int status;

    must(f != MAP_FAILED, "share memory");
    child = fork();
    must(child >= 0, "fork");
    if (child == 0) {
        struct pipeline *p;
        struct err err = ERR_INIT;
        struct rusage usage;
        const double wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);

        must(pipeline_load(path, NULL, &p, NULL, &err) == OK, err.text);
        f->cpu_ms = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        f->wall_ms = now(CLOCK_MONOTONIC) - wall;
        must(p->task_count == tasks, "find as many tasks as there should be");
        must(getrusage(RUSAGE_SELF, &usage) == 0, "ask for the peak of memory");
        f->peak_mib = (double)usage.ru_maxrss / 1024;
        f->kept_mib = (double)p->arena.total / 1048576;
        _exit(0);
    }
    must(waitpid(child, &status, 0) == child && status == 0, "load");
    copy = *f;
    must(munmap(f, sizeof(*f)) == 0, "unmap");
    return copy;
}

static void bench(const char *name, void (*make)(struct buf *, int, int), int stages, int instances)
{
    const int fd = memfd_create("pipeline", 0);
    struct figures best = {0};
    struct buf text;
    char path[64];
    size_t bytes;

    buf_init(&text, PIPELINE_BYTES_MAX);
    make(&text, stages, instances);
    must(!text.failed && fd >= 0, "make the file");
    must(write(fd, text.p, text.n) == (ssize_t)text.n, "write the file");
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    bytes = text.n;
    buf_release(&text); /* the children would inherit it */
    for (int i = 0; i < ROUNDS; i++) {
        const struct figures f = round_of(path, (size_t)stages * (size_t)instances);

        if (i == 0 || f.wall_ms < best.wall_ms)
            best.wall_ms = f.wall_ms;
        if (i == 0 || f.cpu_ms < best.cpu_ms)
            best.cpu_ms = f.cpu_ms;
        best.peak_mib = f.peak_mib > best.peak_mib ? f.peak_mib : best.peak_mib;
        best.kept_mib = f.kept_mib;
    }
    printf("%s_yaml %.2f MiB\n", name, (double)bytes / 1048576);
    printf("%s_wall %.1f ms\n", name, best.wall_ms);
    printf("%s_cpu %.1f ms\n", name, best.cpu_ms);
    printf("%s_peak_rss %.1f MiB\n", name, best.peak_mib);
    printf("%s_kept %.1f MiB\n", name, best.kept_mib);
    (void)fflush(stdout);
    must(close(fd) == 0, "close");
}

int main(void)
{
    bench("matrix_10k", make_matrix, 100, 100);
    bench("matrix_100k", make_matrix, 1000, 100);
    bench("stages_10k", make_stages, 100, 100);
    bench("stages_50k", make_stages, 100, 500);
    return 0;
}
