/* errlog.c - the error log: one line, one write, in the shape that httpd's readers know.
 * Runs as:  child (User, or a tenant's uid).   Sees: client bytes inside messages.
 * Trusts:   its callers' formats.   Distrusts: what they put in: escaped, so a line stays a line.
 * Before:   anything that fails   After: - */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* gettid, strerrordesc_np */
#endif
#include "pc.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PC_ERRLOG_LINE_BYTES 8192
#define PC_ERRLOG_TEXT_BYTES 4096 /* of a message before it is escaped */
#define PC_ERRLOG_CLIENT_BYTES (INET6_ADDRSTRLEN + 9) /* "[", "]:65535", NUL */

/* What a line says, before it is put into one of the two shapes. */
struct pc_errlog_entry {
    const struct pc_config *config;
    const struct pc_host *host;
    enum pc_level level;
    const char *module, *client; /* client "" = none */
    int64_t wall_us;
    struct pc_slice text, referer; /* referer base NULL = none */
};

struct pc_errlog_line {
    size_t used; /* <= sizeof text - 1: the newline always fits */
    char text[PC_ERRLOG_LINE_BYTES];
};

/* ------------------------------------------------------------------ putting */

static size_t
pc_errlog_left(const struct pc_errlog_line *line)
{
    return sizeof line->text - 1 - line->used;
}

/* All of it or nothing: no half escapes at the end of a cut line. */
static void
pc_errlog_put(struct pc_errlog_line *line, const char *base, size_t len)
{
    if (len > pc_errlog_left(line))
        return;
    memcpy(line->text + line->used, base, len);
    line->used += len;
}

static void
pc_errlog_puts(struct pc_errlog_line *line, const char *text)
{
    pc_errlog_put(line, text, strlen(text));
}

static void
pc_errlog_put_number(struct pc_errlog_line *line, uint64_t number)
{
    char digits[20];

    pc_errlog_put(line, digits, pc_number(digits, number));
}

/* As httpd's ap_escape_errorlog_item: quotes stay, a backslash is doubled, what does not print is
 * \b \n \r \t \v or \xHH. */
static void
pc_errlog_put_escaped(struct pc_errlog_line *line, struct pc_slice s)
{
    static const char codes[] = "\b\n\r\t\v\\", letters[] = "bnrtv\\", hex[] = "0123456789abcdef";

    for (size_t i = 0; i < s.len && pc_errlog_left(line) >= 4; i++) {
        const unsigned char c = (unsigned char)s.base[i];
        const char *code = c != 0 ? memchr(codes, c, sizeof codes - 1) : NULL;
        char escape[4] = {'\\', 'x', hex[c >> 4], hex[c & 15]};
        if (code != NULL) {
            escape[1] = letters[code - codes];
            pc_errlog_put(line, escape, 2);
        } else if (c < 0x20 || c > 0x7e) {
            pc_errlog_put(line, escape, 4);
        } else {
            pc_errlog_put(line, s.base + i, 1);
        }
    }
}

/* Length of the UTF-8 character at the start of s (RFC 3629), 0 = none. Longer forms than needed,
 * surrogates and what is above U+10FFFF are none. */
static size_t
pc_errlog_utf8(struct pc_slice s)
{
    const unsigned char *at = (const unsigned char *)s.base;
    size_t len = 0;

    if (at[0] < 0x80)
        return 1;
    if (at[0] >= 0xc2 && at[0] < 0xf5)
        len = at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
    if (len > s.len)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) ||
        (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f))
        return 0;
    return len;
}

/* The inside of a JSON string (RFC 8259 7); what is no UTF-8 becomes U+FFFD; DEL and C1 are
 * escaped. */
static void
pc_errlog_put_json(struct pc_errlog_line *line, struct pc_slice s)
{
    static const char hex[] = "0123456789abcdef";

    while (s.len > 0 && pc_errlog_left(line) >= 16) { /* the longest piece, and the line's end */
        const unsigned char c = (unsigned char)s.base[0];
        const size_t len = pc_errlog_utf8(s);
        const bool is_c1 = len == 2 && c == 0xc2 && (unsigned char)s.base[1] < 0xa0;
        const unsigned char code = is_c1 ? (unsigned char)s.base[1] : c;
        const char escape[6] = {'\\', 'u', '0', '0', hex[code >> 4], hex[code & 15]};
        if (len == 0) {
            pc_errlog_put(line, "\\ufffd", 6);
        } else if (c < 0x20 || c == 0x7f || is_c1) {
            pc_errlog_put(line, escape, 6);
        } else {
            if (c == '"' || c == '\\')
                pc_errlog_put(line, "\\", 1);
            pc_errlog_put(line, s.base, len);
        }
        s.base += len > 0 ? len : 1;
        s.len -= len > 0 ? len : 1;
    }
}

/* ------------------------------------------------------------------ the two shapes */

static const char *
pc_errlog_level_name(enum pc_level level)
{
    static const char *const names[] = {"emerg", "alert",  "crit", "error",
                                        "warn",  "notice", "info", "debug"};

    return (size_t)level < sizeof names / sizeof names[0] ? names[level] : "debug";
}

static void
pc_errlog_put_micro(struct pc_errlog_line *line, int64_t wall_us, const char *behind)
{
    char text[16];
    const unsigned int micro = (unsigned int)(wall_us % 1000000) % 1000000;

    if (snprintf(text, sizeof text, ".%06u%s", micro, behind) > 0)
        pc_errlog_puts(line, text);
}

/* "[Sat Nov 21 01:03:00.123456 2026] [core:error] [pid 7:tid 9] [client 192.0.2.1:5000] text" */
static void
pc_errlog_shape_text(const struct pc_errlog_entry *entry, struct pc_errlog_line *line)
{
    const time_t seconds = (time_t)(entry->wall_us / 1000000);
    char stamp[40];
    struct tm local = {.tm_year = 70};
    size_t len = 0;

    if (localtime_r(&seconds, &local) != NULL)
        len = strftime(stamp, sizeof stamp, "[%a %b %d %H:%M:%S", &local);
    pc_errlog_put(line, stamp, len);
    pc_errlog_put_micro(line, entry->wall_us, " ");
    pc_errlog_put_number(line, (uint64_t)local.tm_year + 1900);
    pc_errlog_puts(line, "] [");
    pc_errlog_puts(line, entry->module);
    pc_errlog_puts(line, ":");
    pc_errlog_puts(line, pc_errlog_level_name(entry->level));
    pc_errlog_puts(line, "] [pid ");
    pc_errlog_put_number(line, (uint64_t)getpid());
    pc_errlog_puts(line, ":tid ");
    pc_errlog_put_number(line, (uint64_t)gettid());
    if (entry->client[0] != '\0') {
        pc_errlog_puts(line, "] [client ");
        pc_errlog_puts(line, entry->client);
    }
    pc_errlog_puts(line, "] ");
    pc_errlog_put_escaped(line, entry->text);
    if (entry->referer.base != NULL) {
        pc_errlog_puts(line, ", referer: ");
        pc_errlog_put_escaped(line, entry->referer);
    }
}

static void
pc_errlog_put_member(struct pc_errlog_line *line, const char *key, struct pc_slice value)
{
    pc_errlog_puts(line, key);
    pc_errlog_put_json(line, value);
    pc_errlog_puts(line, "\"");
}

/* The keys of structlog's JSONRenderer, which writes the dispatcher's lines. The message comes
 * last: it alone is long, and a cut one still leaves valid JSON. */
static void
pc_errlog_shape_json(const struct pc_errlog_entry *entry, struct pc_errlog_line *line)
{
    const time_t seconds = (time_t)(entry->wall_us / 1000000);
    char stamp[40];
    size_t len = 0;
    struct tm utc;

    if (gmtime_r(&seconds, &utc) != NULL)
        len = strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
    pc_errlog_puts(line, "{\"timestamp\":\"");
    pc_errlog_put(line, stamp, len);
    pc_errlog_put_micro(line, entry->wall_us, "Z");
    pc_errlog_puts(line, "\",\"level\":\"");
    pc_errlog_puts(line, pc_errlog_level_name(entry->level));
    pc_errlog_puts(line, "\",\"module\":\"");
    pc_errlog_puts(line, entry->module);
    pc_errlog_puts(line, "\",\"pid\":");
    pc_errlog_put_number(line, (uint64_t)getpid());
    pc_errlog_puts(line, ",\"tid\":");
    pc_errlog_put_number(line, (uint64_t)gettid());
    if (entry->client[0] != '\0') {
        pc_errlog_puts(line, ",\"client\":\"");
        pc_errlog_puts(line, entry->client);
        pc_errlog_puts(line, "\"");
    }
    if (entry->host != NULL)
        pc_errlog_put_member(line, ",\"host\":\"", entry->host->name);
    if (entry->referer.base != NULL && entry->referer.len <= 2048)
        pc_errlog_put_member(line, ",\"referer\":\"", entry->referer);
    pc_errlog_put_member(line, ",\"event\":\"", entry->text);
    pc_errlog_puts(line, "}");
}

/* ------------------------------------------------------------------ writing */

static void
pc_errlog_name_client(const struct sockaddr_storage *address, char out[PC_ERRLOG_CLIENT_BYTES])
{
    char text[INET6_ADDRSTRLEN];
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    const void *bytes = NULL;
    const char *shape = "%s:%u";
    int family = AF_INET, result = -1;

    if (address != NULL && address->ss_family == AF_INET) {
        bytes = &v4->sin_addr;
    } else if (address != NULL && address->ss_family == AF_INET6) {
        const bool is_v4 = IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr);
        bytes = is_v4 ? (const void *)(v6->sin6_addr.s6_addr + 12) : &v6->sin6_addr;
        family = is_v4 ? AF_INET : AF_INET6;
        shape = is_v4 ? "%s:%u" : "[%s]:%u";
    }
    /* sin_port and sin6_port are in the same place. */
    if (bytes != NULL && inet_ntop(family, bytes, text, sizeof text) != NULL)
        result = snprintf(out, PC_ERRLOG_CLIENT_BYTES, shape, text, ntohs(v4->sin_port) + 0u);
    if (result < 0)
        out[0] = '\0';
}

/* To the host's error log, else to stderr. The lock keeps the descriptor ours during a reopen. */
static void
pc_errlog_emit(const struct pc_errlog_entry *entry, const struct pc_errlog_line *line)
{
    const struct pc_config *config = entry->config;
    struct pc_log_file *file = NULL;
    ssize_t count = -1;

    if (config != NULL && entry->host != NULL && entry->host->error_log < config->log_file_count)
        file = &config->log_files[entry->host->error_log];
    if (file != NULL) {
        pthread_mutex_lock(&file->lock);
        if (file->fd >= 0)
            count = write(file->fd, line->text, line->used);
        if (count < 0)
            file->lost_lines += file->fd >= 0;
        pthread_mutex_unlock(&file->lock);
        if (count >= 0)
            return; /* a short one is a full disk: the rest would be a line of its own */
    }
    if (write(STDERR_FILENO, line->text, line->used) < 0)
        return; /* nobody is left to tell */
}

static bool
pc_errlog_is_wanted(const struct pc_host *host, enum pc_level level)
{
    /* What concerns no host is about the child itself: rare, and worth its line. */
    return host != NULL ? (uint32_t)level <= host->error_level : level <= PC_INFO;
}

static void
pc_errlog_write(struct pc_errlog_entry *entry, const struct sockaddr_storage *client,
                const char *format, va_list args)
{
    char text[PC_ERRLOG_TEXT_BYTES], name[PC_ERRLOG_CLIENT_BYTES];
    struct pc_errlog_line line;
    int len = vsnprintf(text, sizeof text, format, args);

    if (len < 0)
        len = 0;
    entry->text.base = text;
    entry->text.len = (size_t)len < sizeof text ? (size_t)len : sizeof text - 1;
    pc_errlog_name_client(client, name);
    entry->client = name;
    entry->wall_us = pc_wall_us();
    line.used = 0;
    if (entry->config != NULL && entry->config->error_log_json)
        pc_errlog_shape_json(entry, &line);
    else
        pc_errlog_shape_text(entry, &line);
    line.text[line.used++] = '\n';
    pc_errlog_emit(entry, &line);
}

void
pc_errlog(const struct pc_config *config, const struct pc_host *host, enum pc_level level,
          const char *module, const struct sockaddr_storage *client, const char *format, ...)
{
    struct pc_errlog_entry entry = {
        .config = config, .host = host, .level = level, .module = module};
    va_list args;

    if (!pc_errlog_is_wanted(host, level))
        return;
    va_start(args, format);
    pc_errlog_write(&entry, client, format, args);
    va_end(args);
}

void
pc_errlog_req(const struct pc_req *req, enum pc_level level, const char *module,
              const char *format, ...)
{
    struct pc_errlog_entry entry = {
        .config = req->config, .host = req->host, .level = level, .module = module};
    va_list args;

    if (!pc_errlog_is_wanted(req->host, level))
        return;
    if (req->head != NULL && req->raw != NULL)
        entry.referer = pc_head_field(req->head, req->raw, PC_F_REFERER);
    va_start(args, format);
    pc_errlog_write(&entry, &req->client, format, args);
    va_end(args);
}
