/* tls_hello.c - what is decided when a client says hello: that its name is this host's, and what is spoken behind the handshake.
 * Runs as:  child, as the identity that owns the host.   Sees: the ClientHello, as OpenSSL has read it.
 * Distrusts: that hello: it need not be the one that peek.c has looked at, for a second one follows a HelloRetryRequest.
 * Before:   tls_ctx.c   After: tls.c */
#include <string.h>

#include "route.h"
#include "tls.h"

/* ------------------------------------------------------------------ the name */

/* The one host_name of a server_name extension (RFC 6066 3). 0, or -PC_E_BAD; no extension: an empty name. */
static int
read_name(SSL *ssl, struct pc_hostname *ret_name)
{
    const unsigned char *raw = NULL;
    size_t len = 0;
    *ret_name = (struct pc_hostname){.len = 0};
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &raw, &len) == 0)
        return 0;
    if (len < 5 || (size_t)(raw[0] << 8 | raw[1]) != len - 2 || raw[2] != TLSEXT_NAMETYPE_host_name
        || (size_t)(raw[3] << 8 | raw[4]) != len - 5)
        return -PC_E_BAD;
    int parsed = pc_host_parse((struct pc_slice){(const char *)raw + 5, len - 5}, ret_name);
    return parsed == 0 && ret_name->len > 0 && ret_name->port == 0 ? 0 : -PC_E_BAD;
}

struct pc_host *
pc_tls_host(const struct pc_child *child, const struct pc_conn *conn, struct pc_slice name)
{
    struct pc_route own = pc_route_find(child->config->own_route, pc_conn_local(conn), name);
    bool is_there = own.how != PC_ROUTE_NONE && own.value < child->config->host_count;
    return is_there ? &child->config->hosts[own.value] : NULL;
}

/* Called for each ClientHello, before a session of it is looked at. */
static int
check_hello(SSL *ssl, int *ret_alert, void *arg)
{
    struct pc_tls *tls = SSL_get_app_data(ssl);
    struct pc_tls_site *site = tls->site;
    struct pc_hostname name;
    (void)arg;
    *ret_alert = SSL_AD_UNRECOGNIZED_NAME;
    if (read_name(ssl, &name) != 0)
        return SSL_CLIENT_HELLO_ERROR;
    if (pc_tls_host(site->child, tls->conn, (struct pc_slice){name.name, name.len}) != site->host)
        return SSL_CLIENT_HELLO_ERROR;
    tls->name_len = name.len;
    memcpy(tls->name, name.name, name.len + 1u); /* UNSAFE: as long as the array it comes from, which is as long */
    return SSL_CLIENT_HELLO_SUCCESS;
}

/* Says that the name was understood. */
static int
accept_name(SSL *ssl, int *ret_alert, void *arg)
{
    const struct pc_tls *tls = SSL_get_app_data(ssl);
    (void)ret_alert;
    (void)arg;
    return tls->name_len > 0 ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

/* ------------------------------------------------------------------ the requests that follow */

/* What a client was verified for on the one host says nothing about the other (CVE-2025-23048). */
static bool
asks_the_same(const struct pc_tls_conf *a, const struct pc_tls_conf *b)
{
    bool is_same = a->depth == b->depth && a->crl_check == b->crl_check && pc_slice_eq(a->ca, b->ca) && pc_slice_eq(a->crl, b->crl);
    return a->verify == b->verify && (a->verify == PC_VERIFY_NONE || is_same);
}

/* As mod_ssl's SSLVHostSNIPolicy secure: what was agreed on for the one host need not be good enough for the other. */
static bool
speaks_the_same(const struct pc_tls_conf *a, const struct pc_tls_conf *b)
{
    return a->protocols == b->protocols && pc_slice_eq(a->ciphers, b->ciphers) && pc_slice_eq(a->suites, b->suites);
}

/* A host by its address: what a client asks for that has no name to say in its hello. */
static bool
is_address(struct pc_slice name)
{
    for (size_t i = 0; i < name.len && name.base[0] != '['; i++)
        if (name.base[i] != '.' && (name.base[i] < '0' || name.base[i] > '9'))
            return false;
    return name.len > 0;
}

/* Whether an own host that has the name by a wildcard, or as its address's first, has it in truth: others may have it exactly. Whoever
 * has the server's table looks there; nobody else can know. */
static bool
is_ours(struct pc_worker *worker, const struct pc_conn *conn, struct pc_slice name)
{
    const struct pc_route_map *map = pc_peek_hold_map(worker);
    struct pc_route route = {.how = PC_ROUTE_NONE};
    if (map != NULL)
        route = pc_route_find(map->table, pc_conn_local(conn), name);
    bool is_found = route.how != PC_ROUTE_NONE && route.value == worker->child->config->identity_no;
    pc_peek_let_go(worker);
    return is_found || (map == NULL && conn->tls->name_len == 0 && is_address(name));
}

uint32_t
pc_tls_request_host(struct pc_worker *worker, const struct pc_conn *conn, struct pc_slice name, struct pc_host **ret_host)
{
    const struct pc_config *config = worker->child->config;
    const struct pc_tls *tls = conn->tls;
    struct pc_host *host = conn->sni_host;
    if (tls->name_len == 0 && host->tls->strict)
        return 403;
    if (name.len > 0 && !pc_slice_eq(name, (struct pc_slice){tls->name, tls->name_len})) {
        struct pc_route own = pc_route_find(config->own_route, pc_conn_local(conn), name);
        if (own.how == PC_ROUTE_NONE || own.value >= config->host_count || (own.how != PC_ROUTE_EXACT && !is_ours(worker, conn, name)))
            return 421;
        host = &config->hosts[own.value];
    }
    if (host->tls == NULL || !asks_the_same(host->tls, conn->sni_host->tls) || !speaks_the_same(host->tls, conn->sni_host->tls))
        return 421;
    if (tls->name_len == 0 && host->tls->strict) /* of either host, as in httpd */
        return 403;
    *ret_host = host;
    return 0;
}

/* ------------------------------------------------------------------ what is spoken */

static const struct spoken {
    struct pc_slice name;
    uint32_t protocol;
} spoken[] = { /* as we like them best */
    {{"h2", 2}, PC_PROTOCOL_H2},
    {{"http/1.1", 8}, PC_PROTOCOL_HTTP_1_1},
    {{"http/1.0", 8}, PC_PROTOCOL_HTTP_1_1},
};

static bool
is_offered(const unsigned char *offer, unsigned int len, struct pc_slice name, unsigned int *ret_at)
{
    for (unsigned int at = 0; at < len && offer[at] < len - at; at += 1u + offer[at]) {
        *ret_at = at;
        if (offer[at] == name.len && memcmp(offer + at + 1, name.base, name.len) == 0)
            return true;
    }
    return false;
}

/* A client that offers nothing of ours must not be spoken to in something else (RFC 7301 3.2; ALPACA). */
static int
choose_protocol(SSL *ssl, const unsigned char **ret_name, unsigned char *ret_len, const unsigned char *offer, unsigned int len, void *arg)
{
    const struct pc_tls_site *site = arg;
    unsigned int at;
    uint32_t protocols = site->host->protocols;
    (void)ssl;
    if ((protocols & PC_PROTOCOL_H1_FIRST) != 0 && is_offered(offer, len, PC_S("http/1.1"), &at))
        protocols = PC_PROTOCOL_HTTP_1_1;
    for (size_t i = 0; i < sizeof spoken / sizeof *spoken; i++) {
        if ((protocols & spoken[i].protocol) == 0 || !is_offered(offer, len, spoken[i].name, &at))
            continue;
        *ret_name = offer + at + 1;
        *ret_len = offer[at];
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

void
pc_tls_hello_use(struct pc_tls_site *site)
{
    SSL_CTX_set_client_hello_cb(site->ctx, check_hello, NULL);
    (void)SSL_CTX_set_tlsext_servername_callback(site->ctx, accept_name); /* always 1 */
    SSL_CTX_set_alpn_select_cb(site->ctx, choose_protocol, site);
}
