/* runner.h - forking what executes programs. (runner.c; nursery.c forks them)
 * Runs as:  dispatcher, nursery, runner.   Before: perchild/dispatcher/runners.py   After: drop.c, runexec.h */
#ifndef PC_RUNNER_H
#define PC_RUNNER_H

#include "pc.h"

struct pc_runner_options {
    int box_fd;    /* read end of the identity's job box */
    int file_fd;   /* what compile wrote for it: perchild/runner/main.py reads it */
    int parent_fd; /* pidfd of the dispatcher */
    char name[64]; /* of the identity, for people; NUL-terminated */
};
/* Fork into namespaces, or without where they are refused. flags: CLONE_PARENT or 0. Returns pid, 0 in the runner, -errno. */
int pc_runner_fork(unsigned long flags, bool is_privileged);
/* Let go of what runners share with who forks them, until their drop: in whatever becomes an identity. */
void pc_runner_unshare(void);
/* Behind that fork: mounts, drop. Python goes on, with pc_runner_here. */
void pc_runner_become(const struct pc_drop *drop, const struct pc_runner_options *options);
/* Both, without a nursery. Returns the pid, 0 in the runner, -PC_E_SYS. */
int pc_runner_spawn(const struct pc_drop *drop, const struct pc_runner_options *options);
/* Have the nursery fork it. As pc_nursery_spawn. */
int pc_nursery_spawn_runner(int fd, const struct pc_drop *drop, const struct pc_runner_options *options);
/* Whether this process is a runner, and what it holds. */
bool pc_runner_here(int *ret_box, int *ret_file, bool *ret_is_apart);
/* Block TERM, USR1 and CHLD, and nothing else, in a runner. Returns a signalfd of them, the caller's, or -PC_E_SYS. */
int pc_runner_signals(void);

#endif
