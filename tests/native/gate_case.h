/* gate_case.h - client, runner and program in one thread, around a child whose loop the test turns itself.
 * Runs as:  the developer.   Sees: a directory of its own under /tmp.
 * Trusts:   the tests.   Distrusts: -
 * Before:   test_gate.c, tests/fuzz/fuzz_gate.c, which include loop.c first   After: child_case.h */
#ifndef GATE_CASE_H
#define GATE_CASE_H

#include <poll.h>

#include "child_case.h"
#include "job.h"

#define OUT_BYTES (16u << 20)

/* What the runner gets: the job, and the program's three streams. */
struct program {
    struct pc_job job;
    char text[PC_JOB_MAX_BYTES];
    size_t text_len;
    int fds[3];
};

static struct child_case one;
static struct pc_worker *worker;
static int box;       /* the job box's read end */
static int error_log; /* the host's */
static struct program program;
static char *out; /* what the client has received */
static size_t out_len;
static bool client_saw_end;
static uint16_t tcp_port; /* before set_up: of the back end behind /tcp/ */

/* ------------------------------------------------------------------ the server */

/* A program's redirect may lead to a listing, which takes its time, or to what Python answers. */
static inline void
do_jobs(void)
{
    while (worker->jobs != NULL) {
        struct pc_conn *conn = worker->jobs;
        worker->jobs = conn->next;
        if (worker->jobs == NULL)
            worker->jobs_tail = NULL;
        worker->may_block = true;
        worker->current = conn;
        if (conn->asks)
            pc_ask_answer(one.child, worker->slot, 200, "text/plain", "asked\n", 6);
        worker->current = NULL;
        pc_loop_conn(worker, conn);
        worker->may_block = false;
        pc_loop_settle(worker);
    }
}

static inline void
drive(void)
{
    struct epoll_event events[PC_EVENT_BATCH];
    int count;
    do_jobs();
    while ((count = epoll_wait(one.child->epoll_fd, events, PC_EVENT_BATCH, 0)) > 0) {
        for (int i = 0; i < count; i++)
            handle_event(worker, &events[i]);
        pc_loop_settle(worker);
        give_turns(worker);
        do_jobs();
    }
}

static inline void
pass_time(uint64_t ms)
{
    worker->now_ns += ms * MS;
    pc_conn_sweep(worker, worker->now_ns);
    pc_job_retry(worker);
    pc_loop_settle(worker);
    drive();
}

/* ------------------------------------------------------------------ the client */

static inline int
open_client(int room)
{
    int pair[2];
    child_must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0, "socketpair");
    child_must(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room) == 0, "SO_SNDBUF");
    child_must(pc_conn_reserve(one.child), "pc_conn_reserve");
    struct pc_conn *conn = pc_conn_new(one.child, pair[0]);
    conn->client.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(0x7f000001)}, .sin_port = htons(4711)};
    conn->local.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(0x7f000001)}, .sin_port = htons(80)};
    conn->since_ns = worker->now_ns;
    conn->phase = PC_PHASE_HEAD;
    conn->is_routed = true;
    pc_loop_conn(worker, conn);
    pc_loop_settle(worker);
    pc_conn_unreserve(one.child);
    out_len = 0;
    client_saw_end = false;
    return pair[1];
}

static inline void
say(int fd, const char *text)
{
    child_must(send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text), "send");
    drive();
}

static inline void
receive(int fd)
{
    drive();
    ssize_t count;
    while ((count = recv(fd, out + out_len, OUT_BYTES - out_len, 0)) > 0) {
        out_len += (size_t)count;
        drive();
    }
    client_saw_end = client_saw_end || count == 0 || (count < 0 && errno == ECONNRESET);
    out[out_len] = '\0';
}

static inline bool
heard(int fd, const char *text)
{
    receive(fd);
    if (strstr(out, text) != NULL)
        return true;
    printf("heard: %s\n", out);
    return false;
}

static inline void
close_client(int fd)
{
    child_must(close(fd) == 0, "close");
    drive();
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
}

/* ------------------------------------------------------------------ the runner and its program */

/* Take one job from the box. Returns its kind, 0 = there is none. */
static inline int
take_job(void)
{
    union { char bytes[CMSG_SPACE(3 * sizeof(int))]; struct cmsghdr align; } control;
    struct iovec parts[] = {{&program.job, sizeof program.job}, {program.text, sizeof program.text - 1}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t len = recvmsg(box, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (len < 0)
        return 0;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    child_must(len >= (ssize_t)sizeof program.job && program.job.magic == PC_JOB_MAGIC, "a job");
    program.text_len = (size_t)len - sizeof program.job;
    if (rights != NULL)
        memcpy(program.fds, CMSG_DATA(rights), sizeof program.fds);
    return program.job.kind;
}

static inline bool
has_variable(const char *wanted)
{
    const char *at = program.text + program.job.path_len + program.job.cwd_len + program.job.arg_len;
    for (const char *end = at + program.job.env_len; at < end; at += strlen(at) + 1)
        if (strcmp(at, wanted) == 0)
            return true;
    printf("no variable %s\n", wanted);
    return false;
}

static inline bool
has_name(const char *name)
{
    const char *at = program.text + program.job.path_len + program.job.cwd_len + program.job.arg_len;
    for (const char *end = at + program.job.env_len; at < end; at += strlen(at) + 1)
        if (strncmp(at, name, strlen(name)) == 0 && at[strlen(name)] == '=')
            return true;
    return false;
}

static inline void
print(const char *text)
{
    child_must(write(program.fds[1], text, strlen(text)) == (ssize_t)strlen(text), "the program's output");
}

static inline void
leave(void)
{
    for (int i = 0; i < 3; i++) {
        if (program.fds[i] >= 0)
            (void)close(program.fds[i]);
        program.fds[i] = -1;
    }
    drive();
}

/* Read what is there of its input. */
static inline size_t
read_input(char *buf, size_t cap)
{
    size_t have = 0;
    struct pollfd state = {.fd = program.fds[0], .events = POLLIN};
    while (have < cap && poll(&state, 1, 0) > 0 && (state.revents & POLLIN) != 0) {
        ssize_t count = read(program.fds[0], buf + have, cap - have);
        if (count <= 0)
            break;
        have += (size_t)count;
        drive();
    }
    return have;
}

static inline bool
input_has_ended(void)
{
    struct pollfd state = {.fd = program.fds[0], .events = POLLIN};
    char byte;
    return poll(&state, 1, 0) > 0 && read(program.fds[0], &byte, 1) == 0;
}

static inline bool
log_says(const char *text)
{
    return child_log_says(error_log, text);
}

static inline unsigned
lines_in_log(const char *word)
{
    static char said[4 << 20];
    unsigned count = 0;
    ssize_t len = pread(error_log, said, sizeof said - 1, 0);
    said[len > 0 ? len : 0] = '\0';
    for (const char *at = said; (at = strstr(at, word)) != NULL; at++)
        count++;
    return count;
}

static inline void
clear_log(void)
{
    child_must(ftruncate(error_log, 0) == 0, "ftruncate");
}

/* ------------------------------------------------------------------ the life of it all */

static inline void
set_up(void)
{
    int pair[2], wide = 1 << 20;
    child_must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0, "socketpair");
    child_must(setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &wide, sizeof wide) == 0, "SO_SNDBUF");
    box = pair[0];
    error_log = child_memfd("error", "", 0);
    child_must(fcntl(error_log, F_SETFL, O_APPEND) == 0, "O_APPEND");
    const struct child_plan plan = {.start_threads = 1, .max_threads = 8, .keep_alive_ms = 5000, .listener_fd = -1, .log_fd = -1,
                                    .has_programs = true, .job_fd = pair[1], .error_fd = fcntl(error_log, F_DUPFD_CLOEXEC, 3), .tcp_port = tcp_port,
                                    .protocols = PC_PROTOCOL_HTTP_1_1 | PC_PROTOCOL_H2C};
    child_new(&one, &plan);
    child_must(pc_worker_start(one.child, true) == 0, "pc_worker_start");
    worker = &one.child->workers[0];
    out = malloc(OUT_BYTES + 1);
    child_must(out != NULL, "malloc");
}

static inline void
tear_down(void)
{
    pc_worker_end(one.child, 0);
    child_end(&one);
    (void)close(box);
    (void)close(error_log);
    free(out);
}

#endif
