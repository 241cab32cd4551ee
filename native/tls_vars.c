/* tls_vars.c - what programs, logs and Header are told of a TLS connection: mod_ssl's SSL_* variables.
 * Runs as:  child, as the identity that owns the host.   Sees: the client's certificate.
 * Distrusts: that certificate's names: they are the words of whoever had it signed, and come out escaped.
 * Before:   tls.c   After: cgienv.c, format.c
 *
 * Only pc_tls_learn asks the SSL. All others may run on a stream's thread, beside the one that reads and writes with it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "tls.h"

struct asked {
    const struct pc_tls *tls;
    const struct pc_tls_facts *facts;
    struct pc_arena *arena;
    struct pc_slice rest; /* of the name, behind its row's */
};

static const struct pc_slice none; /* there is no such thing */

static struct pc_slice
copy_of(const struct asked *asked, const char *text)
{
    return text != NULL ? pc_arena_copy(asked->arena, (struct pc_slice){text, strlen(text)}) : none;
}

/* What was written to bio, which is freed. */
static struct pc_slice
written(const struct asked *asked, BIO *bio)
{
    char *bytes = NULL;
    long len = bio != NULL ? BIO_get_mem_data(bio, &bytes) : 0;
    struct pc_slice copy = len > 0 ? pc_arena_copy(asked->arena, (struct pc_slice){bytes, (size_t)len}) : none;
    (void)BIO_free(bio); /* NULL is fine */
    return copy;
}

/* ------------------------------------------------------------------ learnt once */

void
pc_tls_learn(struct pc_tls *tls)
{
    struct pc_tls_facts *facts = &tls->facts;
    SSL *ssl = tls->ssl;
    unsigned int len = 0;
    const unsigned char *id = SSL_SESSION_get_id(SSL_get_session(ssl), &len);
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl); /* without the leaf, on our side */
    facts->protocol = SSL_get_version(ssl);
    facts->cipher = SSL_get_current_cipher(ssl);
    facts->own = SSL_get_certificate(ssl);
    facts->client = SSL_get1_peer_certificate(ssl);
    facts->client_chain = sk_X509_num(chain) > 0 ? X509_chain_up_ref(chain) : NULL; /* -1 of NULL */
    facts->verify_result = SSL_get_verify_result(ssl);
    facts->is_resumed = SSL_session_reused(ssl) == 1;
    facts->renegotiates_safely = SSL_get_secure_renegotiation_support(ssl) == 1;
    facts->session_id_len = len < sizeof facts->session_id ? len : (uint32_t)sizeof facts->session_id;
    if (facts->session_id_len > 0)
        memcpy(facts->session_id, id, facts->session_id_len); /* UNSAFE: compared with its room */
}

void
pc_tls_forget(struct pc_tls_facts *facts)
{
    X509_free(facts->client); /* NULL is fine */
    sk_X509_pop_free(facts->client_chain, X509_free);
}

/* ------------------------------------------------------------------ the connection */

static struct pc_slice
protocol(const struct asked *asked)
{
    return copy_of(asked, asked->facts->protocol);
}

static struct pc_slice
cipher(const struct asked *asked)
{
    return copy_of(asked, SSL_CIPHER_get_name(asked->facts->cipher));
}

static struct pc_slice
is_export(const struct asked *asked)
{
    (void)asked;
    return PC_S("false"); /* OpenSSL has none any more */
}

static struct pc_slice
key_bits(const struct asked *asked)
{
    return pc_arena_print(asked->arena, "%d", SSL_CIPHER_get_bits(asked->facts->cipher, NULL));
}

static struct pc_slice
algorithm_bits(const struct asked *asked)
{
    int bits = 0;
    (void)SSL_CIPHER_get_bits(asked->facts->cipher, &bits); /* the other number is key_bits */
    return pc_arena_print(asked->arena, "%d", bits);
}

static struct pc_slice
resumed(const struct asked *asked)
{
    return asked->facts->is_resumed ? PC_S("Resumed") : PC_S("Initial");
}

static struct pc_slice
secure_renegotiation(const struct asked *asked)
{
    return asked->facts->renegotiates_safely ? PC_S("true") : PC_S("false");
}

static struct pc_slice
compression(const struct asked *asked)
{
    (void)asked;
    return PC_S("NULL");
}

static struct pc_slice
session_id(const struct asked *asked)
{
    const struct pc_tls_facts *facts = asked->facts;
    char text[2 * SSL_MAX_SSL_SESSION_ID_LENGTH + 1] = "";
    for (uint32_t i = 0; i < facts->session_id_len; i++)
        (void)snprintf(text + (size_t)2 * i, 3, "%02x", facts->session_id[i]);
    return facts->session_id_len > 0 ? copy_of(asked, text) : none;
}

static struct pc_slice
server_name(const struct asked *asked)
{
    return asked->tls->name_len > 0 ? (struct pc_slice){asked->tls->name, asked->tls->name_len} : none;
}

static struct pc_slice
interface_version(const struct asked *asked)
{
    (void)asked;
    return PC_S("perchildd");
}

static struct pc_slice
library_version(const struct asked *asked)
{
    const char *text = OpenSSL_version(OPENSSL_VERSION), *space = strchr(text, ' ');
    const char *end = space != NULL ? strchr(space + 1, ' ') : NULL;
    struct pc_slice found = pc_arena_copy(asked->arena, (struct pc_slice){text, end != NULL ? (size_t)(end - text) : strlen(text)});
    char *slash = found.len > 0 ? memchr(found.base, ' ', found.len) : NULL;
    if (slash != NULL)
        *slash = '/'; /* "OpenSSL/3.0.17" */
    return found;
}

static struct pc_slice
verified(const struct asked *asked)
{
    long result = asked->facts->verify_result;
    if (asked->facts->client == NULL)
        return PC_S("NONE");
    if (result == X509_V_OK)
        return PC_S("SUCCESS");
    if (asked->tls->site->host->tls->verify == PC_VERIFY_NO_CA)
        return PC_S("GENEROUS");
    return pc_arena_print(asked->arena, "FAILED:%s", X509_verify_cert_error_string(result));
}

/* ------------------------------------------------------------------ a certificate */

static struct pc_slice
pem_of(const struct asked *asked, X509 *cert)
{
    BIO *bio = cert != NULL ? BIO_new(BIO_s_mem()) : NULL;
    if (bio != NULL && PEM_write_bio_X509(bio, cert) != 1)
        return written(asked, NULL);
    return written(asked, bio);
}

static struct pc_slice
time_of(const struct asked *asked, const ASN1_TIME *when)
{
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio != NULL)
        (void)ASN1_TIME_print(bio, when); /* what it cannot print is "Bad time value" */
    return written(asked, bio);
}

static struct pc_slice
days_left(const struct asked *asked, const X509 *cert)
{
    int days = 0, seconds = 0;
    if (ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(cert)) != 1)
        return none;
    return pc_arena_print(asked->arena, "%d", days > 0 ? days : 0);
}

static struct pc_slice
serial_of(const struct asked *asked, const X509 *cert)
{
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio != NULL)
        (void)i2a_ASN1_INTEGER(bio, X509_get0_serialNumber(cert)); /* writes to memory */
    return written(asked, bio);
}

static struct pc_slice
name_of(const struct asked *asked, const X509_NAME *name)
{
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio != NULL) /* as mod_ssl: RFC 2253, UTF-8 as it is */
        (void)X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB); /* writes to memory */
    return written(asked, bio);
}

static struct pc_slice
algorithm_name(const struct asked *asked, int nid)
{
    return copy_of(asked, nid != NID_undef ? OBJ_nid2ln(nid) : "UNKNOWN");
}

/* One attribute of a name, the number-th of its kind: "CN", "OU_1". */
static struct pc_slice
attribute_of(const struct asked *asked, const X509_NAME *name, struct pc_slice wanted)
{
    static const struct {
        struct pc_slice name;
        int nid;
    } rows[] = { /* mod_ssl's */
        {{"C", 1}, NID_countryName}, {{"ST", 2}, NID_stateOrProvinceName}, {{"SP", 2}, NID_stateOrProvinceName},
        {{"L", 1}, NID_localityName}, {{"O", 1}, NID_organizationName}, {{"OU", 2}, NID_organizationalUnitName},
        {{"CN", 2}, NID_commonName}, {{"T", 1}, NID_title}, {{"I", 1}, NID_initials}, {{"G", 1}, NID_givenName},
        {{"S", 1}, NID_surname}, {{"D", 1}, NID_description}, {{"UID", 3}, NID_userId}, {{"Email", 5}, NID_pkcs9_emailAddress},
    };
    struct pc_slice kind = pc_slice_before(wanted, '_');
    uint64_t number = 0;
    if (kind.len < wanted.len && pc_parse_u64(pc_slice_behind(wanted, kind.len + 1), &number) != 0)
        return none;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int at = -1;
        if (!pc_slice_eq(kind, rows[i].name))
            continue;
        do
            at = X509_NAME_get_index_by_NID(name, rows[i].nid, at);
        while (at >= 0 && number-- > 0);
        if (at < 0)
            return none;
        BIO *bio = BIO_new(BIO_s_mem());
        const ASN1_STRING *value = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at));
        if (bio != NULL)
            (void)ASN1_STRING_print_ex(bio, value, ASN1_STRFLGS_ESC_CTRL | ASN1_STRFLGS_UTF8_CONVERT); /* writes to memory */
        return written(asked, bio);
    }
    return none;
}

/* "Email_0", "DNS_2". */
static struct pc_slice
alternative_of(const struct asked *asked, X509 *cert, struct pc_slice wanted)
{
    struct pc_slice kind = pc_slice_before(wanted, '_'), found = none;
    int type = pc_slice_eq(kind, PC_S("Email")) ? GEN_EMAIL : pc_slice_eq(kind, PC_S("DNS")) ? GEN_DNS : -1;
    uint64_t number = 0;
    if (type < 0 || kind.len == wanted.len || pc_parse_u64(pc_slice_behind(wanted, kind.len + 1), &number) != 0)
        return none;
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && found.base == NULL; i++) { /* -1 of NULL */
        const GENERAL_NAME *one = sk_GENERAL_NAME_value(names, i);
        if (one->type != type || number-- > 0)
            continue;
        const ASN1_IA5STRING *text = one->d.ia5;
        found = pc_arena_copy(asked->arena, (struct pc_slice){(const char *)ASN1_STRING_get0_data(text), (size_t)ASN1_STRING_length(text)});
    }
    GENERAL_NAMES_free(names);
    return found;
}

/* What stands behind "SSL_CLIENT_" or "SSL_SERVER_". */
static struct pc_slice
fact_of_cert(const struct asked *asked, X509 *cert, struct pc_slice wanted)
{
    static const struct {
        struct pc_slice name;
        enum { M_VERSION, M_SERIAL, S_DN, I_DN, V_START, V_END, V_REMAIN, A_SIG, A_KEY, CERT } what;
    } rows[] = {
        {{"M_VERSION", 9}, M_VERSION}, {{"M_SERIAL", 8}, M_SERIAL}, {{"S_DN", 4}, S_DN}, {{"I_DN", 4}, I_DN},
        {{"V_START", 7}, V_START}, {{"V_END", 5}, V_END}, {{"V_REMAIN", 8}, V_REMAIN}, {{"A_SIG", 5}, A_SIG}, {{"A_KEY", 5}, A_KEY},
        {{"CERT", 4}, CERT},
    };
    if (cert == NULL)
        return none;
    if (pc_slice_starts(wanted, PC_S("S_DN_")))
        return attribute_of(asked, X509_get_subject_name(cert), pc_slice_behind(wanted, 5));
    if (pc_slice_starts(wanted, PC_S("I_DN_")))
        return attribute_of(asked, X509_get_issuer_name(cert), pc_slice_behind(wanted, 5));
    if (pc_slice_starts(wanted, PC_S("SAN_")))
        return alternative_of(asked, cert, pc_slice_behind(wanted, 4));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!pc_slice_eq(wanted, rows[i].name))
            continue;
        switch (rows[i].what) {
        case M_VERSION: return pc_arena_print(asked->arena, "%ld", X509_get_version(cert) + 1);
        case M_SERIAL: return serial_of(asked, cert);
        case S_DN: return name_of(asked, X509_get_subject_name(cert));
        case I_DN: return name_of(asked, X509_get_issuer_name(cert));
        case V_START: return time_of(asked, X509_get0_notBefore(cert));
        case V_END: return time_of(asked, X509_get0_notAfter(cert));
        case V_REMAIN: return days_left(asked, cert);
        case A_SIG: return algorithm_name(asked, X509_get_signature_nid(cert));
        case A_KEY: return algorithm_name(asked, EVP_PKEY_get_base_id(X509_get0_pubkey(cert)));
        case CERT: return pem_of(asked, cert);
        }
    }
    return none;
}

static struct pc_slice
client_chain(const struct asked *asked)
{
    const STACK_OF(X509) *chain = asked->facts->client_chain;
    uint64_t number = 0;
    if (pc_parse_u64(asked->rest, &number) != 0 || number >= (uint64_t)(sk_X509_num(chain) > 0 ? sk_X509_num(chain) : 0))
        return none;
    return pem_of(asked, sk_X509_value(chain, (int)number));
}

static struct pc_slice
of_client(const struct asked *asked)
{
    return fact_of_cert(asked, asked->facts->client, asked->rest);
}

static struct pc_slice
of_server(const struct asked *asked)
{
    return fact_of_cert(asked, asked->facts->own, asked->rest);
}

/* ------------------------------------------------------------------ by name */

static const struct row {
    struct pc_slice name;
    bool is_prefix;
    struct pc_slice (*get)(const struct asked *asked);
} rows[] = {
    {{"SSL_PROTOCOL", 12}, false, protocol},
    {{"SSL_CIPHER", 10}, false, cipher},
    {{"SSL_CIPHER_EXPORT", 17}, false, is_export},
    {{"SSL_CIPHER_USEKEYSIZE", 21}, false, key_bits},
    {{"SSL_CIPHER_ALGKEYSIZE", 21}, false, algorithm_bits},
    {{"SSL_SESSION_ID", 14}, false, session_id},
    {{"SSL_SESSION_RESUMED", 19}, false, resumed},
    {{"SSL_SECURE_RENEG", 16}, false, secure_renegotiation},
    {{"SSL_COMPRESS_METHOD", 19}, false, compression},
    {{"SSL_VERSION_INTERFACE", 21}, false, interface_version},
    {{"SSL_VERSION_LIBRARY", 19}, false, library_version},
    {{"SSL_TLS_SNI", 11}, false, server_name},
    {{"SSL_CLIENT_VERIFY", 17}, false, verified},
    {{"SSL_CLIENT_CERT_CHAIN_", 22}, true, client_chain},
    {{"SSL_CLIENT_", 11}, true, of_client},
    {{"SSL_SERVER_", 11}, true, of_server},
};

struct pc_slice
pc_tls_fact(const struct pc_conn *conn, struct pc_slice name, struct pc_arena *arena)
{
    struct asked asked = {.tls = conn->tls, .facts = &conn->tls->facts, .arena = arena};
    if (pc_slice_eq(name, PC_S("HTTPS")))
        return PC_S("on");
    if (asked.facts->protocol == NULL)
        return none;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool is_it = rows[i].is_prefix ? pc_slice_starts(name, rows[i].name) : pc_slice_eq(name, rows[i].name);
        if (!is_it)
            continue;
        asked.rest = pc_slice_behind(name, rows[i].name.len);
        struct pc_slice found = rows[i].get(&asked);
        ERR_clear_error();
        return found;
    }
    return none;
}

/* ------------------------------------------------------------------ all of them, for programs */

#define MOST_FACTS 128
#define NUMBERED 8 /* of several of a kind */

struct list {
    const struct pc_conn *conn;
    struct pc_arena *arena;
    struct pc_pair *pairs;
    uint32_t count;
};

static bool
put(struct list *list, const char *prefix, const char *name)
{
    struct pc_slice whole = pc_arena_print(list->arena, "%s%s", prefix, name);
    struct pc_slice value = pc_tls_fact(list->conn, whole, list->arena);
    if (value.base != NULL && list->count < MOST_FACTS)
        list->pairs[list->count++] = (struct pc_pair){whole, value};
    return value.base != NULL;
}

/* "X", "X_1", "X_2"...; or, where counting begins in the name, "X_0". */
static void
put_numbered(struct list *list, const char *prefix, const char *name, bool has_zero)
{
    bool is_there = has_zero || put(list, prefix, name);
    for (uint32_t i = has_zero ? 0 : 1; i < NUMBERED && is_there; i++)
        is_there = put(list, prefix, pc_arena_print(list->arena, "%s_%u", name, i).base);
}

static void
put_cert(struct list *list, const char *prefix)
{
    static const char *const plain[] = {"M_VERSION", "M_SERIAL", "V_START", "V_END", "A_SIG", "A_KEY", "S_DN", "I_DN"};
    static const char *const attributes[] = {"C", "ST", "L", "O", "OU", "CN", "T", "I", "G", "S", "D", "UID", "Email"};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        (void)put(list, prefix, plain[i]); /* what is not there is not there */
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++) {
        put_numbered(list, prefix, pc_arena_print(list->arena, "S_DN_%s", attributes[i]).base, false);
        put_numbered(list, prefix, pc_arena_print(list->arena, "I_DN_%s", attributes[i]).base, false);
    }
    put_numbered(list, prefix, "SAN_Email", true);
    put_numbered(list, prefix, "SAN_DNS", true);
}

uint32_t
pc_tls_facts(const struct pc_conn *conn, uint32_t options, struct pc_arena *arena, struct pc_pair **ret_facts)
{
    static const char *const plain[] = {
        "PROTOCOL", "CIPHER", "CIPHER_EXPORT", "CIPHER_USEKEYSIZE", "CIPHER_ALGKEYSIZE", "SESSION_ID", "SESSION_RESUMED", "SECURE_RENEG",
        "COMPRESS_METHOD", "VERSION_INTERFACE", "VERSION_LIBRARY", "CLIENT_VERIFY",
    };
    struct list list = {conn, arena, pc_arena_alloc(arena, MOST_FACTS * sizeof *list.pairs), 0};
    bool has_client = conn->tls->facts.client != NULL;
    (void)put(&list, "SSL_", "TLS_SNI"); /* mod_ssl's, whatever SSLOptions says */
    for (size_t i = 0; (options & PC_SSL_STDENVVARS) != 0 && i < sizeof plain / sizeof *plain; i++)
        (void)put(&list, "SSL_", plain[i]); /* what is not there is not there */
    if ((options & PC_SSL_STDENVVARS) != 0)
        put_cert(&list, "SSL_SERVER_");
    if ((options & PC_SSL_STDENVVARS) != 0 && has_client) {
        put_cert(&list, "SSL_CLIENT_");
        (void)put(&list, "SSL_CLIENT_", "V_REMAIN");
    }
    if ((options & PC_SSL_EXPORTCERTDATA) != 0) {
        (void)put(&list, "SSL_SERVER_", "CERT");
        (void)put(&list, "SSL_CLIENT_", "CERT");
        put_numbered(&list, "SSL_CLIENT_", "CERT_CHAIN", true);
    }
    *ret_facts = list.pairs;
    return list.count;
}
