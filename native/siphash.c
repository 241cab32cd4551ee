/* siphash.c - SipHash-2-4: a short tag that only who holds the key can make.
 * Runs as:  child that listens.   Sees: a client's address.   Holds: the key, for the call.   Pure.
 * Source:   Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012), whose test vectors tests/native has.
 * Before:   hand.c   After: - */
#include <string.h>

#include "pc.h"

struct state { uint64_t v0, v1, v2, v3; };

static uint64_t
turn(uint64_t word, unsigned bits)
{
    return word << bits | word >> (64 - bits);
}

static void
rounds(struct state *s, int count)
{
    for (; count > 0; count--) {
        s->v0 += s->v1;
        s->v2 += s->v3;
        s->v1 = turn(s->v1, 13) ^ s->v0;
        s->v3 = turn(s->v3, 16) ^ s->v2;
        s->v0 = turn(s->v0, 32);
        s->v2 += s->v1;
        s->v0 += s->v3;
        s->v1 = turn(s->v1, 17) ^ s->v2;
        s->v3 = turn(s->v3, 21) ^ s->v0;
        s->v2 = turn(s->v2, 32);
    }
}

static void
take(struct state *s, uint64_t word)
{
    s->v3 ^= word;
    rounds(s, 2);
    s->v0 ^= word;
}

/* Little endian, as every machine that this runs on. */
uint64_t
pc_siphash(const uint8_t key[PC_KEY_BYTES], const void *bytes, size_t len)
{
    uint64_t k0, k1, word;
    const uint8_t *at = bytes;
    memcpy(&k0, key, 8);
    memcpy(&k1, key + 8, 8);
    struct state s = {k0 ^ 0x736f6d6570736575ull, k1 ^ 0x646f72616e646f6dull, k0 ^ 0x6c7967656e657261ull, k1 ^ 0x7465646279746573ull};
    for (size_t left = len; left >= 8; left -= 8, at += 8) {
        memcpy(&word, at, 8);
        take(&s, word);
    }
    word = 0;
    memcpy(&word, at, len % 8);
    take(&s, word | (uint64_t)len << 56);
    s.v2 ^= 0xff;
    rounds(&s, 4);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
