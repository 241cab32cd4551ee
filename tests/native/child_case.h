/* child_case.h - a whole child made by hand: record, tables, page, files; for the tests that let connections run through it.
 * Runs as:  the developer.   Sees: a directory of its own under /tmp.
 * Trusts:   the tests.   Distrusts: -
 * Before:   tsan_case.h, h2_client.h, tests/fuzz/fuzz_conn.c   After: - */
#ifndef CHILD_CASE_H
#define CHILD_CASE_H

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"

#include "check.h"
#include "record_case.h"

#define CHILD_BIG_BYTES 80000
#define CHILD_MIDDLE_BYTES 9000

struct child_name {
    const char *name;
    uint32_t value;
};

/* A route table with one address, which is any. */
static inline struct child_bytes
child_route(const struct child_name *names, uint32_t count, uint32_t fallback)
{
    struct child_bytes table = {0};
    uint32_t buckets[16] = {0}, at[2];
    const uint8_t any[20] = {0};
    struct { uint32_t total, addresses, at, generation; } head = {0, 1, 24, 1};
    child_put(&table, "PCROUTE1", 8);
    child_put(&table, &head, sizeof head);
    child_put(&table, any, sizeof any);
    const uint32_t rest[5] = {fallback, 16, 0, 0, 0};
    child_put(&table, rest, sizeof rest);
    for (uint32_t i = 0; i < count; i++) {
        uint16_t len = (uint16_t)strlen(names[i].name);
        uint32_t entry[2] = {pc_crc32(names[i].name, len), names[i].value}, slot = entry[0] & 15;
        while (buckets[slot] != 0)
            slot = (slot + 1) & 15;
        buckets[slot] = (uint32_t)table.len;
        child_put(&table, entry, sizeof entry);
        child_put(&table, &len, sizeof len);
        child_put(&table, names[i].name, len);
        child_put(&table, any, (4 - table.len % 4) % 4);
    }
    at[0] = (uint32_t)table.len;
    child_put(&table, buckets, sizeof buckets);
    at[1] = (uint32_t)table.len;
    memcpy(table.base + 8, &at[1], 4);
    memcpy(table.base + 24 + 20 + 8, &at[0], 4);
    memcpy(table.base + 24 + 20 + 16, &at[1], 4);
    return table;
}

static inline int
child_memfd(const char *name, const void *bytes, size_t len)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    child_must(fd >= 0 && (len == 0 || write(fd, bytes, len) == (ssize_t)len), "memfd");
    return fd;
}

/* Byte `at` of a made file: each name its own, so that bytes of another's response are seen. */
static inline char
child_byte(const char *name, size_t at)
{
    return (char)('!' + (at * 7 + at / 89 + (unsigned char)name[0]) % 90);
}

static inline void
child_file(const char *directory, const char *name, size_t len)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "we");
    child_must(file != NULL, path);
    for (size_t i = 0; i < len; i++)
        child_must(fputc(child_byte(name, i), file) != EOF, path);
    child_must(fclose(file) == 0, path);
}

struct child_case {
    char directory[64];
    struct pc_child *child;
    int control;      /* the dispatcher's end */
    int own_inbox;    /* write end of the child's inbox */
    int other_inbox;  /* read end of identity 1's inbox */
};

struct child_plan {
    uint32_t identity, start_threads, max_threads, max_requests, keep_alive_ms;
    const struct sockaddr_in *listeners; /* in the record */
    uint32_t listener_count;
    int listener_fd;   /* accepted from; -1 = none */
    int log_fd;        /* -1 = no access log */
    bool has_programs; /* /cgi/ is a ScriptAlias of the directory "cgi" */
    int job_fd;        /* the job box's write end, with has_programs */
    int error_fd;      /* the host's error log, with has_programs */
    uint32_t timeout_ms; /* Timeout; 0 = 20 s */
    uint16_t tcp_port;   /* of the back end behind /tcp/; 0 = there is none */
    const struct child_name *names; /* own names, and whose they are; NULL = own.test alone. Hosts are called as their first names */
    uint32_t name_count, host_count;
    void (*dress)(struct child_bytes *host, uint32_t index); /* more items of a host; NULL = none */
    const int *key_fds;
    uint32_t key_count;
    bool has_tickets;
    int ticket_fd;
    uint32_t protocols;  /* PC_PROTOCOL_*; 0 = HTTP/1.1 */
    uint32_t h2_streams; /* H2MaxSessionStreams; 0 = 100 */
    bool speaks_tls;     /* on the listeners' addresses; dress says with what */
    struct pc_slice log_format; /* operations; len 0 = method, path, status */
};

static inline void
child_put_settings(struct child_bytes *to)
{
    const uint8_t granted[] = {PC_ACC_ANY, 0, 4, 0, PC_ACC_GRANTED, 0, 0, 0};
    struct child_bytes section = {0}, settings = {0}, base = {0};
    child_item(&base, PC_T_REQUIRE, granted, sizeof granted);
    CHILD_U32S(&base, PC_T_OPTIONS, 1, PC_OPT_INDEXES | PC_OPT_FOLLOWSYMLINKS, 0);
    child_item(&base, PC_T_SET_ENV, "\17\0\0\0PHP_ADMIN_VALUE\4\0\0\0none", 27); /* which says nothing to php-fpm */
    child_box(to, PC_T_BASE, &base);
    CHILD_U32S(&section, PC_T_SECTION_KIND, 4);
    child_text(&section, PC_T_SECTION_PATTERN, "/ask");
    child_text(&settings, PC_T_HANDLER, "whoami");
    child_box(&section, PC_T_SECTION_SETTINGS, &settings);
    child_box(to, PC_T_SECTION, &section);
}

static inline void
child_put_script_alias(struct child_bytes *to, const struct child_case *one)
{
    char path[80];
    struct child_bytes alias = {0};
    (void)snprintf(path, sizeof path, "%s/cgi/", one->directory);
    CHILD_U32S(&alias, PC_T_ALIAS_KIND, PC_ALIAS_SCRIPT);
    child_text(&alias, PC_T_ALIAS_FROM, "/cgi/");
    child_text(&alias, PC_T_ALIAS_TO, path);
    child_box(to, PC_T_ALIAS, &alias);
}

/* What is passed on where to. FastCGI: /app/ to who listens on app.sock, /svc/ to service 0, on svc.sock. HTTP: /http/ to who listens
 * on http.sock, as the paths that let a protocol through (upgrade=); /web/ to service 1, on web.sock; /tcp/ to a port. */
static inline void
child_put_passes(struct child_bytes *to, const struct child_case *one, const struct child_plan *plan)
{
    static const struct { const char *from, *socket, *to, *upgrade; } rows[] = {
        {"/app/", "app", "fcgi://localhost/srv/", NULL}, {"/svc/", NULL, "service:0/", NULL},
        {"/http/", "http", "http://localhost/srv/", NULL}, {"/web/", NULL, "service:1/", NULL},
        {"/ws/", "http", "ws://localhost/", NULL}, {"/up/", "http", "http://localhost/", "websocket"},
        {"/two/", "http", "http://localhost/", "other, websocket"}, {"/any/", "http", "http://localhost/", "ANY"},
        {"/none/", "http", "http://localhost/", "NONE"}, {"/wsnone/", "http", "ws://localhost/", "NONE"},
        {"/tcp/", NULL, "http://127.0.0.1:%u/", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char target[160];
        struct child_bytes pass = {0};
        int len = rows[i].socket != NULL ? snprintf(target, sizeof target, "unix:%s/%s.sock|", one->directory, rows[i].socket) : 0;
        bool is_tcp = strcmp(rows[i].from, "/tcp/") == 0;
        if (is_tcp)
            (void)snprintf(target, sizeof target, "http://127.0.0.1:%u/", (unsigned)(plan->tcp_port > 0 ? plan->tcp_port : 1));
        else
            (void)snprintf(target + len, sizeof target - (size_t)len, "%s", rows[i].to);
        CHILD_U32S(&pass, PC_T_PROXY_KIND, PC_PASS_PREFIX);
        child_text(&pass, PC_T_PROXY_FROM, rows[i].from);
        child_text(&pass, PC_T_PROXY_TO, target);
        if (is_tcp)
            CHILD_U32S(&pass, PC_T_PROXY_TIMES, 0, 3000, 0);
        if (rows[i].upgrade != NULL)
            child_text(&pass, PC_T_PROXY_UPGRADE, rows[i].upgrade);
        child_box(to, PC_T_PROXY_PASS, &pass);
    }
}

static inline void
child_put_service(struct child_bytes *to, const struct child_case *one, const char *name, uint32_t kind)
{
    char path[80];
    struct child_bytes service = {0};
    (void)snprintf(path, sizeof path, "%s/%s.sock", one->directory, name);
    CHILD_U32S(&service, PC_T_SERVICE_KIND, kind);
    child_text(&service, PC_T_SERVICE_SOCKET, path);
    child_box(to, PC_T_SERVICE, &service);
}

static inline void
child_put_host(struct child_bytes *to, const struct child_case *one, const struct child_plan *plan, const char *name, uint32_t index)
{
    const uint8_t format[] = {PC_FMT_m, 0, 0, 0, PC_FMT_LITERAL, 0, 1, 0, ' ', PC_FMT_U, 0, 0, 0, PC_FMT_LITERAL, 0, 1, 0, ' ',
                              PC_FMT_s, 0, 0, 0};
    struct child_bytes host = {0}, log = {0};
    child_text(&host, PC_T_NAME, name);
    child_text(&host, PC_T_DOCUMENT_ROOT, one->directory);
    CHILD_U32S(&host, PC_T_TIMES, plan->timeout_ms > 0 ? plan->timeout_ms : 20000, plan->keep_alive_ms, 20000, 40000, 20000, 40000, 500, 500);
    CHILD_U32S(&host, PC_T_KEEP_ALIVE, 1, plan->max_requests, 0);
    CHILD_U32S(&host, PC_T_LIMITS, 8190, 8190, 100);
    if (plan->protocols != 0)
        CHILD_U32S(&host, PC_T_PROTOCOLS, plan->protocols);
    CHILD_U32S(&host, PC_T_ERROR_LOG, 0, plan->has_programs ? PC_ERROR : PC_EMERG);
    if (plan->log_fd >= 0) {
        CHILD_U32S(&log, PC_T_LOG_INDEX, 1);
        if (plan->log_format.len > 0)
            child_item(&log, PC_T_LOG_FORMAT, plan->log_format.base, plan->log_format.len);
        else
            child_item(&log, PC_T_LOG_FORMAT, format, sizeof format);
        child_box(&host, PC_T_LOG, &log);
    }
    child_put_settings(&host);
    if (plan->has_programs)
        child_put_script_alias(&host, one);
    if (plan->has_programs)
        child_put_passes(&host, one, plan);
    if (plan->dress != NULL)
        plan->dress(&host, index);
    child_box(to, PC_T_HOST, &host);
}

static inline struct child_bytes
child_record(const struct child_case *one, const struct child_plan *plan)
{
    static const struct child_name own[] = {{"own.test", 0}};
    const struct child_name *names = plan->names != NULL ? plan->names : own;
    uint32_t count = plan->names != NULL ? plan->name_count : 1, hosts = plan->host_count > 0 ? plan->host_count : 1, put = 0;
    struct child_bytes raw = {0}, file = {0}, table = child_route(names, count, 0);
    CHILD_U32S(&raw, PC_T_VERSION, PC_RECORD_VERSION);
    CHILD_U32S(&raw, PC_T_IDENTITY, plan->identity, 1001, 1002);
    child_item(&raw, PC_T_ROUTE, table.base, table.len);
    child_text(&raw, PC_T_SERVER_TOKENS, "perchildd");
    for (uint32_t i = 0; i < plan->listener_count; i++) {
        uint8_t listen[20] = {4};
        uint16_t port = ntohs(plan->listeners[i].sin_port);
        memcpy(listen + 2, &port, 2);
        memcpy(listen + 4, &plan->listeners[i].sin_addr, 4);
        child_item(&raw, PC_T_LISTEN, listen, sizeof listen);
    }
    child_text(&file, PC_T_FILE_PATH, "/nowhere");
    CHILD_U32S(&file, PC_T_FILE_OPENER, 1);
    child_box(&raw, PC_T_LOG_FILE, &file);
    child_box(&raw, PC_T_LOG_FILE, &file);
    CHILD_U32S(&raw, PC_T_SCALE, plan->start_threads, 1, plan->max_threads, plan->max_threads, 0, 0);
    CHILD_U32S(&raw, PC_T_SOCKET_BUFFERS, 0, 0);
    if (plan->h2_streams != 0)
        CHILD_U32S(&raw, PC_T_H2_LIMITS, plan->h2_streams, PC_H2_WINDOW_BYTES, 0, 0);
    if (plan->has_programs)
        child_put_service(&raw, one, "svc", PC_SERVICE_FCGI);
    if (plan->has_programs)
        child_put_service(&raw, one, "web", PC_SERVICE_HTTP);
    for (uint32_t i = 0; i < count && put < hosts; i++)
        if (names[i].value == put)
            child_put_host(&raw, one, plan, names[i].name, put++);
    return raw;
}

/* The server's table: own.test is this child's, other.test identity 1's, back.test comes back to this child's own inbox. */
static inline int
child_server_route(const struct child_plan *plan)
{
    const struct child_name names[] = {{"own.test", plan->identity}, {"other.test", 1}, {"back.test", 2}};
    struct child_bytes table = child_route(names, 3, plan->identity);
    /* flags of the address (wire/route.py): TLS; HTTP/2 without it */
    table.base[24 + 1] = (char)((plan->speaks_tls ? 1 : 0) | ((plan->protocols & PC_PROTOCOL_H2C) != 0 ? 4 : 0));
    return child_memfd("route", table.base, table.len);
}

static inline void
child_new(struct child_case *one, const struct child_plan *plan)
{
    static const struct { char magic[8]; uint32_t total, count, bucket; } types = {"PCTYPES1", 20, 1, 0};
    char subdirectory[80];
    const char *why = "";
    int own[2], other[2], control[2];
    (void)snprintf(one->directory, sizeof one->directory, "/tmp/child-case-XXXXXX");
    child_must(mkdtemp(one->directory) != NULL, "mkdtemp");
    child_file(one->directory, "small", 60);
    child_file(one->directory, "middle", CHILD_MIDDLE_BYTES);
    child_file(one->directory, "big", CHILD_BIG_BYTES);
    (void)snprintf(subdirectory, sizeof subdirectory, "%s/list", one->directory);
    child_must(mkdir(subdirectory, 0755) == 0, "mkdir");
    if (plan->has_programs) {
        (void)snprintf(subdirectory, sizeof subdirectory, "%s/cgi", one->directory);
        child_must(mkdir(subdirectory, 0755) == 0, "mkdir");
        child_file(subdirectory, "script", 10); /* what is in it does not matter: the tests are its process */
        child_file(subdirectory, "nph-script", 10);
    }
    child_must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, own) == 0, "socketpair");
    child_must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, other) == 0, "socketpair");
    child_must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, control) == 0, "socketpair");
    one->own_inbox = own[1];
    one->other_inbox = other[0];
    one->control = control[0];
    struct child_bytes record = child_record(one, plan);
    int page = memfd_create("page", MFD_CLOEXEC), back = fcntl(own[1], F_DUPFD_CLOEXEC, 3);
    child_must(page >= 0 && back >= 0 && ftruncate(page, PC_PAGE_BYTES) == 0, "page");
    const uint32_t numbers[] = {1, 2};
    const int inboxes[] = {other[1], back}, logs[] = {plan->has_programs ? plan->error_fd : -1, plan->log_fd};
    struct pc_child_options options = {
        .control_fd = control[1], .inbox_fd = own[0], .route_fd = child_server_route(plan), .page_fd = page,
        .record_fd = child_memfd("record", record.base, record.len), .types_fd = child_memfd("types", &types, 20),
        .listener_fds = &plan->listener_fd, .listener_count = plan->listener_fd >= 0 ? 1 : 0,
        .inbox_numbers = numbers, .inbox_fds = inboxes, .inbox_count = 2,
        .log_fds = logs, .log_count = 2, .max_open = 4096, .mutex_fd = -1, .mutex_id = -1,
        .key_fds = plan->key_fds, .key_count = plan->key_count, .job_fd = plan->has_programs ? plan->job_fd : -1, .ticket_fd = plan->has_tickets ? plan->ticket_fd : -1, .may_scale_leaders = true,
        .takes_any_key = true, /* else there would be no child to ask about a key that is not its certificate's */
    };
    if (pc_child_new(&options, &one->child, &why) != 0) {
        fprintf(stderr, "pc_child_new: %s\n", why);
        abort();
    }
}

/* Behind the last worker. The listener is the test's. */
static inline void
child_end(struct child_case *one)
{
    (void)close(one->child->control_fd);
    (void)close(one->child->inbox_fd);
    pc_child_free(one->child);
    (void)close(one->control);
    (void)close(one->own_inbox);
    (void)close(one->other_inbox);
    child_remove_directory(one->directory);
}

/* Whether a log that lies in memory says so; if not, what it says is printed. */
static inline bool
child_log_says(int fd, const char *text)
{
    static char said[65536];
    ssize_t len = pread(fd, said, sizeof said - 1, 0);
    said[len > 0 ? len : 0] = '\0';
    if (strstr(said, text) != NULL)
        return true;
    printf("the log says: %s\n", said);
    return false;
}

static inline uint64_t
child_counter(const struct child_case *one, enum pc_counter counter)
{
    return atomic_load(&one->child->page->counters[counter]);
}

#endif
