/* test_gate_http.c - claims about gate_http.c: what goes to a back end and what comes of its answer. The test is client, runner and back
 * end at once, so every order of events is its own, and no time passes but the test's.
 * Runs as:  the developer.   Sees: a directory of its own under /tmp, and a port of 127.0.0.1.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c map.c mime.c page.c peek.c record.c regex.c request.c remoteip.c respond.c route.c serve.c settings.c tlv.c */
/* sources: transport.c uri.c util.c why.c wild.c gate.c gate_answer.c trailer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c dial.c kept.c knock.c target.c gate_http.c h1out.c proxy.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c phpini.c hello.c */
/* flags: -D_GNU_SOURCE */
/* sources: tls.c tls_ctx.c pem.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* libs: -lnghttp2 */
/* libs: -lpcre2-8 -lssl -lcrypto -Wl,--wrap=pc_now_ns -Wl,--wrap=pc_child_wake -Wl,--wrap=pc_env_get */
#include "loop.c" /* for handle_event, tick */

#include "http_case.h"

/* ------------------------------------------------------------------ claims: the answer */

static void
answers_come_whole_however_they_are_framed_and_cut(void)
{
    static const struct { const char *said, *heard; bool is_kept, ends; } rows[] = {
        {OK, "Content-Length: 2\r\n\r\nok", true, false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nT: v\r\n\r\n", "c\r\n0\r\n\r\n", true, false},
        {"HTTP/1.1 200 OK\r\n\r\nto the end", "0\r\n\r\n", false, true},
        {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "\r\n\r\nok", false, false},
        {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", "\r\n\r\nok", true, false},
        {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "\r\n\r\nok", false, false},
        {"HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\r\n", true, false},
        {"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "HTTP/1.1 304 Not Modified\r\n", true, false},
        {"HTTP/1.1 100 Continue\r\n\r\n" OK, "Content-Length: 2\r\n\r\nok", true, false},
        {OK "and more", "Content-Length: 2\r\n\r\nok", false, false},
    };
    int listener = open_listener("http.sock", 8);
    for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
        size_t row = i / 2, len = strlen(rows[row].said), piece = i % 2 == 0 ? len : 1;
        int fd = send_request(GET("/http/x")), back = take_connection(listener);
        CHECK_FOR(rows[row].said, strncmp(take(back), "GET /srv/x HTTP/1.1\r\n", 21) == 0);
        for (size_t at = 0; at < len; at += piece) {
            ssize_t sent = send(back, rows[row].said + at, piece, MSG_NOSIGNAL);
            child_must(sent == (ssize_t)piece || errno == EPIPE, "send"); /* it hangs up on what nobody asked for */
            drive();
        }
        if (rows[row].ends)
            hang_up(back);
        receive(fd);
        CHECK_FOR(rows[row].said, strstr(out, rows[row].heard) != NULL && strstr(out, "more") == NULL && !client_saw_end);
        if (strstr(rows[row].said, "more") == NULL || piece > 1) /* bytes that come later are found when it is used again */
            CHECK_FOR(rows[row].said, kept() == (rows[row].is_kept ? 1u : 0u));
        let_go();
        if (!rows[row].ends) {
            CHECK_FOR(rows[row].said, has_hung_up(back));
            hang_up(back);
        }
        close_client(fd);
    }
    close_listener(listener, "http.sock");
}

static void
heads_that_break_a_rule_are_502(void)
{
    static const char *const heads[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "220 mail.test ESMTP\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Half: he", "H", SWITCH,
    };
    int listener = open_listener("http.sock", 8);
    for (size_t i = 0; i < COUNT_OF(heads); i++) {
        int fd = send_request(GET("/http/x")), back = take_connection(listener);
        put(back, heads[i]);
        hang_up(back);
        receive(fd);
        CHECK_FOR(heads[i], strncmp(out, "HTTP/1.1 502 ", 13) == 0 && strstr(out, "X-Half") == NULL && kept() == 0);
        CHECK_FOR(heads[i], take_connection(listener) < 0); /* it had begun to answer: it is not asked again */
        close_client(fd);
    }
    close_listener(listener, "http.sock");
}

static void
a_back_end_that_goes_within_its_answer_cuts_it(void)
{
    static const char *const parts[] = {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
                                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc"};
    int listener = open_listener("http.sock", 8);
    for (size_t i = 0; i < 4; i++) {
        int fd = send_request(GET("/http/x")), back = take_connection(listener);
        if (i > 0) /* else its system says that there was more to read, by a reset */
            (void)take(back);
        put(back, parts[i / 2]);
        CHECK(heard(fd, "abc") && !client_saw_end);
        hang_up(back);
        receive(fd);
        CHECK(client_saw_end && strstr(out, "\r\n0\r\n") == NULL);
        CHECK(log_says(i == 0 ? "AH01110: error reading response: the connection to " : "the answer ended before its "));
        close_client(fd);
    }
    close_listener(listener, "http.sock");
}

/* ------------------------------------------------------------------ claims: trailers */

#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
#define ASK(fields) "GET /http/x HTTP/1.1\r\nHost: own.test\r\n" fields "\r\n"

static void
trailers_go_to_clients_that_take_them(void)
{
    static const struct { const char *request; bool is_asked; } rows[] = {
        {ASK("TE: trailers\r\nConnection: TE\r\n"), true}, {ASK("TE: gzip;q=0.5 , Trailers\r\n"), true}, {ASK("TE: gzip\r\nTE: trailers\r\n"), true},
        {ASK(""), false}, {ASK("TE: trailers2, \"trailers\"\r\n"), false}, {ASK("TE:\r\n"), false}, {ASK("X-TE: trailers\r\n"), false},
    };
    static const char said[] = CHUNKED "Trailer: X-Sum, Content-Length, X-Hop,, X_2\r\nConnection: X-Hop\r\n\r\n2\r\nab\r\n0\r\nX-Sum:  1 \r\n"
                               "Content-Length: 9\r\nX-Hop: 1\r\nSet-Cookie: a=b\r\nx_2:\r\n\r\n";
    int listener = open_listener("http.sock", 8);
    for (size_t i = 0; i < 2 * COUNT_OF(rows); i++) {
        size_t row = i / 2, len = strlen(said), piece = i % 2 == 0 ? len : 1;
        int fd = send_request(rows[row].request), back = take_connection(listener);
        CHECK_FOR(rows[row].request, (strstr(take(back), "\r\nTE: trailers\r\nConnection: TE\r\n\r\n") != NULL) == rows[row].is_asked);
        for (size_t at = 0; at < len; at += piece) {
            child_must(send(back, said + at, piece, MSG_NOSIGNAL) == (ssize_t)piece, "send");
            drive();
        }
        receive(fd);
        CHECK_FOR(rows[row].request, (strstr(out, "\r\nTrailer: X-Sum, X_2\r\n") != NULL) == rows[row].is_asked);
        CHECK_FOR(rows[row].request, strstr(out, rows[row].is_asked ? "b\r\n0\r\nX-Sum: 1\r\nx_2: \r\n\r\n" : "b\r\n0\r\n\r\n") != NULL);
        CHECK_FOR(rows[row].request, kept() == 1 && !client_saw_end);
        out_len = 0;
        say(fd, GET("/small"));
        CHECK(heard(fd, "Content-Length: 60\r\n"));
        let_go();
        hang_up(back);
        close_client(fd);
    }
    close_listener(listener, "http.sock");
}

/* Where there is no chunked body to put them behind: nobody asks for them, and what comes all the same is left out. */
static void
trailers_stay_where_an_answer_has_no_place_for_them(void)
{
    static const char *const requests[] = {
        "HEAD /http/x HTTP/1.1\r\nHost: own.test\r\nTE: trailers\r\n\r\n", "GET /http/x HTTP/1.0\r\nHost: own.test\r\nTE: trailers\r\n\r\n",
    };
    int listener = open_listener("http.sock", 8);
    for (size_t i = 0; i < COUNT_OF(requests); i++) {
        int fd = send_request(requests[i]), back = take_connection(listener);
        CHECK_FOR(requests[i], strstr(take(back), "\r\nTE:") == NULL);
        put(back, i == 0 ? CHUNKED "Trailer: X-Sum\r\n\r\n" : CHUNKED "Trailer: X-Sum\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n");
        receive(fd);
        CHECK_FOR(requests[i], strstr(out, "X-Sum") == NULL && strstr(out, i == 0 ? "\r\n\r\n" : "\r\n\r\nab") != NULL && kept() == 1);
        let_go();
        hang_up(back);
        close_client(fd);
    }
    close_listener(listener, "http.sock");
}

/* The last chunk is not sent, the client's connection ends, and that to the back end, too. */
static void
bad_trailers_cut_the_answer(void)
{
    static char much[PC_MAX_TRAILER_BYTES + 32], many[8 * PC_MAX_TRAILER_FIELDS + 64];
    const char *const rows[] = {
        "X-Sum\r\n\r\n", "X-Sum : 1\r\n\r\n", " X: 1\r\n\r\n", "X: a\n\r\n", "X: \1\r\n\r\n", ": 1\r\n\r\n", "X: 1\r\n\rX", ":status: 200\r\n\r\n", much, many,
    };
    memset(much, 'x', sizeof much - 1);
    memcpy(much, "X:", 2);
    for (unsigned i = 0, len = 0; i <= PC_MAX_TRAILER_FIELDS; i++)
        len += (unsigned)snprintf(many + len, sizeof many - len, "a:%u\r\n", i % 10);
    int listener = open_listener("http.sock", 8);
    for (size_t i = 0; i < 2 * COUNT_OF(rows); i++) {
        const char *row = rows[i / 2];
        int fd = send_request(i % 2 == 0 ? ASK("") : ASK("TE: trailers\r\n")), back = take_connection(listener);
        (void)take(back);
        put(back, CHUNKED "\r\n2\r\nab\r\n0\r\n");
        CHECK_FOR(row, heard(fd, "ab\r\n") && !client_saw_end);
        put(back, row);
        receive(fd);
        CHECK_FOR(row, client_saw_end && strstr(out, "\r\n0\r\n") == NULL && has_hung_up(back) && kept() == 0);
        CHECK_FOR(row, log_says("or trailers that are malformed or too long"));
        hang_up(back);
        close_client(fd);
    }
    close_listener(listener, "http.sock");
}

/* As large as they may be, and in two parts. */
static void
long_trailers_come_whole(void)
{
    static char text[PC_MAX_TRAILER_BYTES + 64];
    int listener = open_listener("http.sock", 8);
    int fd = send_request(ASK("TE: trailers\r\n")), back = take_connection(listener);
    (void)take(back);
    size_t len = (size_t)snprintf(text, sizeof text, "X-A: 1\r\nX-B:");
    memset(text + len, 'b', PC_MAX_TRAILER_BYTES - len - 3);
    memcpy(text + PC_MAX_TRAILER_BYTES - 3, "\r\n\r\n", 5);
    put(back, CHUNKED "\r\n2\r\nab\r\n0\r\nX-A");
    put(back, text + 3);
    receive(fd);
    char *found = strstr(out, "\r\n0\r\nX-A: 1\r\nX-B: bbb");
    CHECK(found != NULL && strspn(found + 18, "b") == PC_MAX_TRAILER_BYTES - len - 3 && !client_saw_end && kept() == 1);
    let_go();
    hang_up(back);
    close_client(fd);
    close_listener(listener, "http.sock");
}

/* ------------------------------------------------------------------ claims: the request's body */

static void
bodies_are_framed_anew(void)
{
    int listener = open_listener("http.sock", 8);
    int fd = send_request("POST /http/x HTTP/1.1\r\nHost: own.test\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n");
    int back = take_connection(listener);
    const char *came = take(back);
    CHECK(strstr(came, "\r\nTransfer-Encoding: chunked\r\n") != NULL && strstr(came, "\r\n\r\n3\r\nabc") != NULL && strstr(came, "x=y") == NULL);
    say(fd, "2\r\nde\r\n0\r\nT: v\r\n\r\n" GET("/small"));
    CHECK(strcmp(take(back), "\r\n2\r\nde\r\n0\r\n\r\n") == 0);
    put(back, OK);
    CHECK(heard(fd, "\r\n\r\nokHTTP/1.1 200 OK\r\n") && heard(fd, "Content-Length: 60\r\n"));
    CHECK_EQ(kept(), 1);
    out_len = 0;
    /* A body is never sent on a kept connection: whether one that breaks had it all cannot be known. */
    say(fd, "POST /http/y HTTP/1.1\r\nHost: own.test\r\nContent-Length: 4\r\n\r\nbody");
    int other = take_connection(listener);
    CHECK(other >= 0 && strstr(take(other), "\r\nContent-Length: 4\r\n\r\nbody") != NULL);
    put(other, OK);
    CHECK(heard(fd, "ok"));
    CHECK_EQ(kept(), 2);
    let_go();
    hang_up(back);
    hang_up(other);
    close_client(fd);
    close_listener(listener, "http.sock");
}

static void
a_client_hears_100_once_and_from_us(void)
{
    int listener = open_listener("http.sock", 8);
    int fd = send_request("POST /http/x HTTP/1.1\r\nHost: own.test\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    int back = take_connection(listener);
    CHECK(strstr(take(back), "Expect") == NULL);
    put(back, "HTTP/1.1 100 Continue\r\n\r\n");
    say(fd, "hi");
    CHECK(strcmp(take(back), "hi") == 0);
    put(back, OK);
    CHECK(heard(fd, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n") && strstr(out + 1, "100 Continue") == strstr(out, "100 Continue"));
    let_go();
    hang_up(back);
    close_client(fd);
    close_listener(listener, "http.sock");
}

/* It may answer before it has the request: a refusal, mostly. */
static void
an_answer_before_the_body_is_heard_and_the_connections_end(void)
{
    static char piece[8192];
    int listener = open_listener("http.sock", 8);
    for (int closes = 0; closes < 2; closes++) {
        int fd = send_request("POST /http/x HTTP/1.1\r\nHost: own.test\r\nContent-Length: 10000000\r\n\r\nabc");
        int back = take_connection(listener);
        if (closes == 1) { /* it does not read, answers, and is gone while its queue is full */
            for (int i = 0; i < 200 && send(fd, piece, sizeof piece, MSG_NOSIGNAL) > 0; i++)
                drive();
        }
        put(back, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
        CHECK(heard(fd, "HTTP/1.1 413 ") && heard(fd, "\r\n\r\nno"));
        if (closes == 1)
            hang_up(back);
        else
            CHECK(strstr(take(back), "abc") != NULL && has_hung_up(back) && close(back) == 0);
        receive(fd);
        CHECK(client_saw_end && kept() == 0);
        close_client(fd);
    }
    close_listener(listener, "http.sock");
}

static void
a_body_that_breaks_ends_the_back_ends_connection(void)
{
    int listener = open_listener("http.sock", 8);
    int fd = send_request("POST /http/x HTTP/1.1\r\nHost: own.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    int back = take_connection(listener);
    (void)take(back);
    say(fd, "zz\r\n");
    CHECK(heard(fd, "HTTP/1.1 400 ") && client_saw_end && has_hung_up(back));
    hang_up(back);
    close_client(fd);
    close_listener(listener, "http.sock");
}

/* ------------------------------------------------------------------ claims: other protocols */

static void
protocols_pass_where_the_configuration_says_so(void)
{
    static const struct { const char *path, *protocol; bool passes; } rows[] = {
        {"/http/", "websocket", false}, {"/ws/", "WebSocket", true}, {"/ws/", "other", false}, {"/up/", "websocket", true},
        {"/two/", "other", true}, {"/two/", "websocket", true}, {"/two/", "third", false}, {"/any/", "third", true},
        {"/none/", "websocket", false}, {"/none/", "none", false}, {"/wsnone/", "websocket", true}, {"/wsnone/", "third", true},
    };
    int listener = open_listener("http.sock", 8);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char text[256], wanted[64];
        (void)snprintf(text, sizeof text, "GET %sx HTTP/1.1\r\nHost: own.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: %s\r\n\r\n",
                       rows[i].path, rows[i].protocol);
        (void)snprintf(wanted, sizeof wanted, "\r\nUpgrade: %s\r\n", rows[i].protocol);
        int fd = send_request(text), back = take_connection(listener);
        bool came = strstr(take(back), wanted) != NULL;
        CHECK_FOR(text, came == rows[i].passes);
        put(back, OK);
        CHECK_FOR(text, heard(fd, "ok"));
        let_go();
        hang_up(back);
        close_client(fd);
    }
    close_listener(listener, "http.sock");
}

static int
open_tunnel_to(int listener, int *ret_back)
{
    int fd = send_request("GET /ws/x HTTP/1.1\r\nHost: own.test\r\n" SHAKE);
    *ret_back = take_connection(listener);
    (void)take(*ret_back);
    put(*ret_back, SWITCH "first");
    CHECK(heard(fd, "HTTP/1.1 101 Switching Protocols\r\n") && heard(fd, "\r\nUpgrade: websocket\r\n") && heard(fd, "\r\n\r\nfirst"));
    say(fd, "question");
    CHECK(strcmp(take(*ret_back), "question") == 0);
    put(*ret_back, "reply");
    CHECK(heard(fd, "reply"));
    return fd;
}

static void
a_tunnel_ends_with_both_of_its_sides(void)
{
    int listener = open_listener("http.sock", 8), back;
    int fd = open_tunnel_to(listener, &back); /* the client has said all: the other side may go on */
    child_must(shutdown(fd, SHUT_WR) == 0, "shutdown");
    CHECK(has_hung_up(back));
    put(back, "last words");
    CHECK(heard(fd, "last words") && !client_saw_end);
    hang_up(back);
    receive(fd);
    CHECK(client_saw_end);
    close_client(fd);
    fd = open_tunnel_to(listener, &back); /* the client has gone */
    child_must(close(fd) == 0, "close");
    CHECK(has_hung_up(back));
    hang_up(back);
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
    fd = open_tunnel_to(listener, &back); /* the back end has gone */
    hang_up(back);
    receive(fd);
    CHECK(client_saw_end && kept() == 0);
    close_client(fd);
    close_listener(listener, "http.sock");
}

static void
a_silent_tunnel_ends(void)
{
    int listener = open_listener("http.sock", 8), back;
    int fd = open_tunnel_to(listener, &back);
    for (int i = 0; i < 4; i++) { /* either side keeps it open */
        pass_time(15000);
        if (i % 2 == 0)
            say(fd, "x");
        else
            put(back, "y");
        (void)take(back);
        receive(fd);
        CHECK(!client_saw_end);
    }
    pass_time(19000);
    receive(fd);
    CHECK(!client_saw_end && !has_hung_up(back));
    pass_time(2000);
    receive(fd);
    CHECK(client_saw_end && has_hung_up(back));
    hang_up(back);
    close_client(fd);
    close_listener(listener, "http.sock");
}

static void
a_protocol_that_is_refused_is_an_answer(void)
{
    int listener = open_listener("http.sock", 8);
    int fd = send_request("GET /ws/x HTTP/1.1\r\nHost: own.test\r\n" SHAKE), back = take_connection(listener);
    (void)take(back);
    put(back, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    CHECK(heard(fd, "HTTP/1.1 403 ") && heard(fd, "no") && !client_saw_end);
    out_len = 0;
    say(fd, GET("/small"));
    CHECK(heard(fd, "HTTP/1.1 200 OK\r\n"));
    let_go();
    hang_up(back);
    close_client(fd);
    close_listener(listener, "http.sock");
}

/* ------------------------------------------------------------------ claims: interim responses */

static void
early_hints_are_passed_on_as_httpd_does(void)
{
    static const char hints[] = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-End: 2\r\n\r\n"
                                "HTTP/1.1 102 \r\n\r\nHTTP/1.1 200 OK\r\n";
    static const struct { const char *version, *policy; bool passes; } rows[] = {
        {"1.1", NULL, true}, {"1.0", NULL, false}, {"1.1", "RFC", true}, {"1.1", "Suppress", false},
    };
    int listener = open_listener("http.sock", 8);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char text[128];
        (void)snprintf(text, sizeof text, "GET /http/x HTTP/%s\r\nHost: own.test\r\nConnection: keep-alive\r\n\r\n", rows[i].version);
        interim_policy = rows[i].policy;
        int fd = send_request(text), back = take_connection(listener);
        (void)take(back);
        put(back, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: X-Hop\r\nX-Hop:1\r\nX-End:2\r\n\r\nHTTP/1.1 102 ");
        receive(fd);
        CHECK_EQ(out_len > 0, rows[i].passes);
        put(back, "\r\n\r\n" OK);
        CHECK(heard(fd, "HTTP/1.1 200 OK\r\n"));
        const char *begin = rows[i].passes ? hints : "HTTP/1.1 200 OK\r\n";
        CHECK_FOR(begin, strncmp(out, begin, strlen(begin)) == 0);
        let_go();
        hang_up(back);
        close_client(fd);
    }
    interim_policy = NULL;
    close_listener(listener, "http.sock");
}

static void
interim_responses_without_end_are_502(void)
{
    int listener = open_listener("http.sock", 8);
    int fd = send_request(GET("/http/x")), back = take_connection(listener);
    for (int i = 0; i < 100; i++)
        (void)send(back, "HTTP/1.1 103 Early Hints\r\n\r\n", 28, MSG_NOSIGNAL);
    CHECK(heard(fd, "HTTP/1.1 502 "));
    hang_up(back);
    close_client(fd);
    close_listener(listener, "http.sock");
}

/* One that takes nothing must not fill memory, and hears no response within another. */
static void
a_client_that_does_not_read_misses_hints_and_nothing_else(void)
{
    static char head[4096];
    int listener = open_listener("http.sock", 8);
    clear_log();
    int fd = open_client(1);
    say(fd, GET("/http/x"));
    int back = take_connection(listener);
    int len = snprintf(head, sizeof head, "HTTP/1.1 103 Early Hints\r\nLink: ");
    memset(head + len, 'x', 3000);
    memcpy(head + len + 3000, "\r\n\r\n", 5);
    for (int i = 0; i < 60; i++)
        put(back, head);
    put(back, OK);
    CHECK(heard(fd, "\r\n\r\nHTTP/1.1 200 OK\r\n") && heard(fd, "ok"));
    for (const char *at = out; (at = strstr(at, "103 Early")) != NULL; at++)
        CHECK(strncmp(at + 9 + 14 + 3000, "\r\n\r\nHTTP/1.1 ", 13) == 0);
    CHECK(out_len < 60 * 3000);
    let_go();
    hang_up(back);
    close_client(fd);
    close_listener(listener, "http.sock");
}

/* ------------------------------------------------------------------ claims: clients that go */

static void
a_client_that_goes_takes_its_connection_along(void)
{
    static const struct { const char *request, *answer; } moments[] = {
        {GET("/http/x"), ""}, {GET("/http/x"), "HTTP/1.1 200 OK\r\nX-Ha"}, {GET("/http/x"), "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"},
        {"POST /http/x HTTP/1.1\r\nHost: own.test\r\nContent-Length: 9\r\n\r\nabc", ""},
        {"POST /http/x HTTP/1.1\r\nHost: own.test\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc", "HTTP/1.1 200 OK\r\n\r\nabc"},
    };
    unsigned before = count_descriptors();
    int listener = open_listener("http.sock", 8);
    for (size_t i = 0; i < COUNT_OF(moments); i++) {
        int fd = send_request(moments[i].request), back = take_connection(listener);
        (void)take(back);
        if (moments[i].answer[0] != '\0')
            put(back, moments[i].answer);
        child_must(close(fd) == 0, "close");
        CHECK_FOR(moments[i].request, has_hung_up(back) && kept() == 0 && atomic_load(&one.child->open_count) == 0);
        hang_up(back);
    }
    close_listener(listener, "http.sock");
    int fd = send_request(GET("/web/x")); /* while its service is woken */
    CHECK_EQ(take_job(), PC_JOB_WAKE);
    close_client(fd);
    CHECK(has_hung_up(program.fds[0]));
    hang_up(program.fds[0]);
    CHECK_EQ(count_descriptors(), before);
}

int
main(void)
{
    http_open();
    RUN(answers_come_whole_however_they_are_framed_and_cut);
    RUN(heads_that_break_a_rule_are_502);
    RUN(a_back_end_that_goes_within_its_answer_cuts_it);
    RUN(trailers_go_to_clients_that_take_them);
    RUN(trailers_stay_where_an_answer_has_no_place_for_them);
    RUN(bad_trailers_cut_the_answer);
    RUN(long_trailers_come_whole);
    RUN(bodies_are_framed_anew);
    RUN(a_client_hears_100_once_and_from_us);
    RUN(an_answer_before_the_body_is_heard_and_the_connections_end);
    RUN(a_body_that_breaks_ends_the_back_ends_connection);
    RUN(protocols_pass_where_the_configuration_says_so);
    RUN(a_tunnel_ends_with_both_of_its_sides);
    RUN(a_silent_tunnel_ends);
    RUN(a_protocol_that_is_refused_is_an_answer);
    RUN(early_hints_are_passed_on_as_httpd_does);
    RUN(interim_responses_without_end_are_502);
    RUN(a_client_that_does_not_read_misses_hints_and_nothing_else);
    RUN(a_client_that_goes_takes_its_connection_along);
    return http_close();
}
