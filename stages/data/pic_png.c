/* PNG through libpng, which leaves by longjmp: whatever is needed afterwards is in a struct, not in a local that changes. */
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "stages/data/pic_internal.h"

#define CHUNK_MAX (8 << 20) /* of text and the like, which is not kept */
#define CHUNKS_MAX 1000

struct session {
    const uint8_t *p;
    size_t n, at;
    struct pic *out;
    struct pic_info *info;
    int64_t pixels_max;
    struct err *err;
    uint8_t **rows;
    png_structp png;
    png_infop head;
    struct buf *sink;
};

static void on_error(png_structp png, png_const_charp text)
{
    struct session *s = png_get_error_ptr(png);

    if (!s->err->code)
        (void)err_set(s->err, ERR_INPUT, "PNG is damaged: %.200s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    struct session *s = png_get_error_ptr(png);

    (void)text;
    if (s->info)
        s->info->warnings++;
}

static void on_read(png_structp png, png_bytep to, size_t n)
{
    struct session *s = png_get_io_ptr(png);

    if (n > s->n - s->at)
        png_error(png, "the file ends too early");
    memcpy(to, s->p + s->at, n);
    s->at += n;
}

static void read_header(struct session *s)
{
    const int64_t w = png_get_image_width(s->png, s->head),
                  h = png_get_image_height(s->png, s->head);
    const int type = png_get_color_type(s->png, s->head);
    png_bytep exif = NULL;
    png_uint_32 exif_n = 0;

    s->info->width = (int)w;
    s->info->height = (int)h;
    s->info->depth = png_get_bit_depth(s->png, s->head);
    s->info->palette = type == PNG_COLOR_TYPE_PALETTE;
    if (png_get_eXIf_1(s->png, s->head, &exif_n, &exif))
        s->info->orientation = pic_exif_orientation(exif, exif_n);
    if (pic_size_check(w, h, s->pixels_max, s->err))
        png_longjmp(s->png, 1);
    png_set_expand(s->png); /* palette to colours, few bits to 8, tRNS to alpha */
    png_set_scale_16(s->png);
    if (type == PNG_COLOR_TYPE_GRAY_ALPHA ||
        (type == PNG_COLOR_TYPE_GRAY && png_get_valid(s->png, s->head, PNG_INFO_tRNS)))
        png_set_gray_to_rgb(s->png);
    (void)png_set_interlace_handling(s->png);
    png_read_update_info(s->png, s->head);
}

static void read_all(struct session *s)
{
    int channels;

    png_read_info(s->png, s->head);
    read_header(s);
    channels = png_get_channels(s->png, s->head);
    if (pic_new(s->info->width, s->info->height, channels, s->out, s->err))
        png_longjmp(s->png, 1);
    if (png_get_rowbytes(s->png, s->head) != (size_t)s->out->width * (size_t)channels)
        png_error(s->png, "rows of an unexpected length");
    s->rows = malloc((size_t)s->out->height * sizeof(*s->rows));
    if (!s->rows)
        png_error(s->png, "out of memory");
    for (int y = 0; y < s->out->height; y++)
        s->rows[y] = s->out->px + (size_t)y * (size_t)s->out->width * (size_t)channels;
    png_read_image(s->png, s->rows);
    png_read_end(s->png, NULL);
}

enum err_code pic_png_decode(const uint8_t *p, size_t n, int64_t pixels_max, struct pic *out,
                             struct pic_info *info, struct err *err)
{
    struct session s = {
        .p = p, .n = n, .out = out, .info = info, .pixels_max = pixels_max, .err = err};

    err->code = OK; /* whoever jumps back has set it */
    s.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &s, on_error, on_warning);
    CHECK(s.png);
    s.head = png_create_info_struct(s.png);
    CHECK(s.head);
    png_set_read_fn(s.png, &s, on_read);
    png_set_user_limits(s.png, 0x7fffffff, 0x7fffffff); /* ours come with a text */
    png_set_chunk_malloc_max(s.png, CHUNK_MAX);
    png_set_chunk_cache_max(s.png, CHUNKS_MAX);
    if (setjmp(png_jmpbuf(s.png)) == 0)
        read_all(&s);
    png_destroy_read_struct(&s.png, &s.head, NULL);
    free(s.rows);
    return err->code;
}

/* ---- out ------------------------------------------------------------------------------------------ */

static void on_write(png_structp png, png_bytep p, size_t n)
{
    struct session *s = png_get_io_ptr(png);

    buf_add(s->sink, p, n);
}

static void on_flush(png_structp png)
{
    (void)png;
}

static void write_all(struct session *s, const struct pic *p)
{
    static const int types[] = {0, PNG_COLOR_TYPE_GRAY, 0, PNG_COLOR_TYPE_RGB, PNG_COLOR_TYPE_RGBA};

    png_set_IHDR(s->png, s->head, (png_uint_32)p->width, (png_uint_32)p->height, 8,
                 types[p->channels], PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_set_filter(s->png, 0, PNG_FILTER_SUB | PNG_FILTER_UP);
    /* Measured on 1,794 sprites and 299 noisy photos of 512 x 512: level 2 takes 0.51 and 4.5 s, 3.65 and 95 MB; level 4 takes 0.58 and
     * 7.8 s, 3.58 and 135 MB. */
    png_set_compression_level(s->png, 2);
    png_write_info(s->png, s->head);
    for (int y = 0; y < p->height; y++)
        png_write_row(s->png, p->px + (size_t)y * (size_t)p->width * (size_t)p->channels);
    png_write_end(s->png, NULL);
}

enum err_code pic_encode_png(const struct pic *p, struct buf *out, struct err *err)
{
    struct session s = {.err = err, .sink = out};

    err->code = OK; /* whoever jumps back has set it */
    s.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &s, on_error, on_warning);
    CHECK(s.png);
    s.head = png_create_info_struct(s.png);
    CHECK(s.head);
    png_set_write_fn(s.png, &s, on_write, on_flush);
    if (setjmp(png_jmpbuf(s.png)) == 0)
        write_all(&s, p);
    png_destroy_write_struct(&s.png, &s.head);
    return err->code ? err->code : buf_check(out, "PNG", err);
}

const char *pic_png_version(void)
{
    return png_get_libpng_ver(NULL);
}
