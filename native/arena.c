/* arena.c - memory that dies with the request: a chain of blocks, handed out from the front to the back.
 * Runs as:  any child.   Sees: client bytes, copied in.   Holds: one request's memory.
 * Trusts:   its caller's lengths.   Distrusts: nothing else reaches it.
 * Before:   conn.c   After: - */
#include "pc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PC_ARENA_BLOCK_BYTES 8192 /* a whole small-file request fits in one */
#define PC_ARENA_SMALL_BYTES 2048 /* mostly in this one, too */
#define PC_ARENA_ALIGN 16
#define PC_EXIT_MEMORY 70 /* EX_SOFTWARE: the child is replaced, its inbox waits */

struct pc_block {
    struct pc_block *next;
    size_t used, size; /* of data */
    _Alignas(PC_ARENA_ALIGN) char data[];
};

/* A block's size as a rule, all of it. A small arena grows to the usual by doubling. */
static size_t
pc_arena_usual(const struct pc_arena *arena)
{
    size_t before = arena->last != NULL ? sizeof *arena->last + arena->last->size : PC_ARENA_SMALL_BYTES / 2;
    return arena->is_small && before < PC_ARENA_BLOCK_BYTES / 2 ? 2 * before : PC_ARENA_BLOCK_BYTES;
}

static struct pc_block *
pc_arena_grow(struct pc_arena *arena, size_t len)
{
    const size_t usual = pc_arena_usual(arena) - sizeof(struct pc_block);
    size_t size = len > usual ? len : usual;
    struct pc_block *block;

    if (size > SIZE_MAX - sizeof *block)
        pc_die(PC_EXIT_MEMORY, "arena: size overflows");
    block = malloc(sizeof *block + size);
    if (block == NULL)
        pc_die(PC_EXIT_MEMORY, "arena");
    block->next = NULL;
    block->used = 0;
    block->size = size;
    if (arena->last != NULL)
        arena->last->next = block;
    else
        arena->first = block;
    arena->last = block;
    return block;
}

void *
pc_arena_alloc(struct pc_arena *arena, size_t len)
{
    struct pc_block *block = arena->last;
    char *at;

    if (len > SIZE_MAX - PC_ARENA_ALIGN)
        pc_die(PC_EXIT_MEMORY, "arena: size overflows");
    len = (len + PC_ARENA_ALIGN - 1) & ~(size_t)(PC_ARENA_ALIGN - 1);
    if (block == NULL || block->size - block->used < len)
        block = pc_arena_grow(arena, len);
    at = block->data + block->used;
    block->used += len;
    return at;
}

struct pc_slice
pc_arena_copy(struct pc_arena *arena, struct pc_slice s)
{
    char *base = pc_arena_alloc(arena, s.len + 1);

    if (s.len > 0)
        memcpy(base, s.base, s.len);
    base[s.len] = '\0';
    return (struct pc_slice){.base = base, .len = s.len};
}

struct pc_slice
pc_arena_print(struct pc_arena *arena, const char *format, ...)
{
    va_list args, again;
    char *base;
    int len;

    va_start(args, format);
    va_copy(again, args);
    len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len < 0)
        pc_bug("pc_arena_print: format");
    base = pc_arena_alloc(arena, (size_t)len + 1);
    if (vsnprintf(base, (size_t)len + 1, format, again) != len)
        pc_bug("pc_arena_print: the arguments changed");
    va_end(again);
    return (struct pc_slice){.base = base, .len = (size_t)len};
}

void
pc_arena_reset(struct pc_arena *arena)
{
    struct pc_block *first = arena->first;

    if (first == NULL)
        return;
    for (struct pc_block *block = first->next, *next; block != NULL; block = next) {
        next = block->next;
        free(block);
    }
    first->next = NULL;
    first->used = 0;
    arena->last = first;
}

void
pc_arena_free(struct pc_arena *arena)
{
    pc_arena_reset(arena);
    free(arena->first);
    arena->first = arena->last = NULL;
}
