/* serve_case.h - a request and a host made by hand, and a record made of items: for the tests of what serves requests.
 * Runs as:  the developer.   Sees: fixed bytes of the tests, a directory of its own under /tmp.
 * Trusts:   the tests.   Distrusts: -
 * Before:   test_map.c and its like   After: - */
#ifndef SERVE_CASE_H
#define SERVE_CASE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "serve.h"

#include "check.h"

/* ------------------------------------------------------------------ items of a record */

struct case_bytes {
    size_t len;
    char base[16384];
};

static inline void
case_put(struct case_bytes *to, const void *bytes, size_t len)
{
    if (to->len + len > sizeof to->base)
        abort();
    memcpy(to->base + to->len, bytes, len);
    to->len += len;
}

static inline void
case_item(struct case_bytes *to, uint16_t tag, const void *payload, size_t len)
{
    const uint16_t head[2] = {tag, 0};
    const uint32_t size = (uint32_t)len;

    case_put(to, head, sizeof head);
    case_put(to, &size, sizeof size);
    case_put(to, payload, len);
}

static inline void
case_text(struct case_bytes *to, uint16_t tag, const char *text)
{
    case_item(to, tag, text, strlen(text));
}

static inline void
case_box(struct case_bytes *to, uint16_t tag, const struct case_bytes *box)
{
    case_item(to, tag, box->base, box->len);
}

#define CASE_U32S(to, tag, ...)                                     \
    do {                                                            \
        const uint32_t case_numbers[] = {__VA_ARGS__};              \
        case_item(to, tag, case_numbers, sizeof case_numbers);      \
    } while (0)

/* One ACCESS node around `payload`. */
static inline void
case_node(struct case_bytes *to, uint8_t kind, bool is_negated, const void *payload, size_t len)
{
    const uint8_t head[4] = {kind, is_negated, (uint8_t)(len & 255), (uint8_t)(len >> 8)};

    case_put(to, head, sizeof head);
    if (len > 0)
        case_put(to, payload, len);
}

static inline struct pc_slice
case_slice(const struct case_bytes *bytes)
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
case_remove(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
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
        CHECK(nftw(one->directory, case_remove, 8, FTW_DEPTH | FTW_PHYS) == 0);
    if (one->host.root_fd >= 0)
        CHECK(close(one->host.root_fd) == 0);
    CHECK(close(one->log.fd) == 0);
    free(one->log.buffer);
    pc_arena_free(&one->arena);
    free(one);
}

#endif
