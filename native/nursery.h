/* nursery.h - forking children. (spawn.c, nursery.c)
 * Runs as:  dispatcher, nursery.   Before: perchild/dispatcher/spawn.py   After: drop.c, child.c */
#ifndef PC_NURSERY_H
#define PC_NURSERY_H

#include "child.h"

/* spawn.c: fork, drop, serve. In the dispatcher: the child's pid, or -PC_E_SYS. In the child: 0, once Python is needed, with
 * ret_child; a child that does not need Python never returns. */
int pc_spawn(const struct pc_drop *drop, const struct pc_child_options *options, struct pc_child **ret_child);
/* The same behind a fork: drop, serve; returns only if Python is needed. */
struct pc_child *pc_spawn_become(const struct pc_drop *drop, const struct pc_child_options *options);

/* nursery.c: a quiet process that forks tenants' children for the dispatcher, whose children they are. Because it does nothing
 * else, its children go on sharing their memory with it and with each other; and it was forked before there was a plan. */
/* Start it. In the dispatcher: its pid, and ret_fd to talk to it; -PC_E_SYS. In a child of it that needs Python: 0; ret_child is
 * NULL in a runner. */
int pc_nursery_start(int *ret_fd, struct pc_child **ret_child);
/* Have a child forked. Returns its pid, -PC_E_BAD (too many descriptors: fork it yourself), -PC_E_CLOSED, -PC_E_SYS. */
int pc_nursery_spawn(int fd, const struct pc_drop *drop, const struct pc_child_options *options);

#endif
