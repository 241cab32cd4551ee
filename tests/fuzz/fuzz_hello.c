/* Invariant: what is found in a whole hello is found in no other way when it comes in two parts; a name is a host's; no more is looked at
 * than there is, and nothing is awaited behind as much as can be peeked at. */
/* sources: hello.c host.c util.c */
/* seeds: hello */
/* max_len: 20000 */
#include "pc.h"

#include "fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *raw = fuzz_copy(data, size);
    struct pc_hello hello, part;
    int status = pc_hello_parse(raw, size, &hello);

    MUST(status <= (int)size);
    MUST(status > 0 || status == 0 || status == -PC_E_BAD || status == -PC_E_VERSION || status == -PC_E_HEAD_LARGE || status == -PC_E_NOT_FOUND);
    MUST(status != 0 || size < PC_MAX_PEEK_BYTES);
    if (status > 0)
        MUST(strlen(hello.name.name) == hello.name.len && hello.name.len <= PC_MAX_HOST_BYTES && hello.name.port == 0
             && strspn(hello.name.name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == hello.name.len);
    size_t half = size > 0 ? data[size - 1] * size / 256 : 0;
    char *before = fuzz_copy(data, half);
    int early = pc_hello_parse(before, half, &part);
    MUST(early == 0 || early == status);
    MUST(early <= 0 || strcmp(part.name.name, hello.name.name) == 0);
    free(before);
    free(raw);
    return 0;
}
