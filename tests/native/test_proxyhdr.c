/* test_proxyhdr.c - claims about native/proxyhdr.c: both versions as the specification has them, and nothing that is near. */
/* sources: proxyhdr.c util.c */
#include <arpa/inet.h>

#include "pc.h"

#include "check.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define BYTES(literal) (literal), sizeof(literal) - 1

/* What comes of bytes that arrive one by one: the header must be found with its last byte, and not before; an error may come
 * earlier, but then is the same. The block is no larger than what is there. */
static int
parse(const char *raw, size_t len, struct pc_proxyhdr *ret_header, const char **ret_why)
{
    int status = 0;
    for (size_t have = 0; have <= len && status == 0; have++) {
        char *copy = malloc(have > 0 ? have : 1);
        if (copy == NULL)
            abort();
        memcpy(copy, raw, have);
        status = pc_proxyhdr_parse(copy, have, ret_header, ret_why);
        CHECK(status <= 0 || (size_t)status == have);
        free(copy);
    }
    struct pc_proxyhdr whole = {0};
    const char *why = NULL;
    CHECK_EQ(pc_proxyhdr_parse(raw, len, &whole, &why), status);
    CHECK(status >= 0 || why == *ret_why || strstr(why, "AH03496") == NULL);
    return status;
}

static void
check_client(const struct pc_proxyhdr *header, const char *address, unsigned port)
{
    char text[INET6_ADDRSTRLEN] = "";
    if (address == NULL) {
        CHECK(!header->has_client);
        return;
    }
    bool is_v6 = header->client.any.sa_family == AF_INET6;
    const void *at = is_v6 ? (const void *)&header->client.v6.sin6_addr : (const void *)&header->client.v4.sin_addr;
    CHECK(header->has_client && inet_ntop(header->client.any.sa_family, at, text, sizeof text) != NULL);
    CHECK_FOR(text, strcmp(text, address) == 0);
    CHECK_EQ(ntohs(is_v6 ? header->client.v6.sin6_port : header->client.v4.sin_port), port);
}

static void
test_lines_name_the_client(void)
{
    static const struct { const char *line, *address; unsigned port; } rows[] = {
        {"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", "192.0.2.1", 56324},
        {"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255", 65535},
        {"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0", 0},
        {"PROXY TCP6 2001:db8::1 ::1 1 2\r\n", "2001:db8::1", 1},
        {"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535},
        {"PROXY UNKNOWN\r\n", NULL, 0},
        {"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", NULL, 0},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct pc_proxyhdr header = {0};
        const char *why = NULL;
        CHECK_EQ_FOR(rows[i].line, parse(rows[i].line, strlen(rows[i].line), &header, &why), strlen(rows[i].line));
        check_client(&header, rows[i].address, rows[i].port);
    }
}

static void
test_lines_that_are_near_are_refused(void)
{
    static const struct { const char *line, *why; } rows[] = {
        {"GET / HTTP/1.1\r\n", "AH03496"},
        {"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "AH03496"},
        {"PROXYTCP4 192.0.2.1 192.0.2.2 1 2\r\n", "AH03496"},
        {"\r\n\r\nGET", "AH03496"},
        {"PROXY \r\n", "AH03497"},
        {"PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "AH03497"},
        {"PROXY TCP4\r\n", "no client-address"},
        {"PROXY TCP4 192.0.2.1\r\n", "no destination-address"},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", "no client-port"},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", "no client-port"},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", "no client-port"},
        {"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n", "AH03499"},
        {"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", "AH03499"},
        {"PROXY TCP4 2001:db8::1 ::1 1 2\r\n", "AH03500"},
        {"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", "AH03500"},
        {"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n", "AH03500"},
        {"PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n", "AH03500"},
        {"PROXY TCP4 192.0.2.1 nowhere 1 2\r\n", "AH03500"},
        {"PROXY TCP4 192.0.02.1 192.0.2.2 1 2\r\n", "AH03500"},
        {"PROXY TCP6 fe80::1%lo ::1 1 2\r\n", "AH03500"},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n", "AH03501"},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", "AH03501"},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", "AH03501"},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", "AH03501"},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", "AH10185"},
        {"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 655350\r\n", "AH10185"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct pc_proxyhdr header = {.has_client = true};
        const char *why = "";
        CHECK_EQ_FOR(rows[i].line, parse(rows[i].line, strlen(rows[i].line), &header, &why), -PC_E_BAD);
        CHECK_FOR(why, strstr(why, rows[i].why) != NULL);
        CHECK(header.has_client);
    }
    struct pc_proxyhdr header = {0};
    const char *why = "";
    CHECK_EQ(parse(BYTES("PROXY TCP4 192.0.2.1\0 192.0.2.2 1 2\r\n"), &header, &why), -PC_E_BAD);
}

static void
test_bytes_name_the_client(void)
{
    static const char v4[] = SIGNATURE "\x21\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\2\xdc\4\1\xbb";
    static const char v6[] = SIGNATURE "\x21\x21\0\x24\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
                                       "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\2\0\1\1\xbb";
    static const char with_more[] = SIGNATURE "\x21\x11\0\x14\xc0\0\2\1\xc6\x33\x64\2\xdc\4\1\xbb\2\0\5hello";
    static const char local[] = SIGNATURE "\x20\0\0\0", local_with_more[] = SIGNATURE "\x20\x11\0\3\4\0\0";
    static const char unspecified[] = SIGNATURE "\x21\0\0\5\1\2\3\4\5";
    static const struct { const char *raw; size_t len; const char *address; unsigned port; } rows[] = {
        {BYTES(v4), "192.0.2.1", 56324}, {BYTES(v6), "2001:db8::1", 1}, {BYTES(with_more), "192.0.2.1", 56324},
        {BYTES(local), NULL, 0}, {BYTES(local_with_more), NULL, 0}, {BYTES(unspecified), NULL, 0},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct pc_proxyhdr header = {0};
        const char *why = NULL;
        CHECK_EQ(parse(rows[i].raw, rows[i].len, &header, &why), rows[i].len);
        check_client(&header, rows[i].address, rows[i].port);
    }
}

static void
test_bytes_that_are_near_are_refused(void)
{
    static const struct { const char *raw; size_t len; const char *why; } rows[] = {
        {BYTES("\r\n\r\n\0\r\nQUIP\n\x21\x11\0\x0c"), "AH03496"},
        {BYTES(SIGNATURE "\x11\x11\0\x0c"), "AH03509"},
        {BYTES(SIGNATURE "\x31\x11\0\x0c"), "AH03509"},
        {BYTES(SIGNATURE "\x22\x11\0\x0c"), "AH03507"},
        {BYTES(SIGNATURE "\x2f\x11\0\x0c"), "AH03507"},
        {BYTES(SIGNATURE "\x21\x11\2\x09"), "AH10186"}, /* 16 + 521 */
        {BYTES(SIGNATURE "\x20\0\xff\xff"), "AH10186"},
        {BYTES(SIGNATURE "\x21\x11\0\x0b\1\2\3\4\1\2\3\4\0\1\0"), "AH10597"},
        {BYTES(SIGNATURE "\x21\x11\0\0"), "AH10597"},
        {BYTES(SIGNATURE "\x21\x21\0\x0c\1\2\3\4\1\2\3\4\0\1\0\2"), "AH10598"},
        {BYTES(SIGNATURE "\x21\x12\0\x0c\1\2\3\4\1\2\3\4\0\1\0\2"), "AH10183"},
        {BYTES(SIGNATURE "\x21\x31\0\0"), "AH10183"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct pc_proxyhdr header = {.has_client = true};
        const char *why = "";
        CHECK_EQ_FOR(rows[i].why, parse(rows[i].raw, rows[i].len, &header, &why), -PC_E_BAD);
        CHECK_FOR(why, strstr(why, rows[i].why) != NULL);
        CHECK(header.has_client);
    }
}

static void
test_the_longest_header_is_taken_and_no_byte_behind_one(void)
{
    char longest[PC_MAX_PROXYHDR_BYTES + 16];
    struct pc_proxyhdr header = {0};
    const char *why = NULL;
    memset(longest, 7, sizeof longest);
    memcpy(longest, SIGNATURE "\x21\x11\2\x08\xc0\0\2\1\xc6\x33\x64\2\xdc\4\1\xbb", 28); /* 16 + 520 */
    CHECK_EQ(pc_proxyhdr_parse(longest, sizeof longest, &header, &why), PC_MAX_PROXYHDR_BYTES);
    CHECK_EQ(pc_proxyhdr_parse(longest, PC_MAX_PROXYHDR_BYTES - 1, &header, &why), 0);
    CHECK_EQ(pc_proxyhdr_parse(BYTES("PROXY UNKNOWN\r\nPROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"), &header, &why), 15);
}

int
main(void)
{
    RUN(test_lines_name_the_client);
    RUN(test_lines_that_are_near_are_refused);
    RUN(test_bytes_name_the_client);
    RUN(test_bytes_that_are_near_are_refused);
    RUN(test_the_longest_header_is_taken_and_no_byte_behind_one);
    return check_end();
}
