/* peek.c - look at the first bytes of a connection without taking them, and decide whose it is: at a request's head up to its Host, or,
 * where TLS is spoken, at the ClientHello up to its server name. So it takes no key to accept for everybody.
 * Runs as:  child that listens (User, or a tenant's uid under AcceptScope any).   Sees: a stranger's first bytes.
 * Holds:    the route table; no key, no tenant's record but its own.   Distrusts: every byte.
 *           Where front ends send PROXY protocol headers (RemoteIPProxyProtocol) it also reads those, and those bytes only.
 * Before:   accept.c   After: proxyhdr.c, h1.c, hello.c, route.c, then hand.c (another's) or request.c (ours) */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "h2.h"
#include "hand.h"
#include "route.h"

#define ALERT_DECODE_ERROR 50 /* RFC 8446 6 */
#define ALERT_UNRECOGNIZED_NAME 112

/* Whether no byte will follow those that are here. Looking never meets the end: what was peeked at stands before it. */
static bool
has_ended(const struct pc_conn *conn)
{
    struct pollfd state = {.fd = conn->fd, .events = POLLRDHUP};
    return poll(&state, 1, 0) > 0 && (state.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

/* A map that cannot be freed while this worker's hazard points at it. */
struct pc_route_map *
pc_peek_hold_map(struct pc_worker *worker)
{
    struct pc_route_map *map = atomic_load(&worker->child->route);
    for (;;) {
        atomic_store(&worker->hazard, map);
        struct pc_route_map *again = atomic_load(&worker->child->route);
        if (again == map)
            return map;
        map = again;
    }
}

void
pc_peek_let_go(struct pc_worker *worker)
{
    atomic_store_explicit(&worker->hazard, NULL, memory_order_release);
}

static void
learn_local_address(const struct pc_route_map *map, struct pc_conn *conn)
{
    if (conn->is_handed || !map->needs_local[conn->listener])
        return;
    socklen_t len = sizeof conn->local;
    (void)getsockname(conn->fd, &conn->local.any, &len); /* a connected socket has one; else the listener's stays */
}

/* ------------------------------------------------------------------ a front end's header */

static enum pc_next
refuse_front(struct pc_worker *worker, struct pc_conn *conn, const char *why)
{
    pc_request_say(worker->child, conn, PC_ERROR, "remoteip", why);
    pc_conn_close(worker, conn);
    return PC_GONE;
}

/* Whether front ends send to the address that the connection came in on: then its header is awaited. False: this peer is none. */
static bool
find_front(struct pc_worker *worker, struct pc_conn *conn)
{
    const struct pc_route_map *map = pc_peek_hold_map(worker);
    struct pc_slice peers = {0};
    bool is_front = false, is_listed = true;
    if (map != NULL) {
        learn_local_address(map, conn);
        is_front = pc_route_front(map->table, pc_conn_local(conn), &peers);
        is_listed = peers.len == 0 || pc_access_has(peers, (const void *)&conn->client);
    }
    pc_peek_let_go(worker);
    if (is_front)
        conn->front = PC_FRONT_AWAITED;
    return is_listed;
}

static void
take_client(struct pc_worker *worker, struct pc_conn *conn, const struct pc_proxyhdr *header)
{
    if (header->has_client)
        memcpy(&conn->client, &header->client, sizeof header->client); /* UNSAFE: the same union */
    const struct pc_route_map *map = pc_peek_hold_map(worker);
    if (map != NULL)
        conn->front_tag = pc_hand_sign(map->key, conn);
    pc_peek_let_go(worker);
    conn->front = PC_FRONT_TAKEN;
}

/* Half a header, or nothing yet. */
static enum pc_next
await_front(struct pc_worker *worker, struct pc_conn *conn, bool has_bytes)
{
    if (has_bytes && has_ended(conn))
        return refuse_front(worker, conn, "AH10634: RemoteIPProxyProtocol: connection closed before a complete header was received");
    if (has_bytes)
        pc_transport_acknowledge(conn);
    return pc_conn_watch(worker->child, conn) == 0 ? PC_WAIT : pc_request_refuse(worker, conn, 503);
}

/* The header is looked at until it is whole; then just its bytes are read, by this process alone: what follows stays in the socket. */
static enum pc_next
read_front(struct pc_worker *worker, struct pc_conn *conn)
{
    ssize_t count = recv(conn->fd, worker->out, PC_MAX_PROXYHDR_BYTES, MSG_PEEK | MSG_DONTWAIT);
    struct pc_proxyhdr header;
    const char *why = NULL;
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return await_front(worker, conn, false);
    if (count <= 0) { /* somebody has looked whether the port is open */
        pc_conn_close(worker, conn);
        return PC_GONE;
    }
    int len = pc_proxyhdr_parse(worker->out, (size_t)count, &header, &why);
    if (len < 0)
        return refuse_front(worker, conn, why);
    if (len == 0)
        return await_front(worker, conn, true);
    if (recv(conn->fd, worker->out, (size_t)len, MSG_DONTWAIT) != len) { /* reset a moment ago */
        pc_conn_close(worker, conn);
        return PC_GONE;
    }
    take_client(worker, conn, &header);
    return PC_GO;
}

static enum pc_next
front_step(struct pc_worker *worker, struct pc_conn *conn)
{
    if (conn->front == PC_FRONT_UNKNOWN && !find_front(worker, conn))
        return refuse_front(worker, conn, "RemoteIPProxyProtocol: neither RemoteIPInternalProxy nor RemoteIPTrustedProxy lists this peer");
    return conn->front == PC_FRONT_AWAITED ? read_front(worker, conn) : PC_GO;
}

/* ------------------------------------------------------------------ the name */

bool
pc_peek_is_tls(struct pc_worker *worker, struct pc_conn *conn)
{
    if (conn->speech != PC_SPEECH_UNKNOWN)
        return conn->speech == PC_SPEECH_TLS;
    conn->speech = PC_SPEECH_PLAIN;
    if (!atomic_load_explicit(&worker->child->has_tls, memory_order_relaxed))
        return false;
    const struct pc_route_map *map = pc_peek_hold_map(worker);
    if (map != NULL)
        learn_local_address(map, conn);
    if (pc_route_speaks_tls(map != NULL ? map->table : worker->child->config->own_route, pc_conn_local(conn)))
        conn->speech = PC_SPEECH_TLS;
    pc_peek_let_go(worker);
    return conn->speech == PC_SPEECH_TLS;
}

/* Edge-triggered: woken by more bytes only. */
static enum pc_next
await_more(struct pc_worker *worker, struct pc_conn *conn)
{
    if (has_ended(conn)) { /* the name is not whole, and no more to come */
        pc_conn_close(worker, conn);
        return PC_GONE;
    }
    pc_transport_acknowledge(conn);
    return pc_conn_watch(worker->child, conn) == 0 ? PC_WAIT : pc_request_refuse(worker, conn, 503);
}

/* Something else than a ClientHello. */
static enum pc_next
refuse_hello(struct pc_worker *worker, struct pc_conn *conn, int error, char first)
{
    bool is_plain = error == -PC_E_VERSION && first >= 'A' && first <= 'Z';
    if (is_plain) {
        conn->speech = PC_SPEECH_MISTAKEN;
        pc_request_say(worker->child, conn, PC_INFO, "ssl",
                       "AH01996: SSL handshake failed: HTTP spoken on HTTPS port; sending an error page");
        return pc_request_refuse(worker, conn, 400);
    }
    pc_request_say(worker->child, conn, PC_INFO, "ssl",
                   error == -PC_E_NOT_FOUND ? "AH02008: SSL handshake failed: the client names what no host can be called"
                                            : "AH02008: SSL handshake failed: no ClientHello");
    return pc_tls_refuse(worker, conn, error == -PC_E_NOT_FOUND ? ALERT_UNRECOGNIZED_NAME : ALERT_DECODE_ERROR);
}

static enum pc_next
peek_hello(struct pc_worker *worker, struct pc_conn *conn, size_t count)
{
    struct pc_hello hello;
    int found = pc_hello_parse(worker->out, count, &hello);
    if (found == 0)
        return await_more(worker, conn); /* what is peeked at has more room than a hello may have */
    if (found < 0)
        return refuse_hello(worker, conn, found, worker->out[0]);
    return pc_peek_route(worker, conn, (struct pc_slice){hello.name.name, hello.name.len}, (struct pc_slice){0});
}

/* Looking is not reading: the bytes stay in the socket for whoever owns the name. */
enum pc_next
pc_peek_step(struct pc_worker *worker, struct pc_conn *conn)
{
    if (atomic_load_explicit(&worker->child->has_fronts, memory_order_relaxed) && !conn->is_handed) {
        enum pc_next next = front_step(worker, conn);
        if (next != PC_GO)
            return next;
    }
    ssize_t count = recv(conn->fd, worker->out, PC_MAX_PEEK_BYTES, MSG_PEEK | MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return pc_conn_watch(worker->child, conn) == 0 ? PC_WAIT : pc_request_refuse(worker, conn, 503);
    if (count <= 0) {
        pc_conn_close(worker, conn);
        return PC_GONE;
    }
    if (pc_peek_is_tls(worker, conn))
        return peek_hello(worker, conn, (size_t)count);
    struct pc_slice raw_name;
    struct pc_hostname name;
    char h2_name[2 * PC_H2_NAME_BYTES];
    bool may_be_h2 = atomic_load_explicit(&worker->child->looks_for_h2c, memory_order_relaxed)
                     && pc_h2_check_preface(worker->out, (size_t)count) >= 0;
    int found = may_be_h2 ? pc_h2_peek_name(worker->out, (size_t)count, h2_name, &raw_name)
                          : pc_h1_peek_name(worker->out, (size_t)count, &raw_name);
    if (found == 0 && (count < PC_MAX_PEEK_BYTES || has_ended(conn)))
        return await_more(worker, conn);
    struct pc_slice seen = {worker->out, (size_t)count};
    if (found <= 0)
        return pc_request_refuse_head(worker, conn, found == 0 ? -PC_E_HEAD_LARGE : found, seen);
    if (pc_host_parse(raw_name, &name) != 0)
        return pc_request_refuse_head(worker, conn, -PC_E_BAD, seen);
    return pc_peek_route(worker, conn, (struct pc_slice){name.name, name.len}, (struct pc_slice){0});
}

/* By TLS the name is that of the certificate to be shown; what requests name is looked at again, for each. */
static enum pc_next
keep(struct pc_worker *worker, struct pc_conn *conn, struct pc_slice name)
{
    struct pc_config *config = worker->child->config;
    if (conn->speech != PC_SPEECH_TLS) {
        conn->phase = PC_PHASE_HEAD;
        conn->is_routed = true;
        return PC_GO;
    }
    struct pc_route own = pc_route_find(config->own_route, pc_conn_local(conn), name);
    if (own.how != PC_ROUTE_NONE && own.value < config->host_count)
        conn->sni_host = &config->hosts[own.value];
    conn->phase = PC_PHASE_TLS;
    return PC_GO;
}

/* A tenant's child that does not listen knows its own names only: what is not among them was passed to it in error. */
static enum pc_next
route_by_own_table(struct pc_worker *worker, struct pc_conn *conn, struct pc_slice name)
{
    struct pc_route own = pc_route_find(worker->child->config->own_route, pc_conn_local(conn), name);
    if (own.how != PC_ROUTE_NONE)
        return keep(worker, conn, name);
    pc_count(worker->child->page, PC_C_REFUSED, 1);
    return pc_request_refuse(worker, conn, 421);
}

bool
pc_peek_is_ours(struct pc_worker *worker, const struct pc_conn *conn, struct pc_slice name)
{
    const struct pc_route_map *map = pc_peek_hold_map(worker);
    struct pc_route route = {.how = PC_ROUTE_NONE};
    if (map != NULL)
        route = pc_route_find(map->table, pc_conn_local(conn), name);
    pc_peek_let_go(worker);
    return route.how != PC_ROUTE_NONE && route.value == worker->child->config->identity_no;
}

enum pc_next
pc_peek_route(struct pc_worker *worker, struct pc_conn *conn, struct pc_slice name, struct pc_slice carried)
{
    const struct pc_config *config = worker->child->config;
    struct pc_route_map *map = pc_peek_hold_map(worker);
    if (map == NULL)
        return route_by_own_table(worker, conn, name);
    learn_local_address(map, conn);
    struct pc_route route = pc_route_find(map->table, pc_conn_local(conn), name);
    pc_peek_let_go(worker);
    uint32_t number = route.how == PC_ROUTE_NONE ? 0 : route.value; /* 0: the unassigned identity, the main server's */
    if (number == config->identity_no)
        return keep(worker, conn, name);
    bool may_forward = !conn->is_handed || config->identity_no == 0 || conn->requests > 0;
    if (!may_forward) {
        pc_count(worker->child->page, PC_C_REFUSED, 1);
        return pc_request_refuse(worker, conn, 421);
    }
    return pc_hand_over(worker, conn, number, carried);
}
