/* record.c - turn an identity's record (TLV bytes of `compile`) into struct pc_config.
 * Runs as:  child, as the identity that the record is for, after the drop.   Sees: that identity's configuration only.
 * Trusts:   that the file does not shrink (root's, in the run directory).   Distrusts: every byte of it.
 * Before:   child start and reload   After: everything that reads struct pc_config
 *
 * A container is described by rows: tag -> member. What a row says is all there is to know of a tag; a tag without a row,
 * one that repeats without `many`, a missing required one or a payload of another shape refuses the whole record (tlv.c).
 * Tests: native/test_record.c, fuzz/fuzz_record.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "serve.h"
#include "settings.h"
#include "tlv.h"

/* ------------------------------------------------------------------ sections */

static int
finish_section(struct pc_tlv_loader *loader, struct pc_section *section)
{
    bool is_match = section->kind == PC_SECTION_DIRECTORY_MATCH || section->kind == PC_SECTION_FILES_MATCH
                    || section->kind == PC_SECTION_LOCATION_MATCH;
    section->has_wild = !is_match && pc_wild_has(section->pattern);
    if (is_match && pc_regex_compile(section->pattern, false, &section->regex) != 0)
        return pc_tlv_refuse(loader, "record: a pattern of a section does not compile");
    return 0;
}

#define SECTION_ROWS                                                                                   \
    {PC_T_SECTION_KIND, .required = true, PC_TLV_AT(pc_section, kind), .high = 5, .load = pc_tlv_u32},          \
    {PC_T_SECTION_PATTERN, .required = true, PC_TLV_AT(pc_section, pattern), .load = pc_tlv_str},               \
    {PC_T_SECTION_SETTINGS, PC_TLV_AT(pc_section, settings), .load = pc_settings_load}

static const struct pc_tlv_row inner_rows[] = {SECTION_ROWS};

static int
load_inner(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_section *section = to;
    (void)row;
    pc_settings_unset(&section->settings);
    if (PC_TLV_BOX(loader, inner_rows, payload, section) != 0)
        return -PC_E_FORMAT;
    if (section->kind != PC_SECTION_FILES && section->kind != PC_SECTION_FILES_MATCH)
        return pc_tlv_refuse(loader, "record: a section inside another that is no Files");
    return finish_section(loader, section);
}

static const struct pc_tlv_row section_rows[] = {
    SECTION_ROWS,
    {PC_T_SECTION_INNER, PC_TLV_MANY(pc_section, inner, inner_count, struct pc_section), .load = load_inner},
};

static int
load_section(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_section *section = to;
    (void)row;
    pc_settings_unset(&section->settings);
    if (PC_TLV_BOX(loader, section_rows, payload, section) != 0)
        return -PC_E_FORMAT;
    if (section->inner_count > 0 && section->kind > PC_SECTION_DIRECTORY_MATCH)
        return pc_tlv_refuse(loader, "record: only a Directory holds Files");
    return finish_section(loader, section);
}

/* ------------------------------------------------------------------ hosts */

static const struct pc_tlv_row alias_rows[] = {
    {PC_T_ALIAS_KIND, .required = true, PC_TLV_AT(pc_alias, kind), .high = PC_ALIAS_SCRIPT_MATCH, .load = pc_tlv_u32},
    {PC_T_ALIAS_FROM, .required = true, PC_TLV_AT(pc_alias, from), .load = pc_tlv_str},
    {PC_T_ALIAS_TO, .required = true, PC_TLV_AT(pc_alias, to), .load = pc_tlv_path},
};

static int
load_alias(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_alias *alias = to;
    (void)row;
    alias->root_fd = -1;
    if (PC_TLV_BOX(loader, alias_rows, payload, alias) != 0)
        return -PC_E_FORMAT;
    if (pc_alias_is_match(alias->kind) && pc_regex_compile(alias->from, false, &alias->regex) != 0)
        return pc_tlv_refuse(loader, "record: a pattern of AliasMatch does not compile");
    return 0;
}

static const struct pc_tlv_row pass_rows[] = {
    {PC_T_PROXY_KIND, .required = true, PC_TLV_AT(pc_pass, kind), .high = PC_PASS_MATCH, .load = pc_tlv_u32},
    {PC_T_PROXY_FROM, .required = true, PC_TLV_AT(pc_pass, from), .load = pc_tlv_str},
    {PC_T_PROXY_TO, .required = true, PC_TLV_AT(pc_pass, to), .load = pc_tlv_str},
    {PC_T_PROXY_TIMES, PC_TLV_AT(pc_pass, timeout_ms), .low = 3, .load = pc_tlv_u32s},
    {PC_T_PROXY_UPGRADE, PC_TLV_AT(pc_pass, upgrade), .load = pc_tlv_str},
    {PC_T_PROXY_SINGLE_USE, PC_TLV_AT(pc_pass, single_use), .load = pc_tlv_flag},
    {PC_T_PROXY_KEPT, PC_TLV_AT(pc_pass, kept), .load = pc_tlv_u32},
};

static int
load_pass(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_pass *pass = to;
    (void)row;
    if (PC_TLV_BOX(loader, pass_rows, payload, pass) != 0)
        return -PC_E_FORMAT;
    if (pass->to.len == 0 || (pass->kind == PC_PASS_PREFIX && (pass->from.len == 0 || pass->from.base[0] != '/')))
        return pc_tlv_refuse(loader, "record: a pass that leads nowhere or begins nowhere");
    if (pass->kind == PC_PASS_MATCH && pc_regex_compile(pass->from, false, &pass->regex) != 0)
        return pc_tlv_refuse(loader, "record: a pattern of ProxyPassMatch does not compile");
    return 0;
}

static const struct pc_tlv_row log_rows[] = {
    {PC_T_LOG_INDEX, .required = true, PC_TLV_AT(pc_log, file), .load = pc_tlv_u32},
    {PC_T_LOG_FORMAT, .required = true, PC_TLV_AT(pc_log, format), .load = pc_settings_format},
    {PC_T_LOG_ENV, PC_TLV_AT(pc_log, env), .load = pc_tlv_str},
};

static int
load_log(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    (void)row;
    return PC_TLV_BOX(loader, log_rows, payload, to);
}

static int
load_keep_alive(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_host *host = to;
    (void)row;
    if (payload.len != 12 || pc_tlv_read_u32(payload.base) > 1 || pc_tlv_read_u32(payload.base + 8) > 1)
        return pc_tlv_refuse(loader, "record: KEEP_ALIVE is not three numbers");
    host->keep_alive = pc_tlv_read_u32(payload.base) == 1;
    host->max_requests = pc_tlv_read_u32(payload.base + 4);
    host->keep_scope_identity = pc_tlv_read_u32(payload.base + 8) == 1;
    return 0;
}

/* Above these the head's parser has no room. */
static int
load_limits(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    const struct pc_h1_limits *limits = to;
    if (pc_tlv_u32s(loader, row, payload, to) != 0)
        return -PC_E_FORMAT;
    if (limits->line_bytes > PC_MAX_HEAD_BYTES || limits->field_bytes > PC_MAX_HEAD_BYTES
        || limits->field_count > PC_MAX_FIELDS_HARD)
        return pc_tlv_refuse(loader, "record: a request limit is above the server's own");
    return 0;
}

/* ------------------------------------------------------------------ TLS */

static const struct pc_tlv_row cert_rows[] = {
    {PC_T_CERT_PEM, .required = true, PC_TLV_AT(pc_cert, pem), .load = pc_tlv_str},
    {PC_T_KEY_NUMBER, .required = true, PC_TLV_AT(pc_cert, key_number), .load = pc_tlv_u32},
    {PC_T_KEY_PATH, .required = true, PC_TLV_AT(pc_cert, key_path), .load = pc_tlv_path},
};

static int
load_cert(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    (void)row;
    return PC_TLV_BOX(loader, cert_rows, payload, to);
}

static const struct pc_tlv_row tls_rows[] = {
    {PC_T_TLS_BROKEN, PC_TLV_AT(pc_tls_conf, broken), .load = pc_tlv_str},
    {PC_T_TLS_CERT, PC_TLV_MANY(pc_tls_conf, certs, cert_count, struct pc_cert), .load = load_cert},
    {PC_T_TLS_PROTOCOLS, .required = true, PC_TLV_AT(pc_tls_conf, protocols), .high = PC_TLS_TLSV1_2 | PC_TLS_TLSV1_3,
     .load = pc_tlv_u32},
    {PC_T_TLS_CIPHERS, PC_TLV_AT(pc_tls_conf, ciphers), .load = pc_tlv_str},
    {PC_T_TLS_SUITES, PC_TLV_AT(pc_tls_conf, suites), .load = pc_tlv_str},
    {PC_T_TLS_SERVER_ORDER, PC_TLV_AT(pc_tls_conf, server_order), .load = pc_tlv_flag},
    {PC_T_TLS_CONF, PC_TLV_MANY(pc_tls_conf, commands, command_count, struct pc_pair), .load = pc_tlv_pair},
    {PC_T_TLS_TICKETS, PC_TLV_AT(pc_tls_conf, tickets), .load = pc_tlv_flag},
    {PC_T_TLS_TIMEOUT, .required = true, PC_TLV_AT(pc_tls_conf, timeout_s), .load = pc_tlv_u32},
    {PC_T_TLS_VERIFY, PC_TLV_AT(pc_tls_conf, verify), .high = PC_VERIFY_NO_CA, .load = pc_tlv_u32},
    {PC_T_TLS_DEPTH, PC_TLV_AT(pc_tls_conf, depth), .load = pc_tlv_u32},
    {PC_T_TLS_CA, PC_TLV_AT(pc_tls_conf, ca), .load = pc_tlv_str},
    {PC_T_TLS_CRL, PC_TLV_AT(pc_tls_conf, crl), .load = pc_tlv_str},
    {PC_T_TLS_CRL_CHECK, PC_TLV_AT(pc_tls_conf, crl_check), .high = PC_CRL_LEAF | PC_CRL_CHAIN | PC_CRL_MISSING_OK, .load = pc_tlv_u32},
    {PC_T_TLS_SOURCE, PC_TLV_MANY(pc_tls_conf, sources, source_count, struct pc_pair), .load = pc_tlv_pair},
    {PC_T_TLS_STRICT, PC_TLV_AT(pc_tls_conf, strict), .load = pc_tlv_flag},
};

static int
load_tls(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_tls_conf *tls = pc_tlv_zeroed(loader, 1, sizeof *tls);
    (void)row;
    *(struct pc_tls_conf **)to = tls;
    if (PC_TLV_BOX(loader, tls_rows, payload, tls) != 0)
        return -PC_E_FORMAT;
    if (tls->protocols == 0 || (tls->cert_count == 0 && tls->broken.base == NULL))
        return pc_tlv_refuse(loader, "record: TLS without a protocol or a certificate");
    return 0;
}

static int
load_protocols(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    if (pc_tlv_u32(loader, row, payload, to) != 0)
        return -PC_E_FORMAT;
    bool speaks = (pc_tlv_read_u32(payload.base) & ~(uint32_t)PC_PROTOCOL_H1_FIRST) != 0;
    return speaks ? 0 : pc_tlv_refuse(loader, "record: a host that speaks nothing");
}

_Static_assert(sizeof(struct pc_h2_limits) == 16, "H2_LIMITS fills four");
_Static_assert(offsetof(struct pc_host, body_rate) - offsetof(struct pc_host, timeout_ms) == 28, "TIMES fills eight in a row");
_Static_assert(offsetof(struct pc_host, error_level) - offsetof(struct pc_host, error_log) == 4, "ERROR_LOG fills two");
_Static_assert(offsetof(struct pc_pass, retry_s_plus_1) - offsetof(struct pc_pass, timeout_ms) == 8, "PROXY_TIMES fills three");
_Static_assert(sizeof(struct pc_h1_limits) == 12, "LIMITS fills three");
_Static_assert(offsetof(struct pc_config, idle_s) - offsetof(struct pc_config, start_threads) == 20, "SCALE fills six");
_Static_assert(offsetof(struct pc_config, gid) - offsetof(struct pc_config, identity_no) == 8, "IDENTITY fills three");

static const struct pc_tlv_row host_rows[] = {
    {PC_T_NAME, .required = true, PC_TLV_AT(pc_host, name), .load = pc_tlv_str},
    {PC_T_PORT, PC_TLV_AT(pc_host, port), .high = 65535, .load = pc_tlv_u32},
    {PC_T_ADMIN, PC_TLV_AT(pc_host, admin), .load = pc_tlv_str},
    {PC_T_DOCUMENT_ROOT, PC_TLV_AT(pc_host, document_root), .low = 1, .load = pc_tlv_path},
    {PC_T_TIMES, .required = true, PC_TLV_AT(pc_host, timeout_ms), .low = 8, .load = pc_tlv_u32s},
    {PC_T_KEEP_ALIVE, .required = true, .load = load_keep_alive},
    {PC_T_LIMITS, .required = true, PC_TLV_AT(pc_host, limits), .low = 3, .load = load_limits},
    {PC_T_LOG, PC_TLV_MANY(pc_host, logs, log_count, struct pc_log), .load = load_log},
    {PC_T_ERROR_LOG, .required = true, PC_TLV_AT(pc_host, error_log), .low = 2, .load = pc_tlv_u32s},
    {PC_T_BASE, PC_TLV_AT(pc_host, base), .load = pc_settings_load},
    {PC_T_SECTION, PC_TLV_MANY(pc_host, sections, section_count, struct pc_section), .load = load_section},
    {PC_T_ALIAS, PC_TLV_MANY(pc_host, aliases, alias_count, struct pc_alias), .load = load_alias},
    {PC_T_PROXY_PASS, PC_TLV_MANY(pc_host, passes, pass_count, struct pc_pass), .load = load_pass},
    {PC_T_PHP_SERVICE, PC_TLV_AT(pc_host, php_service), .load = pc_tlv_u32},
    {PC_T_REMOTE_IP_HEADER, PC_TLV_AT(pc_host, remote_ip_header), .load = pc_tlv_str},
    {PC_T_REMOTE_IP_INTERNAL, PC_TLV_AT(pc_host, remote_ip_internal), .load = pc_settings_leaves},
    {PC_T_REMOTE_IP_TRUSTED, PC_TLV_AT(pc_host, remote_ip_trusted), .load = pc_settings_leaves},
    {PC_T_PROXY_PROTOCOL, PC_TLV_AT(pc_host, proxy_protocol), .load = pc_tlv_flag},
    {PC_T_FCGID_SERVICE, PC_TLV_MANY(pc_host, wrappers, wrapper_count, struct pc_pair), .load = pc_tlv_pair},
    {PC_T_TLS, PC_TLV_AT(pc_host, tls), .load = load_tls},
    {PC_T_PROTOCOLS, PC_TLV_AT(pc_host, protocols), .high = PC_PROTOCOL_HTTP_1_1 | PC_PROTOCOL_H2 | PC_PROTOCOL_H2C | PC_PROTOCOL_H1_FIRST,
     .load = load_protocols},
};

/* Whether a handler of this name may lead to something else than the file: all but the two that say so. */
static bool
leads_away(struct pc_slice handler)
{
    return handler.len > 0 && !pc_slice_ieq(handler, PC_S("default-handler")) && !pc_slice_ieq(handler, PC_S("none"));
}

/* A media type that stands for a handler: "application/x-httpd-cgi" and its like (program.c). */
static bool
is_handler_type(struct pc_slice type)
{
    struct pc_slice prefix = PC_S("application/x-");
    if (type.len < prefix.len)
        return false;
    type.len = prefix.len;
    return pc_slice_ieq(type, prefix);
}

static bool
has_settings_programs(const struct pc_settings *settings)
{
    for (uint32_t i = 0; i < settings->type_count; i++)
        if (is_handler_type(settings->types[i].value))
            return true;
    if (is_handler_type(settings->force_type) || is_handler_type(settings->default_type))
        return true;
    for (uint32_t i = 0; i < settings->handler_count; i++)
        if (leads_away(settings->handlers[i].value))
            return true;
    return settings->action_count > 0 || leads_away(settings->handler);
}

static bool
has_section_programs(const struct pc_section *section)
{
    for (uint32_t i = 0; i < section->inner_count; i++)
        if (has_settings_programs(&section->inner[i].settings))
            return true;
    return has_settings_programs(&section->settings);
}

static bool
has_programs(const struct pc_host *host)
{
    for (uint32_t i = 0; i < host->alias_count; i++)
        if (pc_alias_is_script(host->aliases[i].kind))
            return true;
    for (uint32_t i = 0; i < host->section_count; i++)
        if (has_section_programs(&host->sections[i]))
            return true;
    return host->pass_count > 0 || host->php_service != PC_NO_SERVICE || has_settings_programs(&host->base);
}

/* Directory, DirectoryMatch, Files and FilesMatch, Location and LocationMatch: map.c walks them in this order. */
static uint32_t
section_rank(uint32_t kind)
{
    static const uint32_t ranks[] = {0, 1, 2, 2, 3, 3};
    return ranks[kind]; /* checked to be 0..5 when the section was loaded */
}

static int
load_host(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_host *host = to;
    (void)row;
    host->root_fd = host->old_root_fd = -1;
    host->index = loader->config->host_count - 1;
    host->php_service = PC_NO_SERVICE;
    host->protocols = PC_PROTOCOL_HTTP_1_1;
    pc_settings_unset(&host->base);
    if (pthread_mutex_init(&host->root_lock, NULL) != 0)
        pc_bug("record: pthread_mutex_init");
    if (PC_TLV_BOX(loader, host_rows, payload, host) != 0)
        return -PC_E_FORMAT;
    for (uint32_t i = 0; i < host->section_count; i++) {
        if (host->sections[i].kind != PC_SECTION_DIRECTORY || host->sections[i].inner_count > 0)
            host->has_location_or_files = true;
        if (i > 0 && section_rank(host->sections[i].kind) < section_rank(host->sections[i - 1].kind))
            return pc_tlv_refuse(loader, "record: sections are not in merging order");
    }
    host->has_programs = has_programs(host);
    return 0;
}

/* ------------------------------------------------------------------ the record itself */

static int
load_version(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    (void)row;
    (void)to;
    if (payload.len != 4 || pc_tlv_read_u32(payload.base) != PC_RECORD_VERSION)
        return pc_tlv_refuse(loader, "record: another version of perchildd wrote it");
    return 0;
}

static int
load_listen(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    (void)row;
    if (payload.len != 20 || payload.base[1] != 0)
        return pc_tlv_refuse(loader, "record: a listener has another size");
    in_port_t port = htons(pc_tlv_read_u16(payload.base + 2));
    if (payload.base[0] == 4) {
        struct sockaddr_in *v4 = to;
        *v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = port};
        memcpy(&v4->sin_addr, payload.base + 4, 4);
    } else if (payload.base[0] == 6) {
        struct sockaddr_in6 *v6 = to;
        *v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = port};
        memcpy(&v6->sin6_addr, payload.base + 4, 16);
    } else {
        return pc_tlv_refuse(loader, "record: a listener of unknown family");
    }
    return 0;
}

static const struct pc_tlv_row log_file_rows[] = {
    {PC_T_FILE_PATH, .required = true, PC_TLV_AT(pc_log_file, path), .load = pc_tlv_path},
    {PC_T_FILE_OPENER, .required = true, PC_TLV_AT(pc_log_file, by_dispatcher), .load = pc_tlv_flag},
};

static int
load_log_file(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_log_file *file = to;
    (void)row;
    file->fd = -1;
    if (pthread_mutex_init(&file->lock, NULL) != 0)
        pc_bug("record: pthread_mutex_init");
    return PC_TLV_BOX(loader, log_file_rows, payload, file);
}

static const struct pc_tlv_row service_rows[] = {
    {PC_T_SERVICE_KIND, .required = true, PC_TLV_AT(pc_service, kind), .high = PC_SERVICE_HTTP, .load = pc_tlv_u32},
    {PC_T_SERVICE_SOCKET, .required = true, PC_TLV_AT(pc_service, socket), .load = pc_tlv_path},
    {PC_T_SERVICE_CONNECTIONS, PC_TLV_AT(pc_service, connections), .load = pc_tlv_u32},
    {PC_T_SERVICE_PHP_NAME, PC_TLV_MANY(pc_service, php_names, php_name_count, struct pc_pair), .load = pc_tlv_pair},
};

static int
load_service(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    (void)row;
    return PC_TLV_BOX(loader, service_rows, payload, to);
}

static const struct pc_tlv_row config_rows[] = {
    {PC_T_VERSION, .required = true, .load = load_version},
    {PC_T_IDENTITY, .required = true, PC_TLV_AT(pc_config, identity_no), .low = 3, .load = pc_tlv_u32s},
    {PC_T_ROUTE, .required = true, PC_TLV_AT(pc_config, own_route), .load = pc_tlv_raw},
    {PC_T_LISTEN, PC_TLV_MANY(pc_config, listeners, listener_count, struct sockaddr_storage), .load = load_listen},
    {PC_T_SERVER_TOKENS, PC_TLV_AT(pc_config, server), .load = pc_tlv_str},
    {PC_T_LOG_FILE, PC_TLV_MANY(pc_config, log_files, log_file_count, struct pc_log_file), .load = load_log_file},
    {PC_T_ERROR_LOG_JSON, PC_TLV_AT(pc_config, error_log_json), .load = pc_tlv_flag},
    {PC_T_SERVICE, PC_TLV_MANY(pc_config, services, service_count, struct pc_service), .load = load_service},
    {PC_T_HOST, PC_TLV_MANY(pc_config, hosts, host_count, struct pc_host), .load = load_host},
    {PC_T_SCALE, .required = true, PC_TLV_AT(pc_config, start_threads), .low = 6, .load = pc_tlv_u32s},
    {PC_T_SOCKET_BUFFERS, PC_TLV_AT(pc_config, send_buffer_bytes), .low = 2, .load = pc_tlv_u32s},
    {PC_T_H2_LIMITS, PC_TLV_AT(pc_config, h2), .low = 4, .load = pc_tlv_u32s},
};

/* "service:K" and what may follow: whether there is a service K. Other texts are no concern of this. */
static bool
is_service_there(const struct pc_config *config, struct pc_slice target)
{
    struct pc_slice prefix = PC_S("service:");
    uint64_t number = 0;
    if (!pc_slice_starts(target, prefix))
        return true;
    struct pc_slice digits = {target.base + prefix.len, 0};
    while (prefix.len + digits.len < target.len && digits.base[digits.len] >= '0' && digits.base[digits.len] <= '9')
        digits.len++;
    return pc_parse_u64(digits, &number) == 0 && number < config->service_count;
}

static bool
are_settings_served(const struct pc_config *config, const struct pc_settings *settings)
{
    for (uint32_t i = 0; i < settings->handler_count; i++)
        if (!is_service_there(config, settings->handlers[i].value))
            return false;
    return is_service_there(config, settings->handler);
}

static bool
are_services_there(const struct pc_config *config, const struct pc_host *host)
{
    bool are_there = are_settings_served(config, &host->base);
    for (uint32_t i = 0; i < host->section_count && are_there; i++) {
        const struct pc_section *section = &host->sections[i];
        are_there = are_settings_served(config, &section->settings);
        for (uint32_t j = 0; j < section->inner_count && are_there; j++)
            are_there = are_settings_served(config, &section->inner[j].settings);
    }
    for (uint32_t i = 0; i < host->pass_count && are_there; i++)
        are_there = is_service_there(config, host->passes[i].to);
    for (uint32_t i = 0; i < host->wrapper_count && are_there; i++)
        are_there = pc_slice_starts(host->wrappers[i].value, PC_S("service:")) && is_service_there(config, host->wrappers[i].value);
    return are_there && (host->php_service == PC_NO_SERVICE || host->php_service < config->service_count);
}

/* Indexes that lead from one part of the record to another. PC_NO_HOST as error log: none. */
static int
check_links(struct pc_tlv_loader *loader)
{
    const struct pc_config *config = loader->config;
    for (uint32_t i = 0; i < config->host_count; i++) {
        const struct pc_host *host = &config->hosts[i];
        if (host->error_log >= config->log_file_count && host->error_log != PC_NO_HOST)
            return pc_tlv_refuse(loader, "record: an error log that is not in the list of files");
        for (uint32_t j = 0; j < host->log_count; j++)
            if (host->logs[j].file >= config->log_file_count)
                return pc_tlv_refuse(loader, "record: a log that is not in the list of files");
        if (!are_services_there(config, host))
            return pc_tlv_refuse(loader, "record: a service that is not in the list of services");
    }
    return 0;
}

int
pc_record_parse(struct pc_slice raw, struct pc_slice types, struct pc_config **ret_config, const char **ret_why)
{
    struct pc_tlv_loader loader = {.config = calloc(1, sizeof *loader.config)};
    int result = 0;
    if (loader.config == NULL)
        pc_die(111, "out of memory");
    loader.config->types = types;
    loader.config->h2 = (struct pc_h2_limits){.streams = PC_H2_STREAMS, .window_bytes = PC_H2_WINDOW_BYTES};
    if (raw.len > PC_MAX_RECORD_BYTES)
        result = pc_tlv_refuse(&loader, "record: larger than any record");
    else if (types.len > 0 && pc_types_check(types) != 0)
        result = pc_tlv_refuse(&loader, "types table: malformed");
    else
        result = PC_TLV_BOX(&loader, config_rows, raw, loader.config);
    if (result == 0)
        result = check_links(&loader);
    if (result != 0) {
        pc_record_free(loader.config);
        *ret_why = loader.why;
        return result;
    }
    *ret_config = loader.config;
    return 0;
}

/* Map a whole file read-only. An empty one is not mapped: base stays NULL. */
static int
map_file(int fd, struct pc_slice *ret_bytes)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return -PC_E_SYS;
    if (st.st_size <= 0) {
        *ret_bytes = (struct pc_slice){0};
        return 0;
    }
    void *base = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (base == MAP_FAILED)
        return -PC_E_SYS;
    *ret_bytes = (struct pc_slice){base, (size_t)st.st_size};
    return 0;
}

static void
unmap(struct pc_slice bytes)
{
    if (bytes.len > 0 && munmap((void *)(uintptr_t)bytes.base, bytes.len) != 0)
        pc_bug("record: munmap of what we mapped");
}

int
pc_record_load(int record_fd, int types_fd, struct pc_config **ret_config, const char **ret_why)
{
    struct pc_slice raw = {0}, types = {0};
    int result = map_file(record_fd, &raw);
    if (result == 0 && types_fd >= 0)
        result = map_file(types_fd, &types);
    if (result != 0)
        *ret_why = "record: cannot be mapped";
    else
        result = pc_record_parse(raw, types, ret_config, ret_why);
    if (result != 0) {
        int error = errno;
        unmap(raw);
        unmap(types);
        errno = error;
        return result;
    }
    (*ret_config)->map = (void *)(uintptr_t)raw.base;
    (*ret_config)->map_len = raw.len;
    return 0;
}

/* ------------------------------------------------------------------ the end */

static void
free_sections(struct pc_section *sections, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        pc_regex_free(sections[i].regex);
        pc_settings_free(&sections[i].settings);
        for (uint32_t j = 0; j < sections[i].inner_count; j++) {
            pc_regex_free(sections[i].inner[j].regex);
            pc_settings_free(&sections[i].inner[j].settings);
        }
    }
}

static void
close_if_open(int fd)
{
    if (fd >= 0)
        (void)close(fd); /* only read from, or a log whose buffer was flushed before */
}

static void
free_host(struct pc_host *host)
{
    pc_settings_free(&host->base);
    free_sections(host->sections, host->section_count);
    for (uint32_t i = 0; i < host->alias_count; i++) {
        pc_regex_free(host->aliases[i].regex);
        close_if_open(host->aliases[i].root_fd);
    }
    for (uint32_t i = 0; i < host->pass_count; i++)
        pc_regex_free(host->passes[i].regex);
    close_if_open(host->root_fd);
    close_if_open(host->old_root_fd);
    (void)pthread_mutex_destroy(&host->root_lock); /* nobody holds it: no request is left */
}

void
pc_record_free(struct pc_config *config)
{
    if (config == NULL)
        return;
    for (uint32_t i = 0; i < config->host_count; i++)
        free_host(&config->hosts[i]);
    for (uint32_t i = 0; i < config->log_file_count; i++) {
        close_if_open(config->log_files[i].fd);
        free(config->log_files[i].buffer);
        (void)pthread_mutex_destroy(&config->log_files[i].lock);
    }
    if (config->map != NULL) {
        unmap((struct pc_slice){config->map, config->map_len});
        unmap(config->types);
    }
    pc_arena_free(&config->memory);
    free(config);
}
