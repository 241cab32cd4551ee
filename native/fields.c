/* fields.c - response fields, what Header, RequestHeader, SetEnv and UnsetEnv make of them, status phrases.
 * Runs as:  child, as the identity that owns the host.   Sees: request fields.
 * Trusts:   the host's configuration for names and operations.   Distrusts: values that come from requests (format.c takes CR
 *           and LF out; what is edited or echoed came through the head parser, which lets neither in).
 * Before:   serve.c, file.c   After: respond.c */
#include <string.h>

#include "serve.h"

#define VALUE_BYTES PC_MAX_LINE_BYTES
#define FIELDS_AT_FIRST 12 /* more than a file has by itself */

/* ------------------------------------------------------------------ response fields */

static struct pc_out_field *
find_field(const struct pc_req *req, struct pc_slice name)
{
    for (uint32_t i = 0; i < req->resp.field_count; i++)
        if (pc_slice_ieq(req->resp.fields[i].name, name))
            return (struct pc_out_field *)(uintptr_t)&req->resp.fields[i];
    return NULL;
}

static void
make_room(struct pc_req *req)
{
    struct pc_resp *resp = &req->resp;
    uint32_t room = resp->field_room > 0 ? 2 * resp->field_room : FIELDS_AT_FIRST;
    struct pc_out_field *grown = pc_arena_alloc(req->arena, room * sizeof *grown);
    if (resp->field_count > 0)
        memcpy(grown, resp->fields, resp->field_count * sizeof *grown); /* UNSAFE: room is more */
    resp->fields = grown;
    resp->field_room = room;
}

void
pc_resp_add(struct pc_req *req, struct pc_slice name, struct pc_slice value)
{
    struct pc_resp *resp = &req->resp;
    if (resp->field_count == PC_MAX_OUT_FIELDS) {
        pc_errlog_req(req, PC_ERROR, "headers", "response has more than %d fields; %.*s is left out", PC_MAX_OUT_FIELDS,
                      (int)name.len, name.base);
        return;
    }
    if (resp->field_count == resp->field_room)
        make_room(req);
    resp->fields[resp->field_count++] = (struct pc_out_field){.name = name, .value = value};
}

/* Remove all fields called name from index `from` on. */
static void
remove_from(struct pc_req *req, struct pc_slice name, uint32_t from)
{
    struct pc_resp *resp = &req->resp;
    uint32_t kept = from;
    for (uint32_t i = from; i < resp->field_count; i++)
        if (!pc_slice_ieq(resp->fields[i].name, name))
            resp->fields[kept++] = resp->fields[i];
    resp->field_count = kept;
}

void
pc_resp_unset(struct pc_req *req, struct pc_slice name)
{
    remove_from(req, name, 0);
}

void
pc_resp_set(struct pc_req *req, struct pc_slice name, struct pc_slice value)
{
    struct pc_out_field *field = find_field(req, name);
    if (field == NULL) {
        pc_resp_add(req, name, value);
        return;
    }
    *field = (struct pc_out_field){.name = name, .value = value};
    remove_from(req, name, (uint32_t)(field - req->resp.fields) + 1);
}

struct pc_slice
pc_resp_get(const struct pc_req *req, struct pc_slice name)
{
    const struct pc_out_field *field = find_field(req, name);
    return field != NULL ? field->value : (struct pc_slice){0};
}

/* ------------------------------------------------------------------ environment */

static struct pc_pair *
find_env(const struct pc_req *req, struct pc_slice name)
{
    for (uint32_t i = 0; i < req->env_count; i++)
        if (pc_slice_eq(req->env[i].name, name))
            return &req->env[i];
    return NULL;
}

struct pc_slice
pc_env_get(const struct pc_req *req, struct pc_slice name)
{
    const struct pc_pair *pair = find_env(req, name);
    return pair != NULL ? pair->value : (struct pc_slice){0};
}

void
pc_env_set(struct pc_req *req, struct pc_slice name, struct pc_slice value)
{
    struct pc_pair *pair = find_env(req, name);
    if (pair == NULL) {
        if (req->env_count == req->env_cap) {
            uint32_t cap = req->env_cap > 0 ? 2 * req->env_cap : 8;
            struct pc_pair *larger = pc_arena_alloc(req->arena, cap * sizeof *larger);
            if (req->env_count > 0)
                memcpy(larger, req->env, req->env_count * sizeof *larger);
            req->env = larger;
            req->env_cap = cap;
        }
        pair = &req->env[req->env_count++];
    }
    *pair = (struct pc_pair){.name = name, .value = value.base != NULL ? value : PC_S("")};
}

static void
env_unset(struct pc_req *req, struct pc_slice name)
{
    struct pc_pair *pair = find_env(req, name);
    if (pair != NULL)
        *pair = req->env[--req->env_count];
}

void
pc_env_apply(struct pc_req *req)
{
    for (uint32_t i = 0; i < req->layer_count; i++) {
        const struct pc_settings *layer = req->layers[i];
        for (uint32_t j = 0; j < layer->unset_env_count; j++)
            env_unset(req, layer->unset_env[j]);
        for (uint32_t j = 0; j < layer->env_count; j++)
            pc_env_set(req, layer->env[j].name, layer->env[j].value);
    }
}

/* env=NAME, env=!NAME */
static bool
holds(const struct pc_req *req, struct pc_slice condition)
{
    if (condition.len == 0)
        return true;
    bool is_negated = condition.base[0] == '!';
    struct pc_slice name = {condition.base + is_negated, condition.len - is_negated};
    return (pc_env_get(req, name).base != NULL) != is_negated;
}

/* ------------------------------------------------------------------ values */

/* A value that is one literal, as most are: not copied. base NULL = it is not. */
static struct pc_slice
as_literal(struct pc_slice ops)
{
    if (ops.len == 0)
        return PC_S("");
    size_t len = (size_t)((uint8_t)ops.base[2] | (uint8_t)ops.base[3] << 8);
    if (ops.base[0] != PC_FMT_LITERAL || ops.base[1] != 0 || len != ops.len - 4)
        return (struct pc_slice){0};
    return (struct pc_slice){ops.base + 4, len};
}

static struct pc_slice
make_value(struct pc_req *req, struct pc_slice ops)
{
    char out[VALUE_BYTES];
    struct pc_slice value = as_literal(ops);
    if (value.base != NULL)
        return value;
    return pc_arena_copy(req->arena, (struct pc_slice){out, pc_format_write(req, ops, false, out, sizeof out)});
}

static struct pc_slice
join_values(struct pc_req *req, struct pc_slice old, struct pc_slice more)
{
    char *out = pc_arena_alloc(req->arena, old.len + 2 + more.len);
    memcpy(out, old.base, old.len);
    memcpy(out + old.len, ", ", 2);
    memcpy(out + old.len + 2, more.base, more.len);
    return (struct pc_slice){out, old.len + 2 + more.len};
}

/* Whether a comma-separated list holds the item (merge). Quoted commas do not separate. */
static bool
list_has(struct pc_slice list, struct pc_slice item)
{
    bool is_quoted = false;
    size_t from = 0;
    for (size_t i = 0; i <= list.len; i++) {
        if (i < list.len && list.base[i] == '"')
            is_quoted = !is_quoted;
        if (i < list.len && (is_quoted || list.base[i] != ','))
            continue;
        size_t to = i;
        while (from < to && (list.base[from] == ' ' || list.base[from] == '\t'))
            from++;
        while (to > from && (list.base[to - 1] == ' ' || list.base[to - 1] == '\t'))
            to--;
        if (pc_slice_eq((struct pc_slice){list.base + from, to - from}, item))
            return true;
        from = i + 1;
    }
    return false;
}

/* The value behind edit (first match) or edit* (all of them). */
static struct pc_slice
edit_value(struct pc_req *req, const struct pc_header_op *op, struct pc_slice value)
{
    struct pc_slice with = as_literal(op->value), result = PC_S(""), rest = value;
    struct pc_span groups[10];
    bool is_changed = false;
    while (pc_regex_match(op->pattern, rest, groups) > 0) {
        is_changed = true;
        size_t end = groups[0].at + groups[0].len;
        struct pc_slice expanded = pc_regex_expand(req->arena, with, rest, groups, false);
        size_t step = groups[0].len == 0 && end < rest.len ? 1 : 0; /* an empty match goes on behind the next byte */
        char *out = pc_arena_alloc(req->arena, result.len + groups[0].at + expanded.len + step);
        memcpy(out, result.base, result.len);
        memcpy(out + result.len, rest.base, groups[0].at);
        memcpy(out + result.len + groups[0].at, expanded.base, expanded.len);
        memcpy(out + result.len + groups[0].at + expanded.len, rest.base + end, step);
        result = (struct pc_slice){out, result.len + groups[0].at + expanded.len + step};
        rest = (struct pc_slice){rest.base + end + step, rest.len - end - step};
        if (!op->edit_all || rest.len == 0)
            break;
    }
    if (!is_changed)
        return value;
    char *out = pc_arena_alloc(req->arena, result.len + rest.len + 1);
    memcpy(out, result.base, result.len);
    memcpy(out + result.len, rest.base, rest.len);
    return (struct pc_slice){out, result.len + rest.len};
}

/* ------------------------------------------------------------------ Header */

/* Fields that frame the message or are the server's own word are not Header's. */
static bool
is_reserved(struct pc_slice name)
{
    static const struct pc_slice names[] = {
        {"Content-Length", 14}, {"Transfer-Encoding", 17}, {"Connection", 10}, {"Keep-Alive", 10}, {"Date", 4}, {"Server", 6},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (pc_slice_ieq(names[i], name))
            return true;
    return false;
}

static void
echo_fields(struct pc_req *req, const struct pc_header_op *op)
{
    struct pc_span groups[10];
    for (uint32_t i = 0; i < req->head->field_count; i++) {
        struct pc_slice name = pc_slice_at(req->raw, req->head->fields[i].name);
        if (!is_reserved(name) && pc_regex_match(op->pattern, name, groups) > 0)
            pc_resp_add(req, name, pc_slice_at(req->raw, req->head->fields[i].value));
    }
}

static void
edit_fields(struct pc_req *req, const struct pc_header_op *op)
{
    for (uint32_t i = 0; i < req->resp.field_count; i++) {
        struct pc_out_field *field = &req->resp.fields[i];
        if (pc_slice_ieq(field->name, op->name))
            field->value = edit_value(req, op, field->value);
    }
}

static void
apply_op(struct pc_req *req, const struct pc_header_op *op)
{
    struct pc_out_field *old;
    if (op->action == PC_HDR_ECHO) {
        echo_fields(req, op);
        return;
    }
    if (op->action == PC_HDR_NOTE) { /* a note is a variable that only this response's log sees */
        struct pc_slice value = pc_resp_get(req, op->name);
        if (value.base != NULL)
            pc_env_set(req, make_value(req, op->value), value);
        return;
    }
    if (is_reserved(op->name))
        return;
    if (op->action == PC_HDR_UNSET) {
        pc_resp_unset(req, op->name);
        return;
    }
    if (op->action == PC_HDR_EDIT) {
        edit_fields(req, op);
        return;
    }
    struct pc_slice value = make_value(req, op->value);
    old = find_field(req, op->name);
    if (op->action == PC_HDR_SET)
        pc_resp_set(req, op->name, value);
    else if (op->action == PC_HDR_ADD || old == NULL)
        pc_resp_add(req, op->name, value);
    else if (op->action == PC_HDR_APPEND || (op->action == PC_HDR_MERGE && !list_has(old->value, value)))
        old->value = join_values(req, old->value, value);
}

void
pc_fields_apply(struct pc_req *req)
{
    uint32_t status = req->resp.status;
    bool is_document = req->error_status != 0 && req->resp.body == PC_BODY_FILE; /* a success of its own, as in httpd */
    bool is_success = (status >= 200 && status < 300) || status == 304 || is_document;
    bool any = false;
    for (uint32_t i = 0; i < req->layer_count; i++) {
        const struct pc_settings *layer = req->layers[i];
        for (uint32_t j = 0; j < layer->header_count; j++) {
            if ((!is_success && !layer->headers[j].always) || !holds(req, layer->headers[j].env))
                continue;
            apply_op(req, &layer->headers[j]);
            any = true;
        }
    }
    if (any && req->resp.content_type.len > 0)
        req->resp.content_type = pc_resp_get(req, PC_S("Content-Type"));
}

/* ------------------------------------------------------------------ RequestHeader */

struct pc_slice
pc_fields_in(const struct pc_req *req, struct pc_slice name)
{
    for (uint32_t i = req->in_edit_count; i-- > 0;)
        if (pc_slice_ieq(req->in_edits[i].name, name))
            return req->in_edits[i].value;
    return pc_head_find(req->head, req->raw, name);
}

bool
pc_fields_is_edited(const struct pc_req *req, struct pc_slice name)
{
    for (uint32_t i = 0; i < req->in_edit_count; i++)
        if (pc_slice_ieq(req->in_edits[i].name, name))
            return true;
    return false;
}

/* What RequestHeader made of `name`, unless it is gone or already there. */
static uint32_t
add_edited(const struct pc_req *req, struct pc_slice name, struct pc_pair *fields, uint32_t count)
{
    struct pc_slice value = pc_fields_in(req, name);
    for (uint32_t i = 0; i < count; i++)
        if (pc_slice_ieq(fields[i].name, name))
            return count;
    if (value.base != NULL)
        fields[count++] = (struct pc_pair){.name = name, .value = value};
    return count;
}

uint32_t
pc_fields_in_all(const struct pc_req *req, struct pc_pair **ret_fields)
{
    const struct pc_head *head = req->head;
    struct pc_pair *fields = pc_arena_alloc(req->arena, (head->field_count + req->in_edit_count) * sizeof *fields);
    uint32_t count = 0;
    for (uint32_t i = 0; i < head->field_count; i++) {
        struct pc_slice name = pc_slice_at(req->raw, head->fields[i].name);
        if (req->in_edit_count > 0 && pc_fields_is_edited(req, name))
            count = add_edited(req, name, fields, count);
        else
            fields[count++] = (struct pc_pair){.name = name, .value = pc_slice_at(req->raw, head->fields[i].value)};
    }
    for (uint32_t i = 0; i < req->in_edit_count; i++)
        count = add_edited(req, req->in_edits[i].name, fields, count);
    *ret_fields = fields;
    return count;
}

/* Returns whether the field has a new value, or is gone (base NULL). */
static bool
edit_request(struct pc_req *req, const struct pc_header_op *op, struct pc_slice *ret_value)
{
    struct pc_slice old = pc_fields_in(req, op->name);
    if (op->action == PC_HDR_UNSET) {
        *ret_value = (struct pc_slice){0};
        return old.base != NULL;
    }
    if (op->action == PC_HDR_EDIT) {
        if (old.base == NULL)
            return false;
        *ret_value = edit_value(req, op, old);
        return true;
    }
    if (op->action == PC_HDR_ECHO || op->action == PC_HDR_NOTE)
        return false;
    if (op->action == PC_HDR_SETIFEMPTY && old.len > 0)
        return false;
    struct pc_slice value = make_value(req, op->value);
    if (op->action == PC_HDR_SET || op->action == PC_HDR_SETIFEMPTY || old.base == NULL) {
        *ret_value = value;
        return true;
    }
    if (op->action == PC_HDR_MERGE && list_has(old, value))
        return false;
    *ret_value = join_values(req, old, value);
    return true;
}

void
pc_fields_apply_request(struct pc_req *req)
{
    uint32_t most = 0;
    req->in_edit_count = 0;
    for (uint32_t i = 0; i < req->layer_count; i++)
        most += req->layers[i]->request_header_count;
    bool has_front = req->front_field.name.base != NULL; /* RemoteIPHeader has used part of a field, or all of it */
    most += has_front;
    if (most == 0)
        return;
    req->in_edits = pc_arena_alloc(req->arena, most * sizeof *req->in_edits);
    if (has_front)
        req->in_edits[req->in_edit_count++] = req->front_field;
    for (uint32_t i = 0; i < req->layer_count; i++) {
        const struct pc_settings *layer = req->layers[i];
        for (uint32_t j = 0; j < layer->request_header_count; j++) {
            const struct pc_header_op *op = &layer->request_headers[j];
            struct pc_slice value;
            if (holds(req, op->env) && edit_request(req, op, &value))
                req->in_edits[req->in_edit_count++] = (struct pc_pair){.name = op->name, .value = value};
        }
    }
}

const struct pc_head *
pc_fields_head(struct pc_req *req)
{
    static const struct { struct pc_slice name; enum pc_field_id id; } fields[] = {
        {{"Range", 5}, PC_F_RANGE}, {{"If-Range", 8}, PC_F_IF_RANGE}, {{"If-Match", 8}, PC_F_IF_MATCH},
        {{"If-None-Match", 13}, PC_F_IF_NONE_MATCH}, {{"If-Modified-Since", 17}, PC_F_IF_MODIFIED_SINCE},
        {{"If-Unmodified-Since", 19}, PC_F_IF_UNMODIFIED_SINCE},
    };
    if (req->in_edit_count == 0)
        return req->head;
    struct pc_head *copy = pc_arena_alloc(req->arena, sizeof *copy);
    *copy = *req->head;
    for (uint32_t i = 0; i < req->in_edit_count; i++)
        for (size_t j = 0; j < sizeof fields / sizeof fields[0]; j++)
            if (pc_slice_ieq(req->in_edits[i].name, fields[j].name))
                copy->known[fields[j].id] = 0; /* a rewritten condition is no condition of the client's */
    return copy;
}

/* ------------------------------------------------------------------ phrases */

struct phrase {
    uint32_t status;
    const char *text;
};

static const struct phrase phrases[] = {
    {100, "Continue"}, {101, "Switching Protocols"}, {102, "Processing"}, {103, "Early Hints"},
    {200, "OK"}, {201, "Created"}, {202, "Accepted"}, {203, "Non-Authoritative Information"}, {204, "No Content"},
    {205, "Reset Content"}, {206, "Partial Content"}, {207, "Multi-Status"}, {208, "Already Reported"}, {226, "IM Used"},
    {300, "Multiple Choices"}, {301, "Moved Permanently"}, {302, "Found"}, {303, "See Other"}, {304, "Not Modified"},
    {305, "Use Proxy"}, {307, "Temporary Redirect"}, {308, "Permanent Redirect"},
    {400, "Bad Request"}, {401, "Unauthorized"}, {402, "Payment Required"}, {403, "Forbidden"}, {404, "Not Found"},
    {405, "Method Not Allowed"}, {406, "Not Acceptable"}, {407, "Proxy Authentication Required"}, {408, "Request Timeout"},
    {409, "Conflict"}, {410, "Gone"}, {411, "Length Required"}, {412, "Precondition Failed"},
    {413, "Request Entity Too Large"}, {414, "Request-URI Too Long"}, {415, "Unsupported Media Type"},
    {416, "Requested Range Not Satisfiable"}, {417, "Expectation Failed"}, {421, "Misdirected Request"},
    {422, "Unprocessable Entity"}, {423, "Locked"}, {424, "Failed Dependency"}, {425, "Too Early"},
    {426, "Upgrade Required"}, {428, "Precondition Required"}, {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"}, {451, "Unavailable For Legal Reasons"},
    {500, "Internal Server Error"}, {501, "Not Implemented"}, {502, "Bad Gateway"}, {503, "Service Unavailable"},
    {504, "Gateway Timeout"}, {505, "HTTP Version Not Supported"}, {506, "Variant Also Negotiates"},
    {507, "Insufficient Storage"}, {508, "Loop Detected"}, {510, "Not Extended"}, {511, "Network Authentication Required"},
};

const char *
pc_status_phrase(uint32_t status)
{
    if (status == 200)
        return "OK";
    for (size_t i = 0; i < sizeof phrases / sizeof phrases[0]; i++)
        if (phrases[i].status == status)
            return phrases[i].text;
    return "Unknown";
}
