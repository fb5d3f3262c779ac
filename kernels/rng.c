#include "kernels/rng.h"

#include "kernels/vmath.h"

struct rng rng_at(uint64_t seed, uint32_t stream, uint64_t sample, uint32_t step)
{
    struct rng r = {.sample = sample, .step = step};

    r.key[0] = (uint32_t)seed ^ (uint32_t)(seed >> 32) * 0x9E3779B9u;
    r.key[1] = stream;
    return r;
}

void rng_block(const struct rng *r, uint32_t block, uint32_t out[4])
{
    const uint32_t counter[4] = {(uint32_t)r->sample, (uint32_t)(r->sample >> 32), r->step, block};

    philox4x32(counter, r->key, out);
}

uint32_t rng_u32(const struct rng *r, uint64_t element)
{
    uint32_t word[4];

    rng_block(r, (uint32_t)(element / 4), word);
    return word[element % 4];
}

static float unit(uint32_t word)
{
    return ((float)(word >> 9) + 0.5f) * 0x1p-23f;
}

float rng_uniform(const struct rng *r, uint64_t element)
{
    return unit(rng_u32(r, element));
}

uint32_t rng_below(const struct rng *r, uint64_t element, uint32_t n)
{
    return (uint32_t)(((uint64_t)rng_u32(r, element) * n) >> 32);
}

void rng_uniforms(const struct rng *r, uint64_t first, int64_t n, float *out)
{
    uint32_t word[4];

    for (int64_t i = 0; i < n; i++) {
        uint64_t element = first + (uint64_t)i;

        if (i == 0 || element % 4 == 0)
            rng_block(r, (uint32_t)(element / 4), word);
        out[i] = unit(word[element % 4]);
    }
}

void rng_normal(const struct rng *r, uint64_t first, int64_t n, float *out)
{
    float z[4];

    for (int64_t i = 0; i < n; i++) {
        uint64_t element = first + (uint64_t)i;

        if (i == 0 || element % 4 == 0) {
            uint32_t word[4];

            rng_block(r, (uint32_t)(element / 4), word);
            for (int pair = 0; pair < 4; pair += 2) {
                float radius = sqrtf(-2.0f * vm_log(unit(word[pair])));
                float sine, cosine;

                vm_sincos(6.28318530718f * unit(word[pair + 1]), &sine, &cosine);
                z[pair] = radius * cosine;
                z[pair + 1] = radius * sine;
            }
        }
        out[i] = z[element % 4];
    }
}
