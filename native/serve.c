/* serve.c - from a request to its response: the order of the steps, errors, redirections, who makes the content.
 * Runs as:  child, as the identity that owns the host.   Sees: one request.
 * Trusts:   the host's configuration.   Distrusts: the request; none of its text is put on a page of ours.
 * Before:   request.c   After: respond.c
 *
 * Steps: Redirect, place (map.c); then, by pc_serve_check: sections, access, body limit, environment, Redirect of sections,
 * policy, handler; then the file. An index file or an ErrorDocument changes req->path and begins again, at most
 * PC_MAX_INTERNAL_REDIRECTS times. Whatever the result, Header comes last and once. */
#include <string.h>
#include <unistd.h>

#include "child.h"
#include "serve.h"

#define DEFAULT_LIMIT_BODY (1ull << 30) /* LimitRequestBody since httpd 2.4.53 */

/* ------------------------------------------------------------------ the method */

uint8_t
pc_serve_method(const struct pc_req *req)
{
    if (req->error_status == 0 && !req->is_without_body)
        return req->head->method_id;
    return req->head->method_id == PC_HEAD ? PC_HEAD : PC_GET;
}

/* ------------------------------------------------------------------ pages of our own */

struct text_row {
    uint32_t status;
    const char *text;
};

static const struct text_row texts[] = {
    {400, "Your browser sent a request that this server could not understand."},
    {401, "This server could not verify that you are authorized to access the document requested."},
    {403, "You don't have permission to access this resource."},
    {404, "The requested URL was not found on this server."},
    {405, "The requested method is not allowed for this URL."},
    {408, "Server timeout waiting for the HTTP request from the client."},
    {410, "The requested resource is no longer available on this server and there is no forwarding address. "
          "Please remove all references to this resource."},
    {411, "The requested resource needs a request body of a known length: a Content-Length field."},
    {412, "The precondition on the request for this URL evaluated to false."},
    {413, "The requested resource does not allow request data of this size."},
    {414, "The requested URL's length exceeds the capacity limit for this server."},
    {416, "None of the range-specifier values in the Range request-header field overlap the current extent of the "
          "selected resource."},
    {417, "The expectation given in the Expect request-header field could not be met by this server."},
    {421, "The client needs a new connection for this request as the requested host name is not served on this one."},
    {431, "Size of a request header field exceeds server limit."},
    {500, "The server encountered an internal error or misconfiguration and was unable to complete your request."},
    {501, "The requested method is not supported by this server."},
    {502, "The proxy server received an invalid response from an upstream server."},
    {503, "The server is temporarily unable to service your request due to maintenance downtime or capacity problems. "
          "Please try again later."},
    {504, "The gateway did not receive a timely response from the upstream server or application."},
    {505, "The HTTP version of the request is not supported."},
};

static const char *
text_of(uint32_t status)
{
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (texts[i].status == status)
            return texts[i].text;
    return "The request could not be completed.";
}

static struct pc_slice
escaped(struct pc_req *req, struct pc_slice s)
{
    char *out = pc_arena_alloc(req->arena, 6 * s.len + 1);
    size_t len = s.len > 0 ? pc_escape_html(s, out) : 0;
    return (struct pc_slice){out, len};
}

struct pc_slice
pc_serve_signature(struct pc_req *req)
{
    int32_t signature = -1;
    for (uint32_t i = req->layer_count; i-- > 0 && signature < 0;)
        signature = req->layers[i]->signature;
    if (signature <= 0)
        return PC_S("");
    struct pc_slice server = escaped(req, req->config->server), name = escaped(req, pc_host_name(req->host));
    struct pc_slice admin = escaped(req, req->host->admin);
    bool has_mail = signature == 2 && admin.len > 0;
    return pc_arena_print(req->arena, "<hr>\n<address>%.*s Server at %s%.*s%s%.*s%s Port %u</address>\n", (int)server.len,
                          server.base, has_mail ? "<a href=\"mailto:" : "", has_mail ? (int)admin.len : 0, admin.base,
                          has_mail ? "\">" : "", (int)name.len, name.base, has_mail ? "</a>" : "", (unsigned)req->port_out);
}

void
pc_serve_reset(struct pc_req *req)
{
    struct pc_resp *resp = &req->resp;
    resp->status = 0;
    resp->reason = (struct pc_slice){0};
    resp->field_count = 0;
    resp->body = PC_BODY_NONE;
    resp->has_length = true;
    resp->close = false;
    resp->is_tunnel = false;
    resp->date = resp->server = (struct pc_slice){0};
    resp->trailer_count = 0;
    resp->length = 0;
    resp->memory = (struct pc_slice){0};
    resp->fd = -1;
    resp->offset = 0;
    resp->parts = NULL;
    resp->part_count = 0;
    resp->producer = NULL;
    resp->producer_state = NULL;
    resp->content_type = (struct pc_slice){0};
}

static void
answer_text(struct pc_req *req, uint32_t status, struct pc_slice type, struct pc_slice text)
{
    struct pc_resp *resp = &req->resp;
    resp->status = status;
    resp->body = PC_BODY_MEMORY;
    resp->has_length = true;
    resp->memory = text;
    resp->length = text.len;
    resp->content_type = type;
    pc_resp_set(req, PC_S("Content-Type"), type);
}

static void
answer_page(struct pc_req *req, uint32_t status, struct pc_slice body)
{
    const char *phrase = pc_status_phrase(status);
    struct pc_slice signature = pc_serve_signature(req);
    struct pc_slice page = pc_arena_print(
        req->arena,
        "<!DOCTYPE html>\n<html lang=\"en\"><head>\n<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>%u %s</title>\n</head><body>\n"
        "<h1>%s</h1>\n<p>%.*s</p>\n%.*s</body></html>\n",
        (unsigned)status, phrase, phrase, (int)body.len, body.base, (int)signature.len, signature.base);
    answer_text(req, status, PC_S("text/html; charset=utf-8"), page);
}

/* Our own page. `second` is an error met while the ErrorDocument was made, 0 = none. */
static enum pc_serve
answer_error(struct pc_req *req, uint32_t status, uint32_t second)
{
    struct pc_slice body = {text_of(status), strlen(text_of(status))};
    if (status == 400 && req->is_mistaken)
        body = PC_S("Your browser sent a request that this server could not understand.<br />\n"
                    "Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />\n"
                    " Instead use the HTTPS scheme to access this URL, please.<br />\n");
    if (second != 0)
        body = pc_arena_print(req->arena,
                              "%s</p>\n<p>Additionally, a %u %s error was encountered while trying to use an ErrorDocument "
                              "to handle the request.", text_of(status), (unsigned)second, pc_status_phrase(second));
    answer_page(req, status, body);
    if (status == 405)
        pc_resp_set(req, PC_S("Allow"), PC_S(PC_FILE_METHODS));
    return PC_SERVED;
}

enum pc_serve
pc_serve_redirect(struct pc_req *req, uint32_t status, struct pc_slice url)
{
    struct pc_slice href = escaped(req, url);
    pc_serve_reset(req);
    pc_resp_add(req, PC_S("Location"), url);
    answer_page(req, status,
                pc_arena_print(req->arena, "The document has moved <a href=\"%.*s\">here</a>.", (int)href.len, href.base));
    return PC_SERVED;
}

/* ------------------------------------------------------------------ errors */

static const struct pc_errordoc *
find_errordoc(const struct pc_req *req, uint32_t status)
{
    for (uint32_t i = req->layer_count; i-- > 0;)
        for (uint32_t j = req->layers[i]->errordoc_count; j-- > 0;)
            if (req->layers[i]->errordocs[j].status == status)
                return &req->layers[i]->errordocs[j];
    return NULL;
}

/* What the request had set is REDIRECT_x from now on, as httpd calls it. */
static void
rename_env(struct pc_req *req)
{
    for (uint32_t i = 0; i < req->env_count; i++)
        req->env[i].name = pc_arena_print(req->arena, "REDIRECT_%.*s", (int)req->env[i].name.len, req->env[i].name.base);
}

/* Another path, and what REDIRECT_* say of the one before. 0 or -PC_E_*. */
static int
change_path(struct pc_req *req, struct pc_slice target, struct pc_slice status)
{
    struct pc_slice raw_path, query;
    pc_uri_split(target, &raw_path, &query);
    char *path = pc_arena_alloc(req->arena, raw_path.len + 2);
    int len = pc_uri_decode_path(raw_path, path, raw_path.len + 1);
    if (len < 0)
        return len;
    path[len] = '\0';
    rename_env(req);
    pc_env_set(req, PC_S("REDIRECT_STATUS"), status);
    pc_env_set(req, PC_S("REDIRECT_URL"), req->path);
    pc_env_set(req, PC_S("REDIRECT_REQUEST_METHOD"), pc_slice_at(req->raw, req->head->method));
    if (req->query.base != NULL)
        pc_env_set(req, PC_S("REDIRECT_QUERY_STRING"), req->query);
    req->path = (struct pc_slice){path, (size_t)len};
    req->query = query;
    return 0;
}

/* The request becomes one for the document; its status stays. */
static enum pc_serve
go_to_document(struct pc_req *req, uint32_t status, struct pc_slice target)
{
    if (change_path(req, target, pc_arena_print(req->arena, "%u", (unsigned)status)) != 0)
        return answer_error(req, status, 400);
    req->error_status = status;
    return PC_SERVE_AGAIN;
}

int
pc_serve_go_to(struct pc_req *req, struct pc_slice target)
{
    if (++req->redirect_depth > PC_MAX_INTERNAL_REDIRECTS) {
        pc_errlog_req(req, PC_ERROR, "core", "AH00124: Request exceeded the limit of %d internal redirects",
                      PC_MAX_INTERNAL_REDIRECTS);
        return -PC_E_BAD;
    }
    const char *hash = target.len > 0 ? memchr(target.base, '#', target.len) : NULL;
    if (hash != NULL)
        target.len = (size_t)(hash - target.base);
    int changed = change_path(req, pc_arena_copy(req->arena, target), PC_S("200"));
    if (changed != 0)
        return changed;
    req->is_without_body = true;
    req->has_answer = false;
    req->ask = PC_ASK_NOTHING;
    req->kept_env_count = req->env_count;
    req->kept_env = pc_arena_alloc(req->arena, req->env_count * sizeof *req->kept_env);
    memcpy(req->kept_env, req->env, req->env_count * sizeof *req->kept_env);
    return 0;
}

enum pc_serve
pc_serve_go_along(struct pc_req *req, struct pc_slice target)
{
    return change_path(req, target, PC_S("200")) == 0 ? PC_SERVE_AGAIN : pc_serve_fail(req, 500);
}

enum pc_serve
pc_serve_fail(struct pc_req *req, uint32_t status)
{
    pc_serve_reset(req);
    if (req->layer_count == 0) {
        req->layers[0] = &req->host->base;
        req->layer_count = 1;
    }
    if (req->error_status != 0)
        return answer_error(req, req->error_status, status);
    const struct pc_errordoc *doc = find_errordoc(req, status);
    enum { TEXT, LOCAL, URL };
    if (doc == NULL || doc->kind > URL || (doc->kind == URL && status == 401))
        return answer_error(req, status, 0);
    if (doc->kind == LOCAL)
        return go_to_document(req, status, doc->value);
    if (doc->kind == URL)
        return pc_serve_redirect(req, 302, doc->value);
    answer_text(req, status, PC_S("text/html; charset=utf-8"), doc->value);
    return PC_SERVED;
}

/* ------------------------------------------------------------------ steps */

static enum pc_serve
ask(struct pc_req *req, enum pc_ask question)
{
    req->ask = (uint8_t)question;
    req->has_answer = false;
    return PC_SERVE_ASK;
}

static enum pc_serve
apply_redirects(struct pc_req *req, const struct pc_settings *settings)
{
    struct pc_slice url = {0};
    uint32_t status = settings->redirect_count > 0 ? pc_map_redirect(req, settings, &url) : 0;
    if (status == 0)
        return PC_SERVE_ON;
    return status < 400 ? pc_serve_redirect(req, status, url) : pc_serve_fail(req, status);
}

uint64_t
pc_serve_body_limit(const struct pc_req *req)
{
    for (uint32_t i = req->layer_count; i-- > 0;)
        if (req->layers[i]->has_limit_body)
            return req->layers[i]->limit_body;
    return DEFAULT_LIMIT_BODY;
}

bool
pc_serve_passes_auth(const struct pc_req *req)
{
    int32_t passes = -1;
    for (uint32_t i = req->layer_count; i-- > 0 && passes < 0;)
        passes = req->layers[i]->cgi_pass_auth;
    return passes == 1;
}

static bool
is_body_too_large(const struct pc_req *req)
{
    uint64_t limit = pc_serve_body_limit(req);
    return limit > 0 && req->head->has_length && req->head->content_length > limit;
}

/* What Python made. An error status without a body gets the host's error page. */
static enum pc_serve
answer_of_python(struct pc_req *req)
{
    if (req->answer.len == 0 && req->answer_status >= 400)
        return pc_serve_fail(req, req->answer_status);
    req->resp.status = req->error_status != 0 ? req->error_status : req->answer_status;
    req->resp.body = PC_BODY_MEMORY;
    req->resp.memory = req->answer;
    req->resp.length = req->answer.len;
    req->resp.has_length = true;
    req->resp.content_type = req->answer_type;
    if (req->answer_type.len > 0)
        pc_resp_set(req, PC_S("Content-Type"), req->answer_type);
    return PC_SERVED;
}

/* What needs no file to know. A program in a file is looked at when the file is there (program.c). */
static enum pc_serve
choose_maker(struct pc_req *req)
{
    struct pc_slice name = PC_LAYERS_SLICE(req, handler);
    enum pc_maker maker = PC_MAKER_FILE;
    req->handler = name;
    if (name.len == 0)
        return PC_SERVE_ON;
    const struct pc_action *action = pc_program_action(req, name);
    if (action != NULL)
        return action->is_virtual ? pc_program_serve(req, PC_MAKER_ACTION) : PC_SERVE_ON;
    if (pc_proxy_is_http_handler(name)) /* it needs no file */
        return pc_proxy_serve_handler(req);
    if (!pc_program_find(name, &maker)) {
        pc_errlog_req(req, PC_WARN, "core", "AH00523: handler \"%.*s\" not found for: %.*s", (int)name.len, name.base,
                      (int)req->filename.len, req->filename.base);
        return PC_SERVE_ON;
    }
    if (maker == PC_MAKER_PYTHON)
        return req->has_answer && req->ask == PC_ASK_HANDLER ? answer_of_python(req) : ask(req, PC_ASK_HANDLER);
    return maker == PC_MAKER_PROGRAM ? pc_program_serve(req, maker) : PC_SERVE_ON;
}

static bool
wants_policy(const struct pc_req *req)
{
    int32_t wanted = -1;
    for (uint32_t i = req->layer_count; i-- > 0 && wanted < 0;)
        wanted = req->layers[i]->ask;
    return wanted == 1 && !req->is_decided;
}

/* SSLRequireSSL, which nothing below takes back. */
static bool
needs_tls(const struct pc_req *req)
{
    for (uint32_t i = 0; i < req->layer_count; i++)
        if (req->layers[i]->ssl_require > 0)
            return true;
    return false;
}

/* SSLVerifyClient of the innermost section that says it. There is no second handshake: what the first one came to counts. */
static bool
lacks_certificate(const struct pc_req *req)
{
    int32_t wanted = -1;
    for (uint32_t i = req->layer_count; i-- > 0 && wanted < 0;)
        wanted = req->layers[i]->ssl_verify;
    if (wanted <= PC_VERIFY_NONE)
        return false;
    bool has_facts = req->is_tls && req->conn != NULL && req->conn->transport->fact != NULL;
    struct pc_slice said = has_facts ? req->conn->transport->fact(req->conn, PC_S("SSL_CLIENT_VERIFY"), req->arena) : PC_S("NONE");
    return !pc_slice_eq(said, PC_S("SUCCESS")) && (wanted == PC_VERIFY_REQUIRE || !pc_slice_eq(said, PC_S("NONE")));
}

/* What sections ask of the connection. */
static const char *
why_not_by(const struct pc_req *req)
{
    if (!req->is_tls && needs_tls(req))
        return "AH02219: access to %.*s failed, reason: SSL connection required";
    if (lacks_certificate(req))
        return "AH02263: access to %.*s failed, reason: SSLVerifyClient wants a certificate, and none was shown that is believed";
    return NULL;
}

enum pc_serve
pc_serve_check(struct pc_req *req)
{
    pc_map_layers(req);
    if (req->layer_count == 0) {
        pc_errlog_req(req, PC_ERROR, "core", "more than %d sections apply, or a pattern reached its match limit: %.*s",
                      PC_MAX_LAYERS, (int)req->filename.len, req->filename.base);
        return pc_serve_fail(req, 500);
    }
    const char *why_not = why_not_by(req);
    if (why_not != NULL) {
        pc_errlog_req(req, PC_ERROR, "ssl", why_not, (int)req->filename.len, req->filename.len > 0 ? req->filename.base : "");
        return pc_serve_fail(req, 403);
    }
    int access = pc_access_check(req);
    if (access != 0)
        return access < 0 ? pc_serve_fail(req, 403) : ask(req, PC_ASK_HOSTNAME);
    if (is_body_too_large(req))
        return pc_serve_fail(req, 413);
    pc_env_apply(req);
    pc_fields_apply_request(req);
    for (uint32_t i = req->layer_count; i-- > 1;) { /* [0] was asked before the path was mapped */
        enum pc_serve served = apply_redirects(req, req->layers[i]);
        if (served != PC_SERVE_ON)
            return served;
    }
    if (req->has_answer && req->ask == PC_ASK_POLICY) {
        req->is_decided = true;
        if (req->answer_status >= 400 && req->error_status == 0)
            return pc_serve_fail(req, req->answer_status);
    }
    if (wants_policy(req))
        return ask(req, PC_ASK_POLICY);
    return req->pass != NULL ? PC_SERVE_ON : choose_maker(req);
}

enum pc_serve
pc_serve_refuse_method(struct pc_req *req)
{
    struct pc_slice line = pc_slice_at(req->raw, req->head->line);
    pc_errlog_req(req, PC_ERROR, "core", "AH00135: Invalid method in request %.*s", (int)line.len, line.base);
    return pc_serve_fail(req, 501);
}

/* What is answered whatever the path says. */
static enum pc_serve
check_method(struct pc_req *req)
{
    uint8_t method = pc_serve_method(req);
    if (method == PC_METHOD_OTHER && !req->host->has_programs) /* a program may know it */
        return pc_serve_refuse_method(req);
    if (method == PC_TRACE || method == PC_CONNECT)
        return pc_serve_fail(req, 405);
    if (req->path.len > 0 && req->path.base[0] == '/')
        return PC_SERVE_ON;
    if (method != PC_OPTIONS || !pc_slice_eq(req->path, PC_S("*")))
        return pc_serve_fail(req, 400);
    req->resp.status = 200;
    pc_resp_add(req, PC_S("Allow"), PC_S(PC_FILE_METHODS));
    return PC_SERVED;
}

/* For a back end: what stands outside sections and in Location counts, for there is no file. */
static enum pc_serve
serve_passed(struct pc_req *req, int passed)
{
    if (passed < 0) {
        pc_errlog_req(req, PC_ERROR, "proxy", "a ProxyPassMatch reached its match limit: %.*s", (int)req->path.len, req->path.base);
        return pc_serve_fail(req, 500);
    }
    req->by_script_alias = false;
    enum pc_serve served = pc_serve_check(req);
    return served == PC_SERVE_ON ? pc_proxy_serve(req) : served;
}

static enum pc_serve
serve_once(struct pc_req *req)
{
    struct pc_place place;
    pc_serve_reset(req);
    req->layers[0] = &req->host->base;
    req->layer_count = 1;
    req->path_info = (struct pc_slice){0};
    req->pass = NULL;
    enum pc_serve served = check_method(req);
    if (served == PC_SERVE_ON && req->redirect_depth == 0 && pc_acme_is_challenge(req->path))
        served = pc_acme_serve(req);
    int passed = served == PC_SERVE_ON ? pc_proxy_find(req) : 0; /* as in httpd: before Redirect and Alias */
    if (passed != 0)
        return serve_passed(req, passed);
    if (served == PC_SERVE_ON)
        served = apply_redirects(req, &req->host->base);
    if (served != PC_SERVE_ON)
        return served;
    int placed = pc_map_place(req, &place);
    if (placed == -PC_E_FORBIDDEN) {
        pc_errlog_req(req, PC_ERROR, "core", "AH00026: found .. in the path that an AliasMatch made");
        return pc_serve_fail(req, 403);
    }
    served = pc_serve_check(req); /* also without a place: a Location may have a handler */
    if (served != PC_SERVE_ON)
        return served;
    return placed == 0 ? pc_file_serve_at(req, &place) : pc_serve_fail(req, 404);
}

static enum pc_serve
serve_again(struct pc_req *req, enum pc_serve served)
{
    while (served == PC_SERVE_AGAIN) {
        if (++req->redirect_depth > PC_MAX_INTERNAL_REDIRECTS) {
            pc_errlog_req(req, PC_ERROR, "core", "AH00124: Request exceeded the limit of %d internal redirects",
                          PC_MAX_INTERNAL_REDIRECTS);
            pc_serve_reset(req);
            return answer_error(req, req->error_status != 0 ? req->error_status : 500, 0);
        }
        served = serve_once(req);
    }
    return served;
}

void
pc_serve_finish(struct pc_req *req)
{
    if (req->resp.status == 503 && pc_resp_get(req, PC_S("Retry-After")).base == NULL)
        pc_resp_add(req, PC_S("Retry-After"), PC_S("1"));
    pc_fields_apply(req);
}

static void
begin_env(struct pc_req *req)
{
    req->env_count = 0;
    for (uint32_t i = 0; i < req->kept_env_count; i++)
        pc_env_set(req, req->kept_env[i].name, req->kept_env[i].value);
}

enum pc_serve
pc_serve(struct pc_req *req)
{
    const struct pc_slice path = req->path, query = req->query;
    const uint32_t depth = req->redirect_depth, error_status = req->error_status;
    if (!(req->has_answer && req->ask == PC_ASK_HANDLER)) /* that request goes on where it was */
        begin_env(req);
    enum pc_serve served = serve_again(req, serve_once(req));
    if (served == PC_SERVED) {
        pc_serve_finish(req);
    } else if (served == PC_SERVE_GATE) {
        return served; /* from here on it is what it has become */
    } else if (served == PC_SERVE_BLOCKS || req->ask != PC_ASK_HANDLER) {
        /* It will be served again from the start; when a handler has answered, as it is now. */
        req->path = path;
        req->query = query;
        req->redirect_depth = depth;
        req->error_status = error_status;
    }
    return served;
}

void
pc_serve_error(struct pc_req *req, uint32_t status)
{
    bool holds_file = req->resp.body == PC_BODY_FILE || req->resp.body == PC_BODY_PARTS;
    if (holds_file && req->resp.fd >= 0)
        (void)close(req->resp.fd); /* only read from: it was to be sent when something went wrong */
    enum pc_serve served = serve_again(req, pc_serve_fail(req, status));
    if (served != PC_SERVED) { /* the document would need Python or time: not for an error */
        pc_serve_reset(req);
        (void)answer_error(req, req->error_status != 0 ? req->error_status : status, 0); /* always PC_SERVED */
    }
    pc_serve_finish(req);
}
