#include "store/action.h"
#include "tests/store_forge.h"

static json_t *json_of(const char *text)
{
    struct err err = ERR_INIT;
    json_t *v = NULL;

    EXPECT_OK(json_parse(text, strlen(text), 1 << 20, "test", &v, &err), &err);
    return v;
}

/* The key is the SHA-256 of the canonical text: sha256sum gives the same, and it is pinned for ever. */
TEST(keys_are_pinned)
{
    static const struct {
        const char *action, *canonical, *key;
    } cases[] = {
        {"{}", "{}", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},
        {"{ \"stage\": \"train\", \"inputs\": {\"b\": 1.0, \"a\": [true, null]} }",
         "{\"inputs\":{\"a\":[true,null],\"b\":1},\"stage\":\"train\"}",
         "e34f11b832a4281e72d787f79c0d5dcb7f3193709dc6db07c4a68dd7c2d04384"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char hex[DIGEST_HEX + 1];
        struct err err = ERR_INIT;
        struct digest key;
        struct buf text;
        json_t *v = json_of(cases[i].action);

        buf_init(&text, 1 << 20);
        buf_str(&text, "before");
        EXPECT_OK(action_key(v, &key, &text, &err), &err);
        EXPECT_STR(text.p + 6, cases[i].canonical);
        digest_hex(&key, hex);
        EXPECT_STR(hex, cases[i].key);
        buf_release(&text);
        json_decref(v);
    }
}

TEST(what_has_no_canonical_form_has_no_key)
{
    struct err err = ERR_INIT;
    struct digest key;
    struct buf text;
    json_t *v = json_object();

    EXPECT_EQ(json_object_set_new(v, "n", json_integer(((json_int_t)1 << 53) + 1)), 0);
    buf_init(&text, 1 << 20);
    EXPECT_ERR(action_key(v, &key, &text, &err), ERR_INPUT, &err);
    buf_release(&text);
    json_decref(v);
    v = json_of("{\"a\":\"0123456789\"}");
    buf_init(&text, 10);
    EXPECT_ERR(action_key(v, &key, &text, &err), ERR_LIMIT, &err);
    buf_release(&text);
    json_decref(v);
}

static void bind_action(struct forge *f, const char *action, const struct digest *result,
                        struct digest *key)
{
    json_t *v = json_of(action);
    struct writer *w = NULL;

    EXPECT_OK(writer_open(f->st, &w, &f->err), &f->err);
    EXPECT_OK(action_put(w, v, result, key, &f->err), &f->err);
    EXPECT_OK(writer_commit(w, &f->err), &f->err);
    writer_release(w);
    json_decref(v);
}

TEST(put_and_look_up)
{
    struct forge f;
    struct digest first, second, key, result;
    struct buf text;

    forge_new(&f);
    forge_begin(&f);
    first = forge_blob(&f, ENC_RAW, 0, "first", 5);
    second = forge_blob(&f, ENC_RAW, 0, "second", 6);
    forge_commit(&f);
    sha256_of("{\"s\":1}", 7, &key);
    EXPECT_ERR(action_lookup(f.st, &key, &result, &f.err), ERR_NOT_FOUND, &f.err);
    bind_action(&f, "{\"s\":1}", &first, &key);
    EXPECT_OK(action_lookup(f.st, &key, &result, &f.err), &f.err);
    EXPECT(digest_eq(&result, &first));
    buf_init(&text, 100);
    EXPECT_OK(object_read(f.st, &key, 100, &text, &f.err), &f.err); /* the action is an object */
    EXPECT_STR(text.p, "{\"s\":1}");
    buf_release(&text);
    bind_action(&f, "{ \"s\" : 1.0 }", &second, &key); /* the same action, run again */
    EXPECT_OK(action_lookup(f.st, &key, &result, &f.err), &f.err);
    EXPECT(digest_eq(&result, &second));
    forge_open(&f, STORE_READ);
    EXPECT_OK(action_lookup(f.st, &key, &result, &f.err), &f.err);
    EXPECT(digest_eq(&result, &second));
    EXPECT_OK(store_check(f.st, &f.err), &f.err);
    forge_free(&f);
}

/* A hit whose parts are not all there is no hit, and says which is missing. */
TEST(a_result_with_a_hole_is_no_hit)
{
    const struct digest key = {.b = {1}}, other = {.b = {2}}, absent = {.b = {0xcc, 0xdd}};
    struct digest tree, result = {.b = {9}};
    struct forge f;
    struct tree t;

    forge_new(&f);
    forge_begin(&f);
    tree_init(&t);
    EXPECT_OK(tree_add(&t,
                       &(struct tree_entry){
                           .mode = TREE_FILE, .name = STR("x"), .digest = absent, .size = 3},
                       0, &f.err),
              &f.err);
    tree = forge_tree(&f, &t, NULL);
    forge_bind(&f, &key, &tree);
    forge_bind(&f, &other, &absent);
    forge_commit(&f);
    EXPECT_ERR(action_lookup(f.st, &key, &result, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT(strstr(f.err.text, "sha256:ccdd"));
    EXPECT_EQ(result.b[0], 9);
    EXPECT_ERR(action_lookup(f.st, &other, &result, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT(strstr(f.err.text, "sha256:ccdd"));
    forge_free(&f);
}

TEST(lost_results_are_no_hits)
{
    enum { N = 300 };
    struct digest keys[N], results[N];
    struct forge f;
    int hits = 0;

    forge_new(&f);
    forge_begin(&f);
    for (int i = 0; i < N; i++) {
        keys[i] = (struct digest){.b = {1, (uint8_t)(i >> 8), (uint8_t)i}};
        results[i] = forge_blob(&f, ENC_RAW, 0, &i, sizeof(i));
        forge_bind(&f, &keys[i], &results[i]);
    }
    forge_commit(&f);
    setenv("WEIR_LOSE", "3,50", 1);
    forge_open(&f, STORE_READ);
    for (int i = 0; i < N; i++) {
        struct digest result;
        const enum err_code rc = action_lookup(f.st, &keys[i], &result, &f.err);

        EXPECT(rc == OK || rc == ERR_NOT_FOUND);
        hits += rc == OK;
    }
    unsetenv("WEIR_LOSE");
    EXPECT(hits > N / 4 && hits < 3 * N / 4);
    forge_free(&f);
}

TEST(nodes_know_no_actions)
{
    const struct digest key = {.b = {1}};
    struct digest result;
    struct forge f;

    forge_new(&f);
    forge_open(&f, STORE_NODE);
    EXPECT_ERR(action_lookup(f.st, &key, &result, &f.err), ERR_CONFIG, &f.err);
    forge_free(&f);
}

/* After any failure the binding is there or not; a second try binds. */
TEST(put_survives_any_single_fault)
{
    bool fired = true;

    for (int nth = 0; fired; nth++) {
        json_t *v = json_of("{\"s\":1}");
        struct digest result, key, found;
        struct writer *w = NULL;
        struct forge f;
        enum err_code rc;
        int fds;

        forge_new(&f);
        forge_begin(&f);
        result = forge_blob(&f, ENC_RAW, 0, "result", 6);
        forge_commit(&f);
        fds = forge_fd_count();
        fault_arm(nth);
        rc = writer_open(f.st, &w, &f.err);
        if (!rc)
            rc = action_put(w, v, &result, &key, &f.err);
        if (!rc)
            rc = writer_commit(w, &f.err);
        fired = fault_disarm();
        writer_release(w);
        EXPECT(fired || rc == OK); /* a temporary that stays behind is no failure */
        EXPECT(forge_fd_count() <= fds + 1);
        EXPECT_OK(store_check(f.st, &f.err), &f.err);
        if (rc)
            bind_action(&f, "{\"s\":1}", &result, &key);
        EXPECT_OK(action_lookup(f.st, &key, &found, &f.err), &f.err);
        EXPECT(digest_eq(&found, &result));
        json_decref(v);
        forge_free(&f);
    }
}

RUN(keys_are_pinned, what_has_no_canonical_form_has_no_key, put_and_look_up,
    a_result_with_a_hole_is_no_hit, lost_results_are_no_hits, nodes_know_no_actions,
    put_survives_any_single_fault)
