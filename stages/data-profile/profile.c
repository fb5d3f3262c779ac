/* data-profile - what a dataset holds, how good it is, what is there twice, what should go. */
#include "stages/data-profile/profile.h"

#include <stdlib.h>
#include <string.h>

static const struct stage_param params[] = {
    {"min_side", STAGE_INT, "0", "0", "32768",
     .help = "leave out pictures whose original has a shorter side below this"},
    {"aspect_max", STAGE_FLOAT, "0", "0", "1000",
     .help = "leave out pictures longer than this; 0: none"},
    {"quality_min", STAGE_FLOAT, "0", "0", "1",
     .help = "leave out pictures of a lower quality_score"},
    {"blockiness_max", STAGE_FLOAT, "0", "0", "100",
     .help = "leave out originals that show more JPEG blocks; 0: none"},
    {"sharpness_min", STAGE_FLOAT, "0", "0", "1000000",
     .help = "leave out pictures of a lower variance of the Laplacian"},
    {"entropy_min", STAGE_FLOAT, "0", "0", "8",
     .help = "leave out pictures with fewer bits a pixel in the histogram"},
    {"compression_min", STAGE_FLOAT, "0", "0", "10",
     .help = "leave out JPEG and WebP originals with fewer bytes a sample"},
    {"deny_licenses", STAGE_STRING, "",
     .help = "leave out rows that concluded one of these, comma between"},
    {"quarantine", STAGE_STRING, "keep", .choices = "keep|drop",
     .help = "rows whose licence could not be concluded"},
    {"duplicates", STAGE_STRING, "mark", .choices = "mark|drop",
     .help = "mark with dup_of, or keep the best of each group only"},
    {"phash_distance", STAGE_INT, "10", "0", "20",
     .help = "bits of 64 in which hashes of near duplicates differ at most"},
    {"twin_difference", STAGE_INT, "10", "0", "255",
     .help = "mean difference of their thumbnails at most"},
    {"examples", STAGE_INT, "8", "0", "64", .help = "pictures the report shows for each finding"},
    {0}};
static const struct stage_port inputs[] = {{"images", .help = "a dataset, or several"}, {0}};
static const struct stage_port outputs[] = {
    {"dataset", .help = "the rows that are left, scored; removed.jsonl says what went and why"},
    {"report", true, "report.json and report.html"},
    {0}};
static const struct stage_library libraries[] = {{"libpng", pic_png_version},
                                                 {"libjpeg-turbo", pic_jpeg_version},
                                                 {"libwebp", pic_webp_version},
                                                 {0}};

static void release(struct profile *p)
{
    for (int64_t i = 0; i < p->count; i++)
        json_decref(p->items[i].row);
    for (size_t i = 0; i < p->set_count; i++)
        dataset_release(&p->sets[i]);
    for (int32_t i = 0; i < p->tag_count; i++)
        free(p->tags[i].word);
    free(p->tags);
    free(p->items);
    free(p->sets);
    dataset_writer_release(&p->out);
    pool_free(p->pool);
}

static enum err_code run(struct stage_task *t, struct err *err)
{
    struct profile p = {.task = t, .out = {.dir = -1}};
    enum err_code rc = profile_load(&p, err);

    if (!rc)
        rc = pool_new(t->threads, 4 * t->threads, &p.pool, err);
    if (!rc)
        rc = profile_measure(&p, err);
    if (!rc)
        profile_score(&p);
    if (!rc)
        rc = profile_group(&p, err);
    if (!rc) {
        profile_tags(&p);
        profile_filter(&p);
        rc = profile_write(&p, err);
    }
    if (!rc)
        rc = profile_report(&p, err);
    release(&p);
    return rc;
}

static const struct stage_program self = {
    "data-profile", "Scores, duplicates, rarity and filters of a dataset, with a report.",
    params,         inputs,
    outputs,        run,
    libraries,      false};

int main(int argc, char **argv)
{
    return stage_main(&self, argc, argv);
}
