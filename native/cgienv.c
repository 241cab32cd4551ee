/* cgienv.c - a request as the variables of RFC 3875, for CGI and FastCGI alike.
 * Runs as:  child, as the identity that owns the host.   Sees: request fields, the host's configuration.
 * Trusts:   the configuration, for what only it can say.   Distrusts: field names and values: none may become a variable that
 *           the server speaks by, and no two may become the same one.
 * Before:   serve.c, gate.c   After: fcgi.c, a job's environment block
 *
 * Variables are collected with the strongest word first, and a name is taken once: then nothing weaker can replace it. They are
 * given out from the back, so that the server's own come last for readers that believe the last. */
#include <arpa/inet.h>
#include <string.h>

#include "child.h"
#include "gateway.h"

#define PATH "/usr/local/bin:/usr/bin:/bin"
#define NO_ADMIN "[no address given]"

struct vars {
    const struct pc_req *req;
    const struct pc_cgienv_facts *facts;
    struct pc_pair *list;
    uint32_t count;
};

/* Unless the name is taken. A value without base takes the name and is not given out. */
static void
add(struct vars *vars, struct pc_slice name, struct pc_slice value)
{
    for (uint32_t i = 0; i < vars->count; i++)
        if (pc_slice_eq(vars->list[i].name, name))
            return;
    if (value.base != NULL && memchr(value.base, '\0', value.len) != NULL)
        value = (struct pc_slice){0};
    vars->list[vars->count++] = (struct pc_pair){.name = name, .value = value};
}

static struct pc_slice
or_else(struct pc_slice s, struct pc_slice other)
{
    return s.base != NULL ? s : other;
}

static struct pc_slice
join(struct pc_arena *arena, struct pc_slice a, struct pc_slice between, struct pc_slice b)
{
    char *out = pc_arena_alloc(arena, a.len + between.len + b.len + 1);

    memcpy(out, a.base, a.len); /* UNSAFE: the lengths that were added up */
    memcpy(out + a.len, between.base, between.len);
    memcpy(out + a.len + between.len, b.base, b.len);
    return (struct pc_slice){out, a.len + between.len + b.len};
}

/* ------------------------------------------------------------------ the server's own */

struct pc_slice
pc_cgienv_address(struct pc_arena *arena, const struct sockaddr_storage *address)
{
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
    char text[INET6_ADDRSTRLEN];
    const char *found = NULL;

    if (address->ss_family == AF_INET)
        found = inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)address)->sin_addr, text, sizeof text);
    else if (address->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(v6))
        found = inet_ntop(AF_INET, v6->s6_addr + 12, text, sizeof text);
    else if (address->ss_family == AF_INET6)
        found = inet_ntop(AF_INET6, v6, text, sizeof text);
    return found != NULL ? pc_arena_copy(arena, (struct pc_slice){found, strlen(found)}) : PC_S("");
}

/* sin_port and sin6_port are in the same place. */
static uint32_t
port_of(const struct sockaddr_storage *address)
{
    bool is_inet = address->ss_family == AF_INET || address->ss_family == AF_INET6;

    return is_inet ? ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port) : 0;
}

static struct pc_slice
number(struct vars *vars, uint64_t value)
{
    char text[20];

    return pc_arena_copy(vars->req->arena, (struct pc_slice){text, pc_number(text, value)});
}

static struct pc_slice
server_name(const struct pc_req *req)
{
    if (req->name.len > 0)
        return (struct pc_slice){req->name.name, req->name.len};
    return pc_host_name(req->host);
}

/* As pc_map_self has it. */
static uint32_t
server_port(const struct pc_req *req)
{
    uint32_t port = req->port_out != 0 ? req->port_out : req->name.port;

    if (port != 0)
        return port;
    return req->is_tls ? 443 : 80;
}

static struct pc_slice
method(const struct vars *vars)
{
    const struct pc_req *req = vars->req;

    if (vars->facts->method.base != NULL)
        return vars->facts->method;
    if (req->error_status != 0 && req->head->method_id != PC_HEAD)
        return PC_S("GET");
    return pc_slice_at(req->raw, req->head->method);
}

/* The path without the path_info behind it. */
static struct pc_slice
script_name(const struct vars *vars)
{
    struct pc_slice path = vars->req->path, info = vars->facts->path_info;

    if (vars->facts->script_name.base != NULL)
        return vars->facts->script_name;
    if (info.len > 0 && path.len >= info.len && memcmp(path.base + path.len - info.len, info.base, info.len) == 0)
        path.len -= info.len;
    return path;
}

static struct pc_slice
path_translated(const struct vars *vars)
{
    struct pc_slice root = vars->req->host->document_root;

    if (vars->facts->path_info.len == 0 || vars->facts->path_translated.base != NULL || root.len == 0)
        return vars->facts->path_info.len > 0 ? vars->facts->path_translated : (struct pc_slice){0};
    while (root.len > 0 && root.base[root.len - 1] == '/')
        root.len--;
    return join(vars->req->arena, root, PC_S(""), vars->facts->path_info);
}

static struct pc_slice
content_length(struct vars *vars)
{
    uint64_t len = vars->facts->body_len;

    if (len == UINT64_MAX || (len == 0 && !vars->req->head->has_length))
        return (struct pc_slice){0};
    return number(vars, len);
}

static void
add_server(struct vars *vars)
{
    const struct pc_req *req = vars->req;
    const struct pc_host *host = req->host;
    struct pc_slice root = or_else(host->document_root, PC_S(""));

    add(vars, PC_S("SERVER_SOFTWARE"), or_else(req->config->server, PC_S("")));
    add(vars, PC_S("SERVER_NAME"), server_name(req));
    add(vars, PC_S("SERVER_PORT"), number(vars, server_port(req)));
    add(vars, PC_S("SERVER_ADDR"), pc_cgienv_address(req->arena, &req->server));
    add(vars, PC_S("SERVER_ADMIN"), host->admin.len > 0 ? host->admin : PC_S(NO_ADMIN));
    add(vars, PC_S("SERVER_SIGNATURE"), or_else(vars->facts->signature, PC_S("")));
    add(vars, PC_S("DOCUMENT_ROOT"), root);
    add(vars, PC_S("CONTEXT_PREFIX"), or_else(vars->facts->context_prefix, PC_S("")));
    add(vars, PC_S("CONTEXT_DOCUMENT_ROOT"), or_else(vars->facts->context_root, root));
    add(vars, PC_S("REMOTE_ADDR"), pc_cgienv_address(req->arena, &req->client));
    add(vars, PC_S("REMOTE_PORT"), number(vars, port_of(&req->client)));
    add(vars, PC_S("REMOTE_HOST"), req->client_name.len > 0 ? req->client_name : (struct pc_slice){0});
    if (req->is_tls)
        add(vars, PC_S("HTTPS"), PC_S("on"));
}

/* SSLOptions: of each layer what it adds and takes away, the most specific last. */
static uint32_t
tls_options(const struct pc_req *req)
{
    uint32_t options = 0;

    for (uint32_t i = 0; i < req->layer_count; i++) {
        const struct pc_settings *layer = req->layers[i];

        if (!layer->has_ssl_options)
            continue;
        options = layer->ssl_options_absolute ? 0 : options;
        options = (options | layer->ssl_options_add) & ~layer->ssl_options_remove;
    }
    return options;
}

/* mod_ssl's variables. */
static uint32_t
tls_facts(const struct pc_req *req, struct pc_pair **ret_facts)
{
    bool has_facts = req->is_tls && req->conn != NULL && req->conn->transport->facts != NULL;

    return has_facts ? req->conn->transport->facts(req->conn, tls_options(req), req->arena, ret_facts) : 0;
}

static void
add_request(struct vars *vars)
{
    const struct pc_req *req = vars->req;
    const struct pc_cgienv_facts *facts = vars->facts;

    add(vars, PC_S("GATEWAY_INTERFACE"), or_else(facts->gateway, PC_S("CGI/1.1")));
    add(vars, PC_S("SERVER_PROTOCOL"), req->is_h2 ? PC_S("HTTP/2.0") : req->head->minor > 0 ? PC_S("HTTP/1.1") : PC_S("HTTP/1.0"));
    add(vars, PC_S("REQUEST_SCHEME"), req->is_tls ? PC_S("https") : PC_S("http"));
    add(vars, PC_S("REQUEST_METHOD"), method(vars));
    add(vars, PC_S("REQUEST_URI"), pc_slice_at(req->raw, req->head->path));
    add(vars, PC_S("QUERY_STRING"), or_else(req->query, PC_S("")));
    add(vars, PC_S("SCRIPT_NAME"), script_name(vars));
    add(vars, PC_S("SCRIPT_FILENAME"), or_else(facts->script_filename, req->filename));
    add(vars, PC_S("PATH_INFO"), facts->path_info.len > 0 ? facts->path_info : (struct pc_slice){0});
    add(vars, PC_S("PATH_TRANSLATED"), path_translated(vars));
    add(vars, PC_S("CONTENT_TYPE"), pc_fields_in(req, PC_S("Content-Type")));
    add(vars, PC_S("CONTENT_LENGTH"), content_length(vars));
}

/* ------------------------------------------------------------------ fields */

enum field_rule { EXPORTED, IF_AUTH, NEVER };

static enum field_rule
rule_of(struct pc_slice name)
{
    static const struct {
        struct pc_slice name;
        enum field_rule rule;
    } rules[] = {
        {{"Authorization", 13}, IF_AUTH},     {{"Proxy-Authorization", 19}, IF_AUTH}, {{"Proxy", 5}, NEVER},
        {{"Content-Length", 14}, NEVER}, {{"Content-Type", 12}, NEVER}, /* have variables of their own */
    };

    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
        if (pc_slice_ieq(rules[i].name, name))
            return rules[i].rule;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.base[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

        if (!is_letter && !(c >= '0' && c <= '9') && c != '-')
            return NEVER; /* '_' above all: X_A and X-A would be one variable */
    }
    return EXPORTED;
}

static struct pc_slice
variable_of(struct pc_arena *arena, struct pc_slice field)
{
    char *out = pc_arena_alloc(arena, field.len + 5);

    memcpy(out, "HTTP_", 5);
    for (size_t i = 0; i < field.len; i++) {
        char c = field.base[i];

        if (c >= 'a' && c <= 'z')
            c = (char)(c - 'a' + 'A');
        out[5 + i] = c == '-' ? '_' : c;
    }
    return (struct pc_slice){out, field.len + 5};
}

/* The values of all fields called as the first one, which may be the only one; the others lose their names. */
static struct pc_slice
join_fields(struct pc_arena *arena, struct pc_pair *fields, uint32_t count)
{
    struct pc_slice between = pc_slice_ieq(fields[0].name, PC_S("Cookie")) ? PC_S("; ") : PC_S(", ");
    size_t len = 0, used = fields[0].value.len;
    char *out;

    for (uint32_t i = 0; i < count; i++)
        if (pc_slice_ieq(fields[i].name, fields[0].name))
            len += between.len + fields[i].value.len;
    if (len == between.len + fields[0].value.len)
        return fields[0].value;
    out = pc_arena_alloc(arena, len);
    memcpy(out, fields[0].value.base, used);
    for (uint32_t i = 1; i < count; i++) {
        if (!pc_slice_ieq(fields[i].name, fields[0].name))
            continue;
        memcpy(out + used, between.base, between.len); /* UNSAFE: counted above */
        memcpy(out + used + between.len, fields[i].value.base, fields[i].value.len);
        used += between.len + fields[i].value.len;
        fields[i].name.len = 0;
    }
    return (struct pc_slice){out, used};
}

static void
add_fields(struct vars *vars, struct pc_pair *fields, uint32_t count)
{
    bool has_auth = vars->facts->pass_auth || vars->facts->kind == PC_CGIENV_FCGI;

    add(vars, PC_S("HTTP_PROXY"), (struct pc_slice){0}); /* programs take it for their own proxy (httpoxy) */
    for (uint32_t i = 0; i < count; i++) {
        enum field_rule rule = rule_of(fields[i].name);

        if (fields[i].name.len == 0 || rule == NEVER || (rule == IF_AUTH && !has_auth))
            continue;
        struct pc_slice value = join_fields(vars->req->arena, fields + i, count - i);
        add(vars, variable_of(vars->req->arena, fields[i].name), value);
    }
}

/* ------------------------------------------------------------------ SetEnv */

static bool
is_plain(char c, bool is_first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (!is_first && c >= '0' && c <= '9');
}

/* What is no variable's name for a shell becomes '_'. */
static struct pc_slice
clean_name(struct pc_arena *arena, struct pc_slice name)
{
    char *out = NULL;

    for (size_t i = 0; i < name.len; i++) {
        if (is_plain(name.base[i], i == 0))
            continue;
        if (out == NULL) {
            out = pc_arena_alloc(arena, name.len);
            memcpy(out, name.base, name.len);
        }
        out[i] = '_';
    }
    return out != NULL ? (struct pc_slice){out, name.len} : name;
}

static void
add_env(struct vars *vars)
{
    const struct pc_req *req = vars->req;

    for (uint32_t i = 0; i < req->env_count; i++)
        if (req->env[i].name.len > 0)
            add(vars, clean_name(req->arena, req->env[i].name), req->env[i].value);
    if (vars->facts->kind == PC_CGIENV_CGI)
        add(vars, PC_S("PATH"), PC_S(PATH));
}

/* ------------------------------------------------------------------ all of it */

#define SERVER_MADE 40 /* more than add_server, add_request, HTTP_PROXY and PATH can be */

int
pc_cgienv_each(const struct pc_req *req, const struct pc_cgienv_facts *facts, pc_cgienv_sink sink, void *to)
{
    struct vars vars = {.req = req, .facts = facts};
    struct pc_pair *fields;
    struct pc_pair *tls = NULL;
    uint32_t count = pc_fields_in_all(req, &fields), tls_count = tls_facts(req, &tls);
    size_t most = (size_t)SERVER_MADE + facts->more_count + count + req->env_count + tls_count;

    vars.list = pc_arena_alloc(req->arena, most * sizeof *vars.list);
    for (uint32_t i = 0; i < facts->more_count; i++)
        add(&vars, facts->more[i].name, facts->more[i].value);
    add_request(&vars);
    add_server(&vars);
    for (uint32_t i = 0; i < tls_count; i++)
        add(&vars, tls[i].name, tls[i].value);
    add_fields(&vars, fields, count);
    add_env(&vars);
    for (uint32_t i = vars.count; i-- > 0;) {
        const struct pc_pair *var = &vars.list[i];
        int status = var->value.base != NULL ? sink(to, var->name, var->value) : 0;

        if (status < 0)
            return status;
    }
    return 0;
}

int
pc_cgienv_block_sink(void *to, struct pc_slice name, struct pc_slice value)
{
    struct pc_cgienv_block *block = to;
    size_t room = block->cap - block->len;
    char *at = block->out + block->len;

    if (name.len > room || value.len > room - name.len || room - name.len - value.len < 2)
        return -PC_E_HEAD_LARGE;
    memcpy(at, name.base, name.len); /* UNSAFE: room for both and two bytes more */
    at[name.len] = '=';
    memcpy(at + name.len + 1, value.base, value.len);
    at[name.len + 1 + value.len] = '\0';
    block->len += name.len + value.len + 2;
    block->count++;
    return 0;
}
