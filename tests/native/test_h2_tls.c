/* test_h2_tls.c - claims about HTTP/2 sessions over TLS that a client takes slowly, or not at all: the test holds its bytes back.
 * Runs as:  the developer.   Sees: a directory of its own under /tmp.
 * Trusts:   check.h, tls_serve.h, h2_client.h.   Distrusts: the code under test.
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

static ssize_t tls_put(const void *bytes, size_t len);
static ssize_t tls_take(void *room, size_t len);
#define H2_PUT(fd, bytes, len) tls_put((bytes), (len))
#define H2_TAKE(fd, room, len) tls_take((room), (len))

#include "h2_client.h"

#define RECORDS_BYTES 30000 /* more than one record, and less than what a stream leaves to its session */
#define EARNED_BYTES 16384  /* by a client that has taken something before: all of a short answer is made at once */

static struct h2_client client;
static struct tls_client over;
static size_t most; /* bytes that the client takes in a turn */

static ssize_t
result_of(int done, size_t count)
{
    if (done == 1)
        return (ssize_t)count;
    int why = SSL_get_error(over.ssl, done);
    ERR_clear_error();
    errno = why == SSL_ERROR_WANT_READ ? EAGAIN : ECONNRESET;
    return why == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

static ssize_t
tls_put(const void *bytes, size_t len)
{
    size_t count = 0;
    int done = len > 0 ? SSL_write_ex(over.ssl, bytes, len, &count) : 1;
    return result_of(done, count);
}

static ssize_t
tls_take(void *room, size_t len)
{
    size_t count = 0;
    int done = SSL_read_ex(over.ssl, room, len, &count);
    return result_of(done, count);
}

static void
h2_drive(struct h2_client *of)
{
    (void)tls_pump(&over, ALL, most);
    drive();
    h2_hear(of);
}

static const struct pc_conn *
session(void)
{
    const struct pc_conn *conn = one.child->chunks[0];
    while (conn < one.child->chunks[0] + PC_CONN_CHUNK - 1 && conn->h2 == NULL)
        conn++;
    return conn;
}

/* What has been asked for, behind windows that let all of it through. */
static void
ask(const char *path, uint32_t budget)
{
    const uint8_t settings[6] = {0, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0, 16, 0, 0};
    start();
    child_file(one.directory, "records", RECORDS_BYTES);
    one.child->config->hosts[OWN].protocols = PC_PROTOCOL_H2;
    over = call_with(v13, OWN, "own.test", 4096);
    CHECK_EQ(SSL_set_alpn_protos(over.ssl, (const unsigned char *)"\x02h2", 3), 0);
    CHECK(go_on(&over, ALL, ALL, is_connected));
    most = ALL;
    h2_begin(&client, over.fd);
    (void)h2_frame(&client, NGHTTP2_SETTINGS, 0, 0, settings, sizeof settings);
    (void)h2_number(&client, NGHTTP2_WINDOW_UPDATE, 0, 1 << 20);
    client.initial_window = 1 << 20;
    client.window += 1 << 20;
    h2_drive(&client);
    h2_drive(&client);
    most = 0;
    session()->h2->out_budget = budget;
    (void)h2_get(&client, path);
    h2_drive(&client);
}

static void
pass(uint64_t seconds)
{
    worker->now_ns += seconds * 1000 * MS;
    pc_conn_sweep(worker, worker->now_ns);
    drive();
}

static void
leave(void)
{
    SSL_free(over.ssl);
    h2_end(&client);
    drive();
    stop();
}

/* ------------------------------------------------------------------ claims; a host's Timeout is 20 s here */

/* It takes less within that time than one record has. */
static void
a_session_that_moves_slowly_goes_on(void)
{
    ask("/records", PC_H2_OUT_FIRST_BYTES);
    const struct pc_conn *conn = session();
    CHECK(conn->h2 != NULL && conn->has_unsent && conn->h2->out_len > 0);
    for (int i = 0; i < 2; i++) {
        pass(15);
        CHECK(conn->h2 != NULL);
        most = 16384; /* all that is in the socket */
        h2_drive(&client);
        most = 0;
        CHECK(conn->h2 != NULL && conn->has_unsent && conn->h2->stream_count == (i == 0));
    }
    pass(15);
    most = ALL;
    for (int i = 0; i < 10; i++)
        h2_drive(&client);
    CHECK(h2_answer(&client, 1)->has_ended && h2_answer(&client, 1)->body_len == RECORDS_BYTES);
    leave();
}

static void
a_session_of_which_nothing_is_taken_ends(void)
{
    ask("/records", PC_H2_OUT_FIRST_BYTES);
    pass(15);
    CHECK(session()->h2 != NULL);
    pass(6);
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
    leave();
}

/* All of the answer is with OpenSSL, and what its client says meanwhile makes us say more. */
static void
pings_do_not_keep_a_session_of_which_nothing_is_taken(void)
{
    ask("/middle", EARNED_BYTES);
    const struct pc_conn *conn = session();
    one.child->config->hosts[OWN].keep_alive_ms = 60000;
    CHECK(conn->h2 != NULL && conn->has_unsent && conn->h2->out_len == 0);
    pass(15);
    (void)h2_frame(&client, NGHTTP2_PING, 0, 0, "12345678", 8);
    h2_drive(&client);
    CHECK(conn->h2 != NULL && conn->h2->out_len > 0);
    pass(6);
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
    leave();
}

int
main(void)
{
    begin();
    RUN(a_session_that_moves_slowly_goes_on);
    RUN(a_session_of_which_nothing_is_taken_ends);
    RUN(pings_do_not_keep_a_session_of_which_nothing_is_taken);
    return end();
}
