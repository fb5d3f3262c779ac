/* Objects vanish (WEIR_LOSE), and who needs them gets them back: by adding them again, by pulling them, by running the action again
 * whose result they are.  Seeds decide which are lost; for each one everything must be noticed and everything must come back. */
#include "store/action.h"
#include "tests/transfer_world.h"

#define SEEDS 12
#define PERCENT 30

struct scene {
    struct world w; /* a has everything and pushed it to the remote; so has b, by a pull */
    struct digest root;
};

static void lose(struct world *w, int seed)
{
    char text[32];

    snprintf(text, sizeof(text), "%d,%d", seed, PERCENT);
    EXPECT_EQ(setenv("WEIR_LOSE", text, 1), 0);
    store_close(w->b);
    w->b = world_open(w, w->b_dir);
    EXPECT_EQ(unsetenv("WEIR_LOSE"), 0);
}

static void scene_new(struct scene *s)
{
    world_new(&s->w);
    world_fill(&s->w);
    s->root = world_add(&s->w, s->w.a, "data");
    EXPECT_OK(world_push(&s->w, s->w.a, NULL), &s->w.err);
    EXPECT_OK(world_pull(&s->w, s->w.b, NULL), &s->w.err);
}

/* Is something gone?  Then nothing that needs it says otherwise. */
static bool something_is_missing(struct scene *s)
{
    const struct mat_options how = {.how = MAT_COPY};
    struct mat_result result;
    struct world *w = &s->w;
    struct digest missing;
    char out[WORLD_PATH + 8];
    bool complete;

    EXPECT_OK(store_complete(w->b, OBJ_TREE, &s->root, &complete, &missing, &w->err), &w->err);
    if (complete)
        return false;
    EXPECT(object_is_lost(w->b, &missing));
    snprintf(out, sizeof(out), "%s/out", w->dir);
    EXPECT_ERR(materialise(w->b, OBJ_TREE, &s->root, out, &how, &result, &w->err), ERR_NOT_FOUND,
               &w->err);
    w->err = (struct err)ERR_INIT;
    EXPECT(access(out, F_OK) != 0);
    return true;
}

/* recover brings everything back, whatever was lost. */
static void each_seed(void (*recover)(struct scene *s))
{
    struct scene s;
    int lost = 0;

    scene_new(&s);
    for (int seed = 1; seed <= SEEDS; seed++) {
        lose(&s.w, seed);
        lost += something_is_missing(&s);
        recover(&s);
        EXPECT(!something_is_missing(&s));
        world_expect_whole(&s.w, s.w.b, "data", &s.root);
    }
    EXPECT(lost > SEEDS / 2); /* else it has shown little */
    store_close(s.w.b);       /* and nothing was lost in truth, nor by what came twice */
    s.w.b = world_open(&s.w, s.w.b_dir);
    world_expect_whole(&s.w, s.w.b, "data", &s.root);
    world_free(&s.w);
}

static void add_again(struct scene *s)
{
    const struct digest d = world_add(&s->w, s->w.b, "data");

    EXPECT_MEM(&d, &s->root, sizeof(d));
}

TEST(adding_again_brings_everything_back)
{
    each_seed(add_again);
}

static void pull_again(struct scene *s)
{
    EXPECT_OK(world_pull(&s->w, s->w.b, NULL), &s->w.err);
}

TEST(a_pull_brings_everything_back)
{
    each_seed(pull_again);
}

/* ---- an action ----------------------------------------------------------------------------------- */

/* The task: its only effect is to put its result. */
static void run_action(struct world *w, const json_t *action, struct digest *key)
{
    const struct ingest_options o = {0};
    struct ingest_result r;
    struct writer *writer = NULL;

    EXPECT_OK(writer_open(w->b, &writer, &w->err), &w->err);
    EXPECT_OK(ingest_path(writer, AT_FDCWD, w->data, &o, &r, &w->err), &w->err);
    EXPECT_OK(action_put(writer, action, &r.digest, key, &w->err), &w->err);
    EXPECT_OK(writer_commit(writer, &w->err), &w->err);
    writer_release(writer);
}

TEST(an_action_whose_result_is_lost_runs_again_and_is_known_then)
{
    json_t *action = json_pack("{s:s,s:i}", "program", "copy", "version", 1);
    struct digest key, result;
    int again = 0;
    struct scene s;

    scene_new(&s);
    run_action(&s.w, action, &key);
    for (int seed = 1; seed <= SEEDS; seed++) {
        enum err_code rc;

        lose(&s.w, seed);
        rc = action_lookup(s.w.b, &key, &result, &s.w.err);
        EXPECT_EQ(rc == OK, !something_is_missing(&s));
        if (rc) {
            EXPECT_EQ(rc, ERR_NOT_FOUND);
            s.w.err = (struct err)ERR_INIT;
            run_action(&s.w, action, &key);
            again++;
        }
        EXPECT_OK(action_lookup(s.w.b, &key, &result, &s.w.err), &s.w.err);
        EXPECT_MEM(&result, &s.root, sizeof(result));
        EXPECT_OK(store_check(s.w.b, &s.w.err), &s.w.err);
    }
    EXPECT(again > SEEDS / 2);
    json_decref(action);
    world_free(&s.w);
}

RUN(adding_again_brings_everything_back, a_pull_brings_everything_back,
    an_action_whose_result_is_lost_runs_again_and_is_known_then)
