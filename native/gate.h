/* gate.h - a gate: the child's side of one program or back end that answers one request.
 * Runs as:  child, as the identity that owns the host.   Sees: a request's body, and what the program answers.
 * A gate belongs to its connection, which has one at most; whoever owns the connection owns it. Its descriptors are non-blocking
 * and in the epoll set, edge-triggered, with tokens that carry the connection's place: any event runs the connection's step, which
 * goes on in both directions until neither can. No thread waits for a program.
 * Before:   request.c, program.c   After: respond.c (a producer), gate_cgi.c and other protocols (pc_gate_ops) */
#ifndef PC_GATE_H
#define PC_GATE_H

#include "child.h"
#include "gateway.h"

struct pc_gate;

/* One protocol. All of these are called by the connection's owner and never wait. */
struct pc_gate_ops {
    const char *module; /* of lines in the error log: "cgi" */
    size_t size;        /* of the protocol's struct, whose first member is struct pc_gate; zeroed */
    bool answers_soon;  /* mostly: it is nothing to start a process for */
    /* The program shall begin. 0 (it may still be connecting: then send, recv and send_end say -PC_E_AGAIN); -PC_E_AGAIN: not now, call
     * it again in a moment; -PC_E_SYS: call it again in a thread that may wait (worker->may_block); above 0: the status to answer with,
     * which was said in the error log. */
    int (*start)(struct pc_worker *worker, struct pc_conn *conn);
    /* Bytes of the request's body, as the client's framing has released them: >0 so many were taken; -PC_E_AGAIN: an event will
     * come; -PC_E_CLOSED: it takes no more. */
    ssize_t (*send)(struct pc_gate *gate, const char *buf, size_t len);
    int (*send_end)(struct pc_gate *gate); /* the body is complete: 0 or -PC_E_AGAIN; called once, then again until it is 0 */
    /* Bytes of the answer, its head first: >0, 0 = its end, -PC_E_AGAIN: an event will come, other errors: broken off. With
     * gate->failed_status set before the head is whole: that is the answer, and was said in the error log. */
    ssize_t (*recv)(struct pc_gate *gate, char *buf, size_t cap);
    /* The head of the answer, as pc_reply_parse_*. */
    int (*parse)(struct pc_gate *gate, struct pc_reply *reply, const char *buf, size_t len);
    /* What the program says besides; NULL = it cannot. Takes a bounded amount; true: there is more. */
    bool (*listen)(struct pc_gate *gate);
    /* It was silent for too long before its head was whole: said in the error log; the status to answer with. NULL = AH01220, 504. */
    int (*late)(struct pc_gate *gate);
    /* The response has the answer's status and fields: change them. 0, or the status to answer with instead, said as above. NULL. */
    int (*dress)(struct pc_gate *gate);
    const char *busy; /* what start's -PC_E_AGAIN has waited for in vain, for the error log */
    /* Let go of everything. is_cut: nobody waits for the answer any more, the program shall end. */
    void (*end)(struct pc_gate *gate, bool is_cut);
};

struct pc_gate {
    const struct pc_gate_ops *ops;
    struct pc_child *child;
    struct pc_conn *conn;
    struct pc_req *req;
    uint64_t progress_ns;     /* when bytes last moved in either direction */
    uint64_t waiting_ns;      /* since when start says -PC_E_AGAIN; 0 = it does not */
    const void *full;         /* what it waits for: NULL the job box, else the back end whose queue is full; only compared */
    bool is_started;
    bool has_waited;          /* for an event, once at least */
    uint64_t timeout_ms;      /* of silence; 0 = the host's Timeout */
    uint64_t due_ns;          /* at which it is late in any case; 0 = never. The protocol's, as is the next one */
    uint32_t failed_status;   /* see recv */
    uint32_t broken_status;   /* what an answer is that breaks the rules, or ends too early: 500 for programs, 502 for back ends */
    /* the request's body */
    bool wants_body;          /* else it has none, or none of it is the program's */
    bool has_sent_end;
    bool discards;            /* the program takes no more: what the client still sends is thrown away */
    bool has_invited;         /* 100 Continue was said, or need not be */
    uint64_t body_limit;      /* LimitRequestBody; 0 = none */
    uint64_t blocked_ns;      /* since when it does not take what there is; 0 = it does */
    bool has_asked_back;      /* whether a client that has ended its sending side is still there */
    struct pc_slice interim;  /* of an interim response, not sent yet */
    uint32_t interim_sent;
    char *up;                 /* PC_GATE_UP_BYTES, NULL = no body */
    uint32_t up_at, up_len;
    /* the answer */
    char *down;
    uint32_t down_at, down_len, down_cap;
    struct pc_reply *reply;   /* in the request's arena */
    const char *head;         /* the same: base of its spans once it is the response's, for `down` is the body's then */
    uint32_t head_len;        /* 0 = the head is not whole yet */
    uint32_t interim_heads;   /* of the program, in front of it */
    bool has_ended;           /* the program has closed its output */
    bool is_broken;           /* it ended before what it had promised, and that was said */
    bool has_heard;           /* bytes of it came since the last look */
    bool is_framed;           /* the protocol's: its answers end by themselves, and are passed on as they are, not made conditional */
    bool is_tunnel;           /* bytes both ways until both sides have ended, or are silent for too long */
    bool closes;              /* the connection ends behind the answer, whatever it says */
    bool is_over;             /* as many bytes as it promised are through */
    bool is_chunked, has_left, keeps_quiet /* what it sends is read and thrown away */;
    bool takes_trailers;      /* the protocol's: those of a chunked answer are passed on */
    uint32_t trailer_len;     /* of their section, at the beginning of `down` */
    uint64_t left_bytes, quiet_bytes;
    struct pc_chunked chunked;
};

extern const struct pc_gate_ops pc_gate_cgi, pc_gate_fcgi, pc_gate_http;

/* ------------------------------------------------------------------ for request.c, loop.c, conn.c, respond.c */

/* pc_serve said PC_SERVE_GATE: make the gate that req->gate names, and go to PC_PHASE_GATE. */
enum pc_next pc_gate_begin(struct pc_worker *worker, struct pc_conn *conn);
/* PC_PHASE_GATE: the body goes to the program, until the head of its answer is here. */
enum pc_next pc_gate_step(struct pc_worker *worker, struct pc_conn *conn);
/* PC_PHASE_SEND, before bytes are sent: the other direction. Returns 1 something moved, 0 nothing, <0 the client broke its request
 * off: nothing more can be answered. */
int pc_gate_pump(struct pc_worker *worker, struct pc_conn *conn);
/* Whether the request may safely be sent twice: once on a kept connection that ends at this moment, and once more. */
bool pc_gate_is_repeatable(const struct pc_gate *gate);
/* When the connection has waited long enough, ns; for pc_conn_deadline. */
uint64_t pc_gate_due(const struct pc_gate *gate);
enum pc_next pc_gate_expire(struct pc_worker *worker, struct pc_conn *conn); /* in PC_PHASE_GATE */
/* The connection closes, or its answer is through. is_cut as in struct pc_gate_ops. */
void pc_gate_drop(struct pc_conn *conn, bool is_cut);
/* Send what there is of an interim response. 0 or -PC_E_*. */
int pc_gate_say_interim(struct pc_gate *gate);

/* ------------------------------------------------------------------ gate_answer.c */

/* Read the head of the answer. 0 it is here, -PC_E_AGAIN, or the status to answer with. */
int pc_gate_hear_head(struct pc_worker *worker, struct pc_gate *gate);
/* Make it the request's response, whose producer is the gate. 0, the status to answer with instead, or <0: the request has become
 * one for another path and is served again. */
int pc_gate_answer(struct pc_gate *gate);

/* ------------------------------------------------------------------ for protocols */

/* Take a descriptor into the epoll set for this gate's connection. Returns 0 or -PC_E_SYS. It leaves the set when it is closed:
 * nobody else ever holds our end of a pipe or a connection that we made. */
int pc_gate_watch(const struct pc_gate *gate, int fd, uint32_t events);
/* spool.c: the whole body of a request, for who must be told its length first. put and take return 0 or bytes taken, or -PC_E_SYS with
 * errno; it never waits for anything but a file. take goes from the first byte to the last; 0 = its end. */
struct pc_spool;
struct pc_spool *pc_spool_new(void); /* never NULL */
int pc_spool_put(struct pc_spool *spool, const char *buf, size_t len);
ssize_t pc_spool_take(struct pc_spool *spool, char *buf, size_t cap);
uint64_t pc_spool_len(const struct pc_spool *spool);
void pc_spool_free(struct pc_spool *spool); /* also NULL */
/* One that is watched already, for this gate or an earlier one; what it is ready for now is an event again. */
int pc_gate_rewatch(const struct pc_gate *gate, int fd, uint32_t events);

#endif
