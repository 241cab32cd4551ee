/* h2.c - an HTTP/2 session on a connection: begun, carried on step by step, ended.
 * Runs as:  child, as the identity that owns the hosts.   Sees: client bytes, which h2in.c takes.
 * Holds:    nghttp2's session.
 * Distrusts: the client, which may stop anywhere: deadlines for half a field block, for a socket or a stream that takes nothing, and for
 *            silence.
 * Before:   request.c (preface), tls.c (ALPN)   After: h2in.c, h2out.c */
#include <stdlib.h>

#include <nghttp2/nghttp2.h>

#include "h2.h"

#define MS 1000000ull
#define READS_IN_A_ROW 4
#define COST_STALL 4 /* as a stream that the client resets */

/* ------------------------------------------------------------------ how long */

/* The first GOAWAY names no stream, so that what is on its way is still answered; the second is the last. */
static void
say_goaway(struct pc_h2 *h2)
{
    if (!atomic_load_explicit(&h2->child->is_draining, memory_order_relaxed) || h2->has_goaway)
        return;
    if (h2->notice_ns == 0) {
        h2->notice_ns = h2->worker->now_ns;
        (void)nghttp2_submit_shutdown_notice(h2->session); /* out of memory: the second one comes */
    } else if (h2->worker->now_ns >= h2->notice_ns + PC_H2_NOTICE_MS * MS) {
        h2->has_goaway = true;
        (void)nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h2->session),
                                    NGHTTP2_NO_ERROR, NULL, 0);
    }
}

static void
set_parked(struct pc_h2 *h2, bool is_parked)
{
    struct pc_conn *conn = h2->conn;
    if (conn->is_parked == is_parked)
        return;
    conn->is_parked = is_parked;
    if (is_parked)
        pc_count(h2->child->page, PC_C_PARKED, 1);
    else
        pc_uncount(h2->child->page, PC_C_PARKED, 1);
}

/* Whether a stream's request is over but for what the client has not taken, or waits to be begun; then it has no deadline of its own. */
static bool
is_left(struct pc_h2 *h2, const struct pc_h2_stream *stream)
{
    if (stream->is_queued)
        return true;
    (void)pthread_mutex_lock(&h2->lock);
    bool is_over = stream->is_begun && !stream->has_conn;
    (void)pthread_mutex_unlock(&h2->lock);
    return is_over;
}

/* Since when it is left: a request that waits for its turn, since the client last took something. While the socket is full, all that can
 * be left is the session. */
static uint64_t
left_ns(const struct pc_h2 *h2, const struct pc_h2_stream *stream)
{
    uint64_t since_ns = stream->is_queued && h2->earned_ns > stream->progress_ns ? h2->earned_ns : stream->progress_ns;
    if (pc_h2_has_rest(h2))
        return h2->worker->now_ns;
    return h2->room_ns > since_ns ? h2->room_ns : since_ns;
}

/* Pings and settings make the wait for a request no longer, nor that for a client that takes nothing. */
static uint64_t
due_of(struct pc_h2 *h2)
{
    const struct pc_host *host = pc_h2_host(h2);
    uint64_t now_ns = h2->worker->now_ns, due_ns = now_ns + host->timeout_ms * MS;
    if (h2->stream_count == 0)
        due_ns = h2->idle_ns + (h2->requests > 0 ? host->keep_alive_ms : host->head_ms) * MS;
    if (pc_h2_has_rest(h2) && h2->progress_ns + host->timeout_ms * MS < due_ns)
        due_ns = h2->progress_ns + host->timeout_ms * MS;
    if (h2->block_ns > 0 && h2->block_ns + host->head_ms * MS < due_ns)
        due_ns = h2->block_ns + host->head_ms * MS;
    if (h2->notice_ns > 0 && !h2->has_goaway && h2->notice_ns + PC_H2_NOTICE_MS * MS < due_ns)
        due_ns = h2->notice_ns + PC_H2_NOTICE_MS * MS;
    for (const struct pc_h2_stream *stream = h2->streams; stream != NULL; stream = stream->next)
        if (left_ns(h2, stream) + host->timeout_ms * MS < due_ns && is_left(h2, stream))
            due_ns = left_ns(h2, stream) + host->timeout_ms * MS;
    return due_ns > 0 ? due_ns : 1;
}

static void
reset_stalled(struct pc_h2 *h2)
{
    uint64_t wait_ns = pc_h2_host(h2)->timeout_ms * MS;
    for (struct pc_h2_stream *stream = h2->streams; stream != NULL; stream = stream->next) {
        if (h2->worker->now_ns >= left_ns(h2, stream) + wait_ns && is_left(h2, stream)) {
            stream->progress_ns = h2->worker->now_ns; /* once, however long the reset takes to go out */
            pc_h2_charge(h2, COST_STALL);
            pc_h2_refuse(h2, stream, stream->is_queued ? NGHTTP2_REFUSED_STREAM : NGHTTP2_CANCEL);
        }
    }
}

enum pc_next
pc_h2_expire(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_h2 *h2 = conn->h2;
    const struct pc_host *host = pc_h2_host(h2);
    h2->worker = worker;
    bool is_stuck = pc_h2_has_rest(h2) && worker->now_ns >= h2->progress_ns + host->timeout_ms * MS;
    bool is_slow = h2->block_ns > 0 && worker->now_ns >= h2->block_ns + host->head_ms * MS;
    if (is_stuck || is_slow) {
        pc_conn_close(worker, conn);
        return PC_GONE;
    }
    reset_stalled(h2);
    bool is_noticing = h2->notice_ns > 0 && !h2->has_goaway;
    if (h2->stream_count == 0 && !is_noticing && worker->now_ns >= due_of(h2)) {
        if (h2->has_goaway) { /* it was told, and has gone on */
            pc_conn_close(worker, conn);
            return PC_GONE;
        }
        h2->has_goaway = true;
        (void)nghttp2_session_terminate_session(h2->session, NGHTTP2_NO_ERROR); /* as above */
    }
    return PC_GO;
}

/* ------------------------------------------------------------------ the step */

/* Read once. >0, 0 = end, -PC_E_AGAIN, -PC_E_CLOSED, -PC_E_BAD. */
static ssize_t
hear(struct pc_h2 *h2)
{
    struct pc_conn *conn = h2->conn;
    if (conn->was_drained && !conn->saw_end)
        return -PC_E_AGAIN;
    ssize_t count = conn->transport->recv(conn, h2->worker->out, PC_OUT_BYTES);
    if (count == -PC_E_AGAIN)
        conn->saw_end = false;
    conn->was_drained = count > 0 && (size_t)count < PC_OUT_BYTES;
    if (count > 0 && pc_h2_feed(h2, h2->worker->out, (size_t)count) != 0)
        return -PC_E_BAD;
    return count;
}

static enum pc_next
close_now(struct pc_worker *worker, struct pc_conn *conn)
{
    pc_conn_close(worker, conn);
    return PC_GONE;
}

static bool
is_over(const struct pc_h2 *h2)
{
    const struct pc_transport *transport = h2->conn->transport;
    if (transport->flush != NULL && transport->flush(h2->conn) == -PC_E_AGAIN)
        return false;
    return h2->out_len == 0 && nghttp2_session_want_read(h2->session) == 0 && nghttp2_session_want_write(h2->session) == 0;
}

/* Its last frames shall arrive: nothing is closed while bytes come that nobody reads. */
static enum pc_next
end_session(struct pc_worker *worker, struct pc_conn *conn)
{
    set_parked(conn->h2, false);
    pc_h2_close(worker, conn);
    return pc_respond_linger(worker, conn);
}

static enum pc_next
await_more(struct pc_worker *worker, struct pc_conn *conn, bool is_busy)
{
    struct pc_h2 *h2 = conn->h2;
    bool has_rest = pc_h2_has_rest(h2);
    if (pc_conn_take_moved(conn))
        h2->progress_ns = worker->now_ns;
    if (h2->was_full && !has_rest)
        h2->room_ns = worker->now_ns;
    h2->was_full = has_rest;
    pc_conn_deadline(worker->child, conn, due_of(h2));
    set_parked(h2, !is_busy && h2->stream_count == 0 && h2->requests > 0 && !has_rest);
    int (*watch)(struct pc_child *, struct pc_conn *) = is_busy ? pc_conn_requeue : has_rest ? pc_conn_watch : pc_conn_watch_in;
    return watch(worker->child, conn) == 0 ? PC_WAIT : close_now(worker, conn);
}

enum pc_next
pc_h2_step(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_h2 *h2 = conn->h2;
    h2->worker = worker;
    (void)atomic_exchange(&h2->has_news, false); /* before the news: what comes behind it wakes us again */
    pc_h2_take_news(h2);
    for (int reads = 0;; reads++) {
        pc_h2_admit(h2);
        say_goaway(h2);
        int flushed = pc_h2_flush(h2);
        if (flushed == -PC_E_CLOSED)
            return close_now(worker, conn);
        if (is_over(h2))
            return end_session(worker, conn);
        if (flushed == -PC_E_AGAIN) /* who does not take our frames need not send more of his */
            return await_more(worker, conn, false);
        if (reads == READS_IN_A_ROW)
            return await_more(worker, conn, true);
        ssize_t heard = hear(h2);
        if (heard == -PC_E_AGAIN)
            return await_more(worker, conn, pc_h2_may_admit(h2));
        if (heard == -PC_E_BAD)
            (void)pc_h2_flush(h2); /* a GOAWAY, as far as it goes */
        if (heard <= 0)
            return close_now(worker, conn);
    }
}

/* ------------------------------------------------------------------ begin and end */

static int
make_callbacks(nghttp2_session_callbacks **ret_callbacks)
{
    nghttp2_session_callbacks *callbacks = NULL;
    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        return -PC_E_MEMORY;
    pc_h2_set_hearing(callbacks);
    pc_h2_set_saying(callbacks);
    *ret_callbacks = callbacks;
    return 0;
}

static int
make_session(struct pc_h2 *h2)
{
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    int status = make_callbacks(&callbacks);
    if (status == 0 && nghttp2_option_new(&option) != 0)
        status = -PC_E_MEMORY;
    if (status == 0) {
        nghttp2_option_set_no_auto_window_update(option, 1);
        nghttp2_option_set_no_closed_streams(option, 1);
        nghttp2_option_set_max_outbound_ack(option, 256);
        nghttp2_option_set_max_settings(option, 32);
        if (nghttp2_session_server_new2(&h2->session, callbacks, h2, option) != 0)
            status = -PC_E_MEMORY;
    }
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return status;
}

/* Our SETTINGS, and a window for the whole session. */
static int
greet(struct pc_h2 *h2)
{
    const struct pc_h2_limits *limits = &h2->child->config->h2;
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits->streams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, limits->window_bytes},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, PC_MAX_HEAD_BYTES},
        {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    int32_t window = (int32_t)(limits->window_bytes > PC_H2_IN_TOTAL_BYTES ? limits->window_bytes : PC_H2_IN_TOTAL_BYTES);
    if (nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof settings[0]) != 0)
        return -PC_E_MEMORY;
    return nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0, window) == 0 ? 0 : -PC_E_MEMORY;
}

static struct pc_h2 *
make(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_h2 *h2 = calloc(1, sizeof *h2);
    if (h2 == NULL)
        pc_die(111, "out of memory");
    h2->child = worker->child;
    h2->token = pc_conn_token(conn);
    h2->worker = worker;
    h2->conn = conn;
    h2->refs = 1;
    h2->idle_ns = h2->progress_ns = h2->patience_ns = worker->now_ns;
    h2->patience = PC_H2_PATIENCE;
    h2->out_budget = PC_H2_OUT_FIRST_BYTES;
    h2->frame_left = NGHTTP2_CLIENT_MAGIC_LEN;
    (void)pthread_mutex_init(&h2->lock, NULL); /* cannot fail on Linux */
    if (make_session(h2) != 0 || greet(h2) != 0)
        pc_die(111, "out of memory");
    return h2;
}

enum pc_next
pc_h2_begin(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    struct pc_h2 *h2 = make(worker, conn);
    conn->h2 = h2;
    conn->phase = PC_PHASE_H2;
    if (conn->host == NULL && worker->child->config->host_count > 0)
        conn->host = &worker->child->config->hosts[0];
    int fed = io != NULL ? pc_h2_feed(h2, io->in + io->in_at, io->in_len - io->in_at) : 0;
    if (io != NULL)
        pc_io_give(worker, conn);
    if (fed == 0)
        return PC_GO;
    (void)pc_h2_flush(h2);
    return close_now(worker, conn);
}

void
pc_h2_close(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_h2 *h2 = conn->h2;
    if (h2 == NULL)
        return;
    conn->h2 = NULL;
    h2->worker = worker;
    (void)pthread_mutex_lock(&h2->lock);
    h2->is_over = true;
    (void)pthread_mutex_unlock(&h2->lock);
    for (struct pc_h2_stream *stream = h2->streams, *next; stream != NULL; stream = next) {
        next = stream->next;
        pc_h2_unqueue(h2, stream);
        (void)pthread_mutex_lock(&h2->lock);
        pc_h2_cut(h2, stream);
    }
    h2->streams = NULL;
    nghttp2_session_del(h2->session);
    free(h2->out);
    pc_h2_drop(h2);
}
