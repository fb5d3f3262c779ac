#include <unistd.h>

#include "orchestrator/pipeline_image.h"
#include "tests/resolve_rig.h"

/* Everything that the format has. */
static const char full[] =
    "weir: 1\n"
    "name: full\n"
    "description: all of it\n"
    "params: {seed: 7, lr: 1e-4, deep: {list: [1, {a: null}], on: true}}\n"
    "profiles:\n"
    "  big: {params: {seed: 8}}\n"
    "sources:\n"
    "  mine: {path: pictures, license: MIT, attribution: us, records: r.jsonl}\n"
    "  deb: {deb: fonts, license: OFL-1.1}\n"
    "  up: {artifact: other/vae.model@production}\n"
    "policy: {licenses: {deny: [NOASSERTION], allow_only: []}, require_clean_git: true}\n"
    "stages:\n"
    "  a: {uses: prog, inputs: {x: [sources.mine, sources.deb]}, outputs: [m, n], params: {d: "
    "\"${params.deep}\"}, device: cuda}\n"
    "  b:\n"
    "    run: [tool, \"${matrix.k}\", \"{params.v}\"]\n"
    "    matrix: {k: [p, 1, 2.5, true], j: [x, y]}\n"
    "    code: [c.sh]\n"
    "    env: [MODEL_ZOO]\n"
    "    inputs: {m: a.m, u: sources.up}\n"
    "    outputs: [o]\n"
    "    params: {v: \"${matrix.k}\", s: \"${params.seed}\"}\n"
    "    retries: {attempts: 3, backoff: 1s}\n"
    "  c: {run: \"cat {inputs.all}/*\", inputs: {all: \"b[*].o\"}, outputs: [o], when: false}\n"
    "publish: {production: a.m}\n"
    "schedule:\n"
    "  - {cron: \"0 2 * * *\", timezone: Asia/Shanghai, params: {seed: 9}}\n"
    "  - {watch: sources.mine, settle: 10m}\n"
    "notify:\n"
    "  - {events: [failed], webhook: \"${env.HOOK}\"}\n";

static void same(const struct pipeline *a, const struct pipeline *b)
{
    struct err err = ERR_INIT;
    json_t *x, *y;
    struct buf s, t;

    EXPECT_OK(pipeline_json(a, &x, &err), &err);
    EXPECT_OK(pipeline_json(b, &y, &err), &err);
    buf_init(&s, 1 << 24);
    buf_init(&t, 1 << 24);
    EXPECT_OK(json_canonical(x, &s, &err), &err);
    EXPECT_OK(json_canonical(y, &t, &err), &err);
    EXPECT_STR(s.p, t.p);
    EXPECT_EQ(a->task_count, b->task_count);
    for (size_t i = 0; i < a->task_count; i++) {
        EXPECT_EQ(a->order[i], b->order[i]);
        EXPECT_EQ(pipeline_find_task(b, a->tasks[i].name), (int)i);
        for (size_t k = 0; k < a->tasks[i].param_count; k++) {
            EXPECT_EQ(a->tasks[i].params[k].pos.line, b->tasks[i].params[k].pos.line);
            EXPECT_STR(a->tasks[i].params[k].pos.file, b->tasks[i].params[k].pos.file);
        }
    }
    EXPECT_EQ(pipeline_find_source(b, "up"), pipeline_find_source(a, "up"));
    EXPECT(digest_eq(&a->origin, &b->origin));
    EXPECT(digest_eq(&a->options, &b->options));
    json_decref(x);
    json_decref(y);
    buf_release(&s);
    buf_release(&t);
}

TEST(an_image_is_the_pipeline)
{
    struct rig g;
    struct pipeline *p, *q;
    const struct digest key = {{1}}, other = {{2}};
    struct buf image;
    char path[TMPDIR_MAX + 16];

    rig_new(&g);
    rig_write(&g, "pipe.yaml", full);
    (void)snprintf(path, sizeof(path), "%s/pipe.yaml", g.dir);
    EXPECT_OK(pipeline_load(path, NULL, &p, NULL, &g.err), &g.err);
    buf_init(&image, 1 << 26);
    image_encode(p, &key, &image);
    EXPECT(!image.failed);
    image_decode(image.p, image.n, &other, &q);
    EXPECT(q == NULL);
    for (size_t n = 0; n < image.n; n += 7) { /* cut anywhere: not taken, nothing touched */
        image_decode(image.p, n, &key, &q);
        EXPECT(q == NULL);
    }
    image_decode(image.p, image.n, &key, &q);
    EXPECT(q != NULL);
    same(p, q);
    pipeline_free(q);
    pipeline_free(p);
    buf_release(&image);
    rig_free(&g);
}

static void many(struct rig *g, int width, const char *extra)
{
    struct buf y;

    buf_init(&y, 1 << 20);
    buf_str(&y, "weir: 1\nname: many\nparams: {p: 1}\nstages:\n  s:\n    run: \"true\"\n"
                "    outputs: [o]\n    params: {p: \"${params.p}\"}\n    matrix: {k: [0");
    for (int i = 1; i < width; i++)
        buf_printf(&y, ", %d", i);
    buf_printf(&y, "]}\n%s", extra);
    rig_write(g, "pipe.yaml", y.p);
    buf_release(&y);
}

/* From the cache exactly when nothing that matters has changed. */
TEST(an_edit_or_another_option_is_read_anew)
{
    static const char *const sets[] = {"p=2", NULL};
    const struct pipeline_options set = {.sets = sets};
    char path[TMPDIR_MAX + 16], weir[TMPDIR_MAX + 16], params[TMPDIR_MAX + 16];
    const char *files[] = {params, NULL};
    const struct pipeline_options file = {.param_files = files};
    const struct {
        const struct pipeline_options *o;
        const char *extra, *params;
        bool kept;
        int p;
    } steps[] = {{NULL, "", "p: 3\n", false, 1},          {NULL, "", "p: 3\n", true, 1},
                 {&set, "", "p: 3\n", false, 2},          {&set, "", "p: 3\n", true, 2},
                 {NULL, "", "p: 3\n", true, 1},           {NULL, "# more\n", "p: 3\n", false, 1},
                 {&file, "# more\n", "p: 3\n", false, 3}, {&file, "# more\n", "p: 3\n", true, 3},
                 {&file, "# more\n", "p: 4\n", false, 4}};
    struct rig g;

    rig_new(&g);
    (void)snprintf(path, sizeof(path), "%s/pipe.yaml", g.dir);
    (void)snprintf(weir, sizeof(weir), "%s/.weir", g.dir);
    (void)snprintf(params, sizeof(params), "%s/params", g.dir);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct pipeline *p, *q;

        many(&g, 300, steps[i].extra);
        rig_write(&g, "params", steps[i].params);
        EXPECT_OK(pipeline_load_kept(path, steps[i].o, weir, &p, NULL, &g.err), &g.err);
        EXPECT_EQ(p->image != NULL, steps[i].kept);
        EXPECT_EQ(json_integer_value(p->tasks[299].params[0].value), steps[i].p);
        EXPECT_OK(pipeline_load(path, steps[i].o, &q, NULL, &g.err), &g.err);
        same(q, p);
        pipeline_free(q);
        pipeline_free(p);
    }
    rig_free(&g);
}

RUN(an_image_is_the_pipeline, an_edit_or_another_option_is_read_anew)
