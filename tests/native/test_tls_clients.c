/* test_tls_clients.c - claims about clients' certificates: who is asked for one, and what programs and logs are told.
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

/* ------------------------------------------------------------------ claims: who may come in */

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

static void
revoked_certificates_are_refused(void)
{
    static char none[2048], of_alice[2048], ended[2048], others[2048];
    tls_revoke(authority, NULL, 3600, none, sizeof none);
    tls_revoke(authority, alice, 3600, of_alice, sizeof of_alice);
    tls_revoke(authority, NULL, -3600, ended, sizeof ended);
    tls_revoke(stranger, NULL, 3600, others, sizeof others);
    const struct {
        const char *list;
        uint32_t check;
        bool is_let_in;
        const char *why;
    } rows[] = {
        {of_alice, 0, true, NULL}, {none, PC_CRL_LEAF, true, NULL}, {none, PC_CRL_LEAF | PC_CRL_CHAIN, true, NULL},
        {of_alice, PC_CRL_LEAF, false, "certificate revoked"}, {of_alice, PC_CRL_LEAF | PC_CRL_MISSING_OK, false, "certificate revoked"},
        {ended, PC_CRL_LEAF, false, "CRL has expired"}, {others, PC_CRL_LEAF, false, "unable to get certificate CRL"},
        {others, PC_CRL_LEAF | PC_CRL_MISSING_OK, true, NULL},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        crl = rows[i].list;
        crl_check = rows[i].check;
        start();
        CHECK_FOR(rows[i].why != NULL ? rows[i].why : "in", comes_in(v13, CLIENT, "client.test", alice, "SUCCESS") == rows[i].is_let_in);
        CHECK(rows[i].why == NULL || logged(rows[i].why));
        stop();
    }
    crl = "-----BEGIN X509 CRL-----\nMAAA\n-----END X509 CRL-----\n";
    crl_check = PC_CRL_LEAF;
    start();
    CHECK(logged("TLS of client.test is out of order, its handshakes are refused: SSLCARevocationFile or SSLCARevocationPath has a list"));
    CHECK(!comes_in(v13, CLIENT, "client.test", alice, ""));
    stop();
    crl = NULL;
    crl_check = 0;
}

/* A session that was made before the list changed is none any more. */
static void
a_new_list_ends_old_sessions(void)
{
    static char none[2048], of_alice[2048];
    SSL_SESSION *session = NULL;
    tls_revoke(authority, NULL, 3600, none, sizeof none);
    tls_revoke(authority, alice, 3600, of_alice, sizeof of_alice);
    crl = none;
    crl_check = PC_CRL_LEAF;
    SSL_CTX *ctx = tls_client_ctx(TLS1_3_VERSION);
    CHECK(SSL_CTX_use_certificate(ctx, alice->cert) == 1 && SSL_CTX_use_PrivateKey(ctx, alice->key) == 1);
    start();
    CHECK(!visit(ctx, CLIENT, "client.test", &session) && visit(ctx, CLIENT, "client.test", &session));
    struct pc_ticket_keys keys = one.child->tickets;
    stop();
    crl = of_alice;
    start();
    one.child->tickets = keys;
    struct tls_client client = call(ctx, CLIENT, "client.test");
    CHECK_EQ(SSL_set_session(client.ssl, session), 1);
    (void)go_on(&client, ALL, ALL, is_connected);
    (void)go_on(&client, ALL, ALL, has_heard_all);
    CHECK_EQ(alert, SSL_AD_CERTIFICATE_REVOKED);
    hang_up(&client);
    stop();
    SSL_SESSION_free(session);
    SSL_CTX_free(ctx);
    crl = NULL;
    crl_check = 0;
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

int
main(void)
{
    begin();
    RUN(clients_are_asked_who_they_are);
    RUN(revoked_certificates_are_refused);
    RUN(a_new_list_ends_old_sessions);
    RUN(variables_are_mod_ssls);
    return end();
}
