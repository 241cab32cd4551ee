/* hello.c - the name in a TLS ClientHello, from the first bytes of a connection.
 * Runs as:  child (User, or a tenant's uid).   Sees: a stranger's first bytes, which stay in the socket.   Holds: no key.
 * Trusts:   nothing.   Distrusts: every byte. Pure: no allocation, no state between calls; each byte is looked at once per call.
 * Before:   peek.c   After: route.c
 *
 * A handshake message may be spread over records at will (RFC 8446 5.1), and a post-quantum one comes in several segments. What is
 * read is what stands before the server name and the name itself; what stands behind it is the owner's business, whose OpenSSL reads
 * all of it again, and whose tls_hello.c compares the name. Unknown extensions, GREASE among them (RFC 8701), are passed over.
 * Tests: native/test_hello.c, fuzz/fuzz_hello.c. */
#include <string.h>

#include "pc.h"

#define RECORD_HANDSHAKE 22
#define RECORD_HEAD 5
#define MAX_RECORD_BYTES 16384
#define CLIENT_HELLO 1
#define HELLO_HEAD_BYTES 34 /* version, random */
#define SESSION_ID_MAX 32
#define EXTENSION_SERVER_NAME 0
#define NAME_TYPE_HOST 0

/* Where we are: in the bytes, in a record, in the message. */
struct cursor {
    const uint8_t *buf;
    size_t len, at;
    size_t record_left;  /* bytes of the record that are still to come */
    size_t message_left; /* of the ClientHello */
    uint32_t records;
};

/* Go into the next record. 1, 0 or an error. */
static int
next_record(struct cursor *c)
{
    const uint8_t *head = c->buf + c->at;
    size_t left = c->len - c->at;
    if (left > 0 && head[0] != RECORD_HANDSHAKE)
        return c->records == 0 ? -PC_E_VERSION : -PC_E_BAD;
    if (left > 1 && head[1] != 3)
        return c->records == 0 ? -PC_E_VERSION : -PC_E_BAD;
    if (left < RECORD_HEAD)
        return 0;
    size_t len = (size_t)head[3] << 8 | head[4];
    if (len == 0 || len > MAX_RECORD_BYTES)
        return -PC_E_BAD;
    if (++c->records > PC_MAX_HELLO_RECORDS)
        return -PC_E_HEAD_LARGE;
    c->record_left = len;
    c->at += RECORD_HEAD;
    return 1;
}

/* Take `count` bytes of the message, or pass over them (to NULL). 1, 0 or an error: among them, that the message is shorter. */
static int
take(struct cursor *c, size_t count, uint8_t *to)
{
    if (count > c->message_left)
        return -PC_E_BAD;
    while (count > 0) {
        int step = c->record_left == 0 ? next_record(c) : 1;
        if (step <= 0)
            return step;
        size_t here = count < c->record_left ? count : c->record_left;
        if (here > c->len - c->at)
            here = c->len - c->at;
        if (here == 0)
            return 0;
        if (to != NULL) {
            memcpy(to, c->buf + c->at, here); /* UNSAFE: the caller has room for count */
            to += here;
        }
        c->at += here;
        c->record_left -= here;
        c->message_left -= here;
        count -= here;
    }
    return 1;
}

/* A number of `count` bytes, 1 to 3. */
static int
take_number(struct cursor *c, size_t count, uint32_t *ret_number)
{
    uint8_t raw[3] = {0};
    uint32_t number = 0;
    int step = take(c, count, raw);
    for (size_t i = 0; i < count; i++)
        number = number << 8 | raw[i];
    *ret_number = number;
    return step;
}

/* A field that says its own length first; its content is passed over. */
static int
skip_field(struct cursor *c, size_t length_bytes, uint32_t low, uint32_t high)
{
    uint32_t len;
    int step = take_number(c, length_bytes, &len);
    if (step <= 0)
        return step;
    return len < low || len > high ? -PC_E_BAD : take(c, len, NULL);
}

/* Up to the extensions. */
static int
take_head(struct cursor *c)
{
    uint32_t type, len;
    c->message_left = 4;
    int step = take_number(c, 1, &type);
    if (step > 0)
        step = type == CLIENT_HELLO ? take_number(c, 3, &len) : -PC_E_BAD;
    if (step <= 0)
        return step;
    if (len > PC_MAX_HELLO_BYTES)
        return -PC_E_HEAD_LARGE;
    c->message_left = len;
    step = take(c, HELLO_HEAD_BYTES, NULL);
    if (step > 0)
        step = skip_field(c, 1, 0, SESSION_ID_MAX);
    if (step > 0)
        step = skip_field(c, 2, 2, PC_MAX_HELLO_BYTES); /* cipher suites */
    if (step > 0)
        step = skip_field(c, 1, 1, UINT8_MAX); /* compression methods */
    return step;
}

/* The extension server_name, of which `len` bytes are there: a list with one host name (RFC 6066 3). */
static int
take_name(struct cursor *c, uint32_t len, struct pc_hello *ret_hello)
{
    uint8_t raw[PC_MAX_HOST_BYTES + 1]; /* one more: a trailing dot */
    uint32_t list_len, type, name_len;
    int step = take_number(c, 2, &list_len);
    if (step > 0)
        step = list_len + 2 == len && list_len >= 4 ? take_number(c, 1, &type) : -PC_E_BAD;
    if (step > 0)
        step = type == NAME_TYPE_HOST ? take_number(c, 2, &name_len) : -PC_E_BAD;
    if (step <= 0)
        return step;
    if (name_len + 3 != list_len || name_len == 0)
        return -PC_E_BAD;
    if (name_len > sizeof raw)
        return -PC_E_NOT_FOUND;
    step = take(c, name_len, raw);
    if (step <= 0)
        return step;
    struct pc_slice name = {(const char *)raw, name_len};
    if (raw[0] == '[' || memchr(raw, ':', name_len) != NULL || pc_host_parse(name, &ret_hello->name) != 0)
        return -PC_E_NOT_FOUND;
    return 1;
}

int
pc_hello_parse(const char *buf, size_t len, struct pc_hello *ret_hello)
{
    struct cursor c = {.buf = (const uint8_t *)buf, .len = len};
    uint32_t type, extension_len, left = 0;
    ret_hello->name = (struct pc_hostname){.len = 0};
    int step = take_head(&c);
    bool has_extensions = step > 0 && c.message_left > 0;
    if (has_extensions)
        step = take_number(&c, 2, &left);
    if (step > 0 && has_extensions && left != c.message_left)
        return -PC_E_BAD;
    while (step > 0 && c.message_left > 0) {
        step = take_number(&c, 2, &type);
        if (step > 0)
            step = take_number(&c, 2, &extension_len);
        if (step > 0 && type == EXTENSION_SERVER_NAME) {
            step = take_name(&c, extension_len, ret_hello);
            break;
        }
        if (step > 0)
            step = take(&c, extension_len, NULL);
    }
    return step > 0 ? (int)c.at : step;
}
