/* h1.c - parse the head of an HTTP/1.1 request.
 * Runs as:  child (User, or a tenant's uid).   Sees: client bytes.
 * Trusts:   nothing; the limits are the host's.   Distrusts: every byte.
 * Before:   conn.c (bytes), route.c (peek)   After: request.c
 *
 * One rule makes whole, bytewise and random arrival agree: bytes are judged from left to right,
 * each by what stands before it, and where the bytes end the answer is "need more", unless the
 * line's window (its limit and CRLF) ends first. Where RFC 9112 leaves a choice, we refuse:
 * - CONNECT with a well-formed authority is 501 (we are no proxy), with anything else 400;
 * - Transfer-Encoding must be "chunked", in lower case, behind at most one blank. A list that
 *   ends in chunked is 501 (a coding we lack, 9112 6.1), everything else 400 (9112 6.3);
 * - "#" in a target, "http://name?query" without a slash, https:// and other schemes are 400;
 * - a method with a lower-case letter is 400, one above 32 bytes 501;
 * - no version (HTTP/0.9) is 400, any d.d but 1.0 and 1.1 is 505, as is HTTP/2's preface. */
#include <string.h>

#include "pc.h"

#define MAX_METHOD_BYTES 32
#define MAX_CONTENT_LENGTH ((uint64_t)INT64_MAX)

/* What a byte may be part of. */
enum { IN_TOKEN = 1, IN_METHOD = 2, IN_TARGET = 4, IN_VALUE = 8 };

/* clang-format off */
static const uint8_t byte_class[256] = {
    0,  0,  0,  0,  0,  0,  0,  0,  0,  8,  0,  0,  0,  0,  0,  0,  /* NUL..SI: only the tab */
    0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  /* DLE..US */
    8,  15, 12, 11, 15, 15, 15, 15, 12, 12, 15, 15, 12, 15, 15, 12, /* SP!"#$%&'()*+,-./ */
    15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 12, 12, 12, 12, 12, 12, /* 0-9:;<=>? */
    12, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, /* @A-O */
    15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 12, 12, 12, 15, 15, /* P-Z[\]^_ */
    15, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, /* `a-o */
    13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 12, 15, 12, 15, 0,  /* p-z{|}~DEL */
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, /* 0x80 and up */
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12,
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12,
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12,
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12,
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12,
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12,
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12,
};
/* clang-format on */

struct known_name {
    const char *name; /* lower case */
    uint8_t len, id;
};

#define KNOWN(literal, field_id) {.name = (literal), .len = sizeof(literal) - 1, .id = (field_id)}

/* Index: (length + 20 * last byte in lower case) % 32, a perfect hash; test_h1.c finds them all. */
static const struct known_name known_names[32] = {
    [20] = KNOWN("host", PC_F_HOST),
    [14] = KNOWN("content-length", PC_F_CONTENT_LENGTH),
    [29] = KNOWN("transfer-encoding", PC_F_TRANSFER_ENCODING),
    [2] = KNOWN("connection", PC_F_CONNECTION),
    [22] = KNOWN("expect", PC_F_EXPECT),
    [9] = KNOWN("range", PC_F_RANGE),
    [12] = KNOWN("if-range", PC_F_IF_RANGE),
    [8] = KNOWN("if-match", PC_F_IF_MATCH),
    [13] = KNOWN("if-none-match", PC_F_IF_NONE_MATCH),
    [21] = KNOWN("if-modified-since", PC_F_IF_MODIFIED_SINCE),
    [23] = KNOWN("if-unmodified-since", PC_F_IF_UNMODIFIED_SINCE),
    [26] = KNOWN("user-agent", PC_F_USER_AGENT),
    [15] = KNOWN("referer", PC_F_REFERER),
    [27] = KNOWN("accept-encoding", PC_F_ACCEPT_ENCODING),
    [10] = KNOWN("cookie", PC_F_COOKIE),
    [5] = KNOWN("authorization", PC_F_AUTHORIZATION),
    [11] = KNOWN("upgrade", PC_F_UPGRADE),
};

static const struct known_name known_methods[] = {
    KNOWN("GET", PC_GET),     KNOWN("HEAD", PC_HEAD),       KNOWN("POST", PC_POST),
    KNOWN("PUT", PC_PUT),     KNOWN("DELETE", PC_DELETE),   KNOWN("OPTIONS", PC_OPTIONS),
    KNOWN("TRACE", PC_TRACE), KNOWN("CONNECT", PC_CONNECT), KNOWN("PATCH", PC_PATCH),
};

/* The part of the buffer in which one line must end. */
struct window {
    const uint8_t *base, *at, *end;
    int at_end; /* the answer when `end` is reached: 0, or the error of a line above its limit */
};

struct request_line {
    struct pc_span line, method, target, authority, path;
    uint8_t method_id, minor;
};

static struct window
open_window(const char *buf, size_t at, size_t len, uint32_t limit, int too_long)
{
    struct window win = {.base = (const uint8_t *)buf};
    size_t room = (size_t)limit + 2; /* CRLF */

    win.at = win.base + at;
    win.at_end = 0;
    win.end = win.base + len;
    if (len - at >= room) {
        win.end = win.at + room;
        win.at_end = too_long;
    }
    return win;
}

static struct pc_span
span_of(const struct window *win, const uint8_t *from, const uint8_t *to)
{
    return (struct pc_span){.at = (uint32_t)(from - win->base), .len = (uint32_t)(to - from)};
}

static const uint8_t *
skip_class(const uint8_t *p, const uint8_t *end, unsigned class)
{
    while (p < end && (byte_class[*p] & class) != 0)
        p++;
    return p;
}

/* As skip_class(IN_VALUE), eight bytes at a time while none is a control (a tab too goes the slow
 * way). */
static const uint8_t *
skip_value(const uint8_t *p, const uint8_t *end)
{
    const uint64_t ones = 0x0101010101010101u;

    while (end - p >= 8) {
        uint64_t word, low, del;

        memcpy(&word, p, 8); /* UNSAFE: the loop's condition left 8 bytes */
        low = (word - ones * 0x20) & ~word;
        del = ((word ^ ones * 0x7f) - ones) & ~(word ^ ones * 0x7f);
        if (((low | del) & ones * 0x80) != 0)
            break;
        p += 8;
    }
    return skip_class(p, end, IN_VALUE);
}

/* Whether `p` is `want` without regard to case; want is letters and '-', which no other token byte
 * folds to. 4..19 bytes. */
static bool
is_name(const uint8_t *p, const char *want, size_t len)
{
    const uint64_t fold = 0x2020202020202020u;
    uint64_t a, b;
    uint32_t c, d;
    size_t i;

    if (len < 8) {
        memcpy(&c, p, 4); /* UNSAFE: callers pass 4 bytes or more */
        memcpy(&d, want, 4);
        if ((c | (uint32_t)fold) != d)
            return false;
        memcpy(&c, p + len - 4, 4);
        memcpy(&d, want + len - 4, 4);
        return (c | (uint32_t)fold) == d;
    }
    for (i = 0; i + 8 < len; i += 8) {
        memcpy(&a, p + i, 8); /* UNSAFE: i + 8 < len */
        memcpy(&b, want + i, 8);
        if ((a | fold) != b)
            return false;
    }
    memcpy(&a, p + len - 8, 8); /* UNSAFE: len >= 8 here */
    memcpy(&b, want + len - 8, 8);
    return (a | fold) == b;
}

static enum pc_field_id
find_field_id(const uint8_t *name, size_t len)
{
    const struct known_name *known;

    if (len < 4)
        return PC_F_OTHER;
    known = &known_names[(len + 20u * (name[len - 1] | 0x20u)) % 32];
    if (known->len != len || !is_name(name, known->name, len))
        return PC_F_OTHER;
    return (enum pc_field_id)known->id;
}

static uint8_t
find_method_id(const uint8_t *name, size_t len)
{
    size_t i;

    if (len == 3 && memcmp(name, "GET", 3) == 0)
        return PC_GET; /* nearly all of them */
    for (i = 0; i < sizeof(known_methods) / sizeof(known_methods[0]); i++) {
        if (known_methods[i].len == len && memcmp(known_methods[i].name, name, len) == 0)
            return known_methods[i].id;
    }
    return PC_METHOD_OTHER;
}

/* "HTTP/1.x" CRLF. Returns bytes consumed, the window's end answer, or an error. */
static int
parse_version(const struct window *win, const uint8_t *p, uint8_t *ret_minor)
{
    static const char shape[] = "HTTP/0.0\r\n"; /* 0 stands for any digit */
    size_t i;

    if (win->end - p >= 10 && memcmp(p, "HTTP/1.1\r\n", 10) == 0) {
        *ret_minor = 1;
        return 10;
    }
    for (i = 0; i < sizeof(shape) - 1; i++) {
        if (p + i == win->end)
            return win->at_end;
        if (shape[i] == '0' ? (p[i] < '0' || p[i] > '9') : p[i] != (uint8_t)shape[i])
            return -PC_E_BAD;
    }
    if (p[5] != '1' || p[7] > '1')
        return -PC_E_VERSION;
    *ret_minor = (uint8_t)(p[7] - '0');
    return (int)i;
}

/* http://authority[/path]: without a path the path is the second slash of the scheme, for a span
 * cannot invent one. */
static int
split_absolute(const char *buf, struct request_line *line)
{
    const uint8_t *from = (const uint8_t *)buf + line->target.at;
    const uint8_t *to = from + line->target.len;
    const uint8_t *slash;

    if (line->target.len <= 7 || !is_name(from, "http", 4) || memcmp(from + 4, "://", 3) != 0)
        return -PC_E_BAD;
    slash = memchr(from + 7, '/', (size_t)(to - from) - 7);
    line->authority.at = line->target.at + 7;
    if (slash == NULL) {
        line->authority.len = line->target.len - 7;
        line->path = (struct pc_span){.at = line->target.at + 6, .len = 1};
    } else {
        line->authority.len = (uint32_t)(slash - from) - 7;
        line->path = (struct pc_span){.at = line->target.at + (uint32_t)(slash - from),
                                      .len = (uint32_t)(to - slash)};
    }
    return line->authority.len == 0 ? -PC_E_BAD : 0;
}

/* Which of RFC 9112 3.2's four forms the target has, and whether the method may have it. */
static int
sort_target(const char *buf, struct request_line *line)
{
    struct pc_slice target = pc_slice_at(buf, line->target);
    struct pc_hostname host;

    line->authority = (struct pc_span){0};
    line->path = line->target;
    if (line->method_id == PC_CONNECT) {
        if (pc_host_parse(target, &host) == 0 && host.len > 0 && host.port > 0)
            return -PC_E_UNKNOWN;
        return -PC_E_BAD;
    }
    if (target.base[0] == '/')
        return 0;
    if (target.len == 1 && target.base[0] == '*')
        return line->method_id == PC_OPTIONS ? 0 : -PC_E_BAD;
    return split_absolute(buf, line);
}

/* Returns bytes consumed, 0 need more, or an error. */
static int
parse_request_line(const char *buf, size_t at, size_t len, uint32_t limit,
                   struct request_line *line)
{
    struct window win = open_window(buf, at, len, limit, -PC_E_URI_LONG);
    const uint8_t *method = win.at, *target, *version, *p;
    int status;

    p = skip_class(method, win.end, IN_METHOD);
    if (p - method > MAX_METHOD_BYTES)
        return -PC_E_UNKNOWN;
    if (p == win.end)
        return win.at_end;
    if (p == method || *p != ' ')
        return -PC_E_BAD;
    line->method = span_of(&win, method, p);
    line->method_id = find_method_id(method, line->method.len);
    target = p + 1;
    p = skip_class(target, win.end, IN_TARGET);
    if (p == win.end)
        return win.at_end;
    if (p == target || *p != ' ')
        return -PC_E_BAD;
    line->target = span_of(&win, target, p);
    version = p + 1;
    status = parse_version(&win, version, &line->minor);
    if (status <= 0)
        return status;
    p = version + status;
    line->line = span_of(&win, method, p - 2);
    status = sort_target(buf, line);
    return status < 0 ? status : (int)(p - method);
}

/* One CRLF before the request line is skipped. Returns where the line starts, 0 need more,
 * -PC_E_BAD; `at` is where we are. */
static int
skip_empty_line(const char *buf, size_t len, size_t *at)
{
    if (len == 0)
        return 0;
    if (*at == 0 && buf[0] == '\r') {
        if (len == 1)
            return 0;
        if (buf[1] != '\n')
            return -PC_E_BAD;
        *at = 2;
    }
    return *at < len ? 1 : 0;
}

/* A request line and its CRLF must leave room in the whole head, whatever LimitRequestLine says. */
static uint32_t
line_limit(uint32_t configured)
{
    const uint32_t most = PC_MAX_HEAD_BYTES - 4;

    return configured < most ? configured : most;
}

static int
take_request_line(struct pc_head *head, const char *buf, size_t len,
                  const struct pc_h1_limits *limits)
{
    struct request_line line;
    size_t at = head->at;
    int status = skip_empty_line(buf, len, &at);

    if (status <= 0)
        return status;
    head->at = (uint32_t)at;
    status = parse_request_line(buf, at, len, line_limit(limits->line_bytes), &line);
    if (status <= 0)
        return status;
    head->line = line.line;
    head->method = line.method;
    head->target = line.target;
    head->authority = line.authority;
    head->path = line.path;
    head->method_id = line.method_id;
    head->minor = line.minor;
    head->has_line = true;
    head->at += (uint32_t)status;
    return 1;
}

/* "Transfer_Encoding" and "Content_Length": some back ends read '_' as '-', so with us they are no
 * other field. */
static bool
is_disguised(const uint8_t *name, size_t len)
{
    static const char te[] = "transfer_encoding", cl[] = "content_length";
    const char *want = len == sizeof(te) - 1 ? te : cl;
    size_t i;

    if (len != sizeof(te) - 1 && len != sizeof(cl) - 1)
        return false;
    for (i = 0; i < len; i++) {
        uint8_t c = name[i] == '-' ? '_' : name[i];

        if (c != '_')
            c |= 0x20;
        if (c != (uint8_t)want[i])
            return false;
    }
    return true;
}

static void
note_connection(struct pc_head *head, struct pc_slice value)
{
    struct pc_slice option;
    size_t at = 0;

    while (pc_list_next(value, &at, &option)) {
        if (pc_slice_ieq(option, PC_S("close")))
            head->wants_close = true;
        else if (pc_slice_ieq(option, PC_S("keep-alive")))
            head->wants_keep = true;
    }
}

static int
add_field(struct pc_head *head, const struct window *win, struct pc_span name, struct pc_span value)
{
    struct pc_field *field = &head->fields[head->field_count];
    const uint8_t *raw_name = win->base + name.at;
    enum pc_field_id id = find_field_id(raw_name, name.len);

    *field = (struct pc_field){.name = name, .value = value, .id = id};
    head->field_count++;
    if (id == PC_F_OTHER)
        return is_disguised(raw_name, name.len) ? -PC_E_BAD : 0;
    if (id == PC_F_CONNECTION)
        note_connection(head, pc_slice_at((const char *)win->base, value));
    if (head->known[id] == 0)
        head->known[id] = (uint16_t)head->field_count;
    else if (id == PC_F_HOST || id == PC_F_CONTENT_LENGTH || id == PC_F_TRANSFER_ENCODING)
        return -PC_E_BAD;
    return 0;
}

/* One field line. Returns 1, 0 need more, or an error. */
static int
take_field(struct pc_head *head, const struct window *win)
{
    const uint8_t *name = win->at, *colon, *value, *tail, *p;
    int status;

    colon = skip_class(name, win->end, IN_TOKEN);
    if (colon == win->end)
        return win->at_end;
    if (colon == name || *colon != ':')
        return -PC_E_BAD; /* a blank before the colon, a folded line, an empty name, a control */
    value = colon + 1;
    while (value < win->end && (*value == ' ' || *value == '\t'))
        value++;
    p = skip_value(value, win->end);
    if (p == win->end)
        return win->at_end;
    if (*p != '\r')
        return -PC_E_BAD; /* a bare LF too */
    if (p + 1 == win->end)
        return win->at_end;
    if (p[1] != '\n')
        return -PC_E_BAD;
    for (tail = p; tail > value && (tail[-1] == ' ' || tail[-1] == '\t');)
        tail--;
    status = add_field(head, win, span_of(win, name, colon), span_of(win, value, tail));
    if (status < 0)
        return status;
    head->at = (uint32_t)(p + 2 - win->base);
    return 1;
}

/* All whole field lines that are there. Returns 1 at the empty line, 0 need more, or an error. */
static int
take_fields(struct pc_head *head, const char *buf, size_t len, const struct pc_h1_limits *limits)
{
    uint32_t cap = limits->field_count;

    if (cap == 0 || cap > PC_MAX_FIELDS_HARD)
        cap = PC_MAX_FIELDS_HARD;
    for (;;) {
        uint32_t left =
            PC_MAX_HEAD_BYTES - head->at; /* at never passes it: the window below ends there */
        uint32_t limit = limits->field_bytes;
        struct window win;
        int status;

        if (left < 2)
            return -PC_E_HEAD_LARGE;
        if (limit > left - 2)
            limit = left - 2;
        win = open_window(buf, head->at, len, limit, -PC_E_HEAD_LARGE);
        if (win.at == win.end)
            return 0;
        if (*win.at == '\r') {
            if (win.at + 1 == win.end)
                return 0; /* the window holds two bytes at least */
            if (win.at[1] != '\n')
                return -PC_E_BAD;
            head->at += 2;
            return 1;
        }
        if (head->field_count == cap)
            return -PC_E_HEAD_LARGE;
        status = take_field(head, &win);
        if (status <= 0)
            return status;
    }
}

/* Judge a Transfer-Encoding that is not plainly "chunked": 501 if chunked comes last behind other
 * codings, else 400. */
static int
refuse_coding(struct pc_slice value)
{
    struct pc_slice item;
    size_t at = 0, count = 0;
    bool is_chunked = false;

    while (pc_list_next(value, &at, &item)) {
        const uint8_t *from = (const uint8_t *)item.base, *to = from + item.len;

        if (is_chunked || item.len == 0 || skip_class(from, to, IN_TOKEN) != to)
            return -PC_E_BAD;
        is_chunked = pc_slice_ieq(item, PC_S("chunked"));
        count++;
    }
    return is_chunked && count > 1 ? -PC_E_UNKNOWN : -PC_E_BAD;
}

static int
check_transfer_encoding(struct pc_head *head, const char *buf)
{
    const struct pc_field *field = &head->fields[head->known[PC_F_TRANSFER_ENCODING] - 1];
    struct pc_slice value = pc_slice_at(buf, field->value);
    uint32_t colon_end = field->name.at + field->name.len + 1;
    uint32_t blank_count = field->value.at - colon_end;

    if (head->minor == 0 || head->known[PC_F_CONTENT_LENGTH] != 0)
        return -PC_E_BAD;
    /* "Transfer-Encoding:<tab>chunked" and the like have split front ends from back ends. */
    if (blank_count > 1 || (blank_count == 1 && buf[colon_end] != ' ') ||
        value.base[value.len] != '\r')
        return -PC_E_BAD;
    if (!pc_slice_eq(value, PC_S("chunked")))
        return refuse_coding(value);
    head->is_chunked = true;
    return 0;
}

static int
check_content_length(struct pc_head *head, const char *buf)
{
    struct pc_slice value = pc_head_field(head, buf, PC_F_CONTENT_LENGTH);
    uint64_t length;

    if (pc_parse_u64(value, &length) < 0 || length > MAX_CONTENT_LENGTH)
        return -PC_E_BAD;
    if (value.len > 1 && value.base[0] == '0')
        return -PC_E_BAD;
    head->has_length = true;
    head->content_length = length;
    return 0;
}

/* The one name the request is for: Host, which must equal the target's authority if there is one
 * (port 80 = none). */
static int
check_host(struct pc_head *head, const char *buf)
{
    struct pc_slice field = pc_head_field(head, buf, PC_F_HOST);
    struct pc_hostname authority;

    if (field.base == NULL && head->minor > 0)
        return -PC_E_BAD;
    head->host.len = 0;
    head->host.port = 0;
    head->host.name[0] = '\0';
    if (field.base != NULL && pc_host_parse(field, &head->host) < 0)
        return -PC_E_BAD;
    if (head->authority.len == 0)
        return 0;
    if (pc_host_parse(pc_slice_at(buf, head->authority), &authority) < 0)
        return -PC_E_BAD;
    if (field.base == NULL) {
        head->host = authority;
        return 0;
    }
    if (authority.len != head->host.len ||
        memcmp(authority.name, head->host.name, authority.len) != 0)
        return -PC_E_BAD;
    return (authority.port == 0 ? 80 : authority.port) ==
                   (head->host.port == 0 ? 80 : head->host.port)
               ? 0
               : -PC_E_BAD;
}

static int
check_expect(struct pc_head *head, const char *buf)
{
    uint32_t i;

    if (head->known[PC_F_EXPECT] == 0 || head->minor == 0)
        return 0;
    for (i = 0; i < head->field_count; i++) {
        if (head->fields[i].id != PC_F_EXPECT)
            continue;
        if (head->expects_continue ||
            !pc_slice_ieq(pc_slice_at(buf, head->fields[i].value), PC_S("100-continue")))
            return -PC_E_EXPECT;
        head->expects_continue = true;
    }
    return 0;
}

/* What can only be said of the whole head. Framing first: it decides whether anything behind the
 * head can be trusted. */
static int
check_head(struct pc_head *head, const char *buf)
{
    int status = 0;

    if (head->known[PC_F_TRANSFER_ENCODING] != 0)
        status = check_transfer_encoding(head, buf);
    if (status == 0 && head->known[PC_F_CONTENT_LENGTH] != 0)
        status = check_content_length(head, buf);
    if (status == 0)
        status = check_host(head, buf);
    if (status == 0)
        status = check_expect(head, buf);
    if (status < 0)
        return status;
    if (head->minor == 0 && !head->wants_keep)
        head->wants_close = true;
    return 0;
}

int
pc_h1_parse_head(struct pc_head *head, const char *buf, size_t len,
                 const struct pc_h1_limits *limits)
{
    int status;

    if (!head->has_line) {
        status = take_request_line(head, buf, len, limits);
        if (status <= 0)
            return status;
    }
    status = take_fields(head, buf, len, limits);
    if (status <= 0)
        return status;
    status = check_head(head, buf);
    return status < 0 ? status : (int)head->at;
}

/* The Host field of one whole line `p`..`cr`. Returns 1 it is, 0 it is another field, -PC_E_BAD. */
static int
read_host_line(const char *p, const char *cr, struct pc_slice *ret_name)
{
    const char *value, *tail;

    if (cr - p < 5 || !is_name((const uint8_t *)p, "host", 4))
        return 0;
    if (p[4] == ' ' || p[4] == '\t')
        return -PC_E_BAD; /* parse_head will not take it for Host, others might */
    if (p[4] != ':')
        return 0;
    value = p + 5;
    tail = cr;
    while (value < tail && (*value == ' ' || *value == '\t'))
        value++;
    while (tail > value && (tail[-1] == ' ' || tail[-1] == '\t'))
        tail--;
    *ret_name = (struct pc_slice){.base = value, .len = (size_t)(tail - value)};
    return 1;
}

/* Field lines are only cut at their ends here: whoever gets the connection parses them in full. */
int
pc_h1_peek_name(const char *buf, size_t len, struct pc_slice *ret_name)
{
    struct request_line line;
    size_t at = 0;
    int status = skip_empty_line(buf, len, &at);

    if (status <= 0)
        return status;
    status = parse_request_line(buf, at, len, PC_MAX_PEEK_BYTES - 4, &line);
    if (status <= 0)
        return status;
    at += (size_t)status;
    if (line.authority.len > 0) {
        *ret_name = pc_slice_at(buf, line.authority);
        return (int)at;
    }
    for (;;) {
        const char *p = buf + at, *lf = memchr(p, '\n', len - at);

        if (lf == NULL)
            return len >= PC_MAX_PEEK_BYTES ? -PC_E_HEAD_LARGE : 0;
        if (lf == p || lf[-1] != '\r')
            return -PC_E_BAD;
        at = (size_t)(lf - buf) + 1;
        if (lf - p == 1) {
            if (line.minor > 0)
                return -PC_E_BAD;
            *ret_name = (struct pc_slice){.base = buf, .len = 0};
            return (int)at;
        }
        status = read_host_line(p, lf - 1, ret_name);
        if (status != 0)
            return status < 0 ? status : (int)at;
    }
}

struct pc_slice
pc_head_field(const struct pc_head *head, const char *buf, enum pc_field_id id)
{
    if ((unsigned)id >= PC_F_KNOWN || head->known[id] == 0)
        return (struct pc_slice){0};
    return pc_slice_at(buf, head->fields[head->known[id] - 1].value);
}

struct pc_slice
pc_head_find(const struct pc_head *head, const char *buf, struct pc_slice name)
{
    uint32_t i;

    for (i = 0; i < head->field_count; i++) {
        if (pc_slice_ieq(pc_slice_at(buf, head->fields[i].name), name))
            return pc_slice_at(buf, head->fields[i].value);
    }
    return (struct pc_slice){0};
}
