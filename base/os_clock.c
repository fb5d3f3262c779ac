/* The parts of os.h that touch no file: clocks, randomness, processors. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "base/os.h"

#define NS_PER_S 1000000000

static pthread_once_t now_once = PTHREAD_ONCE_INIT;
static atomic_int_fast64_t now_frozen; /* 0: the real clock */

static void now_from_env(void)
{
    const char *spec = getenv("WEIR_NOW_NS");
    struct err err = ERR_INIT;
    int64_t ns;

    if (!spec)
        return;
    CHECK(str_to_i64(str_of(spec), 1, INT64_MAX, &ns, &err) == OK && "WEIR_NOW_NS is nanoseconds");
    atomic_store(&now_frozen, ns);
}

static int64_t clock_ns(clockid_t clock)
{
    struct timespec ts;

    CHECK(clock_gettime(clock, &ts) == 0);
    return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

int64_t os_now_ns(void)
{
    CHECK(pthread_once(&now_once, now_from_env) == 0);

    const int64_t frozen = atomic_load(&now_frozen);

    return frozen ? frozen : clock_ns(CLOCK_REALTIME);
}

int64_t os_monotonic_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

void os_set_now(int64_t ns)
{
    CHECK(pthread_once(&now_once, now_from_env) == 0); /* else the environment could win later */
    CHECK(ns >= 0);
    atomic_store(&now_frozen, ns);
}

void os_random(void *p, size_t n)
{
    size_t done = 0;

    while (done < n) {
        const ssize_t r = getrandom((unsigned char *)p + done, n - done, 0);

        CHECK(r > 0 || (r < 0 && errno == EINTR));
        if (r > 0)
            done += (size_t)r;
    }
}

int os_cpu_count(void)
{
    /* The kernel refuses a set smaller than its own, and 1024 processors are no longer the end. */
    for (int most = 1024; most <= 1 << 20; most *= 2) {
        const size_t size = CPU_ALLOC_SIZE(most);
        cpu_set_t *set = mem_zero(1, size);
        const bool ok = sched_getaffinity(0, size, set) == 0;
        const int count = ok ? CPU_COUNT_S(size, set) : 0;

        free(set);
        if (ok)
            return count > 0 ? count : 1;
        if (errno != EINVAL)
            break;
    }
    return 1;
}
