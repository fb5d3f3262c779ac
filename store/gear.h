/* gear.h - boundaries that content itself decides.
 *
 * A gear hash of the last 64 bytes, h = 2 h + table[byte]; a boundary is where its top bits are
 * zero.  Chunks are 256 KiB to 4 MiB, about 1 MiB: before the average more bits must be zero than
 * after it, which draws the lengths together.
 *
 * Life:     gear_init once, then any number of cuts.
 * Owns:     a table, the same everywhere.
 * Threads:  read-only after gear_init.
 * Errors:   none.
 * Paper:    Xia et al. 2016, FastCDC, USENIX ATC.  Differs: no byte before the minimum is skipped
 *           without being hashed when it is in the window, so a boundary depends on the 64 bytes
 *           before it only.
 */
#ifndef WEIR_STORE_GEAR_H
#define WEIR_STORE_GEAR_H

#include <stddef.h>
#include <stdint.h>

#define GEAR_MIN ((size_t)256 << 10)
#define GEAR_AVERAGE ((size_t)1 << 20)
#define GEAR_MAX ((size_t)4 << 20)

struct gear {
    uint64_t table[256];
};

void gear_init(struct gear *g);
/* The length of the chunk that starts at p: its first boundary past both from and GEAR_MIN,
 * GEAR_MAX (or from, when that is more) if there is none before; 0 when p[0..n) ends first. */
size_t gear_cut(const struct gear *g, const uint8_t *p, size_t from, size_t n);

#endif
