/* h2in.c - what comes on an HTTP/2 connection: frames, requests for streams, bodies; and what a client may cost.
 * Runs as:  child, as the identity that owns the hosts.   Sees: client bytes.
 * Holds:    of each stream its head until it is a request, and a bounded part of its body.
 * Distrusts: every frame. nghttp2 knows RFC 9113's rules; what a client that keeps them all may cost is bounded here: fields as they are
 *            decoded, streams in work, bytes held, and frames that lead to nothing (patience).
 * Before:   h2.c   After: h2head.c, h2stream.c */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <nghttp2/nghttp2.h>

#include "h2.h"

#define MS 1000000ull
#define COST_RESET 4   /* a stream that the client opens and resets */
#define COST_BREACH 20 /* a frame, or head, that makes us reset a stream */
#define IN_STEP_BYTES 4096
#define IN_LEAST_BYTES 256

struct pc_h2_stream *
pc_h2_find(const struct pc_h2 *h2, int32_t id)
{
    return id > 0 ? nghttp2_session_get_stream_user_data(h2->session, id) : NULL;
}

/* ------------------------------------------------------------------ patience */

static void
end_by(struct pc_h2 *h2, uint32_t code)
{
    if (h2->has_goaway && h2->is_calmed)
        return;
    h2->has_goaway = h2->is_calmed = true;
    (void)nghttp2_session_terminate_session(h2->session, code); /* out of memory: the deadline ends it */
}

/* What leads to nothing costs; time, and bytes that the client takes, forgive. */
void
pc_h2_charge(struct pc_h2 *h2, int64_t cost)
{
    uint64_t now_ns = h2->worker->now_ns, passed_ms = now_ns > h2->patience_ns ? (now_ns - h2->patience_ns) / MS : 0;
    if (passed_ms >= 10) {
        h2->patience += (int64_t)(passed_ms * PC_H2_PATIENCE_PER_S / 1000);
        h2->patience_ns = now_ns;
    }
    h2->patience += (int64_t)(h2->patience_bytes / PC_H2_PATIENCE_BYTES);
    h2->patience_bytes %= PC_H2_PATIENCE_BYTES;
    if (h2->patience > PC_H2_PATIENCE)
        h2->patience = PC_H2_PATIENCE;
    h2->patience -= cost;
    if (h2->patience >= 0 || h2->is_calmed)
        return;
    pc_request_say(h2->child, h2->conn, PC_INFO, "http2", "too many frames that lead to nothing: ENHANCE_YOUR_CALM");
    end_by(h2, NGHTTP2_ENHANCE_YOUR_CALM);
}

/* ------------------------------------------------------------------ frames come */

/* The next frame's head. False: more than a client may send. */
static bool
note_frame(struct pc_h2 *h2, uint8_t type, uint8_t flags, uint32_t len)
{
    if (type == NGHTTP2_HEADERS) {
        h2->block_bytes = h2->block_frames = 0;
        h2->block_ns = h2->worker->now_ns;
    }
    if (type == NGHTTP2_HEADERS || type == NGHTTP2_CONTINUATION) {
        h2->block_bytes += len;
        h2->block_frames++;
        if ((flags & NGHTTP2_FLAG_END_HEADERS) != 0)
            h2->block_ns = 0;
        if (h2->block_bytes > PC_H2_BLOCK_BYTES || h2->block_frames > 1 + PC_H2_CONTINUATIONS) {
            end_by(h2, NGHTTP2_ENHANCE_YOUR_CALM);
            return false;
        }
    }
    bool is_empty = type == NGHTTP2_DATA && len == 0 && (flags & NGHTTP2_FLAG_END_STREAM) == 0;
    bool is_quiet = type != NGHTTP2_DATA && type != NGHTTP2_HEADERS && type != NGHTTP2_RST_STREAM;
    if (is_empty || is_quiet)
        pc_h2_charge(h2, 1);
    return true;
}

/* Walk the frames by their heads, for what nghttp2 tells of some kinds of them only. */
static bool
note_frames(struct pc_h2 *h2, const char *bytes, size_t len)
{
    size_t at = 0;
    while (at < len) {
        if (h2->frame_left > 0) { /* a payload; at the beginning the preface */
            size_t skip = len - at < h2->frame_left ? len - at : h2->frame_left;
            h2->frame_left -= (uint32_t)skip;
            at += skip;
            continue;
        }
        h2->frame_head[h2->frame_have++] = (uint8_t)bytes[at++];
        if (h2->frame_have < sizeof h2->frame_head)
            continue;
        const uint8_t *head = h2->frame_head;
        h2->frame_have = 0;
        h2->frame_left = (uint32_t)head[0] << 16 | (uint32_t)head[1] << 8 | head[2];
        if (!note_frame(h2, head[3], head[4], h2->frame_left))
            return false;
    }
    return true;
}

static int
on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct pc_h2 *h2 = user;
    const struct pc_h1_limits *limits = &pc_h2_host(h2)->limits;
    bool is_odd = limits->field_count == 0 || limits->field_count > PC_MAX_FIELDS_HARD;
    pc_h2head_free(&h2->head); /* a block that was refused before its end */
    h2->head.max_fields = is_odd ? PC_MAX_FIELDS_HARD : limits->field_count;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0; /* trailers: checked by nghttp2, counted below, and let go of as HTTP/1.1's are */
    struct pc_h2_stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL)
        pc_die(111, "out of memory");
    stream->h2 = h2;
    stream->id = frame->hd.stream_id;
    stream->refs = 1;
    stream->next = h2->streams;
    stream->progress_ns = h2->worker->now_ns;
    stream->is_routed = h2->conn->is_routed;
    stream->is_received = h2->conn->is_received;
    h2->conn->is_routed = h2->conn->is_received = false; /* the connection came here for its first request */
    h2->streams = stream;
    h2->stream_count++;
    h2->idle_ns = 0;
    (void)pthread_mutex_lock(&h2->lock);
    h2->refs++;
    (void)pthread_mutex_unlock(&h2->lock);
    (void)nghttp2_session_set_stream_user_data(session, stream->id, stream); /* it was opened a moment ago */
    return 0;
}

static int
on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len, const uint8_t *value,
          size_t value_len, uint8_t flags, void *user)
{
    struct pc_h2 *h2 = user;
    struct pc_h2_stream *stream = pc_h2_find(h2, frame->hd.stream_id);
    struct pc_slice field = {(const char *)name, name_len}, content = {(const char *)value, value_len};
    (void)session, (void)flags;
    if (stream == NULL)
        return 0;
    bool is_too_much;
    if (stream->is_begun) { /* a trailer */
        h2->head.decoded_bytes += name_len + value_len;
        is_too_much = h2->head.decoded_bytes > PC_MAX_TRAILER_BYTES || ++h2->head.field_count > PC_MAX_TRAILER_FIELDS;
    } else { /* what goes on far beyond its limits is not read to its end: each byte of it may stand for 4 KB */
        pc_h2head_field(&h2->head, field, content);
        is_too_much = h2->head.decoded_bytes > 4 * PC_MAX_HEAD_BYTES;
    }
    if (!is_too_much)
        return 0;
    pc_h2_charge(h2, COST_BREACH);
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static struct pc_slice
make_websocket_key(char out[24])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t raw[18] = {0};
    if (getentropy(raw, 16) != 0)
        pc_die(111, "no entropy");
    for (size_t i = 0; i < 6; i++) {
        uint32_t three = (uint32_t)raw[3 * i] << 16 | (uint32_t)raw[3 * i + 1] << 8 | raw[3 * i + 2];
        for (size_t j = 0; j < 4; j++)
            out[4 * i + j] = digits[three >> (18 - 6 * j) & 63];
    }
    out[22] = out[23] = '='; /* 16 bytes: the last two of 18 are none */
    return (struct pc_slice){out, 24};
}

void
pc_h2_refuse(struct pc_h2 *h2, struct pc_h2_stream *stream, uint32_t code)
{
    (void)nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, stream->id, code); /* out of memory: it stays until the end */
}

/* The request's head is whole. */
static void
begin_stream(struct pc_h2 *h2, struct pc_h2_stream *stream, bool has_ended)
{
    char bytes[24];
    struct pc_slice text = {0}, key = {0};
    stream->is_tunnel = h2->head.protocol.len > 0;
    if (stream->is_tunnel)
        key = make_websocket_key(bytes);
    stream->error = pc_h2head_finish(&h2->head, key, &text);
    stream->in_ended = has_ended;
    pc_h2head_free(&h2->head);
    stream->is_begun = true;
    if (stream->error != 0)
        pc_h2_charge(h2, COST_BREACH);
    if (h2->heads_bytes + text.len > PC_H2_HEADS_BYTES && h2->stream_count > 1) {
        free((void *)(uintptr_t)text.base);
        pc_h2_charge(h2, COST_RESET);
        pc_h2_refuse(h2, stream, NGHTTP2_REFUSED_STREAM);
        return;
    }
    stream->text_bytes = (uint32_t)text.len;
    h2->heads_bytes += stream->text_bytes;
    char *shrunk = text.len > 0 ? realloc((void *)(uintptr_t)text.base, text.len) : NULL; /* it may wait for long */
    stream->text = shrunk != NULL ? shrunk : (char *)(uintptr_t)text.base;
    stream->is_queued = true;
    *(h2->queue_tail == NULL ? &h2->queue : &h2->queue_tail->next_queued) = stream;
    h2->queue_tail = stream;
}

/* ------------------------------------------------------------------ requests wait for their turn */

void
pc_h2_unqueue(struct pc_h2 *h2, struct pc_h2_stream *stream)
{
    struct pc_h2_stream **at = &h2->queue, *before = NULL;
    if (!stream->is_queued)
        return;
    for (; *at != stream; at = &before->next_queued)
        before = *at;
    *at = stream->next_queued;
    if (h2->queue_tail == stream)
        h2->queue_tail = before;
    stream->next_queued = NULL;
    stream->is_queued = false;
    free(stream->text);
    stream->text = NULL;
}

/* How many more may be begun now. A request in work holds some 5 KB, and a program 50 KB more, which a client that takes no answer shall
 * not have a hundred times; nor that many answers, however short, or heads of them. Who takes what it has asked for notices none of
 * this. */
static uint64_t
count_room(struct pc_h2 *h2)
{
    uint64_t most = PC_H2_STALLED + h2->earned_bytes / PC_H2_EARN_BYTES;
    bool is_full = nghttp2_session_get_outbound_queue_size(h2->session) >= PC_H2_UNSENT;
    (void)pthread_mutex_lock(&h2->lock);
    is_full = is_full || h2->out_total >= h2->out_budget + PC_H2_STALLED * PC_H2_OUT_TIGHT_BYTES;
    uint64_t room = h2->stalled < most && !is_full ? most - h2->stalled : 0;
    h2->wants_room = room == 0 && h2->queue != NULL;
    (void)pthread_mutex_unlock(&h2->lock);
    return room;
}

bool
pc_h2_may_admit(struct pc_h2 *h2)
{
    return h2->queue != NULL && count_room(h2) > 0;
}

void
pc_h2_admit(struct pc_h2 *h2)
{
    for (uint64_t room = h2->queue != NULL ? count_room(h2) : 0; room > 0 && h2->queue != NULL; room--) {
        struct pc_h2_stream *stream = h2->queue;
        struct pc_slice text = {stream->text, stream->text_bytes};
        stream->text = NULL;
        pc_h2_unqueue(h2, stream);
        (void)pthread_mutex_lock(&h2->lock);
        bool is_full = h2->conn_count >= 2 * h2->child->config->h2.streams; /* resets of those that are at work make no room for more */
        (void)pthread_mutex_unlock(&h2->lock);
        if (is_full) {
            free((void *)(uintptr_t)text.base);
            pc_h2_charge(h2, COST_RESET);
        }
        if (is_full || !pc_h2_stream_begin(h2->worker, h2->conn, stream, text))
            pc_h2_refuse(h2, stream, NGHTTP2_REFUSED_STREAM);
    }
}

/* Called with the lock held, which is let go of. */
static void
wake_reader(struct pc_h2 *h2, struct pc_h2_stream *stream)
{
    bool must_wake = stream->waits_in && stream->has_conn;
    uint64_t token = stream->token;
    stream->waits_in = false;
    (void)pthread_mutex_unlock(&h2->lock);
    if (must_wake)
        pc_loop_wake(h2->worker, token);
}

static int
on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct pc_h2 *h2 = user;
    struct pc_h2_stream *stream = pc_h2_find(h2, frame->hd.stream_id);
    bool has_ended = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    (void)session;
    if (stream == NULL)
        return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && !stream->is_begun) {
        begin_stream(h2, stream, has_ended);
    } else if ((frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) && has_ended) {
        (void)pthread_mutex_lock(&h2->lock);
        stream->in_ended = true;
        wake_reader(h2, stream);
    } else if (frame->hd.type == NGHTTP2_RST_STREAM) {
        pc_h2_charge(h2, COST_RESET);
    }
    return 0;
}

/* ------------------------------------------------------------------ bodies come */

static void
take_bytes(struct pc_h2_stream *stream, const uint8_t *bytes, size_t len)
{
    if (stream->in_at > 0)
        memmove(stream->in, stream->in + stream->in_at, stream->in_len);
    stream->in_at = 0;
    if (stream->in_len + len > stream->in_cap) {
        size_t step = stream->in_len + len > IN_STEP_BYTES ? IN_STEP_BYTES : IN_LEAST_BYTES; /* hardly more than what counts */
        size_t cap = (stream->in_len + len + step - 1) / step * step;
        char *grown = realloc(stream->in, cap);
        if (grown == NULL)
            pc_die(111, "out of memory");
        stream->in = grown;
        stream->in_cap = (uint32_t)cap;
    }
    memcpy(stream->in + stream->in_len, bytes, len); /* UNSAFE: room was made above */
    stream->in_len += (uint32_t)len;
}

/* The stream's window opens as its bytes are read; the session's at once, as long as little of it lies unread. */
static int
on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t len, void *user)
{
    struct pc_h2 *h2 = user;
    struct pc_h2_stream *stream = pc_h2_find(h2, id);
    (void)flags;
    if (stream == NULL) {
        (void)nghttp2_session_consume_connection(session, len); /* nobody has it */
        return 0;
    }
    (void)pthread_mutex_lock(&h2->lock);
    bool is_wanted = (stream->has_conn || stream->is_queued) && !stream->is_reset;
    if (is_wanted) {
        take_bytes(stream, bytes, len);
        h2->in_total += (uint32_t)len;
    }
    bool is_owed = is_wanted && h2->in_total > PC_H2_IN_TOTAL_BYTES;
    h2->owed += is_owed ? (uint32_t)len : 0;
    wake_reader(h2, stream);
    if (!is_owed)
        (void)nghttp2_session_consume_connection(session, len); /* fails only if auto window update is on */
    return 0;
}

/* ------------------------------------------------------------------ streams end */

static void
unlink_stream(struct pc_h2 *h2, struct pc_h2_stream *stream)
{
    struct pc_h2_stream **at = &h2->streams;
    while (*at != NULL && *at != stream)
        at = &(*at)->next;
    if (*at == NULL)
        pc_bug("a stream is in no session");
    *at = stream->next;
    pc_h2_unqueue(h2, stream);
    h2->stream_count--;
    h2->heads_bytes -= stream->text_bytes;
    if (h2->stream_count == 0)
        h2->idle_ns = h2->worker->now_ns;
}

/* Called with the lock held, which is let go of: the session lets go of the stream, and tells its connection. */
void
pc_h2_cut(struct pc_h2 *h2, struct pc_h2_stream *stream)
{
    bool must_wake = stream->has_conn && !stream->is_reset;
    uint64_t token = stream->token;
    stream->is_reset = true;
    h2->out_total -= stream->out_len; /* at once: requests may wait for that room */
    stream->out_len = 0;
    if (stream->has_news) { /* nothing of it counts any more */
        struct pc_h2_stream **at = &h2->news;
        while (*at != stream)
            at = &(*at)->next_news;
        *at = stream->next_news;
        stream->has_news = false;
    }
    pc_h2_stream_drop(stream);
    if (must_wake && h2->worker != NULL)
        pc_loop_wake(h2->worker, token);
}

static int
on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
    struct pc_h2 *h2 = user;
    struct pc_h2_stream *stream = pc_h2_find(h2, id);
    (void)code;
    if (stream == NULL)
        return 0;
    (void)nghttp2_session_set_stream_user_data(session, id, NULL); /* it is there until this returns */
    unlink_stream(h2, stream);
    stream->is_closed = true;
    (void)pthread_mutex_lock(&h2->lock);
    pc_h2_cut(h2, stream);
    return 0;
}

static int
on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error, void *user)
{
    (void)session, (void)frame, (void)error;
    pc_h2_charge(user, COST_BREACH);
    return 0;
}

/* ------------------------------------------------------------------ for nghttp2 */

int
pc_h2_feed(struct pc_h2 *h2, const char *bytes, size_t len)
{
    if (!note_frames(h2, bytes, len))
        return -PC_E_BAD;
    ssize_t used = nghttp2_session_mem_recv(h2->session, (const uint8_t *)bytes, len);
    if (used >= 0 && (size_t)used == len)
        return 0;
    if (used == NGHTTP2_ERR_FLOODED)
        end_by(h2, NGHTTP2_ENHANCE_YOUR_CALM);
    return -PC_E_BAD;
}

void
pc_h2_set_hearing(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
}
