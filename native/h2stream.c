/* h2stream.c - the side of an HTTP/2 stream that faces the request: a connection without a socket.
 * Runs as:  child, as the identity that owns the host.   Sees: a request's body, its response.
 * Holds:    a bounded part of both.
 * Distrusts: the client, which may take no byte of a response: then its maker waits, and the deadlines of HTTP/1.1 hold.
 * Before:   h2.c   After: request.c (the head), respond.c (the response) */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <nghttp2/nghttp2.h>

#include "h2.h"
#include "tls.h"

#define FIELD_LENGTHS (2 * sizeof(uint32_t))
#define VERSION_BYTES 8 /* "HTTP/1.1" */
#define STREAM_SHARE 8 /* of a child's places: as many more there are for streams, */
#define STREAMS_AT_LEAST 8 /* and so many */

static void
lock(const struct pc_h2_stream *stream)
{
    (void)pthread_mutex_lock(&stream->h2->lock);
}

static void
unlock(const struct pc_h2_stream *stream)
{
    (void)pthread_mutex_unlock(&stream->h2->lock);
}

/* ------------------------------------------------------------------ the session is told */

/* Called with the lock held. */
static void
note(struct pc_conn *conn)
{
    struct pc_h2_stream *stream = conn->stream;
    conn->has_news = true;
    if (stream->has_news || stream->is_reset) /* the session knows it no more */
        return;
    stream->has_news = true;
    stream->next_news = stream->h2->news;
    stream->h2->news = stream;
}

void
pc_h2_stream_tell(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_h2_stream *stream = conn->stream;
    struct pc_h2 *h2 = stream->h2;
    if (stream->is_fresh) { /* it waits for something else than its client: another request may begin */
        lock(stream);
        pc_h2_wait_out(stream, false);
        conn->has_news = conn->has_news || h2->wants_room;
        unlock(stream);
    }
    if (!conn->has_news)
        return;
    conn->has_news = false;
    if (atomic_exchange(&h2->has_news, true))
        return; /* somebody has, and it has not looked since */
    pc_loop_wake(worker, h2->token);
}

/* ------------------------------------------------------------------ the transport */

/* A stream may be silent for long: it holds nothing meanwhile. */
static void
drop_in(struct pc_h2_stream *stream)
{
    free(stream->in);
    stream->in = NULL;
    stream->in_at = stream->in_cap = 0;
}

static ssize_t
stream_recv(struct pc_conn *conn, char *buf, size_t cap)
{
    struct pc_h2_stream *stream = conn->stream;
    ssize_t result;
    lock(stream);
    size_t count = stream->in_len < cap ? stream->in_len : cap;
    if (stream->is_reset) {
        result = -PC_E_CLOSED;
    } else if (count > 0) {
        memcpy(buf, stream->in + stream->in_at, count); /* UNSAFE: compared with both */
        stream->in_at += (uint32_t)count;
        stream->in_len -= (uint32_t)count;
        if (stream->in_len == 0)
            drop_in(stream);
        stream->consumed += (uint32_t)count;
        stream->h2->in_total -= (uint32_t)count;
        note(conn);
        result = (ssize_t)count;
    } else {
        stream->waits_in = !stream->in_ended;
        result = stream->in_ended ? 0 : -PC_E_AGAIN;
    }
    unlock(stream);
    return result;
}

/* Room for bytes of the response behind those that are there, called with the lock held. 0: the session has to take some first. */
static size_t
make_room(struct pc_h2_stream *stream, size_t want)
{
    const struct pc_h2 *h2 = stream->h2;
    size_t cap = stream->out_len + (h2->out_total < h2->out_budget ? h2->out_budget - h2->out_total : 0);
    cap = cap < PC_H2_OUT_TIGHT_BYTES ? PC_H2_OUT_TIGHT_BYTES : cap < PC_H2_OUT_BYTES ? cap : PC_H2_OUT_BYTES;
    if (stream->out_len >= cap)
        return 0;
    size_t room = cap - stream->out_len < want ? cap - stream->out_len : want;
    if (stream->out_at > 0)
        memmove(stream->out, stream->out + stream->out_at, stream->out_len);
    stream->out_at = 0;
    if (stream->out_len + room > stream->out_cap) {
        size_t grown_cap = stream->out_len > 0 ? PC_H2_OUT_BYTES : room;
        char *grown = realloc(stream->out, grown_cap);
        if (grown == NULL)
            pc_die(111, "out of memory");
        stream->out = grown;
        stream->out_cap = (uint32_t)grown_cap;
    }
    return room;
}

/* Where bytes may be put, outside of the lock: only this side moves the buffer. >0 how many, or -PC_E_*. */
static ssize_t
open_room(struct pc_conn *conn, size_t want, char **ret_at)
{
    struct pc_h2_stream *stream = conn->stream;
    ssize_t result = -PC_E_CLOSED;
    lock(stream);
    if (!stream->is_reset) {
        size_t room = make_room(stream, want);
        pc_h2_wait_out(stream, room == 0);
        *ret_at = stream->out != NULL ? stream->out + stream->out_len : NULL;
        stream->is_filling = room > 0;
        result = room > 0 ? (ssize_t)room : -PC_E_AGAIN;
    }
    unlock(stream);
    return result;
}

static void
close_room(struct pc_conn *conn, size_t len)
{
    struct pc_h2_stream *stream = conn->stream;
    lock(stream);
    stream->is_filling = false;
    if (!stream->is_reset) {
        stream->out_len += (uint32_t)len;
        stream->h2->out_total += (uint32_t)len;
    }
    note(conn);
    unlock(stream);
}

static ssize_t
stream_send(struct pc_conn *conn, const char *buf, size_t len, bool more)
{
    char *at = NULL;
    (void)more; /* frames are gathered by the session */
    ssize_t room = len > 0 ? open_room(conn, len, &at) : 0;
    if (room > 0) {
        memcpy(at, buf, (size_t)room); /* UNSAFE: no more than len, and room was made */
        close_room(conn, (size_t)room);
    }
    return room;
}

static ssize_t
stream_send_file(struct pc_conn *conn, int fd, uint64_t *offset, size_t len)
{
    char *at = NULL;
    ssize_t room = open_room(conn, len, &at), count;
    if (room <= 0)
        return room;
    do
        count = pread(fd, at, (size_t)room, (off_t)*offset);
    while (count < 0 && errno == EINTR);
    close_room(conn, count > 0 ? (size_t)count : 0);
    if (count < 0)
        return -PC_E_CLOSED;
    *offset += (uint64_t)count;
    return count;
}

static void
stream_transport_end(struct pc_conn *conn)
{
    pc_tls_free(conn->tls);
    conn->tls = NULL;
}

const struct pc_transport pc_transport_h2 = {
    .name = "h2",
    .recv = stream_recv,
    .send = stream_send,
    .send_file = stream_send_file,
    .end = stream_transport_end,
    .fact = pc_tls_fact,
    .facts = pc_tls_facts,
};

/* ------------------------------------------------------------------ begin */

/* A stream takes a place as a connection does. A few are left to streams, which need no descriptor: a child full of idle connections
 * can still answer what they ask. Behind those, idle connections make room as for a newcomer, once a turn: looking for them costs
 * something. */
static bool
has_place(struct pc_worker *worker, struct pc_h2 *h2)
{
    struct pc_child *child = worker->child;
    uint32_t most = child->max_open + child->max_open / STREAM_SHARE + STREAMS_AT_LEAST;
    if (atomic_load(&child->open_count) < most)
        return true;
    if (h2->shed_ns == worker->now_ns)
        return false;
    h2->shed_ns = worker->now_ns;
    return pc_conn_shed(worker) > 0 && atomic_load(&child->open_count) < most;
}

bool
pc_h2_stream_begin(struct pc_worker *worker, struct pc_conn *session, struct pc_h2_stream *stream, struct pc_slice text)
{
    struct pc_child *child = worker->child;
    struct pc_h2 *h2 = stream->h2;
    struct pc_conn *conn = has_place(worker, h2) ? pc_conn_new_stream(child) : NULL;
    if (conn == NULL) {
        free((void *)(uintptr_t)text.base);
        return false;
    }
    conn->stream = stream;
    conn->transport = &pc_transport_h2;
    conn->phase = PC_PHASE_HEAD;
    conn->client = session->client;
    conn->local = session->local;
    conn->front = session->front;
    conn->listener = session->listener;
    conn->tls = pc_tls_share(session->tls);
    conn->sni_host = session->sni_host;
    conn->host = session->host;
    conn->requests = h2->requests++;
    conn->is_routed = stream->is_routed;
    conn->is_received = stream->is_received;
    conn->since_ns = worker->now_ns;
    conn->stash = (char *)(uintptr_t)text.base;
    conn->stash_len = (uint32_t)text.len;
    lock(stream);
    stream->token = pc_conn_token(conn);
    stream->has_conn = stream->is_fresh = true;
    h2->stalled++;
    stream->refs++;
    h2->conn_count++;
    unlock(stream);
    pc_loop_later(worker, conn);
    return true;
}

/* ------------------------------------------------------------------ where a stream differs */

bool
pc_h2_stream_is_reset(const struct pc_conn *conn)
{
    const struct pc_h2_stream *stream = conn->stream;
    lock(stream);
    bool is_reset = stream->is_reset;
    unlock(stream);
    return is_reset;
}

void
pc_h2_stream_version(struct pc_io *io)
{
    const struct pc_head *head = io->head;
    char *version = io->in + io->in_at + head->line.at + head->line.len - VERSION_BYTES;
    memcpy(version, "HTTP/2.0", VERSION_BYTES); /* UNSAFE: the parsed line ends with "HTTP/1.1" */
}

void
pc_h2_stream_frame(struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    const struct pc_head *head = io->head;
    const struct pc_h2_stream *stream = conn->stream;
    lock(stream);
    bool has_none = stream->in_ended && stream->in_len == 0;
    unlock(stream);
    io->body_raw = true;
    io->body_chunked = !has_none && !head->has_length && !stream->is_tunnel; /* its length is not known */
}

void
pc_h2_stream_invite(struct pc_conn *conn)
{
    lock(conn->stream);
    conn->stream->wants_continue = true;
    note(conn);
    unlock(conn->stream);
}

void
pc_h2_stream_done(struct pc_conn *conn)
{
    lock(conn->stream);
    conn->stream->out_ended = true;
    note(conn);
    unlock(conn->stream);
}

void
pc_h2_stream_reset(struct pc_conn *conn, uint32_t code)
{
    lock(conn->stream);
    conn->stream->wants_reset = true;
    conn->stream->reset_code = code;
    note(conn);
    unlock(conn->stream);
}

/* ------------------------------------------------------------------ the response's fields */

/* What HTTP/1.1 says of a connection, or of an upgrade, has no place in HTTP/2 (RFC 9113 8.2.2). */
static bool
is_left_out(const struct pc_resp *resp, struct pc_slice name)
{
    static const struct { struct pc_slice name; bool in_tunnel_only; } rows[] = {
        {{"Connection", 10}, false}, {{"Keep-Alive", 10}, false}, {{"Proxy-Connection", 16}, false},
        {{"Transfer-Encoding", 17}, false}, {{"Upgrade", 7}, false}, {{"Sec-WebSocket-Accept", 20}, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (pc_slice_ieq(rows[i].name, name))
            return !rows[i].in_tunnel_only || resp->is_tunnel;
    return false;
}

/* Packs one field, its name in lower case; to == NULL: only its size. */
static size_t
pack(char *to, struct pc_slice name, struct pc_slice value)
{
    const uint32_t lengths[2] = {(uint32_t)name.len, (uint32_t)value.len};
    value = to != NULL ? pc_slice_trim(value) : value;
    if (to != NULL) {
        const uint32_t trimmed[2] = {lengths[0], (uint32_t)value.len};
        memcpy(to, trimmed, FIELD_LENGTHS);
        for (size_t i = 0; i < name.len; i++) {
            char c = name.base[i];
            to[FIELD_LENGTHS + i] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
        }
        if (value.len > 0)
            memcpy(to + FIELD_LENGTHS + name.len, value.base, value.len);
    }
    return FIELD_LENGTHS + name.len + value.len; /* UNSAFE: callers have counted it first */
}

struct packer {
    struct pc_h2_fields *fields; /* NULL = counting */
    size_t len;
    uint32_t count;
};

static void
put(struct packer *out, struct pc_slice name, struct pc_slice value)
{
    out->len += pack(out->fields != NULL ? out->fields->bytes + out->len : NULL, name, value);
    out->count++;
}

static void
put_all(struct packer *out, struct pc_worker *worker, const struct pc_io *io)
{
    const struct pc_req *req = &io->req;
    const struct pc_resp *resp = &req->resp;
    bool has_body = resp->status != 304 && resp->status != 204 && resp->status >= 200 && !resp->is_tunnel;
    struct pc_slice server = resp->server.len > 0 ? resp->server : req->config->server;
    char number[20];
    put(out, PC_S("date"), resp->date.len > 0 ? resp->date : pc_respond_date(worker, req->start_wall_us));
    if (server.len > 0)
        put(out, PC_S("server"), server);
    for (uint32_t i = 0; i < resp->field_count; i++)
        if (!is_left_out(resp, resp->fields[i].name))
            put(out, resp->fields[i].name, resp->fields[i].value);
    if (has_body && resp->has_length)
        put(out, PC_S("content-length"), (struct pc_slice){number, pc_number(number, resp->length)});
}

static struct pc_h2_fields *
make_fields(uint32_t status, struct packer counted)
{
    struct pc_h2_fields *fields = malloc(sizeof *fields + counted.len);
    if (fields == NULL)
        pc_die(111, "out of memory");
    *fields = (struct pc_h2_fields){.status = status, .count = counted.count, .len = (uint32_t)counted.len};
    return fields;
}

void
pc_h2_free_fields(struct pc_h2_fields *fields)
{
    for (struct pc_h2_fields *next; fields != NULL; fields = next) {
        next = fields->next;
        free(fields);
    }
}

static void
put_pairs(struct packer *out, const struct pc_pair *pairs, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        put(out, pairs[i].name, pairs[i].value);
}

static struct pc_h2_fields *
pack_pairs(uint32_t status, const struct pc_pair *pairs, uint32_t count)
{
    struct packer counting = {0};
    put_pairs(&counting, pairs, count);
    struct packer out = {.fields = make_fields(status, counting)};
    put_pairs(&out, pairs, count);
    out.fields->len = (uint32_t)out.len; /* values were trimmed */
    return out.fields;
}

/* They are a hint: what the client has not taken in time is left out. */
void
pc_h2_stream_interim(struct pc_conn *conn, uint32_t status, const struct pc_pair *fields, uint32_t count)
{
    struct pc_h2_stream *stream = conn->stream;
    struct packer counting = {0};
    put_pairs(&counting, fields, count);
    lock(stream);
    bool has_room = stream->interim_bytes + counting.len <= PC_H2_INTERIM_BYTES && !stream->is_reset;
    stream->interim_bytes += has_room ? (uint32_t)counting.len : 0;
    unlock(stream);
    if (!has_room)
        return;
    struct pc_h2_fields *packed = pack_pairs(status, fields, count);
    lock(stream);
    struct pc_h2_fields **at = &stream->interim;
    while (*at != NULL)
        at = &(*at)->next;
    *at = packed;
    note(conn);
    unlock(stream);
}

void
pc_h2_stream_trailers(struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    struct pc_h2_stream *stream = conn->stream;
    struct pc_h2_fields *packed = pack_pairs(0, io->req.resp.trailers, io->req.resp.trailer_count);
    io->head_out_len += packed->len; /* they are no more of the body than the head is */
    io->req.bytes_out += packed->len;
    lock(stream);
    stream->trailers = packed;
    unlock(stream);
}

void
pc_h2_stream_head(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    struct pc_h2_stream *stream = conn->stream;
    struct packer counting = {0};
    put_all(&counting, worker, io);
    struct pc_h2_fields *fields = make_fields(io->req.resp.is_tunnel ? 200 : io->req.resp.status, counting);
    struct packer out = {.fields = fields};
    put_all(&out, worker, io);
    fields->len = (uint32_t)out.len; /* values were trimmed */
    lock(stream);
    free(stream->fields); /* none: a stream has one response */
    stream->fields = fields;
    note(conn);
    unlock(stream);
    io->head_out_len = out.len;
    io->req.bytes_out = out.len;
}

/* ------------------------------------------------------------------ the end */

void
pc_h2_stream_drop(struct pc_h2_stream *stream)
{
    struct pc_h2 *h2 = stream->h2;
    bool is_last = --stream->refs == 0;
    if (is_last) {
        h2->in_total -= stream->in_len;
        h2->out_total -= stream->out_len;
    }
    unlock(stream);
    if (!is_last)
        return;
    pc_h2_free_fields(stream->fields);
    pc_h2_free_fields(stream->interim);
    pc_h2_free_fields(stream->trailers);
    free(stream->in);
    free(stream->out);
    free(stream);
    pc_h2_drop(h2);
}

void
pc_h2_drop(struct pc_h2 *h2)
{
    (void)pthread_mutex_lock(&h2->lock);
    bool is_last = --h2->refs == 0;
    (void)pthread_mutex_unlock(&h2->lock);
    if (!is_last)
        return;
    (void)pthread_mutex_destroy(&h2->lock);
    pc_h2head_free(&h2->head);
    free(h2);
}

void
pc_h2_stream_end(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_h2_stream *stream = conn->stream;
    lock(stream);
    bool is_cut = !stream->out_ended && !stream->wants_reset;
    /* What there is goes first, as with HTTP/1.1, unless its maker waited for a client that takes nothing. */
    stream->is_broken = is_cut && !stream->waits_out && (stream->fields != NULL || stream->out_len > 0);
    if (is_cut && !stream->is_broken) {
        stream->wants_reset = true;
        stream->reset_code = NGHTTP2_INTERNAL_ERROR;
    }
    stream->has_conn = false;
    pc_h2_wait_out(stream, false);
    stream->h2->in_total -= stream->in_len; /* nobody will read them, and others may need the window */
    stream->in_len = 0;
    stream->h2->conn_count--;
    note(conn);
    unlock(stream);
    if (worker != NULL)
        pc_h2_stream_tell(worker, conn);
    conn->stream = NULL;
    lock(stream);
    pc_h2_stream_drop(stream);
}
