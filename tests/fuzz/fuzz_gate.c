/* Invariant: whatever a program writes, in whatever pieces, while its client sends, reads late or leaves: the client gets a head of whole,
 * clean lines and just as many bytes as that promises, or the connection ends; a request behind it is answered right; no connection,
 * descriptor, job or buffer is left. */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c map.c mime.c page.c peek.c record.c regex.c request.c respond.c route.c serve.c settings.c tlv.c */
/* sources: transport.c uri.c util.c why.c wild.c gate.c gate_answer.c trailer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c dial.c kept.c knock.c target.c gate_http.c h1out.c proxy.c remoteip.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c hello.c phpini.c */
/* flags: -D_GNU_SOURCE */
/* sources: tls.c tls_ctx.c pem.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* libs: -lpcre2-8 -lssl -lcrypto */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* libs: -lnghttp2 */
/* seeds: reply */
/* max_len: 4096 */
#include "loop.c" /* for handle_event */

#include "../native/gate_case.h"
#include "fuzz.h"

struct mode { /* from the input's checksum, so that seeds are plain answers */
    bool is_nph, is_head, has_body, is_chunked, reads_input, leaves, has_errors, has_second;
};

static const char second[] = "GET /small HTTP/1.1\r\nHost: own.test\r\n\r\n";

/* Write all of it, however full the pipe is; false: nobody reads any more. */
static bool
give(int fd, const char *bytes, size_t len, int client)
{
    for (unsigned round = 0; len > 0; round++) {
        ssize_t count = write(fd, bytes, len);
        if (count < 0 && errno == EPIPE)
            return false;
        bytes += count > 0 ? count : 0;
        len -= count > 0 ? (size_t)count : 0;
        drive();
        if (client >= 0)
            receive(client);
        MUST(round < 100000);
    }
    return true;
}

static int
ask(const struct mode *mode)
{
    char text[256];
    int fd = open_client(mode->leaves ? 4608 : 1 << 20);
    (void)snprintf(text, sizeof text, "%s /cgi/%sscript HTTP/1.1\r\nHost: own.test\r\n%s\r\n%s",
                   mode->is_head ? "HEAD" : mode->has_body ? "POST" : "GET", mode->is_nph ? "nph-" : "",
                   !mode->has_body ? "" : mode->is_chunked ? "Transfer-Encoding: chunked\r\n" : "Content-Length: 4\r\n",
                   !mode->has_body ? "" : mode->is_chunked ? "4\r\nbody\r\n" : "bo");
    say(fd, text);
    MUST(take_job() == PC_JOB_RUN);
    return fd;
}

static void
play_program(const uint8_t *data, size_t size, const struct mode *mode, uint32_t seed, int fd)
{
    struct fuzz_split split = {.kind = 2 + seed, .state = seed};
    char input[16];
    bool is_heard = fcntl(program.fds[1], F_SETFL, O_NONBLOCK) == 0;
    for (size_t at = 0; at < size && is_heard;) {
        size_t piece = fuzz_piece(&split, size - at) * (1 + size / 256);
        piece = piece < size - at ? piece : size - at;
        is_heard = give(program.fds[1], (const char *)data + at, piece, mode->leaves ? -1 : fd);
        at += piece;
        if (mode->reads_input)
            (void)read_input(input, sizeof input);
        if (mode->has_errors && at >= size / 2)
            (void)give(program.fds[2], "two\nlines", 9, -1);
    }
}

/* What the client has received begins with one whole response, which ends at *ret_end; or it was cut, and is over. */
static void
check_response(const struct mode *mode, size_t *ret_end)
{
    const char *end = memmem(out, out_len, "\r\n\r\n", 4);
    *ret_end = out_len;
    if (end == NULL) {
        MUST(out_len == 0 && client_saw_end);
        return;
    }
    size_t head_len = (size_t)(end - out) + 4;
    MUST(out_len > 12 && memcmp(out, "HTTP/1.1 ", 9) == 0 && memchr(out, '\0', head_len) == NULL);
    for (size_t i = 0; i < head_len; i++)
        MUST((out[i] != '\n' || (i > 0 && out[i - 1] == '\r')) && (out[i] != '\r' || out[i + 1] == '\n'));
    unsigned long status = strtoul(out + 9, NULL, 10);
    MUST(status >= 200 && status <= 999);
    struct pc_slice head = {out, head_len};
    const char *length = memmem(head.base, head.len, "\r\nContent-Length: ", 18);
    bool is_chunked = memmem(head.base, head.len, "\r\nTransfer-Encoding: chunked\r\n", 30) != NULL;
    MUST(length == NULL || !is_chunked);
    if (mode->is_head || status == 204 || status == 304) {
        *ret_end = head_len;
    } else if (length != NULL) {
        size_t want = strtoul(length + 18, NULL, 10);
        MUST(out_len - head_len >= want || client_saw_end);
        *ret_end = out_len - head_len < want ? out_len : head_len + want;
    } else if (is_chunked) {
        struct pc_chunked chunked = {0};
        size_t at = head_len;
        while (!chunked.is_done && at < out_len) {
            struct pc_slice data;
            int used = pc_chunked_decode(&chunked, out + at, out_len - at, &data);
            MUST(used >= 0);
            at += (size_t)used;
        }
        MUST(chunked.is_done || client_saw_end);
        *ret_end = at;
    }
}

static void
empty_box(void)
{
    while (take_job() != 0)
        leave(); /* a program that a local redirect started */
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    (void)signal(SIGPIPE, SIG_IGN);
    set_up();
    int fd = open_client(1 << 20); /* opens the roots, for good */
    say(fd, second);
    say(fd, "GET /cgi/none HTTP/1.1\r\nHost: own.test\r\n\r\n");
    (void)close(fd);
    drive();
    return atexit(tear_down);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t seed = pc_crc32((const char *)data, size);
    const struct mode mode = {.is_nph = (seed & 7) == 0, .is_head = (seed & 0x38) == 0, .has_body = (seed & 0xc0) == 0 && (seed & 0x38) != 0,
                              .is_chunked = seed & 0x100, .reads_input = seed & 0x200, .leaves = (seed & 0x1c00) == 0,
                              .has_errors = (seed & 0xe000) == 0, .has_second = seed & 0x10000};
    int free_before = fcntl(0, F_DUPFD_CLOEXEC, 3);
    MUST(free_before >= 0 && close(free_before) == 0);
    worker->now_ns = pc_now_ns();
    clear_log();
    int fd = ask(&mode);
    play_program(data, size, &mode, seed, mode.leaves ? -1 : fd);
    if (!mode.leaves && mode.has_body)
        (void)send(fd, mode.is_chunked ? "0\r\n\r\n" : "dy", mode.is_chunked ? 5 : 2, MSG_NOSIGNAL);
    if (!mode.leaves && mode.has_second)
        (void)send(fd, second, sizeof second - 1, MSG_NOSIGNAL);
    if (mode.leaves)
        MUST(close(fd) == 0);
    drive();
    leave();
    empty_box();
    for (int round = 0; round < 6 && !mode.leaves; round++)
        receive(fd);
    for (int round = 0; round < 4 && atomic_load(&one.child->open_count) > 0; round++)
        pass_time(3600 * 1000);
    if (!mode.leaves) {
        size_t end = 0;
        receive(fd);
        check_response(&mode, &end);
        if (end < out_len) /* the second one's answer, or what a file said behind a local redirect */
            MUST(mode.has_second && memcmp(out + end, "HTTP/1.1 ", 9) == 0);
        MUST(close(fd) == 0);
        drive();
    }
    empty_box();
    MUST(atomic_load(&one.child->open_count) == 0 && atomic_load(&one.child->job_waiting) == 0);
    int free_after = fcntl(0, F_DUPFD_CLOEXEC, 3);
    MUST(free_after == free_before && close(free_after) == 0);
    return 0;
}
