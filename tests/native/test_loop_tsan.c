/* test_loop_tsan.c - claims about leader and followers, held against ThreadSanitizer: several threads, real connections.
 * Runs as:  the developer.   Sees: connections of its own on 127.0.0.1, a directory of its own under /tmp.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c loop.c main.c map.c mime.c page.c peek.c record.c regex.c request.c respond.c route.c serve.c settings.c */
/* sources: tlv.c transport.c uri.c util.c wild.c */
/* sources: why.c gate.c gate_answer.c trailer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c dial.c kept.c knock.c target.c gate_http.c h1out.c proxy.c remoteip.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c hello.c phpini.c */
/* flags: -D_GNU_SOURCE -fno-sanitize=address,undefined -fsanitize=thread */
/* sources: tls.c tls_ctx.c pem.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* libs: -lpcre2-8 -lssl -lcrypto */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* libs: -lnghttp2 */
#include <dirent.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>

#include "hand.h"
#include "tsan_case.h"

#define CLIENTS 8
#define ROUNDS 25
#define PIPELINE 6

enum road { ACCEPTED, PASSED, PASSED_WITH_BYTES, ROADS };

struct trial {
    struct child_case one;
    int listeners[2]; /* the child's, and that of another child, which the test plays */
    struct sockaddr_in addresses[2];
    _Atomic uint32_t wanted; /* answers to requests that were sent whole and waited for */
    _Atomic bool is_over;
    pthread_mutex_t accept_lock; /* held from a connect to its accept, so that both are the same connection's */
};

static const char *const targets[] = {"small", "middle", "big", "ask", "list/", "nothing"};

/* ------------------------------------------------------------------ another child, which passes connections on */

static void
pass_on(struct trial *trial, int fd, const char *bytes, size_t len)
{
    struct pc_hand hand = {.magic = PC_HAND_MAGIC, .version = PC_HAND_VERSION, .kind = len > 0 ? PC_HAND_CARRIED : PC_HAND_FRESH,
                           .hops = 1, .carried_len = (uint32_t)len, .sender = 9};
    struct iovec parts[2] = {{&hand, sizeof hand}, {(void *)(uintptr_t)bytes, len}};
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = {0};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2, .msg_control = control.bytes, .msg_controllen = CMSG_LEN(sizeof(int))};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    (void)fcntl(trial->one.own_inbox, F_SETFL, 0); /* the test may wait for room */
    CHECK(sendmsg(trial->one.own_inbox, &message, MSG_NOSIGNAL) == (ssize_t)(sizeof hand + len));
    CHECK(close(fd) == 0);
}

/* ------------------------------------------------------------------ clients */

struct client {
    struct trial *trial;
    uint32_t number, answers;
    enum road road;
    int fd;
    char *raw; /* received and not yet taken */
    size_t len, cap;
};

static void
connect_client(struct client *client, const char *first, size_t len)
{
    struct trial *trial = client->trial;
    const struct sockaddr_in *to = &trial->addresses[client->road == ACCEPTED ? 0 : 1];
    struct timeval patience = {.tv_sec = 30};
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->road != ACCEPTED)
        (void)pthread_mutex_lock(&trial->accept_lock);
    child_must(client->fd >= 0 && connect(client->fd, (const struct sockaddr *)to, sizeof *to) == 0, "connect");
    CHECK(setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
    client->len = 0;
    if (client->road == ACCEPTED || client->road == PASSED)
        CHECK(send(client->fd, first, len, MSG_NOSIGNAL) == (ssize_t)len);
    if (client->road == ACCEPTED)
        return;
    int fd = -1;
    struct pollfd ready = {.fd = trial->listeners[1], .events = POLLIN};
    while (fd < 0) {
        (void)poll(&ready, 1, -1);
        fd = accept4(trial->listeners[1], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    }
    (void)pthread_mutex_unlock(&trial->accept_lock);
    pass_on(trial, fd, first, client->road == PASSED_WITH_BYTES ? len : 0);
}

static bool
read_more(struct client *client)
{
    if (client->len + 65536 > client->cap) {
        client->cap = client->cap * 2 + 65537;
        client->raw = realloc(client->raw, client->cap);
        child_must(client->raw != NULL, "realloc");
    }
    ssize_t count = recv(client->fd, client->raw + client->len, 65536, 0);
    if (count <= 0)
        return false;
    client->len += (size_t)count;
    client->raw[client->len] = '\0';
    return true;
}

/* Take the answer for `target` and look at every byte of it. */
static bool
take_answer(struct client *client, const char *target)
{
    char *end = NULL, *length;
    while (client->len == 0 || (end = memmem(client->raw, client->len, "\r\n\r\n", 4)) == NULL)
        if (!read_more(client))
            return false;
    end[2] = '\0';
    unsigned status = (unsigned)strtoul(client->raw + 9, NULL, 10);
    length = strstr(client->raw, "\r\nContent-Length: ");
    size_t head = (size_t)(end - client->raw) + 4, body = length != NULL ? strtoul(length + 18, NULL, 10) : 0;
    CHECK(strncmp(client->raw, "HTTP/1.1 ", 9) == 0 && length != NULL);
    CHECK_EQ_FOR(target, status, strcmp(target, "nothing") == 0 ? 404 : 200);
    while (client->len < head + body)
        if (!read_more(client))
            return false;
    bool is_file = target[0] == 's' || target[0] == 'm' || target[0] == 'b';
    for (size_t i = 0; is_file && i < body; i++) {
        if (client->raw[head + i] == child_byte(target, i))
            continue;
        CHECK_EQ_FOR(target, client->raw[head + i], child_byte(target, i));
        break;
    }
    if (target[0] == 'a')
        CHECK(body == 6 && memcmp(client->raw + head, "asked\n", 6) == 0);
    client->len -= head + body;
    memmove(client->raw, client->raw + head + body, client->len);
    client->answers++;
    return true;
}

static size_t
put_request(char *to, size_t cap, const char *target, bool is_last)
{
    int len = snprintf(to, cap, "GET /%s HTTP/1.1\r\nHost: own.test\r\n%s\r\n", target, is_last ? "Connection: close\r\n" : "");
    child_must(len > 0 && (size_t)len < cap, "snprintf");
    return (size_t)len;
}

static const char *
target_of(const struct client *client, uint32_t round, uint32_t i)
{
    return targets[(client->number + 3 * round + i) % COUNT_OF(targets)];
}

/* Kept: one after the other; pipelined: all at once; aborted: gone with the answers under way. */
static void
converse(struct client *client, uint32_t round)
{
    char raw[2048];
    bool is_pipelined = round % 3 == 1, is_aborted = round % 5 == 4;
    size_t len = 0;
    for (uint32_t i = 0; i < (is_pipelined ? PIPELINE : 1); i++)
        len += put_request(raw + len, sizeof raw - len, target_of(client, round, i), is_pipelined && i == PIPELINE - 1);
    connect_client(client, raw, len);
    if (is_aborted) {
        struct linger reset = {.l_onoff = 1};
        CHECK(setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
        CHECK(close(client->fd) == 0);
        return;
    }
    for (uint32_t i = 0; i < PIPELINE; i++) {
        if (i > 0 && !is_pipelined) {
            len = put_request(raw, sizeof raw, target_of(client, round, i), i == PIPELINE - 1);
            CHECK(send(client->fd, raw, len, MSG_NOSIGNAL) == (ssize_t)len);
        }
        (void)atomic_fetch_add(&client->trial->wanted, 1);
        CHECK_FOR(target_of(client, round, i), take_answer(client, target_of(client, round, i)));
    }
    CHECK(!read_more(client)); /* the server has closed */
    CHECK(close(client->fd) == 0);
}

static void *
run_client(void *argument)
{
    struct client *client = argument;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        client->road = client->number % 2 == 0 ? ACCEPTED : round % 2 == 0 ? PASSED : PASSED_WITH_BYTES;
        converse(client, round);
    }
    free(client->raw);
    return NULL;
}

/* ------------------------------------------------------------------ the dispatcher */

static void
tell(struct trial *trial, uint8_t kind, int fd)
{
    struct { uint8_t kind, zero; uint16_t small; uint32_t number; } say = {.kind = kind, .number = 7};
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = {0};
    struct iovec whole = {&say, sizeof say};
    struct msghdr message = {.msg_iov = &whole, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_LEN(sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    }
    (void)fcntl(trial->one.control, F_SETFL, 0);
    CHECK(sendmsg(trial->one.control, &message, MSG_NOSIGNAL) == (ssize_t)sizeof say);
    if (fd >= 0)
        CHECK(close(fd) == 0);
}

static void *
reload_routes(void *argument)
{
    struct trial *trial = argument;
    const struct child_plan plan = {0};
    struct timespec moment = {.tv_nsec = 2000000};
    while (!atomic_load(&trial->is_over)) {
        tell(trial, 2, child_server_route(&plan));
        (void)nanosleep(&moment, NULL); /* a pace, not a wait */
    }
    return NULL;
}

static unsigned
count_descriptors(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    child_must(directory != NULL, "opendir");
    while (readdir(directory) != NULL)
        count++;
    (void)closedir(directory);
    return count;
}

static unsigned
count_lines(int fd)
{
    char raw[65536];
    unsigned lines = 0;
    ssize_t count;
    for (off_t at = 0; (count = pread(fd, raw, sizeof raw, at)) > 0; at += count)
        for (ssize_t i = 0; i < count; i++)
            lines += raw[i] == '\n';
    return lines;
}

static void
start_trial(struct trial *trial, int log_fd)
{
    memset(trial, 0, sizeof *trial);
    (void)pthread_mutex_init(&trial->accept_lock, NULL);
    for (int i = 0; i < 2; i++)
        trial->listeners[i] = tsan_listen(&trial->addresses[i]);
    const struct child_plan plan = {.start_threads = 4, .max_threads = 6, .keep_alive_ms = 20000, .listeners = trial->addresses,
                                    .listener_count = 2, .listener_fd = trial->listeners[0], .log_fd = log_fd};
    child_new(&trial->one, &plan);
}

static void
end_trial(struct trial *trial)
{
    child_end(&trial->one);
    CHECK(close(trial->listeners[0]) == 0 && close(trial->listeners[1]) == 0);
}

/* ------------------------------------------------------------------ claims */

static void
every_request_is_answered_once_and_nothing_is_left(void)
{
    unsigned before = count_descriptors();
    int log_fd = child_memfd("log", "", 0), log_copy = fcntl(log_fd, F_DUPFD_CLOEXEC, 3);
    struct trial trial;
    struct client clients[CLIENTS] = {0};
    pthread_t threads[CLIENTS];
    start_trial(&trial, log_fd);
    pthread_t child_thread = tsan_start(tsan_run_child, trial.one.child), reload_thread = tsan_start(reload_routes, &trial);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){.trial = &trial, .number = i};
        threads[i] = tsan_start(run_client, &clients[i]);
    }
    uint32_t answers = 0;
    for (uint32_t i = 0; i < CLIENTS; i++) {
        (void)pthread_join(threads[i], NULL);
        answers += clients[i].answers;
    }
    atomic_store(&trial.is_over, true);
    (void)pthread_join(reload_thread, NULL);
    tell(&trial, TSAN_DRAIN, -1); /* the child ends when its last connection has */
    (void)pthread_join(child_thread, NULL);
    CHECK_EQ(answers, atomic_load(&trial.wanted));
    CHECK_EQ(answers, CLIENTS * (ROUNDS - ROUNDS / 5) * PIPELINE);
    CHECK(child_counter(&trial.one, PC_C_REQUESTS) >= answers);
    CHECK_EQ(count_lines(log_copy), child_counter(&trial.one, PC_C_REQUESTS));
    CHECK_EQ(atomic_load(&trial.one.child->open_count), 0);
    CHECK_EQ(child_counter(&trial.one, PC_C_CONNECTIONS), 0);
    CHECK_EQ(child_counter(&trial.one, PC_C_PARKED), 0);
    CHECK(child_counter(&trial.one, PC_C_REFUSED) <= CLIENTS / 2 * (ROUNDS / 5)); /* reset before they were received */
    CHECK(child_counter(&trial.one, PC_C_HANDED_IN) > 0 && child_counter(&trial.one, PC_C_ASKED) > 0);
    CHECK_EQ(trial.one.child->busy, 0);
    CHECK_EQ(trial.one.child->threads, 0);
    CHECK_EQ(trial.one.child->idle, 0);
    end_trial(&trial);
    CHECK(close(log_copy) == 0);
    CHECK_EQ(count_descriptors(), before);
}

static void
a_draining_child_finishes_what_is_open(void)
{
    struct trial trial;
    struct client client = {.trial = &trial};
    char raw[256];
    start_trial(&trial, -1);
    pthread_t child_thread = tsan_start(tsan_run_child, trial.one.child);
    size_t len = put_request(raw, sizeof raw, "small", false);
    connect_client(&client, raw, len);
    CHECK(take_answer(&client, "small"));
    tell(&trial, TSAN_DRAIN, -1);
    while (!atomic_load(&trial.one.child->is_draining))
        (void)sched_yield();
    CHECK(send(client.fd, raw, len, MSG_NOSIGNAL) == (ssize_t)len);
    CHECK(take_answer(&client, "small")); /* and then, for it drains, the connection ends, and with it the child */
    CHECK(!read_more(&client));
    (void)pthread_join(child_thread, NULL);
    CHECK(close(client.fd) == 0);
    free(client.raw);
    end_trial(&trial);
}

int
main(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
    RUN(every_request_is_answered_once_and_nothing_is_left);
    RUN(a_draining_child_finishes_what_is_open);
    return check_end();
}
