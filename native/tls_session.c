/* tls_session.c - session tickets: sealed with the identity's keys, opened for the name alone that they were given to.
 * Runs as:  child, as the identity that owns the hosts.   Sees: tickets that clients bring.
 * Holds:    the identity's ticket keys, which outlive the child in a memfd of the dispatcher's, and are renewed by it.
 * Distrusts: every ticket: another identity's does not open, another host's or name's is not used.
 * Before:   tickets.c, tls_ctx.c   After: tls.c */
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "tls.h"

/* ------------------------------------------------------------------ sealing and opening */

static int
set_keys(const struct pc_ticket_key *key, const uint8_t *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, bool seals)
{
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)key->mac, sizeof key->mac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)(uintptr_t)"SHA256", 0),
        OSSL_PARAM_construct_end(),
    };
    if (EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->cipher, iv, seals) <= 0)
        return -1;
    return EVP_MAC_CTX_set_params(mac, params) > 0 ? 0 : -1;
}

static const struct pc_ticket_key *
find_key(const struct pc_ticket_keys *tickets, const uint8_t name[16])
{
    for (uint32_t i = 0; i < tickets->count; i++)
        if (memcmp(tickets->keys[i].name, name, sizeof tickets->keys[i].name) == 0)
            return &tickets->keys[i];
    return NULL;
}

/* As SSL_CTX_set_tlsext_ticket_key_evp_cb(3) has it: 1 use it, 2 use it and give out a new one, 0 no such key, <0 failed. */
static int
choose_key(SSL *ssl, unsigned char name[16], unsigned char iv[EVP_MAX_IV_LENGTH], EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int seals)
{
    struct pc_tls *tls = SSL_get_app_data(ssl);
    struct pc_child *child = tls->site->child;
    const struct pc_ticket_keys *tickets = &child->tickets;
    int result = 0;
    (void)pthread_rwlock_rdlock(&child->ticket_lock);
    const struct pc_ticket_key *key = seals == 0 ? find_key(tickets, name) : tickets->count > 0 ? &tickets->keys[0] : NULL;
    if (key != NULL && seals != 0 && RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) <= 0)
        result = -1;
    else if (key != NULL)
        result = set_keys(key, iv, cipher, mac, seals != 0) == 0 ? (key == &tickets->keys[0] ? 1 : 2) : -1;
    if (key != NULL && seals != 0)
        memcpy(name, key->name, sizeof key->name);
    (void)pthread_rwlock_unlock(&child->ticket_lock);
    return result;
}

/* ------------------------------------------------------------------ for one name */

static int
note_name(SSL *ssl, void *arg)
{
    const struct pc_tls *tls = SSL_get_app_data(ssl);
    (void)arg;
    return SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), tls->name, tls->name_len);
}

/* A session of another name is none: what was checked for the one says nothing about the other (CVE-2025-23048, CVE-2025-23419). That
 * of another host does not come this far: its session id context differs. */
static SSL_TICKET_RETURN
check_name(SSL *ssl, SSL_SESSION *session, const unsigned char *key_name, size_t key_name_len, SSL_TICKET_STATUS status, void *arg)
{
    const struct pc_tls *tls = SSL_get_app_data(ssl);
    void *name = NULL;
    size_t len = 0;
    (void)key_name;
    (void)key_name_len;
    (void)arg;
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    if (SSL_SESSION_get0_ticket_appdata(session, &name, &len) <= 0 || len != tls->name_len
        || (len > 0 && memcmp(name, tls->name, len) != 0))
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

void
pc_tls_tickets_use(SSL_CTX *ctx)
{
    (void)SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, choose_key);   /* always 1 */
    (void)SSL_CTX_set_session_ticket_cb(ctx, note_name, check_name, NULL); /* always 1 */
}
