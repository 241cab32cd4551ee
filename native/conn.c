/* conn.c - the table of connections: places, who may touch one, deadlines, buffers.
 * Runs as:  child.   Sees: client bytes, unread.   Holds: sockets of clients.
 * One thread at a time owns a connection (its `word`); an event for one that is owned marks it PC_HOLD_AGAIN and the owner
 * looks again. Places are never unmapped, and an epoll token carries the place's generation, so a late event finds nothing.
 * Before:   accept.c, hand.c   After: request.c */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gate.h"
#include "h2.h"

#define CHUNKS (PC_MAX_CONNECTIONS / PC_CONN_CHUNK)
#define IO_STOCK_MAX 32
/* Looking for the longest idle costs a look at every place, so several are closed at a time: a sixteenth of them, at most SHED_MAX.
 * Nobody is cut off who asked a moment ago: a client that goes on asking would often meet the close with its next request. */
#define SHED_IDLE_NS 1000000000ull
#define SHED_SHARE 16
#define SHED_MAX 32
#define BATCHES_NS 1000000000ull /* for what came while we stood still: all events that wait are taken within this time */

static int
grow(struct pc_child *child)
{
    uint32_t count = atomic_load(&child->chunk_count);
    if (count == CHUNKS)
        return -PC_E_MEMORY;
    struct pc_conn *chunk = calloc(PC_CONN_CHUNK, sizeof *chunk);
    _Atomic uint64_t *deadlines = calloc(PC_CONN_CHUNK, sizeof *deadlines);
    if (chunk == NULL || deadlines == NULL) {
        free(chunk);
        free((void *)deadlines);
        return -PC_E_MEMORY;
    }
    for (uint32_t i = PC_CONN_CHUNK; i-- > 0;) {
        chunk[i].index = count * PC_CONN_CHUNK + i;
        chunk[i].fd = -1;
        chunk[i].next = child->free_conns;
        child->free_conns = &chunk[i];
    }
    child->chunks[count] = chunk;
    child->deadline_chunks[count] = deadlines;
    atomic_store(&child->chunk_count, count + 1);
    return 0;
}

static _Atomic uint64_t *
deadline_of(struct pc_child *child, uint32_t index)
{
    return &child->deadline_chunks[index / PC_CONN_CHUNK][index % PC_CONN_CHUNK];
}

struct pc_conn *
pc_conn_new(struct pc_child *child, int fd)
{
    struct pc_conn *conn = NULL;
    (void)pthread_mutex_lock(&child->slab_lock);
    if (child->free_conns != NULL || grow(child) == 0) {
        conn = child->free_conns;
        child->free_conns = conn->next;
    }
    (void)pthread_mutex_unlock(&child->slab_lock);
    if (conn == NULL)
        return NULL;
    uint64_t generation = atomic_load_explicit(&conn->word, memory_order_relaxed) >> 2;
    uint32_t index = conn->index;
    memset((char *)conn + sizeof conn->word, 0, sizeof *conn - sizeof conn->word);
    conn->index = index;
    conn->fd = fd;
    conn->transport = &pc_transport_plain;
    atomic_store_explicit(&conn->word, generation << 2 | PC_HOLD_OWNED, memory_order_release);
    (void)atomic_fetch_add(&child->open_count, 1);
    pc_count(child->page, PC_C_CONNECTIONS, 1);
    return conn;
}

struct pc_conn *
pc_conn_new_stream(struct pc_child *child)
{
    struct pc_conn *conn = pc_conn_new(child, -1);
    if (conn == NULL)
        return NULL;
    conn->is_stream = true;
    pc_uncount(child->page, PC_C_CONNECTIONS, 1);
    return conn;
}

bool
pc_conn_reserve(struct pc_child *child)
{
    uint32_t before = atomic_fetch_add(&child->open_count, 1);
    /* Counted first, looked second: the main thread sets is_draining first and counts second, so one of both sees. */
    if (!atomic_load(&child->is_draining) && before < child->max_open)
        return true;
    pc_conn_unreserve(child);
    return false;
}

void
pc_conn_unreserve(struct pc_child *child)
{
    uint32_t before = atomic_fetch_sub(&child->open_count, 1);
    if (before == 1 && atomic_load(&child->is_draining))
        pc_child_notify(child, PC_EVENT_DONE);
}

static void
give_place(struct pc_child *child, struct pc_conn *conn)
{
    atomic_store_explicit(deadline_of(child, conn->index), 0, memory_order_relaxed);
    uint64_t generation = (atomic_load_explicit(&conn->word, memory_order_relaxed) >> 2) + 1;
    atomic_store_explicit(&conn->word, generation << 2 | PC_HOLD_OWNED, memory_order_release);
    (void)pthread_mutex_lock(&child->slab_lock);
    bool is_stream = conn->is_stream;
    conn->fd = -1;
    conn->is_stream = false;
    conn->next = child->free_conns;
    child->free_conns = conn;
    (void)pthread_mutex_unlock(&child->slab_lock);
    if (!is_stream)
        pc_uncount(child->page, PC_C_CONNECTIONS, 1);
    pc_conn_unreserve(child);
    if (atomic_load_explicit(&child->accept_paused, memory_order_relaxed))
        atomic_store(&child->resume_ns, 1); /* a descriptor is free: accept again at once */
}

void
pc_conn_forget(struct pc_worker *worker, struct pc_conn *conn)
{
    if (conn->is_parked)
        pc_uncount(worker->child->page, PC_C_PARKED, 1);
    if (conn->io != NULL)
        pc_io_give(worker, conn);
    free(conn->stash);
    conn->stash = NULL;
    give_place(worker->child, conn);
}

/* Whoever passed the socket may keep a duplicate, and then our registration would outlive our close; or it may have set
 * SO_LINGER, and then our close would wait for the client. */
static void
leave_passed(struct pc_child *child, struct pc_conn *conn)
{
    static const struct linger never = {0};
    pc_conn_unwatch(child, conn);
    (void)setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &never, sizeof never); /* cannot fail on a TCP socket */
}

void
pc_conn_close(struct pc_worker *worker, struct pc_conn *conn)
{
    pc_gate_drop(conn, true);
    pc_h2_close(worker, conn);
    conn->transport->end(conn);
    if (conn->is_handed)
        leave_passed(worker->child, conn);
    if (conn->is_stream)
        pc_h2_stream_end(worker, conn);
    else
        (void)close(conn->fd); /* what is in the epoll set leaves it by itself: ours is the last descriptor of it */
    pc_conn_forget(worker, conn);
}

struct pc_conn *
pc_conn_claim(struct pc_child *child, uint64_t token)
{
    uint32_t index = (uint32_t)token;
    if (index / PC_CONN_CHUNK >= atomic_load(&child->chunk_count))
        return NULL;
    struct pc_conn *conn = &child->chunks[index / PC_CONN_CHUNK][index % PC_CONN_CHUNK];
    uint64_t word = atomic_load_explicit(&conn->word, memory_order_acquire);
    for (;;) {
        if ((uint32_t)(word >> 2) != (uint32_t)(token >> 32))
            return NULL;
        bool is_free = (word & 3) == PC_HOLD_NONE;
        if (!is_free && (word & 3) == PC_HOLD_AGAIN)
            return NULL;
        uint64_t wanted = (word & ~(uint64_t)3) | (is_free ? PC_HOLD_OWNED : PC_HOLD_AGAIN);
        if (atomic_compare_exchange_weak_explicit(&conn->word, &word, wanted, memory_order_acq_rel, memory_order_acquire))
            return is_free ? conn : NULL;
    }
}

void
pc_conn_adopted(struct pc_child *child)
{
    uint64_t count = atomic_fetch_add(&child->adopted, 1) + 1;
    if (child->config->max_connections > 0 && count >= child->config->max_connections)
        pc_child_drain(child); /* its successor takes over; what is queued waits for it */
}

bool
pc_conn_release(struct pc_conn *conn)
{
    uint64_t word = atomic_load_explicit(&conn->word, memory_order_relaxed);
    if ((word & 3) == PC_HOLD_OWNED
        && atomic_compare_exchange_strong_explicit(&conn->word, &word, word & ~(uint64_t)3, memory_order_acq_rel,
                                                   memory_order_relaxed))
        return true;
    atomic_store_explicit(&conn->word, (word & ~(uint64_t)3) | PC_HOLD_OWNED, memory_order_release);
    conn->was_drained = conn->is_dry = false; /* the event may have been of bytes */
    conn->saw_end = true;      /* or of the end: read until it shows */
    return false;
}

static int
set_watch(struct pc_child *child, struct pc_conn *conn, uint32_t events)
{
    struct epoll_event event = {.events = events | EPOLLRDHUP | EPOLLET, .data.u64 = pc_conn_token(conn)};
    if (epoll_ctl(child->epoll_fd, conn->in_epoll ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, conn->fd, &event) < 0)
        return -PC_E_SYS;
    conn->in_epoll = true;
    conn->watches_out = (events & EPOLLOUT) != 0;
    return 0;
}

int
pc_conn_watch(struct pc_child *child, struct pc_conn *conn)
{
    if (conn->is_stream) /* the session wakes it */
        return 0;
    return conn->in_epoll && conn->watches_out ? 0 : set_watch(child, conn, EPOLLIN | EPOLLOUT);
}

int
pc_conn_watch_in(struct pc_child *child, struct pc_conn *conn)
{
    if (conn->has_unsent)
        return pc_conn_watch(child, conn);
    return conn->in_epoll || conn->is_stream ? 0 : set_watch(child, conn, EPOLLIN);
}

void
pc_conn_unwatch(struct pc_child *child, struct pc_conn *conn)
{
    if (conn->in_epoll)
        (void)epoll_ctl(child->epoll_fd, EPOLL_CTL_DEL, conn->fd, NULL); /* ours until now, so it is there */
    conn->in_epoll = false;
}

void
pc_conn_deadline(struct pc_child *child, struct pc_conn *conn, uint64_t deadline_ns)
{
    atomic_store_explicit(deadline_of(child, conn->index), deadline_ns, memory_order_relaxed);
}

uint64_t
pc_conn_due(struct pc_child *child, const struct pc_conn *conn)
{
    return atomic_load_explicit(deadline_of(child, conn->index), memory_order_relaxed);
}

/* Whether something has come on a kept connection whose event is yet to be taken: more wait than one batch holds if we have stood
 * still, and it may have come in time. One that says nothing by its bytes gains no more than this once. */
static bool
has_come(struct pc_worker *worker, struct pc_conn *conn)
{
    char byte;
    if (!conn->is_parked || conn->phase != PC_PHASE_HEAD || conn->was_given_time
        || recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0)
        return false;
    conn->was_given_time = true;
    pc_conn_deadline(worker->child, conn, worker->now_ns + BATCHES_NS);
    return true;
}

static void
expire(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_child *child = worker->child;
    if (has_come(worker, conn)) {
        if (!pc_conn_release(conn))
            pc_loop_conn(worker, conn);
        return;
    }
    if (conn->phase == PC_PHASE_GATE && worker->now_ns < pc_gate_due(conn->gate)) {
        pc_loop_conn(worker, conn); /* from now on its client is watched, too */
        return;
    }
    pc_count(child->page, PC_C_TIMEOUTS, 1);
    pc_conn_deadline(child, conn, 0);
    bool is_head = conn->phase == PC_PHASE_HEAD && conn->stash != NULL;
    if (is_head || conn->phase == PC_PHASE_BODY) {
        const char *text = is_head ? "AH01382: Request header read timeout" : "AH01382: Request body read timeout";
        pc_request_say(child, conn, PC_INFO, "reqtimeout", text);
        /* 408 says why; a peeked or idle one is closed without a word */
        if (pc_request_refuse(worker, conn, 408) != PC_GONE)
            pc_loop_conn(worker, conn);
        return;
    }
    if (conn->phase == PC_PHASE_GATE) {
        if (pc_gate_expire(worker, conn) != PC_GONE)
            pc_loop_conn(worker, conn);
        return;
    }
    if (conn->phase == PC_PHASE_H2) {
        if (pc_h2_expire(worker, conn) != PC_GONE)
            pc_loop_conn(worker, conn);
        return;
    }
    if (conn->phase == PC_PHASE_TLS) {
        pc_count(child->page, PC_C_TLS_FAILED, 1);
        pc_request_say(child, conn, PC_INFO, "ssl", "AH01382: TLS handshake not finished in time");
    }
    if (conn->phase == PC_PHASE_SEND)
        pc_respond_abandon(worker, conn);
    pc_conn_close(worker, conn);
}

void
pc_conn_sweep(struct pc_worker *worker, uint64_t now_ns)
{
    struct pc_child *child = worker->child;
    uint32_t count = atomic_load(&child->chunk_count);
    for (uint32_t index = 0; index < count * PC_CONN_CHUNK; index++) {
        uint64_t deadline = atomic_load_explicit(deadline_of(child, index), memory_order_relaxed);
        if (deadline == 0 || deadline > now_ns)
            continue;
        struct pc_conn *conn = &child->chunks[index / PC_CONN_CHUNK][index % PC_CONN_CHUNK];
        uint64_t word = atomic_load_explicit(&conn->word, memory_order_acquire);
        uint64_t owned = (word & ~(uint64_t)3) | PC_HOLD_OWNED;
        if ((word & 3) != PC_HOLD_NONE || !atomic_compare_exchange_strong(&conn->word, &word, owned))
            continue; /* in work (a job always is): its owner sets a new deadline */
        if (atomic_load_explicit(deadline_of(child, index), memory_order_relaxed) == deadline)
            expire(worker, conn);
        else if (!pc_conn_release(conn))
            pc_loop_conn(worker, conn);
    }
}

/* Each runs its step, which sees that the child drains. Those that have no deadline are no sessions. */
void
pc_conn_send_away(struct pc_worker *worker)
{
    struct pc_child *child = worker->child;
    uint32_t count = atomic_load(&child->chunk_count) * PC_CONN_CHUNK;
    for (uint32_t index = 0; index < count; index++) {
        const struct pc_conn *conn = &child->chunks[index / PC_CONN_CHUNK][index % PC_CONN_CHUNK];
        uint64_t generation = atomic_load_explicit(&conn->word, memory_order_acquire) >> 2;
        if (atomic_load_explicit(deadline_of(child, index), memory_order_relaxed) != 0)
            pc_loop_wake(worker, generation << 32 | index); /* of no harm to the others: they look, and wait on */
    }
}

/* ------------------------------------------------------------------ room for newcomers */

struct parked {
    uint64_t since_ns, deadline_ns;
    uint32_t index;
};

/* Own a connection if it is parked and its deadline still this one; NULL: it is in work, or something else by now. */
static struct pc_conn *
claim_parked(struct pc_worker *worker, struct parked place)
{
    struct pc_child *child = worker->child;
    struct pc_conn *conn = &child->chunks[place.index / PC_CONN_CHUNK][place.index % PC_CONN_CHUNK];
    uint64_t word = atomic_load_explicit(&conn->word, memory_order_acquire);
    uint64_t owned = (word & ~(uint64_t)3) | PC_HOLD_OWNED;
    if ((word & 3) != PC_HOLD_NONE || !atomic_compare_exchange_strong(&conn->word, &word, owned))
        return NULL;
    if (conn->is_parked && atomic_load_explicit(deadline_of(child, place.index), memory_order_relaxed) == place.deadline_ns)
        return conn;
    if (!pc_conn_release(conn))
        pc_loop_conn(worker, conn);
    return NULL;
}

/* Note one more place, the longest idle first; of more than `most` the last is dropped. */
static void
note_parked(struct parked *places, uint32_t *count, uint32_t most, struct parked place)
{
    if (*count == most && place.since_ns >= places[most - 1].since_ns)
        return;
    uint32_t at = *count < most ? (*count)++ : most - 1;
    for (; at > 0 && places[at - 1].since_ns > place.since_ns; at--)
        places[at] = places[at - 1];
    places[at] = place;
}

static uint32_t
find_parked(struct pc_worker *worker, struct parked *places, uint32_t most)
{
    struct pc_child *child = worker->child;
    uint32_t count = 0, place_count = atomic_load(&child->chunk_count) * PC_CONN_CHUNK;
    for (uint32_t index = 0; index < place_count; index++) {
        struct parked place = {0, atomic_load_explicit(deadline_of(child, index), memory_order_relaxed), index};
        struct pc_conn *conn = place.deadline_ns == 0 ? NULL : claim_parked(worker, place);
        if (conn == NULL)
            continue;
        uint64_t allowed_ns = (conn->host != NULL ? conn->host : &child->fallback_host)->keep_alive_ms * 1000000ull;
        place.since_ns = place.deadline_ns > allowed_ns ? place.deadline_ns - allowed_ns : 0;
        if (place.since_ns + SHED_IDLE_NS <= worker->now_ns)
            note_parked(places, &count, most, place);
        if (!pc_conn_release(conn))
            pc_loop_conn(worker, conn);
    }
    return count;
}

uint32_t
pc_conn_shed(struct pc_worker *worker)
{
    struct pc_child *child = worker->child;
    struct parked places[SHED_MAX];
    uint64_t parked = atomic_load_explicit(&child->page->counters[PC_C_PARKED], memory_order_relaxed);
    uint32_t closed = 0;
    if (parked == 0 || atomic_load(&child->is_draining))
        return 0;
    uint32_t most = parked / SHED_SHARE < SHED_MAX ? 1 + (uint32_t)(parked / SHED_SHARE) : SHED_MAX;
    uint32_t count = find_parked(worker, places, most);
    for (uint32_t i = 0; i < count; i++) {
        char byte;
        struct pc_conn *conn = claim_parked(worker, places[i]);
        if (conn == NULL)
            continue;
        bool is_idle = recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
        if (is_idle) {
            pc_conn_close(worker, conn);
            closed++;
        } else if (!pc_conn_release(conn)) { /* its next request is here: the event is on its way */
            pc_loop_conn(worker, conn);
        }
    }
    return closed;
}

bool
pc_conn_make_room(struct pc_worker *worker, int source_fd)
{
    struct pollfd source = {.fd = source_fd, .events = POLLIN};
    return poll(&source, 1, 0) > 0 && (source.revents & POLLIN) != 0 && pc_conn_shed(worker) > 0;
}

static void
free_io(struct pc_io *io)
{
    pc_arena_free(&io->arena);
    free(io);
}

void
pc_io_free_stock(struct pc_worker *worker)
{
    for (size_t kind = 0; kind < 2; kind++) {
        if (worker->stock[kind] != NULL)
            free_io(worker->stock[kind]);
        worker->stock[kind] = NULL;
    }
}

static void
free_in(struct pc_io *io)
{
    if (io->in != io->in_inline)
        free(io->in);
}

static struct pc_io *
stocked(struct pc_child *child, enum pc_io_kind kind)
{
    (void)pthread_mutex_lock(&child->io_lock);
    struct pc_io *io = child->io_stock[kind];
    if (io != NULL) {
        child->io_stock[kind] = io->next;
        child->io_stocked[kind]--;
    }
    (void)pthread_mutex_unlock(&child->io_lock);
    return io;
}

/* Everything of an io that a new request must find zeroed, whichever way it comes (read, carried, or refused unread); the
 * arrays behind their counts may hold old bytes. */
static void
clean(struct pc_io *io)
{
    io->in_len = io->in_at = io->head_len = 0;
    io->is_prepared = io->answered_early = io->body_chunked = io->body_done = io->body_raw = false;
    io->body_left = io->body_seen = io->body_wire = 0;
    io->out = NULL;
    io->out_owned = false;
    io->out_len = io->out_at = 0;
}

static struct pc_io *
new_io(enum pc_io_kind kind)
{
    struct pc_io *io = malloc(sizeof *io + (kind == PC_IO_CONNECTION ? PC_IN_INLINE + sizeof(struct pc_head) : 0));
    if (io == NULL)
        pc_die(111, "out of memory");
    memset(io, 0, sizeof *io);
    io->arena.is_small = kind == PC_IO_STREAM;
    return io;
}

/* The bytes that came before: a connection's are copied to where more may follow; a stream's are all of its head. */
static void
take_stash(struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    if (conn->is_stream && conn->stash_len > 0) {
        io->in = conn->stash;
        io->in_cap = io->in_len = conn->stash_len;
        conn->stash = NULL;
    }
    if (conn->stash == NULL)
        return;
    if (pc_io_room(io, conn->stash_len) != 0)
        pc_bug("a stash is larger than a head");
    memcpy(io->in, conn->stash, conn->stash_len);
    io->in_len = conn->stash_len;
    free(conn->stash);
    conn->stash = NULL;
}

struct pc_io *
pc_io_take(struct pc_worker *worker, struct pc_conn *conn)
{
    static const struct pc_head no_head; /* of a stream's request that nobody has looked at */
    enum pc_io_kind kind = conn->is_stream ? PC_IO_STREAM : PC_IO_CONNECTION;
    if (conn->io != NULL)
        return conn->io;
    struct pc_io *io = worker->stock[kind];
    worker->stock[kind] = NULL;
    if (io == NULL)
        io = stocked(worker->child, kind);
    if (io == NULL)
        io = new_io(kind);
    clean(io);
    io->in = io->in_inline;
    io->in_cap = kind == PC_IO_CONNECTION ? PC_IN_INLINE : 0;
    io->head = kind == PC_IO_CONNECTION ? (void *)(io->in_inline + PC_IN_INLINE) : (struct pc_head *)(uintptr_t)&no_head;
    if (kind == PC_IO_CONNECTION)
        memset(io->head, 0, offsetof(struct pc_head, fields));
    conn->io = io;
    take_stash(conn);
    return io;
}

void
pc_io_give(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_io *io = conn->io;
    struct pc_child *child = worker->child;
    enum pc_io_kind kind = conn->is_stream ? PC_IO_STREAM : PC_IO_CONNECTION;
    conn->io = NULL;
    free_in(io);
    if (io->out_owned)
        free(io->out);
    pc_arena_reset(&io->arena);
    if (worker->stock[kind] == NULL) {
        worker->stock[kind] = io;
        return;
    }
    (void)pthread_mutex_lock(&child->io_lock);
    bool is_kept = child->io_stocked[kind] < IO_STOCK_MAX;
    if (is_kept) {
        io->next = child->io_stock[kind];
        child->io_stock[kind] = io;
        child->io_stocked[kind]++;
    }
    (void)pthread_mutex_unlock(&child->io_lock);
    if (!is_kept)
        free_io(io);
}

int
pc_io_room(struct pc_io *io, size_t room)
{
    if (io->in_cap - io->in_len >= room)
        return 0;
    size_t cap = (io->in_len + room + PC_IN_INLINE - 1) / PC_IN_INLINE * PC_IN_INLINE; /* no more: it may wait for long */
    if (cap > PC_IN_MAX)
        cap = PC_IN_MAX;
    if (cap - io->in_len < room)
        return -PC_E_HEAD_LARGE;
    char *grown = malloc(cap);
    if (grown == NULL)
        pc_die(111, "out of memory");
    memcpy(grown, io->in, io->in_len); /* UNSAFE: in_len <= in_cap < cap */
    free_in(io);
    io->in = grown;
    io->in_cap = (uint32_t)cap;
    return 0;
}

/* A stream has no socket that would be ready: its token waits until a leader comes by. */
static int
take_turn(struct pc_child *child, const struct pc_conn *conn)
{
    (void)pthread_mutex_lock(&child->wait_lock);
    uint32_t count = atomic_load_explicit(&child->turn_count, memory_order_relaxed);
    if (count == child->turn_cap) {
        uint32_t cap = child->turn_cap > 0 ? 2 * child->turn_cap : 16;
        uint64_t *grown = realloc(child->turns, cap * sizeof *grown);
        if (grown == NULL)
            pc_die(111, "out of memory");
        child->turns = grown;
        child->turn_cap = cap;
    }
    child->turns[count] = pc_conn_token(conn);
    atomic_store(&child->turn_count, count + 1);
    (void)pthread_mutex_unlock(&child->wait_lock);
    pc_child_wake(child);
    return 0;
}

int
pc_conn_requeue(struct pc_child *child, struct pc_conn *conn)
{
    return conn->is_stream ? take_turn(child, conn) : set_watch(child, conn, EPOLLIN | EPOLLOUT);
}

void
pc_conn_free_all(struct pc_child *child)
{
    for (uint32_t i = 0; child->chunks != NULL && i < atomic_load(&child->chunk_count); i++) {
        for (uint32_t j = 0; j < PC_CONN_CHUNK; j++) {
            struct pc_conn *conn = &child->chunks[i][j];
            if (conn->fd < 0 && !conn->is_stream)
                continue; /* a free place */
            pc_gate_drop(conn, true);
            conn->transport->end(conn);
            pc_h2_close(NULL, conn);
            if (conn->is_stream)
                pc_h2_stream_end(NULL, conn);
            if (conn->io != NULL && conn->io->out_owned)
                free(conn->io->out);
            if (conn->io != NULL) {
                free_in(conn->io);
                free_io(conn->io);
            }
            free(conn->stash);
            if (conn->fd >= 0)
                (void)close(conn->fd); /* cut off: the child ends */
        }
        free(child->chunks[i]);
        free((void *)child->deadline_chunks[i]);
    }
    for (size_t kind = 0; kind < 2; kind++)
        for (struct pc_io *io = child->io_stock[kind], *next; io != NULL; io = next) {
            next = io->next;
            free_io(io);
        }
}
