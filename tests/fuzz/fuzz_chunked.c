/* Invariant: whole == bytewise == random split, in result, consumption and data; each step
 * consumes 1..len; data <= input; what is refused stays refused; the data re-encoded and decoded
 * again is the same data. */
/* sources: chunked.c util.c */
/* max_len: 1500 */
/* seeds: chunked */
#include "pc.h"

#include "fuzz.h"

struct decoded {
    int status; /* consumed when done, 0 unfinished, error */
    size_t len;
    char *data;
};

static struct decoded
decode(const void *bytes, size_t size, struct fuzz_split split)
{
    struct pc_chunked chunked = {0};
    struct decoded decoded = {.data = fuzz_copy(bytes, size)};
    size_t at = 0, have = 0;

    while (!chunked.is_done && have < size) {
        have += fuzz_piece(&split, size - have);
        while (at < have && !chunked.is_done) {
            struct pc_slice piece = {0};
            char *copy = fuzz_copy((const char *)bytes + at, have - at);
            int status = pc_chunked_decode(&chunked, copy, have - at, &piece);

            if (status < 0) {
                MUST(status == -PC_E_BAD && piece.base == NULL);
                MUST(pc_chunked_decode(&chunked, "0\r\n\r\n", 5, &piece) == -PC_E_BAD);
                free(copy);
                decoded.status = status;
                return decoded;
            }
            MUST(status > 0 && (size_t)status <= have - at);
            if (piece.len > 0) {
                MUST(piece.base >= copy && piece.base + piece.len <= copy + status);
                memcpy(decoded.data + decoded.len, piece.base, piece.len);
                decoded.len += piece.len;
            }
            free(copy);
            at += (size_t)status;
        }
    }
    MUST(chunked.ext_bytes <= PC_MAX_CHUNK_EXT_BYTES &&
         chunked.trailer_bytes <= PC_MAX_TRAILER_BYTES);
    decoded.status = chunked.is_done ? (int)at : 0;
    return decoded;
}

static void
check_same(struct decoded a, struct decoded b)
{
    MUST(a.status == b.status);
    MUST(a.status < 0 || (a.len == b.len && memcmp(a.data, b.data, a.len) == 0));
    free(b.data);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct decoded whole = decode(data, size, (struct fuzz_split){0});

    check_same(whole, decode(data, size, (struct fuzz_split){.kind = 1}));
    check_same(whole, decode(data, size, (struct fuzz_split){.kind = 2, .state = (uint32_t)size}));
    if (whole.status > 0 && whole.len > 0) {
        char *again = malloc(whole.len + 64);
        int used;

        if (again == NULL)
            abort();
        used = snprintf(again, 32, "%zx\r\n", whole.len);
        memcpy(again + used, whole.data, whole.len);
        memcpy(again + used + whole.len, "\r\n0\r\n\r\n", 7);
        whole.status = used + (int)whole.len + 7;
        check_same(whole, decode(again, (size_t)whole.status, (struct fuzz_split){0}));
        free(again);
    }
    free(whole.data);
    return 0;
}
