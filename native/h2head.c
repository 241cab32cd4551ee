/* h2head.c - the fields of an HTTP/2 request become the text of an HTTP/1.1 head, which h1.c judges like any other.
 * Runs as:  child (User, or a tenant's uid).   Sees: decoded fields.
 * Trusts:   nothing; HPACK's decoder (nghttp2) for lengths only.   Distrusts: every byte: none gets into the text that would end its line
 *           there, and every field that is decoded counts, pieces of cookies too.
 * Before:   h2.c   After: h1.c
 *
 * What RFC 9113 8.2 and 8.3 say of fields is looked at here; what RFC 9110 and 9112 say of what they mean, in h1.c, once for both. */
#include <stdlib.h>
#include <string.h>

#include "h2.h"

#define FIRST_BYTES 1024
#define LINE_EXTRA 4 /* ": " and CRLF */
#define HOST_LINE "host: "

/* ------------------------------------------------------------------ bytes that grow */

static bool
append(struct pc_h2text *text, struct pc_slice s)
{
    if (s.len > PC_MAX_HEAD_BYTES - text->len)
        return false;
    if (text->len + s.len > text->cap) {
        size_t cap = text->cap > 0 ? text->cap : FIRST_BYTES;
        while (cap < text->len + s.len)
            cap *= 2;
        char *grown = realloc(text->base, cap);
        if (grown == NULL)
            pc_die(111, "out of memory");
        text->base = grown;
        text->cap = (uint32_t)cap;
    }
    if (s.len > 0)
        memcpy(text->base + text->len, s.base, s.len); /* UNSAFE: room was made above */
    text->len += (uint32_t)s.len;
    return true;
}

static void
fail(struct pc_h2head *head, int error)
{
    if (head->error == 0)
        head->error = error;
}

static void
put(struct pc_h2head *head, struct pc_h2text *text, struct pc_slice s)
{
    if (!append(text, s))
        fail(head, -PC_E_HEAD_LARGE);
}

/* ------------------------------------------------------------------ one field */

static bool
is_value(struct pc_slice value)
{
    for (size_t i = 0; i < value.len; i++)
        if (!pc_byte_is_text((uint8_t)value.base[i]))
            return false;
    bool is_blank_before = value.len > 0 && (value.base[0] == ' ' || value.base[0] == '\t');
    bool is_blank_behind = value.len > 0 && (value.base[value.len - 1] == ' ' || value.base[value.len - 1] == '\t');
    return !is_blank_before && !is_blank_behind;
}

/* Of a pseudo-field: nothing that a request line would be split at. */
static bool
is_word(struct pc_slice value)
{
    for (size_t i = 0; i < value.len; i++)
        if ((uint8_t)value.base[i] <= ' ' || value.base[i] == 0x7f)
            return false;
    return value.len > 0;
}

static bool
is_name(struct pc_slice name)
{
    for (size_t i = 0; i < name.len; i++)
        if (!pc_byte_is_token((uint8_t)name.base[i]) || (name.base[i] >= 'A' && name.base[i] <= 'Z'))
            return false;
    return name.len > 0;
}

static void
take_pseudo(struct pc_h2head *head, struct pc_slice name, struct pc_slice value)
{
    static const struct { struct pc_slice name; size_t at; } rows[] = {
        {{":method", 7}, offsetof(struct pc_h2head, method)},
        {{":scheme", 7}, offsetof(struct pc_h2head, scheme)},
        {{":authority", 10}, offsetof(struct pc_h2head, authority)},
        {{":path", 5}, offsetof(struct pc_h2head, path)},
        {{":protocol", 9}, offsetof(struct pc_h2head, protocol)},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!pc_slice_eq(rows[i].name, name))
            continue;
        struct pc_span *span = (struct pc_span *)(void *)((char *)head + rows[i].at);
        if (span->len > 0 || head->has_fields || !is_word(value))
            break;
        *span = (struct pc_span){head->text.len, (uint32_t)value.len};
        put(head, &head->text, value);
        return;
    }
    fail(head, -PC_E_BAD);
}

/* Fields that speak of a connection (RFC 9113 8.2.2), and the one that Host becomes. */
static bool
take_special(struct pc_h2head *head, struct pc_slice name, struct pc_slice value)
{
    static const struct pc_slice of_connection[] = {
        {"connection", 10}, {"keep-alive", 10}, {"proxy-connection", 16}, {"transfer-encoding", 17}, {"upgrade", 7},
    };
    for (size_t i = 0; i < sizeof of_connection / sizeof of_connection[0]; i++)
        if (pc_slice_eq(of_connection[i], name))
            fail(head, -PC_E_BAD);
    if (pc_slice_eq(name, PC_S("te")) && !pc_slice_ieq(value, PC_S("trailers")))
        fail(head, -PC_E_BAD);
    if (pc_slice_eq(name, PC_S("cookie"))) { /* one line again (RFC 9113 8.2.3) */
        put(head, &head->cookie, head->cookie.len > 0 ? PC_S("; ") : PC_S("cookie: "));
        put(head, &head->cookie, value);
        return true;
    }
    if (pc_slice_eq(name, PC_S("host"))) {
        if (head->has_host)
            fail(head, -PC_E_BAD);
        head->has_host = true;
        put(head, &head->host, value);
        return true;
    }
    return pc_slice_eq(name, PC_S("sec-websocket-key")) && head->protocol.len > 0; /* RFC 8441 5: it has no meaning here */
}

void
pc_h2head_field(struct pc_h2head *head, struct pc_slice name, struct pc_slice value)
{
    head->field_count++;
    head->decoded_bytes += name.len + value.len + LINE_EXTRA;
    bool is_pseudo = name.len > 0 && name.base[0] == ':';
    if (head->error != 0)
        return;
    if (head->decoded_bytes > PC_MAX_HEAD_BYTES || head->field_count > head->max_fields + 5) { /* five are pseudo-fields */
        fail(head, -PC_E_HEAD_LARGE);
        return;
    }
    if (is_pseudo) {
        take_pseudo(head, name, value);
        return;
    }
    if (!head->has_fields) {
        head->has_fields = true;
        head->lines_at = head->text.len;
    }
    if (!is_name(name) || !is_value(value)) {
        fail(head, -PC_E_BAD);
        return;
    }
    if (take_special(head, name, value))
        return;
    put(head, &head->text, name);
    put(head, &head->text, PC_S(": "));
    put(head, &head->text, value);
    put(head, &head->text, PC_S("\r\n"));
}

/* ------------------------------------------------------------------ the whole head */

/* A WebSocket by RFC 8441 is to whoever answers what it is by HTTP/1.1. */
static void
put_upgrade(struct pc_h2head *head, struct pc_h2text *out, struct pc_slice key)
{
    put(head, out, PC_S("connection: upgrade\r\nupgrade: "));
    put(head, out, pc_slice_at(head->text.base, head->protocol));
    put(head, out, PC_S("\r\nsec-websocket-key: "));
    put(head, out, key);
    put(head, out, PC_S("\r\n"));
}

static void
put_request_line(struct pc_h2head *head, struct pc_h2text *out)
{
    struct pc_slice method = pc_slice_at(head->text.base, head->method), path = pc_slice_at(head->text.base, head->path);
    bool is_connect = pc_slice_eq(method, PC_S("CONNECT"));
    bool is_tunnel = head->protocol.len > 0, has_path = !is_connect || is_tunnel;
    struct pc_slice scheme = pc_slice_at(head->text.base, head->scheme);
    bool is_http = pc_slice_eq(scheme, PC_S("http")) || pc_slice_eq(scheme, PC_S("https"));
    bool lacks_one = method.len == 0 || (has_path && (path.len == 0 || !is_http));
    bool has_too_many = (is_tunnel && !is_connect) || (!has_path && (path.len > 0 || scheme.len > 0));
    if (lacks_one || has_too_many)
        fail(head, -PC_E_BAD);
    bool is_origin = path.len > 0 && (path.base[0] == '/' || pc_slice_eq(path, PC_S("*"))); /* no absolute form */
    if (head->error == 0 && has_path && !is_origin)
        fail(head, -PC_E_BAD);
    put(head, out, is_tunnel ? PC_S("GET") : method);
    put(head, out, PC_S(" "));
    put(head, out, has_path ? path : pc_slice_at(head->text.base, head->authority));
    put(head, out, PC_S(" HTTP/1.1\r\n"));
}

static void
put_host(struct pc_h2head *head, struct pc_h2text *out)
{
    struct pc_slice authority = pc_slice_at(head->text.base, head->authority), host = {head->host.base, head->host.len};
    bool has_both = authority.len > 0 && head->has_host;
    if (has_both && !pc_slice_ieq(authority, host))
        fail(head, -PC_E_BAD);
    if (authority.len == 0 && !head->has_host)
        return; /* h1.c says that it is missing */
    put(head, out, PC_S(HOST_LINE));
    put(head, out, authority.len > 0 ? authority : host);
    put(head, out, PC_S("\r\n"));
}

int
pc_h2head_finish(struct pc_h2head *head, struct pc_slice websocket_key, struct pc_slice *ret_text)
{
    struct pc_h2text out = {0};
    static const char nothing[1];
    uint32_t lines_at = head->has_fields ? head->lines_at : head->text.len;
    if (head->text.base == NULL)
        fail(head, -PC_E_BAD);
    if (head->error == 0) {
        put_request_line(head, &out);
        put_host(head, &out);
        if (head->protocol.len > 0)
            put_upgrade(head, &out, websocket_key);
        put(head, &out, (struct pc_slice){head->text.base + lines_at, head->text.len - lines_at});
        put(head, &out, (struct pc_slice){head->cookie.len > 0 ? head->cookie.base : nothing, head->cookie.len});
        put(head, &out, head->cookie.len > 0 ? PC_S("\r\n\r\n") : PC_S("\r\n"));
    }
    if (head->error != 0) {
        free(out.base);
        return head->error;
    }
    *ret_text = (struct pc_slice){out.base, out.len};
    return 0;
}

void
pc_h2head_free(struct pc_h2head *head)
{
    free(head->text.base);
    free(head->cookie.base);
    free(head->host.base);
    uint32_t max_fields = head->max_fields;
    *head = (struct pc_h2head){.max_fields = max_fields};
}
