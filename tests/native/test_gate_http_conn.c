/* test_gate_http_conn.c - claims about gate_http.c, backend.c, dial.c, kept.c and job.c: connections to back ends, and how long who waits for what. The
 * test is client, runner and back end at once, as in test_gate_http.c.
 * Runs as:  the developer.   Sees: a directory of its own under /tmp, and a port of 127.0.0.1.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c map.c mime.c page.c peek.c record.c regex.c request.c remoteip.c respond.c route.c serve.c settings.c tlv.c */
/* sources: transport.c uri.c util.c why.c wild.c gate.c gate_answer.c trailer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c dial.c kept.c knock.c target.c gate_http.c h1out.c proxy.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c phpini.c hello.c */
/* flags: -D_GNU_SOURCE */
/* sources: tls.c tls_ctx.c pem.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* libs: -lnghttp2 */
/* libs: -lpcre2-8 -lssl -lcrypto -Wl,--wrap=pc_now_ns -Wl,--wrap=pc_child_wake -Wl,--wrap=pc_env_get */
#include "loop.c" /* for handle_event, tick */

#include "http_case.h"

/* ------------------------------------------------------------------ claims: kept connections */

static int
keep_one(int listener)
{
    int fd = send_request(GET("/http/first")), back = take_connection(listener);
    (void)take(back);
    put(back, OK);
    CHECK(heard(fd, "ok"));
    close_client(fd);
    CHECK_EQ(kept(), 1);
    return back;
}

static void
a_kept_connection_is_used_again(void)
{
    int listener = open_listener("http.sock", 8), back = keep_one(listener);
    int fd = send_request(GET("/http/second"));
    CHECK(strncmp(take(back), "GET /srv/second ", 16) == 0 && take_connection(listener) < 0 && kept() == 0);
    put(back, OK);
    CHECK(heard(fd, "ok") && kept() == 1);
    let_go();
    hang_up(back);
    close_client(fd);
    close_listener(listener, "http.sock");
}

static void
one_that_has_ended_or_said_something_is_not_used_again(void)
{
    int listener = open_listener("http.sock", 8);
    for (int says = 0; says < 2; says++) {
        int old = keep_one(listener);
        if (says == 1)
            put(old, "HTTP/1.1 408 Too late\r\n\r\n");
        else
            hang_up(old);
        int fd = send_request(GET("/http/second")), back = take_connection(listener);
        CHECK(back >= 0 && strncmp(take(back), "GET /srv/second ", 16) == 0);
        if (says == 1) {
            CHECK(has_hung_up(old));
            hang_up(old);
        }
        put(back, OK);
        CHECK(heard(fd, "ok"));
        let_go();
        hang_up(back);
        close_client(fd);
    }
    close_listener(listener, "http.sock");
}

/* It ends at the moment at which the request is on its way: GET, HEAD and OPTIONS are asked once more, on a connection of their own. */
static void
one_that_ends_under_a_request_is_asked_once_more(void)
{
    int listener = open_listener("http.sock", 8);
    for (int again = 0; again < 2; again++) {
        int old = keep_one(listener), fd = send_request(GET("/http/second"));
        CHECK(take_connection(listener) < 0);
        hang_up(old); /* with the request unread */
        int back = take_connection(listener);
        CHECK(back >= 0 && strncmp(take(back), "GET /srv/second ", 16) == 0);
        if (again == 0)
            put(back, OK);
        else
            hang_up(back); /* a fresh one that ends so is no accident */
        CHECK(heard(fd, again == 0 ? "HTTP/1.1 200 OK\r\n" : "HTTP/1.1 502 "));
        CHECK(take_connection(listener) < 0);
        let_go();
        if (again == 0)
            hang_up(back);
        close_client(fd);
    }
    close_listener(listener, "http.sock");
}

static void
a_fresh_connection_that_ends_without_a_word_is_502(void)
{
    int listener = open_listener("http.sock", 8);
    for (int posts = 0; posts < 2; posts++) {
        int fd = send_request(posts ? "POST /http/x HTTP/1.1\r\nHost: own.test\r\nContent-Length: 1\r\n\r\nx" : GET("/http/x"));
        hang_up(take_connection(listener));
        CHECK(heard(fd, "HTTP/1.1 502 ") && log_says("AH01102: error reading status line from remote server"));
        CHECK(take_connection(listener) < 0);
        close_client(fd);
    }
    close_listener(listener, "http.sock");
}

/* A service that is started anew ends what it has not read yet: what is safe to ask twice is asked twice, not thrice. */
static void
a_service_is_asked_twice_for_what_may_be_asked_twice(void)
{
    int listener = open_listener("web.sock", 8);
    for (int posts = 0; posts < 2; posts++) {
        int fd = send_request(posts ? "POST /web/x HTTP/1.1\r\nHost: own.test\r\nContent-Length: 1\r\n\r\nx" : GET("/web/x"));
        hang_up(take_connection(listener));
        int back = take_connection(listener);
        CHECK_EQ(back >= 0, posts == 0);
        if (back >= 0)
            hang_up(back);
        CHECK(heard(fd, "HTTP/1.1 502 ") && take_connection(listener) < 0);
        close_client(fd);
    }
    close_listener(listener, "web.sock");
}

/* Who has lost the path is to be left alone: what is kept is closed at the next look, what is in use is not kept. */
static void
connections_to_a_service_that_gave_its_path_away_are_given_up(void)
{
    int old = open_listener("web.sock", 8), fd = send_request(GET("/web/x")), back = take_connection(old);
    (void)take(back);
    put(back, OK);
    CHECK(heard(fd, "ok") && kept() == 1);
    close_client(fd);
    fd = send_request("POST /web/y HTTP/1.1\r\nHost: own.test\r\nContent-Length: 1\r\n\r\nx");
    int in_use = take_connection(old);
    close_listener(old, "web.sock");
    int successor = open_listener("web.sock", 8);
    worker->now_ns += 2 * KEPT_LOOK_MS * MS;
    tick(worker);
    CHECK(kept() == 0 && has_hung_up(back));
    (void)take(in_use);
    put(in_use, OK);
    CHECK(heard(fd, "ok") && kept() == 0 && has_hung_up(in_use));
    hang_up(back);
    hang_up(in_use);
    close_client(fd);
    fd = send_request(GET("/web/z"));
    back = take_connection(successor);
    (void)take(back);
    put(back, OK);
    CHECK(heard(fd, "ok") && kept() == 1);
    close_listener(successor, "web.sock"); /* and where the path leads nowhere, as when it is idle */
    worker->now_ns += 2 * KEPT_LOOK_MS * MS;
    tick(worker);
    CHECK(kept() == 0 && has_hung_up(back));
    hang_up(back);
    close_client(fd);
}

static void
answer_wake(const char *line)
{
    CHECK_EQ(take_job(), PC_JOB_WAKE);
    child_must(send(program.fds[0], line, strlen(line), MSG_NOSIGNAL) == (ssize_t)strlen(line), "send");
    hang_up(program.fds[0]);
    drive();
}

/* A runner that is ending says so, and its successor reads the same box; but not for ever. */
static void
a_runner_that_ends_is_not_the_last_one_that_is_asked(void)
{
    int fd = send_request(GET("/web/x"));
    answer_wake("again\n");
    answer_wake("again\n");
    int listener = open_listener("web.sock", 8);
    answer_wake("ok\n");
    int back = take_connection(listener);
    CHECK(back >= 0);
    (void)take(back);
    put(back, OK);
    CHECK(heard(fd, "ok"));
    close_client(fd);
    let_go();
    hang_up(back);
    close_listener(listener, "web.sock");
    fd = send_request(GET("/web/x"));
    for (int i = 0; i < 3; i++)
        answer_wake("again\n");
    CHECK(take_job() == 0 && heard(fd, "HTTP/1.1 503 ") && log_says("its runners end again and again"));
    close_client(fd);
}

static void
what_is_asked_again_waits_for_a_full_queue(void)
{
    int listener = open_listener("http.sock", 0), old = keep_one(listener), fillers[FILLERS];
    int fd = send_request(GET("/http/second")), count = fill_queue("http.sock", fillers);
    hang_up(old);
    receive(fd);
    CHECK_EQ(out_len, 0);
    empty_queue(listener, fillers, count);
    pass_time(PC_RETRY_MS);
    int back = take_connection(listener);
    CHECK(back >= 0 && strncmp(take(back), "GET /srv/second ", 16) == 0);
    put(back, OK);
    CHECK(heard(fd, "HTTP/1.1 200 OK\r\n"));
    let_go();
    hang_up(back);
    close_client(fd);
    close_listener(listener, "http.sock");
}

static void
a_kept_connection_ends_when_it_was_idle_for_long_enough(void)
{
    int listener = open_listener("http.sock", 8), back = keep_one(listener);
    char byte;
    worker->now_ns += (PC_KEPT_MS - 1) * MS;
    tick(worker);
    CHECK(kept() == 1 && recv(back, &byte, 1, 0) < 0 && errno == EAGAIN);
    worker->now_ns += KEPT_LOOK_MS * MS;
    tick(worker);
    CHECK(kept() == 0 && has_hung_up(back));
    hang_up(back);
    close_listener(listener, "http.sock");
}

static void
so_many_are_kept_and_no_more(void)
{
    int listener = open_listener("http.sock", 64), clients[PC_KEPT_PER_BACKEND + 2], backs[PC_KEPT_PER_BACKEND + 2];
    for (size_t i = 0; i < COUNT_OF(clients); i++) {
        clients[i] = send_request(GET("/http/x"));
        backs[i] = take_connection(listener);
    }
    for (size_t i = 0; i < COUNT_OF(clients); i++) {
        (void)take(backs[i]);
        put(backs[i], OK);
        child_must(close(clients[i]) == 0, "close");
        drive();
    }
    CHECK_EQ(kept(), PC_KEPT_PER_BACKEND);
    let_go();
    for (size_t i = 0; i < COUNT_OF(backs); i++)
        hang_up(backs[i]);
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
    close_listener(listener, "http.sock");
}

/* ------------------------------------------------------------------ claims: time */

static void
a_silent_back_end_is_504_and_let_go(void)
{
    int listener = open_listener("http.sock", 8);
    int fd = send_request(GET("/http/x")), back = take_connection(listener);
    (void)take(back);
    pass_time(15000);
    put(back, "HTTP/1.1 200"); /* a word, and it has as long again */
    pass_time(19000);
    receive(fd);
    CHECK_EQ(out_len, 0);
    pass_time(2000);
    CHECK(heard(fd, "HTTP/1.1 504 ") && has_hung_up(back));
    hang_up(back);
    close_client(fd);
    fd = send_request(GET("/http/x")); /* and within an answer it is cut */
    back = take_connection(listener);
    (void)take(back);
    put(back, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
    CHECK(heard(fd, "abc"));
    pass_time(21000);
    receive(fd);
    CHECK(client_saw_end && has_hung_up(back));
    hang_up(back);
    close_client(fd);
    close_listener(listener, "http.sock");
}

/* A port that takes no connection: its queue is full, and the kernel does not answer. */
static int
fill_port(int listener, int fillers[FILLERS])
{
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    int count = 0;
    child_must(getsockname(listener, (struct sockaddr *)&address, &len) == 0, "getsockname");
    for (bool is_full = false; count < FILLERS && !is_full;) {
        int fd = fillers[count++] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(fd, (struct sockaddr *)&address, len);
        struct pollfd state = {.fd = fd, .events = POLLOUT};
        is_full = poll(&state, 1, 100) == 0;
    }
    CHECK(count < FILLERS);
    return count;
}

static void
connecting_has_its_own_time(void)
{
    int fillers[FILLERS], count = fill_port(tcp_listener, fillers);
    int fd = send_request(GET("/tcp/x"));
    pass_time(2900);
    receive(fd);
    CHECK_EQ(out_len, 0);
    pass_time(300);
    CHECK(heard(fd, "HTTP/1.1 503 ") && log_says("AH00957: http: attempt to connect to 127.0.0.1:"));
    close_client(fd);
    fd = send_request(GET("/tcp/x"));
    CHECK(heard(fd, "HTTP/1.1 503 ") && log_says("AH00940: HTTP: disabled connection for ("));
    close_client(fd);
    pass_time(61000);
    empty_queue(tcp_listener, fillers, count);
}

static void
so_has_connecting_once_more(void)
{
    int fillers[FILLERS], count;
    int fd = send_request(GET("/tcp/x")), back = take_connection(tcp_listener);
    (void)take(back);
    put(back, OK);
    CHECK(heard(fd, "ok") && kept() == 1);
    close_client(fd);
    fd = send_request(GET("/tcp/x")); /* on the kept connection */
    (void)take(back);
    count = fill_port(tcp_listener, fillers);
    pass_time(1000);
    hang_up(back);
    pass_time(2900);
    receive(fd);
    CHECK_EQ(out_len, 0);
    pass_time(300);
    CHECK(heard(fd, "HTTP/1.1 503 ") && log_says("AH00957: http: attempt to connect to 127.0.0.1:"));
    close_client(fd);
    pass_time(61000);
    empty_queue(tcp_listener, fillers, count);
}

static void
a_service_has_30_seconds_to_start_and_then_its_timeout(void)
{
    int fd = send_request(GET("/web/x"));
    CHECK_EQ(take_job(), PC_JOB_WAKE);
    CHECK_EQ(program.job.service, 1);
    pass_time(29000); /* Timeout is 20 s */
    receive(fd);
    CHECK_EQ(out_len, 0);
    pass_time(2000);
    CHECK(heard(fd, "HTTP/1.1 503 ") && log_says("the service does not start"));
    hang_up(program.fds[0]);
    close_client(fd);
    fd = send_request(GET("/web/x"));
    CHECK_EQ(take_job(), PC_JOB_WAKE);
    pass_time(25000);
    int listener = open_listener("web.sock", 8);
    child_must(send(program.fds[0], "ok\n", 3, MSG_NOSIGNAL) == 3, "send");
    hang_up(program.fds[0]);
    int back = take_connection(listener);
    CHECK(back >= 0);
    pass_time(19000);
    receive(fd);
    CHECK_EQ(out_len, 0);
    pass_time(2000);
    CHECK(heard(fd, "HTTP/1.1 504 "));
    hang_up(back);
    close_client(fd);
    close_listener(listener, "web.sock");
}

/* ------------------------------------------------------------------ claims: what cannot be reached */

static void
a_back_end_that_fails_is_left_alone_and_one_that_we_cannot_ask_is_not(void)
{
    struct rlimit old;
    child_must(getrlimit(RLIMIT_NOFILE, &old) == 0, "getrlimit");
    int listener = open_listener("http.sock", 8);
    clear_log();
    int fd = open_client(1 << 20), lowest = dup(0);
    child_must(lowest >= 0 && close(lowest) == 0, "dup");
    const struct rlimit tight = {.rlim_cur = (rlim_t)lowest, .rlim_max = old.rlim_max};
    child_must(setrlimit(RLIMIT_NOFILE, &tight) == 0, "setrlimit");
    say(fd, GET("/http/x"));
    child_must(setrlimit(RLIMIT_NOFILE, &old) == 0, "setrlimit");
    CHECK(heard(fd, "HTTP/1.1 503 ") && log_says("Too many open files"));
    out_len = 0;
    say(fd, GET("/http/x"));
    int back = take_connection(listener);
    CHECK(back >= 0); /* at once: it is not the back end that had failed */
    put(back, OK);
    CHECK(heard(fd, "ok"));
    let_go();
    hang_up(back);
    close_listener(listener, "http.sock");
    out_len = 0;
    say(fd, GET("/http/x"));
    CHECK(heard(fd, "HTTP/1.1 503 ") && log_says("No such file or directory"));
    listener = open_listener("http.sock", 8);
    out_len = 0;
    say(fd, GET("/http/x"));
    CHECK(heard(fd, "HTTP/1.1 503 ") && log_says("AH00940") && take_connection(listener) < 0);
    close_client(fd);
    pass_time(61000);
    close_listener(listener, "http.sock");
}

/* ------------------------------------------------------------------ claims: waiting for room */

static void
one_full_queue_holds_up_its_own_requests_only(void)
{
    int app = open_listener("app.sock", 0), http = open_listener("http.sock", 0), first[FILLERS], second[FILLERS];
    int counts[2] = {fill_queue("app.sock", first), fill_queue("http.sock", second)};
    clear_log();
    wakes = 0;
    int starving = send_request("GET /app/x.php HTTP/1.1\r\nHost: own.test\r\n\r\n");
    CHECK_EQ(wakes, 1); /* who waits for events would do so for longer than PC_RETRY_MS */
    int fd = send_request(GET("/http/x")), cgi = send_request(GET("/cgi/script"));
    CHECK_EQ(take_job(), PC_JOB_RUN); /* the job box has room */
    leave();
    child_must(close(cgi) == 0, "close");
    empty_queue(http, second, counts[1]);
    pass_time(PC_RETRY_MS);
    int back = take_connection(http);
    CHECK(back >= 0);
    put(back, OK);
    CHECK(heard(fd, "ok"));
    let_go();
    hang_up(back);
    child_must(close(fd) == 0, "close");
    CHECK_EQ(atomic_load(&one.child->job_waiting), 1);
    pass_time(PC_WAITING_MS);
    out_len = 0;
    CHECK(heard(starving, "HTTP/1.1 503 "));
    CHECK_EQ(atomic_load(&one.child->job_waiting), 0);
    empty_queue(app, first, counts[0]);
    close_client(starving);
    close_listener(app, "app.sock");
    close_listener(http, "http.sock");
}

int
main(void)
{
    http_open();
    RUN(a_kept_connection_is_used_again);
    RUN(one_that_has_ended_or_said_something_is_not_used_again);
    RUN(one_that_ends_under_a_request_is_asked_once_more);
    RUN(a_fresh_connection_that_ends_without_a_word_is_502);
    RUN(a_service_is_asked_twice_for_what_may_be_asked_twice);
    RUN(connections_to_a_service_that_gave_its_path_away_are_given_up);
    RUN(a_runner_that_ends_is_not_the_last_one_that_is_asked);
    RUN(what_is_asked_again_waits_for_a_full_queue);
    RUN(a_kept_connection_ends_when_it_was_idle_for_long_enough);
    RUN(so_many_are_kept_and_no_more);
    RUN(a_silent_back_end_is_504_and_let_go);
    RUN(connecting_has_its_own_time);
    RUN(so_has_connecting_once_more);
    RUN(a_service_has_30_seconds_to_start_and_then_its_timeout);
    RUN(a_back_end_that_fails_is_left_alone_and_one_that_we_cannot_ask_is_not);
    RUN(one_full_queue_holds_up_its_own_requests_only);
    return http_close();
}
