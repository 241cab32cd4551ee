/* gate_http.c - HTTP/1.1 to a back end (ProxyPass, AppServer, WSGIScriptAlias), and WebSocket through it.
 * Runs as:  child, as the identity that owns the host.   Sees: a request and its answer.
 * Holds:    the connection, while the gate lives; kept.c keeps it for the next request when this one's answer was whole.
 * Distrusts: the client: what goes out was made of the parsed request (h1out.c), its body framed anew; the back end: its answer is
 *            parsed, and only a connection on which nothing came behind it is used again.
 * Before:   gate.c, proxy.c   After: backend.c, dial.c, h1out.c */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "dial.h"
#include "serve.h"

#define MS 1000000ull
#define DEFAULT_PORT 80
#define DEFAULT_RETRY_S 60 /* as httpd's */
#define MODULE "proxy_http"

struct http {
    struct pc_gate gate; /* first: a struct pc_gate * is a struct http * */
    struct pc_dial dial;
    struct pc_slice head; /* of the request, in its arena */
    size_t head_at;
    bool is_ready;        /* its head is there, and the dial has a back end */
    bool is_open;         /* the dial is, and that was noted */
    bool is_fresh;        /* no kept connection any more: one has broken */
    bool wants_upgrade;   /* the client asked for another protocol, and the pass allows it */
    bool sends_chunks, has_chunk, has_last_chunk;
    bool has_heard, has_failed, has_repeated;
    char frame[24];       /* of a chunk: what is still to go out before its bytes */
    uint32_t frame_at, frame_len;
    size_t chunk_left;
};

static struct http *
http_of(struct pc_gate *gate)
{
    return (struct http *)(void *)gate;
}

/* ------------------------------------------------------------------ what is sent */

/* Whether upgrade= lets this protocol through: one of its words does, or ANY. NONE is two things, as with httpd: http:// passes no
 * protocol on, ws:// whichever is asked for. */
static bool
is_allowed(struct pc_slice allowed, struct pc_slice wanted, bool is_ws)
{
    struct pc_slice word;
    if (pc_slice_ieq(allowed, PC_S("none")))
        return is_ws;
    for (size_t at = 0; pc_list_next(allowed, &at, &word);)
        if (word.len > 0 && (pc_slice_ieq(word, PC_S("any")) || pc_slice_ieq(word, wanted)))
            return true;
    return false;
}

/* HTTP/2 in a tunnel would be requests that nobody here sees (h2c smuggling), whatever the configuration lets through. */
static bool
names_h2c(struct pc_slice wanted)
{
    struct pc_slice item;
    size_t at = 0;
    while (pc_list_next(wanted, &at, &item))
        if (pc_slice_ieq(item, PC_S("h2c")) || pc_slice_ieq(item, PC_S("h2")))
            return true;
    return false;
}

/* Whether the client asks for a protocol that the configuration lets through. */
static bool
may_upgrade(const struct pc_gate *gate, const struct pc_target *target)
{
    const struct pc_req *req = gate->req;
    struct pc_slice allowed = PC_S("websocket");
    bool is_ws = pc_slice_ieq(target->scheme, PC_S("ws"));
    struct pc_slice wanted = pc_fields_in(req, PC_S("Upgrade"));
    if (gate->wants_body || req->is_without_body || req->error_status != 0 || !pc_h1out_wants_upgrade(req) || names_h2c(wanted))
        return false;
    if (req->pass != NULL && req->pass->upgrade.base != NULL)
        allowed = req->pass->upgrade;
    else if (!is_ws && target->kind != PC_TARGET_SERVICE)
        return false;
    return is_allowed(allowed, wanted, is_ws);
}

/* As httpd: without the port that http has anyway. */
static struct pc_slice
host_of(struct pc_req *req, const struct pc_target *target)
{
    if (target->kind != PC_TARGET_TCP || target->port != DEFAULT_PORT)
        return target->authority.len > 0 ? target->authority : PC_S("localhost");
    size_t len = target->authority.len;
    while (target->authority.base[len - 1] != ':')
        len--;
    return pc_arena_copy(req->arena, (struct pc_slice){target->authority.base, len - 1});
}

static bool
preserves_host(const struct pc_req *req, const struct pc_target *target)
{
    int32_t preserves = -1;
    for (uint32_t i = req->layer_count; i-- > 0 && preserves < 0;)
        preserves = req->layers[i]->preserve_host;
    return preserves == 1 || target->kind == PC_TARGET_SERVICE; /* an application is asked by the names it has outside */
}

/* Whether trailers of the answer would go on: in HTTP/2 always, in HTTP/1.1 if the client has said so. What RequestHeader makes of TE
 * counts instead. */
static bool
takes_trailers(const struct pc_gate *gate)
{
    const struct pc_req *req = gate->req;
    bool has_none = req->error_status != 0 || pc_serve_method(req) == PC_HEAD || req->head->minor == 0;
    struct pc_pair *fields;
    struct pc_slice item;
    if (has_none || (req->is_h2 && !pc_fields_is_edited(req, PC_S("TE"))))
        return !has_none;
    if (pc_fields_in(req, PC_S("TE")).base == NULL)
        return false;
    for (uint32_t i = pc_fields_in_all(req, &fields); i-- > 0;)
        for (size_t at = 0; pc_slice_ieq(fields[i].name, PC_S("TE")) && pc_list_next(fields[i].value, &at, &item);)
            if (pc_slice_ieq(item, PC_S("trailers")))
                return true;
    return false;
}

static void
choose_framing(struct http *http, struct pc_h1out_facts *facts)
{
    const struct pc_gate *gate = &http->gate;
    const struct pc_io *io = gate->conn->io;
    bool has_none = gate->req->is_without_body || gate->req->error_status != 0;
    facts->framing = PC_H1OUT_NO_BODY;
    if (has_none)
        facts->method = pc_serve_method(gate->req) == PC_HEAD ? PC_S("HEAD") : PC_S("GET");
    else if (io->body_chunked && gate->wants_body)
        facts->framing = PC_H1OUT_CHUNKED;
    else if (io->head->has_length || io->body_chunked || gate->req->head->method_id == PC_POST)
        facts->framing = PC_H1OUT_LENGTH;
    facts->length = io->head->has_length ? io->head->content_length : 0;
    http->sends_chunks = facts->framing == PC_H1OUT_CHUNKED;
}

/* Request line and fields, in the request's arena. 0 or a status. */
static int
make_head(struct pc_worker *worker, struct http *http, const struct pc_target *target)
{
    struct pc_req *req = http->gate.req;
    char *escaped = pc_arena_alloc(req->arena, 3 * target->path.len + 1);
    struct pc_slice path = {escaped, pc_target_escape(target->path, escaped)};
    bool has_query = req->query.base != NULL;
    struct pc_h1out_facts facts = {
        .target = pc_arena_print(req->arena, "%s%.*s%s%.*s", path.len > 0 ? "" : "/", (int)path.len, path.base, has_query ? "?" : "",
                                 has_query ? (int)req->query.len : 0, has_query ? req->query.base : ""),
        .host = host_of(req, target), .preserve_host = preserves_host(req, target),
        .keep = req->pass == NULL || !req->pass->single_use,
        .takes_trailers = takes_trailers(&http->gate),
    };
    http->wants_upgrade = facts.is_upgrade = may_upgrade(&http->gate, target);
    http->gate.takes_trailers = facts.takes_trailers && !facts.is_upgrade;
    choose_framing(http, &facts);
    int len = pc_h1out_head(req, &facts, worker->out, PC_OUT_BYTES); /* nothing lies there in this phase */
    if (len > 0) {
        http->head = pc_arena_copy(req->arena, (struct pc_slice){worker->out, (size_t)len});
        return 0;
    }
    pc_errlog_req(req, PC_ERROR, MODULE, "the request cannot be passed on: %s: %.*s",
                  len == -PC_E_HEAD_LARGE ? "its head is too large" : "a field of it would not stay on its line", (int)req->filename.len,
                  req->filename.base);
    return len == -PC_E_HEAD_LARGE ? 431 : 400;
}

/* ------------------------------------------------------------------ errors, in httpd's words */

static int
say_unreachable(struct http *http, const char *why)
{
    struct pc_gate *gate = &http->gate;
    struct pc_slice name = pc_backend_name(http->dial.backend);
    pc_errlog_req(gate->req, PC_ERROR, "proxy", "AH00957: http: attempt to connect to %.*s failed: %s", (int)name.len, name.base, why);
    pc_errlog_req(gate->req, PC_ERROR, MODULE, "AH01114: HTTP: failed to make connection to backend: %.*s", (int)name.len, name.base);
    return 503;
}

/* The answer's head will not come: once. */
static ssize_t
fail(struct http *http, uint32_t status, const char *what)
{
    struct pc_gate *gate = &http->gate;
    struct pc_slice name = pc_backend_name(http->dial.backend);
    if (gate->failed_status == 0 && gate->head_len == 0) {
        pc_errlog_req(gate->req, PC_ERROR, MODULE, "AH01102: error reading status line from remote server %.*s: %s", (int)name.len,
                      name.base, what);
        pc_errlog_req(gate->req, PC_ERROR, "proxy", "AH00898: Error reading from remote server returned by %.*s",
                      (int)gate->req->path.len, gate->req->path.base);
    }
    gate->failed_status = gate->failed_status != 0 ? gate->failed_status : status;
    return -PC_E_CLOSED;
}

/* It broke within the answer: once. */
static void
say_broken(struct http *http)
{
    struct pc_slice name = pc_backend_name(http->dial.backend);
    if (!http->gate.is_broken)
        pc_errlog_req(http->gate.req, PC_ERROR, MODULE, "AH01110: error reading response: the connection to %.*s broke", (int)name.len,
                      name.base);
    http->gate.is_broken = true;
}

static void
note_failure(struct http *http, bool has_failed)
{
    struct pc_gate *gate = &http->gate;
    if (gate->req->pass != NULL && !pc_backend_is_service(http->dial.backend))
        pc_backend_note(gate->child, http->dial.backend, pc_now_ns(), has_failed);
}

static ssize_t
fail_to_connect(struct http *http)
{
    struct pc_gate *gate = &http->gate;
    if (!http->has_failed) {
        http->has_failed = true;
        if (!pc_dial_lacks_own(&http->dial)) /* that it cannot be reached from here now says nothing about it */
            note_failure(http, true);
        gate->failed_status = (uint32_t)say_unreachable(http, pc_dial_why(&http->dial));
    }
    return -PC_E_CLOSED;
}

static int
say_late(struct pc_gate *gate)
{
    struct http *http = http_of(gate);
    if (http->dial.state == PC_DIAL_OPEN) {
        (void)fail(http, 504, "The timeout specified has expired");
        return 504;
    }
    if (http->dial.backend == NULL)
        return 503;
    note_failure(http, true);
    return say_unreachable(http, http->dial.state == PC_DIAL_WAKING ? "the service does not start" : "The timeout specified has expired");
}

/* ------------------------------------------------------------------ the start */

static uint32_t
silence_ms(const struct pc_req *req)
{
    uint32_t timeout_ms = req->pass != NULL ? req->pass->timeout_ms : 0;
    for (uint32_t i = req->layer_count; i-- > 0 && timeout_ms == 0;)
        timeout_ms = req->layers[i]->proxy_timeout_ms;
    return timeout_ms;
}

/* Its back end has so much time to be there; a service may have to be started first, whatever its requests' timeouts are. */
static void
limit_dial(struct http *http, uint64_t now_ns)
{
    struct pc_gate *gate = &http->gate;
    const struct pc_pass *pass = gate->req->pass;
    uint64_t patience_ms = pc_backend_is_service(http->dial.backend) ? PC_WAKE_MS : pass != NULL ? pass->connect_ms : 0;
    http->is_open = false;
    gate->timeout_ms = patience_ms > 0 ? patience_ms : silence_ms(gate->req);
    gate->due_ns = patience_ms > 0 ? now_ns + patience_ms * MS : 0;
    gate->progress_ns = now_ns;
}

/* From here on it has as much time for its answer as it is allowed to be silent. */
static void
note_open(struct http *http)
{
    struct pc_gate *gate = &http->gate;
    http->is_open = true;
    gate->due_ns = 0;
    gate->timeout_ms = silence_ms(gate->req);
    gate->progress_ns = pc_now_ns();
    note_failure(http, false);
}

/* A failed back end is left alone for a while. 0 or a status. */
static int
check_hold(struct pc_worker *worker, struct http *http)
{
    const struct pc_req *req = http->gate.req;
    struct pc_slice name = pc_backend_name(http->dial.backend);
    if (req->pass == NULL || pc_backend_is_service(http->dial.backend))
        return 0;
    uint32_t hold_s = req->pass->retry_s_plus_1 > 0 ? req->pass->retry_s_plus_1 - 1 : DEFAULT_RETRY_S;
    if (!pc_backend_is_held(worker->child, http->dial.backend, pc_now_ns(), hold_s))
        return 0;
    pc_errlog_req(req, PC_ERROR, "proxy", "AH00940: HTTP: disabled connection for (%.*s): it failed less than %u s ago", (int)name.len,
                  name.base, (unsigned)hold_s);
    return 503;
}

/* 0, -PC_E_SYS (in a thread that may wait), or a status. */
static int
prepare(struct pc_worker *worker, struct http *http)
{
    struct pc_gate *gate = &http->gate;
    struct pc_req *req = gate->req;
    struct pc_target target;
    int found = pc_target_parse(req->back_end, &target);
    if (found == 0)
        found = pc_backend_find(worker->child, &target, PC_BACKEND_HTTP, DEFAULT_PORT, worker->may_block, &http->dial.backend);
    if (found == -PC_E_AGAIN)
        return -PC_E_SYS;
    if (found == -PC_E_NOT_FOUND) {
        pc_errlog_req(req, PC_ERROR, "proxy", "AH00898: DNS lookup failure for: %.*s returned by %.*s", (int)target.host.len,
                      target.host.base, (int)req->path.len, req->path.base);
        return 502;
    }
    if (found != 0) {
        pc_errlog_req(req, PC_ERROR, "proxy", "AH01144: no back end can be made of %.*s", (int)req->back_end.len, req->back_end.base);
        return 503;
    }
    int status = check_hold(worker, http);
    if (status == 0)
        status = make_head(worker, http, &target);
    if (status != 0)
        return status;
    gate->is_framed = true;
    http->is_ready = true;
    return 0;
}

static bool
is_repeatable(const struct http *http)
{
    return !http->wants_upgrade && pc_gate_is_repeatable(&http->gate);
}

/* One that ends at this moment must do no harm. */
static bool
may_use_kept(const struct http *http)
{
    const struct pc_req *req = http->gate.req;
    return (req->pass == NULL || !req->pass->single_use) && is_repeatable(http) && !http->is_fresh;
}

static int
start(struct pc_worker *worker, struct pc_conn *conn)
{
    struct http *http = http_of(conn->gate);
    if (!http->is_ready) {
        int status = prepare(worker, http);
        if (status != 0)
            return status;
    }
    limit_dial(http, worker->now_ns);
    int begun = pc_dial_begin(&http->dial, &http->gate, !may_use_kept(http));
    http->gate.full = http->dial.is_queue_full ? http->dial.backend : NULL;
    if (begun == -PC_E_MEMORY)
        return -PC_E_AGAIN;
    if (begun == -PC_E_CLOSED)
        (void)fail_to_connect(http);
    return begun == -PC_E_CLOSED ? (int)http->gate.failed_status : 0;
}

/* ------------------------------------------------------------------ sending */

/* 0 all of it is out, -PC_E_AGAIN, -PC_E_CLOSED. */
static int
flush(struct http *http, const char *bytes, size_t len, size_t *at)
{
    while (*at < len) {
        ssize_t sent = pc_dial_send(&http->dial, &http->gate, bytes + *at, len - *at);
        if (sent < 0)
            return (int)sent;
        *at += (size_t)sent;
    }
    return 0;
}

/* Connected, and the head is out: 0, -PC_E_AGAIN, -PC_E_CLOSED. */
static int
get_ready(struct http *http)
{
    int step = pc_dial_step(&http->dial, &http->gate);
    if (step == -PC_E_CLOSED)
        (void)fail_to_connect(http);
    if (step != 0)
        return step;
    if (!http->is_open)
        note_open(http);
    return flush(http, http->head.base, http->head.len, &http->head_at);
}

static int
flush_frame(struct http *http)
{
    size_t at = http->frame_at;
    int status = flush(http, http->frame, http->frame_len, &at);
    http->frame_at = (uint32_t)at;
    return status;
}

static void
begin_frame(struct http *http, size_t len, const char *tail)
{
    int count = snprintf(http->frame, sizeof http->frame, "%s%zx\r\n%s", http->has_chunk ? "\r\n" : "", len, tail);
    http->frame_at = 0;
    http->frame_len = (uint32_t)count;
    http->has_chunk = true;
}

static ssize_t
send_body(struct pc_gate *gate, const char *buf, size_t len)
{
    struct http *http = http_of(gate);
    int status = get_ready(http);
    if (status != 0)
        return status;
    if (!http->sends_chunks || gate->is_tunnel)
        return pc_dial_send(&http->dial, &http->gate, buf, len);
    if (http->chunk_left == 0) {
        begin_frame(http, len, "");
        http->chunk_left = len;
    }
    status = flush_frame(http);
    if (status != 0)
        return status;
    ssize_t sent = pc_dial_send(&http->dial, &http->gate, buf, len < http->chunk_left ? len : http->chunk_left);
    http->chunk_left -= sent > 0 ? (size_t)sent : 0;
    return sent;
}

static int
end_body(struct pc_gate *gate)
{
    struct http *http = http_of(gate);
    if (gate->is_tunnel) {
        (void)shutdown(http->dial.fd, SHUT_WR); /* fails only if the other side has gone: the next recv says so */
        return 0;
    }
    int status = get_ready(http);
    if (status != 0 || !http->sends_chunks)
        return status;
    if (!http->has_last_chunk)
        begin_frame(http, 0, "\r\n");
    http->has_last_chunk = true;
    return flush_frame(http);
}

/* ------------------------------------------------------------------ hearing */

/* Whether a connection that ended without a word is no failure yet: a kept one has been idle for too long, and a service that is
 * started anew ends what it has accepted and not yet read (uvicorn does); its successor has the same socket. */
static bool
may_repeat(const struct http *http)
{
    if (http->has_heard || http->has_repeated)
        return false;
    return http->dial.is_kept || (pc_backend_is_service(http->dial.backend) && is_repeatable(http));
}

/* Once more, on a connection of its own, which has as much time as the first one had. */
static ssize_t
repeat(struct http *http)
{
    struct pc_gate *gate = &http->gate;
    http->has_repeated = !http->dial.is_kept;
    http->is_fresh = true;
    pc_dial_end(&http->dial);
    http->head_at = 0;
    limit_dial(http, pc_now_ns());
    int begun = pc_dial_begin(&http->dial, gate, true);
    if (begun == -PC_E_CLOSED)
        return fail_to_connect(http);
    if (begun == -PC_E_MEMORY) { /* it has to wait for room, which gate.c does with what has not started */
        gate->is_started = false;
        gate->waiting_ns = 0;
        (void)pc_conn_requeue(gate->child, gate->conn); /* fails only if the socket is gone: the deadline ends it */
    }
    return -PC_E_AGAIN;
}

static ssize_t
hear(struct pc_gate *gate, char *buf, size_t cap)
{
    struct http *http = http_of(gate);
    if (!gate->is_started) /* repeat */
        return -PC_E_AGAIN;
    int status = gate->is_tunnel ? 0 : get_ready(http);
    if (http->has_failed || (status != 0 && http->dial.state != PC_DIAL_OPEN))
        return status;
    /* One that has answered before it took the whole request is heard all the same. */
    ssize_t count = pc_dial_recv(&http->dial, buf, cap);
    if (count > 0) {
        http->has_heard = true;
        return count;
    }
    if (count == -PC_E_AGAIN)
        return count;
    if (may_repeat(http)) {
        ssize_t again = repeat(http);
        return again == -PC_E_AGAIN ? hear(gate, buf, cap) : again;
    }
    if (gate->head_len == 0)
        return fail(http, 502, count == 0 ? "it closed the connection" : "the connection broke");
    if (count < 0 && !gate->is_tunnel)
        say_broken(http);
    return count;
}

static int
parse(struct pc_gate *gate, struct pc_reply *reply, const char *buf, size_t len)
{
    struct http *http = http_of(gate);
    int result = pc_reply_parse_http(reply, buf, len, pc_serve_method(gate->req) == PC_HEAD);
    bool is_unasked = result > 0 && reply->framing == PC_REPLY_TUNNEL && !http->wants_upgrade;
    if (result < 0 || is_unasked) {
        (void)fail(http, 502, is_unasked ? "it switched to a protocol that nobody asked for" : "its head is malformed, or too large");
        return -PC_E_BAD;
    }
    gate->is_tunnel = result > 0 && reply->framing == PC_REPLY_TUNNEL;
    return result;
}

/* ------------------------------------------------------------------ the response's fields */

/* ProxyPassReverse of all layers. */
static struct pc_slice
outer_url(struct pc_req *req, struct pc_slice url)
{
    struct pc_slice self = pc_map_self(req);
    for (uint32_t i = 0; i < req->layer_count; i++) {
        const struct pc_settings *layer = req->layers[i];
        struct pc_slice found = pc_proxy_reverse(req->arena, url, self, layer->proxy_reverse, layer->proxy_reverse_count);
        if (found.base != NULL)
            return found;
    }
    return url;
}

static struct pc_slice
outer_cookie(struct pc_req *req, struct pc_slice cookie)
{
    for (uint32_t i = 0; i < req->layer_count; i++) {
        const struct pc_settings *layer = req->layers[i];
        cookie = pc_proxy_cookie(req->arena, cookie, layer->cookie_paths, layer->cookie_path_count, layer->cookie_domains,
                                 layer->cookie_domain_count);
    }
    return cookie;
}

static int
dress(struct pc_gate *gate)
{
    static const struct { struct pc_slice name; struct pc_slice (*change)(struct pc_req *req, struct pc_slice value); } rows[] = {
        {{"Location", 8}, outer_url}, {{"Content-Location", 16}, outer_url}, {{"URI", 3}, outer_url}, {{"Set-Cookie", 10}, outer_cookie},
    };
    struct pc_req *req = gate->req;
    for (uint32_t i = 0; i < req->resp.field_count; i++) {
        struct pc_out_field *field = &req->resp.fields[i];
        for (size_t j = 0; j < sizeof rows / sizeof rows[0]; j++)
            if (pc_slice_ieq(field->name, rows[j].name))
                field->value = rows[j].change(req, field->value);
    }
    return 0;
}

/* ------------------------------------------------------------------ the end */

/* Everything was sent, the answer was whole, and nothing came behind it. */
static bool
is_through(const struct http *http)
{
    const struct pc_gate *gate = &http->gate;
    bool is_sent = http->head_at == http->head.len && (!gate->wants_body || (gate->has_sent_end && !gate->discards));
    bool is_whole = gate->head_len > 0 && gate->is_over && gate->down_at == gate->down_len;
    bool may_keep = gate->req->pass == NULL || !gate->req->pass->single_use;
    return is_sent && is_whole && may_keep && !gate->reply->wants_close && http->dial.state == PC_DIAL_OPEN;
}

static void
end(struct pc_gate *gate, bool is_cut)
{
    struct http *http = http_of(gate);
    if (http->dial.backend == NULL)
        return;
    if (!is_cut && is_through(http))
        pc_dial_keep(&http->dial, gate);
    else
        pc_dial_end(&http->dial);
}

const struct pc_gate_ops pc_gate_http = {
    .module = MODULE,
    .busy = "the job box, or the queue of the back end's socket, is full",
    .size = sizeof(struct http),
    .answers_soon = true,
    .start = start,
    .send = send_body,
    .send_end = end_body,
    .recv = hear,
    .parse = parse,
    .late = say_late,
    .dress = dress,
    .end = end,
};
