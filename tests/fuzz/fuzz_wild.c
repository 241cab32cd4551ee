/* Invariant: the same answer as fnmatch(3) wherever POSIX and glibc define one (no NUL, no
 * collating classes, no '/' in sets or behind a backslash under FNM_PATHNAME, ASCII); never
 * exponential: the time of 4 KB inputs is the harness's timeout. */
/* sources: wild.c util.c */
/* seeds: wild */
#define _GNU_SOURCE
#include "pc.h"

#include <fnmatch.h>

#include "fuzz.h"

static bool
is_defined(struct pc_slice s, bool pathname)
{
    bool is_special = false, has_slash = false;

    for (size_t i = 0; i < s.len; i++) {
        if (s.base[i] <= 0)
            return false;
        if (s.base[i] == '[' && i + 1 < s.len &&
            (s.base[i + 1] == ':' || s.base[i + 1] == '=' || s.base[i + 1] == '.'))
            return false;
        is_special = is_special || s.base[i] == '[' || s.base[i] == '\\';
        has_slash = has_slash || s.base[i] == '/';
    }
    /* A range whose end is the pattern's: glibc refuses the pattern, here its '[' is an ordinary
     * byte. */
    if (is_special && s.len > 0 && (s.base[s.len - 1] == '-' || s.base[s.len - 1] == '\\'))
        return false;
    return !(pathname && is_special && has_slash);
}

/* First line: the pattern. Rest: the text. */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *newline = size == 0 ? NULL : memchr(data, '\n', size);
    size_t pattern_len = newline == NULL ? size : (size_t)(newline - data);
    struct pc_slice pattern = {.base = fuzz_copy(data, pattern_len), .len = pattern_len};
    struct pc_slice text = {.len = newline == NULL ? 0 : size - pattern_len - 1};
    char *p = malloc(size + 1), *t = malloc(size + 1);

    text.base = fuzz_copy(newline == NULL ? data : newline + 1, text.len);
    memcpy(p, pattern.base, pattern.len);
    p[pattern.len] = '\0';
    memcpy(t, text.base, text.len);
    t[text.len] = '\0';
    for (int flags = 0; flags < 4; flags++) {
        bool pathname = (flags & 1) != 0, icase = (flags & 2) != 0;
        bool matches = pc_wild_match(pattern, text, pathname, icase);

        if (size < 48 && is_defined(pattern, pathname) && is_defined(text, false))
            MUST(matches ==
                 (fnmatch(p, t, (pathname ? FNM_PATHNAME : 0) | (icase ? FNM_CASEFOLD : 0)) == 0));
        MUST(pc_wild_has(pattern) || memchr(p, '\\', pattern.len) != NULL || icase ||
             matches == pc_slice_eq(pattern, text));
    }
    free(t);
    free(p);
    free((void *)text.base);
    free((void *)pattern.base);
    return 0;
}
