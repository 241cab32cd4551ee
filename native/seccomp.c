/* seccomp.c - which system calls are refused: to a child, and to a runner with whatever it executes.
 * Runs as:  dispatcher, root, before the first fork.   Sees: nothing from outside.   Holds: nothing.
 * Distrusts: who will run under it; that all architectures number their calls alike.
 * Before:   dispatcher's start   After: drop.c, which loads it */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "pc.h"

#include <errno.h>
#include <linux/filter.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* Refused whatever the arguments are. Names, for libseccomp knows every architecture's numbers;
 * `number` serves for those that are younger than Debian 12's libseccomp (from 424 on all
 * architectures agree on numbers). A runner's filter goes on to whatever its tenant executes, so it
 * has only what programs for users do without (and what the usual container refuses them, too). */
static const struct denial {
    const char *name;
    int error;
    int number;        /* 0 = libseccomp knows it */
    bool is_runners;   /* a row of the runner's filter, too */
} denied[] = {
    /* other programs and processes */
    {"execve", EPERM, 0, false}, {"execveat", EPERM, 0, false}, {"fork", EPERM, 0, false},
    {"vfork", EPERM, 0, false},
    {"clone3", ENOSYS, 0, true}, /* its flags are in memory; glibc falls back to clone */
    {"ptrace", EPERM, 0, false}, {"process_vm_readv", EPERM, 0, false},
    {"process_vm_writev", EPERM, 0, false}, {"process_madvise", EPERM, 0, false},
    {"pidfd_getfd", EPERM, 0, false}, {"kcmp", EPERM, 0, false},
    /* wide kernel surface that a web server has no use for */
    {"bpf", EPERM, 0, true}, {"perf_event_open", EPERM, 0, true}, {"userfaultfd", EPERM, 0, true},
    {"io_uring_setup", EPERM, 0, true}, {"io_uring_enter", EPERM, 0, true},
    {"io_uring_register", EPERM, 0, true}, {"keyctl", EPERM, 0, true}, {"add_key", EPERM, 0, true},
    {"request_key", EPERM, 0, true}, {"memfd_create", EPERM, 0, false},
    {"memfd_secret", EPERM, 447, false}, {"modify_ldt", EPERM, 0, false},
    {"fanotify_init", EPERM, 0, true}, {"lookup_dcookie", EPERM, 0, true},
    {"uselib", EPERM, 0, true},
    /* the file system's shape, and files by handle instead of by path */
    {"mount", EPERM, 0, true}, {"umount2", EPERM, 0, true}, {"pivot_root", EPERM, 0, true},
    {"chroot", EPERM, 0, true}, {"fsopen", EPERM, 0, true}, {"fsconfig", EPERM, 0, true},
    {"fsmount", EPERM, 0, true}, {"fspick", EPERM, 0, true}, {"move_mount", EPERM, 0, true},
    {"open_tree", EPERM, 0, true}, {"open_tree_attr", EPERM, 467, true},
    {"mount_setattr", EPERM, 442, true}, {"open_by_handle_at", EPERM, 0, true},
    {"name_to_handle_at", EPERM, 0, false}, {"swapon", EPERM, 0, true},
    {"swapoff", EPERM, 0, true}, {"quotactl", EPERM, 0, false},
    {"quotactl_fd", EPERM, 443, false},
    /* namespaces, modules, the machine */
    {"unshare", EPERM, 0, true}, {"setns", EPERM, 0, true}, {"kexec_load", EPERM, 0, true},
    {"kexec_file_load", EPERM, 0, true}, {"init_module", EPERM, 0, true},
    {"finit_module", EPERM, 0, true}, {"delete_module", EPERM, 0, true}, {"reboot", EPERM, 0, true},
    {"acct", EPERM, 0, true}, {"syslog", EPERM, 0, true}, {"vhangup", EPERM, 0, true},
    {"iopl", EPERM, 0, true}, {"ioperm", EPERM, 0, true}, {"sethostname", EPERM, 0, true},
    {"setdomainname", EPERM, 0, true}, {"settimeofday", EPERM, 0, true},
    {"clock_settime", EPERM, 0, true}, {"clock_settime64", EPERM, 0, true},
    /* listeners are the dispatcher's business */
    {"bind", EPERM, 0, false}, {"listen", EPERM, 0, false},
    /* System V shared memory and queues; semaphores stay, AcceptMutex sysvsem needs them */
    {"shmget", EPERM, 0, false}, {"shmat", EPERM, 0, false}, {"shmctl", EPERM, 0, false},
    {"shmdt", EPERM, 0, false}, {"msgget", EPERM, 0, false}, {"msgsnd", EPERM, 0, false},
    {"msgrcv", EPERM, 0, false}, {"msgctl", EPERM, 0, false}, {"mq_open", EPERM, 0, false},
    {"mq_unlink", EPERM, 0, false},
};

/* Refused (EPERM) for some arguments. Arguments of type int are 64 bits here, whose upper half the
 * kernel ignores: so no row lets through what another upper half would make of it. */
static const struct condition {
    const char *name;
    struct scmp_arg_cmp when;
    bool is_childs, is_runners;
} conditions[] = {
    {"clone", {0, SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0}, true, false}, /* threads only */
    {"clone", {0, SCMP_CMP_MASKED_EQ, CLONE_NEWUSER, CLONE_NEWUSER}, false, true},
    {"clone", {0, SCMP_CMP_MASKED_EQ, CLONE_NEWNS, CLONE_NEWNS}, false, true},
    {"clone", {0, SCMP_CMP_MASKED_EQ, CLONE_NEWPID, CLONE_NEWPID}, false, true},
    {"clone", {0, SCMP_CMP_MASKED_EQ, CLONE_NEWNET, CLONE_NEWNET}, false, true},
    {"personality", {0, SCMP_CMP_NE, 0xffffffffu, 0}, true, false}, /* asking is free */
    {"prlimit64", {0, SCMP_CMP_NE, 0, 0}, true, true},              /* oneself only, not one's server */
    {"socket", {0, SCMP_CMP_EQ, AF_UNSPEC, 0}, true, true}, /* but UNIX 1, INET 2, INET6 10 */
    {"socket", {0, SCMP_CMP_EQ, 3, 0}, true, true},
    {"socket", {0, SCMP_CMP_EQ, 4, 0}, true, true},
    {"socket", {0, SCMP_CMP_EQ, 5, 0}, true, true},
    {"socket", {0, SCMP_CMP_EQ, 6, 0}, true, true},
    {"socket", {0, SCMP_CMP_EQ, 7, 0}, true, true},
    {"socket", {0, SCMP_CMP_EQ, 8, 0}, true, true},
    {"socket", {0, SCMP_CMP_EQ, 9, 0}, true, true},
    {"socket", {0, SCMP_CMP_GT, AF_INET6, 0}, true, false},
    {"socket", {0, SCMP_CMP_EQ, 11, 0}, false, true},
    {"socket", {0, SCMP_CMP_MASKED_EQ, ~3ull, 12}, false, true}, /* 12 to 15 */
    {"socket", {0, SCMP_CMP_GT, AF_NETLINK, 0}, false, true}, /* getifaddrs(3) asks by netlink */
    {"ioctl", {1, SCMP_CMP_MASKED_EQ, 0xffffffffu, TIOCSTI}, true, true}, /* typing for the operator */
    {"ioctl", {1, SCMP_CMP_MASKED_EQ, 0xffffffffu, TIOCLINUX}, true, true},
};
_Static_assert(AF_UNIX == 1 && AF_INET == 2 && AF_INET6 == 10 && AF_NETLINK == 16, "the socket rows above");

/* Returns 0 or a negative errno. A call that this architecture lacks needs no rule. */
static int
add_denial(scmp_filter_ctx filter, const struct denial *row)
{
    int number = seccomp_syscall_resolve_name(row->name);

    if (number == __NR_SCMP_ERROR)
        number = row->number;
    if (number <= 0)
        return number == 0 ? -ENOENT : 0;
    return seccomp_rule_add(filter, SCMP_ACT_ERRNO((uint16_t)row->error), number, 0);
}

/* Returns 0 or a negative errno. 32-bit programs make sockets by socketcall(2), whose arguments are in memory, where no filter looks. */
static int
add_conditions(scmp_filter_ctx filter, bool is_runner, bool is_i386)
{
    int result = 0;

    for (size_t i = 0; result == 0 && i < sizeof conditions / sizeof conditions[0]; i++) {
        const struct condition *row = &conditions[i];
        if (!(is_runner ? row->is_runners : row->is_childs) || (is_i386 && strcmp(row->name, "socket") == 0))
            continue;
        result = seccomp_rule_add_array(filter, SCMP_ACT_ERRNO(EPERM),
                                        seccomp_syscall_resolve_name(row->name), 1, &row->when);
    }
    return result;
}

static int
fill_filter(scmp_filter_ctx filter, bool is_runner)
{
    int result = 0;

    /* Another architecture's numbers (i386, x32) would mean other calls: no compromise there. */
    result = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (result == 0)
        result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree, not a list */
    for (size_t i = 0; result == 0 && i < sizeof denied / sizeof denied[0]; i++)
        if (!is_runner || denied[i].is_runners)
            result = add_denial(filter, &denied[i]);
    return result == 0 ? add_conditions(filter, is_runner, false) : result;
}

/* libseccomp 2.5 writes to a descriptor only. Returns 0 or -1 with errno. */
static int
export_filter(scmp_filter_ctx filter, void **ret_bpf, size_t *ret_count)
{
    struct stat facts;
    void *bpf = NULL;
    size_t len;
    int result = -1, fd = memfd_create("seccomp", MFD_CLOEXEC);

    if (fd < 0)
        return -1;
    result = seccomp_export_bpf(filter, fd);
    if (result != 0) {
        errno = -result;
        result = -1;
        goto out;
    }
    result = -1;
    if (fstat(fd, &facts) != 0)
        goto out;
    len = (size_t)facts.st_size;
    errno = EINVAL;
    if (len == 0 || len % sizeof(struct sock_filter) != 0 ||
        len / sizeof(struct sock_filter) > BPF_MAXINSNS)
        goto out;
    bpf = malloc(len);
    if (bpf == NULL || pread(fd, bpf, len, 0) != (ssize_t)len)
        goto out;
    *ret_bpf = bpf;
    *ret_count = len / sizeof(struct sock_filter);
    bpf = NULL;
    result = 0;
out:
    free(bpf);
    (void)close(fd); /* memory: nothing can be lost */
    return result;
}

/* 32-bit programs are programs, too: what is refused by name is refused to them as well. Returns 0 or a negative errno. */
static int
add_i386(scmp_filter_ctx filter)
{
    scmp_filter_ctx other;
    int result;

    if (seccomp_arch_native() != SCMP_ARCH_X86_64)
        return 0;
    other = seccomp_init(SCMP_ACT_ALLOW);
    if (other == NULL)
        return -ENOMEM;
    result = seccomp_attr_set(other, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (result == 0)
        result = seccomp_attr_set(other, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (result == 0)
        result = seccomp_arch_remove(other, SCMP_ARCH_NATIVE);
    if (result == 0)
        result = seccomp_arch_add(other, SCMP_ARCH_X86);
    for (size_t i = 0; result == 0 && i < sizeof denied / sizeof denied[0]; i++)
        if (denied[i].is_runners && /* a number that libseccomp does not know it cannot translate */
            seccomp_syscall_resolve_name(denied[i].name) != __NR_SCMP_ERROR)
            result = add_denial(other, &denied[i]);
    if (result == 0)
        result = add_conditions(other, true, true);
    if (result == 0)
        result = seccomp_merge(filter, other); /* which is freed by it */
    else
        seccomp_release(other);
    return result;
}

static int
build(bool is_runner, void **ret_bpf, size_t *ret_count)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int result;

    if (filter == NULL)
        return -PC_E_MEMORY;
    result = fill_filter(filter, is_runner);
    if (result == 0 && is_runner)
        result = add_i386(filter);
    if (result != 0)
        errno = -result;
    else
        result = export_filter(filter, ret_bpf, ret_count);
    seccomp_release(filter);
    return result == 0 ? 0 : -PC_E_SYS;
}

int
pc_seccomp_build_child(void **ret_bpf, size_t *ret_count)
{
    return build(false, ret_bpf, ret_count);
}

int
pc_seccomp_build_runner(void **ret_bpf, size_t *ret_count)
{
    return build(true, ret_bpf, ret_count);
}
