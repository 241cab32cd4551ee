/* settings.c - the settings of a record (BASE and those of sections): TLV bytes into struct pc_settings.
 * Runs as:  child, as the identity that the record is for, after the drop.   Sees: that identity's configuration only.
 * Trusts:   nothing.   Distrusts: every byte of the record.
 * Before:   record.c   After: everything that reads struct pc_settings
 * Tests: native/test_record.c, fuzz/fuzz_record.c. */
#include <string.h>

#include "serve.h"
#include "settings.h"
#include "tlv.h"

#define MAX_ACCESS_DEPTH 32

/* ------------------------------------------------------------------ lists and formats of their own */

static int
load_index(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_settings *settings = to;
    struct pc_slice text = {0};
    size_t at = 0;
    uint32_t count = 0;
    int step;
    (void)row;
    while ((step = pc_tlv_next_text(loader, payload, &at, &text)) > 0)
        count++;
    if (step < 0)
        return step;
    settings->has_index = true;
    settings->index = pc_tlv_zeroed(loader, count, sizeof *settings->index);
    for (at = 0; settings->index_count < count; settings->index_count++)
        if (pc_tlv_next_text(loader, payload, &at, &settings->index[settings->index_count]) != 1)
            pc_bug("record: a list changed");
    return 0;
}

static int
check_access_ip(struct pc_tlv_loader *loader, struct pc_slice payload)
{
    uint8_t family = payload.len > 0 ? (uint8_t)payload.base[0] : 0;
    size_t bytes = family == 4 ? 4 : 16;
    if ((family != 4 && family != 6) || payload.len != 2 + bytes || (uint8_t)payload.base[1] > 8 * bytes)
        return pc_tlv_refuse(loader, "record: an address of an access rule is malformed");
    return 0;
}

/* Access nodes one after the other; containers only where leaves_only is false. */
static int
check_access(struct pc_tlv_loader *loader, struct pc_slice nodes, bool leaves_only, int depth)
{
    struct pc_access_node node;
    size_t at = 0;
    int step;
    if (depth > MAX_ACCESS_DEPTH)
        return pc_tlv_refuse(loader, "record: access rules are nested too deeply");
    while ((step = pc_access_next(nodes, &at, &node)) > 0) {
        int result = 0;
        if (node.kind >= PC_ACC_ALL && node.kind <= PC_ACC_NONE && !leaves_only)
            result = check_access(loader, node.payload, false, depth + 1);
        else if (node.kind == PC_ACC_IP)
            result = check_access_ip(loader, node.payload);
        else if (node.kind < PC_ACC_GRANTED || node.kind > PC_ACC_METHOD)
            result = pc_tlv_refuse(loader, "record: an access rule of unknown kind");
        if (result != 0)
            return result;
    }
    return step == 0 ? 0 : pc_tlv_refuse(loader, "record: an access rule is cut off");
}

static int
load_require(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_access_node node;
    size_t at = 0;
    (void)row;
    if (pc_access_next(payload, &at, &node) <= 0 || at != payload.len || node.kind < PC_ACC_ALL || node.kind > PC_ACC_NONE)
        return pc_tlv_refuse(loader, "record: an access tree is not one container");
    *(struct pc_slice *)to = payload;
    return check_access(loader, payload, false, 0);
}

int
pc_settings_leaves(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    (void)row;
    *(struct pc_slice *)to = payload;
    return check_access(loader, payload, true, 0);
}

/* FORMAT operations: only their framing; format.c knows the operations. */
int
pc_settings_format(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    size_t at = 0;
    (void)row;
    while (at < payload.len) {
        size_t left = payload.len - at;
        if (left < 4 || pc_tlv_read_u16(payload.base + at + 2) > left - 4)
            return pc_tlv_refuse(loader, "record: a format operation is cut off");
        at += 4 + (size_t)pc_tlv_read_u16(payload.base + at + 2);
    }
    *(struct pc_slice *)to = payload;
    return 0;
}

/* An empty class list is not "none of these": absent bits are spelled as three numbers, the first of them a flag. */
static int
load_bits(struct pc_tlv_loader *loader, struct pc_slice payload, bool *absolute, uint32_t *add, uint32_t *remove)
{
    if (payload.len != 12 || pc_tlv_read_u32(payload.base) > 1)
        return pc_tlv_refuse(loader, "record: added and removed bits are not three numbers");
    *absolute = pc_tlv_read_u32(payload.base) == 1;
    *add = pc_tlv_read_u32(payload.base + 4);
    *remove = pc_tlv_read_u32(payload.base + 8);
    return 0;
}

static int
load_options(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_settings *settings = to;
    (void)row;
    settings->has_options = true;
    return load_bits(loader, payload, &settings->options_absolute, &settings->options_add, &settings->options_remove);
}

static int
load_etag(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_settings *settings = to;
    (void)row;
    settings->has_etag = true;
    return load_bits(loader, payload, &settings->etag_absolute, &settings->etag_add, &settings->etag_remove);
}

static int
load_ssl_options(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_settings *settings = to;
    (void)row;
    settings->has_ssl_options = true;
    return load_bits(loader, payload, &settings->ssl_options_absolute, &settings->ssl_options_add, &settings->ssl_options_remove);
}

static int
load_limit_body(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_settings *settings = to;
    (void)row;
    if (payload.len != 8)
        return pc_tlv_refuse(loader, "record: a number has another size");
    settings->has_limit_body = true;
    memcpy(&settings->limit_body, payload.base, 8);
    return 0;
}

/* Checked and left: .htaccess is compiled by Python, which has the record's bytes itself. */
static int
load_override(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    (void)row;
    (void)to;
    return payload.len == 4 ? 0 : pc_tlv_refuse(loader, "record: a number has another size");
}

/* ------------------------------------------------------------------ boxes inside settings */

static const struct pc_tlv_row errordoc_rows[] = {
    {PC_T_VALUE_U32S, .required = true, PC_TLV_AT(pc_errordoc, status), .low = 2, .load = pc_tlv_u32s},
    {PC_T_VALUE_STR, PC_TLV_AT(pc_errordoc, value), .load = pc_tlv_str},
};

static int
load_errordoc(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    const struct pc_errordoc *doc = to;
    (void)row;
    if (PC_TLV_BOX(loader, errordoc_rows, payload, to) != 0)
        return -PC_E_FORMAT;
    return doc->status <= 599 && doc->kind <= 3 ? 0 : pc_tlv_refuse(loader, "record: an error document of unknown kind");
}

static const struct pc_tlv_row order_rows[] = {
    {PC_T_ORDER, PC_TLV_AT(pc_order, order), .high = 1, .load = pc_tlv_u32},
    {PC_T_ALLOW_FROM, PC_TLV_AT(pc_order, allow), .load = pc_settings_leaves},
    {PC_T_DENY_FROM, PC_TLV_AT(pc_order, deny), .load = pc_settings_leaves},
};

static int
load_order(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_order *order = pc_tlv_zeroed(loader, 1, sizeof *order);
    (void)row;
    *(struct pc_order **)to = order;
    return PC_TLV_BOX(loader, order_rows, payload, order);
}

struct redirect_box { /* VALUE_U32S, then one or two VALUE_STR */
    uint32_t status, kind;
    struct pc_slice *texts;
    uint32_t text_count;
};

static const struct pc_tlv_row redirect_rows[] = {
    {PC_T_VALUE_U32S, .required = true, PC_TLV_AT(redirect_box, status), .low = 2, .load = pc_tlv_u32s},
    {PC_T_VALUE_STR, .required = true, PC_TLV_MANY(redirect_box, texts, text_count, struct pc_slice), .load = pc_tlv_str},
};

static int
load_redirect(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct redirect_box box = {0};
    struct pc_redirect *redirect = to;
    (void)row;
    if (PC_TLV_BOX(loader, redirect_rows, payload, &box) != 0)
        return -PC_E_FORMAT;
    if (box.kind > 2 || box.status < 300 || box.status > 599 || box.text_count > 2)
        return pc_tlv_refuse(loader, "record: a redirection of unknown kind");
    if (box.status < 400 && box.text_count < 2)
        return pc_tlv_refuse(loader, "record: a redirection that leads nowhere");
    redirect->status = box.status;
    redirect->kind = box.kind;
    redirect->from = box.texts[0];
    if (box.text_count == 2)
        redirect->to = box.texts[1];
    if (box.kind == 1 && pc_regex_compile(redirect->from, false, &redirect->pattern) != 0)
        return pc_tlv_refuse(loader, "record: a pattern of RedirectMatch does not compile");
    return 0;
}

struct header_box {
    uint32_t action, always, edit_all;
    struct pc_slice name, value, pattern, env;
};

static const struct pc_tlv_row header_rows[] = {
    {PC_T_HEADER_ACTION, .required = true, PC_TLV_AT(header_box, action), .low = 3, .load = pc_tlv_u32s},
    {PC_T_HEADER_NAME, .required = true, PC_TLV_AT(header_box, name), .load = pc_tlv_str},
    {PC_T_HEADER_VALUE, PC_TLV_AT(header_box, value), .load = pc_settings_format},
    {PC_T_HEADER_PATTERN, PC_TLV_AT(header_box, pattern), .load = pc_tlv_str},
    {PC_T_HEADER_ENV, PC_TLV_AT(header_box, env), .load = pc_tlv_str},
};

static int
load_header(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct header_box box = {0};
    struct pc_header_op *op = to;
    (void)row;
    if (PC_TLV_BOX(loader, header_rows, payload, &box) != 0)
        return -PC_E_FORMAT;
    if (box.action > PC_HDR_NOTE || box.always > 1 || box.edit_all > 1)
        return pc_tlv_refuse(loader, "record: a header action of unknown kind");
    if (box.action == PC_HDR_EDIT && box.pattern.base == NULL)
        return pc_tlv_refuse(loader, "record: a header is edited without a pattern");
    *op = (struct pc_header_op){.action = box.action, .always = box.always == 1, .edit_all = box.edit_all == 1,
                                .name = box.name, .value = box.value, .env = box.env};
    /* What echo names is a pattern of field names (mod_headers). */
    struct pc_slice pattern = box.action == PC_HDR_ECHO && box.pattern.base == NULL ? box.name : box.pattern;
    if (box.action != PC_HDR_EDIT && box.action != PC_HDR_ECHO)
        return 0;
    if (pc_regex_compile(pattern, box.action == PC_HDR_ECHO, &op->pattern) != 0)
        return pc_tlv_refuse(loader, "record: a pattern of Header does not compile");
    return 0;
}

/* ------------------------------------------------------------------ programs and back ends, inside settings */

/* The texts of a STRS payload that has exactly three. */
static int
load_three(struct pc_tlv_loader *loader, struct pc_slice payload, struct pc_slice ret_texts[3])
{
    size_t at = 0;
    for (int i = 0; i < 3; i++)
        if (pc_tlv_next_text(loader, payload, &at, &ret_texts[i]) != 1)
            return pc_tlv_refuse(loader, "record: a list is not three texts");
    return at == payload.len ? 0 : pc_tlv_refuse(loader, "record: a list is not three texts");
}

static int
load_action(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_action *action = to;
    struct pc_slice texts[3];
    (void)row;
    if (load_three(loader, payload, texts) != 0)
        return -PC_E_FORMAT;
    if (texts[0].len == 0 || texts[1].len == 0 || texts[1].base[0] != '/')
        return pc_tlv_refuse(loader, "record: an action without a name or a URL path");
    if (texts[2].len > 0 && !pc_slice_eq(texts[2], PC_S("virtual")))
        return pc_tlv_refuse(loader, "record: an action of unknown kind");
    *action = (struct pc_action){.name = texts[0], .path = texts[1], .is_virtual = texts[2].len > 0};
    return 0;
}

static int
load_php_value(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    static const struct { struct pc_slice name; bool is_admin; } directives[] = {
        {{"php_value", 9}, false}, {{"php_flag", 8}, false}, {{"php_admin_value", 15}, true}, {{"php_admin_flag", 14}, true},
    };
    struct pc_php_value *value = to;
    struct pc_slice texts[3];
    (void)row;
    if (load_three(loader, payload, texts) != 0)
        return -PC_E_FORMAT;
    for (size_t i = 0; i < texts[2].len; i++)
        if ((uint8_t)texts[2].base[i] < 0x20)
            return pc_tlv_refuse(loader, "record: a PHP setting with a control character, which would begin another setting");
    for (size_t i = 0; i < sizeof directives / sizeof directives[0]; i++)
        if (pc_slice_eq(texts[0], directives[i].name)) {
            *value = (struct pc_php_value){.is_admin = directives[i].is_admin, .name = texts[1], .value = texts[2]};
            return 0;
        }
    return pc_tlv_refuse(loader, "record: a PHP setting of unknown kind");
}

static const struct pc_tlv_row fcgi_env_rows[] = {
    {PC_T_FCGI_ENV_NAME, .required = true, PC_TLV_AT(pc_fcgi_env, name), .load = pc_tlv_str},
    {PC_T_FCGI_ENV_VALUE, PC_TLV_AT(pc_fcgi_env, value), .load = pc_settings_format},
};

static int
load_fcgi_env(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    (void)row;
    return PC_TLV_BOX(loader, fcgi_env_rows, payload, to);
}

/* ------------------------------------------------------------------ settings */

#define SLICE_ROW(tag, member) {tag, PC_TLV_AT(pc_settings, member), .load = pc_tlv_str}
#define PAIR_ROW(tag, member, counter) {tag, PC_TLV_MANY(pc_settings, member, counter, struct pc_pair), .load = pc_tlv_pair}

static const struct pc_tlv_row settings_rows[] = {
    {PC_T_OPTIONS, .load = load_options},
    {PC_T_DIRECTORY_INDEX, .load = load_index},
    {PC_T_REQUIRE, PC_TLV_AT(pc_settings, require), .load = load_require},
    {PC_T_ORDER_ALLOW_DENY, PC_TLV_AT(pc_settings, order), .load = load_order},
    {PC_T_ERROR_DOCUMENT, PC_TLV_MANY(pc_settings, errordocs, errordoc_count, struct pc_errordoc), .load = load_errordoc},
    PAIR_ROW(PC_T_ADD_TYPE, types, type_count),
    SLICE_ROW(PC_T_FORCE_TYPE, force_type),
    SLICE_ROW(PC_T_DEFAULT_TYPE, default_type),
    PAIR_ROW(PC_T_ADD_CHARSET, charsets, charset_count),
    SLICE_ROW(PC_T_DEFAULT_CHARSET, default_charset),
    PAIR_ROW(PC_T_ADD_ENCODING, encodings, encoding_count),
    SLICE_ROW(PC_T_HANDLER, handler),
    {PC_T_HEADER, PC_TLV_MANY(pc_settings, headers, header_count, struct pc_header_op), .load = load_header},
    {PC_T_REQUEST_HEADER, PC_TLV_MANY(pc_settings, request_headers, request_header_count, struct pc_header_op),
     .load = load_header},
    PAIR_ROW(PC_T_SET_ENV, env, env_count),
    {PC_T_UNSET_ENV, PC_TLV_MANY(pc_settings, unset_env, unset_env_count, struct pc_slice), .load = pc_tlv_str},
    {PC_T_FILE_ETAG, .load = load_etag},
    {PC_T_ACCEPT_PATH_INFO, PC_TLV_AT(pc_settings, accept_path_info), .high = 2, .load = pc_tlv_u32},
    {PC_T_LIMIT_BODY, .load = load_limit_body},
    {PC_T_SIGNATURE, PC_TLV_AT(pc_settings, signature), .high = 2, .load = pc_tlv_u32},
    {PC_T_REDIRECT, PC_TLV_MANY(pc_settings, redirects, redirect_count, struct pc_redirect), .load = load_redirect},
    {PC_T_ALLOW_OVERRIDE, .load = load_override},
    {PC_T_ASK, PC_TLV_AT(pc_settings, ask), .high = 1, .load = pc_tlv_u32},
    PAIR_ROW(PC_T_ADD_HANDLER, handlers, handler_count),
    {PC_T_ACTION, PC_TLV_MANY(pc_settings, actions, action_count, struct pc_action), .load = load_action},
    PAIR_ROW(PC_T_PROXY_REVERSE, proxy_reverse, proxy_reverse_count),
    PAIR_ROW(PC_T_COOKIE_PATH, cookie_paths, cookie_path_count),
    PAIR_ROW(PC_T_COOKIE_DOMAIN, cookie_domains, cookie_domain_count),
    {PC_T_PRESERVE_HOST, PC_TLV_AT(pc_settings, preserve_host), .high = 1, .load = pc_tlv_u32},
    {PC_T_CGI_PASS_AUTH, PC_TLV_AT(pc_settings, cgi_pass_auth), .high = 1, .load = pc_tlv_u32},
    {PC_T_PROXY_TIMEOUT, PC_TLV_AT(pc_settings, proxy_timeout_ms), .load = pc_tlv_u32},
    PAIR_ROW(PC_T_FCGID_WRAPPER, wrappers, wrapper_count),
    {PC_T_FCGI_SETENV, PC_TLV_MANY(pc_settings, fcgi_env, fcgi_env_count, struct pc_fcgi_env), .load = load_fcgi_env},
    {PC_T_PHP_VALUE, PC_TLV_MANY(pc_settings, php_values, php_value_count, struct pc_php_value), .load = load_php_value},
    {PC_T_SSL_REQUIRE, PC_TLV_AT(pc_settings, ssl_require), .high = 1, .load = pc_tlv_u32},
    {PC_T_SSL_VERIFY, PC_TLV_AT(pc_settings, ssl_verify), .high = PC_VERIFY_REQUIRE, .load = pc_tlv_u32},
    {PC_T_SSL_OPTIONS, .load = load_ssl_options},
};

void
pc_settings_unset(struct pc_settings *settings)
{
    settings->accept_path_info = settings->signature = settings->ask = -1;
    settings->preserve_host = settings->cgi_pass_auth = settings->ssl_require = settings->ssl_verify = -1;
}

int
pc_settings_load(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    (void)row;
    return PC_TLV_BOX(loader, settings_rows, payload, to);
}

/* ------------------------------------------------------------------ the end */

static void
free_headers(struct pc_header_op *ops, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        pc_regex_free(ops[i].pattern);
}

void
pc_settings_free(struct pc_settings *settings)
{
    free_headers(settings->headers, settings->header_count);
    free_headers(settings->request_headers, settings->request_header_count);
    for (uint32_t i = 0; i < settings->redirect_count; i++)
        pc_regex_free(settings->redirects[i].pattern);
}
