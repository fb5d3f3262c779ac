#include "store/action.h"
#include "store/gc.h"
#include "store/tree.h"
#include "store/writer.h"
#include "tests/source_rig.h"

static int64_t commits(struct rig *g)
{
    struct index_stat stat;

    EXPECT_OK(index_stat(g->st->index, &stat, &g->err), &g->err);
    return stat.commits;
}

/* ---- paths ------------------------------------------------------------------------------------- */

TEST(a_file_and_a_folder_enter_as_they_are)
{
    struct rig g;
    const struct source_object *o;
    struct digest want;

    rig_new(&g);
    rig_file(&g, "a.txt", "hello");
    rig_file(&g, "pictures/x/1.png", "one");
    rig_file(&g, "pictures/2.png", "two");
    o = rig_sources(&g, "  a: {path: a.txt, license: MIT}\n"
                        "  b: {path: pictures/, license: CC0-1.0}\n");
    sha256_of("hello", 5, &want);
    EXPECT_EQ(o->kind, OBJ_BLOB);
    EXPECT_EQ(o->size, 5);
    EXPECT(digest_eq(&o->digest, &want));
    o = source_get(g.s, 1);
    EXPECT_EQ(o->kind, OBJ_TREE);
    rig_expect_text(&g, &o->digest, "x/1.png", "one");
    rig_expect_text(&g, &o->digest, "2.png", "two");
    rig_free(&g);
}

TEST(an_absolute_path_is_taken_as_it_is)
{
    struct rig g;
    char text[TMPDIR_MAX * 2];

    rig_new(&g);
    rig_file(&g, "away/a.txt", "far");
    (void)snprintf(text, sizeof(text), "  a: {path: %s, license: MIT}\n",
                   rig_path(&g, "away/a.txt"));
    rig_expect_text(&g, &rig_sources(&g, text)->digest, "", "far");
    rig_free(&g);
}

TEST(a_glob_is_a_folder_of_what_matches)
{
    struct rig g;
    struct digest once;
    struct stat st;
    char *tree;

    rig_new(&g);
    rig_file(&g, "raw/21/a.png", "21a");
    rig_file(&g, "raw/21-b/a.png", "21-b a");
    rig_file(&g, "raw/21/b.png", "21b");
    rig_file(&g, "raw/21/b.txt", "no");
    rig_file(&g, "raw/22/a.png", "22a");
    rig_file(&g, "raw/31/a.png", "no");
    EXPECT_EQ(chmod(rig_path(&g, "raw/22/a.png"), 0755), 0);
    EXPECT_EQ(stat(rig_path(&g, "raw/22/a.png"), &st), 0);
    once = rig_sources(&g, "  a: {path: \"raw/2*/*.png\", license: MIT}\n")->digest;
    rig_expect_text(&g, &once, "21/a.png", "21a");
    rig_expect_text(&g, &once, "21/b.png", "21b");
    rig_expect_text(&g, &once, "21-b/a.png", "21-b a");
    rig_expect_text(&g, &once, "22/a.png", "22a");
    tree = rig_text(&g, &once, "22");
    EXPECT(strstr(tree, "\"mode\":\"exec\"") != NULL);
    free(tree);
    tree = rig_text(&g, &once, "21");
    EXPECT(strstr(tree, "b.txt") == NULL);
    free(tree);
    tree = rig_text(&g, &once, "");
    EXPECT(strstr(tree, "\"31\"") == NULL);
    free(tree);
    /* a folder whose entries match gives the same tree as a source of its own */
    rig_file(&g, "same/a", "1");
    rig_file(&g, "same/sub/b", "2");
    once = rig_sources(&g, "  a: {path: \"same/*\", license: MIT}\n")->digest;
    EXPECT(digest_eq(&once, &rig_sources(&g, "  a: {path: same, license: MIT}\n")->digest));
    rig_free(&g);
}

TEST(a_glob_in_an_odd_folder_and_a_file_that_looks_like_one)
{
    struct rig g;
    char text[TMPDIR_MAX * 2];

    rig_new(&g);
    rig_file(&g, "[odd]*/a.png", "odd");
    rig_file(&g, "o/a.png", "not meant");
    EXPECT_EQ(rename(rig_path(&g, "[odd]*"), rig_path(&g, "[odd]")), 0);
    rig_file(&g, "what?.txt", "literal");
    rig_file(&g, "whats.txt", "not meant");
    rig_expect_text(&g, &rig_sources(&g, "  a: {path: \"what?.txt\", license: MIT}\n")->digest, "",
                    "literal");
    /* the folder of the pipeline is no part of the pattern */
    rig_file(&g, "[odd]/pipe.yaml", "");
    (void)snprintf(text, sizeof(text),
                   "weir: 1\nname: p\nsources:\n  a: {path: \"*.png\", license: MIT}\n"
                   "stages:\n  one: {run: [\"true\"], outputs: [x]}\n");
    rig_file(&g, "[odd]/pipe.yaml", text);
    sources_free(g.s);
    g.s = NULL;
    pipeline_free(g.p);
    EXPECT_OK(pipeline_load(rig_path(&g, "[odd]/pipe.yaml"), NULL, &g.p, NULL, &g.err), &g.err);
    EXPECT_OK(rig_enter(&g, NULL), &g.err);
    rig_expect_text(&g, &source_get(g.s, 0)->digest, "a.png", "odd");
    rig_free(&g);
}

TEST(what_is_wrong_with_a_path_is_said_with_its_place)
{
    static const struct {
        const char *sources, *says;
        enum err_code code;
    } cases[] = {
        {"  ok: {path: f, license: MIT}\n  a: {path: nothing.txt, license: MIT}\n",
         "pipe.yaml:5:3: source a: ", ERR_NOT_FOUND},
        {"  a: {path: \"*.jpg\", license: MIT}\n", "nothing matches", ERR_NOT_FOUND},
        {"  a: {path: \"x/**/y\", license: MIT}\n", "neither ** nor ..", ERR_INPUT},
        {"  a: {path: \"x*/../y\", license: MIT}\n", "neither ** nor ..", ERR_INPUT},
        {"  a: {path: fifo, license: MIT}\n", "neither a file nor a directory", ERR_INPUT},
        {"  a: {path: link, license: MIT}\n", "is a symbolic link", ERR_INPUT},
        {"  a: {path: f, license: MIT, records: f2}\n", "f2", ERR_NOT_FOUND},
    };
    struct rig g;

    rig_new(&g);
    rig_file(&g, "f", "f");
    EXPECT_EQ(mkfifo(rig_path(&g, "fifo"), 0600), 0);
    EXPECT_EQ(symlink("f", rig_path(&g, "link")), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rig_pipeline(&g, cases[i].sources);
        EXPECT_ERR(rig_enter(&g, NULL), cases[i].code, &g.err);
        EXPECT_SAYS(&g.err, cases[i].says);
        EXPECT_SAYS(&g.err, "source a: ");
    }
    rig_free(&g);
}

TEST(only_what_is_wanted_is_read)
{
    const bool wanted[] = {false, true};
    struct rig g;

    rig_new(&g);
    rig_file(&g, "b", "b");
    rig_pipeline(&g, "  a: {path: not-there, license: MIT}\n  b: {path: b, license: MIT}\n");
    EXPECT_OK(sources_new(g.st, g.p, NULL, &g.s, &g.err), &g.err);
    EXPECT_OK(sources_enter(g.s, wanted, &g.err), &g.err);
    rig_expect_text(&g, &source_get(g.s, 1)->digest, "", "b");
    EXPECT_ERR(sources_enter(g.s, NULL, &g.err), ERR_NOT_FOUND, &g.err);
    rig_free(&g);
}

TEST(looking_again_changes_nothing_in_the_store)
{
    struct rig g;
    int64_t before;

    rig_new(&g);
    rig_file(&g, "a", "a");
    rig_file(&g, "d/x", "x");
    rig_file(&g, "g1", "1");
    rig_file(&g, "g2", "2");
    rig_later();
    rig_sources(&g, "  a: {path: a, license: MIT}\n  d: {path: d, license: MIT}\n"
                    "  g: {path: \"g*\", license: MIT}\n");
    before = commits(&g);
    EXPECT_OK(rig_enter(&g, NULL), &g.err);
    /* keeping them is a commit of the index that finds nothing to change; no pack is written */
    EXPECT(commits(&g) <= before + 1);
    before = commits(&g);
    rig_file(&g, "d/x", "y");
    EXPECT_OK(rig_enter(&g, NULL), &g.err);
    EXPECT(commits(&g) > before);
    rig_expect_text(&g, &source_get(g.s, 1)->digest, "x", "y");
    rig_free(&g);
}

TEST(what_entered_outlives_a_gc_without_grace)
{
    struct rig g;
    const struct gc_options o = {.grace_s = 0};
    struct gc_report report = {0};

    rig_new(&g);
    rig_file(&g, "d/x", "x");
    rig_later();
    rig_sources(&g, "  d: {path: d, license: MIT}\n");
    EXPECT_OK(rig_enter(&g, NULL), &g.err);
    EXPECT_OK(store_gc(g.st, &o, &report, &g.err), &g.err);
    rig_expect_text(&g, &source_get(g.s, 0)->digest, "x", "x");
    free(rig_text(&g, &source_get(g.s, 0)->entry, ""));
    rig_free(&g);
}

/* ---- entry records ----------------------------------------------------------------------------- */

TEST(an_entry_record_is_made_once_for_content_and_licence)
{
    struct rig g;
    struct digest first, other;
    char *text;

    rig_new(&g);
    rig_file(&g, "a", "a");
    os_set_now(INT64_C(1700000000000000000));
    first = rig_sources(&g, "  a: {path: a, license: MIT, attribution: Me}\n")->entry;
    text = rig_text(&g, &first, "");
    EXPECT_STR(
        text, "{\"attribution\":\"Me\",\"digest\":\"sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8"
              "147c4e72b9807785afee48bb\",\"kind\":\"blob\",\"license\":\"MIT\",\"time\":\"2023-11-"
              "14T22:13:20Z\",\"weir\":\"entry/1\"}");
    free(text);
    os_set_now(INT64_C(1800000000000000000));
    EXPECT(digest_eq(&first,
                     &rig_sources(&g, "  b: {path: a, license: MIT, attribution: Me}\n")->entry));
    other = rig_sources(&g, "  b: {path: a, license: ISC, attribution: Me}\n")->entry;
    EXPECT(!digest_eq(&first, &other));
    rig_free(&g);
}

TEST(records_give_single_files_their_licences)
{
    struct rig g;
    struct digest records;
    char *text, hex[DIGEST_TEXT + 1];
    const char *lines = "{\"path\":\"1.png\",\"license\":\"CC0-1.0\"}\n\n"
                        "{\"path\":\"sub/2.png\",\"license\":\"CC-BY-4.0\",\"attribution\":\"A\","
                        "\"url\":\"https://example.org\"}\n";

    rig_new(&g);
    rig_file(&g, "pictures/1.png", "1");
    rig_file(&g, "pictures/sub/2.png", "2");
    rig_file(&g, "r.jsonl", lines);
    rig_sources(&g, "  a: {path: pictures, license: MIT, records: r.jsonl}\n");
    sha256_of(lines, strlen(lines), &records);
    digest_text(&records, hex);
    text = rig_text(&g, &source_get(g.s, 0)->entry, "");
    EXPECT(strstr(text, hex) != NULL);
    free(text);
    rig_expect_text(&g, &records, "", lines);
    rig_free(&g);
}

TEST(a_wrong_line_of_a_records_file_is_named)
{
    static const struct {
        const char *lines, *says;
    } cases[] = {
        {"{\"path\":\"1.png\"}", "r.jsonl:1: no \"license\""},
        {"{\"path\":\"1.png\",\"license\":\"MIT\"}\n{\"path\":\"1.png\",\"license\":\"ISC\"}",
         "r.jsonl:2: '1.png' has a licence already, in line 1"},
        {"{\"path\":\"1.png\",\"license\":\"MTI\"}", "r.jsonl:1: license: MTI is no SPDX licence"},
        {"{\"path\":\"1.pgn\",\"license\":\"MIT\"}", "did you mean 1.png?"},
        {"{\"path\":\"../1.png\",\"license\":\"MIT\"}", "is no path below the source"},
        {"{\"path\":\"/1.png\",\"license\":\"MIT\"}", "is no path below the source"},
        {"{\"path\":\"a//1.png\",\"license\":\"MIT\"}", "is no path below the source"},
        {"{\"path\":\"1.png\",\"licence\":\"MIT\"}", "did you mean license?"},
        {"{\"path\":\"1.png\",\"license\":3}", "\"license\" is to be a text"},
        {"[1]", "r.jsonl:1: a line is an object"},
        {"\n\nnonsense", "r.jsonl:3: "},
    };
    struct rig g;

    rig_new(&g);
    rig_file(&g, "pictures/1.png", "1");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rig_file(&g, "r.jsonl", cases[i].lines);
        rig_pipeline(&g, "  a: {path: pictures, license: MIT, records: r.jsonl}\n");
        EXPECT_ERR(rig_enter(&g, NULL), ERR_INPUT, &g.err);
        EXPECT_SAYS(&g.err, cases[i].says);
    }
    rig_free(&g);
}

TEST(policy_sees_declared_licences_and_those_of_single_files)
{
    const bool only_first[] = {true, false};
    struct rig g;
    struct buf lines;

    rig_new(&g);
    buf_init(&lines, 1 << 16);
    rig_file(&g, "pictures/1.png", "1");
    rig_file(&g, "pictures/2.png", "2");
    rig_file(&g, "r.jsonl",
             "{\"path\":\"1.png\",\"license\":\"CC0-1.0\"}\n"
             "{\"path\":\"2.png\",\"license\":\"CC-BY-NC-4.0\"}\n");
    rig_sources(&g, "  a: {path: pictures, license: MIT, records: r.jsonl}\n"
                    "  b: {path: r.jsonl, license: CC-BY-NC-4.0}\n"
                    "policy: {licenses: {deny: [CC-BY-NC-4.0]}}\n");
    for (int i = 0; i < 2; i++) { /* counted, and known from then on */
        buf_clear(&lines);
        g.err = (struct err)ERR_INIT;
        EXPECT_ERR(sources_policy(g.s, NULL, &lines, &g.err), ERR_DENIED, &g.err);
        EXPECT(
            strstr(lines.p, "pipe.yaml:4:3: source a, records r.jsonl: CC-BY-NC-4.0 is denied\n"));
        EXPECT(strstr(lines.p, "pipe.yaml:5:31: source b: CC-BY-NC-4.0 is denied\n"));
        EXPECT_SAYS(&g.err, "source a, records r.jsonl");
    }
    rig_file(&g, "r.jsonl", "{\"path\":\"1.png\",\"license\":\"CC0-1.0\"}\n");
    EXPECT_OK(rig_enter(&g, NULL), &g.err);
    EXPECT_OK(sources_policy(g.s, only_first, &lines, &g.err), &g.err);
    buf_release(&lines);
    rig_free(&g);
}

/* ---- artifacts and texts ------------------------------------------------------------------------ */

/* A tree with one entry, put into the store. */
static struct digest wrap(struct rig *g, struct writer *w, const char *name, enum tree_mode mode,
                          const struct digest *d)
{
    struct tree_entry e = {.mode = mode, .name = str_of(name), .digest = *d, .size = 1};
    struct tree t;
    struct buf text;
    struct digest out;

    tree_init(&t);
    buf_init(&text, 1 << 20);
    EXPECT_OK(tree_add(&t, &e, 0, &g->err), &g->err);
    EXPECT_OK(tree_encode(&t, &text, &g->err), &g->err);
    EXPECT_OK(writer_put(w, OBJ_TREE, text.p, text.n, &out, &g->err), &g->err);
    tree_release(&t);
    buf_release(&text);
    return out;
}

/* run-N with the output model of that task */
static void make_run(struct rig *g, const char *ref, const char *task, const char *text)
{
    struct writer *w = NULL;
    struct digest d;

    EXPECT_OK(writer_open(g->st, &w, &g->err), &g->err);
    EXPECT_OK(writer_put(w, OBJ_BLOB, text, strlen(text), &d, &g->err), &g->err);
    d = wrap(g, w, "model", TREE_FILE, &d);
    d = wrap(g, w, "out", TREE_DIR, &d);
    d = wrap(g, w, task, TREE_DIR, &d);
    d = wrap(g, w, "tasks", TREE_DIR, &d);
    EXPECT_OK(writer_ref(w, str_of(ref), OBJ_TREE, &d, &g->err), &g->err);
    EXPECT_OK(writer_commit(w, &g->err), &g->err);
    writer_release(w);
}

static void publish(struct rig *g, const char *ref, const char *text)
{
    struct writer *w = NULL;
    struct digest d;

    EXPECT_OK(writer_open(g->st, &w, &g->err), &g->err);
    EXPECT_OK(writer_put(w, OBJ_BLOB, text, strlen(text), &d, &g->err), &g->err);
    EXPECT_OK(writer_ref(w, str_of(ref), OBJ_BLOB, &d, &g->err), &g->err);
    EXPECT_OK(writer_commit(w, &g->err), &g->err);
    writer_release(w);
}

TEST(artifacts_are_found_by_run_and_by_name)
{
    static const struct {
        const char *artifact, *text;
    } cases[] = {
        {"vae.model@run-7", "of run 7"},
        {"pipe/vae.model@run-7", "of run 7"},
        {"\"sft[lr=0.1].model@run-8\"", "of run 8"},
        {"vae.model@production", "ours"},
        {"other/vae.model@production", "theirs"},
    };
    struct rig g;

    rig_new(&g);
    make_run(&g, "runs/run-7", "vae", "of run 7");
    make_run(&g, "runs/run-8", "sft[lr=0.1]", "of run 8");
    publish(&g, "pipe/vae.model@production", "ours");
    publish(&g, "other/vae.model@production", "theirs");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[200];

        (void)snprintf(text, sizeof(text), "  a: {artifact: %s}\n", cases[i].artifact);
        rig_expect_text(&g, &rig_sources(&g, text)->digest, "", cases[i].text);
        EXPECT(digest_is_zero(&source_get(g.s, 0)->entry));
        EXPECT_EQ(source_get(g.s, 0)->size, strlen(cases[i].text));
    }
    rig_pipeline(&g, "  a: {artifact: vae.model@run-9}\n");
    EXPECT_ERR(rig_enter(&g, NULL), ERR_NOT_FOUND, &g.err);
    EXPECT_SAYS(&g.err, "run-9 has no output vae.model");
    rig_pipeline(&g, "  a: {artifact: vae.model@staging}\n");
    EXPECT_ERR(rig_enter(&g, NULL), ERR_NOT_FOUND, &g.err);
    EXPECT_SAYS(&g.err, "nothing is published as pipe/vae.model@staging");
    rig_free(&g);
}

TEST(input_texts_name_paths_refs_digests_and_outputs)
{
    struct rig g;
    struct source_object o;
    char hex[DIGEST_TEXT + 1];

    rig_new(&g);
    make_run(&g, "runs/run-41", "a%2Fb%25", "odd task");
    make_run(&g, "runs/run-42", "vae", "of run 42");
    publish(&g, "models/base", "a ref");
    publish(&g, "both", "a ref too");
    rig_file(&g, "file.txt", "a file");
    rig_file(&g, "both", "a file too");
#define RESOLVE(text) source_resolve_text(g.st, g.dir, text, &o, &g.err)
    EXPECT_OK(RESOLVE("run-42:vae.model"), &g.err);
    rig_expect_text(&g, &o.digest, "", "of run 42");
    digest_text(&o.digest, hex);
    EXPECT_OK(RESOLVE("run-41:a/b%.model"), &g.err);
    rig_expect_text(&g, &o.digest, "", "odd task");
    EXPECT_OK(RESOLVE("models/base"), &g.err);
    rig_expect_text(&g, &o.digest, "", "a ref");
    EXPECT_OK(RESOLVE("vae.model@run-42"), &g.err);
    EXPECT_OK(RESOLVE(hex), &g.err);
    rig_expect_text(&g, &o.digest, "", "of run 42");
    EXPECT_OK(RESOLVE(hex + 7), &g.err);
    EXPECT_OK(RESOLVE("file.txt"), &g.err);
    rig_expect_text(&g, &o.digest, "", "a file");
    EXPECT_EQ(o.kind, OBJ_BLOB);
    EXPECT_EQ(o.size, 6);
    EXPECT_OK(RESOLVE("./both"), &g.err);
    rig_expect_text(&g, &o.digest, "", "a file too");
    EXPECT_OK(RESOLVE(rig_path(&g, "both")), &g.err);
    EXPECT_ERR(RESOLVE("both"), ERR_USAGE, &g.err);
    EXPECT_SAYS(&g.err, "write ./both");
    g.err = (struct err)ERR_INIT;
    EXPECT_ERR(RESOLVE("nothing"), ERR_NOT_FOUND, &g.err);
    EXPECT_SAYS(&g.err, "'nothing' is neither");
    g.err = (struct err)ERR_INIT;
    EXPECT_ERR(RESOLVE(""), ERR_INPUT, &g.err);
    g.err = (struct err)ERR_INIT;
    EXPECT_ERR(RESOLVE("run-42:vae"), ERR_INPUT, &g.err);
    g.err = (struct err)ERR_INIT;
    EXPECT_ERR(RESOLVE("./nothing"), ERR_NOT_FOUND, &g.err);
#undef RESOLVE
    rig_free(&g);
}

TEST(a_ref_to_what_is_only_half_there_is_refused)
{
    struct rig g;
    struct source_object o;

    rig_new(&g);
    make_run(&g, "runs/run-7", "vae", "of run 7");
    store_close(g.st);
    EXPECT_EQ(setenv("WEIR_LOSE", "1,100", 1), 0);
    EXPECT_OK(store_open(g.dir, STORE_WRITE, &g.st, &g.err), &g.err);
    EXPECT_EQ(unsetenv("WEIR_LOSE"), 0);
    EXPECT_ERR(source_resolve_text(g.st, g.dir, "runs/run-7", &o, &g.err), ERR_NOT_FOUND, &g.err);
    rig_free(&g);
}

TEST(code_enters_once)
{
    struct rig g;
    struct source_object a, b;

    rig_new(&g);
    rig_file(&g, "score.py", "print()");
    rig_file(&g, "lib/x.py", "x");
    rig_file(&g, "s", "s");
    rig_sources(&g, "  a: {path: s, license: MIT}\n");
    EXPECT_OK(source_code(g.s, "score.py", &a, &g.err), &g.err);
    EXPECT_EQ(a.kind, OBJ_BLOB);
    rig_file(&g, "score.py", "changed");
    EXPECT_OK(source_code(g.s, "score.py", &b, &g.err), &g.err);
    EXPECT(digest_eq(&a.digest, &b.digest)); /* one look for a plan */
    EXPECT_OK(source_code(g.s, "lib/", &b, &g.err), &g.err);
    EXPECT_EQ(b.kind, OBJ_TREE);
    EXPECT_ERR(source_code(g.s, "none.py", &b, &g.err), ERR_NOT_FOUND, &g.err);
    rig_free(&g);
}

TEST(code_of_all_stages_enters_together_when_it_is_there)
{
    struct rig g;
    struct source_object a;

    rig_new(&g);
    rig_file(&g, "a.py", "a");
    rig_file(&g, "b.py", "b");
    rig_file(&g, "c.yaml",
             "weir: 1\nname: p\nstages:\n"
             "  x: {run: [\"true\"], code: [a.py], outputs: [o]}\n"
             "  y: {run: [\"true\"], code: [b.py, a.py], outputs: [o]}\n");
    for (int i = 0; i < 2; i++) {
        sources_free(g.s);
        pipeline_free(g.p);
        g.s = NULL;
        EXPECT_OK(pipeline_load(rig_path(&g, "c.yaml"), NULL, &g.p, NULL, &g.err), &g.err);
        EXPECT_OK(rig_enter(&g, NULL), &g.err);
        EXPECT_OK(source_code(g.s, "a.py", &a, &g.err), &g.err);
        rig_expect_text(&g, &a.digest, "", "a");
        if (i == 0) {
            rig_file(&g, "b.py", "too late for this plan");
            EXPECT_OK(source_code(g.s, "b.py", &a, &g.err), &g.err);
            rig_expect_text(&g, &a.digest, "", "b");
            EXPECT_EQ(unlink(rig_path(&g, "b.py")), 0);
        } else {
            EXPECT_ERR(source_code(g.s, "b.py", &a, &g.err), ERR_NOT_FOUND, &g.err);
        }
    }
    rig_free(&g);
}

/* ---- the lock file ------------------------------------------------------------------------------ */

#define D64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DEB_ROW                                                                                    \
    "\"z\":{\"architecture\":\"all\",\"deb\":\"fonts-x\",\"digest\":\"sha256:" D64                 \
    "\",\"kind\":\"deb\",\"sha256\":\"" D64 "\",\"size\":12,\"version\":\"1:2.0~rc1-1+b2\"}"
#define URL_ROW                                                                                    \
    "\"a\":{\"digest\":\"sha256:" D64 "\",\"kind\":\"url\",\"sha256\":\"" D64                      \
    "\",\"size\":1,\"url\":\"https://example.org/x\"}"

TEST(a_lock_file_is_written_as_it_was_read)
{
    static const char text[] =
        "{\"sources\":{\n" URL_ROW ",\n" DEB_ROW "\n},\"weir\":\"lock/1\"}\n";
    static const char mixed[] = "{\"weir\":\"lock/1\",\"sources\":{" DEB_ROW "," URL_ROW "}}";
    struct arena a;
    struct lock lock;
    struct err err = ERR_INIT;
    struct buf out;

    arena_init(&a);
    buf_init(&out, 1 << 16);
    EXPECT_OK(lock_parse(text, strlen(text), "x.lock", &a, &lock, &err), &err);
    EXPECT_EQ(lock.count, 2);
    EXPECT_STR(lock_find(&lock, "z")->version, "1:2.0~rc1-1+b2");
    EXPECT(lock_find(&lock, "y") == NULL);
    EXPECT_OK(lock_format(&lock, &out, &err), &err);
    EXPECT_STR(out.p, text);
    buf_clear(&out);
    EXPECT_OK(lock_parse(mixed, strlen(mixed), "x.lock", &a, &lock, &err), &err);
    EXPECT_OK(lock_format(&lock, &out, &err), &err);
    EXPECT_STR(out.p, text);
    buf_release(&out);
    arena_release(&a);
}

TEST(a_wrong_lock_file_says_what_is_wrong)
{
    static const struct {
        const char *text, *says;
        enum err_code code;
    } cases[] = {
        {"", "x.lock (weir lock --update writes it anew): ", ERR_INPUT},
        {"[]", "it is no object", ERR_INPUT},
        {"{\"weir\":\"lock/2\",\"sources\":{}}", "this weir knows lock/1", ERR_VERSION},
        {"{\"weir\":\"lock/1\"}", "it is to hold \"sources\"", ERR_INPUT},
        {"{\"weir\":\"lock/1\",\"sources\":{\"a\":1}}", "source a is no object", ERR_INPUT},
        {"{\"weir\":\"lock/1\",\"sources\":{\"a\":{\"kind\":\"tape\"}}}", "is deb or url",
         ERR_INPUT},
        {"{\"weir\":\"lock/"
         "1\",\"sources\":{\"a\":{\"kind\":\"deb\",\"deb\":\"-x\",\"version\":\"1\","
         "\"architecture\":\"all\"}}}",
         "no Debian package has such a name", ERR_INPUT},
        {"{\"weir\":\"lock/"
         "1\",\"sources\":{\"a\":{\"kind\":\"url\",\"url\":\"u\",\"sha256\":\"12\"}}}",
         "\"sha256\"", ERR_INPUT},
        {"{\"weir\":\"lock/1\",\"sources\":{" URL_ROW "},\"x\":1}", "nothing else", ERR_INPUT},
    };
    struct arena a;

    arena_init(&a);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = ERR_INIT;
        struct lock lock;

        EXPECT_ERR(lock_parse(cases[i].text, strlen(cases[i].text), "x.lock", &a, &lock, &err),
                   cases[i].code, &err);
        EXPECT_SAYS(&err, cases[i].says);
    }
    arena_release(&a);
}

RUN(a_file_and_a_folder_enter_as_they_are, an_absolute_path_is_taken_as_it_is,
    a_glob_is_a_folder_of_what_matches, a_glob_in_an_odd_folder_and_a_file_that_looks_like_one,
    what_is_wrong_with_a_path_is_said_with_its_place, only_what_is_wanted_is_read,
    looking_again_changes_nothing_in_the_store, what_entered_outlives_a_gc_without_grace,
    an_entry_record_is_made_once_for_content_and_licence, records_give_single_files_their_licences,
    a_wrong_line_of_a_records_file_is_named,
    policy_sees_declared_licences_and_those_of_single_files, artifacts_are_found_by_run_and_by_name,
    input_texts_name_paths_refs_digests_and_outputs, a_ref_to_what_is_only_half_there_is_refused,
    code_enters_once, code_of_all_stages_enters_together_when_it_is_there,
    a_lock_file_is_written_as_it_was_read, a_wrong_lock_file_says_what_is_wrong)
