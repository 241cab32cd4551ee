/* check.h - the harness of the C unit tests: a test is a function whose name is the claim.
 * Runs as:  the developer.   Sees: fixed bytes of the tests.
 * Trusts:   the tests.   Distrusts: the code under test, so inputs are copied to blocks of exactly
 * their size (ASan). Before:   tests/native/run   After: - Prints the claims that do not hold and,
 * last, "check: N passed, N failed" for the script to add up. */
#ifndef CHECK_H
#define CHECK_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    unsigned passed_count, failed_count;
    bool is_failing; /* the running test */
} check_totals;

/* Say what does not hold; the test goes on, so that one run shows all. `input` may be NULL. */
static inline void
check_that(bool holds, const char *what, const char *input, const char *file, int line)
{
    if (holds)
        return;
    check_totals.is_failing = true;
    printf("%s:%d: does not hold: %s", file, line, what);
    if (input != NULL)
        printf("   for: %s", input);
    printf("\n");
}

static inline void
check_equal(int64_t got, int64_t want, const char *what, const char *input, const char *file,
            int line)
{
    if (got == want)
        return;
    check_totals.is_failing = true;
    printf("%s:%d: %s is %" PRId64 ", not %" PRId64, file, line, what, got, want);
    if (input != NULL)
        printf("   for: %s", input);
    printf("\n");
}

#define CHECK(condition) check_that((condition), #condition, NULL, __FILE__, __LINE__)
#define CHECK_FOR(input, condition) check_that((condition), #condition, (input), __FILE__, __LINE__)
#define CHECK_EQ(got, want) \
    check_equal((int64_t)(got), (int64_t)(want), #got, NULL, __FILE__, __LINE__)
#define CHECK_EQ_FOR(input, got, want) \
    check_equal((int64_t)(got), (int64_t)(want), #got, (input), __FILE__, __LINE__)
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static inline void
check_run(const char *claim, void (*test)(void))
{
    check_totals.is_failing = false;
    test();
    if (check_totals.is_failing) {
        check_totals.failed_count++;
        printf("FAILED %s\n", claim);
    } else {
        check_totals.passed_count++;
    }
}

#define RUN(test) check_run(#test, test)

static inline int
check_end(void)
{
    printf("check: %u passed, %u failed\n", check_totals.passed_count, check_totals.failed_count);
    return check_totals.failed_count == 0 ? 0 : 1;
}

/* A copy in a block of exactly `len` bytes (1 for none): reading behind it is an ASan report. The
 * caller frees it. */
static inline char *
check_copy(const char *bytes, size_t len)
{
    char *copy = malloc(len > 0 ? len : 1);

    if (copy == NULL)
        abort();
    if (len > 0)
        memcpy(copy, bytes, len);
    return copy;
}

/* A string's bytes as a slice of such a copy; free((void *)slice.base). Needs pc.h. */
#define CHECK_SLICE(text) \
    ((struct pc_slice){.base = check_copy((text), strlen(text)), .len = strlen(text)})

#endif
