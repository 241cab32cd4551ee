/* page.c - a child's counters, latencies, slot table, and its hosts' counters.
 * Runs as:  child.   Sees: nothing of clients; names of its own hosts.   Holds: the child's page, of which readers get copies.
 * Trusts:   nobody reads sizes or pointers from it.
 * Distrusts: what is in the page at first: a child of the same identity that has ended wrote it. It is added to, and compared.
 * Before:   child.c   After: loop.c */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "child.h"

/* Gauges and slots are of the process that is gone. What was never written stays untouched memory. */
static void
begin_anew(struct pc_page *page)
{
    static const enum pc_counter gauges[] = PC_GAUGES;
    if (page->magic != PC_PAGE_MAGIC)
        return;
    for (size_t i = 0; i < sizeof gauges / sizeof gauges[0]; i++)
        atomic_store_explicit(&page->counters[gauges[i]], 0, memory_order_relaxed);
    uint32_t count = atomic_load_explicit(&page->slot_count, memory_order_relaxed);
    atomic_store_explicit(&page->slot_count, 0, memory_order_relaxed);
    memset(page->slots, 0, (count < PC_PAGE_SLOTS ? count : PC_PAGE_SLOTS) * sizeof page->slots[0]);
}

static uint64_t
counted(const struct pc_page *page, enum pc_counter counter)
{
    return atomic_load_explicit(&page->counters[counter], memory_order_relaxed);
}

int
pc_page_map(int page_fd, struct pc_page **ret_page, struct pc_page_base *ret_base)
{
    void *at = mmap(NULL, sizeof(struct pc_page), PROT_READ | PROT_WRITE, MAP_SHARED, page_fd, 0);
    if (at == MAP_FAILED)
        return -PC_E_SYS;
    struct pc_page *page = at;
    begin_anew(page);
    page->magic = PC_PAGE_MAGIC;
    *ret_base = (struct pc_page_base){
        counted(page, PC_C_CPU_USER_US), counted(page, PC_C_CPU_SYSTEM_US), counted(page, PC_C_LOG_LOST),
    };
    *ret_page = page;
    return 0;
}

/* ------------------------------------------------------------------ slots */

void
pc_slot_set(struct pc_page *page, uint32_t slot, int32_t value)
{
    struct pc_slot *at = &page->slots[slot];
    if (atomic_load_explicit(&at->value, memory_order_relaxed) == value)
        return;
    uint32_t changes = atomic_load_explicit(&at->changes, memory_order_relaxed);
    atomic_store_explicit(&at->value, value, memory_order_relaxed);
    atomic_store_explicit(&at->history[changes % PC_SLOT_HISTORY], value, memory_order_relaxed);
    /* Only the slot's own thread writes it; readers see the change once the history holds it. */
    atomic_store_explicit(&at->changes, changes + 1, memory_order_release);
}

int32_t
pc_slot_get(const struct pc_page *page, uint32_t slot)
{
    return atomic_load_explicit(&page->slots[slot].value, memory_order_relaxed);
}

/* ------------------------------------------------------------------ requests */

uint32_t
pc_latency_bucket(uint64_t us)
{
    static const uint64_t powers[PC_LATENCY_DECADES + 1] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};
    static const uint8_t steps[90] = PC_LATENCY_STEP_OF;
    uint32_t decade = 0;
    if (us == 0)
        return 0;
    while (decade < PC_LATENCY_DECADES && us >= powers[decade + 1])
        decade++;
    if (decade == PC_LATENCY_DECADES || us >= powers[PC_LATENCY_DECADES])
        return PC_LATENCY_BUCKETS - 1;
    uint64_t tenths = decade == 0 ? us * 10 : us / powers[decade - 1]; /* the first two digits */
    return decade * PC_LATENCY_STEPS + steps[tenths - 10];
}

static bool
is_row_of(const struct pc_host_row *row, struct pc_slice name)
{
    return memcmp(row->name, name.base, name.len) == 0 && row->name[name.len] == '\0';
}

/* By name, for the page outlives the configuration: the row that counted this host before, or the first that is free. */
static struct pc_host_row *
find_row(struct pc_page *page, struct pc_slice name)
{
    struct pc_host_row *last = &page->hosts[PC_PAGE_HOSTS - 1];
    for (struct pc_host_row *row = page->hosts; row < last; row++) {
        if (row->name[0] == '\0') {
            memcpy(row->name, name.base, name.len); /* UNSAFE: take_row has bounded it */
            row->name[name.len] = '\0';
            return row;
        }
        if (is_row_of(row, name))
            return row;
    }
    memcpy(last->name, PC_OTHER_HOSTS, sizeof PC_OTHER_HOSTS);
    return last;
}

static struct pc_host_row *
take_row(struct pc_child *child, struct pc_host *host)
{
    struct pc_slice name = host->name.len > 0 ? host->name : PC_S("_default_");
    if (name.len >= PC_HOST_NAME_BYTES)
        name.len = PC_HOST_NAME_BYTES - 1;
    (void)pthread_mutex_lock(&child->page_lock);
    struct pc_host_row *row = find_row(child->page, name);
    (void)pthread_mutex_unlock(&child->page_lock);
    atomic_store_explicit(&host->row, row, memory_order_release);
    return row;
}

static void
add(_Atomic uint64_t *at, uint64_t by)
{
    (void)atomic_fetch_add_explicit(at, by, memory_order_relaxed);
}

void
pc_page_request(struct pc_child *child, const struct pc_req *req)
{
    struct pc_host_row *row = atomic_load_explicit(&req->host->row, memory_order_acquire);
    uint64_t us = req->end_ns > req->start_ns && req->start_ns > 0 ? (req->end_ns - req->start_ns) / 1000 : 0;
    uint32_t class = req->resp.status / 100;
    if (row == NULL)
        row = take_row(child, req->host);
    add(&child->page->latencies[pc_latency_bucket(us)], 1);
    add(&row->responses[class >= 1 && class <= PC_HOST_CLASSES ? class - 1 : PC_HOST_CLASSES - 1], 1);
    add(&row->bytes_in, req->bytes_in);
    add(&row->bytes_out, req->bytes_out);
    add(&row->duration_us, us);
}

/* ------------------------------------------------------------------ what the process uses */

static void
show(struct pc_child *child, enum pc_counter counter, uint64_t number)
{
    atomic_store_explicit(&child->page->counters[counter], number, memory_order_relaxed);
}

static uint64_t
us_of(struct timeval time)
{
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_usec;
}

void
pc_page_log_lost(struct pc_child *child, uint64_t lines)
{
    atomic_store_explicit(&child->page->counters[PC_C_LOG_LOST], child->page_base.log_lost + lines, memory_order_relaxed);
}

void
pc_page_cpu(struct pc_child *child)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) < 0)
        return; /* then it says what it said before */
    show(child, PC_C_CPU_USER_US, child->page_base.cpu_user_us + us_of(usage.ru_utime));
    show(child, PC_C_CPU_SYSTEM_US, child->page_base.cpu_system_us + us_of(usage.ru_stime));
}

void
pc_page_memory(struct pc_child *child)
{
    char text[1024];
    int fd = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return; /* no descriptor, or no /proc: not known */
    ssize_t len = read(fd, text, sizeof text - 1);
    (void)close(fd); /* it was read */
    text[len > 0 ? len : 0] = '\0';
    const char *found = strstr(text, "\nPss:");
    if (found != NULL)
        show(child, PC_C_MEMORY_KB, strtoull(found + sizeof "\nPss:" - 1, NULL, 10));
}
