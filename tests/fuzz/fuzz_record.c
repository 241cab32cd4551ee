/* Invariant: a record is refused with a reason, or yields a configuration whose texts lie in its bytes, whose links lead to what is
 * there, and by which requests are mapped and judged within bounds; either way all of it can be freed; the bytes stay as they are. */
/* sources: record.c settings.c tlv.c regex.c mime.c map.c access.c arena.c escape.c util.c wild.c */
/* seeds: record */
/* libs: -lpcre2-8 */
#include "serve.h"

#include "fuzz.h"

/* Of fields.c and errlog.c, which need the rest of the server. */
struct pc_slice
pc_env_get(const struct pc_req *req, struct pc_slice name)
{
    (void)req;
    return name.len % 2 == 0 ? name : (struct pc_slice){.base = NULL};
}

void
pc_errlog_req(const struct pc_req *req, enum pc_level level, const char *module, const char *format, ...)
{
    MUST(req != NULL && level <= PC_DEBUG && module != NULL && format != NULL);
}

static struct pc_slice bytes;

static void
must_lie_inside(struct pc_slice s)
{
    if (s.base == NULL)
        return;
    MUST(s.base >= bytes.base && s.len <= bytes.len && (size_t)(s.base - bytes.base) <= bytes.len - s.len);
}

static void
check_settings(const struct pc_settings *settings)
{
    const struct pc_slice singles[] = {
        settings->require, settings->force_type, settings->default_type, settings->default_charset, settings->handler,
    };
    for (size_t i = 0; i < sizeof singles / sizeof singles[0]; i++)
        must_lie_inside(singles[i]);
    for (uint32_t i = 0; i < settings->index_count; i++)
        must_lie_inside(settings->index[i]);
    for (uint32_t i = 0; i < settings->type_count; i++)
        must_lie_inside(settings->types[i].value);
    for (uint32_t i = 0; i < settings->errordoc_count; i++)
        MUST(settings->errordocs[i].kind <= 3);
    for (uint32_t i = 0; i < settings->redirect_count; i++) {
        MUST((settings->redirects[i].kind == 1) == (settings->redirects[i].pattern != NULL));
        MUST(settings->redirects[i].status >= 400 || settings->redirects[i].to.base != NULL);
    }
    for (uint32_t i = 0; i < settings->header_count; i++)
        MUST(settings->headers[i].action != PC_HDR_EDIT || settings->headers[i].pattern != NULL);
    for (uint32_t i = 0; i < settings->handler_count; i++)
        must_lie_inside(settings->handlers[i].value);
    for (uint32_t i = 0; i < settings->action_count; i++)
        MUST(settings->actions[i].name.len > 0 && settings->actions[i].path.base[0] == '/');
    for (uint32_t i = 0; i < settings->fcgi_env_count; i++)
        must_lie_inside(settings->fcgi_env[i].value);
    for (uint32_t i = 0; i < settings->php_value_count; i++)
        must_lie_inside(settings->php_values[i].value);
    MUST(settings->preserve_host >= -1 && settings->preserve_host <= 1 && settings->cgi_pass_auth <= 1);
    MUST(settings->accept_path_info >= -1 && settings->accept_path_info <= 2);
}

static void
check_section(const struct pc_section *section, bool is_inner)
{
    MUST(section->kind <= PC_SECTION_LOCATION_MATCH && (section->regex != NULL) == (section->kind % 2 == 1));
    MUST(!is_inner || (section->kind & ~1u) == PC_SECTION_FILES);
    must_lie_inside(section->pattern);
    check_settings(&section->settings);
    for (uint32_t i = 0; i < section->inner_count; i++)
        check_section(&section->inner[i], true);
}

/* Map and judge one path, and follow what redirections make of it. */
static void
check_request(struct pc_config *config, struct pc_host *host, struct pc_slice path)
{
    static struct pc_head head;
    struct pc_req req = {.config = config, .host = host, .head = &head, .raw = "", .path = path, .query = PC_S("q=1")};
    struct pc_arena arena = {0};
    struct pc_place place;
    struct pc_slice url = {0};
    req.arena = &arena;
    req.client.ss_family = AF_INET;
    (void)pc_map_redirect(&req, &host->base, &url);
    int placed = pc_map_place(&req, &place);
    MUST(placed == 0 || placed == -PC_E_NOT_FOUND || placed == -PC_E_FORBIDDEN);
    if (placed == 0) {
        MUST(req.filename.base[req.filename.len] == '\0' && strlen(req.filename.base) >= req.filename.len);
        MUST(place.relative[0] != '/');
    }
    pc_map_layers(&req);
    MUST(req.layer_count <= PC_MAX_LAYERS && (req.layer_count == 0 || req.layers[0] == &host->base));
    int allowed = pc_access_judge(&req);
    MUST(allowed == 0 || allowed == 1 || allowed == -PC_E_FORBIDDEN);
    pc_arena_free(&arena);
}

static void
check_programs(const struct pc_config *config, const struct pc_host *host)
{
    bool is_script = false;
    for (uint32_t i = 0; i < config->service_count; i++)
        MUST(config->services[i].kind <= PC_SERVICE_HTTP && config->services[i].socket.base[0] == '/');
    for (uint32_t i = 0; i < host->alias_count; i++) {
        MUST(pc_alias_is_match(host->aliases[i].kind) == (host->aliases[i].regex != NULL));
        is_script = is_script || pc_alias_is_script(host->aliases[i].kind);
    }
    for (uint32_t i = 0; i < host->pass_count; i++) {
        MUST((host->passes[i].kind == PC_PASS_MATCH) == (host->passes[i].regex != NULL));
        MUST(host->passes[i].to.len > 0);
        must_lie_inside(host->passes[i].to);
    }
    for (uint32_t i = 0; i < host->wrapper_count; i++) {
        MUST(config->service_count > 0 && host->wrappers[i].value.len > 8);
        must_lie_inside(host->wrappers[i].name);
    }
    MUST(host->php_service == PC_NO_SERVICE || host->php_service < config->service_count);
    MUST(host->has_programs || (!is_script && host->pass_count == 0 && host->base.action_count == 0));
}

static void
check_host(struct pc_config *config, struct pc_host *host)
{
    static const struct pc_slice paths[] = {{"/", 1}, {"/a/b.html", 9}, {"/x../../y", 9}};
    must_lie_inside(host->name);
    MUST(host->document_root.len <= PC_MAX_PATH_BYTES && host->root_fd == -1);
    MUST(host->limits.field_count <= PC_MAX_FIELDS_HARD);
    for (uint32_t i = 0; i < host->log_count; i++)
        MUST(host->logs[i].file < config->log_file_count);
    check_settings(&host->base);
    check_programs(config, host);
    for (uint32_t i = 0; i < host->section_count; i++)
        check_section(&host->sections[i], false);
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        check_request(config, host, paths[i]);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = fuzz_copy(data, size);
    struct pc_config *config = NULL;
    const char *why = NULL;
    bytes = (struct pc_slice){copy, size};
    int result = pc_record_parse(bytes, (struct pc_slice){0}, &config, &why);
    MUST((result == 0) == (config != NULL) && (result == 0 || (result == -PC_E_FORMAT && why != NULL && *why != '\0')));
    if (result == 0) {
        for (uint32_t i = 0; i < config->host_count; i++)
            check_host(config, &config->hosts[i]);
        pc_record_free(config);
    }
    MUST(memcmp(copy, data, size) == 0);
    free(copy);
    return 0;
}
