/* page.c - a child's counters and slot table.
 * Runs as:  child.   Sees: nothing of clients.   Holds: the child's page, shared with readers.
 * Trusts:   nobody reads sizes or pointers from it.
 * Before:   child.c   After: loop.c */
#include <sys/mman.h>
#include <unistd.h>

#include "child.h"

int
pc_page_map(int page_fd, struct pc_page **ret_page)
{
    void *at = mmap(NULL, sizeof(struct pc_page), PROT_READ | PROT_WRITE, MAP_SHARED, page_fd, 0);
    if (at == MAP_FAILED)
        return -PC_E_SYS;
    struct pc_page *page = at;
    page->magic = PC_PAGE_MAGIC;
    *ret_page = page;
    return 0;
}

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
