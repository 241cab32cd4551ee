/* tlsload.c - new TLS connections as fast as a few threads can make them, to the hosts that are named.
 * Runs as:  bench/run.   Talks to 127.0.0.1 only.
 * Usage: tlsload PORT SECONDS THREADS full|resumed|kept HOST...
 * full: a handshake with a certificate and one request per connection; resumed: with the session before, each thread to one host;
 * kept: one connection per thread, each for one host, as many requests as it takes. Checks that each answer begins as it must.
 * Prints one line: RESULT {"done": N, "failed": N, "resumed": N, "microseconds": N}
 * Build: cc -O2 tlsload.c -lssl -lcrypto -pthread */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <openssl/ssl.h>

static struct {
    uint16_t port;
    bool resumes, keeps;
    char **hosts;
    int host_count;
    uint64_t end_ns;
    _Atomic uint64_t done, failed, resumed;
} run;

struct thread {
    pthread_t thread;
    SSL_CTX *ctx;
    SSL_SESSION **sessions; /* by host */
    unsigned int seed;
    int number;
};

static uint64_t
now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int
dial(void)
{
    static const int on = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(run.port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0 && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0)
        return fd;
    if (fd >= 0)
        (void)close(fd);
    return -1;
}

/* One request and its whole answer, which is of 1 KB and a head. */
static bool
ask(SSL *ssl, const char *host)
{
    char text[8192], *body = NULL;
    int have = 0, len = snprintf(text, sizeof text, "GET /1k.html HTTP/1.1\r\nHost: %s\r\n\r\n", host);
    if (SSL_write(ssl, text, len) != len)
        return false;
    while (body == NULL || have - (int)(body - text) < 1024) {
        int count = SSL_read(ssl, text + have, (int)sizeof text - have - 1);
        if (count <= 0)
            return false;
        have += count;
        text[have] = '\0';
        body = strstr(text, "\r\n\r\n");
        body = body != NULL ? body + 4 : NULL;
    }
    return strncmp(text, "HTTP/1.1 200", 12) == 0 && strncmp(body, host, strlen(host)) == 0;
}

static SSL *
shake_hands(struct thread *own, int host, int fd)
{
    SSL *ssl = SSL_new(own->ctx);
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1 || SSL_set_tlsext_host_name(ssl, run.hosts[host]) != 1)
        abort();
    if (run.resumes && own->sessions[host] != NULL)
        (void)SSL_set_session(ssl, own->sessions[host]);
    if (SSL_connect(ssl) == 1)
        return ssl;
    SSL_free(ssl);
    return NULL;
}

static void
one_connection(struct thread *own, int host)
{
    int fd = dial();
    SSL *ssl = fd >= 0 ? shake_hands(own, host, fd) : NULL;
    bool is_right = ssl != NULL && ask(ssl, run.hosts[host]);
    while (run.keeps && is_right && now_ns() < run.end_ns) {
        (void)atomic_fetch_add(&run.done, 1);
        is_right = ask(ssl, run.hosts[host]);
    }
    (void)atomic_fetch_add(is_right ? &run.done : &run.failed, 1);
    if (is_right && SSL_session_reused(ssl))
        (void)atomic_fetch_add(&run.resumed, 1);
    if (is_right && run.resumes) {
        SSL_SESSION_free(own->sessions[host]);
        own->sessions[host] = SSL_get1_session(ssl);
    }
    if (ssl != NULL)
        SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* else OpenSSL takes the session for a bad one */
    SSL_free(ssl);
    if (fd >= 0)
        (void)close(fd);
}

static void *
work(void *argument)
{
    struct thread *own = argument;
    while (now_ns() < run.end_ns)
        one_connection(own, run.keeps || run.resumes ? own->number % run.host_count : rand_r(&own->seed) % run.host_count);
    return NULL;
}

int
main(int argc, char **argv)
{
    if (argc < 6) {
        (void)fprintf(stderr, "usage: tlsload PORT SECONDS THREADS full|resumed|kept HOST...\n");
        return 2;
    }
    int count = atoi(argv[3]);
    run.port = (uint16_t)atoi(argv[1]);
    run.resumes = strcmp(argv[4], "resumed") == 0;
    run.keeps = strcmp(argv[4], "kept") == 0;
    run.hosts = argv + 5;
    run.host_count = argc - 5;
    struct thread *threads = calloc((size_t)count, sizeof *threads);
    uint64_t start = now_ns();
    run.end_ns = start + (uint64_t)(atof(argv[2]) * 1e9);
    for (int i = 0; i < count; i++) {
        SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
        threads[i] = (struct thread){.ctx = ctx, .sessions = calloc((size_t)run.host_count, sizeof(SSL_SESSION *)), .seed = (unsigned int)i + 1, .number = i};
        if (ctx == NULL || threads[i].sessions == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1
            || pthread_create(&threads[i].thread, NULL, work, &threads[i]) != 0)
            abort();
    }
    for (int i = 0; i < count; i++)
        (void)pthread_join(threads[i].thread, NULL);
    (void)printf("RESULT {\"done\": %llu, \"failed\": %llu, \"resumed\": %llu, \"microseconds\": %llu}\n", (unsigned long long)run.done,
                 (unsigned long long)run.failed, (unsigned long long)run.resumed, (unsigned long long)((now_ns() - start) / 1000));
    return 0;
}
