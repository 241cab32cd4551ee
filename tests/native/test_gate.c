/* test_gate.c - claims about gate.c and gate_cgi.c: the test is client, runner and program at once, so every order of events is its own.
 * Runs as:  the developer.   Sees: a directory of its own under /tmp.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c map.c mime.c page.c peek.c record.c regex.c request.c respond.c route.c serve.c settings.c tlv.c */
/* sources: transport.c uri.c util.c why.c wild.c gate.c gate_answer.c trailer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c dial.c kept.c knock.c target.c gate_http.c h1out.c proxy.c remoteip.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c hello.c phpini.c */
/* flags: -D_GNU_SOURCE */
/* sources: tls.c tls_ctx.c pem.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* libs: -lpcre2-8 -lssl -lcrypto */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* libs: -lnghttp2 */
#include "loop.c" /* for handle_event */

#include "gate_case.h"

#define ROUNDS 200000

/* ------------------------------------------------------------------ claims: the request */

static void
the_job_says_what_the_request_was(void)
{
    int fd = open_client(1 << 20);
    say(fd, "GET /cgi/script/a/b%20c?x=1&y=2 HTTP/1.1\r\nHost: own.test\r\nX-One: eins\r\nX_Two: zwei\r\nProxy: evil\r\n"
            "Authorization: Basic eA==\r\n\r\n");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    char path[128];
    (void)snprintf(path, sizeof path, "%s/cgi/script", one.directory);
    CHECK(program.job.path_len == strlen(path) && memcmp(program.text, path, strlen(path)) == 0);
    CHECK(program.job.cwd_len == strlen(path) - 7 && memcmp(program.text + program.job.path_len, path, strlen(path) - 7) == 0);
    CHECK_EQ(program.job.arg_len, 0);
    CHECK_EQ(program.job.id >> 32, getpid());
    CHECK(has_variable("GATEWAY_INTERFACE=CGI/1.1") && has_variable("REQUEST_METHOD=GET") && has_variable("QUERY_STRING=x=1&y=2"));
    CHECK(has_variable("SCRIPT_NAME=/cgi/script") && has_variable("PATH_INFO=/a/b c") && has_variable("HTTP_X_ONE=eins"));
    CHECK(!has_name("HTTP_X_TWO") && !has_name("HTTP_PROXY") && !has_name("HTTP_AUTHORIZATION") && !has_name("CONTENT_LENGTH"));
    CHECK(input_has_ended());
    print("Content-Type: text/plain\n\nhello");
    leave();
    CHECK(heard(fd, "HTTP/1.1 200 OK\r\n") && heard(fd, "\r\nContent-Type: text/plain\r\n") && heard(fd, "hello"));
    close_client(fd);
}

static void
a_short_answer_of_a_program_that_has_ended_keeps_the_connection(void)
{
    int fd = open_client(1 << 20);
    for (int i = 0; i < 3; i++) {
        out_len = 0;
        say(fd, "POST /cgi/script HTTP/1.1\r\nHost: own.test\r\nContent-Length: 4\r\n\r\nbody");
        char body[16];
        CHECK_EQ(take_job(), PC_JOB_RUN);
        CHECK(has_variable("CONTENT_LENGTH=4"));
        CHECK(read_input(body, sizeof body) == 4 && memcmp(body, "body", 4) == 0 && input_has_ended());
        print("Status: 201 Made\r\nX-It: yes\r\n\r\nmade");
        leave();
        CHECK(heard(fd, "HTTP/1.1 201 Made\r\n") && heard(fd, "X-It: yes\r\n"));
        CHECK(heard(fd, "Transfer-Encoding: chunked\r\n\r\n4\r\nmade\r\n0\r\n\r\n") && !client_saw_end);
    }
    close_client(fd);
}

static void
requests_behind_a_program_wait_for_it_and_are_answered(void)
{
    int fd = open_client(1 << 20);
    say(fd, "POST /cgi/script HTTP/1.1\r\nHost: own.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
            "GET /small HTTP/1.1\r\nHost: own.test\r\n\r\nGET /cgi/script?two HTTP/1.1\r\nHost: own.test\r\n\r\n");
    char body[16];
    CHECK_EQ(take_job(), PC_JOB_RUN);
    CHECK(!has_name("CONTENT_LENGTH") && read_input(body, sizeof body) == 5 && memcmp(body, "abcde", 5) == 0 && input_has_ended());
    receive(fd);
    CHECK_EQ(out_len, 0);
    print("Content-Length: 2\n\nok");
    leave();
    CHECK(heard(fd, "Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n"));
    CHECK(heard(fd, "Content-Length: 60\r\n"));
    CHECK_EQ(take_job(), PC_JOB_RUN);
    CHECK(has_variable("QUERY_STRING=two"));
    print("Status: 404\n\nno");
    leave();
    CHECK(heard(fd, "HTTP/1.1 404 Not Found\r\n"));
    close_client(fd);
}

static void
body_and_answer_go_at_the_same_time(void)
{
    enum { BYTES = 10 << 20 };
    static char piece[8192], echo[1 << 16];
    char head[128];
    size_t sent = 0, taken = 0, written = 0;
    int fd = open_client(4608);
    for (size_t i = 0; i < sizeof piece; i++)
        piece[i] = (char)('a' + i % 23);
    (void)snprintf(head, sizeof head, "PUT /cgi/script HTTP/1.1\r\nHost: own.test\r\nContent-Length: %d\r\n\r\n", BYTES);
    say(fd, head);
    CHECK_EQ(take_job(), PC_JOB_RUN);
    CHECK(fcntl(program.fds[1], F_SETFL, O_NONBLOCK) == 0);
    print("Content-Type: application/octet-stream\n\n");
    for (int round = 0; round < ROUNDS && (sent < BYTES || taken < BYTES || written < taken); round++) {
        size_t want = BYTES - sent < sizeof piece ? BYTES - sent : sizeof piece;
        ssize_t count = want > 0 ? send(fd, piece, want, MSG_NOSIGNAL) : 0;
        sent += count > 0 ? (size_t)count : 0;
        drive();
        if (written == taken) { /* a copying program: reads, then writes it all */
            written = 0;
            taken = 0;
        }
        size_t got = taken == 0 ? read_input(echo, sizeof echo) : 0;
        taken += got;
        count = written < taken ? write(program.fds[1], echo + written, taken - written) : 0;
        written += count > 0 ? (size_t)count : 0;
        receive(fd);
        if (sent == BYTES && got == 0 && written == taken && input_has_ended())
            break;
    }
    CHECK_EQ(sent, BYTES);
    leave();
    CHECK(heard(fd, "0\r\n\r\n"));
    CHECK(out_len > BYTES && !client_saw_end);
    close_client(fd);
}

static void
a_client_is_asked_for_its_body_only_if_a_program_wants_it(void)
{
    int fd = open_client(1 << 20);
    say(fd, "POST /cgi/script HTTP/1.1\r\nHost: own.test\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    CHECK(heard(fd, "HTTP/1.1 100 Continue\r\n\r\n"));
    say(fd, "ok");
    print("Status: 200\n\n");
    leave();
    CHECK(heard(fd, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n") && !client_saw_end);
    out_len = 0;
    say(fd, "POST /small HTTP/1.1\r\nHost: own.test\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    CHECK(heard(fd, "HTTP/1.1 200 OK\r\n") && heard(fd, "Connection: close\r\n") && strstr(out, "100 Continue") == NULL);
    close_client(fd);
}

static void
a_body_for_a_file_is_skipped_on_a_host_with_programs(void)
{
    int fd = open_client(1 << 20);
    say(fd, "POST /small HTTP/1.1\r\nHost: own.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab");
    receive(fd);
    CHECK_EQ(out_len, 0);
    say(fd, "cde\r\n0\r\n\r\nGET /nothing HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK(heard(fd, "HTTP/1.1 200 OK\r\n") && heard(fd, "HTTP/1.1 404 Not Found\r\n") && !client_saw_end);
    out_len = 0;
    say(fd, "POST /small HTTP/1.1\r\nHost: own.test\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n");
    CHECK(heard(fd, "HTTP/1.1 400 Bad Request\r\n") && client_saw_end);
    close_client(fd);
}

static void
a_broken_chunk_ends_program_and_request(void)
{
    int fd = open_client(1 << 20);
    say(fd, "POST /cgi/script HTTP/1.1\r\nHost: own.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    uint64_t id = program.job.id;
    say(fd, "zz\r\n");
    CHECK(heard(fd, "HTTP/1.1 400 Bad Request\r\n") && client_saw_end && !input_has_ended());
    CHECK_EQ(take_job(), PC_JOB_CANCEL);
    CHECK_EQ(program.job.id, id);
    leave();
    close_client(fd);
}

/* ------------------------------------------------------------------ claims: the answer */

struct answer {
    const char *said, *start, *holds, *lacks; /* the response begins with, holds, does not hold */
};

static void
answers_become_responses(void)
{
    static const struct answer answers[] = {
        {"Location: http://x.test/y\n\n", "HTTP/1.1 302 Found\r\n", "\r\nLocation: http://x.test/y\r\n", NULL},
        {"Status: 303 Elsewhere\nLocation: /z\n\nsee", "HTTP/1.1 303 Elsewhere\r\n", "\r\nLocation: /z\r\n", NULL},
        {"Content-Type: text/html\nSet-Cookie: a=1\nSet-Cookie: b=2\n\n", "HTTP/1.1 200 OK\r\n", "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n",
         NULL},
        {"Status: 204\n\nnobody hears", "HTTP/1.1 204 No Content\r\n", "\r\n\r\n", "nobody"},
        {"Server: mine\nDate: never\nConnection: close\nTransfer-Encoding: chunked\nX: 1\n\n", "HTTP/1.1 200 OK\r\n", "X: 1\r\n", "mine"},
        {"Content-Length: 3\n\nabcdef", "HTTP/1.1 200 OK\r\n", "Content-Length: 3\r\n\r\nabc", "def"},
        {"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\nETag: \"e\"\n\nx", "HTTP/1.1 304 Not Modified\r\n", "ETag: \"e\"\r\n", "\r\nx\r\n"},
        {"X-A: b\r\nno colon\r\n\r\n", "HTTP/1.1 500 ", "", "X-A"},
        {"X-A: b\rX-B: c\n\n", "HTTP/1.1 500 ", "", "X-B"},
        {"Status: 200\nStatus: 500\n\n", "HTTP/1.1 500 ", "", NULL},
        {"Status: 100\n\n", "HTTP/1.1 500 ", "", NULL},
        {"X-Half: head\n", "HTTP/1.1 500 ", "", "X-Half"},
        {"", "HTTP/1.1 500 ", "", NULL},
    };
    for (size_t i = 0; i < COUNT_OF(answers); i++) {
        int fd = open_client(1 << 20);
        clear_log();
        say(fd, "GET /cgi/script HTTP/1.1\r\nHost: own.test\r\nIf-None-Match: \"e\"\r\n\r\n");
        CHECK_EQ(take_job(), PC_JOB_RUN);
        print(answers[i].said);
        leave();
        receive(fd);
        CHECK_FOR(answers[i].said, strncmp(out, answers[i].start, strlen(answers[i].start)) == 0);
        CHECK_FOR(answers[i].said, strstr(out, answers[i].holds) != NULL);
        CHECK_FOR(answers[i].said, answers[i].lacks == NULL || strstr(out, answers[i].lacks) == NULL);
        CHECK_FOR(answers[i].said, !client_saw_end);
        close_client(fd);
        while (take_job() != 0)
            ; /* CANCEL of those whose heads broke a rule before they had ended */
    }
}

static void
a_program_that_ends_early_is_named_in_the_log(void)
{
    int fd = open_client(1 << 20);
    clear_log();
    say(fd, "GET /cgi/script HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    child_must(write(program.fds[2], "Traceback\nlast words", 20) == 20, "its error output");
    leave();
    CHECK(heard(fd, "HTTP/1.1 500 ") && log_says("End of script output before headers: script"));
    CHECK(log_says("AH01215: stderr from ") && log_says("/cgi/script: Traceback\n") && log_says("/cgi/script: last words\n"));
    close_client(fd);
}

static void
a_flood_of_error_output_is_read_to_its_end_and_logged_to_its_limit(void)
{
    static char flood[4096];
    int fd = open_client(1 << 20);
    clear_log();
    say(fd, "GET /cgi/script HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    memset(flood, 'x', sizeof flood);
    flood[sizeof flood - 1] = '\n';
    for (int i = 0; i < 1000; i++) { /* 4 MB through a pipe of 64 KB: it never blocks */
        struct pollfd state = {.fd = program.fds[2], .events = POLLOUT};
        CHECK(poll(&state, 1, 0) == 1);
        child_must(write(program.fds[2], flood, sizeof flood) == sizeof flood, "its error output");
        drive();
    }
    print("X: y\n\nfine");
    leave();
    CHECK(heard(fd, "fine"));
    CHECK_EQ(lines_in_log("the rest is not logged"), 1);
    CHECK_EQ(lines_in_log("AH01215"), PC_MAX_STDERR_BYTES / 2048 - 1);
    clear_log();
    close_client(fd);
}

static void
a_local_redirect_is_served_instead(void)
{
    int fd = open_client(1 << 20);
    say(fd, "POST /cgi/script HTTP/1.1\r\nHost: own.test\r\nContent-Length: 1\r\n\r\nx");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    print("Location: /small\n\n");
    leave();
    CHECK(heard(fd, "HTTP/1.1 200 OK\r\n") && heard(fd, "Content-Length: 60\r\n") && !client_saw_end);
    out_len = 0;
    say(fd, "POST /cgi/script?a HTTP/1.1\r\nHost: own.test\r\nContent-Length: 1\r\n\r\nx");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    print("Location: /cgi/script?b\n\n");
    leave();
    CHECK_EQ(take_job(), PC_JOB_RUN);
    CHECK(has_variable("REQUEST_METHOD=GET") && has_variable("QUERY_STRING=b") && has_variable("REDIRECT_URL=/cgi/script"));
    CHECK(has_variable("REDIRECT_QUERY_STRING=a") && has_variable("REDIRECT_STATUS=200") && !has_name("CONTENT_LENGTH"));
    CHECK(input_has_ended());
    print("X: there\n\n");
    leave();
    CHECK(heard(fd, "X: there\r\n"));
    close_client(fd);
}

static void
local_redirects_that_never_end_are_ended(void)
{
    int fd = open_client(1 << 20), runs = 0;
    say(fd, "GET /cgi/script HTTP/1.1\r\nHost: own.test\r\n\r\n");
    for (; take_job() == PC_JOB_RUN; runs++) {
        print("Location: /cgi/script\n\n");
        leave();
    }
    CHECK_EQ(runs, PC_MAX_INTERNAL_REDIRECTS + 1);
    CHECK(heard(fd, "HTTP/1.1 500 "));
    close_client(fd);
}

static void
head_is_answered_at_once_and_the_program_is_heard_out(void)
{
    static char body[200000];
    int fd = open_client(1 << 20);
    size_t written = 0;
    memset(body, 'b', sizeof body);
    say(fd, "HEAD /cgi/script HTTP/1.1\r\nHost: own.test\r\n\r\nGET /small HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    CHECK(has_variable("REQUEST_METHOD=HEAD") && fcntl(program.fds[1], F_SETFL, O_NONBLOCK) == 0);
    print("Content-Length: 200000\n\n");
    drive();
    CHECK(heard(fd, "Content-Length: 200000\r\n\r\n") && strstr(out, "Content-Length: 60") == NULL);
    while (written < sizeof body) {
        ssize_t count = write(program.fds[1], body + written, sizeof body - written);
        written += count > 0 ? (size_t)count : 0;
        drive();
    }
    leave();
    CHECK(heard(fd, "\r\n\r\nHTTP/1.1 200 OK\r\n") && heard(fd, "Content-Length: 60\r\n"));
    close_client(fd);
}

static void
an_nph_script_says_its_own_status_and_the_connection_ends(void)
{
    int fd = open_client(1 << 20);
    say(fd, "GET /cgi/nph-script HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    print("HTTP/1.1 418 Teapot\nX: short\n\nstout");
    leave();
    CHECK(heard(fd, "HTTP/1.1 418 Teapot\r\n") && heard(fd, "X: short\r\n") && heard(fd, "Connection: close\r\n") && heard(fd, "stout"));
    CHECK(client_saw_end);
    close_client(fd);
}

static void
an_answer_shorter_than_it_promised_is_cut(void)
{
    int fd = open_client(1 << 20);
    clear_log();
    say(fd, "GET /cgi/script HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    print("Content-Length: 10\n\nabc");
    leave();
    CHECK(heard(fd, "abc") && client_saw_end && log_says("the answer ended before its Content-Length"));
    CHECK_EQ(lines_in_log("the answer ended"), 1);
    close_client(fd);
}

/* ------------------------------------------------------------------ claims: time, and clients that leave */

static void
a_silent_program_is_504_and_cancelled(void)
{
    int fd = open_client(1 << 20);
    clear_log();
    say(fd, "GET /cgi/script HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    uint64_t id = program.job.id;
    pass_time(19000);
    receive(fd);
    CHECK_EQ(out_len, 0);
    pass_time(2000);
    CHECK(heard(fd, "HTTP/1.1 504 Gateway Timeout\r\n") && log_says("AH01220: Timeout waiting for output"));
    CHECK(take_job() == PC_JOB_CANCEL && program.job.id == id);
    leave();
    close_client(fd);
}

static void
a_program_that_never_reads_is_504_and_one_that_stalls_is_cut(void)
{
    static char body[300000];
    int fd = open_client(1 << 20);
    say(fd, "POST /cgi/script HTTP/1.1\r\nHost: own.test\r\nContent-Length: 300000\r\n\r\n");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    memset(body, 'b', sizeof body);
    while (send(fd, body, 10000, MSG_NOSIGNAL) > 0)
        drive();
    for (int i = 0; i < 10; i++) { /* it is not the client's doing: RequestReadTimeout does not count */
        pass_time(1900);
        receive(fd);
        CHECK_EQ(out_len, 0);
    }
    pass_time(3000);
    CHECK(heard(fd, "HTTP/1.1 504 Gateway Timeout\r\n"));
    CHECK_EQ(take_job(), PC_JOB_CANCEL);
    leave();
    close_client(fd);
    fd = open_client(1 << 20);
    say(fd, "GET /cgi/script HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    print("X: y\n\nsome");
    CHECK(heard(fd, "some"));
    pass_time(19000);
    CHECK_EQ(take_job(), 0);
    pass_time(2000);
    receive(fd);
    CHECK(client_saw_end && take_job() == PC_JOB_CANCEL);
    leave();
    close_client(fd);
}

static void
a_client_that_does_not_send_its_body_is_408(void)
{
    int fd = open_client(1 << 20);
    say(fd, "POST /cgi/script HTTP/1.1\r\nHost: own.test\r\nContent-Length: 10\r\n\r\nabc");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    pass_time(21000);
    CHECK(heard(fd, "HTTP/1.1 408 Request Timeout\r\n") && take_job() == PC_JOB_CANCEL);
    leave();
    close_client(fd);
}

static void
a_client_that_leaves_ends_its_program(void)
{
    for (int when = 0; when < 3; when++) {
        int fd = open_client(1 << 20);
        say(fd, when == 1 ? "POST /cgi/script HTTP/1.1\r\nHost: own.test\r\nContent-Length: 10\r\n\r\nabc"
                          : "GET /cgi/script HTTP/1.1\r\nHost: own.test\r\n\r\n");
        CHECK_EQ(take_job(), PC_JOB_RUN);
        uint64_t id = program.job.id;
        if (when == 2) {
            print("X: y\n\nsome");
            drive();
        }
        child_must(close(fd) == 0, "close"); /* of a Unix socket: both directions at once, as a reset */
        drive();
        CHECK(take_job() == PC_JOB_CANCEL && program.job.id == id);
        CHECK_EQ(atomic_load(&one.child->open_count), 0);
        leave();
    }
}

static void
a_client_that_has_finished_sending_still_gets_its_answer(void)
{
    int fd = open_client(1 << 20);
    say(fd, "GET /cgi/script HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    child_must(shutdown(fd, SHUT_WR) == 0, "shutdown");
    CHECK(heard(fd, "HTTP/1.1 100 Continue\r\n\r\n"));
    CHECK_EQ(take_job(), 0);
    print("X: y\n\nanswer");
    leave();
    CHECK(heard(fd, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n") && heard(fd, "answer"));
    close_client(fd);
}

static void
half_a_body_is_never_a_whole_one_to_the_program(void)
{
    int fd = open_client(1 << 20);
    say(fd, "POST /cgi/script HTTP/1.1\r\nHost: own.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    child_must(shutdown(fd, SHUT_WR) == 0, "shutdown");
    drive();
    CHECK_EQ(take_job(), PC_JOB_CANCEL); /* sent before its input ends, on the same box as what follows */
    leave();
    close_client(fd);
}

static void
a_full_job_box_is_tried_again_and_then_503(void)
{
    static const char junk[4096];
    int sent = 0, fd;
    while (send(one.child->job_fd, junk, sizeof junk, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        sent++;
    child_must(sent > 0, "a full box");
    fd = open_client(1 << 20);
    say(fd, "GET /cgi/script HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK_EQ(atomic_load(&one.child->job_waiting), 1);
    pass_time(PC_RETRY_MS);
    CHECK_EQ(atomic_load(&one.child->job_waiting), 1);
    for (char buf[sizeof junk]; sent > 0; sent--)
        child_must(recv(box, buf, sizeof buf, MSG_DONTWAIT) > 0, "recv");
    pass_time(PC_RETRY_MS);
    CHECK_EQ(atomic_load(&one.child->job_waiting), 0);
    CHECK_EQ(take_job(), PC_JOB_RUN);
    print("X: y\n\nlate");
    leave();
    CHECK(heard(fd, "late"));
    out_len = 0;
    while (send(one.child->job_fd, junk, sizeof junk, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        sent++;
    say(fd, "GET /cgi/script HTTP/1.1\r\nHost: own.test\r\n\r\n");
    pass_time(PC_WAITING_MS);
    CHECK(heard(fd, "HTTP/1.1 503 ") && heard(fd, "Retry-After: 1\r\n"));
    for (char buf[sizeof junk]; sent > 0; sent--)
        child_must(recv(box, buf, sizeof buf, MSG_DONTWAIT) > 0, "recv");
    CHECK_EQ(take_job(), 0);
    close_client(fd);
}

static void
a_cancellation_waits_for_room_in_the_box(void)
{
    static const char junk[4096];
    int sent = 0, fd = open_client(1 << 20);
    say(fd, "GET /cgi/script HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    uint64_t id = program.job.id;
    while (send(one.child->job_fd, junk, sizeof junk, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        sent++;
    close_client(fd);
    CHECK_EQ(atomic_load(&one.child->job_waiting), 1);
    for (char buf[sizeof junk]; sent > 0; sent--)
        child_must(recv(box, buf, sizeof buf, MSG_DONTWAIT) > 0, "recv");
    pass_time(PC_RETRY_MS);
    CHECK(take_job() == PC_JOB_CANCEL && program.job.id == id);
    CHECK_EQ(atomic_load(&one.child->job_waiting), 0);
    leave();
}

static void
what_is_no_script_is_not_run(void)
{
    int fd = open_client(1 << 20);
    clear_log();
    say(fd, "GET /small HTTP/1.1\r\nHost: own.test\r\n\r\n");
    say(fd, "GET /cgi/none HTTP/1.1\r\nHost: own.test\r\n\r\nGET /cgi/ HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK(heard(fd, "HTTP/1.1 404 ") && heard(fd, "HTTP/1.1 403 "));
    CHECK(log_says("AH02811: script not found or unable to stat: ") && log_says("AH02812: attempt to invoke directory as script: "));
    CHECK_EQ(take_job(), 0);
    close_client(fd);
}

static void
an_endless_answer_that_nobody_hears_ends_at_the_timeout(void)
{
    static char body[30000];
    int fd = open_client(1 << 20);
    say(fd, "HEAD /cgi/script HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    uint64_t id = program.job.id;
    CHECK(fcntl(program.fds[1], F_SETFL, O_NONBLOCK) == 0);
    print("X: y\n\n");
    CHECK(heard(fd, "X: y\r\n"));
    for (int i = 0; i < 30 && atomic_load(&one.child->open_count) > 0; i++) {
        (void)!write(program.fds[1], body, sizeof body);
        drive();
        pass_time(1000);
    }
    CHECK(take_job() == PC_JOB_CANCEL && program.job.id == id);
    close_client(fd);
    leave();
}

static void
interim_heads_of_a_program_are_counted(void)
{
    static const char one_head[] = "HTTP/1.1 103 Early\r\n\r\n";
    static char heads[40000];
    int fd = open_client(1 << 20);
    size_t used = 0;
    clear_log();
    while (used + sizeof one_head < sizeof heads)
        used += (size_t)snprintf(heads + used, sizeof heads - used, "%s", one_head);
    say(fd, "GET /cgi/nph-script HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    print(heads);
    CHECK(heard(fd, "HTTP/1.1 500 ") && log_says("interim"));
    leave();
    close_client(fd);
    CHECK_EQ(take_job(), PC_JOB_CANCEL);
}

static void
an_nph_script_cannot_change_the_protocol(void)
{
    int fd = open_client(1 << 20);
    say(fd, "GET /cgi/nph-script HTTP/1.1\r\nHost: own.test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    CHECK_EQ(take_job(), PC_JOB_RUN);
    print("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nbytes");
    CHECK(heard(fd, "HTTP/1.1 500 "));
    leave();
    close_client(fd);
    CHECK_EQ(take_job(), PC_JOB_CANCEL);
}

/* An event that comes while somebody looks at a connection for another reason: whoever goes on must read. */
static void
an_event_of_the_client_is_not_lost_behind_a_late_one(void)
{
    int fd = open_client(1 << 20);
    say(fd, "GET /small HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK(heard(fd, "HTTP/1.1 200 "));
    uint64_t token = 0;
    struct pc_conn *conn = NULL;
    for (uint32_t i = 0; conn == NULL && i < PC_CONN_CHUNK; i++)
        if (one.child->chunks[0][i].fd >= 0)
            conn = &one.child->chunks[0][i];
    child_must(conn != NULL, "the connection");
    conn->was_drained = true;
    token = atomic_load(&conn->word) >> 2 << 32 | conn->index;
    CHECK(pc_conn_claim(one.child, token) == conn); /* a leader, for a late event of a gate */
    CHECK(pc_conn_claim(one.child, token) == NULL); /* another, for the client's */
    CHECK(!pc_conn_release(conn) && !conn->was_drained && conn->saw_end);
    conn->saw_end = false;
    CHECK(pc_conn_release(conn));
    close_client(fd);
}

int
main(void)
{
    int before, after;
    set_up();
    RUN(what_is_no_script_is_not_run); /* opens the roots, for good */
    before = fcntl(0, F_DUPFD_CLOEXEC, 3);
    child_must(before >= 0 && close(before) == 0, "descriptors");
    RUN(the_job_says_what_the_request_was);
    RUN(a_short_answer_of_a_program_that_has_ended_keeps_the_connection);
    RUN(requests_behind_a_program_wait_for_it_and_are_answered);
    RUN(body_and_answer_go_at_the_same_time);
    RUN(a_client_is_asked_for_its_body_only_if_a_program_wants_it);
    RUN(a_body_for_a_file_is_skipped_on_a_host_with_programs);
    RUN(a_broken_chunk_ends_program_and_request);
    RUN(answers_become_responses);
    RUN(a_program_that_ends_early_is_named_in_the_log);
    RUN(a_flood_of_error_output_is_read_to_its_end_and_logged_to_its_limit);
    RUN(a_local_redirect_is_served_instead);
    RUN(local_redirects_that_never_end_are_ended);
    RUN(head_is_answered_at_once_and_the_program_is_heard_out);
    RUN(an_nph_script_says_its_own_status_and_the_connection_ends);
    RUN(an_answer_shorter_than_it_promised_is_cut);
    RUN(a_silent_program_is_504_and_cancelled);
    RUN(a_program_that_never_reads_is_504_and_one_that_stalls_is_cut);
    RUN(a_client_that_does_not_send_its_body_is_408);
    RUN(a_client_that_leaves_ends_its_program);
    RUN(a_client_that_has_finished_sending_still_gets_its_answer);
    RUN(half_a_body_is_never_a_whole_one_to_the_program);
    RUN(a_full_job_box_is_tried_again_and_then_503);
    RUN(a_cancellation_waits_for_room_in_the_box);
    RUN(an_endless_answer_that_nobody_hears_ends_at_the_timeout);
    RUN(interim_heads_of_a_program_are_counted);
    RUN(an_nph_script_cannot_change_the_protocol);
    RUN(an_event_of_the_client_is_not_lost_behind_a_late_one);
    after = fcntl(0, F_DUPFD_CLOEXEC, 3);
    CHECK_EQ(after, before);
    (void)close(after);
    tear_down();
    return check_end();
}
