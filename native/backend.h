/* backend.h - back ends and services: what a target names, connections to it, and the waking of a service that sleeps.
 * Runs as:  child, as the identity that owns the host: it connects under its own uid, so the kernel says what it may reach.
 * Trusts:   the host's configuration, which alone says where to connect.   Distrusts: what answers there.
 * Nothing here waits, but the look-up of a host's name, which is done by a thread that may.
 * Before:   gate_http.c, gate_fcgi.c   After: job.c (WAKE) */
#ifndef PC_BACKEND_H
#define PC_BACKEND_H

#include "gate.h"

#define PC_WAKE_MS 30000 /* for a service to start, whatever its requests' timeouts are: perchild/runner/services.py READY_S */

/* ------------------------------------------------------------------ back ends of a child */

/* One place to connect to, by one protocol. The child keeps it for its life; the rest is backend.c's. */
struct pc_backend;

enum pc_backend_protocol { PC_BACKEND_FCGI, PC_BACKEND_HTTP };

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
/* Close kept connections that have been idle for too long; everything when now_ns is UINT64_MAX. */
void pc_backend_sweep(struct pc_child *child, uint64_t now_ns);
/* See to it that pools whose php-fpm has overlooked a connection look again: called every PC_KNOCK_MS while there may be some. */
void pc_backend_knock(struct pc_child *child, uint64_t now_ns);
void pc_backend_free_all(struct pc_child *child);

/* ------------------------------------------------------------------ one connection, of one gate */

enum pc_dial_state { PC_DIAL_NONE, PC_DIAL_CONNECTING, PC_DIAL_WAKING, PC_DIAL_OPEN, PC_DIAL_FAILED };

struct pc_dial {
    struct pc_backend *backend; /* NULL = never begun */
    int fd;                     /* the connection; its own once OPEN, -1 = none */
    int wake_fd;                /* the runner's answer; -1 = none is awaited */
    uint8_t state;              /* enum pc_dial_state */
    uint8_t address;            /* which of the back end's addresses is tried */
    bool is_kept;               /* was kept from an earlier request: it may break before a byte of the answer came */
    bool watches_out; /* an event comes when it can be written to */
    bool is_counted; /* among the back end's open ones */
    uint8_t wakes;              /* how often a runner was asked to start it */
    uint64_t inode;             /* of the service's socket that it is connected to; 0 = no service */
    bool is_queue_full;         /* what -PC_E_MEMORY said: the socket's queue, else the job box */
    int error;                  /* FAILED: errno, or 0 */
    /* While nobody may have read its request: owned by the child's list, with backends.lock. */
    bool is_listed;             /* its owner's */
    struct pc_dial *next, **link;
    uint64_t knock_ns;          /* when it is looked at again; 0 = its request is being read */
    uint32_t knock_ms;          /* how long it waits from then on */
    uint32_t heard;
    char answer[256];           /* the runner's line; FAILED: why, for people */
};

/* Zeroed, then backend set; ended before it is begun again. Begin: a kept connection (unless is_fresh), or a new one. Returns 0 open; -PC_E_AGAIN an event will come,
 * then pc_dial_step; -PC_E_MEMORY what it asks is full now (job box, or the socket's queue): call this again in a moment; -PC_E_CLOSED
 * failed, and pc_dial_why says why. */
int pc_dial_begin(struct pc_dial *dial, const struct pc_gate *gate, bool is_fresh);
int pc_dial_step(struct pc_dial *dial, const struct pc_gate *gate); /* 0, -PC_E_AGAIN, -PC_E_CLOSED */
const char *pc_dial_why(const struct pc_dial *dial);
bool pc_dial_lacks_own(const struct pc_dial *dial); /* FAILED for want of descriptors or memory: the back end has no part in that */
/* As send and recv: bytes, 0 = end (recv), -PC_E_AGAIN, -PC_E_CLOSED. Only when OPEN. */
ssize_t pc_dial_send(struct pc_dial *dial, const struct pc_gate *gate, const char *buf, size_t len);
ssize_t pc_dial_recv(struct pc_dial *dial, char *buf, size_t cap);
/* Its answer is through, and the next request may use the connection; or close it. Either leaves it NONE. */
void pc_dial_keep(struct pc_dial *dial, struct pc_gate *gate);
void pc_dial_end(struct pc_dial *dial);

#endif
