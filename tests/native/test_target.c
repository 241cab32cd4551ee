/* test_target.c - claims about native/target.c. */
/* sources: target.c util.c */
#include "gateway.h"

#include "check.h"

struct row {
    const char *text;
    int kind;
    const char *host; /* or socket, or service number */
    unsigned port;
    const char *authority, *path, *scheme;
};

static bool
is(struct pc_slice s, const char *text)
{
    return s.len == strlen(text) && (s.len == 0 || memcmp(s.base, text, s.len) == 0);
}

static void
test_targets_are_taken_apart(void)
{
    static const struct row rows[] = {
        {"http://127.0.0.1:8080/a/b", PC_TARGET_TCP, "127.0.0.1", 8080, "127.0.0.1:8080", "/a/b", "http"},
        {"http://h", PC_TARGET_TCP, "h", 0, "h", "", "http"},
        {"ws://h/", PC_TARGET_TCP, "h", 0, "h", "/", "ws"},
        {"http://[::1]:9/x", PC_TARGET_TCP, "::1", 9, "[::1]:9", "/x", "http"},
        {"http://[::1]", PC_TARGET_TCP, "::1", 0, "[::1]", "", "http"},
        {"fcgi://h:9000/dir", PC_TARGET_TCP, "h", 9000, "h:9000", "/dir", "fcgi"},
        {"unix:/run/a.sock|http://h/p", PC_TARGET_UNIX, "/run/a.sock", 0, "h", "/p", "http"},
        {"unix:/run/a.sock|fcgi://localhost", PC_TARGET_UNIX, "/run/a.sock", 0, "localhost", "", "fcgi"},
        {"unix:/s|http:///p", PC_TARGET_UNIX, "/s", 0, "", "/p", "http"},
        {"service:3/app/x", PC_TARGET_SERVICE, "3", 0, "", "/app/x", ""},
        {"service:0", PC_TARGET_SERVICE, "0", 0, "", "", ""},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct pc_target target;
        struct pc_slice text = CHECK_SLICE(rows[i].text);
        CHECK_EQ_FOR(rows[i].text, pc_target_parse(text, &target), 0);
        CHECK_EQ_FOR(rows[i].text, target.kind, rows[i].kind);
        if (rows[i].kind == PC_TARGET_SERVICE)
            CHECK_EQ_FOR(rows[i].text, target.service, atoi(rows[i].host));
        else
            CHECK_FOR(rows[i].text, is(rows[i].kind == PC_TARGET_UNIX ? target.socket : target.host, rows[i].host));
        CHECK_EQ_FOR(rows[i].text, target.port, rows[i].port);
        CHECK_FOR(rows[i].text, is(target.authority, rows[i].authority));
        CHECK_FOR(rows[i].text, is(target.path, rows[i].path));
        CHECK_FOR(rows[i].text, is(target.scheme, rows[i].scheme));
        free((void *)text.base);
    }
}

static void
test_what_is_no_target_is_refused(void)
{
    static const char *const rows[] = {
        "", "http", "http:", "http://", "http:///x", "http://:80/", "http://h:0/", "http://h:65536/", "http://h:8x/", "http://[::1/",
        "http://[::1]x/", "unix:", "unix:/", "unix:/s", "unix:s|http://h/", "unix:/s|", "unix:/s|h", "service:", "service:x", "service:-1",
        "service:4294967295", "service:1x", "!", "://h/",
        "unix:/0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678|http://h/",
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct pc_target target;
        struct pc_slice text = CHECK_SLICE(rows[i]);
        CHECK_EQ_FOR(rows[i], pc_target_parse(text, &target), -PC_E_BAD);
        free((void *)text.base);
    }
}

static void
test_paths_are_encoded_as_httpd_does(void)
{
    static const char *const rows[][2] = {
        {"/a/b", "/a/b"}, {"/~$-_.+!*'(),;:@&=", "/~$-_.+!*'(),;:@&="}, {"/ ?#%\"<>", "/%20%3F%23%25%22%3C%3E"}, {"/\xc3\xbc", "/%C3%BC"},
        {"/\r\n", "/%0D%0A"}, {"", ""},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct pc_slice path = CHECK_SLICE(rows[i][0]);
        char *out = malloc(3 * path.len + 1);
        CHECK_FOR(rows[i][0], is((struct pc_slice){out, pc_target_escape(path, out)}, rows[i][1]));
        free(out);
        free((void *)path.base);
    }
}

int
main(void)
{
    RUN(test_targets_are_taken_apart);
    RUN(test_what_is_no_target_is_refused);
    RUN(test_paths_are_encoded_as_httpd_does);
    return check_end();
}
