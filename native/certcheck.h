/* certcheck.h - what compile may ask about certificates. No other part of the data plane uses it. */
#ifndef PC_CERTCHECK_H
#define PC_CERTCHECK_H

#include "pc.h"

#define PC_CERT_WORDS 128

/* Why a certificate cannot be used; perchild/config/certs.py has the words. */
enum pc_cert_problem {
    PC_CERT_GOOD, PC_CERT_MALFORMED, PC_CERT_NO_KEY, PC_CERT_LOCKED_KEY /* it has a pass phrase */, PC_CERT_OTHER_KEY, PC_CERT_WEAK,
    PC_CERT_REFUSED, PC_CERT_LATER_KEY /* it is that of a certificate behind the first */,
};

struct pc_cert_facts {
    int problem;                       /* enum pc_cert_problem */
    int kind, bits, chain_count;       /* kind: OpenSSL's number of the key's algorithm */
    int64_t not_before_s, not_after_s; /* since 1970 */
    char words[PC_CERT_WORDS];         /* OpenSSL's for the problem, maybe none */
};

/* Whether leaf and chain in `pem` can be used with the key in an open file (-1 = there is none). Returns 0 or -PC_E_BAD. */
int pc_cert_check(const char *pem, size_t len, int key_fd, struct pc_cert_facts *ret_facts);
/* Whether all certificates and revocation lists in `pem` can be read. Returns 0 or -PC_E_BAD with OpenSSL's words. */
int pc_cert_check_list(const char *pem, size_t len, char ret_words[PC_CERT_WORDS]);
/* Whether SSL_CONF_cmd(3) takes it. Returns 0 or -PC_E_BAD with OpenSSL's words. */
int pc_cert_check_command(const char *name, const char *value, char ret_words[PC_CERT_WORDS]);

#endif
