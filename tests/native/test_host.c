/* test_host.c - claims about native/host.c. */
/* sources: host.c util.c */
#include "pc.h"

#include "check.h"

struct row {
    const char *raw, *name; /* name NULL = refused */
    uint16_t port;
};

static void
check_rows(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct pc_hostname host = {.len = 999, .port = 999};
        struct pc_slice raw = CHECK_SLICE(rows[i].raw);
        int status = pc_host_parse(raw, &host);

        if (rows[i].name == NULL) {
            CHECK_EQ_FOR(rows[i].raw, status, -PC_E_BAD);
            CHECK_FOR(rows[i].raw, host.len == 999 && host.port == 999 && host.name[0] == '\0');
        } else {
            CHECK_EQ_FOR(rows[i].raw, status, 0);
            CHECK_FOR(rows[i].raw,
                      strcmp(host.name, rows[i].name) == 0 && host.len == strlen(rows[i].name));
            CHECK_EQ_FOR(rows[i].raw, host.port, rows[i].port);
        }
        free((void *)raw.base);
    }
}

/* Names, addresses and ports are read; case and a trailing dot make no difference. */
static void
test_host_parse_reads_names_in_lower_case_without_trailing_dot(void)
{
    static const struct row rows[] = {
        {"example.test", "example.test", 0},
        {"EXAMPLE.Test", "example.test", 0},
        {"example.test.", "example.test", 0},
        {"example.test.:8080", "example.test", 8080},
        {"a", "a", 0},
        {"a_b-c.xn--bcher-kva", "a_b-c.xn--bcher-kva", 0},
        {"127.0.0.1:80", "127.0.0.1", 80},
        {"a:0", "a", 0},
        {"a:65535", "a", 65535},
        {"a:00080", "a", 80},
        {"[::1]", "[::1]", 0},
        {"[2001:DB8::A]:443", "[2001:db8::a]", 443},
        {"[::ffff:127.0.0.1]", "[::ffff:127.0.0.1]", 0},
        {"", "", 0},
    };
    check_rows(rows, COUNT_OF(rows));
}

/* What is no name, IP literal or port is refused and nothing is written. */
static void
test_host_parse_refuses_everything_else(void)
{
    static const struct row rows[] = {
        {.raw = "."},
        {.raw = "a..b"},
        {.raw = ".a"},
        {.raw = "a.."},
        {.raw = "a:"},
        {.raw = ":80"},
        {.raw = "a:b"},
        {.raw = "a:80:90"},
        {.raw = "a:65536"},
        {.raw = "a:000080"},
        {.raw = "a:-1"},
        {.raw = "a: 80"},
        {.raw = "a b"},
        {.raw = " a"},
        {.raw = "a,b"},
        {.raw = "u@a"},
        {.raw = "a/b"},
        {.raw = "a\\b"},
        {.raw = "a%00b"},
        {.raw = "b\xc3\xbc"
                "cher.test"},
        {.raw = "a#b"},
        {.raw = "a?b"},
        {.raw = "a\tb"},
        {.raw = "http://a"},
        {.raw = "[]"},
        {.raw = "[::1"},
        {.raw = "::1"},
        {.raw = "[::1]x"},
        {.raw = "[::g]"},
        {.raw = "[fe80::1%eth0]"},
        {.raw = "[1.2.3.4]"},
        {.raw = "[::1]:"},
        {.raw = "[::1]:x"},
        {.raw = "["},
        {.raw = "a]"},
        {.raw = "*.a"},
        {.raw = "[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]"},
    };
    check_rows(rows, COUNT_OF(rows));
}

/* NUL inside a name or an IPv6 literal is refused: the text does not end there. */
static void
test_host_parse_refuses_nul(void)
{
    static const struct pc_slice raws[] = {
        {.base = "a\0b", .len = 3},
        {.base = "a\0", .len = 2},
        {.base = "\0", .len = 1},
        {.base = "[::1\0]", .len = 6},
    };
    for (size_t i = 0; i < COUNT_OF(raws); i++) {
        struct pc_hostname host;

        CHECK_EQ(pc_host_parse(raws[i], &host), -PC_E_BAD);
    }
}

/* 255 bytes are the most, not counting a trailing dot and the port. */
static void
test_host_parse_takes_names_up_to_the_limit(void)
{
    char text[PC_MAX_HOST_BYTES + 16];
    struct pc_hostname host;

    memset(text, 'a', sizeof(text));
    CHECK_EQ(pc_host_parse((struct pc_slice){.base = text, .len = PC_MAX_HOST_BYTES - 1}, &host),
             0);
    CHECK_EQ(pc_host_parse((struct pc_slice){.base = text, .len = PC_MAX_HOST_BYTES}, &host), 0);
    CHECK_EQ(host.len, PC_MAX_HOST_BYTES);
    CHECK_EQ(pc_host_parse((struct pc_slice){.base = text, .len = PC_MAX_HOST_BYTES + 1}, &host),
             -PC_E_BAD);
    memcpy(text + PC_MAX_HOST_BYTES, ".:80", 4);
    CHECK_EQ(pc_host_parse((struct pc_slice){.base = text, .len = PC_MAX_HOST_BYTES + 4}, &host),
             0);
    CHECK_EQ(host.port, 80);
}

int
main(void)
{
    RUN(test_host_parse_reads_names_in_lower_case_without_trailing_dot);
    RUN(test_host_parse_refuses_everything_else);
    RUN(test_host_parse_refuses_nul);
    RUN(test_host_parse_takes_names_up_to_the_limit);
    return check_end();
}
