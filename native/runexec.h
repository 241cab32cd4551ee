/* runexec.h - executing a program. (runexec.c)
 * Runs as:  runner.   Before: perchild/runner/main.py   After: - */
#ifndef PC_RUNEXEC_H
#define PC_RUNEXEC_H

#include "pc.h"

#define PC_EXEC_LINE_BYTES 1024 /* of "#!" line */
enum pc_exec_refusal {
    PC_EXEC_OK, PC_EXEC_BAD_PATH, PC_EXEC_NOT_BELOW, PC_EXEC_NO_DIRECTORY, PC_EXEC_DIRECTORY_OWNER, PC_EXEC_DIRECTORY_WRITABLE,
    PC_EXEC_NO_FILE, PC_EXEC_LINK, PC_EXEC_KIND, PC_EXEC_OWNER, PC_EXEC_WRITABLE, PC_EXEC_SETID, PC_EXEC_MODE, PC_EXEC_HASHBANG,
    PC_EXEC_HASHBANG_CR, PC_EXEC_NO_INTERPRETER, PC_EXEC_INTERPRETER, PC_EXEC_STRINGS, PC_EXEC_NO_CWD, PC_EXEC_LIMIT,
    PC_EXEC_FORK, PC_EXEC_EXEC, PC_EXEC_REFUSALS,
};
enum { PC_EXEC_CPU, PC_EXEC_MEMORY, PC_EXEC_PROCESSES, PC_EXEC_LIMITS };

struct pc_exec_limit {
    bool is_set;
    uint64_t soft, hard;
};

struct pc_exec_wish { /* blocks are strings with their NULs, one behind the other */
    const char *path, *cwd; /* absolute; cwd "": the program's directory */
    const char *roots, *args, *env;
    size_t roots_len, args_len, env_len;
    const char *search_path; /* the value of PATH */
    uint32_t uid, gid;
    int fds[3];    /* 0, 1 and 2 of the program; they stay the caller's */
    int listen_fd; /* service: becomes its descriptor 3; -1 = none */
    int config_fd; /* service with a listen_fd: becomes its descriptor 4; 0 = none */
    struct pc_exec_limit limits[PC_EXEC_LIMITS]; /* seconds, bytes, processes of the user */
    int nice;
    bool is_service; /* the configuration's own command: neither file nor environment is checked */
    bool has_own_env; /* the configuration's own variables: the file is checked, they are not */
};
/* Returns the new process's pid, or -enum pc_exec_refusal with errno (0 = nothing to add); a refusal is explained on fds[2]. */
int pc_exec_start(const struct pc_exec_wish *wish);
const char *pc_exec_reason(int refusal);
/* Pure: >0 length of a "#!" line, 0 need more, <0 no such line. */
int pc_exec_parse_hashbang(const char *raw, size_t len, struct pc_slice *ret_interpreter, struct pc_slice *ret_argument);
bool pc_exec_may_pass(struct pc_slice variable); /* pure: "NAME=value" of a request may be in a program's environment */
struct stat;
/* Pure: suEXEC's conditions on a program and its directory. */
int pc_exec_check_facts(const struct stat *directory, const struct stat *file, uint32_t uid, uint32_t gid);

#endif
