/* main.c - a child's main thread: it starts worker threads, hears the dispatcher, and ends when nothing is left to do.
 * Runs as:  the identity, after the drop.   Sees: control messages.   Holds: the control socket.
 * Trusts:   the dispatcher.
 * All of it is C: whatever Python touches becomes memory that this child no longer shares with the others (about 1.5 MB for a
 * loop of a hundred lines), and a child that serves files alone never needs it. It returns to Python when a question for Python waits.
 * Before:   spawn.c   After: loop.c, perchild/child/main.py */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "child.h"

#define MS 1000000ull
#define LOAD_PAUSE_MS 100 /* at most ten reports a second */
#define DRAIN_LOOK_MS 200
#define MAX_MESSAGE_FDS 64

/* perchild/wire/control.py */
enum {
    MSG_READY = 1, MSG_ROUTE = 2, MSG_LOAD = 3, MSG_INBOX = 4, MSG_IDLE = 5, MSG_REOPEN = 6, MSG_ASK_BOARD = 7, MSG_DRAIN = 8,
    MSG_TICKETS = 10, MSG_BOARD = 12,
};

struct message {
    uint8_t kind, zero;
    uint16_t small;
    uint32_t number;
};
_Static_assert(sizeof(struct message) == 8, "wire/control.py");

struct heard {
    struct message message;
    int fds[MAX_MESSAGE_FDS];
    uint32_t fd_count;
};

static void
say(struct pc_child *child, uint8_t kind, uint32_t small, uint32_t number)
{
    struct message message = {.kind = kind, .small = (uint16_t)(small < 0xFFFF ? small : 0xFFFF), .number = number};
    /* A full queue loses a report of load, which comes again; a dispatcher that is gone is noticed by reading. */
    (void)send(child->control_fd, &message, sizeof message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* ------------------------------------------------------------------ what the dispatcher says */

/* Returns 1 heard, 0 nothing there, -PC_E_CLOSED. The message stays where it is, with descriptors of its own, until pass_over: what the
 * dispatcher takes for read (reload.py) is in force. */
static int
hear(struct pc_child *child, struct heard *ret_heard)
{
    union { char bytes[CMSG_SPACE(sizeof(int) * MAX_MESSAGE_FDS)]; struct cmsghdr align; } control;
    struct iovec whole = {&ret_heard->message, sizeof ret_heard->message};
    struct msghdr message = {
        .msg_iov = &whole, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes,
    };
    ssize_t len = recvmsg(child->control_fd, &message, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (len < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (len != (ssize_t)sizeof ret_heard->message || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
        return -PC_E_CLOSED; /* the end, or nothing that the dispatcher sends */
    ret_heard->fd_count = 0;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    if (rights != NULL && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
        size_t bytes = rights->cmsg_len - CMSG_LEN(0);
        memcpy(ret_heard->fds, CMSG_DATA(rights), bytes); /* UNSAFE: the kernel fills at most the buffer, which is as long */
        ret_heard->fd_count = (uint32_t)(bytes / sizeof(int));
    }
    return 1;
}

/* Have done with the message that was heard: without room for descriptors the kernel closes those that are in it. */
static void
pass_over(struct pc_child *child)
{
    struct message gone;
    while (recv(child->control_fd, &gone, sizeof gone, MSG_DONTWAIT) < 0 && errno == EINTR)
        continue;
}

static void
take_route(struct pc_child *child, const struct heard *heard)
{
    if (heard->fd_count == 1 && pc_child_set_route(child, heard->fds[0]) != 0)
        pc_errlog(child->config, NULL, PC_ERROR, "mpm_perchild", NULL, "a new route table is damaged; the old one stays");
    for (uint32_t i = 0; i < heard->fd_count; i++)
        (void)close(heard->fds[i]);
}

static void
take_inbox(struct pc_child *child, const struct heard *heard)
{
    int fd = heard->fd_count > 0 ? heard->fds[0] : -1;
    if (pc_child_set_inbox(child, heard->message.number, fd) != 0 && fd >= 0)
        (void)close(fd);
}

/* Log files that the dispatcher opens come in parts, in the order of the record; `small` marks the last. */
static void
take_logs(struct pc_child *child, const struct heard *heard)
{
    for (uint32_t i = 0; i < heard->fd_count; i++) {
        if (child->reopened_count < child->log_count)
            child->reopened[child->reopened_count++] = heard->fds[i];
        else
            (void)close(heard->fds[i]);
    }
    if (heard->message.small == 0)
        return;
    uint32_t next = 0;
    for (uint32_t i = 0; i < child->log_count; i++)
        child->fresh_logs[i] = child->log_is_given[i] && next < child->reopened_count ? child->reopened[next++] : -1;
    child->reopened_count = 0;
    if (pc_child_reopen(child, child->fresh_logs, child->log_count) != 0)
        pc_errlog(child->config, NULL, PC_ERROR, "log_config", NULL, "log files could not be opened again");
}

static void
take_tickets(struct pc_child *child, const struct heard *heard)
{
    if (heard->fd_count == 1 && pc_child_set_tickets(child, heard->fds[0]) != 0)
        pc_errlog(child->config, NULL, PC_ERROR, "ssl", NULL, "new ticket keys are damaged; the old ones stay");
    for (uint32_t i = 0; i < heard->fd_count; i++)
        (void)close(heard->fds[i]);
}

static void
take_drain(struct pc_child *child, const struct heard *heard)
{
    (void)heard;
    child->is_ending = true;
    pc_child_drain(child);
}

/* ------------------------------------------------------------------ what others count, for a status page */

static void
take_board(struct pc_child *child, const struct heard *heard)
{
    (void)pthread_mutex_lock(&child->board.lock);
    bool is_wanted = child->board.is_asked && !child->board.is_there;
    child->board.fd = is_wanted && heard->fd_count > 0 ? heard->fds[0] : -1;
    child->board.is_there = is_wanted;
    (void)pthread_cond_signal(&child->board.cond);
    (void)pthread_mutex_unlock(&child->board.lock);
    for (uint32_t i = is_wanted ? 1 : 0; i < heard->fd_count; i++)
        (void)close(heard->fds[i]); /* too late for who asked, or more than one */
}

int
pc_child_ask_board(struct pc_child *child, uint32_t timeout_ms)
{
    int fd = -PC_E_AGAIN, error = 0;
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until); /* what condition variables go by; cannot fail */
    until.tv_sec += (time_t)(timeout_ms / 1000);
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    (void)pthread_mutex_lock(&child->board.lock);
    if (!child->board.is_asked) { /* one at a time */
        child->board.is_asked = true;
        child->board.is_there = false;
        say(child, MSG_ASK_BOARD, 0, 0);
        while (!child->board.is_there && error == 0)
            error = pthread_cond_timedwait(&child->board.cond, &child->board.lock, &until);
        fd = child->board.is_there && child->board.fd >= 0 ? child->board.fd : -PC_E_AGAIN;
        child->board.is_asked = false;
    }
    (void)pthread_mutex_unlock(&child->board.lock);
    return fd;
}

static const struct {
    uint8_t kind;
    void (*take)(struct pc_child *child, const struct heard *heard);
} answers[] = {
    {MSG_ROUTE, take_route},
    {MSG_INBOX, take_inbox},
    {MSG_REOPEN, take_logs},
    {MSG_DRAIN, take_drain},
    {MSG_TICKETS, take_tickets},
    {MSG_BOARD, take_board},
};

/* Returns false when the dispatcher is gone. */
static bool
obey(struct pc_child *child)
{
    struct heard heard;
    int result;
    while ((result = hear(child, &heard)) > 0) {
        bool is_known = false;
        for (size_t i = 0; i < sizeof answers / sizeof *answers && !is_known; i++) {
            is_known = answers[i].kind == heard.message.kind;
            if (is_known)
                answers[i].take(child, &heard);
        }
        for (uint32_t i = 0; !is_known && i < heard.fd_count; i++)
            (void)close(heard.fds[i]);
        pass_over(child);
    }
    return result == 0;
}

/* ------------------------------------------------------------------ how many threads */

static void
scale_up(struct pc_child *child)
{
    struct pc_child_facts facts;
    pc_child_facts(child, &facts);
    uint32_t idle = facts.threads - facts.busy, room = facts.max_threads > facts.threads ? facts.max_threads - facts.threads : 0;
    uint32_t wanted = facts.min_spare > idle ? facts.min_spare - idle : 1;
    (void)pc_child_start_threads(child, wanted < room ? wanted : room); /* what is missing is asked for again */
}

static void
report_load(struct pc_child *child)
{
    struct pc_child_facts facts;
    pc_child_facts(child, &facts);
    uint32_t idle = facts.threads - facts.busy;
    say(child, MSG_LOAD, idle, facts.busy);
    if (idle > facts.max_spare && facts.threads > 1)
        pc_child_dismiss(child, idle - facts.max_spare < facts.threads - 1 ? idle - facts.max_spare : facts.threads - 1);
    child->next_load_ns = pc_now_ns() + LOAD_PAUSE_MS * MS;
    child->is_load_due = false;
}

/* ------------------------------------------------------------------ the loop */

static int
wait_ms(const struct pc_child *child)
{
    if (child->is_load_due)
        return LOAD_PAUSE_MS;
    if (child->is_ending)
        return DRAIN_LOOK_MS;
    return child->config->idle_s > 0 ? (int)(child->config->idle_s * 1000 + 50) : -1;
}

void
pc_child_begin(struct pc_child *child, bool has_one_worker)
{
    if (has_one_worker)
        child->config->max_threads = 1;
    uint32_t start = child->config->start_threads;
    if (child->config->max_threads == 1) /* the one thread must be able to do everything */
        pc_child_notify(child, PC_EVENT_PYTHON);
    else if (pc_child_start_threads(child, start < child->config->max_threads ? start : child->config->max_threads) == 0)
        pc_die(111, "no thread can be started");
    say(child, MSG_READY, 0, (uint32_t)getpid());
}

enum pc_main
pc_child_main(struct pc_child *child)
{
    for (;;) {
        uint32_t events = pc_child_wait(child, wait_ms(child));
        if ((events & PC_EVENT_CONTROL) != 0 && !obey(child))
            return PC_MAIN_END;
        if ((events & PC_EVENT_THREADS) != 0)
            scale_up(child);
        if ((events & PC_EVENT_MEMORY) != 0)
            pc_page_memory(child);
        child->is_load_due = child->is_load_due || (events & PC_EVENT_LOAD) != 0;
        if (child->is_load_due && pc_now_ns() >= child->next_load_ns)
            report_load(child);
        if ((events & PC_EVENT_IDLE) != 0 && !child->is_ending) {
            say(child, MSG_IDLE, 0, 0);
            take_drain(child, NULL);
        }
        if (atomic_load(&child->is_draining) && !child->is_ending) { /* MaxConnectionsPerChild: its successor may come now */
            say(child, MSG_IDLE, 0, 0);
            child->is_ending = true;
        }
        if ((events & (PC_EVENT_DONE | PC_EVENT_STOP)) != 0)
            return PC_MAIN_END;
        if ((events & PC_EVENT_PYTHON) != 0)
            return PC_MAIN_PYTHON;
    }
}

void
pc_child_finish(struct pc_child *child)
{
    pc_child_stop(child);
    pc_child_join(child);
    pc_log_end(child->config);
    pc_page_log_lost(child, pc_log_lost(child->config));
}
