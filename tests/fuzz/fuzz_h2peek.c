/* Invariant: the name that is found in frames that come whole is found when they come bytewise or in pieces, after as many bytes; it has
 * no more of them than a name may have. */
/* sources: h2peek.c host.c util.c */
/* libs: -lnghttp2 */
/* seeds: h2peek */
/* max_len: 1024 */
#include "h2.h"

#include "fuzz.h"

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define PREFACE_BYTES (sizeof PREFACE - 1)

struct found {
    int status;
    size_t len;
    char name[PC_H2_NAME_BYTES];
};

static struct found
peek(const char *data, size_t size, struct fuzz_split split)
{
    struct found found = {0};
    for (size_t have = 0; found.status == 0 && have < size;) {
        struct pc_slice name = {0};
        have += fuzz_piece(&split, size - have);
        char *bytes = fuzz_copy(data, have), *names = malloc(2 * PC_H2_NAME_BYTES);
        MUST(names != NULL);
        found.status = pc_h2_peek_name(bytes, have, names, &name);
        MUST(found.status <= (int)have && (found.status > 0) == (name.base != NULL));
        found.len = name.len;
        MUST(name.len <= sizeof found.name);
        if (name.len > 0)
            memcpy(found.name, name.base, name.len);
        free(bytes);
        free(names);
    }
    return found;
}

static void
check_same(const struct found *a, const struct found *b)
{
    MUST(a->status == b->status && a->len == b->len && memcmp(a->name, b->name, a->len) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool has_preface = size > 0 && (data[0] & 1) != 0; /* what the fuzzer need not find out */
    size_t skip = has_preface ? PREFACE_BYTES : 0, len = size > 0 ? size - 1 + skip : 0;
    char *raw = malloc(PREFACE_BYTES + size + 1);
    MUST(raw != NULL);
    memcpy(raw, PREFACE, PREFACE_BYTES);
    if (size > 1)
        memcpy(raw + skip, data + 1, size - 1);
    struct found whole = peek(raw, len, (struct fuzz_split){0});
    struct found bytewise = peek(raw, len, (struct fuzz_split){.kind = 1});
    struct found pieces = peek(raw, len, (struct fuzz_split){.kind = 2, .state = (uint32_t)size});
    check_same(&whole, &bytewise);
    check_same(&whole, &pieces);
    free(raw);
    return 0;
}
