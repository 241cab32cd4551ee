/* backend.c - connect to back ends and services without waiting, keep connections for the next request, wake services.
 * Runs as:  child, as the identity that owns the host.   Sees: no byte of a request.
 * Holds:    kept connections, at most PC_KEPT_PER_BACKEND of each back end and PC_MAX_KEPT in all, idle for PC_KEPT_MS at most. One by
 *           FastCGI holds a whole worker of the responder, for which others might wait: it is kept for PC_KEPT_FCGI_MS at most, and only
 *           while this child has no more connections than its share of the workers, so that each of them has one; and a list of new
 *           ones by FastCGI whose request has not been answered, to knock where it has not been read.
 * Distrusts: what answers: a kept connection on which anything came is not used again. The runner's answer to WAKE is one bounded line.
 * Before:   gate_http.c, gate_fcgi.c   After: job.c */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "backend.h"

#define MS 1000000ull
#define MAX_ADDRESSES 4
#define RESOLVED_MS 60000 /* how long a name's addresses are believed */
#define UNRESOLVED_MS 5000 /* until a resolver that failed, or has not answered yet, is asked again */
#define MAX_WAKES 3 /* of a request: a runner that ends answers "again", and its successor is asked */

union address { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; struct sockaddr_un local; };

struct pc_backend {
    struct pc_backend *next;
    struct pc_child *child;
    uint8_t kind, protocol;
    uint16_t port;
    uint32_t service;
    char *place;                 /* host, or path of the socket; NUL-terminated */
    struct pc_slice name;        /* for people */
    /* with backends.lock */
    union address addresses[MAX_ADDRESSES];
    uint32_t address_count;
    uint64_t ask_ns;             /* when its name is to be looked up; 0 = never */
    uint64_t failed_ns;          /* 0 = it did not */
    _Atomic uint32_t share;      /* FastCGI: connections that may be open for one to be kept; 0 = none is */
    _Atomic uint32_t open_count; /* in use, being made, and kept */
    uint32_t kept_count;
    uint64_t knocked_ns;         /* when it was last knocked at */
    uint64_t inode;              /* of a service's socket, when it was last looked at; 0 = there is none, or no service */
    struct { int fd; uint64_t since_ns, inode; } kept[PC_KEPT_PER_BACKEND]; /* the latest last */
};

/* ------------------------------------------------------------------ names */

static bool
add_literal(struct pc_backend *backend, const char *text)
{
    union address *address = &backend->addresses[backend->address_count];
    memset(address, 0, sizeof *address);
    if (inet_pton(AF_INET, text, &address->v4.sin_addr) == 1) {
        address->v4.sin_family = AF_INET;
        address->v4.sin_port = htons(backend->port);
    } else if (inet_pton(AF_INET6, text, &address->v6.sin6_addr) == 1) {
        address->v6.sin6_family = AF_INET6;
        address->v6.sin6_port = htons(backend->port);
    } else {
        return false;
    }
    backend->address_count++;
    return true;
}

/* What needs no look-up: sockets, addresses, and localhost, which is what it is whatever a resolver says (RFC 6761 6.3). */
static bool
is_known(struct pc_backend *backend)
{
    if (backend->kind != PC_TARGET_TCP) {
        union address *address = &backend->addresses[0];
        size_t len = strlen(backend->place);
        memset(address, 0, sizeof *address);
        address->local.sun_family = AF_UNIX;
        if (len >= sizeof address->local.sun_path)
            return false;
        memcpy(address->local.sun_path, backend->place, len); /* UNSAFE: compared with its room */
        backend->address_count = 1;
        return true;
    }
    if (pc_slice_ieq((struct pc_slice){backend->place, strlen(backend->place)}, PC_S("localhost")))
        return add_literal(backend, "127.0.0.1") && add_literal(backend, "::1");
    return add_literal(backend, backend->place);
}

static socklen_t
size_of(const union address *address)
{
    sa_family_t family = address->any.sa_family;
    return family == AF_INET ? sizeof address->v4 : family == AF_INET6 ? sizeof address->v6 : sizeof address->local;
}

/* Waits for as long as the system's resolver does. */
static int
look_up(struct pc_child *child, struct pc_backend *backend)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int failed = getaddrinfo(backend->place, NULL, &hints, &found);
    (void)pthread_mutex_lock(&child->backends.lock);
    uint32_t count = 0;
    for (struct addrinfo *one = failed != 0 ? NULL : found; one != NULL && count < MAX_ADDRESSES; one = one->ai_next) {
        union address *address = &backend->addresses[count];
        if (one->ai_addrlen > sizeof *address || (one->ai_family != AF_INET && one->ai_family != AF_INET6))
            continue;
        memset(address, 0, sizeof *address);
        memcpy(address, one->ai_addr, one->ai_addrlen); /* UNSAFE: compared with its room */
        *(one->ai_family == AF_INET ? &address->v4.sin_port : &address->v6.sin6_port) = htons(backend->port);
        count++;
    }
    if (count > 0) /* else the old ones serve on, if there are any */
        backend->address_count = count;
    backend->ask_ns = pc_now_ns() + (count > 0 ? RESOLVED_MS : UNRESOLVED_MS) * MS;
    bool is_there = backend->address_count > 0;
    (void)pthread_mutex_unlock(&child->backends.lock);
    if (found != NULL)
        freeaddrinfo(found);
    return is_there ? 0 : -PC_E_NOT_FOUND;
}

/* ------------------------------------------------------------------ the child's table */

static bool
is_same(const struct pc_backend *backend, const struct pc_target *target, uint16_t port, enum pc_backend_protocol protocol)
{
    if (backend->kind != target->kind || backend->protocol != protocol)
        return false;
    if (target->kind == PC_TARGET_SERVICE)
        return backend->service == target->service;
    struct pc_slice place = target->kind == PC_TARGET_UNIX ? target->socket : target->host;
    struct pc_slice own = {backend->place, strlen(backend->place)};
    return target->kind == PC_TARGET_UNIX ? pc_slice_eq(own, place) : backend->port == port && pc_slice_ieq(own, place);
}

static struct pc_slice
name_of(const struct pc_backend *backend)
{
    size_t room = strlen(backend->place) * 2 + 32;
    char *text = malloc(room);
    if (text == NULL)
        pc_die(111, "out of memory");
    int len = backend->kind == PC_TARGET_TCP
                  ? snprintf(text, room, "%s:%u (%s:%u)", backend->place, (unsigned)backend->port, backend->place, (unsigned)backend->port)
                  : snprintf(text, room, "%s", backend->place);
    return (struct pc_slice){text, (size_t)len};
}

static struct pc_backend *
make(const struct pc_target *target, struct pc_slice place, uint16_t port, enum pc_backend_protocol protocol, uint32_t share)
{
    struct pc_backend *backend = calloc(1, sizeof *backend);
    char *copy = malloc(place.len + 1);
    if (backend == NULL || copy == NULL)
        pc_die(111, "out of memory");
    memcpy(copy, place.base, place.len);
    copy[place.len] = '\0';
    backend->kind = target->kind;
    backend->protocol = (uint8_t)protocol;
    backend->service = target->service;
    backend->share = share;
    backend->port = target->kind == PC_TARGET_TCP ? port : 0;
    backend->place = copy;
    backend->name = name_of(backend);
    if (!is_known(backend))
        backend->ask_ns = 1; /* long ago */
    return backend;
}

int
pc_backend_find(struct pc_child *child, const struct pc_target *target, enum pc_backend_protocol protocol, uint16_t default_port,
                bool may_block, struct pc_backend **ret_backend)
{
    uint16_t port = target->port != 0 ? target->port : default_port;
    struct pc_slice place = target->kind == PC_TARGET_UNIX ? target->socket : target->host;
    if (target->kind == PC_TARGET_SERVICE && target->service >= child->config->service_count)
        return -PC_E_FORMAT;
    const struct pc_service *service = target->kind == PC_TARGET_SERVICE ? &child->config->services[target->service] : NULL;
    if (service != NULL)
        place = service->socket;
    (void)pthread_mutex_lock(&child->backends.lock);
    struct pc_backend *backend = child->backends.first;
    while (backend != NULL && !is_same(backend, target, port, protocol))
        backend = backend->next;
    if (backend == NULL && child->backends.count < PC_MAX_BACKENDS) {
        backend = make(target, place, port, protocol, service != NULL && protocol == PC_BACKEND_FCGI ? service->connections : 0);
        backend->child = child;
        backend->next = child->backends.first;
        child->backends.first = backend;
        child->backends.count++;
    }
    bool is_due = backend != NULL && backend->ask_ns != 0 && pc_now_ns() >= backend->ask_ns;
    bool is_there = backend != NULL && backend->address_count > 0;
    if (is_due && is_there && may_block) /* the others go on with the old addresses while this thread waits */
        backend->ask_ns = pc_now_ns() + UNRESOLVED_MS * MS;
    (void)pthread_mutex_unlock(&child->backends.lock);
    if (backend == NULL)
        return -PC_E_MEMORY;
    int result = is_there ? 0 : -PC_E_NOT_FOUND;
    if (is_due)
        result = may_block ? look_up(child, backend) : -PC_E_AGAIN;
    if (result == 0)
        *ret_backend = backend;
    return result;
}

struct pc_slice
pc_backend_name(const struct pc_backend *backend)
{
    return backend->name;
}

bool
pc_backend_is_service(const struct pc_backend *backend)
{
    return backend->kind == PC_TARGET_SERVICE;
}

void
pc_backend_share(struct pc_backend *backend, uint32_t workers)
{
    atomic_store(&backend->share, workers);
}

bool
pc_backend_is_kept(const struct pc_backend *backend)
{
    return backend->protocol == PC_BACKEND_HTTP || backend->share > 0;
}

bool
pc_backend_is_held(struct pc_child *child, const struct pc_backend *backend, uint64_t now_ns, uint32_t hold_s)
{
    (void)pthread_mutex_lock(&child->backends.lock);
    uint64_t failed_ns = backend->failed_ns;
    (void)pthread_mutex_unlock(&child->backends.lock);
    return failed_ns != 0 && now_ns < failed_ns + hold_s * 1000 * MS;
}

void
pc_backend_note(struct pc_child *child, struct pc_backend *backend, uint64_t now_ns, bool has_failed)
{
    (void)pthread_mutex_lock(&child->backends.lock);
    backend->failed_ns = has_failed ? now_ns : 0;
    (void)pthread_mutex_unlock(&child->backends.lock);
}

/* ------------------------------------------------------------------ kept connections */

static void
discount(struct pc_backend *backend, uint32_t count)
{
    (void)atomic_fetch_sub(&backend->open_count, count);
}

/* Which socket a service's path leads to now. Who is started anew, or is to end, takes the path from its predecessor or away: a
 * connection to another inode than this is not kept, so that who serves it is left alone and can end. */
static uint64_t
look_inode(const struct pc_backend *backend)
{
    struct stat facts;
    if (backend->kind != PC_TARGET_SERVICE || stat(backend->place, &facts) != 0)
        return 0;
    return facts.st_ino;
}

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
    discount(backend, backend->kept_count - left);
    backend->kept_count = left;
}

void
pc_backend_sweep(struct pc_child *child, uint64_t now_ns)
{
    (void)pthread_mutex_lock(&child->backends.lock);
    for (struct pc_backend *backend = child->backends.first; backend != NULL; backend = backend->next) {
        if (backend->kept_count == 0)
            continue;
        backend->inode = look_inode(backend);
        uint64_t kept_ns = (backend->protocol == PC_BACKEND_FCGI ? PC_KEPT_FCGI_MS : PC_KEPT_MS) * MS;
        close_old(child, backend, now_ns > kept_ns ? now_ns - kept_ns : 0);
    }
    (void)pthread_mutex_unlock(&child->backends.lock);
}

void
pc_backend_free_all(struct pc_child *child)
{
    pc_backend_sweep(child, UINT64_MAX);
    for (struct pc_backend *backend = child->backends.first, *next; backend != NULL; backend = next) {
        next = backend->next;
        free(backend->place);
        free((char *)(uintptr_t)backend->name.base);
        free(backend);
    }
    child->backends.first = NULL;
}

/* Nothing to read and no end: the other side still waits for a request. */
static bool
is_quiet(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

/* The latest that still lives; -1 = none. */
static int
take_kept(struct pc_child *child, struct pc_backend *backend, uint64_t *ret_inode)
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
        discount(backend, 1);
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

void
pc_dial_keep(struct pc_dial *dial, struct pc_gate *gate)
{
    struct pc_child *child = gate->child;
    struct pc_backend *backend = dial->backend;
    bool may_keep = dial->state == PC_DIAL_OPEN && !atomic_load_explicit(&child->is_draining, memory_order_relaxed);
    if (may_keep) {
        (void)pthread_mutex_lock(&child->backends.lock);
        may_keep = has_room(child, backend) && dial->inode == backend->inode;
        if (may_keep) {
            /* It stays in the epoll set: what happens on it meanwhile looks like an event of a gate that is over. */
            backend->kept[backend->kept_count].fd = dial->fd;
            backend->kept[backend->kept_count].inode = dial->inode;
            backend->kept[backend->kept_count++].since_ns = pc_now_ns();
            (void)atomic_fetch_add(&child->backends.kept, 1);
            dial->fd = -1;
            dial->is_counted = false; /* the place that it has now is */
        }
        (void)pthread_mutex_unlock(&child->backends.lock);
    }
    pc_dial_end(dial);
}

/* ------------------------------------------------------------------ what nobody takes */

/* The master of a php-fpm with workers on demand forks one for a connection if none is idle, and looks once for however many come at a
 * time: of several, some are left in its queue until a further one comes, or a worker is rid of the connection that it has, which we
 * keep. So whoever waits there knocks: a connection without a request, which ends at once, makes the master look again. */

static void
list(struct pc_dial *dial)
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

/* It has an answer, or ends. */
static void
unlist(struct pc_dial *dial)
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
knock(struct pc_backend *backend, uint64_t now_ns)
{
    const union address *to = &backend->addresses[0];
    int fd = socket(to->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    backend->knocked_ns = now_ns;
    if (fd < 0)
        return; /* there is a next time */
    (void)connect(fd, &to->any, size_of(to)); /* a full queue is looked at, too */
    (void)close(fd); /* nothing was said */
}

void
pc_backend_knock(struct pc_child *child, uint64_t now_ns)
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
            knock(backend, now_ns);
        dial->knock_ms *= 2;
        dial->knock_ns = now_ns + dial->knock_ms * MS;
    }
    (void)pthread_mutex_unlock(&child->backends.lock);
}

/* ------------------------------------------------------------------ connecting */

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
    unlist(dial);
    close_one(&dial->fd);
    close_one(&dial->wake_fd);
    if (dial->is_counted)
        discount(dial->backend, 1);
    dial->is_counted = false;
    dial->state = PC_DIAL_NONE;
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
    dial->inode = look_inode(dial->backend); /* before it is connected to: what is swapped meanwhile is not kept, at worst */
    (void)pthread_mutex_lock(&gate->child->backends.lock);
    union address to = dial->backend->addresses[dial->address];
    dial->backend->inode = dial->inode;
    (void)pthread_mutex_unlock(&gate->child->backends.lock);
    dial->fd = socket(to.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (dial->fd < 0)
        return fail_by_system(dial, errno);
    if (to.any.sa_family != AF_UNIX)
        (void)setsockopt(dial->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes); /* cannot fail on a TCP socket */
    int result = connect(dial->fd, &to.any, size_of(&to));
    if (result < 0 && errno != EINPROGRESS)
        return try_another(dial, gate, errno);
    dial->watches_out = result != 0; /* a Unix socket is connected at once, and mostly takes the whole request */
    if (pc_gate_watch(gate, dial->fd, EPOLLIN | EPOLLRDHUP | (dial->watches_out ? EPOLLOUT : 0)) != 0)
        return fail_by_system(dial, errno);
    if (result == 0) {
        list(dial);
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
        discount(backend, 1); /* it was counted when it found no room; the kept one is counted already */
    uint32_t before = dial->is_kept || dial->is_counted ? 0 : atomic_fetch_add(&backend->open_count, 1);
    dial->is_counted = true;
    if (backend->share == 0 || before < backend->share)
        return;
    (void)pthread_mutex_lock(&child->backends.lock);
    if (backend->kept_count > 0)
        close_old(child, backend, backend->kept[0].since_ns); /* it is the first that has waited longest */
    (void)pthread_mutex_unlock(&child->backends.lock);
}

int
pc_dial_begin(struct pc_dial *dial, const struct pc_gate *gate, bool is_fresh)
{
    dial->state = PC_DIAL_NONE;
    dial->is_queue_full = false;
    dial->wake_fd = -1;
    dial->address = 0;
    dial->fd = is_fresh ? -1 : take_kept(gate->child, dial->backend, &dial->inode);
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

static ssize_t
result_of(ssize_t count)
{
    if (count >= 0)
        return count;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? -PC_E_AGAIN : -PC_E_CLOSED;
}

ssize_t
pc_dial_send(struct pc_dial *dial, const struct pc_gate *gate, const char *buf, size_t len)
{
    ssize_t sent = result_of(send(dial->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL));
    if (sent != -PC_E_AGAIN || dial->watches_out)
        return sent;
    dial->watches_out = true;
    return pc_gate_rewatch(gate, dial->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP) == 0 ? sent : -PC_E_CLOSED;
}

ssize_t
pc_dial_recv(struct pc_dial *dial, char *buf, size_t cap)
{
    ssize_t count = result_of(recv(dial->fd, buf, cap, MSG_DONTWAIT));
    if (count > 0)
        unlist(dial);
    return count;
}
