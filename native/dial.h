/* dial.h - one connection to a back end, of one gate, and the waking of a service that sleeps. (dial.c)
 * Runs as:  child, as the identity that owns the host.   Trusts: the host's configuration.   Distrusts: what answers there.
 * Before:   gate_http.c, gate_fcgi.c   After: job.c (WAKE) */
#ifndef PC_DIAL_H
#define PC_DIAL_H

#include "backend.h"

#define PC_WAKE_MS 30000 /* for a service to start, whatever its requests' timeouts are: perchild/runner/services.py READY_S */

enum pc_dial_state { PC_DIAL_NONE, PC_DIAL_CONNECTING, PC_DIAL_WAKING, PC_DIAL_OPEN, PC_DIAL_FAILED };

struct pc_dial {
    struct pc_backend *backend; /* NULL = never begun */
    int fd;                     /* the connection; its own once OPEN, -1 = none */
    int wake_fd;                /* the runner's answer; -1 = none is awaited */
    uint8_t state;              /* enum pc_dial_state */
    uint8_t address;            /* which of the back end's addresses is tried */
    bool is_kept;               /* was kept from an earlier request: it may break before a byte of the answer came */
    bool watches_out;           /* an event comes when it can be written to */
    bool is_counted;            /* among the back end's open ones */
    uint8_t wakes;              /* how often a runner was asked to start it */
    uint64_t inode;             /* of the service's socket that it is connected to; 0 = no service */
    bool is_queue_full;         /* what -PC_E_MEMORY said: the socket's queue, else the job box */
    int error;                  /* FAILED: errno, or 0 */
    /* While nobody may have read its request: owned by the child's list, with backends.lock. */
    bool is_listed;             /* its owner's, as the next */
    bool must_list;             /* as soon as there is something to read on it */
    struct pc_dial *next, **link;
    uint64_t knock_ns;          /* when it is looked at again; 0 = its request is being read */
    uint32_t knock_ms;          /* how long it waits from then on */
    uint32_t heard;
    char answer[256];           /* the runner's line; FAILED: why, for people */
};

/* Zeroed, then backend set; ended before it is begun again. Begin: a kept connection (unless is_fresh), or a new one. Returns 0 open;
 * -PC_E_AGAIN an event will come, then pc_dial_step; -PC_E_MEMORY what it asks is full now (job box, or the socket's queue): call this again in a moment; -PC_E_CLOSED
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
