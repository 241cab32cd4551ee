/* Invariant: whatever frames a client sends, in whatever pieces, its connection ends within bounded steps; what it is sent are frames that keep
 * to their windows, with one head for a stream; another client's HTTP/1.1 connection is served right meanwhile; no connection, stream,
 * descriptor, job or buffer is left. */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c map.c mime.c page.c peek.c record.c regex.c request.c respond.c route.c serve.c settings.c tlv.c */
/* sources: transport.c uri.c util.c why.c wild.c gate.c gate_answer.c trailer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c dial.c kept.c knock.c target.c gate_http.c h1out.c proxy.c remoteip.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c hello.c phpini.c */
/* sources: tls.c tls_ctx.c pem.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* flags: -D_GNU_SOURCE */
/* libs: -lpcre2-8 -lssl -lcrypto */
/* libs: -lnghttp2 */
/* max_len: 2048 */
#include "loop.c" /* for handle_event */

#include "../native/gate_case.h"
#include "../native/h2_client.h"
#include "fuzz.h"

#define MAX_TURNS 200

static struct h2_client client;

static void
h2_drive(struct h2_client *of)
{
    drive();
    h2_hear(of);
}

/* Programs answer at once, or never, by their number. */
static void
run_programs(void)
{
    for (int kind; (kind = take_job()) != 0;) {
        if (kind != PC_JOB_RUN)
            continue;
        if (program.job.id % 3 != 0)
            (void)!write(program.fds[1], "Content-Type: text/plain\n\nprogram", 33); /* whoever does not hear it has gone */
        leave();
    }
}

static const char *const paths[] = {"/small", "/middle", "/big", "/list/", "/ask", "/cgi/script", "/nothing", "/cgi/nph-script"};
static const char *const methods[] = {"GET", "POST", "HEAD", "OPTIONS", "CONNECT", "PUT"};
static const char *const hosts[] = {"own.test", "own.test", "other.test", "own.test:80", "bad host"};

static uint8_t
next(const uint8_t **at, const uint8_t *end)
{
    return *at < end ? *(*at)++ : 0;
}

/* A request of known words, perhaps with a field of the input's. */
static void
ask(const uint8_t **at, const uint8_t *end)
{
    char more[32] = "";
    uint8_t what = next(at, end), how = next(at, end);
    for (size_t i = 0; i < (how & 15u); i++)
        more[i] = (char)next(at, end);
    const struct h2_field fields[] = {{":method", methods[what % 6]}, {":scheme", "http"}, {":authority", hosts[(what >> 3) % 5]},
                                      {":path", paths[how % 8]}, {(how & 16) != 0 ? "cookie" : "x-more", more},
                                      {(how & 64) != 0 ? ":protocol" : "te", (how & 64) != 0 ? "websocket" : "trailers"}};
    if (client.next_id / 2 < H2_STREAMS - 2)
        (void)h2_ask_with(&client, fields, (how & 32) != 0 ? 6 : 4, (what & 0x40) != 0);
}

/* A frame whose kind, flags and stream are the input's, and its payload the input's bytes. */
static void
send_frame(const uint8_t **at, const uint8_t *end, uint8_t op)
{
    uint8_t flags = next(at, end);
    uint32_t stream = next(at, end) % 16;
    client.is_lenient = client.is_lenient || op % 12 == NGHTTP2_HEADERS || op % 12 == NGHTTP2_CONTINUATION || (stream > 0 && stream % 2 == 0);
    size_t len = next(at, end) % 64, left = (size_t)(end - *at);
    len = len < left ? len : left;
    if (op % 12 == NGHTTP2_WINDOW_UPDATE || op % 12 == NGHTTP2_SETTINGS) { /* the client's own count of windows is not told of those */
        client.window = client.initial_window = (int64_t)1 << 40;
        for (size_t i = 0; i < 64; i++)
            client.answers[i].window = (int64_t)1 << 40;
    }
    (void)h2_frame(&client, op % 12, flags, stream, *at, len);
    *at += len;
}

static void
converse(const uint8_t *at, const uint8_t *end)
{
    if (next(&at, end) % 4 == 0) { /* bytes as they are */
        client.is_lenient = true;
        (void)h2_send(&client, at, (size_t)(end - at));
        return;
    }
    while (at < end && !client.has_ended) {
        uint8_t op = next(&at, end);
        if (op >= 0xc0)
            ask(&at, end);
        else if (op >= 0xb0)
            pass_time(op & 15u ? 300 : 21000);
        else if (op >= 0xa0)
            h2_drive(&client);
        else
            send_frame(&at, end, op);
        if ((op & 3) == 0)
            h2_drive(&client);
        run_programs();
    }
}

static void
check_witness(void)
{
    int fd = open_client(1 << 20);
    say(fd, "GET /small HTTP/1.1\r\nHost: own.test\r\nConnection: close\r\n\r\n");
    MUST(heard(fd, "HTTP/1.1 200 OK\r\n"));
    (void)close(fd);
    drive();
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    set_up();
    check_witness(); /* opens the document root, for good */
    return atexit(tear_down);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int before = fcntl(0, F_DUPFD_CLOEXEC, 3);
    MUST(before >= 0 && close(before) == 0);
    worker->now_ns = pc_now_ns();
    clear_log();
    h2_begin(&client, open_client(1 << 20));
    h2_drive(&client);
    converse(data, data + size);
    check_witness();
    (void)shutdown(client.fd, SHUT_WR);
    for (int turn = 0; turn < MAX_TURNS && (atomic_load(&one.child->open_count) > 0 || turn < 3); turn++) {
        h2_drive(&client);
        run_programs();
        if (turn > 3)
            pass_time(61000);
    }
    h2_end(&client);
    drive();
    run_programs();
    MUST(atomic_load(&one.child->open_count) == 0 && worker->woken == NULL && worker->jobs == NULL);
    MUST(child_counter(&one, PC_C_CONNECTIONS) == 0 && child_counter(&one, PC_C_PARKED) == 0);
    int after = fcntl(0, F_DUPFD_CLOEXEC, 3);
    MUST(after == before && close(after) == 0);
    return 0;
}
