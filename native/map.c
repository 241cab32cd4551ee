/* map.c - from a URL path to a place in the file system and to the sections that apply there.
 * Runs as:  child, as the identity that owns the host.   Sees: the decoded, normalised path.
 * Trusts:   the host's configuration.   Distrusts: the path; what a pattern makes of it (".." is refused again here).
 * Before:   request.c   After: access.c, file.c
 *
 * Order, as httpd's: Redirect and RedirectMatch outside sections, Alias and AliasMatch in the order they are written,
 * DocumentRoot; then settings from the least to the most specific: everything outside sections, Directory by depth,
 * DirectoryMatch, Files and FilesMatch (those inside a Directory behind the others), Location and LocationMatch. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memrchr */
#endif
#include <string.h>

#include "serve.h"

/* ------------------------------------------------------------------ URLs of our own */

struct pc_slice
pc_map_escape(struct pc_req *req, struct pc_slice path)
{
    char *out = pc_arena_alloc(req->arena, 3 * path.len + 1);
    size_t len = pc_escape_path(path, out);
    return (struct pc_slice){out, len};
}

struct pc_slice
pc_map_self(struct pc_req *req)
{
    uint16_t port = req->port_out != 0 ? req->port_out : req->name.port;
    struct pc_slice name = {req->name.name, req->name.len};
    const char *scheme = req->is_tls ? "https" : "http";
    if (name.len == 0)
        name = pc_host_name(req->host);
    if (port == 0 || port == (req->is_tls ? 443 : 80))
        return pc_arena_print(req->arena, "%s://%.*s", scheme, (int)name.len, name.base);
    return pc_arena_print(req->arena, "%s://%.*s:%u", scheme, (int)name.len, name.base, (unsigned)port);
}

/* Length of the part of `path` that `prefix` names, as httpd's alias_matches: whole components; "/a/" does not name "/a".
 * 0 = no match. */
static size_t
match_prefix(struct pc_slice path, struct pc_slice prefix)
{
    if (prefix.len == 0 || !pc_slice_starts(path, prefix))
        return 0;
    if (prefix.base[prefix.len - 1] == '/' || path.len == prefix.len || path.base[prefix.len] == '/')
        return prefix.len;
    return 0;
}

/* ------------------------------------------------------------------ Redirect */

/* Make it absolute, and append the request's query unless there is one. */
static struct pc_slice
complete_url(struct pc_req *req, struct pc_slice url)
{
    bool takes_query = req->query.base != NULL && (url.len == 0 || memchr(url.base, '?', url.len) == NULL);
    struct pc_slice self = url.len > 0 && url.base[0] == '/' ? pc_map_self(req) : PC_S("");
    if (self.len == 0 && !takes_query)
        return url;
    size_t len = self.len + url.len;
    char *out = pc_arena_alloc(req->arena, len + 1 + req->query.len);
    memcpy(out, self.base, self.len);
    memcpy(out + self.len, url.base, url.len);
    if (takes_query) {
        out[len] = '?';
        memcpy(out + len + 1, req->query.base, req->query.len);
        len += 1 + req->query.len;
    }
    return (struct pc_slice){out, len};
}

static bool
try_redirect(struct pc_req *req, const struct pc_redirect *redirect, struct pc_slice *ret_url)
{
    struct pc_span groups[10];
    struct pc_slice url = redirect->to;
    if (redirect->kind == 1) {
        if (pc_regex_match(redirect->pattern, req->path, groups) <= 0)
            return false;
        if (url.base != NULL)
            url = pc_regex_expand(req->arena, url, req->path, groups, true);
    } else if (redirect->kind == 0) {
        size_t matched = match_prefix(req->path, redirect->from);
        if (matched == 0)
            return false;
        struct pc_slice rest = {req->path.base + matched, req->path.len - matched};
        if (url.base != NULL && rest.len > 0) {
            rest = pc_map_escape(req, rest);
            char *out = pc_arena_alloc(req->arena, url.len + rest.len);
            memcpy(out, url.base, url.len);
            memcpy(out + url.len, rest.base, rest.len);
            url = (struct pc_slice){out, url.len + rest.len};
        }
    }
    *ret_url = url.base != NULL && redirect->status < 400 ? complete_url(req, url) : (struct pc_slice){0};
    return true;
}

uint32_t
pc_map_redirect(struct pc_req *req, const struct pc_settings *settings, struct pc_slice *ret_url)
{
    for (uint32_t i = 0; i < settings->redirect_count; i++)
        if (try_redirect(req, &settings->redirects[i], ret_url))
            return settings->redirects[i].status;
    return 0;
}

/* ------------------------------------------------------------------ Alias and DocumentRoot */

static bool
has_dot_dot(struct pc_slice path)
{
    for (size_t i = 0; i + 1 < path.len; i++) {
        bool starts = i == 0 || path.base[i - 1] == '/';
        bool ends = i + 2 == path.len || path.base[i + 2] == '/';
        if (starts && ends && path.base[i] == '.' && path.base[i + 1] == '.')
            return true;
    }
    return false;
}

static struct pc_slice
without_slash(struct pc_slice path)
{
    while (path.len > 1 && path.base[path.len - 1] == '/')
        path.len--;
    return path;
}

/* root + '/' + rest in one piece, NUL-terminated; rest without slashes before it. */
static void
join_place(struct pc_req *req, struct pc_slice root, struct pc_slice rest, struct pc_place *ret_place)
{
    size_t root_len = root.len == 1 ? 0 : root.len; /* "/" brings its own slash */
    char *out = pc_arena_alloc(req->arena, root_len + 1 + rest.len + 1);
    memcpy(out, root.base, root_len);
    out[root_len] = '/';
    memcpy(out + root_len + 1, rest.base, rest.len);
    out[root_len + 1 + rest.len] = '\0';
    req->filename = (struct pc_slice){out, root_len + 1 + rest.len};
    ret_place->root = root;
    ret_place->relative = out + root_len + 1;
}

static void
place_alias(struct pc_req *req, struct pc_alias *alias, size_t matched, struct pc_place *ret_place)
{
    struct pc_slice rest = {req->path.base + matched, req->path.len - matched}, root = pc_map_alias_root(alias);
    bool is_whole = rest.len == 0 && req->path.base[req->path.len - 1] != '/';
    while (rest.len > 0 && rest.base[0] == '/') {
        rest.base++;
        rest.len--;
    }
    ret_place->alias = alias;
    join_place(req, root, rest, ret_place);
    if (is_whole && root.len > 1) /* "/x" for Alias /x: without the slash, so that a directory is redirected and a file is one */
        req->filename = pc_arena_copy(req->arena, root);
}

/* Below which directory an AliasMatch stays, whatever the groups are: the part of `to` before the first of them. */
static struct pc_slice
fixed_part(struct pc_slice to)
{
    const char *dollar = to.len > 0 ? memchr(to.base, '$', to.len) : NULL;
    if (dollar == NULL)
        return without_slash(to);
    size_t len = (size_t)(dollar - to.base);
    while (len > 0 && to.base[len - 1] != '/')
        len--;
    return without_slash((struct pc_slice){to.base, len > 0 ? len : 1});
}

struct pc_slice
pc_map_alias_root(const struct pc_alias *alias)
{
    return pc_alias_is_match(alias->kind) ? fixed_part(alias->to) : without_slash(alias->to);
}

static int
place_match(struct pc_req *req, struct pc_alias *alias, const struct pc_span groups[10], struct pc_place *ret_place)
{
    struct pc_slice path = pc_regex_expand(req->arena, alias->to, req->path, groups, false);
    struct pc_slice root = pc_map_alias_root(alias);
    if (has_dot_dot(path) || memchr(path.base, '\0', path.len) != NULL)
        return -PC_E_FORBIDDEN;
    ret_place->alias = alias;
    ret_place->root = root;
    req->filename = path;
    /* root ends before a slash of path, or is all of it */
    ret_place->relative = path.base + (root.len == 1 ? 0 : root.len);
    while (*ret_place->relative == '/')
        ret_place->relative++;
    return 0;
}

/* 1 placed, 0 the alias does not fit, <0 */
static int
try_alias(struct pc_req *req, struct pc_alias *alias, struct pc_place *ret_place)
{
    struct pc_span groups[10];
    if (pc_alias_is_match(alias->kind)) {
        int result = pc_regex_match(alias->regex, req->path, groups) > 0 ? place_match(req, alias, groups, ret_place) : 1;
        return result == 0 ? 1 : result == 1 ? 0 : result;
    }
    size_t matched = match_prefix(req->path, alias->from);
    if (matched == 0)
        return 0;
    place_alias(req, alias, matched, ret_place);
    return 1;
}

int
pc_map_place(struct pc_req *req, struct pc_place *ret_place)
{
    struct pc_host *host = req->host;
    *ret_place = (struct pc_place){.relative = ""};
    req->by_script_alias = false;
    for (uint32_t i = 0; i < host->alias_count; i++) {
        int tried = try_alias(req, &host->aliases[i], ret_place);
        req->by_script_alias = tried > 0 && pc_alias_is_script(host->aliases[i].kind);
        if (tried != 0)
            return tried < 0 ? tried : 0;
    }
    req->filename = req->path;
    if (host->document_root.len == 0)
        return -PC_E_NOT_FOUND;
    join_place(req, host->document_root, (struct pc_slice){req->path.base + 1, req->path.len - 1}, ret_place);
    return 0;
}

/* ------------------------------------------------------------------ sections */

struct walk {
    struct pc_req *req;
    struct pc_slice name; /* last component of the file name; empty for a directory */
    uint32_t directory_layers; /* so many of req->layers are base or Directory */
    bool failed;
};

static void
add_layer(struct walk *walk, const struct pc_settings *settings)
{
    struct pc_req *req = walk->req;
    if (req->layer_count == PC_MAX_LAYERS) {
        walk->failed = true;
        return;
    }
    req->layers[req->layer_count++] = settings;
}

/* A pattern that gives up at its limit may have been the one that denies: the request fails. */
static bool
matches(struct walk *walk, const struct pc_regex *regex, struct pc_slice subject)
{
    struct pc_span groups[10];
    int result = pc_regex_match(regex, subject, groups);
    if (result < 0)
        walk->failed = true;
    return result > 0;
}

/* Where the first components of `path`, as many as `pattern` has, end; 0 = it has fewer. */
static size_t
same_depth(struct pc_slice pattern, struct pc_slice path)
{
    size_t slashes = 0, at = 0;
    for (size_t i = 0; i < pattern.len; i++)
        slashes += pattern.base[i] == '/';
    for (; at < path.len; at++)
        if (path.base[at] == '/' && slashes-- == 0)
            return at;
    return slashes == 0 && path.len > 0 && path.base[path.len - 1] != '/' ? path.len : 0;
}

static bool
fits_directory(const struct walk *walk, const struct pc_section *section)
{
    struct pc_slice path = walk->req->filename, pattern = section->pattern;
    size_t end = pattern.len;
    if (pattern.len == 1 && pattern.base[0] == '/')
        return true;
    if (section->has_wild) {
        end = same_depth(pattern, path);
        if (end == 0 || !pc_wild_match(pattern, (struct pc_slice){path.base, end}, true, false))
            return false;
    } else if (!pc_slice_starts(path, pattern)) {
        return false;
    }
    /* The very name counts, too, even if it is a file's (as in httpd). */
    return end == path.len || path.base[end] == '/';
}

static bool
fits_files(struct walk *walk, const struct pc_section *section)
{
    if (walk->name.len == 0)
        return false;
    if (section->kind == PC_SECTION_FILES_MATCH)
        return matches(walk, section->regex, walk->name);
    if (section->has_wild)
        return pc_wild_match(section->pattern, walk->name, false, false);
    return pc_slice_eq(section->pattern, walk->name);
}

static bool
fits_location(struct walk *walk, const struct pc_section *section)
{
    if (section->kind == PC_SECTION_LOCATION_MATCH)
        return matches(walk, section->regex, walk->req->path);
    if (section->has_wild)
        return pc_wild_match(section->pattern, walk->req->path, true, false);
    return match_prefix(walk->req->path, section->pattern) > 0;
}

static bool
fits(struct walk *walk, const struct pc_section *section)
{
    switch (section->kind) {
    case PC_SECTION_DIRECTORY:
        return fits_directory(walk, section);
    case PC_SECTION_DIRECTORY_MATCH:
        return matches(walk, section->regex, walk->req->filename);
    case PC_SECTION_FILES:
    case PC_SECTION_FILES_MATCH:
        return fits_files(walk, section);
    default:
        return fits_location(walk, section);
    }
}

/* The record has them in merging order; only Files inside a Directory wait until the other Files are through. */
static void
walk_sections(struct walk *walk)
{
    const struct pc_host *host = walk->req->host;
    const struct pc_section *holders[PC_MAX_LAYERS];
    uint32_t holder_count = 0, i = 0;
    while (walk->req->pass != NULL && i < host->section_count && host->sections[i].kind < PC_SECTION_LOCATION)
        i++; /* a back end has no directories */
    for (; i < host->section_count && host->sections[i].kind < PC_SECTION_LOCATION; i++) {
        const struct pc_section *section = &host->sections[i];
        if (!fits(walk, section))
            continue;
        if (section->inner_count > 0 && holder_count < PC_MAX_LAYERS)
            holders[holder_count++] = section;
        add_layer(walk, &section->settings);
        if (section->kind <= PC_SECTION_DIRECTORY_MATCH)
            walk->directory_layers = walk->req->layer_count;
    }
    for (uint32_t j = 0; j < holder_count; j++)
        for (uint32_t k = 0; k < holders[j]->inner_count; k++)
            if (fits_files(walk, &holders[j]->inner[k]))
                add_layer(walk, &holders[j]->inner[k].settings);
    for (; i < host->section_count; i++)
        if (fits(walk, &host->sections[i]))
            add_layer(walk, &host->sections[i].settings);
}

/* Only what stands outside Files and Location says how links are followed (httpd: Location cannot loosen it). */
static uint32_t
effective_options(const struct walk *walk)
{
    const uint32_t link_bits = PC_OPT_FOLLOWSYMLINKS | PC_OPT_SYMLINKSIFOWNERMATCH;
    const struct pc_req *req = walk->req;
    uint32_t options = PC_OPT_FOLLOWSYMLINKS, links = options;
    for (uint32_t i = 0; i < req->layer_count; i++) {
        const struct pc_settings *layer = req->layers[i];
        if (!layer->has_options)
            continue;
        options = layer->options_absolute ? layer->options_add : (options | layer->options_add) & ~layer->options_remove;
        if (i < walk->directory_layers)
            links = options;
    }
    return (options & ~link_bits) | (links & link_bits);
}

void
pc_map_layers(struct pc_req *req)
{
    struct walk walk = {.req = req, .directory_layers = 1};
    const char *slash = req->filename.len > 0 ? memrchr(req->filename.base, '/', req->filename.len) : NULL;
    if (slash != NULL)
        walk.name = (struct pc_slice){slash + 1, req->filename.len - (size_t)(slash + 1 - req->filename.base)};
    req->layers[0] = &req->host->base;
    req->layer_count = 1;
    if (req->host->section_count > 0)
        walk_sections(&walk);
    if (walk.failed)
        req->layer_count = 0; /* serve.c answers 500: guessing could mean to serve what is forbidden */
    req->options = effective_options(&walk);
}
