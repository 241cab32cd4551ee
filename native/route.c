/* route.c - find who serves a server name, in a route table as perchild/wire/route.py lays it out.
 * Runs as:  child (User, or a tenant's uid).   Sees: client bytes (the name).   Holds: no tenant data, no keys.
 * Trusts:   a table that pc_route_check has passed.   Distrusts: the name (any bytes).
 * Before:   peek.c   After: hand.c */
#include <arpa/inet.h>
#include <string.h>

#include "child.h"
#include "route.h"

struct table_head {
    char magic[8];
    uint32_t total, address_count, address_at, generation;
};

struct table_address {
    uint8_t family, flags;
    uint16_t port;
    uint8_t address[16];
    uint32_t fallback, bucket_count, bucket_at, wild_count, wild_at;
};

struct table_entry {
    uint32_t crc, value;
    uint16_t len;
    char name[];
} __attribute__((packed));

/* Of an address with FLAG_FRONT: the offset of one stands behind its wildcards, 0 = none. */
struct table_front {
    uint8_t key[PC_KEY_BYTES];
    uint32_t len;
    char peers[];
};

#define FLAG_TLS 1u
#define FLAG_FRONT 2u
#define FLAG_H2C 4u

_Static_assert(sizeof(struct table_head) == 24 && sizeof(struct table_address) == 40, "wire/route.py");

static const struct table_head *
head_of(struct pc_slice table)
{
    return (const void *)table.base;
}

static const struct table_address *
addresses_of(struct pc_slice table)
{
    return (const void *)(table.base + head_of(table)->address_at);
}

static const struct table_entry *
entry_at(struct pc_slice table, uint32_t at)
{
    return (const void *)(table.base + at);
}

static bool
entries_hold(struct pc_slice table, uint32_t at, uint32_t count, bool may_be_free)
{
    if (at % 4 != 0 || at > table.len || count > (table.len - at) / 4)
        return false;
    const uint32_t *offsets = (const void *)(table.base + at);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t entry = offsets[i];
        if (entry == 0 && may_be_free)
            continue;
        if (entry % 4 != 0 || entry < sizeof(struct table_head) || entry > table.len || table.len - entry < sizeof(struct table_entry)
            || table.len - entry - sizeof(struct table_entry) < entry_at(table, entry)->len)
            return false;
    }
    return true;
}

static const struct table_front *
front_of(struct pc_slice table, const struct table_address *address)
{
    uint32_t at = ((const uint32_t *)(const void *)(table.base + address->wild_at))[address->wild_count];
    return at != 0 ? (const void *)(table.base + at) : NULL;
}

/* Called once the wildcards are known to lie in the table. */
static bool
front_holds(struct pc_slice table, const struct table_address *address)
{
    if ((address->flags & FLAG_FRONT) == 0)
        return true;
    uint32_t end = address->wild_at + 4 * address->wild_count;
    if (table.len - end < 4)
        return false;
    uint32_t at = *(const uint32_t *)(const void *)(table.base + end);
    return at == 0 || (at % 4 == 0 && at <= table.len && table.len - at >= sizeof(struct table_front)
                       && front_of(table, address)->len <= table.len - at - sizeof(struct table_front));
}

static bool
buckets_have_room(struct pc_slice table, const struct table_address *address)
{
    const uint32_t *buckets = (const void *)(table.base + address->bucket_at);
    for (uint32_t i = 0; i < address->bucket_count; i++)
        if (buckets[i] == 0)
            return true;
    return false; /* a lookup of an unknown name would never end */
}

int
pc_route_check(struct pc_slice table)
{
    if (table.len < sizeof(struct table_head) || (uintptr_t)table.base % 4 != 0)
        return -PC_E_FORMAT;
    const struct table_head *head = head_of(table);
    if (memcmp(head->magic, "PCROUTE1", 8) != 0 || head->total != table.len || head->address_at != sizeof *head
        || head->address_count > (table.len - sizeof *head) / sizeof(struct table_address))
        return -PC_E_FORMAT;
    for (uint32_t i = 0; i < head->address_count; i++) {
        const struct table_address *address = &addresses_of(table)[i];
        uint32_t count = address->bucket_count;
        if (count == 0 || (count & (count - 1)) != 0 || !entries_hold(table, address->bucket_at, count, true)
            || !entries_hold(table, address->wild_at, address->wild_count, false) || !front_holds(table, address)
            || !buckets_have_room(table, address))
            return -PC_E_FORMAT;
    }
    return 0;
}

static bool
values_are_below(struct pc_slice table, uint32_t at, uint32_t count, uint32_t limit)
{
    const uint32_t *offsets = (const void *)(table.base + at);
    for (uint32_t i = 0; i < count; i++)
        if (offsets[i] != 0 && entry_at(table, offsets[i])->value >= limit)
            return false;
    return true;
}

int
pc_route_check_values(struct pc_slice table, uint32_t count)
{
    for (uint32_t i = 0; i < head_of(table)->address_count; i++) {
        const struct table_address *address = &addresses_of(table)[i];
        if ((address->fallback >= count && address->fallback != PC_NO_HOST)
            || !values_are_below(table, address->bucket_at, address->bucket_count, count)
            || !values_are_below(table, address->wild_at, address->wild_count, count))
            return -PC_E_FORMAT;
    }
    return 0;
}

struct local_key {
    uint8_t family;
    uint16_t port;
    uint8_t address[16];
};

static struct local_key
key_of(const struct sockaddr_storage *local)
{
    struct local_key key = {0};
    if (local->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const void *)local;
        key.family = 4;
        key.port = ntohs(v4->sin_port);
        memcpy(key.address, &v4->sin_addr, 4);
    } else if (local->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const void *)local;
        key.port = ntohs(v6->sin6_port);
        bool is_mapped = IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr);
        key.family = is_mapped ? 4 : 6;
        memcpy(key.address, v6->sin6_addr.s6_addr + (is_mapped ? 12 : 0), is_mapped ? 4 : 16);
    }
    return key;
}

/* Order of the table: (family, address, port), descending. */
static int
compare(const struct table_address *at, uint8_t family, const uint8_t address[16], uint16_t port)
{
    if (at->family != family)
        return at->family > family ? -1 : 1;
    int bytes = memcmp(at->address, address, 16);
    if (bytes != 0)
        return bytes > 0 ? -1 : 1;
    if (at->port != port)
        return at->port > port ? -1 : 1;
    return 0;
}

static const struct table_address *
find_address(struct pc_slice table, uint8_t family, const uint8_t address[16], uint16_t port)
{
    uint32_t low = 0, high = head_of(table)->address_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct table_address *at = &addresses_of(table)[middle];
        int order = compare(at, family, address, port);
        if (order == 0)
            return at;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static const struct table_address *
find_for_connection(struct pc_slice table, const struct local_key *key)
{
    static const uint8_t any[16];
    const struct { uint8_t family; const uint8_t *address; uint16_t port; } tries[] = {
        {key->family, key->address, key->port},
        {key->family, key->address, 0},
        {0, any, key->port},
        {0, any, 0},
    };
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        const struct table_address *at = find_address(table, tries[i].family, tries[i].address, tries[i].port);
        if (at != NULL)
            return at;
    }
    return NULL;
}

struct pc_route
pc_route_find(struct pc_slice table, const struct sockaddr_storage *local, struct pc_slice name)
{
    struct local_key key = key_of(local);
    const struct table_address *address = find_for_connection(table, &key);
    if (address == NULL)
        return (struct pc_route){.value = PC_NO_HOST};
    bool is_tls = (address->flags & FLAG_TLS) != 0;
    const uint32_t *buckets = (const void *)(table.base + address->bucket_at);
    uint32_t crc = pc_crc32(name.base, name.len), mask = address->bucket_count - 1;
    for (uint32_t slot = crc & mask; name.len > 0 && buckets[slot] != 0; slot = (slot + 1) & mask) {
        const struct table_entry *entry = entry_at(table, buckets[slot]);
        if (entry->crc == crc && entry->len == name.len && memcmp(entry->name, name.base, name.len) == 0)
            return (struct pc_route){.value = entry->value, .how = PC_ROUTE_EXACT, .is_tls = is_tls};
    }
    const uint32_t *wilds = (const void *)(table.base + address->wild_at);
    for (uint32_t i = 0; name.len > 0 && i < address->wild_count; i++) {
        const struct table_entry *entry = entry_at(table, wilds[i]);
        if (pc_wild_match((struct pc_slice){entry->name, entry->len}, name, false, false))
            return (struct pc_route){.value = entry->value, .how = PC_ROUTE_WILD, .is_tls = is_tls};
    }
    enum pc_route_how how = address->fallback == PC_NO_HOST ? PC_ROUTE_NONE : PC_ROUTE_DEFAULT;
    return (struct pc_route){.value = address->fallback, .how = how, .is_tls = is_tls};
}

bool
pc_route_speaks_tls(struct pc_slice table, const struct sockaddr_storage *local)
{
    struct local_key key = key_of(local);
    const struct table_address *address = find_for_connection(table, &key);
    return address != NULL && (address->flags & FLAG_TLS) != 0;
}

static bool
has_flag(struct pc_slice table, uint32_t flag)
{
    for (uint32_t i = 0; i < head_of(table)->address_count; i++)
        if ((addresses_of(table)[i].flags & flag) != 0)
            return true;
    return false;
}

bool
pc_route_has_tls(struct pc_slice table)
{
    return has_flag(table, FLAG_TLS);
}

bool
pc_route_has_h2c(struct pc_slice table)
{
    return has_flag(table, FLAG_H2C);
}

bool
pc_route_front(struct pc_slice table, const struct sockaddr_storage *local, struct pc_slice *ret_peers)
{
    struct local_key key = key_of(local);
    const struct table_address *address = find_for_connection(table, &key);
    if (address == NULL || (address->flags & FLAG_FRONT) == 0)
        return false;
    const struct table_front *front = front_of(table, address);
    *ret_peers = front != NULL ? (struct pc_slice){front->peers, front->len} : (struct pc_slice){0};
    return true;
}

bool
pc_route_has_fronts(struct pc_slice table, uint8_t ret_key[PC_KEY_BYTES])
{
    for (uint32_t i = 0; i < head_of(table)->address_count; i++) {
        const struct table_address *address = &addresses_of(table)[i];
        if ((address->flags & FLAG_FRONT) == 0)
            continue;
        const struct table_front *front = front_of(table, address);
        if (front != NULL)
            memcpy(ret_key, front->key, PC_KEY_BYTES);
        return true;
    }
    return false;
}

bool
pc_route_needs_local(struct pc_slice table, uint16_t port)
{
    for (uint32_t i = 0; i < head_of(table)->address_count; i++) {
        const struct table_address *at = &addresses_of(table)[i];
        if (at->family != 0 && (at->port == port || at->port == 0))
            return true;
    }
    return false;
}
