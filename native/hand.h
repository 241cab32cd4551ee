/* hand.h - the hand-off of a connection to its owner; docs/protocol.md. (hand.c)
 * Runs as:  child.   Before: peek.c, loop.c   After: - */
#ifndef PC_HAND_H
#define PC_HAND_H

#include "child.h"

#define PC_HAND_MAGIC 0x4F484350u /* "PCHO" */
#define PC_HAND_VERSION 2
enum pc_hand_kind { PC_HAND_FRESH = 1, PC_HAND_CARRIED = 2 };

struct pc_hand {
    uint32_t magic;
    uint16_t version;
    uint8_t kind, hops;
    uint32_t carried_len; /* bytes behind this struct; 0 for PC_HAND_FRESH */
    uint32_t requests;    /* answered on this connection so far */
    uint32_t sender;      /* identity number, for the log only */
    uint8_t client_family; /* 0: the socket's peer is the client; 4, 6: a front end said who it is, and tag that it did */
    uint8_t zero;
    uint16_t client_port;
    uint8_t client[16];
    uint64_t tag; /* pc_hand_sign, by who took the front end's header */
};
_Static_assert(sizeof(struct pc_hand) == 48, "struct pc_hand is what docs/protocol.md says, without gaps");

/* Pure: whether a message of `len` bytes keeps the rules. Returns 0 or -PC_E_PEER. ret_carried points into raw. */
int pc_hand_check_message(const char *raw, size_t len, struct pc_hand *ret_hand, struct pc_slice *ret_carried);
/* The tag of conn's client and its socket, as the kernel numbers sockets: who has no key can neither make nor move one. */
uint64_t pc_hand_sign(const uint8_t key[PC_KEY_BYTES], const struct pc_conn *conn);
/* Send without waiting. 0, -PC_E_AGAIN (full), -PC_E_SYS. The caller closes its copy after 0. */
int pc_hand_send(struct pc_child *child, uint32_t number, struct pc_conn *conn, struct pc_slice carried);
/* Pass conn on, or hold it back when the inbox is full. conn is gone afterwards, or waits. */
enum pc_next pc_hand_over(struct pc_worker *worker, struct pc_conn *conn, uint32_t number, struct pc_slice carried);
void pc_hand_receive(struct pc_worker *worker); /* slot -2 -> descriptor -> -1 */
void pc_hand_retry(struct pc_worker *worker);   /* the connections held back */
void pc_hand_say_refused(struct pc_worker *worker); /* those that were left out of the error log, when a second is over */
void pc_hand_look(struct pc_child *child, uint64_t now_ns); /* at RLIMIT_NOFILE, now and then, before anything is received */
/* Checks on a received descriptor: a connected TCP socket on one of our addresses. 0 or -PC_E_PEER; fills addresses. */
int pc_hand_check_socket(const struct pc_config *config, int fd, struct pc_conn *conn);

#endif
