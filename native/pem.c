/* pem.c - certificates and keys as they are written in files.
 * Runs as:  compile, or whoever tests a configuration; child, as the identity that owns the hosts, before READY.
 * Sees:     certificates and keys.   Holds: nothing: a key's bytes are wiped as soon as OpenSSL has the key.
 * Distrusts: the files: a tenant may have written them.
 * Before:   certcheck.c, tls_ctx.c   After: -
 * Tests: tests/native/test_tls_hosts.c, tests/unit/config/test_config_tls.py. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include "pem.h"

#define KEY_BYTES_MAX 65536

int
pc_pem_no_pass_phrase(char *buf, int size, int is_writing, void *is_asked)
{
    (void)buf;
    (void)size;
    (void)is_writing;
    *(bool *)is_asked = true;
    return -1;
}

/* What the descriptor has. Returns its length, or -PC_E_SYS, -PC_E_HEAD_LARGE. */
static ssize_t
read_file(int fd, char *buf, size_t cap)
{
    size_t len = 0;
    while (len < cap) {
        ssize_t count = pread(fd, buf + len, cap - len, (off_t)len);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return -PC_E_SYS;
        if (count == 0)
            return (ssize_t)len;
        len += (size_t)count;
    }
    return -PC_E_HEAD_LARGE;
}

EVP_PKEY *
pc_pem_read_key(int fd, enum pc_pem_problem *ret_problem)
{
    bool is_asked = false;
    char *raw = malloc(KEY_BYTES_MAX);
    if (raw == NULL)
        pc_die(111, "out of memory");
    ssize_t len = read_file(fd, raw, KEY_BYTES_MAX);
    BIO *bio = len > 0 ? BIO_new_mem_buf(raw, (int)len) : NULL;
    EVP_PKEY *key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, pc_pem_no_pass_phrase, &is_asked) : NULL;
    (void)BIO_free(bio); /* of memory, or NULL: cannot fail */
    OPENSSL_cleanse(raw, KEY_BYTES_MAX);
    free(raw);
    *ret_problem = key != NULL ? PC_PEM_GOOD : is_asked ? PC_PEM_LOCKED : len > 0 ? PC_PEM_NONE : PC_PEM_UNREADABLE;
    return key;
}

int
pc_pem_read_certs(struct pc_slice pem, X509 **ret_leaf, STACK_OF(X509) **ret_chain)
{
    bool is_asked = false;
    BIO *bio = pem.len <= INT32_MAX ? BIO_new_mem_buf(pem.base, (int)pem.len) : NULL;
    X509 *leaf = bio != NULL ? PEM_read_bio_X509(bio, NULL, pc_pem_no_pass_phrase, &is_asked) : NULL, *next;
    STACK_OF(X509) *chain = sk_X509_new_null();
    if (chain == NULL)
        pc_die(111, "out of memory");
    while (leaf != NULL && (next = PEM_read_bio_X509(bio, NULL, pc_pem_no_pass_phrase, &is_asked)) != NULL)
        if (sk_X509_push(chain, next) == 0)
            pc_die(111, "out of memory");
    (void)BIO_free(bio); /* of memory, or NULL: cannot fail */
    if (leaf == NULL || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
        X509_free(leaf);
        sk_X509_pop_free(chain, X509_free);
        return -PC_E_BAD;
    }
    ERR_clear_error(); /* the end of the list was one */
    *ret_leaf = leaf;
    *ret_chain = chain;
    return 0;
}
