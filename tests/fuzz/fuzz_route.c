/* Invariant: a table that pc_route_check passes is never read outside and every look-up ends; and a value that is found in a table
 * that pc_route_check_values passes is below the limit. */
/* sources: route.c util.c wild.c */
/* seeds: route */
/* max_len: 1024 */
#include <arpa/inet.h>

#include "child.h"
#include "route.h"

#include "fuzz.h"

#define HOSTS 8

static struct sockaddr_storage
local_v4(const uint8_t address[4], uint16_t port)
{
    struct sockaddr_storage storage = {0};
    struct sockaddr_in *v4 = (void *)&storage;
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    memcpy(&v4->sin_addr, address, 4);
    return storage;
}

static struct sockaddr_storage
local_v6(const uint8_t address[16], uint16_t port)
{
    struct sockaddr_storage storage = {0};
    struct sockaddr_in6 *v6 = (void *)&storage;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    memcpy(&v6->sin6_addr, address, 16);
    return storage;
}

static void
look_up(struct pc_slice table, const struct sockaddr_storage *local, const char *name, size_t len, int is_bounded)
{
    char *copy = fuzz_copy(name, len);
    struct pc_route route = pc_route_find(table, local, (struct pc_slice){copy, len});
    MUST(route.how != PC_ROUTE_NONE || route.value == PC_NO_HOST);
    MUST(!is_bounded || route.how == PC_ROUTE_NONE || route.value < HOSTS);
    free(copy);
}

/* Peers lie in the table, to their last byte. */
static void
look_for_front(struct pc_slice table, const struct sockaddr_storage *local)
{
    uint8_t key[PC_KEY_BYTES];
    struct pc_slice peers;
    if (!pc_route_front(table, local, &peers))
        return;
    MUST(pc_route_has_fronts(table, key));
    MUST(peers.len == 0 || (peers.base >= table.base && peers.base + peers.len <= table.base + table.len));
}

/* Names from everywhere in the table, so that buckets and wildcards are met, on its addresses and on others. */
static void
look_up_all(struct pc_slice table, int is_bounded)
{
    static const char *const names[] = {"", "www.example.org", "a.b", "*", "alice.test", "x"};
    const uint8_t *bytes = (const void *)table.base;
    static const uint8_t none[16];
    for (size_t at = 24; at <= table.len; at += 40) {
        const uint8_t *address = at + 20 <= table.len ? bytes + at + 4 : none;
        uint16_t port = at + 4 <= table.len ? (uint16_t)(bytes[at + 2] | bytes[at + 3] << 8) : 80;
        struct sockaddr_storage v4 = local_v4(address, port), v6 = local_v6(address, port);
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            look_up(table, &v4, names[i], strlen(names[i]), is_bounded);
            look_up(table, &v6, names[i], strlen(names[i]), is_bounded);
        }
        size_t len = table.len - at < PC_MAX_HOST_BYTES ? table.len - at : PC_MAX_HOST_BYTES;
        look_up(table, &v4, table.base + at, len, is_bounded);
        look_up(table, &v6, table.base + at, len / 3, is_bounded);
        (void)pc_route_needs_local(table, port);
        look_for_front(table, &v4);
        look_for_front(table, &v6);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = fuzz_copy(data, size);
    struct pc_slice table = {copy, size};
    if (size >= 24) { /* what no mutation would find: the length, and where the addresses are */
        uint32_t total = (uint32_t)size, address_at = 24;
        memcpy(copy, "PCROUTE1", 8);
        memcpy(copy + 8, &total, 4);
        memcpy(copy + 16, &address_at, 4);
    }
    if (pc_route_check(table) == 0)
        look_up_all(table, pc_route_check_values(table, HOSTS) == 0);
    free(copy);
    return 0;
}
