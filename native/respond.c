/* respond.c - put a response on the wire: head, body from memory, file or producer; then log, and keep or end.
 * Runs as:  child, as the identity that owns the host.   Sees: nothing new of the client.
 * Holds:    the open file of the response.
 * Distrusts: the file, which its owner may truncate meanwhile (never mapped; lengths checked as bytes are read), and the
 *            client, which may read slowly or not at all (the host's Timeout).
 * Before:   serve.c   After: log.c, then request.c (kept) or conn.c (ended) */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gate.h"
#include "h2.h"

#define MS 1000000ull
#define HEAD_ROOM 512 /* what respond.c itself writes into a head, Server field apart */
#define CHUNK_ROOM 20
#define LINGER_READS 16

/* ------------------------------------------------------------------ the head */

struct writer {
    char *at;
};

static void
put(struct writer *out, struct pc_slice s)
{
    memcpy(out->at, s.base, s.len); /* UNSAFE: head_size counted every byte before the buffer was chosen */
    out->at += s.len;
}

static void
put_field(struct writer *out, struct pc_slice name, struct pc_slice value)
{
    put(out, name);
    put(out, PC_S(": "));
    put(out, value);
    put(out, PC_S("\r\n"));
}

static size_t
head_size(const struct pc_req *req)
{
    size_t size = HEAD_ROOM + req->config->server.len + req->resp.reason.len + req->resp.date.len + req->resp.server.len;
    for (uint32_t i = 0; i < req->resp.field_count; i++)
        size += req->resp.fields[i].name.len + req->resp.fields[i].value.len + 4;
    return size;
}

struct pc_slice
pc_respond_date(struct pc_worker *worker, int64_t wall_us)
{
    uint64_t now_s = (uint64_t)(wall_us / 1000000);
    if (worker->date_s != now_s) {
        pc_date_format((int64_t)now_s, worker->date);
        worker->date_s = now_s;
    }
    return (struct pc_slice){worker->date, sizeof worker->date};
}

static bool
has_no_body(const struct pc_req *req)
{
    uint32_t status = req->resp.status;
    return !req->resp.is_tunnel && (req->head->method_id == PC_HEAD || status == 304 || status == 204 || status < 200);
}

static void
put_connection(struct writer *out, const struct pc_io *io)
{
    const struct pc_req *req = &io->req;
    if (req->resp.is_tunnel) {
        put(out, PC_S("Connection: Upgrade\r\n"));
    } else if (!io->keep) {
        put(out, PC_S("Connection: close\r\n"));
    } else if (req->head->minor == 0) { /* HTTP/1.1 keeps without a word */
        char number[20];
        put(out, PC_S("Keep-Alive: timeout="));
        put(out, (struct pc_slice){number, pc_number(number, req->host->keep_alive_ms / 1000)});
        put(out, PC_S("\r\nConnection: Keep-Alive\r\n"));
    }
}

static void
put_framing(struct writer *out, const struct pc_io *io)
{
    const struct pc_resp *resp = &io->req.resp;
    char number[20];
    if (resp->status == 304 || resp->status == 204 || resp->status < 200)
        return;
    if (resp->has_length) {
        put(out, PC_S("Content-Length: "));
        put(out, (struct pc_slice){number, pc_number(number, resp->length)});
        put(out, PC_S("\r\n"));
    } else if (io->chunk_out) {
        put(out, PC_S("Transfer-Encoding: chunked\r\n"));
    }
}

static size_t
write_head(struct pc_worker *worker, const struct pc_io *io, char *buf)
{
    const struct pc_req *req = &io->req;
    const struct pc_resp *resp = &req->resp;
    struct writer out = {buf};
    char number[20];
    put(&out, PC_S("HTTP/1.1 "));
    put(&out, (struct pc_slice){number, pc_number(number, resp->status)});
    put(&out, PC_S(" "));
    const char *phrase = pc_status_phrase(resp->status);
    put(&out, resp->reason.len > 0 ? resp->reason : (struct pc_slice){phrase, strlen(phrase)});
    put(&out, PC_S("\r\nDate: "));
    put(&out, resp->date.len > 0 ? resp->date : pc_respond_date(worker, req->start_wall_us));
    put(&out, PC_S("\r\n"));
    struct pc_slice server = resp->server.len > 0 ? resp->server : req->config->server;
    if (server.len > 0)
        put_field(&out, PC_S("Server"), server);
    for (uint32_t i = 0; i < resp->field_count; i++)
        put_field(&out, resp->fields[i].name, resp->fields[i].value);
    put_framing(&out, io);
    put_connection(&out, io);
    put(&out, PC_S("\r\n"));
    return (size_t)(out.at - buf);
}

/* ------------------------------------------------------------------ the body */

void
pc_respond_drop(struct pc_io *io)
{
    struct pc_resp *resp = &io->req.resp;
    if (resp->fd >= 0)
        (void)close(resp->fd); /* only read from */
    resp->fd = -1;
    if (resp->body == PC_BODY_PRODUCER && resp->producer != NULL)
        resp->producer->end(&io->req);
    resp->producer = NULL;
}

/* A small file goes out in one write with its head. Returns bytes read, which is less if its owner cut it meanwhile. */
static size_t
read_small(const struct pc_resp *resp, char *buf)
{
    size_t have = 0;
    while (have < resp->length) {
        ssize_t count = pread(resp->fd, buf + have, resp->length - have, (off_t)(resp->offset + have));
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            break;
        have += (size_t)count;
    }
    return have;
}

/* Lay the body out behind the head: small things into the same buffer, the rest as what send_step goes through. */
static void
attach_body(struct pc_io *io, size_t room)
{
    struct pc_resp *resp = &io->req.resp;
    if (has_no_body(&io->req))
        return;
    bool is_small = resp->body == PC_BODY_FILE && resp->length <= PC_SMALL_FILE_BYTES && resp->length <= room;
    if (is_small && !io->req.conn->is_stream) { /* a stream has no packet to share with its head: its session reads what it can hold */
        size_t have = read_small(resp, io->out + io->out_len);
        io->out_len += have;
        io->file_offset = resp->offset + have; /* what is missing is asked for once more: a file that was cut ends as a large one does */
        io->file_left = resp->length - have;
    } else if (resp->body == PC_BODY_FILE) {
        io->file_offset = resp->offset;
        io->file_left = resp->length;
    } else if (resp->body == PC_BODY_MEMORY && resp->memory.len <= room && !io->req.conn->is_stream) {
        memcpy(io->out + io->out_len, resp->memory.base, resp->memory.len); /* UNSAFE: just compared with the room */
        io->out_len += resp->memory.len;
    } else if (resp->body == PC_BODY_MEMORY) {
        io->mem = resp->memory;
    }
}

_Static_assert(PC_MAX_TRAILER_BYTES + 2 * PC_MAX_TRAILER_FIELDS + 8 < PC_GATE_DOWN_BYTES, "gather has room for the end of a body");

/* The last chunk, and behind it the trailers, if the client takes any; a stream's are its session's to send. */
static void
end_body(struct pc_io *io)
{
    const struct pc_resp *resp = &io->req.resp;
    struct writer out = {io->out + io->out_len};
    if (io->req.conn->is_stream && resp->trailer_count > 0)
        pc_h2_stream_trailers(io->req.conn);
    if (!io->chunk_out)
        return;
    put(&out, PC_S("0\r\n"));
    for (uint32_t i = 0; i < resp->trailer_count; i++)
        put_field(&out, resp->trailers[i].name, resp->trailers[i].value);
    put(&out, PC_S("\r\n"));
    io->out_len = (size_t)(out.at - io->out);
}

/* Frame what the producer has into the buffer, behind what lies there, as long as there is room for a whole piece: small answers go
 * out in one write with their head. Returns 1 there is something to send, or <0: nothing, and why. */
static int
gather(struct pc_io *io)
{
    bool is_heard = !has_no_body(&io->req), is_enough = false; /* what a stream's session does not take has to be held */
    while (PC_OUT_BYTES - io->out_len >= PC_GATE_DOWN_BYTES + CHUNK_ROOM && io->mem.len == 0 && !is_enough) {
        struct pc_slice bytes = {0};
        int more = io->req.resp.producer->next(&io->req, &bytes);
        if (more < 0)
            return io->out_at < io->out_len ? 1 : more; /* it says so again */
        io->producer_done = more == 0;
        if (more == 0) {
            end_body(io);
            return 1;
        }
        if (!is_heard || bytes.len == 0)
            continue;
        if (io->chunk_out)
            io->out_len += (size_t)snprintf(io->out + io->out_len, CHUNK_ROOM, "%zx\r\n", bytes.len);
        io->mem_ends_chunk = io->chunk_out;
        io->mem = bytes;
        if (bytes.len > PC_GATE_DOWN_BYTES)
            continue;
        memcpy(io->out + io->out_len, bytes.base, bytes.len); /* UNSAFE: room for PC_GATE_DOWN_BYTES and a frame is there */
        io->out_len += bytes.len;
        io->mem.len = 0;
        is_enough = io->req.conn->is_stream;
        if (io->chunk_out)
            memcpy(io->out + io->out_len, "\r\n", 2);
        io->out_len += io->chunk_out ? 2 : 0;
        io->mem_ends_chunk = false;
    }
    return 1;
}

static bool
may_keep(const struct pc_child *child, const struct pc_conn *conn)
{
    const struct pc_io *io = conn->io;
    const struct pc_host *host = io->req.host;
    return host->keep_alive && !io->head->wants_close && !io->req.resp.close && !io->answered_early
           && !atomic_load_explicit(&child->is_draining, memory_order_relaxed)
           && (host->max_requests == 0 || conn->requests + 1 < host->max_requests);
}

/* An HTTP/2 stream gets its fields as such, and no text. */
static void
begin_head(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    if (conn->is_stream) {
        pc_h2_stream_head(worker, conn);
        return;
    }
    io->out_len = io->head_out_len = write_head(worker, io, io->out);
}

/* 200 to a CONNECT would say that its tunnel is open. */
static void
check_tunnel(struct pc_conn *conn)
{
    struct pc_req *req = &conn->io->req;
    if (!conn->is_stream || !conn->stream->is_tunnel || req->resp.is_tunnel || req->resp.status < 200 || req->resp.status >= 300)
        return;
    pc_gate_drop(conn, true);
    pc_respond_drop(conn->io);
    pc_serve_error(req, 501);
}

enum pc_next
pc_respond_start(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    struct pc_resp *resp = &io->req.resp;
    check_tunnel(conn);
    io->keep = may_keep(worker->child, conn);
    io->chunk_out = !resp->has_length && !conn->is_stream && io->head->minor == 1 && !has_no_body(&io->req) && !resp->is_tunnel;
    io->keep = io->keep && (resp->has_length || io->chunk_out || has_no_body(&io->req));
    io->producer_done = resp->body != PC_BODY_PRODUCER;
    size_t size = conn->is_stream ? 0 : head_size(&io->req);
    io->out = worker->out;
    io->out_owned = size > PC_OUT_BYTES;
    if (io->out_owned && (io->out = malloc(size)) == NULL)
        pc_die(111, "out of memory");
    pc_conn_deadline(worker->child, conn, 0); /* that of the head or body is over; wait_to_send sets one */
    io->out_at = io->out_len = 0;
    io->req.bytes_out = 0;
    io->req.body_out = 0;
    begin_head(worker, conn);
    attach_body(io, io->out_owned ? 0 : PC_OUT_BYTES - io->out_len);
    if (!io->producer_done && !io->out_owned)
        (void)gather(io); /* the head is there at least */
    conn->phase = PC_PHASE_SEND;
    return PC_GO;
}

/* ------------------------------------------------------------------ behind the last byte */

static void
account(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_child *child = worker->child;
    struct pc_req *req = &conn->io->req;
    uint64_t head_len = conn->io->head_out_len;
    if (conn->io->head_len > 0) /* its body may have been read behind the start */
        req->bytes_in = conn->io->head_len + conn->io->body_wire;
    req->resp.close = !conn->io->keep && !conn->is_stream; /* %X says what becomes of the connection */
    req->body_out = req->bytes_out > head_len ? req->bytes_out - head_len : 0;
    pc_count(child->page, PC_C_REQUESTS, 1);
    pc_count(child->page, PC_C_BYTES_IN, req->bytes_in);
    pc_count(child->page, PC_C_BYTES_OUT, req->bytes_out);
    if (req->resp.status >= 500)
        pc_count(child->page, PC_C_ERRORS, 1);
    req->end_ns = pc_now_ns();
    pc_page_request(child, req);
    if (req->host->log_count > 0) {
        pc_log_request(req);
        if (!atomic_load_explicit(&child->has_lines, memory_order_relaxed))
            atomic_store_explicit(&child->has_lines, true, memory_order_relaxed);
    }
}

void
pc_respond_abandon(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    if (io == NULL)
        return;
    io->req.aborted = conn->is_cut = true;
    account(worker, conn);
    pc_respond_drop(io);
}

enum pc_next
pc_respond_linger(struct pc_worker *worker, struct pc_conn *conn)
{
    /* Bytes that nobody will read may be on their way: closing now would answer them with a reset, which can reach the
     * client before our last bytes do. */
    conn->transport->end(conn);
    if (shutdown(conn->fd, SHUT_WR) < 0) {
        pc_conn_close(worker, conn);
        return PC_GONE;
    }
    if (conn->io != NULL)
        pc_io_give(worker, conn);
    conn->phase = PC_PHASE_LINGER;
    conn->since_ns = worker->now_ns;
    return PC_GO;
}

/* Whether the connection can be closed behind the response. A client that asked for the end sends nothing more; one that did
 * not may have sent the next request meanwhile. */
static bool
ends_at_once(const struct pc_conn *conn)
{
    const struct pc_io *io = conn->io;
    bool is_all_read = io->body_done && conn->was_drained && io->in_len <= io->in_at + io->head_len;
    return !io->keep && !io->answered_early && is_all_read && io->head_len > 0 && io->head->wants_close;
}

static enum pc_next
finish(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    bool lingers = !io->keep && !ends_at_once(conn);
    account(worker, conn);
    pc_respond_drop(io);
    if (conn->is_stream) {
        pc_h2_stream_done(conn);
        pc_conn_close(worker, conn);
        return PC_GONE;
    }
    conn->requests++;
    conn->hops = 0;
    uint32_t used = io->in_at + io->head_len, rest = io->in_len > used ? io->in_len - used : 0;
    if (lingers)
        return pc_respond_linger(worker, conn);
    if (!io->keep) {
        /* A close with bytes that came meanwhile would be a reset, and what waits for the FIN would be lost with it. */
        (void)shutdown(conn->fd, SHUT_WR); /* fails if the client has reset it: then nobody waits */
        pc_conn_close(worker, conn);
        return PC_GONE;
    }
    memmove(io->in, io->in + used, rest);
    io->in_at = 0;
    io->in_len = rest;
    if (io->out_owned)
        free(io->out);
    io->out = NULL;
    io->out_owned = false;
    io->is_prepared = false;
    io->body_seen = io->body_wire = 0;
    io->head_len = 0;
    memset(io->head, 0, offsetof(struct pc_head, fields));
    pc_arena_reset(&io->arena);
    conn->phase = PC_PHASE_HEAD;
    conn->since_ns = worker->now_ns;
    return PC_GO;
}

enum pc_next
pc_respond_linger_step(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_child *child = worker->child;
    uint64_t end_ns = conn->since_ns + PC_LINGER_TOTAL_MS * MS, quiet_ns = worker->now_ns + PC_LINGER_MS * MS;
    ssize_t count = 1;
    for (int reads = 0; reads < LINGER_READS && count > 0; reads++)
        count = conn->transport->recv(conn, worker->out, PC_OUT_BYTES);
    if (worker->now_ns < end_ns && (count > 0 || count == -PC_E_AGAIN)) {
        pc_conn_deadline(child, conn, quiet_ns < end_ns ? quiet_ns : end_ns);
        /* Still sending: others come first, and then its next bytes. */
        if ((count > 0 ? pc_conn_requeue(child, conn) : pc_conn_watch(child, conn)) == 0)
            return PC_WAIT;
    }
    pc_conn_close(worker, conn);
    return PC_GONE;
}

/* ------------------------------------------------------------------ sending */

/* has_progress: the client took bytes since the last wait. Else the deadline stays: an event of its own bytes must not put it
 * off. */
static enum pc_next
wait_to_send(struct pc_worker *worker, struct pc_conn *conn, bool has_progress)
{
    struct pc_io *io = conn->io;
    has_progress = pc_conn_take_moved(conn) || has_progress;
    if (!io->out_owned && io->out_at < io->out_len) {
        size_t left = io->out_len - io->out_at;
        char *copy = malloc(left);
        if (copy == NULL)
            pc_die(111, "out of memory");
        memcpy(copy, io->out + io->out_at, left);
        io->out = copy;
        io->out_owned = true;
        io->out_at = 0;
        io->out_len = left;
    } else if (!io->out_owned) {
        io->out_at = io->out_len = 0;
    }
    if (conn->gate != NULL) {
        if (has_progress || conn->gate->has_heard)
            conn->gate->progress_ns = worker->now_ns;
        conn->gate->has_heard = false;
        pc_conn_deadline(worker->child, conn, pc_gate_due(conn->gate));
    } else if (has_progress || pc_conn_due(worker->child, conn) == 0)
        pc_conn_deadline(worker->child, conn, worker->now_ns + io->req.host->timeout_ms * MS);
    if (pc_conn_watch(worker->child, conn) == 0)
        return PC_WAIT;
    pc_respond_abandon(worker, conn);
    pc_conn_close(worker, conn);
    return PC_GONE;
}

/* The producer's next bytes, in the worker's buffer. Returns 1 more to send or to ask for, <0. */
static int
produce(struct pc_worker *worker, struct pc_io *io)
{
    if (io->out_owned)
        free(io->out);
    io->out = worker->out;
    io->out_owned = false;
    io->out_at = io->out_len = 0;
    return gather(io);
}

/* The next piece behind what was sent: 1 there is one, 0 nothing is left, <0 wait or break off. */
static int
next_piece(struct pc_worker *worker, struct pc_io *io)
{
    struct pc_resp *resp = &io->req.resp;
    if (io->mem_ends_chunk) {
        io->mem_ends_chunk = false;
        io->mem = PC_S("\r\n");
        return 1;
    }
    if (resp->body == PC_BODY_PARTS && !has_no_body(&io->req) && io->part < resp->part_count) {
        const struct pc_part *part = &resp->parts[io->part++];
        io->mem = part->text;
        io->file_offset = part->offset;
        io->file_left = part->length;
        return 1;
    }
    if (!io->producer_done)
        return produce(worker, io);
    return 0;
}

/* The response ends when the socket has it. */
static int
flush(struct pc_conn *conn)
{
    conn->io->keep = conn->io->keep && conn->io->body_done; /* a program may have answered without reading it all */
    if (!conn->io->keep && conn->transport->goodbye != NULL)
        conn->transport->goodbye(conn);
    return conn->transport->flush != NULL ? conn->transport->flush(conn) : 0;
}

/* Send one piece. Returns bytes sent (>0), 0 = the file ended too early, <0. */
static ssize_t
send_piece(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    ssize_t sent;
    if (io->out_at < io->out_len) {
        /* The last bytes before a close wait for it, and leave in one packet with the FIN. */
        bool is_last = io->producer_done && io->req.resp.body != PC_BODY_PARTS;
        bool more = io->mem.len > 0 || io->file_left > 0 || (is_last && ends_at_once(conn));
        sent = conn->transport->send(conn, io->out + io->out_at, io->out_len - io->out_at, more);
        io->out_at += sent > 0 ? (size_t)sent : 0;
    } else if (io->mem.len > 0) {
        sent = conn->transport->send(conn, io->mem.base, io->mem.len, io->file_left > 0);
        io->mem.base += sent > 0 ? sent : 0;
        io->mem.len -= sent > 0 ? (size_t)sent : 0;
    } else {
        uint64_t want = io->file_left < PC_SENDFILE_CHUNK_BYTES ? io->file_left : PC_SENDFILE_CHUNK_BYTES;
        sent = conn->transport->send_file(conn, io->req.resp.fd, &io->file_offset, want);
        io->file_left -= sent > 0 ? (uint64_t)sent : 0;
    }
    (void)worker;
    return sent;
}

enum pc_next
pc_respond_send_step(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    uint64_t in_a_row = 0;
    int pumped = conn->gate != NULL ? pc_gate_pump(worker, conn) : 0;
    while (pumped >= 0) {
        if (io->out_at >= io->out_len && io->mem.len == 0 && io->file_left == 0) {
            int more = next_piece(worker, io);
            int flushed = more == 0 ? flush(conn) : 0;
            if (more == 0 && flushed == 0)
                return finish(worker, conn);
            more = flushed != 0 ? flushed : more;
            if (more == -PC_E_AGAIN)
                return wait_to_send(worker, conn, in_a_row > 0);
            if (more < 0)
                break;
            if (io->out_at >= io->out_len && io->mem.len == 0 && io->file_left == 0)
                continue;
        }
        ssize_t sent = send_piece(worker, conn);
        if (sent == -PC_E_AGAIN)
            return wait_to_send(worker, conn, in_a_row > 0);
        if (sent <= 0)
            break;
        io->req.bytes_out += (uint64_t)sent;
        in_a_row += (uint64_t)sent;
        bool is_over = io->producer_done && io->mem.len == 0 && io->file_left == 0;
        if (in_a_row >= PC_SEND_TURN_BYTES && !is_over) { /* others have waited long enough */
            enum pc_next next = wait_to_send(worker, conn, true);
            if (next == PC_WAIT)
                (void)pc_conn_requeue(worker->child, conn); /* fails only if the socket is gone: the deadline ends it */
            return next;
        }
    }
    pc_respond_abandon(worker, conn); /* gone, or a file that was cut: the length promised cannot be kept */
    pc_conn_close(worker, conn);
    return PC_GONE;
}
