/* drop.c - become the identity for good: rows of a table, each verified, and fatal when it fails.
 * Runs as:  a freshly forked child, root until PC_DROP_UID.   Sees: nothing from outside.
 * Holds:    what it is about to lose.
 * Trusts:   struct pc_drop (the dispatcher's).   Distrusts: that a system call did what it said.
 * Before:   fork in the dispatcher; seccomp.c has made the filter.   After: record.c */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "pc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PC_DROP_NO_ID UINT32_MAX /* setresuid(2) and its kin take it for "leave as it is" */
#define PC_DROP_SECUREBITS_WANTED                                                                  \
    (SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP_LOCKED |                        \
     SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED)

/* A verification that fails has no errno of its own. */
static int
pc_drop_refuse(void)
{
    errno = 0;
    return -1;
}

/* prctl(2) takes five longs, and some of its operations look at all of them. */
static int
pc_drop_prctl(long operation, unsigned long a, unsigned long b)
{
    return (int)syscall(SYS_prctl, operation, a, b, 0ul, 0ul);
}

/* ------------------------------------------------------------------ the steps, in their order */

static int
pc_drop_compare_int(const void *a, const void *b)
{
    const int x = *(const int *)a, y = *(const int *)b;

    return (x > y) - (x < y);
}

/* 0, 1 and 2 are open before anything else is: or the next descriptor would be taken for stderr. */
static int
pc_drop_open_standard(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            continue;
        if (errno != EBADF)
            return -1;
        int got = open("/dev/null", O_RDWR | O_NOCTTY); /* the lowest free number, that is fd */
        if (got < 0)
            return -1;
        if (got != fd)
            return pc_drop_refuse();
    }
    return 0;
}

static int
pc_drop_close_between(unsigned int first, unsigned int last)
{
    return first > last ? 0 : (int)syscall(SYS_close_range, first, last, 0u);
}

static int
pc_drop_descriptors(const struct pc_drop *drop)
{
    unsigned int next = 3;
    int *keep = NULL, result = -1;

    if (pc_drop_open_standard() != 0)
        return -1;
    if (drop->keep_count > 0) {
        keep = malloc(drop->keep_count * sizeof *keep);
        if (keep == NULL)
            return -1;
        memcpy(keep, drop->keep_fds, drop->keep_count * sizeof *keep);
        qsort(keep, drop->keep_count, sizeof *keep, pc_drop_compare_int);
    }
    for (size_t i = 0; i < drop->keep_count; i++) {
        if (fcntl(keep[i], F_GETFD) < 0)
            goto out;
        if ((unsigned int)keep[i] < next)
            continue; /* named twice, or a standard one */
        if (pc_drop_close_between(next, (unsigned int)keep[i] - 1) != 0)
            goto out;
        next = (unsigned int)keep[i] + 1;
    }
    result = pc_drop_close_between(next, ~0u);
out:
    free(keep);
    return result;
}

/* The time zone is the one variable that survives: log lines are in the operator's, not in UTC. */
static int
pc_drop_clear_environment(void)
{
    const char *now = getenv("TZ");
    char *zone = NULL;
    int result = -1;

    if (now != NULL && (zone = strdup(now)) == NULL)
        return -1;
    tzset();
    if (clearenv() != 0)
        goto out;
    result = zone != NULL ? setenv("TZ", zone, 1) : 0;
out:
    free(zone);
    return result;
}

static int
pc_drop_session(const struct pc_drop *drop)
{
    (void)drop;
    /* The id calls below are raw and change one thread only. The kernel refuses this when there are
     * others; where a container forbids the call itself there is nothing to learn from it. */
    if (unshare(CLONE_THREAD) != 0 && errno == EINVAL)
        return -1;
    if (getsid(0) != getpid() && setsid() < 0)
        return -1;
    if (chdir("/") != 0)
        return -1;
    (void)umask(077); /* cannot fail; what it was is of no use */
    return pc_drop_clear_environment();
}

static int
pc_drop_limit(unsigned int which, uint64_t wanted)
{
    const struct rlimit limit = {.rlim_cur = wanted, .rlim_max = wanted};
    struct rlimit now = {.rlim_cur = wanted + 1, .rlim_max = wanted + 1};

    if (setrlimit((__rlimit_resource_t)which, &limit) != 0)
        return -1;
    if (getrlimit((__rlimit_resource_t)which, &now) != 0)
        return -1;
    return now.rlim_cur == wanted && now.rlim_max == wanted ? 0 : pc_drop_refuse();
}

static int
pc_drop_limits(const struct pc_drop *drop)
{
    if (pc_drop_limit(RLIMIT_CORE, 0) != 0)
        return -1;
    return pc_drop_limit(RLIMIT_NOFILE, drop->nofile);
}

static bool
pc_drop_is_denied(long result)
{
    return result == -1 && (errno == EPERM || errno == ENOSYS);
}

/* Whether no call that can name a key works at all: a kernel without keyrings (ENOSYS), or a
 * container's filter (EPERM), which every descendant inherits. Then the old keyring is out of
 * reach as it is. The arguments are bad on purpose: where the calls work they answer EFAULT. */
static bool
pc_drop_has_no_keyrings(void)
{
    return pc_drop_is_denied(
               syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0)) &&
           pc_drop_is_denied(syscall(SYS_add_key, NULL, NULL, NULL, 0l, 0l)) &&
           pc_drop_is_denied(syscall(SYS_request_key, NULL, NULL, NULL, 0l));
}

/* Keys in the dispatcher's session keyring would be possessed by every tenant. */
static int
pc_drop_keyring(const struct pc_drop *drop)
{
    long serial;
    int error;

    (void)drop;
    serial = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
    if (serial > 0)
        return 0;
    if (serial == 0)
        return pc_drop_refuse(); /* serial numbers begin at 1 */
    error = errno;
    if (pc_drop_has_no_keyrings())
        return 0;
    errno = error;
    return -1;
}

/* Capabilities are numbered without gaps; behind the kernel's last one PR_CAPBSET_READ fails. */
static int
pc_drop_bounding(const struct pc_drop *drop)
{
    int cap = 0;

    (void)drop;
    for (; pc_drop_prctl(PR_CAPBSET_READ, (unsigned long)cap, 0) >= 0; cap++)
        if (pc_drop_prctl(PR_CAPBSET_DROP, (unsigned long)cap, 0) != 0)
            return -1;
    return errno == EINVAL && cap > CAP_SETPCAP ? 0 : -1;
}

static int
pc_drop_ambient(const struct pc_drop *drop)
{
    (void)drop;
    return pc_drop_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0);
}

static int
pc_drop_securebits(const struct pc_drop *drop)
{
    (void)drop;
    return pc_drop_prctl(PR_SET_SECUREBITS, (unsigned long)PC_DROP_SECUREBITS_WANTED, 0);
}

static int
pc_drop_groups(const struct pc_drop *drop)
{
    return (int)syscall(SYS_setgroups, drop->group_count, drop->groups);
}

static int
pc_drop_gid(const struct pc_drop *drop)
{
    return (int)syscall(SYS_setresgid, drop->gid, drop->gid, drop->gid);
}

static int
pc_drop_uid(const struct pc_drop *drop)
{
    return (int)syscall(SYS_setresuid, drop->uid, drop->uid, drop->uid);
}

static int
pc_drop_capabilities(const struct pc_drop *drop)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0, 0, 0}, {0, 0, 0}};

    (void)drop;
    return (int)syscall(SYS_capset, &head, none);
}

static int
pc_drop_compare_u32(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static int
pc_drop_verify_groups(const struct pc_drop *drop)
{
    const size_t count = drop->group_count;
    uint32_t *have, *want;
    int result = -1;

    if ((size_t)syscall(SYS_getgroups, 0, NULL) != count)
        return pc_drop_refuse();
    if (count == 0)
        return 0;
    have = malloc(2 * count * sizeof *have);
    if (have == NULL)
        return -1;
    want = have + count;
    memset(have, 0xff, count * sizeof *have); /* no group has that number */
    memcpy(want, drop->groups, count * sizeof *want);
    if ((size_t)syscall(SYS_getgroups, count, have) != count)
        goto out;
    qsort(have, count, sizeof *have, pc_drop_compare_u32);
    qsort(want, count, sizeof *want, pc_drop_compare_u32);
    result = memcmp(have, want, count * sizeof *have) == 0 ? 0 : pc_drop_refuse();
out:
    free(have);
    return result;
}

static int
pc_drop_verify_ids(const struct pc_drop *drop)
{
    uint32_t ids[3] = {PC_DROP_NO_ID, PC_DROP_NO_ID, PC_DROP_NO_ID};

    if (syscall(SYS_getresuid, &ids[0], &ids[1], &ids[2]) != 0)
        return -1;
    if (ids[0] != drop->uid || ids[1] != drop->uid || ids[2] != drop->uid)
        return pc_drop_refuse();
    ids[0] = ids[1] = ids[2] = PC_DROP_NO_ID;
    if (syscall(SYS_getresgid, &ids[0], &ids[1], &ids[2]) != 0)
        return -1;
    if (ids[0] != drop->gid || ids[1] != drop->gid || ids[2] != drop->gid)
        return pc_drop_refuse();
    /* -1 is no id: setfsuid(2) changes nothing and tells what is set. */
    if ((uint32_t)syscall(SYS_setfsuid, PC_DROP_NO_ID) != drop->uid ||
        (uint32_t)syscall(SYS_setfsgid, PC_DROP_NO_ID) != drop->gid)
        return pc_drop_refuse();
    return pc_drop_verify_groups(drop);
}

/* Every way back that the kernel offers must be refused, not only the one that we would take. */
static int
pc_drop_verify_back(const struct pc_drop *drop)
{
    static const struct {
        long call, a, b, c;
        bool of_group;
    } ways[] = {
        {SYS_setresuid, -1, 0, -1, false}, {SYS_setresuid, 0, -1, -1, false},
        {SYS_setresuid, -1, -1, 0, false}, {SYS_setreuid, -1, 0, 0, false},
        {SYS_setreuid, 0, -1, 0, false},   {SYS_setuid, 0, 0, 0, false},
        {SYS_setresgid, -1, 0, -1, true},  {SYS_setresgid, 0, -1, -1, true},
        {SYS_setresgid, -1, -1, 0, true},  {SYS_setregid, -1, 0, 0, true},
        {SYS_setregid, 0, -1, 0, true},    {SYS_setgid, 0, 0, 0, true},
        {SYS_setgroups, 0, 0, 0, false},
    };

    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        if (ways[i].of_group && drop->gid == 0)
            continue; /* an unprivileged server that was started in group 0 */
        if (syscall(ways[i].call, ways[i].a, ways[i].b, ways[i].c) != -1 || errno != EPERM)
            return pc_drop_refuse();
    }
    (void)syscall(SYS_setfsuid, 0); /* tells the old id, never success: so ask again */
    (void)syscall(SYS_setfsgid, 0);
    if ((uint32_t)syscall(SYS_setfsuid, PC_DROP_NO_ID) != drop->uid ||
        (uint32_t)syscall(SYS_setfsgid, PC_DROP_NO_ID) != drop->gid)
        return pc_drop_refuse();
    return 0;
}

static int
pc_drop_verify_capabilities(const struct pc_drop *drop)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct now[_LINUX_CAPABILITY_U32S_3];
    int cap = 0, bound;

    memset(now, 0xff, sizeof now);
    if (syscall(SYS_capget, &head, now) != 0)
        return -1;
    for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
        if (now[i].effective != 0 || now[i].permitted != 0 || now[i].inheritable != 0)
            return pc_drop_refuse();
    for (; (bound = pc_drop_prctl(PR_CAPBSET_READ, (unsigned long)cap, 0)) >= 0; cap++) {
        if (bound != 0 && drop->is_privileged)
            return pc_drop_refuse();
        if (pc_drop_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, (unsigned long)cap) != 0)
            return pc_drop_refuse();
    }
    if (errno != EINVAL || cap <= CAP_SETPCAP)
        return -1;
    if (drop->is_privileged && pc_drop_prctl(PR_GET_SECUREBITS, 0, 0) != PC_DROP_SECUREBITS_WANTED)
        return pc_drop_refuse();
    return 0;
}

/* The change of ids did it already on a usual system; fs.suid_dumpable can say otherwise. */
static int
pc_drop_dumpable(const struct pc_drop *drop)
{
    (void)drop;
    if (pc_drop_prctl(PR_SET_DUMPABLE, 0, 0) != 0)
        return -1;
    return pc_drop_prctl(PR_GET_DUMPABLE, 0, 0) == 0 ? 0 : pc_drop_refuse();
}

/* In a PID namespace of its own a process has no parent that it could name, so it has a pidfd of it. */
static bool
pc_drop_is_ended(int pidfd)
{
    struct pollfd one = {.fd = pidfd, .events = POLLIN};
    const bool is_ended = poll(&one, 1, 0) != 0;

    (void)close(pidfd); /* nothing is read from or written to it */
    return is_ended;
}

/* Not earlier: a change of credentials clears the signal. The parent may be gone by then, hence the
 * look behind it. */
static int
pc_drop_parent(const struct pc_drop *drop)
{
    int signal_now = 0;

    if (pc_drop_prctl(PR_SET_PDEATHSIG, SIGKILL, 0) != 0)
        return -1;
    if (pc_drop_prctl(PR_GET_PDEATHSIG, (uintptr_t)&signal_now, 0) != 0)
        return -1;
    if (signal_now != SIGKILL)
        return pc_drop_refuse();
    if (drop->is_runner ? pc_drop_is_ended(drop->parent_fd) : getppid() != drop->parent_pid) {
        errno = ESRCH;
        return -1;
    }
    return 0;
}

static int
pc_drop_no_new_privs(const struct pc_drop *drop)
{
    if (drop->may_gain && drop->is_privileged) /* without root the filter could not be loaded */
        return 0;
    if (pc_drop_prctl(PR_SET_NO_NEW_PRIVS, 1, 0) != 0)
        return -1;
    return pc_drop_prctl(PR_GET_NO_NEW_PRIVS, 0, 0) == 1 ? 0 : pc_drop_refuse();
}

static int
pc_drop_seccomp(const struct pc_drop *drop)
{
    struct sock_fprog program = {.len = 0, .filter = NULL};

    if (drop->seccomp_bpf == NULL)
        return 0;
    if (drop->seccomp_count < 1 || drop->seccomp_count > BPF_MAXINSNS) {
        errno = EINVAL;
        return -1;
    }
    program.len = (unsigned short)drop->seccomp_count;
    program.filter = (struct sock_filter *)(uintptr_t)drop->seccomp_bpf; /* only read */
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0)
        return -1;
    if (pc_drop_prctl(PR_GET_SECCOMP, 0, 0) != SECCOMP_MODE_FILTER)
        return pc_drop_refuse();
    /* A container's filter answers the line above as well, so one call is tried: without ours it
     * would be EFAULT, or for a runner EINVAL. */
    if (drop->is_runner)
        return syscall(SYS_clone3, NULL, 0ul) == -1 && errno == ENOSYS ? 0 : pc_drop_refuse();
    if (syscall(SYS_execve, NULL, NULL, NULL) != -1 || errno != EPERM)
        return pc_drop_refuse();
    return 0;
}

/* ------------------------------------------------------------------ the table */

static const struct pc_drop_row {
    const char *what; /* for the line on stderr */
    int (*run)(const struct pc_drop *drop); /* 0, or -1 with errno (0 = verification failed) */
    bool needs_privilege;
} pc_drop_table[PC_DROP_STEPS] = {
    [PC_DROP_DESCRIPTORS] = {"descriptors", pc_drop_descriptors, false},
    [PC_DROP_SESSION] = {"session", pc_drop_session, false},
    [PC_DROP_LIMITS] = {"resource limits", pc_drop_limits, false},
    [PC_DROP_KEYRING] = {"session keyring", pc_drop_keyring, false},
    [PC_DROP_BOUNDING] = {"capability bounding set", pc_drop_bounding, true},
    [PC_DROP_AMBIENT] = {"ambient capabilities", pc_drop_ambient, false},
    [PC_DROP_SECUREBITS] = {"securebits", pc_drop_securebits, true},
    [PC_DROP_GROUPS] = {"supplementary groups", pc_drop_groups, true},
    [PC_DROP_GID] = {"group id", pc_drop_gid, true},
    [PC_DROP_UID] = {"user id", pc_drop_uid, true},
    [PC_DROP_CAPABILITIES] = {"capabilities", pc_drop_capabilities, false},
    [PC_DROP_VERIFY_IDS] = {"ids are not the wanted ones", pc_drop_verify_ids, false},
    [PC_DROP_VERIFY_BACK] = {"a way back is open", pc_drop_verify_back, false},
    [PC_DROP_VERIFY_CAPABILITIES] = {"capabilities remain",
                                     pc_drop_verify_capabilities, false},
    [PC_DROP_DUMPABLE] = {"dumpable", pc_drop_dumpable, false},
    [PC_DROP_PARENT] = {"parent", pc_drop_parent, false},
    [PC_DROP_NO_NEW_PRIVS] = {"no_new_privs", pc_drop_no_new_privs, false},
    [PC_DROP_SECCOMP] = {"seccomp", pc_drop_seccomp, false},
};

static _Noreturn void
pc_drop_fail(enum pc_drop_step step)
{
    const int error = errno;
    char line[128];

    if (snprintf(line, sizeof line, "privileges not dropped: %s", pc_drop_table[step].what) < 0)
        line[0] = '\0';
    errno = error;
    pc_die(PC_EXIT_DROP + (int)step, line);
}

/* Wishes that no configuration may have: looked at before anything is done. */
static void
pc_drop_check_wish(const struct pc_drop *drop)
{
    errno = EINVAL;
    if (drop->uid == 0 || drop->uid == PC_DROP_NO_ID)
        pc_drop_fail(PC_DROP_UID);
    if ((drop->gid == 0 && drop->is_privileged) || drop->gid == PC_DROP_NO_ID)
        pc_drop_fail(PC_DROP_GID);
    for (size_t i = 0; i < drop->group_count && drop->is_privileged; i++)
        if (drop->groups[i] == 0 || drop->groups[i] == PC_DROP_NO_ID)
            pc_drop_fail(PC_DROP_GROUPS);
}

void
pc_drop_privileges(const struct pc_drop *drop)
{
    pc_drop_check_wish(drop);
    /* Who has neither no_new_privs nor CAP_SYS_ADMIN may not load a filter. */
    const bool is_filter_first = drop->may_gain && drop->is_privileged;
    for (enum pc_drop_step step = 0; step < PC_DROP_STEPS; step++) {
        if (pc_drop_table[step].needs_privilege && !drop->is_privileged)
            continue;
        if (is_filter_first && step == PC_DROP_BOUNDING && pc_drop_seccomp(drop) != 0)
            pc_drop_fail(PC_DROP_SECCOMP);
        if (is_filter_first && step == PC_DROP_SECCOMP)
            continue;
        if (pc_drop_table[step].run(drop) != 0)
            pc_drop_fail(step);
    }
}
