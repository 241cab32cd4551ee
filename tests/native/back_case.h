/* back_case.h - a back end on a Unix socket, beside client and runner, in the one thread that turns the child's loop.
 * Runs as:  the developer.   Sees: a directory of its own under /tmp.
 * Trusts:   the tests.   Distrusts: -
 * Before:   test_gate_fcgi.c, test_gate_http.c, which include loop.c first   After: gate_case.h */
#ifndef BACK_CASE_H
#define BACK_CASE_H

#include <sys/un.h>

#include "gate_case.h"

#define FILLERS 64 /* connections that fill a listener's queue */

static inline void
address_of(const char *name, struct sockaddr_un *address)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    (void)snprintf(address->sun_path, sizeof address->sun_path, "%s/%s", one.directory, name);
}

static inline int
open_listener(const char *name, int backlog)
{
    struct sockaddr_un address;
    address_of(name, &address);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    child_must(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, backlog) == 0, name);
    return fd;
}

static inline void
close_listener(int fd, const char *name)
{
    struct sockaddr_un address;
    address_of(name, &address);
    child_must(close(fd) == 0 && unlink(address.sun_path) == 0, name);
}

static inline int
take_connection(int listener)
{
    drive();
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    drive();
    return fd;
}

/* Whether what came so far holds these bytes. */
static inline bool
asked_for(int fd, const char *text)
{
    static char came[65536];
    ssize_t len = recv(fd, came, sizeof came, MSG_PEEK);
    return len > 0 && memmem(came, (size_t)len, text, strlen(text)) != NULL;
}

static inline int
ask(const char *path)
{
    char text[128];
    clear_log();
    int fd = open_client(1 << 20);
    (void)snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: own.test\r\n\r\n", path);
    say(fd, text);
    return fd;
}

/* Connections nobody takes, until the queue of this listener is full; returns how many. */
static inline int
fill_queue(const char *name, int fillers[FILLERS])
{
    struct sockaddr_un address;
    int count = 0;
    address_of(name, &address);
    while (count < FILLERS) {
        fillers[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (connect(fillers[count++], (struct sockaddr *)&address, sizeof address) != 0)
            break;
    }
    CHECK(count < FILLERS && errno == EAGAIN);
    return count;
}

static inline void
empty_queue(int listener, int fillers[FILLERS], int count)
{
    for (int taken; (taken = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0;)
        child_must(close(taken) == 0, "close");
    for (int i = 0; i < count; i++)
        child_must(close(fillers[i]) == 0, "close");
}

#endif
