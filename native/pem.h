/* pem.h - certificates and keys as they are written in files, for those who check them and those who serve with them. */
#ifndef PC_PEM_H
#define PC_PEM_H

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "pc.h"

enum pc_pem_problem { PC_PEM_GOOD, PC_PEM_UNREADABLE /* or empty, or too large */, PC_PEM_LOCKED /* it has a pass phrase */, PC_PEM_NONE };

/* For OpenSSL's readers: nobody is asked for a pass phrase. `is_asked` is the bool that tells of it. */
int pc_pem_no_pass_phrase(char *buf, int size, int is_writing, void *is_asked);
/* The private key in an open file, read from its start, the caller's; NULL with the problem, and OpenSSL's error if it had one. */
EVP_PKEY *pc_pem_read_key(int fd, enum pc_pem_problem *ret_problem);
/* The first certificate, and those behind it, all the caller's. Returns 0, or -PC_E_BAD with OpenSSL's error: there is none, or one cannot be read. */
int pc_pem_read_certs(struct pc_slice pem, X509 **ret_leaf, STACK_OF(X509) **ret_chain);

#endif
