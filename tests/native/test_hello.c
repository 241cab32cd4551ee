/* test_hello.c - claims about native/hello.c: the name is found however a ClientHello is cut up, and nothing else is taken for one. */
/* sources: hello.c host.c util.c */
#include "pc.h"

#include "check.h"

#define ROOM 40000

struct bytes {
    uint8_t base[ROOM];
    size_t len;
};

static void
put(struct bytes *to, const void *raw, size_t len)
{
    if (len > ROOM - to->len)
        abort();
    memcpy(to->base + to->len, raw, len);
    to->len += len;
}

static void
put_number(struct bytes *to, size_t number, size_t count)
{
    while (count-- > 0) {
        uint8_t byte = (uint8_t)(number >> (8 * count));

        put(to, &byte, 1);
    }
}

static void
put_zeros(struct bytes *to, size_t count)
{
    while (count-- > 0)
        put(to, "", 1);
}

static void
put_extension(struct bytes *to, uint32_t type, const void *raw, size_t len)
{
    put_number(to, type, 2);
    put_number(to, len, 2);
    put(to, raw, len);
}

static void
put_name(struct bytes *to, const char *name, size_t len)
{
    struct bytes list = {.len = 0};

    put_number(&list, len + 3, 2);
    put_number(&list, 0, 1);
    put_number(&list, len, 2);
    put(&list, name, len);
    put_extension(to, 0, list.base, list.len);
}

/* What most of the tests begin with: GREASE, key shares of `share` bytes, then the name if it is not NULL, then more. */
static struct bytes
extensions(const char *name, size_t name_len, size_t share)
{
    static const uint8_t zeros[ROOM];
    struct bytes all = {.len = 0};

    put_extension(&all, 0x1a1a, "", 0);
    put_extension(&all, 51, zeros, share);
    if (name != NULL)
        put_name(&all, name, name_len);
    put_extension(&all, 0xfafa, "x", 1);
    return all;
}

/* A ClientHello's handshake message. */
static struct bytes
message(const struct bytes *all)
{
    struct bytes body = {.len = 0}, whole = {.len = 0};

    put_number(&body, 0x0303, 2);
    put_zeros(&body, 32);
    put_number(&body, 32, 1);
    put_zeros(&body, 32);
    put_number(&body, 6, 2);
    put(&body, "\x0a\x0a\x13\x01\x13\x02", 6);
    put(&body, "\x01\x00", 2);
    if (all != NULL) {
        put_number(&body, all->len, 2);
        put(&body, all->base, all->len);
    }
    put_number(&whole, 1, 1);
    put_number(&whole, body.len, 3);
    put(&whole, body.base, body.len);
    return whole;
}

/* In records of at most `most` bytes. */
static struct bytes
records(const struct bytes *text, size_t most)
{
    struct bytes all = {.len = 0};

    for (size_t at = 0; at < text->len; at += most) {
        size_t len = text->len - at < most ? text->len - at : most;

        put(&all, "\x16\x03\x01", 3);
        put_number(&all, len, 2);
        put(&all, text->base + at, len);
    }
    return all;
}

/* What comes of bytes that arrive in pieces of `step`, in blocks that are no larger: it stays the same with all that follows. */
static int
parse_by(const struct bytes *raw, size_t step, struct pc_hello *ret_hello)
{
    int status = 0;

    for (size_t have = 0; status == 0; have = have + step < raw->len ? have + step : raw->len) {
        char *copy = check_copy((const char *)raw->base, have);

        status = pc_hello_parse(copy, have, ret_hello);
        CHECK(status <= 0 || (size_t)status <= have);
        free(copy);
        if (have == raw->len)
            break;
    }
    return status;
}

static int
parse(const struct bytes *raw, struct pc_hello *ret_hello)
{
    struct pc_hello again;
    int status = parse_by(raw, 1, ret_hello);

    CHECK_EQ(pc_hello_parse((const char *)raw->base, raw->len, &again), status);
    CHECK(status <= 0 || strcmp(again.name.name, ret_hello->name.name) == 0);
    return status;
}

static int
parse_name(const char *name, size_t len, struct pc_hello *ret_hello)
{
    struct bytes all = extensions(name, len, 4), text = message(&all), raw = records(&text, ROOM);

    return parse(&raw, ret_hello);
}

static void
test_the_name_is_found_whatever_stands_before_it(void)
{
    struct pc_hello hello;

    CHECK(parse_name("www.example.org", 15, &hello) > 0);
    CHECK(strcmp(hello.name.name, "www.example.org") == 0 && hello.name.len == 15);
    CHECK(parse_name("WWW.Example.ORG.", 16, &hello) > 0);
    CHECK(strcmp(hello.name.name, "www.example.org") == 0);
}

static void
test_the_name_is_found_however_records_are_cut(void)
{
    struct bytes all = extensions("www.example.org", 15, 4), text = message(&all);
    struct pc_hello hello;

    for (size_t most = 1 + text.len / PC_MAX_HELLO_RECORDS; most <= text.len; most++) {
        struct bytes raw = records(&text, most);

        CHECK(parse(&raw, &hello) > 0);
        CHECK(strcmp(hello.name.name, "www.example.org") == 0);
    }
    struct bytes raw = records(&text, 1); /* more records than anybody needs */
    CHECK_EQ(parse(&raw, &hello), -PC_E_HEAD_LARGE);
}

static void
test_a_large_hello_is_read_as_it_arrives(void)
{
    struct bytes all = extensions("pq.example.org", 14, 1216 + 32), text = message(&all), raw = records(&text, ROOM);
    struct pc_hello hello;

    CHECK(parse_by(&raw, 700, &hello) > 0);
    CHECK(strcmp(hello.name.name, "pq.example.org") == 0);
    all = extensions("pq.example.org", 14, 11900);
    text = message(&all);
    raw = records(&text, 4000);
    CHECK(parse_by(&raw, 1400, &hello) > 0);
    CHECK(raw.len < PC_MAX_PEEK_BYTES);
    all = extensions("pq.example.org", 14, PC_MAX_HELLO_BYTES);
    text = message(&all);
    raw = records(&text, 4000);
    CHECK_EQ(parse_by(&raw, 1400, &hello), -PC_E_HEAD_LARGE);
}

static void
test_without_a_name_the_whole_hello_is_needed(void)
{
    struct bytes all = extensions(NULL, 0, 4), text = message(&all), raw = records(&text, ROOM);
    struct pc_hello hello;

    CHECK_EQ(parse(&raw, &hello), (int)raw.len);
    CHECK_EQ(hello.name.len, 0);
    text = message(NULL); /* before RFC 3546 there were no extensions */
    raw = records(&text, ROOM);
    CHECK_EQ(parse(&raw, &hello), (int)raw.len);
    CHECK_EQ(hello.name.len, 0);
}

static void
test_a_name_that_no_host_can_have_is_refused(void)
{
    static const struct { const char *name; size_t len; } bad[] = {
        {"a\0b", 3}, {"a b", 3}, {"a/../b", 6}, {"[::1]", 5}, {"a:443", 5}, {"::1", 3}, {"\xc3\xa4.example", 10}, {"..", 2}, {"a\r\nb", 4},
    };
    char large[400];
    struct pc_hello hello;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_EQ(parse_name(bad[i].name, bad[i].len, &hello), -PC_E_NOT_FOUND);
    memset(large, 'a', sizeof large);
    CHECK(parse_name(large, PC_MAX_HOST_BYTES, &hello) > 0);
    CHECK_EQ(parse_name(large, PC_MAX_HOST_BYTES + 1, &hello), -PC_E_NOT_FOUND);
    CHECK_EQ(parse_name(large, sizeof large, &hello), -PC_E_NOT_FOUND);
    CHECK(parse_name("192.0.2.1", 9, &hello) > 0); /* no host's name, as any other that nobody has */
}

static int
parse_raw(const void *raw, size_t len)
{
    struct bytes all = {.len = 0};
    struct pc_hello hello;

    put(&all, raw, len);
    return parse(&all, &hello);
}

static void
test_what_is_no_tls_is_said_to_be_none(void)
{
    CHECK_EQ(parse_raw("GET / HTTP/1.1\r\n", 16), -PC_E_VERSION);
    CHECK_EQ(parse_raw("\x80\x2e\x01\x03\x01", 5), -PC_E_VERSION); /* SSL 2 */
    CHECK_EQ(parse_raw("\x16\x02\x00\x00\x05", 5), -PC_E_VERSION);
    CHECK_EQ(parse_raw("\x15\x03\x01\x00\x02\x02\x28", 7), -PC_E_VERSION); /* an alert */
    CHECK_EQ(parse_raw("", 0), 0);
    CHECK_EQ(parse_raw("\x16", 1), 0);
}

static void
test_what_breaks_the_rules_is_refused(void)
{
    struct bytes all = extensions("a.example", 9, 4), text = message(&all), raw;
    struct pc_hello hello;

    CHECK_EQ(parse_raw("\x16\x03\x01\x00\x00", 5), -PC_E_BAD);
    CHECK_EQ(parse_raw("\x16\x03\x01\x40\x01", 5), -PC_E_BAD);
    CHECK_EQ(parse_raw("\x16\x03\x01\x00\x04\x02\x00\x00\x00", 9), -PC_E_BAD); /* no ClientHello */
    for (size_t at = 1; at < text.len - 20; at++) { /* each byte with its highest bit turned round: found, or refused; never more awaited */
        struct bytes broken = text;

        broken.base[at] ^= 0x80;
        raw = records(&broken, ROOM);
        (void)parse(&raw, &hello);
    }
    text.base[3] = (uint8_t)(text.base[3] - 1); /* the message ends within its last extension */
    raw = records(&text, ROOM);
    CHECK_EQ(parse(&raw, &hello), -PC_E_BAD);
    all = extensions(NULL, 0, 4);
    put_number(&all, 0, 2); /* server_name that says nothing */
    put_number(&all, 0, 2);
    text = message(&all);
    raw = records(&text, ROOM);
    CHECK_EQ(parse(&raw, &hello), -PC_E_BAD);
}

int
main(void)
{
    RUN(test_the_name_is_found_whatever_stands_before_it);
    RUN(test_the_name_is_found_however_records_are_cut);
    RUN(test_a_large_hello_is_read_as_it_arrives);
    RUN(test_without_a_name_the_whole_hello_is_needed);
    RUN(test_a_name_that_no_host_can_have_is_refused);
    RUN(test_what_is_no_tls_is_said_to_be_none);
    RUN(test_what_breaks_the_rules_is_refused);
    return check_end();
}
