/* certcheck.c - look at a host's certificate and key before a child does, so that the operator hears of what is wrong.
 * Runs as:  compile, or whoever tests a configuration.   Sees: certificates, and keys for as long as one is compared.
 * Distrusts: the files: a tenant may have written them. What they say is shown only as numbers, and as OpenSSL's words for an error.
 * What is checked is what the child's SSL_CTX will check: the same calls, at the same security level.
 * Before:   perchild/config/certs.py   After: pem.c
 * Tests: tests/unit/config/test_config_tls.py. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "certcheck.h"
#include "pem.h"

static int
refuse(struct pc_cert_facts *facts, enum pc_cert_problem problem)
{
    unsigned long error = ERR_peek_last_error();
    const char *reason = error != 0 ? ERR_reason_error_string(error) : NULL;
    (void)snprintf(facts->words, sizeof facts->words, "%s", reason != NULL ? reason : "");
    facts->problem = problem;
    ERR_clear_error();
    return -PC_E_BAD;
}

/* Seconds since 1970, 0 for what is no time. */
static int64_t
unix_time(const ASN1_TIME *time)
{
    struct tm tm;
    if (time == NULL || ASN1_TIME_to_tm(time, &tm) != 1)
        return 0;
    return (int64_t)timegm(&tm);
}

static enum pc_cert_problem
problem_of(int reason)
{
    static const struct { int reason; enum pc_cert_problem problem; } problems[] = {
        {SSL_R_EE_KEY_TOO_SMALL, PC_CERT_WEAK}, {SSL_R_CA_KEY_TOO_SMALL, PC_CERT_WEAK}, {SSL_R_CA_MD_TOO_WEAK, PC_CERT_WEAK},
        {X509_R_KEY_VALUES_MISMATCH, PC_CERT_OTHER_KEY}, {X509_R_KEY_TYPE_MISMATCH, PC_CERT_OTHER_KEY},
        {SSL_R_PRIVATE_KEY_MISMATCH, PC_CERT_OTHER_KEY},
    };
    for (size_t i = 0; i < sizeof problems / sizeof *problems; i++)
        if (problems[i].reason == reason)
            return problems[i].problem;
    return PC_CERT_REFUSED;
}

/* A chain in the wrong order: whose key it is comes behind its issuer. */
static bool
is_key_of_later(EVP_PKEY *key, STACK_OF(X509) *chain)
{
    bool is_found = false;
    for (int i = 0; i < sk_X509_num(chain) && !is_found; i++)
        is_found = X509_check_private_key(sk_X509_value(chain, i), key) == 1;
    return is_found;
}

/* As the child will. */
static int
try_out(X509 *leaf, EVP_PKEY *key, STACK_OF(X509) *chain, struct pc_cert_facts *facts)
{
    static SSL_CTX *ctx; /* one thread; making it takes longer than all the rest */
    if (ctx == NULL)
        ctx = SSL_CTX_new(TLS_server_method());
    if (ctx == NULL)
        pc_die(111, "out of memory");
    int is_taken = X509_check_private_key(leaf, key) == 1 && SSL_CTX_use_cert_and_key(ctx, leaf, key, chain, 1) == 1;
    if (is_taken)
        return 0;
    enum pc_cert_problem problem = problem_of(ERR_GET_REASON(ERR_peek_last_error()));
    return refuse(facts, problem == PC_CERT_OTHER_KEY && is_key_of_later(key, chain) ? PC_CERT_LATER_KEY : problem);
}

int
pc_cert_check(const char *pem, size_t len, int key_fd, struct pc_cert_facts *ret_facts)
{
    X509 *leaf;
    STACK_OF(X509) *chain;
    *ret_facts = (struct pc_cert_facts){0};
    ERR_clear_error();
    if (pc_pem_read_certs((struct pc_slice){pem, len}, &leaf, &chain) != 0)
        return refuse(ret_facts, PC_CERT_MALFORMED);
    EVP_PKEY *public = X509_get0_pubkey(leaf);
    ret_facts->kind = public != NULL ? EVP_PKEY_base_id(public) : 0;
    ret_facts->bits = public != NULL ? EVP_PKEY_bits(public) : 0;
    ret_facts->chain_count = sk_X509_num(chain);
    ret_facts->not_before_s = unix_time(X509_get0_notBefore(leaf));
    ret_facts->not_after_s = unix_time(X509_get0_notAfter(leaf));
    enum pc_pem_problem problem = PC_PEM_UNREADABLE;
    EVP_PKEY *key = key_fd >= 0 ? pc_pem_read_key(key_fd, &problem) : NULL;
    int result = key != NULL ? try_out(leaf, key, chain, ret_facts)
                             : refuse(ret_facts, problem == PC_PEM_LOCKED ? PC_CERT_LOCKED_KEY : PC_CERT_NO_KEY);
    EVP_PKEY_free(key);
    X509_free(leaf);
    sk_X509_pop_free(chain, X509_free);
    return result;
}

int
pc_cert_check_list(const char *pem, size_t len, char ret_words[PC_CERT_WORDS])
{
    bool is_asked = false;
    BIO *bio = len <= INT32_MAX ? BIO_new_mem_buf(pem, (int)len) : NULL;
    if (bio == NULL)
        pc_die(111, "out of memory");
    ERR_clear_error();
    STACK_OF(X509_INFO) *found = PEM_X509_INFO_read_bio(bio, NULL, pc_pem_no_pass_phrase, &is_asked);
    unsigned long error = ERR_peek_last_error();
    const char *reason = error != 0 ? ERR_reason_error_string(error) : NULL;
    (void)snprintf(ret_words, PC_CERT_WORDS, "%s", reason != NULL ? reason : "not taken");
    ERR_clear_error();
    bool is_whole = found != NULL;
    sk_X509_INFO_pop_free(found, X509_INFO_free);
    (void)BIO_free(bio); /* of memory: cannot fail */
    return is_whole ? 0 : -PC_E_BAD;
}

int
pc_cert_check_command(const char *name, const char *value, char ret_words[PC_CERT_WORDS])
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    SSL_CONF_CTX *conf = SSL_CONF_CTX_new();
    if (ctx == NULL || conf == NULL)
        pc_die(111, "out of memory");
    ERR_clear_error();
    (void)SSL_CONF_CTX_set_flags(conf, SSL_CONF_FLAG_FILE | SSL_CONF_FLAG_SERVER);
    SSL_CONF_CTX_set_ssl_ctx(conf, ctx);
    int result = SSL_CONF_cmd(conf, name, value);
    unsigned long error = ERR_peek_last_error();
    const char *reason = error != 0 ? ERR_reason_error_string(error) : NULL;
    if (result <= 0)
        (void)snprintf(ret_words, PC_CERT_WORDS, "%s", result == -2 ? "no such command" : reason != NULL ? reason : "not taken");
    ERR_clear_error();
    SSL_CONF_CTX_free(conf);
    SSL_CTX_free(ctx);
    return result > 0 ? 0 : -PC_E_BAD;
}
