/* Invariant: whole == bytewise == random split; a header's length is no more than its limit and than what is there, and does not depend on
 * what follows it; a client is an IPv4 or IPv6 address; what is refused has a reason and leaves the output alone; and every header that
 * this target writes itself is read back. */
/* sources: proxyhdr.c util.c */
/* seeds: proxyhdr */
/* max_len: 600 */
#include <arpa/inet.h>

#include "pc.h"

#include "fuzz.h"

struct found {
    int status;
    const char *why;
    struct pc_proxyhdr header;
};

static struct found
parse(const uint8_t *data, size_t size, struct fuzz_split split)
{
    struct found found = {.header = {.has_client = true}};
    size_t have = 0;
    do {
        char *copy;
        have += have < size ? fuzz_piece(&split, size - have) : 0;
        copy = fuzz_copy(data, have);
        found.status = pc_proxyhdr_parse(copy, have, &found.header, &found.why);
        free(copy);
        MUST(found.status <= (int)have && found.status <= PC_MAX_PROXYHDR_BYTES);
        MUST((found.status < 0) == (found.why != NULL) && (found.status >= 0 || found.status == -PC_E_BAD));
    } while (found.status == 0 && have < size);
    MUST(found.status > 0 || (found.header.has_client && found.header.client.any.sa_family == 0));
    if (found.status > 0 && found.header.has_client)
        MUST(found.header.client.any.sa_family == AF_INET || found.header.client.any.sa_family == AF_INET6);
    return found;
}

/* An error may have another reason when fewer bytes are there. */
static void
check_same(const struct found *a, const struct found *b)
{
    MUST(a->status == b->status && a->header.has_client == b->header.has_client);
    MUST(memcmp(&a->header.client, &b->header.client, sizeof a->header.client) == 0);
}

static void
check_written(const uint8_t *data, size_t size)
{
    char text[INET6_ADDRSTRLEN], line[200];
    bool is_v6 = (data[0] & 1) != 0;
    uint16_t port = (uint16_t)(data[1] << 8 | data[2]);
    if (size < 19 || inet_ntop(is_v6 ? AF_INET6 : AF_INET, data + 3, text, sizeof text) == NULL)
        return;
    int len = snprintf(line, sizeof line, "PROXY TCP%c %s %s %u 80\r\n", is_v6 ? '6' : '4', text, text, port);
    struct found found = parse((const uint8_t *)line, (size_t)len, (struct fuzz_split){0});
    MUST(found.status == len && found.header.has_client);
    MUST(ntohs(is_v6 ? found.header.client.v6.sin6_port : found.header.client.v4.sin_port) == port);
    MUST(is_v6 ? memcmp(&found.header.client.v6.sin6_addr, data + 3, 16) == 0 : memcmp(&found.header.client.v4.sin_addr, data + 3, 4) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct found whole = parse(data, size, (struct fuzz_split){0});
    struct found other = parse(data, size, (struct fuzz_split){.kind = 1});
    check_same(&whole, &other);
    other = parse(data, size, (struct fuzz_split){.kind = 2, .state = (uint32_t)size});
    check_same(&whole, &other);
    if (whole.status > 0) {
        other = parse(data, (size_t)whole.status, (struct fuzz_split){0});
        check_same(&whole, &other);
    }
    if (size >= 19)
        check_written(data, size);
    return 0;
}
