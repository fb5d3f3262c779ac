/* stage_scene.h - pictures made up for tests: smooth colour fields, shapes and a little grain, different for each number.
 *
 * Life:     scene_make -> pic_release.
 * Owns:     nothing.
 * Threads:  any.
 * Errors:   CHECKs.
 */
#ifndef WEIR_TESTS_STAGE_SCENE_H
#define WEIR_TESTS_STAGE_SCENE_H

#include <stdlib.h>

#include "stages/data/pic.h"

static inline uint32_t scene_random(uint32_t *s)
{
    *s = *s * 1664525u + 1013904223u;
    return *s >> 8;
}

struct scene_blob {
    int x, y, r, colour[3];
};

/* width x height, RGB. */
static inline struct pic scene_make(uint32_t number, int width, int height)
{
    uint32_t s = number * 2654435761u + 12345;
    struct scene_blob blob[12];
    struct err err = ERR_INIT;
    struct pic p;
    int base[3], slope[6];

    CHECK(pic_new(width, height, 3, &p, &err) == OK);
    for (int c = 0; c < 3; c++)
        base[c] = 40 + (int)(scene_random(&s) % 120);
    for (int c = 0; c < 6; c++)
        slope[c] = (int)(scene_random(&s) % 120) - 60;
    for (int i = 0; i < 12; i++) {
        blob[i].x = (int)(scene_random(&s) % 1000);
        blob[i].y = (int)(scene_random(&s) % 1000);
        blob[i].r = 60 + (int)(scene_random(&s) % 200);
        for (int c = 0; c < 3; c++)
            blob[i].colour[c] = (int)(scene_random(&s) % 256);
    }
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            const int u = x * 1000 / width, v = y * 1000 / height;
            uint8_t *px = p.px + 3 * ((size_t)y * (size_t)width + (size_t)x);
            const int grain = (int)(scene_random(&s) % 7) - 3;

            for (int c = 0; c < 3; c++) {
                int value = base[c] + slope[c] * u / 1000 + slope[c + 3] * v / 1000;

                for (int i = 0; i < 12; i++) {
                    const int dx = u - blob[i].x, dy = v - blob[i].y;

                    if (i % 2 ? abs(dx) < blob[i].r && abs(dy) < blob[i].r / 2
                              : dx * dx + dy * dy < blob[i].r * blob[i].r)
                        value = blob[i].colour[c];
                }
                value += grain;
                px[c] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
            }
        }
    return p;
}

#endif
