/* test_tickets.c - claims about tickets.c: keys come newest first, the oldest goes, and nobody can change them afterwards.
 * Runs as:  the developer.   Sees: keys made here.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: tickets.c util.c */
/* flags: -D_GNU_SOURCE */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create */
#endif
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "child.h"

static int
make_memfd(void)
{
    int fd = memfd_create("tickets", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    CHECK(fd >= 0);
    return fd;
}

static void
test_rotate_puts_a_fresh_key_first_and_drops_the_oldest(void)
{
    struct pc_ticket_keys before = {0}, now = {0};
    int last = -1;

    for (uint32_t round = 1; round <= PC_MAX_TICKET_KEYS + 2; round++) {
        int fd = make_memfd();

        CHECK_EQ(pc_tickets_rotate(last, fd), 0);
        CHECK_EQ(pc_tickets_read(fd, &now), 0);
        CHECK_EQ(now.count, round < PC_MAX_TICKET_KEYS ? round : PC_MAX_TICKET_KEYS);
        for (uint32_t i = 1; i < now.count; i++)
            CHECK(memcmp(&now.keys[i], &before.keys[i - 1], sizeof now.keys[i]) == 0);
        CHECK(round == 1 || memcmp(&now.keys[0], &before.keys[0], sizeof now.keys[0]) != 0);
        before = now;
        if (last >= 0)
            (void)close(last);
        last = fd;
    }
    (void)close(last);
}

static void
test_rotate_seals_what_it_made(void)
{
    int fd = make_memfd();

    CHECK_EQ(pc_tickets_rotate(-1, fd), 0);
    CHECK(pwrite(fd, "x", 1, 0) < 0);
    CHECK(ftruncate(fd, 0) < 0);
    CHECK(mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    (void)close(fd);
}

static void
test_what_is_no_keys_is_refused(void)
{
    struct pc_ticket_keys keys = {.magic = PC_TICKETS_MAGIC, .count = PC_MAX_TICKET_KEYS + 1}, kept = {.count = 77};
    int fd = make_memfd(), fresh = make_memfd();

    CHECK_EQ(pc_tickets_read(fd, &kept), -PC_E_FORMAT);
    CHECK_EQ(pwrite(fd, &keys, sizeof keys, 0), (ssize_t)sizeof keys);
    CHECK_EQ(pc_tickets_read(fd, &kept), -PC_E_FORMAT);
    CHECK_EQ(pc_tickets_rotate(fd, fresh), -PC_E_FORMAT);
    CHECK_EQ(kept.count, 77);
    keys.count = 1;
    keys.magic = 0;
    CHECK_EQ(pwrite(fd, &keys, sizeof keys, 0), (ssize_t)sizeof keys);
    CHECK_EQ(pc_tickets_read(fd, &kept), -PC_E_FORMAT);
    (void)close(fd);
    (void)close(fresh);
}

int
main(void)
{
    RUN(test_rotate_puts_a_fresh_key_first_and_drops_the_oldest);
    RUN(test_rotate_seals_what_it_made);
    RUN(test_what_is_no_keys_is_refused);
    return check_end();
}
