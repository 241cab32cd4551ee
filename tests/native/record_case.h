/* record_case.h - items of a record made by hand, and what every case needs: a directory that goes again, a step that must not fail.
 * Runs as:  the developer.   Sees: fixed bytes of the tests.
 * Trusts:   the tests.   Distrusts: -
 * Before:   child_case.h, serve_case.h   After: - */
#ifndef RECORD_CASE_H
#define RECORD_CASE_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct child_bytes {
    size_t len;
    char base[16384];
};

static inline void
child_must(bool holds, const char *what)
{
    if (holds)
        return;
    perror(what);
    abort();
}

static inline void
child_put(struct child_bytes *to, const void *bytes, size_t len)
{
    child_must(to->len + len <= sizeof to->base, "child_bytes");
    memcpy(to->base + to->len, bytes, len);
    to->len += len;
}

static inline void
child_item(struct child_bytes *to, uint16_t tag, const void *payload, size_t len)
{
    const uint16_t head[2] = {tag, 0};
    const uint32_t size = (uint32_t)len;
    child_put(to, head, sizeof head);
    child_put(to, &size, sizeof size);
    child_put(to, payload, len);
}

static inline void
child_text(struct child_bytes *to, uint16_t tag, const char *text)
{
    child_item(to, tag, text, strlen(text));
}

static inline void
child_box(struct child_bytes *to, uint16_t tag, const struct child_bytes *box)
{
    child_item(to, tag, box->base, box->len);
}

#define CHILD_U32S(to, tag, ...)                                    \
    do {                                                            \
        const uint32_t child_numbers[] = {__VA_ARGS__};             \
        child_item(to, tag, child_numbers, sizeof child_numbers);   \
    } while (0)

static inline int
child_remove(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline void
child_remove_directory(const char *path)
{
    child_must(nftw(path, child_remove, 8, FTW_DEPTH | FTW_PHYS) == 0, "nftw");
}

#endif
