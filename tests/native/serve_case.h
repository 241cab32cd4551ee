/* serve_case.h - a request and a host made by hand: for the tests of what serves requests.
 * Runs as:  the developer.   Sees: fixed bytes of the tests, a directory of its own under /tmp.
 * Trusts:   the tests.   Distrusts: -
 * Before:   test_map.c and its like   After: - */
#ifndef SERVE_CASE_H
#define SERVE_CASE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "serve.h"

#include "check.h"
#include "record_case.h"

/* One ACCESS node around `payload`. */
static inline void
case_node(struct child_bytes *to, uint8_t kind, bool is_negated, const void *payload, size_t len)
{
    const uint8_t head[4] = {kind, is_negated, (uint8_t)(len & 255), (uint8_t)(len >> 8)};

    child_put(to, head, sizeof head);
    if (len > 0)
        child_put(to, payload, len);
}

static inline struct pc_slice
case_slice(const struct child_bytes *bytes)
{
    return (struct pc_slice){bytes->base, bytes->len};
}

/* ------------------------------------------------------------------ a request */

struct serve_case {
    struct pc_arena arena;
    struct pc_log_file log;
    struct pc_config config;
    struct pc_host host;
    struct pc_head head;
    struct pc_req req;
    char raw[4096];
    char directory[64]; /* made by case_directory */
};

static inline struct serve_case *
case_new(void)
{
    struct serve_case *one = calloc(1, sizeof *one);

    if (one == NULL)
        abort();
    one->log.fd = memfd_create("log", MFD_CLOEXEC);
    if (one->log.fd < 0 || pthread_mutex_init(&one->log.lock, NULL) != 0 || pthread_mutex_init(&one->host.root_lock, NULL) != 0)
        abort();
    one->config.log_files = &one->log;
    one->config.log_file_count = 1;
    one->config.server = PC_S("perchildd");
    one->host.name = PC_S("www.example.org");
    one->host.root_fd = one->host.old_root_fd = -1;
    one->host.error_level = PC_DEBUG;
    one->host.base.accept_path_info = one->host.base.signature = one->host.base.ask = -1;
    return one;
}

/* Make req a request with these head bytes (without the empty line). Its path is not decoded here: `path` is. */
static inline struct pc_req *
case_ask(struct serve_case *one, const char *path, const char *fields)
{
    static const struct pc_h1_limits limits = {.line_bytes = 8190, .field_bytes = 8190, .field_count = 100};
    struct pc_req *req = &one->req;
    int len = snprintf(one->raw, sizeof one->raw, "GET / HTTP/1.1\r\nHost: www.example.org\r\n%s\r\n", fields);

    if (len < 0 || (size_t)len >= sizeof one->raw)
        abort();
    pc_arena_reset(&one->arena);
    memset(&one->head, 0, sizeof one->head);
    memset(req, 0, sizeof *req);
    CHECK(pc_h1_parse_head(&one->head, one->raw, (size_t)len, &limits) == len);
    req->config = &one->config;
    req->host = &one->host;
    req->arena = &one->arena;
    req->raw = one->raw;
    req->head = &one->head;
    req->path = pc_arena_copy(&one->arena, (struct pc_slice){path, strlen(path)});
    req->start_ns = pc_now_ns();
    req->start_wall_us = pc_wall_us();
    req->port_out = 80;
    req->may_block = true;
    req->resp.fd = -1;
    req->layers[0] = &one->host.base;
    req->layer_count = 1;
    req->options = PC_OPT_FOLLOWSYMLINKS;
    memcpy(req->name.name, "www.example.org", 16);
    req->name.len = 15;
    return req;
}

static inline void
case_address(struct sockaddr_storage *to, const char *text)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)to;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)to;

    memset(to, 0, sizeof *to);
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1)
        v4->sin_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1)
        v6->sin6_family = AF_INET6;
    else
        abort();
}

static inline bool
case_logged(const struct serve_case *one, const char *text)
{
    char log[8192];
    ssize_t len = pread(one->log.fd, log, sizeof log - 1, 0);

    if (len < 0)
        abort();
    log[len] = '\0';
    return strstr(log, text) != NULL;
}

static inline bool
case_is(struct pc_slice s, const char *text)
{
    return s.base != NULL && s.len == strlen(text) && memcmp(s.base, text, s.len) == 0;
}

/* ------------------------------------------------------------------ a directory */

static inline const char *
case_directory(struct serve_case *one)
{
    (void)snprintf(one->directory, sizeof one->directory, "/tmp/serve-case-XXXXXX");
    if (mkdtemp(one->directory) == NULL)
        abort();
    one->host.document_root = (struct pc_slice){one->directory, strlen(one->directory)};
    return one->directory;
}

static inline void
case_file(const struct serve_case *one, const char *name, const char *text)
{
    char path[256];
    int fd;

    (void)snprintf(path, sizeof path, "%s/%s", one->directory, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || close(fd) != 0)
        abort();
}

static inline int
case_open_count(void)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static inline void
case_free(struct serve_case *one)
{
    if (one->directory[0] != '\0')
        child_remove_directory(one->directory);
    if (one->host.root_fd >= 0)
        CHECK(close(one->host.root_fd) == 0);
    CHECK(close(one->log.fd) == 0);
    free(one->log.buffer);
    pc_arena_free(&one->arena);
    free(one);
}

#endif
