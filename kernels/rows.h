/* rows.h - moving rows and columns: pick, patches, split, concatenate, enlarge.
 *
 *   pick       out[i] = index[i] < 0 ? zeros : row index[i] of (rows of a, then rows of b)
 *   patchify   (B, H, W, C) -> (B, H/p * W/p, p * p * C): tokens row by row, in each (row, column, channel), channel fastest
 *   upsample   nearest neighbour, twice as high and wide
 *
 * pick is embedding (a the table), padding with a learned token (b that token), joining and cutting sequences of unequal
 * lengths, choosing rows: one operator with one backward, the sum of each row's users in the order of i.
 *
 * Shapes:   pick: a, b (.., C) or b NONE; index i32 of any shape S, out (S, C).  split: (.., n C) -> n of (.., C), n <= 4;
 *           concat inverts it.  upsample: (B, H, W, C) -> (B, 2H, 2W, C).
 * Types:    the tape's; index i32 below the number of rows (the data loader's duty; a wrong one ends the process).
 * Gradient: all but index.
 * Errors:   ERR_INPUT (through the tape) on shapes that do not fit.
 */
#ifndef WEIR_KERNELS_ROWS_H
#define WEIR_KERNELS_ROWS_H

#include "kernels/tape.h"

struct val pick(struct tape *t, struct val a, struct val b, struct val index);
struct val patchify(struct tape *t, struct val image, int patch);
struct val unpatchify(struct tape *t, struct val tokens, int patch, int64_t height, int64_t width);
/* parts[0 .. n - 1]; values depend on the columns only, so it also cuts channels. */
void split(struct tape *t, struct val x, int n, struct val *parts);
struct val concat(struct tape *t, const struct val *parts, int n);
struct val upsample(struct tape *t, struct val image);

#endif
