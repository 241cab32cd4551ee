/* test_tls_tsan.c - claims about HTTP/2 streams over TLS, held against ThreadSanitizer: what a stream's thread asks of the connection is
 *                   not what the session's thread is changing.
 * Runs as:  the developer.   Sees: connections of its own on 127.0.0.1, a directory of its own under /tmp.
 * Trusts:   check.h, h2_client.h, tls_case.h.   Distrusts: the code under test.
 * Before:   -   After: -
 *
 * OpenSSL is not built with ThreadSanitizer, so what it does to an SSL is not seen. Every function of it that our files call with one is
 * therefore wrapped here, and says first whether it changes the SSL or asks it: two threads on one SSL is a race, whatever they met. */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c map.c mime.c page.c peek.c record.c regex.c request.c respond.c route.c serve.c settings.c tlv.c */
/* sources: transport.c uri.c util.c why.c wild.c gate.c gate_answer.c trailer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c dial.c kept.c knock.c target.c gate_http.c h1out.c proxy.c remoteip.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c hello.c phpini.c */
/* sources: tls.c tls_ctx.c pem.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* sources: loop.c main.c */
/* flags: -D_GNU_SOURCE -fno-sanitize=address,undefined -fsanitize=thread */
/* flags: -Wl,--wrap=SSL_do_handshake,--wrap=SSL_read_ex,--wrap=SSL_write_ex,--wrap=SSL_shutdown,--wrap=SSL_free,--wrap=SSL_ctrl */
/* flags: -Wl,--wrap=SSL_get_version,--wrap=SSL_get_current_cipher,--wrap=SSL_get_session,--wrap=SSL_session_reused */
/* flags: -Wl,--wrap=SSL_get_verify_result,--wrap=SSL_get0_peer_certificate,--wrap=SSL_get1_peer_certificate */
/* flags: -Wl,--wrap=SSL_get_certificate,--wrap=SSL_get_peer_cert_chain,--wrap=SSL_get_error,--wrap=SSL_get_shutdown */
/* libs: -lpcre2-8 -lssl -lcrypto */
/* libs: -lnghttp2 */
#include <poll.h>

#include "tls_case.h"

/* A client thread's. */
static _Thread_local SSL *over;
static ssize_t tls_put(const void *bytes, size_t len);
static ssize_t tls_take(void *room, size_t len);
#define H2_PUT(fd, bytes, len) tls_put((bytes), (len))
#define H2_TAKE(fd, room, len) tls_take((room), (len))

#include "h2_client.h"
#include "tsan_case.h"

#define CLIENTS 4
#define ROUNDS 6
#define ASKED 24
#define LOG_BYTES (1 << 20)

static struct child_case one;
static struct sockaddr_in address;
static struct tls_cert *authority, *own, *alice;
static SSL_CTX *client_ctx;
static _Atomic uint32_t answers;

static const char *const targets[] = {"/small", "/ask", "/big", "/middle", "/list/", "/nothing", "/ask"};

/* ------------------------------------------------------------------ who touches an SSL */

void __tsan_read1(void *address_of);
void __tsan_write1(void *address_of);

#define ASKS(type, name)                       \
    type __real_##name(const SSL *ssl);        \
    type __wrap_##name(const SSL *ssl);        \
    type __wrap_##name(const SSL *ssl)         \
    {                                          \
        __tsan_read1((void *)(uintptr_t)ssl);  \
        return __real_##name(ssl);             \
    }
#define CHANGES(type, name)                    \
    type __real_##name(SSL *ssl);              \
    type __wrap_##name(SSL *ssl);              \
    type __wrap_##name(SSL *ssl)               \
    {                                          \
        __tsan_write1(ssl);                    \
        return __real_##name(ssl);             \
    }

ASKS(const char *, SSL_get_version)
ASKS(const SSL_CIPHER *, SSL_get_current_cipher)
ASKS(SSL_SESSION *, SSL_get_session)
ASKS(int, SSL_session_reused)
ASKS(long, SSL_get_verify_result)
ASKS(X509 *, SSL_get0_peer_certificate)
ASKS(X509 *, SSL_get1_peer_certificate)
ASKS(X509 *, SSL_get_certificate)
ASKS(STACK_OF(X509) *, SSL_get_peer_cert_chain)
ASKS(int, SSL_get_shutdown)
CHANGES(int, SSL_do_handshake)
CHANGES(int, SSL_shutdown)

int __real_SSL_get_error(const SSL *ssl, int result);
int __wrap_SSL_get_error(const SSL *ssl, int result);
int
__wrap_SSL_get_error(const SSL *ssl, int result)
{
    __tsan_read1((void *)(uintptr_t)ssl);
    return __real_SSL_get_error(ssl, result);
}

void __real_SSL_free(SSL *ssl);
void __wrap_SSL_free(SSL *ssl);
void
__wrap_SSL_free(SSL *ssl)
{
    if (ssl != NULL)
        __tsan_write1(ssl);
    __real_SSL_free(ssl);
}

long __real_SSL_ctrl(SSL *ssl, int command, long number, void *pointer);
long __wrap_SSL_ctrl(SSL *ssl, int command, long number, void *pointer);
long
__wrap_SSL_ctrl(SSL *ssl, int command, long number, void *pointer)
{
    __tsan_read1(ssl);
    return __real_SSL_ctrl(ssl, command, number, pointer);
}

int __real_SSL_read_ex(SSL *ssl, void *room, size_t len, size_t *ret_len);
int __wrap_SSL_read_ex(SSL *ssl, void *room, size_t len, size_t *ret_len);
int
__wrap_SSL_read_ex(SSL *ssl, void *room, size_t len, size_t *ret_len)
{
    __tsan_write1(ssl);
    return __real_SSL_read_ex(ssl, room, len, ret_len);
}

int __real_SSL_write_ex(SSL *ssl, const void *bytes, size_t len, size_t *ret_len);
int __wrap_SSL_write_ex(SSL *ssl, const void *bytes, size_t len, size_t *ret_len);
int
__wrap_SSL_write_ex(SSL *ssl, const void *bytes, size_t len, size_t *ret_len)
{
    __tsan_write1(ssl);
    return __real_SSL_write_ex(ssl, bytes, len, ret_len);
}

/* ------------------------------------------------------------------ the child */

static void
dress(struct child_bytes *host, uint32_t index)
{
    struct child_bytes tls = {0};
    (void)index;
    CHILD_U32S(&tls, PC_T_TLS_PROTOCOLS, PC_TLS_TLSV1_3);
    CHILD_U32S(&tls, PC_T_TLS_TIMEOUT, 300);
    CHILD_U32S(&tls, PC_T_TLS_TICKETS, 1);
    CHILD_U32S(&tls, PC_T_TLS_VERIFY, PC_VERIFY_OPTIONAL);
    CHILD_U32S(&tls, PC_T_TLS_DEPTH, 1);
    child_text(&tls, PC_T_TLS_CA, authority->pem);
    tls_put_cert(&tls, own->pem, 0);
    child_box(host, PC_T_TLS, &tls);
}

/* Every kind of fact, in every line of the log. */
static struct pc_slice
log_format(void)
{
    static const char *const names[] = {
        "SSL_PROTOCOL", "SSL_CIPHER", "SSL_CIPHER_USEKEYSIZE", "SSL_SESSION_RESUMED", "SSL_SECURE_RENEG", "SSL_TLS_SNI", "SSL_CLIENT_VERIFY",
        "SSL_CLIENT_S_DN_CN", "SSL_SERVER_S_DN_CN", "SSL_CLIENT_CERT_CHAIN_0", "SSL_SESSION_ID", "SSL_CLIENT_CERT",
    };
    static char ops[1024];
    size_t len = 0;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        const char blank[] = {PC_FMT_LITERAL, 0, 1, 0, ' '}, head[] = {PC_FMT_x, 0, (char)strlen(names[i]), 0};
        memcpy(ops + len, head, sizeof head);
        memcpy(ops + len + sizeof head, names[i], strlen(names[i]));
        len += sizeof head + strlen(names[i]);
        memcpy(ops + len, blank, sizeof blank);
        len += sizeof blank;
    }
    return (struct pc_slice){ops, len};
}

/* ------------------------------------------------------------------ clients */

static ssize_t
result_of(int done, size_t count)
{
    if (done == 1)
        return (ssize_t)count;
    int why = SSL_get_error(over, done);
    ERR_clear_error();
    errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
    return why == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

static ssize_t
tls_put(const void *bytes, size_t len)
{
    size_t count = 0;
    int done = len > 0 ? SSL_write_ex(over, bytes, len, &count) : 1;
    ssize_t result = result_of(done, count);
    if (done == 1 || result != 0)
        return result;
    errno = ECONNRESET; /* the server has said goodbye */
    return -1;
}

static ssize_t
tls_take(void *room, size_t len)
{
    size_t count = 0;
    int done = SSL_read_ex(over, room, len, &count);
    return result_of(done, count);
}

static void
h2_drive(struct h2_client *client)
{
    struct pollfd state = {.fd = client->fd, .events = POLLIN};
    if (SSL_has_pending(over) == 0)
        (void)poll(&state, 1, 30000);
    h2_hear(client);
}

static void
connect_client(struct h2_client *client)
{
    int fd = tsan_connect(&address);
    over = SSL_new(client_ctx);
    tls_must(over != NULL && SSL_set_fd(over, fd) == 1 && SSL_set_tlsext_host_name(over, "own.test") == 1, "SSL_new");
    tls_must(SSL_connect(over) == 1, "SSL_connect");
    child_must(fcntl(fd, F_SETFL, O_NONBLOCK) == 0, "O_NONBLOCK");
    h2_begin(client, fd);
    h2_widen(client);
}

static void
check_answer(struct h2_client *client, int32_t id, const char *target)
{
    const struct h2_answer *answer = h2_answer(client, id);
    CHECK_EQ_FOR(target, answer->status, strcmp(target, "/nothing") == 0 ? 404 : 200);
    CHECK_FOR(target, answer->has_ended);
    if (target[1] == 'b')
        CHECK_EQ(answer->body_len, CHILD_BIG_BYTES);
    (void)atomic_fetch_add(&answers, 1);
}

/* Many at once, and every third round ends with its answers under way: streams outlive their session then. */
static void
converse(struct h2_client *client, uint32_t number, uint32_t round)
{
    int32_t ids[ASKED];
    connect_client(client);
    for (uint32_t i = 0; i < ASKED; i++) {
        ids[i] = h2_get(client, targets[(number + round + i) % COUNT_OF(targets)]);
        if (i % 4 == 3)
            h2_hear(client);
    }
    for (uint32_t i = 0; i < ASKED && round % 3 != 2; i++) {
        const struct h2_answer *answer = h2_answer(client, ids[i]);
        for (int turn = 0; turn < 2000 && !answer->has_ended && !answer->is_reset && !client->has_ended; turn++)
            h2_drive(client);
        check_answer(client, ids[i], targets[(number + round + i) % COUNT_OF(targets)]);
    }
    SSL_free(over);
    h2_end(client);
}

static void *
run_client(void *argument)
{
    uint32_t number = (uint32_t)(uintptr_t)argument;
    struct h2_client *client = malloc(sizeof *client);
    child_must(client != NULL, "malloc");
    for (uint32_t round = 0; round < ROUNDS; round++)
        converse(client, number, round);
    free(client);
    return NULL;
}

/* ------------------------------------------------------------------ the claim */

/* Each line says the same of the same client. */
static void
check_log(int fd)
{
    static const char want[] = "TLSv1.3 TLS_AES_256_GCM_SHA384 256 Initial true own.test SUCCESS alice own.test ";
    char *text = malloc(LOG_BYTES);
    child_must(text != NULL, "malloc");
    ssize_t len = pread(fd, text, LOG_BYTES - 1, 0);
    uint32_t lines = 0;
    text[len > 0 ? len : 0] = '\0';
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"), lines++) {
        CHECK_FOR(line, strncmp(line, want, sizeof want - 1) == 0);
        CHECK_FOR(line, strstr(line, "-----BEGIN CERTIFICATE-----") != NULL);
    }
    CHECK(lines >= atomic_load(&answers));
    free(text);
}

static void
no_thread_but_the_sessions_touches_its_ssl(void)
{
    int listener = tsan_listen(&address), log = memfd_create("log", MFD_CLOEXEC);
    child_must(log >= 0, "memfd_create");
    const int keys[] = {tls_key_fd(own->key_pem)};
    int tickets = memfd_create("tickets", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    child_must(tickets >= 0 && pc_tickets_rotate(-1, tickets) == 0, "tickets");
    const struct child_plan plan = {
        .start_threads = 4, .max_threads = 6, .keep_alive_ms = 20000, .listeners = &address, .listener_count = 1, .listener_fd = listener,
        .log_fd = fcntl(log, F_DUPFD_CLOEXEC, 3), .protocols = PC_PROTOCOL_H2 | PC_PROTOCOL_HTTP_1_1, .speaks_tls = true, .dress = dress,
        .key_fds = keys, .key_count = 1, .has_tickets = true, .ticket_fd = tickets, .log_format = log_format(),
    };
    child_new(&one, &plan);
    tsan_serve(&one, run_client, CLIENTS);
    CHECK_EQ(atomic_load(&answers), CLIENTS * (ROUNDS - ROUNDS / 3) * ASKED);
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
    CHECK_EQ(child_counter(&one, PC_C_TLS_HANDSHAKES), CLIENTS * ROUNDS);
    child_end(&one);
    check_log(log);
    CHECK(close(listener) == 0 && close(log) == 0);
}

int
main(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
    authority = tls_make("authority", false, true, NULL);
    own = tls_make("own.test", false, false, NULL);
    alice = tls_make("alice", false, false, authority);
    client_ctx = tls_client_ctx(TLS1_3_VERSION);
    (void)SSL_CTX_set_mode(client_ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    tls_must(SSL_CTX_use_certificate(client_ctx, alice->cert) == 1 && SSL_CTX_use_PrivateKey(client_ctx, alice->key) == 1, "alice");
    tls_must(SSL_CTX_set_alpn_protos(client_ctx, (const unsigned char *)"\x02h2", 3) == 0, "ALPN");
    RUN(no_thread_but_the_sessions_touches_its_ssl);
    SSL_CTX_free(client_ctx);
    tls_unmake(authority);
    tls_unmake(own);
    tls_unmake(alice);
    return check_end();
}
