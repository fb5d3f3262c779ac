/* fuzz.h - what a fuzz target provides: one call per input.
 *
 * Life:     libFuzzer (WEIR_FUZZ=ON) or driver.c calls it again and again; each call leaves nothing behind.
 * Owns:     the caller owns data; it is exactly size bytes, so a sanitizer sees the first byte too far.
 * Threads:  one.
 * Errors:   return 0; crash, CHECK or a sanitizer's finding is how a bug shows.
 */
#ifndef WEIR_TESTS_FUZZ_FUZZ_H
#define WEIR_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
