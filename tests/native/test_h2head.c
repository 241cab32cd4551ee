/* test_h2head.c - claims about native/h2head.c and native/h2peek.c: fields of HTTP/2 become a head that h1.c judges, or none.
 * Runs as:  the developer.   Sees: fixed bytes.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: h2head.c h2peek.c h1.c host.c util.c */
/* libs: -lnghttp2 */
#include <stdarg.h>

#include "h2.h"

#include "check.h"

#define KEY "a2V5a2V5a2V5a2V5a2V5aw=="
#define GET {":method", "GET"}, {":scheme", "http"}, {":authority", "own.test"}, {":path", "/a?b"}

struct pair { const char *name, *value; };

static struct pc_slice
text_of(const char *s)
{
    return (struct pc_slice){s, strlen(s)};
}

/* The head's text, or NULL and *ret_error. Free it. */
static char *
make(const struct pair *pairs, size_t count, int *ret_error)
{
    struct pc_h2head head = {.max_fields = 100};
    struct pc_slice text = {0};
    for (size_t i = 0; i < count; i++)
        pc_h2head_field(&head, text_of(pairs[i].name), text_of(pairs[i].value));
    *ret_error = pc_h2head_finish(&head, PC_S(KEY), &text);
    pc_h2head_free(&head);
    char *copy = *ret_error == 0 ? malloc(text.len + 1) : NULL;
    if (copy != NULL) {
        memcpy(copy, text.base, text.len);
        copy[text.len] = '\0';
    }
    free((void *)(uintptr_t)text.base);
    return copy;
}

static void
check_text(const struct pair *pairs, size_t count, const char *want)
{
    int error = 0;
    char *text = make(pairs, count, &error);
    CHECK_EQ_FOR(want, error, 0);
    CHECK_FOR(text != NULL ? text : "none", text != NULL && strcmp(text, want) == 0);
    free(text);
}

static void
check_error(const struct pair *pairs, size_t count, int want)
{
    int error = 0;
    char *text = make(pairs, count, &error);
    CHECK_EQ_FOR(pairs[count - 1].value, error, want);
    free(text);
}

#define TEXT(want, ...)                                \
    do {                                               \
        const struct pair pairs_[] = {__VA_ARGS__};    \
        check_text(pairs_, COUNT_OF(pairs_), (want));  \
    } while (0)
#define ERROR(want, ...)                               \
    do {                                               \
        const struct pair pairs_[] = {__VA_ARGS__};    \
        check_error(pairs_, COUNT_OF(pairs_), (want)); \
    } while (0)

static void
a_request_becomes_a_head(void)
{
    TEXT("GET /a?b HTTP/1.1\r\nhost: own.test\r\n\r\n", GET);
    TEXT("GET /a?b HTTP/1.1\r\nhost: own.test\r\nuser-agent: x y\r\nx-empty: \r\n\r\n", GET, {"user-agent", "x y"}, {"x-empty", ""});
    TEXT("OPTIONS * HTTP/1.1\r\nhost: h:8080\r\n\r\n", {":path", "*"}, {":scheme", "https"}, {":method", "OPTIONS"}, {"host", "h:8080"});
    TEXT("GET /a?b HTTP/1.1\r\nhost: own.test\r\n\r\n", GET, {"host", "OWN.test"});
    TEXT("GET / HTTP/1.1\r\n\r\n", {":method", "GET"}, {":scheme", "http"}, {":path", "/"}); /* h1.c misses the host */
    TEXT("CONNECT own.test:443 HTTP/1.1\r\nhost: own.test:443\r\n\r\n", {":method", "CONNECT"}, {":authority", "own.test:443"});
}

static void
cookies_are_one_line_again(void)
{
    TEXT("GET /a?b HTTP/1.1\r\nhost: own.test\r\nte: trailers\r\ncookie: a=1; b=2; c=3\r\n\r\n", GET, {"cookie", "a=1"},
         {"cookie", "b=2"}, {"te", "trailers"}, {"cookie", "c=3"});
}

static void
a_websocket_is_an_upgrade(void)
{
    TEXT("GET /ws HTTP/1.1\r\nhost: own.test\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: " KEY
         "\r\nsec-websocket-version: 13\r\n\r\n",
         {":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "https"}, {":path", "/ws"}, {":authority", "own.test"},
         {"sec-websocket-key", "another"}, {"sec-websocket-version", "13"});
    ERROR(-PC_E_BAD, GET, {":protocol", "websocket"});
    ERROR(-PC_E_BAD, {":method", "CONNECT"}, {":protocol", "websocket"}, {":authority", "own.test"});
    ERROR(-PC_E_BAD, {":method", "CONNECT"}, {":authority", "own.test:1"}, {":path", "/"}, {":scheme", "http"});
}

static void
what_would_end_its_line_is_refused(void)
{
    ERROR(-PC_E_BAD, GET, {"x", "a\r\nb: c"});
    ERROR(-PC_E_BAD, GET, {"x", "a\nb"});
    ERROR(-PC_E_BAD, GET, {"x: y", "a"});
    ERROR(-PC_E_BAD, GET, {"x\r\ny", "a"});
    ERROR(-PC_E_BAD, GET, {"X-Upper", "a"});
    ERROR(-PC_E_BAD, GET, {"", "a"});
    ERROR(-PC_E_BAD, GET, {"x", " a"});
    ERROR(-PC_E_BAD, GET, {"x", "a\t"});
    ERROR(-PC_E_BAD, {":method", "GET / HTTP/1.1\r\nx: y\r\n\r\nGET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/"});
    ERROR(-PC_E_BAD, {":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/ HTTP/1.1\r\nx: y"});
    ERROR(-PC_E_BAD, {":method", "GET"}, {":scheme", "http"}, {":authority", "a\r\nx: y"}, {":path", "/"});
    ERROR(-PC_E_BAD, {":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "http://other/"});
    ERROR(-PC_E_BAD, {":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "other/"});
    ERROR(-PC_E_BAD, {":method", "GET"}, {":scheme", "ftp"}, {":authority", "a"}, {":path", "/"});
}

static void
what_speaks_of_a_connection_is_refused(void)
{
    ERROR(-PC_E_BAD, GET, {"connection", "close"});
    ERROR(-PC_E_BAD, GET, {"keep-alive", "5"});
    ERROR(-PC_E_BAD, GET, {"proxy-connection", "close"});
    ERROR(-PC_E_BAD, GET, {"transfer-encoding", "chunked"});
    ERROR(-PC_E_BAD, GET, {"upgrade", "h2c"});
    ERROR(-PC_E_BAD, GET, {"te", "gzip"});
}

static void
pseudo_fields_are_there_once_and_first(void)
{
    ERROR(-PC_E_BAD, GET, {":path", "/again"});
    ERROR(-PC_E_BAD, GET, {"x", "y"}, {":protocol", "websocket"});
    ERROR(-PC_E_BAD, GET, {":status", "200"});
    ERROR(-PC_E_BAD, {":scheme", "http"}, {":authority", "a"}, {":path", "/"});
    ERROR(-PC_E_BAD, {":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", ""});
    ERROR(-PC_E_BAD, {":method", "GET"}, {":authority", "a"}, {":path", "/"});
    ERROR(-PC_E_BAD, GET, {"host", "other.test"});
    ERROR(-PC_E_BAD, GET, {"host", "own.test"}, {"host", "own.test"});
}

/* Every piece of a cookie counts, and every byte that is decoded. */
static void
too_many_or_too_large_is_refused(void)
{
    static const struct pair request[] = {GET};
    struct pc_slice text = {0};
    struct pc_h2head head = {.max_fields = 100};
    for (int i = 0; i < 4; i++)
        pc_h2head_field(&head, text_of(request[i].name), text_of(request[i].value));
    for (int i = 0; i < 102; i++)
        pc_h2head_field(&head, PC_S("cookie"), PC_S("a"));
    CHECK_EQ(pc_h2head_finish(&head, PC_S(KEY), &text), -PC_E_HEAD_LARGE);
    pc_h2head_free(&head);
    static char large[4000];
    memset(large, 'x', sizeof large);
    for (int i = 0; i < 4; i++)
        pc_h2head_field(&head, text_of(request[i].name), text_of(request[i].value));
    for (int i = 0; i < 9; i++)
        pc_h2head_field(&head, PC_S("x"), (struct pc_slice){large, sizeof large});
    CHECK_EQ(pc_h2head_finish(&head, PC_S(KEY), &text), -PC_E_HEAD_LARGE);
    CHECK(head.text.cap <= 2 * PC_MAX_HEAD_BYTES && head.decoded_bytes > PC_MAX_HEAD_BYTES);
    pc_h2head_free(&head);
}

/* ------------------------------------------------------------------ the name, peeked at */

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define SETTINGS "\0\0\0\4\0\0\0\0\0"
#define BYTES(literal) (literal), sizeof(literal) - 1

static void
check_name(const char *raw, size_t len, int want, const char *name)
{
    int status = 0;
    for (size_t have = 1; have <= len && status == 0; have++) {
        char bytes[2 * PC_H2_NAME_BYTES], *copy = malloc(have);
        struct pc_slice found = {0};
        if (copy == NULL)
            abort();
        memcpy(copy, raw, have);
        status = pc_h2_peek_name(copy, have, bytes, &found);
        CHECK(status <= 0 || (size_t)status == have);
        CHECK_FOR(name, status <= 0 || (found.len == strlen(name) && memcmp(found.base, name, found.len) == 0));
        free(copy);
    }
    CHECK_EQ_FOR(name, status < 0 ? status : status > 0, want);
}

static void
the_name_is_found_before_anything_is_read(void)
{
    /* literals without indexing: 0x41 is ":authority" by number, "a.test" */
    check_name(BYTES(PREFACE SETTINGS "\0\0\x08\1\4\0\0\0\1\x41\6a.test"), 1, "a.test");
    check_name(BYTES(PREFACE SETTINGS "\0\0\4\x08\0\0\0\0\0\0\1\0\0" "\0\0\x0d\1\x24\0\0\0\1\0\0\0\0\x10\x41\6a.test"), 1, "a.test");
    check_name(BYTES(PREFACE SETTINGS "\0\0\x0b\1\xc\0\0\0\1\2\x41\6a.test\0\0"), 1, "a.test"); /* padded */
    check_name(BYTES(PREFACE SETTINGS "\0\0\3\1\0\0\0\0\1\x41\6a" "\0\0\5\x09\4\0\0\0\1.test"), 1, "a.test"); /* continued */
    check_name(BYTES(PREFACE SETTINGS "\0\0\x08\1\4\0\0\0\1\x66\6b.test"), 1, "b.test"); /* host */
    check_name(BYTES(PREFACE SETTINGS "\0\0\1\1\4\0\0\0\1\x82"), 1, ""); /* neither */
}

static void
what_is_no_beginning_is_refused(void)
{
    check_name(BYTES("PRI * HTTP/2.0\r\n\r\nSX"), -PC_E_BAD, "");
    check_name(BYTES(PREFACE "\0\0\1\1\4\0\0\0\1\x82"), -PC_E_BAD, ""); /* no SETTINGS */
    check_name(BYTES(PREFACE SETTINGS "\0\0\1\1\4\0\0\0\1\xff"), -PC_E_BAD, ""); /* half an index */
    check_name(BYTES(PREFACE SETTINGS "\0\0\3\1\0\0\0\0\1\x41\6a" "\0\0\0\4\0\0\0\0\0"), -PC_E_BAD, ""); /* a frame in between */
    check_name(BYTES(PREFACE SETTINGS "\0\0\2\1\x0c\0\0\0\1\7\0"), -PC_E_BAD, ""); /* more padding than frame */
    check_name(BYTES(PREFACE SETTINGS "\0\0\x10\1\4\0\0\0\1\x41\6a.test\x41\6a.test"), -PC_E_BAD, ""); /* two names */
    check_name(BYTES(PREFACE "\1\0\0\4\0\0\0\0\0"), -PC_E_HEAD_LARGE, "");
    check_name(BYTES(PREFACE SETTINGS), 0, "");
}

int
main(void)
{
    RUN(a_request_becomes_a_head);
    RUN(cookies_are_one_line_again);
    RUN(a_websocket_is_an_upgrade);
    RUN(what_would_end_its_line_is_refused);
    RUN(what_speaks_of_a_connection_is_refused);
    RUN(pseudo_fields_are_there_once_and_first);
    RUN(too_many_or_too_large_is_refused);
    RUN(the_name_is_found_before_anything_is_read);
    RUN(what_is_no_beginning_is_refused);
    return check_end();
}
