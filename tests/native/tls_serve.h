/* tls_serve.h - a child with TLS hosts, driven a turn at a time, and clients on socket pairs: for the tests that hold claims against it.
 * Runs as:  the developer.   Sees: a directory of its own under /tmp.
 * Trusts:   the tests.   Distrusts: -
 * Before:   test_tls.c, test_tls_hosts.c, test_tls_clients.c   After: tls_case.h, child_case.h */
#ifndef TLS_SERVE_H
#define TLS_SERVE_H

#include "loop.c" /* for handle_event */

#include "tls_case.h"

#define ALL ((size_t)1 << 30)
#define OUT_BYTES (1 << 20)
#define TURNS 400000

enum { OWN, TWO, CLIENT, BROKEN, FREE, HOSTS };

static struct child_case one;
static struct pc_worker *worker;
static struct tls_cert *authority, *own_ec, *own_rsa, *two, *guard, *free_one, *alice, *stranger;
static SSL_CTX *v12, *v13;
static char out[OUT_BYTES];
static size_t out_len;
static int log_fd, alert; /* the last that came; 0 = none */
static int pair_type = SOCK_STREAM; /* of sockets; SOCK_SEQPACKET shows what was sent in one call */
static const char *crl;   /* of client.test's; NULL = none */
static uint32_t crl_check;

/* ------------------------------------------------------------------ the child */

static inline void
dress(struct child_bytes *host, uint32_t index)
{
    struct child_bytes tls = {0};
    CHILD_U32S(&tls, PC_T_TLS_PROTOCOLS, PC_TLS_TLSV1_2 | PC_TLS_TLSV1_3);
    CHILD_U32S(&tls, PC_T_TLS_TIMEOUT, 300);
    CHILD_U32S(&tls, PC_T_TLS_TICKETS, 1);
    if (index == OWN) {
        tls_put_cert(&tls, own_ec->pem, 0);
        tls_put_cert(&tls, own_rsa->pem, 1);
    } else if (index == TWO) {
        tls_put_cert(&tls, two->pem, 2);
    } else if (index == CLIENT) {
        tls_put_cert(&tls, guard->pem, 3);
        CHILD_U32S(&tls, PC_T_TLS_VERIFY, PC_VERIFY_REQUIRE);
        CHILD_U32S(&tls, PC_T_TLS_DEPTH, 1);
        child_text(&tls, PC_T_TLS_CA, authority->pem);
        if (crl != NULL)
            child_text(&tls, PC_T_TLS_CRL, crl);
        CHILD_U32S(&tls, PC_T_TLS_CRL_CHECK, crl_check);
    } else if (index == BROKEN) {
        child_text(&tls, PC_T_TLS_BROKEN, "its certificate has expired");
    } else {
        tls_put_cert(&tls, free_one->pem, 4);
        CHILD_U32S(&tls, PC_T_TLS_VERIFY, PC_VERIFY_NO_CA);
        CHILD_U32S(&tls, PC_T_TLS_DEPTH, 1);
    }
    child_box(host, PC_T_TLS, &tls);
}

static inline void
start_with(const char *own_key)
{
    static const struct child_name names[] = {
        {"own.test", OWN}, {"two.test", TWO}, {"client.test", CLIENT}, {"broken.test", BROKEN}, {"free.test", FREE}, {"www.own.test", OWN},
    };
    const int keys[] = {tls_key_fd(own_key), tls_key_fd(own_rsa->key_pem), tls_key_fd(two->key_pem), tls_key_fd(guard->key_pem),
                        tls_key_fd(free_one->key_pem)};
    int tickets = memfd_create("tickets", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    child_must(tickets >= 0 && pc_tickets_rotate(-1, tickets) == 0, "tickets");
    log_fd = memfd_create("log", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    const struct child_plan plan = {
        .identity = 7, .start_threads = 1, .max_threads = 2, .max_requests = 0, .keep_alive_ms = 5000, .listener_fd = -1, .log_fd = -1,
        .has_programs = true, .job_fd = -1, .error_fd = log_fd, .names = names, .name_count = COUNT_OF(names), .host_count = HOSTS,
        .dress = dress, .key_fds = keys, .key_count = COUNT_OF(keys), .has_tickets = true, .ticket_fd = tickets,
    };
    child_new(&one, &plan);
    for (uint32_t i = 0; i < one.child->config->host_count; i++)
        one.child->config->hosts[i].error_level = PC_DEBUG;
    int slot = pc_worker_start(one.child, false);
    child_must(slot >= 0, "pc_worker_start");
    worker = &one.child->workers[slot];
    worker->now_ns = pc_now_ns();
}

static inline void
start(void)
{
    start_with(own_ec->key_pem);
}

static inline void
stop(void)
{
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
    pc_worker_end(one.child, worker->slot);
    child_end(&one);
}

static inline void
drive(void)
{
    struct epoll_event events[PC_EVENT_BATCH];
    int count;
    do {
        for (int i = count = epoll_wait(one.child->epoll_fd, events, PC_EVENT_BATCH, 0); i > 0; i--)
            handle_event(worker, &events[count - i]);
        pc_loop_settle(worker);
    } while (count > 0);
}

static inline bool
logged(const char *text)
{
    return child_log_says(log_fd, text);
}

static inline struct pc_conn *
open_conn(uint32_t host, int room, int *ret_fd)
{
    int pair[2];
    child_must(socketpair(AF_UNIX, pair_type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0, "socketpair");
    child_must(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room) == 0, "SO_SNDBUF");
    child_must(pc_conn_reserve(one.child), "pc_conn_reserve");
    struct pc_conn *conn = pc_conn_new(one.child, pair[0]);
    conn->client.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(0x7f000001)}, .sin_port = htons(4711)};
    conn->local.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(0x7f000001)}, .sin_port = htons(443)};
    conn->since_ns = worker->now_ns;
    conn->sni_host = &one.child->config->hosts[host];
    conn->phase = PC_PHASE_TLS;
    *ret_fd = pair[1];
    pc_loop_conn(worker, conn);
    pc_conn_unreserve(one.child);
    return conn;
}

/* ------------------------------------------------------------------ the client */

/* Carry bytes to and fro, so many at a time, until `is_over` says so, or nothing moves any more. */
static inline bool
go_on(struct tls_client *client, size_t up, size_t down, bool (*is_over)(struct tls_client *client))
{
    for (int i = 0; i < TURNS; i++) {
        if (is_over(client))
            return true;
        bool has_moved = tls_pump(client, up, down);
        drive();
        if (!has_moved && !tls_pump(client, up, down))
            return is_over(client);
    }
    return false;
}

static inline void
note_alert(void)
{
    for (unsigned long error; (error = ERR_get_error()) != 0;)
        if (ERR_GET_REASON(error) >= SSL_AD_REASON_OFFSET)
            alert = ERR_GET_REASON(error) - SSL_AD_REASON_OFFSET;
}

static inline bool
is_connected(struct tls_client *client)
{
    ERR_clear_error();
    bool is_it = SSL_do_handshake(client->ssl) == 1;
    note_alert();
    return is_it;
}

/* Takes what has come; over when the server has said goodbye or is gone. */
static inline bool
has_heard_all(struct tls_client *client)
{
    int count;
    ERR_clear_error();
    while ((count = SSL_read(client->ssl, out + out_len, (int)(OUT_BYTES - out_len - 1))) > 0)
        out_len += (size_t)count;
    out[out_len] = '\0';
    int why = SSL_get_error(client->ssl, count);
    note_alert();
    return why == SSL_ERROR_ZERO_RETURN;
}

static inline struct tls_client
call_with(SSL_CTX *ctx, uint32_t host, const char *name, int room)
{
    int fd;
    (void)open_conn(host, room, &fd);
    out_len = 0;
    alert = 0;
    out[0] = '\0';
    return tls_client_new(ctx, fd, name);
}

static inline struct tls_client
call(SSL_CTX *ctx, uint32_t host, const char *name)
{
    return call_with(ctx, host, name, 1 << 20);
}

static inline void
say(struct tls_client *client, const char *text)
{
    child_must(SSL_write(client->ssl, text, (int)strlen(text)) == (int)strlen(text), "SSL_write");
}

static inline void
hang_up(struct tls_client *client)
{
    tls_client_end(client);
    drive();
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
}

static inline bool
ends_with_file(const char *name, size_t len)
{
    const char *body = strstr(out, "\r\n\r\n");
    if (body == NULL || out_len - (size_t)(body + 4 - out) != len)
        return false;
    for (size_t i = 0; i < len; i++)
        if (body[4 + i] != child_byte(name, i))
            return false;
    return true;
}

/* One request on a connection of its own. Whether the session was resumed. */
static inline bool
visit(SSL_CTX *ctx, uint32_t host, const char *name, SSL_SESSION **session)
{
    char request[256];
    struct tls_client client = call(ctx, host, name);
    if (*session != NULL)
        CHECK_EQ(SSL_set_session(client.ssl, *session), 1);
    CHECK(go_on(&client, ALL, ALL, is_connected));
    bool is_resumed = SSL_session_reused(client.ssl) == 1;
    (void)snprintf(request, sizeof request, "GET /small HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", name);
    say(&client, request);
    CHECK(go_on(&client, ALL, ALL, has_heard_all));
    CHECK(strncmp(out, "HTTP/1.1 200", 12) == 0 && ends_with_file("small", 60));
    SSL_SESSION_free(*session);
    *session = SSL_get1_session(client.ssl);
    SSL_set_shutdown(client.ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* else OpenSSL takes the session for a bad one */
    hang_up(&client);
    return is_resumed;
}

/* ------------------------------------------------------------------ begin and end of a test */

static inline void
begin(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
    authority = tls_make("authority", false, true, NULL);
    own_ec = tls_make("own.test", false, false, NULL);
    own_rsa = tls_make("own.test", true, false, NULL);
    two = tls_make("two.test", false, false, NULL);
    guard = tls_make("client.test", false, false, NULL);
    free_one = tls_make("free.test", false, false, NULL);
    alice = tls_make("alice", false, false, authority);
    stranger = tls_make("stranger", false, false, NULL);
    v12 = tls_client_ctx(TLS1_2_VERSION);
    v13 = tls_client_ctx(TLS1_3_VERSION);
}

/* main's status */
static inline int
end(void)
{
    struct tls_cert *const all[] = {authority, own_ec, own_rsa, two, guard, free_one, alice, stranger};
    for (size_t i = 0; i < COUNT_OF(all); i++)
        tls_unmake(all[i]);
    SSL_CTX_free(v12);
    SSL_CTX_free(v13);
    return check_end();
}

#endif
