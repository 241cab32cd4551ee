/* Invariant: whatever fields HPACK gave out, what they become is one whole head and not a byte more, or an error; a value ends no line of it,
 * and behind the bounds nothing is gathered. */
/* sources: h2head.c h1.c host.c util.c */
/* libs: -lnghttp2 */
/* seeds: h2head */
/* max_len: 1024 */
#include "h2.h"

#include "fuzz.h"

static const struct pc_slice names[] = {
    {":method", 7}, {":scheme", 7}, {":authority", 10}, {":path", 5}, {":protocol", 9}, {"host", 4}, {"cookie", 6}, {"te", 2},
    {"content-length", 14}, {"connection", 10}, {"sec-websocket-key", 17}, {"x-a", 3},
};
static const struct pc_slice values[] = {
    {"GET", 3}, {"https", 5}, {"own.test", 8}, {"/a?b", 4}, {"CONNECT", 7}, {"websocket", 9}, {"trailers", 8}, {"12", 2}, {"*", 1},
};

static uint8_t
next(const uint8_t **at, const uint8_t *end)
{
    return *at < end ? *(*at)++ : 0;
}

/* A word of the table, or bytes of the input's in a block of just their length. */
static struct pc_slice
word(const uint8_t **at, const uint8_t *end, const struct pc_slice *rows, size_t count, char **ret_copy)
{
    uint8_t what = next(at, end);
    if (what >= 64 && what - 64u < count)
        return rows[what - 64u];
    size_t len = what & 63u, left = (size_t)(end - *at);
    len = len < left ? len : left;
    *ret_copy = fuzz_copy(*at, len);
    *at += len;
    return (struct pc_slice){*ret_copy, len};
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct pc_h1_limits limits = {.line_bytes = 8190, .field_bytes = 8190, .field_count = 100};
    static struct pc_head parsed;
    const uint8_t *at = data, *end = data + size;
    struct pc_h2head head = {.max_fields = 1u + next(&at, end)};
    struct pc_slice text = {0};
    uint32_t given = 0;
    while (at < end) {
        char *name_copy = NULL, *value_copy = NULL;
        struct pc_slice name = word(&at, end, names, sizeof names / sizeof *names, &name_copy);
        struct pc_slice value = word(&at, end, values, sizeof values / sizeof *values, &value_copy);
        pc_h2head_field(&head, name, value);
        free(name_copy);
        free(value_copy);
        given++;
    }
    MUST(head.field_count == given);
    MUST(head.text.len <= PC_MAX_HEAD_BYTES && head.cookie.len <= PC_MAX_HEAD_BYTES && head.host.len <= PC_MAX_HEAD_BYTES);
    int error = pc_h2head_finish(&head, PC_S("a2V5a2V5a2V5a2V5a2V5aw=="), &text);
    MUST(error == 0 || error == -PC_E_BAD || error == -PC_E_HEAD_LARGE);
    MUST((error == 0) == (text.base != NULL) && (error != 0 || given <= head.max_fields + 5));
    if (error == 0) {
        char *copy = fuzz_copy(text.base, text.len);
        memset(&parsed, 0, offsetof(struct pc_head, fields));
        int status = pc_h1_parse_head(&parsed, copy, text.len, &limits);
        MUST(status < 0 || (size_t)status == text.len); /* no end of a head within it, and none missing */
        MUST(status < 0 || parsed.field_count <= given + 3);
        free(copy);
    }
    free((void *)(uintptr_t)text.base);
    pc_h2head_free(&head);
    MUST(head.text.base == NULL && head.cookie.base == NULL && head.host.base == NULL);
    return 0;
}
