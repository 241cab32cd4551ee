/* gate_cgi.c - CGI/1.1 (RFC 3875): a program for one request, executed by the identity's runner.
 * Runs as:  child, as the identity that owns the host.   Sees: the program's output and error output.
 * Holds:    our ends of three pipes; the program's ends only until the runner has them.
 * Distrusts: the program: what it says goes into the log in whole lines, bounded; it is not ours to end, so the runner is asked to.
 * Before:   gate.c, program.c   After: job.c */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memrchr, pipe2 */
#endif
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gate.h"
#include "job.h"
#include "serve.h"

#define LISTEN_BYTES 16384 /* of error output in a row */
#define LINE_BYTES 2048    /* a longer line becomes several */
#define NPH "nph-"

struct cgi {
    struct pc_gate gate; /* first: a struct pc_gate * is a struct cgi * */
    bool has_pipes, is_sent, is_nph;
    int ours[3], theirs[3]; /* by the program's number: 0 input, 1 output, 2 error output; -1 = closed */
    uint64_t id;
    uint64_t said_bytes, said_lines;
    uint32_t line_len;
    char line[LINE_BYTES];
};

static struct cgi *
cgi_of(struct pc_gate *gate)
{
    return (struct cgi *)(void *)gate;
}

static void
close_one(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd); /* a pipe: nothing is lost but what nobody reads */
    *fd = -1;
}

static void
close_all(int fds[3])
{
    for (int i = 0; i < 3; i++)
        close_one(&fds[i]);
}

/* ------------------------------------------------------------------ the start */

static int
say_failure(const struct pc_gate *gate, const char *what)
{
    const struct pc_req *req = gate->req;
    pc_errlog_req(req, PC_ERROR, "cgi", "AH01223: couldn't spawn child process: %.*s: %s", (int)req->filename.len, req->filename.base,
                  what);
    return 503;
}

/* Our ends do not block; the program's do, as it expects of its standard streams. */
static int
make_pipes(struct cgi *cgi)
{
    static const uint32_t waits[3] = {EPOLLOUT, EPOLLIN, EPOLLIN};
    for (int i = 0; i < 3; i++) {
        int pair[2], ours = i == 0 ? 1 : 0;
        if (pipe2(pair, O_CLOEXEC) < 0)
            return -PC_E_SYS;
        cgi->ours[i] = pair[ours];
        cgi->theirs[i] = pair[1 - ours];
        if (i == 0 && !cgi->gate.wants_body) { /* its input is empty */
            close_one(&cgi->ours[0]);
            continue;
        }
        if (fcntl(cgi->ours[i], F_SETFL, O_NONBLOCK) < 0 || pc_gate_watch(&cgi->gate, cgi->ours[i], waits[i]) != 0)
            return -PC_E_SYS;
    }
    return 0;
}

/* The variables of the request, into the worker's buffer, where nothing lies in this phase. */
static int
write_environment(struct pc_worker *worker, const struct pc_gate *gate, struct pc_slice *ret_block)
{
    struct pc_req *req = gate->req;
    const struct pc_io *io = gate->conn->io;
    struct pc_cgienv_block block = {.out = worker->out, .cap = PC_OUT_BYTES};
    struct pc_cgienv_facts facts = {
        .kind = PC_CGIENV_CGI, .path_info = req->path_info, .signature = pc_serve_signature(req),
        .pass_auth = pc_serve_passes_auth(req),
    };
    bool has_none = req->is_without_body || req->error_status != 0;
    if (has_none)
        facts.method = pc_serve_method(req) == PC_HEAD ? PC_S("HEAD") : PC_S("GET");
    facts.body_len = io->body_chunked || has_none ? UINT64_MAX : io->head->has_length ? io->head->content_length : 0;
    int result = pc_cgienv_each(req, &facts, pc_cgienv_block_sink, &block);
    *ret_block = (struct pc_slice){block.out, block.len};
    return result;
}

static struct pc_slice
directory_of(struct pc_slice path)
{
    const char *slash = memrchr(path.base, '/', path.len);
    size_t len = slash != NULL ? (size_t)(slash - path.base) : 0;
    return (struct pc_slice){path.base, len > 0 ? len : 1};
}

static int
send_job(struct pc_worker *worker, struct cgi *cgi)
{
    const struct pc_req *req = cgi->gate.req;
    struct pc_job_text text = {.path = req->filename, .cwd = directory_of(req->filename)};
    int written = write_environment(worker, &cgi->gate, &text.environment);
    if (written != 0)
        return written;
    return pc_job_send(worker->child, &(struct pc_job){.kind = PC_JOB_RUN, .id = cgi->id}, &text, cgi->theirs, 3);
}

static int
start(struct pc_worker *worker, struct pc_conn *conn)
{
    struct pc_gate *gate = conn->gate;
    struct cgi *cgi = cgi_of(gate);
    if (!cgi->has_pipes) {
        for (int i = 0; i < 3; i++)
            cgi->ours[i] = cgi->theirs[i] = -1;
        cgi->has_pipes = true;
        cgi->id = pc_job_next_id(worker->child);
        gate->broken_status = 500;
        const char *slash = memrchr(gate->req->filename.base, '/', gate->req->filename.len);
        cgi->is_nph = slash != NULL && strncmp(slash + 1, NPH, sizeof NPH - 1) == 0;
        gate->closes = cgi->is_nph;
        if (worker->child->job_fd < 0)
            return say_failure(gate, "this identity has no runner");
        if (make_pipes(cgi) != 0)
            return say_failure(gate, errno == EMFILE || errno == ENFILE ? "no descriptor is left" : "no pipe can be made");
    }
    int sent = send_job(worker, cgi);
    if (sent == -PC_E_AGAIN)
        return sent;
    close_all(cgi->theirs);
    cgi->is_sent = sent == 0;
    if (sent == -PC_E_HEAD_LARGE) {
        (void)say_failure(gate, "its environment is too large");
        return 431;
    }
    return sent == 0 ? 0 : say_failure(gate, "the job box is closed");
}

/* ------------------------------------------------------------------ its streams */

static ssize_t
send_input(struct pc_gate *gate, const char *buf, size_t len)
{
    return pc_io_result(write(cgi_of(gate)->ours[0], buf, len));
}

static int
end_input(struct pc_gate *gate)
{
    close_one(&cgi_of(gate)->ours[0]);
    return 0;
}

static ssize_t
hear_output(struct pc_gate *gate, char *buf, size_t cap)
{
    return pc_io_result(read(cgi_of(gate)->ours[1], buf, cap));
}

static int
parse_output(struct pc_gate *gate, struct pc_reply *reply, const char *buf, size_t len)
{
    if (!cgi_of(gate)->is_nph)
        return pc_reply_parse_cgi(reply, buf, len);
    int parsed = pc_reply_parse_nph(reply, buf, len, pc_serve_method(gate->req) == PC_HEAD);
    return parsed > 0 && reply->framing == PC_REPLY_TUNNEL ? -PC_E_BAD : parsed; /* a pipe is no way back and forth */
}

/* ------------------------------------------------------------------ its error output */

static void
say_line(struct cgi *cgi, struct pc_slice line)
{
    const struct pc_req *req = cgi->gate.req;
    while (line.len > 0 && (line.base[line.len - 1] == '\r' || line.base[line.len - 1] == '\n'))
        line.len--;
    if (line.len > 0 && cgi->said_lines++ < PC_MAX_STDERR_LINES)
        pc_errlog_req(req, PC_ERROR, "cgi", "AH01215: stderr from %.*s: %.*s", (int)req->filename.len, req->filename.base, (int)line.len,
                      line.base);
}

/* Whole lines go out; the rest of the buffer stays. is_last: all of it goes. */
static void
say_lines(struct cgi *cgi, bool is_last)
{
    struct pc_slice rest = {cgi->line, cgi->line_len};
    while (rest.len > 0) {
        const char *end = memchr(rest.base, '\n', rest.len);
        if (end == NULL && !is_last && rest.len < LINE_BYTES)
            break;
        size_t len = end != NULL ? (size_t)(end + 1 - rest.base) : rest.len;
        say_line(cgi, (struct pc_slice){rest.base, len});
        rest.base += len;
        rest.len -= len;
    }
    memmove(cgi->line, rest.base, rest.len);
    cgi->line_len = (uint32_t)rest.len;
}

static void
hear_words(struct cgi *cgi, size_t count)
{
    bool was_quiet = cgi->said_bytes < PC_MAX_STDERR_BYTES;
    cgi->said_bytes += count;
    if (cgi->said_bytes < PC_MAX_STDERR_BYTES) {
        cgi->line_len += (uint32_t)count;
        say_lines(cgi, false);
        return;
    }
    cgi->line_len = 0;
    if (was_quiet)
        pc_errlog_req(cgi->gate.req, PC_ERROR, "cgi", "stderr from %.*s: more than %d bytes, the rest is not logged",
                      (int)cgi->gate.req->filename.len, cgi->gate.req->filename.base, PC_MAX_STDERR_BYTES);
}

static bool
listen_to_errors(struct pc_gate *gate)
{
    struct cgi *cgi = cgi_of(gate);
    size_t heard = 0;
    while (cgi->ours[2] >= 0 && heard < LISTEN_BYTES) {
        ssize_t count = pc_io_result(read(cgi->ours[2], cgi->line + cgi->line_len, LINE_BYTES - cgi->line_len));
        if (count == -PC_E_AGAIN)
            return false;
        if (count <= 0) {
            close_one(&cgi->ours[2]);
            break;
        }
        heard += (size_t)count;
        hear_words(cgi, (size_t)count);
    }
    return cgi->ours[2] >= 0;
}

/* Whether it has closed its output: behind an answer whose length was told, or a redirect, nobody reads on to see that. */
static bool
is_closed(const struct cgi *cgi)
{
    char more[256];
    return read(cgi->ours[1], more, sizeof more) == 0;
}

/* httpd reads on, and ends who is silent for Timeout; nobody who is complete has to be read here, so the runner counts the time. */
static void
let_go(struct cgi *cgi, bool is_cut)
{
    uint64_t grace_s = cgi->gate.req->host->timeout_ms / 1000;
    if (is_cut)
        pc_job_cancel(cgi->gate.child, cgi->id, 0);
    else if (!is_closed(cgi))
        pc_job_cancel(cgi->gate.child, cgi->id, grace_s > 0 ? (uint32_t)grace_s : 1);
}

static void
end(struct pc_gate *gate, bool is_cut)
{
    struct cgi *cgi = cgi_of(gate);
    if (!cgi->has_pipes)
        return;
    if (cgi->is_sent && !gate->has_ended)
        let_go(cgi, is_cut);
    (void)listen_to_errors(gate); /* the last of it; what a flood still holds is not waited for */
    say_lines(cgi, true);
    if (cgi->said_lines > PC_MAX_STDERR_LINES)
        pc_errlog_req(gate->req, PC_ERROR, "cgi", "stderr from %.*s: %" PRIu64 " more lines are not logged",
                      (int)gate->req->filename.len, gate->req->filename.base, cgi->said_lines - PC_MAX_STDERR_LINES);
    close_all(cgi->ours);
    close_all(cgi->theirs);
}

const struct pc_gate_ops pc_gate_cgi = {
    .module = "cgi",
    .busy = "the job box is full: the tenant's programs come faster than they are started",
    .size = sizeof(struct cgi),
    .start = start,
    .send = send_input,
    .send_end = end_input,
    .recv = hear_output,
    .parse = parse_output,
    .listen = listen_to_errors,
    .end = end,
};
