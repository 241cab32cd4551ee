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

static int
load_leaves(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    (void)row;
    *(struct pc_slice *)to = payload;
    return check_access(loader, payload, true, 0);
}

/* FORMAT operations: only their framing; format.c knows the operations. */
static int
load_format(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
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
    {PC_T_ALLOW_FROM, PC_TLV_AT(pc_order, allow), .load = load_leaves},
    {PC_T_DENY_FROM, PC_TLV_AT(pc_order, deny), .load = load_leaves},
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
    {PC_T_HEADER_VALUE, PC_TLV_AT(header_box, value), .load = load_format},
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
};

static void
unset_settings(struct pc_settings *settings)
{
    settings->accept_path_info = settings->signature = settings->ask = -1;
}

static int
load_settings(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    (void)row;
    return PC_TLV_BOX(loader, settings_rows, payload, to);
}

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
    {PC_T_SECTION_SETTINGS, PC_TLV_AT(pc_section, settings), .load = load_settings}

static const struct pc_tlv_row inner_rows[] = {SECTION_ROWS};

static int
load_inner(struct pc_tlv_loader *loader, const struct pc_tlv_row *row, struct pc_slice payload, void *to)
{
    struct pc_section *section = to;
    (void)row;
    unset_settings(&section->settings);
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
    unset_settings(&section->settings);
    if (PC_TLV_BOX(loader, section_rows, payload, section) != 0)
        return -PC_E_FORMAT;
    if (section->inner_count > 0 && section->kind > PC_SECTION_DIRECTORY_MATCH)
        return pc_tlv_refuse(loader, "record: only a Directory holds Files");
    return finish_section(loader, section);
}

/* ------------------------------------------------------------------ hosts */

static const struct pc_tlv_row alias_rows[] = {
    {PC_T_ALIAS_KIND, .required = true, PC_TLV_AT(pc_alias, kind), .high = 1, .load = pc_tlv_u32},
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
    if (alias->kind == 1 && pc_regex_compile(alias->from, false, &alias->regex) != 0)
        return pc_tlv_refuse(loader, "record: a pattern of AliasMatch does not compile");
    return 0;
}

static const struct pc_tlv_row log_rows[] = {
    {PC_T_LOG_INDEX, .required = true, PC_TLV_AT(pc_log, file), .load = pc_tlv_u32},
    {PC_T_LOG_FORMAT, .required = true, PC_TLV_AT(pc_log, format), .load = load_format},
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

_Static_assert(offsetof(struct pc_host, body_rate) - offsetof(struct pc_host, timeout_ms) == 28, "TIMES fills eight in a row");
_Static_assert(offsetof(struct pc_host, error_level) - offsetof(struct pc_host, error_log) == 4, "ERROR_LOG fills two");
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
    {PC_T_BASE, PC_TLV_AT(pc_host, base), .load = load_settings},
    {PC_T_SECTION, PC_TLV_MANY(pc_host, sections, section_count, struct pc_section), .load = load_section},
    {PC_T_ALIAS, PC_TLV_MANY(pc_host, aliases, alias_count, struct pc_alias), .load = load_alias},
};

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
    unset_settings(&host->base);
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

static const struct pc_tlv_row config_rows[] = {
    {PC_T_VERSION, .required = true, .load = load_version},
    {PC_T_IDENTITY, .required = true, PC_TLV_AT(pc_config, identity_no), .low = 3, .load = pc_tlv_u32s},
    {PC_T_ROUTE, .required = true, PC_TLV_AT(pc_config, own_route), .load = pc_tlv_raw},
    {PC_T_LISTEN, PC_TLV_MANY(pc_config, listeners, listener_count, struct sockaddr_storage), .load = load_listen},
    {PC_T_SERVER_TOKENS, PC_TLV_AT(pc_config, server), .load = pc_tlv_str},
    {PC_T_LOG_FILE, PC_TLV_MANY(pc_config, log_files, log_file_count, struct pc_log_file), .load = load_log_file},
    {PC_T_ERROR_LOG_JSON, PC_TLV_AT(pc_config, error_log_json), .load = pc_tlv_flag},
    {PC_T_HOST, PC_TLV_MANY(pc_config, hosts, host_count, struct pc_host), .load = load_host},
    {PC_T_SCALE, .required = true, PC_TLV_AT(pc_config, start_threads), .low = 6, .load = pc_tlv_u32s},
    {PC_T_SOCKET_BUFFERS, PC_TLV_AT(pc_config, send_buffer_bytes), .low = 2, .load = pc_tlv_u32s},
};

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
free_headers(struct pc_header_op *ops, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        pc_regex_free(ops[i].pattern);
}

static void
free_settings(struct pc_settings *settings)
{
    free_headers(settings->headers, settings->header_count);
    free_headers(settings->request_headers, settings->request_header_count);
    for (uint32_t i = 0; i < settings->redirect_count; i++)
        pc_regex_free(settings->redirects[i].pattern);
}

static void
free_sections(struct pc_section *sections, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        pc_regex_free(sections[i].regex);
        free_settings(&sections[i].settings);
        for (uint32_t j = 0; j < sections[i].inner_count; j++) {
            pc_regex_free(sections[i].inner[j].regex);
            free_settings(&sections[i].inner[j].settings);
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
    free_settings(&host->base);
    free_sections(host->sections, host->section_count);
    for (uint32_t i = 0; i < host->alias_count; i++) {
        pc_regex_free(host->aliases[i].regex);
        close_if_open(host->aliases[i].root_fd);
    }
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
