/* held.h - how many bytes of memory are in use, for tests that bound them.
 * Runs as:  the developer.   Sees: the allocator's own count.
 * Trusts:   ASan's, where there is one: glibc's (mallinfo2) then counts nothing.   Distrusts: -
 * Before:   test_h2_floods.c, test_h2_memory.c   After: - */
#ifndef HELD_H
#define HELD_H

#include <malloc.h>
#include <stddef.h>

#ifndef __has_feature
#define __has_feature(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/allocator_interface.h>
#define HELD_BYTES() __sanitizer_get_current_allocated_bytes()
#else
#define HELD_BYTES() mallinfo2().uordblks
#endif

static inline size_t
held_bytes(void)
{
    return HELD_BYTES();
}

#endif
