/* golden/json/NAME.case holds a JSON text, a line "---", and its canonical form or "error: " with
 * the reason.  WEIR_BLESS=1 rewrites the second part; the difference is then reviewed. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/os.h"
#include "tests/check.h"

#define CASE_BYTES_MAX 100000
#define CASES_MIN 40 /* else the folder was not found, or has lost files */

static const char separator[] = "\n---\n";

/* What base/json.c makes of the text, with a line end. */
static void run_case(const char *text, size_t n, struct buf *out)
{
    struct err err = ERR_INIT;
    json_t *v = NULL;

    if (json_parse(text, n, CASE_BYTES_MAX, "text", &v, &err) || json_canonical(v, out, &err))
        buf_printf(out, "error: %s: %s", err_word(err.code), err.text);
    buf_char(out, '\n');
    json_decref(v);
}

static void check_case(int dir, const char *name)
{
    struct err err = ERR_INIT;
    struct buf file, got;

    buf_init(&file, CASE_BYTES_MAX);
    buf_init(&got, CASE_BYTES_MAX);
    EXPECT_OK(os_read_file(dir, name, CASE_BYTES_MAX, &file, &err), &err);

    char *middle = memmem(file.p, file.n, separator, strlen(separator));

    EXPECT(middle);
    run_case(file.p, (size_t)(middle - file.p), &got);
    middle += strlen(separator);
    if (getenv("WEIR_BLESS")) {
        file.n = (size_t)(middle - file.p);
        buf_add(&file, got.p, got.n);
        EXPECT_OK(os_write_file(dir, name, file.p, file.n, 0644, &err), &err);
    } else if (strcmp(got.p, middle) != 0) {
        print_error("%s: WEIR_BLESS=1 takes the new result\n", name);
        EXPECT_STR(got.p, middle);
    }
    buf_release(&file);
    buf_release(&got);
}

TEST(canonical_forms_and_refusals)
{
    const char *source = getenv("WEIR_SRC");
    struct err err = ERR_INIT;
    struct os_entry *entries;
    struct buf path;
    size_t count, cases = 0;
    int dir;

    EXPECT(source); /* ctest sets it to the source folder */
    buf_init(&path, 4096);
    buf_printf(&path, "%s/tests/golden/json", source);
    EXPECT_OK(os_open_dir(AT_FDCWD, path.p, &dir, &err), &err);
    EXPECT_OK(os_list(dir, &entries, &count, &err), &err);
    for (size_t i = 0; i < count; i++) {
        const char *end = strrchr(entries[i].name, '.');

        if (end && strcmp(end, ".case") == 0) {
            check_case(dir, entries[i].name);
            cases++;
        }
    }
    EXPECT(cases >= CASES_MIN);
    free(entries);
    os_close_quiet(&dir);
    buf_release(&path);
}

RUN(canonical_forms_and_refusals)
