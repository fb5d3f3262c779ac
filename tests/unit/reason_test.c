#include <string.h>

#include "orchestrator/resolve.h"
#include "tests/check.h"

#define A "{\"kind\":\"blob\",\"digest\":\"sha256:aa\",\"name\":\"x\"}"
#define B "{\"kind\":\"blob\",\"digest\":\"sha256:bb\",\"name\":\"x\"}"
#define Y "{\"kind\":\"blob\",\"digest\":\"sha256:cc\",\"name\":\"y\"}"

static json_t *json_of(const char *text)
{
    struct err err = ERR_INIT;
    json_t *v = NULL;

    EXPECT_OK(json_parse(text, strlen(text), 1 << 20, "test", &v, &err), &err);
    return v;
}

/* Differences as lines "path old new". */
static void lines(const char *old, const char *now, struct buf *out)
{
    struct err err = ERR_INIT;
    json_t *a = json_of(old), *b = json_of(now), *list;

    EXPECT_OK(action_diff(a, b, &list, &err), &err);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *d = json_array_get(list, i);

        buf_printf(out, "%s%s ", i ? "|" : "", json_string_value(json_object_get(d, "path")));
        EXPECT_OK(json_canonical(json_object_get(d, "old"), out, &err), &err);
        buf_char(out, ' ');
        EXPECT_OK(json_canonical(json_object_get(d, "new"), out, &err), &err);
    }
    json_decref(list);
    json_decref(a);
    json_decref(b);
}

TEST(components_that_differ_are_named)
{
    static const struct {
        const char *old, *now, *want;
    } cases[] = {
        {"{}", "{}", ""},
        {"{\"params\":{\"lr\":1e-4,\"s\":1}}", "{\"params\":{\"lr\":2e-4,\"s\":1.0}}",
         "params.lr 0.0001 0.0002"},
        {"{\"params\":{\"a\":1}}", "{\"params\":{\"b\":1}}", "params.a 1 null|params.b null 1"},
        {"{\"params\":{\"a\":[1,{\"b\":2}]}}", "{\"params\":{\"a\":[1,{\"b\":3}]}}",
         "params.a[1].b 2 3"},
        {"{\"params\":{\"a\":[1]}}", "{\"params\":{\"a\":[1,2]}}", "params.a [1] [1,2]"},
        {"{\"program\":{\"shell\":\"a\"}}", "{\"program\":{\"argv\":[\"a\"]}}",
         "program.argv null [\"a\"]|program.shell \"a\" null"},
        {"{\"program\":{\"argv\":[\"a\",\"b\"]}}", "{\"program\":{\"argv\":[\"a\",\"c\"]}}",
         "program.argv[1] \"b\" \"c\""},
        {"{\"code\":[{\"path\":\"s.py\",\"digest\":\"1\"}]}",
         "{\"code\":[{\"path\":\"s.py\",\"digest\":\"2\"}]}", "code.s.py \"1\" \"2\""},
        {"{\"device\":\"cpu\"}", "{\"device\":\"cuda\",\"platform\":\"x\"}",
         "device \"cpu\" \"cuda\"|platform null \"x\""},
        {"{}", "{\"env\":{\"E\":\"h\"}}", "env.E null \"h\""},
        {"{\"inputs\":[" A "]}", "{\"inputs\":[" B "]}", "inputs.x \"sha256:aa\" \"sha256:bb\""},
        {"{\"inputs\":[" A "]}", "{\"inputs\":[" A "," Y "]}", "inputs.y null \"sha256:cc\""},
        {"{\"inputs\":[" A "," Y "]}", "{\"inputs\":[" Y "," A "]}",
         "inputs.order [\"x\",\"y\"] [\"y\",\"x\"]"},
        {"{\"inputs\":[{\"name\":\"m\",\"digest\":\"1\",\"entries\":[" A "," Y "]}]}",
         "{\"inputs\":[{\"name\":\"m\",\"digest\":\"2\",\"entries\":[" B "," Y "]}]}",
         "inputs.m[x] \"sha256:aa\" \"sha256:bb\""},
        {"{\"inputs\":[{\"name\":\"m\",\"digest\":\"1\",\"entries\":[" A "," Y "]}]}",
         "{\"inputs\":[{\"name\":\"m\",\"digest\":\"1\",\"entries\":[" Y "," A "]}]}",
         "inputs.m.order [\"x\",\"y\"] [\"y\",\"x\"]"},
        {"{\"outputs\":[\"a\"]}", "{\"outputs\":[\"b\"]}", "outputs[0] \"a\" \"b\""},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf out;

        buf_init(&out, 1 << 16);
        buf_str(&out, "");
        lines(cases[i].old, cases[i].now, &out);
        EXPECT_STR(out.p ? out.p : "", cases[i].want);
        buf_release(&out);
    }
}

TEST(what_is_no_action_is_refused)
{
    struct err err = ERR_INIT;
    json_t *list = json_array(), *object = json_object(), *out;

    EXPECT_ERR(action_diff(list, object, &out, &err), ERR_INPUT, &err);
    json_decref(list);
    json_decref(object);
}

RUN(components_that_differ_are_named, what_is_no_action_is_refused)
