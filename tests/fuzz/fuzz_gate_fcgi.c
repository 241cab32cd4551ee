/* Invariant: whatever a FastCGI responder writes, in whatever pieces, while its client sends, or leaves: the client gets a whole
 * response, or the connection ends; a request behind it is answered right; no connection, descriptor or buffer is left. */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c map.c mime.c page.c peek.c record.c regex.c request.c remoteip.c respond.c route.c serve.c settings.c tlv.c */
/* sources: transport.c uri.c util.c why.c wild.c gate.c gate_answer.c trailer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c dial.c kept.c knock.c target.c gate_http.c h1out.c proxy.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c hello.c phpini.c */
/* flags: -D_GNU_SOURCE */
/* sources: tls.c tls_ctx.c pem.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* libs: -lpcre2-8 -lssl -lcrypto */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* libs: -lnghttp2 */
/* seeds: fcgi */
/* max_len: 4096 */
#include "loop.c" /* for handle_event */

#include <sys/un.h>

#include "../native/gate_case.h"
#include "fuzz.h"

struct mode { /* from the input's checksum, so that seeds are plain answers */
    bool is_head, has_body, is_chunked, reads, leaves, has_second;
};

static const char second[] = "GET /small HTTP/1.1\r\nHost: own.test\r\n\r\n";
static const char begin[] = "\1\6\0\1\0\2\0\0\n\n"; /* STDOUT of an empty head: what follows is body */
static int listener;

static int
ask(const struct mode *mode)
{
    char text[256];
    int fd = open_client(mode->leaves ? 4608 : 1 << 20);
    (void)snprintf(text, sizeof text, "%s /app/x HTTP/1.1\r\nHost: own.test\r\n%s\r\n%s",
                   mode->is_head ? "HEAD" : mode->has_body ? "POST" : "GET",
                   !mode->has_body ? "" : mode->is_chunked ? "Transfer-Encoding: chunked\r\n" : "Content-Length: 4\r\n",
                   !mode->has_body ? "" : mode->is_chunked ? "4\r\nbody\r\n" : "bo");
    say(fd, text);
    return fd;
}

/* Write all of it, unless nobody reads any more, and leave. */
static void
play_responder(const uint8_t *data, size_t size, const struct mode *mode, uint32_t seed, int client)
{
    static char input[65536];
    struct fuzz_split split = {.kind = 2 + seed, .state = seed};
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    MUST(fd >= 0);
    bool is_heard = true;
    for (size_t at = 0; at < size && is_heard;) {
        size_t piece = fuzz_piece(&split, size - at) * (1 + size / 256);
        piece = piece < size - at ? piece : size - at;
        ssize_t count = send(fd, data + at, piece, MSG_NOSIGNAL);
        is_heard = count > 0 || (count < 0 && errno == EAGAIN);
        at += count > 0 ? (size_t)count : 0;
        if (mode->reads)
            (void)recv(fd, input, sizeof input, 0);
        drive();
        if (client >= 0)
            receive(client);
    }
    MUST(close(fd) == 0);
    drive();
}

static void
check_response(const struct mode *mode)
{
    if (out_len == 0) {
        MUST(client_saw_end);
        return;
    }
    const char *end = memmem(out, out_len, "\r\n\r\n", 4);
    MUST(end != NULL && memcmp(out, "HTTP/1.1 ", 9) == 0);
    unsigned long status = strtoul(out + 9, NULL, 10);
    MUST(status >= 200 && status <= 999);
    size_t at = (size_t)(end - out) + 4;
    bool is_chunked = memmem(out, at, "\r\nTransfer-Encoding: chunked\r\n", 30) != NULL;
    struct pc_chunked chunked = {0};
    while (is_chunked && !mode->is_head && !chunked.is_done && at < out_len) {
        struct pc_slice data;
        int used = pc_chunked_decode(&chunked, out + at, out_len - at, &data);
        MUST(used >= 0);
        at += (size_t)used;
    }
    MUST(!is_chunked || mode->is_head || chunked.is_done || client_saw_end);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)argc;
    (void)argv;
    (void)signal(SIGPIPE, SIG_IGN);
    set_up();
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s/app.sock", one.directory);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    MUST(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 4) == 0);
    int fd = open_client(1 << 20); /* opens the roots, for good */
    say(fd, second);
    (void)close(fd);
    drive();
    return atexit(tear_down);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t seed = pc_crc32((const char *)data, size);
    const struct mode mode = {.is_head = (seed & 0x38) == 0, .has_body = (seed & 0xc0) == 0 && (seed & 0x38) != 0,
                              .is_chunked = seed & 0x100, .reads = seed & 0x200, .leaves = (seed & 0x1c00) == 0,
                              .has_second = seed & 0x10000};
    uint8_t *whole = malloc(sizeof begin - 1 + size);
    size_t len = seed & 0x20000 ? sizeof begin - 1 : 0;
    MUST(whole != NULL);
    memcpy(whole, begin, len);
    memcpy(whole + len, data, size);
    int free_before = fcntl(0, F_DUPFD_CLOEXEC, 3);
    MUST(free_before >= 0 && close(free_before) == 0);
    worker->now_ns = pc_now_ns();
    clear_log();
    int fd = ask(&mode);
    play_responder(whole, len + size, &mode, seed, mode.leaves ? -1 : fd);
    if (!mode.leaves && mode.has_body)
        (void)send(fd, mode.is_chunked ? "0\r\n\r\n" : "dy", mode.is_chunked ? 5 : 2, MSG_NOSIGNAL);
    if (!mode.leaves && mode.has_second)
        (void)send(fd, second, sizeof second - 1, MSG_NOSIGNAL);
    for (int round = 0; round < 6 && !mode.leaves; round++)
        receive(fd);
    if (mode.leaves)
        MUST(close(fd) == 0);
    drive();
    while (take_job() != 0)
        leave(); /* a program that a local redirect started */
    for (int round = 0; round < 4 && atomic_load(&one.child->open_count) > 0; round++)
        pass_time(3600 * 1000);
    if (!mode.leaves) {
        receive(fd);
        check_response(&mode);
        MUST(close(fd) == 0);
        drive();
    }
    int again = accept4(listener, NULL, NULL, SOCK_CLOEXEC); /* a local redirect to the responder itself */
    MUST(again < 0 || close(again) == 0);
    MUST(atomic_load(&one.child->open_count) == 0);
    int free_after = fcntl(0, F_DUPFD_CLOEXEC, 3);
    MUST(free_after == free_before && close(free_after) == 0);
    free(whole);
    return 0;
}
