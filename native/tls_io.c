/* tls_io.c - between OpenSSL and the socket; pc_transport_tls.
 * Runs as:  child, as the identity that owns the host.   Sees: the client's bytes, decrypted.
 * Distrusts: the socket's flags, as transport.c does; and a client that makes us work without asking for anything: a turn in which much
 *            comes and none of it is the caller's ends the connection.
 * Before:   tls.c   After: request.c, respond.c
 *
 * OpenSSL's own BIO would call read(2) and write(2), and would have to be asked the same question again, with the same bytes, whenever
 * the socket is full. Ours takes every record whole and keeps the rest of it for the next event, so a caller that was told -PC_E_AGAIN
 * may say something else the next time. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/err.h>

#include "tls.h"

#define RECORD_BYTES 16384
#define OUT_BYTES_MAX 131072 /* a handshake's longest flight, or a record and the answers to what came meanwhile */

/* ------------------------------------------------------------------ the socket */

/* Send what waits, and what was held back. 0, -PC_E_AGAIN, -PC_E_CLOSED. */
static int
flush(struct pc_tls *tls)
{
    tls->holds = false;
    while (tls->out_at < tls->out_len) {
        int flags = MSG_DONTWAIT | MSG_NOSIGNAL | (tls->has_more ? MSG_MORE : 0);
        ssize_t sent = pc_io_result(send(tls->conn->fd, tls->out + tls->out_at, tls->out_len - tls->out_at, flags));
        if (sent < 0)
            return (int)sent;
        tls->out_at += (uint32_t)sent;
        tls->conn->has_moved = true;
    }
    free(tls->out);
    tls->out = NULL;
    tls->out_at = tls->out_len = tls->out_cap = 0;
    tls->conn->has_unsent = false;
    return 0;
}

/* Keep what the socket did not take. False: it would be too much. */
static bool
keep(struct pc_tls *tls, const char *buf, size_t len)
{
    size_t held = tls->out_len - tls->out_at;
    if (held + len > OUT_BYTES_MAX)
        return false;
    if (tls->out_at > 0)
        memmove(tls->out, tls->out + tls->out_at, held);
    tls->out_at = 0;
    tls->out_len = (uint32_t)held;
    if (held + len > tls->out_cap) {
        char *grown = realloc(tls->out, held + len);
        if (grown == NULL)
            pc_die(111, "out of memory");
        tls->out = grown;
        tls->out_cap = (uint32_t)(held + len);
    }
    memcpy(tls->out + held, buf, len); /* UNSAFE: there is room for just that */
    tls->out_len += (uint32_t)len;
    tls->conn->has_unsent = true;
    return true;
}

static int
socket_write(BIO *bio, const char *buf, size_t len, size_t *ret_len)
{
    struct pc_tls *tls = BIO_get_data(bio);
    ssize_t sent = 0;
    BIO_clear_retry_flags(bio);
    *ret_len = len;
    if (tls->has_ended && tls->is_reading)
        return 1; /* an alert that the end came without a word: nobody is there to hear it */
    tls->has_written = true;
    if (tls->out == NULL && !tls->holds)
        sent = pc_io_result(send(tls->conn->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL | (tls->has_more ? MSG_MORE : 0)));
    if (sent < 0 && sent != -PC_E_AGAIN)
        return 0;
    size_t used = sent > 0 ? (size_t)sent : 0;
    return used == len || keep(tls, buf + used, len - used);
}

/* After a short read the socket is empty until epoll tells of more (epoll(7)); only an end that came along is not told again. */
static int
socket_read(BIO *bio, char *buf, size_t cap, size_t *ret_len)
{
    struct pc_tls *tls = BIO_get_data(bio);
    struct pc_conn *conn = tls->conn;
    BIO_clear_retry_flags(bio);
    if (tls->taken >= PC_TLS_TURN_BYTES)
        return 0;
    ssize_t count = conn->is_dry && !conn->saw_end ? -PC_E_AGAIN : pc_io_result(recv(conn->fd, buf, cap, MSG_DONTWAIT));
    conn->is_dry = count == -PC_E_AGAIN || (count > 0 && (size_t)count < cap);
    tls->has_ended = count == 0;
    if (count == -PC_E_AGAIN)
        BIO_set_retry_read(bio);
    if (count <= 0)
        return 0;
    tls->taken += (uint32_t)count;
    *ret_len = (size_t)count;
    return 1;
}

static long
socket_control(BIO *bio, int command, long number, void *pointer)
{
    const struct pc_tls *tls = BIO_get_data(bio);
    (void)number;
    (void)pointer;
    if (command == BIO_CTRL_EOF)
        return tls->has_ended;
    return command == BIO_CTRL_FLUSH; /* what waits is sent by events */
}

static BIO_METHOD *method;

static void
make_method(void)
{
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "perchildd");
    if (method == NULL || BIO_meth_set_write_ex(method, socket_write) != 1 || BIO_meth_set_read_ex(method, socket_read) != 1
        || BIO_meth_set_ctrl(method, socket_control) != 1)
        pc_die(111, "out of memory");
}

/* ------------------------------------------------------------------ one connection's */

struct pc_tls *
pc_tls_new(struct pc_tls_site *site, struct pc_conn *conn)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, make_method);
    struct pc_tls *tls = calloc(1, sizeof *tls);
    BIO *bio = BIO_new(method);
    SSL *ssl = SSL_new(site->ctx);
    if (tls == NULL || bio == NULL || ssl == NULL || SSL_set_app_data(ssl, tls) != 1) {
        (void)BIO_free(bio);
        SSL_free(ssl);
        free(tls);
        return NULL;
    }
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_accept_state(ssl);
    tls->ssl = ssl;
    atomic_init(&tls->refs, 1);
    tls->conn = conn;
    tls->site = site;
    return tls;
}

struct pc_tls *
pc_tls_share(struct pc_tls *tls)
{
    if (tls != NULL)
        (void)atomic_fetch_add(&tls->refs, 1);
    return tls;
}

void
pc_tls_free(struct pc_tls *tls)
{
    if (tls == NULL || atomic_fetch_sub(&tls->refs, 1) > 1)
        return;
    pc_tls_forget(&tls->facts);
    free(tls);
}

/* A flight goes in one call. What is said behind the last one, tickets, goes with the first bytes of the response, or as soon as nothing
 * is here that could be answered. */
int
pc_tls_handshake(struct pc_conn *conn)
{
    struct pc_tls *tls = conn->tls;
    tls->taken = 0;
    tls->has_written = false;
    tls->holds = tls->out == NULL;
    ERR_clear_error();
    int result = SSL_do_handshake(tls->ssl);
    if (result == 1) {
        tls->holds = tls->holds && tls->out != NULL;
        pc_tls_learn(tls);
        return 1;
    }
    int why = SSL_get_error(tls->ssl, result);
    if (flush(tls) != -PC_E_CLOSED && why == SSL_ERROR_WANT_READ)
        return 0;
    tls->has_failed = true;
    return tls->has_ended ? -PC_E_CLOSED : -PC_E_BAD;
}

/* ------------------------------------------------------------------ the transport */

/* Fewer bytes than there is room for: no more are there, neither in the socket nor here. */
static ssize_t
tls_recv(struct pc_conn *conn, char *buf, size_t cap)
{
    struct pc_tls *tls = conn->tls;
    size_t have = 0, count = 0;
    if (tls->has_failed)
        return -PC_E_CLOSED;
    tls->taken = 0;
    ERR_clear_error();
    tls->is_reading = true;
    while (have < cap && SSL_read_ex(tls->ssl, buf + have, cap - have, &count) == 1) {
        have += count;
        tls->taken = 0;
    }
    tls->is_reading = false;
    if (have == cap)
        return (ssize_t)have;
    int why = SSL_get_error(tls->ssl, 0);
    if (tls->holds && (have == 0 || why != SSL_ERROR_WANT_READ))
        (void)flush(tls); /* a broken connection shows at the next word */
    if (why == SSL_ERROR_WANT_READ)
        return have > 0 ? (ssize_t)have : -PC_E_AGAIN;
    conn->saw_end = true; /* whoever reads on meets it */
    if (why == SSL_ERROR_ZERO_RETURN)
        return (ssize_t)have;
    tls->has_failed = true;
    return have > 0 ? (ssize_t)have : -PC_E_CLOSED;
}

/* 0: OpenSSL may be given something to say. -PC_E_AGAIN, -PC_E_CLOSED. */
static int
make_way(struct pc_tls *tls)
{
    return tls->holds ? 0 : flush(tls);
}

static bool
has_way(const struct pc_tls *tls)
{
    return tls->out == NULL || tls->holds;
}

/* A record at a time; what was taken is as good as sent, for `flush` comes before anything else. */
static ssize_t
tls_send(struct pc_conn *conn, const char *buf, size_t len, bool more)
{
    struct pc_tls *tls = conn->tls;
    size_t sent = 0, count = 0;
    int error = tls->has_failed ? -PC_E_CLOSED : make_way(tls);
    if (error != 0)
        return error;
    ERR_clear_error();
    while (sent < len && has_way(tls)) {
        size_t piece = len - sent < RECORD_BYTES ? len - sent : RECORD_BYTES;
        tls->has_more = more || sent + piece < len;
        if (SSL_write_ex(tls->ssl, buf + sent, piece, &count) != 1 || (tls->holds && flush(tls) == -PC_E_CLOSED)) {
            tls->has_failed = true;
            return sent > 0 ? (ssize_t)sent : -PC_E_CLOSED;
        }
        sent += count;
    }
    return (ssize_t)sent;
}

/* As plain_send_file: 0 = the file has ended too early. */
static ssize_t
tls_send_file(struct pc_conn *conn, int fd, uint64_t *offset, size_t len)
{
    char piece[RECORD_BYTES];
    size_t total = 0;
    int error = make_way(conn->tls);
    while (error == 0 && total < len && has_way(conn->tls)) {
        size_t want = len - total < sizeof piece ? len - total : sizeof piece;
        ssize_t count = pread(fd, piece, want, (off_t)*offset);
        if (count == 0)
            break;
        ssize_t sent = count > 0 ? tls_send(conn, piece, (size_t)count, total + (size_t)count < len) : -PC_E_CLOSED;
        if (sent < 0)
            error = (int)sent;
        total += sent > 0 ? (size_t)sent : 0;
        *offset += sent > 0 ? (uint64_t)sent : 0;
    }
    return total > 0 ? (ssize_t)total : error;
}

static int
tls_flush(struct pc_conn *conn)
{
    conn->tls->has_more = false;
    return flush(conn->tls);
}

static void
tls_goodbye(struct pc_conn *conn)
{
    struct pc_tls *tls = conn->tls;
    if (tls->has_failed || conn->is_cut || SSL_is_init_finished(tls->ssl) == 0 || (SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN) != 0)
        return; /* among them an end that must not look like that of a whole answer */
    tls->has_more = false;
    ERR_clear_error();
    (void)SSL_shutdown(tls->ssl); /* the other side's word is not waited for */
    ERR_clear_error();
    if (tls->holds)
        (void)flush(tls); /* what stays is tried again by who waits for it */
}

/* From here on the connection is a plain one. Streams that outlive it have the facts. */
static void
tls_end(struct pc_conn *conn)
{
    struct pc_tls *tls = conn->tls;
    tls_goodbye(conn);
    SSL_free(tls->ssl);
    free(tls->out);
    tls->ssl = NULL;
    tls->out = NULL;
    pc_tls_free(tls);
    conn->has_unsent = false;
    conn->tls = NULL;
    conn->transport = &pc_transport_plain;
}

const struct pc_transport pc_transport_tls = {
    .name = "tls",
    .recv = tls_recv,
    .send = tls_send,
    .send_file = tls_send_file,
    .flush = tls_flush,
    .goodbye = tls_goodbye,
    .end = tls_end,
    .fact = pc_tls_fact,
    .facts = pc_tls_facts,
};
