/* stage_pic_fuzz.c - any bytes are a whole picture or an error with a text; what was decoded can be resized, hashed, measured and written. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stages/data/feature.h"
#include "stages/data/phash.h"
#include "stages/data/pic_internal.h"
#include "tests/fuzz/fuzz.h"

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "stage_pic_fuzz: not true: %s\n", what);
    abort();
}

static void use(const struct pic *p)
{
    struct err err = ERR_INIT;
    struct features f;
    struct twin t;
    struct pic again;
    struct pic_info info;
    struct buf png;

    must(features_measure(p, &f, &err) == OK, "a picture can be measured");
    must(f.entropy >= 0 && f.entropy <= 8.0000001, "entropy of bytes");
    must(twin_make(p, &t, &err) == OK, "it has a hash");
    buf_init(&png, 1 << 24);
    must(pic_encode_png(p, &png, &err) == OK, "it can be written");
    must(pic_decode(png.p, png.n, NULL, &again, &info, &err) == OK, "and read again");
    must(again.width == p->width && again.height == p->height && again.channels == p->channels &&
             memcmp(again.px, p->px, (size_t)p->width * (size_t)p->height * (size_t)p->channels) ==
                 0,
         "as it was");
    pic_release(&again);
    buf_release(&png);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct pic_limits limits = {1 << 16}; /* keeps a run short */
    struct err err = ERR_INIT;
    struct pic p;
    struct pic_info info;
    const int o = pic_exif_orientation(data, size);

    must(o >= 1 && o <= 8, "an orientation");
    if (pic_decode(data, size, &limits, &p, &info, &err) == OK)
        use(&p);
    else
        must(p.px == NULL && err.text[0], "an error has a text and leaves nothing");
    pic_release(&p);
    return 0;
}
