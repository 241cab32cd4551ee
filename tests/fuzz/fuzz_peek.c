/* Invariant: whole == bytewise == random split; the name lies in the bytes; where parse_head
 * accepts, peek found that name, and where parse_head refuses the part that peek has seen, peek has
 * not found another name in a head that is accepted. */
/* sources: h1.c host.c util.c */
/* max_len: 400 */
/* seeds: http1 */
#include "pc.h"

#include "fuzz.h"

struct found {
    int status;
    size_t at, len;
};

static struct found
peek(const uint8_t *data, size_t size, struct fuzz_split split)
{
    struct found found = {0};
    size_t have = 0;

    while (found.status == 0 && have < size) {
        struct pc_slice name = {0};
        char *copy;

        have += fuzz_piece(&split, size - have);
        copy = fuzz_copy(data, have);
        found.status = pc_h1_peek_name(copy, have, &name);
        if (found.status > 0) {
            MUST(name.base >= copy && name.base + name.len <= copy + have &&
                 found.status <= (int)have);
            found.at = (size_t)(name.base - copy);
            found.len = name.len;
        } else {
            MUST(name.base == NULL);
        }
        free(copy);
    }
    return found;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct pc_h1_limits limits = {
        .line_bytes = 8190, .field_bytes = 8190, .field_count = 100};
    static struct pc_head head;
    struct found whole = peek(data, size, (struct fuzz_split){0});
    struct found other = peek(data, size, (struct fuzz_split){.kind = 1});
    struct pc_hostname host;
    char *copy;
    int status;

    MUST(whole.status == other.status && whole.at == other.at && whole.len == other.len);
    other = peek(data, size, (struct fuzz_split){.kind = 2, .state = (uint32_t)size});
    MUST(whole.status == other.status && whole.at == other.at && whole.len == other.len);
    memset(&head, 0, offsetof(struct pc_head, fields));
    copy = fuzz_copy(data, size);
    status = pc_h1_parse_head(&head, copy, size, &limits);
    if (status > 0 && size < PC_MAX_PEEK_BYTES) {
        MUST(whole.status > 0 && whole.status <= status);
        MUST(pc_host_parse((struct pc_slice){.base = copy + whole.at, .len = whole.len}, &host) ==
             0);
        MUST(host.len == head.host.len && memcmp(host.name, head.host.name, host.len) == 0);
    }
    if (status == 0 && whole.status < 0)
        MUST(size >= PC_MAX_PEEK_BYTES); /* peek is never stricter than the parser */
    free(copy);
    return 0;
}
