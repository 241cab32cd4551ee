/* kept.c - connections to back ends that wait for the next request.
 * Runs as:  child, as the identity that owns the host.   Sees: no byte of a request.
 * Holds:    at most PC_KEPT_PER_BACKEND of each back end and PC_MAX_KEPT in all, idle for PC_KEPT_MS at most. One by
 *           FastCGI holds a whole worker of the responder, for which others might wait: it is kept for PC_KEPT_FCGI_MS at most, and only
 *           while this child has no more connections than its share of the workers, so that each of them has one.
 * Distrusts: what answers: a kept connection on which anything came is not used again.
 * Before:   dial.c   After: backend.c */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kept.h"

#define MS 1000000ull

/* With the lock held: close those that have been idle since before then_ns, or lead elsewhere than the path does now. */
static void
close_old(struct pc_child *child, struct pc_backend *backend, uint64_t then_ns)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < backend->kept_count; i++) {
        if (backend->kept[i].since_ns > then_ns && backend->kept[i].inode == backend->inode)
            backend->kept[left++] = backend->kept[i];
        else
            (void)close(backend->kept[i].fd); /* idle: nothing is under way */
    }
    (void)atomic_fetch_sub(&child->backends.kept, backend->kept_count - left);
    pc_backend_discount(backend, backend->kept_count - left);
    backend->kept_count = left;
}

void
pc_kept_sweep(struct pc_child *child, uint64_t now_ns)
{
    (void)pthread_mutex_lock(&child->backends.lock);
    for (struct pc_backend *backend = child->backends.first; backend != NULL; backend = backend->next) {
        if (backend->kept_count == 0)
            continue;
        backend->inode = pc_backend_inode(backend);
        uint64_t kept_ns = (backend->protocol == PC_BACKEND_FCGI ? PC_KEPT_FCGI_MS : PC_KEPT_MS) * MS;
        close_old(child, backend, now_ns > kept_ns ? now_ns - kept_ns : 0);
    }
    (void)pthread_mutex_unlock(&child->backends.lock);
}

void
pc_kept_make_way(struct pc_child *child, struct pc_backend *backend)
{
    (void)pthread_mutex_lock(&child->backends.lock);
    if (backend->kept_count > 0)
        close_old(child, backend, backend->kept[0].since_ns); /* it is the first that has waited longest */
    (void)pthread_mutex_unlock(&child->backends.lock);
}

/* Nothing to read and no end: the other side still waits for a request. */
static bool
is_quiet(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

int
pc_kept_take(struct pc_child *child, struct pc_backend *backend, uint64_t *ret_inode)
{
    int fd = -1;
    (void)pthread_mutex_lock(&child->backends.lock);
    while (fd < 0 && backend->kept_count > 0) {
        fd = backend->kept[--backend->kept_count].fd;
        *ret_inode = backend->kept[backend->kept_count].inode;
        (void)atomic_fetch_sub(&child->backends.kept, 1);
        if (is_quiet(fd))
            break;
        (void)close(fd); /* as above */
        pc_backend_discount(backend, 1);
        fd = -1;
    }
    (void)pthread_mutex_unlock(&child->backends.lock);
    return fd;
}

/* With the lock held. */
static bool
has_room(const struct pc_child *child, const struct pc_backend *backend)
{
    bool is_shared = backend->protocol == PC_BACKEND_FCGI && atomic_load(&backend->open_count) > backend->share;
    return !is_shared && backend->kept_count < PC_KEPT_PER_BACKEND && atomic_load(&child->backends.kept) < PC_MAX_KEPT;
}

bool
pc_kept_put(struct pc_child *child, struct pc_backend *backend, int fd, uint64_t inode)
{
    (void)pthread_mutex_lock(&child->backends.lock);
    bool may_keep = has_room(child, backend) && inode == backend->inode;
    if (may_keep) {
        /* It stays in the epoll set: what happens on it meanwhile looks like an event of a gate that is over. */
        backend->kept[backend->kept_count].fd = fd;
        backend->kept[backend->kept_count].inode = inode;
        backend->kept[backend->kept_count++].since_ns = pc_now_ns();
        (void)atomic_fetch_add(&child->backends.kept, 1);
    }
    (void)pthread_mutex_unlock(&child->backends.lock);
    return may_keep;
}
