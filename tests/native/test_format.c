/* test_format.c - claims about native/format.c. */
/* sources: format.c escape.c uri.c h1.c host.c util.c */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "format_case.h"

#include <unistd.h>

/* Format into a block of exactly `cap` bytes and return it as a string; free() it. */
static char *
format(const struct case_all *all, const struct case_ops *ops, bool in_log, size_t cap)
{
    char *ops_copy = check_copy(ops->bytes, ops->len), *out = malloc(cap > 0 ? cap : 1), *text;
    size_t len;

    if (out == NULL)
        abort();
    len = pc_format_write(&all->req, (struct pc_slice){.base = ops_copy, .len = ops->len}, in_log, out, cap);
    if (len > cap)
        abort();
    text = calloc(1, len + 1);
    if (text == NULL)
        abort();
    memcpy(text, out, len);
    free(out);
    free(ops_copy);
    return text;
}

static void
check_op(const struct case_all *all, bool in_log, int op, int flags, const char *arg, const char *want)
{
    struct case_ops ops = {0};
    char *got, line[600];

    case_add_when(&ops, op, flags, NULL, 0, arg);
    got = format(all, &ops, in_log, 500);
    (void)snprintf(line, sizeof line, "op %d {%s}: got <%s>, want <%s>", op, arg, got, want);
    CHECK_FOR(line, strcmp(got, want) == 0);
    free(got);
}

struct row {
    int op;
    const char *arg, *want;
};

static void
test_every_operation_shows_what_httpd_shows(void)
{
    static const struct row rows[] = {
        {PC_FMT_LITERAL, "as it is \\ \"", "as it is \\ \""},
        {PC_FMT_a, "", "192.0.2.55"}, {PC_FMT_a, "c", "192.0.2.55"}, {PC_FMT_h, "", "192.0.2.55"},
        {PC_FMT_A, "", "198.51.100.7"}, {PC_FMT_B, "", "1234"}, {PC_FMT_b, "", "1234"},
        {PC_FMT_C, "one", "1"}, {PC_FMT_C, "two", "second value"}, {PC_FMT_C, "three", "a=b"},
        {PC_FMT_C, "four", "-"}, {PC_FMT_C, "on", "-"},
        {PC_FMT_e, "COLOUR", "red\\n"}, {PC_FMT_e, "colour", "-"},
        {PC_FMT_f, "", "/home/x/a b/c.html"}, {PC_FMT_H, "", "HTTP/1.1"},
        {PC_FMT_i, "user-agent", "Mozilla/5.0 \\\"quoted\\\" \\\\ \\x80"}, {PC_FMT_i, "Empty", ""},
        {PC_FMT_i, "Missing", "-"}, {PC_FMT_k, "", "3"}, {PC_FMT_l, "", "-"}, {PC_FMT_u, "", "-"},
        {PC_FMT_m, "", "GET"}, {PC_FMT_n, "note", "-"},
        {PC_FMT_o, "etag", "\\\"abc\\\""}, {PC_FMT_o, "Set-Cookie", "a=1, b=2"}, {PC_FMT_o, "Missing", "-"},
        {PC_FMT_o, "Content-Type", "text/html"}, {PC_FMT_o, "content-length", "1234"}, {PC_FMT_o, "Server", "perchildd"},
        {PC_FMT_p, "", "8080"}, {PC_FMT_p, "canonical", "8080"}, {PC_FMT_p, "local", "80"}, {PC_FMT_p, "remote", "50001"},
        {PC_FMT_q, "", "?x=1&y=%22"}, {PC_FMT_r, "", "GET /a%20b/c.html?x=1&y=%22 HTTP/1.1"},
        {PC_FMT_R, "", "-"}, {PC_FMT_s, "", "200"}, {PC_FMT_U, "", "/a b/c.html"},
        {PC_FMT_v, "", "www.example.org"}, {PC_FMT_V, "", "example.org"}, {PC_FMT_X, "", "+"},
        {PC_FMT_I, "", "300"}, {PC_FMT_O, "", "1500"}, {PC_FMT_S, "", "1800"}, {PC_FMT_x, "SSL_PROTOCOL", "-"},
    };
    struct case_all *all = case_new();

    for (size_t i = 0; i < COUNT_OF(rows); i++)
        check_op(all, true, rows[i].op, 0, rows[i].arg, rows[i].want);
    free(all);
}

static void
test_a_host_without_a_name_is_localhost_in_a_line(void)
{
    struct case_all *all = case_new();

    all->host.name = PC_S("");
    check_op(all, true, PC_FMT_v, 0, "", "localhost");
    check_op(all, true, PC_FMT_V, 0, "", "example.org"); /* as the client called it */
    all->req.name.len = 0;
    check_op(all, true, PC_FMT_V, 0, "", "localhost");
    free(all);
}

static void
test_times_are_in_every_form_and_the_local_zone(void)
{
    static const struct row rows[] = {
        {PC_FMT_t, "", "[10/Oct/2000:17:25:36 -0330]"}, {PC_FMT_t, "begin", "[10/Oct/2000:17:25:36 -0330]"},
        {PC_FMT_t, "sec", "971211336"}, {PC_FMT_t, "msec", "971211336123"}, {PC_FMT_t, "usec", "971211336123456"},
        {PC_FMT_t, "msec_frac", "123"}, {PC_FMT_t, "usec_frac", "123456"}, {PC_FMT_t, "begin:sec", "971211336"},
        {PC_FMT_t, "%Y-%m-%dT%H:%M:%S%z", "2000-10-10T17:25:36-0330"}, {PC_FMT_t, "begin:%Y", "2000"},
        {PC_FMT_t, "end%Y", "end2000"},
    };
    struct case_all *all = case_new();

    for (size_t i = 0; i < COUNT_OF(rows); i++)
        check_op(all, true, PC_FMT_t, 0, rows[i].arg, rows[i].want);
    all->req.start_wall_us = 971211336123456 + 86400000000; /* another second: the kept text is not used again */
    check_op(all, true, PC_FMT_t, 0, "", "[11/Oct/2000:17:25:36 -0330]");
    all->req.start_wall_us = 978310801000007;
    check_op(all, true, PC_FMT_t, 0, "", "[31/Dec/2000:21:30:01 -0330]");
    check_op(all, true, PC_FMT_t, 0, "msec_frac", "000");
    check_op(all, true, PC_FMT_t, 0, "usec_frac", "000007");
    free(all);
}

static void
test_the_end_time_is_now(void)
{
    struct case_all *all = case_new();
    struct case_ops ops = {0};
    const int64_t before = pc_wall_us() / 1000;
    uint64_t shown = 0;
    char *got;

    case_add(&ops, PC_FMT_t, "end:msec");
    got = format(all, &ops, true, 100);
    CHECK_EQ(pc_parse_u64((struct pc_slice){.base = got, .len = strlen(got)}, &shown), 0);
    CHECK((int64_t)shown >= before && (int64_t)shown <= pc_wall_us() / 1000);
    free(got);
    free(all);
}

static void
test_durations_are_in_the_unit_asked_for(void)
{
    static const struct { int op; const char *arg; uint64_t unit_ns; } rows[] = {
        {PC_FMT_T, "", 1000000000}, {PC_FMT_T, "s", 1000000000}, {PC_FMT_T, "ms", 1000000}, {PC_FMT_T, "us", 1000},
        {PC_FMT_D, "", 1000},
    };
    struct case_all *all = case_new();

    all->req.start_ns = pc_now_ns() - 2500000000u;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct case_ops ops = {0};
        uint64_t shown = 0, low = 2500000000u / rows[i].unit_ns;
        char *got;
        case_add(&ops, rows[i].op, rows[i].arg);
        got = format(all, &ops, true, 100);
        CHECK_EQ_FOR(got, pc_parse_u64((struct pc_slice){.base = got, .len = strlen(got)}, &shown), 0);
        CHECK_FOR(got, shown >= low && shown <= (pc_now_ns() - all->req.start_ns) / rows[i].unit_ns);
        free(got);
    }
    free(all);
}

static void
test_process_thread_and_request_have_their_numbers(void)
{
    struct case_all *all = case_new();
    char want[64];

    (void)snprintf(want, sizeof want, "%d", (int)getpid());
    check_op(all, true, PC_FMT_P, 0, "", want);
    check_op(all, true, PC_FMT_P, 0, "pid", want);
    (void)snprintf(want, sizeof want, "%d", (int)gettid());
    check_op(all, true, PC_FMT_P, 0, "tid", want);
    (void)snprintf(want, sizeof want, "%x", (unsigned int)gettid());
    check_op(all, true, PC_FMT_P, 0, "hextid", want);
    (void)snprintf(want, sizeof want, "%d-77", (int)getpid());
    check_op(all, true, PC_FMT_L, 0, "", want);
    free(all);
}

static void
test_nothing_sent_is_a_dash_for_b_and_zero_for_B(void)
{
    struct case_all *all = case_new();

    all->req.body_out = 0;
    check_op(all, true, PC_FMT_b, 0, "", "-");
    check_op(all, true, PC_FMT_B, 0, "", "0");
    free(all);
}

static void
test_addresses_of_both_families(void)
{
    struct case_all *all = case_new();

    case_set_address(&all->req.client, AF_INET6, "2001:db8::1", 443);
    check_op(all, true, PC_FMT_h, 0, "", "2001:db8::1");
    check_op(all, true, PC_FMT_p, 0, "remote", "443");
    case_set_address(&all->req.client, AF_INET6, "::ffff:203.0.113.9", 443);
    check_op(all, true, PC_FMT_a, 0, "", "203.0.113.9");
    all->req.client.ss_family = AF_UNSPEC;
    check_op(all, true, PC_FMT_a, 0, "", "-");
    free(all);
}

static void
test_a_connection_without_a_request_line_is_dashes(void)
{
    static const int ops[] = {PC_FMT_r, PC_FMT_m, PC_FMT_H, PC_FMT_U, PC_FMT_f, PC_FMT_v, PC_FMT_V};
    struct case_all *all = case_new();

    memset(&all->head, 0, sizeof all->head);
    all->req.path = all->req.query = all->req.filename = (struct pc_slice){.base = NULL, .len = 0};
    all->req.host = NULL;
    all->req.name.len = 0;
    all->req.resp.status = 408;
    for (int headless = 0; headless < 3; headless++) {
        if (headless == 1)
            all->req.raw = NULL;
        if (headless == 2)
            all->req.head = NULL;
        for (size_t i = 0; i < COUNT_OF(ops); i++)
            check_op(all, true, ops[i], 0, "", "-");
        check_op(all, true, PC_FMT_q, 0, "", "");
        check_op(all, true, PC_FMT_i, 0, "Host", "-");
        check_op(all, true, PC_FMT_C, 0, "one", "-");
        check_op(all, true, PC_FMT_s, 0, "", "408");
        check_op(all, true, PC_FMT_p, 0, "", "80");
    }
    all->req.resp.status = 0;
    check_op(all, true, PC_FMT_s, 0, "", "-");
    free(all);
}

static void
test_the_path_is_the_one_asked_for_unless_the_final_one_is_wanted(void)
{
    struct case_all *all = case_new();

    all->req.redirect_depth = 1;
    all->req.path = PC_S("/error.html");
    all->req.query = (struct pc_slice){.base = NULL, .len = 0};
    check_op(all, true, PC_FMT_U, 0, "", "/a b/c.html");
    check_op(all, true, PC_FMT_U, 1, "", "/a b/c.html");
    check_op(all, true, PC_FMT_U, 2, "", "/error.html");
    check_op(all, true, PC_FMT_q, 0, "", "?x=1&y=%22");
    check_op(all, true, PC_FMT_q, 2, "", "");
    free(all);
}

static void
test_a_path_that_was_refused_is_shown_as_it_came(void)
{
    static const char head[] = "GET /%zz?q HTTP/1.0\r\n\r\n";
    static const struct pc_h1_limits limits = {.line_bytes = 8190, .field_bytes = 8190, .field_count = 100};
    struct case_all *all = case_new();

    memset(&all->head, 0, sizeof all->head);
    CHECK(pc_h1_parse_head(&all->head, head, sizeof head - 1, &limits) > 0);
    all->req.raw = head;
    all->req.path = (struct pc_slice){.base = NULL, .len = 0};
    check_op(all, true, PC_FMT_U, 0, "", "/%zz");
    check_op(all, true, PC_FMT_H, 0, "", "HTTP/1.0");
    free(all);
}

static void
test_the_connection_shows_how_it_ended(void)
{
    struct case_all *all = case_new();

    check_op(all, true, PC_FMT_X, 0, "", "+");
    all->req.resp.close = true;
    check_op(all, true, PC_FMT_X, 0, "", "-");
    all->req.aborted = true;
    check_op(all, true, PC_FMT_X, 0, "", "X");
    free(all);
}

static void
test_conditions_choose_by_status(void)
{
    static const uint16_t errors[] = {400, 501}, fine[] = {200, 304, 302};
    static const struct { uint32_t status; const char *want; } rows[] = {{400, "[U]-"}, {501, "[U]-"}, {404, "--"}};
    struct case_all *all = case_new();
    struct case_ops ops = {0}, negated = {0};
    char *got;

    case_add_when(&ops, PC_FMT_LITERAL, 4, errors, 2, "[U]");
    case_add_when(&ops, PC_FMT_LITERAL, 4, fine, 3, "[fine]");
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        all->req.resp.status = rows[i].status;
        got = format(all, &ops, true, 100);
        CHECK_FOR(got, strcmp(got, rows[i].want) == 0);
        free(got);
    }
    case_add_when(&negated, PC_FMT_i, 4 | 8, fine, 3, "Referer");
    all->req.resp.status = 304;
    got = format(all, &negated, true, 100);
    CHECK_FOR(got, strcmp(got, "-") == 0);
    free(got);
    all->req.resp.status = 500;
    got = format(all, &negated, true, 100);
    CHECK_FOR(got, strcmp(got, "http://example.org/") == 0);
    free(got);
    free(all);
}

static void
test_combined_is_httpds_line(void)
{
    struct case_all *all = case_new();
    struct case_ops ops = {0};
    char *got;

    case_add_combined(&ops);
    got = format(all, &ops, true, 8000);
    CHECK_FOR(got, strcmp(got, "192.0.2.55 - - [10/Oct/2000:17:25:36 -0330] \"GET /a%20b/c.html?x=1&y=%22 HTTP/1.1\" 200 "
                               "1234 \"http://example.org/\" \"Mozilla/5.0 \\\"quoted\\\" \\\\ \\x80\"") == 0);
    free(got);
    free(all);
}

static void
test_a_short_room_cuts_and_never_overruns(void)
{
    struct case_all *all = case_new();
    struct case_ops ops = {0};
    char *whole;

    case_add_combined(&ops);
    whole = format(all, &ops, true, 8000);
    for (size_t cap = 0; cap <= strlen(whole) + 8; cap++) {
        char *got = format(all, &ops, true, cap);
        const size_t len = strlen(got);
        CHECK(len <= cap && len + 4 >= (cap < strlen(whole) ? cap : strlen(whole)));
        /* a piece that did not fit may be missing inside, so only what is before it must be the same */
        CHECK(cap < strlen(whole) || strcmp(got, whole) == 0);
        free(got);
    }
    free(whole);
    free(all);
}

static void
test_a_fields_value_is_raw_on_one_line(void)
{
    struct case_all *all = case_new();

    check_op(all, false, PC_FMT_LITERAL, 0, "a\r\nb", "ab");
    check_op(all, false, PC_FMT_e, 0, "COLOUR", "red");
    check_op(all, false, PC_FMT_e, 0, "MISSING", "(null)");
    check_op(all, false, PC_FMT_i, 0, "User-Agent", "Mozilla/5.0 \"quoted\" \\ \x80");
    check_op(all, false, PC_FMT_t, 0, "", "t=971211336123456");
    all->req.start_ns = UINT64_MAX; /* a clock that stands still */
    check_op(all, false, PC_FMT_D, 0, "", "D=0");
    free(all);
}

static void
test_operations_that_are_not_ours_end_the_line(void)
{
    static const struct { size_t len; const char *bytes; } rows[] = {
        {3, "\x00\x00\x01"},             /* half a head */
        {4, "\x00\x00\x01\x00"},         /* argument missing */
        {6, "\x00\x00\xff\xffxy"},       /* argument longer than all */
        {5, "\xff\x00\x01\x00x"},        /* no such operation */
        {4, "\x00\x04\x00\x00"},         /* condition without its count */
        {6, "\x00\x04\x02\x00\x01\xc8"}, /* condition cut */
    };
    struct case_all *all = case_new();

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct case_ops ops = {0};
        char *got;
        case_add(&ops, PC_FMT_LITERAL, "before");
        memcpy(ops.bytes + ops.len, rows[i].bytes, rows[i].len);
        ops.len += rows[i].len;
        got = format(all, &ops, true, 100);
        CHECK_FOR(got, strcmp(got, "before") == 0);
        free(got);
    }
    free(all);
}

int
main(void)
{
    if (setenv("TZ", "XST3:30", 1) != 0)
        return 2;
    tzset();
    RUN(test_every_operation_shows_what_httpd_shows);
    RUN(test_a_host_without_a_name_is_localhost_in_a_line);
    RUN(test_times_are_in_every_form_and_the_local_zone);
    RUN(test_the_end_time_is_now);
    RUN(test_durations_are_in_the_unit_asked_for);
    RUN(test_process_thread_and_request_have_their_numbers);
    RUN(test_nothing_sent_is_a_dash_for_b_and_zero_for_B);
    RUN(test_addresses_of_both_families);
    RUN(test_a_connection_without_a_request_line_is_dashes);
    RUN(test_the_path_is_the_one_asked_for_unless_the_final_one_is_wanted);
    RUN(test_a_path_that_was_refused_is_shown_as_it_came);
    RUN(test_the_connection_shows_how_it_ended);
    RUN(test_conditions_choose_by_status);
    RUN(test_combined_is_httpds_line);
    RUN(test_a_short_room_cuts_and_never_overruns);
    RUN(test_a_fields_value_is_raw_on_one_line);
    RUN(test_operations_that_are_not_ours_end_the_line);
    return check_end();
}
