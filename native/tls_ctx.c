/* tls_ctx.c - a host's SSL_CTX from its record and its keys.
 * Runs as:  child, as the identity that owns the hosts, before READY.   Sees: the identity's keys and certificates.
 * Holds:    its keys, from here to its end; the descriptors they were read from are closed before READY.
 * Distrusts: certificates and keys, which a tenant may have written: one that cannot be used breaks its own host alone.
 * Before:   child.c   After: tls.c
 *
 * What is allowed is Mozilla's intermediate level, unless the configuration says otherwise: TLS 1.2 with forward secrecy and AEAD
 * ciphers, TLS 1.3. Never: compression, renegotiation, early data. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "pem.h"
#include "tls.h"

#define CERT_LIST_BYTES_MAX 32768 /* of a client's certificates */
#define CIPHERS "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:" \
                "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"

/* ------------------------------------------------------------------ why not */

static int refuse(struct pc_tls_site *site, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* With the last thing that OpenSSL said, if it said something. Returns -PC_E_BAD. */
static int
refuse(struct pc_tls_site *site, const char *format, ...)
{
    va_list arguments;
    unsigned long error = ERR_peek_last_error();
    const char *reason = error != 0 ? ERR_reason_error_string(error) : NULL;
    va_start(arguments, format);
    int len = vsnprintf(site->why, sizeof site->why, format, arguments);
    va_end(arguments);
    if (reason != NULL && len > 0 && (size_t)len < sizeof site->why)
        (void)snprintf(site->why + len, sizeof site->why - (size_t)len, ": %s", reason);
    ERR_clear_error();
    return -PC_E_BAD;
}

/* With a NUL behind it; the caller frees it. */
static char *
text_of(struct pc_slice s)
{
    char *text = malloc(s.len + 1);
    if (text == NULL)
        pc_die(111, "out of memory");
    memcpy(text, s.base, s.len);
    text[s.len] = '\0';
    return text;
}

/* ------------------------------------------------------------------ keys and certificates */

/* NULL: refused. */
static EVP_PKEY *
read_key(struct pc_tls_site *site, int fd)
{
    static const char *const words[] = {
        [PC_PEM_UNREADABLE] = "its key file cannot be read, is empty, or too large",
        [PC_PEM_LOCKED] = "its key is encrypted: write it without a pass phrase (openssl pkey -in KEY -out KEY), readable by root alone",
        [PC_PEM_NONE] = "its key file holds no private key in PEM",
    };
    enum pc_pem_problem problem;
    EVP_PKEY *key = fd >= 0 ? pc_pem_read_key(fd, &problem) : NULL;
    if (fd < 0)
        (void)refuse(site, "its key file cannot be opened: %s", strerrordesc_np(-fd));
    else if (key == NULL)
        (void)refuse(site, "%s", words[problem]);
    return key;
}

static int
use_cert(struct pc_tls_site *site, const struct pc_cert *cert)
{
    X509 *leaf;
    STACK_OF(X509) *chain;
    if (pc_pem_read_certs(cert->pem, &leaf, &chain) != 0)
        return refuse(site, "its certificate file holds what is no certificate in PEM");
    const struct pc_child *child = site->child;
    EVP_PKEY *key = read_key(site, cert->key_number < child->key_count ? child->key_fds[cert->key_number] : -ENOENT);
    int result = key != NULL ? 0 : -PC_E_BAD;
    if (result == 0 && X509_check_private_key(leaf, key) != 1) {
        ERR_clear_error();
        result = refuse(site, "AH02565: its certificate and its key do not belong together");
    }
    site->has_strange_key = site->has_strange_key || result != 0;
    if (result == 0 && SSL_CTX_use_cert_and_key(site->ctx, leaf, key, chain, 1) != 1)
        result = refuse(site, "its certificate or key cannot be used");
    X509_free(leaf);
    EVP_PKEY_free(key);
    sk_X509_pop_free(chain, X509_free);
    return result;
}

/* ------------------------------------------------------------------ clients' certificates */

/* As mod_ssl's ssl_verify_error_is_optional: nobody we know has signed it. */
static bool
is_unknown_authority(int error)
{
    return error == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT || error == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
           || error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY || error == X509_V_ERR_CERT_UNTRUSTED
           || error == X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE;
}

/* SSLVerifyDepth counts as httpd does: 0 self-signed only, 1 signed by one of ours. */
static int
check_client(int is_good, X509_STORE_CTX *store)
{
    const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    const struct pc_tls *tls = SSL_get_app_data(ssl);
    const struct pc_tls_conf *conf = tls->site->host->tls;
    if (X509_STORE_CTX_get_error_depth(store) > (int)conf->depth) {
        X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_CHAIN_TOO_LONG);
        return 0;
    }
    if (is_good == 0 && X509_STORE_CTX_get_error(store) == X509_V_ERR_UNABLE_TO_GET_CRL && (conf->crl_check & PC_CRL_MISSING_OK) != 0) {
        X509_STORE_CTX_set_error(store, X509_V_OK);
        return 1;
    }
    if (is_good == 0 && conf->verify == PC_VERIFY_NO_CA)
        return is_unknown_authority(X509_STORE_CTX_get_error(store));
    return is_good;
}

/* SSLCARevocationCheck. Without a list there is no client that may come in, unless the directive says otherwise. */
static int
use_revocation(struct pc_tls_site *site, const struct pc_tls_conf *conf)
{
    bool is_encrypted = false;
    BIO *bio = conf->crl.len > 0 && conf->crl.len < INT32_MAX ? BIO_new_mem_buf(conf->crl.base, (int)conf->crl.len) : NULL;
    X509_STORE *store = SSL_CTX_get_cert_store(site->ctx);
    X509_CRL *list;
    uint32_t count = 0;
    while (bio != NULL && (list = PEM_read_bio_X509_CRL(bio, NULL, pc_pem_no_pass_phrase, &is_encrypted)) != NULL) {
        bool is_added = X509_STORE_add_crl(store, list) == 1;
        X509_CRL_free(list);
        if (!is_added)
            break;
        count++;
    }
    bool is_whole = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE; /* as the end is told */
    (void)BIO_free(bio);
    if (count == 0 || !is_whole)
        return refuse(site, "SSLCARevocationFile or SSLCARevocationPath has a list that cannot be used");
    ERR_clear_error();
    unsigned long flags = X509_V_FLAG_CRL_CHECK | ((conf->crl_check & PC_CRL_CHAIN) != 0 ? X509_V_FLAG_CRL_CHECK_ALL : 0);
    return X509_STORE_set_flags(store, flags) == 1 ? 0 : refuse(site, "SSLCARevocationCheck");
}

static int
use_authorities(struct pc_tls_site *site, const struct pc_tls_conf *conf)
{
    bool is_encrypted = false, is_asked = conf->verify != PC_VERIFY_NONE;
    const struct pc_slice pem = conf->ca;
    BIO *bio = BIO_new_mem_buf(pem.base, (int)pem.len);
    X509_STORE *store = SSL_CTX_get_cert_store(site->ctx);
    X509 *authority;
    uint32_t count = 0;
    while (bio != NULL && (authority = PEM_read_bio_X509(bio, NULL, pc_pem_no_pass_phrase, &is_encrypted)) != NULL) {
        bool is_added = X509_STORE_add_cert(store, authority) == 1 && (!is_asked || SSL_CTX_add_client_CA(site->ctx, authority) == 1);
        X509_free(authority);
        if (!is_added)
            break;
        count++;
    }
    (void)BIO_free(bio);
    if (count == 0)
        return refuse(site, "SSLCACertificateFile or SSLCACertificatePath has no certificate that can be used");
    ERR_clear_error();
    return 0;
}

/* Of a certificate that came alone: panels name its issuers by SSLCACertificateFile, and OpenSSL, in httpd, looks for them in each
 * handshake. Here once, and without the root. */
static void
complete_chains(SSL_CTX *ctx)
{
    const int how = SSL_BUILD_CHAIN_FLAG_NO_ROOT | SSL_BUILD_CHAIN_FLAG_IGNORE_ERROR | SSL_BUILD_CHAIN_FLAG_CLEAR_ERROR;
    for (long is_there = SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_FIRST); is_there == 1;
         is_there = SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_NEXT)) {
        STACK_OF(X509) *chain = NULL;
        if (SSL_CTX_get0_chain_certs(ctx, &chain) == 1 && sk_X509_num(chain) <= 0)
            (void)SSL_CTX_build_cert_chain(ctx, how); /* without: it is sent alone, as it was named */
    }
    ERR_clear_error();
}

static int
set_verify(struct pc_tls_site *site, const struct pc_tls_conf *conf)
{
    static const int modes[] = {
        [PC_VERIFY_NONE] = SSL_VERIFY_NONE,
        [PC_VERIFY_OPTIONAL] = SSL_VERIFY_PEER,
        [PC_VERIFY_REQUIRE] = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
        [PC_VERIFY_NO_CA] = SSL_VERIFY_PEER,
    };
    SSL_CTX_set_verify(site->ctx, modes[conf->verify], check_client);
    SSL_CTX_set_max_cert_list(site->ctx, CERT_LIST_BYTES_MAX);
    int result = conf->ca.len > 0 ? use_authorities(site, conf) : 0;
    if (result == 0 && conf->ca.len > 0)
        complete_chains(site->ctx);
    bool is_checked = conf->verify != PC_VERIFY_NONE && (conf->crl_check & (PC_CRL_LEAF | PC_CRL_CHAIN)) != 0;
    return result == 0 && is_checked ? use_revocation(site, conf) : result;
}

/* ------------------------------------------------------------------ everything else */

/* A session is resumed on a host of the same name that asks the same of its clients, and on no other, in whatever process. */
static int
set_session_context(struct pc_tls_site *site, const struct pc_tls_conf *conf)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned int len = 0;
    const uint32_t numbers[] = {site->host->port, conf->verify, conf->depth, (uint32_t)site->host->name.len, conf->crl_check,
                                (uint32_t)conf->ca.len, (uint32_t)conf->crl.len}; /* else one's end could be the next one's begin */
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool is_done = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 && EVP_DigestUpdate(md, numbers, sizeof numbers) == 1
                   && EVP_DigestUpdate(md, site->host->name.base, site->host->name.len) == 1
                   && EVP_DigestUpdate(md, conf->ca.base, conf->ca.len) == 1
                   && EVP_DigestUpdate(md, conf->crl.base, conf->crl.len) == 1 && EVP_DigestFinal_ex(md, digest, &len) == 1;
    EVP_MD_CTX_free(md);
    if (!is_done || SSL_CTX_set_session_id_context(site->ctx, digest, len) != 1)
        return refuse(site, "its session id context could not be made");
    return 0;
}

static int
set_tickets(struct pc_tls_site *site, const struct pc_tls_conf *conf)
{
    (void)SSL_CTX_set_session_cache_mode(site->ctx, SSL_SESS_CACHE_OFF); /* returns the mode before */
    (void)SSL_CTX_set_timeout(site->ctx, (long)conf->timeout_s);         /* returns the time before */
    if (!conf->tickets || site->child->tickets.count == 0) {
        (void)SSL_CTX_set_options(site->ctx, SSL_OP_NO_TICKET); /* returns the options */
        (void)SSL_CTX_set_num_tickets(site->ctx, 0);            /* always 1 */
        return 0;
    }
    (void)SSL_CTX_set_num_tickets(site->ctx, 1); /* each costs as much as a small response; a client may use it more than once */
    pc_tls_tickets_use(site->ctx);
    return 0;
}

static int
set_protocols(struct pc_tls_site *site, const struct pc_tls_conf *conf)
{
    SSL_CTX *ctx = site->ctx;
    int low = (conf->protocols & PC_TLS_TLSV1_2) != 0 ? TLS1_2_VERSION : TLS1_3_VERSION;
    int high = (conf->protocols & PC_TLS_TLSV1_3) != 0 ? TLS1_3_VERSION : TLS1_2_VERSION;
    char *ciphers = text_of(conf->ciphers.base != NULL ? conf->ciphers : PC_S(CIPHERS));
    char *suites = conf->suites.base != NULL ? text_of(conf->suites) : NULL;
    int result = 0;
    if (SSL_CTX_set_min_proto_version(ctx, low) != 1 || SSL_CTX_set_max_proto_version(ctx, high) != 1)
        result = refuse(site, "SSLProtocol: OpenSSL does not speak that");
    else if (SSL_CTX_set_cipher_list(ctx, ciphers) != 1)
        result = refuse(site, "SSLCipherSuite: no cipher of it is known");
    else if (suites != NULL && SSL_CTX_set_ciphersuites(ctx, suites) != 1)
        result = refuse(site, "SSLCipherSuite TLSv1.3: no suite of it is known");
    free(ciphers);
    free(suites);
    uint64_t options = SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | (conf->server_order ? SSL_OP_CIPHER_SERVER_PREFERENCE : 0);
    (void)SSL_CTX_set_options(ctx, options);                                                     /* returns the options */
    (void)SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER); /* returns the modes */
    (void)SSL_CTX_set_max_early_data(ctx, 0);                                                    /* always 1 */
    (void)SSL_CTX_set_dh_auto(ctx, 1);                                                           /* always 1 */
    SSL_CTX_set_read_ahead(ctx, 1); /* a record in one call instead of two */
    return result;
}

/* SSLOpenSSLConfCmd; last, so that it has the last word. */
static int
run_commands(struct pc_tls_site *site, const struct pc_tls_conf *conf)
{
    SSL_CONF_CTX *commands = conf->command_count > 0 ? SSL_CONF_CTX_new() : NULL;
    int result = 0;
    if (commands == NULL)
        return 0;
    (void)SSL_CONF_CTX_set_flags(commands, SSL_CONF_FLAG_FILE | SSL_CONF_FLAG_SERVER); /* returns the flags */
    SSL_CONF_CTX_set_ssl_ctx(commands, site->ctx);
    for (uint32_t i = 0; i < conf->command_count && result == 0; i++) {
        char *name = text_of(conf->commands[i].name), *value = text_of(conf->commands[i].value);
        if (SSL_CONF_cmd(commands, name, value) <= 0)
            result = refuse(site, "SSLOpenSSLConfCmd %.60s %.60s", name, value);
        free(name);
        free(value);
    }
    if (result == 0 && SSL_CONF_CTX_finish(commands) != 1)
        result = refuse(site, "SSLOpenSSLConfCmd");
    SSL_CONF_CTX_free(commands);
    return result;
}

int
pc_tls_site_open(struct pc_tls_site *site)
{
    const struct pc_tls_conf *conf = site->host->tls;
    site->why[0] = '\0';
    ERR_clear_error();
    if (conf->broken.base != NULL)
        return refuse(site, "%.*s", (int)conf->broken.len, conf->broken.base);
    site->ctx = SSL_CTX_new(TLS_server_method());
    int result = site->ctx != NULL ? set_protocols(site, conf) : refuse(site, "OpenSSL could not be initialised");
    for (uint32_t i = 0; i < conf->cert_count && result == 0; i++)
        result = use_cert(site, &conf->certs[i]);
    result = result == 0 ? set_verify(site, conf) : result;
    result = result == 0 ? set_session_context(site, conf) : result;
    result = result == 0 ? set_tickets(site, conf) : result;
    result = result == 0 ? run_commands(site, conf) : result;
    if (result == 0)
        pc_tls_hello_use(site);
    else
        SSL_CTX_free(site->ctx);
    if (result != 0)
        site->ctx = NULL;
    return result;
}

/* ------------------------------------------------------------------ all of a child's */

static void
say_broken(const struct pc_tls_site *site)
{
    const struct pc_host *host = site->host;
    pc_errlog(site->child->config, host, PC_ERROR, "ssl", NULL, "AH02562: TLS of %.*s is out of order, its handshakes are refused: %s",
              (int)host->name.len, host->name.base, site->why);
}

/* The machine's openssl.cnf is not for us: our configuration says everything, and a child reads nothing but its own. */
static int
initialise(void)
{
    return OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL);
}

void
pc_tls_warm(void)
{
    SSL_CTX *ctx = initialise() == 1 ? SSL_CTX_new(TLS_server_method()) : NULL;
    SSL_CTX_free(ctx); /* NULL is fine; without memory here each child tries again for itself */
    ERR_clear_error();
}

int
pc_tls_open(struct pc_child *child)
{
    const struct pc_config *config = child->config;
    uint32_t wanted = 0;
    for (uint32_t i = 0; i < config->host_count; i++)
        wanted += config->hosts[i].tls != NULL;
    if (wanted == 0)
        return 0; /* and no memory for any of it */
    if (initialise() != 1)
        return -PC_E_MEMORY;
    struct pc_tls_store *store = calloc(1, sizeof *store + config->host_count * sizeof store->sites[0]);
    if (store == NULL)
        return -PC_E_MEMORY;
    store->count = config->host_count;
    child->tls = store;
    for (uint32_t i = 0; i < store->count; i++) {
        struct pc_tls_site *site = &store->sites[i];
        site->host = &config->hosts[i];
        site->child = child;
        bool is_broken = site->host->tls != NULL && pc_tls_site_open(site) != 0;
        if (site->has_strange_key && !child->takes_any_key)
            return -PC_E_AGAIN; /* somebody is writing a new pair: the dispatcher waits for the record that knows it */
        if (is_broken)
            say_broken(site);
    }
    return 0;
}

void
pc_tls_close(struct pc_child *child)
{
    struct pc_tls_store *store = child->tls;
    child->tls = NULL;
    for (uint32_t i = 0; store != NULL && i < store->count; i++)
        SSL_CTX_free(store->sites[i].ctx); /* NULL is fine */
    free(store);
}
