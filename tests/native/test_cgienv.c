/* test_cgienv.c - claims about native/cgienv.c: which variables a request has, and which nobody can make.
 * Runs as:  the developer.   Sees: requests made here.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: cgienv.c fields.c regex.c arena.c date.c errlog.c escape.c format.c h1.c host.c uri.c util.c wild.c */
/* libs: -lpcre2-8 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create */
#endif
#include <sys/mman.h>

#include "gateway.h"
#include "serve_case.h"

struct got {
    uint32_t count;
    struct pc_pair list[512];
    int stop_at; /* return -PC_E_BAD with this one; 0 = never */
};

static int
keep(void *to, struct pc_slice name, struct pc_slice value)
{
    struct got *got = to;

    if (got->count == COUNT_OF(got->list))
        abort();
    got->list[got->count++] = (struct pc_pair){name, value};
    return got->stop_at > 0 && got->count == (uint32_t)got->stop_at ? -PC_E_BAD : 0;
}

static struct got got;

static void
make(const struct pc_req *req, const struct pc_cgienv_facts *facts)
{
    memset(&got, 0, sizeof got);
    CHECK_EQ(pc_cgienv_each(req, facts, keep, &got), 0);
    for (uint32_t i = 0; i < got.count; i++)
        for (uint32_t j = 0; j < i; j++)
            CHECK(!pc_slice_eq(got.list[i].name, got.list[j].name));
}

static struct pc_slice
value_of(const char *name)
{
    for (uint32_t i = 0; i < got.count; i++)
        if (case_is(got.list[i].name, name))
            return got.list[i].value;
    return (struct pc_slice){0};
}

#define IS(name, want) CHECK_FOR(name, case_is(value_of(name), want))
#define NONE(name) CHECK_FOR(name, value_of(name).base == NULL)

static const struct pc_cgienv_facts no_facts = {.body_len = UINT64_MAX};

static struct pc_req *
ask(struct serve_case *one, const char *fields)
{
    struct pc_req *req = case_ask(one, "/cgi-bin/a.cgi/more/info", fields);

    one->host.document_root = PC_S("/srv/www/");
    req->filename = PC_S("/srv/cgi/a.cgi");
    case_address(&req->client, "::ffff:192.0.2.7");
    ((struct sockaddr_in6 *)(void *)&req->client)->sin6_port = htons(4711);
    case_address(&req->server, "2001:db8::1");
    return req;
}

static void
test_every_request_has_the_variables_of_rfc_3875_and_httpd(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = ask(one, "");
    struct pc_cgienv_facts facts = {.path_info = PC_S("/more/info"), .body_len = 0, .signature = PC_S("<hr>")};

    req->query = PC_S("a=1&b=2");
    make(req, &facts);
    IS("GATEWAY_INTERFACE", "CGI/1.1"), IS("SERVER_PROTOCOL", "HTTP/1.1"), IS("REQUEST_METHOD", "GET");
    IS("SERVER_SOFTWARE", "perchildd"), IS("SERVER_NAME", "www.example.org"), IS("SERVER_PORT", "80");
    IS("SERVER_ADDR", "2001:db8::1"), IS("SERVER_ADMIN", "[no address given]"), IS("SERVER_SIGNATURE", "<hr>");
    IS("REMOTE_ADDR", "192.0.2.7"), IS("REMOTE_PORT", "4711"), NONE("REMOTE_HOST");
    IS("DOCUMENT_ROOT", "/srv/www/"), IS("CONTEXT_PREFIX", ""), IS("CONTEXT_DOCUMENT_ROOT", "/srv/www/");
    IS("REQUEST_URI", "/"), IS("REQUEST_SCHEME", "http"), IS("QUERY_STRING", "a=1&b=2"), NONE("HTTPS");
    IS("SCRIPT_NAME", "/cgi-bin/a.cgi"), IS("SCRIPT_FILENAME", "/srv/cgi/a.cgi");
    IS("PATH_INFO", "/more/info"), IS("PATH_TRANSLATED", "/srv/www/more/info"), IS("HTTP_HOST", "www.example.org");
    NONE("CONTENT_LENGTH"), NONE("CONTENT_TYPE"), NONE("HTTP_PROXY");
    IS("PATH", "/usr/local/bin:/usr/bin:/bin");
    case_free(one);
}

static void
test_facts_replace_what_is_derived(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = ask(one, "Content-Length: 12\r\nContent-Type: text/x\r\n");
    struct pc_pair more[] = {{PC_S("PHP_VALUE"), PC_S("a=b")}, {PC_S("SERVER_NAME"), PC_S("mine")}};
    struct pc_cgienv_facts facts = {
        .kind = PC_CGIENV_FCGI, .gateway = PC_S("CGI/1.2"), .method = PC_S("POST"), .script_name = PC_S("/x"),
        .script_filename = PC_S("/f"), .path_info = PC_S("/p"), .path_translated = PC_S("/t"), .context_prefix = PC_S("/c"),
        .context_root = PC_S("/r"), .body_len = 12, .more = more, .more_count = 2,
    };

    req->is_tls = true;
    req->port_out = 8443;
    req->client_name = PC_S("client.example");
    one->host.admin = PC_S("me@example.org");
    make(req, &facts);
    IS("GATEWAY_INTERFACE", "CGI/1.2"), IS("REQUEST_METHOD", "POST"), IS("SCRIPT_NAME", "/x"), IS("SCRIPT_FILENAME", "/f");
    IS("PATH_INFO", "/p"), IS("PATH_TRANSLATED", "/t"), IS("CONTEXT_PREFIX", "/c"), IS("CONTEXT_DOCUMENT_ROOT", "/r");
    IS("CONTENT_LENGTH", "12"), IS("CONTENT_TYPE", "text/x"), NONE("HTTP_CONTENT_LENGTH"), NONE("HTTP_CONTENT_TYPE");
    IS("HTTPS", "on"), IS("REQUEST_SCHEME", "https"), IS("SERVER_PORT", "8443"), IS("REMOTE_HOST", "client.example");
    IS("PHP_VALUE", "a=b"), IS("SERVER_NAME", "mine"), IS("SERVER_ADMIN", "me@example.org"), NONE("PATH");
    facts.body_len = UINT64_MAX;
    make(req, &facts);
    NONE("CONTENT_LENGTH");
    facts.body_len = 0;
    make(req, &facts);
    IS("CONTENT_LENGTH", "0");
    case_free(one);
}

static void
test_a_script_without_path_info_has_neither_variable(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = ask(one, "");
    struct pc_cgienv_facts facts = {.path_translated = PC_S("/t"), .body_len = 0};

    make(req, &facts);
    IS("SCRIPT_NAME", "/cgi-bin/a.cgi/more/info"), NONE("PATH_INFO"), NONE("PATH_TRANSLATED"), IS("QUERY_STRING", "");
    facts.path_info = PC_S("/elsewhere");
    make(req, &facts);
    IS("SCRIPT_NAME", "/cgi-bin/a.cgi/more/info");
    case_free(one);
}

static void
test_fields_become_variables_only_if_no_two_can_be_one(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = ask(one, "Accept: a\r\nX-Some-Thing9: 1\r\nX_Some_Thing9: 2\r\nX.Y: 3\r\nACCEPT: b\r\nCookie: c=1\r\n"
                                  "cookie: d=2\r\nX~: 4\r\nEmpty:\r\nReferer: r\r\nAccept: c\r\n");

    make(req, &no_facts);
    IS("HTTP_ACCEPT", "a, b, c"), IS("HTTP_COOKIE", "c=1; d=2"), IS("HTTP_X_SOME_THING9", "1"), IS("HTTP_EMPTY", "");
    IS("HTTP_REFERER", "r"), NONE("HTTP_X.Y"), NONE("HTTP_X_Y"), NONE("HTTP_X~"), NONE("HTTP_X_");
    case_free(one);
}

static void
test_no_request_sets_a_proxy(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = ask(one, "Proxy: evil:80\r\nPROXY: evil:80\r\n");
    struct pc_pair edit = {PC_S("Proxy"), PC_S("evil:80")};

    make(req, &no_facts);
    NONE("HTTP_PROXY");
    pc_env_set(req, PC_S("HTTP_PROXY"), PC_S("evil:80"));
    pc_env_set(req, PC_S("HTTP-PROXY"), PC_S("evil:80"));
    req->in_edits = &edit;
    req->in_edit_count = 1;
    make(req, &no_facts);
    NONE("HTTP_PROXY"), NONE("HTTP-PROXY");
    case_free(one);
}

static void
test_authorization_goes_to_fastcgi_and_where_it_is_asked_for(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = ask(one, "Authorization: Basic x\r\nProxy-Authorization: y\r\n");
    struct pc_cgienv_facts facts = no_facts;

    make(req, &facts);
    NONE("HTTP_AUTHORIZATION"), NONE("HTTP_PROXY_AUTHORIZATION");
    facts.pass_auth = true;
    make(req, &facts);
    IS("HTTP_AUTHORIZATION", "Basic x");
    facts = (struct pc_cgienv_facts){.kind = PC_CGIENV_FCGI, .body_len = UINT64_MAX};
    make(req, &facts);
    IS("HTTP_AUTHORIZATION", "Basic x");
    pc_env_set(req, PC_S("HTTP_AUTHORIZATION"), PC_S("from a rule"));
    make(req, &facts);
    IS("HTTP_AUTHORIZATION", "Basic x");
    make(req, &no_facts);
    IS("HTTP_AUTHORIZATION", "from a rule");
    case_free(one);
}

/* CVE-2025-65082. */
static void
test_setenv_never_speaks_for_the_server(void)
{
    static const char *const names[] = {"REMOTE_ADDR", "REMOTE_HOST", "SCRIPT_FILENAME", "PATH_INFO", "PATH_TRANSLATED",
                                        "CONTENT_LENGTH", "CONTENT_TYPE", "QUERY_STRING", "HTTP_HOST", "REQUEST-METHOD"};
    struct serve_case *one = case_new();
    struct pc_req *req = ask(one, "");

    for (size_t i = 0; i < COUNT_OF(names); i++)
        pc_env_set(req, (struct pc_slice){names[i], strlen(names[i])}, PC_S("forged"));
    pc_env_set(req, PC_S("PATH"), PC_S("/opt/bin"));
    pc_env_set(req, PC_S("HTTPS"), PC_S("on"));
    pc_env_set(req, PC_S("9my var=x"), PC_S("1"));
    pc_env_set(req, PC_S("WITH_NUL"), (struct pc_slice){"a\0b", 3});
    pc_env_set(req, PC_S("REDIRECT_STATUS"), PC_S("404"));
    make(req, &no_facts);
    for (uint32_t i = 0; i < got.count; i++)
        CHECK(!case_is(got.list[i].value, "forged") && memchr(got.list[i].name.base, '=', got.list[i].name.len) == NULL);
    IS("PATH", "/opt/bin"), IS("HTTPS", "on"), IS("_my_var_x", "1"), NONE("WITH_NUL"), IS("REDIRECT_STATUS", "404");
    IS("REMOTE_ADDR", "192.0.2.7"), IS("REQUEST_METHOD", "GET"), NONE("CONTENT_TYPE");
    req->is_tls = true;
    pc_env_set(req, PC_S("HTTPS"), PC_S("off"));
    make(req, &no_facts);
    IS("HTTPS", "on");
    case_free(one);
}

static void
test_fields_are_as_requestheader_left_them(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = ask(one, "A: 1\r\nB: 2\r\nA: 3\r\nContent-Type: text/x\r\n");
    struct pc_pair edits[] = {{PC_S("a"), PC_S("new")}, {PC_S("B"), {0}}, {PC_S("C"), PC_S("added")}, {PC_S("C"), PC_S("last")},
                              {PC_S("Content-Type"), PC_S("text/y")}};

    req->in_edits = edits;
    req->in_edit_count = COUNT_OF(edits);
    make(req, &no_facts);
    IS("HTTP_A", "new"), NONE("HTTP_B"), IS("HTTP_C", "last"), IS("CONTENT_TYPE", "text/y");
    case_free(one);
}

static void
test_an_error_document_is_got(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = ask(one, "");

    one->head.method = (struct pc_span){0};
    one->head.method_id = PC_POST;
    req->error_status = 404;
    make(req, &no_facts);
    IS("REQUEST_METHOD", "GET");
    case_free(one);
}

static void
test_the_servers_own_come_last_and_the_sink_can_stop(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = ask(one, "A: 1\r\n");
    uint32_t at_env = 0, at_field = 0, at_server = 0;

    pc_env_set(req, PC_S("E"), PC_S("x"));
    make(req, &no_facts);
    for (uint32_t i = 0; i < got.count; i++) {
        at_env = case_is(got.list[i].name, "E") ? i : at_env;
        at_field = case_is(got.list[i].name, "HTTP_A") ? i : at_field;
        at_server = case_is(got.list[i].name, "SERVER_SOFTWARE") ? i : at_server;
    }
    CHECK(at_env < at_field && at_field < at_server);
    memset(&got, 0, sizeof got);
    got.stop_at = 3;
    CHECK_EQ(pc_cgienv_each(req, &no_facts, keep, &got), -PC_E_BAD);
    CHECK_EQ(got.count, 3);
    case_free(one);
}

static void
test_a_block_holds_whole_variables_or_says_that_it_is_full(void)
{
    char out[16];

    for (size_t cap = 0; cap <= 9; cap++) {
        struct pc_cgienv_block block = {.out = out, .cap = cap};

        memset(out, 0x55, sizeof out);
        CHECK_EQ(pc_cgienv_block_sink(&block, PC_S("A"), PC_S("b")), cap < 4 ? -PC_E_HEAD_LARGE : 0);
        CHECK_EQ(pc_cgienv_block_sink(&block, PC_S("CDE"), PC_S("")), cap == 9 ? 0 : -PC_E_HEAD_LARGE);
        CHECK(block.len <= cap && out[cap] == 0x55);
        if (cap == 9)
            CHECK(block.len == 9 && block.count == 2 && memcmp(out, "A=b\0CDE=\0", 9) == 0);
    }
}

int
main(void)
{
    RUN(test_every_request_has_the_variables_of_rfc_3875_and_httpd);
    RUN(test_facts_replace_what_is_derived);
    RUN(test_a_script_without_path_info_has_neither_variable);
    RUN(test_fields_become_variables_only_if_no_two_can_be_one);
    RUN(test_no_request_sets_a_proxy);
    RUN(test_authorization_goes_to_fastcgi_and_where_it_is_asked_for);
    RUN(test_setenv_never_speaks_for_the_server);
    RUN(test_fields_are_as_requestheader_left_them);
    RUN(test_an_error_document_is_got);
    RUN(test_the_servers_own_come_last_and_the_sink_can_stop);
    RUN(test_a_block_holds_whole_variables_or_says_that_it_is_full);
    return check_end();
}
