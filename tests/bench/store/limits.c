/* limits.c - what this machine can do at best, in the run whose ratios are printed.
 *
 *   limits DIR FILE   prints, a line each: name, value, unit
 *     sha256           MiB/s of one core, from memory
 *     sha256_all       MiB/s of all cores together; less than their sum where two share one core's units
 *     hash_file        seconds to read FILE (cached) and hash it on one core
 *     durable_write    seconds to write a copy of FILE's size past the page cache and fsync it
 *     cached_write     the same through the page cache
 *     stat             a second's worth of stats of existing files
 *
 * Best of three each (hashing: of twelve).   cc -O2 limits.c -lcrypto -lpthread -o limits
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define STEP ((size_t)8 << 20)
#define ROUNDS 3
#define HASH_ROUNDS 12
#define THREADS_MAX 64

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void die(const char *what)
{
    perror(what);
    exit(74);
}

static double hash_memory(uint8_t *p)
{
    unsigned char digest[32];
    const double start = now();

    if (EVP_Digest(p, STEP, digest, NULL, EVP_sha256(), NULL) != 1)
        die("EVP_Digest");
    return now() - start;
}

static void *hash_some(void *p)
{
    for (int i = 0; i < 8; i++)
        hash_memory(p);
    return NULL;
}

/* Seconds for so many threads to hash STEP each. */
static double hash_on_all(uint8_t *p, int threads)
{
    pthread_t id[THREADS_MAX];
    const double start = now();

    for (int i = 0; i < threads; i++)
        if (pthread_create(&id[i], NULL, hash_some, p) != 0)
            die("pthread_create");
    for (int i = 0; i < threads; i++)
        pthread_join(id[i], NULL);
    return (now() - start) / 8;
}

static double hash_file(const char *path, uint8_t *p)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    const int fd = open(path, O_RDONLY);
    const double start = now();
    unsigned char digest[32];
    ssize_t n;

    if (fd < 0 || !ctx || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1)
        die(path);
    while ((n = read(fd, p, (size_t)256 << 10)) > 0)
        EVP_DigestUpdate(ctx, p, (size_t)n);
    EVP_DigestFinal_ex(ctx, digest, NULL);
    EVP_MD_CTX_free(ctx);
    close(fd);
    return now() - start;
}

static double write_out(const char *dir, int64_t size, int flags, const uint8_t *p)
{
    char path[4096];
    double start;
    int fd;

    snprintf(path, sizeof(path), "%s/limits.tmp", dir);
    unlink(path);
    sync();
    start = now();
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | flags, 0600);
    if (fd < 0)
        return -1; /* no such writes here */
    for (int64_t left = size; left > 0; left -= (int64_t)STEP) {
        if (write(fd, p, STEP) != (ssize_t)STEP)
            die(path);
        if (!flags)
            sync_file_range(fd, size - left, (off_t)STEP, SYNC_FILE_RANGE_WRITE);
    }
    if (fsync(fd) != 0)
        die(path);
    close(fd);
    start = now() - start;
    unlink(path);
    return start;
}

static double stats_a_second(const char *path)
{
    const double start = now();
    struct stat st;

    for (int i = 0; i < 100000; i++)
        if (lstat(path, &st) != 0)
            die(path);
    return 100000 / (now() - start);
}

int main(int argc, char **argv)
{
    double best[5] = {1e9, 1e9, 1e9, 1e9, 0}, all = 1e9;
    long threads = sysconf(_SC_NPROCESSORS_ONLN);
    uint8_t *p = aligned_alloc(4096, STEP);
    struct stat st;

    if (argc != 3 || !p) {
        fprintf(stderr, "usage: limits DIR FILE\n");
        return 64;
    }
    if (stat(argv[2], &st) != 0)
        die(argv[2]);
    for (size_t i = 0; i < STEP; i++)
        p[i] = (uint8_t)(i * 2654435761u >> 11);
    for (int i = 0; i < ROUNDS; i++) {
        const double t[5] = {
            hash_memory(p),
            hash_file(argv[2], p),
            write_out(argv[1], st.st_size, O_DIRECT, p),
            write_out(argv[1], st.st_size, 0, p),
            stats_a_second(argv[2]),
        };

        for (int k = 0; k < 4; k++)
            best[k] = t[k] < best[k] ? t[k] : best[k];
        best[4] = t[4] > best[4] ? t[4] : best[4];
    }
    if (threads > THREADS_MAX)
        threads = THREADS_MAX;
    for (int i = 0; i < HASH_ROUNDS; i++) {
        const double one = hash_memory(p), many = hash_on_all(p, (int)threads);

        best[0] = one < best[0] ? one : best[0];
        all = many < all ? many : all;
    }
    printf("sha256 %.0f MiB/s\n", 8 / best[0]);
    printf("sha256_all %.0f MiB/s\n", 8 * (double)threads / all);
    printf("hash_file %.3f s\n", best[1]);
    printf("durable_write %.3f s\n", best[2] > 0 ? best[2] : best[3]);
    printf("cached_write %.3f s\n", best[3]);
    printf("stat %.0f /s\n", best[4]);
    return 0;
}
