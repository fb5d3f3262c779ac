/* intake.h - objects on their way in from a remote: found in its tables, read, verified, written.
 *
 * The caller puts roots into reach and calls intake_run, which adds what they lead to and stops when all of it is here.  Nothing is
 * believed: blobs and frame members are hashed before they are written; a recipe is written last, when its chunks have been read back
 * and hashed end to end; a tree is decoded, and its links judged, before anything below it is looked at.
 * What was written is committed every commit_bytes and touched, so that a cut pull goes on from there, and a gc in between takes
 * nothing.
 *
 * Life:     intake_init -> (reach_add, intake_run)* -> intake_finish -> intake_release (fine on zeroed storage).
 * Owns:     a writer session, the recipes that wait, buffers of an object's size.
 * Threads:  one.
 * Errors:   ERR_DAMAGED names remote, pack and object; ERR_NOT_FOUND what the remote lacks, unless lenient; ERR_CHANGED when a gc
 *           deleted what was counted on: start over.
 */
#ifndef WEIR_STORE_INTAKE_H
#define WEIR_STORE_INTAKE_H

#include "store/reach.h"
#include "store/remote_toc.h"
#include "store/writer.h"

#define INTAKE_OPTIONAL UINT32_MAX /* as the root of an item: it may be missing there */

struct intake_recipe {
    struct digest id;
    uint8_t flags;
    bool optional;
    uint64_t raw;
    uint32_t pack;
    struct recipe_chunk *chunks;
    size_t count;
};
struct intake {
    struct store *st;
    struct tocs *tocs;
    struct reach reach;
    struct writer *writer; /* NULL: a dry run */
    struct codec *codec;
    struct buf raw;
    struct intake_recipe *recipes;
    size_t recipe_count, recipe_cap;
    struct reach_item *tall; /* trees kept as recipes, of the present wave */
    struct intake_recipe *tall_recipes;
    size_t tall_count, tall_cap;
    size_t walked;        /* items of reach that are done */
    int64_t commit_bytes; /* set it after intake_init; 0: never in between */
    int64_t pending_bytes, objects_moved, dry_bytes;
    bool *packs_read; /* by number of the pack */
    /* What a missing object is part of, for messages: "ref data/captions". */
    void (*describe)(void *arg, uint32_t root, char out[512]);
    void *describe_arg;
};
MUST_USE enum err_code intake_init(struct store *st, struct tocs *tocs, bool dry_run,
                                   struct intake *in, struct err *err);
void intake_release(struct intake *in);
MUST_USE enum err_code intake_run(struct intake *in, struct err *err);
/* Recipes; and all of it is committed. */
MUST_USE enum err_code intake_finish(struct intake *in, struct err *err);

#endif
