/* Invariant: however a client's bytes arrive, its connection ends within bounded steps; every whole request is answered, in order, until
 * a response says close or the connection is passed on; nothing is answered behind a refused request or a response that says close; what
 * is sent parses, files arrive as they are; another client's kept connection is served right meanwhile; no descriptor, buffer or count
 * is left. */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c map.c mime.c page.c peek.c record.c regex.c request.c respond.c route.c serve.c settings.c tlv.c */
/* sources: transport.c uri.c util.c wild.c */
/* sources: why.c gate.c gate_answer.c trailer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c dial.c kept.c knock.c target.c gate_http.c h1out.c proxy.c remoteip.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c hello.c phpini.c */
/* flags: -D_GNU_SOURCE */
/* sources: tls.c tls_ctx.c pem.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* libs: -lpcre2-8 -lssl -lcrypto */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* libs: -lnghttp2 */
/* seeds: http1 conn */
/* max_len: 4096 */
#include "hand.h"
#include "loop.c" /* for handle_event */

#include "../native/child_case.h"
#include "fuzz.h"

#define MAX_REQUESTS 4096
#define MAX_ROUNDS 200000
#define OUT_BYTES (64u << 20)
#define REPEATED_BYTES 16384

static struct child_case one;
static struct pc_worker *worker;
static char *out; /* what the client has received */
static size_t out_len;
static bool client_saw_end;

struct mode { /* from the input's checksum, so that seeds are plain requests */
    bool splits, has_witness, reads_late, ends_input, fills_inbox, frees_inbox, repeats;
};

/* ------------------------------------------------------------------ the server's side */

static void
do_jobs(void)
{
    while (worker->jobs != NULL) {
        struct pc_conn *conn = worker->jobs;
        struct pc_question question;
        worker->jobs = conn->next;
        if (worker->jobs == NULL)
            worker->jobs_tail = NULL;
        worker->may_block = true;
        if (conn->asks) {
            worker->current = conn;
            MUST(pc_ask_question(one.child, worker->slot, &question) == 0 && strcmp(question.handler, "whoami") == 0);
            pc_ask_answer(one.child, worker->slot, 200, "text/plain", "asked\n", 6);
            worker->current = NULL;
        }
        pc_loop_conn(worker, conn);
        worker->may_block = false;
    }
}

/* Handle what there is. Returns whether there was anything. */
static bool
drive(void)
{
    struct epoll_event events[PC_EVENT_BATCH];
    int count = epoll_wait(one.child->epoll_fd, events, PC_EVENT_BATCH, 0);
    for (int i = 0; i < count; i++)
        handle_event(worker, &events[i]);
    do_jobs();
    return count > 0;
}

static int
open_client(bool is_narrow)
{
    int pair[2], room = is_narrow ? 4608 : 1 << 20; /* wide: a long pipeline is answered without a wait */
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    MUST(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room) == 0);
    MUST(pc_conn_reserve(one.child));
    struct pc_conn *conn = pc_conn_new(one.child, pair[0]);
    MUST(conn != NULL);
    conn->client.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(0x7f000001)}, .sin_port = 1};
    conn->local.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(0x7f000001)}, .sin_port = htons(80)};
    conn->since_ns = worker->now_ns;
    conn->phase = PC_PHASE_PEEK;
    pc_conn_deadline(one.child, conn, worker->now_ns + PC_PEEK_TIMEOUT_MS * MS);
    pc_loop_conn(worker, conn);
    pc_conn_unreserve(one.child);
    do_jobs();
    return pair[1];
}

/* Take what was passed to identity 1. Returns how many connections. */
static unsigned
empty_inbox(void)
{
    static char raw[65536];
    unsigned count = 0;
    for (;;) {
        union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
        struct iovec whole = {raw, sizeof raw};
        struct msghdr message = {.msg_iov = &whole, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = 20};
        ssize_t len = recvmsg(one.other_inbox, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        struct cmsghdr *rights = len >= 0 ? CMSG_FIRSTHDR(&message) : NULL;
        struct pc_hand hand;
        struct pc_slice carried;
        int fd;
        if (len < 0)
            return count;
        if (rights == NULL)
            continue; /* what fill_inbox put there */
        memcpy(&fd, CMSG_DATA(rights), sizeof fd);
        MUST(close(fd) == 0 && pc_hand_check_message(raw, (size_t)len, &hand, &carried) == 0);
        count++;
    }
}

static void
fill_inbox(void)
{
    static const char junk[2000];
    while (send(one.child->inbox_write[1], junk, sizeof junk, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        ;
}

/* ------------------------------------------------------------------ the client's side */

static void
receive(int fd, size_t most)
{
    MUST(out_len < OUT_BYTES);
    ssize_t count = recv(fd, out + out_len, most < OUT_BYTES - out_len ? most : OUT_BYTES - out_len, MSG_DONTWAIT);
    client_saw_end = client_saw_end || count == 0;
    out_len += count > 0 ? (size_t)count : 0;
}

/* A second client on a connection of its own asks for a file, and must get just that. */
static void
witness_ask(int fd)
{
    static const char ask[] = "GET /small HTTP/1.1\r\nHost: own.test\r\n\r\n";
    MUST(send(fd, ask, sizeof ask - 1, MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof ask - 1);
}

static void
witness_hear(int fd)
{
    char answer[1024], *body = NULL;
    size_t len = 0;
    for (int round = 0; round < 100 && (body == NULL || len < (size_t)(body - answer) + 64); round++) {
        (void)drive();
        ssize_t count = recv(fd, answer + len, sizeof answer - 1 - len, MSG_DONTWAIT);
        len += count > 0 ? (size_t)count : 0;
        answer[len] = '\0';
        body = strstr(answer, "\r\n\r\n");
    }
    MUST(body != NULL && strncmp(answer, "HTTP/1.1 200 ", 13) == 0 && strlen(body) == 64);
    for (size_t i = 0; i < 60; i++)
        MUST(body[4 + i] == child_byte("small", i));
}

static void
converse(int fd, const uint8_t *data, size_t size, const struct mode *mode, uint32_t seed, int other, size_t unit)
{
    struct fuzz_split split = {.kind = mode->splits ? 2 + seed : 0, .state = seed};
    unsigned pieces = 0, refused = 0; /* one after the other */
    for (size_t at = 0; at < size && !client_saw_end && refused < 8; pieces++) {
        size_t piece = fuzz_piece(&split, size - at) * (1 + size / 1024); /* the socket holds some hundred pieces */
        piece = piece < size - at ? piece : size - at;
        if (mode->repeats) /* one request, and then all the others at once */
            piece = at == 0 ? unit : size - at;
        while (drive()) /* so that its event comes before the witness's */
            ;
        ssize_t sent = send(fd, data + at, piece, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            break;
        refused = sent < 0 ? refused + 1 : 0;
        at += sent > 0 ? (size_t)sent : 0;
        bool has_witness = other >= 0 && (pieces % 8 == 0 || mode->repeats);
        if (has_witness)
            witness_ask(other);
        (void)drive();
        if (has_witness)
            witness_hear(other);
        if (!mode->reads_late || sent < 0)
            receive(fd, OUT_BYTES);
    }
    MUST(refused < 8);
    if (mode->ends_input)
        (void)shutdown(fd, SHUT_WR);
    for (unsigned quiet = 0, round = 0; quiet < 3; round++) {
        size_t before = out_len;
        bool had_events = drive();
        receive(fd, mode->reads_late ? 1000 : OUT_BYTES);
        quiet = had_events || out_len > before ? 0 : quiet + 1;
        MUST(round < MAX_ROUNDS);
    }
}

/* ------------------------------------------------------------------ what must come back */

struct asked {
    bool is_head, is_whole;
};

struct model {
    unsigned heads, whole, most; /* heads that are whole, requests that are, responses at most */
    struct asked asked[MAX_REQUESTS];
};

/* Length of the body, SIZE_MAX when it is not whole, or -1 in *ret_bad. */
static size_t
body_length(const struct pc_head *head, const char *body, size_t len, bool *ret_bad)
{
    struct pc_chunked chunked = {0};
    size_t at = 0;
    if (!head->is_chunked)
        return head->has_length && head->content_length > len ? SIZE_MAX : (size_t)head->content_length;
    while (!chunked.is_done) {
        struct pc_slice part;
        int used = pc_chunked_decode(&chunked, body + at, len - at, &part);
        *ret_bad = used < 0;
        if (used <= 0)
            return SIZE_MAX;
        at += (size_t)used;
    }
    return at;
}

static void
make_model(struct model *model, const char *raw, size_t size)
{
    static const struct pc_h1_limits limits = {.line_bytes = 8190, .field_bytes = 8190, .field_count = 100};
    static struct pc_head head;
    size_t at = 0;
    model->heads = model->whole = model->most = 0;
    while (at < size && model->heads < MAX_REQUESTS) {
        bool is_bad = false;
        memset(&head, 0, offsetof(struct pc_head, fields));
        int len = pc_h1_parse_head(&head, raw + at, size - at, &limits);
        model->most = model->heads + 1;
        if (len <= 0)
            return; /* refused, or asked for in vain (408) */
        struct pc_slice name = {head.host.name, head.host.len};
        if (pc_slice_eq(name, PC_S("other.test")) || pc_slice_eq(name, PC_S("back.test")))
            return; /* passed on, or refused */
        size_t body = body_length(&head, raw + at + len, size - at - (size_t)len, &is_bad);
        model->asked[model->heads++] = (struct asked){head.method_id == PC_HEAD, body != SIZE_MAX};
        if (body == SIZE_MAX)
            return;
        model->whole++;
        at += (size_t)len + body;
    }
}

static void
check_file(const char *body, size_t len)
{
    const char *name = len == 60 ? "small" : len == CHILD_MIDDLE_BYTES ? "middle" : len == CHILD_BIG_BYTES ? "big" : NULL;
    for (size_t i = 0; name != NULL && i < len; i++)
        MUST(body[i] == child_byte(name, i));
}

static const char *
find_field(const char *head, const char *name)
{
    const char *line = strstr(head, name);
    return line != NULL ? line + strlen(name) : NULL;
}

/* Take one response off `at`. Returns whether it says close; ret_len: its length. */
static bool
take_response(const char *at, size_t len, bool is_head, bool may_lack_body, size_t *ret_len)
{
    static char head[65536];
    const char *end = memmem(at, len, "\r\n\r\n", 4);
    MUST(end != NULL && len > 12 && memcmp(at, "HTTP/1.1 ", 9) == 0 && (size_t)(end - at) < sizeof head);
    size_t head_len = (size_t)(end - at) + 4;
    memcpy(head, at, head_len);
    head[head_len] = '\0';
    MUST(strlen(head) == head_len); /* no NUL in it */
    for (size_t i = 0; i < head_len; i++)
        MUST(head[i] != '\n' || (i > 0 && head[i - 1] == '\r'));
    unsigned status = (unsigned)strtoul(head + 9, NULL, 10);
    MUST(status >= 200 && status <= 599 && head[12] == ' ');
    const char *length = find_field(head, "\r\nContent-Length: ");
    bool closes = strstr(head, "\r\nConnection: close\r\n") != NULL;
    bool has_body = !is_head && status != 204 && status != 304;
    MUST(status == 204 || status == 304 || length != NULL);
    size_t body = length != NULL && has_body ? strtoul(length, NULL, 10) : 0;
    if (may_lack_body && closes && len == head_len)
        body = 0; /* a refusal of a HEAD whose head was not whole */
    MUST(len - head_len >= body);
    if (status == 200)
        check_file(at + head_len, body);
    *ret_len = head_len + body;
    return closes;
}

static void
check_output(const struct model *model, unsigned passed_on)
{
    unsigned count = 0;
    bool closes = false;
    for (size_t at = 0; at < out_len; count++) {
        size_t len = 0;
        MUST(!closes && count < model->most);
        closes = take_response(out + at, out_len - at, count < model->heads && model->asked[count].is_head,
                               count >= model->heads || !model->asked[count].is_whole, &len);
        at += len;
    }
    MUST(closes || count >= model->whole);
    MUST(passed_on == 0 || count <= model->heads);
}

/* ------------------------------------------------------------------ one input */

static void
set_up(void)
{
    const struct sockaddr_in listener = {.sin_family = AF_INET, .sin_addr = {htonl(0x7f000001)}, .sin_port = htons(80)};
    const struct child_plan plan = {.start_threads = 1, .max_threads = 8, .keep_alive_ms = 5000, .listeners = &listener,
                                    .listener_count = 1, .listener_fd = -1, .log_fd = -1};
    child_new(&one, &plan);
    int slot = pc_worker_start(one.child, true), small = 4608;
    MUST(slot == 0 && setsockopt(one.child->inbox_write[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
    worker = &one.child->workers[0];
    out = malloc(OUT_BYTES + 1);
    MUST(out != NULL);
}

static void
tear_down(void)
{
    pc_worker_end(one.child, 0);
    child_end(&one);
    free(out);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    set_up();
    int fd = open_client(false); /* opens the document root, for good */
    witness_ask(fd);
    witness_hear(fd);
    (void)close(fd);
    (void)drive();
    return atexit(tear_down);
}

/* What still waits runs into its deadline. */
static void
expire_all(void)
{
    for (int round = 0; round < 6 && atomic_load(&one.child->open_count) > 0; round++) {
        worker->now_ns += 3600 * 1000 * MS;
        pc_conn_sweep(worker, worker->now_ns);
        pc_hand_retry(worker);
        do_jobs();
        while (drive())
            ;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct model model;
    static uint8_t long_pipeline[REPEATED_BYTES];
    uint32_t seed = pc_crc32((const char *)data, size);
    size_t unit = size;
    const struct mode mode = {.splits = seed & 1, .has_witness = (seed & 6) == 0, .reads_late = seed & 8, .ends_input = seed & 16,
                              .fills_inbox = (seed & 0x60) == 0, .frees_inbox = seed & 0x80,
                              .repeats = (seed & 0x700) == 0};
    int free_before = fcntl(0, F_DUPFD_CLOEXEC, 3);
    MUST(free_before >= 0 && close(free_before) == 0);
    if (mode.repeats && size > 0 && size < REPEATED_BYTES) {
        size_t len = 0;
        for (; len + size <= REPEATED_BYTES; len += size)
            memcpy(long_pipeline + len, data, size);
        data = long_pipeline;
        size = len;
    }
    make_model(&model, (const char *)data, size);
    worker->now_ns = pc_now_ns();
    out_len = 0;
    client_saw_end = false;
    if (mode.fills_inbox)
        fill_inbox();
    int other = mode.has_witness ? open_client(false) : -1, fd = open_client(mode.reads_late);
    converse(fd, data, size, &mode, seed, other, unit);
    unsigned passed_on = mode.frees_inbox ? empty_inbox() : 0;
    expire_all();
    for (size_t before = SIZE_MAX; before != out_len;) {
        before = out_len;
        receive(fd, OUT_BYTES);
        (void)drive();
    }
    passed_on += empty_inbox();
    MUST(atomic_load(&one.child->open_count) == 0 && atomic_load(&one.child->waiting_count) == 0);
    MUST(one.child->inbox_waiting[1] == 0 && one.child->inbox_waiting[2] == 0);
    MUST(child_counter(&one, PC_C_CONNECTIONS) == 0 && child_counter(&one, PC_C_PARKED) == 0);
    MUST(child_counter(&one, PC_C_WAITING) == 0);
    MUST(close(fd) == 0 && (other < 0 || close(other) == 0));
    check_output(&model, passed_on);
    int free_after = fcntl(0, F_DUPFD_CLOEXEC, 3);
    MUST(free_after == free_before && close(free_after) == 0);
    return 0;
}
