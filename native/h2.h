/* h2.h - HTTP/2: a session on a connection, its streams, and the few places where a stream differs from a connection of HTTP/1.1.
 * Runs as:  child, as the identity that owns the host; h2peek.c in whoever listens.
 *
 * A stream is a struct pc_conn of its own, without a socket: its transport (h2stream.c) reads the request's body from the session and
 * gives it the response. Everything between (request.c, serve.c, gate.c, respond.c) does for it what it does for HTTP/1.1, on any
 * thread, for as long as it takes; other streams do not wait for it.
 *
 * Who owns what: the nghttp2 session, and all of struct pc_h2 that is not said to be under `lock`, belong to the owner of the session's
 * connection; a stream's connection to its own owner. Between them are the members under `lock`, which is held for moments, never while
 * anything waits. Each wakes the other by its epoll token (pc_conn_claim): an owner who is at work looks again.
 * Before:   request.c (preface), tls.c (ALPN)   After: request.c (a stream's head) */
#ifndef PC_H2_H
#define PC_H2_H

#include <stdlib.h>

#include "child.h"

/* ------------------------------------------------------------------ h2head.c: pure */

struct pc_h2text {
    char *base; /* malloc'ed */
    uint32_t len, cap;
};

struct pc_h2head {
    struct pc_h2text text, cookie, host; /* values of pseudo-fields, then lines; the two that are gathered apart */
    struct pc_span method, scheme, authority, path, protocol;
    bool has_fields, has_host;
    uint32_t lines_at, field_count, max_fields;
    size_t decoded_bytes;
    int error; /* 0 or the first -PC_E_* */
};

/* One decoded field, in its order; zeroed at first but for max_fields. Behind an error the rest is only counted. */
void pc_h2head_field(struct pc_h2head *head, struct pc_slice name, struct pc_slice value);
/* All of them are there: the text of an HTTP/1.1 head, malloc'ed, or -PC_E_BAD, -PC_E_HEAD_LARGE. */
int pc_h2head_finish(struct pc_h2head *head, struct pc_slice websocket_key, struct pc_slice *ret_text);
void pc_h2head_free(struct pc_h2head *head);

/* ------------------------------------------------------------------ h2peek.c: pure */

#define PC_H2_NAME_BYTES (PC_MAX_HOST_BYTES + 8) /* with a port */

/* Whether bytes are HTTP/2's preface: its length, 0 may become it, -PC_E_BAD. len > 0. */
int pc_h2_check_preface(const char *buf, size_t len);
/* The name that the first request is for, as pc_h1_peek_name; ret_name points into `bytes`. */
int pc_h2_peek_name(const char *buf, size_t len, char bytes[2 * PC_H2_NAME_BYTES], struct pc_slice *ret_name);

/* ------------------------------------------------------------------ a session and its streams */

struct nghttp2_session;

struct pc_h2_stream {
    struct pc_h2 *h2;
    int32_t id;           /* this and the next two are set before the connection begins */
    bool is_tunnel;       /* asked for by CONNECT (RFC 8441) */
    int error;            /* why the head was refused, -PC_E_*; 0 = it was not */
    /* the session's owner's */
    struct pc_h2_stream *next;
    uint32_t text_bytes;  /* what its head counts towards PC_H2_HEADS_BYTES */
    bool is_routed, is_received; /* as pc_conn's: it is the first */
    bool is_begun;        /* its request is in work, or was, or is queued */
    bool is_queued;       /* it waits in h2->queue, until the client takes what it has asked for before */
    struct pc_h2_stream *next_queued;
    char *text;           /* queued: its head, malloc'ed, of text_bytes */
    bool is_closed;       /* nghttp2 knows it no more */
    bool has_submitted, is_deferred;
    uint64_t progress_ns; /* when bytes of its response last went out */
    /* under h2->lock */
    struct pc_h2_stream *next_news;
    uint32_t refs;        /* the session, and its connection */
    bool has_conn;        /* which has not ended */
    uint64_t token;       /* of it */
    bool has_news;        /* in h2->news */
    bool is_reset;        /* nothing comes and nothing goes any more */
    bool in_ended, waits_in, waits_out;
    bool is_fresh;        /* begun, and not let go of since */
    char *in;             /* the request's body */
    uint32_t in_at, in_len, in_cap, consumed;
    struct pc_h2_fields *interim; /* of 1xx answers, in their order, until they are submitted */
    uint32_t interim_bytes;
    struct pc_h2_fields *fields; /* of the response, likewise */
    struct pc_h2_fields *trailers; /* and those behind its body; there before out_ended says so */
    bool wants_continue, out_ended, wants_reset;
    bool is_broken;       /* no more of the response comes, and it is not whole: a reset follows what there is */
    uint32_t reset_code;
    char *out;            /* the response's body. Behind out_at + out_len it is the connection's owner's, while it */
    bool is_filling;      /* writes there */
    uint32_t out_at, out_len, out_cap;
};

/* Fields of a response, or its trailers (status 0), packed: lengths of name and value, then their bytes. */
struct pc_h2_fields {
    struct pc_h2_fields *next; /* of interim answers */
    uint32_t status, count, len;
    char bytes[];
};

struct pc_h2 {
    struct pc_child *child;
    uint64_t token; /* of the session's connection */
    _Atomic bool has_news; /* somebody wants the session to look at h2->news */
    _Atomic uint64_t routed_name; /* as pc_conn's, for all streams */
    /* the session's owner's */
    struct nghttp2_session *session;
    struct pc_worker *worker; /* who runs the step */
    struct pc_conn *conn;
    struct pc_h2_stream *streams;
    uint32_t stream_count, requests;
    uint32_t heads_bytes;
    char *fill;             /* where frames are gathered: worker->out */
    size_t fill_len;
    char *out;              /* what the socket did not take; malloc'ed */
    size_t out_at, out_len;
    uint64_t progress_ns;   /* when the socket last took bytes */
    bool was_full;          /* when it was last waited for, with bytes that it did not take */
    uint64_t room_ns;       /* when it was first not so again; 0 = it was not */
    uint64_t sent_bytes, earned_bytes; /* that it took; and of them, those that the client's side has acknowledged, when it was last looked at */
    uint64_t earned_ns;     /* when they became more */
    struct pc_h2_stream *queue, *queue_tail; /* requests that wait */
    uint64_t idle_ns;       /* since when there is no stream; 0 = there is one */
    uint64_t block_ns;      /* since when a field block is open; 0 = none is */
    uint64_t shed_ns;       /* when idle connections were last closed for a stream of this one */
    uint64_t notice_ns;     /* when the first of two GOAWAYs went out; 0 = not yet */
    bool has_goaway, is_calmed;
    uint32_t block_bytes, block_frames;
    struct pc_h2head head;  /* the field block that comes: there is but one at a time (RFC 9113 4.3) */
    uint8_t frame_head[9], frame_have; /* of the frame that comes: as much of its head as is here */
    uint32_t frame_left;    /* of its payload */
    int64_t patience;
    uint64_t patience_ns, patience_bytes;
    /* under lock */
    pthread_mutex_t lock;
    uint32_t refs;
    bool is_over;
    uint32_t conn_count;    /* streams' connections */
    uint32_t in_total, out_total;
    uint32_t out_budget;    /* out_total above which streams get little */
    uint32_t stalled;       /* streams that wait for room for their responses, or have not shown yet whether they will */
    bool wants_room;        /* a request waits until there are less of them */
    uint32_t owed;          /* of the session's window: taken by bytes that nobody has read yet */
    struct pc_h2_stream *news;
};

/* ------------------------------------------------------------------ h2.c, for request.c, loop.c, conn.c, tls.c */

/* The connection speaks HTTP/2 from here on: its phase is PC_PHASE_H2. What lies in its io is read first. */
enum pc_next pc_h2_begin(struct pc_worker *worker, struct pc_conn *conn);
enum pc_next pc_h2_step(struct pc_worker *worker, struct pc_conn *conn);
/* Its deadline is here. PC_GO: the step says what comes next. */
enum pc_next pc_h2_expire(struct pc_worker *worker, struct pc_conn *conn);
/* The connection ends: its streams are cut off. Without a worker (the child ends) nobody is told. */
void pc_h2_close(struct pc_worker *worker, struct pc_conn *conn);

/* ------------------------------------------------------------------ h2in.c, h2out.c: between these files; all of the session's owner */

struct nghttp2_session_callbacks;

/* Whose limits and times hold for the session. */
static inline const struct pc_host *
pc_h2_host(const struct pc_h2 *h2)
{
    return h2->conn->host != NULL ? h2->conn->host : &h2->child->fallback_host;
}
/* The socket did not take everything. */
static inline bool
pc_h2_has_rest(const struct pc_h2 *h2)
{
    return h2->out_len > 0 || h2->conn->has_unsent;
}
/* Whether it waits for room for its response; called with the lock held. */
static inline void
pc_h2_wait_out(struct pc_h2_stream *stream, bool waits)
{
    stream->h2->stalled += (uint32_t)waits - (uint32_t)(stream->waits_out || stream->is_fresh);
    stream->waits_out = waits;
    if (stream->is_fresh) /* its connection's owner reads it without the lock */
        stream->is_fresh = false;
}
/* Nothing of it is left, and nobody writes there: a stream may be silent for long. */
static inline void
pc_h2_drop_out(struct pc_h2_stream *stream)
{
    free(stream->out);
    stream->out = NULL;
    stream->out_at = stream->out_cap = 0;
}
void pc_h2_free_fields(struct pc_h2_fields *fields); /* and those behind them */
struct pc_h2_stream *pc_h2_find(const struct pc_h2 *h2, int32_t id); /* NULL: none of ours, or over */
void pc_h2_charge(struct pc_h2 *h2, int64_t cost); /* what leads to nothing; too much of it ends the session */
void pc_h2_refuse(struct pc_h2 *h2, struct pc_h2_stream *stream, uint32_t code); /* RST_STREAM */
/* The session lets go of a stream and tells its connection. Called with h2->lock held, which is let go of. */
void pc_h2_cut(struct pc_h2 *h2, struct pc_h2_stream *stream);
int pc_h2_feed(struct pc_h2 *h2, const char *bytes, size_t len); /* 0 or -PC_E_BAD: nothing more can be read */
void pc_h2_admit(struct pc_h2 *h2); /* requests that wait are begun, as many as may be now; they run behind the session's step */
bool pc_h2_may_admit(struct pc_h2 *h2); /* it would begin one */
void pc_h2_unqueue(struct pc_h2 *h2, struct pc_h2_stream *stream); /* it is over */
void pc_h2_take_news(struct pc_h2 *h2); /* what streams have given, to nghttp2 */
int pc_h2_flush(struct pc_h2 *h2);      /* frames to the socket: 0 everything is out, -PC_E_AGAIN, -PC_E_CLOSED */
void pc_h2_set_hearing(struct nghttp2_session_callbacks *callbacks);
void pc_h2_set_saying(struct nghttp2_session_callbacks *callbacks);

/* ------------------------------------------------------------------ h2stream.c */

extern const struct pc_transport pc_transport_h2;

/* A connection for the request whose head is `text` (malloc'ed, given away), or was refused with stream->error. False: there is no room. */
bool pc_h2_stream_begin(struct pc_worker *worker, struct pc_conn *session, struct pc_h2_stream *stream, struct pc_slice text);
/* Of a stream's connection: */
bool pc_h2_stream_is_reset(const struct pc_conn *conn); /* nobody waits for it any more */
void pc_h2_stream_version(struct pc_io *io);            /* its line is parsed, though it may be refused: it says HTTP/2.0 */
void pc_h2_stream_frame(struct pc_conn *conn);          /* its head is parsed: how its body ends */
void pc_h2_stream_invite(struct pc_conn *conn);         /* 100 Continue */
void pc_h2_stream_interim(struct pc_conn *conn, uint32_t status, const struct pc_pair *fields, uint32_t count); /* 103 and the like */
void pc_h2_stream_head(struct pc_worker *worker, struct pc_conn *conn); /* the response's fields, instead of text */
void pc_h2_stream_trailers(struct pc_conn *conn);       /* the response's, before it is */
void pc_h2_stream_done(struct pc_conn *conn);           /* the response is whole */
void pc_h2_stream_reset(struct pc_conn *conn, uint32_t code); /* no response: RST_STREAM */
void pc_h2_stream_end(struct pc_worker *worker, struct pc_conn *conn); /* pc_conn_close */
/* What has been given is for the session to see, before the connection is let go of. */
void pc_h2_stream_tell(struct pc_worker *worker, struct pc_conn *conn);
/* Both sides let go of it so; the last one frees it. Called with h2->lock held, which is let go of. */
void pc_h2_stream_drop(struct pc_h2_stream *stream);
void pc_h2_drop(struct pc_h2 *h2); /* the same for a session */

#endif
