/* runexec.c - check a program as suEXEC does, and execute what was checked.
 * Runs as:  the runner, as the identity; what it starts runs as the identity.
 * Sees:     a job's path, arguments and environment; the program's owner, mode and first line.
 * Holds:    the program's descriptors for the moment of the start.
 * Distrusts: path, arguments, environment (a child may be taken over); the file system, which changes meanwhile: everything is
 *           asked of descriptors, and what was looked at is what is executed.
 * Before:   perchild/runner/jobs.py   After: the program */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "child.h"
#include "job.h"
#include "runexec.h"

#define MAX_STRINGS (PC_JOB_MAX_ARGUMENTS + PC_JOB_MAX_VARIABLES)
#define STACK_BYTES 65536
#define SOFT_NOFILE 1024 /* what programs expect; they may raise it */
#define MAX_KEPT 5       /* descriptors of a new process */
#define FIRST_FD 10      /* our own descriptors in the new process lie above those that it keeps */

/* ------------------------------------------------------------------ pure: texts, names, facts */

static const char *const reasons[PC_EXEC_REFUSALS] = {
    [PC_EXEC_OK] = "executed",
    [PC_EXEC_BAD_PATH] = "its path is not absolute and plain",
    [PC_EXEC_NOT_BELOW] = "it lies below no DocumentRoot, ScriptAlias or wrapper directory of its hosts",
    [PC_EXEC_NO_DIRECTORY] = "its directory cannot be opened",
    [PC_EXEC_DIRECTORY_OWNER] = "its directory belongs neither to the host's user and group nor to root",
    [PC_EXEC_DIRECTORY_WRITABLE] = "its directory can be written to by group or others",
    [PC_EXEC_NO_FILE] = "it cannot be opened",
    [PC_EXEC_LINK] = "it is a symbolic link",
    [PC_EXEC_KIND] = "it is no regular file",
    [PC_EXEC_OWNER] = "it does not belong to the owner of its directory, the host's user and group, or root",
    [PC_EXEC_WRITABLE] = "it can be written to by group or others",
    [PC_EXEC_SETID] = "it is set-user-id or set-group-id",
    [PC_EXEC_MODE] = "it is not executable by its user",
    [PC_EXEC_HASHBANG] = "its first line names no interpreter (#!/path, at most 1024 bytes)",
    [PC_EXEC_HASHBANG_CR] = "its first line ends with CR LF: save it with Unix line ends",
    [PC_EXEC_NO_INTERPRETER] = "the interpreter in its first line cannot be opened",
    [PC_EXEC_INTERPRETER] = "the interpreter in its first line is no executable file",
    [PC_EXEC_STRINGS] = "it has too many arguments or variables",
    [PC_EXEC_NO_CWD] = "its working directory cannot be entered",
    [PC_EXEC_LIMIT] = "its limits cannot be set",
    [PC_EXEC_FORK] = "no process can be started",
    [PC_EXEC_EXEC] = "the system does not execute it",
};

const char *
pc_exec_reason(int refusal)
{
    return refusal >= 0 && refusal < PC_EXEC_REFUSALS ? reasons[refusal] : "for no known reason";
}

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t';
}

int
pc_exec_parse_hashbang(const char *raw, size_t len, struct pc_slice *ret_interpreter, struct pc_slice *ret_argument)
{
    if (len < 2)
        return len == 1 && raw[0] != '#' ? -PC_E_BAD : 0;
    if (raw[0] != '#' || raw[1] != '!')
        return -PC_E_BAD;
    const char *end = memchr(raw, '\n', len < PC_EXEC_LINE_BYTES ? len : PC_EXEC_LINE_BYTES);
    if (end == NULL)
        return len < PC_EXEC_LINE_BYTES ? 0 : -PC_E_BAD;
    const char *at = raw + 2, *last = end;
    if (memchr(raw, '\0', (size_t)(end - raw)) != NULL)
        return -PC_E_BAD;
    while (at < last && is_blank(*at))
        at++;
    while (last > at && is_blank(last[-1]))
        last--;
    const char *space = at;
    while (space < last && !is_blank(*space))
        space++;
    *ret_interpreter = (struct pc_slice){at, (size_t)(space - at)};
    while (space < last && is_blank(*space))
        space++;
    *ret_argument = (struct pc_slice){space, (size_t)(last - space)};
    if (ret_interpreter->len == 0 || at[0] != '/')
        return -PC_E_BAD;
    return (int)(end - raw) + 1;
}

/* Variables that steer the loader, an interpreter or a shell before the program's own first line: a request or a SetEnv has no say
 * in these. A name that ends with * stands for all that begin so. HTTP_PROXY: httpoxy. */
static const char *const steering[] = {
    "LD_*", "GLIBC_TUNABLES", "GCONV_PATH", "GETCONF_DIR", "HOSTALIASES", "LOCALDOMAIN", "LOCPATH", "MALLOC_*", "NIS_PATH", "NLSPATH",
    "RESOLV_HOST_CONF", "RES_OPTIONS", "TMPDIR", "TZDIR", "PATH", "HTTP_PROXY", "BASH_*", "ENV", "IFS", "CDPATH", "SHELLOPTS", "BASHOPTS",
    "PS4", "PERL5*", "PERLLIB", "PERL_*", "PYTHON*", "RUBYOPT", "RUBYLIB", "NODE_OPTIONS", "NODE_PATH", "PHPRC", "PHP_INI_SCAN_DIR",
    "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH", "OPENSSL_CONF", "OPENSSL_MODULES", "SSLKEYLOGFILE", "HOME", "USER", "LOGNAME",
    "SHELL",
};

static bool
is_steering(struct pc_slice name)
{
    for (size_t i = 0; i < sizeof steering / sizeof *steering; i++) {
        size_t len = strlen(steering[i]);
        bool is_prefix = steering[i][len - 1] == '*';
        len -= is_prefix;
        if ((is_prefix ? name.len >= len : name.len == len) && memcmp(name.base, steering[i], len) == 0)
            return true;
    }
    return false;
}

bool
pc_exec_may_pass(struct pc_slice variable)
{
    const char *equals = memchr(variable.base, '=', variable.len);
    if (equals == NULL || equals == variable.base)
        return false;
    struct pc_slice name = {variable.base, (size_t)(equals - variable.base)};
    for (size_t i = 0; i < name.len; i++) {
        char c = name.base[i];
        bool is_letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
        if (!is_letter && (i == 0 || c < '0' || c > '9'))
            return false;
    }
    return !is_steering(name);
}

int
pc_exec_check_facts(const struct stat *directory, const struct stat *file, uint32_t uid, uint32_t gid)
{
    bool is_ours = directory->st_uid == uid && directory->st_gid == gid;
    if (!is_ours && directory->st_uid != 0)
        return PC_EXEC_DIRECTORY_OWNER;
    if ((directory->st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return PC_EXEC_DIRECTORY_WRITABLE;
    if (!S_ISREG(file->st_mode))
        return PC_EXEC_KIND;
    /* What root put into a directory of root's is the operator's; root's file in a tenant's directory got there by a link. */
    if (is_ours ? file->st_uid != uid || file->st_gid != gid : file->st_uid != 0)
        return PC_EXEC_OWNER;
    if ((file->st_mode & (S_ISUID | S_ISGID)) != 0)
        return PC_EXEC_SETID;
    if ((file->st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return PC_EXEC_WRITABLE;
    return (file->st_mode & (is_ours ? S_IXUSR : S_IXOTH)) != 0 ? PC_EXEC_OK : PC_EXEC_MODE;
}

/* ------------------------------------------------------------------ opening what is executed */

struct program {
    int directory_fd, file_fd;
    bool is_script;
    char line[PC_EXEC_LINE_BYTES]; /* of a script; interpreter and argument end with NUL in it */
    const char *interpreter, *argument;
};

static int
open_below(int directory_fd, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = resolve};
    int fd = -1;
    for (int turn = 0; turn < 16; turn++) { /* EAGAIN: something on the way was renamed meanwhile */
        fd = (int)syscall(SYS_openat2, directory_fd, path, &how, sizeof how);
        if (fd >= 0 || errno != EAGAIN)
            break;
    }
    return fd;
}

/* The part of path below root, or NULL; whole names are compared: /srv/a is not above /srv/ab. */
static const char *
path_below(const char *root, const char *path)
{
    size_t len = strlen(root);
    while (len > 1 && root[len - 1] == '/')
        len--;
    if (strncmp(root, path, len) != 0 || (len > 1 && path[len] != '/'))
        return NULL;
    path += len;
    while (*path == '/')
        path++;
    return *path != '\0' ? path : NULL;
}

static bool
is_plain(const char *path)
{
    return path[0] == '/' && strlen(path) <= PC_MAX_PATH_BYTES && strstr(path, "//") == NULL && strstr(path, "/./") == NULL
           && strstr(path, "/../") == NULL && path[strlen(path) - 1] != '/';
}

/* The same, for a root that may be the program itself (ScriptAlias of a file): then ret_root becomes the directory that it lies in. */
static const char *
find_below(const char *root, const char *path, char ret_root[PC_MAX_PATH_BYTES + 2])
{
    const char *name = strrchr(path, '/') + 1;
    bool is_itself = strcmp(root, path) == 0;
    size_t len = is_itself ? (size_t)(name - path) : strlen(root);
    (void)snprintf(ret_root, PC_MAX_PATH_BYTES + 2, "%.*s", (int)len, root); /* cut only if it is not above path */
    return is_itself ? name : path_below(root, path);
}

/* Open the directory of the program below one of the roots; ret_name is the program's name in it. */
static int
open_directory(const struct pc_exec_wish *wish, struct program *program, const char **ret_name)
{
    int refusal = PC_EXEC_NOT_BELOW;
    if (!is_plain(wish->path))
        return PC_EXEC_BAD_PATH;
    const char *name = strrchr(wish->path, '/') + 1;
    for (const char *root = wish->roots; root < wish->roots + wish->roots_len; root += strlen(root) + 1) {
        char directory[PC_MAX_PATH_BYTES + 2], start[PC_MAX_PATH_BYTES + 2];
        const char *below = find_below(root, wish->path, start);
        if (below == NULL)
            continue;
        (void)snprintf(directory, sizeof directory, "%.*s.", (int)(name - below), below); /* "a/b/." or "." */
        int root_fd = open(start, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (root_fd >= 0)
            program->directory_fd = open_below(root_fd, directory, O_PATH | O_DIRECTORY, RESOLVE_BENEATH);
        int error = errno;
        if (root_fd >= 0)
            (void)close(root_fd);
        errno = error;
        if (program->directory_fd >= 0) {
            *ret_name = name;
            return PC_EXEC_OK;
        }
        refusal = errno == EXDEV ? PC_EXEC_NOT_BELOW : PC_EXEC_NO_DIRECTORY;
    }
    return refusal;
}

static int
open_file(struct program *program, const char *name)
{
    const uint64_t resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
    program->file_fd = open_below(program->directory_fd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY, resolve);
    if (program->file_fd < 0 && errno == EACCES) /* a binary need not be readable */
        program->file_fd = open_below(program->directory_fd, name, O_PATH, resolve);
    if (program->file_fd >= 0)
        return PC_EXEC_OK;
    return errno == ELOOP ? PC_EXEC_LINK : errno == ENXIO ? PC_EXEC_KIND : PC_EXEC_NO_FILE;
}

/* The interpreter is executed by its path: so it is looked at, but may be any program that the tenant may execute. */
static int
check_interpreter(const char *path)
{
    struct stat facts;
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return PC_EXEC_NO_INTERPRETER;
    bool is_file = fstat(fd, &facts) == 0 && S_ISREG(facts.st_mode) && (facts.st_mode & (S_ISUID | S_ISGID)) == 0;
    (void)close(fd);
    errno = EACCES;
    return is_file && faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0 ? PC_EXEC_OK : PC_EXEC_INTERPRETER;
}

static int
read_hashbang(struct program *program)
{
    struct pc_slice interpreter = {NULL, 0}, argument = {NULL, 0};
    ssize_t len = pread(program->file_fd, program->line, sizeof program->line - 1, 0);
    if (len < 2 || memcmp(program->line, "#!", 2) != 0)
        return PC_EXEC_OK; /* a binary; what cannot be read is none of ours to interpret */
    program->is_script = true;
    char *end = memchr(program->line, '\n', (size_t)len);
    if (end == NULL && len < (ssize_t)sizeof program->line - 1) { /* the line is all there is */
        end = program->line + len;
        program->line[len++] = '\n';
    }
    if (end != NULL && end > program->line && end[-1] == '\r')
        return PC_EXEC_HASHBANG_CR;
    if (pc_exec_parse_hashbang(program->line, (size_t)len, &interpreter, &argument) <= 0)
        return PC_EXEC_HASHBANG;
    program->line[(size_t)(interpreter.base - program->line) + interpreter.len] = '\0';
    program->line[(size_t)(argument.base - program->line) + argument.len] = '\0';
    program->interpreter = interpreter.base;
    program->argument = argument.len > 0 ? argument.base : NULL;
    return check_interpreter(program->interpreter);
}

static int
open_program(const struct pc_exec_wish *wish, struct program *program)
{
    struct stat directory, file;
    const char *name = NULL;
    int refusal = open_directory(wish, program, &name);
    if (refusal == PC_EXEC_OK)
        refusal = open_file(program, name);
    if (refusal != PC_EXEC_OK)
        return refusal;
    if (fstat(program->directory_fd, &directory) != 0 || fstat(program->file_fd, &file) != 0)
        return PC_EXEC_NO_FILE;
    errno = 0;
    refusal = pc_exec_check_facts(&directory, &file, wish->uid, wish->gid);
    return refusal != PC_EXEC_OK ? refusal : read_hashbang(program);
}

/* ------------------------------------------------------------------ the start */

struct start { /* what the new process reads; it shares our memory until it executes */
    const struct pc_exec_wish *wish;
    const struct program *program;
    char *argv[PC_JOB_MAX_ARGUMENTS + 4], *envp[PC_JOB_MAX_VARIABLES + 4];
    char path_variable[PC_MAX_PATH_BYTES + 6], listen_pid[32];
    int refusal, error; /* what it wrote if it failed */
};

static bool
add_strings(char **list, size_t room, const char *block, size_t len, bool is_environment)
{
    size_t count = 0;
    while (list[count] != NULL)
        count++;
    for (const char *at = block; at < block + len; at += strlen(at) + 1) {
        if (is_environment && !pc_exec_may_pass((struct pc_slice){at, strlen(at)}))
            continue;
        if (count + 1 >= room)
            return false;
        list[count++] = (char *)(uintptr_t)at; /* execve(2) does not write to it */
        list[count] = NULL;
    }
    return true;
}

static bool
make_strings(struct start *start)
{
    const struct pc_exec_wish *wish = start->wish;
    size_t count = 0;
    if (start->program->is_script) {
        start->argv[count++] = (char *)(uintptr_t)start->program->interpreter;
        if (start->program->argument != NULL)
            start->argv[count++] = (char *)(uintptr_t)start->program->argument;
    }
    start->argv[count++] = (char *)(uintptr_t)wish->path;
    (void)snprintf(start->path_variable, sizeof start->path_variable, "PATH=%s", wish->search_path);
    start->envp[0] = start->path_variable;
    count = 1;
    if (wish->listen_fd >= 0) { /* sd_listen_fds(3); the pid is the new process's to write */
        start->envp[count++] = start->listen_pid;
        start->envp[count++] = (char *)(uintptr_t)"LISTEN_FDS=1";
    }
    return add_strings(start->argv, sizeof start->argv / sizeof *start->argv, wish->args, wish->args_len, false)
           && add_strings(start->envp, sizeof start->envp / sizeof *start->envp, wish->env, wish->env_len,
                          !wish->is_service && !wish->has_own_env);
}

static bool
set_limits(const struct pc_exec_wish *wish)
{
    static const __rlimit_resource_t which[PC_EXEC_LIMITS] = {RLIMIT_CPU, RLIMIT_AS, RLIMIT_NPROC};
    struct rlimit files;
    for (size_t i = 0; i < PC_EXEC_LIMITS; i++) {
        struct rlimit now;
        if (!wish->limits[i].is_set)
            continue;
        if (getrlimit(which[i], &now) != 0)
            return false;
        rlim_t hard = wish->limits[i].hard < now.rlim_max ? wish->limits[i].hard : now.rlim_max;
        rlim_t soft = wish->limits[i].soft < hard ? wish->limits[i].soft : hard;
        if (setrlimit(which[i], &(struct rlimit){soft, hard}) != 0)
            return false;
    }
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return false;
    files.rlim_cur = files.rlim_max < SOFT_NOFILE ? files.rlim_max : SOFT_NOFILE;
    if (wish->nice != 0)
        (void)setpriority(PRIO_PROCESS, 0, wish->nice); /* below 0 it needs root: the runner says so once */
    return setrlimit(RLIMIT_NOFILE, &files) == 0;
}

/* 0, 1, 2, and 3 for a service's listening socket, 4 for its configuration. The sources lie above FIRST_FD, so none is overwritten
 * before it is used. */
static bool
place_descriptors(const struct pc_exec_wish *wish, int *sources)
{
    const int wanted[MAX_KEPT] = {wish->fds[0], wish->fds[1], wish->fds[2], wish->listen_fd, wish->config_fd};
    int count = wish->listen_fd < 0 ? 3 : wish->config_fd <= 0 ? 4 : MAX_KEPT;
    for (int i = 0; i < count; i++) {
        sources[i] = fcntl(wanted[i], F_DUPFD_CLOEXEC, FIRST_FD);
        if (sources[i] < 0)
            return false;
    }
    for (int i = 0; i < count; i++)
        if (dup2(sources[i], i) < 0)
            return false;
    return syscall(SYS_close_range, (unsigned)count, ~0u, CLOSE_RANGE_CLOEXEC) == 0; /* all of them are it, to be sure */
}

static void
reset_signals(void)
{
    sigset_t none;
    for (int number = 1; number < NSIG; number++)
        (void)signal(number, SIG_DFL); /* fails for KILL, STOP and glibc's own, which are never ignored */
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static int
fail(struct start *start, int refusal)
{
    start->error = errno;
    start->refusal = refusal;
    _exit(127);
}

/* In the new process, on a stack of its own, with our memory: nothing of it may be changed but *start. */
static int
be_program(void *argument)
{
    struct start *start = argument;
    const struct pc_exec_wish *wish = start->wish;
    const struct program *program = start->program;
    int sources[MAX_KEPT];
    if (setsid() < 0) /* its own session, and so process group */
        fail(start, PC_EXEC_FORK);
    if (wish->cwd[0] != '\0' ? chdir(wish->cwd) != 0 : program->directory_fd >= 0 && fchdir(program->directory_fd) != 0)
        fail(start, PC_EXEC_NO_CWD);
    int file_fd = program->file_fd >= 0 ? fcntl(program->file_fd, F_DUPFD_CLOEXEC, FIRST_FD) : -1;
    if ((program->file_fd >= 0 && file_fd < 0) || !place_descriptors(wish, sources))
        fail(start, PC_EXEC_FORK);
    if (!set_limits(wish))
        fail(start, PC_EXEC_LIMIT);
    (void)umask(022);
    (void)snprintf(start->listen_pid, sizeof start->listen_pid, "LISTEN_PID=%d", (int)getpid());
    reset_signals();
    if (program->is_script)
        (void)syscall(SYS_execve, program->interpreter, start->argv, start->envp);
    else if (file_fd >= 0)
        (void)syscall(SYS_execveat, file_fd, "", start->argv, start->envp, AT_EMPTY_PATH);
    else
        (void)syscall(SYS_execve, wish->path, start->argv, start->envp);
    return fail(start, PC_EXEC_EXEC);
}

/* Returns the pid, or -refusal with errno. */
static int
launch(struct start *start)
{
    static char stack[STACK_BYTES] __attribute__((aligned(64))); /* the runner has one thread, and waits for the exec */
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_BLOCK, &all, &before); /* no handler of ours runs in the new process */
    pid_t pid = clone(be_program, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, start);
    int error = errno;
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    errno = pid < 0 ? error : start->error;
    if (pid < 0)
        return -PC_EXEC_FORK;
    return start->refusal != PC_EXEC_OK ? -start->refusal : (int)pid;
}

/* To the job's own standard error, which its child reads; never waits for it. */
static void
explain(const struct pc_exec_wish *wish, int refusal, int error)
{
    struct pollfd one = {.fd = wish->fds[2], .events = POLLOUT};
    char line[512];
    int len = snprintf(line, sizeof line, "%.300s is not executed: %s%s%s\n", wish->path, pc_exec_reason(refusal), error != 0 ? ": " : "",
                       error != 0 ? strerrordesc_np(error) : "");
    if (len > 0 && poll(&one, 1, 0) == 1 && (one.revents & POLLOUT) != 0)
        (void)!write(wish->fds[2], line, (size_t)len < sizeof line ? (size_t)len : sizeof line - 1); /* nobody else to tell */
}

int
pc_exec_start(const struct pc_exec_wish *wish)
{
    struct program program = {.directory_fd = -1, .file_fd = -1};
    struct start *start = calloc(1, sizeof *start);
    int result = start == NULL ? -PC_EXEC_FORK : PC_EXEC_OK;
    errno = 0;
    if (result == PC_EXEC_OK && !wish->is_service)
        result = -open_program(wish, &program);
    if (result == PC_EXEC_OK) {
        start->wish = wish;
        start->program = &program;
        result = make_strings(start) ? launch(start) : -PC_EXEC_STRINGS;
    }
    int error = errno;
    if (result < 0)
        explain(wish, -result, error);
    if (program.directory_fd >= 0)
        (void)close(program.directory_fd);
    if (program.file_fd >= 0)
        (void)close(program.file_fd);
    free(start);
    errno = error;
    return result;
}
