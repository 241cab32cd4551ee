/* test_backend.c - claims about native/backend.c: when the names of back ends are looked up. The clock and the resolver are the test's.
 * Runs as:  the developer.   Sees: nothing but this file.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: backend.c dial.c kept.c knock.c target.c util.c */
/* flags: -D_GNU_SOURCE */
/* libs: -Wl,--wrap=pc_now_ns -Wl,--wrap=getaddrinfo -Wl,--wrap=freeaddrinfo */
#include <netdb.h>
#include <stdlib.h>

#include "backend.h"
#include "job.h"

#include "check.h"

#define SECOND 1000000000ull

static uint64_t now_ns;
static int asked;
static bool is_deaf; /* the resolver */
static struct pc_child *child;
static struct pc_config config;

/* NOLINTBEGIN: the linker makes these names */
uint64_t __wrap_pc_now_ns(void);
int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **ret_found);
void __wrap_freeaddrinfo(struct addrinfo *found);
/* NOLINTEND */

uint64_t
__wrap_pc_now_ns(void)
{
    return now_ns;
}

static int
find(bool may_block)
{
    struct pc_target target;
    struct pc_backend *backend = NULL;
    int parsed = pc_target_parse(PC_S("http://back.test:8080/"), &target);
    return parsed != 0 ? parsed : pc_backend_find(child, &target, PC_BACKEND_HTTP, 80, may_block, &backend);
}

int
__wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **ret_found)
{
    static struct sockaddr_in address = {.sin_family = AF_INET};
    static struct addrinfo one = {.ai_family = AF_INET, .ai_addr = (void *)&address, .ai_addrlen = sizeof address};
    (void)service;
    (void)hints;
    CHECK(strcmp(node, "back.test") == 0);
    *ret_found = is_deaf ? NULL : &one;
    asked++;
    if (asked == 2)
        CHECK_EQ(find(false), 0); /* another request, while this one waits for the resolver */
    return is_deaf ? EAI_AGAIN : 0;
}

void
__wrap_freeaddrinfo(struct addrinfo *found)
{
    (void)found;
}

/* ------------------------------------------------------------------ what backend.c calls besides: no connection is made here */

int
pc_gate_watch(const struct pc_gate *gate, int fd, uint32_t events)
{
    (void)gate;
    (void)fd;
    (void)events;
    abort();
}

int
pc_gate_rewatch(const struct pc_gate *gate, int fd, uint32_t events)
{
    return pc_gate_watch(gate, fd, events);
}

int
pc_job_send(struct pc_child *to, const struct pc_job *job, const struct pc_job_text *text, const int *fds, uint32_t fd_count)
{
    (void)to;
    (void)job;
    (void)text;
    (void)fds;
    (void)fd_count;
    abort();
}

uint64_t
pc_job_next_id(struct pc_child *of)
{
    (void)of;
    abort();
}

/* ------------------------------------------------------------------ claims */

static void
set_up(void)
{
    child = calloc(1, sizeof *child);
    CHECK(child != NULL && pthread_mutex_init(&child->backends.lock, NULL) == 0);
    child->config = &config;
    asked = 0;
    is_deaf = false;
}

static void
tear_down(void)
{
    pc_backend_free_all(child);
    CHECK_EQ(pthread_mutex_destroy(&child->backends.lock), 0);
    free(child);
}

/* Where the machine has just started, so has the clock. */
static void
a_name_is_looked_up_before_it_is_used(void)
{
    set_up();
    now_ns = 20 * SECOND;
    CHECK_EQ(find(false), -PC_E_AGAIN);
    CHECK_EQ(find(true), 0);
    CHECK_EQ(asked, 1);
    CHECK_EQ(find(false), 0);
    tear_down();
}

static void
old_addresses_serve_on_and_one_request_asks(void)
{
    set_up();
    now_ns = 1000 * SECOND;
    CHECK_EQ(find(true), 0);
    now_ns += 61 * SECOND;
    is_deaf = true;
    CHECK_EQ(find(false), -PC_E_AGAIN);
    CHECK_EQ(find(true), 0); /* within it, another one finds the old ones */
    CHECK_EQ(asked, 2);
    CHECK_EQ(find(false), 0);
    CHECK_EQ(find(true), 0);
    CHECK_EQ(asked, 2);
    now_ns += 6 * SECOND;
    is_deaf = false;
    CHECK_EQ(find(true), 0);
    CHECK_EQ(asked, 3);
    tear_down();
}

static void
a_resolver_that_fails_is_left_alone_for_a_while(void)
{
    set_up();
    now_ns = 1000 * SECOND;
    is_deaf = true;
    CHECK_EQ(find(true), -PC_E_NOT_FOUND);
    CHECK_EQ(find(false), -PC_E_NOT_FOUND); /* at once, and no thread waits */
    CHECK_EQ(find(true), -PC_E_NOT_FOUND);
    CHECK_EQ(asked, 1);
    now_ns += 6 * SECOND;
    asked = 2;
    is_deaf = false;
    CHECK_EQ(find(true), 0);
    CHECK_EQ(asked, 3);
    tear_down();
}

int
main(void)
{
    RUN(a_name_is_looked_up_before_it_is_used);
    RUN(old_addresses_serve_on_and_one_request_asks);
    RUN(a_resolver_that_fails_is_left_alone_for_a_while);
    return check_end();
}
