/* loop.c - leader and followers: who waits, and what happens with what epoll tells.
 * Runs as:  child.   Sees: client bytes by way of the steps it calls.   Holds: the epoll set.
 *
 * One thread, the leader, waits on the set and does in C, to the end, whatever does not block. What may block becomes a job:
 * behind its batch the leader wakes a follower, which leads from then on, and does the job itself; further jobs go to further
 * followers. When no follower is idle the leader goes on leading and asks the main thread for another one, so the set is
 * never without a leader but in a child that may have one thread only. What only Python can decide goes to threads of the
 * interpreter, which exist from the first such question on: a child that serves files alone never runs Python. A child whose
 * batches come back full, and which has an idle follower, has two leaders for as long as that lasts.
 * Before:   child.c   After: accept.c, hand.c, conn.c */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "h2.h"
#include "hand.h"
#include "job.h"
#include "kept.h"
#include "knock.h"

#define MS 1000000ull
#define LOCK_POLL_MS 20
#define KEPT_LOOK_MS 1000
#define MEMORY_LOOK_MS 10000
#define FULL_BATCHES_FOR_TWO 64
#define MAX_STEPS 512

static enum pc_next
held_step(struct pc_worker *worker, struct pc_conn *conn)
{
    (void)worker;
    (void)conn;
    return PC_GONE; /* PC_PHASE_WAIT: in hand.c's list until it is retried */
}

static enum pc_next (*const steps[PC_PHASES])(struct pc_worker *worker, struct pc_conn *conn) = {
    [PC_PHASE_PEEK] = pc_peek_step,
    [PC_PHASE_WAIT] = held_step,
    [PC_PHASE_TLS] = pc_tls_step,
    [PC_PHASE_HEAD] = pc_request_head_step,
    [PC_PHASE_BODY] = pc_request_body_step,
    [PC_PHASE_SERVE] = pc_request_serve_step,
    [PC_PHASE_GATE] = pc_gate_step,
    [PC_PHASE_SEND] = pc_respond_send_step,
    [PC_PHASE_LINGER] = pc_respond_linger_step,
    [PC_PHASE_H2] = pc_h2_step,
};

static void
append_job(struct pc_conn **first, struct pc_conn **last, struct pc_conn *conn)
{
    conn->next = NULL;
    *(*last == NULL ? first : &(*last)->next) = conn;
    *last = conn;
}

/* A question waits for a thread of the interpreter; one is asked for when none is idle. */
static void
queue_ask(struct pc_child *child, struct pc_conn *conn)
{
    (void)pthread_mutex_lock(&child->lead_lock);
    append_job(&child->asks, &child->asks_tail, conn);
    child->ask_count++;
    if (child->python_idle < child->ask_count)
        pc_child_notify(child, PC_EVENT_PYTHON);
    (void)pthread_cond_signal(&child->ask_cond);
    (void)pthread_mutex_unlock(&child->lead_lock);
}

/* Wait for one's next turn: an event comes as soon as the socket can be read from or written to, and a client that takes no
 * byte any more must not stay for ever. */
static bool
yield_turn(struct pc_worker *worker, struct pc_conn *conn)
{
    uint64_t wait_ms = conn->host != NULL ? conn->host->timeout_ms : worker->child->fallback_host.timeout_ms;
    pc_conn_deadline(worker->child, conn, worker->now_ns + wait_ms * MS);
    return pc_conn_requeue(worker->child, conn) == 0;
}

void
pc_loop_conn(struct pc_worker *worker, struct pc_conn *conn)
{
    for (int count = 0;; count++) {
        /* A long pipeline: others come first. Between two requests only: a response in PC_PHASE_SEND lies in this worker's
         * buffer, which the next connection overwrites. */
        bool yields = count >= MAX_STEPS && conn->phase == PC_PHASE_HEAD;
        enum pc_next next = yields ? PC_WAIT : steps[conn->phase](worker, conn);
        if (next == PC_GO)
            continue;
        if (next == PC_GONE)
            return;
        if (conn->is_stream)
            pc_h2_stream_tell(worker, conn);
        bool is_elsewhere = !worker->is_python || (worker->is_apart && worker->child->config->max_threads > 1);
        if (next == PC_JOB && conn->asks && is_elsewhere) {
            queue_ask(worker->child, conn);
            return;
        }
        if (next == PC_JOB) {
            append_job(&worker->jobs, &worker->jobs_tail, conn);
            return;
        }
        if (yields && !yield_turn(worker, conn)) {
            pc_conn_close(worker, conn);
            return;
        }
        if (pc_conn_release(conn))
            return;
        count = 0; /* an event came meanwhile */
    }
}

/* ------------------------------------------------------------------ connections that wake each other */

void
pc_loop_later(struct pc_worker *worker, struct pc_conn *conn)
{
    append_job(&worker->woken, &worker->woken_tail, conn);
}

void
pc_loop_wake(struct pc_worker *worker, uint64_t token)
{
    struct pc_conn *conn = pc_conn_claim(worker->child, token);
    if (conn == NULL) /* its owner looks again */
        return;
    if (conn->is_stream)
        conn->was_drained = false;
    pc_loop_later(worker, conn);
}

void
pc_loop_settle(struct pc_worker *worker)
{
    for (struct pc_conn *conn; (conn = worker->woken) != NULL;) {
        worker->woken = conn->next;
        if (worker->woken == NULL)
            worker->woken_tail = NULL;
        pc_loop_conn(worker, conn);
    }
}

/* Streams that let others go first. */
static void
give_turns(struct pc_worker *worker)
{
    struct pc_child *child = worker->child;
    if (atomic_load_explicit(&child->turn_count, memory_order_relaxed) == 0)
        return;
    (void)pthread_mutex_lock(&child->wait_lock);
    uint64_t *turns = child->turns;
    uint32_t count = atomic_exchange(&child->turn_count, 0);
    child->turns = NULL;
    child->turn_cap = 0;
    (void)pthread_mutex_unlock(&child->wait_lock);
    for (uint32_t i = 0; i < count; i++)
        pc_loop_wake(worker, turns[i]);
    free(turns);
    pc_loop_settle(worker);
}

/* ------------------------------------------------------------------ one batch */

static void
handle_conn(struct pc_worker *worker, const struct epoll_event *event)
{
    struct pc_conn *conn = pc_conn_claim(worker->child, event->data.u64);
    if (conn == NULL)
        return;
    conn->was_drained = conn->is_dry = false;
    if (event->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        conn->saw_end = true;
    if (conn->transport->flush != NULL)
        (void)conn->transport->flush(conn); /* a broken connection shows at the next word */
    bool only_reads = conn->is_parked || (conn->phase == PC_PHASE_TLS && !conn->has_unsent);
    if (only_reads && (event->events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) == 0) {
        if (!pc_conn_release(conn)) /* writable: of no interest to a connection that waits for bytes */
            pc_loop_conn(worker, conn);
        return;
    }
    pc_loop_conn(worker, conn);
}

/* The program of a connection's request has something, or takes something. */
static void
handle_gate(struct pc_worker *worker, const struct epoll_event *event)
{
    struct pc_conn *conn = pc_conn_claim(worker->child, event->data.u64 & ~(uint64_t)PC_TOKEN_GATE);
    if (conn == NULL)
        return;
    bool is_late = conn->gate == NULL; /* of a request that is over, from the same batch */
    if (!is_late || !pc_conn_release(conn))
        pc_loop_conn(worker, conn);
}

static void
handle_event(struct pc_worker *worker, const struct epoll_event *event)
{
    uint32_t token = (uint32_t)event->data.u64;
    if (token < PC_TOKEN_GATE)
        handle_conn(worker, event);
    else if (token < PC_TOKEN_LISTENER)
        handle_gate(worker, event);
    else if (token == PC_TOKEN_INBOX)
        pc_hand_receive(worker);
    else if (token != PC_TOKEN_WAKE)
        pc_accept_ready(worker, token - PC_TOKEN_LISTENER);
    else {
        uint64_t count;
        if (atomic_load(&worker->child->is_stopping) || read(worker->child->wake_fd, &count, sizeof count) < 0)
            return; /* stays readable until every leader has seen it; or another leader has read it */
        if (atomic_load(&worker->child->is_stopping)) /* that was meant for all */
            pc_child_wake(worker->child);
    }
}

static int
wait_ms(struct pc_child *child)
{
    if (atomic_load_explicit(&child->waiting_count, memory_order_relaxed) > 0
        || atomic_load_explicit(&child->job_waiting, memory_order_relaxed) > 0)
        return PC_RETRY_MS;
    if (atomic_load_explicit(&child->backends.untaken_count, memory_order_relaxed) > 0)
        return PC_KNOCK_MS;
    if (child->mutex_kind != PC_LOCK_DEFAULT && !child->mutex_held && child->listener_count > 0)
        return LOCK_POLL_MS;
    if (atomic_load_explicit(&child->accept_paused, memory_order_relaxed))
        return 50;
    if (atomic_load_explicit(&child->open_count, memory_order_relaxed) > 0
        || atomic_load_explicit(&child->refused_unsaid, memory_order_relaxed) > 0)
        return PC_SWEEP_MS;
    if (atomic_load_explicit(&child->has_lines, memory_order_relaxed))
        return PC_LOG_FLUSH_MS;
    if (atomic_load_explicit(&child->backends.kept, memory_order_relaxed) > 0)
        return KEPT_LOOK_MS;
    return child->listener_count > 0 ? PC_LISTEN_LOOK_MS : -1;
}

/* EPOLLEXCLUSIVE tells one child of a new connection. If that one is stopped at this moment, nobody else hears of it. */
static void
look_at_listeners(struct pc_worker *worker)
{
    struct pc_child *child = worker->child;
    uint64_t due = atomic_load(&child->next_look_ns);
    if (child->listener_count == 0 || worker->now_ns < due || atomic_load(&child->accept_paused)
        || !atomic_load(&child->listeners_in_epoll)
        || !atomic_compare_exchange_strong(&child->next_look_ns, &due, worker->now_ns + PC_LISTEN_LOOK_MS * MS))
        return;
    for (uint32_t i = 0; i < child->listener_count; i++)
        pc_accept_ready(worker, i);
}

static void
sweep(struct pc_worker *worker, uint64_t now_ns)
{
    struct pc_child *child = worker->child;
    pc_conn_sweep(worker, now_ns);
    pc_page_cpu(child);
    uint64_t due = atomic_load(&child->next_memory_ns);
    if (now_ns >= due && atomic_compare_exchange_strong(&child->next_memory_ns, &due, now_ns + MEMORY_LOOK_MS * MS))
        pc_child_notify(child, PC_EVENT_MEMORY); /* the main thread has time */
}

/* Whether it is time for what is done every `period_ms`, and this leader the one that does it: the first to see it. */
static bool
take_due(_Atomic uint64_t *due_ns, uint64_t now_ns, uint64_t period_ms)
{
    uint64_t due = atomic_load(due_ns);
    return now_ns >= due && atomic_compare_exchange_strong(due_ns, &due, now_ns + period_ms * MS);
}

/* What is due by the clock. */
static void
tick(struct pc_worker *worker)
{
    struct pc_child *child = worker->child;
    uint64_t now_ns = worker->now_ns;
    if (take_due(&child->next_sweep_ns, now_ns, PC_SWEEP_MS))
        sweep(worker, now_ns);
    if (atomic_load(&child->waiting_count) > 0 && take_due(&child->next_retry_ns, now_ns, PC_RETRY_MS))
        pc_hand_retry(worker);
    if (atomic_load(&child->job_waiting) > 0 && take_due(&child->next_job_ns, now_ns, PC_RETRY_MS))
        pc_job_retry(worker);
    if (atomic_load(&child->backends.kept) > 0 && take_due(&child->backends.next_sweep_ns, now_ns, KEPT_LOOK_MS))
        pc_kept_sweep(child, now_ns);
    if (atomic_load(&child->backends.untaken_count) > 0 && take_due(&child->backends.next_knock_ns, now_ns, PC_KNOCK_MS))
        pc_knock(child, now_ns);
    if (atomic_load(&child->has_lines) && take_due(&child->next_flush_ns, now_ns, PC_LOG_FLUSH_MS)) {
        atomic_store(&child->has_lines, false);
        pc_log_flush(child->config);
        pc_page_log_lost(child, pc_log_lost(child->config));
    }
    if (atomic_load_explicit(&child->is_draining, memory_order_relaxed) && !atomic_exchange(&child->has_sent_away, true))
        pc_conn_send_away(worker);
    if (atomic_load(&child->accept_paused) && now_ns >= atomic_load(&child->resume_ns)
        && !atomic_load(&child->is_draining))
        pc_accept_resume(child);
    pc_hand_say_refused(worker);
    look_at_listeners(worker);
}

/* AcceptMutex: listeners are in the epoll set only while the lock is ours. */
static void
take_turn(struct pc_child *child)
{
    if (child->mutex_kind == PC_LOCK_DEFAULT || child->listener_count == 0)
        return;
    bool may_listen = !atomic_load(&child->is_draining) && !atomic_load(&child->accept_paused) && pc_acceptlock_try(child);
    (void)pc_accept_listen(child, may_listen); /* on failure the next turn tries again */
}

static int
wait_and_handle(struct pc_worker *worker)
{
    struct pc_child *child = worker->child;
    struct epoll_event events[PC_EVENT_BATCH];
    take_turn(child);
    int count = epoll_wait(child->epoll_fd, events, PC_EVENT_BATCH, wait_ms(child));
    worker->now_ns = pc_now_ns();
    pc_hand_look(child, worker->now_ns);
    if (count > 0)
        atomic_store_explicit(&child->last_active_ns, worker->now_ns, memory_order_relaxed);
    for (int i = 0; i < count; i++)
        handle_event(worker, &events[i]);
    if (child->mutex_kind != PC_LOCK_DEFAULT)
        pc_acceptlock_release(child);
    pc_loop_settle(worker);
    give_turns(worker);
    tick(worker);
    pc_loop_settle(worker);
    return count;
}

/* ------------------------------------------------------------------ leadership */

static void
show_threads(struct pc_child *child)
{
    atomic_store_explicit(&child->page->counters[PC_C_THREADS], child->threads, memory_order_relaxed);
    atomic_store_explicit(&child->page->counters[PC_C_IDLE_THREADS], child->threads - child->busy, memory_order_relaxed);
}

/* Called with lead_lock held. */
static void
set_busy(struct pc_child *child, int change)
{
    child->busy = (uint32_t)((int)child->busy + change);
    show_threads(child);
    pc_child_notify(child, PC_EVENT_LOAD);
    if (child->threads - child->busy < child->config->min_spare && child->threads < child->config->max_threads)
        pc_child_notify(child, PC_EVENT_THREADS);
}

/* The worker's jobs are for whoever is idle. Called with lead_lock held. */
static void
pass_jobs(struct pc_worker *worker)
{
    struct pc_child *child = worker->child;
    while (worker->jobs != NULL) {
        struct pc_conn *job = worker->jobs;
        worker->jobs = job->next;
        append_job(&child->jobs, &child->jobs_tail, job);
        child->job_count++;
        (void)pthread_cond_signal(&child->lead_cond);
    }
    worker->jobs_tail = NULL;
}

/* Move the batch's jobs where they are done. Returns the one that this thread does, having given up leadership, or NULL. */
static struct pc_conn *
place_jobs(struct pc_worker *worker)
{
    struct pc_child *child = worker->child;
    struct pc_conn *mine = NULL;
    uint32_t wanted = 0; /* followers: for what is queued, and to lead */
    (void)pthread_mutex_lock(&child->lead_lock);
    if (child->idle > 0 || child->config->max_threads == 1) {
        mine = worker->jobs;
        worker->jobs = mine->next;
        child->leaders--;
        wanted = 1;
        set_busy(child, 1);
        (void)pthread_cond_signal(&child->lead_cond);
    }
    pass_jobs(worker);
    wanted += child->job_count;
    if (child->idle < wanted && child->threads < child->config->max_threads)
        pc_child_notify(child, PC_EVENT_THREADS);
    (void)pthread_mutex_unlock(&child->lead_lock);
    return mine;
}

static void
scale_leaders(struct pc_child *child, int count)
{
    if (!child->may_scale_leaders)
        return;
    if (count < PC_EVENT_BATCH) {
        if (child->wanted_leaders == 2 && count < PC_EVENT_BATCH / 4)
            child->wanted_leaders = 1;
        child->full_batches = 0;
        return;
    }
    if (child->wanted_leaders == 2 || ++child->full_batches < FULL_BATCHES_FOR_TWO)
        return;
    (void)pthread_mutex_lock(&child->lead_lock);
    child->wanted_leaders = 2;
    (void)pthread_cond_signal(&child->lead_cond);
    (void)pthread_mutex_unlock(&child->lead_lock);
}

static bool
must_end(const struct pc_worker *worker)
{
    return worker->must_leave || atomic_load_explicit(&worker->child->is_stopping, memory_order_relaxed);
}

/* Lead until a job takes this thread (returned), the thread shall end, or there are too many leaders (NULL). */
static struct pc_conn *
lead(struct pc_worker *worker)
{
    struct pc_child *child = worker->child;
    pc_count(child->page, PC_C_LED, 1);
    for (;;) {
        int count = wait_and_handle(worker);
        if (worker->jobs != NULL) {
            struct pc_conn *mine = place_jobs(worker);
            if (mine != NULL)
                return mine;
        }
        scale_leaders(child, count);
        if (must_end(worker) || child->leaders > child->wanted_leaders)
            break;
    }
    (void)pthread_mutex_lock(&child->lead_lock);
    child->leaders--;
    (void)pthread_cond_signal(&child->lead_cond);
    (void)pthread_mutex_unlock(&child->lead_lock);
    return NULL;
}

/* Follow until there is something to do. Returns a job, or NULL with *ret_leads. */
static struct pc_conn *
follow(struct pc_worker *worker, bool *ret_leads)
{
    struct pc_child *child = worker->child;
    struct pc_conn *job = NULL;
    *ret_leads = false;
    (void)pthread_mutex_lock(&child->lead_lock);
    child->idle++;
    child->is_waiting[worker->slot] = true;
    while (!must_end(worker) && child->leaders >= child->wanted_leaders && child->jobs == NULL)
        (void)pthread_cond_wait(&child->lead_cond, &child->lead_lock);
    if (child->is_waiting[worker->slot]) /* not dismissed, which has counted it out */
        child->idle--;
    child->is_waiting[worker->slot] = false;
    bool must_work = child->jobs != NULL && child->config->max_threads == 1; /* nobody else will */
    if (must_end(worker)) {
        (void)pthread_cond_signal(&child->lead_cond); /* what woke this thread may be for another */
    } else if ((child->leaders < 1 && !must_work) || (child->jobs == NULL && child->leaders < child->wanted_leaders)) {
        child->leaders++;
        *ret_leads = true;
    } else if (child->jobs != NULL) {
        job = child->jobs;
        child->jobs = job->next;
        if (child->jobs == NULL)
            child->jobs_tail = NULL;
        child->job_count--;
        set_busy(child, 1);
    }
    (void)pthread_mutex_unlock(&child->lead_lock);
    return job;
}

/* ------------------------------------------------------------------ jobs */

/* In a child with one thread that thread does everything. */
static bool
answers_only(const struct pc_worker *worker)
{
    return worker->is_python && worker->child->config->max_threads > 1;
}

/* A thread of the interpreter waits for a question. NULL: it shall end. */
static struct pc_conn *
await_ask(struct pc_worker *worker)
{
    struct pc_child *child = worker->child;
    struct pc_conn *conn = NULL;
    (void)pthread_mutex_lock(&child->lead_lock);
    child->python_idle++;
    child->is_waiting[worker->slot] = true;
    while (!must_end(worker) && child->asks == NULL)
        (void)pthread_cond_wait(&child->ask_cond, &child->lead_lock);
    if (child->is_waiting[worker->slot])
        child->python_idle--;
    child->is_waiting[worker->slot] = false;
    if (child->asks != NULL && !must_end(worker)) {
        conn = child->asks;
        child->asks = conn->next;
        if (child->asks == NULL)
            child->asks_tail = NULL;
        child->ask_count--;
        set_busy(child, 1);
    }
    (void)pthread_mutex_unlock(&child->lead_lock);
    return conn;
}

static void
begin_answer(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_child *child = worker->child;
    worker->may_block = true;
    worker->current = conn;
    pc_slot_set(child->page, worker->slot, conn->is_handed ? conn->fd : PC_THISCHILD);
    pc_count(child->page, PC_C_ASKED, 1);
}

/* What the job has woken. Streams do not wait here for one that takes its time: that becomes a job, for another thread. */
static void
settle_apart(struct pc_worker *worker)
{
    struct pc_child *child = worker->child;
    if (worker->woken == NULL)
        return;
    worker->may_block = false;
    worker->is_apart = true;
    pc_loop_settle(worker);
    worker->is_apart = false;
    worker->may_block = true;
    if (worker->jobs == NULL)
        return;
    (void)pthread_mutex_lock(&child->lead_lock);
    pass_jobs(worker);
    if (child->idle < child->job_count && child->threads < child->config->max_threads)
        pc_child_notify(child, PC_EVENT_THREADS);
    (void)pthread_mutex_unlock(&child->lead_lock);
}

/* Do a job to its end. True: Python is asked first, and the connection is worker->current. */
static bool
do_job(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_child *child = worker->child;
    worker->may_block = true;
    worker->now_ns = pc_now_ns();
    pc_slot_set(child->page, worker->slot, conn->is_handed ? conn->fd : PC_THISCHILD);
    pc_loop_conn(worker, conn);
    struct pc_conn *asking = worker->jobs;
    worker->jobs = worker->jobs_tail = NULL;
    settle_apart(worker);
    if (asking != NULL) {
        worker->current = asking;
        pc_count(child->page, PC_C_ASKED, 1);
        return true;
    }
    worker->may_block = false;
    pc_slot_set(child->page, worker->slot, PC_THISCHILD);
    (void)pthread_mutex_lock(&child->lead_lock);
    set_busy(child, -1);
    (void)pthread_mutex_unlock(&child->lead_lock);
    return false;
}

enum pc_work
pc_worker_run(struct pc_child *child, uint32_t slot)
{
    struct pc_worker *worker = &child->workers[slot];
    struct pc_conn *job = worker->current;
    worker->current = NULL;
    bool only_answers = answers_only(worker);
    for (;;) {
        if (job != NULL && do_job(worker, job))
            return PC_WORK_ASK;
        if (must_end(worker))
            return PC_WORK_LEAVE;
        if (only_answers) {
            struct pc_conn *asking = await_ask(worker);
            if (asking == NULL)
                return PC_WORK_LEAVE;
            begin_answer(worker, asking);
            return PC_WORK_ASK;
        }
        bool leads = false;
        job = follow(worker, &leads);
        if (leads)
            job = lead(worker);
    }
}

/* Called with lead_lock held. */
static int
free_slot(const struct pc_child *child)
{
    for (uint32_t slot = 0; slot < PC_MAX_THREADS; slot++)
        if (!child->workers[slot].is_used)
            return (int)slot;
    return -PC_E_MEMORY;
}

int
pc_worker_start(struct pc_child *child, bool is_python)
{
    char *out = malloc(PC_OUT_BYTES);
    if (out == NULL)
        return -PC_E_MEMORY;
    (void)pthread_mutex_lock(&child->lead_lock);
    int slot = free_slot(child);
    if (slot >= 0) {
        struct pc_worker *worker = &child->workers[slot];
        memset(worker, 0, offsetof(struct pc_worker, hazard));
        worker->out = out;
        worker->child = child;
        worker->slot = (uint32_t)slot;
        worker->is_used = true;
        worker->is_python = is_python;
        worker->now_ns = pc_now_ns();
        pc_slot_set(child->page, worker->slot, PC_THISCHILD);
        child->threads++;
        child->python_threads += is_python ? 1 : 0;
        if (atomic_load(&child->page->slot_count) <= worker->slot)
            atomic_store(&child->page->slot_count, worker->slot + 1);
        show_threads(child);
    }
    (void)pthread_mutex_unlock(&child->lead_lock);
    if (slot < 0)
        free(out);
    return slot;
}

static void *
thread_main(void *argument)
{
    struct pc_worker *worker = argument;
    struct pc_child *child = worker->child;
    uint32_t slot = worker->slot;
    while (pc_worker_run(child, slot) != PC_WORK_LEAVE)
        pc_bug("a thread of C was asked to enter Python");
    bool is_joined = atomic_load(&child->is_stopping); /* else it was dismissed: nobody waits for it */
    if (!is_joined)
        (void)pthread_detach(pthread_self());
    pc_worker_end(child, slot);
    return NULL;
}

int
pc_child_start_threads(struct pc_child *child, uint32_t count)
{
    int started = 0;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return 0;
    if (child->thread_stack_bytes > 0) /* refused below the system's minimum: then the default stays */
        (void)pthread_attr_setstacksize(&attributes, child->thread_stack_bytes);
    for (uint32_t i = 0; i < count; i++) {
        int slot = pc_worker_start(child, false);
        if (slot < 0)
            break;
        struct pc_worker *worker = &child->workers[slot];
        if (pthread_create(&worker->thread, &attributes, thread_main, worker) != 0) {
            pc_worker_end(child, (uint32_t)slot);
            break;
        }
        started++;
    }
    (void)pthread_attr_destroy(&attributes);
    return started;
}

void
pc_child_join(struct pc_child *child)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 5; /* one that hangs in a system call ends with the process */
    for (uint32_t slot = 0; slot < PC_MAX_THREADS; slot++) {
        struct pc_worker *worker = &child->workers[slot];
        if (worker->thread != 0 && !worker->is_python && !worker->must_leave)
            (void)pthread_timedjoin_np(worker->thread, NULL, &until);
    }
}

void
pc_worker_end(struct pc_child *child, uint32_t slot)
{
    struct pc_worker *worker = &child->workers[slot];
    pc_io_free_stock(worker);
    free(worker->out);
    worker->out = NULL;
    (void)pthread_mutex_lock(&child->lead_lock);
    child->threads--;
    child->python_threads -= worker->is_python ? 1 : 0;
    worker->is_used = false;
    show_threads(child);
    if (child->threads - child->busy < child->config->min_spare) /* a job came while this thread was leaving */
        pc_child_notify(child, PC_EVENT_THREADS);
    if (child->python_idle < child->ask_count) /* or a question, and no other could be started in this one's place */
        pc_child_notify(child, PC_EVENT_PYTHON);
    (void)pthread_mutex_unlock(&child->lead_lock);
}

void
pc_child_dismiss(struct pc_child *child, uint32_t count)
{
    (void)pthread_mutex_lock(&child->lead_lock);
    for (uint32_t slot = PC_MAX_THREADS; slot-- > 0 && count > 0;) {
        if (!child->is_waiting[slot])
            continue;
        child->workers[slot].must_leave = true;
        /* Counted out at once: a leader must not leave the set, nor a question wait, for a thread that is about to go. */
        child->is_waiting[slot] = false;
        *(answers_only(&child->workers[slot]) ? &child->python_idle : &child->idle) -= 1;
        count--;
    }
    (void)pthread_cond_broadcast(&child->lead_cond);
    (void)pthread_cond_broadcast(&child->ask_cond);
    (void)pthread_mutex_unlock(&child->lead_lock);
}
