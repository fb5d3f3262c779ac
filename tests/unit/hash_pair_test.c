#include "base/hash_pair.h"
#include "tests/check.h"
#include "tests/store_gen.h"

static void expect_digest(const struct digest *d, const char *hex)
{
    char text[DIGEST_HEX + 1];

    digest_hex(d, text);
    EXPECT_STR(text, hex);
}

/* FIPS 180-4 examples. */
TEST(known_messages_have_known_hashes)
{
    static char million[1000000];
    struct digest a, b;

    hash_pair_of("abc", 3, &a, "", 0, &b);
    expect_digest(&a, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    expect_digest(&b, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    memset(million, 'a', sizeof(million));
    hash_pair_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, &a, million,
                 sizeof(million), &b);
    expect_digest(&a, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    expect_digest(&b, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

/* Every length around a block, at every alignment of one lane to the other. */
TEST(every_short_length_agrees_with_the_plain_hash)
{
    static uint8_t bytes[512];
    uint64_t seed = 3;

    gen_noise(&seed, bytes, sizeof(bytes));
    for (size_t n = 0; n < 200; n++) {
        const size_t m = 199 - n;
        struct digest a, b, want_a, want_b;

        hash_pair_of(bytes + n % 64, n, &a, bytes, m, &b);
        sha256_of(bytes + n % 64, n, &want_a);
        sha256_of(bytes, m, &want_b);
        EXPECT(digest_eq(&a, &want_a));
        EXPECT(digest_eq(&b, &want_b));
    }
}

/* Two messages in random pieces, which end at different times, one lane started again in between. */
TEST(pieces_of_any_size_give_the_same_hash)
{
    enum { SIZE = 1 << 16 };
    static uint8_t bytes[SIZE];
    struct hash_pair h = {0};
    uint64_t seed = 5;

    gen_noise(&seed, bytes, sizeof(bytes));
    for (int round = 0; round < 200; round++) {
        size_t start[2], size[2], at[2] = {0, 0};
        struct digest want, got;

        for (int i = 0; i < 2; i++) {
            start[i] = gen_below(&seed, SIZE / 2);
            size[i] = gen_below(&seed, SIZE / 2);
            hash_pair_start(&h, i);
        }
        while (at[0] < size[0] || at[1] < size[1]) {
            size_t n[2];

            for (int i = 0; i < 2; i++) {
                const size_t left = size[i] - at[i], most = 1 + gen_below(&seed, 3000);

                n[i] = gen_below(&seed, left < most ? left + 1 : most);
                if (left > 0 && left < 64)
                    n[i] = left;
            }
            hash_pair_update(&h, bytes + start[0] + at[0], n[0], bytes + start[1] + at[1], n[1]);
            at[0] += n[0];
            at[1] += n[1];
        }
        for (int i = 0; i < 2; i++) {
            hash_pair_final(&h, i, &got);
            sha256_of(bytes + start[i], size[i], &want);
            EXPECT(digest_eq(&got, &want));
        }
    }
    hash_pair_release(&h);
    hash_pair_release(&(struct hash_pair){0});
}

RUN(known_messages_have_known_hashes, every_short_length_agrees_with_the_plain_hash,
    pieces_of_any_size_give_the_same_hash)
