/* trailer.c - which fields behind a back end's chunked body go on to the client, and how they are announced.
 * Runs as:  child, as the identity that owns the host.   Sees: the trailer section of an answer, and its head.
 * Trusts:   chunked.c for the section's syntax.   Distrusts: what it says: a trailer is no field of the head, and whoever takes it for one
 *           (some do, on the way or at its end) must not learn from it how long the answer is, who asked, or what it is.
 * Before:   gate_answer.c   After: respond.c, h2stream.c */
#include <string.h>

#include "gateway.h"

struct word {
    struct pc_slice text;
    bool is_prefix;
};

#define WORD(literal) {{(literal), sizeof(literal) - 1}, false}
#define PREFIX(literal) {{(literal), sizeof(literal) - 1}, true}

/* RFC 9110 6.5.1 says which kinds. Its own definition allows these as trailers, though a prefix below is theirs. */
static const struct word passed[] = {WORD("Content-Digest"), WORD("Content-MD5")};
static const struct word kept_back[] = {
    /* framing and the connection */
    WORD("Connection"), WORD("Keep-Alive"), WORD("TE"), WORD("Trailer"), WORD("Transfer-Encoding"), WORD("Upgrade"), WORD("HTTP2-Settings"),
    /* where it goes */
    WORD("Host"), WORD("Forwarded"), WORD("Via"), WORD("Max-Forwards"), WORD("Location"), WORD("Refresh"), WORD("Alt-Svc"),
    /* who asks */
    WORD("Authorization"), WORD("WWW-Authenticate"), PREFIX("Proxy-"), WORD("Cookie"), PREFIX("Set-Cookie"), WORD("Clear-Site-Data"),
    WORD("Strict-Transport-Security"), PREFIX("Access-Control-"), PREFIX("Cross-Origin-"), PREFIX("Sec-"), PREFIX("X-Forwarded-"),
    WORD("X-Frame-Options"),
    /* how the request is meant */
    WORD("Expect"), WORD("Range"), PREFIX("If-"),
    /* what becomes of the answer */
    WORD("Status"), WORD("Age"), WORD("Cache-Control"), WORD("Pragma"), WORD("Expires"), WORD("Date"), WORD("Retry-After"), WORD("Vary"),
    WORD("Warning"),
    /* what it holds: Content-Length, -Type, -Encoding, -Range, -Location, -Security-Policy... */
    PREFIX("Content-"), WORD("Accept-Ranges"),
};

static bool
is_among(struct pc_slice name, const struct word *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct pc_slice part = name;
        if (words[i].is_prefix && part.len > words[i].text.len)
            part.len = words[i].text.len;
        if (pc_slice_ieq(part, words[i].text))
            return true;
    }
    return false;
}

static bool
is_named_by_connection(const struct pc_reply *reply, const char *head, struct pc_slice name)
{
    struct pc_slice item;
    for (uint32_t i = 0; i < reply->field_count; i++) {
        struct pc_slice list = pc_slice_at(head, reply->fields[i].value);
        for (size_t at = 0; reply->fields[i].id == PC_REPLY_CONNECTION && pc_list_next(list, &at, &item);)
            if (pc_slice_ieq(item, name))
                return true;
    }
    return false;
}

bool
pc_trailer_may_pass(const struct pc_reply *reply, const char *head, struct pc_slice name)
{
    bool is_known = is_among(name, passed, sizeof passed / sizeof *passed);
    if (!is_known && is_among(name, kept_back, sizeof kept_back / sizeof *kept_back))
        return false;
    return !is_named_by_connection(reply, head, name);
}

/* The next field of a section. False: its end. */
static bool
next_field(struct pc_slice section, size_t *at, struct pc_pair *ret_field)
{
    struct pc_slice line = pc_slice_before(pc_slice_behind(section, *at), '\r');
    struct pc_slice name = pc_slice_before(line, ':');
    if (name.len == 0 || name.len == line.len)
        return false;
    *at += line.len;
    *at += section.len - *at < 2 ? section.len - *at : 2; /* CRLF */
    *ret_field = (struct pc_pair){name, pc_slice_trim(pc_slice_behind(line, name.len + 1))};
    return true;
}

uint32_t
pc_trailer_take(struct pc_arena *arena, struct pc_slice section, const struct pc_reply *reply, const char *head,
                const struct pc_pair **ret_fields)
{
    struct pc_pair field;
    uint32_t most = 0, count = 0;
    for (size_t at = 0; next_field(section, &at, &field);)
        most++;
    struct pc_pair *fields = pc_arena_alloc(arena, (most + 1) * sizeof *fields);
    for (size_t at = 0; next_field(section, &at, &field);)
        if (pc_trailer_may_pass(reply, head, field.name))
            fields[count++] = field;
    *ret_fields = fields;
    return count;
}

struct pc_slice
pc_trailer_names(struct pc_arena *arena, struct pc_slice list, const struct pc_reply *reply, const char *head)
{
    char *text = pc_arena_alloc(arena, 2 * list.len + 2); /* a name of one byte and its comma may become three */
    struct pc_slice name;
    size_t len = 0;
    for (size_t at = 0; pc_list_next(list, &at, &name);) {
        if (!pc_slice_is_token(name) || !pc_trailer_may_pass(reply, head, name))
            continue;
        memcpy(text + len, ", ", 2); /* UNSAFE: see above, as the next */
        len += len > 0 ? 2 : 0;
        memcpy(text + len, name.base, name.len);
        len += name.len;
    }
    return (struct pc_slice){text, len};
}
