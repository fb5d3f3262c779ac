/* pack.h - append-only files of many records; the journal of the store.
 *
 *   +-------------+--------+--------+-----+-----------+---------+
 *   | head 16     | record | record | ... | toc       | trailer |
 *   +-------------+--------+--------+-----+-----------+---------+
 *   head     "WEIRPACK" u32 version (1) u32 0
 *   record   header (80 bytes) + payload (stored bytes), no padding:
 *            u32 magic "WREC" | u8 type | u8 enc | u8 flags | u8 0 | u32 stored | u32 payload crc32c | u64 raw |
 *            u64 stamp | id[32] | u64 0 | u32 0 | u32 crc32c of the 76 bytes before
 *   toc      entries of 72 bytes sorted by (id, type, offset): id[32] | u8 type | u8 enc | u8 flags | u8 0 | u32 offset |
 *            u32 stored | u32 payload crc | u64 raw | u64 pos | u64 stamp
 *   trailer  64 bytes: "WEIRTOC1" u64 toc offset | u32 count | u32 crc of toc | nonce[16] | u64 created_ns | u64 0 |
 *            u32 flags | u32 crc of the 60 bytes before.  flags: PACK_TRIED
 * All integers little endian.  The pack's name is the SHA-256 of toc + trailer, so it commits to every id, length and
 * checksum; file name packs/<64 hex>.  A pack never reaches 4 GiB (offsets are u32), normally about 64 MiB.
 *
 * Record types
 *   REC_BLOB    one object's bytes (raw = its length; enc as codec.h).  flags & REC_TREE: it was added as a tree
 *   REC_FRAME   many small objects compressed together: payload = u32 n | n x (id[32] | u32 len | u8 flags | 3 x 0) | zstd frame.
 *               The frame itself has a zero id and no toc entry; each member has one: type REC_FRAME, offset/stored/crc of the
 *               frame record, raw = its own length, pos = its offset in the decoded frame
 *   REC_RECIPE  an object as a list of chunks, which are objects too: payload = check[32] | n x (id[32] | u32 len | u8 hint |
 *               3 x 0), check = SHA-256 of (id | list).  raw = the object's length = sum of len
 *   REC_LOOSE   announces the whole file loose/xx/<id>; payload empty, or a recipe as above: then each chunk can also be read from the
 *               loose file.  raw = its length
 *   REC_BIND    id = action key, payload = result digest[32]; the one with the greatest (stamp, digest) counts
 *   REC_REF     id = SHA-256 of the name; payload = digest[32] | u8 kind (0 removed, 1 blob, 2 tree) | 7 x 0 | name bytes; the one
 *               with the greatest (stamp, digest) counts
 *
 * Life:     pack_writer_open (a unique file in tmp/) -> pack_put ... -> (pack_finish ->) pack_seal (toc, fdatasync, link into packs/, fsync packs/) ->
 *           pack_writer_release at any point gives up and removes the temporary.
 *           pack_open(name) -> pack_toc / pack_read -> pack_close.  pack_scan walks the records without the toc.
 * Owns:     a writer its temporary, buffers and toc; a reader its descriptor and the toc (mapped or read).
 * Threads:  a writer is locked inside: pack_put may be called from any thread.  A reader is read-only, any thread.
 * Errors:   ERR_DAMAGED names pack and offset; every length from the file is checked against its bounds before use.
 *           After any error of a writer the pack is given up; nothing of it becomes visible, unless the fsync of packs/ fails after the
 *           link: then it may or may not, as after a crash.  Later calls repeat the first error.
 */
/* long: the format is one, and is drawn where it is declared */
#ifndef WEIR_STORE_PACK_H
#define WEIR_STORE_PACK_H

#include <stdatomic.h>

#include "base/hash.h"
#include "base/str.h"
#include "store/codec.h"

#define PACK_TARGET_BYTES (64 << 20)
#define PACK_HEADER_BYTES 16
#define PACK_RECORD_HEADER 80
#define PACK_TOC_ENTRY 72
#define PACK_TRAILER 64
#define PACK_BYTES_MAX 0xF0000000LL
#define PACK_RECORDS_MAX (1 << 24)
#define PACK_PAYLOAD_MAX                                                                           \
    (256 << 20) /* recipes; blobs and frames stay below CODEC_RAW_MAX + 64 KiB */
#define FRAME_RAW_TARGET (256 << 10)
#define FRAME_MEMBERS_MAX 4096

enum rec_type {
    REC_BLOB = 1,
    REC_FRAME = 2,
    REC_RECIPE = 3,
    REC_LOOSE = 4,
    REC_BIND = 5,
    REC_REF = 6,
    REC_TYPE_COUNT
};
#define REC_TREE 1u   /* flags */
#define PACK_TRIED 1u /* of the whole pack: what is raw in it would not become smaller */

struct pack_entry { /* one toc entry, decoded */
    struct digest id;
    uint8_t type, enc, flags;
    uint32_t off, stored, crc;
    uint64_t raw, pos, stamp;
};

struct recipe_chunk {
    struct digest id;
    uint32_t len;
    uint8_t hint; /* enum hint */
};

struct frame_member {
    struct digest id;
    uint32_t len;
    uint8_t flags;
};

/* ---- writing ---- */
struct pack_writer;
/* objects: descriptor of the objects folder (with tmp/ and packs/ inside). */
MUST_USE enum err_code pack_writer_open(int objects, struct pack_writer **out, struct err *err);
void pack_writer_release(struct pack_writer *w); /* NULL is fine */
/* One record; e->type, enc, flags, raw, stamp, id are the caller's, off, stored and crc are filled in (and raw = n of binds and refs). */
MUST_USE enum err_code pack_put(struct pack_writer *w, struct pack_entry *e, const void *payload,
                                size_t n, struct err *err);
/* A frame: zstd of the members' concatenated bytes, already compressed by the caller.  Adds one toc entry per member;
 * entries (count of them) are filled in when not NULL. */
MUST_USE enum err_code pack_put_frame(struct pack_writer *w, const struct frame_member *members,
                                      size_t count, const void *zstd, size_t n, size_t raw_n,
                                      struct pack_entry *entries, struct err *err);
/* For many large records that nobody will read soon: past the page cache, whose pages cost more than the write (0.3 to
 * 2.7 CPU seconds a GiB were measured, against 0.04).  Only before the first few records; no effect where the file system cannot. */
void pack_writer_bypass(struct pack_writer *w);
/* Whoever fills this pack has offered every raw blob to codec_best: compaction need not try again. */
void pack_writer_tried(struct pack_writer *w);
/* No record for a while: buffered bytes go to the file, the buffer's memory is given back. */
MUST_USE enum err_code pack_writer_rest(struct pack_writer *w, struct err *err);
int64_t pack_writer_bytes(const struct pack_writer *w);  /* written so far */
size_t pack_writer_records(const struct pack_writer *w); /* toc entries so far */
/* The long part of pack_seal, ahead of it: toc and contents become durable, nothing becomes visible, and nothing more can be put. */
MUST_USE enum err_code pack_finish(struct pack_writer *w, struct err *err);
/* Durable and visible under *name.  Also allowed on a writer without records: ERR_BUG.  When the caller syncs packs/ itself later
 * (several packs, one fsync), pass sync_dir = false. */
enum pack_sync { PACK_SYNC_DIR, PACK_SYNC_DIR_LATER };
MUST_USE enum err_code pack_seal(struct pack_writer *w, enum pack_sync sync, struct digest *name,
                                 struct err *err);
/* The toc of a sealed writer, so that it need not be read back; dies with the writer. */
const struct pack_entry *pack_writer_toc(const struct pack_writer *w, size_t *count);

/* ---- reading ---- */
struct pack; /* an open pack */
MUST_USE enum err_code pack_open(int packs_dir, const struct digest *name, struct pack **out,
                                 struct err *err);
void pack_close(struct pack *p); /* NULL is fine */
const struct digest *pack_name(const struct pack *p);
int64_t pack_bytes(const struct pack *p);
int64_t pack_created_ns(const struct pack *p);
bool pack_tried(const struct pack *p);
/* Has the open file still a name?  Not after a gc has deleted it. */
MUST_USE enum err_code pack_linked(const struct pack *p, bool *linked, struct err *err);
/* The decoded, checked toc (name == SHA-256 of toc and trailer); lives as long as the pack. */
MUST_USE enum err_code pack_toc(struct pack *p, const struct pack_entry **entries, size_t *count,
                                struct err *err);
/* The payload of the record at off, after checking header, bounds, crc; *e (without pos) describes it.  Appends to out. */
MUST_USE enum err_code pack_read(struct pack *p, uint32_t off, struct pack_entry *e,
                                 struct buf *out, struct err *err);
/* Only the record header. */
MUST_USE enum err_code pack_read_header(struct pack *p, uint32_t off, struct pack_entry *e,
                                        struct err *err);
/* Walk by record headers.  Start with *off = PACK_HEADER_BYTES; after each call *off is the next record; *end = true at the
 * toc.  payload is cleared first; NULL: headers only.  A damaged record is ERR_DAMAGED with *off moved to the next record (by the toc when
 * that is good, else by length, else to the next magic that has a good header crc), so a walk can go on. */
MUST_USE enum err_code pack_scan(struct pack *p, uint32_t *off, struct pack_entry *e,
                                 struct buf *payload, bool *end, struct err *err);
/* For salvage: open without trusting toc or trailer. */
MUST_USE enum err_code pack_open_damaged(int packs_dir, const char *file, struct pack **out,
                                         struct err *err);
/* Check toc and trailer bytes got from elsewhere (a remote): tail = the last tail_n bytes of a pack of pack_bytes.  If the toc is
 * longer than tail, *need says how many bytes from the end are needed and entries stays NULL.  free(*entries). */
MUST_USE enum err_code pack_toc_parse(const void *tail, size_t tail_n, int64_t pack_bytes,
                                      const struct digest *name, struct pack_entry **entries,
                                      size_t *count, size_t *need, struct err *err);

/* ---- payloads ---- */
void recipe_encode(const struct digest *id, const struct recipe_chunk *chunks, size_t count,
                   struct buf *out);
/* Checks form (at least one chunk, each 1..CODEC_RAW_MAX bytes), check digest and that lengths sum to raw.  free(*chunks). */
MUST_USE enum err_code recipe_decode(const struct digest *id, uint64_t raw, const void *p, size_t n,
                                     struct recipe_chunk **chunks, size_t *count, struct err *err);
/* Members of a frame payload and where its zstd frame starts.  free(*members). */
MUST_USE enum err_code frame_decode(const void *p, size_t n, struct frame_member **members,
                                    size_t *count, size_t *zstd_off, size_t *raw_n,
                                    struct err *err);
void ref_encode(const struct digest *target, uint8_t kind, struct str name, struct buf *out);
MUST_USE enum err_code ref_decode(const struct digest *id, const void *p, size_t n,
                                  struct digest *target, uint8_t *kind, struct str *name,
                                  struct err *err); /* name points into p, 1..400 printable bytes */

#endif
