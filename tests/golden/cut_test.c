/* Where things are cut is part of the format: two versions of weir that cut differently no longer
 * share chunks.  cut/chunks.case holds, per object, its rule, the SHA-256 of the list of (offset,
 * length) as text, and the lengths.  WEIR_BLESS=1 writes it. */
#include <fcntl.h>

#include "base/hash.h"
#include "base/os.h"
#include "store/cut_tar.h"
#include "tests/check.h"
#include "tests/store_gen.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static void read_golden(const char *name, struct buf *out)
{
    const char *root = getenv("WEIR_SRC");
    struct err err = ERR_INIT;
    char path[1024];

    snprintf(path, sizeof(path), "%s/tests/golden/%s", root ? root : ".", name);
    buf_init(out, 16 * MIB);
    EXPECT_OK(os_read_file(AT_FDCWD, path, 16 * MIB, out, &err), &err);
}

/* The next line of text, which is changed: its end becomes NUL. */
static char *next_line(char **text)
{
    char *line = *text, *end = line ? strchr(line, '\n') : NULL;

    if (!end)
        return NULL;
    *end = '\0';
    *text = end + 1;
    return line;
}

static void describe(struct buf *out, const char *name, const void *p, size_t n)
{
    static const char *const rules[] = {"tensors", "tar", "content"};
    enum cut_rule rule;
    size_t count, at = 0;
    size_t *ends = gen_cuts(p, n, &rule, &count);
    char digest[DIGEST_TEXT + 1];
    struct digest d;
    struct buf list;

    buf_init(&list, 1 << 20);
    for (size_t i = 0; i < count; at = ends[i++])
        buf_printf(&list, "%zu %zu\n", at, ends[i] - at);
    sha256_of(list.p, list.n, &d);
    digest_text(&d, digest);
    buf_printf(out, "%s %s %zu chunks %s\n", name, rules[rule], count, digest);
    at = 0;
    for (size_t i = 0; i < count; at = ends[i++])
        buf_printf(out, "%s%zu", i % 10 ? " " : i ? "\n    " : "    ", ends[i] - at);
    buf_char(out, '\n');
    buf_release(&list);
    free(ends);
}

static void describe_generated(struct buf *out)
{
    static const struct gen_tensor tensors[] = {
        {"embed", "BF16", 19 * MIB, 2},
        {"norm", "BF16", 4 * KIB, 2},
        {"bias", "F32", 12 * KIB, 4},
        {"attn.q", "BF16", 8 * MIB, 2},
        {"attn.k", "BF16", MIB, 2},
        {"scale", "F32", 4, 4},
        {"moment", "F32", 8 * MIB + 4, 4},
        {"step", "I64", 8, 8},
        {"none", "F32", 0, 4},
        {"last", "F8_E4M3", 64 * KIB, 1},
    };
    struct buf b;
    uint64_t seed = 42;
    size_t header = 0;

    buf_init(&b, 64 * MIB);
    gen_safetensors(&b, &seed, tensors, sizeof(tensors) / sizeof(tensors[0]), 0);
    describe(out, "safetensors", b.p, b.n);
    b.p[9] = 'x'; /* a header that cannot be read */
    describe(out, "safetensors-damaged", b.p, b.n);
    buf_clear(&b);
    gen_noise(&seed, buf_room(&b, 32 * MIB + 12345), 32 * MIB + 12345);
    describe(out, "noise", b.p, b.n);
    gen_json(&seed, b.p, b.n);
    describe(out, "json", b.p, b.n);
    buf_clear(&b);
    for (int i = 0; i < 200; i++) {
        char name[32];

        if (i == 120)
            header = b.n;
        snprintf(name, sizeof(name), "%06d.%s", i / 2, i % 2 ? "json" : "jpg");
        gen_tar_file(&b, &seed, name,
                     i == 100 ? 6 * MIB + 1 : gen_below(&seed, i % 2 ? 2000 : 300000));
    }
    gen_tar_end(&b);
    describe(out, "tar", b.p, b.n);
    b.p[header] ^= 1; /* the walk ends here, and the rest is cut by content */
    describe(out, "tar-damaged", b.p, b.n);
    buf_release(&b);
}

/* An archive, and its listing without the first line, which is the archive's length. */
static void unpack(const char *name, struct buf *archive, struct buf *listing, char **members)
{
    char path[64];
    struct buf packed;
    struct codec *c;
    struct err err = ERR_INIT;

    snprintf(path, sizeof(path), "tar/%s.tsv", name);
    read_golden(path, listing);
    *members = listing->p;
    const size_t n = strtoull(next_line(members), NULL, 10);

    snprintf(path, sizeof(path), "tar/%s.tar.zst", name);
    read_golden(path, &packed);
    buf_init(archive, 16 * MIB);
    void *raw = buf_room(archive, n);
    EXPECT(raw != NULL);
    EXPECT_OK(codec_new(&c, &err), &err);
    EXPECT_OK(codec_decode(c, ENC_ZSTD, packed.p, packed.n, raw, n, &err), &err);
    codec_free(c);
    buf_release(&packed);
}

static const char *const archives[] = {"gnu", "pax", "py_pax", "py_ustar"};

TEST(cuts_are_where_they_were)
{
    struct buf now, golden;
    struct err err = ERR_INIT;

    buf_init(&now, MIB);
    describe_generated(&now);
    for (size_t i = 0; i < 4; i++) {
        struct buf archive, listing;
        char *members;

        unpack(archives[i], &archive, &listing, &members);
        describe(&now, archives[i], archive.p, archive.n);
        buf_release(&archive);
        buf_release(&listing);
    }
    if (getenv("WEIR_BLESS")) {
        const char *root = getenv("WEIR_SRC");
        char path[1024];

        snprintf(path, sizeof(path), "%s/tests/golden/cut/chunks.case", root ? root : ".");
        EXPECT_OK(os_write_file(AT_FDCWD, path, now.p, now.n, 0644, &err), &err);
    }
    read_golden("cut/chunks.case", &golden);
    EXPECT_STR(now.p, golden.p);
    buf_release(&golden);
    buf_release(&now);
}

/* What Python's tarfile says about archives by GNU tar and by itself. */
TEST(tar_archives_are_cut_where_members_start)
{
    for (size_t i = 0; i < 4; i++) {
        struct buf archive, listing;
        char *text, *line;
        enum cut_rule rule;
        size_t count, next = 0, members = 0;

        unpack(archives[i], &archive, &listing, &text);
        size_t *ends = gen_cuts(archive.p, archive.n, &rule, &count);
        EXPECT_EQ(rule, CUT_TAR);
        EXPECT(count > 5);
        while ((line = next_line(&text)) != NULL) {
            const size_t start = strtoull(line, &line, 10), end = strtoull(line, NULL, 10);
            const bool is_long = (int64_t)(end - start) > TAR_LONG;

            members++;
            while (next < count && ends[next] < end) {
                if (ends[next] != start && !is_long)
                    print_error("%s: a cut at %zu, inside %zu..%zu\n", archives[i], ends[next],
                                start, end);
                EXPECT(ends[next] == start || is_long);
                next++;
            }
        }
        EXPECT(members > 70);
        EXPECT(count - next <= 1); /* only the end of the archive is past the last member */
        free(ends);
        buf_release(&archive);
        buf_release(&listing);
    }
}

static size_t from_hex(const char *hex, char *out)
{
    size_t n = 0;
    unsigned byte;

    for (; sscanf(hex + 2 * n, "%2x", &byte) == 1; n++)
        out[n] = (char)byte;
    out[n] = '\0';
    return n;
}

/* One line of a listing: dtype, shape, offset or "-", bytes, name in hex. */
static void expect_tensor(char *line, char **names, const struct tensor_span *spans, size_t count)
{
    char *field[5], name[1000], shape[200] = "";
    size_t i = 0, at = 0;

    for (int k = 0; k < 5; k++)
        field[k] = strsep(&line, "\t");
    from_hex(field[4], name);
    while (i < count && strcmp(names[i], name) != 0)
        i++;
    EXPECT(i < count);
    EXPECT_STR(spans[i].dtype, field[0]);
    for (int k = 0; k < spans[i].rank; k++)
        at += (size_t)snprintf(shape + at, sizeof(shape) - at, "%s%lld", k ? "," : "",
                               (long long)spans[i].shape[k]);
    EXPECT_STR(shape, field[1]);
    if (strcmp(field[2], "-") != 0)
        EXPECT_EQ(spans[i].off, strtoll(field[2], NULL, 10));
    EXPECT_EQ(spans[i].len, strtoll(field[3], NULL, 10));
}

TEST(safetensors_of_the_python_package_are_read_the_same)
{
    static const char *const files[] = {"numpy_types", "model_types", "odd_names", "edges",
                                        "nothing"};
    static const size_t tensors[] = {13, 5, 12, 5, 0};

    for (size_t i = 0; i < 5; i++) {
        struct buf file, listing;
        struct err err = ERR_INIT;
        struct tensor_span *spans;
        char name[64], **names;
        size_t count, lines = 0;

        snprintf(name, sizeof(name), "safetensors/%s.safetensors", files[i]);
        read_golden(name, &file);
        snprintf(name, sizeof(name), "safetensors/%s.tsv", files[i]);
        read_golden(name, &listing);
        EXPECT_OK(safetensors_list(file.p, file.n, (int64_t)file.n, &names, &spans, &count, &err),
                  &err);
        EXPECT_EQ(count, tensors[i]);
        char *text = listing.p, *line;
        for (; (line = next_line(&text)) != NULL; lines++)
            expect_tensor(line, names, spans, count);
        EXPECT_EQ(lines, count);
        free(names);
        free(spans);
        buf_release(&file);
        buf_release(&listing);
    }
}

RUN(cuts_are_where_they_were, tar_archives_are_cut_where_members_start,
    safetensors_of_the_python_package_are_read_the_same)
