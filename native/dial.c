/* dial.c - connect to a back end or service without waiting, wake a service that sleeps, send and receive.
 * Runs as:  child, as the identity that owns the host.   Sees: no byte of a request.
 * Holds:    the connection of one gate, and meanwhile the descriptor on which the runner answers.
 * Distrusts: the runner's answer to WAKE, which is one bounded line.
 * Before:   gate_http.c, gate_fcgi.c   After: kept.c, knock.c, job.c */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dial.h"
#include "job.h"
#include "kept.h"
#include "knock.h"

#define MAX_WAKES 3 /* of a request: a runner that ends answers "again", and its successor is asked */

static void
close_one(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd); /* what was to be said was said */
    *fd = -1;
}

void
pc_dial_end(struct pc_dial *dial)
{
    if (dial->state == PC_DIAL_NONE && !dial->is_counted)
        return;
    pc_knock_unlist(dial);
    close_one(&dial->fd);
    close_one(&dial->wake_fd);
    if (dial->is_counted)
        pc_backend_discount(dial->backend, 1);
    dial->is_counted = dial->must_list = false;
    dial->state = PC_DIAL_NONE;
}

void
pc_dial_keep(struct pc_dial *dial, struct pc_gate *gate)
{
    bool may_keep = dial->state == PC_DIAL_OPEN && !atomic_load_explicit(&gate->child->is_draining, memory_order_relaxed);
    if (may_keep && pc_kept_put(gate->child, dial->backend, dial->fd, dial->inode)) {
        dial->fd = -1;
        dial->is_counted = false; /* the place that it has now is */
    }
    pc_dial_end(dial);
}

static int
fail(struct pc_dial *dial, int error, const char *why)
{
    close_one(&dial->fd);
    close_one(&dial->wake_fd);
    dial->state = PC_DIAL_FAILED;
    dial->error = error;
    (void)snprintf(dial->answer, sizeof dial->answer, "%s", why); /* cut if it is longer */
    return -PC_E_CLOSED;
}

static int
fail_by_system(struct pc_dial *dial, int error)
{
    char text[128];
    return fail(dial, error, strerror_r(error, text, sizeof text));
}

const char *
pc_dial_why(const struct pc_dial *dial)
{
    return dial->answer;
}

bool
pc_dial_lacks_own(const struct pc_dial *dial)
{
    static const int shortages[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC /* of epoll's watches */};
    for (size_t i = 0; i < sizeof shortages / sizeof *shortages; i++)
        if (dial->state == PC_DIAL_FAILED && dial->error == shortages[i])
            return true;
    return false;
}

static int
open_now(struct pc_dial *dial)
{
    dial->state = PC_DIAL_OPEN;
    return 0;
}

/* Whether the service's runner may have to start it first. */
static bool
may_sleep(const struct pc_dial *dial, int error)
{
    return dial->backend->kind == PC_TARGET_SERVICE && dial->wakes == 0 && (error == ENOENT || error == ECONNREFUSED);
}

static int
wake(struct pc_dial *dial, const struct pc_gate *gate)
{
    static const struct pc_job_text nothing = {0};
    int pair[2];
    if (gate->child->job_fd < 0)
        return fail(dial, 0, "this identity has no runner to start the service");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return fail_by_system(dial, errno);
    const struct pc_job job = {.kind = PC_JOB_WAKE, .id = pc_job_next_id(gate->child), .service = dial->backend->service};
    int sent = pc_job_send(gate->child, &job, &nothing, &pair[1], 1);
    (void)close(pair[1]); /* the runner has it, or nobody */
    if (sent == 0 && pc_gate_watch(gate, pair[0], EPOLLIN) == 0) {
        dial->wake_fd = pair[0];
        dial->heard = 0;
        dial->wakes++;
        dial->state = PC_DIAL_WAKING;
        return -PC_E_AGAIN;
    }
    (void)close(pair[0]); /* nobody answers on it */
    if (sent == -PC_E_AGAIN)
        return -PC_E_MEMORY;
    return fail(dial, 0, "the job box is closed: nobody can start the service");
}

static int connect_next(struct pc_dial *dial, const struct pc_gate *gate);

/* The address that was tried does not answer. */
static int
try_another(struct pc_dial *dial, const struct pc_gate *gate, int error)
{
    close_one(&dial->fd);
    if (may_sleep(dial, error))
        return wake(dial, gate);
    dial->is_queue_full = dial->backend->kind != PC_TARGET_TCP && error == EAGAIN && dial->state == PC_DIAL_NONE;
    if (dial->is_queue_full)
        return -PC_E_MEMORY;
    dial->address++;
    (void)pthread_mutex_lock(&gate->child->backends.lock);
    bool has_more = dial->address < dial->backend->address_count;
    (void)pthread_mutex_unlock(&gate->child->backends.lock);
    return has_more ? connect_next(dial, gate) : fail_by_system(dial, error);
}

static int
connect_next(struct pc_dial *dial, const struct pc_gate *gate)
{
    static const int yes = 1;
    dial->inode = pc_backend_inode(dial->backend); /* before it is connected to: what is swapped meanwhile is not kept, at worst */
    (void)pthread_mutex_lock(&gate->child->backends.lock);
    union pc_backend_address to = dial->backend->addresses[dial->address];
    dial->backend->inode = dial->inode;
    (void)pthread_mutex_unlock(&gate->child->backends.lock);
    dial->fd = socket(to.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (dial->fd < 0)
        return fail_by_system(dial, errno);
    if (to.any.sa_family != AF_UNIX)
        (void)setsockopt(dial->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes); /* cannot fail on a TCP socket */
    int result = connect(dial->fd, &to.any, pc_backend_address_size(&to));
    if (result < 0 && errno != EINPROGRESS)
        return try_another(dial, gate, errno);
    dial->watches_out = result != 0; /* a Unix socket is connected at once, and mostly takes the whole request */
    if (pc_gate_watch(gate, dial->fd, EPOLLIN | EPOLLRDHUP | (dial->watches_out ? EPOLLOUT : 0)) != 0)
        return fail_by_system(dial, errno);
    if (result == 0) {
        dial->must_list = true;
        return open_now(dial);
    }
    dial->state = PC_DIAL_CONNECTING;
    return -PC_E_AGAIN;
}

/* One more is open than before, unless it is a kept one; then none may stay kept that has a worker which this one would wait for. */
static void
count_in(struct pc_dial *dial, struct pc_child *child)
{
    struct pc_backend *backend = dial->backend;
    if (dial->is_kept && dial->is_counted)
        pc_backend_discount(backend, 1); /* it was counted when it found no room; the kept one is counted already */
    uint32_t before = dial->is_kept || dial->is_counted ? 0 : atomic_fetch_add(&backend->open_count, 1);
    dial->is_counted = true;
    if (backend->share != 0 && before >= backend->share)
        pc_kept_make_way(child, backend);
}

int
pc_dial_begin(struct pc_dial *dial, const struct pc_gate *gate, bool is_fresh)
{
    dial->state = PC_DIAL_NONE;
    dial->is_queue_full = false;
    dial->wake_fd = -1;
    dial->address = 0;
    dial->fd = is_fresh ? -1 : pc_kept_take(gate->child, dial->backend, &dial->inode);
    dial->is_kept = dial->fd >= 0;
    count_in(dial, gate->child);
    if (!dial->is_kept)
        return connect_next(dial, gate);
    dial->watches_out = false;
    if (pc_gate_rewatch(gate, dial->fd, EPOLLIN | EPOLLRDHUP) != 0)
        return fail_by_system(dial, errno);
    return open_now(dial);
}

/* Whether connect(2) has succeeded: 0, an errno, or -1 = not known yet. */
static int
outcome(int fd)
{
    struct sockaddr_storage peer;
    socklen_t peer_len = sizeof peer, error_len = sizeof(int);
    int error = 0;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_len) < 0)
        return errno;
    if (error != 0)
        return error;
    return getpeername(fd, (struct sockaddr *)&peer, &peer_len) == 0 ? 0 : -1;
}

/* The runner that was asked is ending: what is asked now is its successor's to read. */
static int
wake_again(struct pc_dial *dial, const struct pc_gate *gate)
{
    close_one(&dial->wake_fd);
    int result = dial->wakes < MAX_WAKES ? wake(dial, gate) : fail(dial, 0, "its runners end again and again");
    return result == -PC_E_MEMORY ? fail(dial, 0, "the job box is full") : result;
}

/* The runner's line: "ok", "again", or "error TEXT". */
static int
hear_runner(struct pc_dial *dial, const struct pc_gate *gate)
{
    ssize_t count;
    while ((count = recv(dial->wake_fd, dial->answer + dial->heard, sizeof dial->answer - 1 - dial->heard, MSG_DONTWAIT)) > 0)
        dial->heard += (uint32_t)count;
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) && memchr(dial->answer, '\n', dial->heard) == NULL)
        return -PC_E_AGAIN;
    struct pc_slice line = pc_slice_before((struct pc_slice){dial->answer, dial->heard}, '\n');
    if (line.len == 2 && memcmp(line.base, "ok", 2) == 0) {
        close_one(&dial->wake_fd);
        return connect_next(dial, gate);
    }
    if (pc_slice_eq(line, PC_S("again")))
        return wake_again(dial, gate);
    char text[sizeof dial->answer];
    struct pc_slice error = PC_S("error ");
    if (pc_slice_starts(line, error))
        line = pc_slice_behind(line, error.len);
    if (line.len == 0)
        return fail(dial, 0, "the runner ended before the service was there");
    (void)snprintf(text, sizeof text, "%.*s", (int)line.len, line.base); /* cut if it is longer */
    return fail(dial, 0, text);
}

int
pc_dial_step(struct pc_dial *dial, const struct pc_gate *gate)
{
    switch ((enum pc_dial_state)dial->state) {
    case PC_DIAL_OPEN:
        return 0;
    case PC_DIAL_WAKING:
        return hear_runner(dial, gate);
    case PC_DIAL_CONNECTING: {
        int error = outcome(dial->fd);
        return error == 0 ? open_now(dial) : error < 0 ? -PC_E_AGAIN : try_another(dial, gate, error);
    }
    default:
        return -PC_E_CLOSED;
    }
}

ssize_t
pc_dial_send(struct pc_dial *dial, const struct pc_gate *gate, const char *buf, size_t len)
{
    ssize_t sent = pc_io_result(send(dial->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL));
    if (sent > 0 && dial->must_list) {
        dial->must_list = false;
        pc_knock_list(dial);
    }
    if (sent != -PC_E_AGAIN || dial->watches_out)
        return sent;
    dial->watches_out = true;
    return pc_gate_rewatch(gate, dial->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP) == 0 ? sent : -PC_E_CLOSED;
}

ssize_t
pc_dial_recv(struct pc_dial *dial, char *buf, size_t cap)
{
    ssize_t count = pc_io_result(recv(dial->fd, buf, cap, MSG_DONTWAIT));
    if (count > 0)
        pc_knock_unlist(dial);
    return count;
}
