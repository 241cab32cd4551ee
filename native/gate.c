/* gate.c - between a client and a program: a body in, an answer out, neither waiting for the other.
 * Runs as:  child, as the identity that owns the host.   Sees: the request's body.
 * Holds:    a bounded part of it; the program's descriptors are its protocol's (gate_cgi.c).
 * Distrusts: the client, which may send slowly, or go; the program, which may not read, not write, or never end: whatever waits
 *            for longer than the host's Timeout is over.
 * Before:   request.c, program.c   After: gate_answer.c, then respond.c */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* POLLRDHUP */
#endif
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "gate.h"
#include "h2.h"
#include "job.h"
#include "serve.h"

#define MS 1000000ull
/* In the access log, of a request whose client left before there was an answer; no client ever sees it. */
#define STATUS_CLIENT_LEFT 499

static const struct pc_gate_ops *const protocols[PC_GATES] = {
    [PC_GATE_CGI] = &pc_gate_cgi,
    [PC_GATE_FCGI] = &pc_gate_fcgi,
    [PC_GATE_HTTP] = &pc_gate_http,
};

static int
set_watch(const struct pc_gate *gate, int operation, int fd, uint32_t events)
{
    uint64_t generation = atomic_load_explicit(&gate->conn->word, memory_order_relaxed) >> 2;
    struct epoll_event event = {
        .events = events | EPOLLET,
        .data.u64 = generation << 32 | PC_TOKEN_GATE | gate->conn->index,
    };
    return epoll_ctl(gate->child->epoll_fd, operation, fd, &event) < 0 ? -PC_E_SYS : 0;
}

int
pc_gate_watch(const struct pc_gate *gate, int fd, uint32_t events)
{
    return set_watch(gate, EPOLL_CTL_ADD, fd, events);
}

int
pc_gate_rewatch(const struct pc_gate *gate, int fd, uint32_t events)
{
    return set_watch(gate, EPOLL_CTL_MOD, fd, events);
}

bool
pc_gate_is_repeatable(const struct pc_gate *gate)
{
    static const uint32_t idempotent = 1u << PC_GET | 1u << PC_HEAD | 1u << PC_OPTIONS;
    return !gate->wants_body && ((idempotent >> pc_serve_method(gate->req)) & 1) != 0;
}

void
pc_gate_drop(struct pc_conn *conn, bool is_cut)
{
    struct pc_gate *gate = conn->gate;
    if (gate == NULL)
        return;
    conn->gate = NULL;
    gate->ops->end(gate, is_cut);
    free(gate->up);
    free(gate->down);
    free(gate);
}

int
pc_gate_say_interim(struct pc_gate *gate)
{
    while (gate->interim.len > 0) {
        ssize_t sent = gate->conn->transport->send(gate->conn, gate->interim.base, gate->interim.len, false);
        if (sent <= 0)
            return sent == 0 ? -PC_E_CLOSED : (int)sent;
        gate->interim.base += sent;
        gate->interim.len -= (size_t)sent;
        gate->interim_sent += (uint32_t)sent;
    }
    gate->interim_sent = 0;
    return 0;
}

/* The client has gone, or broken its request off: nobody is left to answer. */
static enum pc_next
give_up(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    pc_gate_drop(conn, true);
    io->keep = false;
    io->head_out_len = 0;
    io->req.resp.status = STATUS_CLIENT_LEFT;
    pc_respond_abandon(worker, conn);
    pc_conn_close(worker, conn);
    return PC_GONE;
}

/* An error page instead; the program, if there is one, is not waited for. */
static enum pc_next
fail(struct pc_worker *worker, struct pc_conn *conn, uint32_t status)
{
    struct pc_io *io = conn->io;
    if (conn->gate->interim_sent > 0 && pc_gate_say_interim(conn->gate) != 0)
        return give_up(worker, conn); /* a response cannot begin in the middle of another */
    pc_gate_drop(conn, true);
    io->answered_early = io->answered_early || !io->body_done;
    pc_serve_error(&io->req, status);
    return pc_respond_start(worker, conn);
}

/* Most answers come before a client could leave: only who waits for longer than a sweep is put into the epoll set for that, by
 * expire() in conn.c, which runs the next step. Two system calls less for a request on a new connection. */
static bool
is_watched_later(struct pc_conn *conn)
{
    struct pc_gate *gate = conn->gate;
    bool may_be = gate->ops->answers_soon && !gate->has_waited && conn->io->body_done && gate->interim.len == 0;
    gate->has_waited = true;
    return may_be && !conn->in_epoll && !conn->is_stream && !conn->has_unsent;
}

static enum pc_next
await_event(struct pc_worker *worker, struct pc_conn *conn)
{
    bool is_saying = conn->gate->interim.len > 0;
    if (is_watched_later(conn)) {
        uint64_t due_ns = pc_gate_due(conn->gate), look_ns = worker->now_ns + PC_SWEEP_MS * MS;
        pc_conn_deadline(worker->child, conn, look_ns < due_ns ? look_ns : due_ns);
        return PC_WAIT;
    }
    if ((is_saying ? pc_conn_watch : pc_conn_watch_in)(worker->child, conn) != 0)
        return give_up(worker, conn);
    pc_conn_deadline(worker->child, conn, pc_gate_due(conn->gate));
    if (conn->gate->wants_body && !conn->io->body_done)
        pc_transport_acknowledge(conn);
    return PC_WAIT;
}

/* ------------------------------------------------------------------ how long */

/* Whether it is the client that has to do something. */
static bool
awaits_client(const struct pc_gate *gate)
{
    return gate->is_started && gate->wants_body && !gate->is_tunnel && !gate->conn->io->body_done && gate->blocked_ns == 0;
}

uint64_t
pc_gate_due(const struct pc_gate *gate)
{
    const struct pc_host *host = gate->req->host;
    uint64_t silence_ms = gate->timeout_ms > 0 && !awaits_client(gate) ? gate->timeout_ms : host->timeout_ms;
    uint64_t due_ns = gate->progress_ns + silence_ms * MS;
    if (gate->due_ns != 0 && gate->due_ns < due_ns)
        due_ns = gate->due_ns;
    uint64_t body_ns = host->body_ms > 0 && awaits_client(gate) ? pc_request_body_due(gate->conn) : due_ns;
    return body_ns < due_ns ? body_ns : due_ns;
}

enum pc_next
pc_gate_expire(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_gate *gate = conn->gate;
    const struct pc_req *req = gate->req;
    bool is_late = gate->due_ns != 0 && worker->now_ns >= gate->due_ns;
    if (!is_late && awaits_client(gate))
        return fail(worker, conn, 408);
    if (gate->ops->late != NULL)
        return fail(worker, conn, (uint32_t)gate->ops->late(gate));
    pc_errlog_req(req, PC_ERROR, gate->ops->module, "AH01220: Timeout waiting for output from %.*s", (int)req->filename.len,
                  req->filename.base);
    return fail(worker, conn, 504);
}

/* ------------------------------------------------------------------ the client's side */

static ssize_t
hear_client(struct pc_conn *conn, char *buf, size_t room)
{
    if (conn->was_drained && !conn->saw_end && !conn->is_stream) /* a stream tells its end right behind its bytes */
        return -PC_E_AGAIN;
    ssize_t count = conn->transport->recv(conn, buf, room);
    if (count == -PC_E_AGAIN)
        conn->saw_end = false; /* nothing is queued, so no end either; one to come is an event */
    conn->was_drained = count > 0 && (size_t)count < room;
    return count;
}

static void
invite(struct pc_gate *gate)
{
    if (gate->has_invited || gate->conn->phase != PC_PHASE_GATE)
        return;
    gate->has_invited = true;
    if (gate->conn->is_stream) {
        pc_h2_stream_invite(gate->conn);
        return;
    }
    gate->interim = PC_S("HTTP/1.1 100 Continue\r\n\r\n");
    (void)pc_gate_say_interim(gate); /* what does not go out now goes before the next step; what cannot go is seen by receiving */
}

/* A client may end its sending side and still wait for the answer (RFC 9112 9.6), and one that has closed both sides looks just like it
 * until something is sent to it. So something is: an interim response means nothing to the former, and makes the latter's system
 * answer with a reset. */
static bool
has_left(struct pc_gate *gate)
{
    struct pc_conn *conn = gate->conn;
    if (conn->is_stream)
        return pc_h2_stream_is_reset(conn);
    if (!conn->saw_end)
        return false;
    struct pollfd state = {.fd = conn->fd, .events = POLLRDHUP};
    if (poll(&state, 1, 0) <= 0 || (state.revents & (POLLRDHUP | POLLHUP | POLLERR)) == 0) {
        conn->saw_end = false;
        return false;
    }
    if ((state.revents & (POLLHUP | POLLERR)) != 0)
        return true;
    bool may_ask = conn->phase == PC_PHASE_GATE && conn->io->body_done; /* within a response nothing else may be sent */
    if (may_ask && !gate->has_asked_back && conn->io->head->minor == 1 && gate->interim.len == 0) {
        gate->has_asked_back = true;
        gate->interim = PC_S("HTTP/1.1 100 Continue\r\n\r\n");
    }
    return false;
}

/* Body bytes that came along with the head, or behind it while chunks are decoded. -PC_E_BAD, or 0. */
static int
take_buffered(struct pc_gate *gate)
{
    struct pc_io *io = gate->conn->io;
    char *from = io->in + io->in_at + io->head_len;
    size_t held = io->in_len - io->in_at - io->head_len, used = held < PC_GATE_UP_BYTES ? held : PC_GATE_UP_BYTES;
    struct pc_slice data = {0};
    if (io->body_chunked) {
        int step = pc_chunked_decode(&io->chunked, from, used, &data);
        if (step < 0)
            return step;
        used = (size_t)step;
        io->body_done = io->chunked.is_done;
    } else {
        used = used < io->body_left ? used : (size_t)io->body_left;
        data = (struct pc_slice){from, used};
        io->body_left -= used;
        io->body_done = io->body_left == 0;
    }
    if (data.len > 0)
        memcpy(gate->up, data.base, data.len); /* UNSAFE: no more than `used`, which is no more than its room */
    gate->up_len = (uint32_t)data.len;
    io->body_seen += data.len;
    io->body_wire += used;
    memmove(from, from + used, held - used);
    io->in_len -= (uint32_t)used;
    return 0;
}

/* Straight from the socket; chunks are decoded in the connection's buffer, where what follows the body belongs as well. */
static ssize_t
receive_more(struct pc_gate *gate)
{
    struct pc_io *io = gate->conn->io;
    invite(gate);
    if (io->body_chunked && !io->body_raw) {
        ssize_t count = hear_client(gate->conn, io->in + io->in_len, io->in_cap - io->in_len);
        io->in_len += count > 0 ? (uint32_t)count : 0;
        return count;
    }
    size_t room = io->body_left < PC_GATE_UP_BYTES && !io->body_chunked ? (size_t)io->body_left : PC_GATE_UP_BYTES;
    ssize_t count = hear_client(gate->conn, gate->up, room);
    if (count > 0) {
        gate->up_len = (uint32_t)count;
        io->body_seen += (uint64_t)count;
        io->body_wire += (uint64_t)count;
        io->body_left -= io->body_chunked ? 0 : (uint64_t)count;
        io->body_done = !io->body_chunked && io->body_left == 0;
    }
    return count;
}

/* Returns 1 there are bytes in `up`, 0 the body is complete, -PC_E_AGAIN, -PC_E_CLOSED, -PC_E_BAD, -PC_E_BODY_LARGE. */
static int
fill_up(struct pc_gate *gate)
{
    struct pc_io *io = gate->conn->io;
    gate->up_at = gate->up_len = 0;
    while (gate->up_len == 0 && !io->body_done) {
        if (io->in_len > io->in_at + io->head_len) {
            int taken = take_buffered(gate);
            if (taken < 0)
                return taken;
        } else {
            ssize_t count = receive_more(gate);
            if (count == 0 && (gate->is_tunnel || (io->body_raw && io->body_chunked)))
                io->body_done = true; /* the client has said all it wanted to say; the other side may go on */
            else if (count <= 0)
                return count == 0 ? -PC_E_CLOSED : (int)count;
        }
        if (gate->body_limit > 0 && io->body_seen > gate->body_limit)
            return -PC_E_BODY_LARGE;
    }
    return gate->up_len > 0 ? 1 : 0;
}

/* ------------------------------------------------------------------ both sides */

/* What the program does not take is not the client's fault: its time for sending stands still. */
static void
note_blocked(struct pc_gate *gate, uint64_t now_ns, bool is_blocked)
{
    if (gate->blocked_ns != 0 && !is_blocked)
        gate->conn->io->body_start_ns += now_ns - gate->blocked_ns;
    if (!is_blocked)
        gate->blocked_ns = 0;
    else if (gate->blocked_ns == 0)
        gate->blocked_ns = now_ns;
}

/* Give the program what lies in `up`. False: it does not take it now. */
static bool
pass_on(struct pc_gate *gate)
{
    ssize_t count = gate->discards ? -PC_E_CLOSED : gate->ops->send(gate, gate->up + gate->up_at, gate->up_len - gate->up_at);
    if (count == -PC_E_AGAIN)
        return false;
    gate->discards = count < 0;
    gate->up_at = count < 0 ? gate->up_len : gate->up_at + (uint32_t)count;
    return true;
}

/* Move the body as far as it goes. 1 something moved, 0 nothing, <0 as fill_up. */
static int
move_up(struct pc_worker *worker, struct pc_gate *gate)
{
    uint64_t before = gate->conn->io->body_seen;
    bool has_moved = false, is_blocked = false;
    while (gate->wants_body && !gate->has_sent_end && !is_blocked) {
        int filled = gate->up_at < gate->up_len ? 1 : fill_up(gate);
        if (filled == -PC_E_AGAIN)
            break;
        if (filled < 0)
            return filled;
        if (filled == 0) {
            gate->has_sent_end = gate->discards || gate->ops->send_end(gate) == 0;
            is_blocked = !gate->has_sent_end;
            continue;
        }
        is_blocked = !pass_on(gate);
        has_moved = has_moved || !is_blocked;
        if (gate->conn->io->body_seen - before >= PC_GATE_TURN_BYTES) { /* others have waited long enough */
            (void)pc_conn_requeue(gate->child, gate->conn); /* fails only if the socket is gone: the deadline ends it */
            break;
        }
    }
    note_blocked(gate, worker->now_ns, is_blocked);
    if (has_moved || gate->conn->io->body_seen > before)
        gate->progress_ns = worker->now_ns;
    return has_moved;
}

int
pc_gate_pump(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_gate *gate = conn->gate;
    if (has_left(gate))
        return -PC_E_CLOSED;
    if (gate->ops->listen != NULL && gate->ops->listen(gate))
        (void)pc_conn_requeue(gate->child, conn); /* as above */
    int moved = move_up(worker, gate);
    if (moved == -PC_E_BAD || moved == -PC_E_BODY_LARGE) {
        /* Too late to say so: the program must not take what came for all of it, and nothing behind it can be understood. */
        pc_errlog_req(gate->req, PC_ERROR, gate->ops->module, "the request's body broke off behind the head of the answer: %s",
                      moved == -PC_E_BAD ? "malformed chunk" : "larger than LimitRequestBody");
        return moved;
    }
    return moved;
}

/* ------------------------------------------------------------------ PC_PHASE_GATE */

enum pc_next
pc_gate_begin(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    struct pc_req *req = &io->req;
    if (req->gate >= PC_GATES || protocols[req->gate] == NULL)
        pc_bug("a gate of no protocol");
    struct pc_gate *gate = calloc(1, protocols[req->gate]->size);
    if (gate == NULL)
        pc_die(111, "out of memory");
    gate->ops = protocols[req->gate];
    gate->child = worker->child;
    gate->conn = conn;
    gate->req = req;
    gate->progress_ns = worker->now_ns;
    gate->broken_status = 502;
    gate->body_limit = pc_serve_body_limit(req);
    gate->wants_body = !io->body_done && !req->is_without_body && req->error_status == 0;
    bool has_part = io->in_len > io->in_at + io->head_len;
    gate->has_invited = !io->head->expects_continue || has_part;
    if (!io->body_done && !gate->wants_body) /* an error document: the body was for what it stands for */
        io->answered_early = true;
    if (gate->wants_body && (gate->up = malloc(PC_GATE_UP_BYTES)) == NULL)
        pc_die(111, "out of memory");
    io->body_start_ns = worker->now_ns;
    conn->gate = gate;
    conn->phase = PC_PHASE_GATE;
    return PC_GO;
}

/* False: *ret_next says what becomes of the connection. */
static bool
start(struct pc_worker *worker, struct pc_conn *conn, enum pc_next *ret_next)
{
    struct pc_gate *gate = conn->gate;
    int started = gate->ops->start(worker, conn);
    if (started == 0) {
        gate->is_started = true;
        gate->progress_ns = worker->now_ns;
        return true;
    }
    if (started == -PC_E_AGAIN) {
        gate->waiting_ns = gate->waiting_ns != 0 ? gate->waiting_ns : worker->now_ns;
        bool may_wait = worker->now_ns < gate->waiting_ns + PC_WAITING_MS * MS; /* which another thread may have set, a little later */
        if (may_wait && pc_job_wait(worker, conn)) {
            *ret_next = PC_GONE; /* in job.c's list until it is tried again */
            return false;
        }
        pc_errlog_req(gate->req, PC_ERROR, gate->ops->module, "%s: %.*s", gate->ops->busy, (int)gate->req->filename.len,
                      gate->req->filename.base);
        started = 503;
    }
    if (started == -PC_E_SYS) {
        conn->asks = false;
        *ret_next = PC_JOB;
        return false;
    }
    *ret_next = fail(worker, conn, (uint32_t)started);
    return false;
}

enum pc_next
pc_gate_step(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_gate *gate = conn->gate;
    enum pc_next next;
    if (!gate->is_started && !start(worker, conn, &next))
        return next;
    int said = has_left(gate) ? -PC_E_CLOSED : pc_gate_say_interim(gate);
    if (said < 0 && said != -PC_E_AGAIN)
        return give_up(worker, conn);
    int moved = move_up(worker, gate);
    if (moved == -PC_E_BAD || moved == -PC_E_BODY_LARGE)
        return fail(worker, conn, pc_error_status(moved));
    if (moved < 0)
        return give_up(worker, conn);
    if (gate->ops->listen != NULL && gate->ops->listen(gate))
        (void)pc_conn_requeue(gate->child, conn); /* fails only if the socket is gone: the deadline ends it */
    int status = pc_gate_hear_head(worker, gate);
    if (status == -PC_E_AGAIN)
        return await_event(worker, conn);
    if (status == 0 && gate->interim_sent > 0 && pc_gate_say_interim(gate) != 0)
        return await_event(worker, conn); /* a response cannot begin in the middle of another */
    gate->interim.len = 0;
    if (status == 0)
        status = pc_gate_answer(gate);
    if (status < 0) { /* an internal redirect */
        pc_gate_drop(conn, false);
        conn->phase = PC_PHASE_SERVE;
        return PC_GO;
    }
    return status > 0 ? fail(worker, conn, (uint32_t)status) : pc_respond_start(worker, conn);
}
