/* route.h - which identity, or host, an address and a name belong to. (route.c)
 * Runs as:  child.   Before: peek.c   After: - */
#ifndef PC_ROUTE_H
#define PC_ROUTE_H

#include "pc.h"

enum pc_route_how { PC_ROUTE_NONE, PC_ROUTE_EXACT, PC_ROUTE_WILD, PC_ROUTE_DEFAULT };

struct pc_route {
    uint32_t value; /* identity number, or host index in an own table; PC_NO_HOST */
    enum pc_route_how how;
    bool is_tls;
};

/* Check the table's every offset once, so that lookups need not. Returns 0 or -PC_E_FORMAT. */
int pc_route_check(struct pc_slice table);
/* Whether every value of a checked table is below `count` (or PC_NO_HOST as an address's default): indexes of hosts. */
int pc_route_check_values(struct pc_slice table, uint32_t count);
/* Who serves `name` on the local address. Pure; table checked before. */
struct pc_route pc_route_find(struct pc_slice table, const struct sockaddr_storage *local, struct pc_slice name);
/* Whether the answer on `port` depends on which local address it is (else the wildcard address does). */
bool pc_route_needs_local(struct pc_slice table, uint16_t port);

/* Whether the hosts of the local address speak TLS (SSLEngine); and whether those of any address do. */
bool pc_route_speaks_tls(struct pc_slice table, const struct sockaddr_storage *local);
bool pc_route_has_tls(struct pc_slice table);
/* Whether a host of any address speaks HTTP/2 without TLS; only the server's table says it. */
bool pc_route_has_h2c(struct pc_slice table);

/* Whether connections to the local address begin with a PROXY protocol header (RemoteIPProxyProtocol). ret_peers: ACCESS leaves of
 * who may send one; len 0 = everybody. */
bool pc_route_front(struct pc_slice table, const struct sockaddr_storage *local, struct pc_slice *ret_peers);
/* Whether any address has that. ret_key: of those who have this table; signs clients' addresses (hand.c); zero in an own table. */
bool pc_route_has_fronts(struct pc_slice table, uint8_t ret_key[PC_KEY_BYTES]);

/* A mapped server table; replaced while threads look things up, so they hold it by a hazard pointer. */
struct pc_route_map {
    struct pc_slice table;
    bool needs_local[PC_MAX_LISTENERS];
    bool has_fronts, has_tls, has_h2c;
    uint8_t key[PC_KEY_BYTES], key_before[PC_KEY_BYTES]; /* of fronts, and that of the table before this one */
    struct pc_route_map *older; /* retired, freed when no thread holds it */
};

#endif
