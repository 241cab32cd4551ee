/* test_h2_tsan.c - claims about HTTP/2 streams that several threads own, held against ThreadSanitizer: real connections, real threads.
 * Runs as:  the developer.   Sees: connections of its own on 127.0.0.1, a directory of its own under /tmp.
 * Trusts:   check.h, h2_client.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c map.c mime.c page.c peek.c record.c regex.c request.c respond.c route.c serve.c settings.c tlv.c */
/* sources: transport.c uri.c util.c why.c wild.c gate.c gate_answer.c trailer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c dial.c kept.c knock.c target.c gate_http.c h1out.c proxy.c remoteip.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c hello.c phpini.c */
/* sources: tls.c tls_ctx.c pem.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* sources: loop.c main.c */
/* flags: -D_GNU_SOURCE -fno-sanitize=address,undefined -fsanitize=thread */
/* libs: -lpcre2-8 -lssl -lcrypto */
/* libs: -lnghttp2 */
#include <poll.h>

#include "h2_client.h"
#include "tsan_case.h"

#define CLIENTS 6
#define ROUNDS 12
#define ASKED 24

static struct child_case one;
static struct sockaddr_in address;
static _Atomic uint32_t answers, resets;

static const char *const targets[] = {"/small", "/ask", "/big", "/middle", "/list/", "/nothing", "/ask"};

/* ------------------------------------------------------------------ clients */

static void
h2_drive(struct h2_client *client)
{
    struct pollfd state = {.fd = client->fd, .events = POLLIN};
    (void)poll(&state, 1, 30000);
    h2_hear(client);
}

static void
connect_client(struct h2_client *client)
{
    h2_begin(client, tsan_connect(&address));
    h2_widen(client);
}

static bool
is_over(const struct h2_client *client, int32_t id)
{
    const struct h2_answer *answer = &client->answers[id / 2];
    return answer->has_ended || answer->is_reset;
}

static void
check_answer(struct h2_client *client, int32_t id, const char *target)
{
    const struct h2_answer *answer = h2_answer(client, id);
    CHECK_EQ_FOR(target, answer->status, strcmp(target, "/nothing") == 0 ? 404 : 200);
    bool is_file = strchr("smb", target[1]) != NULL;
    for (size_t i = 0; is_file && i < answer->kept_len; i++)
        if (answer->kept[i] != child_byte(target + 1, i))
            CHECK_FOR(target, false);
    if (target[1] == 'b')
        CHECK_EQ(answer->body_len, CHILD_BIG_BYTES);
    if (target[1] == 'a')
        CHECK(answer->body_len == 6 && memcmp(answer->kept, "asked\n", 6) == 0);
}

/* Many at once; every fifth is reset, every fourth round ends with its answers under way. */
static void
converse(struct h2_client *client, uint32_t number, uint32_t round)
{
    int32_t ids[ASKED];
    connect_client(client);
    for (uint32_t i = 0; i < ASKED; i++) {
        ids[i] = h2_get(client, targets[(number + round + i) % COUNT_OF(targets)]);
        if (i % 5 == 4)
            (void)h2_number(client, NGHTTP2_RST_STREAM, (uint32_t)ids[i], NGHTTP2_CANCEL);
        if (i % 8 == 7)
            h2_hear(client);
    }
    for (uint32_t i = 0; i < ASKED && round % 4 != 3; i++) {
        if (i % 5 == 4) {
            (void)atomic_fetch_add(&resets, 1);
            continue;
        }
        for (int turn = 0; turn < 2000 && !is_over(client, ids[i]) && !client->has_ended; turn++)
            h2_drive(client);
        check_answer(client, ids[i], targets[(number + round + i) % COUNT_OF(targets)]);
        (void)atomic_fetch_add(&answers, 1);
    }
    h2_end(client);
}

static void *
run_client(void *argument)
{
    uint32_t number = (uint32_t)(uintptr_t)argument;
    struct h2_client *client = malloc(sizeof *client);
    child_must(client != NULL, "malloc");
    for (uint32_t round = 0; round < ROUNDS; round++)
        converse(client, number, round);
    free(client);
    return NULL;
}

/* ------------------------------------------------------------------ the claim */

static void
streams_of_many_threads_are_answered_and_nothing_is_left(void)
{
    int listener = tsan_listen(&address);
    const struct child_plan plan = {.start_threads = 4, .max_threads = 6, .keep_alive_ms = 20000, .listeners = &address,
                                    .listener_count = 1, .listener_fd = listener, .log_fd = -1, .protocols = PC_PROTOCOL_H2C};
    child_new(&one, &plan);
    tsan_serve(&one, run_client, CLIENTS);
    CHECK_EQ(atomic_load(&answers), CLIENTS * (ROUNDS - ROUNDS / 4) * (ASKED - ASKED / 5));
    CHECK_EQ(atomic_load(&resets), CLIENTS * (ROUNDS - ROUNDS / 4) * (ASKED / 5));
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
    CHECK_EQ(child_counter(&one, PC_C_CONNECTIONS), 0);
    CHECK_EQ(child_counter(&one, PC_C_PARKED), 0);
    child_end(&one);
    CHECK(close(listener) == 0);
}

int
main(void)
{
    RUN(streams_of_many_threads_are_answered_and_nothing_is_left);
    return check_end();
}
