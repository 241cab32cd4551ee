/* transport.c - bytes to and from a client: the plain transport.
 * Runs as:  child.   Sees: client bytes, unread.   Holds: nothing.
 * Distrusts: the socket's flags: whoever passed it may keep a duplicate and turn O_NONBLOCK off, so every call says
 *            MSG_DONTWAIT, and send_file, which cannot, bounds its wait by a send time-out.
 * Before:   conn.c   After: request.c, respond.c */
#include <netinet/tcp.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "child.h"

static ssize_t
plain_recv(struct pc_conn *conn, char *buf, size_t cap)
{
    return pc_io_result(recv(conn->fd, buf, cap, MSG_DONTWAIT));
}

static ssize_t
plain_send(struct pc_conn *conn, const char *buf, size_t len, bool more)
{
    return pc_io_result(send(conn->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0)));
}

/* The listener's sockets acknowledge with their answer. A client that waits for the acknowledgement before it sends the rest of
 * its request (Nagle's algorithm) would wait for the timer, 40 ms. */
void
pc_transport_acknowledge(const struct pc_conn *conn)
{
    static const int now = 1;
    if (conn->fd < 0) /* a stream */
        return;
    (void)setsockopt(conn->fd, IPPROTO_TCP, TCP_QUICKACK, &now, sizeof now); /* cannot fail on a TCP socket */
}

/* sendfile(2) waits when the socket is a blocking one, and would wait for a client that does not read while everybody else does
 * for this thread. On a non-blocking socket the time-out means nothing. */
static bool
bound_wait(const struct pc_conn *conn)
{
    struct timeval moment = {.tv_usec = 1000};
    return !conn->is_handed || setsockopt(conn->fd, SOL_SOCKET, SO_SNDTIMEO, &moment, sizeof moment) == 0;
}

static ssize_t
plain_send_file(struct pc_conn *conn, int fd, uint64_t *offset, size_t len)
{
    off_t at = (off_t)*offset;
    if (!bound_wait(conn))
        return -PC_E_CLOSED;
    ssize_t sent = pc_io_result(sendfile(conn->fd, fd, &at, len));
    if (sent > 0)
        *offset = (uint64_t)at;
    return sent;
}

static void
plain_end(struct pc_conn *conn)
{
    (void)conn; /* nothing to say goodbye with */
}

const struct pc_transport pc_transport_plain = {
    .name = "plain",
    .recv = plain_recv,
    .send = plain_send,
    .send_file = plain_send_file,
    .end = plain_end,
};
