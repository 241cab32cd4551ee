/* tls.h - what the files behind pc_transport_tls share. Nothing else in the data plane but pem.h includes OpenSSL's headers.
 * Words: site - what a host's handshakes are made with. */
#ifndef PC_TLS_H
#define PC_TLS_H

#include <openssl/ssl.h>

#include "child.h"

struct pc_tls_site {
    SSL_CTX *ctx; /* NULL = plain, or broken */
    struct pc_host *host;
    struct pc_child *child;
    char why[256]; /* broken: since no certificate can be used; "" = it is not */
    bool has_strange_key; /* none, or another than its certificate's: compile has seen that they belong together */
    _Atomic uint64_t said_ns; /* when a refused handshake was last told of */
};

/* Of a child that has a host with TLS. */
struct pc_tls_store {
    uint32_t count;
    struct pc_tls_site sites[]; /* by the hosts' indexes */
};

/* What a handshake has come to, copied when it was done: HTTP/2 streams ask for it on other threads than the one that is in the SSL. */
struct pc_tls_facts {
    const char *protocol;      /* static; NULL = the handshake is not done */
    const SSL_CIPHER *cipher;  /* static */
    X509 *own, *client;        /* own is its SSL_CTX's; client NULL = it gave none */
    STACK_OF(X509) *client_chain; /* behind client; NULL = nothing */
    long verify_result;
    bool is_resumed, renegotiates_safely;
    uint8_t session_id[SSL_MAX_SSL_SESSION_ID_LENGTH];
    uint32_t session_id_len;
};

/* Of a connection. OpenSSL writes without ever being told to wait: what the socket does not take at once lies in `out`, and nothing
 * new is taken from the caller until that is gone. */
struct pc_tls {
    SSL *ssl;              /* the connection's owner's alone; freed with the connection */
    struct pc_tls_facts facts;
    _Atomic uint32_t refs; /* its connection, and the HTTP/2 streams on it, who ask for facts, name and site */
    struct pc_conn *conn;
    struct pc_tls_site *site;
    char *out; /* NULL = nothing waits */
    uint32_t out_at, out_len, out_cap;
    uint32_t taken;      /* bytes of the socket since the last one that was the caller's */
    bool has_more;       /* the caller sends again at once */
    bool has_written;    /* in this step of the handshake */
    bool is_reading;     /* OpenSSL is, for the caller */
    bool holds;          /* in `out`, what the socket would take: more is about to go with it */
    bool has_failed;     /* no word of ours means anything any more */
    bool has_ended;      /* the socket has */
    uint16_t name_len;   /* server name that the client gave; 0 = none */
    char name[PC_MAX_HOST_BYTES + 1];
};

/* tls_session.c */
void pc_tls_tickets_use(SSL_CTX *ctx); /* SSLSessionTickets on, and there are keys */

/* tls_ctx.c */
/* One host's, from its record and the child's key descriptors. 0, or -PC_E_BAD with site->why. */
int pc_tls_site_open(struct pc_tls_site *site);

/* tls_hello.c: what is decided when a client has said hello, before anything of an old session counts */
void pc_tls_hello_use(struct pc_tls_site *site);
/* The host whose handshakes have this name on this connection's address; NULL = none. */
struct pc_host *pc_tls_host(const struct pc_child *child, const struct pc_conn *conn, struct pc_slice name);

/* tls_io.c */
/* A connection's, for a handshake as server; NULL = out of memory. */
struct pc_tls *pc_tls_new(struct pc_tls_site *site, struct pc_conn *conn);
/* 1 done, 0 wait for the socket, -PC_E_BAD refused (an alert was sent), -PC_E_CLOSED the client has gone. */
int pc_tls_handshake(struct pc_conn *conn);

/* tls_vars.c: SSL_*, HTTPS */
void pc_tls_learn(struct pc_tls *tls); /* the handshake is done */
void pc_tls_forget(struct pc_tls_facts *facts);
struct pc_slice pc_tls_fact(const struct pc_conn *conn, struct pc_slice name, struct pc_arena *arena);
uint32_t pc_tls_facts(const struct pc_conn *conn, uint32_t options, struct pc_arena *arena, struct pc_pair **ret_facts);

#endif
