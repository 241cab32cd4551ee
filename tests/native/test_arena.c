/* test_arena.c - claims about native/arena.c. */
/* sources: arena.c util.c */
#include "pc.h"

#include "check.h"

static void
test_memory_is_aligned_and_does_not_overlap(void)
{
    struct pc_arena arena = {0};
    char *pieces[400];

    for (size_t i = 0; i < COUNT_OF(pieces); i++) {
        pieces[i] = pc_arena_alloc(&arena, i % 67);
        CHECK_EQ((uintptr_t)pieces[i] % 16, 0);
        memset(pieces[i], (int)i & 0x7f, i % 67);
    }
    for (size_t i = 0; i < COUNT_OF(pieces); i++)
        for (size_t j = 0; j < i % 67; j++)
            CHECK_EQ(pieces[i][j], i & 0x7f);
    pc_arena_free(&arena);
}

static void
test_more_than_a_block_is_given_in_one_piece(void)
{
    struct pc_arena arena = {0};
    char *large = pc_arena_alloc(&arena, 100000), *small = pc_arena_alloc(&arena, 10);

    memset(large, 'x', 100000);
    memset(small, 'y', 10);
    CHECK_EQ(large[99999], 'x');
    pc_arena_free(&arena);
    CHECK(arena.first == NULL && arena.last == NULL);
}

static void
test_reset_keeps_the_first_block_only(void)
{
    struct pc_arena arena = {0};
    char *first = pc_arena_alloc(&arena, 100);

    (void)pc_arena_alloc(&arena, 20000);
    (void)pc_arena_alloc(&arena, 20000);
    pc_arena_reset(&arena);
    CHECK(arena.first != NULL && arena.first == arena.last);
    CHECK(pc_arena_alloc(&arena, 100) == first);
    pc_arena_free(&arena);
}

static void
test_reset_and_free_of_an_unused_arena_do_nothing(void)
{
    struct pc_arena arena = {0};

    pc_arena_reset(&arena);
    pc_arena_free(&arena);
    pc_arena_free(&arena);
    CHECK(arena.first == NULL);
}

static void
test_copies_end_with_a_nul_that_is_not_counted(void)
{
    struct pc_arena arena = {0};
    const struct pc_slice none = {.base = NULL, .len = 0};
    struct pc_slice copy = pc_arena_copy(&arena, PC_S("a\0b"));

    CHECK_EQ(copy.len, 3);
    CHECK(memcmp(copy.base, "a\0b", 4) == 0);
    copy = pc_arena_copy(&arena, none);
    CHECK_EQ(copy.len, 0);
    CHECK_EQ(copy.base[0], '\0');
    pc_arena_free(&arena);
}

static void
test_printing_takes_any_length(void)
{
    struct pc_arena arena = {0};
    struct pc_slice text = pc_arena_print(&arena, "%d-%s", 42, "x");

    CHECK(pc_slice_eq(text, PC_S("42-x")));
    text = pc_arena_print(&arena, "%20000d", 7);
    CHECK_EQ(text.len, 20000);
    CHECK_EQ(text.base[19999], '7');
    CHECK_EQ(text.base[20000], '\0');
    pc_arena_free(&arena);
}

int
main(void)
{
    RUN(test_memory_is_aligned_and_does_not_overlap);
    RUN(test_more_than_a_block_is_given_in_one_piece);
    RUN(test_reset_keeps_the_first_block_only);
    RUN(test_reset_and_free_of_an_unused_arena_do_nothing);
    RUN(test_copies_end_with_a_nul_that_is_not_counted);
    RUN(test_printing_takes_any_length);
    return check_end();
}
