/* why.c - why a head was refused, in httpd's words: readers of its error log (fail2ban) look for them.
 * Runs as:  child (User, or a tenant's uid).   Sees: client bytes that the parser refused; looks at them again from the start, so
 *           that the parser itself need not keep a reason for what hardly ever happens.
 * Trusts:   nothing.   Distrusts: every byte; what it quotes is escaped by errlog.c.
 * Words and levels are those that httpd 2.4.71 writes for the same bytes, but for AH00565, which has those of its earlier releases:
 * fail2ban's filter knows only these.
 * Before:   request.c, peek.c   After: errlog.c */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "pc.h"

#define QUOTE_BYTES 80 /* of a name or a line, as httpd's LOG_NAME_MAX_LEN */

__attribute__((format(printf, 3, 4))) static void
say(struct pc_why *why, enum pc_level level, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (vsnprintf(why->text, sizeof why->text, format, args) < 0)
        why->text[0] = '\0';
    va_end(args);
    why->level = level;
}

/* How much of a slice is quoted. */
static int
quoted(struct pc_slice s)
{
    return s.len < QUOTE_BYTES ? (int)s.len : QUOTE_BYTES;
}

/* The part of *rest before the next `stop`, which is taken away with it. */
static struct pc_slice
cut(struct pc_slice *rest, char stop)
{
    const char *end = rest->len > 0 ? memchr(rest->base, stop, rest->len) : NULL;
    struct pc_slice part = {rest->base, end != NULL ? (size_t)(end - rest->base) : rest->len};
    size_t taken = part.len + (end != NULL);
    *rest = (struct pc_slice){rest->base + taken, rest->len - taken};
    return part;
}

/* The line at the start of raw, without its end. False: it does not end as it should, or holds a NUL. */
static bool
first_line(struct pc_slice raw, struct pc_slice *ret_line)
{
    struct pc_slice rest = raw, line = cut(&rest, '\n');
    bool is_whole = line.len < raw.len, has_cr = line.len > 0 && line.base[line.len - 1] == '\r';
    line.len -= has_cr;
    *ret_line = line;
    return (has_cr || !is_whole) && (line.len == 0 || memchr(line.base, '\0', line.len) == NULL);
}

static bool
has_control(struct pc_slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (((unsigned char)s.base[i] < 0x20 && s.base[i] != '\t') || s.base[i] == 0x7f)
            return true;
    return false;
}

static bool
is_version(struct pc_slice s)
{
    return s.len == 8 && memcmp(s.base, "HTTP/", 5) == 0 && s.base[6] == '.' && s.base[5] >= '0' && s.base[5] <= '9'
           && s.base[7] >= '0' && s.base[7] <= '9';
}

static bool
has_lower(struct pc_slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.base[i] >= 'a' && s.base[i] <= 'z')
            return true;
    return false;
}

/* Three words that look right: the method has letters that no method has (501 in httpd), or the target's form is wrong. */
static void
explain_words(struct pc_slice method, struct pc_slice target, struct pc_why *why)
{
    if (has_lower(method))
        say(why, PC_DEBUG, "AH03445: HTTP Request Line; Invalid method token: '%.*s'", quoted(method), method.base);
    else if (memchr(target.base, '#', target.len) != NULL)
        say(why, PC_DEBUG, "AH02421: HTTP Request Line; URI must not contain a fragment");
    else
        say(why, PC_DEBUG, "AH03450: HTTP Request Line; Unable to parse URI: '%.*s'", quoted(target), target.base);
}

static void
explain_line(struct pc_slice raw, int error, struct pc_why *why)
{
    struct pc_slice line, rest;
    bool is_sound = first_line(raw, &line);
    rest = line;
    struct pc_slice method = cut(&rest, ' '), target = cut(&rest, ' ');
    bool has_two_blanks = (target.len == 0 && rest.len > 0) || (rest.len > 0 && memchr(rest.base, ' ', rest.len) != NULL);
    if (!is_sound)
        say(why, PC_DEBUG, "AH00566: request failed: malformed request line");
    else if (error == -PC_E_UNKNOWN)
        say(why, PC_ERROR, "AH00135: Invalid method in request %.*s", quoted(line), line.base);
    else if (!pc_slice_is_token(method))
        say(why, PC_DEBUG, "AH03445: HTTP Request Line; Invalid method token: '%.*s'", quoted(method), method.base);
    else if (has_two_blanks)
        say(why, PC_DEBUG, "AH03448: HTTP Request Line; Excess whitespace (disallowed by HttpProtocolOptions Strict)");
    else if (target.len == 0 || has_control(target))
        say(why, PC_DEBUG, "AH03454: HTTP Request Line; URI incorrectly encoded: '%.*s'", quoted(target), target.base);
    else if (rest.len == 0)
        say(why, PC_DEBUG, "AH02401: HTTP Request Line; Rejected HTTP/0.9 request");
    else if (!is_version(rest) || error == -PC_E_VERSION)
        say(why, PC_DEBUG, "AH02418: HTTP Request Line; Unrecognized protocol '%.*s' (perhaps whitespace was injected?)",
            quoted(rest), rest.base);
    else
        explain_words(method, target, why);
}

/* What a field is refused for whose line is well-formed. */
static void
explain_value(struct pc_slice name, struct pc_slice value, struct pc_slice path, struct pc_why *why)
{
    if (pc_slice_ieq(name, PC_S("Host")))
        say(why, PC_DEBUG, "AH00550: Client sent malformed Host header: %.*s", quoted(value), value.base);
    else if (pc_slice_ieq(name, PC_S("Content-Length")))
        say(why, PC_DEBUG, "AH10242: client sent invalid Content-Length (%.*s): %.*s", quoted(value), value.base, quoted(path),
            path.base);
    else if (pc_slice_ieq(name, PC_S("Transfer-Encoding")))
        say(why, PC_DEBUG, "AH02539: client sent unknown Transfer-Encoding (%.*s): %.*s", quoted(value), value.base, quoted(path),
            path.base);
    else if (pc_slice_ieq(name, PC_S("Expect")))
        say(why, PC_INFO, "AH00570: client sent an unrecognized expectation value of Expect: %.*s", quoted(value), value.base);
    else /* "Content_Length" and the like */
        say(why, PC_DEBUG, "AH02426: Request header field name is malformed: %.*s", quoted(name), name.base);
}

static void
explain_field(const struct pc_head *head, struct pc_slice raw, struct pc_why *why)
{
    struct pc_slice line, rest;
    bool is_sound = first_line((struct pc_slice){raw.base + head->at, raw.len - head->at}, &line);
    bool is_folded = line.len > 0 && (line.base[0] == ' ' || line.base[0] == '\t');
    rest = line;
    struct pc_slice name = cut(&rest, ':');
    while (rest.len > 0 && (rest.base[0] == ' ' || rest.base[0] == '\t'))
        rest = (struct pc_slice){rest.base + 1, rest.len - 1};
    if (is_folded && head->field_count == 0)
        say(why, PC_DEBUG, "AH03442: Line folding encountered before first header line");
    else if (!pc_slice_is_token(name) || name.len == line.len)
        say(why, PC_DEBUG, "AH02426: Request header field name is malformed: %.*s", quoted(line), line.base);
    else if (!is_sound || has_control(rest))
        say(why, PC_DEBUG, "AH02427: Request header value is malformed: %.*s", quoted(rest), rest.base);
    else
        explain_value(name, rest, pc_slice_at(raw.base, head->path), why);
}

static void
explain_large(const struct pc_head *head, struct pc_slice raw, const struct pc_h1_limits *limits, struct pc_why *why)
{
    struct pc_slice rest = {raw.base + head->at, raw.len - head->at};
    uint32_t most = limits->field_count == 0 || limits->field_count > PC_MAX_FIELDS_HARD ? PC_MAX_FIELDS_HARD : limits->field_count;
    struct pc_slice name = cut(&rest, ':');
    if (head->has_line && head->field_count >= most)
        say(why, PC_INFO, "AH00563: Number of request headers exceeds LimitRequestFields");
    else if (head->has_line && name.len + rest.len >= limits->field_bytes)
        say(why, PC_INFO, "AH00561: Request header exceeds LimitRequestFieldSize: %.*s", quoted(name), name.base);
    else
        say(why, PC_INFO, "AH00567: request failed: error reading the headers (longer than %d)", PC_MAX_HEAD_BYTES);
}

/* The lines are well-formed; what they say together is refused. The order is that of the parser's checks. */
static void
explain_whole(const struct pc_head *head, struct pc_slice raw, int error, struct pc_why *why)
{
    struct pc_slice path = pc_slice_at(raw.base, head->path), host = pc_head_field(head, raw.base, PC_F_HOST);
    bool is_coding = head->known[PC_F_TRANSFER_ENCODING] != 0 && !head->is_chunked;
    bool is_length = head->known[PC_F_CONTENT_LENGTH] != 0 && !head->has_length;
    if (is_coding)
        explain_value(PC_S("Transfer-Encoding"), pc_head_field(head, raw.base, PC_F_TRANSFER_ENCODING), path, why);
    else if (is_length)
        explain_value(PC_S("Content-Length"), pc_head_field(head, raw.base, PC_F_CONTENT_LENGTH), path, why);
    else if (error == -PC_E_EXPECT)
        explain_value(PC_S("Expect"), pc_head_field(head, raw.base, PC_F_EXPECT), path, why);
    else if (host.base == NULL && head->authority.len == 0)
        say(why, PC_DEBUG, "AH00569: client sent HTTP/1.1 request without hostname (see RFC2616 section 14.23): %.*s",
            quoted(path), path.base);
    else
        explain_value(PC_S("Host"), host.base != NULL ? host : pc_slice_at(raw.base, head->authority), path, why);
}

void
pc_why_refused(int error, struct pc_slice raw, const struct pc_h1_limits *limits, struct pc_why *ret_why)
{
    struct pc_head head;
    memset(&head, 0, offsetof(struct pc_head, fields));
    int again = pc_h1_parse_head(&head, raw.base, raw.len, limits);
    if (again < 0)
        error = again; /* what looked at the first bytes only may have known less */
    bool is_whole = head.has_line && head.at >= 4 && memcmp(raw.base + head.at - 4, "\r\n\r\n", 4) == 0;
    if (error == -PC_E_URI_LONG)
        say(ret_why, PC_INFO, "AH00565: request failed: URI too long (longer than %u)", (unsigned)limits->line_bytes);
    else if (error == -PC_E_HEAD_LARGE)
        explain_large(&head, raw, limits, ret_why);
    else if (!head.has_line)
        explain_line((struct pc_slice){raw.base + head.at, raw.len - head.at}, error, ret_why);
    else if (is_whole)
        explain_whole(&head, raw, error, ret_why);
    else if (head.at < raw.len)
        explain_field(&head, raw, ret_why);
    else
        say(ret_why, PC_DEBUG, "AH00567: request failed: error reading the headers");
}
