/* test_h1out.c - claims about native/h1out.c: what a back end is sent, and what its addresses become.
 * Runs as:  the developer.   Sees: requests made here.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: h1out.c cgienv.c fields.c regex.c arena.c date.c errlog.c escape.c format.c h1.c host.c uri.c util.c wild.c */
/* libs: -lpcre2-8 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create */
#endif
#include <sys/mman.h>

#include "gateway.h"
#include "serve_case.h"

static struct pc_req *
ask(struct serve_case *one, const char *fields)
{
    struct pc_req *req = case_ask(one, "/", fields);

    case_address(&req->client, "192.0.2.7");
    return req;
}

static const struct pc_h1out_facts usual = {
    .target = {"/app/x?y=1", 10}, .host = {"127.0.0.1:8080", 14}, .keep = true,
};

/* The head in a buffer of exactly its size; and nothing smaller holds it. */
static void
check_head(const struct pc_req *req, const struct pc_h1out_facts *facts, const char *want)
{
    size_t len = strlen(want);
    char *out = malloc(len);

    if (out == NULL)
        abort();
    CHECK_EQ_FOR(want, pc_h1out_head(req, facts, out, len), len);
    CHECK_FOR(want, memcmp(out, want, len) == 0);
    for (size_t cap = 0; cap < len; cap++)
        CHECK_EQ(pc_h1out_head(req, facts, out, cap), -PC_E_HEAD_LARGE);
    free(out);
}

/* Whether the head holds this text. */
static bool
has_line(const struct pc_req *req, const struct pc_h1out_facts *facts, const char *line)
{
    static char out[8192];
    int len = pc_h1out_head(req, facts, out, sizeof out - 1);

    CHECK(len > 0);
    out[len > 0 ? len : 0] = '\0';
    return strstr(out, line) != NULL;
}

#define OURS \
    "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Host: www.example.org\r\nX-Forwarded-Server: www.example.org\r\n" \
    "X-Forwarded-Proto: http\r\n"

static void
test_a_head_has_its_line_host_fields_and_our_word(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = ask(one, "Accept: a\r\nCookie: b=c\r\nCookie: d=e\r\n");
    struct pc_h1out_facts facts = usual;

    check_head(req, &facts, "GET /app/x?y=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAccept: a\r\nCookie: b=c\r\nCookie: d=e\r\n" OURS "\r\n");
    facts.no_forwarded = true;
    facts.preserve_host = true;
    facts.keep = false;
    facts.framing = PC_H1OUT_LENGTH;
    facts.length = 1234567890123;
    facts.method = PC_S("PUT");
    check_head(req, &facts, "PUT /app/x?y=1 HTTP/1.1\r\nHost: www.example.org\r\nAccept: a\r\nCookie: b=c\r\nCookie: d=e\r\n"
                            "Content-Length: 1234567890123\r\nConnection: close\r\n\r\n");
    facts.framing = PC_H1OUT_CHUNKED;
    CHECK(has_line(req, &facts, "\r\nTransfer-Encoding: chunked\r\n"));
    facts.takes_trailers = true;
    CHECK(has_line(req, &facts, "\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n"));
    facts.keep = true;
    CHECK(has_line(req, &facts, "\r\nTE: trailers\r\nConnection: TE\r\n\r\n"));
    facts.is_upgrade = true;
    CHECK(!has_line(req, &facts, "\r\nTE:") && has_line(req, &facts, "\r\nConnection: Upgrade\r\n"));
    case_free(one);
}

static void
test_what_is_between_client_and_us_ends_here(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = ask(one, "Connection: close, X-Mine,,x-more\r\nX-Mine: 1\r\nX-More: 2\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n"
                                  "TE: trailers\r\nTrailer: x\r\nUpgrade: h2c\r\nProxy-Authorization: x\r\nProxy: evil\r\n"
                                  "Content-Length: 3\r\nX_Forwarded_For: 1\r\nHost_: 2\r\nUser-Agent: u\r\n"
                                  "x-forwarded_proto: https\r\nKeep_Alive: 1\r\n");
    struct pc_h1out_facts facts = usual;

    check_head(req, &facts, "GET /app/x?y=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nHost_: 2\r\nUser-Agent: u\r\n" OURS "\r\n");
    req = ask(one, "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n");
    facts.no_forwarded = true;
    check_head(req, &facts, "GET /app/x?y=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n");
    case_free(one);
}

/* CVE-2022-31813: Connection names what the back end decides by. */
static void
test_connection_cannot_take_away_what_the_host_says(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = ask(one, "Connection: X-Forwarded-For, X-Forwarded-Proto, X-User, Host\r\nX-Forwarded-For: 198.51.100.1\r\n"
                                  "X-Forwarded-Proto: https\r\nX-User: root\r\n");
    struct pc_pair edit = {PC_S("X-User"), PC_S("guest")};

    check_head(req, &usual, "GET /app/x?y=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n" OURS "\r\n");
    req->in_edits = &edit;
    req->in_edit_count = 1;
    check_head(req, &usual, "GET /app/x?y=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nX-User: guest\r\n" OURS "\r\n");
    case_free(one);
}

static void
test_forwarded_fields_get_our_word_behind_the_clients(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = ask(one, "X-Forwarded-For: 198.51.100.1\r\nx-forwarded-for: 198.51.100.2\r\nX-Forwarded-Host: h\r\n"
                                  "X-Forwarded-Server: s\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For:\r\n");
    struct pc_h1out_facts facts = usual;

    check_head(req, &usual, "GET /app/x?y=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nX-Forwarded-Proto: https\r\n"
                            "X-Forwarded-For: 198.51.100.1, 198.51.100.2, 192.0.2.7\r\nX-Forwarded-Host: h, www.example.org\r\n"
                            "X-Forwarded-Server: s, www.example.org\r\n\r\n");
    req->is_tls = true;
    CHECK(has_line(req, &usual, "\r\nX-Forwarded-Proto: https\r\n\r\n"));
    facts.no_forwarded = true;
    CHECK(has_line(req, &facts, "X-Forwarded-For: 198.51.100.1\r\nx-forwarded-for: 198.51.100.2\r\nX-Forwarded-Host: h\r\n"));
    req = ask(one, "X-Forwarded-Proto: http\r\n");
    req->is_tls = true;
    CHECK(has_line(req, &usual, "\r\nX-Forwarded-Proto: https\r\n") && !has_line(req, &usual, "Proto: http\r\n"));
    case_free(one);
}

static void
test_fields_are_as_requestheader_left_them(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = ask(one, "A: 1\r\nB: 2\r\nA: 3\r\n");
    struct pc_pair edits[] = {{PC_S("a"), PC_S("new")}, {PC_S("B"), {0}}, {PC_S("C"), PC_S("added")}, {PC_S("Host"), PC_S("set")}};
    struct pc_h1out_facts facts = usual;

    req->in_edits = edits;
    req->in_edit_count = COUNT_OF(edits);
    facts.no_forwarded = facts.preserve_host = true;
    check_head(req, &facts, "GET /app/x?y=1 HTTP/1.1\r\nHost: set\r\nA: new\r\nC: added\r\n\r\n");
    case_free(one);
}

static void
test_nothing_leaves_its_line(void)
{
    static const char *const targets[] = {"", "x", "/a b", "/a\r\nX: y", "/a\n", "/\x01", "/\x7f", "/\xc3\xa4", "/a#b", "**", "http://h/"};
    static const char *const values[] = {"a\r\nX: y", "a\n", "a\r", "a\x01"};
    struct serve_case *one = case_new();
    struct pc_req *req = ask(one, "");
    struct pc_h1out_facts facts = usual;
    char out[4096];

    for (size_t i = 0; i < COUNT_OF(targets); i++) {
        facts.target = (struct pc_slice){targets[i], strlen(targets[i])};
        CHECK_EQ_FOR(targets[i], pc_h1out_head(req, &facts, out, sizeof out), -PC_E_BAD);
    }
    facts = usual;
    for (size_t i = 0; i < COUNT_OF(values); i++) {
        struct pc_slice value = {values[i], strlen(values[i])};
        struct pc_pair edit = {PC_S("A"), value};

        facts.host = value;
        CHECK_EQ_FOR(values[i], pc_h1out_head(req, &facts, out, sizeof out), -PC_E_BAD);
        req->in_edits = &edit;
        req->in_edit_count = 1;
        CHECK_EQ_FOR(values[i], pc_h1out_head(req, &usual, out, sizeof out), -PC_E_BAD);
        edit = (struct pc_pair){PC_S("X-Forwarded-For"), value};
        CHECK_EQ_FOR(values[i], pc_h1out_head(req, &usual, out, sizeof out), -PC_E_BAD);
        edit = (struct pc_pair){value, PC_S("a")};
        CHECK_EQ_FOR(values[i], pc_h1out_head(req, &usual, out, sizeof out), -PC_E_BAD);
        req->in_edit_count = 0;
    }
    facts.method = PC_S("A B");
    CHECK_EQ(pc_h1out_head(req, &facts, out, sizeof out), -PC_E_BAD);
    facts = usual;
    facts.target = PC_S("*");
    CHECK(pc_h1out_head(req, &facts, out, sizeof out) > 0);
    case_free(one);
}

static void
test_an_upgrade_takes_connection_and_upgrade_along(void)
{
    static const struct {
        const char *fields;
        bool wants;
    } rows[] = {
        {"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n", true},
        {"Connection: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n", true},
        {"Connection: upgrade\r\n", false},
        {"Connection: upgrade\r\nUpgrade:\r\n", false},
        {"Upgrade: websocket\r\n", false},
        {"Connection: upgrade-not\r\nUpgrade: websocket\r\n", false},
    };
    struct serve_case *one = case_new();
    struct pc_h1out_facts facts = usual;
    struct pc_req *req;

    for (size_t i = 0; i < COUNT_OF(rows); i++)
        CHECK_EQ_FOR(rows[i].fields, pc_h1out_wants_upgrade(ask(one, rows[i].fields)), rows[i].wants);
    req = ask(one, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n");
    facts.is_upgrade = facts.no_forwarded = true;
    facts.keep = false;
    check_head(req, &facts, "GET /app/x?y=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nSec-WebSocket-Key: k\r\n"
                            "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    one->head.minor = 0;
    CHECK(!pc_h1out_wants_upgrade(req));
    one->head.minor = 1;
    one->head.method_id = PC_POST;
    CHECK(!pc_h1out_wants_upgrade(req));
    case_free(one);
}

static void
test_location_is_turned_around_at_whole_parts(void)
{
    static const struct {
        const char *path, *url, *location, *want; /* NULL = as it is */
    } rows[] = {
        {"/app/", "http://b:8080/", "http://b:8080/x?y#z", "http://me/app/x?y#z"},
        {"/app", "http://b:8080", "http://b:8080/x", "http://me/app/x"},
        {"/app", "http://b:8080/", "http://b:8080/x", "http://me/app/x"},
        {"/app/", "http://b:8080", "HTTP://B:8080/x", "http://me/app/x"},
        {"/app", "http://b/in", "http://b/in", "http://me/app"},
        {"/app/", "http://b/in/", "http://b/in", "http://me/app"},
        {"/app", "http://b/in", "http://b/in?q", "http://me/app?q"},
        {"/", "http://b:8080/", "http://b:8080/x", "http://me/x"},
        {"/", "http://b:8080/", "http://b:8080", "http://me/"},
        {"/", "http://b:8080/", "http://b:8080?q", "http://me/?q"},
        {"/app", "http://b:80", "http://b:8080/x", NULL},
        {"/app", "http://b", "http://b.evil/x", NULL},
        {"/app", "http://b", "http://b@evil/x", NULL},
        {"/app", "http://b/in", "http://b/IN/x", NULL},
        {"/app", "http://b/in", "http://b/inner", NULL},
        {"/app", "http://b/", "https://b/", NULL},
        {"/app", "http://b/", "", NULL},
        {"/app", "unix:/run/s|http://b/", "http://b/x", "http://me/app/x"},
        {"/app", "/in", "/in/x", "http://me/app/x"},
        {"/app", "/", "/x", "http://me/app/x"},
        {"/app", "/", "http://b/", NULL},
    };
    struct pc_arena arena = {0};

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct pc_pair pairs[] = {{PC_S("/no"), PC_S("http://none/")},
                                  {{rows[i].path, strlen(rows[i].path)}, {rows[i].url, strlen(rows[i].url)}}};
        struct pc_slice location = CHECK_SLICE(rows[i].location);
        struct pc_slice got = pc_proxy_reverse(&arena, location, PC_S("http://me"), pairs, 2);

        CHECK_FOR(rows[i].location, rows[i].want == NULL ? got.base == NULL : case_is(got, rows[i].want));
        free((void *)(uintptr_t)location.base);
    }
    pc_arena_free(&arena);
}

static void
test_cookies_get_public_paths_and_domains(void)
{
    static const struct {
        const char *cookie, *want; /* NULL = as it is */
    } rows[] = {
        {"a=b; Path=/in/x; Secure", "a=b; Path=/out/x; Secure"},
        {"a=b;path=/in", "a=b;path=/out/"},
        {"a=b; Path=/in/", "a=b; Path=/out/"},
        {"a=b; Path = /in/x", "a=b; Path = /out/x"},
        {"a=b; Path=/inner", NULL},
        {"a=b; Path=/IN/x", NULL},
        {"a=b; Path=", NULL},
        {"a=b; Path", NULL},
        {"a=b", NULL},
        {"Path=/in/x", NULL},
        {"", NULL},
        {";", NULL},
        {"a=b;;Path=/x; Path=/in/x;", "a=b;;Path=/x; Path=/out/x;"},
        {"a=b; Domain=Internal.example; Path=/in/x; HttpOnly", "a=b; Domain=www.example.org; Path=/out/x; HttpOnly"},
        {"a=b; Domain=.internal.example", "a=b; Domain=www.example.org"},
        {"a=b; Domain=other.example", NULL},
        {"a=b; Domain=", NULL},
    };
    static const struct pc_pair paths[] = {{{"/in/", 4}, {"/out/", 5}}, {{"/in/x", 5}, {"/never", 6}}};
    static const struct pc_pair domains[] = {{{"internal.example", 16}, {"www.example.org", 15}}};
    static const struct pc_pair root[] = {{{"/", 1}, {"/app", 4}}};
    struct pc_arena arena = {0};

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct pc_slice cookie = CHECK_SLICE(rows[i].cookie), got = pc_proxy_cookie(&arena, cookie, paths, 2, domains, 1);

        CHECK_FOR(rows[i].cookie, case_is(got, rows[i].want != NULL ? rows[i].want : rows[i].cookie));
        CHECK_FOR(rows[i].cookie, (got.base == cookie.base) == (rows[i].want == NULL));
        free((void *)(uintptr_t)cookie.base);
    }
    CHECK(case_is(pc_proxy_cookie(&arena, PC_S("a=b; Path=/x"), root, 1, NULL, 0), "a=b; Path=/app/x"));
    CHECK(case_is(pc_proxy_cookie(&arena, PC_S("a=b; Path=/"), root, 1, NULL, 0), "a=b; Path=/app"));
    pc_arena_free(&arena);
}

int
main(void)
{
    RUN(test_a_head_has_its_line_host_fields_and_our_word);
    RUN(test_what_is_between_client_and_us_ends_here);
    RUN(test_connection_cannot_take_away_what_the_host_says);
    RUN(test_forwarded_fields_get_our_word_behind_the_clients);
    RUN(test_fields_are_as_requestheader_left_them);
    RUN(test_nothing_leaves_its_line);
    RUN(test_an_upgrade_takes_connection_and_upgrade_along);
    RUN(test_location_is_turned_around_at_whole_parts);
    RUN(test_cookies_get_public_paths_and_domains);
    return check_end();
}
