/* request.c - from bytes to a request: read a head, choose the host, skip a body, ask for a response.
 * Runs as:  child, as the identity that owns the host.   Sees: client bytes.   Holds: its own record.
 * Distrusts: every byte, and the name: another identity's is passed on, or answered 421.
 * Before:   conn.c, h1.c   After: serve.c, then respond.c */
#include <stdlib.h>
#include <string.h>

#include <nghttp2/nghttp2.h>

#include "gate.h"
#include "h2.h"
#include "hand.h"
#include "route.h"

#define ALERT_INTERNAL_ERROR 80 /* RFC 8446 6 */
#define ALERT_UNRECOGNIZED_NAME 112
#define MS 1000000ull
#define READ_ROOM 1024
#define STREAM_READ_ROOM 4096 /* there is none behind its head */

uint32_t
pc_error_status(int error)
{
    static const uint16_t statuses[] = {
        [PC_E_BAD] = 400, [PC_E_URI_LONG] = 414, [PC_E_HEAD_LARGE] = 431, [PC_E_VERSION] = 505, [PC_E_UNKNOWN] = 501,
        [PC_E_BODY_LARGE] = 413, [PC_E_EXPECT] = 417, [PC_E_NOT_FOUND] = 404, [PC_E_FORBIDDEN] = 403, [PC_E_RANGE] = 416,
    };
    size_t index = (size_t)-error;
    return index < sizeof statuses / sizeof *statuses && statuses[index] != 0 ? statuses[index] : 500;
}

static struct pc_host *
likely_host(const struct pc_child *child, const struct pc_conn *conn)
{
    if (conn->host != NULL)
        return conn->host;
    return child->config->host_count > 0 ? &child->config->hosts[0] : (struct pc_host *)(uintptr_t)&child->fallback_host;
}

/* ------------------------------------------------------------------ filling a request */

static void
fill_request(struct pc_worker *worker, struct pc_conn *conn, struct pc_host *host)
{
    struct pc_child *child = worker->child;
    struct pc_io *io = conn->io;
    struct pc_req *req = &io->req;
    memset(req, 0, offsetof(struct pc_req, name));
    req->name.len = req->name.port = 0;
    req->name.name[0] = '\0';
    req->resp.fd = -1;
    req->conn = conn;
    req->is_h2 = conn->is_stream;
    if (req->is_h2 && io->head->has_line)
        pc_h2_stream_version(io);
    req->config = child->config;
    req->host = host;
    req->arena = &io->arena;
    req->raw = io->in + io->in_at;
    req->head = io->head;
    memcpy(&req->client, &conn->client, sizeof conn->client); /* UNSAFE: a sockaddr_storage is larger */
    memcpy(&req->server, &conn->local, sizeof conn->local);   /* UNSAFE: as above */
    req->start_ns = conn->since_ns;
    req->start_wall_us = pc_wall_us();
    req->id = atomic_fetch_add_explicit(&child->request_id, 1, memory_order_relaxed);
    req->nth = conn->requests;
    req->bytes_in = (io->head_len > 0 ? io->head_len : io->in_len - io->in_at) + io->body_wire; /* no length: a head refused */
    req->is_tls = conn->tls != NULL;
    req->is_mistaken = conn->speech == PC_SPEECH_MISTAKEN;
    req->layers[0] = &host->base;
    req->layer_count = 1;
    req->may_block = worker->may_block;
    io->file_left = io->file_offset = 0;
    io->mem = (struct pc_slice){0};
    io->part = 0;
    io->chunk_out = io->producer_done = io->mem_ends_chunk = false;
}

/* The port that self-referential URLs show: what the client said, else where it came in. */
static uint16_t
port_of(const struct pc_hostname *name, const struct pc_conn *conn)
{
    if (name->port != 0)
        return name->port;
    if (name->len > 0)
        return conn->tls != NULL ? 443 : 80;
    return ntohs(conn->local.any.sa_family == AF_INET6 ? conn->local.v6.sin6_port : conn->local.v4.sin_port);
}

enum pc_next
pc_request_refuse(struct pc_worker *worker, struct pc_conn *conn, uint32_t status)
{
    if (status == 421)
        pc_count(worker->child->page, PC_C_MISDIRECTED, 1);
    if (conn->speech == PC_SPEECH_TLS && conn->tls == NULL)
        return pc_tls_refuse(worker, conn, status == 421 ? ALERT_UNRECOGNIZED_NAME : ALERT_INTERNAL_ERROR);
    struct pc_io *io = pc_io_take(worker, conn);
    if (conn->is_parked) {
        conn->is_parked = false;
        pc_uncount(worker->child->page, PC_C_PARKED, 1);
    }
    if (conn->since_ns == 0)
        conn->since_ns = worker->now_ns;
    if (io->is_prepared) /* an answer was ready, but its request was broken */
        pc_respond_drop(io);
    fill_request(worker, conn, likely_host(worker->child, conn));
    struct pc_req *req = &io->req;
    req->path = PC_S("/");
    req->options = PC_OPT_FOLLOWSYMLINKS;
    pc_serve_error(req, status);
    req->resp.close = true;
    if (status == 503)
        pc_resp_set(req, PC_S("Retry-After"), PC_S("1"));
    io->answered_early = true;
    return pc_respond_start(worker, conn);
}

void
pc_request_say(struct pc_child *child, const struct pc_conn *conn, enum pc_level level, const char *module, const char *text)
{
    pc_errlog(child->config, likely_host(child, conn), level, module, (const void *)&conn->client, "%s", text);
}

enum pc_next
pc_request_refuse_head(struct pc_worker *worker, struct pc_conn *conn, int error, struct pc_slice raw)
{
    struct pc_why why;
    pc_why_refused(error, raw, &likely_host(worker->child, conn)->limits, &why);
    pc_request_say(worker->child, conn, why.level, "core", why.text);
    return pc_request_refuse(worker, conn, pc_error_status(error));
}

/* ------------------------------------------------------------------ reading a head */

/* Read once into the free room. Returns >0, 0 = end, -PC_E_AGAIN, -PC_E_CLOSED, -PC_E_HEAD_LARGE. */
static ssize_t
read_more(struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    if (conn->was_drained && !conn->saw_end && !conn->is_stream) /* a stream tells its end right behind its bytes */
        return -PC_E_AGAIN;
    if (pc_io_room(io, READ_ROOM) != 0 && pc_io_room(io, 1) != 0)
        return -PC_E_HEAD_LARGE;
    size_t room = io->in_cap - io->in_len;
    ssize_t count = conn->transport->recv(conn, io->in + io->in_len, room);
    if (count > 0)
        io->in_len += (uint32_t)count;
    if (count == -PC_E_AGAIN)
        conn->saw_end = false; /* nothing is queued, so no end either; one to come is an event */
    /* A short read has emptied the socket: epoll tells of the next byte, so no read is needed to learn that there is none
     * (epoll(7)); only an end that came along with the bytes is not told again. */
    conn->was_drained = count > 0 && (size_t)count < room;
    return count;
}

/* Give up buffer and thread until the socket is readable. */
static enum pc_next
park(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_child *child = worker->child;
    const struct pc_host *host = likely_host(child, conn);
    pc_io_give(worker, conn);
    bool is_kept = conn->requests > 0;
    if (!is_kept)
        pc_conn_deadline(child, conn, conn->since_ns + host->head_ms * MS);
    else if (!conn->is_parked) /* an event without bytes does not make the wait longer */
        pc_conn_deadline(child, conn, worker->now_ns + host->keep_alive_ms * MS);
    if (is_kept && !conn->is_parked) {
        conn->is_parked = true;
        conn->was_given_time = false;
        pc_count(child->page, PC_C_PARKED, 1);
    }
    if (pc_conn_watch_in(child, conn) == 0)
        return PC_WAIT;
    pc_conn_close(worker, conn);
    return PC_GONE;
}

/* Part of a head is here: keep a copy of just that, and a deadline that grows with what arrives (RequestReadTimeout). */
static enum pc_next
stash(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_child *child = worker->child;
    const struct pc_host *host = likely_host(child, conn);
    struct pc_io *io = conn->io;
    uint32_t len = io->in_len - io->in_at;
    char *copy = malloc(len);
    if (copy == NULL)
        pc_die(111, "out of memory");
    memcpy(copy, io->in + io->in_at, len);
    pc_io_give(worker, conn);
    conn->stash = copy;
    conn->stash_len = len;
    uint64_t allowed_ms = host->head_ms;
    if (host->head_rate > 0)
        allowed_ms += (uint64_t)len * 1000 / host->head_rate;
    if (host->head_max_ms > 0 && allowed_ms > host->head_max_ms)
        allowed_ms = host->head_max_ms;
    pc_conn_deadline(child, conn, conn->since_ns + allowed_ms * MS);
    pc_transport_acknowledge(conn);
    if (pc_conn_watch(child, conn) == 0)
        return PC_WAIT;
    pc_conn_close(worker, conn);
    return PC_GONE;
}

static void
unpark(struct pc_worker *worker, struct pc_conn *conn)
{
    if (!conn->is_parked)
        return;
    conn->is_parked = false;
    pc_uncount(worker->child->page, PC_C_PARKED, 1);
}

/* FNV-1a, 64 bits; never 0. */
static uint64_t
hash_of(struct pc_slice name)
{
    uint64_t hash = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < name.len; i++)
        hash = (hash ^ (uint8_t)name.base[i]) * 0x100000001b3ull;
    return hash | 1;
}

/* What came in by TLS goes nowhere else: what another identity's host is asked for is refused. */
static struct pc_host *
choose_tls_host(struct pc_worker *worker, struct pc_conn *conn, struct pc_slice name, enum pc_next *ret_next)
{
    struct pc_host *host = NULL;
    uint32_t status = pc_tls_request_host(worker, conn, name, &host);
    if (status == 421)
        pc_errlog(worker->child->config, conn->sni_host, PC_ERROR, "ssl", (const void *)&conn->client,
                  "AH02032: Hostname %.*s is not served on the TLS connection to %.*s",
                  (int)name.len, name.base, (int)conn->sni_host->name.len, conn->sni_host->name.base);
    if (status == 403)
        pc_request_say(worker->child, conn, PC_ERROR, "ssl",
                       "AH02033: No hostname was provided via SNI for a name based virtual host");
    if (status != 0)
        *ret_next = pc_request_refuse(worker, conn, status);
    return host;
}

/* Whose is the name? Ours: its host. Else NULL, and *ret_next says what became of the connection. */
static struct pc_host *
choose_host(struct pc_worker *worker, struct pc_conn *conn, const struct pc_hostname *name, enum pc_next *ret_next)
{
    struct pc_child *child = worker->child;
    struct pc_io *io = conn->io;
    struct pc_slice wanted = {name->name, name->len};
    if (conn->tls != NULL)
        return choose_tls_host(worker, conn, wanted, ret_next);
    struct pc_route own = pc_route_find(child->config->own_route, pc_conn_local(conn), wanted);
    bool listens = atomic_load_explicit(&child->route, memory_order_relaxed) != NULL;
    /* The first name was routed before the connection came here. A later one that this child does not know by heart may be
     * another's: whoever has the server's table decides. */
    bool is_passed_here = conn->is_received && child->config->identity_no != 0;
    bool is_sure = own.how == PC_ROUTE_EXACT || conn->is_routed || (is_passed_here && own.how != PC_ROUTE_NONE);
    bool is_known = own.how == PC_ROUTE_WILD || own.how == PC_ROUTE_DEFAULT;
    if (is_sure && is_known) /* it came here by that name: the next request by it need not be asked about */
        conn->routed_name = hash_of(wanted);
    is_sure = is_sure || (is_known && conn->routed_name == hash_of(wanted));
    conn->is_routed = conn->is_received = false;
    if (is_sure)
        return own.how == PC_ROUTE_NONE ? &child->fallback_host : &child->config->hosts[own.value];
    if (is_passed_here) {
        pc_count(child->page, PC_C_REFUSED, 1);
        *ret_next = pc_request_refuse(worker, conn, 421);
        return NULL;
    }
    const struct pc_host *before = likely_host(child, conn);
    struct pc_slice rest = {io->in + io->in_at, io->in_len - io->in_at};
    bool is_strange = own.how == PC_ROUTE_NONE || own.how == PC_ROUTE_DEFAULT; /* the first host's owner gets others' names too */
    if (before->keep_scope_identity && is_strange)
        *ret_next = pc_request_refuse(worker, conn, 421);
    else if (!listens)
        *ret_next = pc_hand_over(worker, conn, 0, rest);
    else
        *ret_next = pc_peek_route(worker, conn, wanted, rest);
    if (*ret_next == PC_GO && conn->phase == PC_PHASE_HEAD && conn->is_routed) { /* ours after all */
        conn->is_routed = false;
        conn->routed_name = hash_of(wanted);
        return own.how == PC_ROUTE_NONE ? likely_host(child, conn) : &child->config->hosts[own.value];
    }
    return NULL;
}

/* Nobody wants the body: a short one is read and checked first, as httpd does; of a long one, or one that waits to be asked for, the
 * answer comes at once and the connection ends behind it. */
static bool
skips_body(struct pc_io *io)
{
    if (io->body_done)
        return false;
    io->answered_early = io->answered_early || io->head->expects_continue || io->body_left > PC_MAX_DRAIN_BYTES;
    return !io->answered_early;
}

static void
frame_stream(struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    pc_h2_stream_frame(conn);
    io->body_done = !io->body_chunked && io->body_left == 0;
}

/* A stream cannot be passed on: its connection is its client's with this identity. */
static struct pc_host *
choose_plain_stream_host(struct pc_worker *worker, struct pc_conn *conn, struct pc_slice wanted, enum pc_next *ret_next)
{
    struct pc_child *child = worker->child;
    struct pc_h2 *h2 = conn->stream->h2;
    struct pc_route own = pc_route_find(child->config->own_route, pc_conn_local(conn), wanted);
    bool is_passed_here = conn->is_received && child->config->identity_no != 0;
    bool is_sure = own.how == PC_ROUTE_EXACT || conn->is_routed || (is_passed_here && own.how != PC_ROUTE_NONE);
    bool is_known = own.how == PC_ROUTE_WILD || own.how == PC_ROUTE_DEFAULT;
    is_sure = is_sure || (is_known && (atomic_load(&h2->routed_name) == hash_of(wanted) || pc_peek_is_ours(worker, conn, wanted)));
    if (!is_sure) {
        *ret_next = pc_request_refuse(worker, conn, 421);
        return NULL;
    }
    if (is_known)
        atomic_store(&h2->routed_name, hash_of(wanted));
    return own.how == PC_ROUTE_NONE ? &child->fallback_host : &child->config->hosts[own.value];
}

static struct pc_host *
choose_stream_host(struct pc_worker *worker, struct pc_conn *conn, const struct pc_hostname *name, enum pc_next *ret_next)
{
    bool is_tls = conn->tls != NULL;
    struct pc_slice wanted = {name->name, name->len};
    struct pc_host *host = (is_tls ? choose_tls_host : choose_plain_stream_host)(worker, conn, wanted, ret_next);
    if (host == NULL || (host->protocols & (is_tls ? PC_PROTOCOL_H2 : PC_PROTOCOL_H2C)) != 0)
        return host;
    pc_h2_stream_reset(conn, NGHTTP2_HTTP_1_1_REQUIRED);
    pc_conn_close(worker, conn);
    *ret_next = PC_GONE;
    return NULL;
}

static enum pc_next
begin_request(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    enum pc_next next = PC_GO;
    struct pc_host *host = conn->is_stream ? choose_stream_host(worker, conn, &io->head->host, &next)
                                           : choose_host(worker, conn, &io->head->host, &next);
    if (host == NULL)
        return next;
    conn->host = host;
    uint64_t limit = host->base.has_limit_body ? host->base.limit_body : 0;
    io->body_chunked = io->head->is_chunked;
    io->body_left = io->head->has_length ? io->head->content_length : 0;
    io->body_done = !io->body_chunked && io->body_left == 0;
    io->body_start_ns = worker->now_ns;
    memset(&io->chunked, 0, sizeof io->chunked);
    if (conn->is_stream)
        frame_stream(conn);
    if (!io->body_done && limit > 0 && io->body_left > limit)
        return pc_request_refuse(worker, conn, 413);
    if (host->has_programs) /* one may want it: that is known later */
        conn->phase = PC_PHASE_SERVE;
    else
        conn->phase = skips_body(io) ? PC_PHASE_BODY : PC_PHASE_SERVE;
    return PC_GO;
}

/* As pc_h1_parse_head. What is found is kept in the size that it has. */
static int
parse_stream_head(struct pc_io *io, const struct pc_h1_limits *limits)
{
    struct pc_head head;
    memset(&head, 0, offsetof(struct pc_head, fields));
    int len = pc_h1_parse_head(&head, io->in, io->in_len, limits);
    size_t size = offsetof(struct pc_head, fields) + head.field_count * sizeof head.fields[0];
    io->head = pc_arena_alloc(&io->arena, size);
    memcpy(io->head, &head, size); /* UNSAFE: as many fields as are there */
    return len;
}

/* Its head came whole, or was refused already. */
static enum pc_next
begin_stream(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_io *io = pc_io_take(worker, conn);
    struct pc_slice raw = {io->in, io->in_len};
    int len = conn->stream->error;
    if (pc_h2_stream_is_reset(conn)) { /* before anybody looked at it */
        pc_conn_close(worker, conn);
        return PC_GONE;
    }
    if (len == 0)
        len = parse_stream_head(io, &likely_host(worker->child, conn)->limits);
    if (len <= 0)
        return pc_request_refuse_head(worker, conn, len == 0 ? -PC_E_BAD : len, raw);
    io->head_len = (uint32_t)len;
    return begin_request(worker, conn);
}

/* Whether the bytes are HTTP/2's, without TLS and by prior knowledge (RFC 9113 3.3). 1, 0 they may become so, <0 no. */
static int
check_h2(const struct pc_worker *worker, const struct pc_conn *conn)
{
    const struct pc_io *io = conn->io;
    bool may_be = conn->requests == 0 && worker->child->has_h2c && conn->transport == &pc_transport_plain && io->in_at == 0;
    return may_be ? pc_h2_check_preface(io->in, io->in_len) : -PC_E_BAD;
}

enum pc_next
pc_request_head_step(struct pc_worker *worker, struct pc_conn *conn)
{
    if (conn->is_stream)
        return begin_stream(worker, conn);
    struct pc_io *io = pc_io_take(worker, conn);
    for (;;) {
        int preface = io->in_len > io->in_at && io->in[io->in_at] == 'P' ? check_h2(worker, conn) : -PC_E_BAD;
        if (preface > 0)
            return pc_h2_begin(worker, conn);
        if (io->in_len > io->in_at && preface < 0) {
            const struct pc_host *host = likely_host(worker->child, conn);
            int len = pc_h1_parse_head(io->head, io->in + io->in_at, io->in_len - io->in_at, &host->limits);
            if (len < 0)
                return pc_request_refuse_head(worker, conn, len, (struct pc_slice){io->in + io->in_at, io->in_len - io->in_at});
            if (len > 0) {
                io->head_len = (uint32_t)len;
                return begin_request(worker, conn);
            }
        }
        ssize_t count = read_more(conn);
        bool has_bytes = io->in_len > io->in_at;
        if (count == -PC_E_AGAIN)
            return has_bytes ? stash(worker, conn) : park(worker, conn);
        if (count == -PC_E_HEAD_LARGE)
            return pc_request_refuse_head(worker, conn, -PC_E_HEAD_LARGE, (struct pc_slice){io->in + io->in_at, io->in_len - io->in_at});
        if (count <= 0) { /* the client has gone; half a request needs no answer */
            pc_conn_close(worker, conn);
            return PC_GONE;
        }
        if (!has_bytes || (uint32_t)count == io->in_len - io->in_at) { /* the first bytes of a head */
            unpark(worker, conn);
            if (conn->requests > 0 || conn->since_ns == 0)
                conn->since_ns = worker->now_ns;
            pc_conn_deadline(worker->child, conn, 0);
        }
    }
}

/* ------------------------------------------------------------------ a body that is checked and thrown away */

/* Take what is in the buffer behind the head. Returns 0 more is needed, 1 done, <0 -PC_E_*. */
static int
skip_buffered(struct pc_io *io)
{
    uint32_t start = io->in_at + io->head_len, at = start;
    int result = 0;
    while (result == 0 && at < io->in_len && !io->body_done) {
        uint32_t held = io->in_len - at;
        if (io->body_chunked && io->body_raw) {
            at += held;
            io->body_seen += held;
            io->body_wire += held;
            continue;
        }
        if (!io->body_chunked) {
            uint32_t take = held < io->body_left ? held : (uint32_t)io->body_left;
            at += take;
            io->body_seen += take;
            io->body_wire += take;
            io->body_left -= take;
            io->body_done = io->body_left == 0;
            continue;
        }
        struct pc_slice data = {0};
        int used = pc_chunked_decode(&io->chunked, io->in + at, held, &data);
        if (used < 0)
            result = used;
        if (used <= 0)
            break;
        at += (uint32_t)used;
        io->body_seen += data.len;
        io->body_wire += (uint32_t)used;
        io->body_done = io->chunked.is_done;
    }
    memmove(io->in + start, io->in + at, io->in_len - at);
    io->in_len -= at - start;
    return io->body_done ? 1 : result;
}

uint64_t
pc_request_body_due(const struct pc_conn *conn)
{
    const struct pc_host *host = conn->host;
    uint64_t allowed_ms = host->body_ms > 0 ? host->body_ms : host->timeout_ms;
    if (host->body_ms > 0 && host->body_rate > 0)
        allowed_ms += conn->io->body_seen * 1000 / host->body_rate;
    if (host->body_max_ms > 0 && allowed_ms > host->body_max_ms)
        allowed_ms = host->body_max_ms;
    return conn->io->body_start_ns + allowed_ms * MS;
}

static enum pc_next
await_body(struct pc_worker *worker, struct pc_conn *conn)
{
    pc_conn_deadline(worker->child, conn, pc_request_body_due(conn));
    pc_transport_acknowledge(conn);
    if (pc_conn_watch(worker->child, conn) == 0)
        return PC_WAIT;
    pc_conn_close(worker, conn);
    return PC_GONE;
}

enum pc_next
pc_request_body_step(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    uint64_t limit = conn->host->base.has_limit_body ? conn->host->base.limit_body : 0;
    for (;;) {
        int done = skip_buffered(io);
        if (done < 0) {
            pc_request_say(worker->child, conn, PC_INFO, "http", "AH01590: Error reading/parsing chunk");
            return pc_request_refuse(worker, conn, 400);
        }
        if (limit > 0 && io->body_seen > limit)
            return pc_request_refuse(worker, conn, 413);
        if (done > 0 || io->body_seen > PC_MAX_DRAIN_BYTES) {
            io->answered_early = done == 0;
            if (io->is_prepared) /* the answer waited for this */
                return pc_respond_start(worker, conn);
            conn->phase = PC_PHASE_SERVE;
            return PC_GO;
        }
        ssize_t count = read_more(conn);
        if (count == -PC_E_AGAIN)
            return await_body(worker, conn);
        if (count == 0 && io->body_raw && io->body_chunked) {
            io->body_done = true;
            continue;
        }
        if (count == -PC_E_HEAD_LARGE) /* framing alone fills the buffer: no honest client does that */
            return pc_request_refuse(worker, conn, 400);
        if (count <= 0) {
            if (io->is_prepared)
                pc_respond_drop(io);
            pc_conn_close(worker, conn);
            return PC_GONE;
        }
    }
}

/* ------------------------------------------------------------------ asking for the response */

/* Path and name of the request. False: refused, and resp says how. */
static bool
read_target(struct pc_conn *conn, struct pc_req *req)
{
    struct pc_head *head = req->head;
    struct pc_slice target = pc_slice_at(req->raw, head->path), path;
    req->port_out = port_of(&req->name, conn);
    if (head->method_id == PC_OPTIONS && target.len == 1 && target.base[0] == '*') {
        req->path = PC_S("*");
        return true;
    }
    pc_uri_split(target, &path, &req->query);
    char *decoded = pc_arena_alloc(req->arena, path.len + 2);
    int len = pc_uri_decode_path(path, decoded, path.len + 1);
    if (len < 0) {
        bool is_odd = len == -PC_E_NOT_FOUND;
        pc_errlog_req(req, is_odd ? PC_INFO : PC_ERROR, "core",
                      is_odd ? "AH00026: found %%2f (encoded '/') in URI path (%.*s), returning 404" : "AH10244: invalid URI path (%.*s)",
                      (int)path.len, path.base);
        req->path = PC_S("/");
        pc_serve_error(req, pc_error_status(len));
        return false;
    }
    decoded[len] = '\0';
    req->path = (struct pc_slice){decoded, (size_t)len};
    return true;
}

static bool
prepare(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_req *req = &conn->io->req;
    const struct pc_hostname *name = &conn->io->head->host;
    /* The request points into the buffer from now on, so it must not move when its body is read later. */
    if (!conn->io->body_done)
        (void)pc_io_room(conn->io, conn->is_stream ? STREAM_READ_ROOM : READ_ROOM); /* full of body: that goes first, and leaves more */
    fill_request(worker, conn, conn->host);
    memcpy(req->name.name, name->name, name->len + 1u); /* UNSAFE: as long as the array it comes from, which is as long */
    req->name.len = name->len;
    req->name.port = name->port;
    if (conn->front != PC_FRONT_TAKEN) /* what a PROXY protocol header says counts more, as in httpd */
        pc_remoteip_apply(req);
    return read_target(conn, &conn->io->req);
}

/* The response is ready. A body that was left unread for a program that is none is skipped first. */
static enum pc_next
answer(struct pc_worker *worker, struct pc_conn *conn)
{
    if (!skips_body(conn->io))
        return pc_respond_start(worker, conn);
    conn->phase = PC_PHASE_BODY;
    return PC_GO;
}

enum pc_next
pc_request_serve_step(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    struct pc_req *req = &io->req;
    if (!io->is_prepared) {
        io->is_prepared = true;
        pc_conn_deadline(worker->child, conn, 0);
        if (!prepare(worker, conn))
            return answer(worker, conn);
    }
    req->may_block = worker->may_block;
    enum pc_serve served = pc_serve(req);
    if (worker->may_block) /* it may have taken its time, and deadlines count from now on */
        worker->now_ns = pc_now_ns();
    if (served == PC_SERVED)
        return answer(worker, conn);
    if (served == PC_SERVE_GATE)
        return pc_gate_begin(worker, conn);
    conn->asks = served == PC_SERVE_ASK;
    return PC_JOB; /* needs a thread that may take its time, or Python */
}
