/* test_gate_fcgi.c - claims about gate_fcgi.c, dial.c, kept.c and knock.c: the test is client, runner and responder at once, so every order of events
 * is its own, and no time passes but the test's.
 * Runs as:  the developer.   Sees: a directory of its own under /tmp.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c map.c mime.c page.c peek.c record.c regex.c request.c remoteip.c respond.c route.c serve.c settings.c tlv.c */
/* sources: transport.c uri.c util.c why.c wild.c gate.c gate_answer.c trailer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c dial.c kept.c knock.c target.c gate_http.c h1out.c proxy.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c hello.c phpini.c */
/* flags: -D_GNU_SOURCE */
/* sources: tls.c tls_ctx.c pem.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* libs: -lpcre2-8 -lssl -lcrypto */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* libs: -lnghttp2 */
#include "loop.c" /* for handle_event */

#include <sys/resource.h>

#include "back_case.h"

#define ANSWER "Content-Type: text/plain\nContent-Length: 6\n\nanswer"

/* ------------------------------------------------------------------ the responder */

static size_t
put_record(char *to, enum pc_fcgi_type type, const char *content, size_t len)
{
    size_t padding = pc_fcgi_head(to, type, 1, len);
    memcpy(to + PC_FCGI_HEAD_BYTES, content, len);
    memset(to + PC_FCGI_HEAD_BYTES + len, 0, padding);
    return PC_FCGI_HEAD_BYTES + len + padding;
}

/* `text` on standard output, and the end, in pieces of `piece` bytes. */
static void
answer(int fd, const char *text, size_t piece)
{
    static const char end[8];
    char bytes[4096];
    size_t len = put_record(bytes, PC_FCGI_STDOUT, text, strlen(text));
    len += put_record(bytes + len, PC_FCGI_END_REQUEST, end, sizeof end);
    for (size_t at = 0; at < len; at += piece) {
        size_t now = piece < len - at ? piece : len - at;
        bool is_sent = send(fd, bytes + at, now, MSG_NOSIGNAL) == (ssize_t)now;
        child_must(is_sent || errno == EPIPE, "send"); /* it hangs up when as many bytes as were promised are there */
        drive();
    }
    child_must(close(fd) == 0, "close");
    drive();
}

/* ------------------------------------------------------------------ claims */

static void
an_answer_in_single_bytes_comes_whole(void)
{
    int listener = open_listener("app.sock", 8);
    int fd = ask("/app/x.php/more?a");
    int back = take_connection(listener);
    CHECK(back >= 0 && asked_for(back, "/srv/x.php") && asked_for(back, "PATH_INFO/more"));
    CHECK(!asked_for(back, "PHP_ADMIN_VALUE") && !asked_for(back, "PHP_VALUE")); /* SetEnv: php_admin_value alone makes them */
    answer(back, ANSWER, 1);
    CHECK(heard(fd, "HTTP/1.1 200 OK\r\n") && heard(fd, "answer"));
    close_client(fd);
    close_listener(listener, "app.sock");
}

/* Say how many workers the responder of app.sock has. */
static struct pc_backend *
share_app(uint32_t workers)
{
    char text[160];
    struct pc_target target;
    struct pc_backend *backend = NULL;
    int len = snprintf(text, sizeof text, "unix:%s/app.sock|fcgi://localhost/srv/", one.directory);
    child_must(pc_target_parse((struct pc_slice){text, (size_t)len}, &target) == 0, "pc_target_parse");
    child_must(pc_backend_find(one.child, &target, PC_BACKEND_FCGI, 0, false, &backend) == 0, "pc_backend_find");
    pc_backend_share(backend, workers);
    return backend;
}

/* Whether, `ms` later, a connection comes that ends without a word. */
static bool
is_knocked_at(int listener, uint64_t *now_ns, uint64_t ms)
{
    char byte;
    *now_ns += ms * MS;
    pc_knock(one.child, *now_ns);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    bool is_ended = fd >= 0 && recv(fd, &byte, 1, 0) == 0;
    child_must(fd < 0 || close(fd) == 0, "close");
    return is_ended;
}

static void
who_takes_no_byte_of_a_request_is_knocked_at(void)
{
    char request[4096];
    (void)share_app(2);
    int listener = open_listener("app.sock", 8), fd = ask("/app/x.php"), back = take_connection(listener);
    uint64_t now_ns = pc_now_ns();
    CHECK_EQ(atomic_load(&one.child->backends.untaken_count), 1);
    CHECK(is_knocked_at(listener, &now_ns, PC_KNOCK_MS));
    CHECK(!is_knocked_at(listener, &now_ns, PC_KNOCK_MS) && is_knocked_at(listener, &now_ns, PC_KNOCK_MS));
    CHECK(recv(back, request, sizeof request, 0) > 0);
    CHECK(!is_knocked_at(listener, &now_ns, 1000));
    CHECK_EQ(atomic_load(&one.child->backends.untaken_count), 0);
    answer(back, ANSWER, sizeof request);
    CHECK(heard(fd, "answer"));
    close_client(fd);
    close_listener(listener, "app.sock");
    (void)share_app(0);
}

/* A thread may be kept from its processor between connecting and sending: nothing is unread then, and nothing is read. */
static void
who_was_connected_to_long_before_it_was_asked_is_knocked_at(void)
{
    int listener = open_listener("app.sock", 8);
    struct pc_conn conn = {.index = PC_MAX_CONNECTIONS - 1, .fd = -1};
    struct pc_gate gate = {.child = one.child, .conn = &conn};
    struct pc_dial dial = {.backend = share_app(2)};
    CHECK_EQ(pc_dial_begin(&dial, &gate, true), 0);
    int back = take_connection(listener);
    uint64_t now_ns = pc_now_ns();
    CHECK(back >= 0 && !is_knocked_at(listener, &now_ns, PC_KNOCK_MS));
    CHECK_EQ(pc_dial_send(&dial, &gate, "request", 7), 7);
    CHECK_EQ(atomic_load(&one.child->backends.untaken_count), 1);
    CHECK(is_knocked_at(listener, &now_ns, 2 * PC_KNOCK_MS));
    pc_dial_end(&dial);
    CHECK_EQ(atomic_load(&one.child->backends.untaken_count), 0);
    child_must(close(back) == 0, "close");
    close_listener(listener, "app.sock");
    (void)share_app(0);
}

static void
requests_beyond_the_workers_wait_without_knocking(void)
{
    (void)share_app(1);
    int listener = open_listener("app.sock", 8), fds[2] = {ask("/app/x.php"), ask("/app/x.php")};
    int backs[2] = {take_connection(listener), take_connection(listener)};
    uint64_t now_ns = pc_now_ns();
    CHECK_EQ(atomic_load(&one.child->backends.untaken_count), 2);
    CHECK(backs[0] >= 0 && backs[1] >= 0 && !is_knocked_at(listener, &now_ns, PC_KNOCK_MS));
    answer(backs[0], ANSWER, 4096);
    CHECK_EQ(atomic_load(&one.child->backends.untaken_count), 1);
    CHECK(is_knocked_at(listener, &now_ns, 10 * PC_KNOCK_MS));
    answer(backs[1], ANSWER, 4096);
    CHECK_EQ(atomic_load(&one.child->backends.untaken_count), 0);
    CHECK(one.child->backends.untaken == NULL && heard(fds[0], "answer") && heard(fds[1], "answer"));
    child_must(close(fds[0]) == 0, "close");
    close_client(fds[1]);
    close_listener(listener, "app.sock");
    (void)share_app(0);
}

/* Its client is watched from the first sweep on. */
static void
an_answer_behind_a_sweep_is_no_timeout(void)
{
    uint64_t before = atomic_load(&one.child->page->counters[PC_C_TIMEOUTS]);
    int listener = open_listener("app.sock", 8), fd = ask("/app/x.php"), back = take_connection(listener);
    for (int i = 0; i < 3; i++)
        pass_time(PC_SWEEP_MS);
    answer(back, ANSWER, 4096);
    CHECK(heard(fd, "answer"));
    CHECK_EQ(atomic_load(&one.child->page->counters[PC_C_TIMEOUTS]), before);
    close_client(fd);
    close_listener(listener, "app.sock");
}

static void
who_leaves_meanwhile_is_noticed_by_the_next_sweep(void)
{
    char bytes[4096];
    int listener = open_listener("app.sock", 8), fd = ask("/app/x.php"), back = take_connection(listener);
    CHECK(recv(back, bytes, sizeof bytes, 0) > 0);
    child_must(close(fd) == 0, "close");
    pass_time(PC_SWEEP_MS);
    CHECK_EQ(recv(back, bytes, sizeof bytes, 0), 0);
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
    child_must(close(back) == 0, "close");
    close_listener(listener, "app.sock");
}

static void
a_sleeping_service_is_woken_and_then_asked(void)
{
    int fd = ask("/svc/x.php");
    CHECK_EQ(take_job(), PC_JOB_WAKE);
    CHECK_EQ(program.job.service, 0);
    CHECK_EQ(take_job(), 0);
    int listener = open_listener("svc.sock", 8);
    CHECK(take_connection(listener) < 0); /* it waits to be told */
    child_must(send(program.fds[0], "o", 1, MSG_NOSIGNAL) == 1, "send");
    CHECK(take_connection(listener) < 0);
    child_must(send(program.fds[0], "k\n", 2, MSG_NOSIGNAL) == 2 && close(program.fds[0]) == 0, "send");
    int back = take_connection(listener);
    CHECK(back >= 0 && asked_for(back, "/x.php"));
    answer(back, ANSWER, 4096);
    CHECK(heard(fd, "answer"));
    close_client(fd);
    close_listener(listener, "svc.sock");
}

static void
a_service_that_does_not_start_is_503_and_the_runners_word(void)
{
    const struct { const char *line, *said; } cases[] = {
        {"error php-fpm is not installed\n", "php-fpm is not installed"}, {"", "AH01079: failed to make connection to backend: "},
        {"ok\n", "No such file or directory"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd = ask("/svc/x.php");
        CHECK_EQ(take_job(), PC_JOB_WAKE);
        size_t len = strlen(cases[i].line);
        child_must(send(program.fds[0], cases[i].line, len, MSG_NOSIGNAL) == (ssize_t)len && close(program.fds[0]) == 0, "send");
        CHECK(heard(fd, "HTTP/1.1 503 ") && log_says(cases[i].said));
        CHECK_EQ(take_job(), 0); /* it is not asked for ever */
        close_client(fd);
    }
}

static void
a_runner_that_says_nothing_is_waited_for_30_seconds(void)
{
    int fd = ask("/svc/x.php");
    CHECK_EQ(take_job(), PC_JOB_WAKE);
    pass_time(29000);
    receive(fd);
    CHECK_EQ(out_len, 0);
    pass_time(2000);
    CHECK(heard(fd, "HTTP/1.1 503 ") && log_says("the service does not start"));
    child_must(close(program.fds[0]) == 0, "close");
    close_client(fd);
}

static void
a_full_queue_is_tried_again_and_then_503(void)
{
    int listener = open_listener("app.sock", 0), fillers[FILLERS], count = fill_queue("app.sock", fillers);
    int late = ask("/app/x.php");
    pass_time(PC_WAITING_MS / 2);
    int fd = ask("/app/x.php");
    pass_time(PC_WAITING_MS / 2 + 1);
    CHECK(heard(late, "HTTP/1.1 503 ") && log_says("queue"));
    child_must(close(late) == 0, "close");
    out_len = 0;
    client_saw_end = false;
    empty_queue(listener, fillers, count);
    pass_time(PC_RETRY_MS);
    int back = take_connection(listener);
    CHECK(back >= 0 && asked_for(back, "/srv/x.php"));
    answer(back, ANSWER, 4096);
    CHECK(heard(fd, "answer"));
    close_client(fd);
    close_listener(listener, "app.sock");
}

static void
a_silent_responder_is_504_and_let_go(void)
{
    int listener = open_listener("app.sock", 8);
    int fd = ask("/app/x.php");
    int back = take_connection(listener);
    pass_time(19000);
    receive(fd);
    CHECK_EQ(out_len, 0);
    pass_time(2000);
    CHECK(heard(fd, "HTTP/1.1 504 ") && log_says("AH01075: Error dispatching request to "));
    char bytes[65536];
    ssize_t len;
    while ((len = recv(back, bytes, sizeof bytes, 0)) > 0)
        continue;
    CHECK_EQ(len, 0);
    child_must(close(back) == 0, "close");
    close_client(fd);
    close_listener(listener, "app.sock");
}

/* What came on standard input, decoded. Returns its length. */
static size_t
read_stdin(int fd, char *to, size_t cap, bool *ret_is_whole)
{
    static char raw[1 << 20];
    size_t len = 0, used = 0;
    *ret_is_whole = false;
    for (ssize_t count; drive(), (count = recv(fd, raw + len, sizeof raw - len, 0)) > 0;)
        len += (size_t)count;
    for (size_t at = 0; at + PC_FCGI_HEAD_BYTES <= len;) {
        const uint8_t *head = (const uint8_t *)raw + at;
        size_t content = (size_t)head[4] << 8 | head[5];
        if (head[1] == PC_FCGI_STDIN && used + content <= cap) {
            memcpy(to + used, head + PC_FCGI_HEAD_BYTES, content);
            used += content;
            *ret_is_whole = content == 0;
        }
        at += PC_FCGI_HEAD_BYTES + content + head[6];
    }
    return used;
}

#define CHUNKED(path) "POST " path " HTTP/1.1\r\nHost: own.test\r\nTransfer-Encoding: chunked\r\n\r\n"

static void
php_is_asked_when_a_chunked_body_is_whole(void)
{
    static const char *const paths[] = {CHUNKED("/app/x.php"), CHUNKED("/app/x.php/more"), CHUNKED("/app/other")};
    int listener = open_listener("app.sock", 8);
    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        char body[64];
        bool is_whole;
        clear_log();
        int fd = open_client(1 << 20);
        say(fd, paths[i]);
        say(fd, "3;x=y\r\nabc\r\n");
        int back = take_connection(listener);
        CHECK_EQ_FOR(paths[i], back >= 0, i == 2); /* any other responder hears it as it comes */
        say(fd, "2\r\nde\r\n0\r\nT: v\r\n\r\nGET /small HTTP/1.1\r\nHost: own.test\r\n\r\n");
        if (back < 0)
            back = take_connection(listener);
        CHECK_FOR(paths[i], back >= 0 && asked_for(back, "CONTENT_LENGTH5") == (i < 2));
        CHECK_FOR(paths[i], read_stdin(back, body, sizeof body, &is_whole) == 5 && memcmp(body, "abcde", 5) == 0 && is_whole);
        answer(back, ANSWER, 4096);
        CHECK(heard(fd, "answer") && heard(fd, "Content-Length: 60\r\n"));
        close_client(fd);
    }
    close_listener(listener, "app.sock");
}

static char large[300000], echo[sizeof large];

static void
send_large(int fd)
{
    for (size_t i = 0; i < sizeof large; i++)
        large[i] = (char)(i * 31 + i / 251);
    for (size_t at = 0, piece = 7001; at < sizeof large; at += piece) {
        char head[16];
        piece = sizeof large - at < piece ? sizeof large - at : piece;
        (void)snprintf(head, sizeof head, "%zx\r\n", piece);
        say(fd, head);
        child_must(send(fd, large + at, piece, MSG_NOSIGNAL) == (ssize_t)piece, "send");
        say(fd, "\r\n");
    }
}

static void
a_large_chunked_body_comes_whole_and_waits_for_a_full_queue(void)
{
    int listener = open_listener("app.sock", 0), fillers[FILLERS], count = fill_queue("app.sock", fillers);
    bool is_whole;
    clear_log();
    int fd = open_client(1 << 20);
    say(fd, CHUNKED("/app/x.php"));
    send_large(fd);
    say(fd, "0\r\n\r\n");
    CHECK_EQ(atomic_load(&one.child->job_waiting), 1);
    empty_queue(listener, fillers, count);
    pass_time(PC_RETRY_MS);
    int back = take_connection(listener);
    CHECK(back >= 0 && asked_for(back, "CONTENT_LENGTH300000"));
    CHECK_EQ(read_stdin(back, echo, sizeof echo, &is_whole), sizeof echo);
    CHECK(is_whole && memcmp(echo, large, sizeof large) == 0);
    answer(back, ANSWER, 4096);
    CHECK(heard(fd, "answer") && !client_saw_end);
    close_client(fd);
    close_listener(listener, "app.sock");
}

/* In memory, in a file, and while it goes to the responder. */
static void
who_breaks_a_chunked_body_off_leaves_nothing(void)
{
    int listener = open_listener("app.sock", 8), before = dup(0);
    child_must(before >= 0 && close(before) == 0, "dup");
    for (int when = 0; when < 5; when++) {
        clear_log();
        int fd = open_client(1 << 20);
        say(fd, CHUNKED("/app/x.php"));
        if (when > 0)
            send_large(fd);
        if (when == 1)
            say(fd, "x\r\n");
        if (when == 2)
            pass_time(41000);
        if (when > 2)
            say(fd, "0\r\n\r\n");
        int back = take_connection(listener);
        CHECK_EQ(back >= 0, when > 2);
        CHECK(when != 1 || heard(fd, "HTTP/1.1 400 "));
        CHECK(when != 2 || heard(fd, "HTTP/1.1 408 "));
        if (when == 3) { /* an answer of somebody who reads none of it */
            answer(back, ANSWER, 4096);
            CHECK(heard(fd, "answer"));
        }
        close_client(fd);
        if (when == 4)
            child_must(close(back) == 0, "close");
        int after = dup(0);
        CHECK_EQ(after, before);
        child_must(close(after) == 0, "close");
    }
    close_listener(listener, "app.sock");
}

static void
a_chunked_body_that_cannot_be_kept_is_500(void)
{
    struct rlimit old;
    child_must(getrlimit(RLIMIT_NOFILE, &old) == 0, "getrlimit");
    int listener = open_listener("app.sock", 8);
    clear_log();
    int fd = open_client(1 << 20), lowest = dup(0);
    child_must(lowest >= 0 && close(lowest) == 0, "dup");
    say(fd, CHUNKED("/app/x.php"));
    const struct rlimit tight = {.rlim_cur = (rlim_t)lowest, .rlim_max = old.rlim_max};
    child_must(setrlimit(RLIMIT_NOFILE, &tight) == 0, "setrlimit");
    send_large(fd);
    child_must(setrlimit(RLIMIT_NOFILE, &old) == 0, "setrlimit");
    CHECK(heard(fd, "HTTP/1.1 500 ") && client_saw_end && log_says("a chunked body is kept until its end"));
    CHECK(log_says("Too many open files") && take_connection(listener) < 0);
    close_client(fd);
    close_listener(listener, "app.sock");
}

int
main(void)
{
    set_up();
    RUN(an_answer_in_single_bytes_comes_whole);
    RUN(who_takes_no_byte_of_a_request_is_knocked_at);
    RUN(who_was_connected_to_long_before_it_was_asked_is_knocked_at);
    RUN(requests_beyond_the_workers_wait_without_knocking);
    RUN(an_answer_behind_a_sweep_is_no_timeout);
    RUN(who_leaves_meanwhile_is_noticed_by_the_next_sweep);
    RUN(a_sleeping_service_is_woken_and_then_asked);
    RUN(a_service_that_does_not_start_is_503_and_the_runners_word);
    RUN(a_runner_that_says_nothing_is_waited_for_30_seconds);
    RUN(a_full_queue_is_tried_again_and_then_503);
    RUN(a_silent_responder_is_504_and_let_go);
    RUN(php_is_asked_when_a_chunked_body_is_whole);
    RUN(a_large_chunked_body_comes_whole_and_waits_for_a_full_queue);
    RUN(who_breaks_a_chunked_body_off_leaves_nothing);
    RUN(a_chunked_body_that_cannot_be_kept_is_500);
    tear_down();
    return check_end();
}
