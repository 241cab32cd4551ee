/* test_tls_hosts.c - claims about TLS hosts: sessions, certificates, names, protocols; who is let in, and who is told why not.
 * Runs as:  the developer.   Sees: a directory of its own under /tmp.
 * Trusts:   check.h, tls_serve.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c map.c mime.c page.c peek.c record.c regex.c request.c respond.c route.c serve.c settings.c tlv.c */
/* sources: transport.c uri.c util.c why.c wild.c gate.c gate_answer.c trailer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c dial.c kept.c knock.c target.c gate_http.c h1out.c proxy.c remoteip.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c hello.c phpini.c */
/* sources: tls.c tls_ctx.c pem.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* libs: -lnghttp2 */
/* flags: -D_GNU_SOURCE */
/* libs: -lpcre2-8 -lssl -lcrypto */
#include "tls_serve.h"

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

int
main(void)
{
    begin();
    RUN(a_ticket_is_resumed_also_by_a_successor_but_for_its_name_alone);
    RUN(the_certificate_is_of_the_kind_that_the_client_can_check);
    RUN(a_name_that_is_not_the_hosts_is_refused);
    RUN(a_request_for_another_host_is_misdirected);
    RUN(a_broken_host_refuses_and_says_why);
    RUN(keys_that_do_not_fit_break_their_host_alone);
    RUN(protocols_are_chosen_or_refused);
    return end();
}
