/* http_case.h - a back end that speaks HTTP, on a Unix socket or a port of 127.0.0.1, for the claims about gate_http.c.
 * Runs as:  the developer.   Sees: a directory of its own under /tmp, and the port.
 * Trusts:   the tests.   Distrusts: -
 * Before:   test_gate_http.c, test_gate_http_conn.c, which include loop.c first   After: back_case.h */
#ifndef HTTP_CASE_H
#define HTTP_CASE_H

#include <dirent.h>
#include <sys/resource.h>

#include "back_case.h"

#define GET(path) "GET " path " HTTP/1.1\r\nHost: own.test\r\n\r\n"
#define OK "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define SHAKE "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
#define SWITCH "HTTP/1.1 101 Switching Protocols\r\n" SHAKE

/* NOLINTBEGIN: the linker makes these names */
uint64_t __wrap_pc_now_ns(void);
void __wrap_pc_child_wake(struct pc_child *child);
void __real_pc_child_wake(struct pc_child *child);
struct pc_slice __wrap_pc_env_get(const struct pc_req *req, struct pc_slice name);
struct pc_slice __real_pc_env_get(const struct pc_req *req, struct pc_slice name);
/* NOLINTEND */

static int wakes;
static int tcp_listener; /* the back end's, at tcp_port */
static const char *interim_policy;

uint64_t
__wrap_pc_now_ns(void)
{
    return worker != NULL ? worker->now_ns : 1000 * 1000 * MS;
}

void
__wrap_pc_child_wake(struct pc_child *child)
{
    wakes++;
    __real_pc_child_wake(child);
}

struct pc_slice
__wrap_pc_env_get(const struct pc_req *req, struct pc_slice name)
{
    if (interim_policy != NULL && pc_slice_eq(name, PC_S("proxy-interim-response")))
        return (struct pc_slice){interim_policy, strlen(interim_policy)};
    return __real_pc_env_get(req, name);
}

/* ------------------------------------------------------------------ the back end */

static inline void
put(int fd, const char *text)
{
    child_must(send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text), "the back end's send");
    drive();
}

/* Everything that came, and forget it. */
static inline const char *
take(int fd)
{
    static char came[1 << 17];
    drive();
    ssize_t len = recv(fd, came, sizeof came - 1, 0);
    came[len > 0 ? len : 0] = '\0';
    return came;
}

static inline bool
has_hung_up(int fd)
{
    char byte;
    drive();
    ssize_t count = recv(fd, &byte, 1, 0);
    return count == 0 || (count < 0 && errno == ECONNRESET);
}

static inline void
hang_up(int fd)
{
    child_must(close(fd) == 0, "close");
    drive();
}

static inline int
send_request(const char *text)
{
    clear_log();
    int fd = open_client(1 << 20);
    say(fd, text);
    return fd;
}

static inline uint32_t
kept(void)
{
    return atomic_load(&one.child->backends.kept);
}

/* No connection is kept for the next claim. */
static inline void
let_go(void)
{
    pc_kept_sweep(one.child, UINT64_MAX);
    CHECK_EQ(kept(), 0);
}

static inline unsigned
count_descriptors(void)
{
    unsigned count = 0;
    DIR *all = opendir("/proc/self/fd");
    child_must(all != NULL, "/proc/self/fd");
    while (readdir(all) != NULL)
        count++;
    (void)closedir(all);
    return count;
}

/* ------------------------------------------------------------------ all of it */

static inline void
http_open(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof address;
    tcp_listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    child_must(tcp_listener >= 0 && bind(tcp_listener, (struct sockaddr *)&address, len) == 0 && listen(tcp_listener, 0) == 0, "listen");
    child_must(getsockname(tcp_listener, (struct sockaddr *)&address, &len) == 0, "getsockname");
    tcp_port = ntohs(address.sin_port);
    set_up();
}

static inline int
http_close(void)
{
    tear_down();
    child_must(close(tcp_listener) == 0, "close");
    return check_end();
}

#endif
