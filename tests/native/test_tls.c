/* test_tls.c - claims about TLS: the test is the client, and holds back what it likes of either side's bytes.
 * Runs as:  the developer.   Sees: a directory of its own under /tmp.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c map.c mime.c page.c peek.c record.c regex.c request.c respond.c route.c serve.c settings.c tlv.c */
/* sources: transport.c uri.c util.c why.c wild.c gate.c gate_answer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c target.c gate_http.c h1out.c proxy.c remoteip.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c hello.c phpini.c */
/* sources: tls.c tls_ctx.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* libs: -lnghttp2 */
/* flags: -D_GNU_SOURCE */
/* libs: -lpcre2-8 -lssl -lcrypto */
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

/* ------------------------------------------------------------------ the child */

static void
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
    } else if (index == BROKEN) {
        child_text(&tls, PC_T_TLS_BROKEN, "its certificate has expired");
    } else {
        tls_put_cert(&tls, free_one->pem, 4);
        CHILD_U32S(&tls, PC_T_TLS_VERIFY, PC_VERIFY_NO_CA);
        CHILD_U32S(&tls, PC_T_TLS_DEPTH, 1);
    }
    child_box(host, PC_T_TLS, &tls);
}

static void
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

static void
start(void)
{
    start_with(own_ec->key_pem);
}

static void
stop(void)
{
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
    pc_worker_end(one.child, worker->slot);
    child_end(&one);
}

static void
drive(void)
{
    struct epoll_event events[PC_EVENT_BATCH];
    int count;
    do
        for (int i = count = epoll_wait(one.child->epoll_fd, events, PC_EVENT_BATCH, 0); i > 0; i--)
            handle_event(worker, &events[count - i]);
    while (count > 0);
}

static bool
logged(const char *text)
{
    static char log[65536];
    ssize_t len = pread(log_fd, log, sizeof log - 1, 0);
    log[len > 0 ? len : 0] = '\0';
    if (strstr(log, text) != NULL)
        return true;
    printf("the log: %s\n", log);
    return false;
}

static struct pc_conn *
open_conn(uint32_t host, int room, int *ret_fd)
{
    int pair[2];
    child_must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0, "socketpair");
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
static bool
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

static void
note_alert(void)
{
    for (unsigned long error; (error = ERR_get_error()) != 0;)
        if (ERR_GET_REASON(error) >= SSL_AD_REASON_OFFSET)
            alert = ERR_GET_REASON(error) - SSL_AD_REASON_OFFSET;
}

static bool
is_connected(struct tls_client *client)
{
    ERR_clear_error();
    bool is_it = SSL_do_handshake(client->ssl) == 1;
    note_alert();
    return is_it;
}

/* Takes what has come; over when the server has said goodbye or is gone. */
static bool
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

static struct tls_client
call_with(SSL_CTX *ctx, uint32_t host, const char *name, int room)
{
    int fd;
    (void)open_conn(host, room, &fd);
    out_len = 0;
    alert = 0;
    out[0] = '\0';
    return tls_client_new(ctx, fd, name);
}

static struct tls_client
call(SSL_CTX *ctx, uint32_t host, const char *name)
{
    return call_with(ctx, host, name, 1 << 20);
}

static void
say(struct tls_client *client, const char *text)
{
    child_must(SSL_write(client->ssl, text, (int)strlen(text)) == (int)strlen(text), "SSL_write");
}

static void
hang_up(struct tls_client *client)
{
    tls_client_end(client);
    drive();
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
}

static bool
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
static bool
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

/* ------------------------------------------------------------------ claims: bytes */

static void
a_request_is_answered_and_the_end_is_said(void)
{
    SSL_CTX *const both[] = {v12, v13};
    start();
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        struct tls_client client = call(both[i], OWN, "own.test");
        CHECK(go_on(&client, ALL, ALL, is_connected));
        say(&client, "GET /small HTTP/1.1\r\nHost: own.test\r\n\r\n");
        (void)go_on(&client, ALL, ALL, has_heard_all);
        CHECK(strstr(out, "HTTP/1.1 200 OK\r\n") == out && ends_with_file("small", 60) && !client.saw_end);
        out_len = 0;
        say(&client, "GET /middle HTTP/1.1\r\nHost: own.test\r\nConnection: close\r\n\r\n");
        CHECK(go_on(&client, ALL, ALL, has_heard_all)); /* with a close_notify */
        CHECK(strstr(out, "Connection: close\r\n") != NULL && ends_with_file("middle", CHILD_MIDDLE_BYTES));
        (void)tls_pump(&client, ALL, ALL);
        CHECK(client.saw_end);
        hang_up(&client);
    }
    stop();
}

static void
bytes_may_come_one_at_a_time(void)
{
    SSL_CTX *const both[] = {v12, v13};
    start();
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        struct tls_client client = call(both[i], OWN, "own.test");
        CHECK(go_on(&client, 1, 1, is_connected));
        say(&client, "GET /small HTTP/1.1\r\nHost: own.test\r\n\r\nGET /small HTTP/1.1\r\nHost: own.test\r\nConnection: close\r\n\r\n");
        CHECK(go_on(&client, 1, 1, has_heard_all));
        const char *second = strstr(out + 1, "HTTP/1.1 200 OK\r\n");
        CHECK(second != NULL);
        out_len -= second != NULL ? (size_t)(second - out) : 0;
        memmove(out, second != NULL ? second : out, out_len + 1);
        CHECK(ends_with_file("small", 60));
        hang_up(&client);
    }
    stop();
}

/* What a client does not take waits here, bounded, and comes when it does. */
static void
a_client_that_reads_slowly_gets_the_whole_file(void)
{
    SSL_CTX *const both[] = {v12, v13};
    start();
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        struct tls_client client = call_with(both[i], OWN, "own.test", 4096);
        CHECK(go_on(&client, ALL, 700, is_connected));
        say(&client, "GET /big HTTP/1.1\r\nHost: own.test\r\nConnection: close\r\n\r\n");
        (void)go_on(&client, ALL, 0, has_heard_all);
        const struct pc_tls *tls = one.child->chunks[0][0].tls;
        CHECK(tls != NULL && tls->out != NULL && tls->out_len - tls->out_at <= 16384 + 256);
        CHECK(go_on(&client, ALL, 700, has_heard_all));
        CHECK(ends_with_file("big", CHILD_BIG_BYTES));
        hang_up(&client);
    }
    stop();
}

static void
requests_in_one_record_are_all_answered(void)
{
    struct tls_client client;
    char requests[8192] = "";
    int answers = 0;
    start();
    client = call(v13, OWN, "own.test");
    for (int i = 0; i < 100; i++)
        (void)strcat(requests, "GET /small HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK(go_on(&client, ALL, ALL, is_connected));
    say(&client, requests); /* more than a buffer of ours holds, decrypted at once: no event tells of the rest */
    (void)go_on(&client, ALL, ALL, has_heard_all);
    for (const char *at = out; (at = strstr(at, "HTTP/1.1 200 OK\r\n")) != NULL; at++)
        answers++;
    CHECK_EQ(answers, 100);
    hang_up(&client);
    stop();
}

static void
a_goodbye_ends_a_kept_connection(void)
{
    struct tls_client client;
    start();
    client = call(v13, OWN, "own.test");
    CHECK(go_on(&client, ALL, ALL, is_connected));
    say(&client, "GET /small HTTP/1.1\r\nHost: own.test\r\n\r\n");
    (void)SSL_shutdown(client.ssl);
    CHECK(go_on(&client, ALL, ALL, has_heard_all)); /* the answer, then the server's goodbye */
    CHECK(ends_with_file("small", 60));
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
    hang_up(&client);
    stop();
}

static void
a_file_that_was_cut_does_not_look_whole(void)
{
    struct tls_client client;
    char path[128];
    start();
    client = call_with(v13, OWN, "own.test", 4096);
    (void)snprintf(path, sizeof path, "%s/big", one.directory);
    CHECK(go_on(&client, ALL, ALL, is_connected));
    say(&client, "GET /big HTTP/1.0\r\nHost: own.test\r\n\r\n");
    (void)go_on(&client, ALL, 0, has_heard_all);
    child_must(truncate(path, 100) == 0, "truncate");
    CHECK(!go_on(&client, ALL, ALL, has_heard_all)); /* it ends without a close_notify */
    CHECK(client.saw_end && out_len < CHILD_BIG_BYTES);
    hang_up(&client);
    stop();
}

/* ------------------------------------------------------------------ claims: sessions */

static void
a_ticket_is_resumed_also_by_a_successor_but_for_its_name_alone(void)
{
    SSL_CTX *const both[] = {v12, v13};
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        SSL_SESSION *session = NULL;
        start();
        CHECK(!visit(both[i], OWN, "own.test", &session));
        CHECK(visit(both[i], OWN, "own.test", &session));
        struct pc_ticket_keys keys = one.child->tickets;
        stop();
        start();
        CHECK_EQ(SSL_SESSION_get_max_early_data(session), 0);
        SSL_SESSION *strange = SSL_SESSION_dup(session);
        CHECK(!visit(both[i], OWN, "own.test", &strange)); /* other keys: another identity's */
        SSL_SESSION_free(strange);
        one.child->tickets = keys;
        CHECK(visit(both[i], OWN, "own.test", &session));
        for (size_t j = 0; j < 2; j++) { /* another name of the same host, and another host */
            SSL_SESSION *borrowed = SSL_SESSION_dup(session);
            CHECK(!visit(both[i], j == 0 ? OWN : TWO, j == 0 ? "www.own.test" : "two.test", &borrowed));
            SSL_SESSION_free(borrowed);
        }
        one.child->tickets.keys[1] = one.child->tickets.keys[0]; /* renewed */
        memset(&one.child->tickets.keys[0], 7, sizeof keys.keys[0]);
        one.child->tickets.count = 2;
        CHECK(visit(both[i], OWN, "own.test", &session));
        one.child->tickets.count = 1; /* the old one is gone: what it has now was sealed with the new one */
        CHECK(visit(both[i], OWN, "own.test", &session));
        SSL_SESSION_free(session);
        CHECK(child_counter(&one, PC_C_TLS_RESUMED) == 3 && child_counter(&one, PC_C_TLS_HANDSHAKES) == 3);
        stop();
    }
}

/* ------------------------------------------------------------------ claims: who may come in */

static void
the_certificate_is_of_the_kind_that_the_client_can_check(void)
{
    static const struct {
        const char *algorithms;
        int kind;
    } rows[] = {{"ECDSA+SHA256", EVP_PKEY_EC}, {"RSA+SHA256:RSA-PSS+SHA256", EVP_PKEY_RSA}};
    SSL_CTX *const both[] = {v12, v13};
    start();
    for (size_t i = 0; i < 2 * COUNT_OF(rows); i++) {
        struct tls_client client = call(both[i / 2], OWN, "own.test");
        CHECK_EQ(SSL_set1_sigalgs_list(client.ssl, rows[i % 2].algorithms), 1);
        CHECK(go_on(&client, ALL, ALL, is_connected));
        CHECK_EQ(EVP_PKEY_get_base_id(X509_get0_pubkey(SSL_get0_peer_certificate(client.ssl))), rows[i % 2].kind);
        hang_up(&client);
    }
    stop();
}

static void
a_name_that_is_not_the_hosts_is_refused(void)
{
    start();
    struct tls_client client = call(v13, TWO, "own.test"); /* the hello that was looked at had another name */
    (void)go_on(&client, ALL, ALL, is_connected);
    CHECK_EQ(alert, SSL_AD_UNRECOGNIZED_NAME);
    CHECK(logged("[ssl:info]") && logged("AH02008: SSL library error in handshake (server two.test:443)"));
    hang_up(&client);
    client = call(v13, OWN, "nobody.test"); /* the address's first host has all other names */
    CHECK(go_on(&client, ALL, ALL, is_connected));
    say(&client, "GET /small HTTP/1.1\r\nHost: nobody.test\r\nConnection: close\r\n\r\n");
    CHECK(go_on(&client, ALL, ALL, has_heard_all));
    CHECK(strstr(out, "HTTP/1.1 200") == out);
    hang_up(&client);
    stop();
}

struct asked {
    const char *sni, *host;
    int status;
};

static void
check_answers(const struct asked *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char request[256], status[16];
        struct tls_client client = call(v13, OWN, rows[i].sni);
        CHECK(go_on(&client, ALL, ALL, is_connected));
        (void)snprintf(request, sizeof request, "GET /small HTTP/1.1\r\nHost: %s\r\n\r\n", rows[i].host);
        say(&client, request);
        (void)go_on(&client, ALL, ALL, has_heard_all);
        (void)snprintf(status, sizeof status, "HTTP/1.1 %d ", rows[i].status);
        CHECK_FOR(request, strstr(out, status) == out);
        hang_up(&client);
    }
}

static void
a_request_for_another_host_is_misdirected(void)
{
    static const struct asked always[] = {
        {"own.test", "own.test", 200}, {"own.test", "", 200}, {"own.test", "OWN.test:443", 200}, {"own.test", "two.test", 200},
        {"own.test", "www.own.test", 200}, {"own.test", "other.test", 421}, {"own.test", "client.test", 421}, {"own.test", "broken.test", 200},
        {NULL, "two.test", 200}, {NULL, "other.test", 421}, {NULL, "client.test", 421}, {"nobody.test", "nobody.test", 200},
    };
    /* own.test is the address's first host: with the server's table it is known that nobody else has the name. */
    static const struct asked with_table[] = {{"own.test", "nobody.test", 200}, {NULL, "nobody.test", 200}};
    static const struct asked without[] = {{"own.test", "nobody.test", 421}, {NULL, "nobody.test", 421}, {NULL, "192.0.2.1", 200},
                                           {NULL, "[2001:db8::1]", 200}, {"own.test", "192.0.2.1", 421}};
    start();
    check_answers(always, COUNT_OF(always));
    check_answers(with_table, COUNT_OF(with_table));
    CHECK(logged("AH02032: Hostname other.test is not served on the TLS connection to own.test"));
    struct pc_route_map *map = atomic_exchange(&one.child->route, NULL);
    check_answers(always, COUNT_OF(always));
    check_answers(without, COUNT_OF(without));
    one.child->config->hosts[OWN].tls->strict = true;
    const struct asked strict[] = {{NULL, "own.test", 403}, {"own.test", "own.test", 200}};
    check_answers(strict, COUNT_OF(strict));
    atomic_store(&one.child->route, map);
    stop();
}

static void
a_broken_host_refuses_and_says_why(void)
{
    struct tls_client client;
    start();
    CHECK(logged("TLS of broken.test is out of order, its handshakes are refused: its certificate has expired"));
    for (int i = 0; i < 3; i++) {
        client = call(v13, BROKEN, "broken.test");
        (void)go_on(&client, ALL, ALL, is_connected);
        CHECK_EQ(alert, SSL_AD_INTERNAL_ERROR);
        hang_up(&client);
    }
    static char log[65536];
    CHECK(pread(log_fd, log, sizeof log - 1, 0) > 0);
    const char *first = strstr(log, "handshake refused, TLS of broken.test");
    CHECK(first != NULL && strstr(first + 1, "handshake refused, TLS of broken.test") == NULL); /* a line a second */
    client = call(v13, OWN, "own.test");
    CHECK(go_on(&client, ALL, ALL, is_connected));
    hang_up(&client);
    stop();
}

static void
keys_that_do_not_fit_break_their_host_alone(void)
{
    static char encrypted[4096];
    BIO *bio = BIO_new(BIO_s_mem());
    tls_must(PEM_write_bio_PKCS8PrivateKey(bio, own_ec->key, EVP_aes_128_cbc(), "secret", 6, NULL, NULL) == 1, "PEM");
    tls_write(encrypted, sizeof encrypted, bio);
    const struct {
        const char *key, *why;
    } rows[] = {
        {two->key_pem, "own.test is out of order, its handshakes are refused: AH02565: its certificate and its key do not belong together"},
        {encrypted, "its key is encrypted"}, {"nonsense", "its key file holds no private key in PEM"}, {"", "cannot be read, is empty"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        SSL_SESSION *session = NULL;
        start_with(rows[i].key);
        CHECK(logged(rows[i].why));
        struct tls_client client = call(v13, OWN, "own.test");
        (void)go_on(&client, ALL, ALL, is_connected);
        CHECK_EQ(alert, SSL_AD_INTERNAL_ERROR);
        hang_up(&client);
        CHECK(!visit(v13, TWO, "two.test", &session));
        SSL_SESSION_free(session);
        stop();
    }
}

static void
protocols_are_chosen_or_refused(void)
{
    static const struct {
        const char *offer;
        unsigned int len;
        const char *chosen; /* NULL = refused */
        uint32_t protocols; /* 0 = as without Protocols */
    } rows[] = {
        {"\x08http/1.1\x02h2", 12, "h2", PC_PROTOCOL_HTTP_1_1 | PC_PROTOCOL_H2},
        {"\x02h2\x08http/1.1", 12, "http/1.1", PC_PROTOCOL_HTTP_1_1 | PC_PROTOCOL_H2 | PC_PROTOCOL_H1_FIRST},
        {"\x02h2", 3, "h2", PC_PROTOCOL_HTTP_1_1 | PC_PROTOCOL_H2 | PC_PROTOCOL_H1_FIRST},
        {"\x08http/1.1", 9, "http/1.1", 0}, {"\x02h2\x08http/1.1", 12, "http/1.1", 0}, {"\x08http/1.0\x08http/1.1", 18, "http/1.1", 0},
        {"\x03" "ftp", 4, NULL, 0}, {"\x08http/1.0", 9, "http/1.0", 0}, {"\x02h2", 3, NULL, 0},
    };
    start();
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        const unsigned char *chosen = NULL;
        unsigned int len = 0;
        struct tls_client client = call(v13, OWN, "own.test");
        one.child->config->hosts[OWN].protocols = rows[i].protocols != 0 ? rows[i].protocols : PC_PROTOCOL_HTTP_1_1;
        CHECK_EQ(SSL_set_alpn_protos(client.ssl, (const unsigned char *)rows[i].offer, rows[i].len), 0);
        bool is_in = go_on(&client, ALL, ALL, is_connected);
        SSL_get0_alpn_selected(client.ssl, &chosen, &len);
        CHECK_FOR(rows[i].offer, is_in == (rows[i].chosen != NULL));
        if (rows[i].chosen != NULL)
            CHECK_FOR(rows[i].offer, len == strlen(rows[i].chosen) && memcmp(chosen, rows[i].chosen, len) == 0);
        else
            CHECK_EQ(alert, SSL_AD_NO_APPLICATION_PROTOCOL);
        hang_up(&client);
    }
    stop();
}

static bool
comes_in(SSL_CTX *ctx, uint32_t host, const char *name, const struct tls_cert *who, const char *verified)
{
    struct pc_arena arena = {0};
    struct tls_client client = call(ctx, host, name);
    if (who != NULL)
        CHECK(SSL_use_certificate(client.ssl, who->cert) == 1 && SSL_use_PrivateKey(client.ssl, who->key) == 1);
    bool is_in = go_on(&client, ALL, ALL, is_connected);
    (void)go_on(&client, ALL, ALL, has_heard_all); /* in TLS 1.3 the client is through before the server has checked */
    is_in = is_in && !client.saw_end;
    if (is_in) {
        struct pc_conn *conn = &one.child->chunks[0][0];
        struct pc_slice said = pc_tls_fact(conn, PC_S("SSL_CLIENT_VERIFY"), &arena);
        CHECK_FOR(verified, said.len == strlen(verified) && memcmp(said.base, verified, said.len) == 0);
    }
    hang_up(&client);
    pc_arena_free(&arena);
    return is_in;
}

static void
clients_are_asked_who_they_are(void)
{
    SSL_CTX *const both[] = {v12, v13};
    start();
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        CHECK(comes_in(both[i], CLIENT, "client.test", alice, "SUCCESS"));
        CHECK(!comes_in(both[i], CLIENT, "client.test", NULL, ""));
        CHECK(!comes_in(both[i], CLIENT, "client.test", stranger, ""));
        CHECK(comes_in(both[i], FREE, "free.test", NULL, "NONE"));
        CHECK(comes_in(both[i], FREE, "free.test", stranger, "GENEROUS"));
        CHECK(comes_in(both[i], OWN, "own.test", stranger, "NONE")); /* it does not ask */
    }
    stop();
}

/* ------------------------------------------------------------------ claims: what programs and logs are told */

static bool
is_fact(const char *name, const char *want)
{
    struct pc_arena arena = {0};
    struct pc_slice found = pc_tls_fact(&one.child->chunks[0][0], (struct pc_slice){name, strlen(name)}, &arena);
    bool is_it = want == NULL ? found.base == NULL : found.base != NULL && found.len == strlen(want) && memcmp(found.base, want, found.len) == 0;
    if (!is_it)
        printf("%s is %.*s\n", name, (int)found.len, found.len > 0 ? found.base : "");
    pc_arena_free(&arena);
    return is_it;
}

static void
variables_are_mod_ssls(void)
{
    static const struct {
        const char *name, *want; /* NULL = there is none */
    } rows[] = {
        {"HTTPS", "on"}, {"SSL_PROTOCOL", "TLSv1.3"}, {"SSL_CIPHER", "TLS_AES_256_GCM_SHA384"}, {"SSL_CIPHER_USEKEYSIZE", "256"},
        {"SSL_CIPHER_ALGKEYSIZE", "256"}, {"SSL_CIPHER_EXPORT", "false"}, {"SSL_SESSION_RESUMED", "Initial"},
        {"SSL_COMPRESS_METHOD", "NULL"}, {"SSL_TLS_SNI", "client.test"}, {"SSL_CLIENT_VERIFY", "SUCCESS"}, {"SSL_CLIENT_M_VERSION", "3"},
        {"SSL_CLIENT_S_DN", "CN=alice,O=Tests\\, Inc."}, {"SSL_CLIENT_I_DN_CN", "authority"}, {"SSL_CLIENT_S_DN_CN", "alice"},
        {"SSL_CLIENT_S_DN_CN_0", "alice"}, {"SSL_CLIENT_S_DN_CN_1", NULL}, {"SSL_CLIENT_S_DN_O", "Tests, Inc."},
        {"SSL_CLIENT_S_DN_X", NULL}, {"SSL_CLIENT_SAN_DNS_0", "alice"}, {"SSL_CLIENT_SAN_DNS_1", NULL},
        {"SSL_CLIENT_SAN_Email_0", "post@alice"}, {"SSL_CLIENT_A_SIG", "ecdsa-with-SHA256"}, {"SSL_CLIENT_A_KEY", "id-ecPublicKey"},
        {"SSL_CLIENT_V_REMAIN", "29"}, {"SSL_SERVER_S_DN_CN", "client.test"}, {"SSL_SERVER_A_KEY", "id-ecPublicKey"}, {"SSL_NONSENSE", NULL},
        {"SSL_CLIENT_CERT_CHAIN_0", NULL}, {"SSL_CLIENT_CERT_CHAIN_x", NULL}, {"SSL_CLIENT_", NULL}, {"", NULL},
    };
    struct pc_arena arena = {0};
    struct pc_pair *facts;
    start();
    struct tls_client client = call(v13, CLIENT, "client.test");
    CHECK(SSL_use_certificate(client.ssl, alice->cert) == 1 && SSL_use_PrivateKey(client.ssl, alice->key) == 1);
    CHECK(go_on(&client, ALL, ALL, is_connected));
    (void)go_on(&client, ALL, ALL, has_heard_all);
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        CHECK_FOR(rows[i].name, is_fact(rows[i].name, rows[i].want));
    CHECK(is_fact("SSL_CLIENT_CERT", alice->pem) && is_fact("SSL_SERVER_CERT", guard->pem));
    const struct pc_conn *conn = &one.child->chunks[0][0];
    CHECK_EQ(pc_tls_facts(conn, 0, &arena, &facts), 1); /* SSL_TLS_SNI */
    uint32_t count = pc_tls_facts(conn, PC_SSL_STDENVVARS, &arena, &facts);
    CHECK(count > 30 && count < 60);
    CHECK_EQ(pc_tls_facts(conn, PC_SSL_STDENVVARS | PC_SSL_EXPORTCERTDATA, &arena, &facts), count + 2);
    pc_arena_free(&arena);
    hang_up(&client);
    stop();
}

/* ------------------------------------------------------------------ claims: those who mean harm */

static void
a_client_may_leave_at_any_byte(void)
{
    SSL_CTX *const both[] = {v12, v13};
    start();
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        bool was_through = false;
        for (uint64_t most = 0; !was_through; most += 13) {
            struct tls_client client = call(both[i], OWN, "own.test");
            while (client.sent_wire < most && !is_connected(&client) && tls_pump(&client, most - client.sent_wire, ALL))
                drive();
            was_through = is_connected(&client) && client.sent_wire < most;
            hang_up(&client);
        }
    }
    CHECK(child_counter(&one, PC_C_TLS_FAILED) > 20);
    stop();
}

static void
a_handshake_has_its_time_and_no_more(void)
{
    start();
    struct tls_client client = call(v13, OWN, "own.test");
    struct pc_conn *conn = &one.child->chunks[0][0];
    uint64_t due = pc_conn_due(one.child, conn);
    CHECK_EQ(due, worker->now_ns + PC_TLS_HANDSHAKE_MS * MS);
    for (int i = 0; i < 100; i++) {
        (void)is_connected(&client);
        (void)tls_pump(&client, 1, ALL);
        worker->now_ns += 50 * MS;
        drive();
        CHECK_EQ(pc_conn_due(one.child, conn), due);
    }
    pc_conn_sweep(worker, due - 1);
    CHECK_EQ(atomic_load(&one.child->open_count), 1);
    pc_conn_sweep(worker, due + 1);
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
    CHECK(logged("TLS handshake not finished in time"));
    hang_up(&client);
    stop();
}

static void
nobody_negotiates_again(void)
{
    start();
    struct tls_client client = call(v12, OWN, "own.test");
    CHECK(go_on(&client, ALL, ALL, is_connected));
    CHECK_EQ(SSL_renegotiate(client.ssl), 1);
    CHECK(!go_on(&client, ALL, ALL, is_connected));
    CHECK_EQ(child_counter(&one, PC_C_TLS_HANDSHAKES), 1);
    hang_up(&client);
    stop();
}

/* Records that ask for work and carry nothing, from a client that reads nothing. */
static void
a_flood_of_key_updates_ends_the_connection(void)
{
    start();
    struct tls_client client = call_with(v13, OWN, "own.test", 4096);
    CHECK(go_on(&client, ALL, ALL, is_connected));
    say(&client, "GET /big HTTP/1.1\r\nHost: own.test\r\n\r\n");
    (void)go_on(&client, ALL, 0, has_heard_all); /* it takes nothing, so the socket is full */
    for (int i = 0; i < 20000 && atomic_load(&one.child->open_count) > 0; i++) {
        CHECK_EQ(SSL_key_update(client.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        (void)SSL_do_handshake(client.ssl);
        (void)tls_pump(&client, ALL, 0);
        if (i % 50 == 49)
            drive();
        const struct pc_tls *tls = one.child->chunks[0][0].tls;
        CHECK(tls == NULL || tls->out_cap <= 131072);
    }
    pc_conn_sweep(worker, worker->now_ns + 60000 * MS); /* as long as a response waits for its client, nothing is read */
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
    hang_up(&client);
    client = call(v13, OWN, "own.test");
    CHECK(go_on(&client, ALL, ALL, is_connected));
    for (int i = 0; i < 4000; i++) {
        (void)SSL_key_update(client.ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
        (void)SSL_do_handshake(client.ssl);
    }
    while (tls_pump(&client, ALL, 0)) {}
    drive();
    CHECK_EQ(atomic_load(&one.child->open_count), 0); /* one turn, more than any honest client has to say without a request */
    hang_up(&client);
    stop();
}

static void
what_is_no_handshake_is_refused(void)
{
    static const struct {
        const char *bytes;
        size_t len;
    } rows[] = {{"GET / HTTP/1.1\r\nHost: own.test\r\n\r\n", 34}, {"\x16\x03\x01\x00\x04\x01\x00\x00\x00", 9}, {"\x80\x2e\x01\x03\x01", 5},
                {"\x16\x03\x01\xff\xff", 5}, {"\x15\x03\x03\x00\x02\x02\x28", 7}, {"\x17\x03\x03\x00\x01x", 6}};
    start();
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        int fd;
        char answer[64];
        (void)open_conn(OWN, 65536, &fd);
        child_must(send(fd, rows[i].bytes, rows[i].len, MSG_NOSIGNAL) == (ssize_t)rows[i].len, "send");
        drive();
        ssize_t count = recv(fd, answer, sizeof answer, MSG_DONTWAIT);
        CHECK_FOR(rows[i].bytes, count == 0 || (count == 7 && answer[0] == 21) || i == 2 /* of which more may come */);
        child_must(close(fd) == 0, "close");
        drive();
        CHECK_EQ(atomic_load(&one.child->open_count), 0);
    }
    stop();
}

static void
make_certificates(void)
{
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

static void
drop_certificates(void)
{
    struct tls_cert *const all[] = {authority, own_ec, own_rsa, two, guard, free_one, alice, stranger};
    for (size_t i = 0; i < COUNT_OF(all); i++)
        tls_unmake(all[i]);
    SSL_CTX_free(v12);
    SSL_CTX_free(v13);
}

int
main(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
    make_certificates();
    RUN(a_request_is_answered_and_the_end_is_said);
    RUN(bytes_may_come_one_at_a_time);
    RUN(a_client_that_reads_slowly_gets_the_whole_file);
    RUN(requests_in_one_record_are_all_answered);
    RUN(a_goodbye_ends_a_kept_connection);
    RUN(a_file_that_was_cut_does_not_look_whole);
    RUN(a_ticket_is_resumed_also_by_a_successor_but_for_its_name_alone);
    RUN(the_certificate_is_of_the_kind_that_the_client_can_check);
    RUN(a_name_that_is_not_the_hosts_is_refused);
    RUN(a_request_for_another_host_is_misdirected);
    RUN(a_broken_host_refuses_and_says_why);
    RUN(keys_that_do_not_fit_break_their_host_alone);
    RUN(protocols_are_chosen_or_refused);
    RUN(clients_are_asked_who_they_are);
    RUN(variables_are_mod_ssls);
    RUN(a_client_may_leave_at_any_byte);
    RUN(a_handshake_has_its_time_and_no_more);
    RUN(nobody_negotiates_again);
    RUN(a_flood_of_key_updates_ends_the_connection);
    RUN(what_is_no_handshake_is_refused);
    drop_certificates();
    return check_end();
}
