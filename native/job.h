/* job.h - messages to the identity's runner. (job.c)
 * Runs as:  child.   Before: gate_cgi.c, dial.c   After: perchild/runner/main.py */
#ifndef PC_JOB_H
#define PC_JOB_H

#include "child.h"

/* As in perchild/wire/job.py: one message to the identity's runner, little endian. Behind the struct and without gaps: path,
 * working directory, arguments ("a\0b\0"), environment ("NAME=value\0"). Descriptors: RUN three (the program's 0, 1, 2), CANCEL
 * none, WAKE one (a stream socket; the answer is a line: "ok", "error TEXT", or "again", which is to ask the runner's successor). */
#define PC_JOB_MAGIC 0x4F4A4350u /* "PCJO" */
#define PC_JOB_VERSION 1
#define PC_JOB_MAX_BYTES 131072
#define PC_JOB_MAX_ARGUMENTS 256
#define PC_JOB_MAX_VARIABLES 1024
enum pc_job_kind { PC_JOB_RUN = 1, PC_JOB_CANCEL = 2, PC_JOB_WAKE = 3 };

struct pc_job {
    uint32_t magic;
    uint16_t version;
    uint8_t kind, zero;
    uint64_t id;      /* of a RUN: pid << 32 | counter, unique per child */
    uint32_t service; /* WAKE: number in the runner's file; CANCEL: seconds that the program still has */
    uint32_t path_len, cwd_len, arg_len, env_len;
} __attribute__((packed));
_Static_assert(sizeof(struct pc_job) == 36, "struct pc_job is what perchild/wire/job.py packs");

struct pc_job_text { struct pc_slice path, cwd, arguments, environment; };
/* Send without waiting; magic, version and lengths are filled in. Descriptors stay the caller's, who closes them after 0.
 * -PC_E_AGAIN (full), -PC_E_HEAD_LARGE, -PC_E_NOT_FOUND (the identity has no runner), -PC_E_SYS. */
int pc_job_send(struct pc_child *child, const struct pc_job *job, const struct pc_job_text *text, const int *fds, uint32_t fd_count);
uint64_t pc_job_next_id(struct pc_child *child);
/* End a program unless it ends by itself within grace_s: sent now, or as soon as there is room. */
void pc_job_cancel(struct pc_child *child, uint64_t id, uint32_t grace_s);
/* What conn->gate->full names is full: conn, which the caller owns, goes through its phase's step again by and by. False: too many wait. */
bool pc_job_wait(struct pc_worker *worker, struct pc_conn *conn);
void pc_job_retry(struct pc_worker *worker);

#endif
