/* gate_answer.c - what a program answers becomes a response: its head is checked, its body streamed.
 * Runs as:  child, as the identity that owns the host.   Sees: the program's answer.
 * Distrusts: all of it: a head that breaks a rule is an error of ours (500, 502), never passed on; of a body goes out just as much as its
 *            head promised.
 * Before:   gate.c, reply.c   After: respond.c */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memrchr */
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gate.h"
#include "h2.h"
#include "serve.h"

#define MAX_INTERIM_HEADS 64 /* a program that writes them without end would hold the thread that reads them */
#define STATUS_EARLY_HINTS 103
#define MAX_INTERIM_BYTES 65536 /* of those that the client has not taken yet */

/* ------------------------------------------------------------------ the head */

static struct pc_slice
script_name(const struct pc_req *req)
{
    const char *slash = req->filename.len > 0 ? memrchr(req->filename.base, '/', req->filename.len) : NULL;
    size_t skip = slash != NULL ? (size_t)(slash + 1 - req->filename.base) : 0;
    return (struct pc_slice){req->filename.base + skip, req->filename.len - skip};
}

static int
refuse_head(const struct pc_gate *gate, const char *why)
{
    struct pc_slice name = script_name(gate->req);
    if (gate->failed_status != 0)
        return (int)gate->failed_status;
    pc_errlog_req(gate->req, PC_ERROR, gate->ops->module, "%s: %.*s", why, (int)name.len, name.base);
    return (int)gate->broken_status;
}

/* Room for at least one byte more. False: the head has as much as it may. */
static bool
make_room(struct pc_gate *gate)
{
    if (gate->down_len < gate->down_cap)
        return true;
    if (gate->down_cap >= PC_MAX_REPLY_HEAD_BYTES)
        return false;
    uint32_t cap = gate->down_cap == 0 ? PC_GATE_DOWN_BYTES : PC_MAX_REPLY_HEAD_BYTES;
    char *grown = realloc(gate->down, cap);
    if (grown == NULL)
        pc_die(111, "out of memory");
    gate->down = grown;
    gate->down_cap = cap;
    return true;
}

/* One head, or one step towards it. >0 its length, 0 need more, <0. */
static int
parse_head(struct pc_gate *gate)
{
    if (gate->reply == NULL) {
        gate->reply = pc_arena_alloc(gate->req->arena, sizeof *gate->reply);
        memset(gate->reply, 0, offsetof(struct pc_reply, fields));
    }
    return gate->down_len > 0 ? gate->ops->parse(gate, gate->reply, gate->down, gate->down_len) : 0;
}

/* Whether the client hears of this interim response, as it would from httpd: not of 100, which it was told by us if it had asked; not in
 * HTTP/1.0, which has none; not of 103 in HTTP/2 unless H2EarlyHints says so; and not where the configuration says SetEnv
 * proxy-interim-response Suppress. */
static bool
may_pass_interim(const struct pc_gate *gate)
{
    const struct pc_req *req = gate->req;
    struct pc_slice policy = pc_env_get(req, PC_S("proxy-interim-response"));
    bool is_wanted = policy.base == NULL || pc_slice_ieq(policy, PC_S("RFC"));
    bool is_kept_back = gate->conn->is_stream && gate->reply->status == STATUS_EARLY_HINTS && gate->child->config->h2.early_hints == 0;
    return is_wanted && !is_kept_back && gate->reply->status > 101 && req->head->minor == 1 && req->error_status == 0;
}

/* Fields of an interim response that are the client's: neither of the back end's connection nor of framing. */
static bool
is_of_interim(const struct pc_reply_field *field)
{
    bool is_framing = field->id == PC_REPLY_CONTENT_LENGTH || field->id == PC_REPLY_TRANSFER_ENCODING || field->id == PC_REPLY_TRAILER;
    return !field->is_hop && !is_framing;
}

static void
pass_interim_on_stream(const struct pc_gate *gate)
{
    const struct pc_reply *reply = gate->reply;
    struct pc_pair *pairs = pc_arena_alloc(gate->req->arena, (reply->field_count + 1) * sizeof *pairs);
    uint32_t count = 0;
    for (uint32_t i = 0; i < reply->field_count; i++) {
        const struct pc_reply_field *field = &reply->fields[i];
        if (is_of_interim(field))
            pairs[count++] = (struct pc_pair){pc_slice_at(gate->down, field->name), pc_slice_at(gate->down, field->value)};
    }
    pc_h2_stream_interim(gate->conn, reply->status, pairs, count);
}

static size_t
put_line(char *to, struct pc_slice a, const char *between, struct pc_slice b)
{
    size_t len = strlen(between);
    memcpy(to, a.base, a.len); /* UNSAFE: whoever calls has counted these, too */
    memcpy(to + a.len, between, len);
    if (b.len > 0)
        memcpy(to + a.len + len, b.base, b.len);
    memcpy(to + a.len + len + b.len, "\r\n", 2);
    return a.len + len + b.len + 2;
}

/* 103 and the like, behind what of another one has not gone out yet. A client that takes none of them in time goes without. */
static void
pass_interim(struct pc_gate *gate, uint32_t head_len)
{
    const struct pc_reply *reply = gate->reply;
    struct pc_slice rest = gate->interim;
    size_t room = rest.len + head_len + 5 * (size_t)reply->field_count + 32; /* a field's blanks may have been left out */
    if (room > MAX_INTERIM_BYTES)
        return;
    char *text = pc_arena_alloc(gate->req->arena, room), status[24];
    if (rest.len > 0)
        memcpy(text, rest.base, rest.len);
    int len = snprintf(status, sizeof status, "HTTP/1.1 %03u", (unsigned)reply->status);
    size_t used = rest.len + put_line(text + rest.len, (struct pc_slice){status, (size_t)len}, " ", pc_slice_at(gate->down, reply->reason));
    for (uint32_t i = 0; i < reply->field_count; i++) {
        const struct pc_reply_field *field = &reply->fields[i];
        if (is_of_interim(field))
            used += put_line(text + used, pc_slice_at(gate->down, field->name), ": ", pc_slice_at(gate->down, field->value));
    }
    memcpy(text + used, "\r\n", 2);
    gate->interim = (struct pc_slice){text, used + 2};
    (void)pc_gate_say_interim(gate); /* as with 100: what does not go out now goes before the next step */
}

static void
skip_interim(struct pc_gate *gate, uint32_t len)
{
    bool may_pass = may_pass_interim(gate);
    if (may_pass && gate->conn->is_stream)
        pass_interim_on_stream(gate);
    else if (may_pass)
        pass_interim(gate, len);
    memmove(gate->down, gate->down + len, gate->down_len - len);
    gate->down_len -= len;
    memset(gate->reply, 0, offsetof(struct pc_reply, fields));
}

int
pc_gate_hear_head(struct pc_worker *worker, struct pc_gate *gate)
{
    while (gate->head_len == 0) {
        int len = parse_head(gate);
        if (len > 0 && gate->reply->is_interim) {
            if (++gate->interim_heads > MAX_INTERIM_HEADS)
                return refuse_head(gate, "too many interim responses from script");
            skip_interim(gate, (uint32_t)len);
            continue;
        }
        if (len > 0) {
            gate->head_len = gate->down_at = (uint32_t)len;
            break;
        }
        if (len < 0 || !make_room(gate))
            return refuse_head(gate, len == -PC_E_BAD ? "malformed header from script" : "header from script is too large");
        ssize_t count = gate->ops->recv(gate, gate->down + gate->down_len, gate->down_cap - gate->down_len);
        if (count == -PC_E_AGAIN)
            return -PC_E_AGAIN;
        if (count <= 0) {
            gate->has_ended = true;
            if (gate->ops->listen != NULL)
                (void)gate->ops->listen(gate); /* its last words come first */
            return refuse_head(gate, "End of script output before headers");
        }
        gate->down_len += (uint32_t)count;
        gate->progress_ns = worker->now_ns;
    }
    return 0;
}

/* ------------------------------------------------------------------ the response */

static int next_bytes(struct pc_req *req, struct pc_slice *ret_bytes);
static void end_answer(struct pc_req *req);
static const struct pc_producer producer = {.next = next_bytes, .end = end_answer};

/* Written by respond.c, or told by what it writes. */
static bool
is_ours(const struct pc_reply_field *field)
{
    switch ((enum pc_reply_id)field->id) {
    case PC_REPLY_STATUS:
    case PC_REPLY_CONTENT_LENGTH:
    case PC_REPLY_TRANSFER_ENCODING:
    case PC_REPLY_CONNECTION:
    case PC_REPLY_TRAILER: /* see announce_trailers */
    case PC_REPLY_DATE: /* httpd keeps a back end's: see keep_origin */
    case PC_REPLY_SERVER:
        return true;
    default:
        return field->is_hop;
    }
}

/* A back end knows best when it answered, and who it is; and another protocol's name goes along with a 101. */
static bool
keep_origin(const struct pc_gate *gate, const struct pc_reply_field *field, struct pc_slice value)
{
    struct pc_resp *resp = &gate->req->resp;
    if (!gate->is_framed)
        return false;
    if (field->id == PC_REPLY_DATE)
        resp->date = value;
    if (field->id == PC_REPLY_SERVER)
        resp->server = value;
    return gate->is_tunnel && field->id == PC_REPLY_UPGRADE;
}

/* Trailer names what may come behind the body: it goes on if that does. */
static void
announce_trailers(struct pc_gate *gate, const struct pc_reply_field *field)
{
    if (!gate->takes_trailers || gate->reply->framing != PC_REPLY_CHUNKED || field->is_hop)
        return;
    struct pc_slice names = pc_trailer_names(gate->req->arena, pc_slice_at(gate->head, field->value), gate->reply, gate->head);
    if (names.len > 0)
        pc_resp_add(gate->req, PC_S("Trailer"), names);
}

static void
put_fields(struct pc_gate *gate)
{
    struct pc_req *req = gate->req;
    const struct pc_reply *reply = gate->reply;
    /* One copy for all: the buffer is the body's from now on. */
    const char *head = gate->head = pc_arena_copy(req->arena, (struct pc_slice){gate->down, gate->head_len}).base;
    for (uint32_t i = 0; i < reply->field_count; i++) {
        const struct pc_reply_field *field = &reply->fields[i];
        if (keep_origin(gate, field, pc_slice_at(head, field->value)) || !is_ours(field))
            pc_resp_add(req, pc_slice_at(head, field->name), pc_slice_at(head, field->value));
        else if (field->id == PC_REPLY_TRAILER)
            announce_trailers(gate, field);
    }
    req->resp.reason = pc_slice_at(head, reply->reason);
    req->resp.content_type = pc_slice_at(head, reply->content_type);
}

static void
put_body(struct pc_gate *gate)
{
    struct pc_resp *resp = &gate->req->resp;
    const struct pc_reply *reply = gate->reply;
    resp->body = PC_BODY_PRODUCER;
    resp->producer = &producer;
    resp->has_length = reply->has_length;
    resp->length = reply->length;
    bool has_none = gate->req->head->method_id == PC_HEAD || reply->framing == PC_REPLY_NO_BODY;
    gate->keeps_quiet = has_none;
    gate->has_left = reply->has_length && !has_none;
    gate->left_bytes = reply->length;
    gate->is_chunked = reply->framing == PC_REPLY_CHUNKED;
    if (gate->is_framed && has_none && !gate->is_tunnel) {
        gate->keeps_quiet = false;
        gate->is_over = true;
    }
    gate->is_over = gate->is_over || (gate->is_framed && gate->has_left && gate->left_bytes == 0);
}

/* From here on the connection is another protocol's: what comes goes on, in both directions. */
static void
open_tunnel(struct pc_gate *gate)
{
    struct pc_io *io = gate->conn->io;
    if (gate->up == NULL && (gate->up = malloc(PC_GATE_UP_BYTES)) == NULL)
        pc_die(111, "out of memory");
    gate->wants_body = true;
    gate->has_sent_end = false;
    gate->has_invited = true;
    gate->body_limit = 0;
    gate->keeps_quiet = gate->has_left = false;
    gate->closes = true;
    io->body_done = io->body_chunked = false;
    io->body_left = UINT64_MAX;
    gate->req->resp.is_tunnel = true;
    gate->req->resp.has_length = false;
}

/* Validators of the program's own make its answer conditional, as a file's do (httpd: ap_meets_conditions). 0 or 412. */
static int
apply_conditions(struct pc_gate *gate)
{
    struct pc_req *req = gate->req;
    uint8_t method = pc_serve_method(req);
    struct pc_validators now = {.etag = pc_resp_get(req, PC_S("ETag")), .modified_s = -1};
    struct pc_slice date = pc_resp_get(req, PC_S("Last-Modified"));
    bool may_range = false;
    if (date.base != NULL && pc_date_parse(date, &now.modified_s) != 0)
        now.modified_s = -1;
    bool is_got = !gate->is_framed && (method == PC_GET || method == PC_HEAD) && req->resp.status == 200 && req->error_status == 0;
    if (!is_got || (now.etag.len == 0 && now.modified_s < 0))
        return 0;
    int status = pc_cond_check(pc_fields_head(req), req->raw, &now, &may_range);
    if (status == 304) {
        req->resp.status = 304;
        req->resp.reason = (struct pc_slice){0};
        pc_resp_unset(req, PC_S("Content-Type"));
        gate->keeps_quiet = true; /* the program may go on writing; nobody hears it */
        gate->has_left = false;
    }
    return status == 412 ? 412 : 0;
}

int
pc_gate_answer(struct pc_gate *gate)
{
    struct pc_req *req = gate->req;
    const struct pc_reply *reply = gate->reply;
    struct pc_io *io = gate->conn->io;
    if (reply->is_local) {
        struct pc_slice target = pc_slice_at(gate->down, reply->location);
        return pc_serve_go_to(req, target) == 0 ? -PC_E_AGAIN : refuse_head(gate, "a local redirect that leads nowhere");
    }
    pc_serve_reset(req);
    req->resp.status = reply->status;
    if (req->error_status != 0 && !reply->has_status)
        req->resp.status = req->error_status;
    put_fields(gate);
    put_body(gate);
    if (gate->is_tunnel)
        open_tunnel(gate);
    int status = gate->ops->dress != NULL ? gate->ops->dress(gate) : 0;
    if (status == 0)
        status = apply_conditions(gate);
    if (status != 0)
        return status;
    if (!io->body_done && !gate->has_invited) { /* it never asked for the body: the client must not send it now */
        io->answered_early = true;
        gate->wants_body = false;
    }
    req->resp.close = gate->closes;
    pc_serve_finish(req);
    return 0;
}

/* ------------------------------------------------------------------ the body */

static int
refuse_chunks(struct pc_gate *gate)
{
    const struct pc_req *req = gate->req;
    if (!gate->is_broken)
        pc_errlog_req(req, PC_ERROR, gate->ops->module,
                      "the answer has a malformed chunk, or trailers that are malformed or too long: %.*s", (int)req->filename.len,
                      req->filename.base);
    gate->is_broken = true;
    return -PC_E_CLOSED;
}

/* The section's bytes stay at the beginning of the buffer until all of them are here, in front of what comes next. */
static void
keep_trailers(struct pc_gate *gate)
{
    struct pc_req *req = gate->req;
    uint32_t fresh = gate->chunked.fresh_bytes;
    if (!gate->takes_trailers || fresh == 0)
        return;
    memmove(gate->down + gate->trailer_len, gate->down + gate->down_at - fresh, fresh);
    gate->trailer_len += fresh;
    if (!gate->chunked.is_done || gate->chunked.trailer_fields == 0)
        return;
    struct pc_slice section = pc_arena_copy(req->arena, (struct pc_slice){gate->down, gate->trailer_len});
    req->resp.trailer_count = pc_trailer_take(req->arena, section, gate->reply, gate->head, &req->resp.trailers);
}

static int
take_chunks(struct pc_gate *gate, struct pc_slice held, struct pc_slice *ret_bytes)
{
    int used = pc_chunked_decode(&gate->chunked, held.base, held.len, ret_bytes);
    if (used < 0)
        return refuse_chunks(gate);
    gate->down_at = gate->down_len - (uint32_t)(held.len - (size_t)used);
    keep_trailers(gate);
    gate->is_over = gate->chunked.is_done;
    return ret_bytes->len > 0 ? 1 : 0;
}

/* Give what lies in the buffer. 1 bytes, 0 none of it is body, <0 broken. */
static int
take_buffered(struct pc_gate *gate, struct pc_slice *ret_bytes)
{
    struct pc_slice held = {gate->down + gate->down_at, gate->down_len - gate->down_at};
    if (gate->is_chunked)
        return take_chunks(gate, held, ret_bytes);
    *ret_bytes = held;
    gate->down_at = gate->down_len;
    if (gate->has_left) {
        ret_bytes->len = held.len < gate->left_bytes ? held.len : (size_t)gate->left_bytes;
        gate->down_at = gate->down_len - (uint32_t)(held.len - ret_bytes->len); /* what is behind is none of it */
        gate->left_bytes -= ret_bytes->len;
        gate->is_over = gate->left_bytes == 0;
    }
    return ret_bytes->len > 0 ? 1 : 0;
}

/* What nobody hears is read all the same, so that the program comes to its end; but others must not wait for that. */
static bool
takes_too_long(struct pc_gate *gate, size_t len)
{
    gate->quiet_bytes += len;
    if (gate->quiet_bytes < PC_GATE_TURN_BYTES)
        return false;
    gate->quiet_bytes = 0;
    (void)pc_conn_requeue(gate->child, gate->conn); /* fails only if the socket is gone: the deadline ends it */
    return true;
}

static int
end_early(struct pc_gate *gate)
{
    if (gate->is_broken)
        return -PC_E_CLOSED;
    gate->is_broken = true;
    pc_errlog_req(gate->req, PC_ERROR, gate->ops->module, "the answer ended %s: %.*s",
                  gate->is_chunked ? "before its last chunk" : "before its Content-Length", (int)gate->req->filename.len,
                  gate->req->filename.base);
    return -PC_E_CLOSED;
}

static int
next_bytes(struct pc_req *req, struct pc_slice *ret_bytes)
{
    struct pc_gate *gate = req->conn->gate;
    if (gate == NULL)
        return -PC_E_CLOSED;
    while (!gate->is_over || gate->keeps_quiet) {
        if (gate->down_at < gate->down_len) {
            int taken = gate->keeps_quiet ? 0 : take_buffered(gate, ret_bytes);
            if (taken != 0)
                return taken;
            if (gate->keeps_quiet)
                gate->down_at = gate->down_len;
            continue;
        }
        if (gate->has_ended)
            return (gate->has_left && gate->left_bytes > 0) || (gate->is_chunked && !gate->keeps_quiet) ? end_early(gate) : 0;
        gate->down_at = gate->down_len = gate->trailer_len;
        ssize_t count = gate->ops->recv(gate, gate->down + gate->trailer_len, gate->down_cap - gate->trailer_len);
        if (count < 0)
            return (int)count;
        gate->down_len += (uint32_t)count;
        gate->has_ended = count == 0;
        gate->has_heard = !gate->keeps_quiet; /* who writes what nobody hears gets no more time for it */
        if (gate->keeps_quiet && takes_too_long(gate, (size_t)count))
            return -PC_E_AGAIN;
    }
    return 0;
}

static void
end_answer(struct pc_req *req)
{
    pc_gate_drop(req->conn, req->aborted);
}
