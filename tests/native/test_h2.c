/* test_h2.c - claims about HTTP/2 on the real connection code: the test is client, runner and program at once, frame by frame.
 * Runs as:  the developer.   Sees: a directory of its own under /tmp.
 * Trusts:   check.h, h2_case.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c map.c mime.c page.c peek.c record.c regex.c request.c respond.c route.c serve.c settings.c tlv.c */
/* sources: transport.c uri.c util.c why.c wild.c gate.c gate_answer.c trailer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c dial.c kept.c knock.c target.c gate_http.c h1out.c proxy.c remoteip.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c hello.c phpini.c */
/* sources: tls.c tls_ctx.c pem.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* flags: -D_GNU_SOURCE */
/* libs: -lpcre2-8 -lssl -lcrypto */
/* libs: -lnghttp2 */
#include "h2_case.h"

static bool
is_answered(int32_t id, uint32_t status, size_t len)
{
    const struct h2_answer *answer = h2_answer(&client, id);
    if (answer->has_ended && answer->status == status && answer->body_len == len)
        return true;
    printf("stream %d: status %u, %zu bytes, %s\n", id, answer->status, answer->body_len, answer->has_ended ? "ended" : "not ended");
    return false;
}

static void
open_windows(int32_t id, uint32_t by)
{
    h2_answer(&client, id)->window += by;
    client.window += by;
    (void)h2_number(&client, NGHTTP2_WINDOW_UPDATE, (uint32_t)id, by);
    (void)h2_number(&client, NGHTTP2_WINDOW_UPDATE, 0, by);
}

static void
shut_windows(void)
{
    const uint8_t settings[6] = {0, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0, 0, 0, 0};
    (void)h2_frame(&client, NGHTTP2_SETTINGS, 0, 0, settings, sizeof settings);
    client.initial_window = 0;
}

/* ------------------------------------------------------------------ claims: files */

static void
files_are_answered_on_streams(void)
{
    start();
    int32_t small = h2_get(&client, "/small"), middle = h2_get(&client, "/middle"), none = h2_get(&client, "/nothing");
    int32_t head = h2_ask(&client, "HEAD", "/big", "own.test", false), list = h2_get(&client, "/list/"), ask = h2_get(&client, "/ask");
    settle();
    CHECK(is_answered(small, 200, 60) && is_answered(middle, 200, CHILD_MIDDLE_BYTES) && is_answered(head, 200, 0));
    CHECK(h2_answer(&client, none)->status == 404 && h2_answer(&client, none)->has_ended);
    CHECK(h2_answer(&client, list)->status == 200 && h2_answer(&client, list)->has_ended);
    CHECK(is_answered(ask, 200, 6) && memcmp(h2_answer(&client, ask)->kept, "asked\n", 6) == 0);
    for (size_t i = 0; i < 60; i++)
        CHECK(h2_answer(&client, small)->kept[i] == child_byte("small", i));
    CHECK(strstr(h2_answer(&client, small)->fields, "\ncontent-length: 60\n") != NULL);
    CHECK(strstr(h2_answer(&client, head)->fields, "\ncontent-length: 80000\n") != NULL);
    CHECK(strstr(h2_answer(&client, small)->fields, "\nconnection:") == NULL);
    stop();
}

static void
ranges_and_conditions_hold_on_streams(void)
{
    const struct h2_field range[] = {{":method", "GET"}, {":scheme", "http"}, {":authority", "own.test"}, {":path", "/small"},
                                     {"range", "bytes=10-19"}};
    const struct h2_field condition[] = {{":method", "GET"}, {":scheme", "http"}, {":authority", "own.test"}, {":path", "/small"},
                                         {"if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT"}};
    const struct h2_field two[] = {{":method", "GET"}, {":scheme", "http"}, {":authority", "own.test"}, {":path", "/middle"},
                                   {"range", "bytes=0-9,8000-8999"}};
    start();
    int32_t part = h2_ask_with(&client, range, 5, false), kept = h2_ask_with(&client, condition, 5, false);
    int32_t parts = h2_ask_with(&client, two, 5, false);
    settle();
    CHECK(is_answered(part, 206, 10) && h2_answer(&client, part)->kept[0] == child_byte("small", 10));
    CHECK(strstr(h2_answer(&client, kept)->fields, "\nlast-modified:") != NULL || h2_answer(&client, kept)->status == 304);
    CHECK(h2_answer(&client, parts)->status == 206 && h2_answer(&client, parts)->has_ended && h2_answer(&client, parts)->body_len > 1010);
    stop();
}

static void
a_large_file_waits_for_its_window_and_others_do_not(void)
{
    start();
    int32_t big = h2_get(&client, "/big");
    settle();
    CHECK(!h2_answer(&client, big)->has_ended && h2_answer(&client, big)->body_len == 65535);
    open_windows(1, 0x10000 - 1);
    h2_answer(&client, big)->window -= 0; /* the stream that was opened is the first one */
    settle();
    CHECK(is_answered(big, 200, CHILD_BIG_BYTES));
    stop();
}

static void
a_stream_without_window_does_not_hold_up_another(void)
{
    const uint8_t settings[6] = {0, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0, 0, 0, 10};
    start();
    (void)h2_frame(&client, NGHTTP2_SETTINGS, 0, 0, settings, sizeof settings);
    client.initial_window = 10;
    int32_t big = h2_get(&client, "/big"), small = h2_get(&client, "/small");
    h2_answer(&client, small)->window += 100;
    (void)h2_number(&client, NGHTTP2_WINDOW_UPDATE, (uint32_t)small, 100);
    settle();
    CHECK(is_answered(small, 200, 60) && h2_answer(&client, big)->body_len == 10);
    stop();
}

/* ------------------------------------------------------------------ claims: programs */

static void
a_slow_program_holds_up_no_other_stream(void)
{
    start();
    int32_t slow = h2_get(&client, "/cgi/script?slow");
    settle();
    CHECK_EQ(take_job(), PC_JOB_RUN);
    CHECK(has_variable("SERVER_PROTOCOL=HTTP/2.0") && has_variable("QUERY_STRING=slow"));
    static struct program first;
    first = program;
    int32_t small = h2_get(&client, "/small"), quick = h2_get(&client, "/cgi/script?quick");
    settle();
    CHECK(is_answered(small, 200, 60));
    CHECK_EQ(take_job(), PC_JOB_RUN);
    print("Content-Type: text/plain\nX-Up: Yes\n\nquick");
    leave();
    settle();
    CHECK(is_answered(quick, 200, 5) && strstr(h2_answer(&client, quick)->fields, "\nx-up: Yes\n") != NULL);
    CHECK(!h2_answer(&client, slow)->has_head);
    program = first;
    print("Content-Length: 4\n\nsl");
    settle();
    CHECK(h2_answer(&client, slow)->body_len == 2 && !h2_answer(&client, slow)->has_ended);
    print("ow");
    leave();
    settle();
    CHECK(is_answered(slow, 200, 4));
    stop();
}

static void
a_body_goes_to_its_program(void)
{
    char body[64];
    start();
    int32_t id = h2_ask(&client, "POST", "/cgi/script", "own.test", true);
    settle();
    CHECK_EQ(take_job(), PC_JOB_RUN);
    CHECK(!has_name("CONTENT_LENGTH") && !has_name("HTTP_TRANSFER_ENCODING"));
    (void)h2_data(&client, id, "some ", 5, false);
    settle();
    CHECK(read_input(body, sizeof body) == 5 && memcmp(body, "some ", 5) == 0 && !input_has_ended());
    (void)h2_data(&client, id, "more", 4, true);
    settle();
    CHECK(read_input(body, sizeof body) == 4 && memcmp(body, "more", 4) == 0 && input_has_ended());
    print("X: y\n\nok");
    leave();
    settle();
    CHECK(is_answered(id, 200, 2) && !h2_answer(&client, id)->is_reset);
    const struct h2_field fields[] = {{":method", "PUT"}, {":scheme", "http"}, {":authority", "own.test"}, {":path", "/cgi/script"},
                                      {"content-length", "3"}, {"expect", "100-continue"}};
    id = h2_ask_with(&client, fields, 6, true);
    settle();
    CHECK_EQ(take_job(), PC_JOB_RUN);
    CHECK(has_variable("CONTENT_LENGTH=3") && h2_answer(&client, id)->interim == 1);
    (void)h2_data(&client, id, "abc", 3, true);
    settle();
    CHECK(read_input(body, sizeof body) == 3 && input_has_ended());
    print("Status: 201\n\n");
    leave();
    settle();
    CHECK(is_answered(id, 201, 0));
    stop();
}

/* Nobody reads: the stream's window stays shut, and a bounded part of the body is held. */
static void
a_program_that_does_not_read_stops_its_client(void)
{
    static char bytes[16384];
    start();
    int32_t id = h2_ask(&client, "POST", "/cgi/script", "own.test", true);
    settle();
    CHECK_EQ(take_job(), PC_JOB_RUN);
    size_t sent = 0;
    for (; sent + sizeof bytes <= 65535; sent += sizeof bytes)
        (void)h2_data(&client, id, bytes, sizeof bytes, false);
    settle();
    size_t held = 0;
    for (const struct pc_conn *conn = one.child->chunks[0]; conn < one.child->chunks[0] + PC_CONN_CHUNK; conn++)
        held += conn->is_stream ? conn->stream->in_len : 0;
    CHECK(held <= 65535);
    size_t read_so_far = 0;
    static char input[1 << 17];
    for (int i = 0; i < 20; i++)
        read_so_far += read_input(input, sizeof input);
    CHECK_EQ(read_so_far, sent);
    (void)h2_number(&client, NGHTTP2_RST_STREAM, (uint32_t)id, NGHTTP2_CANCEL);
    settle();
    CHECK_EQ(take_job(), PC_JOB_CANCEL);
    leave();
    stop();
}

static struct pc_h2 *
session(void)
{
    struct pc_conn *conn = one.child->chunks[0];
    while (conn->h2 == NULL)
        conn++;
    return conn->h2;
}

/* What was held for it is nobody's any more, and its place in the session's window is free for others. */
static void
a_program_that_answers_unread_gives_its_window_back(void)
{
    static char bytes[16384];
    start();
    int32_t id = h2_ask(&client, "POST", "/cgi/script", "own.test", true);
    settle();
    CHECK_EQ(take_job(), PC_JOB_RUN);
    for (int i = 0; i < 3; i++)
        (void)h2_data(&client, id, bytes, sizeof bytes, false);
    settle();
    print("X: y\n\nok");
    leave();
    for (int i = 0; i < 3; i++)
        (void)h2_data(&client, id, bytes, 1000, false); /* what was under way */
    settle();
    CHECK_EQ(h2_answer(&client, id)->status, 200);
    CHECK_EQ(session()->in_total, 0);
    CHECK_EQ(session()->stream_count, 0);
    stop();
}

/* Bodies of requests that wait for their turn, until the session's window is shut; then they are all reset, and nothing else comes. */
static void
a_window_that_reset_streams_have_shut_opens_again(void)
{
    static char bytes[16384];
    int32_t ids[24];
    uint64_t sent = 0;
    start();
    shut_windows();
    for (uint32_t i = 0; i < PC_H2_STALLED; i++)
        (void)h2_get(&client, "/big");
    for (size_t i = 0; i < COUNT_OF(ids); i++)
        ids[i] = h2_ask(&client, "POST", "/cgi/script", "own.test", true);
    settle();
    for (size_t i = 0; i < 3 * COUNT_OF(ids) && 65535 + client.window_given - sent >= sizeof bytes; i++) {
        (void)h2_data(&client, ids[i / 3], bytes, sizeof bytes, false);
        sent += sizeof bytes;
        settle();
    }
    uint64_t given = client.window_given;
    CHECK(session()->owed > 0 && 65535 + given - sent < sizeof bytes);
    for (size_t i = 0; i < COUNT_OF(ids); i++)
        (void)h2_number(&client, NGHTTP2_RST_STREAM, (uint32_t)ids[i], NGHTTP2_CANCEL);
    settle();
    CHECK_EQ(session()->in_total, 0);
    CHECK(client.window_given - given >= PC_H2_IN_TOTAL_BYTES / 2);
    CHECK(!client.has_goaway && !client.has_ended);
    stop();
}

static void
a_client_that_resets_ends_its_program_only(void)
{
    start();
    int32_t id = h2_get(&client, "/cgi/script");
    settle();
    CHECK_EQ(take_job(), PC_JOB_RUN);
    uint64_t job = program.job.id;
    (void)h2_number(&client, NGHTTP2_RST_STREAM, (uint32_t)id, NGHTTP2_CANCEL);
    settle();
    CHECK(take_job() == PC_JOB_CANCEL && program.job.id == job);
    leave();
    int32_t small = h2_get(&client, "/small");
    settle();
    CHECK(is_answered(small, 200, 60) && !client.has_goaway);
    stop();
}

static void
a_client_that_leaves_ends_all_of_its_programs(void)
{
    static struct program programs[3];
    start();
    for (int i = 0; i < 3; i++) {
        (void)h2_get(&client, "/cgi/script");
        settle();
        CHECK_EQ(take_job(), PC_JOB_RUN);
        programs[i] = program;
    }
    stop();
    for (int i = 0; i < 3; i++)
        CHECK_EQ(take_job(), PC_JOB_CANCEL);
    for (int i = 0; i < 3; i++) {
        program = programs[i];
        leave();
    }
}

static void
an_answer_that_breaks_off_resets_its_stream(void)
{
    start();
    int32_t id = h2_get(&client, "/cgi/script");
    settle();
    CHECK_EQ(take_job(), PC_JOB_RUN);
    print("Content-Length: 10\n\nshort");
    leave();
    settle();
    CHECK(h2_answer(&client, id)->is_reset && h2_answer(&client, id)->reset_code == NGHTTP2_INTERNAL_ERROR);
    CHECK(!client.has_goaway && !client.has_ended);
    stop();
}

/* ------------------------------------------------------------------ claims: names, heads */

static void
a_foreign_name_is_421_and_the_connection_goes_on(void)
{
    start();
    int32_t first = h2_get(&client, "/small"), foreign = h2_ask(&client, "GET", "/small", "other.test", false);
    int32_t own = h2_get(&client, "/small");
    settle();
    CHECK(h2_answer(&client, foreign)->status == 421 && h2_answer(&client, foreign)->has_ended);
    CHECK(is_answered(first, 200, 60) && is_answered(own, 200, 60) && !client.has_goaway && !client.has_ended);
    stop();
}

/* The connection was passed here for the name in its first field block, whatever becomes of that. */
static void
a_refused_first_request_leaves_no_trust_to_the_second(void)
{
    const struct h2_field bad[] = {{":method", "GET"}, {":scheme", "http"}, {":authority", "own.test"}, {":path", "/small"}, {"A", "b"}};
    start();
    (void)h2_ask_with(&client, bad, 5, false);
    int32_t foreign = h2_ask(&client, "GET", "/small", "other.test", false);
    settle();
    CHECK_EQ(h2_answer(&client, foreign)->status, 421);
    stop();
}

static void
what_h1_refuses_is_refused_here(void)
{
    static const struct { const char *method, *path, *host; uint32_t status; } rows[] = {
        {"GET", "/a#b", "own.test", 400}, {"GET", "/%zz", "own.test", 400}, {"GET", "/", "own test", 400}, {"GET", "/", "u@own.test", 400},
        {"get", "/small", "own.test", 400}, {"BREW", "/small", "own.test", 501}, {"GET", "/%2f", "own.test", 404},
        {"TRACE", "/", "own.test", 405}, {"OPTIONS", "*", "own.test", 200},
    };
    start();
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        int32_t id = h2_ask(&client, rows[i].method, rows[i].path, rows[i].host, false);
        settle();
        const struct h2_answer *answer = h2_answer(&client, id);
        bool is_refused = answer->status == rows[i].status || (answer->is_reset && rows[i].status == 400);
        CHECK_FOR(rows[i].path, is_refused);
    }
    CHECK(!client.has_goaway);
    stop();
}

static void
a_head_that_is_too_large_is_431(void)
{
    struct h2_field fields[200] = {{":method", "GET"}, {":scheme", "http"}, {":authority", "own.test"}, {":path", "/small"}};
    start();
    for (size_t i = 4; i < 200; i++)
        fields[i] = (struct h2_field){"cookie", "a=b"};
    int32_t many = h2_ask_with(&client, fields, 106, false), few = h2_ask_with(&client, fields, 90, false);
    settle();
    CHECK(h2_answer(&client, many)->status == 431 && h2_answer(&client, many)->has_ended);
    CHECK(is_answered(few, 200, 60));
    stop();
}

static void
an_upgrade_by_prior_knowledge_needs_the_host_to_allow_it(void)
{
    uint32_t before = one.child->config->hosts[0].protocols;
    start();
    one.child->config->hosts[0].protocols = PC_PROTOCOL_HTTP_1_1;
    int32_t id = h2_get(&client, "/small");
    settle();
    CHECK(h2_answer(&client, id)->is_reset && h2_answer(&client, id)->reset_code == NGHTTP2_HTTP_1_1_REQUIRED);
    one.child->has_h2c = false;
    int fd = open_client(1 << 20);
    say(fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    CHECK(heard(fd, "HTTP/1.1 505 ") && client_saw_end);
    (void)close(fd);
    one.child->config->hosts[0].protocols = before;
    one.child->has_h2c = true;
    stop();
}

static void
an_upgrade_that_is_asked_for_is_not_honoured(void)
{
    int fd = open_client(1 << 20);
    say(fd, "GET /small HTTP/1.1\r\nHost: own.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n");
    CHECK(heard(fd, "HTTP/1.1 200 OK\r\n"));
    close_client(fd);
}

/* ------------------------------------------------------------------ claims: the end */

static void
an_idle_session_is_told_and_ends(void)
{
    start();
    int32_t id = h2_get(&client, "/small");
    settle();
    CHECK(is_answered(id, 200, 60) && child_counter(&one, PC_C_PARKED) == 1);
    for (int i = 0; i < 6; i++) { /* pings make it no longer */
        pass_time(1000);
        (void)h2_frame(&client, NGHTTP2_PING, 0, 0, "12345678", 8);
        settle();
    }
    CHECK(client.has_goaway && client.goaway_code == NGHTTP2_NO_ERROR && client.goaway_id == (uint32_t)id);
    CHECK(client.has_ended && client.pings >= 4);
    stop();
}

static void
a_child_that_drains_says_so_twice_and_answers_what_it_has(void)
{
    start();
    int32_t slow = h2_get(&client, "/cgi/script");
    settle();
    CHECK_EQ(take_job(), PC_JOB_RUN);
    atomic_store(&one.child->is_draining, true);
    pc_conn_send_away(worker);
    pc_loop_settle(worker);
    settle();
    CHECK(client.has_goaway && client.goaway_id == 0x7fffffff);
    int32_t late = h2_get(&client, "/small");
    settle();
    CHECK(is_answered(late, 200, 60));
    pass_time(PC_H2_NOTICE_MS + 1);
    settle();
    CHECK(client.goaway_id == (uint32_t)late);
    int32_t lost = h2_get(&client, "/small");
    settle();
    CHECK(!h2_answer(&client, lost)->has_head && !client.has_ended);
    print("X: y\n\nslow");
    leave();
    settle();
    CHECK(is_answered(slow, 200, 4) && client.has_ended);
    stop();
    atomic_store(&one.child->is_draining, false);
}

static void
a_stream_that_takes_nothing_is_reset_after_a_while(void)
{
    start();
    shut_windows();
    int32_t big = h2_get(&client, "/big"), small = h2_get(&client, "/small");
    settle();
    CHECK(h2_answer(&client, big)->body_len == 0 && h2_answer(&client, small)->body_len == 0);
    for (int i = 0; i < 50; i++)
        pass_time(1000);
    settle();
    CHECK(h2_answer(&client, big)->is_reset && h2_answer(&client, small)->is_reset);
    stop();
}

/* As many as PC_H2_STALLED hold a response that the client does not take; programs that are slow themselves are not among them. */
static void
requests_wait_for_a_client_to_take_what_it_asked_for(void)
{
    int32_t ids[8];
    char body[64];
    start();
    shut_windows();
    for (size_t i = 0; i < 4; i++)
        ids[i] = h2_get(&client, "/cgi/script");
    settle();
    for (size_t i = 0; i < 4; i++)
        CHECK_EQ(take_job(), PC_JOB_RUN);
    for (size_t i = 0; i < 4; i++)
        ids[i] = h2_get(&client, "/big");
    ids[4] = h2_ask(&client, "POST", "/cgi/script", "own.test", true);
    (void)h2_data(&client, ids[4], "early", 5, true);
    settle();
    for (size_t i = 0; i < 4; i++)
        CHECK_EQ(h2_answer(&client, ids[i])->has_head, i < PC_H2_STALLED);
    CHECK_EQ(take_job(), 0);
    (void)h2_number(&client, NGHTTP2_RST_STREAM, (uint32_t)ids[0], NGHTTP2_CANCEL);
    (void)h2_number(&client, NGHTTP2_RST_STREAM, (uint32_t)ids[2], NGHTTP2_CANCEL); /* one that waits */
    settle();
    CHECK(!h2_answer(&client, ids[2])->has_head && h2_answer(&client, ids[3])->has_head);
    CHECK_EQ(take_job(), 0);
    open_windows(ids[1], CHILD_BIG_BYTES);
    settle();
    CHECK(is_answered(ids[1], 200, CHILD_BIG_BYTES));
    CHECK_EQ(take_job(), PC_JOB_RUN);
    CHECK(read_input(body, sizeof body) == 5 && memcmp(body, "early", 5) == 0 && input_has_ended());
    stop();
    while (take_job() != 0)
        ;
    leave();
}

/* It has taken so much that it may leave many untaken. */
static void
a_client_that_takes_its_answers_may_leave_others(void)
{
    int32_t ids[6];
    start();
    int32_t first = h2_get(&client, "/big");
    open_windows(first, 0x10000 - 1);
    settle();
    CHECK(is_answered(first, 200, CHILD_BIG_BYTES));
    shut_windows();
    for (size_t i = 0; i < COUNT_OF(ids); i++)
        ids[i] = h2_get(&client, "/big");
    settle();
    for (size_t i = 0; i < COUNT_OF(ids); i++)
        CHECK_EQ(h2_answer(&client, ids[i])->has_head, i < PC_H2_STALLED + CHILD_BIG_BYTES / PC_H2_EARN_BYTES);
    stop();
}

static void
a_request_that_waits_for_too_long_is_refused(void)
{
    start();
    shut_windows();
    int32_t first = h2_get(&client, "/big"), last = 0;
    for (uint32_t i = 0; i < 2 * PC_H2_STALLED; i++) /* as many as are in work end at the same time, and others take their places */
        last = h2_get(&client, "/big");
    settle();
    for (int i = 0; i < 21; i++) {
        pass_time(1000);
        (void)h2_frame(&client, NGHTTP2_PING, 0, 0, "12345678", 8);
        settle();
    }
    CHECK(h2_answer(&client, first)->is_reset && h2_answer(&client, first)->has_head);
    CHECK(h2_answer(&client, last)->is_reset && h2_answer(&client, last)->reset_code == NGHTTP2_REFUSED_STREAM);
    CHECK(!client.has_goaway && !client.has_ended);
    stop();
}

static void
half_a_field_block_is_not_waited_for(void)
{
    start();
    (void)h2_frame(&client, NGHTTP2_HEADERS, 0, 1, "\x82", 1);
    settle();
    for (int i = 0; i < 21; i++)
        pass_time(1000);
    settle();
    CHECK(client.has_ended);
    stop();
}

static void
streams_beyond_the_limit_are_refused(void)
{
    static struct program programs[101];
    start();
    for (int i = 0; i < 101; i++) {
        (void)h2_get(&client, "/cgi/script");
        settle();
        programs[i].job.kind = (uint8_t)take_job();
        if (programs[i].job.kind == PC_JOB_RUN)
            programs[i] = program;
    }
    CHECK(h2_answer(&client, 201)->is_reset && h2_answer(&client, 201)->reset_code == NGHTTP2_REFUSED_STREAM);
    CHECK(!client.has_goaway && programs[99].job.kind == PC_JOB_RUN && programs[100].job.kind == 0);
    stop();
    while (take_job() != 0)
        ;
    for (int i = 0; i < 100; i++) {
        program = programs[i];
        leave();
    }
}

int
main(void)
{
    set_up();
    RUN(files_are_answered_on_streams); /* opens the roots, for good */
    int before = fcntl(0, F_DUPFD_CLOEXEC, 3);
    child_must(before >= 0 && close(before) == 0, "descriptors");
    RUN(ranges_and_conditions_hold_on_streams);
    RUN(a_large_file_waits_for_its_window_and_others_do_not);
    RUN(a_stream_without_window_does_not_hold_up_another);
    RUN(a_slow_program_holds_up_no_other_stream);
    RUN(a_body_goes_to_its_program);
    RUN(a_program_that_does_not_read_stops_its_client);
    RUN(a_program_that_answers_unread_gives_its_window_back);
    RUN(a_window_that_reset_streams_have_shut_opens_again);
    RUN(a_client_that_resets_ends_its_program_only);
    RUN(a_client_that_leaves_ends_all_of_its_programs);
    RUN(an_answer_that_breaks_off_resets_its_stream);
    RUN(a_foreign_name_is_421_and_the_connection_goes_on);
    RUN(a_refused_first_request_leaves_no_trust_to_the_second);
    RUN(what_h1_refuses_is_refused_here);
    RUN(a_head_that_is_too_large_is_431);
    RUN(an_upgrade_by_prior_knowledge_needs_the_host_to_allow_it);
    RUN(an_upgrade_that_is_asked_for_is_not_honoured);
    RUN(an_idle_session_is_told_and_ends);
    RUN(a_child_that_drains_says_so_twice_and_answers_what_it_has);
    RUN(a_stream_that_takes_nothing_is_reset_after_a_while);
    RUN(requests_wait_for_a_client_to_take_what_it_asked_for);
    RUN(a_client_that_takes_its_answers_may_leave_others);
    RUN(a_request_that_waits_for_too_long_is_refused);
    RUN(half_a_field_block_is_not_waited_for);
    RUN(streams_beyond_the_limit_are_refused);
    int after = fcntl(0, F_DUPFD_CLOEXEC, 3);
    CHECK_EQ(after, before);
    (void)close(after);
    tear_down();
    return check_end();
}
