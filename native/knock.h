/* knock.h - who waits for a pool that has overlooked a connection. (knock.c)
 * Runs as:  child.   Before: dial.c, loop.c   After: backend.c */
#ifndef PC_KNOCK_H
#define PC_KNOCK_H

#include "dial.h"

void pc_knock_list(struct pc_dial *dial);   /* a new connection that was given first bytes; nothing if its back end is none of those */
void pc_knock_unlist(struct pc_dial *dial); /* it has an answer, or ends */
/* See to it that pools whose php-fpm has overlooked a connection look again: called every PC_KNOCK_MS while there may be some. */
void pc_knock(struct pc_child *child, uint64_t now_ns);

#endif
