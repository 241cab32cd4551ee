/* accept.c - take connections from the shared listeners.
 * Runs as:  child that listens.   Sees: no client byte.   Holds: listeners.
 * Distrusts: the listener's flags (another holder may change them): accept4 asks for non-blocking sockets itself, and the
 *            listener is only read when epoll says so.
 * Before:   loop.c   After: peek.c */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "child.h"

#define ACCEPT_BATCH 32
#define LUCK 8
#define PAUSE_NS 100000000ull
#define SAY_NS 1000000000ull

static bool
is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/* Without a descriptor to accept with, a level-triggered listener or inbox would make the loop spin. A full child pauses for
 * each connection that it takes in place of another, which is no news: one line a second is enough. */
void
pc_accept_pause(struct pc_worker *worker, bool with_inbox)
{
    struct pc_child *child = worker->child;
    uint64_t now_ns = pc_now_ns(), said_ns = atomic_load(&child->pause_said_ns);
    atomic_store(&child->resume_ns, now_ns + PAUSE_NS);
    (void)pc_accept_listen(child, false);
    if (with_inbox)
        (void)pc_accept_inbox(child, false);
    if (atomic_exchange(&child->accept_paused, true)) /* last: whatever another leader resumed meanwhile is resumed again */
        return;
    pc_count(child->page, PC_C_PAUSED, 1);
    if (said_ns != 0 && now_ns - said_ns < SAY_NS)
        return;
    atomic_store(&child->pause_said_ns, now_ns);
    pc_errlog(child->config, NULL, PC_ERROR, "mpm_perchild", NULL, "AH00030: accept: no room for another connection; pausing");
}

static struct pc_conn *
adopt(struct pc_worker *worker, int fd, uint32_t listener, const struct sockaddr_storage *client)
{
    struct pc_child *child = worker->child;
    struct pc_conn *conn = pc_conn_new(child, fd);
    if (conn == NULL) {
        (void)close(fd);
        return NULL;
    }
    conn->listener = (uint16_t)listener;
    if (client->ss_family == AF_INET6)
        conn->client.v6 = *(const struct sockaddr_in6 *)client;
    else
        conn->client.v4 = *(const struct sockaddr_in *)client;
    const struct sockaddr_storage *local = &child->listener_addresses[listener];
    if (local->ss_family == AF_INET6)
        conn->local.v6 = *(const struct sockaddr_in6 *)local;
    else
        conn->local.v4 = *(const struct sockaddr_in *)local;
    conn->since_ns = worker->now_ns;
    conn->phase = PC_PHASE_PEEK;
    pc_conn_deadline(child, conn, worker->now_ns + PC_PEEK_TIMEOUT_MS * 1000000ull);
    pc_count(child->page, PC_C_ACCEPTED, 1);
    pc_conn_adopted(child);
    return conn;
}

/* Returns false when there is no more to accept now. */
static bool
accept_one(struct pc_worker *worker, uint32_t listener)
{
    struct pc_child *child = worker->child;
    struct sockaddr_storage client;
    socklen_t len = sizeof client;
    int fd = accept4(child->listener_fds[listener], (struct sockaddr *)&client, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    int error = errno;
    if (fd < 0 && is_shortage(error) && pc_conn_make_room(worker, child->listener_fds[listener]))
        return true; /* there is room now: the next turn accepts */
    if (fd < 0 && is_shortage(error))
        pc_accept_pause(worker, true);
    else if (fd < 0 && error == EINVAL) /* another holder has shut the listener down: readable until the dispatcher mends it */
        pc_accept_pause(worker, false);
    if (fd < 0)
        return false; /* EAGAIN: another child was faster; the rest concern the client alone */
    struct pc_conn *conn = adopt(worker, fd, listener, &client);
    if (conn != NULL)
        pc_loop_conn(worker, conn);
    return true;
}

void
pc_accept_ready(struct pc_worker *worker, uint32_t listener)
{
    struct pc_child *child = worker->child;
    bool goes_on = listener < child->listener_count;
    for (uint32_t i = 0; goes_on && i < ACCEPT_BATCH; i++) {
        if (!pc_conn_reserve(child)
            && !(pc_conn_make_room(worker, child->listener_fds[listener]) && pc_conn_reserve(child))) {
            if (!atomic_load(&child->is_draining))
                pc_accept_pause(worker, true);
            return;
        }
        goes_on = accept_one(worker, listener);
        pc_conn_unreserve(child);
        /* As with the inbox (hand.c): where hardly ever a second one waits, it is not asked for each time. */
        worker->accept_luck = i > 0 && goes_on ? LUCK : worker->accept_luck - (worker->accept_luck > 0);
        goes_on = goes_on && (worker->accept_luck > 0 || ++worker->accept_calls % LUCK == 0);
    }
}

/* Put a descriptor into the epoll set or take it out. */
static int
set_watched(struct pc_child *child, int fd, uint64_t token, uint32_t events, bool on)
{
    struct epoll_event event = {.events = events, .data.u64 = token};
    int error = epoll_ctl(child->epoll_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, fd, &event);
    return error < 0 && on && errno != EEXIST ? -PC_E_SYS : 0;
}

/* Leaders and the main thread may want different things at once: the flag and the set change together, and a draining child
 * takes nothing any more, whoever asks. */
int
pc_accept_listen(struct pc_child *child, bool on)
{
    int error = 0;
    if (child->listener_count == 0 || (!on && !atomic_load(&child->listeners_in_epoll)))
        return 0;
    (void)pthread_mutex_lock(&child->accept_lock);
    on = on && !atomic_load(&child->is_draining);
    for (uint32_t i = 0; i < child->listener_count && on != atomic_load(&child->listeners_in_epoll) && error == 0; i++)
        error = set_watched(child, child->listener_fds[i], PC_TOKEN_LISTENER + i, EPOLLIN | EPOLLEXCLUSIVE, on);
    for (uint32_t i = 0; i < child->listener_count && error != 0; i++)
        (void)set_watched(child, child->listener_fds[i], PC_TOKEN_LISTENER + i, 0, false);
    atomic_store(&child->listeners_in_epoll, on && error == 0);
    (void)pthread_mutex_unlock(&child->accept_lock);
    return error;
}

/* Not EPOLLEXCLUSIVE: it would tell one child of a hand-off, and if that one lets go of the inbox or dies before it has looked, as when
 * a reload replaces it, nobody else ever hears of it. An inbox has few readers, most often one. */
int
pc_accept_inbox(struct pc_child *child, bool on)
{
    int error = 0;
    if (child->inbox_fd < 0)
        return 0;
    (void)pthread_mutex_lock(&child->accept_lock);
    on = on && !atomic_load(&child->is_draining);
    if (on != atomic_load(&child->inbox_in_epoll))
        error = set_watched(child, child->inbox_fd, PC_TOKEN_INBOX, EPOLLIN, on);
    atomic_store(&child->inbox_in_epoll, on && error == 0);
    (void)pthread_mutex_unlock(&child->accept_lock);
    return error;
}

void
pc_accept_resume(struct pc_child *child)
{
    int error = child->mutex_kind == PC_LOCK_DEFAULT ? pc_accept_listen(child, true) : 0;
    if (pc_accept_inbox(child, true) == 0 && error == 0)
        atomic_store(&child->accept_paused, false);
    else
        atomic_store(&child->resume_ns, pc_now_ns() + PAUSE_NS); /* no memory for the set: try again */
}
