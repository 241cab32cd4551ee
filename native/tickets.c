/* tickets.c - keys of session tickets: made and renewed in the dispatcher, read in the identity's children.
 * Runs as:  dispatcher (pc_tickets_rotate); child, as its identity (pc_tickets_read).   Sees: no client byte.
 * Holds:    the keys only for the moment in which they are mapped, and in the child, which works with them.
 * Trusts:   the kernel's random numbers.   Distrusts: nothing but its own memfds reaches it; their shape is checked all the same.
 * The dispatcher maps the memfds and lets the kernel fill them: the keys are never on its stack or heap, which children inherit.
 * Before:   perchild/dispatcher/tickets.py   After: child.c
 * Tests: native/test_tickets.c. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

static int
map_keys(int fd, int protection, struct pc_ticket_keys **ret_keys)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return -PC_E_SYS;
    if (st.st_size != (off_t)sizeof **ret_keys)
        return -PC_E_FORMAT;
    void *at = mmap(NULL, sizeof **ret_keys, protection, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return -PC_E_SYS;
    *ret_keys = at;
    return 0;
}

static void
unmap_keys(struct pc_ticket_keys *keys)
{
    if (keys != NULL && munmap(keys, sizeof *keys) != 0)
        pc_bug("tickets: munmap of what we mapped");
}

static bool
are_keys(const struct pc_ticket_keys *keys)
{
    return keys->magic == PC_TICKETS_MAGIC && keys->count > 0 && keys->count <= PC_MAX_TICKET_KEYS;
}

static int
fill(struct pc_ticket_keys *fresh, const struct pc_ticket_keys *old)
{
    uint32_t kept = old == NULL ? 0 : old->count < PC_MAX_TICKET_KEYS ? old->count : PC_MAX_TICKET_KEYS - 1;
    ssize_t count;
    do
        count = getrandom(&fresh->keys[0], sizeof fresh->keys[0], 0);
    while (count < 0 && errno == EINTR);
    if (count != (ssize_t)sizeof fresh->keys[0])
        return -PC_E_SYS;
    for (uint32_t i = 0; i < kept; i++)
        fresh->keys[i + 1] = old->keys[i];
    fresh->count = kept + 1;
    fresh->magic = PC_TICKETS_MAGIC;
    return 0;
}

int
pc_tickets_rotate(int before, int fd)
{
    struct pc_ticket_keys *old = NULL, *fresh = NULL;
    int error = before >= 0 ? map_keys(before, PROT_READ, &old) : 0;
    if (error == 0 && old != NULL && !are_keys(old))
        error = -PC_E_FORMAT;
    if (error == 0 && ftruncate(fd, sizeof *fresh) != 0)
        error = -PC_E_SYS;
    if (error == 0)
        error = map_keys(fd, PROT_READ | PROT_WRITE, &fresh);
    if (error == 0)
        error = fill(fresh, old);
    unmap_keys(fresh);
    unmap_keys(old);
    if (error == 0 && fcntl(fd, F_ADD_SEALS, SEALS) != 0)
        error = -PC_E_SYS;
    return error;
}

int
pc_tickets_read(int fd, struct pc_ticket_keys *ret_keys)
{
    struct pc_ticket_keys *keys = NULL;
    int error = map_keys(fd, PROT_READ, &keys);
    if (error == 0 && are_keys(keys))
        *ret_keys = *keys;
    else if (error == 0)
        error = -PC_E_FORMAT;
    unmap_keys(keys);
    return error;
}
