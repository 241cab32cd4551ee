/* knock.c - make a php-fpm that has overlooked a connection look again.
 * Runs as:  child, as the identity that owns the host.   Sees: no byte of a request.
 * Holds:    a list of new connections by FastCGI whose request has not been answered, to knock where it has not been read.
 * Distrusts: that who was connected to reads.
 * Before:   dial.c   After: backend.c
 *
 * The master of a php-fpm with workers on demand forks one for a connection if none is idle, and looks once for however many come at a
 * time: of several, some are left in its queue until a further one comes, or a worker is rid of the connection that it has, which we
 * keep. So whoever waits there knocks: a connection without a request, which ends at once, makes the master look again. */
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "knock.h"

#define MS 1000000ull

void
pc_knock_list(struct pc_dial *dial)
{
    struct pc_backend *backend = dial->backend;
    struct pc_child *child = backend->child;
    if (backend->kind == PC_TARGET_TCP || backend->share == 0)
        return;
    (void)pthread_mutex_lock(&child->backends.lock);
    dial->knock_ms = PC_KNOCK_MS;
    dial->knock_ns = pc_now_ns() + PC_KNOCK_MS * MS;
    dial->next = child->backends.untaken;
    dial->link = &child->backends.untaken;
    if (dial->next != NULL)
        dial->next->link = &dial->next;
    child->backends.untaken = dial;
    (void)atomic_fetch_add(&child->backends.untaken_count, 1);
    (void)pthread_mutex_unlock(&child->backends.lock);
    dial->is_listed = true;
}

void
pc_knock_unlist(struct pc_dial *dial)
{
    struct pc_child *child = dial->is_listed ? dial->backend->child : NULL;
    if (child == NULL)
        return;
    (void)pthread_mutex_lock(&child->backends.lock);
    *dial->link = dial->next;
    if (dial->next != NULL)
        dial->next->link = dial->link;
    if (dial->knock_ns != 0)
        (void)atomic_fetch_sub(&child->backends.untaken_count, 1);
    (void)pthread_mutex_unlock(&child->backends.lock);
    dial->is_listed = false;
}

static bool
is_unread(int fd)
{
    int count = 0;
    return ioctl(fd, SIOCOUTQ, &count) == 0 && count > 0;
}

static void
knock_at(struct pc_backend *backend, uint64_t now_ns)
{
    const union pc_backend_address *to = &backend->addresses[0];
    int fd = socket(to->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    backend->knocked_ns = now_ns;
    if (fd < 0)
        return; /* there is a next time */
    (void)connect(fd, &to->any, pc_backend_address_size(to)); /* a full queue is looked at, too */
    (void)close(fd); /* nothing was said */
}

void
pc_knock(struct pc_child *child, uint64_t now_ns)
{
    (void)pthread_mutex_lock(&child->backends.lock);
    for (struct pc_dial *dial = child->backends.untaken; dial != NULL; dial = dial->next) {
        struct pc_backend *backend = dial->backend;
        if (dial->knock_ns == 0 || now_ns < dial->knock_ns || backend->knocked_ns == now_ns)
            continue;
        if (!is_unread(dial->fd)) {
            dial->knock_ns = 0;
            (void)atomic_fetch_sub(&child->backends.untaken_count, 1);
            continue;
        }
        if (atomic_load(&backend->open_count) <= backend->share) /* else all its workers may be at work */
            knock_at(backend, now_ns);
        dial->knock_ms *= 2;
        dial->knock_ns = now_ns + dial->knock_ms * MS;
    }
    (void)pthread_mutex_unlock(&child->backends.lock);
}
