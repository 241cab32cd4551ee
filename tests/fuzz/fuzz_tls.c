/* Invariant: whatever bytes come at a TLS connection, and whatever becomes of those of a true client, it ends within bounded steps; what waits
 * for the socket is bounded; another client is served right afterwards; no connection, descriptor or buffer is left. */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c map.c mime.c page.c peek.c record.c regex.c request.c respond.c route.c serve.c settings.c tlv.c */
/* sources: transport.c uri.c util.c why.c wild.c gate.c gate_answer.c trailer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c dial.c kept.c knock.c target.c gate_http.c h1out.c proxy.c remoteip.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c hello.c phpini.c */
/* sources: tls.c tls_ctx.c pem.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* flags: -D_GNU_SOURCE -Wno-deprecated-declarations */
/* libs: -lpcre2-8 -lssl -lcrypto */
/* libs: -lnghttp2 */
/* seeds: tls */
/* max_len: 2048 */
#include <openssl/rand.h>

#include "../native/tls_serve.h"
#include "fuzz.h"

#define MAX_TURNS 64
#define OUT_WAITING 131072

/* ------------------------------------------------------------------ the same keys, certificates and nonces for the same input */

static uint64_t random_state;

static int
give_random(unsigned char *buf, int len)
{
    for (int i = 0; i < len; i++) {
        random_state = random_state * 6364136223846793005u + 1442695040888963407u;
        buf[i] = (unsigned char)(random_state >> 56);
    }
    return 1;
}

static int
has_random(void)
{
    return 1;
}

static const RAND_METHOD fixed_random = {.bytes = give_random, .pseudorand = give_random, .status = has_random};

/* ------------------------------------------------------------------ the input */

static uint8_t
next(const uint8_t **at, const uint8_t *end)
{
    return *at < end ? *(*at)++ : 0;
}

static void
check_waiting(void)
{
    const struct pc_tls *tls = one.child->chunks[0][0].tls;
    MUST(tls == NULL || tls->out_cap <= OUT_WAITING);
}

/* Bytes as they are, in pieces. */
static void
send_raw(struct tls_client *client, const uint8_t *at, const uint8_t *end, uint32_t kind)
{
    struct fuzz_split split = {.kind = kind, .state = (uint32_t)(end - at)};
    while (at < end) {
        size_t piece = fuzz_piece(&split, (size_t)(end - at));
        if (send(client->fd, at, piece, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)piece)
            return;
        at += piece;
        drive();
        check_waiting();
    }
}

/* What the client would send, with bytes of it changed, left out or put in where the input says so. */
static void
send_spoilt(struct tls_client *client, const uint8_t **at, const uint8_t *end)
{
    unsigned char flight[65536];
    int len = BIO_read(client->out, flight, (int)sizeof flight - 64);
    for (int i = next(at, end) % 4; i > 0 && len > 8; i--) {
        uint8_t how = next(at, end), with = next(at, end);
        int where = (next(at, end) | next(at, end) << 8) % len;
        if (how % 4 == 0) {
            flight[where] = with;
        } else if (how % 4 == 1) {
            flight[where] ^= (unsigned char)(1u << (with % 8));
        } else if (how % 4 == 2) {
            len = where;
        } else {
            memmove(flight + where + 1, flight + where, (size_t)(len - where));
            flight[where] = with;
            len++;
        }
    }
    if (len > 0)
        send_raw(client, flight, flight + len, next(at, end) % 3);
}

static void
hear(struct tls_client *client)
{
    char buf[16384];
    (void)tls_pump(client, 0, ALL);
    ERR_clear_error();
    if (SSL_do_handshake(client->ssl) == 1)
        while (SSL_read(client->ssl, buf, sizeof buf) > 0) {}
    ERR_clear_error();
}

static void
converse(struct tls_client *client, const uint8_t *at, const uint8_t *end)
{
    static const char request[] = "GET /middle HTTP/1.1\r\nHost: own.test\r\n\r\n";
    (void)SSL_do_handshake(client->ssl);
    while (at < end && !client->saw_end) {
        uint8_t what = next(&at, end);
        if (what % 8 == 7 && SSL_is_init_finished(client->ssl))
            (void)SSL_write(client->ssl, request, (int)sizeof request - 1);
        else if (what % 8 == 6 && SSL_is_init_finished(client->ssl) && SSL_version(client->ssl) == TLS1_3_VERSION)
            (void)SSL_key_update(client->ssl, (what & 16) != 0 ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED);
        else if (what % 8 == 5)
            (void)SSL_shutdown(client->ssl);
        else if (what % 8 == 4)
            send_spoilt(client, &at, end);
        else
            (void)tls_pump(client, ALL, 0);
        drive();
        check_waiting();
        hear(client);
    }
}

/* ------------------------------------------------------------------ the target */

static void
tear_down(void)
{
    stop();
    MUST(end() == 0);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    MUST(RAND_set_rand_method(&fixed_random) == 1);
    begin();
    start();
    return atexit(tear_down);
}

static void
check_witness(void)
{
    struct tls_client client = call(v13, TWO, "two.test");
    MUST(go_on(&client, ALL, ALL, is_connected));
    say(&client, "GET /small HTTP/1.1\r\nHost: two.test\r\nConnection: close\r\n\r\n");
    MUST(go_on(&client, ALL, ALL, has_heard_all));
    MUST(ends_with_file("small", 60));
    hang_up(&client);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"own.test", "client.test", "free.test", NULL, "nobody.test", "broken.test"};
    static const uint32_t hosts[] = {OWN, CLIENT, FREE, OWN, OWN, BROKEN};
    const uint8_t *at = data, *end = data + size;
    uint8_t how = next(&at, end), who = next(&at, end) % COUNT_OF(names);
    int before = fcntl(0, F_DUPFD_CLOEXEC, 3);
    MUST(before >= 0 && close(before) == 0);
    random_state = 4711;
    worker->now_ns = pc_now_ns();
    struct tls_client client = call_with((how & 1) != 0 ? v12 : v13, hosts[who], names[who], (how & 2) != 0 ? 4096 : 1 << 20);
    if ((how & 4) != 0 && hosts[who] != OWN)
        MUST(SSL_use_certificate(client.ssl, alice->cert) == 1 && SSL_use_PrivateKey(client.ssl, alice->key) == 1);
    if ((how & 8) != 0)
        send_raw(&client, at, end, (how >> 4) % 3);
    else
        converse(&client, at, end);
    (void)shutdown(client.fd, SHUT_WR);
    for (int turn = 0; turn < MAX_TURNS && atomic_load(&one.child->open_count) > 0; turn++) {
        drive();
        (void)tls_pump(&client, 0, ALL);
        if (turn > 2)
            pc_conn_sweep(worker, worker->now_ns += 61000 * MS);
    }
    MUST(atomic_load(&one.child->open_count) == 0 && worker->woken == NULL);
    MUST(child_counter(&one, PC_C_CONNECTIONS) == 0 && child_counter(&one, PC_C_PARKED) == 0);
    tls_client_end(&client);
    MUST(ftruncate(log_fd, 0) == 0);
    worker->now_ns = pc_now_ns();
    if ((how & 0x30) == 0)
        check_witness();
    int after = fcntl(0, F_DUPFD_CLOEXEC, 3);
    MUST(after == before && close(after) == 0);
    return 0;
}
