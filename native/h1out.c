/* h1out.c - the head of a request for an HTTP back end, and what its answer's addresses become for the client.
 * Runs as:  child, as the identity that owns the host.   Sees: the client's request, a back end's Location and Set-Cookie.
 * Trusts:   the host's configuration.   Distrusts: the client: what it sent must be one request there, with nothing in it that
 *           we say ourselves; what the back end names.
 * Before:   gate.c   After: gate.c (http), respond.c
 *
 * A field that the client's Connection names ends here, but not one that RequestHeader set: the client cannot take away what
 * the host adds. Whatever it names, X-Forwarded-For still ends with its address. */
#include <string.h>

#include "gateway.h"

struct out {
    char *base;
    size_t cap, len;
    int status; /* 0 or the first -PC_E_* */
};

static void
put(struct out *out, struct pc_slice s)
{
    if (out->status == 0 && s.len > out->cap - out->len)
        out->status = -PC_E_HEAD_LARGE;
    if (out->status < 0 || s.len == 0)
        return;
    memcpy(out->base + out->len, s.base, s.len); /* UNSAFE: compared with the room above */
    out->len += s.len;
}

static bool
is_text(struct pc_slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!pc_byte_is_text((uint8_t)s.base[i]))
            return false;
    return true;
}

static void
put_field(struct out *out, struct pc_slice name, struct pc_slice value)
{
    if (out->status == 0 && (!pc_slice_is_token(name) || !is_text(value)))
        out->status = -PC_E_BAD; /* RequestHeader's, or the configuration's: the client's were parsed */
    put(out, name);
    put(out, PC_S(": "));
    put(out, value);
    put(out, PC_S("\r\n"));
}

/* ------------------------------------------------------------------ which fields go on */

enum kind {
    PASSED,    /* as it is */
    HOP,       /* ends here; or is Expect or Proxy */
    OURS,      /* Host and framing: written by us alone */
    FORWARDED, /* X-Forwarded-For, -Host, -Server: ours behind the client's */
    PROTO,     /* X-Forwarded-Proto */
};

/* Without regard to case, and '_' read as '-': many a back end does. */
static bool
reads_as(struct pc_slice name, struct pc_slice want)
{
    if (name.len != want.len)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.base[i] == '_' ? '-' : name.base[i];

        if (c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        if (c != want.base[i])
            return false;
    }
    return true;
}

static enum kind
kind_of(struct pc_slice name)
{
    static const struct {
        struct pc_slice name; /* lower case */
        enum kind kind;
    } rows[] = {
        {{"connection", 10}, HOP}, {{"keep-alive", 10}, HOP}, {{"proxy-connection", 16}, HOP}, {{"te", 2}, HOP},
        {{"proxy-authorization", 19}, HOP}, {{"proxy-authenticate", 18}, HOP}, {{"trailer", 7}, HOP}, {{"upgrade", 7}, HOP},
        {{"expect", 6}, HOP}, {{"proxy", 5}, HOP}, {{"host", 4}, OURS}, {{"content-length", 14}, OURS},
        {{"transfer-encoding", 17}, OURS}, {{"x-forwarded-for", 15}, FORWARDED}, {{"x-forwarded-host", 16}, FORWARDED},
        {{"x-forwarded-server", 18}, FORWARDED}, {{"x-forwarded-proto", 17}, PROTO},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (reads_as(name, rows[i].name))
            return rows[i].kind;
    return PASSED;
}

static bool
connection_has(const struct pc_req *req, struct pc_slice wanted)
{
    const struct pc_head *head = req->head;
    struct pc_slice item;

    for (uint32_t i = 0; i < head->field_count; i++) {
        size_t at = 0;

        while (head->fields[i].id == PC_F_CONNECTION && pc_list_next(pc_slice_at(req->raw, head->fields[i].value), &at, &item))
            if (pc_slice_ieq(item, wanted))
                return true;
    }
    return false;
}

/* Whether the client's Connection takes the field away. */
static bool
is_named(const struct pc_req *req, struct pc_slice name)
{
    if (req->head->known[PC_F_CONNECTION] == 0 || pc_fields_is_edited(req, name))
        return false;
    return connection_has(req, name);
}

bool
pc_h1out_wants_upgrade(const struct pc_req *req)
{
    if (req->head->method_id != PC_GET || req->head->minor == 0)
        return false;
    return pc_fields_in(req, PC_S("Upgrade")).len > 0 && connection_has(req, PC_S("upgrade"));
}

/* ------------------------------------------------------------------ the head */

struct request {
    const struct pc_req *req;
    const struct pc_h1out_facts *facts;
    struct pc_pair *fields;
    uint32_t count;
};

/* Visible ASCII, from a slash on (or "*"), without a fragment: nothing that a request line would be split at. */
static bool
is_target(struct pc_slice target)
{
    if (target.len == 0 || (target.base[0] != '/' && !pc_slice_eq(target, PC_S("*"))))
        return false;
    for (size_t i = 0; i < target.len; i++) {
        uint8_t c = (uint8_t)target.base[i];

        if (c <= 0x20 || c > 0x7e || c == '#')
            return false;
    }
    return true;
}

static struct pc_slice
request_method(const struct request *request)
{
    const struct pc_req *req = request->req;

    if (request->facts->method.base != NULL)
        return request->facts->method;
    if (req->error_status != 0 && req->head->method_id != PC_HEAD)
        return PC_S("GET");
    return pc_slice_at(req->raw, req->head->method);
}

static void
put_first_lines(struct out *out, const struct request *request)
{
    const struct pc_req *req = request->req;
    struct pc_slice host = request->facts->host, asked = pc_fields_in(req, PC_S("Host"));

    if (!is_target(request->facts->target) || !pc_slice_is_token(request_method(request)))
        out->status = -PC_E_BAD;
    put(out, request_method(request));
    put(out, PC_S(" "));
    put(out, request->facts->target);
    put(out, PC_S(" HTTP/1.1\r\n"));
    if (request->facts->preserve_host && asked.len > 0)
        host = asked;
    put_field(out, PC_S("Host"), host);
}

static void
put_fields(struct out *out, const struct request *request)
{
    for (uint32_t i = 0; i < request->count; i++) {
        const struct pc_pair *field = &request->fields[i];
        enum kind kind = kind_of(field->name);
        bool is_other = memchr(field->name.base, '_', field->name.len) != NULL; /* X_Forwarded_For is not X-Forwarded-For */

        if (request->facts->no_forwarded && !is_other && (kind == FORWARDED || kind == PROTO))
            kind = PASSED;
        if (kind == PROTO && !is_other && !request->req->is_tls)
            kind = PASSED;
        if (kind == PASSED && !is_named(request->req, field->name))
            put_field(out, field->name, field->value);
    }
}

/* What is there already, then ours. */
static void
put_appended(struct out *out, const struct request *request, struct pc_slice name, struct pc_slice ours)
{
    bool is_first = true;

    if (ours.len == 0)
        return;
    if (out->status == 0 && !is_text(ours))
        out->status = -PC_E_BAD;
    put(out, name);
    put(out, PC_S(": "));
    for (uint32_t i = 0; i < request->count; i++) {
        const struct pc_pair *field = &request->fields[i];

        if (field->value.len == 0 || !pc_slice_ieq(field->name, name) || is_named(request->req, name))
            continue;
        if (out->status == 0 && !is_text(field->value))
            out->status = -PC_E_BAD;
        put(out, is_first ? PC_S("") : PC_S(", "));
        put(out, field->value);
        is_first = false;
    }
    put(out, is_first ? PC_S("") : PC_S(", "));
    put(out, ours);
    put(out, PC_S("\r\n"));
}

static void
put_forwarded(struct out *out, const struct request *request)
{
    const struct pc_req *req = request->req;
    struct pc_slice proto = PC_S("X-Forwarded-Proto");

    put_appended(out, request, PC_S("X-Forwarded-For"), pc_cgienv_address(req->arena, &req->client));
    put_appended(out, request, PC_S("X-Forwarded-Host"), pc_fields_in(req, PC_S("Host")));
    put_appended(out, request, PC_S("X-Forwarded-Server"), pc_host_name(req->host));
    if (req->is_tls)
        put_field(out, proto, PC_S("https"));
    else if (pc_fields_in(req, proto).base == NULL || is_named(req, proto))
        put_field(out, proto, PC_S("http"));
}

static void
put_last_lines(struct out *out, const struct request *request)
{
    const struct pc_h1out_facts *facts = request->facts;
    char text[20];

    if (facts->framing == PC_H1OUT_LENGTH)
        put_field(out, PC_S("Content-Length"), (struct pc_slice){text, pc_number(text, facts->length)});
    else if (facts->framing == PC_H1OUT_CHUNKED)
        put_field(out, PC_S("Transfer-Encoding"), PC_S("chunked"));
    if (facts->is_upgrade) {
        put_field(out, PC_S("Upgrade"), pc_fields_in(request->req, PC_S("Upgrade")));
        put_field(out, PC_S("Connection"), PC_S("Upgrade"));
    } else if (facts->takes_trailers) {
        put_field(out, PC_S("TE"), PC_S("trailers"));
        put_field(out, PC_S("Connection"), facts->keep ? PC_S("TE") : PC_S("close, TE"));
    } else if (!facts->keep) {
        put_field(out, PC_S("Connection"), PC_S("close"));
    }
    put(out, PC_S("\r\n"));
}

int
pc_h1out_head(const struct pc_req *req, const struct pc_h1out_facts *facts, char *out_bytes, size_t cap)
{
    struct out out = {.base = out_bytes, .cap = cap < INT32_MAX ? cap : INT32_MAX};
    struct request request = {.req = req, .facts = facts};

    request.count = pc_fields_in_all(req, &request.fields);
    put_first_lines(&out, &request);
    put_fields(&out, &request);
    if (!facts->no_forwarded)
        put_forwarded(&out, &request);
    put_last_lines(&out, &request);
    return out.status < 0 ? out.status : (int)out.len;
}

/* ------------------------------------------------------------------ ProxyPassReverse */

static struct pc_slice
without_slash(struct pc_slice s)
{
    if (s.len > 0 && s.base[s.len - 1] == '/')
        s.len--;
    return s;
}

static struct pc_slice
behind(struct pc_slice s, size_t len)
{
    return (struct pc_slice){s.base + len, s.len - len};
}

static struct pc_slice
join(struct pc_arena *arena, struct pc_slice a, struct pc_slice b, struct pc_slice c)
{
    char *bytes = pc_arena_alloc(arena, a.len + b.len + c.len + 1);
    struct out out = {.base = bytes, .cap = a.len + b.len + c.len};

    put(&out, a);
    put(&out, b);
    put(&out, c);
    return (struct pc_slice){bytes, out.len};
}

/* "unix:/socket|http://host/" is http://host/ in its answers. */
static struct pc_slice
as_seen(struct pc_slice url)
{
    const char *bar = url.len > 5 && memcmp(url.base, "unix:", 5) == 0 ? memchr(url.base, '|', url.len) : NULL;

    return bar != NULL ? behind(url, (size_t)(bar - url.base) + 1) : url;
}

/* Length of scheme and authority, whose letters may be of either case. */
static size_t
origin_len(struct pc_slice url)
{
    size_t at = 0;

    while (at + 3 <= url.len && memcmp(url.base + at, "://", 3) != 0) {
        if (url.base[at] == '/')
            return 0;
        at++;
    }
    if (at + 3 > url.len)
        return 0;
    for (at += 3; at < url.len && url.base[at] != '/';)
        at++;
    return at;
}

/* Whether `url`, which has no slash at its end, is a prefix that ends where a part of the path does. */
static bool
is_below(struct pc_slice location, struct pc_slice url)
{
    size_t origin = origin_len(url);
    struct pc_slice a = location, b = url;

    if (location.len < url.len)
        return false;
    a.len = b.len = origin;
    if (!pc_slice_ieq(a, b) || !pc_slice_starts(behind(location, origin), behind(url, origin)))
        return false;
    return location.len == url.len || memchr("/?#", location.base[url.len], 3) != NULL;
}

struct pc_slice
pc_proxy_reverse(struct pc_arena *arena, struct pc_slice location, struct pc_slice self, const struct pc_pair *pairs,
                 uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct pc_slice url = without_slash(as_seen(pairs[i].value)), path = without_slash(pairs[i].name);
        struct pc_slice rest;
        bool needs_slash;

        if (location.len == 0 || !is_below(location, url))
            continue;
        rest = behind(location, url.len);
        needs_slash = path.len == 0 && (rest.len == 0 || rest.base[0] != '/');
        return join(arena, self, needs_slash ? PC_S("/") : path, rest);
    }
    return (struct pc_slice){0};
}

/* ------------------------------------------------------------------ ProxyPassReverseCookiePath, -Domain */

/* The value of the last attribute called `name`, the one that counts (RFC 6265 5.3); base NULL = none. */
static struct pc_slice
find_attribute(struct pc_slice cookie, struct pc_slice name)
{
    const char *end = cookie.base + cookie.len, *at = cookie.len > 0 ? memchr(cookie.base, ';', cookie.len) : NULL;
    struct pc_slice found = {0};

    while (at != NULL) {
        const char *from = at + 1, *to = memchr(from, ';', (size_t)(end - from)), *equals;
        struct pc_slice item = {from, (size_t)((to != NULL ? to : end) - from)};

        equals = item.len > 0 ? memchr(item.base, '=', item.len) : NULL;
        if (equals != NULL && pc_slice_ieq(pc_slice_trim((struct pc_slice){from, (size_t)(equals - from)}), name))
            found = pc_slice_trim(behind(item, (size_t)(equals - from) + 1));
        at = to;
    }
    return found;
}

static struct pc_slice
replace(struct pc_arena *arena, struct pc_slice whole, struct pc_slice part, struct pc_slice with)
{
    struct pc_slice before = {whole.base, (size_t)(part.base - whole.base)};

    return join(arena, before, with, behind(whole, before.len + part.len));
}

static struct pc_slice
public_path(struct pc_arena *arena, struct pc_slice path, const struct pc_pair *pairs, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct pc_slice inner = without_slash(pairs[i].name), outer = pairs[i].value, rest;

        if (path.len == 0 || !pc_slice_starts(path, inner) || (path.len > inner.len && path.base[inner.len] != '/'))
            continue;
        rest = behind(path, inner.len);
        if (rest.len <= 1)
            return outer; /* with or without a slash, as it was written */
        return join(arena, without_slash(outer), rest, PC_S(""));
    }
    return path;
}

static struct pc_slice
without_dot(struct pc_slice domain)
{
    return domain.len > 0 && domain.base[0] == '.' ? behind(domain, 1) : domain;
}

static struct pc_slice
public_domain(struct pc_slice domain, const struct pc_pair *pairs, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (domain.len > 0 && pc_slice_ieq(without_dot(domain), without_dot(pairs[i].name)))
            return pairs[i].value;
    return domain;
}

struct pc_slice
pc_proxy_cookie(struct pc_arena *arena, struct pc_slice cookie, const struct pc_pair *paths, uint32_t path_count,
                const struct pc_pair *domains, uint32_t domain_count)
{
    struct pc_slice found = find_attribute(cookie, PC_S("Path")), now;

    if (found.base != NULL) {
        now = public_path(arena, found, paths, path_count);
        cookie = now.base != found.base ? replace(arena, cookie, found, now) : cookie;
    }
    found = find_attribute(cookie, PC_S("Domain"));
    if (found.base != NULL) {
        now = public_domain(found, domains, domain_count);
        cookie = now.base != found.base ? replace(arena, cookie, found, now) : cookie;
    }
    return cookie;
}
