/* runner.c - fork the process of an identity that executes programs, in namespaces of its own.
 * Runs as:  nursery or dispatcher up to the fork; then root until pc_drop_privileges returns; then the identity.
 * Sees:     nothing until the drop.   Holds: job box, the runner's file, standard error.
 * Trusts:   struct pc_drop and struct pc_runner_options (the dispatcher's).
 * In a PID namespace its programs see and reach no process but their own, and none outlives it. Where namespaces are refused it
 * runs without, which it says once.
 * Before:   nursery.c, perchild/dispatcher/runners.py   After: drop.c, perchild/runner/main.py */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "child.h"
#include "runner.h"

#define APART ((unsigned long)(CLONE_NEWPID | CLONE_NEWNS))

static struct pc_runner_options here = {.box_fd = -1, .file_fd = -1, .parent_fd = -1}; /* of the runner that this process is */
static bool is_apart;        /* set in front of the fork, read behind it */
static int apart_error;
static _Atomic bool *is_said; /* shared with the runners forked here, until their drop: the complaint is made once */

int
pc_runner_fork(unsigned long flags, bool is_privileged)
{
    if (is_said == NULL) {
        void *page = mmap(NULL, sizeof *is_said, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        is_said = page == MAP_FAILED ? NULL : page;
    }
    is_apart = is_privileged;
    long pid = is_privileged ? syscall(SYS_clone, flags | APART | SIGCHLD, NULL, NULL, NULL, NULL) : -1;
    if (pid >= 0)
        return (int)pid;
    apart_error = is_privileged ? errno : EPERM;
    is_apart = false;
    pid = syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
    return pid < 0 ? -errno : (int)pid;
}

/* Its own mounts, and a /proc of its own processes. Mounts that the machine makes later still come in; none goes out. */
static int
mount_own_proc(void)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) != 0)
        return errno;
    return mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0 ? 0 : errno;
}

static void
complain(const char *what, int error)
{
    if (is_said != NULL && atomic_exchange(is_said, true))
        return;
    (void)fprintf(stderr, "perchildd: %s (errno %d): programs run without; those of one user see and may signal that user's server "
                          "processes\n", what, error);
}

void
pc_runner_unshare(void)
{
    if (is_said != NULL)
        (void)munmap((void *)(uintptr_t)is_said, sizeof *is_said);
    is_said = NULL;
}

void
pc_runner_become(const struct pc_drop *drop, const struct pc_runner_options *options)
{
    char title[16]; /* what ps -o comm shows */
    (void)snprintf(title, sizeof title, "pr:%.12s", options->name);
    (void)prctl(PR_SET_NAME, title, 0, 0, 0);
    if (!is_apart)
        complain("no PID namespace can be made for runners", apart_error);
    else if ((apart_error = mount_own_proc()) != 0)
        complain("no /proc of its own can be mounted for a runner", apart_error);
    pc_runner_unshare();
    pc_drop_privileges(drop);
    if (!is_apart)
        (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); /* what PID 1 would be: the parent of whoever loses theirs */
    here = *options;
    here.parent_fd = -1; /* the drop closed it */
}

int
pc_runner_spawn(const struct pc_drop *drop, const struct pc_runner_options *options)
{
    int pid = pc_runner_fork(0, drop->is_privileged);
    if (pid == 0)
        pc_runner_become(drop, options);
    if (pid < 0)
        errno = -pid;
    return pid < 0 ? -PC_E_SYS : pid;
}

bool
pc_runner_here(int *ret_box, int *ret_file, bool *ret_is_apart)
{
    *ret_box = here.box_fd;
    *ret_file = here.file_fd;
    *ret_is_apart = is_apart;
    return here.box_fd >= 0;
}

int
pc_runner_signals(void)
{
    sigset_t ours;
    (void)sigemptyset(&ours);
    (void)sigaddset(&ours, SIGTERM);
    (void)sigaddset(&ours, SIGUSR1);
    (void)sigaddset(&ours, SIGCHLD);
    (void)signal(SIGCHLD, SIG_DFL);
    if (sigprocmask(SIG_SETMASK, &ours, NULL) != 0)
        return -PC_E_SYS;
    int fd = signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -PC_E_SYS : fd;
}
