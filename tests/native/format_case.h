/* format_case.h - a request to format, and operations to format it with: for test_format.c, test_log.c and fuzz_format.c.
 * Runs as:  the developer.   Sees: fixed bytes of the tests.
 * Trusts:   the tests.   Distrusts: - (stands in for fields.c, which needs the whole configuration)
 * Before:   test_format.c   After: - */
#ifndef FORMAT_CASE_H
#define FORMAT_CASE_H

#include <arpa/inet.h>

#include "pc.h"

#include "check.h"

/* fields.c's two, without directives: the head's field, the request's variable. */
struct pc_slice
pc_fields_in(const struct pc_req *req, struct pc_slice name)
{
    return pc_head_find(req->head, req->raw, name);
}

struct pc_slice
pc_env_get(const struct pc_req *req, struct pc_slice name)
{
    for (uint32_t i = 0; i < req->env_count; i++)
        if (pc_slice_eq(req->env[i].name, name))
            return req->env[i].value;
    return (struct pc_slice){.base = NULL, .len = 0};
}

struct case_ops {
    size_t len;
    char bytes[2048];
};

/* One operation with a condition on `status_count` statuses. */
static inline void
case_add_when(struct case_ops *ops, int op, int flags, const uint16_t *statuses, size_t status_count, const char *arg)
{
    const size_t arg_len = strlen(arg), condition_len = (flags & 4) ? 1 + 2 * status_count : 0;
    const size_t len = arg_len + condition_len;
    char *at = ops->bytes + ops->len;

    if (ops->len + 4 + len > sizeof ops->bytes)
        abort();
    *at++ = (char)op;
    *at++ = (char)flags;
    *at++ = (char)(len & 255);
    *at++ = (char)(len >> 8);
    if (flags & 4) {
        *at++ = (char)status_count;
        for (size_t i = 0; i < status_count; i++) {
            *at++ = (char)(statuses[i] & 255);
            *at++ = (char)(statuses[i] >> 8);
        }
    }
    memcpy(at, arg, arg_len);
    ops->len += 4 + len;
}

static inline void
case_add(struct case_ops *ops, int op, const char *arg)
{
    case_add_when(ops, op, 0, NULL, 0, arg);
}

/* %h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\" */
static inline void
case_add_combined(struct case_ops *ops)
{
    case_add(ops, PC_FMT_h, "");
    case_add(ops, PC_FMT_LITERAL, " ");
    case_add(ops, PC_FMT_l, "");
    case_add(ops, PC_FMT_LITERAL, " ");
    case_add(ops, PC_FMT_u, "");
    case_add(ops, PC_FMT_LITERAL, " ");
    case_add(ops, PC_FMT_t, "");
    case_add(ops, PC_FMT_LITERAL, " \"");
    case_add(ops, PC_FMT_r, "");
    case_add(ops, PC_FMT_LITERAL, "\" ");
    case_add_when(ops, PC_FMT_s, 2, NULL, 0, "");
    case_add(ops, PC_FMT_LITERAL, " ");
    case_add(ops, PC_FMT_b, "");
    case_add(ops, PC_FMT_LITERAL, " \"");
    case_add(ops, PC_FMT_i, "Referer");
    case_add(ops, PC_FMT_LITERAL, "\" \"");
    case_add(ops, PC_FMT_i, "User-Agent");
    case_add(ops, PC_FMT_LITERAL, "\"");
}

static inline void
case_set_address(struct sockaddr_storage *address, int family, const char *text, uint16_t port)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;

    memset(address, 0, sizeof *address);
    address->ss_family = (sa_family_t)family;
    v4->sin_port = htons(port); /* sin6_port is in the same place */
    if (inet_pton(family, text, family == AF_INET ? (void *)&v4->sin_addr : &v6->sin6_addr) != 1)
        abort();
}

struct case_all {
    struct pc_req req;
    struct pc_head head;
    struct pc_host host;
    struct pc_config config;
    struct pc_log_file files[2];
    struct pc_log log;
    struct pc_pair env[2];
    struct case_ops ops;
};

static const char case_head[] = "GET /a%20b/c.html?x=1&y=%22 HTTP/1.1\r\n"
                                "Host: Example.org\r\n"
                                "User-Agent: Mozilla/5.0 \"quoted\" \\ \x80\r\n"
                                "Referer: http://example.org/\r\n"
                                "Empty:\r\n"
                                "Cookie: one=1; Two = second value ;three=a=b;four\r\n"
                                "\r\n";

/* A request for case_head, answered with 200 and 1234 bytes. free() it. */
static inline struct case_all *
case_new(void)
{
    static const struct pc_h1_limits limits = {.line_bytes = 8190, .field_bytes = 8190, .field_count = 100};
    struct case_all *all = calloc(1, sizeof *all);

    if (all == NULL || pc_h1_parse_head(&all->head, case_head, sizeof case_head - 1, &limits) != sizeof case_head - 1)
        abort();
    all->env[0] = (struct pc_pair){.name = PC_S("COLOUR"), .value = PC_S("red\n")};
    all->config = (struct pc_config){.server = PC_S("perchildd"), .hosts = &all->host, .host_count = 1,
                                     .log_files = all->files, .log_file_count = 2};
    for (size_t i = 0; i < COUNT_OF(all->files); i++) {
        all->files[i].fd = -1;
        if (pthread_mutex_init(&all->files[i].lock, NULL) != 0)
            abort();
    }
    all->host = (struct pc_host){.name = PC_S("www.example.org"), .port = 8080, .logs = &all->log, .log_count = 1,
                                 .error_log = 1, .error_level = PC_WARN};
    all->req = (struct pc_req){
        .config = &all->config, .host = &all->host, .raw = case_head, .head = &all->head, .start_ns = pc_now_ns(),
        .start_wall_us = 971211336123456, .id = 77, .nth = 3, .bytes_in = 300, .bytes_out = 1500, .body_out = 1234,
        .path = PC_S("/a b/c.html"), .query = PC_S("x=1&y=%22"), .filename = PC_S("/home/x/a b/c.html"),
        .env = all->env, .env_count = 1,
    };
    memcpy(all->req.name.name, "example.org", 12);
    all->req.name.len = 11;
    case_set_address(&all->req.client, AF_INET, "192.0.2.55", 50001);
    case_set_address(&all->req.server, AF_INET, "198.51.100.7", 80);
    all->req.resp.status = 200;
    all->req.resp.has_length = true;
    all->req.resp.length = 1234;
    all->req.resp.content_type = PC_S("text/html; charset=utf-8");
    static struct pc_out_field fields[] = {
        {PC_S("ETag"), PC_S("\"abc\"")}, {PC_S("Set-Cookie"), PC_S("a=1")}, {PC_S("set-cookie"), PC_S("b=2")},
    };
    all->req.resp.fields = fields;
    all->req.resp.field_count = all->req.resp.field_room = 3;
    return all;
}

#endif
