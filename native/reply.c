/* reply.c - parse the head of an answer: of a CGI or FastCGI program, of an nph- script, of an HTTP back end.
 * Runs as:  child, as the identity that owns the host.   Sees: bytes of a tenant's program or back end.
 * Trusts:   nothing.   Distrusts: every byte: what is passed on must be one answer for whoever reads it.
 * Before:   gate.c   After: gate.c, respond.c
 *
 * Lines are judged when their LF is there, so the pieces in which bytes arrive cannot matter.
 * Where the standards leave a choice, we refuse, but for what real programs do without harm:
 * - a CGI answer's Transfer-Encoding is dropped, as in httpd, unless a Content-Length stands beside it;
 * - fields that other servers' fields are named after (Server, Date) are kept here: respond.c writes its own;
 * - "HTTP/1.1 200" CRLF, without the blank before an empty reason, is taken. */
#include <string.h>

#include "gateway.h"

#define MAX_CONTENT_LENGTH ((uint64_t)INT64_MAX)
#define BIT(id) (1u << (id))

enum dialect { CGI, HTTP, NPH };

struct known_field {
    struct pc_slice name;
    bool is_hop;
};

#define KNOWN(literal, hop) {.name = {(literal), sizeof(literal) - 1}, .is_hop = (hop)}

static const struct known_field known_fields[PC_REPLY_IDS] = {
    [PC_REPLY_STATUS] = KNOWN("Status", false), /* hop-by-hop in a CGI answer only */
    [PC_REPLY_LOCATION] = KNOWN("Location", false),
    [PC_REPLY_CONTENT_TYPE] = KNOWN("Content-Type", false),
    [PC_REPLY_CONTENT_LENGTH] = KNOWN("Content-Length", false),
    [PC_REPLY_TRANSFER_ENCODING] = KNOWN("Transfer-Encoding", true),
    [PC_REPLY_CONNECTION] = KNOWN("Connection", true),
    [PC_REPLY_UPGRADE] = KNOWN("Upgrade", true),
    [PC_REPLY_KEEP_ALIVE] = KNOWN("Keep-Alive", true),
    [PC_REPLY_TRAILER] = KNOWN("Trailer", false),
    [PC_REPLY_TE] = KNOWN("TE", true),
    [PC_REPLY_PROXY_CONNECTION] = KNOWN("Proxy-Connection", true),
    [PC_REPLY_PROXY_AUTHENTICATE] = KNOWN("Proxy-Authenticate", true),
    [PC_REPLY_CONTENT_LOCATION] = KNOWN("Content-Location", false),
    [PC_REPLY_SET_COOKIE] = KNOWN("Set-Cookie", false),
    [PC_REPLY_DATE] = KNOWN("Date", false),
    [PC_REPLY_SERVER] = KNOWN("Server", false),
};

/* Fields that may be there once: one of them would be believed, and who knows which. */
static const uint32_t once[] = {
    [CGI] = BIT(PC_REPLY_STATUS) | BIT(PC_REPLY_LOCATION) | BIT(PC_REPLY_CONTENT_TYPE) | BIT(PC_REPLY_CONTENT_LENGTH),
    [HTTP] = BIT(PC_REPLY_CONTENT_LENGTH) | BIT(PC_REPLY_TRANSFER_ENCODING),
    [NPH] = BIT(PC_REPLY_CONTENT_LENGTH) | BIT(PC_REPLY_TRANSFER_ENCODING),
};

static uint8_t
find_id(struct pc_slice name)
{
    for (uint8_t id = PC_REPLY_OTHER + 1; id < PC_REPLY_IDS; id++)
        if (pc_slice_ieq(known_fields[id].name, name))
            return id;
    return PC_REPLY_OTHER;
}

/* The next whole line, without its end, and what comes behind it. Returns 1, 0 need more, or an error. */
static int
find_line(struct pc_reply *reply, const char *buf, size_t len, bool needs_cr, struct pc_span *ret_line, uint32_t *ret_next)
{
    size_t most = len < PC_MAX_REPLY_HEAD_BYTES ? len : PC_MAX_REPLY_HEAD_BYTES;
    size_t from = reply->seen > reply->at ? reply->seen : reply->at;
    const char *lf = from < most ? memchr(buf + from, '\n', most - from) : NULL;
    uint32_t end;

    if (lf == NULL) {
        reply->seen = (uint32_t)most;
        return most == PC_MAX_REPLY_HEAD_BYTES ? -PC_E_HEAD_LARGE : 0;
    }
    end = (uint32_t)(lf - buf);
    *ret_next = end + 1;
    if (end > reply->at && buf[end - 1] == '\r')
        end--;
    else if (needs_cr)
        return -PC_E_BAD;
    *ret_line = (struct pc_span){.at = reply->at, .len = end - reply->at};
    return 1;
}

static bool
is_all_text(struct pc_slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!pc_byte_is_text((uint8_t)s.base[i]))
            return false;
    return true;
}

/* "200", "200 OK". Returns 0 or -PC_E_BAD. */
static int
parse_status(struct pc_reply *reply, const char *buf, struct pc_span text)
{
    const char *p = buf + text.at;

    if (text.len < 3 || (text.len > 3 && p[3] != ' ') || p[0] < '1' || p[0] > '9')
        return -PC_E_BAD;
    for (size_t i = 1; i < 3; i++)
        if (p[i] < '0' || p[i] > '9')
            return -PC_E_BAD;
    reply->status = (uint32_t)(p[0] - '0') * 100 + (uint32_t)(p[1] - '0') * 10 + (uint32_t)(p[2] - '0');
    reply->has_status = true;
    if (text.len > 4)
        reply->reason = (struct pc_span){.at = text.at + 4, .len = text.len - 4};
    return 0;
}

/* "HTTP/1.1 200 OK" */
static int
take_status_line(struct pc_reply *reply, const char *buf, struct pc_span line)
{
    const char *p = buf + line.at;
    struct pc_span rest = {.at = line.at + 9, .len = line.len - 9};

    if (line.len < 12 || memcmp(p, "HTTP/1.", 7) != 0 || (p[7] != '0' && p[7] != '1') || p[8] != ' ')
        return -PC_E_BAD;
    if (!is_all_text(pc_slice_at(buf, rest)))
        return -PC_E_BAD;
    reply->minor = (uint8_t)(p[7] - '0');
    reply->has_line = true;
    return parse_status(reply, buf, rest);
}

static int
note_length(struct pc_reply *reply, struct pc_slice value)
{
    uint64_t length;

    if (pc_parse_u64(value, &length) < 0 || length > MAX_CONTENT_LENGTH || (value.len > 1 && value.base[0] == '0'))
        return -PC_E_BAD;
    reply->has_length = true;
    reply->length = length;
    return 0;
}

static void
note_connection(struct pc_reply *reply, struct pc_slice value)
{
    struct pc_slice option;
    size_t at = 0;

    while (pc_list_next(value, &at, &option)) {
        reply->wants_close |= pc_slice_ieq(option, PC_S("close"));
        reply->wants_keep |= pc_slice_ieq(option, PC_S("keep-alive"));
        reply->wants_upgrade |= pc_slice_ieq(option, PC_S("upgrade"));
    }
}

/* What a field says of the answer as a whole. Returns 0 or -PC_E_BAD. */
static int
note_field(struct pc_reply *reply, const char *buf, enum dialect dialect, const struct pc_reply_field *field)
{
    struct pc_slice value = pc_slice_at(buf, field->value);
    bool is_first = (reply->known & BIT(field->id)) == 0;

    reply->known |= BIT(field->id);
    if (!is_first && (once[dialect] & BIT(field->id)) != 0)
        return -PC_E_BAD;
    switch ((enum pc_reply_id)field->id) {
    case PC_REPLY_STATUS:
        return dialect == CGI ? parse_status(reply, buf, field->value) : 0;
    case PC_REPLY_CONTENT_LENGTH:
        return note_length(reply, value);
    case PC_REPLY_TRANSFER_ENCODING:
        reply->is_chunked = dialect != CGI;
        return dialect == CGI || pc_slice_ieq(value, PC_S("chunked")) ? 0 : -PC_E_BAD;
    case PC_REPLY_CONNECTION:
        note_connection(reply, value);
        return 0;
    case PC_REPLY_LOCATION:
        reply->location = is_first ? field->value : reply->location;
        return 0;
    case PC_REPLY_CONTENT_TYPE:
        reply->content_type = is_first ? field->value : reply->content_type;
        return 0;
    case PC_REPLY_UPGRADE:
        reply->upgrade = is_first ? field->value : reply->upgrade;
        return 0;
    default:
        return 0;
    }
}

/* "Name: value". Returns 0 or an error. */
static int
take_field(struct pc_reply *reply, const char *buf, enum dialect dialect, struct pc_span line)
{
    const char *p = buf + line.at;
    struct pc_reply_field *field = &reply->fields[reply->field_count];
    struct pc_slice value;
    uint32_t colon = 0;

    while (colon < line.len && pc_byte_is_token((uint8_t)p[colon]))
        colon++;
    if (colon == 0 || colon == line.len || p[colon] != ':')
        return -PC_E_BAD; /* a folded line too, and a blank before the colon */
    value = pc_slice_trim((struct pc_slice){.base = p + colon + 1, .len = line.len - colon - 1});
    if (!is_all_text(value))
        return -PC_E_BAD;
    if (reply->field_count == PC_MAX_REPLY_FIELDS)
        return -PC_E_HEAD_LARGE;
    field->name = (struct pc_span){.at = line.at, .len = colon};
    field->value = (struct pc_span){.at = (uint32_t)(value.base - buf), .len = (uint32_t)value.len};
    field->id = find_id((struct pc_slice){.base = p, .len = colon});
    field->is_hop = known_fields[field->id].is_hop || (dialect == CGI && field->id == PC_REPLY_STATUS);
    reply->field_count++;
    return note_field(reply, buf, dialect, field);
}

/* All whole lines that are there. Returns 1 at the empty line, 0 need more, or an error. */
static int
take_lines(struct pc_reply *reply, const char *buf, size_t len, enum dialect dialect)
{
    for (;;) {
        struct pc_span line = {0};
        uint32_t next = 0;
        int status = find_line(reply, buf, len, dialect == HTTP, &line, &next);

        if (status <= 0)
            return status;
        if (dialect != CGI && !reply->has_line)
            status = take_status_line(reply, buf, line);
        else if (line.len > 0)
            status = take_field(reply, buf, dialect, line);
        else
            status = 1;
        if (status < 0)
            return status;
        reply->at = next;
        if (status > 0)
            return 1;
    }
}

/* The fields that one element of Connection names. Framing is not Connection's to take away. */
static void
mark_named(struct pc_reply *reply, const char *buf, struct pc_slice name)
{
    for (uint32_t i = 0; i < reply->field_count; i++) {
        struct pc_reply_field *field = &reply->fields[i];

        if (field->id != PC_REPLY_CONTENT_LENGTH && pc_slice_ieq(pc_slice_at(buf, field->name), name))
            field->is_hop = true;
    }
}

static void
mark_hops(struct pc_reply *reply, const char *buf)
{
    for (uint32_t i = 0; i < reply->field_count; i++) {
        struct pc_slice value = pc_slice_at(buf, reply->fields[i].value), name;
        size_t at = 0;

        while (reply->fields[i].id == PC_REPLY_CONNECTION && pc_list_next(value, &at, &name))
            if (name.len > 0)
                mark_named(reply, buf, name);
    }
}

/* What both kinds of answers are held to once their heads are whole. */
static int
check_head(struct pc_reply *reply, const char *buf)
{
    const uint32_t both = BIT(PC_REPLY_CONTENT_LENGTH) | BIT(PC_REPLY_TRANSFER_ENCODING);

    if ((reply->known & both) == both)
        return -PC_E_BAD;
    if ((reply->known & BIT(PC_REPLY_CONNECTION)) != 0)
        mark_hops(reply, buf);
    return 0;
}

int
pc_reply_parse_cgi(struct pc_reply *reply, const char *buf, size_t len)
{
    int status = take_lines(reply, buf, len, CGI);
    bool is_path;

    if (status > 0 && reply->field_count == 0)
        return -PC_E_BAD;
    if (status > 0)
        status = check_head(reply, buf) < 0 ? -PC_E_BAD : 1;
    if (status <= 0)
        return status;
    if (reply->has_status && reply->status < 200)
        return -PC_E_BAD;
    is_path = reply->location.len > 0 && buf[reply->location.at] == '/';
    if (!reply->has_status)
        reply->status = reply->location.len > 0 && !is_path ? 302 : 200;
    reply->is_local = reply->status == 200 && is_path;
    reply->framing = PC_REPLY_UNTIL_END;
    if (reply->is_local || reply->status == 204 || reply->status == 304)
        reply->framing = PC_REPLY_NO_BODY;
    return (int)reply->at;
}

/* RFC 9112 6.3, in its order. Returns 0 or -PC_E_BAD. */
static int
frame(struct pc_reply *reply, bool is_head)
{
    if (reply->is_chunked && reply->minor == 0)
        return -PC_E_BAD;
    if (reply->status == 101) {
        reply->framing = PC_REPLY_TUNNEL;
        return reply->minor > 0 && reply->wants_upgrade && reply->upgrade.len > 0 ? 0 : -PC_E_BAD;
    }
    reply->is_interim = reply->status < 200;
    if (is_head || reply->is_interim || reply->status == 204 || reply->status == 304)
        reply->framing = PC_REPLY_NO_BODY;
    else if (reply->is_chunked)
        reply->framing = PC_REPLY_CHUNKED;
    else
        reply->framing = reply->has_length ? PC_REPLY_LENGTH : PC_REPLY_UNTIL_END;
    return 0;
}

static int
parse_answer(struct pc_reply *reply, const char *buf, size_t len, enum dialect dialect, bool is_head)
{
    int status = take_lines(reply, buf, len, dialect);

    if (status <= 0)
        return status;
    if (check_head(reply, buf) < 0 || frame(reply, is_head) < 0)
        return -PC_E_BAD;
    if (reply->framing == PC_REPLY_TUNNEL || reply->framing == PC_REPLY_UNTIL_END || (reply->minor == 0 && !reply->wants_keep))
        reply->wants_close = true;
    return (int)reply->at;
}

int
pc_reply_parse_http(struct pc_reply *reply, const char *buf, size_t len, bool is_head)
{
    return parse_answer(reply, buf, len, HTTP, is_head);
}

int
pc_reply_parse_nph(struct pc_reply *reply, const char *buf, size_t len, bool is_head)
{
    return parse_answer(reply, buf, len, NPH, is_head);
}
