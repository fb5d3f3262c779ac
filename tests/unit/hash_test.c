#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "tests/check.h"

static const char *hex_of(const struct digest *d)
{
    static char hex[DIGEST_HEX + 1];

    digest_hex(d, hex);
    return hex;
}

/* FIPS 180-2 appendix B, and the empty message. */
TEST(sha256_has_the_standard_values)
{
    static const struct {
        const char *text, *hex;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
         "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    struct digest d;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sha256_of(cases[i].text, strlen(cases[i].text), &d);
        EXPECT_STR(hex_of(&d), cases[i].hex);
    }
}

TEST(sha256_goes_on_and_starts_again)
{
    static char a[1000];
    struct sha256 s = {0};
    struct digest d;

    memset(a, 'a', sizeof(a));
    for (int round = 0; round < 2; round++) {
        sha256_init(&s);
        for (size_t done = 0, step; done < 1000000; done += step) {
            step = (done * 7 + 13) % sizeof(a);
            if (step > 1000000 - done)
                step = 1000000 - done;
            sha256_update(&s, a, step);
            if (step == 0)
                step = 1, sha256_update(&s, a, 1);
        }
        sha256_final(&s, &d);
        EXPECT_STR(hex_of(&d), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }

    /* Again in the middle: what was added before is forgotten. */
    sha256_init(&s);
    sha256_update(&s, "garbage", 7);
    sha256_init(&s);
    sha256_update(&s, "abc", 3);
    sha256_final(&s, &d);
    EXPECT_STR(hex_of(&d), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_release(&s);
    sha256_release(&s);

    struct sha256 zeroed = {0};

    sha256_release(&zeroed);
}

#define HEX "000102030405060708090a0b0c0d0e0ff0e0d0c0b0a090807060504030201aff"

TEST(digests_are_written_and_read)
{
    struct digest d, again;
    struct err err = ERR_INIT;
    char text[DIGEST_TEXT + 1];

    EXPECT_OK(digest_parse(HEX, DIGEST_HEX, &d, &err), &err);
    EXPECT_EQ(d.b[1], 1);
    EXPECT_EQ(d.b[31], 0xff);
    EXPECT_STR(hex_of(&d), HEX);
    digest_text(&d, text);
    EXPECT_STR(text, "sha256:" HEX);
    EXPECT_OK(digest_parse(text, DIGEST_TEXT, &again, &err), &err);
    EXPECT(digest_eq(&d, &again));
    EXPECT(!digest_is_zero(&d));
    again.b[0] = 1;
    EXPECT(!digest_eq(&d, &again));
    EXPECT(digest_cmp(&d, &again) < 0);
    EXPECT(digest_cmp(&again, &d) > 0);
    again = (struct digest){0};
    EXPECT(digest_is_zero(&again));
}

TEST(other_texts_are_no_digests)
{
    static const char *const cases[] = {
        "",
        "sha256:",
        "0",
        "000102030405060708090a0b0c0d0e0ff0e0d0c0b0a090807060504030201af",
        HEX "0",
        "000102030405060708090A0B0C0D0E0FF0E0D0C0B0A090807060504030201AFF",
        "g00102030405060708090a0b0c0d0e0ff0e0d0c0b0a090807060504030201aff",
        "000102030405060708090a0b0c0d0e0ff0e0d0c0b0a090807060504030201af:",
        " 00102030405060708090a0b0c0d0e0ff0e0d0c0b0a090807060504030201aff",
        "sha256:sha256:" HEX,
        "SHA256:" HEX,
        "sha512:" HEX,
        "sha256:000102030405060708090a0b0c0d0e0ff0e0d0c0b0a090807060504030201af",
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct digest d = {.b = {42}};
        struct err err = ERR_INIT;

        EXPECT_ERR(digest_parse(cases[i], strlen(cases[i]), &d, &err), ERR_INPUT, &err);
        EXPECT_EQ(d.b[0], 42); /* untouched */
    }
}

typedef uint32_t (*crc_fn)(uint32_t crc, const void *p, size_t n);
static const crc_fn crc_fns[] = {crc32c, crc32c_portable};

/* RFC 3720 appendix B.4, and the check value of the catalogues. */
TEST(crc32c_has_the_standard_values)
{
    static const unsigned char pdu[48] = {
        0x01, 0xc0, [16] = 0x14, [22] = 0x04, [27] = 0x14, [31] = 0x18, 0x28, [40] = 0x02};
    unsigned char zeros[32] = {0}, ones[32], up[32], down[32];

    for (int i = 0; i < 32; i++) {
        ones[i] = 0xff;
        up[i] = (unsigned char)i;
        down[i] = (unsigned char)(31 - i);
    }
    for (size_t f = 0; f < 2; f++) {
        const crc_fn crc = crc_fns[f];

        EXPECT_EQ(crc(0, "", 0), 0);
        EXPECT_EQ(crc(0, "123456789", 9), 0xe3069283);
        EXPECT_EQ(crc(0, zeros, 32), 0x8a9136aa);
        EXPECT_EQ(crc(0, ones, 32), 0x62a8ab43);
        EXPECT_EQ(crc(0, up, 32), 0x46dd794e);
        EXPECT_EQ(crc(0, down, 32), 0x113fdb5c);
        EXPECT_EQ(crc(0, pdu, 48), 0xd9963a56);
    }
}

/* One bit at a time, as the definition has it. */
static uint32_t crc_by_bits(uint32_t crc, const unsigned char *p, size_t n)
{
    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return ~crc;
}

TEST(crc32c_is_the_same_in_every_way)
{
    unsigned char bytes[600];
    uint32_t seed = 1;

    for (size_t i = 0; i < sizeof(bytes); i++) {
        seed = seed * 1664525 + 1013904223;
        bytes[i] = (unsigned char)(seed >> 24);
    }
    for (size_t start = 0; start < 9; start++)
        for (size_t n = 0; n < 300; n++) {
            const uint32_t expected = crc_by_bits(0, bytes + start, n);
            const size_t split = n * 5 / 8;

            for (size_t f = 0; f < 2; f++) {
                const uint32_t head = crc_fns[f](0, bytes + start, split);

                EXPECT_EQ(crc_fns[f](0, bytes + start, n), expected);
                EXPECT_EQ(crc_fns[f](head, bytes + start + split, n - split), expected);
            }
        }
}

/* Long ones are taken in three stretches side by side: lengths around one, two and three rounds of that. */
TEST(crc32c_of_long_messages_is_the_same)
{
    static unsigned char bytes[3 * 12288 + 50];
    uint32_t seed = 2;

    for (size_t i = 0; i < sizeof(bytes); i++) {
        seed = seed * 1664525 + 1013904223;
        bytes[i] = (unsigned char)(seed >> 24);
    }
    for (size_t start = 0; start < 3; start++)
        for (size_t rounds = 1; rounds <= 3; rounds++)
            for (size_t extra = 0; extra < 40; extra += 3) {
                const size_t n = rounds * 12288 + extra - 10;
                const uint32_t expected = crc_by_bits(7, bytes + start, n);

                EXPECT_EQ(crc32c(7, bytes + start, n), expected);
                EXPECT_EQ(crc32c_portable(7, bytes + start, n), expected);
            }
}

RUN(sha256_has_the_standard_values, sha256_goes_on_and_starts_again, digests_are_written_and_read,
    other_texts_are_no_digests, crc32c_has_the_standard_values, crc32c_is_the_same_in_every_way,
    crc32c_of_long_messages_is_the_same)
