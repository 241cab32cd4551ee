/* test_siphash.c - claims about native/siphash.c: the authors' test vectors (vectors.h of their reference code). */
/* sources: siphash.c */
#include "pc.h"

#include "check.h"

static void
test_the_authors_vectors(void)
{
    static const struct { size_t len; uint64_t tag; } vectors[] = {
        {0, 0x726fdb47dd0e0e31ull}, {1, 0x74f839c593dc67fdull}, {7, 0xab0200f58b01d137ull}, {8, 0x93f5f5799a932462ull},
        {15, 0xa129ca6149be45e5ull}, {16, 0x3f2acc7f57c29bdbull}, {63, 0x958a324ceb064572ull},
    };
    uint8_t key[PC_KEY_BYTES], bytes[64];

    for (uint8_t i = 0; i < sizeof bytes; i++)
        bytes[i] = i;
    memcpy(key, bytes, sizeof key);
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        CHECK(pc_siphash(key, bytes, vectors[i].len) == vectors[i].tag);
}

int
main(void)
{
    RUN(test_the_authors_vectors);
    return check_end();
}
