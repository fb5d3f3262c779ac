/* describe_fuzz.c - any bytes as what a program says about itself: a description that holds what it promises, or an error. */
#include "orchestrator/program_internal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    struct program prog = {0};
    struct err err = ERR_INIT;
    struct buf why;
    json_t *root = NULL;
    int extending = 0;

    arena_init(&a);
    buf_init(&why, 1 << 20);
    if (describe_parse((const char *)data, size, &a, &prog, &root, &err) == OK) {
        for (size_t i = 0; i < prog.param_count; i++) {
            const struct program_param *p = &prog.params[i];

            CHECK(p->name && *p->name && p->type);
            CHECK(!p->standard || param_accepts(p, p->standard, &why));
            (void)param_accepts(p, root, &why); /* an object is no value of any type */
            extending += p->extends;
        }
        CHECK(extending <= 1);
        for (size_t i = 0; i < prog.input_count; i++)
            CHECK(*prog.inputs[i].name);
        for (size_t i = 0; i < prog.output_count; i++)
            CHECK(*prog.outputs[i].name);
    } else {
        CHECK(err.code && *err.text);
    }
    json_decref(root);
    buf_release(&why);
    arena_release(&a);
    return 0;
}
