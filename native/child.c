/* child.c - one child: made from its descriptors and record, told what to do by its main thread, ended.
 * Runs as:  child, after the drop.   Sees: its record.   Holds: every descriptor of the child.
 * Trusts:   the dispatcher's descriptors; the record (bounds-checked all the same).
 * Before:   drop.c, record.c   After: loop.c */
#include <arpa/inet.h>
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend.h"
#include "route.h"

/* A child named by ChildPerUserID may have no host of its own: it accepts for the others, and answers what cannot be routed. */
static void
make_fallback_host(struct pc_host *host)
{
    memset(host, 0, sizeof *host);
    host->root_fd = host->old_root_fd = -1;
    host->timeout_ms = 60000;
    host->keep_alive_ms = 5000;
    host->head_ms = 20000;
    host->head_max_ms = 40000;
    host->head_rate = 500;
    host->keep_alive = true;
    host->max_requests = 100;
    host->protocols = PC_PROTOCOL_HTTP_1_1;
    host->limits = (struct pc_h1_limits){PC_MAX_LINE_BYTES, PC_MAX_LINE_BYTES, PC_MAX_FIELDS};
    host->base.accept_path_info = host->base.signature = host->base.ask = -1;
    (void)pthread_mutex_init(&host->root_lock, NULL); /* cannot fail on Linux */
}

/* A listener of one address has only connections to that address. */
static bool
is_any_address(const struct sockaddr_storage *listener)
{
    const struct sockaddr_in *v4 = (const void *)listener;
    const struct sockaddr_in6 *v6 = (const void *)listener;
    if (listener->ss_family == AF_INET6)
        return IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr) != 0;
    return v4->sin_addr.s_addr == htonl(INADDR_ANY);
}

static int
map_route(struct pc_child *child, int route_fd, struct pc_route_map **ret_map)
{
    struct stat st;
    if (fstat(route_fd, &st) < 0 || st.st_size <= 0)
        return -PC_E_SYS;
    struct pc_route_map *map = calloc(1, sizeof *map);
    void *at = map == NULL ? MAP_FAILED : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, route_fd, 0);
    if (at == MAP_FAILED) {
        free(map);
        return -PC_E_SYS;
    }
    map->table = (struct pc_slice){at, (size_t)st.st_size};
    if (pc_route_check(map->table) != 0) {
        (void)munmap(at, (size_t)st.st_size);
        free(map);
        return -PC_E_FORMAT;
    }
    for (uint32_t i = 0; i < child->listener_count; i++) {
        const struct sockaddr_storage *listener = &child->listener_addresses[i];
        const struct sockaddr_in *v4 = (const void *)listener; /* the port lies in the same place in both families */
        map->needs_local[i] = is_any_address(listener) && pc_route_needs_local(map->table, ntohs(v4->sin_port));
    }
    map->has_fronts = pc_route_has_fronts(map->table, map->key);
    map->has_tls = pc_route_has_tls(map->table);
    map->has_h2c = pc_route_has_h2c(map->table);
    *ret_map = map;
    return 0;
}

static void
free_route(struct pc_route_map *map)
{
    (void)munmap((void *)(uintptr_t)map->table.base, map->table.len);
    free(map);
}

static bool
is_held(const struct pc_child *child, const struct pc_route_map *map)
{
    for (uint32_t slot = 0; slot < PC_MAX_THREADS; slot++)
        if (atomic_load(&child->workers[slot].hazard) == map)
            return true;
    return false;
}

int
pc_child_set_route(struct pc_child *child, int route_fd)
{
    struct pc_route_map *map = NULL;
    int error = map_route(child, route_fd, &map);
    if (error != 0)
        return error;
    const struct pc_route_map *last = atomic_load(&child->route); /* only the main thread replaces it */
    bool has_last_key = last != NULL && last->has_fronts; /* else it is zero, which anybody could sign with */
    memcpy(map->key_before, has_last_key ? last->key : map->key, sizeof map->key_before);
    struct pc_route_map *before = atomic_exchange(&child->route, map);
    atomic_store(&child->has_fronts, map->has_fronts);
    atomic_store(&child->has_tls, map->has_tls);
    atomic_store(&child->looks_for_h2c, map->has_h2c);
    (void)pthread_mutex_lock(&child->retire_lock);
    if (before != NULL) {
        before->older = child->retired;
        child->retired = before;
    }
    for (struct pc_route_map **at = &child->retired; *at != NULL;) {
        struct pc_route_map *old = *at;
        if (is_held(child, old)) {
            at = &old->older;
            continue;
        }
        *at = old->older;
        free_route(old);
    }
    (void)pthread_mutex_unlock(&child->retire_lock);
    return 0;
}

int
pc_child_set_inbox(struct pc_child *child, uint32_t number, int write_fd)
{
    if (number > 1u << 22)
        return -PC_E_BAD;
    int error = 0;
    (void)pthread_mutex_lock(&child->wait_lock); /* inbox_waiting is guarded by it */
    (void)pthread_mutex_lock(&child->inbox_lock);
    if (number >= child->inbox_count) {
        uint32_t count = (number | 63) + 1;
        int *grown = realloc(child->inbox_write, count * sizeof *grown);
        uint16_t *waiting = grown == NULL ? NULL : realloc(child->inbox_waiting, count * sizeof *waiting);
        if (grown != NULL)
            child->inbox_write = grown;
        if (waiting == NULL) {
            error = -PC_E_MEMORY;
        } else {
            child->inbox_waiting = waiting;
            for (uint32_t i = child->inbox_count; i < count; i++) {
                grown[i] = -1;
                waiting[i] = 0;
            }
            child->inbox_count = count;
        }
    }
    if (error == 0) {
        if (child->inbox_write[number] >= 0)
            (void)close(child->inbox_write[number]);
        child->inbox_write[number] = write_fd;
    }
    (void)pthread_mutex_unlock(&child->inbox_lock);
    (void)pthread_mutex_unlock(&child->wait_lock);
    return error;
}

static int
watch_own(struct pc_child *child)
{
    struct epoll_event wake = {.events = EPOLLIN, .data.u64 = PC_TOKEN_WAKE};
    if (epoll_ctl(child->epoll_fd, EPOLL_CTL_ADD, child->wake_fd, &wake) < 0)
        return -PC_E_SYS;
    if (pc_accept_inbox(child, true) != 0)
        return -PC_E_SYS;
    return child->mutex_kind == PC_LOCK_DEFAULT ? pc_accept_listen(child, true) : 0;
}

static void
init_locks(struct pc_child *child)
{
    pthread_mutex_t *locks[] = {&child->retire_lock, &child->inbox_lock, &child->slab_lock, &child->lead_lock,
                                &child->wait_lock, &child->io_lock, &child->accept_lock, &child->backends.lock,
                                &child->page_lock, &child->board.lock};
    for (size_t i = 0; i < sizeof locks / sizeof *locks; i++)
        (void)pthread_mutex_init(locks[i], NULL); /* cannot fail on Linux */
    (void)pthread_rwlock_init(&child->ticket_lock, NULL);
    (void)pthread_cond_init(&child->lead_cond, NULL);
    (void)pthread_cond_init(&child->ask_cond, NULL);
    (void)pthread_cond_init(&child->board.cond, NULL);
}

/* TERM is read like any other event, so that a child told to stop still writes what its logs hold. Blocked before the workers
 * start, it is blocked in all of them. */
static int
watch_term(void)
{
    sigset_t term;
    (void)sigemptyset(&term);
    (void)sigaddset(&term, SIGTERM);
    if (pthread_sigmask(SIG_BLOCK, &term, NULL) != 0)
        return -1;
    return signalfd(-1, &term, SFD_CLOEXEC | SFD_NONBLOCK);
}

static struct pc_child *
allocate(const struct pc_child_options *options)
{
    /* Not from the heap: most of it (1,024 workers) is never touched, and what calloc clears would be memory of this child. */
    struct pc_child *child = mmap(NULL, sizeof *child, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (child == MAP_FAILED)
        return NULL;
    init_locks(child);
    child->control_fd = options->control_fd;
    child->inbox_fd = options->inbox_fd;
    child->job_fd = options->job_fd;
    child->max_open = options->max_open < PC_MAX_CONNECTIONS ? options->max_open : PC_MAX_CONNECTIONS;
    child->mutex_kind = options->listener_count > 0 ? options->mutex_kind : PC_LOCK_DEFAULT;
    child->mutex_fd = options->mutex_fd;
    child->mutex_id = options->mutex_id;
    /* AcceptMutex is taken and let go of by the one leader. */
    child->may_scale_leaders = options->may_scale_leaders && child->mutex_kind == PC_LOCK_DEFAULT;
    child->thread_stack_bytes = options->thread_stack_bytes;
    child->generation = options->generation;
    memcpy(child->name, options->name, sizeof child->name);
    child->wanted_leaders = 1;
    child->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    child->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    child->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    child->signal_fd = watch_term();
    child->chunks = calloc(PC_MAX_CONNECTIONS / PC_CONN_CHUNK, sizeof *child->chunks);
    child->deadline_chunks = calloc(PC_MAX_CONNECTIONS / PC_CONN_CHUNK, sizeof *child->deadline_chunks);
    make_fallback_host(&child->fallback_host);
    if (child->epoll_fd < 0 || child->wake_fd < 0 || child->notify_fd < 0 || child->signal_fd < 0 || child->chunks == NULL
        || child->deadline_chunks == NULL) {
        pc_child_free(child);
        return NULL;
    }
    return child;
}

static int
take_listeners(struct pc_child *child, const struct pc_child_options *options)
{
    if (options->listener_count > PC_MAX_LISTENERS)
        return -PC_E_BAD;
    for (uint32_t i = 0; i < options->listener_count; i++) {
        socklen_t len = sizeof child->listener_addresses[i];
        child->listener_fds[i] = options->listener_fds[i];
        if (getsockname(options->listener_fds[i], (struct sockaddr *)&child->listener_addresses[i], &len) < 0)
            return -PC_E_SYS;
    }
    child->listener_count = options->listener_count;
    return 0;
}

/* Leave what the dispatcher catches or ignores: its signals mean nothing here, and ctrl-C is for it alone. */
static void
reset_signals(void)
{
    static const int defaults[] = {SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH, SIGCHLD, SIGTERM, SIGALRM};
    sigset_t none;
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++)
        (void)signal(defaults[i], SIG_DFL); /* fails for numbers only that are no signals */
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN); /* a log at its size limit costs counted lines, not the child */
    (void)sigemptyset(&none);
    (void)pthread_sigmask(SIG_SETMASK, &none, NULL);
}

/* Which log files the dispatcher opens, for the day when they are opened again. */
static int
remember_logs(struct pc_child *child, const struct pc_child_options *options)
{
    child->log_count = options->log_count;
    child->log_is_given = calloc(options->log_count + 1, sizeof *child->log_is_given);
    child->reopened = calloc(options->log_count + 1, sizeof *child->reopened);
    child->fresh_logs = calloc(options->log_count + 1, sizeof *child->fresh_logs);
    if (child->log_is_given == NULL || child->reopened == NULL || child->fresh_logs == NULL)
        return -PC_E_MEMORY;
    for (uint32_t i = 0; i < options->log_count; i++)
        child->log_is_given[i] = options->log_fds[i] >= 0;
    return 0;
}

static int
set_up(struct pc_child *child, const struct pc_child_options *options, const char **ret_why)
{
    *ret_why = "its page cannot be mapped";
    int error = pc_page_map(options->page_fd, &child->page, &child->page_base);
    if (error == 0)
        error = pc_record_load(options->record_fd, options->types_fd, &child->config, ret_why);
    if (error == 0) {
        *ret_why = "its own route table is damaged";
        child->config->own_route = pc_arena_copy(&child->config->memory, child->config->own_route); /* aligned */
        error = pc_route_check(child->config->own_route);
        if (error == 0)
            error = pc_route_check_values(child->config->own_route, child->config->host_count);
        for (uint32_t i = 0; i < child->config->host_count; i++)
            child->has_h2c = child->has_h2c || (child->config->hosts[i].protocols & PC_PROTOCOL_H2C) != 0;
        uint8_t no_key[PC_KEY_BYTES];
        if (error == 0) { /* one that listens looks at the server's table instead, which comes behind */
            atomic_store(&child->has_fronts, pc_route_has_fronts(child->config->own_route, no_key));
            atomic_store(&child->has_tls, pc_route_has_tls(child->config->own_route));
            atomic_store(&child->looks_for_h2c, child->has_h2c);
        }
    }
    if (error == 0) {
        *ret_why = "a listener has no address";
        error = take_listeners(child, options);
    }
    if (error == 0 && options->route_fd >= 0) {
        *ret_why = "the route table cannot be mapped or is damaged";
        error = pc_child_set_route(child, options->route_fd);
    }
    *ret_why = error == 0 ? "out of memory for inboxes" : *ret_why;
    for (uint32_t i = 0; i < options->inbox_count && error == 0; i++)
        error = pc_child_set_inbox(child, options->inbox_numbers[i], options->inbox_fds[i]);
    if (error == 0) {
        *ret_why = "its log files cannot be opened";
        error = pc_log_open(child->config, options->log_fds, options->log_count);
        error = error == 0 ? remember_logs(child, options) : error;
    }
    if (error == 0) {
        *ret_why = "its ticket keys are damaged";
        error = pc_keys_take(child, options);
    }
    if (error == 0) {
        *ret_why = "out of memory for TLS";
        error = pc_tls_open(child);
    }
    if (error == 0) {
        *ret_why = "the epoll set cannot be made";
        error = pc_acceptlock_map(child);
    }
    return error == 0 ? watch_own(child) : error;
}

int
pc_child_new(const struct pc_child_options *options, struct pc_child **ret_child, const char **ret_why)
{
    (void)mallopt(M_ARENA_MAX, 2); /* one thread works at a time as a rule: an arena for each would only cost memory */
    reset_signals();
    struct pc_child *child = allocate(options);
    if (child == NULL) {
        *ret_why = "out of memory or descriptors";
        return -PC_E_SYS;
    }
    atomic_store(&child->last_active_ns, pc_now_ns());
    int error = set_up(child, options, ret_why);
    pc_keys_close(child);
    int mapped[] = {options->record_fd, options->types_fd, options->page_fd, options->route_fd, options->ticket_fd};
    for (size_t i = 0; i < sizeof mapped / sizeof *mapped; i++)
        if (mapped[i] >= 0)
            (void)close(mapped[i]); /* mapped by now: what is not held cannot be stolen */
    if (error != 0) {
        pc_child_free(child);
        return error;
    }
    *ret_child = child;
    return 0;
}

void
pc_child_free(struct pc_child *child)
{
    pc_conn_free_all(child);
    pc_tls_close(child);
    pc_backend_free_all(child);
    if (child->config != NULL)
        pc_record_free(child->config);
    if (child->page != NULL)
        (void)munmap(child->page, sizeof *child->page);
    struct pc_route_map *map = atomic_load(&child->route);
    if (map != NULL)
        map->older = child->retired;
    for (struct pc_route_map *older; map != NULL; map = older) {
        older = map->older;
        free_route(map);
    }
    for (uint32_t i = 0; i < child->inbox_count; i++)
        if (child->inbox_write[i] >= 0)
            (void)close(child->inbox_write[i]);
    pc_keys_close(child);
    int fds[] = {child->epoll_fd, child->wake_fd, child->notify_fd, child->signal_fd, child->job_fd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            (void)close(fds[i]);
    free(child->chunks);
    free(child->deadline_chunks);
    free(child->log_is_given);
    free(child->reopened);
    free(child->fresh_logs);
    free(child->inbox_write);
    free(child->inbox_waiting);
    free(child->turns);
    (void)pthread_rwlock_destroy(&child->ticket_lock); /* nobody holds it: no worker is left */
    explicit_bzero(&child->tickets, sizeof child->tickets);
    (void)munmap(child, sizeof *child);
}

/* ------------------------------------------------------------------ between the main thread and the workers */

void
pc_child_notify(struct pc_child *child, uint32_t events)
{
    uint32_t before = atomic_fetch_or(&child->events, events);
    uint64_t one = 1;
    if ((before & events) != events && write(child->notify_fd, &one, sizeof one) < 0 && errno != EAGAIN)
        pc_bug("an eventfd cannot be written");
}

void
pc_child_wake(struct pc_child *child)
{
    uint64_t one = 1;
    if (write(child->wake_fd, &one, sizeof one) < 0 && errno != EAGAIN)
        pc_bug("an eventfd cannot be written");
}

static bool
is_idle(struct pc_child *child)
{
    uint64_t idle_ns = (uint64_t)child->config->idle_s * 1000000000ull;
    (void)pthread_mutex_lock(&child->lead_lock);
    bool is_busy = child->busy > 0;
    (void)pthread_mutex_unlock(&child->lead_lock);
    return idle_ns > 0 && atomic_load(&child->open_count) == 0 && !is_busy
           && pc_now_ns() - atomic_load(&child->last_active_ns) >= idle_ns;
}

uint32_t
pc_child_wait(struct pc_child *child, int timeout_ms)
{
    struct pollfd fds[] = {
        {.fd = child->notify_fd, .events = POLLIN},
        {.fd = child->control_fd, .events = POLLIN},
        {.fd = child->signal_fd, .events = POLLIN},
    };
    uint64_t count;
    int ready = poll(fds, sizeof fds / sizeof *fds, timeout_ms);
    uint32_t events = 0;
    if (ready > 0 && (fds[0].revents & POLLIN) != 0 && read(child->notify_fd, &count, sizeof count) > 0)
        events = atomic_exchange(&child->events, 0) & ~(uint32_t)PC_EVENT_DONE; /* only a reason to look, below */
    if (ready > 0 && fds[1].revents != 0)
        events |= PC_EVENT_CONTROL;
    if (ready > 0 && fds[2].revents != 0)
        events |= PC_EVENT_STOP;
    if (atomic_load(&child->is_draining) && atomic_load(&child->open_count) == 0)
        events |= PC_EVENT_DONE;
    if (is_idle(child))
        events |= PC_EVENT_IDLE;
    return events;
}

void
pc_child_drain(struct pc_child *child)
{
    if (atomic_exchange(&child->is_draining, true))
        return;
    (void)pc_accept_listen(child, false);
    (void)pc_accept_inbox(child, false); /* what is queued is the successor's */
    pc_child_wake(child);
    pc_child_notify(child, PC_EVENT_DONE); /* look whether anything is open at all */
}

void
pc_child_stop(struct pc_child *child)
{
    atomic_store(&child->is_stopping, true);
    (void)pthread_mutex_lock(&child->lead_lock);
    (void)pthread_cond_broadcast(&child->lead_cond);
    (void)pthread_cond_broadcast(&child->ask_cond);
    (void)pthread_mutex_unlock(&child->lead_lock);
    pc_child_wake(child);
}

int
pc_child_set_tickets(struct pc_child *child, int fd)
{
    struct pc_ticket_keys keys;
    int error = pc_tickets_read(fd, &keys);
    if (error != 0)
        return error;
    (void)pthread_rwlock_wrlock(&child->ticket_lock);
    child->tickets = keys;
    (void)pthread_rwlock_unlock(&child->ticket_lock);
    explicit_bzero(&keys, sizeof keys);
    return 0;
}

int
pc_child_reopen(struct pc_child *child, const int *fds, uint32_t count)
{
    return pc_log_reopen(child->config, fds, count);
}

void
pc_child_facts(struct pc_child *child, struct pc_child_facts *ret_facts)
{
    const struct pc_config *config = child->config;
    (void)pthread_mutex_lock(&child->lead_lock);
    *ret_facts = (struct pc_child_facts){
        .start_threads = config->start_threads, .min_spare = config->min_spare, .max_spare = config->max_spare,
        .max_threads = config->max_threads, .max_connections = config->max_connections, .idle_s = config->idle_s,
        .threads = child->threads, .python_threads = child->python_threads, .busy = child->busy, .ask_count = child->ask_count,
        .open_count = atomic_load(&child->open_count),
        .generation = child->generation, .thread_stack_bytes = (uint32_t)child->thread_stack_bytes,
    };
    memcpy(ret_facts->name, child->name, sizeof ret_facts->name);
    (void)pthread_mutex_unlock(&child->lead_lock);
}
