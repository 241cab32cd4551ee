/* test_trailer.c - claims about native/trailer.c: which trailers go on, and what of the Trailer field. */
/* sources: trailer.c chunked.c reply.c arena.c util.c */
#include "gateway.h"

#include "check.h"

static struct pc_arena arena;
static struct pc_reply reply;

#define HEAD "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x-hop , ,X-Two\r\nconnection: close\r\n\r\n"

static void
set_up(void)
{
    memset(&reply, 0, sizeof reply);
    CHECK(pc_reply_parse_http(&reply, HEAD, strlen(HEAD), false) > 0);
}

/* What comes of a section, as "name=value|". */
static const char *
take(const char *section)
{
    static char text[1024];
    const struct pc_pair *fields = NULL;
    char *copy = check_copy(section, strlen(section));
    size_t len = 0;
    uint32_t count = pc_trailer_take(&arena, (struct pc_slice){copy, strlen(section)}, &reply, HEAD, &fields);
    text[0] = '\0';
    for (uint32_t i = 0; i < count; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%.*s=%.*s|", (int)fields[i].name.len, fields[i].name.base,
                                (int)fields[i].value.len, fields[i].value.base);
    free(copy);
    pc_arena_reset(&arena);
    return text;
}

static void
test_fields_go_on_in_their_order_without_blanks_around_them(void)
{
    set_up();
    CHECK(strcmp(take("\r\n"), "") == 0);
    CHECK(strcmp(take("Grpc-Status:0\r\nX-A: \t b c \t\r\nX-A:\r\nserver-timing: db;dur=1\r\n\r\n"),
                 "Grpc-Status=0|X-A=b c|X-A=|server-timing=db;dur=1|") == 0);
    CHECK(strcmp(take("X-A: a:b\r\n\r\nX-B: 1\r\n"), "X-A=a:b|") == 0);
}

static void
test_what_belongs_into_a_head_is_left_out(void)
{
    static const char *const names[] = {
        "Content-Length", "transfer-encoding", "Connection", "Keep-Alive", "TE", "Trailer", "Upgrade", "Host", "Via", "Location", "Set-Cookie",
        "SET-COOKIE2", "Authorization", "WWW-Authenticate", "Proxy-Authenticate", "Proxy-Connection", "Cookie", "Cache-Control", "Expires", "Date",
        "Vary", "Age", "If-Match", "Range", "Expect", "Content-Type", "Content-Encoding", "Content-Range", "Content-Security-Policy", "Status",
        "Access-Control-Allow-Origin", "Sec-WebSocket-Accept", "X-Hop", "x-two", "Close",
    };
    static const char *const others[] = {
        "ETag", "Content-Digest", "Content-MD5", "Repr-Digest", "Digest", "Server-Timing", "Grpc-Message", "X-Hop2", "X-Ho", "Hosts", "Tea", "Conten",
        "Authentication-Info", "If", "Proxy",
    };
    char line[64];
    set_up();
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        (void)snprintf(line, sizeof line, "%s: 1\r\nX: 2\r\n\r\n", names[i]);
        CHECK_FOR(names[i], strcmp(take(line), "X=2|") == 0);
    }
    for (size_t i = 0; i < COUNT_OF(others); i++) {
        struct pc_slice name = {others[i], strlen(others[i])};
        CHECK_FOR(others[i], pc_trailer_may_pass(&reply, HEAD, name));
    }
}

static void
test_what_may_not_pass_is_not_announced(void)
{
    static const struct { const char *list, *left; } rows[] = {
        {"X-A", "X-A"}, {"X-A,X-B", "X-A, X-B"}, {" x-a ,, x-hop, Date ,b,", "x-a, b"}, {"a,b,c", "a, b, c"}, {"Date", ""}, {"", ""}, {",", ""},
        {"X A, \"b\", c", "c"},
    };
    set_up();
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char *copy = check_copy(rows[i].list, strlen(rows[i].list));
        struct pc_slice left = pc_trailer_names(&arena, (struct pc_slice){copy, strlen(rows[i].list)}, &reply, HEAD);
        CHECK_FOR(rows[i].list, left.len == strlen(rows[i].left) && memcmp(left.base, rows[i].left, left.len) == 0);
        free(copy);
        pc_arena_reset(&arena);
    }
}

int
main(void)
{
    RUN(test_fields_go_on_in_their_order_without_blanks_around_them);
    RUN(test_what_belongs_into_a_head_is_left_out);
    RUN(test_what_may_not_pass_is_not_announced);
    pc_arena_free(&arena);
    return check_end();
}
