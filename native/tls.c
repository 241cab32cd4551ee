/* tls.c - the handshake, as a phase of a connection; and how one is refused.
 * Runs as:  child, as the identity that owns the host.   Sees: the client's handshake.
 * Holds:    the host's key, by way of its SSL_CTX.
 * Distrusts: the client, which may send a byte a second, or leave: PC_TLS_HANDSHAKE_MS after its first turn it is over, whatever came.
 * Before:   peek.c, which has chosen the host   After: request.c */
#include <string.h>
#include <sys/socket.h>

#include <openssl/err.h>

#include "h2.h"
#include "tls.h"

#define MS 1000000ull
#define SAY_NS 1000000000ull

/* ------------------------------------------------------------------ no handshake */

/* A record with a fatal alert, unencrypted: there is no key yet. Then the client gets time to read it. */
enum pc_next
pc_tls_refuse(struct pc_worker *worker, struct pc_conn *conn, uint8_t alert)
{
    const char record[] = {21, 3, 3, 0, 2, 2, (char)alert}; /* RFC 8446 5.1, 6 */
    pc_count(worker->child->page, PC_C_TLS_FAILED, 1);
    (void)send(conn->fd, record, sizeof record, MSG_DONTWAIT | MSG_NOSIGNAL); /* what does not go out now is not worth waiting for */
    return pc_respond_linger(worker, conn);
}

/* A line a second for each host: who connects again and again must not fill its disk. */
static enum pc_next
refuse_broken(struct pc_worker *worker, struct pc_conn *conn, struct pc_tls_site *site)
{
    uint64_t said_ns = atomic_load(&site->said_ns);
    if (worker->now_ns - said_ns >= SAY_NS && atomic_compare_exchange_strong(&site->said_ns, &said_ns, worker->now_ns))
        pc_errlog(worker->child->config, site->host, PC_ERROR, "ssl", (const void *)&conn->client,
                  "AH02562: handshake refused, TLS of %.*s is out of order: %s", (int)site->host->name.len, site->host->name.base,
                  site->why);
    return pc_tls_refuse(worker, conn, SSL_AD_INTERNAL_ERROR);
}

/* ------------------------------------------------------------------ the handshake */

static void
say_failed(const struct pc_worker *worker, const struct pc_conn *conn)
{
    const struct pc_host *host = conn->tls->site->host;
    unsigned long error = ERR_peek_last_error();
    const char *reason = error != 0 ? ERR_reason_error_string(error) : NULL;
    long verified = SSL_get_verify_result(conn->tls->ssl);
    bool is_certificate = error != 0 && ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED && verified != X509_V_OK;
    pc_errlog(worker->child->config, host, PC_INFO, "ssl", (const void *)&conn->client,
              "AH02008: SSL library error in handshake (server %.*s:%u): %s%s%s", (int)host->name.len, host->name.base,
              host->port != 0 ? host->port : 443, reason != NULL ? reason : "the client has gone", is_certificate ? ": " : "",
              is_certificate ? X509_verify_cert_error_string(verified) : "");
}

/* OpenSSL has sent its alert; now the client gets time to read it. */
static enum pc_next
fail(struct pc_worker *worker, struct pc_conn *conn, bool is_gone)
{
    say_failed(worker, conn);
    pc_count(worker->child->page, PC_C_TLS_FAILED, 1);
    if (!is_gone)
        return pc_respond_linger(worker, conn);
    pc_conn_close(worker, conn);
    return PC_GONE;
}

/* NULL: *ret_next says what became of the connection. */
static struct pc_tls *
begin(struct pc_worker *worker, struct pc_conn *conn, enum pc_next *ret_next)
{
    struct pc_child *child = worker->child;
    const struct pc_host *host = conn->sni_host;
    struct pc_tls_site *site = NULL;
    if (host != NULL && host->tls != NULL && child->tls != NULL && host->index < child->tls->count)
        site = &child->tls->sites[host->index];
    if (site == NULL) { /* a plain host, on an address that speaks TLS for others */
        *ret_next = pc_tls_refuse(worker, conn, SSL_AD_UNRECOGNIZED_NAME);
        return NULL;
    }
    if (site->ctx == NULL) {
        *ret_next = refuse_broken(worker, conn, site);
        return NULL;
    }
    struct pc_tls *tls = pc_tls_new(site, conn);
    if (tls == NULL) {
        *ret_next = pc_tls_refuse(worker, conn, SSL_AD_INTERNAL_ERROR);
        return NULL;
    }
    conn->tls = tls;
    conn->transport = &pc_transport_tls;
    conn->host = conn->sni_host;
    pc_conn_deadline(child, conn, worker->now_ns + PC_TLS_HANDSHAKE_MS * MS);
    return tls;
}

static bool
speaks_h2(const struct pc_tls *tls)
{
    const unsigned char *name = NULL;
    unsigned int len = 0;
    SSL_get0_alpn_selected(tls->ssl, &name, &len);
    return len == 2 && memcmp(name, "h2", 2) == 0;
}

enum pc_next
pc_tls_step(struct pc_worker *worker, struct pc_conn *conn)
{
    enum pc_next next = PC_GO;
    struct pc_tls *tls = conn->tls != NULL ? conn->tls : begin(worker, conn, &next);
    if (tls == NULL)
        return next;
    int done = pc_tls_handshake(conn);
    if (done < 0)
        return fail(worker, conn, done == -PC_E_CLOSED);
    if (done == 0) {
        if (!tls->has_written) /* else what was sent has said so */
            pc_transport_acknowledge(conn);
        return pc_conn_watch_in(worker->child, conn) == 0 ? PC_WAIT : fail(worker, conn, true);
    }
    pc_count(worker->child->page, tls->facts.is_resumed ? PC_C_TLS_RESUMED : PC_C_TLS_HANDSHAKES, 1);
    conn->since_ns = worker->now_ns; /* the head's time begins here */
    conn->phase = PC_PHASE_HEAD;
    return speaks_h2(tls) ? pc_h2_begin(worker, conn) : PC_GO;
}
