/* JPEG through libjpeg-turbo, which leaves by longjmp as libpng does.  The slow integer transform has the same bits with and without SIMD. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* jpeglib.h wants stdio.h and stdlib.h before it. */
#include <jerror.h>
#include <jpeglib.h>

#include "stages/data/pic_internal.h"

#define STRINGIZE(x) #x
#define TEXT(x) STRINGIZE(x)

struct session {
    struct jpeg_error_mgr base; /* first: libjpeg hands out a pointer to it */
    jmp_buf leave;
    struct err *err;
    struct pic_info *info;
    struct pic *out;
    uint8_t *line;
    unsigned char *memory;
    unsigned long memory_n;
};

static void fail(j_common_ptr c, const char *text)
{
    struct session *s = (struct session *)c->err;

    if (!s->err->code)
        (void)err_set(s->err, ERR_INPUT, "JPEG is damaged: %.200s", text);
    longjmp(s->leave, 1);
}

static void on_error(j_common_ptr c)
{
    char text[JMSG_LENGTH_MAX];

    c->err->format_message(c, text);
    fail(c, text);
}

/* A premature end is shown by libjpeg as a picture with a grey rest; to us it is no picture. */
static void on_message(j_common_ptr c, int level)
{
    struct session *s = (struct session *)c->err;

    if (level >= 0)
        return;
    if (c->err->msg_code == JWRN_JPEG_EOF || c->err->msg_code == JWRN_HIT_MARKER)
        fail(c, "the file ends too early");
    if (s->info)
        s->info->warnings++;
}

static void on_progress(j_common_ptr c)
{
    struct jpeg_decompress_struct *d = (struct jpeg_decompress_struct *)c;

    if (d->input_scan_number > PIC_SCANS_MAX)
        fail(c, "it has more scans than any camera writes");
}

static void find_orientation(struct jpeg_decompress_struct *d, struct pic_info *info)
{
    for (jpeg_saved_marker_ptr m = d->marker_list; m; m = m->next)
        if (m->marker == JPEG_APP0 + 1 && m->data_length > 6 &&
            memcmp(m->data, "Exif\0\0", 6) == 0) {
            info->orientation = pic_exif_orientation(m->data, m->data_length);
            return;
        }
}

/* Adobe stores CMYK inverted (255 is no ink); files without its mark are nearly always its too. */
static void from_cmyk(const uint8_t *in, int width, uint8_t *out)
{
    for (int x = 0; x < width; x++) {
        const uint8_t *p = in + 4 * (size_t)x;

        for (int c = 0; c < 3; c++)
            out[3 * (size_t)x + (size_t)c] = (uint8_t)((p[c] * p[3] + 127) / 255);
    }
}

static void read_rows(struct jpeg_decompress_struct *d, struct session *s)
{
    const bool cmyk = d->out_color_space == JCS_CMYK;

    if (cmyk) {
        s->line = malloc((size_t)d->output_width * 4);
        if (!s->line)
            fail((j_common_ptr)d, "out of memory");
    }
    while (d->output_scanline < d->output_height) {
        uint8_t *row = s->out->px + (size_t)d->output_scanline * (size_t)s->out->width *
                                        (size_t)s->out->channels;
        JSAMPROW to = cmyk ? s->line : row;

        (void)jpeg_read_scanlines(d, &to, 1);
        if (cmyk)
            from_cmyk(s->line, s->out->width, row);
    }
}

static void read_all(struct jpeg_decompress_struct *d, struct session *s, int64_t pixels_max)
{
    bool four;

    (void)jpeg_read_header(d, TRUE);
    s->info->width = (int)d->image_width;
    s->info->height = (int)d->image_height;
    s->info->depth = d->data_precision;
    find_orientation(d, s->info);
    if (pic_size_check(d->image_width, d->image_height, pixels_max, s->err))
        longjmp(s->leave, 1);
    four = d->jpeg_color_space == JCS_CMYK || d->jpeg_color_space == JCS_YCCK;
    s->info->cmyk = four;
    d->out_color_space = four                                   ? JCS_CMYK
                         : d->jpeg_color_space == JCS_GRAYSCALE ? JCS_GRAYSCALE
                                                                : JCS_RGB;
    d->dct_method = JDCT_ISLOW;
    (void)jpeg_start_decompress(d);
    if (pic_new((int)d->output_width, (int)d->output_height,
                d->out_color_space == JCS_GRAYSCALE ? 1 : 3, s->out, s->err))
        longjmp(s->leave, 1);
    read_rows(d, s);
    (void)jpeg_finish_decompress(d);
}

enum err_code pic_jpeg_decode(const uint8_t *p, size_t n, int64_t pixels_max, struct pic *out,
                              struct pic_info *info, struct err *err)
{
    struct jpeg_decompress_struct d = {0};
    struct jpeg_progress_mgr progress = {.progress_monitor = on_progress};
    struct session s = {.err = err, .info = info, .out = out};

    err->code = OK; /* whoever jumps back has set it */
    d.err = jpeg_std_error(&s.base);
    s.base.error_exit = on_error;
    s.base.emit_message = on_message;
    if (setjmp(s.leave) == 0) {
        jpeg_create_decompress(&d);
        d.progress = &progress;
        jpeg_mem_src(&d, p, (unsigned long)n);
        jpeg_save_markers(&d, JPEG_APP0 + 1, 0xffff);
        read_all(&d, &s, pixels_max);
    }
    jpeg_destroy_decompress(&d);
    free(s.line);
    return err->code;
}

/* ---- out ------------------------------------------------------------------------------------------ */

static void write_all(struct jpeg_compress_struct *c, struct session *s, const struct pic *p,
                      int quality)
{
    c->image_width = (JDIMENSION)p->width;
    c->image_height = (JDIMENSION)p->height;
    c->input_components = p->channels == 1 ? 1 : 3;
    c->in_color_space = p->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(c);
    jpeg_set_quality(c, quality, TRUE);
    c->dct_method = JDCT_ISLOW;
    jpeg_start_compress(c, TRUE);
    while (c->next_scanline < c->image_height) {
        const struct pic row = {p->width, 1, p->channels,
                                p->px + (size_t)c->next_scanline * (size_t)p->width *
                                            (size_t)p->channels};
        JSAMPROW from = s->line;

        if (p->channels == 1)
            memcpy(s->line, row.px, (size_t)p->width);
        else
            pic_rgb(&row, s->line);
        (void)jpeg_write_scanlines(c, &from, 1);
    }
    jpeg_finish_compress(c);
}

enum err_code pic_encode_jpeg(const struct pic *p, int quality, struct buf *out, struct err *err)
{
    struct jpeg_compress_struct c = {0};
    struct session s = {.err = err};

    err->code = OK; /* whoever jumps back has set it */
    c.err = jpeg_std_error(&s.base);
    s.base.error_exit = on_error;
    s.base.emit_message = on_message;
    s.line = malloc((size_t)p->width * 3);
    CHECK(s.line);
    if (setjmp(s.leave) == 0) {
        jpeg_create_compress(&c);
        jpeg_mem_dest(&c, &s.memory, &s.memory_n);
        write_all(&c, &s, p, quality);
        buf_add(out, s.memory, s.memory_n);
    }
    jpeg_destroy_compress(&c);
    free(s.memory);
    free(s.line);
    return err->code ? err->code : buf_check(out, "JPEG", err);
}

const char *pic_jpeg_version(void)
{
    return TEXT(LIBJPEG_TURBO_VERSION);
}
