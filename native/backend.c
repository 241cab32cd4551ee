/* backend.c - the back ends and services of a child: one row for each, its addresses by whichever name, and how it fares.
 * Runs as:  child, as the identity that owns the host.   Sees: no byte of a request.
 * Holds:    the rows, for the child's life.
 * Distrusts: a resolver, which may take its time: only a thread that may wait asks it.
 * Before:   gate_http.c, gate_fcgi.c   After: dial.c */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "backend.h"
#include "kept.h"

#define MS 1000000ull
#define RESOLVED_MS 60000 /* how long a name's addresses are believed */
#define UNRESOLVED_MS 5000 /* until a resolver that failed, or has not answered yet, is asked again */

/* ------------------------------------------------------------------ names */

static bool
add_literal(struct pc_backend *backend, const char *text)
{
    union pc_backend_address *address = &backend->addresses[backend->address_count];
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
        union pc_backend_address *address = &backend->addresses[0];
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

/* Waits for as long as the system's resolver does. */
static int
look_up(struct pc_child *child, struct pc_backend *backend)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int failed = getaddrinfo(backend->place, NULL, &hints, &found);
    (void)pthread_mutex_lock(&child->backends.lock);
    uint32_t count = 0;
    for (struct addrinfo *one = failed != 0 ? NULL : found; one != NULL && count < PC_BACKEND_ADDRESSES; one = one->ai_next) {
        union pc_backend_address *address = &backend->addresses[count];
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

uint64_t
pc_backend_inode(const struct pc_backend *backend)
{
    struct stat facts;
    if (backend->kind != PC_TARGET_SERVICE || stat(backend->place, &facts) != 0)
        return 0;
    return facts.st_ino;
}

void
pc_backend_free_all(struct pc_child *child)
{
    pc_kept_sweep(child, UINT64_MAX);
    for (struct pc_backend *backend = child->backends.first, *next; backend != NULL; backend = next) {
        next = backend->next;
        free(backend->place);
        free((char *)(uintptr_t)backend->name.base);
        free(backend);
    }
    child->backends.first = NULL;
}
