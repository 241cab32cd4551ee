/* tls_case.h - a child with TLS hosts, certificates made on the spot, and a client of which every byte can be held back.
 * Runs as:  the developer.   Sees: a directory of its own under /tmp.
 * Trusts:   the tests.   Distrusts: -
 * Before:   tls_serve.h, test_tls_tsan.c   After: - */
#ifndef TLS_CASE_H
#define TLS_CASE_H

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "tls.h"

#include "child_case.h"

/* ------------------------------------------------------------------ certificates */

struct tls_cert {
    EVP_PKEY *key;
    X509 *cert;
    char pem[4096], key_pem[4096];
};

static inline void
tls_must(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "%s\n", what);
    ERR_print_errors_fp(stderr);
    abort();
}

static inline void
tls_write(char *to, size_t cap, BIO *bio)
{
    char *bytes;
    long len = BIO_get_mem_data(bio, &bytes);
    tls_must(len > 0 && (size_t)len < cap, "PEM");
    memcpy(to, bytes, (size_t)len);
    to[len] = '\0';
    BIO_free(bio);
}

static inline void
tls_extend(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    tls_must(extension != NULL && X509_add_ext(cert, extension, -1) == 1, value);
    X509_EXTENSION_free(extension);
}

/* For `name`; signed by `issuer` (NULL = itself). An authority has no name among its alternatives. */
static inline struct tls_cert *
tls_make(const char *name, bool is_rsa, bool is_authority, const struct tls_cert *issuer)
{
    static long serial = 4096;
    char alternatives[256];
    struct tls_cert *made = calloc(1, sizeof *made);
    tls_must(made != NULL, "calloc");
    made->key = is_rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
    made->cert = X509_new();
    tls_must(made->key != NULL && made->cert != NULL, "a key");
    X509_NAME *subject = X509_get_subject_name(made->cert);
    tls_must(X509_set_version(made->cert, 2) == 1 && ASN1_INTEGER_set(X509_get_serialNumber(made->cert), serial++) == 1, "serial");
    (void)X509_gmtime_adj(X509_getm_notBefore(made->cert), -3600);
    (void)X509_gmtime_adj(X509_getm_notAfter(made->cert), 86400L * 30 - 3600);
    tls_must(X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_UTF8, (const unsigned char *)"Tests, Inc.", -1, -1, 0) == 1, "O");
    tls_must(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)name, -1, -1, 0) == 1, "CN");
    tls_must(X509_set_issuer_name(made->cert, X509_get_subject_name(issuer != NULL ? issuer->cert : made->cert)) == 1, "issuer");
    tls_must(X509_set_pubkey(made->cert, made->key) == 1, "public key");
    tls_extend(made->cert, issuer != NULL ? issuer->cert : made->cert, NID_basic_constraints, is_authority ? "critical,CA:TRUE" : "CA:FALSE");
    (void)snprintf(alternatives, sizeof alternatives, "DNS:%s,email:post@%s", name, name);
    if (!is_authority)
        tls_extend(made->cert, made->cert, NID_subject_alt_name, alternatives);
    tls_must(X509_sign(made->cert, issuer != NULL ? issuer->key : made->key, EVP_sha256()) > 0, "X509_sign");
    BIO *bio = BIO_new(BIO_s_mem());
    tls_must(PEM_write_bio_X509(bio, made->cert) == 1, "PEM");
    tls_write(made->pem, sizeof made->pem, bio);
    bio = BIO_new(BIO_s_mem());
    tls_must(PEM_write_bio_PKCS8PrivateKey(bio, made->key, NULL, NULL, 0, NULL, NULL) == 1, "PEM");
    tls_write(made->key_pem, sizeof made->key_pem, bio);
    return made;
}

/* Its list, which names `revoked` (NULL = nobody) and ends in so many seconds; PEM in `to`. */
static inline void
tls_revoke(const struct tls_cert *issuer, const struct tls_cert *revoked, long ends_s, char *to, size_t cap)
{
    X509_CRL *list = X509_CRL_new();
    ASN1_TIME *from = X509_gmtime_adj(NULL, -7200), *until = X509_gmtime_adj(NULL, ends_s);
    tls_must(list != NULL && from != NULL && until != NULL && X509_CRL_set_version(list, 1) == 1, "a list");
    tls_must(X509_CRL_set_issuer_name(list, X509_get_subject_name(issuer->cert)) == 1 && X509_CRL_set1_lastUpdate(list, from) == 1
             && X509_CRL_set1_nextUpdate(list, until) == 1, "a list");
    if (revoked != NULL) {
        X509_REVOKED *entry = X509_REVOKED_new();
        tls_must(entry != NULL && X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(revoked->cert)) == 1
                 && X509_REVOKED_set_revocationDate(entry, from) == 1 && X509_CRL_add0_revoked(list, entry) == 1, "an entry");
    }
    tls_must(X509_CRL_sign(list, issuer->key, EVP_sha256()) > 0, "X509_CRL_sign");
    BIO *bio = BIO_new(BIO_s_mem());
    tls_must(PEM_write_bio_X509_CRL(bio, list) == 1, "PEM");
    tls_write(to, cap, bio);
    ASN1_TIME_free(from);
    ASN1_TIME_free(until);
    X509_CRL_free(list);
}

static inline void
tls_unmake(struct tls_cert *made)
{
    if (made != NULL) {
        EVP_PKEY_free(made->key);
        X509_free(made->cert);
    }
    free(made);
}

static inline int
tls_key_fd(const char *pem)
{
    return child_memfd("key", pem, strlen(pem));
}

/* ------------------------------------------------------------------ items of a record */

static inline void
tls_put_cert(struct child_bytes *to, const char *pem, uint32_t key)
{
    struct child_bytes cert = {0};
    child_text(&cert, PC_T_CERT_PEM, pem);
    child_text(&cert, PC_T_KEY_PATH, "/nowhere");
    CHILD_U32S(&cert, PC_T_KEY_NUMBER, key);
    child_box(to, PC_T_TLS_CERT, &cert);
}

/* ------------------------------------------------------------------ a client */

/* Its TLS ends in memory; tls_pump carries bytes between that and its socket, no more in a turn than the test allows. */
struct tls_client {
    SSL *ssl;
    BIO *in, *out;
    int fd;
    bool saw_end;
    uint64_t got_wire, sent_wire;
};

static inline SSL_CTX *
tls_client_ctx(int version)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    tls_must(ctx != NULL && SSL_CTX_set_min_proto_version(ctx, version) == 1 && SSL_CTX_set_max_proto_version(ctx, version) == 1, "a client");
    return ctx;
}

static inline struct tls_client
tls_client_new(SSL_CTX *ctx, int fd, const char *name)
{
    struct tls_client client = {.ssl = SSL_new(ctx), .in = BIO_new(BIO_s_mem()), .out = BIO_new(BIO_s_mem()), .fd = fd};
    tls_must(client.ssl != NULL && client.in != NULL && client.out != NULL, "a client");
    (void)BIO_set_mem_eof_return(client.in, -1); /* empty is not the end */
    SSL_set_bio(client.ssl, client.in, client.out);
    SSL_set_connect_state(client.ssl);
    if (name != NULL)
        tls_must(SSL_set_tlsext_host_name(client.ssl, name) == 1, name);
    return client;
}

static inline void
tls_client_end(struct tls_client *client)
{
    SSL_free(client->ssl);
    client->ssl = NULL;
    if (client->fd >= 0)
        child_must(close(client->fd) == 0, "close");
    client->fd = -1;
}

/* At most so many bytes each way. Returns whether any moved. */
static inline bool
tls_pump(struct tls_client *client, size_t up, size_t down)
{
    char buf[65536];
    char *bytes;
    bool has_moved = false;
    long waiting = BIO_get_mem_data(client->out, &bytes);
    size_t len = waiting > 0 ? (size_t)waiting : 0;
    len = len < up ? len : up;
    len = len < sizeof buf ? len : sizeof buf;
    if (len > 0) {
        ssize_t sent = send(client->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0)
            child_must(BIO_read(client->out, buf, (int)sent) == sent, "BIO_read");
        client->sent_wire += sent > 0 ? (uint64_t)sent : 0;
        has_moved = sent > 0;
    }
    ssize_t count = down > 0 ? recv(client->fd, buf, down < sizeof buf ? down : sizeof buf, MSG_DONTWAIT) : -1;
    if (count > 0)
        child_must(BIO_write(client->in, buf, (int)count) == count, "BIO_write");
    if (count == 0 || (count < 0 && down > 0 && errno != EAGAIN))
        client->saw_end = true;
    client->got_wire += count > 0 ? (uint64_t)count : 0;
    return has_moved || count > 0;
}

#endif
