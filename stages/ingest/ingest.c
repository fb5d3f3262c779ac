/* ingest - from files, archives and packages to pictures with records. */
#include "stages/ingest/ingest.h"

#include <stdlib.h>
#include <string.h>

#include "stages/data/claim.h"
#include "stages/data/unpack.h"

static const struct stage_param params[] = {
    {"source", STAGE_STRING, "",
     .help = "name of the source in records; empty: the input's entry, else its file name"},
    {"license", STAGE_STRING, "",
     .help = "SPDX expression declared for the source; empty: only what its files say"},
    {"attribution", STAGE_STRING, "", .help = "who is to be named"},
    {"caption_license", STAGE_STRING, "NOASSERTION", .help = "SPDX expression of the captions"},
    {"include", STAGE_STRING, "", .help = "globs of members, comma between; empty: all"},
    {"exclude", STAGE_STRING, "", .help = "globs of members left out, comma between"},
    {"fit", STAGE_STRING, "keep", .choices = "keep|inside|square",
     .help =
         "keep the size; shrink to fit inside side; or crop to the ink and centre on side x side"},
    {"side", STAGE_INT, "512", "8", "8192", .help = "pixels of a side, for inside and square"},
    {"margin", STAGE_INT, "4", "0", "1024", .help = "pixels around the ink, for square"},
    {"pixels_max", STAGE_INT, "30000000", "64", "500000000", .help = "larger pictures are skipped"},
    {"member_bytes_max", STAGE_INT, "67108864", "1024", "1073741824",
     .help = "larger files are skipped"},
    {"limit", STAGE_INT, "0", "0", "100000000",
     .help = "at most so many pictures of a source; 0: all"},
    {"ink_min", STAGE_FLOAT, "0", "0", "1",
     .help = "pictures with a smaller share of ink are skipped"},
    {"aspect_max", STAGE_FLOAT, "0", "0", "1000", .help = "longer pictures are skipped; 0: none"},
    {"caption", STAGE_STRING, "auto", .choices = "auto|stem|none",
     .help = "auto: text beside the picture, else words of its file name"},
    {"labels", STAGE_STRING, "", .help = "names of IDX labels 0, 1, .., comma between"},
    {"fields", STAGE_STRING, "",
     .help = "members of other names in the sidecar: caption=text,path=file"},
    {0}};
static const struct stage_port inputs[] = {
    {"images", .help = "file, directory, tar, zip, .deb or IDX; several make several sources"},
    {"records", true,
     "JSON lines: path, license, attribution, url, caption, caption_zh, caption_license"},
    {0}};
static const struct stage_port outputs[] = {
    {"dataset", .help = "records.jsonl, images/, licenses.json, ingest.json"}, {0}};
static const struct stage_library libraries[] = {{"libpng", pic_png_version},
                                                 {"libjpeg-turbo", pic_jpeg_version},
                                                 {"libwebp", pic_webp_version},
                                                 {"libarchive", unpack_version},
                                                 {0}};

static enum err_code take_options(struct ingest *in, struct err *err)
{
    const struct stage_task *t = in->task;
    struct options *o = &in->o;
    enum err_code rc = OK;

    *o = (struct options){.license = stage_string(t, "license"),
                          .attribution = stage_string(t, "attribution"),
                          .caption_license = stage_string(t, "caption_license"),
                          .include = stage_string(t, "include"),
                          .exclude = stage_string(t, "exclude"),
                          .fit = stage_string(t, "fit"),
                          .caption = stage_string(t, "caption"),
                          .labels = stage_string(t, "labels"),
                          .fields = stage_string(t, "fields"),
                          .side = stage_int(t, "side"),
                          .margin = stage_int(t, "margin"),
                          .pixels_max = stage_int(t, "pixels_max"),
                          .member_bytes_max = stage_int(t, "member_bytes_max"),
                          .limit = stage_int(t, "limit"),
                          .ink_min = stage_float(t, "ink_min"),
                          .aspect_max = stage_float(t, "aspect_max")};
    if (strcmp(o->fit, "square") == 0 && 2 * o->margin >= o->side)
        return err_set(err, ERR_USAGE,
                       "parameter margin: %lld on both sides leave nothing of side %lld",
                       (long long)o->margin, (long long)o->side);
    if (*o->license)
        rc = claim_expression_check(o->license, err);
    if (!rc)
        rc = claim_expression_check(o->caption_license, err);
    if (rc) {
        err->code = ERR_USAGE;
        rc = err_prefix(err, "parameter license or caption_license");
    }
    return rc;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash && slash[1] ? slash + 1 : path;
}

static enum err_code walk_all(struct ingest *in, struct err *err)
{
    const struct stage_input *images = stage_input(in->task, "images");
    const char *name = stage_string(in->task, "source");
    enum err_code rc = OK;

    in->origin_count = images->entry_count ? images->entry_count : 1;
    in->origins = mem_zero(in->origin_count, sizeof(*in->origins));
    for (size_t i = 0; !rc && i < in->origin_count; i++) {
        const struct stage_entry *e = images->entry_count ? &images->entries[i] : NULL;

        in->origins[i].name = e && (!*name || in->origin_count > 1) ? e->name
                              : *name                               ? name
                                                                    : last_part(images->path);
        rc = ingest_walk(in, &in->origins[i], e ? e->path : images->path, err);
        if (rc)
            return err_prefix(err, "source %s", in->origins[i].name);
    }
    return rc;
}

static void release(struct ingest *in)
{
    for (size_t i = 0; i < in->origin_count; i++) {
        struct origin *o = &in->origins[i];

        for (size_t k = 0; k < o->count; k++) {
            free(o->list[k].member);
            free(o->list[k].bytes);
        }
        for (size_t k = 0; k < o->note_count; k++) {
            free(o->notes[k].stem);
            free(o->notes[k].text);
        }
        for (size_t k = 0; k < o->skip_count; k++)
            for (size_t j = 0; j < EXAMPLES; j++)
                free(o->skips[k].examples[j]);
        free(o->list);
        free(o->notes);
        for (size_t k = 0; k < o->label_file_count; k++) {
            free(o->labels[k].name);
            free(o->labels[k].bytes);
        }
        free(o->labels);
        dep5_free(o->dep5);
    }
    for (size_t i = 0; i < in->record_count; i++)
        json_decref(in->record_rows[i]);
    free(in->record_rows);
    lines_release(&in->records);
    free(in->origins);
    dataset_writer_release(&in->out);
    pool_free(in->pool);
}

static enum err_code run(struct stage_task *t, struct err *err)
{
    struct ingest in = {.task = t, .out = {.dir = -1}};
    const struct stage_input *records = stage_input(t, "records");
    const char *path;
    enum err_code rc = take_options(&in, err);

    if (!rc && records)
        rc = ingest_sidecar(&in, records->path, err);
    if (!rc)
        rc = stage_output_dir(t, "dataset", &path, err);
    if (!rc)
        rc = dataset_create(path, &in.out, err);
    if (!rc)
        rc = pool_new(t->threads, 2 * t->threads + 2, &in.pool, err);
    if (!rc)
        rc = walk_all(&in, err);
    if (!rc)
        rc = ingest_records(&in, err);
    release(&in);
    return rc;
}

static const struct stage_program self = {"ingest",
                                          "Pictures of files, archives and packages, normalised, "
                                          "each with a record of where it is from and its licence.",
                                          params,
                                          inputs,
                                          outputs,
                                          run,
                                          libraries,
                                          false};

int main(int argc, char **argv)
{
    return stage_main(&self, argc, argv);
}
