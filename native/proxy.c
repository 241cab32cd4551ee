/* proxy.c - which requests are passed on to a back end, and where to: ProxyPass and ProxyPassMatch, and handlers that name one.
 * Runs as:  child, as the identity that owns the host.   Sees: the decoded, normalised path.
 * Trusts:   the host's configuration: it alone says which host or socket is connected to.   Distrusts: the path: what a pattern puts
 *           into a URL comes behind its host, always with a slash between them.
 * Before:   serve.c, program.c   After: gate_http.c, gate_fcgi.c */
#include <string.h>

#include "gateway.h"
#include "serve.h"

static struct pc_slice
behind(struct pc_slice s, size_t len)
{
    return (struct pc_slice){s.base + len, s.len - len};
}

/* Length of scheme, socket and host: what no request has a say in. */
static size_t
fixed_len(struct pc_slice to)
{
    static const struct pc_slice service = {"service:", 8};
    const char *end = to.base + to.len, *at = to.base, *bar = to.len > 0 ? memchr(to.base, '|', to.len) : NULL;
    if (!pc_slice_starts(to, service)) {
        at = bar != NULL && pc_slice_starts(to, PC_S("unix:")) ? bar + 1 : at;
        while (at + 3 <= end && memcmp(at, "://", 3) != 0)
            at++;
        at = at + 3 <= end ? at + 3 : end;
    }
    const char *slash = at < end ? memchr(at, '/', (size_t)(end - at)) : NULL;
    return slash != NULL ? (size_t)(slash - to.base) : to.len;
}

/* The first `fixed` bytes of `to`, and a path; a slash comes between them if it has none. */
static struct pc_slice
join(struct pc_req *req, struct pc_slice to, size_t fixed, struct pc_slice path, struct pc_slice rest)
{
    struct pc_slice first = path.len > 0 ? path : rest;
    bool has_slash = first.len == 0 || first.base[0] == '/';
    return pc_arena_print(req->arena, "%.*s%s%.*s%.*s", (int)fixed, to.base, has_slash ? "" : "/", (int)path.len, path.base,
                          (int)rest.len, rest.base);
}

/* As httpd's alias_match, for a path without empty components. */
static bool
fits_prefix(struct pc_slice path, struct pc_slice prefix)
{
    if (prefix.len == 0 || !pc_slice_starts(path, prefix))
        return false;
    return prefix.base[prefix.len - 1] == '/' || path.len == prefix.len || path.base[prefix.len] == '/';
}

/* 1 it fits (ret_url: base NULL = "!"), 0 it does not, <0 the pattern gave up. */
static int
try_pass(struct pc_req *req, const struct pc_pass *pass, struct pc_slice *ret_url)
{
    struct pc_span groups[10];
    bool is_excluded = pc_slice_eq(pass->to, PC_S("!"));
    size_t fixed = fixed_len(pass->to);
    struct pc_slice path = behind(pass->to, fixed), rest = req->path;
    if (pass->kind == PC_PASS_MATCH) {
        int matched = pc_regex_match(pass->regex, req->path, groups);
        if (matched <= 0)
            return matched;
        bool takes_all = memchr(pass->to.base, '$', pass->to.len) == NULL; /* as httpd: without $1 the whole path is appended */
        if (!takes_all) {
            path = pc_regex_expand(req->arena, path, req->path, groups, false);
            rest = PC_S("");
        }
    } else {
        if (!fits_prefix(req->path, pass->from))
            return 0;
        rest = behind(req->path, pass->from.len);
    }
    *ret_url = is_excluded ? (struct pc_slice){0} : join(req, pass->to, fixed, path, rest);
    return 1;
}

int
pc_proxy_find(struct pc_req *req)
{
    const struct pc_host *host = req->host;
    req->pass = NULL;
    req->back_end = (struct pc_slice){0};
    for (uint32_t i = 0; i < host->pass_count; i++) {
        struct pc_slice url = {0};
        int fitting = try_pass(req, &host->passes[i], &url);
        if (fitting == 0)
            continue;
        if (fitting < 0 || url.base == NULL)
            return fitting < 0 ? fitting : 0;
        req->pass = &host->passes[i];
        req->back_end = url;
        req->filename = pc_arena_print(req->arena, "proxy:%.*s", (int)url.len, url.base); /* as httpd's logs name it */
        return 1;
    }
    return 0;
}

/* ------------------------------------------------------------------ by which protocol */

static enum pc_serve
refuse(struct pc_req *req, const char *why)
{
    pc_errlog_req(req, PC_ERROR, "proxy", "AH01144: %s: %.*s", why, (int)req->filename.len, req->filename.base);
    return pc_serve_fail(req, 503);
}

/* Of req->back_end: a protocol of gate.c, or PC_GATE_NONE. */
static enum pc_gate_kind
protocol_of(const struct pc_req *req)
{
    struct pc_target target;
    if (pc_target_parse(req->back_end, &target) != 0)
        return PC_GATE_NONE;
    if (target.kind == PC_TARGET_SERVICE) {
        const struct pc_service *service = target.service < req->config->service_count ? &req->config->services[target.service] : NULL;
        return service == NULL ? PC_GATE_NONE : service->kind == PC_SERVICE_HTTP ? PC_GATE_HTTP : PC_GATE_FCGI;
    }
    if (pc_slice_ieq(target.scheme, PC_S("http")) || pc_slice_ieq(target.scheme, PC_S("ws")))
        return PC_GATE_HTTP;
    return pc_slice_ieq(target.scheme, PC_S("fcgi")) ? PC_GATE_FCGI : PC_GATE_NONE;
}

enum pc_serve
pc_proxy_serve(struct pc_req *req)
{
    enum pc_gate_kind protocol = protocol_of(req);
    if (protocol == PC_GATE_NONE)
        return refuse(req, "No protocol handler was valid for the URL");
    req->gate = (uint8_t)protocol;
    return PC_SERVE_GATE;
}

bool
pc_proxy_is_http_handler(struct pc_slice handler)
{
    static const struct pc_slice prefix = {"proxy:", 6};
    struct pc_target target;
    struct pc_slice head = {handler.base, handler.len < prefix.len ? handler.len : prefix.len};
    return pc_slice_ieq(head, prefix) && pc_target_parse(behind(handler, prefix.len), &target) == 0
           && pc_slice_ieq(target.scheme, PC_S("http"));
}

enum pc_serve
pc_proxy_serve_handler(struct pc_req *req)
{
    struct pc_slice to = behind(req->handler, sizeof "proxy:" - 1);
    size_t fixed = fixed_len(to);
    req->back_end = join(req, to, fixed, behind(to, fixed), req->filename); /* as httpd: behind it comes the file's path */
    req->filename = pc_arena_print(req->arena, "proxy:%.*s", (int)req->back_end.len, req->back_end.base);
    req->gate = PC_GATE_HTTP;
    return PC_SERVE_GATE;
}
