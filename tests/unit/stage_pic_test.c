/* Pictures: what is written is read back, hostile files are refused with a reason, resizing keeps colours. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* jpeglib.h wants what stdio.h declares. */
/* clang-format off */
#include <jpeglib.h>
/* clang-format on */
#include <webp/encode.h>
#include <webp/mux.h>

#include "stages/data/feature.h"
#include "stages/data/pic_internal.h"
#include "tests/check.h"
#include "tests/stage_scene.h"

static void expect_refused(const void *p, size_t n, enum err_code code, const char *text)
{
    struct pic out;
    struct pic_info info;
    struct err err = ERR_INIT;

    EXPECT_ERR(pic_decode(p, n, NULL, &out, &info, &err), code, &err);
    EXPECT(out.px == NULL);
    if (!strstr(err.text, text))
        EXPECT_STR(err.text, text);
}

static struct buf png_of(const struct pic *p)
{
    struct buf b;
    struct err err = ERR_INIT;

    buf_init(&b, 1 << 24);
    EXPECT_OK(pic_encode_png(p, &b, &err), &err);
    return b;
}

static struct buf jpeg_of(const struct pic *p, int quality)
{
    struct buf b;
    struct err err = ERR_INIT;

    buf_init(&b, 1 << 24);
    EXPECT_OK(pic_encode_jpeg(p, quality, &b, &err), &err);
    return b;
}

TEST(png_round_trip_keeps_every_bit)
{
    static const int channels[] = {1, 3, 4};

    for (int i = 0; i < 3; i++) {
        struct pic p, q;
        struct pic_info info;
        struct err err = ERR_INIT;
        struct buf b;

        EXPECT_OK(pic_new(37, 19, channels[i], &p, &err), &err);
        for (int k = 0; k < 37 * 19 * channels[i]; k++)
            p.px[k] = (uint8_t)(k * 7 + k / 11);
        b = png_of(&p);
        EXPECT_OK(pic_decode(b.p, b.n, NULL, &q, &info, &err), &err);
        EXPECT_EQ(q.channels, channels[i]);
        EXPECT_EQ(q.width, 37);
        EXPECT_MEM(p.px, q.px, (size_t)(37 * 19 * channels[i]));
        pic_release(&p);
        pic_release(&q);
        buf_release(&b);
    }
}

TEST(truncated_files_are_refused_wherever_they_are_cut)
{
    struct pic p = scene_make(1, 96, 64);
    struct buf files[2] = {png_of(&p), jpeg_of(&p, 80)};

    for (int f = 0; f < 2; f++)
        for (size_t n = 0; n + (f ? 2 : 12) < files[f].n;
             n += n < 700 ? 1 : 97) { /* IEND and EOI say nothing of the pixels */
            struct pic out;
            struct pic_info info;
            struct err err = ERR_INIT;

            EXPECT_EQ(pic_decode(files[f].p, n, NULL, &out, &info, &err), ERR_INPUT);
            EXPECT(err.text[0] && out.px == NULL);
        }
    expect_refused(files[0].p, files[0].n / 2, ERR_INPUT, "too early");
    expect_refused(files[1].p, files[1].n / 2, ERR_INPUT, "too early");
    expect_refused("", 0, ERR_INPUT, "empty");
    expect_refused("hello world", 11, ERR_INPUT, "not a picture");
    pic_release(&p);
    buf_release(&files[0]);
    buf_release(&files[1]);
}

TEST(huge_headers_are_refused_before_memory_is_taken)
{
    struct pic p = scene_make(2, 8, 8);
    struct buf png = png_of(&p), jpeg = jpeg_of(&p, 80);

    /* IHDR with its right CRC, then the beginning of IDAT: all that is looked at */
    static const uint8_t huge[] = {0x89, 'P',  'N', 'G', '\r', '\n', 0x1a, '\n', 0,    0,    0,
                                   13,   'I',  'H', 'D', 'R',  0,    0,    0x61, 0xa8, 0,    0,
                                   0x61, 0xa8, 8,   2,   0,    0,    0,    0x47, 0xb2, 0x3c, 0x4a,
                                   0,    0,    0,   12,  'I',  'D',  'A',  'T'};
    expect_refused(huge, sizeof(huge), ERR_LIMIT, "25000 x 25000 has more than 30000000 pixels");
    for (size_t i = 0; i + 9 < jpeg.n; i++)
        if ((uint8_t)jpeg.p[i] == 0xff && (uint8_t)jpeg.p[i + 1] == 0xc0) {
            jpeg.p[i + 5] = (char)0xff; /* height and width 65xxx */
            jpeg.p[i + 7] = (char)0xff;
            break;
        }
    expect_refused(jpeg.p, jpeg.n, ERR_LIMIT, "a side has more than 32768 pixels");
    pic_release(&p);
    buf_release(&png);
    buf_release(&jpeg);
}

TEST(exif_orientation_is_applied)
{
    /* A small EXIF block with one entry, Orientation = o, behind SOI. */
    struct pic p = scene_make(3, 48, 32);
    struct buf plain = jpeg_of(&p, 95);

    for (int o = 1; o <= 8; o++) {
        uint8_t exif[] = {0xff, 0xe1, 0, 34, 'E',        'x', 'i', 'f', 0,    0, 'I', 'I',
                          '*',  0,    8, 0,  0,          0,   1,   0,   0x12, 1, 3,   0,
                          1,    0,    0, 0,  (uint8_t)o, 0,   0,   0,   0,    0, 0,   0};
        struct pic a, b;
        struct pic_info info;
        struct err err = ERR_INIT;
        struct buf with;

        buf_init(&with, 1 << 20);
        buf_add(&with, plain.p, 2);
        buf_add(&with, exif, sizeof(exif));
        buf_add(&with, plain.p + 2, plain.n - 2);
        EXPECT_OK(pic_decode(with.p, with.n, NULL, &a, &info, &err), &err);
        EXPECT_EQ(info.orientation, o);
        EXPECT_EQ(a.width, o >= 5 ? 32 : 48);
        EXPECT_OK(pic_decode(plain.p, plain.n, NULL, &b, &info, &err), &err);
        EXPECT_OK(pic_orient(&b, o, &err), &err);
        EXPECT_MEM(a.px, b.px, 48 * 32 * 3);
        pic_release(&a);
        pic_release(&b);
        buf_release(&with);
    }
    pic_release(&p);
    buf_release(&plain);
}

TEST(orientations_are_those_of_exif)
{
    /* 1 2 3     shown for 6 (turn right):  4 1 ; for 8 (turn left): 3 6 ; 5: 1 4 ; 7: 6 3
     * 4 5 6                                5 2                      2 5      2 5      5 2
     *                                      6 3                      1 4      3 6      4 1 */
    static const char *const shown[] = {"",       "123456", "321654", "654321", "456123",
                                        "142536", "415263", "635241", "362514"};

    for (int o = 1; o <= 8; o++) {
        struct pic p;
        struct err err = ERR_INIT;

        EXPECT_OK(pic_new(3, 2, 1, &p, &err), &err);
        memcpy(p.px, "123456", 6);
        EXPECT_OK(pic_orient(&p, o, &err), &err);
        EXPECT_MEM(p.px, shown[o], 6);
        pic_release(&p);
    }
}

TEST(broken_exif_means_no_rotation)
{
    static const uint8_t far[] = {'I', 'I', '*', 0, 0xff, 0xff, 0xff, 0xff, 1, 0};
    static const uint8_t nine[] = {'M',  'M', 0, '*', 0, 0, 0, 8, 0, 1, 1,
                                   0x12, 0,   3, 0,   0, 0, 1, 0, 9, 0, 0};

    EXPECT_EQ(pic_exif_orientation(far, sizeof(far)), 1);
    EXPECT_EQ(pic_exif_orientation(nine, sizeof(nine)), 1);
    EXPECT_EQ(pic_exif_orientation(nine, 12), 1);
    EXPECT_EQ(pic_exif_orientation(NULL, 0), 1);
}

TEST(cmyk_becomes_rgb)
{
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr errors;
    unsigned char *out = NULL;
    unsigned long n = 0;
    uint8_t row[16 * 4];
    JSAMPROW rows = row;
    struct pic p;
    struct pic_info info;
    struct err err = ERR_INIT;

    c.err = jpeg_std_error(&errors);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &out, &n);
    c.image_width = c.image_height = 16;
    c.input_components = 4;
    c.in_color_space = JCS_CMYK;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, 100, TRUE);
    jpeg_start_compress(&c, TRUE);
    for (int i = 0; i < 16; i++) { /* inverted: no cyan, half magenta, all yellow, little black */
        row[4 * i] = 255;
        row[4 * i + 1] = 128;
        row[4 * i + 2] = 0;
        row[4 * i + 3] = 200;
    }
    while (c.next_scanline < 16)
        (void)jpeg_write_scanlines(&c, &rows, 1);
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    EXPECT_OK(pic_decode(out, n, NULL, &p, &info, &err), &err);
    EXPECT(info.cmyk);
    EXPECT_EQ(p.channels, 3);
    EXPECT(abs(p.px[0] - 200) <= 3 && abs(p.px[1] - 100) <= 3 && p.px[2] <= 3);
    free(out);
    pic_release(&p);
}

TEST(webp_still_and_animated)
{
    struct pic p = scene_make(4, 40, 24), q;
    struct pic_info info;
    struct err err = ERR_INIT;
    uint8_t *still = NULL;
    WebPAnimEncoderOptions options;
    WebPAnimEncoder *anim;
    WebPData data = {0};
    size_t n = WebPEncodeLosslessRGB(p.px, 40, 24, 120, &still);

    EXPECT_OK(pic_decode(still, n, NULL, &q, &info, &err), &err);
    EXPECT_MEM(p.px, q.px, 40 * 24 * 3);
    EXPECT(!info.animated);
    pic_release(&q);
    expect_refused(still, n / 2, ERR_INPUT, "WebP");
    EXPECT(WebPAnimEncoderOptionsInit(&options));
    anim = WebPAnimEncoderNew(40, 24, &options);
    for (int f = 0; f < 2; f++) {
        struct pic frame = scene_make(f ? 5 : 4, 40, 24);
        WebPConfig config;
        WebPPicture picture;

        EXPECT(WebPConfigInit(&config) && WebPPictureInit(&picture));
        config.lossless = 1;
        picture.use_argb = 1;
        picture.width = 40;
        picture.height = 24;
        EXPECT(WebPPictureImportRGB(&picture, frame.px, 120));
        EXPECT(WebPAnimEncoderAdd(anim, &picture, 100 * f, &config));
        WebPPictureFree(&picture);
        pic_release(&frame);
    }
    EXPECT(WebPAnimEncoderAdd(anim, NULL, 200, NULL));
    EXPECT(WebPAnimEncoderAssemble(anim, &data));
    EXPECT_OK(pic_decode(data.bytes, data.size, NULL, &q, &info, &err), &err);
    EXPECT(info.animated);
    EXPECT_EQ(q.channels, 4);
    for (int i = 0; i < 40 * 24; i++)
        EXPECT_MEM(p.px + 3 * i, q.px + 4 * i, 3); /* the first frame */
    WebPAnimEncoderDelete(anim);
    WebPDataClear(&data);
    WebPFree(still);
    pic_release(&p);
    pic_release(&q);
}

TEST(resizing_keeps_plain_colours_and_means)
{
    static const int sizes[][2] = {{1, 1}, {3, 7}, {32, 32}, {33, 64}, {100, 90}, {257, 31}};

    for (int f = 0; f < 2; f++)
        for (size_t i = 0; i < 6; i++) {
            struct pic p, q;
            struct err err = ERR_INIT;

            EXPECT_OK(pic_new(64, 50, 4, &p, &err), &err);
            for (int k = 0; k < 64 * 50; k++)
                memcpy(p.px + 4 * k, (uint8_t[]){200, 13, 77, 255}, 4);
            EXPECT_OK(
                pic_resize(&p, sizes[i][0], sizes[i][1], f ? PIC_BICUBIC : PIC_AREA, &q, &err),
                &err);
            for (int k = 0; k < q.width * q.height; k++)
                EXPECT_MEM(q.px + 4 * k, ((uint8_t[]){200, 13, 77, 255}), 4);
            pic_release(&p);
            pic_release(&q);
        }
}

TEST(halving_is_the_mean_of_four)
{
    struct pic p, q;
    struct err err = ERR_INIT;

    EXPECT_OK(pic_new(8, 6, 1, &p, &err), &err);
    for (int k = 0; k < 48; k++)
        p.px[k] = (uint8_t)(k * 37);
    EXPECT_OK(pic_resize(&p, 4, 3, PIC_AREA, &q, &err), &err);
    for (int y = 0; y < 3; y++)
        for (int x = 0; x < 4; x++) {
            const uint8_t *a = p.px + 16 * y + 2 * x;
            const int mean = a[0] + a[1] + a[8] + a[9];

            EXPECT(abs(4 * q.px[4 * y + x] - mean) <= 3);
        }
    pic_release(&p);
    pic_release(&q);
}

TEST(transparent_pixels_have_no_say_in_colours)
{
    struct pic p, q;
    struct err err = ERR_INIT;

    EXPECT_OK(pic_new(2, 1, 4, &p, &err), &err);
    memcpy(p.px, (uint8_t[]){250, 0, 0, 255, 0, 250, 0, 0}, 8);
    EXPECT_OK(pic_resize(&p, 1, 1, PIC_AREA, &q, &err), &err);
    EXPECT_MEM(q.px, ((uint8_t[]){250, 0, 0, 128}), 4);
    pic_release(&p);
    pic_release(&q);
}

TEST(features_see_what_they_are_named_for)
{
    struct pic sharp = scene_make(6, 128, 128), small, blurred;
    struct features a, b, c;
    struct pic jpeg;
    struct pic_info info;
    struct err err = ERR_INIT;
    struct buf bytes = jpeg_of(&sharp, 8);
    uint8_t grey[128 * 128];

    EXPECT_OK(pic_resize(&sharp, 24, 24, PIC_AREA, &small, &err), &err);
    EXPECT_OK(pic_resize(&small, 128, 128, PIC_BICUBIC, &blurred, &err), &err);
    EXPECT_OK(pic_decode(bytes.p, bytes.n, NULL, &jpeg, &info, &err), &err);
    EXPECT_OK(features_measure(&sharp, &a, &err), &err);
    EXPECT_OK(features_measure(&blurred, &b, &err), &err);
    EXPECT_OK(features_measure(&jpeg, &c, &err), &err);
    EXPECT(b.sharpness < 0.2 * a.sharpness);
    EXPECT(c.blockiness > 1.3 && a.blockiness < 1.15);
    EXPECT(a.jpeg_bpp > b.jpeg_bpp);
    pic_grey(&sharp, grey);
    EXPECT(feature_grid(grey, 128, 128) < 1.15);
    pic_grey(&jpeg, grey);
    EXPECT(feature_grid(grey, 128, 128) > 1.3);
    EXPECT(a.noise > 1 && a.noise < 4); /* grain of -3 .. 3 has deviation 2 */
    for (double x = 1e-3; x < 1e6; x *= 1.37)
        EXPECT(feature_log2(x) - __builtin_log2(x) < 1e-12 &&
               __builtin_log2(x) - feature_log2(x) < 1e-12);
    pic_release(&sharp);
    pic_release(&small);
    pic_release(&blurred);
    pic_release(&jpeg);
    buf_release(&bytes);
}

RUN(png_round_trip_keeps_every_bit, truncated_files_are_refused_wherever_they_are_cut,
    huge_headers_are_refused_before_memory_is_taken, exif_orientation_is_applied,
    orientations_are_those_of_exif, broken_exif_means_no_rotation, cmyk_becomes_rgb,
    webp_still_and_animated, resizing_keeps_plain_colours_and_means, halving_is_the_mean_of_four,
    transparent_pixels_have_no_say_in_colours, features_see_what_they_are_named_for)
