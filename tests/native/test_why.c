/* test_why.c - claims about native/why.c: each sentence is what httpd 2.4.71 wrote for the same bytes, but where a row says else. */
/* sources: why.c h1.c host.c util.c */
#include "pc.h"

#include "check.h"

#define HOST "Host: x\r\n"
#define GET "GET / HTTP/1.1\r\n" HOST

static const struct pc_h1_limits usual = {
    .line_bytes = PC_MAX_LINE_BYTES,
    .field_bytes = PC_MAX_LINE_BYTES,
    .field_count = PC_MAX_FIELDS,
};

struct row {
    const char *raw;
    enum pc_level level;
    const char *text;
};

/* Parse from a block of exactly this size, and check what is said of it. */
static void
check_raw(const char *raw, size_t len, enum pc_level level, const char *text)
{
    struct pc_head head;
    struct pc_why why;
    char *copy = check_copy(raw, len);

    memset(&head, 0, offsetof(struct pc_head, fields));
    int error = pc_h1_parse_head(&head, copy, len, &usual);
    CHECK_FOR(raw, error < 0);
    pc_why_refused(error, (struct pc_slice){copy, len}, &usual, &why);
    CHECK_EQ_FOR(text, why.level, level);
    CHECK_FOR(why.text, strcmp(why.text, text) == 0);
    free(copy);
}

static void
test_each_refusal_has_its_sentence(void)
{
    static const struct row rows[] = {
        {"G@T / HTTP/1.1\r\n" HOST "\r\n", PC_DEBUG, "AH03445: HTTP Request Line; Invalid method token: 'G@T'"},
        {"garbage\r\n\r\n", PC_DEBUG, "AH03454: HTTP Request Line; URI incorrectly encoded: ''"},
        {"get / HTTP/1.1\r\n" HOST "\r\n", PC_DEBUG, "AH03445: HTTP Request Line; Invalid method token: 'get'"},
        {"GET\r\n\r\n", PC_DEBUG, "AH03454: HTTP Request Line; URI incorrectly encoded: ''"},
        {"GET /\r\n\r\n", PC_DEBUG, "AH02401: HTTP Request Line; Rejected HTTP/0.9 request"},
        {"GET  / HTTP/1.1\r\n" HOST "\r\n", PC_DEBUG,
         "AH03448: HTTP Request Line; Excess whitespace (disallowed by HttpProtocolOptions Strict)"},
        {"GET / foo HTTP/1.1\r\n" HOST "\r\n", PC_DEBUG,
         "AH03448: HTTP Request Line; Excess whitespace (disallowed by HttpProtocolOptions Strict)"},
        {"GET / HTPP/1.1\r\n" HOST "\r\n", PC_DEBUG,
         "AH02418: HTTP Request Line; Unrecognized protocol 'HTPP/1.1' (perhaps whitespace was injected?)"},
        {"GET / HTTP/2.0\r\n" HOST "\r\n", PC_DEBUG, /* httpd serves it */
         "AH02418: HTTP Request Line; Unrecognized protocol 'HTTP/2.0' (perhaps whitespace was injected?)"},
        {"GET /\x01 HTTP/1.1\r\n" HOST "\r\n", PC_DEBUG, "AH03454: HTTP Request Line; URI incorrectly encoded: '/\x01'"},
        {"GET / HTTP/1.1\nHost: x\n\n", PC_DEBUG, "AH00566: request failed: malformed request line"},
        {"GET foo HTTP/1.1\r\n" HOST "\r\n", PC_DEBUG, "AH03450: HTTP Request Line; Unable to parse URI: 'foo'"},
        {"GET * HTTP/1.1\r\n" HOST "\r\n", PC_DEBUG, "AH03450: HTTP Request Line; Unable to parse URI: '*'"},
        {"CONNECT x:80 HTTP/1.1\r\n" HOST "\r\n", PC_ERROR, /* httpd answers 405 */
         "AH00135: Invalid method in request CONNECT x:80 HTTP/1.1"},
        {GET "foo bar\r\n\r\n", PC_DEBUG, "AH02426: Request header field name is malformed: foo bar"},
        {GET "fo(o: bar\r\n\r\n", PC_DEBUG, "AH02426: Request header field name is malformed: fo(o: bar"},
        {GET "foo : bar\r\n\r\n", PC_DEBUG, "AH02426: Request header field name is malformed: foo : bar"},
        {GET ": bar\r\n\r\n", PC_DEBUG, "AH02426: Request header field name is malformed: : bar"},
        {GET "foo: b\x01""ar\r\n\r\n", PC_DEBUG, "AH02427: Request header value is malformed: b\x01""ar"},
        {GET "foo: a\rb\r\n\r\n", PC_DEBUG, "AH02427: Request header value is malformed: a\rb"},
        {"GET / HTTP/1.1\r\n foo: bar\r\n" HOST "\r\n", PC_DEBUG, "AH03442: Line folding encountered before first header line"},
        {"GET / HTTP/1.1\r\n\r\n", PC_DEBUG,
         "AH00569: client sent HTTP/1.1 request without hostname (see RFC2616 section 14.23): /"},
        {"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", PC_DEBUG, "AH00550: Client sent malformed Host header: x/y"},
        {GET "Host: y\r\n\r\n", PC_DEBUG, "AH00550: Client sent malformed Host header: y"}, /* httpd: "x, y" */
        {GET "Expect: foo\r\n\r\n", PC_INFO, "AH00570: client sent an unrecognized expectation value of Expect: foo"},
        {GET "Transfer-Encoding: gzip\r\n\r\n", PC_DEBUG, "AH02539: client sent unknown Transfer-Encoding (gzip): /"},
        {GET "Content-Length: abc\r\n\r\n", PC_DEBUG, "AH10242: client sent invalid Content-Length (abc): /"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        check_raw(rows[i].raw, strlen(rows[i].raw), rows[i].level, rows[i].text);
}

/* A NUL, as the first bytes of TLS have it. */
static void
test_binary_is_a_malformed_line(void)
{
    static const char hello[] = "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n";
    check_raw(hello, sizeof hello - 1, PC_DEBUG, "AH00566: request failed: malformed request line");
}

static void
test_what_is_too_long_is_named_with_its_limit(void)
{
    enum { MUCH = 9000 };
    static char raw[MUCH + 200];
    char much[MUCH];
    memset(much, 'a', sizeof much);
    int len = snprintf(raw, sizeof raw, "GET /%.*s HTTP/1.1\r\n" HOST "\r\n", MUCH, much);
    check_raw(raw, (size_t)len, PC_INFO, "AH00565: request failed: URI too long (longer than 8190)");
    len = snprintf(raw, sizeof raw, GET "X-Long: %.*s\r\n\r\n", MUCH, much);
    check_raw(raw, (size_t)len, PC_INFO, "AH00561: Request header exceeds LimitRequestFieldSize: X-Long");
    len = snprintf(raw, sizeof raw, GET);
    for (int i = 0; i < PC_MAX_FIELDS; i++)
        len += snprintf(raw + len, sizeof raw - (size_t)len, "A: b\r\n");
    check_raw(raw, (size_t)len, PC_INFO, "AH00563: Number of request headers exceeds LimitRequestFields");
}

/* The peek refuses with fewer bytes than the parser would want; and what it quotes is short. */
static void
test_a_refusal_of_the_peek_is_explained_too(void)
{
    static const char blank[] = "GET / HTTP/1.1\r\nHost : x\r\n";
    struct pc_why why;
    char raw[300];
    pc_why_refused(-PC_E_BAD, PC_S(blank), &usual, &why);
    CHECK_FOR(why.text, strcmp(why.text, "AH02426: Request header field name is malformed: Host : x") == 0);
    int len = snprintf(raw, sizeof raw, "%0200d / HTTP/1.1\r\n", 0);
    pc_why_refused(-PC_E_BAD, (struct pc_slice){raw, (size_t)len}, &usual, &why);
    CHECK_EQ(strlen(why.text), strlen("AH00135: Invalid method in request ") + 80);
}

int
main(void)
{
    RUN(test_each_refusal_has_its_sentence);
    RUN(test_binary_is_a_malformed_line);
    RUN(test_what_is_too_long_is_named_with_its_limit);
    RUN(test_a_refusal_of_the_peek_is_explained_too);
    return check_end();
}
