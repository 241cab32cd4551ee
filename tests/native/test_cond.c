/* test_cond.c - claims about native/cond.c. */
/* sources: cond.c date.c h1.c host.c util.c */
#include "pc.h"

#include "check.h"

#define SAME "Sun, 06 Nov 1994 08:49:37 GMT"
#define BEFORE "Sun, 06 Nov 1994 08:49:36 GMT"
#define AFTER "Sun, 06 Nov 1994 08:49:38 GMT"

static const struct pc_validators with_tag = {.etag = {.base = "\"a-1\"", .len = 5},
                                              .modified_s = 784111777};
static const struct pc_validators weak_tag = {.etag = {.base = "W/\"a-1\"", .len = 7},
                                              .modified_s = 784111777};
static const struct pc_validators no_tag = {.modified_s = 784111777};
static const struct pc_validators nothing = {.modified_s = -1};

static int
check_lines(const char *method, const char *lines, const struct pc_validators *now, bool *ret_range)
{
    static const struct pc_h1_limits limits = {
        .line_bytes = 8190, .field_bytes = 8190, .field_count = 100};
    static struct pc_head head;
    char text[1024];
    int len = snprintf(text, sizeof(text), "%s / HTTP/1.1\r\nHost: a\r\n%s\r\n", method, lines);
    int status;
    char *copy = check_copy(text, (size_t)len);

    memset(&head, 0, sizeof(head));
    CHECK_EQ_FOR(lines, pc_h1_parse_head(&head, copy, (size_t)len, &limits), len);
    status = pc_cond_check(&head, copy, now, ret_range);
    free(copy);
    return status;
}

struct row {
    const char *method, *lines;
    const struct pc_validators *now;
    int status;
};

static void
check_rows(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bool may_range;

        CHECK_EQ_FOR(rows[i].lines,
                     check_lines(rows[i].method, rows[i].lines, rows[i].now, &may_range),
                     rows[i].status);
    }
}

/* If-None-Match compares weakly: 304 for reading, 412 for anything else; it goes before
 * If-Modified-Since. */
static void
test_cond_check_if_none_match(void)
{
    static const struct row rows[] = {
        {"GET", "If-None-Match: \"a-1\"\r\n", &with_tag, 304},
        {"HEAD", "If-None-Match: \"a-1\"\r\n", &with_tag, 304},
        {"PUT", "If-None-Match: \"a-1\"\r\n", &with_tag, 412},
        {"GET", "If-None-Match: W/\"a-1\"\r\n", &with_tag, 304},
        {"GET", "If-None-Match: \"a-1\"\r\n", &weak_tag, 304},
        {"GET", "If-None-Match: \"b\", W/\"c\" ,\"a-1\"\r\n", &with_tag, 304},
        {"GET", "If-None-Match: \"b\"\r\nIf-None-Match: \"a-1\"\r\n", &with_tag, 304},
        {"GET", "If-None-Match: \"with,comma\",\"a-1\"\r\n", &with_tag, 304},
        {"GET", "If-None-Match: *\r\n", &with_tag, 304},
        {"GET", "If-None-Match: *\r\n", &no_tag, 304},
        {"PUT", "If-None-Match: *\r\n", &with_tag, 412},
        {"GET", "If-None-Match: \"b\"\r\n", &with_tag, 0},
        {"GET", "If-None-Match: \"a-1\"\r\n", &no_tag, 0},
        {"GET", "If-None-Match: a-1\r\n", &with_tag, 0},
        {"GET", "If-None-Match: \"a-1\r\n", &with_tag, 0},
        {"GET", "If-None-Match: w/\"a-1\"\r\n", &with_tag, 0},
        {"GET", "If-None-Match: x \"a-1\"\r\n", &with_tag, 0},
        {"GET", "If-None-Match:\r\n", &with_tag, 0},
        {"GET", "If-None-Match: \"b\"\r\nIf-Modified-Since: " SAME "\r\n", &with_tag, 0},
    };
    check_rows(rows, COUNT_OF(rows));
}

/* If-Match compares strongly and goes before If-Unmodified-Since. */
static void
test_cond_check_if_match(void)
{
    static const struct row rows[] = {
        {"GET", "If-Match: \"a-1\"\r\n", &with_tag, 0},
        {"GET", "If-Match: \"b\", \"a-1\"\r\n", &with_tag, 0},
        {"GET", "If-Match: *\r\n", &no_tag, 0},
        {"GET", "If-Match: \"b\"\r\n", &with_tag, 412},
        {"GET", "If-Match: W/\"a-1\"\r\n", &with_tag, 412},
        {"GET", "If-Match: W/\"a-1\"\r\n", &weak_tag, 412},
        {"GET", "If-Match: \"a-1\"\r\n", &no_tag, 412},
        {"GET", "If-Match: rubbish\r\n", &with_tag, 412},
        {"GET", "If-Match: \"a-1\"\r\nIf-Unmodified-Since: " BEFORE "\r\n", &with_tag, 0},
        {"GET", "If-Match: \"a-1\"\r\nIf-None-Match: \"a-1\"\r\n", &with_tag, 304},
        {"GET", "If-Match: \"b\"\r\nIf-None-Match: \"a-1\"\r\n", &with_tag, 412},
    };
    check_rows(rows, COUNT_OF(rows));
}

/* Dates: equal counts as unmodified; what is no date, or a file without a time, makes no condition.
 */
static void
test_cond_check_dates(void)
{
    static const struct row rows[] = {
        {"GET", "If-Modified-Since: " SAME "\r\n", &no_tag, 304},
        {"GET", "If-Modified-Since: " AFTER "\r\n", &no_tag, 304},
        {"GET", "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n", &no_tag, 304},
        {"GET", "If-Modified-Since: " BEFORE "\r\n", &no_tag, 0},
        {"POST", "If-Modified-Since: " SAME "\r\n", &no_tag, 0},
        {"GET", "If-Modified-Since: soon\r\n", &no_tag, 0},
        {"GET", "If-Modified-Since: " SAME "\r\n", &nothing, 0},
        {"GET", "If-Unmodified-Since: " SAME "\r\n", &no_tag, 0},
        {"GET", "If-Unmodified-Since: " BEFORE "\r\n", &no_tag, 412},
        {"GET", "If-Unmodified-Since: soon\r\n", &no_tag, 0},
        {"GET", "If-Unmodified-Since: " BEFORE "\r\n", &nothing, 0},
    };
    check_rows(rows, COUNT_OF(rows));
}

/* Range: for GET, sent once, and under If-Range only while the strong tag or the date is the same.
 */
static void
test_cond_check_says_when_a_range_counts(void)
{
    static const struct {
        const char *method, *lines;
        const struct pc_validators *now;
        bool may_range;
    } rows[] = {
        {"GET", "Range: bytes=0-1\r\n", &with_tag, true},
        {"GET", "", &with_tag, false},
        {"HEAD", "Range: bytes=0-1\r\n", &with_tag, false},
        {"POST", "Range: bytes=0-1\r\n", &with_tag, false},
        {"GET", "Range: bytes=0-1\r\nRange: bytes=2-3\r\n", &with_tag, false},
        {"GET", "Range: bytes=0-1\r\nIf-Range: \"a-1\"\r\n", &with_tag, true},
        {"GET", "Range: bytes=0-1\r\nIf-Range: \"b\"\r\n", &with_tag, false},
        {"GET", "Range: bytes=0-1\r\nIf-Range: W/\"a-1\"\r\n", &with_tag, false},
        {"GET", "Range: bytes=0-1\r\nIf-Range: \"a-1\"\r\n", &weak_tag, false},
        {"GET", "Range: bytes=0-1\r\nIf-Range: \"a-1\"\r\n", &no_tag, false},
        {"GET", "Range: bytes=0-1\r\nIf-Range: \"a-1\", \"b\"\r\n", &with_tag, false},
        {"GET", "Range: bytes=0-1\r\nIf-Range: \"a-1\"\r\nIf-Range: \"a-1\"\r\n", &with_tag, false},
        {"GET", "Range: bytes=0-1\r\nIf-Range: " SAME "\r\n", &with_tag, true},
        {"GET", "Range: bytes=0-1\r\nIf-Range: " AFTER "\r\n", &with_tag, false},
        {"GET", "Range: bytes=0-1\r\nIf-Range: " SAME "\r\n", &nothing, false},
        {"GET", "Range: bytes=0-1\r\nIf-Range:\r\n", &with_tag, false},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        bool may_range = !rows[i].may_range;

        CHECK_EQ_FOR(rows[i].lines,
                     check_lines(rows[i].method, rows[i].lines, rows[i].now, &may_range), 0);
        CHECK_FOR(rows[i].lines, may_range == rows[i].may_range);
    }
}

struct range_row {
    const char *value;
    uint64_t size;
    int count;
    struct pc_range ranges[PC_MAX_RANGES];
};

static void
check_ranges(const struct range_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct pc_slice value = CHECK_SLICE(rows[i].value);
        struct pc_range ranges[PC_MAX_RANGES] = {0};

        CHECK_EQ_FOR(rows[i].value, pc_range_parse(value, rows[i].size, ranges), rows[i].count);
        CHECK_FOR(rows[i].value,
                  memcmp(ranges, rows[i].ranges, sizeof(ranges)) == 0); /* zero = untouched */
        free((void *)value.base);
    }
}

/* First, last, open and suffix ranges; those that do not exist fall out. */
static void
test_range_parse_reads_what_exists(void)
{
    static const struct range_row rows[] = {
        {"bytes=0-0", 1000, 1, {{0, 1}}},
        {"bytes=0-999", 1000, 1, {{0, 1000}}},
        {"bytes=0-1000", 1000, 1, {{0, 1000}}},
        {"bytes=999-", 1000, 1, {{999, 1}}},
        {"bytes=-1", 1000, 1, {{999, 1}}},
        {"bytes=-1000", 1000, 1, {{0, 1000}}},
        {"bytes=-1001", 1000, 1, {{0, 1000}}},
        {"BYTES=1-2, 4-5\t,7-7", 1000, 3, {{1, 2}, {4, 2}, {7, 1}}},
        {"bytes=5-6,1-2", 1000, 2, {{5, 2}, {1, 2}}},
        {"bytes=0-0,1-1,2-2,3-3,4-4", 1000, 5, {{0, 1}, {1, 1}, {2, 1}, {3, 1}, {4, 1}}},
        {"bytes=0-4,5000-,-0", 1000, 1, {{0, 5}}},
        {"bytes=0-18446744073709551616", 1000, 1, {{0, 1000}}},
        {"bytes=-99999999999999999999999", 1000, 1, {{0, 1000}}},
        {"bytes=0-", UINT64_MAX, 1, {{0, UINT64_MAX}}},
        {"bytes=0-18446744073709551615", UINT64_MAX, 1, {{0, UINT64_MAX}}},
    };
    check_ranges(rows, COUNT_OF(rows));
}

/* A well-formed field of which nothing exists is 416. */
static void
test_range_parse_refuses_what_does_not_exist(void)
{
    static const struct range_row rows[] = {
        {"bytes=1000-", 1000, -PC_E_RANGE, {{0}}},
        {"bytes=1000-2000", 1000, -PC_E_RANGE, {{0}}},
        {"bytes=-0", 1000, -PC_E_RANGE, {{0}}},
        {"bytes=5000-,-0", 1000, -PC_E_RANGE, {{0}}},
        {"bytes=18446744073709551616-", 1000, -PC_E_RANGE, {{0}}},
        {"bytes=18446744073709551615-18446744073709551616", 1000, -PC_E_RANGE, {{0}}},
    };
    check_ranges(rows, COUNT_OF(rows));
}

/* Syntax mistakes, other units, too many ranges, more bytes than there are, and an empty file: all
 * of it is sent. */
static void
test_range_parse_ignores_what_it_should_not_honour(void)
{
    static const struct range_row rows[] = {
        {"bytes=", 1000, 0, {{0}}},
        {"bytes", 1000, 0, {{0}}},
        {"", 1000, 0, {{0}}},
        {"bytes=-", 1000, 0, {{0}}},
        {"bytes=a-b", 1000, 0, {{0}}},
        {"bytes=5", 1000, 0, {{0}}},
        {"bytes=2-1", 1000, 0, {{0}}},
        {"bytes=0-1,2-1", 1000, 0, {{0}}},
        {"bytes=0-1,", 1000, 0, {{0}}},
        {"bytes=,0-1", 1000, 0, {{0}}},
        {"bytes=0-1,,3-4", 1000, 0, {{0}}},
        {"bytes=0-1;2-3", 1000, 0, {{0}}},
        {"bytes 0-1", 1000, 0, {{0}}},
        {"items=0-1", 1000, 0, {{0}}},
        {"bytes=0--1", 1000, 0, {{0}}},
        {"bytes=--1", 1000, 0, {{0}}},
        {"bytes=+0-1", 1000, 0, {{0}}},
        {"bytes=0 -1", 1000, 0, {{0}}},
        {"bytes=0-0,1-1,2-2,3-3,4-4,5-5", 1000, 0, {{0}}},
        {"bytes=0-,5-", 1000, 0, {{0}}},
        {"bytes=0-999,0-0", 1000, 0, {{0}}},
        {"bytes=0-", 0, 0, {{0}}},
        {"bytes=-5", 0, 0, {{0}}},
    };
    check_ranges(rows, COUNT_OF(rows));
}

int
main(void)
{
    RUN(test_cond_check_if_none_match);
    RUN(test_cond_check_if_match);
    RUN(test_cond_check_dates);
    RUN(test_cond_check_says_when_a_range_counts);
    RUN(test_range_parse_reads_what_exists);
    RUN(test_range_parse_refuses_what_does_not_exist);
    RUN(test_range_parse_ignores_what_it_should_not_honour);
    return check_end();
}
