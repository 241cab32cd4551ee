/* program.c - who makes the content of a path: the file itself, Python, or a program; and whether that program may run.
 * Runs as:  child, as the identity that owns the host.   Sees: one request.
 * Trusts:   the host's configuration.   Distrusts: the name of the file: what is a program by any of its extensions is one.
 * Before:   serve.c, file.c   After: target.c; gate.c, for what is one */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memrchr */
#endif
#include <string.h>

#include "gateway.h"
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
    {{"server-status", 13}, false, PC_MAKER_PYTHON}, /* perchild/child/status.py */
    {{"perchild-status", 15}, false, PC_MAKER_PYTHON},
    {{"prometheus", 10}, false, PC_MAKER_PYTHON},
    {{"cgi-script", 10}, false, PC_MAKER_CGI},
    {{"application/x-httpd-cgi", 23}, false, PC_MAKER_CGI},
    {{"proxy:", 6}, true, PC_MAKER_BACK_END},
    {{"service:", 8}, true, PC_MAKER_BACK_END},
    {{"proxy-server", 12}, false, PC_MAKER_PROGRAM},
    {{"application/x-httpd-php-source", 30}, true, PC_MAKER_PROGRAM},
    {{"application/x-httpd-php", 23}, true, PC_MAKER_PHP}, /* and what panels call it: php5, alt-php84, ea-php82, lsphp */
    {{"application/x-httpd-alt-php", 27}, true, PC_MAKER_PHP},
    {{"application/x-httpd-ea-php", 26}, true, PC_MAKER_PHP},
    {{"application/x-httpd-lsphp", 25}, true, PC_MAKER_PHP},
    {{"application/x-lsphp", 19}, true, PC_MAKER_PHP},
    {{"application/x-httpd-", 20}, true, PC_MAKER_PROGRAM},
    {{"x-httpd-php-source", 18}, true, PC_MAKER_PROGRAM},
    {{"x-httpd-php", 11}, true, PC_MAKER_PHP},
    {{"x-httpd-", 8}, true, PC_MAKER_PROGRAM},
    {{"fcgi", 4}, true, PC_MAKER_FCGID}, /* fcgid-script, fcgi-script */
    {{"fastcgi", 7}, true, PC_MAKER_FCGID},
    {{"php", 3}, true, PC_MAKER_PHP},
    {{"lsphp", 5}, true, PC_MAKER_PHP},
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

/* What Action says of a handler or media type, wherever the request is. */
static const struct pc_action *
find_action(const struct pc_req *req, struct pc_slice name)
{
    const char *end = name.len > 0 ? memchr(name.base, ';', name.len) : NULL; /* of a media type, its parameters */
    if (end != NULL)
        name.len = (size_t)(end - name.base);
    if (!req->host->has_programs || name.len == 0)
        return NULL;
    for (uint32_t i = req->layer_count; i-- > 0;) {
        for (uint32_t j = req->layers[i]->action_count; j-- > 0;) {
            const struct pc_action *action = &req->layers[i]->actions[j];
            if (pc_slice_ieq(action->name, name))
                return action;
        }
    }
    return NULL;
}

const struct pc_action *
pc_program_action(const struct pc_req *req, struct pc_slice name)
{
    const struct pc_action *action = find_action(req, name);
    if (action == NULL || !pc_slice_starts(req->path, action->path))
        return action;
    size_t len = action->path.len; /* the program itself, with whatever is behind its path, is not its own input */
    return req->path.len == len || action->path.base[len - 1] == '/' || req->path.base[len] == '/' ? NULL : action;
}

enum pc_maker
pc_program_maker(struct pc_req *req, struct pc_slice media_type)
{
    enum pc_maker maker = PC_MAKER_FILE;
    struct pc_slice handler = pc_program_handler(req);
    if (pc_program_action(req, handler.len > 0 ? handler : media_type) != NULL) {
        req->handler = handler.len > 0 ? handler : media_type;
        return PC_MAKER_ACTION;
    }
    if (handler.len > 0) {
        req->handler = handler;
        (void)pc_program_find(handler, &maker); /* unknown: the file, which serve.c has said */
    }
    /* The program of an Action is of the kind that it is there to run: nobody runs it, but its text is a program's. */
    if (maker == PC_MAKER_FILE && find_action(req, handler.len > 0 ? handler : media_type) != NULL)
        maker = req->by_script_alias ? PC_MAKER_CGI : PC_MAKER_PROGRAM;
    /* A type that stands for a program is one even where the handler says that this is a file. */
    bool is_plain = media_type.len == 0 || media_type.base[0] == 't' || media_type.base[0] == 'i'; /* text/, image/: no row */
    if (maker == PC_MAKER_FILE && !is_plain && pc_program_find(media_type, &maker) && maker == PC_MAKER_CGI && handler.len > 0)
        maker = PC_MAKER_PROGRAM;
    if (maker != PC_MAKER_FILE && handler.len == 0)
        req->handler = media_type;
    return maker;
}

/* ------------------------------------------------------------------ what is there, or is not */

static enum pc_serve
refuse(struct pc_req *req, uint32_t status, const char *module, const char *text)
{
    pc_errlog_req(req, PC_ERROR, module, "%s: %.*s", text, (int)req->filename.len, req->filename.base);
    return pc_serve_fail(req, status);
}

/* Who would make what should be at req->filename, by its handler. */
static enum pc_maker
expected_maker(struct pc_req *req)
{
    enum pc_maker maker = PC_MAKER_FILE;
    struct pc_slice handler = req->host->has_programs ? pc_program_handler(req) : (struct pc_slice){0};
    if (handler.len == 0)
        return PC_MAKER_FILE;
    if (pc_program_action(req, handler) != NULL) {
        req->handler = handler;
        return PC_MAKER_ACTION;
    }
    (void)pc_program_find(handler, &maker); /* unknown: the file */
    return maker;
}

enum pc_serve
pc_program_refuse_directory(struct pc_req *req)
{
    switch (expected_maker(req)) {
    case PC_MAKER_CGI:
        return refuse(req, 403, "cgi", "AH02812: attempt to invoke directory as script");
    case PC_MAKER_BACK_END:
    case PC_MAKER_PHP:
    case PC_MAKER_FCGID:
        return refuse(req, 403, "proxy_fcgi", "attempt to invoke directory as script");
    default:
        return PC_SERVE_ON;
    }
}

enum pc_serve
pc_program_refuse_missing(struct pc_req *req)
{
    switch (expected_maker(req)) {
    case PC_MAKER_CGI:
        return refuse(req, 404, "cgi", "AH02811: script not found or unable to stat");
    case PC_MAKER_BACK_END: /* an application without files is what ProxyPass is for */
    case PC_MAKER_PHP:
    case PC_MAKER_FCGID:
        return refuse(req, 404, "proxy_fcgi", "script not found or unable to stat");
    case PC_MAKER_ACTION:
        if (pc_program_action(req, req->handler)->is_virtual)
            return pc_program_serve(req, PC_MAKER_ACTION);
        return refuse(req, 404, "actions", "AH00652: File does not exist");
    default:
        return PC_SERVE_ON;
    }
}

/* ------------------------------------------------------------------ each of them */

static enum pc_serve
serve_cgi(struct pc_req *req)
{
    if ((req->options & PC_OPT_EXECCGI) == 0 && !req->by_script_alias)
        return refuse(req, 403, "cgi", "AH02809: Options ExecCGI is off in this directory");
    req->gate = PC_GATE_CGI;
    return PC_SERVE_GATE;
}

/* target: as PC_T_PROXY_TO has it. */
static enum pc_serve
serve_back_end(struct pc_req *req, struct pc_slice text)
{
    struct pc_target target;
    if (pc_target_parse(text, &target) != 0 || (target.kind == PC_TARGET_SERVICE && target.service >= req->config->service_count))
        return refuse(req, 500, "proxy", "the handler names no back end");
    bool is_fcgi = target.kind == PC_TARGET_SERVICE ? req->config->services[target.service].kind == PC_SERVICE_FCGI
                                                    : pc_slice_eq(target.scheme, PC_S("fcgi"));
    if (!is_fcgi)
        return refuse(req, 503, "proxy", "AH01144: No protocol handler was valid for the handler's back end");
    req->back_end = text;
    req->pass = NULL;
    req->gate = PC_GATE_FCGI;
    return PC_SERVE_GATE;
}

static enum pc_serve
serve_php(struct pc_req *req)
{
    if (req->host->php_service == PC_NO_SERVICE)
        return refuse(req, 503, "core", "AH01627: no PHP runs here, PHPPool in the virtual host starts one");
    return serve_back_end(req, pc_arena_print(req->arena, "service:%u", (unsigned)req->host->php_service));
}

/* FcgidWrapper for a file of this name: of its extension, wherever that is said, before one of all. base NULL: none. */
static struct pc_slice
find_wrapper(const struct pc_req *req)
{
    struct pc_slice name = req->filename, extension = {0}, found = {0};
    const char *dot = name.len > 0 ? memrchr(name.base, '.', name.len) : NULL;
    if (dot != NULL)
        extension = (struct pc_slice){dot + 1, (size_t)(name.base + name.len - dot - 1)};
    for (uint32_t i = req->layer_count; i-- > 0;) {
        for (uint32_t j = req->layers[i]->wrapper_count; j-- > 0;) {
            const struct pc_pair *one = &req->layers[i]->wrappers[j];
            if (one->value.len > 0 && pc_slice_ieq(one->value, extension))
                return one->name;
            if (one->value.len == 0 && found.base == NULL)
                found = one->name;
        }
    }
    return found;
}

static enum pc_serve
serve_fcgid(struct pc_req *req)
{
    struct pc_slice command = find_wrapper(req);
    if (command.base == NULL)
        return refuse(req, 503, "fcgid", "AH01627: no FcgidWrapper names the FastCGI program for this file");
    if ((req->options & PC_OPT_EXECCGI) == 0 && !req->by_script_alias)
        return refuse(req, 403, "fcgid", "Options ExecCGI is off in this directory");
    for (uint32_t i = 0; i < req->host->wrapper_count; i++)
        if (pc_slice_eq(req->host->wrappers[i].name, command))
            return serve_back_end(req, req->host->wrappers[i].value);
    return refuse(req, 503, "fcgid", "AH01627: the runner keeps no program for the FcgidWrapper of this file");
}

/* The request becomes one for the action's program, with the whole path behind its own. */
static enum pc_serve
serve_action(struct pc_req *req)
{
    const struct pc_action *action = pc_program_action(req, req->handler);
    struct pc_slice path = pc_map_escape(req, req->path), query = req->query;
    pc_env_set(req, PC_S("HANDLER"), req->handler); /* REDIRECT_HANDLER for the program */
    return pc_serve_go_along(req, pc_arena_print(req->arena, "%.*s%.*s%s%.*s", (int)action->path.len, action->path.base, (int)path.len,
                                                 path.base, query.base != NULL ? "?" : "", (int)query.len,
                                                 query.base != NULL ? query.base : ""));
}

enum pc_serve
pc_program_serve(struct pc_req *req, enum pc_maker maker)
{
    if (pc_proxy_is_http_handler(req->handler))
        return pc_proxy_serve_handler(req);
    switch (maker) {
    case PC_MAKER_CGI:
        return serve_cgi(req);
    case PC_MAKER_BACK_END: {
        struct pc_slice text = req->handler, prefix = PC_S("proxy:");
        if (pc_slice_starts(text, prefix))
            text = (struct pc_slice){text.base + prefix.len, text.len - prefix.len};
        return serve_back_end(req, text);
    }
    case PC_MAKER_PHP:
        return serve_php(req);
    case PC_MAKER_ACTION:
        return serve_action(req);
    case PC_MAKER_FCGID:
        return serve_fcgid(req);
    default:
        pc_errlog_req(req, PC_ERROR, "core", "AH01627: no handler runs programs of \"%.*s\": %.*s", (int)req->handler.len,
                      req->handler.base, (int)req->filename.len, req->filename.base);
        return pc_serve_fail(req, 503);
    }
}
