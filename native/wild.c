/* wild.c - shell wildcards.
 * Runs as:  child (User, or a tenant's uid).   Sees: URL paths, file names, patterns of the
 * configuration. Trusts:   nothing.   Distrusts: both sides; a tenant may write the pattern.
 * Before:   map.c, listing.c   After: -
 *
 * As fnmatch(3) without FNM_PERIOD, in the C locale and for ASCII case only, without collating
 * classes. Only the last '*' is ever tried again, which is enough and keeps the time to pattern
 * times text: an earlier star that would have to take more leaves the same rest to the later one.
 * Under `pathname` that holds within a segment, and a star never crosses '/'. */
#include <string.h>

#include "pc.h"

#define NO_STAR ((size_t)-1)

static uint8_t
fold(char c, bool icase)
{
    uint8_t byte = (uint8_t)c;

    return icase && byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte | 0x20) : byte;
}

/* One end of a range in a set; a backslash takes the next byte as it is. Returns where it ends, 0 =
 * pattern ended. */
static size_t
read_set_byte(struct pc_slice pattern, size_t at, char *ret_byte)
{
    if (at < pattern.len && pattern.base[at] == '\\')
        at++;
    if (at >= pattern.len)
        return 0;
    *ret_byte = pattern.base[at];
    return at + 1;
}

/* The set behind the '[' at `at`. Returns where it ends, 0 = it has no ']' and '[' is an ordinary
 * byte. */
static size_t
match_set(struct pc_slice pattern, size_t at, char c, bool icase, bool *ret_matches)
{
    bool is_negated = false, is_in = false;
    uint8_t byte = fold(c, icase);
    size_t first;

    at++;
    if (at < pattern.len && (pattern.base[at] == '!' || pattern.base[at] == '^')) {
        is_negated = true;
        at++;
    }
    for (first = at; at < pattern.len;) {
        char low, high;

        if (pattern.base[at] == ']' && at > first) {
            *ret_matches = is_in != is_negated;
            return at + 1;
        }
        at = read_set_byte(pattern, at, &low);
        if (at == 0)
            return 0;
        high = low;
        if (pattern.len - at > 1 && pattern.base[at] == '-' && pattern.base[at + 1] != ']') {
            at = read_set_byte(pattern, at + 1, &high);
            if (at == 0)
                return 0;
        }
        if (fold(low, icase) <= byte && byte <= fold(high, icase))
            is_in = true;
    }
    return 0;
}

/* Whether the pattern's element at `at` (not a star) takes byte c. Returns where the element ends,
 * 0 = it does not take it. */
static size_t
match_one(struct pc_slice pattern, size_t at, char c, bool pathname, bool icase)
{
    char want = pattern.base[at];
    bool matches = false;

    if (want == '?')
        return pathname && c == '/' ? 0 : at + 1;
    if (want == '[') {
        size_t end = match_set(pattern, at, c, icase, &matches);

        if (end > 0)
            return matches && !(pathname && c == '/') ? end : 0;
    }
    if (want == '\\') {
        at++;
        if (at == pattern.len)
            return 0; /* a backslash that quotes nothing matches nothing */
        want = pattern.base[at];
    }
    return fold(want, icase) == fold(c, icase) ? at + 1 : 0;
}

bool
pc_wild_match(struct pc_slice pattern, struct pc_slice s, bool pathname, bool icase)
{
    size_t at = 0, i = 0;
    size_t star = NO_STAR,
           star_i = 0; /* behind the last star, and the text it was last tried with */

    while (i < s.len || at < pattern.len) {
        size_t next = 0;

        if (at < pattern.len && pattern.base[at] == '*') {
            star = ++at;
            star_i = i;
            continue;
        }
        if (at < pattern.len && i < s.len)
            next = match_one(pattern, at, s.base[i], pathname, icase);
        if (next > 0) {
            at = next;
            i++;
            continue;
        }
        if (star == NO_STAR || star_i >= s.len || (pathname && s.base[star_i] == '/'))
            return false;
        at = star;
        i = ++star_i;
    }
    return true;
}

bool
pc_wild_has(struct pc_slice pattern)
{
    size_t i;

    for (i = 0; i < pattern.len; i++) {
        if (pattern.base[i] == '*' || pattern.base[i] == '?' || pattern.base[i] == '[')
            return true;
    }
    return false;
}
