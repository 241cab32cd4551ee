/* test_h1.c - claims about native/h1.c. The corpus tests/corpus/http1 holds the attacks; here are
 * the contract's edges. */
/* sources: h1.c host.c util.c */
#include "pc.h"

#include "check.h"

static const struct pc_h1_limits usual = {
    .line_bytes = PC_MAX_LINE_BYTES,
    .field_bytes = PC_MAX_LINE_BYTES,
    .field_count = PC_MAX_FIELDS,
};

static struct pc_head head; /* of the last parse */
static char *bytes;         /* and the block its spans point into */

/* Parse in pieces of `piece` bytes, each time from a fresh block of exactly the size so far. */
static int
parse_pieces(const char *text, size_t len, size_t piece, const struct pc_h1_limits *limits)
{
    size_t have = 0;
    int status = 0;

    memset(&head, 0, offsetof(struct pc_head, fields));
    memset(head.fields, 0xa5,
           sizeof(head) -
               offsetof(struct pc_head, fields)); /* nothing here may be read unwritten */
    while (status == 0 && have < len) {
        have = len - have < piece ? len : have + piece;
        free(bytes);
        bytes = check_copy(text, have);
        status = pc_h1_parse_head(&head, bytes, have, limits);
    }
    return status;
}

/* Whole and bytewise; they must agree. */
static int
parse_with(const char *text, const struct pc_h1_limits *limits)
{
    int bytewise = parse_pieces(text, strlen(text), 1, limits);
    int whole = parse_pieces(text, strlen(text), strlen(text), limits);

    CHECK_EQ_FOR(text, bytewise, whole);
    return whole;
}

static int
parse(const char *text)
{
    return parse_with(text, &usual);
}

static bool
is_text(struct pc_slice got, const char *want)
{
    return got.base != NULL && got.len == strlen(want) && memcmp(got.base, want, got.len) == 0;
}

static bool
is_span(struct pc_span span, const char *want)
{
    return is_text(pc_slice_at(bytes, span), want);
}

struct refusal {
    const char *text;
    int status;
};

static void
check_refusals(const struct refusal *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        CHECK_EQ_FOR(rows[i].text, parse(rows[i].text), rows[i].status);
}

/* All parts of an ordinary head come out where they stand. */
static void
test_parse_head_finds_line_and_fields(void)
{
    static const char text[] =
        "GET /a?b HTTP/1.1\r\nHost: Example.TEST:8080\r\nX:\t v w \t\r\nEmpty:\r\n\r\nbody";

    CHECK_EQ(parse(text), (int)sizeof(text) - 5);
    CHECK(is_span(head.line, "GET /a?b HTTP/1.1") && is_span(head.method, "GET") &&
          is_span(head.target, "/a?b"));
    CHECK(is_span(head.path, "/a?b") && head.authority.len == 0 && head.authority.at == 0);
    CHECK(head.method_id == PC_GET && head.minor == 1 && head.field_count == 3);
    CHECK(is_text(pc_head_field(&head, bytes, PC_F_HOST), "Example.TEST:8080"));
    CHECK(is_text(pc_head_find(&head, bytes, PC_S("x")), "v w"));
    CHECK(is_text(pc_head_find(&head, bytes, PC_S("EMPTY")), ""));
    CHECK(pc_head_find(&head, bytes, PC_S("Emp")).base == NULL);
    CHECK(pc_head_field(&head, bytes, PC_F_COOKIE).base == NULL);
    CHECK(strcmp(head.host.name, "example.test") == 0 && head.host.port == 8080);
    CHECK(!head.wants_close && !head.wants_keep && !head.is_chunked && !head.has_length &&
          !head.expects_continue);
}

/* Every field of enum pc_field_id is known by its name, in any case. */
static void
test_parse_head_knows_every_field(void)
{
    static const char *const names[PC_F_KNOWN] = {
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Expect",
        "Range",
        "If-Range",
        "If-Match",
        "If-None-Match",
        "If-Modified-Since",
        "If-Unmodified-Since",
        "User-Agent",
        "Referer",
        "Accept-Encoding",
        "Cookie",
        "Authorization",
        "Upgrade",
    };
    for (unsigned id = 0; id < PC_F_KNOWN; id++) {
        for (unsigned variant = 0; variant < 3; variant++) {
            char text[128], name[32];
            const char *value = id == PC_F_CONTENT_LENGTH      ? "1"
                                : id == PC_F_TRANSFER_ENCODING ? "chunked"
                                                               : "100-continue";

            snprintf(name, sizeof(name), "%s", names[id]);
            for (char *p = name; *p != '\0' && variant > 0; p++) {
                if (*p >= 'A' && *p <= 'Z' && variant == 1)
                    *p = (char)(*p + 32);
                else if (*p >= 'a' && *p <= 'z' && variant == 2)
                    *p = (char)(*p - 32);
            }
            snprintf(text, sizeof(text), "GET / HTTP/1.1\r\n%s%s: %s\r\n\r\n",
                     id == PC_F_HOST ? "" : "Host: a\r\n", name, value);
            CHECK_FOR(text, parse(text) > 0);
            CHECK_FOR(text, is_text(pc_head_field(&head, bytes, (enum pc_field_id)id), value));
            CHECK_FOR(text, head.fields[head.field_count - 1].id == id);
        }
    }
}

/* A name that differs from a known one in one byte is not taken for it. */
static void
test_parse_head_takes_no_neighbour_for_a_known_field(void)
{
    static const char *const names[] = {
        "Hosu",           "Hos",     "Hostt",       "content-lengti",
        "content-mength", "Cookid",  "If\x0dRange", "Transfer-Encodinh",
        "Ranze",          "Upgradf", "user.agent",  "~"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char text[128];

        snprintf(text, sizeof(text), "GET / HTTP/1.0\r\n%s: chunked\r\n\r\n", names[i]);
        if (strchr(names[i], '\r') != NULL) {
            CHECK_EQ_FOR(text, parse(text), -PC_E_BAD);
            continue;
        }
        CHECK_FOR(text, parse(text) > 0 && head.fields[0].id == PC_F_OTHER);
    }
}

/* Methods: ours by id, others as PC_METHOD_OTHER, in capital letters and up to 32 bytes. */
static void
test_parse_head_sorts_methods(void)
{
    static const char *const names[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"};
    char text[128];

    for (unsigned i = 0; i < COUNT_OF(names); i++) {
        snprintf(text, sizeof(text), "%s / HTTP/1.1\r\nHost: a\r\n\r\n", names[i]);
        CHECK_FOR(text, parse(text) > 0 && head.method_id == i);
    }
    CHECK(parse("PATCH / HTTP/1.1\r\nHost: a\r\n\r\n") > 0 && head.method_id == PC_PATCH);
    CHECK(parse("PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n") > 0 && head.method_id == PC_METHOD_OTHER);
    CHECK(parse("M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n") > 0 && head.method_id == PC_METHOD_OTHER);
    for (int len = 31; len <= 33; len++) {
        snprintf(text, sizeof(text), "%.*s / HTTP/1.1\r\nHost: a\r\n\r\n", len,
                 "XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX");
        CHECK_FOR(text, len <= 32 ? parse(text) > 0 : parse(text) == -PC_E_UNKNOWN);
    }
}

/* The four forms of a target, each with the methods it belongs to. */
static void
test_parse_head_sorts_targets(void)
{
    static const struct refusal refused[] = {
        {"GET * HTTP/1.1\r\nHost: a\r\n\r\n", -PC_E_BAD},
        {"OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n", -PC_E_BAD},
        {"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", -PC_E_BAD},
        {"GET a HTTP/1.1\r\nHost: a\r\n\r\n", -PC_E_BAD},
        {"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", -PC_E_UNKNOWN},
        {"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", -PC_E_BAD},
        {"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", -PC_E_BAD},
        {"CONNECT http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", -PC_E_BAD},
        {"GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", -PC_E_BAD},
        {"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", -PC_E_BAD},
        {"GET http:///b HTTP/1.1\r\nHost: a\r\n\r\n", -PC_E_BAD},
        {"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", -PC_E_BAD},
        {"GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n", -PC_E_BAD},
        {"GET http://a?b HTTP/1.1\r\nHost: a\r\n\r\n", -PC_E_BAD},
        {"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", -PC_E_BAD},
        {"GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", -PC_E_BAD},
        {"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", -PC_E_BAD},
        {"GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n", -PC_E_BAD},
        {"GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", -PC_E_BAD},
    };
    check_refusals(refused, COUNT_OF(refused));
    CHECK(parse("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n") > 0 && is_span(head.path, "*"));
    CHECK(parse("GET http://A:80/b?c HTTP/1.1\r\nHost: a\r\n\r\n") > 0 &&
          is_span(head.path, "/b?c"));
    CHECK(is_span(head.authority, "A:80") && is_span(head.target, "http://A:80/b?c"));
    CHECK(parse("GET HTTP://a:81 HTTP/1.1\r\nHost: A.:81\r\n\r\n") > 0 && is_span(head.path, "/"));
    CHECK(parse("GET http://a/ HTTP/1.0\r\n\r\n") > 0 && strcmp(head.host.name, "a") == 0);
    CHECK(parse("GET /\xc3\xbc\"<>[\\]^`{|} HTTP/1.1\r\nHost: a\r\n\r\n") > 0);
}

/* Versions: 1.0 and 1.1 are spoken, other digits are 505, other shapes 400. */
static void
test_parse_head_tells_wrong_versions_from_malformed_ones(void)
{
    static const struct refusal refused[] = {
        {"GET / HTTP/1.2\r\nHost: a\r\n\r\n", -PC_E_VERSION},
        {"GET / HTTP/9.9\r\nHost: a\r\n\r\n", -PC_E_VERSION},
        {"GET / HTTP/0.9\r\nHost: a\r\n\r\n", -PC_E_VERSION},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", -PC_E_VERSION},
        {"GET /\r\n", -PC_E_BAD},
        {"GET / \r\n", -PC_E_BAD},
        {"GET / HTTP/1\r\n", -PC_E_BAD},
        {"GET / HTTP/1.10\r\n", -PC_E_BAD},
        {"GET / HTTP/01.1\r\n", -PC_E_BAD},
        {"GET / HTTP/1,1\r\n", -PC_E_BAD},
        {"GET / http/1.1\r\n", -PC_E_BAD},
        {"GET / HTTP/1.1 \r\n", -PC_E_BAD},
        {"GET / XHTTP/1.1\r\n", -PC_E_BAD},
        {"GET / HTTP /1.1\r\n", -PC_E_BAD},
        {"GET / HTTP/1.\xb1\r\n", -PC_E_BAD},
    };
    check_refusals(refused, COUNT_OF(refused));
}

/* What no client of ours would say first is refused at its first byte, not at the end of a line
 * that never comes. */
static void
test_parse_head_refuses_foreign_protocols_at_once(void)
{
    CHECK_EQ(parse("\x16"), -PC_E_BAD); /* TLS */
    CHECK_EQ(parse("\x80"), -PC_E_BAD); /* SSLv2 */
    CHECK_EQ(parse(" "), -PC_E_BAD);
    CHECK_EQ(parse("\n"), -PC_E_BAD);
    CHECK_EQ(parse("\rG"), -PC_E_BAD);
    CHECK_EQ(parse("\r\n\r"), -PC_E_BAD); /* a second empty line */
    CHECK_EQ(parse("g"), -PC_E_BAD);
    CHECK_EQ(parse("GET /\x01"), -PC_E_BAD);
    CHECK_EQ(pc_h1_parse_head(&head, bytes, 0, &usual), 0);
}

/* One empty line before the request is skipped. */
static void
test_parse_head_skips_one_empty_line(void)
{
    CHECK_EQ(parse("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 29);
    CHECK(is_span(head.line, "GET / HTTP/1.1"));
}

/* Content-Length: digits up to 2^63 - 1 without leading zeros, once. */
static void
test_parse_head_reads_strict_content_lengths(void)
{
    static const char *const bad[] = {
        "",
        "+5",
        "-0",
        "-5",
        "0x5",
        "5 5",
        "5,5",
        "5, 5",
        "05",
        "00",
        "5.",
        "9223372036854775808",
        "18446744073709551621",
        "99999999999999999999",
        "5;a",
        "\"5\"",
        "1e3",
        "\xb5",
    };
    char text[128];

    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        snprintf(text, sizeof(text), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %s\r\n\r\n",
                 bad[i]);
        CHECK_EQ_FOR(text, parse(text), -PC_E_BAD);
        CHECK_FOR(text, !head.has_length);
    }
    CHECK(parse("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n") > 0 && head.has_length &&
          head.content_length == 0);
    CHECK(parse("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n") > 0);
    CHECK(head.content_length == INT64_MAX);
    CHECK_EQ(parse("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n"),
             -PC_E_BAD);
}

/* Transfer-Encoding: "chunked" as it is always written; other codings before it 501, anything else
 * 400. */
static void
test_parse_head_takes_only_chunked(void)
{
    static const struct {
        const char *line;
        int status;
    } rows[] = {
        {"Transfer-Encoding: gzip, chunked", -PC_E_UNKNOWN},
        {"Transfer-Encoding: identity,chunked", -PC_E_UNKNOWN},
        {"Transfer-Encoding: gzip", -PC_E_BAD},
        {"Transfer-Encoding: identity", -PC_E_BAD},
        {"Transfer-Encoding: chunked, identity", -PC_E_BAD},
        {"Transfer-Encoding: xchunked", -PC_E_BAD},
        {"Transfer-Encoding: chunked,chunked", -PC_E_BAD},
        {"Transfer-Encoding:  chunked", -PC_E_BAD},
        {"Transfer-Encoding:\tchunked", -PC_E_BAD},
        {"Transfer-Encoding: chunked ", -PC_E_BAD},
        {"Transfer-Encoding: chunked,", -PC_E_BAD},
        {"Transfer-Encoding: ,chunked", -PC_E_BAD},
        {"Transfer-Encoding: Chunked", -PC_E_BAD},
        {"Transfer-Encoding:", -PC_E_BAD},
        {"Transfer-Encoding: chunked;a=b", -PC_E_BAD},
        {"Transfer-Encoding: \"chunked\"", -PC_E_BAD},
        {"Transfer-Encoding: g z, chunked", -PC_E_BAD},
        {"Transfer_Encoding: chunked", -PC_E_BAD},
        {"transfer_ENCODING: x", -PC_E_BAD},
        {"Content_Length: 5", -PC_E_BAD},
        {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", -PC_E_BAD},
        {"Transfer-Encoding: chunked\r\nContent-Length: 5", -PC_E_BAD},
        {"Content-Length: 5\r\nTransfer-Encoding: chunked", -PC_E_BAD},
    };
    char text[192];

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        snprintf(text, sizeof(text), "POST / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n", rows[i].line);
        CHECK_EQ_FOR(text, parse(text), rows[i].status);
        CHECK_FOR(text, !head.is_chunked);
    }
    CHECK(parse("POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding:chunked\r\n\r\n") > 0 &&
          head.is_chunked);
    CHECK_EQ(parse("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), -PC_E_BAD);
}

/* Lines end in CRLF, names are tokens right before the colon, values hold no control but the tab,
 * nothing is folded. */
static void
test_parse_head_refuses_malformed_field_lines(void)
{
    static const char *const lines[] = {
        "X: a\n",
        "X: a\r\r\n",
        "X: a\rb\r\n",
        "X: a\r\n b\r\n",
        "X: a\r\n\tb\r\n",
        "X : a\r\n",
        "X\t: a\r\n",
        ": a\r\n",
        "X\r\n",
        "X: \x01\r\n",
        "X: \x7f\r\n",
        "X: \x0b\r\n",
        "X@: a\r\n",
        "X\xc3: a\r\n",
        "(X): a\r\n",
        "\n",
        "X: aaaaaaaaaaaaaaaaaaaaaaaa\x1b[0m\r\n",
        "X: aaaaaaaaaaaaaaaa\x7fzzzzzzzz\r\n",
    };
    char text[192];

    for (size_t i = 0; i < COUNT_OF(lines); i++) {
        snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", lines[i]);
        CHECK_EQ_FOR(text, parse(text), -PC_E_BAD);
        snprintf(text, sizeof(text), "GET / HTTP/1.1\r\n%sHost: a\r\n\r\n", lines[i]);
        CHECK_EQ_FOR(text, parse(text), -PC_E_BAD);
    }
    CHECK_EQ(parse("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), -PC_E_BAD);
    CHECK_EQ(parse_pieces("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 33, 33, &usual), -PC_E_BAD);
    CHECK_EQ(parse_pieces("GET / HTTP/1.1\r\nHost: a\r\nX\0: \r\n\r\n", 33, 1, &usual), -PC_E_BAD);
    CHECK(parse("GET / HTTP/1.1\r\nHost: a\r\nX: \t\xc3\xbc\ta~\t\r\n\r\n") > 0);
    CHECK(is_text(pc_head_find(&head, bytes, PC_S("X")), "\xc3\xbc\ta~"));
}

/* Every byte in a value, at every place of an eight-byte step: what passes is what the table says.
 */
static void
test_parse_head_judges_every_byte_of_a_value(void)
{
    for (unsigned c = 0; c < 256; c++) {
        for (size_t at = 0; at < 9; at++) {
            char text[] = "GET / HTTP/1.0\r\nX: ................e\r\n\r\n";
            bool may = c == '\t' || (c >= 0x20 && c != 0x7f);
            int status;

            text[20 + at] = (char)c;
            status = parse_pieces(text, sizeof(text) - 1, sizeof(text) - 1, &usual);
            CHECK_EQ(status, may ? (int)sizeof(text) - 1 : -PC_E_BAD);
        }
    }
}

/* Host: once, well-formed, and needed in HTTP/1.1. */
static void
test_parse_head_wants_one_host(void)
{
    static const struct refusal refused[] = {
        {"GET / HTTP/1.1\r\n\r\n", -PC_E_BAD},
        {"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", -PC_E_BAD},
        {"GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", -PC_E_BAD},
        {"GET / HTTP/1.0\r\nHost: a b\r\n\r\n", -PC_E_BAD},
        {"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", -PC_E_BAD},
    };
    check_refusals(refused, COUNT_OF(refused));
    CHECK(parse("GET / HTTP/1.0\r\n\r\n") > 0 && head.host.len == 0);
    CHECK(parse("GET / HTTP/1.1\r\nHost:\r\n\r\n") > 0 && head.host.len == 0);
}

/* Connection options: close wins; HTTP/1.0 closes unless it asks to stay. */
static void
test_parse_head_reads_connection_options(void)
{
    CHECK(parse("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n") > 0 &&
          head.wants_close && !head.wants_keep);
    CHECK(
        parse("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n") >
        0);
    CHECK(head.wants_close && head.wants_keep);
    CHECK(parse("GET / HTTP/1.1\r\nHost: a\r\nConnection: closed, keep-alive2\r\n\r\n") > 0);
    CHECK(!head.wants_close && !head.wants_keep);
    CHECK(parse("GET / HTTP/1.0\r\n\r\n") > 0 && head.wants_close);
    CHECK(parse("GET / HTTP/1.0\r\nConnection: ,\tKeep-Alive ,\r\n\r\n") > 0 && !head.wants_close &&
          head.wants_keep);
    CHECK(parse("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n") > 0 && head.wants_close);
}

/* Expect: 100-continue and nothing else; HTTP/1.0 has no expectations. */
static void
test_parse_head_meets_one_expectation(void)
{
    static const struct refusal refused[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\nExpect: y 100-continue\r\n\r\n", -PC_E_EXPECT},
        {"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, 100-continue\r\n\r\n", -PC_E_EXPECT},
        {"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n\r\n",
         -PC_E_EXPECT},
        {"GET / HTTP/1.1\r\nHost: a\r\nExpect:\r\n\r\n", -PC_E_EXPECT},
    };
    check_refusals(refused, COUNT_OF(refused));
    CHECK(parse("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n\r\n") > 0 &&
          head.expects_continue);
    CHECK(parse("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n") > 0 && !head.expects_continue);
    CHECK(parse("GET / HTTP/1.0\r\nExpect: other\r\n\r\n") > 0);
}

/* A head whose target (or field value, with `in_field`) is filled up until that line has `len`
 * bytes without CRLF. */
static char *
long_line(size_t len, bool in_field)
{
    char *text = malloc(len + 64);
    int n;

    if (text == NULL)
        abort();
    if (in_field)
        n = snprintf(text, len + 64, "GET / HTTP/1.0\r\nX:%0*d\r\n\r\n", (int)len - 2, 0);
    else
        n = snprintf(text, len + 64, "GET /%0*d HTTP/1.0\r\n\r\n", (int)len - 14, 0);
    CHECK(n > 0);
    return text;
}

/* LimitRequestLine and LimitRequestFieldSize count a line without its CRLF: at the limit yes, one
 * more no. */
static void
test_parse_head_bounds_lines(void)
{
    static const struct pc_h1_limits small = {
        .line_bytes = 100, .field_bytes = 90, .field_count = 5};

    for (size_t len = 99; len <= 103; len++) {
        char *text = long_line(len, false);

        CHECK_EQ_FOR(text, parse_with(text, &small), len <= 100 ? (int)len + 4 : -PC_E_URI_LONG);
        free(text);
    }
    for (size_t len = 89; len <= 93; len++) {
        char *text = long_line(len, true);

        CHECK_EQ_FOR(text, parse_with(text, &small), len <= 90 ? (int)len + 20 : -PC_E_HEAD_LARGE);
        free(text);
    }
}

/* A line that never ends is refused once it has passed its limit. */
static void
test_parse_head_refuses_endless_lines(void)
{
    char *text = malloc(PC_MAX_HEAD_BYTES + 8);

    if (text == NULL)
        abort();
    memset(text, 'A', PC_MAX_HEAD_BYTES + 8);
    text[3] = ' ';
    CHECK_EQ(parse_pieces(text, PC_MAX_LINE_BYTES + 1, PC_MAX_LINE_BYTES + 1, &usual), 0);
    CHECK_EQ(parse_pieces(text, PC_MAX_LINE_BYTES + 2, PC_MAX_LINE_BYTES + 2, &usual),
             -PC_E_URI_LONG);
    memcpy(text, "GET / HTTP/1.0\r\nX:", 18);
    CHECK_EQ(parse_pieces(text, 16 + PC_MAX_LINE_BYTES + 1, 20000, &usual), 0);
    CHECK_EQ(parse_pieces(text, 16 + PC_MAX_LINE_BYTES + 2, 20000, &usual), -PC_E_HEAD_LARGE);
    free(text);
}

/* The number of fields is bounded, and by PC_MAX_FIELDS_HARD if the limit is higher or 0. */
static void
test_parse_head_bounds_the_number_of_fields(void)
{
    static const uint32_t limits[][2] = {{0, PC_MAX_FIELDS_HARD},
                                         {1, 1},
                                         {PC_MAX_FIELDS, PC_MAX_FIELDS},
                                         {PC_MAX_FIELDS_HARD, PC_MAX_FIELDS_HARD},
                                         {100000, PC_MAX_FIELDS_HARD}};
    for (size_t i = 0; i < COUNT_OF(limits); i++) {
        for (uint32_t count = limits[i][1] - 1; count <= limits[i][1] + 1; count++) {
            struct pc_h1_limits with = {
                .line_bytes = 100, .field_bytes = 100, .field_count = limits[i][0]};
            char text[4096] = "GET / HTTP/1.0\r\n";
            size_t used = 16;

            for (uint32_t n = 0; n < count; n++, used += 4)
                memcpy(text + used, "X:\r\n", 4);
            memcpy(text + used, "\r\n", 3);
            CHECK_EQ(parse_with(text, &with),
                     count <= limits[i][1] ? (int)used + 2 : -PC_E_HEAD_LARGE);
        }
    }
}

/* The whole head is bounded, whatever the limits of its lines are. */
static void
test_parse_head_bounds_the_whole_head(void)
{
    static const struct pc_h1_limits wide = {
        .line_bytes = UINT32_MAX, .field_bytes = UINT32_MAX, .field_count = 256};

    for (size_t total = PC_MAX_HEAD_BYTES - 1; total <= PC_MAX_HEAD_BYTES + 3; total++) {
        char *text = long_line(total - 20, true);
        int want = total <= PC_MAX_HEAD_BYTES ? (int)total : -PC_E_HEAD_LARGE;

        CHECK_EQ(parse_pieces(text, total, total, &wide), want);
        CHECK_EQ(parse_pieces(text, total, 1021, &wide), want);
        free(text);
        text = long_line(total - 4, false);
        want = total <= PC_MAX_HEAD_BYTES ? (int)total : -PC_E_URI_LONG;
        CHECK_EQ(parse_pieces(text, total, total, &wide), want);
        CHECK_EQ(parse_pieces(text, total, 1021, &wide), want);
        free(text);
    }
}

static int
peek_pieces(const char *text, size_t len, size_t piece, struct pc_slice *ret_name)
{
    size_t have = 0;
    int status = 0;

    while (status == 0 && have < len) {
        have = len - have < piece ? len : have + piece;
        free(bytes);
        bytes = check_copy(text, have);
        status = pc_h1_peek_name(bytes, have, ret_name);
    }
    return status;
}

static void
check_peek(const char *text, const char *name, int status)
{
    for (size_t piece = 1; piece <= strlen(text); piece += strlen(text) - 1) {
        struct pc_slice got = {0};

        CHECK_EQ_FOR(text, peek_pieces(text, strlen(text), piece, &got), status);
        if (status > 0)
            CHECK_FOR(text, is_text(got, name));
        else
            CHECK_FOR(text, got.base == NULL);
    }
}

/* The name is known at the end of the line it stands in; the authority of the target goes before
 * Host. */
static void
test_peek_name_needs_no_more_than_the_line(void)
{
    check_peek("GET / HTTP/1.1\r\nHost: a.b:80 \r\nX", "a.b:80", 31);
    check_peek("GET / HTTP/1.1\r\nHosts: no\r\nhOST:a\r\n", "a", 35);
    check_peek("GET http://a:1/ HTTP/1.1\r\nHost: b\r\n", "a:1", 26);
    check_peek("\r\nGET / HTTP/1.1\r\nHost: a\r\n", "a", 27);
    check_peek("GET / HTTP/1.0\r\nX: y\r\n\r\n", "", 24);
    check_peek("GET / HTTP/1.1\r\nHost:\r\n", "", 23);
    check_peek("GET / HTTP/1.1\r\nHost: a\r", NULL, 0);
}

/* It refuses what parse_head refuses of the bytes it looks at. */
static void
test_peek_name_refuses_as_the_parser_does(void)
{
    check_peek("\x16\x03\x01\x02", NULL, -PC_E_BAD);
    check_peek("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NULL, -PC_E_VERSION);
    check_peek("CONNECT a:1 HTTP/1.1\r\n", NULL, -PC_E_UNKNOWN);
    check_peek("GET / HTTP/1.1\r\n\r\n", NULL, -PC_E_BAD);
    check_peek("GET / HTTP/1.1\r\nHost : a\r\n", NULL, -PC_E_BAD);
    check_peek("GET / HTTP/1.1\r\nHost: a\n", NULL, -PC_E_BAD);
    check_peek("GET / HTTP/1.1\r\n\n", NULL, -PC_E_BAD);
    check_peek("GET / HTTP/1.1\r\nX: a\n\n", NULL, -PC_E_BAD);
}

/* Without a name it gives up at PC_MAX_PEEK_BYTES. */
static void
test_peek_name_is_bounded(void)
{
    struct pc_slice name;
    char *text = malloc(PC_MAX_PEEK_BYTES);

    if (text == NULL)
        abort();
    memset(text, 'A', PC_MAX_PEEK_BYTES);
    memcpy(text, "GET /", 5);
    CHECK_EQ(pc_h1_peek_name(text, PC_MAX_PEEK_BYTES - 3, &name), 0);
    CHECK_EQ(pc_h1_peek_name(text, PC_MAX_PEEK_BYTES, &name), -PC_E_URI_LONG);
    memcpy(text, "GET / HTTP/1.1\r\nX:", 18);
    CHECK_EQ(pc_h1_peek_name(text, PC_MAX_PEEK_BYTES - 1, &name), 0);
    CHECK_EQ(pc_h1_peek_name(text, PC_MAX_PEEK_BYTES, &name), -PC_E_HEAD_LARGE);
    free(text);
}

int
main(void)
{
    RUN(test_parse_head_finds_line_and_fields);
    RUN(test_parse_head_knows_every_field);
    RUN(test_parse_head_takes_no_neighbour_for_a_known_field);
    RUN(test_parse_head_sorts_methods);
    RUN(test_parse_head_sorts_targets);
    RUN(test_parse_head_tells_wrong_versions_from_malformed_ones);
    RUN(test_parse_head_refuses_foreign_protocols_at_once);
    RUN(test_parse_head_skips_one_empty_line);
    RUN(test_parse_head_reads_strict_content_lengths);
    RUN(test_parse_head_takes_only_chunked);
    RUN(test_parse_head_refuses_malformed_field_lines);
    RUN(test_parse_head_judges_every_byte_of_a_value);
    RUN(test_parse_head_wants_one_host);
    RUN(test_parse_head_reads_connection_options);
    RUN(test_parse_head_meets_one_expectation);
    RUN(test_parse_head_bounds_lines);
    RUN(test_parse_head_refuses_endless_lines);
    RUN(test_parse_head_bounds_the_number_of_fields);
    RUN(test_parse_head_bounds_the_whole_head);
    RUN(test_peek_name_needs_no_more_than_the_line);
    RUN(test_peek_name_refuses_as_the_parser_does);
    RUN(test_peek_name_is_bounded);
    free(bytes);
    return check_end();
}
