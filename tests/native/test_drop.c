/* test_drop.c - claims about native/drop.c and seccomp.c that need no root; the others are in tests/boundary/test_drop.py. */
/* sources: drop.c seccomp.c util.c */
/* libs: -lseccomp */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "pc.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

/* Drop in a child whose stderr is of no interest; 0 = came out of it. */
static int
drop_apart(const struct pc_drop *drop)
{
    int status = -1, null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    pid_t pid = fork();

    if (pid < 0 || null < 0)
        abort();
    if (pid == 0) {
        (void)dup2(null, 2);
        pc_drop_privileges(drop);
        _exit(0);
    }
    (void)close(null);
    if (waitpid(pid, &status, 0) != pid)
        abort();
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* What this user may wish: itself, or as root an id that belongs to nobody. */
static struct pc_drop
possible_wish(void)
{
    static uint32_t groups[256];
    const bool is_root = geteuid() == 0;
    const int count = is_root ? 0 : getgroups(COUNT_OF(groups), groups);

    if (count < 0)
        abort();
    return (struct pc_drop){
        .uid = is_root ? 54321 : getuid(), .gid = is_root ? 54322 : getgid(),
        .parent_pid = getpid(), .nofile = 64, .is_privileged = is_root,
        .groups = groups, .group_count = (size_t)count};
}

static void
test_the_filter_is_a_program_that_the_kernel_takes(void)
{
    struct pc_drop drop = possible_wish();
    void *bpf = NULL;
    size_t count = 0;

    CHECK_EQ(pc_seccomp_build_child(&bpf, &count), 0);
    CHECK(count > 100 && count <= BPF_MAXINSNS);
    drop.seccomp_bpf = bpf;
    drop.seccomp_count = count;
    CHECK_EQ(drop_apart(&drop), 0);
    free(bpf);
}

static void
test_a_filter_that_refuses_nothing_is_noticed(void)
{
    const struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, 0x7fff0000u);
    struct pc_drop drop = possible_wish();

    drop.seccomp_bpf = &allow;
    drop.seccomp_count = 1;
    CHECK_EQ(drop_apart(&drop), PC_EXIT_DROP + PC_DROP_SECCOMP);
}

static void
test_the_filter_does_not_depend_on_when_it_is_built(void)
{
    void *one = NULL, *two = NULL;
    size_t one_count = 0, two_count = 0;

    CHECK_EQ(pc_seccomp_build_child(&one, &one_count), 0);
    CHECK_EQ(pc_seccomp_build_child(&two, &two_count), 0);
    CHECK(one_count == two_count && memcmp(one, two, one_count * sizeof(struct sock_filter)) == 0);
    free(one);
    free(two);
}

static void
test_root_is_no_identity(void)
{
    struct pc_drop drop = possible_wish();

    drop.uid = 0;
    CHECK_EQ(drop_apart(&drop), PC_EXIT_DROP + PC_DROP_UID);
    drop.is_privileged = false;
    CHECK_EQ(drop_apart(&drop), PC_EXIT_DROP + PC_DROP_UID);
    drop = possible_wish();
    drop.is_privileged = true;
    drop.gid = 0;
    CHECK_EQ(drop_apart(&drop), PC_EXIT_DROP + PC_DROP_GID);
}

static void
test_an_open_file_limit_of_more_than_allowed_is_noticed(void)
{
    struct pc_drop drop = possible_wish();

    drop.nofile = UINT64_MAX - 1; /* above fs.nr_open: not even root may */
    CHECK_EQ(drop_apart(&drop), PC_EXIT_DROP + PC_DROP_LIMITS);
}

int
main(void)
{
    RUN(test_the_filter_is_a_program_that_the_kernel_takes);
    RUN(test_a_filter_that_refuses_nothing_is_noticed);
    RUN(test_the_filter_does_not_depend_on_when_it_is_built);
    RUN(test_root_is_no_identity);
    RUN(test_an_open_file_limit_of_more_than_allowed_is_noticed);
    return check_end();
}
