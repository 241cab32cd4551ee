/* hand.c - pass a connection to the child that owns its name, and take what others pass: docs/protocol.md.
 * Runs as:  child.   Sees: a stranger's bytes only when it carries them (plain, kept connections).
 * Holds:    write ends of inboxes, the read end of its own.
 * Trusts:   nothing in a message: not the sender, not the count or kind of descriptors, not the name.
 * Before:   peek.c, request.c   After: conn.c in the receiving child */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "child.h"
#include "hand.h"
#include "route.h"

#define RECEIVE_BATCH 32
#define FULL_INBOXES 32
/* A second message often waits behind the first when many come; else asking for it is a system call for nothing. After LUCK calls
 * that found none it is only asked for now and then; epoll tells of it anyway. */
#define LUCK 8
#define LOOK_NS 250000000ull
#define SAY_NS 1000000000ull
/* Descriptors that may be opened between two receptions: a file for each connection of a batch, and what threads open. */
#define TIGHT_FDS 128

/* ------------------------------------------------------------------ a client that a front end named */

static void
write_client(struct pc_hand *hand, const struct pc_conn *conn)
{
    bool is_v6 = conn->client.any.sa_family == AF_INET6;
    hand->client_family = is_v6 ? 6 : 4;
    hand->client_port = ntohs(is_v6 ? conn->client.v6.sin6_port : conn->client.v4.sin_port);
    if (is_v6)
        memcpy(hand->client, &conn->client.v6.sin6_addr, 16);
    else
        memcpy(hand->client, &conn->client.v4.sin_addr, 4);
    hand->tag = conn->front_tag;
}

static void
read_client(struct pc_conn *conn, const struct pc_hand *hand)
{
    memset(&conn->client, 0, sizeof conn->client);
    if (hand->client_family == 6) {
        conn->client.v6.sin6_family = AF_INET6;
        conn->client.v6.sin6_port = htons(hand->client_port);
        memcpy(&conn->client.v6.sin6_addr, hand->client, 16);
    } else {
        conn->client.v4.sin_family = AF_INET;
        conn->client.v4.sin_port = htons(hand->client_port);
        memcpy(&conn->client.v4.sin_addr, hand->client, 4);
    }
    conn->front = PC_FRONT_TAKEN;
    conn->front_tag = hand->tag;
}

uint64_t
pc_hand_sign(const uint8_t key[PC_KEY_BYTES], const struct pc_conn *conn)
{
    struct { uint64_t cookie; uint8_t family, zero; uint16_t port; uint32_t more_zero; uint8_t client[16]; } what = {0};
    struct pc_hand hand = {0};
    socklen_t len = sizeof what.cookie;
    if (getsockopt(conn->fd, SOL_SOCKET, SO_COOKIE, &what.cookie, &len) < 0) /* no two sockets have the same, ever */
        pc_die(111, "the kernel does not number sockets (SO_COOKIE)");
    write_client(&hand, conn);
    what.family = hand.client_family;
    what.port = hand.client_port;
    memcpy(what.client, hand.client, sizeof what.client);
    return pc_siphash(key, &what, sizeof what);
}

/* ------------------------------------------------------------------ sending */

int
pc_hand_send(struct pc_child *child, uint32_t number, struct pc_conn *conn, struct pc_slice carried)
{
    struct pc_hand hand = {
        .magic = PC_HAND_MAGIC,
        .version = PC_HAND_VERSION,
        .kind = carried.len > 0 ? PC_HAND_CARRIED : PC_HAND_FRESH,
        .hops = (uint8_t)(conn->hops + 1),
        .carried_len = (uint32_t)carried.len,
        .requests = conn->requests,
        .sender = child->config->identity_no,
    };
    if (conn->front == PC_FRONT_TAKEN)
        write_client(&hand, conn);
    struct iovec parts[2] = {{&hand, sizeof hand}, {(void *)(uintptr_t)carried.base, carried.len}};
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = {0};
    struct msghdr message = {
        .msg_iov = parts,
        .msg_iovlen = carried.len > 0 ? 2 : 1,
        .msg_control = control.bytes,
        .msg_controllen = CMSG_LEN(sizeof(int)),
    };
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &conn->fd, sizeof(int));
    (void)pthread_mutex_lock(&child->inbox_lock);
    int inbox = number < child->inbox_count ? child->inbox_write[number] : -1;
    ssize_t sent = inbox < 0 ? -1 : sendmsg(inbox, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    int error = inbox < 0 ? ENOENT : errno;
    (void)pthread_mutex_unlock(&child->inbox_lock);
    if (sent >= 0)
        return 0;
    /* ETOOMANYREFS: this uid has too many descriptors under way, which a stopped child can cause: as good as full. EPIPE: somebody
     * has shut the inbox down; the dispatcher is about to send us another one. */
    bool is_passing = error == EAGAIN || error == ETOOMANYREFS || error == ENOBUFS || error == EPIPE || error == ECONNRESET;
    return is_passing ? -PC_E_AGAIN : -PC_E_SYS;
}

static void
passed_on(struct pc_worker *worker, struct pc_conn *conn, bool is_carried)
{
    pc_count(worker->child->page, PC_C_HANDED_OUT, 1);
    if (is_carried)
        pc_count(worker->child->page, PC_C_CARRIED, 1);
    (void)close(conn->fd); /* the receiver's copy lives on */
    pc_conn_forget(worker, conn);
}

/* Put conn at the end of those held back; its bytes, if any, go along. */
static bool
hold_back(struct pc_worker *worker, struct pc_conn *conn, uint32_t number, struct pc_slice carried)
{
    struct pc_child *child = worker->child;
    char *copy = NULL;
    if (carried.len > 0 && carried.base != conn->stash) {
        copy = malloc(carried.len);
        if (copy == NULL)
            return false;
        memcpy(copy, carried.base, carried.len);
    }
    (void)pthread_mutex_lock(&child->wait_lock);
    bool has_room = number < child->inbox_count && child->inbox_waiting[number] < PC_MAX_WAITING;
    if (has_room) {
        child->inbox_waiting[number]++;
        if (copy != NULL) {
            conn->stash = copy;
            conn->stash_len = (uint32_t)carried.len;
        }
        if (conn->io != NULL)
            pc_io_give(worker, conn);
        conn->phase = PC_PHASE_WAIT;
        conn->wanted = number;
        conn->next = NULL;
        pc_conn_deadline(child, conn, worker->now_ns + PC_WAITING_MS * 1000000ull);
        *(child->waiting_tail == NULL ? &child->waiting : &child->waiting_tail->next) = conn;
        child->waiting_tail = conn;
        if (atomic_fetch_add(&child->waiting_count, 1) == 0 && worker->may_block)
            pc_child_wake(child); /* the leader waits for longer than PC_RETRY_MS */
        pc_count(child->page, PC_C_WAITING, 1);
    }
    (void)pthread_mutex_unlock(&child->wait_lock);
    if (!has_room)
        free(copy);
    return has_room;
}

static enum pc_next
refuse_full(struct pc_worker *worker, struct pc_conn *conn)
{
    pc_count(worker->child->page, PC_C_UNAVAILABLE, 1);
    return pc_request_refuse(worker, conn, 503);
}

enum pc_next
pc_hand_over(struct pc_worker *worker, struct pc_conn *conn, uint32_t number, struct pc_slice carried)
{
    struct pc_child *child = worker->child;
    if (conn->hops >= PC_MAX_HOPS) {
        pc_count(child->page, PC_C_REFUSED, 1);
        return pc_request_refuse(worker, conn, 421);
    }
    pc_conn_unwatch(child, conn); /* its registration would outlive our close while the receiver holds the socket */
    int error = pc_hand_send(child, number, conn, carried);
    if (error == 0) {
        passed_on(worker, conn, carried.len > 0);
        return PC_GONE;
    }
    if (error != -PC_E_AGAIN)
        return refuse_full(worker, conn);
    pc_count(child->page, PC_C_INBOX_FULL, 1);
    return hold_back(worker, conn, number, carried) ? PC_GONE : refuse_full(worker, conn);
}

/* Take the whole list, so that no lock is held while sockets are written to. */
static struct pc_conn *
take_waiting(struct pc_child *child)
{
    (void)pthread_mutex_lock(&child->wait_lock);
    struct pc_conn *first = child->waiting;
    child->waiting = child->waiting_tail = NULL;
    (void)pthread_mutex_unlock(&child->wait_lock);
    return first;
}

static void
wait_on(struct pc_child *child, struct pc_conn *conn)
{
    (void)pthread_mutex_lock(&child->wait_lock);
    conn->next = NULL;
    *(child->waiting_tail == NULL ? &child->waiting : &child->waiting_tail->next) = conn;
    child->waiting_tail = conn;
    (void)pthread_mutex_unlock(&child->wait_lock);
}

static void
wait_no_more(struct pc_child *child, struct pc_conn *conn)
{
    (void)pthread_mutex_lock(&child->wait_lock);
    child->inbox_waiting[conn->wanted]--;
    (void)pthread_mutex_unlock(&child->wait_lock);
    atomic_fetch_sub(&child->waiting_count, 1);
    pc_uncount(child->page, PC_C_WAITING, 1);
}

static bool
is_known_full(const uint32_t *full, size_t count, uint32_t number)
{
    for (size_t i = 0; i < count; i++)
        if (full[i] == number)
            return true;
    return false;
}

void
pc_hand_retry(struct pc_worker *worker)
{
    struct pc_child *child = worker->child;
    uint32_t full[FULL_INBOXES];
    size_t full_count = 0;
    for (struct pc_conn *conn = take_waiting(child), *next; conn != NULL; conn = next) {
        next = conn->next;
        struct pc_slice carried = {conn->stash, conn->stash_len};
        int error = -PC_E_AGAIN;
        if (!is_known_full(full, full_count, conn->wanted))
            error = pc_hand_send(child, conn->wanted, conn, carried);
        bool is_late = error == -PC_E_AGAIN && worker->now_ns >= pc_conn_due(child, conn);
        if (error == -PC_E_AGAIN && full_count < FULL_INBOXES && !is_known_full(full, full_count, conn->wanted))
            full[full_count++] = conn->wanted;
        if (error == -PC_E_AGAIN && !is_late) {
            wait_on(child, conn);
            continue;
        }
        wait_no_more(child, conn);
        if (error == 0)
            passed_on(worker, conn, carried.len > 0);
        else if (refuse_full(worker, conn) != PC_GONE)
            pc_loop_conn(worker, conn);
    }
}

/* ------------------------------------------------------------------ receiving */

/* Nothing behind an address's bytes, and nothing at all where there is none. */
static bool
is_client_well_formed(const struct pc_hand *hand)
{
    static const uint8_t zeros[16];
    size_t used = hand->client_family == 6 ? 16 : hand->client_family;
    if (hand->client_family != 0 && hand->client_family != 4 && hand->client_family != 6)
        return false;
    if (hand->zero != 0 || memcmp(hand->client + used, zeros, sizeof zeros - used) != 0)
        return false;
    return hand->client_family != 0 || (hand->client_port == 0 && hand->tag == 0);
}

int
pc_hand_check_message(const char *raw, size_t len, struct pc_hand *ret_hand, struct pc_slice *ret_carried)
{
    struct pc_hand hand;
    if (len < sizeof hand)
        return -PC_E_PEER;
    memcpy(&hand, raw, sizeof hand);
    if (!is_client_well_formed(&hand))
        return -PC_E_PEER;
    bool is_fresh = hand.kind == PC_HAND_FRESH && hand.carried_len == 0;
    bool is_carried = hand.kind == PC_HAND_CARRIED && hand.carried_len > 0 && hand.carried_len <= PC_IN_MAX;
    if (hand.magic != PC_HAND_MAGIC || hand.version != PC_HAND_VERSION || (!is_fresh && !is_carried)
        || hand.carried_len != len - sizeof hand || hand.hops == 0 || hand.hops > PC_MAX_HOPS)
        return -PC_E_PEER;
    *ret_hand = hand;
    *ret_carried = (struct pc_slice){raw + sizeof hand, hand.carried_len};
    return 0;
}

static bool
is_same_address(const struct sockaddr_storage *listener, const struct sockaddr *local)
{
    static const struct in6_addr any6 = IN6ADDR_ANY_INIT;
    if (listener->ss_family == AF_INET6 && local->sa_family == AF_INET6) {
        const struct sockaddr_in6 *a = (const void *)listener, *b = (const void *)local;
        return a->sin6_port == b->sin6_port && (memcmp(&a->sin6_addr, &any6, sizeof any6) == 0
                                                || memcmp(&a->sin6_addr, &b->sin6_addr, sizeof any6) == 0);
    }
    if (listener->ss_family == AF_INET && local->sa_family == AF_INET) {
        const struct sockaddr_in *a = (const void *)listener, *b = (const void *)local;
        return a->sin_port == b->sin_port
               && (a->sin_addr.s_addr == htonl(INADDR_ANY) || a->sin_addr.s_addr == b->sin_addr.s_addr);
    }
    return false;
}

int
pc_hand_check_socket(const struct pc_config *config, int fd, struct pc_conn *conn)
{
    /* Only a socket answers at all; only TCP says TCP; a listener and a socket that is not connected have no peer. */
    int protocol = 0;
    socklen_t len = sizeof protocol;
    if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) < 0 || protocol != IPPROTO_TCP)
        return -PC_E_PEER;
    len = sizeof conn->local;
    if (getsockname(fd, &conn->local.any, &len) < 0 || len > sizeof conn->local)
        return -PC_E_PEER;
    bool is_ours = false;
    for (uint32_t i = 0; i < config->listener_count && !is_ours; i++)
        is_ours = is_same_address(&config->listeners[i], &conn->local.any);
    len = sizeof conn->client;
    if (!is_ours || getpeername(fd, &conn->client.any, &len) < 0 || len > sizeof conn->client)
        return -PC_E_PEER;
    return 0;
}

/* A holder of a write end may have shut the inbox down, which makes it readable for ever: it is left alone, and the dispatcher,
 * which saw the same, makes another one for a successor. False: it is as it was, and the message was empty. */
static bool
leave_shut_inbox(struct pc_child *child)
{
    struct pollfd inbox = {.fd = child->inbox_fd, .events = POLLRDHUP};
    if (poll(&inbox, 1, 0) <= 0 || (inbox.revents & (POLLRDHUP | POLLHUP)) == 0)
        return false;
    (void)pc_accept_inbox(child, false);
    return true;
}

/* One message with exactly one descriptor, or none taken at all: room for one (CMSG_LEN, for CMSG_SPACE would let the kernel
 * install a second), and whatever else came is closed. Returns its length, -PC_E_AGAIN or -PC_E_PEER. */
static ssize_t
receive_message(struct pc_worker *worker, int *ret_fd)
{
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
    struct iovec whole = {worker->out, PC_OUT_BYTES};
    struct msghdr message = {
        .msg_iov = &whole, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = CMSG_LEN(sizeof(int)),
    };
    ssize_t len = recvmsg(worker->child->inbox_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (len < 0 || (len == 0 && message.msg_controllen == 0 && leave_shut_inbox(worker->child)))
        return -PC_E_AGAIN;
    int fd = -1;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    bool is_right = rights != NULL && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS
                    && rights->cmsg_len == CMSG_LEN(sizeof(int));
    if (is_right)
        memcpy(&fd, CMSG_DATA(rights), sizeof fd);
    if (!is_right && (message.msg_flags & MSG_CTRUNC) != 0) { /* it was lost: no room in our table of descriptors */
        atomic_store(&worker->child->is_tight, true);
        pc_accept_pause(worker, true);
    }
    if (!is_right || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || len == 0) {
        if (fd >= 0)
            (void)close(fd); /* a second one did not get in: there was no room */
        return -PC_E_PEER;
    }
    *ret_fd = fd;
    return len;
}

/* The limit can be lowered while we run, by anyone of our uid. */
void
pc_hand_look(struct pc_child *child, uint64_t now_ns)
{
    struct rlimit limit;
    if (now_ns < atomic_load_explicit(&child->next_limit_look_ns, memory_order_relaxed))
        return;
    atomic_store_explicit(&child->next_limit_look_ns, now_ns + LOOK_NS, memory_order_relaxed);
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return; /* it cannot fail; what was known stays */
    uint32_t count = limit.rlim_cur < UINT32_MAX ? (uint32_t)limit.rlim_cur : UINT32_MAX;
    if (atomic_exchange(&child->fd_limit, count) != count)
        atomic_store(&child->is_tight, true);
}

static void
note_number(struct pc_child *child, int fd)
{
    bool is_tight = (uint32_t)fd + TIGHT_FDS >= atomic_load_explicit(&child->fd_limit, memory_order_relaxed);
    if (is_tight != atomic_load_explicit(&child->is_tight, memory_order_relaxed))
        atomic_store(&child->is_tight, is_tight);
}

/* The kernel drops a descriptor that it finds no room for, and the connection with it. Numbers are given from the lowest free
 * one on, so the last one received tells how near the end is, and only there a place is tried first. */
static bool
has_place(struct pc_child *child)
{
    if (!atomic_load_explicit(&child->is_tight, memory_order_relaxed))
        return true;
    int fd = fcntl(child->inbox_fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return false;
    (void)close(fd); /* only tried */
    note_number(child, fd);
    return true;
}

/* One line a second: who may send could else fill the disk. */
static bool
may_say_refused(struct pc_child *child, uint64_t now_ns)
{
    uint64_t said_ns = atomic_load(&child->refused_said_ns);
    return (said_ns == 0 || now_ns - said_ns >= SAY_NS)
           && atomic_compare_exchange_strong(&child->refused_said_ns, &said_ns, now_ns);
}

static void
count_refused(struct pc_worker *worker, const char *why)
{
    struct pc_child *child = worker->child;
    pc_count(child->page, PC_C_REFUSED, 1);
    if (may_say_refused(child, worker->now_ns))
        pc_errlog(child->config, NULL, PC_WARN, "mpm_perchild", NULL, "refused a hand-off: %s", why);
    else
        (void)atomic_fetch_add(&child->refused_unsaid, 1);
}

void
pc_hand_say_refused(struct pc_worker *worker)
{
    struct pc_child *child = worker->child;
    if (atomic_load_explicit(&child->refused_unsaid, memory_order_relaxed) == 0 || !may_say_refused(child, worker->now_ns))
        return;
    pc_errlog(child->config, NULL, PC_WARN, "mpm_perchild", NULL, "refused %u more hand-offs since the last line about one",
              (unsigned)atomic_exchange(&child->refused_unsaid, 0));
}

/* A front end's word for who the client is counts where front ends are expected, and there it must not be missing, for the socket's peer
 * is no client then. Who listens has the key, and believes only what another who listens has signed for this very socket; the
 * others have their messages from those alone. Returns NULL, or why not. */
static const char *
take_client(struct pc_worker *worker, struct pc_conn *conn, const struct pc_hand *hand)
{
    const struct pc_route_map *map = pc_peek_hold_map(worker);
    struct pc_slice peers = {0};
    const char *why = NULL;
    bool is_front = pc_route_front(map != NULL ? map->table : worker->child->config->own_route, pc_conn_local(conn), &peers);
    if (is_front != (hand->client_family != 0))
        why = is_front ? "no front end named its client" : "it names a client, but no front end is expected on its address";
    if (why == NULL && is_front)
        read_client(conn, hand);
    if (why == NULL && is_front && map != NULL && hand->tag != pc_hand_sign(map->key, conn)
        && hand->tag != pc_hand_sign(map->key_before, conn))
        why = "nobody who listens has signed its client's address";
    pc_peek_let_go(worker);
    return why;
}

/* All that is asked of a hand-off where no front end is expected anywhere. */
static bool
may_name_client(const struct pc_worker *worker, const struct pc_hand *hand)
{
    return hand->client_family != 0 || atomic_load_explicit(&worker->child->has_fronts, memory_order_relaxed);
}

/* The connection that a checked message speaks of, or NULL. Owns fd from here on. */
static struct pc_conn *
adopt(struct pc_worker *worker, int fd, const struct pc_hand *hand)
{
    struct pc_child *child = worker->child;
    struct pc_conn *conn = pc_conn_new(child, fd);
    if (conn == NULL || pc_hand_check_socket(child->config, fd, conn) != 0) {
        count_refused(worker, conn == NULL ? "too many connections" : "its descriptor is no connection to our addresses");
        (void)close(fd);
        if (conn != NULL)
            pc_conn_forget(worker, conn);
        return NULL;
    }
    const char *why = may_name_client(worker, hand) ? take_client(worker, conn, hand) : NULL;
    if (why != NULL) {
        count_refused(worker, why);
        (void)close(fd);
        pc_conn_forget(worker, conn);
        return NULL;
    }
    conn->is_handed = conn->is_received = true;
    conn->hops = hand->hops;
    conn->requests = hand->requests;
    conn->since_ns = worker->now_ns;
    conn->phase = PC_PHASE_PEEK;
    pc_conn_deadline(child, conn, worker->now_ns + PC_PEEK_TIMEOUT_MS * 1000000ull);
    pc_count(child->page, PC_C_HANDED_IN, 1);
    pc_conn_adopted(child);
    return conn;
}

/* The name in carried bytes decides as a peeked one does. */
static enum pc_next
route_carried(struct pc_worker *worker, struct pc_conn *conn, struct pc_slice carried)
{
    struct pc_io *io = pc_io_take(worker, conn);
    if (pc_io_room(io, carried.len) != 0)
        return pc_request_refuse_head(worker, conn, -PC_E_HEAD_LARGE, carried);
    memcpy(io->in + io->in_len, carried.base, carried.len); /* UNSAFE: room was made above */
    io->in_len += (uint32_t)carried.len;
    struct pc_slice raw_name, held = {io->in, io->in_len};
    struct pc_hostname name;
    int found = pc_h1_peek_name(held.base, held.len, &raw_name);
    if (found <= 0 || pc_host_parse(raw_name, &name) != 0)
        return pc_request_refuse_head(worker, conn, -PC_E_BAD, held);
    return pc_peek_route(worker, conn, (struct pc_slice){name.name, name.len}, held);
}

/* The slot says -2: the inbox is readable and this thread must receive. Returns false when nothing was there. */
static bool
receive_from_other_child(struct pc_worker *worker)
{
    struct pc_child *child = worker->child;
    int fd = -1;
    struct pc_hand hand;
    struct pc_slice carried;
    ssize_t len = receive_message(worker, &fd);
    if (len == -PC_E_AGAIN)
        return false;
    if (len < 0) {
        count_refused(worker, "not exactly one descriptor, or a cut message");
        return true;
    }
    note_number(child, fd);
    pc_slot_set(child->page, worker->slot, fd);
    if (pc_hand_check_message(worker->out, (size_t)len, &hand, &carried) != 0) {
        count_refused(worker, "its message breaks the protocol");
        (void)close(fd);
        return true;
    }
    struct pc_conn *conn = adopt(worker, fd, &hand);
    if (conn == NULL)
        return true;
    bool is_tls = pc_peek_is_tls(worker, conn);
    if (is_tls && carried.len > 0) { /* what came by TLS is never passed on */
        count_refused(worker, "it carries bytes, on an address that speaks TLS");
        pc_conn_close(worker, conn);
        return true;
    }
    /* A tenant's child need not look before it reads: what is not its own it answers 421. The unassigned children pass on. */
    if (carried.len == 0 && child->config->identity_no != 0 && !is_tls)
        conn->phase = PC_PHASE_HEAD;
    if (carried.len == 0 || route_carried(worker, conn, carried) == PC_GO)
        pc_loop_conn(worker, conn);
    return true;
}

/* A place in the table and a descriptor, both before the message is taken: what is received without them is lost. */
static bool
reserve(struct pc_worker *worker)
{
    struct pc_child *child = worker->child;
    if (!pc_conn_reserve(child) && !(pc_conn_make_room(worker, child->inbox_fd) && pc_conn_reserve(child)))
        return false;
    if (has_place(child) || (pc_conn_make_room(worker, child->inbox_fd) && has_place(child)))
        return true;
    pc_conn_unreserve(child);
    return false;
}

void
pc_hand_receive(struct pc_worker *worker)
{
    struct pc_child *child = worker->child;
    for (uint32_t i = 0; i < RECEIVE_BATCH; i++) {
        if (!reserve(worker)) {
            if (!atomic_load(&child->is_draining))
                pc_accept_pause(worker, true);
            break;
        }
        pc_slot_set(child->page, worker->slot, PC_OTHERCHILD);
        bool has_received = pc_slot_get(child->page, worker->slot) == PC_OTHERCHILD && receive_from_other_child(worker);
        pc_slot_set(child->page, worker->slot, PC_THISCHILD); /* a job keeps its descriptor in the slot of who does it */
        pc_conn_unreserve(child);
        bool was_second = i > 0;
        worker->inbox_luck = was_second && has_received ? LUCK : worker->inbox_luck - (worker->inbox_luck > 0);
        if (!has_received || (worker->inbox_luck == 0 && ++worker->inbox_calls % LUCK != 0))
            break;
    }
}
