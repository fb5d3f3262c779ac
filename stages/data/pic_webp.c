/* WebP through libwebp: still pictures, and the first frame of animations. */
#include <stdio.h>
#include <string.h>
#include <webp/decode.h>
#include <webp/demux.h>

#include "stages/data/pic_internal.h"

static const char *status_word(VP8StatusCode status)
{
    return status == VP8_STATUS_NOT_ENOUGH_DATA ? "the file ends too early"
                                                : "the stream makes no sense";
}

static void find_orientation(const WebPData *data, struct pic_info *info)
{
    WebPDemuxer *d = WebPDemux(data);
    WebPChunkIterator it;

    if (!d)
        return;
    if (WebPDemuxGetChunk(d, "EXIF", 1, &it)) {
        info->orientation = pic_exif_orientation(it.chunk.bytes, it.chunk.size);
        WebPDemuxReleaseChunkIterator(&it);
    }
    WebPDemuxDelete(d);
}

static enum err_code first_frame(const WebPData *data, struct pic *out, struct err *err)
{
    WebPAnimDecoderOptions options;
    WebPAnimDecoder *d;
    uint8_t *canvas = NULL;
    int time_ms = 0;
    bool got;

    CHECK(WebPAnimDecoderOptionsInit(&options));
    options.color_mode = MODE_RGBA;
    d = WebPAnimDecoderNew(data, &options);
    if (!d)
        return err_set(err, ERR_INPUT, "WebP is damaged: its animation cannot be read");
    got = WebPAnimDecoderGetNext(d, &canvas, &time_ms);
    if (got)
        memcpy(out->px, canvas, (size_t)out->width * (size_t)out->height * 4);
    WebPAnimDecoderDelete(d);
    return got ? OK : err_set(err, ERR_INPUT, "WebP is damaged: its first frame cannot be read");
}

enum err_code pic_webp_decode(const uint8_t *p, size_t n, int64_t pixels_max, struct pic *out,
                              struct pic_info *info, struct err *err)
{
    const WebPData data = {p, n};
    WebPBitstreamFeatures f;
    VP8StatusCode status = WebPGetFeatures(p, n, &f);
    enum err_code rc;
    size_t stride;

    if (status != VP8_STATUS_OK)
        return err_set(err, ERR_INPUT, "WebP is damaged: %s", status_word(status));
    info->width = f.width;
    info->height = f.height;
    info->animated = f.has_animation;
    rc = pic_size_check(f.width, f.height, pixels_max, err);
    if (rc)
        return rc;
    find_orientation(&data, info);
    rc = pic_new(f.width, f.height, f.has_alpha || f.has_animation ? 4 : 3, out, err);
    if (rc)
        return rc;
    if (f.has_animation)
        return first_frame(&data, out, err);
    stride = (size_t)out->width * (size_t)out->channels;
    if (!(f.has_alpha
              ? WebPDecodeRGBAInto(p, n, out->px, stride * (size_t)out->height, (int)stride)
              : WebPDecodeRGBInto(p, n, out->px, stride * (size_t)out->height, (int)stride)))
        return err_set(err, ERR_INPUT,
                       "WebP is damaged: the stream ends too early or makes no sense");
    return OK;
}

const char *pic_webp_version(void)
{
    static char text[32];
    const int v = WebPGetDecoderVersion();

    (void)snprintf(text, sizeof(text), "%d.%d.%d", v >> 16, (v >> 8) & 255, v & 255);
    return text;
}
