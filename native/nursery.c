/* nursery.c - fork tenants' children from a process that does nothing else.
 * Runs as:  root (or the one uid of a server not started by root); a child of it as spawn.c says.
 * Sees:     requests of the dispatcher.   Holds: the socket to it; a child's descriptors for the moment of its fork.
 * Trusts:   the dispatcher, its only peer.
 * Forked by the busy dispatcher, a child would lose every page that the dispatcher writes to afterwards, which for an interpreter
 * is most of them (1.4 MB each, measured). This process sleeps between forks, so what is shared stays shared. CLONE_PARENT makes
 * the new process the dispatcher's child: it alone waits for it, and PR_SET_PDEATHSIG means the dispatcher.
 * What is forked waits for the dispatcher's word that it has heard of it. Else the child of a nursery that dies before its answer, of
 * which nobody knows, could take a connection or a job with it when it is ended.
 * Before:   perchild/dispatcher/spawn.py   After: spawn.c */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "child.h"
#include "nursery.h"
#include "runner.h"

#define MAX_FDS 240 /* below SCM_MAX_FD, 253 */
#define MAX_GROUPS 1024
#define ANSWER_S 2 /* a nursery that stands still must not stop the dispatcher for longer */

/* A request: this, then group_count + inbox_count u32, then log_count + key_count bytes (1 = a descriptor is given). Its descriptors,
 * in this order: standard error, control, inbox, record, types, page, then those whose flags say so: route, mutex, job box, ticket
 * keys; listeners, inboxes, logs, TLS keys. A runner's: standard error, job box, its file, pidfd of the dispatcher. The last one in each
 * is where the word comes. */
struct request {
    uint32_t uid, gid, group_count, listener_count, inbox_count, log_count, key_count, max_open, generation;
    int32_t parent_pid, mutex_kind, mutex_id;
    uint64_t nofile, thread_stack_bytes, seccomp_bpf, seccomp_count; /* the filter lies at the same address in both */
    uint8_t is_privileged, has_route, has_mutex, may_scale_leaders, has_one_worker, has_job, has_tickets, is_runner, may_gain,
        takes_any_key;
    char name[64];
};

struct letter {
    struct request request;
    uint32_t numbers[MAX_GROUPS + MAX_FDS];
    uint8_t given[2 * MAX_FDS]; /* of logs, then of keys */
    int fds[MAX_FDS];
    uint32_t fd_count;
};

/* ------------------------------------------------------------------ in the dispatcher */

static void
add_fd(struct letter *letter, int fd)
{
    letter->fds[letter->fd_count++] = fd;
}

/* Descriptors of which some are missing. */
static void
add_given(struct letter *letter, uint8_t *ret_given, const int *fds, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        ret_given[i] = fds[i] >= 0;
        if (fds[i] >= 0)
            add_fd(letter, fds[i]);
    }
}

static void
write_request(struct letter *letter, const struct pc_drop *drop, const struct pc_child_options *options)
{
    letter->request = (struct request){
        .uid = drop->uid, .gid = drop->gid, .group_count = (uint32_t)drop->group_count,
        .listener_count = options->listener_count, .inbox_count = options->inbox_count, .log_count = options->log_count,
        .max_open = options->max_open, .generation = options->generation, .parent_pid = drop->parent_pid,
        .mutex_kind = options->mutex_kind, .mutex_id = options->mutex_id, .nofile = drop->nofile,
        .thread_stack_bytes = options->thread_stack_bytes, .seccomp_bpf = (uintptr_t)drop->seccomp_bpf,
        .seccomp_count = drop->seccomp_count, .is_privileged = drop->is_privileged, .has_route = options->route_fd >= 0,
        .has_mutex = options->mutex_fd >= 0, .may_scale_leaders = options->may_scale_leaders,
        .has_one_worker = options->has_one_worker, .has_job = options->job_fd >= 0, .key_count = options->key_count,
        .has_tickets = options->ticket_fd >= 0, .takes_any_key = options->takes_any_key,
    };
    memcpy(letter->request.name, options->name, sizeof letter->request.name);
    uint32_t *numbers = letter->numbers;
    for (uint32_t i = 0; i < letter->request.group_count; i++)
        *numbers++ = drop->groups[i];
    for (uint32_t i = 0; i < options->inbox_count; i++)
        *numbers++ = options->inbox_numbers[i];
    int always[] = {STDERR_FILENO, options->control_fd, options->inbox_fd, options->record_fd, options->types_fd, options->page_fd};
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        add_fd(letter, always[i]);
    if (options->route_fd >= 0)
        add_fd(letter, options->route_fd);
    if (options->mutex_fd >= 0)
        add_fd(letter, options->mutex_fd);
    if (options->job_fd >= 0)
        add_fd(letter, options->job_fd);
    if (options->ticket_fd >= 0)
        add_fd(letter, options->ticket_fd);
    for (uint32_t i = 0; i < options->listener_count; i++)
        add_fd(letter, options->listener_fds[i]);
    for (uint32_t i = 0; i < options->inbox_count; i++)
        add_fd(letter, options->inbox_fds[i]);
    add_given(letter, letter->given, options->log_fds, options->log_count);
    add_given(letter, letter->given + options->log_count, options->key_fds, options->key_count);
}

static ssize_t
send_letter(int fd, struct letter *letter)
{
    struct request *request = &letter->request;
    struct iovec parts[] = {
        {request, sizeof *request},
        {letter->numbers, (request->group_count + request->inbox_count) * sizeof *letter->numbers},
        {letter->given, request->log_count + request->key_count},
    };
    union { char bytes[CMSG_SPACE(sizeof(int) * MAX_FDS)]; struct cmsghdr align; } control = {0};
    struct msghdr message = {
        .msg_iov = parts, .msg_iovlen = 3, .msg_control = control.bytes,
        .msg_controllen = CMSG_SPACE(sizeof(int) * letter->fd_count),
    };
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int) * letter->fd_count);
    memcpy(CMSG_DATA(rights), letter->fds, sizeof(int) * letter->fd_count);
    return sendmsg(fd, &message, MSG_NOSIGNAL);
}

/* Returns the pid, or a negative error as pc_nursery_spawn. */
static int
ask(int fd, struct letter *letter)
{
    int32_t pid = -1;
    if (send_letter(fd, letter) < 0)
        return errno == EPIPE || errno == ECONNRESET || errno == EAGAIN ? -PC_E_CLOSED : -PC_E_SYS;
    ssize_t len;
    do
        len = recv(fd, &pid, sizeof pid, 0);
    while (len < 0 && errno == EINTR);
    if (len != (ssize_t)sizeof pid)
        return -PC_E_CLOSED;
    if (pid < 0)
        errno = -pid;
    return pid < 0 ? -PC_E_SYS : (int)pid;
}

/* ask, and the word to who was forked; the end of the stream is the word that we know nothing of it. */
static int
exchange(int fd, struct letter *letter)
{
    int word[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, word) < 0)
        return -PC_E_SYS;
    add_fd(letter, word[1]);
    int pid = ask(fd, letter), error = errno;
    (void)close(word[1]); /* the nursery has its own */
    if (pid > 0)
        (void)send(word[0], "", 1, MSG_NOSIGNAL); /* fails when it is dead already, which its pidfd tells */
    (void)close(word[0]);
    errno = error;
    return pid;
}

int
pc_nursery_spawn(int fd, const struct pc_drop *drop, const struct pc_child_options *options)
{
    if (11 + options->listener_count + options->inbox_count + options->log_count + options->key_count > MAX_FDS
        || drop->group_count > MAX_GROUPS)
        return -PC_E_BAD;
    struct letter letter = {.fd_count = 0};
    write_request(&letter, drop, options);
    return exchange(fd, &letter);
}

int
pc_nursery_spawn_runner(int fd, const struct pc_drop *drop, const struct pc_runner_options *options)
{
    if (drop->group_count > MAX_GROUPS)
        return -PC_E_BAD;
    struct letter letter = {.fd_count = 0};
    letter.request = (struct request){
        .uid = drop->uid, .gid = drop->gid, .group_count = (uint32_t)drop->group_count, .parent_pid = drop->parent_pid,
        .nofile = drop->nofile, .seccomp_bpf = (uintptr_t)drop->seccomp_bpf, .seccomp_count = drop->seccomp_count,
        .is_privileged = drop->is_privileged, .is_runner = true, .may_gain = drop->may_gain,
    };
    memcpy(letter.request.name, options->name, sizeof letter.request.name);
    memcpy(letter.numbers, drop->groups, drop->group_count * sizeof *letter.numbers);
    int fds[] = {STDERR_FILENO, options->box_fd, options->file_fd, options->parent_fd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        add_fd(&letter, fds[i]);
    return exchange(fd, &letter);
}

/* ------------------------------------------------------------------ in the nursery */

/* Returns 1, or 0 when the dispatcher is gone or sends what it never sends. */
static int
receive_letter(int fd, struct letter *ret_letter)
{
    union { char bytes[CMSG_SPACE(sizeof(int) * MAX_FDS)]; struct cmsghdr align; } control;
    static char raw[sizeof(struct request) + sizeof ret_letter->numbers + sizeof ret_letter->given];
    struct iovec whole = {raw, sizeof raw};
    struct msghdr message = {
        .msg_iov = &whole, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes,
    };
    ssize_t len;
    do
        len = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    while (len < 0 && errno == EINTR);
    struct cmsghdr *rights = len > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    struct request *request = &ret_letter->request;
    if (len < (ssize_t)sizeof *request || rights == NULL || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
        return 0;
    memcpy(request, raw, sizeof *request);
    size_t numbers = ((size_t)request->group_count + request->inbox_count) * sizeof(uint32_t);
    if (request->group_count > MAX_GROUPS || request->inbox_count > MAX_FDS || request->log_count > MAX_FDS
        || request->key_count > MAX_FDS || (size_t)len != sizeof *request + numbers + request->log_count + request->key_count)
        return 0;
    memcpy(ret_letter->numbers, raw + sizeof *request, numbers);
    memcpy(ret_letter->given, raw + sizeof *request + numbers, request->log_count + request->key_count);
    ret_letter->fd_count = (uint32_t)((rights->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(ret_letter->fds, CMSG_DATA(rights), ret_letter->fd_count * sizeof(int));
    return 1;
}

static struct pc_drop
make_drop(const struct letter *letter)
{
    const struct request *request = &letter->request;
    return (struct pc_drop){
        .uid = request->uid, .gid = request->gid, .groups = letter->numbers, .group_count = request->group_count,
        .keep_fds = letter->fds + 1, .keep_count = letter->fd_count - 1, .parent_pid = request->parent_pid,
        .nofile = request->nofile, .is_privileged = request->is_privileged,
        .seccomp_bpf = (const void *)(uintptr_t)request->seccomp_bpf, .seccomp_count = request->seccomp_count,
        .is_runner = request->is_runner, .may_gain = request->may_gain, .parent_fd = request->is_runner ? letter->fds[3] : -1,
    };
}

static void
be_runner(const struct letter *letter)
{
    struct pc_runner_options options = {.box_fd = letter->fds[1], .file_fd = letter->fds[2], .parent_fd = letter->fds[3]};
    memcpy(options.name, letter->request.name, sizeof options.name);
    struct pc_drop drop = make_drop(letter);
    pc_runner_become(&drop, &options);
}

/* Put what add_given took apart together again. Returns the place behind it. */
static int
take_given(const struct letter *letter, const uint8_t *given, uint32_t count, int next, int *ret_fds)
{
    for (uint32_t i = 0; i < count; i++)
        ret_fds[i] = given[i] ? letter->fds[next++] : -1;
    return next;
}

/* Nothing was touched yet: who is not known ends without a trace. */
static void
await_word(struct letter *letter)
{
    int word = letter->fds[--letter->fd_count];
    char byte;
    ssize_t len;
    do
        len = recv(word, &byte, sizeof byte, 0);
    while (len < 0 && errno == EINTR);
    if (len != (ssize_t)sizeof byte)
        _exit(0);
    (void)close(word);
}

/* Behind the fork: put the arguments together again, with this process's numbers of the descriptors. NULL in a runner. */
static struct pc_child *
be_born(struct letter *letter)
{
    const struct request *request = &letter->request;
    int logs[MAX_FDS], keys[MAX_FDS], next = 6;
    await_word(letter);
    if (dup2(letter->fds[0], STDERR_FILENO) < 0)
        pc_die(111, "standard error");
    if (request->is_runner) {
        be_runner(letter);
        return NULL;
    }
    struct pc_child_options options = {
        .control_fd = letter->fds[1], .inbox_fd = letter->fds[2], .record_fd = letter->fds[3], .types_fd = letter->fds[4],
        .page_fd = letter->fds[5], .route_fd = request->has_route ? letter->fds[next++] : -1,
        .mutex_kind = request->mutex_kind, .mutex_id = request->mutex_id, .max_open = request->max_open,
        .may_scale_leaders = request->may_scale_leaders, .thread_stack_bytes = request->thread_stack_bytes,
        .has_one_worker = request->has_one_worker, .generation = request->generation, .takes_any_key = request->takes_any_key,
    };
    memcpy(options.name, request->name, sizeof options.name);
    options.mutex_fd = request->has_mutex ? letter->fds[next++] : -1;
    options.job_fd = request->has_job ? letter->fds[next++] : -1;
    options.ticket_fd = request->has_tickets ? letter->fds[next++] : -1;
    options.listener_fds = letter->fds + next;
    options.listener_count = request->listener_count;
    next += (int)request->listener_count;
    options.inbox_fds = letter->fds + next;
    options.inbox_numbers = letter->numbers + request->group_count;
    options.inbox_count = request->inbox_count;
    next += (int)request->inbox_count;
    next = take_given(letter, letter->given, request->log_count, next, logs);
    (void)take_given(letter, letter->given + request->log_count, request->key_count, next, keys); /* the last ones */
    options.log_fds = logs;
    options.log_count = request->log_count;
    options.key_fds = keys;
    options.key_count = request->key_count;
    struct pc_drop drop = make_drop(letter);
    return pc_spawn_become(&drop, &options);
}

static int32_t
fork_for_parent(void)
{
    /* Not fork(2): glibc has no such flag. What its fork would do besides, the child does not need: it has one thread. */
    long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL);
    return pid < 0 ? -errno : (int32_t)pid;
}

/* Returns only in a child that needs Python, and in a runner. */
static struct pc_child *
sit(int fd)
{
    static struct letter letter;
    while (receive_letter(fd, &letter) == 1) {
        const struct request *request = &letter.request;
        int32_t pid = request->is_runner ? pc_runner_fork(CLONE_PARENT, request->is_privileged) : fork_for_parent();
        if (pid == 0)
            return be_born(&letter);
        for (uint32_t i = 0; i < letter.fd_count; i++)
            (void)close(letter.fds[i]);
        if (send(fd, &pid, sizeof pid, MSG_NOSIGNAL) < 0)
            break;
    }
    _exit(0);
}

int
pc_nursery_start(int *ret_fd, struct pc_child **ret_child)
{
    int pair[2];
    pid_t parent = getpid();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -PC_E_SYS;
    static const struct timeval limit = {.tv_sec = ANSWER_S};
    if (setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0
        || setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0) {
        (void)close(pair[0]);
        (void)close(pair[1]);
        return -PC_E_SYS;
    }
    pid_t pid = fork();
    if (pid != 0) {
        (void)close(pair[1]);
        if (pid < 0)
            (void)close(pair[0]);
        *ret_fd = pair[0];
        return pid < 0 ? -PC_E_SYS : (int)pid;
    }
    /* Whoever started the server may be reading what it prints, to the end: a child gets its standard error with its request. */
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    bool is_quiet = null >= 0 && dup2(null, 0) == 0 && dup2(null, 1) == 1 && dup2(null, 2) == 2;
    bool is_alone = is_quiet && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 && getppid() == parent && dup3(pair[1], 3, O_CLOEXEC) == 3
                    && syscall(SYS_close_range, 4, ~0u, 0) == 0;
    if (!is_alone)
        pc_die(111, "the nursery cannot be made");
    (void)prctl(PR_SET_NAME, "pc-nursery", 0, 0, 0);
    static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH};
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        (void)signal(ignored[i], SIG_IGN); /* the dispatcher's, sent to the whole group; this process ends with its socket */
    pc_tls_warm();
    *ret_child = sit(3);
    return 0;
}
