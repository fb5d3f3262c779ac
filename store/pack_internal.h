/* pack_internal.h - the bytes of a pack, shared by its writer, its reader and the index.
 *
 * Life:     plain functions over caller's memory.
 * Owns:     nothing.
 * Threads:  any.
 * Errors:   pack_fault answers NULL, or what is wrong with an entry in a few words.
 */
#ifndef WEIR_STORE_PACK_INTERNAL_H
#define WEIR_STORE_PACK_INTERNAL_H

#include <endian.h>
#include <string.h>

#include "store/pack.h"

static inline void le32_put(uint8_t *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof(v));
}

static inline void le64_put(uint8_t *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, sizeof(v));
}

static inline uint32_t le32_get(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return le32toh(v);
}

static inline uint64_t le64_get(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

#define PACK_VERSION 1
#define PACK_TOC_SMALLEST (PACK_HEADER_BYTES + PACK_RECORD_HEADER) /* a toc never starts before */
#define RECIPE_HEAD 32                                             /* the check digest */
#define RECIPE_ITEM 40
#define FRAME_HEAD 4
#define FRAME_ITEM 40
#define REF_HEAD 40
#define REF_NAME_MAX 400                             /* store.h's bound; LMDB keys end at 511 */
#define PACK_STORED_MAX (CODEC_RAW_MAX + (64 << 10)) /* blobs and frames */

/* Where an entry stands decides what its raw and pos mean for a frame. */
enum pack_place { PACK_IN_HEADER, PACK_IN_TOC };
const char *pack_fault(const struct pack_entry *e, enum pack_place place);
/* By (id, type, offset, position in the frame): the order of a toc, total for entries that
 * differ. */
int pack_entry_cmp(const void *a, const void *b);

void pack_header_encode(const struct pack_entry *e, uint8_t out[PACK_RECORD_HEADER]);
/* NULL, or what is wrong. */
const char *pack_header_decode(const uint8_t p[PACK_RECORD_HEADER], struct pack_entry *e);

struct pack_trailer {
    uint64_t toc_off;
    uint32_t count, toc_crc;
    uint8_t nonce[16];
    int64_t created_ns;
    uint32_t flags;
};
void pack_toc_entry_encode(const struct pack_entry *e, uint8_t out[PACK_TOC_ENTRY]);
void pack_trailer_encode(const struct pack_trailer *t, uint8_t out[PACK_TRAILER]);
/* Checks form, and that head + records + toc + trailer fill exactly pack_bytes. */
const char *pack_trailer_decode(const uint8_t p[PACK_TRAILER], int64_t pack_bytes,
                                struct pack_trailer *t);
void pack_head_encode(uint8_t out[PACK_HEADER_BYTES]);

#endif
