/* child.h - the moving parts of one child: its table, its connections, its threads. In the order a connection meets them.
 * pc.h has the words and the pure parts; nothing outside native/ sees what is inside these structs. */
#ifndef PC_CHILD_H
#define PC_CHILD_H

#include <errno.h>
#include <sys/epoll.h>

#include "page.h"
#include "pc.h"

struct pc_child;
struct pc_route_map;

/* ------------------------------------------------------------------ the page (page.c) */

struct pc_slot {
    _Atomic int32_t value; /* PC_THISCHILD, PC_OTHERCHILD or a descriptor */
    _Atomic uint32_t changes;
    _Atomic int32_t history[PC_SLOT_HISTORY];
};

struct pc_host_row {
    _Atomic uint64_t responses[PC_HOST_CLASSES]; /* 1xx to 5xx */
    _Atomic uint64_t bytes_in, bytes_out, duration_us;
    char name[PC_HOST_NAME_BYTES]; /* empty: the row is free */
};

struct pc_page {
    uint64_t magic;
    _Atomic uint64_t counters[PC_COUNTER_ROOM];
    _Atomic uint64_t latencies[PC_LATENCY_BUCKETS];
    _Atomic uint32_t slot_count;
    uint32_t zero;
    struct pc_slot slots[PC_PAGE_SLOTS];
    struct pc_host_row hosts[PC_PAGE_HOSTS];
};
_Static_assert(sizeof(struct pc_page) == PC_PAGE_BYTES, "wire/page.py and struct pc_page differ");

static inline void
pc_count(struct pc_page *page, enum pc_counter counter, uint64_t by)
{
    (void)atomic_fetch_add_explicit(&page->counters[counter], by, memory_order_relaxed);
}

static inline void
pc_uncount(struct pc_page *page, enum pc_counter counter, uint64_t by)
{
    (void)atomic_fetch_sub_explicit(&page->counters[counter], by, memory_order_relaxed);
}

/* What the page counts already that each process says of itself anew: the predecessor's, which had this page before. */
struct pc_page_base {
    uint64_t cpu_user_us, cpu_system_us, log_lost;
};
/* Counters go on, states begin anew. */
int pc_page_map(int page_fd, struct pc_page **ret_page, struct pc_page_base *ret_base);
uint32_t pc_latency_bucket(uint64_t us); /* pure */
struct pc_req;
void pc_page_request(struct pc_child *child, const struct pc_req *req); /* one that was answered; its end_ns is set */
void pc_page_cpu(struct pc_child *child);    /* what it has used of processors */
void pc_page_log_lost(struct pc_child *child, uint64_t lines); /* what it has lost of its logs */
void pc_page_memory(struct pc_child *child); /* and of memory; takes half a millisecond */
void pc_slot_set(struct pc_page *page, uint32_t slot, int32_t value);
int32_t pc_slot_get(const struct pc_page *page, uint32_t slot);

/* ------------------------------------------------------------------ transports (transport.c; tls_io.c) */

struct pc_conn;
struct pc_transport {
    const char *name;
    /* As recv/send with MSG_DONTWAIT: bytes, 0 = end, -PC_E_AGAIN, -PC_E_CLOSED. more: another send follows at once. */
    ssize_t (*recv)(struct pc_conn *conn, char *buf, size_t cap);
    ssize_t (*send)(struct pc_conn *conn, const char *buf, size_t len, bool more);
    /* File bytes; NULL = read and send. Advances *offset. */
    ssize_t (*send_file)(struct pc_conn *conn, int fd, uint64_t *offset, size_t len);
    /* What was taken and still waits for room in the socket: 0 nothing does, -PC_E_AGAIN, -PC_E_CLOSED. NULL = never. */
    int (*flush)(struct pc_conn *conn);
    void (*goodbye)(struct pc_conn *conn); /* nothing will be sent any more, and the other side may know; flush sends it. NULL = no word for it */
    void (*end)(struct pc_conn *conn); /* before the socket is closed or half-closed, with a goodbye if none was said; the connection is plain then */
    /* mod_ssl's variables: one by its name (base NULL = there is none), or those that SSLOptions (PC_SSL_*) gives programs. NULL = none. */
    struct pc_slice (*fact)(const struct pc_conn *conn, struct pc_slice name, struct pc_arena *arena);
    uint32_t (*facts)(const struct pc_conn *conn, uint32_t options, struct pc_arena *arena, struct pc_pair **ret_facts);
};
extern const struct pc_transport pc_transport_plain, pc_transport_tls;

/* What a call that reads or writes without waiting has returned, in our words. */
static inline ssize_t
pc_io_result(ssize_t count)
{
    if (count >= 0)
        return count;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? -PC_E_AGAIN : -PC_E_CLOSED;
}

/* Acknowledge at once what the client has sent: called when more of its request is awaited. */
void pc_transport_acknowledge(const struct pc_conn *conn);

/* ------------------------------------------------------------------ a connection (conn.c) */

enum pc_phase {
    PC_PHASE_PEEK,   /* just accepted: not read from, only looked at */
    PC_PHASE_WAIT,   /* its inbox is full: held back, tried again */
    PC_PHASE_TLS,    /* in the middle of a handshake; sni_host is whose */
    PC_PHASE_HEAD,   /* reading a head; without bytes it is parked: kept alive, no thread, no buffer */
    PC_PHASE_BODY,   /* reading a body that nobody wants, to check and skip it */
    PC_PHASE_SERVE,  /* a thread makes the response, or Python is asked */
    PC_PHASE_GATE,   /* a program has the request: its body goes there, the head of its answer is awaited (gate.h) */
    PC_PHASE_SEND,   /* sending the response */
    PC_PHASE_LINGER, /* answered and half-closed: reading until the client closes */
    PC_PHASE_H2,     /* an HTTP/2 session: its requests are connections of their own (h2.h) */
    PC_PHASES,
};

enum pc_speech { /* of the address that a connection came in on */
    PC_SPEECH_UNKNOWN, /* nobody has looked */
    PC_SPEECH_PLAIN,
    PC_SPEECH_TLS,     /* so nothing is said in plain words, but for an alert */
    PC_SPEECH_MISTAKEN /* it is TLS, and the client speaks plain HTTP, in which it is told so */
};

enum pc_front_state {
    PC_FRONT_UNKNOWN, /* nobody has looked whether a PROXY protocol header comes first */
    PC_FRONT_AWAITED,
    PC_FRONT_TAKEN,   /* it was read, and `client` is what it said */
};

/* What a step leaves: go on with the (new) phase, wait for the socket, gone (freed or passed on), or a job for a thread that
 * may block. */
enum pc_next { PC_GO, PC_WAIT, PC_GONE, PC_JOB };

enum pc_io_kind { PC_IO_CONNECTION, PC_IO_STREAM }; /* many streams may wait for one client: theirs is as small as can be */
#define PC_IN_INLINE 4096
#define PC_IN_MAX (PC_MAX_HEAD_BYTES + 8192)

/* What a connection needs only while a request is in work; from the worker's stock. */
struct pc_io {
    struct pc_io *next; /* in the stock */
    char *in;           /* in_inline, or malloc'ed when a head is larger */
    uint32_t in_cap, in_len, in_at; /* in_at: start of the request in work */
    uint32_t head_len;
    bool is_prepared;    /* req is filled */
    bool body_chunked, body_done; /* chunked: its length is not known */
    bool body_raw;       /* the transport gives just its bytes, and 0 behind them: HTTP/2 */
    bool answered_early; /* without reading the whole body: the connection ends behind the response */
    uint64_t body_left;
    struct pc_chunked chunked;
    uint64_t body_seen, body_wire, body_start_ns; /* data of the body; its bytes as they came, chunk sizes and all */
    char *out;          /* what is still to be sent: in the worker's buffer while it runs, malloc'ed when it waits */
    bool out_owned;
    size_t out_len, out_at;
    struct pc_slice mem; /* then this, from the arena or constant */
    uint64_t file_offset, file_left;
    uint32_t part;
    bool chunk_out, producer_done, mem_ends_chunk;
    size_t head_out_len;
    bool keep;          /* another request may follow */
    struct pc_arena arena;
    struct pc_head *head; /* a stream's: in the arena, with as many fields as there are */
    struct pc_req req;
    _Alignas(16) char in_inline[]; /* a connection's: PC_IN_INLINE, and then `head`. A stream has none: `in` is the text of its head */
};

struct pc_conn {
    _Atomic uint64_t word; /* generation << 2 | enum pc_hold: who may touch the rest */
    uint32_t index;
    int fd;
    uint8_t phase; /* enum pc_phase */
    uint8_t hops;
    uint8_t front; /* enum pc_front_state */
    uint8_t speech; /* enum pc_speech */
    bool in_epoll, watches_out, is_handed, is_parked, asks /* a job only Python can do */;
    uint64_t routed_name; /* hash of the last name that was found to be ours without being known by heart; 0 = none */
    bool is_received; /* its first request here is still to come: a name that is not ours was passed in error */
    bool is_routed;   /* the next request's name has been looked up: it is ours */
    bool saw_end;     /* epoll said that the client has finished sending: read on until 0 */
    bool was_drained; /* the last read was short: the socket is empty until the next event */
    bool is_dry;      /* TLS: so was that of the socket, whatever lies here decrypted */
    bool has_unsent;  /* TLS: what was taken waits for room in the socket, */
    bool has_moved;   /* and some of it has found room since pc_conn_take_moved */
    bool is_cut;      /* the last response did not come to its end, and its client must see that */
    bool was_given_time; /* is_parked: behind its deadline, see conn.c */
    bool is_stream;   /* of HTTP/2: no socket, fd is -1 */
    bool has_news;    /* is_stream: the session has not been told yet of what its transport was given */
    uint16_t listener;
    uint32_t requests;
    uint32_t wanted; /* PC_PHASE_WAIT: identity number */
    /* Aligned as a sockaddr_storage is, for they are read as one (pc_conn_local). */
    _Alignas(struct sockaddr_storage) union { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; } client, local;
    uint64_t front_tag; /* PC_FRONT_TAKEN: who listens has signed that `client` is this socket's */
    const struct pc_transport *transport;
    struct pc_tls *tls;      /* NULL = plain */
    struct pc_host *sni_host; /* TLS: whose certificate was shown; NULL = plain */
    uint64_t since_ns;       /* accepted, or the first byte of the head in work */
    struct pc_io *io;        /* NULL = parked */
    char *stash;             /* first bytes of a head that is not whole yet (malloc'ed) */
    uint32_t stash_len;
    struct pc_gate *gate;    /* the program that answers the request in work; NULL = none */
    struct pc_h2 *h2;        /* PC_PHASE_H2: the session */
    struct pc_h2_stream *stream; /* is_stream */
    struct pc_host *host;    /* of the last request: the next one's likely host */
    struct pc_conn *next;    /* in a list: waiting, jobs, or free */
};

enum pc_hold { PC_HOLD_NONE = 0, PC_HOLD_OWNED = 1, PC_HOLD_AGAIN = 2 };

#define PC_CONN_CHUNK 64

/* ------------------------------------------------------------------ keys of session tickets (tickets.c) */

/* A memfd, sealed: this struct with `count` keys, newest first. One for each identity; it outlives children and reloads. */
#define PC_TICKETS_MAGIC 0x4B544350u /* "PCTK" */
struct pc_ticket_key { uint8_t name[16], cipher[32], mac[32]; };
struct pc_ticket_keys {
    uint32_t magic, count;
    struct pc_ticket_key keys[PC_MAX_TICKET_KEYS];
};
_Static_assert(sizeof(struct pc_ticket_keys) == 8 + 80 * PC_MAX_TICKET_KEYS, "docs/protocol.md");

/* Dispatcher: put a fresh key, and the newer ones of `before` (-1 = none), into an empty memfd, and seal it. No process's own memory
 * ever holds them. 0, -PC_E_FORMAT (before), -PC_E_SYS. */
int pc_tickets_rotate(int before, int fd);
/* Child. The descriptor stays the caller's. 0, -PC_E_FORMAT, -PC_E_SYS. */
int pc_tickets_read(int fd, struct pc_ticket_keys *ret_keys);

/* ------------------------------------------------------------------ a worker thread and the child (loop.c, child.c) */

#define PC_OUT_BYTES (PC_SMALL_FILE_BYTES + 16384 + 32768)

struct pc_worker {
    struct pc_child *child;
    uint32_t slot;
    struct pc_io *stock[2]; /* one io kept warm for each of enum pc_io_kind */
    char *out;           /* PC_OUT_BYTES */
    struct pc_conn *current; /* the job whose question Python is answering */
    struct pc_conn *jobs, *jobs_tail; /* found in this batch */
    struct pc_conn *woken, *woken_tail; /* owned, to be run behind what runs now: streams and sessions that wake each other */
    bool is_apart;     /* a follower runs what its job has woken: what takes its time there is for others */
    pthread_t thread;  /* of a worker that C started */
    bool is_python;    /* a thread of the interpreter: it answers questions; the others never enter Python */
    uint64_t date_s;
    char date[29];
    uint64_t now_ns;  /* of the last wait's end */
    uint32_t inbox_luck, inbox_calls, accept_luck, accept_calls; /* whether a second message or connection tends to wait */
    bool may_block;   /* a follower leads: this thread may take its time */
    bool has_waited;  /* job.c: a connection went among those that wait for room, and for which place */
    const void *waited_for;
    _Atomic bool must_leave;
    bool is_used;
    _Atomic(struct pc_route_map *) hazard; /* last: another thread looks at it at any time, so it is never cleared with the rest */
};

enum pc_work { /* why pc_worker_run came back */
    PC_WORK_ASK,   /* Python is asked about worker->current; only to a thread of the interpreter */
    PC_WORK_LEAVE, /* the thread shall end */
};

enum pc_event { /* why pc_child_wait came back; bits */
    PC_EVENT_CONTROL = 1, PC_EVENT_THREADS = 2, PC_EVENT_IDLE = 4, PC_EVENT_DONE = 8, PC_EVENT_LOAD = 16,
    PC_EVENT_STOP = 32, PC_EVENT_PYTHON = 64, PC_EVENT_MEMORY = 128,
};

/* Special indexes in epoll data, above the real connections'; PC_TOKEN_GATE is a bit beside the index of a connection: a descriptor
 * of its gate. */
enum { PC_TOKEN_GATE = PC_MAX_CONNECTIONS, PC_TOKEN_LISTENER = 0xF0000000, PC_TOKEN_INBOX = 0xF1000000, PC_TOKEN_WAKE = 0xF2000000 };

/* A program that shall end by itself within grace_s, 0 = at once. */
struct pc_cancel { uint64_t id; uint32_t grace_s; };

struct pc_child {
    struct pc_config *config;
    struct pc_page *page;
    struct pc_page_base page_base;
    pthread_mutex_t page_lock; /* held while a host gets its row */
    int epoll_fd, inbox_fd, control_fd;
    int wake_fd;   /* eventfd in the epoll set: ends a leader's wait */
    int notify_fd; /* eventfd: wakes the main thread */
    int signal_fd; /* SIGTERM */
    int job_fd;    /* job.c: write end of the identity's job box, shared by its children; -1 = none */
    int *key_fds;  /* until it is ready: TLS keys by KEY_NUMBER; -errno = it cannot be opened */
    uint32_t key_count;
    bool takes_any_key;
    struct pc_tls_store *tls; /* its hosts' SSL_CTX; NULL = none has TLS */
    pthread_rwlock_t ticket_lock;
    struct pc_ticket_keys tickets; /* with ticket_lock; count 0 = none */
    uint32_t listener_count;
    int listener_fds[PC_MAX_LISTENERS];
    struct sockaddr_storage listener_addresses[PC_MAX_LISTENERS];
    _Atomic(struct pc_route_map *) route; /* NULL = does not accept */
    _Atomic bool has_fronts, has_tls, looks_for_h2c; /* as in the route map: all that is asked for each connection */
    pthread_mutex_t retire_lock;
    struct pc_route_map *retired;

    pthread_mutex_t inbox_lock; /* held to change the table; senders hold it as well, it is uncontended */
    int *inbox_write;           /* by identity number; -1 = none */
    uint16_t *inbox_waiting;    /* connections held back for it */
    uint32_t inbox_count;

    pthread_mutex_t slab_lock;
    struct pc_conn **chunks;
    _Atomic uint64_t **deadline_chunks; /* deadlines of a chunk's connections, ns; 0 = none */
    _Atomic uint32_t chunk_count;
    struct pc_conn *free_conns;
    _Atomic uint32_t open_count;
    uint32_t max_open;

    pthread_mutex_t lead_lock;
    pthread_cond_t lead_cond;
    _Atomic uint32_t leaders, wanted_leaders;
    uint32_t idle, threads, busy;
    bool is_waiting[PC_MAX_THREADS];
    struct pc_conn *jobs, *jobs_tail;
    uint32_t job_count;
    pthread_cond_t ask_cond; /* with lead_lock: questions for Python, and its threads that wait for one */
    struct pc_conn *asks, *asks_tail;
    uint32_t ask_count, python_idle, python_threads;
    _Atomic uint32_t full_batches;
    struct pc_worker workers[PC_MAX_THREADS];

    pthread_mutex_t wait_lock; /* connections held back for full inboxes, oldest first */
    struct pc_conn *waiting, *waiting_tail;
    _Atomic uint32_t waiting_count;

    struct pc_conn *job_first, *job_tail; /* with wait_lock: connections that wait for room in the job box */
    struct pc_cancel cancels[PC_MAX_CANCELS]; /* and jobs to be cancelled */
    uint32_t cancel_count;
    _Atomic uint32_t job_waiting;         /* both */
    uint64_t *turns;                      /* with wait_lock: tokens of streams that go on when others had their turn */
    uint32_t turn_cap;
    _Atomic uint32_t turn_count;
    _Atomic uint32_t job_counter;

    _Atomic bool is_draining, is_stopping, has_lines /* in log buffers */;
    _Atomic bool has_sent_away; /* draining: HTTP/2 sessions have been told */
    bool has_h2c;               /* any host speaks HTTP/2 without TLS */
    pthread_mutex_t accept_lock; /* held while listeners or inbox go into the epoll set or out of it */
    _Atomic bool accept_paused, listeners_in_epoll, inbox_in_epoll;
    _Atomic bool is_tight;      /* few descriptors are left, or the limit has changed: look before receiving one */
    _Atomic uint32_t fd_limit;  /* RLIMIT_NOFILE as it was at the last look */
    _Atomic uint64_t next_look_ns; /* loop.c: at the listeners */
    _Atomic uint64_t next_limit_look_ns; /* hand.c: at RLIMIT_NOFILE */
    _Atomic uint64_t resume_ns, pause_said_ns, next_sweep_ns, next_retry_ns, next_job_ns, next_flush_ns, next_memory_ns, last_active_ns;
    _Atomic uint64_t refused_said_ns; /* when a refused hand-off was last told of */
    _Atomic uint32_t refused_unsaid;  /* refused since then, and only counted */
    _Atomic uint64_t adopted; /* connections so far: MaxConnectionsPerChild */
    _Atomic uint64_t request_id;
    _Atomic uint32_t events; /* enum pc_event bits for the main thread */
    bool may_scale_leaders;
    size_t thread_stack_bytes;
    uint32_t generation;
    char name[64];

    /* The main thread's own. */
    bool is_ending, is_load_due;
    uint64_t next_load_ns;
    uint32_t log_count, reopened_count;
    bool *log_is_given;          /* by index: the dispatcher opens it */
    int *reopened, *fresh_logs;  /* log_count of each */

    struct {
        pthread_mutex_t lock;
        struct pc_backend *first;
        uint32_t count;
        _Atomic uint32_t kept; /* idle connections */
        _Atomic uint64_t next_sweep_ns;
        struct pc_dial *untaken;        /* new connections whose request nobody may have read yet */
        _Atomic uint32_t untaken_count; /* those of them that are still looked at */
        _Atomic uint64_t next_knock_ns;
    } backends; /* backend.c, kept.c, knock.c: where this child has connected to */

    struct {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        bool is_asked, is_there;
        int fd; /* who asked takes it over */
    } board; /* main.c: perchild/wire/board.py */

    int mutex_kind; /* enum pc_accept_lock */
    int mutex_fd, mutex_id;
    pthread_mutex_t *mutex_shared;
    bool mutex_held;

    struct pc_io *io_stock[2]; /* enum pc_io_kind */
    pthread_mutex_t io_lock;
    uint32_t io_stocked[2];
    struct pc_host fallback_host; /* for a child without hosts of its own */
};

/* child.c */
struct pc_child_options {
    int control_fd, inbox_fd, record_fd, types_fd, page_fd, route_fd;
    const int *listener_fds;
    uint32_t listener_count;
    const uint32_t *inbox_numbers;
    const int *inbox_fds;
    uint32_t inbox_count;
    const int *log_fds;
    uint32_t log_count;
    uint32_t max_open;    /* connections: from RLIMIT_NOFILE */
    int mutex_kind, mutex_fd, mutex_id;
    int job_fd; /* write end of the identity's job box; -1 = it has no runner */
    int ticket_fd; /* keys of session tickets; -1 = none */
    const int *key_fds; /* TLS keys, by KEY_NUMBER; -1 = the child opens it itself, as its identity */
    uint32_t key_count;
    bool takes_any_key; /* a key that is not its certificate's breaks its host; false = then there shall be no child yet */
    bool may_scale_leaders;
    size_t thread_stack_bytes; /* 0 = the system's */
    bool has_one_worker;       /* -X */
    uint32_t generation;       /* for people */
    char name[64];             /* of the identity, for people; NUL-terminated */
};
/* Takes over every descriptor; record, types, page, route and keys are closed once they are mapped or read. -PC_E_AGAIN: a key was
 * changed since the record was made. */
int pc_child_new(const struct pc_child_options *options, struct pc_child **ret_child, const char **ret_why);
/* Wait for something that the main thread decides. Returns enum pc_event bits; timeout_ms -1 = none. */
uint32_t pc_child_wait(struct pc_child *child, int timeout_ms);
void pc_child_drain(struct pc_child *child); /* no new connections; what is open is finished */
void pc_child_stop(struct pc_child *child);  /* workers leave now; logs flushed */
int pc_child_set_route(struct pc_child *child, int route_fd); /* maps it; the descriptor stays the caller's */
int pc_child_set_inbox(struct pc_child *child, uint32_t number, int write_fd); /* -1 = forget; the child owns it */
int pc_child_set_tickets(struct pc_child *child, int fd); /* the descriptor stays the caller's */
int pc_child_reopen(struct pc_child *child, const int *fds, uint32_t count);
void pc_child_notify(struct pc_child *child, uint32_t events);
void pc_child_wake(struct pc_child *child); /* ends the leader's wait */
void pc_child_free(struct pc_child *child);
struct pc_child_facts { /* for scaling: the record's numbers, then what there is now */
    uint32_t start_threads, min_spare, max_spare, max_threads, max_connections, idle_s;
    uint32_t threads, python_threads, busy, ask_count, open_count;
    uint32_t generation, thread_stack_bytes;
    char name[64];
};
void pc_child_facts(struct pc_child *child, struct pc_child_facts *ret_facts);

/* keys.c: fills key_fds and tickets; what is there is read by then, or of no use, when they are closed (again). */
int pc_keys_take(struct pc_child *child, const struct pc_child_options *options);
void pc_keys_close(struct pc_child *child);

/* main.c: the child's main thread */
enum pc_main { PC_MAIN_END, PC_MAIN_PYTHON /* a question waits for a thread of the interpreter */ };
void pc_child_begin(struct pc_child *child, bool has_one_worker); /* first threads, READY */
enum pc_main pc_child_main(struct pc_child *child);               /* until the child shall end, or Python is needed */
/* Ask the dispatcher for a board of what this child may see, and wait for it; in any thread but the main one. Returns its
 * descriptor, the caller's, or -PC_E_AGAIN: none came in time, or another thread is asking. */
int pc_child_ask_board(struct pc_child *child, uint32_t timeout_ms);
void pc_child_finish(struct pc_child *child);                     /* workers go home, logs are written */

/* loop.c: leader and followers */
int pc_child_start_threads(struct pc_child *child, uint32_t count); /* in C; returns how many were started */
void pc_child_join(struct pc_child *child);                        /* behind pc_child_stop: those threads have ended */
/* Before a thread's first pc_worker_run. Takes the lowest free slot and returns it, or -PC_E_*. */
int pc_worker_start(struct pc_child *child, bool is_python);
enum pc_work pc_worker_run(struct pc_child *child, uint32_t slot);
void pc_worker_end(struct pc_child *child, uint32_t slot);
void pc_child_dismiss(struct pc_child *child, uint32_t count); /* that many idle followers leave */
/* Go through the phases until it waits (and is released), is gone, or is a job (in worker->jobs). */
void pc_loop_conn(struct pc_worker *worker, struct pc_conn *conn);
/* The same behind what this thread runs now, for a connection that the caller owns. */
void pc_loop_later(struct pc_worker *worker, struct pc_conn *conn);
/* Something has happened to the connection with that token: as an event. */
void pc_loop_wake(struct pc_worker *worker, uint64_t token);
/* Run all that was woken. */
void pc_loop_settle(struct pc_worker *worker);

/* acceptlock.c: AcceptMutex among the unassigned children, who share one uid */
enum pc_accept_lock { PC_LOCK_DEFAULT, PC_LOCK_FLOCK, PC_LOCK_FCNTL, PC_LOCK_PTHREAD, PC_LOCK_SYSVSEM };
int pc_acceptlock_init_shared(int fd); /* put a robust process-shared mutex into a fresh memfd (dispatcher) */
/* One semaphore that uid may use (dispatcher). Returns its id or -PC_E_SYS. Source: semctl(2). */
int pc_acceptlock_new_semaphore(uint32_t uid, uint32_t gid);
int pc_acceptlock_remove_semaphore(int id);
int pc_acceptlock_map(struct pc_child *child);
bool pc_acceptlock_try(struct pc_child *child);
void pc_acceptlock_release(struct pc_child *child);

/* accept.c */
void pc_accept_ready(struct pc_worker *worker, uint32_t listener);
int pc_accept_listen(struct pc_child *child, bool on); /* listeners into the epoll set, or out of it */
int pc_accept_inbox(struct pc_child *child, bool on);  /* the same for the inbox */
void pc_accept_pause(struct pc_worker *worker, bool with_inbox); /* no descriptor left: neither, for a while */
void pc_accept_resume(struct pc_child *child);

/* peek.c */
enum pc_next pc_peek_step(struct pc_worker *worker, struct pc_conn *conn);
/* Route `name` for this connection: own -> PC_PHASE_HEAD or PC_PHASE_TLS, another's -> handed over. */
enum pc_next pc_peek_route(struct pc_worker *worker, struct pc_conn *conn, struct pc_slice name, struct pc_slice carried);
/* Whether the server's route table, if this child has it, says that `name` is this identity's. */
bool pc_peek_is_ours(struct pc_worker *worker, const struct pc_conn *conn, struct pc_slice name);
/* Whether TLS is spoken on the connection's address. */
bool pc_peek_is_tls(struct pc_worker *worker, struct pc_conn *conn);
/* The route map, or NULL; not freed until this worker lets go of it. */
struct pc_route_map *pc_peek_hold_map(struct pc_worker *worker);
void pc_peek_let_go(struct pc_worker *worker);

/* tls_ctx.c */
/* Make every host's SSL_CTX, while the child has its key descriptors. A host that cannot have one is broken, which is said in the error
 * log: nobody else notices. 0 or -PC_E_MEMORY. */
int pc_tls_open(struct pc_child *child); /* -PC_E_AGAIN: as pc_child_new */
void pc_tls_close(struct pc_child *child); /* behind the last connection */
/* In a process that children are forked from: OpenSSL's tables, which each of them would else make for itself, and have for itself. No key,
 * no certificate, no random state that a child would go on with: OpenSSL seeds anew behind a fork. */
void pc_tls_warm(void);

/* tls.c */
/* PC_PHASE_TLS: sni_host is ours, and no byte was read. After it PC_PHASE_HEAD, with pc_transport_tls. */
enum pc_next pc_tls_step(struct pc_worker *worker, struct pc_conn *conn);
/* tls_io.c: for an HTTP/2 stream, which may outlive its session: the same facts until it lets go of them. NULL is fine. */
struct pc_tls *pc_tls_share(struct pc_tls *tls);
void pc_tls_free(struct pc_tls *tls);
/* tls_hello.c: the host of a request for `name` on a TLS connection; 0, or the status to answer with: 421 it is another identity's, or a host
 * that asks something else of its clients, 403 the client gave no name (SSLStrictSNIVHostCheck). */
uint32_t pc_tls_request_host(struct pc_worker *worker, const struct pc_conn *conn, struct pc_slice name, struct pc_host **ret_host);
/* Before any handshake: send a fatal alert (RFC 8446 6; 112 unrecognized_name, 80 internal_error), and linger. */
enum pc_next pc_tls_refuse(struct pc_worker *worker, struct pc_conn *conn, uint8_t alert);

/* conn.c */
struct pc_conn *pc_conn_new(struct pc_child *child, int fd); /* owned by the caller's thread; NULL = too many */
struct pc_conn *pc_conn_new_stream(struct pc_child *child); /* the same without a socket */
/* What an event of the connection carries (epoll); only its owner may ask. */
static inline uint64_t
pc_conn_token(const struct pc_conn *conn)
{
    return atomic_load_explicit(&conn->word, memory_order_relaxed) >> 2 << 32 | conn->index;
}
void pc_conn_close(struct pc_worker *worker, struct pc_conn *conn); /* socket, buffers, place in the table */
void pc_conn_forget(struct pc_worker *worker, struct pc_conn *conn); /* as close, but the descriptor is somebody else's now */
struct pc_conn *pc_conn_claim(struct pc_child *child, uint64_t token); /* by epoll token; NULL = stale or in work */
/* A full child closes some of the kept connections that have been idle for longest (and a second at least). Returns how many. */
uint32_t pc_conn_shed(struct pc_worker *worker);
/* The same, if source_fd (listener or inbox) has another one waiting. Returns whether there is room now. */
bool pc_conn_make_room(struct pc_worker *worker, int source_fd);
/* Before taking a connection from a listener or inbox: false = draining or full. Undone when it has a place, or did not come. */
bool pc_conn_reserve(struct pc_child *child);
void pc_conn_unreserve(struct pc_child *child);
void pc_conn_adopted(struct pc_child *child); /* counts towards MaxConnectionsPerChild */
bool pc_conn_release(struct pc_conn *conn); /* false: something happened meanwhile, go on */
int pc_conn_watch(struct pc_child *child, struct pc_conn *conn);   /* into the epoll set, once, edge-triggered */
/* The same by who has nothing to send: a new socket can be written to, which would be an event at once. */
int pc_conn_watch_in(struct pc_child *child, struct pc_conn *conn);
int pc_conn_requeue(struct pc_child *child, struct pc_conn *conn); /* an event at once if it is ready: others come first */
void pc_conn_unwatch(struct pc_child *child, struct pc_conn *conn);
void pc_conn_deadline(struct pc_child *child, struct pc_conn *conn, uint64_t deadline_ns);
uint64_t pc_conn_due(struct pc_child *child, const struct pc_conn *conn); /* its deadline; 0 = none */
void pc_conn_sweep(struct pc_worker *worker, uint64_t now_ns);
void pc_conn_send_away(struct pc_worker *worker); /* HTTP/2 sessions look whether the child drains */
void pc_conn_free_all(struct pc_child *child); /* behind the last worker: sockets, buffers, table */
struct pc_io *pc_io_take(struct pc_worker *worker, struct pc_conn *conn);
void pc_io_give(struct pc_worker *worker, struct pc_conn *conn);
void pc_io_free_stock(struct pc_worker *worker);
int pc_io_room(struct pc_io *io, size_t room); /* at least so many free bytes behind in_len; -PC_E_HEAD_LARGE */
/* Where the connection came in. Whoever reads it looks at the members of its family only, which is all that is there. */
static inline const struct sockaddr_storage *
pc_conn_local(const struct pc_conn *conn)
{
    return (const void *)&conn->local;
}

/* Whether the socket has taken bytes, though the transport took none meanwhile: its client is slow, and not stuck. */
static inline bool
pc_conn_take_moved(struct pc_conn *conn)
{
    bool has_moved = conn->has_moved;
    conn->has_moved = false;
    return has_moved;
}

/* request.c */
enum pc_next pc_request_head_step(struct pc_worker *worker, struct pc_conn *conn);
enum pc_next pc_request_body_step(struct pc_worker *worker, struct pc_conn *conn);
enum pc_next pc_request_serve_step(struct pc_worker *worker, struct pc_conn *conn);
/* When the client has had long enough to send the body (RequestReadTimeout), ns. */
uint64_t pc_request_body_due(const struct pc_conn *conn);
/* Answer `status` and close, whatever was read so far. */
enum pc_next pc_request_refuse(struct pc_worker *worker, struct pc_conn *conn, uint32_t status);
/* The same for a head that a parser refused with -PC_E_*; the error log says why. raw: its bytes so far. */
enum pc_next pc_request_refuse_head(struct pc_worker *worker, struct pc_conn *conn, int error, struct pc_slice raw);
void pc_request_say(struct pc_child *child, const struct pc_conn *conn, enum pc_level level, const char *module, const char *text);
uint32_t pc_error_status(int error); /* HTTP status of -PC_E_* */

/* respond.c */
enum pc_next pc_respond_start(struct pc_worker *worker, struct pc_conn *conn);
enum pc_next pc_respond_send_step(struct pc_worker *worker, struct pc_conn *conn);
/* Half-close, and read until the client has closed its side, too. */
enum pc_next pc_respond_linger(struct pc_worker *worker, struct pc_conn *conn);
enum pc_next pc_respond_linger_step(struct pc_worker *worker, struct pc_conn *conn);
struct pc_slice pc_respond_date(struct pc_worker *worker, int64_t wall_us); /* the Date field's value, until the next call */
void pc_respond_abandon(struct pc_worker *worker, struct pc_conn *conn); /* the client is gone: log, close files */
void pc_respond_drop(struct pc_io *io); /* what an answer holds that will not be sent */

/* ask.c: what Python sees of a question, and how it answers */
struct pc_question {
    uint32_t kind; /* enum pc_ask */
    uint32_t slot;
    int32_t slot_value;
    bool is_handed;
    uint32_t status;
    const char *method, *path, *query, *host, *handler, *client; /* NUL-terminated, valid until the answer */
};
int pc_ask_question(struct pc_child *child, uint32_t slot, struct pc_question *ret_question);
void pc_ask_answer_name(struct pc_child *child, uint32_t slot, const char *name);
/* status 0 = go on with what would happen without Python. */
void pc_ask_answer(struct pc_child *child, uint32_t slot, uint32_t status, const char *content_type, const char *body, size_t len);

#endif
