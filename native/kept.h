/* kept.h - connections to back ends that wait for the next request. (kept.c)
 * Runs as:  child.   Before: dial.c, loop.c   After: backend.c */
#ifndef PC_KEPT_H
#define PC_KEPT_H

#include "backend.h"

/* The latest that still lives, counted among the open ones as before; -1 = none. */
int pc_kept_take(struct pc_child *child, struct pc_backend *backend, uint64_t *ret_inode);
/* Keep an open connection on which nothing is under way, if there is room for it; false: it stays the caller's. */
bool pc_kept_put(struct pc_child *child, struct pc_backend *backend, int fd, uint64_t inode);
/* One more is open than the child's share: none stays kept that has a worker which that one would wait for. */
void pc_kept_make_way(struct pc_child *child, struct pc_backend *backend);
/* Close those that have been idle for too long; everything when now_ns is UINT64_MAX. */
void pc_kept_sweep(struct pc_child *child, uint64_t now_ns);

#endif
