/* mime.c - what the extensions of a file name say: media type, charset, content coding (mod_mime).
 * Runs as:  child, as the identity that owns the host.   Sees: file names.
 * Trusts:   the types table, checked when it was mapped.   Distrusts: the name.
 * Before:   file.c   After: fields.c */
#include <string.h>

#include "serve.h"

#define TYPES_HEAD 16
#define EXTENSION_BYTES 32 /* longer ones are in no table of ours */

static uint32_t
read_u32(const char *at)
{
    uint32_t number;
    memcpy(&number, at, sizeof number);
    return number;
}

static uint16_t
read_u16(const char *at)
{
    uint16_t number;
    memcpy(&number, at, sizeof number);
    return number;
}

int
pc_types_check(struct pc_slice table)
{
    if (table.len < TYPES_HEAD || memcmp(table.base, "PCTYPES1", 8) != 0 || read_u32(table.base + 8) != table.len)
        return -PC_E_FORMAT;
    uint32_t count = read_u32(table.base + 12);
    if (count == 0 || (count & (count - 1)) != 0 || count > (table.len - TYPES_HEAD) / 4)
        return -PC_E_FORMAT;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = read_u32(table.base + TYPES_HEAD + 4 * (size_t)i);
        if (at == 0)
            continue;
        if (at < TYPES_HEAD + 4 * (size_t)count || at > table.len - 4)
            return -PC_E_FORMAT;
        if ((size_t)read_u16(table.base + at) + read_u16(table.base + at + 2) > table.len - at - 4)
            return -PC_E_FORMAT;
    }
    return 0;
}

struct pc_slice
pc_types_find(struct pc_slice table, struct pc_slice extension)
{
    if (table.len < TYPES_HEAD)
        return (struct pc_slice){0};
    uint32_t mask = read_u32(table.base + 12) - 1, slot = pc_crc32(extension.base, extension.len) & mask;
    for (uint32_t tries = 0; tries <= mask; tries++, slot = (slot + 1) & mask) {
        uint32_t at = read_u32(table.base + TYPES_HEAD + 4 * (size_t)slot);
        if (at == 0)
            break;
        struct pc_slice key = {table.base + at + 4, read_u16(table.base + at)};
        if (pc_slice_eq(key, extension))
            return (struct pc_slice){key.base + key.len, read_u16(table.base + at + 2)};
    }
    return (struct pc_slice){0};
}

/* ------------------------------------------------------------------ AddType, AddCharset, AddEncoding */

/* Where in struct pc_settings one of the three lists is. */
struct list_at {
    size_t list, count;
};
#define LIST_AT(member, counter) {offsetof(struct pc_settings, member), offsetof(struct pc_settings, counter)}
static const struct list_at types_at = LIST_AT(types, type_count);
static const struct list_at charsets_at = LIST_AT(charsets, charset_count);
static const struct list_at encodings_at = LIST_AT(encodings, encoding_count);
static const struct list_at handlers_at = LIST_AT(handlers, handler_count);

static struct pc_slice
find_added(const struct pc_req *req, const struct list_at *which, struct pc_slice extension)
{
    for (uint32_t i = req->layer_count; i-- > 0;) {
        const char *layer = (const char *)req->layers[i];
        uint32_t count = *(const uint32_t *)(const void *)(layer + which->count);
        const struct pc_pair *list = count > 0 ? *(struct pc_pair *const *)(const void *)(layer + which->list) : NULL;
        while (count-- > 0) /* of two in one section the later counts */
            if (pc_slice_eq(list[count].name, extension))
                return list[count].value;
    }
    return (struct pc_slice){0};
}

struct found {
    struct pc_slice type, charset, encoding;
};

/* The name's next extension, lower case in `lower`; base NULL = there is none. *at begins as the whole name. Longer ones than
 * any table of ours has are passed over. */
static struct pc_slice
next_extension(struct pc_slice *at, char lower[EXTENSION_BYTES])
{
    while (at->len > 0) {
        const char *end = at->base + at->len, *dot = memchr(at->base, '.', at->len);
        struct pc_slice raw = {at->base, (size_t)((dot != NULL ? dot : end) - at->base)};
        *at = dot != NULL ? (struct pc_slice){dot + 1, (size_t)(end - dot - 1)} : (struct pc_slice){end, 0};
        if (raw.len == 0 || raw.len > EXTENSION_BYTES)
            continue;
        for (size_t i = 0; i < raw.len; i++)
            lower[i] = raw.base[i] >= 'A' && raw.base[i] <= 'Z' ? (char)(raw.base[i] | 0x20) : raw.base[i];
        return (struct pc_slice){lower, raw.len};
    }
    return (struct pc_slice){0};
}

/* What is behind the name's first dot; .profile has no extension, .a.b has "b". */
static struct pc_slice
extensions_of(struct pc_slice filename)
{
    const char *end = filename.base + filename.len, *at = end;
    while (at > filename.base && at[-1] != '/')
        at--;
    const char *dot = memchr(at, '.', (size_t)(end - at));
    if (dot == at && dot != NULL)
        dot = memchr(at + 1, '.', (size_t)(end - at) - 1);
    return dot != NULL ? (struct pc_slice){dot + 1, (size_t)(end - dot - 1)} : (struct pc_slice){0};
}

static void
learn_extension(const struct pc_req *req, struct pc_slice extension, struct found *found)
{
    struct pc_slice type = find_added(req, &types_at, extension);
    if (type.base == NULL)
        type = pc_types_find(req->config->types, extension);
    struct pc_slice charset = find_added(req, &charsets_at, extension);
    struct pc_slice encoding = find_added(req, &encodings_at, extension);
    if (type.base != NULL)
        found->type = type;
    if (charset.base != NULL)
        found->charset = charset;
    if (encoding.base == NULL || encoding.len == 0)
        return;
    if (found->encoding.len == 0)
        found->encoding = encoding;
    else /* a.tar.gz.Z: applied in the order of the name */
        found->encoding = pc_arena_print(req->arena, "%.*s, %.*s", (int)found->encoding.len, found->encoding.base,
                                         (int)encoding.len, encoding.base);
}

static void
learn_name(const struct pc_req *req, struct pc_slice filename, struct found *found)
{
    char lower[EXTENSION_BYTES];
    struct pc_slice rest = extensions_of(filename), extension;
    while ((extension = next_extension(&rest, lower)).base != NULL)
        learn_extension(req, extension, found);
}

struct pc_slice
pc_media_handler(const struct pc_req *req, struct pc_slice filename)
{
    char lower[EXTENSION_BYTES];
    struct pc_slice rest = extensions_of(filename), extension, found = {0};
    while (req->host->has_programs && (extension = next_extension(&rest, lower)).base != NULL) {
        struct pc_slice handler = find_added(req, &handlers_at, extension);
        if (handler.base != NULL)
            found = handler;
    }
    return found;
}

/* AddDefaultCharset concerns these two only. */
static bool
takes_default_charset(struct pc_slice type)
{
    return pc_slice_ieq(type, PC_S("text/plain")) || pc_slice_ieq(type, PC_S("text/html"));
}

void
pc_media_find(const struct pc_req *req, struct pc_slice filename, struct pc_media *ret_media)
{
    static const char join[] = "; charset=";
    struct found found = {0};
    learn_name(req, filename, &found);
    struct pc_slice forced = PC_LAYERS_SLICE(req, force_type);
    if (forced.len > 0)
        found.type = forced;
    if (found.type.len == 0)
        found.type = PC_LAYERS_SLICE(req, default_type);
    ret_media->encoding = found.encoding;
    ret_media->type = found.type;
    if (found.type.len == 0 || memchr(found.type.base, ';', found.type.len) != NULL)
        return;
    if (found.charset.len == 0 && takes_default_charset(found.type))
        found.charset = PC_LAYERS_SLICE(req, default_charset);
    if (found.charset.len == 0)
        return;
    size_t joined = sizeof join - 1;
    char *out = pc_arena_alloc(req->arena, found.type.len + joined + found.charset.len);
    memcpy(out, found.type.base, found.type.len);
    memcpy(out + found.type.len, join, joined);
    memcpy(out + found.type.len + joined, found.charset.base, found.charset.len);
    ret_media->type = (struct pc_slice){out, found.type.len + joined + found.charset.len};
}
