/* spawn.c - fork a child, drop, serve: from the dispatcher to the identity in one call.
 * Runs as:  dispatcher up to the fork; in the child root until pc_drop_privileges returns; then the identity.
 * Sees:     nothing until the drop; then its record.   Holds: after the drop, what its role lists.
 * The fork is here and not in Python because the interpreter's own work behind a fork, and every bytecode run in the child, copies
 * pages that the children would else share. Python goes on in the child only when a question for it waits.
 * Before:   perchild/dispatcher/spawn.py   After: drop.c, child.c, main.c */
#include <sched.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "child.h"
#include "nursery.h"
#include "runner.h"

#define EXIT_RECORD 3
#define EXIT_STALE_KEY 4 /* a key was changed since the record was made: as in perchild/dispatcher/children.py */

struct pc_child *
pc_spawn_become(const struct pc_drop *drop, const struct pc_child_options *options)
{
    char title[16]; /* what ps -o comm shows */
    (void)snprintf(title, sizeof title, "pc:%.12s", options->name);
    (void)prctl(PR_SET_NAME, title, 0, 0, 0);
    /* A hand-off wakes its receiver in another process. If that one preempted the sender at once, every connection would cost two
     * switches of context; as a batch task it waits its turn, and finds several at a time: 1.3 switches for each new connection became
     * 0.6. Refused at worst, and then things are only slower. */
    struct sched_param none = {0};
    (void)sched_setscheduler(0, SCHED_BATCH, &none);
    pc_runner_unshare();
    pc_drop_privileges(drop);
    struct pc_child *child = NULL;
    const char *why = "";
    int error = pc_child_new(options, &child, &why);
    if (error == -PC_E_AGAIN)
        _exit(EXIT_STALE_KEY);
    if (error != 0) {
        (void)fprintf(stderr, "perchildd: child of uid %u: %s\n", drop->uid, why);
        _exit(EXIT_RECORD);
    }
    pc_child_begin(child, options->has_one_worker);
    if (pc_child_main(child) == PC_MAIN_END) {
        pc_child_finish(child);
        _exit(0);
    }
    return child;
}

int
pc_spawn(const struct pc_drop *drop, const struct pc_child_options *options, struct pc_child **ret_child)
{
    pid_t pid = fork();
    if (pid < 0)
        return -PC_E_SYS;
    if (pid > 0)
        return (int)pid;
    *ret_child = pc_spawn_become(drop, options);
    return 0;
}
