/* test_reply.c - claims about native/reply.c: what programs and back ends may say, and what is passed on of it. */
/* sources: reply.c util.c */
#include <stdlib.h>

#include "gateway.h"

#include "check.h"

enum how { AS_CGI, AS_HTTP, AS_HEAD, AS_NPH };

static struct pc_reply reply; /* of the last parse */
static char *bytes;           /* and the block its spans point into */

static int
parse_once(const char *buf, size_t len, enum how how)
{
    if (how == AS_CGI)
        return pc_reply_parse_cgi(&reply, buf, len);
    if (how == AS_NPH)
        return pc_reply_parse_nph(&reply, buf, len, false);
    return pc_reply_parse_http(&reply, buf, len, how == AS_HEAD);
}

/* Parse in pieces, each time from a fresh block of exactly the size so far. */
static int
parse_pieces(const char *text, size_t len, size_t piece, enum how how)
{
    size_t have = 0;
    int status = 0;

    memset(&reply, 0, offsetof(struct pc_reply, fields));
    memset(reply.fields, 0xa5, sizeof reply.fields); /* nothing here may be read unwritten */
    while (status == 0 && have < len) {
        have = len - have < piece ? len : have + piece;
        free(bytes);
        bytes = check_copy(text, have);
        status = parse_once(bytes, have, how);
    }
    return status;
}

static int
parse_len(const char *text, size_t len, enum how how)
{
    int bytewise = parse_pieces(text, len, 1, how);
    int whole = parse_pieces(text, len, len, how);

    CHECK_EQ_FOR(text, bytewise, whole);
    return whole;
}

static int
parse(const char *text, enum how how)
{
    return parse_len(text, strlen(text), how);
}

static bool
is_span(struct pc_span span, const char *want)
{
    return span.len == strlen(want) && memcmp(bytes + span.at, want, span.len) == 0;
}

static void
test_cgi_head_gives_status_fields_and_length(void)
{
    const char *text = "Status: 404 Not here\r\nContent-Type: text/html; charset=utf-8\r\nSet-Cookie:  a=b; Path=/ \r\n"
                       "content-length: 12\r\nX-Empty:\r\n\r\nbody: no field\r\n";

    CHECK_EQ(parse(text, AS_CGI), (int)(strstr(text, "body") - text));
    CHECK(reply.status == 404 && reply.has_status && is_span(reply.reason, "Not here"));
    CHECK(is_span(reply.content_type, "text/html; charset=utf-8") && reply.location.len == 0);
    CHECK(reply.has_length && reply.length == 12 && reply.framing == PC_REPLY_UNTIL_END && !reply.is_local);
    CHECK_EQ(reply.field_count, 5);
    CHECK(reply.fields[0].is_hop && reply.fields[0].id == PC_REPLY_STATUS);
    CHECK(is_span(reply.fields[2].name, "Set-Cookie") && is_span(reply.fields[2].value, "a=b; Path=/"));
    CHECK(reply.fields[2].id == PC_REPLY_SET_COOKIE && !reply.fields[2].is_hop && !reply.fields[3].is_hop);
    CHECK(is_span(reply.fields[4].name, "X-Empty") && reply.fields[4].value.len == 0);
}

static void
test_cgi_lines_end_in_lf_or_crlf(void)
{
    CHECK_EQ(parse("Content-Type: text/plain\n\nbody", AS_CGI), 26);
    CHECK(reply.status == 200 && !reply.has_status && is_span(reply.content_type, "text/plain"));
    CHECK_EQ(parse("A: 1\r\nB: 2\n\r\n", AS_CGI), 13);
    CHECK(reply.field_count == 2 && is_span(reply.fields[1].value, "2"));
    CHECK_EQ(parse("Content-Type: text/plain\n", AS_CGI), 0);
    CHECK_EQ(parse("Content-Type: text/plain", AS_CGI), 0);
    CHECK_EQ(parse("", AS_CGI), 0);
}

static void
test_cgi_location_is_local_a_redirection_or_a_field(void)
{
    static const struct {
        const char *text;
        uint32_t status;
        bool is_local;
    } rows[] = {
        {"Location: /inside?x=1\n\n", 200, true},
        {"Status: 200 OK\nLocation: /inside\n\n", 200, true},
        {"Location: http://example.org/\n\n", 302, false},
        {"Location: //example.org/x\n\n", 200, true},
        {"Location: relative\n\n", 302, false},
        {"Location:\n\n", 200, false},
        {"Status: 301 Moved\nLocation: /inside\n\n", 301, false},
        {"Status: 201\nLocation: http://example.org/new\n\n", 201, false},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        CHECK_EQ_FOR(rows[i].text, parse(rows[i].text, AS_CGI), strlen(rows[i].text));
        CHECK_EQ_FOR(rows[i].text, reply.status, rows[i].status);
        CHECK_EQ_FOR(rows[i].text, reply.is_local, rows[i].is_local);
        CHECK_EQ_FOR(rows[i].text, reply.framing, rows[i].is_local ? PC_REPLY_NO_BODY : PC_REPLY_UNTIL_END);
    }
    CHECK(parse("Status: 304\n\n", AS_CGI) > 0 && reply.framing == PC_REPLY_NO_BODY && reply.reason.len == 0);
    CHECK(parse("Status: 204 \n\n", AS_CGI) > 0 && reply.framing == PC_REPLY_NO_BODY && reply.reason.len == 0);
}

/* Row "CGI out" of the attack matrix. */
static void
test_cgi_refuses_what_would_be_two_answers(void)
{
    static const char *const texts[] = {
        "\n", "\r\nbody", "\n\nContent-Type: text/plain\n\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n\r\n", "<html>\n", "no colon here\n", "#!/bin/sh\n",
        "Status: 100\n\n", "Status: 100 Continue\nA: b\n\n", "Status: 101 Switching Protocols\nUpgrade: x\nConnection: upgrade\n\n",
        "Status: 200 OK\nStatus: 404 Not Found\n\n", "Status: 99\n\n", "Status: 20\n\n", "Status: 2000\n\n", "Status: 200OK\n\n",
        "Status: 2xx\n\n", "Status: +20\n\n", "Status:\n\n", "Status: 200\tOK\n\n", "Status: 000\n\n",
        "Content-Type: a/b\nContent-Type: c/d\n\n", "Location: /a\nLocation: /b\n\n",
        "Content-Length: 1\nContent-Length: 1\n\n", "Content-Length: -1\n\n", "Content-Length: 1, 1\n\n", "Content-Length: 01\n\n",
        "Content-Length: 0x1\n\n", "Content-Length:\n\n", "Content-Length: 9223372036854775808\n\n", "Content-Length: 1 1\n\n",
        "Content-Length: 1\nTransfer-Encoding: chunked\n\n", "Transfer-Encoding: identity\nContent-Length: 1\n\n",
        "A: b\n c: folded\n\n", "A: b\n\tfolded\n\n", " A: b\n\n", "\tA: b\n\n", "A : b\n\n", "A\t: b\n\n", "A B: c\n\n", ": b\n\n",
        "A: b\rC: d\n\n", "A: b\r\r\n\n", "A\r: b\n\n", "A: \x01\n\n", "A: \x7f\n\n", "A\x01: b\n\n", "A(b): c\n\n", "A\xc3\xa4: c\n\n",
        "A: b\n\r\r\n",
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        CHECK_EQ_FOR(texts[i], parse(texts[i], AS_CGI), -PC_E_BAD);
    CHECK_EQ(parse_len("A: b\0c\n\n", 8, AS_CGI), -PC_E_BAD);
    CHECK_EQ(parse_len("A\0: b\n\n", 7, AS_CGI), -PC_E_BAD);
    CHECK_EQ(parse_len("A: b\n\0\n\n", 8, AS_CGI), -PC_E_BAD);
}

static void
test_cgi_programs_cannot_speak_for_the_connection(void)
{
    CHECK(parse("Transfer-Encoding: chunked\nKeep-Alive: 5\nConnection: close, X-Mine\nX-Mine: 1\nX-Other: 2\n\n", AS_CGI) > 0);
    CHECK(!reply.is_chunked && reply.framing == PC_REPLY_UNTIL_END && reply.wants_close);
    CHECK(reply.fields[0].is_hop && reply.fields[1].is_hop && reply.fields[2].is_hop && reply.fields[3].is_hop);
    CHECK(!reply.fields[4].is_hop);
}

static void
test_http_head_gives_line_and_fields(void)
{
    const char *text = "HTTP/1.1 200 Fine by me\r\nServer: x\r\nStatus: 500\r\nContent-Length: 5\r\n\r\nhello";

    CHECK_EQ(parse(text, AS_HTTP), (int)(strstr(text, "hello") - text));
    CHECK(reply.status == 200 && reply.minor == 1 && reply.has_status && is_span(reply.reason, "Fine by me"));
    CHECK(reply.framing == PC_REPLY_LENGTH && reply.length == 5 && !reply.wants_close && !reply.is_interim);
    CHECK(reply.field_count == 3 && !reply.fields[1].is_hop);
    CHECK(parse("HTTP/1.1 200\r\n\r\n", AS_HTTP) > 0 && reply.reason.len == 0);
    CHECK(parse("HTTP/1.1 200 \r\n\r\n", AS_HTTP) > 0 && reply.reason.len == 0);
    CHECK(parse("HTTP/1.1 299 \xc3\xa4\t!\r\n\r\n", AS_HTTP) > 0 && reply.reason.len == 4);
    CHECK_EQ(parse("HTTP/1.1 200 OK\r\nA: b\r\n", AS_HTTP), 0);
}

/* RFC 9112 6.3, rule by rule. */
static void
test_http_framing_is_what_a_client_sees(void)
{
    static const struct {
        const char *text;
        enum how how;
        uint8_t framing;
        bool wants_close;
    } rows[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", AS_HEAD, PC_REPLY_NO_BODY, false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", AS_HEAD, PC_REPLY_NO_BODY, false},
        {"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", AS_HTTP, PC_REPLY_NO_BODY, false},
        {"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", AS_HTTP, PC_REPLY_NO_BODY, false},
        {"HTTP/1.1 100 Continue\r\n\r\n", AS_HTTP, PC_REPLY_NO_BODY, false},
        {"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", AS_HTTP, PC_REPLY_NO_BODY, false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", AS_HTTP, PC_REPLY_CHUNKED, false},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", AS_HTTP, PC_REPLY_LENGTH, false},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n", AS_HTTP, PC_REPLY_LENGTH, true},
        {"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", AS_HTTP, PC_REPLY_LENGTH, true},
        {"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", AS_HTTP, PC_REPLY_LENGTH, false},
        {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", AS_HTTP, PC_REPLY_UNTIL_END, true},
        {"HTTP/1.1 200 OK\r\n\r\n", AS_HTTP, PC_REPLY_UNTIL_END, true},
        {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", AS_HTTP, PC_REPLY_TUNNEL, true},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        CHECK_EQ_FOR(rows[i].text, parse(rows[i].text, rows[i].how), strlen(rows[i].text));
        CHECK_EQ_FOR(rows[i].text, reply.framing, rows[i].framing);
        CHECK_EQ_FOR(rows[i].text, reply.wants_close, rows[i].wants_close);
        CHECK_EQ_FOR(rows[i].text, reply.is_interim, reply.status < 200 && reply.status != 101);
    }
}

static void
test_http_refuses_what_is_no_answer_or_two(void)
{
    static const char *const texts[] = {
        "HTTP/1.1 200 OK\n\n", "HTTP/1.1 200 OK\r\nA: b\n\r\n", "HTTP/2 200\r\n\r\n", "HTTP/1.2 200 OK\r\n\r\n", "http/1.1 200 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1\t200 OK\r\n\r\n", "HTTP/1.1 200\tOK\r\n\r\n", "\r\nHTTP/1.1 200 OK\r\n\r\n", "A: b\r\n\r\n",
        "HTTP/1.1 200 a\rb\r\n\r\n", "HTTP/1.1 200 a\x01\r\n\r\n", "HTTP/1.1 200 OK\r\n A: b\r\n\r\n", "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1,1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n",
        "HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 101 X\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.0 101 X\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n",
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        CHECK_EQ_FOR(texts[i], parse(texts[i], AS_HTTP), -PC_E_BAD);
}

static void
test_http_fields_that_end_here_are_marked(void)
{
    static const struct {
        const char *name;
        bool is_hop;
    } rows[] = {
        {"Connection", true}, {"Keep-Alive", true}, {"Transfer-Encoding", true}, {"TE", true}, {"Trailer", false}, {"Upgrade", true},
        {"Proxy-Connection", true}, {"Proxy-Authenticate", true}, {"X-Named", true}, {"x-second", true}, {"X-Other", false},
        {"Location", false},
    };
    CHECK(parse("HTTP/1.1 200 OK\r\nConnection: x-named, , Content-Type\r\nKeep-Alive: 1\r\nTransfer-Encoding: chunked\r\nTE: x\r\n"
                "Trailer: y\r\nUpgrade: h2c\r\nProxy-Connection: z\r\nProxy-Authenticate: z\r\nX-Named: 1\r\nx-second: 1\r\n"
                "X-Other: 1\r\nLocation: /\r\nconnection: X-SECOND\r\n\r\n", AS_HTTP) > 0);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        CHECK(is_span(reply.fields[i].name, rows[i].name));
        CHECK_EQ_FOR(rows[i].name, reply.fields[i].is_hop, rows[i].is_hop);
    }
    CHECK(parse("HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 3\r\n\r\n", AS_HTTP) > 0);
    CHECK(!reply.fields[1].is_hop && reply.framing == PC_REPLY_LENGTH);
}

static void
test_nph_output_may_end_its_lines_in_lf(void)
{
    CHECK_EQ(parse("HTTP/1.0 200 OK\nContent-Type: text/plain\n\nbody", AS_NPH), 42);
    CHECK(reply.status == 200 && reply.framing == PC_REPLY_UNTIL_END && is_span(reply.content_type, "text/plain"));
    CHECK_EQ(parse("Content-Type: text/plain\n\n", AS_NPH), -PC_E_BAD);
}

static void
test_heads_are_bounded_in_fields_and_bytes(void)
{
    static char text[PC_MAX_REPLY_HEAD_BYTES + 64];
    size_t len = 0;

    for (int i = 0; i < PC_MAX_REPLY_FIELDS; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "X-%d: y\n", i);
    memcpy(text + len, "\n", 2);
    CHECK_EQ(parse(text, AS_CGI), len + 1);
    CHECK_EQ(reply.field_count, PC_MAX_REPLY_FIELDS);
    memcpy(text + len, "A: b\n\n", 7);
    CHECK_EQ(parse(text, AS_CGI), -PC_E_HEAD_LARGE);

    memset(text, 'a', sizeof text);
    memcpy(text, "X: ", 3);
    memcpy(text + PC_MAX_REPLY_HEAD_BYTES - 2, "\n\n", 2);
    CHECK_EQ(parse_pieces(text, sizeof text, 997, AS_CGI), PC_MAX_REPLY_HEAD_BYTES);
    text[PC_MAX_REPLY_HEAD_BYTES - 2] = 'a';
    CHECK_EQ(parse_pieces(text, sizeof text, 997, AS_CGI), -PC_E_HEAD_LARGE);
    CHECK_EQ(parse_pieces(text, sizeof text, sizeof text, AS_CGI), -PC_E_HEAD_LARGE);
    CHECK_EQ(parse_pieces(text, PC_MAX_REPLY_HEAD_BYTES - 1, 997, AS_CGI), 0);
}

int
main(void)
{
    RUN(test_cgi_head_gives_status_fields_and_length);
    RUN(test_cgi_lines_end_in_lf_or_crlf);
    RUN(test_cgi_location_is_local_a_redirection_or_a_field);
    RUN(test_cgi_refuses_what_would_be_two_answers);
    RUN(test_cgi_programs_cannot_speak_for_the_connection);
    RUN(test_http_head_gives_line_and_fields);
    RUN(test_http_framing_is_what_a_client_sees);
    RUN(test_http_refuses_what_is_no_answer_or_two);
    RUN(test_http_fields_that_end_here_are_marked);
    RUN(test_nph_output_may_end_its_lines_in_lf);
    RUN(test_heads_are_bounded_in_fields_and_bytes);
    free(bytes);
    return check_end();
}
