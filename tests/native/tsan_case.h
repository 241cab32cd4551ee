/* tsan_case.h - a child whose threads are real, a listener of its own and clients at once: for the tests that ThreadSanitizer watches.
 * Runs as:  the developer.   Sees: connections of its own on 127.0.0.1.
 * Trusts:   the tests.   Distrusts: the code under test.
 * Before:   test_loop_tsan.c, test_h2_tsan.c, test_tls_tsan.c   After: child_case.h */
#ifndef TSAN_CASE_H
#define TSAN_CASE_H

#include <arpa/inet.h>

#include "child_case.h"

#define TSAN_MAX_ANSWERING 3
#define TSAN_MAX_CLIENTS 16
#define TSAN_DRAIN 8 /* what the dispatcher says: docs/protocol.md */

static inline int
tsan_listen(struct sockaddr_in *ret_address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t len = sizeof *ret_address;
    *ret_address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    child_must(fd >= 0 && bind(fd, (struct sockaddr *)ret_address, len) == 0 && listen(fd, 256) == 0, "listen");
    child_must(getsockname(fd, (struct sockaddr *)ret_address, &len) == 0, "getsockname");
    return fd;
}

/* A blocking socket that is connected. */
static inline int
tsan_connect(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    child_must(fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) == 0, "connect");
    return fd;
}

static void *
tsan_answer(void *argument)
{
    struct pc_child *child = argument;
    int slot = pc_worker_start(child, true);
    child_must(slot >= 0, "pc_worker_start");
    while (pc_worker_run(child, (uint32_t)slot) == PC_WORK_ASK) {
        struct pc_question question;
        CHECK(pc_ask_question(child, (uint32_t)slot, &question) == 0 && strcmp(question.handler, "whoami") == 0);
        pc_ask_answer(child, (uint32_t)slot, 200, "text/plain", "asked\n", 6);
    }
    pc_worker_end(child, (uint32_t)slot);
    return NULL;
}

/* What perchild/child/main.py does, without Python. */
static void *
tsan_run_child(void *argument)
{
    struct pc_child *child = argument;
    pthread_t answering[TSAN_MAX_ANSWERING];
    unsigned count = 0;
    pc_child_begin(child, false);
    while (pc_child_main(child) == PC_MAIN_PYTHON)
        if (count < TSAN_MAX_ANSWERING && pthread_create(&answering[count], NULL, tsan_answer, child) == 0)
            count++;
    pc_child_finish(child);
    for (unsigned i = 0; i < count; i++)
        (void)pthread_join(answering[i], NULL);
    return NULL;
}

static inline pthread_t
tsan_start(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    child_must(pthread_create(&thread, NULL, run, argument) == 0, "pthread_create");
    return thread;
}

/* Serve `count` clients at once, each with its number, and drain the child when they have gone. */
static inline void
tsan_serve(struct child_case *one, void *(*run_client)(void *), unsigned count)
{
    const struct { uint8_t kind, zero; uint16_t small; uint32_t number; } say = {.kind = TSAN_DRAIN};
    pthread_t child = tsan_start(tsan_run_child, one->child), clients[TSAN_MAX_CLIENTS];
    child_must(count <= TSAN_MAX_CLIENTS, "clients");
    for (uintptr_t i = 0; i < count; i++)
        clients[i] = tsan_start(run_client, (void *)i);
    for (unsigned i = 0; i < count; i++)
        (void)pthread_join(clients[i], NULL);
    CHECK(send(one->control, &say, sizeof say, MSG_NOSIGNAL) == (ssize_t)sizeof say);
    (void)pthread_join(child, NULL);
}

#endif
