/* test_h2_back.c - claims about HTTP/2 streams that a back end answers: client and back end are the test, frame by frame, and no time passes
 * but the test's.
 * Runs as:  the developer.   Sees: a directory of its own under /tmp, and a port of 127.0.0.1.
 * Trusts:   check.h, h2_client.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c map.c mime.c page.c peek.c record.c regex.c request.c remoteip.c respond.c route.c serve.c settings.c tlv.c */
/* sources: transport.c uri.c util.c why.c wild.c gate.c gate_answer.c trailer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c dial.c kept.c knock.c target.c gate_http.c h1out.c proxy.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c phpini.c hello.c */
/* sources: tls.c tls_ctx.c pem.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* flags: -D_GNU_SOURCE */
/* libs: -lnghttp2 */
/* libs: -lpcre2-8 -lssl -lcrypto -Wl,--wrap=pc_now_ns -Wl,--wrap=pc_child_wake -Wl,--wrap=pc_env_get */
#include "loop.c" /* for handle_event, tick */

#include "http_case.h"
#include "h2_client.h"

static struct h2_client client;

static void
h2_drive(struct h2_client *of)
{
    drive();
    h2_hear(of);
}

static void
settle(void)
{
    for (size_t before = SIZE_MAX; before != client.body_bytes + client.raw_len;) {
        before = client.body_bytes + client.raw_len;
        h2_drive(&client);
    }
}

static void
start(int room)
{
    clear_log();
    h2_begin(&client, open_client(room));
    settle();
    CHECK(client.has_settings && client.settings_acks == 1);
}

/* A request that the back end has read. Returns the socket that the back end answers it on. */
static int
reach(int listener, int32_t *ret_id)
{
    *ret_id = h2_get(&client, "/http/x");
    settle();
    int back = take_connection(listener);
    (void)take(back);
    return back;
}

/* The client goes, and then the back end. */
static void
stop(int back)
{
    h2_end(&client);
    drive();
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
    CHECK_EQ(child_counter(&one, PC_C_CONNECTIONS), 0);
    let_go();
    hang_up(back);
}

/* ------------------------------------------------------------------ claims: interim responses */

#define HINTS "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: X-Hop\r\nX-Hop:1\r\nX-End:2\r\nContent-Length: 7\r\n\r\n"

static void
early_hints_go_to_streams_if_the_configuration_says_so(void)
{
    static const char both[] = ":status: 103\nlink: </a.css>; rel=preload\nx-end: 2\n:status: 102\n";
    static const struct { uint32_t is_on; const char *policy, *heard; } rows[] = {
        {0, NULL, ":status: 102\n"}, {1, NULL, both}, {1, "RFC", both}, {1, "Suppress", ""},
    };
    int listener = open_listener("http.sock", 8);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        one.child->config->h2.early_hints = rows[i].is_on;
        interim_policy = rows[i].policy;
        start(1 << 20);
        int32_t id;
        int back = reach(listener, &id);
        put(back, HINTS "HTTP/1.1 102 \r\n\r\n");
        settle();
        CHECK_FOR(rows[i].heard, strcmp(h2_answer(&client, id)->interim_fields, rows[i].heard) == 0);
        CHECK(!h2_answer(&client, id)->has_head);
        put(back, OK);
        settle();
        CHECK(h2_answer(&client, id)->status == 200 && h2_answer(&client, id)->has_ended && h2_answer(&client, id)->body_len == 2);
        CHECK_FOR(rows[i].heard, strcmp(h2_answer(&client, id)->interim_fields, rows[i].heard) == 0);
        stop(back);
    }
    one.child->config->h2.early_hints = 0;
    interim_policy = NULL;
    close_listener(listener, "http.sock");
}

/* All of them at once, and the answer behind them: in their order, as many as a session shall hold. */
static void
hints_are_a_bounded_part_of_a_stream(void)
{
    static char large[5000], text[40000];
    int listener = open_listener("http.sock", 8);
    memset(large, 'x', sizeof large - 1);
    one.child->config->h2.early_hints = 1;
    start(1 << 20);
    int32_t id = h2_get(&client, "/http/x"), other = h2_get(&client, "/small");
    settle();
    int back = take_connection(listener);
    (void)take(back);
    (void)snprintf(text, sizeof text, "HTTP/1.1 103 \r\nX-A: 1\r\n\r\nHTTP/1.1 103 \r\nL: %s\r\n\r\nHTTP/1.1 103 \r\nM: %s\r\n\r\nHTTP/1.1 103 \r\nX-B: 2\r\n\r\n" OK,
                   large, large);
    put(back, text);
    settle();
    const struct h2_answer *answer = h2_answer(&client, id);
    CHECK(answer->has_ended && answer->status == 200 && answer->interim == 3);
    CHECK(strncmp(answer->interim_fields, ":status: 103\nx-a: 1\n:status: 103\nl: xxx", 39) == 0);
    CHECK(h2_answer(&client, other)->has_ended);
    stop(back);
    one.child->config->h2.early_hints = 0;
    close_listener(listener, "http.sock");
}

/* Its socket takes nothing: hints are left out, and the answer comes when it does. */
static void
hints_are_not_kept_for_a_client_that_takes_nothing(void)
{
    int listener = open_listener("http.sock", 8);
    one.child->config->h2.early_hints = 1;
    start(4096);
    int32_t big = h2_get(&client, "/big"), id = h2_get(&client, "/http/x");
    drive();
    int back = take_connection(listener);
    (void)take(back);
    for (int i = 0; i < 40; i++)
        put(back, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
    put(back, OK);
    CHECK(!h2_answer(&client, big)->has_ended);
    settle();
    client.window += 1000;
    (void)h2_number(&client, NGHTTP2_WINDOW_UPDATE, 0, 1000);
    settle();
    CHECK_EQ(h2_answer(&client, id)->interim, 0);
    CHECK(h2_answer(&client, id)->has_ended && h2_answer(&client, id)->status == 200);
    stop(back);
    one.child->config->h2.early_hints = 0;
    close_listener(listener, "http.sock");
}

/* More fields than go into one block of HTTP/2: the stream is reset at once, and others go on. */
static void
a_head_that_cannot_be_sent_resets_its_stream(void)
{
    static char text[70000], value[701];
    int listener = open_listener("http.sock", 8);
    memset(value, 'x', sizeof value - 1);
    size_t len = (size_t)snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n");
    for (int i = 0; i < 92; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "X-%d: %s\r\n", i, value);
    (void)snprintf(text + len, sizeof text - len, "\r\n");
    start(1 << 20);
    int32_t id;
    int back = reach(listener, &id);
    put(back, text);
    settle();
    CHECK(h2_answer(&client, id)->is_reset && h2_answer(&client, id)->reset_code == NGHTTP2_INTERNAL_ERROR);
    int32_t other = h2_get(&client, "/small");
    settle();
    CHECK(h2_answer(&client, other)->has_ended && !client.has_goaway);
    stop(back);
    close_listener(listener, "http.sock");
}

/* ------------------------------------------------------------------ claims: trailers */

#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, TE\r\n\r\n"

static void
trailers_end_their_stream(void)
{
    static const struct { const char *body; size_t len; } rows[] = {{"", 0}, {"2\r\nab\r\n", 2}, {"1\r\na\r\n1\r\nb\r\n", 2}};
    int listener = open_listener("http.sock", 8);
    for (size_t i = 0; i < 2 * COUNT_OF(rows); i++) {
        start(1 << 20);
        int32_t id = h2_get(&client, "/http/x");
        settle();
        int back = take_connection(listener);
        CHECK(strstr(take(back), "\r\nTE: trailers\r\nConnection: TE\r\n\r\n") != NULL);
        put(back, CHUNKED);
        if (i % 2 == 1)
            settle();
        put(back, rows[i / 2].body);
        put(back, "0\r\nX-Sum:  1 \r\nGrpc-Status: 0\r\nConnection: x\r\nTransfer-Encoding: chunked\r\nUpgrade: x\r\n");
        settle();
        CHECK(!h2_answer(&client, id)->has_ended && h2_answer(&client, id)->body_len == rows[i / 2].len);
        put(back, "Keep-Alive: x\r\nDate: x\r\n\r\n");
        settle();
        CHECK(strstr(h2_answer(&client, id)->fields, "\ntrailer: X-Sum\n") != NULL);
        CHECK(h2_answer(&client, id)->has_ended && !h2_answer(&client, id)->is_reset && h2_answer(&client, id)->body_len == rows[i / 2].len);
        CHECK_FOR(h2_answer(&client, id)->trailers, strcmp(h2_answer(&client, id)->trailers, "x-sum: 1\ngrpc-status: 0\n") == 0);
        CHECK_EQ(kept(), 1);
        stop(back);
    }
    close_listener(listener, "http.sock");
}

/* Its window is shut: trailers wait behind the body, and only there. */
static void
trailers_wait_for_the_body_in_front_of_them(void)
{
    static char body[100000];
    int listener = open_listener("http.sock", 8);
    start(1 << 20);
    int32_t id;
    int back = reach(listener, &id);
    put(back, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n");
    for (size_t at = 0; at < sizeof body;) {
        ssize_t count = send(back, body + at, sizeof body - at, MSG_NOSIGNAL);
        child_must(count > 0 || errno == EAGAIN, "send");
        at += count > 0 ? (size_t)count : 0;
        settle();
    }
    put(back, "\r\n0\r\nX-Sum: 1\r\n\r\n");
    settle();
    CHECK(h2_answer(&client, id)->body_len == 65535 && !h2_answer(&client, id)->has_ended && h2_answer(&client, id)->trailers[0] == '\0');
    client.window += 1 << 20;
    h2_answer(&client, id)->window += 1 << 20;
    (void)h2_number(&client, NGHTTP2_WINDOW_UPDATE, 0, 1 << 20);
    (void)h2_number(&client, NGHTTP2_WINDOW_UPDATE, (uint32_t)id, 1 << 20);
    settle();
    CHECK(h2_answer(&client, id)->body_len == sizeof body && h2_answer(&client, id)->has_ended);
    CHECK(strcmp(h2_answer(&client, id)->trailers, "x-sum: 1\n") == 0);
    stop(back);
    close_listener(listener, "http.sock");
}

/* Those that are malformed reset their stream, and no other; a client that goes while they wait leaves nothing behind. */
static void
bad_trailers_reset_their_stream(void)
{
    int listener = open_listener("http.sock", 8);
    start(1 << 20);
    int32_t id;
    int back = reach(listener, &id);
    put(back, CHUNKED "2\r\nab\r\n0\r\nX-Sum : 1\r\n\r\n");
    settle();
    CHECK(h2_answer(&client, id)->is_reset && h2_answer(&client, id)->reset_code == NGHTTP2_INTERNAL_ERROR);
    CHECK(h2_answer(&client, id)->trailers[0] == '\0' && has_hung_up(back) && kept() == 0);
    hang_up(back);
    int32_t other = h2_get(&client, "/small");
    settle();
    CHECK(h2_answer(&client, other)->has_ended && !client.has_goaway);
    client.initial_window = 0;
    (void)h2_frame(&client, NGHTTP2_SETTINGS, 0, 0, "\0\4\0\0\0\0", 6);
    back = reach(listener, &id);
    put(back, CHUNKED "2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n");
    settle();
    CHECK(h2_answer(&client, id)->has_head && !h2_answer(&client, id)->has_ended && h2_answer(&client, id)->body_len == 0);
    stop(back);
    close_listener(listener, "http.sock");
}

/* A request's own: they count, and none of them goes on; too many, or what only a head has, reset the stream. */
static void
a_requests_trailers_end_here(void)
{
    static struct h2_field many[PC_MAX_TRAILER_FIELDS + 1];
    static char value[PC_MAX_TRAILER_BYTES];
    uint8_t block[16384];
    memset(value, 'x', sizeof value - 1);
    for (size_t i = 0; i < COUNT_OF(many); i++)
        many[i] = (struct h2_field){"x-a", "1"};
    const struct { struct h2_field field[1]; size_t count; bool passes; } rows[] = {
        {{{"x-sum", "1"}}, 1, true}, {{{":path", "/"}}, 1, false}, {{{":status", "200"}}, 1, false}, {{{"transfer-encoding", "chunked"}}, 1, false},
        {{{"x-big", value}}, 1, false}, {{{NULL, NULL}}, PC_MAX_TRAILER_FIELDS, true}, {{{NULL, NULL}}, PC_MAX_TRAILER_FIELDS + 1, false},
    };
    int listener = open_listener("http.sock", 8);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        start(1 << 20);
        int32_t id = h2_ask(&client, "POST", "/http/x", "own.test", true);
        (void)h2_data(&client, id, "abc", 3, false);
        settle();
        int back = take_connection(listener);
        CHECK(strstr(take(back), "\r\n\r\n3\r\nabc") != NULL);
        size_t len = h2_pack(&client, rows[i].field[0].name != NULL ? rows[i].field : many, rows[i].count, block, sizeof block);
        (void)h2_frame(&client, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, (uint32_t)id, block, len);
        settle();
        CHECK_FOR(rows[i].field[0].name, h2_answer(&client, id)->is_reset == !rows[i].passes && !client.has_goaway);
        CHECK_FOR(rows[i].field[0].name, strcmp(take(back), rows[i].passes ? "\r\n0\r\n\r\n" : "") == 0);
        if (rows[i].passes) {
            put(back, OK);
            settle();
            CHECK(h2_answer(&client, id)->status == 200 && h2_answer(&client, id)->has_ended);
        }
        stop(back);
    }
    close_listener(listener, "http.sock");
}

int
main(void)
{
    http_open();
    RUN(early_hints_go_to_streams_if_the_configuration_says_so);
    RUN(hints_are_a_bounded_part_of_a_stream);
    RUN(hints_are_not_kept_for_a_client_that_takes_nothing);
    RUN(a_head_that_cannot_be_sent_resets_its_stream);
    RUN(trailers_end_their_stream);
    RUN(trailers_wait_for_the_body_in_front_of_them);
    RUN(bad_trailers_reset_their_stream);
    RUN(a_requests_trailers_end_here);
    return http_close();
}
