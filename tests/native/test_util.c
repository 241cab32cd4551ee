/* test_util.c - claims about native/util.c. */
/* sources: util.c */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "pc.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static void
test_slices_compare_by_bytes_and_length(void)
{
    const struct pc_slice none = {.base = NULL, .len = 0};

    CHECK(pc_slice_eq(PC_S("abc"), PC_S("abc")));
    CHECK(!pc_slice_eq(PC_S("abc"), PC_S("abC")));
    CHECK(!pc_slice_eq(PC_S("abc"), PC_S("ab")));
    CHECK(pc_slice_eq(none, PC_S("")));
    CHECK(pc_slice_ieq(none, none));
    CHECK(pc_slice_eq(PC_S("a\0b"), PC_S("a\0b")));
    CHECK(!pc_slice_eq(PC_S("a\0b"), PC_S("a\0c")));
}

static void
test_case_is_ignored_for_ascii_letters_only(void)
{
    CHECK(pc_slice_ieq(PC_S("HoSt-AZ"), PC_S("hOsT-az")));
    CHECK(!pc_slice_ieq(PC_S("[a"), PC_S("{a")));
    CHECK(!pc_slice_ieq(PC_S("@"), PC_S("`")));
    CHECK(!pc_slice_ieq(PC_S("\xc4"), PC_S("\xe4")));
    CHECK(!pc_slice_ieq(PC_S("host"), PC_S("hosts")));
}

static void
test_a_prefix_may_be_empty_or_the_whole(void)
{
    const struct pc_slice none = {.base = NULL, .len = 0};

    CHECK(pc_slice_starts(PC_S("abc"), none));
    CHECK(pc_slice_starts(none, none));
    CHECK(pc_slice_starts(PC_S("abc"), PC_S("abc")));
    CHECK(!pc_slice_starts(PC_S("ab"), PC_S("abc")));
    CHECK(!pc_slice_starts(PC_S("xbc"), PC_S("ab")));
}

static void
test_the_checksum_is_zlibs(void)
{
    char all[256];

    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (char)i;
    CHECK_EQ(pc_crc32("", 0), 0);
    CHECK_EQ(pc_crc32("123456789", 9), 0xcbf43926u); /* the check value of CRC-32/ISO-HDLC */
    CHECK_EQ(pc_crc32(all, sizeof all), 0x29058c73u);
}

static void
test_numbers_survive_writing_and_reading(void)
{
    static const uint64_t numbers[] = {0, 9, 10, 4294967296u, 999999999999999999u, 9999999999999999999u};
    uint64_t back;

    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        char *text = check_copy("____________________", 20);
        size_t len = pc_number(text, numbers[i]);
        CHECK_EQ(pc_parse_u64((struct pc_slice){.base = text, .len = len}, &back), 0);
        CHECK_EQ(back, numbers[i]);
        free(text);
    }
    char *text = check_copy("____________________", 20);
    CHECK_EQ(pc_number(text, UINT64_MAX), 20);
    CHECK(memcmp(text, "18446744073709551615", 20) == 0);
    free(text);
}

static void
test_anything_but_digits_is_no_number(void)
{
    static const char *const bad[] = {"",   "+1",  "-1", " 1", "1 ", "0x1", "1_0", "1.0", "\xd9\xa1",
                                      "\n", "a1",  "1a", "12345678901234567890", "00000000000000000001"};
    uint64_t number = 77;

    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct pc_slice raw = CHECK_SLICE(bad[i]);
        CHECK_EQ_FOR(bad[i], pc_parse_u64(raw, &number), -PC_E_BAD);
        CHECK_EQ_FOR(bad[i], number, 77);
        free((void *)(uintptr_t)raw.base);
    }
}

static void
test_clocks_go_forward(void)
{
    const uint64_t before = pc_now_ns();

    CHECK(pc_now_ns() >= before);
    CHECK(pc_wall_us() / 1000000 - (int64_t)time(NULL) <= 1);
    CHECK((int64_t)time(NULL) - pc_wall_us() / 1000000 <= 1);
}

/* Run `end` in a child; returns its wait status and what it said on stderr. */
static int
run_apart(void (*end)(void), char *said, size_t room)
{
    int out[2], status = -1;
    ssize_t len;
    pid_t pid;

    if (pipe(out) != 0 || (pid = fork()) < 0)
        abort();
    if (pid == 0) {
        (void)dup2(out[1], 2);
        end();
        _exit(0);
    }
    (void)close(out[1]);
    if (waitpid(pid, &status, 0) != pid)
        abort();
    len = read(out[0], said, room - 1);
    said[len < 0 ? 0 : len] = '\0';
    (void)close(out[0]);
    return status;
}

static void
end_by_death(void)
{
    errno = ENOSPC;
    pc_die(42, "no place left");
}

static void
end_by_bug(void)
{
    (void)signal(SIGABRT, SIG_DFL);
    pc_bug("impossible");
}

static void
end_by_long_death(void)
{
    char what[2000];

    memset(what, 'x', sizeof what - 1);
    what[sizeof what - 1] = '\0';
    errno = 0;
    pc_die(43, what);
}

static void
test_death_is_one_line_and_its_exit_status(void)
{
    char said[1024];
    int status = run_apart(end_by_death, said, sizeof said);

    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 42);
    CHECK_FOR(said, strstr(said, ": fatal: no place left: No space left on device\n") != NULL);
    status = run_apart(end_by_long_death, said, sizeof said);
    CHECK_EQ(WEXITSTATUS(status), 43);
    CHECK(strchr(said, '\n') == said + strlen(said) - 1);
}

static void
test_a_bug_aborts(void)
{
    char said[1024];
    int status = run_apart(end_by_bug, said, sizeof said);

    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK_FOR(said, strstr(said, ": bug: impossible\n") != NULL);
}

static void
test_lists_come_apart_at_commas_and_lose_their_blanks(void)
{
    static const char *const want[] = {"a", "", "b c", "", ""};
    struct pc_slice list = CHECK_SLICE(" a\t,, b c ,\t,"), item;
    size_t at = 0, count = 0;

    for (; pc_list_next(list, &at, &item); count++)
        CHECK(count < COUNT_OF(want) && item.len == strlen(want[count]) && memcmp(item.base, want[count], item.len) == 0);
    CHECK_EQ(count, COUNT_OF(want));
    free((void *)(uintptr_t)list.base);
    at = 0;
    CHECK(pc_list_next(PC_S(""), &at, &item) && item.len == 0 && !pc_list_next(PC_S(""), &at, &item));
    CHECK(pc_slice_trim(PC_S(" \t ")).len == 0 && pc_slice_trim(PC_S("a")).len == 1);
}

static void
test_bytes_are_tokens_or_text_as_rfc_9110_says(void)
{
    for (unsigned c = 0; c < 256; c++) {
        bool is_alnum = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z' && c < 128);

        CHECK_EQ(pc_byte_is_token((uint8_t)c), is_alnum || (c != 0 && c < 128 && strchr("!#$%&'*+-.^_`|~", (int)c) != NULL));
        CHECK_EQ(pc_byte_is_text((uint8_t)c), c == 9 || (c >= 32 && c != 127));
    }
}

int
main(void)
{
    RUN(test_slices_compare_by_bytes_and_length);
    RUN(test_case_is_ignored_for_ascii_letters_only);
    RUN(test_a_prefix_may_be_empty_or_the_whole);
    RUN(test_lists_come_apart_at_commas_and_lose_their_blanks);
    RUN(test_bytes_are_tokens_or_text_as_rfc_9110_says);
    RUN(test_the_checksum_is_zlibs);
    RUN(test_numbers_survive_writing_and_reading);
    RUN(test_anything_but_digits_is_no_number);
    RUN(test_clocks_go_forward);
    RUN(test_death_is_one_line_and_its_exit_status);
    RUN(test_a_bug_aborts);
    return check_end();
}
