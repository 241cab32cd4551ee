/* program.c - who makes the content of a path: the file itself, Python, or a program; and whether that program may run.
 * Runs as:  child, as the identity that owns the host.   Sees: one request.
 * Trusts:   the host's configuration.   Distrusts: the name of the file: what is a program by any of its extensions is one.
 * Before:   serve.c, file.c   After: gate.c, for what is one */
#include <string.h>

#include "serve.h"

struct maker_row {
    struct pc_slice name;
    bool is_prefix;
    enum pc_maker maker;
};

/* Names of handlers, and of media types that stand for handlers; the first that fits. */
static const struct maker_row makers[] = {
    {{"default-handler", 15}, false, PC_MAKER_FILE},
    {{"none", 4}, false, PC_MAKER_FILE},
    {{"whoami", 6}, false, PC_MAKER_PYTHON},
    {{"cgi-script", 10}, false, PC_MAKER_CGI},
    {{"application/x-httpd-cgi", 23}, false, PC_MAKER_CGI},
    {{"proxy:", 6}, true, PC_MAKER_PROGRAM},
    {{"proxy-server", 12}, false, PC_MAKER_PROGRAM},
    {{"service:", 8}, true, PC_MAKER_PROGRAM},
    {{"application/x-httpd-", 20}, true, PC_MAKER_PROGRAM}, /* php, php-source, lsphp, alt-php84, ... */
    {{"application/x-lsphp", 19}, true, PC_MAKER_PROGRAM},
    {{"x-httpd-", 8}, true, PC_MAKER_PROGRAM},
    {{"fcgi", 4}, true, PC_MAKER_PROGRAM}, /* fcgid-script, fcgi-script */
    {{"fastcgi", 7}, true, PC_MAKER_PROGRAM},
    {{"php", 3}, true, PC_MAKER_PROGRAM},
    {{"lsphp", 5}, true, PC_MAKER_PROGRAM},
    {{"wsgi-script", 11}, false, PC_MAKER_PROGRAM},
    {{"uwsgi-handler", 13}, false, PC_MAKER_PROGRAM},
    {{"perl-script", 11}, false, PC_MAKER_PROGRAM},
    {{"mod_python", 10}, false, PC_MAKER_PROGRAM},
    {{"lua-script", 10}, false, PC_MAKER_PROGRAM},
};

bool
pc_program_find(struct pc_slice name, enum pc_maker *ret_maker)
{
    for (size_t i = 0; i < sizeof makers / sizeof makers[0]; i++) {
        struct pc_slice head = name;
        if (makers[i].is_prefix && head.len > makers[i].name.len)
            head.len = makers[i].name.len;
        if (!pc_slice_ieq(head, makers[i].name))
            continue;
        *ret_maker = makers[i].maker;
        return true;
    }
    return false;
}

struct pc_slice
pc_program_handler(const struct pc_req *req)
{
    struct pc_slice set = PC_LAYERS_SLICE(req, handler);
    if (set.len > 0) /* also a name that nobody knows: it takes the place of what would run the file */
        return set;
    struct pc_slice added = pc_media_handler(req, req->filename);
    if (added.len > 0)
        return added;
    return req->by_script_alias ? PC_S("cgi-script") : PC_S("");
}

enum pc_maker
pc_program_maker(struct pc_req *req, struct pc_slice media_type)
{
    enum pc_maker maker = PC_MAKER_FILE;
    struct pc_slice handler = pc_program_handler(req);
    if (handler.len > 0) {
        req->handler = handler;
        (void)pc_program_find(handler, &maker); /* unknown: the file, which serve.c has said */
    }
    /* A type that stands for a program is one even where the handler says that this is a file. */
    bool is_plain = media_type.len == 0 || media_type.base[0] == 't' || media_type.base[0] == 'i'; /* text/, image/: no row */
    if (maker == PC_MAKER_FILE && !is_plain && pc_program_find(media_type, &maker) && maker == PC_MAKER_CGI && handler.len > 0)
        maker = PC_MAKER_PROGRAM;
    if (maker != PC_MAKER_FILE && handler.len == 0)
        req->handler = media_type;
    return maker;
}

/* ------------------------------------------------------------------ CGI */

static enum pc_serve
refuse(struct pc_req *req, uint32_t status, const char *text)
{
    pc_errlog_req(req, PC_ERROR, "cgi", "%s: %.*s", text, (int)req->filename.len, req->filename.base);
    return pc_serve_fail(req, status);
}

/* Whether the handler of what should be at req->filename executes it. */
static bool
is_script(const struct pc_req *req)
{
    enum pc_maker maker = PC_MAKER_FILE;
    return req->host->has_programs && pc_program_find(pc_program_handler(req), &maker) && maker == PC_MAKER_CGI;
}

enum pc_serve
pc_program_refuse_directory(struct pc_req *req)
{
    return is_script(req) ? refuse(req, 403, "AH02812: attempt to invoke directory as script") : PC_SERVE_ON;
}

enum pc_serve
pc_program_refuse_missing(struct pc_req *req)
{
    return is_script(req) ? refuse(req, 404, "AH02811: script not found or unable to stat") : PC_SERVE_ON;
}

enum pc_serve
pc_program_serve(struct pc_req *req, enum pc_maker maker)
{
    if (maker != PC_MAKER_CGI) {
        pc_errlog_req(req, PC_ERROR, "core", "AH01627: no handler runs programs of \"%.*s\": %.*s", (int)req->handler.len,
                      req->handler.base, (int)req->filename.len, req->filename.base);
        return pc_serve_fail(req, 503);
    }
    if ((req->options & PC_OPT_EXECCGI) == 0 && !req->by_script_alias)
        return refuse(req, 403, "AH02809: Options ExecCGI is off in this directory");
    req->gate = PC_GATE_CGI;
    return PC_SERVE_GATE;
}
