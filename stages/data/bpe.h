/* bpe.h - byte-level byte-pair encoding, trained here, read by Hugging Face tokenizers.
 *
 *   ids   0 .. specials-1 the special tokens, then the 256 bytes in GPT-2's order, then one token for each merge
 *
 * Text is cut into words as GPT-2 cuts ASCII (" apple", "12", "..."); beyond ASCII every character counts as a letter.  Training repeats: join
 * the most frequent pair of neighbours inside words (the smallest pair of ids among equals).
 *
 * Life:     bpe_new -> bpe_feed ... -> bpe_train -> bpe_token, bpe_merge, bpe_encode -> bpe_free.
 * Owns:     all of it.
 * Threads:  one.
 * Errors:   none but memory, which is bounded by BPE_WORDS_MAX distinct words; later ones are not counted.
 * Paper:    Sennrich et al. 2016, Neural machine translation of rare words with subword units; Radford et al. 2019 (bytes).
 */
#ifndef WEIR_STAGES_DATA_BPE_H
#define WEIR_STAGES_DATA_BPE_H

#include "base/str.h"

#define BPE_WORDS_MAX 2000000
#define BPE_WORD_BYTES_MAX 256

struct bpe;
struct bpe *bpe_new(int32_t specials);
void bpe_free(struct bpe *b); /* NULL is fine */
void bpe_feed(struct bpe *b, const char *text, size_t n);
/* Merges until there are size tokens, or no pair occurs count_min times. */
void bpe_train(struct bpe *b, int32_t size, int64_t count_min);
int32_t bpe_size(const struct bpe *b);
int32_t bpe_merge_count(const struct bpe *b);
void bpe_merge(const struct bpe *b, int32_t i, int32_t *left, int32_t *right);
/* A token as GPT-2 spells it: each byte a visible character.  id >= specials. */
void bpe_token(const struct bpe *b, int32_t id, struct buf *out);
/* Ids of a text; *ids is to hold n of them. */
size_t bpe_encode(const struct bpe *b, const char *text, size_t n, int32_t *ids);

#endif
