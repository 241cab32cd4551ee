/* format.c - FORMAT operations: from a request's facts to a log line or a field's value.
 * Runs as:  child (User, or a tenant's uid).   Sees: client bytes (fields, request line, cookies).
 * Trusts:   the record's operations to be ours, but not their lengths.
 * Distrusts: the client's bytes: escaped in logs, without CR, LF and NUL in fields.
 * Before:   respond.c, fields.c   After: log.c */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* gettid */
#endif
#include "child.h"

#include <arpa/inet.h>
#include <string.h>
#include <unistd.h>

#define PC_FMT_FINAL 2     /* flags of an operation, as wire/record.py has them */
#define PC_FMT_CONDITION 4
#define PC_FMT_NEGATED 8
#define PC_FMT_HEADER_BYTES 4
#define PC_FMT_CLF_BYTES 28 /* "[10/Oct/2000:13:55:36 -0700]" */

struct pc_format {
    const struct pc_req *req;
    char *out;
    size_t used, cap; /* used <= cap */
    bool in_log;
};

/* ------------------------------------------------------------------ putting */

static void
pc_format_put(struct pc_format *f, const char *base, size_t len)
{
    if (len > f->cap - f->used)
        len = f->cap - f->used;
    if (len > 0)
        memcpy(f->out + f->used, base, len);
    f->used += len;
}

static void
pc_format_absent(struct pc_format *f)
{
    const struct pc_slice word = f->in_log ? PC_S("-") : PC_S("(null)");

    pc_format_put(f, word.base, word.len);
}

static void
pc_format_escaped(struct pc_format *f, struct pc_slice s)
{
    char one[4];

    if (s.len <= (f->cap - f->used) / 4) { /* the worst case fits */
        f->used += pc_escape_log(s, f->out + f->used);
        return;
    }
    for (size_t i = 0; i < s.len; i++) {
        size_t len = pc_escape_log((struct pc_slice){.base = s.base + i, .len = 1}, one);
        if (len > f->cap - f->used)
            return; /* no half escapes */
        pc_format_put(f, one, len);
    }
}

static void
pc_format_plain(struct pc_format *f, struct pc_slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.base[i] != '\r' && s.base[i] != '\n' && s.base[i] != '\0')
            pc_format_put(f, s.base + i, 1);
}

/* A client's or tenant's bytes; base NULL = absent. */
static void
pc_format_text(struct pc_format *f, struct pc_slice s)
{
    if (s.base == NULL)
        pc_format_absent(f);
    else if (f->in_log)
        pc_format_escaped(f, s);
    else
        pc_format_plain(f, s);
}

static void
pc_format_count(struct pc_format *f, uint64_t number)
{
    char digits[20];

    pc_format_put(f, digits, pc_number(digits, number));
}

/* `number` in exactly `width` digits; what does not fit is cut from the left. */
static void
pc_format_padded(char *out, unsigned int number, size_t width)
{
    for (size_t i = width; i-- > 0; number /= 10)
        out[i] = (char)('0' + number % 10);
}

/* ------------------------------------------------------------------ addresses */

static void
pc_format_ipv4(struct pc_format *f, const uint8_t bytes[4])
{
    char text[16];
    size_t len = 0;

    for (size_t i = 0; i < 4; i++) {
        if (i > 0)
            text[len++] = '.';
        len += pc_number(text + len, bytes[i]); /* UNSAFE: 3 digits at most, 15 bytes in all */
    }
    pc_format_put(f, text, len);
}

static void
pc_format_address(struct pc_format *f, const struct sockaddr_storage *address)
{
    char text[INET6_ADDRSTRLEN];

    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
        pc_format_ipv4(f, (const uint8_t *)&v4->sin_addr);
    } else if (address->ss_family == AF_INET6) {
        const struct in6_addr *v6 = &((const struct sockaddr_in6 *)address)->sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(v6))
            pc_format_ipv4(f, v6->s6_addr + 12);
        else if (inet_ntop(AF_INET6, v6, text, sizeof text) != NULL)
            pc_format_put(f, text, strlen(text));
    } else {
        pc_format_absent(f);
    }
}

static uint16_t
pc_format_port_of(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET)
        return ntohs(((const struct sockaddr_in *)address)->sin_port);
    if (address->ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
    return 0;
}

/* ------------------------------------------------------------------ time */

static void
pc_format_put_clf(char out[PC_FMT_CLF_BYTES], const struct tm *local)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    const long offset = local->tm_gmtoff;
    const unsigned int minutes = (unsigned int)(offset < 0 ? -offset : offset) / 60;

    memcpy(out, "[dd/Mon/yyyy:HH:MM:SS +hhmm]", PC_FMT_CLF_BYTES);
    pc_format_padded(out + 1, (unsigned int)local->tm_mday, 2);
    memcpy(out + 4, months + 3 * (local->tm_mon % 12), 3);
    pc_format_padded(out + 8, (unsigned int)local->tm_year + 1900, 4);
    pc_format_padded(out + 13, (unsigned int)local->tm_hour, 2);
    pc_format_padded(out + 16, (unsigned int)local->tm_min, 2);
    pc_format_padded(out + 19, (unsigned int)local->tm_sec, 2);
    out[22] = offset < 0 ? '-' : '+';
    pc_format_padded(out + 23, minutes / 60 * 100 + minutes % 60, 4);
}

/* The zone lookup takes a lock and most of the line's time, hence once per second and thread. The
 * only state here. */
static void
pc_format_clf(struct pc_format *f, int64_t unix_s)
{
    static _Thread_local __attribute__((tls_model("initial-exec"))) struct {
        int64_t second;
        bool is_set;
        char text[PC_FMT_CLF_BYTES];
    } last;

    if (!last.is_set || last.second != unix_s) {
        const time_t when = (time_t)unix_s;
        struct tm local;
        if (localtime_r(&when, &local) == NULL) {
            pc_format_absent(f);
            return;
        }
        pc_format_put_clf(last.text, &local);
        last.second = unix_s;
        last.is_set = true;
    }
    pc_format_put(f, last.text, sizeof last.text);
}

static void
pc_format_strftime(struct pc_format *f, struct pc_slice format, int64_t unix_s)
{
    const time_t when = (time_t)unix_s;
    char pattern[256], text[512];
    struct tm local;
    size_t len;

    if (format.len >= sizeof pattern || localtime_r(&when, &local) == NULL) {
        pc_format_absent(f);
        return;
    }
    memcpy(pattern, format.base, format.len);
    pattern[format.len] = '\0';
    len = strftime(text, sizeof text, pattern, &local);
    pc_format_put(f, text, len);
}

static void
pc_format_op_time(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    static const struct pc_format_unit {
        struct pc_slice name;
        int64_t divisor, modulus; /* of microseconds; modulus 0 = none */
        size_t width;             /* 0 = as many digits as it takes */
    } units[] = {
        {{"sec", 3}, 1000000, 0, 0},          {{"msec", 4}, 1000, 0, 0},
        {{"usec", 4}, 1, 0, 0},               {{"msec_frac", 9}, 1000, 1000, 3},
        {{"usec_frac", 9}, 1, 1000000, 6},
    };
    const bool at_end = pc_slice_starts(arg, PC_S("end"));
    int64_t us = f->req->start_wall_us;

    (void)flags;
    if (!f->in_log) { /* mod_headers' */
        pc_format_put(f, "t=", 2);
        pc_format_count(f, (uint64_t)us);
        return;
    }
    if (at_end || pc_slice_starts(arg, PC_S("begin"))) {
        const size_t word = at_end ? 3 : 5;
        if (arg.len == word || arg.base[word] == ':') { /* else a strftime format that begins so */
            us = at_end ? pc_wall_us() : us;
            arg.base += arg.len == word ? word : word + 1;
            arg.len -= arg.len == word ? word : word + 1;
        }
    }
    if (arg.len == 0) {
        pc_format_clf(f, us / 1000000);
        return;
    }
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        const struct pc_format_unit *unit = &units[i];
        const int64_t number = us / unit->divisor;
        char digits[8];
        if (!pc_slice_eq(arg, unit->name))
            continue;
        if (unit->width == 0) {
            pc_format_count(f, (uint64_t)number);
        } else {
            pc_format_padded(digits, (unsigned int)(number % unit->modulus), unit->width);
            pc_format_put(f, digits, unit->width);
        }
        return;
    }
    pc_format_strftime(f, arg, us / 1000000);
}

static uint64_t
pc_format_duration_us(const struct pc_req *req)
{
    const uint64_t now = req->end_ns != 0 ? req->end_ns : pc_now_ns();

    return now > req->start_ns ? (now - req->start_ns) / 1000 : 0;
}

static void
pc_format_op_duration_us(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)arg, (void)flags;
    if (!f->in_log)
        pc_format_put(f, "D=", 2);
    pc_format_count(f, pc_format_duration_us(f->req));
}

static void
pc_format_op_duration(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    uint64_t divisor = 1000000;

    (void)flags;
    if (pc_slice_ieq(arg, PC_S("ms")))
        divisor = 1000;
    else if (pc_slice_ieq(arg, PC_S("us")))
        divisor = 1;
    pc_format_count(f, pc_format_duration_us(f->req) / divisor);
}

/* ------------------------------------------------------------------ the connection */

static void
pc_format_op_client(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    bool is_peer = pc_slice_ieq(arg, PC_S("c")) && f->req->has_peer; /* %{c}a: the connection's, whoever it speaks for */

    (void)flags;
    pc_format_address(f, is_peer ? &f->req->peer : &f->req->client);
}

static void
pc_format_op_server(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)arg, (void)flags;
    pc_format_address(f, &f->req->server);
}

static void
pc_format_op_port(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    const struct pc_req *req = f->req;

    (void)flags;
    if (pc_slice_ieq(arg, PC_S("local")))
        pc_format_count(f, pc_format_port_of(&req->server));
    else if (pc_slice_ieq(arg, PC_S("remote")))
        pc_format_count(f, pc_format_port_of(&req->client));
    else if (req->host != NULL && req->host->port != 0)
        pc_format_count(f, req->host->port);
    else
        pc_format_count(f, req->is_tls ? 443 : 80);
}

static void
pc_format_op_process(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    char hex[16];
    size_t at = sizeof hex;
    unsigned int tid;

    (void)flags;
    if (pc_slice_ieq(arg, PC_S("tid"))) {
        pc_format_count(f, (uint64_t)gettid());
    } else if (pc_slice_ieq(arg, PC_S("hextid"))) {
        tid = (unsigned int)gettid();
        do {
            hex[--at] = "0123456789abcdef"[tid & 15];
            tid >>= 4;
        } while (tid > 0);
        pc_format_put(f, hex + at, sizeof hex - at);
    } else {
        pc_format_count(f, (uint64_t)getpid());
    }
}

static void
pc_format_op_kept(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)arg, (void)flags;
    pc_format_count(f, f->req->nth);
}

static void
pc_format_op_connection(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)arg, (void)flags;
    pc_format_put(f, f->req->aborted ? "X" : f->req->resp.close ? "-" : "+", 1);
}

static void
pc_format_op_id(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)arg, (void)flags;
    pc_format_count(f, (uint64_t)getpid());
    pc_format_put(f, "-", 1);
    pc_format_count(f, f->req->id);
}

/* ------------------------------------------------------------------ the request */

/* A span of the head, or absent when the connection ended before a request line was there. */
static struct pc_slice
pc_format_head(const struct pc_req *req, size_t span_at)
{
    struct pc_span span;

    if (req->head == NULL || req->raw == NULL || !req->head->has_line)
        return (struct pc_slice){.base = NULL, .len = 0};
    memcpy(&span, (const char *)req->head + span_at, sizeof span);
    return pc_slice_at(req->raw, span);
}

#define PC_FORMAT_HEAD(req, member) pc_format_head((req), offsetof(struct pc_head, member))

static void
pc_format_op_line(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)arg, (void)flags;
    pc_format_text(f, PC_FORMAT_HEAD(f->req, line));
}

static void
pc_format_op_method(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)arg, (void)flags;
    pc_format_text(f, PC_FORMAT_HEAD(f->req, method));
}

static void
pc_format_op_protocol(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)arg, (void)flags;
    if (f->req->head == NULL || !f->req->head->has_line)
        pc_format_absent(f);
    else
        pc_format_put(f, f->req->is_h2 ? "HTTP/2.0" : f->req->head->minor == 0 ? "HTTP/1.0" : "HTTP/1.1", 8);
}

/* As it was asked for: an ErrorDocument in between does not show, unless '>' wants it. */
static void
pc_format_op_path(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    const struct pc_slice raw = PC_FORMAT_HEAD(f->req, path);
    char path[PC_MAX_PATH_BYTES + 1];
    struct pc_slice target, query;
    int len;

    (void)arg;
    if ((f->req->redirect_depth == 0 || (flags & PC_FMT_FINAL)) && f->req->path.len > 0) {
        pc_format_text(f, f->req->path);
        return;
    }
    if (raw.base == NULL) {
        pc_format_absent(f);
        return;
    }
    pc_uri_split(raw, &target, &query);
    len = target.len < sizeof path ? pc_uri_decode_path(target, path, sizeof path) : -PC_E_BAD;
    /* What cannot be decoded was refused; it is shown as it came. */
    pc_format_text(f, len < 0 ? target : (struct pc_slice){.base = path, .len = (size_t)len});
}

static void
pc_format_op_query(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    const struct pc_slice raw = PC_FORMAT_HEAD(f->req, path);
    struct pc_slice path, query = f->req->query;

    (void)arg;
    if (!(flags & PC_FMT_FINAL) && raw.base != NULL)
        pc_uri_split(raw, &path, &query);
    if (query.base == NULL)
        return; /* empty, not "-": it is written right behind %U */
    pc_format_put(f, "?", 1);
    pc_format_text(f, query);
}

static void
pc_format_op_field_in(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)flags;
    if (f->req->head == NULL || f->req->raw == NULL)
        pc_format_absent(f);
    else
        pc_format_text(f, pc_fields_in(f->req, arg));
}

static struct pc_slice
pc_format_trim(struct pc_slice s)
{
    while (s.len > 0 && (s.base[0] == ' ' || s.base[0] == '\t')) {
        s.base++;
        s.len--;
    }
    while (s.len > 0 && (s.base[s.len - 1] == ' ' || s.base[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* As httpd: names without regard to case, blanks around both sides, no quoting. */
static void
pc_format_op_cookie(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    struct pc_slice rest = {.base = NULL, .len = 0};

    (void)flags;
    if (f->req->head != NULL && f->req->raw != NULL)
        rest = pc_fields_in(f->req, PC_S("Cookie"));
    while (rest.len > 0) {
        const char *semicolon = memchr(rest.base, ';', rest.len);
        const size_t len = semicolon != NULL ? (size_t)(semicolon - rest.base) : rest.len;
        const char *equals = memchr(rest.base, '=', len);
        if (equals != NULL) {
            const size_t name_len = (size_t)(equals - rest.base);
            const struct pc_slice name = {.base = rest.base, .len = name_len};
            const struct pc_slice value = {.base = equals + 1, .len = len - name_len - 1};
            if (pc_slice_ieq(pc_format_trim(name), arg)) {
                pc_format_text(f, pc_format_trim(value));
                return;
            }
        }
        rest.base += semicolon != NULL ? len + 1 : len;
        rest.len -= semicolon != NULL ? len + 1 : len;
    }
    pc_format_absent(f);
}

static void
pc_format_op_env(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)flags;
    pc_format_text(f, pc_env_get(f->req, arg));
}

static void
pc_format_op_bytes_in(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)arg, (void)flags;
    pc_format_count(f, f->req->bytes_in);
}

/* ------------------------------------------------------------------ the response */

static void
pc_format_op_body(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)arg, (void)flags;
    pc_format_count(f, f->req->body_out);
}

static void
pc_format_op_body_clf(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)arg, (void)flags;
    if (f->req->body_out == 0)
        pc_format_put(f, "-", 1);
    else
        pc_format_count(f, f->req->body_out);
}

static void
pc_format_op_bytes_out(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)arg, (void)flags;
    pc_format_count(f, f->req->bytes_out);
}

static void
pc_format_op_bytes_both(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)arg, (void)flags;
    pc_format_count(f, f->req->bytes_in + f->req->bytes_out);
}

static void
pc_format_op_status(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)arg, (void)flags;
    if (f->req->resp.status == 0)
        pc_format_absent(f);
    else
        pc_format_count(f, f->req->resp.status);
}

/* All fields called `name`, with ", " between them. */
static void
pc_format_all_fields(struct pc_format *f, struct pc_slice name)
{
    const struct pc_resp *resp = &f->req->resp;
    uint32_t found = 0;

    for (uint32_t i = 0; i < resp->field_count; i++) {
        if (!pc_slice_ieq(resp->fields[i].name, name))
            continue;
        if (found++ > 0)
            pc_format_put(f, ", ", 2);
        pc_format_text(f, resp->fields[i].value);
    }
    if (found == 0)
        pc_format_absent(f);
}

static void
pc_format_op_field_out(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    const struct pc_resp *resp = &f->req->resp;

    (void)flags;
    if (pc_slice_ieq(arg, PC_S("Content-Type")) && resp->content_type.base != NULL) {
        struct pc_slice type = resp->content_type; /* httpd shows it without parameters */
        const char *semicolon = memchr(type.base, ';', type.len);
        if (semicolon != NULL)
            type.len = (size_t)(semicolon - type.base);
        pc_format_text(f, pc_format_trim(type));
    } else if (pc_slice_ieq(arg, PC_S("Content-Length")) && resp->has_length && resp->status != 0) {
        pc_format_count(f, resp->length); /* respond.c writes the field, it is not in the list */
    } else if (pc_slice_ieq(arg, PC_S("Server")) && f->req->config != NULL) {
        pc_format_text(f, f->req->config->server);
    } else {
        pc_format_all_fields(f, arg);
    }
}

static void
pc_format_op_filename(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)arg, (void)flags;
    if (f->req->filename.len == 0)
        pc_format_absent(f);
    else
        pc_format_text(f, f->req->filename);
}

static void
pc_format_op_handler(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)arg, (void)flags;
    if (f->req->handler.len == 0)
        pc_format_absent(f);
    else
        pc_format_text(f, f->req->handler);
}

static void
pc_format_op_host(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)arg, (void)flags;
    if (f->req->host == NULL)
        pc_format_absent(f);
    else
        pc_format_text(f, pc_host_name(f->req->host));
}

static void
pc_format_op_asked_host(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    const struct pc_hostname *name = &f->req->name;

    if (name->len == 0)
        pc_format_op_host(f, arg, flags);
    else
        pc_format_text(f, (struct pc_slice){.base = name->name, .len = name->len});
}

static void
pc_format_op_literal(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)flags;
    if (f->in_log)
        pc_format_put(f, arg.base, arg.len); /* the administrator's own words */
    else
        pc_format_plain(f, arg);
}

/* %{SSL_PROTOCOL}x: of a plain connection there is none. */
static void
pc_format_op_tls(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    const struct pc_conn *conn = f->req->conn;
    const bool has_facts = f->req->is_tls && conn != NULL && conn->transport->fact != NULL;

    (void)flags;
    pc_format_text(f, has_facts ? conn->transport->fact(conn, arg, f->req->arena) : (struct pc_slice){.base = NULL, .len = 0});
}

/* identd, users and notes: none exists here, so they are what httpd shows then. */
static void
pc_format_op_none(struct pc_format *f, struct pc_slice arg, unsigned int flags)
{
    (void)arg, (void)flags;
    pc_format_absent(f);
}

/* ------------------------------------------------------------------ the table */

static void (*const pc_format_table[])(struct pc_format *f, struct pc_slice arg, unsigned int) = {
    [PC_FMT_LITERAL] = pc_format_op_literal, [PC_FMT_a] = pc_format_op_client,
    [PC_FMT_A] = pc_format_op_server,        [PC_FMT_B] = pc_format_op_body,
    [PC_FMT_b] = pc_format_op_body_clf,      [PC_FMT_C] = pc_format_op_cookie,
    [PC_FMT_D] = pc_format_op_duration_us,   [PC_FMT_e] = pc_format_op_env,
    [PC_FMT_f] = pc_format_op_filename,      [PC_FMT_h] = pc_format_op_client,
    [PC_FMT_H] = pc_format_op_protocol,      [PC_FMT_i] = pc_format_op_field_in,
    [PC_FMT_k] = pc_format_op_kept,          [PC_FMT_l] = pc_format_op_none,
    [PC_FMT_L] = pc_format_op_id,            [PC_FMT_m] = pc_format_op_method,
    [PC_FMT_n] = pc_format_op_none,          [PC_FMT_o] = pc_format_op_field_out,
    [PC_FMT_p] = pc_format_op_port,          [PC_FMT_P] = pc_format_op_process,
    [PC_FMT_q] = pc_format_op_query,         [PC_FMT_r] = pc_format_op_line,
    [PC_FMT_R] = pc_format_op_handler,       [PC_FMT_s] = pc_format_op_status,
    [PC_FMT_t] = pc_format_op_time,          [PC_FMT_T] = pc_format_op_duration,
    [PC_FMT_u] = pc_format_op_none,          [PC_FMT_U] = pc_format_op_path,
    [PC_FMT_v] = pc_format_op_host,          [PC_FMT_V] = pc_format_op_asked_host,
    [PC_FMT_X] = pc_format_op_connection,    [PC_FMT_I] = pc_format_op_bytes_in,
    [PC_FMT_O] = pc_format_op_bytes_out,     [PC_FMT_S] = pc_format_op_bytes_both,
    [PC_FMT_x] = pc_format_op_tls,
};

/* Take the condition off the argument's front. Returns 1 it holds, 0 it does not, -1 broken. */
static int
pc_format_condition(const struct pc_req *req, unsigned int flags, struct pc_slice *arg)
{
    const uint8_t *at = (const uint8_t *)arg->base;
    bool is_listed = false;
    size_t count;

    if (!(flags & PC_FMT_CONDITION))
        return 1;
    if (arg->len < 1 || arg->len - 1 < 2 * (size_t)at[0])
        return -1;
    count = at[0];
    for (size_t i = 0; i < count; i++)
        if ((uint32_t)(at[1 + 2 * i] | at[2 + 2 * i] << 8) == req->resp.status)
            is_listed = true;
    arg->base += 1 + 2 * count;
    arg->len -= 1 + 2 * count;
    return is_listed != ((flags & PC_FMT_NEGATED) != 0);
}

size_t
pc_format_write(const struct pc_req *req, struct pc_slice ops, bool in_log, char *out, size_t cap)
{
    struct pc_format f = {.req = req, .out = out, .used = 0, .cap = cap, .in_log = in_log};

    while (ops.len >= PC_FMT_HEADER_BYTES) {
        const uint8_t *head = (const uint8_t *)ops.base;
        const size_t len = head[2] | (size_t)head[3] << 8;
        struct pc_slice arg = {.base = ops.base + PC_FMT_HEADER_BYTES, .len = len};
        int holds;

        if (len > ops.len - PC_FMT_HEADER_BYTES)
            break; /* not ours: what is there so far is still worth a line */
        holds = pc_format_condition(req, head[1], &arg);
        if (holds < 0 || head[0] >= sizeof pc_format_table / sizeof pc_format_table[0])
            break;
        if (holds == 0)
            pc_format_absent(&f);
        else
            pc_format_table[head[0]](&f, arg, head[1]);
        ops.base += PC_FMT_HEADER_BYTES + len;
        ops.len -= PC_FMT_HEADER_BYTES + len;
    }
    return f.used;
}
