/* backend.h - back ends and services: what a target names. (backend.c)
 * Runs as:  child, as the identity that owns the host: it connects under its own uid, so the kernel says what it may reach.
 * Trusts:   the host's configuration, which alone says where to connect.   Distrusts: -
 * Nothing here waits, but the look-up of a host's name, which is done by a thread that may.
 * Before:   gate_http.c, gate_fcgi.c   After: dial.c */
#ifndef PC_BACKEND_H
#define PC_BACKEND_H

#include <sys/un.h>

#include "gate.h"

#define PC_BACKEND_ADDRESSES 4

enum pc_backend_protocol { PC_BACKEND_FCGI, PC_BACKEND_HTTP };

union pc_backend_address { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; struct sockaddr_un local; };

/* One place to connect to, by one protocol. The child keeps it for its life; gates look at no member. */
struct pc_backend {
    struct pc_backend *next;
    struct pc_child *child;
    uint8_t kind, protocol;
    uint16_t port;
    uint32_t service;
    char *place;                 /* host, or path of the socket; NUL-terminated */
    struct pc_slice name;        /* for people */
    /* with backends.lock */
    union pc_backend_address addresses[PC_BACKEND_ADDRESSES];
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

/* The back end of a target. Returns 0, -PC_E_AGAIN (its name has to be looked up, and this thread may not wait: come again in one
 * that may), -PC_E_NOT_FOUND (nobody knows the name), -PC_E_MEMORY (PC_MAX_BACKENDS), -PC_E_FORMAT (no such service). */
int pc_backend_find(struct pc_child *child, const struct pc_target *target, enum pc_backend_protocol protocol, uint16_t default_port,
                    bool may_block, struct pc_backend **ret_backend);
/* "127.0.0.1:8080 (localhost)", as httpd's lines name it; for logs. */
struct pc_slice pc_backend_name(const struct pc_backend *backend);
/* As many workers of a FastCGI responder are this child's: so many connections may be open for one to be kept. */
void pc_backend_share(struct pc_backend *backend, uint32_t workers);
/* Whether connections to it may be kept for the next request. */
bool pc_backend_is_kept(const struct pc_backend *backend);
bool pc_backend_is_service(const struct pc_backend *backend);
/* Whether it failed less than hold_s ago; then it is left alone. */
bool pc_backend_is_held(struct pc_child *child, const struct pc_backend *backend, uint64_t now_ns, uint32_t hold_s);
/* It could not be connected to, or it could. */
void pc_backend_note(struct pc_child *child, struct pc_backend *backend, uint64_t now_ns, bool has_failed);
/* Which socket a service's path leads to now; 0 = there is none, or no service. Who is started anew, or is to end, takes the path from its
 * predecessor or away: a connection to another inode than this is not kept, so that who serves it is left alone and can end. */
uint64_t pc_backend_inode(const struct pc_backend *backend);
void pc_backend_free_all(struct pc_child *child); /* with what is kept */

static inline socklen_t
pc_backend_address_size(const union pc_backend_address *address)
{
    sa_family_t family = address->any.sa_family;
    return family == AF_INET ? sizeof address->v4 : family == AF_INET6 ? sizeof address->v6 : sizeof address->local;
}

/* So many of its open connections are closed. */
static inline void
pc_backend_discount(struct pc_backend *backend, uint32_t count)
{
    (void)atomic_fetch_sub(&backend->open_count, count);
}

#endif
