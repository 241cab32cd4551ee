/* test_tls.c - claims about the bytes of TLS connections, as they come or do not: the test is the client, and holds back what it likes.
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

/* Timeout is for a client that takes nothing. This one takes less within it than one record has. */
static void
a_response_that_moves_slowly_goes_on(void)
{
    start();
    struct tls_client client = call_with(v13, OWN, "own.test", 4096);
    CHECK(go_on(&client, ALL, ALL, is_connected));
    say(&client, "GET /big HTTP/1.1\r\nHost: own.test\r\nConnection: close\r\n\r\n");
    (void)go_on(&client, ALL, 0, has_heard_all);
    for (int i = 0; i < 6; i++) {
        worker->now_ns += 15000 * MS;
        pc_conn_sweep(worker, worker->now_ns);
        CHECK_EQ(atomic_load(&one.child->open_count), 1);
        (void)tls_pump(&client, 0, 16384);
        drive();
    }
    CHECK(go_on(&client, ALL, ALL, has_heard_all));
    CHECK(ends_with_file("big", CHILD_BIG_BYTES));
    hang_up(&client);
    client = call_with(v13, OWN, "own.test", 4096);
    CHECK(go_on(&client, ALL, ALL, is_connected));
    say(&client, "GET /big HTTP/1.1\r\nHost: own.test\r\nConnection: close\r\n\r\n");
    (void)go_on(&client, ALL, 0, has_heard_all);
    pc_conn_sweep(worker, worker->now_ns + 21000 * MS);
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
    hang_up(&client);
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

/* A client of which each send of the child's is one message, shaken hands with but for its last flight, which waits in client.out. */
static struct tls_client
call_in_messages(void)
{
    pair_type = SOCK_SEQPACKET;
    struct tls_client client = call(v13, OWN, "own.test");
    CHECK(!is_connected(&client));
    CHECK(tls_pump(&client, ALL, 0));
    drive();
    CHECK(tls_pump(&client, 0, ALL)); /* the whole flight */
    CHECK(!tls_pump(&client, 0, ALL));
    CHECK(is_connected(&client));
    return client;
}

static void
a_ticket_goes_with_the_response_that_is_asked_for_at_once(void)
{
    start();
    struct tls_client client = call_in_messages();
    say(&client, "GET /small HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK(tls_pump(&client, ALL, 0));
    drive();
    CHECK(tls_pump(&client, 0, ALL));
    CHECK(!tls_pump(&client, 0, ALL));
    (void)has_heard_all(&client);
    CHECK(strstr(out, "HTTP/1.1 200 OK\r\n") == out && ends_with_file("small", 60));
    CHECK(SSL_SESSION_has_ticket(SSL_get_session(client.ssl)) == 1);
    hang_up(&client);
    pair_type = SOCK_STREAM;
    stop();
}

static void
a_ticket_waits_for_no_request(void)
{
    start();
    struct tls_client client = call_in_messages();
    CHECK(tls_pump(&client, ALL, 0));
    drive();
    CHECK(tls_pump(&client, 0, ALL));
    (void)has_heard_all(&client);
    CHECK(SSL_SESSION_has_ticket(SSL_get_session(client.ssl)) == 1);
    hang_up(&client);
    pair_type = SOCK_STREAM;
    stop();
}

static void
who_has_gone_without_a_word_is_told_nothing(void)
{
    start();
    struct tls_client client = call_in_messages();
    say(&client, "GET /small HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK(tls_pump(&client, ALL, 0));
    drive();
    CHECK(tls_pump(&client, 0, ALL));
    child_must(shutdown(client.fd, SHUT_WR) == 0, "shutdown");
    drive();
    CHECK(!tls_pump(&client, 0, ALL) && client.saw_end);
    hang_up(&client);
    pair_type = SOCK_STREAM;
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
    CHECK_EQ(child_counter(&one, PC_C_TLS_FAILED), 1);
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
    CHECK_EQ(child_counter(&one, PC_C_TLS_FAILED), COUNT_OF(rows));
    stop();
}

/* Its certificate cannot be used. */
static void
a_handshake_that_is_not_begun_has_failed(void)
{
    int fd;
    start();
    (void)open_conn(BROKEN, 65536, &fd);
    drive();
    CHECK_EQ(child_counter(&one, PC_C_TLS_FAILED), 1);
    child_must(close(fd) == 0, "close");
    drive();
    stop();
}

int
main(void)
{
    begin();
    RUN(a_request_is_answered_and_the_end_is_said);
    RUN(bytes_may_come_one_at_a_time);
    RUN(a_client_that_reads_slowly_gets_the_whole_file);
    RUN(a_response_that_moves_slowly_goes_on);
    RUN(requests_in_one_record_are_all_answered);
    RUN(a_ticket_goes_with_the_response_that_is_asked_for_at_once);
    RUN(a_ticket_waits_for_no_request);
    RUN(who_has_gone_without_a_word_is_told_nothing);
    RUN(a_goodbye_ends_a_kept_connection);
    RUN(a_file_that_was_cut_does_not_look_whole);
    RUN(a_client_may_leave_at_any_byte);
    RUN(a_handshake_has_its_time_and_no_more);
    RUN(nobody_negotiates_again);
    RUN(a_flood_of_key_updates_ends_the_connection);
    RUN(what_is_no_handshake_is_refused);
    RUN(a_handshake_that_is_not_begun_has_failed);
    return end();
}
