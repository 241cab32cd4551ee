/* test_page.c - claims about native/page.c: where a duration counts, what a successor of a child finds, hosts' rows. */
/* sources: page.c */
/* flags: -D_GNU_SOURCE */
#include <sys/mman.h>
#include <unistd.h>

#include "child.h"

#include "check.h"

static struct pc_child child;

static int
make_page(void)
{
    int fd = memfd_create("page", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, PC_PAGE_BYTES) == 0);
    return fd;
}

static void
begin_child(int fd)
{
    memset(&child, 0, sizeof child);
    CHECK(pc_page_map(fd, &child.page, &child.page_base) == 0);
}

static void
end_child(void)
{
    CHECK(munmap(child.page, sizeof *child.page) == 0);
}

static uint64_t
count_of(enum pc_counter counter)
{
    return atomic_load(&child.page->counters[counter]);
}

static void
answer(struct pc_host *host, uint32_t status, uint64_t us)
{
    static struct pc_req req; /* large */
    memset(&req, 0, sizeof req);
    req.host = host;
    req.resp.status = status;
    req.bytes_in = 10;
    req.bytes_out = 1000;
    req.start_ns = 5000000000;
    req.end_ns = req.start_ns + us * 1000;
    pc_page_request(&child, &req);
}

static struct pc_host
host_named(const char *name)
{
    return (struct pc_host){.name = {name, strlen(name)}};
}

static void
test_each_duration_has_its_bucket(void)
{
    static const struct { uint64_t us; uint32_t bucket; } rows[] = {
        {0, 0}, {1, 0}, {2, 5}, {9, 15}, {10, 16}, {11, 16}, {12, 17}, {19, 20}, {20, 21}, {24, 21}, {25, 22}, {99, 31},
        {100, 32}, {119, 32}, {120, 33}, {999, 47}, {1000, 48}, {1499, 50}, {999999, 95}, {1000000, 96}, {89999999, 126},
        {90000000, 127}, {99999999, 127}, {100000000, 127}, {UINT64_MAX, 127},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK(pc_latency_bucket(rows[i].us) == rows[i].bucket);
}

static void
test_longer_is_never_in_an_earlier_bucket(void)
{
    uint32_t last = 0;
    for (uint64_t us = 0; us < 200000; us++) {
        uint32_t bucket = pc_latency_bucket(us);
        CHECK(bucket == last || bucket == last + 1 || us <= 10); /* below ten microseconds some are empty */
        last = bucket;
    }
}

static void
test_a_request_counts_in_its_hosts_row(void)
{
    int fd = make_page();
    struct pc_host a = host_named("a.test"), b = host_named("b.test"), none = host_named("");
    begin_child(fd);
    answer(&a, 200, 1500);
    answer(&a, 404, 10);
    answer(&b, 503, 20);
    answer(&none, 999, 0);
    const struct pc_host_row *rows = child.page->hosts;
    CHECK(strcmp(rows[0].name, "a.test") == 0 && rows[0].responses[1] == 1 && rows[0].responses[3] == 1);
    CHECK(rows[0].bytes_in == 20 && rows[0].bytes_out == 2000 && rows[0].duration_us == 1510);
    CHECK(strcmp(rows[1].name, "b.test") == 0 && rows[1].responses[4] == 1);
    CHECK(strcmp(rows[2].name, "_default_") == 0 && rows[2].responses[4] == 1); /* no class: as an error of ours */
    CHECK(child.page->latencies[pc_latency_bucket(1500)] == 1);
    end_child();
    CHECK(close(fd) == 0);
}

static void
test_a_successor_counts_on_and_begins_its_states_anew(void)
{
    int fd = make_page();
    struct pc_host a = host_named("a.test");
    begin_child(fd);
    answer(&a, 200, 1);
    pc_count(child.page, PC_C_REQUESTS, 7);
    pc_count(child.page, PC_C_CONNECTIONS, 3);
    pc_count(child.page, PC_C_CPU_USER_US, 1000000);
    atomic_store(&child.page->slot_count, 2);
    pc_slot_set(child.page, 0, PC_OTHERCHILD);
    end_child();
    begin_child(fd);
    struct pc_host other = host_named("other.test"), again = host_named("a.test");
    CHECK(count_of(PC_C_REQUESTS) == 7 && count_of(PC_C_CONNECTIONS) == 0);
    CHECK(atomic_load(&child.page->slot_count) == 0 && pc_slot_get(child.page, 0) == 0 && child.page->slots[0].changes == 0);
    pc_page_cpu(&child);
    CHECK(count_of(PC_C_CPU_USER_US) >= 1000000);
    answer(&other, 200, 1);
    answer(&again, 200, 1);
    CHECK(child.page->hosts[0].responses[1] == 2 && strcmp(child.page->hosts[1].name, "other.test") == 0);
    end_child();
    CHECK(close(fd) == 0);
}

static void
test_hosts_without_a_row_share_the_last(void)
{
    int fd = make_page();
    begin_child(fd);
    for (unsigned int i = 0; i < PC_PAGE_HOSTS + 9; i++) {
        char name[32];
        struct pc_host host = {.name = {name, (size_t)snprintf(name, sizeof name, "h%u.test", i)}};
        answer(&host, 200, 1);
    }
    const struct pc_host_row *last = &child.page->hosts[PC_PAGE_HOSTS - 1];
    CHECK(strcmp(last->name, PC_OTHER_HOSTS) == 0 && last->responses[1] == 10);
    CHECK(strcmp(last[-1].name, "h510.test") == 0 && last[-1].responses[1] == 1);
    end_child();
    CHECK(close(fd) == 0);
}

static void
test_a_page_full_of_garbage_is_used_within_its_bounds(void)
{
    int fd = make_page();
    begin_child(fd);
    memset((char *)child.page + sizeof child.page->magic, 0xff, sizeof *child.page - sizeof child.page->magic);
    end_child();
    struct pc_host a = host_named("a.test");
    begin_child(fd);
    CHECK(atomic_load(&child.page->slot_count) == 0 && count_of(PC_C_PARKED) == 0);
    answer(&a, 200, 1);
    CHECK(strcmp(child.page->hosts[PC_PAGE_HOSTS - 1].name, PC_OTHER_HOSTS) == 0);
    end_child();
    CHECK(close(fd) == 0);
}

static void
test_memory_is_known_when_it_was_looked_at(void)
{
    int fd = make_page();
    begin_child(fd);
    CHECK(count_of(PC_C_MEMORY_KB) == 0);
    pc_page_memory(&child);
    CHECK(count_of(PC_C_MEMORY_KB) > 100);
    end_child();
    CHECK(close(fd) == 0);
}

int
main(void)
{
    RUN(test_each_duration_has_its_bucket);
    RUN(test_longer_is_never_in_an_earlier_bucket);
    RUN(test_a_request_counts_in_its_hosts_row);
    RUN(test_a_successor_counts_on_and_begins_its_states_anew);
    RUN(test_hosts_without_a_row_share_the_last);
    RUN(test_a_page_full_of_garbage_is_used_within_its_bounds);
    RUN(test_memory_is_known_when_it_was_looked_at);
    return check_end();
}
