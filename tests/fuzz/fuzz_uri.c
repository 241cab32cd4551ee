/* Invariant: the output fits, begins with '/', has its NUL, holds no "//", no "." or ".." segment,
 * no control byte; it is never longer than the input; encoded and decoded again it is itself
 * (decoding happens once, normalising is idempotent). */
/* sources: uri.c escape.c util.c */
/* seeds: uri */
#include "pc.h"

#include "fuzz.h"

static void
check_path(const char *path, size_t len)
{
    size_t segment = 1;

    MUST(path[0] == '/' && path[len] == '\0');
    for (size_t i = 1; i <= len; i++) {
        MUST(i == len || ((uint8_t)path[i] >= 0x20 && path[i] != 0x7f));
        if (i < len && path[i] != '/')
            continue;
        MUST(i > segment || i == len);
        MUST(!(i - segment == 1 && path[segment] == '.'));
        MUST(!(i - segment == 2 && path[segment] == '.' && path[segment + 1] == '.'));
        segment = i + 1;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pc_slice raw = {.base = fuzz_copy(data, size), .len = size};
    char *out = malloc(size + 1), *encoded, *again;
    struct pc_slice path, query;
    int len = pc_uri_decode_path(raw, out, size + 1);

    pc_uri_split(raw, &path, &query);
    MUST(path.base == raw.base && path.len + query.len + (query.base != NULL) == size);
    MUST(len > 0 || len == -PC_E_BAD || len == -PC_E_NOT_FOUND);
    if (len > 0) {
        struct pc_slice once;

        MUST((size_t)len <= path.len);
        check_path(out, (size_t)len);
        encoded = malloc((size_t)len * 3);
        once = (struct pc_slice){
            .base = encoded,
            .len = pc_escape_path((struct pc_slice){.base = out, .len = (size_t)len}, encoded)};
        MUST(once.len <= (size_t)len * 3);
        again = malloc(once.len + 1);
        MUST(pc_uri_decode_path(once, again, once.len + 1) == len &&
             memcmp(again, out, (size_t)len + 1) == 0);
        free(again);
        free(encoded);
    }
    free(out);
    free((void *)raw.base);
    return 0;
}
