/* job.c - ask the identity's runner to execute a program, to end one, or to wake a service: the child's side of the job box.
 * Runs as:  child, as its identity.   Sees: the message that gate_cgi.c made of a request.
 * Holds:    the job box's write end, which all children of the identity share.
 * Distrusts: the box: it may be full for as long as the runner is busy or has not been forked yet, so nothing here waits.
 * Before:   gate_cgi.c   After: perchild/runner (another process), perchild/wire/job.py */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gate.h"
#include "job.h"

#define MAX_JOB_FDS 3
#define FULL_PLACES 8 /* remembered in one round of retries */

int
pc_job_send(struct pc_child *child, const struct pc_job *job, const struct pc_job_text *text, const int *fds, uint32_t fd_count)
{
    struct pc_job head = *job;
    head.magic = PC_JOB_MAGIC;
    head.version = PC_JOB_VERSION;
    head.path_len = (uint32_t)text->path.len;
    head.cwd_len = (uint32_t)text->cwd.len;
    head.arg_len = (uint32_t)text->arguments.len;
    head.env_len = (uint32_t)text->environment.len;
    struct iovec parts[] = {
        {&head, sizeof head},
        {(void *)(uintptr_t)text->path.base, text->path.len},
        {(void *)(uintptr_t)text->cwd.base, text->cwd.len},
        {(void *)(uintptr_t)text->arguments.base, text->arguments.len},
        {(void *)(uintptr_t)text->environment.base, text->environment.len},
    };
    size_t total = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        total += parts[i].iov_len;
    if (child->job_fd < 0)
        return -PC_E_NOT_FOUND;
    if (total > PC_JOB_MAX_BYTES || fd_count > MAX_JOB_FDS)
        return -PC_E_HEAD_LARGE;
    union { char bytes[CMSG_SPACE(sizeof(int) * MAX_JOB_FDS)]; struct cmsghdr align; } control = {0};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = sizeof parts / sizeof *parts};
    if (fd_count > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(rights), fds, sizeof(int) * fd_count); /* UNSAFE: fd_count was compared with its room */
    }
    ssize_t sent;
    do
        sent = sendmsg(child->job_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return 0;
    /* ETOOMANYREFS: more descriptors under way than this user may have: they become fewer as the runner takes them. */
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS || errno == ETOOMANYREFS)
        return -PC_E_AGAIN;
    return errno == EMSGSIZE ? -PC_E_HEAD_LARGE : -PC_E_SYS;
}

uint64_t
pc_job_next_id(struct pc_child *child)
{
    uint32_t counter = atomic_fetch_add_explicit(&child->job_counter, 1, memory_order_relaxed);
    return (uint64_t)(uint32_t)getpid() << 32 | counter;
}

/* ------------------------------------------------------------------ CANCEL */

static int
send_cancel(struct pc_child *child, struct pc_cancel one)
{
    static const struct pc_job_text nothing = {0};
    return pc_job_send(child, &(struct pc_job){.kind = PC_JOB_CANCEL, .id = one.id, .service = one.grace_s}, &nothing, NULL, 0);
}

void
pc_job_cancel(struct pc_child *child, uint64_t id, uint32_t grace_s)
{
    struct pc_cancel one = {id, grace_s};
    if (send_cancel(child, one) != -PC_E_AGAIN)
        return;
    (void)pthread_mutex_lock(&child->wait_lock);
    bool has_room = child->cancel_count < PC_MAX_CANCELS;
    if (has_room)
        child->cancels[child->cancel_count++] = one;
    (void)pthread_mutex_unlock(&child->wait_lock);
    if (has_room && atomic_fetch_add(&child->job_waiting, 1) == 0)
        pc_child_wake(child); /* as in pc_job_wait */
    else if (!has_room) /* its output has nowhere to go, and its limits hold */
        pc_errlog(child->config, NULL, PC_WARN, "cgi", NULL, "the job box is full: a program that nobody waits for runs on");
}

static void
retry_cancels(struct pc_child *child)
{
    uint32_t sent = 0;
    (void)pthread_mutex_lock(&child->wait_lock);
    while (sent < child->cancel_count && send_cancel(child, child->cancels[sent]) != -PC_E_AGAIN)
        sent++;
    child->cancel_count -= sent;
    memmove(child->cancels, child->cancels + sent, child->cancel_count * sizeof *child->cancels);
    (void)pthread_mutex_unlock(&child->wait_lock);
    (void)atomic_fetch_sub(&child->job_waiting, sent);
}

/* ------------------------------------------------------------------ connections that wait for room */

static void
append(struct pc_child *child, struct pc_conn *conn)
{
    conn->next = NULL;
    (void)pthread_mutex_lock(&child->wait_lock);
    *(child->job_tail == NULL ? &child->job_first : &child->job_tail->next) = conn;
    child->job_tail = conn;
    (void)pthread_mutex_unlock(&child->wait_lock);
}

bool
pc_job_wait(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_child *child = worker->child;
    uint32_t before = atomic_fetch_add(&child->job_waiting, 1);
    if (before >= PC_MAX_WAITING) {
        (void)atomic_fetch_sub(&child->job_waiting, 1);
        return false;
    }
    worker->has_waited = true;
    worker->waited_for = conn->gate->full;
    append(child, conn); /* from here on it is another thread's */
    if (before == 0)
        pc_child_wake(child); /* a leader waits for longer than PC_RETRY_MS */
    return true;
}

static bool
is_known_full(const void *const *full, size_t count, const void *place)
{
    for (size_t i = 0; i < count; i++)
        if (full[i] == place)
            return true;
    return false;
}

/* The oldest first. Behind one for which its place has no room, those that wait for the same place need not try, nor have they waited
 * longer; the others do. */
void
pc_job_retry(struct pc_worker *worker)
{
    struct pc_child *child = worker->child;
    const void *full[FULL_PLACES];
    size_t full_count = 0;
    retry_cancels(child);
    (void)pthread_mutex_lock(&child->wait_lock);
    struct pc_conn *conn = child->job_first;
    child->job_first = child->job_tail = NULL;
    (void)pthread_mutex_unlock(&child->wait_lock);
    for (struct pc_conn *next; conn != NULL; conn = next) {
        const void *place = conn->gate->full;
        next = conn->next;
        if (is_known_full(full, full_count, place)) {
            append(child, conn);
            continue;
        }
        (void)atomic_fetch_sub(&child->job_waiting, 1);
        worker->has_waited = false;
        pc_loop_conn(worker, conn); /* goes on, or waits again, or has waited long enough */
        if (worker->has_waited && full_count < FULL_PLACES)
            full[full_count++] = worker->waited_for;
    }
}
