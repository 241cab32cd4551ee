/* drop_driver.c - a process that drops its privileges under faults that tests/boundary/test_drop.py asks for.
 * Arguments are name=value:
 *   uid= gid= groups=1,2 keep=7,9 nofile= priv=0|1 parent=right|wrong seccomp=0|1
 *   close=0,2        close these descriptors first
 *   inherit=1        fill the inheritable capabilities first
 *   userns=1         enter a user namespace first, whose ids 0..65535 are those outside
 *   fault=CALL:ERRNO[:ARG:VALUE]  that call fails with ERRNO (0: it "succeeds" and does nothing); may repeat
 *   do=wait|tries|facts|keyring|x32|i386  what happens after the drop; "dropped" is printed before */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "pc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static uint32_t groups[64];
static int keep[64];
static scmp_filter_ctx faults;

static size_t
read_list(char *text, long *out, size_t room)
{
    size_t count = 0;

    for (char *save, *one = strtok_r(text, ",", &save); one && count < room; one = strtok_r(NULL, ",", &save))
        out[count++] = strtol(one, NULL, 10);
    return count;
}

static void
need(bool is_good, const char *what)
{
    if (is_good)
        return;
    perror(what);
    _exit(2);
}

static void
add_fault(char *text)
{
    char *save, *name = strtok_r(text, ":", &save), *error = strtok_r(NULL, ":", &save);
    char *arg = strtok_r(NULL, ":", &save), *value = strtok_r(NULL, ":", &save);
    uint32_t action = SCMP_ACT_ERRNO((uint16_t)strtol(error, NULL, 10));
    int call = seccomp_syscall_resolve_name(name), result;

    if (!faults) {
        faults = seccomp_init(SCMP_ACT_ALLOW);
        /* The driver may: it is root, or the test wants no_new_privs to be set by the drop alone. */
        need(faults && seccomp_attr_set(faults, SCMP_FLTATR_CTL_NNP, 0) == 0, "seccomp_init");
    }
    if (arg) {
        struct scmp_arg_cmp when = {(unsigned int)strtol(arg, NULL, 10), SCMP_CMP_MASKED_EQ, 0xffffffffu,
                                    (uint32_t)strtoll(value, NULL, 10)};
        result = seccomp_rule_add_array(faults, action, call, 1, &when);
    } else {
        result = seccomp_rule_add(faults, action, call, 0);
    }
    need(call >= 0 && result == 0, name);
}

static void
fill_inheritable(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[2];

    need(syscall(SYS_capget, &head, data) == 0, "capget");
    data[0].inheritable = data[0].permitted;
    data[1].inheritable = data[1].permitted;
    need(syscall(SYS_capset, &head, data) == 0, "capset");
}

static void
write_map(pid_t pid, const char *name)
{
    char path[64];
    int fd;

    need(snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name) > 0, "snprintf");
    fd = open(path, O_WRONLY | O_CLOEXEC);
    need(fd >= 0 && write(fd, "0 0 65536\n", 10) == 10, path);
    (void)close(fd);
}

/* The map is written by a helper that stays outside. */
static void
enter_user_namespace(void)
{
    int gate[2], status = 1;
    pid_t self = getpid(), helper;
    char byte;

    need(pipe2(gate, O_CLOEXEC) == 0, "pipe2");
    helper = fork();
    need(helper >= 0, "fork");
    if (helper == 0) {
        need(read(gate[0], &byte, 1) == 1, "read");
        write_map(self, "uid_map");
        write_map(self, "gid_map");
        _exit(0);
    }
    need(unshare(CLONE_NEWUSER) == 0, "unshare");
    need(write(gate[1], "x", 1) == 1, "write");
    need(waitpid(helper, &status, 0) == helper && status == 0, "helper");
    (void)close(gate[0]);
    (void)close(gate[1]);
}

/* ------------------------------------------------------------------ after the drop */

static void
tell(const char *name, long result)
{
    printf("%s %s\n", name, result < 0 ? strerrorname_np(errno) : "ok");
    (void)fflush(stdout);
}

static void
tell_child(const char *name, long pid)
{
    if (pid == 0)
        _exit(0);
    tell(name, pid);
    if (pid > 0)
        (void)waitpid((pid_t)pid, NULL, 0);
}

static void
try_processes(void)
{
    char *const argv[] = {(char *)"/bin/true", NULL};
    char room[256] = {0};

    tell("execve", execve("/bin/true", argv, NULL));
    tell("execveat", syscall(SYS_execveat, -100, "/bin/true", argv, NULL, 0));
    tell_child("fork", syscall(SYS_fork));
    tell_child("clone", syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    tell_child("clone_newuser", syscall(SYS_clone, SIGCHLD | CLONE_NEWUSER, 0, 0, 0, 0));
    tell("clone3", syscall(SYS_clone3, room, 64));
    tell("ptrace", ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    tell("process_vm_readv", syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0));
    tell("process_vm_writev", syscall(SYS_process_vm_writev, getpid(), NULL, 0, NULL, 0, 0));
    tell("pidfd_getfd", syscall(SYS_pidfd_getfd, 0, 0, 0));
    tell("kcmp", syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0));
    tell("unshare", unshare(CLONE_NEWUSER));
    tell("setns", setns(0, 0));
    tell("prlimit_other", syscall(SYS_prlimit64, 1, RLIMIT_NOFILE, NULL, room));
    tell("prlimit_self", syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, room));
    tell("personality_query", syscall(SYS_personality, 0xffffffff));
    tell("personality_set", syscall(SYS_personality, ADDR_NO_RANDOMIZE));
}

static void
try_ids(void)
{
    tell("setuid", syscall(SYS_setuid, 0));
    tell("setreuid", syscall(SYS_setreuid, -1, 0));
    tell("setresuid", syscall(SYS_setresuid, -1, 0, -1));
    tell("setgid", syscall(SYS_setgid, 0));
    tell("setregid", syscall(SYS_setregid, -1, 0));
    tell("setresgid", syscall(SYS_setresgid, -1, 0, -1));
    tell("setgroups", syscall(SYS_setgroups, 0, NULL));
    tell("keep_caps", prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
    tell("ambient_raise", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 0, 0, 0));
    tell("securebits", prctl(PR_SET_SECUREBITS, 0, 0, 0, 0));
    tell("no_new_privs_off", prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
}

static void
try_kernel(void)
{
    char room[256] = {0};

    tell("io_uring_setup", syscall(SYS_io_uring_setup, 1, room));
    tell("io_uring_enter", syscall(SYS_io_uring_enter, 0, 0, 0, 0, NULL, 0));
    tell("io_uring_register", syscall(SYS_io_uring_register, 0, 0, NULL, 0));
    tell("bpf", syscall(SYS_bpf, 0, room, sizeof room));
    tell("perf_event_open", syscall(SYS_perf_event_open, room, 0, -1, -1, 0));
    tell("userfaultfd", syscall(SYS_userfaultfd, 1));
    tell("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    tell("add_key", syscall(SYS_add_key, "user", "x", "x", 1, -2));
    tell("request_key", syscall(SYS_request_key, "user", "x", NULL, 0));
    tell("memfd_create", syscall(SYS_memfd_create, "x", 0));
    tell("mount", syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, NULL));
    tell("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
    tell("open_tree", syscall(SYS_open_tree, -100, "/", 0));
    tell("open_tree_attr", syscall(467, -100, "/", 0, NULL, 0));
    tell("chroot", syscall(SYS_chroot, "/"));
    tell("open_by_handle_at", syscall(SYS_open_by_handle_at, 0, room, 0));
    tell("modify_ldt", syscall(SYS_modify_ldt, 0, room, 0));
    tell("init_module", syscall(SYS_init_module, NULL, 0, ""));
    tell("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0));
    tell("shmget", syscall(SYS_shmget, IPC_PRIVATE, 4096, 0600));
    tell("tiocsti", syscall(SYS_ioctl, 0, 0x5412, "x"));
}

static void
try_sockets(void)
{
    const struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = 0x0100007f};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    tell("socket_inet", fd);
    tell("bind", bind(fd, (const struct sockaddr *)&any, sizeof any));
    tell("listen", listen(fd, 1));
    tell("socket_inet6", socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    tell("socket_unix", socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    tell("socket_unspec", socket(AF_UNSPEC, SOCK_STREAM | SOCK_CLOEXEC, 0));
    tell("socket_ax25", socket(3, SOCK_STREAM | SOCK_CLOEXEC, 0));
    tell("socket_9", socket(9, SOCK_STREAM | SOCK_CLOEXEC, 0));
    tell("socket_netlink", socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0));
    tell("socket_packet", socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    tell("socket_vsock", socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0));
    tell("socket_alg", socket(AF_ALG, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    tell("socket_netlink_high", syscall(SYS_socket, 0x100000010l, SOCK_RAW | SOCK_CLOEXEC, 0));
}

static void
try_locks(void)
{
    struct sembuf up = {.sem_num = 0, .sem_op = 1, .sem_flg = SEM_UNDO};
    struct flock whole = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    int id = semget(IPC_PRIVATE, 1, 0600), fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    tell("semop", id < 0 ? id : semop(id, &up, 1));
    tell("semctl", semctl(id, 0, IPC_RMID));
    tell("flock", flock(fd, LOCK_SH));
    tell("fcntl", fcntl(fd, F_SETLK, &whole));
}

/* Which session keyring this is: 0 = none, or the calls are refused. */
static long
ask_keyring(void)
{
    long serial = syscall(SYS_keyctl, 0, -3, 0);

    return serial < 0 ? 0 : serial;
}

static void
tell_facts(void)
{
    extern char **environ;
    char where[4096];

    printf("dumpable %d\npdeathsig ", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
    int signal_now = -1;
    need(prctl(PR_GET_PDEATHSIG, &signal_now, 0, 0, 0) == 0, "pdeathsig");
    printf("%d\nsecurebits %d\n", signal_now, prctl(PR_GET_SECUREBITS, 0, 0, 0, 0));
    printf("umask %o\ncwd %s\n", umask(077), getcwd(where, sizeof where));
    printf("environment %s\n", environ && environ[0] ? environ[0] : "empty");
    printf("session %s\n", getsid(0) == getpid() ? "own" : "inherited");
    struct rlimit core, files;
    need(getrlimit(RLIMIT_CORE, &core) == 0 && getrlimit(RLIMIT_NOFILE, &files) == 0, "getrlimit");
    printf("core %lu %lu\nnofile %lu %lu\n", core.rlim_cur, core.rlim_max, files.rlim_cur, files.rlim_max);
    (void)fflush(stdout);
}

static void
call_i386(void)
{
#if defined(__x86_64__)
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
    printf("i386 %ld\n", result);
#endif
}

static void
do_what(const char *what, long keyring_before)
{
    char byte;

    if (strcmp(what, "wait") == 0) {
        while (read(0, &byte, 1) > 0)
            continue;
    } else if (strcmp(what, "facts") == 0) {
        tell_facts();
    } else if (strcmp(what, "keyring") == 0) {
        printf("keyring %s\n", ask_keyring() != keyring_before ? "new" : "old");
    } else if (strcmp(what, "x32") == 0) {
        printf("x32 %ld\n", syscall(0x40000000l | SYS_getpid));
    } else if (strcmp(what, "i386") == 0) {
        call_i386();
    } else {
        try_processes();
        try_ids();
        try_kernel();
        try_sockets();
        try_locks();
    }
}

int
main(int argc, char **argv)
{
    struct pc_drop drop = {.groups = groups, .keep_fds = keep, .nofile = 256, .is_privileged = true,
                           .parent_pid = getppid()};
    const char *what = "wait";
    void *bpf = NULL;
    size_t bpf_count = 0;
    bool has_filter = true;
    long list[64];

    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        need(value != NULL, argv[i]);
        *value++ = '\0';
        if (strcmp(argv[i], "uid") == 0)
            drop.uid = (uint32_t)strtol(value, NULL, 10);
        else if (strcmp(argv[i], "gid") == 0)
            drop.gid = (uint32_t)strtol(value, NULL, 10);
        else if (strcmp(argv[i], "groups") == 0)
            for (size_t n = drop.group_count = read_list(value, list, 64); n-- > 0;)
                groups[n] = (uint32_t)list[n];
        else if (strcmp(argv[i], "keep") == 0)
            for (size_t n = drop.keep_count = read_list(value, list, 64); n-- > 0;)
                keep[n] = (int)list[n];
        else if (strcmp(argv[i], "nofile") == 0)
            drop.nofile = (uint64_t)strtol(value, NULL, 10);
        else if (strcmp(argv[i], "priv") == 0)
            drop.is_privileged = value[0] == '1';
        else if (strcmp(argv[i], "parent") == 0)
            drop.parent_pid = value[0] == 'w' ? getpid() : getppid();
        else if (strcmp(argv[i], "seccomp") == 0)
            has_filter = value[0] == '1';
        else if (strcmp(argv[i], "close") == 0)
            for (size_t n = read_list(value, list, 64); n-- > 0;)
                (void)close((int)list[n]);
        else if (strcmp(argv[i], "inherit") == 0)
            fill_inheritable();
        else if (strcmp(argv[i], "userns") == 0)
            enter_user_namespace();
        else if (strcmp(argv[i], "fault") == 0)
            add_fault(value);
        else if (strcmp(argv[i], "do") == 0)
            what = value;
        else
            need(false, argv[i]);
    }
    if (has_filter && pc_seccomp_build_child(&bpf, &bpf_count) != 0)
        need(false, "pc_seccomp_build_child");
    drop.seccomp_bpf = bpf;
    drop.seccomp_count = bpf_count;
    if (faults) {
        int result = seccomp_load(faults);
        errno = -result;
        need(result == 0, "seccomp_load");
        seccomp_release(faults);
    }
    long keyring = ask_keyring();
    pc_drop_privileges(&drop);
    need(write(1, "dropped\n", 8) == 8, "write");
    do_what(what, keyring);
    free(bpf);
    return 0;
}
