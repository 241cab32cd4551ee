/* gate_fcgi.c - FastCGI: a request for php-fpm or another responder that listens on a socket.
 * Runs as:  child, as the identity that owns the host.   Sees: the responder's output and error output, in records.
 * Holds:    a connection with one request on it. It is kept (FCGI_KEEP_CONN) only to a pool of ours, whose number of workers is known:
 *           php-fpm gives a kept connection a whole worker, so that with two workers two idle ones would let all others wait
 *           (kept.c). An answer that nobody waits for any more is told so by the connection's end.
 * Distrusts: the responder: a record that breaks a rule ends the answer; what it says goes into the log in lines, bounded.
 * Before:   gate.c, program.c   After: backend.c, dial.c, fcgi.c, reply.c */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "dial.h"
#include "serve.h"

#define MS 1000000ull
#define REQUEST_ID 1
#define DEFAULT_PORT 8000    /* httpd's for fcgi:// */
#define SILENT_BYTES 262144  /* of records without output in a row, before others have their turn */
#define LINE_BYTES 2048      /* of error output; a longer line becomes several */
#define STDIN_BYTES (PC_FCGI_HEAD_BYTES + PC_GATE_UP_BYTES + 8)
#define MAX_MORE 64          /* ProxyFCGISetEnvIf, PHP_VALUE */
#define VALUE_BYTES 8192     /* of one of them */

struct fcgi {
    struct pc_gate gate; /* first: a struct pc_gate * is a struct fcgi * */
    struct pc_dial dial;
    struct pc_slice path;           /* of the target */
    struct pc_fcgi_reader reader;
    bool is_begun, is_open;
    bool is_early;       /* opened in this step: no answer can be here, and none of its events has been taken */
    bool has_heard;      /* a byte of the answer, or of errors */
    size_t head_len;     /* of `out`: the request up to its body, to be sent once more if a kept connection has ended meanwhile */
    bool is_collecting;  /* the body goes into the spool: nobody is asked before its length is known */
    struct pc_spool *spool; /* NULL = the body is passed on as it comes */
    bool is_deaf;        /* it takes nothing more */
    bool has_last;       /* the empty STDIN record is written */
    bool has_end;        /* END_REQUEST came */
    char *out;           /* records under way */
    size_t out_at, out_len, out_cap;
    char *in;            /* PC_GATE_DOWN_BYTES */
    size_t in_at, in_len;
    struct pc_slice held; /* of `in`: output that nobody has taken yet */
    uint64_t said_bytes, said_lines;
    uint32_t line_len;
    char line[LINE_BYTES];
};

static struct fcgi *
fcgi_of(struct pc_gate *gate)
{
    return (struct fcgi *)(void *)gate;
}

/* ------------------------------------------------------------------ what goes wrong */

static struct pc_slice
name_of(const struct fcgi *fcgi)
{
    return fcgi->dial.backend != NULL ? pc_backend_name(fcgi->dial.backend) : fcgi->gate.req->back_end;
}

static int
say_unreachable(const struct fcgi *fcgi, const char *why)
{
    struct pc_slice name = name_of(fcgi);
    pc_errlog_req(fcgi->gate.req, PC_ERROR, "proxy_fcgi", "AH01079: failed to make connection to backend: %.*s: %s", (int)name.len,
                  name.base, why);
    return 503;
}

/* The answer ends here: `status` instead of it if its head is not out yet, else it is cut. */
static ssize_t
break_off(struct fcgi *fcgi, uint32_t status, const char *why)
{
    struct pc_slice name = name_of(fcgi);
    if (fcgi->gate.failed_status == 0)
        pc_errlog_req(fcgi->gate.req, PC_ERROR, "proxy_fcgi", "AH01075: Error dispatching request to %.*s: %s", (int)name.len, name.base,
                      why);
    fcgi->gate.failed_status = status;
    return -PC_E_CLOSED;
}

/* Silent for too long. */
static int
say_late(struct pc_gate *gate)
{
    struct fcgi *fcgi = fcgi_of(gate);
    if (!fcgi->is_open)
        return say_unreachable(fcgi, fcgi->dial.state == PC_DIAL_WAKING ? "the service does not start" : "Connection timed out");
    (void)break_off(fcgi, 504, "(polling) the timeout specified has expired");
    return 504;
}

/* ------------------------------------------------------------------ variables */

struct more {
    struct pc_pair list[MAX_MORE];
    uint32_t count;
    bool has_lost;
};

static void
add_more(struct more *more, struct pc_slice name, struct pc_slice value)
{
    more->has_lost = more->has_lost || more->count == MAX_MORE;
    if (more->count < MAX_MORE)
        more->list[more->count++] = (struct pc_pair){name, value};
}

/* php_value and its like. Whatever a variable of the environment says, these two are theirs: unset where there are none. */
static void
add_php(const struct fcgi *fcgi, struct more *more)
{
    const struct pc_req *req = fcgi->gate.req;
    struct pc_target target;
    const struct pc_service *pool = NULL;
    if (pc_target_parse(req->back_end, &target) == 0 && target.kind == PC_TARGET_SERVICE && target.service == req->host->php_service)
        pool = &req->config->services[target.service];
    add_more(more, PC_S("PHP_ADMIN_VALUE"), pc_phpini_lines(req, pool, true)); /* open_basedir is not to be lost, nor said otherwise */
    add_more(more, PC_S("PHP_VALUE"), pc_phpini_lines(req, pool, false));
}

/* ProxyFCGISetEnvIf, the most specific first: a name is taken once, and those of php_admin_value are not to be had. */
static void
add_configured(const struct pc_req *req, struct more *more)
{
    for (uint32_t i = req->layer_count; i-- > 0;) {
        for (uint32_t j = req->layers[i]->fcgi_env_count; j-- > 0;) {
            const struct pc_fcgi_env *one = &req->layers[i]->fcgi_env[j];
            struct pc_slice value = {0};
            if (one->value.base != NULL) {
                char *text = pc_arena_alloc(req->arena, VALUE_BYTES);
                value = (struct pc_slice){text, pc_format_write(req, one->value, false, text, VALUE_BYTES)};
            }
            add_more(more, one->name, value);
        }
    }
}

/* No file of ours: the target's path says which script the request is for, decoded as the request's path is. That script may be
 * anywhere, so where its path ends is told by its name. */
static void
name_script(struct pc_slice path, struct pc_cgienv_facts *facts)
{
    static const char mark[] = ".php/";
    const char *found = path.len > 0 ? memmem(path.base, path.len, mark, sizeof mark - 1) : NULL;
    size_t len = found != NULL ? (size_t)(found - path.base) + sizeof mark - 2 : path.len;
    facts->script_filename = (struct pc_slice){path.base, len};
    facts->path_info = (struct pc_slice){path.base + len, path.len - len};
}

static int
write_params(const struct fcgi *fcgi, struct pc_fcgi_writer *writer)
{
    struct pc_req *req = fcgi->gate.req;
    const struct pc_io *io = fcgi->gate.conn->io;
    struct more more = {0};
    bool has_none = req->is_without_body || req->error_status != 0;
    add_php(fcgi, &more);
    add_configured(req, &more);
    if (more.has_lost)
        return -PC_E_MEMORY;
    struct pc_cgienv_facts facts = {
        .kind = PC_CGIENV_FCGI, .path_info = req->path_info, .signature = pc_serve_signature(req), .more = more.list,
        .more_count = more.count,
    };
    if (req->pass != NULL)
        name_script(fcgi->path, &facts);
    if (has_none)
        facts.method = pc_serve_method(req) == PC_HEAD ? PC_S("HEAD") : PC_S("GET");
    if (fcgi->spool != NULL)
        facts.body_len = pc_spool_len(fcgi->spool);
    else
        facts.body_len = io->body_chunked || has_none ? UINT64_MAX : io->head->has_length ? io->head->content_length : 0;
    pc_fcgi_begin(writer, pc_backend_is_kept(fcgi->dial.backend));
    int result = pc_cgienv_each(req, &facts, pc_fcgi_param_sink, writer);
    return result != 0 ? result : pc_fcgi_end_params(writer);
}

/* ------------------------------------------------------------------ out */

/* As many bytes of `out` as the socket takes. 0 all, -PC_E_AGAIN. What it refuses is dropped: its answer may say why. */
static int
flush(struct fcgi *fcgi)
{
    while (!fcgi->is_deaf && fcgi->out_at < fcgi->out_len) {
        ssize_t sent = pc_dial_send(&fcgi->dial, &fcgi->gate, fcgi->out + fcgi->out_at, fcgi->out_len - fcgi->out_at);
        if (sent == -PC_E_AGAIN)
            return -PC_E_AGAIN;
        if (sent < 0)
            fcgi->is_deaf = true;
        else
            fcgi->out_at += (size_t)sent;
    }
    fcgi->out_at = fcgi->out_len = 0;
    return 0;
}

/* Behind what lies in `out`, which has room for it. */
static void
put_input(struct fcgi *fcgi, const char *bytes, size_t len)
{
    char *to = fcgi->out + fcgi->out_len;
    size_t padding = pc_fcgi_head(to, PC_FCGI_STDIN, REQUEST_ID, len);
    to += PC_FCGI_HEAD_BYTES;
    if (len > 0)
        memcpy(to, bytes, len); /* UNSAFE: len is PC_GATE_UP_BYTES at most, and `out` was empty */
    memset(to + len, 0, padding);
    fcgi->out_len += PC_FCGI_HEAD_BYTES + len + padding;
}

/* The head of the request as records, in memory until they are sent. 0, -PC_E_HEAD_LARGE, or -PC_E_MEMORY: more variables are configured
 * than there is room for. */
static int
make_request(struct pc_worker *worker, struct fcgi *fcgi)
{
    struct pc_fcgi_writer writer = {.out = worker->out, .cap = PC_OUT_BYTES, .request_id = REQUEST_ID};
    int written = write_params(fcgi, &writer);
    if (written != 0)
        return written;
    fcgi->out_cap = writer.len + PC_FCGI_HEAD_BYTES;
    if (fcgi->gate.wants_body && fcgi->out_cap < STDIN_BYTES)
        fcgi->out_cap = STDIN_BYTES;
    fcgi->out = malloc(fcgi->out_cap);
    fcgi->in = malloc(PC_GATE_DOWN_BYTES);
    if (fcgi->out == NULL || fcgi->in == NULL)
        pc_die(111, "out of memory");
    memcpy(fcgi->out, writer.out, writer.len);
    fcgi->out_len = writer.len;
    if (!fcgi->gate.wants_body) {
        put_input(fcgi, NULL, 0);
        fcgi->has_last = true;
    }
    fcgi->head_len = fcgi->out_len;
    return 0;
}

/* ------------------------------------------------------------------ the start */

/* Times, in ms: those of the pass, of ProxyTimeout, of the host. */
static uint64_t
silence_of(const struct pc_req *req)
{
    if (req->pass != NULL && req->pass->timeout_ms > 0)
        return req->pass->timeout_ms;
    for (uint32_t i = req->layer_count; i-- > 0;)
        if (req->layers[i]->proxy_timeout_ms > 0)
            return req->layers[i]->proxy_timeout_ms;
    return req->host->timeout_ms;
}

static uint64_t
patience_of(const struct fcgi *fcgi)
{
    const struct pc_req *req = fcgi->gate.req;
    if (pc_backend_is_service(fcgi->dial.backend))
        return PC_WAKE_MS;
    return req->pass != NULL && req->pass->connect_ms > 0 ? req->pass->connect_ms : silence_of(req);
}

/* Its back end is there: from here on it has as much time for its answer as it is allowed to be silent. */
static void
note_open(struct fcgi *fcgi)
{
    fcgi->is_open = true;
    fcgi->gate.due_ns = 0;
    fcgi->gate.timeout_ms = silence_of(fcgi->gate.req);
    fcgi->gate.progress_ns = pc_now_ns();
}

/* 0, -PC_E_AGAIN, -PC_E_CLOSED: said, and failed_status set. */
static int
open_up(struct fcgi *fcgi)
{
    if (fcgi->is_open)
        return 0;
    int step = fcgi->gate.failed_status != 0 ? -PC_E_CLOSED : pc_dial_step(&fcgi->dial, &fcgi->gate);
    if (step == 0)
        note_open(fcgi);
    else if (step != -PC_E_AGAIN && fcgi->gate.failed_status == 0)
        fcgi->gate.failed_status = (uint32_t)say_unreachable(fcgi, pc_dial_why(&fcgi->dial));
    return step == 0 || step == -PC_E_AGAIN ? step : -PC_E_CLOSED;
}

static int
find(struct pc_worker *worker, struct fcgi *fcgi)
{
    struct pc_req *req = fcgi->gate.req;
    struct pc_target target;
    if (pc_target_parse(req->back_end, &target) != 0)
        return say_unreachable(fcgi, "no URL of a back end");
    fcgi->path = target.path;
    int found = pc_backend_find(worker->child, &target, PC_BACKEND_FCGI, DEFAULT_PORT, worker->may_block, &fcgi->dial.backend);
    if (found == -PC_E_AGAIN)
        return -PC_E_SYS; /* to be called again in a thread that may wait */
    if (found == 0 && req->pass != NULL && req->pass->kept > 0)
        pc_backend_share(fcgi->dial.backend, req->pass->kept);
    if (found != 0)
        return say_unreachable(fcgi, found == -PC_E_NOT_FOUND ? "DNS lookup failure" : "there is no such back end");
    return 0;
}

static bool
is_php(const struct pc_req *req)
{
    static const struct pc_slice php = {".php", 4};
    struct pc_slice name = req->filename;
    struct pc_target target;
    bool is_named = name.len > php.len && pc_slice_ieq((struct pc_slice){name.base + name.len - php.len, php.len}, php);
    if (is_named || memmem(name.base, name.len, ".php/", 5) != NULL)
        return true;
    return pc_target_parse(req->back_end, &target) == 0 && target.kind == PC_TARGET_SERVICE && target.service == req->host->php_service;
}

/* PHP reads as many bytes as CONTENT_LENGTH says: none, when nobody has said it. Other responders say so by proxy-sendcl. A
 * chunked body cannot tell before its end. */
static bool
needs_length(const struct pc_req *req)
{
    return pc_env_get(req, PC_S("proxy-sendcl")).base != NULL || is_php(req);
}

static bool
lacks_length(const struct fcgi *fcgi)
{
    return fcgi->spool == NULL && fcgi->gate.wants_body && fcgi->gate.conn->io->body_chunked && needs_length(fcgi->gate.req);
}

static int
prepare(struct pc_worker *worker, struct fcgi *fcgi)
{
    int status = find(worker, fcgi);
    if (status != 0)
        return status;
    if (lacks_length(fcgi)) {
        fcgi->spool = pc_spool_new();
        fcgi->is_collecting = true;
        return 0;
    }
    int made = make_request(worker, fcgi);
    if (made == -PC_E_MEMORY) {
        pc_errlog_req(fcgi->gate.req, PC_ERROR, "proxy_fcgi", "more than %d variables come from ProxyFCGISetEnvIf: none may be left out",
                      MAX_MORE - 2);
        return 500;
    }
    if (made != 0) {
        pc_errlog_req(fcgi->gate.req, PC_ERROR, "proxy_fcgi", "the variables of the request are more than %d bytes", PC_OUT_BYTES);
        return 431;
    }
    fcgi->reader.request_id = REQUEST_ID;
    fcgi->is_begun = true;
    return 0;
}

/* 0 open, -PC_E_AGAIN an event will come, else as pc_dial_begin. */
static int
begin(struct fcgi *fcgi, bool is_fresh, uint64_t now_ns)
{
    int begun = pc_dial_begin(&fcgi->dial, &fcgi->gate, is_fresh);
    fcgi->is_early = begun == 0;
    if (begun == 0)
        note_open(fcgi);
    if (begun != -PC_E_AGAIN)
        return begun;
    fcgi->gate.timeout_ms = patience_of(fcgi); /* Timeout is for what has been begun */
    fcgi->gate.due_ns = now_ns + fcgi->gate.timeout_ms * MS;
    return begun;
}

static int
start(struct pc_worker *worker, struct pc_conn *conn)
{
    struct fcgi *fcgi = fcgi_of(conn->gate);
    int status = fcgi->is_begun ? 0 : prepare(worker, fcgi);
    if (status != 0 || fcgi->is_collecting)
        return status;
    int begun = begin(fcgi, !pc_gate_is_repeatable(&fcgi->gate), worker->now_ns);
    fcgi->gate.full = fcgi->dial.is_queue_full ? fcgi->dial.backend : NULL;
    if (begun == -PC_E_MEMORY)
        return -PC_E_AGAIN;
    return begun == -PC_E_CLOSED ? say_unreachable(fcgi, pc_dial_why(&fcgi->dial)) : 0;
}

/* ------------------------------------------------------------------ a body whose length must be known first */

static ssize_t
fail_to_keep(struct fcgi *fcgi)
{
    char why[128];
    pc_errlog_req(fcgi->gate.req, PC_ERROR, "proxy_fcgi",
                  "PHP needs a length, so a chunked body is kept until its end, in /var/tmp, /tmp or /dev/shm: %s",
                  strerror_r(errno, why, sizeof why));
    fcgi->gate.failed_status = 500;
    return -PC_E_CLOSED;
}

/* All of it is there: now the responder is asked, as any start, in the next step. */
static int
end_collecting(struct fcgi *fcgi)
{
    struct pc_gate *gate = &fcgi->gate;
    fcgi->is_collecting = false;
    gate->is_started = false;
    (void)pc_conn_requeue(gate->child, gate->conn); /* fails only if the socket is gone: the deadline ends it */
    return -PC_E_AGAIN;
}

/* What was kept, as records. 0 all of it is out, or -PC_E_AGAIN. */
static int
send_kept(struct fcgi *fcgi)
{
    struct pc_gate *gate = &fcgi->gate;
    size_t moved = 0;
    while (!fcgi->is_deaf && !fcgi->has_end && gate->failed_status == 0) {
        if (flush(fcgi) == -PC_E_AGAIN)
            return -PC_E_AGAIN;
        ssize_t count = moved < PC_GATE_TURN_BYTES ? pc_spool_take(fcgi->spool, gate->up, PC_GATE_UP_BYTES) : -PC_E_AGAIN;
        if (count == -PC_E_AGAIN) { /* others have waited long enough */
            (void)pc_conn_requeue(gate->child, gate->conn); /* as above */
            return -PC_E_AGAIN;
        }
        if (count <= 0)
            return count < 0 ? (int)fail_to_keep(fcgi) : 0;
        put_input(fcgi, gate->up, (size_t)count);
        moved += (size_t)count;
        gate->progress_ns = pc_now_ns();
    }
    return 0;
}

/* ------------------------------------------------------------------ the request's body */

static ssize_t
send_input(struct pc_gate *gate, const char *buf, size_t len)
{
    struct fcgi *fcgi = fcgi_of(gate);
    if (fcgi->is_collecting)
        return pc_spool_put(fcgi->spool, buf, len) == 0 ? (ssize_t)len : fail_to_keep(fcgi);
    int opened = open_up(fcgi);
    if (opened == -PC_E_AGAIN || (opened == 0 && flush(fcgi) == -PC_E_AGAIN))
        return -PC_E_AGAIN;
    if (opened != 0 || fcgi->is_deaf || fcgi->has_end)
        return -PC_E_CLOSED;
    put_input(fcgi, buf, len < PC_GATE_UP_BYTES ? len : PC_GATE_UP_BYTES);
    (void)flush(fcgi); /* what is left goes before the next piece */
    return len < PC_GATE_UP_BYTES ? (ssize_t)len : PC_GATE_UP_BYTES;
}

static int
end_input(struct pc_gate *gate)
{
    struct fcgi *fcgi = fcgi_of(gate);
    if (fcgi->is_collecting)
        return end_collecting(fcgi);
    int opened = open_up(fcgi);
    if (opened != 0)
        return opened == -PC_E_AGAIN ? -PC_E_AGAIN : 0;
    if (!fcgi->has_last) {
        if (fcgi->spool != NULL && send_kept(fcgi) == -PC_E_AGAIN)
            return -PC_E_AGAIN;
        if (flush(fcgi) == -PC_E_AGAIN)
            return -PC_E_AGAIN;
        put_input(fcgi, NULL, 0);
        fcgi->has_last = true;
    }
    return flush(fcgi);
}

/* ------------------------------------------------------------------ its error output */

static void
say_line(struct fcgi *fcgi, size_t len)
{
    while (len > 0 && (fcgi->line[len - 1] == '\r' || fcgi->line[len - 1] == '\n'))
        len--;
    if (len > 0 && fcgi->said_lines++ < PC_MAX_STDERR_LINES)
        pc_errlog_req(fcgi->gate.req, PC_ERROR, "proxy_fcgi", "AH01071: Got error '%.*s'", (int)len, fcgi->line);
    fcgi->line_len = 0;
}

static void
hear_words(struct fcgi *fcgi, struct pc_slice bytes)
{
    bool was_quiet = fcgi->said_bytes < PC_MAX_STDERR_BYTES;
    fcgi->said_bytes += bytes.len;
    if (fcgi->said_bytes >= PC_MAX_STDERR_BYTES) {
        fcgi->line_len = 0;
        if (was_quiet)
            pc_errlog_req(fcgi->gate.req, PC_ERROR, "proxy_fcgi", "more than %d bytes of errors, the rest is not logged",
                          PC_MAX_STDERR_BYTES);
        return;
    }
    while (bytes.len > 0) {
        const char *end = memchr(bytes.base, '\n', bytes.len);
        size_t now = end != NULL ? (size_t)(end + 1 - bytes.base) : bytes.len;
        if (now > LINE_BYTES - fcgi->line_len)
            now = LINE_BYTES - fcgi->line_len;
        memcpy(fcgi->line + fcgi->line_len, bytes.base, now); /* UNSAFE: compared with the room */
        fcgi->line_len += (uint32_t)now;
        bytes.base += now;
        bytes.len -= now;
        if (fcgi->line_len == LINE_BYTES || fcgi->line[fcgi->line_len - 1] == '\n')
            say_line(fcgi, fcgi->line_len);
    }
}

/* ------------------------------------------------------------------ its answer */

static const char *
refusal_of(uint8_t protocol)
{
    static const char *const texts[] = {"", "it takes one request at a time", "it is overloaded", "it is no responder"};
    return protocol < sizeof texts / sizeof texts[0] ? texts[protocol] : "END_REQUEST with an unknown status";
}

/* One step through `in`. >0 it went on, 0 more bytes are needed, <0. */
static int
step(struct fcgi *fcgi)
{
    struct pc_fcgi_event event = {0};
    int used = pc_fcgi_decode(&fcgi->reader, fcgi->in + fcgi->in_at, fcgi->in_len - fcgi->in_at, &event);
    if (used < 0)
        return (int)break_off(fcgi, 502, "AH01072: Got bogus record");
    fcgi->in_at += (size_t)used;
    if (event.what == PC_FCGI_OUT)
        fcgi->held = event.bytes;
    else if (event.what == PC_FCGI_ERR)
        hear_words(fcgi, event.bytes);
    else if (event.what == PC_FCGI_END)
        fcgi->has_end = true;
    if (fcgi->has_end && event.protocol != PC_FCGI_COMPLETE)
        return (int)break_off(fcgi, 503, refusal_of(event.protocol));
    return used;
}

/* The kept connection ended before a word of the answer: the responder may do that between two requests. The same on a new one. */
static ssize_t
repeat(struct fcgi *fcgi)
{
    pc_dial_end(&fcgi->dial);
    fcgi->is_open = fcgi->is_deaf = false;
    fcgi->out_at = 0;
    fcgi->out_len = fcgi->head_len;
    int begun = begin(fcgi, true, pc_now_ns());
    fcgi->is_early = false; /* this step ends here */
    if (begun == 0)
        begun = flush(fcgi);
    if (begun == -PC_E_MEMORY) { /* it has to wait for room, which gate.c does with what has not started */
        fcgi->gate.is_started = false;
        fcgi->gate.waiting_ns = 0;
        (void)pc_conn_requeue(fcgi->gate.child, fcgi->gate.conn); /* fails only if the socket is gone: the deadline ends it */
    }
    if (begun != -PC_E_CLOSED)
        return -PC_E_AGAIN;
    fcgi->gate.failed_status = (uint32_t)say_unreachable(fcgi, pc_dial_why(&fcgi->dial));
    return -PC_E_CLOSED;
}

/* More bytes into `in`, none of which is held. >0, -PC_E_AGAIN, -PC_E_CLOSED. */
static ssize_t
refill(struct fcgi *fcgi)
{
    if (fcgi->is_early) {
        fcgi->is_early = false;
        return -PC_E_AGAIN;
    }
    memmove(fcgi->in, fcgi->in + fcgi->in_at, fcgi->in_len - fcgi->in_at);
    fcgi->in_len -= fcgi->in_at;
    fcgi->in_at = 0;
    ssize_t count = pc_dial_recv(&fcgi->dial, fcgi->in + fcgi->in_len, PC_GATE_DOWN_BYTES - fcgi->in_len);
    if (count == -PC_E_AGAIN)
        return count;
    if (count <= 0 && fcgi->dial.is_kept && !fcgi->has_heard)
        return repeat(fcgi);
    if (count <= 0)
        return break_off(fcgi, 502, "AH01067: Failed to read FastCGI header: it closed the connection before the end of its answer");
    fcgi->in_len += (size_t)count;
    fcgi->has_heard = true;
    return count;
}

static ssize_t
take_held(struct fcgi *fcgi, char *buf, size_t cap)
{
    size_t len = fcgi->held.len < cap ? fcgi->held.len : cap;
    memcpy(buf, fcgi->held.base, len); /* UNSAFE: compared with both */
    fcgi->held.base += len;
    fcgi->held.len -= len;
    return (ssize_t)len;
}

static ssize_t
hear_output(struct pc_gate *gate, char *buf, size_t cap)
{
    struct fcgi *fcgi = fcgi_of(gate);
    size_t silent = 0;
    if (fcgi->is_collecting || !gate->is_started)
        return gate->failed_status != 0 ? -PC_E_CLOSED : -PC_E_AGAIN;
    int opened = open_up(fcgi);
    if (opened != 0)
        return opened;
    (void)flush(fcgi); /* the other direction, which goes on by itself once the body is here */
    while (fcgi->held.len == 0 && !fcgi->has_end) {
        int stepped = gate->failed_status != 0 ? -PC_E_CLOSED : step(fcgi);
        ssize_t count = stepped == 0 ? refill(fcgi) : stepped;
        if (count < 0)
            return count;
        silent += stepped == 0 ? (size_t)count : 0;
        if (silent >= SILENT_BYTES && fcgi->held.len == 0) { /* others have waited long enough */
            (void)pc_conn_requeue(gate->child, gate->conn); /* fails only if the socket is gone: the deadline ends it */
            return -PC_E_AGAIN;
        }
    }
    if (fcgi->held.len > 0)
        return take_held(fcgi, buf, cap);
    return gate->failed_status != 0 ? -PC_E_CLOSED : 0;
}

static int
parse_output(struct pc_gate *gate, struct pc_reply *reply, const char *buf, size_t len)
{
    (void)gate;
    return pc_reply_parse_cgi(reply, buf, len);
}

/* ------------------------------------------------------------------ the end */

/* Whether the next request would begin where this one has ended, on both sides. */
static bool
is_through(const struct fcgi *fcgi)
{
    bool is_said = fcgi->has_last && !fcgi->is_deaf && fcgi->out_at == fcgi->out_len;
    return is_said && fcgi->has_end && fcgi->held.len == 0 && fcgi->in_at == fcgi->in_len && fcgi->gate.failed_status == 0;
}

static void
end(struct pc_gate *gate, bool is_cut)
{
    struct fcgi *fcgi = fcgi_of(gate);
    say_line(fcgi, fcgi->line_len);
    if (fcgi->said_lines > PC_MAX_STDERR_LINES)
        pc_errlog_req(gate->req, PC_ERROR, "proxy_fcgi", "%" PRIu64 " more lines of errors are not logged",
                      fcgi->said_lines - PC_MAX_STDERR_LINES);
    if (!is_cut && is_through(fcgi) && pc_backend_is_kept(fcgi->dial.backend))
        pc_dial_keep(&fcgi->dial, gate);
    else
        pc_dial_end(&fcgi->dial); /* which says that nobody waits for the rest */
    pc_spool_free(fcgi->spool);
    free(fcgi->out);
    free(fcgi->in);
}

const struct pc_gate_ops pc_gate_fcgi = {
    .module = "proxy_fcgi",
    .size = sizeof(struct fcgi),
    .answers_soon = true,
    .start = start,
    .send = send_input,
    .send_end = end_input,
    .recv = hear_output,
    .parse = parse_output,
    .late = say_late,
    .busy = "the back end's queue, or the job box, is full",
    .end = end,
};
