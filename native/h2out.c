/* h2out.c - what goes on an HTTP/2 connection: the responses of its streams become frames, and those bytes of its socket.
 * Runs as:  child, as the identity that owns the hosts.   Sees: responses.
 * Holds:    what the socket did not take, at most one worker's buffer.
 * Distrusts: the client, which may take nothing, or make us reset its streams.
 * Before:   h2stream.c, h2.c   After: transport.c */
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include <nghttp2/nghttp2.h>

#include "h2.h"

#define FRAME_ROOM (16384 + 9 + 512) /* the largest that nghttp2 gives at once */
#define MAX_FIELDS_OUT (PC_MAX_OUT_FIELDS + 8)
#define COST_BREACH 20 /* as in h2in.c */

/* ------------------------------------------------------------------ responses go */

static void submit_trailers(struct pc_h2 *h2, struct pc_h2_stream *stream, struct pc_h2_fields *from);

static ssize_t
read_body(nghttp2_session *session, int32_t id, uint8_t *buf, size_t len, uint32_t *flags, nghttp2_data_source *source, void *user)
{
    struct pc_h2_stream *stream = source->ptr;
    struct pc_h2 *h2 = user;
    (void)session, (void)id, (void)buf;
    (void)pthread_mutex_lock(&h2->lock);
    size_t count = stream->out_len < len ? stream->out_len : len;
    bool is_last = stream->out_ended && count == stream->out_len, is_broken = stream->is_broken;
    struct pc_h2_fields *trailers = is_last ? stream->trailers : NULL;
    stream->trailers = is_last ? NULL : stream->trailers;
    (void)pthread_mutex_unlock(&h2->lock);
    if (count == 0 && is_broken)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* RST_STREAM with INTERNAL_ERROR */
    stream->is_deferred = count == 0 && !is_last;
    if (stream->is_deferred)
        return NGHTTP2_ERR_DEFERRED;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY | (is_last ? NGHTTP2_DATA_FLAG_EOF : 0u);
    if (trailers != NULL) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        submit_trailers(h2, stream, trailers);
    }
    return (ssize_t)count;
}

/* Straight into the buffer that goes to the socket. */
static int
send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *frame_head, size_t len, nghttp2_data_source *source, void *user)
{
    struct pc_h2_stream *stream = source->ptr;
    struct pc_h2 *h2 = user;
    (void)session, (void)frame; /* no padding is asked for */
    if (PC_OUT_BYTES - h2->fill_len < len + 9 + FRAME_ROOM) /* what comes behind it may be no DATA, and must fit */
        return NGHTTP2_ERR_WOULDBLOCK;
    memcpy(h2->fill + h2->fill_len, frame_head, 9); /* UNSAFE: compared with the room above, as the next */
    (void)pthread_mutex_lock(&h2->lock);
    if (len > 0)
        memcpy(h2->fill + h2->fill_len + 9, stream->out + stream->out_at, len); /* UNSAFE: read_body has counted it */
    stream->out_at += (uint32_t)len;
    stream->out_len -= (uint32_t)len;
    h2->out_total -= (uint32_t)len;
    if (stream->out_len == 0 && !stream->is_filling)
        pc_h2_drop_out(stream);
    bool must_wake = stream->waits_out && stream->has_conn && stream->out_len <= PC_H2_OUT_BYTES / 2;
    uint64_t token = stream->token;
    if (must_wake)
        pc_h2_wait_out(stream, false);
    (void)pthread_mutex_unlock(&h2->lock);
    h2->fill_len += len + 9;
    h2->patience_bytes += len;
    stream->progress_ns = h2->worker->now_ns;
    if (must_wake)
        pc_loop_wake(h2->worker, token);
    return 0;
}

static ssize_t
limit_length(nghttp2_session *session, uint8_t type, int32_t id, int32_t session_window, int32_t stream_window, uint32_t most, void *user)
{
    const struct pc_h2 *h2 = user;
    int64_t len = h2->child->config->h2.frame_bytes > 0 ? h2->child->config->h2.frame_bytes : FRAME_ROOM - 9 - 512;
    const int64_t bounds[] = {session_window, stream_window, most, FRAME_ROOM - 9 - 512};
    (void)session, (void)type, (void)id;
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++)
        len = bounds[i] < len ? bounds[i] : len;
    return (ssize_t)len;
}

static int
on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct pc_h2 *h2 = user;
    struct pc_h2_stream *stream = pc_h2_find(h2, frame->hd.stream_id);
    (void)session;
    bool is_breach = frame->hd.type == NGHTTP2_RST_STREAM && frame->rst_stream.error_code != NGHTTP2_NO_ERROR
                     && frame->rst_stream.error_code != NGHTTP2_INTERNAL_ERROR && frame->rst_stream.error_code != NGHTTP2_CANCEL
                     && frame->rst_stream.error_code != NGHTTP2_REFUSED_STREAM;
    if (is_breach) /* the client made us do it (CVE-2025-8671) */
        pc_h2_charge(h2, COST_BREACH);
    bool is_over = (frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS)
                   && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (!is_over || stream == NULL)
        return 0;
    h2->patience += h2->patience < PC_H2_PATIENCE ? 2 : 0;
    (void)pthread_mutex_lock(&h2->lock);
    bool has_rest = !stream->in_ended; /* answered without it: the client need not send it (RFC 9113 8.1) */
    (void)pthread_mutex_unlock(&h2->lock);
    if (has_rest)
        pc_h2_refuse(h2, stream, NGHTTP2_NO_ERROR);
    return 0;
}

/* A response that cannot be sent (its fields are more than nghttp2 puts into one block): better no answer than none until the deadline. */
static int
on_frame_not_send(nghttp2_session *session, const nghttp2_frame *frame, int error, void *user)
{
    struct pc_h2 *h2 = user;
    struct pc_h2_stream *stream = pc_h2_find(h2, frame->hd.stream_id);
    (void)session, (void)error;
    if (frame->hd.type == NGHTTP2_HEADERS && stream != NULL && stream->has_submitted)
        pc_h2_refuse(h2, stream, NGHTTP2_INTERNAL_ERROR);
    return 0;
}

/* ------------------------------------------------------------------ what streams have given */

struct news {
    struct pc_h2_fields *fields, *interim;
    uint32_t consumed, reset_code;
    bool wants_continue, wants_reset, has_more, has_ended, has_trailers, is_broken;
};

static nghttp2_nv
field_of(const char *name, size_t name_len, const char *value, size_t value_len)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, name_len, value_len, NGHTTP2_NV_FLAG_NONE};
}

/* The status, if there is one, is written to `status`, and a field of its own. Returns how many there are. */
static size_t
unpack(const struct pc_h2_fields *from, char status[20], nghttp2_nv fields[MAX_FIELDS_OUT])
{
    size_t count = 0;
    if (from->status > 0)
        fields[count++] = field_of(":status", 7, status, pc_number(status, from->status));
    for (const char *at = from->bytes; at < from->bytes + from->len && count < MAX_FIELDS_OUT;) {
        uint32_t lengths[2];
        memcpy(lengths, at, sizeof lengths);
        at += sizeof lengths;
        fields[count++] = field_of(at, lengths[0], at + lengths[0], lengths[1]);
        at += lengths[0] + lengths[1];
    }
    return count;
}

/* A client whose socket is full goes without, and one turn has no more than one write of them: they are held nowhere. */
static void
submit_interim(struct pc_h2 *h2, const struct pc_h2_stream *stream, const struct news *news, size_t *said)
{
    nghttp2_nv fields[MAX_FIELDS_OUT];
    char status[20];
    for (const struct pc_h2_fields *from = news->interim; from != NULL && !stream->has_submitted; from = from->next) {
        *said += from->len;
        if (pc_h2_has_rest(h2) || *said > PC_OUT_BYTES)
            return;
        size_t count = unpack(from, status, fields);
        (void)nghttp2_submit_headers(h2->session, NGHTTP2_FLAG_NONE, stream->id, NULL, fields, count, NULL); /* a hint: as above */
    }
}

/* Behind the last byte of the body, as the stream's end. */
static void
submit_trailers(struct pc_h2 *h2, struct pc_h2_stream *stream, struct pc_h2_fields *from)
{
    nghttp2_nv fields[MAX_FIELDS_OUT];
    char status[20];
    size_t count = unpack(from, status, fields);
    if (nghttp2_submit_trailer(h2->session, stream->id, fields, count) != 0)
        pc_h2_refuse(h2, stream, NGHTTP2_INTERNAL_ERROR);
    pc_h2_free_fields(from);
}

static void
submit_response(struct pc_h2 *h2, struct pc_h2_stream *stream, const struct news *news)
{
    nghttp2_nv fields[MAX_FIELDS_OUT];
    char status[20];
    size_t count = unpack(news->fields, status, fields);
    nghttp2_data_provider body = {.source.ptr = stream, .read_callback = read_body};
    bool has_body = news->has_more || !news->has_ended || news->has_trailers;
    stream->has_submitted = true;
    stream->progress_ns = h2->worker->now_ns;
    if (nghttp2_submit_response(h2->session, stream->id, fields, count, has_body ? &body : NULL) != 0)
        pc_h2_refuse(h2, stream, NGHTTP2_INTERNAL_ERROR);
}

static void
look_at(struct pc_h2 *h2, struct pc_h2_stream *stream, const struct news *news, size_t *said)
{
    static const uint8_t status[] = ":status", go_on[] = "100";
    bool goes_on = news->has_more || news->has_ended || news->is_broken;
    if (news->wants_continue && !stream->has_submitted) {
        const nghttp2_nv field = {(uint8_t *)(uintptr_t)status, (uint8_t *)(uintptr_t)go_on, 7, 3, NGHTTP2_NV_FLAG_NONE};
        (void)nghttp2_submit_headers(h2->session, NGHTTP2_FLAG_NONE, stream->id, NULL, &field, 1, NULL); /* a client goes on without */
    }
    submit_interim(h2, stream, news, said);
    if (news->fields != NULL && !stream->has_submitted)
        submit_response(h2, stream, news);
    else if (stream->is_deferred && goes_on)
        (void)nghttp2_session_resume_data(h2->session, stream->id); /* fails if it is not deferred: then it goes anyway */
    stream->is_deferred = stream->is_deferred && !goes_on;
    if (news->wants_reset)
        pc_h2_refuse(h2, stream, news->reset_code);
    if (news->consumed > 0)
        (void)nghttp2_session_consume_stream(h2->session, stream->id, news->consumed); /* fails if the stream has ended */
}

/* Padding is consumed by nghttp2 itself; what is owed is paid when streams have read, or have ended unread, whoever of us saw it. */
static void
pay(struct pc_h2 *h2)
{
    uint32_t paid = 0;
    if (h2->owed == 0) /* which only we change */
        return;
    (void)pthread_mutex_lock(&h2->lock);
    if (h2->in_total <= PC_H2_IN_TOTAL_BYTES / 2) {
        paid = h2->owed;
        h2->owed = 0;
    }
    (void)pthread_mutex_unlock(&h2->lock);
    if (paid > 0)
        (void)nghttp2_session_consume_connection(h2->session, paid); /* as above */
}

void
pc_h2_take_news(struct pc_h2 *h2)
{
    size_t said = 0; /* bytes of interim answers */
    for (;;) {
        (void)pthread_mutex_lock(&h2->lock);
        struct pc_h2_stream *stream = h2->news;
        if (stream == NULL)
            break;
        h2->news = stream->next_news;
        stream->has_news = false;
        struct news news = {
            .fields = stream->fields, .interim = stream->interim, .consumed = stream->consumed, .reset_code = stream->reset_code,
            .wants_continue = stream->wants_continue, .wants_reset = stream->wants_reset,
            .has_more = stream->out_len > 0, .has_ended = stream->out_ended, .has_trailers = stream->trailers != NULL,
            .is_broken = stream->is_broken,
        };
        stream->fields = stream->interim = NULL;
        stream->consumed = stream->interim_bytes = 0;
        stream->wants_continue = stream->wants_reset = false;
        (void)pthread_mutex_unlock(&h2->lock);
        look_at(h2, stream, &news, &said);
        pc_h2_free_fields(news.fields);
        pc_h2_free_fields(news.interim);
    }
    (void)pthread_mutex_unlock(&h2->lock);
}

/* ------------------------------------------------------------------ the socket */

/* What was left. 0 all of it is out, -PC_E_AGAIN, -PC_E_CLOSED. */
static int
send_rest(struct pc_h2 *h2)
{
    while (h2->out_at < h2->out_len) {
        ssize_t sent = h2->conn->transport->send(h2->conn, h2->out + h2->out_at, h2->out_len - h2->out_at, false);
        if (sent <= 0)
            return sent == -PC_E_AGAIN ? -PC_E_AGAIN : -PC_E_CLOSED;
        h2->out_at += (size_t)sent;
        h2->sent_bytes += (uint64_t)sent;
        h2->progress_ns = h2->worker->now_ns;
    }
    free(h2->out);
    h2->out = NULL;
    h2->out_at = h2->out_len = 0;
    return 0;
}

static void
keep_rest(struct pc_h2 *h2, size_t from)
{
    h2->out_len = h2->fill_len - from;
    h2->out_at = 0;
    h2->out = malloc(h2->out_len);
    if (h2->out == NULL)
        pc_die(111, "out of memory");
    memcpy(h2->out, h2->fill + from, h2->out_len);
}

/* Frames into the worker's buffer, as many as there are and fit. 0 or -PC_E_CLOSED. */
static int
gather(struct pc_h2 *h2)
{
    h2->fill = h2->worker->out;
    h2->fill_len = 0;
    while (PC_OUT_BYTES - h2->fill_len >= FRAME_ROOM) {
        const uint8_t *bytes = NULL;
        size_t before = h2->fill_len;
        ssize_t count = nghttp2_session_mem_send(h2->session, &bytes);
        if (count < 0 || (size_t)count > PC_OUT_BYTES - h2->fill_len)
            return -PC_E_CLOSED;
        if (count == 0 && h2->fill_len == before)
            break;
        if (count > 0)
            memcpy(h2->fill + h2->fill_len, bytes, (size_t)count); /* UNSAFE: compared with the room */
        h2->fill_len += (size_t)count;
    }
    return 0;
}

/* What the client has really taken allows it to be late with more. What the system holds for it is no such proof. */
static void
earn(struct pc_h2 *h2)
{
    int held = 0;
    bool is_enough = h2->earned_bytes >= (uint64_t)h2->child->config->h2.streams * PC_H2_EARN_BYTES;
    if (is_enough || h2->sent_bytes < h2->earned_bytes + PC_H2_EARN_BYTES / 2)
        return;
    if (ioctl(h2->conn->fd, SIOCOUTQ, &held) != 0 || held < 0 || (uint64_t)held >= h2->sent_bytes)
        return; /* nothing of it, then */
    uint64_t earned = h2->sent_bytes - (uint64_t)held;
    if (earned <= h2->earned_bytes)
        return;
    h2->earned_bytes = earned;
    h2->earned_ns = h2->worker->now_ns;
    uint64_t budget = PC_H2_OUT_FIRST_BYTES + h2->earned_bytes;
    (void)pthread_mutex_lock(&h2->lock);
    h2->out_budget = budget < PC_H2_OUT_TOTAL_BYTES ? (uint32_t)budget : PC_H2_OUT_TOTAL_BYTES;
    (void)pthread_mutex_unlock(&h2->lock);
}

/* 0 everything is out, -PC_E_AGAIN, -PC_E_CLOSED. */
int
pc_h2_flush(struct pc_h2 *h2)
{
    pay(h2);
    int status = send_rest(h2);
    while (status == 0) {
        status = gather(h2);
        if (status != 0 || h2->fill_len == 0)
            break;
        ssize_t sent = h2->conn->transport->send(h2->conn, h2->fill, h2->fill_len, false);
        if (sent == 0 || (sent < 0 && sent != -PC_E_AGAIN))
            return -PC_E_CLOSED;
        size_t done = sent > 0 ? (size_t)sent : 0;
        h2->sent_bytes += done;
        if (done > 0 || !h2->conn->has_unsent) /* with it, the client has been waited for since before */
            h2->progress_ns = h2->worker->now_ns;
        if (done < h2->fill_len) {
            keep_rest(h2, done);
            status = send_rest(h2);
        }
    }
    earn(h2);
    return status;
}

void
pc_h2_set_saying(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_frame_not_send);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, send_data);
    nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, limit_length);
}
