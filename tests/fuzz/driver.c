/* driver.c - replays a corpus through a fuzz target, where libFuzzer is not linked in.
 *
 * Arguments are files and directories; words that start with '-' are libFuzzer's options and are passed over, so the
 * same command line works with both.  The empty input is always tried first, as libFuzzer does.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

static long inputs;

static void die(const char *what, const char *path)
{
    fprintf(stderr, "fuzz driver: cannot %s %s: %s\n", what, path, strerror(errno));
    exit(66);
}

static void run(const uint8_t *data, size_t size)
{
    LLVMFuzzerTestOneInput(data, size);
    inputs++;
}

static void replay_file(const char *path, off_t size)
{
    FILE *f = fopen(path, "rb");
    size_t n = (size_t)size;
    /* Exactly as large as the input, so that reading one byte too far is seen. */
    uint8_t *data = malloc(n ? n : 1);

    if (!f)
        die("open", path);
    if (!data)
        die("find memory for", path);
    if (fread(data, 1, n, f) != n)
        die("read", path);
    fclose(f);
    fprintf(stderr, "%s\n", path); /* so that a crash names its input */
    run(data, n);
    free(data);
}

static void replay(const char *path)
{
    struct stat st;
    struct dirent **names;

    if (stat(path, &st) != 0)
        die("find", path);
    if (!S_ISDIR(st.st_mode)) {
        replay_file(path, st.st_size);
        return;
    }
    int count = scandir(path, &names, NULL, alphasort);
    if (count < 0)
        die("list", path);
    for (int i = 0; i < count; i++) {
        char *child;
        if (names[i]->d_name[0] != '.') {
            if (asprintf(&child, "%s/%s", path, names[i]->d_name) < 0)
                die("name a file in", path);
            replay(child);
            free(child);
        }
        free(names[i]);
    }
    free(names);
}

int main(int argc, char **argv)
{
    run((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-')
            replay(argv[i]);
    }
    fprintf(stderr, "%ld inputs\n", inputs);
    return 0;
}
